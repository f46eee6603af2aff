//! API security (服务端 API 签名加密): calls that are encrypted and signed by us, and answers that are by WeChat.
//!
//! Source: developers.weixin.qq.com, 服务端 / 开发前必读 / 服务端 API 签名加密指南. TLS ends somewhere at WeChat; this does not, and
//! a Mini Program that has switched it on is refused without it. A call becomes a POST whose body is `{iv, data, authtag}`,
//! with all parameters but the access_token within; the answer has the same form, and is believed only when signed by the
//! platform's certificate. While WeChat changes that, an answer has two signatures, of the new one and the old.
//!
//! JSON is cut and not parsed and written anew, so that numbers beyond 2^53 and the order of members survive. No error
//! here has a part of a text in it.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::answer;
use crate::clock::Timestamp;
use crate::crypto::gcm::Gcm;
use crate::crypto::signature::{PrivateKey, PublicKey};
use crate::crypto::{NONCE_LEN, TAG_LEN};
use crate::domain::{AppId, Malformed};

/// The APIs whose documentation says that they may be called in this form.
pub const DOCUMENTED: [&str; 35] = [
    "/cgi-bin/clear_quota",
    "/cgi-bin/express/business/account/getall",
    "/cgi-bin/express/business/delivery/getall",
    "/cgi-bin/express/business/printer/getall",
    "/cgi-bin/message/custom/send",
    "/cgi-bin/openapi/quota/get",
    "/cgi-bin/openapi/rid/get",
    "/cgi-bin/wxaapp/createwxaqrcode",
    "/datacube/getweanalysisappiddailyretaininfo",
    "/datacube/getweanalysisappiddailysummarytrend",
    "/datacube/getweanalysisappiddailyvisittrend",
    "/datacube/getweanalysisappidmonthlyretaininfo",
    "/datacube/getweanalysisappidmonthlyvisittrend",
    "/datacube/getweanalysisappiduserportrait",
    "/datacube/getweanalysisappidvisitdistribution",
    "/datacube/getweanalysisappidvisitpage",
    "/datacube/getweanalysisappidweeklyretaininfo",
    "/datacube/getweanalysisappidweeklyvisittrend",
    "/wxa/business/checkencryptedmsg",
    "/wxa/business/getuserencryptkey",
    "/wxa/business/getuserphonenumber",
    "/wxa/business/performance/boot",
    "/wxa/devplugin",
    "/wxa/getpluginopenpid",
    "/wxa/getuserriskrank",
    "/wxa/getwxacode",
    "/wxa/getwxacodeunlimit",
    "/wxa/getwxadevinfo",
    "/wxa/media_check_async",
    "/wxa/msg_sec_check",
    "/wxa/plugin",
    "/wxa/servicemarket",
    "/wxaapi/log/get_performance",
    "/wxaapi/log/jserr_detail",
    "/wxaapi/log/jserr_list",
];

/// The APIs that may be called in no other form: same-city delivery answers a plain call with 934011. Leave to use it is
/// asked for in clear (`/cgi-bin/express/intracity/apply`).
pub const DEMANDED: [&str; 15] = [
    "/cgi-bin/express/intracity/addorder",
    "/cgi-bin/express/intracity/balancequery",
    "/cgi-bin/express/intracity/cancelorder",
    "/cgi-bin/express/intracity/createstore",
    "/cgi-bin/express/intracity/getcity",
    "/cgi-bin/express/intracity/getpaymode",
    "/cgi-bin/express/intracity/mocknotify",
    "/cgi-bin/express/intracity/preaddorder",
    "/cgi-bin/express/intracity/queryflow",
    "/cgi-bin/express/intracity/queryorder",
    "/cgi-bin/express/intracity/querystore",
    "/cgi-bin/express/intracity/setpaymode",
    "/cgi-bin/express/intracity/storecharge",
    "/cgi-bin/express/intracity/storerefund",
    "/cgi-bin/express/intracity/updatestore",
];

/// What calls are signed for, whatever server they are sent to: WeChat's name for itself, which is also what whoever forwards
/// calls to it leads to.
const ORIGIN: &str = "https://api.weixin.qq.com";

/// How old an answer may be, in seconds.
const MAX_AGE: u64 = 300;

const APPID: HeaderName = HeaderName::from_static("wechatmp-appid");
const TIMESTAMP: HeaderName = HeaderName::from_static("wechatmp-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("wechatmp-signature");
const SERIAL: HeaderName = HeaderName::from_static("wechatmp-serial");
const SIGNATURE_DEPRECATED: HeaderName = HeaderName::from_static("wechatmp-signature-deprecated");
const SERIAL_DEPRECATED: HeaderName = HeaderName::from_static("wechatmp-serial-deprecated");

/// The members that this form adds to a JSON object.
const OURS: [&str; 3] = ["_n", "_appid", "_timestamp"];

/// What a Mini Program and WeChat have agreed on, at mp.weixin.qq.com under 开发管理 / API 安全.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiSecurity {
    /// The calls it is for.
    pub paths: Paths,
    /// What both encrypt with (API 对称密钥).
    pub symmetric: Numbered<Gcm>,
    /// What we sign with (API 非对称密钥); of its number, if it is for SM2.
    pub private: Numbered<PrivateKey>,
    /// What WeChat signs with (开放平台证书): one at least, and a second one while WeChat changes it. Each is of its
    /// number, if it is for SM2.
    pub certificates: Vec<Numbered<PublicKey>>,
}

/// The calls that are made in this form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// All that may be.
    All,
    /// Those with such a path, which stands there exactly.
    These(Vec<String>),
}

/// A key, and what it is called at mp.weixin.qq.com.
#[derive(Debug, PartialEq, Eq)]
pub struct Numbered<K> {
    /// Its number (编号).
    pub number: KeyNumber,
    /// The key.
    pub key: K,
}

/// A key's number: 1 to 64 letters and digits. WeChat's are 32 hexadecimal digits. It is not a certificate's serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNumber(String);

/// A call in its plain form.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it is signed for, without a query; see [`url_of`].
    pub url: &'a str,
    /// The parameters of its URL, decoded. An access_token among them is left out, as it stays in the URL.
    pub query: &'a [(&'a str, &'a str)],
    /// A JSON object, or nothing.
    pub body: &'a [u8],
}

/// Random bytes that one call needs. With the same key an `iv` may never come twice.
pub struct Nonces {
    /// What makes equal calls differ.
    pub n: [u8; 16],
    /// The mode's nonce.
    pub iv: [u8; NONCE_LEN],
}

/// A call as it is to be made: by POST, with no parameter in the URL but the access_token.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// To be sent to the byte, as `application/json`.
    pub body: Vec<u8>,
    /// To be sent along.
    pub headers: [(HeaderName, HeaderValue); 4],
}

/// Why a call has no such form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// Uploads, for example.
    #[error("a call that is to be encrypted has a JSON object for a body, or none")]
    NotAnObject,
    /// Nobody could say which of the two counts.
    #[error(
        "a parameter stands twice in a call that is to be encrypted, in its URL or in its body"
    )]
    Twice,
    /// Encryption adds members of such a name.
    #[error("`_n`, `_appid` and `_timestamp` are taken in a call that is to be encrypted")]
    Reserved,
}

/// An answer that was WeChat's.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The JSON object that it would have been without encryption.
    pub body: Vec<u8>,
    /// Whether it had to be verified with a certificate that WeChat is about to give up, so that it is time to configure
    /// the new one.
    pub by_deprecated_certificate: bool,
}

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed, and tells a failure: WeChat refused before it came to encryption, or could not decrypt. The body
    /// is what it would have been without encryption. Whoever sits between could have sent it, and gains no more by it
    /// than by sending nothing.
    #[error("WeChat answered in clear, with errcode {0}")]
    Errcode(i64),
    /// It is not signed, and tells no failure.
    #[error("the answer is not signed")]
    NotSigned,
    /// A header is missing, or not of visible ASCII characters.
    #[error("the answer has no good header `{0}`")]
    Header(&'static str),
    /// It is for somebody else.
    #[error("the answer is for another appid")]
    AppId,
    /// It is more than five minutes old, by our clock.
    #[error("the answer is too old; or this machine's clock is fast")]
    Stale,
    /// It is signed with neither of the certificates that are configured.
    #[error("the answer is signed with a certificate that is not configured")]
    Certificate,
    /// The signature is not one.
    #[error("the answer's signature is wrong")]
    Signature,
    /// It is signed, but not `{iv, data, authtag}`.
    #[error("the answer is signed but not encrypted")]
    NotEncrypted,
    /// The key is another one, or it was for another call or time.
    #[error("the answer cannot be decrypted")]
    Undecryptable,
    /// What was encrypted is not a JSON object, or its headers belong to another one.
    #[error("what was encrypted is not an answer of this call")]
    Content,
}

impl Paths {
    /// Whether a call of this path is one of them.
    pub fn contain(&self, path: &str) -> bool {
        match self {
            Self::All => is_known(path),
            Self::These(paths) => paths.iter().any(|one| one == path),
        }
    }
}

/// Whether WeChat is known to take calls of this path in this form.
pub fn is_known(path: &str) -> bool {
    DOCUMENTED.contains(&path) || DEMANDED.contains(&path)
}

/// The URL of an API, as it is signed.
pub fn url_of(path: &str) -> String {
    format!("{ORIGIN}{path}")
}

impl KeyNumber {
    /// Parses a number.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain || !(1..=64).contains(&text.len()) {
            return Err(Malformed(
                "a key's number is 1 to 64 letters and digits",
                "密钥编号须为 1 至 64 位字母和数字",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ApiSecurity {
    /// Encrypts and signs a call.
    pub fn seal(
        &self,
        appid: &AppId,
        request: &Request<'_>,
        now: Timestamp,
        nonces: &Nonces,
    ) -> Result<Sealed, Unsealable> {
        let n = STANDARD_NO_PAD.encode(nonces.n);
        self.seal_with(appid, request, now, &n, nonces.iv)
    }

    fn seal_with(
        &self,
        appid: &AppId,
        request: &Request<'_>,
        now: Timestamp,
        n: &str,
        iv: [u8; NONCE_LEN],
    ) -> Result<Sealed, Unsealable> {
        let timestamp = now.as_secs().to_string();
        let call = Call {
            url: request.url,
            appid,
            timestamp: &timestamp,
        };
        let mut text = call.plain(n, request)?.into_bytes();
        self.symmetric
            .key
            .seal(iv, &call.aad(&self.symmetric.number), &mut text);
        let (data, tag) = text
            .split_last_chunk::<TAG_LEN>()
            .expect("a tag was appended");
        let body = format!(
            r#"{{"iv":"{}","data":"{}","authtag":"{}"}}"#,
            STANDARD.encode(iv),
            STANDARD.encode(data),
            STANDARD.encode(tag)
        )
        .into_bytes();
        let signature = self.private.key.sign(&call.signed(&body));
        let value = |text: &str| HeaderValue::from_str(text).expect("it is of visible ASCII");
        Ok(Sealed {
            body,
            headers: [
                (APPID, value(appid.as_str())),
                (TIMESTAMP, value(&timestamp)),
                // The documentation names an error for its absence, and does not list it.
                (SERIAL, value(self.private.number.as_str())),
                (SIGNATURE, value(&STANDARD.encode(signature))),
            ],
        })
    }

    /// Verifies and decrypts what WeChat answered to a call of `url`, as it was sealed. `headers` and `body` are as they
    /// came.
    pub fn open(
        &self,
        appid: &AppId,
        url: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Opened, Refused> {
        if !headers.contains_key(SIGNATURE) {
            return Err(refusal_in_clear(body));
        }
        if text(headers, &APPID, "Wechatmp-Appid")? != appid.as_str() {
            return Err(Refused::AppId);
        }
        let timestamp = text(headers, &TIMESTAMP, "Wechatmp-TimeStamp")?;
        let seconds: u64 = timestamp
            .parse()
            .map_err(|_| Refused::Header("Wechatmp-TimeStamp"))?;
        if now.as_secs().saturating_sub(seconds) > MAX_AGE {
            return Err(Refused::Stale);
        }
        let call = Call {
            url,
            appid,
            timestamp,
        };
        let by_deprecated_certificate = self.verify(headers, &call.signed(body))?;

        let sealed = Envelope::read(body).ok_or(Refused::NotEncrypted)?;
        let mut plain = [sealed.data, sealed.tag.to_vec()].concat();
        let aad = call.aad(&self.symmetric.number);
        let plain = self.symmetric.key.open(sealed.iv, &aad, &mut plain);
        let plain = plain.ok_or(Refused::Undecryptable)?;
        Ok(Opened {
            body: content(plain, appid, seconds).ok_or(Refused::Content)?,
            by_deprecated_certificate,
        })
    }

    /// Whether it took the certificate that WeChat is about to give up.
    fn verify(&self, headers: &HeaderMap, signed: &[u8]) -> Result<bool, Refused> {
        let serial = text(headers, &SERIAL, "Wechatmp-Serial")?;
        let (certificate, signature, is_deprecated) = match self.certificate(serial) {
            Some(certificate) => {
                let signature = text(headers, &SIGNATURE, "Wechatmp-Signature")?;
                (certificate, signature, false)
            }
            None => {
                let deprecated = headers.get(SERIAL_DEPRECATED);
                let deprecated = deprecated.and_then(|serial| serial.to_str().ok());
                let certificate = deprecated.and_then(|serial| self.certificate(serial));
                let certificate = certificate.ok_or(Refused::Certificate)?;
                let name = "Wechatmp-Signature-Deprecated";
                let signature = text(headers, &SIGNATURE_DEPRECATED, name)?;
                (certificate, signature, true)
            }
        };
        let signature = STANDARD.decode(signature);
        if !signature.is_ok_and(|signature| certificate.verifies(signed, &signature)) {
            return Err(Refused::Signature);
        }
        Ok(is_deprecated)
    }

    fn certificate(&self, serial: &str) -> Option<&PublicKey> {
        let known = self.certificates.iter();
        let mut known = known.filter(|known| known.number.as_str() == serial);
        known.next().map(|known| &known.key)
    }
}

/// What call and answer are bound to.
struct Call<'a> {
    url: &'a str,
    appid: &'a AppId,
    /// As the header has it.
    timestamp: &'a str,
}

impl Call<'_> {
    /// What is encrypted: all parameters as one object.
    fn plain(&self, n: &str, request: &Request<'_>) -> Result<String, Unsealable> {
        let body = request.body.trim_ascii();
        let body = str::from_utf8(body).map_err(|_| Unsealable::NotAnObject)?;
        let body = if body.is_empty() { "{}" } else { body };
        let members = members(body).ok_or(Unsealable::NotAnObject)?;
        let mut parts = vec![
            format!(r#""_n":{}"#, quoted(n)),
            format!(r#""_appid":{}"#, quoted(self.appid.as_str())),
            format!(r#""_timestamp":{}"#, self.timestamp),
        ];
        let mut names = Vec::new();
        for (name, value) in request.query {
            if *name != "access_token" {
                names.push(*name);
                parts.push(format!("{}:{}", quoted(name), quoted(value)));
            }
        }
        for member in &members {
            names.push(&member.name);
            parts.push(body[member.whole.clone()].to_owned());
        }
        if names.iter().any(|name| OURS.contains(name)) {
            return Err(Unsealable::Reserved);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < count {
            return Err(Unsealable::Twice);
        }
        Ok(format!("{{{}}}", parts.join(",")))
    }

    /// What the encryption authenticates beside the text.
    fn aad(&self, number: &KeyNumber) -> Vec<u8> {
        let (url, appid, timestamp) = (self.url, self.appid.as_str(), self.timestamp);
        format!("{url}|{appid}|{timestamp}|{}", number.as_str()).into_bytes()
    }

    /// What is signed.
    fn signed(&self, body: &[u8]) -> Vec<u8> {
        let (url, appid, timestamp) = (self.url, self.appid.as_str(), self.timestamp);
        let head = format!("{url}\n{appid}\n{timestamp}\n");
        [head.as_bytes(), body].concat()
    }
}

/// What is sent in place of a JSON object.
struct Envelope {
    iv: [u8; NONCE_LEN],
    data: Vec<u8>,
    tag: [u8; TAG_LEN],
}

impl Envelope {
    fn read(body: &[u8]) -> Option<Self> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let bytes = |name| STANDARD.decode(body.get(name)?.as_str()?).ok();
        Some(Self {
            iv: bytes("iv")?.try_into().ok()?,
            data: bytes("data")?,
            tag: bytes("authtag")?.try_into().ok()?,
        })
    }
}

/// What to make of an answer that nobody has signed: never a success.
fn refusal_in_clear(body: &[u8]) -> Refused {
    match answer::parse(body) {
        Ok(answer) if answer.errcode() != 0 => Refused::Errcode(answer.errcode()),
        _ => Refused::NotSigned,
    }
}

fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<&'h str, Refused> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.ok_or(Refused::Header(shown))
}

/// The decrypted object without the members that encryption has added; `None` if they belong to another answer.
fn content(plain: &[u8], appid: &AppId, seconds: u64) -> Option<Vec<u8>> {
    let plain = str::from_utf8(plain).ok()?;
    // WeChat's JSON may have raw control characters, which are not cut from it: the app gets what it would have got.
    let spaced = answer::without_control_characters(plain.as_bytes());
    let spaced = str::from_utf8(&spaced).ok()?;
    let members = members(spaced)?;
    let only = |name| {
        let mut such = members.iter().filter(|member| member.name == name);
        let member = such.next()?;
        such.next().is_none().then(|| &spaced[member.value.clone()])
    };
    let its_appid: String = serde_json::from_str(only("_appid")?).ok()?;
    let its_seconds: u64 = serde_json::from_str(only("_timestamp")?).ok()?;
    if its_appid != appid.as_str() || its_seconds != seconds {
        return None;
    }
    let rest = members
        .iter()
        .filter(|member| !OURS.contains(&&*member.name))
        .map(|member| &plain[member.whole.clone()]);
    let rest: Vec<&str> = rest.collect();
    Some(format!("{{{}}}", rest.join(",")).into_bytes())
}

/// A member of a JSON object, and where it stands.
struct Member {
    /// Unescaped.
    name: String,
    /// From the name's quote to the value's end.
    whole: Range<usize>,
    value: Range<usize>,
}

/// The members of a JSON object, in their order; `None` if the text is none.
fn members(text: &str) -> Option<Vec<Member>> {
    let Cuts(cuts) = serde_json::from_str(text).ok()?;
    let start = |part: &RawValue| part.get().as_ptr().addr() - text.as_ptr().addr();
    let member = |(name, value): (&RawValue, &RawValue)| {
        let end = start(value) + value.get().len();
        Some(Member {
            name: serde_json::from_str(name.get()).ok()?,
            whole: start(name)..end,
            value: start(value)..end,
        })
    };
    cuts.into_iter().map(member).collect()
}

/// Names and values of a JSON object, as pieces of its text.
struct Cuts<'t>(Vec<(&'t RawValue, &'t RawValue)>);

impl<'t> Deserialize<'t> for Cuts<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CutsVisitor)
    }
}

struct CutsVisitor;

impl<'t> Visitor<'t> for CutsVisitor {
    type Value = Cuts<'t>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut object: A) -> Result<Cuts<'t>, A::Error> {
        let mut cuts = Vec::new();
        while let Some(cut) = object.next_entry()? {
            cuts.push(cut);
        }
        Ok(Cuts(cuts))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
