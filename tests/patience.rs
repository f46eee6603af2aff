//! Waiting for what a test has brought about: until it is so, and never for a time that is hoped to be enough.
//!
//! Who can be told (`fake_app::Signal`) should be; this is for what only shows by looking.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How many looks in a row must find the same.
const ALIKE: usize = 20;

/// Looks until it is so.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes_true(is_so), "after {PATIENCE:?}: {what}");
}

/// Looks until it is so; says whether it ever was.
pub(crate) fn comes_true(is_so: impl FnMut() -> bool) -> bool {
    comes_true_within(PATIENCE, is_so)
}

/// The same for what must not take longer than that, because it would have come by another way then.
pub(crate) fn comes_true_within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// What is seen once it has stopped changing.
pub(crate) fn settled<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    let (mut seen, mut alike) = (look(), 0);
    eventually("it changes still", || {
        let now = look();
        alike = if now == seen { alike + 1 } else { 0 };
        seen = now;
        alike == ALIKE
    });
    seen
}
