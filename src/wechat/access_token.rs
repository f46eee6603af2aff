//! `stable_token`: an AppSecret becomes an access_token.
//!
//! Source: developers.weixin.qq.com, 服务端 / 接口调用凭证 / 获取稳定版接口调用凭据. Asked without force, WeChat gives the same token
//! to all who ask and renews it by itself five minutes before its end, so that replicas need not agree on anything. Force
//! ends the token for all of them, and there are twenty of it a day.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Invalid};
use super::api::{Api, json_body};
use crate::domain::{AccessToken, AppId};
use crate::secret::Secret;

/// As it is called, by POST. The AppSecret is what is shown.
pub const API: Api = Api {
    path: "/cgi-bin/stable_token",
    if_lost: None,
};

/// The longest life that is believed. WeChat's tokens live two hours at most.
const LONGEST_LIFE: f64 = 7200.0;

/// A token and how long it lives from the moment at which it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token.
    pub token: AccessToken,
    /// More than zero, two hours at most.
    pub expires_in: Duration,
}

/// The body of the call. `force` ends the token that there is.
pub fn body(appid: &AppId, secret: &Secret, force: bool) -> Bytes {
    json_body(&json!({
        "grant_type": "client_credential",
        "appid": appid.as_str(),
        "secret": secret.expose(),
        "force_refresh": force,
    }))
}

/// Reads a success. Whoever calls has looked at the errcode.
pub fn parse(answer: &Answer) -> Result<Grant, Invalid> {
    let token = answer.fields().get("access_token").and_then(Value::as_str);
    let token = token.ok_or(Invalid::Field(
        "the access_token is missing or not a string",
    ))?;
    Ok(Grant {
        token: AccessToken::parse(token).map_err(|malformed| Invalid::Field(malformed.0))?,
        expires_in: life(answer.fields().get("expires_in"))?,
    })
}

/// A life of nothing is refused and not taken for a short one: a token that is dead on arrival would be fetched without end.
fn life(value: Option<&Value>) -> Result<Duration, Invalid> {
    let seconds = match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds >= 1.0 => {
            Ok(Duration::from_secs_f64(seconds.min(LONGEST_LIFE)))
        }
        _ => Err(Invalid::Field("the expires_in is not a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    fn grant(body: &str) -> Result<Grant, Invalid> {
        parse(&answer::parse(body.as_bytes())?)
    }

    fn life_of(expires_in: &str) -> Option<u64> {
        let body = format!(r#"{{"access_token":"92_abc","expires_in":{expires_in}}}"#);
        grant(&body).ok().map(|grant| grant.expires_in.as_secs())
    }

    #[test]
    fn a_life_is_between_a_second_and_two_hours_or_there_is_none() {
        for (expires_in, life) in [
            ("7200", Some(7200)),
            ("345", Some(345)),
            ("\"345\"", Some(345)),
            ("1e12", Some(7200)),
            ("1000000000000", Some(7200)),
            ("18446744073709551616", Some(7200)),
            ("\"1e12\"", Some(7200)),
            ("1", Some(1)),
            ("0", None),
            ("-1", None),
            ("\"inf\"", None),
            ("\"NaN\"", None),
            ("\"\"", None),
            ("null", None),
            ("true", None),
        ] {
            assert_eq!(life_of(expires_in), life, "{expires_in}");
        }
    }

    #[test]
    fn a_token_of_two_kilobytes_is_one_and_a_broken_one_is_none() {
        let body = |token: &str| format!(r#"{{"access_token":{token},"expires_in":7200}}"#);
        let long = "x".repeat(2048);
        let grant_of_long = grant(&body(&format!("\"{long}\""))).unwrap();
        assert_eq!(grant_of_long.token.expose(), long);
        for bad in ["\"\"", "7", "null", "\"a b\"", "\"a\\r\\nb\""] {
            assert!(matches!(grant(&body(bad)), Err(Invalid::Field(_))), "{bad}");
        }
    }

    #[test]
    fn the_question_is_as_documented() {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let body = body(&appid, &Secret::new("s"), false);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"grant_type": "client_credential", "appid": "wx0123456789abcdef", "secret": "s", "force_refresh": false})
        );
    }
}
