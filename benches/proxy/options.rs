//! The command line: what is compared, under which load, for how long.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench proxy -- [options]

  --rounds N           rounds, interleaved (5)
  --seconds S          seconds for each contender, scenario and round (2)
  --quick              2 rounds of 1 second, 3 starts
  --only A,B           direct, nginx, haproxy, pass, verified; sidecar means the last two (all)
  --scenarios A,B      1k, 16k, upload64k, fixed<N>k such as fixed8k (1k,16k,upload64k,fixed8k)
  --no-callgrind       do not count instructions
  --sidecar PATH       the sidecar's binary (the one cargo has built)
  --json FILE          also write every round's figures to FILE";

/// What the caller wants.
pub(crate) enum Asked {
    Run(Options),
    Usage,
}

pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) callgrind: bool,
    pub(crate) sidecar: PathBuf,
    pub(crate) json: Option<PathBuf>,
    /// How often each proxy is started to time its start.
    pub(crate) starts: usize,
}

/// A line in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// No proxy: shows what generator and app can do, so that they are not taken for a proxy's limit.
    Direct,
    Nginx,
    Haproxy,
    /// The sidecar, `auth = "none"`.
    Pass,
    /// The sidecar, token checked and identity injected.
    Verified,
}

const ROWS: [Row; 5] = [
    Row::Direct,
    Row::Nginx,
    Row::Haproxy,
    Row::Pass,
    Row::Verified,
];

impl Row {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Row::Direct => "direct",
            Row::Nginx => "nginx",
            Row::Haproxy => "haproxy",
            Row::Pass => "pass",
            Row::Verified => "verified",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Row::Direct => "direct (no proxy)",
            Row::Nginx => "nginx pass-through",
            Row::Haproxy => "HAProxy pass-through",
            Row::Pass => "sidecar pass-through",
            Row::Verified => "sidecar verified+enriched",
        }
    }

    fn parse(word: &str) -> Result<Vec<Row>, String> {
        if word == "sidecar" {
            return Ok(vec![Row::Pass, Row::Verified]);
        }
        ROWS.into_iter()
            .find(|row| row.key() == word)
            .map(|row| vec![row])
            .ok_or_else(|| format!("--only knows no {word:?}"))
    }
}

/// A kind of load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: String,
    pub(crate) title: String,
    /// The last segment of the path.
    pub(crate) segment: &'static str,
    pub(crate) upload: Option<usize>,
    /// Requests a second; `None` saturates.
    pub(crate) rate: Option<u32>,
}

impl Scenario {
    fn parse(word: &str) -> Result<Scenario, String> {
        let saturated = |title: &str, segment, upload| Scenario {
            key: word.to_owned(),
            title: format!("{title}, saturated"),
            segment,
            upload,
            rate: None,
        };
        match word {
            "1k" => return Ok(saturated("1 KB answers", "1k", None)),
            "16k" => return Ok(saturated("16 KB answers", "16k", None)),
            "upload64k" => return Ok(saturated("64 KB uploads", "upload", Some(64 * 1024))),
            _ => {}
        }
        let thousands = word
            .strip_prefix("fixed")
            .and_then(|rest| rest.strip_suffix('k'));
        match thousands.and_then(|number| number.parse::<u32>().ok()) {
            Some(thousands @ 1..=1000) => Ok(Scenario {
                key: word.to_owned(),
                title: format!("1 KB answers, fixed {thousands},000 requests/s"),
                segment: "1k",
                upload: None,
                rate: Some(thousands * 1000),
            }),
            _ => Err(format!("--scenarios knows no {word:?}")),
        }
    }
}

impl Options {
    /// `cargo bench` passes `--bench`; without it this was started by `cargo test --all-targets`, which must not take
    /// minutes to measure what nobody asked for.
    pub(crate) fn parse(arguments: &[String]) -> Result<Asked, String> {
        if !arguments.iter().any(|argument| argument == "--bench") {
            return Ok(Asked::Usage);
        }
        let mut options = Options {
            rounds: 5,
            seconds: 2.0,
            rows: ROWS.to_vec(),
            scenarios: list("1k,16k,upload64k,fixed8k", Scenario::parse)?,
            callgrind: true,
            sidecar: PathBuf::from(env!("CARGO_BIN_EXE_wx-sidecar")),
            json: None,
            starts: 10,
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                rest.next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--bench" => {}
                "--rounds" => options.rounds = number(argument, value()?)?,
                "--seconds" => options.seconds = number(argument, value()?)?,
                "--quick" => (options.rounds, options.seconds, options.starts) = (2, 1.0, 3),
                "--only" => {
                    let named = list(value()?, Row::parse)?.concat();
                    options.rows = ROWS.into_iter().filter(|row| named.contains(row)).collect();
                }
                "--scenarios" => options.scenarios = list(value()?, Scenario::parse)?,
                "--no-callgrind" => options.callgrind = false,
                "--sidecar" => options.sidecar = PathBuf::from(value()?),
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--help" | "-h" => return Ok(Asked::Usage),
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        if options.rounds == 0 || !(0.1..=600.0).contains(&options.seconds) {
            return Err("--rounds must be 1 or more, --seconds from 0.1 to 600".to_owned());
        }
        Ok(Asked::Run(options))
    }
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(|word| parse(word.trim())).collect()
}

fn number<T: std::str::FromStr>(option: &str, word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{option} needs a number, not {word:?}"))
}
