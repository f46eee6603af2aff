//! Files that are read and written beside the work of a thread that serves many: on a disk that may be slow.
//!
//! What the system holds in memory is read at once; whatever would wait is done on a thread for that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

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
    let file = Arc::clone(file);
    aside(move || {
        let mut bytes = vec![0; most];
        let count = file.read_at(&mut bytes, at)?;
        bytes.truncate(count);
        Ok(Bytes::from(bytes))
    })
    .await
}

/// Does what may wait on a thread for that.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}
