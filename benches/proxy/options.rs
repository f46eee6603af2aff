//! The command line: what is compared, under which load, for how long.

use std::path::PathBuf;
use std::time::Duration;

use crate::lane::Protocol;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench proxy -- [options]

  --rounds N           rounds, interleaved (5)
  --seconds S          seconds for each contender, scenario and round (2)
  --quick              all of it in a minute, to see that it works; the figures mean little
  --only A,B           direct, nginx, haproxy, pingora, pass, verified, logged; sidecar means the last three (all)
  --scenarios A,B      1k, fixed<N>k such as fixed8k, 16k, upload64k, down1m, up10m, tls, handshake, h2, ws, idle
                       (all, with fixed8k)
  --no-callgrind       do not count instructions
  --sidecar PATH       the sidecar's binary (the one cargo has built)
  --store URL          a Redis for the sidecar's store, such as redis://127.0.0.1:6379 (its memory)
  --pingora PATH       the binary of benches/pingora (where make bench builds it)
  --json FILE          also write every round's figures to FILE";

/// What the caller wants.
pub(crate) enum Asked {
    Run(Box<Options>),
    Usage,
}

pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) callgrind: bool,
    /// Whether instructions are counted for others than the sidecar.
    pub(crate) peers_under_callgrind: bool,
    /// Idle connections to hold, where that is asked for.
    pub(crate) idle: Option<usize>,
    /// How long they are idle before the memory is looked at.
    pub(crate) idle_settle: Duration,
    pub(crate) sidecar: PathBuf,
    pub(crate) store: Option<String>,
    pub(crate) pingora: PathBuf,
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
    Pingora,
    /// The sidecar, `auth = "none"`.
    Pass,
    /// The sidecar, token checked and identity injected.
    Verified,
    /// The same, with a line in the access log for each request, which somebody reads.
    Logged,
}

const ROWS: [Row; 7] = [
    Row::Direct,
    Row::Nginx,
    Row::Haproxy,
    Row::Pingora,
    Row::Pass,
    Row::Verified,
    Row::Logged,
];

impl Row {
    /// Whether its requests show a token.
    pub(crate) fn is_verified(self) -> bool {
        matches!(self, Row::Verified | Row::Logged)
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Row::Direct => "direct",
            Row::Nginx => "nginx",
            Row::Haproxy => "haproxy",
            Row::Pingora => "pingora",
            Row::Pass => "pass",
            Row::Verified => "verified",
            Row::Logged => "logged",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Row::Direct => "direct (no proxy)",
            Row::Nginx => "nginx pass-through",
            Row::Haproxy => "HAProxy pass-through",
            Row::Pingora => "pingora pass-through",
            Row::Pass => "sidecar pass-through",
            Row::Verified => "sidecar verified+enriched",
            Row::Logged => "the same, with access log",
        }
    }

    fn parse(word: &str) -> Result<Vec<Row>, String> {
        if word == "sidecar" {
            return Ok(vec![Row::Pass, Row::Verified, Row::Logged]);
        }
        ROWS.into_iter()
            .find(|row| row.key() == word)
            .map(|row| vec![row])
            .ok_or_else(|| format!("--only knows no {word:?}"))
    }
}

/// How a proxy faces its clients: each face is a process of its own, so that none carries another's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Plain,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    Tls,
    /// Room for thousands of idle connections.
    Crowd,
}

impl Face {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Face::Plain => "HTTP/1.1",
            Face::Http2 => "HTTP/2",
            Face::Tls => "TLS",
            Face::Crowd => "many connections",
        }
    }
}

/// A kind of load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) face: Face,
    pub(crate) protocol: Protocol,
    /// The last segment of the path.
    pub(crate) segment: &'static str,
    pub(crate) upload: Option<usize>,
    /// Requests a second; `None` saturates.
    pub(crate) rate: Option<u32>,
    pub(crate) connections: usize,
    /// Requests at once on each connection.
    pub(crate) streams: usize,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// Where bytes are what costs: megabytes per request.
    pub(crate) megabytes: Option<f64>,
}

/// What most scenarios have in common.
const USUAL: Scenario = Scenario {
    key: String::new(),
    title: String::new(),
    face: Face::Plain,
    protocol: Protocol::Http1,
    segment: "1k",
    upload: None,
    rate: None,
    connections: 64,
    streams: 1,
    unit: "request",
    megabytes: None,
};

const MEGABYTE: usize = 1024 * 1024;
const ALL: &str = "1k,fixed8k,16k,upload64k,down1m,up10m,tls,handshake,h2,ws,idle";

impl Scenario {
    fn parse(word: &str) -> Result<Scenario, String> {
        let named = |title: &str, what: Scenario| Scenario {
            key: word.to_owned(),
            title: title.to_owned(),
            ..what
        };
        Ok(match word {
            "1k" => named("1 KB answers, saturated", USUAL),
            "16k" => named(
                "16 KB answers, saturated",
                Scenario {
                    segment: "16k",
                    ..USUAL
                },
            ),
            "upload64k" => named(
                "64 KB uploads, saturated",
                Scenario {
                    segment: "upload",
                    upload: Some(64 * 1024),
                    ..USUAL
                },
            ),
            "down1m" => named(
                "1 MB downloads, saturated",
                Scenario {
                    segment: "1m",
                    connections: 8,
                    megabytes: Some(1.0),
                    ..USUAL
                },
            ),
            "up10m" => named(
                "10 MB uploads, saturated",
                Scenario {
                    segment: "upload",
                    upload: Some(10 * MEGABYTE),
                    connections: 4,
                    megabytes: Some(10.0),
                    ..USUAL
                },
            ),
            "tls" => named(
                "TLS 1.3, 1 KB answers, saturated",
                Scenario {
                    face: Face::Tls,
                    ..USUAL
                },
            ),
            "handshake" => named(
                "TLS 1.3 full handshakes with one request each, saturated",
                Scenario {
                    face: Face::Tls,
                    protocol: Protocol::Handshake,
                    connections: 16,
                    unit: "handshake",
                    ..USUAL
                },
            ),
            "h2" => named(
                "HTTP/2 without TLS, 1 KB answers, saturated",
                Scenario {
                    face: Face::Http2,
                    protocol: Protocol::Http2,
                    connections: 8,
                    streams: 8,
                    ..USUAL
                },
            ),
            "ws" => named(
                "WebSocket, echo of small frames, saturated",
                Scenario {
                    protocol: Protocol::WebSocket,
                    segment: "ws",
                    unit: "echo",
                    ..USUAL
                },
            ),
            _ => {
                let thousands = word
                    .strip_prefix("fixed")
                    .and_then(|rest| rest.strip_suffix('k'));
                match thousands.and_then(|number| number.parse::<u32>().ok()) {
                    Some(thousands @ 1..=1000) => named(
                        &format!("1 KB answers, fixed {thousands},000 requests/s"),
                        Scenario {
                            rate: Some(thousands * 1000),
                            ..USUAL
                        },
                    ),
                    _ => return Err(format!("--scenarios knows no {word:?}")),
                }
            }
        })
    }

    /// The app itself speaks HTTP/1.1 only. What a line of the log costs, small requests tell.
    pub(crate) fn suits(&self, row: Row) -> bool {
        match row {
            Row::Direct => self.face == Face::Plain,
            Row::Logged => self.face == Face::Plain && self.segment == USUAL.segment,
            _ => true,
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
            scenarios: Vec::new(),
            callgrind: true,
            peers_under_callgrind: true,
            idle: None,
            idle_settle: Duration::from_secs(3),
            sidecar: PathBuf::from(env!("CARGO_BIN_EXE_wx-sidecar")),
            store: None,
            pingora: beside_this("pingora/release/bench-pingora"),
            json: None,
            starts: 10,
        };
        let mut crowd = 10_000;
        let mut scenarios = ALL.to_owned();
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
                "--quick" => {
                    (options.rounds, options.seconds, options.starts) = (1, 0.3, 2);
                    options.idle_settle = Duration::from_secs(1);
                    options.peers_under_callgrind = false;
                    crowd = 2_000;
                }
                "--only" => {
                    let named = list(value()?, Row::parse)?.concat();
                    options.rows = ROWS.into_iter().filter(|row| named.contains(row)).collect();
                }
                "--scenarios" => scenarios.clone_from(value()?),
                "--no-callgrind" => options.callgrind = false,
                "--sidecar" => options.sidecar = absolute(value()?)?,
                "--store" => options.store = Some(value()?.clone()),
                "--pingora" => options.pingora = absolute(value()?)?,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--help" | "-h" => return Ok(Asked::Usage),
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        if options.rounds == 0 || !(0.1..=600.0).contains(&options.seconds) {
            return Err("--rounds must be 1 or more, --seconds from 0.1 to 600".to_owned());
        }
        let (idle, driven): (Vec<&str>, Vec<&str>) = scenarios
            .split(',')
            .map(str::trim)
            .partition(|word| *word == "idle");
        options.idle = (!idle.is_empty()).then_some(crowd);
        options.scenarios = driven
            .into_iter()
            .map(Scenario::parse)
            .collect::<Result<_, _>>()?;
        Ok(Asked::Run(Box::new(options)))
    }

    /// The faces that the scenarios need; the plain one always, as it is also what is started and weighed.
    pub(crate) fn faces(&self) -> Vec<Face> {
        let needed = |face: &Face| self.scenarios.iter().any(|scenario| scenario.face == *face);
        let others = [Face::Http2, Face::Tls].into_iter().filter(needed);
        std::iter::once(Face::Plain).chain(others).collect()
    }
}

/// A path below cargo's target directory, where this executable is too, as `<profile>/deps/proxy-<hash>`.
fn beside_this(path: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(3).unwrap_or(&own).join(path)
}

/// The proxies are started in directories of their own.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(|word| parse(word.trim())).collect()
}

fn number<T: std::str::FromStr>(option: &str, word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{option} needs a number, not {word:?}"))
}
