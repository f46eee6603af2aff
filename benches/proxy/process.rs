//! Child processes that cannot be left behind, and what the kernel says they used.
//!
//! A child ends with its handle, also when a panic unwinds, and when a signal ends us: first SIGTERM, so that nginx's master can take its workers
//! along, then SIGKILL. CPU time comes from `schedstat`, which counts nanoseconds; `stat` counts hundredths of a second
//! and is the cross-check, and the fallback where `schedstat` is missing or has lost threads.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// The children that run and are not yet reaped, for the one who ends us by a signal: no destructor runs then.
static LIVE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// From now on SIGINT and SIGTERM end the children too, and remove `scratch`.
pub(crate) fn clean_up_at_signals(scratch: PathBuf) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        runtime.expect("a runtime can be built").block_on(async {
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let live = LIVE.lock().expect("nobody panics with the list in hand");
        let send = |signal: &str, pids: &[u32]| {
            let _ = Command::new("kill")
                .arg(signal)
                .args(pids.iter().map(u32::to_string))
                .stderr(Stdio::null())
                .status();
        };
        send("-TERM", &live);
        let limit = Instant::now() + Duration::from_secs(2);
        while live.iter().any(|pid| runs(*pid)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        send("-KILL", &live);
        let _ = fs::remove_dir_all(scratch);
        std::process::exit(130);
    });
}

pub(crate) struct Process {
    name: String,
    child: Child,
    stderr: PathBuf,
}

impl Process {
    /// Standard error goes to a file in `directory`; a pipe that nobody reads would stall the child.
    pub(crate) fn spawn(
        name: &str,
        command: &mut Command,
        directory: &Path,
    ) -> Result<Process, String> {
        let stderr = directory.join(format!("{name}.stderr"));
        let file = File::create(&stderr)
            .map_err(|error| format!("cannot create {}: {error}", stderr.display()))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn();
        let child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
        LIVE.lock()
            .expect("nobody panics with the list in hand")
            .push(child.id());
        Ok(Process {
            name: name.to_owned(),
            child,
            stderr,
        })
    }

    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Sends a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.child.stdin.as_mut().ok_or("it has no stdin")?;
        writeln!(stdin, "{line}").map_err(|error| format!("telling {}: {error}", self.name))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let mut live = LIVE.lock().expect("nobody panics with the list in hand");
        let status = self.child.try_wait().ok().flatten()?;
        // Once reaped, the number may become another process's.
        live.retain(|pid| *pid != self.child.id());
        Some(status)
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Its name and the end of what it wrote to stderr, for a message.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n    ");
        if tail.is_empty() {
            format!("{} said nothing", self.name)
        } else {
            format!("{} said:\n    {tail}", self.name)
        }
    }

    /// The process and all its descendants.
    pub(crate) fn tree(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = numbers_in("/proc")
            .filter_map(|pid| Some((pid, parent_of(pid)?)))
            .collect();
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(
                parents
                    .iter()
                    .filter(|(_, of)| *of == parent)
                    .map(|(pid, _)| *pid),
            );
            next += 1;
        }
        tree
    }

    /// Asks it to end, waits, and ends it if it would not; whether it went by itself.
    pub(crate) fn stop(&mut self, patience: Duration) -> bool {
        if self.ended().is_some() {
            return true;
        }
        let _ = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let limit = Instant::now() + patience;
        while Instant::now() < limit {
            if self.ended().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        while self.ended().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
    }
}

/// CPU time since the processes began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Nanoseconds by `schedstat`; 0 where the kernel does not keep it.
    exact: u64,
    /// Nanoseconds by `stat`, in steps of 10 ms.
    coarse: u64,
}

/// `stat` counts in USER_HZ, which is 100 on every Linux that is likely to run this.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

impl CpuTime {
    pub(crate) fn of(pids: &[u32]) -> CpuTime {
        let mut sum = CpuTime::default();
        for pid in pids {
            for task in numbers_in(&format!("/proc/{pid}/task")) {
                let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat"))
                    .unwrap_or_default();
                sum.exact += text
                    .split(' ')
                    .next()
                    .and_then(|first| first.parse::<u64>().ok())
                    .unwrap_or(0);
            }
            // utime and stime are fields 14 and 15 of the line, 12 and 13 counted behind the command's name.
            let ticks = stat_fields(*pid).map_or(0, |fields| {
                fields
                    .iter()
                    .skip(11)
                    .take(2)
                    .filter_map(|field| field.parse::<u64>().ok())
                    .sum()
            });
            sum.coarse += ticks * NANOSECONDS_PER_TICK;
        }
        sum
    }

    pub(crate) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            exact: self.exact.saturating_sub(earlier.exact),
            coarse: self.coarse.saturating_sub(earlier.coarse),
        }
    }

    pub(crate) fn microseconds(self) -> f64 {
        let nanoseconds = if self.complete() {
            self.exact
        } else {
            self.coarse
        };
        nanoseconds as f64 / 1000.0
    }

    /// Whether `exact` has everything. Threads that end take their `schedstat` along, while `stat` keeps their sum.
    pub(crate) fn complete(self) -> bool {
        let tolerance = self.coarse / 20 + 5 * NANOSECONDS_PER_TICK;
        self.exact + tolerance >= self.coarse
    }
}

/// Resident memory in KiB, summed over processes. Pages they share are counted for each, as `ps` does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pids: &[u32]) -> Memory {
        let mut sum = Memory::default();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kibibytes = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            sum.now += kibibytes("VmRSS:");
            sum.peak += kibibytes("VmHWM:");
        }
        sum
    }

    /// Bytes now, pages that processes share divided among them; as resident where the kernel does not tell that.
    pub(crate) fn share_of(pids: &[u32]) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let shares: Option<u64> = pids.iter().map(of).sum();
        1024 * shares.unwrap_or_else(|| Memory::of(pids).now)
    }
}

/// A loopback address that nobody listens on. It is below the range from which the kernel takes ports for outgoing
/// connections, so that the generator's own connections cannot sit on it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 10_000) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        let address = SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            20_000 + (base - 20_000 + step) % 10_000,
        ));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The entries of a directory whose names are numbers.
fn numbers_in(directory: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` behind the command's name, which may itself contain anything.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text[text.rfind(')')? + 1..]
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

/// Whether it is more than an entry that nobody has reaped.
fn runs(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}
