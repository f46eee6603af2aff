//! The life of connections: accepted, served request by request, brought to their end.

use std::cell::{Cell, RefCell};
use std::mem;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::drain::Phase;
use super::exchange;
use super::snapshot::Snapshot;
use super::worker::{Peer, Worker};
use crate::net::{Bound, Listener, Protocol, Stream, is_about_one_connection};
use crate::resilience::panics::{Panicked, caught, faults};
use crate::wire::http1::ServerConnection;
use crate::wire::{NoHead, Reader, Responder};

/// How long a client may take to send what little is left of a body whose answer it already has.
pub(super) const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes are read and dropped while a connection is being closed.
pub(super) const LINGER_LIMIT: usize = 1024 * 1024;
/// How long an idle client keeps what serves its requests.
const KEEP_BUFFERS: Duration = Duration::from_millis(500);
/// How many clients of a worker keep them at once. Thousands of quiet clients must not hold memory for the next request
/// of each, not even for half a second each.
const MAX_KEPT: usize = 256;
/// How often idle connections to the app are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has run out of file descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    /// Accepts until told to drain, then waits for what is in flight until told to stop. Whenever one of `changes` brings
    /// another listener, the one before is brought to its end as by a drain, while the new one is served.
    pub(super) async fn run(
        self: Rc<Self>,
        mut entrance: Entrance,
        mut changes: mpsc::UnboundedReceiver<Change>,
        mut phase: watch::Receiver<Phase>,
    ) {
        let (sweeping, timing) = (Rc::clone(&self), Rc::clone(&self));
        tokio::task::spawn_local(async move {
            timing
                .kept_going("timers", || timing.timers.clone().run())
                .await;
        });
        tokio::task::spawn_local(async move {
            sweeping.kept_going("pool", || sweeping.sweep_pool()).await;
        });
        loop {
            let Change { listener, snapshot } = tokio::select! {
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                Some(change) = changes.recv() => change,
                () = self.kept_going("accept", || self.accept(&entrance)) => break,
            };
            // There may be room for more now.
            self.closed.notify_waiters();
            let Some(listener) = listener else {
                *entrance.way.last.borrow_mut() = snapshot;
                continue;
            };
            let old = mem::replace(&mut entrance, Entrance::new(listener, snapshot));
            let closing = Closing::count(Rc::clone(&self));
            let (worker, phase) = (Rc::clone(&self), phase.clone());
            tokio::task::spawn_local(async move {
                worker.close(old, phase).await;
                drop(closing);
            });
        }
        self.close(entrance, phase.clone()).await;
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => {}
            () = self.all_closed() => {}
        }
    }

    /// Lets nobody in here any more, and has those who came this way leave after what they are at.
    async fn close(self: &Rc<Self>, entrance: Entrance, mut phase: watch::Receiver<Phase>) {
        entrance.way.ending.set(true);
        self.timers.interrupt_idle(&entrance.way.ending);
        let half_in = entrance.listener.turn_away();
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => {}
            () = tokio::time::sleep(half_in) => {}
            () = self.kept_going("accept", || self.accept(&entrance)) => {}
        }
        let take = |stream, addr| self.spawn(stream, addr, &entrance.way);
        entrance.listener.accept_waiting(take).await;
    }

    async fn accept(self: &Rc<Self>, entrance: &Entrance) {
        loop {
            self.wait_for_room().await;
            faults::strike("accept");
            match entrance.listener.accept().await {
                Ok((stream, addr)) => self.spawn(stream, addr, &entrance.way),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            let inbound = &self.settings().snapshot.config.inbound;
            if self.open.get() < inbound.max_connections.div_ceil(inbound.workers) {
                return;
            }
            closed.await;
        }
    }

    /// Takes a new connection on. A panic ends the task of one connection and nothing else.
    fn spawn(self: &Rc<Self>, stream: Stream, addr: Option<SocketAddr>, way: &Rc<Way>) {
        let worker = Rc::clone(self);
        let counted = Open::count(Rc::clone(self));
        let way = Rc::clone(way);
        tokio::task::spawn_local(async move {
            if stream.send_at_once().is_ok() {
                let serving = worker.serve_stream(stream, addr, way, counted);
                worker.leave_idle("connection", caught(serving).await);
            }
        });
    }

    /// Serves one connection, from its first byte until it idles or ends.
    async fn serve_stream(
        self: &Rc<Self>,
        stream: Stream,
        addr: Option<SocketAddr>,
        way: Rc<Way>,
        counted: Open,
    ) -> Option<Client> {
        match self.receive(stream, addr, &way).await? {
            (stream, Protocol::Http1, peer) => {
                let connection = ServerConnection::new(stream, Rc::clone(&peer.ending));
                let client = Client {
                    connection,
                    peer,
                    counted,
                };
                self.serve(client).await
            }
            (stream, Protocol::Http2, peer) => {
                self.serve_http2(stream, Vec::new(), peer).await;
                None
            }
        }
    }

    /// What serves requests is large, and most connections wait most of the time: an idle one moves to a task that can
    /// do nothing but wait, and back when there is something to do.
    fn leave_idle(self: &Rc<Self>, what: &'static str, served: Result<Option<Client>, Panicked>) {
        let Some(mut client) = self.survived(what, served).flatten() else {
            return;
        };
        client.peer.shown.forget();
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if worker.has_request(&mut client).await {
                worker.take_up(client);
            }
        });
    }

    fn take_up(self: &Rc<Self>, client: Client) {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let served = caught(worker.serve(client)).await;
            worker.leave_idle("connection", served);
        });
    }

    /// Waits for a request without any memory for it; false if there is none to be served.
    async fn has_request(&self, client: &mut Client) -> bool {
        let mut limit = self.settings().snapshot.config.inbound.idle_timeout;
        let ending = &client.peer.ending;
        loop {
            let was_ending = ending.get();
            if was_ending {
                // One last call: a request may be under way, and its answer will say that it is the last.
                limit = KEEP_BUFFERS;
            }
            let idle = client.connection.idle();
            match self.timers.within_idle(limit, ending, idle).await {
                Ok(received) => return received.unwrap_or(false),
                Err(_) if ending.get() && !was_ending => {}
                Err(_) => return false,
            }
        }
    }

    /// Serves the requests of one connection, one after the other. Gives it back if it idles.
    async fn serve(self: &Rc<Self>, mut client: Client) -> Option<Client> {
        loop {
            let connection = &mut client.connection;
            if !connection.has_more() {
                let Some(_kept) = Kept::one_more(&self.kept) else {
                    return Some(client);
                };
                // Most requests come soon and find all still there. Until then one may well be
                // under way, so that not even a drain ends the wait: it is heard, and its answer says that it is the last.
                match self.timers.within(KEEP_BUFFERS, connection.receive()).await {
                    Ok(Ok(true)) => {}
                    Ok(_) => return None,
                    Err(_) if client.peer.ending.get() => return None,
                    Err(_) => return Some(client),
                }
            }
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
                    exchange::exchange(self, &settings, &client.peer, request).await;
                }
                Ok(Err(NoHead::Invalid(cause))) => {
                    let responder = Responder::Http1(connection.refuse());
                    exchange::refuse(self, &settings, &client.peer, &cause, responder).await;
                }
                Ok(Err(NoHead::Http2)) => {
                    let (stream, prefix) = client.connection.into_parts();
                    self.serve_http2(stream, prefix, client.peer).await;
                    return None;
                }
                Ok(Err(NoHead::Closed | NoHead::Truncated | NoHead::Io(_))) => return None,
                Err(_) => {
                    let responder = Responder::Http1(connection.refuse());
                    exchange::refuse_slow(self, &settings, &client.peer, responder).await;
                }
            }
            let reusable = self
                .timers
                .within(LEFTOVER_TIMEOUT, connection.is_reusable())
                .await;
            if reusable != Ok(true) {
                let lingering = connection.linger(LINGER_LIMIT);
                let _ends_either_way = self.timers.within(LEFTOVER_TIMEOUT, lingering).await;
                return None;
            }
        }
    }

    async fn sweep_pool(&self) {
        self.cells.are_of_this_thread();
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.pool.sweep();
            // Whoever serves nobody holds on to no configuration that is used no more, nor to its routes.
            let _current = self.settings();
        }
    }

    async fn all_closed(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.open.get() == 0 && self.closing.get() == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// A configuration that has come into use, and the listener that it wants if that is another.
pub(super) struct Change {
    pub(super) listener: Option<Bound>,
    pub(super) snapshot: Arc<Snapshot>,
}

/// Where connections come in.
pub(super) struct Entrance {
    listener: Listener,
    way: Rc<Way>,
}

impl Entrance {
    pub(super) fn new(listener: Bound, snapshot: Arc<Snapshot>) -> Self {
        Self {
            listener: listener.join(),
            way: Rc::new(Way {
                ending: Rc::default(),
                last: RefCell::new(snapshot),
            }),
        }
    }
}

/// What those who came in at one place have in common.
pub(super) struct Way {
    /// Whether they are to leave after what they are at.
    pub(super) ending: Rc<Cell<bool>>,
    /// The last configuration that had them come in here.
    last: RefCell<Arc<Snapshot>>,
}

impl Way {
    /// The configuration by which a connection begins (PROXY header, TLS): the current one, unless that has them come in
    /// elsewhere. A port keeps its protocol until it is closed.
    pub(super) fn snapshot(&self, current: &Arc<Snapshot>) -> Arc<Snapshot> {
        let mut last = self.last.borrow_mut();
        if !Arc::ptr_eq(&last, current)
            && last.config.inbound.listen == current.config.inbound.listen
        {
            *last = Arc::clone(current);
        }
        Arc::clone(&last)
    }
}

/// Counts an entrance that is being closed, because clients may still come out of its queue.
struct Closing(Rc<Worker>);

impl Closing {
    fn count(worker: Rc<Worker>) -> Self {
        worker.closing.set(worker.closing.get() + 1);
        Self(worker)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.set(self.0.closing.get() - 1);
        self.0.closed.notify_waiters();
    }
}

/// A client's connection, its other end, and its place among those that are open.
struct Client {
    connection: ServerConnection,
    peer: Peer,
    #[expect(dead_code, reason = "counts as long as it lives")]
    counted: Open,
}

/// Counts a client that keeps what serves its requests between two of them.
struct Kept<'a>(&'a Cell<usize>);

impl<'a> Kept<'a> {
    /// `None` if there are enough.
    fn one_more(count: &'a Cell<usize>) -> Option<Self> {
        (count.get() < MAX_KEPT).then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
        self.0.closed.notify_waiters();
    }
}
