//! Films: WeChat does not send them, it says where they are. Whoever says that could say anything, so what is fetched is on
//! hosts that the configuration names, and at no address that is this network's own.
//!
//! A host is looked up and judged by the address that is then connected to, so a name that leads elsewhere the second time
//! (DNS rebinding) leads nowhere. Behind an egress proxy the proxy looks names up, and only they are judged here. The
//! configured endpoints of WeChat's may be anywhere: they are the operator's words. A redirect is a new place, judged anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy;

use super::Memory;
use super::client::{self, AGENT, Failure};
use super::connector::{Connector, Unconnected, connector, connector_to, without_brackets};
use super::media::{Fetched, invalid};
use super::payload::{Outgoing, Payload};
use crate::config;
use crate::error::{Error, Kind, Side};

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 3;

/// The way to films.
pub(crate) struct Films {
    /// To where anybody may be sent.
    guarded: legacy::Client<Connector, Outgoing>,
    /// To the configured endpoints.
    endpoints: legacy::Client<Connector, Outgoing>,
    places: Places,
}

/// Where films may be.
struct Places {
    /// Hosts, or `*.` and the end of hosts.
    hosts: Vec<String>,
    endpoints: Vec<config::Endpoint>,
}

/// What kind of place a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A host that the configuration allows.
    Allowed,
    /// One of WeChat's endpoints, as configured.
    Endpoint,
}

impl Films {
    /// Films of hosts like these. Connections live where those to WeChat do.
    pub(crate) fn new(hosts: &[String], wechat: &config::Wechat, memory: &Memory) -> Self {
        let home = &memory.home;
        // Behind a proxy only its own name is looked up here, and that may well be private.
        let guarded = match wechat.egress_proxy {
            Some(_) => connector(wechat, home.clone()),
            None => connector_to(wechat, is_public, home.clone()),
        };
        Self {
            guarded: client::pool(guarded, home.clone()),
            endpoints: client::pool(connector(wechat, home.clone()), home.clone()),
            places: Places {
                hosts: hosts.to_vec(),
                endpoints: wechat.endpoints.clone(),
            },
        }
    }

    /// Has a film from where WeChat says it is. No token and no secret goes there.
    ///
    /// # Errors
    /// If it may not be there, or is not.
    pub(super) async fn fetch(&self, url: &str, patience: Duration) -> Result<Fetched, Error> {
        let mut place: Uri = url
            .parse()
            .map_err(|_| not_allowed(("is no URL", "不是有效的 URL")))?;
        for _ in 0..=MOST_REDIRECTS {
            let pool = match self.places.judge(&place)? {
                Place::Allowed => &self.guarded,
                Place::Endpoint => &self.endpoints,
            };
            let asking = pool.request(question(&place));
            let answer = match tokio::time::timeout(patience, asking).await {
                Ok(answer) => answer.map_err(|error| told(client::failure(error)))?,
                Err(_) => return Err(told(Failure::Timeout)),
            };
            let (head, body) = answer.into_parts();
            match head.status {
                StatusCode::OK if is_text(&head.headers) => {
                    return Err(invalid((
                        "a page, and no film, is where WeChat says it is",
                        "微信给出的视频地址返回的是网页，不是视频",
                    )));
                }
                StatusCode::OK => {
                    return Fetched::of(&head.headers, Bytes::new(), Some(body), patience);
                }
                status if status.is_redirection() => place = next(&place, &head.headers)?,
                status => {
                    let detail = (
                        format!("the film is not where WeChat says it is (HTTP {status})"),
                        format!("微信给出的视频地址取不到视频（HTTP {status}）"),
                    );
                    return Err(Error::new(Kind::WechatInvalid, Side::Wechat, detail));
                }
            }
        }
        Err(not_allowed((
            "leads to one that leads on",
            "重定向次数过多",
        )))
    }
}

impl Places {
    fn judge(&self, url: &Uri) -> Result<Place, Error> {
        let port = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => 443,
            Some(scheme) if *scheme == Scheme::HTTP => 80,
            _ => {
                return Err(not_allowed((
                    "is neither http nor https",
                    "既不是 http 也不是 https",
                )));
            }
        };
        let authority = url
            .authority()
            .ok_or_else(|| not_allowed(("has no host", "没有主机名")))?;
        if authority.as_str().contains('@') {
            return Err(not_allowed(("has a user in it", "含有用户名")));
        }
        let port = match authority.port() {
            None => port,
            Some(given) => given.as_u16(),
        };
        let host = without_brackets(authority.host()).to_ascii_lowercase();
        let is_it = |endpoint: &config::Endpoint| {
            endpoint.port == port && endpoint.host.eq_ignore_ascii_case(&host)
        };
        if self.endpoints.iter().any(is_it) {
            return Ok(Place::Endpoint);
        }
        // A bare address is nobody's host: nothing says whose it is.
        match self.hosts.iter().any(|pattern| matches(pattern, &host)) {
            true if host.parse::<IpAddr>().is_err() => Ok(Place::Allowed),
            _ => Err(not_allowed((
                "is on a host that `[media] video_hosts` does not name",
                "所在的主机不在 `[media] video_hosts` 中",
            ))),
        }
    }
}

fn question(place: &Uri) -> Request<Outgoing> {
    let mut request = Request::new(Payload::Whole(Bytes::new()).to_outgoing());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = place.clone();
    let agent = HeaderValue::from_static(AGENT);
    request.headers_mut().insert(USER_AGENT, agent);
    request
}

/// Where a redirect leads: to a whole URL, or a path on the same host.
fn next(place: &Uri, headers: &HeaderMap) -> Result<Uri, Error> {
    let location = headers.get(LOCATION).and_then(|it| it.to_str().ok());
    let location = location.ok_or_else(|| not_allowed(("leads to nowhere", "重定向没有目标")))?;
    let mut parts = place.clone().into_parts();
    if location.starts_with('/') && !location.starts_with("//") {
        parts.path_and_query = location.parse().ok();
        return Uri::from_parts(parts)
            .map_err(|_| not_allowed(("leads to no URL", "重定向的目标不是有效的 URL")));
    }
    location
        .parse()
        .map_err(|_| not_allowed(("leads to no URL", "重定向的目标不是有效的 URL")))
}

/// A pattern is a host, or `*.` and the end of one.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => pattern == host,
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    [
        "text/html",
        "application/json",
        "application/xml",
        "text/xml",
    ]
    .iter()
    .any(|text| kind.starts_with(text))
}

fn not_allowed((en, zh): (&str, &str)) -> Error {
    let detail = (
        format!("WeChat says that a film is at a URL that {en}"),
        format!("微信给出的视频地址{zh}"),
    );
    Error::new(Kind::WechatInvalid, Side::Wechat, detail)
}

fn told(failure: Failure) -> Error {
    let error = |kind, detail: (&'static str, &'static str)| Error::new(kind, Side::Wechat, detail);
    match failure {
        Failure::NotConnected(cause) => {
            let unconnected = Unconnected::behind(&*cause);
            let detail = unconnected.map_or(
                ("no connection to the film", "无法连接视频所在的服务器"),
                Unconnected::told,
            );
            error(Kind::WechatUnreachable, detail).with_cause(cause)
        }
        Failure::Timeout => {
            let detail = ("the film did not come in time", "视频没有及时到达");
            error(Kind::WechatTimeout, detail)
        }
        Failure::BrokeOff(cause) | Failure::NotHttp(cause) => {
            let detail = ("the film broke off", "视频传输中断");
            error(Kind::WechatUnreachable, detail).with_cause(cause)
        }
        Failure::TooLarge => {
            let detail = ("the film is too large", "视频过大");
            error(Kind::WechatInvalid, detail)
        }
    }
}

/// Whether an address is one of the Internet's, and nobody's own (RFC 6890 and its registries).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // "This network", and those that are not in use, broadcast and multicast among them.
        || a == 0
        || a >= 224
        // Carriers' own (RFC 6598).
        || (a == 100 && (64..128).contains(&b))
        // Protocols' own, and the anycast of relays that there are no more (RFC 7526).
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        // Benchmarks (RFC 2544).
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// Of what is routed at all, all but what stands for an IPv4 address or for nobody.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let routed = segments[0] & 0xe000 == 0x2000;
    let special = (segments[0] == 0x2001 && (segments[1] < 0x200 || segments[1] == 0xdb8))
        || segments[0] == 0x2002
        || (segments[0] == 0x3fff && segments[1] < 0x1000);
    routed && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            hosts: vec!["*.qq.com".to_owned(), "vod.example.com".to_owned()],
            endpoints: vec![config::Endpoint {
                tls: false,
                host: "127.0.0.1".to_owned(),
                port: 9902,
            }],
        }
    }

    #[test]
    fn a_film_is_on_a_host_that_is_named_or_nowhere() {
        for (url, expected) in [
            ("http://vod.qq.com/a?b=c", Some(Place::Allowed)),
            ("https://A.B.QQ.com:8443/", Some(Place::Allowed)),
            ("https://vod.example.com/", Some(Place::Allowed)),
            ("http://127.0.0.1:9902/_sim/video/m", Some(Place::Endpoint)),
            ("http://127.0.0.1/", None),
            ("http://127.0.0.1:9901/metrics", None),
            ("http://qq.com/", None),
            ("http://evilqq.com/", None),
            ("http://vod.qq.com.evil.com/", None),
            ("http://vod.qq.com./", None),
            ("http://sub.vod.example.com/", None),
            ("http://evil.com/vod.qq.com", None),
            ("http://evil.com#.qq.com/", None),
            ("http://vod.qq.com@evil.com/", None),
            ("http://user:pass@vod.qq.com/", None),
            ("http://localhost/", None),
            ("http://2130706433/", None),
            ("http://0x7f.1/", None),
            ("http://0177.0.0.1/", None),
            ("http://[::1]/", None),
            ("http://[::ffff:127.0.0.1]/", None),
            ("http://169.254.169.254/latest/meta-data", None),
            ("ftp://vod.qq.com/", None),
            ("file:///etc/passwd", None),
            ("/etc/passwd", None),
            ("//vod.qq.com/", None),
            ("vod.qq.com", None),
        ] {
            let judged = url.parse().ok().and_then(|url| places().judge(&url).ok());
            assert_eq!(judged, expected, "{url}");
        }
    }

    #[test]
    fn an_address_that_is_somebodys_own_is_not_public() {
        for (address, public) in [
            ("119.147.0.1", true),
            ("8.8.8.8", true),
            ("100.63.0.1", true),
            ("172.32.0.1", true),
            ("127.0.0.1", false),
            ("127.255.0.1", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("192.0.0.1", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("198.18.0.1", false),
            ("198.51.100.1", false),
            ("203.0.113.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2402:4e00::1", true),
            ("2001:4860::1", true),
            ("::", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("100::1", false),
            ("fc00::1", false),
            ("fd12::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:a00:1::", false),
            ("3fff::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn a_redirect_leads_to_a_url_or_to_a_path() {
        let place: Uri = "http://vod.qq.com/a?b".parse().unwrap();
        for (location, expected) in [
            ("http://other.qq.com/c", Some("http://other.qq.com/c")),
            ("/d?e", Some("http://vod.qq.com/d?e")),
            ("//evil.com/", None),
            ("e", None),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            let led = next(&place, &headers).ok();
            let led = led.filter(|url| places().judge(url).is_ok());
            assert_eq!(
                led.map(|url| url.to_string()).as_deref(),
                expected,
                "{location}"
            );
        }
        assert!(next(&place, &HeaderMap::new()).is_err());
    }
}
