//! One call: asked, read, told, counted.
//!
//! The errcode table, with the API's own senses, decides how a refusal is told, and every call is logged and counted
//! here and nowhere else. A line never repeats a call by itself: who knows that it may be repeated is above.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::Memory;
use super::access_token::AccessTokenKeeper;
use super::breaker::{Breaker, Failed, Permit};
use super::client::{Client, Failure, Question, Reply};
use super::connector::{NO_CONNECTION, Unconnected};
use super::envelope::Envelope;
use super::payload::Payload;
use super::usage::Usage;
use crate::config;
use crate::domain::AppId;
use crate::error::{Error, Kind, Sentence, Side, WechatFault};
use crate::secret::Secret;
use crate::telemetry::inspector::{self, WechatCall};
use crate::telemetry::metrics::{CallOutcome, Metrics};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::trace::{self, Span, Tracing};
use crate::wechat::answer::{self, Answer, Invalid, Refusal};
use crate::wechat::api::{Advice, Api, percent_encode};
use crate::wechat::errcode::{self, Class};
use crate::wechat::login;

/// The way to WeChat, for one Mini Program.
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) breaker: Breaker,
    pub(super) usage: Arc<Usage>,
    /// If some calls are to be encrypted.
    envelope: Option<Envelope>,
    pub(super) appid: AppId,
    secrets: Vec<Secret>,
    /// Which of `secrets` WeChat took last. Only a guess where to start: a stale value costs one refused call.
    working_secret: AtomicUsize,
    /// Knows whether these are still the AppSecrets of the configuration.
    keeper: Arc<AccessTokenKeeper>,
    pub(super) metrics: Arc<Metrics>,
    tracing: Tracing,
    /// Failed calls in the log, by kind and status.
    failures: Throttle<(Kind, u16)>,
}

/// A call of an API.
pub(super) struct Call<'a> {
    pub(super) api: &'a Api,
    pub(super) query: Zeroizing<String>,
    /// JSON to post; without it, the method is GET.
    pub(super) body: Option<Bytes>,
    /// What it shows that nobody may read in WeChat's words, in case a broken peer echoes it. The AppSecrets need not
    /// be named.
    pub(super) hidden: &'a [&'a str],
}

/// What was asked, for the record.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// As a label.
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    /// Of HTTP, if anything was answered.
    pub(super) status: Option<u16>,
}

impl Line {
    pub(super) fn new(
        app: &config::App,
        wechat: &config::Wechat,
        memory: &Memory,
        metrics: Arc<Metrics>,
        keeper: Arc<AccessTokenKeeper>,
    ) -> Self {
        Self {
            client: Client::new(wechat, memory.home.clone()),
            usage: Arc::clone(&memory.usage),
            breaker: Breaker::new(
                &memory.breakers,
                &wechat.breaker,
                memory.clock.clone(),
                Arc::clone(&metrics),
            ),
            envelope: wechat.api_security.as_ref().map(|security| {
                Envelope::new(
                    Arc::clone(security),
                    app.appid.clone(),
                    memory.clock.clone(),
                )
            }),
            appid: app.appid.clone(),
            secrets: app.secrets.clone(),
            working_secret: AtomicUsize::new(0),
            keeper,
            metrics,
            tracing: memory.tracing.clone(),
            failures: Throttle::default(),
        }
    }

    /// Makes a call, once, and has a success read by `read`.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        read: impl FnOnce(&Answer) -> Result<T, Invalid>,
    ) -> Result<T, Error> {
        let permit = self.breaker.admit(call.api.path)?;
        let started = Instant::now();
        let (status, outcome) = match self.ask(&call).await {
            Ok(reply) => (Some(reply.status), self.read(&reply, &call, permit, read)),
            Err(lost) => (None, Err(lost.settle(permit))),
        };
        let asked = Asked {
            path: call.api.path,
            method: match &call.body {
                Some(_) => "POST",
                None => "GET",
            },
            status,
        };
        self.record(asked, &outcome, started.elapsed());
        outcome
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Reply, Lost> {
        let path = call.api.path;
        let body = call.body.clone().unwrap_or_default();
        let Some(envelope) = self.envelope_for(path) else {
            let (method, headers) = match &call.body {
                Some(_) => (Method::POST, json_content()),
                None => (Method::GET, HeaderMap::new()),
            };
            let question = Question {
                method: &method,
                path,
                query: &call.query,
                headers: &headers,
                payload: &Payload::Whole(body),
            };
            let reply = self.client.ask(&question).await;
            return reply.map_err(|failure| Lost::of(failure, call.api));
        };
        let sealed = envelope.seal(path, &call.query, &body);
        let sealed = sealed.map_err(Lost::unsent)?;
        let question = Question {
            method: &Method::POST,
            path,
            query: &sealed.query,
            headers: &sealed.headers,
            payload: &Payload::Whole(sealed.body),
        };
        let reply = self.client.ask(&question).await;
        let mut reply = reply.map_err(|failure| Lost::of(failure, call.api))?;
        let opened = envelope.open(path, &reply.headers, &reply.body);
        reply.body =
            opened.map_err(|error| Lost::disbelieved(may_have_acted(error, call.api.if_lost)))?;
        Ok(reply)
    }

    /// What calls at `path` are put into, if they are.
    pub(super) fn envelope_for(&self, path: &str) -> Option<&Envelope> {
        self.envelope
            .as_ref()
            .filter(|envelope| envelope.is_for(path))
    }

    /// The AppSecrets with their places, the one that WeChat took last first. After each call that shows one,
    /// [`Line::may_try_another`] is to be asked.
    pub(super) fn secrets_in_turn(&self) -> impl Iterator<Item = (usize, &Secret)> {
        let first = self.working_secret.load(Ordering::Relaxed);
        let (before, from) = self.secrets.split_at(first.min(self.secrets.len()));
        let places = (first..).zip(from).chain((0..).zip(before));
        places.take(self.secrets.len())
    }

    /// Whether the call ended because its AppSecret, the one at `place`, is wrong: WeChat checks it before all else, so
    /// the same call may be made with another. Remembers the one that works.
    pub(super) fn may_try_another<T>(&self, place: usize, outcome: &Result<T, Error>) -> bool {
        if took_secret(outcome) {
            // A call that began before a reload tells of a place in another list.
            if !self.keeper.is_replaced() {
                self.metrics.app_secret_taken(place);
            }
            if self.working_secret.swap(place, Ordering::Relaxed) != place {
                tracing::info!(
                    index = place,
                    "WeChat takes another AppSecret than before; it is tried first from now on"
                );
            }
        }
        refused_secret(outcome)
    }

    fn read<T>(
        &self,
        reply: &Reply,
        call: &Call<'_>,
        permit: Permit<'_>,
        read: impl FnOnce(&Answer) -> Result<T, Invalid>,
    ) -> Result<T, Error> {
        let answer = match parse(reply, call.api) {
            Ok(answer) => answer,
            Err(error) => return Err(Lost::disbelieved(error).settle(permit)),
        };
        let refusal = self.refusal(&answer, call.hidden);
        let held_back = permit.answered(reply.status, refusal.as_ref());
        if let Some(refusal) = refusal {
            return Err(waiting(refused(refusal, call.api.path), held_back));
        }
        if reply.status != 200 {
            let status = reply.status;
            return Err(invalid(without_errcode(status), call.api));
        }
        read(&answer).map_err(|why| unusable(why, call.api))
    }

    /// What WeChat said, without what was shown to it, which a broken peer might echo in clear or as a URL has it.
    pub(super) fn refusal(&self, answer: &Answer, hidden: &[&str]) -> Option<Refusal> {
        let in_clear: Vec<&str> = self
            .secrets
            .iter()
            .map(Secret::expose)
            .chain(hidden.iter().copied())
            .collect();
        let encoded: Vec<_> = in_clear.iter().copied().map(percent_encode).collect();
        let encoded = encoded.iter().map(|text| text.as_str());
        let hidden: Vec<&str> = in_clear.iter().copied().chain(encoded).collect();
        answer.refusal(&hidden)
    }

    pub(super) fn record<T>(&self, asked: Asked, outcome: &Result<T, Error>, took: Duration) {
        let path = asked.path;
        let begun = self.tracing.begin();
        self.tracing
            .finish(&begun, || self.span(asked, outcome.as_ref().err(), took));
        inspector::note(|record| {
            let made = (asked.method, path);
            let error = outcome.as_ref().err();
            record.called(WechatCall::new(made, asked.status, took, error));
        });
        self.usage.count(path);
        self.metrics.wechat_call(path, call_outcome(outcome), took);
        let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(_) => tracing::debug!(path, errcode = 0, elapsed_ms, "WeChat answered"),
            // A code that a client made up is its own business, and it could fill our log with them.
            Err(error) if error.side() == Side::Downstream => {
                tracing::debug!(path, elapsed_ms, %error, "WeChat refused what the client sent");
            }
            Err(error) => {
                let cause = (error.kind(), error.status());
                let Some(suppressed) = self.failures.pass(cause, Instant::now()) else {
                    tracing::debug!(path, elapsed_ms, %error, "a call to WeChat failed");
                    return;
                };
                tracing::warn!(
                    path,
                    errcode = error.fault().map(|fault| fault.meaning.code),
                    rid = error.fault().and_then(|fault| fault.rid.as_deref()),
                    elapsed_ms,
                    %error,
                    suppressed,
                    "a call to WeChat failed"
                );
            }
        }
    }
}

impl Line {
    /// A call as it is told in a trace: WeChat's word for it counts, and HTTP's only where there is none.
    fn span(&self, asked: Asked, failed: Option<&Error>, took: Duration) -> Span {
        let Asked {
            path,
            method,
            status,
        } = asked;
        let fault = failed.and_then(Error::fault);
        let errcode = match (failed, fault) {
            (None, _) => Some(0),
            (Some(_), fault) => fault.map(|fault| fault.meaning.code),
        };
        let error = failed.map(|error| match fault {
            Some(fault) => fault.meaning.code.to_string().into(),
            None => Cow::from(error.kind().row().slug),
        });
        let endpoint = self.client.only_endpoint();
        Span::new(trace::Kind::Client, format!("{method} {path}"), took)
            .with("http.request.method", method)
            .with("wechat.cgi_path", path)
            .with_some("wechat.errcode", errcode)
            .with_some("wechat.rid", fault.and_then(|fault| fault.rid.clone()))
            .with_some("server.address", endpoint.map(|it| it.host.clone()))
            .with_some("server.port", endpoint.map(|it| it.port))
            .with_some("http.response.status_code", status)
            .with_error(error)
    }
}

/// A call that has brought no answer.
pub(super) struct Lost {
    pub(super) error: Error,
    /// What that says of WeChat, if it was asked.
    pub(super) failed: Option<Failed>,
}

impl Lost {
    pub(super) fn of(failure: Failure, api: &Api) -> Self {
        Self {
            failed: Some(Failed::from(&failure)),
            error: lost(failure, api),
        }
    }

    /// It could not even be made.
    pub(super) fn unsent(error: Error) -> Self {
        Self {
            error,
            failed: None,
        }
    }

    /// What came back is no answer.
    pub(super) fn disbelieved(error: Error) -> Self {
        Self {
            error,
            failed: Some(Failed::Invalid),
        }
    }

    /// Tells the breaker. What the caller is told then says how long to wait.
    pub(super) fn settle(self, permit: Permit<'_>) -> Error {
        let held_back = self.failed.and_then(|failed| permit.failed(failed));
        waiting(self.error, held_back)
    }
}

/// An error that says how long calls are held back, if they are.
pub(super) fn waiting(error: Error, held_back: Option<Duration>) -> Error {
    match held_back {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

fn json_content() -> HeaderMap {
    let json = HeaderValue::from_static("application/json");
    HeaderMap::from_iter([(CONTENT_TYPE, json)])
}

/// Reads the body as an answer. A status other than 200 does not matter if there is an errcode: it tells more.
fn parse(reply: &Reply, api: &Api) -> Result<Answer, Error> {
    let status = reply.status;
    if (300..400).contains(&status) {
        return Err(invalid(redirected(status), api));
    }
    answer::parse(&reply.body).map_err(|why| match status {
        200 => unusable(why, api),
        _ => {
            let detail = (
                format!("WeChat answered HTTP {status} with something that is not JSON"),
                format!("微信返回 HTTP {status}，内容不是 JSON"),
            );
            invalid(detail, api).with_cause(why)
        }
    })
}

/// How it is told that WeChat wants us to go elsewhere.
pub(super) fn redirected(status: u16) -> (String, String) {
    (
        format!("WeChat answered HTTP {status}, a redirect, and redirects are not followed"),
        format!("微信返回 HTTP {status}（重定向），sidecar 不跟随重定向"),
    )
}

/// How it is told that WeChat failed without saying why.
pub(super) fn without_errcode(status: u16) -> (String, String) {
    (
        format!("WeChat answered HTTP {status} without an errcode"),
        format!("微信返回 HTTP {status}，没有 errcode"),
    )
}

/// How it is told that what WeChat answers says nothing that is of use.
pub(super) fn of_no_use(why: Invalid) -> (String, String) {
    (
        format!("WeChat's answer cannot be used: {why}"),
        "微信的响应无法使用".to_owned(),
    )
}

/// How it is told that WeChat refused a call at `path`.
pub(crate) fn refused(refusal: Refusal, path: &str) -> Error {
    let advice = refusal.advice_at(path);
    let code = refusal.errcode;
    let fault = WechatFault {
        meaning: errcode::meaning_at(path, code),
        errmsg: refusal.errmsg,
        rid: refusal.rid,
    };
    let mut error = Error::wechat(fault);
    if let Some(after) = errcode::retry_after(code) {
        error = error.with_retry_after(after);
    }
    match advice {
        Some(advice) => error.with_hint(advice),
        None => error,
    }
}

fn lost(failure: Failure, api: &Api) -> Error {
    let error = |kind, detail: (&'static str, &'static str)| Error::new(kind, Side::Wechat, detail);
    match failure {
        Failure::NotConnected(cause) => {
            let unconnected = Unconnected::behind(&*cause);
            let detail = unconnected.map_or(NO_CONNECTION, Unconnected::told);
            error(Kind::WechatUnreachable, detail).with_cause(cause)
        }
        Failure::BrokeOff(cause) => {
            let detail = (
                "WeChat broke off before its answer was complete",
                "微信的响应在完成之前中断",
            );
            may_have_acted(error(Kind::WechatUnreachable, detail), api.if_lost).with_cause(cause)
        }
        Failure::Timeout => {
            let detail = ("WeChat did not answer in time", "微信没有及时响应");
            may_have_acted(error(Kind::WechatTimeout, detail), api.if_lost)
        }
        Failure::NotHttp(cause) => {
            let detail = (
                "WeChat's answer is not valid HTTP",
                "微信的响应不是有效的 HTTP",
            );
            invalid(detail, api).with_cause(cause)
        }
        Failure::TooLarge => {
            let detail = (
                "WeChat's answer is larger than 1 MiB",
                "微信的响应超过 1 MiB",
            );
            invalid(detail, api)
        }
    }
}

fn unusable(why: Invalid, api: &Api) -> Error {
    invalid(of_no_use(why), api)
}

fn invalid(detail: impl Into<Sentence>, api: &Api) -> Error {
    let error = Error::new(Kind::WechatInvalid, Side::Wechat, detail);
    may_have_acted(error, api.if_lost)
}

/// For a call whose answer was lost: what WeChat has done is not known, and a code may be used up.
fn may_have_acted(error: Error, if_lost: Option<Advice>) -> Error {
    match if_lost {
        Some(advice) => error.with_hint(advice),
        None => error,
    }
}

fn refused_secret<T>(outcome: &Result<T, Error>) -> bool {
    let fault = outcome.as_ref().err().and_then(Error::fault);
    fault.is_some_and(|fault| login::is_wrong_secret(fault.meaning.code))
}

/// Whether the answer proves that WeChat took the secret: it looked at the code.
fn took_secret<T>(outcome: &Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => error.fault().is_some_and(|fault| {
            matches!(fault.meaning.class, Class::UserInput | Class::ContentRisk)
        }),
    }
}

fn call_outcome<T>(outcome: &Result<T, Error>) -> CallOutcome {
    let Err(error) = outcome else {
        return CallOutcome::Errcode(0);
    };
    match (error.fault(), error.kind()) {
        (Some(fault), _) => CallOutcome::Errcode(fault.meaning.code),
        (None, Kind::WechatTimeout) => CallOutcome::Timeout,
        (None, Kind::WechatUnreachable) => CallOutcome::Unreachable,
        (None, _) => CallOutcome::Invalid,
    }
}
