//! The store against a real Redis, on a socket in a directory of its own.

use std::process::{Child, Command, Stdio};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::super::tests::{LEASE, PATIENCE, conforms, granted, key, until, user};
use super::super::{KeyRing, Store};
use super::*;
use crate::config::Config;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const APPID: &str = "wx0123456789abcdef";
/// Puts something else in the place of a key, in one go: the store may write it anew between two commands.
const INSTEAD: &[u8] = b"redis.call('DEL', KEYS[1]) return redis.call(unpack(ARGV))";

/// A Redis of this test's own. It ends with it.
struct Server {
    directory: TempDir,
    process: Child,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(directory.path().join("socket"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed; `make test-tools` does it");
        Self { directory, process }
    }

    fn config(&self, appid: &str, secrets: &str) -> Config {
        let socket = self.directory.path().join("socket");
        let mut config = Config::from_toml(&format!(
            "[app]\nappid = \"{appid}\"\nsecret = {secrets}\n[inbound]\nupstream = \"http://127.0.0.1:1\"\n\
             [session]\naccess_ttl = \"1m\"\nrefresh_ttl = \"1h\"\n\
             [store]\nkind = \"redis\"\nurl = \"unix://{}\"\n",
            socket.display()
        ))
        .unwrap_or_else(|report| panic!("{report}"));
        // Longer than a file may say: what is slow because the machine is busy is not away.
        match &mut config.store {
            config::Store::Redis(redis) => redis.timeout = PATIENCE,
            config::Store::Memory => panic!("it is in Redis"),
        }
        config
    }

    fn replica(&self, secrets: &str) -> Replica {
        Replica::of(&self.config(APPID, secrets))
    }

    /// A connection of the test's own, to look and to meddle.
    async fn connection(&self) -> MultiplexedConnection {
        let url = format!("unix://{}", self.directory.path().join("socket").display());
        let client = redis::Client::open(url).unwrap();
        // The usual one is half a second.
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let mut connection = None;
        until("Redis listens", async || {
            let made = client.get_multiplexed_async_connection_with_config(&patient);
            connection = made.await.ok();
            connection.is_some()
        })
        .await;
        connection.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A store that is kept connected, as that of a sidecar is.
struct Replica {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    keeping: tokio::task::JoinHandle<()>,
}

impl Replica {
    fn of(config: &Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::new(config, &metrics));
        let kept = Arc::clone(&store);
        Self {
            store,
            metrics,
            keeping: tokio::spawn(async move { kept.keep().await }),
        }
    }

    async fn ready(self) -> Self {
        until("the store is there", async || {
            self.store.health().failure.is_none()
        })
        .await;
        self
    }

    fn values_refused(&self) -> f64 {
        let families = self.metrics.registry().gather();
        let family = families
            .iter()
            .find(|family| family.name() == "wx_sidecar_store_values_refused_total");
        family.unwrap().get_metric()[0].get_counter().get_value()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&[u8]],
) -> T {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(connection).await.unwrap()
}

async fn names(connection: &mut MultiplexedConnection) -> Vec<String> {
    ask(connection, &[b"KEYS", b"*"]).await
}

#[tokio::test]
async fn the_store_in_redis_conforms_and_so_does_one_that_joins_later() {
    let server = Server::start();
    let replica = server.replica("\"secret\"").ready().await;
    conforms(&replica.store).await;
    let revoked = granted(&user("late"), NOW).claims;
    replica.store.revoke(revoked.session).await.unwrap();

    let late = server.replica("\"secret\"").ready().await;
    assert!(
        late.store.is_revoked(&revoked),
        "it has read what was before"
    );
    assert_eq!(replica.values_refused(), 0.0);
}

#[tokio::test]
async fn every_key_ends_by_itself_and_tells_nothing() {
    let server = Server::start();
    let replica = server.replica("\"secret\"").ready().await;
    conforms(&replica.store).await;
    let mut connection = server.connection().await;
    let names = names(&mut connection).await;
    let mut kinds: Vec<_> = names
        .iter()
        .map(|name| name.split(':').nth(1).unwrap())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        ["family", "keys", "login", "probe", "revocations", "user"]
    );
    for name in &names {
        let left: i64 = ask(&mut connection, &[b"PTTL", name.as_bytes()]).await;
        // A claim on a code that nobody ended has done so meanwhile.
        if left == -2 {
            continue;
        }
        assert!(
            (0..=3_600_000).contains(&left),
            "{name} lives for {left} ms"
        );
        assert!(
            name.starts_with(APPID) && !name.contains("openid"),
            "{name}"
        );
        let value: Vec<u8> = ask(&mut connection, &[b"DUMP", name.as_bytes()]).await;
        for secret in [&b"openid"[..], b"wxat_", b"wxrt_", &[1; 16], &[4; 16]] {
            let found = memchr::memmem::find(&value, secret);
            assert_eq!(found, None, "{name}: {}", value.escape_ascii());
        }
    }
}

#[tokio::test]
async fn replicas_share_codes_tokens_and_rings_and_hear_of_revocations() {
    let server = Server::start();
    let (a, b) = (server.replica("\"secret\""), server.replica("\"secret\""));
    let (a, b) = (a.ready().await, b.ready().await);
    let code = [9; 32];
    let claim = async |replica: &Replica| replica.store.claim_login(&code, LEASE).await.unwrap();
    assert!(matches!(claim(&a).await, Claimed::Mine));
    assert!(matches!(claim(&b).await, Claimed::Elsewhere));
    b.store.release_login(&code).await.unwrap();
    assert!(
        matches!(claim(&b).await, Claimed::Elsewhere),
        "it was not its own"
    );
    let done = granted(&user("shared"), NOW);
    a.store.remember_login(&code, &done).await.unwrap();
    assert!(matches!(claim(&b).await, Claimed::Done(_)));

    let (session, grace) = (done.claims.session, Duration::from_secs(10));
    assert_eq!(
        a.store.spend(session, 0, NOW, grace).await,
        Ok(Spent::Now(1))
    );
    let spent = b.store.spend(session, 0, NOW, grace).await;
    assert_eq!(spent, Ok(Spent::Simultaneous));

    let openid = user("shared");
    a.store.remember_key(&openid, &key(1)).await.unwrap();
    b.store.remember_key(&openid, &key(2)).await.unwrap();
    let ring = a.store.keys(&openid).await.unwrap();
    assert_eq!(ring.into_keys(), [key(2), key(1)]);

    a.store.revoke_user(&openid, NOW).await.unwrap();
    let next = b.store.start_after_revocations(&openid, NOW).await;
    assert!(next > NOW, "known to who asks before it arrives");
    until("b hears of it", async || b.store.is_revoked(&done.claims)).await;
    assert!(!b.store.is_revoked(&granted(&openid, next).claims));
}

#[tokio::test]
async fn what_is_not_ours_is_absent_and_overwritten() {
    let server = Server::start();
    let replica = server.replica("\"secret\"").ready().await;
    let store = &replica.store;
    conforms(store).await;
    let mut connection = server.connection().await;
    let names = names(&mut connection).await;
    let openid = user("ring");
    let mut refused = 0.0;
    for meddle in ["garbage", "truncated", "another's", "a list", "a hash"] {
        for name in &names {
            let name = name.as_bytes();
            if meddle == "truncated"
                && ask::<String>(&mut connection, &[b"TYPE", name]).await == "string"
            {
                let value: Vec<u8> = ask(&mut connection, &[b"GET", name]).await;
                let half = &value[..value.len() / 2];
                let _: () = ask(&mut connection, &[b"SET", name, half]).await;
                continue;
            }
            let foreign: &[&[u8]] = match meddle {
                "a hash" => &[b"HSET", name, b"field", b"value"],
                "a list" => &[b"RPUSH", name, b"", b"element", &[b'x'; 100]],
                "another's" => &[b"SET", name, b"{\"json\":true}"],
                _ => &[b"SET", name, &[0xff; 60]],
            };
            let replace: [&[&[u8]]; 2] = [&[b"EVAL", INSTEAD, b"1", name], foreign];
            let _: Value = ask(&mut connection, &replace.concat()).await;
        }
        assert_eq!(
            store.keys(&openid).await,
            Ok(KeyRing::default()),
            "{meddle}"
        );
        assert!(replica.values_refused() > refused, "{meddle}");
        refused = replica.values_refused();
        // Users and sessions of before are revoked, so only what is read anew is asked again.
        let claimed = store.claim_login(&[1; 32], LEASE).await;
        assert!(matches!(claimed, Ok(Claimed::Mine)), "{meddle}");
        store.release_login(&[1; 32]).await.unwrap();
        store.remember_key(&openid, &key(5)).await.unwrap();
        assert_eq!(
            store.keys(&openid).await.unwrap().into_keys(),
            [key(5)],
            "{meddle}"
        );
        store.revoke_user(&openid, NOW).await.unwrap();
        assert!(store.health().failure.is_none(), "{meddle}");
    }
}

#[tokio::test]
async fn entries_of_the_stream_that_are_not_ours_are_passed_over() {
    let server = Server::start();
    let replica = server.replica("\"secret\"").ready().await;
    let mut connection = server.connection().await;
    let stream = format!("{APPID}:revocations");
    for fields in [&["v", "garbage"][..], &["a", "b", "c", "d"]] {
        let mut words: Vec<&[u8]> = vec![b"XADD", stream.as_bytes(), b"*"];
        words.extend(fields.iter().map(|word| word.as_bytes()));
        let _: String = ask(&mut connection, &words).await;
    }
    let other = server.replica("\"secret\"").ready().await;
    let revoked = granted(&user("stream"), NOW).claims;
    replica.store.revoke(revoked.session).await.unwrap();
    until("it arrives", async || other.store.is_revoked(&revoked)).await;
    assert!(other.values_refused() >= 2.0);
}

#[tokio::test]
async fn during_a_rotation_both_keys_open_and_the_new_one_seals() {
    let server = Server::start();
    let old = server.replica("\"old\"").ready().await;
    let openid = user("rotation");
    old.store.remember_key(&openid, &key(1)).await.unwrap();
    old.store.rekey(&server.config(APPID, "[\"new\", \"old\"]"));
    let both = old;
    let ring = both.store.keys(&openid).await.unwrap();
    assert_eq!(ring.into_keys(), [key(1)]);
    both.store.remember_key(&openid, &key(2)).await.unwrap();
    both.store.remember_key(&openid, &key(1)).await.unwrap();
    let ring = both.store.keys(&openid).await.unwrap();
    assert_eq!(ring.into_keys(), [key(1), key(2)], "once, by whichever key");

    let new = server.replica("\"new\"").ready().await;
    let ring = new.store.keys(&openid).await.unwrap();
    assert_eq!(ring.into_keys(), [key(1), key(2)]);
    let stranger = server.replica("\"another\"").ready().await;
    assert_eq!(stranger.store.keys(&openid).await, Ok(KeyRing::default()));
}

#[tokio::test]
async fn mini_programs_that_share_a_redis_know_nothing_of_each_other() {
    let server = Server::start();
    let ours = server.replica("\"secret\"").ready().await;
    let theirs = Replica::of(&server.config("wxfedcba9876543210", "\"secret\""))
        .ready()
        .await;
    let openid = user("same");
    ours.store.remember_key(&openid, &key(1)).await.unwrap();
    assert_eq!(theirs.store.keys(&openid).await, Ok(KeyRing::default()));
    // A reload may change the Mini Program; then its own revocations count.
    let revoked = granted(&openid, NOW).claims;
    theirs.store.revoke(revoked.session).await.unwrap();
    ours.store
        .rekey(&server.config("wxfedcba9876543210", "\"secret\""));
    until("they are loaded", async || ours.store.is_revoked(&revoked)).await;
}

#[tokio::test]
async fn without_redis_the_answer_is_no_at_once() {
    let server = Server::start();
    let config = server.config(APPID, "\"secret\"");
    drop(server);
    let replica = Replica::of(&config);
    let revoked = granted(&user("away"), NOW).claims;
    let claimed = replica.store.claim_login(&[1; 32], LEASE).await;
    assert_eq!(claimed.err(), Some(Unavailable("away")));
    assert!(replica.store.revoke(revoked.session).await.is_err());
    assert!(
        replica.store.is_revoked(&revoked),
        "here it counts all the same"
    );
    assert!(replica.store.health().failure.is_some());
}
