//! The file under the journal.
//!
//! The database's own is not used for two reasons: without `fsync` a commit must still reach the system, so that only a loss
//! of power and not a kill loses it; and what a full or broken disk does has to be tried by tests.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

/// A locked file.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    fsync: bool,
    #[cfg(test)]
    full: Arc<AtomicBool>,
}

impl Disk {
    /// Only its owner may read the file: users' messages are in it.
    pub(super) fn open(path: &Path, fsync: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process has this journal open",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self {
            file,
            fsync,
            #[cfg(test)]
            full: Arc::default(),
        })
    }

    /// The same, on a disk that a test can fill.
    #[cfg(test)]
    pub(super) fn filled_by(self, full: &Arc<AtomicBool>) -> Self {
        Self {
            full: Arc::clone(full),
            ..self
        }
    }

    #[cfg(test)]
    fn has_room(&self) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "tests can fill the disk"
    )]
    fn has_room(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.has_room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.fsync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.has_room()?;
        self.file.write_all_at(data, offset)
    }
}
