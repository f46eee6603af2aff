//! What this replica may deliver, and what of it is in memory.
//!
//! A part of the lanes is this replica's for as long as its lease is good, which it counts itself, from before it asked for
//! it: a process that was suspended finds that its time is up before Redis tells it so. With each new term of a lease the
//! part is read from its beginning, because nobody knows what was missed. What is under way at that moment, or is
//! done and Redis does not know yet, stays known, so that it is not begun a second time.
//!
//! Nothing here waits or asks: time is handed in.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::names::{Id, PARTS};
use crate::push::entry::Entry;

/// Parts and messages.
#[derive(Default)]
pub(super) struct Holdings {
    parts: [Part; PARTS],
    messages: HashMap<u64, Held>,
    numbers: HashMap<(usize, Id), u64>,
    /// The last number that was given. It names a message within this process and this term.
    last: u64,
    /// Bytes of the messages whose bodies are here.
    bytes: u64,
}

/// One of the parts.
#[derive(Default)]
struct Part {
    /// Until when it is ours.
    lease: Option<Instant>,
    /// It will be another's: nothing of it is begun any more.
    is_leaving: bool,
    /// Counts the times that it was begun to be read.
    term: u64,
    /// How far it has been read.
    read: Id,
    /// How many of its messages are under way, or done and not written.
    busy: usize,
}

/// A message of which the delivery has heard.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) part: usize,
    pub(super) id: Id,
    /// Its bytes in Redis.
    pub(super) size: usize,
    pub(super) identity: [u8; 16],
    pub(super) is_awaited: bool,
    /// Itself, if there is room.
    pub(super) entry: Option<Arc<Entry>>,
    stage: Stage,
    /// Its part has been lost or begun anew since.
    is_stray: bool,
}

/// How far it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    UnderWay,
    /// The app has it or will not have it; Redis is to be told.
    Done,
}

/// Where a message is to be had.
pub(super) enum Whereabouts {
    Here(Arc<Entry>),
    InRedis(usize, Id),
    /// It is not ours any more.
    Gone,
}

/// A part that is to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) part: usize,
    pub(super) term: u64,
    pub(super) after: Id,
}

impl Holdings {
    /// Redis says which parts are still ours, and which are from now on, until then. Gives those that are begun or lost:
    /// whatever waits of them in the lanes has to be taken out. One that is ours from now on is begun even if we held it: Redis
    /// has forgotten that, and perhaps more.
    pub(super) fn tended(
        &mut self,
        kept: &[usize],
        taken: &[usize],
        until: Instant,
        now: Instant,
    ) -> Vec<usize> {
        let mut changed = Vec::new();
        for part in 0..PARTS {
            let was_good = self.parts[part].lease.is_some_and(|lease| lease > now);
            let is_kept = kept.contains(&part);
            match is_kept || taken.contains(&part) {
                true if is_kept && was_good => self.parts[part].lease = Some(until),
                true => {
                    self.begin(part);
                    self.parts[part].lease = Some(until);
                    changed.push(part);
                }
                false if self.parts[part].lease.is_some() => {
                    self.lose(part);
                    changed.push(part);
                }
                false => {}
            }
        }
        changed
    }

    /// Loses what has a lease that is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<usize> {
        let is_over = |part: &usize| self.parts[*part].lease.is_some_and(|lease| lease <= now);
        let over: Vec<_> = (0..PARTS).filter(is_over).collect();
        for part in &over {
            self.lose(*part);
        }
        over
    }

    /// Gives up parts until no more than the share are left. What is under way is still to end.
    pub(super) fn give_up_beyond(&mut self, share: usize) -> Vec<usize> {
        let is_kept = |part: &usize| {
            let part = &self.parts[*part];
            part.lease.is_some() && !part.is_leaving
        };
        let given_up: Vec<_> = (0..PARTS).filter(is_kept).skip(share).collect();
        for part in &given_up {
            self.parts[*part].is_leaving = true;
            self.clear(*part);
        }
        given_up
    }

    /// Parts that were given up and of which nothing is under way any more.
    pub(super) fn finished(&self) -> Vec<usize> {
        let is_finished = |part: &usize| {
            let part = &self.parts[*part];
            part.lease.is_some() && part.is_leaving && part.busy == 0
        };
        (0..PARTS).filter(is_finished).collect()
    }

    /// These are not ours any more.
    pub(super) fn released(&mut self, parts: &[usize]) {
        for part in parts {
            self.lose(*part);
        }
    }

    /// Begins all parts anew: Redis may be another one.
    pub(super) fn begin_all(&mut self) -> Vec<usize> {
        let ours: Vec<_> = (0..PARTS)
            .filter(|part| self.parts[*part].lease.is_some())
            .collect();
        for part in &ours {
            let is_leaving = self.parts[*part].is_leaving;
            self.begin(*part);
            self.parts[*part].is_leaving = is_leaving;
        }
        ours
    }

    /// How many parts are ours.
    pub(super) fn parts(&self) -> usize {
        let ours = self.parts.iter().filter(|part| part.lease.is_some());
        ours.count()
    }

    /// Whether parts are to be given to others.
    pub(super) fn is_leaving_any(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.lease.is_some() && part.is_leaving)
    }

    /// What is to be read.
    pub(super) fn to_read(&self, now: Instant) -> Vec<Reading> {
        let mut readings = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            if part.lease.is_some_and(|lease| lease > now) && !part.is_leaving {
                readings.push(Reading {
                    part: number,
                    term: part.term,
                    after: part.read,
                });
            }
        }
        readings
    }

    /// Notes that an entry was read; `false` if it is none of this term's.
    pub(super) fn read(&mut self, reading: &Reading, id: Id) -> bool {
        let part = &mut self.parts[reading.part];
        let counts = part.lease.is_some() && !part.is_leaving && part.term == reading.term;
        if counts {
            part.read = part.read.max(id);
        }
        counts
    }

    /// Takes a message that was read, and gives the number that it has from now on; `None` if it is known: it is under way, and
    /// goes on, or done.
    pub(super) fn take(
        &mut self,
        (part, id): (usize, Id),
        size: usize,
        (identity, is_awaited): ([u8; 16], bool),
        entry: Arc<Entry>,
        room: u64,
    ) -> Option<u64> {
        if let Some(number) = self.numbers.get(&(part, id)) {
            if let Some(held) = self.messages.get_mut(number) {
                held.is_stray = false;
            }
            return None;
        }
        self.last += 1;
        let fits = self.bytes + size as u64 <= room;
        if fits {
            self.bytes += size as u64;
        }
        let held = Held {
            part,
            id,
            size,
            identity,
            is_awaited,
            entry: fits.then_some(entry),
            stage: Stage::Waiting,
            is_stray: false,
        };
        self.messages.insert(self.last, held);
        self.numbers.insert((part, id), self.last);
        Some(self.last)
    }

    /// Where a message is that is delivered now.
    pub(super) fn begin_attempt(&mut self, number: u64, now: Instant) -> Whereabouts {
        let Some(held) = self.messages.get_mut(&number) else {
            return Whereabouts::Gone;
        };
        let part = &mut self.parts[held.part];
        let is_ours = part.lease.is_some_and(|lease| lease > now) && !part.is_leaving;
        if held.stage == Stage::Done || held.is_stray || !is_ours {
            if held.stage == Stage::Waiting {
                self.forget(number);
            }
            return Whereabouts::Gone;
        }
        if held.stage == Stage::Waiting {
            held.stage = Stage::UnderWay;
            part.busy += 1;
        }
        match &held.entry {
            Some(entry) => Whereabouts::Here(Arc::clone(entry)),
            None => Whereabouts::InRedis(held.part, held.id),
        }
    }

    /// The attempt has ended, and the message waits again, if it is still ours.
    pub(super) fn rest(&mut self, number: u64) {
        let Some(held) = self.messages.get_mut(&number) else {
            return;
        };
        if held.stage != Stage::UnderWay {
            return;
        }
        held.stage = Stage::Waiting;
        let part = &mut self.parts[held.part];
        part.busy -= 1;
        if held.is_stray || part.is_leaving {
            self.forget(number);
        }
    }

    /// Nobody delivers any more: what was under way has ended or was broken off.
    pub(super) fn break_off(&mut self) {
        let is_under_way = |(number, held): (&u64, &Held)| {
            let is_under_way = held.stage == Stage::UnderWay;
            is_under_way.then_some(*number)
        };
        let broken: Vec<_> = self.messages.iter().filter_map(is_under_way).collect();
        for number in broken {
            self.forget(number);
        }
    }

    /// The app has the message, or will not have it.
    pub(super) fn done(&mut self, number: u64) -> Option<Held> {
        let held = self.messages.get_mut(&number)?;
        if held.stage == Stage::Waiting {
            self.parts[held.part].busy += 1;
        }
        held.stage = Stage::Done;
        Some(held.clone())
    }

    /// Redis knows.
    pub(super) fn written(&mut self, number: u64) {
        self.forget(number);
    }

    /// Somebody has taken a message out; gives its number if the delivery must hear of it.
    pub(super) fn dropped(&mut self, part: usize, id: Id) -> Option<u64> {
        let number = *self.numbers.get(&(part, id))?;
        let is_waiting = self.messages.get(&number)?.stage == Stage::Waiting;
        if is_waiting {
            self.forget(number);
        }
        is_waiting.then_some(number)
    }

    fn begin(&mut self, part: usize) {
        self.clear(part);
        let part = &mut self.parts[part];
        part.term += 1;
        part.read = Id::default();
        part.is_leaving = false;
    }

    fn lose(&mut self, part: usize) {
        self.clear(part);
        self.parts[part].lease = None;
        self.parts[part].is_leaving = false;
    }

    /// Forgets what waits of a part.
    fn clear(&mut self, part: usize) {
        let (mut bytes, numbers) = (self.bytes, &mut self.numbers);
        self.messages.retain(|_, held| {
            if held.part != part {
                return true;
            }
            if held.stage == Stage::Waiting {
                numbers.remove(&(part, held.id));
                if held.entry.is_some() {
                    bytes -= held.size as u64;
                }
                return false;
            }
            held.is_stray = true;
            true
        });
        self.bytes = bytes;
    }

    fn forget(&mut self, number: u64) {
        let Some(held) = self.messages.remove(&number) else {
            return;
        };
        self.numbers.remove(&(held.part, held.id));
        if held.entry.is_some() {
            self.bytes -= held.size as u64;
        }
        if held.stage != Stage::Waiting {
            self.parts[held.part].busy -= 1;
        }
    }
}
