//! Both sides against each other: what `wechat` seals is opened here, and what is sealed here is opened there.

use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::crypto::gcm::Cipher;
use crate::crypto::signature::Scheme;
use crate::domain::AppId;
use crate::secret::Secret;
use crate::sim::exchange::{Outcome, receive};
use crate::sim::state::{CodeKind, SimApp};
use crate::wechat::api_security as ours;

const PHONE: &str = "/wxa/business/getuserphonenumber";
const URL: &str = "https://api.weixin.qq.com/wxa/business/getuserphonenumber";
const APP: &str = "wx0123456789abcdef";
const OTHER_APP: &str = "wxfedcba9876543210";

/// Of the documentation's key pair.
const SM2_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAEFzc+mfwshF7tv3hUEdgye8LcMr6d\nZcBDXFAcQRJouSCJndP7mHZsV1j54Yy3Ewtan09HMhce9cW7BJjCKoV2Mg==\n-----END PUBLIC KEY-----\n";

fn private(scheme: Scheme, number: &str) -> PrivateKey {
    let name = match scheme {
        Scheme::RsaPss => "apisec-rsa-pss-request-signature",
        Scheme::Sm2 => "apisec-sm2-keypair",
    };
    let all = include_str!("../../../tests/vectors/api_security.json");
    let all: Vec<Value> = serde_json::from_str(all).unwrap();
    let vector = all.iter().find(|one| one["name"] == name).unwrap();
    let pem = vector["inputs"]["private_key_pem"].as_str().unwrap();
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    PrivateKey::parse(scheme, der.secret_der(), number).unwrap()
}

fn symmetric(cipher: Cipher) -> Gcm {
    Gcm::new(cipher, &vec![7; cipher.key_len()]).unwrap()
}

fn key<K>(number: &str, key: K) -> SimKey<K> {
    let number = number.to_owned();
    SimKey { number, key }
}

/// What WeChat knows. Its own keys are those of the app under other numbers: the vectors have no others.
fn theirs(cipher: Cipher, scheme: Scheme) -> ApiSecurity {
    ApiSecurity {
        symmetric: Some(key("sym", symmetric(cipher))),
        application: Some(key("app", private(scheme, "app").public())),
        platform: key("new", private(scheme, "new")),
        deprecated: None,
        wants_serial: false,
    }
}

fn numbered<K>(number: &str, key: K) -> ours::Numbered<K> {
    let number = ours::KeyNumber::parse(number).unwrap();
    ours::Numbered { number, key }
}

/// What the app knows.
fn ours(cipher: Cipher, scheme: Scheme) -> ours::ApiSecurity {
    ours::ApiSecurity {
        paths: ours::Paths::All,
        symmetric: numbered("sym", symmetric(cipher)),
        private: numbered("app", private(scheme, "app")),
        certificates: vec![numbered("new", private(scheme, "new").public())],
    }
}

fn appid() -> AppId {
    AppId::parse(APP).unwrap()
}

/// A simulator of one app that has API security and another one.
struct World {
    state: State,
    token: String,
    ours: ours::ApiSecurity,
}

/// A call on its way.
struct Call {
    url: String,
    request: Request,
}

impl World {
    fn new(theirs: ApiSecurity) -> Self {
        Self::with(theirs, ours(Cipher::Aes256, Scheme::RsaPss))
    }

    fn with(theirs: ApiSecurity, ours: ours::ApiSecurity) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
        let mut app = SimApp::new(appid(), Secret::new("s"));
        app.api_security = Some(Arc::new(theirs));
        let other = SimApp::new(AppId::parse(OTHER_APP).unwrap(), Secret::new("t"));
        let mut state = State::new(clock, 0, vec![app, other]);
        let token = state.token(0).access_token;
        Self { state, token, ours }
    }

    fn usual() -> Self {
        Self::new(theirs(Cipher::Aes256, Scheme::RsaPss))
    }

    fn phone_code(&mut self) -> String {
        let code = self.state.issue_code(0, "alice", CodeKind::Phone);
        json!({ "code": code }).to_string()
    }

    /// Seals a call as the sidecar does.
    fn seal(&self, url: &str, query: &[(&str, &str)], body: &str) -> Call {
        let plain = ours::Request {
            url,
            query,
            body: body.as_bytes(),
        };
        let nonces = ours::Nonces {
            n: random(),
            iv: random(),
        };
        let sealed = self.ours.seal(&appid(), &plain, self.state.now(), &nonces);
        let sealed = sealed.unwrap();
        let path = &url["https://".len()..];
        let path = &path[path.find('/').unwrap()..];
        let mut request = self.plain(Method::POST, path, &sealed.body);
        request.headers.extend(sealed.headers);
        Call {
            url: url.to_owned(),
            request,
        }
    }

    fn plain(&self, method: Method, path: &str, body: &[u8]) -> Request {
        let query = vec![("access_token".to_owned(), self.token.clone())];
        Request {
            query: Query::of(query),
            ..Request::of(method, path, body)
        }
    }

    fn receive(&mut self, request: &Request) -> Answer {
        match receive(&mut self.state, request.clone()).outcome {
            Outcome::Answer(answer) => answer,
            _ => panic!("an answer was due"),
        }
    }

    /// What the sidecar makes of the answer.
    fn exchange(&mut self, call: &Call) -> Result<ours::Opened, ours::Refused> {
        let answer = self.receive(&call.request);
        let now = self.state.now();
        self.ours
            .open(&appid(), &call.url, &answer.headers, &answer.body, now)
    }

    /// The errcode of an answer in clear.
    fn refused(&mut self, call: &Call) -> Option<i64> {
        let answer = self.receive(&call.request);
        assert!(answer.headers.is_empty());
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["errcode"].as_i64(), answer.errcode);
        answer.errcode
    }
}

fn json_of(opened: &ours::Opened) -> Value {
    serde_json::from_slice(&opened.body).unwrap()
}

#[test]
fn a_call_goes_there_and_back_by_either_family_of_algorithms() {
    for cipher in [Cipher::Aes256, Cipher::Sm4] {
        for scheme in [Scheme::RsaPss, Scheme::Sm2] {
            let mut world = World::with(theirs(cipher, scheme), ours(cipher, scheme));
            let body = world.phone_code();
            let call = world.seal(URL, &[], &body);
            let on_the_wire = String::from_utf8_lossy(&call.request.body);
            assert!(!on_the_wire.contains("code"), "{on_the_wire}");
            let opened = world.exchange(&call).unwrap();
            let told = json_of(&opened);
            let number = world.state.phone_number("alice");
            assert_eq!(told["phone_info"]["purePhoneNumber"], json!(number));
            assert_eq!(told["errcode"], json!(0));
            assert!(told.get("_n").is_none() && !opened.by_deprecated_certificate);

            // The code is spent now, and that is told no less secretly.
            let again = world.seal(URL, &[], &body);
            let opened = world.exchange(&again).unwrap();
            assert_eq!(json_of(&opened)["errcode"], json!(40029));
        }
    }
}

#[test]
fn while_the_certificate_changes_both_of_them_verify() {
    let rotating = || ApiSecurity {
        deprecated: Some(key("old", private(Scheme::Sm2, "old"))),
        ..theirs(Cipher::Aes256, Scheme::RsaPss)
    };
    for (number, scheme, is_deprecated) in
        [("new", Scheme::RsaPss, false), ("old", Scheme::Sm2, true)]
    {
        let mut world = World::new(rotating());
        let known = numbered(number, private(scheme, number).public());
        world.ours.certificates = vec![known];
        let call = world.seal(URL, &[], r#"{"code":"x"}"#);
        let opened = world.exchange(&call).unwrap();
        assert_eq!(opened.by_deprecated_certificate, is_deprecated);
        assert_eq!(json_of(&opened)["errcode"], json!(40029));
    }
    let mut world = World::new(rotating());
    world.ours.certificates = vec![numbered("older", private(Scheme::Sm2, "older").public())];
    let call = world.seal(URL, &[], "{}");
    assert_eq!(world.exchange(&call), Err(ours::Refused::Certificate));
}

#[test]
fn each_header_that_is_missing_has_its_errcode() {
    let mut world = World::new(ApiSecurity {
        wants_serial: true,
        ..theirs(Cipher::Aes256, Scheme::RsaPss)
    });
    let mut call = world.seal(URL, &[], "{}");
    let mut headers = std::mem::take(&mut call.request.headers);
    for (name, errcode) in [
        (SERIAL, 40230),
        (TIMESTAMP, 40231),
        (SIGNATURE, 40232),
        (APPID, 40233),
    ] {
        assert_eq!(world.refused(&call), Some(errcode));
        let value = headers.remove(&name).unwrap();
        call.request.headers.insert(name, value);
    }
    assert!(world.exchange(&call).is_ok());
    call.request
        .headers
        .insert(SERIAL, HeaderValue::from_static("another"));
    assert_eq!(world.refused(&call), Some(40234));

    let mut world = World::usual();
    let mut call = world.seal(URL, &[], "{}");
    call.request.headers.remove(SERIAL);
    assert!(world.exchange(&call).is_ok(), "it is not asked for");
    call.request.headers.clear();
    let refused = world.exchange(&call);
    assert_eq!(refused, Err(ours::Refused::Errcode(40231)));
}

#[test]
fn what_is_wrong_has_its_errcode() {
    let appid_of = |appid: &'static str| {
        move |call: &mut Call| {
            let value = HeaderValue::from_static(appid);
            call.request.headers.insert(APPID, value);
        }
    };
    let at = |seconds: u64| {
        move |call: &mut Call| {
            let value = HeaderValue::from(seconds);
            call.request.headers.insert(TIMESTAMP, value);
        }
    };
    type Spoil = Box<dyn Fn(&mut Call)>;
    let wrongs: [(&str, Spoil, i64); 10] = [
        ("an unknown app", Box::new(appid_of("wx00")), 40236),
        ("another app", Box::new(appid_of(OTHER_APP)), 40237),
        (
            "a GET",
            Box::new(|call| call.request.method = Method::GET),
            43002,
        ),
        ("too old", Box::new(at(1_700_000_040 - 301)), 40240),
        ("too far ahead", Box::new(at(1_700_000_040 + 301)), 40240),
        ("another time", Box::new(at(1_700_000_041)), 40234),
        (
            "another path",
            Box::new(|call| call.request.path = "/wxa/plugin".to_owned()),
            40234,
        ),
        (
            "another body",
            Box::new(|call| call.request.body = Bytes::from("{}")),
            40234,
        ),
        (
            "no signature",
            Box::new(|call| {
                let value = HeaderValue::from_static("bm8=");
                call.request.headers.insert(SIGNATURE, value);
            }),
            40234,
        ),
        (
            "not base64",
            Box::new(|call| {
                let value = HeaderValue::from_static("?");
                call.request.headers.insert(SIGNATURE, value);
            }),
            40234,
        ),
    ];
    for (what, spoil, errcode) in wrongs {
        let mut world = World::usual();
        let mut call = world.seal(URL, &[], "{}");
        spoil(&mut call);
        assert_eq!(world.refused(&call), Some(errcode), "{what}");
    }
    let mut world = World::usual();
    let call = world.seal(URL, &[], "{}");
    world.state.advance(Duration::from_secs(300));
    assert!(world.exchange(&call).is_ok(), "just in time");
    world.state.advance(Duration::from_secs(1));
    assert_eq!(world.refused(&call), Some(40240));
}

#[test]
fn without_a_key_of_the_app_nothing_is_opened() {
    let usual = || theirs(Cipher::Aes256, Scheme::RsaPss);
    let no_symmetric = ApiSecurity {
        symmetric: None,
        ..usual()
    };
    let no_public = ApiSecurity {
        application: None,
        ..usual()
    };
    for (theirs, errcode) in [(no_symmetric, 40238), (no_public, 40239)] {
        let mut world = World::new(theirs);
        let call = world.seal(URL, &[], "{}");
        assert_eq!(world.refused(&call), Some(errcode));
    }
    let mut world = World::usual();
    world.state.apps[0].known.api_security = None;
    let call = world.seal(URL, &[], "{}");
    assert_eq!(world.refused(&call), Some(40238), "an app without any");
}

#[test]
fn another_key_is_told_from_another_ciphertext() {
    let usual = || theirs(Cipher::Aes256, Scheme::RsaPss);
    let mut world = World::new(ApiSecurity {
        application: Some(key("app", private(Scheme::Sm2, "app").public())),
        ..usual()
    });
    let call = world.seal(URL, &[], "{}");
    assert_eq!(world.refused(&call), Some(40234));
    for (number, byte) in [("sym", 8), ("mys", 7)] {
        let other = Gcm::new(Cipher::Aes256, &[byte; 32]).unwrap();
        let mut world = World::new(ApiSecurity {
            symmetric: Some(key(number, other)),
            ..usual()
        });
        let call = world.seal(URL, &[], "{}");
        assert_eq!(world.refused(&call), Some(40235), "{number}");
    }
}

#[test]
fn what_is_signed_must_be_encrypted_and_of_this_call() {
    let mut world = World::usual();
    let seconds = world.state.now().as_secs();
    let mut sign = |body: String| {
        let signed = signed(URL, APP, &seconds.to_string(), body.as_bytes());
        let mut call = world.seal(URL, &[], "{}");
        let signature = STANDARD.encode(world.ours.private.key.sign(&signed));
        let signature = HeaderValue::from_str(&signature).unwrap();
        call.request.headers.insert(SIGNATURE, signature);
        call.request.body = Bytes::from(body);
        world.receive(&call.request).errcode
    };
    for body in ["", "{}", "[]", r#"{"iv":"","data":"","authtag":""}"#] {
        assert_eq!(sign(body.to_owned()), Some(40235), "{body}");
    }
    let mut encrypt = |plain: &str| {
        let mut text = plain.as_bytes().to_vec();
        let aad = format!("{URL}|{APP}|{seconds}|sym");
        symmetric(Cipher::Aes256).seal([1; NONCE_LEN], aad.as_bytes(), &mut text);
        let tag = text.split_off(text.len() - 16);
        let [iv, data, authtag] = [&[1; NONCE_LEN][..], &text, &tag].map(|it| STANDARD.encode(it));
        sign(json!({ "iv": iv, "data": data, "authtag": authtag }).to_string())
    };
    for plain in [
        "",
        "[]",
        "{}",
        r#"{"_appid":"wx0123456789abcdef","_timestamp":1700000040}"#,
        r#"{"_n":"","_appid":"wx0123456789abcdef","_timestamp":1700000040}"#,
        r#"{"_n":"n","_appid":"wxfedcba9876543210","_timestamp":1700000040}"#,
        r#"{"_n":"n","_appid":"wx0123456789abcdef","_timestamp":"1700000040"}"#,
        r#"{"_n":"n","_appid":"wx0123456789abcdef","_timestamp":1700000041}"#,
    ] {
        assert_eq!(encrypt(plain), Some(40235), "{plain}");
    }
    let good = r#"{"_n":"n","_appid":"wx0123456789abcdef","_timestamp":1700000040,"code":"x"}"#;
    assert_eq!(encrypt(good), Some(40029));
}

#[test]
fn a_token_is_refused_in_clear_before_anything_else() {
    let mut world = World::usual();
    let mut call = world.seal(URL, &[], "{}");
    call.request.query = Query::of(Vec::new());
    assert_eq!(world.refused(&call), Some(41001));
    call.request.query = Query::parse("access_token=92_x");
    assert_eq!(world.exchange(&call), Err(ours::Refused::Errcode(40014)));
}

#[test]
fn only_supported_apis_of_apps_that_have_it_are_encrypted() {
    let mut world = World::usual();
    let plain = world.plain(Method::GET, "/cgi-bin/get_api_domain_ip", b"");
    let answer = world.receive(&plain);
    assert!(answer.errcode.is_none() && answer.headers.is_empty());
    let leave = "https://api.weixin.qq.com/cgi-bin/express/intracity/apply";
    let call = world.seal(leave, &[], "{}");
    assert!(matches!(open(&world.state, &call.request), Ok(None)));

    world.token = world.state.token(1).access_token;
    let plain = world.plain(Method::POST, PHONE, br#"{"code":"x"}"#);
    let answer = world.receive(&plain);
    assert!(answer.errcode == Some(40029) && answer.headers.is_empty());
}

#[test]
fn both_sides_know_the_same_apis() {
    for path in ours::DOCUMENTED.iter().chain(&ours::DEMANDED) {
        assert!(is_supported(path), "{path}");
    }
    assert_eq!(SUPPORTED.len(), ours::DOCUMENTED.len());
    assert!(SUPPORTED.iter().all(|path| ours::is_known(path)));
}

#[test]
fn a_caller_may_know_the_simulator_by_the_host_it_asked_for() {
    let mut world = World::usual();
    for url in ["http://127.0.0.1:9902", "https://sim.local"] {
        let url = format!("{url}{PHONE}");
        let mut call = world.seal(&url, &[], r#"{"code":"x"}"#);
        call.request.path = PHONE.to_owned();
        assert_eq!(world.refused(&call), Some(40234), "nobody said so");
        let (_, host) = url.split_once("://").unwrap();
        let host = host.strip_suffix(PHONE).unwrap();
        let host = HeaderValue::from_str(host).unwrap();
        call.request.headers.insert(HOST, host);
        assert!(world.exchange(&call).is_ok(), "{url}");
    }
}

#[test]
fn parameters_go_back_to_where_they_were() {
    let world = World::usual();
    let opened = |path: &str, query: &[(&str, &str)], body: &str| {
        let call = world.seal(&format!("{WECHAT}{path}"), query, body);
        let secured = open(&world.state, &call.request).unwrap().unwrap();
        let request = secured.request;
        assert_eq!(request.query.value("access_token"), Some(&*world.token));
        let query: Vec<_> = request.query.iter().skip(1).collect();
        let query = query.iter().map(|(name, value)| format!("{name}={value}"));
        let query = query.collect::<Vec<_>>().join("&");
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        format!("{} {query} {body}", request.method)
    };
    let user = [
        ("openid", "o"),
        ("signature", "s"),
        ("sig_method", "hmac_sha256"),
    ];
    let expected = "POST openid=o&signature=s&sig_method=hmac_sha256 ";
    assert_eq!(
        opened("/wxa/business/getuserencryptkey", &user, ""),
        expected
    );
    assert_eq!(
        opened("/wxa/business/getuserencryptkey", &user, "{}"),
        expected
    );
    let path = "/cgi-bin/express/business/delivery/getall";
    assert_eq!(opened(path, &[], ""), "GET  ");
    let body = r#"{"a":[1,"二"],"n":9007199254740993}"#;
    assert_eq!(opened(PHONE, &[], body), format!("POST  {body}"));
    assert_eq!(opened(PHONE, &[], ""), "POST  {}");
}

#[test]
fn a_developer_switches_it_on_with_keys_in_pem() {
    let world = World::usual();
    let vectors = include_str!("../../../tests/vectors/api_security.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let name = "apisec-rsa-pss-request-signature";
    let vector = vectors.iter().find(|one| one["name"] == name).unwrap();
    let mut order = json!({ "api_security": {
        "sym_algorithm": "SM4_GCM",
        "sym_key": STANDARD.encode([7; 16]),
        "sym_sn": "sym",
        "public_key": SM2_PUBLIC,
        "asym_sn": "app",
        "platform_key": vector["inputs"]["private_key_pem"],
        "certificate_sn": "new",
    }});
    let World { mut state, .. } = world;
    let mut change = |order: &Value| {
        let path = format!("/_sim/apps/{APP}");
        let request = Request::of("POST", &path, order.to_string().as_bytes());
        let Outcome::Answer(answer) = receive(&mut state, request).outcome else {
            panic!("an answer was due");
        };
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("PRIVATE"), "{text}");
        (
            answer.status,
            text,
            state.apps[0].known.api_security.clone(),
        )
    };
    let (status, text, known) = change(&order);
    assert!(
        status == 200 && text.contains(r#""api_security":true"#),
        "{text}"
    );
    let known = known.unwrap();
    let expected = theirs(Cipher::Sm4, Scheme::RsaPss);
    assert_eq!(
        known.symmetric.as_ref().unwrap().key,
        expected.symmetric.unwrap().key
    );
    assert_eq!(known.platform.key, expected.platform.key);
    let application = &known.application.as_ref().unwrap().key;
    assert_eq!(*application, private(Scheme::Sm2, "app").public());

    for (name, value, expected) in [
        ("sym_algorithm", "AES", "`AES256_GCM` or `SM4_GCM`"),
        ("sym_algorithm", "AES256_GCM", "`sym_key` is no key"),
        ("sym_key", "?", "`sym_key` is no key"),
        ("public_key", "?", "`public_key` is no"),
        ("platform_key", SM2_PUBLIC, "`platform_key` is no"),
        ("certificate_sn", "a\nb", "letters and digits"),
        ("deprecated_sn", "old", "belong together"),
        ("unheard_of", "", "unknown field"),
    ] {
        let before = order.clone();
        order["api_security"][name] = json!(value);
        let (status, text, _) = change(&order);
        assert!(status == 400 && text.contains(expected), "{text}");
        order = before;
    }
}

#[test]
fn an_answer_that_is_not_json_stays_as_it_is() {
    let world = World::usual();
    let call = world.seal(URL, &[], "{}");
    let secured = open(&world.state, &call.request).unwrap().unwrap();
    let mut picture = Answer::success(PHONE, &json!({}));
    picture.body = Bytes::from_static(b"\x89PNG");
    let sealed = secured.seal(&world.state, picture);
    assert_eq!(sealed.body, &b"\x89PNG"[..]);
    assert!(sealed.headers.is_empty());
}

proptest! {
    #[test]
    fn no_call_makes_the_simulator_panic(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "\\{(\"(iv|data|authtag|_n)\":(1|\"[A-Za-z0-9+/]{16}\"|\"\"),?){0,4}\\}".prop_map(String::into_bytes),
        ],
        lines in proptest::collection::vec(("(appid|timestamp|signature|serial)", "[ -~]{0,20}|1700000040|wx0123456789abcdef|AAAA"), 0..5),
    ) {
        let mut world = World::usual();
        let mut request = world.plain(Method::POST, PHONE, &body);
        for (name, value) in lines {
            let name = HeaderName::try_from(format!("wechatmp-{name}")).unwrap();
            request.headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        prop_assert!(world.receive(&request).errcode.is_some());
    }
}
