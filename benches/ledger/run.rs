//! One run: an app, one sidecar or two, and users whose messages keep coming while the sidecars are killed.
//!
//! `make ledger` runs it long and prints what came of it, a test runs it short.

mod app;
pub(crate) mod book;
mod chance;
#[path = "../proxy/process.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
pub(crate) mod process;
mod redis;
mod sender;
mod sidecar;
pub(crate) mod wechat;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use app::{App, Health};
use book::{Balance, Book};
use chance::Chance;
use process::free_address;
use redis::Redis;
use sender::Sender;
use sidecar::{Place, Plan, Sidecar};
use wechat::Account;

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
/// How long a sidecar lives, once it is ready.
const LIFE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_200));
/// And if another one delivers what it leaves behind, which that one begins to do some seconds later.
const SHARED_LIFE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(12));
/// After one kill of so many it is gone for a while; longer than a message is tried, at times.
const ABSENT: usize = 6;
const ABSENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(2_500));
/// One kill of so many comes while the sidecar starts.
const EARLY: usize = 5;
/// How long the app is well, and how long it is not, so that there is nearly always something that waits.
const PEACE: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2_500));
const TROUBLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(2_000));
/// How long it may take until nothing waits any more, once nothing comes.
const LAST_PATIENCE: Duration = Duration::from_secs(120);
/// The sidecar gives up sooner than a slow app answers, and does not pause for long.
const PUSH: &str = "timeout = \"1s\"\nretry_cap = \"1s\"\n";
/// So much of what was odd is shown.
const SHOWN: usize = 10;

/// What is to be done.
pub(crate) struct Options {
    pub(crate) kills: usize,
    /// Messages a second, of all users.
    pub(crate) rate: f64,
    pub(crate) users: usize,
    pub(crate) seed: u64,
    pub(crate) inbox: Inbox,
    /// For files, which whoever made it removes.
    pub(crate) directory: PathBuf,
}

/// Where messages wait.
#[allow(dead_code, reason = "the test has a journal")]
pub(crate) enum Inbox {
    /// One sidecar, with a journal.
    Journal,
    /// One sidecar, with nothing that survives it. It must lose messages, or the ledger would not see it if one did.
    Memory,
    /// Two sidecars, which share a Redis that is started for them.
    OwnRedis,
    /// Two sidecars, which share this Redis.
    RedisAt(String),
}

/// What came of it.
pub(crate) struct Report {
    seed: u64,
    took: Duration,
    tally: Tally,
    balance: Balance,
    /// How many messages wait at the end, and how many were given up.
    waiting: f64,
    dead: f64,
    sidecars: usize,
}

/// What is counted on the way.
#[derive(Default)]
struct Tally {
    kills: usize,
    early: usize,
    troubles: usize,
    /// From the start of a process that follows on one that was killed.
    ready: Vec<Duration>,
    first_delivery: Vec<Duration>,
    /// What the sidecars logged.
    said: String,
}

/// What the tasks share.
struct Run {
    app: App,
    book: Arc<Mutex<Book>>,
    push: String,
    sections: String,
    life: (Duration, Duration),
    is_shared: bool,
    /// Kills that are left.
    kills: AtomicUsize,
    lives: AtomicU32,
    tally: Mutex<Tally>,
}

/// Runs it to its end.
///
/// # Errors
/// If it could not be run: that says nothing about the sidecar's deliveries, unless a sidecar ended by itself.
pub(crate) fn run(options: &Options) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("there is no runtime: {error}"))?;
    runtime.block_on(Run::through(options))
}

impl Run {
    async fn through(options: &Options) -> Result<Report, String> {
        let began = Instant::now();
        let mut chance = Chance::new(options.seed);
        let (url, _server) = match &options.inbox {
            Inbox::Journal | Inbox::Memory => (None, None),
            Inbox::RedisAt(url) => (Some(url.clone()), None),
            Inbox::OwnRedis => {
                let server = Redis::start(&options.directory, "always")?;
                (Some(server.url()), Some(server))
            }
        };
        let book = Arc::<Mutex<Book>>::default();
        let run = Arc::new(Self {
            app: App::start(free_address(), Arc::clone(&book), chance.next())?,
            book,
            push: match options.inbox {
                Inbox::Journal => {
                    format!("{PUSH}journal = \"{}\"\n", options.directory.display())
                }
                _ => PUSH.to_owned(),
            },
            sections: url.as_ref().map_or(String::new(), |url| {
                format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\n")
            }),
            life: match url {
                None => LIFE,
                Some(_) => SHARED_LIFE,
            },
            is_shared: url.is_some(),
            kills: AtomicUsize::new(options.kills),
            lives: AtomicU32::new(0),
            tally: Mutex::default(),
        });
        let names: &[&str] = match url {
            None => &["sidecar"],
            Some(_) => &["sidecar-a", "sidecar-b"],
        };
        let places: Vec<_> = names
            .iter()
            .map(|name| Place::new(name, &options.directory))
            .collect();
        let (end, ended) = watch::channel(false);
        let mut lives = JoinSet::new();
        for place in &places {
            let chance = Chance::new(chance.next());
            lives.spawn(Arc::clone(&run).lives(place.clone(), chance));
        }
        let mut senders = run.send(options, &places, &mut chance, &ended);
        let troubles = tokio::spawn(Arc::clone(&run).troubles(Chance::new(chance.next()), ended));
        if let Some(place) = url.as_deref().and_then(redis::place_of) {
            run.has_inbox_in(place).await?;
        }
        let mut last = Vec::new();
        while let Some(sidecar) = lives.join_next().await {
            last.push(sidecar.map_err(|error| error.to_string())??);
        }
        end.send_replace(true);
        while let Some(sender) = senders.join_next().await {
            sender.map_err(|error| format!("a sender panicked: {error}"))?;
        }
        troubles
            .await
            .map_err(|error| format!("the app's troubles panicked: {error}"))?;
        let (waiting, dead) = empty(&last).await?;
        let sidecars = last.len();
        for sidecar in last {
            let said = sidecar.stop();
            run.tally().said.push_str(&said);
        }
        let balance = run.book().balance();
        let tally = std::mem::take(&mut *run.tally());
        Ok(Report {
            seed: options.seed,
            took: began.elapsed(),
            tally,
            balance,
            waiting,
            dead,
            sidecars,
        })
    }

    fn send(
        &self,
        options: &Options,
        places: &[Place],
        chance: &mut Chance,
        ended: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let account = Arc::new(Account::new());
        let mut senders = JoinSet::new();
        for user in 0..options.users {
            let sender = Sender {
                user,
                account: Arc::clone(&account),
                book: Arc::clone(&self.book),
                places: places.iter().map(|place| place.inbound).collect(),
                chance: Chance::new(chance.next()),
                every: Duration::from_secs_f64(options.users as f64 / options.rate),
            };
            senders.spawn(sender.run(ended.clone()));
        }
        senders
    }

    /// One life of a sidecar after the other, until there are no kills left; the last one goes on.
    async fn lives(self: Arc<Self>, place: Place, mut chance: Chance) -> Result<Sidecar, String> {
        let mut usual = Duration::from_millis(50);
        for lived in 0.. {
            let life = self.lives.fetch_add(1, Ordering::SeqCst);
            let plan = Plan {
                app: self.app.place,
                env: &format!("life-{life}"),
                workers: "\"auto\"",
                log_level: "warn",
                push: &self.push,
                sections: &self.sections,
            };
            let era = self.app.era();
            let mut sidecar = place.start(Command::new(BINARY), &plan)?;
            let is_last = !self.take_a_kill();
            let is_early = !is_last && chance.one_in(EARLY);
            let born = sidecar.born;
            if is_early {
                sleep(chance.between(Duration::ZERO, usual)).await;
            } else {
                usual = sidecar.ready().await?;
                if lived > 0 {
                    self.tally().ready.push(usual);
                }
                sleep(chance.between(self.life.0, self.life.1)).await;
            }
            if is_last {
                return Ok(sidecar);
            }
            let said = sidecar.kill().await?;
            let first = {
                let mut book = self.book();
                book.died(life);
                book.first_of(life)
            };
            {
                let mut tally = self.tally();
                tally.kills += 1;
                tally.early += usize::from(is_early);
                tally.said.push_str(&said);
                // In trouble it is the app that is measured; what is delivered for another takes longer than its troubles.
                let in_peace = |of: u64| of == era && era.is_multiple_of(2);
                if let Some((at, of)) = first
                    && lived > 0
                    && (in_peace(of) || self.is_shared)
                {
                    tally.first_delivery.push(at - born);
                }
            }
            if chance.one_in(ABSENT) {
                sleep(chance.between(ABSENCE.0, ABSENCE.1)).await;
            }
        }
        unreachable!("kills run out")
    }

    fn take_a_kill(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.kills.fetch_update(set, fetch, take).is_ok()
    }

    /// The app has its own bad moments.
    async fn troubles(self: Arc<Self>, mut chance: Chance, mut ended: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = sleep(chance.between(PEACE.0, PEACE.1)) => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
            let kinds = [Health::Down, Health::Down, Health::Broken, Health::Slow];
            self.app.becomes(kinds[chance.below(kinds.len())]);
            self.tally().troubles += 1;
            sleep(chance.between(TROUBLE.0, TROUBLE.1)).await;
            self.app.becomes(Health::Well);
        }
    }

    /// Ends the run if the sidecar would keep its messages elsewhere.
    async fn has_inbox_in(&self, place: std::net::SocketAddr) -> Result<(), String> {
        let began = Instant::now();
        while self.book().entries() == 0 {
            if began.elapsed() > LAST_PATIENCE {
                return Err("no message arrives".to_owned());
            }
            sleep(Duration::from_millis(20)).await;
        }
        match redis::has_streams(place) {
            true => Ok(()),
            false => Err("this sidecar has no inbox in Redis; nothing to be shown".to_owned()),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until nothing waits; how many do in the end, and how many were given up.
async fn empty(sidecars: &[Sidecar]) -> Result<(f64, f64), String> {
    let began = Instant::now();
    loop {
        let (mut waiting, mut dead) = (0.0, 0.0);
        for sidecar in sidecars {
            let of = |value: Option<f64>| value.ok_or("the sidecar does not tell its metrics");
            waiting += of(sidecar.metric("wx_sidecar_push_inbox_depth").await)?;
            dead += of(sidecar.metric("wx_sidecar_push_dead_letters").await)?;
        }
        if waiting == 0.0 || began.elapsed() > LAST_PATIENCE {
            return Ok((waiting, dead));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Report {
    /// Whether nothing was lost, and nothing else was wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.balance.is_even() && self.waiting == 0.0 && self.dead == 0.0
    }

    /// What the sidecars logged.
    #[allow(dead_code, reason = "a test searches it for secrets")]
    pub(crate) fn said(&self) -> &str {
        &self.tally.said
    }

    fn errors(&self) -> Vec<&str> {
        let lines = self.tally.said.lines();
        lines
            .filter(|line| line.contains("\"level\":\"ERROR\""))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, balance, .. } = self;
        writeln!(
            f,
            "seed {}: {} sidecar(s) killed {} times, {} of them while starting; the app in trouble {} times; {:.0} s\n",
            self.seed,
            self.sidecars,
            tally.kills,
            tally.early,
            tally.troubles,
            self.took.as_secs_f64(),
        )?;
        let mut row =
            |what: &str, count: usize, remark: &str| writeln!(f, "{what:<62}{count:>9}  {remark}");
        row("sent", balance.sent, "")?;
        row("  acknowledged", balance.acknowledged, "")?;
        row(
            "  refused or unanswered in all three tries",
            balance.sent - balance.acknowledged,
            &format!("{} of them delivered all the same", balance.beyond),
        )?;
        row("  sent again on purpose", balance.repeated, "")?;
        row(
            "  tries that were answered after 5 s or never",
            balance.late,
            "",
        )?;
        row("delivered", balance.delivered, "")?;
        row(
            "  more than once",
            balance.twice,
            &format!("{} times too many, none under another id", balance.extra)
                .replace("none", &count_or_none(balance.renamed)),
        )?;
        row(
            "  more than once without a kill or trouble",
            balance.needless,
            "must be 0",
        )?;
        row("  ids that two messages had", balance.shared, "must be 0")?;
        row(
            "lost: acknowledged and never delivered",
            balance.lost.len(),
            "must be 0",
        )?;
        row(
            "out of order within a user",
            balance.disordered.len(),
            "must be 0",
        )?;
        row("still waiting", self.waiting as usize, "must be 0")?;
        row("dead letters", self.dead as usize, "must be 0")?;
        row(
            "anything else that should not have been",
            balance.odd.len(),
            "must be 0",
        )?;
        row("errors in the sidecars' logs", self.errors().len(), "")?;
        writeln!(
            f,
            "\nstart after a kill, ms{:>15}{:>9}{:>9}",
            "median", "max", "starts"
        )?;
        for (what, times) in [
            ("  to /readyz 200", &tally.ready),
            ("  to the first delivery", &tally.first_delivery),
        ] {
            let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
            times.sort_by(f64::total_cmp);
            let (median, most) = match times.last() {
                None => (0.0, 0.0),
                Some(most) => (times[times.len() / 2], *most),
            };
            writeln!(f, "{what:<24}{median:>13.1}{most:>9.1}{:>9}", times.len())?;
        }
        for (what, marks) in [
            ("lost", &balance.lost),
            ("out of order", &balance.disordered),
        ] {
            for (user, number) in marks.iter().take(SHOWN) {
                writeln!(f, "{what}: message {number} of user {user}")?;
            }
        }
        for odd in balance.odd.iter().take(SHOWN) {
            writeln!(f, "odd: {odd}")?;
        }
        for line in self.errors().into_iter().take(SHOWN) {
            writeln!(f, "logged: {line}")?;
        }
        Ok(())
    }
}

fn count_or_none(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        count => count.to_string(),
    }
}
