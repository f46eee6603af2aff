//! Who hears what clients are answered, if anybody does.
//!
//! Answers are written in many places and go out through one, the [`Responder`](super::Responder). The wire knows nobody above it, so
//! whoever wants to hear says so once, for the whole process.

use std::sync::OnceLock;

/// A piece of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// It is begun, with this status.
    Begun(u16),
    /// A field line.
    Field(&'a [u8], &'a [u8]),
    /// Bytes of the body; not those that the kernel moves.
    Body(&'a [u8]),
    /// What was begun is not sent, and something else will be.
    TakenBack,
}

static LISTENER: OnceLock<fn(Heard<'_>)> = OnceLock::new();

/// From now on `listener` hears of all answers, on the thread that writes them. Only the first one does.
pub(crate) fn overhear(listener: fn(Heard<'_>)) {
    let _there_is_one = LISTENER.set(listener);
}

pub(super) fn tell(heard: Heard<'_>) {
    if let Some(listener) = LISTENER.get() {
        listener(heard);
    }
}

/// Whether anybody hears, before something is made up for them.
pub(super) fn is_heard() -> bool {
    LISTENER.get().is_some()
}
