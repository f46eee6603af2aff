//! Waiting for what a test has brought about: until it is so, and never for a time that is hoped to be enough.
//!
//! Who can be told (`fake_app::Signal`) should be; this is for what only shows by looking. [`dawdle`] is something else: a peer
//! that takes its time, which is what the test is about and nothing that it waits for.

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

/// The same while connections go on, which are tasks of this thread.
pub(crate) async fn eventually_async(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, looking).await;
    assert!(in_time.is_ok(), "after {PATIENCE:?}: {what}");
}

/// Takes its time, as a slow peer does between two bytes or an idle one between two requests. Never a way to wait for
/// something to happen.
pub(crate) fn dawdle(time: Duration) {
    thread::sleep(time);
}

/// What is seen once it has stopped changing. Whoever is held up for a moment seems to have stopped: a test may be the weaker for
/// that, and must not be wrong by it.
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

/// More than all sockets between an app and a client can hold, whatever the kernel lets them grow to, and what the
/// sidecar holds itself: who takes all of it although the other side takes nothing knows no limit.
pub(crate) fn more_than_sockets_hold() -> usize {
    const CONNECTIONS: usize = 2;
    const OURS: usize = 8 << 20;
    let most = |direction: &str| -> usize {
        let path = format!("/proc/sys/net/ipv4/tcp_{direction}mem");
        let limits = std::fs::read_to_string(path).expect("the kernel's limits");
        let most = limits.split_whitespace().last().expect("three numbers");
        most.parse().expect("a number of bytes")
    };
    CONNECTIONS * (most("r") + most("w")) + OURS
}
