//! Request ids (UUIDv7, RFC 9562) and trace contexts (W3C Trace Context).
//!
//! They need to be unique, not unguessable, so they come from a small generator per worker that was seeded by the system.

use std::cell::Cell;

use crate::clock::Timestamp;
use crate::crypto;

/// Names one request in answers, logs and what the app gets: 1 to 64 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    text: [u8; 64],
    len: u8,
}

/// A `traceparent` for the app: version 00, a trace id, our span's id, flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent([u8; 55]);

/// Makes ids. One per worker.
pub(crate) struct IdSource(Cell<u64>);

impl RequestId {
    /// Takes over an id from a trusted peer if it has the shape of one.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let clean = text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !(1..=64).contains(&text.len()) || !clean {
            return None;
        }
        let mut id = Self {
            text: [0; 64],
            len: u8::try_from(text.len()).ok()?,
        };
        id.text[..text.len()].copy_from_slice(text);
        Some(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a request id is ASCII")
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl TraceParent {
    /// Continues a trusted peer's trace with a span of ours; `None` if the value is not valid, which restarts the trace.
    pub(crate) fn continued(value: &[u8], ids: &IdSource) -> Option<Self> {
        let mut text: [u8; 55] = value.try_into().ok()?;
        let digits = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let nonzero = |part: &[u8]| part.iter().any(|&b| b != b'0');
        let (trace, parent, flags) = (&text[3..35], &text[36..52], &text[53..55]);
        let dashes = text[2] == b'-' && text[35] == b'-' && text[52] == b'-';
        let valid = &text[..2] == b"00"
            && dashes
            && digits(trace)
            && digits(parent)
            && digits(flags)
            && nonzero(trace)
            && nonzero(parent);
        valid.then(|| {
            text[36..52].copy_from_slice(&hex(ids.next() | 1));
            Self(text)
        })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The 32 digits that all spans of the trace share.
    pub(crate) fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl IdSource {
    pub(crate) fn new() -> Self {
        Self(Cell::new(u64::from_ne_bytes(crypto::random())))
    }

    /// A new request id: 48 bits of time, then random.
    pub(crate) fn request_id(&self, now: Timestamp) -> RequestId {
        let high = now.as_millis() << 16 | 0x7000 | self.next() >> 52;
        let low = self.next() >> 2 | 1 << 63;
        let (high, low) = (hex(high), hex(low));
        let mut text = [b'-'; 64];
        text[..8].copy_from_slice(&high[..8]);
        text[9..13].copy_from_slice(&high[8..12]);
        text[14..18].copy_from_slice(&high[12..]);
        text[19..23].copy_from_slice(&low[..4]);
        text[24..36].copy_from_slice(&low[4..]);
        RequestId { text, len: 36 }
    }

    /// A new trace. It is not marked as sampled: nobody on the public side decides what we record.
    pub(crate) fn trace(&self) -> TraceParent {
        let mut text = *b"00-................................-................-00";
        text[3..19].copy_from_slice(&hex(self.next()));
        text[19..35].copy_from_slice(&hex(self.next() | 1));
        text[36..52].copy_from_slice(&hex(self.next() | 1));
        TraceParent(text)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The lower-case hexadecimal digits of `number`.
fn hex(number: u64) -> [u8; 16] {
    let (high, low) = ((number >> 32) as u32, number as u32);
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&eight_digits(high));
    digits[8..].copy_from_slice(&eight_digits(low));
    digits
}

/// All eight at once: each half byte is moved to a byte of its own, and becomes a digit there.
fn eight_digits(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Six more than nine carries into the next half byte.
    let is_letter = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let to_letter = u64::from(b'a' - b'0' - 10);
    (spread + 0x3030_3030_3030_3030 + is_letter * to_letter).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        let ids = IdSource::new();
        for number in [
            0,
            1,
            0x0123_4567_89ab_cdef,
            u64::MAX,
            ids.next(),
            ids.next(),
        ] {
            assert_eq!(hex(number), *format!("{number:016x}").as_bytes());
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_7() {
        let ids = IdSource::new();
        let now = Timestamp::from_millis(0x0192_3456_789a);
        let (a, b) = (ids.request_id(now), ids.request_id(now));
        assert!(a.as_str().starts_with("01923456-789a-7"), "{}", a.as_str());
        assert!(
            matches!(a.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{}",
            a.as_str()
        );
        assert_eq!(a.as_str().len(), 36);
        assert_ne!(a.as_str(), b.as_str());
        assert!(RequestId::parse(a.as_bytes()).is_some());
    }

    #[test]
    fn a_request_id_from_outside_cannot_break_a_line() {
        for bad in ["", "a b", "a\r\nb", "ä", &"x".repeat(65)] {
            assert!(RequestId::parse(bad.as_bytes()).is_none());
        }
    }

    #[test]
    fn a_valid_trace_goes_on_with_a_new_span_and_an_invalid_one_does_not() {
        let ids = IdSource::new();
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let child = TraceParent::continued(parent, &ids).unwrap();
        assert_eq!(child.as_bytes()[..36], parent[..36]);
        assert_ne!(child.as_bytes()[36..52], parent[36..52]);
        assert_eq!(child.as_bytes()[52..], parent[52..]);
        assert!(TraceParent::continued(ids.trace().as_bytes(), &ids).is_some());
        for bad in [
            &b"00-00000000000000000000000000000000-b7ad6b7169203331-01"[..],
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            b"garbage",
        ] {
            assert!(TraceParent::continued(bad, &ids).is_none());
        }
    }
}
