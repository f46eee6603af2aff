//! The PROXY protocol, versions 1 and 2: a load balancer's first bytes, which say who the client is.
//!
//! Parsing is a pure function over the bytes so far. What follows the header belongs to TLS or HTTP, so no more is ever
//! read than is sure to be part of it: the parser says how much that is. Reference: HAProxy, proxy-protocol.txt.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How a header of version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The part of it that says how long the rest is.
const FIXED: usize = 16;
/// How a header of version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// The shortest header of version 1: `PROXY UNKNOWN` and CR LF. Version 2 has no shorter one.
const SHORTEST: usize = 15;
/// The longest header of version 1, CR LF included.
const LONGEST_LINE: usize = 107;
/// The longest header of version 2 that is taken; those with a whole client certificate in their extensions are about
/// that long.
const LONGEST: usize = 4096;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// At least so many more bytes belong to the header.
    Incomplete(usize),
    /// The whole header.
    Complete(Source),
}

/// Whose bytes follow the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The proxy's own: a health check.
    Proxy,
    /// Those of a client that the proxy does not name.
    Unknown,
    /// Those of the client at this address.
    Client(SocketAddr),
}

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub(crate) struct Malformed(&'static str);

/// Reads a header, and not a byte more.
pub(crate) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Source> {
    let mut bytes = Vec::with_capacity(LONGEST_LINE);
    loop {
        let parsed = parse(&bytes);
        match parsed.map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))? {
            Header::Complete(source) => return Ok(source),
            Header::Incomplete(more) => {
                let from = bytes.len();
                bytes.resize(from + more, 0);
                let count = stream.read(&mut bytes[from..]).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                bytes.truncate(from + count);
            }
        }
    }
}

/// What `bytes` are the beginning of. Nothing may follow the header in them.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    if begins_like(bytes, &SIGNATURE) {
        parse_binary(bytes)
    } else if begins_like(bytes, WORD) {
        parse_line(bytes)
    } else {
        Err(Malformed("it begins differently"))
    }
}

fn begins_like(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(a, b)| a == b)
}

fn parse_binary(bytes: &[u8]) -> Result<Header, Malformed> {
    // Neither word is complete in so few bytes.
    if bytes.len() < SHORTEST {
        return Ok(Header::Incomplete(SHORTEST - bytes.len()));
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Header::Incomplete(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > LONGEST {
        return Err(Malformed("it is too long"));
    }
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("its version or command is unknown")),
    };
    if rest.len() < length {
        return Ok(Header::Incomplete(length - rest.len()));
    }
    let short = Malformed("its addresses are incomplete");
    let source = match fixed[13] {
        _ if is_local => Source::Proxy,
        // Not told, or Unix sockets, which have no address to tell.
        0x00 => Source::Unknown,
        0x31 if length >= 216 => Source::Unknown,
        0x11 => {
            let (addresses, _) = rest.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, _, _, _, _, port @ .., _, _] = *addresses;
            Source::Client((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(port)).into())
        }
        0x21 => {
            let (addresses, _) = rest.split_first_chunk::<36>().ok_or(short)?;
            let (ip, _) = addresses.split_first_chunk::<16>().ok_or(short)?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Source::Client((Ipv6Addr::from(*ip), port).into())
        }
        0x31 => return Err(short),
        _ => return Err(Malformed("it is not about a stream of bytes")),
    };
    Ok(Header::Complete(source))
}

fn parse_line(bytes: &[u8]) -> Result<Header, Malformed> {
    let line = match bytes {
        [line @ .., b'\r', b'\n'] if bytes.len() <= LONGEST_LINE && !line.contains(&b'\n') => line,
        _ if bytes.len() >= LONGEST_LINE => return Err(Malformed("its line is too long")),
        _ if bytes.len() < SHORTEST => return Ok(Header::Incomplete(SHORTEST - bytes.len())),
        // Every field that is still to come has a space and a byte at least, and then there are CR LF.
        [.., b'\r'] => return Ok(Header::Incomplete(1)),
        _ if bytes.contains(&b'\n') => return Err(Malformed("its line does not end with CR LF")),
        _ if bytes.starts_with(b"PROXY UNKNOWN") => {
            return Ok(Header::Incomplete(2.min(LONGEST_LINE - bytes.len())));
        }
        _ => {
            let spaces = bytes.iter().filter(|b| **b == b' ').count();
            let more = 5usize.saturating_sub(spaces) * 2 + 2;
            return Ok(Header::Incomplete(more.min(LONGEST_LINE - bytes.len())));
        }
    };
    let text = std::str::from_utf8(line).map_err(|_| Malformed("its line is not text"))?;
    let fields: Vec<&str> = text.split(' ').collect();
    match fields[..] {
        [_, "UNKNOWN", ..] => Ok(Header::Complete(Source::Unknown)),
        [
            _,
            family,
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            let source = address(family, source)?;
            address(family, destination)?;
            let port = port(source_port)?;
            self::port(destination_port)?;
            let client = (source, port).into();
            Ok(Header::Complete(Source::Client(client)))
        }
        _ => Err(Malformed("its line has not six fields")),
    }
}

fn address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let parsed = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
        _ => return Err(Malformed("its family is unknown")),
    };
    parsed.map_err(|_| Malformed("an address is not one"))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| plain);
    port.ok_or(Malformed("a port is not one"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2 for these addresses, with extensions behind them.
    fn binary(family: u8, addresses: &[u8], extensions: usize) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + extensions).unwrap();
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(addresses);
        bytes.extend(vec![4; extensions]);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

    fn v6() -> Vec<u8> {
        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut bytes = client.octets().to_vec();
        bytes.extend([0; 16]);
        bytes.extend([0x30, 0x39, 0, 80]);
        bytes
    }

    fn client(addr: &str) -> Source {
        Source::Client(addr.parse().unwrap())
    }

    fn good() -> Vec<(Vec<u8>, Source)> {
        let mut local = binary(0, b"", 9);
        local[12] = 0x20;
        vec![
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n".to_vec(),
                client("192.0.2.7:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n".to_vec(),
                client("[2001:db8::7]:12345"),
            ),
            (b"PROXY TCP6 :: :: 0 0\r\n".to_vec(), client("[::]:0")),
            (
                b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
                client("0.0.0.0:0"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Unknown),
            (
                b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n".to_vec(),
                Source::Unknown,
            ),
            (binary(0x11, &V4, 0), client("192.0.2.7:12345")),
            (binary(0x11, &V4, 300), client("192.0.2.7:12345")),
            (binary(0x21, &v6(), 7), client("[2001:db8::7]:12345")),
            (binary(0x31, &[0; 216], 0), Source::Unknown),
            (binary(0x00, b"", 0), Source::Unknown),
            (local, Source::Proxy),
        ]
    }

    /// Reads from what has been followed by a request, in pieces of at most `piece` bytes; what is left.
    fn read_in_pieces(header: &[u8], piece: usize) -> (io::Result<Source>, Vec<u8>) {
        struct Pieces(Vec<u8>, usize);
        impl AsyncRead for Pieces {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                let count = self.1.min(buf.remaining()).min(self.0.len());
                buf.put_slice(&self.0[..count]);
                self.0.drain(..count);
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut stream = Pieces([header, b"GET / HTTP/1.1\r\n"].concat(), piece);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let read = runtime.block_on(read_header(&mut stream));
        (read, stream.0)
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further_however_they_come() {
        for (header, source) in good() {
            for piece in 1..header.len() + 20 {
                let (read, left) = read_in_pieces(&header, piece);
                assert_eq!(read.unwrap(), source, "{header:?}");
                assert_eq!(left, b"GET / HTTP/1.1\r\n", "{header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let mut version = binary(0x11, &V4, 0);
        version[12] = 0x31;
        let mut command = binary(0x11, &V4, 0);
        command[12] = 0x22;
        let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(100));
        for bad in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n.............",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n.............",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n...........",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            long.as_bytes(),
            b"PROXY UNKNOWN a\n\r\n",
            b"\r\n\r\n\0\r\nQUIT\r\n",
            &version,
            &command,
            &binary(0x11, &V4[..11], 0),
            &binary(0x21, &[0; 35], 0),
            &binary(0x31, &[0; 215], 0),
            &binary(0x12, &V4, 0),
            &binary(0x11, &V4, LONGEST),
        ] {
            let (read, _) = read_in_pieces(bad, 3);
            let kind = read.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::InvalidData, "{bad:?}");
        }
    }

    proptest! {
        /// Every prefix of a header asks for no more than is missing, and garbage never makes it read on and on.
        #[test]
        fn no_more_is_asked_for_than_belongs_to_the_header(at in 0usize..1000, which in 0usize..12) {
            let (header, _) = good().remove(which);
            let prefix = &header[..at % header.len()];
            match parse(prefix) {
                Ok(Header::Incomplete(more)) => {
                    prop_assert!((1..=header.len() - prefix.len()).contains(&more));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn garbage_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200), word in any::<bool>()) {
            let mut garbage = if word { WORD.to_vec() } else { SIGNATURE.to_vec() };
            garbage.extend(bytes);
            if let Ok(Header::Incomplete(more)) = parse(&garbage) {
                prop_assert!(garbage.len() + more <= LONGEST);
                prop_assert!(more > 0);
            }
        }
    }
}
