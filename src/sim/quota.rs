//! Counting calls per minute and per day, in fixed windows as WeChat counts ("retry next minute").

use crate::clock::Timestamp;

/// How often something happened in the window that was last looked at.
#[derive(Default)]
pub(super) struct Quota {
    window: u64,
    used: u32,
}

impl Quota {
    /// Counts one more in `window`, unless `limit` has been reached there.
    pub(super) fn admit(&mut self, window: u64, limit: u32) -> bool {
        if self.window != window {
            *self = Self { window, used: 0 };
        }
        let admitted = self.used < limit;
        if admitted {
            self.used += 1;
        }
        admitted
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
