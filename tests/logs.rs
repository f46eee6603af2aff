//! The log of the real process: that nothing and nobody can break its lines, that output which blocks, ends or is full
//! holds up no request, and what the access log says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use wx_sidecar::clock::Clock;
use wx_sidecar::sim::{Fault, Simulator};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, PATIENCE};
use crate::patience::eventually;
use crate::process::{Run, finished, write_configuration};
use crate::rig::{self, SECRET, Session, canary};

const ACCESS: &str = "\"target\":\"access\"";

/// A sidecar whose standard output is the test's business. It listens on Unix sockets, which are known beforehand.
struct Sidecar {
    child: Child,
    inbound: PathBuf,
    admin: PathBuf,
    _directory: tempfile::TempDir,
}

impl Sidecar {
    fn start(app: &FakeApp, stdout: Stdio) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = |name: &str| directory.path().join(name);
        let (inbound, admin) = (socket("inbound"), socket("admin"));
        let mut text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", "");
        for (section, place) in [("inbound", &inbound), ("admin", &admin)] {
            let (before, after) = text.split_once(&format!("[{section}]")).unwrap();
            let listen = format!("unix:{}", place.display());
            let after = after.replacen("127.0.0.1:0", &listen, 1);
            text = format!("{before}[{section}]{after}");
        }
        let child = Command::new(env!("CARGO_BIN_EXE_wx-sidecar"))
            .args(["run", "-c", write_configuration(&text).to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sidecar = Self {
            child,
            inbound,
            admin,
            _directory: directory,
        };
        for place in [&sidecar.admin, &sidecar.inbound] {
            eventually("it listens", || UnixStream::connect(place).is_ok());
        }
        sidecar
    }

    /// Requests as many as there are targets, each of which succeeds.
    fn get(&self, targets: impl Iterator<Item = String>) {
        for target in targets {
            let answer = answer_at(&self.inbound, &target);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }

    /// How many lines were dropped so far.
    fn dropped(&self, reason: &str) -> u64 {
        let page = answer_at(&self.admin, "/metrics");
        let series = format!("wx_sidecar_log_lines_dropped_total{{reason=\"{reason}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("it is always there").parse().unwrap()
    }

    fn terminate(&mut self) -> i32 {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
        self.child
            .wait()
            .unwrap()
            .code()
            .expect("no signal ended it")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn answer_at(socket: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Targets whose lines are long, so that a few fill a buffer.
fn long_targets(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("/{number}/{}", "x".repeat(3000)))
}

fn objects(output: ChildStdout) -> impl Iterator<Item = Value> {
    let lines = BufReader::new(output).lines().map(Result::unwrap);
    lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

fn is_access(line: &Value) -> bool {
    line["target"] == "access"
}

#[test]
fn a_pipe_that_nobody_reads_blocks_no_request_and_what_was_dropped_is_told() {
    const BATCH: usize = 500;
    // What there is room for when nothing waits.
    const FEW: usize = 100;
    let app = FakeApp::agreeable();
    let mut sidecar = Sidecar::start(&app, Stdio::piped());
    let output = sidecar.child.stdout.take().unwrap();
    let mut asked = 0;
    // More than the pipe and the buffers hold.
    eventually("lines are dropped", || {
        sidecar.get(long_targets(BATCH));
        asked += BATCH;
        sidecar.dropped("full") > 0
    });
    let lines = Arc::<Mutex<Vec<Value>>>::default();
    let read = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        objects(output).for_each(|line| read.lock().unwrap().push(line));
    });
    let told = || -> u64 {
        let lines = lines.lock().unwrap();
        lines.iter().filter_map(|line| line["lines"].as_u64()).sum()
    };
    let written = || {
        let lines = lines.lock().unwrap();
        lines.iter().filter(|line| is_access(line)).count()
    };
    eventually("it flows again", || told() == sidecar.dropped("full"));
    let dropped = told();
    sidecar.get(long_targets(FEW));
    asked += FEW;
    // A line is written when its answer has left, and is not waited for at the end if nobody reads for a while.
    eventually("all others are written", || {
        written() as u64 + dropped == asked as u64
    });
    assert_eq!(sidecar.dropped("full"), dropped);
    assert_eq!(sidecar.terminate(), 0);
    reader.join().unwrap();
    assert_eq!(told(), dropped);
    assert_eq!(written() as u64 + dropped, asked as u64);
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line["message"] == "stopped"));
}

#[test]
fn a_pipe_that_nobody_reads_keeps_no_sidecar_from_ending() {
    let app = FakeApp::agreeable();
    let mut sidecar = Sidecar::start(&app, Stdio::piped());
    let _unread = sidecar.child.stdout.take().unwrap();
    eventually("lines are dropped", || {
        sidecar.get(long_targets(500));
        sidecar.dropped("full") > 0
    });
    assert_eq!(sidecar.terminate(), 0);
}

#[test]
fn a_closed_stdout_ends_no_sidecar_and_blocks_no_request() {
    let app = FakeApp::agreeable();
    let mut sidecar = Sidecar::start(&app, Stdio::piped());
    drop(sidecar.child.stdout.take());
    loses_its_lines_and_nothing_else(sidecar);
}

#[test]
fn a_full_disk_ends_no_sidecar_and_blocks_no_request() {
    let app = FakeApp::agreeable();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    loses_its_lines_and_nothing_else(Sidecar::start(&app, full.into()));
}

fn loses_its_lines_and_nothing_else(mut sidecar: Sidecar) {
    sidecar.get(long_targets(100));
    eventually("its lines are counted as dropped", || {
        sidecar.dropped("error") >= 100
    });
    sidecar.get(long_targets(10));
    assert_eq!(sidecar.terminate(), 0);
}

#[test]
fn what_waits_to_be_written_is_written_at_the_end() {
    let app = FakeApp::agreeable();
    let mut sidecar = Sidecar::start(&app, Stdio::piped());
    let output = sidecar.child.stdout.take().unwrap();
    sidecar.get((0..100).map(|number| format!("/{number}")));
    assert_eq!(sidecar.terminate(), 0);
    let lines: Vec<_> = objects(output).collect();
    let paths = lines.iter().filter(|line| is_access(line));
    let mut paths: Vec<_> = paths.map(|line| line["path"].to_string()).collect();
    let mut asked: Vec<_> = (0..100).map(|number| format!("\"/{number}\"")).collect();
    // Two workers write, each when its answer has left.
    paths.sort_unstable();
    asked.sort_unstable();
    assert_eq!(paths, asked);
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

/// A simulator, and a sidecar as a process of its own.
struct Real {
    sim: Simulator,
    run: Run,
    config: String,
    path: PathBuf,
}

impl Real {
    fn start(app: &FakeApp, inbound: &str, log: &str) -> Self {
        let sim = rig::simulator(Clock::System);
        let config = rig::configuration(&sim.url(), &app.url(), inbound, log);
        canary(SECRET);
        let path = write_configuration(&config);
        let run = Run::under(&[], &path);
        Self {
            sim,
            run,
            config,
            path,
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.run.inbound)
    }

    fn login(&self, user: &str) -> Session {
        let code = self.sim.issue_code(user);
        canary(&code);
        let body = serde_json::json!({ "code": code }).to_string();
        let answer = self
            .client()
            .request("POST", "/wx/login", &[], body.as_bytes());
        Session::of(&answer.json())
    }

    /// The next line of the access log.
    fn access(&self) -> Value {
        serde_json::from_str(&self.run.process.line_with(ACCESS)).unwrap()
    }
}

fn pseudonyms(path: &Path, openid: &str) -> String {
    let (code, printed, stderr) = finished(&["pseudonym", openid, "-c", path.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    printed.trim_end().to_owned()
}

#[test]
fn the_access_log_names_the_route_and_the_user_by_a_pseudonym() {
    let app = FakeApp::agreeable();
    let inbound = "auth = \"required\"\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let sections = "[log]\naccess = \"all\"\n[[route]]\npath = \"/orders/*\"\n";
    let real = Real::start(&app, inbound, sections);
    let session = real.login("alice");
    let line = real.access();
    let user = pseudonyms(&real.path, &session.openid);
    assert_eq!(line["route"], "wx:login");
    assert!(line["wechat_micros"].is_u64() && line["upstream_micros"].is_null());
    assert_eq!(
        (&line["verified"], &line["user"]),
        (&true.into(), &user.as_str().into())
    );

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [
        ("Authorization", &*session.bearer()),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Request-Id", "given-by-a-proxy"),
        ("traceparent", &parent),
    ];
    let answer =
        real.client()
            .request("POST", "/orders/4711?phone=13800138000", &headers, b"hello");
    assert_eq!(answer.status, 200);
    let text = real.run.process.line_with(ACCESS);
    for secret in ["4711", "13800138000", &session.openid] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let line: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("level", Value::from("INFO")),
        ("request_id", "given-by-a-proxy".into()),
        ("trace_id", trace.into()),
        ("client", "203.0.113.7".into()),
        ("protocol", "HTTP/1.1".into()),
        ("method", "POST".into()),
        ("route", "/orders/*".into()),
        ("path", Value::Null),
        ("status", 200.into()),
        ("problem", Value::Null),
        ("bytes_in", 5.into()),
        ("bytes_out", 2.into()),
        ("verified", true.into()),
        ("user", user.as_str().into()),
        ("sample", Value::Null),
    ] {
        assert_eq!(line[name], value, "{name} in {text}");
    }
    for duration in ["micros", "upstream_micros", "upstream_whole_micros"] {
        assert!(line[duration].is_u64(), "{duration} in {text}");
    }
    assert_eq!(line["wechat_micros"], Value::Null);

    // Nobody in particular, and what is refused.
    let answer = real.client().request("GET", "/orders/1", &[], b"");
    assert_eq!(answer.status, 401);
    let line = real.access();
    assert_eq!(
        (&line["problem"], &line["verified"]),
        (&"token-missing".into(), &false.into())
    );
    assert_eq!(line["user"], Value::Null);
    real.client().send(b"GET / HTTP/1.1\r\nHost x\r\n\r\n");
    let line = real.access();
    assert_eq!(
        (&line["route"], &line["status"]),
        (&"none".into(), &400.into())
    );
}

#[test]
fn a_call_of_the_apps_has_the_figures_of_a_request_and_is_joined_to_it_by_its_trace() {
    let app = FakeApp::agreeable();
    let real = Real::start(&app, "auth = \"none\"", "[log]\naccess = \"all\"\n");
    assert_eq!(real.client().request("GET", "/a", &[], b"").status, 200);
    let request = real.access();
    let given = app.only_request();
    let parent = given.header("traceparent").expect("the app has one");
    let call = |target: &str, body: &[u8]| {
        let mut client = Client::connect(real.run.outbound.expect("it takes calls"));
        let headers = [("traceparent", parent)];
        let answer = client.request("POST", target, &headers, body);
        (answer, real.run.process.line_with(ACCESS))
    };

    let code = real.sim.issue_phone_code("alice");
    canary(&code);
    canary(&real.sim.phone_number("alice"));
    let body = serde_json::json!({ "code": code }).to_string();
    let path = "/wxa/business/getuserphonenumber";
    let (answer, text) = call(&format!("{path}?scene=4711"), body.as_bytes());
    assert_eq!(answer.status, 200);
    assert!(!text.contains("4711"), "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("level", Value::from("INFO")),
        ("side", "outbound".into()),
        ("request_id", answer.header("x-request-id").into()),
        ("trace_id", request["trace_id"].clone()),
        ("protocol", "HTTP/1.1".into()),
        ("method", "POST".into()),
        ("api", path.into()),
        ("path", Value::Null),
        ("route", Value::Null),
        ("status", 200.into()),
        ("result", "ok".into()),
        ("problem", Value::Null),
        ("bytes_in", body.len().into()),
        ("bytes_out", answer.body.len().into()),
        ("verified", Value::Null),
        ("upstream_micros", Value::Null),
    ] {
        assert_eq!(line[name], value, "{name} in {text}");
    }
    let micros = |name: &str| line[name].as_u64().expect("a duration");
    assert!(micros("wechat_micros") > 0 && micros("wechat_micros") <= micros("micros"));

    // What no API is called, the app may have put together of anything.
    let (answer, text) = call("/wxa/of-13800138000", b"{}");
    assert!(!text.contains("13800138000"), "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["api"], "other", "{text}");
    assert_eq!(line["status"], answer.status, "{text}");

    // Refused here: WeChat was not waited for.
    let (answer, text) = call("/a//b", b"");
    assert_eq!(answer.status, 400);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["problem"], "ambiguous-path", "{text}");
    assert_eq!(line["wechat_micros"], Value::Null, "{text}");
}

#[test]
fn a_call_whose_app_does_not_wait_for_the_answer_has_a_line() {
    let app = FakeApp::agreeable();
    let real = Real::start(&app, "auth = \"none\"", "[log]\naccess = \"errors\"\n");
    let api = "/cgi-bin/get_api_domain_ip";
    // The app has left long before that.
    let delay = Duration::from_secs(25);
    real.sim.fault(Fault::delay(api, 1, delay));
    let mut client = Client::connect(real.run.outbound.expect("it takes calls"));
    client.send(b"GET /cgi-bin/get_api_domain_ip HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    eventually("WeChat is asked", || real.sim.calls(api) == 1);
    drop(client);
    let line = real.access();
    for (name, value) in [
        ("side", Value::from("outbound")),
        ("api", api.into()),
        ("status", 499.into()),
        ("result", "gone".into()),
        ("problem", Value::Null),
        ("bytes_out", 0.into()),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert!(line["wechat_micros"].as_u64().unwrap() > 0, "{line}");
}

#[test]
fn a_calls_line_says_the_path_where_those_of_requests_do_and_counts_what_streams() {
    const LARGE: usize = 300 * 1024;
    let app = FakeApp::agreeable();
    let sections = "[log]\naccess = \"all\"\naccess_path = true\n\
                    [outbound]\nlisten = \"127.0.0.1:0\"\nreplay_limit = \"64KiB\"\n";
    let real = Real::start(&app, "auth = \"none\"", sections);
    let mut client = Client::connect(real.run.outbound.expect("it takes calls"));
    client.request("POST", "/wxa/new_one?secret=1", &[], &[b'x'; LARGE]);
    let line = real.access();
    assert_eq!(line["path"], "/wxa/new_one", "{line}");
    assert_eq!(line["bytes_in"], LARGE, "{line}");
}

#[test]
fn a_pseudonym_outlives_a_restart_and_comes_of_each_secret() {
    let app = FakeApp::agreeable();
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "", "");
    let path = write_configuration(&text);
    let openid = "oAlice0000000000000000000000";
    let now = pseudonyms(&path, openid);
    assert_eq!(pseudonyms(&path, openid), now);
    let newer = "f".repeat(32);
    let two = format!("secret = [\"{newer}\", \"{SECRET}\"]");
    let path = write_configuration(&rig::replaced(
        &text,
        &format!("secret = \"{SECRET}\""),
        &two,
    ));
    let both = pseudonyms(&path, openid);
    let (newest, older) = both.split_once(' ').unwrap();
    assert_eq!(older, now);
    assert_ne!(newest, now);
    let path = path.to_str().unwrap();
    assert_eq!(finished(&["pseudonym", "not an openid", "-c", path]).0, 1);
}

#[test]
fn what_the_access_log_chooses_can_be_changed_and_probes_are_not_in_it() {
    let app = FakeApp::agreeable();
    let real = Real::start(
        &app,
        "auth = \"none\"",
        "[log]\naccess = \"all\"\naccess_sample = 3\naccess_path = true\n",
    );
    let mut client = real.client();
    for path in ["/1", "/2", "/3", "/wx/nowhere", "/4", "/5", "/6"] {
        client.request("GET", path, &[], b"");
        Client::connect(real.run.admin).request("GET", "/readyz", &[], b"");
        Client::connect(real.run.admin).request("GET", "/metrics", &[], b"");
    }
    let seen = [real.access(), real.access(), real.access()];
    let paths = seen.each_ref().map(|line| line["path"].as_str().unwrap());
    assert_eq!(paths, ["/3", "/wx/nowhere", "/6"]);
    assert_eq!(
        seen.each_ref().map(|line| line["sample"].as_u64()),
        [Some(3), None, Some(3)]
    );

    let reload = |log: &str| {
        let (rest, _) = real.config.split_once("[log]\n").unwrap();
        write_configuration(&format!("{rest}[log]\n{log}\n"));
        real.run.process.signal("HUP");
        real.run.process.line_with("configuration reloaded");
    };
    reload("access = \"errors\"\naccess_path = true");
    client.request("GET", "/7", &[], b"");
    client.request("GET", "/wx/nowhere", &[], b"");
    assert_eq!(real.access()["path"], "/wx/nowhere");
    reload("access = \"all\"\nlevels = [\"server=debug\"]");
    // Refused with a line of the server's at level debug, which nobody heard before.
    client.request("GET", "/wx/nowhere", &[], b"");
    let line = real.run.process.line_with("wx_sidecar::server::exchange");
    assert!(line.contains("\"level\":\"DEBUG\""), "{line}");
    assert_eq!(real.access()["path"], Value::Null);
}

#[test]
fn a_message_can_be_followed_at_level_debug() {
    const TOKEN: &str = "logsPushTokenCanary0000000001";
    const KEY: &str = "canary9PushKey9aaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    canary(TOKEN);
    canary(KEY);
    let app = FakeApp::agreeable();
    let push = format!("[push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\ntimeout = \"1m\"\n");
    let real = Real::start(
        &app,
        "",
        &format!("{push}[log]\nlevels = [\"push=debug\"]\n"),
    );
    let to = format!("http://{}/wx/push", real.run.inbound);
    let order = ["sim", "push", "text", "--to", &to, "--token", TOKEN];
    let (code, _, stderr) = finished(&[&order[..], &["--aes-key", KEY]].concat());
    assert_eq!(code, 0, "{stderr}");
    // Who takes it in and who delivers it do not wait for each other.
    let line = || real.run.process.line_with("push: a message ");
    let mut lines = [line(), line()];
    lines.sort_by_key(|line| line.contains("was brought to the app"));
    let [came, brought] = lines;
    assert!(came.contains("a message came and is kept"), "{came}");
    assert!(brought.contains("was brought to the app"), "{brought}");
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].clone();
    assert!(id(&came).is_string(), "{came}");
    assert_eq!(id(&came), id(&brought));
    assert!(brought.contains("\"result\":\"accepted\""), "{brought}");
}

/// What a terminal would obey, or what would end a line.
fn is_wild(byte: &u8) -> bool {
    matches!(byte, 0..0x20 | 0x7f)
}

#[test]
fn nothing_that_is_sent_breaks_a_line() {
    let app =
        FakeApp::answering("HTTP/1.1 200 \x1b[31m\r\nBad\x1b: \x00\r\nContent-Length: 2\r\n\r\nok");
    let says = "{\"errcode\":-1,\"errmsg\":\"\\r\\n{\\\"level\\\":\\\"ERROR\\\"}\\u001b[2J\\u009b\\u2028 rid: a\\nb\"}";
    let length = says.len();
    let wechat = FakeApp::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{says}"
    ));
    for format in ["json", "pretty"] {
        let log = format!(
            "[log]\nlevel = \"trace\"\naccess = \"all\"\naccess_path = true\nformat = \"{format}\"\n"
        );
        let text = rig::configuration(&wechat.url(), &app.url(), "auth = \"none\"", &log);
        let directory = tempfile::tempdir().unwrap();
        let inbound = directory.path().join("inbound");
        let listen = format!("listen = \"unix:{}\"", inbound.display());
        let text = text.replacen("listen = \"127.0.0.1:0\"", &listen, 1);
        let path = write_configuration(&text);
        let mut child = Command::new(env!("CARGO_BIN_EXE_wx-sidecar"))
            .args(["run", "-c", path.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let read = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 64 * 1024];
            loop {
                match output.read(&mut piece).unwrap() {
                    0 => return,
                    count => read.lock().unwrap().extend_from_slice(&piece[..count]),
                }
            }
        });
        eventually("it listens", || UnixStream::connect(&inbound).is_ok());
        let long = "\x1b]0;x\x07".repeat(200_000);
        let code = "{\"code\":\"0123456789abcdef\"}";
        let requests: &[&[u8]] = &[
            b"GET /%0d%0a{%22level%22:%22ERROR%22}%1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\x1b[2J\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\"},{\"a\":\"\\ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\xc2\x9b31m\xe2\x80\xa8 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x1b[2J / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \x1b[2J\r\n\r\n",
            &format!("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: {long}\r\n\r\n").into_bytes(),
            &format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(9000)).into_bytes(),
            &format!(
                "POST /wx/login HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{code}",
                code.len()
            )
            .into_bytes(),
        ];
        for request in requests {
            let mut stream = UnixStream::connect(&inbound).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Not all of what is refused is read.
            let _refused = stream.write_all(request);
            let mut byte = [0];
            let _answered = stream.read(&mut byte);
        }
        // A line is written when its answer has left, and is not waited for at the end if nobody reads for a while.
        let mark = if format == "json" { ACCESS } else { " access " };
        eventually("some are not logged", || {
            let bytes = bytes.lock().unwrap();
            String::from_utf8_lossy(&bytes).matches(mark).count() >= requests.len()
        });
        let pid = child.id().to_string();
        Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .unwrap();
        assert!(child.wait().unwrap().success());
        reader.join().unwrap();
        let text = String::from_utf8(bytes.lock().unwrap().clone()).expect("a log is UTF-8");
        assert!(text.ends_with('\n'));
        let mut accessed = 0;
        for line in text.lines() {
            assert_eq!(line.bytes().find(is_wild), None, "{line:?}");
            assert!(!line.contains(['\u{9b}', '\u{2028}']), "{line:?}");
            assert!(line.len() < 16 * 1024, "{} bytes", line.len());
            if format == "json" {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                accessed += usize::from(is_access(&line));
            } else {
                let is_dated = humantime_like(line);
                assert!(is_dated, "{line:?}");
                accessed += usize::from(line.contains(" access "));
            }
        }
        assert_eq!(accessed, requests.len(), "{text}");
        assert!(text.contains(" more bytes)"), "what was too long is cut");
    }
}

/// Whether a line begins with a point in time and a level.
fn humantime_like(line: &str) -> bool {
    let (time, rest) = line.split_at_checked(27).unwrap_or_default();
    let level = rest.split_whitespace().next().unwrap_or_default();
    time.ends_with('Z') && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level)
}
