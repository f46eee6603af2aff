//! `getuserphonenumber`: a code of the phone number button becomes a phone number.
//!
//! Source: developers.weixin.qq.com, 服务端 / 用户信息 / 手机号 / 获取手机号. The number says which app it was made for, and that is
//! looked at, because it is the one thing by which a number of somewhere else would show.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Invalid};
use super::api::{Api, json_body};
use crate::domain::{AppId, OpenId, PhoneCode};

/// As it is called, by POST and with an access_token.
pub const API: Api = Api {
    path: "/wxa/business/getuserphonenumber",
    if_lost: Some((
        "the code may be used up; have the user press the phone number button again",
        "该 code 可能已失效；请让用户再次点击手机号授权按钮",
    )),
};

/// A user's phone number. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct PhoneNumber {
    /// With the country code if it is a foreign one.
    pub number: String,
    /// Without the country code.
    pub pure_number: String,
    /// The country code, such as `86`.
    pub country_code: String,
    /// When the user gave it, in Unix seconds.
    pub timestamp: u64,
}

/// The body of the call. With an openid, WeChat refuses a code of another user.
pub fn body(code: &PhoneCode, openid: Option<&OpenId>) -> Bytes {
    let mut body = json!({ "code": code.expose() });
    if let Some(openid) = openid {
        body["openid"] = json!(openid.as_str());
    }
    json_body(&body)
}

/// Reads a success: a number that was given to `appid`.
pub fn parse(answer: &Answer, appid: &AppId) -> Result<PhoneNumber, Invalid> {
    let info = object(answer.fields(), "phone_info")
        .ok_or(Invalid::Field("the phone_info is missing or not an object"))?;
    let watermark = object(info, "watermark")
        .ok_or(Invalid::Field("the watermark is missing or not an object"))?;
    if watermark.get("appid").and_then(Value::as_str) != Some(appid.as_str()) {
        return Err(Invalid::Field("the watermark is of another app"));
    }
    Ok(PhoneNumber {
        number: number(info.get("phoneNumber"))?,
        pure_number: number(info.get("purePhoneNumber"))?,
        country_code: number(info.get("countryCode"))?,
        timestamp: watermark
            .get("timestamp")
            .and_then(Value::as_u64)
            .ok_or(Invalid::Field("the watermark has no timestamp"))?,
    })
}

fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    fields.get(name).and_then(Value::as_object)
}

/// Part of a number: text that is fit for a header. The country code comes as a number in older answers.
fn number(value: Option<&Value>) -> Result<String, Invalid> {
    let text = match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(Invalid::Field("a part of the phone number is missing")),
    };
    let fits =
        (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !fits {
        return Err(Invalid::Field("a part of the phone number is not a number"));
    }
    Ok(text)
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{answer, errcode};
    use super::*;

    const DOCUMENTED: &str = r#"{"errcode":0,"errmsg":"ok","phone_info":{"phoneNumber":"13800138000",
        "purePhoneNumber":"13800138000","countryCode":"86","watermark":{"timestamp":1637744274,"appid":"wx0123456789abcdef"}}}"#;

    fn phone(body: &str) -> Result<PhoneNumber, Invalid> {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        parse(&answer::parse(body.as_bytes())?, &appid)
    }

    #[test]
    fn a_country_code_is_text_or_a_number() {
        for body in [DOCUMENTED, &DOCUMENTED.replace("\"86\"", "86")] {
            let phone = phone(body).unwrap();
            assert_eq!(phone.number, "13800138000");
            assert_eq!(phone.country_code, "86");
            assert_eq!(phone.timestamp, 1_637_744_274);
            assert_eq!(format!("{phone:?}"), "PhoneNumber(***)");
        }
    }

    #[test]
    fn a_number_of_another_app_or_without_one_or_that_could_split_a_header_is_invalid() {
        for (from, to) in [
            ("wx0123456789abcdef", "wxfedcba9876543210"),
            ("\"appid\"", "\"x\""),
            ("\"watermark\"", "\"x\""),
            ("\"phone_info\"", "\"x\""),
            ("\"purePhoneNumber\"", "\"x\""),
            (
                "\"phoneNumber\":\"13800138000\"",
                "\"phoneNumber\":\"1\\r\\nX: 1\"",
            ),
            ("\"phoneNumber\":\"13800138000\"", "\"phoneNumber\":\"\""),
            ("\"86\"", "null"),
            ("1637744274", "\"soon\""),
        ] {
            let body = DOCUMENTED.replace(from, to);
            assert!(matches!(phone(&body), Err(Invalid::Field(_))), "{body}");
        }
    }

    #[test]
    fn a_code_that_belongs_elsewhere_is_the_clients_fault() {
        for code in [40013, 40029] {
            let meaning = errcode::meaning_at(API.path, code);
            assert_eq!((meaning.code, meaning.status), (code, 401));
            let advice = errcode::advice_at(API.path, code).unwrap();
            assert!(advice.0.contains("phone number button"));
        }
    }

    #[test]
    fn a_code_that_does_not_fit_the_openid_may_be_another_users() {
        let meaning = errcode::meaning_at(API.path, 40003);
        assert_eq!((meaning.code, meaning.status), (40003, 400));
        assert!(meaning.en.contains("another user's"));
        let (en, zh) = errcode::advice_at(API.path, 40003).unwrap();
        assert!(en.contains("another user's") && zh.contains("其他用户"));
    }

    #[test]
    fn the_openid_is_sent_only_if_there_is_one() {
        let code = PhoneCode::parse("c").unwrap();
        assert_eq!(body(&code, None), r#"{"code":"c"}"#);
        let openid = OpenId::parse("o6zAJs1Z").unwrap();
        assert_eq!(
            body(&code, Some(&openid)),
            r#"{"code":"c","openid":"o6zAJs1Z"}"#
        );
    }
}
