//! A read buffer: bytes arrive at its end and are consumed from its front.
//!
//! Most connections wait most of the time, so memory belongs to the worker and a connection has some only while it holds
//! bytes: a read takes it from the worker's shelf, and it goes back there when the bytes are consumed or none came. So
//! thousands of connections cost what the few that are busy cost, and those few are in the processor's cache.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncReadExt;

use crate::net::ReadHalf;

/// What a head and a small body fit into.
const SMALL: usize = 4 * 1024;
/// What large bodies are moved in.
const LARGE: usize = 64 * 1024;
/// How many large buffers a worker has at most. Beyond that bodies move in small ones: slower, but thousands of peers
/// that do not read cost no more memory than as many that do.
const MAX_LARGE: usize = 512;
/// How many buffers of each size a worker keeps at hand.
const KEPT: usize = 16;

thread_local! {
    static SHELF: RefCell<Shelf> = const { RefCell::new(Shelf {
        small: Vec::new(),
        large: Vec::new(),
        large_lent: 0,
    }) };
}

/// The memory of a worker's buffers.
struct Shelf {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// How many large ones are with their readers.
    large_lent: usize,
}

/// Bytes that were read and not yet used.
#[derive(Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    /// Whether it counts as one of the large ones.
    large: bool,
    /// Whether the last read of a body got little, so that a large buffer would be wasted on this peer.
    trickles: bool,
    /// Whether the last head filled a small buffer, so that the next may well come with a large body.
    gushes: bool,
}

impl Shelf {
    /// An empty buffer, and whether it is a large one; there may be too many of those.
    fn lend(&mut self, size: usize) -> (Vec<u8>, bool) {
        if size == LARGE && self.large_lent < MAX_LARGE {
            self.large_lent += 1;
            let kept = self.large.pop();
            return (kept.unwrap_or_else(|| Vec::with_capacity(LARGE)), true);
        }
        let kept = self.small.pop();
        (kept.unwrap_or_else(|| Vec::with_capacity(SMALL)), false)
    }

    fn take_back(&mut self, mut data: Vec<u8>, large: bool) {
        self.large_lent -= usize::from(large);
        let shelf = match data.capacity() {
            LARGE => &mut self.large,
            SMALL => &mut self.small,
            // One that grew, for a long head.
            _ => return,
        };
        if shelf.len() < KEPT {
            data.clear();
            shelf.push(data);
        }
    }
}

impl Buffer {
    pub(crate) fn unread(&self) -> &[u8] {
        &self.data[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.data.len()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(
            self.start <= self.data.len(),
            "only what is there can be consumed"
        );
        if self.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        self.start = 0;
        let data = std::mem::take(&mut self.data);
        if data.capacity() > 0 {
            let large = std::mem::take(&mut self.large);
            SHELF.with_borrow_mut(|shelf| shelf.take_back(data, large));
        }
    }

    /// Reads the first bytes of a message; 0 is the end of the stream. They are hardly ever there yet when somebody begins
    /// to wait for them, so the first question is whether they are.
    pub(crate) async fn read_first(&mut self, stream: &mut ReadHalf<'_>) -> io::Result<usize> {
        let mut asked = false;
        poll_fn(|cx| {
            if !std::mem::replace(&mut asked, true) {
                ready!(stream.poll_readable(cx))?;
            }
            self.poll_read(cx, stream, 0)
        })
        .await
    }

    /// Reads once; 0 is the end of the stream. `wanted` is how many bytes are known to be on their way.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ReadHalf<'_>,
        wanted: u64,
    ) -> Poll<io::Result<usize>> {
        self.make_room(wanted);
        let room = self.data.capacity() - self.data.len();
        let read = pin!(stream.read_buf(&mut self.data)).poll(cx);
        match read {
            Poll::Ready(Ok(count)) if wanted == 0 => self.gushes = count >= room.min(SMALL),
            Poll::Ready(Ok(count)) => self.trickles = wanted > SMALL as u64 && count < SMALL / 2,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.is_empty() {
                    self.give_back();
                }
            }
        }
        read
    }

    fn make_room(&mut self, wanted: u64) {
        let is_large = match wanted {
            0 => self.gushes,
            _ => wanted > SMALL as u64 && !self.trickles,
        };
        let target = if is_large { LARGE } else { SMALL };
        if self.data.capacity() - self.data.len() >= target / 2 {
            return;
        }
        let unread = self.unread().len();
        if unread < target / 2 && self.data.capacity() != target {
            // What is there moves to a buffer of the right size.
            let (mut data, large) = SHELF.with_borrow_mut(|shelf| shelf.lend(target));
            data.extend_from_slice(self.unread());
            self.give_back();
            (self.data, self.large) = (data, large);
            return;
        }
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
        if self.data.capacity() - unread < SMALL / 2 {
            let grown = Vec::with_capacity(self.data.capacity() + target);
            let full = std::mem::replace(&mut self.data, grown);
            self.data.extend_from_slice(&full);
            let large = std::mem::take(&mut self.large);
            SHELF.with_borrow_mut(|shelf| shelf.take_back(full, large));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::Stream;

    fn with_room(wanted: u64) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.make_room(wanted);
        buffer
    }

    fn lent() -> usize {
        SHELF.with_borrow(|shelf| shelf.large_lent)
    }

    #[test]
    fn large_buffers_are_a_bounded_number_and_can_be_had_again() {
        let mut buffers: Vec<_> = (0..MAX_LARGE + 10).map(|_| with_room(u64::MAX)).collect();
        let sizes: Vec<_> = buffers.iter().map(|it| it.data.capacity()).collect();
        assert!(sizes[..MAX_LARGE].iter().all(|size| *size == LARGE));
        assert!(sizes[MAX_LARGE..].iter().all(|size| *size == SMALL));

        buffers[0].give_back();
        buffers.remove(1);
        assert_eq!(with_room(u64::MAX).data.capacity(), LARGE);
        drop(buffers);
        assert_eq!(lent(), 0);
    }

    #[test]
    fn what_was_read_stays_when_a_buffer_grows() {
        let mut grown = with_room(0);
        assert_eq!(grown.data.capacity(), SMALL);
        let bytes: Vec<u8> = (0..SMALL).map(|n| n as u8).collect();
        grown.data.extend_from_slice(&bytes);
        grown.consume(10);
        // A head that goes on, then a body behind it.
        for wanted in [0, 0, u64::MAX] {
            grown.make_room(wanted);
            assert_eq!(grown.unread(), &bytes[10..]);
            assert!(grown.data.capacity() - grown.data.len() >= SMALL / 2);
        }
        grown.consume(SMALL - 10);
        assert_eq!((grown.data.capacity(), lent()), (0, 0));

        // As long as heads may be, through the size of a large buffer.
        let mut long = Buffer::default();
        while long.data.len() < 4 * LARGE {
            long.make_room(0);
            long.data.extend_from_slice(&bytes[..SMALL / 2]);
        }
        assert!(
            long.unread()
                .chunks(SMALL / 2)
                .all(|piece| *piece == bytes[..SMALL / 2])
        );
        drop(long);
        assert_eq!(lent(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_trickles_is_read_into_small_ones() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        let mut buffer = Buffer::default();
        for (piece, expected) in [(1, LARGE), (1, SMALL), (SMALL, SMALL), (8 * SMALL, LARGE)] {
            peer.write_all(&vec![b'a'; piece]).await.unwrap();
            let (mut half, _) = stream.split();
            let read = poll_fn(|cx| buffer.poll_read(cx, &mut half, u64::MAX)).await;
            assert!(read.unwrap() > 0);
            assert_eq!(buffer.data.capacity(), expected);
            buffer.consume(buffer.unread().len());
            assert_eq!(buffer.data.capacity(), 0, "empty, it holds nothing");
        }
    }

    #[tokio::test]
    async fn heads_that_come_with_much_behind_them_get_a_large_one() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        let mut buffer = Buffer::default();
        for (piece, expected) in [
            (2 * SMALL, SMALL),
            (0, LARGE),
            (SMALL, LARGE),
            (10, LARGE),
            (10, SMALL),
        ] {
            peer.write_all(&vec![b'a'; piece]).await.unwrap();
            let (mut half, _) = stream.split();
            let read = poll_fn(|cx| buffer.poll_read(cx, &mut half, 0)).await;
            assert!(read.unwrap() > 0);
            assert_eq!(buffer.data.capacity(), expected, "{piece}");
            buffer.consume(buffer.unread().len());
        }
    }

    #[tokio::test]
    async fn who_waits_holds_nothing() {
        let (_peer, ours) = UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        let mut buffer = Buffer::default();
        let (mut half, _) = stream.split();
        let waits = poll_fn(|cx| Poll::Ready(buffer.poll_read(cx, &mut half, 0))).await;
        assert!(waits.is_pending());
        assert_eq!(buffer.data.capacity(), 0);
    }
}
