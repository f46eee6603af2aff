//! A sidecar follows the source of its configuration.
//!
//! One task looks when the source stirs or when somebody asks (SIGHUP, `POST /reload`), one look at a time, so a storm of
//! changes is a few reloads and the last one counts. What was tried and found wanting is not tried again before it has
//! changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::reload::{Assembly, ReloadError};
use crate::config::Report;
use crate::source::{Feed, Unread};

/// How soon a configuration is tried again that could not be used when it came.
const RETRY_EVERY: Duration = Duration::from_secs(1);

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
    /// Its source cannot be read.
    #[error("the configuration cannot be read: {0}")]
    Unread(String),
    /// What is known of its source is in use now, and nobody knows whether that is all.
    #[error("what is known of the configuration is in use, but its source cannot be read: {0}")]
    PerhapsOld(String),
    /// Nobody answers.
    #[error("the sidecar has stopped")]
    Stopped,
}

/// Somebody wants to know what comes of it.
pub(super) type Ask = oneshot::Sender<Result<(), NotReloaded>>;

/// Follows its source for ever.
pub(super) async fn follow(
    assembly: Arc<Assembly>,
    feed: Feed,
    mut asks: mpsc::UnboundedReceiver<Ask>,
) {
    let mut follower = Follower {
        assembly,
        feed,
        failure: None,
        tries_again: false,
    };
    // It has been read, or is found wanting in a moment.
    follower.assembly.source_is_up(None);
    follower.warn_of_the_copy();
    follower.warn_of_what_never_changes();
    follower.feed.in_use().await;
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => {
                    let outcome = match (follower.reload().await, follower.feed.failure()) {
                        (Ok(()), Some(why)) => Err(NotReloaded::PerhapsOld(why)),
                        (outcome, _) => outcome,
                    };
                    let _gone = ask.send(outcome);
                }
                None => return,
            },
            () = follower.feed.changed() => follower.look().await,
            () = sleep(RETRY_EVERY), if follower.tries_again => follower.try_again().await,
        }
    }
}

struct Follower {
    assembly: Arc<Assembly>,
    feed: Feed,
    /// Why the source could not be read when it was last looked at.
    failure: Option<String>,
    /// Whether what was refused last may do later.
    tries_again: bool,
}

impl Follower {
    /// Sees what has changed: the source's being there, or what it says.
    async fn look(&mut self) {
        let failure = self.feed.failure();
        if failure != self.failure {
            let source = self.feed.source();
            match &failure {
                Some(why) => {
                    tracing::warn!(%source, %why, "the configuration's source cannot be read; what is in use stays");
                }
                None => tracing::info!(%source, "the configuration's source can be read again"),
            }
            self.assembly.source_is_up(failure.as_deref());
            self.failure = failure;
        }
        if self.feed.has_news().await {
            // It is in the log and in the metrics.
            let _told = self.reload().await;
        }
    }

    /// What was refused for a reason that may have passed. Nothing is said of it again before it is in use.
    async fn try_again(&mut self) {
        if self.feed.has_news().await {
            // That is another one, and whatever comes of it is told.
            let _told = self.reload().await;
            return;
        }
        let Ok(attempt) = self.feed.attempt().await else {
            return;
        };
        let loaded = match attempt.outcome {
            Ok(loaded) => loaded,
            Err(report) => {
                tracing::error!(%report, "the configuration is not valid; the old one stays");
                self.assembly.refused(&report);
                self.tries_again = false;
                return;
            }
        };
        let again = self
            .assembly
            .reload_again(loaded.config, Some(&loaded.effective));
        match again {
            Ok(()) => {
                self.tries_again = false;
                self.feed.in_use().await;
                tracing::info!(source = %self.feed.source(), "configuration reloaded, at another attempt");
            }
            Err(error) if error.may_pass() => {}
            Err(error) => {
                tracing::error!(%error, "not reloaded; the old configuration stays");
                self.assembly.refused(&error);
                self.tries_again = false;
            }
        }
    }

    async fn reload(&mut self) -> Result<(), NotReloaded> {
        let outcome = self.attempt().await;
        self.tries_again = matches!(&outcome, Err(NotReloaded::Refused(error)) if error.may_pass());
        match &outcome {
            Ok(()) => tracing::info!(source = %self.feed.source(), "configuration reloaded"),
            Err(NotReloaded::Invalid(report)) => {
                tracing::error!(%report, "the configuration is not valid; the old one stays");
            }
            Err(error) => tracing::error!(%error, "not reloaded; the old configuration stays"),
        }
        outcome
    }

    async fn attempt(&mut self) -> Result<(), NotReloaded> {
        let attempt = self.feed.attempt().await;
        let attempt = attempt.map_err(|Unread(why)| NotReloaded::Unread(why))?;
        match attempt.outcome {
            Err(report) => {
                self.assembly.refused(&report);
                Err(NotReloaded::Invalid(report))
            }
            Ok(loaded) => {
                if !loaded.warnings.is_empty() {
                    tracing::warn!(report = %loaded.warnings, "the new configuration has warnings");
                }
                self.assembly
                    .reload(loaded.config, Some(&loaded.effective))?;
                self.feed.in_use().await;
                Ok(())
            }
        }
    }

    /// Nobody logs yet when it begins, so it is told now.
    fn warn_of_the_copy(&self) {
        if let Some((copy, report)) = self.feed.copy() {
            let (source, copy) = (self.feed.source(), copy.display());
            tracing::warn!(%source, %copy, %report, "this has begun with the last good configuration");
        }
    }

    /// Kubernetes mounts a `subPath` as a file by itself, and never brings it a change.
    fn warn_of_what_never_changes(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        for path in self.feed.inputs().paths() {
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
