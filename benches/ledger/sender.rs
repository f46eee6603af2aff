//! WeChat as one user sees it: a message after the other, three tries each, and some of them twice.
//!
//! The pause between tries is shorter than WeChat's five seconds, so that a run of some minutes sees thousands of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wx_sidecar::wechat::push::Format;

use super::book::{Book, Mark};
use super::chance::Chance;
use super::wechat::{Account, now, openid};
use super::wire::{Message, Wire};

const TRIES: u32 = 3;
/// How long WeChat waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(700));
/// One message of so many is sent twice at once, and one once more after it was acknowledged.
const REPEATED: usize = 12;
/// WeChat's message ids have up to 19 digits, more than a JavaScript number holds.
const FIRST_ID: u64 = 23_637_352_235_000_000;

/// One user.
pub(crate) struct Sender {
    pub(crate) user: usize,
    pub(crate) account: Arc<Account>,
    pub(crate) book: Arc<Mutex<Book>>,
    /// Any of these takes any message.
    pub(crate) places: Vec<SocketAddr>,
    pub(crate) chance: Chance,
    /// From one message to the next, if nothing is slow.
    pub(crate) every: Duration,
}

/// A message, the same in all tries.
struct Push {
    mark: Mark,
    format: Format,
    document: String,
}

/// A connection that is used again as long as it holds.
#[derive(Default)]
struct Line(Option<(SocketAddr, Wire)>);

impl Sender {
    /// Sends until told to end; a message that was begun is brought to its end.
    pub(crate) async fn run(mut self, mut end: watch::Receiver<bool>) {
        let (mut line, mut other) = (Line::default(), Line::default());
        let mut due = Instant::now() + self.chance.between(Duration::ZERO, self.every);
        for number in 0.. {
            tokio::select! {
                () = sleep_until(due) => {}
                _ = end.wait_for(|end| *end) => return,
            }
            due = (due + self.every).max(Instant::now());
            let push = Push::new((self.user, number), &mut self.chance);
            self.book().sent(push.mark);
            let acknowledged = match self.chance.one_in(REPEATED) {
                false => self.tries(&push, &mut line).await,
                true => {
                    self.book().repeated(push.mark);
                    self.twice(&push, &mut line, &mut other).await
                }
            };
            if !acknowledged {
                continue;
            }
            self.book().acknowledged(push.mark);
            if self.chance.one_in(REPEATED) {
                self.book().repeated(push.mark);
                self.tries(&push, &mut line).await;
            }
        }
    }

    /// Whether it was acknowledged in one of three tries.
    async fn tries(&mut self, push: &Push, line: &mut Line) -> bool {
        for again in 1..=TRIES {
            let request = self.sign(push);
            let place = self.places[self.chance.below(self.places.len())];
            if self.attempt(place, &request, line).await {
                return true;
            }
            if again < TRIES {
                sleep(self.chance.between(PAUSE.0, PAUSE.1)).await;
            }
        }
        false
    }

    /// Sends it on two connections at the same time, and if neither is answered goes on as usual.
    async fn twice(&mut self, push: &Push, line: &mut Line, other: &mut Line) -> bool {
        let (one, two) = (self.sign(push), self.sign(push));
        let mut place = || self.places[self.chance.below(self.places.len())];
        let (here, there) = (place(), place());
        let (one, two) = tokio::join!(
            self.attempt(here, &one, line),
            self.attempt(there, &two, other)
        );
        one || two || self.tries(push, line).await
    }

    fn sign(&mut self, push: &Push) -> Vec<u8> {
        let openid = openid(self.user);
        let random = self.chance.next();
        let Push {
            format, document, ..
        } = push;
        self.account.request(*format, document, &openid, random)
    }

    /// One try; whether it was acknowledged.
    async fn attempt(&self, place: SocketAddr, request: &[u8], line: &mut Line) -> bool {
        let answer = match timeout(PATIENCE, line.send(place, request)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return false,
            Err(_elapsed) => {
                self.book().late();
                return false;
            }
        };
        match (answer.status(), &answer.body[..]) {
            (Some(200), b"success") => true,
            (Some(503), _) => false,
            (status, body) => {
                let body = String::from_utf8_lossy(body);
                self.book()
                    .is_odd(format!("a push was answered {status:?}: {body}"));
                false
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Push {
    /// Text in either format, or an event, which has no id of WeChat's.
    fn new(mark: Mark, chance: &mut Chance) -> Self {
        let (user, number) = mark;
        let (openid, time) = (openid(user), now());
        let id = FIRST_ID + user as u64 * 1_000_000 + number;
        let (format, document) = match chance.below(4) {
            0 => (
                Format::Xml,
                format!(
                    "<xml><ToUserName><![CDATA[gh_ledger]]></ToUserName><FromUserName><![CDATA[{openid}]]></FromUserName>\
                     <CreateTime>{time}</CreateTime><MsgType><![CDATA[text]]></MsgType>\
                     <Content><![CDATA[{user} {number}]]></Content><MsgId>{id}</MsgId></xml>"
                ),
            ),
            1 => (
                Format::Xml,
                format!(
                    "<xml><ToUserName><![CDATA[gh_ledger]]></ToUserName><FromUserName><![CDATA[{openid}]]></FromUserName>\
                     <CreateTime>{time}</CreateTime><MsgType><![CDATA[event]]></MsgType>\
                     <Event><![CDATA[user_enter_tempsession]]></Event>\
                     <SessionFrom><![CDATA[{user} {number}]]></SessionFrom></xml>"
                ),
            ),
            _ => (
                Format::Json,
                format!(
                    "{{\"ToUserName\":\"gh_ledger\",\"FromUserName\":\"{openid}\",\"CreateTime\":{time},\
                     \"MsgType\":\"text\",\"Content\":\"{user} {number}\",\"MsgId\":{id}}}"
                ),
            ),
        };
        Self {
            mark,
            format,
            document,
        }
    }
}

impl Line {
    /// The answer, if there is one.
    async fn send(&mut self, place: SocketAddr, request: &[u8]) -> Option<Message> {
        let kept = self.0.take();
        let mut wire = match kept {
            Some((to, wire)) if to == place && wire.is_open() => wire,
            _ => Wire::connect(place).await.ok()?,
        };
        let answer = wire.exchange(request).await.ok()?;
        self.0 = Some((place, wire));
        Some(answer)
    }
}
