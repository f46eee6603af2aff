//! The bytes of a file on its way: in memory as long as they are few, and in a file without a name beyond that.
//!
//! So an upload takes no more memory than two buffers, however large it is, and can be sent as often as it must be. A disk
//! that is full, or that may not be written to, costs memory and not the upload: what it has is read back, and as much is
//! held as `buffer_limit` allows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Kind, Side};
use crate::files;
use crate::gateway::Piece;
use crate::resilience::{BufferBudget, Buffered};

/// How much is held in memory before it goes to the disk.
const IN_MEMORY: usize = 64 * 1024;

/// Where bytes wait.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Where files are made.
    pub(crate) directory: PathBuf,
    /// The memory for all bodies, and how much of it there is.
    pub(crate) budget: BufferBudget,
    pub(crate) limit: u64,
}

/// The bytes of one file.
#[derive(Debug)]
pub(crate) struct Spool {
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

impl Room {
    /// Files are made in `directory`, or where the system has its own.
    pub(crate) fn new(directory: Option<&Path>, budget: &BufferBudget, limit: u64) -> Self {
        Self {
            directory: directory.map_or_else(std::env::temp_dir, Path::to_owned),
            budget: budget.clone(),
            limit,
        }
    }

    pub(crate) fn buffer(&self) -> Buffered {
        self.budget.body(self.limit)
    }
}

impl Spool {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            in_memory: room.buffer(),
            on_disk: OnDisk::Nothing,
            room,
        }
    }

    /// Takes more.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.in_memory.push(bytes).map_err(|_| no_room())?;
        match self.on_disk {
            OnDisk::Refused => Ok(()),
            _ if self.in_memory.len() < IN_MEMORY => Ok(()),
            _ => self.move_to_disk().await,
        }
    }

    /// All of it.
    pub(crate) fn into_pieces(self) -> Vec<Piece> {
        let rest = Piece::Bytes(Bytes::from_owner(self.in_memory));
        match self.on_disk {
            OnDisk::Some { file, length } => vec![Piece::File { file, length }, rest],
            OnDisk::Nothing | OnDisk::Refused => vec![rest],
        }
    }

    async fn move_to_disk(&mut self) -> Result<(), Error> {
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
                let directory = self.room.directory.display();
                tracing::warn!(%error, %directory, "a file cannot be kept on the disk; it is kept in memory");
                self.read_back(file.as_ref(), at, &full).await
            }
        }
    }

    async fn open(&self) -> io::Result<Arc<File>> {
        let directory = self.room.directory.clone();
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
                Ok(bytes) if !bytes.is_empty() => all.push(&bytes).map_err(|_| no_room())?,
                Ok(_) => return Err(lost("it is shorter than what was written")),
                Err(error) => return Err(lost(error)),
            }
        }
        all.push(full).map_err(|_| no_room())?;
        self.in_memory = all;
        Ok(())
    }
}

fn no_room() -> Error {
    let detail = "the memory for bodies is in use (buffer_limit)";
    Error::new(Kind::Overloaded, Side::Us, detail)
        .with_retry_after(std::time::Duration::from_secs(1))
}

fn lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Kind::Internal,
        Side::Us,
        "a file on the disk cannot be read",
    )
    .with_cause(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(directory: &Path, limit: u64) -> Room {
        Room::new(Some(directory), &BufferBudget::default(), limit)
    }

    async fn content(pieces: Vec<Piece>) -> Vec<u8> {
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
            let mut spool = Spool::new(room(directory.path(), 3 * IN_MEMORY as u64));
            for piece in bytes(count).chunks(4001) {
                spool.push(piece).await.unwrap();
                assert!(spool.in_memory.len() < IN_MEMORY);
            }
            let pieces = spool.into_pieces();
            let on_disk = |piece: &&Piece| matches!(piece, Piece::File { .. });
            assert_eq!(pieces.iter().filter(on_disk).count(), files, "{count}");
            assert!(content(pieces).await == bytes(count));
        }
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "a file has no name that could be left behind");
    }

    #[tokio::test]
    async fn without_a_disk_it_is_kept_in_memory_as_far_as_that_goes() {
        let nowhere = Path::new("/nonexistent/wx");
        let mut spool = Spool::new(room(nowhere, 1 << 20));
        for piece in bytes(200_003).chunks(4001) {
            spool.push(piece).await.unwrap();
        }
        assert!(content(spool.into_pieces()).await == bytes(200_003));

        let mut spool = Spool::new(room(nowhere, 100_000));
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
        let mut spool = Spool::new(room(directory.path(), 1 << 20));
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
        assert_eq!(pieces.len(), 1);
        assert!(content(pieces).await == whole);
    }
}
