//! The rounds: every contender under every load, in turn, again and again.
//!
//! The order rotates from round to round, so that nobody always follows the same neighbour or always meets a cold core.

use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use crate::contender::Running;
use crate::load::{Amount, Outcome, Spec, longest};
use crate::machine::Machine;
use crate::options::{Options, Row, Scenario};
use crate::process::{CpuTime, Process};
use crate::scratch::Scratch;

const CONNECTIONS: usize = 64;

/// What one contender did in one scenario, round by round; `None` is a round that failed.
pub(crate) struct Series {
    pub(crate) scenario: Scenario,
    pub(crate) row: Row,
    pub(crate) rounds: Vec<Option<Cell>>,
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
) -> Vec<Series> {
    let mut series = Vec::new();
    for scenario in &options.scenarios {
        for row in &running.rows {
            series.push(Series {
                scenario: scenario.clone(),
                row: *row,
                rounds: vec![None; options.rounds],
            });
        }
    }
    let rows = running.rows.len();
    for round in 0..options.rounds {
        for scenario in 0..options.scenarios.len() {
            for turn in 0..rows {
                let one = &mut series[scenario * rows + (turn + round) % rows];
                progress(round, options.rounds, one);
                match measure(options, machine, scratch, running, one) {
                    Ok(cell) => one.rounds[round] = Some(cell),
                    Err(why) => eprintln!("{}, {}: {why}", one.row.title(), one.scenario.title),
                }
            }
        }
    }
    clear_progress();
    series
}

fn measure(
    options: &Options,
    machine: &Machine,
    scratch: &Scratch,
    running: &Running,
    one: &Series,
) -> Result<Cell, String> {
    let target = running.target(one.row);
    let seconds = options.seconds;
    let spec = Spec {
        address: target.address,
        path: format!("{}/{}", target.prefix, one.scenario.segment),
        token: target.token,
        upload: one.scenario.upload,
        connections: CONNECTIONS,
        amount: match one.scenario.rate {
            Some(rate) => Amount::Paced { seconds, rate },
            None => Amount::Saturated { seconds },
        },
    };
    let before = CpuTime::of(target.pids);
    let outcome = generate(machine, scratch, &spec)?;
    // The proxy has yet to notice that 64 clients have gone; that too is its work.
    std::thread::sleep(Duration::from_millis(50));
    let used = CpuTime::of(target.pids).since(before);
    let per_request = used.microseconds() / outcome.total.max(1) as f64;
    Ok(Cell {
        cpu: (!target.pids.is_empty()).then_some(per_request),
        outcome,
    })
}

/// Runs the generator in a process of its own.
pub(crate) fn generate(
    machine: &Machine,
    scratch: &Scratch,
    spec: &Spec,
) -> Result<Outcome, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot find this executable: {error}"))?;
    let spec_text = serde_json::to_string(spec).map_err(|error| error.to_string())?;
    let mut command = machine.on_load_core(&own.to_string_lossy());
    let mut process = Process::spawn("load", command.args(["load", &spec_text]), scratch.path())?;
    let limit = Instant::now() + longest(spec.amount) + Duration::from_secs(5);
    while process.ended().is_none() {
        if Instant::now() > limit {
            return Err("the generator does not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    let mut stdout = process.stdout().ok_or("the generator has no stdout")?;
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
