//! Where the sidecar listens, and how one process takes over from another.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::ToSocketAddrs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wx_sidecar::clock::Clock;
use wx_sidecar::{Config, Sidecar};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, PATIENCE, Response};
use crate::patience::eventually;
use crate::rig::{START, configuration, replaced, start};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
/// For how long a connection that is brought to its end is listened to, at the least.
const SOON: Duration = Duration::from_millis(500);

/// A client that asks again and again while connections are brought to their end.
pub(crate) struct Guest {
    client: Client,
    /// When it asked last, or came: since then it may have idled.
    asked: Instant,
}

impl Guest {
    /// Comes, unless nobody is there.
    pub(crate) fn come(place: impl ToSocketAddrs) -> io::Result<Self> {
        let asked = Instant::now();
        let client = Client::try_connect(place)?;
        Ok(Self { client, asked })
    }

    /// Asks. Who asks soon is answered in any case; who has idled for longer, as on a busy machine anybody may, can have been
    /// let go before, and there is no answer.
    pub(crate) fn ask(&mut self) -> Option<Response> {
        let before = mem::replace(&mut self.asked, Instant::now());
        let sent = self.client.try_send(GET);
        let is_soon = before.elapsed() < SOON;
        match sent.and_then(|()| self.client.try_read_response(false)) {
            Ok(answer) => {
                assert_eq!(answer.status, 200);
                Some(answer)
            }
            Err(error) => {
                let is_let_go = error.kind() != ErrorKind::TimedOut;
                assert!(is_let_go && !is_soon, "{error}");
                None
            }
        }
    }
}

fn config_at(listen: &str, app: &FakeApp, inbound: &str) -> String {
    let inbound = format!("auth = \"none\"\n{inbound}");
    configuration("http://127.0.0.1:1", &app.url(), &inbound, "").replacen("127.0.0.1:0", listen, 1)
}

fn sidecar_at(listen: &str, app: &FakeApp, inbound: &str) -> Sidecar {
    start(&config_at(listen, app, inbound), &Clock::manual(START))
}

fn shut_down(sidecar: Sidecar) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(sidecar.shutdown());
}

/// Asks once and says whether the answer was a 200.
fn ask(path: &Path) -> bool {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(GET).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    &answer == b"HTTP/1.1 200"
}

#[test]
fn a_port_is_handed_over_without_losing_a_request() {
    const KEPT: usize = 3;
    const NEW: usize = 3;
    let app = FakeApp::agreeable();
    let old = sidecar_at("127.0.0.1:0", &app, "");
    let addr = old.inbound_addr().to_string();
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let _new = thread::scope(|scope| {
        let (over, served, addr) = (&over, &served, &addr);
        let more = move || {
            served.fetch_add(1, Ordering::Relaxed);
            !over.load(Ordering::Relaxed)
        };
        for _ in 0..KEPT {
            scope.spawn(move || {
                let mut guest = Guest::come(addr).unwrap();
                while more() {
                    let answer = guest.ask();
                    if answer.is_none_or(|it| it.header("connection") == Some("close")) {
                        guest = Guest::come(addr).unwrap();
                    }
                }
            });
        }
        for _ in 0..NEW {
            scope.spawn(move || {
                while more() {
                    let _unless_let_go = Guest::come(addr).unwrap().ask();
                }
            });
        }
        let progress = |count| {
            let goal = served.load(Ordering::Relaxed) + count;
            while served.load(Ordering::Relaxed) < goal {
                thread::yield_now();
            }
        };
        progress(100);
        let new = sidecar_at(addr, &app, "");
        progress(100);
        shut_down(old);
        progress(100);
        over.store(true, Ordering::Relaxed);
        // It serves until the last of them has its answer.
        new
    });
}

/// Whether a client that was answered before a drain is answered once more in it.
fn is_heard_in_a_drain(app: &FakeApp) -> bool {
    let sidecar = sidecar_at("127.0.0.1:0", app, "");
    let admin = sidecar.admin_addr();
    let mut client = Client::connect(sidecar.inbound_addr());
    client.send(GET);
    assert_eq!(client.read_response(false).status, 200);
    thread::scope(|scope| {
        scope.spawn(|| shut_down(sidecar));
        let draining = || -> io::Result<bool> {
            let mut client = Client::try_connect(&admin)?;
            let page = client.try_request("GET", "/readyz?verbose", &[], b"")?;
            Ok(page.text().contains("[-]listener"))
        };
        loop {
            match draining() {
                Ok(true) => break,
                Ok(false) => {}
                // It is over already.
                Err(_) => return false,
            }
        }
        // A worker that has not heard of it yet answers as ever.
        loop {
            let sent = client.try_send(GET);
            match sent.and_then(|()| client.try_read_response(false)) {
                Ok(answer) if answer.header("connection") == Some("close") => return true,
                Ok(answer) => assert_eq!(answer.status, 200),
                Err(_) => return false,
            }
        }
    })
}

#[test]
fn a_client_that_asks_again_soon_is_heard_in_a_drain() {
    let app = FakeApp::agreeable();
    // Soon is half a second, which a busy machine may take for itself.
    eventually("it is heard", || is_heard_in_a_drain(&app));
}

#[test]
fn a_unix_socket_is_served_by_all_workers_and_has_no_address_to_tell() {
    let app = FakeApp::agreeable();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.sock");
    let listen = format!("unix:{}", path.display());
    let sidecar = sidecar_at(&listen, &app, "");
    assert_eq!(sidecar.inbound_addr().to_string(), listen);
    for _ in 0..20 {
        assert!(ask(&path));
    }
    for request in app.requests(20) {
        for absent in ["x-forwarded-for", "x-real-ip", "forwarded"] {
            assert_eq!(request.header(absent), None);
        }
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    }
    shut_down(sidecar);
    assert!(!path.exists(), "the file goes with the listener");

    let _trusting = sidecar_at(&listen, &app, "trusted_proxies = [\"unix\"]");
    assert!(ask(&path));
    let request = app.requests(21).remove(20);
    assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.1"));
    assert_eq!(request.header("x-real-ip"), Some("192.0.2.1"));
}

#[test]
fn the_proxy_protocol_is_spoken_on_a_unix_socket_too() {
    let app = FakeApp::agreeable();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.sock");
    let listen = format!("unix:{}", path.display());
    let inbound = "trusted_proxies = [\"unix\"]\nproxy_protocol = true";
    let _sidecar = sidecar_at(&listen, &app, inbound);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n")
        .unwrap();
    stream.write_all(GET).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    let request = app.only_request();
    assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.7"));
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_left_alone() {
    let app = FakeApp::agreeable();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.sock");
    let listen = format!("unix:{}", path.display());
    let config = config_at(&listen, &app, "");
    let refused = || {
        let outcome = Sidecar::start(Config::from_toml(&config).unwrap());
        outcome.err().expect("it cannot start").to_string()
    };
    fs::write(&path, "precious").unwrap();
    assert!(refused().contains(&listen));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    let live = UnixListener::bind(&path).unwrap();
    assert!(refused().contains("in use"), "{}", refused());
    drop(live);
    assert!(path.exists(), "nobody has removed it");
    let sidecar = sidecar_at(&listen, &app, "");
    assert!(ask(&path));

    // Somebody put a file of their own there; it is not ours to remove.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    shut_down(sidecar);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_admin_side_listens_on_a_unix_socket_too() {
    let app = FakeApp::agreeable();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let config = replaced(
        &config_at("127.0.0.1:0", &app, ""),
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"unix:{}\"", path.display()),
    );
    let sidecar = start(&config, &Clock::manual(START));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stream);
    shut_down(sidecar);
    assert!(!path.exists());
}
