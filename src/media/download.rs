//! Having media: from memory, from the disk, or from WeChat, and then once for all who ask at the same time.
//!
//! Whoever asks first starts a task that looks on the disk and then at WeChat, and stores what it finds; all others join it,
//! on whichever thread they are. It goes on without them, so a phone that gives up wastes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::Room;
use super::cache::{Body, Cache, Kept, Key, Name};
use super::fill::{Fill, Head, Known};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};
use crate::domain::{AppId, MediaId};
use crate::error::Error;
use crate::gateway::{Films, Gateway, Memory};
use crate::resilience::{Lru, lock};
use crate::telemetry::carried;
use crate::telemetry::media::{Lookup, MediaMetrics};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{self, Span, Tracing};

/// How long it is believed that WeChat does not have a medium.
const GONE_FOR: Duration = Duration::from_secs(10);
/// Of how many that is remembered.
const MOST_GONE: u64 = 1_000;
/// WeChat's word for it.
const NO_SUCH_MEDIUM: i64 = 40007;
/// How many media may be on their way. They go on without whoever asked, so nothing else bounds them.
const MOST_FLIGHTS: usize = 1_000;

/// What is known of media that outlives a reload.
pub(crate) struct Keep {
    cache: ArcSwap<Cache>,
    /// Guards the map, for a look or a change; held before `gone` where both are.
    flights: Mutex<HashMap<Key, Arc<Fill>>>,
    gone: Mutex<Lru<Key, (Timestamp, Error)>>,
    metrics: Arc<MediaMetrics>,
    home: Option<Handle>,
    clock: Clock,
    tracing: Tracing,
}

/// Media of one app.
pub(crate) struct Downloads {
    keep: Arc<Keep>,
    way: Arc<Way>,
    appid: AppId,
}

/// The way to WeChat.
struct Way {
    gateway: Arc<Gateway>,
    films: Films,
    room: Room,
    /// How long nothing may happen.
    patience: Duration,
}

/// A medium that can be read.
pub(crate) struct Medium {
    pub(crate) facts: Facts,
    source: Source,
}

enum Source {
    Kept(Body),
    Coming(Arc<Fill>),
}

/// What is known of a medium.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// By its content.
    pub(crate) content_type: &'static str,
    /// `None` as long as WeChat does not say it.
    pub(crate) length: Option<u64>,
    /// Strong, and with its quotes.
    pub(crate) etag: String,
    /// What WeChat calls the file.
    pub(crate) name: Option<String>,
    /// How long ago it came from WeChat.
    pub(crate) age: Duration,
    pub(crate) found: Found,
    /// Whether it will be here the next time.
    pub(crate) stored: bool,
}

/// Where a medium was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Here.
    Hit,
    /// At WeChat.
    Miss,
    /// On its way, because somebody else asked before.
    Collapsed,
}

/// Some of a medium.
pub(crate) enum Chunk {
    Bytes(Bytes),
    /// These bytes of a file.
    File {
        file: Arc<File>,
        at: u64,
        length: u64,
    },
    End,
}

/// Ends a flight, however that comes about.
struct Landing {
    keep: Arc<Keep>,
    key: Key,
    fill: Arc<Fill>,
}

impl Keep {
    /// Nothing is kept yet. Tasks run on the home of the connections to WeChat.
    pub(crate) fn new(settings: &config::Media, wechat: &Memory, metrics: &Metrics) -> Arc<Self> {
        let metrics = Arc::new(MediaMetrics::register(metrics));
        let clock = wechat.clock().clone();
        let cache = Cache::new(settings, clock.clone(), Arc::clone(&metrics));
        let keep = Arc::new(Self {
            cache: ArcSwap::from_pointee(cache),
            flights: Mutex::default(),
            gone: Mutex::new(Lru::new(MOST_GONE)),
            metrics,
            home: wechat.home().cloned(),
            clock,
            tracing: wechat.tracing().clone(),
        });
        keep.look_around();
        keep
    }

    /// Follows a change of configuration. What the memory held is forgotten if it changes how media are kept.
    pub(crate) fn configure(&self, settings: &config::Media) {
        if self.cache.load().is_as(settings) {
            return;
        }
        let cache = Cache::new(settings, self.clock.clone(), Arc::clone(&self.metrics));
        self.cache.store(Arc::new(cache));
        self.look_around();
    }

    fn look_around(&self) {
        let cache = self.cache.load_full();
        // Without a home there is nobody who could wait for a disk, as in tests that start no sidecar.
        if let Some(home) = &self.home {
            home.spawn(async move { cache.look_around().await });
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &self.home {
            Some(home) => drop(home.spawn(work)),
            None => drop(tokio::spawn(work)),
        }
    }

    /// Why a medium is not there, if WeChat has just said so.
    fn why_gone(&self, key: &Key) -> Option<Error> {
        let mut gone = lock(&self.gone);
        let (until, error) = gone.get(key)?;
        (*until > self.clock.now()).then(|| error.clone())
    }

    fn remember_gone(&self, key: Key, error: &Error) {
        let is_it = error
            .fault()
            .is_some_and(|fault| fault.meaning.code == NO_SUCH_MEDIUM);
        if is_it {
            let until = self.clock.now().plus(GONE_FOR);
            lock(&self.gone).put(key, (until, error.clone()), 1);
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<Fill>>> {
        lock(&self.flights)
    }
}

impl Downloads {
    pub(super) fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        wechat: &Memory,
        room: Room,
        keep: Arc<Keep>,
    ) -> Self {
        keep.configure(&config.media);
        Self {
            keep,
            way: Arc::new(Way {
                gateway,
                films: Films::new(&config.media.video_hosts, &config.wechat, wechat),
                room,
                patience: config.wechat.timeout,
            }),
            appid: config.app.appid.clone(),
        }
    }

    /// Has a medium, as far as to know what it is.
    ///
    /// # Errors
    /// If WeChat does not have it, or cannot be asked.
    pub(crate) async fn open(&self, id: &MediaId) -> Result<Medium, Error> {
        let (key, keep) = (Key::of(&self.appid, id), &self.keep);
        if let Some(kept) = keep.cache.load().at_hand(&key) {
            keep.metrics.looked_up(place(&kept));
            return Ok(self.kept(&key, kept));
        }
        let (fill, found) = self.join_or_start(key, id)?;
        let known = fill.known().await?;
        keep.metrics.looked_up(match (&known, found) {
            (Known::Kept(kept), _) => place(kept),
            (Known::Coming { .. }, Found::Collapsed) => Lookup::Collapsed,
            (Known::Coming { .. }, _) => Lookup::Miss,
        });
        match known {
            Known::Kept(kept) => Ok(self.kept(&key, kept)),
            Known::Coming { head, is_framed } => {
                let stored = is_framed && keep.cache.load().would_keep(head.length);
                Ok(Medium {
                    facts: self.facts(&key, head, found, stored),
                    source: Source::Coming(fill),
                })
            }
        }
    }

    fn join_or_start(&self, key: Key, id: &MediaId) -> Result<(Arc<Fill>, Found), Error> {
        let mut flights = self.keep.flights();
        if let Some(fill) = flights.get(&key) {
            return Ok((Arc::clone(fill), Found::Collapsed));
        }
        // A flight remembers this before it is over, so nothing slips in between.
        if let Some(error) = self.keep.why_gone(&key) {
            return Err(error);
        }
        if flights.len() >= MOST_FLIGHTS {
            return Err(Error::overloaded((
                "too many media are on their way from WeChat",
                "正在从微信下载的媒体文件过多",
            )));
        }
        let fill = Arc::new(Fill::new());
        flights.insert(key, Arc::clone(&fill));
        drop(flights);
        let landing = Landing {
            keep: Arc::clone(&self.keep),
            key,
            fill: Arc::clone(&fill),
        };
        let way = Arc::clone(&self.way);
        let name = Name {
            appid: self.appid.clone(),
            media_id: id.clone(),
        };
        self.keep
            .spawn(carried(async move { landing.fly(&way, name).await }));
        Ok((fill, Found::Miss))
    }

    fn kept(&self, key: &Key, kept: Kept) -> Medium {
        Medium {
            facts: self.facts(key, kept.head, Found::Hit, true),
            source: Source::Kept(kept.body),
        }
    }

    fn facts(&self, key: &Key, head: Head, found: Found, stored: bool) -> Facts {
        Facts {
            content_type: head.content_type,
            length: head.length,
            etag: key.etag(),
            name: head.name,
            age: self.keep.clock.now().since(head.fetched_at),
            found,
            stored,
        }
    }
}

impl Landing {
    /// Finds the medium and stores it. Only then is the flight over, so whoever comes later finds it stored. If nothing is to
    /// be stored, or it fails, the flight is over before anybody hears of that, so whoever tries again does.
    async fn fly(self, way: &Way, name: Name) {
        let (keep, fill) = (&self.keep, &self.fill);
        let cache = keep.cache.load_full();
        // It may have been stored since whoever started this looked.
        let kept = match cache.at_hand(&self.key) {
            Some(kept) => Some(kept),
            None => cache.on_disk(&name).await,
        };
        if let Some(kept) = kept {
            return fill.is_kept(kept);
        }
        let fetched_at = keep.clock.now();
        let (fetch, began) = (keep.tracing.begin(), Instant::now());
        let fetching = way
            .gateway
            .download(&name.media_id, &way.films, way.patience);
        let taken = match fetch.around(fetching).await {
            Ok(fetched) => fill.take_in(fetched, fetched_at, &cache, &way.room).await,
            Err(error) => Err(error),
        };
        keep.tracing.finish(&fetch, || {
            let failed = taken.as_ref().err().map(|error| error.kind().row().slug);
            Span::new(trace::Kind::Internal, "media fetch", began.elapsed()).with_error(failed)
        });
        match taken {
            Ok((head, whole)) => {
                // Another than at the start, if the configuration has changed.
                let cache = keep.cache.load_full();
                match whole.filter(|_| cache.would_keep(head.length)) {
                    None => {
                        self.is_over();
                        fill.end(Ok(()));
                    }
                    Some(whole) => {
                        cache.keep_in_memory(&name, &head, &whole);
                        // Nobody need wait for the disk.
                        fill.end(Ok(()));
                        cache.keep_on_disk(&name, &head, whole).await;
                    }
                }
            }
            Err(error) => {
                keep.remember_gone(self.key, &error);
                self.is_over();
                fill.end(Err(error));
            }
        }
    }

    fn is_over(&self) {
        let mut flights = self.keep.flights();
        // The next one may have begun.
        if flights
            .get(&self.key)
            .is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        {
            flights.remove(&self.key);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.is_over();
        // If it was cut off, by a panic or because the sidecar ends, nobody may wait for it.
        self.fill.abandon();
    }
}

impl Medium {
    /// What there is from `at` on, once there is something.
    ///
    /// # Errors
    /// If WeChat broke off before.
    pub(crate) async fn read(&self, at: u64) -> Result<Chunk, Error> {
        match &self.source {
            Source::Coming(fill) => fill.read(at).await,
            Source::Kept(Body::Memory(bytes)) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                Ok(match bytes.len().checked_sub(at) {
                    None | Some(0) => Chunk::End,
                    Some(_) => Chunk::Bytes(bytes.slice(at..)),
                })
            }
            Source::Kept(Body::Disk(file, beginning)) => {
                let length = self.facts.length.unwrap_or_default();
                Ok(match length.checked_sub(at) {
                    None | Some(0) => Chunk::End,
                    Some(left) => Chunk::File {
                        file: Arc::clone(file),
                        at: beginning + at,
                        length: left,
                    },
                })
            }
        }
    }
}

fn place(kept: &Kept) -> Lookup {
    match &kept.body {
        Body::Memory(_) => Lookup::Memory,
        Body::Disk(..) => Lookup::Disk,
    }
}
