//! How old the access_token in use is and how long it still lives, in seconds at the moment of the scrape.
//!
//! Computed then, on the monotonic clock: a token that nobody renews must be seen to run out, and a wall clock that jumps
//! must not set off an alarm. Before there is a token there is no series.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::Gauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::families;

/// The gauges. Clones show the same token.
#[derive(Clone)]
pub(super) struct TokenTimes {
    age: Gauge,
    expiry: Gauge,
    /// From when to when the token lives. Guards two instants, for a copy.
    life: Arc<Mutex<Option<(Instant, Instant)>>>,
}

impl Default for TokenTimes {
    fn default() -> Self {
        Self {
            age: families::TOKEN_AGE.gauge_of_collector(),
            expiry: families::TOKEN_EXPIRY.gauge_of_collector(),
            life: Arc::default(),
        }
    }
}

impl TokenTimes {
    pub(super) fn set(&self, from: Instant, until: Instant) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, until));
    }
}

impl Collector for TokenTimes {
    fn desc(&self) -> Vec<&Desc> {
        [self.age.desc(), self.expiry.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((from, until)) = life else {
            return Vec::new();
        };
        let now = Instant::now();
        self.age.set(seconds(from, now));
        self.expiry.set(seconds(now, until));
        [self.age.collect(), self.expiry.collect()].concat()
    }
}

/// From `a` to `b`, negative if `b` is before.
fn seconds(a: Instant, b: Instant) -> f64 {
    b.saturating_duration_since(a).as_secs_f64() - a.saturating_duration_since(b).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_seen_to_age_and_to_have_ended_and_none_is_not_seen() {
        let times = TokenTimes::default();
        assert!(times.collect().is_empty());
        let now = Instant::now();
        times.set(now, now + Duration::from_secs(7200));
        let values = || {
            times
                .collect()
                .iter()
                .map(|family| family.get_metric()[0].get_gauge().get_value())
                .collect::<Vec<_>>()
        };
        assert!(values()[0] < 60.0 && values()[1] > 7100.0);
        times.set(now, now);
        assert!(values()[1] <= 0.0);
    }
}
