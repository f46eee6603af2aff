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
/// The longest name that is looked at, and the same with what ends it.
const LONGEST_NAME: usize = 64;
const LONGEST_MEMBER: usize = LONGEST_NAME + 3 * (DEEPEST + 1);
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
    while let Some(found) = text[at..].find(['"', '=', '%', '\\', 'w']) {
        let place = at + found;
        let rest = &text[place..];
        let hidden = match text.as_bytes()[place] {
            b'=' => reading.parameter(place, 1),
            b'w' if rest.starts_with(TOKENS) => token(text, place),
            b'"' => reading.member(place, &PLAIN),
            b'%' if rest.starts_with(ESCAPED.quote) => reading.member(place, &ESCAPED),
            b'%' if starts_with(rest, "%3d") => reading.parameter(place, 3),
            b'\\' if starts_with(rest, "\\u003d") => reading.parameter(place, 6),
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

/// How JSON is written: as it is, or escaped in a query.
struct Writing {
    quote: &'static str,
    /// Compared without case, as what follows.
    backslash: &'static str,
    colons: &'static [&'static str],
    spaces: &'static [&'static str],
    /// How what is neither a text nor a number begins.
    trees: &'static [&'static str],
}

const PLAIN: Writing = Writing {
    quote: "\"",
    backslash: "\\",
    colons: &[":"],
    spaces: &[" ", "\t", "\r", "\n"],
    trees: &["[", "{"],
};
const ESCAPED: Writing = Writing {
    quote: "%22",
    backslash: "%5c",
    colons: &[":", "%3a"],
    spaces: &["+", "%20", "%09", "%0a", "%0d"],
    trees: &["[", "{", "%5b", "%7b"],
};

impl Writing {
    /// How many backslashes stand before this.
    fn depth(&self, before: &str) -> usize {
        let backslash = self.backslash.len();
        let is_one = |from: usize| starts_with(&before[from..], self.backslash);
        let starts = (1..=DEEPEST).map_while(|count| before.len().checked_sub(count * backslash));
        let starts = starts.take_while(|from| before.is_char_boundary(*from) && is_one(*from));
        starts.count()
    }

    /// Where a text ends whose quotation marks have `depth` backslashes, and what is behind the mark that ends it. A mark with
    /// others before it is one within the text, or within a text around it.
    fn end_of_text(&self, value: &str, depth: usize) -> Option<(usize, usize)> {
        let (mut at, mut backslashes) = (0, 0);
        while at < value.len() {
            let rest = &value.as_bytes()[at..];
            if begins(rest, self.backslash) {
                backslashes += 1;
                at += self.backslash.len();
            } else if begins(rest, self.quote) {
                if backslashes % (2 * (depth + 1)) == depth {
                    return Some((at - depth * self.backslash.len(), at + self.quote.len()));
                }
                backslashes = 0;
                at += self.quote.len();
            } else {
                backslashes = 0;
                at += 1;
            }
        }
        None
    }

    /// What is behind any of these, if one of them begins a text.
    fn behind<'t>(text: &'t str, any: &[&str]) -> Option<&'t str> {
        let found = any.iter().find(|it| starts_with(text, it))?;
        Some(&text[found.len()..])
    }

    fn skip_spaces<'t>(&self, mut text: &'t str) -> &'t str {
        while let Some(rest) = Self::behind(text, self.spaces) {
            text = rest;
        }
        text
    }

    /// What is behind a mark with `depth` backslashes, if that begins a text.
    fn behind_mark<'t>(&self, mut text: &'t str, depth: usize) -> Option<&'t str> {
        for _ in 0..depth {
            text = Self::behind(text, &[self.backslash])?;
        }
        text.strip_prefix(self.quote)
    }
}

/// A text that is looked through from its beginning to its end.
struct Reading<'t> {
    text: &'t str,
    /// Whether it is JSON as a whole: then a quotation mark ends whatever stands in a text.
    is_json: bool,
    /// The ends of the last parameter, and of the last part of a form, that were looked for: what is within is not looked through
    /// once more.
    parameter_end: usize,
    part_end: usize,
}

impl<'t> Reading<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            is_json: text.trim_ascii_start().starts_with(['{', '[', '"']),
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
        let value = &text[from..];
        let depth = value.bytes().take_while(|b| *b == b'\\').count();
        let is_quoted = value[depth..].starts_with('"') && depth <= DEEPEST;
        if is_quoted && (depth > 0 || !self.is_json) {
            let from = from + depth + 1;
            let end = PLAIN.end_of_text(&text[from..], depth);
            return hidden(
                named,
                text,
                from,
                end.map_or(text.len(), |(end, _)| from + end),
            );
        }
        if self.parameter_end < from {
            self.parameter_end = from + self.end_of_parameter(value);
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

    /// Where a parameter ends whose value begins here.
    fn end_of_parameter(&self, value: &str) -> usize {
        let bytes = value.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'&' | b'#' => break,
                _ if byte.is_ascii_whitespace() => break,
                b'"' if self.is_json => break,
                b'\\' if self.is_json => {
                    let escaped = &bytes[at + 1..];
                    let is_end = [r#"""#, "n", "r", "t", "u0026", "u0023"];
                    if is_end.iter().any(|end| begins(escaped, end)) {
                        break;
                    }
                    at += 2;
                }
                _ => at += 1,
            }
        }
        // A cut may leave half an escape, and an escape may stand before a character of several bytes.
        (at.min(value.len())..=value.len())
            .find(|at| value.is_char_boundary(*at))
            .unwrap_or(value.len())
    }

    /// What is hidden of the member whose name begins with the quotation mark at `quote`, which may be one within a text, or within
    /// a query. What is cut off is hidden up to its end.
    fn member(&self, quote: usize, writing: &Writing) -> Option<Hidden> {
        let text = self.text;
        let depth = writing.depth(&text[..quote]);
        let rest = &text[quote + writing.quote.len()..];
        let (end, behind) = writing.end_of_text(within(rest, LONGEST_MEMBER), depth)?;
        let named = named(&rest[..end])?;
        let behind = writing.skip_spaces(&rest[behind..]);
        let value = writing.skip_spaces(Writing::behind(behind, writing.colons)?);
        let at = text.len() - value.len();
        if let Some(value) = writing.behind_mark(value, depth) {
            let from = text.len() - value.len();
            let end = writing.end_of_text(value, depth);
            return hidden(
                named,
                text,
                from,
                end.map_or(text.len(), |(end, _)| from + end),
            );
        }
        let Named::Secret { numbers } = named else {
            return None;
        };
        let is_number = |b: &u8| b.is_ascii_digit() || *b == b'-';
        let to = match Writing::behind(value, writing.trees) {
            Some(_) if writing.quote == PLAIN.quote => at + end_of_tree(value, depth),
            // Where it ends is not worth finding out.
            Some(_) => at + self.end_of_parameter(value),
            None if numbers && value.as_bytes().first().is_some_and(is_number) => {
                let end = value.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
                end.map_or(text.len(), |end| at + end)
            }
            None => return None,
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

/// Behind where an array or an object ends in which quotation marks have `depth` backslashes; at the latest where the text around
/// it does.
fn end_of_tree(value: &str, depth: usize) -> usize {
    let (mut nested, mut in_text, mut backslashes) = (0_usize, false, 0);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'\\' => {
                backslashes += 1;
                continue;
            }
            b'"' if backslashes % (2 * (depth + 1)) == depth => in_text = !in_text,
            b'"' if backslashes < depth => return at - backslashes,
            b'[' | b'{' if !in_text => nested += 1,
            b']' | b'}' if !in_text => nested = nested.saturating_sub(1),
            _ => {}
        }
        backslashes = 0;
        if nested == 0 {
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
    begins(text.as_bytes(), lower)
}

fn begins(bytes: &[u8], lower: &str) -> bool {
    let begin = bytes.get(..lower.len());
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
                r#"{"say":"{\"token\":\"a\\\"bc\",\"n\":1}"}"#,
                r#"{"say":"{\"token\":\"***\",\"n\":1}"}"#,
            ),
            (
                r#"{"say":"{\"tokens\":[\"a\"],\"n\":1}","m":2}"#,
                r#"{"say":"{\"tokens\":"***",\"n\":1}","m":2}"#,
            ),
            (
                r#"{"say":"{\"tokens\":[\"a","m":2}"#,
                r#"{"say":"{\"tokens\":"***"","m":2}"#,
            ),
            (
                r#"{"url":"/x?token\u003dabc\u0026b\u003d2"}"#,
                r#"{"url":"/x?token\u003d***\u0026b\u003d2"}"#,
            ),
            (
                r#"{"log":"token=\"a b\" c","u":"?token=","b":"c"}"#,
                r#"{"log":"token=\"***\" c","u":"?token=","b":"c"}"#,
            ),
            (
                r#"{"log":"password=a\\b\n"}"#,
                r#"{"log":"password=***\n"}"#,
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
            ("password=ab\"c\\d&x=1", "password=***&x=1"),
            ("token=\"a\\\"b\" c", "token=\"***\" c"),
            (
                "data=%7B%22token%22%3A%20%22a%5C%22b%22%2C%22n%22%3A1%7D&x=1",
                "data=%7B%22token%22%3A%20%22***%22%2C%22n%22%3A1%7D&x=1",
            ),
            (
                "data=%7B%22secrets%22%3A+%5B%22a%22%5D%7D&x=1",
                "data=%7B%22secrets%22%3A+\"***\"&x=1",
            ),
            (
                "data=%7B%22a%22%3A%22%7B%5C%22token%5C%22%3A%5c%22b%5c%22%7D%22%7D",
                "data=%7B%22a%22%3A%22%7B%5C%22token%5C%22%3A%5c%22***%5c%22%7D%22%7D",
            ),
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

    proptest::proptest! {
        #[test]
        fn whatever_a_secret_is_none_of_it_is_told_however_deep_it_stands(
            before in "[ab\"\\\\=&%{}\\[\\]:, \n微]{0,12}",
            after in "[ab\"\\\\=&%{}\\[\\]:, \n微]{0,12}",
            depth in 0..4,
        ) {
            let secret = format!("{before}S3CR3T{after}T4IL");
            let mut json = serde_json::json!({ "a": 1, "token": secret, "n": [secret.len()] }).to_string();
            for _ in 0..depth {
                json = serde_json::json!({ "say": json, "m": 2 }).to_string();
            }
            let told = text(&json);
            proptest::prop_assert!(!told.contains("S3CR3T") && !told.contains("T4IL"), "{told}");
            let whole: Result<serde_json::Value, _> = serde_json::from_str(&told);
            proptest::prop_assert!(whole.is_ok(), "{told}");
            let escaped = percent_encoding::utf8_percent_encode(&json, percent_encoding::NON_ALPHANUMERIC);
            let query = format!("data={escaped}&x=1");
            let told = text(&query);
            proptest::prop_assert!(!told.contains("S3CR3T") && !told.contains("T4IL"), "{told}");
            proptest::prop_assert!(told.ends_with("&x=1"), "{told}");
        }
    }

    #[test]
    fn what_is_made_to_take_long_takes_as_long_as_it_is() {
        let work = |unit: &str, bytes: usize| {
            let hostile = unit.repeat(bytes / unit.len());
            let began = std::time::Instant::now();
            assert!(!text(&hostile).is_empty());
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
            "%5c%22code%5c%22%3A%5c%22",
            "%22token%22%3a%5b",
            "\"tokens\":[",
            "\\\"tokens\\\":[",
            "\\u003d",
            "token\\u003d\\",
            "{\"token=\\",
            "\\",
            "%5c",
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
