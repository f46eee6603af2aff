//! Pushes of the simulator against receivers on real sockets: wrong ones, late ones, dead ones, and one that comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::clock::{Clock, Timestamp};
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::push::{
    Format, Ledger, Mode, Push, PushOptions, Pusher, Reason, Reply, SAMPLES, Storm,
};
use wx_sidecar::sim::{Options, Simulator};

use crate::daemon::free_port;
use crate::fake_app::{FakeApp, Signal};
use crate::http_client::Client;
use crate::patience::PATIENCE;
use crate::rig::{APPID, Rig, SECRET, canary, keep};

const TOKEN: &str = "ca9a41pushtoken00";
const KEY: &str = "ca9a41abcdefghijklmnopqrstuvwxyz0123456789A";
const USER: &str = "oUser0000000000000000000000A";
const SUCCESS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsuccess";
const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// Impatient after a failure, so that a test is short, and patient before, so that there is none but those it wants.
fn options(to: &str) -> PushOptions {
    canary(TOKEN);
    canary(KEY);
    let appid = AppId::parse(APPID).unwrap();
    PushOptions {
        retry_after: Some(Duration::ZERO),
        timeout: PATIENCE,
        ..PushOptions::new(to, appid, Secret::new(TOKEN), Secret::new(KEY))
    }
}

fn pusher(receiver: &FakeApp) -> Pusher {
    Pusher::new(options(&format!("{}/wx/push", receiver.url()))).unwrap()
}

/// Gives these answers, one to each request, on whatever connection; the last one for ever.
fn answering(answers: Vec<&'static [u8]>) -> FakeApp {
    let answers = Mutex::new(answers);
    FakeApp::start(move |connection| {
        while connection.read_request().is_some_and(|it| it.complete) {
            let mut answers = answers.lock().unwrap();
            let answer = match answers.len() {
                1 => answers[0],
                _ => answers.remove(0),
            };
            if answer.is_empty() {
                return;
            }
            connection.write(answer);
        }
    })
}

#[test]
fn a_push_is_sent_as_wechat_sends_it() {
    let receiver = answering(vec![SUCCESS]);
    let pusher = Pusher::new(PushOptions {
        clock: Clock::manual(Timestamp::from_millis(1_700_000_000_500)),
        format: Format::Xml,
        ..options(&format!("{}/wx/push?x=1", receiver.url()))
    });
    let outcome = pusher.unwrap().send_blocking(&Push::text(USER, "hello"));
    assert!(outcome.is_accepted(), "{outcome}");
    assert_eq!(outcome.last().verdict, Ok(Reply::Success));
    assert_eq!(outcome.tries.len(), 1);

    let request = receiver.only_request();
    assert_eq!(request.method(), "POST");
    let target = request.target();
    assert!(target.starts_with("/wx/push?x=1&signature="), "{target}");
    for part in [
        "&timestamp=1700000000&nonce=",
        "&encrypt_type=aes&msg_signature=",
    ] {
        assert!(target.contains(part), "{target}");
    }
    assert!(target.contains(&format!("&openid={USER}&")), "{target}");
    assert_eq!(request.header("content-type"), Some("text/xml"));
    assert_eq!(request.header("user-agent"), Some("Mozilla/4.0"));
    let body = String::from_utf8(request.body).unwrap();
    assert!(body.starts_with("<xml><ToUserName><![CDATA[gh_"), "{body}");
    assert!(!body.contains("hello") && !body.contains(USER), "{body}");
}

#[test]
fn three_tries_of_one_message_each_signed_anew() {
    let receiver = answering(vec![UNAUTHORIZED, b"", EMPTY]);
    let push = Push::text(USER, "hello");
    let outcome = pusher(&receiver).send_blocking(&push);
    let verdicts: Vec<_> = outcome.tries.iter().map(|it| &it.verdict).collect();
    assert_eq!(verdicts[0], &Err(Reason::Status(401)));
    assert!(matches!(verdicts[1], Err(Reason::Broken(_))), "{outcome}");
    assert_eq!(verdicts[2], &Ok(Reply::Empty));
    assert_eq!(outcome.msg_id, push.msg_id());
    let bodies: BTreeSet<_> = receiver.requests(3).into_iter().map(|it| it.body).collect();
    assert_eq!(bodies.len(), 3);
    let nonces: BTreeSet<_> = receiver.targets().into_iter().collect();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn a_receiver_that_never_agrees_is_given_up_after_three_tries() {
    let receiver = answering(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    let outcome = pusher(&receiver).send_blocking(&Push::image(USER));
    assert!(!outcome.is_accepted());
    assert_eq!(receiver.requests(3).len(), 3);
    assert!(
        matches!(outcome.last().verdict, Err(Reason::Reply(_))),
        "{outcome}"
    );
    assert_eq!(outcome.last().reply, "ok");
}

#[test]
fn a_late_reply_is_no_reply() {
    let over = Signal::default();
    let waiting = over.clone();
    let receiver = FakeApp::start(move |connection| {
        connection.read_request();
        waiting.wait();
        connection.write(SUCCESS);
    });
    let pusher = Pusher::new(PushOptions {
        timeout: Duration::from_millis(100),
        ..options(&receiver.url())
    })
    .unwrap();
    let sent = pusher.send_once_blocking(&Push::text(USER, "hello"));
    over.give();
    assert_eq!(
        sent.verdict,
        Err(Reason::Timeout(Duration::from_millis(100)))
    );
    assert_eq!(sent.status, None);
}

#[test]
fn nobody_there_and_no_http_are_told_apart() {
    let free = free_port();
    let pusher_to = |to: String| Pusher::new(options(&to)).unwrap();
    let nobody =
        pusher_to(format!("http://127.0.0.1:{free}/")).send_once_blocking(&Push::image(USER));
    assert!(
        matches!(nobody.verdict, Err(Reason::NoConnection(_))),
        "{nobody}"
    );
    let garbage = answering(vec![b"SSH-2.0-OpenSSH_9.2\r\n"]);
    let broken = pusher_to(garbage.url()).send_once_blocking(&Push::image(USER));
    assert!(matches!(broken.verdict, Err(Reason::Broken(_))), "{broken}");
}

#[test]
fn a_handshake_is_answered_by_the_echostr() {
    let echo = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request() {
            let (_, echostr) = request.target().split_once("&echostr=").unwrap();
            let length = echostr.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{echostr}");
            connection.write(answer.as_bytes());
        }
    });
    let sent = block_on(pusher(&echo).handshake());
    assert_eq!(sent.verdict, Ok(Reply::Echo));
    assert_eq!(echo.only_request().method(), "GET");
    let other = answering(vec![SUCCESS]);
    let sent = block_on(pusher(&other).handshake());
    assert!(matches!(sent.verdict, Err(Reason::Reply(_))), "{sent}");
}

#[test]
fn what_was_tampered_with_can_be_posted() {
    let receiver = answering(vec![UNAUTHORIZED]);
    let pusher = pusher(&receiver);
    let push = Push::text(USER, "hello");
    let (query, body) = pusher.encode(&push);
    let sent = block_on(pusher.post(&push, &query.replace("nonce=", "nonce=1"), body.clone()));
    assert_eq!(sent.verdict, Err(Reason::Status(401)));
    let request = receiver.only_request();
    assert_eq!(request.body, body);
    assert!(request.target().contains("nonce=1"));
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

// Against the sidecar.

#[test]
fn the_sidecar_takes_every_sample_in_every_mode_and_format_and_the_app_gets_it() {
    for (mode, name) in [
        (Mode::Plaintext, "plaintext"),
        (Mode::Compatible, "compatible"),
        (Mode::Secure, "secure"),
    ] {
        let app = FakeApp::agreeable();
        let section =
            format!("[push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\nmode = \"{name}\"\n");
        let rig = Rig::with(&app.url(), "", &section);
        let mut sent = BTreeSet::new();
        for format in [Format::Json, Format::Xml] {
            let pusher = Pusher::new(PushOptions {
                mode,
                format,
                tries: 1,
                clock: rig.clock.clone(),
                ..options(&format!("http://{}/wx/push", rig.address()))
            });
            let pusher = pusher.unwrap();
            assert_eq!(block_on(pusher.handshake()).verdict, Ok(Reply::Echo));
            // Containers are asked without a signature, and carriers want an answer that this app does not have.
            let quiet = |sample: &&&str| {
                let asks = ["add_waybill", "cancel_waybill", "get_quota", "check_biz"];
                **sample != "container_check" && !asks.contains(sample)
            };
            for (number, sample) in SAMPLES.iter().filter(quiet).enumerate() {
                // Events that differ in nothing but their fields are one event to a receiver.
                let openid = format!("oSample{format:?}{number:017}");
                let push = Push::sample(sample).unwrap().with_openid(&*openid);
                let outcome = pusher.send_blocking(&push.with("Mark", &*openid));
                assert!(
                    outcome.is_accepted(),
                    "{name} {format:?} {sample}: {outcome}"
                );
                sent.insert(openid);
            }
        }
        let got = app.requests(sent.len()).into_iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            body["Mark"].as_str().unwrap().to_owned()
        });
        assert_eq!(got.collect::<BTreeSet<_>>(), sent, "{name}");
    }
}

// The command line.

/// Runs `wx-sidecar sim push` to its end: exit code and standard output.
fn command(words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wx-sidecar"));
    command.args(["sim", "push"]).args(words);
    command.args(["--token", TOKEN, "--aes-key", KEY, "--timeout", "60s"]);
    let output = command.output().expect("run the binary");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 on a terminal");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    keep("sim-push.log", &format!("{words:?}\n{stdout}\n{stderr}"));
    assert_eq!(stderr, "", "{words:?}");
    (output.status.code().expect("no signal ended it"), stdout)
}

#[test]
fn the_command_tells_a_beginner_what_happened_and_ends_accordingly() {
    let receiver = answering(vec![UNAUTHORIZED, SUCCESS]);
    let to = format!("{}/wx/push", receiver.url());
    let (code, told) = command(&[
        "text",
        "--to",
        &to,
        "--content",
        "hi",
        "--retry-after",
        "0ms",
    ]);
    assert_eq!(code, 0, "{told}");
    for part in [
        "try 1",
        "HTTP 401",
        "token or AES key differ",
        "try 2",
        "`success`",
        "content",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }

    let receiver = answering(vec![
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    ]);
    let (to, tries) = (receiver.url(), ["--tries", "1", "--mode", "plaintext"]);
    let words = [
        &["event", "--to", &to, "--sample", "subscribe_popup_many"],
        &tries[..],
    ]
    .concat();
    let (code, told) = command(&words);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("/wx/push") && told.contains("give this push up"),
        "{told}"
    );
    let body: Value = serde_json::from_slice(&receiver.only_request().body).unwrap();
    assert_eq!(body["List"][1]["SubscribeStatusString"], "reject");
}

#[test]
fn the_command_sends_any_event_with_any_field_and_speaks_json() {
    let receiver = answering(vec![SUCCESS]);
    let to = receiver.url();
    let (code, told) = command(&[
        "event",
        "--to",
        &to,
        "--event",
        "my_event",
        "--field",
        "a=1",
        "--field",
        "b:=1",
        "--field",
        "c:={\"d\":[18446744073709551615]}",
        "--mode",
        "plaintext",
        "--from",
        USER,
        "--msg-id",
        "9007199254740993",
        "--json",
    ]);
    assert_eq!(code, 0, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["msg_id"], 9_007_199_254_740_993_u64);
    assert_eq!(told["tries"][0]["accepted"], true);
    assert_eq!(told["tries"][0]["as"], "success");
    let body: Value = serde_json::from_slice(&receiver.only_request().body).unwrap();
    assert_eq!((&body["a"], &body["b"]), (&json!("1"), &json!(1)));
    assert_eq!(body["c"]["d"][0], u64::MAX);
    assert_eq!(
        (&body["Event"], &body["FromUserName"]),
        (&json!("my_event"), &json!(USER))
    );
}

// Storms.

/// A receiver that dies once and comes back at the same address. It notes what it acknowledges before it does.
struct Mortal {
    addr: SocketAddr,
    life: Arc<Life>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Life {
    seen: Mutex<Vec<Value>>,
    /// All of this life.
    connections: Mutex<Vec<TcpStream>>,
    /// Whether the acceptor is to stop at the next connection.
    over: AtomicBool,
}

impl Mortal {
    /// Dies when it has seen so many requests, without an answer to the last one.
    fn dying_after(requests: usize) -> Self {
        // One that nobody else gets in between.
        let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let addr = listener.local_addr().unwrap();
        let life = Arc::<Life>::default();
        let ours = Arc::clone(&life);
        let acceptor = thread::spawn(move || {
            ours.live(listener, Some(requests));
            ours.over.store(false, Ordering::SeqCst);
            let listener = TcpListener::bind(addr).expect("the address that was left");
            ours.live(listener, None);
        });
        Self {
            addr,
            life,
            acceptor: Some(acceptor),
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.life.over.store(true, Ordering::SeqCst);
        if TcpStream::connect(self.addr).is_ok() {
            let _panicked_with_a_message = self.acceptor.take().map(JoinHandle::join);
        }
    }
}

impl Life {
    fn live(self: &Arc<Self>, listener: TcpListener, most: Option<usize>) {
        let addr = listener.local_addr().unwrap();
        while let Ok((stream, _)) = listener.accept() {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let mut connections = self.connections.lock().unwrap();
            connections.push(stream.try_clone().unwrap());
            let life = Arc::clone(self);
            thread::spawn(move || life.serve(stream, most, addr));
        }
        // Nobody can connect any more before those who are connected are thrown out.
        drop(listener);
        for connection in self.connections.lock().unwrap().drain(..) {
            let _gone_already = connection.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, stream: TcpStream, most: Option<usize>, addr: SocketAddr) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(body) = read_request(&mut reader) {
            let count = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(serde_json::from_slice(&body).unwrap());
                seen.len()
            };
            if most == Some(count) {
                self.over.store(true, Ordering::SeqCst);
                let _woken = TcpStream::connect(addr);
                return;
            }
            if writer.write_all(SUCCESS).is_err() {
                return;
            }
        }
    }
}

/// The body.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(count) if count > 0 => {}
            _ => return None,
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn storm_options(to: SocketAddr) -> PushOptions {
    PushOptions {
        mode: Mode::Plaintext,
        // It may be away for any time.
        tries: 100_000,
        retry_after: Some(Duration::from_millis(5)),
        ..options(&format!("http://{to}/"))
    }
}

/// The ledger's lines: word, MsgId, openid, number.
fn read_ledger(path: &Path) -> Vec<(String, u64, String, u64)> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let [word, msg_id, openid, n] = words[..] else {
            panic!("{line}");
        };
        let number = |text: &str| text.parse().unwrap();
        (
            word.to_owned(),
            number(msg_id),
            openid.to_owned(),
            number(n),
        )
    });
    lines.collect()
}

#[test]
fn a_storm_outlives_its_receiver_and_its_ledger_is_true() {
    let receiver = Mortal::dying_after(30);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let storm = Storm {
        count: 100,
        users: 7,
        concurrency: 4,
        size: 200,
        duplicates: 30,
        ..Storm::default()
    };
    let pusher = Pusher::new(storm_options(receiver.addr)).unwrap();
    let ledger = Ledger::open(&path).unwrap();
    let report = block_on(storm.run(&pusher, Some(ledger))).unwrap();
    assert_eq!(
        (report.messages, report.acknowledged, report.lost),
        (100, 100, 0)
    );
    assert!(
        report.duplicates > 0 && report.unconnected > 0,
        "{report:?}"
    );

    let seen = receiver.life.seen.lock().unwrap().clone();
    let mut numbers = BTreeMap::<u64, (String, u64)>::new();
    let mut last = BTreeMap::<String, u64>::new();
    for message in &seen {
        let content = message["Content"].as_str().unwrap();
        let mut words = content.split(' ');
        assert_eq!(words.next(), Some("storm"));
        let openid = words.next().unwrap().to_owned();
        let n = words.next().unwrap().parse().unwrap();
        assert_eq!(message["FromUserName"], json!(openid));
        let msg_id = message["MsgId"].as_u64().unwrap();
        let known = numbers.insert(msg_id, (openid.clone(), n));
        assert!(known.is_none_or(|known| known == (openid.clone(), n)));
        let before = last.insert(openid, n).unwrap_or(0);
        assert!(
            n == before || n == before + 1,
            "each user's messages are in order"
        );
    }
    assert_eq!(numbers.len(), 100);
    let lines = read_ledger(&path);
    assert_eq!(lines.len(), 100);
    for (word, msg_id, openid, n) in lines {
        assert_eq!(word, "acknowledged");
        assert_eq!(numbers.remove(&msg_id), Some((openid, n)));
    }
}

#[test]
fn what_a_storm_cannot_deliver_is_lost_in_the_ledger_and_the_exit_code() {
    let receiver = answering(vec![UNAUTHORIZED]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let to = receiver.url();
    let (code, told) = command(&[
        "storm",
        "--to",
        &to,
        "--count",
        "10",
        "--users",
        "4",
        "--concurrency",
        "3",
        "--retry-after",
        "0ms",
        "--ledger",
        path.to_str().unwrap(),
        "--rate",
        "1000",
    ]);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("30: 30 refused") && told.contains("401"),
        "{told}"
    );
    let lines = read_ledger(&path);
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|(word, ..)| word == "lost"));
}

#[test]
fn a_storm_uses_its_connections_again() {
    let receiver = answering(vec![SUCCESS]);
    let storm = Storm {
        count: 60,
        users: 10,
        concurrency: 4,
        ..Storm::default()
    };
    let report = block_on(storm.run(&pusher(&receiver), None)).unwrap();
    assert_eq!((report.acknowledged, report.tries), (60, 60));
    assert!(
        report.max_ms >= report.p99_ms && report.p99_ms >= report.p50_ms && report.p50_ms > 0.0
    );
    assert!(receiver.connections() <= 4, "{}", receiver.connections());
}

// The running simulator.

fn simulator(receiver: &FakeApp) -> Simulator {
    let appid = AppId::parse(APPID).unwrap();
    canary(SECRET);
    Simulator::start(Options {
        push: Some(PushOptions {
            mode: Mode::Plaintext,
            ..options(&format!("{}/wx/push", receiver.url()))
        }),
        ..Options::local(appid, Secret::new(SECRET))
    })
    .unwrap()
}

fn post(sim: &Simulator, target: &str, body: &Value) -> Value {
    let mut client = Client::connect(sim.addr());
    client
        .request("POST", target, &[], body.to_string().as_bytes())
        .json()
}

/// An access_token, for a user who has just logged in.
fn login(sim: &Simulator, user: &str) -> String {
    let code = sim.issue_code(user);
    canary(&code);
    let query = format!("appid={APPID}&secret={SECRET}");
    let target =
        format!("/sns/jscode2session?{query}&js_code={code}&grant_type=authorization_code");
    let mut client = Client::connect(sim.addr());
    let session = client.request("GET", &target, &[], b"").json();
    canary(session["session_key"].as_str().unwrap());
    let target = format!("/cgi-bin/token?{query}&grant_type=client_credential");
    let token = client.request("GET", &target, &[], b"").json();
    let token = token["access_token"].as_str().unwrap().to_owned();
    canary(&token);
    token
}

fn pushed(receiver: &FakeApp, count: usize) -> Value {
    let request = receiver.requests(count).pop().unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

#[test]
fn what_follows_from_a_call_is_pushed() {
    let receiver = answering(vec![SUCCESS]);
    let sim = simulator(&receiver);
    let token = login(&sim, "alice");
    let openid = sim.openid("alice").as_str().to_owned();
    let check = json!({
        "media_url": "https://example.com/%5Brisky:20002%5D.png", "media_type": 2, "version": 2, "scene": 1,
        "openid": openid,
    });
    let told = post(
        &sim,
        &format!("/wxa/media_check_async?access_token={token}"),
        &check,
    );
    let event = pushed(&receiver, 1);
    assert_eq!(event["Event"], "wxa_media_check");
    assert_eq!(event["trace_id"], told["trace_id"]);
    assert_eq!(
        event["result"],
        json!({ "suggest": "risky", "label": 20002 })
    );
    assert_eq!(event["FromUserName"], json!(openid));

    let message = json!({
        "touser": openid, "template_id": "T", "data": { "thing1": { "value": "x" } },
    });
    let target = format!("/cgi-bin/message/subscribe/send?access_token={token}");
    let told = post(&sim, &target, &message);
    let event = pushed(&receiver, 2);
    assert_eq!(event["Event"], "subscribe_msg_sent_event");
    assert_eq!(event["List"]["MsgID"], told["msgid"].to_string());

    let target = format!("/cgi-bin/callback/check?access_token={token}");
    let check = json!({ "action": "all", "check_operator": "DEFAULT" });
    let told = post(&sim, &target, &check);
    assert_eq!(told["dns"][0]["ip"], "127.0.0.1");
    assert_eq!(told["ping"][0]["package_loss"], "0%");
}

#[test]
fn a_push_can_be_ordered_and_its_outcome_is_told() {
    let receiver = answering(vec![SUCCESS, SUCCESS, UNAUTHORIZED]);
    let sim = simulator(&receiver);
    let order =
        json!({ "kind": "text", "user": "bob", "content": "hi", "fields": { "More": [1] } });
    let told = post(&sim, "/_sim/push", &order);
    assert_eq!(told["accepted"], true, "{told}");
    let message = pushed(&receiver, 1);
    assert_eq!(message["FromUserName"], json!(sim.openid("bob").as_str()));
    assert_eq!(
        (&message["Content"], &message["More"]),
        (&json!("hi"), &json!([1]))
    );

    // Whoever has written may be answered.
    let token = login(&sim, "bob");
    let target = format!("/cgi-bin/message/custom/send?access_token={token}");
    let reply = json!({
        "touser": sim.openid("bob").as_str(), "msgtype": "text", "text": { "content": "hello" },
    });
    assert_eq!(post(&sim, &target, &reply)["errcode"], 0);

    let order = json!({
        "kind": "event", "sample": "debug", "openid": USER, "mode": "secure", "format": "xml",
    });
    assert_eq!(
        post(&sim, "/_sim/push", &order)["tries"][0]["as"],
        "success"
    );
    let request = receiver.requests(2).pop().unwrap();
    assert!(request.body.starts_with(b"<xml>") && request.target().contains("encrypt_type=aes"));

    let order = json!({ "kind": "event", "event": "x" });
    let told = post(&sim, "/_sim/push", &order);
    assert_eq!(told["accepted"], false);
    assert_eq!(told["tries"].as_array().unwrap().len(), 3);
    let kept = sim.pushes();
    assert_eq!(
        kept.iter().map(|it| it.is_accepted()).collect::<Vec<_>>(),
        [true, true, false]
    );

    for wrong in [
        json!({ "kind": "voice" }),
        json!({ "kind": "event" }),
        json!({ "kind": "event", "sample": "nothing" }),
        json!({ "kind": "text", "sample": "debug" }),
        json!({ "kind": "text", "user": "a", "openid": "b" }),
        json!({ "kind": "text", "fields": { "<a>": 1 } }),
    ] {
        let mut client = Client::connect(sim.addr());
        let body = wrong.to_string();
        let answer = client.request("POST", "/_sim/push", &[], body.as_bytes());
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
}

#[test]
fn a_simulator_without_a_receiver_pushes_nothing_and_says_so() {
    let appid = AppId::parse(APPID).unwrap();
    let sim = Simulator::start(Options::local(appid, Secret::new(SECRET))).unwrap();
    let mut client = Client::connect(sim.addr());
    let answer = client.request("POST", "/_sim/push", &[], br#"{"kind":"text"}"#);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("--push-to"), "{}", answer.text());
    assert!(sim.pushes().is_empty());
}
