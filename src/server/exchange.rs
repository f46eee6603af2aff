//! THE request: what happens to it, from its head to the record of its end.
//!
//! begin → canonical path → route → authenticate → admit → answer it ourselves or forward it → record. Every error on the
//! way comes back to `exchange`, where it becomes HTTP in one place.

pub(super) mod downloads;
pub(super) mod open_data;
pub(super) mod push;
mod spans;
mod text_check;
pub(super) mod uploads;
pub(super) mod watched;
pub(super) mod written;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::problem::{language, problem};
use super::router::{Action, Endpoint, Rule};
use super::snapshot::Snapshot;
use super::worker::{Counted, Peer, Settings, Worker};
use crate::answer::{Answer, reason};
use crate::clock::Timestamp;
use crate::config::{Auth, ClientTrace, EscapedSlashes};
use crate::domain::{LoginCode, UnionId, User};
use crate::error::{Error, Kind, Language, Sentence, Side};
use crate::open_data::Request;
use crate::path::CanonicalPath;
use crate::proxy::{self, Added, Body, Counting, Forward, Origin};
use crate::resilience::panics::{caught, faults};
use crate::resilience::{Buffered, RateLimiter, Slot, Whose};
use crate::session::{Claims, Granted, ShownToken};
use crate::telemetry::ids::{IdSource, RequestId, TraceContext, Traced};
use crate::telemetry::inspector;
use crate::telemetry::logs::access::{Asked, Served};
use crate::telemetry::requests::{UpstreamResult, WorkerCells};
use crate::telemetry::timings::Timings;
use crate::telemetry::trace::{self, Tracing};
use crate::wire::{Framing, HeadError, Length, Method, Name, Reader, RequestHead, Responder};
use text_check::Checking;

/// The largest body of our own endpoints; a code and a token fit many times.
pub(super) const OWN_BODY_LIMIT: u64 = 16 * 1024;
/// The largest body that is looked into for a login code on its way to the app.
pub(super) const LOGIN_BODY_LIMIT: u64 = 1024 * 1024;
/// The status that is recorded when the client went away before it could be answered (nginx's convention).
pub(super) const CLIENT_GONE: u16 = 499;

/// A request under way.
struct Exchange<'a> {
    worker: &'a Worker,
    settings: &'a Settings,
    snapshot: &'a Snapshot,
    shown: &'a ShownToken,
    head: &'a RequestHead,
    timings: Timings,
    request_id: RequestId,
    trace: Traced,
    /// When it began, by the clock that tokens go by.
    now: Timestamp,
    origin: Origin<'a>,
    /// Whose it turned out to be.
    user: RefCell<Option<Rc<Claims>>>,
}

/// Who a request comes from, and what its client is given on the way.
#[derive(Default)]
struct Caller {
    claims: Option<Rc<Claims>>,
    grant: Option<Grant>,
}

/// Tokens that ride on the app's answer.
#[derive(Clone)]
struct Grant {
    lines: Vec<(&'static str, String)>,
    /// Whether the app has a say: on its own login route, only its 2xx makes a session.
    on_success_only: bool,
}

/// Deals with the request whose head has just been read.
pub(super) async fn exchange(
    worker: &Worker,
    settings: &Settings,
    peer: &Peer,
    (head, mut body, mut responder): (&RequestHead, Reader<'_>, Responder<'_>),
) {
    let _in_flight = InFlight::count(&worker.cells);
    let exchange = Exchange::begin(worker, settings, peer, head);
    let mut counted = Counted::Unrouted;
    let timings = &exchange.timings;
    let watched = exchange.watch(responder.protocol());
    let handling = exchange.handle(&mut body, &mut responder, &mut counted);
    let handling = trace::within(exchange.trace.here, timings.work(handling));
    let handled = caught(inspector::within(watched.clone(), handling)).await;
    let outcome = handled.unwrap_or_else(|panicked| {
        // Nobody knows how far it got with the connection.
        responder.take_back();
        responder.close();
        Err(worker.broke(panicked))
    });
    if let Err(error) = &outcome {
        let telling = timings.work(exchange.tell(error, &body, &mut responder));
        inspector::within(watched.clone(), telling).await;
    }
    timings.end(responder.bytes());
    let status = responder.status().unwrap_or(CLIENT_GONE);
    // A request that became a tunnel was recorded then.
    if status != 101 {
        let recorder = settings.recorder(counted);
        recorder.record(head.method.as_str(), status, timings.took());
        if let Some(result) = upstream(&outcome, timings) {
            recorder.upstream(result, timings.upstream());
        }
        worker.cells.ended(counted.did(), timings);
    }
    if let Err(error) = &outcome {
        worker.cells.problem(error.kind().row().slug);
    }
    exchange.log_failure(&outcome, status);
    if let Some(stands_for) = worker.sampler.wants(&exchange.snapshot.config.log, status) {
        let served = exchange.served(counted, &outcome, status, responder.protocol());
        served.log(stands_for);
    }
    exchange.record_span(counted, &outcome, status, &responder);
    if let Some(watched) = watched {
        exchange.has_ended(&watched, counted, &outcome, responder.status());
    }
}

/// What came of a request that the app was to get, if it was.
fn upstream(outcome: &Result<(), Error>, timings: &Timings) -> Option<UpstreamResult> {
    match outcome {
        Err(error) if error.side() == Side::Upstream => Some(match error.kind() {
            Kind::UpstreamTimeout => UpstreamResult::Timeout,
            Kind::UpstreamInvalid => UpstreamResult::Invalid,
            _ => UpstreamResult::Unreachable,
        }),
        _ => match timings.answered_at() {
            Some((_, status)) => Some(UpstreamResult::Answered(status)),
            None => timings.asked_at().map(|_| UpstreamResult::Abandoned),
        },
    }
}

/// Counts a request for as long as it is being dealt with, however that ends.
struct InFlight<'a>(&'a WorkerCells);

impl<'a> InFlight<'a> {
    fn count(cells: &'a WorkerCells) -> Self {
        cells.in_flight.add(1);
        Self(cells)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.sub(1);
    }
}

/// Answers a head that is not one, and ends the connection.
pub(super) async fn refuse(
    worker: &Worker,
    settings: &Settings,
    peer: &Peer,
    cause: &HeadError,
    responder: Responder<'_>,
) {
    refuse_with(worker, settings, peer, &no_head(cause), responder).await;
}

/// How it is told that a head is not one.
pub(super) fn no_head(cause: &HeadError) -> Error {
    let kind = match cause {
        HeadError::Malformed(_) => Kind::BadRequest,
        HeadError::TooLarge => Kind::HeaderTooLarge,
        HeadError::Version => Kind::VersionNotSupported,
        HeadError::TransferCoding => Kind::NotImplemented,
    };
    Error::downstream(kind, Sentence::english(cause.to_string()))
}

/// Answers a client that did not finish its head in time.
pub(super) async fn refuse_slow(
    worker: &Worker,
    settings: &Settings,
    peer: &Peer,
    responder: Responder<'_>,
) {
    let error = Error::downstream(
        Kind::RequestTimeout,
        (
            "the request's head did not arrive in time",
            "请求头没有及时到达",
        ),
    );
    refuse_with(worker, settings, peer, &error, responder).await;
}

async fn refuse_with(
    worker: &Worker,
    settings: &Settings,
    peer: &Peer,
    error: &Error,
    mut responder: Responder<'_>,
) {
    let request_id = worker.ids.request_id(worker.clock().now());
    let answer = problem(error, request_id.as_str(), Language::English);
    let limit = settings.snapshot.config.inbound.idle_timeout;
    let _gone = worker
        .timers
        .within(limit, send(&mut responder, &answer, &request_id, false))
        .await;
    settings
        .recorder(Counted::Unrouted)
        .record("other", error.status(), Duration::ZERO);
    worker.cells.problem(error.kind().row().slug);
    tracing::debug!(request_id = request_id.as_str(), status = error.status(), error = %error, "refused");
    let log = &settings.snapshot.config.log;
    if let Some(stands_for) = worker.sampler.wants(log, error.status()) {
        let served = Served {
            request_id: request_id.as_str(),
            // What a proxy says of its client is in the head, which is none.
            client: peer.place.ip(),
            status: error.status(),
            problem: Some(error.kind().row().slug),
            ..Served::of_nobody(responder.protocol())
        };
        served.log(stands_for);
    }
}

impl<'a> Exchange<'a> {
    fn begin(
        worker: &'a Worker,
        settings: &'a Settings,
        peer: &'a Peer,
        head: &'a RequestHead,
    ) -> Self {
        let snapshot: &Snapshot = &settings.snapshot;
        let origin = Origin::new(&peer.place, &snapshot.config.inbound.trusted_proxies);
        let now = worker.clock().now();
        let request_id = request_id(head, &origin, &worker.ids, now);
        let clients = snapshot.config.trace.clients;
        let trace = trace(head, &origin, &worker.ids, (clients, snapshot.tracing()));
        Self {
            trace,
            now,
            worker,
            settings,
            snapshot,
            shown: &peer.shown,
            head,
            timings: Timings::begin(),
            request_id,
            origin,
            user: RefCell::default(),
        }
    }

    async fn handle(
        &self,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
        counted: &mut Counted,
    ) -> Result<(), Error> {
        faults::strike("request");
        let path = canonical(self.head, self.snapshot.config.inbound.escaped_slashes)?;
        match self
            .snapshot
            .router
            .route(path.as_bytes(), self.head.method_text())
        {
            Action::Own(Endpoint::MediaDownload) => {
                *counted = Counted::Own(Endpoint::MediaDownload);
                let _slot = self.slot()?;
                // Boxed, because it is large and few requests need it.
                Box::pin(self.media_download(&path, body, responder)).await
            }
            Action::Own(endpoint) => {
                *counted = Counted::Own(endpoint);
                let _slot = match endpoint {
                    // At once, from memory: to refuse it would cost as much as the answer.
                    Endpoint::Session | Endpoint::Verify | Endpoint::KeySet => None,
                    _ => Some(self.slot()?),
                };
                let answer = self.answer(endpoint, &path, body, responder).await?;
                self.respond(&answer, body, responder).await
            }
            Action::Forward(rule) => {
                *counted = Counted::Rule(rule.index);
                let _slot = self.slot()?;
                self.forward(rule, &path, body, responder).await
            }
            Action::Nothing => Err(no_such_endpoint()),
            Action::WrongMethod(allowed) => Err(wrong_method(allowed)),
        }
    }

    /// One of our own endpoints.
    async fn answer(
        &self,
        endpoint: Endpoint,
        path: &CanonicalPath<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        let sessions = &self.snapshot.sessions;
        let asked = || Request::of_query(path.query().unwrap_or_default());
        match endpoint {
            Endpoint::Login => {
                self.limit_login()?;
                let request = self.read_all(OWN_BODY_LIMIT, body, responder).await?;
                let login = sessions.login(login_code(&request)?);
                Ok(self.granted(self.timings.wechat(login).await?))
            }
            Endpoint::Refresh => {
                self.limit_login()?;
                let request = self.read_all(OWN_BODY_LIMIT, body, responder).await?;
                let token = text_member(&request, "refresh_token")?;
                let granted = sessions.refresh(token.as_bytes()).await?;
                Ok(self.granted(granted))
            }
            Endpoint::Logout => {
                let (claims, _) = self.required_user().await?;
                let request = self.read_all(OWN_BODY_LIMIT, body, responder).await?;
                sessions
                    .logout(&claims, wants_everywhere(&request)?)
                    .await?;
                Ok(Answer::empty(204))
            }
            Endpoint::Session => {
                let (claims, grant) = self.required_user().await?;
                Ok(with_tokens(sessions.describe(&claims), grant))
            }
            Endpoint::Verify => {
                let (claims, grant) = self.required_user().await?;
                Ok(with_tokens(self.identity_answer(&claims.user), grant))
            }
            // Boxed, because they are large and few requests need them.
            Endpoint::OpenData => Box::pin(self.open_data(body, responder)).await,
            Endpoint::Phone => Box::pin(self.phone(body, responder)).await,
            Endpoint::PushHandshake => self.push_handshake(path),
            Endpoint::Push => Box::pin(self.push(path, body, responder)).await,
            Endpoint::MediaUpload => Box::pin(self.media_upload(path, body, responder)).await,
            Endpoint::MediaUrl => self.media_url(path).await,
            Endpoint::MediaDownload => unreachable!("it is answered as it comes, in `handle`"),
            Endpoint::KeySet => match &self.snapshot.assertions {
                Some(assertions) => Ok(assertions.key_set()),
                None => Err(no_assertions()),
            },
            Endpoint::SeedLogin => {
                self.limit_login()?;
                let request = asked();
                let code = request.code().ok_or_else(|| {
                    bad_request(("the parameter `code` is missing", "缺少参数 `code`"))
                })?;
                let login = sessions.login(parse_code(code)?);
                Ok(self.granted(self.timings.wechat(login).await?))
            }
            Endpoint::SeedInfo => Box::pin(self.open(asked())).await,
            Endpoint::SeedPhone => Box::pin(self.phone_of(asked())).await,
        }
    }

    async fn forward(
        &self,
        rule: &Rule,
        path: &CanonicalPath<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let mut caller = self.authenticate(rule.asks()).await?;
        admit(self.head, rule)?;
        if let Some(limiter) = &rule.rate_limiter {
            let user = caller.claims.as_ref().map(|claims| &claims.user.openid);
            self.limit(
                limiter,
                user.map_or_else(|| Whose::Client(self.client()), Whose::User),
            )?;
        }
        let mut buffered = None;
        if rule.login && caller.grant.is_none() {
            self.limit_login()?;
            let request = self
                .read_all(rule.body_limit.min(LOGIN_BODY_LIMIT), body, responder)
                .await?;
            let login = self.snapshot.sessions.login(login_code(&request)?);
            let granted = self.timings.wechat(login).await?;
            caller = Caller::logged_in(granted, true);
            self.note(&caller);
            buffered = Some(request);
        }
        let mut told = Vec::new();
        let looks_into = rule.text_check.is_some() || rule.open_data || rule.media_upload;
        let written = match looks_into && self.head.framing != Framing::Empty {
            true => Some(self.written()?),
            false => None,
        };
        let written = written.as_ref();
        let checking = match &rule.text_check {
            Some(check) => Some(Checking::of(check, &caller, path, written)?),
            None => None,
        };
        let form = match written {
            Some(written) if rule.media_upload && buffered.is_none() => written.boundary()?,
            _ => None,
        };
        let mut passed = None;
        if let (Some(checking), None) = (&checking, &form) {
            // Before all that changes the body. Boxed, because it is large and few requests need it.
            let limit = rule.body_limit;
            let judged = self.check_texts(checking, limit, body, responder, &mut buffered);
            passed = Some(Box::pin(judged).await?);
        }
        if let Some(written) = written
            && rule.open_data
            && written.is_json()?
        {
            let text = match buffered.take() {
                Some(text) => text,
                None => self.read_all(rule.body_limit, body, responder).await?,
            };
            // Boxed, because it is large and few requests need it.
            let (rewritten, count) = Box::pin(self.rewritten(&text, &caller)).await?;
            told.push(("X-WX-Open-Data", count.to_string()));
            buffered = Some(rewritten);
        }
        if let Some(boundary) = form {
            let checking = checking.as_ref();
            let limit = rule.body_limit;
            let user = caller.claims.as_ref().map(|claims| &claims.user.openid);
            let uploading = self.with_media_ids(boundary, limit, user, checking, body, responder);
            let (rewritten, sent, judged) = Box::pin(uploading).await?;
            uploads::tell_app(&sent, &mut told);
            buffered = Some(rewritten);
            passed = judged;
        }
        if let Some(passed) = passed {
            told.push(("X-WX-Text-Check", passed.label().to_owned()));
        }
        if let (Some(assertions), Some(claims)) = (&self.snapshot.assertions, &caller.claims) {
            let assertion = assertions.sign(&claims.user, self.now);
            told.push(("X-WX-Assertion", assertion));
        }
        let inbound = &self.snapshot.config.inbound;
        let added = caller.grant.as_ref().map(|grant| Added {
            lines: &grant.lines,
            on_success_only: grant.on_success_only,
        });
        let call = self.trace.here.child(&self.worker.ids);
        let forward = Forward {
            head: self.head,
            path,
            upstream: &rule.upstream,
            authority: rule.authority.as_bytes(),
            user: caller.claims.as_ref().map(|claims| &claims.user),
            app_lines: &self.snapshot.app_lines,
            told: &told,
            origin: self.origin,
            request_id: &self.request_id,
            trace: call.to_text(),
            trace_goes_on: self.trace.goes_on(),
            limits: rule.limits(inbound),
            added,
            takes_media: self.snapshot.media.is_some(),
            counting: Counting {
                recorder: self.settings.recorder(Counted::Rule(rule.index)),
                cells: &self.worker.cells,
                timings: &self.timings,
            },
        };
        let request = match &buffered {
            Some(bytes) => Body::Buffered(bytes),
            None => Body::Wire(&mut *body),
        };
        let forwarded = proxy::forward(
            &forward,
            &self.worker.pool,
            &self.worker.timers,
            request,
            responder,
        )
        .await;
        self.record_upstream(call, rule, forwarded.as_ref().err());
        match forwarded? {
            // Boxed, because it is large and few requests need it.
            Some(handed) => Box::pin(self.send_handed(&handed, body, responder)).await,
            None => Ok(()),
        }
    }

    /// Who this is: a code logs in on the fly, a token says it, or `auth` lets nobody in particular pass.
    async fn authenticate(&self, auth: Auth) -> Result<Caller, Error> {
        let caller = self.prove(auth).await?;
        self.note(&caller);
        Ok(caller)
    }

    async fn prove(&self, auth: Auth) -> Result<Caller, Error> {
        match Proof::of(self.head, auth)? {
            Proof::Code(code) => {
                self.limit_login()?;
                let text = std::str::from_utf8(code).unwrap_or_default();
                let login = self.snapshot.sessions.login(parse_code(text)?);
                let granted = self.timings.wechat(login).await?;
                Ok(Caller::logged_in(granted, false))
            }
            Proof::Token(token) => Ok(Caller {
                claims: Some(self.snapshot.sessions.verify(token, self.now, self.shown)?),
                grant: None,
            }),
            Proof::Nothing => Ok(Caller::default()),
        }
    }

    /// Remembers for the log whose this request is.
    fn note(&self, caller: &Caller) {
        if let Some(claims) = &caller.claims {
            *self.user.borrow_mut() = Some(Rc::clone(claims));
        }
    }

    /// Tells a client that it has a session.
    fn granted(&self, granted: Granted) -> Answer {
        let answer = granted.to_answer();
        *self.user.borrow_mut() = Some(Rc::new(granted.claims));
        answer
    }

    /// A place among the requests that are dealt with at once.
    fn slot(&self) -> Result<Slot<'a>, Error> {
        let limit = self.snapshot.requests_per_worker;
        self.worker.slots.take(limit).ok_or_else(|| {
            Error::overloaded((
                "as many requests as max_requests allows are being dealt with",
                "正在处理的请求数已达 max_requests 上限",
            ))
        })
    }

    /// Logins and refreshes are counted by address: nobody knows yet whose they are.
    fn limit_login(&self) -> Result<(), Error> {
        match &self.snapshot.login_limiter {
            Some(limiter) => self.limit(limiter, Whose::Client(self.client())),
            None => Ok(()),
        }
    }

    fn limit(&self, limiter: &RateLimiter, whose: Whose<'_>) -> Result<(), Error> {
        limiter
            .admit(whose, self.worker.clock().now())
            .map_err(|wait| {
                let seconds = wait.as_millis().div_ceil(1000);
                let after = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
                let detail = match whose {
                    Whose::User(_) => (
                        "this user sends more requests than the rate limit allows",
                        "该用户的请求超过了频率限制",
                    ),
                    Whose::Client(_) => (
                        "this address sends more requests than the rate limit allows",
                        "该地址的请求超过了频率限制",
                    ),
                };
                Error::downstream(Kind::RateLimited, detail).with_retry_after(after)
            })
    }

    /// The address of the client, for what is counted by address. All who come through a Unix socket, and of whom no
    /// proxy says more, count as one.
    fn client(&self) -> IpAddr {
        let known = self.origin.client_ip(&self.head.fields);
        known.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    async fn required_user(&self) -> Result<(Rc<Claims>, Option<Grant>), Error> {
        let caller = self.authenticate(Auth::Required).await?;
        let claims = caller.claims.ok_or_else(token_missing)?;
        Ok((claims, caller.grant))
    }

    fn only(&self, name: Name) -> Result<Option<&'a [u8]>, Error> {
        only(self.head, name)
    }

    fn identity_answer(&self, user: &User) -> Answer {
        let app = &self.snapshot.config.app;
        let answer = Answer::empty(204)
            .with("cache-control", "no-store")
            .with("X-WX-OPENID", user.openid.as_str())
            .with("X-WX-APPID", app.appid.as_str())
            .with("X-WX-SOURCE", "wx_client")
            .with("X-WX-ENV", app.env.as_str());
        let answer = match user.unionid.as_ref().map(UnionId::as_str) {
            Some(unionid) => answer.with("X-WX-UNIONID", unionid),
            None => answer,
        };
        match &self.snapshot.assertions {
            Some(assertions) => answer.with("X-WX-Assertion", assertions.sign(user, self.now)),
            None => answer,
        }
    }

    async fn read_all(
        &self,
        limit: u64,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Buffered, Error> {
        if matches!(self.head.framing, Framing::Length(length) if length > limit) {
            return Err(proxy::too_large(limit));
        }
        if self.head.expects_continue {
            self.send_within(responder.go_on()).await?;
        }
        let budget = self.snapshot.config.inbound.buffer_limit;
        let mut all = self.snapshot.shared.buffers.body(budget);
        let mut pace = proxy::Pace::new(self.snapshot.config.inbound.idle_timeout);
        loop {
            let count = self.more(all.len() as u64, &mut pace, body).await?;
            if count == 0 {
                return Ok(all);
            }
            all.push(body.chunk())?;
            body.consume(count);
            if all.len() as u64 > limit {
                return Err(proxy::too_large(limit));
            }
        }
    }

    /// Waits for more of a body of which `received` bytes have come, and says how many there are; 0 is its end.
    async fn more(
        &self,
        received: u64,
        pace: &mut proxy::Pace,
        body: &mut Reader<'_>,
    ) -> Result<usize, Error> {
        let began = Instant::now();
        let patience = pace.limit(received);
        let reading = self.worker.timers.within(patience, body.ready()).await;
        pace.count(began.elapsed());
        match reading {
            Ok(Ok(count)) => {
                self.timings.received(received + count as u64);
                inspector::note(|record| record.received(received, body.chunk()));
                Ok(count)
            }
            Ok(Err(error)) => Err(proxy::broken_body(error)),
            Err(_) => Err(proxy::silent_within_body()),
        }
    }

    async fn respond(
        &self,
        answer: &Answer,
        body: &Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        responder.close_unless_read(self.head, body);
        let persistent = self.head.connection.persistent;
        self.send_within(send(responder, answer, &self.request_id, persistent))
            .await
    }

    fn send_within<T>(
        &self,
        sending: impl Future<Output = std::io::Result<T>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let limit = self.snapshot.config.inbound.idle_timeout;
        proxy::to_client(&self.worker.timers, limit, sending)
    }

    /// Turns an error into an answer. Once an answer has been begun nothing can be told any more: the connection is
    /// dropped, so that the client sees a broken answer and not a short one.
    async fn tell(&self, error: &Error, body: &Reader<'_>, responder: &mut Responder<'_>) {
        if responder.has_started() {
            responder.close();
            return;
        }
        if responder.is_gone() {
            return;
        }
        let answer = problem(
            error,
            self.request_id.as_str(),
            language(self.head.fields.list(Name::AcceptLanguage)),
        );
        let _gone = self.respond(&answer, body, responder).await;
    }

    fn log_failure(&self, outcome: &Result<(), Error>, status: u16) {
        if let Err(error) = outcome {
            let request_id = self.request_id.as_str();
            let side = format!("{:?}", error.side()).to_lowercase();
            let failures = &self.snapshot.shared.failures;
            let told = match status {
                500.. => failures.pass((error.kind(), status), Instant::now().into_std()),
                _ => None,
            };
            if let Some(suppressed) = told {
                tracing::warn!(request_id, status, side, error = %error, suppressed, "request failed");
            } else {
                tracing::debug!(request_id, status, side, error = %error, "request failed");
            }
        }
    }

    /// What the access log says.
    fn served<'s>(
        &'s self,
        counted: Counted,
        outcome: &Result<(), Error>,
        status: u16,
        protocol: &'static str,
    ) -> Served<'s> {
        let user = self.user.borrow();
        let pseudonyms = &self.snapshot.pseudonyms;
        let tells_path = self.snapshot.config.log.access_path;
        Served {
            request_id: self.request_id.as_str(),
            trace: Some(self.trace.here.trace_id()),
            client: self.origin.client_ip(&self.head.fields),
            protocol,
            method: Some(self.head.method.as_str()),
            asked: Asked::Route(self.settings.route(counted)),
            path: tells_path.then(|| without_query(self.head.target())),
            status,
            problem: outcome.as_ref().err().map(|error| error.kind().row().slug),
            timings: Some(&self.timings),
            verified: user.is_some(),
            user: user
                .as_ref()
                .map(|claims| self.shown.pseudonym(claims, pseudonyms)),
        }
    }
}

fn without_query(target: &[u8]) -> &[u8] {
    target.split(|&b| b == b'?').next().unwrap_or_default()
}

/// What a request shows of its user.
pub(super) enum Proof<'h> {
    /// A code of `wx.login`, which is exchanged on the way.
    Code(&'h [u8]),
    /// An access token.
    Token(&'h [u8]),
    /// Nothing that `auth` would look at.
    Nothing,
}

impl<'h> Proof<'h> {
    /// What is looked at where `auth` says who may pass; an error if it is not there and must be.
    pub(super) fn of(head: &'h RequestHead, auth: Auth) -> Result<Self, Error> {
        if let Some(code) = only(head, Name::XWxCode)? {
            return Ok(Self::Code(code));
        }
        if auth == Auth::None {
            return Ok(Self::Nothing);
        }
        match (bearer_token(head)?, auth) {
            (Some(token), _) => Ok(Self::Token(token)),
            (None, Auth::Required) => Err(token_missing()),
            (None, _) => Ok(Self::Nothing),
        }
    }
}

/// The path that a request is decided on, if it is one that can be dealt with at all.
pub(super) fn canonical(
    head: &RequestHead,
    escaped_slashes: EscapedSlashes,
) -> Result<CanonicalPath<'_>, Error> {
    let path = CanonicalPath::parse(head.target(), escaped_slashes)
        .map_err(|cause| Error::downstream(Kind::AmbiguousPath, Sentence::english(cause.0)))?;
    if matches!(head.method, Method::Connect | Method::Trace) {
        let detail = ("this method is never forwarded", "这种请求方法一律不转发");
        let error = Error::downstream(Kind::MethodNotAllowed, detail);
        return Err(error.with_allow("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if head.method_text().iter().any(u8::is_ascii_lowercase) {
        // Some apps upper-case it, and then it would be another method than the one that was decided on.
        let detail = ("methods are written in upper case", "请求方法须用大写字母");
        return Err(Error::downstream(Kind::BadRequest, detail));
    }
    Ok(path)
}

/// Refuses what is known to be too much before the app sees any of it.
pub(super) fn admit(head: &RequestHead, rule: &Rule) -> Result<(), Error> {
    match head.framing {
        Framing::Length(length) if length > rule.body_limit => {
            Err(proxy::too_large(rule.body_limit))
        }
        _ => Ok(()),
    }
}

/// The id that a trusted peer gives the request, or a new one.
pub(super) fn request_id(
    head: &RequestHead,
    origin: &Origin<'_>,
    ids: &IdSource,
    now: Timestamp,
) -> RequestId {
    let given = match head.fields.only(Name::XRequestId) {
        Ok(Some(id)) if origin.is_trusted() => RequestId::parse(id),
        _ => None,
    };
    given.unwrap_or_else(|| ids.request_id(now))
}

/// Where a request stands in a trace. What a stranger says of recording costs us and the app, so it does not count, and whether
/// its trace goes on is for the operator to say.
pub(super) fn trace(
    head: &RequestHead,
    origin: &Origin<'_>,
    ids: &IdSource,
    (clients, tracing): (ClientTrace, &Tracing),
) -> Traced {
    let given = match head.fields.only(Name::Traceparent) {
        Ok(Some(given)) => TraceContext::parse(given),
        _ => None,
    };
    match given {
        Some(above) if origin.is_trusted() => Traced::below(above, ids),
        Some(above) if clients == ClientTrace::Continue => {
            Traced::below(above.with_sampled(tracing.chooses(ids)), ids)
        }
        above => Traced {
            above,
            ..Traced::anew(ids, tracing.chooses(ids))
        },
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); other schemes are the app's own.
fn bearer_token(head: &RequestHead) -> Result<Option<&[u8]>, Error> {
    let Some(value) = only(head, Name::Authorization)? else {
        return Ok(None);
    };
    let Some((scheme, token)) = value.split_at_checked(7) else {
        return Ok(None);
    };
    Ok(scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii()))
}

pub(super) fn only(head: &RequestHead, name: Name) -> Result<Option<&[u8]>, Error> {
    head.fields.only(name).map_err(|_repeated| {
        Error::downstream(
            Kind::BadRequest,
            (
                "a header that may stand only once stands twice",
                "只能出现一次的请求头出现了两次",
            ),
        )
    })
}

impl Caller {
    fn logged_in(granted: Granted, on_success_only: bool) -> Self {
        let lines = granted.to_lines();
        Self {
            claims: Some(Rc::new(granted.claims)),
            grant: Some(Grant {
                lines,
                on_success_only,
            }),
        }
    }
}

async fn send(
    responder: &mut Responder<'_>,
    answer: &Answer,
    request_id: &RequestId,
    persistent: bool,
) -> std::io::Result<()> {
    let length = match answer.status {
        204 => Length::Absent,
        _ => Length::Exact(answer.body.len() as u64),
    };
    responder.start(answer.status, reason(answer.status).as_bytes(), length);
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    responder.field(b"date", date.as_bytes());
    for (name, value) in &answer.fields {
        responder.field(name.as_bytes(), value.as_bytes());
    }
    responder.field(b"x-request-id", request_id.as_bytes());
    responder.end_head(persistent);
    responder.send(&answer.body, true).await
}

fn with_tokens(answer: Answer, grant: Option<Grant>) -> Answer {
    let has = |answer: &Answer, name| answer.fields.iter().any(|(known, _)| *known == name);
    let lines = grant.map_or_else(Vec::new, |grant| grant.lines);
    lines.into_iter().fold(answer, |answer, (name, value)| {
        if has(&answer, name) {
            answer
        } else {
            answer.with(name, value)
        }
    })
}

pub(super) fn no_such_endpoint() -> Error {
    let detail = ("the sidecar has no such endpoint", "sidecar 没有这个接口");
    Error::downstream(Kind::NotFound, detail).with_hint((
        "paths below [inbound] prefix belong to the sidecar",
        "[inbound] prefix 之下的路径属于 sidecar",
    ))
}

pub(super) fn wrong_method(allowed: &'static str) -> Error {
    let detail = (
        format!("this endpoint takes {allowed}"),
        format!("该接口只接受 {allowed}"),
    );
    Error::downstream(Kind::MethodNotAllowed, detail).with_allow(allowed)
}

pub(super) fn no_assertions() -> Error {
    let detail = (
        "there are no assertions here",
        "此处没有启用断言（assertion）",
    );
    Error::downstream(Kind::NotFound, detail).with_hint((
        "write assertion = true below [session] in sidecar.toml",
        "请在 sidecar.toml 的 [session] 中写入 assertion = true",
    ))
}

pub(super) fn token_missing() -> Error {
    let detail = ("the request has no access token", "请求没有携带访问令牌");
    Error::downstream(Kind::TokenMissing, detail).with_hint((
        "log in with POST /wx/login and send `Authorization: Bearer <access_token>`",
        "请先用 POST /wx/login 登录，并发送 `Authorization: Bearer <access_token>`",
    ))
}

fn login_code(request: &[u8]) -> Result<LoginCode, Error> {
    parse_code(&text_member(request, "code")?)
}

pub(super) fn parse_code(text: &str) -> Result<LoginCode, Error> {
    LoginCode::parse(text).map_err(bad_request)
}

/// A text member of a JSON object.
fn text_member(request: &[u8], name: &'static str) -> Result<String, Error> {
    match json_object(request)?.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad_request((
            format!("the member `{name}` must be a string"),
            format!("字段 `{name}` 须为字符串"),
        ))),
        None => Err(bad_request((
            format!("the member `{name}` is missing"),
            format!("缺少字段 `{name}`"),
        ))),
    }
}

/// Whether a logout is for all of the user's sessions; without a body it is for this one.
fn wants_everywhere(request: &[u8]) -> Result<bool, Error> {
    if request.is_empty() {
        return Ok(false);
    }
    match json_object(request)?.get("everywhere") {
        None => Ok(false),
        Some(Value::Bool(everywhere)) => Ok(*everywhere),
        Some(_) => Err(bad_request((
            "the member `everywhere` must be true or false",
            "字段 `everywhere` 须为 true 或 false",
        ))),
    }
}

fn json_object(request: &[u8]) -> Result<Value, Error> {
    match serde_json::from_slice(request) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(bad_request((
            "the body must be a JSON object",
            "请求体须为 JSON 对象",
        ))),
    }
}

fn bad_request(detail: impl Into<Sentence>) -> Error {
    Error::downstream(Kind::BadRequest, detail)
}
