//! Delivery: from the inbox to the app, until it is taken or given up.
//!
//! One loop decides (`lanes`), and each message under way is a task. What the app has taken the journal is told after, so a
//! sidecar that is killed between the two delivers it once more, with the same `X-WX-Msg-Id`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::courier::Delivered;
use super::entry::{Death, Entry, Head};
use super::inbox::{News, Waiting};
use super::lanes::{End, Lanes};
use super::{Bus, Settings, shown};
use crate::clock::Timestamp;
use crate::config::PushEnvelope;
use crate::crypto;
use crate::resilience::panics::caught;
use crate::telemetry::ids::{IdSource, TraceContext, Traced};
use crate::telemetry::trace::{self, Span, Tracing};

/// How often a message is tried that the app calls wrong.
const TRIES_OF_WRONG: u32 = 5;
/// How often it is looked at what waits longest.
const LOOK: Duration = Duration::from_secs(5);
/// The last second of the year 9999, which is as far as RFC 3339 goes.
const LAST_SECOND: u64 = 253_402_300_799;

/// What delivers. There is one, on one thread.
pub(super) struct Delivery {
    pub(super) bus: Arc<Bus>,
    pub(super) tracing: Tracing,
    pub(super) ids: Rc<IdSource>,
}

/// An attempt that has ended.
struct Tried {
    lane: u64,
    waiting: Waiting,
    /// What is known of the message, unless it could not be had.
    head: Option<Head>,
    outcome: Outcome,
}

/// What an attempt came to.
enum Outcome {
    Taken(Bytes),
    /// The app says that this message is wrong.
    Wrong(StatusCode),
    /// The app has a problem, perhaps with this message.
    Failed(String),
    /// The app is away.
    Away(String, Option<Duration>),
    /// There is no such message any more.
    Gone,
    /// The inbox cannot be read.
    Unread(String),
}

impl Delivery {
    /// Delivers until `leave` ends, and then what is under way. What is only in memory is delivered until `cut` ends.
    pub(super) async fn run(
        &self,
        mut news: UnboundedReceiver<News>,
        leave: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) {
        let mut lanes = Lanes::new(self.bus.settings.load().concurrency);
        let mut under_way = JoinSet::new();
        let (mut leave, mut cut) = (std::pin::pin!(leave), std::pin::pin!(cut));
        let mut leaving = false;
        let mut look = tokio::time::interval(LOOK);
        loop {
            let now = Instant::now();
            lanes.set_most(self.bus.settings.load().concurrency);
            let go_on = !leaving || !self.bus.inbox.is_durable();
            while go_on && let Some((lane, waiting)) = lanes.next(now) {
                under_way.spawn_local(self.attempt(lane, waiting));
            }
            if leaving && under_way.is_empty() && (self.bus.inbox.is_durable() || lanes.len() == 0)
            {
                break;
            }
            let wake = lanes.wakes_at(now).filter(|_| go_on);
            tokio::select! {
                biased;
                () = &mut cut => break,
                () = &mut leave, if !leaving => leaving = true,
                Some(tried) = under_way.join_next(), if !under_way.is_empty() => {
                    if let Ok(tried) = tried {
                        self.end(tried, &mut lanes);
                    }
                }
                Some(news) = news.recv() => Self::hear(news, &mut lanes),
                () = sleep_until(wake) => {}
                _ = look.tick() => self.look(&lanes),
            }
        }
        let left = lanes.len();
        if left > 0 && !self.bus.inbox.is_durable() {
            tracing::error!(
                messages = left,
                "push: these waited in memory only, and are lost; a [push] journal would keep them"
            );
        }
    }

    fn hear(news: News, lanes: &mut Lanes<Waiting>) {
        match news {
            News::Arrived(waiting) => lanes.push(waiting.lane, waiting),
            News::Dropped(number) => lanes.remove(|waiting| waiting.number == number),
            News::Left { of, rest } => lanes.remove(|waiting| waiting.lane % of == rest),
        }
    }

    fn look(&self, lanes: &Lanes<Waiting>) {
        self.bus
            .inbox
            .seen()
            .set_oldest(lanes.iter().map(|waiting| waiting.queued).min());
    }

    /// One attempt, as a task.
    fn attempt(&self, lane: u64, mut waiting: Waiting) -> impl Future<Output = Tried> + use<> {
        let bus = Arc::clone(&self.bus);
        let (tracing, ids) = (self.tracing.clone(), Rc::clone(&self.ids));
        async move {
            let settings = bus.settings.load_full();
            waiting.attempts = waiting.attempts.saturating_add(1);
            let entry = match &waiting.entry {
                Some(entry) => Ok(Arc::clone(entry)),
                None => only(bus.inbox.fetch(vec![waiting.number]).await),
            };
            let (head, outcome) = match entry {
                Ok(entry) => {
                    let trace = (&tracing, traced(&entry.head, &tracing, &ids));
                    let posting = caught(post(&bus, &settings, &entry, (waiting.attempts, trace)));
                    let outcome = posting.await.unwrap_or_else(|panicked| {
                        tracing::error!(what = "push", error = %panicked, "a delivery panicked");
                        Outcome::Failed("the sidecar has a defect".to_owned())
                    });
                    (Some(entry.head.clone()), outcome)
                }
                Err(outcome) => (None, outcome),
            };
            Tried {
                lane,
                waiting,
                head,
                outcome,
            }
        }
    }

    fn end(&self, tried: Tried, lanes: &mut Lanes<Waiting>) {
        let Tried {
            lane,
            mut waiting,
            head,
            outcome,
        } = tried;
        let settings = self.bus.settings.load_full();
        let cap = settings.retry_cap;
        let tries = waiting.attempts;
        tracing::debug!(
            id = head.as_ref().map(|head| head.id.as_str()),
            attempt = tries,
            result = outcome.label(),
            "push: a message was brought to the app"
        );
        self.bus.metrics.attempted(outcome.label());
        let (reason, end) = match outcome {
            Outcome::Taken(answer) => {
                self.bus.inbox.settle(waiting.number);
                self.bus.show_end(head.as_ref(), "delivered");
                if let (Some(head), now) = (&head, self.bus.inbox.clock().now()) {
                    self.bus
                        .metrics
                        .delivered(now.since(Timestamp::from_millis(head.received)));
                }
                if let Some(to) = waiting.answer.take() {
                    to.tell(answer);
                }
                return Self::forget(lane, true, lanes);
            }
            Outcome::Gone => return Self::forget(lane, false, lanes),
            Outcome::Wrong(status) => {
                waiting.refusals += 1;
                let reason = format!("the app answers {status}");
                if waiting.refusals >= TRIES_OF_WRONG {
                    return self.give_up(lane, (&waiting, head), reason, lanes);
                }
                (reason, End::Again { tries, cap })
            }
            Outcome::Failed(reason) => (reason, End::Again { tries, cap }),
            Outcome::Away(reason, after) => (reason, End::Away { cap, after }),
            Outcome::Unread(reason) => (reason, End::Again { tries, cap }),
        };
        if self.bus.inbox.clock().now().since(waiting.queued) >= settings.retry_for {
            return self.give_up(lane, (&waiting, head), reason, lanes);
        }
        if let Some(suppressed) = self.bus.failures.pass("push", std::time::Instant::now()) {
            let id = head.as_ref().map(|head| head.id.as_str());
            tracing::warn!(
                id,
                reason,
                attempt = tries,
                suppressed,
                "push: a message is not delivered yet"
            );
        }
        self.bus.inbox.rest(waiting.number);
        lanes.end(lane, Some(waiting), end, Instant::now(), jitter());
    }

    fn forget(lane: u64, taken: bool, lanes: &mut Lanes<Waiting>) {
        lanes.end(lane, None, End::Done { taken }, Instant::now(), 0.0);
    }

    fn give_up(
        &self,
        lane: u64,
        (waiting, head): (&Waiting, Option<Head>),
        reason: String,
        lanes: &mut Lanes<Waiting>,
    ) {
        self.bus.show_end(head.as_ref(), "dead");
        let (number, attempts) = (waiting.number, waiting.attempts);
        let now = std::time::Instant::now();
        if let Some(suppressed) = self.bus.failures.pass("given up", now) {
            tracing::error!(
                number,
                attempts,
                reason,
                suppressed,
                "push: a message is given up; see `wx-sidecar push list --dead`"
            );
        }
        self.bus.metrics.given_up();
        let at = self.bus.inbox.clock().now().as_millis();
        self.bus.inbox.bury(
            number,
            Death {
                reason,
                attempts,
                at,
            },
        );
        Self::forget(lane, false, lanes);
    }
}

impl Outcome {
    /// The name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Taken(_) => "accepted",
            Self::Wrong(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Away(..) => "unreachable",
            Self::Gone => "dropped",
            Self::Unread(_) => "unread",
        }
    }
}

/// The one message that was asked for.
fn only(fetched: super::inbox::Fetched) -> Result<Arc<Entry>, Outcome> {
    match fetched {
        Ok(entries) => match entries.into_iter().next() {
            Some((_, Some(entry))) => Ok(Arc::new(entry)),
            _ => Err(Outcome::Gone),
        },
        Err(error) => Err(Outcome::Unread(error)),
    }
}

/// Where an attempt stands in a trace: below the request that brought the message, however long ago that was.
fn traced(head: &Head, tracing: &Tracing, ids: &IdSource) -> Traced {
    match TraceContext::parse(head.trace.as_bytes()) {
        Some(receipt) => Traced::below(receipt, ids),
        None => Traced::anew(ids, tracing.chooses(ids)),
    }
}

async fn post(
    bus: &Bus,
    settings: &Settings,
    entry: &Entry,
    (tries, (tracing, traced)): (u32, (&Tracing, Traced)),
) -> Outcome {
    let head = &entry.head;
    let delivery = settings.routes.of(head);
    let (attempt, trace) = (tries.to_string(), traced.here.to_text());
    let mut lines = vec![
        ("X-WX-SOURCE", "wx_push"),
        ("X-WX-APPID", settings.appid.as_str()),
        ("X-WX-ENV", settings.env.as_str()),
        ("X-WX-Msg-Id", head.id.as_str()),
        ("X-WX-Delivery-Attempt", attempt.as_str()),
        ("X-Request-Id", head.request_id.as_str()),
        ("traceparent", trace.as_str()),
    ];
    if let Some(openid) = &head.openid {
        lines.push(("X-WX-OPENID", openid));
    }
    // Whatever WeChat may come to call its types, it goes into a header only if it can.
    let plain = |name: &&String| name.bytes().all(|b| b.is_ascii_graphic());
    if plain(&&head.msg_type) {
        lines.push(("X-WX-Msg-Type", &head.msg_type));
    }
    if let Some(event) = head.event.as_ref().filter(plain) {
        lines.push(("X-WX-Event", event));
    }
    let more = head.lines.iter();
    lines.extend(more.map(|(name, value)| (name.as_str(), value.as_str())));
    let (body, content_type) = match delivery.envelope {
        PushEnvelope::Plain => (entry.body.clone(), "application/json"),
        PushEnvelope::CloudEvents => (
            cloud_event(settings, entry),
            "application/cloudevents+json; charset=utf-8",
        ),
    };
    let began = Instant::now();
    let posted = settings
        .courier
        .post(&delivery.path, &lines, body, content_type, settings.timeout)
        .await;
    tracing.record(&traced, || {
        let sent = (delivery.path.as_str(), tries, began.elapsed());
        span(settings, head, sent, &posted)
    });
    bus.show(entry, |record| {
        let tried = (tries, began.into_std());
        record.tried(shown::attempt(settings, entry, tried, &posted));
    });
    match posted {
        Delivered::Taken(_, answer) => Outcome::Taken(answer),
        Delivered::Late => Outcome::Failed("the app does not answer in time".to_owned()),
        Delivered::Away(why) => Outcome::Away(format!("the app cannot be reached: {why}"), None),
        Delivered::Refused {
            status,
            retry_after,
        } => match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Outcome::Away(format!("the app answers {status}"), retry_after)
            }
            // These say nothing of the message: something about the app is not in order.
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_EARLY => Outcome::Failed(format!("the app answers {status}")),
            status if status.is_client_error() => Outcome::Wrong(status),
            status => Outcome::Failed(format!("the app answers {status}")),
        },
    }
}

/// An attempt as it is told in a trace. The identity of a message is no attribute: it may be made of an openid.
fn span(
    settings: &Settings,
    head: &Head,
    (path, tries, took): (&str, u32, Duration),
    posted: &Delivered,
) -> Span {
    let (status, error) = match posted {
        Delivered::Taken(status, _) => (Some(*status), None),
        Delivered::Refused { status, .. } => (Some(*status), Some(status.as_u16().to_string())),
        Delivered::Late => (None, Some("timeout".to_owned())),
        Delivered::Away(_) => (None, Some("unreachable".to_owned())),
    };
    let (address, port) = settings.courier.place();
    Span::new(trace::Kind::Client, format!("POST {path}"), took)
        .with("http.request.method", "POST")
        .with("url.template", path.to_owned())
        .with("server.address", address.to_owned())
        .with_some("server.port", port)
        .with("wechat.push.type", head.msg_type.clone())
        .with_some("wechat.push.event", head.event.clone())
        .with("wx_sidecar.push.attempt", tries)
        .with_some("http.response.status_code", status.map(|it| it.as_u16()))
        .with_error(error)
}

/// A CloudEvent in structured mode (CloudEvents 1.0.2, JSON event format 1.0.2). Its `id` is that of the message, so that
/// `source` and `id` together name a message once, as the specification wants.
fn cloud_event(settings: &Settings, entry: &Entry) -> Bytes {
    let head = &entry.head;
    let kind = match &head.event {
        Some(event) => format!("com.weixin.miniprogram.event.{event}"),
        None => format!("com.weixin.miniprogram.{}", head.msg_type),
    };
    let mut event = serde_json::Map::new();
    let mut set = |name: &str, value: &str| event.insert(name.to_owned(), value.into());
    set("specversion", "1.0");
    set("id", &head.id);
    set("source", &format!("/wechat/{}", settings.appid.as_str()));
    set("type", &kind);
    if let Some(openid) = &head.openid {
        set("subject", openid);
    }
    let created = head.created.unwrap_or(head.received / 1000);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(created.min(LAST_SECOND));
    set("time", &humantime::format_rfc3339_seconds(time).to_string());
    set("datacontenttype", "application/json");
    set("traceparent", &head.trace);
    let mut text = serde_json::Value::Object(event).to_string().into_bytes();
    text.pop();
    text.extend_from_slice(b",\"data\":");
    text.extend_from_slice(&entry.body);
    text.push(b'}');
    text.into()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// From 0 to 1.
fn jitter() -> f64 {
    f64::from(u16::from_be_bytes(crypto::random())) / f64::from(u16::MAX)
}
