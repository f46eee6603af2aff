//! HTTP/1.1 as far as it is needed here: heads, and bodies that say their length, one after the other.
//!
//! No library, because the generator and the app share a core and should cost next to nothing.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Wire<S = TcpStream> {
    stream: S,
    unread: BytesMut,
}

/// A request or an answer.
pub(crate) struct Message {
    head: Bytes,
    pub(crate) body: Bytes,
}

impl Wire {
    pub(crate) async fn connect(place: SocketAddr) -> io::Result<Self> {
        Ok(Self::of(TcpStream::connect(place).await?))
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        // A message is one write; Nagle would only hold back its tail.
        let _best_effort = stream.set_nodelay(true);
        Self::over(stream)
    }

    /// Whether the other side has not closed, as far as is known; nothing is expected from it now.
    pub(crate) fn is_open(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over TLS, say.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message; `None` if the other side has closed instead.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Message>> {
        let head = loop {
            if let Some(end) = memmem::find(&self.unread, b"\r\n\r\n") {
                break self.unread.split_to(end + 4).freeze();
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let mut message = Message {
            head,
            body: Bytes::new(),
        };
        let length = match message.header("content-length") {
            None => 0,
            Some(length) => length.parse().map_err(|_| io::ErrorKind::InvalidData)?,
        };
        while self.unread.len() < length {
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        message.body = self.unread.split_to(length).freeze();
        Ok(Some(message))
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Message> {
        self.write(request).await?;
        let answer = self.read().await?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split(|byte| *byte == b'\n');
        let value = lines.filter_map(|line| {
            let (own, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            own.eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        });
        str::from_utf8(value.into_iter().next()?).ok()
    }

    /// The target of a request.
    #[allow(dead_code, reason = "not every bench has an app that looks at it")]
    pub(crate) fn target(&self) -> &str {
        let line = self.head.split(|byte| *byte == b'\r').next();
        let target = line.and_then(|line| line.split(|byte| *byte == b' ').nth(1));
        target
            .and_then(|target| str::from_utf8(target).ok())
            .unwrap_or("")
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        str::from_utf8(self.head.get(9..12)?).ok()?.parse().ok()
    }
}
