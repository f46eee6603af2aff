//! An answer of WeChat's, parsed by what it holds.
//!
//! The HTTP status is nearly always 200 and the `Content-Type` is anything (`text/plain` for `/sns/*`, `text/html` for some
//! errors), so neither is asked: a body is a JSON object or it is [`Invalid`]. A missing `errcode` is success, because
//! many APIs leave it out then.
//!
//! An answer may hold a session_key, and a broken one may hold anything; so no error here quotes the body, and WeChat's
//! own words get out only through [`Answer::refusal`], which takes out what must stay secret.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use super::errcode;

/// The largest JSON answer that is looked at, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;

/// The longest `errmsg` that is passed on, in characters.
const MAX_ERRMSG: usize = 200;

/// The longest rid that is believed; WeChat's are 26 characters.
const MAX_RID: usize = 64;

/// A JSON object that WeChat sent.
///
/// Not printable: it may hold a session_key.
pub struct Answer {
    errcode: i64,
    errmsg: String,
    fields: Map<String, Value>,
}

/// What WeChat says when it refuses, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// WeChat's number, never 0.
    pub errcode: i64,
    /// WeChat's words without the rid, control characters and secrets; at most 200 characters.
    pub errmsg: String,
    /// The id under which WeChat's support finds the call.
    pub rid: Option<String>,
}

/// Why an answer cannot be used; no part of the answer is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Nothing, or white space only.
    #[error("the body is empty")]
    Empty,
    /// Longer than [`MAX_LEN`].
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// Markup, as proxies and captive portals send.
    #[error("the body is HTML or XML, not JSON")]
    Markup,
    /// Some other text or bytes; also JSON that nests deeper than 127 levels.
    #[error("the body is not JSON")]
    NotJson,
    /// JSON that stops in the middle.
    #[error("the body is JSON that ends too early")]
    Truncated,
    /// JSON, but a list, a number or a string.
    #[error("the body is JSON but not an object")]
    NotAnObject,
    /// Two values under one name; readers would disagree on which one counts.
    #[error("a key occurs twice in the JSON")]
    DuplicateKey,
    /// An `errcode` that is neither an integer nor the text of one.
    #[error("the errcode is not an integer")]
    Errcode,
    /// A field that is missing or does not have its documented shape.
    #[error("{0}")]
    Field(&'static str),
}

/// Parses an answer, whatever its `Content-Type`.
///
/// A byte order mark, surrounding white space and raw control characters in strings are tolerated: WeChat sends them.
pub fn parse(body: &[u8]) -> Result<Answer, Invalid> {
    if body.len() > MAX_LEN {
        return Err(Invalid::TooLarge);
    }
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = text.trim_ascii();
    match text.first() {
        None => return Err(Invalid::Empty),
        Some(b'<') => return Err(Invalid::Markup),
        Some(_) => {}
    }
    let fields = match object(text) {
        Err(Invalid::NotJson) if text.iter().any(u8::is_ascii_control) => {
            object(&without_control_characters(text))?
        }
        outcome => outcome?,
    };
    let errcode = match fields.get("errcode") {
        None => 0,
        Some(value) => integer(value).ok_or(Invalid::Errcode)?,
    };
    let errmsg = fields.get("errmsg").and_then(Value::as_str).unwrap_or("");
    Ok(Answer {
        errcode,
        errmsg: errmsg.to_owned(),
        fields,
    })
}

impl Answer {
    /// WeChat's number; 0 is success.
    pub fn errcode(&self) -> i64 {
        self.errcode
    }

    /// All fields as they came.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// What to tell of a refusal; `None` if the answer is a success.
    ///
    /// Each of `secrets` that occurs in WeChat's words becomes `***`. They are looked for after control characters
    /// have been removed, and before anything is cut off, so that no half of one slips through.
    pub fn refusal(&self, secrets: &[&str]) -> Option<Refusal> {
        (self.errcode != 0).then(|| Refusal::of(self.errcode, &self.errmsg, secrets))
    }
}

impl Refusal {
    /// See [`Answer::refusal`]; for an errcode that does not stand at the top of an answer.
    pub fn of(errcode: i64, errmsg: &str, secrets: &[&str]) -> Self {
        let mut told: String = errmsg.chars().filter(|c| !c.is_control()).collect();
        // The longest goes first: a short one inside it would break it up and leave the rest to be read.
        let mut secrets = secrets.to_vec();
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            told = told.replace(secret, "***");
        }
        let (errmsg, rid) = split_rid(&told);
        Self {
            errcode,
            errmsg: errmsg.chars().take(MAX_ERRMSG).collect(),
            rid: rid.map(str::to_owned),
        }
    }

    /// What to do about it where it came from a call at `path`, in English and in Chinese; with our address as WeChat saw
    /// it, if WeChat names one.
    pub fn advice_at(&self, path: &str) -> Option<(Cow<'static, str>, Cow<'static, str>)> {
        let (en, zh) = errcode::advice_at(path, self.errcode)?;
        Some(match address_seen(&self.errmsg) {
            Some(address) => (
                format!("{en}; WeChat saw {address}").into(),
                format!("{zh}；微信看到的 IP 是 {address}").into(),
            ),
            None => (en.into(), zh.into()),
        })
    }
}

/// The caller's address as WeChat saw it, which it tells when it refuses for an IP white-list (40164).
pub fn address_seen(errmsg: &str) -> Option<IpAddr> {
    errmsg
        .split([' ', ','])
        .find_map(|word| word.parse().ok())
        .map(|address: IpAddr| address.to_canonical())
}

/// Takes the request id off the end of WeChat's words: `…, rid: x`, `… rid: x` or `…, hints: [ req_id: x ]`.
fn split_rid(errmsg: &str) -> (&str, Option<&str>) {
    let Some((at, id)) = trailing_rid(errmsg).or_else(|| trailing_hint(errmsg)) else {
        return (errmsg.trim(), None);
    };
    let rest = errmsg[..at].trim_end();
    let rest = rest.strip_suffix(',').unwrap_or(rest);
    (rest.trim(), id.filter(|id| is_rid(id)))
}

fn trailing_rid(errmsg: &str) -> Option<(usize, Option<&str>)> {
    let at = errmsg.rfind("rid:")?;
    let id = errmsg[at + "rid:".len()..].trim();
    let starts_a_word = !errmsg[..at].ends_with(|c: char| c.is_alphanumeric());
    (starts_a_word && !id.contains(char::is_whitespace)).then_some((at, Some(id)))
}

fn trailing_hint(errmsg: &str) -> Option<(usize, Option<&str>)> {
    let at = errmsg.rfind("hint")?;
    let list = errmsg[at + "hint".len()..].trim_end();
    let list = list.strip_prefix('s').unwrap_or(list);
    let list = list.strip_prefix(':')?.trim_start();
    let inner = list.strip_prefix('[')?.strip_suffix(']')?;
    let id = inner.trim().strip_prefix("req_id:").map(str::trim);
    Some((at, id))
}

fn is_rid(id: &str) -> bool {
    (1..=MAX_RID).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, Invalid> {
    match serde_json::from_slice(text) {
        Ok(Strict(Value::Object(fields))) => Ok(fields),
        Ok(Strict(_)) => Err(Invalid::NotAnObject),
        Err(error) => Err(match error.classify() {
            Category::Data => Invalid::DuplicateKey,
            Category::Eof => Invalid::Truncated,
            Category::Syntax | Category::Io => Invalid::NotJson,
        }),
    }
}

/// Each control character becomes a space rather than nothing, so that a value they were put into stays recognisably
/// wrong: `o6z\nX` must not turn into a good openid.
pub(super) fn without_control_characters(text: &[u8]) -> Vec<u8> {
    let space_out = |b: &u8| if b.is_ascii_control() { b' ' } else { *b };
    text.iter().map(space_out).collect()
}

/// A JSON value in which no object has a key twice. `serde_json`'s own silently keeps the last one.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without duplicate keys")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(
            Number::from_f64(value).map_or(Value::Null, Value::Number),
        ))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Strict(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Strict, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Strict(value))) = object.next_entry::<String, Strict>()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Strict(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(body: &str) -> Refusal {
        parse(body.as_bytes())
            .ok()
            .and_then(|answer| answer.refusal(&[]))
            .unwrap()
    }

    fn invalid(body: &[u8]) -> Invalid {
        parse(body).err().unwrap()
    }

    #[test]
    fn a_missing_errcode_is_success() {
        let answer = parse(br#"{"openid":"x"}"#).ok().unwrap();
        assert_eq!(answer.errcode(), 0);
        assert_eq!(answer.refusal(&[]), None);
        assert_eq!(answer.fields()["openid"], "x");
    }

    #[test]
    fn an_errcode_may_be_a_number_or_the_text_of_one() {
        for (body, code) in [
            (r#"{"errcode":-1}"#, -1),
            (r#"{"errcode":"40029"}"#, 40029),
            (r#"{"errcode":" -1 "}"#, -1),
            (r#"{"errcode":268490001}"#, 268_490_001),
            (r#"{"errcode":9223372036854775807}"#, i64::MAX),
        ] {
            assert_eq!(refused(body).errcode, code);
        }
        assert_eq!(parse(br#"{"errcode":"0"}"#).ok().unwrap().errcode(), 0);
    }

    #[test]
    fn an_errcode_that_is_no_integer_is_invalid_rather_than_success() {
        for body in [
            r#"{"errcode":null}"#,
            r#"{"errcode":""}"#,
            r#"{"errcode":"ok"}"#,
            r#"{"errcode":1.5}"#,
            r#"{"errcode":true}"#,
            r#"{"errcode":{}}"#,
            r#"{"errcode":9223372036854775808}"#,
        ] {
            assert_eq!(invalid(body.as_bytes()), Invalid::Errcode, "{body}");
        }
    }

    #[test]
    fn the_rid_is_taken_off_however_it_is_written() {
        let rid = "617682e0-09059ac5-34a8e2ea";
        for (errmsg, words, id) in [
            ("invalid code, rid: RID", "invalid code", Some(rid)),
            ("invalid code rid: RID", "invalid code", Some(rid)),
            ("rid: RID", "", Some(rid)),
            (
                "code been used, hints: [ req_id: RID ]",
                "code been used",
                Some(rid),
            ),
            ("bad hint: [req_id: RID]", "bad", Some(rid)),
            ("bad, hints: [ other ]", "bad", None),
            ("code blocked", "code blocked", None),
            ("a bad grid: RID", "a bad grid: RID", None),
            ("rid: is mentioned first", "rid: is mentioned first", None),
            ("bad, rid: <b>", "bad", None),
            ("bad, rid:", "bad", None),
        ] {
            let body = format!(
                r#"{{"errcode":40029,"errmsg":"{}"}}"#,
                errmsg.replace("RID", rid)
            );
            let refusal = refused(&body);
            assert_eq!(refusal.errmsg, words.replace("RID", rid), "{errmsg}");
            assert_eq!(refusal.rid.as_deref(), id, "{errmsg}");
        }
    }

    #[test]
    fn wechats_words_lose_secrets_control_characters_and_length() {
        let long = "很".repeat(500);
        let body = format!(r#"{{"errcode":1,"errmsg":"hun\u0000ter2 is\r\n wrong {long}"}}"#);
        let answer = parse(body.as_bytes()).ok().unwrap();
        let told = answer.refusal(&["hunter2", ""]).unwrap().errmsg;
        assert!(told.starts_with("*** is wrong 很"), "{told}");
        assert_eq!(told.chars().count(), 200);
    }

    #[test]
    fn a_secret_across_the_cut_is_not_told_in_half() {
        let body = format!(
            r#"{{"errcode":1,"errmsg":"{}hunter2"}}"#,
            "x".repeat(MAX_ERRMSG - 3)
        );
        let answer = parse(body.as_bytes()).ok().unwrap();
        let told = answer.refusal(&["hunter2"]).unwrap().errmsg;
        assert!(told.ends_with("x***"), "{told}");
    }

    #[test]
    fn a_short_secret_does_not_break_up_a_long_one() {
        let answer = parse(br#"{"errcode":1,"errmsg":"hunter2"}"#).ok().unwrap();
        assert_eq!(answer.refusal(&["t", "hunter2"]).unwrap().errmsg, "***");
    }

    #[test]
    fn a_secret_that_comes_back_as_the_rid_is_not_told() {
        let answer = parse(br#"{"errcode":1,"errmsg":"bad, rid: hunter2"}"#)
            .ok()
            .unwrap();
        assert_eq!(answer.refusal(&["hunter2"]).unwrap().rid, None);
    }

    #[test]
    fn what_is_not_an_object_is_invalid_and_says_why() {
        for (body, why) in [
            (&b""[..], Invalid::Empty),
            (b" \r\n", Invalid::Empty),
            (b"\xEF\xBB\xBF", Invalid::Empty),
            (b"<html>502 Bad Gateway</html>", Invalid::Markup),
            (b"upstream error", Invalid::NotJson),
            (b"\xFF\xFE{\x00}\x00", Invalid::NotJson),
            (b"{}{}", Invalid::NotJson),
            (br#"{"openid":"o6z"#, Invalid::Truncated),
            (b"[]", Invalid::NotAnObject),
            (b"40029", Invalid::NotAnObject),
            (b"\"ok\"", Invalid::NotAnObject),
            (br#"{"openid":"a","openid":"b"}"#, Invalid::DuplicateKey),
            (br#"{"a":[{"b":1,"b":1}]}"#, Invalid::DuplicateKey),
        ] {
            assert_eq!(invalid(body), why, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(invalid(deep.as_bytes()), Invalid::NotJson);
        let mut large = br#"{"a":1}"#.to_vec();
        large.resize(MAX_LEN, b' ');
        assert!(parse(&large).is_ok());
        large.push(b' ');
        assert_eq!(invalid(&large), Invalid::TooLarge);
    }

    #[test]
    fn a_byte_order_mark_and_white_space_around_are_no_fault() {
        let answer = parse(b"\xEF\xBB\xBF\r\n {\"errcode\":-1}\n").ok().unwrap();
        assert_eq!(answer.errcode(), -1);
    }

    #[test]
    fn a_raw_control_character_in_a_string_becomes_a_space() {
        let answer = parse(b"{\"errcode\":1,\"errmsg\":\"a\tb\x01c\",\"k\":\"o6z\nX\"}")
            .ok()
            .unwrap();
        assert_eq!(answer.refusal(&[]).unwrap().errmsg, "a b c");
        assert_eq!(answer.fields()["k"], "o6z X");
    }

    #[test]
    fn the_address_that_wechat_saw_is_found_in_its_words() {
        let words = "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist";
        assert_eq!(address_seen(words), "1.2.3.4".parse().ok());
        let words = "invalid ip ::ffff:1.2.3.4, not in whitelist";
        assert_eq!(address_seen(words), "1.2.3.4".parse().ok());
        assert_eq!(address_seen("not in whitelist"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body).map(|answer| answer.refusal(&["a"]));
        }

        #[test]
        fn no_errmsg_makes_the_parser_panic(errmsg in ".{0,40}(rid:|hints?: ?\\[|req_id:|\\]|,| ){0,4}.{0,20}") {
            let body = serde_json::json!({"errcode": 1, "errmsg": errmsg}).to_string();
            let refusal = parse(body.as_bytes()).ok().and_then(|answer| answer.refusal(&["a"])).unwrap();
            prop_assert!(refusal.errmsg.chars().count() <= MAX_ERRMSG);
            let _ = address_seen(&refusal.errmsg);
        }
    }
}
