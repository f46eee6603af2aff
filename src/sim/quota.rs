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

/// How often in a month an app may have the day's calls of all its APIs given back, and of one of them.
const CLEARS_OF_ALL: u32 = 10;
const CLEARS_OF_ONE: u32 = 50;

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
    /// What it had given back this month: of all its APIs, and of one of them.
    clears: BTreeMap<usize, (Quota, Quota)>,
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

    /// As [`Quotas::clear`], for an app that asks for it, which it may not do often.
    pub(super) fn clear_on_request(
        &mut self,
        app: usize,
        path: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (of_all, of_one) = self.clears.entry(app).or_default();
        let admitted = match path {
            None => of_all.admit(month(now), CLEARS_OF_ALL),
            Some(_) => of_one.admit(month(now), CLEARS_OF_ONE),
        };
        if !admitted {
            return Err(Refusal::ClearsUsedUp);
        }
        self.clear(app, path);
        Ok(())
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

/// The window of the month that `now` lies in, by Shanghai's calendar.
fn month(now: Timestamp) -> u64 {
    // Years begin in March here, so that the day that some years lack is the last. 400 of them are an era, whose length
    // is always the same.
    let days = day(now) + 719_468;
    let (era, days) = (days / 146_097, days % 146_097);
    let year = (days - days / 1460 + days / 36_524 - days / 146_096) / 365;
    let day_of_year = days - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days.
    (era * 400 + year) * 12 + (5 * day_of_year + 2) / 153
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
    fn an_app_may_have_its_calls_given_back_ten_times_a_month_and_those_of_one_api_fifty_times() {
        let mut quotas = Quotas::default();
        // Noon of the last day of November 2023 in Shanghai.
        let november = Timestamp::from_millis(1_701_316_800_000);
        let december = november.plus(Duration::from_secs(12 * 3600));
        for (path, often) in [(None, 10), (Some(PATH), 50)] {
            for _ in 0..often {
                assert_eq!(quotas.clear_on_request(0, path, november), Ok(()));
            }
            let refused = quotas.clear_on_request(0, path, november);
            assert_eq!(refused, Err(Refusal::ClearsUsedUp));
            assert_eq!(quotas.clear_on_request(1, path, november), Ok(()));
            assert_eq!(quotas.clear_on_request(0, path, december), Ok(()));
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // The first seconds of months in Shanghai, from a calendar: January to March 2024, and March 2100, a year
        // without a leap day.
        let firsts = [1_704_038_400, 1_706_716_800, 1_709_222_400, 4_107_513_600];
        let of = |seconds: u64| month(Timestamp::from_millis(seconds * 1000));
        for first in firsts {
            assert_eq!(of(first - 1) + 1, of(first), "{first}");
            assert_eq!(of(first), of(first + 27 * 86_400), "{first}");
        }
        assert_eq!(of(firsts[0]) + 2, of(firsts[2]));
        assert_eq!(of(firsts[2]) + 76 * 12, of(firsts[3]));
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
