//! Many pushes at once, and a ledger of what the receiver has acknowledged.
//!
//! The ledger is the other half of a proof that nothing was lost: a line is written when the reply has been read and not
//! before, so that whatever it calls acknowledged the receiver did promise to deliver. A line that is missing, because the
//! storm itself was ended, promises nothing.
//!
//! Messages of one user are sent one after the other, each when the one before it was acknowledged or given up, because
//! only then is their order something that a receiver could keep. So there are never more in flight than there are users.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Outcome, Push, Pusher, Reason};
use crate::crypto;

/// What a message is filled up with: what XML and JSON have to escape, and characters of one to four bytes.
const FILLING: &str = "abc<&>]]>\"\\/'\n\u{e9}你好\u{1f980} ";

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Storm {
    /// How many messages in all.
    pub count: u64,
    /// How many users they come from, in turn; at least 1.
    pub users: u64,
    /// How many are in flight at most; at least 1.
    pub concurrency: u64,
    /// How many are begun per second at most; as fast as it goes if there is none.
    pub rate: Option<f64>,
    /// Messages are filled up to a random number of bytes that is no larger than this.
    pub size: usize,
    /// Of a hundred messages so many are sent twice, half of those at the same time and half after the first.
    pub duplicates: u8,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            count: 1000,
            users: 100,
            concurrency: 16,
            rate: None,
            size: 0,
            duplicates: 0,
        }
    }
}

/// What came of a storm. Tries are counted beside messages, because a message that was acknowledged at last may have
/// been refused before.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Messages, duplicates not counted.
    pub messages: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages that were not, in all their tries: WeChat drops such ones.
    pub lost: u64,
    /// Messages that were sent once more on purpose.
    pub duplicates: u64,
    /// Times that something was sent.
    pub tries: u64,
    /// Tries that were answered otherwise than WeChat wants.
    pub refused: u64,
    /// Tries without an answer in time.
    pub timeouts: u64,
    /// Tries that found nobody, or whose connection broke.
    pub unconnected: u64,
    /// From the first message to the last reply.
    pub seconds: f64,
    /// Acknowledged messages in a second.
    pub per_second: f64,
    /// How long acknowledgements took, in milliseconds: half of them no longer than this.
    pub p50_ms: f64,
    /// 99 of 100 no longer than this.
    pub p99_ms: f64,
    /// None longer than this.
    pub max_ms: f64,
    /// What the last failure was, and what to look at first.
    pub last_failure: Option<String>,
}

/// The openid of a storm's user, counted from 0.
pub fn openid(user: u64) -> String {
    format!("oStorm{user:022}")
}

/// Where outcomes are written down: `acknowledged <msg_id> <openid> <n>` or `lost ...`, a line for each message.
pub struct Ledger(Mutex<File>);

impl Ledger {
    /// Appends to the file, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(file)))
    }

    /// One write for a line, so that a storm that is killed leaves no half of one.
    fn write(&self, message: &Message, acknowledged: bool) -> io::Result<()> {
        let word = if acknowledged { "acknowledged" } else { "lost" };
        let Message {
            msg_id, openid, n, ..
        } = message;
        let line = format!("{word} {msg_id} {openid} {n}\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
    }
}

impl Storm {
    /// Sends it all. The contents are `storm <openid> <n>`, n counted from 1 for each user, then a blank and the filling
    /// if there is a size. Must be called inside a Tokio runtime with time and I/O.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub async fn run(&self, pusher: &Pusher, ledger: Option<Ledger>) -> io::Result<Report> {
        let shared = Arc::new(Shared {
            storm: self.clone(),
            pusher: pusher.clone(),
            ledger,
            // Unlike those of any other storm, and increasing.
            first_msg_id: (1 << 54) + (u64::from_ne_bytes(crypto::random()) >> 8),
            began: Instant::now(),
            begun: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        let lanes = self.concurrency.clamp(1, self.users.max(1));
        let mut running = JoinSet::new();
        for lane in 0..lanes {
            let shared = Arc::clone(&shared);
            running.spawn(async move { shared.lane(lane, lanes).await });
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        let tally = std::mem::take(&mut *shared.tally());
        Ok(tally.report(shared.began.elapsed()))
    }
}

/// A message of the storm.
struct Message {
    msg_id: u64,
    openid: String,
    n: u64,
    push: Push,
}

struct Shared {
    storm: Storm,
    pusher: Pusher,
    ledger: Option<Ledger>,
    first_msg_id: u64,
    began: Instant,
    /// How many messages have been begun, for the rate.
    begun: AtomicU64,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    report: Report,
    /// Of acknowledgements, in microseconds.
    latencies: Vec<u32>,
}

impl Shared {
    /// The users whose number has this rest, one message of each in turn.
    async fn lane(&self, lane: u64, lanes: u64) -> io::Result<()> {
        let users = self.storm.users.max(1);
        for index in 0..self.storm.count {
            let user = index % users;
            if user % lanes != lane {
                continue;
            }
            self.wait_for_turn().await;
            let message = self.message(index, user, index / users + 1);
            let outcome = self.deliver(&message).await;
            if let Some(ledger) = &self.ledger {
                ledger.write(&message, outcome)?;
            }
            let mut tally = self.tally();
            tally.report.messages += 1;
            match outcome {
                true => tally.report.acknowledged += 1,
                false => tally.report.lost += 1,
            }
        }
        Ok(())
    }

    /// Sends a message, perhaps twice; whether it was acknowledged.
    async fn deliver(&self, message: &Message) -> bool {
        let [twice, at_once, ..]: [u8; 8] = crypto::random();
        if u32::from(twice) * 100 >= u32::from(self.storm.duplicates) * 256 {
            return self.send(message).await;
        }
        self.tally().report.duplicates += 1;
        match at_once % 2 == 0 {
            true => {
                let (one, two) = tokio::join!(self.send(message), self.send(message));
                one || two
            }
            // Both are sent, whatever came of the first.
            false => self.send(message).await | self.send(message).await,
        }
    }

    async fn send(&self, message: &Message) -> bool {
        let outcome = self.pusher.send(&message.push).await;
        self.tally().count(&outcome);
        outcome.is_accepted()
    }

    async fn wait_for_turn(&self) {
        let turn = self.begun.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = self.storm.rate.filter(|rate| *rate > 0.0) {
            let due = self.began + Duration::from_secs_f64(turn as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn message(&self, index: u64, user: u64, n: u64) -> Message {
        let (msg_id, openid) = (self.first_msg_id + index, openid(user));
        let mut content = format!("storm {openid} {n}");
        let random = u64::from_ne_bytes(crypto::random());
        let length = random % (self.storm.size as u64 + 1);
        fill(&mut content, length as usize);
        Message {
            push: Push::text(&*openid, content).with_msg_id(msg_id),
            msg_id,
            openid,
            n,
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills a content up to so many bytes, if it has fewer.
fn fill(content: &mut String, length: usize) {
    if content.len() < length {
        content.push(' ');
    }
    for c in FILLING.chars().cycle() {
        // The last bytes are of one each.
        let c = match length.checked_sub(content.len()) {
            None | Some(0) => return,
            Some(room) if room < c.len_utf8() => 'x',
            Some(_) => c,
        };
        content.push(c);
    }
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        for sent in &outcome.tries {
            self.report.tries += 1;
            match &sent.verdict {
                Ok(_) => {
                    let micros = u32::try_from(sent.took.as_micros()).unwrap_or(u32::MAX);
                    self.latencies.push(micros);
                    continue;
                }
                Err(Reason::Timeout(_)) => self.report.timeouts += 1,
                Err(Reason::NoConnection(_) | Reason::Broken(_)) => self.report.unconnected += 1,
                Err(_) => self.report.refused += 1,
            }
            if let Err(reason) = &sent.verdict {
                self.report.last_failure = Some(format!("{reason}. {}", reason.advice()));
            }
        }
    }

    fn report(mut self, took: Duration) -> Report {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let last = self.latencies.len().saturating_sub(1);
            let index = (self.latencies.len() as f64 * share).ceil() as usize;
            let micros = self.latencies.get(index.saturating_sub(1).min(last));
            f64::from(micros.copied().unwrap_or_default()) / 1e3
        };
        let seconds = took.as_secs_f64();
        Report {
            seconds,
            per_second: self.report.acknowledged as f64 / seconds.max(f64::MIN_POSITIVE),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            ..self.report
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_filled_to_the_byte_and_never_cut() {
        for length in 0..200 {
            let mut content = "storm o 1".to_owned();
            fill(&mut content, length);
            assert_eq!(content.len(), length.max(9));
            assert!(content.starts_with("storm o 1"));
        }
    }

    #[test]
    fn percentiles_are_of_what_was_acknowledged() {
        let tally = Tally {
            latencies: (1..=1000).rev().map(|ms| ms * 1000).collect(),
            report: Report {
                acknowledged: 1000,
                ..Report::default()
            },
        };
        let report = tally.report(Duration::from_secs(10));
        assert_eq!(
            (report.p50_ms, report.p99_ms, report.max_ms),
            (500.0, 990.0, 1000.0)
        );
        assert_eq!(report.per_second, 100.0);
        let empty = Tally::default().report(Duration::ZERO);
        assert_eq!((empty.p50_ms, empty.max_ms), (0.0, 0.0));
    }
}
