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
            if self.gathered.capacity() == 0 {
                // Whole at once: it would be copied each time it grew.
                self.gathered.reserve_exact(GATHERED);
            }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// A socket that gathers, its other end, and its account.
    fn pair() -> (Socket, UnixStream, Rc<Meter>) {
        let (near, far) = UnixStream::pair().unwrap();
        let meter = Rc::<Meter>::default();
        let socket = Socket::new(Stream::Unix(near), Vec::new(), Rc::clone(&meter));
        socket.gather();
        (socket, far, meter)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let limit = std::time::Duration::from_secs(30);
        runtime
            .unwrap()
            .block_on(async { tokio::time::timeout(limit, test).await.unwrap() });
    }

    #[test]
    fn what_is_flushed_piece_by_piece_goes_out_together() {
        run(async {
            let (mut socket, mut far, meter) = pair();
            for piece in [&b"one, "[..], b"two, ", b"three"] {
                socket.write_all(piece).await.unwrap();
                socket.flush().await.unwrap();
            }
            assert_eq!(meter.written(), 0);
            assert!(!poll_fn(|cx| socket.poll_release(cx)).await);
            let mut received = [0; 64];
            let count = far.read(&mut received).await.unwrap();
            assert_eq!(&received[..count], b"one, two, three");
            assert_eq!(meter.written(), 15);
        });
    }

    #[test]
    fn more_than_is_gathered_arrives_in_its_order_though_the_peer_is_slow() {
        run(async {
            let (mut socket, mut far, meter) = pair();
            let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
            let expected = sent.clone();
            let sending = async {
                let mut rest = &sent[..];
                // Small ones, larger ones, and some that do not fit at all.
                for size in [9, 100, 9_000, 9, 40_000, 16_375].into_iter().cycle() {
                    let (now, later) = rest.split_at(size.min(rest.len()));
                    socket.write_all(now).await.unwrap();
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                assert!(!poll_fn(|cx| socket.poll_release(cx)).await);
                socket.shutdown().await.unwrap();
            };
            let receiving = async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.unwrap();
                received
            };
            let ((), received) = tokio::join!(sending, receiving);
            assert!(received == expected);
            assert_eq!(meter.written(), expected.len() as u64);
        });
    }

    #[test]
    fn that_the_peer_has_gone_is_told_to_the_next_who_writes() {
        run(async {
            let (mut socket, far, _) = pair();
            drop(far);
            socket.write_all(b"nobody takes this").await.unwrap();
            assert!(poll_fn(|cx| socket.poll_release(cx)).await);
            assert!(socket.flush().await.is_err());
        });
    }

    #[test]
    fn an_end_sends_what_was_gathered_first() {
        run(async {
            let (mut socket, mut far, _) = pair();
            socket.write_all(b"goodbye").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"goodbye");
        });
    }
}
