//! The client's side of the engine: requests in, answers out, one after the other on a connection.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use tokio::io::AsyncWriteExt;

use super::body::{Reader, Remaining, Writer};
use super::buffer::Buffer;
use super::splice::Splice;
use crate::net::{ReadHalf, Stream};
use crate::wire::fields::{Field, Fields};
use crate::wire::head::{Framing, HeadLimits, Method, RequestHead, Version};
use crate::wire::{Length, NoHead};

/// An unread request body up to this size is read and dropped, so that the connection can live on.
const WORTH_DRAINING: u64 = 64 * 1024;

/// What a client that speaks HTTP/2 begins with, as far as it looks like a head (RFC 9113 §3.4).
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A client's connection.
pub(crate) struct ServerConnection {
    stream: Stream,
    buffer: Buffer,
    head: RequestHead,
    out: Vec<u8>,
    body: Remaining,
    trailers: Fields,
    /// Whether nothing but the first request has been read.
    fresh: bool,
    reply: Reply,
    /// Whether connections are being brought to their end; shared by all connections of a worker.
    ending: Rc<Cell<bool>>,
}

/// How far the answer to the current request has got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply {
    /// The status, once the head has been begun.
    status: Option<u16>,
    /// Whether the whole answer has been sent.
    complete: bool,
    /// Whether the connection ends with this answer.
    close: bool,
    /// Body bytes sent.
    bytes: u64,
    /// Whether the client was told to go on with its body.
    continued: bool,
    /// Whether any of the answer has been sent.
    sent: bool,
    /// Whether the client finds the answer's end by the connection's.
    until_close: bool,
}

/// Answers the current request.
pub(crate) struct Responder<'c> {
    writer: Writer<'c>,
    reply: &'c mut Reply,
    ending: &'c Cell<bool>,
    version: Version,
    head_only: bool,
}

impl ServerConnection {
    /// Once `ending` is true, every answer is the last one of its connection.
    pub(crate) fn new(stream: Stream, ending: Rc<Cell<bool>>) -> Self {
        Self {
            stream,
            buffer: Buffer::default(),
            head: RequestHead::default(),
            out: Vec::new(),
            body: Remaining::Nothing,
            trailers: Fields::default(),
            fresh: true,
            reply: Reply::default(),
            ending,
        }
    }

    /// The connection, and what has been read of it, for another protocol.
    pub(crate) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.buffer.unread().to_vec())
    }

    /// Whether bytes of a further request are already here.
    pub(crate) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Waits for the first bytes of the next request; false if the client closed the connection instead.
    pub(crate) async fn receive(&mut self) -> io::Result<bool> {
        if self.has_more() {
            return Ok(true);
        }
        let (mut stream, _) = self.stream.split();
        Ok(self.buffer.read_first(&mut stream).await? > 0)
    }

    /// Waits as [`ServerConnection::receive`] does, but holds no memory meanwhile.
    ///
    /// The poller also reports sockets that have nothing to read, new ones above all, so only a read tells.
    pub(crate) async fn idle(&mut self) -> io::Result<bool> {
        self.head = RequestHead::default();
        self.out = Vec::new();
        loop {
            self.stream.readable().await?;
            let (mut stream, _) = self.stream.split();
            let buffer = &mut self.buffer;
            let read = poll_fn(|cx| Poll::Ready(buffer.poll_read(cx, &mut stream, 0))).await;
            if let Poll::Ready(read) = read {
                return Ok(read? > 0);
            }
        }
    }

    /// Reads the next request's head.
    pub(crate) async fn read_head(&mut self, limits: HeadLimits) -> Result<(), NoHead> {
        self.reply = Reply::default();
        self.body = Remaining::Nothing;
        self.trailers.clear();
        let mut fresh = std::mem::take(&mut self.fresh);
        if let Some(end) = self.head.parse_at_once(self.buffer.unread(), limits) {
            self.buffer.consume(end);
            self.body = self.head.framing.into();
            return Ok(());
        }
        // RFC 9112 §2.2: an empty line before the request line is forgiven.
        let (stream, _) = self.stream.split();
        let mut reader = Reader {
            stream,
            buffer: &mut self.buffer,
            body: &mut self.body,
            trailers: &mut self.trailers,
        };
        let mut end = reader.head(limits).await?;
        while end == 2 {
            fresh = false;
            reader.buffer.consume(2);
            end = reader.head(limits).await?;
        }
        if fresh && self.buffer.unread().starts_with(PREFACE_HEAD) {
            return Err(NoHead::Http2);
        }
        let parsed = self.head.parse(&self.buffer.unread()[..end]);
        self.buffer.consume(end);
        parsed?;
        self.body = self.head.framing.into();
        Ok(())
    }

    /// The current request, its body and the way to answer it.
    pub(crate) fn parts(&mut self) -> (&RequestHead, Reader<'_>, Responder<'_>) {
        let (read, write) = self.stream.split();
        let reader = Reader {
            stream: read,
            buffer: &mut self.buffer,
            body: &mut self.body,
            trailers: &mut self.trailers,
        };
        let writer = Writer {
            stream: write,
            pending: &mut self.out,
            framing: Framing::Empty,
        };
        let responder = Responder {
            writer,
            version: self.head.version,
            head_only: self.head.method == Method::Head,
            reply: &mut self.reply,
            ending: &self.ending,
        };
        (&self.head, reader, responder)
    }

    /// A responder for a request whose head could not be understood.
    pub(crate) fn refuse(&mut self) -> Responder<'_> {
        self.reply = Reply {
            close: true,
            ..Reply::default()
        };
        // Nobody knows what follows, so nobody knows where it ends.
        self.body = Remaining::UntilClose;
        let (_, write) = self.stream.split();
        self.out.clear();
        let writer = Writer {
            stream: write,
            pending: &mut self.out,
            framing: Framing::Empty,
        };
        Responder {
            writer,
            version: Version::Http11,
            head_only: false,
            reply: &mut self.reply,
            ending: &self.ending,
        }
    }

    /// Whether the next request may follow on this connection; reads and drops what little may be left of the last body.
    pub(crate) async fn is_reusable(&mut self) -> bool {
        if !self.reply.complete || self.reply.close || !self.head.connection.persistent {
            return false;
        }
        let (_, mut reader, _) = self.parts();
        drain(&mut reader).await
    }

    /// Ends the connection so that the answer still reaches a client that has not stopped sending: first our end, then
    /// what it sends is read and dropped until it stops or `limit` bytes have come (RFC 9112 §9.6).
    ///
    /// An answer that broke off and that only the end of the connection delimits is ended by a reset instead: a client
    /// would take an orderly end for the answer's.
    pub(crate) async fn linger(&mut self, limit: usize) {
        if self.reply.until_close && self.reply.sent && !self.reply.complete {
            self.stream.reset_on_close();
            return;
        }
        let (read, mut write) = self.stream.split();
        if write.shutdown().await.is_ok() {
            let _ends_either_way = discard(read, limit).await;
        }
    }
}

impl Reply {
    /// Body bytes were sent; `done` if that was the whole answer.
    pub(super) fn add(&mut self, bytes: u64, done: bool) {
        self.bytes += bytes;
        self.complete = done;
    }
}

impl<'c> Responder<'c> {
    /// Whether an answer has been begun, so that an error can no longer be told.
    pub(crate) fn has_started(&self) -> bool {
        self.reply.status.is_some()
    }

    /// The status, once an answer has been begun.
    pub(crate) fn status(&self) -> Option<u16> {
        self.reply.status
    }

    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }

    /// Whether what was begun has a body.
    pub(crate) fn has_body(&self) -> bool {
        self.writer.framing != Framing::Empty
    }

    /// How many bytes of the answer's body have been sent.
    pub(crate) fn bytes(&self) -> u64 {
        self.reply.bytes
    }

    /// Whether the connection can go on after an answer that is sent now: what is left of the request's body is small
    /// and sure to come.
    pub(crate) fn can_outlive(&self, head: &RequestHead, body: &Reader<'_>) -> bool {
        body.is_done()
            || (body.is_short(WORTH_DRAINING) && (!head.expects_continue || self.reply.continued))
    }

    /// Ends the connection after this answer.
    pub(crate) fn close(&mut self) {
        self.reply.close = true;
    }

    /// Tells the client to go on with its body, once.
    pub(crate) async fn go_on(&mut self) -> io::Result<()> {
        if !self.reply.continued && !self.has_started() {
            self.reply.continued = true;
            self.writer
                .pending()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.writer.send(b"", false).await?;
        }
        Ok(())
    }

    /// Sends an interim answer (1xx) with the field lines that `keep` wants, to clients that know of such answers.
    pub(crate) async fn interim(
        &mut self,
        status: u16,
        reason: &[u8],
        fields: &Fields,
        keep: impl Fn(&Field<'_>) -> bool,
    ) -> io::Result<()> {
        if self.version == Version::Http10 || self.has_started() {
            return Ok(());
        }
        status_line(self.writer.pending(), status, reason);
        fields.copy_lines(self.writer.pending(), keep);
        self.writer.pending().extend_from_slice(b"\r\n");
        self.writer.send(b"", false).await
    }

    /// Ends the head of an answer that grants another protocol, which has the connection from then on.
    pub(crate) fn switch_protocols(&mut self) {
        self.writer.pending().extend_from_slice(b"\r\n");
        self.writer.switch_protocols();
        self.reply.close = true;
    }

    /// Ends our direction of the connection and leaves the other one open.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.reply.complete = true;
        self.writer.shutdown().await
    }

    /// Whether connections are being brought to their end.
    pub(crate) fn ending(&self) -> &'c Cell<bool> {
        self.ending
    }

    /// Begins the answer: status line, framing, connection. Field lines may follow, then [`Responder::end_head`].
    pub(crate) fn start(&mut self, status: u16, reason: &[u8], length: Length) {
        self.reply.status = Some(status);
        let bodiless = self.head_only || matches!(status, 204 | 304);
        self.writer.framing = match length {
            _ if bodiless => Framing::Empty,
            Length::Exact(0) | Length::Absent => Framing::Empty,
            Length::Exact(length) => Framing::Length(length),
            Length::Unknown if self.version == Version::Http11 => Framing::Chunked,
            Length::Unknown => {
                self.reply.close = true;
                self.reply.until_close = true;
                Framing::UntilClose
            }
        };
        let out = self.writer.pending();
        status_line(out, status, reason);
        match length {
            Length::Exact(length) if status != 204 => {
                out.extend_from_slice(b"content-length: ");
                push_number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            Length::Unknown if !bodiless && self.version == Version::Http11 => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            _ => {}
        }
    }

    /// Adds a field line. Name and value come from a parsed head or are our own.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let out = self.writer.pending();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    /// Adds the field lines of a parsed head that `keep` wants.
    pub(crate) fn fields(&mut self, fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) {
        fields.copy_lines(self.writer.pending(), keep);
    }

    /// Ends the head. `persistent` is what the client asked for.
    pub(crate) fn end_head(&mut self, persistent: bool) {
        if self.reply.close || !persistent || self.ending.get() {
            self.reply.close = true;
            self.writer
                .pending()
                .extend_from_slice(b"connection: close\r\n");
        } else if self.version == Version::Http10 {
            self.writer
                .pending()
                .extend_from_slice(b"connection: keep-alive\r\n");
        }
        self.writer.pending().extend_from_slice(b"\r\n");
    }

    /// Sends the head, if it is still here, and body bytes; `last` ends the answer.
    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        let data = if self.writer.framing == Framing::Empty {
            b""
        } else {
            data
        };
        self.reply.sent = true;
        self.writer.send(data, last).await?;
        self.reply.add(data.len() as u64, last);
        Ok(())
    }

    /// Has the kernel move the rest of the app's `body` to the client, if that is worth it and possible.
    pub(crate) fn splice<'a>(&'a mut self, body: &'a mut Reader<'_>) -> Option<Splice<'a>> {
        Splice::new(body, &mut self.writer, Some(self.reply))
    }

    /// Whether the kernel can be asked to send a file as what comes next.
    pub(crate) fn takes_files(&self) -> bool {
        self.writer.takes_files()
    }

    /// Has the kernel send bytes of a file; see [`Writer::send_file`].
    pub(crate) async fn send_file(
        &mut self,
        file: &File,
        at: u64,
        most: usize,
    ) -> io::Result<Option<usize>> {
        if !self.takes_files() {
            return Ok(None);
        }
        self.reply.sent = true;
        let sent = self.writer.send_file(file, at, most).await?;
        if let Some(sent) = sent {
            let done = self.writer.framing == Framing::Empty;
            self.reply.add(sent as u64, done);
        }
        Ok(sent)
    }

    /// Ends the answer, with trailers (as lines ready to be sent) if its framing has room for them.
    pub(crate) async fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.reply.sent = true;
        self.writer.finish(trailers).await?;
        self.reply.complete = true;
        Ok(())
    }

    /// Sends the head, if it is still here.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if self.reply.sent {
            return Ok(());
        }
        self.send(b"", false).await
    }

    /// Takes an answer back if none of it has been sent, so that an error can be told in its place.
    pub(crate) fn take_back(&mut self) {
        if !self.reply.sent {
            self.writer.pending().clear();
            *self.reply = Reply {
                close: self.reply.close,
                continued: self.reply.continued,
                ..Reply::default()
            };
        }
    }
}

/// Reads and drops the rest of a body if it is small; says whether the end was reached.
async fn drain(reader: &mut Reader<'_>) -> bool {
    let mut budget = WORTH_DRAINING;
    while !reader.is_done() {
        match reader.ready().await {
            Ok(count) if count as u64 <= budget => {
                budget -= count as u64;
                reader.consume(count);
            }
            _ => return false,
        }
    }
    true
}

/// Reads and drops what comes until the peer closes, up to a limit.
pub(super) async fn discard(mut stream: ReadHalf<'_>, limit: usize) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut scratch = vec![0; 16 * 1024];
    let mut left = limit;
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
