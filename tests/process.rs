//! The real binary: its arguments, its signals, its exit codes, and what it prints.
//!
//! What a process prints goes to `target/test-output/`, named after the test, and is what tests wait for: no port is
//! known beforehand and no time is slept away.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::daemon::free_port;
use crate::dev::{ANY, arguments};
use crate::fake_app::{FakeApp, OK, Signal};
use crate::http_client::Client;
use crate::patience::{PATIENCE, comes_true, eventually};
use crate::rig;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
/// open(2), on Linux.
const O_NONBLOCK: i32 = 0o4000;

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    /// What it prints, line by line; disconnected when it has ended.
    lines: Receiver<String>,
    stderr: PathBuf,
}

impl Process {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let stderr = output_file("stderr");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).expect("create an output file"))
            .spawn()
            .expect("run the binary");
        let printed = BufReader::new(child.stdout.take().expect("a piped stdout"));
        let mut copy = File::create(output_file("stdout")).expect("create an output file");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                writeln!(copy, "{line}").expect("write an output file");
                // The test may have stopped listening.
                let _unheard = sender.send(line);
            }
        });
        Self {
            child,
            lines,
            stderr,
        }
    }

    /// Its number; a program that only becomes another one has that one's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What a file in its folder of `/proc` says.
    pub(crate) fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.id());
        fs::read_to_string(path).expect("it lives")
    }

    /// Its memory in KiB by a line of its status: `VmRSS` is what it has now, `VmHWM` the most that it ever had.
    pub(crate) fn memory(&self, line: &str) -> usize {
        let status = self.proc("status");
        let mut lines = status.lines();
        let told = lines.find_map(|it| it.strip_prefix(line)?.strip_prefix(':'));
        let number = told.and_then(|told| told.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }

    /// Waits for a line with this text and returns it.
    pub(crate) fn line_with(&self, text: &str) -> String {
        self.lines_to(text)
            .pop()
            .expect("the line ends what was read")
    }

    /// All that it prints from now on up to a line with `text`, which is the last of it.
    pub(crate) fn lines_to(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let is_it = line.contains(text);
                    lines.push(line);
                    if is_it {
                        return lines;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); stderr: {}", self.stderr()),
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("run kill").success());
    }

    /// Waits for its end; the exit code.
    pub(crate) fn end(mut self) -> (i32, String) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        let status = self.child.wait().expect("the child is ours");
        (status.code().expect("no signal ended it"), self.stderr())
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).expect("the output file is there")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A sidecar under `run`.
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) inbound: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) outbound: Option<SocketAddr>,
    /// What it said before it served.
    pub(crate) started: Vec<String>,
}

impl Run {
    fn start(upstream: &str, drain_delay: &str) -> Self {
        Self::of(&configuration(upstream, drain_delay))
    }

    fn of(config: &Path) -> Self {
        Self::under(&[], config)
    }

    /// Run by another program, such as `prlimit`, that becomes the sidecar.
    pub(crate) fn under(wrapper: &[&str], config: &Path) -> Self {
        Self::with(wrapper, config, &[])
    }

    /// The same, with more arguments.
    pub(crate) fn with(wrapper: &[&str], config: &Path, more: &[&str]) -> Self {
        let config = config.to_str().expect("a path in UTF-8");
        let words = [wrapper, &[BINARY, "run", "-c", config], more].concat();
        let process = Process::start(words[0], &words[1..]);
        let mut started = process.lines_to("serving");
        let line = started.pop().expect("it is the last line");
        let event: Value = serde_json::from_str(&line).expect("log lines are JSON");
        let addr = |name: &str| {
            event[name]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("an address")
        };
        Self {
            inbound: addr("inbound"),
            admin: addr("admin"),
            outbound: event["outbound"].as_str().and_then(|it| it.parse().ok()),
            started,
            process,
        }
    }

    fn readiness(&self) -> u16 {
        Client::connect(self.admin)
            .request("GET", "/readyz", &[], b"")
            .status
    }
}

fn configuration(upstream: &str, drain_delay: &str) -> PathBuf {
    // No test waits for the end of a drain that has nobody to wait for.
    let inbound = "auth = \"none\"\ndrain_timeout = \"10m\"";
    let text = rig::configuration("https://127.0.0.1:1", upstream, inbound, "");
    let delay = format!("drain_delay = \"{drain_delay}\"");
    let text = rig::replaced(&text, "drain_delay = \"0s\"", &delay);
    write_configuration(&text)
}

/// The file outlives the test: it lies where all outputs do, less the secrets. It is never there half written, because a
/// sidecar that follows it may look at any moment.
pub(crate) fn write_configuration(text: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("{}.toml", test_name()));
    let written = path.with_extension("toml-next");
    fs::write(&written, text).expect("write the configuration");
    fs::rename(&written, &path).expect("put the configuration in its place");
    path
}

fn output_file(extension: &str) -> PathBuf {
    rig::output_directory().join(format!("{}.{extension}", test_name()))
}

fn test_name() -> String {
    let thread = thread::current();
    thread
        .name()
        .expect("tests run in named threads")
        .replace("::", ".")
}

/// Runs the binary to its end, with its outputs kept.
pub(crate) fn finished(arguments: &[&str]) -> (i32, String, String) {
    finished_with(arguments, &[])
}

/// The same, with variables in its environment.
pub(crate) fn finished_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env("WX_APP_SECRET", rig::SECRET);
    command.envs(environment.iter().copied());
    kept(&command.output().expect("run the binary"))
}

fn kept(output: &Output) -> (i32, String, String) {
    fs::write(output_file("stdout"), &output.stdout).expect("write an output file");
    fs::write(output_file("stderr"), &output.stderr).expect("write an output file");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8 on a terminal");
    let code = output.status.code().expect("no signal ended it");
    (code, text(&output.stdout), text(&output.stderr))
}

/// An app whose answer to `/slow` waits for a signal; the first signal says that it was asked.
pub(crate) fn slow_app() -> (FakeApp, Signal, Signal) {
    let (asked, go_on) = (Signal::default(), Signal::default());
    let (was_asked, goes_on) = (asked.clone(), go_on.clone());
    let app = FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            if request.target() == "/slow" {
                was_asked.give();
                goes_on.wait();
            }
            connection.write(OK);
        }
    });
    (app, asked, go_on)
}

/// It would leave for ten minutes, so that whatever is seen meanwhile is of that time.
#[test]
fn a_terminated_sidecar_that_leaves_still_serves() {
    let app = FakeApp::agreeable();
    let run = Run::start(&app.url(), "10m");
    assert_eq!(run.readiness(), 200);
    let mut idle = Client::connect(run.inbound);
    assert_eq!(idle.request("GET", "/a", &[], b"").status, 200);
    run.process.signal("TERM");
    run.process.line_with("leaving");
    assert!(comes_true(|| run.readiness() == 503));
    assert_eq!(idle.request("GET", "/b", &[], b"").status, 200);
    let late = Client::connect(run.inbound).request("GET", "/c", &[], b"");
    assert_eq!(late.status, 200, "still serving while the news spreads");
}

#[test]
fn a_terminated_sidecar_leaves_then_drains_and_ends_with_0() {
    let (app, asked, go_on) = slow_app();
    // On a port of its own, which is nobody's once it is let go.
    let text = fs::read_to_string(configuration(&app.url(), "1s")).unwrap();
    let listen = format!("[inbound]\nlisten = \"127.0.0.1:{}\"", free_port());
    let text = rig::replaced(&text, "[inbound]\nlisten = \"127.0.0.1:0\"", &listen);
    let run = Run::of(&write_configuration(&text));
    let mut idle = Client::connect(run.inbound);
    assert_eq!(idle.request("GET", "/a", &[], b"").status, 200);
    let mut busy = Client::connect(run.inbound);
    busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(asked.wait());

    run.process.signal("TERM");
    run.process.line_with("leaving");
    run.process.line_with("draining");
    assert!(idle.is_closed(), "an idle connection is closed");
    assert!(comes_true(|| Client::try_connect(run.inbound).is_err()));
    go_on.give();
    let answer = busy.read_response(false);
    assert_eq!(
        (answer.status, answer.text(), answer.truncated),
        (200, "ok", false)
    );
    assert!(busy.is_closed());
    run.process.line_with("stopped");
    assert_eq!(run.process.end(), (0, String::new()));
}

/// With a single place, the kernel holds the others back; when the sidecar goes it must not reset what it holds.
#[test]
fn connections_that_wait_to_be_accepted_are_served_before_the_end() {
    let app = FakeApp::agreeable();
    let text = rig::configuration(
        "https://127.0.0.1:1",
        &app.url(),
        "auth = \"none\"\nmax_connections = 1\ndrain_timeout = \"10m\"",
        "",
    );
    let run = Run::of(&write_configuration(&rig::replaced(
        &text,
        "workers = 2",
        "workers = 1",
    )));
    let mut holder = Client::connect(run.inbound);
    assert_eq!(holder.request("GET", "/held", &[], b"").status, 200);
    let mut waiting: Vec<_> = (0..20).map(|_| Client::connect(run.inbound)).collect();
    for client in &mut waiting {
        client.send(b"GET /waiting HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    run.process.signal("TERM");
    for client in &mut waiting {
        let answer = client.read_response(false);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close"))
        );
    }
    assert_eq!(run.process.end().0, 0);
}

#[test]
fn a_hangup_reloads_and_a_bad_file_changes_nothing() {
    let app = FakeApp::agreeable();
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"required\"", "");
    let path = write_configuration(&text);
    let run = Run::of(&path);
    let status = || {
        Client::connect(run.inbound)
            .request("GET", "/a", &[], b"")
            .status
    };
    assert_eq!(status(), 401);
    write_configuration(&rig::replaced(&text, "required", "none"));
    run.process.signal("HUP");
    run.process.line_with("configuration reloaded");
    assert_eq!(status(), 200);
    write_configuration(&rig::replaced(&text, "required", "requierd"));
    run.process.signal("HUP");
    let line = run.process.line_with("the old one stays");
    assert!(line.contains("did you mean"), "{line}");
    assert_eq!(status(), 200);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
}

/// As a network file system does whose server is away.
#[test]
fn a_file_that_does_not_come_to_its_end_keeps_nobody_from_ending() {
    let app = FakeApp::agreeable();
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", "");
    let path = write_configuration(&text);
    let pipe = path.with_extension("pipe");
    let _none_before = fs::remove_file(&pipe);
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("run mkfifo")
            .success()
    );
    let run = Run::of(&path);
    let (before, after) = text.split_once("\nsecret = ").expect("a secret");
    let (_, after) = after.split_once('\n').expect("more lines");
    write_configuration(&format!(
        "{before}\nsecret_file = \"{}\"\n{after}",
        pipe.display()
    ));
    run.process.signal("HUP");
    // Whoever opens it to write without waiting is refused as long as nobody reads.
    let mut silent = None;
    let is_read = comes_true(|| {
        silent = OpenOptions::new()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&pipe)
            .ok();
        silent.is_some()
    });
    assert!(is_read, "nobody reads the pipe");
    assert_eq!(run.readiness(), 200);
    let answer = Client::connect(run.inbound).request("GET", "/a", &[], b"");
    assert_eq!(answer.status, 200);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
}

#[test]
fn a_configuration_may_come_out_of_a_pipe() {
    let app = FakeApp::agreeable();
    let path = configuration(&app.url(), "0s");
    let piped = "exec \"$0\" \"$1\" \"$2\" <(cat \"$3\")";
    let run = Run::under(&["bash", "-c", piped], &path);
    let get = || {
        Client::connect(run.inbound)
            .request("GET", "/a", &[], b"")
            .status
    };
    assert_eq!(get(), 200);
    // There is nothing more in it, and that changes nothing.
    run.process.signal("HUP");
    run.process.line_with("configuration reloaded");
    assert_eq!(get(), 200);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
}

#[test]
fn a_flood_of_failures_is_a_few_lines_in_the_log() {
    // Bound and not listening: every connection is refused.
    let gone = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    gone.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = gone.local_addr().unwrap().as_socket().unwrap();
    let began = Instant::now();
    let run = Run::start(&format!("http://{addr}"), "0s");
    let mut client = Client::connect(run.inbound);
    for _ in 0..500 {
        client
            .request("GET", "/", &[], b"")
            .problem(502, "upstream-unreachable");
    }
    drop(client);
    run.process.signal("TERM");
    let mut failures = Vec::new();
    while let Ok(line) = run.process.lines.recv_timeout(PATIENCE) {
        if line.contains("request failed") {
            failures.push(line);
        }
    }
    let most = began.elapsed().as_secs() as usize + 1;
    assert!((1..=most).contains(&failures.len()), "{failures:#?}");
    assert!(failures[0].contains("\"suppressed\":0"), "{failures:#?}");
    assert_eq!(run.process.end().0, 0);
}

#[test]
fn a_second_signal_ends_the_sidecar_at_once() {
    let (app, asked, go_on) = slow_app();
    let run = Run::start(&app.url(), "10m");
    let mut busy = Client::connect(run.inbound);
    busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(asked.wait());
    run.process.signal("TERM");
    run.process.line_with("leaving");
    run.process.signal("INT");
    let (code, _) = run.process.end();
    assert_eq!(code, 1);
    assert!(busy.is_closed());
    go_on.give();
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for section in ["inbound", "admin"] {
        let text = fs::read_to_string(configuration("http://127.0.0.1:1", "0s")).unwrap();
        let (before, after) = text.split_once(&format!("[{section}]")).unwrap();
        let after = after.replacen("127.0.0.1:0", &addr.to_string(), 1);
        let path = write_configuration(&format!("{before}[{section}]{after}"));
        let path = path.to_str().unwrap();
        let (code, _, stderr) = finished(&["run", "-c", path]);
        assert_eq!(code, 1);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for part in [
            "error: ",
            &addr.to_string(),
            &format!("[{section}] listen"),
            "in use",
        ] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        // A check opens no socket.
        let (code, _, stderr) = finished(&["check", "-c", path]);
        assert_eq!(code, 0, "{stderr}");
    }
}

/// Whoever holds the inbound port, if only for a moment, is given connections by the kernel.
#[test]
fn the_inbound_port_is_not_touched_if_the_admin_side_cannot_listen() {
    let (inbound, admin) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let mut text = fs::read_to_string(configuration("http://127.0.0.1:1", "0s")).unwrap();
    for (section, taken) in [("inbound", &inbound), ("admin", &admin)] {
        let (before, after) = text.split_once(&format!("[{section}]")).unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let after = after.replacen("127.0.0.1:0", &addr, 1);
        text = format!("{before}[{section}]{after}");
    }
    let path = write_configuration(&text);
    let (code, _, stderr) = finished(&["run", "-c", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("[admin] listen"), "{stderr}");
}

#[test]
fn the_reference_configuration_is_valid() {
    let (code, stdout, stderr) = finished(&["check"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("sidecar.toml: OK"), "{stderr}");
}

#[test]
fn every_mistake_in_a_configuration_is_told_with_its_place() {
    let text = "[app]\nappid = \"wx1\"\nsecret = \"${WX_APP_SECRET}\"\n[inbound]\nupstrem = \"http://127.0.0.1:3000\"\n";
    let path = write_configuration(text);
    let path = path.to_str().unwrap();
    for command in ["check", "run"] {
        let (code, stdout, stderr) = finished(&[command, "-c", path]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        for part in [
            &format!("{path}:2:9"),
            &format!("{path}:5:1"),
            "did you mean `upstream`?",
        ] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    }
    let (code, stdout, stderr) = finished(&["check", "-c", path, "--format", "json"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false);
    let places: Vec<_> = report["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (&d["line"], &d["column"]))
        .collect();
    assert!(places.contains(&(&2.into(), &9.into())), "{stdout}");
    assert!(places.contains(&(&5.into(), &1.into())), "{stdout}");
}

#[test]
fn arguments_that_mean_nothing_end_with_2() {
    for arguments in [
        &["frobnicate"][..],
        &["check", "--format", "yaml"],
        &["errcode"],
        &["errcode", "many"],
        &["dev", "--listen", "here"],
        &["run", "--nonsense"],
        &[],
    ] {
        let (code, stdout, stderr) = finished(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains("--help"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn errcodes_and_the_version_are_told() {
    let (code, stdout, _) = finished(&["errcode", "40029"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("40029") && stdout.contains("what to do"),
        "{stdout}"
    );
    let (code, stdout, _) = finished(&["errcode", "-1", "--zh"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("-1") && stdout.contains("如何处理"),
        "{stdout}"
    );
    let version = format!("wx-sidecar {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(finished(&["version"]), (0, version, String::new()));
}

#[test]
fn a_rid_is_explained_by_what_wechat_remembers_and_a_strange_one_is_refused() {
    const TOKEN: &str = "92_a-token-that-nobody-may-see";
    rig::canary(TOKEN);
    let wechat = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let known = String::from_utf8_lossy(&request.body).contains("617682e0");
            let body = match request.target() {
                it if it.contains("stable_token") => {
                    format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#)
                }
                _ if known => format!(
                    r#"{{"errcode":0,"request":{{"invoke_time":1635156704,"cost_in_ms":30,"client_ip":"203.0.113.9",
                    "request_url":"/wxa/getwxacode?access_token={TOKEN}","request_body":"{{}}",
                    "response_body":"{{\"errcode\":45009,\"errmsg\":\"x\"}}"}}}}"#
                ),
                _ => r#"{"errcode":76001,"errmsg":"rid not found"}"#.to_owned(),
            };
            let length = body.len();
            connection.write(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
            );
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sidecar.toml");
    fs::write(
        &config,
        rig::configuration(&wechat.url(), "http://127.0.0.1:9", "", ""),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let (code, stdout, _) = finished(&["rid", "617682e0-09059ac5-34a8e2ea", "-c", config]);
    assert_eq!(code, 0, "{stdout}");
    for part in ["203.0.113.9", "access_token=***", "45009", "rate_quota"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let (code, stdout, stderr) = finished(&["rid", "nothing", "-c", config, "--zh"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("76001") && stderr.contains("rid 不存在"),
        "{stderr}"
    );
}

#[test]
fn the_commands_that_dev_prints_work_as_printed() {
    let dev = Process::start(BINARY, &arguments(ANY, ANY, ANY));
    let commands = printed_commands(&dev, "Ctrl-C ends it.");
    assert_eq!(commands.len(), 14, "{commands:#?}");
    let mut outputs = run_in_one_shell(&commands);
    let risky: Value =
        serde_json::from_str(&outputs.remove(12)).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(risky["type"], "urn:wx-sidecar:problem:content-risky");
    let picture = outputs.drain(6..9).next_back().unwrap();
    assert!(picture.starts_with("200 image/jpeg "), "{picture}");
    assert_eq!(outputs.remove(3).trim(), "200 image/jpeg");
    let pushed: Value =
        serde_json::from_str(&outputs.remove(3)).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(pushed["accepted"], true, "{pushed}");
    let message: Value =
        serde_json::from_str(&outputs.remove(3)).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(message["message"]["Content"], "hello");
    assert!(message["openid"].is_string(), "{message}");
    let me: Value = serde_json::from_str(&outputs[2]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(me["message"], "hello, I know you");
    assert!(me["openid"].is_string());
    let refused: Value =
        serde_json::from_str(&outputs[3]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(refused["status"], 401);
    let public: Value =
        serde_json::from_str(&outputs[4]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(public["path"], "/public/hello");
    assert_eq!(public["openid"], Value::Null);
    let made_up: Value =
        serde_json::from_str(&outputs[5]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(made_up["errcode"], 40029);
    assert!(!made_up["title"].as_str().unwrap().is_ascii(), "{made_up}");
    let translated: Value =
        serde_json::from_str(&outputs[6]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert_eq!(translated["class"], "user_input");
    dev.signal("INT");
    assert_eq!(dev.end(), (0, String::new()));
}

#[test]
fn the_commands_that_sim_prints_work_as_printed() {
    let sim = Process::start(BINARY, &["sim", "--listen", "127.0.0.1:0"]);
    let commands = printed_commands(&sim, "All that it can do");
    assert_eq!(commands.len(), 4, "{commands:#?}");
    let outputs = run_in_one_shell(&commands);
    let session: Value =
        serde_json::from_str(&outputs[1]).unwrap_or_else(|_| panic!("{outputs:#?}"));
    assert!(
        session["openid"].is_string() && session["session_key"].is_string(),
        "{outputs:#?}"
    );
    assert!(outputs[3].contains("jscode2session"), "{outputs:#?}");
    sim.signal("INT");
    assert_eq!(sim.end(), (0, String::new()));
}

#[test]
fn what_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for arguments in [
        &["errcode", "40029"][..],
        &["version"],
        &["schema"],
        &["init"],
        &["completions", "bash"],
        &["check", "--format", "json", "-c", "sidecar.toml"],
        &["config", "show", "-c", "sidecar.toml"],
        &["explain", "GET", "/wx/me", "-c", "sidecar.toml"],
    ] {
        let run = |stdout: Stdio| {
            let mut command = Command::new(BINARY);
            command.args(arguments).stdout(stdout);
            command.env("WX_APP_SECRET", rig::SECRET);
            command.current_dir(env!("CARGO_MANIFEST_DIR"));
            command.output().expect("run the binary")
        };
        let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let output = run(full().unwrap().into());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let told_of_full = told(&output);
        assert!(
            told_of_full.contains("error: standard output: No space left on device"),
            "{arguments:?}: {told_of_full}"
        );
        let output = run(closed().into());
        assert!(!told(&output).contains("standard output"), "{arguments:?}");
        let as_usual = run(Stdio::null()).status.code();
        assert_eq!(output.status.code(), as_usual, "{arguments:?}");
    }
}

#[test]
fn dev_goes_on_without_a_reader_and_ends_with_its_terminal() {
    // Whoever runs the tests may have it ignored, which is handed down.
    let mut dev = Command::new("env");
    dev.args(["--default-signal=HUP", BINARY])
        .args(arguments(ANY, ANY, ANY));
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let errors = directory.path().join("stderr");
    dev.stdout(writer)
        .stderr(fs::File::create(&errors).unwrap());
    let mut dev = dev.spawn().unwrap();
    // It says nowhere where it listens, so the system is asked.
    let pid = dev.id().to_string();
    eventually("it listens", || listens(&pid) >= 4);
    let sent = Command::new("kill").args(["-s", "HUP", &pid]).status();
    assert!(sent.unwrap().success());
    let ended = dev.wait().unwrap();
    let said = fs::read_to_string(errors).unwrap();
    assert_eq!((ended.code(), &*said), (Some(0), ""));
}

#[test]
fn a_hangup_that_is_to_be_ignored_is() {
    let line = format!(
        "trap '' HUP; exec {BINARY} {}",
        arguments(ANY, ANY, ANY).join(" ")
    );
    let dev = Process::start("sh", &["-c", &line]);
    let admin = dev.line_with("  admin  ");
    let admin = admin.split("http://").nth(1).unwrap();
    let admin = admin.split_whitespace().next().unwrap();
    dev.signal("HUP");
    let ready = Client::connect(admin).request("GET", "/readyz", &[], b"");
    assert_eq!(ready.status, 200);
    dev.signal("INT");
    assert_eq!(dev.end(), (0, String::new()));
}

/// How many sockets a process has that listen.
fn listens(pid: &str) -> usize {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let listening: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|line| line.get(3) == Some(&"0A"))
        .map(|line| format!("socket:[{}]", line[9]))
        .collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.filter_map(|it| fs::read_link(it.ok()?.path()).ok())
        .filter(|link| listening.iter().any(|it| link.as_os_str() == it.as_str()))
        .count()
}

#[test]
fn what_dev_is_asked_wrongly_it_tells_by_the_name_of_the_option() {
    for (arguments, told) in [
        (
            &["--upstream", "https://127.0.0.1:3000"][..],
            "'--upstream <URL>': TLS to the app is not supported: it runs beside the sidecar, on the same machine: \
             write \"http://127.0.0.1:3000\"",
        ),
        (
            &["--listen", "8080"],
            "'--listen <ADDRESS:PORT>': a listener is an address and a port, such as \"0.0.0.0:8080\", or \
             \"unix:/path/to.sock\": write \":8080\"",
        ),
        (
            &["--outbound", "0.0.0.0:18081"],
            "--outbound 0.0.0.0:18081 is for others than this machine",
        ),
        (
            &["--admin", "127.0.0.1:99999"],
            "a port is a number from 0 to 65535",
        ),
    ] {
        let (code, stdout, stderr) = finished(&[&["dev"], arguments].concat());
        assert_ne!(code, 0);
        assert_eq!(stdout, "");
        assert!(stderr.contains(told), "{stderr}");
        assert!(!stderr.contains("wx-sidecar dev:"), "{stderr}");
    }
}

#[test]
fn dev_opens_its_admin_side_to_others_for_a_token_only() {
    let upstream = ["--upstream", "http://127.0.0.1:9"];
    let dev = Process::start(
        BINARY,
        &[&arguments(ANY, ANY, "0.0.0.0:0")[..], &upstream].concat(),
    );
    let opened = dev.line_with("in a browser");
    let place = opened.split("http://").nth(1).unwrap();
    let place = place.split('/').next().unwrap();
    assert!(place.starts_with("127.0.0.1:"), "{opened}");
    let line = dev.line_with("It asks for a token");
    // It is for whoever sees the screen, so it is no canary.
    let token = line.rsplit(' ').next().unwrap();
    let state = |headers: &[(&str, &str)]| {
        Client::connect(place).request("GET", "/inspector/state", headers, b"")
    };
    assert_eq!(state(&[]).status, 401);
    let bearer = format!("Bearer {token}");
    assert_eq!(state(&[("Authorization", &bearer)]).status, 200);
    // What only the sample app knows is not spoken of.
    assert!(dev.line_with("your app gets it").contains("POST /wx/push"));
    dev.signal("INT");
    assert_eq!(dev.end(), (0, String::new()));
}

#[test]
fn the_example_of_embedding_runs_to_its_end() {
    let example = Path::new(BINARY).with_file_name("examples").join("embed");
    if !example.exists() {
        // `cargo test` builds examples; `cargo test --test` does not.
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--example", "embed"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("run cargo").success());
    }
    let (code, stdout, stderr) = kept(&Command::new(example).output().expect("run the example"));
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("HTTP/1.1 200 OK") && stdout.ends_with("stopped\n"),
        "{stdout}"
    );
}

/// The shell commands among the lines up to one with `last`.
fn printed_commands(process: &Process, last: &str) -> Vec<String> {
    let mut commands = Vec::new();
    loop {
        let line = process.line_with("");
        if line.contains(last) {
            return commands;
        }
        let line = line.trim();
        if ["curl ", "CODE=", "TOKEN=", "URL=", "code="]
            .iter()
            .any(|start| line.starts_with(start))
        {
            commands.push(line.to_owned());
        }
    }
}

/// Runs commands one after the other as a person would, and gives the output of each.
fn run_in_one_shell(commands: &[String]) -> Vec<String> {
    let found = Command::new("curl").arg("--version").output();
    assert!(
        found.is_ok(),
        "this test runs what the binary prints, and needs curl: apt install curl"
    );
    let mark = "--- end of a command ---";
    let script: String = commands
        .iter()
        .map(|command| format!("{}\necho '{mark}'\n", once_it_has_come(command)))
        .collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("no_proxy", "*");
    let output = shell.output().expect("run sh");
    let stdout = String::from_utf8(output.stdout).expect("answers in UTF-8");
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
        .split(mark)
        .map(|part| part.trim().to_owned())
        .collect()
}

/// Commands of which the one that asks for the message that was pushed first waits until it has come, as a person would. The
/// sample app itself waits for a second, which is enough where nothing else goes on.
pub(crate) fn once_it_has_come(commands: &str) -> String {
    let lines = commands.lines().map(|line| {
        let Some((asked, _)) = line.split_once("/public/pushed") else {
            return line.to_owned();
        };
        format!(
            "for _ in $(seq 60); do {asked}/public/pushed | grep -q MsgType && break; done\n{line}"
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
