//! What a request costs: the sidecar beside nginx, HAProxy and pingora, in one run on one machine.
//!
//! `cargo bench --bench proxy -- [options]` starts an app, the proxies in front of it with one worker pinned to one
//! core, and drives them in turn from the other core. The rounds are interleaved and every ratio is taken inside its
//! round, because the machine's mood changes from minute to minute and only neighbours are comparable. The figure to
//! trust first is CPU per request at a fixed rate; requests per second say as much about the generator as about the
//! proxy, so the share of its core that the proxy used is printed beside them.
//!
//! The executable also plays the app (`upstream`), the generator (`load`) and many idle clients (`crowd`): it starts
//! itself again under those names, so that each has its own process, core and accounting. Linux only, as `/proc` is the accountant. Nothing
//! leaves the loopback interface, and all of it ends by itself.

#[path = "proxy/callgrind.rs"]
mod callgrind;
#[path = "proxy/certificate.rs"]
mod certificate;
#[path = "proxy/contender.rs"]
mod contender;
#[path = "proxy/histogram.rs"]
mod histogram;
#[path = "proxy/http.rs"]
mod http;
#[path = "proxy/idle.rs"]
mod idle;
#[path = "proxy/lane.rs"]
mod lane;
#[path = "proxy/load.rs"]
mod load;
#[path = "proxy/machine.rs"]
mod machine;
#[path = "proxy/options.rs"]
mod options;
#[path = "proxy/process.rs"]
mod process;
#[path = "proxy/report.rs"]
mod report;
#[path = "proxy/rounds.rs"]
mod rounds;
#[path = "proxy/scratch.rs"]
mod scratch;
#[path = "proxy/start.rs"]
mod start;
#[path = "proxy/targets.rs"]
mod targets;
#[path = "proxy/upstream.rs"]
mod upstream;
#[path = "proxy/websocket.rs"]
mod websocket;

use std::process::ExitCode;

use contender::{Field, Proxy};
use machine::Machine;
use options::{Asked, Options};
use report::Report;
use scratch::Scratch;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("upstream") => return upstream::run(),
        Some("load") => return load::run(&arguments[1..]),
        Some("crowd") => return idle::run(&arguments[1..]),
        _ => {}
    }
    match Options::parse(&arguments) {
        Ok(Asked::Run(options)) => match bench(&options) {
            Ok(0) => ExitCode::SUCCESS,
            Ok(errors) => {
                eprintln!("{errors} answers were wrong or missing: the figures do not count");
                ExitCode::FAILURE
            }
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        },
        Ok(Asked::Usage) => {
            println!("{}", options::USAGE);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}\n\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}

/// Measures, reports, and says how many answers were wrong or missing.
fn bench(options: &Options) -> Result<u64, String> {
    let machine = Machine::look();
    println!("{machine}");
    let scratch = Scratch::create()?;
    process::clean_up_at_signals(scratch.path().to_owned());
    let mut field = Field::open(options, &machine, &scratch)?;

    let started = start::measure(&field, options.starts);
    let running = field.start_all(&options.faces())?;
    let idle = running.memory_idle();
    let (rounds, lacking) = rounds::drive(options, &machine, &scratch, &running);
    let memory = running.memory(&idle);
    let accounting = running.accounting_notes();
    running.stop();
    let crowds = idle::measure(&field, options);
    let instructions = if options.callgrind {
        let proxies = match options.peers_under_callgrind {
            true => field.proxies(),
            false => vec![Proxy::Sidecar],
        };
        callgrind::measure(&field, &proxies)
    } else {
        Vec::new()
    };

    let report = Report {
        options,
        machine: &machine,
        rounds,
        lacking,
        started,
        memory,
        crowds,
        instructions,
        accounting,
    };
    println!("{report}");
    if let Some(path) = &options.json {
        std::fs::write(path, report.to_json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(report.errors())
}
