//! What is secret is not told: tokens, keys, passwords and cookies are `***` in heads, queries, forms and JSON, also in JSON that is a
//! text in JSON or in a query. Our own tokens and the signatures of media are known by their looks, wherever they stand; all else by
//! its name, so what an app keeps secret under a name that does not say so is told, and so is what is compressed or encoded in a way
//! of its own.
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
    "authorization",
    "cookie",
    "sessionid",
    "3rdsession",
];
/// Names that are secret as a whole, and too short to be parts of others.
const NAMES: &[&str] = &[
    "ticket",
    "jsapiticket",
    "componentverifyticket",
    "skey",
    "jwt",
];
/// Names that have such a part, and are not secret.
const HARMLESS: &[&str] = &["tokentype"];
/// Of these a number is secret too; of the others it counts something.
const PASSWORDS: &[&str] = &["passw", "pwd"];
/// Names of codes, and how long what stands there must be to be one and not an app's own word.
const CODES: &[&str] = &["code", "jscode", "cloudid"];
const SHORTEST_CODE: usize = 20;
/// How much of a code is told.
const OF_A_CODE: usize = 4;
/// The name of a signature in the URL of a medium, which is all that is needed to see that, and how long one is.
const SIGNATURE: &str = "s";
const SIGNATURE_LENGTH: usize = 22;
/// How our own tokens begin.
const TOKENS: &str = "wx";
const KINDS_OF_TOKENS: &[&str] = &["wxat_", "wxrt_"];
/// Longer than any name that a scheme of `Authorization` has (RFC 9110 §16.4.1).
const LONGEST_SCHEME: usize = 20;
/// Longer than the usual names of protocols, and shorter than what is a token.
const LONGEST_PROTOCOL: usize = 23;
/// In how many texts within texts is looked.
const DEEPEST: usize = 15;
/// The longest name that is looked at.
const LONGEST_NAME: usize = 64;
/// How far behind the name of a form's part its content may begin.
const LONGEST_PART_HEAD: usize = 512;

/// What a name says of its value.
#[derive(Clone, Copy, PartialEq)]
enum Named {
    Secret { numbers: bool },
    Code,
    Signature,
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
            Some((scheme, _)) if is_scheme(scheme) => format!("{scheme} {MASK}").into(),
            _ => MASK.into(),
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
    let mut reading = Reading::new(text);
    let (mut told, mut at) = (0, 0);
    while let Some(found) = text[at..].find(['"', '=', '%', 'w']) {
        let place = at + found;
        let rest = &text[place..];
        let hidden = match text.as_bytes()[place] {
            b'=' => reading.parameter(place, 1),
            b'w' if rest.starts_with(TOKENS) => token(text, place),
            b'"' => reading.member(place),
            b'%' if rest.starts_with("%22") => reading.member(place),
            b'%' if starts_with(rest, "%3d") => reading.parameter(place, 3),
            _ => None,
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

/// One of our own tokens, of which the kind is told.
fn token(text: &str, place: usize) -> Option<Hidden> {
    let kind = KINDS_OF_TOKENS
        .iter()
        .find(|kind| text[place..].starts_with(**kind))?;
    let from = place + kind.len();
    let length = text[from..].bytes().take_while(|b| is_of_code(*b)).count();
    (length > 0).then_some(Hidden {
        from,
        to: from + length,
        instead: MASK,
    })
}

/// A text that is looked through from its beginning to its end.
struct Reading<'t> {
    text: &'t str,
    /// The ends of the last parameter, and of the last part of a form, that were looked for: what is within is not looked through
    /// once more.
    parameter_end: usize,
    part_end: usize,
}

impl<'t> Reading<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            parameter_end: 0,
            part_end: 0,
        }
    }

    /// What is hidden of the parameter whose `=`, or what stands for it, is at `equals`.
    fn parameter(&mut self, equals: usize, length: usize) -> Option<Hidden> {
        let text = self.text;
        let is_of_name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.[]%".contains(b);
        let before = text[..equals].bytes().rev().take(2 * LONGEST_NAME);
        let of_name = before.take_while(is_of_name).count();
        let name = own_name(&text[equals - of_name..equals]);
        let from = equals + length;
        if name.eq_ignore_ascii_case("name") {
            return self.form_part(from);
        }
        let named = match name {
            SIGNATURE => Named::Signature,
            name => named(name)?,
        };
        if text[from..].starts_with('"') {
            let to = text[from + 1..]
                .find('"')
                .map_or(text.len(), |end| from + 1 + end);
            return hidden(named, text, from + 1, to);
        }
        if self.parameter_end < from {
            let is_end = |c: char| matches!(c, '&' | '#' | '"' | '\\') || c.is_whitespace();
            self.parameter_end = text[from..]
                .find(is_end)
                .map_or(text.len(), |end| from + end);
        }
        let value = &text[from..self.parameter_end];
        let length = match (length, named) {
            (1, Named::Secret { .. }) => value.len(),
            // Within another parameter its end is an escaped one.
            (_, Named::Secret { .. }) => end_of_escaped(value),
            _ => value.bytes().take_while(|b| is_of_code(*b)).count(),
        };
        let to = from + length;
        hidden(named, text, from, to)
    }

    /// What is hidden of a part of a form (RFC 7578) whose name stands at `from`, mostly in quotation marks.
    fn form_part(&mut self, from: usize) -> Option<Hidden> {
        let text = self.text;
        let quoted = text[from..].strip_prefix('"');
        let rest = quoted.unwrap_or(&text[from..]);
        let is_end = |c: char| match quoted {
            Some(_) => c == '"',
            None => matches!(c, ';' | '\r'),
        };
        let name = &rest[..within(rest, LONGEST_NAME).find(is_end)?];
        let named = named(name)?;
        let head = within(rest, LONGEST_PART_HEAD).find("\r\n\r\n")?;
        let begin = text.len() - rest.len() + head + 4;
        if self.part_end < begin {
            let end = text[begin..].find("\r\n--");
            self.part_end = end.map_or(text.len(), |end| begin + end);
        }
        hidden(named, text, begin, self.part_end)
    }

    /// What is hidden of the member whose name begins with the quotation mark at `quote`, which may be one within a text, or within
    /// a query. What is cut off is hidden up to its end.
    fn member(&self, quote: usize) -> Option<Hidden> {
        let text = self.text;
        let escapes = text[..quote].bytes().rev().take(DEEPEST);
        let depth = escapes.take_while(|b| *b == b'\\').count();
        let (mark, colon, space): (&str, &str, &[char]) = match text.as_bytes()[quote] {
            b'%' => (&text[quote..quote + 3], "%3a", &['+']),
            _ => (&text[quote - depth..=quote], ":", &[' ', '\t', '\r', '\n']),
        };
        // The mark ends where the quotation mark does.
        let rest = match text.as_bytes()[quote] {
            b'%' => &text[quote + 3..],
            _ => &text[quote + 1..],
        };
        let name = &rest[..within(rest, LONGEST_NAME).find(mark)?];
        let named = named(name)?;
        let behind = rest[name.len() + mark.len()..].trim_start_matches(space);
        let value = match starts_with(behind, colon) {
            true => behind[colon.len()..].trim_start_matches(space),
            false => behind.strip_prefix(':')?.trim_start_matches(space),
        };
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
}

/// Where a parameter ends that stands escaped in another one.
fn end_of_escaped(value: &str) -> usize {
    let ends = ["%26", "%23", "%22", "%5c"];
    let mut escapes = value.match_indices('%');
    let end = escapes.find(|(at, _)| ends.iter().any(|end| starts_with(&value[*at..], end)));
    end.map_or(value.len(), |(at, _)| at)
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
            let is_code = value.len() >= SHORTEST_CODE && value.bytes().all(is_of_code);
            is_code.then_some(from + OF_A_CODE)?
        }
        Named::Signature => {
            let is_one = value.len() == SIGNATURE_LENGTH && value.bytes().all(is_of_code);
            is_one.then_some(from)?
        }
        Named::Secret { .. } => from,
    };
    (to > from).then_some(Hidden {
        from,
        to,
        instead: MASK,
    })
}

/// The name of a parameter, without what an escape or another parameter has left before it.
fn own_name(name: &str) -> &str {
    let escaped = name.rfind('%').filter(|at| {
        // The brackets of `user%5Bname%5D` are of the name.
        let rest = &name[*at..];
        !starts_with(rest, "%5b") && !starts_with(rest, "%5d")
    });
    let name = match escaped {
        Some(at) => name.get(at + 3..).unwrap_or_default(),
        None => name,
    };
    // How some write `&` in JSON.
    name.strip_prefix("u0026").unwrap_or(name)
}

/// Whether a text begins so, without case.
fn starts_with(text: &str, lower: &str) -> bool {
    let begin = text.as_bytes().get(..lower.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(lower.as_bytes()))
}

fn is_of_code(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

fn is_scheme(scheme: &str) -> bool {
    let is_of_scheme = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    scheme.len() <= LONGEST_SCHEME && scheme.bytes().all(is_of_scheme)
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
    if value
        .split(',')
        .all(|protocol| protocol.trim().len() <= LONGEST_PROTOCOL)
    {
        return value.into();
    }
    let masked = |protocol: &str| match protocol.trim() {
        short if short.len() <= LONGEST_PROTOCOL => short.to_owned(),
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
            (
                r#"{"headers":{"Authorization":"Bearer a.b","Cookie":"sid=1"},"session_id":"q","skey":"k"}"#,
                r#"{"headers":{"Authorization":"***","Cookie":"***"},"session_id":"***","skey":"***"}"#,
            ),
            (
                r#"{"a":"{\"b\":\"{\\\"token\\\":\\\"x\\\",\\\"n\\\":1}\"}"}"#,
                r#"{"a":"{\"b\":\"{\\\"token\\\":\\\"***\\\",\\\"n\\\":1}\"}"}"#,
            ),
            (
                r#"{"url":"/x?a=1\u0026token=abc\u0026b=2"}"#,
                r#"{"url":"/x?a=1\u0026token=***\u0026b=2"}"#,
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
            (
                "data=%7B%22access_token%22%3A%22abc%22%2C%22n%22%3A1%7D",
                "data=%7B%22access_token%22%3A%22***%22%2C%22n%22%3A1%7D",
            ),
            (
                "redirect=https%3A%2F%2Fa%2F%3Ftoken%3Da.b%2Bc%26x%3D1&y=2",
                "redirect=https%3A%2F%2Fa%2F%3Ftoken%3D***%26x%3D1&y=2",
            ),
            ("password=ab'c;d&x=1", "password=***&x=1"),
            (
                "Content-Disposition: form-data; name=password\r\n\r\na\r\n--b--",
                "Content-Disposition: form-data; name=password\r\n\r\n***\r\n--b--",
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
    fn our_own_tokens_and_signatures_are_masked_wherever_they_stand() {
        let signature = "AbCdEfGhIjKlMnOpQrSt-_";
        for (from, to) in [
            ("Bearer wxat_aB-_9.", "Bearer wxat_***."),
            ("/ws/wxrt_abc/x", "/ws/wxrt_***/x"),
            ("[\"wxat_a\",\"wxat_\"]", "[\"wxat_***\",\"wxat_\"]"),
            (
                &format!("/wx/media/m?e=1&s={signature}#x"),
                "/wx/media/m?e=1&s=***#x",
            ),
            (
                &format!("u=%2Fm%3Fe%3D1%26s%3D{signature}%26"),
                "u=%2Fm%3Fe%3D1%26s%3D***%26",
            ),
            ("/search?s=shoes&w=1", "/search?s=shoes&w=1"),
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
            "name=\"code\"\r\n\r\n",
            "token%3D",
            "code%3D%",
            "%22code%22%3A%22",
            "wxat_",
            "\\\\\\\"token",
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
            ("authorization", "wxat_x y", "***"),
            ("X-Forwarded-Authorization", "Bearer abc", "***"),
            ("X-Session-Id", "abc", "***"),
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
            (
                "sec-websocket-protocol",
                "token, 0123456789abcdef0123456789abcdef",
                "token, ***",
            ),
        ] {
            assert_eq!(field(name, from), to, "{name}: {from}");
        }
    }
}
