//! Bodies on the wire: found by their framing when read, framed by us when written.
//!
//! A reader lends slices of its buffer and a writer sends them on, so a body crosses the process without being stored.
//! What has been lent is consumed only after it was written: that is the backpressure.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};

use tokio::io::AsyncWriteExt;

use super::buffer::Buffer;
use super::splice::Splice;
use crate::net::{ReadHalf, WriteHalf};
use crate::wire::fields::Fields;
use crate::wire::head::{Framing, HeadLimits, HeadScan, MAX_FIELDS};
use crate::wire::{BodyError, NoHead};

/// The longest line between two chunks, with its extensions.
const MAX_CHUNK_LINE: usize = 1024;
/// Bodies up to this size are copied behind their head: one plain write costs the kernel less than a vectored one.
const COPIED: usize = 4 * 1024;
/// The largest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Remaining {
    #[default]
    Nothing,
    Bytes(u64),
    Chunks(Chunk),
    UntilClose,
    /// It could not be read on, and what follows has no meaning any more.
    Broken,
}

/// Where in a chunked body the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Before a chunk's size line.
    Size,
    /// Within a chunk's data.
    Data(u64),
    /// Before the CR LF after a chunk's data.
    DataEnd,
    /// Within the trailer section, of which so many bytes have passed.
    Trailers(usize),
}

impl From<Framing> for Remaining {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Nothing,
            Framing::Length(length) => Self::Bytes(length),
            Framing::Chunked => Self::Chunks(Chunk::Size),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// Reads a message off a connection: first its head, then its body.
pub(crate) struct Reader<'c> {
    pub(super) stream: ReadHalf<'c>,
    pub(super) buffer: &'c mut Buffer,
    pub(super) body: &'c mut Remaining,
    /// The trailer section of the body, as far as it has come.
    pub(super) trailers: &'c mut Fields,
}

impl Reader<'_> {
    /// Waits until body bytes are there and says how many; 0 is the end of the body.
    ///
    /// An error is final: a line that was refused must not be stepped over by whoever reads on.
    pub(crate) async fn ready(&mut self) -> Result<usize, BodyError> {
        let outcome = self.decode_or_read().await;
        if outcome.is_err() {
            *self.body = Remaining::Broken;
        }
        outcome
    }

    async fn decode_or_read(&mut self) -> Result<usize, BodyError> {
        loop {
            match self.decode()? {
                Some(count) => return Ok(count),
                None => self.read().await?,
            }
        }
    }

    /// The body bytes that are there.
    pub(crate) fn chunk(&self) -> &[u8] {
        let unread = self.buffer.unread();
        let left = match *self.body {
            Remaining::Nothing
            | Remaining::Broken
            | Remaining::Chunks(Chunk::Size | Chunk::DataEnd | Chunk::Trailers(_)) => 0,
            Remaining::Bytes(left) | Remaining::Chunks(Chunk::Data(left)) => left,
            Remaining::UntilClose => u64::MAX,
        };
        &unread[..unread
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX))]
    }

    /// Marks body bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.consume(count);
        let used = count as u64;
        *self.body = match *self.body {
            Remaining::Bytes(left) if left == used => Remaining::Nothing,
            Remaining::Bytes(left) => Remaining::Bytes(left - used),
            Remaining::Chunks(Chunk::Data(left)) if left == used => {
                Remaining::Chunks(Chunk::DataEnd)
            }
            Remaining::Chunks(Chunk::Data(left)) => Remaining::Chunks(Chunk::Data(left - used)),
            other => other,
        };
    }

    /// Whether the whole body has been consumed.
    pub(crate) fn is_done(&self) -> bool {
        *self.body == Remaining::Nothing
    }

    /// Whether it is known that at most `limit` bytes are still to come.
    pub(super) fn is_short(&self, limit: u64) -> bool {
        match *self.body {
            Remaining::Nothing => true,
            Remaining::Bytes(left) => left <= limit,
            Remaining::Chunks(_) | Remaining::UntilClose | Remaining::Broken => false,
        }
    }

    /// Whether the body ends with the next `count` bytes of it.
    pub(crate) fn ends_after(&self, count: usize) -> bool {
        matches!(*self.body, Remaining::Bytes(left) if left == count as u64)
    }

    /// Whether the body ends within what has already been read, so that it can be sent again.
    pub(crate) fn is_at_hand(&self) -> bool {
        match *self.body {
            Remaining::Nothing => true,
            Remaining::Bytes(left) => self.buffer.unread().len() as u64 >= left,
            Remaining::Chunks(_) | Remaining::UntilClose | Remaining::Broken => false,
        }
    }

    /// From now on the connection carries another protocol: whatever comes, until its end.
    pub(crate) fn switch_protocols(&mut self) {
        *self.body = Remaining::UntilClose;
    }

    /// The trailer section, once the body's end has been reached.
    pub(crate) fn trailers(&self) -> &Fields {
        self.trailers
    }

    /// Waits for the first bytes of a message.
    pub(super) async fn begin(&mut self) -> Result<(), NoHead> {
        if self.buffer.is_empty() && self.buffer.read_first(&mut self.stream).await? == 0 {
            return Err(NoHead::Closed);
        }
        Ok(())
    }

    /// The length of the complete head that stands at the front of the buffer.
    pub(super) async fn head(&mut self, limits: HeadLimits) -> Result<usize, NoHead> {
        let mut scan = HeadScan::default();
        loop {
            if let Some(end) = scan.find_end(self.buffer.unread(), limits)? {
                return Ok(end);
            }
            if poll_fn(|cx| self.buffer.poll_read(cx, &mut self.stream, 0)).await? == 0 {
                return Err(if self.buffer.is_empty() {
                    NoHead::Closed
                } else {
                    NoHead::Truncated
                });
            }
        }
    }

    async fn read(&mut self) -> Result<(), BodyError> {
        let wanted = match *self.body {
            Remaining::Bytes(left) | Remaining::Chunks(Chunk::Data(left)) => left,
            Remaining::UntilClose => u64::MAX,
            Remaining::Chunks(_) | Remaining::Nothing | Remaining::Broken => 0,
        };
        match poll_fn(|cx| self.buffer.poll_read(cx, &mut self.stream, wanted)).await? {
            0 if *self.body == Remaining::UntilClose => {
                *self.body = Remaining::Nothing;
                Ok(())
            }
            0 => Err(BodyError::Truncated),
            _ => Ok(()),
        }
    }

    /// Advances over framing until body bytes or the body's end are reached; `None` if more must be read.
    fn decode(&mut self) -> Result<Option<usize>, BodyError> {
        loop {
            let next = match *self.body {
                Remaining::Nothing => return Ok(Some(0)),
                Remaining::Broken => return Err(BodyError::Malformed("the body broke off before")),
                Remaining::Bytes(_) | Remaining::UntilClose | Remaining::Chunks(Chunk::Data(_)) => {
                    let there = self.chunk().len();
                    return Ok((there > 0).then_some(there));
                }
                Remaining::Chunks(Chunk::Size) => {
                    let Some(line) = self.take_line(MAX_CHUNK_LINE)? else {
                        return Ok(None);
                    };
                    match chunk_size(&line)? {
                        0 => Remaining::Chunks(Chunk::Trailers(0)),
                        size => Remaining::Chunks(Chunk::Data(size)),
                    }
                }
                Remaining::Chunks(Chunk::DataEnd) => match self.buffer.unread() {
                    [b'\r', b'\n', ..] => {
                        self.buffer.consume(2);
                        Remaining::Chunks(Chunk::Size)
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(BodyError::Malformed("a chunk is longer than its size says")),
                },
                Remaining::Chunks(Chunk::Trailers(seen)) => {
                    let Some(line) = self.take_line(MAX_TRAILERS.saturating_sub(seen))? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        Remaining::Nothing
                    } else {
                        self.keep_trailer(&line)?;
                        Remaining::Chunks(Chunk::Trailers(seen + line.len() + 2))
                    }
                }
            };
            *self.body = next;
        }
    }

    /// Whether its name may be forwarded is for others to say; here it must be a field line.
    fn keep_trailer(&mut self, line: &[u8]) -> Result<(), BodyError> {
        if self.trailers.len() == MAX_FIELDS {
            return Err(BodyError::Malformed("there are too many trailers"));
        }
        self.trailers
            .push_raw(line)
            .map_err(|_| BodyError::Malformed("a trailer is not a header line"))
    }

    /// Takes a line off the buffer, without its CR LF, if it is all there.
    fn take_line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, BodyError> {
        let unread = self.buffer.unread();
        let Some(newline) = memchr::memchr(b'\n', unread) else {
            // The CR of the longest line may be here and its LF not.
            return if unread.len() > limit + 1 {
                Err(BodyError::Malformed("a line between chunks is too long"))
            } else {
                Ok(None)
            };
        };
        match unread[..newline] {
            [ref line @ .., b'\r'] if line.len() <= limit => {
                let line = line.to_vec();
                self.buffer.consume(newline + 1);
                Ok(Some(line))
            }
            [.., b'\r'] => Err(BodyError::Malformed("a line between chunks is too long")),
            _ => Err(BodyError::Malformed(
                "a line between chunks does not end with CR LF",
            )),
        }
    }
}

/// 1 to 16 hexadecimal digits, then perhaps an extension, which is dropped (RFC 9112 §7.1.1).
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    let extension_ok = match extension {
        [] => true,
        [b';', rest @ ..] => rest.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)),
        _ => false,
    };
    if !(1..=16).contains(&digits) || !extension_ok {
        return Err(BodyError::Malformed("a chunk size is malformed"));
    }
    let size = std::str::from_utf8(size)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    size.ok_or(BodyError::Malformed("a chunk size is malformed"))
}

/// Writes a message onto a connection: its head, then its body, framed by us.
pub(crate) struct Writer<'c> {
    pub(super) stream: WriteHalf<'c>,
    /// What goes out before the next body bytes, in the same system call: the head.
    pub(super) pending: &'c mut Vec<u8>,
    pub(super) framing: Framing,
}

impl Writer<'_> {
    /// Sends what is pending and `data`; `last` also ends the body.
    pub(crate) async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        let tail = self.frame(data.len(), last)?;
        if data.len() <= COPIED {
            self.pending.extend_from_slice(data);
            self.pending.extend_from_slice(tail);
            // Writing no bytes at all would look like a full socket.
            if !self.pending.is_empty() {
                self.stream.write_all(self.pending).await?;
            }
        } else {
            write_all(&mut self.stream, [self.pending, data, tail]).await?;
        }
        // A TLS session takes more than its socket does.
        self.stream.flush().await?;
        self.pending.clear();
        Ok(())
    }

    /// Accounts for `length` bytes of body and puts what stands before them in front; gives what stands behind them.
    fn frame(&mut self, length: usize, last: bool) -> io::Result<&'static [u8]> {
        let tail: &[u8] = match &mut self.framing {
            Framing::Empty if length > 0 => return Err(misframed()),
            Framing::Empty | Framing::UntilClose => b"",
            Framing::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or_else(misframed)?;
                if last && *left > 0 {
                    return Err(misframed());
                }
                b""
            }
            Framing::Chunked => {
                if length > 0 {
                    write!(self.pending, "{length:x}\r\n")?;
                }
                match (length, last) {
                    (0, true) => b"0\r\n\r\n",
                    (0, false) => b"",
                    (_, true) => b"\r\n0\r\n\r\n",
                    (_, false) => b"\r\n",
                }
            }
        };
        if last {
            self.framing = Framing::Empty;
        }
        Ok(tail)
    }

    /// Has the kernel move the rest of the client's `body` to the app, if that is worth it and possible.
    pub(crate) fn splice<'a>(&'a mut self, body: &'a mut Reader<'_>) -> Option<Splice<'a>> {
        Splice::new(body, self, None)
    }

    /// Whether the kernel can send a file as what comes next: on a plain socket, within a body of known length.
    pub(super) fn takes_files(&self) -> bool {
        matches!(self.framing, Framing::Length(_)) && self.stream.takes_files()
    }

    /// Has the kernel send up to `most` bytes of a file from `at` on, behind what is pending. Says how many it took;
    /// `None` if it does not do that after all.
    pub(super) async fn send_file(
        &mut self,
        file: &File,
        at: u64,
        most: usize,
    ) -> io::Result<Option<usize>> {
        let Framing::Length(owed) = self.framing else {
            return Ok(None);
        };
        let most = most.min(usize::try_from(owed).unwrap_or(usize::MAX));
        let mut pending = &self.pending[..];
        while !pending.is_empty() {
            let sent = poll_fn(|cx| self.stream.poll_send_ahead(cx, pending)).await?;
            pending = &pending[sent..];
        }
        self.pending.clear();
        let sent = poll_fn(|cx| self.stream.poll_send_file(cx, file, at, most)).await?;
        match sent {
            Some(sent) if sent as u64 == owed => self.framing = Framing::Empty,
            Some(sent) => self.framing = Framing::Length(owed - sent as u64),
            None => {}
        }
        Ok(sent)
    }

    /// Ends the body with a trailer section, if its framing has room for one, as lines ready to be sent.
    pub(crate) async fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        if self.framing != Framing::Chunked || trailers.is_empty() {
            return self.send(b"", true).await;
        }
        self.pending.extend_from_slice(b"0\r\n");
        self.pending.extend_from_slice(trailers);
        self.pending.extend_from_slice(b"\r\n");
        self.framing = Framing::Empty;
        self.send(b"", true).await
    }

    /// From now on the connection carries another protocol: whatever is sent, until its end.
    pub(crate) fn switch_protocols(&mut self) {
        self.framing = Framing::UntilClose;
    }

    /// Ends our direction of the connection and leaves the other one open.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// What is yet to be sent; heads are encoded straight into it.
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        self.pending
    }
}

fn misframed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the body does not have the announced length",
    )
}

/// All slices in as few system calls as the socket takes.
async fn write_all(stream: &mut WriteHalf<'_>, parts: [&[u8]; 3]) -> io::Result<()> {
    let mut slices = parts.map(IoSlice::new);
    let mut left: &mut [IoSlice<'_>] = &mut slices;
    // Skips what is empty at the front.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match stream.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => IoSlice::advance_slices(&mut left, count),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal_and_nothing_else() {
        assert_eq!(chunk_size(b"1aF").unwrap(), 0x1af);
        assert_eq!(chunk_size(b"5;name=value").unwrap(), 5);
        for bad in [
            "",
            " 5",
            "5 ",
            "+5",
            "-5",
            "0x5",
            "5_0",
            "5;\x01",
            "00000000000000005",
            "g",
        ] {
            assert!(chunk_size(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
