//! A read buffer: bytes arrive at its end and are consumed from its front.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::io::AsyncReadExt;

use crate::net::ReadHalf;

/// What a head and a small body fit into.
const SMALL: usize = 4 * 1024;
/// What large bodies are moved in.
const LARGE: usize = 64 * 1024;
/// How many large buffers a worker has at most. Beyond that bodies move in small ones: slower, but thousands of peers
/// that do not read cost no more memory than as many that do.
const MAX_LARGE: usize = 512;

thread_local! {
    /// How many large buffers this worker has.
    static LARGE_BUFFERS: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that were read and not yet used.
#[derive(Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    /// Whether this one counts as large.
    large: bool,
    /// Whether the last read got little, so that a large buffer would be wasted on this peer.
    trickles: bool,
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
            self.data.clear();
            self.start = 0;
        }
    }

    /// Gives the memory back; an idle connection should hold none.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Reads once; 0 is the end of the stream. `wanted` is how many bytes are known to be on their way.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ReadHalf<'_>,
        wanted: u64,
    ) -> Poll<io::Result<usize>> {
        self.make_room(wanted);
        let before = self.data.len();
        let read = pin!(stream.read_buf(&mut self.data)).poll(cx);
        if read.is_ready() {
            let count = self.data.len() - before;
            // A small buffer that was filled does not tell how much more there was.
            self.trickles = wanted > SMALL as u64 && count < SMALL / 2;
        }
        read
    }

    fn make_room(&mut self, wanted: u64) {
        let target = self.target(wanted);
        if target == SMALL && self.large && self.is_empty() {
            let trickles = self.trickles;
            self.release();
            // Still true when this read has to wait and is tried again.
            self.trickles = trickles;
        }
        let spare = self.data.capacity() - self.data.len();
        if spare >= target / 2 {
            return;
        }
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
        if self.data.capacity() - self.data.len() < target {
            self.data.reserve_exact(target);
        }
        if !self.large && self.data.capacity() >= LARGE {
            self.large = true;
            LARGE_BUFFERS.set(LARGE_BUFFERS.get() + 1);
        }
    }

    fn target(&self, wanted: u64) -> usize {
        let worthwhile = wanted > SMALL as u64 && !self.trickles;
        if worthwhile && (self.large || LARGE_BUFFERS.get() < MAX_LARGE) {
            LARGE
        } else {
            SMALL
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.large {
            LARGE_BUFFERS.set(LARGE_BUFFERS.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::Stream;

    fn with_room(wanted: u64) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.make_room(wanted);
        buffer
    }

    #[test]
    fn large_buffers_are_a_bounded_number_and_can_be_had_again() {
        let mut buffers: Vec<_> = (0..MAX_LARGE + 10).map(|_| with_room(u64::MAX)).collect();
        let sizes: Vec<_> = buffers.iter().map(|it| it.data.capacity()).collect();
        assert!(sizes[..MAX_LARGE].iter().all(|size| *size == LARGE));
        assert!(sizes[MAX_LARGE..].iter().all(|size| *size == SMALL));

        buffers[0].release();
        buffers.remove(1);
        assert_eq!(with_room(u64::MAX).data.capacity(), LARGE);
        // A small one becomes large when it has to grow.
        let mut grown = with_room(0);
        assert_eq!(grown.data.capacity(), SMALL);
        grown.data.resize(SMALL, 0);
        grown.make_room(u64::MAX);
        assert!(grown.large);
        drop((buffers, grown));
        assert_eq!(LARGE_BUFFERS.get(), 0);
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
        }
    }
}
