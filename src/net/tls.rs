//! The server's side of TLS, up to the end of the handshake.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::Stream;

/// How much of an answer is encrypted ahead of what the socket takes: two records. A client that does not read holds that
/// much memory, on top of what is still to be encrypted.
const AHEAD: usize = 32 * 1024;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose handshake is done.
pub(crate) struct Secured {
    pub(crate) stream: Stream,
    /// What client and server agreed on; a client that asks for nothing gets HTTP/1.1.
    pub(crate) protocol: Protocol,
    /// Whether an earlier session was resumed.
    pub(crate) resumed: bool,
}

/// Does the handshake. If it fails, the client has been told why by an alert, and gets the socket back to be closed.
pub(crate) async fn handshake(
    stream: Stream,
    config: Arc<ServerConfig>,
) -> Result<Secured, (io::Error, Stream)> {
    let accept = TlsAcceptor::from(config).accept_with(stream, |session| {
        session.set_buffer_limit(Some(AHEAD));
    });
    let session = accept.into_fallible().await?;
    let (_, state) = session.get_ref();
    let protocol = match state.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Secured {
        stream: Stream::Tls(Box::new(RefCell::new(session))),
        protocol,
        resumed,
    })
}
