//! The proof that a reload hurts nobody: a million requests while the configuration changes a thousand times.
//!
//! The real binary follows a volume as Kubernetes mounts one. Each configuration differs from the one before in its upstreams,
//! routes, limits, secrets and certificate, and now and then in where it listens, so that every answer shows which one it was
//! given by; one in ten is invalid. Clients know which configurations could be in use while they asked. What came otherwise is a
//! failure, and an answer that fits no single configuration is a mixture. The exit code is 1 if there was either.
//!
//! `cargo bench --bench reload_storm -- [--quick] [--reloads N] [--requests N] [--binary PATH]`

#[path = "reload_storm/app.rs"]
mod app;
#[path = "reload_storm/authority.rs"]
mod authority;
#[path = "reload_storm/client.rs"]
mod client;
#[path = "reload_storm/generation.rs"]
mod generation;
#[path = "proxy/process.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod process;
#[path = "reload_storm/sidecar.rs"]
mod sidecar;
#[path = "reload_storm/storm.rs"]
mod storm;
#[path = "reload_storm/tally.rs"]
mod tally;
#[path = "reload_storm/volume.rs"]
mod volume;
#[path = "ledger/wire.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use storm::Options;

const USAGE: &str = "--reloads 1000 --requests 1000000 --binary PATH, or --quick for 20 and 20000";

fn main() -> ExitCode {
    match measure() {
        Ok(code) => code,
        Err(why) => {
            eprintln!("reload-storm: {why}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<ExitCode, String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory for files: {error}"))?;
    process::clean_up_at_signals(directory.path().to_owned());
    let mut options = Options {
        reloads: 1000,
        requests: 1_000_000,
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wx-sidecar")),
        directory: directory.path().to_owned(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // Cargo says `--bench` to benches.
        if name == "--bench" {
            continue;
        }
        if name == "--quick" {
            (options.reloads, options.requests) = (20, 20_000);
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("after {name}: {USAGE}"))?;
        match name.as_str() {
            "--reloads" => options.reloads = parse(&name, &value)?,
            "--requests" => options.requests = parse(&name, &value)?,
            "--binary" => options.binary = PathBuf::from(value),
            _ => return Err(format!("{name} is not known: {USAGE}")),
        }
    }
    if options.reloads == 0 {
        return Err("there must be reloads".to_owned());
    }
    let report = storm::run(&options)?;
    println!("{report}");
    Ok(match report.is_good() {
        true => {
            println!("nobody noticed");
            ExitCode::SUCCESS
        }
        false => ExitCode::FAILURE,
    })
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    let parsed = value.parse();
    parsed.map_err(|_| format!("{name} {value}: {USAGE}"))
}
