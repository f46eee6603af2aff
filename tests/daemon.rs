//! A server of somebody else's that a test runs: Redis, ZooKeeper.
//!
//! It ends, by its process id, when it is dropped. Its port is taken from below those that the system gives away, because a
//! server that is restarted wants its old one back.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// The process of a server, if it runs.
#[derive(Default)]
pub(crate) struct Daemon(Option<Child>);

impl Daemon {
    /// Starts it; one that ran before has been killed.
    pub(crate) fn start(&mut self, command: &mut Command) {
        let process = command.spawn();
        self.0 = Some(process.expect("it is installed; `make test-tools` does it"));
    }

    pub(crate) fn runs(&self) -> bool {
        self.0.is_some()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.0.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Has it stand still; connections are accepted by the kernel, and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.0.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on, and that is given to nobody else in this process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 80).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
