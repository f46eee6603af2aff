//! The field: the app, the simulator of WeChat, and the proxies with the configurations they are measured with.
//!
//! All are plain pass-through with keep-alive on both sides, one worker, and no logs. A proxy that is not installed, or
//! does not start, is left out with a word; the others are measured all the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::http::fetch;
use crate::machine::Machine;
use crate::options::{Options, Row};
use crate::process::{CpuTime, Memory, Process, free_address};
use crate::scratch::Scratch;

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A program that can stand before the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Sidecar,
}

const PROXIES: [Proxy; 3] = [Proxy::Nginx, Proxy::Haproxy, Proxy::Sidecar];

impl Proxy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "haproxy",
            Proxy::Sidecar => "sidecar",
        }
    }

    pub(crate) fn of(row: Row) -> Option<Proxy> {
        match row {
            Row::Direct => None,
            Row::Nginx => Some(Proxy::Nginx),
            Row::Haproxy => Some(Proxy::Haproxy),
            Row::Pass | Row::Verified => Some(Proxy::Sidecar),
        }
    }
}

/// How a proxy is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrap {
    /// On the proxy's core.
    Pinned,
    /// As it is; `taskset` would add its own start to the time of a start.
    Plain,
    /// Under callgrind, as a single process.
    Callgrind,
}

/// Everything that can be started, and the app, which already runs.
pub(crate) struct Field<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) scratch: &'a Scratch,
    sidecar: PathBuf,
    pub(crate) rows: Vec<Row>,
    upstream: SocketAddr,
    _upstream: Process,
    /// Only there when the sidecar is.
    simulator: Option<(SocketAddr, Process)>,
}

impl<'a> Field<'a> {
    pub(crate) fn open(
        options: &Options,
        machine: &'a Machine,
        scratch: &'a Scratch,
    ) -> Result<Field<'a>, String> {
        let own = std::env::current_exe()
            .map_err(|error| format!("cannot find this executable: {error}"))?;
        let mut command = machine.on_load_core(&own.to_string_lossy());
        let mut process = Process::spawn("upstream", command.arg("upstream"), scratch.path())?;
        let mut line = String::new();
        let stdout = process.stdout().ok_or("the upstream has no stdout")?;
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| format!("reading the upstream's port: {error}"))?;
        let port: u16 = line.trim().parse().map_err(|_| process.last_words())?;
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));

        let mut field = Field {
            machine,
            scratch,
            sidecar: options.sidecar.clone(),
            rows: options.rows.clone(),
            upstream,
            _upstream: process,
            simulator: None,
        };
        for (proxy, tool) in [
            (Proxy::Nginx, &machine.nginx),
            (Proxy::Haproxy, &machine.haproxy),
        ] {
            if tool.is_none() && field.proxies().contains(&proxy) {
                field.leave_out(
                    proxy,
                    &format!("not installed; apt-get install {}", proxy.name()),
                );
            }
        }
        if field.proxies().contains(&Proxy::Sidecar) {
            match field.start_simulator() {
                Ok(simulator) => field.simulator = Some(simulator),
                Err(why) => field.leave_out(Proxy::Sidecar, &why),
            }
        }
        Ok(field)
    }

    /// The proxies that the rows need.
    pub(crate) fn proxies(&self) -> Vec<Proxy> {
        let needed = |proxy: &Proxy| self.rows.iter().any(|row| Proxy::of(*row) == Some(*proxy));
        PROXIES.into_iter().filter(needed).collect()
    }

    fn leave_out(&mut self, proxy: Proxy, why: &str) {
        println!("left out  {}: {why}", proxy.name());
        self.rows.retain(|row| Proxy::of(*row) != Some(proxy));
    }

    /// Starts every proxy once.
    pub(crate) fn start_all(&mut self, wrap: Wrap) -> Result<Running, String> {
        let mut started = Vec::new();
        for proxy in self.proxies() {
            match self.start(proxy, wrap) {
                Ok(one) => started.push(one),
                Err(why) => self.leave_out(proxy, &why),
            }
        }
        let mut token = None;
        if let Some(sidecar) = started.iter().find(|one| one.proxy == Proxy::Sidecar) {
            token = Some(self.log_in(sidecar.address)?);
            expect_refusal(sidecar.address)?;
        }
        if self.rows.is_empty() {
            return Err("nothing is left to measure".to_owned());
        }
        Ok(Running {
            rows: self.rows.clone(),
            upstream: self.upstream,
            started,
            token,
        })
    }

    /// Starts `proxy` on a port of its own and waits for its first good answer.
    pub(crate) fn start(&self, proxy: Proxy, wrap: Wrap) -> Result<Started, String> {
        let directory = self.directory(proxy)?;
        let address = free_address();
        let arguments = match proxy {
            Proxy::Nginx => {
                let file = directory.join("nginx.conf");
                write(&file, &self.nginx_conf(&directory, address, wrap))?;
                vec![
                    "-p".to_owned(),
                    text(&directory),
                    "-c".to_owned(),
                    text(&file),
                ]
            }
            Proxy::Haproxy => {
                let file = directory.join("haproxy.cfg");
                write(&file, &self.haproxy_cfg(address))?;
                vec![
                    "-db".to_owned(),
                    "-q".to_owned(),
                    "-f".to_owned(),
                    text(&file),
                ]
            }
            Proxy::Sidecar => {
                let file = directory.join("sidecar.toml");
                write(&file, &self.sidecar_toml(address)?)?;
                vec!["run".to_owned(), "-c".to_owned(), text(&file)]
            }
        };
        let program = text(self.program(proxy)?);
        let collected = directory.join("callgrind.out");
        let mut command = match wrap {
            Wrap::Pinned => self.machine.on_proxy_core(&program),
            Wrap::Plain => Command::new(&program),
            Wrap::Callgrind => {
                let valgrind = self
                    .machine
                    .valgrind
                    .as_ref()
                    .ok_or("valgrind is not installed")?;
                let mut command = Command::new(&valgrind.path);
                command
                    .arg("--tool=callgrind")
                    .arg(format!("--callgrind-out-file={}", text(&collected)))
                    .arg(program);
                command
            }
        };
        // Valgrind runs a program some fifty times slower.
        let patience = Duration::from_secs(if wrap == Wrap::Callgrind { 60 } else { 10 });
        let began = Instant::now();
        let process = Process::spawn(
            proxy.name(),
            command.args(arguments).current_dir(&directory),
            &directory,
        )?;
        let mut started = Started {
            proxy,
            process,
            address,
            first_answer: Duration::ZERO,
            pids: Vec::new(),
        };
        started.wait_for_answer(patience)?;
        started.first_answer = began.elapsed();
        started.pids = started.process.tree();
        Ok(started)
    }

    /// Logs a user in through the sidecar; the access token.
    pub(crate) fn log_in(&self, sidecar: SocketAddr) -> Result<String, String> {
        let (simulator, _) = self
            .simulator
            .as_ref()
            .ok_or("the simulator does not run")?;
        let (status, code) = fetch(*simulator, "GET", "/_sim/code?user=bench&format=text", None)?;
        let code = String::from_utf8_lossy(&code).trim().to_owned();
        if status != 200 || code.is_empty() {
            return Err(format!("the simulator gave no code: {status} {code}"));
        }
        let body = serde_json::json!({ "code": code }).to_string();
        let (status, answer) = fetch(sidecar, "POST", "/wx/login", Some(&body))?;
        let json: Option<serde_json::Value> = serde_json::from_slice(&answer).ok();
        json.as_ref()
            .and_then(|json| json["access_token"].as_str())
            .map(str::to_owned)
            .ok_or_else(|| {
                format!(
                    "no access_token at login: {status} {}",
                    String::from_utf8_lossy(&answer)
                )
            })
    }

    fn start_simulator(&self) -> Result<(SocketAddr, Process), String> {
        let address = free_address();
        let mut command = self.machine.on_load_core(&text(&self.sidecar));
        command.args([
            "sim",
            "--listen",
            &address.to_string(),
            "--appid",
            APPID,
            "--secret",
            SECRET,
        ]);
        let mut process = Process::spawn("simulator", &mut command, self.scratch.path())?;
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            match fetch(address, "GET", "/_sim/code?user=bench&format=text", None) {
                Ok((200, _)) => return Ok((address, process)),
                _ if process.ended().is_some() => {
                    return Err(format!("its simulator has ended; {}", process.last_words()));
                }
                _ if Instant::now() > limit => {
                    return Err(format!("its simulator is silent; {}", process.last_words()));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn program(&self, proxy: Proxy) -> Result<&Path, String> {
        let tool = match proxy {
            Proxy::Nginx => &self.machine.nginx,
            Proxy::Haproxy => &self.machine.haproxy,
            Proxy::Sidecar => return Ok(&self.sidecar),
        };
        tool.as_ref()
            .map(|tool| tool.path.as_path())
            .ok_or_else(|| format!("{} is not installed", proxy.name()))
    }

    /// A fresh directory for one start.
    fn directory(&self, proxy: Proxy) -> Result<PathBuf, String> {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let directory = self
            .scratch
            .path()
            .join(format!("{}-{number}", proxy.name()));
        fs::create_dir(&directory)
            .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
        Ok(directory)
    }

    /// The body buffer takes a whole upload: with the default of 16 KB, nginx needs twice the CPU for 64 KB, and a peer
    /// is to be measured at its best.
    fn nginx_conf(&self, directory: &Path, listen: SocketAddr, wrap: Wrap) -> String {
        let (directory, upstream) = (directory.display(), self.upstream);
        // Started as root, nginx would give its worker to `nobody`, who may not enter the scratch directory.
        let user = if runs_as_root() { "user root;" } else { "" };
        let master = if wrap == Wrap::Callgrind { "off" } else { "on" };
        format!(
            r#"{user}
worker_processes 1;
daemon off;
master_process {master};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    upstream app {{
        server {upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
    }}
}}
"#
        )
    }

    fn haproxy_cfg(&self, listen: SocketAddr) -> String {
        let upstream = self.upstream;
        format!(
            "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
frontend in
    bind {listen}
    default_backend app
backend app
    server app {upstream}
"
        )
    }

    fn sidecar_toml(&self, listen: SocketAddr) -> Result<String, String> {
        let (simulator, _) = self
            .simulator
            .as_ref()
            .ok_or("the simulator does not run")?;
        let (upstream, admin) = (self.upstream, free_address());
        // The drain is cut short because valgrind reports only after it; it changes nothing before SIGTERM.
        Ok(format!(
            r#"[app]
appid = "{APPID}"
secret = "{SECRET}"

[inbound]
listen = "{listen}"
upstream = "http://{upstream}"
workers = 1
body_limit = "100MiB"
drain_delay = "0s"
drain_timeout = "1s"

[[route]]
path = "/open/**"
auth = "none"

[wechat]
endpoints = ["http://{simulator}"]

[admin]
listen = "{admin}"

[log]
level = "warn"
"#
        ))
    }
}

/// A proxy that has answered.
pub(crate) struct Started {
    pub(crate) proxy: Proxy,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// From the spawn to the first good answer.
    pub(crate) first_answer: Duration,
    /// It and its workers.
    pub(crate) pids: Vec<u32>,
}

impl Started {
    fn wait_for_answer(&mut self, patience: Duration) -> Result<(), String> {
        let limit = Instant::now() + patience;
        loop {
            let last = match fetch(self.address, "GET", "/open/1k", None) {
                Ok((200, _)) => return Ok(()),
                Ok((status, _)) => format!("status {status}"),
                Err(why) => why,
            };
            if let Some(status) = self.process.ended() {
                return Err(format!(
                    "it has ended ({status}); {}",
                    self.process.last_words()
                ));
            }
            if Instant::now() > limit {
                return Err(format!(
                    "no good answer in {patience:?}: {last}; {}",
                    self.process.last_words()
                ));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// The proxies as they are driven.
pub(crate) struct Running {
    pub(crate) rows: Vec<Row>,
    upstream: SocketAddr,
    started: Vec<Started>,
    token: Option<String>,
}

impl Running {
    /// Where a row's requests go, below which path, and with which token.
    pub(crate) fn target(&self, row: Row) -> Target<'_> {
        let one = self
            .started
            .iter()
            .find(|one| Some(one.proxy) == Proxy::of(row));
        Target {
            address: one.map_or(self.upstream, |one| one.address),
            prefix: prefix_of(row),
            token: self.token.clone().filter(|_| row == Row::Verified),
            pids: one.map_or(&[], |one| &one.pids),
        }
    }

    pub(crate) fn memory_idle(&self) -> Vec<u64> {
        // What is freed lazily after the start should not count as idle.
        std::thread::sleep(Duration::from_millis(300));
        self.started
            .iter()
            .map(|one| Memory::of(&one.pids).now)
            .collect()
    }

    /// Idle (as measured before) and peak memory, in KiB.
    pub(crate) fn memory(&self, idle: &[u64]) -> Vec<(Proxy, Memory)> {
        let after = |one: &Started| Memory::of(&one.pids).peak;
        self.started
            .iter()
            .zip(idle)
            .map(|(one, now)| {
                (
                    one.proxy,
                    Memory {
                        now: *now,
                        peak: after(one),
                    },
                )
            })
            .collect()
    }

    pub(crate) fn accounting_notes(&self) -> Vec<String> {
        let incomplete = |one: &&Started| !CpuTime::of(&one.pids).complete();
        self.started
            .iter()
            .filter(incomplete)
            .map(|one| {
                format!(
                    "{}: schedstat lacks threads; CPU is in steps of 10 ms from stat",
                    one.proxy.name()
                )
            })
            .collect()
    }

    /// Ends the proxies, so that they do not share the machine with what comes next.
    pub(crate) fn stop(self) {}
}

/// Where to send.
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) prefix: &'static str,
    pub(crate) token: Option<String>,
    pub(crate) pids: &'a [u32],
}

/// The app answers alike below both; the sidecar's configuration does not.
pub(crate) fn prefix_of(row: Row) -> &'static str {
    if row == Row::Verified {
        "/api"
    } else {
        "/open"
    }
}

/// "Verified" would be an empty word if the sidecar let a stranger in.
fn expect_refusal(sidecar: SocketAddr) -> Result<(), String> {
    match fetch(sidecar, "GET", "/api/1k", None)? {
        (401, _) => Ok(()),
        (status, _) => Err(format!(
            "without a token, /api/1k must be 401, and is {status}"
        )),
    }
}

/// Only for the owner: one of the files holds a secret, and the sidecar may complain about others' eyes.
fn write(path: &Path, contents: &str) -> Result<(), String> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(contents.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn runs_as_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.is_some_and(|uids| uids.split_whitespace().nth(1) == Some("0"))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
