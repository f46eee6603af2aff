//! What every kind of store has to do, run against each: the one in memory, and one in a real Redis.

use std::time::{Duration, Instant};

use super::*;
use crate::domain::User;
use crate::secret::Secret;

/// Where the tests' time begins.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const GRACE: Duration = Duration::from_secs(10);
/// Longer than any test takes.
pub(super) const LEASE: Duration = Duration::from_secs(600);
/// Only against a test that would hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(3600);

pub(super) fn user(name: &str) -> OpenId {
    OpenId::parse(&format!("openid-{name}")).unwrap()
}

pub(super) fn key(byte: u8) -> SessionKey {
    SessionKey::from_bytes([byte; 16])
}

/// A session that `user` began at `started`.
pub(super) fn granted(user: &OpenId, started: Timestamp) -> Granted {
    Granted {
        claims: Claims {
            session: SessionId::random(),
            generation: 0,
            started,
            expires: started.plus(TTL),
            user: User {
                openid: user.clone(),
                unionid: None,
            },
            session_key: key(1),
        },
        access_token: Secret::new("wxat_access"),
        refresh_token: Secret::new("wxrt_refresh"),
        expires_in: Duration::ZERO,
    }
}

/// Asks until it is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All that holds for any store. Each part has users, codes and sessions of its own.
pub(super) async fn conforms(store: &Store) {
    a_code_is_exchanged_by_one_and_remembered(store).await;
    a_claim_expires_by_itself(store).await;
    a_refresh_token_is_spent_once(store).await;
    of_many_who_spend_a_token_one_wins(store).await;
    a_ring_has_the_last_three_keys(store).await;
    the_end_of_a_session_is_known_at_once(store).await;
    all_sessions_of_a_user_end_and_new_ones_begin(store).await;
}

async fn claim(store: &Store, code: u8) -> Claimed {
    store.claim_login(&[code; 32], LEASE).await.unwrap()
}

async fn a_code_is_exchanged_by_one_and_remembered(store: &Store) {
    assert!(matches!(claim(store, 1).await, Claimed::Mine));
    assert!(matches!(claim(store, 1).await, Claimed::Elsewhere));
    assert!(matches!(claim(store, 2).await, Claimed::Mine));
    store.release_login(&[1; 32]).await.unwrap();
    assert!(matches!(claim(store, 1).await, Claimed::Mine));
    let done = granted(&user("code"), NOW);
    store.remember_login(&[1; 32], &done).await.unwrap();
    let Claimed::Done(again) = claim(store, 1).await else {
        panic!("the code was exchanged");
    };
    assert_eq!(again.claims, done.claims);
    assert_eq!(again.access_token, done.access_token);
    assert_eq!(again.refresh_token, done.refresh_token);
    assert!(matches!(claim(store, 2).await, Claimed::Elsewhere));
}

async fn a_claim_expires_by_itself(store: &Store) {
    let lease = Duration::from_millis(30);
    let claim = async || store.claim_login(&[3; 32], lease).await.unwrap();
    assert!(matches!(claim().await, Claimed::Mine));
    until("the claim expires", async || {
        matches!(claim().await, Claimed::Mine)
    })
    .await;
}

async fn a_refresh_token_is_spent_once(store: &Store) {
    let session = SessionId::random();
    let spend = async |generation, millis| {
        let now = NOW.plus(Duration::from_millis(millis));
        store.spend(session, generation, now, GRACE).await.unwrap()
    };
    assert_eq!(store.generation(session).await, Ok(0));
    assert_eq!(spend(0, 0).await, Spent::Now(1));
    assert_eq!(store.generation(session).await, Ok(1));
    assert_eq!(spend(0, 999).await, Spent::Simultaneous);
    assert_eq!(spend(0, 1000).await, Spent::Again(1));
    assert_eq!(spend(0, 10_000).await, Spent::Before);
    assert_eq!(spend(1, 10_000).await, Spent::Now(2));
    assert_eq!(spend(0, 10_001).await, Spent::Before);
    assert_eq!(
        spend(7, 10_002).await,
        Spent::Now(8),
        "nobody else has those"
    );
    assert_eq!(store.generation(session).await, Ok(8));
}

async fn of_many_who_spend_a_token_one_wins(store: &Store) {
    let session = SessionId::random();
    let spend = || store.spend(session, 0, NOW, GRACE);
    let spent = futures_util::future::join_all((0..20).map(|_| spend())).await;
    let won = |spent: &&Result<Spent, Unavailable>| **spent == Ok(Spent::Now(1));
    assert_eq!(spent.iter().filter(won).count(), 1, "{spent:?}");
    let lost = |spent: &&Result<Spent, Unavailable>| **spent == Ok(Spent::Simultaneous);
    assert_eq!(spent.iter().filter(lost).count(), 19, "{spent:?}");
}

async fn a_ring_has_the_last_three_keys(store: &Store) {
    let (user, other) = (user("ring"), user("other"));
    assert_eq!(store.keys(&user).await, Ok(KeyRing::default()));
    for byte in [1, 2, 1, 3, 4, 4] {
        store.remember_key(&user, &key(byte)).await.unwrap();
    }
    let ring = store.keys(&user).await.unwrap();
    assert_eq!(ring.into_keys(), [key(4), key(3), key(1)]);
    assert_eq!(store.keys(&other).await, Ok(KeyRing::default()));
}

async fn the_end_of_a_session_is_known_at_once(store: &Store) {
    let (one, other) = (granted(&user("one"), NOW), granted(&user("one"), NOW));
    store.revoke(one.claims.session).await.unwrap();
    assert!(store.is_revoked(&one.claims));
    assert!(!store.is_revoked(&other.claims));
}

async fn all_sessions_of_a_user_end_and_new_ones_begin(store: &Store) {
    let (user, other) = (user("all"), user("all-others"));
    let begun = granted(&user, NOW).claims;
    assert_eq!(store.start_after_revocations(&user, NOW).await, NOW);
    store.revoke_user(&user, NOW).await.unwrap();
    assert!(store.is_revoked(&begun));
    assert!(!store.is_revoked(&granted(&other, NOW).claims));
    let next = store.start_after_revocations(&user, NOW).await;
    assert_eq!(next, NOW.plus(Duration::from_millis(1)));
    assert!(!store.is_revoked(&granted(&user, next).claims));
    // One that is late takes nothing back.
    let earlier = Timestamp::from_millis(NOW.as_millis() - 5);
    store.revoke_user(&user, earlier).await.unwrap();
    assert!(store.is_revoked(&begun));
    assert_eq!(store.start_after_revocations(&user, NOW).await, next);
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conforms(&Store::Memory(MemoryStore::new(TTL))).await;
}

#[test]
fn a_clock_that_was_set_back_keeps_nobody_waiting() {
    let at = |millis: u64| Timestamp::from_millis(1_800_000_000_000 + millis);
    let family = Some(Family {
        current: 1,
        since: at(10_000),
    });
    let spend = |now| Family::spend(family, 0, now, Duration::from_secs(10));
    assert_eq!(spend(at(10_500)), Spent::Simultaneous);
    assert_eq!(spend(at(9_500)), Spent::Simultaneous, "another clock");
    assert_eq!(spend(at(12_000)), Spent::Again(1));
    assert_eq!(spend(at(0)), Spent::Again(1));
    assert_eq!(spend(at(20_000)), Spent::Before);
}

#[test]
fn a_ring_holds_the_last_three_keys_and_none_twice() {
    let mut ring = KeyRing::default();
    for byte in [1, 2, 1, 3, 4, 4] {
        ring.put(&key(byte));
    }
    assert_eq!(ring.into_keys(), [key(4), key(3), key(1)]);
}
