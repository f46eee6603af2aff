//! The generator's end of a connection: requests that are ready, and answers that are looked at or thrown away.
//!
//! Of an answer that is thrown away the kernel copies nothing (MSG_TRUNC), so that with ten megabytes it is the server that
//! works and not the one who reads.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use memchr::memmem;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};

/// Room for a head and a small body, which then come with one read.
const BUFFER: usize = 32 * 1024;
/// How much is thrown away at a time.
const SCRAP: usize = 1024 * 1024;
/// recv(2): the bytes are taken off the socket and not copied.
const MSG_TRUNC: i32 = 0x20;
const MAX_FIELDS: usize = 64;

/// One connection.
pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not yet been taken.
    from: usize,
    to: usize,
    scrap: Vec<u8>,
}

/// What is wanted of the head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// `Cache-Status`, as the sidecar says it.
    pub(crate) cache: Option<String>,
    /// When the first byte of it was here.
    pub(crate) began: Instant,
}

impl Caller {
    pub(crate) async fn connect(place: SocketAddr) -> Result<Self, String> {
        Self::over(TcpSocket::new_v4(), place).await
    }

    /// With a small receive buffer, so that a server has to keep what is not read.
    pub(crate) async fn connect_narrow(place: SocketAddr, buffer: u32) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().and_then(|socket| {
            socket.set_recv_buffer_size(buffer)?;
            Ok(socket)
        });
        Self::over(socket, place).await
    }

    async fn over(socket: io::Result<TcpSocket>, place: SocketAddr) -> Result<Self, String> {
        let said = |error: io::Error| format!("cannot connect to {place}: {error}");
        let stream = socket.map_err(said)?.connect(place).await.map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
            scrap: Vec::with_capacity(SCRAP),
        })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|error| format!("sending: {error}"))
    }

    /// Sends a request, and reads the head of its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Head, String> {
        self.send(request).await?;
        self.head().await
    }

    /// The head of the next answer, whose body is to be taken then.
    pub(crate) async fn head(&mut self) -> Result<Head, String> {
        if self.from != self.to {
            return Err(format!("{} bytes behind an answer", self.to - self.from));
        }
        (self.from, self.to) = (0, 0);
        let mut began = None;
        loop {
            if self.to == self.buffer.len() {
                return Err("a head that does not end".to_owned());
            }
            let read = self.stream.read(&mut self.buffer[self.to..]).await;
            began.get_or_insert_with(Instant::now);
            self.to += some(read)?;
            if let Some(end) = memmem::find(&self.buffer[..self.to], b"\r\n\r\n") {
                self.from = end + 4;
                break;
            }
        }
        parse(
            &self.buffer[..self.from],
            began.unwrap_or_else(Instant::now),
        )
    }

    /// Throws so many bytes of the body away.
    pub(crate) async fn discard(&mut self, length: u64) -> Result<(), String> {
        let here = length.min((self.to - self.from) as u64);
        self.from += here as usize;
        let mut left = length - here;
        while left > 0 {
            let most = left.min(SCRAP as u64) as usize;
            let taken = self.stream.async_io(Interest::READABLE, || {
                let scrap = &mut self.scrap.spare_capacity_mut()[..most];
                SockRef::from(&self.stream).recv_with_flags(scrap, MSG_TRUNC)
            });
            left -= some(taken.await)? as u64;
        }
        Ok(())
    }

    /// Takes so many bytes of the body as are expected, and compares them.
    pub(crate) async fn compare(&mut self, expected: &[u8]) -> Result<(), String> {
        let mut compared = 0;
        while compared < expected.len() {
            if self.from == self.to {
                let read = self.stream.read(&mut self.buffer).await;
                (self.from, self.to) = (0, some(read)?);
            }
            let here = (self.to - self.from).min(expected.len() - compared);
            let same = self.buffer[self.from..][..here] == expected[compared..][..here];
            if !same {
                return Err(format!("other bytes after {compared} of the body"));
            }
            (self.from, compared) = (self.from + here, compared + here);
        }
        Ok(())
    }

    /// A body that is text, for what went wrong or is short.
    pub(crate) async fn text(&mut self, head: &Head) -> Result<String, String> {
        let mut body = vec![0; usize::try_from(head.length).unwrap_or(0).min(BUFFER)];
        let here = body.len().min(self.to - self.from);
        body[..here].copy_from_slice(&self.buffer[self.from..][..here]);
        self.from += here;
        let read = self.stream.read_exact(&mut body[here..]).await;
        read.map_err(|error| format!("receiving: {error}"))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn some(read: io::Result<usize>) -> Result<usize, String> {
    match read {
        Ok(0) => Err("closed before the whole answer".to_owned()),
        Ok(read) => Ok(read),
        Err(error) => Err(format!("receiving: {error}")),
    }
}

fn parse(bytes: &[u8], began: Instant) -> Result<Head, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(bytes);
    let status = head
        .code
        .filter(|_| parsed.is_ok_and(|it| it.is_complete()));
    let field = |name: &str| {
        let mut same = head.headers.iter();
        let field = same.find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok()
    };
    let length = field("content-length").and_then(|value| value.parse().ok());
    Ok(Head {
        status: status.ok_or("not the head of an answer")?,
        length: length.ok_or("an answer that does not say its length")?,
        cache: field("cache-status").map(str::to_owned),
        began,
    })
}
