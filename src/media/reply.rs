//! How a medium answers a request: as a whole, in part, or not at all, and what the head says of it (RFC 9110, 9111, 9211).
//!
//! A media_id never changes what it stands for, so its entity tag is strong and its answers need not be asked for again.
//! What is in a medium is its uploader's: no browser may take it for anything but what it is, or run what is hidden in it.

use std::ops::Range;
use std::time::Duration;

use super::download::{Facts, Found};
use super::name;
use crate::error::{Error, Kind};
use crate::wechat::api::percent_encode;
use crate::wechat::media::LIFE;
use crate::wire::{Length, Method, RequestHead};

/// What a request asks of a medium.
#[derive(Default)]
pub(crate) struct Asked<'a> {
    method: Method,
    /// `None` also if there are several: then nobody knows which is meant.
    range: Option<&'a [u8]>,
    if_range: IfRange<'a>,
    if_match: Vec<&'a [u8]>,
    if_none_match: Vec<&'a [u8]>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum IfRange<'a> {
    #[default]
    Absent,
    Tag(&'a [u8]),
    /// It stands there twice.
    Repeated,
}

/// What is sent of a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// All of it: 200.
    Whole,
    /// These bytes, of so many: 206.
    Part(Range<u64>, u64),
    /// None of it, because the client has it: 304.
    NotModified,
}

/// What else bears on an answer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manner<'a> {
    /// What the client wants the file to be called.
    pub(crate) filename: Option<&'a str>,
    /// How long the URL is still good, if that ends.
    pub(crate) url_life: Option<Duration>,
    /// Whether the URL is the app's own, which may lead to another medium tomorrow.
    pub(crate) by_app: bool,
}

/// Field lines.
pub(crate) type Lines = Vec<(&'static str, String)>;

impl<'a> Asked<'a> {
    pub(crate) fn of(head: &'a RequestHead) -> Self {
        let lines = head.fields.iter().map(|field| (field.name, field.value));
        Self::read(head.method, lines)
    }

    fn read(method: Method, lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut asked = Self {
            method,
            ..Self::default()
        };
        let mut ranges = 0;
        for (name, value) in lines {
            match name.len() {
                5 if name.eq_ignore_ascii_case(b"range") => {
                    ranges += 1;
                    asked.range = Some(value);
                }
                8 if name.eq_ignore_ascii_case(b"if-range") => {
                    asked.if_range = match asked.if_range {
                        IfRange::Absent => IfRange::Tag(value),
                        _ => IfRange::Repeated,
                    };
                }
                8 if name.eq_ignore_ascii_case(b"if-match") => {
                    asked.if_match.extend(elements(value));
                }
                13 if name.eq_ignore_ascii_case(b"if-none-match") => {
                    asked.if_none_match.extend(elements(value));
                }
                _ => {}
            }
        }
        if ranges > 1 {
            asked.range = None;
        }
        asked
    }

    /// Decides in the order of RFC 9110 §13.2.2. Dates do not count: a medium has none. What is asked by any other method
    /// than GET and HEAD is an app's to judge, and it has done so.
    pub(crate) fn plan(&self, facts: &Facts) -> Result<Plan, Error> {
        if !matches!(self.method, Method::Get | Method::Head) {
            return Ok(Plan::Whole);
        }
        let is_it = |tag: &&[u8]| **tag == *b"*" || **tag == *facts.etag.as_bytes();
        if !self.if_match.is_empty() && !self.if_match.iter().any(is_it) {
            let detail = (
                "the medium is not the one that If-Match names",
                "媒体文件与 If-Match 不符",
            );
            return Err(Error::downstream(Kind::PreconditionFailed, detail));
        }
        let is_known = |tag: &&[u8]| is_it(&tag.strip_prefix(b"W/").unwrap_or(*tag));
        if self.if_none_match.iter().any(is_known) {
            return Ok(Plan::NotModified);
        }
        let is_current = match self.if_range {
            IfRange::Absent => true,
            IfRange::Tag(tag) => tag == facts.etag.as_bytes(),
            IfRange::Repeated => false,
        };
        match (self.method, self.range, facts.length) {
            // Ranges mean nothing with any other method (RFC 9110 §14.2).
            (Method::Get, Some(range), Some(length)) if is_current => part(range, length),
            _ => Ok(Plan::Whole),
        }
    }
}

/// The elements of a list (RFC 9110 §5.6.1). Our tags have no commas, so those that others have do not matter.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// What `Range` asks for (RFC 9110 §14). Whatever cannot be understood is ignored, and so are several ranges at once, as
/// §14.2 lets us.
fn part(range: &[u8], length: u64) -> Result<Plan, Error> {
    let Some(wanted) = single(range) else {
        return Ok(Plan::Whole);
    };
    let (first, end) = match wanted {
        Wanted::Last(0) => return Err(unsatisfiable(length)),
        // There is no way to write a part of nothing.
        Wanted::Last(_) if length == 0 => return Ok(Plan::Whole),
        Wanted::Last(count) => (length.saturating_sub(count), length),
        Wanted::From(first, _) if first >= length => return Err(unsatisfiable(length)),
        Wanted::From(first, None) => (first, length),
        Wanted::From(first, Some(last)) => (first, last.saturating_add(1).min(length)),
    };
    Ok(Plan::Part(first..end, length))
}

enum Wanted {
    /// From here, to here at most.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

fn single(range: &[u8]) -> Option<Wanted> {
    let (unit, set) = range.split_at_checked(b"bytes=".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut elements = elements(set);
    let (only, None) = (elements.next()?, elements.next()) else {
        return None;
    };
    let dash = memchr::memchr(b'-', only)?;
    match (&only[..dash], &only[dash + 1..]) {
        (b"", count) => Some(Wanted::Last(number(count)?)),
        (first, b"") => Some(Wanted::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Wanted::From(first, Some(last)))
        }
    }
}

/// Digits and nothing else; what is too large is as large as can be, which is beyond any medium.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    Some(text.parse().unwrap_or(u64::MAX))
}

fn unsatisfiable(length: u64) -> Error {
    let detail = (
        format!("the medium has {length} bytes, and the range begins behind them"),
        format!("媒体文件共 {length} 字节，请求的范围起点已超出"),
    );
    Error::downstream(Kind::RangeNotSatisfiable, detail).with_complete_length(length)
}

impl Plan {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Whole => 200,
            Self::Part(..) => 206,
            Self::NotModified => 304,
        }
    }

    /// How long the answer's body is.
    pub(crate) fn length(&self, facts: &Facts) -> Length {
        match self {
            Self::Whole => facts.length.map_or(Length::Unknown, Length::Exact),
            Self::Part(part, _) => Length::Exact(part.end - part.start),
            Self::NotModified => Length::Absent,
        }
    }

    /// Which bytes are sent: from here, to here if that is known.
    pub(crate) fn bytes(&self, facts: &Facts) -> (u64, Option<u64>) {
        match self {
            Self::Whole => (0, facts.length),
            Self::Part(part, _) => (part.start, Some(part.end)),
            Self::NotModified => (0, Some(0)),
        }
    }

    /// The lines that say what is sent.
    pub(crate) fn describe(&self, facts: &Facts) -> Lines {
        let mut lines = vec![("etag", facts.etag.clone())];
        if *self == Self::NotModified {
            return lines;
        }
        lines.push(("content-type", facts.content_type.to_owned()));
        if facts.length.is_some() {
            lines.push(("accept-ranges", "bytes".to_owned()));
        }
        if let Self::Part(part, length) = self {
            let last = part.end - 1;
            let range = format!("bytes {}-{last}/{length}", part.start);
            lines.push(("content-range", range));
        }
        lines
    }

    /// The lines that say how it is to be taken: kept, shown, trusted.
    pub(crate) fn advise(&self, facts: &Facts, manner: Manner<'_>) -> Lines {
        let mut lines = kept(facts, manner);
        lines.push(("cache-status", cache_status(facts).to_owned()));
        if *self != Self::NotModified {
            lines.push(("x-content-type-options", "nosniff".to_owned()));
            let sandbox = "default-src 'none'; sandbox";
            lines.push(("content-security-policy", sandbox.to_owned()));
            lines.push(("content-disposition", disposition(facts, manner.filename)));
        }
        lines
    }
}

/// How long the answer may be kept: never longer than the medium is there, nor than the URL is good. What `max-age` counts
/// from is as long ago as `Age` says (RFC 9111 §4.2).
fn kept(facts: &Facts, manner: Manner<'_>) -> Lines {
    if manner.by_app {
        return vec![("cache-control", "private, no-cache".to_owned())];
    }
    let left = LIFE.saturating_sub(facts.age);
    let left = manner.url_life.map_or(left, |life| life.min(left));
    let age = match facts.found {
        Found::Hit => Some(facts.age.as_secs()),
        Found::Miss | Found::Collapsed => None,
    };
    let max_age = left.as_secs() + age.unwrap_or_default();
    let rule = format!("private, max-age={max_age}, immutable");
    let age = age.map(|age| ("age", age.to_string()));
    [("cache-control", rule)].into_iter().chain(age).collect()
}

fn cache_status(facts: &Facts) -> &'static str {
    match (facts.found, facts.stored) {
        (Found::Hit, _) => "wx-sidecar; hit",
        (Found::Miss, true) => "wx-sidecar; fwd=miss; stored",
        (Found::Miss, false) => "wx-sidecar; fwd=miss",
        (Found::Collapsed, _) => "wx-sidecar; fwd=miss; collapsed",
    }
}

/// Shown if it is a medium, saved if nobody knows what it is or the client says how it is to be called (RFC 6266).
fn disposition(facts: &Facts, wanted: Option<&str>) -> String {
    let kind = match (wanted, facts.content_type) {
        (None, known) if is_shown(known) => "inline",
        _ => "attachment",
    };
    let given = wanted.and_then(name::for_client);
    let name = given.or_else(|| facts.name.clone());
    let Some(name) = name else {
        return kind.to_owned();
    };
    // Without what would have to be escaped, which clients do in different ways (RFC 6266, appendix D).
    let plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%');
    let fallback: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    if fallback == name {
        return format!("{kind}; filename=\"{name}\"");
    }
    // What is unreserved (RFC 3986) is `attr-char` of RFC 8187, too.
    let exact = percent_encode(&name);
    format!(
        "{kind}; filename=\"{fallback}\"; filename*=UTF-8''{}",
        *exact
    )
}

/// Whether a browser shows it as what it is. SVG is a document with scripts.
fn is_shown(content_type: &str) -> bool {
    let kind = content_type.split_once('/').map(|(kind, _)| kind);
    matches!(kind, Some("image" | "audio" | "video")) && !content_type.contains("svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";
    const DAY: Duration = Duration::from_secs(86_400);

    fn facts() -> Facts {
        Facts {
            content_type: "image/png",
            length: Some(100),
            etag: TAG.to_owned(),
            name: None,
            age: Duration::ZERO,
            found: Found::Miss,
            stored: true,
        }
    }

    /// The status of a request with these lines, and `Content-Range` if it has one.
    fn told(method: Method, lines: &[(&str, &str)], length: Option<u64>) -> (u16, Option<String>) {
        let facts = Facts { length, ..facts() };
        let lines = lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        match Asked::read(method, lines).plan(&facts) {
            Ok(plan) => {
                let line = plan.describe(&facts);
                let line = line.into_iter().find(|(name, _)| *name == "content-range");
                (plan.status(), line.map(|(_, value)| value))
            }
            Err(error) => (
                error.status(),
                error.complete_length().map(|n| format!("*/{n}")),
            ),
        }
    }

    #[test]
    fn a_range_is_a_part_or_the_whole_or_cannot_be_satisfied() {
        for (range, status, content_range) in [
            ("bytes=0-0", 206, "bytes 0-0/100"),
            ("bytes=0-", 206, "bytes 0-99/100"),
            ("bytes=10-19", 206, "bytes 10-19/100"),
            ("bytes=10-1000", 206, "bytes 10-99/100"),
            ("bytes=99-", 206, "bytes 99-99/100"),
            ("bytes=-1", 206, "bytes 99-99/100"),
            ("bytes=-100", 206, "bytes 0-99/100"),
            ("bytes=-1000", 206, "bytes 0-99/100"),
            ("BYTES=5-6", 206, "bytes 5-6/100"),
            ("bytes= 5-6 ,", 206, "bytes 5-6/100"),
            ("bytes=5-99999999999999999999", 206, "bytes 5-99/100"),
            ("bytes=5-18446744073709551615", 206, "bytes 5-99/100"),
            ("bytes=100-", 416, "*/100"),
            ("bytes=100-200", 416, "*/100"),
            ("bytes=99999999999999999999-", 416, "*/100"),
            ("bytes=-0", 416, "*/100"),
            ("bytes=2-1", 200, ""),
            ("bytes=", 200, ""),
            ("bytes=-", 200, ""),
            ("bytes=a-b", 200, ""),
            ("bytes=+1-2", 200, ""),
            ("bytes=1-2-3", 200, ""),
            ("bytes=1 - 2", 200, ""),
            ("bytes 1-2", 200, ""),
            ("bytes=0-1,3-4", 200, ""),
            ("bytes=0-1,900-", 200, ""),
            ("items=0-1", 200, ""),
            ("", 200, ""),
        ] {
            let told = told(Method::Get, &[("Range", range)], Some(100));
            let content_range = Some(content_range.to_owned()).filter(|text| !text.is_empty());
            assert_eq!(told, (status, content_range), "{range}");
        }
    }

    #[test]
    fn a_range_of_what_is_empty_or_of_unknown_length() {
        let range = |range, length| told(Method::Get, &[("range", range)], length).0;
        assert_eq!(range("bytes=0-", Some(0)), 416);
        assert_eq!(range("bytes=-5", Some(0)), 200);
        assert_eq!(range("bytes=0-", None), 200);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let range = ("Range", "bytes=1-2");
        let get = |lines: &[(&str, &str)]| told(Method::Get, lines, Some(100)).0;
        for (lines, status) in [
            (&[("If-None-Match", TAG), range][..], 304),
            (&[("If-None-Match", "W/\"abc\"")], 304),
            (&[("If-None-Match", "*")], 304),
            (&[("If-None-Match", "\"x\", \"abc\"")], 304),
            (&[("If-None-Match", "\"x\""), ("if-none-match", TAG)], 304),
            (&[("If-None-Match", "\"x\""), range], 206),
            (&[("If-None-Match", "abc")], 200),
            (&[("If-Match", "\"x\""), ("If-None-Match", TAG)], 412),
            (&[("If-Match", "W/\"abc\"")], 412),
            (&[("If-Match", "*"), range], 206),
            (&[("If-Match", "\"x\", \"abc\"")], 200),
            (&[("If-Range", TAG), range], 206),
            (&[("If-Range", "W/\"abc\""), range], 200),
            (&[("If-Range", "\"x\""), range], 200),
            (&[("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT"), range], 200),
            (&[("If-Range", "\"x\""), ("Range", "bytes=900-")], 200),
            (&[("If-Range", TAG), ("Range", "bytes=900-")], 416),
            (&[("If-Range", TAG), ("If-Range", TAG), range], 200),
            (
                &[("If-Modified-Since", "Sun, 06 Nov 2094 08:49:37 GMT")],
                200,
            ),
            (&[range, range], 200),
        ] {
            assert_eq!(get(lines), status, "{lines:?}");
        }
    }

    #[test]
    fn only_a_get_has_ranges_and_a_head_has_conditions() {
        let range = ("Range", "bytes=900-");
        assert_eq!(told(Method::Head, &[range], Some(100)).0, 200);
        let known = ("If-None-Match", TAG);
        assert_eq!(told(Method::Head, &[known], Some(100)).0, 304);
        for line in [range, known, ("If-Match", "\"x\"")] {
            assert_eq!(told(Method::Post, &[line], Some(100)).0, 200, "{line:?}");
        }
    }

    fn line(facts: &Facts, manner: Manner<'_>, name: &str) -> Option<String> {
        let lines = Plan::Whole.advise(facts, manner);
        let line = lines.into_iter().find(|(known, _)| *known == name);
        line.map(|(_, value)| value)
    }

    #[test]
    fn an_answer_is_kept_no_longer_than_the_medium_and_its_url_last() {
        let hour = Duration::from_secs(3600);
        for (found, age, url_life, max_age, told_age) in [
            (Found::Miss, Duration::ZERO, None, 259_200, None),
            (
                Found::Collapsed,
                Duration::from_secs(5),
                None,
                259_195,
                None,
            ),
            (Found::Hit, DAY, None, 259_200, Some("86400")),
            (Found::Hit, 4 * DAY, None, 345_600, Some("345600")),
            (Found::Miss, Duration::ZERO, Some(hour), 3600, None),
            (Found::Hit, DAY, Some(hour), 90_000, Some("86400")),
            (
                Found::Hit,
                3 * DAY - hour,
                Some(DAY),
                259_200,
                Some("255600"),
            ),
        ] {
            let facts = Facts {
                found,
                age,
                ..facts()
            };
            let manner = Manner {
                url_life,
                ..Manner::default()
            };
            let expected = format!("private, max-age={max_age}, immutable");
            assert_eq!(line(&facts, manner, "cache-control"), Some(expected));
            assert_eq!(line(&facts, manner, "age").as_deref(), told_age);
        }
    }

    #[test]
    fn what_stands_at_a_url_of_the_apps_is_asked_for_each_time() {
        let manner = Manner {
            by_app: true,
            ..Manner::default()
        };
        let facts = Facts {
            found: Found::Hit,
            age: DAY,
            ..facts()
        };
        let rule = line(&facts, manner, "cache-control");
        assert_eq!(rule.as_deref(), Some("private, no-cache"));
        assert_eq!(line(&facts, manner, "age"), None);
    }

    #[test]
    fn the_cache_says_what_it_did() {
        for (found, stored, told) in [
            (Found::Hit, true, "wx-sidecar; hit"),
            (Found::Miss, true, "wx-sidecar; fwd=miss; stored"),
            (Found::Miss, false, "wx-sidecar; fwd=miss"),
            (Found::Collapsed, true, "wx-sidecar; fwd=miss; collapsed"),
        ] {
            let facts = Facts {
                found,
                stored,
                ..facts()
            };
            let line = line(&facts, Manner::default(), "cache-status");
            assert_eq!(line.as_deref(), Some(told));
        }
    }

    #[test]
    fn a_304_says_nothing_of_a_body() {
        let facts = facts();
        let plan = Plan::NotModified;
        let lines = plan.describe(&facts).into_iter();
        let lines = lines.chain(plan.advise(&facts, Manner::default()));
        let names: Vec<_> = lines.map(|(name, _)| name).collect();
        assert_eq!(names, ["etag", "cache-control", "cache-status"]);
    }

    #[test]
    fn a_name_is_passed_on_as_a_name_only() {
        let long = format!("{}.png", "猫".repeat(100));
        let cut = format!(
            "attachment; filename=\"{}.png\"; filename*=UTF-8''{}.png",
            "_".repeat(83),
            "%E7%8C%AB".repeat(83)
        );
        for (name, told) in [
            ("a.png", "attachment; filename=\"a.png\""),
            ("a b.png", "attachment; filename=\"a b.png\""),
            (
                "猫.png",
                "attachment; filename=\"_.png\"; filename*=UTF-8''%E7%8C%AB.png",
            ),
            ("a\"b\\c", "attachment; filename=\"c\""),
            (
                "a\"%41.png",
                "attachment; filename=\"a__41.png\"; filename*=UTF-8''a%22%2541.png",
            ),
            ("../../etc/passwd", "attachment; filename=\"passwd\""),
            ("C:\\x\\y.png", "attachment; filename=\"y.png\""),
            (
                "a\r\nSet-Cookie: x.png",
                "attachment; filename=\"aSet-Cookie: x.png\"",
            ),
            ("gnp\u{202e}.exe", "attachment; filename=\"gnp.exe\""),
            (".htaccess", "attachment; filename=\"htaccess\""),
            ("..", "attachment"),
            ("a/", "attachment"),
            ("\0\u{feff}", "attachment"),
            ("", "attachment"),
            (&long, &cut),
        ] {
            assert_eq!(disposition(&facts(), Some(name)), told, "{name:?}");
        }
    }

    #[test]
    fn media_are_shown_and_what_nobody_knows_is_saved() {
        for (content_type, name, told) in [
            ("image/jpeg", Some("a.jpg"), "inline; filename=\"a.jpg\""),
            ("video/mp4", None, "inline"),
            ("audio/mpeg", None, "inline"),
            ("image/svg+xml", None, "attachment"),
            ("application/octet-stream", None, "attachment"),
            ("text/html", None, "attachment"),
        ] {
            let facts = Facts {
                content_type,
                name: name.map(str::to_owned),
                ..facts()
            };
            assert_eq!(disposition(&facts, None), told);
        }
    }
}
