//! What is counted of media that come from WeChat, and of the cache in between.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::registered;

/// The families.
pub(crate) struct MediaMetrics {
    /// By [`Served`].
    requests: [IntCounter; 4],
    /// By [`Tier`].
    bytes: [IntGauge; 2],
    entries: [IntGauge; 2],
    errors: IntCounterVec,
    evictions: IntCounterVec,
}

/// Where a medium came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Memory,
    Disk,
    /// From WeChat.
    Miss,
    /// From WeChat, with somebody else who had asked before.
    Collapsed,
}

/// Where media are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Memory,
    Disk,
}

/// What was done with the disk when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Scan,
    Read,
    Write,
}

/// Why a medium is kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Others needed the room.
    Size,
    /// Its time was over.
    Expired,
    /// Its file was not what was written.
    Corrupt,
}

/// Counted, and never scraped.
impl Default for MediaMetrics {
    fn default() -> Self {
        Self::register(&Registry::new())
    }
}

impl MediaMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let counters = |name, help, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges =
            |name, help| registered(registry, IntGaugeVec::new(Opts::new(name, help), &["tier"]));
        let requests = counters(
            "wx_sidecar_media_cache_requests_total",
            "Media that were asked for, by where they came from: memory, disk, miss (WeChat was asked), collapsed (somebody \
             else had just asked WeChat).",
            &["result"],
        );
        let bytes = gauges(
            "wx_sidecar_media_cache_bytes",
            "How many bytes of media are kept, by tier: memory, disk.",
        );
        let entries = gauges(
            "wx_sidecar_media_cache_entries",
            "How many media are kept, by tier: memory, disk.",
        );
        let each =
            |gauge: &IntGaugeVec| ["memory", "disk"].map(|tier| gauge.with_label_values(&[tier]));
        let results = ["memory", "disk", "miss", "collapsed"];
        Self {
            requests: results.map(|result| requests.with_label_values(&[result])),
            bytes: each(&bytes),
            entries: each(&entries),
            errors: counters(
                "wx_sidecar_media_cache_errors_total",
                "Failures of the disk that media are kept on, by what was done: scan, read, write. The media were served all \
                 the same.",
                &["op"],
            ),
            evictions: counters(
                "wx_sidecar_media_cache_evictions_total",
                "Media that are kept no longer, by tier and reason: size, expired, corrupt.",
                &["tier", "reason"],
            ),
        }
    }

    pub(crate) fn served(&self, served: Served) {
        self.requests[served as usize].inc();
    }

    pub(crate) fn holds(&self, tier: Tier, bytes: u64, entries: usize) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.bytes[tier as usize].set(number(bytes));
        self.entries[tier as usize].set(number(entries as u64));
    }

    pub(crate) fn failed(&self, operation: Operation) {
        let label = match operation {
            Operation::Scan => "scan",
            Operation::Read => "read",
            Operation::Write => "write",
        };
        self.errors.with_label_values(&[label]).inc();
    }

    pub(crate) fn evicted(&self, tier: Tier, reason: Eviction, count: usize) {
        if count == 0 {
            return;
        }
        let tier = match tier {
            Tier::Memory => "memory",
            Tier::Disk => "disk",
        };
        let reason = match reason {
            Eviction::Size => "size",
            Eviction::Expired => "expired",
            Eviction::Corrupt => "corrupt",
        };
        self.evictions
            .with_label_values(&[tier, reason])
            .inc_by(count as u64);
    }
}
