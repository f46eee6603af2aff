//! What is counted of a store that can be away. Registered only where there is one.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::metrics::registered;

/// The families.
pub(crate) struct StoreMetrics {
    up: IntGauge,
    requests: IntCounterVec,
    seconds: HistogramVec,
    values_refused: IntCounter,
    connections: IntCounter,
}

impl StoreMetrics {
    /// Those of the store of sessions.
    pub(crate) fn register(registry: &Registry) -> Self {
        let up =
            "Whether the store can be used: it takes writes, and its revocations are known here.";
        Self::named(registry, "wx_sidecar_store", up)
    }

    /// Those of the inbox of messages, which has connections of its own to the same Redis.
    pub(crate) fn register_for_push(registry: &Registry) -> Self {
        let up = "Whether the store of pushed messages can be used: it takes writes.";
        Self::named(registry, "wx_sidecar_push_store", up)
    }

    fn named(registry: &Registry, prefix: &str, up: &str) -> Self {
        let name = |family: &str| format!("{prefix}_{family}");
        let up = IntGauge::new(name("up"), up);
        let requests = IntCounterVec::new(
            Opts::new(
                name("requests_total"),
                "Requests to the store by operation and result: ok, away (not sent), busy (not sent), timeout, error.",
            ),
            &["operation", "result"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                name("request_duration_seconds"),
                "How long requests took that were sent to the store.",
            )
            .buckets(vec![
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
            ]),
            &["operation"],
        );
        let values_refused = IntCounter::new(
            name("values_refused_total"),
            "Values that were not written by a sidecar with our keys, or not as this one writes them; taken as absent.",
        );
        let connections = IntCounter::new(
            name("connections_total"),
            "Attempts to connect to the store.",
        );
        Self {
            up: registered(registry, up),
            requests: registered(registry, requests),
            seconds: registered(registry, seconds),
            values_refused: registered(registry, values_refused),
            connections: registered(registry, connections),
        }
    }

    pub(crate) fn up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// Counts a request that was not sent.
    pub(crate) fn not_sent(&self, operation: &'static str, why: &'static str) {
        self.requests.with_label_values(&[operation, why]).inc();
    }

    /// Counts a request that was sent.
    pub(crate) fn request(&self, operation: &'static str, result: &'static str, took: Duration) {
        self.requests.with_label_values(&[operation, result]).inc();
        self.seconds
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn value_refused(&self) {
        self.values_refused.inc();
    }

    pub(crate) fn connecting(&self) {
        self.connections.inc();
    }
}
