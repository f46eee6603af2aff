//! How a message gets to the app: one POST, one answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower_service::Service;

use crate::config::Upstream;
use crate::net::Stream;

/// How long a connection to the app waits for its next use.
const IDLE: Duration = Duration::from_secs(15);
/// The largest answer of the app's that is read, in bytes. A passive reply is far smaller.
const LARGEST_ANSWER: usize = 16 * 1024;
const AGENT: &str = concat!("wx-sidecar/", env!("CARGO_PKG_VERSION"));

/// Connections to the app, for messages.
pub(super) struct Courier {
    client: Client<Connector, Full<Bytes>>,
    place: (String, Option<u16>),
    /// What `Host` is.
    authority: String,
    /// Where requests go, for the pool, which tells connections apart by it.
    base: String,
}

/// What became of a POST.
pub(super) enum Delivered {
    /// The app took the message, and said this.
    Taken(StatusCode, Bytes),
    /// It answered, and did not take it.
    Refused {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
    /// It did not answer in time.
    Late,
    /// It could not be reached, or broke off. Why, in a few words.
    Away(String),
}

impl Courier {
    pub(super) fn new(upstream: &Upstream, connect_timeout: Duration, most: usize) -> Self {
        let authority = match upstream {
            Upstream::Tcp { host, port } | Upstream::H2c { host, port } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Upstream::Tcp { host, port } | Upstream::H2c { host, port } => format!("{host}:{port}"),
            Upstream::Unix(_) => "localhost".to_owned(),
        };
        let connector = Connector {
            upstream: Arc::new(upstream.clone()),
            timeout: connect_timeout,
        };
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(most)
                .pool_timer(TokioTimer::new())
                .http2_only(matches!(upstream, Upstream::H2c { .. }))
                .build(connector),
            place: upstream.place(),
            base: format!("http://{authority}"),
            authority,
        }
    }

    /// Where the app is.
    pub(super) fn place(&self) -> (&str, Option<u16>) {
        (&self.place.0, self.place.1)
    }

    /// Posts a message. It may reach the app even if this says that it did not.
    pub(super) async fn post(
        &self,
        path: &str,
        lines: &[(&str, &str)],
        body: Bytes,
        content_type: &str,
        timeout: Duration,
    ) -> Delivered {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, content_type);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = match request.body(Full::new(body)) {
            Ok(request) => request,
            Err(error) => {
                return Delivered::Away(format!("the request cannot be written: {error}"));
            }
        };
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(delivered) => delivered,
            Err(_elapsed) => Delivered::Late,
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Delivered {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Delivered::Away(told(&error)),
        };
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| {
                let seconds = value.to_str().ok()?.trim().parse().ok()?;
                Some(Duration::from_secs(seconds))
            });
            return Delivered::Refused {
                status: head.status,
                retry_after,
            };
        }
        match read(body).await {
            Some(answer) => Delivered::Taken(head.status, answer),
            None => Delivered::Away("the connection broke within the answer".to_owned()),
        }
    }
}

/// The beginning of an answer; `None` if it broke off. Of one that is too large nothing is an answer of the kind that counts.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut answer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if answer.len() + data.len() > LARGEST_ANSWER {
            return Some(Bytes::new());
        }
        answer.extend_from_slice(&data);
    }
    Some(answer.freeze())
}

/// An error with its causes; none of them has a header or a body in it.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Connects to the app, whatever the URL says.
#[derive(Clone)]
struct Connector {
    upstream: Arc<Upstream>,
    timeout: Duration,
}

/// A connection to the app.
struct AppStream(TokioIo<Stream>);

impl Service<Uri> for Connector {
    type Response = AppStream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<AppStream, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { upstream, timeout } = self.clone();
        Box::pin(async move {
            let stream = Stream::connect(&upstream, timeout).await?;
            Ok(AppStream(TokioIo::new(stream)))
        })
    }
}

impl Connection for AppStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for AppStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for AppStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
