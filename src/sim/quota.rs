//! Counting calls per minute and per day, in fixed windows as WeChat counts ("retry next minute").
//!
//! An API has no limit until a test or a developer sets one. What an app calls is counted all the same, so that a limit
//! that is set at noon covers the morning, and so that `/cgi-bin/openapi/quota/get` has something to tell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::clock::Timestamp;

/// Beyond so many paths of an app, one without a limit is not counted, so that a fuzzer cannot fill the memory.
const PATHS: usize = 1000;

/// How often an app may call an API; without a number, as often as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// In a day of Shanghai's clock, before 45009.
    pub daily: Option<u32>,
    /// In a minute, before 45011.
    pub per_minute: Option<u32>,
}

/// What an app has used of an API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) limits: Limits,
    pub(super) today: u32,
    pub(super) this_minute: u32,
}

impl Usage {
    /// What is left of the day, if that has a limit.
    pub(super) fn remain(&self) -> Option<u32> {
        let daily = self.limits.daily?;
        Some(daily.saturating_sub(self.today))
    }
}

/// The limits of the APIs and what the apps have used of them.
#[derive(Default)]
pub(super) struct Quotas {
    limits: BTreeMap<String, Limits>,
    /// By the app's index.
    used: BTreeMap<usize, BTreeMap<String, Used>>,
}

#[derive(Default)]
struct Used {
    day: Quota,
    minute: Quota,
}

impl Quotas {
    /// Limits an API from now on, or frees it; what was used stays used.
    pub(super) fn limit(&mut self, path: &str, limits: Limits) {
        if limits == Limits::default() {
            self.limits.remove(path);
        } else {
            self.limits.insert(path.to_owned(), limits);
        }
    }

    /// The APIs that have limits.
    pub(super) fn limited(&self) -> impl Iterator<Item = &str> {
        self.limits.keys().map(String::as_str)
    }

    /// Counts a call, unless a limit has been reached. Where both have been, the longer wait is told.
    pub(super) fn admit(&mut self, app: usize, path: &str, now: Timestamp) -> Result<(), Refusal> {
        let usage = self.usage(app, path, now);
        let Limits { daily, per_minute } = usage.limits;
        if daily.is_some_and(|limit| usage.today >= limit) {
            return Err(Refusal::DayQuota);
        }
        if per_minute.is_some_and(|limit| usage.this_minute >= limit) {
            return Err(Refusal::MinuteQuota);
        }
        let limited = self.limits.contains_key(path);
        let used = self.used.entry(app).or_default();
        if limited || used.len() < PATHS || used.contains_key(path) {
            let used = used.entry(path.to_owned()).or_default();
            used.day.count(day(now));
            used.minute.count(minute(now));
        }
        Ok(())
    }

    pub(super) fn usage(&self, app: usize, path: &str, now: Timestamp) -> Usage {
        let used = self.used.get(&app).and_then(|used| used.get(path));
        Usage {
            limits: self.limits.get(path).copied().unwrap_or_default(),
            today: used.map_or(0, |used| used.day.used(day(now))),
            this_minute: used.map_or(0, |used| used.minute.used(minute(now))),
        }
    }

    /// Gives an app the day's calls back: those of one API, or of all. Minutes are not given back.
    pub(super) fn clear(&mut self, app: usize, path: Option<&str>) {
        let used = self.used.entry(app).or_default();
        for (_, used) in used
            .iter_mut()
            .filter(|(of, _)| path.is_none_or(|path| *of == path))
        {
            used.day = Quota::default();
        }
    }
}

/// How often something happened in the window that was last looked at.
#[derive(Default)]
pub(super) struct Quota {
    window: u64,
    used: u32,
}

impl Quota {
    /// Counts one more in `window`, unless `limit` has been reached there.
    pub(super) fn admit(&mut self, window: u64, limit: u32) -> bool {
        let admitted = self.used(window) < limit;
        if admitted {
            self.count(window);
        }
        admitted
    }

    fn used(&self, window: u64) -> u32 {
        if self.window == window { self.used } else { 0 }
    }

    fn count(&mut self, window: u64) {
        let used = self.used(window).saturating_add(1);
        *self = Self { window, used };
    }
}

/// The window of the minute that `now` lies in.
pub(super) fn minute(now: Timestamp) -> u64 {
    now.as_secs() / 60
}

/// The window of the day that `now` lies in, by Shanghai's clock, where WeChat's days begin.
pub(super) fn day(now: Timestamp) -> u64 {
    (now.as_secs() + 8 * 3600) / 86_400
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Midnight in Shanghai.
    const MIDNIGHT: Timestamp = Timestamp::from_millis(1_700_064_000_000);
    const PATH: &str = "/wxa/msg_sec_check";

    fn after(seconds: u64) -> Timestamp {
        MIDNIGHT.plus(Duration::from_secs(seconds))
    }

    fn limited(daily: Option<u32>, per_minute: Option<u32>) -> Quotas {
        let mut quotas = Quotas::default();
        quotas.limit(PATH, Limits { daily, per_minute });
        quotas
    }

    #[test]
    fn a_day_ends_at_midnight_in_shanghai() {
        let mut quotas = limited(Some(2), None);
        for _ in 0..2 {
            assert_eq!(quotas.admit(0, PATH, after(0)), Ok(()));
        }
        for late in [0, 86_399] {
            assert_eq!(quotas.admit(0, PATH, after(late)), Err(Refusal::DayQuota));
        }
        assert_eq!(quotas.admit(0, PATH, after(86_400)), Ok(()));
        assert_eq!(quotas.usage(0, PATH, after(86_400)).remain(), Some(1));
    }

    #[test]
    fn a_minute_ends_with_the_minute_and_what_is_refused_does_not_count() {
        let mut quotas = limited(Some(3), Some(1));
        assert_eq!(quotas.admit(0, PATH, after(30)), Ok(()));
        assert_eq!(quotas.admit(0, PATH, after(59)), Err(Refusal::MinuteQuota));
        assert_eq!(quotas.admit(0, PATH, after(60)), Ok(()));
        assert_eq!(quotas.usage(0, PATH, after(60)).today, 2);
        assert_eq!(quotas.admit(0, PATH, after(120)), Ok(()));
        assert_eq!(
            quotas.admit(0, PATH, after(120)),
            Err(Refusal::DayQuota),
            "the longer wait"
        );
    }

    #[test]
    fn apps_and_apis_have_quotas_of_their_own() {
        let mut quotas = limited(Some(1), None);
        assert_eq!(quotas.admit(0, PATH, after(0)), Ok(()));
        assert_eq!(quotas.admit(0, PATH, after(0)), Err(Refusal::DayQuota));
        assert_eq!(quotas.admit(1, PATH, after(0)), Ok(()));
        assert_eq!(quotas.admit(0, "/wxa/getwxacode", after(0)), Ok(()));
    }

    #[test]
    fn a_limit_covers_the_calls_before_it_and_can_be_taken_away() {
        let mut quotas = Quotas::default();
        for _ in 0..5 {
            assert_eq!(quotas.admit(0, PATH, after(0)), Ok(()));
        }
        let limits = Limits {
            daily: Some(5),
            per_minute: None,
        };
        quotas.limit(PATH, limits);
        assert_eq!(quotas.admit(0, PATH, after(0)), Err(Refusal::DayQuota));
        quotas.limit(PATH, Limits::default());
        assert_eq!(quotas.admit(0, PATH, after(0)), Ok(()));
        assert_eq!(quotas.usage(0, PATH, after(0)).remain(), None);
    }

    #[test]
    fn cleared_calls_come_back_to_the_day_of_that_app_alone() {
        let mut quotas = limited(Some(1), Some(1));
        for app in [0, 1] {
            assert_eq!(quotas.admit(app, PATH, after(0)), Ok(()));
        }
        quotas.clear(0, Some("/wxa/getwxacode"));
        assert_eq!(quotas.usage(0, PATH, after(0)).remain(), Some(0));
        quotas.clear(0, Some(PATH));
        assert_eq!(quotas.usage(0, PATH, after(0)).remain(), Some(1));
        assert_eq!(quotas.admit(0, PATH, after(0)), Err(Refusal::MinuteQuota));
        quotas.clear(0, None);
        assert_eq!(quotas.admit(0, PATH, after(60)), Ok(()));
        assert_eq!(quotas.admit(1, PATH, after(60)), Err(Refusal::DayQuota));
    }

    #[test]
    fn paths_without_a_limit_are_counted_up_to_a_bound() {
        let mut quotas = limited(Some(1), None);
        for n in 0..PATHS + 5 {
            assert_eq!(quotas.admit(0, &format!("/{n}"), after(0)), Ok(()));
        }
        assert_eq!(quotas.used[&0].len(), PATHS);
        assert_eq!(quotas.admit(0, PATH, after(0)), Ok(()));
        assert_eq!(quotas.admit(0, PATH, after(0)), Err(Refusal::DayQuota));
    }
}
