//! A raw HTTP/1.1 client for tests, blocking, over one `TcpStream`.
//!
//! It repairs nothing, so that a test sees what was on the wire: header names keep their case and order, a bare LF, a
//! second `Content-Length` or `Content-Length` beside `Transfer-Encoding` is an error, a body cut short is said to be
//! so, and what follows a response stays unread for the next. Every read and write gives up after [`PATIENCE`].

#![allow(
    dead_code,
    reason = "the vocabulary of the integration tests, not all of it in use at any time"
)]

use crate::rig::keep;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long the peer may stay silent, or refuse our bytes, before a call fails; only against a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The longest head accepted, interim or final: only against a runaway peer.
const HEAD_LIMIT: usize = 1 << 20;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// Received, and not yet part of a response.
    unread: Vec<u8>,
}

impl Client {
    /// Connects; panics when nobody listens, for that is a fault of the test's own setting up.
    pub(crate) fn connect(addr: impl ToSocketAddrs) -> Client {
        Client::try_connect(addr).expect("connect to the server under test")
    }

    /// Connects, or says why not.
    pub(crate) fn try_connect(addr: impl ToSocketAddrs) -> io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends exactly these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("send to the server under test");
    }

    /// Sends exactly these bytes, or says why not: a server that answers early may close while we still write.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads its response; the connection is kept.
    ///
    /// Adds `Host` when the headers have none, and `Content-Length` when there is a body (or the method is POST, PUT or
    /// PATCH) and the headers frame none. With `Transfer-Encoding: chunked` the body must come encoded: see
    /// [`chunked`].
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, target, headers, body)
            .unwrap_or_else(|error| panic!("no response to {method} {target}: {error}"))
    }

    /// As [`Client::request`], or says why there is no response; errors are those of [`Client::try_read_response`].
    pub(crate) fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let named = |wanted: &str| {
            headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !named("host") {
            head += &format!(
                "Host: {}\r\n",
                self.stream.peer_addr().expect("a connected peer")
            );
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let wants_length = !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH");
        if wants_length && !named("content-length") && !named("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        // A failure to write is not the end: the server may have answered before it stopped reading.
        let sent = self
            .try_send(head.as_bytes())
            .and_then(|()| self.try_send(body));
        let response = self.try_read_response(method == "HEAD");
        response.map_err(|error| {
            io::Error::new(error.kind(), format!("{error} (the request: {sent:?})"))
        })
    }

    /// Reads one response with its body; `is_head` says that it answers a HEAD, and so has none.
    ///
    /// Panics on what is not HTTP, on silence, and on a close before the head is complete.
    pub(crate) fn read_response(&mut self, is_head: bool) -> Response {
        self.try_read_response(is_head).expect("read a response")
    }

    /// As [`Client::read_response`]. Errors: `UnexpectedEof` for a close before the head is complete (a close later is
    /// [`Response::truncated`]), `InvalidData` for what is not HTTP, `TimedOut` for silence, else as the socket says.
    pub(crate) fn try_read_response(&mut self, is_head: bool) -> io::Result<Response> {
        let mut response = self.try_read_head()?;
        match Framing::of(&response, is_head)? {
            Framing::Empty => {}
            Framing::Length(length) => self.read_sized(length, &mut response)?,
            Framing::Chunked => self.read_chunks(&mut response)?,
            Framing::UntilClose => self.read_until_close(&mut response)?,
        }
        if response
            .headers_all("content-type")
            .contains(&"application/problem+json")
        {
            // What the sidecar says of errors is read again by `tests/secrets.rs`.
            keep("error-bodies.log", &String::from_utf8_lossy(&response.body));
        }
        Ok(response)
    }

    /// Reads the head of a response and leaves its body unread, for tests of streams and upgrades: go on with
    /// [`Client::read_exact`], [`Client::read_through`] or [`Client::read_to_close`].
    pub(crate) fn read_head(&mut self) -> Response {
        self.try_read_head().expect("read the head of a response")
    }

    fn try_read_head(&mut self) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_one_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response);
                continue;
            }
            response.interim = interim;
            return Ok(response);
        }
    }

    fn read_one_head(&mut self) -> io::Result<Response> {
        let mut head = self.read_line()?;
        let (version, status, reason) = parse_status_line(&head)?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            head.extend_from_slice(&line);
            if line == b"\r\n" {
                break;
            }
            if head.len() > HEAD_LIMIT {
                return Err(invalid("a head beyond a mebibyte"));
            }
            headers.push(parse_header(&line)?);
        }
        Ok(Response {
            version,
            status,
            reason,
            headers,
            head,
            ..Response::default()
        })
    }

    fn read_sized(&mut self, length: usize, response: &mut Response) -> io::Result<()> {
        while response.body.len() < length {
            if self.unread.is_empty() && !self.fill()? {
                response.truncated = true;
                return Ok(());
            }
            let piece = self.unread.len().min(length - response.body.len());
            response.body.extend_from_slice(&self.unread[..piece]);
            self.unread.drain(..piece);
        }
        Ok(())
    }

    fn read_chunks(&mut self, response: &mut Response) -> io::Result<()> {
        match self.read_chunks_to_the_end(response) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                response.truncated = true;
                Ok(())
            }
            result => result,
        }
    }

    fn read_chunks_to_the_end(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let size = parse_chunk_size(&self.read_line()?)?;
            if size == 0 {
                break;
            }
            let end = response
                .body
                .len()
                .checked_add(size)
                .ok_or_else(|| invalid("a chunk beyond all memory"))?;
            self.read_sized(end, response)?;
            if response.truncated {
                return Ok(());
            }
            if self.read_line()? != b"\r\n" {
                return Err(invalid("a chunk longer than its size"));
            }
        }
        loop {
            let line = self.read_line()?;
            if line == b"\r\n" {
                return Ok(());
            }
            response.trailers.push(parse_header(&line)?);
        }
    }

    fn read_until_close(&mut self, response: &mut Response) -> io::Result<()> {
        response.body.append(&mut self.unread);
        match self.stream.read_to_end(&mut response.body) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                response.truncated = true;
                Ok(())
            }
            Err(error) => Err(named_timeout(error)),
        }
    }

    /// Reads exactly `length` bytes, whatever they are; panics when the peer closes before.
    pub(crate) fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(
                self.fill().expect("read bytes"),
                "closed after {:?}",
                text(&self.unread)
            );
        }
        self.unread.drain(..length).collect()
    }

    /// Reads through the first occurrence of `end`, whatever comes before; panics when the peer closes before.
    pub(crate) fn read_through(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(start) = self
                .unread
                .windows(end.len())
                .position(|window| window == end)
            {
                return self.unread.drain(..start + end.len()).collect();
            }
            assert!(
                self.fill().expect("read bytes"),
                "closed after {:?}",
                text(&self.unread)
            );
        }
    }

    /// Reads all that comes until the peer closes or resets.
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        while self.fill().expect("read until the close") {}
        std::mem::take(&mut self.unread)
    }

    /// Waits for the peer's next move: `true` when it closes or resets, `false` when it sends something (which stays
    /// unread) or is silent for [`PATIENCE`]. To assert that a connection stays open, see [`Client::is_quiet`].
    pub(crate) fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && matches!(self.fill(), Ok(false))
    }

    /// Whether, at this moment, the connection is open and nothing unread has come over it. Does not wait.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        self.unread.is_empty() && seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent; responses can still be read.
    pub(crate) fn finish_sending(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("shut down the writing half");
    }

    /// The socket, for its options and addresses. Bytes read from it directly are missing from the responses.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A line with its CRLF.
    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(offset) = self.unread[searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let line: Vec<u8> = self.unread.drain(..=searched + offset).collect();
                return if line.ends_with(b"\r\n") {
                    Ok(line)
                } else {
                    Err(invalid("a line ending in a bare LF"))
                };
            }
            searched = self.unread.len();
            if searched > HEAD_LIMIT {
                return Err(invalid("a line beyond a mebibyte"));
            }
            if !self.fill()? {
                let end = format!("closed after {:?}", text(&self.unread));
                return Err(io::Error::new(ErrorKind::UnexpectedEof, end));
            }
        }
    }

    /// Receives some bytes; `false` once the peer has closed or reset.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.unread.extend_from_slice(&piece[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(named_timeout(error)),
            }
        }
    }
}

/// A response as received.
#[derive(Debug, Default)]
pub(crate) struct Response {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub(crate) version: String,
    pub(crate) status: u16,
    /// May be empty.
    pub(crate) reason: String,
    /// In order and in their original case; values without the spaces around them. Bytes that are not UTF-8 are read as
    /// Latin-1; `head` has the originals.
    pub(crate) headers: Vec<(String, String)>,
    /// The head byte for byte, through the empty line.
    pub(crate) head: Vec<u8>,
    /// Without the chunked coding.
    pub(crate) body: Vec<u8>,
    /// The peer closed before the body was complete (before the last trailer, if chunked), or reset the connection.
    pub(crate) truncated: bool,
    /// What came after the last chunk, as `headers`.
    pub(crate) trailers: Vec<(String, String)>,
    /// The 1xx responses that came before, in order. 101 is no such: it is final here.
    pub(crate) interim: Vec<Response>,
}

impl Response {
    /// The value of the only header of this name, in any case; panics when there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers_all(name);
        assert!(
            values.len() < 2,
            "{name} comes {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }

    /// The values of all headers of this name, in any case, in order.
    pub(crate) fn headers_all(&self, name: &str) -> Vec<&str> {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as JSON; panics, showing it, when it is not.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("not JSON ({error}): {} {:?}", self.status, text(&self.body))
        })
    }

    /// The body as the problem+json that it must be, with what holds for every problem of the sidecar's.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let problem = self.json();
        assert_eq!(
            problem["type"],
            format!("urn:wx-sidecar:problem:{slug}"),
            "{problem}"
        );
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"));
        for member in ["title", "detail"] {
            let told = problem[member]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(told, "{problem}");
        }
        assert!(problem["retryable"].is_boolean());
        let challenge = (status == 401).then_some("Bearer error=\"invalid_token\"");
        assert_eq!(self.header("www-authenticate"), challenge);
        problem
    }

    /// The body as text; panics when it is not UTF-8.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
}

/// Encodes pieces as chunks, one each, and the last chunk: the body of a `Transfer-Encoding: chunked` request. An empty
/// piece is left out, for it would end the body.
pub(crate) fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        encoded.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        encoded.extend_from_slice(piece);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    encoded
}

/// How the length of a response's body is known: RFC 9112, section 6.3, without its repairs.
enum Framing {
    Empty,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    fn of(response: &Response, is_head: bool) -> io::Result<Framing> {
        if is_head || matches!(response.status, 101 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        match (
            &response.headers_all("transfer-encoding")[..],
            &response.headers_all("content-length")[..],
        ) {
            ([], []) => Ok(Framing::UntilClose),
            ([], [length]) => {
                let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                let length = if digits { length.parse().ok() } else { None };
                length
                    .map(Framing::Length)
                    .ok_or_else(|| invalid("a Content-Length that is no number"))
            }
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            ([_, ..], [_, ..]) => Err(invalid("both Content-Length and Transfer-Encoding")),
            ([], _) => Err(invalid("several Content-Length")),
            (_, []) => Err(invalid("a Transfer-Encoding other than chunked")),
        }
    }
}

fn parse_status_line(line: &[u8]) -> io::Result<(String, u16, String)> {
    let line = text(&line[..line.len() - 2]);
    let mut parts = line.splitn(3, ' ');
    let version = parts
        .next()
        .filter(|version| matches!(*version, "HTTP/1.1" | "HTTP/1.0"));
    let status = parts
        .next()
        .filter(|status| status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()));
    match (version, status.and_then(|status| status.parse().ok())) {
        (Some(version), Some(status)) => Ok((
            version.into(),
            status,
            parts.next().unwrap_or_default().into(),
        )),
        _ => Err(invalid(&format!("no status line: {line:?}"))),
    }
}

fn parse_header(line: &[u8]) -> io::Result<(String, String)> {
    let line = text(&line[..line.len() - 2]);
    match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => {
            Ok((name.into(), value.trim_matches([' ', '\t']).into()))
        }
        _ => Err(invalid(&format!("no header: {line:?}"))),
    }
}

fn parse_chunk_size(line: &[u8]) -> io::Result<usize> {
    let line = text(&line[..line.len() - 2]);
    let digits = line.split(';').next().unwrap_or_default();
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let size = if hex {
        usize::from_str_radix(digits, 16).ok()
    } else {
        None
    };
    size.ok_or_else(|| invalid(&format!("no chunk size: {line:?}")))
}

/// UTF-8, else Latin-1, which loses nothing.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The system calls a read timeout `WouldBlock`.
fn named_timeout(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => {
            io::Error::new(ErrorKind::TimedOut, format!("silence for {PATIENCE:?}"))
        }
        _ => error,
    }
}

mod against_a_canned_peer {
    use super::*;
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    /// Serves one connection: sends `answer` piece by piece, closes its sending half, and reads what is left to read.
    fn peer(answer: &'static [&'static [u8]]) -> SocketAddr {
        let (listener, addr) = listen();
        thread::spawn(move || -> io::Result<u64> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            for piece in answer {
                stream.write_all(piece)?;
            }
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink())
        });
        addr
    }

    fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound port");
        (listener, addr)
    }

    fn read(answer: &'static [&'static [u8]]) -> io::Result<Response> {
        Client::connect(peer(answer)).try_read_response(false)
    }

    #[test]
    fn headers_keep_their_case_and_order() {
        let response = read(&[
            b"HTTP/1.1 200 Quite OK\r\nB-b:  2 \r\na-A: 1\r\nB-B: 3\r\ncontent-length: 0\r\n\r\n",
        ])
        .unwrap();
        assert_eq!(
            (response.status, response.reason.as_str()),
            (200, "Quite OK")
        );
        let names: Vec<_> = response
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["B-b", "a-A", "B-B", "content-length"]);
        assert_eq!(response.headers_all("b-b"), ["2", "3"]);
        assert_eq!(response.header("A-A"), Some("1"));
        assert_eq!(response.header("absent"), None);
        assert!(response.head.ends_with(b"\r\ncontent-length: 0\r\n\r\n"));
    }

    #[test]
    fn a_response_may_come_in_any_pieces_and_the_next_one_with_it() {
        let addr = peer(&[
            b"HTTP/1.1 200 OK\r",
            b"\nContent-Le",
            b"ngth: 5\r\n\r\nhe",
            b"lloHTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
        ]);
        let mut client = Client::connect(addr);
        assert_eq!(client.read_response(false).text(), "hello");
        let next = client.read_response(false);
        assert_eq!((next.status, next.reason.as_str()), (404, ""));
        assert!(client.is_closed());
    }

    #[test]
    fn chunks_are_joined_and_trailers_kept() {
        let response = read(&[
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;ext=1\r\nWi\r\n\r\nA\r\n0123456789\r\n",
            b"0\r\nX-Sum: 7\r\n\r\n",
        ]);
        let response = response.unwrap();
        assert_eq!(response.text(), "Wi\r\n0123456789");
        assert_eq!(response.trailers, [("X-Sum".to_string(), "7".to_string())]);
        assert!(!response.truncated);
    }

    #[test]
    fn a_body_cut_short_is_truncated() {
        for answer in [
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" as &[u8]] as &[&[u8]],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n"],
        ] {
            let response = read(answer).unwrap();
            assert!(response.truncated, "{response:?}");
            assert_eq!(response.text(), "half");
        }
    }

    #[test]
    fn without_framing_the_body_ends_with_the_connection() {
        let response = read(&[b"HTTP/1.0 200 OK\r\n\r\nall ", b"of it"]).unwrap();
        assert_eq!((response.text(), response.truncated), ("all of it", false));
    }

    #[test]
    fn interim_responses_are_set_apart() {
        let response = read(&[
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ]);
        let response = response.unwrap();
        assert_eq!(response.status, 204);
        assert_eq!(
            response
                .interim
                .iter()
                .map(|interim| interim.status)
                .collect::<Vec<_>>(),
            [100, 103]
        );
        assert_eq!(response.interim[1].header("link"), Some("</a>"));
    }

    #[test]
    fn bodiless_responses_leave_what_follows_unread() {
        let addr = peer(&[
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\nraw bytes",
        ]);
        let mut client = Client::connect(addr);
        assert_eq!(
            client.read_response(true).header("content-length"),
            Some("9")
        );
        assert_eq!(client.read_response(false).status, 304);
        assert_eq!(client.read_response(false).status, 101);
        assert_eq!(client.read_exact(4), b"raw ");
        assert_eq!(client.read_through(b"t"), b"byt");
        assert_eq!(client.read_to_close(), b"es");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for answer in [
            &[b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n" as &[u8]] as &[&[u8]],
            &[b"HTTP/2 200 OK\r\n\r\n"],
            &[b"HTTP/1.1 2000 OK\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nName : value\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nfolded: 1\r\n 2\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n1"],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1"],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n1\r\n0\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n"],
        ] {
            let error = read(answer).expect_err("not HTTP");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
    }

    #[test]
    fn a_close_before_the_head_is_complete_is_an_error() {
        for answer in [&[] as &[&[u8]], &[b"HTTP/1.1 200 OK\r\nConte"]] {
            assert_eq!(
                read(answer).expect_err("no response").kind(),
                ErrorKind::UnexpectedEof
            );
        }
    }

    #[test]
    fn a_request_is_sent_as_given_with_host_and_length_added() {
        let (listener, addr) = listen();
        let server = thread::spawn(move || {
            // A client serves as the reader of the other side too: `read_through` knows nothing of responses.
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Client {
                stream,
                unread: Vec::new(),
            };
            let first = peer.read_through(b"hello");
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n");
            let second = peer.read_through(b"0\r\n\r\n");
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n");
            (first, second)
        });
        let mut client = Client::connect(addr);
        client.request("POST", "/a?b", &[("X-One", "1")], b"hello");
        assert!(client.is_quiet());
        let framed = [("hOST", "here"), ("Transfer-Encoding", "chunked")];
        client.request(
            "PUT",
            "/c",
            &framed,
            &chunked(&[b"hello ", b"", b"big world"]),
        );
        let (first, second) = server.join().unwrap();
        let expected = format!(
            "POST /a?b HTTP/1.1\r\nHost: {addr}\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello"
        );
        assert_eq!(text(&first), expected);
        let expected = "PUT /c HTTP/1.1\r\nhOST: here\r\nTransfer-Encoding: chunked\r\n\r\n\
            6\r\nhello \r\n9\r\nbig world\r\n0\r\n\r\n";
        assert_eq!(text(&second), expected);
        assert!(client.is_closed());
        assert!(!client.is_quiet());
    }
}
