//! Revocations that count here and that Redis has not been told yet: what was said while it was away must reach the other
//! replicas once it is back, since whoever said it cannot say it again with a session that has ended here.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::session::store::value::Revocation;

/// More than can be refused in an outage that somebody lets last.
const MOST: usize = 100_000;

/// Those that wait. Their order does not matter, nor does it if one is told twice.
#[derive(Default)]
pub(super) struct Owed {
    /// Held to add or to take one.
    waiting: Mutex<VecDeque<Revocation>>,
}

/// One that is being told. Unless it was, it is owed, also if nobody waits for the telling any more.
pub(super) struct Telling<'a> {
    owed: &'a Owed,
    revocation: Option<Revocation>,
}

impl Owed {
    pub(super) fn telling(&self, revocation: Revocation) -> Telling<'_> {
        Telling {
            owed: self,
            revocation: Some(revocation),
        }
    }

    /// One of them, if there is any.
    pub(super) fn next(&self) -> Option<Telling<'_>> {
        let next = self.waiting().pop_front();
        next.map(|revocation| self.telling(revocation))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Revocation>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telling<'_> {
    pub(super) fn revocation(&self) -> &Revocation {
        self.revocation.as_ref().expect("it is told once")
    }

    /// Redis has it.
    pub(super) fn done(mut self) {
        self.revocation = None;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(revocation) = self.revocation.take() {
            let mut waiting = self.owed.waiting();
            match waiting.len() < MOST {
                true => waiting.push_back(revocation),
                false => tracing::error!(
                    waiting = MOST,
                    "a revocation is forgotten, and other replicas will not hear of it: too many wait for Redis"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::token::SessionId;

    fn session(number: u8) -> Revocation {
        Revocation::Session(SessionId::from_bytes([number; 16]))
    }

    #[test]
    fn what_is_told_is_owed_no_more_and_all_else_is() {
        let owed = Owed::default();
        owed.telling(session(1)).done();
        assert!(owed.next().is_none());
        for number in [2, 3] {
            let telling = owed.telling(session(number));
            drop(telling);
        }
        let mut told = Vec::new();
        while let Some(telling) = owed.next() {
            told.push(telling.revocation().clone());
            telling.done();
        }
        assert_eq!(told, [session(2), session(3)]);
    }
}
