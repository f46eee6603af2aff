//! What an idle connection costs: thousands that have had one answer each, and then nothing.
//!
//! The proxies are measured one after the other, each freshly started with room for the crowd, and only once: memory
//! does not have the moods that time has. A burst of requests goes before, so that what a proxy allocates once is not
//! taken for what a connection costs. The kernel's own memory for sockets is the same for all and is not counted.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::contender::{Field, Proxy, Wrap};
use crate::http::fetch;
use crate::lane::{Job, Protocol, connect};
use crate::load::{Amount, Spec, block_on};
use crate::options::{Face, Options};
use crate::process::{Memory, Process};
use crate::rounds::generate;

/// Connections that are being opened at once.
const AT_ONCE: usize = 32;
const BURST: u64 = 2_000;
const FRESH: usize = 50;
/// How long the crowd may take to gather.
const GATHER: Duration = Duration::from_secs(30);
/// What the proxy and the generator need beside the crowd's descriptors.
const SPARE_DESCRIPTORS: u64 = 500;

pub(crate) struct Idle {
    /// Connections held, and how many of them the proxy had not closed at the end.
    pub(crate) held: usize,
    pub(crate) alive: usize,
    pub(crate) bytes: f64,
    /// Microseconds to connect and be answered meanwhile, the median and the worst.
    pub(crate) fresh: [f64; 2],
}

/// What the crowd says of itself, a line each time.
#[derive(Serialize, Deserialize)]
struct Count {
    connections: usize,
    error: Option<String>,
}

pub(crate) fn measure(field: &Field<'_>, options: &Options) -> Vec<(Proxy, Result<Idle, String>)> {
    let Some(asked) = options.idle else {
        return Vec::new();
    };
    let room = field
        .machine
        .descriptors()
        .saturating_sub(SPARE_DESCRIPTORS);
    let connections = asked.min(room as usize);
    if connections < asked {
        println!("idle      only {connections} connections: the limit of descriptors is low");
    }
    let idle = |proxy: &Proxy| *proxy != Proxy::Logging;
    let proxies = field.proxies().into_iter().filter(idle);
    proxies
        .map(|proxy| (proxy, hold(field, proxy, connections, options.idle_settle)))
        .collect()
}

/// Has `connections` held by a fresh `proxy`, which has `settle` to give back what it needs only for a request.
fn hold(
    field: &Field<'_>,
    proxy: Proxy,
    connections: usize,
    settle: Duration,
) -> Result<Idle, String> {
    let started = field.start(proxy, Face::Crowd, Wrap::Pinned)?;
    let spec = |connections, amount| Spec {
        address: started.address,
        path: "/open/1k".to_owned(),
        token: None,
        upload: None,
        protocol: Protocol::Http1,
        certificate: None,
        connections,
        streams: 1,
        amount,
    };
    let burst = spec(AT_ONCE, Amount::Counted { requests: BURST });
    generate(field.machine, field.scratch, &burst, || {})?;
    std::thread::sleep(settle / 3);
    let before = Memory::share_of(&started.pids);

    let own =
        std::env::current_exe().map_err(|error| format!("cannot find this executable: {error}"))?;
    let wanted = spec(connections, Amount::Counted { requests: 1 });
    let wanted = serde_json::to_string(&wanted).map_err(|error| error.to_string())?;
    let mut command = field.machine.on_load_core(&own.to_string_lossy());
    let mut crowd = Process::spawn(
        "crowd",
        command.args(["crowd", &wanted]),
        field.scratch.path(),
    )?;
    let mut lines = BufReader::new(crowd.stdout().ok_or("the crowd has no stdout")?);
    let held = count(&mut lines, &crowd)?;
    std::thread::sleep(settle);
    let after = Memory::share_of(&started.pids);

    let mut fresh = Vec::with_capacity(FRESH);
    for _ in 0..FRESH {
        let began = Instant::now();
        match fetch(started.address, "GET", "/open/1k", None)? {
            (200, _) => fresh.push(began.elapsed().as_secs_f64() * 1e6),
            (status, _) => return Err(format!("status {status} beside {held} idle connections")),
        }
    }
    fresh.sort_by(f64::total_cmp);

    crowd.tell("count")?;
    let alive = count(&mut lines, &crowd)?;
    Ok(Idle {
        held,
        alive,
        bytes: (after as f64 - before as f64) / held as f64,
        fresh: [fresh[FRESH / 2], fresh[FRESH - 1]],
    })
}

fn count(lines: &mut impl BufRead, crowd: &Process) -> Result<usize, String> {
    let mut line = String::new();
    lines
        .read_line(&mut line)
        .map_err(|error| format!("reading the crowd: {error}"))?;
    let count: Count = serde_json::from_str(&line).map_err(|_| crowd.last_words())?;
    match count.error {
        None if count.connections > 0 => Ok(count.connections),
        None => Err("no connection is left".to_owned()),
        Some(why) => Err(format!("after {} connections: {why}", count.connections)),
    }
}

/// The crowd itself: opens the connections, counts them, and counts them again when told to. It ends when its standard
/// input does.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let text = arguments.first().map_or("", String::as_str);
    let spec: Spec = match serde_json::from_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("crowd: not a specification: {error}");
            return ExitCode::from(2);
        }
    };
    block_on(async {
        let mut crowd = Vec::with_capacity(spec.connections);
        let gathered = tokio::time::timeout(GATHER, gather(&spec, &mut crowd)).await;
        say(&Count {
            connections: crowd.len(),
            error: gathered
                .unwrap_or_else(|_| Err(format!("not all are open in {GATHER:?}")))
                .err(),
        });
        let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        let _ = told.await;
        let waiting = |stream: &&TcpStream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        say(&Count {
            connections: crowd.iter().filter(waiting).count(),
            error: None,
        });
    });
    ExitCode::SUCCESS
}

async fn gather(spec: &Spec, crowd: &mut Vec<TcpStream>) -> Result<(), String> {
    let job = Rc::new(Job::build(spec)?);
    let mut opening = tokio::task::JoinSet::new();
    let mut asked = 0;
    loop {
        while asked < spec.connections && opening.len() < AT_ONCE {
            let (job, address) = (job.clone(), spec.address);
            opening.spawn_local(async move {
                let mut stream = connect(address).await?;
                job.exchange(&mut stream, &mut Vec::new()).await?;
                Ok::<TcpStream, String>(stream)
            });
            asked += 1;
        }
        match opening.join_next().await {
            Some(Ok(opened)) => crowd.push(opened?),
            Some(Err(error)) => return Err(format!("a connection's task died: {error}")),
            None => return Ok(()),
        }
    }
}

fn say(count: &Count) {
    let text = serde_json::to_string(count).expect("a count is plain data");
    println!("{text}");
    let _ = std::io::stdout().flush();
}
