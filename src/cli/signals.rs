//! Waiting for the signals that an operator sends.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP. Registered once, so that none is missed between two waits.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether whoever started us had it ignored (`nohup`).
    hangup_was_ignored: bool,
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM or SIGINT: come to an end.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
}

impl Signals {
    /// Starts to listen; from now on the signals do not end the process by themselves.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // Before it is registered, which ends that.
            hangup_was_ignored: is_ignored(SIGHUP),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Whether a hangup, where there is nothing to read again, is to end the process: its terminal is gone, and whoever started it has
    /// not said that it should live on.
    pub(super) fn hangup_ends(&self) -> bool {
        !self.hangup_was_ignored
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for the wish to end; other wishes come too late to matter.
    pub(super) async fn end(&mut self) {
        while self.next().await != Wish::End {}
    }
}

const SIGHUP: u32 = 1;

/// Whether a signal is ignored: the mask of those that are is in `SigIgn` (proc(5)). Where there is no such file, none is.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) & (1 << (signal - 1)) != 0
}
