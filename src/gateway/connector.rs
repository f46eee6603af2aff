//! The way to a server of WeChat's: a TCP connection, through a proxy if one is configured, with TLS.
//!
//! All of it must be done within one timeout, and what went wrong on the way says where. Until it is done nothing has
//! been sent to WeChat, so that every [`Unconnected`] is a reason to try the next endpoint.

use std::error::Error as StdError;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::{Authority, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_rustls::{ConfigBuilderExt as _, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use zeroize::Zeroizing;

use super::names::Names;
use super::payload::Cause;
use crate::config;

/// Connects to WeChat for a pool of hyper's. Clones share all but their state.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Names>,
    proxy: Option<Arc<Proxy>>,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    home: Option<Handle>,
}

/// A connection, encrypted if the URL asked for that.
pub(super) type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// The server, or the name of it, was not there.
    #[error("no connection to {0}")]
    Server(Authority, #[source] Cause),
    /// The proxy was not there, or did not let us through.
    #[error("no connection to {to} through the egress proxy {proxy}")]
    Proxy {
        proxy: Authority,
        to: Authority,
        source: Cause,
    },
    /// The sidecar is ending.
    #[error("connections are being brought to their end")]
    Ending(#[source] JoinError),
    /// The server is not who it should be, or speaks no TLS that is good enough.
    #[error("no TLS with {0}")]
    Tls(Authority, #[source] Cause),
}

/// What is told if nothing better is known.
pub(super) const NO_CONNECTION: (&str, &str) = ("no connection to WeChat", "无法连接微信服务器");

/// What a proxy did instead of connecting us.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the proxy cannot be connected to")]
    Unreachable(#[source] Cause),
    #[error("the proxy wants a user and a password, and none is configured (HTTP 407)")]
    WantsCredentials,
    #[error("the proxy does not take the user or the password (HTTP 407)")]
    WrongCredentials,
    #[error("the proxy refused (HTTP {})", .0.as_u16())]
    Status(StatusCode),
    #[error("the proxy broke off, or its answer is not HTTP")]
    NotHttp(#[source] hyper::Error),
    #[error("the proxy spoke before the server was spoken to")]
    Premature,
}

/// A proxy that is asked by CONNECT (RFC 9110 §9.3.6). Has no `Debug`: it holds a password.
struct Proxy {
    authority: Authority,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

/// What connects to the endpoints of `wechat`. Needs no runtime yet. Connections are made on `home` if there is one: who opens
/// one is not who uses it last, and its sockets die with the runtime that they were opened on.
pub(super) fn connector(wechat: &config::Wechat, home: Option<Handle>) -> Connector {
    let names = Names::of_the_system(wechat.connect_timeout / 3);
    connector_by(wechat, names, home)
}

/// The same, to nothing but addresses like these.
pub(super) fn connector_to(
    wechat: &config::Wechat,
    only: fn(IpAddr) -> bool,
    home: Option<Handle>,
) -> Connector {
    connector_by(wechat, Names::only(only), home)
}

fn connector_by(wechat: &config::Wechat, names: Names, home: Option<Handle>) -> Connector {
    let mut tcp = HttpConnector::new_with_resolver(names);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Divided among the addresses of a name, so that a dead one leaves time for the next; IPv4 and IPv6 are raced.
    tcp.set_connect_timeout(Some(wechat.connect_timeout));
    Connector {
        tcp,
        proxy: wechat.egress_proxy.as_ref().map(Proxy::new).map(Arc::new),
        tls: Arc::new(tls(wechat.authorities.as_ref())),
        timeout: wechat.connect_timeout,
        home,
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Unconnected;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Unconnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut this = self.clone();
        let home = self.home.clone();
        let connecting = async move { this.connect(to).await };
        match home {
            None => Box::pin(connecting),
            Some(home) => Box::pin(async move {
                let connected = home.spawn(connecting).await;
                connected.unwrap_or_else(|gone| Err(Unconnected::Ending(gone)))
            }),
        }
    }
}

impl Connector {
    async fn connect(&mut self, to: Uri) -> Result<Connection, Unconnected> {
        let deadline = Instant::now() + self.timeout;
        let is_tls = to.scheme() == Some(&Scheme::HTTPS);
        let authority = with_port(&to, if is_tls { 443 } else { 80 });
        let stream = match &self.proxy {
            None => in_time(deadline, self.tcp.call(to))
                .await
                .map_err(|cause| Unconnected::Server(authority.clone(), cause))?,
            Some(proxy) => in_time(deadline, proxy.connect(&mut self.tcp, &authority))
                .await
                .map_err(|source| Unconnected::Proxy {
                    proxy: proxy.authority.clone(),
                    to: authority.clone(),
                    source,
                })?,
        };
        if !is_tls {
            return Ok(MaybeHttpsStream::Http(stream));
        }
        let encrypted = in_time(deadline, encrypt(&self.tls, stream, authority.host())).await;
        encrypted.map_err(|cause| Unconnected::Tls(authority, cause))
    }
}

impl Unconnected {
    /// That which caused an error of the pool's, if one did.
    pub(super) fn behind<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(unconnected) = error.downcast_ref() {
                return Some(unconnected);
            }
            cause = error.source();
        }
        None
    }

    /// For the caller: which part of the way it was, and no names of ours.
    pub(super) fn told(&self) -> (&'static str, &'static str) {
        match self {
            Self::Server(..) => NO_CONNECTION,
            Self::Proxy { .. } => (
                "the egress proxy gives no connection to WeChat",
                "无法通过出口代理连接微信服务器",
            ),
            Self::Tls(..) => (
                "no trusted TLS with WeChat",
                "无法与微信服务器建立可信的 TLS 连接",
            ),
            Self::Ending(_) => ("the sidecar is ending", "sidecar 正在退出"),
        }
    }
}

impl Proxy {
    fn new(proxy: &config::EgressProxy) -> Self {
        let authority = authority(&proxy.host, proxy.port);
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority.clone())
            .path_and_query("/")
            .build()
            .expect("a scheme, an authority and a path are a URI");
        Self {
            authority,
            uri,
            authorization: proxy.credentials.as_ref().map(basic),
        }
    }

    /// A connection to the proxy that has become one to the server `to`.
    async fn connect(
        &self,
        tcp: &mut HttpConnector<Names>,
        to: &Authority,
    ) -> Result<TokioIo<TcpStream>, Refusal> {
        let stream = tcp.call(self.uri.clone()).await;
        let stream = stream.map_err(|error| Refusal::Unreachable(error.into()))?;
        let (mut sender, connection) = http1::handshake(stream).await.map_err(Refusal::NotHttp)?;
        let answer = pin!(sender.send_request(self.request(to)));
        // The connection is done with HTTP when it has become the server's, or has broken.
        let tunnel = pin!(connection.without_shutdown());
        let parts = match select(answer, tunnel).await {
            Either::Left((answer, tunnel)) => {
                self.judge(answer.map_err(Refusal::NotHttp)?.status())?;
                tunnel.await
            }
            Either::Right((parts, answer)) => {
                self.judge(answer.await.map_err(Refusal::NotHttp)?.status())?;
                parts
            }
        };
        let parts = parts.map_err(Refusal::NotHttp)?;
        // Nobody speaks before we do, neither in TLS nor in HTTP: what is there already is not the server's.
        if !parts.read_buf.is_empty() {
            return Err(Refusal::Premature);
        }
        Ok(parts.io)
    }

    fn request(&self, to: &Authority) -> Request<Empty<Bytes>> {
        let mut request = Request::connect(to.as_str())
            .header(HOST, to.as_str())
            .body(Empty::new())
            .expect("an authority is a target and a header's value");
        if let Some(authorization) = &self.authorization {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        request
    }

    fn judge(&self, status: StatusCode) -> Result<(), Refusal> {
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if self.authorization.is_none() => {
                Err(Refusal::WantsCredentials)
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Refusal::WrongCredentials),
            _ => Err(Refusal::Status(status)),
        }
    }
}

/// What `step` comes to, if it does by then.
async fn in_time<T, E: Into<Cause>>(
    deadline: Instant,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, Cause> {
    match timeout_at(deadline, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => Err("it took too long".into()),
    }
}

async fn encrypt(
    tls: &Arc<ClientConfig>,
    stream: TokioIo<TcpStream>,
    host: &str,
) -> Result<Connection, Cause> {
    let name = ServerName::try_from(without_brackets(host).to_owned())?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, TokioIo::new(stream)).await?;
    Ok(stream.into())
}

fn tls(authorities: Option<&config::Authorities>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of TLS 1.2 and 1.3");
    match authorities {
        None => builder.with_webpki_roots(),
        Some(authorities) => builder.with_root_certificates(Arc::clone(&authorities.0)),
    }
    .with_no_client_auth()
}

fn basic(credentials: &config::ProxyCredentials) -> HeaderValue {
    let config::ProxyCredentials { user, password } = credentials;
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    let text = Zeroizing::new(format!(
        "Basic {}",
        *Zeroizing::new(STANDARD.encode(&*pair))
    ));
    let mut value = HeaderValue::from_str(&text).expect("Base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

fn authority(host: &str, port: u16) -> Authority {
    let text = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    text.parse().expect("a host and a port are an authority")
}

fn with_port(uri: &Uri, usual: u16) -> Authority {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(usual);
    authority(without_brackets(host), port)
}

pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::mpsc;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    fn wechat(connect_timeout: Duration) -> config::Wechat {
        config::Wechat::at(Vec::new(), connect_timeout, Duration::from_secs(3600))
    }

    async fn connect(
        timeout: Duration,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        port: u16,
    ) -> Result<Connection, String> {
        let names = Names::by(lookup, timeout);
        let to = format!("http://api.test:{port}/").parse().unwrap();
        let outcome = connector_by(&wechat(timeout), names, None).call(to).await;
        outcome.map_err(|error| {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        })
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_told_at_once_and_one_that_hangs_in_time() {
        let unknown = |_: &str| Err(io::Error::other("Name or service not known"));
        let told = connect(Duration::from_secs(3600), unknown, 443).await;
        assert_eq!(
            told.err().as_deref(),
            Some("no connection to api.test:443: dns error: Name or service not known")
        );

        let (sender, never) = mpsc::channel::<()>();
        let never = std::sync::Mutex::new(never);
        let hangs = move |_: &str| {
            let _ = never.lock().unwrap().recv();
            Ok(Vec::new())
        };
        let told = connect(Duration::from_millis(20), hangs, 443).await;
        assert_eq!(
            told.err().as_deref(),
            Some("no connection to api.test:443: it took too long")
        );
        drop(sender);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_is_not_wanted_leads_nowhere() {
        let here = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = here.local_addr().unwrap().port();
        let to: Uri = format!("http://localhost:{port}/").parse().unwrap();
        let wechat = wechat(Duration::from_secs(60));
        let outcome = connector_to(&wechat, |_| true, None).call(to.clone()).await;
        assert!(outcome.is_ok(), "the name is one, and somebody listens");
        let refused = connector_to(&wechat, |ip| !ip.is_loopback(), None)
            .call(to)
            .await;
        let error = refused.err().unwrap();
        assert!(matches!(error, Unconnected::Server(..)), "{error}");
    }

    #[tokio::test]
    async fn behind_a_dead_address_the_next_is_tried() {
        let alive = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = alive.local_addr().unwrap().port();
        // The time is divided evenly: most of it is for the address that is alive, however late one comes to that.
        let both = |_: &str| Ok(vec![ELSEWHERE, HERE, HERE, HERE]);
        // Nobody listens there.
        let refused = connect(Duration::from_secs(60), both, port).await;
        assert!(refused.is_ok());
        // Nobody answers there.
        let hole = black_hole(SocketAddr::new(ELSEWHERE, port));
        let dead = connect(Duration::from_millis(20), |_| Ok(vec![ELSEWHERE]), port).await;
        assert!(dead.is_err());
        let silent = connect(Duration::from_secs(12), both, port).await;
        assert!(silent.is_ok());
        drop(hole);
    }

    /// A listener whose queue is full: it drops what would be one more connection, as a dead machine does.
    fn black_hole(at: SocketAddr) -> Vec<Socket> {
        let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = stream();
        listener.bind(&at.into()).unwrap();
        listener.listen(0).unwrap();
        let mut held = vec![listener];
        loop {
            let knock = stream();
            // Long, because a machine that is slow to let somebody in is not one whose queue is full.
            let outcome = knock.connect_timeout(&at.into(), Duration::from_secs(2));
            held.push(knock);
            if outcome.is_err() {
                return held;
            }
        }
    }
}
