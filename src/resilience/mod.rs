//! Keeping going when others do not, or when there is too much of it: coarse timeouts, single flight, rate limits, what
//! there is only so much of, bounded maps, a retry budget, panics.

mod capacity;
mod lru;
pub(crate) mod panics;
mod rate_limit;
mod retry_budget;
mod single_flight;
mod timers;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use capacity::{BufferBudget, Buffered, Slot, Slots};
pub(crate) use lru::{Lru, Recent};
pub(crate) use rate_limit::{RateLimiter, RateLimiters, Whose};
pub(crate) use retry_budget::RetryBudget;
pub(crate) use single_flight::SingleFlight;
pub(crate) use timers::Timers;

/// What a mutex guards, also when somebody has panicked with it in hand: all changes here are whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
