//! What a client sends, against what of it is of use: how floods of frames that cost us work and the client nothing are
//! told from traffic (CVE-2019-9512 to 9518, CVE-2023-44487).

use std::cell::{Cell, RefCell};

/// How many bytes a client may send beyond what its requests and their answers justify.
const SLACK: u64 = 128 * 1024;
/// How many bytes may come for each byte of use; frames have heads, and downloads need window updates.
const OVERHEAD: u64 = 8;
/// What a client's connection begins with (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// The head of a frame (RFC 9113 §4.1).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0x0;
const PADDED: u8 = 0x8;
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
    frames: RefCell<Frames>,
}

/// Where the frames of a connection begin.
struct Frames {
    /// How much is left of what stands before the next frame.
    skipped: usize,
    /// The head of the next frame as far as it has come, and behind it how long its padding is.
    head: [u8; FRAME_HEAD + 1],
    seen: usize,
}

impl Meter {
    /// Counts bytes of heads, and of answers' bodies.
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

    /// Counts what the client has sent. The data in it is of use also where nobody reads it: whoever is refused has often
    /// sent the body already, and one client's refusals must not end a connection that a proxy shares among many.
    pub(super) fn count_read(&self, bytes: &[u8]) {
        self.read.set(self.read.get() + bytes.len() as u64);
        self.count_useful(self.frames.borrow_mut().pass(bytes));
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

impl Default for Frames {
    fn default() -> Self {
        Self {
            skipped: PREFACE,
            head: [0; FRAME_HEAD + 1],
            seen: 0,
        }
    }
}

impl Frames {
    /// Lets bytes pass, and says how much data the frames have whose heads end in them.
    fn pass(&mut self, mut bytes: &[u8]) -> usize {
        let mut data = 0;
        while !bytes.is_empty() {
            let count = match self.skipped {
                0 => 1,
                skipped => skipped.min(bytes.len()),
            };
            if self.skipped > 0 {
                self.skipped -= count;
            } else {
                self.head[self.seen] = bytes[0];
                self.seen += 1;
                data += self.end_head().unwrap_or_default();
            }
            bytes = &bytes[count..];
        }
        data
    }

    /// Turns to the payload if the head is complete; how much of it is data.
    fn end_head(&mut self) -> Option<usize> {
        let [a, b, c, kind, flags, .., padding] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let is_padded = kind == DATA && flags & PADDED != 0 && length > 0;
        if self.seen < FRAME_HEAD + usize::from(is_padded) {
            return None;
        }
        let seen = std::mem::take(&mut self.seen);
        self.skipped = FRAME_HEAD + length - seen;
        match (kind, is_padded) {
            (DATA, true) => Some((length - 1).saturating_sub(usize::from(padding))),
            (DATA, false) => Some(length),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_wherever_reads_are_cut() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // Kind, flags, payload: 300 and 7 bytes of data, and what only looks like it.
        for (kind, flags, payload) in [
            (4, 0, vec![0; 6]),
            (0, 1, vec![0; 300]),
            (0, 0, vec![]),
            (0, 8, [&[2][..], &[0; 9]].concat()),
            (0, 8, vec![200; 20]),
            (0, 8, vec![]),
            (6, 8, vec![0; 8]),
            (8, 0, vec![0, 0, 0, 9]),
        ] {
            sent.extend(&(payload.len() as u32).to_be_bytes()[1..]);
            sent.extend([kind, flags, 0, 0, 0, 1]);
            sent.extend(payload);
        }
        for piece in 1..=sent.len() {
            let meter = Meter::default();
            sent.chunks(piece).for_each(|bytes| meter.count_read(bytes));
            assert_eq!(meter.read.get(), sent.len() as u64);
            assert_eq!(meter.useful.get(), 307, "in pieces of {piece}");
        }
    }
}
