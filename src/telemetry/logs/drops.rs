//! The metric of lines that were dropped. It is of the process, as the log is.

use prometheus::IntCounterVec;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::telemetry::families;

/// Counts, at a scrape, what was counted as it happened.
pub(crate) struct Drops(IntCounterVec);

impl Default for Drops {
    fn default() -> Self {
        Self(families::LOG_LINES_DROPPED.counters_of_collector())
    }
}

impl Collector for Drops {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (reason, count) in super::dropped() {
            let counter = self.0.with_label_values(&[reason]);
            counter.reset();
            counter.inc_by(count);
        }
        self.0.collect()
    }
}
