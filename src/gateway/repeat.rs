//! Whether a call to WeChat is made once more.
//!
//! A second attempt is for what is over in a moment: WeChat is busy, or a connection broke. It is made only if WeChat has
//! not seen the first, or if the API only reads (`wechat/endpoints.rs`): whatever else WeChat may have acted on, a message
//! sent or a coin taken, must not be done twice. After a timeout there is no time left to repeat in, and what is refused for
//! any other reason will be refused again. (A dead access_token and a wrong AppSecret are another matter: WeChat looks at
//! them before all else, and has not acted.)
//!
//! When WeChat is in trouble, repeats must not become a part of it: there are two for a call at the most, and one for five
//! calls all in all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Failed;
use crate::crypto;
use crate::resilience::RetryBudget;
use crate::wechat::endpoints;
use crate::wechat::errcode::{Outlook, outlook_at};

/// The pauses before the second and the third attempt. Half of each is left to chance.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// What came of an attempt that was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vain {
    /// WeChat has not seen it.
    Unsent,
    /// WeChat says that it has passing trouble, and may have acted all the same.
    Busy,
    /// The answer was lost or makes no sense. WeChat may have acted.
    Lost,
    /// It will not be better at once.
    Final,
}

/// What all calls may repeat together. It outlives reloads.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// Guards two numbers.
    budget: Mutex<RetryBudget>,
}

impl Vain {
    /// Of an answer of the API at `path` with this errcode.
    pub(crate) fn refused(path: &str, errcode: i64) -> Self {
        match outlook_at(path, errcode) {
            Outlook::Trouble => Self::Busy,
            _ => Self::Final,
        }
    }
}

impl From<Failed> for Vain {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotConnected => Self::Unsent,
            Failed::BrokeOff | Failed::Invalid => Self::Lost,
            Failed::Timeout => Self::Final,
        }
    }
}

/// Whether a call of the API at `path` may be made once more, after so many repeats of it.
pub(crate) fn may_repeat(path: &str, vain: Vain, repeats: usize) -> bool {
    let is_harmless = match vain {
        Vain::Unsent => true,
        Vain::Busy | Vain::Lost => endpoints::is_read(path),
        Vain::Final => false,
    };
    is_harmless && repeats < PAUSES.len()
}

impl Repeats {
    /// Counts a call, whatever comes of it; not the repeats of it.
    pub(crate) fn count_call(&self) {
        self.lock(RetryBudget::deposit);
    }

    /// How long to wait before a call is made once more; `None` if it is not to be. Then it has been paid for.
    pub(crate) fn pause(&self, path: &str, vain: Vain, repeats: usize) -> Option<Duration> {
        let pause = PAUSES.get(repeats)?;
        let granted =
            may_repeat(path, vain, repeats) && self.lock(|budget| budget.withdraw(Instant::now()));
        granted.then(|| {
            let [chance] = crypto::random::<1>();
            *pause / 2 + *pause / 2 * u32::from(chance) / 255
        })
    }

    fn lock<T>(&self, look: impl FnOnce(&RetryBudget) -> T) -> T {
        look(&self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            budget: Mutex::new(RetryBudget::without_free_ones()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: &str = "/wxa/msg_sec_check";
    const ACTS: &str = "/cgi-bin/message/subscribe/send";

    #[test]
    fn what_wechat_may_have_acted_on_is_not_repeated_unless_it_only_reads() {
        for path in [ACTS, "/sns/jscode2session", "/not/in/the/table"] {
            assert!(may_repeat(path, Vain::Unsent, 0), "{path}");
            for vain in [Vain::Busy, Vain::Lost, Vain::Final] {
                assert!(!may_repeat(path, vain, 0), "{vain:?} at {path}");
            }
        }
        assert!(may_repeat(READS, Vain::Busy, 1));
        assert!(may_repeat(READS, Vain::Lost, 1));
        assert!(!may_repeat(READS, Vain::Final, 0));
    }

    #[test]
    fn only_what_passes_is_worth_a_repeat() {
        for (errcode, vain) in [
            (-1, Vain::Busy),
            (45011, Vain::Final),
            (40003, Vain::Final),
            (48001, Vain::Final),
            (42001, Vain::Final),
        ] {
            assert_eq!(Vain::refused(READS, errcode), vain, "{errcode}");
        }
        assert_eq!(Vain::from(Failed::NotConnected), Vain::Unsent);
        assert_eq!(Vain::from(Failed::BrokeOff), Vain::Lost);
        assert_eq!(Vain::from(Failed::Invalid), Vain::Lost);
        assert_eq!(Vain::from(Failed::Timeout), Vain::Final);
    }

    #[tokio::test]
    async fn there_are_two_repeats_with_longer_pauses() {
        let repeats = Repeats::default();
        for _ in 0..10 {
            repeats.count_call();
        }
        let pauses: Vec<_> = (0..3)
            .map(|n| repeats.pause(READS, Vain::Busy, n))
            .collect();
        let within =
            |pause: Option<Duration>, from, to| (from..=to).contains(&pause.unwrap().as_millis());
        assert!(within(pauses[0], 100, 200), "{pauses:?}");
        assert!(within(pauses[1], 400, 800), "{pauses:?}");
        assert_eq!(pauses[2], None);
    }

    #[tokio::test]
    async fn when_all_fails_a_fifth_is_repeated_and_no_more() {
        let repeats = Repeats::default();
        let mut made = 0;
        for _ in 0..1_000 {
            repeats.count_call();
            let again = |n: &usize| repeats.pause(READS, Vain::Busy, *n).is_some();
            made += (0..).take_while(again).count();
        }
        assert_eq!(made, 200);
    }

    #[tokio::test]
    async fn a_call_that_may_not_be_repeated_costs_nothing() {
        let repeats = Repeats::default();
        for _ in 0..5 {
            repeats.count_call();
            assert_eq!(repeats.pause(ACTS, Vain::Lost, 0), None);
        }
        assert!(repeats.pause(READS, Vain::Lost, 0).is_some());
    }
}
