//! A raw HTTP/2 client for tests, frame by frame, blocking, over one `TcpStream`.
//!
//! It sends whatever it is told, so that a test decides which rules are broken. Fields go out as literals that are never
//! indexed and not compressed (RFC 7541 §6.2.3), as written. Of what comes back it understands as much as tests ask for:
//! frames, the status of an answer, its body and its end. For all fields of an answer there is the `h2` crate.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use crate::patience::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

// Reasons (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

// Settings (RFC 9113 §6.5.2).
pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame as received.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number that stands at `at` in the payload: a reason, an increment.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into();
        u32::from_be_bytes(bytes.expect("four bytes"))
    }
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer to its end.
    Answer(u16),
    /// Taken back by the server (RST_STREAM) with this reason.
    Reset(u32),
    /// The whole connection was given up (GOAWAY) with this reason before the stream had ended.
    Gone(u32),
    /// The connection ended without a word.
    Closed,
}

/// What is known of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// Of the interim answers.
    pub(crate) interim: Vec<u16>,
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
    /// Whether a second head came behind the body.
    pub(crate) has_trailers: bool,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

/// A connection.
pub(crate) struct Http2Client {
    stream: TcpStream,
    unread: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    /// The reason and the last stream of a GOAWAY.
    pub(crate) going_away: Option<(u32, u32)>,
    closed: bool,
    /// Whether windows are opened again for what has come.
    pub(crate) opens_windows: bool,
}

impl Http2Client {
    /// Connects and says that no table of fields is kept, so that every status can be read by itself.
    pub(crate) fn connect(addr: impl ToSocketAddrs) -> Self {
        Self::with_settings(addr, &[])
    }

    /// As [`Http2Client::connect`], with more settings.
    pub(crate) fn with_settings(addr: impl ToSocketAddrs, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(addr).expect("connect to the server under test");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self {
            stream,
            unread: Vec::new(),
            streams: BTreeMap::new(),
            going_away: None,
            closed: false,
            opens_windows: true,
        };
        let all = [&[(HEADER_TABLE_SIZE, 0)], settings].concat();
        let payload: Vec<u8> = all
            .iter()
            .flat_map(|(name, value)| setting(*name, *value))
            .collect();
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat());
        client
    }

    /// The socket, to be written to by somebody else as well.
    pub(crate) fn socket(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }

    /// Sends bytes; a server that has gone away is seen when reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes);
    }

    pub(crate) fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload));
    }

    /// A head in one frame.
    pub(crate) fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send_frame(HEADERS, flags, stream, &block(fields));
    }

    /// A GET without a body.
    pub(crate) fn get(&mut self, stream: u32, path: &str, fields: &[(&str, &str)]) {
        self.head(stream, &request("GET", path, fields), true);
    }

    pub(crate) fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        self.send_frame(DATA, if end { END_STREAM } else { 0 }, stream, data);
    }

    /// The next frame, with SETTINGS and PING answered and windows opened again; `None` once the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let frame = self.receive()?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.send_frame(SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => self.send_frame(PING, ACK, 0, &frame.payload),
            GOAWAY => self.going_away = Some((frame.number(4), frame.number(0))),
            DATA if self.opens_windows && !frame.payload.is_empty() => {
                let count = u32::try_from(frame.payload.len()).expect("frames are small");
                self.send_frame(WINDOW_UPDATE, 0, 0, &count.to_be_bytes());
                if frame.flags & END_STREAM == 0 {
                    self.send_frame(WINDOW_UPDATE, 0, frame.stream, &count.to_be_bytes());
                }
            }
            _ => {}
        }
        self.note(&frame);
        Some(frame)
    }

    /// Reads until a stream has ended in whatever way.
    pub(crate) fn end_of(&mut self, stream: u32) -> End {
        loop {
            let known = self.streams.entry(stream).or_default();
            if let Some(reason) = known.reset.filter(|_| !known.ended) {
                return End::Reset(reason);
            }
            if known.ended {
                return End::Answer(known.status.expect("an answer has a head"));
            }
            match self.going_away {
                Some((reason, last)) if reason != NO_ERROR || last < stream => {
                    return End::Gone(reason);
                }
                _ => {}
            }
            if self.next().is_none() {
                return match self.going_away {
                    Some((reason, _)) => End::Gone(reason),
                    None => End::Closed,
                };
            }
        }
    }

    /// What has come of a stream.
    pub(crate) fn stream(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// The body of an answer that has ended, as text.
    pub(crate) fn text(&self, stream: u32) -> String {
        String::from_utf8_lossy(&self.stream(stream).body).into_owned()
    }

    /// Reads to the end of the connection; the reason of its GOAWAY, if it said one.
    pub(crate) fn end(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.going_away.map(|(reason, _)| reason)
    }

    fn note(&mut self, frame: &Frame) {
        let known = self.streams.entry(frame.stream).or_default();
        match frame.kind {
            HEADERS if frame.flags & END_HEADERS == 0 => panic!("a server's head is short"),
            HEADERS if known.status.is_some() => known.has_trailers = true,
            HEADERS => match status(&frame.payload) {
                interim @ 100..=199 => known.interim.push(interim),
                status => known.status = Some(status),
            },
            DATA => known.body.extend_from_slice(&frame.payload),
            RST_STREAM => known.reset = Some(frame.number(0)),
            _ => {}
        }
        known.ended |= matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
    }

    fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(length) = self.whole() {
                let bytes: Vec<u8> = self.unread.drain(..length).collect();
                let stream = bytes[5..9].try_into().map(u32::from_be_bytes);
                return Some(Frame {
                    kind: bytes[3],
                    flags: bytes[4],
                    stream: stream.expect("four bytes") & 0x7fff_ffff,
                    payload: bytes[9..].to_vec(),
                });
            }
            if self.closed {
                return None;
            }
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => self.closed = true,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("silence for {PATIENCE:?}")
                }
                Err(_) => self.closed = true,
            }
        }
    }

    /// The length of the frame that has come whole.
    fn whole(&self) -> Option<usize> {
        let [a, b, c, ..] = self.unread[..] else {
            return None;
        };
        let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        (self.unread.len() >= length).then_some(length)
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One setting.
pub(crate) fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// The fields of a request to a host that is `x`.
pub(crate) fn request<'a>(
    method: &'a str,
    path: &'a str,
    fields: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", path),
    ];
    [&pseudo[..], fields].concat()
}

/// Fields as literals that are never indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        text(&mut out, name.as_bytes());
        text(&mut out, value.as_bytes());
    }
    out
}

/// A text that is not compressed, with its length (RFC 7541 §5.1, §5.2).
pub(crate) fn text(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).expect("it is less than 127"));
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).expect("a remainder") | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).expect("it is less than 128"));
    }
    out.extend_from_slice(text);
}

/// The status in an answer's head: its first field, indexed or a literal with an indexed name.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let mut rest = block;
    while let [first, tail @ ..] = rest
        && first & 0xe0 == 0x20
    {
        rest = tail;
    }
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match rest {
        [first, ..] if first & 0x80 != 0 => {
            let index = usize::from(first & 0x7f);
            INDEXED[index.checked_sub(8).expect("the first field is the status")]
        }
        [first, length, tail @ ..] => {
            let name = if first & 0x40 != 0 {
                first & 0x3f
            } else {
                first & 0x0f
            };
            assert!((8..=14).contains(&name), "the first field is the status");
            let value = &tail[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 {
                value.to_vec()
            } else {
                digits(value)
            };
            let text = std::str::from_utf8(&digits).ok();
            let number = text.and_then(|text| text.parse().ok());
            number.expect("a status is a number")
        }
        _ => panic!("a head without fields"),
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn digits(value: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = value
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |sum, bit| sum << 1 | bit);
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        let five = number(&bits[at..at + 5]);
        if five <= 2 {
            digits.push(b'0' + five);
            at += 5;
        } else {
            let six = number(&bits[at..at + 6]);
            assert!((0x19..=0x1f).contains(&six), "a status has digits");
            digits.push(b'3' + six - 0x19);
            at += 6;
        }
    }
    digits
}
