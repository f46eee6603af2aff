//! What is counted of message push. Registered only where there is some.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::metrics::{register, registered};

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
        let counters =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let received = counters(
            "wx_sidecar_push_total",
            "Genuine messages of WeChat's by type and result: stored (safe, and acknowledged), duplicate (acknowledged), full and \
             failed (not acknowledged, so that WeChat sends them again).",
            &["type", "result"],
        );
        let refused = counters(
            "wx_sidecar_push_refused_total",
            "Pushes that were not taken for WeChat's, or that cannot be read, by what is wrong with them.",
            &["reason"],
        );
        let acknowledged = Histogram::with_opts(
            HistogramOpts::new(
                "wx_sidecar_push_ack_duration_seconds",
                "From a push's head to its acknowledgement; of messages that wait for the app's reply too. WeChat waits 5 s.",
            )
            .buckets(vec![
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.5,
            ]),
        );
        let attempts = counters(
            "wx_sidecar_push_deliveries_total",
            "Attempts to deliver a message to the app by result: accepted, refused (another 4xx), failed (5xx, 401, 403, 404, 405, \
             too slow), unreachable (no connection, 429, 503), dropped (by an operator), unread (the journal or Redis cannot be read).",
            &["result"],
        );
        let delay = Histogram::with_opts(
            HistogramOpts::new(
                "wx_sidecar_push_delivery_delay_seconds",
                "From a message's arrival to the app's acceptance.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0,
            ]),
        );
        let given_up = IntCounter::new(
            "wx_sidecar_push_given_up_total",
            "Messages that became dead letters.",
        );
        let passive_replies = counters(
            "wx_sidecar_push_replies_total",
            "What became of waiting for the app's reply: sent, none (the app had nothing to say), late, invalid.",
            &["result"],
        );
        let secrets = counters(
            "wx_sidecar_push_secret_uses_total",
            "Genuine messages by the token they were signed with and the key they were encrypted with: slot 0 is the first in the \
             configuration, 1 any other.",
            &["secret", "slot"],
        );
        let secrets = registered(registry, secrets);
        let of = |secret| ["0", "1"].map(|slot| secrets.with_label_values(&[secret, slot]));
        register(registry, InboxGauges::new(inbox));
        Self {
            tokens: of("token"),
            keys: of("aes_key"),
            received: registered(registry, received),
            refused: registered(registry, refused),
            acknowledged: registered(registry, acknowledged),
            attempts: registered(registry, attempts),
            delay: registered(registry, delay),
            given_up: registered(registry, given_up),
            passive_replies: registered(registry, passive_replies),
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
            .with_label_values(&[known.unwrap_or(&"other"), result])
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
    waiting: IntGauge,
    bytes: IntGauge,
    oldest: Gauge,
    dead: IntGauge,
    up: IntGauge,
    source: Arc<dyn Fn() -> InboxSeen + Send + Sync>,
}

impl InboxGauges {
    fn new(source: impl Fn() -> InboxSeen + Send + Sync + 'static) -> Self {
        let whole = |name, help| {
            IntGauge::new(name, help).expect("names are constants that prometheus accepts")
        };
        Self {
            waiting: whole(
                "wx_sidecar_push_inbox_depth",
                "Messages that are acknowledged and not delivered; with Redis, those of all replicas.",
            ),
            bytes: whole("wx_sidecar_push_inbox_bytes", "How many bytes those have."),
            oldest: Gauge::new(
                "wx_sidecar_push_inbox_oldest_age_seconds",
                "How long the oldest of them has waited; 0 if there is none. With Redis, of those that this replica delivers.",
            )
            .expect("names are constants that prometheus accepts"),
            dead: whole(
                "wx_sidecar_push_dead_letters",
                "Messages that were given up and are kept for somebody to look at.",
            ),
            up: whole(
                "wx_sidecar_push_inbox_up",
                "Whether messages can be made safe; if not, none is acknowledged.",
            ),
            source: Arc::new(source),
        }
    }

    fn gauges(&self) -> [&dyn Collector; 5] {
        [
            &self.waiting,
            &self.bytes,
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
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.set(number(seen.waiting));
        self.bytes
            .set(i64::try_from(seen.bytes).unwrap_or(i64::MAX));
        self.oldest.set(seen.oldest.as_secs_f64());
        self.dead.set(number(seen.dead));
        self.up.set(i64::from(seen.up));
        self.gauges()
            .iter()
            .flat_map(|gauge| gauge.collect())
            .collect()
    }
}
