//! The PROXY protocol: however it arrives, a header is read to its end and no further, and says what it says.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::engine;
use crate::net::{self, Source};

/// Bytes that come in pieces of at most so many.
struct Pieces<'d>(&'d [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.1.min(buf.remaining()).min(self.0.len());
        let (piece, rest) = self.0.split_at(count);
        buf.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// Any bytes as the first ones of a connection.
pub fn proxy_header(data: &[u8]) {
    let outcome = read(data, usize::MAX);
    // Which fault is found first may depend on how much is there.
    for piece in [1, 2, 7] {
        assert_eq!(read(data, piece).ok(), outcome.ok(), "pieces of {piece}");
    }
    let Ok((source, length)) = outcome else {
        return;
    };
    let header = &data[..length];
    assert_eq!(source, meaning(header), "{}", header.escape_ascii());
    let truncated = Err(io::ErrorKind::UnexpectedEof);
    for end in 0..length.min(300) {
        assert_eq!(read(&header[..end], usize::MAX), truncated, "{end} bytes");
    }
}

/// What a header says, and how long it is.
fn read(data: &[u8], piece: usize) -> Result<(Source, usize), io::ErrorKind> {
    let mut stream = Pieces(data, piece);
    let source = engine::run(net::read_proxy_header(&mut stream));
    source
        .map(|source| (source, data.len() - stream.0.len()))
        .map_err(|error| error.kind())
}

/// A second reading of a whole header that is known to be good.
fn meaning(header: &[u8]) -> Source {
    if let Some(fixed) = header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let length = usize::from(fixed[2]) * 256 + usize::from(fixed[3]);
        assert_eq!(header.len(), 16 + length);
        let addresses = &fixed[4..];
        let number = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
        return match (fixed[0], fixed[1]) {
            (0x21, 0x11) => {
                let ip: [u8; 4] = addresses[..4].try_into().expect("four bytes");
                Source::Client((IpAddr::from(ip), number(8)).into())
            }
            (0x21, 0x21) => {
                let groups: [u16; 8] = std::array::from_fn(|group| number(group * 2));
                Source::Client((Ipv6Addr::from(groups), number(32)).into())
            }
            (0x20, _) => Source::Proxy,
            (0x21, 0x00 | 0x31) => Source::Unknown,
            other => panic!("neither version 2 nor a stream: {other:?}"),
        };
    }
    let text = std::str::from_utf8(header).expect("a line is text");
    let line = text.strip_suffix("\r\n").expect("a line has an end");
    assert!(text.len() <= 107 && !line.contains('\n'));
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields[0], "PROXY");
    if fields[1] == "UNKNOWN" {
        return Source::Unknown;
    }
    assert_eq!(fields.len(), 6);
    let parse = |ip: &str| -> IpAddr { ip.parse().expect("an address") };
    let (source, destination) = (parse(fields[2]), parse(fields[3]));
    assert_eq!(source.is_ipv4(), fields[1] == "TCP4");
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    let port = fields[4].parse::<u16>().expect("a port");
    Source::Client((source, port).into())
}
