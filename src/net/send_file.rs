//! Files that the kernel sends by itself (`sendfile(2)`): none of their bytes are copied into the process and out again.
//!
//! The kernel reads a file while it sends it, and if that takes a disk's time, all that this thread serves waits with it.
//! So whoever sends a file has had it brought into memory before (`crate::files`).

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::WriteHalf;
use super::splice::is_refusal;

thread_local! {
    /// Whether the system has refused to send a file; it will not change its mind.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

impl WriteHalf<'_> {
    /// Whether the kernel can be asked to send files on it.
    pub(crate) fn takes_files(&self) -> bool {
        !matches!(self, Self::Tls(_)) && !REFUSED.get()
    }

    /// Sends up to `most` bytes of a file from `at` on and says how many, which is what the socket takes at once; 0 at the
    /// file's end; `None` if the system does not do that.
    pub(crate) fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: &File,
        at: u64,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            ready!(self.poll_ready(cx))?;
            let sent = self.try_with(|socket| {
                let mut at = at;
                uninterrupted(|| sendfile(socket, file, Some(&mut at), most))
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_refusal(&error) => {
                    REFUSED.set(true);
                    return Poll::Ready(Ok(None));
                }
                sent => return Poll::Ready(sent.map(Some)),
            }
        }
    }

    /// Sends some of `bytes`, which a file follows at once: the kernel need not make a packet of them alone.
    pub(crate) fn poll_send_ahead(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A peer that is gone is an error and no signal.
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            ready!(self.poll_ready(cx))?;
            match self.try_with(|socket| uninterrupted(|| send(socket, bytes, flags))) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

fn uninterrupted(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
