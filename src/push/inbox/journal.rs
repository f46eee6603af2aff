//! The journal: what waits, what was given up and what has been seen, in one file.
//!
//! An embedded database (redb) and no format of our own. It was measured beside fjall and a bare file: a commit costs it one
//! fsync like the bare file, it needs 8 MiB where fjall needs 36, and it opens 100,000 messages after a kill in a tenth
//! of a second. A commit carries all that has come up meanwhile, so that fsync is paid once for many messages.
//!
//! After a failed write the database has to be opened anew, and nobody knows what of the commit has reached the disk. So what
//! is found then that was never announced is announced; what was told to have failed comes again, and is known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    Table, TableDefinition, WriteTransaction,
};

use super::disk::Disk;
use super::{Accepted, Bounds, Letter, NotStored, Put, Which};
use crate::clock::Timestamp;
use crate::push::entry::{Death, Entry, Head, Place};

/// Messages that wait, by number.
const INBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("inbox");
/// Messages that were given up, by number.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
/// What has been seen: until when that is remembered, and with which message.
const SEEN: TableDefinition<'_, &[u8; 16], (u64, [u8; 16])> = TableDefinition::new("seen");
/// The same in the order in which it is forgotten.
const FORGOTTEN: TableDefinition<'_, (u64, [u8; 16]), ()> = TableDefinition::new("forgotten");
/// Numbers of the journal itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The form of what is written. One that is larger was written by a newer version.
const FORM: u64 = 1;
/// The memory for pages of the file, in bytes.
const CACHE: usize = 4 * 1024 * 1024;
/// How much is remembered as seen; beyond it, what would be forgotten first.
const MOST_SEEN: u64 = 1_000_000;
/// How much is forgotten at each commit; more than comes.
const FORGET_AT_ONCE: usize = 256;
/// A file is made smaller when nothing waits and it is larger than this, in bytes.
const WORTH_COMPACTING: u64 = 32 * 1024 * 1024;
/// The name of the file.
const FILE: &str = "push.redb";

/// The open journal. All of its methods block.
pub(super) struct Journal {
    file: Option<File>,
    bounds: Bounds,
    /// `None` after a failure.
    database: Option<Database>,
    /// The number of the next message.
    next: u64,
    waiting: Sum,
    dead: Sum,
    #[cfg(test)]
    pub(super) full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// Where the file is.
#[derive(Clone)]
struct File {
    path: PathBuf,
    fsync: bool,
}

/// How many there are, and how many bytes they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: usize,
    pub(super) bytes: u64,
}

/// A message of which the delivery has not heard.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) place: Place,
}

/// What is to be written.
pub(super) enum Change<'a> {
    Put(&'a Put),
    /// The app has it.
    Settle(u64),
    /// The app will not have it.
    Bury(u64, &'a Death),
    /// A dead letter is tried again.
    Revive(&'a Which),
    /// A dead letter is thrown away; or a message that waits.
    Drop(&'a Which),
}

/// What came of a change.
pub(super) enum Changed {
    Put(Result<Accepted, NotStored>),
    Settled,
    /// How many were affected, and of those that waited which.
    Letters(usize, Vec<u64>),
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The file or its directory cannot be used.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a journal, or a broken one.
    #[error("{0}")]
    Database(#[source] Box<redb::Error>),
    /// The same, and where it is.
    #[error("{}: {cause}", path.display())]
    At {
        /// The directory of the configuration.
        path: PathBuf,
        #[source]
        cause: Box<JournalError>,
    },
    /// It was written by a newer version.
    #[error("a newer wx-sidecar has written this journal (form {0}; this one knows {FORM})")]
    Newer(u64),
}

impl JournalError {
    pub(super) fn at(self, path: &Path) -> Self {
        Self::At {
            path: path.to_owned(),
            cause: Box::new(self),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for JournalError
where
    E: NotIo,
{
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The database's own errors.
pub(super) trait NotIo {}
impl NotIo for DatabaseError {}
impl NotIo for redb::TransactionError {}
impl NotIo for redb::TableError {}
impl NotIo for redb::StorageError {}
impl NotIo for redb::CommitError {}
impl NotIo for redb::CompactionError {}

impl Journal {
    /// Opens the journal in a directory, which is made if need be, or one in memory.
    pub(super) fn open(
        directory: Option<&Path>,
        fsync: bool,
        bounds: Bounds,
    ) -> Result<(Self, Vec<Found>), JournalError> {
        let file = match directory {
            None => None,
            Some(directory) => {
                if directory.exists() && !directory.is_dir() {
                    let wanted = "this is a file, and a directory is wanted";
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, wanted).into());
                }
                fs::create_dir_all(directory)?;
                Some(File {
                    path: directory.join(FILE),
                    fsync,
                })
            }
        };
        let mut journal = Self {
            file,
            bounds,
            database: None,
            next: 0,
            waiting: Sum::default(),
            dead: Sum::default(),
            #[cfg(test)]
            full: std::sync::Arc::default(),
        };
        let found = journal.reopen()?;
        Ok((journal, found))
    }

    pub(super) fn waiting(&self) -> Sum {
        self.waiting
    }

    pub(super) fn dead(&self) -> Sum {
        self.dead
    }

    /// Whether it can be written to, for all that is known.
    pub(super) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Opens the file if it is not open, and says what is in it that has not been announced.
    pub(super) fn reopen(&mut self) -> Result<Vec<Found>, JournalError> {
        if self.database.is_some() {
            return Ok(Vec::new());
        }
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let database = match &self.file {
            None => builder.create_with_backend(InMemoryBackend::new())?,
            Some(file) => {
                let disk = Disk::open(&file.path, file.fsync)?;
                #[cfg(test)]
                let disk = disk.filled_by(&self.full);
                builder.create_with_backend(disk)?
            }
        };
        prepare(&database)?;
        let (waiting, dead, found, next) = survey(&database, self.next)?;
        (self.waiting, self.dead, self.next) = (waiting, dead, next);
        self.database = Some(database);
        Ok(found)
    }

    /// Makes the changes in one commit, which is on the disk when this returns.
    ///
    /// # Errors
    /// If nothing was written, as far as anybody knows. The journal is closed then; see [`Journal::reopen`].
    pub(super) fn write(
        &mut self,
        changes: &[Change<'_>],
        now: Timestamp,
    ) -> Result<(Vec<Changed>, Vec<Found>), JournalError> {
        let database = self
            .database
            .as_ref()
            .ok_or_else(|| io::Error::other("the journal is closed"))?;
        let mut state = (self.next, self.waiting, self.dead);
        let written = write_to(database, changes, now, self.bounds, &mut state);
        match written {
            Ok(done) => {
                (self.next, self.waiting, self.dead) = state;
                Ok(done)
            }
            Err(error) => {
                self.database = None;
                Err(error)
            }
        }
    }

    /// Messages that wait, those that are still there.
    pub(super) fn fetch(&self, numbers: &[u64]) -> Result<Vec<(u64, Option<Entry>)>, JournalError> {
        let Some(database) = &self.database else {
            return Err(io::Error::other("the journal is closed").into());
        };
        let transaction = database.begin_read()?;
        let inbox = transaction.open_table(INBOX)?;
        let fetch = |&number: &u64| {
            let written = inbox.get(number)?;
            Ok((
                number,
                written.and_then(|written| Entry::decode(written.value())),
            ))
        };
        numbers.iter().map(fetch).collect()
    }

    /// Letters from a number on, at most `most`.
    pub(super) fn list(
        &self,
        dead: bool,
        from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, JournalError> {
        let Some(database) = &self.database else {
            return Err(io::Error::other("the journal is closed").into());
        };
        let transaction = database.begin_read()?;
        let table = transaction.open_table(if dead { DEAD } else { INBOX })?;
        let mut letters = Vec::new();
        for row in table.range(from..)?.take(most) {
            let (number, written) = row?;
            if let Some(entry) = Entry::decode(written.value()) {
                letters.push(Letter {
                    number: number.value(),
                    entry,
                });
            }
        }
        Ok(letters)
    }

    /// Gives back room that nobody needs any more.
    pub(super) fn compact_if_worthwhile(&mut self) -> Result<(), JournalError> {
        let idle = self.waiting.count == 0 && self.dead.bytes < WORTH_COMPACTING / 2;
        if !idle || self.size_of_file() <= WORTH_COMPACTING {
            return Ok(());
        }
        if let Some(database) = &mut self.database {
            database.compact()?;
        }
        Ok(())
    }

    /// As if another version had written it.
    #[cfg(test)]
    pub(super) fn pretend_form(&mut self, form: u64) -> Result<(), JournalError> {
        let database = self.database.as_ref().expect("a test has just opened it");
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert("form", form)?;
        transaction.commit()?;
        Ok(())
    }

    fn size_of_file(&self) -> u64 {
        let Some(file) = &self.file else {
            return 0;
        };
        fs::metadata(&file.path).map_or(0, |file| file.len())
    }
}

/// Makes the tables, and looks whether they are ours.
fn prepare(database: &Database) -> Result<(), JournalError> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let form = meta.get("form")?.map(|form| form.value());
        match form {
            None => {
                meta.insert("form", FORM)?;
            }
            Some(form) if form > FORM => return Err(JournalError::Newer(form)),
            Some(_) => {}
        }
        transaction.open_table(INBOX)?;
        transaction.open_table(DEAD)?;
        transaction.open_table(SEEN)?;
        transaction.open_table(FORGOTTEN)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What is in the file, and of it what has a number of `known` or above.
fn survey(database: &Database, known: u64) -> Result<(Sum, Sum, Vec<Found>, u64), JournalError> {
    let transaction = database.begin_read()?;
    let mut found = Vec::new();
    let (mut waiting, mut dead, mut next) = (Sum::default(), Sum::default(), known);
    for row in transaction.open_table(INBOX)?.iter()? {
        let (number, written) = row?;
        let (number, written) = (number.value(), written.value());
        waiting.add(written.len());
        next = next.max(number + 1);
        if number < known {
            continue;
        }
        match Place::decode(written) {
            Some(place) => found.push(Found { number, place }),
            None => tracing::error!(
                number,
                "a message in the journal cannot be read; it stays there"
            ),
        }
    }
    for row in transaction.open_table(DEAD)?.iter()? {
        let (number, written) = row?;
        dead.add(written.value().len());
        next = next.max(number.value() + 1);
    }
    Ok((waiting, dead, found, next))
}

fn write_to(
    database: &Database,
    changes: &[Change<'_>],
    now: Timestamp,
    bounds: Bounds,
    (next, waiting, dead): &mut (u64, Sum, Sum),
) -> Result<(Vec<Changed>, Vec<Found>), JournalError> {
    let transaction = database.begin_write()?;
    let mut found = Vec::new();
    let changed = {
        let mut tables = Tables::open(&transaction)?;
        let mut pen = Pen {
            next,
            waiting,
            dead,
            bounds,
            now,
            found: &mut found,
        };
        tables.forget(now)?;
        let changed: Result<Vec<_>, JournalError> = changes
            .iter()
            .map(|change| pen.make(change, &mut tables))
            .collect();
        changed?
    };
    transaction.commit()?;
    Ok((changed, found))
}

struct Tables<'t> {
    inbox: Table<'t, u64, &'static [u8]>,
    dead: Table<'t, u64, &'static [u8]>,
    seen: Table<'t, &'static [u8; 16], (u64, [u8; 16])>,
    forgotten: Table<'t, (u64, [u8; 16]), ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, JournalError> {
        Ok(Self {
            inbox: transaction.open_table(INBOX)?,
            dead: transaction.open_table(DEAD)?,
            seen: transaction.open_table(SEEN)?,
            forgotten: transaction.open_table(FORGOTTEN)?,
        })
    }

    /// Takes out what need not be remembered any more.
    fn forget(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let mut excess = self.seen.len()?.saturating_sub(MOST_SEEN);
        for _ in 0..FORGET_AT_ONCE {
            let first = self.forgotten.first()?.map(|(key, _)| key.value());
            let Some((until, key)) = first else { break };
            if until > now.as_millis() && excess == 0 {
                break;
            }
            excess = excess.saturating_sub(1);
            self.forgotten.remove((until, key))?;
            self.seen.remove(&key)?;
        }
        Ok(())
    }

    /// With which message a key was seen.
    fn seen_with(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<[u8; 16]>, JournalError> {
        let seen = self.seen.get(key)?.map(|seen| seen.value());
        Ok(seen
            .filter(|(until, _)| *until > now.as_millis())
            .map(|(_, with)| with))
    }

    fn remember(
        &mut self,
        key: [u8; 16],
        with: [u8; 16],
        now: Timestamp,
        window: Duration,
    ) -> Result<(), JournalError> {
        let until = now.plus(window).as_millis();
        let before = self
            .seen
            .insert(&key, (until, with))?
            .map(|before| before.value().0);
        if let Some(before) = before {
            self.forgotten.remove((before, key))?;
        }
        self.forgotten.insert((until, key), ())?;
        Ok(())
    }
}

/// Makes changes within one commit.
struct Pen<'a> {
    next: &'a mut u64,
    waiting: &'a mut Sum,
    dead: &'a mut Sum,
    bounds: Bounds,
    now: Timestamp,
    found: &'a mut Vec<Found>,
}

impl Pen<'_> {
    fn make(
        &mut self,
        change: &Change<'_>,
        tables: &mut Tables<'_>,
    ) -> Result<Changed, JournalError> {
        match change {
            Change::Put(put) => self.put(put, tables).map(Changed::Put),
            Change::Settle(number) => {
                if let Some(written) = tables.inbox.remove(number)? {
                    self.waiting.sub(written.value().len());
                }
                Ok(Changed::Settled)
            }
            Change::Bury(number, death) => {
                self.bury(*number, death, tables)?;
                Ok(Changed::Settled)
            }
            Change::Revive(which) => self.revive(which, tables),
            Change::Drop(which) => self.drop(which, tables),
        }
    }

    fn put(
        &mut self,
        put: &Put,
        tables: &mut Tables<'_>,
    ) -> Result<Result<Accepted, NotStored>, JournalError> {
        if let Some((nonce, _)) = &put.nonce
            && let Some(with) = tables.seen_with(nonce, self.now)?
            && with != put.identity
        {
            return Ok(Ok(Accepted::Replayed));
        }
        if tables.seen_with(&put.identity, self.now)?.is_some() {
            return Ok(Ok(Accepted::Duplicate));
        }
        let written = put.entry.encode();
        if self.waiting.count >= self.bounds.count
            || self.waiting.bytes + written.len() as u64 > self.bounds.bytes
        {
            return Ok(Err(NotStored::Full));
        }
        tables.remember(put.identity, put.identity, self.now, put.window)?;
        if let Some((nonce, window)) = &put.nonce {
            tables.remember(*nonce, put.identity, self.now, *window)?;
        }
        let number = self.insert(&written, tables)?;
        Ok(Ok(Accepted::New(number)))
    }

    fn insert(&mut self, written: &[u8], tables: &mut Tables<'_>) -> Result<u64, JournalError> {
        let number = *self.next;
        *self.next += 1;
        tables.inbox.insert(number, written)?;
        self.waiting.add(written.len());
        Ok(number)
    }

    fn bury(
        &mut self,
        number: u64,
        death: &Death,
        tables: &mut Tables<'_>,
    ) -> Result<(), JournalError> {
        let taken = tables
            .inbox
            .remove(number)?
            .map(|written| written.value().to_vec());
        let Some(written) = taken else {
            return Ok(());
        };
        self.waiting.sub(written.len());
        let Some(mut entry) = Entry::decode(&written) else {
            return Ok(());
        };
        entry.head.death = Some(death.clone());
        let written = entry.encode();
        self.dead.add(written.len());
        tables.dead.insert(number, written.as_slice())?;
        while self.dead.count > self.bounds.count || self.dead.bytes > self.bounds.bytes {
            let Some((number, lost)) = tables.dead.pop_first()? else {
                break;
            };
            self.dead.sub(lost.value().len());
            tracing::error!(
                number = number.value(),
                "the oldest dead letter makes room for a new one"
            );
        }
        Ok(())
    }

    fn revive(&mut self, which: &Which, tables: &mut Tables<'_>) -> Result<Changed, JournalError> {
        let chosen = chosen(which, &tables.dead)?;
        let mut count = 0;
        for number in chosen {
            let taken = tables
                .dead
                .remove(number)?
                .map(|written| written.value().to_vec());
            let Some(written) = taken else { continue };
            self.dead.sub(written.len());
            let Some(mut entry) = Entry::decode(&written) else {
                continue;
            };
            entry.head.death = None;
            entry.head.queued = self.now.as_millis();
            let number = self.insert(&entry.encode(), tables)?;
            self.found.push(Found {
                number,
                place: entry.head.place(),
            });
            count += 1;
        }
        Ok(Changed::Letters(count, Vec::new()))
    }

    fn drop(&mut self, which: &Which, tables: &mut Tables<'_>) -> Result<Changed, JournalError> {
        let mut count = 0;
        for number in chosen(which, &tables.dead)? {
            if let Some(written) = tables.dead.remove(number)? {
                self.dead.sub(written.value().len());
                count += 1;
            }
        }
        let mut waited = Vec::new();
        if let Which::Id(_) = which {
            for number in chosen(which, &tables.inbox)? {
                if let Some(written) = tables.inbox.remove(number)? {
                    self.waiting.sub(written.value().len());
                    waited.push(number);
                    count += 1;
                }
            }
        }
        Ok(Changed::Letters(count, waited))
    }
}

/// The numbers of the letters that are meant.
fn chosen(which: &Which, table: &Table<'_, u64, &'static [u8]>) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for row in table.iter()? {
        let (number, written) = row?;
        let meant = match which {
            Which::All => true,
            Which::Id(id) => Head::decode(written.value()).is_some_and(|head| head.id == *id),
        };
        if meant {
            numbers.push(number.value());
        }
    }
    Ok(numbers)
}

/// What a process that is not running has left in its journal, for whoever asks on the command line.
pub(crate) fn read_only(directory: &Path, dead: bool) -> Result<Vec<Letter>, JournalError> {
    let path = directory.join(FILE);
    if !path.exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no journal").into());
    }
    let bounds = Bounds {
        count: usize::MAX,
        bytes: u64::MAX,
    };
    let (journal, _) = Journal::open(Some(directory), true, bounds)?;
    journal.list(dead, 0, usize::MAX)
}

impl Sum {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }

    fn sub(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}
