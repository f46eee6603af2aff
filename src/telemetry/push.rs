//! What is counted of message push. Registered only where there is some.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, Registry};

use super::families::{self, register};

/// The families.
pub(crate) struct PushMetrics {
    received: IntCounterVec,
    refused: IntCounterVec,
    acknowledged: Histogram,
    attempts: IntCounterVec,
    delay: Histogram,
    given_up: IntCounter,
    passive_replies: IntCounterVec,
    /// By slot.
    tokens: [IntCounter; 2],
    keys: [IntCounter; 2],
}

/// What the inbox holds at the moment of the scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct InboxSeen {
    pub(crate) waiting: usize,
    pub(crate) bytes: u64,
    /// How many may wait, and how many bytes of them.
    pub(crate) max_waiting: usize,
    pub(crate) max_bytes: u64,
    /// How long the oldest has waited; zero if nothing waits.
    pub(crate) oldest: Duration,
    pub(crate) dead: usize,
    /// Whether messages can be taken.
    pub(crate) up: bool,
}

/// How a message was answered, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushResult {
    Stored,
    Duplicate,
    Full,
    Failed,
}

impl PushMetrics {
    pub(crate) fn register(
        registry: &Registry,
        inbox: impl Fn() -> InboxSeen + Send + Sync + 'static,
    ) -> Self {
        let secrets = families::PUSH_SECRETS.counters(registry);
        let of = |secret| ["0", "1"].map(|slot| secrets.with_label_values(&[secret, slot]));
        register(registry, InboxGauges::new(inbox));
        Self {
            tokens: of("token"),
            keys: of("aes_key"),
            received: families::PUSH_RECEIVED.counters(registry),
            refused: families::PUSH_REFUSED.counters(registry),
            acknowledged: families::PUSH_ACKS.histogram(registry),
            attempts: families::PUSH_DELIVERIES.counters(registry),
            delay: families::PUSH_DELAY.histogram(registry),
            given_up: families::PUSH_GIVEN_UP.counter(registry),
            passive_replies: families::PUSH_REPLIES.counters(registry),
        }
    }

    /// Counts by which token and which key a message came, for whoever waits to remove the old ones.
    pub(crate) fn secrets_used(&self, token: usize, key: Option<usize>) {
        self.tokens[token.min(1)].inc();
        if let Some(key) = key {
            self.keys[key.min(1)].inc();
        }
    }

    /// Types that WeChat's documentation does not name share a label.
    pub(crate) fn received(&self, msg_type: &str, result: PushResult) {
        const KNOWN: [&str; 9] = [
            "text",
            "image",
            "voice",
            "video",
            "shortvideo",
            "location",
            "link",
            "miniprogrampage",
            "event",
        ];
        let known = KNOWN.iter().find(|known| **known == msg_type);
        let result = match result {
            PushResult::Stored => "stored",
            PushResult::Duplicate => "duplicate",
            PushResult::Full => "full",
            PushResult::Failed => "failed",
        };
        self.received
            .with_label_values(&[result, known.unwrap_or(&"other")])
            .inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn acknowledged(&self, after: Duration) {
        self.acknowledged.observe(after.as_secs_f64());
    }

    pub(crate) fn attempted(&self, result: &'static str) {
        self.attempts.with_label_values(&[result]).inc();
    }

    pub(crate) fn delivered(&self, after: Duration) {
        self.delay.observe(after.as_secs_f64());
    }

    pub(crate) fn given_up(&self) {
        self.given_up.inc();
    }

    pub(crate) fn replied(&self, result: &'static str) {
        self.passive_replies.with_label_values(&[result]).inc();
    }
}

/// Gauges that are asked for at the scrape.
struct InboxGauges {
    waiting: Gauge,
    bytes: Gauge,
    max_waiting: Gauge,
    max_bytes: Gauge,
    oldest: Gauge,
    dead: Gauge,
    up: Gauge,
    source: Arc<dyn Fn() -> InboxSeen + Send + Sync>,
}

impl InboxGauges {
    fn new(source: impl Fn() -> InboxSeen + Send + Sync + 'static) -> Self {
        Self {
            waiting: families::PUSH_DEPTH.gauge_of_collector(),
            bytes: families::PUSH_BYTES.gauge_of_collector(),
            max_waiting: families::PUSH_DEPTH_LIMIT.gauge_of_collector(),
            max_bytes: families::PUSH_BYTES_LIMIT.gauge_of_collector(),
            oldest: families::PUSH_OLDEST.gauge_of_collector(),
            dead: families::PUSH_DEAD.gauge_of_collector(),
            up: families::PUSH_UP.gauge_of_collector(),
            source: Arc::new(source),
        }
    }

    fn gauges(&self) -> [&dyn Collector; 7] {
        [
            &self.waiting,
            &self.bytes,
            &self.max_waiting,
            &self.max_bytes,
            &self.oldest,
            &self.dead,
            &self.up,
        ]
    }
}

impl Collector for InboxGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges()
            .iter()
            .flat_map(|gauge| gauge.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = (self.source)();
        self.waiting.set(seen.waiting as f64);
        self.bytes.set(seen.bytes as f64);
        self.max_waiting.set(seen.max_waiting as f64);
        self.max_bytes.set(seen.max_bytes as f64);
        self.oldest.set(seen.oldest.as_secs_f64());
        self.dead.set(seen.dead as f64);
        self.up.set(f64::from(seen.up));
        self.gauges()
            .iter()
            .flat_map(|gauge| gauge.collect())
            .collect()
    }
}
