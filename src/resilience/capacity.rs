//! What there is only so much of: requests dealt with at once, and memory for bodies that are held as a whole.
//!
//! Whoever takes some holds a guard, and gives it back when that is dropped: also when a client goes away or a request
//! panics. Refusing is cheap; a process that runs out of memory refuses everybody.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// How many requests of one worker are being dealt with.
#[derive(Debug, Default)]
pub(crate) struct Slots(Cell<usize>);

/// A request's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// A place, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<Slot<'_>> {
        let taken = self.0.get();
        (taken < limit).then(|| {
            self.0.set(taken + 1);
            Slot(self)
        })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// How many bytes of bodies are held in memory. Shared by all workers; clones are the same budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct BufferBudget(Arc<AtomicU64>);

/// A body in memory; its room is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffered {
    bytes: Vec<u8>,
    budget: BufferBudget,
    limit: u64,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl From<NoRoom> for Error {
    fn from(_: NoRoom) -> Self {
        Self::overloaded((
            "the memory for bodies is in use (buffer_limit)",
            "用于请求体的内存已用尽（buffer_limit）",
        ))
    }
}

impl BufferBudget {
    /// An empty body. It may grow as long as all bodies together stay within `limit` bytes.
    pub(crate) fn body(&self, limit: u64) -> Buffered {
        Buffered {
            bytes: Vec::new(),
            budget: self.clone(),
            limit,
        }
    }

    fn take(&self, amount: u64, limit: u64) -> Result<(), NoRoom> {
        let more = |used: u64| used.checked_add(amount).filter(|used| *used <= limit);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| NoRoom)
    }
}

impl Buffered {
    /// Appends. What counts is the memory, so it is taken before the body is moved to a larger place.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), NoRoom> {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = length + piece.len();
        if needed > capacity {
            let larger = needed.max(capacity * 2);
            self.budget.take((larger - capacity) as u64, self.limit)?;
            self.bytes.reserve_exact(larger - length);
            debug_assert_eq!(
                self.bytes.capacity(),
                larger,
                "what was taken is what is used"
            );
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

impl Deref for Buffered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// So that it can be shared as `Bytes` that give their room back with their last clone.
impl AsRef<[u8]> for Buffered {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        let held = self.bytes.capacity() as u64;
        self.budget.0.fetch_sub(held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_slots_and_each_comes_back() {
        let slots = Slots::default();
        let first = slots.take(2);
        let second = slots.take(2);
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(2).is_none());
        drop(first);
        assert!(slots.take(2).is_some());
        assert!(slots.take(1).is_none(), "a reload may lower the limit");
        drop(second);
        assert_eq!(slots.0.get(), 0);
    }

    #[test]
    fn bodies_share_their_room_and_give_it_back() {
        let budget = BufferBudget::default();
        let mut first = budget.body(100);
        assert_eq!(first.push(&[1; 60]), Ok(()));
        let mut second = budget.body(100);
        assert_eq!(second.push(&[2; 41]), Err(NoRoom));
        assert_eq!(second.push(&[2; 40]), Ok(()));
        assert_eq!((first.len(), second.len()), (60, 40));
        assert_eq!(first.push(&[1]), Err(NoRoom));
        drop(first);
        assert_eq!(second.push(&[2; 20]), Ok(()));
        assert_eq!(&second[..], &[2; 60]);
        drop(second);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
