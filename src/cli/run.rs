//! `wx-sidecar run`: check the configuration, serve until told to stop.
//!
//! SIGHUP reads the configuration again; a bad one changes nothing. SIGTERM or SIGINT drains and ends with 0; a second one
//! ends at once with 1.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use super::signals::{Signals, Wish};
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
        Ok(sidecar) => serve(sidecar, |sidecar| reload(path, sidecar)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal to end, then drains, unless a second signal comes first.
pub(super) fn serve(sidecar: Sidecar, reload: impl Fn(&Sidecar)) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut signals = Signals::listen()?;
            while signals.next().await == Wish::Reload {
                reload(&sidecar);
            }
            tokio::select! {
                () = sidecar.shutdown() => Ok(ExitCode::SUCCESS),
                () = signals.end() => {
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

fn reload(path: &Path, sidecar: &Sidecar) {
    match Config::load(path) {
        Err(report) => {
            tracing::error!(%report, "the configuration is not valid; the old one stays");
        }
        Ok(loaded) => match sidecar.reload(loaded.config) {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "not reloaded; the old configuration stays"),
        },
    }
}
