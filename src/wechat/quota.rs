//! `openapi/quota/get`: how many calls of an API are left today.
//!
//! Source: developers.weixin.qq.com, 服务端 / openApi 管理 / 查询 API 调用额度. Quotas count by the day in Beijing.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Invalid};
use super::api::{Api, json_body};

/// As it is called, by POST and with an access_token.
pub const API: Api = Api {
    path: "/cgi-bin/openapi/quota/get",
    if_lost: None,
};

/// The quota of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many calls a day.
    pub daily_limit: i64,
    /// How many are left of them.
    pub remain: i64,
}

/// The body of a question about the API at `path`.
pub fn body(path: &str) -> Bytes {
    json_body(&json!({ "cgi_path": path }))
}

/// Whether `code` says that of this API no quota is told, today or tomorrow.
pub fn is_untold(code: i64) -> bool {
    matches!(code, 76021 | 76022)
}

/// Reads a success. Whoever calls has looked at the errcode.
pub fn parse(answer: &Answer) -> Result<Quota, Invalid> {
    let quota = answer.fields().get("quota");
    let number = |name| {
        quota
            .and_then(|quota| quota.get(name))
            .and_then(Value::as_i64)
    };
    match (number("daily_limit"), number("remain")) {
        (Some(daily_limit), Some(remain)) => Ok(Quota {
            daily_limit,
            remain,
        }),
        _ => Err(Invalid::Field("the quota is missing or has no numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    #[test]
    fn a_quota_is_two_numbers_or_none() {
        let quota = |body: &str| parse(&answer::parse(body.as_bytes()).ok().unwrap());
        let told = quota(r#"{"errcode":0,"quota":{"daily_limit":10,"used":3,"remain":7}}"#);
        let expected = Quota {
            daily_limit: 10,
            remain: 7,
        };
        assert_eq!(told, Ok(expected));
        for bad in [
            r#"{"errcode":0}"#,
            r#"{"quota":{"daily_limit":"x","remain":1}}"#,
        ] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }
}
