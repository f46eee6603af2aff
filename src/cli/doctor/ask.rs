//! One small question by HTTP, to the app or to a sidecar that runs here, on a connection of its own.
//!
//! HTTP/1.0, because its answers end with the connection and come in one piece; there is nobody who would not speak it.
//! What is connected to is looked at from outside: no pool, no retry, no identity.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{Listen, Upstream};

/// As much of an answer as is looked at.
const MOST: usize = 256 * 1024;

/// Where to ask.
pub(super) enum Place<'a> {
    Tcp(String, u16),
    Unix(&'a Path),
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody is there.
    NotThere(io::Error),
    /// Somebody is there, and speaks something else, or nothing.
    NotHttp(String),
}

impl Unanswered {
    pub(super) fn silent() -> Self {
        Self::NotHttp("it does not answer".to_owned())
    }
}

impl<'a> Place<'a> {
    pub(super) fn of_app(upstream: &'a Upstream) -> Self {
        match upstream {
            Upstream::Tcp { host, port } | Upstream::H2c { host, port } => {
                Self::Tcp(host.clone(), *port)
            }
            Upstream::Unix(path) => Self::Unix(path),
        }
    }

    /// Where a listener can be reached from here; `None` if its port is chosen when it starts.
    pub(super) fn of_listener(listen: &'a Listen) -> Option<Self> {
        match listen {
            Listen::Tcp(addr) if addr.port() == 0 => None,
            Listen::Tcp(addr) => {
                let ip = match addr.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Some(Self::Tcp(ip.to_string(), addr.port()))
            }
            Listen::Unix(path) => Some(Self::Unix(path)),
        }
    }
}

/// A GET of `target`.
pub(super) fn get(target: &str) -> String {
    request("GET", target, &[])
}

pub(super) fn request(method: &str, target: &str, lines: &[(&str, &str)]) -> String {
    let mut head =
        format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in lines {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// Asks.
pub(super) fn ask(
    place: &Place<'_>,
    request: &str,
    patience: Duration,
) -> Result<Answer, Unanswered> {
    let answer = exchange(place, request.as_bytes(), patience, is_whole)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    match status.and_then(|status| status.parse().ok()) {
        Some(status) => Ok(Answer {
            status,
            body: body.to_owned(),
        }),
        None if answer.is_empty() => Err(Unanswered::silent()),
        None => Err(Unanswered::NotHttp("what it says is not HTTP".to_owned())),
    }
}

/// Sends these bytes, and reads until the answer is whole, the connection ends or patience does.
pub(super) fn exchange(
    place: &Place<'_>,
    bytes: &[u8],
    patience: Duration,
    is_whole: fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Unanswered> {
    let until = Instant::now() + patience;
    match place {
        Place::Tcp(host, port) => {
            let stream = connect(host, *port, patience).map_err(Unanswered::NotThere)?;
            converse(&stream, bytes, is_whole, until, |limit| {
                stream.set_read_timeout(limit)
            })
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(Unanswered::NotThere)?;
            converse(&stream, bytes, is_whole, until, |limit| {
                stream.set_read_timeout(limit)
            })
        }
    }
}

fn connect(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name leads nowhere");
    for addr in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, patience) {
            Ok(stream) => {
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn converse<S>(
    mut stream: &S,
    bytes: &[u8],
    is_whole: fn(&[u8]) -> bool,
    until: Instant,
    limit: impl Fn(Option<Duration>) -> io::Result<()>,
) -> Result<Vec<u8>, Unanswered>
where
    for<'s> &'s S: Read + Write,
{
    let silent = |error: io::Error| Unanswered::NotHttp(error.to_string());
    stream.write_all(bytes).map_err(silent)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 8 * 1024];
    while answer.len() < MOST && !is_whole(&answer) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || limit(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(answer)
}

/// Whether an answer has come to the end that its length announces, for those who keep the connection all the same.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|text| text.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() - end - 4 >= length)
}
