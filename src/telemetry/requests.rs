//! Counting what happens on every request, without a shared cache line.
//!
//! Each worker has cells of its own. Only the worker writes them, so adding is a load and a store; whoever scrapes reads and sums
//! them. Labels are resolved when a snapshot is built, so recording looks nothing up by name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Upper bounds of the duration histogram's buckets, in microseconds.
const BOUNDS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

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

/// The cells of one worker.
#[derive(Default)]
pub(crate) struct WorkerCells {
    pub(crate) in_flight: Cell,
    pub(crate) connections: Cell,
    /// TLS handshakes that agreed on new keys, and those that resumed a session.
    pub(crate) full_handshakes: Cell,
    pub(crate) resumed_handshakes: Cell,
    refusals: [Cell; Refusal::LABELS.len()],
    pub(crate) tunnels: Cell,
    pub(crate) upstream_connects: Cell,
    /// Requests that were sent again, because their pooled connection was dead.
    pub(crate) retries_sent: Cell,
    /// Those that the retry budget did not allow.
    pub(crate) retries_refused: Cell,
    /// Guards the list, not the cells in it: a route or a status that was never seen before is added under the lock.
    routes: Mutex<Vec<(String, Arc<RouteCells>)>>,
}

/// The cells of one route in one worker.
#[derive(Default)]
struct RouteCells {
    statuses: Mutex<Vec<(Series, Arc<Cell>)>>,
    buckets: [Cell; BOUNDS.len() + 1],
    micros: Cell,
}

/// The labels of a request counter, besides the route.
type Series = (&'static str, u16);

/// A worker's handle on a route's cells.
pub(crate) struct RouteRecorder {
    cells: Arc<RouteCells>,
    /// The series this worker has seen; a handful, so a list.
    known: RefCell<Vec<(Series, Arc<Cell>)>>,
}

impl WorkerCells {
    /// Counts a connection that is closed before its first request.
    pub(crate) fn refuse(&self, why: Refusal) {
        self.refusals[why as usize].add(1);
    }

    /// The recorder of the route `name`, which is a configured pattern or a constant.
    pub(crate) fn route(&self, name: &str) -> RouteRecorder {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = match routes.iter().find(|(known, _)| known == name) {
            Some((_, cells)) => Arc::clone(cells),
            None => {
                let cells = Arc::<RouteCells>::default();
                routes.push((name.to_owned(), Arc::clone(&cells)));
                cells
            }
        };
        RouteRecorder {
            cells,
            known: RefCell::default(),
        }
    }
}

impl RouteRecorder {
    /// Counts a finished request.
    pub(crate) fn record(&self, method: &'static str, status: u16, took: Duration) {
        let series = (method, status);
        let mut known = self.known.borrow_mut();
        match known.iter().find(|(known, _)| *known == series) {
            Some((_, cell)) => cell.add(1),
            None => {
                let cell = self.cells.status(series);
                cell.add(1);
                known.push((series, cell));
            }
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS
            .iter()
            .position(|bound| micros <= *bound)
            .unwrap_or(BOUNDS.len());
        self.cells.buckets[bucket].add(1);
        self.cells.micros.add(micros);
    }
}

impl RouteCells {
    fn status(&self, series: Series) -> Arc<Cell> {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = statuses.iter().find(|(known, _)| *known == series) {
            return Arc::clone(cell);
        }
        let cell = Arc::<Cell>::default();
        statuses.push((series, Arc::clone(&cell)));
        cell
    }
}

/// Sums the workers' cells for a scrape.
pub(crate) struct RequestCollector {
    workers: Vec<Arc<WorkerCells>>,
    descs: Vec<Desc>,
}

impl RequestCollector {
    pub(crate) fn new(workers: Vec<Arc<WorkerCells>>) -> Self {
        let desc = |(name, help): (&str, &str)| {
            Desc::new(
                name.to_owned(),
                help.to_owned(),
                Vec::new(),
                std::collections::HashMap::new(),
            )
            .expect("the names below are valid")
        };
        let descs = [
            REQUESTS,
            DURATION,
            IN_FLIGHT,
            CONNECTIONS,
            REFUSED_CONNECTIONS,
            HANDSHAKES,
            TUNNELS,
            UPSTREAM_CONNECTS,
            UPSTREAM_RETRIES,
        ]
        .map(desc)
        .into();
        Self { workers, descs }
    }

    fn sum(&self, cell: impl Fn(&WorkerCells) -> u64) -> f64 {
        self.workers
            .iter()
            .fold(0, |sum: u64, worker| sum.wrapping_add(cell(worker))) as f64
    }
}

const REQUESTS: (&str, &str) = (
    "wx_sidecar_http_requests_total",
    "Requests by route, method and status (499: the client went away).",
);
const DURATION: (&str, &str) = (
    "wx_sidecar_http_request_duration_seconds",
    "From a request's head to the end of its answer, or to its 101, by route.",
);
const IN_FLIGHT: (&str, &str) = (
    "wx_sidecar_http_requests_in_flight",
    "Requests being dealt with.",
);
const CONNECTIONS: (&str, &str) = (
    "wx_sidecar_http_connections",
    "Client connections that are open.",
);
const REFUSED_CONNECTIONS: (&str, &str) = (
    "wx_sidecar_http_connections_refused_total",
    "Client connections closed before their first request, by reason.",
);
const HANDSHAKES: (&str, &str) = (
    "wx_sidecar_tls_handshakes_total",
    "TLS handshakes that succeeded, by whether they resumed an earlier session.",
);
const TUNNELS: (&str, &str) = (
    "wx_sidecar_tunnels",
    "Client connections that carry another protocol, such as WebSocket.",
);
const UPSTREAM_CONNECTS: (&str, &str) = (
    "wx_sidecar_upstream_connects_total",
    "Connections opened to the app, failed ones included.",
);

const UPSTREAM_RETRIES: (&str, &str) = (
    "wx_sidecar_upstream_retries_total",
    "Requests whose pooled connection to the app was dead: sent again, or told because the retry budget was exhausted.",
);

impl Collector for RequestCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut statuses: BTreeMap<(String, Series), u64> = BTreeMap::new();
        let mut durations: BTreeMap<String, ([u64; BOUNDS.len() + 1], u64)> = BTreeMap::new();
        for worker in &self.workers {
            for (route, cells) in worker
                .routes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
            {
                let (buckets, micros) = durations.entry(route.clone()).or_default();
                for (sum, cell) in buckets.iter_mut().zip(&cells.buckets) {
                    *sum += cell.get();
                }
                *micros += cells.micros.get();
                for (series, cell) in cells
                    .statuses
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                {
                    *statuses.entry((route.clone(), *series)).or_default() += cell.get();
                }
            }
        }
        let requests = statuses
            .into_iter()
            .map(|((route, (method, status)), count)| {
                let labels = [
                    ("code", status.to_string()),
                    ("method", method.to_owned()),
                    ("route", route),
                ];
                counter(
                    labels.map(|(name, value)| label(name, &value)).into(),
                    count as f64,
                )
            });
        let durations = durations
            .into_iter()
            .filter(|(_, (buckets, _))| buckets.iter().any(|n| *n > 0));
        let durations =
            durations.map(|(route, (buckets, micros))| histogram(&route, &buckets, micros));
        let refusals = Refusal::LABELS.iter().enumerate().map(|(at, reason)| {
            let count = self.sum(|worker| worker.refusals[at].get());
            counter(vec![label("reason", reason)], count)
        });
        let full = self.sum(|worker| worker.full_handshakes.get());
        let resumed = self.sum(|worker| worker.resumed_handshakes.get());
        let handshakes = [("false", full), ("true", resumed)]
            .map(|(was, count)| counter(vec![label("resumed", was)], count));
        vec![
            family(REQUESTS, MetricType::COUNTER, requests.collect()),
            family(DURATION, MetricType::HISTOGRAM, durations.collect()),
            family(
                IN_FLIGHT,
                MetricType::GAUGE,
                vec![gauge(self.sum(|w| w.in_flight.get()))],
            ),
            family(
                CONNECTIONS,
                MetricType::GAUGE,
                vec![gauge(self.sum(|w| w.connections.get()))],
            ),
            family(REFUSED_CONNECTIONS, MetricType::COUNTER, refusals.collect()),
            family(HANDSHAKES, MetricType::COUNTER, handshakes.into()),
            family(
                TUNNELS,
                MetricType::GAUGE,
                vec![gauge(self.sum(|w| w.tunnels.get()))],
            ),
            family(
                UPSTREAM_CONNECTS,
                MetricType::COUNTER,
                vec![counter(Vec::new(), self.sum(|w| w.upstream_connects.get()))],
            ),
            family(
                UPSTREAM_RETRIES,
                MetricType::COUNTER,
                [
                    ("budget_exhausted", self.sum(|w| w.retries_refused.get())),
                    ("sent", self.sum(|w| w.retries_sent.get())),
                ]
                .map(|(result, count)| counter(vec![label("result", result)], count))
                .into(),
            ),
        ]
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect()
    }
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn histogram(route: &str, counts: &[u64], micros: u64) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (bound, count) in BOUNDS.iter().zip(counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(micros as f64 / 1e6);
    histogram.set_bucket(buckets);
    let mut metric = Metric::from_label(vec![label("route", route)]);
    metric.set_histogram(histogram);
    metric
}
