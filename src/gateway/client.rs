//! HTTP to WeChat: one request, one answer, bounded in time; in size too where it is read as a whole.
//!
//! A code works once, so a request that may have reached WeChat is never sent again: the next endpoint is tried only
//! while there has been no connection to send on. Redirects are not followed, because the query carries the AppSecret or
//! an access_token. Errors carry no URL for the same reason.

use std::error::Error as StdError;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{Entry, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::client::legacy;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;

use super::connector::{Connector, connector};
use super::payload::{Cause, Outgoing, Payload};
use crate::config;
use crate::telemetry::throttle::Throttle;
use crate::wechat::answer;

/// How long a connection waits for its next use. Short, because a connection that WeChat closes at the moment it is
/// used again costs somebody a login.
const IDLE: Duration = Duration::from_secs(10);

/// How many connections wait for their next use.
const MAX_IDLE: usize = 32;

/// The largest header section of an answer, in bytes.
const MAX_HEADER: usize = 64 * 1024;

pub(super) const AGENT: &str = concat!("wx-sidecar/", env!("CARGO_PKG_VERSION"));

/// A pool of connections to WeChat's endpoints.
pub(super) struct Client {
    pool: legacy::Client<Connector, Outgoing>,
    endpoints: Vec<config::Endpoint>,
    timeout: Duration,
    /// Endpoints without a connection in the log, by their place in the list.
    unreachable: Throttle<usize>,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) method: &'a Method,
    /// Without a query.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Without those of framing and connection.
    pub(super) headers: &'a HeaderMap,
    pub(super) payload: &'a Payload,
}

/// What came back, complete.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why nothing usable came back.
pub(super) enum Failure {
    /// No endpoint could be connected to; WeChat has not seen the request.
    NotConnected(Cause),
    /// The connection broke before the answer was complete; WeChat may have seen the request.
    BrokeOff(Cause),
    /// No complete answer in time; WeChat may have seen the request.
    Timeout,
    /// The answer is not HTTP.
    NotHttp(Cause),
    /// The answer's body is larger than [`answer::MAX_LEN`].
    TooLarge,
}

impl Client {
    /// Connections live on `home`, and without one on the runtime that opens them.
    pub(super) fn new(wechat: &config::Wechat, home: Option<Handle>) -> Self {
        Self {
            pool: pool(connector(wechat, home.clone()), home),
            endpoints: wechat.endpoints.clone(),
            timeout: wechat.timeout,
            unreachable: Throttle::default(),
        }
    }

    /// The endpoint that is asked, if that is always the same.
    pub(super) fn only_endpoint(&self) -> Option<&config::Endpoint> {
        match self.endpoints.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Asks, and reads the answer as a whole.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Reply, Failure> {
        let asking = async {
            let response = self.first_reachable(question).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, answer::MAX_LEN)
                .collect()
                .await
                .map_err(body_failure)?
                .to_bytes();
            Ok(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(self.timeout, asking)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }

    /// Asks, and gives the answer as soon as its head is there. `patience` is how long nothing may happen, so that a large
    /// body may take its time.
    pub(super) async fn begin(
        &self,
        question: &Question<'_>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let began = tokio::time::Instant::now();
        let mut asking = pin!(self.first_reachable(question));
        let mut until = began + patience;
        loop {
            match tokio::time::timeout_at(until, asking.as_mut()).await {
                Ok(outcome) => return outcome,
                Err(_) => {
                    let moved = question.payload.moved().map(|moved| moved + patience);
                    match moved.filter(|later| *later > until) {
                        Some(later) => until = later,
                        None => return Err(Failure::Timeout),
                    }
                }
            }
        }
    }

    /// Asks at the first endpoint that can be connected to.
    async fn first_reachable(
        &self,
        question: &Question<'_>,
    ) -> Result<Response<Incoming>, Failure> {
        let Some((last, earlier)) = self.endpoints.split_last() else {
            return Err(Failure::NotConnected("no endpoint is configured".into()));
        };
        for (place, endpoint) in earlier.iter().enumerate() {
            match self.ask_at(endpoint, question).await {
                Err(Failure::NotConnected(cause)) => {
                    if let Some(suppressed) = self.unreachable.pass(place, Instant::now()) {
                        tracing::warn!(
                            endpoint = endpoint.host,
                            port = endpoint.port,
                            cause,
                            suppressed,
                            "no connection to this endpoint of WeChat's; trying the next"
                        );
                    }
                }
                outcome => return outcome,
            }
        }
        self.ask_at(last, question).await
    }

    async fn ask_at(
        &self,
        endpoint: &config::Endpoint,
        question: &Question<'_>,
    ) -> Result<Response<Incoming>, Failure> {
        let request =
            request(endpoint, question).map_err(|error| Failure::NotConnected(Box::new(error)))?;
        self.pool.request(request).await.map_err(failure)
    }
}

/// Connections that are used again, and live on `home` if there is one.
pub(super) fn pool(
    connector: Connector,
    home: Option<Handle>,
) -> legacy::Client<Connector, Outgoing> {
    legacy::Client::builder(Spawner(home))
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(MAX_HEADER)
        .build(connector)
}

/// Runs what a connection has to have done, where the connection lives.
#[derive(Clone)]
struct Spawner(Option<Handle>);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        match &self.0 {
            Some(home) => drop(home.spawn(work)),
            None => drop(tokio::spawn(work)),
        }
    }
}

fn request(
    endpoint: &config::Endpoint,
    question: &Question<'_>,
) -> Result<Request<Outgoing>, http::Error> {
    let config::Endpoint { tls, host, port } = endpoint;
    let scheme = if *tls { "https" } else { "http" };
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let Question { path, query, .. } = question;
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(match *query {
            "" => (*path).to_owned(),
            query => format!("{path}?{query}"),
        })
        .build()?;
    let mut request = Request::builder()
        .uri(uri)
        .method(question.method)
        .body(question.payload.to_outgoing())?;
    *request.headers_mut() = question.headers.clone();
    if let Entry::Vacant(entry) = request.headers_mut().entry(USER_AGENT) {
        entry.insert(HeaderValue::from_static(AGENT));
    }
    Ok(request)
}

pub(super) fn failure(error: legacy::Error) -> Failure {
    if error.is_connect() {
        return Failure::NotConnected(Box::new(error));
    }
    let http = error
        .source()
        .and_then(|source| source.downcast_ref::<hyper::Error>());
    if http.is_some_and(hyper::Error::is_parse) {
        return Failure::NotHttp(Box::new(error));
    }
    Failure::BrokeOff(Box::new(error))
}

pub(super) fn body_failure(error: Cause) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::TooLarge;
    }
    Failure::BrokeOff(error)
}
