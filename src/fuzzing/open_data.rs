//! Open data in requests: what we cut out of a document is what a reader that knows nothing of our scanner sees there, and
//! nothing that WeChat has not encrypted opens.

use serde_json::{Map, Value, json};

use super::Dice;
use crate::clock::Timestamp;
use crate::domain::{AppId, SessionKey};
use crate::open_data::{self, Content, Request, Wanted};
use crate::wechat::open_data::{Accepted, Encrypted};

/// What stands in place of a ciphertext.
const PLAIN: &[u8] = br#"{"plain":[1,"}"]}"#;

/// Any bytes: as the body for an app, as a request of ours, as a query, and as a ciphertext.
pub fn open_data(data: &[u8]) {
    rewrite(data);
    if let Ok(request) = Request::parse(data) {
        request_is_sound(&request);
    }
    request_is_sound(&Request::of_query(data));
    decrypt(data);
}

/// A document as the app gets it, read by another reader.
fn rewrite(data: &[u8]) {
    let Ok(places) = open_data::find(data) else {
        return;
    };
    let plain = vec![PLAIN.to_vec(); places.len()];
    let rewritten = open_data::pieces(data, &places, &plain)
        .collect::<Vec<_>>()
        .concat();
    if places.is_empty() {
        assert_eq!(rewritten, data);
    }
    // That reader has limits of its own, to depth and numbers.
    let Ok(before) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let after: Value = serde_json::from_slice(&rewritten).expect("it is still JSON");
    let mut count = 0;
    let expected = opened(before, &mut count);
    // A name that stands twice in some other object hides its first value from that reader.
    if count == places.len() {
        assert_eq!(after, expected, "{}", data.escape_ascii());
    }
    let ciphertexts =
        |place: &&open_data::Place| matches!(place.content, Content::Encrypted { .. });
    if places.iter().any(|place| ciphertexts(&place)) {
        assert!(
            open_data::find(&rewritten).is_err(),
            "a client must not send `openData`"
        );
    }
}

/// The document with all open data in plaintext.
fn opened(value: Value, count: &mut usize) -> Value {
    match value {
        Value::Array(values) => values
            .into_iter()
            .map(|value| opened(value, count))
            .collect(),
        Value::Object(members) => {
            let is_text = |name: &str| members.get(name).is_some_and(Value::is_string);
            let encrypted = is_text("encryptedData") && is_text("iv");
            let in_cloud = !encrypted && is_text("cloudID");
            let mut members: Map<_, _> = members
                .into_iter()
                .map(|(name, value)| (name, opened(value, count)))
                .collect();
            let plain = || serde_json::from_slice(PLAIN).expect("it is JSON");
            if encrypted {
                members.remove("encryptedData");
                members.remove("iv");
                members.insert("openData".to_owned(), plain());
            }
            if in_cloud {
                members.insert("data".to_owned(), plain());
            }
            *count += usize::from(encrypted || in_cloud);
            Value::Object(members)
        }
        value => value,
    }
}

fn request_is_sound(request: &Request) {
    let _nobody_asks = request.code().map(str::len);
    if let Ok(Wanted::Cloud(id)) = request.wanted() {
        assert!(!id.expose().is_empty());
    }
}

/// Nobody but WeChat knows the key.
fn decrypt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (body, iv) = text
        .split_once(' ')
        .unwrap_or((&text, "AAAAAAAAAAAAAAAAAAAAAA=="));
    let Ok(encrypted) = Encrypted::parse(body, iv) else {
        return;
    };
    let appid = AppId::parse("wx0123456789abcdef").expect("it is one");
    let accepted = Accepted {
        appid: &appid,
        now: Timestamp::from_millis(0),
        max_age: None,
    };
    let key = Dice::of(data).below(255);
    let key = SessionKey::from_bytes([u8::try_from(key).expect("it is below 255"); 16]);
    assert!(
        encrypted.decrypt(&key, accepted).is_err(),
        "{}",
        json!(text)
    );
}
