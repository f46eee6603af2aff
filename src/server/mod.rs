//! The assembly: listeners, workers, the admin side, and their common end.
//!
//! Each worker is a thread with a single-threaded runtime. One more thread, control, has the admin side and conducts the
//! drain.

mod admin;
mod arrival;
mod connections;
mod drain;
mod exchange;
mod explain;
mod follow;
mod http2;
mod outbound;
mod problem;
mod pulse;
mod reload;
mod router;
mod snapshot;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Effective, Listen};
use crate::domain::{OpenId, User};
use crate::error::Error;
use crate::net::{Bound, is_taken, warn_of_sharing};
use crate::push::Bus;
use crate::resilience::panics::{Panicked, caught};
use crate::session::{SessionState, Sessions, ShownToken, Store};
use crate::source::Feed;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::{RequestCollector, WorkerCells};
use admin::{Admin, Phone};
use connections::Entrance;
use drain::Phase;
use outbound::OutboundSide;
use pulse::{Pulse, Pulses};
use reload::{Assembly, Doors, InboxOptions, Places, Status, listen};
use snapshot::{Shared, Snapshot};
use worker::{RESTART_PAUSE, Worker};

pub use explain::{Asked, Explanation};
pub use follow::NotReloaded;
pub use reload::{ListenError, ReloadError};

/// How long a thread that ends waits for its work on files.
const LAST_FILES: Duration = Duration::from_secs(1);
/// How long the end waits for threads that have been told to end.
const LAST_THREADS: Duration = Duration::from_secs(5);
/// How long the end waits for a collector.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// A running sidecar.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = wx_sidecar::Config::from_toml(r#"
///     [app]
///     appid = "wx0123456789abcdef"
///     secret = "0123456789abcdef0123456789abcdef"
///     [inbound]
///     listen = "127.0.0.1:0"
///     upstream = "http://127.0.0.1:3000"
///     [admin]
///     listen = "127.0.0.1:0"
/// "#)?;
/// let sidecar = wx_sidecar::Sidecar::start(config)?;
/// println!("send the Mini Program to http://{}", sidecar.inbound_addr());
/// sidecar.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it without [`Sidecar::shutdown`] cuts off whatever is in flight.
pub struct Sidecar {
    assembly: Arc<Assembly>,
    orders: mpsc::UnboundedSender<Order>,
    phase: watch::Receiver<Phase>,
    control: Option<JoinHandle<()>>,
    control_runtime: Handle,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The journal of pushes cannot be opened.
    #[error("cannot use the journal ([push] journal): {0}")]
    Journal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread or its runtime cannot be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// What the control thread is told.
enum Order {
    Drain,
    Stop,
}

impl Sidecar {
    /// Binds all listeners, starts all threads and returns; requests are served from then on.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_at(config, Clock::System)
    }

    /// As [`Sidecar::start`], with a clock that a test can turn.
    pub fn start_at(config: Config, clock: Clock) -> Result<Self, StartError> {
        let workers = config.inbound.workers;
        // First, because it may fail: the kernel gives connections to whoever shares the inbound port, and takes them down
        // with a process that does not start.
        let admin_listener =
            Bound::one(&config.admin.listen).map_err(listen("admin", &config.admin.listen))?;
        let outbound_listener = match &config.outbound.listen {
            None => None,
            Some(place) => Some(Bound::one(place).map_err(listen("outbound", place))?),
        };
        let is_shared = is_taken(&config.inbound.listen);
        let listeners = Bound::group(&config.inbound.listen, workers)
            .map_err(listen("inbound", &config.inbound.listen))?;
        if is_shared {
            warn_of_sharing(&config.inbound.listen);
        }
        let inbound = listeners[0].place()?;
        let outbound = outbound_listener.as_ref().map(Bound::place).transpose()?;
        let admin = admin_listener.place()?;

        let metrics = Arc::new(Metrics::new());
        let store = Store::new(&config, &metrics);
        let state = Arc::new(SessionState::new(store, clock, Arc::clone(&metrics)));
        let cells = WorkerCells::group(workers);
        metrics
            .registry()
            .register(Box::new(RequestCollector::new(cells.clone())))
            .expect("the request families are registered once");
        let since = state.clock.now();
        metrics.config_loaded(true, since);
        let bus = match &config.push {
            Some(push) => {
                let opened = Bus::open(push, &config, &state.clock, &metrics);
                Some(opened.map_err(|error| StartError::Journal(Box::new(error)))?)
            }
            None => None,
        };
        let inbox_options = InboxOptions::of(&config);
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let (orders, inbox) = mpsc::unbounded_channel();
        // First, because the connections to WeChat live there, and it outlives the workers, which use them.
        let (first_snapshot, begins) = oneshot::channel();
        let (outbound_door, outbound_moves) = mpsc::unbounded_channel();
        let outbound_side = {
            let (state, metrics) = (Arc::clone(&state), Arc::clone(&metrics));
            let (phase, alarm) = (phase.clone(), Alarm(orders.clone()));
            spawn(Pulse::of("wx-outbound"), move || async move {
                let _alarm = alarm;
                if let Ok(current) = begins.await {
                    let side = Rc::new(OutboundSide::new(current, state, metrics));
                    side.run(outbound_listener, outbound_moves, phase).await;
                }
            })?
        };
        let home = outbound_side.runtime.clone();
        let shared = Arc::new(Shared::new(home, state.clock.clone()));
        if let Some(bus) = bus {
            shared.open_bus(bus);
        }
        warn_of_certificate(out_of_date(&config, since));
        let snapshot = Arc::new(Snapshot::build(config, &state, &metrics, &shared));
        let current = Arc::new(ArcSwap::new(Arc::clone(&snapshot)));
        let _it_waits = first_snapshot.send(Arc::clone(&current));

        let mut threads = Vec::with_capacity(workers);
        let mut pulses = vec![outbound_side.pulse];
        let mut doors = Vec::with_capacity(workers);
        for (index, (listener, cells)) in listeners.into_iter().zip(cells).enumerate() {
            let (current, state, phase) = (Arc::clone(&current), Arc::clone(&state), phase.clone());
            let alarm = Alarm(orders.clone());
            let (door, changes) = mpsc::unbounded_channel();
            let first = Arc::clone(&snapshot);
            let worker = spawn(Pulse::of(format!("wx-worker-{index}")), move || {
                let worker = Rc::new(Worker::new(current, state, cells));
                async move {
                    let _alarm = alarm;
                    let entrance = Entrance::new(listener, first);
                    worker.run(entrance, changes, phase).await;
                }
            })?;
            threads.push(worker.thread);
            pulses.push(worker.pulse);
            doors.push(door);
        }
        let conductor = Conductor {
            state: Arc::clone(&state),
            current: Arc::clone(&current),
            phase: phase_sender,
            inbox,
            threads,
            calls: outbound_side.thread,
        };
        let control_pulse = Pulse::of("wx-control");
        let pulses = Arc::new(Pulses::new(Arc::clone(&control_pulse), pulses));
        let (admin_door, admin_moves) = mpsc::unbounded_channel();
        let assembly = Arc::new(Assembly {
            current,
            state,
            metrics,
            started: since,
            shared,
            phase: phase.clone(),
            places: ArcSwap::from_pointee(Places {
                inbound,
                outbound,
                admin,
            }),
            doors: Doors {
                inbound: doors,
                outbound: outbound_door,
                admin: admin_door,
            },
            inbox: Mutex::new(inbox_options),
            status: ArcSwap::from_pointee(Status {
                since,
                effective: None,
                refused: None,
                source: None,
                unread: None,
            }),
            asks: OnceLock::new(),
            phone: OnceLock::new(),
            pulses,
        });
        let admin_side = Arc::new(Admin {
            assembly: Arc::clone(&assembly),
        });
        let control = spawn(control_pulse, move || {
            conductor.run(admin_side, admin_listener, admin_moves)
        })?;
        let places = assembly.places.load_full();
        let (inbound, admin) = (&places.inbound, &places.admin);
        let calls_at = places.outbound.as_ref().map(tracing::field::display);
        tracing::info!(%inbound, outbound = calls_at, %admin, workers, version = env!("CARGO_PKG_VERSION"), "serving");
        if let Store::Memory(_) = assembly.state.store {
            tracing::info!("store: memory; what is revoked is forgotten by a restart");
        }
        Ok(Self {
            assembly,
            orders,
            phase,
            control: Some(control.thread),
            control_runtime: control.runtime,
        })
    }

    /// Where the Mini Program's traffic comes in; with port 0 in the configuration, the port that was chosen.
    pub fn inbound_addr(&self) -> Listen {
        self.assembly.places.load().inbound.clone()
    }

    /// Where the app's calls to WeChat come in, if anywhere.
    pub fn outbound_addr(&self) -> Option<Listen> {
        self.assembly.places.load().outbound.clone()
    }

    /// Where the admin side listens.
    pub fn admin_addr(&self) -> Listen {
        self.assembly.places.load().admin.clone()
    }

    /// Swaps the configuration. Requests in flight finish on the old one; none fails. A listener that changes is bound
    /// before the old one drains.
    ///
    /// # Errors
    /// If something changes that cannot, or a new listener cannot be bound. Then nothing has changed.
    pub fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let out_of_date = out_of_date(&config, self.assembly.state.clock.now());
        self.assembly.reload(config, None)?;
        warn_of_certificate(out_of_date);
        Ok(())
    }

    /// What the configuration that it was started with comes to, for `GET /config` and the metrics. A reload from a source
    /// tells it by itself.
    pub fn describe(&self, effective: &Effective) {
        self.assembly.metrics.config_is(Some(effective));
        self.assembly.status.rcu(|status| Status {
            effective: Some(effective.clone()),
            ..Status::clone(status)
        });
    }

    /// Puts a phone on the inspector's page, which plays the Mini Program before a simulator of WeChat. From then on users are
    /// called by their openids there.
    pub(crate) fn show_phone(&self, sim: SocketAddr, sample: bool) {
        let _there_is_one = self.assembly.phone.set(Phone { sim, sample });
    }

    /// From now on it changes with its source. `effective` is what the configuration that it has comes to, of which `feed`
    /// tells the next ([`Source::begin`](crate::source::Source::begin)). Only the first is followed.
    pub fn follow(&self, feed: Feed, effective: &Effective) {
        let (asks, asked) = mpsc::unbounded_channel();
        if self.assembly.asks.set(asks).is_ok() {
            let assembly = Arc::clone(&self.assembly);
            self.describe(effective);
            assembly.status.rcu(|status| Status {
                since: status.since,
                effective: status.effective.clone(),
                refused: status.refused.clone(),
                source: Some(feed.source().to_string()),
                unread: None,
            });
            self.control_runtime
                .spawn(follow::follow(assembly, feed, asked));
        }
    }

    /// Reads its source again and changes to what it says now.
    ///
    /// # Errors
    /// Why it does not. The old configuration is in use then.
    pub async fn reload_from_source(&self) -> Result<(), NotReloaded> {
        self.assembly.reload_from_source().await
    }

    /// Whose an access token is; the same that a request with it would be taken for. No I/O.
    ///
    /// # Errors
    /// If it is not one of ours, has expired, or its session was ended.
    pub fn verify(&self, access_token: &str) -> Result<User, Error> {
        let (token, now) = (access_token.as_bytes(), self.assembly.state.clock.now());
        let claims = self.sessions().verify(token, now, &ShownToken::default())?;
        Ok(claims.user.clone())
    }

    /// The signature that WeChat's APIs for one user want beside a body: HMAC-SHA256 with the user's session_key, in
    /// hexadecimal (`signature` with `sig_method=hmac_sha256`; virtual payment wants the same). `None` if the user has not
    /// logged in here.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn session_signature(
        &self,
        openid: &OpenId,
        body: &[u8],
    ) -> Result<Option<String>, Error> {
        self.sessions().sign(openid, body).await
    }

    /// Whether the newest session_key that is known of a user is still good at WeChat (`checksession`). `None` if the user
    /// has not logged in here.
    ///
    /// # Errors
    /// If the store or WeChat cannot be reached, or WeChat refuses.
    pub async fn check_session_key(&self, openid: &OpenId) -> Result<Option<bool>, Error> {
        self.sessions().check_key(openid).await
    }

    /// Has WeChat replace a user's session_key (`resetusersessionkey`). False if the user has not logged in here.
    ///
    /// # Errors
    /// If the store or WeChat cannot be reached, or WeChat refuses.
    pub async fn reset_session_key(&self, openid: &OpenId) -> Result<bool, Error> {
        self.sessions().reset_key(openid).await
    }

    fn sessions(&self) -> Arc<Sessions> {
        Arc::clone(&self.assembly.current.load().sessions)
    }

    /// Whether all its threads live, for a watchdog. A thread that stands still is noticed within ten seconds.
    ///
    /// # Errors
    /// Which do not.
    pub fn check_threads(&self) -> Result<(), String> {
        self.assembly.pulses.check()
    }

    /// Ends when the sidecar has stopped. That happens without [`Sidecar::shutdown`] only if a worker died of a panic: the
    /// others then drain, because a process with a part of its workers looks healthy and is not.
    pub async fn ended(&self) {
        let mut phase = self.phase.clone();
        // An error means that the control thread is gone, and with it all else.
        let _ended = phase.wait_for(|phase| *phase >= Phase::Stopped).await;
    }

    /// Drains and stops: not ready, `drain_delay`, no new connections, requests in flight finish within `drain_timeout`.
    pub async fn shutdown(mut self) {
        // The control thread is gone only if it has stopped already.
        let _stopped = self.orders.send(Order::Drain);
        let _ended = self
            .phase
            .wait_for(|phase| *phase >= Phase::Stopped)
            .await
            .is_ok();
        let (joined, end) = oneshot::channel();
        let control = self.control.take();
        // Elsewhere: this thread may have to hear of a second signal meanwhile.
        let joiner = thread::Builder::new().spawn(move || {
            join(control);
            let _gone = joined.send(());
        });
        if joiner.is_ok() {
            let _ended = end.await;
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _stopped = self.orders.send(Order::Stop);
        join(self.control.take());
    }
}

/// What is wrong with the dates of what clients will be shown, if something is.
fn out_of_date(config: &Config, now: Timestamp) -> Option<String> {
    config.inbound.tls.as_ref()?.out_of_date(now)
}

/// Of a reload from a source the log says it with all that the configuration was warned of.
fn warn_of_certificate(out_of_date: Option<String>) {
    if let Some(said) = out_of_date {
        tracing::warn!("[inbound.tls] {said}; it is served, and clients refuse it");
    }
}

fn join(control: Option<JoinHandle<()>>) {
    if control.is_some_and(|control| control.join().is_err()) {
        tracing::error!("the control thread panicked");
    }
}

/// Has all workers drain when one dies of a panic.
struct Alarm(mpsc::UnboundedSender<Order>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a worker died of a panic; the sidecar drains and ends");
            let _stopped = self.0.send(Order::Drain);
        }
    }
}

/// Runs the control thread: the admin side and what the store has to have done in the background, until the end that it
/// conducts.
struct Conductor {
    state: Arc<SessionState>,
    current: Arc<ArcSwap<Snapshot>>,
    phase: watch::Sender<Phase>,
    inbox: mpsc::UnboundedReceiver<Order>,
    threads: Vec<JoinHandle<()>>,
    /// The thread of the app's calls to WeChat.
    calls: JoinHandle<()>,
}

impl Conductor {
    async fn run(
        mut self,
        admin: Arc<Admin>,
        listener: Bound,
        moves: mpsc::UnboundedReceiver<Bound>,
    ) {
        let pulses = Arc::clone(&admin.assembly.pulses);
        let feeling = tokio::task::spawn_local(async move { pulses.feel().await });
        let state = Arc::clone(&self.state);
        let serving = tokio::task::spawn_local(async move {
            let (mut listener, mut moves) = (listener.join(), moves);
            while let Err(panicked) = caught(admin.serve(&mut listener, &mut moves)).await {
                before_anew(&state.metrics, "admin", &panicked).await;
            }
        });
        let state = Arc::clone(&self.state);
        let keeping = tokio::task::spawn_local(async move {
            while let Err(panicked) = caught(state.store.keep()).await {
                before_anew(&state.metrics, "store", &panicked).await;
            }
        });
        let (mut ended, mut silent) = (joined(self.threads), joined(vec![self.calls]));
        if let Some(Order::Drain) = self.inbox.recv().await {
            let inbound = self.current.load().config.inbound.clone();
            let drain = drain::drain(
                &self.phase,
                inbound.drain_delay,
                inbound.drain_timeout,
                all_of(&mut ended),
                all_of(&mut silent),
            );
            tokio::select! {
                () = drain => {}
                () = told_to_stop(&mut self.inbox) => {}
            }
        }
        self.phase.send_replace(Phase::Stopped);
        let all = async {
            all_of(&mut ended).await;
            all_of(&mut silent).await;
        };
        if timeout(LAST_THREADS, all).await.is_err() {
            tracing::error!("threads that do not end are left behind");
        }
        let tracing = self.current.load().tracing().clone();
        tracing.end(LAST_SPANS).await;
        serving.abort();
        keeping.abort();
        feeling.abort();
        tracing::info!("stopped");
    }
}

/// Tells of the panic of something that has to go on for as long as the sidecar does, and pauses before it begins anew.
async fn before_anew(metrics: &Metrics, what: &'static str, panicked: &Panicked) {
    metrics.panicked();
    tracing::error!(what, error = %panicked, "begun anew after a panic");
    tokio::time::sleep(RESTART_PAUSE).await;
}

/// Waits for the order that does not wait for anything; to drain once more is no news.
async fn told_to_stop(inbox: &mut mpsc::UnboundedReceiver<Order>) {
    while let Some(Order::Drain) = inbox.recv().await {}
}

/// Waits for the end of all threads of a [`joined`] channel.
async fn all_of(ended: &mut mpsc::Receiver<()>) {
    while ended.recv().await.is_some() {}
}

/// Joins threads without blocking the runtime; the channel closes when all have ended.
fn joined(threads: Vec<JoinHandle<()>>) -> mpsc::Receiver<()> {
    let (done, ended) = mpsc::channel(1);
    let joiner = thread::Builder::new()
        .name("wx-joiner".to_owned())
        .spawn(move || {
            let _done = done;
            for worker in threads {
                if worker.join().is_err() {
                    tracing::error!("a worker thread panicked");
                }
            }
        });
    if let Err(error) = joiner {
        tracing::error!(%error, "the end of the workers cannot be waited for");
    }
    ended
}

/// A thread with a single-threaded runtime.
struct Running {
    thread: JoinHandle<()>,
    runtime: Handle,
    pulse: Arc<Pulse>,
}

/// Starts one, with this pulse, that runs one future.
fn spawn<F: Future<Output = ()>>(
    pulse: Arc<Pulse>,
    main: impl FnOnce() -> F + Send + 'static,
) -> io::Result<Running> {
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let beating = Arc::clone(&pulse);
    let thread = thread::Builder::new()
        .name(pulse.name().to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _starter_waits = started.send(Ok(runtime.handle().clone()));
                    let ended = Ended(Arc::clone(&beating));
                    runtime.block_on(async {
                        let beating = tokio::task::spawn_local(async move { beating.beat().await });
                        main().await;
                        beating.abort();
                    });
                    drop(ended);
                    // Work on files, which may hang, must not keep a process from ending.
                    runtime.shutdown_timeout(LAST_FILES);
                }
                Err(error) => {
                    let _starter_waits = started.send(Err(error));
                }
            }
        })?;
    let runtime = outcome
        .recv()
        .map_err(|_| io::Error::other("the thread ended at once"))??;
    Ok(Running {
        thread,
        runtime,
        pulse,
    })
}

/// Ends the pulse of a thread, also if it panics.
struct Ended(Arc<Pulse>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}
