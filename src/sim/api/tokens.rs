//! Access tokens.

use serde::Deserialize;
use serde_json::{Value, json};

use super::json_body;
use crate::sim::exchange::Request;
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;
use crate::sim::token::Grant;

/// `GET /cgi-bin/token`.
pub(super) fn token(state: &mut State, request: &Request) -> Result<Value, Refused> {
    let query = &request.query;
    check_client_credential(query.value("grant_type"))?;
    let app = state.authenticate(query.value("appid"), query.value("secret"))?;
    Ok(granted(&state.token(app)))
}

/// `POST /cgi-bin/stable_token`.
pub(super) fn stable_token(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        grant_type: Option<String>,
        appid: Option<String>,
        secret: Option<String>,
        force_refresh: Option<bool>,
    }

    let body: Body = json_body(request)?;
    check_client_credential(body.grant_type.as_deref())?;
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (appid, secret) = (given(&body.appid), given(&body.secret));
    let app = state.authenticate(appid.as_deref(), secret.as_deref())?;
    let grant = state.stable_token(app, body.force_refresh.unwrap_or(false))?;
    Ok(granted(&grant))
}

fn check_client_credential(grant_type: Option<&str>) -> Result<(), Refusal> {
    match grant_type {
        Some("client_credential") => Ok(()),
        _ => Err(Refusal::GrantTypeInvalid),
    }
}

fn granted(grant: &Grant) -> Value {
    json!({ "access_token": grant.access_token, "expires_in": grant.expires_in })
}

#[cfg(test)]
mod tests {
    use ::http::Method;
    use serde_json::{Value, json};

    use crate::sim::api::stage::{APP, Stage};

    fn stable(stage: &mut Stage, body: &str) -> (Option<i64>, Value) {
        stage.call(Method::POST, "/cgi-bin/stable_token", body)
    }

    #[test]
    fn the_classic_token_is_checked_and_new_each_time() {
        let mut stage = Stage::new();
        let path = "/cgi-bin/token?grant_type=client_credential";
        assert_eq!(stage.get("/cgi-bin/token"), Some(40002));
        assert_eq!(stage.get(path), Some(41002));
        let target = format!("{path}&appid=wx");
        assert_eq!(stage.get(&target), Some(40013));
        let target = format!("{path}&{APP}");
        assert_eq!(stage.get(&target), Some(41004));
        assert_eq!(stage.get(&format!("{target}&secret=x")), Some(40125));
        let target = format!("{target}&secret=right");
        let (_, one) = stage.call(Method::GET, &target, "");
        let (_, two) = stage.call(Method::GET, &target, "");
        assert_eq!(one["expires_in"], json!(7200));
        assert_ne!(one["access_token"], two["access_token"]);
        assert_eq!(stage.call(Method::POST, &target, "").0, Some(43001));
    }

    #[test]
    fn the_stable_token_takes_a_post_with_a_json_object() {
        let mut stage = Stage::new();
        assert_eq!(stage.get("/cgi-bin/stable_token"), Some(43002));
        let refused = [
            ("", 44002),
            ("{", 47001),
            ("[]x", 47001),
            (r#"{"grant_type":1}"#, 47001),
            ("{}", 40002),
            (r#"{"grant_type":"client_credential"}"#, 41002),
            (r#"{"grant_type":"client_credential","appid":"wx"}"#, 40013),
            (
                r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":""}"#,
                41004,
            ),
            (
                r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"x"}"#,
                40125,
            ),
        ];
        for (body, errcode) in refused {
            assert_eq!(stable(&mut stage, body).0, Some(errcode), "{body}");
        }
        let body = json!({
            "grant_type": "client_credential",
            "appid": "wx0123456789abcdef",
            "secret": "right",
            "force_refresh": false,
        });
        let (_, one) = stable(&mut stage, &body.to_string());
        let (_, two) = stable(&mut stage, &body.to_string());
        assert_eq!(one, two);
        assert_eq!(one["expires_in"], json!(7200));
    }
}
