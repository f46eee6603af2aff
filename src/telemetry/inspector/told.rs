//! What is told of what was seen, as the page's JSON. README and the page say what each member means.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::kept::Kept;
use super::mask;
use super::record::{Failure, Fields, Kind, Record, WechatCall};
use crate::domain::OpenId;
use crate::telemetry::pseudonym::Pseudonyms;

/// The longest target that stands in the list, in characters, and of how many bytes of it that is made.
const LONGEST_TARGET: usize = 300;
const OF_A_TARGET: usize = 1024;
/// How long an openid and a unionid are at WeChat.
const OPENID_LENGTH: usize = 28;
/// What is longer than this is mostly a token, or bytes in base64, in which an openid stands apart or not at all.
const LONGEST_WORD: usize = 48;
/// What an escape may leave before it.
const LONGEST_ESCAPE: usize = 2;

/// What users are called.
pub(crate) enum Names<'a> {
    /// By their openids: whoever looks is a developer, and they are nobody's.
    Openids,
    /// By what the log calls them.
    Pseudonyms(&'a Pseudonyms),
}

impl Names<'_> {
    /// Text without openids, if they are not to be told, and without what is secret.
    fn text(&self, text: &str) -> String {
        self.without_openids(&mask::text(text))
    }

    fn without_openids(&self, text: &str) -> String {
        let Self::Pseudonyms(pseudonyms) = self else {
            return text.to_owned();
        };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_of_id) {
            let word = &rest[start..];
            let end = word.find(|c| !is_of_id(c)).unwrap_or(word.len());
            let (word, behind) = word.split_at(end);
            out.push_str(&rest[..start]);
            push_word(word, pseudonyms, &mut out);
            rest = behind;
        }
        out.push_str(rest);
        out
    }

    /// What can be told of a text that was cut: of a word at its end, only half an openid may be there.
    fn of_cut<'t>(&self, text: &'t str) -> &'t str {
        match self {
            Self::Openids => text,
            Self::Pseudonyms(_) => text.trim_end_matches(is_of_id),
        }
    }

    fn user(&self, openid: &str) -> String {
        match (self, OpenId::parse(openid)) {
            (Self::Pseudonyms(pseudonyms), Ok(id)) => pseudonyms.of(&id).as_str().to_owned(),
            (Self::Pseudonyms(_), Err(_)) => "***".to_owned(),
            (Self::Openids, _) => openid.to_owned(),
        }
    }

    /// What may hold the openid of this one as well, whatever that looks like and wherever it stands.
    fn about(&self, record: &Record, text: &str) -> String {
        match (self, &record.openid) {
            (Self::Pseudonyms(_), Some(openid)) => {
                self.text(&text.replace(openid, &self.user(openid)))
            }
            _ => self.text(text),
        }
    }

    fn field(&self, record: &Record, name: &str, value: &str) -> String {
        self.about(record, &mask::field(name, value))
    }
}

fn is_of_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// A word, and of each openid in it the pseudonym: of those that stand apart from the rest of it by `-` or `_`, as in the name of a
/// room or a lock, and of the one in a short word, whatever an escape or an app has put before it (`n` of `\n`, `22` of `%22`).
fn push_word(word: &str, pseudonyms: &Pseudonyms, out: &mut String) {
    let mut rest = word;
    while let Some(start) = apart(rest, 0) {
        let end = start + OPENID_LENGTH;
        rest = match apart(rest, start + 1).filter(|other| *other < end) {
            // It may be either.
            Some(other) => {
                out.push_str(&rest[..start]);
                out.push_str("***");
                &rest[other + OPENID_LENGTH..]
            }
            None => push_openid(rest, start, pseudonyms, out),
        };
    }
    let is_untouched = rest.len() == word.len();
    let is_short = (OPENID_LENGTH..=LONGEST_WORD).contains(&word.len());
    match word.find('o') {
        Some(start) if is_untouched && is_short && start + OPENID_LENGTH <= word.len() => {
            let behind = push_openid(word, start, pseudonyms, out);
            out.push_str(behind);
        }
        _ => out.push_str(rest),
    }
}

/// Where the first openid from `least` on begins that stands apart from the rest of a word.
fn apart(word: &str, least: usize) -> Option<usize> {
    let bytes = word.as_bytes();
    let is_divider = |at: usize| bytes.get(at).is_none_or(|b| matches!(b, b'-' | b'_'));
    let starts = word.match_indices('o').map(|(start, _)| start);
    let mut starts = starts.skip_while(|start| *start < least);
    starts.find(|start| {
        let begins = *start <= LONGEST_ESCAPE || is_divider(start - 1);
        begins && start + OPENID_LENGTH <= word.len() && is_divider(start + OPENID_LENGTH)
    })
}

/// Writes what is before the openid at `start`, and its pseudonym; gives back what is behind it.
fn push_openid<'w>(
    word: &'w str,
    start: usize,
    pseudonyms: &Pseudonyms,
    out: &mut String,
) -> &'w str {
    let (before, rest) = word.split_at(start);
    let (openid, behind) = rest.split_at(OPENID_LENGTH);
    out.push_str(before);
    match OpenId::parse(openid) {
        Ok(openid) => out.push_str(pseudonyms.of(&openid).as_str()),
        Err(_) => out.push_str("***"),
    }
    behind
}

/// A line of the list.
pub(super) fn summary(record: &Record, names: &Names<'_>) -> Value {
    let target = match record.target.len() {
        ..=OF_A_TARGET => &record.target,
        _ => names.of_cut(&record.target[..record.target.floor_char_boundary(OF_A_TARGET)]),
    };
    let target = names.about(record, target);
    let target: String = target.chars().take(LONGEST_TARGET).collect();
    let failure = record.failure.as_ref();
    let refused = || record.wechat.iter().find_map(|call| call.failure.as_ref());
    let message = record.message.as_ref();
    json!({
        "kind": match record.kind {
            Kind::Request => "request",
            Kind::Call => "call",
            Kind::Message => "push",
        },
        "at": record.at,
        "state": if record.has_ended { "done" } else { "open" },
        "method": record.method,
        "target": target,
        "route": record.route,
        "status": record.status,
        "took_us": record.took.map(micros),
        "user": record.openid.as_ref().map(|openid| names.user(openid)),
        "problem": failure.map(|it| it.slug),
        "errcode": failure.or_else(refused).and_then(|it| it.errcode),
        "calls": record.wechat.len(),
        "trace": record.trace,
        "request_id": record.request_id,
        "attempts": message.map(|it| it.attempts.last().map_or(0, |(_, last)| last.number)),
        "outcome": message.map(|it| it.outcome),
    })
}

/// All that is known.
pub(super) fn detail(record: &Record, names: &Names<'_>) -> Value {
    let text = |text: &str| names.about(record, text);
    let fields = |fields: &Fields| -> Vec<[String; 2]> {
        let told =
            |(name, value): &(String, String)| [name.clone(), names.field(record, name, value)];
        fields.iter().map(told).collect()
    };
    let body = |kept: &Kept, of: &Fields| {
        let is_told_raw = matches!(names, Names::Openids) || is_medium(of);
        let text = |text: &str, whole: bool| {
            names.about(record, if whole { text } else { names.of_cut(text) })
        };
        body(kept, &text, is_told_raw)
    };
    let none = Fields::new();
    let more = json!({
        "client": record.client,
        "protocol": record.protocol,
        "failure": record.failure.as_ref().map(|it| failure(it, &text)),
        "phone": json!({
            "fields": fields(&record.fields),
            "body": body(&record.body, &record.fields),
        }),
        "app": record.forwarded.as_ref().map(|app| json!({
            "url": app.url,
            "method": app.method,
            "target": text(&app.target),
            "fields": fields(&app.fields),
            "added": added(&record.fields, &app.fields),
            "dropped": app.dropped.iter().map(|(name, value, why)| {
                [name.clone(), names.field(record, name, value), why.clone()]
            }).collect::<Vec<_>>(),
            "body": body(&app.body, &app.fields),
            "answer": app.answer.as_ref().map(|(status, lines)| {
                json!({ "status": status, "fields": fields(lines) })
            }),
        })),
        "answer": record.answered.as_ref().map(|answer| json!({
            "status": answer.status,
            "fields": fields(&answer.fields),
            "body": body(&answer.body, &answer.fields),
        })),
        "open_data": record.open_data.iter().map(|data| {
            let told = String::from_utf8_lossy(data.bytes());
            let told = if data.is_whole() { text(&told) } else { text(names.of_cut(&told)) };
            serde_json::from_str(&told).unwrap_or(Value::String(told))
        }).collect::<Vec<_>>(),
        "wechat": record.wechat.iter().map(|call| wechat(call, &text)).collect::<Vec<_>>(),
        "timings": {
            "total_us": record.took.map(micros),
            "own_us": record.legs.own.map(micros),
            "wechat_us": record.legs.wechat.map(micros),
            "app_us": record.legs.app.map(micros),
            "asked_us": record.legs.asked.map(micros),
            "answered_us": record.legs.answered.map(micros),
        },
        "push": record.message.as_ref().map(|it| json!({
            "message_id": text(&it.id),
            "type": it.kind,
            "event": it.event,
            "openid": it.openid.as_ref().map(|openid| names.user(openid)),
            "body": body(&it.body, &none),
            "replayable": record.stored().is_some(),
            "attempts": it.attempts.iter().map(|(at, attempt)| json!({
                "at": at,
                "path": text(&attempt.path),
                "attempt": attempt.number,
                "status": attempt.status,
                "error": attempt.error.as_deref().map(text),
                "took_us": micros(attempt.took),
            })).collect::<Vec<_>>(),
        })),
    });
    let mut detail = summary(record, names);
    let all: Option<&mut Map<_, _>> = detail.as_object_mut();
    if let (Some(all), Value::Object(more)) = (all, more) {
        all.extend(more);
        // The list has it short.
        all.insert("target".to_owned(), text(&record.target).into());
    }
    detail
}

/// The names of what the app is told and the phone did not say.
fn added(phone: &Fields, app: &Fields) -> Vec<String> {
    let is_new = |(name, value): &&(String, String)| {
        !phone
            .iter()
            .any(|(known, said)| known.eq_ignore_ascii_case(name) && said == value)
    };
    let mut names: Vec<_> = app
        .iter()
        .filter(is_new)
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.dedup();
    names
}

/// Whether what has such a head is a picture, a voice or a film.
fn is_medium(fields: &Fields) -> bool {
    let mut kinds = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    kinds.any(|(_, kind)| {
        let kind = kind.to_ascii_lowercase();
        ["image/", "audio/", "video/"]
            .iter()
            .any(|it| kind.starts_with(it))
    })
}

/// A body, if there is one. Text is told as text; of what was cut within a character, what is before it. What is no text is told
/// byte for byte only if that `raw` is harmless, because nothing can be masked in it; else as what can be read of it.
fn body(kept: &Kept, text: &dyn Fn(&str, bool) -> String, raw: bool) -> Value {
    if kept.size() == 0 {
        return Value::Null;
    }
    let bytes = kept.bytes();
    let whole = kept.is_whole();
    let readable = match std::str::from_utf8(bytes) {
        Ok(all) => Some(all),
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let told = match readable {
        Some(readable) => Some(text(readable, whole)),
        None if raw => None,
        None => Some(text(&String::from_utf8_lossy(bytes), whole)),
    };
    json!({
        "size": kept.size(),
        "kept": bytes.len(),
        "base64": told.is_none().then(|| STANDARD.encode(bytes)),
        "text": told,
    })
}

fn wechat(call: &WechatCall, text: &dyn Fn(&str) -> String) -> Value {
    let mut told = json!({
        "at": call.at(),
        "method": call.method,
        "path": call.path,
        "status": call.status,
        "errcode": 0,
        "took_us": micros(call.took),
    });
    if let Some(known) = &call.failure {
        let failure = failure(known, text);
        for name in ["errcode", "errmsg", "rid", "title", "hint"] {
            told[name] = failure[name].clone();
        }
        told["problem"] = failure["slug"].clone();
    }
    told
}

fn failure(failure: &Failure, text: &dyn Fn(&str) -> String) -> Value {
    let [en, zh] = &failure.title;
    let [hint, hint_zh] = &failure.hint;
    json!({
        "slug": failure.slug,
        "errcode": failure.errcode,
        "errmsg": failure.errmsg.as_deref().map(text),
        "rid": failure.rid,
        "title": { "en": text(en), "zh": text(zh) },
        "hint": hint.as_ref().map(|en| json!({ "en": en, "zh": hint_zh.as_ref().unwrap_or(en) })),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::AppId;
    use crate::secret::Secret;
    use crate::telemetry::inspector::record::Began;

    const ALICE: &str = "oAlice0000000000000000000000";
    const BOB: &str = "oBob-_0000000000000000000000";

    fn pseudonyms() -> Pseudonyms {
        let appid = AppId::parse("wx0123456789abcdef").expect("it is one");
        Pseudonyms::derive(&appid, &Secret::new("told"))
    }

    fn record(kind: &str, body: &[u8]) -> Record {
        let began = Began {
            kind: Kind::Request,
            method: "POST".to_owned(),
            target: format!("/a?who=%22{BOB}%22"),
            protocol: "HTTP/1.1",
            request_id: "r".to_owned(),
            trace: String::new(),
            client: None,
            fields: vec![("content-type".to_owned(), kind.to_owned())],
        };
        let mut record = Record::new(began, &Arc::default());
        record.received(0, body);
        record
    }

    #[test]
    fn in_production_no_openid_is_told_whatever_stands_around_it() {
        let pseudonyms = pseudonyms();
        let names = Names::Pseudonyms(&pseudonyms);
        let openid = OpenId::parse(ALICE).expect("it is one");
        let alias = pseudonyms.of(&openid).to_string();
        for (before, behind) in [
            ("", ""),
            ("{\"touser\":\"", "\"}"),
            ("%22", "%22"),
            ("\\n", "\\n"),
            ("user-", ""),
            ("微信", "。"),
        ] {
            let told = names.text(&format!("{before}{ALICE}{behind}"));
            assert_eq!(told, format!("{before}{alias}{behind}"));
        }
        let other = pseudonyms
            .of(&OpenId::parse(BOB).expect("it is one"))
            .to_string();
        for (text, told) in [
            (
                format!("chat/{ALICE}_{BOB}"),
                format!("chat/{alias}_{other}"),
            ),
            (
                format!("session-20240101120000-shop-orders-{ALICE}"),
                format!("session-20240101120000-shop-orders-{alias}"),
            ),
            (
                format!("22{ALICE}-and-some-more-of-it-{BOB}_1"),
                format!("22{alias}-and-some-more-of-it-{other}_1"),
            ),
        ] {
            assert_eq!(names.text(&text), told);
        }
        // The word before it could be the beginning of one.
        let told = names.text("session-20240101120000-orders-oAlice0123456789abcde_ABCDEF");
        assert_eq!(told, "session-20240101120000-***");
        let detail = detail(
            &record("application/json", format!("\"\\n{BOB}\"").as_bytes()),
            &names,
        );
        assert!(!detail.to_string().contains(BOB), "{detail}");
        for harmless in [
            "oShort",
            "0af7651916cd43dd8448eb211c80319c",
            "hello, orange",
        ] {
            assert_eq!(names.text(harmless), harmless);
        }
    }

    #[test]
    fn of_an_openid_that_was_cut_nothing_is_told() {
        let pseudonyms = pseudonyms();
        let hidden = Names::Pseudonyms(&pseudonyms);
        let mut cut = record("text/plain", format!("users: {}", &ALICE[..27]).as_bytes());
        cut.streams(100);
        let filler = "a/".repeat(OF_A_TARGET / 2 - 10);
        cut.target = format!("/{filler}{ALICE}");
        let told = detail(&cut, &hidden);
        assert_eq!(told["phone"]["body"]["text"], "users: ");
        let target = summary(&cut, &hidden)["target"].to_string();
        assert!(!target.contains("oAlice"), "{target}");
    }

    #[test]
    fn what_is_no_text_is_told_byte_for_byte_only_where_nothing_can_be_in_it() {
        let pseudonyms = pseudonyms();
        let hidden = Names::Pseudonyms(&pseudonyms);
        let bytes = b"{\"access_token\":\"abc\"}\xff";
        let told = |kind: &str, names: &Names<'_>| {
            detail(&record(kind, bytes), names)["phone"]["body"].clone()
        };
        let text = told("application/json", &hidden);
        assert_eq!(text["base64"], Value::Null);
        let text = text["text"].as_str().expect("a text");
        assert!(text.contains("\"***\"") && !text.contains("abc"), "{text}");
        assert!(told("image/png", &hidden)["base64"].is_string());
        assert!(told("application/octet-stream", &Names::Openids)["base64"].is_string());
    }

    #[test]
    fn of_a_text_that_was_cut_within_a_character_what_is_before_it_is_told() {
        let mut cut = record("text/plain", "微信".as_bytes().split_at(4).0);
        cut.streams(6);
        let body = detail(&cut, &Names::Openids)["phone"]["body"].clone();
        assert_eq!(
            body,
            json!({ "size": 6, "kept": 4, "text": "微", "base64": null })
        );
    }
}
