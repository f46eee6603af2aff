//! What is secret is not told: tokens, keys, passwords and cookies are `***` in heads, queries, forms and JSON, also in JSON that is a
//! text in JSON. What is secret is known by its name, so what an app keeps secret under a name that does not say so is told, and so is
//! what is compressed or encoded in a way of its own.
//!
//! Of a code of `wx.login` or of a phone number, and of a cloudID, the beginning is told, by which one can be told from another: the
//! whole of it is a session, or somebody's data, to whoever brings it here in time.
//!
//! What is masked may be anybody's, so no text takes longer than its length.

use std::borrow::Cow;

const MASK: &str = "***";

/// Names of fields that are secret as a whole, beside those with a part of [`PARTS`].
const FIELDS: &[&str] = &["x-wx-code"];
/// What a name has in it if what it stands for is secret; compared without case and without what names are divided by.
const PARTS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "sessionkey",
    "apikey",
    "appkey",
    "privatekey",
    "aeskey",
    "encryptkey",
    "assertion",
    "credential",
];
/// Names that are secret as a whole, and too short to be parts of others.
const NAMES: &[&str] = &["ticket", "jsapiticket", "componentverifyticket"];
/// Names that have such a part, and are not secret.
const HARMLESS: &[&str] = &["tokentype"];
/// Of these a number is secret too; of the others it counts something.
const PASSWORDS: &[&str] = &["passw", "pwd"];
/// Names of codes, and how long what stands there must be to be one and not an app's own word.
const CODES: &[&str] = &["code", "jscode", "cloudid"];
const SHORTEST_CODE: usize = 20;
/// How much of a code is told.
const OF_A_CODE: usize = 4;
/// The longest name that is looked at.
const LONGEST_NAME: usize = 64;
/// How far behind the name of a form's part its content may begin.
const LONGEST_PART_HEAD: usize = 512;

/// What a name says of its value.
#[derive(Clone, Copy, PartialEq)]
enum Named {
    Secret { numbers: bool },
    Code,
}

/// A place that is not told, and what stands there instead.
struct Hidden {
    from: usize,
    to: usize,
    instead: &'static str,
}

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
        _ if matches!(named(name), Some(Named::Secret { .. })) => MASK.into(),
        // A URL may have a token in its query.
        _ => text(value),
    }
}

/// Text with secrets in it as JSON has them (`"access_token":"..."`), as a query has them (`access_token=...`) or as a form has them.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut told, mut at) = (0, 0);
    // The end of the last parameter that was looked for.
    let mut end = 0;
    while let Some(found) = text[at..].find(['"', '=']) {
        let place = at + found;
        let hidden = match text.as_bytes()[place] {
            b'=' => parameter(text, place, &mut end),
            _ => member(text, place),
        };
        match hidden {
            Some(Hidden { from, to, instead }) => {
                out.push_str(&text[told..from]);
                out.push_str(instead);
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

/// What is hidden of the parameter whose `=` is at `equals`.
fn parameter(text: &str, equals: usize, known_end: &mut usize) -> Option<Hidden> {
    let is_of_name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.[]%".contains(b);
    let before = text[..equals].bytes().rev().take(2 * LONGEST_NAME);
    let length = before.take_while(is_of_name).count();
    let name = &text[equals - length..equals];
    let from = equals + 1;
    if name.eq_ignore_ascii_case("name") {
        return form_part(text, from);
    }
    let named = named(name)?;
    if text[from..].starts_with('"') {
        let to = text[from + 1..]
            .find('"')
            .map_or(text.len(), |end| from + 1 + end);
        return hidden(named, text, from + 1, to);
    }
    if *known_end < from {
        let is_end = |c: char| matches!(c, '&' | '#' | '"' | '\'' | ';') || c.is_whitespace();
        *known_end = text[from..]
            .find(is_end)
            .map_or(text.len(), |end| from + end);
    }
    hidden(named, text, from, *known_end)
}

/// What is hidden of a part of a form (RFC 7578) whose name stands at `from`, in quotation marks.
fn form_part(text: &str, from: usize) -> Option<Hidden> {
    let rest = text[from..].strip_prefix('"')?;
    let name = &rest[..within(rest, LONGEST_NAME).find('"')?];
    let named = named(name)?;
    let head = within(rest, LONGEST_PART_HEAD).find("\r\n\r\n")?;
    let begin = text.len() - rest.len() + head + 4;
    let end = text[begin..].find("\r\n--");
    hidden(
        named,
        text,
        begin,
        end.map_or(text.len(), |end| begin + end),
    )
}

/// What is hidden of the member whose name begins with the quotation mark at `quote`, which may be one within a text. What is cut
/// off is hidden up to its end.
fn member(text: &str, quote: usize) -> Option<Hidden> {
    let mark = match text[..quote].ends_with('\\') {
        true => "\\\"",
        false => "\"",
    };
    let rest = &text[quote + 1..];
    let name = &rest[..within(rest, LONGEST_NAME).find(mark)?];
    let named = named(name)?;
    let behind = rest[name.len() + mark.len()..].trim_ascii_start();
    let value = behind.strip_prefix(':')?.trim_ascii_start();
    let at = text.len() - value.len();
    if let Some(value) = value.strip_prefix(mark) {
        let from = text.len() - value.len();
        let end = match mark.len() {
            1 => end_of_text(value),
            _ => value.find(mark),
        };
        return hidden(named, text, from, end.map_or(text.len(), |end| from + end));
    }
    let Named::Secret { numbers } = named else {
        return None;
    };
    let to = match value.bytes().next()? {
        b'[' | b'{' => at + end_of_tree(value),
        b'0'..=b'9' | b'-' if numbers => {
            let end = value.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
            end.map_or(text.len(), |end| at + end)
        }
        _ => return None,
    };
    Some(Hidden {
        from: at,
        to,
        instead: "\"***\"",
    })
}

/// Where a text of JSON ends.
fn end_of_text(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    })
}

/// Behind where an array or an object ends.
fn end_of_tree(value: &str) -> usize {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    value.len()
}

/// The beginning of a text, in bytes, as far as whole characters go.
fn within(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What is hidden of a value, by what its name says.
fn hidden(named: Named, text: &str, from: usize, to: usize) -> Option<Hidden> {
    let value = &text[from..to];
    let from = match named {
        Named::Code => {
            let is_of_code = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            let is_code = value.len() >= SHORTEST_CODE && value.bytes().all(is_of_code);
            is_code.then_some(from + OF_A_CODE)?
        }
        Named::Secret { .. } => from,
    };
    (to > from).then_some(Hidden {
        from,
        to,
        instead: MASK,
    })
}

/// What a name says of its value.
fn named(name: &str) -> Option<Named> {
    if name.len() > 2 * LONGEST_NAME {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let folded = lower.replace("%5b", "").replace("%5d", "");
    let folded: String = folded.chars().filter(|c| !"-_.[]".contains(*c)).collect();
    let has = |parts: &[&str]| parts.iter().any(|part| folded.contains(part));
    let is = |names: &[&str]| names.contains(&folded.as_str());
    if is(CODES) {
        return Some(Named::Code);
    }
    let is_secret = (has(PARTS) && !is(HARMLESS)) || is(NAMES);
    is_secret.then(|| Named::Secret {
        numbers: has(PASSWORDS),
    })
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
                r#"{"cloudID":"38_0Z426oIKw3i5AYH6NChXkCY4331uPLfk"}"#,
                r#"{"cloudID":"38_0***"}"#,
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
                r#"{"say":"{\"token\":\"x\",\"a\":\"b\"}","n":1}"#,
                r#"{"say":"{\"token\":\"***\",\"a\":\"b\"}","n":1}"#,
            ),
            (
                r#"{"password":123456,"max_tokens":3}"#,
                r#"{"password":"***","max_tokens":3}"#,
            ),
            (
                r#"{"tokens":["a]","b"],"secrets":{"x":{"y":"z"}},"a":1}"#,
                r#"{"tokens":"***","secrets":"***","a":1}"#,
            ),
            (r#"{"tokens":["cut"#, r#"{"tokens":"***""#),
            (
                r#"{"encrypt_key":"k","ticket":"t","ticket_id":7,"iv":"i"}"#,
                r#"{"encrypt_key":"***","ticket":"***","ticket_id":7,"iv":"i"}"#,
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
            (
                "user[password]=a&user%5Bpassword%5D=b&token=\"c d\"",
                "user[password]=***&user%5Bpassword%5D=***&token=\"***\"",
            ),
            (
                "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\na=\"b\"\r\n--b\r\n\
                 Content-Disposition: form-data; name=\"note\"\r\n\r\nc\r\n--b--",
                "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n***\r\n--b\r\n\
                 Content-Disposition: form-data; name=\"note\"\r\n\r\nc\r\n--b--",
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
    fn what_is_made_to_take_long_takes_as_long_as_it_is() {
        let work = |unit: &str, bytes: usize| {
            let hostile = unit.repeat(bytes / unit.len());
            let began = std::time::Instant::now();
            assert!(text(&hostile).len() <= hostile.len());
            began.elapsed()
        };
        for unit in [
            "=",
            "code=",
            "a=",
            "\"",
            "\"code\":",
            "\\\"token",
            "token=\"",
            "name=\"code",
        ] {
            // What grows with the square of it would take minutes.
            assert!(
                work(unit, 1 << 20) < std::time::Duration::from_secs(30),
                "{unit}"
            );
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
