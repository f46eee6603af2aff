//! WeChat's own endpoints: what is asked, in which order it is checked, how it is answered.

mod content;
mod media;
mod messages;
mod qr_codes;
mod tokens;
mod users;

use ::http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::exchange::{Answer, Request};
use super::refusal::{Refusal, Refused};
use super::state::State;

/// Answers a call.
pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    match dispatch(state, request) {
        Ok(answer) => answer,
        Err(refused) => Answer::refusal(state, &request.path, refused),
    }
}

/// The methods that an endpoint takes.
#[derive(Clone, Copy)]
enum Takes {
    Get,
    Post,
    /// WeChat's documentation and its SDKs do not agree, or nobody minds.
    Either,
}

/// What answers once the gate is passed.
#[derive(Clone, Copy)]
enum Handler {
    /// Whoever calls says for which app, and proves it.
    Open(fn(&mut State, &Request) -> Result<Value, Refused>),
    /// An access_token has said for which app.
    Json(fn(&mut State, usize, &Request) -> Result<Value, Refused>),
    /// The same, and what comes need not be JSON.
    Any(fn(&mut State, usize, &Request) -> Result<Answer, Refused>),
}

use Handler::{Any, Json, Open};
use Takes::{Either, Get, Post};

/// All there are, by path.
#[rustfmt::skip]
const ENDPOINTS: &[(&str, Takes, Handler)] = &[
    ("/cgi-bin/get_api_domain_ip", Get, Json(api_domain_ips)),
    ("/cgi-bin/media/get", Get, Any(media::get)),
    ("/cgi-bin/media/upload", Post, Json(media::upload)),
    ("/cgi-bin/message/custom/send", Post, Json(messages::send)),
    ("/cgi-bin/message/custom/typing", Post, Json(messages::typing)),
    ("/cgi-bin/message/subscribe/send", Post, Json(messages::subscribe_send)),
    ("/cgi-bin/stable_token", Post, Open(tokens::stable_token)),
    ("/cgi-bin/token", Get, Open(tokens::token)),
    ("/cgi-bin/wxaapp/createwxaqrcode", Post, Any(qr_codes::square)),
    ("/sns/jscode2session", Either, Open(users::code_to_session)),
    ("/wxa/business/getuserphonenumber", Post, Json(users::phone_number)),
    ("/wxa/checksession", Get, Json(users::check_session)),
    ("/wxa/getopendata", Post, Json(users::open_data)),
    ("/wxa/getuserriskrank", Post, Json(content::risk_rank)),
    ("/wxa/getwxacode", Post, Any(qr_codes::of_path)),
    ("/wxa/getwxacodeunlimit", Post, Any(qr_codes::of_scene)),
    ("/wxa/img_sec_check", Post, Json(content::picture)),
    ("/wxa/media_check_async", Post, Json(content::media)),
    ("/wxa/msg_sec_check", Post, Json(content::text)),
    ("/wxa/resetusersessionkey", Either, Json(users::reset_session_key)),
];

/// The paths of all endpoints.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    ENDPOINTS.iter().map(|(path, _, _)| *path)
}

/// Finds the endpoint and has it answer.
fn dispatch(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    let endpoint = ENDPOINTS.iter().find(|(path, _, _)| *path == request.path);
    let (_, takes, handler) = endpoint.ok_or(Refusal::PathUnknown)?;
    let success = |body| Answer::success(&request.path, &body);
    match handler {
        Open(answer) => {
            takes.check(&request.method)?;
            answer(state, request).map(success)
        }
        Json(answer) => {
            let app = enter(state, request, *takes)?;
            answer(state, app, request).map(success)
        }
        Any(answer) => {
            let app = enter(state, request, *takes)?;
            answer(state, app, request)
        }
    }
}

/// The gate of all endpoints that take an access_token, which is looked at before the method. Tells whose it is.
fn enter(state: &State, request: &Request, takes: Takes) -> Result<usize, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    takes.check(&request.method)?;
    Ok(app)
}

impl Takes {
    fn check(self, method: &Method) -> Result<(), Refusal> {
        match self {
            Self::Get | Self::Either if method == Method::GET => Ok(()),
            Self::Post | Self::Either if method == Method::POST => Ok(()),
            Self::Post => Err(Refusal::PostRequired),
            Self::Get | Self::Either => Err(Refusal::GetRequired),
        }
    }
}

/// `GET /cgi-bin/get_api_domain_ip`, the cheapest call that takes an access_token.
fn api_domain_ips(_: &mut State, _: usize, _: &Request) -> Result<Value, Refused> {
    Ok(json!({ "ip_list": ["101.89.78.82", "101.226.129.166", "183.3.226.35"] }))
}

/// The user whose session_key has signed `body`, by the parameters of the call's URL.
fn signed_by(state: &State, app: usize, request: &Request, body: &[u8]) -> Result<String, Refusal> {
    let value = |name| request.query.value(name).unwrap_or_default();
    if value("sig_method") != "hmac_sha256" {
        return Err(Refusal::SigMethodInvalid);
    }
    state.check_signature(app, value("openid"), value("signature"), body)
}

/// The JSON of a call.
fn json_body<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    if request.body.is_empty() {
        return Err(Refusal::BodyEmpty);
    }
    serde_json::from_slice(&request.body).map_err(|_| Refusal::BodyMalformed)
}

/// A success of the endpoints that tell it by a number.
fn ok(mut body: Value) -> Value {
    body["errcode"] = json!(0);
    body["errmsg"] = json!("ok");
    body
}

#[cfg(test)]
pub(super) mod stage {
    //! What tests of endpoints stand on.

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::domain::{AppId, SessionKey};
    use crate::secret::Secret;
    use crate::sim::state::{CodeKind, SimApp};

    pub(in crate::sim) const APP: &str = "appid=wx0123456789abcdef";

    /// Two apps: the first has the secret `right`, an access_token, and alice, who has logged in a moment ago.
    pub(in crate::sim) struct Stage {
        pub(in crate::sim) state: State,
        pub(in crate::sim) token: String,
        pub(in crate::sim) alice: String,
        pub(in crate::sim) key: SessionKey,
    }

    impl Stage {
        pub(in crate::sim) fn new() -> Self {
            let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
            let apps = ["wx0123456789abcdef", "wxfedcba9876543210"]
                .map(|appid| SimApp::new(AppId::parse(appid).unwrap(), Secret::new("right")));
            let mut state = State::new(clock, 0, apps.into());
            let code = state.issue_code(0, "alice", CodeKind::Login);
            let login = state.log_in(0, &code).unwrap();
            Self {
                token: state.token(0).access_token,
                alice: login.openid.as_str().to_owned(),
                key: login.session_key,
                state,
            }
        }

        /// The answer to any call.
        pub(in crate::sim) fn answer(&mut self, request: &Request) -> Answer {
            let answer = answer(&mut self.state, request);
            assert_eq!(answer.status, 200, "failures are HTTP 200 too");
            answer
        }

        /// The errcode and the JSON that answer a call made as it stands.
        pub(in crate::sim) fn call(
            &mut self,
            method: Method,
            target: &str,
            body: &str,
        ) -> (Option<i64>, Value) {
            let answer = self.answer(&Request::of(method, target, body.as_bytes()));
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            let told = body.get("errcode").and_then(Value::as_i64);
            assert_eq!(told.filter(|errcode| *errcode != 0), answer.errcode);
            (answer.errcode, body)
        }

        pub(in crate::sim) fn get(&mut self, target: &str) -> Option<i64> {
            self.call(Method::GET, target, "").0
        }

        /// A path with the access_token.
        pub(in crate::sim) fn target(&self, path: &str) -> String {
            let glue = if path.contains('?') { '&' } else { '?' };
            format!("{path}{glue}access_token={}", self.token)
        }

        /// What is posted to a path, with the access_token, is answered so.
        pub(in crate::sim) fn post(&mut self, path: &str, body: &Value) -> (Option<i64>, Value) {
            let target = self.target(path);
            self.call(Method::POST, &target, &body.to_string())
        }

        /// What is wrong with what is posted: the errcode and the errmsg without its rid.
        pub(in crate::sim) fn refusal(&mut self, path: &str, body: &Value) -> (i64, String) {
            let (errcode, told) = self.post(path, body);
            let errmsg = told["errmsg"].as_str().unwrap();
            let (errmsg, rid) = errmsg.split_once(" rid: ").expect("a refusal has a rid");
            assert_eq!(rid.len(), 26);
            (errcode.expect("it is refused"), errmsg.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stage::Stage;
    use super::*;

    #[test]
    fn a_refusal_carries_wechats_wording_and_a_rid_with_the_time() {
        let mut stage = Stage::new();
        let (_, body) = stage.call(Method::GET, "/sns/jscode2session", "");
        let errmsg = body["errmsg"].as_str().unwrap();
        assert!(
            errmsg.starts_with("appid missing rid: 6553f128-"),
            "{errmsg}"
        );
    }

    #[test]
    fn an_endpoint_behind_a_token_opens_with_a_good_one_only() {
        let mut stage = Stage::new();
        let path = "/cgi-bin/get_api_domain_ip";
        assert_eq!(stage.get(path), Some(41001));
        let junk = format!("{path}?access_token={}", "x".repeat(136));
        assert_eq!(stage.get(&junk), Some(40001));
        let target = stage.target(path);
        let (errcode, body) = stage.call(Method::GET, &target, "");
        assert_eq!(errcode, None);
        assert!(body["ip_list"].is_array());
    }

    #[test]
    fn an_unknown_path_is_an_invalid_url() {
        assert_eq!(Stage::new().get("/wxa/nothing"), Some(40066));
    }
}
