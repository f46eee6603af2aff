//! A call of the app's own: carried to WeChat with what it must show, and its answer back, both as they come.
//!
//! An errcode is found by looking at the beginning of the answer, whatever its `Content-Type` says: what begins with `{`
//! is read until its end, or until it is too long for a refusal, and all else is passed on at once.
//!
//! What is repeated, and why that is safe: a call whose access_token WeChat refused, once, with another token, because
//! WeChat looks at the token before all else; a call that shows the AppSecret, with the other AppSecret, for the same reason;
//! and what passes in a moment, by the rule of `repeat`. Each attempt asks the breaker.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

use super::Gateway;
use super::breaker::Permit;
use super::client::{Failure, Question, body_failure};
use super::envelope::Envelope;
use super::line::{self, Asked, Lost, refused, waiting};
use super::payload::Payload;
use super::repeat::Vain;
use crate::domain::AccessToken;
use crate::error::{Error, Kind, Side};
use crate::telemetry::trace;
use crate::wechat::answer::{self, Answer};
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
            let detail = (
                "the access_token had died, and the body was too large to be kept for a second attempt",
                "access_token 已失效，而请求体过大，没有保留下来供重试",
            );
            return Err(
                Error::new(Kind::AccessTokenUnavailable, Side::Wechat, detail)
                    .with_retry_after(Duration::from_secs(1))
                    .with_hint((
                        "send it again: there is a new access_token now",
                        "请重新发送：现在已有新的 access_token",
                    ))
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

    /// Makes the call, and once or twice more if that is harmless and may help.
    async fn attempt(
        &self,
        call: &AppCall,
        query: &str,
        payload: &Payload,
        hidden: &[&str],
    ) -> Result<AppAnswer, Error> {
        self.repeats.count_call();
        let mut permit = self.line.breaker.admit(&call.path)?;
        let mut repeats = 0;
        loop {
            let started = Instant::now();
            let asked = match self.line.envelope_for(&call.path) {
                None => self.ask(call, query, payload).await,
                Some(envelope) => self.ask_sealed(envelope, call, query, payload).await,
            };
            let (outcome, vain) = self.settle(asked, permit, &call.path, hidden);
            let told = match &outcome {
                Ok(answer) => answer.refusal.clone().map_or(Ok(()), Err),
                Err(error) => Err(error.clone()),
            };
            let asked = Asked {
                path: endpoints::label(&call.path),
                method: trace::method(call.method.as_str()),
                status: outcome.as_ref().ok().map(|answer| answer.status.as_u16()),
            };
            self.line.record(asked, &told, started.elapsed());
            let pause = vain
                .filter(|_| payload.is_at_hand())
                .and_then(|vain| self.repeats.pause(&call.path, vain, repeats));
            let Some(pause) = pause else {
                return outcome;
            };
            tokio::time::sleep(pause).await;
            // What WeChat said last tells more than that it is not asked again.
            permit = match self.line.breaker.admit(&call.path) {
                Ok(permit) => permit,
                Err(_held_back) => return outcome,
            };
            repeats += 1;
        }
    }

    async fn ask(&self, call: &AppCall, query: &str, payload: &Payload) -> Result<Peeked, Lost> {
        let question = Question {
            method: &call.method,
            path: &call.path,
            query,
            headers: &call.headers,
            payload,
        };
        self.begin(&question, call.patience, PEEK).await
    }

    /// As [`Gateway::ask`], encrypted and signed in both directions.
    async fn ask_sealed(
        &self,
        envelope: &Envelope,
        call: &AppCall,
        query: &str,
        payload: &Payload,
    ) -> Result<Peeked, Lost> {
        let Payload::Whole(body) = payload else {
            let detail = (
                "a call that is to be encrypted has to be known as a whole",
                "需要加密的调用必须先完整读入内存",
            );
            let error = Error::new(Kind::Internal, Side::Us, detail);
            return Err(Lost::unsent(error));
        };
        let sealed = envelope.seal(&call.path, query, body);
        let sealed = sealed.map_err(Lost::unsent)?;
        let question = Question {
            method: &Method::POST,
            path: &call.path,
            query: &sealed.query,
            headers: &sealed.headers,
            payload: &Payload::Whole(sealed.body),
        };
        let begun = self.begin(&question, call.patience, answer::MAX_LEN);
        let mut peeked = begun.await?;
        if peeked.rest.is_some() {
            return Err(Lost::of(Failure::TooLarge, &APP));
        }
        let opened = envelope.open(&call.path, &peeked.headers, &peeked.start);
        peeked.start = opened.map_err(Lost::disbelieved)?;
        let json = HeaderValue::from_static("application/json");
        peeked.headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        Ok(peeked)
    }

    async fn begin(
        &self,
        question: &Question<'_>,
        patience: Duration,
        peek: usize,
    ) -> Result<Peeked, Lost> {
        let answered = async {
            let response = self.line.client.begin(question, patience).await?;
            Peeked::of(response, patience, peek).await
        };
        answered.await.map_err(|failure| Lost::of(failure, &APP))
    }

    /// Whether the body of a call at `path` must be known as a whole before it can be made.
    pub(crate) fn must_be_whole(&self, path: &str) -> bool {
        self.line.envelope_for(path).is_some()
    }

    /// Tells the breaker what came, and makes an answer for the app of it. If it was in vain, how.
    fn settle(
        &self,
        asked: Result<Peeked, Lost>,
        permit: Permit<'_>,
        path: &str,
        hidden: &[&str],
    ) -> (Result<AppAnswer, Error>, Option<Vain>) {
        let peeked = asked.and_then(|peeked| match peeked.status.is_redirection() {
            true => Err(Lost::disbelieved(redirected(peeked.status))),
            false => Ok(peeked),
        });
        let peeked = match peeked {
            Ok(peeked) => peeked,
            Err(lost) => {
                let vain = lost.failed.map(Vain::from);
                return (Err(lost.settle(permit)), vain);
            }
        };
        let refusal = peeked.whole().and_then(|answer| {
            let refusal = self.line.refusal(&answer, hidden);
            refusal.filter(|refusal| !errcode::is_success_at(path, refusal.errcode))
        });
        let (status, errcode) = (peeked.status, refusal.as_ref().map(|it| it.errcode));
        let held_back = permit.answered(status.as_u16(), refusal.as_ref());
        let vain = match errcode {
            Some(errcode) => Some(Vain::refused(path, errcode)),
            None => status.is_server_error().then_some(Vain::Lost),
        };
        let error = match refusal {
            Some(refusal) => Some(refused(refusal, path)),
            None => (status != StatusCode::OK).then(|| without_errcode(status)),
        };
        let answer = AppAnswer {
            refusal: error.map(|error| waiting(error, held_back)),
            ..peeked.without(hidden)
        };
        (Ok(answer), vain)
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
    async fn of(
        response: Response<Incoming>,
        patience: Duration,
        peek: usize,
    ) -> Result<Self, Failure> {
        let (head, mut body) = response.into_parts();
        let mut start = BytesMut::new();
        // What is packed can be looked into by its reader only.
        let is_packed = head.headers.contains_key(CONTENT_ENCODING);
        let mut is_over = body.is_end_stream();
        while !is_over && start.len() < peek && !is_packed && may_be_json(&start) {
            let frame = tokio::time::timeout(patience, body.frame()).await;
            match frame.map_err(|_| Failure::Timeout)? {
                Some(Ok(frame)) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(body_failure(Box::new(error))),
                // Of a body in chunks this is the only sign of its end.
                None => is_over = true,
            }
            is_over |= body.is_end_stream();
        }
        Ok(Self {
            status: head.status,
            headers: head.headers,
            start: start.freeze(),
            rest: (!is_over).then_some(body),
        })
    }

    /// The answer, if it is JSON and all of it is here.
    fn whole(&self) -> Option<Answer> {
        let is_whole = self.rest.is_none();
        answer::parse(&self.start).ok().filter(|_| is_whole)
    }

    /// The answer for the app. A peer that echoes what it was asked must not tell the app what we have shown to it.
    fn without(self, hidden: &[&str]) -> AppAnswer {
        let Self {
            status,
            mut headers,
            mut start,
            rest,
        } = self;
        if let (Some(clean), None) = (without(&start, hidden), &rest) {
            start = clean;
            headers.remove(CONTENT_LENGTH);
        }
        AppAnswer {
            status,
            headers,
            start,
            rest,
            refusal: None,
        }
    }
}

fn redirected(status: StatusCode) -> Error {
    let detail = line::redirected(status.as_u16());
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

fn without_errcode(status: StatusCode) -> Error {
    let detail = line::without_errcode(status.as_u16());
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

/// Whether what begins like this may be a JSON object.
fn may_be_json(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let first = text.trim_ascii_start().first();
    first.is_none_or(|first| *first == b'{')
}

/// `body` without the secrets, if one is in it.
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
