//! What a client sends, against what of it is of use: how floods of frames that cost us work and the client nothing are
//! told from traffic (CVE-2019-9512 to 9518, CVE-2023-44487).

use std::cell::Cell;

/// How many bytes a client may send beyond what its requests and their answers justify.
const SLACK: u64 = 128 * 1024;
/// How many bytes may come for each byte of use; frames have heads, and downloads need window updates.
const OVERHEAD: u64 = 8;
/// How many more requests a client may take back than it lets us finish.
const MAX_CANCELLED: u32 = 100;

/// The account of one connection.
#[derive(Default)]
pub(super) struct Meter {
    read: Cell<u64>,
    useful: Cell<u64>,
    written: Cell<u64>,
    cancelled: Cell<u32>,
    /// How many requests are being dealt with.
    under_way: Cell<u32>,
}

impl Meter {
    /// Counts bytes of heads and bodies, in either direction.
    pub(super) fn count_useful(&self, count: usize) {
        self.useful.set(self.useful.get() + count as u64);
    }

    /// Counts a request that begins.
    pub(super) fn begin_request(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// Counts a request that ended.
    pub(super) fn end_request(&self, cancelled: bool) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        let count = self.cancelled.get();
        self.cancelled.set(if cancelled {
            count + 1
        } else {
            count.saturating_sub(1)
        });
    }

    /// Whether no request is being dealt with.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    /// How many bytes the client has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Counts what the client has sent.
    pub(super) fn count_read(&self, count: usize) {
        self.read.set(self.read.get() + count as u64);
    }

    /// Counts what the client has taken.
    pub(super) fn count_written(&self, count: usize) {
        self.written.set(self.written.get() + count as u64);
    }

    /// Whether the client only keeps us busy.
    pub(super) fn is_flooded(&self) -> bool {
        self.read.get() / OVERHEAD > self.useful.get() + SLACK
            || self.cancelled.get() > MAX_CANCELLED
    }
}
