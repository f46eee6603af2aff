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
pub(super) struct Lines {
    all: Vec<Line>,
    /// The names that are there, a bit each: most of those that are asked for are not.
    present: u32,
    /// The names that are there more than once.
    repeated: u32,
}

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
    /// Whether exactly one space stands before its value and nothing behind it, as in almost all lines.
    tidy: bool,
    name: Range<u32>,
    value: Range<u32>,
}

/// Which bytes a token may have (RFC 9110 §5.6.2).
const TOKEN: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        allowed[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    allowed
};

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
            /// Recognises a name, which is a token, whatever its case. Grouped by length, because most names are none
            /// of these and their length already says so; and a comparison of known length takes a few instructions.
            pub(crate) fn of(name: &[u8]) -> Self {
                match name.len() {
                    $($length => {
                        if let Some(name) = name.first_chunk::<$length>() {
                            $(if is_spelt(name, const { first($text) }) {
                                return Self::$variant;
                            })*
                        }
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
    7 => { Baggage = "baggage", Trailer = "trailer", Upgrade = "upgrade" }
    9 => { XWxCode = "x-wx-code" }
    10 => { Connection = "connection", KeepAlive = "keep-alive", Tracestate = "tracestate" }
    11 => { Traceparent = "traceparent" }
    12 => { ContentType = "content-type", XRequestId = "x-request-id" }
    13 => { Authorization = "authorization", CacheControl = "cache-control", XWxMediaId = "x-wx-media-id" }
    14 => { ContentLength = "content-length", Http2Settings = "http2-settings" }
    15 => { AcceptLanguage = "accept-language", XForwardedFor = "x-forwarded-for" }
    16 => { ProxyConnection = "proxy-connection", XForwardedHost = "x-forwarded-host" }
    17 => { TransferEncoding = "transfer-encoding", XForwardedProto = "x-forwarded-proto" }
    18 => { ProxyAuthenticate = "proxy-authenticate" }
    19 => { ProxyAuthorization = "proxy-authorization" }
}

/// The text of a name, whose length stands in the table.
const fn first<const N: usize>(text: &str) -> &[u8; N] {
    match text.as_bytes().first_chunk() {
        Some(text) => text,
        None => panic!("a name stands under a length that it does not have"),
    }
}

/// Whether a token is `text`, which is in lower case. Bit 5 makes letters lower-case, and no other two characters of
/// tokens differ in it alone.
fn is_spelt<const N: usize>(token: &[u8; N], text: &[u8; N]) -> bool {
    let differing = token
        .iter()
        .zip(text)
        .fold(0, |sum, (a, b)| sum | ((a | 0x20) ^ b));
    differing == 0
}

impl Name {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

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
        self.lines.all.iter().map(|line| self.field(line))
    }

    fn field(&self, line: &Line) -> Field<'_> {
        Field {
            known: line.known,
            name: self.slice(&line.name),
            value: self.slice(&line.value),
        }
    }

    /// Whether there is a line with this name.
    #[inline]
    pub(crate) fn has(&self, known: Name) -> bool {
        self.lines.present & known.bit() != 0
    }

    /// The values of every line with this name, in order.
    pub(crate) fn all(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        let lines: &[Line] = match self.has(known) {
            true => &self.lines.all,
            false => &[],
        };
        lines
            .iter()
            .filter(move |line| line.known == known)
            .map(|line| self.slice(&line.value))
    }

    /// The value of the only line with this name; `Err` if there are several.
    pub(crate) fn only(&self, known: Name) -> Result<Option<&[u8]>, Repeated> {
        match self.lines.repeated & known.bit() {
            0 => Ok(self.all(known).next()),
            _ => Err(Repeated),
        }
    }

    /// The comma-separated, trimmed elements of all lines with this name (RFC 9110 §5.6.1).
    pub(crate) fn list(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.all(known)
            .flat_map(|value| value.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Appends the lines that `keep` wants to `out`, as `name: value` and CR LF. Neighbours that came in that form go over
    /// in one piece.
    pub(crate) fn copy_lines(&self, out: &mut Vec<u8>, keep: impl Fn(&Field<'_>) -> bool) {
        let mut piece = 0..0;
        for line in &self.lines.all {
            let field = self.field(line);
            if !keep(&field) {
                continue;
            }
            let whole = line.name.start as usize..line.value.end as usize + 2;
            if line.tidy && whole.start == piece.end {
                piece.end = whole.end;
                continue;
            }
            out.extend_from_slice(&self.bytes[piece]);
            if line.tidy {
                piece = whole;
                continue;
            }
            piece = 0..0;
            for part in [field.name, b": ", field.value, b"\r\n"] {
                out.extend_from_slice(part);
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

    /// How many bytes the head has.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Makes room for what most heads need, for those that are not parsed but put together.
    pub(super) fn reserve(&mut self) {
        self.bytes.reserve(1024);
        self.lines.all.reserve(16);
    }

    /// Adds a line that did not come with the others: a trailer, or a field of another protocol. Name and value have been
    /// checked.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        for part in [name, b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        let value_at = start + name.len() + 2;
        self.lines.add(Line {
            known: Name::of(name),
            tidy: true,
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
        let malformed = HeadError::Malformed("a field line is malformed");
        let (name, value) = parse_field_line(line).ok_or(malformed)?;
        self.push(name, value);
        Ok(())
    }

    /// Forgets everything, and gives the place for new lines; the memory stays.
    pub(super) fn clear(&mut self) -> &mut Lines {
        self.bytes.clear();
        self.lines.all.clear();
        self.lines.present = 0;
        self.lines.repeated = 0;
        &mut self.lines
    }

    /// Takes over the bytes that the lines lie in.
    pub(super) fn keep(&mut self, head: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
    }

    pub(super) fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

impl Lines {
    /// Adds a line that begins at `start` of the head, with all that stands between its colon and its CR LF.
    #[inline]
    pub(super) fn push(&mut self, start: usize, name: &[u8], value: &[u8]) {
        let known = Name::of(name);
        let (text, tidy) = trimmed(value);
        let value_at = start + name.len() + 1;
        self.add(Line {
            known,
            tidy,
            name: offset(start)..offset(start + name.len()),
            value: offset(value_at + text.start)..offset(value_at + text.end),
        });
    }

    #[inline]
    fn add(&mut self, line: Line) {
        self.repeated |= self.present & line.known.bit();
        self.present |= line.known.bit();
        self.all.push(line);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// A field line without its CR LF: its name, and its value without the white space around it. `None` if it is not one;
/// trailers are such lines, too.
pub(super) fn parse_field_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at(name_len(line)?);
    let value = &value[1..];
    (value_len(value) == value.len()).then(|| (name, &value[trimmed(value).0]))
}

/// The length of the token before the colon.
#[inline]
pub(super) fn name_len(line: &[u8]) -> Option<usize> {
    // Nearly always the usual characters are all there is before the colon.
    let len = usual_len(line);
    if len > 0 && line.get(len) == Some(&b':') {
        return Some(len);
    }
    let len = len + unusual_len(&line[len..]);
    (len > 0 && line.get(len) == Some(&b':')).then_some(len)
}

/// Where a value lies without the white space around it, and whether that is a single space in front.
#[inline]
fn trimmed(value: &[u8]) -> (Range<usize>, bool) {
    // Nearly always it is one space in front.
    match value {
        [b' ', first, .., last] if *first > b' ' && *last > b' ' => (1..value.len(), true),
        _ => {
            let from = value.len() - value.trim_ascii_start().len();
            let text = from..from + value[from..].trim_ascii_end().len();
            let tidy = value.starts_with(b" ") && text == (1..value.len());
            (text, tidy)
        }
    }
}

/// How many of the first bytes make a token.
pub(super) fn token_len(bytes: &[u8]) -> usize {
    let usual = usual_len(bytes);
    usual + unusual_len(&bytes[usual..])
}

fn unusual_len(bytes: &[u8]) -> usize {
    let outside = bytes.iter().position(|&b| !TOKEN[usize::from(b)]);
    outside.unwrap_or(bytes.len())
}

/// How many of the first bytes are letters, digits and dashes.
#[inline]
fn usual_len(bytes: &[u8]) -> usize {
    // Zero is a byte within its range.
    run_len(bytes, |b| {
        let letter = (b | 0x20).wrapping_sub(b'a').saturating_sub(25);
        let digit = b.wrapping_sub(b'0').saturating_sub(9);
        letter.min(digit).min(b ^ b'-')
    })
}

/// How many of the first bytes a host's name may have: letters, digits, dots, dashes and underscores.
pub(super) fn host_len(bytes: &[u8]) -> usize {
    run_len(bytes, |b| {
        let letter = (b | 0x20).wrapping_sub(b'a').saturating_sub(25);
        let digit = b.wrapping_sub(b'0').saturating_sub(9);
        let sign = (b ^ b'.').min(b ^ b'-').min(b ^ b'_');
        letter.min(digit).min(sign)
    })
}

/// How many of the first bytes a value may have: visible characters, spaces, tabs and whatever is beyond ASCII
/// (RFC 9110 §5.5).
pub(super) fn value_len(bytes: &[u8]) -> usize {
    run_len(bytes, |b| {
        let control = b' '.saturating_sub(b).min(b ^ b'\t');
        control | 1u8.saturating_sub(b ^ 0x7f)
    })
}

/// How many of the first bytes a request-target may have: all but spaces and controls.
pub(super) fn target_len(bytes: &[u8]) -> usize {
    run_len(bytes, |b| {
        (b' ' + 1).saturating_sub(b) | 1u8.saturating_sub(b ^ 0x7f)
    })
}

/// How many of the first bytes `mark` makes zero; it never makes zero of a zero.
///
/// Sixteen at a time, by arithmetic without branches: the compiler makes a few vector instructions of that.
#[inline]
fn run_len(bytes: &[u8], mark: impl Fn(u8) -> u8) -> usize {
    let (chunks, tail) = bytes.as_chunks::<16>();
    let mut len = 0;
    for chunk in chunks {
        let marks = u128::from_le_bytes(chunk.map(&mark));
        if marks != 0 {
            return len + marks.trailing_zeros() as usize / 8;
        }
        len += 16;
    }
    // What is left becomes a chunk of its own, which the zeros behind it end.
    let mut chunk = [0; 16];
    chunk[..tail.len()].copy_from_slice(tail);
    let marks = u128::from_le_bytes(chunk.map(&mark));
    len + marks.trailing_zeros() as usize / 8
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

/// Heads are limited to far less than 4 GiB.
#[inline]
fn offset(n: usize) -> u32 {
    n as u32
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
        let lines = fields.clear();
        for line in head.split_inclusive(|&b| b == b'\n') {
            if line != b"\r\n" {
                let (name, _) = parse_field_line(line.strip_suffix(b"\r\n").unwrap()).unwrap();
                let start = name.as_ptr().addr() - head.as_ptr().addr();
                let after = line.strip_suffix(b"\r\n").unwrap();
                lines.push(start, name, &after[name.len() + 1..]);
            }
        }
        fields.keep(head);
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
