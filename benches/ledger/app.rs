//! The app: writes each message that it accepts into the ledger, and then answers 200.
//!
//! It has a thread, a listener and connections of its own, and gets into trouble when told to: it refuses connections, says
//! 500, or takes longer than it is waited for. When it goes down, everything that is under way breaks off, also between the
//! entry and the answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::book::{Book, Delivered, Mark};
use super::chance::Chance;
use super::wechat::openid;
use super::wire::{Message, Wire};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
/// How long it works on a message in good times.
const WORK: Duration = Duration::from_millis(3);
/// And in bad ones; the sidecar gives up earlier.
const SLOW: Duration = Duration::from_millis(1_500);

/// How the app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// It says 500.
    Broken,
    /// It writes a message down, and answers too late.
    Slow,
    /// Nobody listens.
    Down,
    Ended,
}

/// A running app. It ends with its handle.
pub(crate) struct App {
    pub(crate) place: SocketAddr,
    health: watch::Sender<Health>,
    era: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    book: Arc<Mutex<Book>>,
    health: watch::Receiver<Health>,
    era: Arc<AtomicU64>,
    seed: u64,
}

impl App {
    pub(crate) fn start(
        place: SocketAddr,
        book: Arc<Mutex<Book>>,
        seed: u64,
    ) -> Result<Self, String> {
        let (health, orders) = watch::channel(Health::Well);
        let era = Arc::<AtomicU64>::default();
        let desk = Desk {
            book,
            health: orders,
            era: Arc::clone(&era),
            seed,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the app has no runtime: {error}"))?;
        let thread = thread::Builder::new()
            .name("app".to_owned())
            .spawn(move || runtime.block_on(open(place, desk)))
            .map_err(|error| format!("the app has no thread: {error}"))?;
        Ok(Self {
            place,
            health,
            era,
            thread: Some(thread),
        })
    }

    /// Gets into trouble, or out of it.
    pub(crate) fn becomes(&self, health: Health) {
        // Both ends of trouble are told before they come, so that what is in between can be blamed on it.
        self.era.fetch_add(1, Ordering::SeqCst);
        self.health.send_replace(health);
    }

    /// An even number in good times; it changes with each beginning and end of trouble.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.health.send_replace(Health::Ended);
        // If it panicked, whoever looks at the ledger sees that it is short.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

async fn open(place: SocketAddr, mut desk: Desk) {
    let mut connections = JoinSet::new();
    loop {
        let health = *desk.health.borrow_and_update();
        match health {
            Health::Ended => return,
            Health::Down => {}
            _ => match TcpListener::bind(place).await {
                Ok(listener) => accept(&listener, &mut desk, &mut connections).await,
                Err(error) => panic!("the app cannot listen on its port: {error}"),
            },
        }
        connections.abort_all();
        while connections.join_next().await.is_some() {}
        if health == Health::Down && desk.health.changed().await.is_err() {
            return;
        }
    }
}

/// Takes connections until the app goes down.
async fn accept(listener: &TcpListener, desk: &mut Desk, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    desk.seed = desk.seed.wrapping_add(1);
                    connections.spawn(desk.clone().serve(Wire::of(stream)));
                }
            }
            changed = desk.health.changed() => {
                let down = matches!(*desk.health.borrow(), Health::Down | Health::Ended);
                if changed.is_err() || down {
                    return;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Desk {
    async fn serve(self, mut wire: Wire) {
        let mut chance = Chance::new(self.seed);
        // A sidecar that was killed breaks off wherever it is.
        while let Ok(Some(message)) = wire.read().await {
            let health = *self.health.borrow();
            if health == Health::Broken {
                if wire.write(BROKEN).await.is_err() {
                    return;
                }
                continue;
            }
            let entry = {
                let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
                match read(&message, self.era.load(Ordering::SeqCst)) {
                    Ok(delivered) => Some(book.deliver(delivered)),
                    Err(why) => {
                        book.is_odd(why);
                        None
                    }
                }
            };
            match health {
                Health::Slow => sleep(SLOW).await,
                _ => sleep(chance.between(Duration::ZERO, WORK)).await,
            }
            if wire.write(OK).await.is_err() {
                return;
            }
            if let Some(place) = entry {
                let era = self.era.load(Ordering::SeqCst);
                let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
                book.answered(place, era);
            }
        }
    }
}

/// A delivery as the ledger wants it.
fn read(message: &Message, era: u64) -> Result<Delivered, String> {
    let header = |name: &str| {
        let value = message.header(name);
        value.ok_or_else(|| format!("a delivery without {name}"))
    };
    let document: Value = serde_json::from_slice(&message.body)
        .map_err(|error| format!("a delivery that is not JSON: {error}"))?;
    let said = document.get("Content").or(document.get("SessionFrom"));
    let mark = said.and_then(Value::as_str).and_then(parse_mark);
    let mark = mark.ok_or_else(|| format!("a delivery that says nothing: {document}"))?;
    let whose = header("X-WX-OPENID")?;
    if whose != openid(mark.0) {
        return Err(format!("{mark:?} came as a message of {whose}"));
    }
    let env = header("X-WX-ENV")?;
    let life = env.strip_prefix("life-").and_then(|life| life.parse().ok());
    Ok(Delivered {
        mark,
        id: header("X-WX-Msg-Id")?.to_owned(),
        life: life.ok_or_else(|| format!("X-WX-ENV is {env:?}"))?,
        era,
        answered: None,
        at: Instant::now(),
    })
}

fn parse_mark(text: &str) -> Option<Mark> {
    let (user, number) = text.split_once(' ')?;
    Some((user.parse().ok()?, number.parse().ok()?))
}
