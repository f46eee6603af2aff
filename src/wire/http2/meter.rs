//! What a client sends, against what of it is of use: how floods of frames that cost us work and the client nothing are
//! told from traffic (CVE-2019-9512 to 9518, CVE-2023-44487).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// How many bytes a client may send beyond what its requests and their answers justify.
const SLACK: u64 = 128 * 1024;
/// How many bytes may come for each byte of use; frames have heads, and downloads need window updates.
const OVERHEAD: u64 = 8;
/// How many more requests a client may take back than it lets us finish.
const MAX_CANCELLED: u32 = 100;

/// The account of one connection.
#[derive(Default)]
pub(super) struct Meter {
    read: Cell<u64>,
    useful: Cell<u64>,
    written: Cell<u64>,
    cancelled: Cell<u32>,
    /// How many requests are being dealt with.
    under_way: Cell<u32>,
}

/// A socket whose bytes are counted.
pub(super) struct Metered {
    stream: Stream,
    /// Bytes that were read before it was known what they are.
    prefix: Vec<u8>,
    meter: Rc<Meter>,
}

impl Meter {
    /// Counts bytes of heads and bodies, in either direction.
    pub(super) fn count_useful(&self, count: usize) {
        self.useful.set(self.useful.get() + count as u64);
    }

    /// Counts a request that begins.
    pub(super) fn begin_request(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// Counts a request that ended.
    pub(super) fn end_request(&self, cancelled: bool) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        let count = self.cancelled.get();
        self.cancelled.set(if cancelled {
            count + 1
        } else {
            count.saturating_sub(1)
        });
    }

    /// Whether no request is being dealt with.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    /// How many bytes the client has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    fn count_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.written.set(self.written.get() + count as u64);
        }
        written
    }

    /// Whether the client only keeps us busy.
    pub(super) fn is_flooded(&self) -> bool {
        self.read.get() / OVERHEAD > self.useful.get() + SLACK
            || self.cancelled.get() > MAX_CANCELLED
    }
}

impl Metered {
    pub(super) fn new(stream: Stream, prefix: Vec<u8>, meter: Rc<Meter>) -> Self {
        Self {
            stream,
            prefix,
            meter,
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..count]);
            this.prefix.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        this.meter.read.set(this.meter.read.get() + count as u64);
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.meter.count_written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.meter.count_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
