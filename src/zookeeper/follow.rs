//! Following a znode for ever: what it holds, and whether that can be known at the moment.
//!
//! A watch fires once and does not say what has become of the node. So with every watch all is read anew, and since the
//! watch is set by the call before the reading, nothing falls between the two. Once a minute it is read all the same.
//!
//! ZooKeeper promises that one server never goes back in time, but not that the next one is as far as the last. After a
//! reconnect, `sync` has the server catch up; one that is still behind what was seen is not believed. Only if all that is
//! heard for some time is behind is this another history: an ensemble that was wiped, or brought back from a copy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::jute::Stat;
use super::session::{Session, another};
use super::{Content, Seen, State, Znode, ZookeeperError};
use crate::crypto;

/// How often a node is looked at that no watch tells of.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The same while it may not be read: a changed ACL fires no watch.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Sidecars that hear of a change at once ask for it within this time, and not all at once; of many changes in a row,
/// each reads a few.
const SPREAD: Duration = Duration::from_millis(200);
/// How long all must be behind to be believed. A leader that has lost the others knows it after less.
const BELIEVE_AFTER: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What has held for so long deserves to be had again soon.
const LASTING: Duration = Duration::from_secs(10);

pub(super) struct Follower<'a> {
    znode: &'a Znode,
    told: &'a watch::Sender<Seen>,
    asks: watch::Receiver<u64>,
    horizon: Horizon,
}

/// How far ZooKeeper's history is known.
#[derive(Default)]
struct Horizon {
    /// The last transaction that any server had come to.
    zxid: i64,
    /// Since when all that is heard is behind it.
    behind_since: Option<Instant>,
}

/// Pauses that grow as long as nothing comes of what is between them, and are no two sidecars' the same.
pub(super) struct Pauses(Duration);

impl<'a> Follower<'a> {
    pub(super) fn new(
        znode: &'a Znode,
        told: &'a watch::Sender<Seen>,
        asks: watch::Receiver<u64>,
    ) -> Self {
        Self {
            znode,
            told,
            asks,
            horizon: Horizon::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut pauses = Pauses::new();
        loop {
            let began = Instant::now();
            if let Err(error) = self.follow_one_server().await {
                self.note(State::Away(error));
            }
            // Who asks waits for an answer, and not for the end of a pause.
            tokio::select! {
                () = pauses.pause(began.elapsed()) => {}
                () = another(&mut self.asks) => {}
            }
        }
    }

    /// Follows by one server until that is lost. Only what prevents the first look is worth telling: of several servers,
    /// there will be another in a moment.
    async fn follow_one_server(&mut self) -> Result<(), ZookeeperError> {
        let mut session = self.znode.arrive().await?;
        let mut known = None;
        let mut looking = self.look(&mut session, &mut known).await;
        loop {
            let next = looking?;
            let until = Instant::now() + next;
            match session.idle(until, &mut self.asks).await {
                // Who asks is one, and waits.
                Ok(true) => {}
                Ok(false) => sleep(by_chance(SPREAD)).await,
                Err(_) => return Ok(()),
            }
            looking = self.look(&mut session, &mut known).await;
            if looking.is_err() {
                return Ok(());
            }
        }
    }

    /// Looks what the node holds and says it; `known` is what has been read on this connection. Returns when to look again.
    async fn look(
        &mut self,
        session: &mut Session,
        known: &mut Option<Stat>,
    ) -> Result<Duration, ZookeeperError> {
        let asked = *self.asks.borrow_and_update();
        let next = match self.read(session, known).await {
            Ok(()) => LOOK_EVERY,
            Err(ZookeeperError::NoNode { .. }) => {
                self.note(State::Gone);
                LOOK_EVERY
            }
            Err(error @ ZookeeperError::TooLarge { .. }) => {
                self.note(State::Away(error));
                LOOK_EVERY
            }
            Err(error @ ZookeeperError::Denied { .. }) => {
                self.note(State::Away(error));
                ASK_AGAIN
            }
            Err(error) => return Err(error),
        };
        self.told.send_if_modified(|seen| {
            let is_answer = seen.answered != asked;
            seen.answered = asked;
            is_answer
        });
        Ok(next)
    }

    async fn read(
        &mut self,
        session: &mut Session,
        known: &mut Option<Stat>,
    ) -> Result<(), ZookeeperError> {
        let before = known.take();
        let zxid = self.znode.sync(session).await?;
        if !self.horizon.reaches(zxid, Instant::now()) {
            return Err(ZookeeperError::Behind);
        }
        let there = self.znode.stat(session).await?;
        if before == Some(there) {
            *known = before;
            return Ok(());
        }
        let (content, stat) = self.znode.content(session).await?;
        self.note_content(content);
        *known = Some(stat);
        Ok(())
    }

    fn note(&self, state: State) {
        self.told.send_if_modified(|seen| {
            let is_news = seen.state != state;
            seen.state = state;
            is_news
        });
    }

    /// The same bytes written once more are no news, but their version is kept.
    fn note_content(&self, content: Content) {
        self.told.send_if_modified(|seen| {
            let before = seen.content.as_ref();
            let is_new = before.is_none_or(|before| before.bytes != content.bytes);
            let is_news = is_new || seen.state != State::Current;
            seen.content = Some(Arc::new(content));
            seen.state = State::Current;
            is_news
        });
    }
}

impl Horizon {
    /// Whether a server that has come to `zxid` is to be believed.
    fn reaches(&mut self, zxid: i64, now: Instant) -> bool {
        if zxid < self.zxid {
            let since = *self.behind_since.get_or_insert(now);
            if now - since < BELIEVE_AFTER {
                return false;
            }
        }
        self.zxid = zxid;
        self.behind_since = None;
        true
    }
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self(SHORTEST_PAUSE)
    }

    /// Pauses after something that went on for `lasted`.
    pub(super) async fn pause(&mut self, lasted: Duration) {
        if lasted > LASTING {
            self.0 = SHORTEST_PAUSE;
        }
        sleep(by_chance(self.0)).await;
        self.0 = (2 * self.0).min(LONGEST_PAUSE);
    }
}

/// Some time up to `most`.
fn by_chance(most: Duration) -> Duration {
    most * u32::from(u16::from_be_bytes(crypto::random())) / u32::from(u16::MAX)
}

/// Puts them into an order that is another one for each sidecar, so that no server gets them all.
pub(super) fn shuffle<T>(list: &mut [T]) {
    for last in (1..list.len()).rev() {
        let random = usize::from(u16::from_be_bytes(crypto::random()));
        list.swap(last, random % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_behind_is_not_believed_before_all_have_been_for_a_while() {
        let (mut horizon, start) = (Horizon::default(), Instant::now());
        assert!(horizon.reaches(9, start));
        assert!(!horizon.reaches(8, start), "it lags");
        let almost = start + BELIEVE_AFTER - Duration::from_millis(1);
        assert!(!horizon.reaches(8, almost));
        assert!(horizon.reaches(9, almost), "another server is as far");
        assert!(
            !horizon.reaches(8, start + BELIEVE_AFTER),
            "the doubt begins anew"
        );
        assert!(
            horizon.reaches(3, start + 2 * BELIEVE_AFTER),
            "it is another history"
        );
        assert!(horizon.reaches(3, start + 2 * BELIEVE_AFTER));
    }

    #[test]
    fn an_order_by_chance_has_them_all() {
        let mut list = [1, 2, 3, 4, 5];
        let firsts: std::collections::BTreeSet<_> = (0..200)
            .map(|_| {
                shuffle(&mut list);
                list[0]
            })
            .collect();
        assert_eq!(firsts.len(), 5, "each is the first at times");
        list.sort_unstable();
        assert_eq!(list, [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_bound_and_begin_anew_after_what_has_lasted() {
        let mut pauses = Pauses::new();
        for _ in 0..20 {
            let before = Instant::now();
            pauses.pause(Duration::ZERO).await;
            assert!(before.elapsed() <= LONGEST_PAUSE + Duration::from_millis(1));
        }
        assert_eq!(pauses.0, LONGEST_PAUSE);
        pauses.pause(LASTING * 2).await;
        assert_eq!(pauses.0, 2 * SHORTEST_PAUSE);
    }
}
