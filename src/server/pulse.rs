//! Whether the threads live: each has a pulse, and control feels them.
//!
//! A runtime with one thread stands still as a whole if something blocks it, and then nobody on it can tell. So a task on each does
//! nothing but beat. Beats are counted in beats of whoever feels them, not in time: a process that was stopped for an hour
//! has missed none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::sleep;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// So many are missed by a thread that stands still.
const MOST_MISSED: u32 = 8;
/// The same for the one that feels the others.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The pulse of one thread.
pub(super) struct Pulse {
    name: String,
    began: Instant,
    beats: AtomicU64,
    /// When the last one was, in milliseconds after the beginning.
    last: AtomicU64,
    has_ended: AtomicBool,
}

/// Those of a sidecar, and who of them stands still.
pub(super) struct Pulses {
    control: Arc<Pulse>,
    others: Vec<Arc<Pulse>>,
    stuck: ArcSwap<Vec<String>>,
}

impl Pulse {
    /// That of the thread of this name.
    pub(super) fn of(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            began: Instant::now(),
            beats: AtomicU64::new(0),
            last: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Beats until dropped.
    pub(super) async fn beat(&self) {
        loop {
            let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now, Ordering::Relaxed);
            self.beats.fetch_add(1, Ordering::Relaxed);
            sleep(BEAT).await;
        }
    }

    /// Nobody waits for the pulse of a thread that has ended.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn is_silent(&self) -> bool {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let silent_for = self.began.elapsed().saturating_sub(last);
        silent_for > LONGEST_SILENCE && !self.has_ended.load(Ordering::Relaxed)
    }
}

impl Pulses {
    pub(super) fn new(control: Arc<Pulse>, others: Vec<Arc<Pulse>>) -> Self {
        Self {
            control,
            others,
            stuck: ArcSwap::default(),
        }
    }

    /// Feels them for ever. On the control thread.
    pub(super) async fn feel(&self) {
        let mut felt: Vec<_> = self.others.iter().map(|_| (0, 0)).collect();
        loop {
            sleep(BEAT).await;
            let stuck = self.feel_once(&mut felt);
            let before = self.stuck.swap(Arc::new(stuck));
            self.tell_of_changes(&before);
        }
    }

    /// `felt` is how many beats there were, and how many have been missed since.
    fn feel_once(&self, felt: &mut [(u64, u32)]) -> Vec<String> {
        let mut stuck = Vec::new();
        for (pulse, (seen, missed)) in self.others.iter().zip(felt) {
            let beats = pulse.beats.load(Ordering::Relaxed);
            *missed = match beats == *seen && !pulse.has_ended.load(Ordering::Relaxed) {
                true => missed.saturating_add(1),
                false => 0,
            };
            *seen = beats;
            if *missed >= MOST_MISSED {
                stuck.push(pulse.name.clone());
            }
        }
        stuck
    }

    fn tell_of_changes(&self, before: &[String]) {
        let now = self.stuck.load();
        for thread in now.iter().filter(|thread| !before.contains(thread)) {
            tracing::error!(%thread, "this thread stands still: nothing has run on it for {MOST_MISSED} s");
        }
        for thread in before.iter().filter(|thread| !now.contains(thread)) {
            tracing::warn!(%thread, "this thread runs again");
        }
    }

    /// The threads that stand still, as control has felt it.
    pub(super) fn stuck(&self) -> Arc<Vec<String>> {
        self.stuck.load_full()
    }

    /// Whether all live, seen from outside of all of them.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.control.is_silent() {
            return Err(stands_still(std::slice::from_ref(&self.control.name)));
        }
        match self.stuck() {
            stuck if stuck.is_empty() => Ok(()),
            stuck => Err(stands_still(&stuck)),
        }
    }
}

/// What is said of threads that stand still.
pub(super) fn stands_still(threads: &[String]) -> String {
    format!("standing still: {}", threads.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulses() -> Pulses {
        Pulses::new(Pulse::of("control"), vec![Pulse::of("a"), Pulse::of("b")])
    }

    fn beat(pulse: &Pulse) {
        pulse.beats.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn who_misses_many_beats_in_a_row_stands_still_until_the_next_one() {
        let pulses = pulses();
        let mut felt = [(0, 0); 2];
        for _ in 0..MOST_MISSED - 1 {
            beat(&pulses.others[1]);
            assert!(pulses.feel_once(&mut felt).is_empty());
        }
        beat(&pulses.others[1]);
        assert_eq!(pulses.feel_once(&mut felt), ["a"]);
        beat(&pulses.others[0]);
        beat(&pulses.others[1]);
        assert!(pulses.feel_once(&mut felt).is_empty());
    }

    #[test]
    fn who_has_ended_misses_nothing() {
        let pulses = pulses();
        pulses.others.iter().for_each(|pulse| pulse.end());
        let mut felt = [(0, 0); 2];
        for _ in 0..2 * MOST_MISSED {
            assert!(pulses.feel_once(&mut felt).is_empty());
        }
    }

    #[test]
    fn what_stands_still_is_told_by_name() {
        let pulses = pulses();
        assert_eq!(pulses.check(), Ok(()));
        pulses
            .stuck
            .store(Arc::new(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(pulses.check(), Err("standing still: a, b".to_owned()));
    }
}
