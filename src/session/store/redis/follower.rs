//! Revocations as they come in: a stream in Redis that every replica follows, on a connection of its own.
//!
//! So that asking whether a session was revoked takes no I/O, what has been revoked is kept in this process. A new
//! replica reads the whole stream; then it waits for what is added, and looks back over the last minute now and then.
//! That covers what waiting alone would miss: a flush, a failover that lost the end of the stream, or a server whose
//! clock, which numbers the entries, is behind that of the one before it.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use tokio::time::{Instant, timeout};

use crate::redis_link::{Connection, Link, Pauses, reason};

/// How long Redis holds a question that it has no news for.
const WAIT: Duration = Duration::from_millis(1000);
/// How often we look back, and how far.
const LOOK_BACK_EVERY: Duration = Duration::from_secs(30);
const LOOK_BACK: Duration = Duration::from_secs(60);
/// Entries that are read at once.
const PAGE: usize = 1000;

/// Where the follower is.
pub(super) struct Follower {
    /// Why it does not follow, if it does not. Guards a text; held to read or replace it.
    why: Mutex<Option<Cow<'static, str>>>,
}

/// What is followed.
pub(super) trait Followed {
    /// The stream's name. It changes with the Mini Program.
    fn stream(&self) -> String;

    /// Takes an entry.
    fn take(&self, stream: &str, entry: &[u8]);

    /// The stream is none.
    fn refuse(&self);

    /// Hears that the follower follows, or no longer does.
    fn told(&self);
}

/// How far a stream has been read.
struct Position {
    stream: String,
    /// The last entry that was seen, if any was.
    last: Option<EntryId>,
}

/// Milliseconds of the server's clock, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId(u64, u64);

/// As Redis has it: an id, and names and values in turn.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

/// Why nothing can be had before anything has been tried.
pub(super) const NOT_YET: &str = "revocations are not loaded yet";

impl Follower {
    pub(super) fn new() -> Self {
        Self {
            why: Mutex::new(Some(NOT_YET.into())),
        }
    }

    /// Why revocations of other replicas may not be known here, if so.
    pub(super) fn why_behind(&self) -> Option<Cow<'static, str>> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
    }

    /// Follows for ever. `answer` is how long Redis may take where it need not wait.
    pub(super) async fn follow(&self, link: &Link, followed: &impl Followed, answer: Duration) {
        let mut position = Position {
            stream: followed.stream(),
            last: None,
        };
        let mut pauses = Pauses::new();
        loop {
            let began = Instant::now();
            let outcome = self
                .follow_once(link, followed, answer, &mut position)
                .await;
            if let Err(why) = outcome {
                self.note(Some(why));
                link.doubt();
                followed.told();
                pauses.pause(began.elapsed()).await;
            }
        }
    }

    /// Follows on one connection; ends well if another should be made.
    async fn follow_once(
        &self,
        link: &Link,
        followed: &impl Followed,
        answer: Duration,
        position: &mut Position,
    ) -> Result<(), Cow<'static, str>> {
        let made = link.made();
        let connected = link.connect(WAIT + answer).await;
        let mut source = Source {
            connection: connected.map_err(|error| reason(&error))?,
            patience: WAIT + answer,
        };
        loop {
            position.catch_up(&mut source, followed).await?;
            self.note(None);
            followed.told();
            let caught_up = Instant::now();
            while caught_up.elapsed() < LOOK_BACK_EVERY && position.stream == followed.stream() {
                position.wait(&mut source, followed).await?;
                if link.made() != made {
                    return Ok(());
                }
            }
        }
    }

    fn note(&self, why: Option<Cow<'static, str>>) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Position {
    /// Reads all that may have been missed.
    async fn catch_up(
        &mut self,
        source: &mut Source,
        followed: &impl Followed,
    ) -> Result<(), Cow<'static, str>> {
        let stream = followed.stream();
        if stream != self.stream {
            *self = Self { stream, last: None };
        }
        let now = source.clock(&self.stream).await?;
        let look_back = |millis: u64| millis.saturating_sub(millis_of(LOOK_BACK));
        let start = match self.last {
            None => EntryId(0, 0),
            Some(EntryId(last, _)) => EntryId(look_back(last.min(now)), 0),
        };
        let mut from = start;
        loop {
            let mut page = redis::cmd("XRANGE");
            page.arg(&self.stream).arg(from.to_string()).arg("+");
            page.arg("COUNT").arg(PAGE);
            let entries: Entries = match source.ask(&page).await? {
                Some(entries) => entries,
                None => {
                    followed.refuse();
                    Vec::new()
                }
            };
            let read = entries.len();
            let last = self.take(entries, followed)?;
            from = last.map_or(from, EntryId::next);
            if read < PAGE {
                break;
            }
        }
        // By what there is and not by what there was: another server may count from an earlier moment.
        self.last = Some(match from == start {
            true => EntryId(look_back(now), 0),
            false => from.previous(),
        });
        Ok(())
    }

    /// Waits for news, for a while.
    async fn wait(
        &mut self,
        source: &mut Source,
        followed: &impl Followed,
    ) -> Result<(), Cow<'static, str>> {
        let last = self.last.unwrap_or(EntryId(0, 0));
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT").arg(PAGE);
        wait.arg("BLOCK").arg(millis_of(WAIT));
        wait.arg("STREAMS").arg(&self.stream).arg(last.to_string());
        let news: Option<Option<Vec<(String, Entries)>>> = source.ask(&wait).await?;
        let Some(news) = news else {
            tokio::time::sleep(WAIT).await;
            return Ok(());
        };
        for (_, entries) in news.into_iter().flatten() {
            self.last = self.take(entries, followed)?.or(self.last);
        }
        Ok(())
    }

    /// Takes entries, and says which was the last.
    fn take(
        &self,
        entries: Entries,
        followed: &impl Followed,
    ) -> Result<Option<EntryId>, Cow<'static, str>> {
        let mut last = None;
        for (id, fields) in entries {
            let id = EntryId::parse(&id).ok_or("this is not how Redis numbers entries")?;
            last = Some(id);
            match fields.as_slice() {
                [_, value] => followed.take(&self.stream, value),
                _ => followed.refuse(),
            }
        }
        Ok(last)
    }
}

/// The connection that is waited on.
struct Source {
    connection: Connection,
    patience: Duration,
}

impl Source {
    /// `None` if what is there is no stream.
    async fn ask<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
    ) -> Result<Option<T>, Cow<'static, str>> {
        let answer = command.query_async(&mut self.connection);
        match timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Ok(None),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// The time at the server that has the stream, in milliseconds. By a script, because a Cluster is asked by key.
    async fn clock(&mut self, stream: &str) -> Result<u64, Cow<'static, str>> {
        let mut clock = redis::cmd("EVAL");
        clock.arg("return redis.call('TIME')[1]").arg(1).arg(stream);
        let seconds: Option<u64> = self.ask(&clock).await?;
        Ok(seconds.unwrap_or_default().saturating_mul(1000))
    }
}

impl EntryId {
    fn parse(text: &str) -> Option<Self> {
        let (millis, number) = text.split_once('-')?;
        Some(Self(millis.parse().ok()?, number.parse().ok()?))
    }

    fn next(self) -> Self {
        match self.1.checked_add(1) {
            Some(number) => Self(self.0, number),
            None => Self(self.0.saturating_add(1), 0),
        }
    }

    fn previous(self) -> Self {
        match self.1.checked_sub(1) {
            Some(number) => Self(self.0, number),
            None => Self(self.0.saturating_sub(1), u64::MAX),
        }
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_entries_are_read_and_counted() {
        let id = EntryId::parse("1700000000000-7").unwrap();
        assert_eq!(id.to_string(), "1700000000000-7");
        assert_eq!(id.next().previous(), id);
        assert_eq!(EntryId(5, 0).previous(), EntryId(4, u64::MAX));
        assert_eq!(EntryId(4, u64::MAX).next(), EntryId(5, 0));
        for bad in ["", "5", "-", "a-1", "1-b", "1-2-3"] {
            assert_eq!(EntryId::parse(bad), None, "{bad}");
        }
    }
}
