//! The generator: pushes that were encrypted beforehand, on connections that are kept.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::sleep;
use wx_sidecar::wechat::push::Format;

use crate::histogram::Histogram;
use crate::wechat::{Account, now, openid};
use crate::wire::Wire;

/// Messages are of so many users.
const USERS: usize = 1_000;
/// After a push that was refused it is sent again. WeChat takes five seconds for it, and three tries.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: usize = 500;
/// As far ahead as the runtime's timers are not exact.
const INEXACT: Duration = Duration::from_micros(1_500);

/// Makes pushes, no two alike.
pub(crate) struct Press {
    account: Account,
    made: u64,
}

/// What came of a load.
pub(crate) struct Outcome {
    /// From when a push was due, or from when it was sent if all go as fast as they can; in nanoseconds.
    pub(crate) latencies: Histogram,
    pub(crate) acknowledged: usize,
    /// How often a push was not, and came again.
    pub(crate) refused: usize,
    pub(crate) took: Duration,
}

impl Press {
    pub(crate) fn new() -> Self {
        Self {
            account: Account::new(),
            made: 0,
        }
    }

    /// Requests with messages of `length` bytes. They are good for five minutes.
    pub(crate) fn print(&mut self, count: usize, length: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.one(length)).collect()
    }

    fn one(&mut self, length: usize) -> Vec<u8> {
        self.made += 1;
        let id = 23_637_352_235_000_000 + self.made;
        let user = openid((self.made % USERS as u64) as usize);
        let mut document = format!(
            "{{\"ToUserName\":\"gh_ledger\",\"FromUserName\":\"{user}\",\"CreateTime\":{},\"MsgType\":\"text\",\
             \"MsgId\":{id},\"Content\":\"",
            now()
        );
        let words = "请问茶叶什么时候发货? When will it arrive? ";
        let mut letters = words.chars().cycle();
        while document.len() + 4 < length {
            document.extend(letters.next());
        }
        document.push_str("\"}");
        let request = &self.account;
        request.request(Format::Json, &document, &user, self.made)
    }
}

/// Sends all until they are acknowledged, over so many connections; at a rate, in messages a second, or as fast as they are
/// answered.
pub(crate) async fn send(
    place: SocketAddr,
    requests: &Rc<Vec<Vec<u8>>>,
    connections: usize,
    rate: Option<f64>,
) -> Result<Outcome, String> {
    let next = Rc::new(Cell::new(0));
    let latencies = Rc::new(RefCell::new(Histogram::new()));
    let began = Instant::now();
    let local = LocalSet::new();
    let mut senders = Vec::new();
    for _ in 0..connections {
        let (requests, next) = (Rc::clone(requests), Rc::clone(&next));
        let latencies = Rc::clone(&latencies);
        senders.push(local.spawn_local(async move {
            let mut wire = Wire::connect(place).await?;
            let mut refused = 0;
            while let Some(request) = requests.get(next.get()) {
                let number = next.replace(next.get() + 1);
                let due = rate.map(|rate| began + Duration::from_secs_f64(number as f64 / rate));
                if let Some(due) = due {
                    until(due).await;
                }
                let since = due.unwrap_or_else(Instant::now);
                while wire.exchange(request).await?.body[..] != *b"success" {
                    refused += 1;
                    if refused > TRIES {
                        return Err(std::io::Error::other("it is refused again and again"));
                    }
                    sleep(PAUSE).await;
                }
                let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                latencies.borrow_mut().record(took);
            }
            Ok(refused)
        }));
    }
    local.await;
    let took = began.elapsed();
    let mut refused = 0;
    for sender in senders {
        let sent = sender.await.map_err(|error| error.to_string())?;
        refused += sent.map_err(|error| format!("a push was not acknowledged: {error}"))?;
    }
    let latencies = latencies.borrow().clone();
    Ok(Outcome {
        latencies,
        acknowledged: requests.len(),
        refused,
        took,
    })
}

/// More exact than a timer: it looks at the clock at the end, and lets others go on between two looks.
async fn until(due: Instant) {
    let ahead = due.saturating_duration_since(Instant::now());
    if ahead > INEXACT {
        sleep(ahead - INEXACT).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

impl Outcome {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.acknowledged as f64 / self.took.as_secs_f64()
    }

    /// A quantile in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.latencies.quantile(share) as f64 / 1e3
    }
}
