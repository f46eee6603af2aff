//! The body of an answer to the app: bytes of our own, or what WeChat sends as it comes.
//!
//! One that breaks off, falls silent or grows too large ends with an error, and the server then closes the connection, so that
//! the app sees a broken answer and not a short one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Place;
use crate::config::Outbound;
use crate::gateway::{AppAnswer, Cause};
use crate::telemetry::inspector::Watched;
use crate::telemetry::logs::access::Called;

pub(super) struct AnswerBody {
    start: Bytes,
    rest: Option<Rest>,
    watched: Option<Watched>,
    /// Its line of the access log, which is written when this ends.
    line: Option<Called>,
}

struct Rest {
    body: Incoming,
    /// How many bytes more it may have.
    left: u64,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
    _place: Place,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("WeChat's answer is larger than body_limit")]
    TooLarge,
    #[error("WeChat fell silent in the middle of its answer")]
    Silent,
}

impl AnswerBody {
    pub(super) fn own(bytes: Bytes) -> Self {
        Self {
            start: bytes,
            rest: None,
            watched: None,
            line: None,
        }
    }

    /// WeChat's; `None` if it is known to be too large.
    pub(super) fn relayed(answer: AppAnswer, outbound: &Outbound, place: Place) -> Option<Self> {
        let left = outbound.body_limit.checked_sub(answer.start.len() as u64)?;
        let rest = match answer.rest {
            None => None,
            Some(body) if body.size_hint().lower() > left => return None,
            Some(body) => Some(Rest {
                body,
                left,
                patience: outbound.timeout,
                silence: Box::pin(tokio::time::sleep(outbound.timeout)),
                _place: place,
            }),
        };
        Some(Self {
            start: answer.start,
            rest,
            watched: None,
            line: None,
        })
    }
}

impl AnswerBody {
    /// Shows what goes through it.
    pub(super) fn show_to(&mut self, watched: Watched) {
        self.watched = Some(watched);
    }

    /// Has the access log tell of it when it has ended.
    pub(super) fn log_as(&mut self, line: Called) {
        self.line = Some(line);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        if !self.start.is_empty() {
            let start = std::mem::take(&mut self.start);
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut rest.body).poll_frame(cx) else {
            ready!(rest.silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Broken::Silent.into())));
        };
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        rest.silence.as_mut().reset(Instant::now() + rest.patience);
        Poll::Ready(Some(match rest.left.checked_sub(data.len() as u64) {
            Some(left) => {
                rest.left = left;
                Ok(Frame::data(data))
            }
            None => Err(Broken::TooLarge.into()),
        }))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let polled = self.poll_next(cx);
        if let (Some(line), Poll::Ready(Some(Ok(frame)))) = (&mut self.line, &polled) {
            line.returned += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        if let (Some(watched), Poll::Ready(next)) = (&self.watched, &polled) {
            if let Some(Ok(frame)) = next
                && let Some(data) = frame.data_ref()
            {
                watched.note(|record| record.answer_body(data));
            }
            if next.is_none() || self.is_end_stream() {
                watched.tell();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let ended = |rest: &Rest| rest.body.is_end_stream();
        self.start.is_empty() && self.rest.as_ref().is_none_or(ended)
    }

    fn size_hint(&self) -> SizeHint {
        let start = self.start.len() as u64;
        let Some(rest) = &self.rest else {
            return SizeHint::with_exact(start);
        };
        let hint = rest.body.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + start);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + start);
        }
        whole
    }
}
