//! The connection to Redis: made, watched and made anew in the background, and used by whoever has something to ask.
//!
//! Nobody who asks ever waits for a connection. While there is none, or too much is under way, the answer is no, at once;
//! a command that is not answered in time, or answered with anything but an answer, takes the connection out of use, so
//! that one finds out and not all who come. What watches it ([`Link::keep`]) proves a new connection by a write
//! before anybody gets it: a replica, a full memory or a user without rights would let itself be connected to.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates,
    Value,
};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::config::{Redis, RedisMode, RedisNode, RedisPlace};
use crate::telemetry::store::StoreMetrics;

/// How long a connection may take to be made, greeting and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one Sentinel may take; there are others.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a connection that nobody complains about is proved.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How many commands may be under way; at 200 ms each, more than Redis would be asked in a storm.
const MOST_IN_FLIGHT: usize = 1024;
/// Between two attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

const AWAY: &str = "away";
const BUSY: &str = "busy";
const TIMEOUT: &str = "timeout";
const ERROR: &str = "error";
const OK: &str = "ok";

/// The way to Redis, and the connection in use.
pub(crate) struct Link {
    config: Redis,
    open: ArcSwapOption<Connection>,
    /// Counts connections that were put to use.
    made: AtomicU64,
    broken: Notify,
    /// Another connection to the same Redis has failed.
    doubted: Notify,
    in_flight: AtomicUsize,
    /// The Sentinel that is asked first: the one that knew last time.
    sentinel: AtomicUsize,
    /// Why the last connection is not in use. Guards a text; held to read or replace it.
    why: Mutex<Option<Cow<'static, str>>>,
}

/// A connection that many can use at once; which is why it is cloned to be used.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no answer that could be used.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It cannot be asked now; why, in a word.
    Away(&'static str),
    /// What is there under this name is no value of ours, but a list or the like.
    Foreign,
}

/// Pauses that grow as long as nothing comes of what is between them.
pub(crate) struct Pauses(Duration);

/// A place among the commands under way.
struct Place<'a>(&'a AtomicUsize);

impl Link {
    /// Connects to nobody yet, and needs no runtime.
    pub(crate) fn new(config: &Redis) -> Self {
        if config.nodes.iter().any(|node| node.tls) {
            // The library takes the process' provider, which there is unless two are built in and nobody has chosen.
            let _chosen_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Self {
            config: config.clone(),
            open: ArcSwapOption::empty(),
            made: AtomicU64::new(0),
            broken: Notify::new(),
            doubted: Notify::new(),
            in_flight: AtomicUsize::new(0),
            sentinel: AtomicUsize::new(0),
            why: Mutex::new(Some("not connected yet".into())),
        }
    }

    /// Asks, within the deadline.
    pub(crate) async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
        metrics: &StoreMetrics,
    ) -> Result<T, Failure> {
        let not_sent = |why| {
            metrics.not_sent(operation, why);
            Failure::Away(why)
        };
        let connection = self.open.load_full().ok_or_else(|| not_sent(AWAY))?;
        let _place = Place::take(&self.in_flight).ok_or_else(|| not_sent(BUSY))?;
        let began = Instant::now();
        let mut user = Connection::clone(&connection);
        let answer = timeout(self.config.timeout, command.query_async(&mut user)).await;
        let took = began.elapsed();
        let (result, why) = match answer {
            Ok(Ok(value)) => {
                metrics.request(operation, OK, took);
                return Ok(value);
            }
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => {
                metrics.request(operation, OK, took);
                return Err(Failure::Foreign);
            }
            Ok(Err(error)) => (ERROR, reason(&error)),
            Err(_) => (TIMEOUT, "no answer in time".into()),
        };
        metrics.request(operation, result, took);
        self.take_out_of_use(&connection, why);
        Err(Failure::Away(result))
    }

    /// Keeps a connection in use for as long as one can be had. `probe` makes a command that writes; `told` hears of changes.
    pub(crate) async fn keep(
        &self,
        probe: impl Fn() -> Cmd,
        metrics: &StoreMetrics,
        told: impl Fn(),
    ) {
        let mut pauses = Pauses::new();
        loop {
            let began = Instant::now();
            metrics.connecting();
            match self.connect_and_prove(&probe()).await {
                Ok(connection) => {
                    self.put_to_use(connection);
                    told();
                    self.watch(&probe).await;
                }
                Err(why) => self.note(Some(why)),
            }
            told();
            pauses.pause(began.elapsed()).await;
        }
    }

    /// A connection of one's own; an answer may take `patience`.
    pub(crate) async fn connect(&self, patience: Duration) -> RedisResult<Connection> {
        let nodes = &self.config.nodes;
        match &self.config.mode {
            RedisMode::Single => self.connect_to(&nodes[0], patience).await,
            RedisMode::Sentinel { master } => {
                let node = self.ask_sentinels(master).await?;
                self.connect_to(&node, patience).await
            }
            RedisMode::Cluster => self.connect_to_cluster(patience).await,
        }
    }

    /// Has the connection in use proved at once: another one to the same Redis has failed, and the first to use this one
    /// should not be whoever logs in next.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// How many connections have been put to use: another number, and Redis may be another one.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// Why there is no connection in use, if there is none.
    pub(crate) fn why_away(&self) -> Option<Cow<'static, str>> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
    }

    async fn connect_and_prove(&self, probe: &Cmd) -> Result<Connection, Cow<'static, str>> {
        let connected = self.connect(self.config.timeout).await;
        let connection = connected.map_err(|error| reason(&error))?;
        self.prove(&connection, probe).await?;
        Ok(connection)
    }

    async fn prove(&self, connection: &Connection, probe: &Cmd) -> Result<(), Cow<'static, str>> {
        let mut connection = connection.clone();
        let proof = probe.exec_async(&mut connection);
        match timeout(self.config.timeout, proof).await {
            Ok(proved) => proved.map_err(|error| reason(&error)),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// Returns when the connection is out of use.
    async fn watch(&self, probe: &impl Fn() -> Cmd) {
        while let Some(connection) = self.open.load_full() {
            tokio::select! {
                () = self.broken.notified() => continue,
                () = self.doubted.notified() => {}
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
            if let Err(why) = self.prove(&connection, &probe()).await {
                self.take_out_of_use(&connection, why);
            }
        }
    }

    fn put_to_use(&self, connection: Connection) {
        self.note(None);
        self.made.fetch_add(1, Ordering::Release);
        self.open.store(Some(Arc::new(connection)));
    }

    /// Only the one that failed: whoever asked it may be late, and another be in use.
    fn take_out_of_use(&self, connection: &Arc<Connection>, why: Cow<'static, str>) {
        let before = self.open.compare_and_swap(connection, None);
        if before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, connection))
        {
            self.note(Some(why));
            self.broken.notify_one();
        }
    }

    fn note(&self, why: Option<Cow<'static, str>>) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    async fn connect_to(&self, node: &RedisNode, patience: Duration) -> RedisResult<Connection> {
        let config = connection_config(CONNECT_TIMEOUT, patience);
        let connection = self
            .client(node)?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Connection::One(connection))
    }

    async fn connect_to_cluster(&self, patience: Duration) -> RedisResult<Connection> {
        let nodes: RedisResult<Vec<_>> = self.config.nodes.iter().map(information).collect();
        let mut builder = ClusterClientBuilder::new(nodes?)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(patience)
            .tcp_settings(tcp_settings())
            .retries(2)
            .min_retry_wait(10)
            .max_retry_wait(50);
        if self.config.nodes.iter().any(|node| node.tls) {
            builder = builder.certs(self.certificates());
        }
        let client = builder.build()?;
        let connecting = timeout(CONNECT_TIMEOUT, client.get_async_connection());
        let connected = connecting.await.unwrap_or_else(|_| Err(too_slow()));
        Ok(Connection::Cluster(connected?))
    }

    /// Where the master is. A Sentinel that is not there, or does not know, is passed over.
    async fn ask_sentinels(&self, master: &str) -> RedisResult<RedisNode> {
        let sentinels = &self.config.nodes;
        let first = self.sentinel.load(Ordering::Relaxed);
        let mut why = too_slow();
        for turn in 0..sentinels.len() {
            let index = (first + turn) % sentinels.len();
            let sentinel = &sentinels[index];
            match self.ask_sentinel(sentinel, master).await {
                Ok(place) => {
                    self.sentinel.store(index, Ordering::Relaxed);
                    return Ok(RedisNode {
                        place,
                        ..sentinel.clone()
                    });
                }
                Err(error) => why = error,
            }
        }
        // Whoever knew last time may be the one that is wrong.
        self.sentinel
            .store(first.wrapping_add(1), Ordering::Relaxed);
        Err(why)
    }

    async fn ask_sentinel(&self, sentinel: &RedisNode, master: &str) -> RedisResult<RedisPlace> {
        let with_password = RedisNode {
            database: 0,
            ..sentinel.clone()
        };
        let without = RedisNode {
            user: None,
            password: None,
            ..with_password.clone()
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let config = connection_config(SENTINEL_TIMEOUT, SENTINEL_TIMEOUT);
        let ask = async |node: &RedisNode| -> RedisResult<Option<(String, u16)>> {
            let client = self.client(node)?;
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            command.query_async(&mut connection).await
        };
        let place = match ask(&with_password).await {
            Err(error) if sentinel.password.is_some() && !error.is_io_error() => {
                ask(&without).await?
            }
            place => place?,
        };
        let unknown = (
            ErrorKind::MasterNameNotFoundBySentinel,
            "no such master is known to the Sentinels",
        );
        let (host, port) = place.ok_or_else(|| RedisError::from(unknown))?;
        Ok(RedisPlace::Tcp { host, port })
    }

    fn client(&self, node: &RedisNode) -> RedisResult<Client> {
        let information = information(node)?;
        match node.tls {
            true => Client::build_with_tls(information, self.certificates()),
            false => Client::open(information),
        }
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: None,
            root_cert: self.config.ca.clone(),
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(SHORTEST_PAUSE)
    }

    /// Pauses after something that went on for `lasted`. What held for a while deserves to be had again soon.
    pub(crate) async fn pause(&mut self, lasted: Duration) {
        if lasted > 2 * LONGEST_PAUSE {
            self.0 = SHORTEST_PAUSE;
        }
        tokio::time::sleep(self.0).await;
        self.0 = (2 * self.0).min(LONGEST_PAUSE);
    }
}

impl<'a> Place<'a> {
    fn take(in_flight: &'a AtomicUsize) -> Option<Self> {
        let place = Self(in_flight);
        let before = in_flight.fetch_add(1, Ordering::Relaxed);
        (before < MOST_IN_FLIGHT).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A Redis that answers, and what becomes of what is written to it.
pub(crate) struct Examined {
    /// `maxmemory-policy`, if it says; a Cluster has one for each node.
    pub(crate) policy: Option<String>,
    /// Whether its memory has a limit, at which that policy holds.
    pub(crate) is_limited: bool,
}

/// Connects, asks whether anybody is there and what the memory's policy is; why not, if it cannot be used.
pub(crate) async fn examine(redis: &Redis) -> Result<Examined, Cow<'static, str>> {
    let told = |error: RedisError| reason(&error);
    let asked = async {
        let mut connection = Link::new(redis)
            .connect(redis.timeout)
            .await
            .map_err(told)?;
        redis::cmd("PING")
            .exec_async(&mut connection)
            .await
            .map_err(told)?;
        let mut memory = redis::cmd("INFO");
        memory.arg("memory");
        // Users may have no right to ask, and nodes of a Cluster answer each for itself.
        let answer: RedisResult<String> = memory.query_async(&mut connection).await;
        Ok::<_, Cow<'static, str>>(answer.unwrap_or_default())
    };
    let memory = timeout(CONNECT_TIMEOUT + 3 * redis.timeout, asked)
        .await
        .map_err(|_| Cow::from("no answer in time"))??;
    let says = |name: &str| {
        let mut lines = memory.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    Ok(Examined {
        policy: says("maxmemory_policy").map(str::to_owned),
        is_limited: says("maxmemory").is_some_and(|limit| limit != "0"),
    })
}

/// What an error is called in the log and on `/readyz`: Redis' own word for it, or what the system says. Never what else
/// Redis says, which may be anything.
pub(crate) fn reason(error: &RedisError) -> Cow<'static, str> {
    let is_word = |code: &&str| {
        let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        (1..=20).contains(&code.len()) && code.bytes().all(upper)
    };
    if let Some(code) = error.code().filter(is_word) {
        return match code {
            "ERR" => "Redis refuses a command".into(),
            _ => code.to_owned().into(),
        };
    }
    if error.is_timeout() {
        return "no answer in time".into();
    }
    match error.kind() {
        ErrorKind::Io => {
            let printable = |c: char| if c.is_control() { ' ' } else { c };
            let text = error.to_string();
            text.chars()
                .map(printable)
                .take(120)
                .collect::<String>()
                .into()
        }
        ErrorKind::AuthenticationFailed => "the password is refused".into(),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            "this is not how Redis answers".into()
        }
        _ => error.category().to_owned().into(),
    }
}

fn information(node: &RedisNode) -> RedisResult<ConnectionInfo> {
    let address = match (&node.place, node.tls) {
        (RedisPlace::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (RedisPlace::Tcp { host, port }, false) => ConnectionAddr::Tcp(host.clone(), *port),
        (RedisPlace::Tcp { host, port }, true) => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    };
    let mut settings = RedisConnectionInfo::default()
        .set_db(i64::from(node.database))
        .set_skip_set_lib_name();
    if let Some(user) = &node.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &node.password {
        settings = settings.set_password(password.expose());
    }
    let information = address.into_connection_info()?;
    Ok(information
        .set_redis_settings(settings)
        .set_tcp_settings(tcp_settings()))
}

fn connection_config(connect: Duration, answer: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect))
        .set_response_timeout(Some(answer))
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn too_slow() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
