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

/// A place in a trace: which trace, which span in it, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
}

/// Where something that we do stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traced {
    pub(crate) here: TraceContext,
    /// What caused it. If that is of another trace, ours began here because its word is not taken.
    pub(crate) above: Option<TraceContext>,
}

/// A `traceparent`: version 00, a trace id, a span's id, flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent([u8; 55]);

/// A trace id as it is written: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 32]);

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

impl TraceContext {
    /// Reads a `traceparent` (W3C Trace Context §3.2). Of a version that is yet to come, what this one has in common with it.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (text, rest) = value.split_first_chunk::<55>()?;
        let dashes = [2, 35, 52].iter().all(|&place| text[place] == b'-');
        let version = number(&text[..2])?;
        let follows = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let high = u128::from(number(&text[3..19])?);
        let trace = high << 64 | u128::from(number(&text[19..35])?);
        let span = number(&text[36..52])?;
        let sampled = number(&text[53..])? & 1 == 1;
        (dashes && follows && trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            sampled,
        })
    }

    /// A new span below this one.
    pub(crate) fn child(self, ids: &IdSource) -> Self {
        let span = ids.next() | 1;
        Self { span, ..self }
    }

    /// The same place, recorded or not.
    pub(crate) fn with_sampled(self, sampled: bool) -> Self {
        Self { sampled, ..self }
    }

    pub(crate) fn trace_id(self) -> TraceId {
        let mut text = [0; 32];
        text[..16].copy_from_slice(&hex((self.trace >> 64) as u64));
        text[16..].copy_from_slice(&hex(self.trace as u64));
        TraceId(text)
    }

    pub(crate) fn to_text(self) -> TraceParent {
        let mut text = *b"00-................................-................-00";
        text[3..35].copy_from_slice(&self.trace_id().0);
        text[36..52].copy_from_slice(&hex(self.span));
        text[54] += u8::from(self.sampled);
        TraceParent(text)
    }
}

#[cfg(feature = "otlp")]
impl TraceContext {
    pub(crate) fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The trace and the span.
    pub(crate) fn numbers(self) -> (u128, u64) {
        (self.trace, self.span)
    }
}

impl Traced {
    /// The first span of a trace.
    pub(crate) fn anew(ids: &IdSource, sampled: bool) -> Self {
        Self {
            here: ids.trace().with_sampled(sampled),
            above: None,
        }
    }

    /// A span that `above` has caused, in the same trace.
    pub(crate) fn below(above: TraceContext, ids: &IdSource) -> Self {
        Self {
            here: above.child(ids),
            above: Some(above),
        }
    }

    /// Whether it goes on with a trace that somebody else has begun.
    pub(crate) fn goes_on(&self) -> bool {
        self.above
            .is_some_and(|above| above.trace == self.here.trace)
    }
}

impl TraceParent {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The 32 digits that all spans of the trace share.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a traceparent is ASCII")
    }
}

impl TraceId {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a trace id is ASCII")
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

    /// The first place of a new trace, which is not recorded unless somebody says so.
    pub(crate) fn trace(&self) -> TraceContext {
        TraceContext {
            trace: u128::from(self.next()) << 64 | u128::from(self.next() | 1),
            span: self.next() | 1,
            sampled: false,
        }
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

#[cfg(feature = "otlp")]
impl IdSource {
    /// True as often as a number is below `limit`.
    pub(crate) fn falls_below(&self, limit: u64) -> bool {
        self.next() < limit
    }
}

/// The number that up to 16 lower-case hexadecimal digits stand for.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
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

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<String> {
        let context = TraceContext::parse(text.as_bytes())?;
        Some(context.to_text().as_str().to_owned())
    }

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        assert_eq!(read(PARENT).as_deref(), Some(PARENT));
        let not_recorded = PARENT.replace("-01", "-00");
        assert_eq!(read(&not_recorded), Some(not_recorded));
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(
            context.trace_id().as_str(),
            "0af7651916cd43dd8448eb211c80319c"
        );
    }

    #[test]
    fn of_flags_only_the_one_that_is_known_is_passed_on() {
        for (given, written) in [("02", "00"), ("03", "01"), ("ff", "01"), ("fe", "00")] {
            let text = format!("{}{given}", &PARENT[..53]);
            assert_eq!(read(&text), Some(format!("{}{written}", &PARENT[..53])));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for (given, read_as) in [
            (format!("cc{}", &PARENT[2..]), Some(PARENT)),
            (format!("cc{}-what-comes", &PARENT[2..]), Some(PARENT)),
            (format!("cc{}-", &PARENT[2..]), Some(PARENT)),
            (format!("cc{}.what-comes", &PARENT[2..]), None),
            (format!("ff{}", &PARENT[2..]), None),
            (format!("{PARENT}-what-comes"), None),
        ] {
            assert_eq!(read(&given).as_deref(), read_as, "{given}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_not_read() {
        for bad in [
            "",
            "garbage",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333.-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-.1",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_below_a_span_is_of_its_trace_and_another_span() {
        let ids = IdSource::new();
        let above = TraceContext::parse(PARENT.as_bytes()).unwrap();
        let below = Traced::below(above, &ids);
        let text = below.here.to_text();
        assert_eq!(text.as_str()[..36], PARENT[..36]);
        assert_ne!(text.as_str()[36..52], PARENT[36..52]);
        assert_eq!(text.as_str()[52..], PARENT[52..]);
        assert!(below.goes_on());
        let anew = Traced::anew(&ids, false);
        assert!(!anew.goes_on());
        let strange = Traced {
            above: Some(above),
            ..anew
        };
        assert!(!strange.goes_on());
        let text = anew.here.to_text();
        assert_eq!(TraceContext::parse(text.as_bytes()), Some(anew.here));
    }
}
