//! A second reading of what we write: RFC 9112 by the letter, nothing forgiven, no line shared with the engine.

use super::{Lines, sorted};

/// A decoded chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) body: Vec<u8>,
    pub(super) trailers: Lines,
    /// How many bytes it took.
    pub(super) length: usize,
}

/// The name and the value of a field line.
type Line<'d> = (&'d [u8], &'d [u8]);

/// Takes a line off the front, without its CR LF.
fn line<'d>(rest: &mut &'d [u8]) -> Option<&'d [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    (!line.contains(&b'\n') && !line.contains(&b'\r')).then_some(line)
}

/// chunked-body of RFC 9112 §7.1; a size has at most 16 digits, and extensions may be any printable text.
pub(super) fn chunked(data: &[u8]) -> Option<Decoded> {
    let mut rest = data;
    let mut body = Vec::new();
    loop {
        let line = line(&mut rest)?;
        let (digits, extension) = match line.iter().position(|&b| b == b';') {
            Some(at) => line.split_at(at),
            None => (line, &b""[..]),
        };
        if !(1..=16).contains(&digits.len())
            || !digits.iter().all(u8::is_ascii_hexdigit)
            || !is_value(extension)
        {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        let (chunk, behind) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    let trailers = field_lines(&mut rest)?;
    Some(Decoded {
        body,
        trailers: sorted(trailers.into_iter()),
        length: data.len() - rest.len(),
    })
}

/// Field lines up to the empty line, in their order (RFC 9112 §5).
pub(super) fn field_lines<'d>(rest: &mut &'d [u8]) -> Option<Vec<Line<'d>>> {
    let mut lines = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Some(lines);
        }
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
        let end = value
            .iter()
            .rposition(|b| !blank(b))
            .map_or(start, |at| at + 1);
        if !is_token(name) || !is_value(value) {
            return None;
        }
        lines.push((name, &value[start..end]));
    }
}

/// A request's head: method, target, lines. It must be all there is.
pub(super) fn request_head(data: &[u8]) -> Option<(&[u8], &[u8], Vec<Line<'_>>)> {
    let mut rest = data;
    let start = line(&mut rest)?;
    let mut parts = start.split(|&b| b == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let lines = field_lines(&mut rest)?;
    let ok = is_token(method)
        && target.iter().all(u8::is_ascii_graphic)
        && !target.is_empty()
        && version == b"HTTP/1.1"
        && parts.next().is_none()
        && rest.is_empty();
    ok.then_some((method, target, lines))
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// RFC 9110 §5.5, with white space at the ends.
pub(super) fn is_value(text: &[u8]) -> bool {
    text.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
}
