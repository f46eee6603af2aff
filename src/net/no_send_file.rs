//! Where the kernel does not send files by itself, they are read and sent.

use std::fs::File;
use std::io;
use std::task::{Context, Poll};

use super::WriteHalf;

impl WriteHalf<'_> {
    pub(crate) fn takes_files(&self) -> bool {
        false
    }

    pub(crate) fn poll_send_file(
        &self,
        _: &mut Context<'_>,
        _: &File,
        _: u64,
        _: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        Poll::Ready(Ok(None))
    }

    pub(crate) fn poll_send_ahead(&self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("what takes no files is never asked to send ahead of one")
    }
}
