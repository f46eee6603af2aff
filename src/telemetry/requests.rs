//! Counting what happens on every request, without a shared cache line.
//!
//! Each worker has cells of its own. Only the worker writes them, so adding is a load and a store; whoever scrapes reads and sums
//! them. Labels are resolved when a snapshot is built, so recording looks nothing up by name.
//!
//! A route that no configuration has any more is kept for a while, so that what was counted last is scraped, and then
//! forgotten, by all workers at once.

mod collector;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

pub(crate) use collector::RequestCollector;

use super::families::{self, Family};
use super::timings::Timings;

/// For how long a route is kept that nobody uses any more: a few scrapes.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How many buckets there are at the most; a family with fewer leaves the last ones alone.
const MOST_BUCKETS: usize = 15;

/// A number that one thread adds to and others read.
#[derive(Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning thread may call this.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Takes away; only the owning thread may call this.
    pub(crate) fn sub(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a client's connection was closed before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No TLS, or none that we speak.
    Tls,
    /// A TLS handshake that was not done in time.
    TlsTimeout,
    /// No PROXY header where there must be one.
    Proxy,
    /// A PROXY header that did not come in time.
    ProxyTimeout,
}

impl Refusal {
    const LABELS: [&str; 4] = ["tls", "tls_timeout", "proxy", "proxy_timeout"];

    /// The reason as it is counted.
    pub(crate) fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// A histogram that one thread writes and others read.
struct Buckets {
    bounds: &'static [u64],
    counts: [Cell; MOST_BUCKETS],
    nanos: Cell,
}

impl Buckets {
    fn of(family: &Family) -> Self {
        let bounds = family.bounds();
        debug_assert!(bounds.len() < MOST_BUCKETS, "{}", family.name);
        Self {
            bounds,
            counts: Default::default(),
            nanos: Cell::default(),
        }
    }

    /// Only the owning thread may call this.
    fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self
            .bounds
            .iter()
            .position(|bound| nanos <= *bound * 1000)
            .unwrap_or(self.bounds.len());
        self.counts[bucket].add(1);
        self.nanos.add(nanos);
    }
}

/// What the sidecar did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// It was for the app.
    Forward,
    /// It was for an endpoint of ours.
    Own,
    /// It was refused before that was known.
    Nothing,
}

/// What came of a request that the app was to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamResult {
    /// An answer of this status.
    Answered(u16),
    /// No connection, or it broke before an answer.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// What is not HTTP, or ends too soon.
    Invalid,
    /// The client's side failed before there was an answer.
    Abandoned,
}

impl Did {
    const LABELS: [&str; 3] = ["forward", "own", "none"];
}

impl UpstreamResult {
    const LABELS: [&str; 9] = [
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "unreachable",
        "timeout",
        "invalid",
        "abandoned",
    ];

    fn place(self) -> usize {
        match self {
            // There are no others, but heads are written by others.
            Self::Answered(status @ 100..600) => usize::from(status / 100) - 1,
            Self::Answered(_) | Self::Invalid => 7,
            Self::Unreachable => 5,
            Self::Timeout => 6,
            Self::Abandoned => 8,
        }
    }
}

/// The cells of one worker.
pub(crate) struct WorkerCells {
    pub(crate) in_flight: Cell,
    pub(crate) connections: Cell,
    /// TLS handshakes that agreed on new keys, and those that resumed a session.
    pub(crate) full_handshakes: Cell,
    pub(crate) resumed_handshakes: Cell,
    refusals: [Cell; Refusal::LABELS.len()],
    pub(crate) tunnels: Cell,
    pub(crate) upstream_connects: Cell,
    pub(crate) upstream_connect_failures: Cell,
    /// Connections to the app that are open, and those of them that wait for a request.
    upstream_open: Cell,
    pub(crate) upstream_idle: Cell,
    /// Requests that were sent again, because their pooled connection was dead.
    pub(crate) retries_sent: Cell,
    /// Those that the retry budget did not allow.
    pub(crate) retries_refused: Cell,
    bytes_received: Cell,
    bytes_returned: Cell,
    /// By [`Did`].
    overhead: [Buckets; Did::LABELS.len()],
    /// Errors by kind, as often. Guards a list for a look-up; an error is told with more effort than that.
    problems: Mutex<Vec<(&'static str, u64)>>,
    /// The worker's runtime, which knows how busy it is.
    runtime: OnceLock<Handle>,
    /// The worker's place among its like.
    index: usize,
    routes: Arc<Mutex<Routes>>,
}

/// The routes of all workers. The lock guards the list, not the cells in it: it is taken when a snapshot is built, and when
/// somebody scrapes.
#[derive(Default)]
struct Routes(Vec<Route>);

struct Route {
    name: String,
    /// By worker; there are none where it has not been used.
    cells: Vec<Option<Arc<RouteCells>>>,
    /// Since when no worker has a recorder for it, as far as anybody has looked.
    unused_since: Option<Instant>,
}

/// The cells of one route in one worker.
struct RouteCells {
    statuses: Mutex<Vec<(Series, Arc<Cell>)>>,
    duration: Buckets,
    /// By [`UpstreamResult`].
    upstream: [Cell; UpstreamResult::LABELS.len()],
    upstream_duration: Buckets,
}

/// The labels of a request counter, besides the route.
type Series = (&'static str, u16);

/// A worker's handle on a route's cells.
pub(crate) struct RouteRecorder {
    cells: Arc<RouteCells>,
    /// The series this worker has seen; a handful, so a list.
    known: RefCell<Vec<(Series, Arc<Cell>)>>,
}

/// Counts a connection to the app for as long as it is open.
pub(crate) struct UpstreamOpen(Arc<WorkerCells>);

impl UpstreamOpen {
    /// Only the owning thread may make and drop one.
    pub(crate) fn count(cells: &Arc<WorkerCells>) -> Self {
        cells.upstream_open.add(1);
        Self(Arc::clone(cells))
    }
}

impl Drop for UpstreamOpen {
    fn drop(&mut self) {
        self.0.upstream_open.sub(1);
    }
}

impl Default for WorkerCells {
    /// Those of a worker that has no like.
    fn default() -> Self {
        Self::new(0, Arc::default())
    }
}

impl WorkerCells {
    /// Those of `workers` workers.
    pub(crate) fn group(workers: usize) -> Vec<Arc<Self>> {
        let routes = Arc::<Mutex<Routes>>::default();
        let cells = |index| Arc::new(Self::new(index, Arc::clone(&routes)));
        (0..workers).map(cells).collect()
    }

    fn new(index: usize, routes: Arc<Mutex<Routes>>) -> Self {
        Self {
            in_flight: Cell::default(),
            connections: Cell::default(),
            full_handshakes: Cell::default(),
            resumed_handshakes: Cell::default(),
            refusals: Default::default(),
            tunnels: Cell::default(),
            upstream_connects: Cell::default(),
            upstream_connect_failures: Cell::default(),
            upstream_open: Cell::default(),
            upstream_idle: Cell::default(),
            retries_sent: Cell::default(),
            retries_refused: Cell::default(),
            bytes_received: Cell::default(),
            bytes_returned: Cell::default(),
            overhead: Did::LABELS.map(|_| Buckets::of(&families::HTTP_OVERHEAD)),
            problems: Mutex::default(),
            runtime: OnceLock::new(),
            index,
            routes,
        }
    }

    /// Counts a connection that is closed before its first request.
    pub(crate) fn refuse(&self, why: Refusal) {
        self.refusals[why as usize].add(1);
    }

    /// Counts an error; `kind` is a constant.
    pub(crate) fn problem(&self, kind: &'static str) {
        let mut problems = lock(&self.problems);
        match problems.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => problems.push((kind, 1)),
        }
    }

    /// Counts what a request that has ended has cost.
    pub(crate) fn ended(&self, did: Did, timings: &Timings) {
        self.overhead[did as usize].observe(timings.worked());
        self.bytes_received.add(timings.bytes_received());
        self.bytes_returned.add(timings.bytes_returned());
    }

    /// Forgets routes as if it were `now`.
    #[cfg(test)]
    pub(super) fn forget(&self, now: Instant) {
        lock(&self.routes).forget(now);
    }

    /// From now on it is told how busy this thread's runtime is.
    pub(crate) fn are_of_this_thread(&self) {
        self.runtime.get_or_init(Handle::current);
    }

    /// The recorder of the route `name`, which is a configured pattern or a constant.
    pub(crate) fn route(&self, name: &str) -> RouteRecorder {
        let mut routes = lock(&self.routes);
        routes.forget(Instant::now());
        RouteRecorder {
            cells: routes.cells(name, self.index),
            known: RefCell::default(),
        }
    }
}

impl Routes {
    fn cells(&mut self, name: &str, worker: usize) -> Arc<RouteCells> {
        let known = self.0.iter().position(|route| route.name == name);
        let place = known.unwrap_or_else(|| {
            self.0.push(Route {
                name: name.to_owned(),
                cells: Vec::new(),
                unused_since: None,
            });
            self.0.len() - 1
        });
        let route = &mut self.0[place];
        route.unused_since = None;
        if route.cells.len() <= worker {
            route.cells.resize(worker + 1, None);
        }
        let cells = route.cells[worker].get_or_insert_with(Arc::default);
        Arc::clone(cells)
    }

    /// Forgets what nobody has used for a while.
    fn forget(&mut self, now: Instant) {
        self.0.retain_mut(|route| {
            let is_used = |cells: &Arc<RouteCells>| Arc::strong_count(cells) > 1;
            if route.cells.iter().flatten().any(is_used) {
                route.unused_since = None;
                return true;
            }
            now.saturating_duration_since(*route.unused_since.get_or_insert(now)) < FORGET_AFTER
        });
    }
}

impl Default for RouteCells {
    fn default() -> Self {
        Self {
            statuses: Mutex::default(),
            duration: Buckets::of(&families::HTTP_DURATION),
            upstream: Default::default(),
            upstream_duration: Buckets::of(&families::UPSTREAM_DURATION),
        }
    }
}

impl RouteRecorder {
    /// Counts a finished request.
    pub(crate) fn record(&self, method: &'static str, status: u16, took: Duration) {
        let series = (method, folded(status));
        let mut known = self.known.borrow_mut();
        match known.iter().find(|(known, _)| *known == series) {
            Some((_, cell)) => cell.add(1),
            None => {
                let cell = self.cells.status(series);
                cell.add(1);
                known.push((series, cell));
            }
        }
        self.cells.duration.observe(took);
    }

    /// Counts a request that the app was to get, and for how long it was waited for, if it got it.
    pub(crate) fn upstream(&self, result: UpstreamResult, took: Option<Duration>) {
        self.cells.upstream[result.place()].add(1);
        if let Some(took) = took {
            self.cells.upstream_duration.observe(took);
        }
    }
}

/// A status as it is counted: itself if it is registered (IANA, HTTP Status Code Registry), or ours; its first digit if not.
/// An app that makes them up must not make series.
fn folded(status: u16) -> u16 {
    match status {
        100..=104
        | 200..=208
        | 226
        | 300..=308
        | 400..=418
        | 421..=426
        | 428
        | 429
        | 431
        | 451
        | 499
        | 500..=508
        | 510
        | 511 => status,
        other => match other / 100 {
            class @ 1..10 => class,
            _ => 0,
        },
    }
}

fn code(folded: u16) -> String {
    match folded {
        class @ 1..10 => format!("{class}xx"),
        0..100 => "other".to_owned(),
        status => status.to_string(),
    }
}

/// Whether `value` can be the label of a status.
pub(super) fn is_code(value: &str) -> bool {
    if value == "other" {
        return true;
    }
    match value.strip_suffix("xx") {
        Some(class) => matches!(class, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9"),
        None => value
            .parse()
            .is_ok_and(|status| folded(status) == status && status >= 100),
    }
}

impl RouteCells {
    fn status(&self, series: Series) -> Arc<Cell> {
        let mut statuses = lock(&self.statuses);
        if let Some((_, cell)) = statuses.iter().find(|(known, _)| *known == series) {
            return Arc::clone(cell);
        }
        let cell = Arc::<Cell>::default();
        statuses.push((series, Arc::clone(&cell)));
        cell
    }
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}
