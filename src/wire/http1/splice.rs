//! The rest of a large body, moved by the kernel instead of by us.

use std::future::poll_fn;
use std::io;

use super::body::{Reader, Remaining, Writer};
use super::server::Reply;
use crate::net::{Pipe, ReadHalf, WriteHalf};
use crate::wire::BodyError;
use crate::wire::head::Framing;

/// What must be left of a body to be worth a pipe.
pub(super) const WORTHWHILE: u64 = 128 * 1024;

/// A body on its way from one connection to another. Only one whose length is known has no framing within it.
pub(crate) struct Splice<'a> {
    from: &'a ReadHalf<'a>,
    left: &'a mut Remaining,
    into: &'a WriteHalf<'a>,
    owed: &'a mut Framing,
    /// Where an answer is accounted for.
    reply: Option<&'a mut Reply>,
    pipe: Pipe,
}

impl<'a> Splice<'a> {
    /// `None` if the body is to be copied.
    pub(super) fn new(
        from: &'a mut Reader<'_>,
        into: &'a mut Writer<'_>,
        reply: Option<&'a mut Reply>,
    ) -> Option<Self> {
        let (Remaining::Bytes(left), Framing::Length(owed)) = (*from.body, into.framing) else {
            return None;
        };
        // What has been read already goes the usual way, and so does the head.
        let nothing_here = from.buffer.is_empty() && into.pending.is_empty();
        if left < WORTHWHILE || left != owed || !nothing_here {
            return None;
        }
        let pipe = Pipe::between(&from.stream, &into.stream)?;
        Some(Self {
            from: &from.stream,
            left: from.body,
            into: &into.stream,
            owed: &mut into.framing,
            reply,
            pipe,
        })
    }

    /// Waits until body bytes are there, takes them and says how many; `None` if the system does not let us, and nothing
    /// was taken. What was taken is to be sent before more is taken.
    ///
    /// An error is final, as with [`Reader::ready`].
    pub(crate) async fn take(&mut self) -> Result<Option<usize>, BodyError> {
        let Remaining::Bytes(left) = *self.left else {
            return Ok(None);
        };
        let taken = poll_fn(|cx| self.pipe.poll_fill(cx, self.from, left)).await;
        let (outcome, left) = match taken {
            Ok(None) => return Ok(None),
            Ok(Some(0)) => (Err(BodyError::Truncated), Remaining::Broken),
            Ok(Some(count)) if count as u64 == left => (Ok(Some(count)), Remaining::Nothing),
            Ok(Some(count)) => (Ok(Some(count)), Remaining::Bytes(left - count as u64)),
            Err(cause) => (Err(cause.into()), Remaining::Broken),
        };
        *self.left = left;
        outcome
    }

    /// Whether all that was taken has been sent.
    pub(crate) fn is_clear(&self) -> bool {
        self.pipe.is_empty()
    }

    /// Sends on some of what was taken.
    pub(crate) async fn send(&mut self) -> io::Result<()> {
        let sent = poll_fn(|cx| self.pipe.poll_drain(cx, self.into)).await? as u64;
        *self.owed = match *self.owed {
            Framing::Length(owed) if owed > sent => Framing::Length(owed - sent),
            _ => Framing::Empty,
        };
        if let Some(reply) = &mut self.reply {
            reply.add(sent, *self.owed == Framing::Empty);
        }
        Ok(())
    }

    /// Whether the whole body has been taken.
    pub(crate) fn is_done(&self) -> bool {
        *self.left == Remaining::Nothing
    }
}
