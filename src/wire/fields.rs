//! The field lines of a head, as slices of the bytes they came in.

use std::ops::Range;

use super::head::HeadError;

/// The lines of a header section, in their order, duplicates and spelling kept.
#[derive(Default)]
pub(crate) struct Fields {
    /// The whole head as received: start line, field lines, empty line.
    pub(super) bytes: Vec<u8>,
    pub(super) lines: Lines,
}

/// Where each line lies in the bytes. A type of its own, so that lines can be added while the bytes are being parsed.
#[derive(Default)]
pub(super) struct Lines(Vec<Line>);

/// One field line.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    /// Which of the names we care about it is.
    pub(crate) known: Name,
    /// The name as spelt.
    pub(crate) name: &'a [u8],
    /// The value without surrounding white space.
    pub(crate) value: &'a [u8],
}

/// Offsets into `bytes`; 32 bits, because heads are limited to a megabyte.
struct Line {
    known: Name,
    name: Range<u32>,
    value: Range<u32>,
}

macro_rules! names {
    ($($length:literal => { $($variant:ident = $text:literal),* $(,)? })*) => {
        /// The field names that mean something to us; everything else is `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Name {
            $($(#[doc = $text] $variant,)*)*
            /// Any other name.
            Other,
        }

        impl Name {
            /// Recognises a name, whatever its case. Grouped by length, because most names are none of these and their
            /// length already says so.
            pub(crate) fn of(name: &[u8]) -> Self {
                match name.len() {
                    $($length => {
                        $(if name.eq_ignore_ascii_case($text.as_bytes()) {
                            return Self::$variant;
                        })*
                        Self::Other
                    })*
                    _ => Self::Other,
                }
            }

            #[cfg(test)]
            const ALL: &[(usize, &str, Self)] = &[$($(($length, $text, Self::$variant),)*)*];
        }
    };
}

names! {
    2 => { Te = "te" }
    4 => { Host = "host" }
    6 => { Expect = "expect" }
    7 => { Trailer = "trailer", Upgrade = "upgrade" }
    9 => { XWxCode = "x-wx-code" }
    10 => { Connection = "connection", KeepAlive = "keep-alive", Tracestate = "tracestate" }
    11 => { Traceparent = "traceparent" }
    12 => { ContentType = "content-type", XRequestId = "x-request-id" }
    13 => { Authorization = "authorization", CacheControl = "cache-control" }
    14 => { ContentLength = "content-length", Http2Settings = "http2-settings" }
    15 => { AcceptLanguage = "accept-language", XForwardedFor = "x-forwarded-for" }
    16 => { ProxyConnection = "proxy-connection", XForwardedHost = "x-forwarded-host" }
    17 => { TransferEncoding = "transfer-encoding", XForwardedProto = "x-forwarded-proto" }
    18 => { ProxyAuthenticate = "proxy-authenticate" }
    19 => { ProxyAuthorization = "proxy-authorization" }
}

impl Name {
    /// Whether the field belongs to one connection and is never forwarded (RFC 9110 §7.6.1 and its predecessors).
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyConnection
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

impl Fields {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.0.iter().map(|line| Field {
            known: line.known,
            name: self.slice(&line.name),
            value: self.slice(&line.value),
        })
    }

    /// The values of every line with this name, in order.
    pub(crate) fn all(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.lines
            .0
            .iter()
            .filter(move |line| line.known == known)
            .map(|line| self.slice(&line.value))
    }

    /// The value of the only line with this name; `Err` if there are several.
    pub(crate) fn only(&self, known: Name) -> Result<Option<&[u8]>, Repeated> {
        let mut values = self.all(known);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Repeated),
        }
    }

    /// The comma-separated, trimmed elements of all lines with this name (RFC 9110 §5.6.1).
    pub(crate) fn list(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.all(known)
            .flat_map(|value| value.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Appends the lines that `keep` wants to `out`, as `name: value` and CR LF. Neighbours that came in that form, as
    /// almost all do, go over in one piece.
    pub(crate) fn copy_lines(&self, out: &mut Vec<u8>, keep: impl Fn(&Field<'_>) -> bool) {
        let mut piece = 0..0;
        for (line, field) in self.lines.0.iter().zip(self.iter()) {
            if !keep(&field) {
                continue;
            }
            match self.tidy(line) {
                Some(tidy) if tidy.start == piece.end => piece.end = tidy.end,
                Some(tidy) => {
                    out.extend_from_slice(&self.bytes[piece]);
                    piece = tidy;
                }
                None => {
                    out.extend_from_slice(&self.bytes[piece]);
                    piece = 0..0;
                    for part in [field.name, b": ", field.value, b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(&self.bytes[piece]);
    }

    /// The lines that `keep` wants, ready to be sent.
    pub(super) fn lines(&self, keep: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.copy_lines(&mut out, keep);
        out
    }

    /// Where a line lies with its CR LF, if exactly one space stands before its value and nothing behind it.
    fn tidy(&self, line: &Line) -> Option<Range<usize>> {
        let (name, value) = (&line.name, &line.value);
        let tidy = value.start == name.end + 2
            && self.slice(&(name.end..value.start)) == b": "
            && self.bytes[value.end as usize..].starts_with(b"\r\n");
        tidy.then(|| name.start as usize..value.end as usize + 2)
    }

    /// How many bytes the head has.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.0.len()
    }

    /// Forgets all lines; the memory stays.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.0.clear();
    }

    /// Adds a line that did not come with the others: a trailer, or a field of another protocol. Name and value have been
    /// checked.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        for part in [name, b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        let value_at = start + name.len() + 2;
        self.lines.0.push(Line {
            known: Name::of(name),
            name: offset(start)..offset(start + name.len()),
            value: offset(value_at)..offset(value_at + value.len()),
        });
    }

    /// Keeps bytes that are not a line: a method, a target.
    pub(super) fn set_aside(&mut self, part: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part);
        offset(start)..offset(self.bytes.len())
    }

    /// Adds a line as it came, without its CR LF.
    pub(super) fn push_raw(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let (name, value) = parse_line(line)?;
        self.push(name, value);
        Ok(())
    }

    /// Forgets all lines and takes over the bytes of a new head; the memory stays.
    pub(super) fn reset(&mut self, head: &[u8]) -> (&[u8], &mut Lines) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.lines.0.clear();
        (&self.bytes, &mut self.lines)
    }

    pub(super) fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

impl Lines {
    /// Adds a line whose name and value are slices of `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8], name: &[u8], value: &[u8]) {
        let known = Name::of(name);
        self.0.push(Line {
            known,
            name: place(bytes, name),
            value: place(bytes, value),
        });
    }
}

/// A field that may stand only once stands several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// Where a slice of `whole` lies in it. An empty slice may lie anywhere.
pub(super) fn place(whole: &[u8], part: &[u8]) -> Range<u32> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    offset(start)..offset(start + part.len())
}

fn offset(n: usize) -> u32 {
    u32::try_from(n).expect("heads are limited to far less than 4 GiB")
}

/// Name and value of one field line, which stands without its CR LF.
fn parse_line(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let malformed = HeadError::Malformed("a field line is malformed");
    let mut terminated = Vec::with_capacity(line.len() + 4);
    terminated.extend_from_slice(line);
    terminated.extend_from_slice(b"\r\n\r\n");
    let mut fields = [httparse::EMPTY_HEADER; 1];
    match httparse::parse_headers(&terminated, &mut fields) {
        Ok(httparse::Status::Complete((_, [field]))) => {
            let name = &line[..field.name.len()];
            let value = line[name.len() + 1..].trim_ascii();
            Ok((name, value))
        }
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_whatever_their_case() {
        assert_eq!(Name::of(b"Content-LENGTH"), Name::ContentLength);
        assert_eq!(Name::of(b"content_length"), Name::Other);
        assert_eq!(Name::of(b"te"), Name::Te);
        assert_eq!(Name::of(b""), Name::Other);
    }

    fn fields(head: &[u8]) -> Fields {
        let mut fields = Fields::default();
        let (bytes, lines) = fields.reset(head);
        let mut parsed = [httparse::EMPTY_HEADER; 16];
        let httparse::Status::Complete((_, parsed)) =
            httparse::parse_headers(bytes, &mut parsed).unwrap()
        else {
            panic!("the head is complete");
        };
        for line in parsed {
            lines.push(bytes, line.name.as_bytes(), line.value);
        }
        fields
    }

    #[test]
    fn kept_lines_are_copied_and_untidy_ones_are_tidied() {
        let fields = fields(b"A: 1\r\nB:2\r\nC: 3\r\nD: \t4  \r\nE:\r\nF: 6\r\nG: 7\r\n\r\n");
        let mut out = Vec::new();
        fields.copy_lines(&mut out, |field| field.name != b"C");
        let copied = String::from_utf8(out).unwrap();
        assert_eq!(copied, "A: 1\r\nB: 2\r\nD: 4\r\nE: \r\nF: 6\r\nG: 7\r\n");
    }

    #[test]
    fn a_line_alone_is_a_field_line_or_refused() {
        let mut fields = Fields::default();
        fields.push_raw(b"X-Checksum: \t5 ").unwrap();
        fields.push_raw(b"Empty:").unwrap();
        let lines: Vec<_> = fields.iter().map(|f| (f.name, f.value)).collect();
        let empty: &[u8] = b"";
        assert_eq!(lines, [(&b"X-Checksum"[..], &b"5"[..]), (b"Empty", empty)]);
        for bad in ["no colon", " folded: x", "a b: c", ": empty", "a: b\0", ""] {
            assert!(fields.push_raw(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let mut out = Vec::new();
        fields.copy_lines(&mut out, |field| field.name != b"Empty");
        assert_eq!(out, b"X-Checksum: 5\r\n");
    }

    #[test]
    fn every_name_stands_under_its_length() {
        for (length, text, name) in Name::ALL {
            assert_eq!(text.len(), *length, "{text}");
            assert_eq!(
                Name::of(text.to_ascii_uppercase().as_bytes()),
                *name,
                "{text}"
            );
        }
    }
}
