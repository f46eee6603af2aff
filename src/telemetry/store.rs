//! What is counted of a store that can be away. Registered only where there is one.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::families;

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
        Self {
            up: families::STORE_UP.gauge(registry),
            requests: families::STORE_REQUESTS.counters(registry),
            seconds: families::STORE_DURATION.histograms(registry),
            values_refused: families::STORE_REFUSED.counter(registry),
            connections: families::STORE_CONNECTIONS.counter(registry),
        }
    }

    /// Those of the inbox of messages, which has connections of its own to the same Redis.
    pub(crate) fn register_for_push(registry: &Registry) -> Self {
        Self {
            up: families::PUSH_STORE_UP.gauge(registry),
            requests: families::PUSH_STORE_REQUESTS.counters(registry),
            seconds: families::PUSH_STORE_DURATION.histograms(registry),
            values_refused: families::PUSH_STORE_REFUSED.counter(registry),
            connections: families::PUSH_STORE_CONNECTIONS.counter(registry),
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
