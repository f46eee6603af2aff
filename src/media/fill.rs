//! A medium that is coming from WeChat, for all who want it.
//!
//! It is fetched once, by a task that no client can stop, and each reads what is there at its own pace. What comes is in
//! memory at first and goes to a file when it is too much; the next bytes are not taken from WeChat before that, so a fill
//! takes little memory however large the medium is and however slow its readers are. A disk that fails costs memory of
//! `[inbound] buffer_limit`, and not the medium. What breaks off is told to all readers, and nothing of it is kept.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::cache::{CONTENT, Cache, Card, Draft, Key, SMALL, Stored, within};
use super::download::Chunk;
use super::kind::TELLING;
use super::spool::Room;
use crate::domain::{AppId, MediaId};
use crate::error::{Error, Kind, Side};
use crate::files;
use crate::gateway::{Fetched, Gateway};
use crate::resilience::panics::caught;
use crate::telemetry::media::Served;

/// How many media are fetched at once; the others wait.
const MOST: usize = 128;
/// How much is collected before it is written.
const STEP: u64 = 64 * 1024;
/// WeChat's number for a medium that it does not know.
const UNKNOWN: i64 = 40007;

/// All that are coming. Shared by all workers.
pub(super) struct Fills {
    home: Option<Handle>,
    /// Held for a look, never across an await.
    flights: Mutex<HashMap<Key, Arc<Growth>>>,
    places: Semaphore,
}

/// What is to be fetched, and how.
pub(super) struct Order {
    pub(super) appid: AppId,
    pub(super) id: MediaId,
    pub(super) gateway: Arc<Gateway>,
    pub(super) video_hosts: Arc<[String]>,
    pub(super) cache: Arc<Cache>,
    pub(super) room: Room,
}

/// A medium on its way.
pub(super) struct Growth(watch::Sender<Progress>);

#[derive(Default)]
struct Progress {
    opening: Option<Opening>,
    /// The first `in_file` bytes are there, behind [`CONTENT`].
    file: Option<Arc<File>>,
    in_file: u64,
    /// What follows those, each with its place.
    pieces: Vec<(u64, Bytes)>,
    /// How many there are in all.
    there: u64,
    end: Option<Result<(), Error>>,
}

/// What a medium turns out to be when its head is known.
#[derive(Clone)]
pub(super) enum Opening {
    /// It was here already.
    Here(Arc<Stored>, Served),
    Coming {
        card: Arc<Card>,
        is_kept: bool,
    },
}

/// Waits for a medium's head.
pub(super) struct Waiting {
    growth: Arc<Growth>,
    progress: watch::Receiver<Progress>,
}

impl Fills {
    /// Media are fetched on `home`, and without one by the runtime of whoever asks first.
    pub(super) fn new(home: Option<Handle>) -> Self {
        Self {
            home,
            flights: Mutex::default(),
            places: Semaphore::new(MOST),
        }
    }

    /// Joins who waits for a medium, or has it fetched; whether somebody had before.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        order: impl FnOnce() -> Order,
    ) -> (Waiting, bool) {
        let mut flights = self.flights();
        if let Some(growth) = flights.get(&key) {
            return (growth.wait(), true);
        }
        let growth = Arc::new(Growth(watch::Sender::default()));
        flights.insert(key, Arc::clone(&growth));
        let waiting = growth.wait();
        drop(flights);
        let flight = Flight {
            fills: Arc::clone(self),
            key,
            growth,
            order: order(),
        };
        let flying = async move {
            // Whoever waits is told by the flight's end.
            if let Err(panicked) = caught(flight.run()).await {
                tracing::error!(error = %panicked, "a defect ended the fetching of a medium");
            }
        };
        match &self.home {
            Some(home) => drop(home.spawn(flying)),
            None => drop(tokio::spawn(flying)),
        }
        (waiting, false)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<Growth>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a flight off the map, and if it `must_be_unwanted`, only if nobody waits for its head.
    fn remove(&self, key: &Key, growth: &Arc<Growth>, must_be_unwanted: bool) -> bool {
        let mut flights = self.flights();
        let is_it = flights.get(key).is_some_and(|it| Arc::ptr_eq(it, growth));
        if must_be_unwanted && growth.0.receiver_count() > 0 {
            return false;
        }
        if is_it {
            flights.remove(key);
        }
        true
    }
}

impl Waiting {
    /// What comes, and by whom it can be read.
    ///
    /// # Errors
    /// If nothing does.
    pub(super) async fn open(mut self) -> Result<(Opening, Arc<Growth>), Error> {
        let is_known = |progress: &Progress| progress.opening.is_some() || progress.end.is_some();
        let opening = match self.progress.wait_for(is_known).await {
            Ok(progress) => match (&progress.opening, &progress.end) {
                (_, Some(Err(error))) => Err(error.clone()),
                (Some(opening), _) => Ok(opening.clone()),
                (None, _) => Err(given_up()),
            },
            Err(_) => Err(given_up()),
        };
        opening.map(|opening| (opening, self.growth))
    }
}

impl Growth {
    fn wait(self: &Arc<Self>) -> Waiting {
        Waiting {
            progress: self.0.subscribe(),
            growth: Arc::clone(self),
        }
    }

    /// How long it is, if it is all here.
    pub(super) fn whole(&self) -> Option<u64> {
        let progress = self.0.borrow();
        matches!(progress.end, Some(Ok(()))).then_some(progress.there)
    }

    /// What is there from `at` on; waits until something is.
    ///
    /// # Errors
    /// If WeChat broke off.
    pub(super) async fn read(&self, at: u64) -> Result<Chunk, Error> {
        let mut progress = self.0.subscribe();
        let is_ready = |progress: &Progress| progress.there > at || progress.end.is_some();
        match progress.wait_for(is_ready).await {
            Ok(progress) => progress.chunk(at),
            Err(_) => Err(given_up()),
        }
    }

    fn add(&self, piece: Bytes) {
        self.0.send_modify(|progress| {
            let at = progress.there;
            progress.there += piece.len() as u64;
            progress.pieces.push((at, piece));
        });
    }

    /// What is not in the file yet, and where it begins.
    fn unwritten(&self) -> (u64, Vec<Bytes>) {
        let progress = self.0.borrow();
        let pieces = progress.pieces.iter().map(|(_, piece)| piece.clone());
        (progress.in_file, pieces.collect())
    }

    /// All up to `end` is in the file.
    fn written(&self, file: &Arc<File>, end: u64) {
        self.0.send_modify(|progress| {
            progress.file = Some(Arc::clone(file));
            progress.in_file = end;
            progress.pieces.retain(|(at, _)| *at >= end);
        });
    }

    fn begin(&self, opening: Opening) {
        self.0
            .send_modify(|progress| progress.opening = Some(opening));
    }

    /// The first end counts.
    fn end(&self, outcome: Result<(), Error>) {
        self.0.send_if_modified(|progress| {
            let is_news = progress.end.is_none();
            if is_news {
                progress.end = Some(outcome);
            }
            is_news
        });
    }
}

impl Progress {
    fn chunk(&self, at: u64) -> Result<Chunk, Error> {
        if let Some(Err(error)) = &self.end {
            return Err(error.clone());
        }
        if at >= self.there {
            return Ok(Chunk::End);
        }
        if let (Some(file), true) = (&self.file, at < self.in_file) {
            return Ok(Chunk::File {
                file: Arc::clone(file),
                at: CONTENT + at,
                length: self.in_file - at,
            });
        }
        let behind = self.pieces.partition_point(|(start, _)| *start <= at);
        let (start, piece) = &self.pieces[behind - 1];
        let from = usize::try_from(at - start).expect("a piece is in memory");
        Ok(Chunk::Bytes(piece.slice(from..)))
    }
}

/// The task that fetches a medium.
struct Flight {
    fills: Arc<Fills>,
    key: Key,
    growth: Arc<Growth>,
    order: Order,
}

impl Flight {
    async fn run(&self) {
        let outcome = self.fetch().await;
        if let Err(error) = outcome {
            self.growth.end(Err(error));
        }
    }

    async fn fetch(&self) -> Result<(), Error> {
        let Order {
            appid,
            id,
            gateway,
            video_hosts,
            cache,
            ..
        } = &self.order;
        // Whoever had it fetched may have ended a moment ago.
        if let Some((stored, served)) = cache.at_hand(&self.key) {
            self.growth.begin(Opening::Here(stored, served));
            return Ok(());
        }
        if let Some(refusal) = cache.refusal(&self.key) {
            return Err(refusal);
        }
        if let Some(stored) = cache.find(appid, id).await {
            self.growth.begin(Opening::Here(stored, Served::Disk));
            return Ok(());
        }
        let _place = self.place().await?;
        let fetched = gateway.download(id, video_hosts).await;
        let fetched = fetched.inspect_err(|error| {
            let fault = error.fault();
            if fault.is_some_and(|fault| fault.meaning.code == UNKNOWN) {
                cache.refuse(self.key, error);
            }
        })?;
        self.take(fetched).await
    }

    /// A place among those that are fetched, unless nobody waits for it any more.
    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        loop {
            tokio::select! {
                biased;
                place = self.fills.places.acquire() => return place.map_err(|_| given_up()),
                () = self.growth.0.closed() => {
                    if self.fills.remove(&self.key, &self.growth, true) {
                        return Err(given_up());
                    }
                }
            }
        }
    }

    async fn take(&self, mut fetched: Fetched) -> Result<(), Error> {
        let cache = &self.order.cache;
        let length = fetched.length;
        let (start, mut is_over) = beginning(&mut fetched).await?;
        let mut card = Card::new(&start, fetched.name.take(), length, cache.now());
        let is_kept = fetched.is_framed && cache.takes(length);
        let mut writer = Writer {
            flight: self,
            length,
            is_kept,
            target: Target::Memory,
        };
        self.growth.begin(Opening::Coming {
            card: Arc::new(card.clone()),
            is_kept,
        });
        writer.add(start).await?;
        while !is_over {
            match fetched.next().await? {
                Some(piece) => writer.add(piece).await?,
                None => is_over = true,
            }
        }
        let target = writer.finish().await;
        self.growth.end(Ok(()));
        let there = self.growth.whole().unwrap_or_default();
        card.length = Some(there);
        let Order { appid, id, .. } = &self.order;
        match target {
            _ if !is_kept => {}
            Target::Draft(draft) => cache.keep_file(draft, appid, id, &card).await,
            Target::Memory if there <= SMALL => {
                let bytes = self.growth.all();
                cache.keep_small(&bytes, appid, id, &card).await;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The next time it is asked for, it begins anew.
impl Drop for Flight {
    fn drop(&mut self) {
        self.fills.remove(&self.key, &self.growth, false);
        let has_begun = matches!(self.growth.0.borrow().opening, Some(Opening::Here(..)));
        if !has_begun {
            self.growth.end(Err(given_up()));
        }
    }
}

impl Growth {
    /// All of it, if it is in memory, as one piece that holds nothing else.
    fn all(&self) -> Bytes {
        let progress = self.0.borrow();
        let mut all = Vec::with_capacity(usize::try_from(progress.there).unwrap_or_default());
        for (_, piece) in &progress.pieces {
            all.extend_from_slice(piece);
        }
        Bytes::from(all)
    }
}

/// So much of a medium that one can tell what it is, and whether that is all.
async fn beginning(fetched: &mut Fetched) -> Result<(Bytes, bool), Error> {
    let Some(first) = fetched.next().await? else {
        return Ok((Bytes::new(), true));
    };
    if first.len() >= TELLING {
        return Ok((first, false));
    }
    let mut start = BytesMut::from(&first[..]);
    while start.len() < TELLING {
        match fetched.next().await? {
            Some(more) => start.extend_from_slice(&more),
            None => return Ok((start.freeze(), true)),
        }
    }
    Ok((start.freeze(), false))
}

/// Where a medium goes as it comes.
struct Writer<'a> {
    flight: &'a Flight,
    length: Option<u64>,
    is_kept: bool,
    target: Target,
}

enum Target {
    /// It may be small.
    Memory,
    /// A file that will be kept.
    Draft(Draft),
    /// A file without a name.
    Nameless(Arc<File>),
    /// The disk has failed, so memory has to do.
    Refused,
}

impl Writer<'_> {
    async fn add(&mut self, piece: Bytes) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        let growth = &self.flight.growth;
        if let Target::Refused = self.target {
            let mut held = self.flight.order.room.buffer();
            held.push(&piece).map_err(|_| no_room())?;
            growth.add(Bytes::from_owner(held));
            return Ok(());
        }
        growth.add(piece);
        let (there, waiting) = {
            let progress = growth.0.borrow();
            (progress.there, progress.there - progress.in_file)
        };
        let is_large = self.length.unwrap_or(there) > SMALL;
        if is_large && waiting >= STEP {
            self.flush().await;
        }
        Ok(())
    }

    /// Writes the rest, and gives the file if there is one.
    async fn finish(mut self) -> Target {
        if let Target::Draft(_) | Target::Nameless(_) = self.target {
            self.flush().await;
        } else if self.length.is_some_and(|length| length > SMALL) {
            // It came faster than it could be written.
            self.flush().await;
        }
        self.target
    }

    async fn flush(&mut self) {
        if let Target::Memory = self.target {
            self.target = self.file().await;
        }
        let file = match &self.target {
            Target::Draft(draft) => Arc::clone(&draft.file),
            Target::Nameless(file) => Arc::clone(file),
            Target::Memory | Target::Refused => return,
        };
        let growth = &self.flight.growth;
        let (from, pieces) = growth.unwritten();
        let target = Arc::clone(&file);
        let writing = files::aside(move || {
            let mut at = from;
            for piece in pieces {
                target.write_all_at(&piece, CONTENT + at)?;
                at += piece.len() as u64;
            }
            Ok(at)
        });
        match within(writing).await {
            Ok(end) => growth.written(&file, end),
            Err(error) => {
                let order = &self.flight.order;
                order.cache.failed(&order.room.directory, &error);
                self.target = Target::Refused;
            }
        }
    }

    /// A file that will be kept, or one that will not if there is no such, or memory.
    async fn file(&self) -> Target {
        let Order { cache, room, .. } = &self.flight.order;
        let draft = match self.is_kept {
            true => cache.draft(self.length).await,
            false => None,
        };
        if let Some(draft) = draft {
            return Target::Draft(draft);
        }
        let mut places = vec![room.directory.clone()];
        places.push(std::env::temp_dir());
        places.dedup();
        let making = files::aside({
            let places = places.clone();
            move || {
                let first = files::nameless(&places[0]);
                match places.get(1) {
                    Some(other) => first.or_else(|_| files::nameless(other)),
                    None => first,
                }
            }
        });
        match within(making).await {
            Ok(file) => Target::Nameless(Arc::new(file)),
            Err(error) => {
                cache.failed(&places[0], &error);
                Target::Refused
            }
        }
    }
}

fn given_up() -> Error {
    let detail = "the medium was given up before it was here";
    Error::new(Kind::Internal, Side::Us, detail)
}

fn no_room() -> Error {
    let detail = "there is no room for the medium, neither on the disk nor in memory";
    Error::new(Kind::Overloaded, Side::Us, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::gateway::Memory;
    use crate::media::Downloads;
    use crate::media::download::Memory as Known;
    use crate::resilience::BufferBudget;
    use crate::telemetry::metrics::Metrics;

    /// A flight that nobody has begun, with so much memory for what the disk does not take.
    fn flight(limit: u64) -> Flight {
        let config = Config::from_toml(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:9\"\n",
        )
        .unwrap();
        let memory = Memory::new(Clock::default());
        let metrics = Arc::new(Metrics::new());
        let gateway = Arc::new(Gateway::new(&config.app, &config.wechat, &memory, metrics));
        let id = MediaId::parse("a").unwrap();
        let budget = BufferBudget::default();
        let downloads = Downloads::new(&config, gateway, &Known::default(), &budget);
        let order = downloads.order(&id);
        Flight {
            fills: Arc::new(Fills::new(None)),
            key: Key::of(&order.appid, &id),
            growth: Arc::new(Growth(watch::Sender::default())),
            order: Order {
                room: Room::new(None, &budget, limit),
                ..order
            },
        }
    }

    fn writer(flight: &Flight, target: Target) -> Writer<'_> {
        Writer {
            flight,
            length: None,
            is_kept: false,
            target,
        }
    }

    fn piece(of: u8) -> Bytes {
        Bytes::from(vec![of; 100_000])
    }

    /// All that can be read.
    async fn content(growth: &Growth) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            match growth.read(content.len() as u64).await.unwrap() {
                Chunk::Bytes(bytes) => content.extend_from_slice(&bytes),
                Chunk::File { file, at, length } => {
                    let mut bytes = vec![0; usize::try_from(length).unwrap()];
                    file.read_exact_at(&mut bytes, at).unwrap();
                    content.extend_from_slice(&bytes);
                }
                Chunk::End => return content,
            }
        }
    }

    fn expected(count: u8) -> Vec<u8> {
        (0..count).flat_map(piece).collect()
    }

    /// Takes no byte.
    fn full() -> Target {
        let file = File::options().write(true).open("/dev/full").unwrap();
        Target::Nameless(Arc::new(file))
    }

    #[tokio::test]
    async fn what_is_large_goes_to_a_file_and_reads_as_it_came() {
        let flight = flight(0);
        let mut writer = writer(&flight, Target::Memory);
        for nth in 0..9 {
            writer.add(piece(nth)).await.unwrap();
            let (from, unwritten) = flight.growth.unwritten();
            let held: usize = unwritten.iter().map(Bytes::len).sum();
            assert!(from + held as u64 == 100_000 * (u64::from(nth) + 1));
            assert!(held as u64 <= SMALL, "{held}");
        }
        assert!(matches!(writer.finish().await, Target::Nameless(_)));
        flight.growth.end(Ok(()));
        assert!(content(&flight.growth).await == expected(9));
    }

    #[tokio::test]
    async fn what_is_small_stays_in_memory() {
        let flight = flight(0);
        let mut writer = writer(&flight, Target::Memory);
        for nth in 0..2 {
            writer.add(piece(nth)).await.unwrap();
        }
        assert!(matches!(writer.finish().await, Target::Memory));
        flight.growth.end(Ok(()));
        assert!(flight.growth.all() == expected(2));
        assert!(content(&flight.growth).await == expected(2));
    }

    #[tokio::test]
    async fn a_disk_that_is_full_costs_memory_as_far_as_that_goes() {
        let flight = flight(550_000);
        let mut writer = writer(&flight, full());
        for nth in 0..8 {
            writer.add(piece(nth)).await.unwrap();
        }
        assert!(matches!(writer.target, Target::Refused));
        let error = writer.add(piece(8)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded);
        assert!(matches!(writer.finish().await, Target::Refused));
        flight.growth.end(Ok(()));
        assert!(content(&flight.growth).await == expected(8));
    }

    #[tokio::test]
    async fn what_breaks_off_is_told_to_who_waits_and_who_comes_later() {
        let flight = flight(0);
        let mut writer = writer(&flight, Target::Memory);
        writer.add(piece(0)).await.unwrap();
        let growth = Arc::clone(&flight.growth);
        let waiting = tokio::spawn(async move { growth.read(100_000).await.map(drop) });
        tokio::task::yield_now().await;
        let growth = Arc::clone(&flight.growth);
        drop(flight);
        assert!(waiting.await.unwrap().is_err());
        assert!(growth.read(0).await.is_err());
    }

    #[tokio::test]
    async fn who_is_wanted_by_nobody_gives_up_its_place_in_the_queue() {
        let flight = flight(0);
        let all = u32::try_from(MOST).unwrap();
        let fills = Arc::clone(&flight.fills);
        let _taken = fills.places.acquire_many(all).await.unwrap();
        let waiting = flight.growth.wait();
        fills
            .flights()
            .insert(flight.key, Arc::clone(&flight.growth));
        let placed = tokio::spawn(async move { flight.place().await.map(drop).is_err() });
        tokio::task::yield_now().await;
        assert!(!placed.is_finished(), "somebody wants it");
        drop(waiting);
        assert!(placed.await.unwrap());
        assert!(fills.flights().is_empty());
    }
}
