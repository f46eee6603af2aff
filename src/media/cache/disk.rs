//! Media in a directory: one file each, which says itself what it is.
//!
//! A file is written under another name, synced, and gets its name last, so what has one is whole, whatever happened. What
//! was being written when a process died is locked by nobody, and goes. Processes may share the directory: each believes
//! what a file says and not what it remembers of it, and a file that another has removed is one that is not there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{Body, Kept, Key, Name};
use crate::clock::Timestamp;
use crate::crypto;
use crate::domain::{AppId, MediaId};
use crate::files;
use crate::media::fill::Head;
use crate::media::{kind, name};
use crate::resilience::{Lru, lock};
use crate::telemetry::media::{MediaMetrics, Tier};

/// What a file begins with: this, how long the label is, its digest, the label, and zeros up to [`BEGINNING`].
const MAGIC: &[u8; 8] = b"wxmedia1";
/// Where the medium begins, at a page of its own.
const BEGINNING: u64 = 4096;
/// What the names of media end with, and of what is being written.
const SUFFIX: &str = ".media";
const UNFINISHED: &str = ".unfinished";
/// How much time there is between two searches for what has expired.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How many files are kept open, because they are asked for often.
const MOST_OPEN: u64 = 64;

/// The directory.
pub(super) struct Disk {
    directory: PathBuf,
    most: u64,
    /// What there is, as far as is known. Guards the map, for a look or a change.
    index: Mutex<Index>,
    open: Mutex<Lru<Key, Kept>>,
    metrics: Arc<MediaMetrics>,
}

struct Index {
    /// By when each expires.
    entries: Lru<Key, Timestamp>,
    /// When it is next searched for what has expired, if there is no room.
    next_purge: Timestamp,
}

/// A file that is being written, and goes with its owner unless it is kept.
pub(in crate::media) struct Draft {
    file: Arc<File>,
    /// Its name, if it has one.
    path: Option<PathBuf>,
    beginning: u64,
}

/// A file of no use, which is removed when this is dropped.
struct Left(PathBuf);

/// What a file says of its medium.
#[derive(Serialize, Deserialize)]
struct Label {
    appid: String,
    media_id: String,
    length: u64,
    content_type: String,
    name: Option<String>,
    /// In milliseconds since 1970.
    fetched_at: u64,
}

impl Draft {
    /// In a file that nobody will keep.
    pub(super) fn nameless(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(files::nameless(directory)?),
            path: None,
            beginning: 0,
        })
    }

    pub(in crate::media) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where in the file the medium begins.
    pub(in crate::media) fn beginning(&self) -> u64 {
        self.beginning
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else {
            return;
        };
        // A disk may be slow, and the thread has others to serve.
        let left = Left(path);
        if let Ok(runtime) = Handle::try_current() {
            let _detached = runtime.spawn_blocking(move || drop(left));
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        // Who reads it still has it; if it cannot be removed, the next start tries again.
        let _left = fs::remove_file(&self.0);
    }
}

impl Disk {
    pub(super) fn new(directory: &Path, most: u64, metrics: Arc<MediaMetrics>) -> Self {
        Self {
            directory: directory.to_owned(),
            most,
            index: Mutex::new(Index {
                entries: Lru::new(most),
                next_purge: Timestamp::from_millis(0),
            }),
            open: Mutex::new(Lru::new(MOST_OPEN)),
            metrics,
        }
    }

    /// Whether there is room for a medium of this length, if all others make room.
    pub(super) fn fits(&self, length: u64) -> bool {
        weight(length) <= self.most
    }

    /// A new file. Makes the directory if it is not there.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        let chance = crypto::hex(&crypto::random::<16>());
        let path = self.directory.join(format!("{chance}{UNFINISHED}"));
        let create = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
        };
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                create()?
            }
            created => created?,
        };
        let draft = Draft {
            file: Arc::new(file),
            path: Some(path),
            beginning: BEGINNING,
        };
        draft.file.lock()?;
        Ok(draft)
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
    }

    /// Has a draft kept under its name, with `bytes` as what is in it if that is not written yet.
    pub(super) fn store(
        &self,
        mut draft: Draft,
        bytes: Option<&[u8]>,
        name: &Name,
        head: &Head,
        now: Timestamp,
    ) -> io::Result<()> {
        let (Some(path), Some(length)) = (draft.path.as_ref(), head.length) else {
            return Ok(());
        };
        // It may be from before a change of configuration.
        if path.parent() != Some(&self.directory) {
            return Ok(());
        }
        if let Some(bytes) = bytes {
            draft.file.write_all_at(bytes, BEGINNING)?;
        }
        draft
            .file
            .write_all_at(&Label::of(name, head, length).to_bytes()?, 0)?;
        draft.file.sync_data()?;
        let key = name.key();
        fs::rename(path, self.path(&key))?;
        draft.path = None;
        // Whoever looks for what was left behind looks at names; a lock would outlive its use with the open file.
        draft.file.unlock()?;
        self.note(key, head, now);
        Ok(())
    }

    /// What is in a file that is open already.
    pub(super) fn at_hand(&self, key: &Key, now: Timestamp) -> Option<Kept> {
        let kept = lock(&self.open).get(key).cloned()?;
        if kept.head.expires_at() <= now {
            lock(&self.open).remove(key);
            return None;
        }
        lock(&self.index).entries.get(key);
        Some(kept)
    }

    /// Looks for a medium. What is there and is not it, or is damaged, or too old, is removed.
    pub(super) fn find(&self, name: &Name, now: Timestamp) -> io::Result<Option<Kept>> {
        let key = name.key();
        let path = self.path(&key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(&[key]);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let head = match read(&file)? {
            Some((found, head)) if found == *name => head,
            _ => {
                self.metrics.failed("damaged");
                self.remove(&key);
                return Ok(None);
            }
        };
        if head.expires_at() <= now {
            self.metrics.evicted(Tier::Disk, "expired", 1);
            self.remove(&key);
            return Ok(None);
        }
        self.note(key, &head, now);
        let kept = Kept {
            head,
            body: Body::Disk(Arc::new(file), BEGINNING),
        };
        lock(&self.open).put(key, kept.clone(), 1);
        Ok(Some(kept))
    }

    /// Finds out what is there from before, oldest first, and removes what is of no use.
    pub(super) fn scan(&self, now: Timestamp) -> io::Result<()> {
        self.make_directory()?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.ends_with(UNFINISHED) {
                remove_if_left(&entry.path());
            }
            let Some(key) = name.strip_suffix(SUFFIX).and_then(Key::of_hex) else {
                continue;
            };
            // Others may be at work here.
            let Ok(file) = File::open(entry.path()) else {
                continue;
            };
            match read(&file) {
                Ok(Some((name, head))) if name.key() == key && head.expires_at() > now => {
                    found.push((head.fetched_at, key, head));
                }
                _ => self.remove(&key),
            }
        }
        found.sort_by_key(|(fetched_at, ..)| *fetched_at);
        for (_, key, head) in found {
            if lock(&self.index).entries.get(&key).is_none() {
                self.note(key, &head, now);
            }
        }
        Ok(())
    }

    /// Counts a medium, and removes others if there are too many now.
    fn note(&self, key: Key, head: &Head, now: Timestamp) {
        let weight = weight(head.length.unwrap_or_default());
        let (expired, given_up) = {
            let mut index = lock(&self.index);
            let is_full = index.entries.weight() + weight > self.most;
            let expired = match is_full && index.next_purge <= now {
                true => {
                    index.next_purge = now.plus(PURGE_EVERY);
                    index.entries.purge(|expires_at| *expires_at <= now)
                }
                false => Vec::new(),
            };
            (expired, index.entries.put(key, head.expires_at(), weight))
        };
        self.metrics.evicted(Tier::Disk, "expired", expired.len());
        self.metrics.evicted(Tier::Disk, "size", given_up.len());
        let gone: Vec<Key> = expired
            .iter()
            .chain(&given_up)
            .map(|(key, _)| *key)
            .collect();
        for key in &gone {
            let _not_there = fs::remove_file(self.path(key));
        }
        self.forget(&gone);
    }

    fn remove(&self, key: &Key) {
        let _not_there = fs::remove_file(self.path(key));
        self.forget(&[*key]);
    }

    fn forget(&self, keys: &[Key]) {
        let mut open = lock(&self.open);
        let mut index = lock(&self.index);
        for key in keys {
            open.remove(key);
            index.entries.remove(key);
        }
        let entries = &index.entries;
        self.metrics
            .holds(Tier::Disk, entries.len(), entries.weight());
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}{SUFFIX}", key.hex()))
    }
}

impl Label {
    fn of(name: &Name, head: &Head, length: u64) -> Self {
        Self {
            appid: name.appid.as_str().to_owned(),
            media_id: name.media_id.as_str().to_owned(),
            length,
            content_type: head.content_type.to_owned(),
            name: head.name.clone(),
            fetched_at: head.fetched_at.as_millis(),
        }
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crypto::sha256(&text));
        bytes.extend_from_slice(&text);
        if bytes.len() as u64 > BEGINNING {
            return Err(io::Error::other("what is said of the medium is too long"));
        }
        bytes.resize(BEGINNING as usize, 0);
        Ok(bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let text = rest.get(..u32::from_le_bytes(*length) as usize)?;
        if crypto::sha256(text) != *digest {
            return None;
        }
        serde_json::from_slice(text).ok()
    }
}

/// What a medium of this length takes of the disk.
fn weight(length: u64) -> u64 {
    BEGINNING + length
}

/// What a file says of itself; `None` if it is not what it says, or says nothing.
fn read(file: &File) -> io::Result<Option<(Name, Head)>> {
    let mut bytes = vec![0; BEGINNING as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some(label) = Label::parse(&bytes) else {
        return Ok(None);
    };
    if file.metadata()?.len() != BEGINNING + label.length {
        return Ok(None);
    }
    let known = || {
        let name = Name {
            appid: AppId::parse(&label.appid).ok()?,
            media_id: MediaId::parse(&label.media_id).ok()?,
        };
        let head = Head {
            content_type: kind::known_content_type(&label.content_type)?,
            name: label.name.as_deref().and_then(name::for_client),
            length: Some(label.length),
            fetched_at: Timestamp::from_millis(label.fetched_at),
        };
        Some((name, head))
    };
    Ok(known())
}

/// Removes what nobody goes on writing.
fn remove_if_left(path: &Path) {
    let Ok(file) = File::open(path) else {
        return;
    };
    match file.try_lock() {
        Ok(()) => {
            let _not_there = fs::remove_file(path);
        }
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}
