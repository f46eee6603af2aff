//! Which APIs are called how often, and what is left of their quotas.
//!
//! WeChat tells of a quota only when asked, and to ask is a call as well. So it is asked seldom, and of the APIs that are
//! called most; who watches the gauge sees the end of a day's quota coming before 45009 does.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Gateway;
use crate::error::{Error, Kind};
use crate::wechat::{access_token, endpoints, quota};

/// Of how many APIs the quota is asked for.
const WATCHED: usize = 10;

/// What has been called since the process began. Outlives reloads.
#[derive(Default)]
pub(super) struct Usage {
    /// Guards counters of constants, for a look at them.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    calls: HashMap<&'static str, u64>,
    /// APIs of which WeChat tells no quota.
    untold: HashSet<&'static str>,
}

impl Usage {
    /// Counts a call. What shows the AppSecret has no quota that is told, and to ask for quotas is not use.
    pub(super) fn count(&self, path: &'static str) {
        let uninteresting = [endpoints::OTHER, quota::API.path, access_token::API.path];
        if !uninteresting.contains(&path) && endpoints::shows_token(path) {
            *self.known().calls.entry(path).or_default() += 1;
        }
    }

    /// The APIs that are called most, of those whose quota may be told.
    fn most_used(&self) -> Vec<&'static str> {
        let known = self.known();
        let told = |(path, _): &(&&'static str, &u64)| !known.untold.contains(**path);
        let mut used: Vec<_> = known.calls.iter().filter(told).collect();
        used.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
        used.into_iter()
            .take(WATCHED)
            .map(|(path, _)| *path)
            .collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Asks for the quotas of the APIs that are called most and tells them in the metrics. Whether any has been called.
    pub(crate) async fn look_at_quotas(&self) -> bool {
        let most_used = self.line.usage.most_used();
        for path in &most_used {
            match self.quota(path).await {
                Ok(quota) => self.line.metrics.quota(path, quota),
                Err(error) if super::refused_with(&error, quota::is_untold) => {
                    self.line.usage.known().untold.insert(path);
                }
                Err(error) => {
                    tracing::debug!(path, %error, "a quota cannot be asked for");
                    // WeChat has other worries, or calls are held back; the next look is soon enough.
                    if error.kind() != Kind::WechatRefused {
                        break;
                    }
                }
            }
        }
        !most_used.is_empty()
    }

    async fn quota(&self, path: &str) -> Result<quota::Quota, Error> {
        let body = quota::body(path);
        self.call(&quota::API, &[], Some(body), &[], quota::parse)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_used_come_first_and_those_without_a_quota_not_at_all() {
        let usage = Usage::default();
        for (path, calls) in [
            ("/wxa/msg_sec_check", 3),
            ("/wxa/getwxacode", 5),
            ("/cgi-bin/openapi/quota/get", 9),
            ("/cgi-bin/stable_token", 9),
            ("/sns/jscode2session", 9),
            ("other", 9),
        ] {
            (0..calls).for_each(|_| usage.count(path));
        }
        assert_eq!(usage.most_used(), ["/wxa/getwxacode", "/wxa/msg_sec_check"]);
        usage.known().untold.insert("/wxa/getwxacode");
        assert_eq!(usage.most_used(), ["/wxa/msg_sec_check"]);
    }
}
