//! The thread that sends spans to a collector: OTLP over HTTP, as protobuf (opentelemetry.io/docs/specs/otlp).
//!
//! It has a runtime and connections of its own, so that nothing it does takes time from a request. A batch that the collector
//! does not take is sent again for as long as the exporter's timeout allows, and then given up, because newer spans wait.

use std::env;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::StatusCode;
use http::header::{RETRY_AFTER, USER_AGENT};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, watch};

use super::on::Counted;
use crate::config;
use crate::domain::AppId;
use crate::telemetry::throttle::Throttle;

/// The most spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others at the most.
const DELAY: Duration = Duration::from_secs(1);
/// How long a batch may take, unless the environment says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause before a batch is sent again, and the longest that is our own choice.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How long a collector may have us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;
const AGENT: &str = concat!("wx-sidecar/", env!("CARGO_PKG_VERSION"));

/// Where spans go, and how many.
pub(super) struct Target {
    /// Without one, the environment names it.
    endpoint: Option<String>,
    timeout: Duration,
    resource: Resource,
    /// The share of traces that is recorded.
    pub(super) sample: f64,
}

/// Why spans go nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTarget {
    #[error(
        "{0} asks for gRPC, and spans are sent as http/protobuf; the collector's port for that is 4318"
    )]
    Grpc(&'static str),
    #[error("{0} is not a number")]
    NoNumber(&'static str),
}

impl Target {
    /// What the configuration says, or else the environment variables of OpenTelemetry; `None` if neither wants spans.
    pub(super) fn of(trace: &config::Trace, appid: &AppId) -> Result<Option<Self>, NoTarget> {
        Self::by(trace, appid, &|name| env::var(name).ok())
    }

    fn by(
        trace: &config::Trace,
        appid: &AppId,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, NoTarget> {
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, env(name)?)));
            found.map(|(name, value)| (name, value.trim().to_ascii_lowercase()))
        };
        let is_off = env("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
            || env("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
        let named = first([
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ]);
        if trace.endpoint.is_none() {
            if is_off || named.is_none() {
                return Ok(None);
            }
            let protocol = first([
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
            ]);
            if let Some((name, _)) = protocol.filter(|(_, value)| value == "grpc") {
                return Err(NoTarget::Grpc(name));
            }
        }
        let timeout = match first([
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ]) {
            None => TIMEOUT,
            Some((name, value)) => {
                let millis = value.parse().map_err(|_| NoTarget::NoNumber(name))?;
                Duration::from_millis(millis)
            }
        };
        let sample = match trace.sample {
            Some(sample) => sample,
            None => of_sampler(&env)?,
        };
        Ok(Some(Self {
            endpoint: trace
                .endpoint
                .as_ref()
                .map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))),
            timeout,
            resource: resource(trace, appid, &env),
            sample,
        }))
    }
}

/// The share of traces that `OTEL_TRACES_SAMPLER` asks for, or else our own.
fn of_sampler(env: &dyn Fn(&str) -> Option<String>) -> Result<f64, NoTarget> {
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let sampler = env("OTEL_TRACES_SAMPLER").unwrap_or_default();
    match sampler.trim().trim_start_matches("parentbased_") {
        "always_on" => Ok(1.0),
        "always_off" => Ok(0.0),
        "traceidratio" => match env(ARGUMENT) {
            None => Ok(1.0),
            Some(ratio) => match ratio.trim().parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
                _ => Err(NoTarget::NoNumber(ARGUMENT)),
            },
        },
        _ => Ok(config::Trace::USUAL_SAMPLE),
    }
}

/// Who we are, to the collector.
fn resource(
    trace: &config::Trace,
    appid: &AppId,
    env: &dyn Fn(&str) -> Option<String>,
) -> Resource {
    let ours = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("wechat.appid", appid.as_str().to_owned()),
    ];
    // It knows OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, and a name that it makes up if both are silent.
    let resource = Resource::builder().with_attributes(ours);
    let attributes = env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = env("OTEL_SERVICE_NAME").is_some()
        || attributes
            .split(',')
            .any(|it| it.trim_start().starts_with("service.name="));
    match &trace.service {
        Some(service) => resource.with_service_name(service.clone()).build(),
        None if is_named => resource.build(),
        None => resource.with_service_name(env!("CARGO_PKG_NAME")).build(),
    }
}

/// Starts the thread. It ends when `spans` has been closed and all that was in it has been dealt with, and then drops `end`.
pub(super) fn start(
    target: &Target,
    spans: mpsc::Receiver<SpanData>,
    hurried: watch::Receiver<bool>,
    counted: Counted,
    end: watch::Sender<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exporter = exporter(target, hurried.clone()).map_err(io::Error::other)?;
    let export = Export {
        exporter,
        spans,
        hurried,
        counted,
    };
    thread::Builder::new()
        .name("wx-traces".to_owned())
        .spawn(move || {
            let _end = end;
            runtime.block_on(export.run());
        })?;
    Ok(())
}

fn exporter(
    target: &Target,
    hurried: watch::Receiver<bool>,
) -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
    let builder = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new(target.timeout, hurried)?)
        .with_protocol(Protocol::HttpBinary)
        .with_retry_policy(RetryPolicy::disabled());
    let builder = match &target.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let mut exporter = builder.build()?;
    exporter.set_resource(&target.resource);
    Ok(exporter)
}

/// What the thread does.
struct Export {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    hurried: watch::Receiver<bool>,
    counted: Counted,
}

impl Export {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.gather(&mut batch).await;
            let spans = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            self.send(spans).await;
        }
    }

    /// Waits for more of a batch that has begun.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let until = tokio::time::Instant::now() + DELAY;
        while batch.len() < BATCH && !*self.hurried.borrow() {
            let room = BATCH - batch.len();
            tokio::select! {
                count = self.spans.recv_many(batch, room) => if count == 0 { return },
                () = tokio::time::sleep_until(until) => return,
                // An error means that nobody is left who would hurry, or send.
                hurried = self.hurried.changed() => if hurried.is_err() { return },
            }
        }
    }

    async fn send(&self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        match self.exporter.export(spans).await {
            Ok(()) => self.counted.exported.inc_by(count),
            Err(error) => {
                self.counted.failed.inc_by(count);
                tracing::debug!(%error, count, "spans are given up");
            }
        }
    }
}

/// The exporter's HTTP client.
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    hurried: watch::Receiver<bool>,
    /// Before that the collector wants to hear nothing.
    not_before: Mutex<Option<tokio::time::Instant>>,
    failures: Throttle<()>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = self.send(&request).await;
        let why = match &answered {
            Ok(response) if response.status().is_success() => return answered,
            Ok(response) => format!("it answers {}", response.status()),
            Err(error) => chain(&**error),
        };
        if let Some(suppressed) = self.failures.pass((), Instant::now()) {
            tracing::warn!(why, suppressed, "the collector does not take spans");
        }
        answered
    }
}

impl Sender {
    /// Sends a batch, and again if that may help and there is time.
    async fn send(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let not_before = self.not_before().take();
        if let Some(then) = not_before {
            self.is_hurried_before(then).await;
        }
        let until = tokio::time::Instant::now() + self.timeout;
        let mut pause = PAUSES.0;
        loop {
            let answered = tokio::time::timeout_at(until, self.send_once(request)).await;
            let answered = answered.unwrap_or_else(|_elapsed| Err("it took too long".into()));
            let wait = match &answered {
                Ok(response) if !may_pass(response.status()) => return answered,
                Ok(response) => asked_to_wait(response).unwrap_or(pause),
                Err(_) => pause,
            };
            let next = tokio::time::Instant::now() + wait.min(LONGEST_WAIT);
            if next >= until {
                *self.not_before() = Some(next);
                return answered;
            }
            if self.is_hurried_before(next).await {
                return answered;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn new(timeout: Duration, hurried: watch::Receiver<bool>) -> Result<Self, rustls::Error> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            client,
            timeout,
            hurried,
            not_before: Mutex::default(),
            failures: Throttle::default(),
        })
    }

    fn not_before(&self) -> MutexGuard<'_, Option<tokio::time::Instant>> {
        self.not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_once(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut again = Request::new(Full::new(request.body().clone()));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        let agent = http::HeaderValue::from_static(AGENT);
        again.headers_mut().insert(USER_AGENT, agent);
        let (head, body) = self.client.request(again).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Waits until then, unless time is short.
    async fn is_hurried_before(&self, then: tokio::time::Instant) -> bool {
        let mut hurried = self.hurried.clone();
        let hurry = hurried.wait_for(|hurried| *hurried);
        // An error means that the configuration has another collector now, which is no reason to hurry.
        matches!(tokio::time::timeout_at(then, hurry).await, Ok(Ok(_)))
    }
}

/// An error with what caused it. None of it holds a header, such as a key that the collector wants.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The statuses after which OTLP has a batch sent again.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn asked_to_wait(response: &Response<Bytes>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            date.duration_since(std::time::SystemTime::now()).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    fn trace() -> config::Trace {
        config::Trace {
            endpoint: None,
            sample: None,
            service: None,
            clients: config::ClientTrace::New,
        }
    }

    fn target(
        trace: &config::Trace,
        variables: &[(&str, &str)],
    ) -> Result<Option<Target>, NoTarget> {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        Target::by(trace, &appid, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn name(target: &Target) -> String {
        let found = target
            .resource
            .iter()
            .find(|(key, _)| key.as_str() == "service.name");
        found.unwrap().1.to_string()
    }

    #[test]
    fn nothing_is_exported_unless_somebody_names_a_collector() {
        assert!(target(&trace(), &[]).unwrap().is_none());
        assert!(
            target(&trace(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")])
                .unwrap()
                .is_none()
        );
        let by_environment = target(&trace(), &[ENDPOINT]).unwrap().unwrap();
        // The exporter reads the variable by itself.
        assert_eq!(by_environment.endpoint, None);
        assert_eq!(by_environment.timeout, TIMEOUT);
        assert!((by_environment.sample - 0.1).abs() < 1e-12);
        assert_eq!(name(&by_environment), "wx-sidecar");
    }

    #[test]
    fn the_environment_can_switch_off_what_it_has_switched_on_and_nothing_else() {
        for off in [
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert!(target(&trace(), &[ENDPOINT, off]).unwrap().is_none());
            let endpoint = Some("http://127.0.0.1:4318".to_owned());
            let written = config::Trace {
                endpoint,
                ..trace()
            };
            assert!(target(&written, &[off]).unwrap().is_some());
        }
    }

    #[test]
    fn what_is_configured_comes_before_the_environment() {
        let written = config::Trace {
            endpoint: Some("http://written:4318/otlp".to_owned()),
            sample: Some(0.25),
            service: Some("shop".to_owned()),
            ..trace()
        };
        let variables = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_SERVICE_NAME", "another"),
        ];
        let target = target(&written, &variables).unwrap().unwrap();
        assert_eq!(
            target.endpoint.as_deref(),
            Some("http://written:4318/otlp/v1/traces")
        );
        assert!((target.sample - 0.25).abs() < 1e-12);
        assert_eq!(name(&target), "shop");
        assert_eq!(target.timeout, Duration::from_millis(1500));
    }

    #[test]
    fn samplers_of_the_environment_are_understood() {
        for (sampler, argument, share) in [
            ("always_on", "", Some(1.0)),
            ("parentbased_always_on", "0.5", Some(1.0)),
            ("always_off", "", Some(0.0)),
            ("parentbased_traceidratio", "0.25", Some(0.25)),
            ("traceidratio", "", Some(1.0)),
            ("traceidratio", "2", None),
            ("traceidratio", "many", None),
            ("jaeger_remote", "", Some(0.1)),
        ] {
            let variables = [
                ENDPOINT,
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ];
            let target = target(&trace(), &variables);
            assert_eq!(target.ok().map(|it| it.unwrap().sample), share, "{sampler}");
        }
    }

    #[test]
    fn an_environment_that_asks_for_what_is_not_spoken_is_told_so() {
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ] {
            let error = target(&trace(), &[ENDPOINT, (variable, value)]).err();
            let told = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(variable), "{told}");
        }
    }

    #[test]
    fn a_collector_may_say_how_long_to_wait_in_seconds_or_by_a_date() {
        let asks = |value: &str| {
            let response = Response::builder().header(RETRY_AFTER, value);
            asked_to_wait(&response.body(Bytes::new()).unwrap())
        };
        assert_eq!(asks("7"), Some(Duration::from_secs(7)));
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        let wait = asks(&httpdate::fmt_http_date(later)).unwrap();
        assert!(wait > Duration::from_secs(3000), "{wait:?}");
        for nothing in ["soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(asks(nothing), None, "{nothing}");
        }
    }
}
