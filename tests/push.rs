//! Message push: what of WeChat's is taken, that what was acknowledged arrives, and that nothing else does.
//!
//! Other people's encryption is in `push_apps`, the simulator's in `sim_push`; here a push can be made wrong in every way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::crypto;
use wx_sidecar::domain::AppId;
use wx_sidecar::wechat::push::{EncodingAesKey, Envelope, Format, sign};

use crate::fake_app::{FakeApp, OK, Request, Signal};
use crate::h2_peer::{H2App, read_body};
use crate::http_client::{Client, Response};
use crate::patience::{comes_true, eventually};
use crate::process::{finished, write_configuration};
use crate::rig::{self, APPID, Rig, START, canary, replaced};

const TOKEN: &str = "pushTokenCanary00000000000000001";
const OLD_TOKEN: &str = "pushTokenCanary00000000000000002";
const KEY: &str = "canary7PushKey7aaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OLD_KEY: &str = "canary7PushKey7bbbbbbbbbbbbbbbbbbbbbbbbbbbG";
const OPENID: &str = "oPushUser0000000000000000001";

/// A push under construction: what WeChat sends, unless a test says otherwise.
#[derive(Clone)]
struct Sent {
    path: String,
    token: &'static str,
    key: &'static str,
    appid: &'static str,
    timestamp: u64,
    nonce: String,
    mode: Mode,
    format: Format,
    message: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plaintext,
    Compatible,
    Secure,
}

/// Nonces that are used once.
fn nonce() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(100_000);
    NEXT.fetch_add(1, Ordering::SeqCst).to_string()
}

impl Sent {
    fn json(message: &Value) -> Self {
        Self::of(Format::Json, message.to_string())
    }

    fn xml(message: &str) -> Self {
        Self::of(Format::Xml, message)
    }

    fn of(format: Format, message: impl Into<Vec<u8>>) -> Self {
        Self {
            path: "/wx/push".to_owned(),
            token: TOKEN,
            key: KEY,
            appid: APPID,
            timestamp: START.as_secs(),
            nonce: nonce(),
            mode: Mode::Secure,
            format,
            message: message.into(),
        }
    }

    fn plaintext(self) -> Self {
        Self {
            mode: Mode::Plaintext,
            ..self
        }
    }

    fn encrypted(&self) -> String {
        let key = EncodingAesKey::parse(self.key).unwrap();
        let appid = AppId::parse(self.appid).unwrap();
        key.seal(crypto::random(), &self.message, &appid)
    }

    fn body(&self, encrypted: &str) -> Vec<u8> {
        match (self.mode, self.format) {
            (Mode::Plaintext, _) => self.message.clone(),
            (Mode::Secure, Format::Json) => json!({"ToUserName": "gh_1", "Encrypt": encrypted})
                .to_string()
                .into_bytes(),
            (Mode::Secure, Format::Xml) => format!(
                "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
            )
            .into_bytes(),
            (Mode::Compatible, Format::Json) => {
                let mut both: Value = serde_json::from_slice(&self.message).unwrap();
                both["Encrypt"] = encrypted.into();
                both.to_string().into_bytes()
            }
            (Mode::Compatible, Format::Xml) => {
                let inner = String::from_utf8(self.message.clone()).unwrap();
                inner
                    .replace("</xml>", &format!("<Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"))
                    .into_bytes()
            }
        }
    }

    fn query(&self, encrypted: &str) -> String {
        let (timestamp, nonce) = (self.timestamp.to_string(), &self.nonce);
        let signature = sign(self.token, &[&timestamp, nonce]);
        let signed =
            format!("signature={signature}&timestamp={timestamp}&nonce={nonce}&openid={OPENID}");
        match self.mode {
            Mode::Plaintext => signed,
            _ => {
                let msg_signature = sign(self.token, &[&timestamp, nonce, encrypted]);
                format!("{signed}&encrypt_type=aes&msg_signature={msg_signature}")
            }
        }
    }

    /// The request target and the body.
    fn made(&self) -> (String, Vec<u8>) {
        let encrypted = match self.mode {
            Mode::Plaintext => String::new(),
            _ => self.encrypted(),
        };
        let target = format!("{}?{}", self.path, self.query(&encrypted));
        (target, self.body(&encrypted))
    }

    fn to(&self, rig: &Rig) -> Response {
        let (target, body) = self.made();
        post(rig, &target, &body)
    }
}

fn post(rig: &Rig, target: &str, body: &[u8]) -> Response {
    rig.request("POST", target, &[("Content-Type", "text/xml")], body)
}

/// A text message in JSON; those of one user are numbered.
fn text(openid: &str, number: u64) -> Value {
    json!({
        "ToUserName": "gh_1", "FromUserName": openid, "CreateTime": START.as_secs(),
        "MsgType": "text", "Content": format!("message {number}"), "MsgId": 23_637_352_235_060_880_u64 + number,
    })
}

fn push_section(more: &str) -> String {
    for secret in [TOKEN, OLD_TOKEN, KEY, OLD_KEY] {
        canary(secret);
    }
    let cap = match more.contains("retry_cap") {
        true => "",
        false => "retry_cap = \"1s\"\n",
    };
    // An app that is slow because the machine is busy gets nothing twice.
    format!("[push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\ntimeout = \"1m\"\n{cap}{more}\n")
}

fn rig(app: &FakeApp, more: &str) -> Rig {
    Rig::with(&app.url(), "", &push_section(more))
}

fn is_success(answer: &Response) {
    assert_eq!(
        (answer.status, answer.text()),
        (200, "success"),
        "{answer:?}"
    );
}

/// Waits until a series has a value.
fn becomes(rig: &Rig, series: &str, value: f64) {
    let mut seen = value;
    let is_so = comes_true(|| {
        seen = rig.metric(series);
        seen == value
    });
    assert!(is_so, "{series} is {seen}");
}

fn nothing_waits(rig: &Rig) {
    becomes(rig, "wx_sidecar_push_inbox_depth", 0.0);
}

/// An app whose answer to each request is what `answer` says.
fn app(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> FakeApp {
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            connection.write(&answer(&request));
        }
    })
}

fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} Status\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn answer(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The messages that the app got, as JSON.
fn bodies(requests: &[Request]) -> Vec<Value> {
    let parse = |request: &Request| serde_json::from_slice(&request.body).unwrap();
    requests.iter().map(parse).collect()
}

#[test]
fn the_handshake_echoes_what_is_signed_and_nothing_else() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    let handshake = |path: &str, token: &str, echostr: &str| {
        let signature = sign(token, &["1714036504", "1514711492"]);
        let query = format!(
            "signature={signature}&timestamp=1714036504&nonce=1514711492&echostr={echostr}"
        );
        rig.request("GET", &format!("{path}?{query}"), &[], b"")
    };
    let answered = handshake("/wx/push", TOKEN, "4375120948345356249");
    assert_eq!(
        (answered.status, answered.text()),
        (200, "4375120948345356249")
    );
    assert_eq!(
        answered.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let alias = handshake(&format!("/wx/portal/{APPID}"), TOKEN, "1");
    assert_eq!((alias.status, alias.text()), (200, "1"));
    let page = handshake("/wx/push", TOKEN, "%3Cscript%3E");
    assert_eq!(page.text(), "<script>");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let wrong = handshake("/wx/push", "another", "%3Cscript%3E");
    wrong.problem(401, "push-refused");
    assert!(!wrong.text().contains("script"));
    let unsigned = rig.request("GET", "/wx/push?echostr=1", &[], b"");
    unsigned.problem(401, "push-refused");
    assert_eq!(app.connections(), 0, "the app has no part in it");
}

#[test]
fn a_message_reaches_the_app_as_json_with_what_is_known_of_it() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    let message = "{\"ToUserName\":\"gh_1\", \"FromUserName\":\"oPushUser0000000000000000001\",\"CreateTime\":1800000000,\
                   \"MsgType\":\"text\",\"Content\":\"\\u4f60好\",\"MsgId\":23637352235060880}";
    is_success(&Sent::of(Format::Json, message).to(&rig));
    let request = app.only_request();
    assert_eq!(request.body, message.as_bytes(), "byte for byte");
    assert_eq!((request.method(), request.target()), ("POST", "/wx/push"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-wx-source", "wx_push"),
        ("x-wx-appid", APPID),
        ("x-wx-env", "prod"),
        ("x-wx-openid", OPENID),
        ("x-wx-msg-id", "23637352235060880"),
        ("x-wx-msg-type", "text"),
        ("x-wx-delivery-attempt", "1"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("x-wx-event"), None);
    assert_eq!(request.header("traceparent").unwrap().len(), 55);
    assert!(request.header("x-request-id").is_some());
    nothing_waits(&rig);
}

#[test]
fn xml_becomes_json_in_all_modes() {
    for (mode, name) in [
        (Mode::Plaintext, "plaintext"),
        (Mode::Compatible, "compatible"),
        (Mode::Secure, "secure"),
    ] {
        let app = FakeApp::agreeable();
        let rig = rig(&app, &format!("mode = \"{name}\""));
        let message = "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[oPushUser0000000000000000001]]></FromUserName>\
                       <CreateTime>1800000000</CreateTime><MsgType><![CDATA[event]]></MsgType>\
                       <Event><![CDATA[subscribe_msg_popup_event]]></Event><SubscribeMsgPopupEvent>\
                       <List><TemplateId><![CDATA[t1]]></TemplateId><SubscribeStatusString><![CDATA[accept]]></SubscribeStatusString></List>\
                       </SubscribeMsgPopupEvent></xml>";
        is_success(
            &Sent {
                mode,
                ..Sent::xml(message)
            }
            .to(&rig),
        );
        let request = app.only_request();
        assert_eq!(
            request.header("x-wx-event"),
            Some("subscribe_msg_popup_event"),
            "{name}"
        );
        let got: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(got["CreateTime"], 1_800_000_000, "{name}");
        assert_eq!(
            got["List"],
            json!([{"TemplateId": "t1", "SubscribeStatusString": "accept"}]),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_wechats_is_refused_and_reaches_nobody() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    let plain = Sent::json(&text(OPENID, 1)).plaintext();
    let secure = || Sent::json(&text(OPENID, 1));
    let with = |sent: Sent, change: &dyn Fn(&mut String, &mut Vec<u8>)| {
        let (mut target, mut body) = sent.made();
        change(&mut target, &mut body);
        post(&rig, &target, &body)
    };
    let cases: Vec<(&str, Response, &str)> = vec![
        ("no query", post(&rig, "/wx/push", b"{}"), "unsigned"),
        (
            "a plain message with a good signature",
            plain.to(&rig),
            "mode",
        ),
        (
            "the same that says it is encrypted",
            with(plain, &|target, _| target.push_str("&encrypt_type=aes")),
            "mode",
        ),
        (
            "another token",
            Sent {
                token: OLD_TOKEN,
                ..secure()
            }
            .to(&rig),
            "msg_signature",
        ),
        (
            "no msg_signature, and a good signature",
            with(secure(), &|target, _| {
                let at = target.find("&encrypt_type").unwrap();
                target.truncate(at);
            }),
            "msg_signature",
        ),
        (
            "a tampered ciphertext",
            with(secure(), &|_, body| {
                let at = 30;
                body[at] = if body[at] == b'A' { b'B' } else { b'A' };
            }),
            "msg_signature",
        ),
        (
            "a signature in capitals",
            with(secure(), &|target, _| {
                let at = target.find("msg_signature=").unwrap() + 14;
                let signature = target.split_off(at).to_uppercase();
                target.push_str(&signature);
            }),
            "msg_signature",
        ),
        (
            "another key",
            Sent {
                key: OLD_KEY,
                ..secure()
            }
            .to(&rig),
            "",
        ),
        (
            "another app's",
            Sent {
                appid: "wxfedcba9876543210",
                ..secure()
            }
            .to(&rig),
            "receiver",
        ),
        (
            "too old",
            Sent {
                timestamp: START.as_secs() - 600,
                ..secure()
            }
            .to(&rig),
            "stale",
        ),
        (
            "of the future",
            Sent {
                timestamp: START.as_secs() + 600,
                ..secure()
            }
            .to(&rig),
            "stale",
        ),
        (
            "in clear beside what is encrypted",
            Sent {
                mode: Mode::Compatible,
                ..secure()
            }
            .to(&rig),
            "mode",
        ),
        (
            "no message inside",
            Sent {
                message: b"hello".to_vec(),
                ..secure()
            }
            .to(&rig),
            "",
        ),
    ];
    for (case, answer, reason) in &cases {
        let problem = answer.problem(401, "push-refused");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("not a message"),
            "{case}"
        );
        if !reason.is_empty() {
            let series = format!("wx_sidecar_push_refused_total{{reason=\"{reason}\"}}");
            assert!(rig.metric(&series) > 0.0, "{case}: {series}");
        }
    }
    let details: Vec<_> = cases
        .iter()
        .map(|(_, answer, _)| answer.json()["detail"].clone())
        .collect();
    assert!(
        details.iter().all(|detail| *detail == details[0]),
        "nobody learns what was wrong"
    );
    assert_eq!(app.connections(), 0);
    assert_eq!(rig.metric("wx_sidecar_push_inbox_depth"), 0.0);
}

#[test]
fn what_cannot_be_read_is_told_so() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "mode = \"plaintext\"");
    let bomb = "<!DOCTYPE xml [<!ENTITY a \"aaaaaaaaaa\">]><xml><MsgType>&a;</MsgType></xml>";
    let deep = format!(
        "<xml>{}{}</xml>",
        "<a>".repeat(10_000),
        "</a>".repeat(10_000)
    );
    for (message, case) in [
        (bomb.as_bytes().to_vec(), "doctype"),
        (
            b"<xml><Encrypt>a</Encrypt><Encrypt>b</Encrypt></xml>".to_vec(),
            "twice",
        ),
        (deep.into_bytes(), "deep"),
        (b"".to_vec(), "empty"),
        (b"hello".to_vec(), "neither"),
        (
            b"{\"MsgType\":\"text\",\"MsgType\":\"event\"}".to_vec(),
            "member twice",
        ),
        (b"[1]".to_vec(), "array"),
        (b"\xff\xfe<\0x\0m\0l\0>\0".to_vec(), "UTF-16"),
    ] {
        let answer = Sent::of(Format::Xml, message).plaintext().to(&rig);
        answer.problem(400, "bad-request");
        assert_eq!(app.connections(), 0, "{case}");
    }
    let large = vec![b' '; 1_100_000];
    let answer = Sent::of(Format::Xml, large).plaintext().to(&rig);
    answer.problem(413, "body-too-large");
    let answer = rig.request("PUT", "/wx/push", &[], b"");
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET, POST"));
}

#[test]
fn a_format_that_is_configured_is_the_only_one() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "format = \"xml\"");
    Sent::json(&text(OPENID, 1))
        .to(&rig)
        .problem(400, "bad-request");
}

#[test]
fn in_plaintext_mode_nothing_goes_without_the_signature_or_encrypted() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "mode = \"plaintext\"");
    let wrong = Sent {
        token: OLD_TOKEN,
        ..Sent::json(&text(OPENID, 1)).plaintext()
    };
    wrong.to(&rig).problem(401, "push-refused");
    let (target, body) = Sent::json(&text(OPENID, 1)).plaintext().made();
    let at = target.find("signature=").unwrap();
    let unsigned = format!("{}{}", &target[..at], &target[at + 10 + 40 + 1..]);
    post(&rig, &unsigned, &body).problem(401, "push-refused");
    Sent::json(&text(OPENID, 1))
        .to(&rig)
        .problem(401, "push-refused");
    assert_eq!(app.connections(), 0);
    is_success(&Sent::json(&text(OPENID, 1)).plaintext().to(&rig));
    app.requests(1);
}

#[test]
fn a_signature_that_was_seen_signs_no_other_message() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "mode = \"plaintext\"");
    let genuine = Sent::json(&text(OPENID, 1)).plaintext();
    is_success(&genuine.to(&rig));
    let forged = Sent {
        message: text(OPENID, 666).to_string().into_bytes(),
        ..genuine.clone()
    };
    forged.to(&rig).problem(401, "push-refused");
    assert!(rig.metric("wx_sidecar_push_refused_total{reason=\"nonce\"}") > 0.0);
    is_success(&genuine.to(&rig));
    nothing_waits(&rig);
    assert_eq!(
        app.requests(1).len(),
        1,
        "the repetition is no second message"
    );
}

#[test]
fn during_a_rotation_both_tokens_and_both_keys_are_good() {
    let app = FakeApp::agreeable();
    let section = replaced(
        &push_section(""),
        &format!("token = \"{TOKEN}\"\naes_key = \"{KEY}\""),
        &format!("token = [\"{TOKEN}\", \"{OLD_TOKEN}\"]\naes_key = [\"{KEY}\", \"{OLD_KEY}\"]"),
    );
    let rig = Rig::with(&app.url(), "", &section);
    let mut number = 0;
    for token in [TOKEN, OLD_TOKEN] {
        for key in [KEY, OLD_KEY] {
            number += 1;
            is_success(
                &Sent {
                    token,
                    key,
                    ..Sent::json(&text(OPENID, number))
                }
                .to(&rig),
            );
        }
    }
    app.requests(4);
}

#[test]
fn a_reload_changes_what_pushes_are_judged_by_and_where_they_go() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    app.requests(1);
    let changed = rig.config_with(TOKEN, OLD_TOKEN);
    let changed = replaced(&changed, "retry_cap", "deliver = \"/elsewhere\"\nretry_cap");
    rig.sidecar()
        .reload(wx_sidecar::Config::from_toml(&changed).unwrap())
        .unwrap();
    Sent::json(&text(OPENID, 2))
        .to(&rig)
        .problem(401, "push-refused");
    is_success(
        &Sent {
            token: OLD_TOKEN,
            ..Sent::json(&text(OPENID, 2))
        }
        .to(&rig),
    );
    assert_eq!(app.requests(2)[1].target(), "/elsewhere");
    let moved = replaced(&changed, "retry_cap", "max_waiting = 7\nretry_cap");
    let refused = rig
        .sidecar()
        .reload(wx_sidecar::Config::from_toml(&moved).unwrap());
    assert!(refused.unwrap_err().to_string().contains("[push] journal"));
}

#[test]
fn a_message_that_comes_again_is_acknowledged_and_not_delivered_again() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    for _ in 0..3 {
        is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    }
    nothing_waits(&rig);
    assert_eq!(app.requests(1).len(), 1);
    let duplicates = "wx_sidecar_push_total{result=\"duplicate\",type=\"text\"}";
    assert_eq!(rig.metric(duplicates), 2.0);
    rig.advance(Duration::from_secs(2 * 3600));
    is_success(
        &Sent {
            timestamp: START.as_secs() + 7200,
            ..Sent::json(&text(OPENID, 1))
        }
        .to(&rig),
    );
    assert_eq!(app.requests(2).len(), 2, "nobody remembers for ever");
}

/// WxJava issue 333: fifteen people spoke at once, their messages had one MsgId, and half of them were taken for repetitions.
#[test]
fn fifteen_voice_messages_of_one_burst_all_survive() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    for user in 0..15 {
        let message = json!({
            "ToUserName": "gh_1", "FromUserName": format!("oPushUser00000000000000000{user:02}"), "CreateTime": START.as_secs(),
            "MsgType": "voice", "MediaId": format!("m{user}"), "Format": "amr", "MsgId": 6_464_464_464_u64,
        });
        is_success(&Sent::json(&message).to(&rig));
    }
    assert_eq!(app.requests(15).len(), 15);
}

/// WxJava issue 2705: two pictures were checked in one second, and the second verdict was lost.
#[test]
fn two_verdicts_on_media_of_one_second_both_survive() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    let verdict = |trace: &str| {
        json!({
            "ToUserName": "gh_1", "FromUserName": "oPlatform", "CreateTime": START.as_secs(), "MsgType": "event",
            "Event": "wxa_media_check", "trace_id": trace, "errcode": 0, "result": {"suggest": "pass", "label": 100},
        })
    };
    for trace in ["a", "b", "a"] {
        is_success(&Sent::json(&verdict(trace)).to(&rig));
    }
    nothing_waits(&rig);
    let requests = app.requests(2);
    assert_eq!(requests.len(), 2);
    let ids: Vec<_> = requests
        .iter()
        .map(|request| request.header("x-wx-msg-id").unwrap())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_app_that_is_away_gets_everything_in_order_when_it_is_back() {
    let away = Arc::new(Mutex::new(true));
    let seen = Arc::clone(&away);
    let app = app(move |_| match *seen.lock().unwrap() {
        true => status(503),
        false => OK.to_vec(),
    });
    let rig = rig(&app, "");
    let users = ["oPushUserA", "oPushUserB", "oPushUserC"];
    for number in 0..10 {
        for user in users {
            is_success(&Sent::json(&text(user, number)).to(&rig));
        }
    }
    assert_eq!(rig.metric("wx_sidecar_push_inbox_depth"), 30.0);
    app.requests(2);
    *away.lock().unwrap() = false;
    nothing_waits(&rig);
    let attempts = app.requests(30);
    for user in users {
        let of_user = attempts
            .iter()
            .filter(|request| request.header("x-wx-openid") == Some(user));
        let mut ids: Vec<_> = of_user
            .map(|request| request.header("x-wx-msg-id").unwrap())
            .collect();
        ids.dedup();
        let expected: Vec<_> = (0..10)
            .map(|n| (23_637_352_235_060_880_u64 + n).to_string())
            .collect();
        assert_eq!(ids, expected, "{user}");
    }
    assert!(rig.metric("wx_sidecar_push_deliveries_total{result=\"unreachable\"}") >= 1.0);
    assert_eq!(
        rig.metric("wx_sidecar_push_deliveries_total{result=\"accepted\"}"),
        30.0
    );
}

#[test]
fn a_message_that_the_app_fails_at_holds_up_its_own_user_only() {
    let app = app(|request| match request.header("x-wx-openid") {
        Some("oPushUserBad") => status(500),
        _ => OK.to_vec(),
    });
    let rig = rig(&app, "");
    is_success(&Sent::json(&text("oPushUserBad", 1)).to(&rig));
    is_success(&Sent::json(&text("oPushUserBad", 2)).to(&rig));
    for number in 0..5 {
        is_success(&Sent::json(&text("oPushUserGood", number)).to(&rig));
    }
    becomes(&rig, "wx_sidecar_push_inbox_depth", 2.0);
    let requests = app.requests(6);
    let second = requests.iter().any(|request| {
        request.header("x-wx-msg-id") == Some("23637352235060882")
            && request.header("x-wx-openid") == Some("oPushUserBad")
    });
    assert!(!second, "it waits for the first");
}

#[test]
fn a_message_that_the_app_calls_wrong_becomes_a_dead_letter_and_can_be_replayed() {
    let wrong = Arc::new(Mutex::new(true));
    let seen = Arc::clone(&wrong);
    let app = app(move |request| match request.header("x-wx-openid") {
        Some("oPushUserBad") if *seen.lock().unwrap() => status(422),
        _ => OK.to_vec(),
    });
    let rig = rig(&app, "");
    is_success(&Sent::json(&text("oPushUserBad", 1)).to(&rig));
    is_success(&Sent::json(&text("oPushUserBad", 2)).to(&rig));
    nothing_waits(&rig);
    becomes(&rig, "wx_sidecar_push_dead_letters", 2.0);
    assert_eq!(rig.metric("wx_sidecar_push_given_up_total"), 2.0);
    let page = rig.admin("/push/dead-letters").json();
    let letters = page["letters"].as_array().unwrap();
    let ids: Vec<_> = letters
        .iter()
        .map(|letter| letter["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["23637352235060881", "23637352235060882"]);
    assert_eq!(
        letters[0]["death"]["reason"],
        "the app answers 422 Unprocessable Entity"
    );
    assert_eq!(letters[0]["death"]["attempts"], 5);
    assert_eq!(letters[0]["message"]["Content"], "message 1");

    *wrong.lock().unwrap() = false;
    let admin = |method: &str, target: &str, headers: &[(&str, &str)]| {
        Client::connect(rig.sidecar().admin_addr()).request(method, target, headers, b"")
    };
    let by_a_page = admin(
        "POST",
        "/push/dead-letters/replay",
        &[("Origin", "https://evil.example")],
    );
    assert_eq!(by_a_page.status, 403);
    let replayed = admin("POST", "/push/dead-letters/23637352235060881/replay", &[]);
    assert_eq!(
        (replayed.status, replayed.json()),
        (200, json!({"replayed": 1}))
    );
    nothing_waits(&rig);
    let last = app.requests(11).pop().unwrap();
    assert_eq!(last.header("x-wx-msg-id"), Some("23637352235060881"));
    let dropped = admin("DELETE", "/push/dead-letters/23637352235060882", &[]);
    assert_eq!(dropped.json(), json!({"dropped": 1}));
    assert_eq!(rig.metric("wx_sidecar_push_dead_letters"), 0.0);
}

#[test]
fn the_command_asks_a_running_sidecar_by_whatever_way_it_is_to_be_asked() {
    const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"";
    const KNOWN: &str = "adminTokenCanary0000000000001";
    const OTHER: &str = "adminTokenCanary0000000000002";
    canary(KNOWN);
    canary(OTHER);
    let app = app(|_| status(422));
    let rig = rig(&app, "retry_cap = \"100ms\"");
    for number in 1..=4 {
        is_success(&Sent::json(&text("oPushUserBad", number)).to(&rig));
    }
    becomes(&rig, "wx_sidecar_push_dead_letters", 4.0);
    let push = |order: &[&str], admin: &str| {
        let config = rig.config_with(ADMIN, &format!("[admin]\nlisten = {admin}"));
        let config = write_configuration(&config);
        finished(&[&["push"], order, &["-c", config.to_str().unwrap()]].concat())
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("admin.sock").display());
    let token = format!("token = \"{KNOWN}\"");
    for (number, (listen, more)) in [("127.0.0.1:0", ""), ("127.0.0.1:0", &*token), (&socket, "")]
        .into_iter()
        .enumerate()
    {
        rig.reload(ADMIN, &format!("[admin]\nlisten = \"{listen}\"\n{more}"));
        let place = match listen.starts_with("unix:") {
            true => listen.to_owned(),
            false => rig.sidecar().admin_addr().to_string(),
        };
        let place = format!("\"{place}\"\n{more}");
        let (code, listed, stderr) = push(&["list", "--dead", "--json"], &place);
        assert_eq!((code, &*stderr), (0, ""), "{place}");
        assert_eq!(listed.lines().count(), 4 - number, "{listed}");
        let (_, waiting, stderr) = push(&["list"], &place);
        assert_eq!((&*waiting, &*stderr), ("nothing waits\n", ""));
        let letter: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        let dropped = push(&["drop", letter["id"].as_str().unwrap()], &place);
        assert_eq!(dropped, (0, "1 message thrown away\n".into(), "".into()));
    }
    for order in ["replay", "drop"] {
        let (code, stdout, stderr) = push(&[order, "unknown"], &format!("\"{socket}\""));
        assert_eq!((code, &*stdout), (1, ""));
        assert!(stderr.contains("\"unknown\""), "{stderr}");
    }
    let (code, replayed, _) = push(&["replay", "--all"], &format!("\"{socket}\""));
    assert_eq!(
        (code, &*replayed),
        (0, "1 message will be delivered again\n")
    );
    rig.reload(ADMIN, &format!("{ADMIN}\n{token}"));
    let place = format!("\"{}\"\n", rig.sidecar().admin_addr());
    for wrong in [place.clone(), format!("{place}token = \"{OTHER}\"")] {
        let (code, stdout, stderr) = push(&["list"], &wrong);
        assert_eq!((code, &*stdout), (1, ""));
        assert!(
            stderr.contains("401: show the token of [admin]"),
            "{stderr}"
        );
    }
}

#[test]
fn an_app_that_had_troubles_of_its_own_may_still_call_a_message_wrong_four_times() {
    let times = AtomicUsize::new(0);
    let app = app(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => status(500),
        2..=5 => status(422),
        _ => OK.to_vec(),
    });
    let rig = rig(&app, "retry_cap = \"100ms\"");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    nothing_waits(&rig);
    assert_eq!(rig.metric("wx_sidecar_push_dead_letters"), 0.0);
    assert_eq!(app.requests(7).len(), 7);
}

#[test]
fn a_message_that_is_never_accepted_is_given_up_after_its_time() {
    let app = FakeApp::answering(status(500));
    let rig = rig(&app, "retry_for = \"10m\"");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    app.requests(2);
    assert_eq!(rig.metric("wx_sidecar_push_dead_letters"), 0.0);
    rig.advance(Duration::from_secs(601));
    becomes(&rig, "wx_sidecar_push_dead_letters", 1.0);
    nothing_waits(&rig);
}

#[test]
fn a_message_that_waits_can_be_listed_and_thrown_away() {
    let app = FakeApp::answering(status(500));
    let rig = rig(&app, "");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    is_success(&Sent::json(&text(OPENID, 2)).to(&rig));
    app.requests(1);
    let page = rig.admin("/push/inbox?limit=1").json();
    assert_eq!(page["letters"][0]["id"], "23637352235060881");
    let next = page["next"].as_u64().unwrap();
    let page = rig
        .admin(&format!("/push/inbox?from={next}&limit=10"))
        .json();
    assert_eq!(page["letters"][0]["id"], "23637352235060882");
    let dropped = Client::connect(rig.sidecar().admin_addr()).request(
        "DELETE",
        "/push/inbox/23637352235060882",
        &[],
        b"",
    );
    assert_eq!(dropped.json(), json!({"dropped": 1}));
    becomes(&rig, "wx_sidecar_push_inbox_depth", 1.0);
}

#[test]
fn what_was_acknowledged_survives_a_restart_and_what_was_seen_too() {
    let down = Arc::new(Mutex::new(true));
    let seen = Arc::clone(&down);
    let app = app(move |_| match *seen.lock().unwrap() {
        true => status(503),
        false => OK.to_vec(),
    });
    let directory = tempfile::tempdir().unwrap();
    let mut rig = rig(
        &app,
        &format!("journal = \"{}\"", directory.path().display()),
    );
    for number in 0..5 {
        is_success(&Sent::json(&text(OPENID, number)).to(&rig));
    }
    rig.restart();
    assert_eq!(rig.metric("wx_sidecar_push_inbox_depth"), 5.0);
    is_success(&Sent::json(&text(OPENID, 3)).to(&rig));
    *down.lock().unwrap() = false;
    nothing_waits(&rig);
    // What the sidecar before it brought last, the app may note late.
    let mut ids = Vec::new();
    for request in app.requests(5) {
        let id = request.header("x-wx-msg-id").unwrap().to_owned();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    assert!(ids.len() == 5 && ids.is_sorted(), "{ids:?}");
    let accepted = "wx_sidecar_push_deliveries_total{result=\"accepted\"}";
    assert_eq!(rig.metric(accepted), 5.0, "each is taken once");
    rig.restart();
    is_success(&Sent::json(&text(OPENID, 3)).to(&rig));
    let duplicates = "wx_sidecar_push_total{result=\"duplicate\",type=\"text\"}";
    assert_eq!(rig.metric(duplicates), 1.0);
}

#[test]
fn a_journal_has_one_sidecar() {
    let app = FakeApp::agreeable();
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(
        &app,
        &format!("journal = \"{}\"", directory.path().display()),
    );
    let config = wx_sidecar::Config::from_toml(rig.config()).unwrap();
    let second = wx_sidecar::Sidecar::start_at(config, rig.clock.clone());
    let error = second.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("another process has this journal open"),
        "{cause}"
    );
}

#[test]
fn a_full_inbox_acknowledges_nothing_so_that_wechat_keeps_it() {
    let full = Arc::new(Mutex::new(true));
    let seen = Arc::clone(&full);
    let app = app(move |_| match *seen.lock().unwrap() {
        true => status(503),
        false => OK.to_vec(),
    });
    let rig = rig(&app, "max_waiting = 2");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    is_success(&Sent::json(&text(OPENID, 2)).to(&rig));
    let refused = Sent::json(&text(OPENID, 3)).to(&rig);
    refused.problem(503, "push-not-stored");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(
        rig.metric("wx_sidecar_push_total{result=\"full\",type=\"text\"}"),
        1.0
    );
    is_success(&Sent::json(&text(OPENID, 2)).to(&rig));
    *full.lock().unwrap() = false;
    nothing_waits(&rig);
    is_success(&Sent::json(&text(OPENID, 3)).to(&rig));
    nothing_waits(&rig);
}

#[test]
fn the_app_answers_wechat_itself_if_it_is_waited_for() {
    let app = FakeApp::answering(answer("{\"MsgType\":\"transfer_customer_service\"}"));
    let rig = rig(&app, "reply = \"wait\"");
    let sent = Sent::xml(
        "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[oPushUser0000000000000000001]]></FromUserName>\
         <CreateTime>1800000000</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[help]]></Content><MsgId>1</MsgId></xml>",
    );
    // WeChat asks again, with another nonce, if the app was too late, as it may be on a busy machine.
    let (mut sent, mut replied) = (sent.clone(), sent.to(&rig));
    eventually("the app answers in time", || {
        let is_late = replied.text() == "success";
        if is_late {
            sent.nonce = nonce();
            replied = sent.to(&rig);
        }
        !is_late
    });
    assert_eq!(replied.status, 200);
    assert_eq!(replied.header("content-type"), Some("text/xml"));
    let opened = |reply: &Response| {
        let envelope = Envelope::parse(Format::Xml, reply.text().as_bytes()).unwrap();
        let key = EncodingAesKey::parse(KEY).unwrap();
        let plain = key
            .open(envelope.encrypted().unwrap(), &AppId::parse(APPID).unwrap())
            .unwrap();
        String::from_utf8(plain.to_vec()).unwrap()
    };
    let plain = opened(&replied);
    for part in [
        "<MsgType><![CDATA[transfer_customer_service]]></MsgType>",
        "<ToUserName><![CDATA[oPushUser0000000000000000001]]></ToUserName>",
        "<FromUserName><![CDATA[gh_1]]></FromUserName>",
    ] {
        assert!(plain.contains(part), "{plain}");
    }
    assert!(
        replied
            .text()
            .contains(&format!("<Nonce><![CDATA[{}]]></Nonce>", sent.nonce))
    );
    let again = Sent {
        nonce: nonce(),
        ..sent
    }
    .to(&rig);
    assert_eq!(
        opened(&again),
        plain,
        "WeChat asks again, and hears the same"
    );
    assert_eq!(app.requests(1).len(), 1, "the app does not");
    assert_eq!(
        rig.metric("wx_sidecar_push_replies_total{result=\"sent\"}"),
        2.0
    );
}

#[test]
fn an_app_that_has_nothing_to_say_or_says_nonsense_costs_no_message() {
    for said in [
        "success",
        "",
        "{}",
        "<html>500</html>",
        "[1]",
        "{\"ok\":true}",
        "{\"MsgType\":\"text\",\"Content\":\"hello\"}",
        "<xml><MsgType>text</MsgType></xml>",
    ] {
        let app = FakeApp::answering(answer(said));
        let rig = rig(&app, "reply = \"wait\"");
        let replies = |result: &str| {
            let series = format!("wx_sidecar_push_replies_total{{result=\"{result}\"}}");
            rig.metric(&series)
        };
        // WeChat asks again if the app was too late, as it may be on a busy machine.
        eventually("the app answers in time", || {
            let late = replies("late");
            is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
            replies("late") == late
        });
        nothing_waits(&rig);
        assert_eq!(app.requests(1).len(), 1);
        let is_nonsense = !matches!(said, "success" | "" | "{}");
        let invalid = f64::from(u8::from(is_nonsense));
        assert_eq!(replies("invalid"), invalid, "{said}");
    }
}

#[test]
fn an_app_that_is_too_late_to_answer_has_the_message_nevertheless() {
    let answered = Signal::default();
    let wechat_is_answered = answered.clone();
    let app = FakeApp::start(move |connection| {
        while let Some(_request) = connection.read_request().filter(|request| request.complete) {
            wechat_is_answered.wait();
            connection.write(&answer("{\"MsgType\":\"transfer_customer_service\"}"));
        }
    });
    let rig = rig(&app, "reply = \"wait\"");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    assert_eq!(
        rig.metric("wx_sidecar_push_inbox_depth"),
        1.0,
        "it is under way"
    );
    answered.give();
    assert_eq!(
        rig.metric("wx_sidecar_push_replies_total{result=\"late\"}"),
        1.0
    );
    nothing_waits(&rig);
    assert_eq!(app.requests(1).len(), 1);
}

#[test]
fn kinds_of_messages_go_where_their_routes_say() {
    let app = FakeApp::agreeable();
    let rig = rig(
        &app,
        "[[push.route]]\ncontent = \"人工*\"\ndeliver = \"/human?from=push\"\n\
         [[push.route]]\nevent = \"debug_demo\"\ndeliver = \"/debug\"\nenvelope = \"cloudevents\"\n",
    );
    let mut human = text(OPENID, 1);
    human["Content"] = "人工客服".into();
    let debug = json!({
        "ToUserName": "gh_1", "FromUserName": OPENID, "CreateTime": 1_714_037_059, "MsgType": "event", "Event": "debug_demo",
        "debug_str": "hello world",
    });
    for message in [&human, &text(OPENID, 2), &debug] {
        is_success(&Sent::json(message).to(&rig));
    }
    let requests = app.requests(3);
    let targets: Vec<_> = requests.iter().map(Request::target).collect();
    assert_eq!(targets, ["/human?from=push", "/wx/push", "/debug"]);
    let event = &requests[2];
    assert_eq!(
        event.header("content-type"),
        Some("application/cloudevents+json; charset=utf-8")
    );
    let event = bodies(std::slice::from_ref(event)).remove(0);
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "com.weixin.miniprogram.event.debug_demo");
    assert_eq!(event["source"], format!("/wechat/{APPID}"));
    assert_eq!(event["subject"], OPENID);
    assert_eq!(event["time"], "2024-04-25T09:24:19Z");
    assert_eq!(event["data"], debug);
    assert_eq!(event["id"], requests[2].header("x-wx-msg-id").unwrap());
}

#[test]
fn the_check_of_a_container_path_is_answered_here() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    is_success(&post(
        &rig,
        "/wx/push",
        b"{\"action\":\"CheckContainerPath\"}",
    ));
    is_success(
        &Sent::xml("<xml><action><![CDATA[CheckContainerPath]]></action></xml>")
            .plaintext()
            .to(&rig),
    );
    assert_eq!(app.connections(), 0);
}

#[test]
fn the_seed_demos_portal_takes_messages_too() {
    let app = FakeApp::agreeable();
    let rig = rig(&app, "");
    is_success(
        &Sent {
            path: format!("/wx/portal/{APPID}"),
            ..Sent::json(&text(OPENID, 1))
        }
        .to(&rig),
    );
    app.requests(1);
    let other = Sent {
        path: "/wx/portal/wxfedcba9876543210".to_owned(),
        ..Sent::json(&text(OPENID, 2))
    };
    other.to(&rig).problem(404, "not-found");
}

#[test]
fn without_a_push_section_there_is_nothing_here_and_it_says_so() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let answer = Sent::json(&text(OPENID, 1))
        .to(&rig)
        .problem(404, "not-found");
    assert!(answer["hint"].as_str().unwrap().contains("[push]"));
    assert_eq!(rig.admin("/push/inbox").status, 404);
}

#[test]
fn an_app_on_a_unix_socket_and_one_that_speaks_http_2_get_messages_too() {
    let unix = FakeApp::on_a_unix_socket(|connection| {
        while connection
            .read_request()
            .is_some_and(|request| request.complete)
        {
            connection.write(OK);
        }
    });
    let rig = rig(&unix, "");
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    let request = unix.only_request();
    assert_eq!(request.header("host"), Some("localhost"));
    nothing_waits(&rig);
    let h2c = H2App::start(|mut call| async move {
        assert_eq!(call.header("x-wx-msg-id"), "23637352235060881");
        read_body(&mut call.body).await.unwrap();
        call.answer(&[], true);
    });
    let rig = Rig::with(&h2c.url(), "", &push_section(""));
    is_success(&Sent::json(&text(OPENID, 1)).to(&rig));
    nothing_waits(&rig);
    assert_eq!(h2c.requests().len(), 1);
}

/// What is in memory only is delivered before the end, because nobody would after it.
#[tokio::test]
async fn a_sidecar_that_is_told_to_end_delivers_what_it_has_in_memory() {
    let open = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&open);
    let app = app(move |_| match *seen.lock().unwrap() {
        true => OK.to_vec(),
        false => status(503),
    });
    let inbound = "drain_timeout = \"2m\"";
    let config = rig::configuration("http://127.0.0.1:1", &app.url(), inbound, &push_section(""));
    let clock = wx_sidecar::clock::Clock::manual(START);
    let sidecar = rig::start(&config, &clock);
    let mut client = Client::connect(sidecar.inbound_addr());
    for number in 0..3 {
        let (target, body) = Sent::json(&text(OPENID, number)).made();
        is_success(&client.request("POST", &target, &[], &body));
    }
    drop(client);
    app.requests(1);
    *open.lock().unwrap() = true;
    sidecar.shutdown().await;
    let mut ids: Vec<_> = app
        .requests(4)
        .iter()
        .map(|request| request.header("x-wx-msg-id").unwrap().to_owned())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}
