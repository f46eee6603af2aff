//! Open data for the app: what WeChat encrypts for a phone, or keeps under a cloudID, becomes JSON.
//!
//! Who the user is and which session keys count comes from outside; here is what is done with them. There is one error for
//! everything that cannot be decrypted. Whoever may send ciphertexts and is told why one does not open can decrypt what
//! was never meant for him, block by block; why it was is in the metrics.

mod places;

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::json;

pub(crate) use places::{Content, Place, Refused, find, pieces};

use crate::answer::Answer;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::domain::{AppId, CloudId, Malformed, OpenId, PhoneCode, SessionKey};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::telemetry::metrics::Metrics;
use crate::wechat::cloud_id;
use crate::wechat::open_data::{Accepted, Encrypted, Flaw, OpenData};
use crate::wechat::signature::is_raw_data_signature;

/// Opens what WeChat has closed, under one configuration.
pub(crate) struct Opener {
    appid: AppId,
    max_age: Option<Duration>,
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
}

/// A ciphertext, and what the phone says it knows of the plaintext.
pub(crate) struct Sealed {
    encrypted: Encrypted,
    /// `rawData` and `signature`.
    signed: Option<(String, String)>,
}

/// What a client asks to have opened.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    encrypted_data: Option<String>,
    iv: Option<String>,
    raw_data: Option<String>,
    signature: Option<String>,
    #[serde(rename = "cloudID")]
    cloud_id: Option<String>,
    /// From `wx.login`, to be exchanged first; where a phone number is asked for, from the phone number button.
    code: Option<String>,
}

/// The thing itself.
pub(crate) enum Wanted {
    Encrypted(Sealed),
    Cloud(CloudId),
}

/// What a phone number is told by.
pub(crate) enum Number {
    Code(PhoneCode),
    Encrypted(Sealed),
}

impl Request {
    /// Reads the body of `/wx/open-data` or `/wx/phone`. Members that are not ours do not matter: phones send what they
    /// were given as it is.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(body).map_err(|_| {
            let detail = (
                "the body must be a JSON object with `encryptedData` and `iv`, `cloudID` or `code`, all strings and each once",
                "请求体须为 JSON 对象，含 `encryptedData` 和 `iv`，或 `cloudID`，或 `code`；均为字符串，且各出现一次",
            );
            Error::downstream(Kind::BadRequest, detail)
        })
    }

    /// Reads the query of the seed demo's clients.
    pub(crate) fn of_query(query: &[u8]) -> Self {
        let mut request = Self::default();
        for pair in query.split(|b| *b == b'&') {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let (name, value) = (halves.next(), halves.next());
            let value = || percent_decoded(value.unwrap_or_default());
            match name {
                Some(b"encryptedData") => request.encrypted_data = Some(value()),
                Some(b"iv") => request.iv = Some(value()),
                Some(b"rawData") => request.raw_data = Some(value()),
                Some(b"signature") => request.signature = Some(value()),
                Some(b"code") => request.code = Some(value()),
                _ => {}
            }
        }
        request
    }

    /// The code that came along.
    pub(crate) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// What is to be opened. With cloud development a phone is given both, and then no call is needed.
    pub(crate) fn wanted(&self) -> Result<Wanted, Error> {
        if let Some(sealed) = self.sealed()? {
            return Ok(Wanted::Encrypted(sealed));
        }
        match &self.cloud_id {
            Some(id) => CloudId::parse(id).map(Wanted::Cloud).map_err(bad),
            None => Err(bad(Malformed(
                "`encryptedData` and `iv`, or a `cloudID`, are missing",
                "须提供 `encryptedData` 和 `iv`，或提供 `cloudID`",
            ))),
        }
    }

    /// The ciphertext, if it is all there.
    fn sealed(&self) -> Result<Option<Sealed>, Error> {
        let (Some(data), Some(iv)) = (&self.encrypted_data, &self.iv) else {
            return Ok(None);
        };
        let signed = self.raw_data.clone().zip(self.signature.clone());
        Sealed::parse(data, iv, signed).map(Some)
    }

    /// What the number that is asked for is told by. The button gives a code beside the ciphertext; the code is better, as
    /// no session_key can be too old for it.
    pub(crate) fn number(&self) -> Result<Number, Error> {
        if let Some(code) = &self.code {
            return PhoneCode::parse(code).map(Number::Code).map_err(bad);
        }
        match self.sealed()? {
            Some(sealed) => Ok(Number::Encrypted(sealed)),
            None => Err(bad(Malformed(
                "a phone number comes from a `code`, or from `encryptedData` and `iv`",
                "获取手机号须提供 `code`，或提供 `encryptedData` 和 `iv`",
            ))),
        }
    }
}

impl Sealed {
    /// Reads the members of an object. What is told here the client can see for itself.
    pub(crate) fn parse(
        encrypted_data: &str,
        iv: &str,
        signed: Option<(String, String)>,
    ) -> Result<Self, Error> {
        let encrypted = Encrypted::parse(encrypted_data, iv).map_err(bad)?;
        Ok(Self { encrypted, signed })
    }
}

impl Opener {
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, metrics: Arc<Metrics>) -> Self {
        Self {
            appid: config.app.appid.clone(),
            max_age: config.open_data.max_age,
            gateway,
            metrics,
        }
    }

    /// Decrypts with the first of `keys` that fits.
    pub(crate) fn decrypt(
        &self,
        sealed: &Sealed,
        keys: &[SessionKey],
        now: Timestamp,
    ) -> Result<OpenData, Error> {
        let accepted = Accepted {
            appid: &self.appid,
            now,
            max_age: self.max_age,
        };
        // Under the wrong keys nearly all fail by their padding; what is wrong under the right one says more.
        let mut worst = Flaw::Padding;
        for (age, key) in keys.iter().enumerate() {
            match sealed.decrypt(key, accepted) {
                Ok(data) => {
                    self.metrics.decrypted("ok", Some(age));
                    return Ok(data);
                }
                Err(flaw) => worst = worst.max(flaw),
            }
        }
        self.metrics.decrypted(worst.label(), None);
        tracing::debug!(
            flaw = worst.label(),
            keys = keys.len(),
            "open data cannot be decrypted"
        );
        Err(undecryptable())
    }

    /// What WeChat keeps for `user` under cloudIDs, in their order.
    pub(crate) async fn fetch(
        &self,
        user: &OpenId,
        ids: &[CloudId],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let fetched = self.gateway.open_data(user, ids).await?;
        let json = |data: cloud_id::OpenData| match data.outcome {
            Ok(json) => Ok(json.get().as_bytes().to_vec()),
            Err(refusal) => Err(Gateway::refused_cloud_id(refusal)),
        };
        fetched.into_iter().map(json).collect()
    }

    /// The phone number that `user` has given with the button.
    pub(crate) async fn phone_by_code(
        &self,
        code: &PhoneCode,
        user: &OpenId,
    ) -> Result<Answer, Error> {
        let number = self.gateway.phone_number(code, Some(user)).await?;
        Ok(Answer::json(
            200,
            &json!({
                "phoneNumber": number.number,
                "purePhoneNumber": number.pure_number,
                "countryCode": number.country_code,
                "watermark": { "timestamp": number.timestamp, "appid": self.appid.as_str() },
            }),
        ))
    }
}

/// A phone number that was decrypted, as WeChat tells one that it is asked for.
pub(crate) fn phone(data: &OpenData) -> Result<Answer, Error> {
    let text = |name| match &data.fields()[name] {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let absent = || {
        bad(Malformed(
            "`encryptedData` holds no phone number",
            "`encryptedData` 中没有手机号",
        ))
    };
    if !data.fields().contains_key("phoneNumber") {
        return Err(absent());
    }
    let mut phone = data.fields().clone();
    for name in ["phoneNumber", "purePhoneNumber", "countryCode"] {
        if phone.contains_key(name) {
            phone.insert(name.to_owned(), text(name).ok_or_else(absent)?.into());
        }
    }
    Ok(Answer::json(200, &phone.into()))
}

/// An object as it was opened.
pub(crate) fn answer(json: &[u8]) -> Answer {
    Answer::empty(200)
        .with("content-type", "application/json")
        .with("cache-control", "no-store")
        .body(json)
}

impl Sealed {
    fn decrypt(&self, key: &SessionKey, accepted: Accepted<'_>) -> Result<OpenData, Flaw> {
        let data = self.encrypted.decrypt(key, accepted)?;
        match &self.signed {
            Some((raw, signature)) if !is_raw_data_signature(signature, raw, key) => {
                Err(Flaw::Signature)
            }
            _ => Ok(data),
        }
    }
}

/// The one error for all that cannot be decrypted.
fn undecryptable() -> Error {
    let detail = (
        "the data cannot be decrypted with this user's session keys",
        "无法用该用户的 session_key 解密数据",
    );
    Error::downstream(Kind::DecryptFailed, detail)
        .with_hint(("call wx.login again", "请重新调用 wx.login"))
}

fn bad(why: Malformed) -> Error {
    Error::downstream(Kind::BadRequest, why)
}

/// A value of a query. A `+` stays: it stands for itself in base64, where it does not it is repaired. So does a `%` that
/// escapes nothing.
fn percent_decoded(text: &[u8]) -> String {
    percent_decode(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once() {
        let request = Request::of_query(b"code=a%2Bb&iv=x+y%3D&sessionKey=k&encryptedData&rawData=%7B%22n%22%3A%22%E5%BC%A0%22%7D&signature=%zz");
        assert_eq!(request.code(), Some("a+b"));
        assert_eq!(request.iv.as_deref(), Some("x+y="));
        assert_eq!(request.encrypted_data.as_deref(), Some(""));
        assert_eq!(request.raw_data.as_deref(), Some(r#"{"n":"张"}"#));
        assert_eq!(request.signature.as_deref(), Some("%zz"));
    }

    #[test]
    fn what_is_asked_for_twice_or_in_another_type_is_refused() {
        for body in [
            &b""[..],
            b"[]x",
            b"{\"iv\":1}",
            b"{\"iv\":\"a\",\"iv\":\"b\"}",
            b"{\"code\":{}}",
        ] {
            assert!(Request::parse(body).is_err(), "{}", body.escape_ascii());
        }
        let request = Request::parse(br#"{"errMsg":"ok","userInfo":{},"code":null}"#).unwrap();
        assert_eq!(request.code(), None);
        assert!(request.wanted().is_err());
    }
}
