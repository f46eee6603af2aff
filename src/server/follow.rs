//! A sidecar follows the source of its configuration.
//!
//! One task looks when the source stirs or when somebody asks (SIGHUP, `POST /reload`), one look at a time, so a storm of
//! changes is a few reloads and the last one counts. What was tried and found wanting is not tried again before it has
//! changed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::before_anew;
use super::reload::{Assembly, ReloadError};
use crate::config::{Config, Effective, Inputs, Report};
use crate::resilience::panics::{caught, faults};
use crate::source::{Feed, Unread};

/// How soon a configuration is tried again that could not be used when it came.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long something is waited for that only warns.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// A defect of ours.
    #[error("a defect of wx-sidecar ended the reload; the log says where")]
    Defect,
    /// Nobody answers.
    #[error("the sidecar has stopped")]
    Stopped,
}

/// Somebody wants to know what comes of it.
pub(super) type Ask = oneshot::Sender<Result<(), NotReloaded>>;

/// Follows its source for ever. After a panic it begins anew.
pub(super) async fn follow(
    assembly: Arc<Assembly>,
    feed: Feed,
    mut asks: mpsc::UnboundedReceiver<Ask>,
) {
    let mut follower = Follower {
        assembly,
        feed,
        failure: None,
        refused: None,
    };
    // It has been read, or is found wanting in a moment.
    follower.assembly.source_is_up(None);
    follower.warn_of_the_copy();
    warn_of_what_never_changes(follower.feed.inputs().clone()).await;
    follower.feed.in_use().await;
    while let Err(panicked) = caught(follower.run(&mut asks)).await {
        follower.feed.begin_anew();
        before_anew(&follower.assembly.metrics, "reload", &panicked).await;
    }
}

struct Follower {
    assembly: Arc<Assembly>,
    feed: Feed,
    /// Why the source could not be read when it was last looked at.
    failure: Option<String>,
    /// What was refused last, if it may do later.
    refused: Option<Refused>,
}

/// A good configuration that could not be changed to when it came.
struct Refused {
    config: Config,
    effective: Effective,
}

/// What a follower waits for.
enum Event {
    Asked(Ask),
    /// Nobody can ask any more.
    Over,
    Stirred,
    /// What was refused is in use.
    Passed,
}

impl Follower {
    async fn run(&mut self, asks: &mut mpsc::UnboundedReceiver<Ask>) {
        loop {
            match self.event(asks).await {
                Event::Asked(ask) => {
                    faults::strike("reload");
                    let answered = self.feed.refresh().await.err().map(|unread| unread.0);
                    let outcome = match (self.reload().await, answered.or(self.feed.failure())) {
                        (Ok(()), Some(why)) => Err(NotReloaded::PerhapsOld(why)),
                        (outcome, _) => outcome,
                    };
                    if let Err(error @ NotReloaded::PerhapsOld(_)) = &outcome {
                        tracing::warn!(%error, "reloaded, perhaps from what was known before");
                    }
                    let _gone = ask.send(outcome);
                }
                Event::Stirred => self.look().await,
                Event::Passed => {
                    self.feed.in_use().await;
                    tracing::info!(source = %self.feed.source(), "configuration reloaded, at another attempt");
                }
                Event::Over => return,
            }
        }
    }

    /// The next event. What was refused is tried again meanwhile, and nothing said of it before it is in use.
    async fn event(&mut self, asks: &mut mpsc::UnboundedReceiver<Ask>) -> Event {
        let mut changed = pin!(self.feed.changed());
        loop {
            tokio::select! {
                ask = asks.recv() => return ask.map_or(Event::Over, Event::Asked),
                () = changed.as_mut() => return Event::Stirred,
                () = sleep(RETRY_EVERY), if self.refused.is_some() => {}
            }
            let Some(refused) = &self.refused else {
                continue;
            };
            let (config, effective) = (refused.config.clone(), refused.effective.clone());
            let again = reloading(&self.assembly, move |assembly| {
                assembly.reload_again(config, Some(&effective))
            });
            match again.await {
                Ok(()) => {
                    self.refused = None;
                    return Event::Passed;
                }
                Err(NotReloaded::Refused(error)) if error.may_pass() => {}
                Err(error) => {
                    tracing::error!(%error, "not reloaded; the old configuration stays");
                    self.assembly.refused(&error);
                    self.refused = None;
                }
            }
        }
    }

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

    async fn reload(&mut self) -> Result<(), NotReloaded> {
        self.refused = None;
        let outcome = self.attempt().await;
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
        let loaded = attempt.outcome.map_err(|report| {
            self.assembly.refused(&report);
            NotReloaded::Invalid(report)
        })?;
        if !loaded.warnings.is_empty() {
            tracing::warn!(report = %loaded.warnings, "the new configuration has warnings");
        }
        let (config, effective) = (loaded.config, loaded.effective);
        let (again, shown) = (config.clone(), effective.clone());
        let outcome = reloading(&self.assembly, move |assembly| {
            assembly.reload(config, Some(&shown))
        });
        let outcome = outcome.await;
        match &outcome {
            Ok(()) => self.feed.in_use().await,
            Err(NotReloaded::Refused(error)) if error.may_pass() => {
                self.refused = Some(Refused {
                    config: again,
                    effective,
                });
            }
            Err(_) => {}
        }
        outcome
    }

    /// Nobody logs yet when it begins, so it is told now.
    fn warn_of_the_copy(&self) {
        if let Some((copy, report)) = self.feed.copy() {
            let (source, copy) = (self.feed.source(), copy.display());
            tracing::warn!(%source, %copy, %report, "this has begun with the last good configuration");
        }
    }
}

/// Changes to a configuration beside the thread that says that we live: a journal is on a disk, which may hang.
async fn reloading(
    assembly: &Arc<Assembly>,
    change: impl FnOnce(&Assembly) -> Result<(), ReloadError> + Send + 'static,
) -> Result<(), NotReloaded> {
    let changing = Arc::clone(assembly);
    match spawn_blocking(move || change(&changing)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            assembly.metrics.panicked();
            assembly.refused(&NotReloaded::Defect);
            Err(NotReloaded::Defect)
        }
    }
}

/// Kubernetes mounts a `subPath` as a file by itself, and never brings it a change.
async fn warn_of_what_never_changes(inputs: Inputs) {
    let warning = spawn_blocking(move || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        for path in inputs.paths() {
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
    });
    // A file system that hangs here keeps nobody from following.
    let _whenever = tokio::time::timeout(PATIENCE, warning).await;
}
