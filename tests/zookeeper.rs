//! A znode, read and written and followed on real ZooKeeper servers, and what becomes of that when they fail in all the
//! ways they have.
//!
//! Whatever happens, the last content stays known, a new one is seen when it can be, and none is seen again after a newer
//! one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use wx_sidecar::zookeeper::{Over, Seen, State, Znode, ZookeeperError};

use crate::patience::{PATIENCE, comes_true, comes_true_within, eventually};
use crate::rig::canary;
use crate::zookeeper_server::{Ensemble, Network, SESSION_TIMEOUT, Server};

/// Found in an output, it is an incident.
const PASSWORD: &str = "canary-zookeeper-pa55w0rd-43";
/// What a watch tells is known before the look once a minute, which would find it as well.
const BY_A_WATCH: Duration = Duration::from_secs(40);
/// How long what will not succeed may take.
const SOON: Duration = Duration::from_millis(500);
/// What ZooKeeper answers when a session has ended. Those here are short, and end when the machine stands still for longer.
const EXPIRED: i32 = -112;

fn znode(url: &str) -> Znode {
    Znode::parse(url).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn read(url: &str) -> Result<(Vec<u8>, i32), ZookeeperError> {
    let mut outcome = Err(ZookeeperError::Refused(EXPIRED));
    eventually("its sessions expire", || {
        outcome = runtime().block_on(znode(url).read(PATIENCE));
        !matches!(outcome, Err(ZookeeperError::Refused(EXPIRED)))
    });
    let content = outcome?;
    Ok((content.bytes.to_vec(), content.version))
}

/// Whether it is told soon that it cannot be read, and that this is why. Who is held up may not come to know why.
fn is_told_why_not(url: &str, reason: &str) {
    let mut told = String::new();
    let is_told = comes_true(|| {
        let error = runtime().block_on(znode(url).read(SOON)).unwrap_err();
        told = error.to_string();
        told.contains(reason)
    });
    assert!(is_told, "no word of `{reason}`: {told}");
}

pub(crate) fn write(url: &str, text: &str) -> i32 {
    write_over(url, text, Over::Anything).unwrap()
}

/// Writes what is not there yet. If the connection breaks meanwhile nobody says whether it was taken, so that is looked at.
fn write_over(url: &str, text: &str, over: Over) -> Result<i32, ZookeeperError> {
    let mut outcome = None;
    eventually("it is not known what came of it", || {
        outcome = match write_once(url, text, over) {
            Err(ZookeeperError::Uncertain { .. } | ZookeeperError::Refused(EXPIRED)) => {
                let there = read(url).ok().filter(|it| it.0 == text.as_bytes());
                there.map(|(_, version)| Ok(version))
            }
            outcome => Some(outcome),
        };
        outcome.is_some()
    });
    outcome.expect("it is known")
}

fn write_once(url: &str, text: &str, over: Over) -> Result<i32, ZookeeperError> {
    runtime().block_on(znode(url).write(text.as_bytes(), over, PATIENCE))
}

/// Writes until ZooKeeper has certainly taken it: while a leader falls, nobody knows what of it was.
fn write_surely(url: &str, text: &str) {
    eventually("it is written", || {
        write_once(url, text, Over::Anything).is_ok()
    });
}

/// A znode that is followed. What follows it ends when nobody listens, which is when this is dropped.
struct Following {
    now: Option<watch::Receiver<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    fn new(url: &str) -> Self {
        let (told, now) = watch::channel(Seen::default());
        let znode = znode(url);
        let nobody_asks = watch::channel(0).1;
        let thread = thread::spawn(move || runtime().block_on(znode.follow(&told, nobody_asks)));
        Self {
            now: Some(now),
            thread: Some(thread),
        }
    }

    /// Follows it, and has seen this.
    fn holding(url: &str, text: &str) -> Self {
        let following = Self::new(url);
        following.holds(text);
        following
    }

    fn now(&self) -> Seen {
        self.now.as_ref().unwrap().borrow().clone()
    }

    fn text(&self) -> Option<String> {
        let content = self.now().content?;
        Some(String::from_utf8(content.bytes.to_vec()).unwrap())
    }

    /// Waits until it is known to hold this.
    fn holds(&self, text: &str) {
        let is_so = || self.now().state == State::Current && self.text().as_deref() == Some(text);
        assert!(
            comes_true_within(BY_A_WATCH, is_so),
            "`{text}` is not what is seen: {:?}",
            self.now()
        );
    }

    fn comes_to(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        eventually(what, || is_so(&self.now().state));
    }

    /// Waits until ZooKeeper is known to be away; the content stays what it was.
    fn is_away(&self, text: &str) {
        self.comes_to("it is away", |state| {
            matches!(state, State::Away(ZookeeperError::Unreachable(_)))
        });
        assert_eq!(self.text().as_deref(), Some(text));
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.now = None;
        let ended = self.thread.take().expect("it is ended once").join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[test]
fn what_is_written_is_read_and_each_write_has_a_version() {
    let server = Server::shared();
    let url = server.url("/written/deep/below/config");
    assert_eq!(write(&url, "first"), 0, "all above it is created");
    assert_eq!(read(&url).unwrap(), (b"first".to_vec(), 0));
    assert_eq!(write(&url, "second"), 1);
    assert_eq!(write_over(&url, "third", Over::Version(1)).unwrap(), 2);
    let late = write_over(&url, "late", Over::Version(1));
    assert!(
        matches!(late, Err(ZookeeperError::Changed { .. })),
        "{late:?}"
    );
    let late = write_over(&url, "late", Over::Nothing);
    assert!(
        matches!(late, Err(ZookeeperError::Changed { .. })),
        "{late:?}"
    );
    assert_eq!(read(&url).unwrap(), (b"third".to_vec(), 2));
    assert_eq!(write(&url, ""), 3);
    assert_eq!(read(&url).unwrap(), (Vec::new(), 3));

    let beside = server.url("/written/deep/beside");
    assert_eq!(write_over(&beside, "new", Over::Nothing).unwrap(), 0);
    assert_eq!(read(&beside).unwrap(), (b"new".to_vec(), 0));
}

#[test]
fn a_znode_that_is_not_there_is_told_from_one_that_cannot_be_reached() {
    let server = Server::shared();
    let missing = server.url("/missing/config");
    for outcome in [
        read(&missing).map(|_| ()),
        write_over(&missing, "x", Over::Version(0)).map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ZookeeperError::NoNode { .. }), "{error}");
        assert!(error.to_string().contains("/missing/config"), "{error}");
    }
}

#[test]
fn the_largest_configuration_is_written_and_no_larger_one() {
    let server = Server::shared();
    let url = server.url("/large");
    let large = "#".repeat(1_000_000);
    write(&url, &large);
    assert_eq!(read(&url).unwrap().0.len(), large.len());
    let larger = "#".repeat(1 << 20);
    let refused = write_over(&url, &larger, Over::Anything);
    assert!(
        matches!(refused, Err(ZookeeperError::TooLarge { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_znode_that_holds_too_much_is_not_read_and_the_next_content_is() {
    let server = Server::shared();
    let url = server.url("/grown");
    write(&url, "small");
    let following = Following::holding(&url, "small");
    server.command_line(&format!("set /grown {}", "#".repeat((1 << 20) + 1)));
    following.comes_to("it is too large", |state| {
        matches!(state, State::Away(ZookeeperError::TooLarge { length, .. }) if *length == (1 << 20) + 1)
    });
    assert_eq!(following.text().as_deref(), Some("small"));
    let refused = read(&url);
    assert!(
        matches!(refused, Err(ZookeeperError::TooLarge { .. })),
        "{refused:?}"
    );
    write(&url, "small again");
    following.holds("small again");
}

#[test]
fn every_writers_last_word_is_seen_and_none_before_it_again() {
    let server = Server::shared();
    let url = server.url("/followed");
    write(&url, "0");
    let following = Following::holding(&url, "0");
    server.command_line("set /followed 1");
    following.holds("1");

    let writer = thread::spawn(move || {
        for number in 2..=60 {
            assert_eq!(write(&url, &number.to_string()), number);
        }
    });
    let mut last = 1;
    eventually("the last is seen", || {
        let number = following.text().unwrap().parse().unwrap();
        assert!(last <= number, "{number} after {last}");
        last = number;
        number == 60
    });
    writer.join().unwrap();
    assert_eq!(following.now().content.unwrap().version, 60);
}

#[test]
fn many_that_follow_see_a_change_together() {
    let server = Server::shared();
    let url = server.url("/many");
    write(&url, "before");
    let following: Vec<_> = (0..20)
        .map(|_| Following::holding(&url, "before"))
        .collect();
    write(&url, "after");
    for one in &following {
        one.holds("after");
    }
}

#[test]
fn a_znode_that_vanishes_leaves_what_it_held_and_is_seen_when_it_returns() {
    let server = Server::shared();
    let url = server.url("/vanishing");
    let following = Following::new(&url);
    following.comes_to("it is not there", |state| *state == State::Gone);
    assert_eq!(following.text(), None);
    write(&url, "first");
    following.holds("first");
    server.command_line("delete /vanishing");
    following.comes_to("it is gone", |state| *state == State::Gone);
    assert_eq!(following.text().as_deref(), Some("first"));
    write(&url, "second");
    following.holds("second");
    server.command_line("delete /vanishing\ncreate /vanishing third");
    following.holds("third");
    assert_eq!(
        following.now().content.unwrap().version,
        0,
        "it is another node"
    );
}

#[test]
fn what_a_user_has_created_is_that_users_alone() {
    canary(PASSWORD);
    let server = Server::shared();
    let anybody = server.url("/users/config");
    let as_user = |password: &str| anybody.replace("://", &format!("://shop:{password}@"));
    let owner = as_user(PASSWORD);
    write(&owner, "hidden");
    assert_eq!(read(&owner).unwrap().0, b"hidden");
    for url in [&anybody, &as_user("wrong")] {
        for outcome in [
            read(url).map(|_| ()),
            write_over(url, "mine", Over::Anything).map(|_| ()),
            write_over(&url.replace("config", "other"), "mine", Over::Nothing).map(|_| ()),
        ] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, ZookeeperError::Denied { .. }), "{error}");
            assert!(!error.to_string().contains("wrong"), "{error}");
        }
    }

    let following = Following::new(&anybody);
    following.comes_to("it is denied", |state| {
        matches!(state, State::Away(ZookeeperError::Denied { .. }))
    });
    server.command_line(&format!(
        "addauth digest shop:{PASSWORD}\nsetAcl /users/config world:anyone:r"
    ));
    following.holds("hidden");
}

#[test]
fn a_server_that_crashes_or_stands_still_is_followed_again_when_it_is_back() {
    let mut server = Server::start();
    let url = server.url("/config");
    write(&url, "0");
    let following = Following::holding(&url, "0");

    server.process.kill();
    following.is_away("0");
    is_told_why_not(&url, "nobody listens there");
    server.restart();
    following.holds("0");
    write(&url, "1");
    following.holds("1");

    server.process.pause();
    let paused = Instant::now();
    following.is_away("1");
    let outcome = runtime().block_on(znode(&url).read(SOON));
    assert!(
        matches!(outcome, Err(ZookeeperError::Unreachable(_))),
        "{outcome:?}"
    );
    eventually("all sessions have expired", || {
        paused.elapsed() > SESSION_TIMEOUT
    });
    server.process.resume();
    following.holds("1");
    write(&url, "2");
    following.holds("2");
}

#[test]
fn an_ensemble_that_comes_back_empty_is_believed_after_a_while() {
    let mut server = Server::start();
    let url = server.url("/config");
    // Further than it comes by the sessions of those who look.
    for number in 0..30 {
        write(&url, &number.to_string());
    }
    write(&url, "kept");
    let following = Following::holding(&url, "kept");
    server.wipe();
    server.restart();
    following.comes_to("it is behind", |state| {
        *state == State::Away(ZookeeperError::Behind)
    });
    write(&url, "old");
    following.holds("old");
    assert_eq!(following.now().content.unwrap().version, 0);
}

#[test]
fn a_session_that_expires_behind_a_cut_is_followed_by_another() {
    let server = Server::shared();
    let network = Network::before(&server);
    let direct = server.url("/cut");
    write(&direct, "before");
    let through = format!("zookeeper://127.0.0.1:{}/cut", network.port);
    let following = Following::holding(&through, "before");
    network.cut();
    write(&direct, "during");
    following.is_away("before");
    network.mend();
    following.holds("during");
    write(&direct, "after");
    following.holds("after");
}

#[test]
fn an_ensemble_is_followed_through_the_loss_of_its_leaders_and_of_itself() {
    let mut ensemble = Ensemble::start();
    let url = ensemble.url("/apps/config");
    write_surely(&url, "0");
    let following: Vec<_> = (0..4).map(|_| Following::holding(&url, "0")).collect();
    let all_hold = |text: &str| following.iter().for_each(|one| one.holds(text));

    let leader = ensemble.leader();
    ensemble.servers[leader].process.kill();
    write_surely(&url, "1");
    all_hold("1");
    ensemble.restart();

    let leader = ensemble.leader();
    ensemble.servers[leader].process.pause();
    write_surely(&url, "2");
    all_hold("2");
    ensemble.servers[leader].process.resume();
    write_surely(&url, "3");
    all_hold("3");

    // One of three is no ensemble.
    ensemble.servers[0].process.kill();
    ensemble.servers[1].process.kill();
    eventually("the last one serves readers", || {
        ensemble.servers[2].mode().as_deref() == Some("read-only")
    });
    following.iter().for_each(|one| one.is_away("3"));
    ensemble.servers[2].process.kill();
    ensemble.restart();
    all_hold("3");
    write_surely(&url, "4");
    all_hold("4");
}

#[test]
fn what_is_no_zookeeper_is_passed_over_for_a_server_that_is() {
    let server = Server::shared();
    write(&server.url("/among"), "found");
    let answers: [(&[u8], &str); 4] = [
        (b"", "takes no clients now"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "not how ZooKeeper answers",
        ),
        (b"\0\0\0\x02\0\0", "not how ZooKeeper answers"),
        (b"\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0", "grants no session"),
    ];
    for (answer, reason) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // It ends with the process of the tests.
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut hello = [0; 49];
                let _gone = client.read_exact(&mut hello);
                let _gone = client.write_all(answer);
            }
        });
        let alone = format!("zookeeper://127.0.0.1:{port}/among");
        is_told_why_not(&alone, reason);
        let both = format!(
            "zookeeper://127.0.0.1:{port},127.0.0.1:{}/among",
            server.port
        );
        assert_eq!(read(&both).unwrap().0, b"found");
    }
}
