//! From an accepted socket to one that requests come from: the PROXY header, then the TLS handshake.
//!
//! It happens in the connection's own task, so that no client keeps another waiting, and under limits of its own. Who fails
//! here never made a request: it is counted and logged for who debugs, and closed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;

use super::connections::{LEFTOVER_TIMEOUT, LINGER_LIMIT, Way};
use super::worker::{Peer, Worker};
use crate::config::{Inbound, Tls};
use crate::net::{Protocol, Secured, Source, Stream, handshake, read_proxy_header};
use crate::proxy;
use crate::session::ShownToken;
use crate::telemetry::requests::Refusal;

impl Worker {
    /// The connection as its requests see it; `None` if it is closed before the first.
    pub(super) async fn receive(
        &self,
        stream: Stream,
        addr: Option<SocketAddr>,
        way: &Way,
    ) -> Option<(Stream, Protocol, Peer)> {
        let snapshot = way.snapshot(&self.settings().snapshot);
        let inbound = &snapshot.config.inbound;
        let (stream, source) = match inbound.proxy_protocol {
            false => (stream, Source::Proxy),
            true => self.introduced(stream, inbound, addr).await?,
        };
        let addr = match source {
            Source::Client(addr) => Some(addr),
            Source::Proxy | Source::Unknown => addr,
        };
        let (stream, protocol) = match &inbound.tls {
            // Who speaks HTTP/2 without TLS says so with the first bytes.
            None => (stream, Protocol::Http1),
            Some(tls) => self.secure(stream, tls, addr).await?,
        };
        let peer = Peer {
            place: proxy::Peer::new(addr.map(|addr| addr.ip()), inbound.tls.is_some())
                .relaying(source == Source::Unknown),
            ending: Rc::clone(&way.ending),
            shown: ShownToken::default(),
        };
        Some((stream, protocol, peer))
    }

    /// Whose bytes these are, as a trusted proxy says. From anybody else a PROXY header is no HTTP, and is treated as
    /// such.
    async fn introduced(
        &self,
        mut stream: Stream,
        inbound: &Inbound,
        addr: Option<SocketAddr>,
    ) -> Option<(Stream, Source)> {
        if !inbound.trusted_proxies.trusts(addr.map(|addr| addr.ip())) {
            return Some((stream, Source::Proxy));
        }
        let header = read_proxy_header(&mut stream);
        match self.timers.within(inbound.header_timeout, header).await {
            Ok(Ok(source)) => Some((stream, source)),
            Ok(Err(error)) => {
                self.refuse_arrival(addr, Refusal::Proxy, &error);
                None
            }
            Err(_) => {
                let error = ErrorKind::TimedOut.into();
                self.refuse_arrival(addr, Refusal::ProxyTimeout, &error);
                None
            }
        }
    }

    /// Who connects and leaves, as probes do, is refused nothing.
    fn refuse_arrival(&self, addr: Option<SocketAddr>, why: Refusal, error: &io::Error) {
        if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::TimedOut) {
            self.cells.refuse(why);
        }
        let client = addr.map(tracing::field::display);
        tracing::debug!(client, reason = why.label(), %error, "closed before the first request");
    }

    async fn secure(
        &self,
        stream: Stream,
        tls: &Tls,
        addr: Option<SocketAddr>,
    ) -> Option<(Stream, Protocol)> {
        let handshake = handshake(stream, tls.server.clone());
        match self.timers.within(tls.handshake_timeout, handshake).await {
            Ok(Ok(Secured {
                stream,
                protocol,
                resumed,
            })) => {
                let cell = match resumed {
                    true => &self.cells.resumed_handshakes,
                    false => &self.cells.full_handshakes,
                };
                cell.add(1);
                let client = addr.map(tracing::field::display);
                tracing::trace!(client, ?protocol, resumed, "TLS handshake");
                Some((stream, protocol))
            }
            Ok(Err((error, stream))) => {
                self.refuse_arrival(addr, Refusal::Tls, &error);
                self.see_off(stream).await;
                None
            }
            Err(_) => {
                let error = ErrorKind::TimedOut.into();
                self.refuse_arrival(addr, Refusal::TlsTimeout, &error);
                None
            }
        }
    }

    /// Closes a connection so that what was sent last, an alert, is not lost to a reset.
    async fn see_off(&self, mut stream: Stream) {
        let goodbye = async {
            stream.shutdown().await?;
            let mut rest = tokio::io::AsyncReadExt::take(&mut stream, LINGER_LIMIT as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let _ends_either_way = self.timers.within(LEFTOVER_TIMEOUT, goodbye).await;
    }
}
