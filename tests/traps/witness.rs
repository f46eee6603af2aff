//! An app that trusts nobody: it keeps every byte that the sidecar sends, reads it more strictly than any framework, and
//! says what was wrong.
//!
//! One thread looks at all its sockets in turn, so that [`Witness::settled`] can promise: whatever had been sent to the app
//! when it was called has been seen. That is how "not one byte reached the app" becomes a fact and not a matter of luck.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::patience::PATIENCE;

/// A listening app.
pub(crate) struct Witness {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    passed: Condvar,
    ending: AtomicBool,
}

#[derive(Default)]
struct State {
    /// How many times somebody has asked for a whole look at all sockets, and how many times that was done.
    asked: u64,
    done: u64,
    seen: Vec<Seen>,
}

/// What came over one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Its requests that were whole, in order.
    pub(crate) requests: Vec<Request>,
    /// What follows the last whole request.
    pub(crate) rest: Vec<u8>,
    /// Whether the sidecar has closed it.
    pub(crate) closed: bool,
    /// What no app should have to read.
    pub(crate) wrong: Option<String>,
}

/// A whole request, as sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as spelt, values as sent.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    /// Head, and body with its framing.
    pub(crate) bytes: Vec<u8>,
}

impl Request {
    /// The values of all lines of this name, in any case.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let same = |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        let lines = self.fields.iter().filter(same);
        lines.map(|(_, value)| value.as_slice()).collect()
    }
}

impl Witness {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        let addr = listener.local_addr().expect("a bound port");
        let shared = Arc::<Shared>::default();
        let ours = Arc::clone(&shared);
        let thread = thread::spawn(move || watch(&listener, addr, &ours));
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    /// As `[inbound] upstream` has it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Forgets what is over; connections stay.
    pub(crate) fn forget(&self) {
        let mut state = self.look();
        for seen in &mut state.seen {
            seen.requests.clear();
            if seen.closed {
                *seen = Seen::default();
            }
        }
    }

    /// All that had been sent to the app when this was called, by connections; those without a byte are left out.
    pub(crate) fn settled(&self) -> Vec<Seen> {
        let state = self.look();
        let spoke = |seen: &&Seen| {
            !seen.requests.is_empty() || !seen.rest.is_empty() || seen.wrong.is_some()
        };
        state.seen.iter().filter(spoke).cloned().collect()
    }

    /// Waits for a look at all sockets that begins now.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.shared.lock();
        state.asked += 1;
        let asked = state.asked;
        while state.done < asked {
            let waiting = self.shared.passed.wait_timeout(state, PATIENCE);
            let (next, late) = waiting.unwrap_or_else(PoisonError::into_inner);
            state = next;
            assert!(!late.timed_out(), "the witness has gone");
        }
        state
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _panicked_with_a_message = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection while it lasts; its number is its place in [`State::seen`].
struct Live {
    stream: TcpStream,
    number: usize,
    continued: bool,
}

fn watch(listener: &TcpListener, addr: SocketAddr, shared: &Shared) {
    let mut live: Vec<Live> = Vec::new();
    while !shared.ending.load(Ordering::SeqCst) {
        let asked = shared.lock().asked;
        let mut busy = false;
        while let Ok((stream, _)) = listener.accept() {
            busy = true;
            stream
                .set_nonblocking(true)
                .expect("a socket that does not block");
            stream
                .set_nodelay(true)
                .expect("a socket that does not wait");
            let mut state = shared.lock();
            state.seen.push(Seen::default());
            live.push(Live {
                stream,
                number: state.seen.len() - 1,
                continued: false,
            });
        }
        live.retain_mut(|connection| {
            let mut piece = [0; 64 * 1024];
            loop {
                let read = connection.stream.read(&mut piece);
                let mut state = shared.lock();
                let seen = &mut state.seen[connection.number];
                match read {
                    Ok(0) => seen.closed = true,
                    Ok(count) => {
                        busy = true;
                        seen.rest.extend_from_slice(&piece[..count]);
                        answer_all(connection, seen, addr);
                        if seen.wrong.is_none() {
                            continue;
                        }
                        seen.closed = true;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => seen.closed = true,
                }
                return false;
            }
        });
        let mut state = shared.lock();
        state.done = asked;
        shared.passed.notify_all();
        drop(state);
        if !busy {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

/// Answers every request that is whole.
fn answer_all(connection: &mut Live, seen: &mut Seen, addr: SocketAddr) {
    loop {
        match parse(&seen.rest, addr) {
            Ok(Parsed::Whole(request)) => {
                seen.rest.drain(..request.bytes.len());
                let said = format!("{} {}", request.method, request.target);
                let body = if request.method == "HEAD" { "" } else { &said };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    said.len()
                );
                // A sidecar that has gone away is its own business.
                let _gone = connection.stream.write_all(answer.as_bytes());
                connection.continued = false;
                seen.requests.push(*request);
            }
            Ok(Parsed::Expecting) if !connection.continued => {
                connection.continued = true;
                let _gone = connection
                    .stream
                    .write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                return;
            }
            Ok(Parsed::Expecting | Parsed::Part) => return,
            Err(wrong) => {
                seen.wrong = Some(wrong);
                return;
            }
        }
    }
}

enum Parsed {
    Whole(Box<Request>),
    Part,
    /// The head is there and asks for `100 Continue`; the body is not.
    Expecting,
}

/// Names of fields that belong to one connection. `Connection`, `Upgrade` and `TE` are looked at by themselves.
const HOP_BY_HOP: [&str; 5] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "http2-settings",
];

/// Names that change how a message is read or who it is from; none has a place behind a body (RFC 9110 §6.5.1).
const NEVER_TRAILERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "trailer",
    "te",
    "upgrade",
    "authorization",
    "cookie",
    "content-type",
    "content-encoding",
    "expect",
];

/// Reads one request, with nothing forgiven.
fn parse(bytes: &[u8], addr: SocketAddr) -> Result<Parsed, String> {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
    let wrong = |what: &str| Err(format!("{what}: {:?}", shown()));
    let head_end = find(bytes, b"\r\n\r\n");
    let head = &bytes[..head_end.unwrap_or(bytes.len())];
    for (at, byte) in head.iter().enumerate() {
        let bare = match byte {
            b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
            b'\n' => at == 0 || head[at - 1] != b'\r',
            b'\t' => false,
            byte => byte.is_ascii_control(),
        };
        if bare {
            return wrong("a control character in a head");
        }
    }
    let Some(head_end) = head_end else {
        return Ok(Parsed::Part);
    };
    // Every CR is followed by LF here, and the other way round.
    let mut lines = head
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = lines.next().unwrap_or_default();
    let start = std::str::from_utf8(start).map_err(|_| format!("a start line: {:?}", shown()))?;
    let parts: Vec<_> = start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return wrong("a start line");
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return wrong("a method");
    }
    let graphic = target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !target.starts_with('/') || !graphic {
        return wrong("a target");
    }
    let mut fields = Vec::new();
    for line in lines {
        fields.push(field(line).ok_or_else(|| format!("a field line: {:?}", shown()))?);
    }
    let values = |wanted: &str| -> Vec<&[u8]> {
        let same = |(name, _): &&(String, Vec<u8>)| name.eq_ignore_ascii_case(wanted);
        let lines = fields.iter().filter(same);
        lines.map(|(_, value)| value.as_slice()).collect()
    };
    if values("host") != [addr.to_string().as_bytes()] {
        return wrong("a Host that the configuration does not have");
    }
    if HOP_BY_HOP.iter().any(|name| !values(name).is_empty()) {
        return wrong("a field of another connection");
    }
    let upgrade = values("upgrade");
    let connection = values("connection");
    let te = values("te");
    // Whoever says what belongs to one connection must say so (RFC 9110 §7.6.1, §7.8, §10.1.4).
    let tidy = match (&upgrade[..], &te[..], &connection[..]) {
        ([], [], []) => true,
        ([protocol], [], [b"upgrade"]) => !protocol.eq_ignore_ascii_case(b"h2c"),
        ([], [b"trailers"], [b"te"]) => true,
        _ => false,
    };
    if !tidy {
        return wrong("Connection, Upgrade or TE");
    }
    let body = &bytes[head_end + 4..];
    let (length, body, trailers) = match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => (0, Vec::new(), Vec::new()),
        ([length], []) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(length).ok().filter(|_| digits);
            let Some(length) = length.and_then(|length| length.parse::<usize>().ok()) else {
                return wrong("a Content-Length");
            };
            if body.len() < length {
                return Ok(part(&values("expect")));
            }
            (length, body[..length].to_vec(), Vec::new())
        }
        ([], [b"chunked"]) => {
            match chunks(body).map_err(|what| format!("{what}: {:?}", shown()))? {
                Some(whole) => whole,
                None => return Ok(part(&values("expect"))),
            }
        }
        _ => return wrong("two framings"),
    };
    if !tidy_trailers(&trailers) {
        return wrong("a trailer that is more than a trailer");
    }
    Ok(Parsed::Whole(Box::new(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        bytes: bytes[..head_end + 4 + length].to_vec(),
        fields,
        body,
    })))
}

fn part(expectations: &[&[u8]]) -> Parsed {
    if expectations.is_empty() {
        Parsed::Part
    } else {
        Parsed::Expecting
    }
}

fn tidy_trailers(trailers: &[(String, Vec<u8>)]) -> bool {
    trailers.iter().all(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !NEVER_TRAILERS.contains(&name.as_str()) && !super::is_ours(&super::fold(&name))
    })
}

type WholeBody = (usize, Vec<u8>, Vec<(String, Vec<u8>)>);

/// A chunked body with its length on the wire and its trailers, if it is all there.
fn chunks(bytes: &[u8]) -> Result<Option<WholeBody>, &'static str> {
    let (mut at, mut body, mut trailers) = (0, Vec::new(), Vec::new());
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            let longest = bytes.len() - at > 20;
            return if longest {
                Err("a chunk size")
            } else {
                Ok(None)
            };
        };
        let digits = &bytes[at..at + end];
        let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(digits).ok().filter(|_| hex);
        let Some(size) = text.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            return Err("a chunk size");
        };
        at += end + 2;
        if size == 0 {
            break;
        }
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size;
        if !bytes[at..].starts_with(b"\r\n") {
            return Err("a chunk that does not end");
        }
        at += 2;
    }
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some((at, body, trailers)));
        }
        trailers.push(field(line).ok_or("a trailer line")?);
    }
}

/// `name: value`, with one space and nothing around.
fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, rest) = line.split_at(colon);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let value = rest
        .strip_prefix(b": ")
        .or_else(|| rest.strip_prefix(b":"))?;
    let clean = value
        .iter()
        .all(|&byte| byte == b'\t' || !byte.is_ascii_control());
    let tidy = clean && value == value.trim_ascii() && !name.is_empty() && name.iter().all(token);
    tidy.then(|| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

/// Where `part` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
