//! The configuration, as meant.
//!
//! `raw` is what was written, `check` turns it into [`Config`] and reports every mistake at once. Code outside this
//! module sees only values that make sense.

mod api_security;
mod check;
mod diagnostic;
mod effective;
mod files;
mod mask;
mod pod;
mod raw;
mod reference;
mod schema;
mod source;
mod tls;
mod values;
mod words;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::AppId;
use crate::secret::Secret;
use crate::wechat::content_check::Scene;
use crate::wechat::push::{EncodingAesKey, Format};

pub use crate::wechat::api_security::ApiSecurity;
use diagnostic::Fault;
pub use diagnostic::{Diagnostic, Level, Position, Report};
pub use effective::Effective;
pub use files::Inputs;
pub(crate) use pod::Pod;
pub use reference::TEXT as REFERENCE_TEXT;
pub use schema::schema;
pub(crate) use source::Attempt;
pub use source::Loaded;
pub use tls::{Authorities, Tls};

/// Everything the sidecar was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who we are at WeChat.
    pub app: App,
    /// The side that faces the Mini Program.
    pub inbound: Inbound,
    /// Rules by path, first match wins.
    pub routes: Vec<Route>,
    /// Our own tokens.
    pub session: Session,
    /// What WeChat encrypts for phones.
    pub open_data: OpenData,
    /// Where and how WeChat is called.
    pub wechat: Wechat,
    /// The side that faces the app, for its calls to WeChat.
    pub outbound: Outbound,
    /// What WeChat sends of itself, if it is to.
    pub push: Option<Push>,
    /// Files that go to WeChat and come from there.
    pub media: Media,
    /// Where state lives.
    pub store: Store,
    /// The side that faces operators.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
    /// What is traced, and where that goes.
    pub trace: Trace,
}

/// `[app]`
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// The Mini Program's AppID.
    pub appid: AppId,
    /// The AppSecret, newest first; more than one during a rotation.
    pub secrets: Vec<Secret>,
    /// The value of `X-WX-ENV`, CloudRun's environment id.
    pub env: String,
}

/// `[inbound]`
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Where the Mini Program's traffic comes in.
    pub listen: Listen,
    /// The app.
    pub upstream: Upstream,
    /// The path under which the sidecar's own endpoints live; begins with `/`, ends without.
    pub prefix: String,
    /// Who may pass where no route says otherwise.
    pub auth: Auth,
    /// How many threads serve; one runtime, listener and pool each. At least 1.
    pub workers: usize,
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether these peers begin each connection with a PROXY header that says who the client is.
    pub proxy_protocol: bool,
    /// The largest body a client may send, in bytes.
    pub body_limit: u64,
    /// The largest header section, in bytes.
    pub header_limit: usize,
    /// How long the app may be silent while we wait for it.
    pub timeout: Duration,
    /// How long a connection to the app may take.
    pub connect_timeout: Duration,
    /// How long a client may take to send a header section.
    pub header_timeout: Duration,
    /// How long a connection may stay without a request, and a body without a byte.
    pub idle_timeout: Duration,
    /// How long a WebSocket, or another protocol that was switched to, may be silent in both directions.
    pub tunnel_timeout: Duration,
    /// How many client connections are held at once; more wait in the listener's queue.
    pub max_connections: usize,
    /// How many requests are dealt with at once.
    pub max_requests: usize,
    /// How many bytes of bodies that are read as a whole are held at once.
    pub buffer_limit: u64,
    /// How many requests one user or client may send, on each route that does not say otherwise.
    pub rate_limit: Option<RateLimit>,
    /// How many logins and refreshes one client address may ask for.
    pub login_rate_limit: Option<RateLimit>,
    /// How long the sidecar says "not ready" before it stops accepting.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// What becomes of `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// TLS, if clients are to speak it.
    pub tls: Option<Tls>,
}

/// Where the sidecar listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// `unix:/path/to.sock`
    Unix(PathBuf),
}

/// Where the app listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// `http://host:port`
    Tcp {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path/to.sock`
    Unix(PathBuf),
    /// `h2c://host:port`: HTTP/2 without TLS, by prior knowledge, for gRPC.
    H2c {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
    },
}

/// Who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Only with a good token.
    Required,
    /// With a good token or with none.
    Optional,
    /// Everybody, anonymously.
    None,
}

/// What becomes of an escaped slash in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// 400.
    Reject,
    /// Forwarded as it came, as an ordinary character of its segment.
    Keep,
}

/// A network, such as `10.0.0.0/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The network's address.
    pub addr: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

/// So many requests, such as `10/s burst 20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many in each period, in the long run; at least 1.
    pub count: u32,
    /// The period.
    pub per: Duration,
    /// How many at once, after a rest; at least 1.
    pub burst: u32,
}

/// Who is believed to say who the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Those with an address.
    pub networks: Vec<Cidr>,
    /// Those who come through a Unix socket, which have none.
    pub unix: bool,
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The pattern as written, such as `/api/**`; also the route's name in metrics.
    pub path: String,
    /// The methods it is for, upper-case; empty for all.
    pub methods: Vec<String>,
    /// Who may pass.
    pub auth: Auth,
    /// The app's own login path: the JSON field `code` is exchanged on the way.
    pub login: bool,
    /// Open data in JSON bodies is decrypted on the way.
    pub open_data: bool,
    /// Files in forms are uploaded on the way, and the app finds their media_ids.
    pub media_upload: bool,
    /// What WeChat is asked about before the app sees it.
    pub text_check: Option<TextCheck>,
    /// Instead of `[inbound] timeout`.
    pub timeout: Duration,
    /// Instead of `[inbound] body_limit`.
    pub body_limit: u64,
    /// Instead of `[inbound] rate_limit`.
    pub rate_limit: Option<RateLimit>,
    /// Instead of `[inbound] upstream`.
    pub upstream: Upstream,
}

/// `text_check` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextCheck {
    /// Where the texts are: members of the app's JSON body or form, such as `post.title`. One at least.
    pub fields: Vec<String>,
    /// Where they will stand.
    pub scene: Scene,
    /// What becomes of a text that WeChat would have somebody look at.
    pub on_review: Verdict,
    /// What becomes of a text that WeChat does not judge, because it fails.
    pub on_failure: Verdict,
}

/// What becomes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The app gets it.
    Pass,
    /// The app does not get it.
    Refuse,
}

/// `[session]`
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// How long a refresh token lives.
    pub refresh_ttl: Duration,
    /// How long after a refresh the spent token may be shown again by a client that lost the answer.
    pub refresh_grace: Duration,
    /// Keys the tokens are sealed with, newest first; empty: derived from the app's secrets.
    pub keys: Vec<Secret>,
    /// Whether the app gets a signed assertion of who the user is with each request.
    pub assertion: bool,
}

/// `[open_data]`
#[derive(Clone, Debug, PartialEq)]
pub struct OpenData {
    /// How long ago it may have been encrypted; `None` for any time.
    pub max_age: Option<Duration>,
}

/// `[wechat]`
#[derive(Clone, Debug, PartialEq)]
pub struct Wechat {
    /// Base URLs without a path, such as `https://api.weixin.qq.com`; later ones are for when the first cannot be reached.
    pub endpoints: Vec<Endpoint>,
    /// Who vouches for them, if not the usual authorities do.
    pub authorities: Option<Authorities>,
    /// Who stands between us and them, if we do not reach them ourselves.
    pub egress_proxy: Option<EgressProxy>,
    /// How long a connection may take, the way through the proxy and TLS included.
    pub connect_timeout: Duration,
    /// How long a whole call may take.
    pub timeout: Duration,
    /// Calls that are encrypted and signed, if any are, and with what.
    pub api_security: Option<Arc<ApiSecurity>>,
    /// When calls are held back.
    pub breaker: Breaker,
    /// What virtual payment signs with.
    pub virtual_payment: VirtualPayment,
}

/// `[wechat.breaker]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Whether calls are held back at all.
    pub enabled: bool,
    /// After how many failures in a row; more than none.
    pub failures: usize,
    /// How long at first.
    pub min_pause: Duration,
    /// How long at the most; not less than at first.
    pub max_pause: Duration,
}

/// `[wechat.virtual_payment]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualPayment {
    /// The AppKey of the real world (`"env": 0`).
    pub app_key: Option<Secret>,
    /// The AppKey of the sandbox (`"env": 1`).
    pub sandbox_app_key: Option<Secret>,
}

/// `[outbound]`
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Where the app's calls to WeChat come in; `None` for nowhere.
    pub listen: Option<Listen>,
    /// What a caller must show, newest first; empty if who can reach the listener may call.
    pub caller_tokens: Vec<Secret>,
    /// The paths that may be called, as patterns.
    pub allow: Vec<String>,
    /// Those of them that may not.
    pub deny: Vec<String>,
    /// How the app is told of WeChat's errors if it does not say.
    pub errors: Errors,
    /// How long WeChat may be silent while its answer is waited for.
    pub timeout: Duration,
    /// The largest body in either direction, in bytes.
    pub body_limit: u64,
    /// The largest request body that is kept for a second attempt, in bytes.
    pub replay_limit: u64,
    /// How many calls are dealt with at once.
    pub max_requests: usize,
    /// How often WeChat is asked what is left of quotas; `None` for never.
    pub quota_interval: Option<Duration>,
}

/// How WeChat's errors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// As they came, with headers beside them that say what they mean.
    Raw,
    /// As problem+json with a status of their own.
    Problem,
}

/// `[push]`
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// What WeChat signs with, newest first; more than one during a rotation, never none.
    pub tokens: Vec<Secret>,
    /// What messages are encrypted with, newest first; none only in the mode that needs none.
    pub aes_keys: Vec<EncodingAesKey>,
    /// How much of its security WeChat was told to use.
    pub mode: PushMode,
    /// What messages are written in; `None` if each says it itself by its first character.
    pub format: Option<Format>,
    /// How old the timestamp of a push may be, and how far ahead; `None` for any.
    pub max_age: Option<Duration>,
    /// What becomes of a message that no route takes.
    pub delivery: Delivery,
    /// What becomes of some messages instead; the first that matches.
    pub routes: Vec<PushRoute>,
    /// How long the app may take to answer one.
    pub timeout: Duration,
    /// How many are delivered at once; at least 1.
    pub concurrency: usize,
    /// The longest time between two attempts.
    pub retry_cap: Duration,
    /// How long a message is tried before it becomes a dead letter.
    pub retry_for: Duration,
    /// The directory of the journal; without one, messages wait in memory.
    pub journal: Option<PathBuf>,
    /// Whether a message is on the disk, and not only with the system, before WeChat is told that it is here.
    pub fsync: bool,
    /// How many messages may wait, and how many dead letters are kept; at least 1.
    pub max_waiting: usize,
    /// How many bytes those may have that wait, and as many the dead letters.
    pub max_bytes: u64,
}

/// How much of its security WeChat uses for pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushMode {
    /// Nothing is encrypted, and the signature does not cover the message (明文模式).
    Plaintext,
    /// Each message comes twice, in clear and encrypted; only what is encrypted counts (兼容模式).
    Compatible,
    /// Encrypted and signed (安全模式).
    Secure,
}

/// Where in the app a message goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The path, which may have a query.
    pub path: String,
    /// Who answers WeChat.
    pub reply: Reply,
    /// What the message is wrapped in.
    pub envelope: PushEnvelope,
}

/// Who answers WeChat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The sidecar, as soon as the message is safe.
    Ack,
    /// The app, if it does in time.
    Wait,
}

/// What the app gets a message in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushEnvelope {
    /// Nothing: the body is the message.
    Plain,
    /// A CloudEvent in structured mode (CloudEvents 1.0, JSON format).
    CloudEvents,
}

/// `[[push.route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRoute {
    /// The type that the message must have.
    pub msg_type: Option<String>,
    /// The event that it must be.
    pub event: Option<String>,
    /// What its text must be like; `*` stands for any characters.
    pub content: Option<String>,
    /// What becomes of it.
    pub delivery: Delivery,
}

/// A base URL of WeChat's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// TLS or (for simulators) not.
    pub tls: bool,
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An HTTP proxy that connects us to WeChat when it is asked by CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressProxy {
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
    /// What it knows us by, if it asks.
    pub credentials: Option<ProxyCredentials>,
}

/// A user of a proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// The user's name, which has no colon; may be empty.
    pub user: String,
    /// The user's password; may be empty.
    pub password: Secret,
}

/// `[media]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Whether media are dealt with at all.
    pub enabled: bool,
    /// What the URLs of media begin with, without a slash at the end; without it they begin with our path.
    pub base_url: Option<String>,
    /// How long a signed URL is good.
    pub url_ttl: Duration,
    /// How many bytes of media are kept in memory; none if 0.
    pub memory_cache_size: u64,
    /// Where media are kept on the disk; without it they are not.
    pub cache_dir: Option<PathBuf>,
    /// How many bytes of them.
    pub cache_size: u64,
    /// Where films may be fetched: hosts, or `*.` and the end of hosts, in lower case.
    pub video_hosts: Vec<String>,
    /// How large an upload may be.
    pub max_size: MediaSizes,
    /// If WeChat is to look at uploads.
    pub check: Option<MediaCheck>,
}

/// `[media.max_size]`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaSizes {
    /// Pictures.
    pub image: u64,
    /// Sound.
    pub voice: u64,
    /// Films.
    pub video: u64,
    /// Small pictures in messages.
    pub thumb: u64,
}

/// `[media.check]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaCheck {
    /// Where uploads will stand.
    pub scene: Scene,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// In this process.
    Memory,
    /// In a Redis that replicas share.
    #[cfg(feature = "redis")]
    Redis(Redis),
}

/// `[store]` of the kind "redis".
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// Whom to connect to, one at least; those of a Cluster differ in nothing but their place.
    pub nodes: Vec<RedisNode>,
    /// What they are.
    pub mode: RedisMode,
    /// Who vouches for them, in PEM, if not the usual authorities do.
    pub ca: Option<Vec<u8>>,
    /// How long a command may take.
    pub timeout: Duration,
    /// Whether the sidecar is not ready without it.
    pub required: bool,
}

/// What the nodes of a Redis are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// The one that is used.
    Single,
    /// Sentinels, which know the place of the master that is used.
    Sentinel {
        /// What they call it.
        master: String,
    },
    /// Some of a Cluster's; they name the others.
    Cluster,
}

/// A Redis server's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// Where it is.
    pub place: RedisPlace,
    /// TLS or not.
    pub tls: bool,
    /// The number of the database.
    pub database: u16,
    /// The user's name, if it is not the default one.
    pub user: Option<String>,
    /// The user's password, if there is one.
    pub password: Option<Secret>,
}

/// Where a Redis server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisPlace {
    /// An address and a port.
    Tcp {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where operators, the kubelet and Prometheus come in.
    pub listen: Listen,
    /// What is shown for more than probes and metrics, newest first; if there are none, only this machine gets more.
    pub tokens: Vec<Secret>,
    /// Whether what goes through is shown on a page there.
    pub inspector: bool,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// JSON lines or text for people.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: tracing::Level,
    /// Parts of the sidecar, by the names of its modules, that are heard at a level of their own.
    pub levels: Vec<(&'static str, tracing::Level)>,
    /// Which requests get a line of their own.
    pub access: AccessLog,
    /// Of how many requests that went well one gets a line.
    pub access_sample: usize,
    /// Whether such a line says the path, without the query.
    pub access_path: bool,
}

/// Which requests get a line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// All.
    All,
    /// Those that were answered with a status from 400 on, or with none.
    Errors,
    /// None.
    Off,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Pretty,
}

/// `[trace]`
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Where spans go: the base URL of a collector's OTLP over HTTP, without a slash at its end.
    pub endpoint: Option<String>,
    /// The share of traces that is recorded, from 0 to 1; [`Trace::USUAL_SAMPLE`] if nobody says so.
    pub sample: Option<f64>,
    /// What the sidecar is called in them.
    pub service: Option<String>,
    /// What becomes of the trace of a client that is not trusted.
    pub clients: ClientTrace,
}

/// What becomes of the trace of a client that is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTrace {
    /// It ends here, and ours has a link to it.
    New,
    /// It goes on. Whether it is recorded is decided here nevertheless.
    Continue,
}

impl Trace {
    /// The share of traces that is recorded if nobody says otherwise.
    pub const USUAL_SAMPLE: f64 = 0.1;
}

impl Upstream {
    /// The host and the port, or the path of the socket.
    pub(crate) fn place(&self) -> (String, Option<u16>) {
        match self {
            Self::Tcp { host, port } | Self::H2c { host, port } => (host.clone(), Some(*port)),
            Self::Unix(path) => (path.display().to_string(), None),
        }
    }
}

impl Config {
    /// What the sidecar's own keys are derived from, newest first: `[session] key`, or else the AppSecrets.
    pub fn sealing_secrets(&self) -> &[Secret] {
        match self.session.keys.as_slice() {
            [] => &self.app.secrets,
            keys => keys,
        }
    }
}

#[cfg(test)]
impl Wechat {
    /// What is said of WeChat by a configuration that says only this.
    pub(crate) fn at(
        endpoints: Vec<Endpoint>,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Self {
        let least = "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                     [inbound]\nupstream = \"http://127.0.0.1:1\"\n";
        let config = Config::from_toml(least).unwrap();
        Self {
            endpoints,
            connect_timeout,
            timeout,
            ..config.wechat
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    /// As in the file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        values::listen(text).map_err(Fault::into_text)
    }
}

impl FromStr for Upstream {
    type Err = String;

    /// As in the file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        values::upstream(text).map_err(Fault::into_text)
    }
}

/// As it is configured.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As it is configured.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "http://{}", HostPort(host, *port)),
            Self::H2c { host, port } => write!(f, "h2c://{}", HostPort(host, *port)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As it is configured, with its port.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", HostPort(&self.host, self.port))
    }
}

/// A host and a port, as a URL has them.
struct HostPort<'a>(&'a str, u16);

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.contains(':') {
            true => write!(f, "[{}]:{}", self.0, self.1),
            false => write!(f, "{}:{}", self.0, self.1),
        }
    }
}

/// So that it can be connected to; a Unix socket cannot be, in this way.
impl ToSocketAddrs for Listen {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self {
            Self::Tcp(addr) => Ok(Some(*addr).into_iter()),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl TrustedProxies {
    /// Whether this peer is one of them; `None` came through a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.unix,
        }
    }
}

impl Cidr {
    /// Whether `addr` lies in this network. An IPv4 address in IPv6 clothes counts as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                shift == 32 || (net.to_bits() ^ addr.to_bits()) >> shift == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || (net.to_bits() ^ addr.to_bits()) >> shift == 0
            }
            _ => false,
        }
    }
}
