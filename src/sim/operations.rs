//! What WeChat tells an app of its own traffic.

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{BY_SECRET, posted};
use super::exchange::Request;
use super::refusal::{Refusal, Refused};
use super::rids;
use super::state::State;

/// What is told as the day's quota of an API that has none here.
const UNTOLD_QUOTA: u32 = 1_000_000;

/// `GET /cgi-bin/getcallbackip`.
pub(super) fn callback_ips(state: &State, request: &Request) -> Result<Value, Refused> {
    state.check_access_token(request.query.value("access_token"))?;
    Ok(json!({ "ip_list": ["101.226.233.128", "101.226.233.129", "183.3.234.0"] }))
}

/// `POST /cgi-bin/callback/check`: whether the app's receiver of pushes can be reached. An app that is not pushed to has
/// none. The addresses are those that the receiver had at the simulator's start, and no packet of theirs is ever lost here.
pub(super) fn callback_check(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        action: String,
        #[serde(default)]
        check_operator: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if !["dns", "ping", "all"].contains(&&*body.action) {
        return Err(Refusal::ActionInvalid.into());
    }
    if !["CHINANET", "UNICOM", "CAP", "DEFAULT"].contains(&&*body.check_operator) {
        return Err(Refusal::OperatorInvalid.into());
    }
    let appid = state.apps[app].known.appid.as_str();
    let outbox = state.outbox.as_ref().filter(|outbox| outbox.is_of(appid));
    let addresses = &outbox.ok_or(Refusal::CallbackMissing)?.addresses;
    let operator = &body.check_operator;
    let mut told = json!({});
    if body.action != "ping" {
        let dns = addresses
            .iter()
            .map(|ip| json!({ "ip": ip, "real_operator": operator }));
        told["dns"] = dns.collect();
    }
    if body.action != "dns" {
        let ping = addresses.iter().map(|ip| {
            json!({ "ip": ip, "from_operator": operator, "package_loss": "0%", "time": "1.000ms" })
        });
        told["ping"] = ping.collect();
    }
    Ok(told)
}

/// `POST /cgi-bin/openapi/quota/get`: what the app has left of an API today. An API without a quota here is told to have
/// one that nobody uses up.
pub(super) fn quota(state: &State, request: &Request) -> Result<Value, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    let path = cgi_path(request)?;
    let usage = state.quota_of(app, &path);
    let daily = usage.limits.daily.unwrap_or(UNTOLD_QUOTA);
    let minute = usage.limits.per_minute;
    Ok(json!({
        "errcode": 0,
        "errmsg": "ok",
        "quota": {
            "daily_limit": daily,
            "used": usage.today,
            "remain": daily.saturating_sub(usage.today),
        },
        "rate_limit": { "call_count": minute.unwrap_or(0), "refresh_second": 60 },
    }))
}

/// `POST /cgi-bin/openapi/quota/clear`: the day's calls of one API are given back.
pub(super) fn clear_one(state: &mut State, request: &Request) -> Result<Value, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    let path = cgi_path(request)?;
    state.clear_quota_on_request(app, Some(&path))?;
    Ok(json!({ "errcode": 0, "errmsg": "ok" }))
}

/// `POST /cgi-bin/clear_quota`: those of all APIs.
pub(super) fn clear_all(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        appid: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if state.app_index(&body.appid) != Some(app) {
        return Err(Refusal::AppIdInvalid.into());
    }
    state.clear_quota_on_request(app, None)?;
    Ok(json!({ "errcode": 0, "errmsg": "ok" }))
}

/// `POST /cgi-bin/clear_quota/v2`: the same for whoever has the AppSecret, which stands in the body or in the query.
pub(super) fn clear_all_by_secret(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Default, Deserialize)]
    struct Body {
        appid: Option<String>,
        appsecret: Option<String>,
    }

    if request.method != ::http::Method::POST {
        return Err(Refusal::PostRequired.into());
    }
    let body: Body = match request.body.is_empty() {
        true => Body::default(),
        false => posted(request)?,
    };
    let given = |field: Option<String>, name| {
        field.or_else(|| request.query.value(name).map(str::to_owned))
    };
    let (appid, secret) = (
        given(body.appid, "appid"),
        given(body.appsecret, "appsecret"),
    );
    let app = state.authenticate(appid.as_deref(), secret.as_deref())?;
    state.clear_quota_on_request(app, None)?;
    Ok(json!({ "errcode": 0, "errmsg": "ok" }))
}

/// `POST /cgi-bin/openapi/rid/get`: a refused call of the app's own.
pub(super) fn call_by_rid(state: &State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        rid: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let Body { rid } = posted(request)?;
    let made_at = rids::made_at(&rid).ok_or(Refusal::RidMalformed)?;
    if state.now().since(made_at) > rids::LIFE {
        return Err(Refusal::RidTooOld.into());
    }
    let call = state.call_by_rid(&rid).ok_or(Refusal::RidUnknown)?;
    if call.path.starts_with("/sns/") {
        return Err(Refusal::QuotaUntold.into());
    }
    if call.app != Some(app) {
        return Err(Refusal::RidForeign.into());
    }
    Ok(json!({ "errcode": 0, "errmsg": "ok", "request": call.to_json() }))
}

/// The API that is asked about: one with a token.
fn cgi_path(request: &Request) -> Result<String, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        cgi_path: String,
    }

    let Body { cgi_path } = posted(request)?;
    if !cgi_path.starts_with('/') {
        return Err(Refusal::QuotaPathUnknown.into());
    }
    if cgi_path.starts_with("/sns/") || BY_SECRET.contains(&&*cgi_path) {
        return Err(Refusal::QuotaUntold.into());
    }
    Ok(cgi_path)
}

#[cfg(test)]
mod tests {
    use ::http::Method;

    use super::*;
    use crate::sim::exchange::{Outcome, receive};
    use crate::sim::probe::{APPID, OTHER_APPID, Probe};
    use crate::sim::quota::Limits;

    #[test]
    fn the_addresses_that_pushes_come_from_are_told() {
        let mut probe = Probe::new();
        let told = probe.get("/cgi-bin/getcallbackip");
        assert!(
            told["ip_list"]
                .as_array()
                .unwrap()
                .iter()
                .all(Value::is_string)
        );
        probe.token = "x".repeat(136);
        assert_eq!(probe.get("/cgi-bin/getcallbackip")["errcode"], 40001);
    }

    #[test]
    fn a_check_is_refused_for_its_arguments_and_then_for_the_address_that_is_not_there() {
        const CHECK: &str = "/cgi-bin/callback/check";
        let mut probe = Probe::new();
        probe.assert_takes_json_with_a_token(CHECK);
        for (body, errcode) in [
            (json!({ "check_operator": "CAP" }), 40202),
            (json!({ "action": "all", "check_operator": "cap" }), 40203),
            (json!({ "action": "all", "check_operator": "CAP" }), 40201),
        ] {
            assert_eq!(probe.post(CHECK, &body)["errcode"], errcode, "{body}");
        }
    }

    #[test]
    fn what_is_left_of_a_quota_is_told_and_given_back() {
        const GET: &str = "/cgi-bin/openapi/quota/get";
        const API: &str = "/cgi-bin/getcallbackip";
        let mut probe = Probe::new();
        probe.assert_takes_json_with_a_token(GET);
        let limits = Limits {
            daily: Some(3),
            per_minute: None,
        };
        probe.state.quotas.limit(API, limits);
        let asked = json!({ "cgi_path": API });
        let left = |probe: &mut Probe| probe.post(GET, &asked)["quota"]["remain"].clone();
        for remain in [3, 2, 1, 0] {
            assert_eq!(left(&mut probe), json!(remain));
            let errcode = probe.get(API)["errcode"].clone();
            assert_eq!(errcode == json!(45009), remain == 0);
        }
        for clear in [
            ("/cgi-bin/openapi/quota/clear", asked.clone()),
            ("/cgi-bin/clear_quota", json!({ "appid": APPID })),
            (
                "/cgi-bin/clear_quota/v2",
                json!({ "appid": APPID, "appsecret": "right" }),
            ),
        ] {
            assert_eq!(probe.post(clear.0, &clear.1)["errcode"], 0, "{}", clear.0);
            assert_eq!(left(&mut probe), json!(3));
            probe.get(API);
        }
        for (path, errcode) in [("nothing", 76021), ("/sns/jscode2session", 76022)] {
            assert_eq!(
                probe.post(GET, &json!({ "cgi_path": path }))["errcode"],
                errcode
            );
        }
        let foreign = json!({ "appid": OTHER_APPID });
        assert_eq!(
            probe.post("/cgi-bin/clear_quota", &foreign)["errcode"],
            40013
        );
        let wrong = json!({ "appid": APPID, "appsecret": "wrong" });
        assert_eq!(
            probe.post("/cgi-bin/clear_quota/v2", &wrong)["errcode"],
            40125
        );
    }

    #[test]
    fn a_refused_call_is_told_by_its_rid_to_the_app_that_made_it_for_seven_days() {
        const GET: &str = "/cgi-bin/openapi/rid/get";
        let mut probe = Probe::new();
        probe.assert_takes_json_with_a_token(GET);
        let mut refused = |method: Method, target: &str, body: &[u8]| {
            let request = Request::of(method, target, body);
            let Outcome::Answer(answer) = receive(&mut probe.state, request).outcome else {
                panic!("an answer was due");
            };
            answer.rid.expect("a refusal has a rid")
        };
        let target = format!("/wxa/msg_sec_check?access_token={}", probe.token);
        let rid = refused(Method::POST, &target, b"{}");
        let login = format!("/sns/jscode2session?appid={APPID}");
        let of_login = refused(Method::GET, &login, b"");
        let of_nobody = refused(Method::GET, "/cgi-bin/getcallbackip", b"");

        let told = probe.post(GET, &json!({ "rid": rid }));
        assert_eq!(told["errcode"], 0);
        let call = &told["request"];
        assert_eq!(call["request_body"], "{}");
        assert_eq!(call["invoke_time"], 1_700_000_040);
        let response = call["response_body"].as_str().unwrap();
        assert!(response.contains(&rid) && response.contains("47001"));
        let mut errcode = |rid: &str| probe.post(GET, &json!({ "rid": rid }))["errcode"].clone();
        assert_eq!(errcode("6553f128-00000000-00000000"), 76001);
        for malformed in ["", "6553f128", "6553f128-0-x", "6553f128-0-0-0"] {
            assert_eq!(errcode(malformed), 76002, "{malformed}");
        }
        assert_eq!(errcode(&of_nobody), 76003);
        assert_eq!(errcode(&of_login), 76022);
        probe.token = probe.state.token(1).access_token;
        assert_eq!(probe.post(GET, &json!({ "rid": rid }))["errcode"], 76003);
        probe.pass(7 * 86_400 + 1);
        probe.token = probe.state.token(0).access_token;
        assert_eq!(probe.post(GET, &json!({ "rid": rid }))["errcode"], 76004);
    }

    #[test]
    fn quotas_are_not_given_back_without_end() {
        let mut probe = Probe::new();
        let body = json!({ "appid": APPID, "appsecret": "right" });
        for n in 0..5 {
            for path in ["/cgi-bin/clear_quota", "/cgi-bin/clear_quota/v2"] {
                assert_eq!(probe.post(path, &body)["errcode"], 0, "{n} {path}");
            }
        }
        for path in ["/cgi-bin/clear_quota", "/cgi-bin/clear_quota/v2"] {
            let told = probe.post(path, &body);
            assert_eq!(told["errcode"], 48006, "they have one limit");
        }
    }
}
