//! Media that were had from WeChat, kept until their time is over: small ones in memory, all on the disk.
//!
//! A media_id never changes what it stands for, so nothing here has to be asked again. What is the app's is found under the
//! app's name only. What fails here costs a call to WeChat and no answer.

mod disk;
mod entry;
mod lru;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::download::Chunk;
use super::kind::Format;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::crypto;
use crate::domain::{AppId, MediaId};
use crate::error::Error;
use crate::files;
use crate::telemetry::media::{Eviction, MediaMetrics, Operation, Served, Tier};
use crate::telemetry::throttle::Throttle;
use crate::wechat::media::LIFE;
use disk::Disk;
pub(super) use disk::Draft;
use entry::Label;
use lru::Lru;

/// The largest medium that is kept in memory, in bytes.
pub(super) const SMALL: u64 = 256 * 1024;
/// Where in a file the content begins.
pub(super) const CONTENT: u64 = entry::HEADER as u64;
/// What a medium in memory takes besides its bytes.
const OVERHEAD: u64 = 512;
/// How long it is remembered that WeChat knows no such medium.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Of how many.
const MOST_REFUSED: u64 = 4096;
/// How often what has ended is removed.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the disk may take for one thing.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// The longest name that is kept, in bytes.
const LONGEST_NAME: usize = 512;

/// Which medium: a hash of the app and the media_id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key([u8; 16]);

/// What is known of a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) content_type: &'static str,
    pub(super) name: Option<String>,
    /// In bytes, if WeChat has said.
    pub(super) length: Option<u64>,
    pub(super) came_at: Timestamp,
}

/// A medium that is here as a whole.
pub(super) struct Stored {
    pub(super) card: Card,
    pub(super) place: Place,
}

pub(super) enum Place {
    Memory(Bytes),
    /// Behind [`CONTENT`].
    File(Arc<File>),
}

/// What is kept. Outlives reloads.
pub(super) struct Cache {
    home: Option<Handle>,
    clock: Clock,
    tally: Arc<Tally>,
    /// Held for a look.
    memory: Mutex<Lru<Arc<Stored>>>,
    /// What WeChat does not know. Held for a look.
    refused: Mutex<Lru<Error>>,
    disk: ArcSwapOption<Disk>,
}

/// Failures of the disk, counted and told.
#[derive(Default)]
struct Tally {
    metrics: Arc<MediaMetrics>,
    /// In the log.
    failures: Throttle<(Operation, io::ErrorKind)>,
}

impl Key {
    pub(super) fn of(appid: &AppId, id: &MediaId) -> Self {
        Self::by(appid.as_str(), id.as_str())
    }

    fn by(appid: &str, media_id: &str) -> Self {
        let hash = crypto::sha256(format!("{appid}/{media_id}").as_bytes());
        let (half, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        Self(*half)
    }

    /// As it is printed.
    fn parse(text: &str) -> Option<Self> {
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return None;
        }
        let number = u128::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Card {
    /// Of a medium that begins with `start` and comes at this moment.
    pub(super) fn new(
        start: &[u8],
        name: Option<String>,
        length: Option<u64>,
        came_at: Timestamp,
    ) -> Self {
        let is_fit = |name: &String| name.len() <= LONGEST_NAME && !name.contains(char::is_control);
        Self {
            content_type: content_type(start),
            name: name.filter(is_fit),
            length,
            came_at,
        }
    }

    fn ends_at(&self) -> Timestamp {
        self.came_at.plus(LIFE)
    }
}

/// By content, whatever WeChat says: what it cannot be is what nobody runs or shows.
fn content_type(start: &[u8]) -> &'static str {
    let telling = &start[..start.len().min(super::kind::TELLING)];
    Format::of(telling).map_or("application/octet-stream", Format::content_type)
}

impl Stored {
    pub(super) fn length(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::File(_) => self.card.length.unwrap_or_default(),
        }
    }

    /// All there is from `at` on.
    pub(super) fn chunk(&self, at: u64) -> Chunk {
        let left = self.length().saturating_sub(at);
        if left == 0 {
            return Chunk::End;
        }
        match &self.place {
            Place::Memory(bytes) => {
                let from = bytes.len() - usize::try_from(left).unwrap_or(bytes.len());
                Chunk::Bytes(bytes.slice(from..))
            }
            Place::File(file) => Chunk::File {
                file: Arc::clone(file),
                at: CONTENT + at,
                length: left,
            },
        }
    }
}

impl Cache {
    /// Nothing is kept until it is configured. What has ended is removed on `home`.
    pub(super) fn new(home: Option<Handle>, clock: Clock, metrics: Arc<MediaMetrics>) -> Arc<Self> {
        let cache = Arc::new(Self {
            clock,
            tally: Arc::new(Tally {
                metrics,
                failures: Throttle::default(),
            }),
            memory: Mutex::new(Lru::new(0)),
            refused: Mutex::new(Lru::new(MOST_REFUSED)),
            disk: ArcSwapOption::empty(),
            home,
        });
        if let Some(home) = &cache.home {
            home.spawn(sweep(Arc::downgrade(&cache)));
        }
        cache
    }

    /// Follows the configuration. A directory is looked through in the background.
    pub(super) fn configure(&self, media: &config::Media, appid: &AppId) {
        self.in_memory(|memory| {
            let surplus = memory.resize(media.memory_cache_size);
            self.tally
                .metrics
                .evicted(Tier::Memory, Eviction::Size, surplus.len());
        });
        let capacity = media.cache_size;
        let known = self.disk.load_full();
        match (&media.cache_dir, known) {
            (None, _) => {
                self.disk.store(None);
                self.tally.metrics.holds(Tier::Disk, 0, 0);
            }
            (Some(directory), Some(disk)) if disk.directory() == directory => {
                self.in_background(move || disk.resize(capacity));
            }
            (Some(directory), _) => {
                let disk = Arc::new(Disk::new(directory, capacity, &self.tally));
                self.disk.store(Some(Arc::clone(&disk)));
                let (appid, now) = (appid.clone(), self.clock.now());
                self.in_background(move || disk.scan(appid.as_str(), now));
            }
        }
    }

    fn in_background(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(home) = &self.home {
            home.spawn_blocking(work);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn metrics(&self) -> &MediaMetrics {
        &self.tally.metrics
    }

    /// A medium that can be had without waiting.
    pub(super) fn at_hand(&self, key: &Key) -> Option<(Arc<Stored>, Served)> {
        let now = self.now();
        let in_memory = self.in_memory(|memory| memory.get(key, now).cloned());
        if let Some(stored) = in_memory {
            return Some((stored, Served::Memory));
        }
        let disk = self.disk.load();
        let stored = disk.as_ref()?.at_hand(key, now)?;
        Some((stored, Served::Disk))
    }

    /// A medium on the disk. A small one is in memory from now on.
    pub(super) async fn find(&self, appid: &AppId, id: &MediaId) -> Option<Arc<Stored>> {
        let disk = self.disk.load_full()?;
        let key = Key::of(appid, id);
        let (appid, media_id, now) = (appid.clone(), id.clone(), self.now());
        let has_room = self.memory_takes(SMALL);
        let directory = disk.directory().to_owned();
        let finding = move || {
            let found = disk.find(appid.as_str(), media_id.as_str(), now);
            match found {
                Some(found) if has_room && found.length() <= SMALL => loaded(&found).map(Some),
                found => Ok(found),
            }
        };
        let found = self.aside(Operation::Read, &directory, finding).await;
        let stored = found.flatten()?;
        if let Place::Memory(_) = stored.place {
            self.remember(key, &stored);
        }
        Some(stored)
    }

    /// Whether a medium of that length could be kept; of any, if nobody knows how long it is.
    pub(super) fn takes(&self, length: Option<u64>) -> bool {
        let length = length.unwrap_or_default();
        let disk = self.disk.load();
        self.memory_takes(length) || disk.as_ref().is_some_and(|disk| disk.has_room_for(length))
    }

    fn memory_takes(&self, length: u64) -> bool {
        length <= SMALL && self.in_memory(|memory| length + OVERHEAD <= memory.capacity())
    }

    /// A file for a medium that is coming, if it could be kept; `None` also if the disk fails.
    pub(super) async fn draft(&self, length: Option<u64>) -> Option<Draft> {
        let disk = self.disk.load_full()?;
        if !disk.has_room_for(length.unwrap_or_default()) {
            return None;
        }
        let directory = disk.directory().to_owned();
        self.aside(Operation::Write, &directory, move || disk.draft())
            .await
    }

    /// Keeps a medium that has been written.
    pub(super) async fn keep_file(&self, draft: Draft, appid: &AppId, id: &MediaId, card: &Card) {
        let Some(disk) = self.disk.load_full() else {
            return;
        };
        let (label, now) = (label(appid, id, card), self.now());
        let directory = disk.directory().to_owned();
        let keeping = move || disk.keep(draft, &label, now).map(drop);
        self.aside(Operation::Write, &directory, keeping).await;
    }

    /// Keeps a medium that is small.
    pub(super) async fn keep_small(&self, bytes: &Bytes, appid: &AppId, id: &MediaId, card: &Card) {
        let stored = Arc::new(Stored {
            card: card.clone(),
            place: Place::Memory(bytes.clone()),
        });
        self.remember(Key::of(appid, id), &stored);
        let Some(disk) = self.disk.load_full() else {
            return;
        };
        if !disk.has_room_for(bytes.len() as u64) {
            return;
        }
        let (label, now, bytes) = (label(appid, id, card), self.now(), bytes.clone());
        let directory = disk.directory().to_owned();
        let writing = move || disk.write(&label, &bytes, now);
        self.aside(Operation::Write, &directory, writing).await;
    }

    fn remember(&self, key: Key, stored: &Arc<Stored>) {
        let bytes = stored.length() + OVERHEAD;
        if !self.memory_takes(stored.length()) {
            return;
        }
        let (now, ends_at) = (self.now(), stored.card.ends_at());
        self.in_memory(|memory| {
            let ended = memory.expire(now);
            let surplus = memory.insert(key, Arc::clone(stored), bytes, ends_at);
            let metrics = self.metrics();
            metrics.evicted(Tier::Memory, Eviction::Expired, ended.len());
            metrics.evicted(Tier::Memory, Eviction::Size, surplus.len());
        });
    }

    /// What WeChat has said lately of a medium that it does not know.
    pub(super) fn refusal(&self, key: &Key) -> Option<Error> {
        let now = self.now();
        let mut refused = lock(&self.refused);
        refused.get(key, now).cloned()
    }

    /// Remembers that WeChat knows no such medium, so that who asks on and on does not use up the day's calls.
    pub(super) fn refuse(&self, key: Key, error: &Error) {
        let now = self.now();
        let mut refused = lock(&self.refused);
        refused.expire(now);
        refused.insert(key, error.clone(), 1, now.plus(REFUSED_FOR));
    }

    /// Counts and tells a failure of the disk.
    pub(super) fn failed(&self, place: &Path, error: &io::Error) {
        self.tally.failed(Operation::Write, place, error);
    }

    /// Does what may wait for the disk, unless that takes too long.
    async fn aside<T: Send + 'static>(
        &self,
        operation: Operation,
        place: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        match within(files::aside(work)).await {
            Ok(done) => Some(done),
            Err(error) => {
                self.tally.failed(operation, place, &error);
                None
            }
        }
    }

    fn expire(&self) {
        let now = self.now();
        self.in_memory(|memory| {
            let ended = memory.expire(now);
            self.metrics()
                .evicted(Tier::Memory, Eviction::Expired, ended.len());
        });
        lock(&self.refused).expire(now);
        if let Some(disk) = self.disk.load_full() {
            self.in_background(move || disk.expire(now));
        }
    }

    fn in_memory<T>(&self, look: impl FnOnce(&mut Lru<Arc<Stored>>) -> T) -> T {
        let mut memory = lock(&self.memory);
        let before = memory.bytes();
        let seen = look(&mut memory);
        if memory.bytes() != before {
            self.metrics()
                .holds(Tier::Memory, memory.bytes(), memory.len());
        }
        seen
    }
}

impl Tally {
    fn failed(&self, operation: Operation, place: &Path, error: &io::Error) {
        self.metrics.failed(operation);
        let cause = (operation, error.kind());
        if let Some(suppressed) = self.failures.pass(cause, Instant::now()) {
            let place = place.display();
            tracing::warn!(%place, %error, suppressed, "media cannot be kept on the disk as they should be; they are served all the same");
        }
    }
}

/// What `work` comes to, if it does in time. It goes on in any case, for nobody can stop it.
pub(super) async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(DISK_PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn sweep(cache: Weak<Cache>) {
    let mut times = tokio::time::interval(SWEEP);
    loop {
        times.tick().await;
        match cache.upgrade() {
            Some(cache) => cache.expire(),
            None => return,
        }
    }
}

/// What is in a file, in memory.
fn loaded(found: &Arc<Stored>) -> io::Result<Arc<Stored>> {
    let Place::File(file) = &found.place else {
        return Ok(Arc::clone(found));
    };
    let mut bytes = vec![0; usize::try_from(found.length()).unwrap_or_default()];
    file.read_exact_at(&mut bytes, CONTENT)?;
    Ok(Arc::new(Stored {
        card: found.card.clone(),
        place: Place::Memory(Bytes::from(bytes)),
    }))
}

fn label(appid: &AppId, id: &MediaId, card: &Card) -> Label {
    Label {
        appid: appid.as_str().to_owned(),
        media_id: id.as_str().to_owned(),
        card: card.clone(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
