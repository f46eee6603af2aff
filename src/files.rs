//! Files that are read and written beside the work of a thread that serves many: on a disk that may be slow.
//!
//! What the system holds in memory is read at once (`RWF_NOWAIT`); whatever would wait is done on a thread for that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

/// How much is read at a time of what is only brought into memory.
const STEP: usize = 64 * 1024;

/// A file without a name: it is gone with its last user, also if that one is killed.
pub(crate) fn nameless(directory: &Path) -> io::Result<File> {
    tempfile::tempfile_in(directory)
}

/// Writes all of `bytes` from `at` on.
pub(crate) async fn write_at(file: &Arc<File>, bytes: Bytes, at: u64) -> io::Result<()> {
    let file = Arc::clone(file);
    aside(move || file.write_all_at(&bytes, at)).await
}

/// Reads up to `most` bytes from `at` on; none at the file's end.
pub(crate) async fn read_at(file: &Arc<File>, at: u64, most: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; most];
    if let Some(count) = read_at_once(file, &mut bytes, at) {
        bytes.truncate(count);
        return Ok(Bytes::from(bytes));
    }
    let file = Arc::clone(file);
    aside(move || {
        let count = file.read_at(&mut bytes, at)?;
        bytes.truncate(count);
        Ok(Bytes::from(bytes))
    })
    .await
}

/// Has the system hold `length` bytes from `at` on in memory, so that they can be sent without waiting for a disk. It may
/// forget them again; then whoever sends them waits, which is rare.
pub(crate) async fn bring(file: &Arc<File>, at: u64, length: usize) -> io::Result<()> {
    if is_at_hand(file, at, length) {
        return Ok(());
    }
    let file = Arc::clone(file);
    aside(move || {
        let mut scratch = vec![0; STEP.min(length)];
        let (mut at, end) = (at, at.saturating_add(length as u64));
        while at < end {
            match file.read_at(&mut scratch, at)? {
                0 => break,
                count => at += count as u64,
            }
        }
        Ok(())
    })
    .await
}

/// Whether these bytes seem to be in memory. A system reads ahead, so what begins and ends there is there as a whole in
/// nearly all cases.
fn is_at_hand(file: &File, at: u64, length: usize) -> bool {
    let last = at.saturating_add(length.saturating_sub(1) as u64);
    let is_there = |at| read_at_once(file, &mut [0], at).is_some();
    is_there(at) && is_there(last)
}

/// Reads what is in memory from `at` on; `None` if nothing is, or if the system or the file system cannot tell.
#[cfg(target_os = "linux")]
fn read_at_once(file: &File, bytes: &mut [u8], at: u64) -> Option<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut slices = [io::IoSliceMut::new(bytes)];
    preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT).ok()
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

/// Does what may wait on a thread for that.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text, 0).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn a_read_is_as_long_as_the_file_lets_it_be() {
        let file = file(b"0123456789");
        for (at, most, expected) in [
            (0, 4, &b"0123"[..]),
            (8, 4, b"89"),
            (10, 4, b""),
            (1 << 40, 4, b""),
            (0, 0, b""),
        ] {
            assert_eq!(read_at(&file, at, most).await.unwrap(), expected, "{at}");
        }
    }

    #[tokio::test]
    async fn what_was_brought_into_memory_is_read_as_before() {
        let file = file(&[7; 3 * STEP]);
        for (at, length) in [(0, 3 * STEP), (5, STEP), (0, 0), (9 << 20, STEP)] {
            bring(&file, at, length).await.unwrap();
        }
        assert_eq!(read_at(&file, 0, 4).await.unwrap(), [7; 4][..]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_system_has_forgotten_is_brought_back() {
        let file = file(&[7; 3 * STEP]);
        // Not every file system can tell.
        let tells = is_at_hand(&file, 0, 3 * STEP);
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        bring(&file, 0, 3 * STEP).await.unwrap();
        assert_eq!(is_at_hand(&file, 0, 3 * STEP), tells);
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(read_at(&file, 9, 4).await.unwrap(), [7; 4][..]);
    }

    #[tokio::test]
    async fn what_was_written_is_read_again() {
        let file = file(b"0123456789");
        write_at(&file, Bytes::from_static(b"ab"), 9).await.unwrap();
        assert_eq!(read_at(&file, 8, 10).await.unwrap(), &b"8ab"[..]);
    }
}
