//! HTTP/2 (RFC 9113): framing, flow control and header compression by the `h2` crate, heads and bodies in our own form.
//!
//! The crate refuses what is malformed: connection-specific fields, repeated or late pseudo-fields, names in upper case,
//! a Content-Length that the DATA frames contradict. It also bounds resets and header lists. What it does not bound, a
//! peer that sends much and says nothing, is counted here (`meter.rs`).

mod body;
mod meter;
mod server;
mod socket;
mod upstream;

pub(crate) use body::Reader;
pub(crate) use server::{Http2Connection, Request, Responder};
pub(crate) use upstream::{AnswerReader, Multiplexed, UpstreamStream, Writer};

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{Field, Fields, Name};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much of a body may be on its way on one stream, in either direction.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same, for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The largest DATA frame that is taken.
const MAX_FRAME: u32 = 16 * 1024;
/// How much of a stream's body is held until the peer takes it.
const SEND_BUFFER: usize = 64 * 1024;

/// An error of the crate's as one of the system's.
fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        let described = error.to_string();
        return error
            .into_io()
            .unwrap_or_else(|| io::Error::other(described));
    }
    io::Error::other(error)
}

/// Adds a field. One that cannot be written in HTTP/2 was refused when its head was parsed.
fn put(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    let known = Name::of(name);
    if is_of_connection(known) {
        return;
    }
    let name = match known {
        // On every answer, and not among the names that the crate of maps has numbers for: one allocation less.
        Name::XRequestId => Ok(X_REQUEST_ID),
        _ => HeaderName::from_bytes(name),
    };
    if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value)) {
        // A value that never comes again would push out of the compression table what does, and the encoder compares
        // it with all of its kind that are there.
        value.set_sensitive(matches!(known, Name::XRequestId | Name::Traceparent));
        map.append(name, value);
    }
}

/// Fields about a connection of HTTP/1.1: the app may have meant its own to us; ours to the client is another (RFC 9113
/// §8.2.2).
fn is_of_connection(known: Name) -> bool {
    matches!(
        known,
        Name::Connection | Name::KeepAlive | Name::TransferEncoding | Name::Upgrade
    )
}

fn header_map(fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) -> HeaderMap {
    let mut map = HeaderMap::new();
    for field in fields.iter().filter(|field| keep(field)) {
        put(&mut map, field.name, field.value);
    }
    map
}

/// The lines of a map, in the order in which they came, as far as the map has kept it.
fn lines(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_never_come_again_stay_out_of_the_compression_table() {
        let mut map = HeaderMap::new();
        for (name, once) in [
            (&b"X-Request-Id"[..], true),
            (b"traceparent", true),
            (b"content-type", false),
            (b"x-of-the-app", false),
        ] {
            put(&mut map, name, b"value");
            let name = std::str::from_utf8(name).unwrap();
            assert_eq!(map[name].is_sensitive(), once, "{name}");
        }
    }

    #[test]
    fn fields_about_a_connection_are_left_out() {
        let mut map = HeaderMap::new();
        for name in ["Connection", "keep-alive", "Transfer-Encoding", "upgrade"] {
            put(&mut map, name.as_bytes(), b"value");
        }
        assert!(map.is_empty());
    }
}
