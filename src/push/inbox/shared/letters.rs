//! Messages that wait and dead letters, for whoever operates.
//!
//! Each question has a connection of its own: a long list must not make the common one late.

use std::fmt::Display;
use std::time::Duration;

use super::names::{self, Id, Opened, PARTS, part_of};
use super::scripts;
use super::{Connection, Entries, READING, Shared, WAIT, ask, millis};
use crate::push::inbox::{Letter, Which};
use crate::redis_link::reason;

/// Entries that are read at once.
const PAGE: usize = 100;
/// How long replicas are told of a message that was dropped; they ask each second.
const TOLD: Duration = Duration::from_secs(10);

/// An entry of a stream.
struct Found {
    id: Id,
    /// Its bytes.
    size: usize,
    /// `None` if it cannot be opened.
    opened: Option<Opened>,
}

impl Shared {
    /// Letters from a number on. Those of all parts are numbered together.
    pub(in crate::push::inbox) async fn list(
        &self,
        dead: bool,
        from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, String> {
        let mut connection = self.own_connection().await?;
        if dead {
            let dead = &self.names.dead;
            return self.letters(&mut connection, dead, from, most).await;
        }
        let mut letters = Vec::new();
        for part in 0..PARTS {
            let stream = self.names.part(part);
            letters.extend(self.letters(&mut connection, stream, from, most).await?);
            letters.sort_by_key(|letter| letter.number);
            letters.truncate(most);
        }
        Ok(letters)
    }

    /// Has dead letters delivered again; how many.
    pub(in crate::push::inbox) async fn revive(&self, which: Which) -> Result<usize, String> {
        let names = &self.names;
        let mut connection = self.own_connection().await?;
        let mut count = 0;
        for found in self.dead_letters(&mut connection).await? {
            let Some(opened) = found.opened.filter(|opened| which.means(opened)) else {
                continue;
            };
            let mut entry = opened.entry;
            entry.head.death = None;
            entry.head.queued = self.outlet.clock.now().as_millis();
            let stream = names.part(part_of(entry.head.lane));
            let sealed = names.seal(stream, opened.identity, opened.is_awaited, &entry);
            let keys = [&names.dead, stream, &names.sums];
            let mut revive = scripts::on(scripts::REVIVE, keys);
            revive.arg(found.id.to_string()).arg(found.size);
            revive.arg(sealed).arg(names::mark());
            count += ask::<usize>(&mut connection, &revive).await.map_err(text)?;
        }
        Ok(count)
    }

    /// Throws dead letters away, or the messages of one id; how many. Whoever delivers hears of it within a second.
    pub(in crate::push::inbox) async fn drop_letters(&self, which: Which) -> Result<usize, String> {
        let names = &self.names;
        let mut connection = self.own_connection().await?;
        let mut count = 0;
        for found in self.dead_letters(&mut connection).await? {
            let is_meant = match &found.opened {
                Some(opened) => which.means(opened),
                None => matches!(which, Which::All),
            };
            if is_meant {
                let mut drop = scripts::on(scripts::DROP_DEAD, [&*names.dead, &*names.sums]);
                drop.arg(found.id.to_string()).arg(found.size);
                count += ask::<usize>(&mut connection, &drop).await.map_err(text)?;
            }
        }
        if matches!(which, Which::All) {
            return Ok(count);
        }
        for part in 0..PARTS {
            let stream = names.part(part);
            let mut from = 0;
            loop {
                let page = self.page(&mut connection, stream, from).await?;
                for found in &page {
                    if found.opened.as_ref().is_some_and(|it| which.means(it)) {
                        let keys = [stream, &*names.sums, &*names.dropped];
                        let mut drop = scripts::on(scripts::DROP_WAITING, keys);
                        drop.arg(found.id.to_string()).arg(found.size);
                        drop.arg(part).arg(millis(TOLD));
                        count += ask::<usize>(&mut connection, &drop).await.map_err(text)?;
                    }
                }
                match page.last() {
                    Some(last) if page.len() == PAGE => from = last.id.number + 1,
                    _ => break,
                }
            }
        }
        Ok(count)
    }

    async fn letters(
        &self,
        connection: &mut Connection,
        stream: &str,
        mut from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, String> {
        let mut letters = Vec::new();
        loop {
            let page = self.page(connection, stream, from).await?;
            let next = page.last().map(|last| last.id.number + 1);
            let is_last = page.len() < PAGE;
            for found in page {
                if let Some(opened) = found.opened {
                    letters.push(Letter {
                        number: found.id.number,
                        entry: opened.entry,
                    });
                }
            }
            match next {
                Some(next) if !is_last && letters.len() < most => from = next,
                _ => break,
            }
        }
        letters.truncate(most);
        Ok(letters)
    }

    /// All that there are now. Those that come meanwhile are left for the next time.
    async fn dead_letters(&self, connection: &mut Connection) -> Result<Vec<Found>, String> {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let page = self.page(connection, &self.names.dead, from).await?;
            let is_last = page.len() < PAGE;
            from = page.last().map_or(from, |last| last.id.number + 1);
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn page(
        &self,
        connection: &mut Connection,
        stream: &str,
        from: u64,
    ) -> Result<Vec<Found>, String> {
        let mut range = redis::cmd("XRANGE");
        range.arg(stream).arg(from).arg("+").arg("COUNT").arg(PAGE);
        let entries: Entries = ask(connection, &range).await.map_err(text)?;
        let found = |(id, fields): (String, Vec<Vec<u8>>)| {
            let sealed = fields.get(1)?;
            Some(Found {
                id: Id::parse(&id)?,
                size: sealed.len(),
                opened: self.names.open(stream, sealed),
            })
        };
        Ok(entries.into_iter().filter_map(found).collect())
    }

    async fn own_connection(&self) -> Result<Connection, String> {
        let connected = self.link.connect(WAIT + READING).await;
        connected.map_err(|error| text(reason(&error)))
    }
}

impl Which {
    fn means(&self, opened: &Opened) -> bool {
        match self {
            Self::All => true,
            Self::Id(id) => opened.entry.head.id == *id,
        }
    }
}

fn text(why: impl Display) -> String {
    format!("Redis: {why}")
}
