//! The ledger: what was sent and acknowledged on one side, what the app has written down on the other, and the balance.
//!
//! A message is named by its user and its running number. A user's messages are sent one after the other, each when the
//! fate of the one before it is known; so those that were acknowledged have to be delivered in the order of their numbers.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A user and a running number.
pub(crate) type Mark = (usize, u64);

/// Both sides.
#[derive(Default)]
pub(crate) struct Book {
    sent: BTreeMap<Mark, Sent>,
    delivered: Vec<Delivered>,
    /// Of each life of a sidecar the first delivery.
    firsts: HashMap<u32, (Instant, u64)>,
    /// When a sidecar's life ended.
    deaths: HashMap<u32, Instant>,
    /// Tries that were not answered in time.
    late: usize,
    /// What should not have been, in words.
    odd: Vec<String>,
}

#[derive(Default)]
struct Sent {
    acknowledged: bool,
    repeated: bool,
}

/// A message that the app has accepted, once.
pub(crate) struct Delivered {
    pub(crate) mark: Mark,
    /// `X-WX-Msg-Id`
    pub(crate) id: String,
    /// In which life the sidecar delivered it.
    pub(crate) life: u32,
    /// How often the app had been disturbed, or left in peace again, when it came.
    pub(crate) era: u64,
    /// And when the answer was written, if it was.
    pub(crate) answered: Option<u64>,
    pub(crate) at: Instant,
}

/// What the balance says.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    pub(crate) sent: usize,
    pub(crate) acknowledged: usize,
    pub(crate) repeated: usize,
    pub(crate) late: usize,
    pub(crate) delivered: usize,
    /// Delivered, though WeChat was never told that they are safe: they were, and the answer got lost.
    pub(crate) beyond: usize,
    /// Messages that came more than once, and how often beyond the first time.
    pub(crate) twice: usize,
    pub(crate) extra: usize,
    /// Of those times, how many followed neither a kill of the sidecar nor trouble of the app.
    pub(crate) needless: usize,
    /// Messages that came again under another `X-WX-Msg-Id`.
    pub(crate) renamed: usize,
    /// Ids that two messages had.
    pub(crate) shared: usize,
    /// Acknowledged and never delivered.
    pub(crate) lost: Vec<Mark>,
    /// Acknowledged, and first delivered after a later one that was acknowledged too.
    pub(crate) disordered: Vec<Mark>,
    pub(crate) odd: Vec<String>,
}

impl Book {
    pub(crate) fn sent(&mut self, mark: Mark) {
        self.sent.insert(mark, Sent::default());
    }

    pub(crate) fn acknowledged(&mut self, mark: Mark) {
        self.sent.entry(mark).or_default().acknowledged = true;
    }

    /// It was sent again though it had been acknowledged, or twice at once.
    pub(crate) fn repeated(&mut self, mark: Mark) {
        self.sent.entry(mark).or_default().repeated = true;
    }

    /// Writes a message down; the place of the entry.
    pub(crate) fn deliver(&mut self, delivered: Delivered) -> usize {
        let first = (delivered.at, delivered.era);
        self.firsts.entry(delivered.life).or_insert(first);
        self.delivered.push(delivered);
        self.delivered.len() - 1
    }

    pub(crate) fn answered(&mut self, place: usize, era: u64) {
        self.delivered[place].answered = Some(era);
    }

    /// A sidecar was killed, and nothing comes from it any more but what is under way.
    pub(crate) fn died(&mut self, life: u32) {
        self.deaths.insert(life, Instant::now());
    }

    pub(crate) fn late(&mut self) {
        self.late += 1;
    }

    pub(crate) fn is_odd(&mut self, what: String) {
        self.odd.push(what);
    }

    /// How many entries the app has made.
    pub(crate) fn entries(&self) -> usize {
        self.delivered.len()
    }

    /// When the first message of a life came, and in which era.
    pub(crate) fn first_of(&self, life: u32) -> Option<(Instant, u64)> {
        self.firsts.get(&life).copied()
    }

    pub(crate) fn balance(&self) -> Balance {
        let mut of: HashMap<Mark, Vec<usize>> = HashMap::new();
        for (place, delivered) in self.delivered.iter().enumerate() {
            of.entry(delivered.mark).or_default().push(place);
        }
        let mut balance = Balance {
            sent: self.sent.len(),
            acknowledged: self.count(|sent| sent.acknowledged),
            repeated: self.count(|sent| sent.repeated),
            late: self.late,
            delivered: of.len(),
            odd: self.odd.clone(),
            ..Balance::default()
        };
        let mut names: HashMap<&str, Mark> = HashMap::new();
        for (mark, places) in &of {
            self.judge(*mark, places, &mut balance);
            let id = &self.delivered[places[0]].id;
            if names.insert(id, *mark).is_some() {
                balance.shared += 1;
            }
        }
        // By user and number, as the map is sorted; the latest first delivery of the user so far.
        let mut latest: Option<(usize, usize)> = None;
        for (mark, _) in self.sent.iter().filter(|(_, sent)| sent.acknowledged) {
            let Some(place) = of.get(mark).map(|places| places[0]) else {
                balance.lost.push(*mark);
                continue;
            };
            match latest {
                Some((user, before)) if user == mark.0 && place < before => {
                    balance.disordered.push(*mark);
                }
                _ => latest = Some((mark.0, place)),
            }
        }
        balance
    }

    fn count(&self, is: impl Fn(&Sent) -> bool) -> usize {
        self.sent.values().filter(|sent| is(sent)).count()
    }

    /// One message that was delivered, by its entries.
    fn judge(&self, mark: Mark, places: &[usize], balance: &mut Balance) {
        match self.sent.get(&mark) {
            None => balance
                .odd
                .push(format!("the app got {mark:?}, which nobody sent")),
            Some(sent) if !sent.acknowledged => balance.beyond += 1,
            Some(_) => {}
        }
        let entries: Vec<&Delivered> = places.iter().map(|place| &self.delivered[*place]).collect();
        if entries.len() > 1 {
            balance.twice += 1;
        }
        if entries.iter().any(|entry| entry.id != entries[0].id) {
            balance.renamed += 1;
        }
        for pair in entries.windows(2) {
            balance.extra += 1;
            let [before, after] = pair else { continue };
            let death = self.deaths.get(&before.life);
            let is_orphan = death.is_some_and(|death| *death <= after.at);
            let in_peace = before.era == after.era && before.answered == Some(after.era);
            if !is_orphan && in_peace && after.era.is_multiple_of(2) {
                balance.needless += 1;
            }
        }
    }
}

impl Balance {
    /// Whether all is as it must be.
    pub(crate) fn is_even(&self) -> bool {
        let wrong = [
            self.lost.len(),
            self.disordered.len(),
            self.renamed,
            self.shared,
            self.needless,
            self.odd.len(),
        ];
        wrong.iter().all(|count| *count == 0)
    }
}
