//! Listening sockets.
//!
//! Each worker has a listener of its own on the same port (`SO_REUSEPORT`): the kernel spreads connections over them and
//! no worker waits for another's lock. It also lets a new process take a port over before the old one lets go. A Unix
//! socket has one queue, which all workers take from.

use std::fs;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Stream;
use crate::config::Listen;

/// How many connections the kernel may hold for us before they are accepted.
const BACKLOG: i32 = 4096;
/// How long handshakes of TCP that are under way may take to end, once nobody new is let in. Whoever is turned away tries
/// again after a second; by then the port must be another's, or nobody's.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// A listening socket that has not joined a runtime yet.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, Arc<SocketFile>),
}

/// A listening socket.
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, Arc<SocketFile>),
}

/// The file of a Unix socket; removed once nobody listens there any more.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Which file it is: another process may have put its own there.
    identity: Option<(u64, u64)>,
}

impl Bound {
    /// One listener, which nobody else shares the port with.
    pub(crate) fn one(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                let socket = bind_tcp(*addr, Sharing::Later)?;
                Ok(Self::Tcp(socket))
            }
            Listen::Unix(path) => bind_unix(path),
        }
    }

    /// One that takes the place of our own `old` one, which may have the same port at another address.
    pub(crate) fn one_after(listen: &Listen, old: &Listen) -> io::Result<Self> {
        match (listen, old) {
            (Listen::Tcp(addr), Listen::Tcp(before))
                if addr.port() == before.port() && addr.port() != 0 =>
            {
                bind_tcp(*addr, Sharing::Yes).map(Self::Tcp)
            }
            _ => Self::one(listen),
        }
    }

    /// `count` listeners in one place. With port 0 the first one chooses and the others follow.
    pub(crate) fn group(listen: &Listen, count: usize) -> io::Result<Vec<Self>> {
        let first = match listen {
            Listen::Tcp(addr) => Self::Tcp(bind_tcp(*addr, Sharing::Yes)?),
            Listen::Unix(path) => bind_unix(path)?,
        };
        let mut listeners = vec![first];
        for _ in 1..count {
            let next = match &listeners[0] {
                Self::Tcp(first) => Self::Tcp(bind_tcp(first.local_addr()?, Sharing::Yes)?),
                Self::Unix(first, file) => Self::Unix(first.try_clone()?, Arc::clone(file)),
            };
            listeners.push(next);
        }
        Ok(listeners)
    }

    /// Where it listens, with the port that was chosen.
    pub(crate) fn place(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
        }
    }

    /// Joins the runtime of this thread.
    pub(crate) fn join(self) -> Listener {
        let joins = "a non-blocking listener joins the runtime of its thread";
        match self {
            Self::Tcp(listener) => {
                Listener::Tcp(tokio::net::TcpListener::from_std(listener).expect(joins))
            }
            Self::Unix(listener, file) => Listener::Unix(
                tokio::net::UnixListener::from_std(listener).expect(joins),
                file,
            ),
        }
    }
}

impl Listener {
    /// The next connection, and its peer's address; a Unix socket's peer has none.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    pub(crate) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, addr)| (Stream::Tcp(stream), Some(addr))),
            Self::Unix(listener, _) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }

    /// Hands over whoever the kernel has already accepted for us: closing would reset them.
    pub(crate) async fn accept_waiting(&self, mut take: impl FnMut(Stream, Option<SocketAddr>)) {
        let accept_all = poll_fn(|cx| {
            loop {
                match self.poll_accept(cx) {
                    Poll::Ready(Ok((stream, addr))) => take(stream, addr),
                    Poll::Ready(Err(error)) if is_about_one_connection(&error) => {}
                    Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(()),
                }
            }
        });
        // The runtime would have us pause after so many, and the rest would be reset.
        tokio::task::unconstrained(accept_all).await;
    }

    /// Lets nobody new in, and says how long those who are half in may take. When that is over, whatever came can be
    /// accepted and nothing is lost by closing.
    pub(crate) fn turn_away(&self) -> Duration {
        match self {
            Self::Tcp(listener) => turn_away_tcp(listener),
            Self::Unix(_, file) => {
                file.remove();
                Duration::ZERO
            }
        }
    }
}

/// Errors of accept(2) that concern only the connection that was to be accepted.
pub(crate) fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

impl SocketFile {
    fn remove(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // An error means that it is gone, or that it will be found stale.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether a port may have more than one listener, all of this user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// If all of them agree.
    Yes,
    /// Only by one that comes later and agrees, and this one has had it to itself when it came.
    Later,
}

fn bind_tcp(addr: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    if sharing == Sharing::Later {
        socket.set_reuse_port(true)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether somebody listens there already. To be asked before it is bound.
pub(crate) fn is_taken(listen: &Listen) -> bool {
    let Listen::Tcp(addr) = *listen else {
        return false;
    };
    let alone = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())
    };
    addr.port() != 0 && alone().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// A port that is shared with the process it is taken over from looks like one that is shared by mistake, so it is only told, not
/// refused. To be told once it is bound, because otherwise nothing is shared.
pub(crate) fn warn_of_sharing(listen: &Listen) {
    tracing::warn!(
        addr = %listen,
        "something else of this user listens here too (another process?) and gets its share of the connections until it ends"
    );
}

/// Has the kernel drop what would begin a connection (SYN), on this listener alone: closing it would reset those that
/// are between their SYN and their ACK. Their clients repeat a dropped SYN, which then finds the next process.
#[cfg(target_os = "linux")]
fn turn_away_tcp(listener: &tokio::net::TcpListener) -> Duration {
    use socket2::{SockFilter, SockRef};
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_IF_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const FLAGS: u32 = 13; // of a TCP header (RFC 9293 §3.1)
    const SYN: u32 = 0x02;
    let drop_syn = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    match SockRef::from(listener).attach_filter(&drop_syn) {
        Ok(()) => HANDSHAKES,
        // Waiting would only gather more of those that are to be lost.
        Err(_) => Duration::ZERO,
    }
}

#[cfg(not(target_os = "linux"))]
fn turn_away_tcp(_: &tokio::net::TcpListener) -> Duration {
    Duration::ZERO
}

/// Takes the place of a socket that nobody listens on any more, and of nothing else.
fn bind_unix(path: &Path) -> io::Result<Bound> {
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        io::Result::Ok(socket)
    };
    let socket = match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            bind()?
        }
        outcome => outcome?,
    };
    socket.listen(BACKLOG)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path),
    };
    Ok(Bound::Unix(socket.into(), Arc::new(file)))
}

fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A listener with a full queue would keep us waiting, and is alive.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    is_socket && connect().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_ones_own_except_for_whoever_takes_it_over() {
        let first = Bound::one(&Listen::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let place = first.place().unwrap();
        let Listen::Tcp(addr) = place else {
            panic!("{place}")
        };
        let everywhere = Listen::Tcp(([0, 0, 0, 0], addr.port()).into());
        for other in [&place, &everywhere] {
            let refused = Bound::one(other).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        }
        let second = Bound::one_after(&everywhere, &place).unwrap();
        let refused = Bound::one(&everywhere).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        drop(first);
        let back = Bound::one_after(&place, &second.place().unwrap()).unwrap();
        assert_eq!(back.place().unwrap(), place);
    }
}
