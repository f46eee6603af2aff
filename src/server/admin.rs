//! The operators' listener: health, readiness, metrics, and the messages of WeChat's that wait.
//!
//! It has its own thread and an HTTP library's server, because nothing here is fast or public. `/livez` depends on nobody;
//! `/readyz` tells whether traffic should come here. What is more than that is guarded (`guard.rs`).

mod guard;
mod inspector;
mod letters;

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::TextEncoder;
use serde_json::json;
use tokio::sync::mpsc;

use super::connections::ACCEPT_PAUSE;
use super::drain::Phase;
use super::follow::NotReloaded;
use super::pulse::stands_still;
use super::reload::Assembly;
use crate::config::Effective;
use crate::net::{Bound, Listener, Stream};
use crate::resilience::panics::faults;
pub(super) use inspector::Phone;

/// What there is to ask for.
const PAGES: &str = "/livez /readyz?verbose /metrics /config /reload (POST) /push/inbox /push/dead-letters /inspector/";

/// What is nobody's secret, and asked for by the kubelet and by Prometheus.
const OPEN: [&str; 5] = ["/", "/livez", "/healthz", "/readyz", "/metrics"];

/// What the admin side looks at.
pub(super) struct Admin {
    pub(super) assembly: Arc<Assembly>,
}

impl Admin {
    /// Serves until dropped. What `moves` brings takes the listener's place; connections that are there stay.
    pub(super) async fn serve(
        self: &Arc<Self>,
        listener: &mut Listener,
        moves: &mut mpsc::UnboundedReceiver<Bound>,
    ) {
        loop {
            faults::strike("admin");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(next) = moves.recv() => {
                    let old = mem::replace(listener, next.join());
                    old.accept_waiting(|stream, _| self.spawn(stream)).await;
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream),
                Err(error) => {
                    tracing::warn!(%error, "admin: cannot accept connections; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(self: &Arc<Self>, stream: Stream) {
        let admin = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(request).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(error) = serving.await {
                tracing::debug!(%error, "admin connection");
            }
        });
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shows = self.assembly.current.load().config.admin.inspector;
        if shows && let Some(file) = inspector::file(&request) {
            return file;
        }
        if !OPEN.contains(&request.uri().path())
            && let Err(refused) = guard::admit(&request, &self.assembly.current.load().config.admin)
        {
            return refused.answer();
        }
        if request.uri().path().starts_with(inspector::PREFIX) {
            return self.inspect(request).await;
        }
        if let Some(rest) = request.uri().path().strip_prefix("/push/") {
            let bus = self.assembly.current.load().bus.clone();
            return letters::answer(
                bus.as_deref(),
                request.method(),
                rest,
                request.uri().query(),
            )
            .await;
        }
        if request.uri().path() == "/reload" {
            return match *request.method() {
                Method::POST => self.reload().await,
                _ => not_allowed("POST"),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        let verbose = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|q| q == "verbose"));
        match request.uri().path() {
            "/livez" | "/healthz" => self.liveness(),
            "/readyz" => self.readiness(verbose),
            "/metrics" => self.metrics(),
            "/config" => self.config(),
            "/" => text(StatusCode::OK, format!("wx-sidecar admin: {PAGES}\n")),
            _ => text(
                StatusCode::NOT_FOUND,
                format!("not found; there are {PAGES}\n"),
            ),
        }
    }

    /// Reads the configuration again, whatever has changed. Not more harmful than SIGHUP: it says what its files say.
    async fn reload(&self) -> Response<Full<Bytes>> {
        match self.assembly.reload_from_source().await {
            Ok(()) => text(StatusCode::OK, "reloaded\n"),
            Err(error @ NotReloaded::NotFollowed) => {
                text(StatusCode::CONFLICT, format!("not reloaded: {error}\n"))
            }
            Err(error @ NotReloaded::PerhapsOld(_)) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
            }
            Err(error @ (NotReloaded::Stopped | NotReloaded::Unread(_))) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not reloaded: {error}\n"),
            ),
            Err(error) => text(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("not reloaded; the old configuration stays\n\n{error}\n"),
            ),
        }
    }

    /// What is in use, and why something else is not.
    fn config(&self) -> Response<Full<Bytes>> {
        let status = self.assembly.status.load();
        let refused = status
            .refused
            .as_ref()
            .map(|(at, why)| json!({ "at": at.as_secs(), "why": why }));
        let page = json!({
            "source": status.source,
            "unread": status.unread,
            "in_use_since": status.since.as_secs(),
            "refused": refused,
            "config": status.effective.as_ref().map(Effective::to_json),
        });
        let mut response = text(StatusCode::OK, format!("{page:#}\n"));
        let kind = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// Depends on nobody but ourselves.
    fn liveness(&self) -> Response<Full<Bytes>> {
        match self.assembly.pulses.stuck() {
            stuck if stuck.is_empty() => text(StatusCode::OK, "ok\n"),
            stuck => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}\n", stands_still(&stuck)),
            ),
        }
    }

    fn readiness(&self, verbose: bool) -> Response<Full<Bytes>> {
        let phase = *self.assembly.phase.borrow();
        let store = self.assembly.state.store.health();
        let away = store.failure.as_deref();
        let stuck = self.assembly.pulses.stuck();
        let stuck = (!stuck.is_empty()).then(|| stands_still(&stuck));
        let mut checks = vec![
            ("config", None),
            ("threads", stuck.as_deref()),
            ("listener", (phase >= Phase::Draining).then_some("closed")),
            (
                "serving",
                (phase >= Phase::Leaving).then_some("shutting down"),
            ),
        ];
        let needless = away.filter(|_| !store.required);
        if needless.is_none() {
            checks.push(("store", away));
        }
        let ready = checks.iter().all(|(_, failure)| failure.is_none());
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        if ready && !verbose {
            return text(status, "ok\n");
        }
        let mut page = String::new();
        for (name, failure) in checks {
            match failure {
                None => page.push_str(&format!("[+]{name} ok\n")),
                Some(why) => page.push_str(&format!("[-]{name} failed: {why}\n")),
            }
        }
        if let Some(why) = needless {
            page.push_str(&format!("[i]store is away, and not required: {why}\n"));
        }
        if let Some(why) = self
            .assembly
            .current
            .load()
            .bus
            .as_ref()
            .and_then(|bus| bus.failure())
        {
            page.push_str(&format!("[i]messages are not acknowledged: {why}\n"));
        }
        for line in self.assembly.current.load().gateway.held_back() {
            page.push_str(&format!("[i]calls to WeChat are held back: {line}\n"));
        }
        let verdict = if ready { "passed" } else { "failed" };
        text(status, format!("{page}readyz check {verdict}\n"))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match TextEncoder::new().encode_to_string(&self.assembly.metrics.registry().gather()) {
            Ok(page) => {
                let mut response = text(StatusCode::OK, page);
                let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => {
                tracing::error!(%error, "metrics cannot be encoded");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "metrics cannot be encoded; see the log\n",
                )
            }
        }
    }
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allow}\n"));
    let allow = header::HeaderValue::from_static(allow);
    refusal.headers_mut().insert(header::ALLOW, allow);
    refusal
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
