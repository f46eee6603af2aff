//! THE call: what happens to a call of the app's to WeChat, from its head to the record of its end.
//!
//! target → parameters → caller → rules → answer it ourselves, or take the body, sign and relay it → record. Every error on
//! the way comes back to `answer`, where it becomes HTTP in one place.
//!
//! It has a thread of its own, and an HTTP library's server: what comes in is from the app and not from the public, and
//! one call costs a TLS record and a trip to WeChat in any case. The thread outlives the workers, because the app may call until
//! its last request is answered.

mod body;

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, mpsc, watch};

use super::connections::ACCEPT_PAUSE;
use super::drain::Phase;
use super::exchange::CLIENT_GONE;
use super::problem::{language, problem};
use super::snapshot::Snapshot;
use crate::answer::Answer;
use crate::config::{Errors, Outbound};
use crate::domain::OpenId;
use crate::error::{Error, Kind, Side};
use crate::gateway::{self, AppAnswer, AppCall, Payload, Shows};
use crate::net::{Bound, Listener, Stream, is_about_one_connection};
use crate::outbound::{self, Asked, Parameters, Signing, Target};
use crate::resilience::panics::caught;
use crate::session::SessionState;
use crate::telemetry::ids::{IdSource, RequestId, TraceContext, Traced};
use crate::telemetry::inspector::{self, Began, Ended, Watched};
use crate::telemetry::logs::access::{Called, Sampler};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::timings::Timings;
use crate::telemetry::trace::{self, Span, Tracing};
use crate::wechat::answer::Refusal;
use crate::wechat::{access_token, answer, endpoints, login, session_key};
use body::AnswerBody;

/// WeChat's older endpoint for access_tokens.
const TOKEN: &str = "/cgi-bin/token";
/// The one that takes the AppSecret to reset all quotas.
const CLEAR_QUOTA: &str = "/cgi-bin/clear_quota/v2";
/// The largest body of an endpoint that is answered here.
const OWN_BODY_LIMIT: u64 = 16 * 1024;
/// How soon quotas are looked at, and how often it is seen whether there is something to look at.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// How long a connection may take to send a head, which includes how long it may idle between two calls. Long, because a
/// connection that is closed at the moment it is used again costs the app a call.
const IDLE: Duration = Duration::from_secs(600);

/// What calls of the app's are dealt with by. Never leaves its thread.
pub(super) struct OutboundSide {
    current: Arc<ArcSwap<Snapshot>>,
    state: Arc<SessionState>,
    metrics: Arc<Metrics>,
    ids: IdSource,
    /// Which calls get a line in the access log.
    sampler: Sampler,
    /// How many calls are being dealt with.
    calls: Rc<Cell<usize>>,
    /// How many connections there are.
    open: Cell<usize>,
    /// Told whenever one ends.
    closed: Notify,
}

/// Where the app's connections come in.
struct Entrance {
    listener: Listener,
    /// Turns true when those who came this way are to leave.
    ending: watch::Sender<bool>,
}

/// A call whose app waits for the answer. If it goes before there is one, that is recorded.
struct WaitedFor<'a>(Option<&'a Call<'a>>);

/// Counts a connection for as long as it lives.
struct Open(Rc<OutboundSide>);

/// A call under way.
struct Call<'a> {
    side: &'a OutboundSide,
    snapshot: &'a Snapshot,
    head: &'a request::Parts,
    request_id: RequestId,
    trace: Traced,
    timings: Timings,
    /// How much of the body has been passed on, if it is not taken as a whole.
    streamed: OnceCell<Arc<AtomicU64>>,
}

/// A call's place among those that are dealt with at once; given back when its answer has been sent.
struct Place(Rc<Cell<usize>>);

impl OutboundSide {
    pub(super) fn new(
        current: Arc<ArcSwap<Snapshot>>,
        state: Arc<SessionState>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            current,
            state,
            metrics,
            ids: IdSource::new(),
            sampler: Sampler::default(),
            calls: Rc::default(),
            open: Cell::new(0),
            closed: Notify::new(),
        }
    }

    /// Serves until told to finish, and then what is in flight. What `moves` brings takes the listener's place.
    pub(super) async fn run(
        self: Rc<Self>,
        listener: Option<Bound>,
        mut moves: mpsc::UnboundedReceiver<Option<Bound>>,
        mut phase: watch::Receiver<Phase>,
    ) {
        let delivering = self.deliver(phase.clone());
        let serving = async {
            let mut entrance = listener.map(Entrance::new);
            let mut finishing = phase.clone();
            let quotas = self.watch_quotas();
            let mut quotas = pin!(quotas);
            loop {
                let next = tokio::select! {
                    _ = finishing.wait_for(|phase| *phase >= Phase::Finishing) => break,
                    Some(next) = moves.recv() => next.map(Entrance::new),
                    () = self.accept(entrance.as_ref(), &phase) => break,
                    () = quotas.as_mut() => break,
                };
                if let Some(old) = mem::replace(&mut entrance, next) {
                    let (side, phase) = (Rc::clone(&self), phase.clone());
                    tokio::task::spawn_local(async move { side.close(old, &phase).await });
                }
            }
            drop(entrance);
            let silent = async {
                while self.open.get() > 0 {
                    self.closed.notified().await;
                }
            };
            tokio::select! {
                () = silent => {}
                _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
            }
        };
        tokio::join!(serving, delivering);
    }

    /// Lets nobody in here any more, and has those who came this way leave after what they are at.
    async fn close(self: &Rc<Self>, entrance: Entrance, phase: &watch::Receiver<Phase>) {
        let half_in = entrance.listener.turn_away();
        let accepting = self.accept(Some(&entrance), phase);
        let _over = tokio::time::timeout(half_in, accepting).await;
        let take = |stream, _| self.spawn(stream, &entrance, phase);
        entrance.listener.accept_waiting(take).await;
        entrance.ending.send_replace(true);
    }

    /// Delivers what WeChat pushes. It goes on while requests are being finished, because some of them bring messages.
    async fn deliver(&self, phase: watch::Receiver<Phase>) {
        let reaches = |phase: watch::Receiver<Phase>, end: Phase| async move {
            let mut phase = phase;
            let _gone = phase.wait_for(|phase| *phase >= end).await;
        };
        let shared = Arc::clone(&self.current.load().shared);
        let bus = tokio::select! {
            bus = shared.bus() => bus,
            () = reaches(phase.clone(), Phase::Finishing) => return,
        };
        let (leave, cut) = (
            reaches(phase.clone(), Phase::Finishing),
            reaches(phase, Phase::Stopped),
        );
        bus.deliver(leave, cut).await;
    }

    /// Looks at quotas now and then, for the metrics, once there have been calls. After a panic it begins anew.
    async fn watch_quotas(&self) {
        let mut pause = FIRST_LOOK;
        loop {
            tokio::time::sleep(pause).await;
            let snapshot = self.current.load_full();
            pause = FIRST_LOOK;
            if let Some(interval) = snapshot.config.outbound.quota_interval {
                match caught(snapshot.gateway.look_at_quotas()).await {
                    Ok(true) => pause = interval,
                    Ok(false) => {}
                    Err(panicked) => {
                        self.metrics.panicked();
                        tracing::error!(what = "quotas", error = %panicked, "given up after a panic");
                    }
                }
            }
        }
    }

    async fn accept(self: &Rc<Self>, entrance: Option<&Entrance>, phase: &watch::Receiver<Phase>) {
        let Some(entrance) = entrance else {
            return std::future::pending().await;
        };
        loop {
            match entrance.listener.accept().await {
                Ok((stream, _)) => self.spawn(stream, entrance, phase),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "outbound: cannot accept connections; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(self: &Rc<Self>, stream: Stream, entrance: &Entrance, phase: &watch::Receiver<Phase>) {
        let open = Open::count(Rc::clone(self));
        let leave = (phase.clone(), entrance.ending.subscribe());
        tokio::task::spawn_local(async move { open.0.serve(stream, leave).await });
    }

    async fn serve(
        self: &Rc<Self>,
        stream: Stream,
        (mut phase, mut ending): (watch::Receiver<Phase>, watch::Receiver<bool>),
    ) {
        if stream.send_at_once().is_err() {
            return;
        }
        let side = Rc::clone(self);
        let service = service_fn(move |request| {
            let side = Rc::clone(&side);
            async move { Ok::<_, Infallible>(side.answer(request).await) }
        });
        let mut serving = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service)
        );
        let leave = async {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => {}
                // An error means that the entrance is gone, and the phase says why.
                Ok(_) = ending.wait_for(|ending| *ending) => {}
            }
        };
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = leave => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of the app's ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let snapshot = self.current.load_full();
        let (head, body) = request.into_parts();
        let call = Call {
            side: self,
            snapshot: &snapshot,
            head: &head,
            request_id: self.ids.request_id(self.state.clock.now()),
            trace: self.trace(&head.headers, snapshot.tracing()),
            timings: Timings::begin(),
            streamed: OnceCell::new(),
        };
        let watched = call.watch();
        // An app that waits no longer drops these.
        let waited_for = WaitedFor(Some(&call));
        let _ending = watched
            .clone()
            .map(|watched| inspector::Ending(watched, call.timings.began().into_std()));
        let making = trace::within(call.trace.here, call.make(body));
        let made = caught(inspector::within(watched.clone(), making)).await;
        let outcome = made.unwrap_or_else(|panicked| {
            self.metrics.panicked();
            let detail = (
                "a defect of the sidecar; other calls are not affected",
                "sidecar 的缺陷；其他调用不受影响",
            );
            Err(Error::new(Kind::Internal, Side::Us, detail).with_cause(panicked))
        });
        let (failure, (result, mut response)) = match outcome {
            Ok(made) => (None, made),
            Err(error) => {
                call.log(&error);
                let told = (error.kind().row().slug, call.tell(&error));
                (Some(error), told)
            }
        };
        let id = HeaderValue::from_str(call.request_id.as_str())
            .expect("a request id is of visible ASCII characters");
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("x-request-id"), id.clone());
        // As CloudRun's gateway calls it.
        headers.insert(HeaderName::from_static("x-openapi-seqid"), id);
        waited_for.no_longer();
        let took = call.timings.took();
        let problem = failure.as_ref().map(|error| error.kind().row().slug);
        let line = call.record(response.status(), result, problem);
        if let Some(watched) = watched {
            show(&watched, &mut response, failure.as_ref(), took);
        }
        if let Some(line) = line {
            response.body_mut().log_as(line);
        }
        response
    }
}

impl OutboundSide {
    /// The app's word for where its call stands in a trace is taken; WeChat is told nothing of it.
    fn trace(&self, headers: &HeaderMap, tracing: &Tracing) -> Traced {
        let mut given = headers.get_all("traceparent").iter();
        match (given.next(), given.next()) {
            (Some(only), None) => TraceContext::parse(only.as_bytes()),
            _ => None,
        }
        .map_or_else(
            || Traced::anew(&self.ids, tracing.chooses(&self.ids)),
            |above| Traced::below(above, &self.ids),
        )
    }
}

impl Entrance {
    fn new(listener: Bound) -> Self {
        Self {
            listener: listener.join(),
            ending: watch::Sender::new(false),
        }
    }
}

impl Open {
    fn count(side: Rc<OutboundSide>) -> Self {
        side.open.set(side.open.get() + 1);
        Self(side)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_one();
    }
}

impl Call<'_> {
    /// What is answered, and how that is counted.
    async fn make(&self, body: Incoming) -> Result<(&'static str, Response<AnswerBody>), Error> {
        let config = &self.snapshot.config;
        let hosts = config
            .wechat
            .endpoints
            .iter()
            .map(|endpoint| endpoint.host.as_str());
        let Target { path, query } = Target::parse(&self.head.method, &self.head.uri, hosts)?;
        if path == TOKEN || path == access_token::API.path {
            let response = self.virtual_token(&path, &query, body).await?;
            return Ok(("own", response));
        }
        let (shows, ours): (_, &[&str]) = match path.as_str() {
            login::PATH => (Shows::AppSecret, &["appid", "secret"]),
            CLEAR_QUOTA => (Shows::AppSecretInBody, &["appid", "appsecret"]),
            _ => (Shows::AccessToken, &[]),
        };
        let mut parameters = Parameters::parse(&query, ours, &config.app.appid)?;
        let callers = &self.snapshot.callers;
        if let Some(slot) = callers.admit(&self.head.headers, parameters.shown())? {
            self.side.metrics.caller_token_used(slot);
        }
        self.snapshot.rules.admit(&path)?;
        let place = self.place()?;
        let signing = Signing::of(&path, &self.head.headers)?;
        let payload = match &signing {
            None => self.payload(&path, body).await?,
            Some(signing) => self.signed(signing, &path, &mut parameters, body).await?,
        };
        let call = AppCall {
            method: self.head.method.clone(),
            path,
            query: parameters.into_kept(),
            headers: outbound::for_wechat(&self.head.headers),
            payload,
            shows,
            patience: config.outbound.timeout,
        };
        let relaying = self.snapshot.gateway.relay(&call);
        let answer = self.timings.wechat(relaying).await?;
        let user = signing.and_then(|signing| signing.user);
        self.learn(&call.path, user.as_ref(), &answer).await;
        self.pass_on(answer, place)
    }

    /// Signs for the user whom the app names, and for the app itself. What is signed must be known as a whole.
    async fn signed(
        &self,
        signing: &Signing,
        path: &str,
        parameters: &mut Parameters,
        body: Incoming,
    ) -> Result<Payload, Error> {
        let body = self.hold(body, self.outbound().body_limit).await?;
        let of_user = match &signing.user {
            None => None,
            Some(user) => {
                let signed = signing.of_user(&body);
                let signature = self.snapshot.sessions.sign(user, signed).await?;
                Some(signature.ok_or_else(outbound::unknown_user)?)
            }
        };
        let keys = &self.snapshot.config.wechat.virtual_payment;
        signing.sign(path, parameters, &body, of_user.as_deref(), keys)?;
        Ok(Payload::Whole(body))
    }

    /// A session_key that the app has WeChat give out is the user's newest, and signatures and decryption need that.
    async fn learn(&self, path: &str, user: Option<&OpenId>, answer: &AppAnswer) {
        let learned = match (path, user) {
            _ if answer.refusal.is_some() => None,
            (login::PATH, _) => {
                let session = answer::parse(&answer.start).and_then(|answer| login::parse(&answer));
                session.ok().map(|user| (user.openid, user.session_key))
            }
            (path, Some(user)) if path == session_key::RESET.path => {
                let parsed = answer::parse(&answer.start);
                let key = parsed.and_then(|answer| session_key::parse_reset(&answer, user));
                key.ok().map(|key| (user.clone(), key))
            }
            _ => None,
        };
        if let Some((user, key)) = learned {
            self.snapshot.sessions.learn(&user, &key).await;
        }
    }

    /// A token endpoint, answered here: what it gives is worth nothing anywhere else.
    async fn virtual_token(
        &self,
        path: &str,
        query: &str,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Error> {
        let asked = match (path == TOKEN, &self.head.method) {
            (true, _) => Asked::of_query(query),
            (false, &Method::POST) => Asked::of_json(&self.hold(body, OWN_BODY_LIMIT).await?),
            (false, _) => {
                return self.refuse_token(Refusal::of(43002, "require POST method", &[]), path);
            }
        };
        match self.snapshot.callers.grant(&asked) {
            Ok(answer) => Ok(respond(answer)),
            Err(refusal) => self.refuse_token(refusal, path),
        }
    }

    /// A refusal of a token endpoint, told as WeChat's own are.
    fn refuse_token(&self, refusal: Refusal, path: &str) -> Result<Response<AnswerBody>, Error> {
        let said = serde_json::json!({ "errcode": refusal.errcode, "errmsg": refusal.errmsg });
        // The table knows of the sidecar's AppSecret, and this is about what the app shows in place of it.
        let hint = refusal.errmsg.clone();
        let hint_zh = match refusal.errcode {
            40002 => "grant_type 须为 client_credential".to_owned(),
            40013 => format!("本 sidecar 的 appid 是 {}", self.snapshot.config.app.appid),
            40125 => "请把 sidecar 的 caller_token 当作 AppSecret 使用".to_owned(),
            _ => "请使用 POST".to_owned(),
        };
        let error = gateway::refused(refusal, path).with_hint((hint, hint_zh));
        if self.wants_problems() {
            return Err(error);
        }
        self.log(&error);
        let mut response = respond(Answer::json(200, &said));
        response.headers_mut().extend(lines(&error));
        Ok(response)
    }

    fn place(&self) -> Result<Place, Error> {
        let calls = &self.side.calls;
        if calls.get() >= self.outbound().max_requests {
            let detail = (
                "as many calls as [outbound] max_requests allows are being dealt with",
                "正在处理的调用数已达 [outbound] max_requests 上限",
            );
            return Err(Error::overloaded(detail));
        }
        calls.set(calls.get() + 1);
        Ok(Place(Rc::clone(calls)))
    }

    /// The body as it goes to WeChat. One without a length is taken as a whole, for WeChat refuses uploads without
    /// one; so is one that is small enough to be sent twice, or that is to be encrypted.
    async fn payload(&self, path: &str, body: Incoming) -> Result<Payload, Error> {
        let outbound = self.outbound();
        let whole = self.snapshot.gateway.must_be_whole(path);
        match body.size_hint().exact() {
            Some(length) if length > outbound.body_limit => Err(too_large(outbound.body_limit)),
            Some(length) if length > outbound.replay_limit && !whole => {
                inspector::note(|record| record.streams(length));
                let passed = Arc::clone(self.streamed.get_or_init(Arc::default));
                let body = body.map_frame(move |frame| {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    passed.fetch_add(length as u64, Ordering::Relaxed);
                    frame
                });
                let body = body.map_err(|error| Box::new(error) as _);
                Ok(Payload::stream(body.boxed_unsync(), length))
            }
            _ => self
                .hold(body, outbound.body_limit)
                .await
                .map(Payload::Whole),
        }
    }

    async fn hold(&self, mut body: Incoming, limit: u64) -> Result<Bytes, Error> {
        let budget = self.snapshot.config.inbound.buffer_limit;
        let mut held = self.snapshot.shared.buffers.body(budget);
        loop {
            let frame = tokio::time::timeout(self.outbound().timeout, body.frame());
            let data = match frame.await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => {
                    let detail = ("the body broke off", "请求体传输中断");
                    return Err(Error::downstream(Kind::BadRequest, detail).with_cause(error));
                }
                Ok(None) => return Ok(Bytes::from_owner(held)),
                Err(_) => {
                    let detail = ("the body did not arrive in time", "请求体没有及时到达");
                    return Err(Error::downstream(Kind::RequestTimeout, detail));
                }
            };
            if (held.len() + data.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            inspector::note(|record| record.received(held.len() as u64, &data));
            held.push(&data)?;
            self.timings.received(held.len() as u64);
        }
    }

    /// WeChat's answer for the app: as it came, or as a problem if it refuses and the app wants that.
    fn pass_on(
        &self,
        answer: AppAnswer,
        place: Place,
    ) -> Result<(&'static str, Response<AnswerBody>), Error> {
        let outbound = self.outbound();
        if let Some(refusal) = &answer.refusal
            && self.wants_problems()
        {
            return Err(refusal.clone());
        }
        let result = match &answer.refusal {
            Some(_) => "refused",
            None => "ok",
        };
        let told = answer.refusal.as_ref().map(|refusal| {
            self.log(refusal);
            lines(refusal)
        });
        let (status, headers) = (answer.status, outbound::for_app(&answer.headers));
        let body = AnswerBody::relayed(answer, outbound, place).ok_or_else(|| {
            let limit = outbound.body_limit;
            let detail = (
                format!("WeChat's answer is larger than {limit} bytes"),
                format!("微信的响应超过 {limit} 字节"),
            );
            Error::new(Kind::WechatInvalid, Side::Wechat, detail).with_hint(RAISE_THE_LIMIT)
        })?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().extend(told.unwrap_or_default());
        Ok((result, response))
    }

    fn tell(&self, error: &Error) -> Response<AnswerBody> {
        let ranges = self.head.headers.get_all(ACCEPT_LANGUAGE).iter();
        let ranges = ranges.flat_map(|line| line.as_bytes().split(|&b| b == b','));
        let language = language(ranges.map(<[u8]>::trim_ascii));
        let mut response = respond(problem(error, self.request_id.as_str(), language));
        response.headers_mut().extend(lines(error));
        response
    }

    /// Whether a refusal of WeChat's is told as a problem.
    fn wants_problems(&self) -> bool {
        if self.outbound().errors == Errors::Problem {
            return true;
        }
        let accepted = self.head.headers.get_all(ACCEPT).iter();
        let mut kinds = accepted.flat_map(|line| line.as_bytes().split(|&b| b == b','));
        kinds.any(|kind| {
            let kind = kind.split(|&b| b == b';').next().unwrap_or_default();
            kind.trim_ascii()
                .eq_ignore_ascii_case(b"application/problem+json")
        })
    }

    fn outbound(&self) -> &Outbound {
        &self.snapshot.config.outbound
    }

    /// What is the app's own business (a wrong parameter) it may read in its answer; the log is for what operators may
    /// have to deal with, which the gateway has logged if it was WeChat.
    fn log(&self, error: &Error) {
        let request_id = self.request_id.as_str();
        let side = format!("{:?}", error.side()).to_lowercase();
        tracing::debug!(request_id, status = error.status(), side, %error, "call failed");
    }

    /// Counts it and tells where it is told; gives back its line of the access log, if it gets one.
    fn record(
        &self,
        status: StatusCode,
        result: &'static str,
        problem: Option<&'static str>,
    ) -> Option<Called> {
        self.side.metrics.outbound_request(result);
        self.record_span(status, result, self.timings.took());
        self.line(status, result, problem)
    }

    /// Records the call up to the head of its answer. The path is one that is known, for the app might put anything there.
    fn record_span(&self, status: StatusCode, result: &'static str, took: Duration) {
        self.snapshot.tracing().record(&self.trace, || {
            let method = trace::method(self.head.method.as_str());
            let path = endpoints::label(self.head.uri.path());
            Span::new(trace::Kind::Server, format!("{method} {path}"), took)
                .with("http.request.method", method)
                .with("http.route", path)
                .with("http.response.status_code", status.as_u16())
                .with("url.scheme", "http")
                .with("network.protocol.version", "1.1")
                .with("wx_sidecar.request_id", self.request_id.as_str().to_owned())
                .with_error(status.is_server_error().then_some(result))
        });
    }

    /// Its line of the access log, if it gets one. An API is named as metrics name it, for the app might put anything there.
    fn line(
        &self,
        status: StatusCode,
        result: &'static str,
        problem: Option<&'static str>,
    ) -> Option<Called> {
        let log = &self.snapshot.config.log;
        let stands_for = self.side.sampler.wants(log, status.as_u16())?;
        let path = self.head.uri.path();
        Some(Called {
            request_id: self.request_id,
            trace: self.trace.here.trace_id(),
            protocol: match self.head.version {
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            method: trace::method(self.head.method.as_str()),
            api: endpoints::label(path),
            path: log.access_path.then(|| path.to_owned()),
            status: status.as_u16(),
            result,
            problem,
            timings: self.timings.clone(),
            streamed: self.streamed.get().cloned(),
            returned: 0,
            stands_for,
        })
    }
}

impl Call<'_> {
    /// Begins to watch it, if anything is watched.
    fn watch(&self) -> Option<Watched> {
        if !self.snapshot.config.admin.inspector {
            return None;
        }
        self.snapshot.shared.inspector.watch(|| Began {
            kind: inspector::Kind::Call,
            method: self.head.method.as_str().to_owned(),
            target: self.head.uri.to_string(),
            protocol: "HTTP/1.1",
            request_id: self.request_id.as_str().to_owned(),
            trace: self.trace.here.trace_id().as_str().to_owned(),
            client: None,
            fields: written(&self.head.headers),
        })
    }
}

/// Tells the inspector how a call ended, but for the answer's body, which is on its way.
fn show(
    watched: &Watched,
    response: &mut Response<AnswerBody>,
    error: Option<&Error>,
    took: Duration,
) {
    watched.note(|record| {
        record.answering(response.status().as_u16());
        for (name, value) in response.headers() {
            record.answer_field(name.as_str().as_bytes(), value.as_bytes());
        }
    });
    watched.end(Ended {
        status: Some(response.status().as_u16()),
        took,
        error,
        ..Ended::default()
    });
    response.body_mut().show_to(watched.clone());
}

fn written(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

impl WaitedFor<'_> {
    /// There is an answer.
    fn no_longer(mut self) {
        self.0 = None;
    }
}

impl Drop for WaitedFor<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.0 {
            let status = StatusCode::from_u16(CLIENT_GONE).expect("it has three digits");
            // The line is written when it is dropped.
            let _line = call.record(status, "gone", None);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What is said of an error beside the body.
fn lines(error: &Error) -> HeaderMap {
    let mut lines = HeaderMap::new();
    let mut line = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            lines.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(fault) = error.fault() {
        line("x-wx-errcode", &fault.meaning.code.to_string());
        line("x-wx-error-class", fault.meaning.class.as_str());
        if let Some(rid) = &fault.rid {
            line("x-wx-rid", rid);
        }
    } else if error.side() == Side::Wechat {
        line("x-wx-error-class", "transient");
    }
    line(
        "x-wx-retryable",
        if error.retryable() { "true" } else { "false" },
    );
    if let Some(after) = error.retry_after() {
        line(RETRY_AFTER.as_str(), &after.as_secs().max(1).to_string());
    }
    lines
}

fn respond(answer: Answer) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::own(answer.body.into()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

const RAISE_THE_LIMIT: (&str, &str) = (
    "raise body_limit below [outbound] in sidecar.toml",
    "请在 sidecar.toml 的 [outbound] 中调大 body_limit",
);

fn too_large(limit: u64) -> Error {
    let detail = (
        format!("the body is larger than the {limit} bytes of body_limit"),
        format!("请求体超过 body_limit 的 {limit} 字节"),
    );
    Error::downstream(Kind::BodyTooLarge, detail).with_hint(RAISE_THE_LIMIT)
}
