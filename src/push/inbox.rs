//! The inbox: what has been acknowledged and is not delivered yet.
//!
//! Of one process, in a journal or in memory ([`local`]), or in a Redis that replicas share ([`shared`]). An enum and no
//! trait object: both kinds are known.

mod disk;
mod journal;
mod local;
#[cfg_attr(not(feature = "redis"), path = "inbox/no_shared.rs")]
mod shared;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use super::entry::{Death, Entry};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};
use crate::telemetry::metrics::Metrics;
pub(crate) use journal::{JournalError, read_only};
use local::Local;
use shared::Shared;

/// Bodies of messages that wait are kept in memory too, as long as all that wait have fewer bytes than this.
const KEPT_IN_MEMORY: u64 = 8 * 1024 * 1024;
/// A message and what makes it the same as another.
pub(crate) struct Put {
    pub(crate) entry: Arc<Entry>,
    pub(crate) identity: [u8; 16],
    /// How long it may come again.
    pub(crate) window: Duration,
    /// What may come with no other message, and how long.
    pub(crate) nonce: Option<([u8; 16], Duration)>,
    /// Who waits for the app's answer.
    pub(crate) answer: Option<watch::Sender<Option<Bytes>>>,
}

/// Where the app's answer to a message goes.
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "all who wait are here")
)]
pub(crate) enum AnswerTo {
    /// To somebody in this process.
    Here(watch::Sender<Option<Bytes>>),
    /// To whoever asks for the answer to the message of this identity.
    Elsewhere([u8; 16], UnboundedSender<([u8; 16], Bytes)>),
}

/// What has become of a message that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is safe, under this number.
    New(u64),
    /// It was here before.
    Duplicate,
    /// What came with it has come with another message.
    Replayed,
}

/// Why a message is not safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotStored {
    /// As many wait as may.
    #[error("as many messages wait as max_waiting and max_bytes allow")]
    Full,
    /// The journal or Redis cannot be written to.
    #[error("it cannot be made safe: {0}")]
    Failed(String),
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

/// A message in a list.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) number: u64,
    pub(crate) entry: Entry,
}

impl Letter {
    /// As it is listed: what is known of it, and itself under `message`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut listed = serde_json::to_value(&self.entry.head).unwrap_or_default();
        if let Some(members) = listed.as_object_mut() {
            members.insert("number".to_owned(), self.number.into());
            members.remove("lane");
            members.remove("content");
            let message = serde_json::from_slice(&self.entry.body).unwrap_or_default();
            members.insert("message".to_owned(), message);
        }
        listed
    }
}

/// Which letters are meant.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    All,
    Id(String),
}

/// A message that is to be delivered.
pub(crate) struct Waiting {
    pub(crate) number: u64,
    pub(crate) lane: u64,
    /// When it began to wait.
    pub(crate) queued: Timestamp,
    /// Itself, if there was room to keep it in memory.
    pub(crate) entry: Option<Arc<Entry>>,
    pub(crate) answer: Option<AnswerTo>,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// How often the app said that it is wrong.
    pub(crate) refusals: u32,
}

/// What the delivery is told.
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "nobody else delivers")
)]
pub(crate) enum News {
    /// There is a message.
    Arrived(Waiting),
    /// There is no such message any more.
    Dropped(u64),
    /// Others deliver from now on what is of these lanes: those that leave `rest` when divided by `of`.
    Left {
        /// How many parts there are.
        of: u64,
        /// The part that is meant.
        rest: u64,
    },
}

/// What the rest of the sidecar has of an inbox, of whichever kind.
struct Outlet {
    /// Guards the end of the channel until somebody takes it.
    news: Mutex<Option<UnboundedReceiver<News>>>,
    seen: Arc<Seen>,
    clock: Clock,
}

impl Outlet {
    fn new(news: UnboundedReceiver<News>, seen: Arc<Seen>, clock: Clock) -> Self {
        Self {
            news: Mutex::new(Some(news)),
            seen,
            clock,
        }
    }
}

/// The inbox, as all threads see it.
#[cfg_attr(
    feature = "redis",
    expect(clippy::large_enum_variant, reason = "there is one inbox")
)]
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "a shared one is never made")
)]
pub(crate) enum Inbox {
    /// Of this process.
    Local(Local),
    /// In a Redis that replicas share.
    Shared(Shared),
}

impl AnswerTo {
    pub(crate) fn tell(self, answer: Bytes) {
        match self {
            Self::Here(to) => {
                to.send_replace(Some(answer));
            }
            // If nobody passes answers on any more, WeChat is told `success`.
            Self::Elsewhere(identity, to) => drop(to.send((identity, answer))),
        }
    }
}

/// What metrics tell of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    waiting: AtomicUsize,
    bytes: AtomicU64,
    dead: AtomicUsize,
    failing: AtomicBool,
    /// When the oldest began to wait, in Unix milliseconds; 0 if nothing waits.
    oldest: AtomicI64,
}

/// Messages by number; those that are gone have none.
pub(crate) type Fetched = Result<Vec<(u64, Option<Entry>)>, String>;

impl Inbox {
    /// Opens the journal and starts its thread, or prepares the way to Redis. What waits will be delivered.
    ///
    /// # Errors
    /// If the journal cannot be opened, or the thread not be made.
    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "what is of this process needs neither")
    )]
    pub(crate) fn open(
        push: &config::Push,
        config: &Config,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, JournalError> {
        match &config.store {
            #[cfg(feature = "redis")]
            config::Store::Redis(redis) => Ok(Self::Shared(Shared::new(
                redis, push, config, clock, metrics,
            ))),
            config::Store::Memory => Local::open(push, clock).map(Self::Local),
        }
    }

    /// Keeps what has to go on in the background, for as long as `delivering` takes.
    pub(crate) async fn keep(&self, delivering: impl Future<Output = ()>) {
        match self {
            Self::Local(_) => delivering.await,
            Self::Shared(shared) => shared.keep(delivering).await,
        }
    }

    /// No more is to be delivered here: others may have it.
    pub(crate) fn retire(&self) {
        match self {
            Self::Local(_) => {}
            Self::Shared(shared) => shared.retire(),
        }
    }

    /// Follows a change of configuration: what is written from now on is sealed with its keys.
    pub(crate) fn rekey(&self, config: &Config) {
        match self {
            Self::Local(_) => {}
            Self::Shared(shared) => shared.rekey(config),
        }
    }

    /// Whether what waits survives the process.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Local(local) => local.is_durable(),
            Self::Shared(_) => true,
        }
    }

    /// Why messages are not acknowledged, if they are not.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        let failing = self.seen().is_failing();
        failing.then_some(match self {
            Self::Local(_) => "the journal cannot be written to",
            Self::Shared(_) => "Redis is away",
        })
    }

    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.outlet().seen)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.outlet().clock
    }

    /// Where arrivals are told; it can be taken once.
    pub(crate) fn news(&self) -> Option<UnboundedReceiver<News>> {
        let mut news = self
            .outlet()
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        news.take()
    }

    fn outlet(&self) -> &Outlet {
        match self {
            Self::Local(local) => local.outlet(),
            Self::Shared(shared) => shared.outlet(),
        }
    }

    /// Makes a message safe. It is, when this has returned `New`.
    pub(crate) async fn put(&self, put: Put) -> Result<Accepted, NotStored> {
        match self {
            Self::Local(local) => local.put(put).await,
            Self::Shared(shared) => shared.put(put).await,
        }
    }

    /// The app has a message.
    pub(crate) fn settle(&self, number: u64) {
        match self {
            Self::Local(local) => local.settle(number),
            Self::Shared(shared) => shared.settle(number),
        }
    }

    /// The app will not have a message.
    pub(crate) fn bury(&self, number: u64, death: Death) {
        match self {
            Self::Local(local) => local.bury(number, death),
            Self::Shared(shared) => shared.bury(number, death),
        }
    }

    /// The attempt with a message has ended, and it waits again.
    pub(crate) fn rest(&self, number: u64) {
        match self {
            Self::Local(_) => {}
            Self::Shared(shared) => shared.rest(number),
        }
    }

    /// Has dead letters delivered again; how many.
    pub(crate) async fn revive(&self, which: Which) -> Result<usize, String> {
        match self {
            Self::Local(local) => local.revive(which).await,
            Self::Shared(shared) => shared.revive(which).await,
        }
    }

    /// Throws dead letters away, or the messages of one id; how many.
    pub(crate) async fn drop_letters(&self, which: Which) -> Result<usize, String> {
        match self {
            Self::Local(local) => local.drop_letters(which).await,
            Self::Shared(shared) => shared.drop_letters(which).await,
        }
    }

    /// Messages that are not in memory, immediately before they are delivered.
    pub(crate) async fn fetch(&self, numbers: Vec<u64>) -> Fetched {
        match self {
            Self::Local(local) => local.fetch(numbers).await,
            Self::Shared(shared) => shared.fetch(numbers).await,
        }
    }

    /// Letters from a number on.
    pub(crate) async fn list(
        &self,
        dead: bool,
        from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, String> {
        match self {
            Self::Local(local) => local.list(dead, from, most).await,
            Self::Shared(shared) => shared.list(dead, from, most).await,
        }
    }
}

impl Seen {
    /// How many messages wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many dead letters there are.
    pub(crate) fn dead(&self) -> usize {
        self.dead.load(Ordering::Relaxed)
    }

    /// Whether the journal cannot be written to.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// When the oldest message began to wait.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let millis = u64::try_from(self.oldest.load(Ordering::Relaxed)).ok()?;
        (millis > 0).then(|| Timestamp::from_millis(millis))
    }

    /// The delivery knows, because it knows what waits longest.
    pub(crate) fn set_oldest(&self, oldest: Option<Timestamp>) {
        let millis = oldest.map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        self.oldest.store(millis, Ordering::Relaxed);
    }
}
