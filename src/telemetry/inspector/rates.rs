//! How many requests there were in each second of the last minute, and how long they took.

use std::time::Duration;

use serde_json::{Value, json};

/// How many seconds are told.
const SECONDS: usize = 60;

/// The last minute.
pub(super) struct Rates {
    /// The second of the newest slot.
    now: u64,
    /// By second, modulo [`SECONDS`].
    slots: [Slot; SECONDS],
}

#[derive(Clone, Copy, Default)]
struct Slot {
    requests: u64,
    errors: u64,
    took: Duration,
    slowest: Duration,
}

impl Rates {
    pub(super) fn new(now: u64) -> Self {
        Self {
            now,
            slots: [Slot::default(); SECONDS],
        }
    }

    pub(super) fn add(&mut self, now: u64, status: u16, took: Duration) {
        self.turn(now);
        let slot = &mut self.slots[place(self.now)];
        slot.requests += 1;
        slot.errors += u64::from(status >= 500);
        slot.took += took;
        slot.slowest = slot.slowest.max(took);
    }

    /// The oldest second first.
    pub(super) fn told(&mut self, now: u64) -> Value {
        self.turn(now);
        let first = self.now + 1;
        let slots: Vec<_> = (first..first + SECONDS as u64)
            .map(|second| self.slots[place(second)])
            .collect();
        let all = |of: fn(&Slot) -> u64| slots.iter().map(of).collect::<Vec<_>>();
        json!({
            "until": self.now,
            "requests": all(|slot| slot.requests),
            "errors": all(|slot| slot.errors),
            "mean_us": all(|slot| micros(slot.took) / slot.requests.max(1)),
            "slowest_us": all(|slot| micros(slot.slowest)),
        })
    }

    /// Empties the slots of what has passed since. A clock that was set back stands still until it has caught up.
    fn turn(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now).min(SECONDS as u64);
        for second in now + 1 - passed..=now {
            self.slots[place(second)] = Slot::default();
        }
        self.now = self.now.max(now);
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).expect("it is less than 60")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rates: &mut Rates, now: u64, name: &str) -> Vec<u64> {
        let told = rates.told(now);
        let numbers = told[name].as_array().cloned().unwrap_or_default();
        numbers.iter().filter_map(Value::as_u64).collect()
    }

    #[test]
    fn each_second_has_its_own_sum_and_a_minute_later_it_is_gone() {
        let mut rates = Rates::new(1000);
        rates.add(1000, 200, Duration::from_micros(10));
        rates.add(1000, 503, Duration::from_micros(30));
        rates.add(1003, 404, Duration::from_micros(7));
        let requests = of(&mut rates, 1003, "requests");
        assert_eq!(requests.len(), SECONDS);
        assert_eq!(requests[SECONDS - 4..], [2, 0, 0, 1]);
        assert_eq!(of(&mut rates, 1003, "errors")[SECONDS - 4..], [1, 0, 0, 0]);
        assert_eq!(
            of(&mut rates, 1003, "mean_us")[SECONDS - 4..],
            [20, 0, 0, 7]
        );
        assert_eq!(
            of(&mut rates, 1003, "slowest_us")[SECONDS - 4..],
            [30, 0, 0, 7]
        );
        assert_eq!(of(&mut rates, 1060, "requests").iter().sum::<u64>(), 1);
        assert_eq!(of(&mut rates, 5000, "requests").iter().sum::<u64>(), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut rates = Rates::new(1000);
        rates.add(1000, 200, Duration::ZERO);
        rates.add(990, 200, Duration::ZERO);
        assert_eq!(of(&mut rates, 995, "requests")[SECONDS - 1], 2);
    }
}
