//! Idle connections to the app, kept by each worker for itself.
//!
//! A worker is one thread, so taking and putting needs no lock. The last connection put is the first taken: the others
//! grow old and are dropped, and the pool shrinks to what the load needs.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ANSWER_HEAD;
use crate::config::Upstream;
use crate::error::{Error, Kind};
use crate::net::Stream;
use crate::resilience::RetryBudget;
use crate::telemetry::requests::{UpstreamOpen, WorkerCells};
use crate::wire::http2::Multiplexed;
use crate::wire::{UpstreamConnection, http1};

/// How many connections may idle, per upstream and worker.
const MAX_IDLE: usize = 256;
/// How long a connection may idle if the app does not say.
const DEFAULT_IDLE: Duration = Duration::from_secs(60);
/// How long a connection may have been idle to carry a request that must not be sent twice. Servers close idle
/// connections after 2 s (gunicorn) or more; within one second none of them is about to.
const FRESH: Duration = Duration::from_secs(1);

/// The idle connections of a worker.
pub(crate) struct Pool {
    cells: Arc<WorkerCells>,
    retries: RetryBudget,
    /// A worker has one or a few upstreams, so a list beats a map.
    shelves: RefCell<Vec<Shelf>>,
}

struct Shelf {
    upstream: Upstream,
    idle: Vec<Idle>,
    /// The connection that all requests share, to an app that speaks HTTP/2.
    shared: Option<Shared>,
    /// Held by whoever opens that; the others wait for it and do not open more.
    opening: Rc<Mutex<()>>,
}

struct Shared {
    connection: Multiplexed,
    used: Instant,
}

struct Idle {
    /// Boxed, because it is handed on and back with every request.
    connection: Box<http1::UpstreamConnection>,
    since: Instant,
    until: Instant,
}

impl Shelf {
    /// A stream of the shared connection, if there is one that is good.
    fn stream(&mut self, now: Instant) -> Option<UpstreamConnection> {
        let shared = self.shared.as_mut()?;
        shared.used = now;
        let open = shared.connection.is_open();
        open.then(|| UpstreamConnection::Http2(Box::new(shared.connection.stream())))
    }
}

impl Pool {
    pub(crate) fn new(cells: Arc<WorkerCells>) -> Self {
        Self {
            cells,
            retries: RetryBudget::new(),
            shelves: RefCell::default(),
        }
    }

    /// An idle connection that is still good. A request that must not be sent twice gets only one that was in use a moment
    /// ago, because an older one may be closing right now.
    pub(crate) fn take(&self, upstream: &Upstream, repeatable: bool) -> Option<UpstreamConnection> {
        self.retries.deposit();
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves
            .iter_mut()
            .find(|shelf| shelf.upstream == *upstream)?;
        let now = Instant::now();
        if shelf.shared.is_some() {
            return shelf.stream(now);
        }
        while let Some(idle) = shelf.idle.pop() {
            self.cells.upstream_idle.sub(1);
            let fresh = repeatable || now - idle.since < FRESH;
            if now < idle.until && idle.connection.is_alive() {
                if fresh {
                    return Some(UpstreamConnection::Http1(idle.connection));
                }
                // Good for another request, though not for this one, and those below are older.
                shelf.idle.push(idle);
                self.cells.upstream_idle.add(1);
                return None;
            }
        }
        None
    }

    /// Whether a request whose pooled connection turned out dead may be sent again; `cause` is told if not.
    pub(crate) fn retry_after(&self, cause: Error) -> Result<(), Error> {
        if self.retries.withdraw(Instant::now()) {
            self.cells.retries_sent.add(1);
            return Ok(());
        }
        self.cells.retries_refused.add(1);
        Err(cause)
    }

    /// Keeps a connection for later, if it can carry another exchange. The last request was sent to its end.
    pub(crate) fn put(&self, upstream: &Upstream, connection: UpstreamConnection) {
        let UpstreamConnection::Http1(connection) = connection else {
            return;
        };
        if !connection.is_reusable() {
            return;
        }
        let since = Instant::now();
        // A second less than the app says, so that we let go first.
        let hint = connection
            .keep_alive_hint()
            .map(|hint| hint.saturating_sub(Duration::from_secs(1)));
        let until = since + hint.unwrap_or(DEFAULT_IDLE).min(DEFAULT_IDLE);
        let idle = Idle {
            connection,
            since,
            until,
        };
        self.on_shelf(upstream, |shelf| {
            if shelf.idle.len() < MAX_IDLE {
                shelf.idle.push(idle);
                self.cells.upstream_idle.add(1);
            }
        });
    }

    fn on_shelf<T>(&self, upstream: &Upstream, change: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelves = self.shelves.borrow_mut();
        if let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.upstream == *upstream) {
            return change(shelf);
        }
        let mut shelf = Shelf {
            upstream: upstream.clone(),
            idle: Vec::new(),
            shared: None,
            opening: Rc::default(),
        };
        let changed = change(&mut shelf);
        shelves.push(shelf);
        changed
    }

    /// Opens a connection.
    pub(crate) async fn connect(
        &self,
        upstream: &Upstream,
        timeout: Duration,
    ) -> Result<UpstreamConnection, Error> {
        let unreachable = |cause: io::Error| {
            let detail = (
                "no connection to the app; is it running and listening?",
                "无法连接后端应用；它是否已启动并在监听？",
            );
            Error::upstream(Kind::UpstreamUnreachable, detail)
                .with_hint((
                    "it is looked for where [inbound] upstream says, or `dev --upstream`",
                    "后端应用的地址由 [inbound] upstream 或 `dev --upstream` 指定",
                ))
                .with_cause(cause)
        };
        let connect = async {
            if matches!(upstream, Upstream::H2c { .. }) {
                return self.share(upstream, timeout).await;
            }
            self.cells.upstream_connects.add(1);
            let stream = Stream::connect(upstream, timeout).await?;
            let counted = UpstreamOpen::count(&self.cells);
            let connection = http1::UpstreamConnection::new(stream).with_companion(counted);
            Ok(UpstreamConnection::Http1(Box::new(connection)))
        };
        let connected = match tokio::time::timeout(timeout, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        connected.map_err(|cause| {
            self.cells.upstream_connect_failures.add(1);
            unreachable(cause)
        })
    }

    /// A stream of the shared connection, which is opened unless somebody else has just done so.
    async fn share(
        &self,
        upstream: &Upstream,
        timeout: Duration,
    ) -> io::Result<UpstreamConnection> {
        let opening = self.on_shelf(upstream, |shelf| Rc::clone(&shelf.opening));
        let _alone = opening.lock().await;
        if let Some(stream) = self.on_shelf(upstream, |shelf| shelf.stream(Instant::now())) {
            return Ok(stream);
        }
        self.cells.upstream_connects.add(1);
        let stream = Stream::connect(upstream, timeout).await?;
        let (connection, driver) = Multiplexed::handshake(stream, ANSWER_HEAD).await?;
        let counted = UpstreamOpen::count(&self.cells);
        tokio::task::spawn_local(async move {
            driver.await;
            drop(counted);
        });
        let stream = connection.stream();
        self.on_shelf(upstream, |shelf| {
            shelf.shared = Some(Shared {
                connection,
                used: Instant::now(),
            });
        });
        Ok(UpstreamConnection::Http2(Box::new(stream)))
    }

    /// Drops what has idled too long or was closed by the app, and takes the memory of what stays.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for shelf in self.shelves.borrow_mut().iter_mut() {
            shelf
                .shared
                .take_if(|shared| !shared.connection.is_open() || now - shared.used > DEFAULT_IDLE);
            let before = shelf.idle.len();
            shelf
                .idle
                .retain(|idle| now < idle.until && idle.connection.is_alive());
            let dropped = before - shelf.idle.len();
            self.cells.upstream_idle.sub(dropped as u64);
            for idle in &mut shelf.idle {
                if now - idle.since >= FRESH {
                    idle.connection.release();
                }
            }
        }
    }
}
