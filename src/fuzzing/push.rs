//! Message push: what goes to the app is JSON, and a message is the same one however it came; nothing opens that was not
//! sealed; what answers WeChat reads back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::Dice;
use crate::crypto::cbc;
use crate::domain::AppId;
use crate::wechat::push::{
    EncodingAesKey, Envelope, Flaw, Format, Message, Query, Reply, encrypted_reply, is_signed,
    passive_reply, sign,
};

const FORMATS: [Format; 2] = [Format::Json, Format::Xml];
const APPID: &str = "wx0123456789abcdef";

/// Any bytes: as a query, as a document on the wire, as ciphertext and plaintext, as a message, and as an app's answer.
pub fn push(data: &[u8]) {
    query(data);
    for format in FORMATS {
        envelope(format, data);
        if let Ok(message) = Message::parse(format, data) {
            message_is_sound(format, data, &message);
        }
        answer(format, data);
    }
    encryption(data);
}

fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(query) = Query::parse(&text) else {
        return;
    };
    if let (Some(time), Some(shown)) = (query.time(), &query.timestamp) {
        let digits = shown.trim_start_matches('0');
        assert_eq!(time.to_string().trim_start_matches('0'), digits);
    }
    let signature = sign("token", &[&text]);
    assert!(is_signed("token", &[&text], &signature));
    assert!(text == signature || !is_signed("token", &[&text], &text));
}

fn envelope(format: Format, data: &[u8]) {
    let Ok(envelope) = Envelope::parse(format, data) else {
        return;
    };
    assert_eq!(
        Format::of(data),
        Some(format),
        "it could be told by its first character"
    );
    if let Some(encrypted) = envelope.encrypted() {
        assert!(key().open(encrypted, &appid()).is_err(), "nobody sealed it");
    }
}

fn message_is_sound(format: Format, data: &[u8], message: &Message) {
    let json = message.json();
    let shown = || json.escape_ascii();
    assert!(json.starts_with(b"{"), "{}", shown());
    assert!(str::from_utf8(json).is_ok(), "{}", shown());
    assert!(
        serde_json::from_slice::<IgnoredAny>(json).is_ok(),
        "{}",
        shown()
    );
    let id = message.id();
    assert!(!id.is_empty() && id.len() <= 64, "{id}");
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    if let Some(user) = message.user() {
        assert_eq!(message.lane(), user.as_str());
    }
    assert!(!message.is_xpay() || !message.is_user_message());
    // A journal reads again what it has written, as JSON.
    match Message::parse(Format::Json, json) {
        Ok(again) => assert_eq!(again, *message, "{}", shown()),
        // A list is a level and a value more than the elements were, and escapes are longer than what they stand for.
        Err(Flaw::Depth | Flaw::Size) => assert_eq!(format, Format::Xml),
        Err(flaw) => panic!("{flaw}: {}", shown()),
    }
    // A retry is the same message with another count.
    if format == Format::Json && !data.windows(5).any(|part| part == b"Retry") && json.len() > 2 {
        let end = json.len() - 1;
        let retried = [&json[..end], br#","RetryTimes":3}"#].concat();
        if let Ok(retried) = Message::parse(Format::Json, &retried) {
            assert_eq!(retried.identity(), message.identity(), "{}", shown());
        }
    }
}

fn answer(format: Format, data: &[u8]) {
    let Ok(Reply::Document(document)) = passive_reply(format, data) else {
        return;
    };
    let shown = || document.escape_ascii();
    assert_eq!(Format::of(&document), Some(format), "{}", shown());
    match passive_reply(format, &document) {
        Ok(again) => assert_eq!(again, Reply::Document(document.clone()), "{}", shown()),
        Err(Flaw::Depth | Flaw::Size) => assert_ne!(Format::of(data), Some(format)),
        Err(flaw) => panic!("{flaw}: {}", shown()),
    }
    let sealed = encrypted_reply(
        format,
        &key(),
        "token",
        &appid(),
        1_714_112_445,
        &String::from_utf8_lossy(data),
        [1; 16],
        &document,
    );
    // The nonce is not ours; XML has no way to say a NUL, and a signed query has none.
    match Envelope::parse(format, &sealed) {
        Ok(envelope) => {
            let encrypted = envelope.encrypted().expect("it is encrypted");
            let opened = key().open(encrypted, &appid());
            assert_eq!(opened.ok().as_deref(), Some(&document), "{}", shown());
        }
        Err(flaw) => assert!(flaw == Flaw::Size || data.contains(&0), "{flaw}"),
    }
}

fn encryption(data: &[u8]) {
    let (key, appid) = (key(), appid());
    let dice = Dice::of(data).below(256);
    let random = [u8::try_from(dice).expect("a byte"); 16];
    let sealed = key.seal(random, data, &appid);
    assert_eq!(
        key.open(&sealed, &appid).ok().as_deref(),
        Some(&data.to_vec())
    );

    assert!(key.open(&String::from_utf8_lossy(data), &appid).is_err());
    assert!(key.open(&STANDARD.encode(data), &appid).is_err());
    // Bytes under the right key, such as nobody who means well encrypts: only what `seal` makes may open.
    let mut plain = data.to_vec();
    cbc::encrypt_256(&[0; 32], &[0; 16], 32, &mut plain);
    if let Ok(message) = key.open(&STANDARD.encode(plain), &appid) {
        assert_eq!(
            &data[16..20],
            &u32::try_from(message.len())
                .expect("it is shorter")
                .to_be_bytes()
        );
        assert_eq!(data[20..], [&message[..], APPID.as_bytes()].concat());
    }
}

/// Its bytes are all zero.
fn key() -> EncodingAesKey {
    EncodingAesKey::parse(&"A".repeat(43)).expect("it is one")
}

fn appid() -> AppId {
    AppId::parse(APPID).expect("it is one")
}
