//! The bytes of a file on its way: in memory as long as they are few, and in a file without a name beyond that.
//!
//! So an upload takes no more memory than two buffers, however large it is, and can be sent as often as it must be. A disk
//! that is full, or that may not be written to, costs memory and not the upload: what it has is read back, and as much is
//! held as `buffer_limit` allows.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::Room;
use crate::error::{Error, Kind, Side};
use crate::files;
use crate::gateway::Piece;
use crate::resilience::Buffered;
use crate::telemetry::throttle::Throttle;

/// How much is held in memory before it goes to the disk.
const IN_MEMORY: usize = 64 * 1024;
/// How much all of them together may have on the disk. What it is full of is in the way of others.
const ON_DISK: u64 = 1024 * 1024 * 1024;

/// The disk, as far as it is for bytes that wait. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Where files are made.
    directory: Arc<Path>,
    /// How many bytes they have.
    used: Arc<AtomicU64>,
    /// That it cannot be used, in the log.
    failures: Arc<Throttle<io::ErrorKind>>,
}

/// Bytes on the disk; given back when dropped.
#[derive(Debug)]
pub(crate) struct Occupied {
    used: Arc<AtomicU64>,
    bytes: u64,
}

/// The bytes of one file.
#[derive(Debug)]
pub(crate) struct Spool {
    disk: Disk,
    occupied: Occupied,
    room: Room,
    on_disk: OnDisk,
    in_memory: Buffered,
}

#[derive(Debug)]
enum OnDisk {
    Nothing,
    Some {
        file: Arc<File>,
        length: u64,
    },
    /// It cannot be used.
    Refused,
}

impl Disk {
    /// Files are made in `directory`, or where the system has its own.
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        let directory = directory.map_or_else(std::env::temp_dir, Path::to_owned);
        Self {
            directory: directory.into(),
            used: Arc::default(),
            failures: Arc::default(),
        }
    }
}

impl Occupied {
    fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= ON_DISK);
        let grown = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        match grown {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(Error::overloaded((
                "as many files as the disk may have are on their way",
                "正在上传的文件已占满磁盘配额",
            ))),
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Spool {
    pub(crate) fn new(disk: &Disk, room: Room) -> Self {
        Self {
            occupied: Occupied {
                used: Arc::clone(&disk.used),
                bytes: 0,
            },
            disk: disk.clone(),
            on_disk: OnDisk::Nothing,
            in_memory: room.buffer(),
            room,
        }
    }

    /// Takes more.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.in_memory.push(bytes)?;
        match self.on_disk {
            OnDisk::Refused => Ok(()),
            _ if self.in_memory.len() < IN_MEMORY => Ok(()),
            _ => self.move_to_disk().await,
        }
    }

    /// All of it, and the room that it has on the disk.
    pub(crate) fn into_pieces(self) -> (Vec<Piece>, Occupied) {
        let rest = Piece::Bytes(Bytes::from_owner(self.in_memory));
        let pieces = match self.on_disk {
            OnDisk::Some { file, length } => vec![Piece::File { file, length }, rest],
            OnDisk::Nothing | OnDisk::Refused => vec![rest],
        };
        (pieces, self.occupied)
    }

    async fn move_to_disk(&mut self) -> Result<(), Error> {
        self.occupied.grow(self.in_memory.len() as u64)?;
        let full = std::mem::replace(&mut self.in_memory, self.room.buffer());
        let full = Bytes::from_owner(full);
        let (file, at) = match std::mem::replace(&mut self.on_disk, OnDisk::Refused) {
            OnDisk::Some { file, length } => (Some(file), length),
            _ => (None, 0),
        };
        let written = match &file {
            Some(file) => self.write(Arc::clone(file), &full, at).await,
            None => match self.open().await {
                Ok(file) => self.write(file, &full, at).await,
                Err(error) => Err(error),
            },
        };
        match written {
            Ok(on_disk) => {
                self.on_disk = on_disk;
                Ok(())
            }
            Err(error) => {
                if let Some(suppressed) = self.disk.failures.pass(error.kind(), Instant::now()) {
                    let directory = self.disk.directory.display();
                    tracing::warn!(%error, %directory, suppressed, "an upload cannot be kept on the disk; it is kept in memory");
                }
                self.read_back(file.as_ref(), at, &full).await
            }
        }
    }

    async fn open(&self) -> io::Result<Arc<File>> {
        let directory = Arc::clone(&self.disk.directory);
        files::aside(move || files::nameless(&directory))
            .await
            .map(Arc::new)
    }

    async fn write(&self, file: Arc<File>, full: &Bytes, at: u64) -> io::Result<OnDisk> {
        files::write_at(&file, full.clone(), at).await?;
        let length = at + full.len() as u64;
        Ok(OnDisk::Some { file, length })
    }

    /// Has all of it in memory from now on: what the file has, then what it would not take.
    async fn read_back(
        &mut self,
        file: Option<&Arc<File>>,
        length: u64,
        full: &[u8],
    ) -> Result<(), Error> {
        let mut all = self.room.buffer();
        while let Some(file) = file
            && (all.len() as u64) < length
        {
            let left = usize::try_from(length - all.len() as u64).unwrap_or(IN_MEMORY);
            let read = files::read_at(file, all.len() as u64, left.min(IN_MEMORY)).await;
            match read {
                Ok(bytes) if !bytes.is_empty() => all.push(&bytes)?,
                Ok(_) => return Err(lost("it is shorter than what was written")),
                Err(error) => return Err(lost(error)),
            }
        }
        all.push(full)?;
        self.in_memory = all;
        Ok(())
    }
}

fn lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let detail = ("a file on the disk cannot be read", "磁盘上的文件无法读取");
    Error::new(Kind::Internal, Side::Us, detail).with_cause(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::BufferBudget;

    fn spool(directory: &Path, limit: u64) -> Spool {
        let budget = BufferBudget::default();
        Spool::new(&Disk::new(Some(directory)), Room { budget, limit })
    }

    async fn content((pieces, _): (Vec<Piece>, Occupied)) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::File { file, length } => {
                    let length = usize::try_from(length).unwrap();
                    all.extend_from_slice(&files::read_at(&file, 0, length).await.unwrap());
                }
            }
        }
        all
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_small_stays_in_memory_and_what_is_large_leaves_two_buffers_there() {
        let directory = tempfile::tempdir().unwrap();
        for (count, files) in [
            (0, 0),
            (1, 0),
            (IN_MEMORY - 1, 0),
            (IN_MEMORY, 1),
            (1_000_003, 1),
        ] {
            let mut spool = spool(directory.path(), 3 * IN_MEMORY as u64);
            for piece in bytes(count).chunks(4001) {
                spool.push(piece).await.unwrap();
                assert!(spool.in_memory.len() < IN_MEMORY);
            }
            let pieces = spool.into_pieces();
            let on_disk = |piece: &&Piece| matches!(piece, Piece::File { .. });
            assert_eq!(pieces.0.iter().filter(on_disk).count(), files, "{count}");
            assert!(content(pieces).await == bytes(count));
        }
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "a file has no name that could be left behind");
    }

    #[tokio::test]
    async fn without_a_disk_it_is_kept_in_memory_as_far_as_that_goes() {
        // There is no directory below a file.
        let file_there = tempfile::NamedTempFile::new().unwrap();
        let nowhere = &file_there.path().join("wx");
        let mut spool = spool(nowhere, 1 << 20);
        for piece in bytes(200_003).chunks(4001) {
            spool.push(piece).await.unwrap();
        }
        assert!(content(spool.into_pieces()).await == bytes(200_003));

        let mut spool = self::spool(nowhere, 100_000);
        let mut outcome = Ok(());
        for piece in bytes(200_003).chunks(4001) {
            outcome = spool.push(piece).await;
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome.unwrap_err().kind(), Kind::Overloaded);
        let budget = spool.room.budget.clone();
        drop(spool);
        let mut next = budget.body(100_000);
        assert!(next.push(&[0; 100_000]).is_ok(), "its room comes back");
    }

    #[tokio::test]
    async fn a_disk_that_is_full_in_the_middle_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(directory.path(), 1 << 20);
        spool.push(&bytes(2 * IN_MEMORY)).await.unwrap();
        let OnDisk::Some { file, length } = &mut spool.on_disk else {
            panic!("it is on the disk: {spool:?}");
        };
        // A descriptor that may not be written to stands for the disk that takes no more.
        let path = directory.path().join("full");
        let all = files::read_at(file, 0, 2 * IN_MEMORY).await.unwrap();
        assert_eq!(all.len() as u64, *length);
        std::fs::write(&path, &all).unwrap();
        *file = Arc::new(File::open(&path).unwrap());
        spool.push(&bytes(IN_MEMORY)).await.unwrap();
        spool.push(b"the rest").await.unwrap();
        let whole = [&bytes(2 * IN_MEMORY)[..], &bytes(IN_MEMORY), b"the rest"].concat();
        let pieces = spool.into_pieces();
        assert_eq!(pieces.0.len(), 1);
        assert!(content(pieces).await == whole);
    }

    #[tokio::test]
    async fn the_disk_has_so_much_room_and_gets_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(Some(directory.path()));
        let push = async || {
            let budget = BufferBudget::default();
            let limit = 1 << 20;
            let mut spool = Spool::new(&disk, Room { budget, limit });
            let pushed = spool.push(&bytes(IN_MEMORY)).await;
            pushed.map(|()| spool.into_pieces())
        };
        disk.used
            .store(ON_DISK - IN_MEMORY as u64, Ordering::Relaxed);
        let kept = push().await.unwrap();
        assert_eq!(disk.used.load(Ordering::Relaxed), ON_DISK);
        assert_eq!(push().await.unwrap_err().kind(), Kind::Overloaded);
        drop(kept);
        assert!(push().await.is_ok());
        assert_eq!(
            disk.used.load(Ordering::Relaxed),
            ON_DISK - IN_MEMORY as u64
        );
    }
}
