//! The inbox of one process.
//!
//! One thread owns the journal, takes what all workers bring, writes it in one commit, and only then tells them that it is
//! safe, and the delivery that it is there. So fsync costs one for many, the order of messages is the order of commits,
//! and no lock is held while the disk is waited for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::journal::{Change, Changed, Found, Journal, JournalError};
use super::{
    Accepted, AnswerTo, Bounds, Fetched, KEPT_IN_MEMORY, Letter, News, NotStored, Outlet, Put,
    Seen, Waiting, Which,
};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::push::entry::Death;

/// How many tasks go into one commit.
const MOST_AT_ONCE: usize = 512;
/// How long a journal that failed is left alone before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long nothing has to come before room is given back.
const IDLE: Duration = Duration::from_secs(30);

/// The inbox, as all threads see it.
pub(crate) struct Local {
    tasks: Option<mpsc::Sender<Task>>,
    outlet: Outlet,
    thread: Option<JoinHandle<()>>,
    durable: bool,
}

/// What the thread is asked for.
enum Task {
    Put(Put, oneshot::Sender<Result<Accepted, NotStored>>),
    Settle(u64),
    Bury(u64, Death),
    Revive(Which, oneshot::Sender<Result<usize, String>>),
    Drop(Which, oneshot::Sender<Result<usize, String>>),
    Fetch(Vec<u64>, oneshot::Sender<Fetched>),
    List {
        dead: bool,
        from: u64,
        most: usize,
        done: oneshot::Sender<Result<Vec<Letter>, String>>,
    },
}

impl Local {
    /// Opens the journal and starts its thread. What waited in it will be delivered.
    ///
    /// # Errors
    /// If the journal cannot be opened, or the thread not be made.
    pub(super) fn open(push: &config::Push, clock: Clock) -> Result<Self, JournalError> {
        let bounds = Bounds {
            count: push.max_waiting,
            bytes: push.max_bytes,
        };
        let began = Instant::now();
        let place = push.journal.as_deref();
        let (journal, found) = Journal::open(place, push.fsync, bounds)
            .map_err(|error| place.into_iter().fold(error, JournalError::at))?;
        if push.journal.is_some() {
            let (waiting, dead) = (found.len(), journal.dead().count);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::info!(waiting, dead, micros, "push: the journal is open");
        } else {
            tracing::info!(
                "push: messages wait in memory; a restart loses those that the app has not accepted ([push] journal)"
            );
        }
        let (tasks, inbox) = mpsc::channel();
        let (announce, news) = unbounded_channel();
        let seen = Arc::<Seen>::default();
        let keeper = Keeper {
            journal,
            tasks: inbox,
            announce,
            seen: Arc::clone(&seen),
            clock: clock.clone(),
            undone: Vec::new(),
            tried: None,
        };
        keeper.tell();
        let thread = thread::Builder::new()
            .name("wx-journal".to_owned())
            .spawn(move || {
                keeper.run(found);
            })?;
        Ok(Self {
            tasks: Some(tasks),
            outlet: Outlet::new(news, seen, clock),
            thread: Some(thread),
            durable: push.journal.is_some(),
        })
    }

    /// Whether what waits survives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(super) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Makes a message safe. It is, when this has returned `New`.
    pub(super) async fn put(&self, put: Put) -> Result<Accepted, NotStored> {
        let (done, outcome) = oneshot::channel();
        self.ask(Task::Put(put, done));
        outcome
            .await
            .unwrap_or_else(|_| Err(NotStored::Failed(gone())))
    }

    /// The app has a message.
    pub(super) fn settle(&self, number: u64) {
        self.ask(Task::Settle(number));
    }

    /// The app will not have a message.
    pub(super) fn bury(&self, number: u64, death: Death) {
        self.ask(Task::Bury(number, death));
    }

    /// Has dead letters delivered again; how many.
    pub(super) async fn revive(&self, which: Which) -> Result<usize, String> {
        let (done, outcome) = oneshot::channel();
        self.ask(Task::Revive(which, done));
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Throws dead letters away, or the messages of one id; how many.
    pub(super) async fn drop_letters(&self, which: Which) -> Result<usize, String> {
        let (done, outcome) = oneshot::channel();
        self.ask(Task::Drop(which, done));
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Messages that are not in memory.
    pub(super) async fn fetch(&self, numbers: Vec<u64>) -> Fetched {
        let (done, outcome) = oneshot::channel();
        self.ask(Task::Fetch(numbers, done));
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Letters from a number on.
    pub(super) async fn list(
        &self,
        dead: bool,
        from: u64,
        most: usize,
    ) -> Result<Vec<Letter>, String> {
        let (done, outcome) = oneshot::channel();
        self.ask(Task::List {
            dead,
            from,
            most,
            done,
        });
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    fn ask(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // The thread ends only with us or by a panic; who waits for an answer learns of that.
            let _gone = tasks.send(task);
        }
    }
}

/// So that the file is closed in order, which spares the next start a look at all of it.
impl Drop for Local {
    fn drop(&mut self) {
        self.tasks = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

/// The thread that owns the journal.
struct Keeper {
    journal: Journal,
    tasks: mpsc::Receiver<Task>,
    announce: UnboundedSender<News>,
    seen: Arc<Seen>,
    clock: Clock,
    /// What the app has, or will not have, and the journal could not be told yet.
    undone: Vec<Task>,
    /// When the journal last failed.
    tried: Option<Instant>,
}

impl Keeper {
    fn run(mut self, found: Vec<Found>) {
        self.announce_found(found);
        let mut idle_since = None;
        loop {
            let patience = if self.undone.is_empty() { IDLE } else { PAUSE };
            let first = match self.tasks.recv_timeout(patience) {
                Ok(task) => task,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.write(Vec::new());
                    if idle_since.replace(Instant::now()).is_none()
                        && let Err(error) = self.journal.compact_if_worthwhile()
                    {
                        tracing::warn!(%error, "push: the journal cannot be made smaller");
                    }
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            idle_since = None;
            let mut tasks = vec![first];
            while tasks.len() < MOST_AT_ONCE {
                match self.tasks.try_recv() {
                    Ok(task) => tasks.push(task),
                    Err(_) => break,
                }
            }
            self.serve(tasks);
        }
        self.write(Vec::new());
        if !self.undone.is_empty() {
            let messages = self.undone.len();
            tracing::error!(
                messages,
                "push: the app has these and the journal does not know; they will be delivered again"
            );
        }
    }

    fn serve(&mut self, tasks: Vec<Task>) {
        let (reading, writing): (Vec<_>, Vec<_>) = tasks
            .into_iter()
            .partition(|task| matches!(task, Task::Fetch(..) | Task::List { .. }));
        if !writing.is_empty() {
            self.write(writing);
        }
        for task in reading {
            self.read(task);
        }
    }

    fn read(&mut self, task: Task) {
        // Whoever asked may be gone; then nobody needs the answer.
        match task {
            Task::Fetch(numbers, done) => {
                let _gone = done.send(
                    self.journal
                        .fetch(&numbers)
                        .map_err(|error| error.to_string()),
                );
            }
            Task::List {
                dead,
                from,
                most,
                done,
            } => {
                let letters = self.journal.list(dead, from, most);
                let _gone = done.send(letters.map_err(|error| error.to_string()));
            }
            _ => {}
        }
    }

    /// Writes all that is to be written, and then tells everybody.
    ///
    /// What could not be written before goes by itself: it makes room, and on a full disk new messages would keep it from that.
    fn write(&mut self, tasks: Vec<Task>) {
        let undone = std::mem::take(&mut self.undone);
        self.commit(undone);
        self.commit(tasks);
    }

    fn commit(&mut self, all: Vec<Task>) {
        if all.is_empty() {
            return;
        }
        if let Err(error) = self.ensure_open() {
            return self.fail(all, &error.to_string());
        }
        let changes: Vec<_> = all.iter().filter_map(Task::change).collect();
        match self.journal.write(&changes, self.clock.now()) {
            Ok((changed, found)) => {
                self.recovered();
                self.tell();
                for (task, changed) in all.into_iter().zip(changed) {
                    self.done(task, changed);
                }
                self.announce_found(found);
            }
            Err(error) => {
                self.tried = Some(Instant::now());
                self.fail(all, &error.to_string());
            }
        }
    }

    fn ensure_open(&mut self) -> Result<(), JournalError> {
        if self.journal.is_open() {
            return Ok(());
        }
        if self.tried.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(std::io::Error::other("it failed a moment ago").into());
        }
        self.tried = Some(Instant::now());
        let found = self.journal.reopen()?;
        self.announce_found(found);
        Ok(())
    }

    fn done(&self, task: Task, changed: Changed) {
        match (task, changed) {
            (Task::Put(put, done), Changed::Put(outcome)) => {
                if let Ok(Accepted::New(number)) = outcome {
                    let kept = self.journal.waiting().bytes < KEPT_IN_MEMORY;
                    self.news(News::Arrived(Waiting {
                        number,
                        lane: put.entry.head.lane,
                        queued: Timestamp::from_millis(put.entry.head.queued),
                        entry: kept.then_some(put.entry),
                        answer: put.answer.map(AnswerTo::Here),
                        attempts: 0,
                        refusals: 0,
                    }));
                }
                let _gone = done.send(outcome);
            }
            (Task::Revive(_, done) | Task::Drop(_, done), Changed::Letters(count, waited)) => {
                for number in waited {
                    self.news(News::Dropped(number));
                }
                let _gone = done.send(Ok(count));
            }
            _ => {}
        }
    }

    /// Nothing was written: whoever brings a message keeps it, and what has been delivered is written later.
    fn fail(&mut self, tasks: Vec<Task>, error: &str) {
        if !self.seen.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                error,
                "push: the journal cannot be written to; messages are not acknowledged, so that WeChat keeps them"
            );
        }
        for task in tasks {
            match task {
                Task::Put(_, done) => {
                    let _gone = done.send(Err(NotStored::Failed(error.to_owned())));
                }
                Task::Revive(_, done) | Task::Drop(_, done) => {
                    let _gone = done.send(Err(error.to_owned()));
                }
                later => self.undone.push(later),
            }
        }
    }

    fn recovered(&self) {
        if self.seen.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("push: the journal can be written to again");
        }
    }

    fn tell(&self) {
        let (waiting, dead) = (self.journal.waiting(), self.journal.dead());
        self.seen.waiting.store(waiting.count, Ordering::Relaxed);
        self.seen.bytes.store(waiting.bytes, Ordering::Relaxed);
        self.seen.dead.store(dead.count, Ordering::Relaxed);
    }

    fn announce_found(&self, found: Vec<Found>) {
        for found in found {
            self.news(News::Arrived(Waiting {
                number: found.number,
                lane: found.place.lane,
                queued: Timestamp::from_millis(found.place.queued),
                entry: None,
                answer: None,
                attempts: 0,
                refusals: 0,
            }));
        }
    }

    fn news(&self, news: News) {
        // Nobody delivers any more: the sidecar is ending, and the journal keeps it.
        let _ending = self.announce.send(news);
    }
}

impl Task {
    fn change(&self) -> Option<Change<'_>> {
        match self {
            Self::Put(put, _) => Some(Change::Put(put)),
            Self::Settle(number) => Some(Change::Settle(*number)),
            Self::Bury(number, death) => Some(Change::Bury(*number, death)),
            Self::Revive(which, _) => Some(Change::Revive(which)),
            Self::Drop(which, _) => Some(Change::Drop(which)),
            Self::Fetch(..) | Self::List { .. } => None,
        }
    }
}

fn gone() -> String {
    "the journal's thread is gone".to_owned()
}
