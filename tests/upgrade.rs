//! WebSocket and other upgrades: who may have one, what passes through it, and how it ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wx_sidecar::Sidecar;

use crate::backends::{App, Kind, Script};
use crate::daemon::free_port;
use crate::fake_app::{Connection, FakeApp, OK, Request, Signal};
use crate::h2_peer::run;
use crate::http_client::Client;
use crate::patience;
use crate::rig::{Rig, start};

const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// 1001, as servers send it.
const GOING_AWAY: &[u8] = &[0x88, 2, 3, 0xe9];
/// How long both sides may be silent, at the least, before a tunnel is cut that is to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

fn open_with(app: &FakeApp, inbound: &str) -> Rig {
    Rig::with(&app.url(), &format!("auth = \"none\"\n{inbound}"), "")
}

fn open(app: &FakeApp) -> Rig {
    open_with(app, "")
}

/// Grants the first request another protocol, and leaves the connection to the rest of the script.
fn granting(
    answer: &'static [u8],
    then: impl Fn(&mut Connection) + Send + Sync + 'static,
) -> FakeApp {
    FakeApp::start(move |connection| {
        if connection.read_request().is_some() {
            connection.write(answer);
            then(connection);
        }
    })
}

/// Sends back what comes, until its end.
fn echo(connection: &mut Connection) {
    let all = connection.read_to_close();
    connection.write(&all);
}

fn handshake(fields: &str) -> Vec<u8> {
    format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
    )
    .into_bytes()
}

fn switched(client: &mut Client) {
    let answer = client.read_head();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[test]
fn a_handshake_is_a_request_like_any_other() {
    let app = granting(SWITCHED, echo);
    let rig = Rig::new(&app.url());
    let mut stranger = rig.client();
    stranger.send(&handshake(""));
    stranger.read_response(false).problem(401, "token-missing");
    assert_eq!(app.connections(), 0);

    let session = rig.login("alice");
    let mut client = rig.client();
    client.send(
        format!(
            "GET /ws?a=b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, UPGRADE, x-wx-openid\r\n\
             Upgrade: WebSocket\r\nSec-WebSocket-Key: a\r\nX-WX-OPENID: somebody\r\nX_WX_APPID: b\r\n\
             Authorization: {}\r\n\r\n",
            session.bearer()
        )
        .as_bytes(),
    );
    switched(&mut client);
    let seen = app.only_request();
    assert_eq!(seen.target(), "/ws?a=b");
    assert_eq!(seen.header("x-wx-openid"), Some(&*session.openid));
    assert_eq!(seen.header("x-wx-appid"), Some(crate::rig::APPID));
    assert!(!seen.head.contains("X_WX") && !seen.head.contains("somebody"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("connection"), Some("upgrade"));
    assert_eq!(seen.header("upgrade"), Some("WebSocket"));
    assert_eq!(seen.header("sec-websocket-key"), Some("a"));
}

#[test]
fn an_upgrade_that_is_not_granted_leaves_an_ordinary_connection() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let session = rig.login("alice");
    let mut client = rig.client();
    // The second request came before the answer to the first; it proves itself anew.
    let bearer = format!("Authorization: {}\r\n", session.bearer());
    let both = [
        handshake(&bearer),
        b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ]
    .concat();
    client.send(&both);
    assert_eq!(client.read_response(false).text(), "ok");
    client.read_response(false).problem(401, "token-missing");
    assert_eq!(app.targets(), ["/ws"]);
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_502() {
    let other: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
    let none: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    let plain = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    // Without the option in Connection the line means nothing; HTTP/1.0 has no upgrades.
    let unmeant = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let old = b"GET /ws HTTP/1.0\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n";
    for (request, answer) in [
        (plain, SWITCHED),
        (unmeant, SWITCHED),
        (old.to_vec(), SWITCHED),
        (handshake(""), other),
        (handshake(""), none),
    ] {
        let app = FakeApp::answering_once(answer);
        let rig = open(&app);
        let mut client = rig.client();
        client.send(&request);
        client.read_response(false).problem(502, "upstream-invalid");
        assert_eq!(client.request("GET", "/next", &[], b"").text(), "ok");
        let places: Vec<_> = app.requests(2).iter().map(|it| it.connection).collect();
        assert_eq!(places, [0, 1]);
    }
}

#[test]
fn an_upgrade_with_a_body_is_refused_and_one_to_http_2_is_not_passed_on() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let mut client = rig.client();
    client.send(&[handshake("Content-Length: 3\r\n"), b"abc".to_vec()].concat());
    client.read_response(false).problem(400, "bad-request");
    let mut client = rig.client();
    client.send(&handshake("Transfer-Encoding: chunked\r\n"));
    client.read_response(false).problem(400, "bad-request");
    assert_eq!(app.connections(), 0);

    let settings = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c, H2C"),
        ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
    ];
    assert_eq!(rig.request("GET", "/a", &settings, b"").status, 200);
    let mixed = [
        ("Connection", "upgrade"),
        ("Upgrade", "h2c, echo, websocket"),
    ];
    assert_eq!(rig.request("GET", "/b", &mixed, b"").status, 200);
    let seen = app.requests(2);
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(seen[0].header(name), None, "{name}");
    }
    assert_eq!(seen[1].header("upgrade"), Some("echo, websocket"));
}

#[test]
fn what_the_client_sends_too_early_arrives_after_the_switch() {
    let go_on = Signal::default();
    let goes_on = go_on.clone();
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        goes_on.wait();
        connection.write(SWITCHED);
        echo(connection);
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(&[handshake(""), b"early GET / HTTP/1.1\r\n\r\n".to_vec()].concat());
    go_on.give();
    switched(&mut client);
    client.send(b"late");
    // Our direction ends; the other one is still open and brings all of it back.
    client.finish_sending();
    assert_eq!(client.read_to_close(), b"early GET / HTTP/1.1\r\n\r\nlate");
}

#[test]
fn an_app_may_end_its_direction_first() {
    let (ended, told) = (Signal::default(), Signal::default());
    let (tell_ended, waits) = (told.clone(), ended.clone());
    let app = granting(SWITCHED, move |connection| {
        connection.write(b"bye");
        connection.finish_sending();
        tell_ended.give();
        let rest = connection.read_to_close();
        assert_eq!(rest, b"still here");
        waits.give();
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(&handshake(""));
    switched(&mut client);
    assert!(told.wait());
    assert_eq!(client.read_to_close(), b"bye");
    client.send(b"still here");
    client.finish_sending();
    assert!(ended.wait());
}

#[test]
fn a_megabyte_passes_both_ways_and_a_slow_reader_slows_the_sender() {
    let go_on = Signal::default();
    let goes_on = go_on.clone();
    let app = granting(SWITCHED, move |connection| {
        goes_on.wait();
        echo(connection);
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(&handshake(""));
    switched(&mut client);
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let piece: Vec<u8> = (0..65_536u32).map(|n| (n * 31 % 251) as u8).collect();
    let mut sent: Vec<u8> = Vec::new();
    let large = patience::more_than_sockets_hold();
    // A machine that stands still takes nothing for a while either.
    patience::eventually("a megabyte is taken, and then no more", || {
        while sent.len() < large {
            match client.stream().write(&piece) {
                Ok(count) => sent.extend_from_slice(&piece[..count]),
                Err(_) => break,
            }
        }
        sent.len() > 1 << 20
    });
    assert!(
        sent.len() < large,
        "all was taken though the app read nothing"
    );
    go_on.give();
    client.finish_sending();
    assert!(client.read_to_close() == sent);
}

#[test]
fn a_silent_tunnel_outlives_idle_timeout_and_ends_with_its_own() {
    const OWN: Duration = Duration::from_secs(3);
    let app = granting(SWITCHED, echo);
    let rig = open_with(
        &app,
        "idle_timeout = \"1s\"\ntimeout = \"1s\"\ntunnel_timeout = \"3s\"",
    );
    for says_a_word in [false, true] {
        // Until it is one, the other timeouts hold, and a busy machine may take them for itself.
        let mut tunnel = None;
        patience::eventually("it is a tunnel", || {
            let (mut client, since) = (rig.client(), Instant::now());
            let sent = client.try_send(&handshake(""));
            let answer = sent.and_then(|()| client.try_read_response(false));
            tunnel = Some((client, since));
            answer.is_ok_and(|answer| answer.status == 101)
        });
        let (mut client, mut since) = tunnel.unwrap();
        if says_a_word {
            patience::dawdle(Duration::from_millis(1800));
            let now = Instant::now();
            let sent = client.try_send(b"a word");
            // Said too late, it counts for nothing.
            if since.elapsed() < OWN {
                sent.unwrap();
                since = now;
            }
        }
        assert_eq!(client.read_to_close(), b"");
        let silent = since.elapsed();
        assert!(silent >= OWN, "ended too early, after {silent:?}");
    }
}

#[test]
fn a_tunnel_is_counted_once_and_its_time_is_not_a_requests() {
    let app = granting(SWITCHED, echo);
    let rig = open(&app);
    let mut client = rig.client();
    client.send(&handshake(""));
    switched(&mut client);
    let switches = || {
        let page = rig.admin("/metrics");
        let line = page
            .text()
            .lines()
            .find(|line| line.contains("code=\"101\""));
        line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
    };
    let durations = || {
        let page = rig.admin("/metrics");
        let lines = page.text().lines();
        let count = "wx_sidecar_http_request_duration_seconds_count";
        lines
            .filter(|line| line.starts_with(count))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // While it is open, not when it has ended.
    assert_eq!(switches().as_deref(), Some("1"));
    // It is counted behind the answer.
    patience::eventually("it is a tunnel", || rig.metric("wx_sidecar_tunnels") == 1.0);
    let before = durations();
    assert_eq!(before.len(), 1, "{before:?}");
    client.finish_sending();
    client.read_to_close();
    patience::eventually("it has left", || {
        rig.metric("wx_sidecar_http_connections") == 0.0
    });
    assert_eq!(rig.metric("wx_sidecar_tunnels"), 0.0);
    assert_eq!(switches().as_deref(), Some("1"));
    assert_eq!(durations(), before);
}

/// As `rig`'s sidecar, at a port that nobody else gets when it is left.
fn at_its_own_port(rig: &Rig) -> Sidecar {
    let config = rig.config_with(
        "[inbound]\nlisten = \"127.0.0.1:0\"",
        &format!("[inbound]\nlisten = \"127.0.0.1:{}\"", free_port()),
    );
    start(&config, &rig.clock)
}

/// Has a client be told in a drain, behind so many bytes of a frame, and answer. Whether that was done in the time that both
/// sides have for it: on a busy machine they may be cut off before.
fn is_told_in_a_drain(cut: usize) -> bool {
    let (begun, rest) = (Signal::default(), Signal::default());
    let (tell_begun, sends_rest) = (begun.clone(), rest.clone());
    let (answered, was_answered) = std::sync::mpsc::channel();
    let mut frame = vec![0x82, 127];
    frame.extend(70_000u64.to_be_bytes());
    frame.extend(vec![0x88; 70_000]);
    let mut expected = match cut {
        0 => Vec::new(),
        cut => frame[cut..].to_vec(),
    };
    expected.extend(GOING_AWAY);
    let whole = frame.clone();
    let app = granting(SWITCHED, move |connection| {
        connection.write(&frame[..cut]);
        tell_begun.give();
        if cut > 0 {
            sends_rest.wait();
            // And what must not follow a Close frame.
            connection.write(&[&frame[cut..], &[0x81, 1, b'x']].concat());
        }
        answered.send(connection.read_to_close()).unwrap();
    });
    let rig = open_with(&app, "drain_timeout = \"20s\"");
    let sidecar = at_its_own_port(&rig);
    let mut client = Client::connect(sidecar.inbound_addr());
    client.send(&handshake(""));
    switched(&mut client);
    assert!(begun.wait());
    assert_eq!(client.read_exact(cut), &whole[..cut]);
    let addr = sidecar.inbound_addr();
    let began = Instant::now();
    let is_in_time = || began.elapsed() < CLOSE_PATIENCE;
    let draining = thread::spawn(move || run(sidecar.shutdown()));
    let mut is_told = true;
    if cut > 0 {
        // Not in the middle of a frame, though all workers have heard.
        patience::eventually("it listens still", || TcpStream::connect(&addr).is_err());
        let is_quiet = client.is_quiet();
        is_told = is_in_time();
        assert!(is_quiet || !is_told, "something was said within a frame");
        rest.give();
    }
    let mut said = vec![0; expected.len()];
    match client.stream().read_exact(&mut said) {
        Ok(()) => assert!(said == expected, "cut at {cut}"),
        Err(error) => {
            assert!(!is_in_time(), "{error}");
            is_told = false;
        }
    }
    let echo = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9];
    let sent = client.try_send(&echo).is_ok();
    let _gone = client.stream().shutdown(Shutdown::Write);
    is_told &= is_in_time();
    let answer = was_answered.recv().unwrap();
    assert!(!is_told || (sent && answer == echo), "{answer:?}");
    assert_eq!(client.read_to_close(), b"");
    draining.join().unwrap();
    is_told
}

#[test]
fn a_drain_says_1001_between_two_frames_and_the_answer_reaches_the_app() {
    for cut in [0, 2, 40_000] {
        patience::eventually("it is told in time", || is_told_in_a_drain(cut));
    }
}

/// Whether another protocol was still spoken in a drain, for which a busy machine may leave no time.
fn is_spoken_in_a_drain() -> bool {
    const DRAIN: Duration = Duration::from_secs(1);
    let app = FakeApp::start(|connection| {
        connection.read_request();
        connection.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        if connection.read_some(4) == b"ping" {
            connection.write(b"pong");
        }
        connection.read_to_close();
    });
    let rig = open_with(&app, "drain_timeout = \"1s\"");
    let sidecar = rig.replica();
    let mut client = Client::connect(sidecar.inbound_addr());
    client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.read_head().header("upgrade"), Some("echo"));
    let began = Instant::now();
    let draining = thread::spawn(move || run(sidecar.shutdown()));
    let sent = client.try_send(b"ping").is_ok();
    let said = client.read_to_close();
    let is_cut = began.elapsed() >= DRAIN;
    assert!(is_cut, "cut before the end of the drain, after {said:?}");
    draining.join().unwrap();
    assert!(b"pong".starts_with(&said[..]), "{said:?}");
    sent && said == b"pong"
}

#[test]
fn another_protocol_is_not_spoken_to_and_is_cut_at_the_end_of_a_drain() {
    patience::eventually("it is spoken in time", is_spoken_in_a_drain);
}

#[test]
fn an_upgrade_that_meets_a_closing_connection_is_tried_once_more() {
    let app = FakeApp::start(|connection| {
        let first: Option<Request> = connection.read_request();
        if connection.number == 0 {
            connection.write(OK);
            connection.read_request();
            return;
        }
        assert!(first.is_some());
        connection.write(SWITCHED);
        echo(connection);
    });
    let rig = open(&app);
    let mut client = rig.client();
    assert_eq!(client.request("GET", "/a", &[], b"").text(), "ok");
    client.send(&handshake(""));
    switched(&mut client);
    client.send(b"hello");
    client.finish_sending();
    assert_eq!(client.read_to_close(), b"hello");
}

#[test]
fn a_real_websocket_works_and_is_told_1001_in_a_drain() {
    let app = App::start(Kind::Streams, None);
    let rig = Rig::with(&app.url(), "drain_timeout = \"20s\"", "");
    let session = rig.login("alice");
    // The app and its client may take only so long to end, which a busy machine may take for itself.
    patience::eventually("both are told in time", || {
        let sidecar = rig.replica();
        let url = format!("ws://{}/ws", sidecar.inbound_addr());
        let stranger = Script::start(Kind::Streams, "ws_client.js", &[&url]);
        assert_eq!(stranger.line(), "refused 401");

        let client = Script::start(Kind::Streams, "ws_client.js", &[&url, &session.access]);
        let openid = serde_json::json!({ "openid": session.openid }).to_string();
        assert_eq!(client.line(), openid);
        assert_eq!(client.line(), "echo true");
        assert_eq!(client.line(), "pong");
        let began = Instant::now();
        run(sidecar.shutdown());
        let told = [client.line(), app.line()];
        let is_told = told == ["closed 1001", "closed 1001"];
        assert!(is_told || began.elapsed() >= CLOSE_PATIENCE, "{told:?}");
        is_told
    });
}
