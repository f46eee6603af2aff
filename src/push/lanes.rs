//! Which message is next: in order within a lane, in parallel across lanes, and not faster than the app can bear.
//!
//! A lane is a user. Its first message is tried until the app takes it or it is given up, and those behind it wait. All
//! lanes together may have as many messages under way as the window says, which grows with every message that the app takes
//! and shrinks with every one that it does not, as TCP's does: an app that comes back after an hour gets one message, then two,
//! then four. While the app cannot be reached, one message is tried at a time, and no more often than the pause says, however
//! many wait.
//!
//! Nothing here knows what a message is, or waits: time is handed in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure; each one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What waits, and for what. `T` is a message.
pub(super) struct Lanes<T> {
    lanes: HashMap<u64, Lane<T>>,
    /// Lanes whose first message may be tried.
    ready: VecDeque<u64>,
    /// Lanes that pause, by when they are ready again.
    pausing: BinaryHeap<Reverse<(Instant, u64)>>,
    window: Window,
    len: usize,
}

struct Lane<T> {
    queue: VecDeque<T>,
    /// Whether its first message is under way.
    busy: bool,
}

/// How many messages may be under way.
struct Window {
    under_way: usize,
    /// In sixteenths, so that it can grow by less than one.
    limit: usize,
    most: usize,
    /// How often in a row the app could not be reached.
    outages: u32,
    /// Nothing is tried before.
    not_before: Option<Instant>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The message is done with: taken, or given up.
    Done {
        /// Whether the app took it, so that it may get more at once.
        taken: bool,
    },
    /// This message is tried again, after a pause; `tries` is how often it has been.
    Again {
        /// How often it was tried.
        tries: u32,
        /// The longest pause.
        cap: Duration,
    },
    /// The app is away: everything pauses, and this message is the next.
    Away {
        /// The longest pause.
        cap: Duration,
        /// When the app wants to be asked again, if it says so.
        after: Option<Duration>,
    },
}

const ONE: usize = 16;

impl<T> Lanes<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            pausing: BinaryHeap::new(),
            window: Window {
                under_way: 0,
                limit: ONE,
                most,
                outages: 0,
                not_before: None,
            },
            len: 0,
        }
    }

    /// How many messages may be under way at the most, from now on.
    pub(super) fn set_most(&mut self, most: usize) {
        self.window.most = most;
    }

    /// How many messages there are, those under way among them.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a message to its lane.
    pub(super) fn push(&mut self, lane: u64, message: T) {
        self.len += 1;
        let place = self.lanes.entry(lane).or_insert_with(|| Lane {
            queue: VecDeque::new(),
            busy: false,
        });
        place.queue.push_back(message);
        if place.queue.len() == 1 && !place.busy {
            self.ready.push_back(lane);
        }
    }

    /// Takes the message that is to be tried now, if there is one and the window lets it.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, T)> {
        while let Some(Reverse((at, lane))) = self.pausing.peek().copied() {
            if at > now {
                break;
            }
            self.pausing.pop();
            self.ready.push_back(lane);
        }
        if !self.window.has_room(now) {
            return None;
        }
        loop {
            let lane = self.ready.pop_front()?;
            let Some(place) = self.lanes.get_mut(&lane) else {
                continue;
            };
            if place.busy {
                continue;
            }
            let Some(message) = place.queue.pop_front() else {
                self.lanes.remove(&lane);
                continue;
            };
            place.busy = true;
            self.window.under_way += 1;
            return Some((lane, message));
        }
    }

    /// Says how the attempt with a message ended; one that is to be tried again is given back.
    pub(super) fn end(
        &mut self,
        lane: u64,
        message: Option<T>,
        end: End,
        now: Instant,
        jitter: f64,
    ) {
        self.window.under_way -= 1;
        self.window.learn(end, now, jitter);
        let Some(place) = self.lanes.get_mut(&lane) else {
            debug_assert!(false, "a lane stays while it is busy");
            return;
        };
        place.busy = false;
        match message {
            None => self.len -= 1,
            Some(message) => place.queue.push_front(message),
        }
        if place.queue.is_empty() {
            self.lanes.remove(&lane);
            return;
        }
        match end {
            End::Again { tries, cap } => {
                let pause = pause(tries, cap, jitter);
                self.pausing.push(Reverse((now + pause, lane)));
            }
            End::Away { .. } => self.ready.push_front(lane),
            End::Done { .. } => self.ready.push_back(lane),
        }
    }

    /// When there may be something to try again, if that is only a matter of time.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.window.under_way >= self.window.whole() {
            return None;
        }
        let first = match self.ready.is_empty() {
            false => Some(now),
            true => self.pausing.peek().map(|Reverse((at, _))| *at),
        };
        match self.window.not_before {
            Some(at) => first.map(|first| first.max(at)),
            None => first,
        }
    }

    /// Takes a message out that is not under way.
    pub(super) fn remove(&mut self, is_it: impl Fn(&T) -> bool) {
        let mut removed = 0;
        self.lanes.retain(|_, place| {
            let before = place.queue.len();
            place.queue.retain(|message| !is_it(message));
            removed += before - place.queue.len();
            place.busy || !place.queue.is_empty()
        });
        self.len -= removed;
    }

    /// Of all that wait and are not under way.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.values().flat_map(|lane| lane.queue.iter())
    }
}

impl Window {
    fn whole(&self) -> usize {
        (self.limit / ONE).clamp(1, self.most)
    }

    fn has_room(&self, now: Instant) -> bool {
        self.under_way < self.whole() && self.not_before.is_none_or(|at| at <= now)
    }

    fn learn(&mut self, end: End, now: Instant, jitter: f64) {
        match end {
            End::Done { taken: true } => {
                self.outages = 0;
                self.not_before = None;
                self.limit = (self.limit + ONE).min(self.most * ONE);
            }
            End::Done { taken: false } => {}
            End::Again { .. } => self.limit = (self.limit / 2).max(ONE),
            End::Away { cap, after } => {
                self.limit = ONE;
                // Those that were under way together fail together, and count as one.
                if self.not_before.is_none_or(|at| at <= now) {
                    self.outages = self.outages.saturating_add(1);
                    let pause = pause(self.outages, cap, jitter);
                    self.not_before = Some(now + after.map_or(pause, |after| after.min(cap)));
                }
            }
        }
    }
}

/// The pause after the `tries`th failure in a row. `jitter` is from 0 to 1, and shortens it by up to a quarter, so that
/// many do not come at once.
fn pause(tries: u32, cap: Duration, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(20));
    doubled.min(cap).mul_f64(1.0 - jitter / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(60);
    const TAKEN: End = End::Done { taken: true };

    fn lanes(messages: &[(u64, &'static str)], most: usize) -> Lanes<&'static str> {
        let mut lanes = Lanes::new(most);
        for (lane, message) in messages {
            lanes.push(*lane, *message);
        }
        lanes
    }

    fn all_now(lanes: &mut Lanes<&'static str>, now: Instant) -> Vec<(u64, &'static str)> {
        std::iter::from_fn(|| lanes.next(now)).collect()
    }

    #[test]
    fn a_lane_has_one_message_under_way_and_keeps_its_order() {
        let now = Instant::now();
        let mut lanes = lanes(&[(1, "a"), (1, "b"), (1, "c")], 8);
        lanes.window.limit = 8 * ONE;
        assert_eq!(all_now(&mut lanes, now), [(1, "a")]);
        lanes.end(1, None, TAKEN, now, 0.0);
        assert_eq!(all_now(&mut lanes, now), [(1, "b")]);
        lanes.push(1, "d");
        assert_eq!(lanes.next(now), None);
        lanes.end(1, None, TAKEN, now, 0.0);
        assert_eq!(all_now(&mut lanes, now), [(1, "c")]);
        lanes.end(1, None, TAKEN, now, 0.0);
        assert_eq!(all_now(&mut lanes, now), [(1, "d")]);
        lanes.end(1, None, TAKEN, now, 0.0);
        assert_eq!(lanes.len(), 0);
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn a_message_that_is_refused_holds_up_its_own_lane_only() {
        let now = Instant::now();
        let mut lanes = lanes(&[(1, "bad"), (1, "later"), (2, "good")], 8);
        lanes.window.limit = 8 * ONE;
        assert_eq!(all_now(&mut lanes, now), [(1, "bad"), (2, "good")]);
        let again = End::Again { tries: 1, cap: CAP };
        lanes.end(1, Some("bad"), again, now, 0.0);
        lanes.end(2, None, TAKEN, now, 0.0);
        lanes.push(2, "next");
        assert_eq!(all_now(&mut lanes, now), [(2, "next")]);
        assert_eq!(lanes.wakes_at(now), Some(now + FIRST_PAUSE));
        assert_eq!(all_now(&mut lanes, now + FIRST_PAUSE), [(1, "bad")]);
    }

    #[test]
    fn the_window_opens_with_what_is_taken_and_closes_when_the_app_is_away() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        for lane in 0..100 {
            lanes.push(lane, "x");
        }
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let round = all_now(&mut lanes, now);
            sizes.push(round.len());
            for (lane, _) in round {
                lanes.end(lane, None, TAKEN, now, 0.0);
            }
        }
        assert_eq!(sizes, [1, 2, 4, 4]);
        let away = End::Away {
            cap: CAP,
            after: None,
        };
        for (lane, message) in all_now(&mut lanes, now) {
            lanes.end(lane, Some(message), away, now, 0.0);
        }
        assert_eq!(lanes.next(now), None);
        assert_eq!(
            lanes.wakes_at(now),
            Some(now + FIRST_PAUSE),
            "four failures at once are one outage"
        );
        let later = now + FIRST_PAUSE;
        let probe = all_now(&mut lanes, later);
        assert_eq!(probe.len(), 1, "one is tried");
        lanes.end(probe[0].0, Some("x"), away, later, 0.0);
        assert_eq!(lanes.wakes_at(later), Some(later + 2 * FIRST_PAUSE));
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_only_shortens_them() {
        assert_eq!(pause(1, CAP, 0.0), Duration::from_millis(500));
        assert_eq!(pause(4, CAP, 0.0), Duration::from_secs(4));
        assert_eq!(pause(1_000, CAP, 0.0), CAP);
        assert_eq!(pause(1_000, CAP, 1.0), Duration::from_secs(45));
    }

    #[test]
    fn an_app_that_says_when_it_will_be_back_is_believed_up_to_the_cap() {
        let now = Instant::now();
        let mut lanes = lanes(&[(1, "a")], 4);
        let (lane, message) = lanes.next(now).unwrap();
        let away = End::Away {
            cap: CAP,
            after: Some(Duration::from_secs(7)),
        };
        lanes.end(lane, Some(message), away, now, 0.0);
        assert_eq!(lanes.wakes_at(now), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn a_message_that_is_dropped_is_tried_no_more() {
        let now = Instant::now();
        let mut lanes = lanes(&[(1, "a"), (1, "b"), (2, "c")], 4);
        lanes.remove(|message| *message == "a" || *message == "c");
        assert_eq!(lanes.len(), 1);
        assert_eq!(lanes.next(now), Some((1, "b")));
        assert_eq!(lanes.next(now), None);
    }
}
