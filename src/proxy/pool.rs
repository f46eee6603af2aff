//! Idle connections to the app, kept by each worker for itself.
//!
//! A worker is one thread, so taking and putting needs no lock. The last connection put is the first taken: the others
//! grow old and are dropped, and the pool shrinks to what the load needs.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Upstream;
use crate::error::{Error, Kind};
use crate::net::Stream;
use crate::telemetry::requests::WorkerCells;
use crate::wire::UpstreamConnection;

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
    /// A worker has one or a few upstreams, so a list beats a map.
    shelves: RefCell<Vec<Shelf>>,
}

struct Shelf {
    upstream: Upstream,
    idle: Vec<Idle>,
}

struct Idle {
    /// Boxed, because it is handed on and back with every request.
    connection: Box<UpstreamConnection>,
    since: Instant,
    until: Instant,
}

impl Pool {
    pub(crate) fn new(cells: Arc<WorkerCells>) -> Self {
        Self {
            cells,
            shelves: RefCell::default(),
        }
    }

    /// An idle connection that is still good. A request that must not be sent twice gets only one that was in use a moment
    /// ago, because an older one may be closing right now.
    pub(crate) fn take(
        &self,
        upstream: &Upstream,
        repeatable: bool,
    ) -> Option<Box<UpstreamConnection>> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves
            .iter_mut()
            .find(|shelf| shelf.upstream == *upstream)?;
        let now = Instant::now();
        while let Some(idle) = shelf.idle.pop() {
            let fresh = repeatable || now - idle.since < FRESH;
            if now < idle.until && idle.connection.is_alive() {
                if fresh {
                    return Some(idle.connection);
                }
                // Good for another request, though not for this one, and those below are older.
                shelf.idle.push(idle);
                return None;
            }
        }
        None
    }

    /// Keeps a connection for later.
    pub(crate) fn put(&self, upstream: &Upstream, connection: Box<UpstreamConnection>) {
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
        let mut shelves = self.shelves.borrow_mut();
        match shelves.iter_mut().find(|shelf| shelf.upstream == *upstream) {
            Some(shelf) if shelf.idle.len() < MAX_IDLE => shelf.idle.push(idle),
            Some(_) => {}
            None => shelves.push(Shelf {
                upstream: upstream.clone(),
                idle: vec![idle],
            }),
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(
        &self,
        upstream: &Upstream,
        timeout: Duration,
    ) -> Result<Box<UpstreamConnection>, Error> {
        let unreachable = |cause: std::io::Error| {
            let detail = "no connection to the app; is it running and listening?";
            Error::upstream(Kind::UpstreamUnreachable, detail)
                .with_hint("check [inbound] upstream in sidecar.toml")
                .with_cause(cause)
        };
        self.cells.upstream_connects.add(1);
        Stream::connect(upstream, timeout)
            .await
            .map(|stream| Box::new(UpstreamConnection::new(stream)))
            .map_err(unreachable)
    }

    /// Drops what has idled too long or was closed by the app, and takes the memory of what stays.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for shelf in self.shelves.borrow_mut().iter_mut() {
            shelf
                .idle
                .retain(|idle| now < idle.until && idle.connection.is_alive());
            for idle in &mut shelf.idle {
                if now - idle.since >= FRESH {
                    idle.connection.release();
                }
            }
        }
    }
}
