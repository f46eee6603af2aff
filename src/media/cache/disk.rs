//! Media on the disk: one file each, as many as fit, found again after a restart.
//!
//! A file is written under another name, synced, and renamed when it is whole, so what has its name is whole whatever
//! happens to the process. Whoever writes one holds a lock on it, which ends with the process: what is there without a lock
//! was left by a crash. Several processes may share a directory. They do not know of each other, and what one of them
//! takes away, the others ask WeChat for; what has not the name of one of our files is nobody's here.
//!
//! All of this may wait for the disk, so it is called on threads for that; only what is open already is found at once.

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempPath;
use tokio::runtime::Handle;

use super::entry::{HEADER, LOOK, Label, Unfit};
use super::lru::Lru;
use super::{Key, Place, Stored, Tally};
use crate::clock::Timestamp;
use crate::telemetry::media::{Eviction, Operation, Tier};
use crate::wechat::media::LIFE;

/// How many files are kept open, because they are asked for again and again.
const OPEN: u64 = 64;
/// What the names of files that are not yet whole begin and end with.
const DRAFT: (&str, &str) = (".wx-media-", ".part");
/// What the names of those that are end with.
const EXTENSION: &str = ".media";

/// A directory of media.
pub(super) struct Disk {
    directory: PathBuf,
    /// What is there, as far as this process knows. Held for a look.
    index: Mutex<Lru<()>>,
    /// Held for a look.
    open: Mutex<Lru<Arc<Stored>>>,
    tally: Arc<Tally>,
}

/// A file that is being written. Without [`Disk::keep`] it is gone when this is dropped.
pub(crate) struct Draft {
    pub(crate) file: Arc<File>,
    /// Until it has its name.
    path: Option<TempPath>,
}

/// Removing it may wait for the disk, too.
impl Drop for Draft {
    fn drop(&mut self) {
        if let (Some(path), Ok(runtime)) = (self.path.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(path));
        }
    }
}

impl Disk {
    /// Touches nothing yet.
    pub(super) fn new(directory: &Path, capacity: u64, tally: &Arc<Tally>) -> Self {
        Self {
            directory: directory.to_owned(),
            index: Mutex::new(Lru::new(capacity)),
            open: Mutex::new(Lru::new(OPEN)),
            tally: Arc::clone(tally),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a file of that length could be kept.
    pub(super) fn has_room_for(&self, length: u64) -> bool {
        self.index(|index| length.saturating_add(HEADER as u64) <= index.capacity())
    }

    /// What is open. Does not wait.
    pub(super) fn at_hand(&self, key: &Key, now: Timestamp) -> Option<Arc<Stored>> {
        let stored = self.open(|open| open.get(key, now).cloned())?;
        self.index(|index| index.get(key, now).is_some());
        Some(stored)
    }

    /// Learns what is there of an app's, and removes what nobody will serve.
    pub(super) fn scan(&self, appid: &str, now: Timestamp) {
        if let Err(error) = self.try_scan(appid, now) {
            self.tally.failed(Operation::Scan, &self.directory, &error);
        }
        self.tell();
    }

    fn try_scan(&self, appid: &str, now: Timestamp) -> io::Result<()> {
        create(&self.directory)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.starts_with(DRAFT.0) && name.ends_with(DRAFT.1) {
                remove_if_left(&entry.path());
            } else if let Some(key) = name.strip_suffix(EXTENSION).and_then(Key::parse) {
                // One that cannot be looked at does not keep us from the others.
                match self.inspect(&entry, key, now) {
                    Ok(Some(label)) if label.appid == appid => found.push((key, label)),
                    Ok(_) => {}
                    Err(error) => self.tally.failed(Operation::Scan, &entry.path(), &error),
                }
            }
        }
        found.sort_by_key(|(_, label)| std::cmp::Reverse(label.card.came_at));
        for (key, Label { card, .. }) in found {
            let bytes = card.length.unwrap_or_default() + HEADER as u64;
            let surplus = self.index(|index| index.insert_oldest(key, (), bytes, card.ends_at()));
            self.remove_all(&surplus, Eviction::Size);
        }
        Ok(())
    }

    /// What a file says of itself if it may be served; else it is removed.
    fn inspect(&self, entry: &DirEntry, key: Key, now: Timestamp) -> io::Result<Option<Label>> {
        let path = entry.path();
        let (_, label) = match read(&path)? {
            Ok(read) => read,
            // What another version has written is for that one, but not longer than a medium lives.
            Err(Unfit::Foreign) => {
                let age = SystemTime::now().duration_since(entry.metadata()?.modified()?);
                if age.is_ok_and(|age| age > LIFE) {
                    self.discard(&path, Eviction::Expired);
                }
                return Ok(None);
            }
            Err(Unfit::Corrupt) => {
                self.discard(&path, Eviction::Corrupt);
                return Ok(None);
            }
        };
        if label.key() != key {
            self.discard(&path, Eviction::Corrupt);
            return Ok(None);
        }
        if !label.is_alive(now) {
            self.discard(&path, Eviction::Expired);
            return Ok(None);
        }
        Ok(Some(label))
    }

    /// Opens a medium that is there, also if another process has put it there.
    pub(super) fn find(&self, appid: &str, media_id: &str, now: Timestamp) -> Option<Arc<Stored>> {
        let key = Key::by(appid, media_id);
        let path = self.path(&key);
        let unfit = match read(&path) {
            Ok(Ok((file, label))) => {
                let is_it = label.appid == appid && label.media_id == media_id;
                if is_it && label.is_alive(now) {
                    return Some(self.admit(key, file, label, now));
                }
                if is_it {
                    Eviction::Expired
                } else {
                    Eviction::Corrupt
                }
            }
            Ok(Err(Unfit::Corrupt)) => Eviction::Corrupt,
            Ok(Err(Unfit::Foreign)) => return None,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.tally.failed(Operation::Read, &path, &error);
                }
                self.forget(&key);
                return None;
            }
        };
        self.discard(&path, unfit);
        self.forget(&key);
        None
    }

    fn admit(&self, key: Key, file: File, label: Label, now: Timestamp) -> Arc<Stored> {
        let stored = Arc::new(Stored {
            card: label.card,
            place: Place::File(Arc::new(file)),
        });
        self.index_as_used(key, &stored, now);
        stored
    }

    fn index_as_used(&self, key: Key, stored: &Arc<Stored>, now: Timestamp) {
        let bytes = stored.length() + HEADER as u64;
        let ends_at = stored.card.ends_at();
        let surplus = self.index(|index| match index.get(&key, now) {
            Some(()) => Vec::new(),
            None => index.insert(key, (), bytes, ends_at),
        });
        if self.index(|index| index.has(&key)) {
            self.open(|open| open.insert(key, Arc::clone(stored), 1, ends_at));
        }
        self.remove_all(&surplus, Eviction::Size);
        self.tell();
    }

    /// A new file.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(DRAFT.0).suffix(DRAFT.1);
        let made = match builder.tempfile_in(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(&self.directory)?;
                builder.tempfile_in(&self.directory)
            }
            made => made,
        };
        let (file, path) = made?.into_parts();
        // Without locks nobody takes it away either.
        let _file_systems_without_locks = file.try_lock();
        Ok(Draft {
            file: Arc::new(file),
            path: Some(path),
        })
    }

    /// Gives a whole file its name. The content stands behind the header's place.
    pub(super) fn keep(
        &self,
        mut draft: Draft,
        label: &Label,
        now: Timestamp,
    ) -> io::Result<Arc<Stored>> {
        let Some(header) = label.encode() else {
            return Err(io::Error::other("there is no room for what it is"));
        };
        draft.file.write_all_at(&header, 0)?;
        draft.file.sync_all()?;
        let key = label.key();
        if let Some(path) = draft.path.take() {
            let persisted = path.persist(self.path(&key));
            persisted.map_err(|error| error.error)?;
        }
        let stored = Arc::new(Stored {
            card: label.card.clone(),
            place: Place::File(Arc::clone(&draft.file)),
        });
        self.expire(now);
        self.index_as_used(key, &stored, now);
        Ok(stored)
    }

    /// Writes a medium that is in memory.
    pub(super) fn write(&self, label: &Label, content: &Bytes, now: Timestamp) -> io::Result<()> {
        let draft = self.draft()?;
        draft.file.write_all_at(content, HEADER as u64)?;
        self.keep(draft, label, now).map(drop)
    }

    /// Removes what has ended.
    pub(super) fn expire(&self, now: Timestamp) {
        let ended = self.index(|index| index.expire(now));
        self.remove_all(&ended, Eviction::Expired);
        self.open(|open| open.expire(now));
        self.tell();
    }

    pub(super) fn resize(&self, capacity: u64) {
        let surplus = self.index(|index| index.resize(capacity));
        self.remove_all(&surplus, Eviction::Size);
        self.tell();
    }

    fn remove_all(&self, keys: &[(Key, ())], reason: Eviction) {
        for (key, ()) in keys {
            self.open(|open| open.remove(key));
            self.discard(&self.path(key), reason);
        }
    }

    fn forget(&self, key: &Key) {
        self.open(|open| open.remove(key));
        self.index(|index| index.remove(key));
        self.tell();
    }

    fn discard(&self, path: &Path, reason: Eviction) {
        self.tally.metrics.evicted(Tier::Disk, reason, 1);
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.tally.failed(Operation::Write, path, &error),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{key}{EXTENSION}"))
    }

    fn tell(&self) {
        let (bytes, count) = self.index(|index| (index.bytes(), index.len()));
        self.tally.metrics.holds(Tier::Disk, bytes, count);
    }

    fn index<T>(&self, look: impl FnOnce(&mut Lru<()>) -> T) -> T {
        look(&mut self.index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open<T>(&self, look: impl FnOnce(&mut Lru<Arc<Stored>>) -> T) -> T {
        look(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A directory that is ours alone, if it is not there yet.
fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn read(path: &Path) -> io::Result<Result<(File, Label), Unfit>> {
    let file = File::open(path)?;
    let mut start = Vec::with_capacity(LOOK);
    (&file).take(LOOK as u64).read_to_end(&mut start)?;
    let size = file.metadata()?.len();
    Ok(Label::decode(&start, size).map(|label| (file, label)))
}

/// Removes what a process has not finished, if it does not live any more.
fn remove_if_left(path: &Path) {
    let is_left = File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    if is_left && fs::remove_file(path).is_ok() {
        tracing::info!(path = %path.display(), "removed what was left of a medium when the process ended");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::media::cache::Card;

    const APP: &str = "wx0123456789abcdef";
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0";

    struct Ground {
        directory: TempDir,
    }

    impl Ground {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("a/b")
        }

        fn disk(&self, capacity: u64) -> Disk {
            Disk::new(&self.path(), capacity, &Arc::default())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.path()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn label(appid: &str, media_id: &str, length: usize, came_at: Timestamp) -> Label {
        Label {
            appid: appid.to_owned(),
            media_id: media_id.to_owned(),
            card: Card {
                content_type: "image/jpeg",
                name: Some("a.jpg".to_owned()),
                length: Some(length as u64),
                came_at,
            },
        }
    }

    fn put(disk: &Disk, media_id: &str, at: Timestamp) {
        let content = Bytes::from_static(JPEG);
        disk.write(&label(APP, media_id, JPEG.len(), at), &content, at)
            .unwrap();
    }

    fn content(stored: &Stored) -> Vec<u8> {
        let Place::File(file) = &stored.place else {
            panic!("it is in memory");
        };
        let mut bytes = vec![0; usize::try_from(stored.length()).unwrap()];
        file.read_exact_at(&mut bytes, HEADER as u64).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_found_by_the_next_process_and_is_for_its_user_only() {
        let place = Ground::new();
        put(&place.disk(1 << 20), "a", NOW);
        let disk = place.disk(1 << 20);
        // Without a scan, too.
        assert_eq!(content(&disk.find(APP, "a", NOW).unwrap()), JPEG);
        disk.scan(APP, NOW);
        assert_eq!(disk.index(|index| index.len()), 1);
        assert!(disk.find("wxffffffffffffffff", "a", NOW).is_none());
        assert!(disk.find(APP, "b", NOW).is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place.path()), 0o700);
        assert_eq!(mode(&disk.path(&Key::by(APP, "a"))), 0o600);
    }

    #[test]
    fn what_was_used_longest_ago_makes_room_also_after_a_restart() {
        let place = Ground::new();
        let size = (HEADER + JPEG.len()) as u64;
        let disk = place.disk(3 * size);
        for (nth, media_id) in ["a", "b", "c"].into_iter().enumerate() {
            put(&disk, media_id, NOW.plus(Duration::from_secs(nth as u64)));
        }
        let now = NOW.plus(Duration::from_secs(9));
        assert!(disk.at_hand(&Key::by(APP, "a"), now).is_some());
        put(&disk, "d", now);
        let there = |disk: &Disk| {
            ["a", "b", "c", "d"].map(|media_id| disk.find(APP, media_id, now).is_some())
        };
        assert_eq!(there(&disk), [true, false, true, true]);
        assert_eq!(place.names().len(), 3);

        let disk = place.disk(2 * size);
        disk.scan(APP, now);
        assert_eq!(there(&disk), [false, false, true, true]);
        assert_eq!(place.names().len(), 2);
        disk.resize(size);
        assert_eq!(there(&disk), [false, false, false, true]);
    }

    #[test]
    fn what_has_ended_is_removed() {
        let place = Ground::new();
        let disk = place.disk(1 << 20);
        put(&disk, "a", NOW);
        put(&disk, "b", NOW.plus(Duration::from_secs(1)));
        let end = NOW.plus(LIFE);
        assert!(disk.at_hand(&Key::by(APP, "a"), end).is_none());
        assert!(disk.find(APP, "a", end).is_none());
        assert_eq!(place.names().len(), 1);
        disk.expire(end.plus(Duration::from_secs(1)));
        assert_eq!(place.names(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_removed() {
        let place = Ground::new();
        for scans in [false, true] {
            for length in [0, 10, HEADER, HEADER + JPEG.len() - 1] {
                put(&place.disk(1 << 20), "a", NOW);
                let disk = place.disk(1 << 20);
                let path = disk.path(&Key::by(APP, "a"));
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(length as u64).unwrap();
                if scans {
                    disk.scan(APP, NOW);
                } else {
                    assert!(disk.find(APP, "a", NOW).is_none());
                }
                assert!(!path.exists(), "{length}");
            }
        }
    }

    #[test]
    fn a_file_under_the_name_of_another_is_not_served() {
        let place = Ground::new();
        let disk = place.disk(1 << 20);
        put(&disk, "a", NOW);
        fs::rename(disk.path(&Key::by(APP, "a")), disk.path(&Key::by(APP, "b"))).unwrap();
        let disk = place.disk(1 << 20);
        assert!(disk.find(APP, "b", NOW).is_none());
        assert_eq!(place.names(), Vec::<String>::new());
    }

    #[test]
    fn a_scan_removes_what_was_left_and_touches_nothing_else() {
        let place = Ground::new();
        let disk = place.disk(1 << 20);
        let living = disk.draft().unwrap();
        living.file.write_all_at(b"half", 0).unwrap();
        let other = label("wxffffffffffffffff", "a", JPEG.len(), NOW);
        disk.write(&other, &Bytes::from_static(JPEG), NOW).unwrap();
        let foreign = [
            "notes.txt",
            ".part",
            ".wx-media-a",
            "0123.media",
            "0123456789ABCDEF0123456789ABCDEF.media",
            "0123456789abcdef0123456789abcdef.jpg",
        ];
        for name in foreign {
            fs::write(place.path().join(name), b"mine").unwrap();
        }
        fs::write(place.path().join(".wx-media-dead.part"), b"half").unwrap();
        fs::create_dir(place.path().join("00000000000000000000000000000000.media")).unwrap();
        let before = place.names().len();

        let next = place.disk(1 << 20);
        next.scan(APP, NOW);
        assert_eq!(
            place.names().len(),
            before - 1,
            "only the dead one's is gone"
        );
        assert_eq!(
            next.index(|index| index.len()),
            0,
            "another app's is not counted"
        );
        drop(living);
        assert_eq!(place.names().len(), before - 2);
    }

    #[test]
    fn two_processes_may_share_a_directory() {
        let place = Ground::new();
        let (one, two) = (place.disk(1 << 20), place.disk(1 << 20));
        put(&one, "a", NOW);
        put(&two, "a", NOW.plus(Duration::from_secs(1)));
        assert_eq!(place.names().len(), 1);
        two.resize(0);
        // What is open is whole all the same.
        let stored = one.at_hand(&Key::by(APP, "a"), NOW).unwrap();
        assert_eq!(content(&stored), JPEG);
        assert!(one.find(APP, "a", NOW).is_none());
        assert!(one.at_hand(&Key::by(APP, "a"), NOW).is_none());
    }

    #[test]
    fn a_directory_that_is_none_is_an_error_and_no_end() {
        let place = Ground::new();
        fs::write(place.directory.path().join("a"), b"a file").unwrap();
        let disk = place.disk(1 << 20);
        disk.scan(APP, NOW);
        assert!(disk.draft().is_err());
        assert!(disk.find(APP, "a", NOW).is_none());
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let place = Ground::new();
        let disk = place.disk(10);
        assert!(!disk.has_room_for(4));
        put(&disk, "a", NOW);
        assert_eq!(place.names(), Vec::<String>::new());
        assert!(disk.at_hand(&Key::by(APP, "a"), NOW).is_none());
    }
}
