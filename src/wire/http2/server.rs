//! The client's side: requests come as streams of one connection, many at a time.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::{self, Body, Reader};
use super::meter::Meter;
use super::socket::Socket;
use super::{
    CONNECTION_WINDOW, MAX_FRAME, SEND_BUFFER, STREAM_WINDOW, header_map, io_error, lines, put,
};
use crate::net::Stream;
use crate::wire::fields::{Field, Fields};
use crate::wire::head::{Framing, HeadError, HeadLimits, Method, RequestHead};
use crate::wire::{Length, NoHead};

/// How many requests a client may have under way at once.
const MAX_STREAMS: u32 = 128;
/// Room for so many fields an answer's head begins with; most have no more.
const USUAL_FIELDS: usize = 12;
/// How many streams may be reset before they were even looked at (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// How many streams may break the rules before the connection has to go (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 128;

/// A client's connection.
pub(crate) struct Http2Connection {
    connection: Connection<Socket, Bytes>,
    /// The same that the connection writes to.
    socket: Socket,
    meter: Rc<Meter>,
    calmed: bool,
    /// What the client had taken when [`Http2Connection::is_stuck`] was last asked.
    taken: u64,
}

/// A request, its body and the way to answer it.
pub(crate) struct Request {
    head: RequestHead,
    body: Body,
    reply: Reply,
}

/// How far the answer has got.
struct Reply {
    respond: SendResponse<Bytes>,
    /// The body's way, once the head has been sent.
    stream: Option<SendStream<Bytes>>,
    fields: HeaderMap,
    framing: Framing,
    status: Option<u16>,
    bytes: u64,
    head_only: bool,
    continued: bool,
    complete: bool,
    /// Whether the client has taken the request back.
    gone: bool,
    meter: Rc<Meter>,
}

/// Answers a request.
pub(crate) struct Responder<'c>(&'c mut Reply);

impl Http2Connection {
    /// Greets the client. `prefix` is what has been read of the connection already.
    pub(crate) async fn handshake(
        stream: Stream,
        prefix: Vec<u8>,
        limits: HeadLimits,
    ) -> Result<Self, NoHead> {
        let meter = Rc::<Meter>::default();
        let socket = Socket::new(stream, prefix, Rc::clone(&meter));
        let connection = Builder::new()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
            .handshake(socket.clone())
            .await
            .map_err(|error| NoHead::Io(io_error(error)))?;
        socket.gather();
        Ok(Self {
            connection,
            socket,
            meter,
            calmed: false,
            taken: 0,
        })
    }

    /// Waits for the next request and meanwhile does all that the connection needs; `None` is its end. A request whose
    /// head is not one comes with the reason.
    pub(crate) async fn accept(&mut self) -> Option<(Request, Result<(), HeadError>)> {
        let accepted = poll_fn(|cx| {
            loop {
                let accepted = self.connection.poll_accept(cx);
                if accepted.is_ready() {
                    return accepted;
                }
                if self.meter.is_flooded() && !self.calmed {
                    self.calmed = true;
                    self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    continue;
                }
                // Whoever asks for this has nothing more to write for now.
                match self.socket.poll_release(cx) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) | Poll::Pending => break,
                }
            }
            if self.meter.is_quiet() {
                self.socket.relax();
            }
            Poll::Pending
        })
        .await?;
        let (request, respond) = accepted.ok()?;
        Some(Request::new(request, respond, &self.meter))
    }

    /// Whether requests are under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.connection.has_streams()
    }

    /// Whether all answers have been given and the client, since this was last asked, has taken nothing of what is left
    /// of them.
    pub(crate) fn is_stuck(&mut self) -> bool {
        let before = std::mem::replace(&mut self.taken, self.meter.written());
        self.meter.is_quiet() && before == self.taken
    }

    /// Takes no further requests (GOAWAY); those under way go on.
    pub(crate) fn end(&mut self) {
        self.connection.graceful_shutdown();
    }
}

impl Request {
    fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        meter: &Rc<Meter>,
    ) -> (Self, Result<(), HeadError>) {
        let (parts, stream) = request.into_parts();
        let mut head = RequestHead::default();
        head.fields.reserve();
        let assembled = assemble(&mut head, &parts, stream.is_end_stream());
        meter.count_useful(head.fields.size());
        meter.begin_request();
        let reply = Reply {
            respond,
            stream: None,
            fields: HeaderMap::new(),
            framing: Framing::Empty,
            status: None,
            bytes: 0,
            head_only: head.method == Method::Head,
            continued: false,
            complete: false,
            gone: false,
            meter: Rc::clone(meter),
        };
        let body = Body::new(stream);
        (Self { head, body, reply }, assembled)
    }

    /// The request, its body and the way to answer it.
    pub(crate) fn parts(&mut self) -> (&RequestHead, Reader<'_>, Responder<'_>) {
        (
            &self.head,
            Reader(&mut self.body),
            Responder(&mut self.reply),
        )
    }
}

/// An answer that broke off must not look like one that ended.
impl Drop for Reply {
    fn drop(&mut self) {
        // The client may have taken it back while nobody was waiting for that.
        let gone = Responder(self).is_gone();
        self.meter.end_request(gone);
        if self.complete || gone {
            return;
        }
        match &mut self.stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// The head in the form of HTTP/1.1. The pseudo-fields have their rules, which the crate does not hold all of.
fn assemble(
    head: &mut RequestHead,
    parts: &http::request::Parts,
    ends_at_once: bool,
) -> Result<(), HeadError> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let hosts = parts.headers.get_all(http::header::HOST);
    if let Some(authority) = authority
        && hosts.iter().any(|host| host != authority)
    {
        return Err(HeadError::Malformed("Host and :authority differ"));
    }
    let target = parts.uri.path_and_query();
    let target = target.map_or("", http::uri::PathAndQuery::as_str);
    let host = authority.map(|authority| (&b"host"[..], authority.as_bytes()));
    // A client may cut its cookies up; outside HTTP/2 they are one field (RFC 9113 §8.2.3).
    let crumbs = parts.headers.get_all(http::header::COOKIE).iter();
    let crumbs: Vec<_> = crumbs.map(HeaderValue::as_bytes).collect();
    let cookie = crumbs.join(&b"; "[..]);
    let cookie = (!crumbs.is_empty()).then_some((&b"cookie"[..], &cookie[..]));
    // Of the two names for one thing, one.
    let fields = lines(&parts.headers)
        .filter(|(name, _)| *name != b"cookie" && (host.is_none() || *name != b"host"));
    head.assemble(
        parts.method.as_str().as_bytes(),
        target.as_bytes(),
        host.into_iter().chain(fields).chain(cookie),
        ends_at_once,
    )
}

impl Responder<'_> {
    pub(crate) fn status(&self) -> Option<u16> {
        self.0.status
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Whether what was begun has a body.
    pub(crate) fn has_body(&self) -> bool {
        self.0.framing != Framing::Empty
    }

    /// The stream ends when the reply is dropped.
    pub(crate) fn close(&mut self) {}

    pub(crate) async fn go_on(&mut self) -> io::Result<()> {
        if self.0.continued || self.0.status.is_some() {
            return Ok(());
        }
        self.0.continued = true;
        self.interim(100, &Fields::default(), |_| false)
    }

    pub(crate) fn interim(
        &mut self,
        status: u16,
        fields: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        if self.0.status.is_some() {
            return Ok(());
        }
        let head = head(status, header_map(fields, keep))?;
        self.0.respond.send_informational(head).map_err(io_error)
    }

    pub(crate) fn start(&mut self, status: u16, length: Length) {
        let reply = &mut *self.0;
        reply.status = Some(status);
        reply.fields.reserve(USUAL_FIELDS);
        let bodiless = reply.head_only || matches!(status, 204 | 304);
        reply.framing = match length {
            _ if bodiless => Framing::Empty,
            Length::Exact(0) | Length::Absent => Framing::Empty,
            Length::Exact(length) => Framing::Length(length),
            Length::Unknown => Framing::UntilClose,
        };
        if let Length::Exact(length) = length
            && status != 204
        {
            reply
                .fields
                .append(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }

    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        put(&mut self.0.fields, name, value);
    }

    pub(crate) fn fields(&mut self, fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) {
        for field in fields.iter().filter(|field| keep(field)) {
            put(&mut self.0.fields, field.name, field.value);
        }
    }

    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        let reply = &mut *self.0;
        if reply.complete {
            return Ok(());
        }
        let data = match &mut reply.framing {
            Framing::Empty => b"",
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .filter(|left| !last || *left == 0)
                    .ok_or(io::ErrorKind::InvalidData)?;
                data
            }
            Framing::Chunked | Framing::UntilClose => data,
        };
        // Nothing follows a head whose framing says so.
        let ends = last || reply.framing == Framing::Empty;
        if reply.stream.is_none() {
            let ends_at_once = ends && data.is_empty();
            let head = head(
                reply.status.unwrap_or_default(),
                std::mem::take(&mut reply.fields),
            )?;
            let stream = reply.respond.send_response(head, ends_at_once);
            reply.stream = Some(stream.map_err(io_error)?);
            if ends_at_once {
                reply.complete = true;
                return Ok(());
            }
        }
        if let Some(stream) = &mut reply.stream {
            body::send_data(stream, data, ends).await?;
        }
        reply.meter.count_useful(data.len());
        reply.bytes += data.len() as u64;
        reply.complete = ends;
        Ok(())
    }

    pub(crate) async fn finish(
        &mut self,
        trailers: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        let trailers = header_map(trailers, keep);
        let is_short = matches!(self.0.framing, Framing::Length(left) if left > 0);
        if trailers.is_empty() || is_short {
            return self.send(b"", true).await;
        }
        self.flush().await?;
        if let (Some(stream), false) = (&mut self.0.stream, self.0.complete) {
            body::end(stream, trailers)?;
            self.0.complete = true;
        }
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self.0.stream {
            Some(_) => Ok(()),
            None => self.send(b"", false).await,
        }
    }

    pub(crate) fn take_back(&mut self) {
        if self.0.stream.is_none() {
            self.0.status = None;
            self.0.fields.clear();
            self.0.framing = Framing::Empty;
        }
    }

    /// Whether the client has taken its request back.
    pub(crate) fn is_gone(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.0.gone || self.poll_gone(&mut cx).is_ready()
    }

    /// Ready once the client has taken its request back.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reply = &mut *self.0;
        if reply.complete {
            return Poll::Pending;
        }
        let reset = match &mut reply.stream {
            Some(stream) => stream.poll_reset(cx),
            None => reply.respond.poll_reset(cx),
        };
        reset.map(|_| reply.gone = true)
    }
}

fn head(status: u16, fields: HeaderMap) -> io::Result<Response<()>> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    *head.headers_mut() = fields;
    Ok(head)
}
