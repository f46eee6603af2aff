//! One stream type over all transports, so that nothing above needs to box or to be generic.
//!
//! It is used in halves, because an exchange reads and writes the same socket at once. The halves borrow the stream and
//! cost nothing. A TLS session is one state for both directions; its halves take turns with it, each for the duration of
//! one poll, which on one thread needs no lock.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::server::TlsStream;

use crate::config::Upstream;

/// A connected socket. As a whole it is used only until its first request; see [`Stream::split`].
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<RefCell<TlsStream<Stream>>>),
}

/// The half that is read from.
pub(crate) enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
    Tls(&'a RefCell<TlsStream<Stream>>),
}

/// The half that is written to.
pub(crate) enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
    Tls(&'a RefCell<TlsStream<Stream>>),
}

impl Stream {
    /// Connects to the app; a name is resolved afresh each time, so that a pod's new address is found.
    pub(crate) async fn connect(upstream: &Upstream, timeout: Duration) -> io::Result<Self> {
        let connect = async {
            match upstream {
                Upstream::Tcp { host, port } | Upstream::H2c { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(Self::Tcp(stream))
                }
                Upstream::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            }
        };
        let elapsed = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(timeout, connect)
            .await
            .map_err(elapsed)?
    }

    /// Has small pieces sent at once. The kernel may hold them back otherwise; nothing else changes.
    pub(crate) fn send_at_once(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) | Self::Tls(_) => Ok(()),
        }
    }

    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tls(session) => (ReadHalf::Tls(session), WriteHalf::Tls(session)),
        }
    }

    /// Makes the close of this stream a reset, which nobody takes for the orderly end of what was sent. Unix sockets have
    /// no such thing; TLS has its own, as only [`AsyncWrite::poll_shutdown`] sends the closing alert.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => {
                // An error means that the connection is gone already.
                let _gone = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Self::Unix(_) => {}
            Self::Tls(session) => session.borrow().get_ref().0.reset_on_close(),
        }
    }

    /// Waits until there is something to read, an end included, without holding a buffer for it. Under TLS what arrives
    /// may be no data at all, so it is opened as it comes; rustls keeps what it finds for the next read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
            Self::Tls(session) => poll_fn(|cx| poll_peek(session, cx)).await,
        }
    }

    /// Whether nothing has arrived: neither bytes nor an end. On an idle keep-alive connection anything that arrives
    /// makes it unusable. Costs a system call only when the poller has reported something.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            Self::Tls(session) => {
                return poll_peek(session, &mut Context::from_waker(Waker::noop())).is_pending();
            }
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Ready when a read would be.
fn poll_peek(session: &RefCell<TlsStream<Stream>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(&mut *session.borrow_mut())
        .poll_fill_buf(cx)
        .map_ok(|_| ())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_shutdown(cx),
        }
    }
}

impl ReadHalf<'_> {
    /// Ready when a read may find something: costs less than a read that finds nothing, and needs no memory. A TLS session
    /// may hold what its socket gave it long ago, so there only a read tells.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_read_ready(cx),
            Self::Unix(half) => half.as_ref().poll_read_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_write(cx, buf),
            Self::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Unix(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Tls(session) => {
                Pin::new(&mut *session.borrow_mut()).poll_write_vectored(cx, bufs)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Unix(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_shutdown(cx),
        }
    }
}
