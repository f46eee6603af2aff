//! A request's body on its way to WeChat: bytes at hand, or a stream that can be sent once.
//!
//! Both have a known length, because WeChat refuses uploads without one (41005). A stream that nobody has begun to read is
//! as good as new: as long as nothing was sent, another endpoint may be tried with it.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Why a body broke off.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// What is sent with a call. Clones share a stream.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Bytes at hand, maybe none.
    Whole(Bytes),
    /// Bytes that are still to come.
    Stream(Upload),
}

/// A body that is passed on as it comes.
#[derive(Clone)]
pub(crate) struct Upload {
    /// Taken when the first byte is wanted.
    source: Arc<Mutex<Option<UnsyncBoxBody<Bytes, Cause>>>>,
    length: u64,
    moved: Arc<Mutex<Instant>>,
}

/// A payload in the form that is sent.
pub(super) struct Outgoing(Form);

enum Form {
    Whole(Option<Bytes>),
    Stream {
        upload: Upload,
        body: Option<UnsyncBoxBody<Bytes, Cause>>,
        left: u64,
    },
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the body was sent before and is gone")]
    Gone,
    #[error("the body is not as long as its Content-Length says")]
    Length,
}

impl Payload {
    /// Bytes as they come from somewhere else, `length` of them.
    pub(crate) fn stream(body: UnsyncBoxBody<Bytes, Cause>, length: u64) -> Self {
        Self::Stream(Upload {
            source: Arc::new(Mutex::new(Some(body))),
            length,
            moved: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Whether it can be sent: a stream once, bytes any number of times.
    pub(super) fn is_at_hand(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(upload) => upload.source().is_some(),
        }
    }

    /// When the last bytes of a stream were taken; `None` if there is nothing to be waited for.
    pub(super) fn moved(&self) -> Option<Instant> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(upload) => Some(*upload.moved()),
        }
    }

    pub(super) fn to_outgoing(&self) -> Outgoing {
        Outgoing(match self {
            Self::Whole(bytes) => {
                Form::Whole(Some(bytes.clone()).filter(|bytes| !bytes.is_empty()))
            }
            Self::Stream(upload) => Form::Stream {
                left: upload.length,
                upload: upload.clone(),
                body: None,
            },
        })
    }
}

impl Upload {
    fn source(&self) -> std::sync::MutexGuard<'_, Option<UnsyncBoxBody<Bytes, Cause>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let (upload, body, left) = match &mut self.0 {
            Form::Whole(bytes) => return Poll::Ready(bytes.take().map(|all| Ok(Frame::data(all)))),
            Form::Stream { upload, body, left } => (upload, body, left),
        };
        if body.is_none() {
            *body = upload.source().take();
        }
        let Some(body) = body else {
            return Poll::Ready(Some(Err(Broken::Gone.into())));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        *upload.moved() = Instant::now();
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(cause)) => return Poll::Ready(Some(Err(cause))),
            None if *left > 0 => return Poll::Ready(Some(Err(Broken::Length.into()))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(match left.checked_sub(data.len() as u64) {
            Some(rest) => {
                *left = rest;
                Ok(Frame::data(data))
            }
            None => Err(Broken::Length.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Form::Whole(bytes) => bytes.is_none(),
            Form::Stream { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Form::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Form::Stream { left, .. } => *left,
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn stream(bytes: &'static [u8], length: u64) -> Payload {
        let body = Full::new(Bytes::from_static(bytes)).map_err(|never| match never {});
        Payload::stream(body.boxed_unsync(), length)
    }

    #[tokio::test]
    async fn bytes_at_hand_are_sent_any_number_of_times() {
        let payload = Payload::Whole(Bytes::from_static(b"abc"));
        for _ in 0..2 {
            assert!(payload.is_at_hand());
            let sent = payload.to_outgoing().collect().await.unwrap();
            assert_eq!(sent.to_bytes(), "abc");
        }
    }

    #[tokio::test]
    async fn a_stream_is_as_good_as_new_until_a_byte_of_it_is_wanted() {
        let payload = stream(b"abc", 3);
        drop(payload.to_outgoing());
        assert!(payload.is_at_hand());
        assert_eq!(payload.to_outgoing().size_hint().exact(), Some(3));
        let sent = payload.to_outgoing().collect().await.unwrap();
        assert_eq!(sent.to_bytes(), "abc");
        assert!(!payload.is_at_hand());
        assert!(payload.to_outgoing().collect().await.is_err());
    }

    #[tokio::test]
    async fn a_stream_of_another_length_than_it_says_breaks_off() {
        for length in [2, 4] {
            let sent = stream(b"abc", length).to_outgoing().collect().await;
            assert!(sent.is_err(), "{length}");
        }
    }
}
