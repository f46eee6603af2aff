//! Forwarding: a request goes to the app, its answer goes to the client, both streamed.
//!
//! Nothing is buffered. Bytes that were read are lent to the writer of the other side and dropped when it has taken
//! them, so a slow reader slows the sender down and memory stays flat.

mod handed;
mod headers;
mod origin;
mod pace;
mod pool;
mod tunnel;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use pin_project_lite::pin_project;

pub(crate) use handed::Handed;
pub(crate) use origin::{Origin, Peer};
pub(crate) use pace::Pace;
pub(crate) use pool::Pool;
use tokio::time::Instant;

use crate::config::Upstream;
use crate::domain::User;
use crate::error::{Error, Kind, Sentence};
use crate::path::CanonicalPath;
use crate::resilience::Timers;
use crate::resilience::panics::faults;
use crate::telemetry::ids::{RequestId, TraceParent};
use crate::telemetry::inspector;
use crate::telemetry::requests::{RouteRecorder, UpstreamResult, WorkerCells};
use crate::telemetry::timings::Timings;
use crate::wire::{
    AnswerReader, BodyError, Field, Framing, HeadError, HeadLimits, Length, NoHead, Reader,
    RequestHead, Responder, ResponseHead, Splice, UpstreamConnection, Writer,
};

/// The largest head that an app may answer with.
const ANSWER_HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024 };
/// How many interim answers (1xx) an app may send before its answer.
const MAX_INTERIM: usize = 16;

/// A request as it is to reach the app.
pub(crate) struct Forward<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) path: &'a CanonicalPath<'a>,
    pub(crate) upstream: &'a Upstream,
    /// The upstream as the `Host` header names it.
    pub(crate) authority: &'a [u8],
    /// Who the app is told that the request comes from; `None` is anonymous.
    pub(crate) user: Option<&'a User>,
    /// The identity lines that are the same for all users, ready to be sent.
    pub(crate) app_lines: &'a [u8],
    /// What else the app is told of this request, as lines in our namespace.
    pub(crate) told: &'a [(&'static str, String)],
    pub(crate) origin: Origin<'a>,
    pub(crate) request_id: &'a RequestId,
    pub(crate) trace: TraceParent,
    /// Whether that trace is the one that the client's `traceparent` names.
    pub(crate) trace_goes_on: bool,
    pub(crate) limits: Limits,
    /// What the client is told beside the app's answer.
    pub(crate) added: Option<Added<'a>>,
    /// Whether the app may name a medium in place of a body.
    pub(crate) takes_media: bool,
    pub(crate) counting: Counting<'a>,
}

/// Where a request is counted that becomes a tunnel: its duration is the time until then.
pub(crate) struct Counting<'a> {
    pub(crate) recorder: &'a RouteRecorder,
    pub(crate) cells: &'a WorkerCells,
    pub(crate) timings: &'a Timings,
}

/// Lines for the client, added to the app's answer. They are about one user, so that answer is for no cache.
#[derive(Clone, Copy)]
pub(crate) struct Added<'a> {
    pub(crate) lines: &'a [(&'static str, String)],
    /// Whether the app has a say: only its 2xx lets them pass.
    pub(crate) on_success_only: bool,
}

/// How long and how large.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// How long the app may be silent.
    pub(crate) upstream: Duration,
    /// How long a connection to the app may take.
    pub(crate) connect: Duration,
    /// How long the client may be silent within a body, or not take what is sent to it.
    pub(crate) downstream: Duration,
    /// How long a connection that carries another protocol may be silent.
    pub(crate) tunnel: Duration,
    /// The largest request body, in bytes.
    pub(crate) body: u64,
}

/// The request's body: still on the wire, or read for a look inside.
pub(crate) enum Body<'a, 'c> {
    Wire(&'a mut Reader<'c>),
    Buffered(&'a [u8]),
}

/// Why an attempt failed.
enum Failure {
    /// The connection was dead before a byte of an answer came; on a pooled one that says nothing about the app.
    Dead(Error),
    /// Final.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Forwards, with one more attempt on a fresh connection if a pooled one turns out dead and repeating is safe. Gives back
/// the answer that the app leaves to us; any other has been relayed.
pub(crate) async fn forward(
    forward: &Forward<'_>,
    pool: &Pool,
    timers: &Timers,
    mut body: Body<'_, '_>,
    responder: &mut Responder<'_>,
) -> Result<Option<Box<Handed>>, Error> {
    let repeatable = forward.head.method.is_idempotent() && body.is_at_hand();
    let pooled = pool.take(forward.upstream, repeatable);
    if let Some(connection) = pooled {
        match attempt(forward, pool, timers, connection, &mut body, responder).await {
            Err(Failure::Dead(error)) if repeatable => pool.retry_after(error)?,
            outcome => return outcome.map_err(Failure::into_error),
        }
    }
    let connection = pool
        .connect(forward.upstream, forward.limits.connect)
        .await?;
    let outcome = attempt(forward, pool, timers, connection, &mut body, responder).await;
    outcome.map_err(Failure::into_error)
}

async fn attempt(
    forward: &Forward<'_>,
    pool: &Pool,
    timers: &Timers,
    mut connection: UpstreamConnection,
    body: &mut Body<'_, '_>,
    responder: &mut Responder<'_>,
) -> Result<Option<Box<Handed>>, Failure> {
    let upgrade = forward.head.wants_upgrade && connection.can_upgrade();
    let (mut writer, answer) = connection.split(body.framing(forward.head));
    let announced = headers::Announced {
        length: body.length(forward.head),
        upgrade,
    };
    headers::encode_request(forward, &announced, writer.pending());
    inspector::note(|record| {
        let url = forward.upstream.to_string();
        record.forwarding(url, writer.pending(), dropped(forward));
    });
    let exchange = Exchange {
        forward,
        timers,
        upgrade,
        uploading: Cell::new(false),
        answered: Cell::new(false),
        waiting: Cell::new(forward.head.expects_continue),
        handed: Cell::new(None),
    };
    let outcome = exchange.run(&mut writer, answer, body, responder).await;
    let handed = exchange.handed.take();
    match outcome {
        Ok(true) => pool.put(forward.upstream, connection),
        Ok(false) if handed.is_some() => handed::part(connection),
        Ok(false) => {}
        Err(failure) => {
            if failure.is_timeout() {
                connection.retire();
            }
            return Err(failure);
        }
    }
    Ok(handed)
}

/// The head of the request to the app, whose body comes as the client's head says.
pub(crate) fn encode_request(forward: &Forward<'_>, out: &mut Vec<u8>) {
    let announced = headers::Announced {
        length: headers::BodyLength::from(forward.head.framing),
        upgrade: forward.head.wants_upgrade,
    };
    headers::encode_request(forward, &announced, out);
}

fn note_answer(head: &ResponseHead) {
    inspector::note(|record| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = head.fields.iter();
        let fields = fields.map(|field| (text(field.name), text(field.value)));
        record.app_answered(head.status, fields.collect());
    });
}

/// The field lines of the client's that do not reach the app, and why.
fn dropped(forward: &Forward<'_>) -> Vec<(String, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = forward.head.fields.iter();
    let dropped = fields.filter_map(|field| {
        let why = why_dropped(forward, &field)?;
        Some((text(field.name), text(field.value), why))
    });
    dropped.collect()
}

/// Why a field line of the client's does not reach the app, for people; `None` if it does.
pub(crate) fn why_dropped(forward: &Forward<'_>, field: &Field<'_>) -> Option<String> {
    headers::why_dropped(forward.head, field, forward.origin.is_trusted())
}

/// One exchange with the app, over one connection.
struct Exchange<'a> {
    forward: &'a Forward<'a>,
    timers: &'a Timers,
    /// Whether the app was asked for another protocol.
    upgrade: bool,
    /// Whether the request's body is still on its way; meanwhile the app may well be silent.
    uploading: Cell<bool>,
    /// Whether the app has begun its answer.
    answered: Cell<bool>,
    /// Whether the client waits to be told to go on before it sends the body.
    waiting: Cell<bool>,
    /// What the app leaves to us in place of an answer that was relayed.
    handed: Cell<Option<Box<Handed>>>,
}

impl Exchange<'_> {
    fn timings(&self) -> &Timings {
        self.forward.counting.timings
    }

    /// The whole exchange. Says whether the connection has seen the whole request, so that it may carry another.
    async fn run(
        &self,
        writer: &mut Writer<'_>,
        mut answer: AnswerReader<'_>,
        body: &mut Body<'_, '_>,
        responder: &mut Responder<'_>,
    ) -> Result<bool, Failure> {
        let Some(bytes) = body.at_hand() else {
            return self.stream(writer, body.wire(), answer, responder).await;
        };
        self.timings().asking(true);
        if matches!(body, Body::Wire(_)) {
            self.timings().received(bytes.len() as u64);
            inspector::note(|record| record.received(0, bytes));
        }
        inspector::note(|record| record.sent(bytes));
        let sent = self.send_at_once(writer, bytes).await?;
        self.await_answer(&mut answer, responder).await?;
        body.consume();
        let (head, mut from_app) = answer.into_body();
        if head.status == 101 {
            let websocket = self.switch_protocols(head, responder).await?;
            let client = (body.wire(), responder);
            self.tunnel(client, (&mut from_app, writer), websocket)
                .await?;
            return Ok(false);
        }
        if let Some(handed) = handed::handed(self.forward, head)? {
            self.handed.set(Some(handed));
            return Ok(self.discard(&mut from_app).await && sent);
        }
        self.start_answer(head, responder);
        self.relay_body(head, &mut from_app, responder).await?;
        Ok(sent)
    }

    /// Tells the client that it has got the protocol it asked for, and says whether that is WebSocket.
    async fn switch_protocols(
        &self,
        head: &ResponseHead,
        responder: &mut Responder<'_>,
    ) -> Result<bool, Error> {
        let protocol = head.protocol();
        responder.start(101, head.reason(), Length::Absent);
        headers::encode_answer(self.forward, head, responder);
        responder.field(b"connection", b"upgrade");
        responder.field(b"upgrade", protocol);
        responder.switch_protocols();
        let counting = &self.forward.counting;
        let method = self.forward.head.method.as_str();
        counting.timings.end(0);
        counting
            .recorder
            .record(method, 101, counting.timings.took());
        let waited = counting.timings.upstream();
        counting
            .recorder
            .upstream(UpstreamResult::Answered(101), waited);
        self.send_within(responder.flush()).await?;
        Ok(protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// Sends head and body in one go. False if the app stopped reading: it may have answered and closed before that, and
    /// then its answer is what counts.
    async fn send_at_once(&self, writer: &mut Writer<'_>, body: &[u8]) -> Result<bool, Failure> {
        let sending = writer.send(body, true);
        match self
            .timers
            .within(self.forward.limits.upstream, sending)
            .await
        {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => Err(Failure::Final(timed_out((
                "the app did not take the request in time",
                "后端应用没有及时接收请求",
            )))),
        }
    }

    /// Sends head and body as the body comes, and relays the answer, which may come before the body's end. Says whether
    /// the whole body was sent.
    async fn stream(
        &self,
        writer: &mut Writer<'_>,
        body: &mut Reader<'_>,
        mut answer: AnswerReader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<bool, Failure> {
        self.uploading.set(true);
        self.timings().asking(false);
        let mut upload = pin!(async {
            let outcome = self.upload(writer, body).await;
            self.uploading.set(false);
            self.timings().sent();
            outcome
        });
        let mut uploaded = None;
        {
            let mut head = pin!(self.read_answer(&mut answer, responder, true));
            let raced = alongside(upload.as_mut(), &mut uploaded, head.as_mut()).await;
            match raced {
                Raced::Main(outcome) => outcome?,
                Raced::Upload => {
                    if let Some(Err(Upload::Downstream(_))) = &uploaded {
                        let error = uploaded.take().and_then(Result::err);
                        return Err(Failure::Final(
                            error.expect("it was just looked at").into_error(),
                        ));
                    }
                    // Also when the app stopped reading: it may have answered before that.
                    match self.timers.within(self.forward.limits.upstream, head).await {
                        Ok(outcome) => outcome?,
                        Err(_) => {
                            return Err(Failure::Final(timed_out(NO_ANSWER)));
                        }
                    }
                }
            }
        }
        let (head, mut from_app) = answer.into_body();
        let handed = handed::handed(self.forward, head);
        if uploaded.is_none() && matches!(handed, Ok(Some(_))) && !self.waiting.get() {
            uploaded = outlast(upload.as_mut(), &mut from_app).await;
        }
        let complete = matches!(uploaded, Some(Ok(())));
        if !complete {
            // The client's remaining bytes must not be taken for its next request.
            responder.close();
        }
        if let Some(handed) = handed? {
            self.handed.set(Some(handed));
            return Ok(complete && self.discard(&mut from_app).await);
        }
        self.start_answer(head, responder);
        let mut relay = pin!(self.relay_body(head, &mut from_app, responder));
        loop {
            if uploaded.is_some() {
                relay.await?;
                return Ok(complete);
            }
            if let Raced::Main(outcome) =
                alongside(upload.as_mut(), &mut uploaded, relay.as_mut()).await
            {
                outcome?;
                return Ok(false);
            }
        }
    }

    async fn upload(&self, writer: &mut Writer<'_>, body: &mut Reader<'_>) -> Result<(), Upload> {
        let limits = &self.forward.limits;
        let mut pace = Pace::new(limits.downstream);
        if self.forward.head.is_grpc() {
            pace.set_free();
        }
        let mut total: u64 = 0;
        loop {
            let read = match at_once(body.ready()).await {
                Some(read) => Ok(read),
                None => {
                    // The app may answer the head alone, and a client may wait for that before it sends anything.
                    self.upload_within(writer.send(b"", false)).await?;
                    if self.answered.get() {
                        pace.set_free();
                    }
                    let began = Instant::now();
                    let reading = self.timers.within(pace.limit(total), body.ready()).await;
                    pace.count(began.elapsed());
                    reading
                }
            };
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(Upload::Downstream(broken_body(error))),
                Err(_) => return Err(Upload::Downstream(silent_within_body())),
            };
            total += count as u64;
            self.timings().received(total);
            if total > limits.body {
                return Err(Upload::Downstream(too_large(limits.body)));
            }
            if count > 0 {
                // The app need not wait for the end of a body whose end is already known.
                let last = body.ends_after(count);
                inspector::note(|record| {
                    record.received(total - count as u64, body.chunk());
                    record.sent(body.chunk());
                });
                self.upload_within(writer.send(body.chunk(), last)).await?;
                body.consume(count);
                if last {
                    return Ok(());
                }
                if let Some(splice) = writer.splice(body) {
                    // Boxed, because it is large and few requests need it.
                    Box::pin(self.splice_upload(splice, &mut pace, &mut total)).await?;
                    continue;
                }
            }
            if body.is_done() {
                let head = self.forward.head;
                let keep = headers::trailer_filter(head.connection, &head.fields);
                let trailers = writer.finish(body.trailers(), keep);
                return self.upload_within(trailers).await;
            }
        }
    }

    /// Sends the rest of a request's body; what is left afterwards is to be copied.
    async fn splice_upload(
        &self,
        mut splice: Splice<'_>,
        pace: &mut Pace,
        total: &mut u64,
    ) -> Result<(), Upload> {
        while !splice.is_done() {
            let began = Instant::now();
            let taken = self.timers.within(pace.limit(*total), splice.take()).await;
            pace.count(began.elapsed());
            match taken {
                Ok(Ok(Some(count))) => {
                    *total += count as u64;
                    self.timings().received(*total);
                    inspector::note(|record| record.moved(*total));
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(Upload::Downstream(broken_body(error))),
                Err(_) => return Err(Upload::Downstream(silent_within_body())),
            }
            while !splice.is_clear() {
                self.upload_within(splice.send()).await?;
            }
        }
        Ok(())
    }

    fn to_app(
        &self,
        sending: impl Future<Output = io::Result<()>>,
    ) -> impl Future<Output = Result<(), Error>> {
        self.upload_within(sending)
            .map(|sent| sent.map_err(Upload::into_error))
    }

    fn upload_within(
        &self,
        sending: impl Future<Output = io::Result<()>>,
    ) -> impl Future<Output = Result<(), Upload>> {
        let limit = self.forward.limits.upstream;
        self.timers.within(limit, sending).map(|sent| match sent {
            Ok(sent) => sent.map_err(|cause| Upload::Upstream(unreachable(cause))),
            Err(_) => Err(Upload::Upstream(timed_out((
                "the app stopped taking the body",
                "后端应用停止接收请求体",
            )))),
        })
    }

    async fn await_answer(
        &self,
        answer: &mut AnswerReader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Failure> {
        let reading = self.read_answer(answer, responder, false);
        match self
            .timers
            .within(self.forward.limits.upstream, reading)
            .await
        {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Final(timed_out(NO_ANSWER))),
        }
    }

    /// Reads heads until the final one; 100 is passed on to a client that waits for it.
    async fn read_answer(
        &self,
        answer: &mut AnswerReader<'_>,
        responder: &mut Responder<'_>,
        body_pending: bool,
    ) -> Result<(), Failure> {
        for _ in 0..MAX_INTERIM {
            let reading = answer.read_head(ANSWER_HEAD, self.forward.head.method);
            unless_gone(responder, reading).await?.map_err(no_answer)?;
            let head = answer.head();
            match head.status {
                100 if body_pending && self.forward.head.expects_continue => {
                    self.send_within(responder.go_on()).await?;
                    self.waiting.set(false);
                }
                101 if self.upgrade && head.grants(self.forward.head) => {
                    self.timings().answered(101);
                    note_answer(head);
                    return Ok(());
                }
                101 => {
                    return Err(Failure::Final(invalid((
                        "the app switched protocols unasked",
                        "后端应用未经请求就切换了协议",
                    ))));
                }
                103 => {
                    let keep = headers::answer_filter(head, false);
                    let hints = responder.interim(103, head.reason(), &head.fields, keep);
                    self.send_within(hints).await?;
                }
                100..=199 => {}
                status => {
                    self.timings().answered(status);
                    note_answer(head);
                    return Ok(());
                }
            }
        }
        Err(Failure::Final(invalid((
            "the app sent interim answers without end",
            "后端应用不断发送临时响应",
        ))))
    }

    fn start_answer(&self, head: &ResponseHead, responder: &mut Responder<'_>) {
        self.answered.set(true);
        let length = match (head.framing, head.declared_length) {
            (Framing::Length(length), _) => Length::Exact(length),
            (Framing::Chunked | Framing::UntilClose, _) => Length::Unknown,
            (Framing::Empty, Some(length)) => Length::Exact(length),
            (Framing::Empty, None) => Length::Absent,
        };
        responder.start(head.status, head.reason(), length);
        headers::encode_answer(self.forward, head, responder);
        responder.end_head(self.forward.head.connection.persistent);
    }

    async fn relay_body(
        &self,
        head: &ResponseHead,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let limits = &self.forward.limits;
        loop {
            let uploading = self.uploading.get();
            let read = match at_once(body.ready()).await {
                Some(read) => Ok(read),
                None => {
                    // The head of a stream of events must not wait for the first event.
                    self.send_within(responder.flush()).await?;
                    let reading = unless_gone(responder, body.ready());
                    match self.timers.within(limits.upstream, reading).await {
                        Ok(read) => Ok(read?),
                        Err(elapsed) => Err(elapsed),
                    }
                }
            };
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) => {
                    responder.take_back();
                    return Err(broken_answer(&error));
                }
                // The app has a whole timeout from the end of the body on.
                Err(_) if uploading => continue,
                Err(_) => return Err(silent_within_answer()),
            };
            faults::strike("answer");
            if count == 0 {
                let takes = self.forward.head.takes_trailers();
                let filter = headers::trailer_filter(head.connection, &head.fields);
                let keep = |field: &Field<'_>| takes && filter(field);
                return self
                    .send_within(responder.finish(body.trailers(), keep))
                    .await;
            }
            let last = body.ends_after(count);
            self.send_within(responder.send(body.chunk(), last)).await?;
            body.consume(count);
            if last {
                return Ok(());
            }
            if let Some(splice) = responder.splice(body) {
                // Boxed, because it is large and few requests need it.
                Box::pin(self.splice_answer(splice)).await?;
                if body.is_done() {
                    return Ok(());
                }
            }
        }
    }

    /// Relays the rest of an answer; what is left afterwards is to be copied.
    async fn splice_answer(&self, mut splice: Splice<'_>) -> Result<(), Error> {
        while !splice.is_done() {
            let uploading = self.uploading.get();
            let taking = splice.take();
            match self
                .timers
                .within(self.forward.limits.upstream, taking)
                .await
            {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(broken_answer(&error)),
                // The app has a whole timeout from the end of the body on.
                Err(_) if uploading => continue,
                Err(_) => return Err(silent_within_answer()),
            }
            faults::strike("answer");
            while !splice.is_clear() {
                self.send_within(splice.send()).await?;
            }
        }
        Ok(())
    }

    fn send_within(
        &self,
        sending: impl Future<Output = io::Result<()>>,
    ) -> impl Future<Output = Result<(), Error>> {
        to_client(self.timers, self.forward.limits.downstream, sending)
    }
}

/// Why an upload stopped.
enum Upload {
    Downstream(Error),
    Upstream(Error),
}

impl Upload {
    fn into_error(self) -> Error {
        match self {
            Self::Downstream(error) | Self::Upstream(error) => error,
        }
    }
}

/// Which of two futures came first.
enum Raced<T> {
    Main(T),
    Upload,
}

/// The output of a future, if it need not be waited for.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pin_project! {
    /// A future that the client can put an end to, by taking its request back.
    pub(crate) struct UnlessGone<'a, 'c, F> {
        responder: &'a mut Responder<'c>,
        #[pin]
        future: F,
    }
}

/// The output of a future, unless the client takes its request back before.
pub(crate) fn unless_gone<'a, 'c, F: Future>(
    responder: &'a mut Responder<'c>,
    future: F,
) -> UnlessGone<'a, 'c, F> {
    UnlessGone { responder, future }
}

impl<F: Future> Future for UnlessGone<'_, '_, F> {
    type Output = Result<F::Output, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => this.responder.poll_gone(cx).map(|()| Err(client_gone())),
        }
    }
}

fn client_gone() -> Error {
    Error::downstream(Kind::BadRequest, ("the client went away", "客户端已断开"))
}

/// Runs an upload, if it still runs, and a main future, until either is done.
async fn alongside<U, UO, M, MO>(
    mut upload: Pin<&mut U>,
    uploaded: &mut Option<UO>,
    mut main: Pin<&mut M>,
) -> Raced<MO>
where
    U: Future<Output = UO>,
    M: Future<Output = MO>,
{
    poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(outcome) = upload.as_mut().poll(cx)
        {
            *uploaded = Some(outcome);
            return Poll::Ready(Raced::Upload);
        }
        main.as_mut().poll(cx).map(Raced::Main)
    })
    .await
}

/// Has the app take the rest of a request that it has answered already, because what is left to us of the answer is sent
/// when the app has no more part in it. What it says meanwhile is dropped, so that it need not wait for us. Nothing if it
/// broke off.
async fn outlast<U: Future>(
    mut upload: Pin<&mut U>,
    from_app: &mut Reader<'_>,
) -> Option<U::Output> {
    let mut uploaded = None;
    let mut dropping = pin!(handed::drop_body(from_app));
    match alongside(upload.as_mut(), &mut uploaded, dropping.as_mut()).await {
        Raced::Upload | Raced::Main(false) => uploaded,
        Raced::Main(true) => Some(upload.await),
    }
}

impl<'a> Added<'a> {
    /// The lines that go with an answer of this status.
    fn to(self, status: u16) -> &'a [(&'static str, String)] {
        if self.on_success_only && !(200..300).contains(&status) {
            return &[];
        }
        self.lines
    }
}

impl<'c> Body<'_, 'c> {
    fn framing(&self, head: &RequestHead) -> Framing {
        match self {
            Self::Wire(_) => head.framing,
            Self::Buffered([]) => Framing::Empty,
            Self::Buffered(bytes) => Framing::Length(bytes.len() as u64),
        }
    }

    fn length(&self, head: &RequestHead) -> headers::BodyLength {
        self.framing(head).into()
    }

    fn is_at_hand(&self) -> bool {
        match self {
            Self::Wire(reader) => reader.is_at_hand(),
            Self::Buffered(_) => true,
        }
    }

    /// The whole body, if it has been read already.
    fn at_hand(&self) -> Option<&[u8]> {
        match self {
            Self::Wire(reader) if reader.is_at_hand() => Some(reader.chunk()),
            Self::Wire(_) => None,
            Self::Buffered(bytes) => Some(bytes),
        }
    }

    /// Drops the body at hand; until then it can be sent again.
    fn consume(&mut self) {
        if let Self::Wire(reader) = self {
            let count = reader.chunk().len();
            reader.consume(count);
        }
    }

    fn wire(&mut self) -> &mut Reader<'c> {
        match self {
            Self::Wire(reader) => reader,
            Self::Buffered(_) => unreachable!("a buffered body is always at hand"),
        }
    }
}

impl Failure {
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Final(error) if error.kind() == Kind::UpstreamTimeout)
    }

    fn into_error(self) -> Error {
        match self {
            Self::Dead(error) | Self::Final(error) => error,
        }
    }
}

fn no_answer(cause: NoHead) -> Failure {
    match cause {
        NoHead::Closed => Failure::Dead(Error::upstream(
            Kind::UpstreamUnreachable,
            (
                "the app closed the connection without an answer",
                "后端应用没有响应就关闭了连接",
            ),
        )),
        NoHead::Io(cause) => Failure::Dead(unreachable(cause)),
        NoHead::Truncated => Failure::Final(Error::upstream(
            Kind::UpstreamUnreachable,
            (
                "the app broke off in the middle of its answer's head",
                "后端应用在发送响应头时中断",
            ),
        )),
        NoHead::Http2 => Failure::Final(invalid((
            "the app greets as a client would",
            "后端应用发来了客户端的 HTTP/2 前言",
        ))),
        NoHead::Invalid(HeadError::TooLarge) => Failure::Final(invalid((
            "the head of the app's answer is too large",
            "后端应用的响应头过大",
        ))),
        NoHead::Invalid(cause) => {
            let detail = (
                "the app's answer is not valid HTTP",
                "后端应用的响应不是有效的 HTTP",
            );
            Failure::Final(invalid(detail).with_cause(cause))
        }
    }
}

fn unreachable(cause: io::Error) -> Error {
    let detail = ("the connection to the app broke", "与后端应用的连接中断");
    Error::upstream(Kind::UpstreamUnreachable, detail).with_cause(cause)
}

const NO_ANSWER: (&str, &str) = ("the app did not answer in time", "后端应用没有及时响应");

fn timed_out(detail: (&'static str, &'static str)) -> Error {
    Error::upstream(Kind::UpstreamTimeout, detail)
}

fn silent_within_answer() -> Error {
    timed_out((
        "the app stopped in the middle of its answer",
        "后端应用在发送响应时停止",
    ))
}

/// A request body that does not come, or only drop by drop.
pub(crate) fn silent_within_body() -> Error {
    let detail = (
        "the body stopped arriving, or comes too slowly",
        "请求体的传输停止，或过慢",
    );
    Error::downstream(Kind::RequestTimeout, detail)
}

fn invalid(detail: (&'static str, &'static str)) -> Error {
    Error::upstream(Kind::UpstreamInvalid, detail)
}

fn broken_answer(cause: &BodyError) -> Error {
    let detail = (
        "the app broke off in the middle of its answer",
        "后端应用在发送响应时中断",
    );
    invalid(detail).with_cause(cause.to_string())
}

/// Sends to the client, for no longer than it may leave what it is sent untaken.
pub(crate) fn to_client<T>(
    timers: &Timers,
    limit: Duration,
    sending: impl Future<Output = io::Result<T>>,
) -> impl Future<Output = Result<T, Error>> {
    timers.within(limit, sending).map(|sent| match sent {
        Ok(sent) => sent.map_err(|cause| client_gone().with_cause(cause)),
        Err(_) => Err(Error::downstream(
            Kind::RequestTimeout,
            ("the client stopped reading", "客户端停止接收"),
        )),
    })
}

/// A request body that cannot be read to its end.
pub(crate) fn broken_body(error: BodyError) -> Error {
    match error {
        BodyError::Malformed(detail) => {
            Error::downstream(Kind::BadRequest, Sentence::english(detail))
        }
        BodyError::Truncated => {
            let detail = ("the body is shorter than announced", "请求体比声明的长度短");
            Error::downstream(Kind::BadRequest, detail)
        }
        BodyError::Io(cause) => client_gone().with_cause(cause),
    }
}

/// A request body beyond the limit.
pub(crate) fn too_large(limit: u64) -> Error {
    let detail = (
        format!("the body is larger than {limit} bytes"),
        format!("请求体超过 {limit} 字节"),
    );
    Error::downstream(Kind::BodyTooLarge, detail).with_hint((
        "raise body_limit for this route in sidecar.toml",
        "请在 sidecar.toml 中调大该路由的 body_limit",
    ))
}
