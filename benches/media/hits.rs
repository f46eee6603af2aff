//! Media that are there already: requests a second as fast as they go, and what one costs the server.
//!
//! Every answer's status and length are checked, and of the first ones the bytes.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{spawn_local, yield_now};

use crate::caller::Caller;
use crate::process::CpuTime;

/// Caches fill and connections grow in this time; it is not measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// After so many errors the rest would say nothing new.
const ENOUGH_ERRORS: u64 = 100;
const ERRORS_PRINTED: u64 = 3;

/// What is asked for, and what must come.
pub(crate) struct Target {
    pub(crate) place: SocketAddr,
    pub(crate) request: Vec<u8>,
    pub(crate) content: Rc<Vec<u8>>,
    /// Whether the answer says that it is from a cache.
    pub(crate) says_hit: bool,
    /// The processes of the server.
    pub(crate) pids: Vec<u32>,
}

/// How closely an answer is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Length,
    Whole,
    /// And whether it says to be from the cache.
    WholeFromCache,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hits {
    /// A second.
    pub(crate) rate: f64,
    /// Of the server for one, in µs.
    pub(crate) cpu: f64,
    /// How much of its core the server had.
    pub(crate) busy: f64,
    pub(crate) errors: u64,
}

#[derive(Default)]
struct Tally {
    answers: Cell<u64>,
    errors: Cell<u64>,
}

/// Asks over so many connections for so long. For the CPU, the connections are there already.
pub(crate) async fn saturate(
    target: &Rc<Target>,
    connections: usize,
    lasts: Duration,
) -> Result<Hits, String> {
    let mut callers = Vec::new();
    for _ in 0..connections {
        callers.push(Caller::connect(target.place).await?);
    }
    let warm_up = Rc::new(Tally::default());
    let callers = run(callers, target, WARM_UP, Checked::WholeFromCache, &warm_up).await?;
    let tally = Rc::new(Tally::default());
    let before = CpuTime::of(&target.pids);
    let began = Instant::now();
    run(callers, target, lasts, Checked::Length, &tally).await?;
    let took = began.elapsed();
    let cpu = CpuTime::of(&target.pids).since(before).microseconds();
    let answers = tally.answers.get() as f64;
    Ok(Hits {
        rate: answers / took.as_secs_f64(),
        cpu: cpu / answers,
        busy: cpu / took.as_secs_f64() / 1e6,
        errors: warm_up.errors.get() + tally.errors.get(),
    })
}

async fn run(
    callers: Vec<Caller>,
    target: &Rc<Target>,
    lasts: Duration,
    first: Checked,
    tally: &Rc<Tally>,
) -> Result<Vec<Caller>, String> {
    let until = Instant::now() + lasts;
    let lanes = callers.into_iter().map(|caller| {
        let (target, tally) = (Rc::clone(target), Rc::clone(tally));
        spawn_local(lane(caller, target, until, first, tally))
    });
    let lanes: Vec<_> = lanes.collect();
    // A generator that sleeps has to be woken, by an interrupt to its core for every few segments. The server would pay for
    // that, which clients on other machines do not cost it.
    let awake = spawn_local(async {
        loop {
            yield_now().await;
        }
    });
    let mut left = Vec::new();
    for lane in lanes {
        left.extend(lane.await.map_err(|error| error.to_string())?);
    }
    awake.abort();
    Ok(left)
}

/// One connection's requests, one after the other; only the first is looked at as `checked` says.
async fn lane(
    mut caller: Caller,
    target: Rc<Target>,
    until: Instant,
    mut checked: Checked,
    tally: Rc<Tally>,
) -> Option<Caller> {
    loop {
        match exchange(&mut caller, &target, checked).await {
            Ok(()) => tally.answers.set(tally.answers.get() + 1),
            Err(why) => {
                tally.errors.set(tally.errors.get() + 1);
                if tally.errors.get() <= ERRORS_PRINTED {
                    eprintln!("hits: {why}");
                }
                if tally.errors.get() > ENOUGH_ERRORS {
                    return None;
                }
                caller = Caller::connect(target.place).await.ok()?;
            }
        }
        checked = Checked::Length;
        if Instant::now() >= until {
            return Some(caller);
        }
    }
}

/// One request, and whether its answer is the right one.
pub(crate) async fn exchange(
    caller: &mut Caller,
    target: &Target,
    checked: Checked,
) -> Result<(), String> {
    let head = caller.ask(&target.request).await?;
    if head.status != 200 || head.length != target.content.len() as u64 {
        let (status, length) = (head.status, head.length);
        let text = match status {
            200 => String::new(),
            _ => caller.text(&head).await?,
        };
        return Err(format!("status {status}, {length} bytes: {text}"));
    }
    if checked == Checked::Length {
        return caller.discard(head.length).await;
    }
    let said = head.cache.as_deref().unwrap_or_default();
    if checked == Checked::WholeFromCache && target.says_hit && !said.contains("hit") {
        return Err(format!("not from the cache: {said}"));
    }
    caller.compare(&target.content).await
}
