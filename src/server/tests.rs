//! Panics, ordered by the test: what they cost and what they do not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{NotReloaded, Sidecar};
use crate::config::Config;
use crate::resilience::panics::faults;
use crate::source::Source;

/// Only against a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// So long that it comes in pieces.
const LONG: usize = 1 << 20;

/// A sidecar with one worker, in front of an app that gives `answer` to each request.
fn sidecar(answer: impl Into<Vec<u8>>) -> Sidecar {
    let answer: Arc<[u8]> = answer.into().into();
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = app.local_addr().unwrap();
    thread::spawn(move || {
        for stream in app.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut client = Client::of(stream);
                while client.read_until(b"\r\n\r\n") {
                    client.send(&answer);
                }
            });
        }
    });
    let config = configuration(&upstream.to_string());
    Sidecar::start(Config::from_toml(&config).unwrap()).unwrap()
}

fn configuration(upstream: &str) -> String {
    format!(
        "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
         [inbound]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\nworkers = 1\nauth = \"none\"\n\
         drain_delay = \"0s\"\nheader_timeout = \"300ms\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
    )
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(addr: impl ToSocketAddrs) -> Self {
        Self::of(TcpStream::connect(addr).unwrap())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes);
    }

    /// Reads until `end` came, which is taken away with all before it; false if the other side closes instead.
    fn read_until(&mut self, end: &[u8]) -> bool {
        self.read.clear();
        let mut byte = [0];
        while !self.read.ends_with(end) {
            match self.stream.read(&mut byte) {
                Ok(1) => self.read.push(byte[0]),
                _ => return false,
            }
        }
        true
    }

    fn get(&mut self, end: &[u8]) -> bool {
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        self.read_until(end)
    }

    /// All that comes until the other side closes.
    fn rest(&mut self) -> String {
        assert!(!self.read_until(b"never"));
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

/// A page of the admin side, with its head.
fn admin(sidecar: &Sidecar, target: &str) -> String {
    let mut admin = Client::connect(sidecar.admin_addr());
    admin.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    admin.rest()
}

fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let page = admin(sidecar, "/metrics");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {page}"))
        .parse()
        .unwrap()
}

fn eventually(mut look: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < until, "it does not come true");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_panic_before_an_answer_is_a_500_for_that_request_and_nothing_for_others() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    let mut other = Client::connect(sidecar.inbound_addr());
    assert!(other.get(b"\r\n\r\nok"));
    faults::arm("request", 0);
    let mut unlucky = Client::connect(sidecar.inbound_addr());
    unlucky.get(b"never");
    let answer = String::from_utf8_lossy(&unlucky.read).into_owned();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(
        answer.contains("urn:wx-sidecar:problem:internal"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(!answer.contains("as the test wants"), "{answer}");
    assert!(other.get(b"\r\n\r\nok"), "other connections live on");
    assert_eq!(metric(&sidecar, "wx_sidecar_panics_total"), 1);
    assert_eq!(metric(&sidecar, "wx_sidecar_upstream_connects_total"), 1);
    eventually(|| metric(&sidecar, "wx_sidecar_http_requests_in_flight") == 0);
    eventually(|| metric(&sidecar, "wx_sidecar_http_connections") == 1);
}

#[test]
fn a_panic_within_an_answer_cuts_it_off_and_its_connection_to_the_app_is_not_used_again() {
    let _alone = faults::alone();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
    let sidecar = sidecar([answer.as_bytes(), &vec![b'x'; LONG]].concat());
    // With nothing sent yet there is still time to tell.
    faults::arm("answer", 0);
    let mut unlucky = Client::connect(sidecar.inbound_addr());
    unlucky.get(b"never");
    assert!(unlucky.read.starts_with(b"HTTP/1.1 500 "));
    faults::arm("answer", 1);
    let mut unlucky = Client::connect(sidecar.inbound_addr());
    unlucky.get(b"never");
    assert!(unlucky.read.starts_with(b"HTTP/1.1 200 "));
    assert!(unlucky.read.len() < LONG);
    assert_eq!(metric(&sidecar, "wx_sidecar_panics_total"), 2);
    let mut next = Client::connect(sidecar.inbound_addr());
    assert!(next.get(b"\r\n\r\n"));
    assert_eq!(metric(&sidecar, "wx_sidecar_upstream_connects_total"), 3);
}

#[test]
fn a_background_task_that_panics_begins_anew() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    faults::arm("accept", 0);
    faults::arm("timers", 0);
    for _ in 0..3 {
        assert!(Client::connect(sidecar.inbound_addr()).get(b"\r\n\r\nok"));
    }
    // Only the sweep of the timers ends the wait for a head that does not come.
    let mut slow = Client::connect(sidecar.inbound_addr());
    slow.send(b"GET / HTTP/1.1\r\n");
    assert!(slow.rest().starts_with("HTTP/1.1 408 "));
    assert_eq!(metric(&sidecar, "wx_sidecar_panics_total"), 2);
}

#[test]
fn a_reload_that_panics_is_told_and_the_next_one_works() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    std::fs::write(&path, configuration("127.0.0.1:1")).unwrap();
    let (loaded, feed) = Source::file(&path).begin().unwrap();
    sidecar.follow(feed, &loaded.effective);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    faults::arm("reload", 0);
    let told = runtime.block_on(sidecar.reload_from_source());
    assert!(matches!(told, Err(NotReloaded::Defect)), "{told:?}");
    assert!(runtime.block_on(sidecar.reload_from_source()).is_ok());
    // It changes with its file, too.
    let open = "[[route]]\npath = \"/z\"\nauth = \"required\"\n";
    std::fs::write(&path, configuration("127.0.0.1:1") + open).unwrap();
    eventually(|| {
        let mut client = Client::connect(sidecar.inbound_addr());
        client.send(b"GET /z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.rest().starts_with("HTTP/1.1 401 ")
    });
    assert_eq!(metric(&sidecar, "wx_sidecar_panics_total"), 1);
}

#[test]
fn the_admin_side_that_panics_begins_anew() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    faults::arm("admin", 0);
    for _ in 0..2 {
        assert_eq!(metric(&sidecar, "wx_sidecar_panics_total"), 1);
    }
}

/// Nobody on that thread could tell.
#[test]
fn a_thread_that_stands_still_is_told_by_name_until_it_runs_again() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    assert_eq!(sidecar.check_threads(), Ok(()));
    assert!(admin(&sidecar, "/livez").starts_with("HTTP/1.1 200 "));
    let release = faults::hold("request");
    let mut client = Client::connect(sidecar.inbound_addr());
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    for page in ["/livez", "/readyz"] {
        eventually(|| {
            let answer = admin(&sidecar, page);
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("standing still: wx-worker-0")
        });
    }
    let why = sidecar.check_threads().unwrap_err();
    assert_eq!(why, "standing still: wx-worker-0");
    drop(release);
    assert!(client.read_until(b"ok"));
    eventually(|| admin(&sidecar, "/livez").starts_with("HTTP/1.1 200 "));
    assert_eq!(sidecar.check_threads(), Ok(()));
}

#[test]
fn a_sidecar_that_loses_a_worker_ends() {
    let _alone = faults::alone();
    let sidecar = sidecar(OK);
    faults::arm("accept", 0);
    faults::arm("restart", 0);
    drop(Client::connect(sidecar.inbound_addr()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let ended = async { tokio::time::timeout(PATIENCE, sidecar.ended()).await };
    assert!(runtime.block_on(ended).is_ok());
    assert!(TcpStream::connect(sidecar.inbound_addr()).is_err());
}
