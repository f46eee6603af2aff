//! Bodies as DATA frames, under flow control: what has been lent is given back to the peer's window only once it was
//! used, which is the backpressure.

use std::future::poll_fn;
use std::io;

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::{io_error, lines};
use crate::wire::BodyError;
use crate::wire::fields::Fields;
use crate::wire::head::MAX_FIELDS;

/// The body of a message that is coming in.
#[derive(Default)]
pub(super) struct Body {
    /// `None` if there is none to come.
    stream: Option<RecvStream>,
    /// What was received and not yet used.
    chunk: Bytes,
    trailers: Fields,
    ended: bool,
}

/// Reads a body.
pub(crate) struct Reader<'c>(pub(super) &'c mut Body);

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream: Some(stream),
            ..Self::default()
        }
    }
}

impl Reader<'_> {
    pub(crate) async fn ready(&mut self) -> Result<usize, BodyError> {
        let body = &mut *self.0;
        if body.ended || !body.chunk.is_empty() {
            return Ok(body.chunk.len());
        }
        let Some(stream) = &mut body.stream else {
            return Ok(0);
        };
        loop {
            match poll_fn(|cx| stream.poll_data(cx)).await {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    body.chunk = data;
                    return Ok(body.chunk.len());
                }
                Some(Err(error)) => return Err(BodyError::Io(io_error(error))),
                None => break,
            }
        }
        let trailers = poll_fn(|cx| stream.poll_trailers(cx)).await;
        if let Some(trailers) = trailers.map_err(|error| BodyError::Io(io_error(error)))? {
            if trailers.len() > MAX_FIELDS {
                return Err(BodyError::Malformed("there are too many trailers"));
            }
            for (name, value) in lines(&trailers) {
                body.trailers.push(name, value);
            }
        }
        body.ended = true;
        Ok(0)
    }

    pub(crate) fn chunk(&self) -> &[u8] {
        &self.0.chunk
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.0.chunk.advance(count);
        if let Some(stream) = &mut self.0.stream {
            // Fails only for more than was received.
            let _released = stream.flow_control().release_capacity(count);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.ended || (self.0.chunk.is_empty() && self.has_all())
    }

    pub(crate) fn ends_after(&self, count: usize) -> bool {
        count > 0 && !self.0.ended && self.0.chunk.len() == count && self.has_all()
    }

    pub(crate) fn is_at_hand(&self) -> bool {
        self.0.ended || self.has_all()
    }

    pub(crate) fn trailers(&self) -> &Fields {
        &self.0.trailers
    }

    /// Whether nothing is to come behind the chunk, no trailers either.
    fn has_all(&self) -> bool {
        self.0.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }
}

/// Sends `data` as fast as the peer's windows allow; `last` ends the stream.
pub(super) async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: &[u8],
    last: bool,
) -> io::Result<()> {
    if data.is_empty() {
        return if last {
            stream.send_data(Bytes::new(), true).map_err(io_error)
        } else {
            Ok(())
        };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let mut capacity = stream.capacity();
        while capacity == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => capacity = stream.capacity(),
                Some(Err(error)) => return Err(io_error(error)),
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let (now, later) = data.split_at(capacity.min(data.len()));
        stream
            .send_data(Bytes::copy_from_slice(now), last && later.is_empty())
            .map_err(io_error)?;
        data = later;
    }
    Ok(())
}

/// Ends a stream, with trailers if there are any.
pub(super) fn end(stream: &mut SendStream<Bytes>, trailers: HeaderMap) -> io::Result<()> {
    if trailers.is_empty() {
        stream.send_data(Bytes::new(), true).map_err(io_error)
    } else {
        stream.send_trailers(trailers).map_err(io_error)
    }
}
