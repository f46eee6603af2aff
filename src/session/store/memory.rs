//! Session state in this process, bounded in number and time.
//!
//! Each table is an LRU of its own. A restart empties them: tokens stay good, and what was revoked is forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::Entry;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Claimed, CodeHash, Family, KeyRing, LOGIN_TTL, Spent};
use crate::clock::Timestamp;
use crate::domain::{OpenId, SessionKey};
use crate::session::Granted;
use crate::session::token::{Claims, SessionId};

/// Entries a table holds at the most; at about 200 bytes each, and reached only by that many logouts or logins.
const CAPACITY: u64 = 500_000;

/// The tables.
pub(crate) struct MemoryStore {
    logins: Cache<CodeHash, Login>,
    families: Cache<SessionId, Family>,
    rings: Cache<OpenId, KeyRing>,
    revocations: Revocations,
}

/// What has been revoked, as far as this process knows.
pub(super) struct Revocations {
    sessions: Cache<SessionId, ()>,
    users: Cache<OpenId, Timestamp>,
    /// Nobody has been revoked yet: spares almost every request a look-up.
    all_good: AtomicBool,
    ttl: Duration,
}

/// What is known of a login code.
#[derive(Clone)]
enum Login {
    /// It is being exchanged; nobody waits beyond this for what comes of it.
    Claimed(Instant),
    Done(Box<Granted>),
}

impl MemoryStore {
    /// `session_ttl` is how long a session can live, and so how long its revocation must be remembered.
    pub(crate) fn new(session_ttl: Duration) -> Self {
        Self {
            logins: table(LOGIN_TTL),
            families: table(session_ttl),
            rings: table(session_ttl),
            revocations: Revocations::new(session_ttl),
        }
    }

    pub(super) fn claim_login(&self, code: &CodeHash, lease: Duration) -> Claimed {
        let now = Instant::now();
        let mut claimed = Claimed::Mine;
        let judge = |entry: Option<Entry<CodeHash, Login>>| {
            claimed = match entry.map(Entry::into_value) {
                Some(Login::Done(granted)) => Claimed::Done(granted),
                Some(Login::Claimed(until)) if now < until => Claimed::Elsewhere,
                Some(Login::Claimed(_)) | None => Claimed::Mine,
            };
            match claimed {
                Claimed::Mine => Op::Put(Login::Claimed(now + lease)),
                Claimed::Elsewhere | Claimed::Done(_) => Op::Nop,
            }
        };
        let _outcome: CompResult<_, _> = self.logins.entry(*code).and_compute_with(judge);
        claimed
    }

    pub(super) fn remember_login(&self, code: &CodeHash, granted: &Granted) {
        self.logins
            .insert(*code, Login::Done(Box::new(granted.clone())));
    }

    pub(super) fn release_login(&self, code: &CodeHash) {
        self.logins.invalidate(code);
    }

    pub(super) fn is_revoked(&self, claims: &Claims) -> bool {
        self.revocations.has(claims)
    }

    pub(super) fn remembers_for(&self) -> Duration {
        self.revocations.ttl
    }

    pub(super) fn revoke(&self, session: SessionId) {
        self.revocations.add_session(session);
    }

    pub(super) fn revoke_user(&self, user: &OpenId, now: Timestamp) {
        self.revocations.add_user(user, now);
    }

    pub(super) fn revoked_until(&self, user: &OpenId) -> Option<Timestamp> {
        self.revocations.until(user)
    }

    pub(super) fn generation(&self, session: SessionId) -> u32 {
        let family = self.families.get(&session);
        family.map_or(0, |family| family.current)
    }

    pub(super) fn spend(
        &self,
        session: SessionId,
        generation: u32,
        now: Timestamp,
        grace: Duration,
    ) -> Spent {
        let mut spent = Spent::Before;
        let judge = |entry: Option<Entry<SessionId, Family>>| {
            spent = Family::spend(entry.map(Entry::into_value), generation, now, grace);
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

    pub(super) fn remember_key(&self, user: &OpenId, key: &SessionKey) {
        self.rings.entry_by_ref(user).and_upsert_with(|entry| {
            let mut ring = entry.map(Entry::into_value).unwrap_or_default();
            ring.put(key);
            ring
        });
    }

    pub(super) fn keys(&self, user: &OpenId) -> KeyRing {
        self.rings.get(user).unwrap_or_default()
    }
}

impl Revocations {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            sessions: table(ttl),
            users: table(ttl),
            all_good: AtomicBool::new(true),
            ttl,
        }
    }

    pub(super) fn has(&self, claims: &Claims) -> bool {
        if self.all_good.load(Ordering::Acquire) {
            return false;
        }
        self.sessions.contains_key(&claims.session)
            || self
                .until(&claims.user.openid)
                .is_some_and(|until| claims.started <= until)
    }

    /// Until when the sessions of `user` have been revoked, if ever.
    pub(super) fn until(&self, user: &OpenId) -> Option<Timestamp> {
        self.users.get(user)
    }

    pub(super) fn add_session(&self, session: SessionId) {
        self.sessions.insert(session, ());
        self.all_good.store(false, Ordering::Release);
    }

    /// A revocation never takes an earlier one back, in whatever order they arrive.
    pub(super) fn add_user(&self, user: &OpenId, until: Timestamp) {
        self.users
            .entry_by_ref(user)
            .and_upsert_with(|entry| entry.map_or(until, |known| known.into_value().max(until)));
        self.all_good.store(false, Ordering::Release);
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
