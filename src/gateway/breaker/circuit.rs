//! A circuit: the calls it stands for are made, or not made for a while, or one of them is made to see.
//!
//! A state machine without a clock, a lock or a log. Each change of state begins a new generation, and a call is only heard
//! if it was let through in the present one: five hundred calls that time out after the circuit has opened must neither keep
//! it open for longer nor, if one of them succeeds after all, close it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Cause;
use crate::clock::Timestamp;

/// How long failures and successes are weighed together.
const WINDOW: Duration = Duration::from_secs(10);

/// For this many times as many calls as may fail in a row, a share of failures counts.
const ENOUGH: usize = 4;

/// When others may ask again while one call is on its way to see.
const WHILE_PROBING: Duration = Duration::from_secs(1);

/// No pause is longer, whatever is configured.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A moment, on both clocks: pauses are measured on the one that does not jump, quotas begin anew by the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) mono: Instant,
    pub(super) wall: Timestamp,
}

/// What becomes of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// They are made.
    Closed,
    /// One at a time is made, to see.
    HalfOpen,
    /// They are not made.
    Open,
}

/// What a circuit says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Pass,
    /// It may be made, and will decide.
    Probe,
    /// Not before so long.
    Shut(Duration),
}

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// After so many failures in a row.
    pub(super) failures: usize,
    pub(super) min_pause: Duration,
    pub(super) max_pause: Duration,
}

/// What a call holds of a circuit that let it through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticket {
    generation: u64,
    is_probe: bool,
}

#[derive(Debug, Default)]
pub(super) struct Circuit {
    phase: Phase,
    generation: u64,
    /// Failures since the last success; only while it is closed.
    in_a_row: usize,
    window: Option<Window>,
    /// How often it has opened since it was last closed.
    openings: u32,
    held_back: u64,
    /// Why it is not closed.
    cause: Option<Arc<Cause>>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Open(Until),
    HalfOpen {
        is_probing: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Until {
    mono: Instant,
    /// By the wall clock too, if it is a quota that begins anew then: the circuit closes by itself, and whichever clock
    /// comes first counts, because one that was set back must not keep it open, and a call too early costs nothing.
    wall: Option<Timestamp>,
}

/// What was counted since a failure, for as long as [`WINDOW`].
#[derive(Debug)]
struct Window {
    since: Instant,
    calls: usize,
    failed: usize,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

impl Circuit {
    /// Closes it if it has been open for as long as a quota was used up. Whether it has changed.
    pub(super) fn expire(&mut self, now: Moment) -> bool {
        let expired = matches!(self.phase, Phase::Open(_)) && self.state(now) == State::Closed;
        if expired {
            self.close();
        }
        expired
    }

    pub(super) fn state(&self, now: Moment) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Open(until) if until.wall.is_some() && until.left(now).is_zero() => {
                State::Closed
            }
            Phase::Open(_) => State::Open,
        }
    }

    pub(super) fn gate(&self, now: Moment) -> Gate {
        match self.phase {
            Phase::Closed => Gate::Pass,
            Phase::HalfOpen { is_probing: false } => Gate::Probe,
            Phase::HalfOpen { is_probing: true } => Gate::Shut(WHILE_PROBING),
            Phase::Open(until) => match (until.left(now), until.wall) {
                (Duration::ZERO, None) => Gate::Probe,
                (Duration::ZERO, Some(_)) => Gate::Pass,
                (left, _) => Gate::Shut(left),
            },
        }
    }

    /// Lets a call through that the gate does not shut out. Whether the state has changed: it may be the first probe.
    pub(super) fn enter(&mut self, now: Moment) -> (Ticket, bool) {
        let is_probe = self.gate(now) == Gate::Probe;
        let was_open = matches!(self.phase, Phase::Open(_));
        if is_probe {
            self.phase = Phase::HalfOpen { is_probing: true };
        }
        let changed = is_probe && was_open;
        self.generation += u64::from(changed);
        let ticket = Ticket {
            generation: self.generation,
            is_probe,
        };
        (ticket, changed)
    }

    /// Takes a call into account that shows that it works. Whether the state has changed.
    pub(super) fn succeed(&mut self, ticket: Ticket, now: Moment) -> bool {
        if ticket.generation != self.generation {
            return false;
        }
        match self.phase {
            Phase::Closed => {
                self.in_a_row = 0;
                if let Some(window) = &mut self.window {
                    window.calls += 1;
                }
                self.window.take_if(|window| window.is_over(now.mono));
                false
            }
            Phase::HalfOpen { .. } if ticket.is_probe => {
                self.close();
                true
            }
            Phase::HalfOpen { .. } | Phase::Open(_) => false,
        }
    }

    /// Takes a call into account that failed. Whether the state has changed. `jitter` is from 0 to 255.
    pub(super) fn fail(
        &mut self,
        ticket: Ticket,
        now: Moment,
        rule: &Rule,
        jitter: u8,
        cause: &Arc<Cause>,
    ) -> bool {
        if ticket.generation != self.generation {
            return false;
        }
        let opens = match self.phase {
            Phase::Closed => self.is_one_too_many(now.mono, rule.failures),
            Phase::HalfOpen { .. } => ticket.is_probe,
            Phase::Open(_) => false,
        };
        if opens {
            let until = Until {
                mono: now.mono + rule.pause(self.openings, jitter),
                wall: None,
            };
            self.open(until, cause);
        }
        opens
    }

    /// Opens it until a quota begins anew. Whether the state has changed.
    pub(super) fn exhaust(
        &mut self,
        ticket: Ticket,
        now: Moment,
        until: Timestamp,
        cause: &Arc<Cause>,
    ) -> bool {
        let wait = until.since(now.wall).min(LONGEST);
        let opens = ticket.generation == self.generation && !wait.is_zero();
        if opens {
            let until = Until {
                mono: now.mono + wait,
                wall: Some(until),
            };
            self.open(until, cause);
        }
        opens
    }

    /// Takes back a call of which nothing is known.
    pub(super) fn release(&mut self, ticket: Ticket) {
        if self.is_probed_by(ticket) {
            self.phase = Phase::HalfOpen { is_probing: false };
        }
    }

    /// Whether it is for this call to decide.
    pub(super) fn is_probed_by(&self, ticket: Ticket) -> bool {
        ticket.is_probe && ticket.generation == self.generation
    }

    /// Closes it, for a reason that no call tells. Whether the state has changed.
    pub(super) fn reset(&mut self) -> bool {
        let changes = !matches!(self.phase, Phase::Closed);
        if changes {
            self.close();
        }
        changes
    }

    /// Counts a call that was held back.
    pub(super) fn hold_back(&mut self) {
        self.held_back += 1;
    }

    /// How many calls were held back since it opened.
    pub(super) fn held_back(&self) -> u64 {
        self.held_back
    }

    /// Whether it has ever been open.
    pub(super) fn has_opened(&self) -> bool {
        self.generation > 0
    }

    pub(super) fn cause(&self) -> Option<&Arc<Cause>> {
        self.cause.as_ref()
    }

    fn is_one_too_many(&mut self, now: Instant, failures: usize) -> bool {
        self.in_a_row += 1;
        self.window.take_if(|window| window.is_over(now));
        let window = self.window.get_or_insert(Window {
            since: now,
            calls: 0,
            failed: 0,
        });
        window.calls += 1;
        window.failed += 1;
        let are_enough = window.calls >= failures.saturating_mul(ENOUGH);
        self.in_a_row >= failures || are_enough && window.failed * 2 >= window.calls
    }

    fn open(&mut self, until: Until, cause: &Arc<Cause>) {
        self.phase = Phase::Open(until);
        self.generation += 1;
        self.in_a_row = 0;
        self.window = None;
        self.openings = self.openings.saturating_add(1);
        self.cause = Some(Arc::clone(cause));
    }

    fn close(&mut self) {
        *self = Self {
            generation: self.generation + 1,
            ..Self::default()
        };
    }
}

impl Until {
    fn left(&self, now: Moment) -> Duration {
        let by_mono = self.mono.saturating_duration_since(now.mono);
        match self.wall {
            None => by_mono,
            Some(wall) => by_mono.min(wall.since(now.wall)),
        }
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

impl Rule {
    /// The pause after so many before it: each is twice as long, and up to a quarter more, so that replicas do not come
    /// back at once.
    fn pause(&self, before: u32, jitter: u8) -> Duration {
        let doubled = self
            .min_pause
            .saturating_mul(1u32.checked_shl(before).unwrap_or(u32::MAX));
        let pause = doubled.min(self.max_pause).min(LONGEST);
        pause + pause / 4 * u32::from(jitter) / 255
    }
}
