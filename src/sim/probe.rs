//! What the tests of the endpoints share: a simulated WeChat with one app, a user who has logged in, and calls to it.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use super::api;
use super::exchange::{Answer, Request};
use super::state::{CodeKind, SimApp, State, UserChange};
use crate::clock::{Clock, Timestamp};
use crate::domain::AppId;
use crate::secret::Secret;

pub(super) const APPID: &str = "wx0123456789abcdef";
/// An app that alice has never been in.
pub(super) const OTHER_APPID: &str = "wxfedcba9876543210";

/// A simulated WeChat and what an app knows of it.
pub(super) struct Probe {
    pub(super) state: State,
    /// The app's.
    pub(super) token: String,
    /// Alice's, who has logged in.
    pub(super) openid: String,
}

impl Probe {
    pub(super) fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
        let app = |appid| SimApp::new(AppId::parse(appid).unwrap(), Secret::new("right"));
        let mut state = State::new(clock, 7, vec![app(APPID), app(OTHER_APPID)]);
        let code = state.issue_code(0, "alice", CodeKind::Login);
        let login = state.log_in(0, &code).unwrap();
        Self {
            token: state.token(0).access_token,
            openid: login.openid.as_str().to_owned(),
            state,
        }
    }

    /// A call as it is, without a token of ours.
    pub(super) fn call(&mut self, method: Method, target: &str, body: &[u8]) -> Answer {
        self.call_with(method, target, HeaderMap::new(), body)
    }

    pub(super) fn call_with(
        &mut self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: &[u8],
    ) -> Answer {
        let request = Request {
            headers,
            ..Request::of(method, target, body)
        };
        api::answer(&mut self.state, &request)
    }

    /// The target with the token in its query.
    pub(super) fn with_token(&self, target: &str) -> String {
        let joint = if target.contains('?') { '&' } else { '?' };
        format!("{target}{joint}access_token={}", self.token)
    }

    /// What a GET with a token is answered.
    pub(super) fn get(&mut self, target: &str) -> Value {
        let target = self.with_token(target);
        json(&self.call(Method::GET, &target, b""))
    }

    /// What a POST with a token is answered.
    pub(super) fn post(&mut self, target: &str, body: &Value) -> Value {
        self.post_text(target, &body.to_string())
    }

    pub(super) fn post_text(&mut self, target: &str, body: &str) -> Value {
        let target = self.with_token(target);
        json(&self.call(Method::POST, &target, body.as_bytes()))
    }

    /// Whether an endpoint that takes JSON wants a token, a POST and JSON, in this order.
    pub(super) fn assert_takes_json_with_a_token(&mut self, path: &str) {
        let target = self.with_token(path);
        let mut told = |method, target: &str, body: &[u8]| {
            json(&self.call(method, target, body))["errcode"].clone()
        };
        assert_eq!(told(Method::GET, path, b""), 41001, "{path}");
        assert_eq!(told(Method::GET, &target, b""), 43002, "{path}");
        assert_eq!(told(Method::POST, &target, b""), 44002, "{path}");
        assert_eq!(told(Method::POST, &target, b"{"), 47001, "{path}");
    }

    pub(super) fn change(&mut self, change: &UserChange) {
        self.state.change_user("alice", change);
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.state.advance(Duration::from_secs(seconds));
    }
}

/// The JSON of an answer, in which a refusal is HTTP 200 with an errmsg that has a rid.
pub(super) fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    if let Some(errcode) = answer.errcode {
        assert_eq!(body["errcode"], errcode);
        let errmsg = body["errmsg"].as_str().unwrap();
        assert!(errmsg.contains(" rid: 655"), "{errmsg}");
    }
    body
}

/// A form with one file in it, as `media`.
pub(super) fn form(filename: &str, data: &[u8]) -> (HeaderMap, Vec<u8>) {
    let kind = HeaderValue::from_static("multipart/form-data; boundary=boundary");
    let mut body = format!(
        "--boundary\r\nContent-Disposition: form-data; name=\"media\"; filename=\"{filename}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(data);
    body.extend(b"\r\n--boundary--\r\n");
    (HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]), body)
}
