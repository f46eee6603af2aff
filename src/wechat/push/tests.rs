//! Signatures, queries and envelopes, held against what WeChat and the SDKs of others have made
//! (`tests/vectors/push`), and against what neither makes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::crypto::cbc;
use crate::domain::AppId;

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/vectors/push/vectors.json"
));
const APPID: &str = "wxba5fad812f8e6fb9";

fn appid() -> AppId {
    AppId::parse(APPID).unwrap()
}

/// The documentation's key, whose bytes are all zero.
fn key() -> EncodingAesKey {
    EncodingAesKey::parse(&"A".repeat(43)).unwrap()
}

/// Encrypts with [`key`] what may be no message at all; `plain` is of whole blocks.
fn encrypt(mut plain: Vec<u8>) -> String {
    cbc::encrypt_256(&[0; 32], &[0; 16], 16, &mut plain);
    plain.truncate(plain.len() - 16);
    STANDARD.encode(plain)
}

/// Encrypts what stands in an envelope, with padding as it should be.
fn encrypt_padded(mut plain: Vec<u8>) -> String {
    cbc::encrypt_256(&[0; 32], &[0; 16], 32, &mut plain);
    STANDARD.encode(plain)
}

/// The inside of an envelope, with any length in it.
fn inside(length: u32, message: &[u8], receiver: &[u8]) -> Vec<u8> {
    [&[7; 16], &length.to_be_bytes()[..], message, receiver].concat()
}

fn vectors(kind: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let found: Vec<_> = all.into_iter().filter(|it| it["kind"] == kind).collect();
    assert!(!found.is_empty(), "{kind}");
    found
}

fn string<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn signatures_are_those_of_wechat_and_of_others() {
    for vector in vectors("push_url_signature") {
        let (inputs, expected) = (&vector["inputs"], string(&vector["expected"], "signature"));
        let token = string(inputs, "token");
        let parts = [string(inputs, "timestamp"), string(inputs, "nonce")];
        assert_eq!(sign(token, &parts), expected, "{}", vector["name"]);
        assert!(is_signed(token, &parts, expected));
        assert!(!is_signed(token, &[parts[0]], expected));
        assert!(!is_signed("other", &parts, expected));
    }
}

#[test]
fn only_forty_lower_case_digits_are_a_signature() {
    let good = sign("AAAAA", &["1714036504", "1514711492"]);
    let signed = |signature: &str| is_signed("AAAAA", &["1714036504", "1514711492"], signature);
    assert!(signed(&good));
    assert!(
        is_signed("AAAAA", &["1514711492", "1714036504"], &good),
        "they are sorted"
    );
    for bad in [
        "",
        &good.to_uppercase(),
        &good[1..],
        &format!("{good}0"),
        &format!(" {good}"),
        &format!("{good}\0"),
        &"0".repeat(40),
    ] {
        assert!(!signed(bad), "{bad}");
    }
    for at in 0..40 {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        assert!(!signed(str::from_utf8(&changed).unwrap()), "{at}");
    }
}

#[test]
fn what_is_signed_is_sorted_by_bytes_and_not_by_language_or_length() {
    // "B" < "a" < "é", and "10" < "9".
    for parts in [["B", "a"], ["a", "B"]] {
        assert_eq!(sign("é", &parts), hex(&sha1(&["Baé".as_bytes()])));
    }
    assert_eq!(sign("9", &["10", ""]), hex(&sha1(&[b"109"])));
}

#[test]
fn messages_of_wechat_and_of_others_open() {
    for vector in vectors("push_decrypt") {
        let (inputs, expected) = (&vector["inputs"], &vector["expected"]);
        let format = match string(inputs, "body_format") {
            "xml" => Format::Xml,
            _ => Format::Json,
        };
        let encrypted = string(inputs, "encrypt");
        let body = match format {
            Format::Xml => format!(
                "<xml><ToUserName><![CDATA[gh_a]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
            ),
            Format::Json => json!({ "ToUserName": "gh_a", "Encrypt": encrypted }).to_string(),
        };
        assert_eq!(Format::of(body.as_bytes()), Some(format));
        let envelope = Envelope::parse(format, body.as_bytes()).unwrap();
        assert_eq!(envelope.encrypted(), Some(encrypted));
        assert!(!envelope.has_more());
        let parts = [
            string(inputs, "timestamp"),
            string(inputs, "nonce"),
            encrypted,
        ];
        let signature = string(inputs, "msg_signature");
        assert!(is_signed(string(inputs, "token"), &parts, signature));

        let key = EncodingAesKey::parse(string(inputs, "encoding_aes_key")).unwrap();
        let appid = AppId::parse(string(inputs, "appid")).unwrap();
        let opened = key.open(encrypted, &appid).unwrap();
        let plaintext = string(expected, "plaintext");
        assert_eq!(str::from_utf8(&opened), Ok(plaintext));
        let mut random = [0; 16];
        random.copy_from_slice(string(expected, "random").as_bytes());
        assert_eq!(key.seal(random, &opened, &appid), encrypted);

        let message = Message::parse(format, &opened).unwrap();
        assert!(message.json().starts_with(b"{\"") && message.create_time().is_some());
    }
}

#[test]
fn what_is_sealed_is_what_wechat_and_others_have_made_of_it() {
    for vector in vectors("push_encrypt") {
        let (inputs, expected) = (&vector["inputs"], &vector["expected"]);
        let key = EncodingAesKey::parse(string(inputs, "encoding_aes_key")).unwrap();
        let appid = AppId::parse(string(inputs, "appid")).unwrap();
        let mut random = [0; 16];
        random.copy_from_slice(string(inputs, "random").as_bytes());
        let plaintext = string(inputs, "plaintext").as_bytes();
        let sealed = key.seal(random, plaintext, &appid);
        assert_eq!(sealed, string(expected, "encrypt"), "{}", vector["name"]);
        if expected["reply_json"].is_object() {
            let (token, nonce) = (string(inputs, "token"), string(inputs, "nonce"));
            let timestamp = string(inputs, "timestamp").parse().unwrap();
            let reply = |format| {
                encrypted_reply(
                    format, &key, token, &appid, timestamp, nonce, random, plaintext,
                )
            };
            let json: Value = serde_json::from_slice(&reply(Format::Json)).unwrap();
            assert_eq!(json, expected["reply_json"]);
            let signature = string(expected, "msg_signature");
            assert_eq!(
                String::from_utf8(reply(Format::Xml)).unwrap(),
                format!(
                    "<xml><Encrypt><![CDATA[{sealed}]]></Encrypt><MsgSignature><![CDATA[{signature}]]></MsgSignature>\
                     <TimeStamp>{timestamp}</TimeStamp><Nonce><![CDATA[{nonce}]]></Nonce></xml>"
                )
            );
        }
    }
}

#[test]
fn a_nonce_cannot_break_out_of_a_reply() {
    let nonce = "\"]]></Nonce><x/>";
    for format in [Format::Json, Format::Xml] {
        let reply = encrypted_reply(format, &key(), "t", &appid(), 1, nonce, [0; 16], b"x");
        let members = match format {
            Format::Json => json::parse(str::from_utf8(&reply).unwrap()),
            Format::Xml => xml::parse(str::from_utf8(&reply).unwrap()),
        };
        let members = members.unwrap();
        let names: Vec<_> = members.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"]);
        assert_eq!(members[3].1.scalar(), Some(nonce));
    }
}

#[test]
fn all_paddings_occur_and_open() {
    let mut seen = [false; 33];
    for length in 0..=96 {
        let message = vec![b'x'; length];
        let sealed = key().seal([9; 16], &message, &appid());
        let mut plain = STANDARD.decode(&sealed).unwrap();
        assert_eq!(plain.len() % 32, 0);
        assert_eq!(
            &key().open(&sealed, &appid()).unwrap()[..],
            message,
            "{length}"
        );
        cbc::decrypt_256(&[0; 32], &[0; 16], &mut plain);
        seen[usize::from(plain[plain.len() - 1])] = true;
    }
    assert!(!seen[0] && seen[1..].iter().all(|seen| *seen), "{seen:?}");
}

#[test]
fn every_value_of_the_last_byte_but_the_right_one_is_no_padding() {
    for last in 0..=u8::MAX {
        // Ends at 40 of 64 bytes.
        let mut plain = inside(2, b"{}", APPID.as_bytes());
        assert_eq!(plain.len(), 40);
        plain.resize(64, last);
        let outcome = key().open(&encrypt(plain), &appid());
        let expected = match last {
            24 => None,
            // The padding is good, and what stands in front of it is no appid.
            1..=32 => Some(if last < 24 {
                Flaw::Receiver
            } else {
                Flaw::Padding
            }),
            _ => Some(Flaw::Padding),
        };
        assert_eq!(outcome.err(), expected, "{last}");
    }
}

#[test]
fn padding_to_sixteen_bytes_opens_too() {
    for length in 0..32 {
        let mut plain = inside(length, &vec![b'y'; length as usize], APPID.as_bytes());
        cbc::encrypt_256(&[0; 32], &[0; 16], 16, &mut plain);
        let opened = key().open(&STANDARD.encode(&plain), &appid()).unwrap();
        assert_eq!(opened.len(), length as usize);
    }
}

#[test]
fn a_length_that_lies_opens_nothing() {
    let message = b"{\"a\":1}";
    let of = |length: u32| {
        let sealed = encrypt_padded(inside(length, message, APPID.as_bytes()));
        key().open(&sealed, &appid()).err()
    };
    assert_eq!(of(7), None);
    for length in [
        26,
        44,
        45,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fff0,
        0xffff_ffeb,
        0xffff_ffff,
    ] {
        assert_eq!(of(length), Some(Flaw::Length), "{length:#x}");
    }
    for length in [0, 6, 8, 25] {
        assert_eq!(of(length), Some(Flaw::Receiver), "{length}");
    }
    for short in 0..20 {
        let sealed = encrypt_padded(vec![0; short]);
        assert_eq!(
            key().open(&sealed, &appid()).err(),
            Some(Flaw::Length),
            "{short}"
        );
    }
}

#[test]
fn ciphertexts_of_every_length_are_refused_without_a_panic() {
    for length in 0..=64 {
        let outcome = key().open(&STANDARD.encode(vec![0x5a; length]), &appid());
        let expected = match length >= 32 && length % 16 == 0 {
            true => Flaw::Padding,
            false => Flaw::Length,
        };
        assert_eq!(outcome.err(), Some(expected), "{length}");
    }
    for bad in ["!", "=", "A", "AAAA*AAA", "é", "AAAA AAAA é"] {
        assert_eq!(key().open(bad, &appid()).err(), Some(Flaw::Base64), "{bad}");
    }
    let huge = "A".repeat(MAX_LEN + 1);
    assert_eq!(key().open(&huge, &appid()).err(), Some(Flaw::Size));
}

#[test]
fn what_was_tampered_with_has_another_signature_and_another_plaintext() {
    let vector = &vectors("push_decrypt")[0];
    let inputs = &vector["inputs"];
    let plaintext = string(&vector["expected"], "plaintext").as_bytes();
    let good = STANDARD.decode(string(inputs, "encrypt")).unwrap();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] ^= flip;
            let encrypted = STANDARD.encode(changed);
            let parts = [
                string(inputs, "timestamp"),
                string(inputs, "nonce"),
                &encrypted,
            ];
            assert!(!is_signed("AAAAA", &parts, string(inputs, "msg_signature")));
            let opened = key().open(&encrypted, &appid());
            assert!(opened.is_err() || &opened.unwrap()[..] != plaintext, "{at}");
        }
    }
}

#[test]
fn a_message_for_another_app_or_under_another_key_does_not_open() {
    let sealed = key().seal([1; 16], b"<xml/>", &appid());
    let other = AppId::parse("wxba5fad812f8e6fb8").unwrap();
    assert_eq!(key().open(&sealed, &other).err(), Some(Flaw::Receiver));
    let wrong = EncodingAesKey::parse(&"B".repeat(43)).unwrap();
    assert!(wrong.open(&sealed, &appid()).is_err());
    // An appid that only begins as ours does, or has something in front.
    for receiver in [
        &b"wxba5fad812f8e6fb90"[..],
        b"xwxba5fad812f8e6fb9",
        b"",
        b"wxba5fad812f8e6fb",
    ] {
        let sealed = encrypt_padded(inside(2, b"{}", receiver));
        assert_eq!(key().open(&sealed, &appid()).err(), Some(Flaw::Receiver));
    }
}

#[test]
fn an_aes_key_is_forty_three_letters_and_digits() {
    let odd = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
    assert!(
        EncodingAesKey::parse(odd).is_ok(),
        "its last letter carries bits that no byte has"
    );
    for bad in [
        "",
        &odd[1..],
        &format!("{odd}="),
        &format!("{odd}A"),
        &odd.replace('a', "+"),
        &odd.replace('a', "/"),
        &odd.replace('a', " "),
        &odd.replace("ab", "é"),
    ] {
        assert!(EncodingAesKey::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(format!("{:?}", key()), "EncodingAesKey(***)");
    assert_eq!(key(), key());
    assert_ne!(key(), EncodingAesKey::parse(odd).unwrap());
}

#[test]
fn an_envelope_has_one_ciphertext_and_perhaps_more() {
    let parse = |body: &str| {
        let format = Format::of(body.as_bytes()).unwrap();
        let envelope = Envelope::parse(format, body.as_bytes())?;
        Ok((envelope.encrypted().map(str::to_owned), envelope.has_more()))
    };
    let encrypted = |text: &str, more| Ok((Some(text.to_owned()), more));
    for (body, expected) in [
        (
            r#"{"ToUserName":"g","Encrypt":"a+/="}"#,
            encrypted("a+/=", false),
        ),
        (r#"{"Encrypt":"a\/\u003d"}"#, encrypted("a/=", false)),
        (r#"{"Encrypt":"a","MsgType":"text"}"#, encrypted("a", true)),
        (r#"{"Encrypt":""}"#, encrypted("", false)),
        (r#"{"MsgType":"text"}"#, Ok((None, true))),
        (r#"{"a":{"Encrypt":"a"}}"#, Ok((None, true))),
        ("{}", Ok((None, false))),
        ("{\"Encrypt\":\"a\nb\"}", encrypted("a\nb", false)),
        (
            r#"{"Encrypt":"a","Encrypt":"a"}"#,
            Err(Flaw::Duplicate("Encrypt".to_owned())),
        ),
        (
            r#"{"Encrypt":"a","\u0045ncrypt":"b"}"#,
            Err(Flaw::Duplicate("Encrypt".to_owned())),
        ),
        (
            r#"{"Encrypt":["a"]}"#,
            Err(Flaw::Duplicate("Encrypt".to_owned())),
        ),
        (
            r#"{"Encrypt":{"a":1}}"#,
            Err(Flaw::Syntax("`Encrypt` is not text")),
        ),
        (
            r#"{"Encrypt":null}"#,
            Err(Flaw::Syntax("`Encrypt` is not text")),
        ),
        (r#"{"Encrypt":"a""#, Err(Flaw::Syntax("it is not JSON"))),
        ("<xml><Encrypt>a</Encrypt></xml>", encrypted("a", false)),
        (
            "<xml><ToUserName>g</ToUserName><Encrypt>\n  <![CDATA[a]]>\n</Encrypt></xml>",
            encrypted("a", false),
        ),
        (
            "<xml><Encrypt>12</Encrypt><A/></xml>",
            encrypted("12", true),
        ),
        ("<xml><Encrypt/></xml>", encrypted("", false)),
        ("<xml><MsgType>text</MsgType></xml>", Ok((None, true))),
        (
            "<xml><Encrypt>a</Encrypt><Encrypt>a</Encrypt></xml>",
            Err(Flaw::Duplicate("Encrypt".to_owned())),
        ),
        (
            "<xml><Encrypt><b>a</b></Encrypt></xml>",
            Err(Flaw::Syntax("`Encrypt` is not text")),
        ),
        (
            "<!DOCTYPE xml><xml><Encrypt>a</Encrypt></xml>",
            Err(Flaw::Doctype),
        ),
    ] {
        assert_eq!(parse(body), expected, "{body}");
    }
    for format in [Format::Json, Format::Xml] {
        for body in ["", " ", "success", "[]", "\u{feff}", "a=b"] {
            assert!(Envelope::parse(format, body.as_bytes()).is_err(), "{body}");
        }
        let huge = vec![b' '; MAX_LEN + 1];
        assert_eq!(Envelope::parse(format, &huge).err(), Some(Flaw::Size));
        let binary = Envelope::parse(format, b"{\"a\":\"\xff\"}");
        assert_eq!(binary.err(), Some(Flaw::Encoding));
    }
}

#[test]
fn the_format_is_told_by_the_first_character() {
    for (body, expected) in [
        (&b"<xml>"[..], Some(Format::Xml)),
        (b"\xEF\xBB\xBF<xml>", Some(Format::Xml)),
        (b"\r\n\t <xml>", Some(Format::Xml)),
        (b"{", Some(Format::Json)),
        (b"\xEF\xBB\xBF \n{", Some(Format::Json)),
        (b" \xEF\xBB\xBF{", Some(Format::Json)),
        (b"", None),
        (b"[]", None),
        (b"success", None),
        (b"\xff\xfe<\0", None),
        (b"\0<", None),
    ] {
        assert_eq!(Format::of(body), expected, "{}", body.escape_ascii());
    }
    assert_eq!((Format::Xml.label(), Format::Json.label()), ("xml", "json"));
    assert_eq!(Format::Json.content_type(), "application/json");
}

#[test]
fn a_query_is_decoded_and_says_everything_once() {
    let query = Query::parse(
        "signature=ab&timestamp=1714036504&nonce=%31&&echostr=%3Cscript%3E+&x=1&x=2&openid=o-_&encrypt_type=aes&msg%5Fsignature=c",
    )
    .unwrap();
    assert_eq!(query.signature.as_deref(), Some("ab"));
    assert_eq!(query.nonce.as_deref(), Some("1"));
    assert_eq!(query.echostr.as_deref(), Some("<script>+"));
    assert_eq!(query.openid.as_deref(), Some("o-_"));
    assert_eq!(query.encrypt_type.as_deref(), Some("aes"));
    assert_eq!(query.msg_signature.as_deref(), Some("c"));
    assert_eq!(query.time(), Some(1_714_036_504));
    assert_eq!(Query::parse("").unwrap(), Query::default());
    for name in [
        "signature",
        "timestamp",
        "nonce",
        "echostr",
        "openid",
        "encrypt_type",
        "msg_signature",
    ] {
        let twice = format!("{name}=1&a&{}={name}", name.replace('n', "%6E"));
        assert_eq!(
            Query::parse(&twice),
            Err(Flaw::Duplicate(name.to_owned())),
            "{twice}"
        );
        assert!(Query::parse(&format!("{name}&{name}=")).is_err());
        assert_eq!(Query::parse(&format!("{name}=%ff")), Err(Flaw::Encoding));
    }
}

#[test]
fn a_time_is_digits() {
    for (text, expected) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("", None),
        ("+1", None),
        ("-1", None),
        ("1.0", None),
        (" 1", None),
        ("%D9%A1", None),
    ] {
        let query = format!("timestamp={text}");
        assert_eq!(Query::parse(&query).unwrap().time(), expected, "{text}");
    }
    assert_eq!(Query::default().time(), None);
}

#[test]
fn flaws_have_names_of_their_own_and_hide_what_a_stranger_wrote() {
    let flaws = [
        Flaw::Syntax(""),
        Flaw::Encoding,
        Flaw::Doctype,
        Flaw::Depth,
        Flaw::Size,
        Flaw::duplicate("a"),
        Flaw::NotAnObject,
        Flaw::Name,
        Flaw::Base64,
        Flaw::Length,
        Flaw::Padding,
        Flaw::Receiver,
    ];
    let mut labels: Vec<_> = flaws.iter().map(Flaw::label).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), flaws.len());
    assert_eq!(Flaw::Depth.to_string(), "it nests deeper than 32 levels");
    let long = Flaw::duplicate(&format!("a\r\n{}", "b".repeat(1000))).to_string();
    assert!(long.len() < 100 && !long.contains('\n'), "{long}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_sealed_opens(message in prop::collection::vec(any::<u8>(), 0..65_536), random: [u8; 16]) {
        let sealed = key().seal(random, &message, &appid());
        prop_assert_eq!(&key().open(&sealed, &appid()).unwrap()[..], &message[..]);
    }

    #[test]
    fn nothing_that_is_not_sealed_opens(data in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(key().open(&STANDARD.encode(&data), &appid()).is_err());
        prop_assert!(key().open(&String::from_utf8_lossy(&data), &appid()).is_err());
        // Nor what has been encrypted by somebody who knows the key, and is no message for us.
        let sealed = encrypt_padded(data);
        prop_assert!(key().open(&sealed, &appid()).is_err());
    }

    #[test]
    fn any_query_is_read_or_refused(query in "[a-z_=&%0-9+é]{0,80}") {
        if let Ok(query) = Query::parse(&query) {
            let _time = query.time();
        }
    }
}
