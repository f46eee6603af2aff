//! What is counted of media that are kept here.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::families;
use super::metrics::Metrics;

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
        let lookups = families::MEDIA_LOOKUPS.counters(registry);
        let bytes = families::MEDIA_BYTES.gauges(registry);
        let entries = families::MEDIA_ENTRIES.gauges(registry);
        Self {
            lookups: Lookup::LABELS.map(|label| lookups.with_label_values(&[label])),
            bytes: Tier::LABELS.map(|label| bytes.with_label_values(&[label])),
            entries: Tier::LABELS.map(|label| entries.with_label_values(&[label])),
            errors: families::MEDIA_ERRORS.counters(registry),
            evictions: families::MEDIA_EVICTIONS.counters(registry),
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
        let series = self.evictions.with_label_values(&[reason, tier.label()]);
        series.inc_by(count as u64);
    }
}
