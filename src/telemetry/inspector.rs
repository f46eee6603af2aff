//! The inspector's memory: what went through the sidecar lately, with heads and the beginnings of bodies, for the page of
//! the admin side.
//!
//! Whoever takes part in an exchange [`note`]s what happened, and need not know whether anybody looks: what is watched is what
//! the task is at, as it is with spans ([`within`], [`carried`]). Where nothing is watched, a note costs a look at one cell of the
//! thread.
//!
//! All there is has a bound in bytes, [`BUDGET`]; the oldest gives way to the newest. What is secret is masked when it is told
//! ([`mask`]), because only then a name and its value are sure to be together.

mod kept;
mod mask;
mod rates;
mod record;
mod told;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use pin_project_lite::pin_project;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::crypto;
use kept::Budget;
use rates::Rates;

pub(crate) use record::{Attempt, Began, Came, Ended, Kind, Legs, Record, WechatCall};
pub(crate) use told::Names;

/// How many bytes are kept in all.
const BUDGET: usize = 16 * 1024 * 1024;
/// How many exchanges are, and how few however large they are.
const MOST: usize = 500;
const LEAST: usize = 50;
/// How many are told at once.
const MOST_TOLD: usize = 200;

thread_local! {
    /// Whether there is something in `CURRENT`. Apart, because it has no destructor and so is one load.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// What the task that runs is at, if it is watched.
    static CURRENT: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// Watches, if it is switched on. All that is cloned from one is one.
#[derive(Clone, Default)]
pub(crate) struct Inspector(Arc<ArcSwapOption<Memory>>);

/// What has been seen since it was switched on.
struct Memory {
    /// Another one for each memory, so that a page knows that what it has is no more.
    boot: String,
    budget: Arc<Budget>,
    /// Guards the list; held for a walk through it at the most. What is known of one item may be locked meanwhile, and never the
    /// other way round.
    list: Mutex<List>,
    /// Guards sums of a minute; held for an addition.
    rates: Mutex<Rates>,
    /// The number of the last change.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct List {
    last: u64,
    items: VecDeque<Arc<Item>>,
}

/// An exchange, or a message.
struct Item {
    id: u64,
    /// The number of its last change.
    changed: AtomicU64,
    /// Which message it is, if it is one.
    message: Option<String>,
    /// Guards what is known of it; held for a few lines, or to copy it.
    record: Mutex<Record>,
}

/// Something that is watched while it goes on.
#[derive(Clone)]
pub(crate) struct Watched {
    memory: Arc<Memory>,
    item: Arc<Item>,
}

/// Ends what is watched, if it is given up before somebody has.
pub(crate) struct Ending(pub(crate) Watched, pub(crate) std::time::Instant);

impl Inspector {
    /// Switches it on or off. What was seen is forgotten when it is switched off.
    pub(crate) fn switch(&self, on: bool) {
        if on != self.is_on() {
            self.begin_anew(on);
        }
    }

    fn is_on(&self) -> bool {
        self.0.load().is_some()
    }

    fn begin_anew(&self, on: bool) {
        let old = self.0.swap(on.then(|| Arc::new(Memory::new())));
        if let Some(old) = old {
            // What goes on holds on to the memory.
            lock(&old.list).forget();
            // Whoever waits for what happens next hears that nothing does.
            old.changes.send_modify(|last| *last += 1);
        }
    }

    /// Begins to watch something, if it is switched on.
    pub(crate) fn watch(&self, began: impl FnOnce() -> Began) -> Option<Watched> {
        let memory = self.0.load_full()?;
        let record = Record::new(began(), &memory.budget);
        Some(memory.add(record))
    }

    /// A message has come, or is tried again: what is known of it, and of its attempts.
    pub(crate) fn message(&self, came: &Came<'_>, change: impl FnOnce(&mut Record)) {
        let Some(memory) = self.0.load_full() else {
            return;
        };
        let watched = memory.find_or_add(came);
        watched.note(change);
        watched.tell();
    }

    /// What became of a message that is known.
    pub(crate) fn came_to(&self, message: &str, outcome: &'static str) {
        if let Some(memory) = self.0.load_full()
            && let Some(item) = { lock(&memory.list).message(message) }
        {
            let watched = Watched { memory, item };
            watched.note(|record| record.came_to(outcome));
            watched.tell();
        }
    }

    /// The message of an exchange, as it was stored.
    pub(crate) fn stored(&self, id: u64) -> Option<Bytes> {
        let item = self.item(id)?;
        let record = lock(&item.record);
        record.stored()
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        if self.is_on() {
            self.begin_anew(true);
        }
    }

    /// What has changed since a change of that number in the memory of that name, at once or when something does, but not later
    /// than `patience`. `None` if it is switched off.
    pub(crate) async fn changes(
        &self,
        (boot, since): (Option<&str>, u64),
        patience: Duration,
        names: &Names<'_>,
    ) -> Option<Value> {
        let memory = self.0.load_full()?;
        if boot.is_none_or(|boot| boot == memory.boot) {
            memory.wait(since, patience).await;
        }
        Some(memory.told(since, names))
    }

    /// All that is known of one.
    pub(crate) fn detail(&self, id: u64, names: &Names<'_>) -> Option<Value> {
        let item = self.item(id)?;
        // To mask takes long, for which whoever works must not wait.
        let record = lock(&item.record).clone();
        let mut detail = told::detail(&record, names);
        item.number(&mut detail);
        Some(detail)
    }

    /// The last minute, second by second.
    pub(crate) fn rates(&self) -> Value {
        match self.0.load_full() {
            Some(memory) => lock(&memory.rates).told(second()),
            None => Value::Null,
        }
    }

    fn item(&self, id: u64) -> Option<Arc<Item>> {
        let memory = self.0.load_full()?;
        let list = lock(&memory.list);
        list.items.iter().find(|item| item.id == id).cloned()
    }
}

impl Memory {
    fn new() -> Self {
        Self {
            boot: format!("{:016x}", u64::from_be_bytes(crypto::random())),
            budget: Arc::default(),
            list: Mutex::default(),
            rates: Mutex::new(Rates::new(second())),
            changes: watch::Sender::new(0),
        }
    }

    fn add(self: Arc<Self>, record: Record) -> Watched {
        let item = lock(&self.list).add(record, &self.budget);
        let watched = Watched { memory: self, item };
        watched.tell();
        watched
    }

    /// The message, which may be told of by two at once.
    fn find_or_add(self: Arc<Self>, came: &Came<'_>) -> Watched {
        let mut list = lock(&self.list);
        let item = match list.message(came.id) {
            Some(item) => item,
            None => list.add(Record::message(came, &self.budget), &self.budget),
        };
        drop(list);
        Watched { memory: self, item }
    }

    /// Until something changes that came after `since`, or patience ends. It gives nothing back: what the channel gives holds its
    /// lock, for which whoever works would have to wait.
    async fn wait(&self, since: u64, patience: Duration) {
        let mut news = self.changes.subscribe();
        let waiting = news.wait_for(|last| *last != since);
        drop(tokio::time::timeout(patience, waiting).await);
    }

    fn told(&self, since: u64, names: &Names<'_>) -> Value {
        // Before the list: what changes meanwhile is told twice rather than never.
        let last = *self.changes.borrow();
        let (items, oldest) = {
            let list = lock(&self.list);
            let changed = |item: &&Arc<Item>| item.changed.load(Ordering::Relaxed) > since;
            let items: Vec<_> = list.items.iter().filter(changed).cloned().collect();
            let oldest = list.items.front().map_or(list.last + 1, |item| item.id);
            (items, oldest)
        };
        let mut items: Vec<_> = items
            .into_iter()
            .map(|item| (item.changed.load(Ordering::Relaxed), item))
            .collect();
        items.sort_by_key(|(changed, _)| *changed);
        let is_all = items.len() <= MOST_TOLD;
        items.truncate(MOST_TOLD);
        let seq = match items.last() {
            Some((changed, _)) if !is_all => *changed,
            _ => last,
        };
        let entries: Vec<_> = items
            .into_iter()
            .map(|(_, item)| {
                let mut summary = told::summary(&lock(&item.record), names);
                item.number(&mut summary);
                summary
            })
            .collect();
        json!({ "boot": self.boot, "seq": seq, "oldest": oldest, "entries": entries })
    }
}

impl List {
    fn add(&mut self, record: Record, budget: &Budget) -> Arc<Item> {
        // A few are kept even then, and what is new gets along with what is left.
        while self.items.len() >= MOST || (budget.is_tight() && self.items.len() > LEAST) {
            if let Some(oldest) = self.items.pop_front() {
                lock(&oldest.record).forget();
            }
        }
        self.last += 1;
        let item = Arc::new(Item {
            id: self.last,
            changed: AtomicU64::new(0),
            message: record.message_id().map(str::to_owned),
            record: Mutex::new(record),
        });
        self.items.push_back(Arc::clone(&item));
        item
    }

    fn message(&self, id: &str) -> Option<Arc<Item>> {
        let mut items = self.items.iter().rev();
        items
            .find(|item| item.message.as_deref() == Some(id))
            .cloned()
    }

    fn forget(&mut self) {
        for item in self.items.drain(..) {
            lock(&item.record).forget();
        }
    }
}

impl Item {
    fn number(&self, told: &mut Value) {
        told["id"] = self.id.into();
        told["seq"] = self.changed.load(Ordering::Relaxed).into();
    }
}

impl Watched {
    /// Remembers something of it.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut lock(&self.item.record));
    }

    /// It has ended.
    pub(crate) fn end(&self, ended: Ended<'_>) {
        let kind = lock(&self.item.record).kind();
        // A tunnel's life is no time that anybody waited.
        if let (Kind::Request, Some(status)) = (kind, ended.status.filter(|it| *it != 101)) {
            lock(&self.memory.rates).add(second(), status, ended.took);
        }
        self.note(|record| record.end(ended));
        self.tell();
    }

    /// Tells whoever looks that there is something new.
    pub(crate) fn tell(&self) {
        self.memory.changes.send_modify(|last| {
            *last += 1;
            self.item.changed.store(*last, Ordering::Relaxed);
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Self(watched, began) = self;
        if !lock(&watched.item.record).has_ended() {
            watched.end(Ended {
                took: began.elapsed(),
                ..Ended::default()
            });
        }
    }
}

/// Whether what this task is at is watched.
pub(crate) fn is_watched() -> bool {
    WATCHED.get()
}

/// Remembers something of what this task is at, if that is watched.
pub(crate) fn note(change: impl FnOnce(&mut Record)) {
    if !WATCHED.get() {
        return;
    }
    CURRENT.with_borrow(|current| {
        if let Some(watched) = current {
            watched.note(change);
        }
    });
}

/// `work`, which belongs to what is watched, if something is.
pub(crate) fn within<F: Future>(watched: Option<Watched>, work: F) -> Within<F> {
    Within { watched, work }
}

/// `work` for another task, which belongs to what this one is at.
pub(crate) fn carried<F: Future>(work: F) -> Within<F> {
    let watched = match WATCHED.get() {
        true => CURRENT.with_borrow(Clone::clone),
        false => None,
    };
    within(watched, work)
}

pin_project! {
    /// Work that may be watched.
    pub(crate) struct Within<F> {
        watched: Option<Watched>,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.watched.as_ref().map(Entered::new);
        this.work.poll(cx)
    }
}

/// While it lives, the thread is at something that is watched. A panic ends it as well.
struct Entered(Option<Watched>);

impl Entered {
    fn new(watched: &Watched) -> Self {
        WATCHED.set(true);
        Self(CURRENT.replace(Some(watched.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        WATCHED.set(self.0.is_some());
        CURRENT.set(self.0.take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The second that it is now.
fn second() -> u64 {
    since_epoch().as_secs()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn request(target: &str) -> Began {
        Began {
            kind: Kind::Request,
            method: "GET".to_owned(),
            target: target.to_owned(),
            protocol: "HTTP/1.1",
            request_id: String::new(),
            trace: String::new(),
            client: None,
            fields: Vec::new(),
        }
    }

    fn told(inspector: &Inspector) -> Value {
        let memory = inspector.0.load_full().expect("it is on");
        memory.told(0, &Names::Openids)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_a_change_and_of_the_end_of_what_was_remembered() {
        let inspector = Inspector::default();
        let patience = Duration::from_secs(20);
        let nobody = inspector
            .changes((None, 0), patience, &Names::Openids)
            .await;
        assert!(nobody.is_none(), "it is off");
        inspector.switch(true);
        let began = Instant::now();
        let first = inspector
            .changes((None, 0), patience, &Names::Openids)
            .await;
        assert_eq!(first.expect("it is on")["entries"], json!([]));
        assert_eq!(began.elapsed(), patience);
        for change in [
            |inspector: &Inspector| drop(inspector.watch(|| request("/a"))),
            Inspector::clear,
            |inspector: &Inspector| inspector.switch(false),
        ] {
            let began = Instant::now();
            let since = told(&inspector)["seq"].as_u64().expect("a number");
            let waiting = inspector.changes((None, since), patience, &Names::Openids);
            let (heard, ()) = tokio::join!(waiting, async { change(&inspector) });
            assert!(heard.is_some());
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
        inspector.switch(true);
        let since = told(&inspector)["seq"].as_u64().expect("a number");
        let began = Instant::now();
        let of_another = (Some("another"), since);
        inspector
            .changes(of_another, patience, &Names::Openids)
            .await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        inspector.switch(false);
        assert!(inspector.watch(|| request("/b")).is_none());
    }

    #[test]
    fn whoever_looks_holds_up_nobody_who_works() {
        let inspector = Inspector::default();
        inspector.switch(true);
        let (done, all) = std::sync::mpsc::channel();
        let watched = inspector.watch(|| request("/a")).expect("it is on");
        for _ in 0..2 {
            let (watched, done) = (watched.clone(), done.clone());
            std::thread::spawn(move || {
                for _ in 0..100_000 {
                    watched.tell();
                }
                done.send(()).expect("somebody waits for it");
            });
        }
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            for _ in 0..5_000 {
                let patience = Duration::from_millis(1);
                runtime.block_on(inspector.changes((None, 0), patience, &Names::Openids));
            }
            done.send(()).expect("somebody waits for it");
        });
        for _ in 0..3 {
            all.recv_timeout(Duration::from_secs(120))
                .expect("nobody hinders the others");
        }
    }

    #[test]
    fn what_goes_on_gives_back_what_it_has_kept_when_it_is_forgotten() {
        let inspector = Inspector::default();
        inspector.switch(true);
        let tunnel = || {
            let watched = inspector.watch(|| request("/ws")).expect("it is on");
            watched.note(|record| record.received(0, &[1; 16 * 1024]));
            watched
        };
        let first = tunnel();
        let memory = Arc::clone(&first.memory);
        let one = memory.budget.used();
        assert!(one > 16 * 1024);
        // As many as push it out of the list.
        let others: Vec<_> = (0..MOST).map(|_| tunnel()).collect();
        assert!(memory.budget.used() <= one * MOST);
        first.note(|record| record.answering(101));
        first.note(|record| record.answer_body(&[1; 16 * 1024]));
        assert!(memory.budget.used() <= one * MOST);
        inspector.clear();
        assert_eq!(memory.budget.used(), 0, "and {} go on", others.len());
        others[0].note(|record| record.received(16 * 1024, b"more"));
        assert_eq!(memory.budget.used(), 0);
    }

    #[test]
    fn the_life_of_a_tunnel_is_no_time_that_a_request_took() {
        let inspector = Inspector::default();
        inspector.switch(true);
        for status in [101, 200] {
            let watched = inspector.watch(|| request("/ws")).expect("it is on");
            watched.end(Ended {
                status: Some(status),
                took: Duration::from_secs(status.into()),
                ..Ended::default()
            });
        }
        let rates = inspector.rates();
        let slowest = rates["slowest_us"].as_array().expect("numbers").iter();
        assert_eq!(slowest.filter_map(Value::as_u64).max(), Some(200_000_000));
        let requests = rates["requests"].as_array().expect("numbers").iter();
        assert_eq!(requests.filter_map(Value::as_u64).sum::<u64>(), 1);
    }

    #[tokio::test]
    async fn a_note_is_of_what_the_task_is_at_and_of_nothing_else() {
        let inspector = Inspector::default();
        note(|_| panic!("nothing is watched"));
        inspector.switch(true);
        let (a, b) = (
            inspector.watch(|| request("/a")),
            inspector.watch(|| request("/b")),
        );
        let noted = |status| async move {
            note(|record| record.answering(status));
            tokio::task::yield_now().await;
            note(|record| record.answer_field(b"status", status.to_string().as_bytes()));
            // What somebody else does for it is noted as well.
            let other = carried(async move { note(|record| record.answer_body(b"carried")) });
            tokio::spawn(other).await.expect("it ends");
        };
        tokio::join!(
            within(a, noted(201)),
            within(None, async { note(|_| panic!("this is not watched")) }),
            within(b, noted(202)),
        );
        note(|_| panic!("nothing is watched any more"));
        for (id, status) in [(1, 201), (2, 202)] {
            let detail = inspector.detail(id, &Names::Openids).expect("it is kept");
            let answer = &detail["answer"];
            assert_eq!(answer["status"], status);
            assert_eq!(answer["fields"], json!([["status", status.to_string()]]));
            assert_eq!(answer["body"]["text"], "carried");
        }
    }
}
