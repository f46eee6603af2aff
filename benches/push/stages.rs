//! What is measured: how fast messages are acknowledged, and what a hundred thousand that wait cost.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::app::App;
use crate::load::{self, Press};
use crate::machine::Machine;
use crate::process::{CpuTime, Memory};
use crate::redis::has_streams;
use crate::sidecar::{Place, Plan, Sidecar};
use crate::store::{Kind, Store};

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
/// How many connections bring messages.
pub(crate) const CONNECTIONS: usize = 64;
/// The length of a short message, in bytes; most are of this kind.
pub(crate) const SHORT: usize = 400;
/// Before anything is counted.
const WARM_UP: usize = 500;
/// More than will ever wait here; an app that comes back is noticed within a second.
const LIMITS: &str = "max_waiting = 1000000\nmax_bytes = \"2GiB\"\nretry_cap = \"1s\"\n";
/// Bytes of a write of which an fsync follows, and how often that is done.
const WRITTEN: usize = 4096;
const SYNCS: usize = 200;

/// What all stages need.
pub(crate) struct Bench<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) directory: &'a Path,
    pub(crate) press: Press,
    pub(crate) stores: usize,
}

/// How messages were acknowledged, in one round.
pub(crate) struct Acknowledged {
    /// At the rate that was asked for, in µs.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// As fast as they are answered: messages a second, and µs.
    pub(crate) rate: f64,
    pub(crate) full_p50: f64,
    pub(crate) full_p99: f64,
    /// Messages a second until the app has the last.
    pub(crate) through: f64,
    /// Of the sidecar for one message, from the wire to the app, in µs; and of Redis.
    pub(crate) cpu: f64,
    pub(crate) of_redis: f64,
    /// Tries that were not acknowledged.
    pub(crate) refused: usize,
}

/// What waiting messages cost.
pub(crate) struct Backlog {
    /// Resident, in KiB: before any message, and when all wait.
    pub(crate) idle: u64,
    pub(crate) waiting: u64,
    /// Of the files, in bytes.
    pub(crate) size: u64,
    /// The app came back.
    pub(crate) caught_up: CaughtUp,
    /// The sidecar was killed and started again, with the app there.
    pub(crate) recovered: Option<Recovered>,
}

/// From the first delivery to the last.
pub(crate) struct CaughtUp {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Of the sidecar for one message, in µs.
    pub(crate) cpu: f64,
}

/// A start with messages in the journal.
pub(crate) struct Recovered {
    pub(crate) ready: Duration,
    pub(crate) first: Duration,
    pub(crate) caught_up: CaughtUp,
    /// Resident when all were delivered, the most there was, in KiB.
    pub(crate) peak: u64,
}

impl Bench<'_> {
    /// `None` if this sidecar has no such inbox.
    pub(crate) async fn acknowledge(
        &mut self,
        kind: Kind,
        length: usize,
        rate: f64,
        counts: (usize, usize),
    ) -> Result<Option<Acknowledged>, String> {
        let (store, place) = self.open(kind)?;
        let mut app = App::new();
        app.come().await?;
        let mut sidecar = self.start(&store, &place, &app)?;
        sidecar.ready().await?;
        let warm_up = Rc::new(self.press.print(WARM_UP, length));
        load::send(place.inbound, &warm_up, CONNECTIONS, None).await?;
        app.has(WARM_UP).await?;
        if !is_kept(&store) {
            return Ok(None);
        }
        let (few, many) = counts;
        let steady = Rc::new(self.press.print(few, length));
        let steady = load::send(place.inbound, &steady, CONNECTIONS, Some(rate)).await?;
        app.has(WARM_UP + few).await?;
        settled(&sidecar).await?;

        let pushes = Rc::new(self.press.print(many, length));
        let (tree, servers) = (sidecar.tree(), servers(&store));
        let before = (CpuTime::of(&tree), CpuTime::of(&servers));
        let began = Instant::now();
        let full = load::send(place.inbound, &pushes, CONNECTIONS, None).await?;
        app.has(WARM_UP + few + many).await?;
        let through = app.times().map_or(began, |(_, last)| last) - began;
        settled(&sidecar).await?;
        let each =
            |pids: &[u32], before| CpuTime::of(pids).since(before).microseconds() / many as f64;
        let (cpu, of_redis) = (each(&tree, before.0), each(&servers, before.1));
        sidecar.kill().await?;
        Ok(Some(Acknowledged {
            p50: steady.quantile(0.5),
            p99: steady.quantile(0.99),
            rate: full.rate(),
            full_p50: full.quantile(0.5),
            full_p99: full.quantile(0.99),
            through: many as f64 / through.as_secs_f64(),
            cpu,
            of_redis,
            refused: steady.refused + full.refused,
        }))
    }

    /// The app is away while so many messages come. `None` if this sidecar has no such inbox.
    pub(crate) async fn backlog(
        &mut self,
        kind: Kind,
        count: usize,
    ) -> Result<Option<Backlog>, String> {
        let (store, place) = self.open(kind)?;
        let mut app = App::new();
        let mut sidecar = self.start(&store, &place, &app)?;
        sidecar.ready().await?;
        let tree = sidecar.tree();
        let idle = Memory::of(&tree).now;
        self.fill(&place, count).await?;
        if !is_kept(&store) {
            return Ok(None);
        }
        let (waiting, size) = (Memory::of(&tree).now, store.size());
        let before = CpuTime::of(&tree);
        app.come().await?;
        let caught_up = caught_up(&app, &sidecar, count, before).await?;
        app.go().await;
        let recovered = match kind.is_durable() {
            false => None,
            true => Some(
                self.recover(&store, &place, &mut app, sidecar, count)
                    .await?,
            ),
        };
        Ok(Some(Backlog {
            idle,
            waiting,
            size,
            caught_up,
            recovered,
        }))
    }

    async fn recover(
        &mut self,
        store: &Store,
        place: &Place,
        app: &mut App,
        sidecar: Sidecar,
        count: usize,
    ) -> Result<Recovered, String> {
        self.fill(place, count).await?;
        sidecar.kill().await?;
        app.come().await?;
        let mut sidecar = self.start(store, place, app)?;
        let ready = sidecar.ready().await?;
        let caught_up = caught_up(app, &sidecar, count, CpuTime::default()).await?;
        let first = app.times().map_or(sidecar.born, |(first, _)| first);
        Ok(Recovered {
            ready,
            first: first - sidecar.born,
            caught_up,
            peak: Memory::of(&sidecar.tree()).peak,
        })
    }

    async fn fill(&mut self, place: &Place, count: usize) -> Result<(), String> {
        // Not all at once: a signature is good for five minutes, and this is memory too.
        let mut left = count;
        while left > 0 {
            let some = left.min(20_000);
            let pushes = Rc::new(self.press.print(some, SHORT));
            load::send(place.inbound, &pushes, CONNECTIONS, None).await?;
            left -= some;
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind) -> Result<(Store, Place), String> {
        self.stores += 1;
        let store = Store::open(kind, self.directory, self.stores)?;
        Ok((store, Place::new("sidecar", self.directory)))
    }

    fn start(&self, store: &Store, place: &Place, app: &App) -> Result<Sidecar, String> {
        let plan = Plan {
            app: app.place,
            env: "bench",
            workers: "1",
            log_level: "error",
            push: &format!("{LIMITS}{}", store.push()),
            sections: &store.sections(),
        };
        place.start(self.machine.on_proxy_core(BINARY), &plan)
    }
}

/// Waits until the app has them all. The CPU is counted from `before`.
async fn caught_up(
    app: &App,
    sidecar: &Sidecar,
    count: usize,
    before: CpuTime,
) -> Result<CaughtUp, String> {
    app.has(count).await?;
    settled(sidecar).await?;
    let cpu = CpuTime::of(&sidecar.tree()).since(before);
    let (first, last) = app.times().ok_or("the app got nothing")?;
    Ok(CaughtUp {
        rate: count as f64 / (last - first).as_secs_f64(),
        cpu: cpu.microseconds() / count as f64,
    })
}

/// Waits until the inbox knows that it is empty.
async fn settled(sidecar: &Sidecar) -> Result<(), String> {
    for _ in 0..1_000 {
        if sidecar.metric("wx_sidecar_push_inbox_depth").await == Some(0.0) {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("the app has all messages, and the inbox is not empty".to_owned())
}

/// Whether messages are where they were meant to be.
fn is_kept(store: &Store) -> bool {
    let mut servers = store.server.iter();
    servers.all(|server| has_streams(server.place))
}

fn servers(store: &Store) -> Vec<u32> {
    store.server.as_ref().map_or(Vec::new(), |one| one.tree())
}

/// How long a write with an fsync takes where the journal is: the median and p99, in µs.
pub(crate) fn fsync(directory: &Path) -> std::io::Result<(f64, f64)> {
    use std::io::Write as _;
    let path = directory.join("fsync");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[7; WRITTEN])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    Ok((times[SYNCS / 2], times[SYNCS * 99 / 100]))
}
