//! Session state in a Redis that replicas share: a single server, one behind Sentinels, or a Cluster.
//!
//! Each operation is one command on one key, so a Cluster needs no hash tags. What has to be decided about a value is
//! decided here and written by compare-and-set ([`RedisStore::update`]): the rules are the same code as those of the store
//! in memory, and Redis knows none of them. Values of a type or a form that we do not write are taken as absent and
//! overwritten. Every key has a time to live, so there is nothing to clean up.

mod follower;
mod owed;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{Cmd, FromRedisValue, Value};

use super::memory::Revocations;
use super::value::{Login, Revocation, Stored, TAG_LEN, Vault};
use super::{Claimed, CodeHash, Family, Health, KeyRing, LOGIN_TTL, RING, Spent, Unavailable};
use crate::clock::Timestamp;
use crate::config;
use crate::crypto;
use crate::domain::{OpenId, SessionKey};
use crate::redis_link::{Failure, Link};
use crate::session::Granted;
use crate::session::token::{Claims, SessionId};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::store::StoreMetrics;
use follower::{Followed, Follower};
use owed::{Owed, Telling};

/// How often a compare-and-set is tried while others change the same value; that many do at once only in an attack.
const MOST_TURNS: usize = 8;
/// How often it is tried to tell what is owed.
const TELL_EVERY: Duration = Duration::from_millis(500);
const TELL_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// How long the key that proves a connection stays.
const PROBE_TTL: Duration = Duration::from_secs(60);

/// Sets a value if the one before it is still what the caller has seen, and otherwise returns what there is now. What is of
/// another type is as good as absent.
const COMPARE_AND_SET: &str = "\
local now = redis.pcall('GET', KEYS[1])
if type(now) ~= 'string' then now = '' end
if now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false";

/// Deletes a value if it is still what the caller has seen.
const COMPARE_AND_DELETE: &str = "\
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return false";

/// Puts an element in front of a ring, and takes those with the same tag and those beyond its size out.
const PUT_IN_FRONT: &str = "\
local ring = redis.pcall('LRANGE', KEYS[1], 0, -1)
if ring.err then redis.call('DEL', KEYS[1]); ring = {} end
for _, element in ipairs(ring) do
  if string.sub(element, 1, #ARGV[1]) == ARGV[1] then redis.call('LREM', KEYS[1], 0, element) end
end
redis.call('LPUSH', KEYS[1], ARGV[1] .. ARGV[2])
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return false";

/// Adds an entry to a stream, and takes those out that nobody needs any more.
const APPEND: &str = "\
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local oldest = string.format('%.0f', redis.call('TIME')[1] * 1000 - ARGV[2])
redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'v', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false";

/// A write like all others: by a script, and refused where they would be.
const PROBE: &str = "redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) return false";

/// The way to Redis, and what has to be known without asking it.
pub(crate) struct RedisStore {
    link: Link,
    follower: Follower,
    vault: ArcSwap<Vault>,
    revocations: Revocations,
    owed: Owed,
    /// This replica's name in claims.
    owner: [u8; 16],
    session_ttl: Duration,
    timeout: Duration,
    required: bool,
    metrics: StoreMetrics,
    /// What was last told of it. Guards a text; held to compare it.
    told: Mutex<Option<Cow<'static, str>>>,
}

impl RedisStore {
    /// Connects to nobody yet, and needs no runtime.
    pub(crate) fn new(
        redis: &config::Redis,
        config: &config::Config,
        session_ttl: Duration,
        metrics: &Metrics,
    ) -> Self {
        Self {
            link: Link::new(redis),
            follower: Follower::new(),
            vault: ArcSwap::from_pointee(vault(config)),
            revocations: Revocations::new(session_ttl),
            owed: Owed::default(),
            owner: crypto::random(),
            session_ttl,
            timeout: redis.timeout,
            required: redis.required,
            metrics: StoreMetrics::register(metrics.registry()),
            told: Mutex::new(None),
        }
    }

    /// Keeps the connection, follows the revocations of others and tells ours, for as long as it is polled.
    pub(super) async fn keep(&self) {
        let probe = || {
            let name = self.vault.load().name("probe", &self.owner);
            script(PROBE, &name, |probe| {
                probe.arg(millis(PROBE_TTL));
            })
        };
        let keep = self.link.keep(probe, &self.metrics, || self.told());
        let follow = self.follower.follow(&self.link, self, self.timeout);
        tokio::join!(keep, follow, self.settle());
    }

    /// Tells what is owed, for ever. What Redis refuses although it is there is tried less and less often, because each try
    /// that fails takes the connection out of use.
    async fn settle(&self) {
        let mut pause = TELL_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            while self.failure().is_none()
                && let Some(owed) = self.owed.next()
            {
                if self.tell_of(owed).await.is_err() {
                    pause = (2 * pause).min(TELL_AT_LEAST_EVERY);
                    break;
                }
                pause = TELL_EVERY;
            }
        }
    }

    /// Seals with the keys of this configuration from now on.
    pub(super) fn rekey(&self, config: &config::Config) {
        self.vault.store(Arc::new(vault(config)));
    }

    pub(super) fn health(&self) -> Health {
        Health {
            failure: self.failure(),
            required: self.required,
        }
    }

    pub(super) async fn claim_login(
        &self,
        code: &CodeHash,
        lease: Duration,
    ) -> Result<Claimed, Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("login", code);
        let mut claimed = Claimed::Mine;
        let judge = |known: Option<Login>| {
            claimed = known.map_or(Claimed::Mine, Claimed::from);
            matches!(claimed, Claimed::Mine).then_some(Login::Claimed(self.owner))
        };
        self.update("claim_login", &vault, &name, lease, judge)
            .await?;
        Ok(claimed)
    }

    pub(super) async fn remember_login(
        &self,
        code: &CodeHash,
        granted: &Granted,
    ) -> Result<(), Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("login", code);
        let login = Login::Done(Box::new(granted.clone()));
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(vault.seal(&name, &login));
        set.arg("PX").arg(millis(LOGIN_TTL));
        self.tell("remember_login", &set).await
    }

    pub(super) async fn release_login(&self, code: &CodeHash) -> Result<(), Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("login", code);
        let Some(sealed) = self.get("release_login", &name).await? else {
            return Ok(());
        };
        match self.open(&vault, &name, &sealed) {
            Some(Login::Claimed(owner)) if owner == self.owner => {
                let delete = script(COMPARE_AND_DELETE, &name, |delete| {
                    delete.arg(&sealed);
                });
                self.tell("release_login", &delete).await
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_revoked(&self, claims: &Claims) -> bool {
        self.revocations.has(claims)
    }

    pub(super) fn remembers_for(&self) -> Duration {
        self.session_ttl
    }

    pub(super) async fn revoke(&self, session: SessionId) -> Result<(), Unavailable> {
        self.revocations.add_session(session);
        let revocation = Revocation::Session(session);
        self.tell_of(self.owed.telling(revocation)).await
    }

    pub(super) async fn revoke_user(
        &self,
        user: &OpenId,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        self.revocations.add_user(user, now);
        let revocation = Revocation::User(user.clone(), now);
        self.tell_of(self.owed.telling(revocation)).await
    }

    /// Tells the other replicas, and for all sessions of a user those to come.
    async fn tell_of(&self, telling: Telling<'_>) -> Result<(), Unavailable> {
        if let Revocation::User(user, now) = telling.revocation() {
            self.remember_user(user, *now).await?;
        }
        self.append(telling.revocation()).await?;
        telling.done();
        Ok(())
    }

    async fn remember_user(&self, user: &OpenId, now: Timestamp) -> Result<(), Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("user", user.as_bytes());
        let judge = |known: Option<Timestamp>| match known {
            Some(until) if until >= now => None,
            _ => Some(now),
        };
        self.update("revoke", &vault, &name, self.session_ttl, judge)
            .await
    }

    /// Asks, because a revocation may be on its way to this replica; if Redis is away, goes by what has arrived.
    pub(super) async fn revoked_until(&self, user: &OpenId) -> Option<Timestamp> {
        let vault = self.vault.load_full();
        let name = vault.name("user", user.as_bytes());
        let asked = self.get("revoked_until", &name).await.ok().flatten();
        let known = asked.and_then(|sealed| self.open(&vault, &name, &sealed));
        known.max(self.revocations.until(user))
    }

    pub(super) async fn generation(&self, session: SessionId) -> Result<u32, Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("family", session.as_bytes());
        let sealed = self.get("generation", &name).await?;
        let family = sealed.and_then(|sealed| self.open::<Family>(&vault, &name, &sealed));
        Ok(family.map_or(0, |family| family.current))
    }

    pub(super) async fn spend(
        &self,
        session: SessionId,
        generation: u32,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Spent, Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("family", session.as_bytes());
        let mut spent = Spent::Before;
        let judge = |known: Option<Family>| {
            spent = Family::spend(known, generation, now, grace);
            match spent {
                Spent::Now(current) => Some(Family {
                    current,
                    since: now,
                }),
                _ => None,
            }
        };
        self.update("spend", &vault, &name, self.session_ttl, judge)
            .await?;
        Ok(spent)
    }

    pub(super) async fn remember_key(
        &self,
        user: &OpenId,
        key: &SessionKey,
    ) -> Result<(), Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("keys", user.as_bytes());
        let put = script(PUT_IN_FRONT, &name, |put| {
            put.arg(&vault.tag(&name, key)[..]);
            put.arg(vault.seal(&name, key));
            put.arg(RING).arg(millis(self.session_ttl));
        });
        self.tell("remember_key", &put).await
    }

    pub(super) async fn keys(&self, user: &OpenId) -> Result<KeyRing, Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.name("keys", user.as_bytes());
        let mut range = redis::cmd("LRANGE");
        range.arg(&name).arg(0).arg(RING - 1);
        let elements: Option<Vec<Vec<u8>>> = self.read("keys", &range).await?;
        let mut ring = KeyRing::default();
        for element in elements.unwrap_or_default().iter().rev() {
            let sealed = element.get(TAG_LEN..).unwrap_or_default();
            if let Some(key) = self.open(&vault, &name, sealed) {
                // Once more than once only if the keys of the vault have changed, and with them the tags.
                ring.put(&key);
            }
        }
        Ok(ring)
    }

    /// Reads a value, has it judged, and writes what the judgement says, if it says anything; all over again if somebody
    /// else has written meanwhile. Begins with the guess that there is no value, which is right for new codes and users.
    async fn update<V: Stored>(
        &self,
        operation: &'static str,
        vault: &Vault,
        name: &str,
        ttl: Duration,
        mut judge: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<(), Unavailable> {
        let mut seen = Vec::new();
        for _ in 0..MOST_TURNS {
            let known = match seen.is_empty() {
                true => None,
                false => self.open(vault, name, &seen),
            };
            let Some(next) = judge(known) else {
                return Ok(());
            };
            let set = script(COMPARE_AND_SET, name, |set| {
                set.arg(&seen).arg(vault.seal(name, &next)).arg(millis(ttl));
            });
            match self.read(operation, &set).await? {
                None => return Ok(()),
                Some(other) => seen = other,
            }
        }
        Err(Unavailable("others change the same value all the time"))
    }

    async fn append(&self, revocation: &Revocation) -> Result<(), Unavailable> {
        let vault = self.vault.load_full();
        let name = vault.only(REVOCATIONS);
        let append = script(APPEND, &name, |append| {
            append.arg(vault.seal(&name, revocation));
            append.arg(millis(self.session_ttl));
        });
        self.tell("revoke", &append).await
    }

    async fn get(
        &self,
        operation: &'static str,
        name: &str,
    ) -> Result<Option<Vec<u8>>, Unavailable> {
        self.read(operation, redis::cmd("GET").arg(name)).await
    }

    /// `None` for what is not there, or nothing of ours.
    async fn read<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Option<T>, Unavailable> {
        match self.link.ask(operation, command, &self.metrics).await {
            Ok(value) => Ok(value),
            Err(Failure::Away(why)) => Err(Unavailable(why)),
            Err(Failure::Foreign) => {
                self.metrics.value_refused();
                Ok(None)
            }
        }
    }

    async fn tell(&self, operation: &'static str, command: &Cmd) -> Result<(), Unavailable> {
        let _done: Option<Value> = self.read(operation, command).await?;
        Ok(())
    }

    fn open<V: Stored>(&self, vault: &Vault, name: &str, sealed: &[u8]) -> Option<V> {
        let value = vault.open(name, sealed);
        if value.is_none() {
            self.metrics.value_refused();
        }
        value
    }

    fn failure(&self) -> Option<Cow<'static, str>> {
        self.link.why_away().or_else(|| self.follower.why_behind())
    }

    /// Tells of a change, once.
    fn told(&self) {
        let failure = self.failure();
        self.metrics.up(failure.is_none());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &failure {
            None if told.is_some() => tracing::info!("the store is back"),
            // At the start this is so for a moment, and is nobody's trouble.
            Some(why) if why == follower::NOT_YET => return,
            Some(why) if *told != failure => {
                tracing::warn!(
                    %why,
                    "the store is away: no logins, refreshes and logouts, all else goes on"
                );
            }
            _ => {}
        }
        *told = failure;
    }
}

/// The stream's kind.
const REVOCATIONS: &str = "revocations";

impl Followed for RedisStore {
    fn stream(&self) -> String {
        self.vault.load().only(REVOCATIONS)
    }

    fn take(&self, stream: &str, entry: &[u8]) {
        match self.open(&self.vault.load(), stream, entry) {
            Some(Revocation::Session(session)) => self.revocations.add_session(session),
            Some(Revocation::User(user, until)) => self.revocations.add_user(&user, until),
            None => {}
        }
    }

    fn refuse(&self) {
        self.metrics.value_refused();
    }

    fn told(&self) {
        Self::told(self);
    }
}

fn vault(config: &config::Config) -> Vault {
    Vault::new(&config.app.appid, config.sealing_secrets())
}

/// A script on one key. By its text and not by its hash: it is short, and no restart of Redis can have forgotten it.
fn script(text: &str, name: &str, arguments: impl FnOnce(&mut Cmd)) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(1).arg(name);
    arguments(&mut command);
    command
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests;
