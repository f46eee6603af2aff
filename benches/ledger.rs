//! The proof that nothing that was acknowledged is lost: a ledger of what WeChat was told and of what the app has.
//!
//! Users write and the app reads while the sidecar between them is killed with SIGKILL at random moments, again and again,
//! some of them within its start, and the app has troubles of its own. In the end the two sides of the ledger are compared.
//! A kill leaves what the kernel was given, so this says nothing of a loss of power, nor of fsync.
//! The exit code is 1 if anything was lost, came out of order, or came twice without a reason.
//!
//! `cargo bench --bench ledger -- [--kills N] [--rate MESSAGES_A_SECOND] [--users N] [--seed N] [--redis URL|start]`. With
//! `--redis` there are two sidecars, which share the inbox there. With `--memory` the sidecar has no journal: then messages must be
//! lost, which shows that this looks closely enough.

#[path = "ledger/run.rs"]
mod run;

use std::process::ExitCode;
use std::str::FromStr;

use run::{Inbox, Options};

const USAGE: &str = "--kills 100 --rate 400 --users 64 --seed 1 --redis URL (or \"start\", for a server of its own), or --memory";

fn main() -> ExitCode {
    match audit() {
        Ok(code) => code,
        Err(why) => {
            eprintln!("ledger: {why}");
            ExitCode::from(2)
        }
    }
}

fn audit() -> Result<ExitCode, String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory for files: {error}"))?;
    run::process::clean_up_at_signals(directory.path().to_owned());
    let mut options = Options {
        kills: 100,
        rate: 400.0,
        users: 64,
        seed: 1,
        inbox: Inbox::Journal,
        directory: directory.path().to_owned(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // Cargo says `--bench` to benches.
        if name == "--bench" {
            continue;
        }
        if name == "--memory" {
            options.inbox = Inbox::Memory;
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("after {name}: {USAGE}"))?;
        match name.as_str() {
            "--kills" => options.kills = parse(&name, &value)?,
            "--rate" => options.rate = parse(&name, &value)?,
            "--users" => options.users = parse(&name, &value)?,
            "--seed" => options.seed = parse(&name, &value)?,
            "--redis" if value == "start" => options.inbox = Inbox::OwnRedis,
            "--redis" => options.inbox = Inbox::RedisAt(value),
            _ => return Err(format!("{name} is not known: {USAGE}")),
        }
    }
    if options.rate.is_nan() || options.rate <= 0.0 || options.users == 0 {
        return Err("there must be users, and messages".to_owned());
    }
    let report = run::run(&options)?;
    println!("{report}");
    Ok(match report.is_good() {
        true => {
            println!("nothing was lost");
            ExitCode::SUCCESS
        }
        false => ExitCode::FAILURE,
    })
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    let parsed = value.parse();
    parsed.map_err(|_| format!("{name} {value}: {USAGE}"))
}
