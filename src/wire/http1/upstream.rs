//! The app's side of the engine: requests out, answers in.

use std::any::Any;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::body::{Reader, Remaining, Writer};
use super::buffer::Buffer;
use super::server::discard;
use crate::net::Stream;
use crate::wire::NoHead;
use crate::wire::fields::Fields;
use crate::wire::head::{Framing, HeadLimits, Method, ResponseHead};

/// A connection to the app.
pub(crate) struct UpstreamConnection {
    stream: Stream,
    buffer: Buffer,
    head: ResponseHead,
    out: Vec<u8>,
    body: Remaining,
    trailers: Fields,
    /// What is to end with it; dropped and never looked at.
    companion: Option<Box<dyn Any>>,
}

/// Reads the app's answer: its head, then its body.
pub(crate) struct AnswerReader<'c> {
    body: Reader<'c>,
    head: &'c mut ResponseHead,
}

impl UpstreamConnection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Buffer::default(),
            head: ResponseHead::default(),
            out: Vec::new(),
            body: Remaining::Nothing,
            trailers: Fields::default(),
            companion: None,
        }
    }

    /// The same, and `companion` is dropped when it is closed.
    pub(crate) fn with_companion(mut self, companion: impl Any) -> Self {
        self.companion = Some(Box::new(companion));
        self
    }

    /// Whether an idle connection can still be used: nothing has come, no end either.
    pub(crate) fn is_alive(&self) -> bool {
        self.stream.is_quiet()
    }

    /// The ways out and in, for one exchange whose request body is framed as `framing`.
    pub(crate) fn split(&mut self, framing: Framing) -> (Writer<'_>, AnswerReader<'_>) {
        self.out.clear();
        self.body = Remaining::Nothing;
        self.trailers.clear();
        let (read, write) = self.stream.split();
        let writer = Writer {
            stream: write,
            pending: &mut self.out,
            framing,
        };
        let body = Reader {
            stream: read,
            buffer: &mut self.buffer,
            body: &mut self.body,
            trailers: &mut self.trailers,
        };
        (
            writer,
            AnswerReader {
                body,
                head: &mut self.head,
            },
        )
    }

    /// Whether the connection can carry another exchange, given that the last request was sent to its end. Bytes beyond
    /// the answer would be taken for the answer to somebody else's request.
    pub(crate) fn is_reusable(&self) -> bool {
        self.head.connection.persistent && self.body == Remaining::Nothing && self.buffer.is_empty()
    }

    /// For the answer just read: how long the app says that it keeps an idle connection (`Keep-Alive: timeout=5`).
    pub(crate) fn keep_alive_hint(&self) -> Option<Duration> {
        self.head.keep_alive_timeout().map(Duration::from_secs)
    }

    /// Closes so that the app can read all it was sent: a close with something of its answer unread is a reset, which takes from
    /// it what it has not read yet (RFC 9112 §9.6). At most `limit` bytes of the answer are waited for.
    pub(crate) async fn linger(&mut self, limit: usize) {
        let (read, mut write) = self.stream.split();
        if write.shutdown().await.is_ok() {
            let _ends_either_way = discard(read, limit).await;
        }
    }

    /// Gives memory back; for a connection that has idled for a while.
    pub(crate) fn release(&mut self) {
        self.head = ResponseHead::default();
        self.out = Vec::new();
    }
}

impl<'c> AnswerReader<'c> {
    /// Reads the next head, interim ones (1xx) included; `request` is the method it answers.
    pub(crate) async fn read_head(
        &mut self,
        limits: HeadLimits,
        request: Method,
    ) -> Result<(), NoHead> {
        self.body.begin().await?;
        let unread = self.body.buffer.unread();
        if let Some(end) = self.head.parse_at_once(unread, limits, request) {
            self.body.buffer.consume(end);
            *self.body.body = self.head.framing.into();
            return Ok(());
        }
        let end = self.body.head(limits).await?;
        let parsed = self.head.parse(&self.body.buffer.unread()[..end], request);
        self.body.buffer.consume(end);
        parsed?;
        *self.body.body = self.head.framing.into();
        Ok(())
    }

    /// The last head that was read.
    pub(crate) fn head(&self) -> &ResponseHead {
        self.head
    }

    /// The head, and the body that follows it.
    pub(crate) fn into_body(self) -> (&'c ResponseHead, Reader<'c>) {
        (self.head, self.body)
    }
}
