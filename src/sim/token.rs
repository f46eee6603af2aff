//! The lives of access_tokens: the classic ones of `/cgi-bin/token` and the stable ones of `/cgi-bin/stable_token`.
//!
//! Both are chains in which a new token ends the one before it, with five minutes in which both work, and ends the one
//! before that at once. They differ in when a new one is made: the classic chain makes one at every call, the stable one
//! when five minutes are left or when it is forced. The two chains of an app do not touch each other.

use std::time::Duration;

use super::ids::Ids;
use super::quota::{Quota, day, minute};
use super::refusal::Refusal;
use crate::clock::Timestamp;

/// The whole life of a token.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(7200);
/// How long a token goes on working beside its successor.
const OVERLAP: Duration = Duration::from_secs(300);
/// After a forced refresh, how long another one changes nothing.
const FORCE_PAUSE: Duration = Duration::from_secs(30);
const FORCED_PER_DAY: u32 = 20;
const STABLE_PER_MINUTE: u32 = 10_000;

/// What a token endpoint hands out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) access_token: String,
    /// Seconds that are left of its life.
    pub(super) expires_in: u64,
}

/// The tokens of one app and one kind.
#[derive(Default)]
pub(super) struct Chain {
    current: Option<Token>,
    previous: Option<Token>,
}

struct Token {
    text: String,
    expires_at: Timestamp,
    /// When it stops working: its expiry, or sooner if a successor was made.
    dies_at: Timestamp,
}

impl Chain {
    /// Makes a new token; the one before it has [`OVERLAP`] left, older ones nothing.
    pub(super) fn issue(&mut self, now: Timestamp, ids: &mut Ids) -> Grant {
        let expires_at = now.plus(TOKEN_LIFE);
        let token = Token {
            text: ids.access_token(),
            expires_at,
            dies_at: expires_at,
        };
        let grant = token.grant(now);
        self.previous = self.current.replace(token).map(|mut old| {
            old.dies_at = old.expires_at.min(now.plus(OVERLAP));
            old
        });
        grant
    }

    /// Whether `text` works, if this chain knows it at all.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Option<Result<(), Refusal>> {
        let token = [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .find(|token| token.text == text)?;
        Some(if now < token.dies_at {
            Ok(())
        } else if now < token.expires_at {
            Err(Refusal::CredentialInvalid)
        } else {
            Err(Refusal::TokenExpired)
        })
    }
}

impl Token {
    fn grant(&self, now: Timestamp) -> Grant {
        Grant {
            access_token: self.text.clone(),
            expires_in: self.expires_at.since(now).as_secs(),
        }
    }
}

/// The chain of `/cgi-bin/stable_token` with its limits.
#[derive(Default)]
pub(super) struct StableChain {
    chain: Chain,
    forced_at: Option<Timestamp>,
    forced: Quota,
    calls: Quota,
}

impl StableChain {
    /// The current token, or a new one if it is `force`d or due.
    pub(super) fn obtain(
        &mut self,
        force: bool,
        now: Timestamp,
        ids: &mut Ids,
    ) -> Result<Grant, Refusal> {
        if !self.calls.admit(minute(now), STABLE_PER_MINUTE) {
            return Err(Refusal::MinuteQuota);
        }
        if force && !self.forced_a_moment_ago(now) {
            if !self.forced.admit(day(now), FORCED_PER_DAY) {
                return Err(Refusal::DayQuota);
            }
            self.forced_at = Some(now);
            return Ok(self.chain.issue(now, ids));
        }
        match &self.chain.current {
            Some(token) if token.expires_at.since(now) > OVERLAP => Ok(token.grant(now)),
            _ => Ok(self.chain.issue(now, ids)),
        }
    }

    /// See [`Chain::check`].
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Option<Result<(), Refusal>> {
        self.chain.check(text, now)
    }

    fn forced_a_moment_ago(&self, now: Timestamp) -> bool {
        self.forced_at.is_some_and(|at| now.since(at) < FORCE_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_new_token_leaves_the_old_one_five_minutes() {
        let (mut chain, mut ids) = (Chain::default(), Ids::new(0));
        let old = chain.issue(START, &mut ids);
        let new = chain.issue(at(10), &mut ids);
        assert_eq!(new.expires_in, 7200);
        assert_eq!(chain.check(&old.access_token, at(309)), Some(Ok(())));
        assert_eq!(
            chain.check(&old.access_token, at(310)),
            Some(Err(Refusal::CredentialInvalid))
        );
        assert_eq!(chain.check(&new.access_token, at(310)), Some(Ok(())));
    }

    #[test]
    fn the_token_before_the_last_is_dead_at_once() {
        let (mut chain, mut ids) = (Chain::default(), Ids::new(0));
        let first = chain.issue(START, &mut ids);
        chain.issue(at(1), &mut ids);
        chain.issue(at(2), &mut ids);
        assert_eq!(chain.check(&first.access_token, at(2)), None);
    }

    #[test]
    fn a_token_that_lived_its_life_is_expired_and_not_invalid() {
        let (mut chain, mut ids) = (Chain::default(), Ids::new(0));
        let token = chain.issue(START, &mut ids);
        assert_eq!(chain.check(&token.access_token, at(7199)), Some(Ok(())));
        assert_eq!(
            chain.check(&token.access_token, at(7200)),
            Some(Err(Refusal::TokenExpired))
        );
    }

    #[test]
    fn a_stable_token_stays_and_tells_its_remaining_life() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let first = chain.obtain(false, START, &mut ids).unwrap();
        let again = chain.obtain(false, at(6899), &mut ids).unwrap();
        assert_eq!(again.access_token, first.access_token);
        assert_eq!(again.expires_in, 301);
    }

    #[test]
    fn the_platform_renews_a_stable_token_five_minutes_before_its_end_and_both_work() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let old = chain.obtain(false, START, &mut ids).unwrap();
        let new = chain.obtain(false, at(6900), &mut ids).unwrap();
        assert_ne!(new.access_token, old.access_token);
        assert_eq!(new.expires_in, 7200);
        assert_eq!(chain.check(&old.access_token, at(7199)), Some(Ok(())));
        assert_eq!(
            chain.check(&old.access_token, at(7200)),
            Some(Err(Refusal::TokenExpired))
        );
    }

    #[test]
    fn a_forced_refresh_within_thirty_seconds_of_the_last_changes_nothing() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let first = chain.obtain(true, START, &mut ids).unwrap();
        let same = chain.obtain(true, at(29), &mut ids).unwrap();
        assert_eq!(same.access_token, first.access_token);
        assert_eq!(same.expires_in, 7171);
        let new = chain.obtain(true, at(30), &mut ids).unwrap();
        assert_ne!(new.access_token, first.access_token);
    }

    #[test]
    fn two_forced_refreshes_kill_a_leaked_token_at_once() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let leaked = chain.obtain(false, START, &mut ids).unwrap();
        chain.obtain(true, at(1), &mut ids).unwrap();
        assert_eq!(chain.check(&leaked.access_token, at(1)), Some(Ok(())));
        chain.obtain(true, at(31), &mut ids).unwrap();
        assert_eq!(chain.check(&leaked.access_token, at(31)), None);
    }

    #[test]
    fn the_twenty_first_forced_refresh_of_a_day_is_refused_until_midnight_in_shanghai() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let midnight = Timestamp::from_millis(1_700_064_000_000);
        assert_eq!((midnight.as_secs() + 8 * 3600) % 86_400, 0);
        let mut now = midnight;
        for _ in 0..20 {
            chain.obtain(true, now, &mut ids).unwrap();
            now = now.plus(Duration::from_secs(60));
        }
        assert_eq!(chain.obtain(true, now, &mut ids), Err(Refusal::DayQuota));
        assert!(
            chain.obtain(false, now, &mut ids).is_ok(),
            "normal mode goes on"
        );
        let tomorrow = midnight.plus(Duration::from_secs(86_400));
        assert!(chain.obtain(true, tomorrow, &mut ids).is_ok());
    }

    #[test]
    fn the_minute_quota_of_stable_tokens_ends_with_the_minute() {
        let (mut chain, mut ids) = (StableChain::default(), Ids::new(0));
        let now = Timestamp::from_millis(1_700_000_040_000);
        for _ in 0..STABLE_PER_MINUTE {
            chain.obtain(false, now, &mut ids).unwrap();
        }
        assert_eq!(
            chain.obtain(false, now, &mut ids),
            Err(Refusal::MinuteQuota)
        );
        let next = now.plus(Duration::from_secs(60));
        assert!(chain.obtain(false, next, &mut ids).is_ok());
    }
}
