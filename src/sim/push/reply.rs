//! How WeChat understands a reply, and why it would try again.
//!
//! Stricter than WeChat where nobody knows how far its patience goes: what passes here should pass there. The advice is
//! for somebody who sees a push fail for the first time.

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use serde::Serialize;

use super::cipher::{AesKey, sign};
use super::document::{Field, Fields, read_xml};
use super::{Format, Mode, Push, PushOptions};

/// Carrier events of logistics, which are questions: their answer is a document of their own.
const QUESTIONS: [&str; 8] = [
    "add_waybill",
    "add_single_waybill",
    "cancel_waybill",
    "cancel_single_waybill",
    "check_biz",
    "get_quota",
    "waybill_add",
    "waybill_cancel",
];

/// How WeChat understands a reply that contents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Nothing: taken.
    Empty,
    /// `success`: taken.
    Success,
    /// `transfer_customer_service`: a person will answer the user.
    Transfer,
    /// `ErrCode` 0: taken.
    ErrCode,
    /// A document of the event's own, such as an answer to a carrier event.
    Document,
    /// The `echostr` of a handshake.
    Echo,
}

/// Why WeChat would try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody could be connected to; the cause.
    NoConnection(String),
    /// There was no whole reply within this time.
    Timeout(Duration),
    /// The connection broke, or what came was no HTTP; the cause.
    Broken(String),
    /// An HTTP status other than 200.
    Status(u16),
    /// A reply that WeChat does not understand or must not believe; what is wrong with it.
    Reply(&'static str),
    /// `ErrCode` is this number and not 0.
    ErrCode(String),
}

/// A reply as judged.
pub(super) struct Judged {
    /// Decrypted, if it was encrypted and that could be done.
    pub(super) text: String,
    pub(super) encrypted: bool,
    pub(super) verdict: Result<Reply, Reason>,
}

impl Judged {
    /// Of a reply that did not come.
    pub(super) fn unread(reason: Reason) -> Self {
        Self {
            text: String::new(),
            encrypted: false,
            verdict: Err(reason),
        }
    }
}

/// What a reply is held against.
pub(super) struct Judge<'a> {
    pub(super) options: &'a PushOptions,
    pub(super) key: Option<&'a AesKey>,
    pub(super) push: &'a Push,
}

impl Judge<'_> {
    pub(super) fn judge(&self, status: StatusCode, body: &[u8]) -> Judged {
        let judged = |text: &str, encrypted, verdict| Judged {
            text: text.to_owned(),
            encrypted,
            verdict,
        };
        let Ok(text) = std::str::from_utf8(body) else {
            let text = String::from_utf8_lossy(body);
            return judged(&text, false, Err(Reason::Reply("it is not UTF-8")));
        };
        if status != StatusCode::OK {
            return judged(text, false, Err(Reason::Status(status.as_u16())));
        }
        let document = match self.plain(text) {
            Ok(Ok(reply)) => return judged(text, false, self.answers(reply)),
            Ok(Err(document)) => document,
            Err(wrong) => return judged(text, false, Err(Reason::Reply(wrong))),
        };
        if document.get("Encrypt").is_none() {
            let verdict = match self.options.mode {
                Mode::Secure if !self.push.is_bare() => Err(Reason::Reply(
                    "it is a document in clear, and in the mode secure documents are encrypted",
                )),
                _ => self.understand(&document),
            };
            return judged(text, false, verdict);
        }
        let opened = match self.open(&document) {
            Ok(opened) => opened,
            Err(wrong) => return judged(text, true, Err(Reason::Reply(wrong))),
        };
        let verdict = match self.plain(&opened) {
            Ok(Ok(reply)) => self.answers(reply),
            Ok(Err(document)) => self.understand(&document),
            Err(wrong) => Err(Reason::Reply(wrong)),
        };
        judged(&opened, true, verdict)
    }

    /// One of the replies that are no document, or a document in the format of the push.
    fn plain(&self, text: &str) -> Result<Result<Reply, Fields>, &'static str> {
        match text {
            "" => return Ok(Ok(Reply::Empty)),
            "success" => return Ok(Ok(Reply::Success)),
            _ => {}
        }
        if text
            .trim_matches(|c: char| c.is_whitespace() || c == '"')
            .eq_ignore_ascii_case("success")
        {
            return Err("it is not `success` to the letter: no quotes, no capitals, no line end");
        }
        let trimmed = text.trim_start();
        let format = match trimmed.as_bytes().first() {
            Some(b'{') => Format::Json,
            Some(b'<') => Format::Xml,
            _ => return Err("it is neither empty, nor `success`, nor a document"),
        };
        let document = match format {
            Format::Json => serde_json::from_str(trimmed).ok(),
            Format::Xml => read_xml(trimmed),
        };
        if format != self.options.format && !self.push.is_bare() {
            return Err(match format {
                Format::Json => "it is JSON, and the push is XML",
                Format::Xml => "it is XML, and the push is JSON",
            });
        }
        document
            .map(Err)
            .ok_or("it is a document that is malformed")
    }

    /// Whether a reply that says nothing is enough.
    fn answers(&self, reply: Reply) -> Result<Reply, Reason> {
        match self.push.event_name() {
            Some(event) if QUESTIONS.contains(&event) => Err(Reason::Reply(
                "the event is a question, which only a document of its own answers",
            )),
            _ => Ok(reply),
        }
    }

    /// What is in an encrypted reply.
    fn open(&self, reply: &Fields) -> Result<String, &'static str> {
        let key = match (self.key, self.options.mode) {
            (Some(key), Mode::Compatible | Mode::Secure) => key,
            _ => return Err("it is encrypted, and the mode is plaintext"),
        };
        let member = |name: &str| match reply.get(name) {
            Some(Field::Text(text)) => Some(text.clone()),
            Some(Field::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let encrypted = member("Encrypt").ok_or("its `Encrypt` is no text")?;
        let signature = reply
            .text("MsgSignature")
            .ok_or("it has no `MsgSignature`")?;
        let timestamp = member("TimeStamp").ok_or("it has no `TimeStamp`")?;
        let nonce = member("Nonce").ok_or("it has no `Nonce`")?;
        if signature != sign([self.options.token.expose(), &timestamp, &nonce, &encrypted]) {
            return Err(
                "its `MsgSignature` is not that of our token, `TimeStamp`, `Nonce` and `Encrypt`",
            );
        }
        let opened = key.decrypt(&encrypted)?;
        if opened.receiver != self.options.appid.as_str().as_bytes() {
            return Err("the appid that is encrypted in it is another");
        }
        String::from_utf8(opened.message).map_err(|_| "what is encrypted in it is not UTF-8")
    }

    fn understand(&self, document: &Fields) -> Result<Reply, Reason> {
        if document.text("MsgType").is_some() {
            return self.transfer(document).map_err(Reason::Reply);
        }
        match document.get("ErrCode") {
            Some(Field::Number(number)) if number.as_i64() == Some(0) => return Ok(Reply::ErrCode),
            // XML knows no numbers.
            Some(Field::Text(text)) if text == "0" && self.options.format == Format::Xml => {
                return Ok(Reply::ErrCode);
            }
            Some(Field::Number(number)) => return Err(Reason::ErrCode(number.to_string())),
            Some(Field::Text(text)) if self.options.format == Format::Xml => {
                return Err(Reason::ErrCode(text.clone()));
            }
            Some(_) => return Err(Reason::Reply("its `ErrCode` is no number")),
            None => {}
        }
        let takes_any = match self.push.event_name() {
            // The console's debugging tool shows whatever it is told.
            Some("debug_demo") => true,
            Some(event) => QUESTIONS.contains(&event),
            None => self.push.is_bare(),
        };
        match takes_any {
            true => Ok(Reply::Document),
            false => Err(Reason::Reply(
                "it is a document that means nothing in reply to this push",
            )),
        }
    }

    fn transfer(&self, document: &Fields) -> Result<Reply, &'static str> {
        if document.text("MsgType") != Some("transfer_customer_service") {
            return Err(
                "its `MsgType` is not `transfer_customer_service`: Mini Programs answer a user by message/custom/send, \
                 and have no passive replies",
            );
        }
        if !self.push.is_message() {
            return Err(
                "an event cannot be transferred to customer service, only a user's message",
            );
        }
        if document.text("ToUserName") != Some(self.push.openid()) {
            return Err("its `ToUserName` is not the user's openid, the push's `FromUserName`");
        }
        if document.text("FromUserName") != Some(&self.options.original_id) {
            return Err("its `FromUserName` is not the push's `ToUserName`");
        }
        if document.get("CreateTime").is_none() {
            return Err("it has no `CreateTime`");
        }
        Ok(Reply::Transfer)
    }
}

/// Whether a handshake was answered with its `echostr`.
pub(super) fn echoed(status: StatusCode, body: &[u8], echostr: &str) -> Result<Reply, Reason> {
    if status != StatusCode::OK {
        return Err(Reason::Status(status.as_u16()));
    }
    if body == echostr.as_bytes() {
        return Ok(Reply::Echo);
    }
    let has_it = String::from_utf8_lossy(body).contains(echostr);
    Err(Reason::Reply(match has_it {
        true => "it has more in it than the echostr: no quotes, no line end, no markup",
        false => "it is not the echostr",
    }))
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty reply",
            Self::Success => "`success`",
            Self::Transfer => "`transfer_customer_service`",
            Self::ErrCode => "`ErrCode` 0",
            Self::Document => "a document",
            Self::Echo => "the echostr",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(cause) => write!(f, "no connection ({cause})"),
            Self::Timeout(after) => write!(f, "no whole reply within {} ms", after.as_millis()),
            Self::Broken(cause) => write!(f, "the exchange broke off ({cause})"),
            Self::Status(status) => write!(f, "HTTP {status} is not 200"),
            Self::Reply(wrong) => write!(f, "the reply is wrong: {wrong}"),
            Self::ErrCode(code) => write!(f, "the reply's `ErrCode` is {code}"),
        }
    }
}

impl Reason {
    /// What to look at first.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NoConnection(_) => {
                "Nobody listens there: is the receiver running, and are host and port right? A certificate that no public \
                 authority signed is no connection either."
            }
            Self::Timeout(_) => {
                "The receiver takes too long. WeChat cuts the connection after 5 seconds: acknowledge first, work afterwards."
            }
            Self::Broken(_) => {
                "The receiver closed the connection in the middle, or does not speak HTTP at this port (HTTPS instead?)."
            }
            Self::Status(401 | 403) => {
                "The receiver takes the push for a forgery: token or AES key differ from its own, or appid, mode or clock do."
            }
            Self::Status(404) => {
                "The receiver runs, and the path is wrong. The sidecar's is /wx/push, and it must have a [push] section."
            }
            Self::Status(405) => {
                "Something is at this path that takes no POST: is it the right path?"
            }
            Self::Status(400) => {
                "The receiver cannot read the document: is the format (xml, json) the one it expects?"
            }
            Self::Status(413) => "The push is larger than the receiver takes.",
            Self::Status(503) => {
                "The receiver cannot store the push now, and asks for another try."
            }
            Self::Status(300..=399) => {
                "WeChat follows no redirect: push to where it leads, with the right scheme (http, https) and slash."
            }
            Self::Status(502 | 504) => "A proxy answered, and the receiver behind it did not.",
            Self::Status(500..=599) => "The receiver failed; its log says why.",
            Self::Status(_) => {
                "WeChat takes 200 for an acknowledgement, and of other statuses promises nothing."
            }
            Self::Reply(_) => {
                "Answer with an empty body or `success`, unless the event has a reply of its own."
            }
            Self::ErrCode(_) => {
                "The app refuses the event: WeChat will send it again until `ErrCode` is 0."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::AppId;
    use crate::secret::Secret;

    const KEY: &str = "kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR";
    const USER: &str = "oUser0000";

    struct Bench {
        options: PushOptions,
        push: Push,
    }

    fn bench(mode: Mode, format: Format) -> Bench {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let options = PushOptions {
            mode,
            format,
            original_id: "gh_1".to_owned(),
            ..PushOptions::new("http://a/", appid, Secret::new("AAAAA"), Secret::new(KEY))
        };
        let push = Push::text(USER, "x");
        Bench { options, push }
    }

    impl Bench {
        fn told(&self, status: u16, body: &str) -> Judged {
            let key = AesKey::parse(KEY).unwrap();
            let judge = Judge {
                options: &self.options,
                key: Some(&key),
                push: &self.push,
            };
            judge.judge(StatusCode::from_u16(status).unwrap(), body.as_bytes())
        }

        fn verdict(&self, body: &str) -> Result<Reply, Reason> {
            self.told(200, body).verdict
        }

        fn is_wrong(&self, body: &str, why: &str) {
            match self.verdict(body) {
                Err(Reason::Reply(wrong)) => assert!(wrong.contains(why), "{body}: {wrong}"),
                other => panic!("{body}: {other:?}"),
            }
        }

        /// A reply as an app would encrypt it.
        fn sealed(&self, message: &str) -> String {
            let key = AesKey::parse(KEY).unwrap();
            let encrypted = key.encrypt([9; 16], message.as_bytes(), &self.options.appid);
            let signature = sign(["AAAAA", "1713424427", "415670741", &encrypted]);
            match self.options.format {
                Format::Json => json!({
                    "Encrypt": encrypted, "MsgSignature": signature, "TimeStamp": 1_713_424_427,
                    "Nonce": "415670741",
                })
                .to_string(),
                Format::Xml => format!(
                    "<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt><MsgSignature><![CDATA[{signature}]]></MsgSignature>\
                     <TimeStamp>1713424427</TimeStamp><Nonce><![CDATA[415670741]]></Nonce></xml>"
                ),
            }
        }
    }

    fn transfer(format: Format) -> String {
        match format {
            Format::Json => json!({
                "ToUserName": USER, "FromUserName": "gh_1", "CreateTime": 1_399_197_672,
                "MsgType": "transfer_customer_service",
            })
            .to_string(),
            Format::Xml => format!(
                "<xml><ToUserName><![CDATA[{USER}]]></ToUserName><FromUserName><![CDATA[gh_1]]></FromUserName>\
                 <CreateTime>1399197672</CreateTime><MsgType><![CDATA[transfer_customer_service]]></MsgType></xml>"
            ),
        }
    }

    #[test]
    fn nothing_and_success_content_wechat_in_every_mode_and_format() {
        for mode in [Mode::Plaintext, Mode::Compatible, Mode::Secure] {
            for format in [Format::Json, Format::Xml] {
                let bench = bench(mode, format);
                assert_eq!(bench.verdict(""), Ok(Reply::Empty));
                assert_eq!(bench.verdict("success"), Ok(Reply::Success));
                for near in ["SUCCESS", "\"success\"", "success\n"] {
                    bench.is_wrong(near, "to the letter");
                }
                bench.is_wrong("ok", "neither empty");
                bench.is_wrong(
                    "{",
                    if format == Format::Json {
                        "malformed"
                    } else {
                        "JSON"
                    },
                );
            }
        }
    }

    #[test]
    fn documents_are_in_clear_or_encrypted_as_the_mode_has_it() {
        for format in [Format::Json, Format::Xml] {
            let plain = transfer(format);
            let bench_of = |mode| bench(mode, format);
            let sealed = bench_of(Mode::Secure).sealed(&plain);
            for (mode, clear, encrypted) in [
                (Mode::Plaintext, true, false),
                (Mode::Compatible, true, true),
                (Mode::Secure, false, true),
            ] {
                let bench = bench_of(mode);
                assert_eq!(bench.verdict(&plain).is_ok(), clear, "{mode:?}");
                let judged = bench.told(200, &sealed);
                assert_eq!(judged.verdict.is_ok(), encrypted, "{mode:?}");
                if encrypted {
                    assert_eq!((judged.text, judged.encrypted), (plain.clone(), true));
                }
            }
            let bench = bench_of(Mode::Secure);
            assert_eq!(bench.verdict(&bench.sealed("success")), Ok(Reply::Success));
        }
    }

    #[test]
    fn the_documentations_encrypted_reply_is_taken() {
        let appid = AppId::parse("wxba5fad812f8e6fb9").unwrap();
        let key = "A".repeat(43);
        let options =
            PushOptions::new("http://a/", appid, Secret::new("AAAAA"), Secret::new(&*key));
        let key = AesKey::parse(&key).unwrap();
        let judge = Judge {
            options: &options,
            key: Some(&key),
            push: &Push::event("debug_demo", json!({ "debug_str": "hello world" })),
        };
        let reply = br#"{"Encrypt":"ELGduP2YcVatjqIS+eZbp80MNLoAUWvzzyJxgGzxZO/5sAvd070Bs6qrLARC9nVHm48Y4hyRbtzve1L32tmxSQ==","MsgSignature":"1b9339964ed2e271e7c7b6ff2b0ef902fc94dea1","TimeStamp":1713424427,"Nonce":"415670741"}"#;
        let judged = judge.judge(StatusCode::OK, reply);
        assert_eq!(judged.verdict, Ok(Reply::Document));
        assert_eq!(judged.text, r#"{"demo_resp":"good luck"}"#);
    }

    #[test]
    fn a_reply_that_was_tampered_with_is_not_believed() {
        let bench = bench(Mode::Secure, Format::Json);
        let sealed = bench.sealed(&transfer(Format::Json));
        bench.is_wrong(&sealed.replace("1713424427", "1713424428"), "MsgSignature");
        bench.is_wrong(
            &sealed.replace("MsgSignature", "msg_signature"),
            "no `MsgSignature`",
        );
        let mut other = bench;
        other.options.appid = AppId::parse("wxfedcba9876543210").unwrap();
        other.is_wrong(&sealed, "appid");
        other.options.token = Secret::new("BBBBB");
        other.is_wrong(&sealed, "MsgSignature");
    }

    #[test]
    fn only_a_message_is_transferred_and_only_to_who_wrote_it() {
        let mut bench = bench(Mode::Plaintext, Format::Json);
        let right = transfer(Format::Json);
        assert_eq!(bench.verdict(&right), Ok(Reply::Transfer));
        bench.is_wrong(&right.replace(USER, "oOther000"), "ToUserName");
        bench.is_wrong(&right.replace("gh_1", "gh_2"), "FromUserName");
        bench.is_wrong(
            &right.replace("transfer_customer_service", "text"),
            "MsgType",
        );
        bench.push = Push::event("user_enter_tempsession", json!({}));
        bench.is_wrong(&right, "event");
    }

    #[test]
    fn events_have_replies_of_their_own() {
        let mut bench = bench(Mode::Plaintext, Format::Json);
        let taken = r#"{"ErrCode":0,"ErrMsg":"success"}"#;
        let refused = r#"{"ErrCode":-1,"ErrMsg":"no"}"#;
        bench.push = Push::event("xpay_goods_deliver_notify", json!({ "RetryTimes": 0 }));
        assert_eq!(bench.verdict(taken), Ok(Reply::ErrCode));
        assert_eq!(
            bench.verdict(refused),
            Err(Reason::ErrCode("-1".to_owned()))
        );
        bench.is_wrong(r#"{"ErrCode":"0"}"#, "no number");
        bench.is_wrong(r#"{"a":1}"#, "means nothing");
        bench.push = Push::event("add_waybill", json!({}));
        bench.is_wrong("success", "question");
        assert_eq!(bench.verdict(r#"{"a":1}"#), Ok(Reply::Document));

        bench.options.format = Format::Xml;
        bench.push = Push::event("xpay_refund_notify", json!({}));
        let taken = "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>";
        assert_eq!(bench.verdict(taken), Ok(Reply::ErrCode));
        let refused = taken.replace('0', "7");
        assert_eq!(
            bench.verdict(&refused),
            Err(Reason::ErrCode("7".to_owned()))
        );
    }

    #[test]
    fn every_status_but_200_is_a_reason_to_try_again_with_advice() {
        let bench = bench(Mode::Secure, Format::Json);
        for status in [201, 204, 301, 400, 401, 404, 405, 413, 500, 502, 503] {
            let verdict = bench.told(status, "success").verdict;
            assert_eq!(verdict, Err(Reason::Status(status)));
            assert!(!verdict.err().unwrap().advice().is_empty());
        }
    }

    #[test]
    fn an_echo_is_the_echostr_and_nothing_more() {
        let echo = |status, body: &[u8]| echoed(StatusCode::from_u16(status).unwrap(), body, "123");
        assert_eq!(echo(200, b"123"), Ok(Reply::Echo));
        assert_eq!(echo(401, b"123"), Err(Reason::Status(401)));
        for body in [&b"\"123\""[..], b"123\n", b"", b"12"] {
            assert!(matches!(echo(200, body), Err(Reason::Reply(_))));
        }
    }
}
