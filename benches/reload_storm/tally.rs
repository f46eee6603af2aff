//! What is counted on the way, and how it is told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::generation::Generation;

/// So many examples of what should not have been are shown.
const SHOWN: usize = 10;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    /// TLS handshakes, and those of them that resumed a session.
    pub(crate) handshakes: usize,
    pub(crate) resumed: usize,
    /// Places where nobody was any more, or not yet, when somebody came.
    pub(crate) moved: usize,
    failures: BTreeMap<&'static str, usize>,
    mixtures: usize,
    examples: Vec<String>,
    /// How often somebody passed where once an hour is allowed.
    limited: HashMap<(Generation, String), usize>,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Why it did not come to its end: a reload was never seen.
    pub(crate) stuck: Option<String>,
    pub(crate) took: Duration,
    pub(crate) changes: usize,
    pub(crate) moves: usize,
    pub(crate) faults: usize,
    /// What the sidecar counted: reloads, refusals, panics.
    pub(crate) reloaded: f64,
    pub(crate) refused: f64,
    pub(crate) panics: f64,
    /// From the swap to the first request under the new configuration, sorted.
    pub(crate) delays: Vec<Duration>,
    /// How many reloads there had been before memory was first looked at.
    pub(crate) warm: usize,
    /// Resident, in KiB.
    pub(crate) memory_before: u64,
    pub(crate) memory_after: u64,
    pub(crate) memory_peak: u64,
}

impl Tally {
    pub(crate) fn failure(&mut self, kind: &'static str, what: &dyn fmt::Display) {
        *self.failures.entry(kind).or_default() += 1;
        self.example(format!("{kind}: {what}"));
    }

    pub(crate) fn mixture(&mut self, what: &str) {
        self.mixtures += 1;
        self.example(format!("mixture: {what}"));
    }

    /// Somebody passed where few may.
    pub(crate) fn passed_limit(&mut self, generation: Generation, openid: &str) {
        let key = (generation, openid.to_owned());
        let passed = self.limited.entry(key).or_default();
        *passed += 1;
        if *passed > 1 {
            let what = format!("{generation:?} let {passed} through a limit of one an hour");
            self.mixture(&what);
        }
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < SHOWN {
            self.examples.push(what);
        }
    }

    fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        let nobody_noticed = self.tally.failed() == 0 && self.tally.mixtures == 0;
        nobody_noticed && self.stuck.is_none() && self.counts_agree()
    }

    /// A reload may be two for the sidecar, as two volumes change; what is refused is refused once.
    fn counts_agree(&self) -> bool {
        self.reloaded >= self.changes as f64
            && self.refused == self.faults as f64
            && self.panics == 0.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, .. } = self;
        if let Some(why) = &self.stuck {
            writeln!(f, "stuck            {why}")?;
        }
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "requests         {} in {seconds:.0} s ({:.0}/s), on {} connections",
            tally.requests,
            tally.requests as f64 / seconds,
            tally.connections
        )?;
        writeln!(
            f,
            "TLS handshakes   {}, {} of them resumed",
            tally.handshakes, tally.resumed
        )?;
        writeln!(
            f,
            "reloads          {}: {} valid ({} to another place), {} invalid; the sidecar counted {} and {}",
            self.changes + self.faults,
            self.changes,
            self.moves,
            self.faults,
            self.reloaded,
            self.refused
        )?;
        if !self.counts_agree() {
            writeln!(
                f,
                "                 that does not agree, or there were panics: {}",
                self.panics
            )?;
        }
        writeln!(
            f,
            "found no one     {} times where the sidecar was not any more, or not yet",
            tally.moved
        )?;
        writeln!(f, "failed requests  {}", tally.failed())?;
        for (kind, count) in &tally.failures {
            writeln!(f, "                 {count} {kind}")?;
        }
        writeln!(f, "mixtures         {}", tally.mixtures)?;
        for example in &tally.examples {
            writeln!(f, "                 {example}")?;
        }
        let at = |share: f64| {
            let place = (self.delays.len() as f64 * share).ceil() as usize;
            let delay = self.delays.get(place.saturating_sub(1));
            delay.map_or(0, Duration::as_millis)
        };
        writeln!(
            f,
            "swap to request  median {} ms, 95 % {} ms, at most {} ms",
            at(0.5),
            at(0.95),
            at(1.0)
        )?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        write!(
            f,
            "resident memory  {:.1} MiB after {} reloads, {:.1} MiB after {}, {:.1} MiB at most",
            mib(self.memory_before),
            self.warm,
            mib(self.memory_after),
            self.changes + self.faults,
            mib(self.memory_peak)
        )
    }
}
