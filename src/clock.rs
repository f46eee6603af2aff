//! Time, so that tests can turn it.
//!
//! Wall-clock time decides what crosses processes (when a token was minted, when it expires) and is asked of a [`Clock`].
//! Durations inside one process (timeouts) are measured by the runtime's monotonic clock and never pass through here.
//!
//! The system's wall clock may jump: a machine wakes up, somebody sets the date, a broken time server answers. A jump of a
//! day would log everybody out, or let in who should be out, until it is mended. So the system's clock here runs by the
//! monotonic one and follows the wall clock in small steps; a large step is believed only when it has lasted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment moved into the future; saturates.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where wall-clock time comes from: the system, or a test's hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock, less its jumps.
    #[default]
    System,
    /// A clock that stands still until a test moves it; milliseconds since the epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands at `now` until [`Clock::advance`] moves it.
    pub fn manual(now: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now.as_millis())))
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                static SYSTEM: LazyLock<(Instant, Steady)> =
                    LazyLock::new(|| (Instant::now(), Steady::starting_at(wall())));
                let (began, steady) = &*SYSTEM;
                steady.now(millis(began.elapsed()), wall)
            }
            Self::Manual(at) => Timestamp(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the system's clock does not obey.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(at) = self {
            at.fetch_add(millis(by), Ordering::SeqCst);
        }
    }
}

/// How large a step of the wall clock is followed at once, in milliseconds.
const SMALL: u64 = 2_000;
/// How long a larger one must last to be believed.
const PATIENCE: u64 = 600_000;
/// How often the wall clock is looked at.
const EVERY: u64 = 1_000;

/// A clock that runs by another, monotonic one, and is led by the wall clock. All in milliseconds.
struct Steady {
    /// What it showed when the monotonic clock showed 0.
    offset: AtomicU64,
    /// When the wall clock is to be looked at next, by the monotonic clock.
    next_look: AtomicU64,
    /// Since when the wall clock has been far off, by the monotonic clock.
    off_since: AtomicU64,
    is_off: AtomicBool,
}

impl Steady {
    fn starting_at(wall: u64) -> Self {
        Self {
            offset: AtomicU64::new(wall),
            next_look: AtomicU64::new(EVERY),
            off_since: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
        }
    }

    /// The present moment. `wall` is asked once a second.
    fn now(&self, monotonic: u64, wall: impl Fn() -> u64) -> Timestamp {
        let due = self.next_look.load(Ordering::Relaxed);
        if monotonic >= due {
            // Whoever comes first looks.
            let next = monotonic + EVERY;
            let first =
                self.next_look
                    .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
            if first.is_ok() {
                self.follow(monotonic, wall());
            }
        }
        Timestamp(
            self.offset
                .load(Ordering::Relaxed)
                .saturating_add(monotonic),
        )
    }

    fn follow(&self, monotonic: u64, wall: u64) {
        let shown = self
            .offset
            .load(Ordering::Relaxed)
            .saturating_add(monotonic);
        let step = wall.abs_diff(shown);
        if step <= SMALL {
            self.is_off.store(false, Ordering::Relaxed);
        } else if !self.is_off.swap(true, Ordering::Relaxed) {
            self.off_since.store(monotonic, Ordering::Relaxed);
            let seconds = step / 1000;
            tracing::warn!(
                seconds,
                "the system's clock has jumped; it is followed if it stays there for ten minutes"
            );
            return;
        } else if monotonic.saturating_sub(self.off_since.load(Ordering::Relaxed)) < PATIENCE {
            return;
        }
        self.is_off.store(false, Ordering::Relaxed);
        self.offset
            .store(wall.saturating_sub(monotonic), Ordering::Relaxed);
    }
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const START: u64 = 20_000 * DAY;

    /// Turns both clocks on, second by second, with the wall clock off by `by`; what is shown at the end, less what was
    /// shown at the start.
    fn shown_after(steady: &Steady, from: &mut u64, seconds: u64, by: i64) -> i64 {
        let mut shown = 0;
        for _ in 0..seconds {
            *from += 1000;
            let wall = (START + *from).saturating_add_signed(by);
            shown = steady.now(*from, || wall).as_millis();
        }
        shown as i64 - START as i64 - *from as i64
    }

    #[test]
    fn a_jump_of_a_day_that_is_mended_is_not_seen() {
        for jump in [DAY as i64, -(DAY as i64), 30_000, -30_000] {
            let (steady, mut at) = (Steady::starting_at(START), 0);
            assert_eq!(shown_after(&steady, &mut at, 60, 0), 0);
            assert_eq!(shown_after(&steady, &mut at, 590, jump), 0);
            assert_eq!(shown_after(&steady, &mut at, 60, 0), 0);
            assert_eq!(
                shown_after(&steady, &mut at, 590, jump),
                0,
                "the patience begins anew"
            );
        }
    }

    #[test]
    fn a_jump_that_lasts_is_believed() {
        for jump in [DAY as i64, -(DAY as i64)] {
            let (steady, mut at) = (Steady::starting_at(START), 0);
            assert_eq!(shown_after(&steady, &mut at, 602, jump), jump);
        }
    }

    #[test]
    fn small_steps_are_followed_at_once() {
        let (steady, mut at) = (Steady::starting_at(START), 0);
        for step in [1, 500, -1500, 400] {
            assert_eq!(shown_after(&steady, &mut at, 2, step), step);
        }
    }

    #[test]
    fn between_two_looks_the_wall_clock_is_not_asked() {
        let steady = Steady::starting_at(START);
        steady.now(5000, || START + 5000);
        let shown = steady.now(5999, || panic!("it was asked a moment ago"));
        assert_eq!(shown.as_millis(), START + 5999);
    }
}
