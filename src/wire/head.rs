//! Heads: the start line and the fields of a request or an answer, and how its body is framed.
//!
//! Parsing is strict where leniency is how requests are smuggled (RFC 9112 §11.2): every line ends in CR LF, exactly one
//! of Content-Length and Transfer-Encoding, no folding, no space before a colon, one valid Host. The tests hold the
//! parser against httparse: it reads the same out of the same bytes, or refuses them.

use std::ops::Range;

use super::fields::{
    Fields, Lines, Name, Repeated, host_len, name_len, place, target_len, token_len, value_len,
};

/// More lines than this are an attack or a loop.
pub(super) const MAX_FIELDS: usize = 100;

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
}

/// The method, as far as we tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    Connect,
    Other,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    #[default]
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the `Connection` lines of a head say, all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connection {
    /// Whether the sender lets the connection live on.
    pub(crate) persistent: bool,
    /// Whether options other than `close`, `keep-alive` and `upgrade` are there: names of fields that must not be
    /// forwarded.
    pub(crate) names_fields: bool,
    /// Whether the `Upgrade` line is meant.
    upgrade: bool,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
}

/// Why a head is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the header section is too large")]
    TooLarge,
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    #[error("the only transfer coding known here is chunked")]
    TransferCoding,
}

/// A request's head.
#[derive(Default)]
pub(crate) struct RequestHead {
    pub(crate) fields: Fields,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// What the `Connection` lines say.
    pub(crate) connection: Connection,
    /// Whether the client asks for another protocol on this connection.
    pub(crate) wants_upgrade: bool,
    method_text: Range<u32>,
    target: Range<u32>,
}

/// An answer's head.
#[derive(Default)]
pub(crate) struct ResponseHead {
    pub(crate) fields: Fields,
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// Content-Length, which a bodiless answer (to HEAD) may have as well.
    pub(crate) declared_length: Option<u64>,
    /// What the `Connection` lines say.
    pub(crate) connection: Connection,
    reason: Range<u32>,
}

impl Connection {
    fn of(version: Version, fields: &Fields) -> Self {
        let mut connection = Self {
            persistent: version == Version::Http11,
            ..Self::default()
        };
        if !fields.has(Name::Connection) {
            return connection;
        }
        let mut close = false;
        for option in fields.list(Name::Connection) {
            if option.eq_ignore_ascii_case(b"close") {
                close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                connection.persistent = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                connection.upgrade = true;
            } else {
                connection.names_fields = true;
            }
        }
        connection.persistent &= !close;
        connection
    }
}

impl Method {
    fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// For labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other => "other",
        }
    }

    /// Whether doing it twice is the same as doing it once (RFC 9110 §9.2.2).
    pub(crate) const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace
        )
    }
}

impl RequestHead {
    pub(crate) fn method_text(&self) -> &[u8] {
        self.fields.slice(&self.method_text)
    }

    /// The request-target as sent.
    pub(crate) fn target(&self) -> &[u8] {
        self.fields.slice(&self.target)
    }

    /// Parses a complete head, which ends with an empty line.
    pub(crate) fn parse(&mut self, head: &[u8]) -> Result<(), HeadError> {
        self.parse_front(head).map(drop)
    }

    /// Parses the head at the front of what was read, if all of it is there, as it nearly always is; gives its length.
    /// What is not complete and good is left to [`HeadScan`] and [`RequestHead::parse`].
    pub(super) fn parse_at_once(&mut self, bytes: &[u8], limits: HeadLimits) -> Option<usize> {
        let end = self.parse_front(bytes).ok();
        let end = end.filter(|&end| end <= limits.bytes);
        if end.is_none() {
            // Half a head must not be taken for one.
            *self = Self::default();
        }
        end
    }

    /// Parses up to the first empty line, and gives the length so far.
    fn parse_front(&mut self, bytes: &[u8]) -> Result<usize, HeadError> {
        let lines = self.fields.clear();
        let (start, rest) = parse_request_line(bytes)?;
        let end = parse_lines(bytes, rest, lines)?;
        self.method = Method::of(start.method);
        self.version = start.version;
        self.method_text = place(bytes, start.method);
        self.target = place(bytes, start.target);
        self.fields.keep(&bytes[..end]);
        self.check_host()?;
        self.framing = self.request_framing()?;
        self.expects_continue = self.check_expect()?;
        self.connection = Connection::of(self.version, &self.fields);
        self.wants_upgrade = self.check_upgrade()?;
        Ok(end)
    }

    /// Takes over a head that came by another protocol and was split there: `method` and `target`, then the field lines,
    /// `host` among them.
    pub(super) fn assemble<'f>(
        &mut self,
        method: &[u8],
        target: &[u8],
        lines: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        ends_at_once: bool,
    ) -> Result<(), HeadError> {
        self.fields.clear();
        self.method = Method::of(method);
        self.method_text = self.fields.set_aside(method);
        self.target = self.fields.set_aside(target);
        for (name, value) in lines {
            if self.fields.len() == MAX_FIELDS {
                return Err(HeadError::TooLarge);
            }
            // RFC 9113 §8.2.1; HTTP/1.1 would read another value.
            if value.trim_ascii().len() < value.len() {
                let detail = "a field value begins or ends with white space";
                return Err(HeadError::Malformed(detail));
            }
            self.fields.push(name, value);
        }
        self.version = Version::Http11;
        self.check_host()?;
        self.framing = match length(&self.fields)? {
            _ if ends_at_once => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        self.expects_continue = self.check_expect()?;
        self.connection = Connection {
            persistent: true,
            ..Connection::default()
        };
        self.wants_upgrade = false;
        Ok(())
    }

    /// The protocols that the client would rather speak here. HTTP/2 is spoken by prior knowledge or ALPN: an upgrade to
    /// it, granted behind our back, would carry requests past us.
    pub(crate) fn upgrades(&self) -> impl Iterator<Item = &[u8]> {
        let names = |protocol: &&[u8]| !protocol.eq_ignore_ascii_case(b"h2c");
        self.fields.list(Name::Upgrade).filter(names)
    }

    /// Whether the client can do something with trailers (RFC 9110 §10.1.4).
    pub(crate) fn takes_trailers(&self) -> bool {
        let is_it = |coding: &[u8]| coding.eq_ignore_ascii_case(b"trailers");
        self.fields.has(Name::Te) && self.fields.list(Name::Te).any(is_it)
    }

    /// Whether the body is a conversation and not an upload.
    pub(crate) fn is_grpc(&self) -> bool {
        let mut types = self.fields.all(Name::ContentType);
        types.any(|value| value.starts_with(b"application/grpc"))
    }

    /// RFC 9110 §7.8. A body would stand where the other protocol begins.
    fn check_upgrade(&self) -> Result<bool, HeadError> {
        let wants = self.connection.upgrade
            && self.version == Version::Http11
            && self.upgrades().next().is_some();
        if wants && self.framing != Framing::Empty {
            return Err(HeadError::Malformed("an upgrade cannot have a body"));
        }
        Ok(wants)
    }

    fn check_host(&self) -> Result<(), HeadError> {
        match self.fields.only(Name::Host) {
            Ok(Some(host)) if is_host(host) => Ok(()),
            Ok(None) if self.version == Version::Http10 => Ok(()),
            Ok(Some(_)) => Err(HeadError::Malformed("the Host header is not a host")),
            Ok(None) => Err(HeadError::Malformed("the Host header is missing")),
            Err(Repeated) => Err(HeadError::Malformed("there is more than one Host header")),
        }
    }

    /// RFC 9112 §6.3, with everything refused that two readers could understand in two ways.
    fn request_framing(&self) -> Result<Framing, HeadError> {
        match (coding(&self.fields)?, length(&self.fields)?) {
            (Coding::Chunked, None) if self.version == Version::Http11 => Ok(Framing::Chunked),
            (Coding::Chunked, None) => Err(HeadError::Malformed(
                "Transfer-Encoding is not part of HTTP/1.0",
            )),
            (Coding::Chunked, Some(_)) => Err(HeadError::Malformed(
                "Content-Length and Transfer-Encoding exclude each other",
            )),
            (Coding::Identity, Some(0) | None) => Ok(Framing::Empty),
            (Coding::Identity, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    fn check_expect(&self) -> Result<bool, HeadError> {
        match self.fields.only(Name::Expect) {
            Ok(None) => Ok(false),
            Ok(Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => {
                Ok(self.version == Version::Http11 && self.framing != Framing::Empty)
            }
            _ => Err(HeadError::Malformed(
                "the only expectation known here is 100-continue",
            )),
        }
    }
}

impl ResponseHead {
    pub(crate) fn reason(&self) -> &[u8] {
        self.fields.slice(&self.reason)
    }

    /// The app's `Keep-Alive: timeout=N`, in seconds.
    pub(super) fn keep_alive_timeout(&self) -> Option<u64> {
        if !self.fields.has(Name::KeepAlive) {
            return None;
        }
        self.fields.list(Name::KeepAlive).find_map(|parameter| {
            let seconds = parameter.strip_prefix(b"timeout=")?;
            std::str::from_utf8(seconds).ok()?.parse().ok()
        })
    }

    /// Parses a complete head; `request` is the method that it answers.
    pub(super) fn parse(&mut self, head: &[u8], request: Method) -> Result<(), HeadError> {
        self.parse_front(head, request).map(drop)
    }

    /// As [`RequestHead::parse_at_once`].
    pub(super) fn parse_at_once(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        request: Method,
    ) -> Option<usize> {
        let end = self.parse_front(bytes, request).ok();
        let end = end.filter(|&end| end <= limits.bytes);
        if end.is_none() {
            *self = Self::default();
        }
        end
    }

    fn parse_front(&mut self, bytes: &[u8], request: Method) -> Result<usize, HeadError> {
        let lines = self.fields.clear();
        let (start, rest) = parse_status_line(bytes)?;
        let end = parse_lines(bytes, rest, lines)?;
        let version = start.version;
        self.status = start.status;
        self.reason = place(bytes, start.reason);
        self.fields.keep(&bytes[..end]);
        if !(100..=599).contains(&self.status) {
            return Err(HeadError::Malformed(
                "the status is not between 100 and 599",
            ));
        }
        self.declared_length = length(&self.fields)?;
        self.framing = self.response_framing(version, request)?;
        self.connection = Connection::of(version, &self.fields);
        self.connection.persistent &= self.framing != Framing::UntilClose;
        Ok(end)
    }

    /// Takes over a head that came by another protocol and was split there.
    pub(super) fn assemble<'f>(
        &mut self,
        status: u16,
        lines: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        request: Method,
        ends_at_once: bool,
    ) -> Result<(), HeadError> {
        self.fields.clear();
        self.status = status;
        self.reason = 0..0;
        for (name, value) in lines {
            if self.fields.len() == MAX_FIELDS {
                return Err(HeadError::TooLarge);
            }
            self.fields.push(name, value);
        }
        self.declared_length = length(&self.fields)?;
        let bodiless = request == Method::Head || matches!(status, 100..=199 | 204 | 304);
        self.framing = match self.declared_length {
            _ if bodiless || ends_at_once => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        self.connection = Connection {
            persistent: true,
            ..Connection::default()
        };
        Ok(())
    }

    /// The protocol that the app has switched to.
    pub(crate) fn protocol(&self) -> &[u8] {
        self.fields.list(Name::Upgrade).next().unwrap_or_default()
    }

    /// Whether the app has switched to one of the protocols that `request` asks for.
    pub(crate) fn grants(&self, request: &RequestHead) -> bool {
        let asked = |given: &[u8]| request.upgrades().any(|p| p.eq_ignore_ascii_case(given));
        self.status == 101
            && request.wants_upgrade
            && self.fields.list(Name::Upgrade).next().is_some()
            && self.fields.list(Name::Upgrade).all(asked)
    }

    fn response_framing(&self, version: Version, request: Method) -> Result<Framing, HeadError> {
        let framing = match (coding(&self.fields)?, self.declared_length) {
            (Coding::Chunked, None) if version == Version::Http11 => Framing::Chunked,
            (Coding::Chunked, None) => {
                return Err(HeadError::Malformed(
                    "Transfer-Encoding is not part of HTTP/1.0",
                ));
            }
            (Coding::Chunked, Some(_)) => {
                return Err(HeadError::Malformed(
                    "Content-Length and Transfer-Encoding exclude each other",
                ));
            }
            (Coding::Identity, Some(0)) => Framing::Empty,
            (Coding::Identity, Some(length)) => Framing::Length(length),
            (Coding::Identity, None) => Framing::UntilClose,
        };
        let bodiless = request == Method::Head || matches!(self.status, 100..=199 | 204 | 304);
        Ok(if bodiless { Framing::Empty } else { framing })
    }
}

/// Finds the end of a head that is still arriving, without looking at any byte twice.
#[derive(Default)]
pub(super) struct HeadScan {
    /// How many bytes have been looked at.
    seen: usize,
    /// Where the current line begins.
    line: usize,
}

impl HeadScan {
    /// The length of the head including its empty line, once it is all there. A line that does not end in CR LF is
    /// refused at once: other readers would see another head than we do.
    pub(super) fn find_end(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let newline = self.seen + at;
            if newline == 0 || bytes[newline - 1] != b'\r' {
                return Err(HeadError::Malformed("a line does not end with CR LF"));
            }
            let empty = newline - self.line == 1;
            self.seen = newline + 1;
            self.line = newline + 1;
            if self.seen > limits.bytes {
                return Err(HeadError::TooLarge);
            }
            if empty {
                return Ok(Some(self.seen));
            }
        }
        self.seen = bytes.len();
        if self.seen > limits.bytes {
            Err(HeadError::TooLarge)
        } else {
            Ok(None)
        }
    }
}

/// Whether the last transfer coding is chunked, or there is none.
enum Coding {
    Identity,
    Chunked,
}

fn coding(fields: &Fields) -> Result<Coding, HeadError> {
    match fields.only(Name::TransferEncoding) {
        Ok(None) => Ok(Coding::Identity),
        Ok(Some(value)) if value.eq_ignore_ascii_case(b"chunked") => Ok(Coding::Chunked),
        _ => Err(HeadError::TransferCoding),
    }
}

fn length(fields: &Fields) -> Result<Option<u64>, HeadError> {
    let value = fields
        .only(Name::ContentLength)
        .map_err(|Repeated| HeadError::Malformed("there is more than one Content-Length"))?;
    let Some(digits) = value else { return Ok(None) };
    let malformed = HeadError::Malformed("the Content-Length is not a number");
    if digits.is_empty() || digits.len() > 18 {
        return Err(malformed);
    }
    let mut length = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(malformed);
        }
        length = length * 10 + u64::from(digit - b'0');
    }
    Ok(Some(length))
}

/// uri-host [":" port], by characters: enough to keep paths, user names and lists out (RFC 9110 §7.2).
fn is_host(host: &[u8]) -> bool {
    let is_name = |text: &[u8]| host_len(text) == text.len();
    if is_name(host) {
        return !host.is_empty();
    }
    let (name, port) = match host.iter().rposition(|&b| b == b':') {
        Some(colon) if !host[colon..].contains(&b']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let name_ok = match name {
        [b'[', inner @ .., b']'] => inner
            .iter()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        _ => is_name(name),
    };
    let port_ok = port.is_none_or(|port| {
        let number = std::str::from_utf8(port)
            .ok()
            .and_then(|text| text.parse::<u16>().ok());
        port.iter().all(u8::is_ascii_digit) && number.is_some_and(|number| number > 0)
    });
    !name.is_empty() && name_ok && port_ok
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: Version,
}

struct StatusLine<'a> {
    version: Version,
    status: u16,
    reason: &'a [u8],
}

/// The request line, and what follows it. One space stands between its parts, not several, nor a tab.
fn parse_request_line(bytes: &[u8]) -> Result<(RequestLine<'_>, &[u8]), HeadError> {
    let malformed = HeadError::Malformed("the start line is malformed");
    let (method, rest) = bytes.split_at(token_len(bytes));
    let rest = rest.strip_prefix(b" ").ok_or(malformed)?;
    let (target, rest) = rest.split_at(target_len(rest));
    let rest = rest.strip_prefix(b" ").ok_or(malformed)?;
    let is_text = target.is_ascii() || std::str::from_utf8(target).is_ok();
    if method.is_empty() || target.is_empty() || !is_text {
        return Err(malformed);
    }
    let (version, rest) =
        parse_version(rest).map_err(|error| match rest.starts_with(b"HTTP/") {
            true => error,
            // Most often a space in the target, which is `%20` in a URL.
            false => HeadError::Malformed(
                "the start line is not a method, a target without spaces and a version (HTTP/1.1)",
            ),
        })?;
    let rest = rest.strip_prefix(b"\r\n").ok_or(malformed)?;
    let start = RequestLine {
        method,
        target,
        version,
    };
    Ok((start, rest))
}

/// The status line, and what follows it. The reason may be missing, and the space before it, too.
fn parse_status_line(bytes: &[u8]) -> Result<(StatusLine<'_>, &[u8]), HeadError> {
    let malformed = HeadError::Malformed("the status is not a number");
    let (version, rest) = parse_version(bytes)?;
    let rest = rest.strip_prefix(b" ").ok_or(HeadError::Version)?;
    let (digits, rest) = rest.split_first_chunk::<3>().ok_or(malformed)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let status = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let (reason, rest) = match rest {
        [b' ', rest @ ..] => rest.split_at(value_len(rest)),
        _ => rest.split_at(0),
    };
    let rest = rest.strip_prefix(b"\r\n").ok_or(malformed)?;
    // What is not ASCII has no meaning that anybody agrees on, and the reason has none anyhow.
    let reason = if reason.is_ascii() { reason } else { b"" };
    let start = StatusLine {
        version,
        status,
        reason,
    };
    Ok((start, rest))
}

fn parse_version(bytes: &[u8]) -> Result<(Version, &[u8]), HeadError> {
    match bytes.split_first_chunk::<8>() {
        Some((b"HTTP/1.1", rest)) => Ok((Version::Http11, rest)),
        Some((b"HTTP/1.0", rest)) => Ok((Version::Http10, rest)),
        _ => Err(HeadError::Version),
    }
}

/// The field lines of `bytes`, of which `rest` begins with the first of them, up to the empty line, behind which the head
/// ends.
fn parse_lines(bytes: &[u8], rest: &[u8], lines: &mut Lines) -> Result<usize, HeadError> {
    let mut rest = rest;
    loop {
        let start = bytes.len() - rest.len();
        if rest.starts_with(b"\r\n") {
            return Ok(start + 2);
        }
        let name = name_len(rest).ok_or(HeadError::Malformed(match rest.first() {
            Some(b' ' | b'\t') => {
                "a header line begins with white space: folded lines are not taken (RFC 9112 §5.2)"
            }
            _ => "a header name is not a token",
        }))?;
        let (name, behind) = rest.split_at(name);
        let (value, behind) = behind[1..].split_at(value_len(&behind[1..]));
        rest = behind.strip_prefix(b"\r\n").ok_or(HeadError::Malformed(
            "a header value has a forbidden character",
        ))?;
        if lines.len() == MAX_FIELDS {
            return Err(HeadError::TooLarge);
        }
        lines.push(start, name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fields::parse_field_line;
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024 };

    type Lines = Vec<(Vec<u8>, Vec<u8>)>;
    type Request = (Vec<u8>, Vec<u8>, Version, Lines);
    type Response = (u16, Vec<u8>, Version, Lines);

    fn lines_of(bytes: &[u8], rest: &[u8]) -> Option<Lines> {
        let mut fields = Fields::default();
        let end = parse_lines(bytes, rest, fields.clear()).ok()?;
        fields.keep(&bytes[..end]);
        let owned = fields
            .iter()
            .map(|field| (field.name.to_vec(), field.value.to_vec()));
        Some(owned.collect())
    }

    fn oracle_lines(headers: &[httparse::Header<'_>]) -> Lines {
        let owned = headers
            .iter()
            .map(|line| (line.name.as_bytes().to_vec(), line.value.to_vec()));
        owned.collect()
    }

    fn request(bytes: &[u8]) -> Option<Request> {
        let (start, rest) = parse_request_line(bytes).ok()?;
        let lines = lines_of(bytes, rest)?;
        let (method, target) = (start.method.to_vec(), start.target.to_vec());
        Some((method, target, start.version, lines))
    }

    fn request_by_oracle(bytes: &[u8]) -> Option<Request> {
        let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut slots);
        let parsed = request.parse(bytes).ok()?;
        assert_eq!(parsed, httparse::Status::Complete(bytes.len()));
        let method = request.method?.as_bytes().to_vec();
        let target = request.path?.as_bytes().to_vec();
        let lines = oracle_lines(request.headers);
        Some((method, target, version(request.version?), lines))
    }

    fn response(bytes: &[u8]) -> Option<Response> {
        let (start, rest) = parse_status_line(bytes).ok()?;
        let lines = lines_of(bytes, rest)?;
        Some((start.status, start.reason.to_vec(), start.version, lines))
    }

    fn response_by_oracle(bytes: &[u8]) -> Option<Response> {
        let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut slots);
        let parsed = response.parse(bytes).ok()?;
        assert_eq!(parsed, httparse::Status::Complete(bytes.len()));
        let reason = response.reason?.as_bytes().to_vec();
        let lines = oracle_lines(response.headers);
        Some((response.code?, reason, version(response.version?), lines))
    }

    fn version(minor: u8) -> Version {
        if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        }
    }

    /// What stands before the first empty line of these bytes, unless that is nothing, which never gets to the parser.
    fn scanned(bytes: &[u8]) -> Option<&[u8]> {
        let end = HeadScan::default().find_end(bytes, LIMITS).ok()??;
        (end > 2).then(|| &bytes[..end])
    }

    /// Heads as they should be, and almost.
    fn heads(start: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            8 => "[!#-'*+.0-9A-Z^_`a-z|~-]{1,20}:[ \t]{0,3}([ -~]{0,60}[ \t]{0,3}|.{0,20})",
            1 => "[ -~]{0,20}",
            1 => Just("Host: x".to_owned()),
            1 => Just("Content-Length: 5".to_owned()),
        ];
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), change()), 0..3);
        let lines = proptest::collection::vec(line, 0..8);
        (start, lines, changes).prop_map(|(start, lines, changes)| {
            let mut bytes = format!("{start}\r\n").into_bytes();
            for line in lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"\r\n");
            for (index, change) in changes {
                let at = index.index(bytes.len());
                match change {
                    Change::Replace(byte) => bytes[at] = byte,
                    Change::Insert(byte) => bytes.insert(at, byte),
                    Change::Delete => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Replace(u8),
        Insert(u8),
        Delete,
    }

    fn change() -> impl Strategy<Value = Change> {
        let byte = prop_oneof![
            any::<u8>(),
            proptest::sample::select(&b"\r\n\t \0:\x0b\x7f\x80\xff/1.,"[..]),
        ];
        prop_oneof![
            byte.clone().prop_map(Change::Replace),
            byte.prop_map(Change::Insert),
            Just(Change::Delete),
        ]
    }

    #[test]
    fn a_head_of_another_protocol_keeps_the_rules_of_this_one() {
        let assembled = |lines: &[(&'static [u8], &'static [u8])]| {
            let mut head = RequestHead::default();
            head.assemble(b"GET", b"/", lines.iter().copied(), true)
        };
        assert_eq!(assembled(&[(b"host", b"x"), (b"a", b"b c")]), Ok(()));
        for value in [&b" b"[..], b"b ", b"\tb", b" "] {
            assert!(
                assembled(&[(b"host", b"x"), (b"a", value)]).is_err(),
                "{value:?}"
            );
        }
        assert!(assembled(&[(b"a", b"b")]).is_err(), "no host");
        let many: Vec<_> = std::iter::repeat_n((&b"a"[..], &b"b"[..]), MAX_FIELDS).collect();
        let many = [vec![(&b"host"[..], &b"x"[..])], many].concat();
        assert_eq!(assembled(&many), Err(HeadError::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_request_head_says_what_httparse_reads(
            bytes in heads("[!-~]{1,10} [!-~]{1,30} HTTP/1[.][01]|GET [!-~]{0,20}.{0,5} ?HTTP/[12][.][0-2]")
        ) {
            if let Some(head) = scanned(&bytes) {
                prop_assert_eq!(request(head), request_by_oracle(head));
            }
        }

        #[test]
        fn an_answers_head_says_what_httparse_reads(
            bytes in heads("HTTP/1[.][01] [0-9]{3}( [ -~\t]{0,20}| .{0,8})?")
        ) {
            if let Some(head) = scanned(&bytes) {
                prop_assert_eq!(response(head), response_by_oracle(head));
            }
        }

        #[test]
        fn any_bytes_say_what_httparse_reads(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = bytes;
            bytes.extend_from_slice(b"\r\n\r\n");
            if let Some(head) = scanned(&bytes) {
                prop_assert_eq!(request(head), request_by_oracle(head));
                prop_assert_eq!(response(head), response_by_oracle(head));
            }
        }

        /// Whether it is found by its lines or read at once, a head ends at the same place and says the same.
        #[test]
        fn a_head_reads_the_same_with_more_behind_it(bytes in heads("GET /[a-z]{0,5} HTTP/1[.]1|PUT / HTTP/1[.]1"), more in ".{0,9}(\r\n){0,2}.{0,9}") {
            let all = [&bytes, more.as_bytes()].concat();
            let (mut exact, mut at_once) = (RequestHead::default(), RequestHead::default());
            let end = HeadScan::default().find_end(&all, LIMITS);
            let expected = end.ok().flatten().filter(|&end| exact.parse(&all[..end]).is_ok());
            prop_assert_eq!(at_once.parse_at_once(&all, LIMITS), expected);
            if let Some(end) = expected {
                prop_assert_eq!(&at_once.fields.bytes, &all[..end]);
                prop_assert_eq!(at_once.target(), exact.target());
                prop_assert_eq!(at_once.framing, exact.framing);
                let short = HeadLimits { bytes: end - 1 };
                prop_assert_eq!(at_once.parse_at_once(&all, short), None);
            }
        }

        /// The two ways to read a line are one.
        #[test]
        fn a_field_line_alone_reads_as_it_does_in_a_head(line in "[!-~]{1,8}:?[ -~\t]{0,20}|[^\r\n]{1,20}") {
            let head = format!("{line}\r\n\r\n").into_bytes();
            let alone = parse_field_line(line.as_bytes());
            let alone = alone.map(|(name, value)| vec![(name.to_vec(), value.to_vec())]);
            prop_assert_eq!(alone, lines_of(&head, &head));
        }
    }

    #[test]
    fn there_is_a_limit_to_the_number_of_lines() {
        let head = |count| {
            let mut head = RequestHead::default();
            let lines = "A: b\r\n".repeat(count);
            head.parse(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes())
        };
        assert_eq!(head(MAX_FIELDS - 1), Ok(()));
        assert_eq!(head(MAX_FIELDS), Err(HeadError::TooLarge));
    }
}
