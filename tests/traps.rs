//! The permanent catalogue of tricks: requests and answers that fooled other proxies, as raw bytes with what must come of
//! them (`tests/traps/`), against every way into the sidecar and in every cut.
//!
//! What the app got is read by a witness that forgives nothing, and these hold for all cases: at most one request per
//! request sent; never two framings; never a bare CR or LF; identity exactly as our own endpoint tells it, each line once;
//! and the connection either ends or goes on in step. A case that fails stays in the catalogue and is named in [`KNOWN`].

mod corpus;
pub(crate) mod witness;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;

use crate::backends::{App, Echo, Kind};
use crate::fake_app::FakeApp;
use crate::patience::PATIENCE;
use crate::rig::{self, Rig, Session};
use crate::tls::{Authority, write_pair};
use corpus::{Case, Step};
use witness::{Request, Seen, Witness, find};
use wx_sidecar::Sidecar;
use wx_sidecar::clock::Clock;
use wx_sidecar::config::Listen;

/// Cases that we know to fail, each with the reason why it may. One that passes fails the suite, so that this list is true.
const KNOWN: &[(&str, &str)] = &[];

/// The ways in. Whoever gives the sidecar another kind of listener adds it here, and the whole catalogue runs over it.
pub(crate) const DOORS: [Door; 2] = [Door::Plain, Door::Tls];

/// How long the sidecar waits for the rest of what it has answered already.
const LEFTOVER: Duration = Duration::from_secs(2);
/// After this long without a request, one side or the other ends a connection between the sidecar and a played app.
const UNUSED: u64 = 30;
/// Longer cases are not sent byte by byte.
const SMALL: usize = 1500;

const ROUTES: &str = r#"
[[route]]
path = "/public/**"
auth = "none"
[[route]]
path = "/either/**"
auth = "optional"
[[route]]
path = "/small/**"
auth = "none"
body_limit = "8B"
[[route]]
path = "/read/**"
methods = ["GET", "HEAD"]
auth = "none"
"#;

/// A kind of listener.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Plain,
    Tls,
}

/// How a client connects to it.
enum Way {
    Plain,
    Tls(
        Arc<ClientConfig>,
        #[expect(dead_code, reason = "removes the directory")] TempDir,
    ),
}

impl Door {
    /// What `[inbound]` needs for it, and the way to it.
    fn build(self) -> (String, Way) {
        match self {
            Self::Plain => (String::new(), Way::Plain),
            Self::Tls => {
                let authority = Authority::new();
                let directory = tempfile::tempdir().expect("a temporary directory");
                write_pair(directory.path(), &authority.certify("localhost"));
                let at = directory.path().display();
                let section = format!(
                    "[inbound.tls]\ncert_file = \"{at}/cert.pem\"\nkey_file = \"{at}/key.pem\"\n\
                     handshake_timeout = \"1m\"\n"
                );
                let client = authority.client(rustls::ALL_VERSIONS);
                (section, Way::Tls(client, directory))
            }
        }
    }
}

impl Way {
    fn open(&self, addr: &Listen) -> Box<dyn Socket> {
        let stream = connect(addr);
        match self {
            Self::Plain => Box::new(stream),
            Self::Tls(config, _) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
                let mut stream = StreamOwned::new(session, stream);
                stream.flush().expect("a handshake");
                Box::new(stream)
            }
        }
    }
}

/// A connected client's end.
trait Socket: Read + Write {
    /// Says that nothing more will be sent.
    fn finish_sending(&mut self);
    /// Ends it so that the other side sees a reset, if there is such a thing.
    fn reset(&mut self);
}

fn connect(addr: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connect to the sidecar");
    stream
        .set_nodelay(true)
        .expect("a socket that does not wait");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has timeouts");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a socket has timeouts");
    stream
}

impl Socket for TcpStream {
    fn finish_sending(&mut self) {
        let _gone = self.shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {
        let _gone = socket2::SockRef::from(&*self).set_linger(Some(Duration::ZERO));
        // The descriptor is closed when the visitor is dropped, and that is what resets.
    }
}

impl Socket for StreamOwned<ClientConnection, TcpStream> {
    fn finish_sending(&mut self) {
        self.conn.send_close_notify();
        let _gone = self.flush();
        self.sock.finish_sending();
    }

    fn reset(&mut self) {
        self.sock.reset();
    }
}

/// How a case's bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    EachByte,
}

/// A connection with what came over it.
struct Visitor {
    socket: Box<dyn Socket>,
    unread: Vec<u8>,
    ended: bool,
}

/// A final answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// Whether the connection ended before the body did.
    cut: bool,
    bytes: Vec<u8>,
}

impl Visitor {
    fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            unread: Vec::new(),
            ended: false,
        }
    }

    /// A server may answer and close before it has read everything.
    fn send(&mut self, bytes: &[u8], cut: Cut) {
        let _early_answer = match cut {
            Cut::Whole => self.socket.write_all(bytes),
            Cut::EachByte => bytes.chunks(1).try_for_each(|byte| {
                self.socket
                    .write_all(byte)
                    .and_then(|()| self.socket.flush())
            }),
        };
        let _gone = self.socket.flush();
    }

    /// Receives some bytes; false at the end.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        while !self.ended {
            match self.socket.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.unread.extend_from_slice(&piece[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_patience_over(&error) => panic!("silence for {PATIENCE:?}"),
                Err(_) => self.ended = true,
            }
        }
        false
    }

    /// The next final answer; `Ok(None)` is an end without one.
    fn answer(&mut self, to_head: bool) -> Result<Option<Answer>, String> {
        loop {
            match parse_answer(&self.unread, to_head, self.ended)? {
                Some(answer) if (100..200).contains(&answer.status) && answer.status != 101 => {
                    self.unread.drain(..answer.bytes.len());
                }
                Some(answer) => {
                    self.unread.drain(..answer.bytes.len());
                    return Ok(Some(answer));
                }
                None if self.ended => {
                    return if self.unread.is_empty() {
                        Ok(None)
                    } else {
                        Err(format!("an end after {:?}", show(&self.unread)))
                    };
                }
                None => {
                    self.fill();
                }
            }
        }
    }

    /// What comes until the end.
    fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }
}

fn is_patience_over(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Reads an answer as strictly as the witness reads requests; `None` if more is to come.
fn parse_answer(bytes: &[u8], to_head: bool, ended: bool) -> Result<Option<Answer>, String> {
    let wrong = |what: &str| format!("{what}: {:?}", show(bytes));
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("bytes in a head"))?;
    let bare = |line: &str| {
        line.bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\t')
    };
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let status = start
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let status = status.ok_or_else(|| wrong("no status line"))?;
    let mut fields = Vec::new();
    for line in lines {
        let field = line.split_once(':').filter(|_| !bare(line));
        let (name, value) = field.ok_or_else(|| wrong("no field line"))?;
        fields.push((name.to_owned(), value.trim().as_bytes().to_vec()));
    }
    let values = |wanted: &str| -> Vec<&[u8]> {
        let same = |(name, _): &&(String, Vec<u8>)| name.eq_ignore_ascii_case(wanted);
        let lines = fields.iter().filter(same);
        lines.map(|(_, value)| value.as_slice()).collect()
    };
    let content = &bytes[end + 4..];
    let bodiless = to_head || (100..200).contains(&status) || matches!(status, 204 | 304);
    let framing = (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    );
    let (length, body, cut) = match framing {
        ([_, ..], [_, ..]) | ([_, _, ..], _) | (_, [_, _, ..]) => {
            return Err(wrong("two framings of an answer"));
        }
        _ if bodiless => (0, Vec::new(), false),
        ([], []) if !ended => return Ok(None),
        ([], []) => (content.len(), content.to_vec(), false),
        ([length], []) => {
            let length = std::str::from_utf8(length)
                .ok()
                .and_then(|text| text.parse().ok());
            let length: usize = length.ok_or_else(|| wrong("a Content-Length"))?;
            match content.get(..length) {
                Some(body) => (length, body.to_vec(), false),
                None if ended => (content.len(), content.to_vec(), true),
                None => return Ok(None),
            }
        }
        ([], [_]) => match unchunk(content).map_err(wrong)? {
            Some((length, body)) => (length, body, false),
            None if ended => (content.len(), content.to_vec(), true),
            None => return Ok(None),
        },
    };
    Ok(Some(Answer {
        status,
        fields: fields.clone(),
        body,
        cut,
        bytes: bytes[..end + 4 + length].to_vec(),
    }))
}

fn unchunk(bytes: &[u8]) -> Result<Option<(usize, Vec<u8>)>, &'static str> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| "a chunk size")?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| "a chunk size")?;
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
        at += end + 2;
        if end == 0 {
            return Ok(Some((at, body)));
        }
    }
}

impl Answer {
    fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_slice());
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        first
    }
}

/// A sidecar with one worker, so that whatever an earlier request spoilt would meet the next one.
pub(crate) struct Stage {
    pub(crate) witness: Witness,
    pub(crate) sidecar: Sidecar,
    /// Has the simulator that knows Alice.
    _rig: Rig,
    way: Way,
    pub(crate) alice: Session,
    /// The lines that our own endpoint says of Alice.
    identity: BTreeSet<(String, Vec<u8>)>,
}

impl Stage {
    pub(crate) fn new(door: Door) -> Self {
        let witness = Witness::start();
        // Nobody here is slow on purpose.
        let inbound = "header_limit = \"32KiB\"\nheader_timeout = \"1m\"";
        let rig = Rig::with(&witness.url(), inbound, ROUTES);
        let alice = rig.login("alice");
        let told = rig.get_as(&alice, "/wx/verify");
        let (section, way) = door.build();
        let config = rig.config_with("workers = 2", "workers = 1") + &section;
        let sidecar = rig::start(&config, &rig.clock);
        let ours = |(name, _): &&(String, String)| is_ours(&fold(name));
        let lines = told.headers.iter().filter(ours);
        let identity: BTreeSet<_> = lines
            .map(|(name, value)| (fold(name), value.clone().into_bytes()))
            .collect();
        let openid = ("x-wx-openid".to_owned(), alice.openid.clone().into_bytes());
        assert!(
            identity.contains(&openid) && identity.len() >= 4,
            "{identity:?}"
        );
        Self {
            witness,
            sidecar,
            _rig: rig,
            way,
            alice,
            identity,
        }
    }

    /// Runs a case; says what was wrong. Whoever is held up in the middle of a case is let go when the sidecar has answered
    /// and waited for the rest, and begins anew.
    fn run(&self, case: &Case, cut: Cut) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let began = Instant::now();
            let outcome = self.run_once(case, cut);
            let was_in_time = began.elapsed() < LEFTOVER;
            if outcome.is_ok() || was_in_time || Instant::now() > until {
                return outcome;
            }
        }
    }

    fn run_once(&self, case: &Case, cut: Cut) -> Result<(), String> {
        self.witness.forget();
        let mut expected = Expected::of(case);
        for text in expected.sees.iter_mut().chain(&mut expected.never) {
            *text = self.filled_in(text);
        }
        let mut visitor = Visitor::new(self.way.open(&self.sidecar.inbound_addr()));
        for step in &case.steps {
            match step {
                Step::Send(bytes) => visitor.send(&self.filled_in(bytes), cut),
                Step::Await => {
                    visitor.fill();
                }
                Step::Fin => visitor.socket.finish_sending(),
                Step::Reset => visitor.socket.reset(),
            }
        }
        if case.steps.last() == Some(&Step::Reset) {
            drop(visitor);
        } else {
            expected.meets_client(&mut visitor)?;
        }
        self.app_got(&expected)
    }

    fn filled_in(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for (name, value) in [
            ("{token}", &self.alice.access),
            ("{openid}", &self.alice.openid),
        ] {
            while let Some(at) = find(&out, name.as_bytes()) {
                out.splice(at..at + name.len(), value.bytes());
            }
        }
        out
    }

    /// Compares what reached the app, once nothing more can be on its way.
    fn app_got(&self, expected: &Expected) -> Result<(), String> {
        let mut barrier = Visitor::new(self.way.open(&self.sidecar.inbound_addr()));
        barrier.send(
            b"GET /public/barrier HTTP/1.1\r\nHost: x\r\n\r\n",
            Cut::Whole,
        );
        let answer = barrier
            .answer(false)?
            .ok_or("no answer to a good request")?;
        if answer.body != b"GET /public/barrier" {
            return Err(format!(
                "a good request was answered {:?}",
                show(&answer.bytes)
            ));
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.witness.settled();
            let open = seen
                .iter()
                .any(|seen| !seen.rest.is_empty() && !seen.closed);
            // What was cut off must be ended for the app too, be it a moment later.
            if open && expected.may_cut && Instant::now() < until {
                std::thread::yield_now();
                continue;
            }
            return self.judge(&seen, expected);
        }
    }

    fn judge(&self, seen: &[Seen], expected: &Expected) -> Result<(), String> {
        let mut whole = Vec::new();
        for connection in seen {
            if let Some(wrong) = &connection.wrong {
                return Err(format!("the app got {wrong}"));
            }
            let part = &connection.rest;
            let ended = connection.closed && expected.may_cut;
            if !part.is_empty() && !ended {
                return Err(format!("the app got part of a request: {:?}", show(part)));
            }
            expected.is_silent_about(part)?;
            let asked = |request: &&Request| {
                !matches!(request.target.as_str(), "/public/barrier" | "/public/after")
            };
            whole.extend(connection.requests.iter().filter(asked));
        }
        if !expected.whole.contains(&whole.len()) {
            let got: Vec<_> = whole.iter().map(|request| show(&request.bytes)).collect();
            return Err(format!(
                "the app got {} requests, not {:?}: {got:?}",
                whole.len(),
                expected.whole
            ));
        }
        if let Some(targets) = &expected.targets {
            let got: Vec<_> = whole
                .iter()
                .map(|request| request.target.as_str())
                .collect();
            if got != *targets {
                return Err(format!("the app got {got:?}, not {targets:?}"));
            }
        }
        for (index, request) in whole.iter().enumerate() {
            expected.is_silent_about(&request.bytes)?;
            let caller = expected.callers.get(index).or(expected.callers.last());
            self.is_honest(request, caller.is_some_and(|caller| caller == "alice"))?;
        }
        for text in &expected.sees {
            // A body may have been cut anew on its way.
            let there = whole.iter().any(|request| {
                find(&request.bytes, text).is_some() || find(&request.body, text).is_some()
            });
            if !there {
                return Err(format!("the app was not sent {:?}", show(text)));
            }
        }
        Ok(())
    }

    /// Whether all that the app may believe of a request is ours.
    pub(crate) fn is_honest(&self, request: &Request, signed: bool) -> Result<(), String> {
        let ours: Vec<_> = request
            .fields
            .iter()
            .map(|(name, value)| (fold(name), value.clone()))
            .filter(|(name, _)| is_ours(name))
            .collect();
        let distinct: BTreeSet<_> = ours.iter().cloned().collect();
        let expected = if signed {
            self.identity.clone()
        } else {
            BTreeSet::new()
        };
        if distinct.len() != ours.len() || distinct != expected {
            return Err(format!("the app believes {ours:?}"));
        }
        for (name, times) in [
            ("x-forwarded-for", 1..=1),
            ("x-forwarded-proto", 1..=1),
            ("x-forwarded-host", 0..=1),
            ("x-request-id", 1..=1),
            ("traceparent", 1..=1),
        ] {
            let count = request
                .fields
                .iter()
                .filter(|(other, _)| fold(other) == name)
                .count();
            if !times.contains(&count) {
                return Err(format!(
                    "{name} comes {count} times: {:?}",
                    show(&request.bytes)
                ));
            }
        }
        if request.all("x-forwarded-for") != [b"127.0.0.1"] {
            return Err("the client chose its address".to_owned());
        }
        Ok(())
    }
}

/// What must come of a case; its keys:
///
/// - `answers`: statuses in order, alternatives with `|`, `-` behind one that has no body (to HEAD); `none`
/// - `closes`: `yes`, `no` (then a further request is answered), or `either`
/// - `app`: `nothing`, a number of whole requests (or alternatives), or `cut`: one may have begun that never ends
/// - `targets`: of the whole requests, as the app sees them
/// - `as`: who the app is told they are from, `alice` or `nobody`; the last one goes on
/// - `sees`, `never`: bytes that must, or must not (in any case), be among what the app gets
struct Expected {
    answers: Vec<(Vec<u16>, bool)>,
    closes: Option<bool>,
    whole: Vec<usize>,
    may_cut: bool,
    targets: Option<Vec<String>>,
    callers: Vec<String>,
    sees: Vec<Vec<u8>>,
    never: Vec<Vec<u8>>,
}

impl Expected {
    fn of(case: &Case) -> Self {
        let known = ["answers", "closes", "app", "targets", "as", "sees", "never"];
        for key in case.keys() {
            assert!(known.contains(&key), "{}: what is {key}?", case.id);
        }
        let need = |key| {
            let value = case.only(key);
            value.unwrap_or_else(|| panic!("{}: {key} is missing", case.id))
        };
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let answers = words(need("answers"));
        let answers = answers.iter().filter(|word| *word != "none").map(|word| {
            let bodiless = word.ends_with('-');
            let codes = word.trim_end_matches('-').split('|');
            let codes = codes.map(|code| code.parse().expect("a status"));
            (codes.collect(), bodiless)
        });
        let app = words(need("app"));
        let numbers = app
            .iter()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let whole = numbers.map_or(vec![0], |word| {
            let numbers = word.split('|').map(|number| number.parse());
            numbers.map(|number| number.expect("a number")).collect()
        });
        Self {
            answers: answers.collect(),
            closes: match need("closes") {
                "yes" => Some(true),
                "no" => Some(false),
                "either" => None,
                other => panic!("{}: closes: {other}", case.id),
            },
            whole,
            may_cut: app.iter().any(|word| word == "cut"),
            targets: case.only("targets").map(words),
            callers: case.only("as").map(words).unwrap_or_default(),
            sees: case
                .all("sees")
                .map(|text| corpus::unescape(text, &case.id))
                .collect(),
            never: case
                .all("never")
                .map(|text| corpus::unescape(text, &case.id))
                .collect(),
        }
    }

    fn meets_client(&self, visitor: &mut Visitor) -> Result<(), String> {
        for (index, (statuses, bodiless)) in self.answers.iter().enumerate() {
            let answer = visitor.answer(*bodiless)?;
            let answer = answer.ok_or_else(|| format!("no answer {index}, but an end"))?;
            if !statuses.contains(&answer.status) {
                return Err(format!("answer {index} is {:?}", show(&answer.bytes)));
            }
            let last = index + 1 == self.answers.len();
            is_a_tidy_answer(&answer, *bodiless)?;
            let closes = answer
                .only("connection")
                .is_some_and(|value| value == b"close");
            if closes && !last {
                return Err(format!("answer {index} is the last"));
            }
            if last && self.closes.is_some_and(|wanted| wanted != closes) {
                return Err(format!("whether it closes: {:?}", show(&answer.bytes)));
            }
        }
        if self.closes == Some(false) {
            visitor.send(b"GET /public/after HTTP/1.1\r\nHost: x\r\n\r\n", Cut::Whole);
            let after = visitor
                .answer(false)?
                .ok_or("an end where none was to be")?;
            if after.body != b"GET /public/after" {
                return Err(format!("out of step: {:?}", show(&after.bytes)));
            }
            return Ok(());
        }
        if self.closes.is_none() {
            visitor.socket.finish_sending();
        }
        let rest = visitor.rest();
        if rest.is_empty() {
            Ok(())
        } else {
            Err(format!("something else was answered: {:?}", show(&rest)))
        }
    }

    fn is_silent_about(&self, bytes: &[u8]) -> Result<(), String> {
        let lower = bytes.to_ascii_lowercase();
        for text in &self.never {
            if find(&lower, &text.to_ascii_lowercase()).is_some() {
                return Err(format!(
                    "the app was sent {:?}: {:?}",
                    show(text),
                    show(bytes)
                ));
            }
        }
        Ok(())
    }
}

/// What holds for every answer: a refusal is a problem that says so itself, and the app's internals stay here.
fn is_a_tidy_answer(answer: &Answer, bodiless: bool) -> Result<(), String> {
    let shown = || show(&answer.bytes);
    if answer.cut {
        return Err(format!("an answer is cut off: {:?}", shown()));
    }
    if answer.status >= 400 {
        if answer.only("content-type") != Some(b"application/problem+json") {
            return Err(format!("a refusal is no problem: {:?}", shown()));
        }
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if !bodiless && problem["status"] != answer.status {
            return Err(format!("a problem of another status: {:?}", shown()));
        }
    }
    Ok(())
}

/// Whether a folded name lies in the namespace that is ours.
fn is_ours(folded: &str) -> bool {
    folded == "x-wx" || folded.starts_with("x-wx-")
}

/// Names as the most careless server compares them.
fn fold(name: &str) -> String {
    let mut folded = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            folded.push(c.to_ascii_lowercase());
        } else if !folded.is_empty() && !folded.ends_with('-') {
            folded.push('-');
        }
    }
    folded.trim_end_matches('-').to_owned()
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned()
}

/// Runs all cases and tells of all that fail, so that one look is enough.
fn run_all(cases: &[Case], how: &str, run: impl Fn(&Case) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for case in cases {
        let known = KNOWN.iter().find(|(id, _)| *id == case.id);
        match (run(case), known) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Err(what), None) => wrong.push(format!("{} {}: {what}", case.id, case.title)),
            (Ok(()), Some(_)) => wrong.push(format!("{} passes: take it off KNOWN", case.id)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} {how}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_request_of_the_catalogue_is_met_as_it_should_be() {
    let cases = corpus::read("requests");
    for door in DOORS {
        let stage = Stage::new(door);
        run_all(&cases, &format!("over {door:?}"), |case| {
            stage.run(case, Cut::Whole)?;
            if case.size() > SMALL {
                return Ok(());
            }
            let outcome = stage.run(case, Cut::EachByte);
            outcome.map_err(|what| format!("byte by byte: {what}"))
        });
    }
}

/// Traps 1 and 2: every character that a server could fold, alone, doubled and at the ends, in several cases.
#[test]
fn every_spelling_of_a_name_that_is_ours_is_dropped() {
    let mut names = BTreeSet::new();
    for word in ["openid", "unionid", "appid", "source", "env"] {
        for a in "-_.~!#$%&'*+^`|".chars() {
            for b in "-_.~!#$%&'*+^`|".chars() {
                for name in [
                    format!("x{a}wx{b}{word}"),
                    format!("X{a}{b}WX{b}{a}{word}"),
                    format!("{a}x{b}wx-{word}"),
                    format!("X-wX-{word}{a}{b}"),
                ] {
                    names.insert(name.to_ascii_uppercase());
                    names.insert(name);
                }
            }
        }
    }
    // The very spelling of ours too.
    names.insert("X-WX-OPENID".to_owned());
    let names: Vec<_> = names.into_iter().collect();
    let stage = Stage::new(Door::Plain);
    let mut visitor = Visitor::new(stage.way.open(&stage.sidecar.inbound_addr()));
    for (target, signed) in [("/private/a", true), ("/public/a", false)] {
        for batch in names.chunks(90) {
            stage.witness.forget();
            let forged: String = batch
                .iter()
                .map(|name| format!("{name}: admin\r\n"))
                .collect();
            let token = &stage.alice.access;
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{forged}\r\n"
            );
            visitor.send(request.as_bytes(), Cut::Whole);
            let answer = visitor.answer(false).expect("an answer").expect("no end");
            assert_eq!(answer.status, 200, "{}", show(&answer.bytes));
            let seen = stage.witness.settled();
            let [connection] = &seen[..] else {
                panic!("one request came over {} connections", seen.len());
            };
            let [request] = &connection.requests[..] else {
                panic!(
                    "{} requests came of one: {:?}",
                    connection.requests.len(),
                    connection.wrong
                );
            };
            assert!(
                find(&request.bytes, b"admin").is_none(),
                "{}",
                show(&request.bytes)
            );
            stage.is_honest(request, signed).expect("an honest request");
        }
    }
}

/// An app that gives one bad answer, to `/public/trap`, and says `METHOD target` to all else.
fn trickster(case: &Case, cut: Cut) -> FakeApp {
    let steps = case.steps.clone();
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            if request.target() != "/public/trap" {
                let said = format!("{} {}", request.method(), request.target());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said.len());
                connection.write((head + &said).as_bytes());
                continue;
            }
            for step in &steps {
                match (step, cut) {
                    (Step::Send(bytes), Cut::Whole) => connection.write(bytes),
                    (Step::Send(bytes), Cut::EachByte) => {
                        bytes.chunks(1).for_each(|byte| connection.write(byte));
                    }
                    (Step::Fin | Step::Reset, _) => return connection.close(),
                    (Step::Await, _) => panic!("an app has nothing to wait for"),
                }
            }
        }
    })
}

/// Runs a case of the answers; its keys:
///
/// - `request`: the method, `GET` if left out
/// - `client`: what the client may get, alternatives with `|`: a status whose answer is whole, or `cut`
/// - `cut`: `whole` if it makes sense in one piece only
/// - `reused`: whether the app's connection may serve again; `yes` or `no`
/// - `body`: of a whole answer; `never`: what must be nowhere in it
fn deceive(case: &Case, cut: Cut) -> Result<(), String> {
    let known = ["request", "client", "cut", "reused", "body", "never"];
    for key in case.keys() {
        assert!(known.contains(&key), "{}: what is {key}?", case.id);
    }
    let app = trickster(case, cut);
    let config = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", "");
    let config = rig::replaced(&config, "workers = 2", "workers = 1");
    let sidecar = rig::start(&config, &Clock::manual(rig::START));
    let mut client = Visitor::new(Box::new(connect(sidecar.inbound_addr())));
    let method = case.only("request").unwrap_or("GET");
    let request = format!("{method} /public/trap HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request.as_bytes(), Cut::Whole);
    let answer = client.answer(method == "HEAD");
    let got = match &answer {
        Ok(Some(answer)) if !answer.cut => answer.status.to_string(),
        // An answer that ends within its head is cut off as well.
        Ok(_) | Err(_) if client.ended => "cut".to_owned(),
        other => return Err(format!("{other:?}")),
    };
    let bytes = answer.ok().flatten();
    let shown = bytes.as_ref().map(|answer| show(&answer.bytes));
    let allowed = case.only("client").expect("what the client gets");
    // Byte by byte the head has left before the fault is there, and then nothing can be told any more.
    let allowed: Vec<_> = allowed.split('|').collect();
    let late = cut == Cut::EachByte && allowed == ["502"] && got == "cut";
    if !allowed.contains(&got.as_str()) && !late {
        return Err(format!("the client got {got}, not {allowed:?}: {shown:?}"));
    }
    if let (Some(answer), Some(body)) = (&bytes, case.only("body"))
        && answer.body != corpus::unescape(body, &case.id)
    {
        return Err(format!("another body: {shown:?}"));
    }
    for never in case.all("never") {
        let text = corpus::unescape(never, &case.id).to_ascii_lowercase();
        if bytes
            .as_ref()
            .is_some_and(|answer| find(&answer.bytes.to_ascii_lowercase(), &text).is_some())
        {
            return Err(format!("the client got {never}: {shown:?}"));
        }
    }
    // The same client, if it was not sent away, and others get their own answers and nothing else.
    let closes = |answer: &Answer| {
        answer
            .only("connection")
            .is_some_and(|value| value == b"close")
    };
    let goes_on = got != "cut" && bytes.as_ref().is_some_and(|answer| !closes(answer));
    let mut another = Visitor::new(Box::new(connect(sidecar.inbound_addr())));
    for number in 0..2 {
        if goes_on {
            gets_its_own(&mut client, &format!("/public/same-{number}"))?;
        }
        gets_its_own(&mut another, &format!("/public/other-{number}"))?;
    }
    if !goes_on {
        let rest = client.rest();
        if got != "cut" && !rest.is_empty() {
            return Err(format!("something else was answered: {:?}", show(&rest)));
        }
    }
    let requests = app.requests(if goes_on { 5 } else { 3 });
    let trap = requests
        .iter()
        .find(|request| request.target() == "/public/trap");
    let trap = trap.expect("the bad answer was asked for").connection;
    let after = requests
        .iter()
        .filter(|request| request.target() != "/public/trap");
    let again = after.clone().any(|request| request.connection == trap);
    match case.only("reused").expect("whether it is reused") {
        "no" if again => Err("the connection of the bad answer was used again".to_owned()),
        "yes" if !again => Err("the connection was given up for nothing".to_owned()),
        "no" | "yes" => Ok(()),
        other => panic!("{}: reused: {other}", case.id),
    }
}

fn gets_its_own(client: &mut Visitor, target: &str) -> Result<(), String> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request.as_bytes(), Cut::Whole);
    let answer = client.answer(false)?.ok_or("an end instead of an answer")?;
    if answer.status == 200 && answer.body == format!("GET {target}").as_bytes() {
        Ok(())
    } else {
        Err(format!("{target} was answered {:?}", show(&answer.bytes)))
    }
}

#[test]
fn no_answer_of_the_catalogue_reaches_another_client() {
    let cases = corpus::read("answers");
    run_all(&cases, "answers", |case| {
        deceive(case, Cut::Whole)?;
        if case.size() > SMALL || case.only("cut") == Some("whole") {
            return Ok(());
        }
        deceive(case, Cut::EachByte).map_err(|what| format!("byte by byte: {what}"))
    });
}

/// I12. The user changes from one request to the next, on connections to the app that all share.
#[test]
fn twenty_thousand_requests_of_two_hundred_users_are_never_mixed_up() {
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            let said = format!("{} {:?}", request.target(), request.all("x-wx-openid"));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said.len());
            connection.write((head + &said).as_bytes());
        }
    });
    let rig = Rig::with(&app.url(), "auth = \"optional\"", "");
    let users: Vec<_> = (0..200)
        .map(|user| rig.login(&format!("user {user}")))
        .collect();
    let addr = &rig.sidecar().inbound_addr();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..16_usize {
            let users = &users;
            scope.spawn(move || {
                let mut visitor = Visitor::new(Box::new(connect(addr)));
                // Some requests are sent before the last answers have been read.
                for round in 0..250 {
                    let asked: Vec<_> = (0..5).map(|n| (round * 5 + n) * 7 + thread * 13).collect();
                    // Every eleventh is nobody's.
                    let whose = |number: usize| {
                        (!number.is_multiple_of(11)).then(|| &users[number % users.len()])
                    };
                    for &number in &asked {
                        let token = whose(number).map_or(String::new(), |user| {
                            format!("Authorization: {}\r\n", user.bearer())
                        });
                        let request = format!("GET /{number} HTTP/1.1\r\nHost: x\r\n{token}\r\n");
                        visitor.send(request.as_bytes(), Cut::Whole);
                    }
                    for &number in &asked {
                        let answer = visitor.answer(false).expect("an answer").expect("no end");
                        let openid: Vec<_> =
                            whose(number).map(|user| &user.openid).into_iter().collect();
                        assert_eq!(show(&answer.body), format!("/{number} {openid:?}"));
                    }
                }
            });
        }
    });
    // As many connections as there can be requests at once, and no more: they were shared. One that is not needed for long is
    // closed, and opened anew when it is.
    let most = 16 * (1 + usize::try_from(began.elapsed().as_secs() / UNUSED).unwrap());
    assert!(app.connections() <= most, "{}", app.connections());
}

/// Rows P1 to P5 on real apps: what the sidecar let pass as open, the app must not take for anything else.
#[test]
fn real_apps_read_the_same_path_that_was_decided_on() {
    let cases = corpus::read("requests");
    let targets = cases
        .iter()
        .filter(|case| case.id.starts_with("P1/"))
        .filter_map(|case| {
            let Some(Step::Send(bytes)) = case.steps.first() else {
                return None;
            };
            let line = bytes.split(|&byte| byte == b'\r').next()?;
            let target = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
            // `/echo` is open here and shows what it got; `/api/whoami` is not, and answers as no other does.
            Some(
                target
                    .replace("public", "echo")
                    .replace("private/a", "api/whoami"),
            )
        });
    let targets: Vec<_> = targets.collect();
    assert!(targets.len() > 50, "the catalogue has paths");
    for kind in Kind::ALL {
        let app = App::start(kind, None);
        let rig = Rig::with(
            &app.url(),
            "",
            "[[route]]\npath = \"/echo/**\"\nauth = \"none\"\n",
        );
        let mut passed = 0;
        for target in &targets {
            let answer = rig.request("GET", target, &[], b"");
            match answer.status {
                400 | 401 => assert_eq!(
                    answer.header("content-type"),
                    Some("application/problem+json")
                ),
                200 => {
                    let echo = Echo::of(&answer);
                    assert!(
                        echo.url.starts_with("/echo"),
                        "{kind:?} {target}: {}",
                        echo.url
                    );
                    assert!(
                        !echo.url.contains("/../") && !echo.url.contains("//"),
                        "{}",
                        echo.url
                    );
                    passed += 1;
                }
                // Nothing is served there, which is the app's own answer.
                404 => passed += 1,
                other => panic!("{kind:?} {target}: {other} {}", answer.text()),
            }
        }
        assert!(passed > 10, "{kind:?}: {passed}");
    }
}

#[test]
fn the_list_of_known_failures_names_cases_that_exist() {
    let cases = [corpus::read("requests"), corpus::read("answers")].concat();
    for (id, reason) in KNOWN {
        assert!(cases.iter().any(|case| case.id == *id), "{id}");
        assert!(!reason.is_empty(), "{id} needs a reason");
    }
}
