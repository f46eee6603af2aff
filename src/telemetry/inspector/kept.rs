//! Bytes that are kept, within a budget that all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::BUDGET;

/// How much of one body is kept.
const OF_A_BODY: usize = 16 * 1024;

/// How many bytes are kept by all.
#[derive(Default)]
pub(super) struct Budget(AtomicUsize);

/// What one exchange has taken of it, and gives back when it is forgotten.
pub(super) struct Share {
    budget: Arc<Budget>,
    taken: usize,
    has_ended: bool,
}

/// The beginning of a body, and how long it was.
#[derive(Clone, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    size: u64,
}

impl Budget {
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it is time to forget something.
    pub(super) fn is_tight(&self) -> bool {
        self.0.load(Ordering::Relaxed) > BUDGET / 4 * 3
    }
}

impl Share {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            taken: 0,
            has_ended: false,
        }
    }

    /// Gives back what was taken, and takes nothing any more.
    pub(super) fn end(&mut self) {
        self.give_back();
        self.has_ended = true;
    }

    fn give_back(&mut self) {
        self.budget.0.fetch_sub(self.taken, Ordering::Relaxed);
        self.taken = 0;
    }

    /// Takes so many bytes; false if there are not so many left.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.has_ended {
            return false;
        }
        let used = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        if used + bytes > BUDGET {
            self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.taken += bytes;
        true
    }
}

/// What is copied to be told is not kept, so it takes nothing.
impl Clone for Share {
    fn clone(&self) -> Self {
        Self::new(&self.budget)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Kept {
    /// The next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], share: &mut Share) {
        self.push_at(self.size, bytes, share);
    }

    /// Bytes that stand at a place of the body. What is there already is passed over, so that a part that is looked at twice is
    /// kept once; behind a gap nothing is kept.
    pub(super) fn push_at(&mut self, at: u64, bytes: &[u8], share: &mut Share) {
        let end = at + bytes.len() as u64;
        let held = self.bytes.len() as u64;
        if let Some(known) = held.checked_sub(at) {
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            let new = bytes.get(known..).unwrap_or_default();
            let room = OF_A_BODY - self.bytes.len();
            let new = &new[..new.len().min(room)];
            if !new.is_empty() && share.take(new.len()) {
                self.bytes.extend_from_slice(new);
            }
        }
        self.size = self.size.max(end);
    }

    /// It was so long, whoever moved the rest.
    pub(super) fn is_at_least(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether all of it is kept.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_body_is_kept_and_its_length_known() {
        let budget = Arc::default();
        let (mut kept, mut share) = (Kept::default(), Share::new(&budget));
        kept.push(&[1; 10_000], &mut share);
        kept.push(&[2; 10_000], &mut share);
        assert_eq!((kept.bytes().len(), kept.size()), (OF_A_BODY, 20_000));
        kept.is_at_least(50_000);
        assert_eq!(kept.size(), 50_000);
        assert_eq!(budget.0.load(Ordering::Relaxed), OF_A_BODY);
        drop(share);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_part_that_is_looked_at_twice_is_kept_once_and_none_behind_a_gap() {
        let budget = Arc::default();
        let (mut kept, mut share) = (Kept::default(), Share::new(&budget));
        kept.push_at(0, b"abc", &mut share);
        kept.push_at(2, b"cde", &mut share);
        kept.push_at(1, b"bc", &mut share);
        assert_eq!((kept.bytes(), kept.size()), (&b"abcde"[..], 5));
        kept.push_at(7, b"xyz", &mut share);
        assert_eq!((kept.bytes(), kept.size()), (&b"abcde"[..], 10));
    }

    #[test]
    fn who_comes_when_the_budget_is_spent_keeps_nothing_and_does_not_overdraw() {
        let budget: Arc<Budget> = Arc::default();
        let mut first = Share::new(&budget);
        assert!(first.take(BUDGET - 2));
        assert!(budget.is_tight());
        let (mut kept, mut share) = (Kept::default(), Share::new(&budget));
        kept.push(b"abc", &mut share);
        assert_eq!((kept.bytes(), kept.size()), (&b""[..], 3));
        kept.push_at(0, b"ab", &mut share);
        assert_eq!(kept.bytes(), b"ab");
        drop(first);
        assert!(!budget.is_tight());
    }
}
