//! One run: clients that never stop asking, and a configuration that never stays.
//!
//! All of it is on one thread beside the sidecar, so what clients know of the configuration needs no lock. The next swap
//! comes as soon as the one before is seen to be in effect, or refused, and every phone has tokens of it.

use std::cell::{Cell, RefCell, RefMut};
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::sleep;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{self, Simulator};

use crate::app;
use crate::authority::Authority;
use crate::client::{Client, Habit, Tokens};
use crate::generation::{APP_SECRETS, APPID, FAULTS, Generation, Site};
use crate::process::free_address;
use crate::sidecar::Sidecar;
use crate::tally::{Report, Tally};
use crate::volume::Volume;

const KEEPERS: usize = 12;
const ANEW: usize = 2;
const RESUMERS: usize = 2;
const PHONES: usize = 6;
/// One reload of so many is invalid.
const FAULTY: usize = 10;
/// After so many reloads all has been used once, and memory is looked at.
const WARM: usize = 20;
/// How long a reload may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often one looks.
const POLL: Duration = Duration::from_millis(1);

const RELOADED: &str = "wx_sidecar_config_loads_total{result=\"success\"}";
const REFUSED: &str = "wx_sidecar_config_loads_total{result=\"failure\"}";
const PANICS: &str = "wx_sidecar_panics_total";

/// What is to be done.
pub(crate) struct Options {
    pub(crate) reloads: usize,
    /// At least.
    pub(crate) requests: usize,
    pub(crate) binary: PathBuf,
    /// For files, which whoever made it removes.
    pub(crate) directory: PathBuf,
}

/// What everybody knows.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) authority: Authority,
    pub(crate) wechat: Simulator,
    /// Every request that begins now is dealt with by this one or a later one.
    in_effect: Cell<Generation>,
    /// And by none that is later than this.
    upcoming: Cell<Generation>,
    /// The latest that an app has seen, and when it first did.
    seen: Cell<(Generation, Instant)>,
    /// Of each phone, the generation whose tokens it has.
    phones: [Cell<Generation>; PHONES],
    /// The tokens that a phone got last.
    tokens: RefCell<Option<Rc<Tokens>>>,
    over: Cell<bool>,
    tally: RefCell<Tally>,
}

/// Runs it to its end.
///
/// # Errors
/// If it could not be run, or the sidecar ended by itself.
pub(crate) fn run(options: &Options) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("there is no runtime: {error}"))?;
    runtime.block_on(LocalSet::new().run_until(through(options)))
}

async fn through(options: &Options) -> Result<Report, String> {
    let taken = TcpListener::bind("127.0.0.1:0").map_err(said("no port"))?;
    let wechat = wechat()?;
    let site = Site {
        inbound: [free_address(), free_address(), free_address()],
        outbound: [(); 8].map(|()| free_address()),
        admin: free_address(),
        apps: [free_address(), free_address()],
        wechat: wechat.url(),
        taken: taken.local_addr().map_err(said("no port"))?,
    };
    let first = Generation(1);
    let world = Rc::new(World {
        site,
        authority: Authority::new().map_err(said("no certificates"))?,
        wechat,
        in_effect: Cell::new(first),
        upcoming: Cell::new(first),
        seen: Cell::new((first, Instant::now())),
        phones: [const { Cell::new(Generation(0)) }; PHONES],
        tokens: RefCell::default(),
        over: Cell::new(false),
        tally: RefCell::default(),
    });
    let apps = app::bind(world.site.apps).await;
    for (number, listener) in apps.map_err(said("no app"))?.into_iter().enumerate() {
        spawn_local(app::serve(number, listener, Rc::clone(&world)));
    }
    let mut driver = Driver::start(options, Rc::clone(&world)).await?;
    let began = Instant::now();
    let mut clients = clients(&world)?;
    let driven = driver.drive(options).await;
    world.over.set(true);
    while let Some(client) = clients.join_next().await {
        client.map_err(|error| format!("a client panicked: {error}"))?;
    }
    let report = driver.report(began, driven.err()).await?;
    match driver.sidecar.stop() {
        true => Ok(report),
        false => Err(format!("the sidecar does not end\n{report}")),
    }
}

fn wechat() -> Result<Simulator, String> {
    let appid = AppId::parse(APPID).map_err(|_| "it has no AppID's shape")?;
    let secrets = APP_SECRETS.map(Secret::new);
    let [first, _] = secrets.clone();
    let options = sim::Options::local(appid.clone(), first);
    let wechat = Simulator::start(options).map_err(said("no simulator"))?;
    wechat.change_secrets(&appid, secrets.into());
    Ok(wechat)
}

fn clients(world: &Rc<World>) -> Result<JoinSet<()>, String> {
    let mut clients = JoinSet::new();
    for (habit, count) in [
        (Habit::Keeps, KEEPERS),
        (Habit::Anew, ANEW),
        (Habit::Resumes, RESUMERS),
    ] {
        for _ in 0..count {
            clients.spawn_local(Client::new(Rc::clone(world), habit)?.visit());
        }
    }
    for number in 0..PHONES {
        let client = Client::new(Rc::clone(world), Habit::Keeps)?;
        clients.spawn_local(client.live(number));
    }
    Ok(clients)
}

impl World {
    pub(crate) fn in_effect(&self) -> Generation {
        self.in_effect.get()
    }

    pub(crate) fn upcoming(&self) -> Generation {
        self.upcoming.get()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    pub(crate) fn tally(&self) -> RefMut<'_, Tally> {
        self.tally.borrow_mut()
    }

    /// An app was asked by a configuration of this generation.
    pub(crate) fn saw(&self, generation: Generation, at: Instant) {
        if generation > self.seen.get().0 {
            self.seen.set((generation, at));
        }
    }

    /// A phone has other tokens.
    pub(crate) fn renewed(&self, phone: usize, tokens: Rc<Tokens>) {
        self.phones[phone].set(tokens.sealed.from);
        self.tokens.replace(Some(tokens));
    }

    /// Somebody's tokens, of late.
    pub(crate) fn tokens(&self) -> Option<Rc<Tokens>> {
        self.tokens.borrow().clone()
    }
}

/// Who changes the configuration.
struct Driver {
    world: Rc<World>,
    sidecar: Sidecar,
    configuration: Volume,
    secrets: Volume,
    changes: usize,
    moves: usize,
    faults: usize,
    delays: Vec<Duration>,
    /// What the sidecar had counted at its start.
    reloaded: f64,
    warm: usize,
    memory_before: u64,
}

impl Driver {
    /// Starts a sidecar with the first generation.
    async fn start(options: &Options, world: Rc<World>) -> Result<Self, String> {
        let volume = |name| Volume::new(options.directory.join(name)).map_err(said("no volume"));
        let (mut configuration, mut secrets) = (volume("config")?, volume("secrets")?);
        let first = world.upcoming();
        secrets
            .swap(&files(&world, first)?)
            .map_err(said("no secrets"))?;
        let text = first.configuration(&world.site);
        configuration
            .swap(&[("sidecar.toml".to_owned(), text)])
            .map_err(said("no configuration"))?;
        let mut sidecar = Sidecar::start(
            &options.binary,
            &configuration.file("sidecar.toml"),
            world.site.admin,
            &options.directory,
        )?;
        sidecar.ready().await?;
        let reloaded = sidecar.metric(RELOADED).await?;
        Ok(Self {
            world,
            sidecar,
            configuration,
            secrets,
            changes: 0,
            moves: 0,
            faults: 0,
            delays: Vec::new(),
            reloaded,
            warm: WARM.min(options.reloads.div_ceil(2)),
            memory_before: 0,
        })
    }

    async fn drive(&mut self, options: &Options) -> Result<(), String> {
        for round in 0..options.reloads {
            match round % FAULTY {
                it if it == FAULTY / 2 => self.spoil().await?,
                _ => self.change().await?,
            }
            if round + 1 == self.warm {
                self.memory_before = self.sidecar.memory().now;
            }
            let due = (round + 1) * options.requests / options.reloads;
            let world = Rc::clone(&self.world);
            self.wait("requests", || world.tally().requests >= due)
                .await?;
        }
        Ok(())
    }

    /// The next generation comes into effect.
    async fn change(&mut self) -> Result<(), String> {
        let world = Rc::clone(&self.world);
        let (old, new) = (world.in_effect(), world.in_effect().next());
        let files = files(&world, new)?;
        world.upcoming.set(new);
        // The old configuration is good with the new secrets too, so it does not matter if the sidecar reads in between.
        self.secrets.swap(&files).map_err(said("no secrets"))?;
        let swapped = self.put(new.configuration(&world.site))?;
        self.wait(&format!("{new:?}"), || world.seen.get().0 == new)
            .await?;
        self.delays.push(world.seen.get().1 - swapped);
        world.in_effect.set(new);
        self.wait("phones", || world.phones.iter().all(|it| it.get() >= new))
            .await?;
        self.changes += 1;
        self.moves += usize::from(old.place() != new.place());
        Ok(())
    }

    /// A configuration comes that cannot be used.
    async fn spoil(&mut self) -> Result<(), String> {
        let fault = FAULTS[self.faults % FAULTS.len()];
        let before = self.sidecar.metric(REFUSED).await?;
        let text = self.world.in_effect().faulty(&self.world.site, fault);
        self.put(text)?;
        let began = Instant::now();
        while self.sidecar.metric(REFUSED).await? <= before {
            self.sidecar.lives()?;
            if began.elapsed() > PATIENCE {
                return Err(format!("{fault:?} is not refused"));
            }
            sleep(5 * POLL).await;
        }
        self.faults += 1;
        Ok(())
    }

    fn put(&mut self, text: String) -> Result<Instant, String> {
        let files = [("sidecar.toml".to_owned(), text)];
        let swapped = self.configuration.swap(&files);
        swapped.map_err(said("no configuration"))
    }

    async fn wait(&mut self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
        let began = Instant::now();
        while !is_so() {
            if began.elapsed() > PATIENCE {
                self.sidecar.lives()?;
                return Err(format!("waited in vain for {what}"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// What came of it, also if it got stuck: what clients saw till then may tell why.
    async fn report(&mut self, began: Instant, stuck: Option<String>) -> Result<Report, String> {
        let took = began.elapsed();
        self.sidecar.lives()?;
        let memory = self.sidecar.memory();
        let mut delays = std::mem::take(&mut self.delays);
        delays.sort_unstable();
        Ok(Report {
            tally: self.world.tally.take(),
            stuck: stuck.map(|why| format!("{why}\n{}", self.sidecar.said())),
            took,
            changes: self.changes,
            moves: self.moves,
            faults: self.faults,
            reloaded: self.sidecar.metric(RELOADED).await? - self.reloaded,
            refused: self.sidecar.metric(REFUSED).await?,
            panics: self.sidecar.metric(PANICS).await?,
            delays,
            warm: self.warm,
            memory_before: self.memory_before,
            memory_after: memory.now,
            memory_peak: memory.peak,
        })
    }
}

/// All that the volume of secrets has in a generation.
fn files(world: &World, generation: Generation) -> Result<Vec<(String, String)>, String> {
    let certificate = world.authority.issue(generation);
    let mut files = certificate.map_err(said("no certificate"))?;
    files.extend(generation.secrets());
    Ok(files)
}

fn said<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}
