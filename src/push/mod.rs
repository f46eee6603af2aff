//! Message push: verify → decrypt → de-duplicate → make safe → acknowledge → deliver.
//!
//! WeChat gives a server five seconds and three tries, and then the message is gone. So it is acknowledged when it is in the
//! journal ([`inbox`]) and not when the app has it; the app gets it as soon as it can, in order for each user, as often as
//! it takes ([`delivery`], [`lanes`]). What is not acknowledged is WeChat's, and what is, is ours.
//!
//! The [`Bus`] outlives reloads; what a reload changes are its [`Settings`].

mod courier;
mod delivery;
mod entry;
mod inbox;
mod lanes;
mod reception;
pub(crate) mod rehearsal;
mod reply;
mod route;
mod shown;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::clock::Clock;
use crate::config::{self, Config, Reply as Who};
use crate::domain::AppId;
use crate::error::{Error, Kind, Side};
use crate::resilience::Recent;
use crate::telemetry::ids::IdSource;
use crate::telemetry::inspector::Inspector;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::push::{InboxSeen, PushMetrics, PushResult};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::trace::Tracing;
use crate::wechat::push::{Format, Message};
use courier::Courier;
use delivery::Delivery;
use entry::Entry;
use inbox::{Accepted, Inbox, NotStored, Put};
pub(crate) use inbox::{JournalError, Letter, Which, read_only};
use reception::{Arrival, Reception, Refused};
use route::Routes;

/// The largest body of a push, in bytes; in the compatible mode a message comes twice, once in base64.
pub(crate) const BODY_LIMIT: u64 = 1024 * 1024;
/// How long the app's reply is waited for, counted from the push's head. WeChat waits five seconds.
const PATIENCE: Duration = Duration::from_millis(4_500);
/// How long a reply is kept for WeChat to ask again.
const REPLY_TTL: Duration = Duration::from_secs(60);
const MOST_REPLIES: u64 = 4_000;
/// The longest body that is looked at for CloudRun's question, in bytes.
const LONGEST_CHECK: usize = 256;
/// When an overloaded inbox may be tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// For how long timestamp and nonce are remembered if pushes may have any age.
const NONCE_WINDOW: Duration = Duration::from_secs(3600);

/// What takes and delivers messages.
pub(crate) struct Bus {
    inbox: Inbox,
    settings: ArcSwap<Settings>,
    metrics: PushMetrics,
    /// Of WeChat's, and of the app's, in the log.
    failures: Throttle<&'static str>,
    /// What the app said to a message that it was waited for, by the message's identity.
    replies: Recent<[u8; 16], watch::Receiver<Option<Bytes>>>,
    annotator: OnceLock<Annotator>,
    tracing: OnceLock<Tracing>,
    inspector: OnceLock<Inspector>,
}

/// What somebody else knows about a message, as a line for the app; asked once, when the message comes. `None` at once if
/// there is nothing to be known.
pub(crate) type Annotator =
    Box<dyn Fn(&AppId, &Message) -> Option<Annotation> + Send + Sync + 'static>;
/// It may have to be waited for, and not for long: WeChat waits meanwhile.
pub(crate) type Annotation = Pin<Box<dyn Future<Output = Option<(&'static str, String)>> + Send>>;

/// What a reload may change.
struct Settings {
    appid: AppId,
    env: String,
    reception: Reception,
    routes: Routes,
    courier: Courier,
    timeout: Duration,
    concurrency: usize,
    retry_cap: Duration,
    retry_for: Duration,
    nonce_window: Duration,
}

/// The request that brings a message.
pub(crate) struct Brought<'a> {
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) began: Instant,
    pub(crate) request_id: &'a str,
    pub(crate) trace: &'a str,
}

impl Bus {
    /// Opens the inbox. What waits in it is delivered once somebody calls [`Bus::deliver`].
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub(crate) fn open(
        push: &config::Push,
        config: &Config,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, JournalError> {
        let inbox = Inbox::open(push, config, clock.clone(), metrics)?;
        let (seen, clock) = (inbox.seen(), clock.clone());
        let (max_waiting, max_bytes) = (push.max_waiting, push.max_bytes);
        let metrics = PushMetrics::register(metrics.registry(), move || InboxSeen {
            waiting: seen.waiting(),
            bytes: seen.bytes(),
            max_waiting,
            max_bytes,
            oldest: seen
                .oldest()
                .map_or(Duration::ZERO, |at| clock.now().since(at)),
            dead: seen.dead(),
            up: !seen.is_failing(),
        });
        Ok(Self {
            inbox,
            settings: ArcSwap::from_pointee(Settings::new(push, config)),
            metrics,
            failures: Throttle::default(),
            replies: Recent::new(MOST_REPLIES, REPLY_TTL),
            annotator: OnceLock::new(),
            tracing: OnceLock::new(),
            inspector: OnceLock::new(),
        })
    }

    /// Has `annotator` asked about each message that comes; the first one that is given.
    pub(crate) fn annotate(&self, annotator: Annotator) {
        let _there_is_one = self.annotator.set(annotator);
    }

    /// Has deliveries be recorded.
    pub(crate) fn trace_by(&self, tracing: Tracing) {
        let _there_is_one = self.tracing.set(tracing);
    }

    /// Follows a change of configuration.
    pub(crate) fn configure(&self, push: &config::Push, config: &Config) {
        self.inbox.rekey(config);
        self.settings.store(Arc::new(Settings::new(push, config)));
    }

    /// Why messages are not acknowledged, if they are not.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        self.inbox.failure()
    }

    /// The handshake (URL 验证): echoes what WeChat sent.
    pub(crate) fn handshake(&self, query: &str) -> Result<Answer, Error> {
        let settings = self.settings.load();
        match settings.reception.handshake(query) {
            Ok(echostr) => Ok(text(echostr)),
            Err(refused) => Err(self.refuse(&refused)),
        }
    }

    /// Takes a message, and says what WeChat is to be told.
    pub(crate) async fn take(&self, brought: Brought<'_>) -> Result<Answer, Error> {
        if is_container_check(brought.body) {
            return Ok(success());
        }
        let settings = self.settings.load_full();
        let now = self.inbox.clock().now();
        let arrival = settings
            .reception
            .receive(brought.query, brought.body, now)
            .map_err(|refused| self.refuse(&refused))?;
        if arrival.message.is_container_check() {
            return Ok(success());
        }
        let began = brought.began;
        let answer = self.keep(&settings, arrival, brought).await;
        if answer.is_ok() {
            self.metrics.acknowledged(began.elapsed());
        }
        answer
    }

    /// Delivers until `leave` ends, and then what is under way; `cut` ends all. There is one who does.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        leave: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) {
        let Some(news) = self.inbox.news() else {
            return;
        };
        let delivery = Delivery {
            bus: Arc::clone(self),
            tracing: self.tracing.get().cloned().unwrap_or_default(),
            ids: Rc::new(IdSource::new()),
        };
        let leave = async {
            leave.await;
            self.inbox.retire();
        };
        self.inbox.keep(delivery.run(news, leave, cut)).await;
    }

    /// Messages that wait, or dead letters, from a number on.
    pub(crate) async fn list(
        &self,
        dead: bool,
        from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, String> {
        self.inbox.list(dead, from, most).await
    }

    /// Has dead letters delivered again; how many.
    pub(crate) async fn revive(&self, which: Which) -> Result<usize, String> {
        self.inbox.revive(which).await
    }

    /// Throws dead letters away, or messages that wait, if they are named; how many.
    pub(crate) async fn throw_away(&self, which: Which) -> Result<usize, String> {
        self.inbox.drop_letters(which).await
    }

    async fn keep(
        &self,
        settings: &Settings,
        arrival: Arrival,
        brought: Brought<'_>,
    ) -> Result<Answer, Error> {
        let Arrival {
            message,
            format,
            nonce,
            seal,
            slots: (token, key),
        } = arrival;
        self.metrics.secrets_used(token, key);
        let now = self.inbox.clock().now();
        let (identity, window) = (message.identity(), message.window());
        let about = reply::About::new(&message);
        let msg_type = message.msg_type().to_owned();
        let annotation = self
            .annotator
            .get()
            .and_then(|annotator| annotator(&settings.appid, &message));
        let mut entry = Entry::new(message, format, now, brought.request_id, brought.trace);
        if let Some(annotation) = annotation
            && let Some((name, value)) = annotation.await
        {
            entry.head.lines.push((name.to_owned(), value));
        }
        let waits = settings.routes.of(&entry.head).reply == Who::Wait;
        let (answer, reply) = watch::channel(None);
        let entry = Arc::new(entry);
        let put = Put {
            entry: Arc::clone(&entry),
            identity,
            window,
            nonce: Some((nonce, settings.nonce_window)),
            answer: waits.then_some(answer),
        };
        let result = self.inbox.put(put).await;
        let reply = match result {
            Ok(Accepted::New(_)) => {
                self.metrics.received(&msg_type, PushResult::Stored);
                tracing::debug!(
                    id = entry.head.id,
                    request_id = brought.request_id,
                    "push: a message came and is kept"
                );
                self.show(&entry, |_| {});
                if waits {
                    self.replies.insert(identity, reply.clone());
                }
                waits.then_some(reply)
            }
            Ok(Accepted::Duplicate) => {
                self.metrics.received(&msg_type, PushResult::Duplicate);
                tracing::debug!(
                    id = entry.head.id,
                    request_id = brought.request_id,
                    "push: a message came once more"
                );
                // It may have come to another replica, which waits too.
                let elsewhere = || waits.then_some(reply);
                self.replies.get(&identity).or_else(elsewhere)
            }
            Ok(Accepted::Replayed) => {
                let detail = "timestamp and nonce have come with another message";
                return Err(self.refuse(&Refused {
                    reason: "nonce",
                    detail: detail.to_owned(),
                    malformed: false,
                }));
            }
            Err(not_stored) => return Err(self.not_stored(&msg_type, &not_stored)),
        };
        let Some(reply) = reply else {
            return Ok(success());
        };
        let Some(said) = self.wait_for(reply, brought.began + PATIENCE).await else {
            return Ok(success());
        };
        match reply::document(&said, &about, format, now) {
            Ok(Some(document)) => {
                self.metrics.replied("sent");
                let sealed = settings
                    .reception
                    .seal(document, format, seal.as_ref(), now);
                Ok(Answer::empty(200)
                    .with("content-type", format.content_type())
                    .body(sealed))
            }
            Ok(None) => {
                self.metrics.replied("none");
                Ok(success())
            }
            Err(why) => {
                self.metrics.replied("invalid");
                if let Some(suppressed) = self.failures.pass("reply", std::time::Instant::now()) {
                    tracing::warn!(
                        request_id = brought.request_id,
                        why,
                        suppressed,
                        "push: the app's reply cannot be passed on; WeChat is told `success`"
                    );
                }
                Ok(success())
            }
        }
    }

    /// What the app says, if it does before the deadline.
    async fn wait_for(
        &self,
        mut reply: watch::Receiver<Option<Bytes>>,
        deadline: Instant,
    ) -> Option<Bytes> {
        match timeout_at(deadline, reply.wait_for(Option::is_some)).await {
            Ok(Ok(said)) => said.clone(),
            // It was given up: there will be none.
            Ok(Err(_)) => None,
            Err(_elapsed) => {
                self.metrics.replied("late");
                None
            }
        }
    }

    fn refuse(&self, refused: &Refused) -> Error {
        let Refused { reason, detail, .. } = refused;
        self.metrics.refused(reason);
        if let Some(suppressed) = self.failures.pass(reason, std::time::Instant::now()) {
            tracing::warn!(reason, detail, suppressed, "push: refused");
        }
        refused.to_error()
    }

    fn not_stored(&self, msg_type: &str, why: &NotStored) -> Error {
        let (result, detail) = match why {
            NotStored::Full => {
                let detail = ("as many messages wait as may", "等待投递的消息已达上限");
                (PushResult::Full, detail)
            }
            NotStored::Failed(_) => {
                let why = self.inbox.failure();
                let why = why.unwrap_or("it cannot be made safe");
                (PushResult::Failed, (why, "消息无法可靠保存"))
            }
        };
        self.metrics.received(msg_type, result);
        if let Some(suppressed) = self.failures.pass("not stored", std::time::Instant::now()) {
            tracing::error!(error = %why, suppressed, "push: a message is not acknowledged, so that WeChat sends it again");
        }
        Error::new(Kind::PushNotStored, Side::Us, detail).with_retry_after(TRY_AGAIN)
    }
}

impl Settings {
    fn new(push: &config::Push, config: &Config) -> Self {
        let inbound = &config.inbound;
        Self {
            appid: config.app.appid.clone(),
            env: config.app.env.clone(),
            reception: Reception::new(&config.app.appid, push),
            routes: Routes::new(push),
            courier: Courier::new(&inbound.upstream, inbound.connect_timeout, push.concurrency),
            timeout: push.timeout,
            concurrency: push.concurrency,
            retry_cap: push.retry_cap,
            retry_for: push.retry_for,
            // A timestamp may be as far ahead as behind.
            nonce_window: push.max_age.map_or(NONCE_WINDOW, |age| 2 * age),
        }
    }
}

/// CloudRun's question whether messages may be sent here. It comes without a signature, and to answer it does nothing.
fn is_container_check(body: &[u8]) -> bool {
    body.len() <= LONGEST_CHECK
        && Format::of(body)
            .and_then(|format| Message::parse(format, body).ok())
            .is_some_and(|message| message.is_container_check())
}

/// What WeChat wants to hear (消息推送 / 回复).
fn success() -> Answer {
    text("success".to_owned())
}

fn text(body: String) -> Answer {
    Answer::empty(200)
        .with("content-type", "text/plain; charset=utf-8")
        .with("x-content-type-options", "nosniff")
        .with("cache-control", "no-store")
        .body(body)
}
