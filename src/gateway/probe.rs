//! How WeChat can be reached, looked at step by step, for whoever asks why it cannot.
//!
//! A call says that there was no connection; here each step has a name and, if it fails, a remedy. The steps are those
//! of calls, by what connects for them: through the egress proxy, and by the same authorities.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use rustls::CertificateError;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower_service::Service as _;

use super::client::AGENT;
use super::connector::{Unconnected, connector};
use super::{Gateway, Memory};
use crate::config::{App, Endpoint, Wechat};
use crate::error::Error;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;

/// An endpoint that answers.
pub(crate) struct Reached {
    /// How far this machine's clock is ahead of its own, or behind; both have whole seconds. `None` if it does not say.
    pub(crate) ahead: Option<Skew>,
}

/// How far two clocks are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    /// This machine's is ahead, or right.
    Ahead(Duration),
    /// This machine's is behind.
    Behind(Duration),
}

/// Why an endpoint does not answer.
#[derive(Debug)]
pub(crate) struct Unreached {
    pub(crate) why: String,
    pub(crate) fix: &'static str,
}

/// The addresses that a name leads to, as the system says, within `patience`.
pub(crate) async fn look_up(host: &str, patience: Duration) -> Result<Vec<IpAddr>, String> {
    let (answer, found) = oneshot::channel();
    let place = (host.to_owned(), 0);
    // A thread of its own: a lookup cannot be stopped, and the runtime would wait for it when it ends.
    let lookup = move || {
        let addresses = place.to_socket_addrs();
        let _nobody_waits = answer.send(addresses.map(|found| found.map(|at| at.ip()).collect()));
    };
    let spawned = thread::Builder::new()
        .name("wx-names".to_owned())
        .spawn(lookup);
    spawned.map_err(|error| error.to_string())?;
    match timeout(patience, found).await {
        Ok(Ok(Ok(addresses))) => Ok(addresses),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("the lookup broke off".to_owned()),
        Err(_) => Err("it took too long".to_owned()),
    }
}

/// Connects to an endpoint as calls do, and asks it for nothing but its date.
pub(crate) async fn reach(wechat: &Wechat, endpoint: &Endpoint) -> Result<Reached, Unreached> {
    match timeout(wechat.timeout, ask(wechat, endpoint)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Unreached {
            why: "connected, and there is no answer in time ([wechat] timeout)".to_owned(),
            fix: "see whether something on the way holds the traffic back: a firewall, a proxy, the route",
        }),
    }
}

/// Asks WeChat for the app's access_token with this AppSecret; the token that all share, so nobody is disturbed.
pub(crate) async fn try_secret(app: &App, secret: &Secret, wechat: &Wechat) -> Result<(), Error> {
    let app = App {
        secrets: vec![secret.clone()],
        ..app.clone()
    };
    // Nothing is remembered of the secret before: each is tried for itself.
    let gateway = Gateway::new(&app, wechat, &Memory::default(), Arc::new(Metrics::new()));
    gateway.with_access_token(|_token| async { Ok(()) }).await
}

async fn ask(wechat: &Wechat, endpoint: &Endpoint) -> Result<Reached, Unreached> {
    let uri: Uri = endpoint.to_string().parse().map_err(|_| {
        unreached(
            "the endpoint is no URL".to_owned(),
            "see [wechat] endpoints",
        )
    })?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let connected = connector(wechat, None).call(uri).await;
    let connection = connected.map_err(|why| Unreached::of(&why))?;
    let (mut sender, connection) = http1::handshake(connection)
        .await
        .map_err(|e| no_http(&e))?;
    let request = Request::get("/")
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| unreached(chain(&error), "see [wechat] endpoints"))?;
    let asked = async {
        let answer = sender.send_request(request).await;
        // The connection ends with its sender.
        drop(sender);
        answer
    };
    let (answer, _closed) = tokio::join!(asked, connection);
    let answer = answer.map_err(|error| no_http(&error))?;
    let date = answer.headers().get(DATE).and_then(|it| it.to_str().ok());
    let date = date.and_then(|text| httpdate::parse_http_date(text).ok());
    Ok(Reached {
        ahead: date.map(|date| Skew::between(SystemTime::now(), date)),
    })
}

impl Skew {
    fn between(ours: SystemTime, theirs: SystemTime) -> Self {
        match ours.duration_since(theirs) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(behind) => Self::Behind(behind.duration()),
        }
    }

    /// How far, in either direction.
    pub(crate) fn size(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

impl Unreached {
    fn of(unconnected: &Unconnected) -> Self {
        let fix = match unconnected {
            Unconnected::Server(..) => {
                "let this machine connect to WeChat on that port, or say in [wechat] egress_proxy who may"
            }
            Unconnected::Proxy { .. } => {
                "see [wechat] egress_proxy: its address, its user and password, and whether it lets CONNECT through"
            }
            Unconnected::Tls(_, cause) => {
                let (why, fix) = tls_trouble(&**cause);
                return Self {
                    why: format!("{unconnected}: {}", why.unwrap_or(chain(&**cause))),
                    fix,
                };
            }
            Unconnected::Ending(_) => "try again",
        };
        Self {
            why: chain(unconnected),
            fix,
        }
    }
}

/// What TLS has against the server, in words if they are better than the library's.
fn tls_trouble(cause: &(dyn StdError + Send + Sync + 'static)) -> (Option<String>, &'static str) {
    let inner = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let certificate = match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate,
        _ => {
            return (
                None,
                "see whether it is WeChat that is there, and speaks TLS: something on the way may answer in its place",
            );
        }
    };
    let (why, fix) = match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "an authority that is not known vouches for its certificate",
            "if a proxy of yours looks into TLS, have it let this host through, or name its authority in [wechat] ca_file",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired",
            "see whether the clock of this machine is right; else it is not WeChat that is there",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "its certificate is not valid yet",
            "see whether the clock of this machine is right",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "its certificate is for another name",
            "see the name in [wechat] endpoints, and where it leads: it is not WeChat that is there",
        ),
        _ => {
            return (
                None,
                "it is not WeChat that is there, or its certificate is broken",
            );
        }
    };
    (Some(why.to_owned()), fix)
}

fn no_http(error: &hyper::Error) -> Unreached {
    unreached(
        format!("connected, and there is no HTTP answer: {}", chain(error)),
        "see [wechat] endpoints: something else than WeChat may be there",
    )
}

fn unreached(why: String, fix: &'static str) -> Unreached {
    Unreached { why, fix }
}

/// An error with its causes.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_in_two_directions() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let by = Duration::from_secs(90);
        assert_eq!(Skew::between(now, now), Skew::Ahead(Duration::ZERO));
        assert_eq!(Skew::between(now + by, now), Skew::Ahead(by));
        assert_eq!(Skew::between(now, now + by), Skew::Behind(by));
        assert_eq!(Skew::between(now, now + by).size(), by);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        let told = |error: CertificateError| {
            let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(error));
            tls_trouble(&error)
        };
        let (why, fix) = told(CertificateError::UnknownIssuer);
        assert!(why.unwrap().contains("not known") && fix.contains("ca_file"));
        let (why, fix) = told(CertificateError::Expired);
        assert!(why.unwrap().contains("expired") && fix.contains("clock"));
        let (why, _) = told(CertificateError::NotValidForName);
        assert!(why.unwrap().contains("another name"));
        let (why, _) = tls_trouble(&io::Error::other("eof"));
        assert_eq!(why, None);
    }
}
