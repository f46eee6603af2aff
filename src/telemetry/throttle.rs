//! Log lines that somebody else can cause are written once a second for each cause, with the number of those left out.
//!
//! An app that is down, or a client that wants it so, fails as many requests a second as there are. A line for each would
//! bury what else there is to read and fill a disk; the metrics count them all anyway.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
/// How many causes are told apart. There are few kinds; but a cause may hold a name.
const MOST: usize = 128;

/// When each cause was last told.
#[derive(Debug)]
pub(crate) struct Throttle<C> {
    /// Guards the list, for a look at it; only failures come here.
    causes: Mutex<Vec<Told<C>>>,
}

#[derive(Debug)]
struct Told<C> {
    cause: C,
    at: Instant,
    left_out: u64,
}

impl<C> Default for Throttle<C> {
    fn default() -> Self {
        Self {
            causes: Mutex::default(),
        }
    }
}

impl<C: PartialEq> Throttle<C> {
    /// Whether `cause` may be told now; then with the number of times that it was not since it last was.
    pub(crate) fn pass(&self, cause: C, now: Instant) -> Option<u64> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = causes.iter_mut().find(|told| told.cause == cause) else {
            if causes.len() >= MOST {
                // One that was told long ago has the least left to be told of.
                let oldest = (0..causes.len()).min_by_key(|&place| causes[place].at);
                causes.swap_remove(oldest.expect("there are so many"));
            }
            causes.push(Told {
                cause,
                at: now,
                left_out: 0,
            });
            return Some(0);
        };
        if now.saturating_duration_since(told.at) < PERIOD {
            told.left_out += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_a_second_with_what_was_left_out() {
        let throttle = Throttle::default();
        let now = Instant::now();
        assert_eq!(throttle.pass("down", now), Some(0));
        assert_eq!(throttle.pass("slow", now), Some(0));
        for _ in 0..99 {
            assert_eq!(throttle.pass("down", now), None);
        }
        assert_eq!(throttle.pass("down", now + PERIOD), Some(99));
        assert_eq!(throttle.pass("down", now + PERIOD), None);
        assert_eq!(throttle.pass("slow", now + 5 * PERIOD), Some(0));
        assert_eq!(throttle.pass("down", now + 5 * PERIOD), Some(1));
    }

    #[test]
    fn causes_without_end_take_no_more_room() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for cause in 0..10 * MOST {
            assert_eq!(throttle.pass(cause, now), Some(0));
        }
        assert_eq!(throttle.causes.lock().unwrap().len(), MOST);
        assert_eq!(throttle.pass(10 * MOST - 1, now), None);
    }
}
