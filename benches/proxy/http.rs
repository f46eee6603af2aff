//! Just enough HTTP/1.1 to judge an answer, for the generator and for the set-up's own requests.
//!
//! An answer is looked at only when it is whole: the generator knows every body beforehand and compares it byte by
//! byte, so that a proxy that truncates, mixes up or invents cannot look fast.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::certificate;

const MAX_HEADERS: usize = 64;

/// A whole answer.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: Cow<'a, [u8]>,
    /// Bytes of the input that the answer took, interim answers included.
    pub(crate) length: usize,
}

/// The first final answer in `bytes`; `None` while it is incomplete.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<Option<Answer<'_>>, String> {
    let mut offset = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let head_length = match head.parse(&bytes[offset..]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("not an HTTP answer: {error}")),
        };
        let status = head.code.ok_or("an answer without a status")?;
        offset += head_length;
        if (100..200).contains(&status) {
            continue;
        }
        return Ok(match framing(head.headers)? {
            Framing::Length(length) => bytes.get(offset..offset + length).map(|body| Answer {
                status,
                body: Cow::Borrowed(body),
                length: offset + length,
            }),
            Framing::Chunked => {
                let mut chunks = Chunks::new();
                let mut body = Vec::new();
                let taken = chunks.feed(&bytes[offset..], |data| body.extend_from_slice(data))?;
                chunks.done().then(|| Answer {
                    status,
                    body: Cow::Owned(body),
                    length: offset + taken,
                })
            }
            Framing::Neither => {
                return Err(format!("a {status} with neither Content-Length nor chunks"));
            }
        });
    }
}

/// The `Sec-WebSocket-Accept` of a 101, behind which nothing may have come yet; `None` while it is incomplete.
pub(crate) fn parse_switch(bytes: &[u8]) -> Result<Option<String>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        _ => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]);
            return Err(format!("no switch of protocols: {text}"));
        }
    }
    if head.code != Some(101) {
        return Err(format!("status {:?}, not 101", head.code));
    }
    let accepted = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    let accepted = accepted.ok_or("a 101 without Sec-WebSocket-Accept")?;
    Ok(Some(String::from_utf8_lossy(accepted.value).into_owned()))
}

/// How a message says where its body ends.
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    Neither,
}

/// Two lengths, or a length and chunks, are refused: a proxy that lets them through is a finding.
pub(crate) fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing, String> {
    let mut found = Framing::Neither;
    for header in headers {
        let next = if header.name.eq_ignore_ascii_case("content-length") {
            let text =
                std::str::from_utf8(header.value).map_err(|_| "Content-Length is not text")?;
            Framing::Length(
                text.trim()
                    .parse()
                    .map_err(|_| format!("Content-Length is {text:?}"))?,
            )
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer coding other than chunked".to_owned());
            }
            Framing::Chunked
        } else {
            continue;
        };
        if !matches!(found, Framing::Neither) {
            return Err("a message that says twice where its body ends".to_owned());
        }
        found = next;
    }
    Ok(found)
}

/// Takes chunked bodies apart as they come, however they are cut.
pub(crate) struct Chunks {
    at: At,
}

enum At {
    SizeLine,
    Data { left: u64 },
    EndOfData,
    Trailer,
    Done,
}

impl Chunks {
    pub(crate) fn new() -> Chunks {
        Chunks { at: At::SizeLine }
    }

    pub(crate) fn done(&self) -> bool {
        matches!(self.at, At::Done)
    }

    /// Hands the data in `bytes` to `sink` and returns how many bytes are dealt with; the rest (an incomplete line,
    /// or the next message) is to be presented again with more behind it.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, String> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            match self.at {
                At::SizeLine => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        taken += length;
                        self.at = if size == 0 {
                            At::Trailer
                        } else {
                            At::Data { left: size }
                        };
                    }
                    Ok(httparse::Status::Partial) => return Ok(taken),
                    Err(_) => return Err("a chunk without a size".to_owned()),
                },
                At::Data { left } => {
                    if rest.is_empty() {
                        return Ok(taken);
                    }
                    let here = left.min(rest.len() as u64) as usize;
                    sink(&rest[..here]);
                    taken += here;
                    let left = left - here as u64;
                    self.at = if left == 0 {
                        At::EndOfData
                    } else {
                        At::Data { left }
                    };
                }
                At::EndOfData => match rest {
                    [b'\r', b'\n', ..] => {
                        taken += 2;
                        self.at = At::SizeLine;
                    }
                    [] | [b'\r'] => return Ok(taken),
                    _ => return Err("a chunk longer than its size".to_owned()),
                },
                At::Trailer => {
                    let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                        return Ok(taken);
                    };
                    taken += line + 2;
                    if line == 0 {
                        self.at = At::Done;
                    }
                }
                At::Done => return Ok(taken),
            }
        }
    }
}

/// One request on a connection of its own; `Err` says what went wrong.
pub(crate) fn fetch(
    address: SocketAddr,
    method: &str,
    target: &str,
    json: Option<&str>,
) -> Result<(u16, Vec<u8>), String> {
    fetch_over(address, None, method, target, json)
}

/// The same with TLS, if there is a file with the certificate to expect.
pub(crate) fn fetch_over(
    address: SocketAddr,
    certificate: Option<&Path>,
    method: &str,
    target: &str,
    json: Option<&str>,
) -> Result<(u16, Vec<u8>), String> {
    let limit = Duration::from_secs(10);
    let said = |error: std::io::Error| format!("{method} {address}{target}: {error}");
    let tcp = TcpStream::connect_timeout(&address, limit).map_err(said)?;
    tcp.set_read_timeout(Some(limit)).map_err(said)?;
    tcp.set_write_timeout(Some(limit)).map_err(said)?;
    tcp.set_nodelay(true).map_err(said)?;
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(json) = json {
        request.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            json.len()
        ));
    }
    request.push_str("\r\n");
    request.push_str(json.unwrap_or(""));
    let answer = match certificate {
        None => converse(tcp, &request),
        Some(file) => {
            let client =
                ClientConnection::new(certificate::client(file)?, certificate::server_name()?);
            let client = client.map_err(|error| format!("TLS: {error}"))?;
            converse(StreamOwned::new(client, tcp), &request)
        }
    };
    answer.map_err(|why| format!("{method} {address}{target}: {why}"))
}

fn converse(mut stream: impl Read + Write, request: &str) -> Result<(u16, Vec<u8>), String> {
    let said = |error: std::io::Error| error.to_string();
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(answer) = parse_answer(&received)? {
            return Ok((answer.status, answer.body.into_owned()));
        }
        match stream.read(&mut piece).map_err(said)? {
            0 => return Err(format!("closed after {} bytes", received.len())),
            read => received.extend_from_slice(&piece[..read]),
        }
    }
}
