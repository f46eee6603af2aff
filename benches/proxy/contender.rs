//! The field: the app, the simulator of WeChat, and the proxies with the configurations they are measured with.
//!
//! All are plain pass-through with keep-alive on both sides, one worker, and no logs. A proxy that is not installed, or
//! does not start, is left out with a word; the others are measured all the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::certificate::Certificate;
use crate::http::{fetch, fetch_over};
use crate::lane::Protocol;
use crate::load::{Amount, Spec, once};
use crate::machine::Machine;
use crate::options::{Face, Options, Row, Scenario};
use crate::process::{CpuTime, Memory, Process, free_address};
use crate::scratch::Scratch;

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// How many connections a proxy is set up for when it has to hold ten thousand.
const CROWD: usize = 12_000;
/// A proxy that listens, but does not answer so many requests for HTTP/2 or TLS, cannot do it.
const TRIES: u32 = 3;

/// A program that can stand before the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Pingora,
    Sidecar,
    /// The sidecar with its access log.
    Logging,
}

const PROXIES: [Proxy; 5] = [
    Proxy::Nginx,
    Proxy::Haproxy,
    Proxy::Pingora,
    Proxy::Sidecar,
    Proxy::Logging,
];

impl Proxy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "haproxy",
            Proxy::Pingora => "pingora",
            Proxy::Sidecar => "sidecar",
            Proxy::Logging => "sidecar-log",
        }
    }

    pub(crate) fn of(row: Row) -> Option<Proxy> {
        match row {
            Row::Direct => None,
            Row::Nginx => Some(Proxy::Nginx),
            Row::Haproxy => Some(Proxy::Haproxy),
            Row::Pingora => Some(Proxy::Pingora),
            Row::Pass | Row::Verified => Some(Proxy::Sidecar),
            Row::Logged => Some(Proxy::Logging),
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
    store: Option<String>,
    pingora: PathBuf,
    certificate: Certificate,
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
            store: options.store.clone(),
            pingora: options.pingora.clone(),
            certificate: Certificate::make(scratch.path())?,
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
        if !field.pingora.is_file() && field.proxies().contains(&Proxy::Pingora) {
            let why = format!(
                "{} is not built; make bench builds it",
                field.pingora.display()
            );
            field.leave_out(Proxy::Pingora, &why);
        }
        let sidecars = [Proxy::Sidecar, Proxy::Logging];
        if field.proxies().iter().any(|proxy| sidecars.contains(proxy)) {
            match field.start_simulator() {
                Ok(simulator) => field.simulator = Some(simulator),
                Err(why) => {
                    for proxy in sidecars {
                        field.leave_out(proxy, &why);
                    }
                }
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

    /// Starts every proxy once with each of `faces`. One that does not even speak plain HTTP/1.1 is left out.
    pub(crate) fn start_all(&mut self, faces: &[Face]) -> Result<Running, String> {
        let mut running = Running {
            rows: Vec::new(),
            upstream: self.upstream,
            started: Vec::new(),
            absent: Vec::new(),
        };
        for face in faces {
            for proxy in self.proxies() {
                match self.start_ready(proxy, *face) {
                    Ok(started) => running.started.push(started),
                    Err(why) if *face == Face::Plain => self.leave_out(proxy, &why),
                    Err(why) => running.absent.push((proxy, *face, why)),
                }
            }
        }
        if self.rows.is_empty() {
            return Err("nothing is left to measure".to_owned());
        }
        running.rows.clone_from(&self.rows);
        Ok(running)
    }

    /// Starts `proxy` on its core; if it is the sidecar and a row needs it, with somebody logged in.
    pub(crate) fn start_ready(&self, proxy: Proxy, face: Face) -> Result<Started, String> {
        let mut started = self.start(proxy, face, Wrap::Pinned)?;
        let is_row = |row: &Row| row.is_verified() && Proxy::of(*row) == Some(proxy);
        if self.rows.iter().any(is_row) {
            started.token = Some(self.log_in(&started)?);
            started.expect_refusal()?;
        }
        Ok(started)
    }

    /// Starts `proxy` on a port of its own and waits for its first good answer.
    pub(crate) fn start(&self, proxy: Proxy, face: Face, wrap: Wrap) -> Result<Started, String> {
        let directory = self.directory(proxy)?;
        let address = free_address();
        let arguments = match proxy {
            Proxy::Nginx => {
                let file = directory.join("nginx.conf");
                write(&file, &self.nginx_conf(&directory, address, face, wrap))?;
                vec![
                    "-p".to_owned(),
                    text(&directory),
                    "-c".to_owned(),
                    text(&file),
                ]
            }
            Proxy::Haproxy => {
                let file = directory.join("haproxy.cfg");
                write(&file, &self.haproxy_cfg(address, face))?;
                vec![
                    "-db".to_owned(),
                    "-q".to_owned(),
                    "-f".to_owned(),
                    text(&file),
                ]
            }
            Proxy::Pingora => {
                // With TLS it has a plain face too, which nobody uses.
                let plain = match face {
                    Face::Tls => free_address(),
                    _ => address,
                };
                let mut arguments = vec![plain.to_string(), self.upstream.to_string()];
                if face == Face::Tls {
                    let Certificate {
                        certificate, key, ..
                    } = &self.certificate;
                    arguments.extend([address.to_string(), text(certificate), text(key)]);
                }
                arguments
            }
            Proxy::Sidecar | Proxy::Logging => {
                let file = directory.join("sidecar.toml");
                let access = match proxy {
                    Proxy::Logging => "all",
                    _ => "off",
                };
                write(&file, &self.sidecar_toml(address, face, access)?)?;
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
        let mut process = Process::spawn(
            proxy.name(),
            command.args(arguments).current_dir(&directory),
            &directory,
        )?;
        if proxy == Proxy::Logging
            && let Some(mut lines) = process.stdout()
        {
            // Until the sidecar ends.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        }
        let mut started = Started {
            proxy,
            face,
            process,
            address,
            certificate: (face == Face::Tls).then(|| self.certificate.certificate.clone()),
            token: None,
            first_answer: Duration::ZERO,
            pids: Vec::new(),
        };
        started.wait_for_answer(patience)?;
        started.first_answer = began.elapsed();
        started.pids = started.process.tree();
        Ok(started)
    }

    /// Logs a user in through the sidecar; the access token.
    pub(crate) fn log_in(&self, sidecar: &Started) -> Result<String, String> {
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
        let (mut status, mut answer) = sidecar.fetch("POST", "/wx/login", Some(&body))?;
        // A store in Redis is connected to in the background.
        for _ in 0..50 {
            if status != 503 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            (status, answer) = sidecar.fetch("POST", "/wx/login", Some(&body))?;
        }
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
            Proxy::Pingora => return Ok(&self.pingora),
            Proxy::Sidecar | Proxy::Logging => return Ok(&self.sidecar),
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
    fn nginx_conf(&self, directory: &Path, listen: SocketAddr, face: Face, wrap: Wrap) -> String {
        let (directory, upstream) = (directory.display(), self.upstream);
        // Started as root, nginx would give its worker to `nobody`, who may not enter the scratch directory.
        let user = if runs_as_root() { "user root;" } else { "" };
        let master = if wrap == Wrap::Callgrind { "off" } else { "on" };
        // Every possible connection takes memory from the start.
        let connections = if face == Face::Crowd { CROWD } else { 1024 };
        let (how, tls) = match face {
            Face::Plain | Face::Crowd => ("", String::new()),
            Face::Http2 => (" http2", String::new()),
            Face::Tls => (
                " ssl",
                format!(
                    "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                    text(&self.certificate.certificate),
                    text(&self.certificate.key)
                ),
            ),
        };
        format!(
            r#"{user}
worker_processes 1;
daemon off;
master_process {master};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections {connections}; }}
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
        listen {listen}{how};
        {tls}
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
        location = /open/ws {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "upgrade";
            proxy_set_header Upgrade $http_upgrade;
        }}
    }}
}}
"#
        )
    }

    /// It would have two descriptors for each possible connection, or not start, if the limits were strict.
    fn haproxy_cfg(&self, listen: SocketAddr, face: Face) -> String {
        let upstream = self.upstream;
        let connections = if face == Face::Crowd { CROWD } else { 4096 };
        let how = match face {
            Face::Plain | Face::Crowd => String::new(),
            Face::Http2 => " proto h2".to_owned(),
            Face::Tls => format!(" ssl crt {}", text(&self.certificate.both)),
        };
        format!(
            "global
    nbthread 1
    maxconn {connections}
    no strict-limits
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout tunnel 60s
frontend in
    bind {listen}{how}
    default_backend app
backend app
    server app {upstream}
"
        )
    }

    fn sidecar_toml(&self, listen: SocketAddr, face: Face, access: &str) -> Result<String, String> {
        let (simulator, _) = self
            .simulator
            .as_ref()
            .ok_or("the simulator does not run")?;
        let (upstream, admin) = (self.upstream, free_address());
        let more = match face {
            Face::Plain | Face::Http2 => String::new(),
            Face::Crowd => format!("max_connections = {CROWD}"),
            Face::Tls => format!(
                "[inbound.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"",
                text(&self.certificate.certificate),
                text(&self.certificate.key)
            ),
        };
        let store = self.store.as_ref().map_or_else(String::new, |url| {
            format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\n")
        });
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
{more}

[[route]]
path = "/open/**"
auth = "none"

[wechat]
endpoints = ["http://{simulator}"]

[admin]
listen = "{admin}"

[outbound]
listen = "off"

[log]
level = "warn"
access = "{access}"

{store}"#
        ))
    }
}

/// A proxy that has answered.
pub(crate) struct Started {
    pub(crate) proxy: Proxy,
    face: Face,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// The file with the certificate it shows, if it does.
    certificate: Option<PathBuf>,
    /// Of a user who is logged in.
    token: Option<String>,
    /// From the spawn to the first good answer.
    pub(crate) first_answer: Duration,
    /// It and its workers.
    pub(crate) pids: Vec<u32>,
}

impl Started {
    fn wait_for_answer(&mut self, patience: Duration) -> Result<(), String> {
        let limit = Instant::now() + patience;
        let mut asked = 0;
        loop {
            let last = match self.ask() {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if let Some(status) = self.process.ended() {
                return Err(format!(
                    "it has ended ({status}); {}",
                    self.process.last_words()
                ));
            }
            asked += u32::from(TcpStream::connect(self.address).is_ok());
            if self.face != Face::Plain && asked >= TRIES {
                return Err(format!("{last}; {}", self.process.last_words()));
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

    /// The first request, as it will be measured.
    fn ask(&self) -> Result<(), String> {
        if matches!(self.face, Face::Plain | Face::Crowd) {
            return match fetch(self.address, "GET", "/open/1k", None)? {
                (200, _) => Ok(()),
                (status, _) => Err(format!("status {status}")),
            };
        }
        once(&Spec {
            address: self.address,
            path: "/open/1k".to_owned(),
            token: None,
            upload: None,
            protocol: if self.face == Face::Http2 {
                Protocol::Http2
            } else {
                Protocol::Http1
            },
            certificate: self.certificate.clone(),
            connections: 1,
            streams: 1,
            amount: Amount::Counted { requests: 1 },
        })
    }

    /// A request over HTTP/1.1, with TLS if that is what it speaks.
    fn fetch(
        &self,
        method: &str,
        target: &str,
        json: Option<&str>,
    ) -> Result<(u16, Vec<u8>), String> {
        fetch_over(
            self.address,
            self.certificate.as_deref(),
            method,
            target,
            json,
        )
    }

    /// "Verified" would be an empty word if the sidecar let a stranger in.
    fn expect_refusal(&self) -> Result<(), String> {
        match self.fetch("GET", "/api/1k", None)? {
            (401, _) => Ok(()),
            (status, _) => Err(format!(
                "without a token, /api/1k must be 401, and is {status}"
            )),
        }
    }
}

/// The proxies as they are driven.
pub(crate) struct Running {
    pub(crate) rows: Vec<Row>,
    upstream: SocketAddr,
    started: Vec<Started>,
    /// Who could not show a face, and why.
    absent: Vec<(Proxy, Face, String)>,
}

impl Running {
    /// Where a row's requests for `scenario` go, below which path, and with which token; or why they cannot.
    pub(crate) fn target(&self, row: Row, scenario: &Scenario) -> Result<Target<'_>, &str> {
        let Some(proxy) = Proxy::of(row) else {
            return Ok(Target {
                address: self.upstream,
                prefix: prefix_of(row),
                token: None,
                certificate: None,
                pids: &[],
            });
        };
        let face = scenario.face;
        let same = |one: &&Started| one.proxy == proxy && one.face == face;
        let Some(one) = self.started.iter().find(same) else {
            let same = |absent: &&(Proxy, Face, String)| absent.0 == proxy && absent.1 == face;
            let absent = self.absent.iter().find(same);
            return Err(absent.map_or("it was not started", |(_, _, why)| why));
        };
        Ok(Target {
            address: one.address,
            prefix: prefix_of(row),
            token: one.token.clone().filter(|_| row.is_verified()),
            certificate: one.certificate.clone(),
            pids: &one.pids,
        })
    }

    /// The processes by which a proxy's memory is judged.
    fn plain(&self) -> impl Iterator<Item = &Started> {
        self.started.iter().filter(|one| one.face == Face::Plain)
    }

    pub(crate) fn memory_idle(&self) -> Vec<u64> {
        // What is freed lazily after the start should not count as idle.
        std::thread::sleep(Duration::from_millis(300));
        self.plain().map(|one| Memory::of(&one.pids).now).collect()
    }

    /// Idle (as measured before) and peak memory, in KiB.
    pub(crate) fn memory(&self, idle: &[u64]) -> Vec<(Proxy, Memory)> {
        let after = |one: &Started| Memory::of(&one.pids).peak;
        self.plain()
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
                    "{}, {}: schedstat lacks threads; CPU is in steps of 10 ms from stat",
                    one.proxy.name(),
                    one.face.title()
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
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) pids: &'a [u32],
}

/// The app answers alike below both; the sidecar's configuration does not.
pub(crate) fn prefix_of(row: Row) -> &'static str {
    if row.is_verified() { "/api" } else { "/open" }
}

/// Only for the owner: one of the files holds a secret, and the sidecar may complain about others' eyes.
pub(crate) fn write(path: &Path, contents: &str) -> Result<(), String> {
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
