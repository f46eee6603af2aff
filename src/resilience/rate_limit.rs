//! Rate limits: so many requests per user or client address, in a table that cannot grow.
//!
//! GCRA, a token bucket that needs one number per key: the time at which the bucket will be full again. Where a set of the
//! table is full, the counter that is nearest to full makes room. So a flood of fresh keys pushes out counters that hardly
//! count, and never one that is exhausted: whoever wants to lose his own counter needs as many exhausted keys as the table
//! has room for, and could as well have used those. Keys are hashed with a random key, so nobody can aim at a set.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::RateLimit;
use crate::domain::OpenId;

const SETS: usize = 4096;
/// Counters in a set. With 16 bytes each, a full table takes one MiB.
const WAYS: usize = 16;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose<'a> {
    User(&'a OpenId),
    /// The whole address for IPv4, the first 64 bits for IPv6: one customer has at least that many.
    Client(IpAddr),
}

/// The counters of one limit. Shared by all workers.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// What a request costs, in nanoseconds.
    interval: u64,
    /// How far ahead a counter may be, in nanoseconds.
    capacity: u64,
    hasher: RandomState,
    /// Each lock guards its set, for a look at 16 numbers.
    sets: Box<[Mutex<Vec<Counter>>]>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    /// The key's hash. Two keys with the same 64 bits share a counter, which nobody can bring about.
    key: u64,
    /// When all of the burst is to be had again, in nanoseconds since the epoch.
    full_at: u64,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per / u64::from(limit.count.max(1));
        Self {
            interval,
            capacity: interval.saturating_mul(u64::from(limit.burst.max(1))),
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a request, or says how long to wait for the next one to pass. Who is refused is not charged.
    pub(crate) fn admit(&self, whose: Whose<'_>, now: Timestamp) -> Result<(), Duration> {
        let now = now.as_millis().saturating_mul(NANOS_PER_MILLI);
        let key = self.hasher.hash_one(whose.of_network());
        let set = &self.sets[key as usize % SETS];
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = find_or_evict(&mut set, key);
        // A clock that was set back must not shut anybody out for as long.
        let fullest = now.saturating_add(self.capacity);
        let full_at = counter
            .full_at
            .clamp(now, fullest)
            .saturating_add(self.interval);
        if full_at - now > self.capacity {
            return Err(Duration::from_nanos(full_at - now - self.capacity));
        }
        counter.full_at = full_at;
        Ok(())
    }
}

/// The counter of `key`; a new one where there is none, in the place of the one nearest to full if the set has no room.
fn find_or_evict(set: &mut Vec<Counter>, key: u64) -> &mut Counter {
    let place = match set.iter().position(|counter| counter.key == key) {
        Some(place) => place,
        None if set.len() < WAYS => {
            set.push(Counter { key, full_at: 0 });
            set.len() - 1
        }
        None => {
            let nearest = set.iter().enumerate().min_by_key(|(_, c)| c.full_at);
            let place = nearest.map_or(0, |(place, _)| place);
            set[place] = Counter { key, full_at: 0 };
            place
        }
    };
    &mut set[place]
}

impl Whose<'_> {
    fn of_network(self) -> Self {
        match self {
            Self::User(_) => self,
            Self::Client(addr) => Self::Client(match addr.to_canonical() {
                IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() >> 64 << 64).into()),
                v4 @ IpAddr::V4(_) => v4,
            }),
        }
    }
}

/// The limiters in use, by what they limit. A reload finds those again whose limit it does not change.
#[derive(Default)]
pub(crate) struct RateLimiters {
    /// Guards the list; held while a snapshot is built.
    known: Mutex<Vec<Known>>,
}

struct Known {
    name: String,
    limit: RateLimit,
    limiter: Weak<RateLimiter>,
}

impl RateLimiters {
    /// The limiter called `name`, with its counters if there is one with this limit already.
    pub(crate) fn get(&self, name: &str, limit: RateLimit) -> Arc<RateLimiter> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.limiter.strong_count() > 0);
        let found = known
            .iter()
            .find(|known| known.name == name && known.limit == limit);
        if let Some(limiter) = found.and_then(|found| found.limiter.upgrade()) {
            return limiter;
        }
        let limiter = Arc::new(RateLimiter::new(limit));
        known.push(Known {
            name: name.to_owned(),
            limit,
            limiter: Arc::downgrade(&limiter),
        });
        limiter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn limit(count: u32, secs: u64, burst: u32) -> RateLimit {
        RateLimit {
            count,
            per: Duration::from_secs(secs),
            burst,
        }
    }

    fn v4(n: u32) -> Whose<'static> {
        Whose::Client(IpAddr::V4(n.into()))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = RateLimiter::new(limit(10, 1, 3));
        for _ in 0..3 {
            assert_eq!(limiter.admit(v4(1), START), Ok(()));
        }
        for _ in 0..100 {
            assert_eq!(
                limiter.admit(v4(1), START),
                Err(Duration::from_millis(100)),
                "who is refused is not charged"
            );
        }
        assert_eq!(limiter.admit(v4(2), START), Ok(()), "others are not meant");
        let later = START.plus(Duration::from_millis(100));
        assert_eq!(limiter.admit(v4(1), later), Ok(()));
        assert!(limiter.admit(v4(1), later).is_err());
        let much_later = START.plus(Duration::from_secs(3600));
        let passed = (0..10).filter(|_| limiter.admit(v4(1), much_later).is_ok());
        assert_eq!(
            passed.count(),
            3,
            "a long rest gives no more than the burst"
        );
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client_and_an_ipv4_address_in_ipv6_clothes_as_ipv4() {
        let limiter = RateLimiter::new(limit(1, 1, 1));
        let client = |text: &str| Whose::Client(text.parse().unwrap());
        assert!(limiter.admit(client("2001:db8:0:1::1"), START).is_ok());
        assert!(limiter.admit(client("2001:db8:0:1:ff::2"), START).is_err());
        assert!(limiter.admit(client("2001:db8:0:2::1"), START).is_ok());
        assert!(limiter.admit(client("192.0.2.1"), START).is_ok());
        assert!(limiter.admit(client("::ffff:192.0.2.1"), START).is_err());
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_does_not_free_who_is_exhausted() {
        let limiter = RateLimiter::new(limit(5, 1, 5));
        while limiter.admit(v4(0), START).is_ok() {}
        for n in 1..500_000 {
            assert!(limiter.admit(v4(n), START).is_ok());
        }
        assert!(limiter.admit(v4(0), START).is_err());
        let counters = limiter.sets.iter().map(|set| set.lock().unwrap().len());
        assert!(counters.sum::<usize>() <= SETS * WAYS);
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nobody_out_for_long() {
        let limiter = RateLimiter::new(limit(1, 1, 2));
        let future = START.plus(Duration::from_secs(86_400));
        assert!(limiter.admit(v4(1), future).is_ok());
        let wait = limiter.admit(v4(1), START).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let user = OpenId::parse("o-user-1").unwrap();
        assert!(limiter.admit(Whose::User(&user), START).is_ok());
    }

    #[test]
    fn a_limiter_is_found_again_as_long_as_it_is_in_use_and_its_limit_is_the_same() {
        let limiters = RateLimiters::default();
        let first = limiters.get("/a", limit(1, 1, 1));
        assert!(Arc::ptr_eq(&first, &limiters.get("/a", limit(1, 1, 1))));
        assert!(!Arc::ptr_eq(&first, &limiters.get("/a", limit(2, 1, 1))));
        assert!(!Arc::ptr_eq(&first, &limiters.get("/b", limit(1, 1, 1))));
        drop(first);
        limiters.get("/a", limit(9, 1, 1));
        assert_eq!(limiters.known.lock().unwrap().len(), 1);
    }
}
