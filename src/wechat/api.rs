//! What the APIs have in common: where they are, how a question is written, and what is told when one fails.
//!
//! An [`Api`] is a constant in the module of its format. What is the same for all of them (asking, counting, telling a
//! refusal) is then written once, and what differs is data. What an errcode means at one of them is in
//! [`errcode`](super::errcode).

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

/// All that is not unreserved (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What to do about a failure, in English and in Chinese.
pub type Advice = (&'static str, &'static str);

/// An API, as far as calling it is the same for all.
pub struct Api {
    /// Its path, without a query.
    pub path: &'static str,
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
    // Room for the worst here, too.
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    encoded.extend(utf8_percent_encode(text, RESERVED));
    encoded
}

/// A JSON body. Chinese stays as it is, because some APIs refuse escapes of it (40033). It is wiped when dropped.
pub fn json_body(body: &Value) -> Bytes {
    Bytes::from_owner(Zeroizing::new(body.to_string().into_bytes()))
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
}
