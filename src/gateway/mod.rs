//! Speaking to WeChat.
//!
//! The [`Gateway`] asks, waits, and turns whatever comes back into a value or an [`Error`]: the errcode table decides
//! how a refusal is told, and every call is logged and counted here and nowhere else. It never repeats a call by itself,
//! save one: a wrong AppSecret is refused before the login code is looked at, so during a rotation the other AppSecret
//! may be tried with the same code.

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config;
use crate::domain::{AppId, LoginCode};
use crate::error::{Error, Kind, Side, WechatFault};
use crate::secret::Secret;
use crate::telemetry::metrics::{CallOutcome, Metrics};
use crate::telemetry::throttle::Throttle;
use crate::wechat::answer::{self, Answer, Refusal};
use crate::wechat::errcode::{self, Class};
use crate::wechat::login::{self, UserSession};
use client::{Client, Failure, Reply};

/// The way to WeChat, for one Mini Program. Shared by all workers.
pub struct Gateway {
    client: Client,
    appid: AppId,
    secrets: Vec<Secret>,
    /// Which of `secrets` WeChat took last. Only a guess where to start: a stale value costs one refused call.
    working_secret: AtomicUsize,
    metrics: Arc<Metrics>,
    /// Failed calls in the log, by kind and status.
    failures: Throttle<(Kind, u16)>,
}

impl Gateway {
    /// A gateway for `app`. Connects to nobody yet, and needs no runtime.
    pub fn new(app: &config::App, wechat: &config::Wechat, metrics: Arc<Metrics>) -> Self {
        Self {
            client: Client::new(wechat),
            appid: app.appid.clone(),
            secrets: app.secrets.clone(),
            working_secret: AtomicUsize::new(0),
            metrics,
            failures: Throttle::default(),
        }
    }

    /// Exchanges a `wx.login` code for the user it stands for.
    ///
    /// The code is spent by this, whatever comes back, unless WeChat could not be connected to or refused the
    /// configuration. Dropping the future gives the code up as well.
    pub async fn code2session(&self, code: &LoginCode) -> Result<UserSession, Error> {
        let first = self.working_secret.load(Ordering::Relaxed);
        let mut outcome = self.login(first, code).await;
        for turn in 1..self.secrets.len() {
            if !refused_secret(&outcome) {
                break;
            }
            let index = (first + turn) % self.secrets.len();
            outcome = self.login(index, code).await;
            if took_secret(&outcome) {
                self.working_secret.store(index, Ordering::Relaxed);
                tracing::info!(
                    index,
                    "WeChat takes another AppSecret than before; it is tried first from now on"
                );
            }
        }
        outcome
    }

    async fn login(&self, index: usize, code: &LoginCode) -> Result<UserSession, Error> {
        let Some(secret) = self.secrets.get(index) else {
            return Err(Error::new(
                Kind::Internal,
                Side::Us,
                "no AppSecret is configured",
            ));
        };
        let query = login::query(&self.appid, secret, code);
        let started = Instant::now();
        let outcome = match self.client.get(login::PATH, &query).await {
            Ok(reply) => self.read_login(&reply, code),
            Err(failure) => Err(lost(failure)),
        };
        self.record(login::PATH, &outcome, started.elapsed());
        outcome
    }

    fn read_login(&self, reply: &Reply, code: &LoginCode) -> Result<UserSession, Error> {
        let answer = read(reply)?;
        if let Some(refusal) = self.refusal(&answer, code) {
            return Err(refused(refusal));
        }
        if reply.status != 200 {
            return Err(invalid(format!(
                "WeChat answered HTTP {} without an errcode",
                reply.status
            )));
        }
        login::parse(&answer).map_err(unusable)
    }

    /// What WeChat said, without the AppSecrets and the code, which a broken peer might echo in clear or as a URL has them.
    fn refusal(&self, answer: &Answer, code: &LoginCode) -> Option<Refusal> {
        let mut in_clear: Vec<&str> = self.secrets.iter().map(Secret::expose).collect();
        in_clear.push(code.expose());
        let encoded: Vec<_> = in_clear
            .iter()
            .copied()
            .map(login::percent_encode)
            .collect();
        let encoded = encoded.iter().map(|text| text.as_str());
        let hidden: Vec<&str> = in_clear.iter().copied().chain(encoded).collect();
        answer.refusal(&hidden)
    }

    fn record<T>(&self, path: &'static str, outcome: &Result<T, Error>, took: Duration) {
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

/// Reads the body as an answer. A status other than 200 does not matter if there is an errcode: it tells more.
fn read(reply: &Reply) -> Result<Answer, Error> {
    let status = reply.status;
    if (300..400).contains(&status) {
        return Err(invalid(format!(
            "WeChat answered HTTP {status}, a redirect, and redirects are not followed"
        )));
    }
    answer::parse(&reply.body).map_err(|why| match status {
        200 => unusable(why),
        _ => invalid(format!(
            "WeChat answered HTTP {status} with something that is not JSON"
        ))
        .with_cause(why),
    })
}

fn refused(refusal: Refusal) -> Error {
    let code = refusal.errcode;
    let address = answer::address_seen(&refusal.errmsg);
    let fault = WechatFault {
        meaning: login::meaning(code),
        errmsg: refusal.errmsg,
        rid: refusal.rid,
    };
    let mut error = Error::wechat(fault, None);
    if let Some(after) = errcode::retry_after(code) {
        error = error.with_retry_after(after);
    }
    let (Some(en), Some(zh)) = (errcode::advice(code), errcode::advice_zh(code)) else {
        return error;
    };
    match address {
        Some(address) => error.with_hints(
            format!("{en}; WeChat saw {address}"),
            format!("{zh}；微信看到的 IP 是 {address}"),
        ),
        None => error.with_hints(en, zh),
    }
}

fn lost(failure: Failure) -> Error {
    let error = |kind, detail| Error::new(kind, Side::Wechat, detail);
    match failure {
        Failure::NotConnected(cause) => {
            error(Kind::WechatUnreachable, "no connection to WeChat").with_cause(cause)
        }
        Failure::BrokeOff(cause) => maybe_spent(error(
            Kind::WechatUnreachable,
            "WeChat broke off before its answer was complete",
        ))
        .with_cause(cause),
        Failure::Timeout => {
            maybe_spent(error(Kind::WechatTimeout, "WeChat did not answer in time"))
        }
        Failure::NotHttp(cause) => {
            invalid("WeChat's answer is not valid HTTP".to_owned()).with_cause(cause)
        }
        Failure::TooLarge => invalid("WeChat's answer is larger than 1 MiB".to_owned()),
    }
}

fn unusable(why: answer::Invalid) -> Error {
    invalid(format!("WeChat's answer cannot be used: {why}"))
}

fn invalid(detail: String) -> Error {
    maybe_spent(Error::new(Kind::WechatInvalid, Side::Wechat, detail))
}

/// For a login whose answer was lost: WeChat may have counted the code as used.
fn maybe_spent(error: Error) -> Error {
    error.with_hints(
        "the code may be used up; call wx.login again",
        "该 code 可能已失效；请重新调用 wx.login",
    )
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

#[cfg(test)]
mod tests;
