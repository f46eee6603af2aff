//! A film, fetched where WeChat says it is.
//!
//! An address that comes in an answer must not make the sidecar ask whoever it names: what is near us trusts us. So only
//! hosts that the configuration has are asked, and only if their names lead to public addresses; the very addresses that
//! were judged are connected to ([`super::names`]), so a name cannot lead elsewhere a moment later. What is shown to
//! WeChat's APIs is not shown there. Through an egress proxy, which looks names up by itself, names alone are judged.
//!
//! WeChat's endpoints themselves may be asked wherever they are: the configuration says that they are WeChat's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::LOCATION;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::Gateway;
use super::client::{Client, Failure, Question};
use super::line::Lost;
use super::media::{Content, Fetched, invalid};
use super::payload::Payload;
use super::relay::{APP, PEEK, Peeked};
use crate::config::Endpoint;
use crate::error::Error;

/// How often a server may send us on.
const REDIRECTS: usize = 3;
/// The longest address.
const LONGEST: usize = 8 * 1024;

/// An address that may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    path: String,
    query: String,
    /// Whether it is a place that the configuration gives to WeChat's APIs.
    pub(super) is_ours: bool,
}

impl Gateway {
    /// Fetches a film.
    ///
    /// # Errors
    /// If it is nowhere that may be asked, or nothing comes of it.
    pub(super) async fn film(&self, url: &str, hosts: &[String]) -> Result<Fetched, Error> {
        let client = &self.line.client;
        let mut address = Address::judge(url, hosts, client.endpoints())?;
        for _ in 0..=REDIRECTS {
            let peeked = ask(client, &address).await;
            let peeked = peeked.map_err(|failure| Lost::of(failure, &APP).error)?;
            if !is_redirect(peeked.status) {
                return Content::of_film(peeked, client.timeout);
            }
            let location = peeked.headers.get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let url = location.and_then(|location| address.join(location));
            let url = url.ok_or_else(|| invalid("the film's server sends us nowhere"))?;
            address = Address::judge(&url, hosts, client.endpoints())?;
        }
        Err(invalid("the film's server sends us on and on"))
    }
}

async fn ask(client: &Client, address: &Address) -> Result<Peeked, Failure> {
    let question = Question {
        method: &Method::GET,
        path: &address.path,
        query: &address.query,
        headers: &HeaderMap::new(),
        payload: &Payload::Whole(bytes::Bytes::new()),
    };
    let response = client.fetch(&question, address).await?;
    Peeked::of(response, client.timeout, PEEK).await
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl Address {
    /// An address of a film, if it may be fetched.
    fn judge(url: &str, hosts: &[String], endpoints: &[Endpoint]) -> Result<Self, Error> {
        let address = Self::parse(url).map_err(|why| forbidden(why, ""))?;
        let Endpoint { host, port, .. } = &address.endpoint;
        let is_it = |endpoint: &Endpoint| {
            endpoint.host.eq_ignore_ascii_case(host) && endpoint.port == *port
        };
        if endpoints.iter().any(is_it) {
            return Ok(Self {
                is_ours: true,
                ..address
            });
        }
        if !hosts.iter().any(|pattern| matches(pattern, host)) {
            return Err(forbidden("its host is not in [media] video_hosts", host));
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return match is_public(ip) {
                true => Ok(address),
                false => Err(forbidden("it leads to an address that is not public", host)),
            };
        }
        // Resolvers take `127.1`, `0x7f000001` and `2130706433` for addresses.
        if ends_in_number(host) {
            return Err(forbidden("its host is a number", host));
        }
        Ok(address)
    }

    fn parse(url: &str) -> Result<Self, &'static str> {
        let is_plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
        if url.len() > LONGEST || !url.bytes().all(is_plain) {
            return Err("it is no URL");
        }
        let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
        let (tls, usual) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => (true, 443),
            Some(scheme) if *scheme == Scheme::HTTP => (false, 80),
            _ => return Err("it is neither http nor https"),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user in it");
        }
        let host = authority.host();
        let port = match authority.as_str()[host.len()..].strip_prefix(':') {
            None => usual,
            Some(port) => port.parse().map_err(|_| "its port is no number")?,
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let literal = rest.strip_suffix(']').unwrap_or_default();
                let ip: Ipv6Addr = literal.parse().map_err(|_| "its host is no address")?;
                ip.to_string()
            }
            None => host.to_ascii_lowercase(),
        };
        let is_label = |label: &str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.bytes().all(is_plain)
        };
        if !host.contains(':') && !host.split('.').all(is_label) {
            return Err("its host is no name");
        }
        Ok(Self {
            endpoint: Endpoint { tls, host, port },
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            is_ours: false,
        })
    }

    /// Where `location` leads from here (RFC 3986 §5, as far as servers make use of it).
    fn join(&self, location: &str) -> Option<String> {
        let scheme = if self.endpoint.tls { "https" } else { "http" };
        if location.starts_with("//") {
            return Some(format!("{scheme}:{location}"));
        }
        if location.starts_with('/') {
            let Endpoint { host, port, .. } = &self.endpoint;
            return Some(match host.contains(':') {
                true => format!("{scheme}://[{host}]:{port}{location}"),
                false => format!("{scheme}://{host}:{port}{location}"),
            });
        }
        location.contains("://").then(|| location.to_owned())
    }
}

fn forbidden(why: &'static str, host: &str) -> Error {
    let error = invalid("it has an address of a film that is not to be fetched")
        .with_hint("what may be fetched is in [media] video_hosts");
    match host {
        "" => error.with_cause(why),
        _ => error.with_cause(format!("{why}: {host}")),
    }
}

/// `*.` stands for any number of labels, one at least.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some(end) => host.len() > end.len() && host.ends_with(end),
    }
}

/// Whether a host is taken for an IPv4 address in one of its forms (WHATWG URL, "ends in a number").
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

/// Whether an address is in no network of our own, by IANA's registries of special-purpose addresses.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    match ip.octets() {
        // This network, private, loopback, multicast, reserved and broadcast.
        [0 | 10 | 127 | 224..=255, ..]
        // Shared with a carrier's customers (CGNAT).
        | [100, 64..=127, ..]
        // Link-local.
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Assigned to protocols, documentation, relays of 6to4, benchmarks.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => false,
        _ => true,
    }
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // An IPv4 address behind a translator (NAT64), which a network without IPv4 needs.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        // Assigned to protocols (Teredo and benchmarks among them), documentation, 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            false
        }
        // Of the rest, global unicast: no loopback, ULA, link-local, IPv4-mapped or multicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(url: &str) -> Result<Address, Error> {
        let hosts = [
            "*.qq.com",
            "vod.example",
            "localhost",
            "8.8.8.8",
            "127.0.0.1",
        ];
        let hosts = [&hosts[..], &["*.1", "2130706433", "0x7f000001", "*.0x1"]].concat();
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let endpoints = [
            Endpoint {
                tls: false,
                host: "127.0.0.1".to_owned(),
                port: 7777,
            },
            Endpoint {
                tls: false,
                host: "::1".to_owned(),
                port: 7778,
            },
        ];
        Address::judge(url, &hosts, &endpoints)
    }

    #[test]
    fn hosts_of_the_configuration_may_be_asked() {
        for (url, host, port, is_ours) in [
            (
                "http://vweixinp.tc.qq.com/1007_a?vkey=b",
                "vweixinp.tc.qq.com",
                80,
                false,
            ),
            ("HTTPS://A.B.QQ.COM", "a.b.qq.com", 443, false),
            ("https://a.qq.com:8443/x#y", "a.qq.com", 8443, false),
            ("http://vod.example/", "vod.example", 80, false),
            ("http://8.8.8.8/", "8.8.8.8", 80, false),
            (
                "http://127.0.0.1:7777/_sim/video/a",
                "127.0.0.1",
                7777,
                true,
            ),
            ("http://[::1]:7778/", "::1", 7778, true),
            ("http://[0:0::0:1]:7778/", "::1", 7778, true),
            // What it leads to is judged when it is looked up.
            ("http://localhost/", "localhost", 80, false),
        ] {
            let address = judge(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (address.endpoint.host.as_str(), address.endpoint.port),
                (host, port)
            );
            assert_eq!(address.is_ours, is_ours, "{url}");
        }
    }

    #[test]
    fn nobody_else_is_asked() {
        for url in [
            "",
            "/x",
            "a.qq.com/x",
            "ftp://a.qq.com/",
            "file:///etc/passwd",
            "gopher://a.qq.com/",
            "javascript:alert(1)",
            "http:a.qq.com",
            "http:///a.qq.com/",
            "http://",
            "http://qq.com/",
            "http://.qq.com/",
            "http://a..qq.com/",
            "http://a.qq.com./",
            "http://evilqq.com/",
            "http://a.qq.com.evil.test/",
            "http://vod.example.evil.test/",
            "http://a.vod.example/",
            "http://evil.test/?a.qq.com",
            "http://evil.test/#.qq.com",
            "http://evil.test#.qq.com/",
            "http://evil.test\\.qq.com/",
            "http://evil.test/\\a.qq.com",
            "http://user@a.qq.com/",
            "http://a.qq.com@evil.test/",
            "http://evil.test@a.qq.com/",
            "http://a.qq.com:80@127.0.0.1/",
            "http://@a.qq.com/",
            "http://a.qq.com%2f@evil.test/",
            "http://a.qq.com%00.evil.test/",
            "http://a%2eqq.com/",
            "http://a.qq.com:/",
            "http://a.qq.com:99999/",
            "http://a.qq.com:80:80/",
            "http://a.qq.com:-1/",
            "http:// a.qq.com/",
            "http://a.qq.com/\r\nHost: evil.test",
            "http://a.qq.com/\0",
            "http://ａ.qq.com/",
            "http://127.0.0.1/",
            "http://127.0.0.1:7778/",
            "http://127.0.0.1:77777/",
            "http://localhost.:7777/",
            "http://127.1/",
            "http://127.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.0x1/",
            "http://0X7F.1/",
            "http://0177.0.0.1/",
            "http://127.0.0.1.:7777/",
            "http://[::1]/",
            "http://[::1%25eth0]:7778/",
            "http://[::1%eth0]:7778/",
            "http://[fe80::1%25lo]/",
            "http://[::ffff:127.0.0.1]:7777/",
            "http://[::]:7778/",
            "http://[::1:7778/",
            "http://::1:7778/",
            "http://169.254.169.254/latest/meta-data/",
            "http://metadata.google.internal/",
            "http://0/",
        ] {
            let judged = judge(url);
            assert!(judged.is_err(), "{url}: {judged:?}");
        }
        assert!(judge(&format!("http://a.qq.com/{}", "a".repeat(LONGEST))).is_err());
    }

    #[test]
    fn addresses_of_our_own_networks_are_not_public() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "203.205.254.1",
            "223.255.255.255",
            "240e:e0::1",
            "2408:8000::1",
            "2001:200::1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_redirect_leads_from_where_it_was_given() {
        let from = judge("https://a.qq.com/x/y?z").unwrap();
        for (location, url) in [
            ("/b?c", Some("https://a.qq.com:443/b?c")),
            ("//b.qq.com/c", Some("https://b.qq.com/c")),
            ("http://127.0.0.1/", Some("http://127.0.0.1/")),
            ("b", None),
            ("", None),
        ] {
            assert_eq!(from.join(location).as_deref(), url, "{location}");
        }
        let from = judge("http://[::1]:7778/").unwrap();
        assert_eq!(from.join("/b").as_deref(), Some("http://[::1]:7778/b"));
    }
}
