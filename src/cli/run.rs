//! `wx-sidecar run`: check the configuration, serve until told to stop.
//!
//! SIGTERM or SIGINT drains and ends with 0; a second one ends at once with 1.

use std::future::Future;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use super::signals::Ending;
use crate::config::Config;
use crate::server::Sidecar;
use crate::telemetry::logs;

/// Runs the sidecar.
pub fn run(path: &Path) -> ExitCode {
    let styled = std::io::stderr().is_terminal();
    let loaded = match Config::load(path) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(styled));
            return ExitCode::FAILURE;
        }
    };
    if !loaded.warnings.is_empty() {
        eprint!("{}", loaded.warnings.render(styled));
    }
    logs::init(&loaded.config.log);
    match Sidecar::start(loaded.config) {
        Ok(sidecar) => until_told_to_stop(sidecar.shutdown()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal, then for `shutdown`, unless a second signal comes first.
pub(super) fn until_told_to_stop(shutdown: impl Future<Output = ()>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut ending = Ending::listen()?;
            ending.next().await;
            tokio::select! {
                () = shutdown => Ok(ExitCode::SUCCESS),
                () = ending.next() => {
                    tracing::warn!("a second signal: ending at once");
                    std::process::exit(1)
                }
            }
        })
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: cannot wait for signals: {error}");
        ExitCode::FAILURE
    })
}
