//! One core: a single-threaded runtime with its own listener, its own connections to the app, its own counters and its own
//! view of the configuration. Workers share nothing that an ordinary request writes to.
//!
//! Here is what a worker's requests work with; `connections.rs` has what it does all day.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::Notify;

use super::router::Endpoint;
use super::snapshot::Snapshot;
use crate::clock::Clock;
use crate::error::{Error, Kind, Side};
use crate::proxy::{self, Pool};
use crate::resilience::panics::{Panicked, caught, faults};
use crate::resilience::{Slots, Timers};
use crate::session::{SessionState, ShownToken};
use crate::telemetry::ids::IdSource;
use crate::telemetry::logs::access::Sampler;
use crate::telemetry::requests::{Did, RouteRecorder, WorkerCells};

/// How long after a panic a background task begins anew, so that one that panics at once does not take the core.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// What the requests of one worker work with. Never leaves its thread.
pub(super) struct Worker {
    pub(super) timers: Timers,
    pub(super) pool: Pool,
    pub(super) ids: IdSource,
    pub(super) cells: Arc<WorkerCells>,
    /// Which requests get a line in the access log.
    pub(super) sampler: Sampler,
    /// The requests that are being dealt with and may wait for others meanwhile.
    pub(super) slots: Slots,
    state: Arc<SessionState>,
    /// Cached, so that to see that nothing has changed costs next to nothing.
    current: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    settings: RefCell<Rc<Settings>>,
    /// How many entrances are being closed.
    pub(super) closing: Cell<usize>,
    /// How many connections there are.
    pub(super) open: Cell<usize>,
    /// How many of them keep their buffers between two requests.
    pub(super) kept: Cell<usize>,
    /// Told whenever a connection ends, or an entrance is closed.
    pub(super) closed: Notify,
}

/// The other end of a client's connection.
pub(super) struct Peer {
    pub(super) place: proxy::Peer,
    /// Whether it is to leave after what it is at.
    pub(super) ending: Rc<Cell<bool>>,
    pub(super) shown: ShownToken,
}

/// A snapshot, and where its routes are counted in this worker.
pub(super) struct Settings {
    pub(super) snapshot: Arc<Snapshot>,
    unrouted: RouteRecorder,
    own: Vec<(Endpoint, RouteRecorder)>,
    rules: Vec<RouteRecorder>,
}

/// Which route a request is counted under.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    Unrouted,
    Own(Endpoint),
    Rule(usize),
}

impl Counted {
    /// What the sidecar did with it.
    pub(super) fn did(self) -> Did {
        match self {
            Self::Unrouted => Did::Nothing,
            Self::Own(_) => Did::Own,
            Self::Rule(_) => Did::Forward,
        }
    }
}

impl Worker {
    pub(super) fn new(
        current: Arc<ArcSwap<Snapshot>>,
        state: Arc<SessionState>,
        cells: Arc<WorkerCells>,
    ) -> Self {
        let settings = Settings::new(current.load_full(), &cells);
        Self {
            timers: Timers::default(),
            pool: Pool::new(Arc::clone(&cells)),
            ids: IdSource::new(),
            cells,
            sampler: Sampler::default(),
            slots: Slots::default(),
            state,
            current: RefCell::new(Cache::new(current)),
            settings: RefCell::new(Rc::new(settings)),
            closing: Cell::new(0),
            open: Cell::new(0),
            kept: Cell::new(0),
            closed: Notify::new(),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.state.clock
    }

    /// Counts a panic in a request; the failure that the client is told.
    pub(super) fn broke(&self, panicked: Panicked) -> Error {
        self.state.metrics.panicked();
        let detail = (
            "a defect of the sidecar; other requests are not affected",
            "sidecar 的缺陷；其他请求不受影响",
        );
        Error::new(Kind::Internal, Side::Us, detail).with_cause(panicked)
    }

    /// What came of something that may panic without harm to anything else.
    pub(super) fn survived<T>(
        &self,
        what: &'static str,
        outcome: Result<T, Panicked>,
    ) -> Option<T> {
        outcome
            .inspect_err(|panicked| {
                self.state.metrics.panicked();
                tracing::error!(what, error = %panicked, "given up after a panic");
            })
            .ok()
    }

    /// Runs what has to go on for as long as the worker does: after a panic it begins anew.
    pub(super) async fn kept_going<F: Future<Output = ()>>(
        &self,
        what: &'static str,
        work: impl Fn() -> F,
    ) {
        while let Err(panicked) = caught(work()).await {
            self.state.metrics.panicked();
            tracing::error!(what, error = %panicked, "begun anew after a panic");
            faults::strike("restart");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// The current snapshot, as this worker sees it. Follows a reload between two requests.
    pub(super) fn settings(&self) -> Rc<Settings> {
        let mut current = self.current.borrow_mut();
        let current = current.load();
        let mut settings = self.settings.borrow_mut();
        if !Arc::ptr_eq(current, &settings.snapshot) {
            *settings = Rc::new(Settings::new(Arc::clone(current), &self.cells));
        }
        Rc::clone(&settings)
    }
}

impl Settings {
    fn new(snapshot: Arc<Snapshot>, cells: &WorkerCells) -> Self {
        let rules = snapshot
            .router
            .rule_names()
            .map(|name| cells.route(name))
            .collect();
        let own = Endpoint::all()
            .map(|endpoint| (endpoint, cells.route(endpoint.label())))
            .collect();
        Self {
            unrouted: cells.route("none"),
            own,
            rules,
            snapshot,
        }
    }

    /// What the route is called that a request is counted under.
    pub(super) fn route(&self, counted: Counted) -> &str {
        match counted {
            Counted::Rule(index) => self.snapshot.router.rule_name(index),
            Counted::Own(endpoint) => endpoint.label(),
            Counted::Unrouted => "none",
        }
    }

    /// Where a request is counted.
    pub(super) fn recorder(&self, counted: Counted) -> &RouteRecorder {
        match counted {
            Counted::Rule(index) => &self.rules[index],
            Counted::Own(endpoint) => {
                let found = self.own.iter().find(|(known, _)| *known == endpoint);
                found.map_or(&self.unrouted, |(_, recorder)| recorder)
            }
            Counted::Unrouted => &self.unrouted,
        }
    }
}
