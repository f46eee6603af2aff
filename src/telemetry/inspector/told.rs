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

/// The longest target that stands in the list.
const LONGEST_TARGET: usize = 300;
/// How long an openid and a unionid are at WeChat.
const OPENID_LENGTH: usize = 28;

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
        let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_of_id) {
            let word = &rest[start..];
            let end = word.find(|c| !is_of_id(c)).unwrap_or(word.len());
            let (word, behind) = word.split_at(end);
            out.push_str(&rest[..start]);
            match OpenId::parse(word) {
                Ok(id) if word.len() == OPENID_LENGTH && word.starts_with('o') => {
                    out.push_str(pseudonyms.of(&id).as_str());
                }
                _ => out.push_str(word),
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }

    fn user(&self, openid: &str) -> String {
        match (self, OpenId::parse(openid)) {
            (Self::Pseudonyms(pseudonyms), Ok(id)) => pseudonyms.of(&id).as_str().to_owned(),
            (Self::Pseudonyms(_), Err(_)) => "***".to_owned(),
            (Self::Openids, _) => openid.to_owned(),
        }
    }

    /// What may hold the openid of this one as well, whatever that looks like.
    fn about(&self, record: &Record, text: &str) -> String {
        let told = self.text(text);
        match (self, &record.openid) {
            (Self::Pseudonyms(_), Some(openid)) => told.replace(openid, &self.user(openid)),
            _ => told,
        }
    }
}

/// A line of the list.
pub(super) fn summary(record: &Record, names: &Names<'_>) -> Value {
    let target = names.about(record, &record.target);
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
    let body = |kept: &Kept| body(kept, &text);
    let more = json!({
        "client": record.client,
        "protocol": record.protocol,
        "failure": record.failure.as_ref().map(failure),
        "phone": json!({ "fields": fields(&record.fields), "body": body(&record.body) }),
        "app": record.forwarded.as_ref().map(|app| json!({
            "url": app.url,
            "method": app.method,
            "target": text(&app.target),
            "fields": fields(&app.fields),
            "added": added(&record.fields, &app.fields),
            "dropped": app.dropped.iter().map(|(name, value, why)| {
                [name.clone(), names.field(record, name, value), why.clone()]
            }).collect::<Vec<_>>(),
            "body": body(&app.body),
            "answer": app.answer.as_ref().map(|(status, lines)| {
                json!({ "status": status, "fields": fields(lines) })
            }),
        })),
        "answer": record.answered.as_ref().map(|answer| json!({
            "status": answer.status,
            "fields": fields(&answer.fields),
            "body": body(&answer.body),
        })),
        "open_data": record.open_data.iter().map(|data| {
            let told = text(&String::from_utf8_lossy(data.bytes()));
            serde_json::from_str(&told).unwrap_or(Value::String(told))
        }).collect::<Vec<_>>(),
        "wechat": record.wechat.iter().map(wechat).collect::<Vec<_>>(),
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
            "body": body(&it.body),
            "replayable": record.stored().is_some(),
            "attempts": it.attempts.iter().map(|(at, attempt)| json!({
                "at": at,
                "path": attempt.path,
                "attempt": attempt.number,
                "status": attempt.status,
                "error": attempt.error,
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

impl Names<'_> {
    fn field(&self, record: &Record, name: &str, value: &str) -> String {
        self.about(record, &mask::field(name, value))
    }
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

/// A body, if there is one. Text is told as text; of what was cut within a character, what is before it.
fn body(kept: &Kept, text: &dyn Fn(&str) -> String) -> Value {
    if kept.size() == 0 {
        return Value::Null;
    }
    let bytes = kept.bytes();
    let whole = bytes.len() as u64 == kept.size();
    let readable = match std::str::from_utf8(bytes) {
        Ok(all) => Some(all),
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    json!({
        "size": kept.size(),
        "kept": bytes.len(),
        "text": readable.map(text),
        "base64": readable.is_none().then(|| STANDARD.encode(bytes)),
    })
}

fn wechat(call: &WechatCall) -> Value {
    let mut told = json!({
        "at": call.at(),
        "method": call.method,
        "path": call.path,
        "status": call.status,
        "errcode": 0,
        "took_us": micros(call.took),
    });
    if let Some(known) = &call.failure {
        let failure = failure(known);
        for name in ["errcode", "errmsg", "rid", "title", "hint"] {
            told[name] = failure[name].clone();
        }
        told["problem"] = failure["slug"].clone();
    }
    told
}

fn failure(failure: &Failure) -> Value {
    let [en, zh] = &failure.title;
    let [hint, hint_zh] = &failure.hint;
    json!({
        "slug": failure.slug,
        "errcode": failure.errcode,
        "errmsg": failure.errmsg,
        "rid": failure.rid,
        "title": { "en": en, "zh": zh },
        "hint": hint.as_ref().map(|en| json!({ "en": en, "zh": hint_zh.as_ref().unwrap_or(en) })),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
