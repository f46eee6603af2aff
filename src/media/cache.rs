//! Media that are kept: the small and the hot in memory, all of them on the disk if there is a directory for that.
//!
//! A media_id never changes what it stands for, so nothing here is ever asked for anew; it is gone after the three days
//! that WeChat would have kept it. The key has the AppID in it: a directory may be shared, media are not.

mod disk;

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use self::disk::Disk;
pub(super) use self::disk::Draft;
use super::fill::{Head, MOST, SMALL, Whole};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::crypto;
use crate::domain::{AppId, MediaId};
use crate::files;
use crate::resilience::Lru;
use crate::telemetry::media::{MediaMetrics, Tier};
use crate::telemetry::throttle::Throttle;
use crate::wechat::media::LIFE;

/// What is larger costs less from a file, which the kernel sends by itself, than from memory: 23 µs instead of 34 for 200 KiB.
/// The system keeps it in memory all the same.
const BETTER_ON_DISK: u64 = 64 * 1024;
/// What an entry takes beside its medium, or a little more.
const ENTRY: u64 = 512;

/// What a medium is kept by: a digest of whose it is and what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// A medium that is kept.
#[derive(Clone)]
pub(super) struct Kept {
    /// Its length is known.
    pub(super) head: Head,
    pub(super) body: Body,
}

/// Where it is read.
#[derive(Clone)]
pub(super) enum Body {
    Memory(Bytes),
    /// From this place of a file on.
    Disk(Arc<File>, u64),
}

/// Whose a medium is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) appid: AppId,
    pub(super) media_id: MediaId,
}

/// Both tiers.
pub(super) struct Cache {
    settings: config::Media,
    /// Guards the map, for a look or a change.
    memory: Mutex<Lru<Key, Kept>>,
    disk: Option<Arc<Disk>>,
    clock: Clock,
    metrics: Arc<MediaMetrics>,
    failures: Throttle<&'static str>,
}

impl Name {
    pub(super) fn key(&self) -> Key {
        Key::of(&self.appid, &self.media_id)
    }
}

impl Key {
    pub(super) fn of(appid: &AppId, media_id: &MediaId) -> Self {
        let text = format!("{}/{}", appid.as_str(), media_id.as_str());
        Self(crypto::sha256(text.as_bytes()))
    }

    /// The key in hexadecimal digits.
    pub(super) fn hex(&self) -> String {
        crypto::hex(&self.0)
    }

    /// A strong entity tag, with its quotes.
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", crypto::hex(&self.0[..16]))
    }

    fn of_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

impl Head {
    /// When a medium that was had then is gone.
    fn expires_at(&self) -> Timestamp {
        self.fetched_at.plus(LIFE)
    }
}

impl Cache {
    /// An empty one; what the disk has from before is found as it is asked for, and counted in the background.
    pub(super) fn new(settings: &config::Media, clock: Clock, metrics: Arc<MediaMetrics>) -> Self {
        for tier in [Tier::Memory, Tier::Disk] {
            metrics.holds(tier, 0, 0);
        }
        let disk = settings.cache_dir.as_ref().map(|directory| {
            let disk = Disk::new(directory, settings.cache_size, Arc::clone(&metrics));
            Arc::new(disk)
        });
        Self {
            settings: settings.clone(),
            memory: Mutex::new(Lru::new(settings.memory_cache_size)),
            disk,
            clock,
            metrics,
            failures: Throttle::default(),
        }
    }

    /// Finds out what the disk has from before.
    pub(super) async fn look_around(&self) {
        if let Some(disk) = &self.disk {
            let (disk, now) = (Arc::clone(disk), self.clock.now());
            if let Err(error) = files::aside(move || disk.scan(now)).await {
                self.failed("open", &error);
            }
        }
    }

    /// Whether it keeps media as `settings` say.
    pub(super) fn is_as(&self, settings: &config::Media) -> bool {
        let of = |it: &config::Media| (it.memory_cache_size, it.cache_dir.clone(), it.cache_size);
        of(&self.settings) == of(settings)
    }

    /// Whether a medium of this length will be kept, if the disk does what it should.
    pub(super) fn would_keep(&self, length: Option<u64>) -> bool {
        let length = length.unwrap_or(MOST);
        let on_disk = self.disk.as_ref().is_some_and(|disk| disk.fits(length));
        on_disk || length <= self.most_in_memory()
    }

    /// What can be had without waiting: in memory, or in a file that is open.
    pub(super) fn at_hand(&self, key: &Key) -> Option<Kept> {
        let now = self.clock.now();
        let in_memory = {
            let mut memory = self.memory();
            let found = memory.get(key).cloned();
            match found {
                Some(kept) if kept.head.expires_at() <= now => {
                    memory.remove(key);
                    self.metrics.evicted(Tier::Memory, "expired", 1);
                    self.tell(&memory);
                    None
                }
                found => found,
            }
        };
        in_memory.or_else(|| self.disk.as_ref()?.at_hand(key, now))
    }

    /// What the disk has. If it is small, memory has it too from then on.
    pub(super) async fn on_disk(&self, name: &Name) -> Option<Kept> {
        let disk = self.disk.as_ref()?;
        let (disk, asked, now) = (Arc::clone(disk), name.clone(), self.clock.now());
        let found = files::aside(move || disk.find(&asked, now)).await;
        let kept = match found {
            Ok(kept) => kept?,
            Err(error) => {
                self.failed("read", &error);
                return None;
            }
        };
        let length = kept.head.length.unwrap_or(u64::MAX);
        let (Body::Disk(file, at), true) = (&kept.body, length <= self.most_in_memory()) else {
            return Some(kept);
        };
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        match files::read_at(file, *at, most).await {
            Ok(bytes) if bytes.len() == most => {
                let kept = Kept {
                    body: Body::Memory(bytes),
                    head: kept.head,
                };
                self.remember(name.key(), kept.clone());
                Some(kept)
            }
            _ => Some(kept),
        }
    }

    /// Keeps a medium in memory, if it is there and small enough.
    pub(super) fn keep_in_memory(&self, name: &Name, head: &Head, whole: &Whole) {
        if let Whole::InMemory(bytes) = whole {
            let kept = Kept {
                head: head.clone(),
                body: Body::Memory(bytes.clone()),
            };
            self.remember(name.key(), kept);
        }
    }

    /// Keeps a medium on the disk. What cannot be kept has been served all the same.
    pub(super) async fn keep_on_disk(&self, name: &Name, head: &Head, whole: Whole) {
        let (draft, bytes) = match whole {
            Whole::OnDisk(draft) => (Some(draft), None),
            Whole::InMemory(bytes) => (None, Some(bytes)),
        };
        let Some(disk) = &self.disk else {
            return;
        };
        if head.length.is_none_or(|length| !disk.fits(length)) {
            return;
        }
        let (disk, name, head) = (Arc::clone(disk), name.clone(), head.clone());
        let now = self.clock.now();
        let stored = files::aside(move || {
            let draft = match draft {
                Some(draft) => draft,
                None => disk.draft()?,
            };
            disk.store(draft, bytes.as_deref(), &name, &head, now)
        });
        if let Err(error) = stored.await {
            self.failed("write", &error);
        }
    }

    /// A place for what is too large for memory: one that can be kept, or none with a name if there is no directory.
    pub(super) async fn draft(&self) -> io::Result<Draft> {
        let disk = self.disk.clone();
        files::aside(move || match disk {
            Some(disk) => disk.draft(),
            None => Draft::nameless(&std::env::temp_dir()),
        })
        .await
    }

    /// Tells what a disk did not do. It is asked again the next time.
    pub(super) fn failed(&self, op: &'static str, error: &io::Error) {
        self.metrics.failed(op);
        if let Some(suppressed) = self.failures.pass(op, Instant::now()) {
            tracing::warn!(op, %error, suppressed, "the disk does not keep media; they are served without");
        }
    }

    /// The largest medium that memory has.
    fn most_in_memory(&self) -> u64 {
        let most = self.settings.memory_cache_size.saturating_sub(ENTRY);
        most.min(match self.disk {
            Some(_) => BETTER_ON_DISK,
            None => SMALL,
        })
    }

    fn remember(&self, key: Key, kept: Kept) {
        let length = kept.head.length.unwrap_or(u64::MAX);
        if length > self.most_in_memory() {
            return;
        }
        let now = self.clock.now();
        let mut memory = self.memory();
        let given_up = memory.put(key, kept, ENTRY + length);
        let expired = given_up
            .iter()
            .filter(|(_, kept)| kept.head.expires_at() <= now)
            .count();
        self.metrics.evicted(Tier::Memory, "expired", expired);
        self.metrics
            .evicted(Tier::Memory, "size", given_up.len() - expired);
        self.tell(&memory);
    }

    fn tell(&self, memory: &Lru<Key, Kept>) {
        self.metrics
            .holds(Tier::Memory, memory.len(), memory.weight());
    }

    fn memory(&self) -> MutexGuard<'_, Lru<Key, Kept>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
