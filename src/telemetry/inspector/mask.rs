//! What is secret is not told: tokens, keys, passwords and cookies are `***`, wherever they stand in a head, in a query, in a form
//! or in JSON. What is secret is known by its name, so an app's own secret under a name that does not say so is told.
//!
//! Of a code of `wx.login` or of a phone number the beginning is told, by which one can be told from another: the whole of it is
//! a session to whoever brings it here within five minutes.

use std::borrow::Cow;

const MASK: &str = "***";

/// Names of fields that are secret as a whole, beside those with a part of [`PARTS`].
const FIELDS: &[&str] = &["x-wx-code"];
/// What a name has in it if what it stands for is secret; compared without `-`, `_` and case.
const PARTS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "sessionkey",
    "apikey",
    "assertion",
    "privatekey",
    "aeskey",
];
/// Names of codes, and how long what stands there must be to be one and not an app's own word.
const CODES: &[&str] = &["code", "jscode"];
const SHORTEST_CODE: usize = 20;
/// How much of a code is told.
const OF_A_CODE: usize = 4;
/// Names that have such a part, and are not secret.
const HARMLESS: &[&str] = &["tokentype"];
/// The longest name that is looked at.
const LONGEST_NAME: usize = 64;

/// The value of a field line.
pub(super) fn field<'v>(name: &str, value: &'v str) -> Cow<'v, str> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "authorization" | "proxy-authorization" => match value.split_once(' ') {
            Some((scheme, _)) => format!("{scheme} {MASK}").into(),
            None => MASK.into(),
        },
        "cookie" => cookies(value).into(),
        // The name, and behind it what the browser is to do with it.
        "set-cookie" => {
            let (pair, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
            format!("{}{rest}", cookies(pair)).into()
        }
        "sec-websocket-protocol" => protocols(value),
        _ if FIELDS.contains(&lower.as_str()) => MASK.into(),
        _ if folded(name).is_some_and(|name| is_secret(&name)) => MASK.into(),
        // A URL may have a token in its query.
        _ => text(value),
    }
}

/// Text with secrets in it as JSON has them (`"access_token":"..."`) or as a query has them (`access_token=...`).
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut told = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find(['"', '=']) {
        let place = at + found;
        let value = match text.as_bytes()[place] {
            b'=' => parameter(text, place),
            _ => member(text, place),
        };
        match value {
            Some((from, to)) => {
                out.push_str(&text[told..from]);
                out.push_str(MASK);
                (told, at) = (to, to);
            }
            None => at = place + 1,
        }
    }
    if told == 0 {
        return text.into();
    }
    out.push_str(&text[told..]);
    out.into()
}

/// Where the value of the parameter with a secret name stands whose `=` is at `equals`.
fn parameter(text: &str, equals: usize) -> Option<(usize, usize)> {
    let before = &text[..equals];
    let start = before
        .rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.'))
        .map_or(0, |at| {
            at + before[at..].chars().next().map_or(1, char::len_utf8)
        });
    let name = &before[start..];
    let from = equals + 1;
    let end =
        text[from..].find(|c: char| matches!(c, '&' | '#' | '"' | '\'' | ';') || c.is_whitespace());
    let to = end.map_or(text.len(), |end| from + end);
    hidden(name, text, (from, to))
}

/// What is to be hidden of a value at a place, by its name.
fn hidden(name: &str, text: &str, (from, to): (usize, usize)) -> Option<(usize, usize)> {
    let value = &text[from..to];
    let folded = folded(name)?;
    if CODES.contains(&folded.as_str()) {
        let is_code = value.len() >= SHORTEST_CODE
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        return is_code.then_some((from + OF_A_CODE, to));
    }
    (is_secret(&folded) && to > from).then_some((from, to))
}

/// Where the text stands that is the value of the member with a secret name whose name begins with the quotation mark at `quote`.
/// What is cut off is masked up to its end.
fn member(text: &str, quote: usize) -> Option<(usize, usize)> {
    let rest = &text[quote + 1..];
    let name_end = rest.find('"').filter(|end| *end <= LONGEST_NAME)?;
    let name = &rest[..name_end];
    let behind = &rest[name_end + 1..];
    let value = behind.trim_ascii_start().strip_prefix(':')?;
    let value = value.trim_ascii_start().strip_prefix('"')?;
    let from = text.len() - value.len();
    let mut escaped = false;
    let end = value.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    let to = end.map_or(text.len(), |end| from + end);
    hidden(name, text, (from, to))
}

/// A name without what names are written differently in; `None` of what is too long to be one.
fn folded(name: &str) -> Option<String> {
    let chars = name.chars().filter(|c| !matches!(c, '-' | '_' | '.'));
    (name.len() <= LONGEST_NAME).then(|| chars.map(|c| c.to_ascii_lowercase()).collect())
}

/// Whether what a folded name stands for is secret.
fn is_secret(folded: &str) -> bool {
    PARTS.iter().any(|part| folded.contains(part)) && !HARMLESS.contains(&folded)
}

fn cookies(value: &str) -> String {
    let masked = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{}={MASK}", name.trim()),
        None => MASK.to_owned(),
    };
    let pairs: Vec<_> = value.split(';').map(masked).collect();
    pairs.join("; ")
}

/// Browsers cannot set `Authorization` for a WebSocket, and so some send a token among the protocols.
fn protocols(value: &str) -> Cow<'_, str> {
    if value.split(',').all(|protocol| protocol.trim().len() <= 32) {
        return value.into();
    }
    let masked = |protocol: &str| match protocol.trim() {
        short if short.len() <= 32 => short.to_owned(),
        _ => MASK.to_owned(),
    };
    let all: Vec<_> = value.split(',').map(masked).collect();
    all.join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_json_are_masked_and_all_else_stays_as_it_is() {
        for (from, to) in [
            (
                r#"{"access_token":"abc","expires_in":7200,"refresh_token": "d\"e" }"#,
                r#"{"access_token":"***","expires_in":7200,"refresh_token": "***" }"#,
            ),
            (r#"{"sessionKey" : "x=="}"#, r#"{"sessionKey" : "***"}"#),
            (
                r#"{"token_type":"Bearer","openid":"o1"}"#,
                r#"{"token_type":"Bearer","openid":"o1"}"#,
            ),
            (
                r#"{"code":"0a1b","tokens":3}"#,
                r#"{"code":"0a1b","tokens":3}"#,
            ),
            (
                r#"{"code":"0Z426oIKw3i5AYH6NChXkCY4331uPLfk"}"#,
                r#"{"code":"0Z42***"}"#,
            ),
            (
                r#"{"code":"a word that is no code of anybody"}"#,
                r#"{"code":"a word that is no code of anybody"}"#,
            ),
            (r#"{"access_token":"cut o"#, r#"{"access_token":"***"#),
            (r#"{"access_token":"#, r#"{"access_token":"#),
            (
                r#"{"access_token":"\\","a":"b"}"#,
                r#"{"access_token":"***","a":"b"}"#,
            ),
            (
                r#"{"say":"\"token\":\"x\"","n":1}"#,
                r#"{"say":"\"token\":\"x\"","n":1}"#,
            ),
            (r#"{"密码token":"微信"}"#, r#"{"密码token":"***"}"#),
            (
                r#"{"url":"/a?access_token=abc&b=1"}"#,
                r#"{"url":"/a?access_token=***&b=1"}"#,
            ),
            ("", ""),
            ("\"", "\""),
        ] {
            assert_eq!(text(from), to, "{from}");
        }
    }

    #[test]
    fn secrets_in_queries_and_forms_are_masked() {
        for (from, to) in [
            (
                "/cgi-bin/x?access_token=abc&secret=d#f",
                "/cgi-bin/x?access_token=***&secret=***#f",
            ),
            (
                "grant_type=client&appsecret=0123",
                "grant_type=client&appsecret=***",
            ),
            (
                "/wx/push?signature=ab&nonce=1",
                "/wx/push?signature=ab&nonce=1",
            ),
            (
                "js_code=0Z426oIKw3i5AYH6NChXkCY4331uPLfk&a=1",
                "js_code=0Z42***&a=1",
            ),
            ("token=", "token="),
            ("a=b", "a=b"),
            ("é=1&token=2", "é=1&token=***"),
            ("=", "="),
        ] {
            assert_eq!(text(from), to, "{from}");
        }
    }

    #[test]
    fn secrets_in_heads_are_masked() {
        for (name, from, to) in [
            ("Authorization", "Bearer abc", "Bearer ***"),
            ("authorization", "abc", "***"),
            ("X-WX-Access-Token", "abc", "***"),
            ("x-wx-caller-token", "abc", "***"),
            ("X-WX-Assertion", "a.b.c", "***"),
            ("x-wx-code", "0a1b", "***"),
            ("X-API-Key", "k", "***"),
            ("Cookie", "sid=1; theme=dark", "sid=***; theme=***"),
            (
                "Set-Cookie",
                "sid=1; HttpOnly; Path=/",
                "sid=***; HttpOnly; Path=/",
            ),
            ("Location", "/a?token=1&b=2", "/a?token=***&b=2"),
            ("X-WX-OPENID", "o123", "o123"),
            ("sec-websocket-protocol", "chat, v2", "chat, v2"),
            (
                "sec-websocket-protocol",
                "chat, 0123456789012345678901234567890123456789",
                "chat, ***",
            ),
        ] {
            assert_eq!(field(name, from), to, "{name}: {from}");
        }
    }
}
