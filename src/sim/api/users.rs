//! Logins, and what is asked about a user who has logged in.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{json_body, ok, signed_by};
use crate::sim::exchange::Request;
use crate::sim::ids::base64_of;
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;

/// `GET /sns/jscode2session`. A POST is taken too; its parameters are those of the URL all the same.
pub(super) fn code_to_session(state: &mut State, request: &Request) -> Result<Value, Refused> {
    let query = &request.query;
    let app = state.authenticate(query.value("appid"), query.value("secret"))?;
    if query.value("grant_type") != Some("authorization_code") {
        return Err(Refusal::GrantTypeInvalid.into());
    }
    let code = query.value("js_code").ok_or(Refusal::CodeMissing)?;
    let login = state.log_in(app, code)?;

    let mut body = json!({
        "session_key": base64_of(&login.session_key),
        "openid": login.openid.as_str(),
    });
    if let Some(unionid) = login.unionid {
        body["unionid"] = json!(unionid.as_str());
    }
    Ok(body)
}

/// `POST /wxa/business/getuserphonenumber`.
pub(super) fn phone_number(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        code: Option<String>,
        openid: Option<String>,
    }

    let body: Body = json_body(request)?;
    let code = body.code.as_deref().filter(|code| !code.is_empty());
    let code = code.ok_or(Refusal::CodeMissing)?;
    let openid = body.openid.as_deref().filter(|openid| !openid.is_empty());
    let user = state.redeem_phone_code(app, code, openid)?;
    let number = state.phone_number(&user);
    Ok(ok(json!({
        "phone_info": {
            "phoneNumber": number,
            "purePhoneNumber": number,
            "countryCode": "86",
            "watermark": {
                "timestamp": state.now().as_secs(),
                "appid": state.apps[app].known.appid.as_str(),
            },
        },
    })))
}

/// `POST /wxa/getopendata`.
pub(super) fn open_data(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        cloudid_list: Vec<String>,
    }

    let body: Body = json_body(request)?;
    let openid = request.query.value("openid").unwrap_or_default();
    if state.user_of(app, openid).is_none() {
        return Err(Refusal::OpenIdInvalid.into());
    }
    let list: Vec<Value> = body
        .cloudid_list
        .iter()
        .map(|cloud_id| {
            let told = state.open_data(app, openid, cloud_id);
            json!({ "cloud_id": cloud_id, "json": told.to_string() })
        })
        .collect();
    Ok(ok(json!({ "data_list": list })))
}

/// `GET /wxa/checksession`.
pub(super) fn check_session(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
    signed_by(state, app, request, &request.body)?;
    Ok(ok(json!({})))
}

/// `GET /wxa/resetusersessionkey`, which SDKs call by POST.
pub(super) fn reset_session_key(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
    let user = signed_by(state, app, request, &request.body)?;
    let key = state.reset_session_key(app, &user)?;
    let openid = state.openid(app, &user);
    Ok(ok(
        json!({ "openid": openid.as_str(), "session_key": base64_of(&key) }),
    ))
}

#[cfg(test)]
mod tests {
    use ::http::Method;
    use serde_json::json;

    use crate::domain::SessionKey;
    use crate::sim::api::stage::{APP, Stage};
    use crate::sim::ids::session_signature;
    use crate::sim::state::{CodeKind, UserChange};

    #[test]
    fn login_is_checked_in_wechats_order() {
        let mut stage = Stage::new();
        let code = stage.state.issue_code(0, "alice", CodeKind::Login);
        let steps = [
            ("", 41002),
            ("appid=", 41002),
            ("appid=wx", 40013),
            (APP, 41004),
            ("secret=wrong", 40125),
            ("secret=right", 40002),
            ("grant_type=client_credential", 40002),
            ("grant_type=authorization_code", 41008),
            ("js_code=0nosuchcode", 40029),
        ];
        // Each step stands before the ones it overrides, because the first value of a name counts.
        let mut query = String::new();
        for (step, errcode) in steps {
            query = format!("{step}&{query}");
            let target = format!("/sns/jscode2session?{query}");
            assert_eq!(stage.get(&target), Some(errcode), "{target}");
        }

        let target = format!("/sns/jscode2session?js_code={code}&access_token=junk&{query}");
        let (errcode, body) = stage.call(Method::POST, &target, "");
        assert_eq!(errcode, None);
        assert!(SessionKey::parse(body["session_key"].as_str().unwrap()).is_ok());
        assert_eq!(body["openid"].as_str().unwrap().len(), 28);
        assert_eq!(body["unionid"].as_str().unwrap().len(), 28);
        assert_eq!(stage.get(&target), Some(40163));

        let blocked = UserChange {
            blocked: Some(true),
            ..UserChange::default()
        };
        stage.state.change_user("alice", &blocked);
        assert_eq!(stage.get(&target), Some(40163), "used before blocked");
        let code = stage.state.issue_code(0, "alice", CodeKind::Login);
        let target = format!("/sns/jscode2session?js_code={code}&{query}");
        assert_eq!(stage.get(&target), Some(40226));
    }

    #[test]
    fn the_endpoints_about_users_want_a_token_and_then_what_they_need() {
        let mut stage = Stage::new();
        let phone = stage.state.issue_code(0, "alice", CodeKind::Phone);
        let (token, openid) = (stage.token.clone(), stage.alice.clone());
        let signature = session_signature(&stage.key, b"");
        let signed = format!("&openid={openid}&signature={signature}");
        let steps = [
            (Method::GET, "getuserphonenumber", "", "", 43002),
            (Method::POST, "getuserphonenumber", "", "", 44002),
            (Method::POST, "getuserphonenumber", "", "{", 47001),
            (Method::POST, "getuserphonenumber", "", "{}", 41008),
            (
                Method::POST,
                "getuserphonenumber",
                "",
                r#"{"code":"x"}"#,
                40029,
            ),
            (
                Method::POST,
                "getopendata",
                "",
                r#"{"cloudid_list":[]}"#,
                40003,
            ),
            (Method::POST, "getopendata", &signed, "{}", 47001),
            (Method::GET, "checksession", &signed, "", 87008),
            (
                Method::GET,
                "checksession",
                "&sig_method=hmac_sha256",
                "",
                40003,
            ),
            (Method::POST, "checksession", &signed, "", 43001),
            (Method::GET, "resetusersessionkey", &signed, "", 87008),
        ];
        for (method, name, query, body, errcode) in steps {
            let path = match name {
                "getuserphonenumber" => "/wxa/business/getuserphonenumber".to_owned(),
                _ => format!("/wxa/{name}"),
            };
            let (no_token, _) = stage.call(method.clone(), &format!("{path}?a=b{query}"), body);
            assert_eq!(no_token, Some(41001), "{path}");
            let target = format!("{path}?access_token={token}{query}");
            let (told, _) = stage.call(method, &target, body);
            assert_eq!(told, Some(errcode), "{target} {body}");
        }

        let target = format!("/wxa/business/getuserphonenumber?access_token={token}");
        let body = json!({ "code": phone, "openid": openid }).to_string();
        let (_, told) = stage.call(Method::POST, &target, &body);
        assert_eq!(
            told["phone_info"]["purePhoneNumber"],
            json!(stage.state.phone_number("alice"))
        );
        assert_eq!(
            told["phone_info"]["watermark"]["appid"],
            json!("wx0123456789abcdef")
        );

        let query = format!("access_token={token}{signed}&sig_method=hmac_sha256");
        assert_eq!(stage.get(&format!("/wxa/checksession?{query}")), None);
        let target = format!("/wxa/resetusersessionkey?{query}");
        let (_, told) = stage.call(Method::POST, &target, "");
        assert_eq!(told["openid"], json!(openid));
        assert!(SessionKey::parse(told["session_key"].as_str().unwrap()).is_ok());
        let stale = format!("/wxa/checksession?{query}");
        assert_eq!(stage.get(&stale), Some(87009));
    }
}
