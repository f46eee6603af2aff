//! `code2session`: a `wx.login` code becomes an openid and a session_key.
//!
//! Source: developers.weixin.qq.com, 服务端 / 小程序登录 / 小程序登录凭证校验. The code comes from the client and is not to be
//! trusted, the answer comes from the network and is not to be trusted either: the one is percent-encoded, so that
//! `&appid=` in it stays part of it, and of the other every field is parsed into its type, because the openid becomes a
//! header that apps believe.

use serde_json::Value;
use zeroize::Zeroizing;

use super::answer::{Answer, Invalid};
use super::api::{Api, query_of};
use crate::domain::{AppId, LoginCode, OpenId, SessionKey, UnionId};
use crate::secret::Secret;

/// The API's path. The method is GET, and no access_token is needed.
pub const PATH: &str = "/sns/jscode2session";

/// As it is called.
pub const API: Api = Api {
    path: PATH,
    if_lost: Some((
        "the code may be used up; call wx.login again",
        "该 code 可能已失效；请重新调用 wx.login",
    )),
};

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSession {
    /// The user, within this Mini Program.
    pub openid: OpenId,
    /// The user across the apps of an Open Platform account, if the Mini Program is bound to one.
    pub unionid: Option<UnionId>,
    /// The key of the user's signatures and encrypted data.
    pub session_key: SessionKey,
}

/// The query of the call. It holds the secret and the code in clear, so it is wiped when dropped.
pub fn query(appid: &AppId, secret: &Secret, code: &LoginCode) -> Zeroizing<String> {
    query_of(&[
        ("appid", appid.as_str()),
        ("secret", secret.expose()),
        ("js_code", code.expose()),
        ("grant_type", "authorization_code"),
    ])
}

/// Reads a success. Whoever calls has looked at the errcode.
pub fn parse(answer: &Answer) -> Result<UserSession, Invalid> {
    let fields = answer.fields();
    let text = |name| fields.get(name).and_then(Value::as_str);
    let openid = text("openid").ok_or(Invalid::Field("the openid is missing or not a string"))?;
    let session_key =
        text("session_key").ok_or(Invalid::Field("the session_key is missing or not a string"))?;
    Ok(UserSession {
        openid: OpenId::parse(openid).map_err(|malformed| Invalid::Field(malformed.0))?,
        unionid: unionid(fields.get("unionid"))?,
        session_key: SessionKey::parse(session_key)
            .map_err(|malformed| Invalid::Field(malformed.0))?,
    })
}

/// Whether `code` says that the AppSecret is wrong. WeChat checks it before it touches the login code, so that the
/// same login code may be tried with another secret.
pub fn is_wrong_secret(code: i64) -> bool {
    matches!(code, 40001 | 40125)
}

/// An empty unionid is the same as none: some SDK-shaped simulators write it.
fn unionid(value: Option<&Value>) -> Result<Option<UnionId>, Invalid> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => UnionId::parse(text)
            .map(Some)
            .map_err(|malformed| Invalid::Field(malformed.0)),
        Some(_) => Err(Invalid::Field("the unionid is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    fn login(body: &str) -> Result<UserSession, Invalid> {
        parse(&answer::parse(body.as_bytes())?)
    }

    #[test]
    fn a_code_cannot_inject_a_parameter() {
        let query = query(
            &AppId::parse("wx0123456789abcdef").unwrap(),
            &Secret::new("s+e=c&r%t"),
            &LoginCode::parse("c&appid=wxevil#frag?x=%26").unwrap(),
        );
        assert_eq!(
            query.as_str(),
            "appid=wx0123456789abcdef&secret=s%2Be%3Dc%26r%25t\
             &js_code=c%26appid%3Dwxevil%23frag%3Fx%3D%2526&grant_type=authorization_code"
        );
    }

    #[test]
    fn a_success_is_read_with_and_without_a_unionid() {
        let key = "HyVFkGl5F5OQWJZZaNzBBg==";
        let full = format!(
            r#"{{"session_key":"{key}","openid":"o6zAJs1Zf_WpsZ3G8vVC","unionid":"oU-123456"}}"#
        );
        let user = login(&full).unwrap();
        assert_eq!(user.openid.as_str(), "o6zAJs1Zf_WpsZ3G8vVC");
        assert_eq!(
            user.unionid.as_ref().map(UnionId::as_str),
            Some("oU-123456")
        );
        assert_eq!(user.session_key, SessionKey::parse(key).unwrap());
        for none in ["", r#","unionid":null"#, r#","unionid":"""#] {
            let body =
                format!(r#"{{"session_key":"{key}","openid":"o6zAJs1Zf_WpsZ3G8vVC"{none}}}"#);
            assert_eq!(login(&body).unwrap().unionid, None);
        }
    }

    #[test]
    fn a_user_session_does_not_print_its_key() {
        let user = UserSession {
            openid: OpenId::parse("o6zAJs1Zf_WpsZ3G8vVC").unwrap(),
            unionid: None,
            session_key: SessionKey::parse("HyVFkGl5F5OQWJZZaNzBBg==").unwrap(),
        };
        let printed = format!("{user:?}");
        assert!(printed.contains("SessionKey(***)"), "{printed}");
        assert!(!printed.contains("HyVFk"), "{printed}");
    }

    #[test]
    fn a_success_with_a_bad_field_is_invalid() {
        let key = r#""session_key":"HyVFkGl5F5OQWJZZaNzBBg==""#;
        for body in [
            format!("{{{key}}}"),
            format!(r#"{{{key},"openid":42}}"#),
            format!(r#"{{{key},"openid":["o6zAJs1Zf_WpsZ3G8vVC"]}}"#),
            format!(r#"{{{key},"openid":""}}"#),
            format!(r#"{{{key},"openid":"a\r\nX-Admin: 1"}}"#),
            format!("{{{key},\"openid\":\"abcdef\nX\"}}"),
            format!(r#"{{{key},"openid":"o6zAJs1Zf_WpsZ3G8vVC","unionid":7}}"#),
            format!(r#"{{{key},"openid":"o6zAJs1Zf_WpsZ3G8vVC","unionid":"a b c d"}}"#),
            r#"{"openid":"o6zAJs1Zf_WpsZ3G8vVC"}"#.to_owned(),
            r#"{"openid":"o6zAJs1Zf_WpsZ3G8vVC","session_key":"c2hvcnQ="}"#.to_owned(),
            "{}".to_owned(),
        ] {
            assert!(matches!(login(&body), Err(Invalid::Field(_))), "{body}");
        }
    }
}
