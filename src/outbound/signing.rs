//! Signatures that the app cannot make: it has neither the user's session_key nor need it have the key of virtual payment.
//!
//! A call that names its user by `X-WX-OPENID` gets what WeChat wants to see of that user, in place of whatever stands in the
//! query. What is signed is the body as it is sent, to the byte, or nothing where WeChat looks at no body (see
//! `wechat::signature`).

use serde_json::Value;

use super::Parameters;
use crate::config::VirtualPayment;
use crate::domain::{Malformed, OpenId};
use crate::error::{Error, Kind, Side};
use crate::wechat::endpoints::{self, Signed};
use crate::wechat::signature::pay_sig;

/// The header by which the app names a user, as CloudRun does.
const OPENID: &str = "x-wx-openid";

/// What is to be signed about a call.
pub(crate) struct Signing {
    /// With whose session_key, if the app names a user.
    pub(crate) user: Option<OpenId>,
    signed: Signed,
}

impl Signing {
    /// What a call of `path` needs; `None` if it is sent as it is.
    ///
    /// # Errors
    /// If the user is named by something that is no openid.
    pub(crate) fn of(path: &str, headers: &http::HeaderMap) -> Result<Option<Self>, Error> {
        let signed = endpoints::signed(path);
        let user = match (signed, headers.get(OPENID)) {
            (Signed::None | Signed::Pay, _) | (_, None) => None,
            (_, Some(openid)) => {
                Some(OpenId::from_bytes(openid.as_bytes()).map_err(|malformed| {
                    let Malformed(en, zh) = malformed;
                    let detail = (format!("X-WX-OPENID: {en}"), format!("X-WX-OPENID：{zh}"));
                    Error::downstream(Kind::BadRequest, detail)
                })?)
            }
        };
        let needed = match signed {
            Signed::None => false,
            Signed::Session | Signed::SessionAlone => user.is_some(),
            Signed::Pay | Signed::PayAndSession => true,
        };
        Ok(needed.then_some(Self { user, signed }))
    }

    /// What the user's signature is over, in a call with `body`.
    pub(crate) fn of_user<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        match self.signed {
            Signed::SessionAlone => b"",
            _ => body,
        }
    }

    /// Adds the signatures to the query. `of_user` is the user's over [`Self::of_user`].
    ///
    /// # Errors
    /// If the key of virtual payment is needed and not configured, or the body is about another user.
    pub(crate) fn sign(
        &self,
        path: &str,
        parameters: &mut Parameters,
        body: &[u8],
        of_user: Option<&str>,
        keys: &VirtualPayment,
    ) -> Result<(), Error> {
        let pays = matches!(self.signed, Signed::Pay | Signed::PayAndSession);
        if let (Some(user), Some(signature)) = (&self.user, of_user) {
            parameters.remove(&["signature", "sig_method"]);
            if pays {
                is_about(user, body)?;
            } else {
                parameters.remove(&["openid"]);
                parameters.push("openid", user.as_str());
                parameters.push("sig_method", "hmac_sha256");
            }
            parameters.push("signature", signature);
        }
        if pays {
            let (key, name) = match environment(body) {
                1 => (&keys.sandbox_app_key, "sandbox_app_key"),
                _ => (&keys.app_key, "app_key"),
            };
            match key {
                Some(key) => {
                    parameters.remove(&["pay_sig"]);
                    parameters.push("pay_sig", &pay_sig(key, path, body));
                }
                None if parameters.get("pay_sig").is_some() => {}
                None => return Err(no_key(name)),
            }
        }
        Ok(())
    }
}

/// What the app is told if nobody knows the user's session_key.
pub(crate) fn unknown_user() -> Error {
    let detail = (
        "no session_key of this user is known: the user has not logged in here",
        "没有该用户的 session_key：该用户未在此登录",
    );
    Error::downstream(Kind::UserUnknown, detail)
        .with_hint((
            "let the Mini Program log in through the sidecar (POST /wx/login), or fetch the session with jscode2session through it",
            "请让小程序通过 sidecar 登录（POST /wx/login），或通过 sidecar 调用 jscode2session",
        ))
}

fn no_key(name: &str) -> Error {
    let detail = (
        format!("virtual payment is signed with a key, and `{name}` is not configured"),
        format!("虚拟支付需要密钥签名，而 `{name}` 没有配置"),
    );
    Error::new(Kind::CallDenied, Side::Us, detail).with_hint((
        format!("write {name} or {name}_file below [wechat.virtual_payment] in sidecar.toml"),
        format!("请在 sidecar.toml 的 [wechat.virtual_payment] 中写入 {name} 或 {name}_file"),
    ))
}

/// WeChat would refuse it too, but without saying why.
fn is_about(user: &OpenId, body: &[u8]) -> Result<(), Error> {
    match member(body, "openid") {
        Some(Value::String(openid)) if openid != user.as_str() => {
            let detail = (
                "X-WX-OPENID and the body's `openid` are two users",
                "X-WX-OPENID 与请求体中的 `openid` 不是同一个用户",
            );
            Err(Error::downstream(Kind::BadRequest, detail))
        }
        _ => Ok(()),
    }
}

/// `env`: 0 is the real world, 1 the sandbox.
fn environment(body: &[u8]) -> i64 {
    member(body, "env")
        .and_then(|env| env.as_i64())
        .unwrap_or_default()
}

fn member(body: &[u8], name: &str) -> Option<Value> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    body.get_mut(name).map(Value::take)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::domain::AppId;
    use crate::secret::Secret;

    const BODY: &[u8] = br#"{"openid": "xxxxxx", "user_ip": "127.0.0.1", "env": 0}"#;

    fn named(openid: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(OPENID, HeaderValue::from_str(openid).unwrap());
        headers
    }

    fn parameters(query: &str) -> Parameters {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        Parameters::parse(query, &[], &appid).unwrap()
    }

    fn keys() -> VirtualPayment {
        VirtualPayment {
            app_key: Some(Secret::new("12345")),
            sandbox_app_key: None,
        }
    }

    fn sign(path: &str, headers: &HeaderMap, query: &str, body: &[u8]) -> Result<String, u16> {
        let signing = Signing::of(path, headers).unwrap().unwrap();
        let mut parameters = parameters(query);
        let of_user = signing.user.as_ref().map(|_| "5ig");
        signing
            .sign(path, &mut parameters, body, of_user, &keys())
            .map_err(|error| error.status())?;
        Ok(parameters.into_kept())
    }

    #[test]
    fn only_calls_that_need_a_signature_and_name_a_user_are_signed() {
        let (user, nobody) = (named("o6zAJs1Z"), HeaderMap::new());
        assert!(Signing::of("/wxa/msg_sec_check", &user).unwrap().is_none());
        assert!(Signing::of("/wxa/checksession", &nobody).unwrap().is_none());
        assert!(Signing::of("/wxa/checksession", &user).unwrap().is_some());
        assert!(Signing::of("/xpay/query_order", &nobody).unwrap().is_some());
        assert!(Signing::of("/wxa/checksession", &named("a b")).is_err());
        assert!(Signing::of("/wxa/msg_sec_check", &named("a b")).is_ok());
    }

    #[test]
    fn of_a_user_the_body_is_signed_or_nothing_as_wechat_looks_at_it() {
        let user = named("o6zAJs1Z");
        for (path, signed) in [
            ("/wxa/set_user_storage", BODY),
            ("/xpay/currency_pay", BODY),
            ("/wxa/business/getuserencryptkey", b""),
            ("/wxa/checksession", b""),
            ("/wxa/resetusersessionkey", b""),
        ] {
            let signing = Signing::of(path, &user).unwrap().unwrap();
            assert_eq!(signing.of_user(BODY), signed, "{path}");
        }
    }

    #[test]
    fn a_users_signature_replaces_what_stands_there() {
        let query = sign(
            "/wxa/checksession",
            &named("o6zAJs1Z"),
            "openid=other&signature=old&sig_method=x&a=b",
            b"",
        );
        assert_eq!(
            query.unwrap(),
            "a=b&openid=o6zAJs1Z&sig_method=hmac_sha256&signature=5ig"
        );
    }

    #[test]
    fn a_payment_is_signed_with_the_key_of_its_world_over_path_and_body() {
        let signed = sign("/xpay/query_order", &HeaderMap::new(), "pay_sig=old", BODY).unwrap();
        let expected = pay_sig(&Secret::new("12345"), "/xpay/query_order", BODY);
        assert_eq!(signed, format!("pay_sig={expected}"));
        let both = sign("/xpay/currency_pay", &named("xxxxxx"), "", BODY).unwrap();
        assert!(both.starts_with("signature=5ig&pay_sig="), "{both}");

        let sandbox = br#"{"openid":"xxxxxx","env":1}"#;
        let nobody = HeaderMap::new();
        assert_eq!(sign("/xpay/query_order", &nobody, "", sandbox), Err(403));
        let own = sign("/xpay/query_order", &nobody, "pay_sig=own", sandbox);
        assert_eq!(own.unwrap(), "pay_sig=own");
        assert_eq!(
            sign("/xpay/currency_pay", &named("another"), "", BODY),
            Err(400)
        );
    }
}
