//! From text to one value.
//!
//! Each function takes what was written and gives the value or a [`Fault`]. A fault's message says what is expected and
//! never quotes the text; its help is the text as it should have been, where that can be guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tracing::Level;

use super::diagnostic::Fault;
use super::{
    Cidr, EgressProxy, Endpoint, Listen, ProxyCredentials, RateLimit, RedisMode, RedisNode,
    RedisPlace, Upstream, words,
};
use crate::secret::Secret;

/// The longest duration: far beyond any use, and near enough that adding it to a point in time cannot overflow.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The longest path a Unix socket may have (`sun_path` without its closing zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// A duration such as `30s`; not zero.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() {
        return Err(Fault::new("this must be more than zero"));
    }
    Ok(duration)
}

/// A duration such as `30s`, or `0s`.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, Fault> {
    const UNITS: &[(&str, u64)] = &[
        ("ms", 1),
        ("s", 1000),
        ("m", 60 * 1000),
        ("h", 60 * 60 * 1000),
        ("d", 24 * 60 * 60 * 1000),
    ];
    let quantity = Quantity::parse(text);
    let expected = "a duration is a whole number and a unit: ms, s, m, h or d";
    let Some(quantity) = quantity else {
        return Err(Fault::new(expected).help("write it like \"30s\""));
    };
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == quantity.unit) else {
        let unit = match quantity.unit.trim().to_ascii_lowercase().as_str() {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => "ms",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hrs" | "hour" | "hours" => "h",
            "d" | "day" | "days" => "d",
            _ => return Err(Fault::new(expected).help("write it like \"30s\"")),
        };
        return Err(Fault::new(expected).help(format!("write \"{}{unit}\"", quantity.digits)));
    };
    quantity
        .scaled(*scale)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| Fault::new("this is too long; ten years are the most"))
}

/// A number of bytes such as `10MiB`; not zero.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    const UNITS: &[(&str, u64)] = &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let expected = "a size is a whole number and a unit: B, KiB, MiB, GiB, KB, MB or GB";
    let Some(quantity) = Quantity::parse(text) else {
        return Err(Fault::new(expected).help("write it like \"10MiB\""));
    };
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == quantity.unit) else {
        let written = quantity.unit.trim();
        let unit = match written.to_ascii_lowercase().as_str() {
            "" => "B",
            "k" => "KiB",
            "m" => "MiB",
            "g" => "GiB",
            lower => UNITS
                .iter()
                .map(|(name, _)| *name)
                .find(|name| name.to_ascii_lowercase() == lower)
                .ok_or_else(|| Fault::new(expected).help("write it like \"10MiB\""))?,
        };
        return Err(Fault::new(expected).help(format!("write \"{}{unit}\"", quantity.digits)));
    };
    match quantity.scaled(*scale) {
        Some(0) => Err(Fault::new("this must be more than zero")),
        Some(bytes) => Ok(bytes),
        None => Err(Fault::new("this is more than a 64-bit number can say")),
    }
}

/// A rate such as `10/s` or `10/s burst 20`; `None` for `none`. Without a burst, as many as the rate names may come at once.
pub(super) fn rate_limit(text: &str) -> Result<Option<RateLimit>, Fault> {
    const MOST: u32 = 1_000_000;
    let expected =
        "a rate is a number of requests per s, m or h, with a burst if need be; or it is \"none\"";
    let fault = || Fault::new(expected).help("write it like \"10/s\" or \"10/s burst 20\"");
    if text == "none" {
        return Ok(None);
    }
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let (count, unit) = rate.split_once('/').ok_or_else(fault)?;
    let per = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        _ => return Err(fault()),
    };
    let number = |digits: &str| {
        let number = decimal(digits).ok_or_else(fault)?;
        match number {
            1..=MOST => Ok(number),
            _ => Err(Fault::new("the numbers of a rate are from 1 to 1000000")),
        }
    };
    let count = number(count)?;
    let burst = burst.map_or(Ok(count), number)?;
    Ok(Some(RateLimit { count, per, burst }))
}

/// The size of a header section.
pub(super) fn header_limit(text: &str) -> Result<usize, Fault> {
    let bytes = size(text)?;
    if !(1 << 10..=1 << 20).contains(&bytes) {
        return Err(Fault::new("this must be from \"1KiB\" to \"1MiB\""));
    }
    usize::try_from(bytes).map_err(|_| Fault::new("this must be from \"1KiB\" to \"1MiB\""))
}

/// Where to listen: `ip:port`, `:port`, `localhost:port` or `unix:/path`.
pub(super) fn listen(text: &str) -> Result<Listen, Fault> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_socket(path).map(Listen::Unix),
        None => listen_tcp(text).map(Listen::Tcp),
    }
}

/// A listener that need not be there.
pub(super) fn listen_or_off(text: &str) -> Result<Option<Listen>, Fault> {
    match text {
        "off" => Ok(None),
        _ => listen(text).map(Some),
    }
}

fn listen_tcp(text: &str) -> Result<SocketAddr, Fault> {
    let expected =
        "a listener is an address and a port, such as \"0.0.0.0:8080\", or \"unix:/path/to.sock\"";
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && let Some(port) = port_number(port)
    {
        match host {
            "" => return Ok((Ipv4Addr::UNSPECIFIED, port).into()),
            "localhost" => return Ok((Ipv4Addr::LOCALHOST, port).into()),
            "*" => return Err(Fault::new(expected).help(format!("write \":{port}\""))),
            _ => {}
        }
        if host.parse::<Ipv6Addr>().is_ok() {
            return Err(Fault::new(expected).help(format!("write \"[{host}]:{port}\"")));
        }
    }
    let without_scheme = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("tcp://"))
        .map(|rest| rest.trim_end_matches('/'));
    if let Some(rest) = without_scheme
        && listen_tcp(rest).is_ok()
    {
        return Err(Fault::new(expected).help(format!("write \"{rest}\"")));
    }
    if let Some(port) = port_number(text) {
        return Err(Fault::new(expected).help(format!("write \":{port}\"")));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let with_port = SocketAddr::new(ip, 8080);
        return Err(Fault::new(expected).help(format!("write \"{with_port}\"")));
    }
    let port = text.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit())) {
        let host = text.rsplit_once(':').map_or("", |(host, _)| host);
        if host.is_empty() || host == "localhost" || host.parse::<IpAddr>().is_ok() {
            return Err(Fault::new(expected).help("a port is a number from 0 to 65535"));
        }
    }
    Err(Fault::new(expected)
        .help("names are not looked up here; \":8080\" listens on every IPv4 address"))
}

/// Where the app listens: `http://host[:port]`, `h2c://host[:port]` or `unix:/path`.
pub(super) fn upstream(text: &str) -> Result<Upstream, Fault> {
    let expected =
        "an upstream is \"http://host:port\", \"h2c://host:port\" or \"unix:/path/to.sock\"";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path).map(Upstream::Unix);
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => return Err(without_scheme(text, expected)),
    };
    let base = Base::parse(rest, 80);
    let known = if scheme == "h2c" { "h2c" } else { "http" };
    let suggestion = base
        .as_ref()
        .ok()
        .map(|base| format!("write \"{known}://{}\"", base.authority));
    let fault = match scheme.as_str() {
        "http" | "h2c" => {
            let base = base?;
            if let Some(what) = base.excess {
                return Err(Fault {
                    help: suggestion,
                    ..Fault::new(format!("an upstream takes no {what}"))
                });
            }
            let Base { host, port, .. } = base;
            return Ok(match known {
                "h2c" => Upstream::H2c { host, port },
                _ => Upstream::Tcp { host, port },
            });
        }
        "https" => Fault::new(
            "TLS to the app is not supported: it runs beside the sidecar, on the same machine",
        ),
        _ => Fault::new(expected),
    };
    Err(Fault {
        help: suggestion,
        ..fault
    })
}

/// A base URL of WeChat's: `https://host[:port]`, or `http://` for a simulator.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Fault> {
    let expected = "an endpoint is \"https://host\", without a path";
    let (tls, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        other => {
            let rest = other.map_or(text, |(_, rest)| rest).trim_start_matches('/');
            let fault = Fault::new(expected);
            return Err(match Base::parse(rest, 443) {
                Ok(base) => fault.help(format!("write \"https://{}\"", base.authority)),
                Err(_) => fault.help("write it like \"https://api.weixin.qq.com\""),
            });
        }
    };
    let base = Base::parse(rest, if tls { 443 } else { 80 })?;
    if let Some(what) = base.excess {
        let scheme = if tls { "https" } else { "http" };
        return Err(Fault::new(format!("an endpoint takes no {what}"))
            .help(format!("write \"{scheme}://{}\"", base.authority)));
    }
    Ok(Endpoint {
        tls,
        host: base.host,
        port: base.port,
    })
}

/// A collector of traces: `http://host:4318`, with the path that its `/v1/traces` is below, if any.
pub(super) fn collector(text: &str) -> Result<String, Fault> {
    let fault = || {
        Fault::new("a collector is \"http://host:4318\" or \"https://host\", perhaps with a path")
            .help("`/v1/traces` is added to it; what it wants to be shown goes into OTEL_EXPORTER_OTLP_HEADERS")
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let is_plain = path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains(['?', '#']);
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(fault()),
    };
    let base = Base::parse(host, usual)?;
    if base.excess.is_some() || !is_plain {
        return Err(fault());
    }
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/v1/traces").unwrap_or(path);
    Ok(format!("{scheme}://{}{path}", base.authority))
}

/// A share such as `10%`, as a number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, Fault> {
    let fault = || {
        Fault::new("a share is a number from 0 to 100 and a percent sign")
            .help("write it like \"10%\", or \"0.5%\"")
    };
    let number = text.strip_suffix('%').ok_or_else(fault)?;
    let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match number.parse::<f64>() {
        Ok(percent) if is_plain && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(fault()),
    }
}

/// A proxy on the way to WeChat: `http://[user[:password]@]host[:port]`. What is wrong is told without the text: a
/// password may stand in it.
pub(super) fn egress_proxy(text: &str) -> Result<EgressProxy, Fault> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Fault::new(
            "a proxy is \"http://host:port\", or \"http://user:password@host:port\"",
        )
        .help("no other kind is spoken with; TLS to WeChat goes through it from end to end"));
    }
    let door = Door::parse(rest, 80)?;
    if !matches!(door.tail, "" | "/") {
        return Err(Fault::new("a proxy takes no path, query or fragment")
            .help("`/`, `?` and `#` of a password are written as %2F, %3F and %23"));
    }
    let credentials = match (door.user, door.password) {
        (None, None) => None,
        (user, password) => Some(ProxyCredentials {
            user: user.unwrap_or_default(),
            password: password.unwrap_or_else(|| Secret::new("")),
        }),
    };
    // RFC 7617 §2: the two are sent as one text that is parted by its first colon.
    if let Some(ProxyCredentials { user, password }) = &credentials {
        let has_control = |text: &str| text.chars().any(char::is_control);
        if user.contains(':') || has_control(user) || has_control(password.expose()) {
            return Err(Fault::new(
                "the name of a proxy's user has no colon, and neither it nor the password has a control character",
            ));
        }
    }
    Ok(EgressProxy {
        host: door.host,
        port: door.port,
        credentials,
    })
}

/// A Redis server: `redis://[user[:password]@]host[:port][/database]`, `rediss://` for TLS, or
/// `unix:///path[?db=0&user=..&pass=..]`. What is wrong is told without the text: a password may stand in it.
pub(super) fn redis_node(text: &str, default_port: u16) -> Result<RedisNode, Fault> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    match scheme {
        "redis" | "rediss" => redis_tcp(scheme == "rediss", rest, default_port),
        "unix" | "redis+unix" => redis_unix(rest),
        _ => Err(Fault::new(
            "this is \"redis://host:port\", \"rediss://host:port\" or \"unix:///path/to.sock\"",
        )
        .help("user, password and database have a place in it: redis://user:password@host:6379/0")),
    }
}

fn redis_tcp(tls: bool, rest: &str, default_port: u16) -> Result<RedisNode, Fault> {
    let door = Door::parse(rest, default_port)?;
    let database = match door.tail.strip_prefix('/').unwrap_or(door.tail) {
        "" => 0,
        number => redis_database(number)?,
    };
    Ok(RedisNode {
        place: RedisPlace::Tcp {
            host: door.host,
            port: door.port,
        },
        tls,
        database,
        user: door.user,
        password: door.password,
    })
}

fn redis_unix(rest: &str) -> Result<RedisNode, Fault> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut node = RedisNode {
        place: RedisPlace::Unix(unix_socket(path)?),
        tls: false,
        database: 0,
        user: None,
        password: None,
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("db", number)) => node.database = redis_database(number)?,
            Some(("user", user)) => node.user = percent_decoded(user)?,
            Some(("pass", password)) => node.password = percent_decoded(password)?.map(Secret::new),
            _ => {
                return Err(Fault::new(
                    "after the `?` there are `db`, `user` and `pass`",
                ));
            }
        }
    }
    Ok(node)
}

fn redis_database(number: &str) -> Result<u16, Fault> {
    let number = decimal(number).and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| {
        Fault::new("the path of this URL is the number of a database, such as `/0`")
            .help("`/`, `?` and `#` of a password are written as %2F, %3F and %23")
    })
}

/// What nodes have to be to each other in this mode.
pub(super) fn redis_nodes(nodes: &[RedisNode], mode: &RedisMode) -> Result<(), Fault> {
    let several = nodes.len() > 1;
    let same = |a: &RedisNode, b: &RedisNode| {
        (a.tls, &a.user, &a.password, a.database) == (b.tls, &b.user, &b.password, b.database)
    };
    let alike = nodes.windows(2).all(|pair| same(&pair[0], &pair[1]));
    let has_unix = nodes
        .iter()
        .any(|node| matches!(node.place, RedisPlace::Unix(_)));
    match mode {
        RedisMode::Single if several => Err(Fault::new("one Redis has one URL")
            .help("write mode = \"cluster\" or mode = \"sentinel\" if these belong together")),
        RedisMode::Single => Ok(()),
        RedisMode::Sentinel { .. } | RedisMode::Cluster if has_unix => Err(Fault::new(
            "this mode is for several machines, and a socket in the file system is for one",
        )),
        RedisMode::Sentinel { .. } | RedisMode::Cluster if !alike => Err(Fault::new(
            "these URLs differ in more than host and port, and they are doors to one Redis",
        )
        .help("scheme, user, password and database are the same in all of them")),
        RedisMode::Cluster if nodes.iter().any(|node| node.database != 0) => {
            Err(Fault::new("a Cluster has one database, number 0").help("leave the path out"))
        }
        RedisMode::Sentinel { .. } | RedisMode::Cluster => Ok(()),
    }
}

/// Text of a URL's part; `None` if it is empty.
fn percent_decoded(part: &str) -> Result<Option<String>, Fault> {
    let fault = || {
        Fault::new("`%` stands before two hexadecimal digits here")
            .help("a `%` of a password is written as %25")
    };
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !part.split('%').skip(1).all(is_escape) {
        return Err(fault());
    }
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| fault())?.into_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// A network, or an address alone.
pub(super) fn cidr(text: &str) -> Result<Cidr, Fault> {
    let expected = "a trusted proxy is an address or a network, such as \"10.0.0.0/8\"";
    let (addr, prefix) = match text.split_once('/') {
        Some((addr, prefix)) => (addr, Some(prefix)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| {
        Fault::new(expected)
            .help("names are not looked up here; \"unix\" is whoever comes by a Unix socket")
    })?;
    let widest = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => widest,
        Some(digits) => decimal(digits)
            .and_then(|n| u8::try_from(n).ok())
            .filter(|n| *n <= widest)
            .ok_or_else(|| {
                Fault::new(format!(
                    "the number after the slash counts bits, from 0 to {widest}"
                ))
            })?,
    };
    if addr.to_canonical().is_ipv4() && addr.is_ipv6() {
        return Err(
            Fault::new("an IPv4 network is written as IPv4").help(format!(
                "write \"{}/{}\"",
                addr.to_canonical(),
                prefix.saturating_sub(96)
            )),
        );
    }
    Ok(Cidr { addr, prefix })
}

/// The path of the sidecar's own endpoints.
pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    let expected = "a prefix is a path such as \"/wx\", of plain segments";
    let trimmed = text.trim_matches('/');
    let plain = trimmed.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
    });
    match plain {
        true if text.len() == trimmed.len() + 1 && text.starts_with('/') => Ok(text.to_owned()),
        true => Err(Fault::new(expected).help(format!("write \"/{trimmed}\""))),
        false => Err(Fault::new(expected).help("write it like \"/wx\"")),
    }
}

/// The value of `X-WX-ENV`.
pub(super) fn env(text: &str) -> Result<String, Fault> {
    let fits = (1..=64).contains(&text.len());
    let clean = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !fits || !clean {
        return Err(Fault::new(
            "an environment id is 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`",
        ));
    }
    Ok(text.to_owned())
}

/// A method's name.
pub(super) fn method(text: &str) -> Result<String, Fault> {
    let is_token = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token || text == "*" {
        return Err(Fault::new("a method is a word such as \"GET\"")
            .help("leave `methods` out for a route that is for all of them"));
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(
            Fault::new("methods are case-sensitive, and written in capitals")
                .help(format!("write \"{upper}\"")),
        );
    }
    Ok(upper)
}

/// A route's pattern.
pub(super) fn pattern(text: &str) -> Result<String, Fault> {
    let Some(path) = text.strip_prefix('/') else {
        return Err(Fault::new("a path begins with `/`").help(format!("write \"/{text}\"")));
    };
    let segments: Vec<&str> = path.split('/').collect();
    for (i, segment) in segments.iter().enumerate() {
        pattern_segment(segment, i + 1 == segments.len())?;
    }
    Ok(text.to_owned())
}

/// Whether every path that `later` matches is matched by `earlier` too.
pub(super) fn covers(earlier: &str, later: &str) -> bool {
    let mut earlier = earlier.split('/').skip(1);
    let mut later = later.split('/').skip(1);
    loop {
        match (earlier.next(), later.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some("*"), Some(segment)) if !matches!(segment, "**" | "") => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether `pattern` matches only paths at or below `prefix`.
pub(super) fn lies_below(pattern: &str, prefix: &str) -> bool {
    pattern
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// One of a few words; `choices` pairs each with what it means.
pub(super) fn one_of<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    choices
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, meaning)| meaning.clone())
        .ok_or_else(|| {
            Fault::new("this is not one of the words that can stand here").suggest(
                text,
                choices.iter().map(|(word, _)| *word),
                '"',
            )
        })
}

/// A part of the sidecar and the level at which it is heard, such as `push=debug`.
pub(super) fn part_level(text: &str) -> Result<(&'static str, Level), Fault> {
    let Some((part, level)) = text.split_once('=') else {
        return Err(Fault::new("a part of the sidecar and a level are expected")
            .help("write it like \"push=debug\""));
    };
    let parts: Vec<(&str, &'static str)> =
        words::LOG_PARTS.iter().map(|part| (*part, *part)).collect();
    Ok((one_of(part, &parts)?, one_of(level, words::LOG_LEVELS)?))
}

/// A number with what stands behind it.
struct Quantity<'a> {
    digits: &'a str,
    unit: &'a str,
}

impl<'a> Quantity<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        // A number nobody would write is not repeated in the help either.
        (1..=20)
            .contains(&digits.len())
            .then_some(Self { digits, unit })
    }

    fn scaled(&self, scale: u64) -> Option<u64> {
        self.digits.parse::<u64>().ok()?.checked_mul(scale)
    }
}

/// What follows the `://` of a URL.
struct Base<'a> {
    host: String,
    port: u16,
    /// Host and port as written, without what is in excess.
    authority: &'a str,
    /// What a base URL has no place for, if it is there.
    excess: Option<&'static str>,
}

impl<'a> Base<'a> {
    fn parse(rest: &'a str, default_port: u16) -> Result<Self, Fault> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, authority),
        };
        let (host, port) = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => {
                (&authority[..colon], Some(&authority[colon + 1..]))
            }
            _ => (authority, None),
        };
        let port = match port {
            None => default_port,
            Some(digits) => port_number(digits)
                .filter(|port| *port != 0)
                .ok_or_else(|| Fault::new("the port is a number from 1 to 65535"))?,
        };
        let excess = match tail.chars().next() {
            _ if userinfo.is_some() => Some("user or password"),
            Some('/') => Some("path"),
            Some('?') => Some("query"),
            Some(_) => Some("fragment"),
            None => None,
        };
        Ok(Self {
            host: host_name(host)?,
            port,
            authority,
            excess,
        })
    }
}

/// What follows the `://` of a URL that may name a user.
struct Door<'a> {
    user: Option<String>,
    password: Option<Secret>,
    host: String,
    port: u16,
    /// Path, query and fragment.
    tail: &'a str,
}

impl<'a> Door<'a> {
    fn parse(rest: &'a str, default_port: u16) -> Result<Self, Fault> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (userinfo, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let Base { host, port, .. } = Base::parse(place, default_port)?;
        Ok(Self {
            user: percent_decoded(user)?,
            password: percent_decoded(password)?.map(Secret::new),
            host,
            port,
            tail,
        })
    }
}

fn host_name(host: &str) -> Result<String, Fault> {
    let fault =
        || Fault::new("the host is a name, an IPv4 address, or an IPv6 address in brackets");
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let addr: Ipv6Addr = inner.parse().map_err(|_| fault())?;
        return Ok(addr.to_string());
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    if !is_name {
        return Err(fault());
    }
    // Resolvers read `127.1` and `2130706433` as addresses too; who reads the file should not have to.
    let last = host.trim_end_matches('.').rsplit('.').next();
    let numeric = last.is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(fault());
    }
    Ok(host.to_ascii_lowercase())
}

fn unix_socket(path: &str) -> Result<PathBuf, Fault> {
    if let Some(rest) = path.strip_prefix("//") {
        let rest = rest.trim_start_matches('/');
        return Err(Fault::new("`unix:` is followed by the path at once")
            .help(format!("write \"unix:/{rest}\"")));
    }
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(Fault::new("the path of a socket is absolute")
            .help("write it like \"unix:/run/app.sock\""));
    }
    if path.len() > SOCKET_PATH_LIMIT {
        return Err(Fault::new(format!(
            "the path of a socket has {SOCKET_PATH_LIMIT} bytes at the most"
        )));
    }
    Ok(PathBuf::from(path))
}

/// The fault of an upstream that has no `://`.
fn without_scheme(text: &str, expected: &'static str) -> Fault {
    let fault = Fault::new(expected);
    if text.starts_with('/') {
        return fault.help(format!("write \"unix:{text}\""));
    }
    let (scheme, rest) = match text.strip_prefix("h2c:") {
        Some(rest) => ("h2c", rest.trim_start_matches('/')),
        None => match text.split_once(":/") {
            Some((_, rest)) => ("http", rest.trim_start_matches('/')),
            None => ("http", text.strip_prefix("http:").unwrap_or(text)),
        },
    };
    let rest = match (rest.strip_prefix(':'), port_number(rest)) {
        (Some(port), _) if port_number(port).is_some() => format!("127.0.0.1:{port}"),
        (_, Some(port)) => format!("127.0.0.1:{port}"),
        _ => rest.to_owned(),
    };
    match Base::parse(&rest, 80) {
        Ok(base) => fault.help(format!("write \"{scheme}://{}\"", base.authority)),
        Err(_) => fault.help("write it like \"http://127.0.0.1:3000\""),
    }
}

fn pattern_segment(segment: &str, last: bool) -> Result<(), Fault> {
    let fault = match segment {
        "*" => return Ok(()),
        "**" if last => return Ok(()),
        "" if last => return Ok(()),
        "**" => Fault::new("`**` stands for the rest of a path, so nothing can follow it")
            .help("`*` stands for one segment"),
        "" => Fault::new("a path has no empty segments").help("write one `/` only"),
        "." | ".." => {
            Fault::new("a path has no `.` or `..` segments: requests are matched without")
        }
        _ if segment.contains('*') => Fault::new("`*` stands for one whole segment")
            .help("write \"/a/*\" for one segment and \"/a/**\" for all below `/a`"),
        _ if segment.contains(['?', '#']) => {
            Fault::new("a path ends before `?` and `#`: the query is not matched")
        }
        _ if segment.contains('%') => {
            Fault::new("a path is written without `%`").help("use `*` for this segment")
        }
        _ => match segment.chars().find(|c| !is_path_char(*c)) {
            None => return Ok(()),
            Some(_) => Fault::new("a path's segments are of visible ASCII characters")
                .help("use `*` for this segment"),
        },
    };
    Err(fault)
}

/// RFC 3986 `pchar` without percent-encoding and without our `*`.
fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c)
}

fn port_number(digits: &str) -> Option<u16> {
    decimal(digits).and_then(|n| u16::try_from(n).ok())
}

/// A number of digits only: `parse` alone would take a plus sign.
fn decimal(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help<T>(result: Result<T, Fault>) -> String {
        match result {
            Ok(_) => panic!("this should have been refused"),
            Err(fault) => fault.help.unwrap_or(fault.message),
        }
    }

    #[test]
    fn durations_have_a_unit_and_an_end() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("30d").unwrap(), Duration::from_secs(2_592_000));
        assert_eq!(duration_or_zero("0s").unwrap(), Duration::ZERO);
        for (bad, advice) in [
            ("30", "write \"30s\""),
            ("30 s", "write \"30s\""),
            ("5min", "write \"5m\""),
            ("", "write it like \"30s\""),
            ("s", "write it like \"30s\""),
            ("-1s", "write it like \"30s\""),
            ("1.5h", "write it like \"30s\""),
            ("0s", "this must be more than zero"),
            ("3651d", "this is too long; ten years are the most"),
            (
                "18446744073709551615d",
                "this is too long; ten years are the most",
            ),
            (
                "99999999999999999999s",
                "this is too long; ten years are the most",
            ),
        ] {
            assert_eq!(help(duration(bad)), advice, "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit_and_an_end() {
        assert_eq!(size("10MiB").unwrap(), 10 << 20);
        assert_eq!(size("10MB").unwrap(), 10_000_000);
        assert_eq!(header_limit("1KiB").unwrap(), 1024);
        for (bad, advice) in [
            ("10", "write \"10B\""),
            ("10mb", "write \"10MB\""),
            ("10M", "write \"10MiB\""),
            ("10 kib", "write \"10KiB\""),
            ("ten", "write it like \"10MiB\""),
            ("0B", "this must be more than zero"),
            (
                "99999999999GiB",
                "this is more than a 64-bit number can say",
            ),
        ] {
            assert_eq!(help(size(bad)), advice, "{bad}");
        }
        assert!(header_limit("1023B").is_err());
        assert!(header_limit("2MiB").is_err());
    }

    #[test]
    fn rates_are_requests_per_time_with_a_burst() {
        let limit = |count, secs, burst| {
            Some(RateLimit {
                count,
                per: Duration::from_secs(secs),
                burst,
            })
        };
        assert_eq!(rate_limit("10/s").unwrap(), limit(10, 1, 10));
        assert_eq!(rate_limit("600/m").unwrap(), limit(600, 60, 600));
        assert_eq!(rate_limit("1000/h burst 5").unwrap(), limit(1000, 3600, 5));
        assert_eq!(rate_limit("none").unwrap(), None);
        for bad in [
            "",
            "10",
            "10/",
            "/s",
            "10/d",
            "10 /s",
            "10/s 20",
            "10/s burst",
            "10/s burst x",
            "10/s, burst 20",
            "-1/s",
            "+1/s",
            "1.5/s",
            "off",
        ] {
            let advice = "write it like \"10/s\" or \"10/s burst 20\"";
            assert_eq!(help(rate_limit(bad)), advice, "{bad}");
        }
        for bad in ["0/s", "1000001/s", "10/s burst 0"] {
            let advice = "the numbers of a rate are from 1 to 1000000";
            assert_eq!(help(rate_limit(bad)), advice, "{bad}");
        }
    }

    #[test]
    fn listeners_are_addresses() {
        assert_eq!(listen(":8080").unwrap().to_string(), "0.0.0.0:8080");
        assert_eq!(listen("localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(listen("[::1]:0").unwrap().to_string(), "[::1]:0");
        for (bad, advice) in [
            ("8080", "write \":8080\""),
            ("127.0.0.1", "write \"127.0.0.1:8080\""),
            ("::1", "write \"[::1]:8080\""),
            ("*:80", "write \":80\""),
            ("http://0.0.0.0:80/", "write \"0.0.0.0:80\""),
        ] {
            assert_eq!(help(listen(bad)), advice, "{bad}");
        }
        for bad in ["app:8080", "localhost:+1", ":65536", "", ":"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upstream_is_a_host_or_a_socket() {
        let tcp = |host: &str, port| Upstream::Tcp {
            host: host.to_owned(),
            port,
        };
        assert_eq!(upstream("http://app").unwrap(), tcp("app", 80));
        assert_eq!(upstream("http://my_app:3000").unwrap(), tcp("my_app", 3000));
        assert_eq!(upstream("http://[::1]:3000").unwrap(), tcp("::1", 3000));
        let (host, port) = ("app".to_owned(), 50051);
        let h2c = Upstream::H2c { host, port };
        assert_eq!(upstream("h2c://app:50051").unwrap(), h2c);
        assert_eq!(
            upstream("unix:/run/a.sock").unwrap(),
            Upstream::Unix("/run/a.sock".into())
        );
        for (bad, advice) in [
            ("http://app:3000/api", "write \"http://app:3000\""),
            ("http://app:3000/", "write \"http://app:3000\""),
            ("h2c://app:3000/", "write \"h2c://app:3000\""),
            ("http://app:3000?x=1", "write \"http://app:3000\""),
            ("http://user:pw@app:3000", "write \"http://app:3000\""),
            ("https://app:3000", "write \"http://app:3000\""),
            ("htp://app:3000", "write \"http://app:3000\""),
            ("http:/app", "write \"http://app\""),
            ("http:app", "write \"http://app\""),
            ("h2c:app:50051", "write \"h2c://app:50051\""),
            ("h2c:/app:50051", "write \"h2c://app:50051\""),
            ("localhost:3000", "write \"http://localhost:3000\""),
            (":3000", "write \"http://127.0.0.1:3000\""),
            ("3000", "write \"http://127.0.0.1:3000\""),
            ("unix:///run/a.sock", "write \"unix:/run/a.sock\""),
            ("/run/a.sock", "write \"unix:/run/a.sock\""),
            ("unix:a.sock", "write it like \"unix:/run/app.sock\""),
            ("", "write it like \"http://127.0.0.1:3000\""),
        ] {
            assert_eq!(help(upstream(bad)), advice, "{bad}");
        }
        for bad in [
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://a b",
            "http://127.1",
            "http://2130706433",
            "http://[::1",
            "http://::1:80",
            "http://a..b",
            "http://a\r\nb",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_have_no_path() {
        assert_eq!(
            endpoint("https://api.weixin.qq.com").unwrap(),
            Endpoint {
                tls: true,
                host: "api.weixin.qq.com".to_owned(),
                port: 443
            }
        );
        assert_eq!(endpoint("http://127.0.0.1:9000").unwrap().port, 9000);
        assert_eq!(
            help(endpoint("https://api.weixin.qq.com/sns")),
            "write \"https://api.weixin.qq.com\""
        );
        assert_eq!(
            help(endpoint("api.weixin.qq.com")),
            "write \"https://api.weixin.qq.com\""
        );
    }

    #[test]
    fn a_collector_is_written_with_or_without_the_path_of_traces() {
        for (text, base) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
            (
                "HTTP://otel.observe:4318/v1/traces",
                "http://otel.observe:4318",
            ),
            ("https://otlp.example/otlp/", "https://otlp.example/otlp"),
            ("https://[::1]/a/b/v1/traces/", "https://[::1]/a/b"),
        ] {
            assert_eq!(collector(text).unwrap(), base);
        }
        for bad in [
            "",
            "127.0.0.1:4318",
            "grpc://127.0.0.1:4317",
            "http://",
            "http://host:0",
            "http://host/?token=1",
            "http://host/#a",
            "http://user:password@host",
            "http://host/a b",
        ] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_percentage() {
        for (text, number) in [("10%", 0.1), ("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005)] {
            assert!((share(text).unwrap() - number).abs() < 1e-12, "{text}");
        }
        for bad in [
            "", "%", "10", "0.1", "101%", "-1%", "1e1%", "inf%", "nan%", "1.2.3%", "ten%",
        ] {
            assert_eq!(
                help(share(bad)),
                "write it like \"10%\", or \"0.5%\"",
                "{bad}"
            );
        }
    }

    #[test]
    fn networks_count_their_bits() {
        assert_eq!(cidr("10.1.2.3").unwrap().prefix, 32);
        assert_eq!(cidr("fd00::/8").unwrap().prefix, 8);
        assert_eq!(help(cidr("::ffff:10.0.0.0/104")), "write \"10.0.0.0/8\"");
        assert!(help(cidr("unixx")).contains("\"unix\""));
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "lb",
            "10.0.0.0/+8",
        ] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_plain() {
        assert_eq!(prefix("/wx").unwrap(), "/wx");
        assert_eq!(prefix("/a/b-c").unwrap(), "/a/b-c");
        assert_eq!(help(prefix("wx")), "write \"/wx\"");
        assert_eq!(help(prefix("/wx/")), "write \"/wx\"");
        for bad in ["/", "", "/a//b", "/..", "/a b", "/*", "/é", "/%2f"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_are_literal_but_for_whole_segment_stars() {
        for good in ["/", "/**", "/*", "/api/*/x", "/api/**", "/a/", "/a.b~c:d"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for bad in [
            "", "api", "/a//b", "/a*", "/*.js", "/***", "/**/a", "/a?b", "/a#b", "/%41", "/a/../b",
            "/.", "/a b", "/é", "/a\\b", "/{id}",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_and_no_more() {
        for (earlier, later) in [
            ("/**", "/a/b"),
            ("/**", "/"),
            ("/a/**", "/a"),
            ("/a/**", "/a/*/b"),
            ("/a/*", "/a/b"),
            ("/a/*", "/a/*"),
            ("/a", "/a"),
        ] {
            assert!(covers(earlier, later), "{earlier} {later}");
        }
        for (earlier, later) in [
            ("/a/*", "/a/**"),
            ("/a", "/a/"),
            ("/a/b", "/a/*"),
            ("/a/*", "/a"),
            ("/a", "/b"),
            ("/a/*", "/a/"),
            ("/a/**", "/**"),
        ] {
            assert!(!covers(earlier, later), "{earlier} {later}");
        }
    }
}
