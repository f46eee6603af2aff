//! API security (服务端 API 签名加密), WeChat's side of it: opens calls that are encrypted and signed, and seals the answers.
//!
//! Written from the documentation and not from `wechat`, so that a misreading of ours is not confirmed by our own code. What
//! the documentation leaves open is decided here so:
//!
//! - The access_token is looked at first, because it says whose keys count. Then headers are missed in the order of their
//!   errcodes, and the rest is checked from the outside to the inside.
//! - `Wechatmp-Serial` is not missed in a call unless that is asked for: there is an errcode for it (40230), but the
//!   documentation's own calls have none.
//! - A call is as old as an answer may be, 300 seconds, and no further ahead.
//! - It is signed for the URL that the caller knows. That is WeChat's, or has the host that the caller asked for.
//! - What is refused before it was decrypted is answered in clear; whatever comes later is encrypted, refusals too.
//! - An answer that is not JSON, such as a picture, stays as it is, since nobody says how it would be encrypted.

use std::sync::Arc;

use ::http::header::{HOST, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::exchange::{Answer, Query, Request};
use super::refusal::Refusal;
use super::state::State;
use crate::crypto::gcm::{Cipher, Gcm};
use crate::crypto::signature::{PrivateKey, PublicKey, Scheme};
use crate::crypto::{NONCE_LEN, random};

/// The APIs that may be called in this form, by their documentation.
const SUPPORTED: &[&str] = &[
    "/cgi-bin/openapi/quota/get",
    "/cgi-bin/openapi/rid/get",
    "/cgi-bin/clear_quota",
    "/wxa/media_check_async",
    "/wxa/msg_sec_check",
    "/wxa/getuserriskrank",
    "/cgi-bin/message/custom/send",
    "/wxa/getwxacodeunlimit",
    "/cgi-bin/wxaapp/createwxaqrcode",
    "/wxa/getwxacode",
    "/wxa/servicemarket",
    "/wxa/devplugin",
    "/wxa/plugin",
    "/wxa/business/performance/boot",
    "/datacube/getweanalysisappiduserportrait",
    "/datacube/getweanalysisappidvisitdistribution",
    "/datacube/getweanalysisappiddailysummarytrend",
    "/datacube/getweanalysisappidvisitpage",
    "/datacube/getweanalysisappidweeklyretaininfo",
    "/datacube/getweanalysisappiddailyretaininfo",
    "/datacube/getweanalysisappidmonthlyretaininfo",
    "/datacube/getweanalysisappidweeklyvisittrend",
    "/datacube/getweanalysisappiddailyvisittrend",
    "/datacube/getweanalysisappidmonthlyvisittrend",
    "/cgi-bin/express/business/account/getall",
    "/cgi-bin/express/business/printer/getall",
    "/cgi-bin/express/business/delivery/getall",
    "/wxa/business/getuserphonenumber",
    "/wxa/business/checkencryptedmsg",
    "/wxa/getpluginopenpid",
    "/wxa/business/getuserencryptkey",
    "/wxaapi/log/jserr_detail",
    "/wxaapi/log/jserr_list",
    "/wxaapi/log/get_performance",
    "/wxa/getwxadevinfo",
];

/// Same-city delivery can be called in no other form, but for asking leave to.
const DELIVERY: &str = "/cgi-bin/express/intracity/";
const DELIVERY_LEAVE: &str = "/cgi-bin/express/intracity/apply";

/// How far a call's time may be from ours, in seconds.
const WINDOW: u64 = 300;

/// What the URLs of callers begin with who take the simulator for WeChat itself, by their hosts file or a proxy.
const WECHAT: &str = "https://api.weixin.qq.com";

const APPID: HeaderName = HeaderName::from_static("wechatmp-appid");
const TIMESTAMP: HeaderName = HeaderName::from_static("wechatmp-timestamp");
const SERIAL: HeaderName = HeaderName::from_static("wechatmp-serial");
const SIGNATURE: HeaderName = HeaderName::from_static("wechatmp-signature");
const OLD_SERIAL: HeaderName = HeaderName::from_static("wechatmp-serial-deprecated");
const OLD_SIGNATURE: HeaderName = HeaderName::from_static("wechatmp-signature-deprecated");

/// A Mini Program's API security, as it stands at mp.weixin.qq.com, and WeChat's own keys.
#[derive(Debug)]
pub struct ApiSecurity {
    /// What both sides encrypt with, if it has been set.
    pub symmetric: Option<SimKey<Gcm>>,
    /// What the app's calls are verified with, if it has been uploaded.
    pub application: Option<SimKey<PublicKey>>,
    /// What WeChat signs with.
    pub platform: SimKey<PrivateKey>,
    /// What WeChat signed with before, and still signs with as well while it changes the certificate.
    pub deprecated: Option<SimKey<PrivateKey>>,
    /// Whether a call must name the app's key by `Wechatmp-Serial`.
    pub wants_serial: bool,
}

/// A key with its number. One for SM2 is made for the id that is its number.
#[derive(Debug)]
pub struct SimKey<K> {
    /// Its number at mp.weixin.qq.com: letters and digits.
    pub number: String,
    /// The key.
    pub key: K,
}

/// How a developer switches it on by `/_sim/apps/{appid}`: with keys that `openssl` makes, in PEM, and any numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    sym_algorithm: String,
    sym_key: String,
    sym_sn: String,
    public_key: String,
    asym_sn: String,
    platform_key: String,
    certificate_sn: String,
    deprecated_key: Option<String>,
    deprecated_sn: Option<String>,
    #[serde(default)]
    wants_serial: bool,
}

impl Order {
    /// The keys, or what is wrong with them.
    pub(super) fn carry_out(self) -> Result<ApiSecurity, &'static str> {
        let is_number =
            |sn: &String| !sn.is_empty() && sn.bytes().all(|b| b.is_ascii_alphanumeric());
        let numbers = [&self.sym_sn, &self.asym_sn, &self.certificate_sn];
        if !numbers
            .into_iter()
            .chain(&self.deprecated_sn)
            .all(is_number)
        {
            return Err("a number (`..._sn`) is of letters and digits");
        }
        let cipher = match self.sym_algorithm.as_str() {
            "AES256_GCM" => Cipher::Aes256,
            "SM4_GCM" => Cipher::Sm4,
            _ => return Err("`sym_algorithm` is `AES256_GCM` or `SM4_GCM`"),
        };
        let symmetric = STANDARD.decode(&self.sym_key).ok();
        let symmetric = symmetric.and_then(|key| Gcm::new(cipher, &key));
        let symmetric = symmetric.ok_or("`sym_key` is no key of this algorithm in base64")?;
        let application = SubjectPublicKeyInfoDer::from_pem_slice(self.public_key.as_bytes()).ok();
        let application = application.and_then(|der| PublicKey::parse(&der, &self.asym_sn));
        let application = application.ok_or(
            "`public_key` is no RSA or SM2 key in PEM, from `-----BEGIN PUBLIC KEY-----` on",
        )?;
        let platform = private_key(&self.platform_key, &self.certificate_sn);
        let deprecated = match (self.deprecated_key, self.deprecated_sn) {
            (None, None) => None,
            (Some(key), Some(number)) => Some(SimKey {
                key: private_key(&key, &number).ok_or("`deprecated_key` is no private key")?,
                number,
            }),
            _ => return Err("`deprecated_key` and `deprecated_sn` belong together"),
        };
        Ok(ApiSecurity {
            symmetric: Some(SimKey {
                number: self.sym_sn,
                key: symmetric,
            }),
            application: Some(SimKey {
                number: self.asym_sn,
                key: application,
            }),
            platform: SimKey {
                key: platform.ok_or("`platform_key` is no RSA or SM2 private key in PEM")?,
                number: self.certificate_sn,
            },
            deprecated,
            wants_serial: self.wants_serial,
        })
    }
}

fn private_key(pem: &str, number: &str) -> Option<PrivateKey> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let read = |scheme| PrivateKey::parse(scheme, der.secret_der(), number);
    read(Scheme::RsaPss).or_else(|| read(Scheme::Sm2))
}

/// A call that came encrypted.
pub(super) struct Secured {
    /// The call that it would have been without.
    pub(super) request: Request,
    security: Arc<ApiSecurity>,
    appid: String,
    /// What it was signed for.
    url: String,
}

/// Opens a call of an app that has API security; `None` if it is to be taken as it is.
pub(super) fn open(state: &State, request: &Request) -> Result<Option<Secured>, Refusal> {
    let token = request.query.value("access_token");
    let (true, Ok(app)) = (is_supported(&request.path), state.check_access_token(token)) else {
        return Ok(None);
    };
    let known = &state.apps[app].known;
    let headers = &request.headers;
    let Some(security) = &known.api_security else {
        // Whoever encrypts believes that there are keys.
        return match headers.contains_key(SIGNATURE) {
            true => Err(Refusal::SymmetricKeyUnset),
            false => Ok(None),
        };
    };
    if security.wants_serial && !headers.contains_key(SERIAL) {
        return Err(Refusal::SerialMissing);
    }
    let timestamp = text(headers, &TIMESTAMP).ok_or(Refusal::TimestampMissing)?;
    let signature = text(headers, &SIGNATURE).ok_or(Refusal::SignatureMissing)?;
    let appid = text(headers, &APPID).ok_or(Refusal::SecuredAppIdMissing)?;
    let named = state.app_index(appid).ok_or(Refusal::SecuredAppIdInvalid)?;
    if named != app {
        return Err(Refusal::SecuredAppIdForeign);
    }
    let symmetric = security.symmetric.as_ref();
    let symmetric = symmetric.ok_or(Refusal::SymmetricKeyUnset)?;
    let application = security.application.as_ref();
    let application = application.ok_or(Refusal::PublicKeyUnset)?;
    if request.method != Method::POST {
        return Err(Refusal::PostRequired);
    }
    let seconds = timestamp.parse::<u64>().ok();
    let seconds = seconds.filter(|it| it.abs_diff(state.now().as_secs()) <= WINDOW);
    let seconds = seconds.ok_or(Refusal::SecuredTimestampOld)?;

    let names_another = text(headers, &SERIAL).is_some_and(|it| it != application.number);
    let signature = STANDARD.decode(signature).unwrap_or_default();
    let url = urls(request).into_iter().find(|url| {
        let signed = signed(url, appid, timestamp, &request.body);
        application.key.verifies(&signed, &signature)
    });
    let url = url
        .filter(|_| !names_another)
        .ok_or(Refusal::SecuredSignature)?;
    let aad = format!("{url}|{appid}|{timestamp}|{}", symmetric.number);
    let mut plain = decrypt(&symmetric.key, &aad, &request.body).ok_or(Refusal::SecuredData)?;
    let ours = ["_n", "_appid", "_timestamp"].map(|name| plain.remove(name));
    if !matches!(&ours, [Some(Value::String(n)), Some(its_appid), Some(its_seconds)]
        if !n.is_empty() && its_appid == appid && its_seconds == seconds)
    {
        return Err(Refusal::SecuredData);
    }
    Ok(Some(Secured {
        request: plain_request(request, plain),
        security: Arc::clone(security),
        appid: appid.to_owned(),
        url,
    }))
}

impl Secured {
    /// Encrypts and signs the answer to it.
    pub(super) fn seal(&self, state: &State, mut answer: Answer) -> Answer {
        let Some(members) = answer.body.strip_prefix(b"{") else {
            return answer;
        };
        let symmetric = self.security.symmetric.as_ref();
        let symmetric = symmetric.expect("a call was opened with it");
        let (url, appid) = (&self.url, &self.appid);
        let seconds = state.now().as_secs();
        let n = STANDARD_NO_PAD.encode(random::<16>());
        let comma = if members == b"}" { "" } else { "," };
        let ours = format!(r#"{{"_n":"{n}","_appid":"{appid}","_timestamp":{seconds}{comma}"#);
        let mut text = [ours.as_bytes(), members].concat();
        let iv = random::<NONCE_LEN>();
        let aad = format!("{url}|{appid}|{seconds}|{}", symmetric.number);
        symmetric.key.seal(iv, aad.as_bytes(), &mut text);
        let tag = text.split_off(text.len() - 16);
        let [iv, data, authtag] = [&iv[..], &text, &tag].map(|bytes| STANDARD.encode(bytes));
        let body = json!({ "iv": iv, "data": data, "authtag": authtag }).to_string();

        let signed = signed(url, appid, &seconds.to_string(), body.as_bytes());
        let mut add = |name: HeaderName, value: &str| {
            let value = HeaderValue::from_str(value).expect("numbers and base64 are ASCII");
            answer.headers.insert(name, value);
        };
        add(APPID, appid);
        add(TIMESTAMP, &seconds.to_string());
        let platform = &self.security.platform;
        add(SERIAL, &platform.number);
        add(SIGNATURE, &STANDARD.encode(platform.key.sign(&signed)));
        if let Some(deprecated) = &self.security.deprecated {
            add(OLD_SERIAL, &deprecated.number);
            let signature = deprecated.key.sign(&signed);
            add(OLD_SIGNATURE, &STANDARD.encode(signature));
        }
        answer.body = Bytes::from(body);
        answer
    }
}

fn is_supported(path: &str) -> bool {
    let is_delivery = path.starts_with(DELIVERY) && path != DELIVERY_LEAVE;
    SUPPORTED.contains(&path) || is_delivery
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty()).then_some(value)
}

/// What a caller may call this API.
fn urls(request: &Request) -> Vec<String> {
    let path = &request.path;
    let mut urls = vec![format!("{WECHAT}{path}")];
    if let Some(host) = text(&request.headers, &HOST) {
        urls.extend(["http", "https"].map(|scheme| format!("{scheme}://{host}{path}")));
    }
    urls
}

fn signed(url: &str, appid: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    let mut text = [url, appid, timestamp, ""].join("\n").into_bytes();
    text.extend_from_slice(body);
    text
}

fn decrypt(key: &Gcm, aad: &str, body: &[u8]) -> Option<Map<String, Value>> {
    #[derive(Deserialize)]
    struct Body {
        iv: String,
        data: String,
        authtag: String,
    }

    let body: Body = serde_json::from_slice(body).ok()?;
    let [iv, mut data, tag] = [body.iv, body.data, body.authtag].map(|it| STANDARD.decode(it));
    let (iv, tag) = (iv.ok()?.try_into().ok()?, tag.ok()?);
    let data = data.as_mut().ok()?;
    if tag.len() != 16 {
        return None;
    }
    data.extend_from_slice(&tag);
    let plain = key.open(iv, aad.as_bytes(), data)?;
    serde_json::from_slice(plain).ok()
}

/// The call with its parameters back in their places.
fn plain_request(request: &Request, mut parameters: Map<String, Value>) -> Request {
    let (method, of_url): (_, &[&str]) = match request.path.as_str() {
        path if path.starts_with("/cgi-bin/express/business/") => (Method::GET, &[]),
        "/wxa/business/getuserencryptkey" => (Method::POST, &["openid", "signature", "sig_method"]),
        _ => (Method::POST, &[]),
    };
    let token = request.query.value("access_token").unwrap_or_default();
    let mut query = vec![("access_token".to_owned(), token.to_owned())];
    for name in of_url {
        if let Some(value) = parameters.remove(*name) {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            query.push(((*name).to_owned(), value));
        }
    }
    // A call with all its parameters in the URL had nothing to post.
    let has_body = method == Method::POST && (of_url.is_empty() || !parameters.is_empty());
    let body = match has_body {
        true => Bytes::from(Value::Object(parameters).to_string()),
        false => Bytes::new(),
    };
    Request {
        method,
        query: Query::of(query),
        body,
        ..request.clone()
    }
}

#[cfg(test)]
mod tests;
