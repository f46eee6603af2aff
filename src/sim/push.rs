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
mod storm;

use std::fmt;
use std::sync::Arc;
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
pub(super) use document::{Field, Fields, is_name};
pub use message::Push;
pub use reply::{Reason, Reply};
pub use sample::SAMPLES;
pub use storm::{Ledger, Report, Storm, openid as storm_openid};

/// How long WeChat waits for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often WeChat sends a push that is not acknowledged.
const TRIES: u32 = 3;
/// A longer reply is none that WeChat would read.
const LONGEST_REPLY: usize = 1 << 20;
/// Of what it is to judge, by its pages.
const LONGEST_MEDIUM: usize = 10 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

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
    aes_key: Option<Arc<AesKey>>,
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
        let to: Uri = options.to.parse().map_err(|_| {
            Malformed(
                "the receiver's address is not a URL",
                "接收方的地址不是 URL",
            )
        })?;
        if !matches!(to.scheme_str(), Some("http" | "https")) || to.host().is_none() {
            return Err(Malformed(
                "the receiver's address begins with http:// or https://",
                "接收方的地址须以 http:// 或 https:// 开头",
            ));
        }
        let aes_key = options
            .aes_key
            .as_ref()
            .map(|key| AesKey::parse(key.expose()));
        let aes_key = aes_key.transpose()?.map(Arc::new);
        if aes_key.is_none() && options.mode != Mode::Plaintext {
            return Err(Malformed(
                "only the mode plaintext does without an AES key",
                "只有明文模式不需要 AES 密钥",
            ));
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

    /// The receiver's host and port.
    pub(super) fn place(&self) -> (String, u16) {
        let host = self.to.host().unwrap_or_default();
        let usual = if self.to.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        (host, self.to.port_u16().unwrap_or(usual))
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

    /// What is at a URL, as WeChat fetches what it is to judge: without cookies or tokens, and 200 or nothing.
    pub(super) async fn fetch(&self, url: &str) -> Option<Bytes> {
        let request = Request::builder()
            .uri(url)
            .header(USER_AGENT, "Mozilla/4.0")
            .body(Full::new(Bytes::new()))
            .ok()?;
        let fetching = async {
            let answer = self.client.request(request).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST_MEDIUM).collect().await.ok()?;
            (head.status == StatusCode::OK).then(|| body.to_bytes())
        };
        timeout(FETCH_TIMEOUT, fetching).await.ok()?
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
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives a runtime")
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "AAAAA";
    const KEY: &str = "kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR";
    const USER: &str = "oUser0000";

    fn pusher(mode: Mode, format: Format) -> Pusher {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        Pusher::new(PushOptions {
            mode,
            format,
            original_id: "gh_1".to_owned(),
            clock: Clock::manual(Timestamp::from_millis(1_700_000_000_000)),
            ..PushOptions::new(
                "http://a/p?x=1",
                appid,
                Secret::new(TOKEN),
                Secret::new(KEY),
            )
        })
        .unwrap()
    }

    /// The query's parameters and the body as text.
    fn encoded(pusher: &Pusher, push: &Push) -> (Vec<(String, String)>, String) {
        let (query, body) = pusher.encode(push);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (pairs.collect(), String::from_utf8(body.to_vec()).unwrap())
    }

    fn value<'a>(query: &'a [(String, String)], name: &str) -> &'a str {
        let pair = query.iter().find(|(known, _)| known == name);
        pair.map_or("", |(_, value)| value)
    }

    fn plain(push: &Push, format: Format) -> String {
        encoded(&pusher(Mode::Plaintext, format), push).1
    }

    #[test]
    fn a_text_is_spelled_as_the_documentation_spells_it() {
        let push = Push::text(USER, "this is <a> \"test\"").with_msg_id(23_637_352_235_060_880);
        assert_eq!(
            plain(&push, Format::Json),
            r#"{"ToUserName":"gh_1","FromUserName":"oUser0000","CreateTime":1700000000,"MsgType":"text","Content":"this is <a> \"test\"","MsgId":23637352235060880}"#
        );
        assert_eq!(
            plain(&push, Format::Xml),
            "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[oUser0000]]></FromUserName>\
             <CreateTime>1700000000</CreateTime><MsgType><![CDATA[text]]></MsgType>\
             <Content><![CDATA[this is <a> \"test\"]]></Content><MsgId>23637352235060880</MsgId></xml>"
        );
    }

    #[test]
    fn a_list_of_one_is_an_object_in_json_and_all_lists_are_wrapped_in_xml() {
        let one = Push::sample("subscribe_popup_one").unwrap();
        let many = Push::sample("subscribe_popup_many").unwrap();
        let of = |push| serde_json::from_str::<Value>(&plain(push, Format::Json)).unwrap();
        assert_eq!(of(&one)["List"]["TemplateId"], "t1");
        assert_eq!(of(&one)["CreateTime"], "1700000000");
        assert_eq!(of(&many)["List"][1]["TemplateId"], "t2");
        let item = |t, status| {
            format!(
                "<List><TemplateId><![CDATA[{t}]]></TemplateId><SubscribeStatusString><![CDATA[{status}]]>\
                 </SubscribeStatusString><PopupScene><![CDATA[0]]></PopupScene></List>"
            )
        };
        let (first, second) = (item("t1", "accept"), item("t2", "reject"));
        let xml = plain(&one, Format::Xml);
        let popup = "SubscribeMsgPopupEvent";
        assert!(
            xml.ends_with(&format!("<{popup}>{first}</{popup}></xml>")),
            "{xml}"
        );
        assert!(xml.contains("<CreateTime>1700000000</CreateTime>"));
        let xml = plain(&many, Format::Xml);
        assert!(
            xml.ends_with(&format!("<{popup}>{first}{second}</{popup}></xml>")),
            "{xml}"
        );
        let list = json!([{ "TemplateId": "t1" }]);
        let given = Push::event("subscribe_msg_change_event", json!({ "List": list }));
        assert_eq!(of(&given)["List"]["TemplateId"], "t1");
    }

    #[test]
    fn each_mode_shows_and_signs_what_it_should() {
        let push = Push::text(USER, "hello").with_msg_id(7);
        for format in [Format::Json, Format::Xml] {
            let message = plain(&push, format);
            for mode in [Mode::Plaintext, Mode::Compatible, Mode::Secure] {
                let (query, body) = encoded(&pusher(mode, format), &push);
                let value = |name| value(&query, name);
                let (timestamp, nonce) = (value("timestamp"), value("nonce"));
                assert_eq!(timestamp, "1700000000");
                assert_eq!(value("signature"), sign([TOKEN, timestamp, nonce]));
                assert_eq!(value("openid"), USER);
                if mode == Mode::Plaintext {
                    assert_eq!(body, message);
                    assert_eq!((value("encrypt_type"), value("msg_signature")), ("", ""));
                    continue;
                }
                let document = match format {
                    Format::Json => serde_json::from_str(&body).unwrap(),
                    Format::Xml => document::read_xml(&body).unwrap(),
                };
                let encrypted = document.text("Encrypt").unwrap();
                assert_eq!(value("encrypt_type"), "aes");
                let signature = sign([TOKEN, timestamp, nonce, encrypted]);
                assert_eq!(value("msg_signature"), signature);
                let opened = AesKey::parse(KEY).unwrap().decrypt(encrypted).unwrap();
                assert_eq!(opened.message, message.as_bytes());
                assert_eq!(opened.receiver, b"wx0123456789abcdef");
                assert_eq!(document.text("ToUserName"), Some("gh_1"));
                let shown = document.text("Content");
                assert_eq!(shown, (mode == Mode::Compatible).then_some("hello"));
                assert_eq!(
                    document.0.len(),
                    if mode == Mode::Compatible { 7 } else { 2 }
                );
            }
        }
    }

    #[test]
    fn every_padding_occurs_and_no_two_encryptions_are_alike() {
        let pusher = pusher(Mode::Secure, Format::Json);
        let mut paddings = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for length in 0..32 {
            let push = Push::text(USER, "x".repeat(length)).with_msg_id(7);
            let length = plain(&push, Format::Json).len() + 38;
            for _ in 0..2 {
                let (_, body) = encoded(&pusher, &push);
                let body: Value = serde_json::from_str(&body).unwrap();
                let encrypted = body["Encrypt"].as_str().unwrap();
                paddings.insert(STANDARD.decode(encrypted).unwrap().len() - length);
                assert!(seen.insert(encrypted.to_owned()));
            }
        }
        assert_eq!(paddings, (1..=32).collect());
    }

    #[test]
    fn retries_are_counted_where_the_event_has_a_place_for_it() {
        let pusher = pusher(Mode::Plaintext, Format::Json);
        let push = Push::sample("xpay_refund_notify")
            .unwrap()
            .with_openid(USER);
        let sent = |number| {
            let (_, body) = pusher.encode_at(&push, number, Timestamp::from_millis(0));
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        assert_eq!(sent(1)["RetryTimes"], 0);
        assert_eq!(sent(3)["RetryTimes"], 2);
        assert_eq!(sent(1)["OpenId"], USER);
        assert_ne!(sent(1)["FromUserName"], USER);
        let text = Push::text(USER, "x");
        let second = Duration::from_secs(1);
        assert_eq!(pusher.pause(&push, 1, second), Duration::from_secs(2));
        assert_eq!(pusher.pause(&push, 3, second), Duration::from_secs(8));
        assert_eq!(pusher.pause(&text, 1, second), Duration::from_secs(4));
        assert_eq!(pusher.pause(&text, 2, 6 * second), Duration::ZERO);
    }

    #[test]
    fn every_sample_can_be_spelled_and_read_again() {
        for name in SAMPLES {
            let push = Push::sample(name).unwrap();
            let json = plain(&push, Format::Json);
            let read: Value = serde_json::from_str(&json).unwrap();
            assert!(
                !json.contains("$appid") && !json.contains("$openid"),
                "{json}"
            );
            if !push.is_bare() {
                assert_eq!(
                    read["Event"].as_str().is_some(),
                    !push.is_message(),
                    "{name}"
                );
                let xml = plain(&push, Format::Xml);
                assert!(document::read_xml(&xml).is_some(), "{xml}");
            }
        }
        let (query, body) =
            pusher(Mode::Secure, Format::Xml).encode(&Push::sample("container_check").unwrap());
        assert_eq!(
            (&*query, &body[..]),
            ("", &br#"{"action":"CheckContainerPath"}"#[..])
        );
    }

    #[test]
    fn fields_can_be_changed_and_given_to_events() {
        let push = Push::event("debug_demo", json!({ "debug_str": "a", "n": u64::MAX }))
            .with("debug_str", "b")
            .with("more", json!({ "x": [1, 2] }))
            .with_openid(USER)
            .with_create_time(5);
        assert_eq!(
            plain(&push, Format::Json),
            r#"{"ToUserName":"gh_1","FromUserName":"oUser0000","CreateTime":5,"MsgType":"event","Event":"debug_demo","debug_str":"b","n":18446744073709551615,"more":{"x":[1,2]}}"#
        );
    }

    #[test]
    fn a_receiver_needs_a_url_and_a_mode_its_key() {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let options = |to: &str, key: &str| {
            PushOptions::new(to, appid.clone(), Secret::new(TOKEN), Secret::new(key))
        };
        for wrong in ["", "a", "/p", "ftp://a/", "http://"] {
            assert!(Pusher::new(options(wrong, KEY)).is_err(), "{wrong}");
        }
        assert!(Pusher::new(options("http://a/", "short")).is_err());
        let without = |mode| PushOptions {
            aes_key: None,
            mode,
            ..options("https://a/b", KEY)
        };
        assert!(Pusher::new(without(Mode::Plaintext)).is_ok());
        assert!(Pusher::new(without(Mode::Compatible)).is_err());
        let target = pusher(Mode::Secure, Format::Json).target("a=b");
        assert_eq!(target, "http://a/p?x=1&a=b");
    }
}
