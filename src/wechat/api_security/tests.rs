//! The documentation's vectors, and answers as a platform of our own makes them.

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::*;
use crate::crypto::gcm::Cipher;
use crate::crypto::signature::{Certificate, Scheme};
use crate::wechat::endpoints;

const URL: &str = "https://api.weixin.qq.com/wxa/getuserriskrank";
const NOW: u64 = 1_700_000_000;

fn vector(name: &str) -> Value {
    let all = include_str!("../../../tests/vectors/api_security.json");
    let all: Vec<Value> = serde_json::from_str(all).unwrap();
    all.into_iter().find(|one| one["name"] == name).unwrap()
}

fn input<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector["inputs"][name].as_str().unwrap()
}

fn expected<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector["expected"][name].as_str().unwrap()
}

fn appid() -> AppId {
    AppId::parse("wxba6223c06417af7b").unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn numbered<K>(number: &str, key: K) -> Numbered<K> {
    let number = KeyNumber::parse(number).unwrap();
    Numbered { number, key }
}

fn symmetric(vector: &Value, cipher: Cipher) -> Numbered<Gcm> {
    let key = STANDARD.decode(input(vector, "sym_key")).unwrap();
    numbered(input(vector, "sym_sn"), Gcm::new(cipher, &key).unwrap())
}

fn private(scheme: Scheme, number: &str) -> Numbered<PrivateKey> {
    let name = match scheme {
        Scheme::RsaPss => "apisec-rsa-pss-request-signature",
        Scheme::Sm2 => "apisec-sm2-keypair",
    };
    let vector = vector(name);
    let pem = input(&vector, "private_key_pem");
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKey::parse(scheme, der.secret_der(), number).unwrap();
    numbered(number, key)
}

fn certificate(vector: &Value, number: &str) -> Numbered<PublicKey> {
    let pem = input(vector, "platform_certificate_pem");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    numbered(number, Certificate::parse(&der, number).unwrap().key)
}

/// The documentation's, as far as it has one.
fn documented() -> ApiSecurity {
    let response = vector("apisec-rsa-pss-response-signature");
    ApiSecurity {
        paths: Paths::All,
        symmetric: symmetric(&vector("apisec-aes256gcm-request"), Cipher::Aes256),
        private: private(Scheme::RsaPss, "97845f6ed842ea860df6fdf65941ff56"),
        certificates: vec![certificate(&response, input(&response, "cert_sn"))],
    }
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

#[test]
fn a_call_is_sealed_as_in_the_documentation() {
    let (text, signature) = (
        vector("apisec-aes256gcm-request"),
        vector("apisec-rsa-pss-request-signature"),
    );
    let plain = input(&text, "plaintext");
    let body = plain.find(r#""appid""#).unwrap();
    let body = format!("{{{}", &plain[body..]);
    let iv = STANDARD.decode(input(&text, "iv")).unwrap();
    let n = "o89QaPVsRu1yppIZzvSZc4";
    let now = at(1_635_927_954);
    let security = documented();
    let sealed = security
        .seal_with(
            &appid(),
            &request(body.as_bytes()),
            now,
            n,
            iv.try_into().unwrap(),
        )
        .unwrap();
    assert_eq!(sealed.body, expected(&text, "body").as_bytes());

    let call = Call {
        url: URL,
        appid: &appid(),
        timestamp: "1635927954",
    };
    assert_eq!(
        call.aad(&security.symmetric.number),
        input(&text, "aad").as_bytes()
    );
    let signed = input(&signature, "to_be_signed").as_bytes();
    assert_eq!(call.signed(&sealed.body), signed);
    let public = security.private.key.public();
    let [appid, timestamp, serial, ours] = &sealed.headers;
    for theirs in [expected(&signature, "signature"), ours.1.to_str().unwrap()] {
        assert!(public.verifies(signed, &STANDARD.decode(theirs).unwrap()));
    }
    assert_eq!(appid.1, "wxba6223c06417af7b");
    assert_eq!(timestamp.1, "1635927954");
    assert_eq!(serial.1, "97845f6ed842ea860df6fdf65941ff56");
    let names = [&appid.0, &timestamp.0, &serial.0, &ours.0];
    let documented = [
        "Wechatmp-Appid",
        "Wechatmp-TimeStamp",
        "Wechatmp-Serial",
        "Wechatmp-Signature",
    ];
    for (name, documented) in names.into_iter().zip(documented) {
        assert!(name.as_str().eq_ignore_ascii_case(documented));
    }
}

#[test]
fn an_answer_is_opened_as_in_the_documentation() {
    let (text, signature) = (
        vector("apisec-aes256gcm-response"),
        vector("apisec-rsa-pss-response-signature"),
    );
    let headers = headers(&[
        ("Wechatmp-AppId", "wxba6223c06417af7b"),
        ("Wechatmp-TimeStamp", "1635927956"),
        ("Wechatmp-Serial", input(&signature, "cert_sn")),
        ("Wechatmp-Signature", expected(&signature, "signature")),
        (
            "Wechatmp-Serial-Deprecated",
            "2171af9cdf1d7404423852e7e183d852",
        ),
        ("Wechatmp-Signature-Deprecated", "ZP1O"),
    ]);
    let body = input(&signature, "body");
    for part in ["iv", "data", "authtag"] {
        assert!(body.contains(input(&text, part)));
    }
    let open =
        |body: &str, now| documented().open(&appid(), URL, &headers, body.as_bytes(), at(now));
    let opened = open(body, 1_635_927_956).unwrap();
    let plain = expected(&text, "plaintext");
    let rest = plain.find(r#""errcode""#).unwrap();
    assert_eq!(opened.body, format!("{{{}", &plain[rest..]).as_bytes());
    assert!(!opened.by_deprecated_certificate);
    assert_eq!(
        open(&format!("{body}\n"), 1_635_927_956),
        Err(Refused::Signature)
    );
    assert_eq!(open(body, 1_635_928_257), Err(Refused::Stale));
}

#[test]
fn an_answer_by_sm4_and_sm2_is_opened_as_in_the_documentation() {
    let (text, signature) = (
        vector("apisec-sm4gcm"),
        vector("apisec-sm2withsm3-signature"),
    );
    let number = input(&signature, "sm2_id");
    let security = ApiSecurity {
        paths: Paths::All,
        symmetric: symmetric(&text, Cipher::Sm4),
        private: private(Scheme::Sm2, number),
        certificates: vec![certificate(&signature, number)],
    };
    let headers = headers(&[
        ("wechatmp-appid", "wxba6223c06417af7b"),
        ("wechatmp-timestamp", "1692932963"),
        ("wechatmp-serial", number),
        (
            "wechatmp-signature",
            expected(&signature, "signature_der_base64"),
        ),
    ]);
    let body = input(&signature, "body").as_bytes();
    let opened = security.open(&appid(), URL, &headers, body, at(1_692_932_963));
    let plain = expected(&text, "plaintext");
    let rest = plain.find(r#","_n""#).unwrap();
    assert_eq!(
        opened.unwrap().body,
        format!("{}}}", &plain[..rest]).as_bytes()
    );
}

#[test]
fn a_call_by_sm4_and_sm2_is_signed_for_the_number_of_our_key() {
    let security = ApiSecurity {
        symmetric: symmetric(&vector("apisec-sm4gcm"), Cipher::Sm4),
        private: private(Scheme::Sm2, "0123456789abcdef"),
        ..documented()
    };
    let sealed = security.seal(&appid(), &request(b"{}"), at(NOW), &NONCES);
    let sealed = sealed.unwrap();
    let signature = STANDARD.decode(&sealed.headers[3].1).unwrap();
    let signed = [
        format!("{URL}\nwxba6223c06417af7b\n{NOW}\n").as_bytes(),
        &sealed.body,
    ]
    .concat();
    assert!(security.private.key.public().verifies(&signed, &signature));
    let other = private(Scheme::Sm2, "1234567812345678").key.public();
    assert!(!other.verifies(&signed, &signature));
}

const NONCES: Nonces = Nonces {
    n: [7; 16],
    iv: [9; NONCE_LEN],
};

fn request(body: &[u8]) -> Request<'_> {
    Request {
        url: URL,
        query: &[],
        body,
    }
}

/// What WeChat would read of a call.
fn read(sealed: &Sealed) -> String {
    let security = documented();
    let envelope = Envelope::read(&sealed.body).unwrap();
    let aad = format!("{URL}|wxba6223c06417af7b|{NOW}|fa05fe1e5bcc79b81ad5ad4b58acf787");
    let mut text = [envelope.data, envelope.tag.to_vec()].concat();
    let plain = security
        .symmetric
        .key
        .open(envelope.iv, aad.as_bytes(), &mut text);
    String::from_utf8(plain.unwrap().to_vec()).unwrap()
}

#[test]
fn all_parameters_are_encrypted_as_they_are_and_the_access_token_is_not() {
    let seal = |query: &[(&str, &str)], body: &str| {
        let request = Request {
            url: URL,
            query,
            body: body.as_bytes(),
        };
        read(
            &documented()
                .seal(&appid(), &request, at(NOW), &NONCES)
                .unwrap(),
        )
    };
    let ours =
        r#"{"_n":"BwcHBwcHBwcHBwcHBwcHBw","_appid":"wxba6223c06417af7b","_timestamp":1700000000"#;
    assert_eq!(seal(&[], ""), format!("{ours}}}"));
    assert_eq!(seal(&[], " {} \n"), format!("{ours}}}"));
    let query = [("access_token", "t"), ("b", r#"1&"二"#), ("a", "")];
    let body = r#" {"z" : 12345678901234567890.10, "\u0061b":{"z":1,"z":2}, "y":"你好\/"} "#;
    let expected = r#","b":"1&\"二","a":"","z" : 12345678901234567890.10,"\u0061b":{"z":1,"z":2},"y":"你好\/"}"#;
    assert_eq!(seal(&query, body), format!("{ours}{expected}"));
}

#[test]
fn a_call_that_could_be_read_two_ways_is_not_sealed() {
    let refused = |query: &[(&str, &str)], body: &[u8]| {
        let request = Request {
            url: URL,
            query,
            body,
        };
        documented()
            .seal(&appid(), &request, at(NOW), &NONCES)
            .unwrap_err()
    };
    for body in [
        &b"x"[..],
        b"[]",
        b"1",
        br#"{"a":1}}"#,
        br#"{"a":1},"b":{}"#,
        br#"{"a":1"#,
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\xff\"}",
        b"--x\r\nContent-Disposition: form-data; name=\"media\"\r\n\r\n",
    ] {
        assert_eq!(refused(&[], body), Unsealable::NotAnObject);
    }
    for (query, body) in [
        (&[("a", "1")][..], &br#"{"\u0061":1}"#[..]),
        (&[("a", "1"), ("a", "1")], b""),
        (&[], br#"{"a":1,"b":2,"a":1}"#),
    ] {
        assert_eq!(refused(query, body), Unsealable::Twice);
    }
    for name in OURS {
        let query = [(name, "1")];
        assert_eq!(refused(&query, b""), Unsealable::Reserved);
        let body = format!(r#"{{"a":1,"{name}":1}}"#);
        assert_eq!(refused(&[], body.as_bytes()), Unsealable::Reserved);
    }
    assert_eq!(refused(&[], br#"{"\u005fn":1}"#), Unsealable::Reserved);
}

/// WeChat, as far as these tests need it. Its private key is ours of the documentation.
struct Platform {
    appid: &'static str,
    url: &'static str,
    seconds: u64,
    plain: String,
}

impl Platform {
    fn new(plain: &str) -> Self {
        Self {
            appid: "wxba6223c06417af7b",
            url: URL,
            seconds: NOW,
            plain: plain.to_owned(),
        }
    }

    /// With the three members that encryption adds.
    fn answering(rest: &str) -> Self {
        let ours = r#""_n":"x","_appid":"wxba6223c06417af7b","_timestamp":1700000000"#;
        let comma = if rest.is_empty() { "" } else { "," };
        Self::new(&format!("{{{ours}{comma}{rest}}}"))
    }

    fn encrypted(&self) -> String {
        let Self {
            url,
            appid,
            seconds,
            ..
        } = self;
        let aad = format!("{url}|{appid}|{seconds}|fa05fe1e5bcc79b81ad5ad4b58acf787");
        let mut text = self.plain.clone().into_bytes();
        let key = documented().symmetric.key;
        key.seal([5; NONCE_LEN], aad.as_bytes(), &mut text);
        let (data, tag) = text.split_last_chunk::<TAG_LEN>().unwrap();
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        serde_json::json!({ "iv": text(&[5; NONCE_LEN]), "data": text(data), "authtag": text(tag) })
            .to_string()
    }

    fn headers(&self, body: &str) -> HeaderMap {
        let Self {
            url,
            appid,
            seconds,
            ..
        } = self;
        let signed = format!("{url}\n{appid}\n{seconds}\n{body}");
        let signature = private(Scheme::RsaPss, "x").key.sign(signed.as_bytes());
        headers(&[
            ("Wechatmp-Appid", appid),
            ("Wechatmp-TimeStamp", &seconds.to_string()),
            ("Wechatmp-Serial", "new"),
            ("Wechatmp-Signature", &STANDARD.encode(signature)),
        ])
    }

    fn opened(&self) -> Result<Opened, Refused> {
        let body = self.encrypted();
        open(&self.headers(&body), &body)
    }
}

/// Trusts [`Platform`]'s certificate "new".
fn trusting(number: &str) -> ApiSecurity {
    ApiSecurity {
        certificates: vec![
            numbered("other", private(Scheme::Sm2, "other").key.public()),
            numbered(number, private(Scheme::RsaPss, "x").key.public()),
        ],
        ..documented()
    }
}

fn open(headers: &HeaderMap, body: &str) -> Result<Opened, Refused> {
    trusting("new").open(&appid(), URL, headers, body.as_bytes(), at(NOW))
}

#[test]
fn what_is_opened_is_what_was_encrypted_less_what_encryption_added() {
    for rest in [
        "",
        r#""errcode":0"#,
        r#""z":12345678901234567890,"a":1.0,"e":1E400"#,
        r#""a": [1,  2],"a":"\u4f60\/""#,
        "\"text\":\"a raw \u{1} and \n \u{7f}\",\"b\":1",
        r#""nested":{"_n":1,"_appid":2}"#,
    ] {
        let opened = Platform::answering(rest).opened().unwrap();
        assert_eq!(str::from_utf8(&opened.body).unwrap(), format!("{{{rest}}}"));
    }
    let around = "\u{20}{\"a\":1 , \"_timestamp\":1700000000,\"\\u005fappid\":\"wxba6223c06417af7b\"\n,\"b\":2}";
    let opened = Platform::new(around).opened().unwrap();
    assert_eq!(opened.body, br#"{"a":1,"b":2}"#);
}

#[test]
fn while_the_certificate_changes_the_old_one_is_good_and_that_is_told() {
    let platform = Platform::answering("");
    let body = platform.encrypted();
    let mut headers = platform.headers(&body);
    let signature = headers.remove("wechatmp-signature").unwrap();
    headers.insert(SERIAL, HeaderValue::from_static("newer"));
    headers.insert(SIGNATURE, HeaderValue::from_static("AAAA"));
    headers.insert(SERIAL_DEPRECATED, HeaderValue::from_static("new"));
    assert_eq!(
        open(&headers, &body),
        Err(Refused::Header("Wechatmp-Signature-Deprecated"))
    );
    headers.insert(SIGNATURE_DEPRECATED, signature);
    assert!(open(&headers, &body).unwrap().by_deprecated_certificate);
    headers.insert(SIGNATURE_DEPRECATED, HeaderValue::from_static("AAAA"));
    assert_eq!(open(&headers, &body), Err(Refused::Signature));
    headers.insert(SERIAL_DEPRECATED, HeaderValue::from_static("newest"));
    assert_eq!(open(&headers, &body), Err(Refused::Certificate));
}

#[test]
fn an_answer_in_clear_is_a_failure_whatever_it_says() {
    let told = |body| open(&HeaderMap::new(), body).unwrap_err();
    let body = r#"{"errcode":40234,"errmsg":"invalid signature"}"#;
    assert_eq!(told(body), Refused::Errcode(40234));
    assert_eq!(told(r#"{"errcode":"42001"}"#), Refused::Errcode(42001));
    for body in [
        r#"{"errcode":0,"errmsg":"ok"}"#,
        r#"{"risk_rank":0}"#,
        r#"{"errcode":null}"#,
        "\u{89}PNG",
        "",
    ] {
        assert_eq!(told(body), Refused::NotSigned, "{body}");
    }
    let body = Platform::answering("").encrypted();
    assert_eq!(told(&body), Refused::NotSigned);
}

#[test]
fn an_answer_is_checked_in_the_documented_order() {
    let platform = Platform::answering("");
    let body = platform.encrypted();
    let good = platform.headers(&body);
    assert!(open(&good, &body).is_ok());
    // Each step leaves the answer wrong in one way less than the one before it.
    let mut headers = HeaderMap::new();
    headers.insert(SIGNATURE, HeaderValue::from_static("?"));
    assert_eq!(open(&headers, "x"), Err(Refused::Header("Wechatmp-Appid")));
    headers.insert(APPID, HeaderValue::from_static("wx0123456789abcdef"));
    assert_eq!(open(&headers, "x"), Err(Refused::AppId));
    headers.insert(APPID, good[APPID].clone());
    let no_time = Err(Refused::Header("Wechatmp-TimeStamp"));
    assert_eq!(open(&headers, "x"), no_time);
    headers.insert(TIMESTAMP, HeaderValue::from_static("1700000000.0"));
    assert_eq!(open(&headers, "x"), no_time);
    headers.insert(TIMESTAMP, HeaderValue::from_static("1699999699"));
    assert_eq!(open(&headers, "x"), Err(Refused::Stale));
    headers.insert(TIMESTAMP, good[TIMESTAMP].clone());
    assert_eq!(open(&headers, "x"), Err(Refused::Header("Wechatmp-Serial")));
    headers.insert(SERIAL, HeaderValue::from_static("unknown"));
    assert_eq!(open(&headers, "x"), Err(Refused::Certificate));
    headers.insert(SERIAL, HeaderValue::from_static("other"));
    assert_eq!(open(&headers, "x"), Err(Refused::Signature));
    headers.insert(SERIAL, good[SERIAL].clone());
    assert_eq!(open(&headers, "x"), Err(Refused::Signature));
    headers.insert(SIGNATURE, good[SIGNATURE].clone());
    assert_eq!(open(&headers, "x"), Err(Refused::Signature));
    assert!(open(&headers, &body).is_ok());

    for body in [
        "{}",
        r#"{"errcode":0}"#,
        r#"{"iv":"","data":"","authtag":""}"#,
        "PNG",
    ] {
        let headers = platform.headers(body);
        assert_eq!(open(&headers, body), Err(Refused::NotEncrypted), "{body}");
    }
    let earlier = Platform {
        seconds: NOW - 1,
        ..Platform::answering("")
    };
    let replayed = platform.headers(&earlier.encrypted());
    let undecryptable = open(&replayed, &earlier.encrypted());
    assert_eq!(undecryptable, Err(Refused::Undecryptable));
}

#[test]
fn an_answer_to_another_call_or_for_another_app_is_refused() {
    let elsewhere = Platform {
        url: "https://api.weixin.qq.com/wxa/msg_sec_check",
        ..Platform::answering("")
    };
    assert_eq!(elsewhere.opened(), Err(Refused::Signature));
    let old = |age: u64| {
        let mut platform = Platform::answering("");
        platform.seconds = NOW - age;
        platform.plain = platform
            .plain
            .replace("1700000000", &(NOW - age).to_string());
        platform.opened().err()
    };
    assert_eq!(old(300), None);
    assert_eq!(old(301), Some(Refused::Stale));
    for plain in [
        "",
        "[]",
        "{}",
        r#"{"_appid":"wxba6223c06417af7b"}"#,
        r#"{"_timestamp":1700000000}"#,
        r#"{"_appid":"wxba6223c06417af7b","_timestamp":1700000001}"#,
        r#"{"_appid":"wxba6223c06417af7b","_timestamp":"1700000000"}"#,
        r#"{"_appid":"wx0123456789abcdef","_timestamp":1700000000}"#,
        r#"{"_appid":"wxba6223c06417af7b","_timestamp":1700000000,"_timestamp":1700000000}"#,
    ] {
        assert_eq!(
            Platform::new(plain).opened(),
            Err(Refused::Content),
            "{plain}"
        );
    }
}

#[test]
fn the_known_apis_are_paths_and_stand_once() {
    let mut all = [&DOCUMENTED[..], &DEMANDED].concat();
    for path in &all {
        assert_eq!(endpoints::label(path), *path);
        assert!(Paths::All.contain(path) && is_known(path));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 50);
    assert!(!Paths::All.contain("/wxa/img_sec_check"));
    assert_eq!(url_of("/wxa/getuserriskrank"), URL);
    let these = Paths::These(vec!["/wxa/x".to_owned()]);
    assert!(these.contain("/wxa/x") && !these.contain("/wxa/plugin"));
}

#[test]
fn a_keys_number_cannot_break_what_is_signed() {
    assert!(KeyNumber::parse("fa05fe1e5bcc79b81ad5ad4b58acf787").is_ok());
    for bad in ["", "a|b", "a\nb", "a b", "é", "78:4F:98", &"a".repeat(65)] {
        assert!(KeyNumber::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn no_key_is_printed() {
    let printed = format!("{:?}", documented());
    let (gcm, rsa) = ("Gcm { cipher: Aes256, .. }", "PrivateKey(RsaPss)");
    assert!(printed.contains(gcm) && printed.contains(rsa), "{printed}");
    assert_eq!(documented(), documented());
    assert_ne!(documented(), trusting("new"));
}

proptest! {
    // Each signs.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_answer_makes_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..64),
        plain in prop_oneof!["\\{(\"(_n|_appid|_timestamp|a)\":(1|\"\u{1}\"|\\{\\}),?){0,4}\\}", any::<String>()],
    ) {
        let platform = Platform::new(&plain);
        let text = String::from_utf8_lossy(&body);
        let _ = open(&platform.headers(&text), &text);
        let _ = platform.opened();
    }

    #[test]
    fn every_object_can_be_sealed_and_comes_through(
        fields in proptest::collection::btree_map("[a-z\"\\\\你]{1,6}", any::<(i64, String)>(), 0..5),
    ) {
        let body = serde_json::to_string(&fields).unwrap();
        let sealed = documented().seal(&appid(), &request(body.as_bytes()), at(NOW), &NONCES).unwrap();
        let plain = read(&sealed);
        prop_assert!(plain.ends_with(&body[1..]));
        let opened = Platform::new(&plain).opened().unwrap();
        prop_assert_eq!(opened.body, body.as_bytes());
    }
}
