//! The canonical path: decided on and forwarded as one and the same string.
//!
//! If the sidecar decides on `/public/../admin` and the app serves `/admin`, authentication has been walked around. So a
//! request-target becomes canonical once, before anything looks at it. What has one meaning everywhere is normalised (RFC
//! 3986 §6.2.2: dot segments, case of escapes, escaped unreserved characters, and doubled slashes). What servers disagree
//! about (`;`, escaped slashes, backslashes, NUL, double escapes, fragments) is refused, never guessed.

mod pattern;

use std::borrow::Cow;

use crate::config::EscapedSlashes;

pub(crate) use pattern::Pattern;

/// A path that begins with `/`, has no dot segments and one spelling; the query follows as it came. Both are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CanonicalPath<'a> {
    path: Cow<'a, [u8]>,
    query: Option<&'a [u8]>,
}

/// Why a request-target is refused; told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Ambiguous(pub(crate) &'static str);

impl<'a> CanonicalPath<'a> {
    /// Parses a request-target in origin-form (RFC 9112 §3.2.1); no other form is for an app.
    pub(crate) fn parse(target: &'a [u8], slashes: EscapedSlashes) -> Result<Self, Ambiguous> {
        if let Some(plain) = Self::plain(target) {
            return Ok(plain);
        }
        if !target.iter().all(u8::is_ascii_graphic) {
            return Err(Ambiguous(
                "the request-target has a space, control or non-ASCII character",
            ));
        }
        let text = std::str::from_utf8(target)
            .map_err(|_| Ambiguous("the request-target is not ASCII"))?;
        if !text.starts_with('/') {
            return Err(Ambiguous("the request-target must begin with a slash"));
        }
        if memchr::memchr(b'#', target).is_some() {
            return Err(Ambiguous("a fragment has no place in a request-target"));
        }
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(mark) => (&text[..mark], Some(&target[mark + 1..])),
            None => (text, None),
        };
        let path = remove_dot_segments(&unescape(path, slashes)?)?;
        Ok(Self {
            path: Cow::Owned(path.into_bytes()),
            query,
        })
    }

    /// A target whose path is canonical as it stands. Almost all are, and those cost one pass and no copy.
    fn plain(target: &'a [u8]) -> Option<Self> {
        let end = target.iter().position(|&b| b == b'?');
        let (path, query) = target.split_at(end.unwrap_or(target.len()));
        let in_query = |b: &u8| b.is_ascii_graphic() && *b != b'#';
        if path.first() != Some(&b'/') || !is_plain(path) || !query.iter().all(in_query) {
            return None;
        }
        Some(Self {
            path: Cow::Borrowed(path),
            query: query.get(1..),
        })
    }

    /// The path, without the query.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.path
    }

    /// The query, without its `?`.
    pub(crate) fn query(&self) -> Option<&'a [u8]> {
        self.query
    }
}

/// Whether a path is canonical as it stands.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let plain = match byte {
            b'/' | b'.' => previous != b'/',
            _ => UNRESERVED[usize::from(byte)],
        };
        if !plain {
            return false;
        }
        previous = byte;
    }
    true
}

/// Decodes what need not be escaped, and makes all other escapes upper-case.
fn unescape(path: &str, slashes: EscapedSlashes) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(path.len());
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'\\' => return Err(Ambiguous("the path has a backslash")),
            b';' => {
                return Err(Ambiguous(
                    "the path has a semicolon, which some servers cut at",
                ));
            }
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                return Err(Ambiguous("the path has a character that must be escaped"));
            }
            b'%' => {
                let (byte, tail) = escape(rest)?;
                check_escape(byte, slashes)?;
                decoded.push(byte);
                if is_unreserved(byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                rest = tail;
            }
            &byte => {
                decoded.push(byte);
                out.push(char::from(byte));
            }
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return Err(Ambiguous("the path does not decode to UTF-8"));
    }
    if is_escaped_twice(&out) {
        return Err(Ambiguous("the path is escaped twice"));
    }
    Ok(out)
}

/// Whether decoding leaves an escape: `%252e` is a dot to whoever decodes twice. Asked of the result, because the digits
/// may have been escaped as well.
fn is_escaped_twice(path: &str) -> bool {
    let digits = |tail: &[u8]| tail.len() >= 2 && tail[..2].iter().all(u8::is_ascii_hexdigit);
    path.split("%25")
        .skip(1)
        .any(|tail| digits(tail.as_bytes()))
}

fn escape(rest: &[u8]) -> Result<(u8, &[u8]), Ambiguous> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    match rest {
        [high, low, tail @ ..] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => Ok((high << 4 | low, tail)),
            _ => Err(Ambiguous("the path has a malformed escape")),
        },
        _ => Err(Ambiguous("the path has a malformed escape")),
    }
}

fn check_escape(byte: u8, slashes: EscapedSlashes) -> Result<(), Ambiguous> {
    match byte {
        0..=0x1f | 0x7f => Err(Ambiguous("the path has an escaped control character")),
        b'/' | b'\\' if slashes == EscapedSlashes::Reject => Err(Ambiguous(
            "the path has an escaped slash; see [inbound] escaped_slashes",
        )),
        _ => Ok(()),
    }
}

/// RFC 3986 §5.2.4, with empty segments merged; above the root there is nothing.
fn remove_dot_segments(path: &str) -> Result<String, Ambiguous> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            _ if hides_dots(segment) => {
                return Err(Ambiguous(
                    "the path has a dot segment behind an escaped slash",
                ));
            }
            ".." => {
                segments
                    .pop()
                    .ok_or(Ambiguous("the path leads above the root"))?;
            }
            _ => segments.push(segment),
        }
    }
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || directory {
        out.push('/');
    }
    Ok(out)
}

/// Whether a segment has an escaped slash, which the operator wants kept, and a dot segment beside it: an app that decodes
/// before it normalises would walk out of the path that was decided on.
fn hides_dots(segment: &str) -> bool {
    let mut pieces = segment.split("%2F").flat_map(|piece| piece.split("%5C"));
    segment.contains('%')
        && pieces.clone().count() > 1
        && pieces.any(|piece| matches!(piece, "." | ".."))
}

/// As [`is_unreserved`], for the one pass that every path takes.
const UNRESERVED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = is_unreserved(byte as u8);
        byte += 1;
    }
    allowed
};

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<String, Ambiguous> {
        CanonicalPath::parse(target.as_bytes(), EscapedSlashes::Reject)
            .map(|path| String::from_utf8(path.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn what_has_one_meaning_is_normalised() {
        for (target, canonical) in [
            ("/", "/"),
            ("/api/users/1", "/api/users/1"),
            ("/api/", "/api/"),
            ("//api", "/api"),
            ("/api//users", "/api/users"),
            ("/./api", "/api"),
            ("/a/b/../c", "/a/c"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/.%2E/admin", "/admin"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/%41pi", "/Api"),
            ("/%e4%bd%a0", "/%E4%BD%A0"),
            ("/a%20b", "/a%20b"),
            ("/a:b@c,d=e+f(g)!*'$&", "/a:b@c,d=e+f(g)!*'$&"),
            ("/.well-known/x", "/.well-known/x"),
            ("/file.txt", "/file.txt"),
            ("/100%25", "/100%25"),
        ] {
            assert_eq!(parse(target).as_deref(), Ok(canonical), "{target}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused() {
        for target in [
            "",
            "*",
            "api",
            "http://evil/",
            "example.com:80",
            "/..",
            "/a/../..",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/admin;x=1",
            "/..;/admin",
            "/a%00",
            "/a%0a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%252e%252e/admin",
            "/a%252fb",
            "/%25%32%65%25%32%65/admin",
            "/a%25%32fb",
            "/a%2525",
            "/%c0%ae%c0%ae/",
            "/%ff",
            "/public#/../admin",
            "/a b",
            "/\u{4f60}",
            "/a?b c",
            "/a?b#c",
            "/a\u{7f}",
        ] {
            assert!(
                parse(target).is_err(),
                "{target:?} became {:?}",
                parse(target)
            );
        }
    }

    #[test]
    fn an_escaped_slash_is_kept_where_the_operator_wants_it() {
        let path = CanonicalPath::parse(b"/a%2fb", EscapedSlashes::Keep).unwrap();
        assert_eq!(path.as_bytes(), b"/a%2Fb");
        for hidden in [
            "/public/..%2Fadmin",
            "/public/.%5C..%5Cx",
            "/a%2f.",
            "/..%2f..",
            "/a%2F%2e%2e",
        ] {
            let path = CanonicalPath::parse(hidden.as_bytes(), EscapedSlashes::Keep);
            assert!(path.is_err(), "{hidden}");
        }
    }

    #[test]
    fn the_query_is_no_part_of_the_path() {
        let path = CanonicalPath::parse(b"/api?x=/public/../y", EscapedSlashes::Reject).unwrap();
        assert_eq!(
            (path.as_bytes(), path.query()),
            (&b"/api"[..], Some(&b"x=/public/../y"[..]))
        );
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point(target in "/[a-z0-9./%;?#_~A-F-]{0,40}") {
            if let Ok(path) = parse(&target) {
                prop_assert_eq!(parse(&path), Ok(path.clone()));
                prop_assert!(!path.contains("//") && !path.contains("/../") && !path.contains("/./"));
                prop_assert!(!path.ends_with("/..") && !path.ends_with("/."));
            }
        }

        #[test]
        fn the_fast_path_agrees_with_the_slow_one(path in "/[a-z0-9./_~-]{0,40}", query in "([?][!-~]{0,10})?") {
            let target = format!("{path}{query}");
            if let Some(plain) = CanonicalPath::plain(target.as_bytes()) {
                let slow = remove_dot_segments(&unescape(&path, EscapedSlashes::Reject).unwrap());
                prop_assert_eq!(slow.map(String::into_bytes), Ok(plain.as_bytes().to_vec()));
                prop_assert_eq!(plain.query(), query.strip_prefix('?').map(str::as_bytes));
                prop_assert!(!query.contains('#'));
            }
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(target in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = CanonicalPath::parse(&target, EscapedSlashes::Keep);
        }
    }
}
