//! A request's body on its way to WeChat: bytes at hand, bytes that are partly in a file, or a stream that can be sent once.
//!
//! All have a known length, because WeChat refuses uploads without one (41005). A stream that nobody has begun to read is
//! as good as new: as long as nothing was sent, another endpoint may be tried with it.

use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::files;
use crate::resilience::lock;

/// How much of a file is read at once.
const BITE: usize = 64 * 1024;

/// Why a body broke off.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// What is sent with a call. Clones share a stream.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Bytes at hand, maybe none.
    Whole(Bytes),
    /// Bytes that are at hand without all being in memory.
    Kept(Kept),
    /// Bytes that are still to come.
    Stream(Upload),
}

/// A body in pieces, which can be sent any number of times.
#[derive(Clone)]
pub(crate) struct Kept {
    pieces: Arc<[Piece]>,
    length: u64,
    moved: Arc<Mutex<Instant>>,
}

/// Bytes that are at hand.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// The first `length` bytes of a file.
    File {
        file: Arc<File>,
        length: u64,
    },
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
    Kept(Reading),
    Stream {
        upload: Upload,
        body: Option<UnsyncBoxBody<Bytes, Cause>>,
        left: u64,
    },
}

/// How far a kept body has been read.
struct Reading {
    kept: Kept,
    /// Of the pieces that are still to come, the first.
    place: usize,
    /// How much of it has been read.
    at: u64,
    /// What is being read of a file.
    bite: Option<Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>>,
    left: u64,
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

    /// Bytes that are at hand in pieces.
    pub(crate) fn kept(pieces: impl Into<Arc<[Piece]>>) -> Self {
        let pieces = pieces.into();
        Self::Kept(Kept {
            length: pieces.iter().map(Piece::length).sum(),
            pieces,
            moved: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Whether it can be sent: a stream once, bytes any number of times.
    pub(super) fn is_at_hand(&self) -> bool {
        match self {
            Self::Whole(_) | Self::Kept(_) => true,
            Self::Stream(upload) => upload.source().is_some(),
        }
    }

    /// When the last bytes of a stream, or of what is kept, were taken; `None` if there is nothing to be waited for.
    pub(super) fn moved(&self) -> Option<Instant> {
        match self {
            Self::Whole(_) => None,
            Self::Kept(kept) => Some(*lock(&kept.moved)),
            Self::Stream(upload) => Some(*lock(&upload.moved)),
        }
    }

    pub(super) fn to_outgoing(&self) -> Outgoing {
        Outgoing(match self {
            Self::Whole(bytes) => {
                Form::Whole(Some(bytes.clone()).filter(|bytes| !bytes.is_empty()))
            }
            Self::Kept(kept) => Form::Kept(Reading {
                left: kept.length,
                kept: kept.clone(),
                place: 0,
                at: 0,
                bite: None,
            }),
            Self::Stream(upload) => Form::Stream {
                left: upload.length,
                upload: upload.clone(),
                body: None,
            },
        })
    }
}

impl Upload {
    fn source(&self) -> MutexGuard<'_, Option<UnsyncBoxBody<Bytes, Cause>>> {
        lock(&self.source)
    }
}

impl Piece {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

impl Reading {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cause>>> {
        loop {
            let Some(piece) = self.kept.pieces.get(self.place) else {
                return Poll::Ready(None);
            };
            let left = piece.length() - self.at;
            if left == 0 {
                (self.place, self.at) = (self.place + 1, 0);
                continue;
            }
            let bytes = match piece {
                Piece::Bytes(bytes) => bytes.clone(),
                Piece::File { file, .. } => {
                    let (file, at) = (Arc::clone(file), self.at);
                    let most = usize::try_from(left).unwrap_or(BITE).min(BITE);
                    let bite = self.bite.get_or_insert_with(|| {
                        Box::pin(async move { files::read_at(&file, at, most).await })
                    });
                    let read = ready!(bite.as_mut().poll(cx));
                    self.bite = None;
                    match read {
                        Ok(bytes) if bytes.is_empty() => {
                            return Poll::Ready(Some(Err(Broken::Length.into())));
                        }
                        Ok(bytes) => bytes,
                        Err(cause) => return Poll::Ready(Some(Err(cause.into()))),
                    }
                }
            };
            self.at += bytes.len() as u64;
            self.left -= bytes.len() as u64;
            *lock(&self.kept.moved) = Instant::now();
            return Poll::Ready(Some(Ok(bytes)));
        }
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
            Form::Kept(reading) => {
                return reading.poll_bytes(cx).map_ok(Frame::data);
            }
            Form::Stream { upload, body, left } => (upload, body, left),
        };
        if body.is_none() {
            *body = upload.source().take();
        }
        let Some(body) = body else {
            return Poll::Ready(Some(Err(Broken::Gone.into())));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        *lock(&upload.moved) = Instant::now();
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
            Form::Kept(reading) => reading.left == 0,
            Form::Stream { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Form::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Form::Kept(reading) => reading.left,
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
    async fn what_is_partly_in_a_file_is_sent_any_number_of_times() {
        let directory = tempfile::tempdir().unwrap();
        let file = Arc::new(files::nameless(directory.path()).unwrap());
        let content = Bytes::from(b"0123456789abcdef".repeat(BITE / 8));
        files::write_at(&file, content.clone(), 0).await.unwrap();
        let length = content.len() as u64 - 5;
        let whole = [b"head", &content[..content.len() - 5], b"", b"tail"].concat();
        let bytes = |text: &'static [u8]| Piece::Bytes(Bytes::from_static(text));
        let file = Piece::File { file, length };
        let payload = Payload::kept([bytes(b"head"), file, bytes(b""), bytes(b"tail")]);
        let size = payload.to_outgoing().size_hint().exact();
        assert_eq!(size, Some(whole.len() as u64));
        let (first, second) = tokio::join!(
            payload.to_outgoing().collect(),
            payload.to_outgoing().collect()
        );
        for sent in [first, second] {
            assert!(sent.unwrap().to_bytes() == whole);
            assert!(payload.is_at_hand());
        }
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_breaks_off() {
        let directory = tempfile::tempdir().unwrap();
        let file = Arc::new(files::nameless(directory.path()).unwrap());
        files::write_at(&file, Bytes::from_static(b"abc"), 0)
            .await
            .unwrap();
        let payload = Payload::kept([Piece::File { file, length: 4 }]);
        assert!(payload.to_outgoing().collect().await.is_err());
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
