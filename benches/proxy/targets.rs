//! What the figures are held against: a bound that must hold, and one that is the goal.
//!
//! A bound on a ratio is met when the median is within it; the range beside it says how surely.

use std::fmt;

use crate::contender::Proxy;
use crate::lane::Protocol;
use crate::options::{Face, Row, Scenario};
use crate::report::{Report, median, shown};
use crate::rounds::{Cell, Lacking, Series};

#[derive(Clone, Copy)]
struct Bounds {
    must: f64,
    goal: f64,
}

impl Bounds {
    fn verdict(self, figure: Option<f64>) -> &'static str {
        match figure {
            None => "not measured",
            Some(figure) if figure <= self.goal => "met, goal met",
            Some(figure) if figure <= self.must => "met, goal not met",
            Some(_) => "NOT MET",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    Cpu,
    P99,
}

impl Figure {
    fn of(self, cell: &Cell) -> Option<f64> {
        match self {
            Figure::Cpu => cell.cpu,
            Figure::P99 => Some(cell.outcome.p99),
        }
    }
}

/// A bound on a row's figure in a scenario, divided by a peer's.
struct Target {
    scenario: &'static str,
    row: Row,
    figure: Figure,
    against: Row,
    bounds: Bounds,
}

const fn target(
    scenario: &'static str,
    row: Row,
    figure: Figure,
    against: Row,
    [must, goal]: [f64; 2],
) -> Target {
    Target {
        scenario,
        row,
        figure,
        against,
        bounds: Bounds { must, goal },
    }
}

const TARGETS: [Target; 16] = {
    use Figure::{Cpu, P99};
    use Row::{Haproxy, Nginx, Pass, Verified};
    [
        target("1k", Pass, Cpu, Nginx, [0.90, 0.72]),
        target("1k", Verified, Cpu, Nginx, [1.00, 0.80]),
        target("1k", Verified, Cpu, Haproxy, [1.10, 0.90]),
        target("fixed8k", Pass, Cpu, Nginx, [0.90, 0.72]),
        target("fixed8k", Verified, Cpu, Nginx, [0.95, 0.75]),
        target("fixed8k", Verified, Cpu, Haproxy, [1.10, 0.90]),
        target("fixed8k", Verified, P99, Nginx, [1.2, 1.0]),
        target("down1m", Pass, Cpu, Nginx, [0.70, 0.40]),
        target("down1m", Verified, Cpu, Nginx, [0.70, 0.40]),
        target("up10m", Pass, Cpu, Nginx, [0.70, 0.40]),
        target("up10m", Verified, Cpu, Nginx, [0.70, 0.40]),
        target("tls", Pass, Cpu, Nginx, [1.0, 0.80]),
        target("tls", Verified, Cpu, Nginx, [1.0, 0.80]),
        target("handshake", Pass, Cpu, Nginx, [0.70, 0.65]),
        target("handshake", Verified, Cpu, Nginx, [0.70, 0.65]),
        target("h2", Verified, Cpu, Haproxy, [1.5, 1.0]),
    ]
};

/// The width of a line's ratios.
const BEFORE_BOUNDS: usize = 95;

/// The scenarios of one table.
fn group(scenario: &Scenario) -> &'static str {
    match (scenario.protocol, scenario.face) {
        (Protocol::Http2, _) => "HTTP/2",
        (Protocol::WebSocket, _) => "WebSocket",
        (_, Face::Tls) => "TLS 1.3",
        _ if scenario.megabytes.is_some() => "large bodies",
        _ => "HTTP/1.1",
    }
}

impl Report<'_> {
    /// One table for each group of scenarios, then one for what is not a ratio.
    pub(crate) fn write_targets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<&str> = Vec::new();
        for scenario in &self.options.scenarios {
            if !groups.contains(&group(scenario)) {
                groups.push(group(scenario));
            }
        }
        for name in groups {
            writeln!(
                f,
                "\n{:<47}{:>8} {:<14}{:>10} {:<14}  {:<9}{:>5}{:>6}",
                format!("targets: {name}"),
                "÷ nginx",
                "(min..max)",
                "÷ HAProxy",
                "(min..max)",
                "bound",
                "must",
                "goal"
            )?;
            let belongs = |series: &&Series| group(&series.scenario) == name;
            for series in self.rounds.iter().filter(belongs) {
                if matches!(series.row, Row::Direct | Row::Nginx) {
                    continue;
                }
                self.write_ratios(f, series, Figure::Cpu)?;
                if series.scenario.rate.is_some() {
                    self.write_ratios(f, series, Figure::P99)?;
                }
            }
            for scenario in &self.options.scenarios {
                let lacking = self.lacking.iter();
                let same = |one: &&Lacking| one.scenario == scenario.key;
                for one in lacking.filter(same).filter(|_| group(scenario) == name) {
                    let (key, row) = (&one.scenario, one.row.title());
                    writeln!(f, "  {key:<11}{row:<34}not supported by this binary")?;
                }
            }
        }
        self.write_limits(f)
    }

    /// A line for the figure's ratios, and one more for each further bound.
    fn write_ratios(
        &self,
        f: &mut fmt::Formatter<'_>,
        series: &Series,
        figure: Figure,
    ) -> fmt::Result {
        let key = &series.scenario.key;
        let ratio = |against| self.ratio(series, against, |cell| figure.of(cell));
        let range = |ratio: Option<[f64; 3]>| {
            ratio.map_or_else(String::new, |[_, least, most]| {
                format!("({least:.2}..{most:.2})")
            })
        };
        let middle = |ratio: Option<[f64; 3]>| ratio.map(|[median, ..]| median);
        let (nginx, haproxy) = (ratio(Row::Nginx), ratio(Row::Haproxy));
        let what = match figure {
            Figure::Cpu => format!("{key:<11}{} CPU", series.row.title()),
            Figure::P99 => format!("{key:<11}{} p99", series.row.title()),
        };
        let mut line = format!(
            "  {what:<45}{:>8} {:<14}{:>10} {:<14}",
            shown(middle(nginx), 2),
            range(nginx),
            shown(middle(haproxy), 2),
            range(haproxy),
        );
        let mine = |target: &&Target| {
            target.scenario == *key && target.row == series.row && target.figure == figure
        };
        for (index, target) in TARGETS.iter().filter(mine).enumerate() {
            let (against, name) = match target.against {
                Row::Haproxy => (haproxy, "÷ HAProxy"),
                _ => (nginx, "÷ nginx"),
            };
            if index > 0 {
                writeln!(f, "{line}")?;
                line = " ".repeat(BEFORE_BOUNDS);
            }
            let Bounds { must, goal } = target.bounds;
            let verdict = target.bounds.verdict(middle(against));
            line.push_str(&format!("  {name:<9}{must:>5.2}{goal:>6.2}  {verdict}"));
        }
        writeln!(f, "{}", line.trim_end())
    }

    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self
            .memory
            .iter()
            .find(|(proxy, _)| *proxy == Proxy::Sidecar);
        let Some((_, memory)) = memory else {
            return Ok(());
        };
        let mebibytes = |kibibytes: u64| Some(kibibytes as f64 / 1024.0);
        let crowd = self
            .crowds
            .iter()
            .find(|(proxy, _)| *proxy == Proxy::Sidecar);
        let crowd = crowd.and_then(|(_, idle)| idle.as_ref().ok());
        let counted = self
            .instructions
            .iter()
            .find(|(row, _)| *row == Row::Verified);
        let driven = |series: &Series| series.scenario.face == Face::Plain;
        let peak = mebibytes(memory.peak).filter(|_| self.rounds.iter().any(driven));
        let binary = std::fs::metadata(&self.options.sidecar).ok();
        let lines = [
            (
                "user-space instructions per verified request",
                counted.and_then(|(_, count)| count.as_ref().ok().copied()),
                [30_000.0, 12_000.0],
                0,
            ),
            ("idle memory, MiB", mebibytes(memory.now), [10.0, 6.0], 1),
            (
                "peak memory under the HTTP/1.1 loads, MiB",
                peak,
                [14.0, 10.0],
                1,
            ),
            (
                "memory per idle connection, KiB",
                crowd.map(|idle| idle.bytes / 1024.0),
                [14.0, 2.0],
                2,
            ),
            (
                "start to first answer, ms",
                median(self.start_times(Proxy::Sidecar)),
                [100.0, 20.0],
                1,
            ),
            (
                "binary, MB",
                binary.map(|file| file.len() as f64 / 1e6),
                [15.0, 8.0],
                1,
            ),
        ];
        writeln!(
            f,
            "\n{:<55}{:>10}{:>9}{:>9}",
            "targets: the sidecar's process", "measured", "must", "goal"
        )?;
        for (what, figure, [must, goal], decimals) in lines {
            let verdict = Bounds { must, goal }.verdict(figure);
            let figure = shown(figure, decimals);
            writeln!(f, "  {what:<53}{figure:>10}{must:>9}{goal:>9}  {verdict}")?;
        }
        Ok(())
    }
}
