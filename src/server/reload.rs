//! One configuration gives way to another.
//!
//! All that can fail is done first: what cannot change is refused, new listeners are bound, a journal is opened. Then
//! one pointer is swapped, and the listeners are handed to those who serve them. So a reload happens or does not; there is
//! no half of one. What must outlive it (sessions, tokens, breakers, caches, metrics) is not part of a [`Snapshot`].

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::admin::Phone;
use super::connections::Change;
use super::drain::Phase;
use super::follow::{Ask, NotReloaded};
use super::pulse::Pulses;
use super::snapshot::{Shared, Snapshot};
use crate::clock::Timestamp;
use crate::config::{Config, Effective, Listen};
use crate::net::{Bound, is_taken, warn_of_sharing};
use crate::push::Bus;
use crate::resilience::lock;
use crate::session::SessionState;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// Why a running sidecar does not change to a configuration. The old one stays, whole.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is another Mini Program's. What is sealed for one must not open for another, so that is another process.
    #[error(
        "`[app] appid` cannot change: a process serves one Mini Program; start another for the other"
    )]
    OtherApp,
    /// A key that cannot change while the sidecar runs.
    #[error("`{0}` cannot change while the sidecar runs; restart it")]
    NeedsRestart(&'static str),
    /// A listener cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The journal of pushes cannot be opened.
    #[error("cannot use the journal ([push] journal): {0}")]
    Journal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is being shut down, and what it serves till then it serves by the old one.
    #[error("the sidecar is being shut down")]
    ShuttingDown,
}

impl ReloadError {
    /// Whether the same configuration may do later: its address may be another's for the moment, or still ours.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Listen(_) | Self::Journal(_))
    }
}

/// A listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ([{section}] listen): {cause}")]
pub struct ListenError {
    /// The section of the configuration.
    pub section: &'static str,
    /// The address as configured.
    pub addr: Listen,
    /// What the system says.
    #[source]
    pub cause: io::Error,
}

/// What a running sidecar consists of, and what a reload changes of it.
pub(super) struct Assembly {
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    pub(super) state: Arc<SessionState>,
    pub(super) metrics: Arc<Metrics>,
    /// Since when it runs.
    pub(super) started: Timestamp,
    pub(super) shared: Arc<Shared>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) places: ArcSwap<Places>,
    pub(super) doors: Doors,
    /// What the inbox was opened with; also that there is one reload at a time.
    pub(super) inbox: Mutex<Option<InboxOptions>>,
    /// What came of the last one.
    pub(super) status: ArcSwap<Status>,
    /// Whom to ask for one, if a source is followed.
    pub(super) asks: OnceLock<mpsc::UnboundedSender<Ask>>,
    /// The phone that plays the Mini Program, in `wx-sidecar dev`.
    pub(super) phone: OnceLock<Phone>,
    /// Whether the threads live.
    pub(super) pulses: Arc<Pulses>,
}

/// What came of the last reload, or of the start.
#[derive(Clone)]
pub(super) struct Status {
    /// When the configuration that is in use came into use.
    pub(super) since: Timestamp,
    /// What it says of each key, if it came as a text.
    pub(super) effective: Option<Effective>,
    /// Why a later one is not.
    pub(super) refused: Option<(Timestamp, String)>,
    /// Where it comes from, if it is followed.
    pub(super) source: Option<String>,
    /// Why that cannot be read now.
    pub(super) unread: Option<String>,
}

/// Where it listens; of port 0, which one was chosen.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) inbound: Listen,
    pub(super) outbound: Option<Listen>,
    pub(super) admin: Listen,
}

/// Where new listeners are handed in.
pub(super) struct Doors {
    /// Of each worker, which hears of every reload.
    pub(super) inbound: Vec<mpsc::UnboundedSender<Change>>,
    pub(super) outbound: mpsc::UnboundedSender<Option<Bound>>,
    pub(super) admin: mpsc::UnboundedSender<Bound>,
}

/// What of `[push]` an inbox is opened with.
#[derive(PartialEq)]
pub(super) struct InboxOptions {
    journal: Option<PathBuf>,
    fsync: bool,
    max_waiting: usize,
    max_bytes: u64,
}

/// Listeners that are bound already; `None` where nothing changes.
struct Moves {
    inbound: Option<Vec<Bound>>,
    outbound: Option<Option<Bound>>,
    admin: Option<Bound>,
}

impl InboxOptions {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let push = config.push.as_ref()?;
        Some(Self {
            journal: push.journal.clone(),
            fsync: push.fsync,
            max_waiting: push.max_waiting,
            max_bytes: push.max_bytes,
        })
    }
}

impl Assembly {
    /// Changes to another configuration, or says why not.
    pub(super) fn reload(
        &self,
        config: Config,
        effective: Option<&Effective>,
    ) -> Result<(), ReloadError> {
        self.reload_again(config, effective)
            .inspect_err(|error| self.refused(error))
    }

    /// The same, without another word if it is refused as before.
    pub(super) fn reload_again(
        &self,
        config: Config,
        effective: Option<&Effective>,
    ) -> Result<(), ReloadError> {
        self.change(config)?;
        let since = self.state.clock.now();
        self.metrics.config_loaded(true, since);
        self.metrics.config_is(effective);
        self.status.rcu(|before| Status {
            since,
            effective: effective.cloned(),
            refused: None,
            ..Status::clone(before)
        });
        Ok(())
    }

    /// There is a configuration that is not used, and why.
    pub(super) fn refused(&self, why: &dyn fmt::Display) {
        let now = self.state.clock.now();
        self.metrics.config_loaded(false, now);
        let refused = Some((now, why.to_string()));
        self.status.rcu(|before| Status {
            refused: refused.clone(),
            ..Status::clone(before)
        });
    }

    /// Whether the source can be read, or why not.
    pub(super) fn source_is_up(&self, failure: Option<&str>) {
        self.metrics.config_source_is_up(failure.is_none());
        self.status.rcu(|before| Status {
            unread: failure.map(str::to_owned),
            ..Status::clone(before)
        });
    }

    /// Has the source read again, as if it had changed.
    pub(super) async fn reload_from_source(&self) -> Result<(), NotReloaded> {
        let asks = self.asks.get().ok_or(NotReloaded::NotFollowed)?;
        let (ask, outcome) = oneshot::channel();
        asks.send(ask).map_err(|_| NotReloaded::Stopped)?;
        let unanswered = |_| match asks.is_closed() {
            true => Err(NotReloaded::Stopped),
            false => Err(NotReloaded::Defect),
        };
        outcome.await.unwrap_or_else(unanswered)
    }

    fn change(&self, config: Config) -> Result<(), ReloadError> {
        let mut inbox = lock(&self.inbox);
        let old = self.current.load_full();
        if *self.phase.borrow() >= Phase::Leaving {
            return Err(ReloadError::ShuttingDown);
        }
        self.admit(&old.config, &config)?;
        let options = InboxOptions::of(&config);
        if inbox.is_some() && options.is_some() && *inbox != options {
            return Err(ReloadError::NeedsRestart("[push] journal"));
        }
        let moves = Moves::bind(&old.config, &config)?;
        let places = moves
            .places(&self.places.load())
            .map_err(listen("inbound", &config.inbound.listen))?;
        if let (Some(push), None) = (&config.push, inbox.as_ref()) {
            let opened = Bus::open(push, &config, &self.state.clock, &self.metrics);
            let bus = opened.map_err(|error| ReloadError::Journal(Box::new(error)))?;
            self.shared.open_bus(bus);
            *inbox = options;
        }
        self.state.store.rekey(&config);
        if old.config.log != config.log {
            logs::change(&config.log);
        }
        let new = Snapshot::build(config, &self.state, &self.metrics, &self.shared);
        let new = Arc::new(new);
        self.current.store(Arc::clone(&new));
        self.places.store(Arc::new(places));
        self.doors.hand_in(moves, &new);
        Ok(())
    }

    fn admit(&self, old: &Config, new: &Config) -> Result<(), ReloadError> {
        if old.app.appid != new.app.appid {
            return Err(ReloadError::OtherApp);
        }
        let fixed = [
            (
                "[inbound] workers",
                old.inbound.workers == new.inbound.workers,
            ),
            ("[store]", old.store == new.store),
            // A session that outlives its revocation would come back to life.
            (
                "[session] refresh_ttl (a longer one)",
                new.session.refresh_ttl <= self.state.store.remembers_for(),
            ),
        ];
        match fixed.iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(ReloadError::NeedsRestart(key)),
            None => Ok(()),
        }
    }
}

impl Moves {
    fn bind(old: &Config, new: &Config) -> Result<Self, ReloadError> {
        let outbound = match (&old.outbound.listen, &new.outbound.listen) {
            (old, new) if old == new => None,
            (_, None) => Some(None),
            (old, Some(place)) => {
                let bound = match old {
                    None => Bound::one(place),
                    Some(old) => Bound::one_after(place, old),
                };
                Some(Some(bound.map_err(listen("outbound", place))?))
            }
        };
        let admin = match old.admin.listen == new.admin.listen {
            true => None,
            false => {
                let place = &new.admin.listen;
                let bound = Bound::one_after(place, &old.admin.listen);
                Some(bound.map_err(listen("admin", place))?)
            }
        };
        // Last, because nothing may fail after it: the kernel gives connections to whoever shares the port.
        let inbound = match old.inbound.listen == new.inbound.listen {
            true => None,
            false => {
                let place = &new.inbound.listen;
                // At another address of the same port it is our own that is found there.
                let is_same_port = matches!(
                    (place, &old.inbound.listen),
                    (Listen::Tcp(new), Listen::Tcp(old)) if new.port() == old.port()
                );
                let is_shared = !is_same_port && is_taken(place);
                let bound = Bound::group(place, new.inbound.workers);
                let bound = bound.map_err(listen("inbound", place))?;
                if is_shared {
                    warn_of_sharing(place);
                }
                Some(bound)
            }
        };
        Ok(Self {
            inbound,
            outbound,
            admin,
        })
    }

    fn places(&self, old: &Places) -> io::Result<Places> {
        let mut places = old.clone();
        if let Some(bound) = &self.inbound {
            places.inbound = bound[0].place()?;
        }
        if let Some(bound) = &self.outbound {
            places.outbound = bound.as_ref().map(Bound::place).transpose()?;
        }
        if let Some(bound) = &self.admin {
            places.admin = bound.place()?;
        }
        Ok(places)
    }
}

impl Doors {
    /// Who does not take it in any more is at its end.
    fn hand_in(&self, moves: Moves, snapshot: &Arc<Snapshot>) {
        let Moves {
            inbound,
            outbound,
            admin,
        } = moves;
        let mut listeners = inbound.into_iter().flatten();
        for door in &self.inbound {
            let _ended = door.send(Change {
                listener: listeners.next(),
                snapshot: Arc::clone(snapshot),
            });
        }
        if let Some(listener) = outbound {
            let _ended = self.outbound.send(listener);
        }
        if let Some(listener) = admin {
            let _ended = self.admin.send(listener);
        }
    }
}

/// Says of an error which listener it is about.
pub(super) fn listen(
    section: &'static str,
    addr: &Listen,
) -> impl FnOnce(io::Error) -> ListenError {
    let addr = addr.clone();
    move |cause| ListenError {
        section,
        addr,
        cause,
    }
}
