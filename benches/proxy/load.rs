//! The load generator: lanes, each of which sends one request at a time and checks every answer.
//!
//! Saturated, a lane sends the next request as soon as it has the answer. At a fixed rate the schedule is fixed
//! beforehand and latency counts from the moment a request was *due*, not from when it could be sent: a proxy that
//! stalls is charged for everything that queued up behind the stall (no coordinated omission). The clock is a thread
//! that sleeps to the microsecond and hands out permits, because tokio's timers tick in milliseconds.
//!
//! What to do comes as one JSON argument, [`Spec`]. When the connections are open, the generator says so and waits for
//! a line on its standard input; what happened then goes to stdout as JSON, [`Outcome`].

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::histogram::Histogram;
use crate::lane::{Job, Lane, Protocol};

/// What to send, where, and how much of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    /// The path; its last segment says which answer is the right one.
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// Bytes to POST; `None` is a GET.
    pub(crate) upload: Option<usize>,
    pub(crate) protocol: Protocol,
    /// The file with the certificate to expect; `None` is without TLS.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) connections: usize,
    /// Requests at once on each connection, for HTTP/2.
    pub(crate) streams: usize,
    pub(crate) amount: Amount,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Amount {
    /// As fast as answers come.
    Saturated { seconds: f64 },
    /// So many a second, due at equal distances.
    Paced { seconds: f64, rate: u32 },
    /// So many in all, as fast as answers come, with no warm-up.
    Counted { requests: u64 },
}

/// What happened. Latencies are in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Good answers in the measured time.
    pub(crate) requests: u64,
    /// Good answers in all, warm-up included: what the proxy's CPU time is divided by.
    pub(crate) total: u64,
    pub(crate) errors: u64,
    /// The measured time.
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// At a fixed rate: how late the generator's own clock was, p99.
    pub(crate) clock_late_p99: f64,
}

/// The line that says that the connections are open.
pub(crate) const READY: &str = "ready";
/// Caches fill in this time; it is not measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long the last answers may take after the end.
const GRACE: Duration = Duration::from_secs(5);
/// After so many errors the rest would say nothing new.
const ENOUGH_ERRORS: u64 = 1000;
const ERRORS_PRINTED: u64 = 3;

/// An upper bound for how long a run with `amount` may take, for the one who waits for it.
pub(crate) fn longest(amount: Amount) -> Duration {
    match amount {
        Amount::Saturated { seconds } | Amount::Paced { seconds, .. } => {
            WARM_UP + Duration::from_secs_f64(seconds) + GRACE
        }
        // Under valgrind, a request may take some milliseconds.
        Amount::Counted { requests } => GRACE + Duration::from_millis(20 * requests),
    }
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let text = arguments.first().map_or("", String::as_str);
    let spec: Spec = match serde_json::from_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("load: not a specification: {error}");
            return ExitCode::from(2);
        }
    };
    // Threads inherit the slack of their parent; the kernel's 50 µs would be half the distance of two requests.
    // Where the file cannot be written the figures stay right, only the pace is rougher.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    match drive(spec) {
        Ok(outcome) => {
            println!(
                "{}",
                serde_json::to_string(&outcome).expect("an outcome is plain numbers")
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Sends one request as `spec` would many; whether the answer is good.
pub(crate) fn once(spec: &Spec) -> Result<(), String> {
    block_on(async {
        let job = Job::build(spec)?;
        let asked = async {
            match Lane::open(&job).await?.first_mut() {
                Some(lane) => lane.exchange(&job).await,
                None => Err("a connection without lanes".to_owned()),
            }
        };
        tokio::time::timeout(GRACE, asked)
            .await
            .map_err(|_| format!("no answer in {GRACE:?}"))?
    })
}

fn drive(spec: Spec) -> Result<Outcome, String> {
    block_on(send_as_asked(spec))
}

/// On one thread, with room for tasks that stay there.
pub(crate) fn block_on<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    LocalSet::new().block_on(&runtime, what)
}

async fn send_as_asked(spec: Spec) -> Result<Outcome, String> {
    let job = Rc::new(Job::build(&spec)?);
    let mut lanes = Vec::new();
    let open = async {
        for _ in 0..spec.connections {
            lanes.extend(Lane::open(&job).await?);
        }
        Ok::<(), String>(())
    };
    tokio::time::timeout(GRACE, open)
        .await
        .map_err(|_| format!("the connections are not open in {GRACE:?}"))??;
    // The one who waits for this looks at the proxy's CPU time now: what connections cost is not what requests cost.
    println!("{READY}");
    let _ = std::io::stdin().read_line(&mut String::new());
    let schedule = Schedule::begin(spec.amount, lanes.len() as u64);
    let tally = Rc::new(Tally::new(schedule.measured_from, schedule.until));
    let schedule = Rc::new(schedule);

    let tasks: Vec<_> = lanes
        .into_iter()
        .map(|lane| {
            tokio::task::spawn_local(send_all(lane, job.clone(), schedule.clone(), tally.clone()))
        })
        .collect();
    let everybody = async {
        for task in tasks {
            task.await
                .map_err(|error| format!("a connection's task died: {error}"))?;
        }
        Ok::<(), String>(())
    };
    match tokio::time::timeout(longest(spec.amount), everybody).await {
        Ok(done) => done?,
        Err(_) => tally.fail_all_in_flight(),
    }
    Ok(tally.outcome(spec.amount, schedule.clock_lateness()))
}

/// One lane's life: take a turn, send, check, record. A broken lane is opened anew.
async fn send_all(mut lane: Lane, job: Rc<Job>, schedule: Rc<Schedule>, tally: Rc<Tally>) {
    while let Some(due) = schedule.turn().await {
        tally.in_flight.set(tally.in_flight.get() + 1);
        let result = lane.exchange(&job).await;
        tally.in_flight.set(tally.in_flight.get() - 1);
        match result {
            Ok(()) => tally.record(due),
            Err(why) => {
                tally.fail(&why);
                if tally.errors.get() >= ENOUGH_ERRORS {
                    return;
                }
                if let Err(why) = lane.reopen(&job).await {
                    return tally.fail(&why);
                }
            }
        }
    }
}

/// Who may send next, and when that was due.
struct Schedule {
    pace: Pace,
    measured_from: Instant,
    /// The end of the measured time, where time is what ends it.
    until: Option<Instant>,
}

enum Pace {
    Saturated {
        until: Instant,
    },
    Paced {
        start: Instant,
        interval: Duration,
        next: Cell<u32>,
        slots: u32,
        permits: Arc<Semaphore>,
        clock: Clock,
    },
    Counted {
        left: Cell<u64>,
    },
}

/// The thread that gives permits, and how late it was.
type Clock = Cell<Option<std::thread::JoinHandle<Histogram>>>;

impl Schedule {
    fn begin(amount: Amount, lanes: u64) -> Schedule {
        // A little ahead, so that the first slot is not late before its clock runs.
        let start = Instant::now() + Duration::from_millis(2);
        let measured_from = start + WARM_UP;
        match amount {
            Amount::Saturated { seconds } => {
                let until = measured_from + Duration::from_secs_f64(seconds);
                Schedule {
                    pace: Pace::Saturated { until },
                    measured_from,
                    until: Some(until),
                }
            }
            Amount::Paced { seconds, rate } => {
                let interval = Duration::from_secs(1) / rate;
                let length = WARM_UP + Duration::from_secs_f64(seconds);
                let slots = (length.as_secs_f64() * f64::from(rate)) as u32;
                let permits = Arc::new(Semaphore::new(0));
                let clock = std::thread::spawn({
                    let permits = permits.clone();
                    move || keep_pace(start, interval, slots, lanes, &permits)
                });
                let clock = Cell::new(Some(clock));
                let pace = Pace::Paced {
                    start,
                    interval,
                    next: Cell::new(0),
                    slots,
                    permits,
                    clock,
                };
                Schedule {
                    pace,
                    measured_from,
                    until: Some(start + length),
                }
            }
            Amount::Counted { requests } => {
                let pace = Pace::Counted {
                    left: Cell::new(requests),
                };
                Schedule {
                    pace,
                    measured_from: Instant::now(),
                    until: None,
                }
            }
        }
    }

    /// Waits for a turn to send; the moment it was due, or `None` when there are no more.
    async fn turn(&self) -> Option<Instant> {
        match &self.pace {
            Pace::Saturated { until } => Some(Instant::now()).filter(|now| now < until),
            Pace::Paced {
                start,
                interval,
                next,
                slots,
                permits,
                ..
            } => {
                permits
                    .acquire()
                    .await
                    .expect("nobody closes the semaphore")
                    .forget();
                let slot = next.get();
                next.set(slot + 1);
                (slot < *slots).then(|| *start + *interval * slot)
            }
            Pace::Counted { left } => {
                let turn = left.get().checked_sub(1)?;
                left.set(turn);
                Some(Instant::now())
            }
        }
    }

    fn clock_lateness(&self) -> Option<Histogram> {
        match &self.pace {
            // A clock that still runs belongs to a run that was given up; the process ends with it.
            Pace::Paced { clock, .. } => clock
                .take()
                .filter(|clock| clock.is_finished())?
                .join()
                .ok(),
            _ => None,
        }
    }
}

/// Gives a permit for each slot when it is due, then one to each lane so that it can see the end.
fn keep_pace(
    start: Instant,
    interval: Duration,
    slots: u32,
    lanes: u64,
    permits: &Semaphore,
) -> Histogram {
    let mut lateness = Histogram::new();
    for slot in 0..slots {
        let due = start + interval * slot;
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        lateness.record(nanoseconds_since(due));
        permits.add_permits(1);
    }
    permits.add_permits(lanes as usize);
    lateness
}

/// What came back so far.
struct Tally {
    measured_from: Instant,
    until: Option<Instant>,
    latency: RefCell<Histogram>,
    last_answer: Cell<Instant>,
    requests: Cell<u64>,
    total: Cell<u64>,
    errors: Cell<u64>,
    in_flight: Cell<u64>,
}

impl Tally {
    fn new(measured_from: Instant, until: Option<Instant>) -> Tally {
        Tally {
            measured_from,
            until,
            latency: RefCell::new(Histogram::new()),
            last_answer: Cell::new(measured_from),
            requests: Cell::new(0),
            total: Cell::new(0),
            errors: Cell::new(0),
            in_flight: Cell::new(0),
        }
    }

    fn record(&self, due: Instant) {
        let now = Instant::now();
        self.total.set(self.total.get() + 1);
        if due >= self.measured_from {
            self.requests.set(self.requests.get() + 1);
            self.latency
                .borrow_mut()
                .record(now.saturating_duration_since(due).as_nanos() as u64);
            self.last_answer.set(now);
        }
    }

    fn fail(&self, why: &str) {
        self.errors.set(self.errors.get() + 1);
        if self.errors.get() <= ERRORS_PRINTED {
            eprintln!("load: {why}");
        }
    }

    fn fail_all_in_flight(&self) {
        self.fail("answers are missing at the end of the run");
        self.errors
            .set(self.errors.get() + self.in_flight.get().saturating_sub(1));
    }

    fn outcome(&self, amount: Amount, clock_lateness: Option<Histogram>) -> Outcome {
        // The last answers come after the end; the time they took belongs to the rate.
        let end = self.until.map_or(self.last_answer.get(), |until| {
            until.max(self.last_answer.get())
        });
        let latency = self.latency.borrow();
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let unsent = match amount {
            Amount::Counted { requests } => requests - self.total.get().min(requests),
            _ => 0,
        };
        Outcome {
            requests: self.requests.get(),
            total: self.total.get(),
            errors: self.errors.get().max(unsent),
            seconds: end
                .saturating_duration_since(self.measured_from)
                .as_secs_f64(),
            p50: microseconds(latency.quantile(0.50)),
            p99: microseconds(latency.quantile(0.99)),
            max: microseconds(latency.max()),
            clock_late_p99: clock_lateness
                .map_or(0.0, |lateness| microseconds(lateness.quantile(0.99))),
        }
    }
}

fn nanoseconds_since(due: Instant) -> u64 {
    Instant::now().saturating_duration_since(due).as_nanos() as u64
}
