//! An error as an answer: problem+json (RFC 9457), with the header fields that go with it, in the language of who asks.

use crate::answer::Answer;
use crate::error::{Error, Kind, Language};

/// The answer that tells `error`.
pub(super) fn problem(error: &Error, request_id: &str, language: Language) -> Answer {
    let mut answer = Answer::empty(error.status())
        .with("content-type", "application/problem+json")
        .with("cache-control", "no-store")
        .body(error.to_problem(request_id, language));
    // RFC 9110 §15.5.2 wants it with every 401. The token of one who has encrypted with an old key is good.
    match (error.status(), error.kind()) {
        (401, Kind::DecryptFailed) => {
            answer = answer.with("www-authenticate", "Bearer");
        }
        (401, _) => {
            answer = answer.with("www-authenticate", "Bearer error=\"invalid_token\"");
        }
        _ => {}
    }
    if let Some(methods) = error.allow() {
        answer = answer.with("allow", methods);
    }
    if let Some(length) = error.complete_length() {
        answer = answer.with("content-range", format!("bytes */{length}"));
    }
    if let Some(after) = error.retry_after() {
        answer = answer.with("retry-after", after.as_secs().max(1).to_string());
    }
    answer
}

/// The language that is liked best of the two there are, by the elements of `Accept-Language` (RFC 9110 §12.5.4).
pub(super) fn language<'a>(ranges: impl Iterator<Item = &'a [u8]>) -> Language {
    let mut best = (0, Language::English);
    for range in ranges {
        let language = match range.get(..2).map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"zh") => Language::Chinese,
            Some(b"en") => Language::English,
            _ => continue,
        };
        let weight = weight(range);
        if weight > best.0 {
            best = (weight, language);
        }
    }
    best.1
}

/// The weight of an element of a list, in thousandths; malformed ones count in full (RFC 9110 §12.4.2).
fn weight(range: &[u8]) -> u32 {
    let text = std::str::from_utf8(range).unwrap_or_default();
    let parameter = text
        .split(';')
        .skip(1)
        .find_map(|part| part.trim().strip_prefix("q="));
    let weight = parameter.and_then(|weight| weight.parse::<f32>().ok());
    weight.map_or(1000, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}
