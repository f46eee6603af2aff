//! What media cost beside nginx: hits, misses, and a hundred at once.
//!
//! Sidecar and nginx have one worker each, on one core, by `taskset`; generator and WeChat, which is the simulator, share
//! another. Both have the same origin. All are in a network namespace of their own if the machine's TCP paces (BBR). In each
//! round everybody is measured once, one after the other, and what is told is the median of the rounds; ratios are taken
//! within a round. CPU is the kernel's account of a server's processes for one request.
//! What can be believed most are ratios of CPU: rates and times are this machine's.
//!
//! `cargo bench --bench media -- [--quick] [--rounds N]`

#[path = "media/caller.rs"]
mod caller;
#[path = "proxy/histogram.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod histogram;
#[path = "media/hits.rs"]
mod hits;
#[path = "proxy/machine.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod machine;
#[path = "media/memory.rs"]
mod memory;
#[path = "media/misses.rs"]
mod misses;
#[path = "media/network.rs"]
mod network;
#[path = "proxy/process.rs"]
#[allow(dead_code, reason = "it is the other bench's, which needs more of it")]
mod process;
#[path = "media/servers.rs"]
mod servers;
#[path = "media/stage.rs"]
mod stage;
#[path = "media/wechat.rs"]
mod wechat;
#[path = "ledger/wire.rs"]
#[allow(dead_code, reason = "it is the ledger's, which needs more of it")]
mod wire;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use hits::{Hits, Target};
use machine::Machine;
use memory::{CLIENTS, Crowd, Resident};
use misses::{Source, Times};
use stage::{Server, Stage};
use tokio::task::LocalSet;
use wechat::Size;

/// How much is done.
struct Options {
    rounds: usize,
    /// How long each server is asked for what it has.
    lasts: Duration,
    /// How many media are asked for that a server does not have: up to 200 KiB, and larger ones.
    misses: (usize, usize),
    /// How often a hundred come at once, and for how many media.
    crowds: usize,
    distinct: usize,
}

/// Of one server and one size, a value for each round.
struct HitsRow {
    size: Size,
    server: Server,
    target: Rc<Target>,
    results: Vec<Hits>,
}

struct MissesRow {
    size: Size,
    source: Source,
    results: Vec<Times>,
}

#[derive(Default)]
struct Told {
    hits: Vec<HitsRow>,
    misses: Vec<MissesRow>,
    crowds: Vec<Vec<(Crowd, Resident, Resident)>>,
    /// How often WeChat was asked for a picture that a server had.
    asked: u64,
}

fn main() -> ExitCode {
    let told = Options::parse(std::env::args().skip(1)).and_then(|options| {
        network::leave_a_paced_one();
        let machine = Machine::look();
        machine.stay_on_load_core();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| format!("there is no runtime: {error}"))?;
        LocalSet::new().block_on(&runtime, measure(&options, &machine))
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("media: {why}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            rounds: 3,
            lasts: Duration::from_secs(2),
            misses: (100, 10),
            crowds: 3,
            distinct: CLIENTS,
        };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                // Cargo says that to benches.
                "--bench" => {}
                "--quick" => {
                    options.rounds = 1;
                    options.lasts = Duration::from_millis(500);
                    options.misses = (20, 5);
                    (options.crowds, options.distinct) = (1, 20);
                }
                "--rounds" => {
                    let number = arguments.next().and_then(|number| number.parse().ok());
                    options.rounds = number.ok_or("--rounds needs a number")?;
                }
                _ => return Err(format!("{name} is not known: --quick --rounds N")),
            }
        }
        if options.rounds == 0 {
            return Err("there must be rounds".to_owned());
        }
        options.crowds = options.crowds.min(options.rounds);
        Ok(options)
    }

    fn misses(&self, size: Size) -> usize {
        match size {
            Size::Small | Size::Middle => self.misses.0,
            Size::Large => self.misses.1,
        }
    }
}

async fn measure(options: &Options, machine: &Machine) -> Result<(), String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory for files: {error}"))?;
    process::clean_up_at_signals(directory.path().to_owned());
    let mut stage = Stage::open(machine, directory.path()).await?;
    let mut told = Told::default();
    for size in Size::ALL {
        for (server, target) in stage.targets(size).await? {
            told.hits.push(HitsRow {
                size,
                server,
                target,
                results: Vec::new(),
            });
        }
        told.misses
            .extend(Source::all(size).into_iter().map(|source| MissesRow {
                size,
                source,
                results: Vec::new(),
            }));
    }
    for round in 1..=options.rounds {
        let before = stage.wechat.asked();
        for row in &mut told.hits {
            eprintln!("round {round}: {}, {}", row.size, row.server.name());
            let hits = hits::saturate(&row.target, connections(row.size), options.lasts);
            row.results.push(hits.await?);
        }
        told.asked += stage.wechat.asked() - before;
        for size in Size::ALL {
            let count = options.misses(size);
            eprintln!("round {round}: {size}, {count} misses");
            for (source, times) in misses::measure(&mut stage, size, count).await? {
                let mut rows = told.misses.iter_mut();
                let row = rows.find(|row| row.size == size && row.source == source);
                row.ok_or("a source without a row")?.results.push(times);
            }
        }
        if round <= options.crowds {
            eprintln!("round {round}: {CLIENTS} at once");
            let crowds = memory::measure(&mut stage, options.distinct).await?;
            told.crowds.push(crowds);
        }
    }
    told.print(options, machine);
    Ok(())
}

/// How many connections ask: as many as keep a core busy.
fn connections(size: Size) -> usize {
    match size {
        Size::Small | Size::Middle => 16,
        Size::Large => 4,
    }
}

impl Told {
    fn print(&self, options: &Options, machine: &Machine) {
        // The rest is of other proxies.
        for line in machine.to_string().lines().take(3) {
            println!("{line}");
        }
        println!("tcp       {}", network::control());
        if network::is_paced() {
            println!(
                "PACED     by timers, which are most of the CPU below; as root, with iproute2, they are not"
            );
        }
        if cfg!(debug_assertions) {
            println!("NOT OPTIMISED: a debug build; these figures say nothing");
        }
        self.print_hits(options);
        self.print_misses(options);
        self.print_crowds(options);
    }

    fn print_hits(&self, options: &Options) {
        println!(
            "\nMedia that are there, as fast as they go; medians of {} rounds of {} s; 16 connections, 4 for 10 MiB. CPU is the \
             server's for one request, and its ratios are to nginx in the same round. The core is how much of it the server had; \
             the kernel's interrupts had some of the rest, and with much less than 100 % it was the generator that was slow. WeChat was asked for a picture {} times.\n",
            options.rounds,
            options.lasts.as_secs_f64(),
            self.asked,
        );
        println!(
            "| size | server | requests/s | MiB/s | CPU µs | ÷ nginx, files | ÷ nginx, proxy cache | core | errors |"
        );
        println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|");
        for row in &self.hits {
            let of = |figure: &dyn Fn(&Hits) -> f64| median(row.results.iter().map(figure));
            let rate = of(&|one| one.rate);
            println!(
                "| {} | {} | {rate:.0} | {:.0} | {:.1} | {} | {} | {:.0} % | {} |",
                row.size,
                row.server.name(),
                rate * row.size.bytes() as f64 / 1024.0 / 1024.0,
                of(&|one| one.cpu),
                self.ratio(row, Server::Files),
                self.ratio(row, Server::Proxy),
                of(&|one| one.busy) * 100.0,
                row.results.iter().map(|one| one.errors).sum::<u64>(),
            );
        }
    }

    /// Of CPU, within each round.
    fn ratio(&self, row: &HitsRow, to: Server) -> String {
        let mut rows = self.hits.iter();
        let Some(peer) = rows.find(|peer| peer.size == row.size && peer.server == to) else {
            return "-".to_owned();
        };
        let pairs = row.results.iter().zip(&peer.results);
        format!("{:.2}", median(pairs.map(|(one, peer)| one.cpu / peer.cpu)))
    }

    fn print_misses(&self, options: &Options) {
        println!(
            "\nMedia that are not there yet, one at a time over a connection that stays; medians of {} rounds of {} media, {} of 10 MiB. \
             µs until the first byte of the answer, and until the last of the body. Beyond is what the first byte takes longer than \
             from WeChat alone. Where a film of 10 MiB is the sidecar has to ask first; nginx knows it.\n",
            options.rounds, options.misses.0, options.misses.1,
        );
        println!("| size | from | first byte p50 | p99 | beyond | last byte p50 | p99 |");
        println!("|--:|---|--:|--:|--:|--:|--:|");
        for row in &self.misses {
            let first = row.median(&|times| times.first.quantile(0.5));
            let alone = self
                .alone(row)
                .map_or("-".to_owned(), |alone| format!("{:.0}", first - alone));
            println!(
                "| {} | {} | {first:.0} | {:.0} | {alone} | {:.0} | {:.0} |",
                row.size,
                row.source.name(),
                row.median(&|times| times.first.quantile(0.99)),
                row.median(&|times| times.whole.quantile(0.5)),
                row.median(&|times| times.whole.quantile(0.99)),
            );
        }
    }

    /// What WeChat alone takes to the first byte, in µs, if it is asked as this one asks it.
    fn alone(&self, row: &MissesRow) -> Option<f64> {
        let source = match row.source {
            Source::WeChat | Source::WeChatAsked => return None,
            Source::Memory | Source::Disk if row.size.is_film() => Source::WeChatAsked,
            Source::Nginx | Source::Memory | Source::Disk => Source::WeChat,
        };
        let mut rows = self.misses.iter();
        let alone = rows.find(|alone| alone.size == row.size && alone.source == source)?;
        Some(alone.median(&|times| times.first.quantile(0.5)))
    }

    fn print_crowds(&self, options: &Options) {
        println!(
            "\n{CLIENTS} clients at once with 10 MiB each; medians of {} rounds. Resident memory in MiB (nginx's are several processes, \
             and what they share is counted for each): idle, just before, when all are in the middle, and the peak. Shared is when all are \
             in the middle too, with shared pages divided. Uploads stop after 7 MiB, downloads after 1 MiB; the sidecar and nginx have \
             a cache on disk.\n",
            options.crowds,
        );
        println!(
            "| what | server | idle | before | in the middle | shared | peak | KiB a client | failed |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
        for (number, crowd) in Crowd::ALL.into_iter().enumerate() {
            let rounds = || self.crowds.iter().filter_map(|round| round.get(number));
            let sidecar: Vec<_> = rounds().map(|(_, sidecar, _)| *sidecar).collect();
            let nginx: Vec<_> = rounds().map(|(_, _, nginx)| *nginx).collect();
            for (name, results) in [("sidecar", sidecar), ("nginx", nginx)] {
                let of = |figure: &dyn Fn(&Resident) -> f64| median(results.iter().map(figure));
                let mib =
                    |figure: &dyn Fn(&Resident) -> u64| of(&|one| figure(one) as f64 / 1024.0);
                println!(
                    "| {} | {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {} |",
                    crowd.name(options.distinct),
                    mib(&|one| one.idle),
                    mib(&|one| one.before),
                    mib(&|one| one.middle),
                    mib(&|one| one.share),
                    mib(&|one| one.peak),
                    of(&|one| (one.middle as f64 - one.before as f64) / CLIENTS as f64),
                    results.iter().map(|one| one.failed).sum::<usize>(),
                );
            }
        }
    }
}

impl MissesRow {
    /// In µs.
    fn median(&self, figure: &dyn Fn(&Times) -> u64) -> f64 {
        median(self.results.iter().map(|times| figure(times) as f64 / 1e3))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
