//! Heads: the start line and the fields of a request or an answer, and how its body is framed.
//!
//! Parsing is strict where leniency is how requests are smuggled (RFC 9112 §11.2): every line ends in CR LF, exactly one
//! of Content-Length and Transfer-Encoding, no folding, no space before a colon, one valid Host.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::fields::{Fields, Name, Repeated, place};

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
        let (bytes, lines) = self.fields.reset(head);
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        complete(request.parse_with_uninit_headers(bytes, &mut slots))?;
        let method = request.method.unwrap_or_default().as_bytes();
        self.method = Method::of(method);
        self.version = version(request.version);
        self.method_text = place(bytes, method);
        self.target = place(bytes, request.path.unwrap_or_default().as_bytes());
        for line in request.headers {
            lines.push(bytes, line.name.as_bytes(), line.value);
        }
        self.check_host()?;
        self.framing = self.request_framing()?;
        self.expects_continue = self.check_expect()?;
        self.connection = Connection::of(self.version, &self.fields);
        self.wants_upgrade = self.check_upgrade()?;
        Ok(())
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
        self.fields.list(Name::Te).any(is_it)
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
        self.fields.list(Name::KeepAlive).find_map(|parameter| {
            let seconds = parameter.strip_prefix(b"timeout=")?;
            std::str::from_utf8(seconds).ok()?.parse().ok()
        })
    }

    /// Parses a complete head; `request` is the method that it answers.
    pub(super) fn parse(&mut self, head: &[u8], request: Method) -> Result<(), HeadError> {
        let (bytes, lines) = self.fields.reset(head);
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        complete(parser.parse_response_with_uninit_headers(&mut response, bytes, &mut slots))?;
        let version = version(response.version);
        self.status = response.code.unwrap_or_default();
        self.reason = place(bytes, response.reason.unwrap_or_default().as_bytes());
        for line in response.headers {
            lines.push(bytes, line.name.as_bytes(), line.value);
        }
        if !(100..=599).contains(&self.status) {
            return Err(HeadError::Malformed(
                "the status is not between 100 and 599",
            ));
        }
        self.declared_length = length(&self.fields)?;
        self.framing = self.response_framing(version, request)?;
        self.connection = Connection::of(version, &self.fields);
        self.connection.persistent &= self.framing != Framing::UntilClose;
        Ok(())
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
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    Ok(Some(
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    ))
}

/// uri-host [":" port], by characters: enough to keep paths, user names and lists out (RFC 9110 §7.2).
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&b| b == b':') {
        Some(colon) if !host[colon..].contains(&b']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let name_ok = match name {
        [b'[', inner @ .., b']'] => inner
            .iter()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        _ => name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    };
    let port_ok = port.is_none_or(|port| {
        let number = std::str::from_utf8(port)
            .ok()
            .and_then(|text| text.parse::<u16>().ok());
        port.iter().all(u8::is_ascii_digit) && number.is_some_and(|number| number > 0)
    });
    !name.is_empty() && name_ok && port_ok
}

fn complete(parsed: Result<httparse::Status<usize>, httparse::Error>) -> Result<(), HeadError> {
    use httparse::Error;
    match parsed {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(HeadError::Malformed("the head ends too early")),
        Err(Error::HeaderName) => Err(HeadError::Malformed("a header name is not a token")),
        Err(Error::HeaderValue) => Err(HeadError::Malformed(
            "a header value has a forbidden character",
        )),
        Err(Error::NewLine | Error::Token) => {
            Err(HeadError::Malformed("the start line is malformed"))
        }
        Err(Error::Status) => Err(HeadError::Malformed("the status is not a number")),
        Err(Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(Error::Version) => Err(HeadError::Version),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    }
}
