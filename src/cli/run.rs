//! `wx-sidecar run`: check the configuration, serve until told to stop.
//!
//! It follows its configuration: a change is taken over by itself, SIGHUP has it read at once, and a bad one changes
//! nothing. SIGTERM or SIGINT drains and ends with 0; a second one
//! ends at once with 1.

use std::io::IsTerminal;
use std::process::ExitCode;

use super::signals::{Signals, Wish};
use super::systemd::Systemd;
use crate::resilience::panics::log_panics;
use crate::server::{NotReloaded, Sidecar};
use crate::source::Source;
use crate::telemetry::logs;

/// Runs the sidecar.
pub fn run(source: &Source) -> ExitCode {
    let styled = std::io::stderr().is_terminal();
    let (loaded, feed) = match source.begin() {
        Ok(begun) => begun,
        Err(report) => {
            eprint!("{}", report.render(styled));
            return ExitCode::FAILURE;
        }
    };
    if !loaded.warnings.is_empty() {
        eprint!("{}", loaded.warnings.render(styled));
    }
    logs::init(&loaded.config.log);
    log_panics();
    serve(|| {
        let sidecar = Sidecar::start(loaded.config).map_err(|error| error.to_string())?;
        sidecar.follow(feed, &loaded.effective);
        Ok(sidecar)
    })
}

/// Starts a sidecar and serves until a signal to end, then drains, unless a second signal comes first.
///
/// Signals are listened for before the start: once it says that it serves, none may end it the hard way.
pub(super) fn serve(start: impl FnOnce() -> Result<Sidecar, String>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime.block_on(async {
                let mut signals =
                    Signals::listen().map_err(|error| format!("no signals: {error}"))?;
                let sidecar = start()?;
                let systemd = Systemd::from_env();
                systemd.ready();
                let serving = until_told_to_end(&sidecar, &mut signals, &systemd);
                let is_told = tokio::select! {
                    is_told = serving => is_told,
                    never = systemd.watch(|| sidecar.check_threads()) => match never {},
                };
                if !is_told {
                    return Ok(ExitCode::FAILURE);
                }
                systemd.stopping();
                tokio::select! {
                    () = sidecar.shutdown() => Ok(ExitCode::SUCCESS),
                    // A drain may take longer than the watchdog waits.
                    never = systemd.watch(|| Ok(())) => match never {},
                    () = signals.end() => {
                        tracing::warn!("a second signal: ending at once");
                        logs::flush();
                        std::process::exit(1)
                    }
                }
            })
        });
    outcome.unwrap_or_else(|error: String| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Whether it was told to, or has ended by itself.
async fn until_told_to_end(sidecar: &Sidecar, signals: &mut Signals, systemd: &Systemd) -> bool {
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            () = sidecar.ended() => return false,
        };
        if wish == Wish::End {
            return true;
        }
        systemd.reloading();
        tokio::select! {
            outcome = sidecar.reload_from_source() => {
                if let Err(NotReloaded::NotFollowed) = outcome {
                    if signals.hangup_ends() {
                        return true;
                    }
                    tracing::info!("nothing to reload: no file is followed");
                }
            }
            // A file system that hangs keeps nobody from ending.
            () = signals.end() => return true,
        }
        systemd.ready();
    }
}
