//! The canonical path: one spelling, and it leads where the target led.

use crate::config::EscapedSlashes;
use crate::path::CanonicalPath;

/// Any bytes as a request-target.
pub fn path(data: &[u8]) {
    for slashes in [EscapedSlashes::Reject, EscapedSlashes::Keep] {
        let Ok(parsed) = CanonicalPath::parse(data, slashes) else {
            continue;
        };
        let canonical = std::str::from_utf8(parsed.as_bytes()).expect("it is ASCII");
        let mut parts = data.splitn(2, |&b| b == b'?');
        let raw = parts.next().unwrap_or_default();
        assert_eq!(parsed.query(), parts.next());

        let again = CanonicalPath::parse(canonical.as_bytes(), slashes);
        let again = again.as_ref().map(CanonicalPath::as_bytes);
        assert_eq!(again, Ok(canonical.as_bytes()));
        check_spelling(canonical, slashes);

        // A naive reader of the raw target, which decodes once, and one of the canonical path see the same.
        let meant = resolve(raw).expect("it leads to the root or below");
        assert_eq!(resolve(canonical.as_bytes()), Some(meant.clone()));
        // Whoever decodes and encodes again is led to the same place, and decoding twice is decoding once.
        let encoded = encode(&meant);
        let back = CanonicalPath::parse(encoded.as_bytes(), slashes);
        let back = back.expect("what was canonical can be");
        assert_eq!(resolve(back.as_bytes()), Some(meant.clone()));
        for segment in &meant.0 {
            assert_eq!(&decode(segment).unwrap_or_else(|| segment.clone()), segment);
        }
        if slashes == EscapedSlashes::Reject {
            let kept = CanonicalPath::parse(data, EscapedSlashes::Keep);
            assert_eq!(kept.as_ref(), Ok(&parsed));
        }
    }
}

fn check_spelling(canonical: &str, slashes: EscapedSlashes) {
    assert!(canonical.starts_with('/') && !canonical.contains("//"));
    for segment in canonical.split('/') {
        assert!(!matches!(segment, "." | ".."), "{canonical}");
    }
    for (at, byte) in canonical.bytes().enumerate() {
        assert!(byte.is_ascii_graphic() && !b"\\;\"<>^`{|}?#".contains(&byte));
        if byte == b'%' {
            let digits = &canonical[at + 1..at + 3];
            assert_eq!(digits, digits.to_ascii_uppercase());
            let escaped = u8::from_str_radix(digits, 16).expect("two digits");
            let unreserved = escaped.is_ascii_alphanumeric() || b"-._~".contains(&escaped);
            assert!(!unreserved && !escaped.is_ascii_control(), "{canonical}");
            if slashes == EscapedSlashes::Reject {
                assert!(!b"/\\".contains(&escaped), "{canonical}");
            }
        }
    }
}

/// The decoded segments, and whether a slash stands at the end.
fn resolve(path: &[u8]) -> Option<(Vec<Vec<u8>>, bool)> {
    let mut segments = Vec::new();
    let mut directory = false;
    for raw in path.strip_prefix(b"/")?.split(|&b| b == b'/') {
        let segment = decode(raw)?;
        directory = matches!(&segment[..], b"" | b"." | b"..");
        match &segment[..] {
            b"" | b"." => {}
            b".." => drop(segments.pop()?),
            _ => segments.push(segment),
        }
    }
    let directory = directory || segments.is_empty();
    Some((segments, directory))
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*first);
        }
    }
    Some(out)
}

/// Escapes all that may be escaped.
fn encode((segments, directory): &(Vec<Vec<u8>>, bool)) -> String {
    let mut out = String::new();
    for segment in segments {
        out.push('/');
        for &byte in segment {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02x}"));
            }
        }
    }
    if *directory {
        out.push('/');
    }
    out
}
