//! The machine the figures are from, and which of its cores does what.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) struct Machine {
    cpus: Vec<usize>,
    taskset: Option<PathBuf>,
    /// The limit as it is, and as it will be for the processes started here.
    descriptors_now: u64,
    descriptors: u64,
    pub(crate) nginx: Option<Tool>,
    pub(crate) haproxy: Option<Tool>,
    pub(crate) valgrind: Option<Tool>,
    model: String,
    kernel: String,
    load_average: String,
}

/// For two connections of each of ten thousand clients, and then some.
const ENOUGH_DESCRIPTORS: u64 = 32_768;

/// A program that is installed.
pub(crate) struct Tool {
    pub(crate) path: PathBuf,
    version: String,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let limits = read("/proc/self/limits");
        let limit = |which| {
            let line = limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"));
            line.and_then(|line| line.split_whitespace().nth(which)?.parse().ok())
                .unwrap_or(0)
        };
        let (now, most) = (limit(0), limit(1));
        Machine {
            descriptors_now: now,
            descriptors: now.max(most.min(ENOUGH_DESCRIPTORS)),
            cpus: parse_cpu_list(&field(&read("/proc/self/status"), "Cpus_allowed_list")),
            taskset: find("taskset"),
            nginx: Tool::find("nginx", "-v"),
            haproxy: Tool::find("haproxy", "-v"),
            valgrind: Tool::find("valgrind", "--version"),
            model: field(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg")
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The command that runs `program` on the proxy's core.
    pub(crate) fn on_proxy_core(&self, program: &str) -> Command {
        self.pinned(program, 0)
    }

    /// The command that runs `program` on the core of the app and the generator.
    pub(crate) fn on_load_core(&self, program: &str) -> Command {
        self.pinned(program, 1)
    }

    /// Keeps this process, if it is app and generator itself, off the proxy's core.
    #[allow(
        dead_code,
        reason = "a bench that starts its generator apart needs none of it"
    )]
    pub(crate) fn stay_on_load_core(&self) {
        let ([_, load, ..], Some(taskset)) = (self.cpus.as_slice(), &self.taskset) else {
            return;
        };
        let pinned = Command::new(taskset)
            .args(["-cp", &load.to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status();
        if !pinned.is_ok_and(|status| status.success()) {
            eprintln!("taskset could not pin this process, and figures are worse");
        }
    }

    fn pinned(&self, program: &str, which: usize) -> Command {
        let mut words = Vec::new();
        if let (Some(taskset), Some(cpu)) = (&self.taskset, self.cpus.get(which))
            && self.cpus.len() > 1
        {
            words.push(taskset.to_string_lossy().into_owned());
            words.extend(["-c".to_owned(), cpu.to_string()]);
        }
        words.push(program.to_owned());
        if self.descriptors > self.descriptors_now {
            let raise = format!("ulimit -Sn {} && exec \"$@\"", self.descriptors);
            let shell = ["sh".to_owned(), "-c".to_owned(), raise, "sh".to_owned()];
            words.splice(0..0, shell);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// How many descriptors each of the pinned processes may have.
    pub(crate) fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// For the record beside the figures.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let version = |tool: &Option<Tool>| tool.as_ref().map(|tool| tool.version.clone());
        serde_json::json!({
            "cpus": self.cpus.len(),
            "model": self.model,
            "kernel": self.kernel,
            "load_average": self.load_average,
            "nginx": version(&self.nginx),
            "haproxy": version(&self.haproxy),
            "valgrind": version(&self.valgrind),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |tool: &Option<Tool>| {
            tool.as_ref()
                .map_or("not installed", |tool| &tool.version)
                .to_owned()
        };
        writeln!(
            f,
            "machine   {} CPUs, {}; Linux {}; load {}",
            self.cpus.len(),
            self.model,
            self.kernel,
            self.load_average
        )?;
        match (&self.taskset, self.cpus.as_slice()) {
            (Some(_), [proxy, load, ..]) => {
                writeln!(f, "cores     proxy on {proxy}, app and generator on {load}")?;
            }
            (None, _) => writeln!(
                f,
                "cores     NOT PINNED: taskset is missing (apt-get install util-linux)"
            )?,
            (Some(_), _) => writeln!(
                f,
                "cores     NOT PINNED: only one CPU; proxy, app and generator share it"
            )?,
        }
        writeln!(f, "nginx     {}", version(&self.nginx))?;
        writeln!(f, "haproxy   {}", version(&self.haproxy))?;
        write!(f, "valgrind  {}", version(&self.valgrind))
    }
}

impl Tool {
    fn find(name: &str, version_flag: &str) -> Option<Tool> {
        let path = find(name)?;
        let output = Command::new(&path).arg(version_flag).output().ok()?;
        // nginx says its version on stderr.
        let said = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        let version = String::from_utf8_lossy(&said)
            .lines()
            .next()
            .unwrap_or("")
            .to_owned();
        Some(Tool { path, version })
    }
}

/// Debian keeps servers in `/usr/sbin`, which is not on everybody's path.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// `0-2,5` as the kernel writes it.
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}
