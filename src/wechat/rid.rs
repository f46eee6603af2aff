//! `openapi/rid/get`: what WeChat remembers of a call, by the rid that its answer had. It does for seven days.
//!
//! Source: developers.weixin.qq.com, 服务端 / openApi 管理 / 查询 rid 信息.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Invalid};
use super::api::{Api, json_body};

/// As it is called, by POST and with an access_token.
pub const API: Api = Api {
    path: "/cgi-bin/openapi/rid/get",
    if_lost: None,
};

/// A call as WeChat remembers it. Bodies may hold what users wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// When, in Unix time.
    pub invoke_time: u64,
    /// How long it took, in milliseconds.
    pub cost_in_ms: u64,
    /// The URL, as far as WeChat shows it; it may have the access_token in it.
    pub request_url: String,
    /// What was sent.
    pub request_body: String,
    /// What was answered.
    pub response_body: String,
    /// From where.
    pub client_ip: String,
}

/// The body of the question.
pub fn body(rid: &str) -> Bytes {
    json_body(&json!({ "rid": rid }))
}

/// Reads a success. Whoever calls has looked at the errcode.
pub fn parse(answer: &Answer) -> Result<Remembered, Invalid> {
    let request = answer
        .fields()
        .get("request")
        .ok_or(Invalid::Field("the call is missing"))?;
    let number = |name| {
        request
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let text = |name| {
        let value = request.get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    Ok(Remembered {
        invoke_time: number("invoke_time"),
        cost_in_ms: number("cost_in_ms"),
        request_url: text("request_url"),
        request_body: text("request_body"),
        response_body: text("response_body"),
        client_ip: text("client_ip"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    #[test]
    fn a_call_is_remembered_as_documented() {
        let body = r#"{"errcode":0,"errmsg":"ok","request":{"invoke_time":1635156704,"cost_in_ms":30,
            "request_url":"access_token=50_Im7xxxx","request_body":"","response_body":"{\"errcode\":45009}",
            "client_ip":"113.xx.70.51"}}"#;
        let told = parse(&answer::parse(body.as_bytes()).ok().unwrap()).unwrap();
        assert_eq!((told.invoke_time, told.cost_in_ms), (1_635_156_704, 30));
        assert_eq!(told.response_body, r#"{"errcode":45009}"#);
        assert!(parse(&answer::parse(br#"{"errcode":0}"#).ok().unwrap()).is_err());
    }
}
