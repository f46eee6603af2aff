//! Those who take more than their share: the slow, the many, the huge. Good clients get every one of their answers
//! meanwhile, and afterwards everything is as it was.
//!
//! The sidecar is a process of its own here, so that its memory, its descriptors and its processor time can be read from
//! `/proc`. One test runs at a time, because each needs a good part of what the machine has.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::fake_app::{FakeApp, OK};
use crate::http_client::Client;
use crate::patience::{PATIENCE, comes_true, dawdle, settled};
use crate::process::{Run, write_configuration};
use crate::rig;

/// Descriptors of the test run that are not a client's.
const OTHERS: u64 = 2000;

/// An answer after which no connection to the app is kept, so that descriptors can be counted.
pub(crate) const DONE: &[u8] =
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// A sidecar in a process of its own, and how it was before.
pub(crate) struct Limited {
    pub(crate) run: Run,
    descriptors: usize,
    /// Nobody else is measured meanwhile.
    _alone: MutexGuard<'static, ()>,
}

impl Limited {
    pub(crate) fn new(app: &FakeApp, inbound: &str) -> Self {
        Self::under(&[], app, inbound)
    }

    fn under(wrapper: &[&str], app: &FakeApp, inbound: &str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let inbound = format!("auth = \"none\"\n{inbound}");
        let text = rig::configuration("https://127.0.0.1:1", &app.url(), &inbound, "");
        let run = Run::under(wrapper, &write_configuration(&text));
        let mut limited = Self {
            run,
            descriptors: 0,
            _alone: alone,
        };
        // Whatever is made with the first requests is there before anything is counted.
        serves_the_good(limited.run.inbound, 100);
        // The last of them may be closing still.
        limited.descriptors = settled(|| limited.descriptors_now());
        limited
    }

    fn client(&self) -> Client {
        Client::connect(self.run.inbound)
    }

    /// Connections that do not block, for somebody who has thousands of them.
    fn crowd(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let stream = TcpStream::connect(self.run.inbound).expect("room for one more");
            stream.set_nodelay(true).expect("a socket");
            stream.set_nonblocking(true).expect("a socket");
            stream
        };
        (0..count).map(connect).collect()
    }

    pub(crate) fn is_as_it_was(&self) {
        serves_the_good(self.run.inbound, 100);
        let back = comes_true(|| self.has_let_go());
        assert!(
            back,
            "{} descriptors, once {}",
            self.descriptors_now(),
            self.descriptors
        );
    }

    /// Who has no descriptors may refuse. The connections that waited to be accepted take some when it goes on, although
    /// nobody is there any more; what comes after them is served.
    fn has_descriptors_again(&self) {
        let back = comes_true(|| {
            let answer = self.client().request("POST", "/good", &[], b"good");
            answer.status == 200 && self.has_let_go()
        });
        assert!(back, "{} descriptors", self.descriptors_now());
    }

    /// Whether there are as many as before, but for some connections to the app that are kept for later: how many those
    /// are depends on how many requests came at once. What is lost is lost for each of a crowd.
    fn has_let_go(&self) -> bool {
        const KEPT: usize = 8;
        self.descriptors_now() <= self.descriptors + KEPT
    }

    /// Those of sockets, pipes and files. What the kernel tells events by, a sidecar has a few of all its life, and some only
    /// once it has come to follow its file, which may be later than its first requests.
    fn descriptors_now(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.run.process.id());
        let all = fs::read_dir(folder).expect("the sidecar lives");
        let counts = |link: &PathBuf| !link.as_os_str().as_bytes().starts_with(b"anon_inode:");
        all.filter_map(|it| fs::read_link(it.ok()?.path()).ok())
            .filter(counts)
            .count()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> usize {
        self.run.process.memory("VmRSS")
    }

    /// Processor time used so far, in ticks of a hundredth of a second.
    fn ticks(&self) -> u64 {
        let stat = self.run.process.proc("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let fields: Vec<_> = fields.split_whitespace().collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("a number");
        number(11) + number(12)
    }
}

/// So many good requests, half of them on new connections; every answer is right.
pub(crate) fn serves_the_good(addr: SocketAddr, count: usize) {
    let mut kept = Client::connect(addr);
    for number in 0..count {
        let answer = if number % 2 == 0 {
            kept.request("GET", "/good", &[], b"")
        } else {
            Client::connect(addr).request("POST", "/good", &[], b"good")
        };
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
}

/// How many of `wanted` connections this process may have.
fn room_for(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
    let most = limit.maximum.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX))
}

/// What has come, and whether that was the end.
fn hear(stream: &mut TcpStream, heard: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(count) => heard.extend_from_slice(&piece[..count]),
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// R1, trap 32. Each of the slow sends a byte of its head in every round, until it is told to go.
#[test]
fn four_thousand_slow_heads_cost_no_good_client_an_answer() {
    let app = FakeApp::answering(DONE);
    let count = room_for(4000);
    let limited = Limited::new(&app, "header_timeout = \"4s\"\nmax_connections = 20000");
    let mut slow: Vec<_> = limited
        .crowd(count)
        .into_iter()
        .map(|stream| (stream, Vec::new()))
        .collect();
    let begun = Instant::now();
    let addr = limited.run.inbound;
    thread::scope(|scope| {
        let good: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || serves_the_good(addr, 150)))
            .collect();
        let head = b"GET /slow HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().copied();
        let mut told = 0;
        for byte in head.chain(std::iter::repeat(b'a')) {
            slow.retain_mut(|(stream, heard)| {
                // Whether anybody still listens is seen by what comes back.
                let _sent = stream.write_all(&[byte]);
                let ended = hear(stream, heard);
                if ended {
                    assert!(
                        heard.starts_with(b"HTTP/1.1 408 "),
                        "{}",
                        String::from_utf8_lossy(heard)
                    );
                    told += 1;
                }
                !ended
            });
            if slow.is_empty() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{} are still here", slow.len());
            dawdle(Duration::from_millis(100));
        }
        assert_eq!(told, count);
        for client in good {
            client.join().expect("every good client got its answers");
        }
    });
    assert!(app.targets().iter().all(|target| target == "/good"));
    limited.is_as_it_was();
}

#[test]
fn five_hundred_bodies_that_stop_are_told_so_and_never_whole_to_the_app() {
    let app = FakeApp::start(|connection| {
        while connection
            .read_request()
            .is_some_and(|request| request.complete)
        {
            connection.write(DONE);
        }
    });
    let count = room_for(500);
    // Longer than a good client is silent, on a machine that is busy.
    let limited = Limited::new(&app, "idle_timeout = \"12s\"");
    let mut slow = limited.crowd(count);
    for (number, stream) in slow.iter_mut().enumerate() {
        let framing = ["Content-Length: 100", "Transfer-Encoding: chunked"][number % 2];
        let request = format!("POST /slow HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhel");
        stream
            .write_all(request.as_bytes())
            .expect("room for a head");
    }
    serves_the_good(limited.run.inbound, 200);
    for stream in &mut slow {
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("an answer and an end");
        assert!(
            answer.starts_with(b"HTTP/1.1 408 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    drop(slow);
    limited.is_as_it_was();
    let seen = app.requests(count);
    assert!(
        seen.iter()
            .all(|request| request.complete == (request.target() == "/good"))
    );
}

/// U11. What the slow do not read stays with the app.
#[test]
fn readers_that_stop_within_100_mb_cost_little_memory() {
    const SIZE: usize = 100 * 1024 * 1024;
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            if request.target() != "/large" {
                connection.write(DONE);
                continue;
            }
            connection
                .write(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
            let piece = [b'a'; 64 * 1024];
            for _ in 0..SIZE / piece.len() {
                if connection.try_write(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let limited = Limited::new(&app, "");
    let before = limited.memory();
    let mut readers: Vec<_> = (0..30).map(|_| limited.client()).collect();
    for reader in &mut readers {
        reader.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(reader.read_head().status, 200);
    }
    // While one reads all of it, the others have the time to fill whatever there is to be filled.
    let mut quick = limited.client();
    let answer = quick.request("GET", "/large", &[], b"");
    assert_eq!((answer.body.len(), answer.truncated), (SIZE, false));
    serves_the_good(limited.run.inbound, 100);
    let each = limited.memory().saturating_sub(before) / readers.len();
    assert!(each < 512, "{each} KiB for each slow reader");
    drop(readers);
    drop(quick);
    limited.is_as_it_was();
}

/// X6. The kernel holds back what cannot be accepted; nothing spins, and nothing is lost for ever.
#[test]
fn without_descriptors_accepting_pauses_and_goes_on_when_there_are_some() {
    let app = FakeApp::answering(DONE);
    let limited = Limited::under(&["prlimit", "--nofile=64:64"], &app, "");
    let crowd = limited.crowd(150);
    limited.run.process.line_with("cannot accept connections");
    let (began, before) = (Instant::now(), limited.ticks());
    dawdle(Duration::from_secs(1));
    let used = (limited.ticks() - before) as f64;
    let waited = began.elapsed().as_secs_f64();
    assert!(
        used < 40.0 * waited,
        "{used} ticks of the processor in {waited} s of waiting"
    );
    drop(crowd);
    limited.has_descriptors_again();
    limited.is_as_it_was();
}

/// A pipe for a large body is a convenience: without descriptors the body is copied.
#[test]
fn without_descriptors_a_large_body_goes_its_way_nevertheless() {
    const SIZE: usize = 4 * 1024 * 1024;
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            match request.target() {
                "/large" => connection.write(&[length.as_bytes(), &[b'a'; SIZE]].concat()),
                "/kept" => connection.write(OK),
                _ => connection.write(DONE),
            }
        }
    });
    let limited = Limited::under(&["prlimit", "--nofile=64:64"], &app, "");
    let mut client = limited.client();
    assert_eq!(client.request("GET", "/kept", &[], b"").status, 200);
    let connections = app.connections();
    let crowd = limited.crowd(150);
    limited.run.process.line_with("cannot accept connections");
    let answer = client.request("GET", "/large", &[], b"");
    assert_eq!((answer.status, answer.body.len()), (200, SIZE));
    assert_eq!(
        app.connections(),
        connections,
        "there was no descriptor for another"
    );
    drop(crowd);
    drop(client);
    limited.has_descriptors_again();
    serves_the_good(limited.run.inbound, 10);
}

/// R3.
#[test]
fn header_bombs_are_refused_and_leave_no_trace() {
    let app = FakeApp::answering(DONE);
    let limited = Limited::new(&app, "");
    let before = limited.memory();
    let many =
        "GET /bomb HTTP/1.1\r\nHost: x\r\n".to_owned() + &"X-A: b\r\n".repeat(10_000) + "\r\n";
    let wide = format!(
        "GET /bomb HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
        "a".repeat(10 << 20)
    );
    let names = (0..100_000).map(|n| format!("X-{n}: {}\r\n", "b".repeat(90)));
    let huge = "GET /bomb HTTP/1.1\r\nHost: x\r\n".to_owned() + &names.collect::<String>() + "\r\n";
    let cookie = format!(
        "GET /bomb HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n",
        "a=b; ".repeat(15_000)
    );
    for bomb in [many, wide, huge, cookie] {
        for _ in 0..10 {
            let mut client = limited.client();
            // It may close before it has read it all.
            let _sent = client.try_send(bomb.as_bytes());
            let answer = client.read_response(false);
            assert_eq!(
                (answer.status, answer.header("connection")),
                (431, Some("close"))
            );
        }
    }
    let grown = limited.memory().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more than before");
    assert!(app.targets().iter().all(|target| target == "/good"));
    limited.is_as_it_was();
}

/// R2.
#[test]
fn ten_thousand_idle_connections_cost_14_kib_each_at_most() {
    let app = FakeApp::answering(DONE);
    let count = room_for(10_000);
    let limited = Limited::new(&app, "max_connections = 20000\nidle_timeout = \"5m\"");
    let before = limited.memory();
    let mut idle = limited.crowd(count);
    // Each has been served once, so that each has had its buffers.
    for some in idle.chunks_mut(64) {
        for stream in some.iter_mut() {
            stream
                .write_all(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("room for a head");
        }
        for stream in some {
            stream.set_nonblocking(false).expect("a socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut answer = Vec::new();
            while !answer.ends_with(b"ok") {
                let mut piece = [0; 1024];
                let count = stream.read(&mut piece).expect("an answer");
                assert!(count > 0, "an end within an answer");
                answer.extend_from_slice(&piece[..count]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    }
    let each = || limited.memory().saturating_sub(before) as f64 / count as f64;
    // They give their buffers back when they have idled for a moment.
    let modest = comes_true(|| each() <= 14.0);
    assert!(modest, "{:.1} KiB for each of {count}", each());
    assert!(limited.descriptors_now() >= count, "they are all here");
    // Any of them can go on.
    for stream in idle.iter_mut().step_by(997) {
        stream
            .write_all(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("room for a head");
        let mut piece = [0; 16];
        stream.read_exact(&mut piece).expect("an answer");
        assert!(piece.starts_with(b"HTTP/1.1 200 "));
    }
    serves_the_good(limited.run.inbound, 100);
    drop(idle);
    limited.is_as_it_was();
}
