//! The app behind the inbox: takes whatever comes, at once, and counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::process::free_address;
use crate::wire::Wire;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// What is not there after this will not come.
const PATIENCE: Duration = Duration::from_secs(300);

/// An app that is there or not.
pub(crate) struct App {
    pub(crate) place: SocketAddr,
    count: Arc<Count>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Count {
    taken: AtomicUsize,
    /// When the first came, and the last.
    times: Mutex<Option<(Instant, Instant)>>,
}

impl App {
    pub(crate) fn new() -> Self {
        Self {
            place: free_address(),
            count: Arc::default(),
            listening: None,
        }
    }

    /// Listens, and counts from zero.
    pub(crate) async fn come(&mut self) -> Result<(), String> {
        self.count = Arc::default();
        let listener = TcpListener::bind(self.place).await;
        let listener = listener.map_err(|error| format!("the app cannot listen: {error}"))?;
        self.listening = Some(tokio::spawn(accept(listener, Arc::clone(&self.count))));
        Ok(())
    }

    /// Goes away, with all connections.
    pub(crate) async fn go(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _aborted = listening.await;
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.count.taken.load(Ordering::Relaxed)
    }

    /// When the first message came since it listens, and when the last one so far.
    pub(crate) fn times(&self) -> Option<(Instant, Instant)> {
        *self
            .count
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has so many.
    pub(crate) async fn has(&self, count: usize) -> Result<(), String> {
        let began = Instant::now();
        while self.taken() < count {
            if began.elapsed() > PATIENCE {
                return Err(format!("{} of {count} messages came", self.taken()));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, count: Arc<Count>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(Wire::of(stream), Arc::clone(&count)));
        }
    }
}

async fn serve(mut wire: Wire, count: Arc<Count>) {
    while let Ok(Some(_)) = wire.read().await {
        let now = Instant::now();
        {
            let mut times = count.times.lock().unwrap_or_else(PoisonError::into_inner);
            *times = Some((times.map_or(now, |(first, _)| first), now));
        }
        count.taken.fetch_add(1, Ordering::Relaxed);
        if wire.write(OK).await.is_err() {
            return;
        }
    }
}
