//! What the APIs have in common: where they are, how a question is written, and what is told when one fails.
//!
//! An [`Api`] is a constant in the module of its format. What is the same for all of them (asking, counting, telling a
//! refusal) is then written once, and what differs is data: the same errcode means one thing in answer to a login and
//! another where an access_token was shown.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;
use zeroize::Zeroizing;

use super::errcode::{self, Meaning};

/// What to do about a failure, in English and in Chinese.
pub type Advice = (&'static str, &'static str);

/// An API, as far as calling it is the same for all.
pub struct Api {
    /// Its path, without a query.
    pub path: &'static str,
    /// What an errcode means in its answers.
    pub meaning: fn(i64) -> Meaning,
    /// What to do about an errcode.
    pub advice: fn(i64) -> Option<Advice>,
    /// What to do when no usable answer came, though WeChat may have acted.
    pub if_lost: Option<Advice>,
}

/// A query string of these pairs. It may hold secrets in clear, so it is wiped when dropped.
pub fn query_of(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    // Room for the worst, because what a growing string leaves behind is not wiped.
    let room = pairs
        .iter()
        .map(|(name, value)| (name.len() + value.len()) * 3 + 2);
    let mut query = Zeroizing::new(String::with_capacity(room.sum()));
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&percent_encode(name));
        query.push('=');
        query.push_str(&percent_encode(value));
    }
    query
}

/// Encodes all but the unreserved characters (RFC 3986, section 2.3). Also needed to recognise a value in an echo.
pub fn percent_encode(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string never fails");
        }
    }
    encoded
}

/// A JSON body. Chinese stays as it is, because some APIs refuse `\uXXXX` (40033). It is wiped when dropped.
pub fn json_body(body: &Value) -> Bytes {
    Bytes::from_owner(Zeroizing::new(body.to_string().into_bytes()))
}

/// What an errcode means where an access_token was shown: rows that tell other APIs' successes by a number are none.
pub fn meaning(code: i64) -> Meaning {
    let meaning = errcode::meaning(code);
    if meaning.status < 400 {
        return errcode::unknown(code);
    }
    meaning
}

/// What to do about an errcode where an access_token was shown: of a dead one the caller knows nothing, and the sidecar
/// has done what there was to do.
pub fn advice(code: i64) -> Option<Advice> {
    if is_dead_token(code) {
        return Some((
            "WeChat refuses the sidecar's access_token; try again in half a minute",
            "微信拒绝了边车的 access_token；请半分钟后重试",
        ));
    }
    errcode::both_languages(code)
}

/// Whether `code` says that the access_token is dead, so that the call may be made once more with another. WeChat checks
/// it before all else.
pub fn is_dead_token(code: i64) -> bool {
    matches!(code, 40001 | 40014 | 42001)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_cannot_become_another_parameter() {
        let query = query_of(&[("a", "1&b=2"), ("c", "十/+ ")]);
        assert_eq!(query.as_str(), "a=1%26b%3D2&c=%E5%8D%81%2F%2B%20");
    }

    #[test]
    fn chinese_is_literal_in_a_body() {
        assert_eq!(json_body(&json!({ "a": "你好" })), r#"{"a":"你好"}"#);
    }

    #[test]
    fn no_refusal_is_told_as_a_success() {
        for code in [10_060_023, 268_490_004, 9_301_015] {
            assert_eq!(meaning(code).status, 502);
        }
    }
}
