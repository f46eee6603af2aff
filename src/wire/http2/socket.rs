//! The socket as the crate sees it: what is read and written is counted, and what is written goes out together.
//!
//! The crate writes a DATA frame of more than a few bytes by itself, so that eight answers that are ready at once would be
//! eight writes, and under TLS eight records. Whoever drives the connection therefore gathers what the crate writes and
//! flushes once there is nothing more to be done.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use crate::net::Stream;

/// How much is gathered: a full record of TLS. What does not fit goes to the socket with what is there, uncopied.
const GATHERED: usize = 16 * 1024;

/// Clones are the same socket: one is the crate's, one its driver's.
#[derive(Clone)]
pub(super) struct Socket(Rc<RefCell<Inner>>);

struct Inner {
    stream: Stream,
    /// Bytes that were read before it was known what they are.
    prefix: Vec<u8>,
    /// What was written and has not gone out.
    gathered: Vec<u8>,
    /// Whether what is flushed may wait for [`Socket::poll_release`].
    gathers: bool,
    /// Why what was gathered could not go out, for the crate's next look.
    failed: Option<io::Error>,
    meter: Rc<Meter>,
}

impl Socket {
    pub(super) fn new(stream: Stream, prefix: Vec<u8>, meter: Rc<Meter>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            prefix,
            gathered: Vec::new(),
            gathers: false,
            failed: None,
            meter,
        })))
    }

    /// From now on only [`Socket::poll_release`] flushes, or what does not fit.
    pub(super) fn gather(&self) {
        self.0.borrow_mut().gathers = true;
    }

    /// Sends what was gathered. That it failed the crate is told at its next look, for which this is ready with `true`.
    pub(super) fn poll_release(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let inner = &mut *self.0.borrow_mut();
        if inner.failed.is_some() {
            return Poll::Ready(true);
        }
        let flushed = ready!(inner.poll_flush(cx));
        inner.failed = flushed.err();
        Poll::Ready(inner.failed.is_some())
    }

    /// Gives the memory back; an idle connection should hold none.
    pub(super) fn relax(&self) {
        let inner = &mut *self.0.borrow_mut();
        if inner.gathered.is_empty() {
            inner.gathered = Vec::new();
        }
    }
}

impl Inner {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.gathers && self.gathered.len() + length <= GATHERED {
            for slice in slices {
                self.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(length));
        }
        loop {
            let before = self.gathered.len();
            let stream = Pin::new(&mut self.stream);
            let written = if before == 0 {
                stream.poll_write_vectored(cx, slices)
            } else {
                let mut all = Vec::with_capacity(1 + slices.len());
                all.push(IoSlice::new(&self.gathered));
                all.extend_from_slice(slices);
                stream.poll_write_vectored(cx, &all)
            };
            let count = ready!(written)?;
            self.meter.count_written(count);
            self.gathered.drain(..count.min(before));
            if count > before || count == 0 || length == 0 {
                return Poll::Ready(Ok(count.saturating_sub(before)));
            }
        }
    }

    /// Sends all that was written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.meter.count_written(count);
            self.gathered.drain(..count);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if !inner.prefix.is_empty() {
            let count = inner.prefix.len().min(buf.remaining());
            buf.put_slice(&inner.prefix[..count]);
            inner.meter.count_read(&inner.prefix[..count]);
            inner.prefix.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut inner.stream).poll_read(cx, buf);
        inner.meter.count_read(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        match inner.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if inner.gathers => Poll::Ready(Ok(())),
            None => inner.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}
