//! What tokens cannot carry: which sessions were revoked, which refresh tokens are spent, which codes were exchanged.
//!
//! `Store` is an enum, not a trait object: there are two kinds of store, both known, and asking whether a session was
//! revoked is on every request's path. That question never does I/O, whatever the kind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::Entry;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Granted;
use super::token::{Claims, SessionId};
use crate::clock::Timestamp;
use crate::domain::OpenId;

/// How long a code's session is remembered, which is how long WeChat lets a code live.
const LOGIN_TTL: Duration = Duration::from_secs(300);
/// Entries a table holds at the most; at about 200 bytes each, and reached only by that many logouts or logins.
const CAPACITY: u64 = 500_000;
/// How soon after a refresh a second one counts as simultaneous.
const SIMULTANEOUS: Duration = Duration::from_secs(1);

/// A hash that stands for a login code; codes themselves are not kept.
pub(crate) type CodeHash = [u8; 32];

/// Where session state lives.
pub(crate) enum Store {
    /// In this process. A restart forgets revocations; tokens stay good.
    Memory(MemoryStore),
}

/// What came of spending a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// The token was current; its successor has this generation.
    Now(u32),
    /// It was spent a moment ago and its successor may have been lost on the way: the successor may be had again.
    Again(u32),
    /// It was spent by a simultaneous call, whose answer is on its way.
    Simultaneous,
    /// It was spent before: somebody holds a copy.
    Before,
}

impl Store {
    /// The session that `code` was exchanged for, if that was within five minutes.
    pub(crate) async fn login(&self, code: &CodeHash) -> Option<Granted> {
        match self {
            Self::Memory(memory) => memory.logins.get(code),
        }
    }

    /// Remembers what `code` was exchanged for.
    pub(crate) async fn remember_login(&self, code: CodeHash, granted: Granted) {
        match self {
            Self::Memory(memory) => memory.logins.insert(code, granted),
        }
    }

    /// Whether the session that `claims` belong to has been revoked. Never does I/O.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        match self {
            Self::Memory(memory) => memory.is_revoked(claims),
        }
    }

    /// How long the end of a session is remembered: no session may outlive that.
    pub(crate) fn remembers_for(&self) -> Duration {
        match self {
            Self::Memory(memory) => memory.session_ttl,
        }
    }

    /// Revokes one session.
    pub(crate) async fn revoke(&self, session: SessionId) {
        match self {
            Self::Memory(memory) => memory.revoke(session),
        }
    }

    /// Revokes all sessions of a user that were started until `now`.
    pub(crate) async fn revoke_user(&self, user: &OpenId, now: Timestamp) {
        match self {
            Self::Memory(memory) => memory.revoke_user(user, now),
        }
    }

    /// The earliest moment at which a new session of `user` counts as started after all revocations.
    pub(crate) async fn start_after_revocations(&self, user: &OpenId, now: Timestamp) -> Timestamp {
        let revoked = match self {
            Self::Memory(memory) => memory.users.get(user),
        };
        revoked.map_or(now, |at| now.max(at.plus(Duration::from_millis(1))))
    }

    /// The generation of the session's refresh token that is current, as far as is known.
    pub(crate) async fn generation(&self, session: SessionId) -> u32 {
        match self {
            Self::Memory(memory) => {
                let family = memory.families.get(&session);
                family.map_or(0, |family| family.current)
            }
        }
    }

    /// Spends the refresh token of `generation`, atomically. `grace` is how long a lost answer may be asked for again.
    pub(crate) async fn spend(
        &self,
        session: SessionId,
        generation: u32,
        now: Timestamp,
        grace: Duration,
    ) -> Spent {
        match self {
            Self::Memory(memory) => memory.spend(session, generation, now, grace),
        }
    }
}

/// State in this process, bounded in number and time.
pub(crate) struct MemoryStore {
    logins: Cache<CodeHash, Granted>,
    revoked: Cache<SessionId, ()>,
    users: Cache<OpenId, Timestamp>,
    families: Cache<SessionId, Family>,
    session_ttl: Duration,
    /// Nobody has been revoked yet: spares almost every request a look-up.
    all_good: AtomicBool,
}

/// How far the refresh tokens of a session have got. Sessions that were never refreshed have no entry.
#[derive(Clone, Copy)]
struct Family {
    current: u32,
    since: Timestamp,
}

impl MemoryStore {
    /// `session_ttl` is how long a session can live, and so how long its revocation must be remembered.
    pub(crate) fn new(session_ttl: Duration) -> Self {
        Self {
            logins: table(LOGIN_TTL),
            revoked: table(session_ttl),
            users: table(session_ttl),
            families: table(session_ttl),
            session_ttl,
            all_good: AtomicBool::new(true),
        }
    }

    fn is_revoked(&self, claims: &Claims) -> bool {
        if self.all_good.load(Ordering::Acquire) {
            return false;
        }
        self.revoked.contains_key(&claims.session)
            || self
                .users
                .get(&claims.user.openid)
                .is_some_and(|until| claims.started <= until)
    }

    fn revoke(&self, session: SessionId) {
        self.revoked.insert(session, ());
        self.all_good.store(false, Ordering::Release);
    }

    fn revoke_user(&self, user: &OpenId, now: Timestamp) {
        self.users.insert(user.clone(), now);
        self.all_good.store(false, Ordering::Release);
    }

    fn spend(&self, session: SessionId, generation: u32, now: Timestamp, grace: Duration) -> Spent {
        let next = generation.saturating_add(1);
        let mut spent = Spent::Now(next);
        let judge = |entry: Option<Entry<SessionId, Family>>| {
            // Without an entry the token is believed: it opened, and a restart must log nobody out.
            let family = entry.map(Entry::into_value);
            spent = family.map_or(Spent::Now(next), |family| {
                family.judge(generation, now, grace)
            });
            match spent {
                Spent::Now(current) => Op::Put(Family {
                    current,
                    since: now,
                }),
                _ => Op::Nop,
            }
        };
        let _outcome: CompResult<_, _> = self.families.entry(session).and_compute_with(judge);
        spent
    }
}

impl Family {
    fn judge(self, generation: u32, now: Timestamp, grace: Duration) -> Spent {
        let next = generation.saturating_add(1);
        if generation >= self.current {
            return Spent::Now(next);
        }
        let age = now.since(self.since);
        if next < self.current || age >= grace {
            Spent::Before
        } else if age < SIMULTANEOUS {
            Spent::Simultaneous
        } else {
            Spent::Again(next)
        }
    }
}

fn table<K, V>(ttl: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    // LRU: the default policy may refuse a new entry in favour of a popular one, and a revocation must never be refused.
    Cache::builder()
        .max_capacity(CAPACITY)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_live(ttl)
        .build()
}
