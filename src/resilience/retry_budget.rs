//! A retry budget: repeating requests must not become a load of its own.
//!
//! When an app is in trouble, every request may fail on a dead connection, and to repeat them all would double what it has
//! to bear. So each request pays in a fifth of a retry; what is unused of the last few hundred requests may be spent, and a
//! few retries a second are free, so that a service with little to do may repeat as well.

use std::cell::Cell;

use tokio::time::Instant;

/// What a request pays in, and what a retry costs: a fifth.
const DEPOSIT: u64 = 1;
const PRICE: u64 = 5;
/// The most that may be saved: a hundred retries, which is what five hundred requests pay in.
const MOST: u64 = 100 * PRICE;
/// How many retries a second are free.
const FREE_PER_SECOND: u64 = 10;

/// A budget; of one worker, or of all under a lock.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    balance: Cell<u64>,
    free_per_second: u64,
    /// How many free retries were had in the second that began then.
    free: Cell<(Instant, u64)>,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self::with_free(FREE_PER_SECOND)
    }

    /// A budget of a fifth and no more, for where somebody counts what he is asked.
    pub(crate) fn without_free_ones() -> Self {
        Self::with_free(0)
    }

    fn with_free(free_per_second: u64) -> Self {
        Self {
            balance: Cell::new(0),
            free_per_second,
            free: Cell::new((Instant::now(), 0)),
        }
    }

    /// Pays in for a request.
    pub(crate) fn deposit(&self) {
        self.balance.set((self.balance.get() + DEPOSIT).min(MOST));
    }

    /// Whether a retry may be made; pays for it.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let (since, had) = match self.free.get() {
            (since, had) if (now - since).as_secs() == 0 => (since, had),
            _ => (now, 0),
        };
        if had < self.free_per_second {
            self.free.set((since, had + 1));
            return true;
        }
        let left = self.balance.get().checked_sub(PRICE);
        left.inspect(|left| self.balance.set(*left)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn retries(budget: &RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    /// In a time that stands still, because the second of the free ones begins with the budget.
    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_may_be_repeated_and_a_few_are_free() {
        let budget = RetryBudget::new();
        let now = Instant::now();
        assert_eq!(retries(&budget, now), 10);
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!(retries(&budget, now), 20);
        assert_eq!(retries(&budget, now + Duration::from_millis(999)), 0);
        assert_eq!(retries(&budget, now + Duration::from_secs(1)), 10);
    }

    #[test]
    fn where_none_are_free_a_fifth_is_all_there_is() {
        let budget = RetryBudget::without_free_ones();
        let now = Instant::now();
        assert_eq!(retries(&budget, now), 0);
        for _ in 0..99 {
            budget.deposit();
        }
        assert_eq!(retries(&budget, now + Duration::from_secs(9)), 19);
    }

    #[test]
    fn a_long_good_time_does_not_pay_for_a_storm() {
        let budget = RetryBudget::new();
        for _ in 0..1_000_000 {
            budget.deposit();
        }
        assert_eq!(retries(&budget, Instant::now()), 110);
    }
}
