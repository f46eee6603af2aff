//! Media on their way from WeChat: out of the cache, or as they come.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::cache::{Cache, Card, Key, Stored};
use super::fill::{Fills, Growth, Opening, Order};
use super::spool::Room;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{AppId, MediaId};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::resilience::BufferBudget;
use crate::telemetry::media::{MediaMetrics, Served};
use crate::wechat::media::LIFE;

/// What is known of media that outlives a reload.
pub(crate) struct Memory {
    cache: Arc<Cache>,
    fills: Arc<Fills>,
}

/// What fetches media, for one app.
pub(crate) struct Downloads {
    appid: AppId,
    gateway: Arc<Gateway>,
    video_hosts: Arc<[String]>,
    room: Room,
    cache: Arc<Cache>,
    fills: Arc<Fills>,
}

/// A medium whose head is known.
pub(crate) struct Medium {
    pub(crate) facts: Facts,
    source: Source,
}

enum Source {
    Here(Arc<Stored>),
    Coming(Arc<Growth>),
}

/// What is known of a medium.
pub(crate) struct Facts {
    /// By what it holds, whatever WeChat says.
    pub(crate) content_type: &'static str,
    pub(crate) length: Option<u64>,
    /// Strong, with its quotes.
    pub(crate) etag: String,
    /// What WeChat calls it.
    pub(crate) name: Option<String>,
    /// How long ago it came from WeChat.
    pub(crate) age: Duration,
    /// From then until it is gone.
    pub(crate) lifetime: Duration,
    pub(crate) found: Found,
    /// Whether it is kept.
    pub(crate) stored: bool,
}

/// Whether WeChat was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Hit,
    Miss,
    /// It was, for somebody else.
    Collapsed,
}

/// Bytes of a medium.
pub(crate) enum Chunk {
    Bytes(Bytes),
    File {
        file: Arc<File>,
        at: u64,
        length: u64,
    },
    End,
}

impl Memory {
    /// Media are fetched on `home`.
    pub(crate) fn new(home: Option<Handle>, clock: Clock, metrics: Arc<MediaMetrics>) -> Self {
        Self {
            cache: Cache::new(home.clone(), clock, metrics),
            fills: Arc::new(Fills::new(home)),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(None, Clock::default(), Arc::default())
    }
}

impl Downloads {
    /// As the configuration wants it; the cache follows.
    pub(crate) fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        memory: &Memory,
        budget: &BufferBudget,
    ) -> Self {
        let media = &config.media;
        memory.cache.configure(media, &config.app.appid);
        let limit = config.inbound.buffer_limit;
        Self {
            appid: config.app.appid.clone(),
            gateway,
            video_hosts: media.video_hosts.clone().into(),
            room: Room::new(media.cache_dir.as_deref(), budget, limit),
            cache: Arc::clone(&memory.cache),
            fills: Arc::clone(&memory.fills),
        }
    }

    /// A medium: WeChat has begun to send it, or it is here.
    ///
    /// # Errors
    /// If WeChat does not know it, or cannot be asked.
    pub(crate) async fn open(&self, id: &MediaId) -> Result<Medium, Error> {
        let key = Key::of(&self.appid, id);
        let metrics = self.cache.metrics();
        if let Some((stored, served)) = self.cache.at_hand(&key) {
            metrics.served(served);
            return Ok(self.medium_here(key, stored));
        }
        if let Some(refusal) = self.cache.refusal(&key) {
            return Err(refusal);
        }
        let (waiting, was_asked) = self.fills.join(key, || self.order(id));
        let opened = waiting.open().await;
        let (served, found) = match (&opened, was_asked) {
            (Ok((Opening::Here(_, served), _)), _) => (*served, Found::Hit),
            (_, true) => (Served::Collapsed, Found::Collapsed),
            (_, false) => (Served::Miss, Found::Miss),
        };
        metrics.served(served);
        Ok(match opened? {
            (Opening::Here(stored, _), _) => self.medium_here(key, stored),
            (Opening::Coming { card, is_kept }, growth) => {
                let length = card.length.or_else(|| growth.whole());
                Medium {
                    facts: self.facts(key, &card, length, found, is_kept),
                    source: Source::Coming(growth),
                }
            }
        })
    }

    pub(super) fn order(&self, id: &MediaId) -> Order {
        Order {
            appid: self.appid.clone(),
            id: id.clone(),
            gateway: Arc::clone(&self.gateway),
            video_hosts: Arc::clone(&self.video_hosts),
            cache: Arc::clone(&self.cache),
            room: self.room.clone(),
        }
    }

    fn medium_here(&self, key: Key, stored: Arc<Stored>) -> Medium {
        let length = Some(stored.length());
        Medium {
            facts: self.facts(key, &stored.card, length, Found::Hit, true),
            source: Source::Here(stored),
        }
    }

    fn facts(
        &self,
        key: Key,
        card: &Card,
        length: Option<u64>,
        found: Found,
        stored: bool,
    ) -> Facts {
        Facts {
            content_type: card.content_type,
            length,
            etag: format!("\"{key}\""),
            name: card.name.clone(),
            age: self.cache.now().since(card.came_at),
            lifetime: LIFE,
            found,
            stored,
        }
    }
}

impl Medium {
    /// What is there from `at` on, waiting until something is.
    ///
    /// # Errors
    /// If WeChat broke off.
    pub(crate) async fn read(&self, at: u64) -> Result<Chunk, Error> {
        match &self.source {
            Source::Here(stored) => Ok(stored.chunk(at)),
            Source::Coming(growth) => growth.read(at).await,
        }
    }
}
