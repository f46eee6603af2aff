//! The rounds: every contender under every load, in turn, again and again.
//!
//! The order rotates from round to round, so that nobody always follows the same neighbour or always meets a cold core.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use crate::contender::Running;
use crate::lane::Protocol;
use crate::load::{Amount, Outcome, READY, Spec, longest, once};
use crate::machine::Machine;
use crate::options::{Face, Options, Row, Scenario};
use crate::process::{CpuTime, Process};
use crate::scratch::Scratch;

/// What one contender did in one scenario, round by round; `None` is a round that failed.
pub(crate) struct Series {
    pub(crate) scenario: Scenario,
    pub(crate) row: Row,
    pub(crate) rounds: Vec<Option<Cell>>,
}

/// A row that a scenario cannot have, and why.
pub(crate) struct Lacking {
    pub(crate) scenario: String,
    pub(crate) row: Row,
    pub(crate) why: String,
}

/// One contender, one scenario, one round.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) outcome: Outcome,
    /// The proxy's CPU time per request, in microseconds; none for the row without a proxy.
    pub(crate) cpu: Option<f64>,
}

impl Cell {
    pub(crate) fn rate(&self) -> f64 {
        self.outcome.requests as f64 / self.outcome.seconds
    }

    /// The share of its core that the proxy used: near 1, the proxy was the limit.
    pub(crate) fn busy(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu * self.rate() / 1e6)
    }
}

pub(crate) fn drive(
    options: &Options,
    machine: &Machine,
    scratch: &Scratch,
    running: &Running,
) -> (Vec<Series>, Vec<Lacking>) {
    let (mut series, lacking) = line_up(options, running);
    for round in 0..options.rounds {
        let mut from = 0;
        while from < series.len() {
            let key = &series[from].scenario.key;
            let same = |one: &&Series| one.scenario.key == *key;
            let rows = series[from..].iter().take_while(same).count();
            for turn in 0..rows {
                let one = &mut series[from + (turn + round) % rows];
                progress(round, options.rounds, one);
                match measure(options, machine, scratch, running, one) {
                    Ok(cell) => one.rounds[round] = Some(cell),
                    Err(why) => eprintln!("{}, {}: {why}", one.row.title(), one.scenario.title),
                }
            }
            from += rows;
        }
    }
    clear_progress();
    (series, lacking)
}

/// Who takes part in what. One request shows whether a row can do what a scenario asks for; plain HTTP/1.1 all can, and
/// not to is a failure like any other.
fn line_up(options: &Options, running: &Running) -> (Vec<Series>, Vec<Lacking>) {
    let (mut series, mut lacking) = (Vec::new(), Vec::new());
    for scenario in &options.scenarios {
        for row in running.rows.iter().filter(|row| scenario.suits(**row)) {
            let expected = scenario.face == Face::Plain && scenario.protocol == Protocol::Http1;
            let spec = specify(scenario, *row, running, Amount::Counted { requests: 1 });
            match spec.and_then(|spec| if expected { Ok(()) } else { once(&spec) }) {
                Ok(()) => series.push(Series {
                    scenario: scenario.clone(),
                    row: *row,
                    rounds: vec![None; options.rounds],
                }),
                Err(why) => lacking.push(Lacking {
                    scenario: scenario.key.clone(),
                    row: *row,
                    why,
                }),
            }
        }
    }
    (series, lacking)
}

fn specify(
    scenario: &Scenario,
    row: Row,
    running: &Running,
    amount: Amount,
) -> Result<Spec, String> {
    let target = running.target(row, scenario)?;
    Ok(Spec {
        address: target.address,
        path: format!("{}/{}", target.prefix, scenario.segment),
        token: target.token,
        upload: scenario.upload,
        protocol: scenario.protocol,
        certificate: target.certificate,
        connections: scenario.connections,
        streams: scenario.streams,
        amount,
    })
}

fn measure(
    options: &Options,
    machine: &Machine,
    scratch: &Scratch,
    running: &Running,
    one: &Series,
) -> Result<Cell, String> {
    let seconds = options.seconds;
    let amount = match one.scenario.rate {
        Some(rate) => Amount::Paced { seconds, rate },
        None => Amount::Saturated { seconds },
    };
    let spec = specify(&one.scenario, one.row, running, amount)?;
    let target = running.target(one.row, &one.scenario)?;
    let mut before = CpuTime::default();
    let outcome = generate(machine, scratch, &spec, || {
        before = CpuTime::of(target.pids);
    })?;
    // The proxy has yet to notice that its clients have gone; that too is its work.
    std::thread::sleep(Duration::from_millis(50));
    let used = CpuTime::of(target.pids).since(before);
    let per_request = used.microseconds() / outcome.total.max(1) as f64;
    Ok(Cell {
        cpu: (!target.pids.is_empty()).then_some(per_request),
        outcome,
    })
}

/// Runs the generator in a process of its own; `opened` is called between its connections and its requests.
pub(crate) fn generate(
    machine: &Machine,
    scratch: &Scratch,
    spec: &Spec,
    opened: impl FnOnce(),
) -> Result<Outcome, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot find this executable: {error}"))?;
    let spec_text = serde_json::to_string(spec).map_err(|error| error.to_string())?;
    let mut command = machine.on_load_core(&own.to_string_lossy());
    let mut process = Process::spawn("load", command.args(["load", &spec_text]), scratch.path())?;
    let mut stdout = BufReader::new(process.stdout().ok_or("the generator has no stdout")?);
    let mut line = String::new();
    let read = stdout.read_line(&mut line);
    read.map_err(|error| format!("reading the generator: {error}"))?;
    if line.trim() != READY {
        return Err(process.last_words());
    }
    opened();
    process.tell("go")?;
    let limit = Instant::now() + longest(spec.amount) + Duration::from_secs(5);
    while process.ended().is_none() {
        if Instant::now() > limit {
            return Err("the generator does not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    stdout
        .read_to_string(&mut text)
        .map_err(|error| format!("reading the generator: {error}"))?;
    let outcome: Outcome = serde_json::from_str(&text).map_err(|_| process.last_words())?;
    if outcome.errors > 0 {
        eprintln!(
            "{} errors at {}{}; {}",
            outcome.errors,
            spec.address,
            spec.path,
            process.last_words()
        );
    }
    Ok(outcome)
}

/// A line that overwrites itself, only for a person's eyes.
fn progress(round: usize, rounds: usize, one: &Series) {
    if std::io::stderr().is_terminal() {
        eprint!(
            "\r\x1b[Kround {}/{rounds}: {}, {}",
            round + 1,
            one.scenario.title,
            one.row.title()
        );
        let _ = std::io::stderr().flush();
    }
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
