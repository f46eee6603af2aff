//! Message push (消息推送) as WeChat's servers do it: signs, encrypts, posts, waits five seconds, tries again, and says
//! whether the reply would content them.
//!
//! A [`Pusher`] knows one receiver and what it shares with WeChat; a [`Push`] is one message or event. Both know nothing
//! of the simulator's state, so that a test, the command line and the running simulator push in the same way:
//!
//! ```no_run
//! use wx_sidecar::domain::AppId;
//! use wx_sidecar::secret::Secret;
//! use wx_sidecar::sim::push::{Push, PushOptions, Pusher};
//!
//! let appid = AppId::parse("wx0123456789abcdef").unwrap();
//! let (token, key) = (Secret::new("AAAAA"), Secret::new("A".repeat(43)));
//! let pusher = Pusher::new(PushOptions::new("http://127.0.0.1:8080/wx/push", appid, token, key)).unwrap();
//! let outcome = pusher.send_blocking(&Push::text("oSimulatedUser00000000000000", "hello"));
//! assert!(outcome.is_accepted(), "{outcome}");
//! ```
//!
//! Source: 开发/指南/基础能力/服务端能力/消息推送, and the pages of the events.

mod cipher;
mod document;
mod message;
mod reply;
mod sample;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use ::http::header::{ACCEPT, CONTENT_TYPE, PRAGMA, USER_AGENT};
use ::http::{Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::ids::hex;
use crate::clock::{Clock, Timestamp};
use crate::crypto;
use crate::domain::{AppId, Malformed};
use crate::secret::Secret;
use cipher::{AesKey, sign};
use document::{Field, Fields};
pub use message::Push;
pub use reply::{Reason, Reply};
pub use sample::SAMPLES;

/// How long WeChat waits for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often WeChat sends a push that is not acknowledged.
const TRIES: u32 = 3;
/// A longer reply is none that WeChat would read.
const LONGEST_REPLY: usize = 1 << 20;

/// How a push is protected, as it is chosen in WeChat's console (消息加密方式).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// 明文模式: a signature that does not cover the message.
    Plaintext,
    /// 兼容模式: the message in clear and encrypted, in one document.
    Compatible,
    /// 安全模式: the message encrypted and nothing else.
    #[default]
    Secure,
}

/// In which format the documents are, as it is chosen in WeChat's console (数据格式).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Elements, texts in CDATA.
    Xml,
    /// JSON.
    #[default]
    Json,
}

/// Whom to push to and how.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The receiver's URL, as it stands in WeChat's console: `http://` or `https://`, with or without a query.
    pub to: String,
    /// The Mini Program's AppID, which is encrypted with each message.
    pub appid: AppId,
    /// The Mini Program's original id (`gh_...`), each document's `ToUserName`.
    pub original_id: String,
    /// The token that signs.
    pub token: Secret,
    /// The EncodingAESKey, 43 letters and digits; may be absent in [`Mode::Plaintext`] only.
    pub aes_key: Option<Secret>,
    /// Secure by default.
    pub mode: Mode,
    /// JSON by default.
    pub format: Format,
    /// How often a push is sent in all before it is given up, at least 1; 3 by default. WeChat sends what Virtual Payment
    /// tells (`xpay_*`) up to 15 times more.
    pub tries: u32,
    /// How long a reply is waited for; 5 seconds by default.
    pub timeout: Duration,
    /// How long after a failed try the next one begins. `None`, the default, is WeChat's rule: tries begin five seconds
    /// apart, and those of a push that has `RetryTimes` come 2, 4, 8 ... seconds after each other.
    pub retry_after: Option<Duration>,
    /// What tells the time of `timestamp` and `CreateTime`; the system's clock by default.
    pub clock: Clock,
}

impl PushOptions {
    /// Secure mode, JSON, and WeChat's patience.
    pub fn new(to: impl Into<String>, appid: AppId, token: Secret, aes_key: Secret) -> Self {
        let digest = crypto::sha256(appid.as_str().as_bytes());
        Self {
            to: to.into(),
            original_id: format!("gh_{}", &hex(&digest)[..12]),
            appid,
            token,
            aes_key: Some(aes_key),
            mode: Mode::default(),
            format: Format::default(),
            tries: TRIES,
            timeout: PATIENCE,
            retry_after: None,
            clock: Clock::System,
        }
    }
}

/// Pushes to one receiver. Connections are kept and used again; a clone shares them.
#[derive(Clone)]
pub struct Pusher {
    options: PushOptions,
    to: Uri,
    aes_key: Option<std::sync::Arc<AesKey>>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came of a push.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The push's `MsgId`, if it has one.
    pub msg_id: Option<u64>,
    /// Each time that it was sent, at least one; only the last one can have been accepted.
    pub tries: Vec<Try>,
}

/// What came of one time that a push was sent.
#[derive(Clone, Debug, Serialize)]
pub struct Try {
    /// Counted from 1.
    pub number: u32,
    /// From the first attempt to connect until the whole reply was read, or given up.
    #[serde(rename = "ms", serialize_with = "in_ms")]
    pub took: Duration,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The reply's body, decrypted if it was encrypted and that could be done.
    pub reply: String,
    /// Whether the reply was encrypted.
    pub encrypted: bool,
    /// How WeChat understands the reply, or why it would try again.
    #[serde(flatten, serialize_with = "as_verdict")]
    pub verdict: Result<Reply, Reason>,
}

impl Pusher {
    /// A pusher with these options.
    ///
    /// # Errors
    /// If the URL is none, or if the key is malformed or missing in a mode that encrypts.
    pub fn new(options: PushOptions) -> Result<Self, Malformed> {
        let to: Uri = options
            .to
            .parse()
            .map_err(|_| Malformed("the receiver's address is not a URL"))?;
        if !matches!(to.scheme_str(), Some("http" | "https")) || to.host().is_none() {
            return Err(Malformed(
                "the receiver's address begins with http:// or https://",
            ));
        }
        let aes_key = options
            .aes_key
            .as_ref()
            .map(|key| AesKey::parse(key.expose()));
        let aes_key = aes_key.transpose()?.map(std::sync::Arc::new);
        if aes_key.is_none() && options.mode != Mode::Plaintext {
            return Err(Malformed("only the mode plaintext does without an AES key"));
        }
        let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites of TLS 1.2 and 1.3")
            .with_webpki_roots()
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            options,
            to,
            aes_key,
            client,
        })
    }

    /// Sends until it is accepted or there are no tries left. All tries have one `CreateTime`; timestamp, nonce and
    /// random bytes are new each time. Must be called inside a Tokio runtime with time and I/O.
    pub async fn send(&self, push: &Push) -> Outcome {
        self.send_by(push, || self.options.clock.now()).await
    }

    /// As [`Pusher::send`], with a clock of the caller's.
    pub(super) async fn send_by(&self, push: &Push, now: impl Fn() -> Timestamp) -> Outcome {
        let push = push.created_at(now());
        let mut tries = Vec::new();
        loop {
            let number = tries.len() as u32 + 1;
            let sent = self.try_once(&push, number, now()).await;
            let (is_last, took) = (
                sent.verdict.is_ok() || number >= self.options.tries,
                sent.took,
            );
            tries.push(sent);
            if is_last {
                let msg_id = push.msg_id();
                return Outcome { msg_id, tries };
            }
            tokio::time::sleep(self.pause(&push, number, took)).await;
        }
    }

    /// As [`Pusher::send`], for callers without a runtime: blocks the thread.
    ///
    /// # Panics
    /// Inside a runtime, or if the system refuses to make one.
    pub fn send_blocking(&self, push: &Push) -> Outcome {
        block_on(self.send(push))
    }

    /// Sends once, whatever comes of it.
    pub async fn send_once(&self, push: &Push) -> Try {
        self.try_once(push, 1, self.options.clock.now()).await
    }

    /// As [`Pusher::send_once`], for callers without a runtime: blocks the thread.
    ///
    /// # Panics
    /// Inside a runtime, or if the system refuses to make one.
    pub fn send_once_blocking(&self, push: &Push) -> Try {
        block_on(self.send_once(push))
    }

    /// The query (without `?`) and the body with which a push would be sent, new ones each time: for whoever wants to
    /// tamper with them, and send them with [`Pusher::post`] or otherwise.
    pub fn encode(&self, push: &Push) -> (String, Bytes) {
        self.encode_at(push, 1, self.options.clock.now())
    }

    /// Sends a query and a body as they are and judges the reply as if they were of `push`.
    pub async fn post(&self, push: &Push, query: &str, body: impl Into<Bytes>) -> Try {
        self.post_as(push, 1, query, body.into()).await
    }

    /// Whether the receiver proves by `echostr` that it knows the token, as WeChat asks when the URL is saved.
    pub async fn handshake(&self) -> Try {
        let echostr = (u64::from_ne_bytes(crypto::random()) >> 1).to_string();
        let query = format!(
            "{}&echostr={echostr}",
            self.signed(self.options.clock.now()).0
        );
        let (took, answer) = self.exchange(Method::GET, &query, Bytes::new()).await;
        let (status, body, verdict) = match answer {
            Ok((status, body)) => {
                let verdict = reply::echoed(status, &body, &echostr);
                (Some(status.as_u16()), body, verdict)
            }
            Err(reason) => (None, Bytes::new(), Err(reason)),
        };
        Try {
            number: 1,
            took,
            status,
            reply: String::from_utf8_lossy(&body).into_owned(),
            encrypted: false,
            verdict,
        }
    }

    async fn try_once(&self, push: &Push, number: u32, now: Timestamp) -> Try {
        let (query, body) = self.encode_at(push, number, now);
        self.post_as(push, number, &query, body).await
    }

    fn encode_at(&self, push: &Push, number: u32, now: Timestamp) -> (String, Bytes) {
        let fields = push.document(&self.options, number, now);
        if push.is_bare() {
            return (String::new(), fields.json().into());
        }
        let (mut query, timestamp, nonce) = self.signed(now);
        if let Some(from) = fields.text("FromUserName") {
            let from = utf8_percent_encode(from, NON_ALPHANUMERIC).to_string();
            query.push_str(&format!(
                "&openid={}",
                from.replace("%5F", "_").replace("%2D", "-")
            ));
        }
        let plain = push.spelled(&fields, self.options.format);
        let key = match (&self.aes_key, self.options.mode) {
            (Some(key), Mode::Compatible | Mode::Secure) => key,
            _ => return (query, plain.into()),
        };
        let encrypted = key.encrypt(crypto::random(), plain.as_bytes(), &self.options.appid);
        let signature = sign([self.options.token.expose(), &timestamp, &nonce, &encrypted]);
        query.push_str(&format!("&encrypt_type=aes&msg_signature={signature}"));
        let mut shown = match self.options.mode {
            Mode::Compatible => fields,
            _ => Fields(vec![(
                "ToUserName".to_owned(),
                Field::Text(self.options.original_id.clone()),
            )]),
        };
        shown.set("Encrypt", Field::Text(encrypted));
        (query, push.spelled(&shown, self.options.format).into())
    }

    /// The parameters that every request has, and the timestamp and nonce in them.
    fn signed(&self, now: Timestamp) -> (String, String, String) {
        let timestamp = now.as_secs().to_string();
        let nonce = (u32::from_ne_bytes(crypto::random()) >> 1).to_string();
        let signature = sign([self.options.token.expose(), &timestamp, &nonce]);
        let query = format!("signature={signature}&timestamp={timestamp}&nonce={nonce}");
        (query, timestamp, nonce)
    }

    async fn post_as(&self, push: &Push, number: u32, query: &str, body: Bytes) -> Try {
        let (took, answer) = self.exchange(Method::POST, query, body).await;
        let (status, judged) = match answer {
            Ok((status, body)) => {
                let judge = reply::Judge {
                    options: &self.options,
                    key: self.aes_key.as_deref(),
                    push,
                };
                (Some(status.as_u16()), judge.judge(status, &body))
            }
            Err(reason) => (None, reply::Judged::unread(reason)),
        };
        Try {
            number,
            took,
            status,
            reply: judged.text,
            encrypted: judged.encrypted,
            verdict: judged.verdict,
        }
    }

    async fn exchange(
        &self,
        method: Method,
        query: &str,
        body: Bytes,
    ) -> (Duration, Result<(StatusCode, Bytes), Reason>) {
        let began = Instant::now();
        let exchanged = timeout(self.options.timeout, self.ask(method, query, body)).await;
        let answer = exchanged.unwrap_or(Err(Reason::Timeout(self.options.timeout)));
        (began.elapsed(), answer)
    }

    async fn ask(
        &self,
        method: Method,
        query: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Reason> {
        // As WeChat's servers name themselves and what they send.
        let mut request = Request::builder()
            .method(&method)
            .uri(self.target(query))
            .header(USER_AGENT, "Mozilla/4.0")
            .header(ACCEPT, "*/*")
            .header(PRAGMA, "no-cache");
        if method == Method::POST {
            request = request.header(
                CONTENT_TYPE,
                match body.first() {
                    Some(b'{') => "application/json",
                    _ => "text/xml",
                },
            );
        }
        let request = request
            .body(Full::new(body))
            .map_err(|_| Reason::Broken("the query is no part of a URL".to_owned()))?;
        let answer = self.client.request(request).await.map_err(|error| {
            let cause = root_cause(&error);
            match error.is_connect() {
                true => Reason::NoConnection(cause),
                false => Reason::Broken(cause),
            }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_REPLY)
            .collect()
            .await
            .map_err(|error| Reason::Broken(root_cause(&*error)))?;
        Ok((status, body.to_bytes()))
    }

    fn target(&self, query: &str) -> String {
        let to = self.to.to_string();
        if query.is_empty() {
            return to;
        }
        let joint = if self.to.query().is_some() { '&' } else { '?' };
        format!("{to}{joint}{query}")
    }

    /// How long to wait after a try that failed.
    fn pause(&self, push: &Push, number: u32, took: Duration) -> Duration {
        match self.options.retry_after {
            Some(pause) => pause,
            None if push.counts_retries() => Duration::from_secs(1 << number.min(32)),
            None => PATIENCE.saturating_sub(took),
        }
    }
}

impl Outcome {
    /// Whether WeChat would take the push as delivered.
    pub fn is_accepted(&self) -> bool {
        self.last().verdict.is_ok()
    }

    /// The last try.
    pub fn last(&self) -> &Try {
        self.tries.last().expect("a push is tried at least once")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tries.iter().try_for_each(|sent| writeln!(f, "{sent}"))
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "try {}: {} ms", self.number, self.took.as_millis())?;
        if let Some(status) = self.status {
            write!(f, ", HTTP {status}")?;
        }
        match &self.verdict {
            Ok(reply) => write!(f, ", accepted: {reply}"),
            Err(reason) => write!(f, ", not accepted: {reason}"),
        }
    }
}

fn in_ms<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 1e6).round() / 1e3)
}

/// As members of the try: whether it was accepted, and as what or why not.
fn as_verdict<S: serde::Serializer>(
    verdict: &Result<Reply, Reason>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("accepted", &verdict.is_ok())?;
    match verdict {
        Ok(reply) => map.serialize_entry("as", reply)?,
        Err(reason) => {
            map.serialize_entry("reason", &reason.to_string())?;
            map.serialize_entry("advice", &reason.advice())?;
        }
    }
    map.end()
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime: io::Result<_> = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("the system gives a runtime")
        .block_on(future)
}
