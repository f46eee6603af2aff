//! `checksession` and `resetusersessionkey`: whether a session_key still is the user's, and a new one in its place.
//!
//! Source: developers.weixin.qq.com, 服务端 / 小程序登录 / 检验登录态 and 重置登录态. Both show a signature made with the key, in the
//! query of a GET, over nothing; so the key itself never travels.

use serde_json::Value;

use super::answer::{Answer, Invalid};
use super::api::Api;
use crate::domain::{OpenId, SessionKey};

/// Whether the key is good, by GET and with an access_token.
pub const CHECK: Api = Api {
    path: "/wxa/checksession",
    if_lost: None,
};

/// A new key, by GET and with an access_token. It lives no longer than the old one would have.
pub const RESET: Api = Api {
    path: "/wxa/resetusersessionkey",
    if_lost: Some((
        "the session_key may have changed; call wx.login again",
        "session_key 可能已变更；请重新调用 wx.login",
    )),
};

/// Whether `code` says that the signature was made with another key than the user's.
pub fn is_stale_key(code: i64) -> bool {
    matches!(code, 87007 | 87009)
}

/// The query's pairs beside the access_token.
pub fn query<'a>(openid: &'a OpenId, signature: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("openid", openid.as_str()),
        ("signature", signature),
        ("sig_method", "hmac_sha256"),
    ]
}

/// Reads the answer to a reset: the new key of the same user.
pub fn parse_reset(answer: &Answer, openid: &OpenId) -> Result<SessionKey, Invalid> {
    let text = |name| answer.fields().get(name).and_then(Value::as_str);
    if text("openid").is_some_and(|told| told != openid.as_str()) {
        return Err(Invalid::Field("the session_key is another user's"));
    }
    let key =
        text("session_key").ok_or(Invalid::Field("the session_key is missing or not a string"))?;
    SessionKey::parse(key).map_err(|malformed| Invalid::Field(malformed.0))
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    #[test]
    fn a_new_key_must_be_one_and_the_same_users() {
        let openid = OpenId::parse("o6zAJs1Z").unwrap();
        let reset =
            |body: &str| parse_reset(&answer::parse(body.as_bytes()).ok().unwrap(), &openid);
        let key = r#""session_key":"HyVFkGl5F5OQWJZZaNzBBg==""#;
        assert!(reset(&format!(r#"{{"errcode":0,"openid":"o6zAJs1Z",{key}}}"#)).is_ok());
        for bad in [
            format!(r#"{{"openid":"o6zAJs2Z",{key}}}"#),
            r#"{"openid":"o6zAJs1Z"}"#.to_owned(),
            r#"{"openid":"o6zAJs1Z","session_key":"x"}"#.to_owned(),
        ] {
            assert!(reset(&bad).is_err(), "{bad}");
        }
    }
}
