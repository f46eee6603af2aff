//! API security between a configuration and the simulator, over HTTP: what the one seals the other opens, and back.
//!
//! The simulator has read the documentation by itself and shares no code with ours but the ciphers.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use wx_sidecar::Config;
use wx_sidecar::clock::Clock;
use wx_sidecar::crypto::gcm::{Cipher, Gcm};
use wx_sidecar::crypto::random;
use wx_sidecar::crypto::signature::{PrivateKey, Scheme};
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{self, Options, SimApp, SimKey, Simulator};
use wx_sidecar::wechat::api_security::{ApiSecurity, Nonces, Opened, Refused, Request, url_of};

use crate::http_client::{Client, Response};
use crate::rig::{APPID, SECRET, START, Session, canary, configuration, start};

const PHONE: &str = "/wxa/business/getuserphonenumber";

const SYM_NUMBER: &str = "5a3c0000000000000000000000000001";
const APP_NUMBER: &str = "5a3c0000000000000000000000000002";
const NEW_NUMBER: &str = "5a3c0000000000000000000000000003";
const OLD_NUMBER: &str = "5a3c0000000000000000000000000004";

/// From `openssl genpkey -algorithm SM2`: the app's, and the platform's with its certificate.
const SM2_APP: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqBHM9VAYItBG0wawIBAQQgATC/3mD1RvNIRTQo
Q0kX0ymznmBx4ZHGFWoppCtlaKmhRANCAAQCIBUhIDTREYiwL39blxA/aDlBLxJE
gRyhtHTrnG6AYxmmBZTNmJMPj2XAmJs3C29A1vy80Wcq9yxpSuO2AydL
-----END PRIVATE KEY-----
";
const SM2_PLATFORM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqBHM9VAYItBG0wawIBAQQgNx/oRj3hlocnprit
WcFXuuP6sLGOTH/A18nH5DYDmOihRANCAAQQMIAffMyLtOCoUHaa0CsaJO45Y8Xn
WpYMJfgxJbcbT/BT6AnohXSBH2onnuBlC4iZMMaXziRvEpJNKXa3cZsK
-----END PRIVATE KEY-----
";
const SM2_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBczCCARmgAwIBAgIUbVtIcVsG0dJf/de8RmFAhaurOCcwCgYIKoEcz1UBg3Uw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjgwNjQ3MjRaFw0zNjExMjUwNjQ3MjRa
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqgRzPVQGCLQNCAAQQMIAf
fMyLtOCoUHaa0CsaJO45Y8XnWpYMJfgxJbcbT/BT6AnohXSBH2onnuBlC4iZMMaX
ziRvEpJNKXa3cZsKo1MwUTAdBgNVHQ4EFgQUdKbMr11rARGJcUU60k3W35K2wUkw
HwYDVR0jBBgwFoAUdKbMr11rARGJcUU60k3W35K2wUkwDwYDVR0TAQH/BAUwAwEB
/zAKBggqgRzPVQGDdQNIADBFAiEAqzzES5s2yPMDP83iivnQZ52mtm9aKS/lGYlV
9WEOPJECIHY0toQiSXnSvwJTnrJUBugf2X3lXpl9lWGLct4EFWFe
-----END CERTIFICATE-----
";

/// What a Mini Program and WeChat have agreed on: the section of the one and the knowledge of the other.
pub(crate) struct Agreement {
    /// `[wechat.api_security]`
    pub(crate) section: String,
    pub(crate) platform: sim::ApiSecurity,
    /// Holds the files that the section names.
    folder: TempDir,
}

/// A pair of keys of the platform's.
struct Platform {
    key: String,
    certificate: String,
}

impl Platform {
    fn rsa() -> Self {
        let key = rsa_key();
        let name = vec!["platform".to_owned()];
        let certificate = rcgen::CertificateParams::new(name).unwrap();
        Self {
            certificate: certificate.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn sm2() -> Self {
        Self {
            key: SM2_PLATFORM.to_owned(),
            certificate: SM2_CERTIFICATE.to_owned(),
        }
    }
}

impl Agreement {
    /// AES-256-GCM and RSA.
    pub(crate) fn international() -> Self {
        let app = rsa_key().serialize_pem();
        Self::new(Cipher::Aes256, Scheme::RsaPss, &app, &Platform::rsa())
    }

    /// SM4-GCM and SM2.
    pub(crate) fn chinese() -> Self {
        Self::new(Cipher::Sm4, Scheme::Sm2, SM2_APP, &Platform::sm2())
    }

    fn new(cipher: Cipher, scheme: Scheme, app: &str, platform: &Platform) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let symmetric = &random::<32>()[..cipher.key_len()];
        let text = STANDARD.encode(symmetric);
        canary(&text);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let (sym_algorithm, asym_algorithm) = match scheme {
            Scheme::RsaPss => ("AES256_GCM", "RSAwithSHA256"),
            Scheme::Sm2 => ("SM4_GCM", "SM2withSM3"),
        };
        // A line from the middle of a key is in no output either.
        app.lines().filter(|line| line.len() == 64).for_each(canary);
        let section = format!(
            "[wechat.api_security]\npaths = \"all\"\n\
             sym_algorithm = \"{sym_algorithm}\"\nsym_key_file = \"{}\"\nsym_sn = \"{SYM_NUMBER}\"\n\
             asym_algorithm = \"{asym_algorithm}\"\nprivate_key_file = \"{}\"\nasym_sn = \"{APP_NUMBER}\"\n\
             certificate_file = \"{}\"\ncertificate_sn = \"{NEW_NUMBER}\"\n",
            write("sym.key", &text),
            write("app.key", app),
            write("platform.crt", &platform.certificate),
        );
        let application = private_key(scheme, app, APP_NUMBER).public();
        Self {
            section,
            platform: sim::ApiSecurity {
                symmetric: Some(numbered(SYM_NUMBER, Gcm::new(cipher, symmetric).unwrap())),
                application: Some(numbered(APP_NUMBER, application)),
                platform: numbered(NEW_NUMBER, private_key(scheme, &platform.key, NEW_NUMBER)),
                deprecated: None,
                wants_serial: false,
            },
            folder,
        }
    }

    /// WeChat has changed its certificate, and the configuration still has the one before.
    pub(crate) fn with_a_new_certificate(mut self) -> Self {
        let key = private_key(Scheme::RsaPss, &Platform::rsa().key, OLD_NUMBER);
        let newer = numbered(OLD_NUMBER, key);
        let current = std::mem::replace(&mut self.platform.platform, newer);
        self.platform.deprecated = Some(current);
        self
    }
}

fn rsa_key() -> rcgen::KeyPair {
    let size = rcgen::RsaKeySize::_2048;
    rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap()
}

fn private_key(scheme: Scheme, pem: &str, number: &str) -> PrivateKey {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    PrivateKey::parse(scheme, der.secret_der(), number).unwrap()
}

fn numbered<K>(number: &str, key: K) -> SimKey<K> {
    SimKey {
        number: number.to_owned(),
        key,
    }
}

/// A simulator, and what a configuration makes of the other side.
struct Both {
    sim: Simulator,
    clock: Clock,
    ours: Arc<ApiSecurity>,
    token: String,
    _folder: TempDir,
}

impl Both {
    fn new(agreement: Agreement) -> Self {
        let clock = Clock::manual(START);
        let mut app = SimApp::new(AppId::parse(APPID).unwrap(), Secret::new(SECRET));
        app.api_security = Some(Arc::new(agreement.platform));
        let sim = Simulator::start(Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            apps: vec![app],
            clock: clock.clone(),
            seed: 7,
            tls: None,
            push: None,
        });
        let sim = sim.unwrap();
        let config = configuration(&sim.url(), "http://127.0.0.1:9", "", &agreement.section);
        let config = Config::from_toml(&config).unwrap_or_else(|report| panic!("{report}"));
        let asked = json!({ "grant_type": "client_credential", "appid": APPID, "secret": SECRET });
        let path = "/cgi-bin/stable_token";
        let told =
            Client::connect(sim.addr()).request("POST", path, &[], asked.to_string().as_bytes());
        let token = told.json()["access_token"].as_str().unwrap().to_owned();
        canary(&token);
        Self {
            sim,
            clock,
            ours: config.wechat.api_security.unwrap(),
            token,
            _folder: agreement.folder,
        }
    }

    fn call(&self, path: &str, body: &Value) -> Result<Opened, Refused> {
        let answer = self.sent(path, body);
        let mut headers = HeaderMap::new();
        for (name, value) in &answer.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let (appid, url) = (AppId::parse(APPID).unwrap(), url_of(path));
        self.ours
            .open(&appid, &url, &headers, &answer.body, self.clock.now())
    }

    /// Seals and sends; what comes back is as it came.
    fn sent(&self, path: &str, body: &Value) -> Response {
        let (appid, url) = (AppId::parse(APPID).unwrap(), url_of(path));
        let body = body.to_string();
        let request = Request {
            url: &url,
            query: &[],
            body: body.as_bytes(),
        };
        let nonces = Nonces {
            n: random(),
            iv: random(),
        };
        let sealed = self.ours.seal(&appid, &request, self.clock.now(), &nonces);
        let sealed = sealed.unwrap();
        let headers: Vec<(&str, &str)> = sealed
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let target = format!("{path}?access_token={}", self.token);
        Client::connect(self.sim.addr()).request("POST", &target, &headers, &sealed.body)
    }
}

#[test]
fn a_call_goes_there_and_back_by_either_family_of_algorithms() {
    for agreement in [Agreement::international(), Agreement::chinese()] {
        let both = Both::new(agreement);
        let code = both.sim.issue_phone_code("alice");
        let number = both.sim.phone_number("alice");
        canary(&code);
        canary(&number);
        let opened = both.call(PHONE, &json!({ "code": code })).unwrap();
        let told: Value = serde_json::from_slice(&opened.body).unwrap();
        assert_eq!(told["phone_info"]["purePhoneNumber"], json!(number));
        assert!(!opened.by_deprecated_certificate);

        let on_the_wire = both.sent(PHONE, &json!({ "code": "x" }));
        let envelope = on_the_wire.json();
        let members: Vec<&String> = envelope.as_object().unwrap().keys().collect();
        assert_eq!(members, ["authtag", "data", "iv"]);
    }
}

#[test]
fn an_app_calls_in_clear_and_wechat_sees_nothing_in_clear() {
    for agreement in [Agreement::international(), Agreement::chinese()] {
        let section = agreement.section.clone();
        let both = Both::new(agreement);
        let config = configuration(&both.sim.url(), "http://127.0.0.1:9", "", &section);
        let sidecar = start(&config, &both.clock);
        let code = both.sim.issue_phone_code("alice");
        let number = both.sim.phone_number("alice");
        canary(&code);
        canary(&number);
        let call = |body: &Value| {
            let mut app = Client::connect(sidecar.outbound_addr().unwrap());
            let query = format!("{PHONE}?note=%E4%BD%A0");
            app.request("POST", &query, &[], body.to_string().as_bytes())
        };
        let answer = call(&json!({ "code": code }));
        assert_eq!(
            answer.json()["phone_info"]["purePhoneNumber"],
            json!(number)
        );
        assert_eq!(answer.header("wechatmp-signature"), None);
        let refused = call(&json!({ "code": code }));
        assert_eq!(
            refused.json()["errcode"],
            40029,
            "an encrypted refusal is one"
        );
        assert_eq!(refused.header("x-wx-errcode"), Some("40029"));
        for received in both.sim.received(PHONE) {
            let text = String::from_utf8_lossy(&received.body);
            assert!(!text.contains(&code) && text.contains("authtag"), "{text}");
            assert!(!received.query.contains("note"), "{}", received.query);
            assert_eq!(received.headers["wechatmp-appid"], APPID);
        }
        // The phone's own number goes the same way.
        let session = both.sim.issue_code("alice");
        canary(&session);
        let body = json!({ "code": session }).to_string();
        let mut phone = Client::connect(sidecar.inbound_addr());
        let tokens = Session::of(
            &phone
                .request("POST", "/wx/login", &[], body.as_bytes())
                .json(),
        );
        let code = both.sim.issue_phone_code("alice");
        canary(&code);
        let body = json!({ "code": code }).to_string();
        let bearer = [("Authorization", &*tokens.bearer())];
        let told = phone.request("POST", "/wx/phone", &bearer, body.as_bytes());
        assert_eq!(told.json()["purePhoneNumber"], json!(number));
    }
}

#[test]
fn an_answer_by_the_certificate_before_is_good_and_that_is_told() {
    for agreement in [Agreement::international(), Agreement::chinese()] {
        let both = Both::new(agreement.with_a_new_certificate());
        let opened = both.call(PHONE, &json!({ "code": "x" })).unwrap();
        assert!(opened.by_deprecated_certificate);
        let told: Value = serde_json::from_slice(&opened.body).unwrap();
        assert_eq!(told["errcode"], json!(40029));
    }
}

#[test]
fn a_refusal_in_clear_is_an_errcode_and_a_stale_answer_is_none() {
    let mut agreement = Agreement::chinese();
    agreement.platform.application = None;
    let both = Both::new(agreement);
    let refused = both.call(PHONE, &json!({}));
    assert_eq!(refused, Err(Refused::Errcode(40239)));

    let both = Both::new(Agreement::chinese());
    both.sim.advance(Duration::from_secs(301));
    let refused = both.call(PHONE, &json!({}));
    assert_eq!(refused, Err(Refused::Errcode(40240)));
}
