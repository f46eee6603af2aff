//! The app: does it answer, can it be reached past the sidecar, and does it read what the sidecar tells it?
//!
//! What an app believes shows only in what it says. So it is asked for a path that shows the headers of its request, if there is
//! one, and told two things under two spellings of one name: many servers make one name of both, and an app behind such a
//! server believes whoever reaches it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};

use super::ask::{self, Place, Unanswered};
use super::{Findings, PATIENCE};
use crate::clock::Clock;
use crate::config::{Loaded, Upstream};
use crate::crypto::{self, hex};
use crate::server::{Asked, Explanation};

/// The beginning of a conversation in HTTP/2: the preface, and settings that are all as usual (RFC 9113 §3.4).
const HTTP2_GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The length of a frame's head, and where its type stands in it.
const FRAME_HEAD: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

const IDENTITY: &str = "identity headers";

/// What an app makes of two spellings of one name.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Only what was said under the right name.
    True,
    /// Both, as two.
    Both,
    /// The forged value, alone or joined to the other.
    Merged,
    /// Neither.
    Nothing,
}

pub(super) fn examine(loaded: &Loaded, echo: Option<&str>, findings: &mut Findings) {
    let config = &loaded.config;
    let mut upstreams = vec![&config.inbound.upstream];
    for route in &config.routes {
        if !upstreams.contains(&&route.upstream) {
            upstreams.push(&route.upstream);
        }
    }
    let mut answers = Vec::new();
    for upstream in upstreams {
        let is_there = examine_answer(upstream, findings);
        if is_there {
            examine_listener(upstream, findings);
        } else {
            findings.unknown(
                format!("listener of {upstream}"),
                "not known, because the app does not answer",
            );
        }
        answers.push(is_there);
    }
    match echo {
        None => findings.unknown(
            IDENTITY,
            "what the app makes of X-WX-OPENID and X_WX_OPENID only the app knows: give --echo PATH, a path of it that answers with \
             the headers of the request",
        ),
        Some(_) if answers.first() != Some(&true) => {
            findings.unknown(IDENTITY, "not known, because the app does not answer");
        }
        Some(path) => {
            examine_identity(&config.inbound.upstream, path, findings);
            examine_forgery(loaded, path, findings);
        }
    }
}

/// Whether the app is there and speaks HTTP.
fn examine_answer(upstream: &Upstream, findings: &mut Findings) -> bool {
    let name = format!("app at {upstream}");
    let place = Place::of_app(upstream);
    let answered = match upstream {
        Upstream::H2c { .. } => greet(&place).map(|()| "it speaks HTTP/2".to_owned()),
        _ => ask::ask(&place, &ask::request("HEAD", "/", &[]), PATIENCE)
            .map(|answer| format!("it answers HTTP ({} to HEAD /)", answer.status)),
    };
    let fix = "start the app, or see [inbound] upstream and the routes' own";
    match answered {
        Ok(told) => findings.good(name, told),
        Err(Unanswered::NotThere(error)) => {
            findings.bad(name, format!("it cannot be reached: {error}"), fix);
            return false;
        }
        Err(Unanswered::NotHttp(why)) => {
            let protocol = match upstream {
                Upstream::H2c { .. } => "HTTP/2 without TLS",
                _ => "HTTP/1.1 without TLS",
            };
            let fix =
                format!("see whether it is the app that listens there, and speaks {protocol}");
            findings.bad(name, format!("it can be connected to, and {why}"), fix);
            return false;
        }
    }
    true
}

/// Whether settings come back, as they must before anything else.
fn greet(place: &Place<'_>) -> Result<(), Unanswered> {
    let has_head = |answer: &[u8]| answer.len() >= FRAME_HEAD;
    let answer = ask::exchange(place, HTTP2_GREETING, PATIENCE, has_head)?;
    match answer.get(FRAME_TYPE) {
        Some(&SETTINGS) if has_head(&answer) => Ok(()),
        _ if answer.is_empty() => Err(Unanswered::silent()),
        _ => Err(Unanswered::NotHttp("what it says is not HTTP/2".to_owned())),
    }
}

/// Whether others than the sidecar can reach the app, as far as this machine knows.
fn examine_listener(upstream: &Upstream, findings: &mut Findings) {
    let name = format!("listener of {upstream}");
    let (host, port) = match upstream {
        Upstream::Tcp { host, port } | Upstream::H2c { host, port } => (host, *port),
        Upstream::Unix(_) => {
            return findings.good(name, "only who may open the socket can reach it");
        }
    };
    let addresses = (host.as_str(), port).to_socket_addrs();
    let addresses: Vec<IpAddr> = addresses
        .map(|all| all.map(|at| at.ip()).collect())
        .unwrap_or_default();
    if !addresses.iter().all(|ip| is_here(*ip)) {
        return findings.unknown(
            name,
            "it is on another machine; see that only the sidecar can reach it",
        );
    }
    let read = |table: &str| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let listeners = listeners(&(read("tcp") + &read("tcp6")), port);
    let open: Vec<String> = listeners
        .iter()
        .filter(|ip| !ip.to_canonical().is_loopback())
        .map(|ip| format!("{ip} port {port}"))
        .collect();
    match (listeners.is_empty(), open.is_empty()) {
        (true, _) => findings.unknown(name, "this system does not tell where it listens"),
        (false, true) => findings.good(name, "it listens for this machine alone"),
        (false, false) => findings.doubtful(
            name,
            format!(
                "it listens on {}: who can reach that goes past the sidecar, and is whoever X-WX-OPENID says",
                open.join(" and ")
            ),
            "have the app listen on 127.0.0.1 alone (in Kubernetes: containers of a pod share it), or on a Unix socket",
        ),
    }
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The addresses on which somebody listens at `port`, by the tables of Linux (proc_pid_net(5)): in each line a number, the
/// local address, the remote one, and the state.
fn listeners(table: &str, port: u16) -> Vec<IpAddr> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
        let (ip, at) = local.split_once(':')?;
        let is_it = state == LISTEN && u16::from_str_radix(at, 16) == Ok(port);
        is_it.then(|| address(ip)).flatten()
    };
    let mut found: Vec<IpAddr> = table.lines().filter_map(listener).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Words of 32 bits as this machine stores them, in hexadecimal.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&words.concat());
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// What the app makes of an identity, and of a forged one in another spelling.
fn examine_identity(upstream: &Upstream, path: &str, findings: &mut Findings) {
    if matches!(upstream, Upstream::H2c { .. }) {
        return findings.unknown(IDENTITY, "not looked at over HTTP/2");
    }
    let (given, forged) = (mark(), mark());
    let lines = [("X-WX-OPENID", given.as_str()), ("X_WX_OPENID", &forged)];
    let request = ask::request("GET", path, &lines);
    let answer = match ask::ask(&Place::of_app(upstream), &request, PATIENCE) {
        Ok(answer) => answer,
        Err(_) => {
            return findings.bad(
                IDENTITY,
                format!("{path} is not answered"),
                "give another path",
            );
        }
    };
    match seen(&answer.body, &given, &forged) {
        Seen::True => findings.good(IDENTITY, "the app sees X-WX-OPENID, and X_WX_OPENID not at all"),
        Seen::Both => findings.good(IDENTITY, "the app sees X-WX-OPENID, and takes X_WX_OPENID for another name"),
        Seen::Merged => findings.doubtful(
            IDENTITY,
            "the app takes X_WX_OPENID for X-WX-OPENID; the sidecar lets neither pass, but who reaches the app past it is anybody",
            "see that only the sidecar can reach the app, and that its server drops names with an underscore if it can",
        ),
        Seen::Nothing => findings.bad(
            IDENTITY,
            format!("the app's answer at {path} (HTTP {}) does not show X-WX-OPENID", answer.status),
            "if that path does show the headers of its request, something before the app drops X-WX-OPENID",
        ),
    }
}

/// Whether a forged identity gets through the sidecar that runs here.
fn examine_forgery(loaded: &Loaded, path: &str, findings: &mut Findings) {
    const NAME: &str = "forged identity";
    let inbound = &loaded.config.inbound;
    let asked = Asked {
        method: "GET",
        target: path,
        lines: &[],
        from: None,
        now: Clock::System.now(),
    };
    if Explanation::of(loaded, &asked).is_refused() {
        return findings.unknown(
            NAME,
            format!("the sidecar lets nobody without a token to {path}"),
        );
    }
    let place = Place::of_listener(&inbound.listen);
    let Some(place) = place.filter(|_| inbound.tls.is_none() && !inbound.proxy_protocol) else {
        return findings.unknown(NAME, "the sidecar cannot be asked from here");
    };
    let forged = mark();
    let lines = [
        ("X-WX-OPENID", forged.as_str()),
        ("X_WX_OPENID", &forged),
        ("x.wx.openid", &forged),
    ];
    match ask::ask(&place, &ask::request("GET", path, &lines), PATIENCE) {
        Ok(answer) if answer.body.contains(&forged) => findings.bad(
            NAME,
            format!(
                "what a client says in X-WX-OPENID reaches the app through {}",
                inbound.listen
            ),
            "see whether it is the sidecar that listens there",
        ),
        Ok(_) => findings.good(
            NAME,
            "what a client says in X-WX-OPENID does not get through the sidecar",
        ),
        Err(Unanswered::NotThere(_)) => findings.unknown(NAME, "the sidecar does not run"),
        Err(Unanswered::NotHttp(why)) => findings.bad(
            NAME,
            format!("what listens at {} is no sidecar: {why}", inbound.listen),
            "have [inbound] listen on another port",
        ),
    }
}

/// A value that nobody else has, of the form of an openid.
fn mark() -> String {
    let random: [u8; 8] = crypto::random();
    format!("doctor-{}", hex(&random))
}

/// What an answer shows of the two values.
fn seen(body: &str, given: &str, forged: &str) -> Seen {
    let (given_at, forged_at) = match (body.find(given), body.find(forged)) {
        (None, None) => return Seen::Nothing,
        (Some(_), None) => return Seen::True,
        (None, Some(_)) => return Seen::Merged,
        (Some(given_at), Some(forged_at)) => (given_at, forged_at),
    };
    let between = match given_at < forged_at {
        true => &body[given_at + given.len()..forged_at],
        false => &body[forged_at + forged.len()..given_at],
    };
    // Between two of one name there are commas, quotes and the like; between two names there is a name.
    match between.contains(|c: char| c.is_alphanumeric()) {
        true => Seen::Both,
        false => Seen::Merged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_systems_tables() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 0100007F:0BB8 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:0BB9 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: broken
";
        // The tables have the byte order of the machine; these are of a little-endian one.
        if cfg!(target_endian = "little") {
            let at = |port| {
                let found = listeners(table, port);
                found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
            };
            assert_eq!(at(3000), ["0.0.0.0", "127.0.0.1", "::1"]);
            assert_eq!(at(3001), ["::"]);
            assert_eq!(at(8080), ["127.0.0.1"]);
            assert_eq!(at(9999), Vec::<String>::new());
        }
    }

    #[test]
    fn what_an_app_makes_of_two_spellings_shows_in_its_answer() {
        for (body, expected) in [
            ("X-WX-OPENID: given\n", Seen::True),
            (
                r#"{"x-wx-openid":"given","x_wx_openid":"forged"}"#,
                Seen::Both,
            ),
            (
                r#"{"x_wx_openid":"forged","x-wx-openid":"given"}"#,
                Seen::Both,
            ),
            ("HTTP_X_WX_OPENID=given,forged", Seen::Merged),
            (r#"{"X-WX-OPENID":["forged", "given"]}"#, Seen::Merged),
            ("HTTP_X_WX_OPENID=forged", Seen::Merged),
            ("hello", Seen::Nothing),
        ] {
            assert_eq!(seen(body, "given", "forged"), expected, "{body}");
        }
    }

    #[test]
    fn this_machines_addresses_are_known_from_others() {
        for (ip, here) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false)] {
            assert_eq!(is_here(ip.parse().unwrap()), here, "{ip}");
        }
    }
}
