//! The tables, and the same as JSON.
//!
//! A figure is the median over the rounds. A ratio is taken within each round first, then the median of those; the
//! range beside it is from the smallest to the largest, and says how much to believe.

use std::fmt;

use serde_json::{Value, json};

use crate::contender::Proxy;
use crate::idle::Idle;
use crate::machine::Machine;
use crate::options::{Options, Row, Scenario};
use crate::process::Memory;
use crate::rounds::{Cell, Lacking, Series};

pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) machine: &'a Machine,
    pub(crate) rounds: Vec<Series>,
    pub(crate) lacking: Vec<Lacking>,
    pub(crate) started: Vec<(Proxy, Vec<f64>)>,
    pub(crate) memory: Vec<(Proxy, Memory)>,
    pub(crate) crowds: Vec<(Proxy, Result<Idle, String>)>,
    pub(crate) instructions: Vec<(Row, Result<f64, String>)>,
    /// What is odd about the accounting.
    pub(crate) accounting: Vec<String>,
}

/// Characters of the reason why a row is lacking.
const LONGEST_REASON: usize = 200;

/// Below this share of the asked rate, a round did not hold it.
const HELD: f64 = 0.99;

impl Report<'_> {
    pub(crate) fn errors(&self) -> u64 {
        let cells = self
            .rounds
            .iter()
            .flat_map(|series| series.rounds.iter().flatten());
        let missing = self
            .rounds
            .iter()
            .flat_map(|series| &series.rounds)
            .filter(|cell| cell.is_none())
            .count();
        let crowds = self.crowds.iter().filter(|(_, idle)| idle.is_err());
        let missing = missing + crowds.count();
        cells.map(|cell| cell.outcome.errors).sum::<u64>() + missing as u64
    }

    pub(crate) fn to_json(&self) -> String {
        let cell = |cell: &Option<Cell>| {
            cell.as_ref().map(
                |cell| json!({ "load": cell.outcome, "cpu_us": cell.cpu, "busy": cell.busy() }),
            )
        };
        let series = |series: &Series| {
            json!({
                "scenario": series.scenario.key,
                "row": series.row.key(),
                "rounds": series.rounds.iter().map(cell).collect::<Vec<_>>(),
                "median": {
                    "requests_per_second": series.median(|cell| Some(cell.rate())),
                    "p50_us": series.median(|cell| Some(cell.outcome.p50)),
                    "p99_us": series.median(|cell| Some(cell.outcome.p99)),
                    "cpu_us": series.median(|cell| cell.cpu),
                },
                "cpu_to_nginx": self.ratio(series, Row::Nginx, |cell| cell.cpu),
                "cpu_to_haproxy": self.ratio(series, Row::Haproxy, |cell| cell.cpu),
                "p99_to_nginx": self.ratio(series, Row::Nginx, |cell| Some(cell.outcome.p99)),
            })
        };
        let processes: Vec<Value> = self
            .memory
            .iter()
            .map(|(proxy, memory)| {
                json!({
                    "proxy": proxy.name(),
                    "idle_kib": memory.now,
                    "peak_kib": memory.peak,
                    "start_ms": self.start_times(*proxy),
                })
            })
            .collect();
        let instructions: Vec<Value> = self
            .instructions
            .iter()
            .map(|(row, counted)| json!({ "row": row.key(), "per_request": counted.as_ref().ok() }))
            .collect();
        let crowds: Vec<Value> = self
            .crowds
            .iter()
            .filter_map(|(proxy, idle)| Some((proxy, idle.as_ref().ok()?)))
            .map(|(proxy, idle)| {
                json!({
                    "proxy": proxy.name(),
                    "connections": idle.held,
                    "alive_at_the_end": idle.alive,
                    "bytes_per_connection": idle.bytes,
                    "fresh_request_us": { "median": idle.fresh[0], "worst": idle.fresh[1] },
                })
            })
            .collect();
        let lacking: Vec<Value> = self
            .lacking
            .iter()
            .map(|one| json!({ "scenario": one.scenario, "row": one.row.key(), "why": one.why }))
            .collect();
        let report = json!({
            "machine": self.machine.to_json(),
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "series": self.rounds.iter().map(series).collect::<Vec<_>>(),
            "lacking": lacking,
            "processes": processes,
            "idle": crowds,
            "instructions": instructions,
        });
        format!("{report:#}\n")
    }

    pub(crate) fn start_times(&self, proxy: Proxy) -> &[f64] {
        self.started
            .iter()
            .find(|(started, _)| *started == proxy)
            .map_or(&[], |(_, times)| times)
    }

    /// `figure` of `series` divided by that of `base` in the same scenario, round by round.
    pub(crate) fn ratio(
        &self,
        series: &Series,
        base: Row,
        figure: impl Fn(&Cell) -> Option<f64>,
    ) -> Option<[f64; 3]> {
        let same = |other: &&Series| other.row == base && other.scenario.key == series.scenario.key;
        let base = self.rounds.iter().find(same)?;
        let paired = series.rounds.iter().zip(&base.rounds);
        let ratios: Vec<f64> = paired
            .filter_map(|(own, base)| Some(figure(own.as_ref()?)? / figure(base.as_ref()?)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        Some([
            median(&ratios)?,
            ratios.iter().copied().reduce(f64::min)?,
            ratios.iter().copied().reduce(f64::max)?,
        ])
    }

    fn write_scenario(&self, f: &mut fmt::Formatter<'_>, scenario: &Scenario) -> fmt::Result {
        write!(
            f,
            "\n{}, {} connections",
            scenario.title, scenario.connections
        )?;
        if scenario.streams > 1 {
            write!(f, " of {} streams", scenario.streams)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  {:<26}{:>11}{:>9}{:>9}{:>9}{:>7}{:>9}  {:<14}{:>9}{:>9}{:>8}",
            "",
            format!("{}s/s", scenario.unit),
            "p50 µs",
            "p99 µs",
            if scenario.megabytes.is_some() {
                "µs/MB"
            } else {
                "CPU µs"
            },
            "busy",
            "÷ nginx",
            "(min..max)",
            "÷ HAPr.",
            "p99 ÷ n.",
            "errors"
        )?;
        let (mut fell_behind, mut clock_late) = (false, 0.0_f64);
        for series in self
            .rounds
            .iter()
            .filter(|series| series.scenario.key == scenario.key)
        {
            let held = |cell: &Cell| {
                scenario
                    .rate
                    .is_none_or(|rate| cell.rate() >= HELD * f64::from(rate))
            };
            let behind = !series.rounds.iter().flatten().all(held);
            fell_behind |= behind;
            clock_late = clock_late.max(
                series
                    .median(|cell| Some(cell.outcome.clock_late_p99))
                    .unwrap_or(0.0),
            );
            let to_nginx = self.ratio(series, Row::Nginx, |cell| cell.cpu);
            let first = |ratio: Option<[f64; 3]>| ratio.map(|[median, ..]| median);
            writeln!(
                f,
                "{} {:<26}{:>11}{:>9}{:>9}{:>9}{:>7}{:>9}  {:<14}{:>9}{:>9}{:>8}",
                if behind { "!" } else { " " },
                series.row.title(),
                shown(series.median(|cell| Some(cell.rate())), 0),
                shown(series.median(|cell| Some(cell.outcome.p50)), 0),
                shown(series.median(|cell| Some(cell.outcome.p99)), 0),
                shown(
                    series.median(|cell| Some(cell.cpu? / scenario.megabytes.unwrap_or(1.0))),
                    2
                ),
                shown(series.median(Cell::busy), 2),
                shown(first(to_nginx), 2),
                to_nginx.map_or_else(String::new, |[_, least, most]| format!(
                    "({least:.2}..{most:.2})"
                )),
                shown(first(self.ratio(series, Row::Haproxy, |cell| cell.cpu)), 2),
                shown(
                    first(self.ratio(series, Row::Nginx, |cell| Some(cell.outcome.p99))),
                    2
                ),
                series
                    .rounds
                    .iter()
                    .flatten()
                    .map(|cell| cell.outcome.errors)
                    .sum::<u64>(),
            )?;
        }
        let lacking = self.lacking.iter();
        for one in lacking.filter(|one| one.scenario == scenario.key) {
            let words: Vec<&str> = one.why.split_whitespace().collect();
            let why: String = words.join(" ").chars().take(LONGEST_REASON).collect();
            writeln!(
                f,
                "- {:<26}not supported by this binary: {why}",
                one.row.title()
            )?;
        }
        if scenario.rate.is_some() {
            writeln!(
                f,
                "  latency counts from when a request was due; the generator's own clock: p99 {clock_late:.0} µs late"
            )?;
        }
        if fell_behind {
            writeln!(
                f,
                "! the rate was not held in every round: the row's latencies are those of an overload"
            )?;
        }
        Ok(())
    }
}

impl Report<'_> {
    fn write_crowds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.crowds.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nidle keep-alive connections; a fresh one with its request meanwhile"
        )?;
        writeln!(
            f,
            "  {:<12}{:>10}{:>10}{:>12}{:>12}{:>10}",
            "", "held", "alive", "bytes each", "fresh µs", "worst"
        )?;
        for (proxy, idle) in &self.crowds {
            match idle {
                Ok(idle) => writeln!(
                    f,
                    "{} {:<12}{:>10}{:>10}{:>12.0}{:>12.0}{:>10.0}",
                    if idle.alive < idle.held { "!" } else { " " },
                    proxy.name(),
                    idle.held,
                    idle.alive,
                    idle.bytes,
                    idle.fresh[0],
                    idle.fresh[1],
                )?,
                Err(why) => writeln!(f, "  {:<12}{:>10}  {why}", proxy.name(), "-")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, seconds) = (self.options.rounds, self.options.seconds);
        writeln!(
            f,
            "\nmedians of {rounds} interleaved rounds of {seconds} s; CPU per request (or megabyte, handshake, echo), its ratios taken round by round"
        )?;
        for scenario in &self.options.scenarios {
            self.write_scenario(f, scenario)?;
        }

        writeln!(f, "\nstart to first answer; memory (resident, MiB)")?;
        writeln!(
            f,
            "  {:<12}{:>10}  {:<18}{:>10}{:>10}",
            "", "start ms", "(min..max)", "idle", "peak"
        )?;
        for (proxy, memory) in &self.memory {
            let times = self.start_times(*proxy);
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            let most = times.iter().copied().fold(0.0, f64::max);
            writeln!(
                f,
                "  {:<12}{:>10}  {:<18}{:>10.1}{:>10.1}",
                proxy.name(),
                shown(median(times), 1),
                format!("({least:.1}..{most:.1})"),
                memory.now as f64 / 1024.0,
                memory.peak as f64 / 1024.0,
            )?;
        }

        self.write_crowds(f)?;
        if !self.instructions.is_empty() {
            writeln!(
                f,
                "\nuser-space instructions per request, 1 KB (callgrind; cryptography may run other code there)"
            )?;
            for (row, counted) in &self.instructions {
                match counted {
                    Ok(count) => writeln!(f, "  {:<26}{count:>11.0}", row.title())?,
                    Err(why) => writeln!(f, "  {:<26}{:>11}  {why}", row.title(), "-")?,
                }
            }
        }
        for note in &self.accounting {
            writeln!(f, "\n{note}")?;
        }
        self.write_targets(f)
    }
}

impl Series {
    fn median(&self, figure: impl Fn(&Cell) -> Option<f64>) -> Option<f64> {
        let figures: Vec<f64> = self.rounds.iter().flatten().filter_map(figure).collect();
        median(&figures)
    }
}

pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

pub(crate) fn shown(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"))
}
