//! WeChat's own endpoints: what is asked, in which order it is checked, how it is answered.

use ::http::{Method, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api_security;
use super::exchange::{Answer, Request};
use super::ids::base64_of;
use super::media;
use super::message;
use super::operations;
use super::payment;
use super::refusal::{Refusal, Refused};
use super::security;
use super::state::State;
use super::token::Grant;
use super::user;
use super::wxacode;

/// The endpoints that take an AppSecret and no access_token.
pub(super) const BY_SECRET: [&str; 3] = [
    "/sns/jscode2session",
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
];

/// Answers a call.
///
/// A body without a `Content-Length` meets the gateway before WeChat: it takes none, on any path, and says so by HTTP 412. Only
/// what takes uploads reads on, and finds no file.
pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    if request.headers.contains_key(header::TRANSFER_ENCODING) {
        return match request.path.as_str() {
            media::UPLOAD => Answer::refusal(state, &request.path, &Refusal::MediaMissing.into()),
            _ => Answer::text(412, ""),
        };
    }
    match api_security::open(state, request) {
        Ok(None) => answer_plain(state, request),
        Ok(Some(secured)) => {
            let answer = answer_plain(state, &secured.request);
            secured.seal(state, answer)
        }
        Err(refusal) => Answer::refusal(state, &request.path, &refusal.into()),
    }
}

fn answer_plain(state: &mut State, request: &Request) -> Answer {
    match admit_by_token(state, request).and_then(|()| success(state, request)) {
        Ok(answer) => answer,
        Err(refused) => Answer::refusal(state, &request.path, &refused),
    }
}

/// The gate behind a good access_token. What is wrong with a bad one is told by the endpoint, and an endpoint that takes
/// none has the gate behind its secret.
fn admit_by_token(state: &mut State, request: &Request) -> Result<(), Refused> {
    if BY_SECRET.contains(&&*request.path) {
        return Ok(());
    }
    match state.check_access_token(request.query.value("access_token")) {
        Ok(app) => Ok(state.admit(app, &request.path)?),
        Err(_) => Ok(()),
    }
}

/// What an endpoint makes of a call that it does not refuse.
fn success(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    let body = match request.path.as_str() {
        "/sns/jscode2session" => code_to_session(state, request)?,
        "/cgi-bin/token" => token(state, request)?,
        "/cgi-bin/stable_token" => stable_token(state, request)?,
        "/cgi-bin/get_api_domain_ip" => api_domain_ips(state, request)?,
        "/cgi-bin/getcallbackip" => operations::callback_ips(state, request)?,
        "/cgi-bin/openapi/quota/get" => operations::quota(state, request)?,
        "/cgi-bin/openapi/quota/clear" => operations::clear_one(state, request)?,
        "/cgi-bin/openapi/rid/get" => operations::call_by_rid(state, request)?,
        "/cgi-bin/clear_quota" => operations::clear_all(state, request)?,
        "/cgi-bin/clear_quota/v2" => operations::clear_all_by_secret(state, request)?,
        "/cgi-bin/callback/check" => operations::callback_check(state, request)?,
        "/wxa/business/getuserphonenumber" => phone_number(state, request)?,
        "/wxa/getopendata" => open_data(state, request)?,
        "/wxa/checksession" => check_session(state, request)?,
        "/wxa/resetusersessionkey" => reset_session_key(state, request)?,
        "/cgi-bin/message/subscribe/send" => message::subscribe(state, request)?,
        "/cgi-bin/message/custom/send" => message::reply(state, request)?,
        "/cgi-bin/message/custom/typing" => message::typing(state, request)?,
        "/wxa/msg_sec_check" => security::text(state, request)?,
        "/wxa/media_check_async" => security::media(state, request)?,
        "/wxa/img_sec_check" => security::picture(state, request)?,
        "/wxa/getuserriskrank" => security::user(state, request)?,
        "/wxa/business/getuserencryptkey" => user::encrypt_key(state, request)?,
        "/wxa/business/checkencryptedmsg" => user::check_encrypted(state, request)?,
        "/wxa/set_user_storage" => user::store(state, request)?,
        "/wxa/remove_user_storage" => user::remove(state, request)?,
        "/xpay/query_user_balance" => payment::balance(state, request)?,
        "/xpay/currency_pay" => payment::pay(state, request)?,
        "/xpay/cancel_currency_pay" => payment::cancel(state, request)?,
        "/xpay/present_currency" => payment::present(state, request)?,
        "/xpay/query_order" => payment::order(state, request)?,
        "/wxa/getwxacodeunlimit" => return wxacode::unlimited(state, request),
        "/wxa/getwxacode" => return wxacode::limited(state, request),
        "/cgi-bin/wxaapp/createwxaqrcode" => return wxacode::qr_code(state, request),
        media::UPLOAD => return media::upload(state, request),
        media::GET => return media::get(state, request),
        _ => return Err(Refusal::PathUnknown.into()),
    };
    Ok(Answer::success(&request.path, &body))
}

/// `GET /sns/jscode2session`. A POST is taken too; its parameters are those of the URL all the same.
fn code_to_session(state: &mut State, request: &Request) -> Result<Value, Refusal> {
    if request.method != Method::GET && request.method != Method::POST {
        return Err(Refusal::GetRequired);
    }
    let query = &request.query;
    let app = state.authenticate(query.value("appid"), query.value("secret"))?;
    if query.value("grant_type") != Some("authorization_code") {
        return Err(Refusal::GrantTypeInvalid);
    }
    state.admit(app, &request.path)?;
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

/// `GET /cgi-bin/token`.
fn token(state: &mut State, request: &Request) -> Result<Value, Refused> {
    if request.method != Method::GET {
        return Err(Refusal::GetRequired.into());
    }
    let query = &request.query;
    check_client_credential(query.value("grant_type"))?;
    let app = state.authenticate(query.value("appid"), query.value("secret"))?;
    state.access.check_address(request.peer)?;
    state.admit(app, &request.path)?;
    Ok(granted(&state.token(app)))
}

/// `POST /cgi-bin/stable_token`.
fn stable_token(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        grant_type: Option<String>,
        appid: Option<String>,
        secret: Option<String>,
        force_refresh: Option<bool>,
    }

    let body: Body = posted(request)?;
    check_client_credential(body.grant_type.as_deref())?;
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (appid, secret) = (given(&body.appid), given(&body.secret));
    let app = state.authenticate(appid.as_deref(), secret.as_deref())?;
    state.access.check_address(request.peer)?;
    state.admit(app, &request.path)?;
    let grant = state.stable_token(app, body.force_refresh.unwrap_or(false))?;
    Ok(granted(&grant))
}

/// `GET /cgi-bin/get_api_domain_ip`, the cheapest call that takes an access_token.
fn api_domain_ips(state: &State, request: &Request) -> Result<Value, Refusal> {
    state.check_access_token(request.query.value("access_token"))?;
    Ok(json!({ "ip_list": ["101.89.78.82", "101.226.129.166", "183.3.226.35"] }))
}

/// `POST /wxa/business/getuserphonenumber`.
fn phone_number(state: &mut State, request: &Request) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    struct Body {
        code: Option<String>,
        openid: Option<String>,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
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
fn open_data(state: &State, request: &Request) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    struct Body {
        cloudid_list: Vec<String>,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let openid = request.query.value("openid").unwrap_or_default();
    if state.user_of(app, openid).is_none() {
        return Err(Refusal::OpenIdInvalid);
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
fn check_session(state: &State, request: &Request) -> Result<Value, Refusal> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::GET {
        return Err(Refusal::GetRequired);
    }
    signed_by(state, app, request, &request.body)?;
    Ok(ok(json!({})))
}

/// `GET /wxa/resetusersessionkey`, which SDKs call by POST.
fn reset_session_key(state: &mut State, request: &Request) -> Result<Value, Refusal> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::GET && request.method != Method::POST {
        return Err(Refusal::GetRequired);
    }
    let user = signed_by(state, app, request, &request.body)?;
    let key = state.reset_session_key(app, &user)?;
    let openid = state.openid(app, &user);
    Ok(ok(
        json!({ "openid": openid.as_str(), "session_key": base64_of(&key) }),
    ))
}

/// The user whose session_key has signed `signed`, by the parameters of the call's URL.
pub(super) fn signed_by(
    state: &State,
    app: usize,
    request: &Request,
    signed: &[u8],
) -> Result<String, Refusal> {
    let value = |name| request.query.value(name).unwrap_or_default();
    if value("sig_method") != "hmac_sha256" {
        return Err(Refusal::SigMethodInvalid);
    }
    state.check_signature(app, value("openid"), value("signature"), signed)
}

/// The JSON of a POST.
pub(super) fn posted<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    if request.method != Method::POST {
        return Err(Refusal::PostRequired);
    }
    if request.body.is_empty() {
        return Err(Refusal::BodyEmpty);
    }
    serde_json::from_slice(&request.body).map_err(|_| Refusal::BodyMalformed)
}

/// A success of the endpoints that tell it by a number.
pub(super) fn ok(mut body: Value) -> Value {
    body["errcode"] = json!(0);
    body["errmsg"] = json!("ok");
    body
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
    use ::http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::domain::{AppId, SessionKey};
    use crate::secret::Secret;
    use crate::sim::ids::session_signature;
    use crate::sim::probe::Probe;
    use crate::sim::state::{CodeKind, SimApp, UserChange};

    const APP: &str = "appid=wx0123456789abcdef";

    fn state() -> State {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        State::new(clock, 0, vec![SimApp::new(appid, Secret::new("right"))])
    }

    fn call(state: &mut State, method: Method, target: &str, body: &str) -> (Option<i64>, Value) {
        let request = Request::of(method, target, body.as_bytes());
        let answer = answer(state, &request);
        assert_eq!(answer.status, 200, "failures are HTTP 200 too");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let told = body.get("errcode").and_then(Value::as_i64);
        assert_eq!(told.filter(|errcode| *errcode != 0), answer.errcode);
        (answer.errcode, body)
    }

    fn get(state: &mut State, target: &str) -> Option<i64> {
        call(state, Method::GET, target, "").0
    }

    fn post(state: &mut State, body: &str) -> (Option<i64>, Value) {
        call(state, Method::POST, "/cgi-bin/stable_token", body)
    }

    #[test]
    fn login_is_checked_in_wechats_order() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
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
            assert_eq!(get(&mut state, &target), Some(errcode), "{target}");
        }

        let target = format!("/sns/jscode2session?js_code={code}&access_token=junk&{query}");
        let (errcode, body) = call(&mut state, Method::POST, &target, "");
        assert_eq!(errcode, None);
        assert!(SessionKey::parse(body["session_key"].as_str().unwrap()).is_ok());
        assert_eq!(body["openid"].as_str().unwrap().len(), 28);
        assert_eq!(body["unionid"].as_str().unwrap().len(), 28);
        assert_eq!(get(&mut state, &target), Some(40163));

        let blocked = UserChange {
            blocked: Some(true),
            ..UserChange::default()
        };
        state.change_user("alice", &blocked);
        assert_eq!(get(&mut state, &target), Some(40163), "used before blocked");
        let code = state.issue_code(0, "alice", CodeKind::Login);
        let target = format!("/sns/jscode2session?js_code={code}&{query}");
        assert_eq!(get(&mut state, &target), Some(40226));
    }

    #[test]
    fn a_refusal_carries_wechats_wording_and_a_rid_with_the_time() {
        let mut state = state();
        let (_, body) = call(&mut state, Method::GET, "/sns/jscode2session", "");
        let errmsg = body["errmsg"].as_str().unwrap();
        assert!(
            errmsg.starts_with("appid missing rid: 6553f128-"),
            "{errmsg}"
        );
    }

    #[test]
    fn the_classic_token_is_checked_and_new_each_time() {
        let mut state = state();
        let path = "/cgi-bin/token?grant_type=client_credential";
        assert_eq!(get(&mut state, "/cgi-bin/token"), Some(40002));
        assert_eq!(get(&mut state, path), Some(41002));
        let target = format!("{path}&appid=wx");
        assert_eq!(get(&mut state, &target), Some(40013));
        let target = format!("{path}&{APP}");
        assert_eq!(get(&mut state, &target), Some(41004));
        assert_eq!(get(&mut state, &format!("{target}&secret=x")), Some(40125));
        let target = format!("{target}&secret=right");
        let (_, one) = call(&mut state, Method::GET, &target, "");
        let (_, two) = call(&mut state, Method::GET, &target, "");
        assert_eq!(one["expires_in"], json!(7200));
        assert_ne!(one["access_token"], two["access_token"]);
        assert_eq!(call(&mut state, Method::POST, &target, "").0, Some(43001));
    }

    #[test]
    fn the_stable_token_takes_a_post_with_a_json_object() {
        let mut state = state();
        assert_eq!(get(&mut state, "/cgi-bin/stable_token"), Some(43002));
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
            assert_eq!(post(&mut state, body).0, Some(errcode), "{body}");
        }
        let body = json!({
            "grant_type": "client_credential",
            "appid": "wx0123456789abcdef",
            "secret": "right",
            "force_refresh": false,
        });
        let (_, one) = post(&mut state, &body.to_string());
        let (_, two) = post(&mut state, &body.to_string());
        assert_eq!(one, two);
        assert_eq!(one["expires_in"], json!(7200));
    }

    #[test]
    fn an_endpoint_behind_a_token_opens_with_a_good_one_only() {
        let mut state = state();
        let path = "/cgi-bin/get_api_domain_ip";
        assert_eq!(get(&mut state, path), Some(41001));
        let junk = format!("{path}?access_token={}", "x".repeat(136));
        assert_eq!(get(&mut state, &junk), Some(40001));
        let token = state.token(0).access_token;
        let (errcode, body) = call(
            &mut state,
            Method::GET,
            &format!("{path}?access_token={token}"),
            "",
        );
        assert_eq!(errcode, None);
        assert!(body["ip_list"].is_array());
    }

    #[test]
    fn the_endpoints_about_users_want_a_token_and_then_what_they_need() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
        let login = state.log_in(0, &code).unwrap();
        let phone = state.issue_code(0, "alice", CodeKind::Phone);
        let token = state.token(0).access_token;
        let openid = login.openid.as_str();
        let signature = session_signature(&login.session_key, b"");
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
            let (no_token, _) = call(
                &mut state,
                method.clone(),
                &format!("{path}?a=b{query}"),
                body,
            );
            assert_eq!(no_token, Some(41001), "{path}");
            let target = format!("{path}?access_token={token}{query}");
            let (told, _) = call(&mut state, method, &target, body);
            assert_eq!(told, Some(errcode), "{target} {body}");
        }

        let target = format!("/wxa/business/getuserphonenumber?access_token={token}");
        let body = json!({ "code": phone, "openid": openid }).to_string();
        let (_, told) = call(&mut state, Method::POST, &target, &body);
        assert_eq!(
            told["phone_info"]["purePhoneNumber"],
            json!(state.phone_number("alice"))
        );
        assert_eq!(
            told["phone_info"]["watermark"]["appid"],
            json!("wx0123456789abcdef")
        );

        let query = format!("access_token={token}{signed}&sig_method=hmac_sha256");
        assert_eq!(get(&mut state, &format!("/wxa/checksession?{query}")), None);
        let target = format!("/wxa/resetusersessionkey?{query}");
        let (_, told) = call(&mut state, Method::POST, &target, "");
        assert_eq!(told["openid"], json!(openid));
        assert!(SessionKey::parse(told["session_key"].as_str().unwrap()).is_ok());
        let stale = format!("/wxa/checksession?{query}");
        assert_eq!(get(&mut state, &stale), Some(87009));
    }

    #[test]
    fn a_body_of_unknown_length_does_not_get_past_the_gateway() {
        let mut probe = Probe::new();
        let chunked = HeaderMap::from_iter([(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )]);
        let target = probe.with_token("/wxa/getopendata");
        let answer = probe.call_with(Method::POST, &target, chunked.clone(), b"{}");
        assert_eq!((answer.status, answer.body.len()), (412, 0));
        let target = probe.with_token("/cgi-bin/media/upload?type=image");
        let answer = probe.call_with(Method::POST, &target, chunked, b"{}");
        assert_eq!(answer.errcode, Some(41005));
    }

    #[test]
    fn an_unknown_path_is_an_invalid_url() {
        assert_eq!(get(&mut state(), "/wxa/nothing"), Some(40066));
    }
}
