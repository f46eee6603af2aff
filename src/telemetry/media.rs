//! What is counted of media that are kept here.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::metrics::{Metrics, registered};

/// The families.
pub(crate) struct MediaMetrics {
    /// By [`Lookup`], in its order.
    lookups: [IntCounter; 4],
    bytes: [IntGauge; 2],
    entries: [IntGauge; 2],
    errors: IntCounterVec,
    evictions: IntCounterVec,
}

/// Where a medium was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Memory,
    Disk,
    /// At WeChat.
    Miss,
    /// On its way from WeChat, for somebody who asked before.
    Collapsed,
}

/// Where media are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Memory,
    Disk,
}

impl Lookup {
    const LABELS: [&str; 4] = ["memory", "disk", "miss", "collapsed"];
}

impl Tier {
    const LABELS: [&str; 2] = ["memory", "disk"];

    fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

impl MediaMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let registry = metrics.registry();
        let counters =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauges = |name, help| IntGaugeVec::new(Opts::new(name, help), &["tier"]);
        let lookups = registered(
            registry,
            counters(
                "wx_sidecar_media_cache_requests_total",
                "Media that were asked for, by where they were: memory, disk, miss (asked of WeChat), collapsed (on their way already).",
                &["result"],
            ),
        );
        let bytes = registered(
            registry,
            gauges(
                "wx_sidecar_media_cache_bytes",
                "Bytes that the media which are kept take, in memory and on the disk.",
            ),
        );
        let entries = registered(
            registry,
            gauges(
                "wx_sidecar_media_cache_entries",
                "Media that are kept, in memory and on the disk.",
            ),
        );
        let errors = registered(
            registry,
            counters(
                "wx_sidecar_media_cache_errors_total",
                "What the disk did not do: open, read, write; or damaged, what it had. Media were served from memory, as far as that went.",
                &["op"],
            ),
        );
        let evictions = registered(
            registry,
            counters(
                "wx_sidecar_media_cache_evictions_total",
                "Media that are kept no longer, by tier and reason: size (others needed the room), expired.",
                &["tier", "reason"],
            ),
        );
        Self {
            lookups: Lookup::LABELS.map(|label| lookups.with_label_values(&[label])),
            bytes: Tier::LABELS.map(|label| bytes.with_label_values(&[label])),
            entries: Tier::LABELS.map(|label| entries.with_label_values(&[label])),
            errors,
            evictions,
        }
    }

    pub(crate) fn looked_up(&self, lookup: Lookup) {
        self.lookups[lookup as usize].inc();
    }

    /// What a tier holds now.
    pub(crate) fn holds(&self, tier: Tier, entries: usize, bytes: u64) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.entries[tier as usize].set(number(entries as u64));
        self.bytes[tier as usize].set(number(bytes));
    }

    pub(crate) fn failed(&self, op: &'static str) {
        self.errors.with_label_values(&[op]).inc();
    }

    pub(crate) fn evicted(&self, tier: Tier, reason: &'static str, count: usize) {
        let series = self.evictions.with_label_values(&[tier.label(), reason]);
        series.inc_by(count as u64);
    }
}
