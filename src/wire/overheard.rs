//! Who hears what clients are answered, if anybody does.
//!
//! Answers are written in many places and go out through one, the [`Responder`](super::Responder). The wire knows nobody above it, so
//! whoever wants to hear says so once, for the whole process.

use std::sync::OnceLock;

use super::Length;

/// A piece of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// It is begun, with this status, and so long.
    Begun(u16, Length),
    /// A field line.
    Field(&'a [u8], &'a [u8]),
    /// Bytes of the body; not those that the kernel moves.
    Body(&'a [u8]),
    /// What was begun is not sent, and something else will be.
    TakenBack,
}

/// Who hears.
pub(crate) struct Listener {
    pub(crate) hear: fn(Heard<'_>),
    /// Whether what this thread is at is of interest, before anything is made up for it.
    pub(crate) listens: fn() -> bool,
}

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// From now on `listener` hears of all answers, on the thread that writes them. Only the first one does.
pub(crate) fn overhear(listener: Listener) {
    let _there_is_one = LISTENER.set(listener);
}

pub(super) fn tell(heard: Heard<'_>) {
    if let Some(listener) = LISTENER.get() {
        (listener.hear)(heard);
    }
}

pub(super) fn is_heard() -> bool {
    LISTENER.get().is_some_and(|listener| (listener.listens)())
}
