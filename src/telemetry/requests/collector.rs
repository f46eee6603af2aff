//! The scrape: what all workers have counted, summed.
//!
//! Whoever scrapes does the work, on the control thread; the workers notice nothing of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::{
    Buckets, Cell, Did, MOST_BUCKETS, Refusal, Route, RouteCells, Series, UpstreamResult,
    WorkerCells, code, lock,
};
use crate::telemetry::families::{self, Family, accepted};

/// Sums the workers' cells for a scrape.
pub(crate) struct RequestCollector {
    workers: Vec<Arc<WorkerCells>>,
    descs: Vec<Desc>,
}

/// The families that are told here.
const FAMILIES: [&Family; 18] = [
    &families::HTTP_REQUESTS,
    &families::HTTP_DURATION,
    &families::HTTP_OVERHEAD,
    &families::HTTP_PROBLEMS,
    &families::HTTP_REQUEST_BYTES,
    &families::HTTP_RESPONSE_BYTES,
    &families::HTTP_IN_FLIGHT,
    &families::HTTP_CONNECTIONS,
    &families::HTTP_CONNECTIONS_REFUSED,
    &families::TLS_HANDSHAKES,
    &families::TUNNELS,
    &families::UPSTREAM_REQUESTS,
    &families::UPSTREAM_DURATION,
    &families::UPSTREAM_CONNECTIONS,
    &families::UPSTREAM_CONNECTS,
    &families::UPSTREAM_CONNECT_FAILURES,
    &families::UPSTREAM_RETRIES,
    &families::WORKER_BUSY,
];

impl RequestCollector {
    /// `workers` are those of one group.
    pub(crate) fn new(workers: Vec<Arc<WorkerCells>>) -> Self {
        let desc = |family: &Family| {
            let (name, help) = (family.name.to_owned(), family.help.to_owned());
            accepted(Desc::new(name, help, Vec::new(), HashMap::new()))
        };
        Self {
            workers,
            descs: FAMILIES.map(desc).into(),
        }
    }

    fn sum(&self, cell: impl Fn(&WorkerCells) -> u64) -> f64 {
        self.workers
            .iter()
            .fold(0, |sum: u64, worker| sum.wrapping_add(cell(worker))) as f64
    }

    /// What is told of each route.
    fn routes(&self) -> BTreeMap<String, RouteSums> {
        let Some(worker) = self.workers.first() else {
            return BTreeMap::new();
        };
        let mut routes = lock(&worker.routes);
        routes.forget(Instant::now());
        let sums = |route: &Route| {
            let mut sums = RouteSums::default();
            route
                .cells
                .iter()
                .flatten()
                .for_each(|cells| sums.add(cells));
            (route.name.clone(), sums)
        };
        routes.0.iter().map(sums).collect()
    }

    fn overhead(&self) -> Vec<(Vec<LabelPair>, Sums)> {
        let of = |(at, action): (usize, &&str)| {
            let mut sums = Sums::default();
            let workers = self.workers.iter();
            workers.for_each(|worker| sums.add(&worker.overhead[at]));
            (vec![label("action", action)], sums)
        };
        Did::LABELS.iter().enumerate().map(of).collect()
    }

    fn problems(&self) -> impl Iterator<Item = Told> {
        let mut problems = BTreeMap::<_, u64>::new();
        for worker in &self.workers {
            for (kind, count) in lock(&worker.problems).iter() {
                *problems.entry(*kind).or_default() += count;
            }
        }
        let told = |(kind, count)| (vec![label("kind", kind)], count as f64);
        problems.into_iter().map(told)
    }

    fn busy(&self) -> impl Iterator<Item = Told> {
        self.workers.iter().filter_map(|worker| {
            let runtime = worker.runtime.get()?.metrics();
            let busy = runtime.worker_total_busy_duration(0);
            Some((
                vec![label("worker", &worker.index.to_string())],
                busy.as_secs_f64(),
            ))
        })
    }
}

/// What the workers have counted of one route.
#[derive(Default)]
struct RouteSums {
    statuses: BTreeMap<Series, u64>,
    duration: Sums,
    upstream: [u64; UpstreamResult::LABELS.len()],
    upstream_duration: Sums,
}

/// What a histogram comes to.
#[derive(Default)]
struct Sums {
    counts: [u64; MOST_BUCKETS],
    nanos: u64,
}

impl RouteSums {
    fn add(&mut self, cells: &RouteCells) {
        for (series, cell) in lock(&cells.statuses).iter() {
            *self.statuses.entry(*series).or_default() += cell.get();
        }
        self.duration.add(&cells.duration);
        for (sum, cell) in self.upstream.iter_mut().zip(&cells.upstream) {
            *sum += cell.get();
        }
        self.upstream_duration.add(&cells.upstream_duration);
    }
}

impl Sums {
    fn add(&mut self, buckets: &Buckets) {
        for (sum, cell) in self.counts.iter_mut().zip(&buckets.counts) {
            *sum += cell.get();
        }
        self.nanos = self.nanos.wrapping_add(buckets.nanos.get());
    }
}

impl Collector for RequestCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let routes = self.routes();
        let one = |cell: fn(&WorkerCells) -> &Cell| {
            let sum = self.sum(|worker| cell(worker).get());
            (Vec::new(), sum)
        };
        let of = |name, value, cell: fn(&WorkerCells) -> &Cell| {
            let sum = self.sum(|worker| cell(worker).get());
            (vec![label(name, value)], sum)
        };
        let open = self.sum(|worker| worker.upstream_open.get());
        let idle = self.sum(|worker| worker.upstream_idle.get());
        let refusals = Refusal::LABELS.iter().enumerate().map(|(at, reason)| {
            let count = self.sum(|worker| worker.refusals[at].get());
            (vec![label("reason", reason)], count)
        });
        let told = [
            counters(&families::HTTP_REQUESTS, requests(&routes)),
            histograms(
                &families::HTTP_DURATION,
                by_route(&routes, |sums| &sums.duration),
            ),
            histograms(
                &families::HTTP_OVERHEAD,
                self.overhead()
                    .iter()
                    .map(|(labels, sums)| (labels.clone(), sums)),
            ),
            counters(&families::HTTP_PROBLEMS, self.problems()),
            counters(
                &families::HTTP_REQUEST_BYTES,
                [one(|cells| &cells.bytes_received)],
            ),
            counters(
                &families::HTTP_RESPONSE_BYTES,
                [one(|cells| &cells.bytes_returned)],
            ),
            gauges(&families::HTTP_IN_FLIGHT, [one(|cells| &cells.in_flight)]),
            gauges(
                &families::HTTP_CONNECTIONS,
                [one(|cells| &cells.connections)],
            ),
            counters(&families::HTTP_CONNECTIONS_REFUSED, refusals),
            counters(
                &families::TLS_HANDSHAKES,
                [
                    of("resumed", "false", |cells| &cells.full_handshakes),
                    of("resumed", "true", |cells| &cells.resumed_handshakes),
                ],
            ),
            gauges(&families::TUNNELS, [one(|cells| &cells.tunnels)]),
            counters(&families::UPSTREAM_REQUESTS, upstream(&routes)),
            histograms(
                &families::UPSTREAM_DURATION,
                by_route(&routes, |sums| &sums.upstream_duration),
            ),
            gauges(
                &families::UPSTREAM_CONNECTIONS,
                [
                    (vec![label("state", "active")], (open - idle).max(0.0)),
                    (vec![label("state", "idle")], idle),
                ],
            ),
            counters(
                &families::UPSTREAM_CONNECTS,
                [one(|cells| &cells.upstream_connects)],
            ),
            counters(
                &families::UPSTREAM_CONNECT_FAILURES,
                [one(|cells| &cells.upstream_connect_failures)],
            ),
            counters(
                &families::UPSTREAM_RETRIES,
                [
                    of("result", "budget_exhausted", |cells| &cells.retries_refused),
                    of("result", "sent", |cells| &cells.retries_sent),
                ],
            ),
            counters(&families::WORKER_BUSY, self.busy()),
        ];
        told.into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

/// The labels of a series, and its value.
type Told = (Vec<LabelPair>, f64);

fn requests(routes: &BTreeMap<String, RouteSums>) -> impl Iterator<Item = Told> {
    routes.iter().flat_map(|(route, sums)| {
        sums.statuses.iter().map(move |((method, status), count)| {
            let labels = vec![
                label("code", &code(*status)),
                label("method", method),
                label("route", route),
            ];
            (labels, *count as f64)
        })
    })
}

fn upstream(routes: &BTreeMap<String, RouteSums>) -> impl Iterator<Item = Told> {
    routes.iter().flat_map(|(route, sums)| {
        let counted = UpstreamResult::LABELS.iter().zip(sums.upstream);
        counted
            .filter(|(_, count)| *count > 0)
            .map(move |(result, count)| {
                let labels = vec![label("result", result), label("route", route)];
                (labels, count as f64)
            })
    })
}

fn by_route(
    routes: &BTreeMap<String, RouteSums>,
    sums: fn(&RouteSums) -> &Sums,
) -> impl Iterator<Item = (Vec<LabelPair>, &Sums)> {
    let all = routes.iter();
    all.map(move |(route, of_route)| (vec![label("route", route)], sums(of_route)))
}

fn counters(family: &Family, told: impl IntoIterator<Item = Told>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        metric
    };
    exposed(
        family,
        MetricType::COUNTER,
        told.into_iter().map(metric).collect(),
    )
}

fn gauges(family: &Family, told: impl IntoIterator<Item = Told>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        metric
    };
    exposed(
        family,
        MetricType::GAUGE,
        told.into_iter().map(metric).collect(),
    )
}

/// Those in which something was counted.
fn histograms<'a>(
    family: &Family,
    told: impl IntoIterator<Item = (Vec<LabelPair>, &'a Sums)>,
) -> MetricFamily {
    let metric = |(labels, sums): (Vec<LabelPair>, &Sums)| {
        let count = sums.counts.iter().sum();
        (count > 0).then(|| histogram(family.bounds(), labels, sums, count))
    };
    let metrics = told.into_iter().filter_map(metric).collect();
    exposed(family, MetricType::HISTOGRAM, metrics)
}

fn histogram(bounds: &[u64], labels: Vec<LabelPair>, sums: &Sums, count: u64) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(bounds.len());
    for (bound, count) in bounds.iter().zip(sums.counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sums.nanos as f64 / 1e9);
    histogram.set_bucket(buckets);
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

fn exposed(family: &Family, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut exposed = MetricFamily::default();
    exposed.set_name(family.name.to_owned());
    exposed.set_help(family.help.to_owned());
    exposed.set_field_type(kind);
    exposed.set_metric(metrics);
    exposed
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
