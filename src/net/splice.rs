//! Pipes through which bytes go from one socket to another inside the kernel (`splice(2)`): for large bodies on plain
//! sockets that saves both copies, which are most of their cost.
//!
//! A pipe serves one body and is closed with it, whatever became of it: bytes that nobody took cannot end up in
//! somebody else's. It is filled only when it is empty, so that "would block" speaks of the socket.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::{ReadHalf, WriteHalf};

/// How much a pipe holds. One page per place, and a segment from a network takes a place, so this is less in practice.
const CAPACITY: usize = 256 * 1024;
/// How many pipes a worker has at most: a peer that does not read keeps one full for as long as it may be silent.
const MAX_PIPES: usize = 64;

thread_local! {
    /// How many pipes this worker has.
    static PIPES: Cell<usize> = const { Cell::new(0) };
    /// Whether the system has refused to splice; it will not change its mind.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// A pipe, and how much of a body is in it.
pub(crate) struct Pipe {
    entry: OwnedFd,
    exit: OwnedFd,
    held: usize,
    _place: Place,
}

/// One of the pipes that a worker may have.
struct Place;

impl Pipe {
    /// A pipe between two sockets; `None` if they have to be copied between: under TLS, or because there are too many
    /// pipes or descriptors.
    pub(crate) fn between(from: &ReadHalf<'_>, into: &WriteHalf<'_>) -> Option<Self> {
        if matches!(from, ReadHalf::Tls(_)) || matches!(into, WriteHalf::Tls(_)) || REFUSED.get() {
            return None;
        }
        let place = Place::take()?;
        let (exit, entry) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Somebody with many pipes gets only tiny ones, which are slower than copying.
        fcntl_setpipe_size(&entry, CAPACITY).ok()?;
        Some(Self {
            entry,
            exit,
            held: 0,
            _place: place,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes up to `most` bytes off the socket and says how many, 0 at its end; `None` if the system does not splice.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &ReadHalf<'_>,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        debug_assert!(self.is_empty(), "a full pipe would block like a socket");
        let most = usize::try_from(most).map_or(CAPACITY, |most| most.min(CAPACITY));
        loop {
            ready!(from.poll_ready(cx))?;
            match from.try_with(|socket| relocate(socket, self.entry.as_fd(), most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_refusal(&error) => {
                    REFUSED.set(true);
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(Some(count)));
                }
            }
        }
    }

    /// Gives the socket as much as it takes at once, and says how much that was.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        into: &WriteHalf<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(into.poll_ready(cx))?;
            match into.try_with(|socket| relocate(self.exit.as_fd(), socket, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held -= count;
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

impl ReadHalf<'_> {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_read_ready(cx),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx),
            Self::Tls(_) => unreachable!("no pipe leads through TLS"),
        }
    }

    fn try_with(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => {
                let socket = half.as_ref();
                socket.try_io(Interest::READABLE, || call(socket.as_fd()))
            }
            Self::Unix(half) => {
                let socket = half.as_ref();
                socket.try_io(Interest::READABLE, || call(socket.as_fd()))
            }
            Self::Tls(_) => unreachable!("no pipe leads through TLS"),
        }
    }
}

impl WriteHalf<'_> {
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_write_ready(cx),
            Self::Unix(half) => half.as_ref().poll_write_ready(cx),
            Self::Tls(_) => unreachable!("the kernel does not write through TLS"),
        }
    }

    pub(super) fn try_with(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => {
                let socket = half.as_ref();
                socket.try_io(Interest::WRITABLE, || call(socket.as_fd()))
            }
            Self::Unix(half) => {
                let socket = half.as_ref();
                socket.try_io(Interest::WRITABLE, || call(socket.as_fd()))
            }
            Self::Tls(_) => unreachable!("the kernel does not write through TLS"),
        }
    }
}

fn relocate(from: BorrowedFd<'_>, into: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    loop {
        match splice(from, None, into, None, most, SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// What a system answers that has no such call for these descriptors, or whose sandbox forbids it.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

impl Place {
    fn take() -> Option<Self> {
        let taken = PIPES.get();
        (taken < MAX_PIPES).then(|| {
            PIPES.set(taken + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.set(PIPES.get() - 1);
    }
}
