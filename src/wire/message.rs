//! The seam between the wire and the exchange: a message comes in by a [`Reader`] and goes out by a [`Responder`] (to the
//! client) or a [`Writer`] (to the app), whichever version of HTTP the peer speaks.
//!
//! Enums and not traits: there are two versions, the calls are on the path of every request, and nothing is boxed.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::task::{Context, Poll};

use super::fields::{Field, Fields};
use super::head::{Framing, HeadError, HeadLimits, Method, RequestHead, ResponseHead, Version};
use super::http1::Splice;
use super::overheard::{self, Heard, tell};
use super::{http1, http2};

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection ended before the body did.
    #[error("the connection ended before the body did")]
    Truncated,
    /// The framing is broken; nothing that follows can be trusted.
    #[error("{0}")]
    Malformed(&'static str),
    /// The socket failed, or the peer took the message back.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHead {
    /// The peer closed the connection between two messages, as it may.
    #[error("the connection was closed")]
    Closed,
    /// The peer closed the connection in the middle of a head.
    #[error("the connection ended within a head")]
    Truncated,
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came is not a head.
    #[error(transparent)]
    Invalid(#[from] HeadError),
    /// What came is the beginning of an HTTP/2 connection.
    #[error("the client speaks HTTP/2")]
    Http2,
}

/// How long the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Exact(u64),
    /// Nobody knows yet.
    Unknown,
    /// There is none, and none is announced either: 204, 304, an answer to HEAD without Content-Length.
    Absent,
}

/// Reads the body of a message.
pub(crate) enum Reader<'c> {
    Http1(http1::Reader<'c>),
    Http2(http2::Reader<'c>),
}

/// Answers a client's request.
pub(crate) enum Responder<'c> {
    Http1(http1::Responder<'c>),
    Http2(http2::Responder<'c>),
}

/// Sends a request to the app.
pub(crate) enum Writer<'c> {
    Http1(http1::Writer<'c>),
    Http2(http2::Writer<'c>),
}

/// Reads the app's answer: its head, then its body.
pub(crate) enum AnswerReader<'c> {
    Http1(http1::AnswerReader<'c>),
    Http2(http2::AnswerReader<'c>),
}

/// A way to the app for one exchange: a connection of its own, or a stream of a shared one. Boxed, because it is handed
/// around.
pub(crate) enum UpstreamConnection {
    Http1(Box<http1::UpstreamConnection>),
    Http2(Box<http2::UpstreamStream>),
}

/// Passes a call on to the version that is spoken.
macro_rules! either {
    ($self:expr, $it:ident => $call:expr) => {
        match $self {
            Self::Http1($it) => $call,
            Self::Http2($it) => $call,
        }
    };
}

impl Reader<'_> {
    /// Waits until body bytes are there and says how many; 0 is the end of the body.
    ///
    /// An error is final: what was refused must not be stepped over by whoever reads on.
    pub(crate) async fn ready(&mut self) -> Result<usize, BodyError> {
        either!(self, it => it.ready().await)
    }

    /// The body bytes that are there.
    pub(crate) fn chunk(&self) -> &[u8] {
        either!(self, it => it.chunk())
    }

    /// Marks body bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        either!(self, it => it.consume(count));
    }

    /// Whether the whole body has been consumed.
    pub(crate) fn is_done(&self) -> bool {
        either!(self, it => it.is_done())
    }

    /// Whether the body ends with the next `count` bytes of it, and has no trailers.
    pub(crate) fn ends_after(&self, count: usize) -> bool {
        either!(self, it => it.ends_after(count))
    }

    /// Whether the body ends within what has already been read, so that it can be sent again.
    pub(crate) fn is_at_hand(&self) -> bool {
        either!(self, it => it.is_at_hand())
    }

    /// The trailer section, once the body's end has been reached.
    pub(crate) fn trailers(&self) -> &Fields {
        either!(self, it => it.trailers())
    }

    /// From now on the connection carries another protocol: whatever comes, until its end.
    pub(crate) fn switch_protocols(&mut self) {
        match self {
            Self::Http1(it) => it.switch_protocols(),
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }
}

impl<'c> Responder<'c> {
    /// Whether an answer has been begun, so that an error can no longer be told.
    pub(crate) fn has_started(&self) -> bool {
        self.status().is_some()
    }

    /// The status, once an answer has been begun.
    pub(crate) fn status(&self) -> Option<u16> {
        either!(self, it => it.status())
    }

    /// The version of HTTP that the client speaks.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Http1(it) => it.protocol(),
            Self::Http2(_) => "HTTP/2",
        }
    }

    /// The version of HTTP that a request with this head came by.
    pub(crate) fn version(&self, head: &RequestHead) -> &'static str {
        match (self, head.version) {
            (Self::Http2(_), _) => "2",
            (Self::Http1(_), Version::Http10) => "1.0",
            (Self::Http1(_), Version::Http11) => "1.1",
        }
    }

    /// How many bytes of the answer's body have been sent.
    pub(crate) fn bytes(&self) -> u64 {
        either!(self, it => it.bytes())
    }

    /// Ends what the client is connected by, its connection or its stream, after this answer.
    pub(crate) fn close(&mut self) {
        either!(self, it => it.close());
    }

    /// Ends the connection after an answer that is sent now, if much of the request's body is still to come.
    pub(crate) fn close_unless_read(&mut self, head: &RequestHead, body: &Reader<'_>) {
        // A stream of HTTP/2 can end in the middle of a body.
        if let (Self::Http1(it), Reader::Http1(body)) = (self, body)
            && !it.can_outlive(head, body)
        {
            it.close();
        }
    }

    /// Tells the client to go on with its body, once.
    pub(crate) async fn go_on(&mut self) -> io::Result<()> {
        either!(self, it => it.go_on().await)
    }

    /// Sends an interim answer (1xx) with the field lines that `keep` wants, to clients that know of such answers.
    pub(crate) async fn interim(
        &mut self,
        status: u16,
        reason: &[u8],
        fields: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        match self {
            Self::Http1(it) => it.interim(status, reason, fields, keep).await,
            Self::Http2(it) => it.interim(status, fields, keep),
        }
    }

    /// Begins the answer: status, framing. Field lines may follow, then [`Responder::end_head`].
    pub(crate) fn start(&mut self, status: u16, reason: &[u8], length: Length) {
        tell(Heard::Begun(status, length));
        match self {
            Self::Http1(it) => it.start(status, reason, length),
            Self::Http2(it) => it.start(status, length),
        }
    }

    /// Adds a field line. Name and value come from a parsed head or are our own.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        tell(Heard::Field(name, value));
        either!(self, it => it.field(name, value));
    }

    /// Adds the field lines of a parsed head that `keep` wants.
    pub(crate) fn fields(&mut self, fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) {
        if overheard::is_heard() {
            for field in fields.iter().filter(|field| keep(field)) {
                tell(Heard::Field(field.name, field.value));
            }
        }
        either!(self, it => it.fields(fields, keep));
    }

    /// Ends the head. `persistent` is what the client asked for.
    pub(crate) fn end_head(&mut self, persistent: bool) {
        match self {
            Self::Http1(it) => it.end_head(persistent),
            Self::Http2(_) => {}
        }
    }

    /// Ends the head of an answer that grants another protocol, which has the connection from then on.
    pub(crate) fn switch_protocols(&mut self) {
        match self {
            Self::Http1(it) => it.switch_protocols(),
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }

    /// Sends the head, if it is still here, and body bytes; `last` ends the answer.
    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        if overheard::is_heard() && either!(self, it => it.has_body()) {
            tell(Heard::Body(data));
        }
        either!(self, it => it.send(data, last).await)
    }

    /// Has the kernel move the rest of the app's `body` to the client, if that is worth it and possible.
    pub(crate) fn splice<'a>(&'a mut self, body: &'a mut Reader<'_>) -> Option<Splice<'a>> {
        match (self, body) {
            (Self::Http1(it), Reader::Http1(body)) => it.splice(body),
            _ => None,
        }
    }

    /// Whether the kernel can be asked to send a file as what comes next.
    pub(crate) fn takes_files(&self) -> bool {
        match self {
            Self::Http1(it) => it.takes_files(),
            Self::Http2(_) => false,
        }
    }

    /// Has the kernel send up to `most` bytes of a file from `at` on, behind the head if that is still here. Says how
    /// many it took, which may be fewer; `None` if it does not, and they are to be read and sent.
    pub(crate) async fn send_file(
        &mut self,
        file: &File,
        at: u64,
        most: usize,
    ) -> io::Result<Option<usize>> {
        match self {
            Self::Http1(it) => it.send_file(file, at, most).await,
            Self::Http2(_) => Ok(None),
        }
    }

    /// Ends the answer with trailers, if the client can have any.
    pub(crate) async fn finish(
        &mut self,
        trailers: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        match self {
            Self::Http1(it) => it.finish(&trailers.lines(keep)).await,
            Self::Http2(it) => it.finish(trailers, keep).await,
        }
    }

    /// Sends the head, if it is still here.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        either!(self, it => it.flush().await)
    }

    /// Takes an answer back if none of it has been sent, so that an error can be told in its place.
    pub(crate) fn take_back(&mut self) {
        either!(self, it => it.take_back());
        if !self.has_started() {
            tell(Heard::TakenBack);
        }
    }

    /// Ends our direction of a connection that carries another protocol, and leaves the other direction open.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(it) => it.shutdown().await,
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }

    /// Whether connections are being brought to their end; true once they are, for whoever holds one that goes on.
    pub(crate) fn ending(&self) -> &'c Cell<bool> {
        match self {
            Self::Http1(it) => it.ending(),
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }

    /// Whether the client has taken its request back, as far as its version of HTTP can tell.
    pub(crate) fn is_gone(&mut self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(it) => it.is_gone(),
        }
    }

    /// Ready once the client has taken its request back, as far as its version of HTTP can tell.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(_) => Poll::Pending,
            Self::Http2(it) => it.poll_gone(cx),
        }
    }
}

impl Writer<'_> {
    /// What is yet to be sent; the head is encoded straight into it, in the form of HTTP/1.1.
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        either!(self, it => it.pending())
    }

    /// Sends what is pending and `data`; `last` also ends the body.
    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        either!(self, it => it.send(data, last).await)
    }

    /// Has the kernel move the rest of the client's `body` to the app, if that is worth it and possible.
    pub(crate) fn splice<'a>(&'a mut self, body: &'a mut Reader<'_>) -> Option<Splice<'a>> {
        match (self, body) {
            (Self::Http1(it), Reader::Http1(body)) => it.splice(body),
            _ => None,
        }
    }

    /// Ends the body with trailers, if its framing has room for them.
    pub(crate) async fn finish(
        &mut self,
        trailers: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        match self {
            Self::Http1(it) => it.finish(&trailers.lines(keep)).await,
            Self::Http2(it) => it.finish(trailers, keep).await,
        }
    }

    /// From now on the connection carries another protocol: whatever is sent, until its end.
    pub(crate) fn switch_protocols(&mut self) {
        match self {
            Self::Http1(it) => it.switch_protocols(),
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }

    /// Ends our direction of a connection that carries another protocol, and leaves the other direction open.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(it) => it.shutdown().await,
            Self::Http2(_) => unreachable!("HTTP/2 has no upgrades (RFC 9113 §8.6)"),
        }
    }
}

impl<'c> AnswerReader<'c> {
    /// Reads the next head, interim ones (1xx) included; `request` is the method it answers.
    pub(crate) async fn read_head(
        &mut self,
        limits: HeadLimits,
        request: Method,
    ) -> Result<(), NoHead> {
        either!(self, it => it.read_head(limits, request).await)
    }

    /// The last head that was read.
    pub(crate) fn head(&self) -> &ResponseHead {
        either!(self, it => it.head())
    }

    /// The head, and the body that follows it.
    pub(crate) fn into_body(self) -> (&'c ResponseHead, Reader<'c>) {
        match self {
            Self::Http1(it) => {
                let (head, body) = it.into_body();
                (head, Reader::Http1(body))
            }
            Self::Http2(it) => {
                let (head, body) = it.into_body();
                (head, Reader::Http2(body))
            }
        }
    }
}

impl UpstreamConnection {
    /// The ways out and in, for one exchange whose request body is framed as `framing`.
    pub(crate) fn split(&mut self, framing: Framing) -> (Writer<'_>, AnswerReader<'_>) {
        match self {
            Self::Http1(it) => {
                let (writer, answer) = it.split(framing);
                (Writer::Http1(writer), AnswerReader::Http1(answer))
            }
            Self::Http2(it) => {
                let (writer, answer) = it.split(framing);
                (Writer::Http2(writer), AnswerReader::Http2(answer))
            }
        }
    }

    /// Keeps further requests off a connection that others share, because the app behind it may be gone.
    pub(crate) fn retire(&self) {
        match self {
            Self::Http1(_) => {}
            Self::Http2(it) => it.connection().retire(),
        }
    }

    /// Closes so that the app can read all it was sent, and drops at most `limit` bytes of what it still says. On a connection that
    /// others share, only what it says is ended.
    pub(crate) async fn linger(&mut self, limit: usize) {
        match self {
            Self::Http1(it) => it.linger(limit).await,
            Self::Http2(_) => {}
        }
    }

    /// Whether another protocol can be spoken on it.
    pub(crate) fn can_upgrade(&self) -> bool {
        matches!(self, Self::Http1(_))
    }
}
