//! A call of the app's own: carried to WeChat with what it must show, and its answer back, both as they come.
//!
//! An errcode is found by looking at the beginning of the answer, whatever its `Content-Type` says: what begins with `{`
//! is read until its end, or until it is too long for a refusal, and all else is passed on at once.
//!
//! What is repeated, and why that is safe: a call whose access_token WeChat refused, once, with another token, because
//! WeChat looks at the token before all else; a call that shows the AppSecret, with the other AppSecret, for the same reason.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

use super::Gateway;
use super::client::{Failure, Question, body_failure};
use super::line::{lost, refused};
use super::payload::Payload;
use crate::domain::AccessToken;
use crate::error::{Error, Kind, Side};
use crate::wechat::answer;
use crate::wechat::api::{self, Api};
use crate::wechat::{endpoints, errcode};

/// How much of an answer that looks like JSON is read before it is passed on. Refusals are a few hundred bytes.
const PEEK: usize = 64 * 1024;

/// What an errcode means where the app calls an API.
const APP: Api = Api {
    path: "",
    if_lost: None,
};

/// A call as it is to reach WeChat, but for what it shows.
pub(crate) struct AppCall {
    pub(crate) method: Method,
    /// Without a query.
    pub(crate) path: String,
    /// Without credentials.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) shows: Shows,
    /// How long nothing may happen.
    pub(crate) patience: Duration,
}

/// What proves to WeChat who is calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// An access_token in the query; nearly all APIs.
    AccessToken,
    /// AppID and AppSecret in the query: `jscode2session`.
    AppSecret,
    /// AppID and AppSecret in the body, which has nothing else: `clear_quota/v2`.
    AppSecretInBody,
}

/// What came back.
pub(crate) struct AppAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// What of the body has been read.
    pub(crate) start: Bytes,
    /// What of it is still to come.
    pub(crate) rest: Option<Incoming>,
    /// How it is told that WeChat refused.
    pub(crate) refusal: Option<Error>,
}

impl Gateway {
    /// Makes a call of the app's. An answer that refuses is an answer; one that says that no access_token helps is not.
    ///
    /// # Errors
    /// If no answer could be had, or WeChat goes on to refuse our access_token.
    pub(crate) async fn relay(&self, call: &AppCall) -> Result<AppAnswer, Error> {
        match call.shows {
            Shows::AccessToken => self.relay_with_token(call).await,
            Shows::AppSecret | Shows::AppSecretInBody => self.relay_with_secret(call).await,
        }
    }

    async fn relay_with_token(&self, call: &AppCall) -> Result<AppAnswer, Error> {
        let token = self.keeper.token(&self.line).await?;
        let refusal = match self.relay_as(call, &token).await? {
            (answer, None) => return Ok(answer),
            (_, Some(refusal)) => refusal,
        };
        let Some(next) = self.keeper.replace(&token, &self.line).await? else {
            return Err(refusal);
        };
        if !call.payload.is_at_hand() {
            let detail = "the access_token had died, and the body was too large to be kept for a second attempt";
            return Err(
                Error::new(Kind::AccessTokenUnavailable, Side::Wechat, detail)
                    .with_retry_after(Duration::from_secs(1))
                    .with_hint("send it again: there is a new access_token now")
                    .with_cause(refusal),
            );
        }
        match self.relay_as(call, &next).await? {
            (answer, None) => Ok(answer),
            (_, Some(refusal)) => Err(refusal),
        }
    }

    /// One attempt; the refusal is there if it is about the token.
    async fn relay_as(
        &self,
        call: &AppCall,
        token: &AccessToken,
    ) -> Result<(AppAnswer, Option<Error>), Error> {
        let shown = api::query_of(&[("access_token", token.expose())]);
        let query = joined(&shown, &call.query);
        let answer = self
            .attempt(call, &query, &call.payload, &[token.expose()])
            .await?;
        let is_dead = |error: &Error| super::refused_with(error, api::is_dead_token);
        let dead = answer.refusal.clone().filter(is_dead);
        Ok((answer, dead))
    }

    async fn relay_with_secret(&self, call: &AppCall) -> Result<AppAnswer, Error> {
        let mut outcome = Err(super::no_secret());
        for (place, secret) in self.line.secrets_in_turn() {
            let appid = self.line.appid.as_str();
            let in_body = call.shows == Shows::AppSecretInBody;
            let (query, payload) = match in_body {
                true => {
                    let body = api::json_body(&serde_json::json!({
                        "appid": appid,
                        "appsecret": secret.expose(),
                    }));
                    (Zeroizing::new(call.query.clone()), Payload::Whole(body))
                }
                false => {
                    let shown = api::query_of(&[("appid", appid), ("secret", secret.expose())]);
                    (joined(&shown, &call.query), call.payload.clone())
                }
            };
            outcome = self.attempt(call, &query, &payload, &[]).await;
            let told = match &outcome {
                Ok(AppAnswer {
                    refusal: Some(error),
                    ..
                }) => Err(error.clone()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.clone()),
            };
            if !self.line.may_try_another(place, &told) || !payload.is_at_hand() {
                break;
            }
        }
        outcome
    }

    async fn attempt(
        &self,
        call: &AppCall,
        query: &str,
        payload: &Payload,
        hidden: &[&str],
    ) -> Result<AppAnswer, Error> {
        let started = Instant::now();
        let question = Question {
            method: &call.method,
            path: &call.path,
            query,
            headers: &call.headers,
            payload,
        };
        let answered = async {
            let response = self.line.client.begin(&question, call.patience).await?;
            Peeked::of(response, call.patience).await
        };
        let outcome = match answered.await {
            Ok(peeked) => self.read(peeked, &call.path, hidden),
            Err(failure) => Err(lost(failure, &APP)),
        };
        let told = match &outcome {
            Ok(answer) => answer.refusal.clone().map_or(Ok(()), Err),
            Err(error) => Err(error.clone()),
        };
        self.line
            .record(endpoints::label(&call.path), &told, started.elapsed());
        outcome
    }

    fn read(&self, peeked: Peeked, path: &str, hidden: &[&str]) -> Result<AppAnswer, Error> {
        let Peeked {
            status,
            mut headers,
            mut start,
            rest,
        } = peeked;
        if status.is_redirection() {
            let detail = format!(
                "WeChat answered HTTP {status}, a redirect, and redirects are not followed"
            );
            return Err(Error::new(Kind::WechatInvalid, Side::Wechat, detail));
        }
        let whole = rest.is_none();
        let refusal = match answer::parse(&start) {
            Ok(answer) if whole => self
                .line
                .refusal(&answer, hidden)
                .filter(|refusal| !errcode::is_success_at(path, refusal.errcode))
                .map(|refusal| refused(refusal, path)),
            _ => None,
        };
        let refusal = refusal.or_else(|| {
            (status != StatusCode::OK).then(|| {
                let detail = format!("WeChat answered HTTP {status} without an errcode");
                Error::new(Kind::WechatInvalid, Side::Wechat, detail)
            })
        });
        if whole && let Some(clean) = without(&start, hidden) {
            start = clean;
            headers.remove(CONTENT_LENGTH);
        }
        Ok(AppAnswer {
            status,
            headers,
            start,
            rest,
            refusal,
        })
    }
}

/// An answer of which the beginning is known.
struct Peeked {
    status: StatusCode,
    headers: HeaderMap,
    start: Bytes,
    rest: Option<Incoming>,
}

impl Peeked {
    async fn of(response: Response<Incoming>, patience: Duration) -> Result<Self, Failure> {
        let (head, mut body) = response.into_parts();
        let mut start = BytesMut::new();
        // What is packed can be looked into by its reader only.
        let is_packed = head.headers.contains_key(CONTENT_ENCODING);
        while !body.is_end_stream() && start.len() < PEEK && !is_packed && may_be_json(&start) {
            let frame = tokio::time::timeout(patience, body.frame()).await;
            match frame.map_err(|_| Failure::Timeout)? {
                Some(Ok(frame)) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(body_failure(Box::new(error))),
                None => break,
            }
        }
        Ok(Self {
            status: head.status,
            headers: head.headers,
            start: start.freeze(),
            rest: (!body.is_end_stream()).then_some(body),
        })
    }
}

/// Whether what begins like this may be a JSON object.
fn may_be_json(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let first = text.trim_ascii_start().first();
    first.is_none_or(|first| *first == b'{')
}

/// `body` without the secrets, if one is in it: a peer that echoes what it was asked must not tell the app.
fn without(body: &Bytes, secrets: &[&str]) -> Option<Bytes> {
    let mut clean: Option<Vec<u8>> = None;
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let text = clean.as_deref().unwrap_or(body);
        let places: Vec<usize> = memchr::memmem::find_iter(text, secret.as_bytes()).collect();
        if places.is_empty() {
            continue;
        }
        let mut kept = Vec::with_capacity(text.len());
        let mut from = 0;
        for place in places {
            kept.extend_from_slice(&text[from..place]);
            kept.extend_from_slice(b"***");
            from = place + secret.len();
        }
        kept.extend_from_slice(&text[from..]);
        clean = Some(kept);
    }
    clean.map(Bytes::from)
}

fn joined(shown: &str, rest: &str) -> Zeroizing<String> {
    let mut query = Zeroizing::new(String::with_capacity(shown.len() + 1 + rest.len()));
    query.push_str(shown);
    if !rest.is_empty() {
        query.push('&');
        query.push_str(rest);
    }
    query
}
