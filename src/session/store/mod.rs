//! What tokens cannot carry: which sessions were revoked, which refresh tokens are spent, which codes were exchanged, and
//! the session keys that a user had of late.
//!
//! `Store` is an enum, not a trait object: there are two kinds of store, both known, and asking whether a session was
//! revoked is on every request's path. That question never does I/O and cannot fail, whatever the kind. All others may:
//! a store can be [`Unavailable`], and who asks decides whether to go on without it.

mod memory;
#[cfg_attr(not(feature = "redis"), path = "no_redis.rs")]
mod redis;
#[cfg(any(feature = "redis", test, fuzzing))]
mod value;

use std::borrow::Cow;
use std::time::Duration;

use super::Granted;
use super::token::{Claims, SessionId};
use crate::clock::Timestamp;
use crate::config::{self, Config};
use crate::domain::{OpenId, SessionKey};
use crate::error::{Error, Kind, Side};
use crate::telemetry::metrics::Metrics;

pub(crate) use memory::MemoryStore;
pub(crate) use redis::RedisStore;
#[cfg(any(test, fuzzing))]
pub(crate) use value::{Login, Revocation, Stored, Vault};

/// How long a code's session is remembered, which is how long WeChat lets a code live.
const LOGIN_TTL: Duration = Duration::from_secs(300);
/// How soon after a refresh a second one counts as simultaneous.
const SIMULTANEOUS: Duration = Duration::from_secs(1);
/// Session keys that are remembered of a user: what a phone has encrypted arrives late, after the next login.
const RING: usize = 3;

/// A hash that stands for a login code; codes themselves are not kept.
pub(crate) type CodeHash = [u8; 32];

/// Where session state lives.
#[expect(clippy::large_enum_variant, reason = "there is one store")]
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "Redis is never made")
)]
pub(crate) enum Store {
    /// In this process. A restart forgets revocations; tokens stay good.
    Memory(MemoryStore),
    /// In a Redis that replicas share.
    Redis(RedisStore),
}

/// Whether a store can be used.
pub(crate) struct Health {
    /// Why not, if so.
    pub(crate) failure: Option<Cow<'static, str>>,
    /// Whether the sidecar is not ready without it.
    pub(crate) required: bool,
}

/// The store cannot be asked now. It says why, in a few words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(crate) &'static str);

/// Whose a login code is.
#[derive(Clone)]
pub(crate) enum Claimed {
    /// The caller's: it exchanges the code, and then remembers what came of it or releases it.
    Mine,
    /// Somebody else's, who is exchanging it now.
    Elsewhere,
    /// It was exchanged within the last five minutes.
    Done(Box<Granted>),
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

/// The last session keys of a user, newest first; at most three, none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRing(Vec<SessionKey>);

/// How far the refresh tokens of a session have got. Sessions that were never refreshed have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    current: u32,
    since: Timestamp,
}

impl Store {
    /// The store that is configured. It is connected to nobody yet.
    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "what is in memory is not measured")
    )]
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let session_ttl = config.session.refresh_ttl;
        match &config.store {
            config::Store::Memory => Self::Memory(MemoryStore::new(session_ttl)),
            #[cfg(feature = "redis")]
            config::Store::Redis(redis) => {
                Self::Redis(RedisStore::new(redis, config, session_ttl, metrics))
            }
        }
    }

    /// What has to go on in the background; it ends at once if there is nothing.
    pub(crate) async fn keep(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.keep().await,
        }
    }

    /// Follows a change of configuration: what is written from now on is sealed with its keys.
    pub(crate) fn rekey(&self, config: &Config) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.rekey(config),
        }
    }

    pub(crate) fn health(&self) -> Health {
        match self {
            Self::Memory(_) => Health {
                failure: None,
                required: true,
            },
            Self::Redis(redis) => redis.health(),
        }
    }

    /// Claims `code` for the caller, unless it is somebody's already. A claim that nobody ends expires after `lease`.
    pub(crate) async fn claim_login(
        &self,
        code: &CodeHash,
        lease: Duration,
    ) -> Result<Claimed, Unavailable> {
        match self {
            Self::Memory(memory) => Ok(memory.claim_login(code, lease)),
            Self::Redis(redis) => redis.claim_login(code, lease).await,
        }
    }

    /// Remembers what `code` was exchanged for, in place of the claim.
    pub(crate) async fn remember_login(
        &self,
        code: &CodeHash,
        granted: &Granted,
    ) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.remember_login(code, granted);
                Ok(())
            }
            Self::Redis(redis) => redis.remember_login(code, granted).await,
        }
    }

    /// Gives up the caller's claim, because the exchange failed.
    pub(crate) async fn release_login(&self, code: &CodeHash) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.release_login(code);
                Ok(())
            }
            Self::Redis(redis) => redis.release_login(code).await,
        }
    }

    /// Whether the session that `claims` belong to has been revoked. Never does I/O.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        match self {
            Self::Memory(memory) => memory.is_revoked(claims),
            Self::Redis(redis) => redis.is_revoked(claims),
        }
    }

    /// How long the end of a session is remembered: no session may outlive that.
    pub(crate) fn remembers_for(&self) -> Duration {
        match self {
            Self::Memory(memory) => memory.remembers_for(),
            Self::Redis(redis) => redis.remembers_for(),
        }
    }

    /// Revokes one session: in this process at once and in any case, elsewhere now if the store is there, or once it is back.
    pub(crate) async fn revoke(&self, session: SessionId) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.revoke(session);
                Ok(())
            }
            Self::Redis(redis) => redis.revoke(session).await,
        }
    }

    /// Revokes all sessions of a user that were started until `now`, as [`Store::revoke`] does one.
    pub(crate) async fn revoke_user(
        &self,
        user: &OpenId,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.revoke_user(user, now);
                Ok(())
            }
            Self::Redis(redis) => redis.revoke_user(user, now).await,
        }
    }

    /// The earliest moment at which a new session of `user` counts as started after all revocations that are known. A
    /// store that is away knows those that have reached this process: the code is spent, so the login must go on.
    pub(crate) async fn start_after_revocations(&self, user: &OpenId, now: Timestamp) -> Timestamp {
        let revoked = match self {
            Self::Memory(memory) => memory.revoked_until(user),
            Self::Redis(redis) => redis.revoked_until(user).await,
        };
        revoked.map_or(now, |at| now.max(at.plus(Duration::from_millis(1))))
    }

    /// The generation of the session's refresh token that is current, as far as is known.
    pub(crate) async fn generation(&self, session: SessionId) -> Result<u32, Unavailable> {
        match self {
            Self::Memory(memory) => Ok(memory.generation(session)),
            Self::Redis(redis) => redis.generation(session).await,
        }
    }

    /// Spends the refresh token of `generation`, atomically. `grace` is how long a lost answer may be asked for again.
    pub(crate) async fn spend(
        &self,
        session: SessionId,
        generation: u32,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Spent, Unavailable> {
        match self {
            Self::Memory(memory) => Ok(memory.spend(session, generation, now, grace)),
            Self::Redis(redis) => redis.spend(session, generation, now, grace).await,
        }
    }

    /// Puts `key` in front of the user's ring.
    pub(crate) async fn remember_key(
        &self,
        user: &OpenId,
        key: &SessionKey,
    ) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => {
                memory.remember_key(user, key);
                Ok(())
            }
            Self::Redis(redis) => redis.remember_key(user, key).await,
        }
    }

    /// The user's ring; empty if nothing is known of the user.
    pub(crate) async fn keys(&self, user: &OpenId) -> Result<KeyRing, Unavailable> {
        match self {
            Self::Memory(memory) => Ok(memory.keys(user)),
            Self::Redis(redis) => redis.keys(user).await,
        }
    }
}

impl Unavailable {
    /// What the client is told: that it happened, and what that means for the request.
    pub(super) fn told(self, detail: (&'static str, &'static str)) -> Error {
        Error::new(Kind::StoreUnavailable, Side::Us, detail)
            .with_retry_after(Duration::from_secs(1))
            .with_cause(self)
    }
}

impl From<Unavailable> for Error {
    fn from(why: Unavailable) -> Self {
        let detail = (
            "the store of sessions cannot be reached; what it was to remember did not happen",
            "无法连接会话存储，需要写入的操作没有执行",
        );
        why.told(detail)
    }
}

impl KeyRing {
    /// Puts `key` in front.
    pub(crate) fn put(&mut self, key: &SessionKey) {
        self.0.retain(|known| known != key);
        self.0.insert(0, key.clone());
        self.0.truncate(RING);
    }

    /// The keys, newest first.
    pub(crate) fn into_keys(self) -> Vec<SessionKey> {
        self.0
    }
}

impl Family {
    /// What comes of spending the token of `generation`. Without a family the token is believed: it opened, and a store
    /// that has lost its memory must log nobody out.
    fn spend(known: Option<Self>, generation: u32, now: Timestamp, grace: Duration) -> Spent {
        let next = generation.saturating_add(1);
        let Some(family) = known else {
            return Spent::Now(next);
        };
        if generation >= family.current {
            return Spent::Now(next);
        }
        let age = now.since(family.since);
        // Clocks of replicas differ by less. One that was set back must not keep a client waiting that lost an answer.
        let is_ahead = family.since.since(now) >= SIMULTANEOUS;
        if next < family.current || age >= grace {
            Spent::Before
        } else if age < SIMULTANEOUS && !is_ahead {
            Spent::Simultaneous
        } else {
            Spent::Again(next)
        }
    }
}

#[cfg(test)]
mod tests;
