//! What message push costs: how fast messages are acknowledged, and what a hundred thousand that wait do to the sidecar.
//!
//! The sidecar has one worker and one core, by `taskset`; generator and app share the other; a Redis is where the kernel
//! puts it. Pushes are signed and encrypted beforehand, in mode "secure". Each store is measured in each round, and what is told
//! is the median of the rounds; where messages wait in Redis, the same load is brought in the same round. CPU is the
//! kernel's account, from the wire to the app's acceptance. What can be believed most is CPU: the rest is this machine's disk and two cores.
//!
//! `cargo bench --bench push -- [--quick] [--rounds N] [--rate MESSAGES_A_SECOND] [--waiting N]`

#[path = "push/app.rs"]
mod app;
#[path = "proxy/histogram.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod histogram;
#[path = "push/load.rs"]
mod load;
#[path = "proxy/machine.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod machine;
#[path = "proxy/process.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod process;
#[path = "ledger/redis.rs"]
mod redis;
#[path = "ledger/sidecar.rs"]
#[allow(dead_code, reason = "it is the ledger's, which needs more of it")]
mod sidecar;
#[path = "push/stages.rs"]
mod stages;
#[path = "push/store.rs"]
mod store;
#[path = "ledger/wechat.rs"]
mod wechat;
#[path = "ledger/wire.rs"]
#[allow(dead_code, reason = "it is the ledger's, which needs more of it")]
mod wire;

use std::process::ExitCode;
use std::str::FromStr;

use load::Press;
use machine::Machine;
use stages::{Acknowledged, Backlog, Bench, CONNECTIONS, SHORT, fsync};
use store::Kind;

/// The lengths of messages, in bytes.
const LENGTHS: [usize; 2] = [SHORT, 4096];

/// How much is done.
struct Options {
    rounds: usize,
    /// Messages a second.
    rate: f64,
    /// Messages at that rate, and as fast as they go, in each round.
    counts: (usize, usize),
    waiting: usize,
}

fn main() -> ExitCode {
    let told = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let machine = Machine::look();
        machine.stay_on_load_core();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| format!("there is no runtime: {error}"))?;
        runtime.block_on(measure(&options, &machine))
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("push: {why}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            rounds: 3,
            rate: 1_000.0,
            counts: (5_000, 20_000),
            waiting: 100_000,
        };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                // Cargo says that to benches.
                "--bench" => {}
                "--quick" => {
                    options.rounds = 1;
                    options.counts = (1_000, 3_000);
                    options.waiting = 5_000;
                }
                "--rounds" => options.rounds = value(&name, arguments.next())?,
                "--rate" => options.rate = value(&name, arguments.next())?,
                "--waiting" => options.waiting = value(&name, arguments.next())?,
                _ => {
                    return Err(format!(
                        "{name} is not known: --quick --rounds N --rate N --waiting N"
                    ));
                }
            }
        }
        if options.rounds == 0
            || options.waiting < 2
            || options.rate.is_nan()
            || options.rate <= 0.0
        {
            return Err("there must be rounds, and messages".to_owned());
        }
        Ok(options)
    }
}

fn value<T: FromStr>(name: &str, value: Option<String>) -> Result<T, String> {
    let parsed = value.and_then(|value| value.parse().ok());
    parsed.ok_or_else(|| format!("{name} needs a number"))
}

async fn measure(options: &Options, machine: &Machine) -> Result<(), String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory for files: {error}"))?;
    process::clean_up_at_signals(directory.path().to_owned());
    let mut bench = Bench {
        machine,
        directory: directory.path(),
        press: Press::new(),
        stores: 0,
    };
    let rows = LENGTHS
        .iter()
        .flat_map(|length| Kind::ALL.map(|kind| (*length, kind)));
    let mut acknowledged: Vec<_> = rows
        .map(|(length, kind)| (length, kind, Vec::new()))
        .collect();
    let mut backlogs: Vec<_> = Kind::ALL.iter().map(|kind| (*kind, Vec::new())).collect();
    let mut fsyncs = Vec::new();
    for round in 1..=options.rounds {
        let tried = fsync(bench.directory);
        fsyncs.push(tried.map_err(|error| format!("fsync cannot be tried: {error}"))?);
        for (length, kind, results) in &mut acknowledged {
            eprintln!("round {round}: {}, {length} bytes", kind.name());
            let result = bench.acknowledge(*kind, *length, options.rate, options.counts);
            results.extend(result.await?);
        }
        for (kind, results) in &mut backlogs {
            eprintln!(
                "round {round}: {}, {} waiting",
                kind.name(),
                options.waiting
            );
            results.extend(bench.backlog(*kind, options.waiting).await?);
        }
    }
    tell(options, machine, &fsyncs, &acknowledged, &backlogs);
    Ok(())
}

fn tell(
    options: &Options,
    machine: &Machine,
    fsyncs: &[(f64, f64)],
    acknowledged: &[(usize, Kind, Vec<Acknowledged>)],
    backlogs: &[(Kind, Vec<Backlog>)],
) {
    // The rest is of other proxies.
    for line in machine.to_string().lines().take(2) {
        println!("{line}");
    }
    // Of a disk that others use too; what hangs on it cannot be compared between runs.
    for (p50, p99) in fsyncs {
        println!("fsync     of 4 KiB, before a round: p50 {p50:.0} µs, p99 {p99:.0} µs");
    }
    if cfg!(debug_assertions) {
        println!("NOT OPTIMISED: a debug build; these figures say nothing");
    }
    println!(
        "\nMessages acknowledged; medians of {} rounds; {CONNECTIONS} connections, one worker. CPU is the sidecar's for one message, \
         from WeChat to the app; Redis has its own beside it. Refused are tries that came again.\n",
        options.rounds
    );
    let rate = options.rate;
    println!(
        "| bytes | waits in | p50 µs at {rate}/s | p99 µs at {rate}/s | saturated, messages/s | p50 µs | p99 µs | delivered, messages/s | CPU µs | of Redis | refused |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (length, kind, results) in acknowledged {
        if results.is_empty() {
            skipped(&format!("| {length} | {} |", kind.name()), 9);
            continue;
        }
        let of = |figure: &dyn Fn(&Acknowledged) -> f64| median(results.iter().map(figure));
        println!(
            "| {length} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            kind.name(),
            of(&|one| one.p50),
            of(&|one| one.p99),
            of(&|one| one.rate),
            of(&|one| one.full_p50),
            of(&|one| one.full_p99),
            of(&|one| one.through),
            of(&|one| one.cpu),
            of(&|one| one.of_redis),
            of(&|one| one.refused as f64),
        );
    }
    println!(
        "\n{} messages of {SHORT} bytes wait while the app is away; then it returns, or the sidecar is killed and starts with the app \
         there. Memory is resident, in MiB.\n",
        options.waiting
    );
    println!(
        "| waits in | idle | waiting | files | caught up, messages/s | CPU µs | ready after SIGKILL, ms | first delivery, ms | caught up, messages/s | CPU µs | peak |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (kind, results) in backlogs {
        if results.is_empty() {
            skipped(&format!("| {} |", kind.name()), 10);
            continue;
        }
        let of = |figure: &dyn Fn(&Backlog) -> f64| median(results.iter().map(figure));
        print!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} |",
            kind.name(),
            of(&|one| one.idle as f64 / 1024.0),
            of(&|one| one.waiting as f64 / 1024.0),
            of(&|one| one.size as f64 / 1024.0 / 1024.0),
            of(&|one| one.caught_up.rate),
            of(&|one| one.caught_up.cpu),
        );
        let recovered: Vec<_> = results
            .iter()
            .filter_map(|one| one.recovered.as_ref())
            .collect();
        if recovered.is_empty() {
            println!(" lost | - | - | - | - |");
            continue;
        }
        let of = |figure: &dyn Fn(&stages::Recovered) -> f64| {
            median(recovered.iter().map(|one| figure(one)))
        };
        println!(
            " {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |",
            of(&|one| one.ready.as_secs_f64() * 1e3),
            of(&|one| one.first.as_secs_f64() * 1e3),
            of(&|one| one.caught_up.rate),
            of(&|one| one.caught_up.cpu),
            of(&|one| one.peak as f64 / 1024.0),
        );
    }
}

/// A row that this sidecar cannot fill.
fn skipped(beginning: &str, columns: usize) {
    println!(
        "{beginning} skipped: this sidecar has no inbox in Redis |{}",
        " |".repeat(columns - 1)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
