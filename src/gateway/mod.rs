//! Speaking to WeChat.
//!
//! The [`Gateway`] asks, waits, and turns whatever comes back into a value or an [`Error`]. It never repeats a call by
//! itself, save two: a wrong AppSecret is refused before anything else is looked at, so during a rotation the other
//! AppSecret may be tried with the same code; and so is a dead access_token, so the call may be made once more with
//! another, whatever it is about.

mod access_token;
mod breaker;
mod client;
mod connector;
mod envelope;
mod line;
mod media;
mod names;
mod payload;
pub(crate) mod probe;
mod relay;
mod repeat;
mod upload;
mod usage;
mod video;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config;
use crate::domain::{AccessToken, CloudId, LoginCode, OpenId, PhoneCode, SessionKey};
use crate::error::{Error, Kind, Side};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracing;
use crate::wechat::access_token::{self as stable_token, Grant};
use crate::wechat::answer::{Answer, Invalid, Refusal};
use crate::wechat::api::{self, Api};
use crate::wechat::cloud_id::{self, OpenData};
use crate::wechat::content_check::{self, Judgement, MediaType, Scene};
use crate::wechat::login::{self, UserSession};
use crate::wechat::phone::{self, PhoneNumber};
use crate::wechat::rid::{self, Remembered};
use crate::wechat::session_key;
use crate::wechat::signature::session_signature;
use access_token::{AccessTokenKeeper, AccessTokenKeepers, Source};
use breaker::Breakers;
use line::{Call, Line};
use repeat::Repeats;
use usage::Usage;

pub(crate) use line::refused;
pub(crate) use media::Fetched;
pub(crate) use payload::{Cause, Payload, Piece};
pub(crate) use relay::{AppAnswer, AppCall, Shows};
pub(crate) use upload::{Uploaded, Uploading};
pub(crate) use video::Films;

/// The shortest text of a user's that WeChat may not repeat, in bytes.
const SHORTEST_HIDDEN: usize = 8;

/// What is known of WeChat that outlives a reload.
#[derive(Default)]
pub struct Memory {
    access_tokens: AccessTokenKeepers,
    breakers: Breakers,
    repeats: Arc<Repeats>,
    usage: Arc<Usage>,
    /// Where connections to WeChat live, if not with whoever opens them.
    home: Option<Handle>,
    clock: Clock,
    tracing: Tracing,
}

impl Memory {
    /// Nothing is known yet; the time of day is told by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Where connections to WeChat live, if not with whoever opens them.
    pub(crate) fn home(&self) -> Option<&Handle> {
        self.home.as_ref()
    }

    /// Has calls be recorded.
    pub(crate) fn traced_by(self, tracing: Tracing) -> Self {
        Self { tracing, ..self }
    }

    pub(crate) fn tracing(&self) -> &Tracing {
        &self.tracing
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Has connections to WeChat live on `home`.
    pub(crate) fn at_home_on(self, home: Handle) -> Self {
        Self {
            home: Some(home),
            ..self
        }
    }
}

/// The way to WeChat, for one Mini Program. Shared by all workers.
pub struct Gateway {
    line: Arc<Line>,
    repeats: Arc<Repeats>,
    keeper: Arc<AccessTokenKeeper>,
}

impl Gateway {
    /// A gateway for `app`. Connects to nobody yet, and needs no runtime. Its access_token is that of the gateways
    /// before it, if they had the same `memory`, app and secrets.
    pub fn new(
        app: &config::App,
        wechat: &config::Wechat,
        memory: &Memory,
        metrics: Arc<Metrics>,
    ) -> Self {
        let keeper = memory.access_tokens.keeper(app, &metrics);
        Self {
            line: Arc::new(Line::new(app, wechat, memory, metrics, Arc::clone(&keeper))),
            repeats: Arc::clone(&memory.repeats),
            keeper,
        }
    }

    /// Exchanges a `wx.login` code for the user it stands for.
    ///
    /// The code is spent by this, whatever comes back, unless WeChat could not be connected to or refused the
    /// configuration. Dropping the future gives the code up as well.
    pub async fn code2session(&self, code: &LoginCode) -> Result<UserSession, Error> {
        let mut outcome = Err(no_secret());
        for (place, secret) in self.line.secrets_in_turn() {
            let call = Call {
                api: &login::API,
                query: login::query(&self.line.appid, secret, code),
                body: None,
                hidden: &[code.expose()],
            };
            outcome = self.line.call(call, login::parse).await;
            if !self.line.may_try_another(place, &outcome) {
                break;
            }
        }
        outcome
    }

    /// Exchanges a code of the phone number button for the number. With an openid, WeChat refuses a code of another user.
    ///
    /// The code is spent as a login's is; see [`Gateway::code2session`].
    pub async fn phone_number(
        &self,
        code: &PhoneCode,
        openid: Option<&OpenId>,
    ) -> Result<PhoneNumber, Error> {
        let body = phone::body(code, openid);
        let read = |answer: &Answer| phone::parse(answer, &self.line.appid);
        self.call(&phone::API, &[], Some(body), &[code.expose()], read)
            .await
    }

    /// The data of a user that `cloud_ids` stand for, in that order; each may be refused for itself.
    pub async fn open_data(
        &self,
        openid: &OpenId,
        cloud_ids: &[CloudId],
    ) -> Result<Vec<OpenData>, Error> {
        if cloud_ids.is_empty() {
            return Ok(Vec::new());
        }
        let query = [("openid", openid.as_str())];
        let body = cloud_id::body(cloud_ids);
        let hidden: Vec<&str> = cloud_ids.iter().map(CloudId::expose).collect();
        let read = |answer: &Answer| cloud_id::parse(answer, cloud_ids);
        self.call(&cloud_id::API, &query, Some(body), &hidden, read)
            .await
    }

    /// How it is told that WeChat has no data under one of several cloudIDs.
    pub(crate) fn refused_cloud_id(refusal: Refusal) -> Error {
        line::refused(refusal, cloud_id::API.path)
    }

    /// Whether `session_key` still is the user's key at WeChat.
    pub async fn check_session_key(
        &self,
        openid: &OpenId,
        session_key: &SessionKey,
    ) -> Result<bool, Error> {
        let signature = session_signature(session_key, b"");
        let query = session_key::query(openid, &signature);
        let outcome = self
            .call(&session_key::CHECK, &query, None, &[&signature], |_| Ok(()))
            .await;
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if refused_with(&error, session_key::is_stale_key) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has WeChat put a new key in the place of `session_key`, which is void then.
    pub async fn reset_session_key(
        &self,
        openid: &OpenId,
        session_key: &SessionKey,
    ) -> Result<SessionKey, Error> {
        let signature = session_signature(session_key, b"");
        let query = session_key::query(openid, &signature);
        let read = |answer: &Answer| session_key::parse_reset(answer, openid);
        self.call(&session_key::RESET, &query, None, &[&signature], read)
            .await
    }

    /// What WeChat says of a text that `openid` has written, of at most
    /// [`LONGEST_TEXT`](content_check::LONGEST_TEXT) characters.
    pub(crate) async fn check_text(
        &self,
        openid: &OpenId,
        scene: Scene,
        text: &str,
    ) -> Result<Judgement, Error> {
        let body = content_check::text_body(openid, scene, text);
        // A short one would hide any word of WeChat's, and says nothing.
        let hidden = [text];
        let hidden = &hidden[..usize::from(text.len() >= SHORTEST_HIDDEN)];
        let outcome = self
            .call(
                &content_check::TEXT,
                &[],
                Some(body),
                hidden,
                content_check::parse_text,
            )
            .await;
        outcome.or_else(|error| {
            let judged = error.fault().map(|fault| fault.meaning.code);
            judged.and_then(Judgement::of_refusal).ok_or(error)
        })
    }

    /// Has WeChat fetch a medium of `openid`'s and judge it; what comes of it is pushed with the `trace_id` that this gives.
    pub(crate) async fn check_media(
        &self,
        openid: &OpenId,
        scene: Scene,
        url: &str,
        media_type: MediaType,
    ) -> Result<String, Error> {
        let body = content_check::media_body(openid, scene, url, media_type);
        self.call(
            &content_check::MEDIA,
            &[],
            Some(body),
            &[url],
            content_check::parse_media,
        )
        .await
    }

    /// What WeChat remembers of a call, by the rid of its answer.
    pub(crate) async fn remembered(&self, rid: &str) -> Result<Remembered, Error> {
        self.call(&rid::API, &[], Some(rid::body(rid)), &[], rid::parse)
            .await
    }

    /// Which calls are held back at the moment, for people to read; a line each.
    pub(crate) fn held_back(&self) -> Vec<String> {
        let described = self.line.breaker.describe();
        described.iter().map(ToString::to_string).collect()
    }

    /// Makes a call that shows an access_token: any call, of which only the outcome is looked at. If WeChat says that the
    /// token is dead and another one can be had, makes it once more.
    ///
    /// # Errors
    /// Those of the call, and those of fetching a token if there is none.
    pub async fn with_access_token<T, F>(&self, call: impl Fn(AccessToken) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let token = self.keeper.token(&self.line).await?;
        let outcome = call(token.clone()).await;
        match &outcome {
            Err(error) if refused_with(error, api::is_dead_token) => {}
            _ => return outcome,
        }
        match self.keeper.replace(&token, &self.line).await? {
            Some(next) => call(next).await,
            None => outcome,
        }
    }

    /// A call of an API with an access_token, and once more with the next if that one is dead.
    async fn call<T>(
        &self,
        api: &Api,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        hidden: &[&str],
        read: impl Fn(&Answer) -> Result<T, Invalid>,
    ) -> Result<T, Error> {
        let (body, read) = (&body, &read);
        self.with_access_token(|token| async move {
            let shown = [("access_token", token.expose())];
            let call = Call {
                api,
                query: api::query_of(&[&shown, query].concat()),
                body: body.clone(),
                hidden: &[hidden, &[token.expose()]].concat(),
            };
            self.line.call(call, read).await
        })
        .await
    }
}

impl Source for Arc<Line> {
    async fn fetch(&self, force: bool) -> Result<Grant, Error> {
        let mut outcome = Err(no_secret());
        for (place, secret) in self.secrets_in_turn() {
            let call = Call {
                api: &stable_token::API,
                query: api::query_of(&[]),
                body: Some(stable_token::body(&self.appid, secret, force)),
                hidden: &[],
            };
            outcome = self.call(call, stable_token::parse).await;
            if !self.may_try_another(place, &outcome) {
                break;
            }
        }
        outcome
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

fn no_secret() -> Error {
    let detail = ("no AppSecret is configured", "没有配置 AppSecret");
    Error::new(Kind::Internal, Side::Us, detail)
}

/// Whether WeChat answered with such an errcode.
fn refused_with(error: &Error, such: fn(i64) -> bool) -> bool {
    error.fault().is_some_and(|fault| such(fault.meaning.code))
}

#[cfg(test)]
mod tests;
