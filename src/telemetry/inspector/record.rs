//! What is known of one exchange, as those who take part in it told it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::kept::{Budget, Kept, Share};
use super::since_epoch;
use crate::error::{Error, Language};

/// How many calls to WeChat of one exchange are told, and how many attempts of one message.
const MOST_CALLS: usize = 50;
/// What the texts of a failure weigh, about.
const OF_A_FAILURE: usize = 512;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody's request to us.
    Request,
    /// The app's call to WeChat.
    Call,
    /// A message of WeChat's on its way to the app.
    Message,
}

/// Field lines as they stood, the name and the value of each.
pub(super) type Fields = Vec<(String, String)>;

/// What is known of something when it begins.
pub(crate) struct Began {
    pub(crate) kind: Kind,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) protocol: &'static str,
    pub(crate) request_id: String,
    pub(crate) trace: String,
    pub(crate) client: Option<String>,
    pub(crate) fields: Vec<(String, String)>,
}

/// A message as it came.
pub(crate) struct Came<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) event: Option<&'a str>,
    pub(crate) openid: Option<&'a str>,
    pub(crate) request_id: &'a str,
    pub(crate) trace: &'a str,
    /// Decrypted, as JSON.
    pub(crate) body: &'a [u8],
    /// All of it as it is stored, which can be put into the inbox once more.
    pub(crate) stored: &'a dyn Fn() -> Bytes,
}

/// What is known of something when it has ended.
#[derive(Default)]
pub(crate) struct Ended<'a> {
    /// `None` if nobody was answered.
    pub(crate) status: Option<u16>,
    pub(crate) took: Duration,
    pub(crate) route: Option<Cow<'a, str>>,
    pub(crate) error: Option<&'a Error>,
    pub(crate) openid: Option<String>,
    /// How many bytes the body of the request had, and that of the answer.
    pub(crate) received: u64,
    pub(crate) returned: u64,
    pub(crate) legs: Legs,
}

/// Where the time went; what did not take part is `None`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Legs {
    /// The sidecar's own work.
    pub(crate) own: Option<Duration>,
    pub(crate) wechat: Option<Duration>,
    pub(crate) app: Option<Duration>,
    /// When the app was asked, and when the head of its answer was there, from the beginning.
    pub(crate) asked: Option<Duration>,
    pub(crate) answered: Option<Duration>,
}

/// One call to WeChat.
#[derive(Clone)]
pub(crate) struct WechatCall {
    at: u64,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) status: Option<u16>,
    pub(super) took: Duration,
    pub(super) failure: Option<Failure>,
}

/// How something failed, in both languages.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) slug: &'static str,
    pub(super) errcode: Option<i64>,
    pub(super) errmsg: Option<String>,
    pub(super) rid: Option<String>,
    pub(super) title: [String; 2],
    pub(super) hint: [Option<String>; 2],
}

/// An attempt to deliver a message.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) path: String,
    pub(crate) number: u32,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
}

/// What the app was sent, and what it said.
#[derive(Clone)]
pub(super) struct Forwarded {
    pub(super) url: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Fields,
    /// Lines of the client's that it did not get, and why.
    pub(super) dropped: Vec<(String, String, String)>,
    pub(super) body: Kept,
    pub(super) answer: Option<(u16, Fields)>,
}

/// What went back.
#[derive(Clone)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Kept,
}

/// A message of WeChat's.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) event: Option<String>,
    pub(super) openid: Option<String>,
    pub(super) body: Kept,
    stored: Option<Bytes>,
    pub(super) attempts: Vec<(u64, Attempt)>,
    pub(super) outcome: &'static str,
}

/// All that is known of one exchange.
#[derive(Clone)]
pub(crate) struct Record {
    share: Share,
    pub(super) kind: Kind,
    pub(super) at: u64,
    pub(super) has_ended: bool,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) protocol: &'static str,
    pub(super) request_id: String,
    pub(super) trace: String,
    pub(super) client: Option<String>,
    pub(super) route: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) took: Option<Duration>,
    pub(super) openid: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) fields: Fields,
    pub(super) body: Kept,
    pub(super) forwarded: Option<Forwarded>,
    pub(super) answered: Option<Answered>,
    pub(super) open_data: Vec<Kept>,
    pub(super) wechat: Vec<WechatCall>,
    pub(super) legs: Legs,
    pub(super) message: Option<Box<Message>>,
}

impl Record {
    pub(super) fn new(began: Began, budget: &Arc<Budget>) -> Self {
        let mut record = Self {
            share: Share::new(budget),
            kind: began.kind,
            at: now(),
            has_ended: false,
            method: began.method,
            target: began.target,
            protocol: began.protocol,
            request_id: began.request_id,
            trace: began.trace,
            client: began.client,
            route: None,
            status: None,
            took: None,
            openid: None,
            failure: None,
            fields: Fields::new(),
            body: Kept::default(),
            forwarded: None,
            answered: None,
            open_data: Vec::new(),
            wechat: Vec::new(),
            legs: Legs::default(),
            message: None,
        };
        // What it weighs besides, about.
        let overhead = size_of::<Self>() + record.method.len() + record.target.len();
        if !record.share.take(overhead) {
            record.target = String::new();
        }
        record.fields = affordable(began.fields, &mut record.share);
        record
    }

    pub(super) fn message(came: &Came<'_>, budget: &Arc<Budget>) -> Self {
        let target = match came.event {
            Some(event) => format!("event/{event}"),
            None => came.kind.to_owned(),
        };
        let mut record = Self::new(
            Began {
                kind: Kind::Message,
                method: "PUSH".to_owned(),
                target,
                protocol: "",
                request_id: came.request_id.to_owned(),
                trace: trace_id(came.trace).to_owned(),
                client: None,
                fields: Vec::new(),
            },
            budget,
        );
        let mut body = Kept::default();
        body.push(came.body, &mut record.share);
        let stored = (came.stored)();
        let stored = record.share.take(stored.len()).then_some(stored);
        record.openid = came.openid.map(str::to_owned);
        record.message = Some(Box::new(Message {
            id: came.id.to_owned(),
            kind: came.kind.to_owned(),
            event: came.event.map(str::to_owned),
            openid: came.openid.map(str::to_owned),
            body,
            stored,
            attempts: Vec::new(),
            outcome: "waiting",
        }));
        record
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        self.message.as_ref().map(|it| it.id.as_str())
    }

    /// Nobody asks for it any more, though it may still go on: what is kept is given back, and no more is.
    pub(super) fn forget(&mut self) {
        self.share.end();
        self.target = String::new();
        self.fields = Fields::new();
        self.body = Kept::default();
        self.forwarded = None;
        self.answered = None;
        self.open_data = Vec::new();
        self.wechat = Vec::new();
        self.message = None;
    }

    pub(super) fn stored(&self) -> Option<Bytes> {
        self.message.as_ref()?.stored.clone()
    }

    /// Bytes of the request's body, and where in it they stand.
    pub(crate) fn received(&mut self, at: u64, bytes: &[u8]) {
        self.body.push_at(at, bytes, &mut self.share);
    }

    /// The app is sent this head; what an earlier attempt sent counts no more.
    pub(crate) fn forwarding(
        &mut self,
        url: String,
        head: &[u8],
        dropped: Vec<(String, String, String)>,
    ) {
        let (method, target, fields) = head_of(head);
        let lines = dropped.iter();
        let spent: usize = lines
            .map(|(name, value, why)| name.len() + value.len() + why.len())
            .sum();
        let (target, dropped) = match self.share.take(spent + url.len() + target.len()) {
            true => (target, dropped),
            false => (String::new(), Vec::new()),
        };
        self.forwarded = Some(Forwarded {
            url,
            method,
            target,
            fields: affordable(fields, &mut self.share),
            dropped,
            body: Kept::default(),
            answer: None,
        });
    }

    /// Bytes of the body that the app is sent.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        if let Some(forwarded) = &mut self.forwarded {
            forwarded.body.push(bytes, &mut self.share);
        }
    }

    /// The kernel has moved bytes from the client to the app, up to this place.
    pub(crate) fn moved(&mut self, total: u64) {
        self.body.is_at_least(total);
        if let Some(forwarded) = &mut self.forwarded {
            forwarded.body.is_at_least(total);
        }
    }

    /// A body of so many bytes is passed on as it comes, and none of it is kept.
    pub(crate) fn streams(&mut self, length: u64) {
        self.body.is_at_least(length);
    }

    /// The head of the app's answer.
    pub(crate) fn app_answered(&mut self, status: u16, fields: Vec<(String, String)>) {
        let fields = affordable(fields, &mut self.share);
        if let Some(forwarded) = &mut self.forwarded {
            forwarded.answer = Some((status, fields));
        }
    }

    /// An answer is begun.
    pub(crate) fn answering(&mut self, status: u16) {
        self.answered = Some(Answered {
            status,
            fields: Fields::new(),
            body: Kept::default(),
        });
    }

    /// A field line of the answer's head.
    pub(crate) fn answer_field(&mut self, name: &[u8], value: &[u8]) {
        if let Some(answered) = &mut self.answered
            && self.share.take(name.len() + value.len())
        {
            answered.fields.push((text(name), text(value)));
        }
    }

    /// Bytes of the answer's body.
    pub(crate) fn answer_body(&mut self, bytes: &[u8]) {
        if let Some(answered) = &mut self.answered {
            answered.body.push(bytes, &mut self.share);
        }
    }

    /// None of the answer has been sent, and another one will be.
    pub(crate) fn takes_answer_back(&mut self) {
        self.answered = None;
    }

    /// What a client had sent encrypted.
    pub(crate) fn opened(&mut self, json: &[u8]) {
        if self.open_data.len() < MOST_CALLS {
            let mut kept = Kept::default();
            kept.push(json, &mut self.share);
            self.open_data.push(kept);
        }
    }

    /// WeChat was called for it.
    pub(crate) fn called(&mut self, call: WechatCall) {
        let told = call.failure.as_ref().map_or(0, |_| OF_A_FAILURE);
        if self.wechat.len() < MOST_CALLS && self.share.take(size_of::<WechatCall>() + told) {
            self.wechat.push(call);
        }
    }

    /// The app was brought the message.
    pub(crate) fn tried(&mut self, attempt: Attempt) {
        self.status = attempt.status;
        self.took = Some(attempt.took);
        if let Some(message) = &mut self.message {
            message.outcome = "waiting";
            let weight = size_of::<Attempt>() + attempt.path.len();
            if message.attempts.len() == MOST_CALLS {
                // In its place: what it weighs has been taken.
                message.attempts.remove(0);
                message.attempts.push((now(), attempt));
            } else if self.share.take(weight) {
                message.attempts.push((now(), attempt));
            }
        }
        self.has_ended = false;
    }

    /// What became of the message: `waiting`, `delivered` or `dead`.
    pub(crate) fn came_to(&mut self, outcome: &'static str) {
        self.has_ended = outcome != "waiting";
        if let Some(message) = &mut self.message {
            message.outcome = outcome;
        }
    }

    pub(super) fn end(&mut self, ended: Ended<'_>) {
        self.has_ended = true;
        self.status = ended.status;
        self.took = Some(ended.took);
        self.route = ended.route.map(Cow::into_owned);
        self.failure = ended.error.map(Failure::of);
        self.openid = ended.openid;
        self.legs = ended.legs;
        if self.kind == Kind::Call && !self.wechat.is_empty() {
            // One after the other, and all else is ours.
            let waited = self.wechat.iter().map(|call| call.took).sum();
            self.legs.wechat = Some(waited);
            self.legs.own = Some(ended.took.saturating_sub(waited));
        }
        self.body.is_at_least(ended.received);
        if let Some(answered) = &mut self.answered {
            answered.body.is_at_least(ended.returned);
        }
    }
}

impl WechatCall {
    pub(crate) fn new(
        (method, path): (&'static str, &'static str),
        status: Option<u16>,
        took: Duration,
        error: Option<&Error>,
    ) -> Self {
        let began = since_epoch().saturating_sub(took);
        Self {
            at: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
            method,
            path,
            status,
            took,
            failure: error.map(Failure::of),
        }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let fault = error.fault();
        let title = |language| error.detail(language).to_owned();
        let hint = |language| error.hint(language).map(str::to_owned);
        Self {
            slug: error.kind().row().slug,
            errcode: fault.map(|fault| fault.meaning.code),
            errmsg: fault.map(|fault| fault.errmsg.clone()),
            rid: fault.and_then(|fault| fault.rid.clone()),
            title: [title(Language::English), title(Language::Chinese)],
            hint: [hint(Language::English), hint(Language::Chinese)],
        }
    }
}

/// What can be kept of a head.
fn affordable(fields: Fields, share: &mut Share) -> Fields {
    let weigh =
        |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
    match share.take(fields.iter().map(weigh).sum()) {
        true => fields,
        false => Fields::new(),
    }
}

/// A head that we have written: method, target and field lines.
fn head_of(head: &[u8]) -> (String, String, Fields) {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let fields = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    (method, target, fields.collect())
}

/// The trace of a `traceparent` (W3C Trace Context §3.2).
fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn now() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}
