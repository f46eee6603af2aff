//! The app's side: one connection that many requests share (`h2c://`), which gRPC needs.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, Method as HttpMethod, Request, Uri};

use super::body::{self, Body, Reader};
use super::{MAX_FRAME, SEND_BUFFER, header_map, io_error, lines, put};
use crate::net::Stream;
use crate::wire::NoHead;
use crate::wire::fields::{Field, Fields};
use crate::wire::head::{Framing, HeadError, HeadLimits, Method, ResponseHead};

/// How much of an answer's body may be on its way on one stream: what a buffer of the other engine holds.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same, for all streams together, which is no limit: were it one, a few clients that do not read what the app sends
/// them would use it up, and nobody else's answer could arrive.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// A connection that requests share. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Multiplexed {
    requests: SendRequest<Bytes>,
    open: Rc<Cell<bool>>,
}

/// One stream of it.
pub(crate) struct UpstreamStream {
    connection: Multiplexed,
    head: ResponseHead,
    out: Vec<u8>,
    stream: Option<SendStream<Bytes>>,
    answer: RefCell<Answer>,
    body: Body,
}

/// The answer that is waited for. It exists once the request has been sent, which others may be waiting for.
#[derive(Default)]
struct Answer {
    future: Option<ResponseFuture>,
    /// Why there will be none: the request could not be sent.
    unsent: Option<NoHead>,
    waiting: Option<Waker>,
}

/// Sends a request.
pub(crate) struct Writer<'c> {
    connection: &'c mut Multiplexed,
    out: &'c mut Vec<u8>,
    stream: &'c mut Option<SendStream<Bytes>>,
    answer: &'c RefCell<Answer>,
    framing: Framing,
}

/// Reads an answer.
pub(crate) struct AnswerReader<'c> {
    head: &'c mut ResponseHead,
    answer: &'c RefCell<Answer>,
    body: &'c mut Body,
    connection: Rc<Cell<bool>>,
}

impl Multiplexed {
    /// Greets the app. The future drives the connection and ends with it.
    pub(crate) async fn handshake(
        stream: Stream,
        limits: HeadLimits,
    ) -> io::Result<(Self, impl Future<Output = ()> + use<>)> {
        let (requests, connection) = Builder::new()
            .enable_push(false)
            // Until the app has said how many it takes; more would be refused.
            .initial_max_send_streams(1)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX))
            .handshake(stream)
            .await
            .map_err(io_error)?;
        let open = Rc::new(Cell::new(true));
        let ours = Rc::clone(&open);
        let driver = async move {
            // How it ended the streams know.
            let _ended = connection.await;
            ours.set(false);
        };
        Ok((Self { requests, open }, driver))
    }

    /// Whether it can carry further requests.
    pub(crate) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // Fails as soon as the app has said that it goes away, though the streams under way may go on for long.
        self.open.get()
            && !matches!(
                self.requests.clone().poll_ready(&mut cx),
                Poll::Ready(Err(_))
            )
    }

    /// Lets no further requests onto it; those under way go on.
    pub(crate) fn retire(&self) {
        self.open.set(false);
    }

    /// A stream for one exchange.
    pub(crate) fn stream(&self) -> UpstreamStream {
        UpstreamStream {
            connection: self.clone(),
            head: ResponseHead::default(),
            out: Vec::new(),
            stream: None,
            answer: RefCell::default(),
            body: Body::default(),
        }
    }
}

impl UpstreamStream {
    pub(crate) fn split(&mut self, framing: Framing) -> (Writer<'_>, AnswerReader<'_>) {
        let open = Rc::clone(&self.connection.open);
        let writer = Writer {
            connection: &mut self.connection,
            out: &mut self.out,
            stream: &mut self.stream,
            answer: &self.answer,
            framing,
        };
        let answer = AnswerReader {
            head: &mut self.head,
            answer: &self.answer,
            body: &mut self.body,
            connection: open,
        };
        (writer, answer)
    }

    /// The connection, for further requests.
    pub(crate) fn connection(&self) -> &Multiplexed {
        &self.connection
    }
}

impl Writer<'_> {
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        self.out
    }

    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        let empty = self.framing == Framing::Empty;
        if self.stream.is_none() {
            let ends = last && data.is_empty() || empty;
            self.send_head(ends).await?;
            if ends {
                return Ok(());
            }
        }
        if let Some(stream) = &mut self.stream
            && !empty
        {
            body::send_data(stream, data, last).await?;
        }
        if last {
            self.framing = Framing::Empty;
        }
        Ok(())
    }

    pub(crate) async fn finish(
        &mut self,
        trailers: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        let trailers = header_map(trailers, keep);
        if trailers.is_empty() {
            return self.send(b"", true).await;
        }
        self.send(b"", false).await?;
        match &mut self.stream {
            Some(stream) if self.framing != Framing::Empty => {
                self.framing = Framing::Empty;
                body::end(stream, trailers)
            }
            _ => Ok(()),
        }
    }

    async fn send_head(&mut self, ends: bool) -> io::Result<()> {
        let sent = self.open_stream(ends).await;
        let mut answer = self.answer.borrow_mut();
        if let Some(waker) = answer.waiting.take() {
            waker.wake();
        }
        match sent {
            Ok((future, stream)) => {
                answer.future = Some(future);
                *self.stream = Some(stream);
                if ends {
                    self.framing = Framing::Empty;
                }
                Ok(())
            }
            Err(cause) => {
                answer.unsent = Some(cause);
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    async fn open_stream(
        &mut self,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), NoHead> {
        let head = translate(self.out);
        self.out.clear();
        let head = head.ok_or_else(|| {
            let detail = "the request cannot be written in HTTP/2";
            NoHead::Io(io::Error::new(io::ErrorKind::InvalidData, detail))
        })?;
        let requests = &mut self.connection.requests;
        let sent = match poll_fn(|cx| requests.poll_ready(cx)).await {
            Ok(()) => requests.send_request(head, ends),
            Err(error) => Err(error),
        };
        sent.map_err(|_gone| {
            self.connection.open.set(false);
            NoHead::Closed
        })
    }
}

impl<'c> AnswerReader<'c> {
    pub(crate) async fn read_head(
        &mut self,
        limits: HeadLimits,
        request: Method,
    ) -> Result<(), NoHead> {
        let received = poll_fn(|cx| {
            let mut answer = self.answer.borrow_mut();
            if let Some(cause) = answer.unsent.take() {
                return Poll::Ready(Err(cause));
            }
            let Some(future) = &mut answer.future else {
                answer.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let received = match future.poll_informational(cx) {
                Poll::Ready(Some(interim)) => Poll::Ready(interim.map(|head| (head, None))),
                _ => std::pin::Pin::new(future).poll(cx).map_ok(|response| {
                    let (parts, stream) = response.into_parts();
                    (http::Response::from_parts(parts, ()), Some(stream))
                }),
            };
            received.map_err(|error| self.no_head(error))
        });
        let (response, stream) = received.await?;
        let ends = stream.as_ref().is_some_and(h2::RecvStream::is_end_stream);
        self.head.fields.reserve();
        self.head.assemble(
            response.status().as_u16(),
            lines(response.headers()),
            request,
            ends,
        )?;
        if self.head.fields.size() > limits.bytes {
            return Err(NoHead::Invalid(HeadError::TooLarge));
        }
        if let Some(stream) = stream {
            *self.body = Body::new(stream);
        }
        Ok(())
    }

    /// A stream that the app has not looked at is as good as a connection that was closed before the request. One that it
    /// has reset it may have worked on.
    fn no_head(&self, error: h2::Error) -> NoHead {
        if error.is_go_away() || error.is_io() {
            self.connection.set(false);
        }
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => NoHead::Closed,
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => NoHead::Closed,
            Some(_) if error.is_library() => {
                NoHead::Invalid(HeadError::Malformed("the app breaks the rules of HTTP/2"))
            }
            Some(_) if error.is_reset() => NoHead::Truncated,
            _ => NoHead::Io(io_error(error)),
        }
    }

    pub(crate) fn head(&self) -> &ResponseHead {
        self.head
    }

    pub(crate) fn into_body(self) -> (&'c ResponseHead, Reader<'c>) {
        (self.head, Reader(self.body))
    }
}

/// A head that we have written in the form of HTTP/1.1, in that of HTTP/2.
fn translate(head: &[u8]) -> Option<Request<()>> {
    let mut lines = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end);
    let mut start = lines.next()?.split(|&b| b == b' ');
    let method = HttpMethod::from_bytes(start.next()?).ok()?;
    let target = start.next()?;
    let mut authority = None;
    let mut fields = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name {
            b"host" => authority = Some(value),
            _ => put(&mut fields, name, value),
        }
    }
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority?)
        .path_and_query(&*escaped(target))
        .build();
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri.ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

/// A target in which nothing is left that a URI cannot have. Queries come as clients write them, and some write these
/// characters as they are; escaped they mean the same.
fn escaped(target: &[u8]) -> Cow<'_, [u8]> {
    let is_not_of_uris = |byte: &u8| matches!(byte, b'"' | b'<' | b'>');
    if !target.iter().any(is_not_of_uris) {
        return Cow::Borrowed(target);
    }
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' => escaped.extend_from_slice(b"%22"),
            b'<' => escaped.extend_from_slice(b"%3C"),
            b'>' => escaped.extend_from_slice(b"%3E"),
            _ => escaped.push(*byte),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_that_can_be_forwarded_can_be_translated() {
        for byte in (0x21..0x7f).filter(|byte| *byte != b'#') {
            let head = format!("GET /a?b={}c HTTP/1.1\r\nhost: x\r\n\r\n", char::from(byte));
            let request = translate(head.as_bytes()).expect("it is a target");
            let query = request.uri().query().expect("it has a query");
            let expected = match byte {
                b'"' | b'<' | b'>' => format!("b=%{byte:02X}c"),
                _ => format!("b={}c", char::from(byte)),
            };
            assert_eq!(query, expected);
        }
    }
}
