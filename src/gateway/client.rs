//! HTTP to WeChat: one request, one answer, bounded in time and size.
//!
//! A code works once, so a request that may have reached WeChat is never sent again: the next endpoint is tried only
//! while there has been no connection to send on. Redirects are not followed, because the query carries the AppSecret or
//! an access_token. Errors carry no URL for the same reason.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{Connector, connector};
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

const AGENT: &str = concat!("wx-sidecar/", env!("CARGO_PKG_VERSION"));

type Cause = Box<dyn StdError + Send + Sync>;

/// A pool of connections to WeChat's endpoints.
pub(super) struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    endpoints: Vec<config::Endpoint>,
    timeout: Duration,
    /// Endpoints without a connection in the log, by their place in the list.
    unreachable: Throttle<usize>,
}

/// What is asked.
pub(super) struct Question<'a> {
    /// Without a query.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// JSON to post; without it, the method is GET.
    pub(super) body: Option<&'a Bytes>,
}

/// What came back, complete.
pub(super) struct Reply {
    pub(super) status: u16,
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
    pub(super) fn new(wechat: &config::Wechat) -> Self {
        Self {
            pool: legacy::Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE)
                .pool_timer(TokioTimer::new())
                .http1_max_buf_size(MAX_HEADER)
                .build(connector(wechat)),
            endpoints: wechat.endpoints.clone(),
            timeout: wechat.timeout,
            unreachable: Throttle::default(),
        }
    }

    /// Asks at the first endpoint that can be connected to.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Reply, Failure> {
        tokio::time::timeout(self.timeout, self.first_reachable(question))
            .await
            .unwrap_or(Err(Failure::Timeout))
    }

    async fn first_reachable(&self, question: &Question<'_>) -> Result<Reply, Failure> {
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
    ) -> Result<Reply, Failure> {
        let request =
            request(endpoint, question).map_err(|error| Failure::NotConnected(Box::new(error)))?;
        let response = self.pool.request(request).await.map_err(failure)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), answer::MAX_LEN)
            .collect()
            .await
            .map_err(body_failure)?
            .to_bytes();
        Ok(Reply { status, body })
    }
}

fn request(
    endpoint: &config::Endpoint,
    question: &Question<'_>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let config::Endpoint { tls, host, port } = endpoint;
    let scheme = if *tls { "https" } else { "http" };
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let Question { path, query, body } = question;
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(match *query {
            "" => (*path).to_owned(),
            query => format!("{path}?{query}"),
        })
        .build()?;
    let request = Request::builder().uri(uri).header(USER_AGENT, AGENT);
    match body {
        None => request.method(Method::GET).body(Full::default()),
        Some(body) => request
            .method(Method::POST)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::clone(body))),
    }
}

fn failure(error: legacy::Error) -> Failure {
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

fn body_failure(error: Cause) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::TooLarge;
    }
    Failure::BrokeOff(error)
}
