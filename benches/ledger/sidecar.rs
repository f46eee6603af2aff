//! A sidecar that is a process of its own, on ports that it keeps, and that can be killed and started again.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::process::{Process, free_address};
use super::wechat::{AES_KEY, APPID, SECRET, TOKEN};
use super::wire::Wire;

/// How long a sidecar may take to be ready, also one that was built without optimisation.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked whether it is.
const POLL: Duration = Duration::from_millis(1);

/// Where a sidecar is, in all of its lives.
#[derive(Clone)]
pub(crate) struct Place {
    name: String,
    pub(crate) inbound: SocketAddr,
    admin: SocketAddr,
    outbound: SocketAddr,
    directory: PathBuf,
}

/// What differs between one run and another.
pub(crate) struct Plan<'a> {
    /// Where the app is.
    pub(crate) app: SocketAddr,
    /// What the app is told as `X-WX-ENV`, which names this life.
    pub(crate) env: &'a str,
    pub(crate) workers: &'a str,
    pub(crate) log_level: &'a str,
    /// Lines of `[push]`.
    pub(crate) push: &'a str,
    /// Sections after it.
    pub(crate) sections: &'a str,
}

/// One life.
pub(crate) struct Sidecar {
    process: Process,
    pid: Pid,
    place: Place,
    pub(crate) born: Instant,
}

impl Place {
    /// A new one, with its files in `directory`.
    pub(crate) fn new(name: &str, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            inbound: free_address(),
            admin: free_address(),
            outbound: free_address(),
            directory: directory.to_owned(),
        }
    }

    fn configuration(&self, plan: &Plan<'_>) -> String {
        let Self {
            inbound,
            admin,
            outbound,
            ..
        } = self;
        let Plan {
            app,
            env,
            workers,
            log_level,
            push,
            sections,
        } = plan;
        format!(
            "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\nenv = \"{env}\"\n\
             [inbound]\nlisten = \"{inbound}\"\nupstream = \"http://{app}\"\nworkers = {workers}\ndrain_delay = \"0s\"\n\
             [wechat]\nendpoints = [\"https://127.0.0.1:1\"]\n\
             [outbound]\nlisten = \"{outbound}\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"{log_level}\"\n\
             [push]\ntoken = \"{TOKEN}\"\naes_key = \"{AES_KEY}\"\n{push}\n{sections}\n"
        )
    }

    /// Starts one there. `command` runs the binary, perhaps on a core of its own.
    pub(crate) fn start(&self, mut command: Command, plan: &Plan<'_>) -> Result<Sidecar, String> {
        let path = self.directory.join(format!("{}.toml", self.name));
        fs::write(&path, self.configuration(plan))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        command.arg("run").arg("-c").arg(path);
        let born = Instant::now();
        let process = Process::spawn(&self.name, &mut command, &self.directory)?;
        let pid = process.tree().first().copied();
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(Sidecar {
            process,
            pid: pid.ok_or("a process has no number")?,
            place: self.clone(),
            born,
        })
    }
}

impl Sidecar {
    /// Its process and those of a wrapper, for the accounts of the kernel.
    #[allow(dead_code, reason = "a bench measures them")]
    pub(crate) fn tree(&self) -> Vec<u32> {
        self.process.tree()
    }

    /// Waits until it says that it is ready; how long that took from its start.
    pub(crate) async fn ready(&mut self) -> Result<Duration, String> {
        while !self.is_ready().await {
            if self.process.ended().is_some() {
                return Err(format!(
                    "it ended by itself; {}\n{}",
                    self.process.last_words(),
                    self.said()
                ));
            }
            if self.born.elapsed() > PATIENCE {
                return Err(format!("it is not ready after {} s", PATIENCE.as_secs()));
            }
            sleep(POLL).await;
        }
        Ok(self.born.elapsed())
    }

    async fn is_ready(&self) -> bool {
        let page = self.page("/readyz").await;
        page.is_some_and(|(status, _)| status == 200)
    }

    /// The value of a series on `/metrics`.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let (_, page) = self.page("/metrics").await?;
        let mut lines = page.lines();
        lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    async fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut wire = Wire::connect(self.place.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n");
        let answer = wire.exchange(request.as_bytes()).await.ok()?;
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        Some((answer.status()?, page))
    }

    /// Ends it as a crash or the kernel would, and gives what it logged.
    pub(crate) async fn kill(mut self) -> Result<String, String> {
        if self.process.ended().is_some() {
            return Err(format!(
                "it had ended before it was killed; {}\n{}",
                self.process.last_words(),
                self.said()
            ));
        }
        // Its number is still its own: it has not been reaped.
        kill_process(self.pid, Signal::KILL).map_err(|error| format!("cannot kill it: {error}"))?;
        while self.process.ended().is_none() {
            sleep(POLL).await;
        }
        Ok(self.said())
    }

    /// Ends it in order, and gives what it logged.
    pub(crate) fn stop(mut self) -> String {
        self.process.stop(Duration::from_secs(10));
        self.said()
    }

    /// What it logged, once it has ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stdout) = self.process.stdout() {
            // What is not UTF-8 was not ours.
            let _best_effort = stdout.read_to_string(&mut said);
        }
        said
    }
}
