//! Listening sockets.
//!
//! Each worker has a listener of its own on the same port (`SO_REUSEPORT`): the kernel spreads connections over them and
//! no worker waits for another's lock. It also lets a new process take a port over before the old one lets go.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel may hold for us before they are accepted.
const BACKLOG: i32 = 4096;

/// `count` listeners on one address. With port 0 the first one chooses and the others follow.
pub(crate) fn bind_group(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind(addr, true)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind(addr, true)?);
    }
    Ok(listeners)
}

/// A non-blocking listener; `shared` lets others listen on the same port.
pub(crate) fn bind(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
