//! The inbox that replicas share, in Redis.
//!
//! What waits stands in sixteen streams, by lane, and is there until the app has it: a stream holds what is not delivered, and
//! nothing else. Each stream is one replica's to deliver, by a lease, so that the order of a user's messages holds across
//! replicas; the others may put messages into it. Whoever gets a lease reads the stream from its beginning. So there is no
//! consumer group: its list of what is pending would say once more what the stream says, and keep no order.
//!
//! A replica that leaves ends what is under way and gives its leases back; one that dies loses them when they are over
//! ([`LEASE`]), and what it had under way is delivered again. All that has to be decided at once is a script
//! ([`scripts`]); what this replica may deliver at a moment is in [`holdings`].

mod answers;
mod holdings;
mod letters;
mod names;
mod scripts;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::{
    Accepted, Bounds, Fetched, KEPT_IN_MEMORY, News, NotStored, Outlet, Put, Seen, Waiting,
};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};
use crate::crypto;
use crate::push::entry::{Death, Entry};
use crate::redis_link::{Connection, Failure, Link, Pauses, reason};
use crate::resilience::panics::caught;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::store::StoreMetrics;
use answers::Answers;
use holdings::{Held, Holdings, Reading, Whereabouts};
use names::{Id, Names, PARTS, part_of};

/// How long a lease lasts; a replica that dies is missed after this.
const LEASE: Duration = Duration::from_secs(5);
/// How much earlier we take it for over than Redis does. Their clocks run alike, ours may stand still.
const MARGIN: Duration = Duration::from_millis(500);
/// How often leases are renewed, and how often if something is about to change.
const TEND: Duration = Duration::from_secs(1);
const TEND_SOON: Duration = Duration::from_millis(150);
/// How long Redis holds a question for new messages.
const WAIT: Duration = Duration::from_millis(250);
/// How long it may take over the answer: a page of large messages needs more than a command does.
const READING: Duration = Duration::from_secs(2);
/// Entries of a stream that are read at once.
const PAGE: usize = 32;
/// How many messages Redis is told of at once.
const MOST_AT_ONCE: usize = 128;
/// How long what could not be written is left alone.
const PAUSE: Duration = Duration::from_millis(250);
/// How long leases are given back at the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the key that proves a connection stays.
const PROBE_TTL: Duration = Duration::from_secs(60);

/// The way to Redis, and what this replica has of it.
pub(crate) struct Shared {
    link: Link,
    names: Names,
    /// This replica's name.
    me: String,
    /// Held for a few lines, never while anything is waited for.
    holdings: Mutex<Holdings>,
    /// What Redis is to be told, in order. As above.
    untold: Mutex<Vec<Untold>>,
    /// There is something to be told.
    told: Notify,
    /// Leases may have to be looked after.
    stirred: Notify,
    is_retiring: AtomicBool,
    /// Something could not be opened, and another key may open it.
    has_skipped: AtomicBool,
    must_reread: AtomicBool,
    answers: Answers,
    announce: UnboundedSender<News>,
    outlet: Outlet,
    metrics: StoreMetrics,
    bounds: Bounds,
}

/// What Redis does not know yet.
enum Untold {
    Settle(u64, Held),
    Bury(u64, Held, Death),
}

/// What tending says: our share, the sums, the parts that are still ours, those that are from now on, what was dropped.
type Tended = (usize, [i64; 4], Vec<usize>, Vec<usize>, Vec<String>);

/// As Redis has it: an id, and names and values in turn.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

impl Shared {
    /// Connects to nobody yet.
    pub(super) fn new(
        redis: &config::Redis,
        push: &config::Push,
        config: &Config,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let (announce, news) = unbounded_channel();
        let seen = Arc::<Seen>::default();
        // Until there is a connection.
        seen.failing.store(true, Ordering::Relaxed);
        Self {
            link: Link::new(redis),
            names: Names::new(config),
            me: crypto::hex(&crypto::random::<16>()),
            holdings: Mutex::default(),
            untold: Mutex::default(),
            told: Notify::new(),
            stirred: Notify::new(),
            is_retiring: AtomicBool::new(false),
            has_skipped: AtomicBool::new(false),
            must_reread: AtomicBool::new(false),
            answers: Answers::new(),
            announce,
            outlet: Outlet::new(news, seen, clock),
            metrics: StoreMetrics::register_for_push(metrics.registry()),
            bounds: Bounds {
                count: push.max_waiting,
                bytes: push.max_bytes,
            },
        }
    }

    /// Keeps the connection and the leases, and brings what is to be delivered, for as long as `delivering` takes. Then the
    /// leases are given back.
    pub(super) async fn keep(&self, delivering: impl Future<Output = ()>) {
        let background = async {
            while let Err(panicked) = caught(self.keep_on()).await {
                tracing::error!(what = "push", error = %panicked, "a background task panicked");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let whole = async {
            delivering.await;
            self.holdings().break_off();
            self.retire();
            let given_back = timeout(FAREWELL, self.given_back()).await;
            if given_back.is_err() {
                tracing::warn!(
                    "push: leases could not be given back; others deliver when they are over"
                );
            }
        };
        tokio::select! {
            () = whole => {}
            () = background => {}
        }
    }

    async fn keep_on(&self) {
        let probe = || {
            let name = self.names.of("probe", &[0; 16]);
            let mut probe = scripts::on(scripts::PROBE, [name.as_str()]);
            probe.arg(millis(PROBE_TTL));
            probe
        };
        tokio::join!(
            self.link.keep(probe, &self.metrics, || self.note_health()),
            self.tend(),
            self.read(),
            self.tell(),
            self.pass_answers_on(),
        );
    }

    /// Lets others deliver: what is under way here ends, and nothing else is begun.
    pub(super) fn retire(&self) {
        self.is_retiring.store(true, Ordering::Relaxed);
        self.stirred.notify_one();
    }

    /// Seals with the keys of this configuration from now on.
    pub(super) fn rekey(&self, config: &Config) {
        self.names.rekey(config);
        if self.has_skipped.swap(false, Ordering::Relaxed) {
            self.must_reread.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Makes a message safe, as safe as Redis keeps it.
    pub(super) async fn put(&self, put: Put) -> Result<Accepted, NotStored> {
        let names = &self.names;
        let stream = names.part(part_of(put.entry.head.lane));
        let seen = names.of("seen", &put.identity);
        let (nonce, nonce_window) = match put.nonce {
            Some((nonce, window)) => (names.of("nonce", &nonce), millis(window)),
            None => (names.of("nonce", &[0; 16]), 0),
        };
        let sealed = names.seal(stream, put.identity, put.answer.is_some(), &put.entry);
        let mut command = scripts::on(scripts::PUT, [&seen, &nonce, stream, &names.sums]);
        command.arg(&put.identity[..]).arg(millis(put.window));
        command.arg(nonce_window).arg(sealed).arg(names::mark());
        command.arg(self.bounds.count).arg(self.bounds.bytes);
        let accepted = match self.ask::<i64>("put", &command).await {
            Ok(-1) => return Ok(Accepted::Replayed),
            Ok(-2) => Accepted::Duplicate,
            Ok(-3) => return Err(NotStored::Full),
            Ok(number) => Accepted::New(u64::try_from(number).unwrap_or_default()),
            Err(why) => return Err(NotStored::Failed(why.to_owned())),
        };
        if let Some(answer) = put.answer {
            self.answers.expect(put.identity, answer);
        }
        Ok(accepted)
    }

    pub(super) fn settle(&self, number: u64) {
        if let Some(held) = self.holdings().done(number) {
            self.tell_later(Untold::Settle(number, held));
        }
    }

    pub(super) fn bury(&self, number: u64, death: Death) {
        if let Some(held) = self.holdings().done(number) {
            self.tell_later(Untold::Bury(number, held, death));
        }
    }

    pub(super) fn rest(&self, number: u64) {
        self.holdings().rest(number);
        self.stir_if_leaving();
    }

    /// Messages that are ours to deliver, from here or from Redis. What is not ours any more is not there.
    pub(super) async fn fetch(&self, numbers: Vec<u64>) -> Fetched {
        let mut fetched = Vec::with_capacity(numbers.len());
        for number in numbers {
            let whereabouts = self.holdings().begin_attempt(number, Instant::now());
            let entry = match whereabouts {
                Whereabouts::Here(entry) => Some(Arc::unwrap_or_clone(entry)),
                Whereabouts::Gone => None,
                Whereabouts::InRedis(part, id) => {
                    let entry = self.load(part, id).await?;
                    if entry.is_none() {
                        self.holdings().written(number);
                    }
                    entry
                }
            };
            fetched.push((number, entry));
        }
        Ok(fetched)
    }

    /// A message that stands in a stream.
    async fn load(&self, part: usize, id: Id) -> Result<Option<Entry>, String> {
        let stream = self.names.part(part);
        let mut range = redis::cmd("XRANGE");
        range.arg(stream).arg(id.to_string()).arg(id.to_string());
        let entries: Entries = self.ask("load", &range).await?;
        let sealed = entries.into_iter().next();
        let opened = sealed.and_then(|(_, fields)| self.names.open(stream, fields.get(1)?));
        Ok(opened.map(|opened| opened.entry))
    }

    /// Renews leases, and takes and gives up what the share says.
    async fn tend(&self) {
        loop {
            let now = Instant::now();
            let lost = self.holdings().expire(now);
            self.leave(&lost);
            let pause = match self.tend_once(now).await {
                Ok(true) => TEND_SOON,
                Ok(false) => TEND,
                Err(_) => PAUSE,
            };
            tokio::select! {
                () = self.stirred.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says whether something is about to change.
    async fn tend_once(&self, began: Instant) -> Result<bool, &'static str> {
        let names = &self.names;
        let is_retiring = self.is_retiring.load(Ordering::Relaxed);
        let keys = [&names.members, &names.dropped, &names.sums].map(String::as_str);
        let leases = names.leases().iter().map(String::as_str);
        let mut tend = scripts::on(scripts::TEND, keys.into_iter().chain(leases));
        tend.arg(&self.me).arg(millis(LEASE));
        tend.arg(u8::from(is_retiring));
        let (share, sums, kept, taken, dropped): Tended = self.ask("tend", &tend).await?;
        let changed = {
            let mut holdings = self.holdings();
            let mut changed =
                holdings.tended(&kept, &taken, began + LEASE - MARGIN, Instant::now());
            changed.extend(holdings.give_up_beyond(share));
            changed
        };
        self.leave(&changed);
        self.note_sums(sums);
        for dropped in dropped {
            self.hear_of_dropped(&dropped);
        }
        self.release().await?;
        let holdings = self.holdings();
        Ok(holdings.is_leaving_any() || holdings.parts() < share)
    }

    /// Gives leases back whose parts have nothing under way any more.
    async fn release(&self) -> Result<(), &'static str> {
        let finished = self.holdings().finished();
        if finished.is_empty() {
            return Ok(());
        }
        let leases = self.names.leases();
        let keys = finished.iter().map(|part| leases[*part].as_str());
        let mut release = scripts::on(scripts::RELEASE, keys);
        release.arg(&self.me);
        let _released: Value = self.ask("release", &release).await?;
        self.holdings().released(&finished);
        Ok(())
    }

    /// Returns when nothing is ours any more and Redis knows what there is to know.
    async fn given_back(&self) {
        loop {
            let is_over = self.holdings().parts() == 0 && self.untold().is_empty();
            if is_over {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Brings what is to be delivered, for ever.
    async fn read(&self) {
        let mut pauses = Pauses::new();
        loop {
            let began = Instant::now();
            if self.link.why_away().is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            if let Err(why) = self.read_on_one_connection().await {
                self.link.doubt();
                tracing::debug!(%why, "push: reading from Redis broke off");
                pauses.pause(began.elapsed()).await;
            }
        }
    }

    /// Ends well if another connection should be made.
    async fn read_on_one_connection(&self) -> Result<(), Cow<'static, str>> {
        let made = self.link.made();
        let connected = self.link.connect(WAIT + READING).await;
        let mut connection = connected.map_err(|error| reason(&error))?;
        self.reread();
        while self.link.made() == made {
            if self.must_reread.swap(false, Ordering::Relaxed) {
                self.reread();
            }
            let readings = self.holdings().to_read(Instant::now());
            if readings.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            for (reading, entries) in self.wait_for_news(&mut connection, &readings).await? {
                for (id, fields) in entries {
                    let id = Id::parse(&id).ok_or("this is not how we number entries")?;
                    self.take(&reading, id, &fields);
                }
            }
        }
        Ok(())
    }

    /// What is new in these streams, within a while.
    async fn wait_for_news(
        &self,
        connection: &mut Connection,
        readings: &[Reading],
    ) -> Result<Vec<(Reading, Entries)>, Cow<'static, str>> {
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT").arg(PAGE).arg("BLOCK").arg(millis(WAIT));
        wait.arg("STREAMS");
        for reading in readings {
            wait.arg(self.names.part(reading.part));
        }
        for reading in readings {
            wait.arg(reading.after.to_string());
        }
        let news: Option<Vec<(String, Entries)>> = ask(connection, &wait).await?;
        let with_reading = |(stream, entries): (String, Entries)| {
            let reading = readings
                .iter()
                .find(|reading| self.names.part(reading.part) == stream)?;
            Some((*reading, entries))
        };
        let news = news.into_iter().flatten();
        Ok(news.filter_map(with_reading).collect())
    }

    /// Takes an entry of a stream, and tells the delivery of it.
    fn take(&self, reading: &Reading, id: Id, fields: &[Vec<u8>]) {
        let sealed = fields.get(1).map(Vec::as_slice).unwrap_or_default();
        let opened = self.names.open(self.names.part(reading.part), sealed);
        let mut holdings = self.holdings();
        if !holdings.read(reading, id) {
            return;
        }
        let Some(opened) = opened else {
            drop(holdings);
            self.metrics.value_refused();
            self.has_skipped.store(true, Ordering::Relaxed);
            tracing::error!(
                part = reading.part,
                %id,
                "push: a message in Redis cannot be opened; it stays there"
            );
            return;
        };
        let entry = Arc::new(opened.entry);
        let number = holdings.take(
            (reading.part, id),
            sealed.len(),
            (opened.identity, opened.is_awaited),
            Arc::clone(&entry),
            KEPT_IN_MEMORY,
        );
        let Some(number) = number else { return };
        let answer = opened
            .is_awaited
            .then(|| self.answers.recipient(opened.identity));
        // Under the lock, so that what is told is told in order.
        self.announce(News::Arrived(Waiting {
            number,
            lane: entry.head.lane,
            queued: Timestamp::from_millis(entry.head.queued),
            entry: None,
            answer,
            attempts: 0,
            refusals: 0,
        }));
    }

    /// Begins all that is ours from the beginning.
    fn reread(&self) {
        let begun = self.holdings().begin_all();
        self.leave(&begun);
    }

    /// Has the delivery forget what waits of these parts.
    fn leave(&self, parts: &[usize]) {
        for part in parts {
            self.announce(News::Left {
                of: PARTS as u64,
                rest: *part as u64,
            });
        }
    }

    fn announce(&self, news: News) {
        // Nobody delivers any more: the sidecar is ending, and Redis keeps it.
        let _ending = self.announce.send(news);
    }

    fn hear_of_dropped(&self, dropped: &str) {
        let parse = || {
            let (part, id) = dropped.split_once(':')?;
            Some((part.parse().ok()?, Id::parse(id)?))
        };
        let Some((part, id)) = parse() else { return };
        if let Some(number) = self.holdings().dropped(part, id) {
            self.announce(News::Dropped(number));
        }
    }

    /// Tells Redis what has become of messages, for ever.
    async fn tell(&self) {
        loop {
            let batch: Vec<_> = {
                let mut untold = self.untold();
                let many = untold.len().min(MOST_AT_ONCE);
                untold.drain(..many).collect()
            };
            if batch.is_empty() {
                self.told.notified().await;
                continue;
            }
            let left = self.tell_of(batch).await;
            if !left.is_empty() {
                self.untold().splice(0..0, left);
                tokio::time::sleep(PAUSE).await;
            }
            self.stir_if_leaving();
        }
    }

    /// Gives back what could not be told.
    async fn tell_of(&self, batch: Vec<Untold>) -> Vec<Untold> {
        let (mut left, mut settled) = (Vec::new(), Vec::new());
        for untold in batch {
            match untold {
                Untold::Settle(number, held) => settled.push((number, held)),
                Untold::Bury(number, held, death) => match self.bury_now(&held, &death).await {
                    Ok(()) => self.holdings().written(number),
                    Err(_) => left.push(Untold::Bury(number, held, death)),
                },
            }
        }
        if settled.is_empty() {
            return left;
        }
        let parts = self.names.parts().iter().map(String::as_str);
        let keys = std::iter::once(self.names.sums.as_str()).chain(parts);
        let mut settle = scripts::on(scripts::SETTLE, keys);
        for (_, held) in &settled {
            settle
                .arg(held.part)
                .arg(held.id.to_string())
                .arg(held.size);
        }
        match self.ask::<Value>("settle", &settle).await {
            Ok(_) => {
                let mut holdings = self.holdings();
                for (number, _) in settled {
                    holdings.written(number);
                }
            }
            Err(_) => {
                let again = |(number, held)| Untold::Settle(number, held);
                left.extend(settled.into_iter().map(again));
            }
        }
        left
    }

    async fn bury_now(&self, held: &Held, death: &Death) -> Result<(), String> {
        let names = &self.names;
        let entry = match &held.entry {
            Some(entry) => Some(Entry::clone(entry)),
            None => self.load(held.part, held.id).await?,
        };
        let Some(mut entry) = entry else {
            return Ok(());
        };
        entry.head.death = Some(death.clone());
        let sealed = names.seal(&names.dead, held.identity, held.is_awaited, &entry);
        let keys = [names.part(held.part), &names.dead, &names.sums];
        let mut bury = scripts::on(scripts::BURY, keys);
        bury.arg(held.id.to_string()).arg(held.size).arg(sealed);
        bury.arg(names::mark());
        bury.arg(self.bounds.count).arg(self.bounds.bytes);
        let lost: u64 = self.ask("bury", &bury).await?;
        if lost > 0 {
            tracing::error!(
                lost,
                "push: the oldest dead letters make room for a new one"
            );
        }
        Ok(())
    }

    fn tell_later(&self, untold: Untold) {
        self.untold().push(untold);
        self.told.notify_one();
    }

    fn stir_if_leaving(&self) {
        if self.holdings().is_leaving_any() {
            self.stirred.notify_one();
        }
    }

    async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, &'static str> {
        match self.link.ask(operation, command, &self.metrics).await {
            Ok(value) => Ok(value),
            Err(Failure::Away(why)) => Err(why),
            Err(Failure::Foreign) => {
                self.metrics.value_refused();
                Err("what stands there is not ours")
            }
        }
    }

    fn note_health(&self) {
        let why = self.link.why_away();
        let is_failing = why.is_some();
        self.metrics.up(!is_failing);
        let was_failing = self.outlet.seen.failing.swap(is_failing, Ordering::Relaxed);
        match why {
            Some(why) if !was_failing => tracing::error!(
                %why,
                "push: Redis is away; messages are not acknowledged, so that WeChat keeps them, and none is delivered"
            ),
            None if was_failing => {
                tracing::info!("push: Redis is there");
                self.stirred.notify_one();
            }
            _ => {}
        }
    }

    fn note_sums(&self, sums: [i64; 4]) {
        let [waiting, bytes, dead, _] = sums.map(|sum| u64::try_from(sum).unwrap_or_default());
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.outlet
            .seen
            .waiting
            .store(count(waiting), Ordering::Relaxed);
        self.outlet.seen.bytes.store(bytes, Ordering::Relaxed);
        self.outlet.seen.dead.store(count(dead), Ordering::Relaxed);
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untold(&self) -> MutexGuard<'_, Vec<Untold>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks on a connection that is not the common one.
async fn ask<T: FromRedisValue>(
    connection: &mut Connection,
    command: &Cmd,
) -> Result<T, Cow<'static, str>> {
    match timeout(WAIT + READING, command.query_async(connection)).await {
        Ok(answer) => answer.map_err(|error| reason(&error)),
        Err(_) => Err("no answer in time".into()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}
