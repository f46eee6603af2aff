//! Where a request came from, and what the app is told about it.
//!
//! Only the socket is a fact; everything else is a claim, and believed of trusted proxies alone. What they claim is taken
//! from the right, because each proxy adds on the right, and only as far as it is addresses: what stands left of garbage
//! was not written by anybody who can be trusted.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::TrustedProxies;
use crate::wire::{Fields, Name, RequestHead};

/// The other end of a client's connection.
pub(crate) struct Peer {
    /// `None` on a Unix socket.
    ip: Option<IpAddr>,
    /// Whether it speaks TLS with us.
    secure: bool,
    /// Whether its bytes are those of a client that it does not name, so that its claims are nobody's.
    relays: bool,
    /// What the app is told about a peer that is not trusted: the same for all requests of a connection.
    lines: Vec<u8>,
}

/// Where one request came from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    peer: &'a Peer,
    proxies: &'a TrustedProxies,
    trusted: bool,
}

impl Peer {
    /// `ip` is `None` on a Unix socket.
    pub(crate) fn new(ip: Option<IpAddr>, secure: bool) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        let mut peer = Self {
            ip,
            secure,
            relays: false,
            lines: Vec::with_capacity(128),
        };
        if let Some(ip) = ip {
            print(
                &mut peer.lines,
                format_args!("x-forwarded-for: {ip}\r\nx-real-ip: {ip}\r\n"),
            );
        }
        let proto = peer.proto();
        print(
            &mut peer.lines,
            format_args!("x-forwarded-proto: {proto}\r\n"),
        );
        peer
    }

    /// `None` on a Unix socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The same peer, which passes on the bytes of a client that it does not name (`PROXY UNKNOWN`), or not.
    pub(crate) fn relaying(self, relays: bool) -> Self {
        Self { relays, ..self }
    }

    fn proto(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl<'a> Origin<'a> {
    /// What is spoken with us.
    pub(crate) fn scheme(&self) -> &'static str {
        self.peer.proto()
    }

    pub(crate) fn new(peer: &'a Peer, proxies: &'a TrustedProxies) -> Self {
        Self {
            peer,
            proxies,
            trusted: !peer.relays && proxies.trusts(peer.ip),
        }
    }

    /// Whether what the peer says of the way before it is believed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The client's address: the peer's, or behind trusted proxies the last one that is not theirs. `None` if all there
    /// is is a Unix socket.
    pub(crate) fn client_ip(&self, fields: &Fields) -> Option<IpAddr> {
        if !self.trusted {
            return self.peer.ip;
        }
        self.client_of(&chain(fields))
    }

    fn client_of(&self, chain: &[Hop<'_>]) -> Option<IpAddr> {
        let stranger = chain
            .iter()
            .rev()
            .find(|hop| !self.proxies.trusts(Some(hop.ip)));
        // If all are ours, the first one of them asked.
        let client = stranger.or(chain.first());
        client.map(|hop| hop.ip).or(self.peer.ip)
    }

    /// Adds the field lines that say where the request came from.
    pub(super) fn encode(&self, head: &RequestHead, out: &mut Vec<u8>) {
        if self.trusted {
            self.encode_way(&head.fields, out);
        } else {
            out.extend_from_slice(&self.peer.lines);
        }
        let believed = match head.fields.only(Name::XForwardedHost) {
            Ok(Some(host)) if self.trusted => Some(host),
            _ => None,
        };
        if let Some(host) = believed.or_else(|| head.fields.all(Name::Host).next()) {
            out.extend_from_slice(b"x-forwarded-host: ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What a trusted peer says of the way before it, and the peer itself at its end.
    fn encode_way(&self, fields: &Fields, out: &mut Vec<u8>) {
        let chain = chain(fields);
        if !chain.is_empty() || self.peer.ip.is_some() {
            out.extend_from_slice(b"x-forwarded-for: ");
            for (at, hop) in chain.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b"" } else { b", " });
                out.extend_from_slice(hop.text);
            }
            if let Some(ip) = self.peer.ip {
                let comma = if chain.is_empty() { "" } else { ", " };
                print(out, format_args!("{comma}{ip}"));
            }
            out.extend_from_slice(b"\r\n");
        }
        if let Some(ip) = self.client_of(&chain) {
            print(out, format_args!("x-real-ip: {ip}\r\n"));
        }
        let proto = match fields.only(Name::XForwardedProto) {
            Ok(Some(proto)) if proto.eq_ignore_ascii_case(b"https") => "https",
            Ok(Some(proto)) if proto.eq_ignore_ascii_case(b"http") => "http",
            _ => self.peer.proto(),
        };
        print(out, format_args!("x-forwarded-proto: {proto}\r\n"));
        self.encode_forwarded(fields, chain.last(), out);
    }

    /// The same in the words of RFC 7239, for a proxy that speaks it. Many know only `X-Forwarded-For` and let a client's
    /// own `Forwarded` pass: one that contradicts the other is not theirs.
    fn encode_forwarded(&self, fields: &Fields, last_hop: Option<&Hop<'_>>, out: &mut Vec<u8>) {
        let mut lines = fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(b"forwarded"))
            .map(|field| field.value)
            .peekable();
        if lines.peek().is_none() {
            return;
        }
        let said = lines.collect::<Vec<_>>().join(&b", "[..]);
        let kept = last_node(&said).is_ok_and(|node| {
            let last = node.and_then(|node| address(&node));
            last_hop.is_none_or(|hop| last == Some(hop.ip))
        });
        let own = match self.peer.ip {
            Some(IpAddr::V4(ip)) => format!("for={ip};proto={}", self.peer.proto()),
            Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\";proto={}", self.peer.proto()),
            None => String::new(),
        };
        let said: &[u8] = if kept { &said } else { b"" };
        if said.is_empty() && own.is_empty() {
            return;
        }
        let comma: &[u8] = if said.is_empty() || own.is_empty() {
            b""
        } else {
            b", "
        };
        for part in [b"forwarded: ", said, comma, own.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// An address of `X-Forwarded-For`.
struct Hop<'a> {
    /// As it was written; some write a port behind it.
    text: &'a [u8],
    ip: IpAddr,
}

/// The addresses of `X-Forwarded-For`, from the right up to the first thing that is none.
fn chain(fields: &Fields) -> Vec<Hop<'_>> {
    let mut chain = Vec::new();
    for text in fields.list(Name::XForwardedFor) {
        match address(text) {
            Some(ip) => chain.push(Hop { text, ip }),
            None => chain.clear(),
        }
    }
    chain
}

/// An address, an IPv6 address perhaps in brackets, a port perhaps behind it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
    };
    let ip: IpAddr = text
        .parse()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))?;
    Some(ip.to_canonical())
}

/// The value is not as RFC 7239 has it.
struct Malformed;

/// The `for` of the last element of `Forwarded`, unquoted (RFC 7239 §4).
fn last_node(value: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut node = None;
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        let (name, after) = token(rest);
        if !name.is_empty() {
            let (text, after) = match after {
                [b'=', b'"', after @ ..] => quoted(after)?,
                [b'=', after @ ..] => {
                    let (text, after) = token(after);
                    (text.to_vec(), after)
                }
                _ => return Err(Malformed),
            };
            if name.eq_ignore_ascii_case(b"for") && node.replace(text).is_some() {
                return Err(Malformed);
            }
            rest = after.trim_ascii_start();
        }
        match rest {
            [] => return Ok(node),
            [b';', after @ ..] => rest = after,
            [b',', after @ ..] => (node, rest) = (None, after),
            _ => return Err(Malformed),
        }
    }
}

/// The token at the beginning, perhaps empty, and what follows it (RFC 9110 §5.6.2).
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let end = text.iter().position(|b| !is_token(b));
    text.split_at(end.unwrap_or(text.len()))
}

/// What a quoted string says whose opening quote has been read, and what follows it (RFC 9110 §5.6.4).
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut said = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [b'"', after @ ..] => return Ok((said, after)),
            [b'\\', byte, after @ ..] => {
                said.push(*byte);
                rest = after;
            }
            [] | [b'\\'] => return Err(Malformed),
            [byte, after @ ..] => {
                said.push(*byte);
                rest = after;
            }
        }
    }
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Cidr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// 10.0.0.0/8, fd00::/8 and Unix sockets are trusted.
    fn proxies() -> TrustedProxies {
        let network = |addr, prefix| Cidr {
            addr: ip(addr),
            prefix,
        };
        TrustedProxies {
            networks: vec![network("10.0.0.0", 8), network("fd00::", 8)],
            unix: true,
        }
    }

    fn head(lines: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.parse(format!("GET / HTTP/1.1\r\nHost: asked.example\r\n{lines}\r\n").as_bytes())
            .unwrap();
        head
    }

    /// What an app is told of a request with these lines, one line each.
    fn told(peer: Option<&str>, secure: bool, lines: &str) -> Vec<String> {
        let (peer, proxies, head) = (Peer::new(peer.map(ip), secure), proxies(), head(lines));
        let mut out = Vec::new();
        Origin::new(&peer, &proxies).encode(&head, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn client(peer: Option<&str>, way: &str) -> Option<IpAddr> {
        let (peer, proxies) = (Peer::new(peer.map(ip), false), proxies());
        let head = head(&format!("X-Forwarded-For: {way}\r\n"));
        Origin::new(&peer, &proxies).client_ip(&head.fields)
    }

    #[test]
    fn a_stranger_is_where_it_came_from_whatever_it_says() {
        let claims = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.1.1.1\r\n";
        assert_eq!(
            told(Some("192.0.2.1"), false, claims),
            [
                "x-forwarded-for: 192.0.2.1",
                "x-real-ip: 192.0.2.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: asked.example",
            ]
        );
        let told = told(Some("::ffff:192.0.2.1"), true, claims);
        assert_eq!(
            (told[0].as_str(), told[2].as_str()),
            ("x-forwarded-for: 192.0.2.1", "x-forwarded-proto: https")
        );
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy_of_ours() {
        for (way, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.1.1.1,10.2.2.2", "192.0.2.1"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("192.0.2.1:5555", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1], fd00::5", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, unknown, 10.1.1.1", "10.1.1.1"),
            ("192.0.2.1, evil", "10.0.0.1"),
            ("192.0.2.1:99999", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client(Some("10.0.0.1"), way), Some(ip(expected)), "{way}");
        }
        assert_eq!(client(Some("192.0.2.9"), "1.1.1.1"), Some(ip("192.0.2.9")));
        assert_eq!(client(None, "192.0.2.1"), Some(ip("192.0.2.1")));
        assert_eq!(client(None, ""), None);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_as_far_as_it_makes_sense() {
        let told = |lines: &str| told(Some("10.0.0.1"), true, lines);
        assert_eq!(
            told(
                "X-Forwarded-For: 6.6.6.6, garbage, 192.0.2.1:80\r\nX-Forwarded-Proto: HTTP\r\nX-Forwarded-Host: shop.example\r\n"
            ),
            [
                "x-forwarded-for: 192.0.2.1:80, 10.0.0.1",
                "x-real-ip: 192.0.2.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: shop.example",
            ]
        );
        for proto in ["ftp", "", "https, http", "http\r\nX-Forwarded-Proto: http"] {
            let line = format!("X-Forwarded-Proto: {proto}\r\n");
            assert_eq!(told(&line)[2], "x-forwarded-proto: https", "{proto}");
        }
    }

    #[test]
    fn a_proxy_that_relays_a_client_without_a_name_is_not_believed() {
        let (peer, proxies) = (
            Peer::new(Some(ip("10.0.0.1")), false).relaying(true),
            proxies(),
        );
        let origin = Origin::new(&peer, &proxies);
        let head = head("X-Forwarded-For: 1.1.1.1\r\n");
        assert!(!origin.is_trusted());
        assert_eq!(origin.client_ip(&head.fields), Some(ip("10.0.0.1")));
    }

    #[test]
    fn a_unix_socket_has_no_address_to_tell() {
        let mut strange = proxies();
        strange.unix = false;
        let peer = Peer::new(None, false);
        let mut out = Vec::new();
        Origin::new(&peer, &strange).encode(&head("X-Forwarded-For: 1.1.1.1\r\n"), &mut out);
        assert_eq!(
            out,
            b"x-forwarded-proto: http\r\nx-forwarded-host: asked.example\r\n"
        );
        let told = told(
            None,
            false,
            "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n",
        );
        assert_eq!(
            told[..2],
            ["x-forwarded-for: 192.0.2.1", "x-real-ip: 192.0.2.1"]
        );
        assert_eq!(told[3], "forwarded: for=192.0.2.1");
    }

    #[test]
    fn forwarded_is_continued_if_it_is_the_proxys_own() {
        let forwarded = |lines: &str| {
            let told = told(Some("10.0.0.1"), true, lines);
            told.iter()
                .find_map(|line| line.strip_prefix("forwarded: ").map(str::to_owned))
        };
        let own = "for=10.0.0.1;proto=https";
        for (said, kept) in [
            ("for=192.0.2.1", true),
            (
                "for=\"[2001:db8::1]:47\";by=_x, For=192.0.2.1;proto=http",
                true,
            ),
            ("for=\"a\\\"b\"", true),
            ("for=1.1.1.1, for=\"192.0.2.1", false),
            ("for=1.1.1.1;for=2.2.2.2", false),
            ("192.0.2.1", false),
            ("for=a b", false),
            ("for=\"a\\", false),
        ] {
            let expected = if kept {
                format!("{said}, {own}")
            } else {
                own.to_owned()
            };
            assert_eq!(
                forwarded(&format!("Forwarded: {said}\r\n")),
                Some(expected),
                "{said}"
            );
        }
        // A proxy that only knows the other header lets this one pass from the client.
        let both = |said: &str| {
            forwarded(&format!(
                "X-Forwarded-For: 192.0.2.1\r\nForwarded: {said}\r\n"
            ))
        };
        assert_eq!(both("for=6.6.6.6").as_deref(), Some(own));
        assert_eq!(both("for=6.6.6.6,").as_deref(), Some(own));
        assert_eq!(
            both("for=6.6.6.6, for=192.0.2.1"),
            Some(format!("for=6.6.6.6, for=192.0.2.1, {own}"))
        );
        assert_eq!(forwarded(""), None);
        let v6 = told(Some("fd00::1"), false, "Forwarded: for=_hidden\r\n");
        assert_eq!(
            v6[3],
            "forwarded: for=_hidden, for=\"[fd00::1]\";proto=http"
        );
    }

    fn hop() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<Ipv6Addr>().prop_map(|ip| ip.to_string()),
            any::<[u8; 3]>().prop_map(|[a, b, c]| format!("10.{a}.{b}.{c}")),
            "[ -+\\--~]{0,20}",
        ]
    }

    proptest! {
        /// Whatever a client writes on the left, proxies that add the address they see decide who it is.
        #[test]
        fn no_prefix_of_the_chain_changes_who_the_client_is(
            spoofed in proptest::collection::vec(hop(), 0..6),
            real in any::<std::net::Ipv4Addr>().prop_filter("a stranger", |ip| ip.octets()[0] != 10),
            ours in proptest::collection::vec(any::<[u8; 3]>(), 0..3),
        ) {
            let mut way = spoofed;
            way.push(real.to_string());
            way.extend(ours.iter().map(|[a, b, c]| format!("10.{a}.{b}.{c}")));
            prop_assert_eq!(client(Some("10.0.0.1"), &way.join(", ")), Some(IpAddr::V4(real)));
        }

        /// The app finds addresses only, the peer's last, and the same client that we do.
        #[test]
        fn what_is_told_is_addresses_and_ends_with_the_peer(way in proptest::collection::vec(hop(), 0..6)) {
            let way = way.join(", ");
            let told = told(Some("10.0.0.1"), false, &format!("X-Forwarded-For: {way}\r\n"));
            let hops = told[0].strip_prefix("x-forwarded-for: ").unwrap();
            prop_assert!(hops.split(", ").all(|hop| address(hop.as_bytes()).is_some()), "{}", hops);
            prop_assert!(hops.ends_with("10.0.0.1"));
            let real = told[1].strip_prefix("x-real-ip: ").unwrap();
            prop_assert_eq!(client(Some("10.0.0.1"), &way), Some(ip(real)));
        }
    }
}
