//! The life of connections: accepted, served request by request, brought to their end.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::drain::Phase;
use super::exchange;
use super::worker::{Peer, Worker};
use crate::net::{Protocol, Stream};
use crate::resilience::panics::faults;
use crate::wire::http1::ServerConnection;
use crate::wire::{NoHead, Reader, Responder};

/// How long a client may take to send what little is left of a body whose answer it already has.
pub(super) const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes are read and dropped while a connection is being closed.
pub(super) const LINGER_LIMIT: usize = 1024 * 1024;
/// How long an idle client keeps its buffers.
const KEEP_BUFFERS: Duration = Duration::from_millis(500);
/// How often idle connections to the app are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    /// Accepts until told to drain, then waits for what is in flight until told to stop.
    pub(super) async fn run(
        self: Rc<Self>,
        listener: TcpListener,
        mut phase: watch::Receiver<Phase>,
    ) {
        let listener = tokio::net::TcpListener::from_std(listener)
            .expect("a non-blocking listener joins the runtime of its worker");
        let (sweeping, timing) = (Rc::clone(&self), Rc::clone(&self));
        tokio::task::spawn_local(async move {
            timing
                .kept_going("timers", || timing.timers.clone().run())
                .await;
        });
        tokio::task::spawn_local(async move {
            sweeping.kept_going("pool", || sweeping.sweep_pool()).await;
        });
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
            () = self.kept_going("accept", || self.accept(&listener)) => {}
        }
        self.accept_waiting(&listener).await;
        drop(listener);
        self.draining.set(true);
        self.timers.interrupt_idle();
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
            () = self.all_closed() => {}
        }
    }

    async fn accept(self: &Rc<Self>, listener: &tokio::net::TcpListener) {
        loop {
            self.wait_for_room().await;
            faults::strike("accept");
            match listener.accept().await {
                Ok((stream, addr)) => self.spawn(stream, addr),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// What the kernel has already accepted for us would be reset when the listener closes.
    async fn accept_waiting(self: &Rc<Self>, listener: &tokio::net::TcpListener) {
        let accept_all = poll_fn(|cx| {
            loop {
                match listener.poll_accept(cx) {
                    Poll::Ready(Ok((stream, addr))) => self.spawn(stream, addr),
                    Poll::Ready(Err(error)) if is_about_one_connection(&error) => {}
                    Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(()),
                }
            }
        });
        // The runtime would have us pause after so many, and the rest would be reset.
        tokio::task::unconstrained(accept_all).await;
    }

    async fn wait_for_room(&self) {
        loop {
            let inbound = &self.settings().snapshot.config.inbound;
            if self.open.get() < inbound.max_connections.div_ceil(inbound.workers) {
                return;
            }
            self.closed.notified().await;
        }
    }

    /// A panic ends the task of one connection and nothing else.
    fn spawn(self: &Rc<Self>, stream: TcpStream, addr: SocketAddr) {
        let worker = Rc::clone(self);
        let counted = Open::count(Rc::clone(self));
        tokio::task::spawn_local(async move {
            let _counted = counted;
            // Without it the kernel may hold a small answer back; with it nothing else changes.
            if stream.set_nodelay(true).is_ok() {
                let serving = worker.serve_stream(Stream::Tcp(stream), addr);
                worker.isolated("connection", serving).await;
            }
        });
    }

    /// Serves one connection, from its first byte to its end.
    async fn serve_stream(self: &Rc<Self>, stream: Stream, addr: SocketAddr) {
        match self.receive(stream, addr).await {
            Some((stream, Protocol::Http1, peer)) => {
                let connection = ServerConnection::new(stream, Rc::clone(&self.draining));
                self.serve(connection, peer).await;
            }
            Some((stream, Protocol::Http2, peer)) => {
                self.serve_http2(stream, Vec::new(), peer).await;
            }
            None => {}
        }
    }

    /// Serves the requests of one connection, one after the other.
    async fn serve(self: &Rc<Self>, mut connection: ServerConnection, peer: Peer) {
        let mut served = false;
        loop {
            if !self.next_request(&mut connection, served).await {
                return;
            }
            served = true;
            let settings = self.settings();
            let limits = settings.snapshot.head_limits;
            let patience = settings.snapshot.config.inbound.header_timeout;
            match self
                .timers
                .within(patience, connection.read_head(limits))
                .await
            {
                Ok(Ok(())) => {
                    let (head, body, responder) = connection.parts();
                    let request = (head, Reader::Http1(body), Responder::Http1(responder));
                    exchange::exchange(self, &settings, &peer, request).await;
                }
                Ok(Err(NoHead::Invalid(cause))) => {
                    let responder = Responder::Http1(connection.refuse());
                    exchange::refuse(self, &settings, &cause, responder).await;
                }
                Ok(Err(NoHead::Http2)) => {
                    let (stream, prefix) = connection.into_parts();
                    return self.serve_http2(stream, prefix, peer).await;
                }
                Ok(Err(NoHead::Closed | NoHead::Truncated | NoHead::Io(_))) => return,
                Err(_) => {
                    let responder = Responder::Http1(connection.refuse());
                    exchange::refuse_slow(self, &settings, responder).await;
                }
            }
            let reusable = self
                .timers
                .within(LEFTOVER_TIMEOUT, connection.is_reusable())
                .await;
            if reusable != Ok(true) {
                let lingering = connection.linger(LINGER_LIMIT);
                let _ends_either_way = self.timers.within(LEFTOVER_TIMEOUT, lingering).await;
                return;
            }
        }
    }

    /// Waits for the next request; false if there is none to be served. Most come soon and find the buffers of the last
    /// one still there; whoever takes longer waits without.
    async fn next_request(&self, connection: &mut ServerConnection, served: bool) -> bool {
        // A new connection may have its first request under way; it is heard even now.
        if self.draining.get() && served && !connection.has_more() {
            return false;
        }
        match self
            .timers
            .within_idle(KEEP_BUFFERS, connection.receive())
            .await
        {
            Ok(received) => return received.unwrap_or(false),
            Err(_) if self.draining.get() => return false,
            Err(_) => {}
        }
        let limit = self.settings().snapshot.config.inbound.idle_timeout;
        match self.timers.within_idle(limit, connection.idle()).await {
            Ok(received) => received.unwrap_or(false),
            Err(_) => false,
        }
    }

    async fn sweep_pool(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.pool.sweep();
        }
    }

    async fn all_closed(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open(Rc<Worker>);

impl Open {
    fn count(worker: Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.cells.connections.add(1);
        Self(worker)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.cells.connections.sub(1);
        self.0.closed.notify_one();
    }
}

/// Errors of accept(2) that concern only the connection that was to be accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
