//! A sidecar follows the source of its configuration.
//!
//! One task looks when the source stirs or when somebody asks (SIGHUP, `POST /reload`), one look at a time, so a storm of
//! changes is a few reloads and the last one counts. What was tried and found wanting is not tried again before it has
//! changed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::reload::{Assembly, ReloadError};
use crate::config::{Inputs, Report};
use crate::source::{Source, Watch};

/// Why a configuration that was read again is not in use. The old one is.
#[derive(Debug, thiserror::Error)]
pub enum NotReloaded {
    /// It is wrong.
    #[error("{0}")]
    Invalid(Report),
    /// It is good, and cannot be changed to.
    #[error("{0}")]
    Refused(#[from] ReloadError),
    /// It was started with a configuration that is not followed.
    #[error("this sidecar was started with a configuration that it does not follow")]
    NotFollowed,
    /// Nobody answers.
    #[error("the sidecar has stopped")]
    Stopped,
}

/// Somebody wants to know what comes of it.
pub(super) type Ask = oneshot::Sender<Result<(), NotReloaded>>;

/// Follows `source` for ever; `inputs` is what the current configuration was made of.
pub(super) async fn follow(
    assembly: Arc<Assembly>,
    source: Source,
    inputs: Inputs,
    mut asks: mpsc::UnboundedReceiver<Ask>,
) {
    let mut follower = Follower {
        watch: Watch::new(),
        assembly,
        source,
        tried: inputs,
    };
    follower.warn_of_what_never_changes();
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => {
                    let outcome = follower.reload().await;
                    let _gone = ask.send(outcome);
                }
                None => return,
            },
            () = follower.changed() => {
                // It is in the log and in the metrics.
                let _told = follower.reload().await;
            }
        }
    }
}

struct Follower {
    watch: Watch,
    assembly: Arc<Assembly>,
    source: Source,
    /// What was last made a configuration of, or was to be.
    tried: Inputs,
}

impl Follower {
    /// Waits until there is something else to be read. Can be given up at any time.
    async fn changed(&mut self) {
        loop {
            self.watch.stirs(&self.tried).await;
            let tried = self.tried.clone();
            match spawn_blocking(move || tried.now()).await {
                Ok(now) if now != self.tried => {
                    if Watch::settled(now).await != self.tried {
                        return;
                    }
                }
                // What cannot be looked at now will be later.
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn reload(&mut self) -> Result<(), NotReloaded> {
        let outcome = self.attempt().await;
        match &outcome {
            Ok(()) => tracing::info!(source = %self.source, "configuration reloaded"),
            Err(NotReloaded::Invalid(report)) => {
                tracing::error!(%report, "the configuration is not valid; the old one stays");
            }
            Err(error) => tracing::error!(%error, "not reloaded; the old configuration stays"),
        }
        outcome
    }

    async fn attempt(&mut self) -> Result<(), NotReloaded> {
        let source = self.source.clone();
        let read = spawn_blocking(move || source.attempt()).await;
        let attempt = read.map_err(|_| NotReloaded::Stopped)?;
        self.tried = attempt.inputs;
        match attempt.outcome {
            Err(report) => {
                self.assembly.refused(&report);
                Err(NotReloaded::Invalid(report))
            }
            Ok(loaded) => {
                if !loaded.warnings.is_empty() {
                    tracing::warn!(report = %loaded.warnings, "the new configuration has warnings");
                }
                let effective = Some(loaded.effective);
                Ok(self.assembly.reload(loaded.config, effective)?)
            }
        }
    }

    /// Kubernetes mounts a `subPath` as a file by itself, and never brings it a change.
    fn warn_of_what_never_changes(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        for path in self.tried.paths() {
            let Ok(whole) = std::fs::canonicalize(path) else {
                continue;
            };
            if points.iter().any(|point| *point == whole.as_os_str()) {
                tracing::warn!(
                    path = %path.display(),
                    "this file is mounted by itself (`subPath` in Kubernetes): changes of its ConfigMap or Secret never come here; mount the directory"
                );
            }
        }
    }
}
