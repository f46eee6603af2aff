//! The app behind the proxies: answers from memory, as fast as one thread can, so that the proxy is what is measured.
//!
//! The last segment of the path chooses the answer (`1k`, `16k`, `1m`, `upload`, `ws`), whatever stands before it. Below `/api/`
//! a request must carry `X-WX-OPENID`: the row "verified and enriched" is worth nothing if nobody enriched. Answers are
//! built once, `Date` included, and sent in one write each.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{Chunks, Framing, framing};
use crate::websocket;

const MAX_HEADERS: usize = 64;
/// Holds a whole 64 KiB upload, so that one read can take what the socket has.
const BUFFER: usize = 128 * 1024;

/// Serves until standard input closes: it does when the orchestrator dies, however it dies.
pub(crate) fn run() -> ExitCode {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a loopback port is free");
        println!(
            "{}",
            listener
                .local_addr()
                .expect("a bound listener has an address")
                .port()
        );
        let answers: &'static Answers = Box::leak(Box::new(Answers::build()));
        loop {
            // An accept fails for want of descriptors or because the peer has gone; the next one may not.
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            tokio::spawn(async move {
                if let Err(why) = serve(stream, answers).await {
                    eprintln!("upstream: {why}");
                }
            });
        }
    })
}

/// The body of the answer to a GET whose path ends in `segment`.
pub(crate) fn body_of(segment: &str) -> Option<Vec<u8>> {
    let length = match segment {
        "1k" => 1024,
        "16k" => 16 * 1024,
        "1m" => 1024 * 1024,
        _ => return None,
    };
    let text =
        br#"{"id":4711,"title":"Green tea, 250 g","price":"38.00","tags":["tea","spring"]},"#;
    Some(text.iter().copied().cycle().take(length).collect())
}

/// The body of the answer to an upload of `received` bytes.
pub(crate) fn receipt_of(received: u64) -> Vec<u8> {
    format!("{{\"received\":{received}}}").into_bytes()
}

struct Answers {
    date: String,
    small: Vec<u8>,
    large: Vec<u8>,
    huge: Vec<u8>,
    unknown: Vec<u8>,
    anonymous: Vec<u8>,
}

impl Answers {
    fn build() -> Answers {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let sized = |segment| body_of(segment).expect("the segment is one of those served");
        Answers {
            small: answer(&date, "200 OK", &sized("1k")),
            large: answer(&date, "200 OK", &sized("16k")),
            huge: answer(&date, "200 OK", &sized("1m")),
            unknown: answer(&date, "404 Not Found", b"{}"),
            anonymous: answer(
                &date,
                "500 Internal Server Error",
                b"{\"why\":\"no X-WX-OPENID\"}",
            ),
            date,
        }
    }
}

fn answer(date: &str, status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nServer: app/1.0\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-cache\r\nX-Response-Time: 1\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// One connection: requests in the order they come, pipelined or cut anywhere.
async fn serve(mut stream: TcpStream, answers: &Answers) -> Result<(), String> {
    // An answer is one write; Nagle would only hold back its tail.
    let _ = stream.set_nodelay(true);
    let mut buffer = Buffer::new();
    loop {
        let request = loop {
            match parse_request(buffer.bytes())? {
                Some(request) => break request,
                None if buffer.fill(&mut stream).await? => {}
                None if buffer.bytes().is_empty() => return Ok(()),
                None => return Err("the peer closed within a head".to_owned()),
            }
        };
        buffer.take(request.head_length);
        let received = swallow_body(&request, &mut buffer, &mut stream).await?;
        let sent = match request.wants {
            Wants::Small => stream.write_all(&answers.small).await,
            Wants::Large => stream.write_all(&answers.large).await,
            Wants::Huge => stream.write_all(&answers.huge).await,
            Wants::Echo(accept) => {
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                if stream.write_all(head.as_bytes()).await.is_err() {
                    return Ok(());
                }
                return echo_frames(&mut buffer, &mut stream).await;
            }
            Wants::Receipt => {
                stream
                    .write_all(&answer(&answers.date, "200 OK", &receipt_of(received)))
                    .await
            }
            Wants::Unknown => stream.write_all(&answers.unknown).await,
            Wants::Identity => stream.write_all(&answers.anonymous).await,
        };
        if sent.is_err() || request.close {
            return Ok(());
        }
    }
}

/// Sends each frame back until the peer closes.
async fn echo_frames(buffer: &mut Buffer, stream: &mut TcpStream) -> Result<(), String> {
    loop {
        while let Some((frame, taken)) = websocket::answer(buffer.bytes())? {
            buffer.take(taken);
            if stream.write_all(&frame).await.is_err() {
                return Ok(());
            }
        }
        if !buffer.fill(stream).await? {
            return Ok(());
        }
    }
}

struct Request {
    head_length: usize,
    wants: Wants,
    framing: Framing,
    close: bool,
}

enum Wants {
    Small,
    Large,
    Huge,
    Receipt,
    /// To speak WebSocket, with this for `Sec-WebSocket-Accept`.
    Echo(String),
    Unknown,
    /// It came by `/api/` and nobody said who it is.
    Identity,
}

fn parse_request(bytes: &[u8]) -> Result<Option<Request>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let head_length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP request: {error}")),
    };
    let target = head.path.unwrap_or("/");
    let path = target.split('?').next().unwrap_or(target);
    let named = |name: &str| {
        head.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
    };
    let wants = match (head.method, path.rsplit('/').next()) {
        _ if path.starts_with("/api/") && named("x-wx-openid").is_none() => Wants::Identity,
        (Some("GET"), Some("1k")) => Wants::Small,
        (Some("GET"), Some("16k")) => Wants::Large,
        (Some("GET"), Some("1m")) => Wants::Huge,
        (Some("GET"), Some("ws")) if named("upgrade").is_some() => {
            let key = named("sec-websocket-key").map_or(&b""[..], |header| header.value);
            Wants::Echo(websocket::accept(&String::from_utf8_lossy(key)))
        }
        (Some("POST"), Some("upload")) => Wants::Receipt,
        _ => Wants::Unknown,
    };
    let close =
        named("connection").is_some_and(|header| header.value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Request {
        head_length,
        wants,
        framing: framing(head.headers)?,
        close,
    }))
}

/// Reads the body away and says how long it was.
async fn swallow_body(
    request: &Request,
    buffer: &mut Buffer,
    stream: &mut TcpStream,
) -> Result<u64, String> {
    let short = || "the peer closed within a body".to_owned();
    match request.framing {
        Framing::Neither => Ok(0),
        Framing::Length(length) => {
            let mut left = length;
            loop {
                let here = left.min(buffer.bytes().len());
                buffer.take(here);
                left -= here;
                if left == 0 {
                    return Ok(length as u64);
                }
                if !buffer.fill(stream).await? {
                    return Err(short());
                }
            }
        }
        Framing::Chunked => {
            let mut chunks = Chunks::new();
            let mut received = 0;
            loop {
                let taken = chunks.feed(buffer.bytes(), |data| received += data.len() as u64)?;
                buffer.take(taken);
                if chunks.done() {
                    return Ok(received);
                }
                if !buffer.fill(stream).await? {
                    return Err(short());
                }
            }
        }
    }
}

/// What was read and not yet dealt with.
struct Buffer {
    memory: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer {
            memory: vec![0; BUFFER],
            from: 0,
            to: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.to]
    }

    fn take(&mut self, length: usize) {
        self.from += length;
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
    }

    /// Reads once; `false` at the end of the stream. A peer's reset counts as the end: a proxy may part as it likes.
    async fn fill(&mut self, stream: &mut TcpStream) -> Result<bool, String> {
        if self.from > 0 {
            self.memory.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.memory.len() {
            return Err("a head longer than the buffer".to_owned());
        }
        let read = stream.read(&mut self.memory[self.to..]).await.unwrap_or(0);
        self.to += read;
        Ok(read > 0)
    }
}
