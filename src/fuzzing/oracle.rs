//! hyper's reading of the same bytes.
//!
//! We may refuse what hyper takes. What we take, hyper must take for the same; where it does not, the reason stands in
//! [`KNOWN`], and from that message on nothing is compared.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::engine::MAX_INPUT;
use super::{Lines, Message, sorted};
use crate::config::EscapedSlashes;
use crate::path::CanonicalPath;

/// Where hyper differs, and may.
struct Difference {
    why: &'static str,
    applies: fn(&Message) -> bool,
}

/// Where hyper reads what we accept in another way or not at all, and may.
const KNOWN: &[Difference] = &[
    Difference {
        why: "the target is never forwarded: it is no path, or ambiguous, and is refused above the wire",
        applies: |request| CanonicalPath::parse(&request.start.1, EscapedSlashes::Keep).is_err(),
    },
    Difference {
        why: "http::Uri refuses these characters in a query, which not all clients escape; they go on as they are",
        applies: |request| {
            let mut parts = request.start.1.splitn(2, |&b| b == b'?');
            let odd = |b: &u8| b"\"<>".contains(b);
            parts.nth(1).is_some_and(|query| query.iter().any(odd))
        },
    },
    Difference {
        why: "a Connection line with bytes beyond ASCII is as good as empty to hyper; we read its other options",
        applies: |request| {
            let beyond = |(name, value): &(Vec<u8>, Vec<u8>)| {
                name == b"connection" && !value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
            };
            request.lines.iter().any(beyond)
        },
    },
];

/// Why hyper differs on this request, if it is known to.
pub(super) fn difference(request: &Message) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| (known.applies)(request));
    known.map(|known| known.why)
}

fn map_lines(map: &HeaderMap) -> Lines {
    sorted(
        map.iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
    )
}

/// Reads a body into `message`.
async fn collect(mut body: Incoming, message: &mut Message) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        if let Some(data) = frame.data_ref() {
            message.body.extend_from_slice(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            message.trailers = map_lines(trailers);
        }
    }
    message.whole = true;
}

/// The requests that a server of hyper's finds.
pub(super) async fn requests(data: &[u8]) -> Vec<Message> {
    let (mut client, server) = tokio::io::duplex(MAX_INPUT * 16);
    client.write_all(data).await.expect("it has room");
    client.shutdown().await.expect("it is open");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let target = head.uri.to_string().into_bytes();
            let mut message = Message {
                start: (head.method.as_str().as_bytes().to_vec(), target),
                lines: map_lines(&head.headers),
                ..Message::default()
            };
            collect(body, &mut message).await;
            seen.borrow_mut().push(message);
            // Not 200, which would make a tunnel of CONNECT.
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = hyper::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let mut answers = Vec::new();
    let (_ended, _read) = tokio::join!(connection, client.read_to_end(&mut answers));
    seen.take()
}

/// The answer that a client of hyper's finds for a request with this method.
pub(super) async fn response(data: &[u8], method: hyper::Method) -> Option<Message> {
    let (client, mut server) = tokio::io::duplex(MAX_INPUT * 16);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client)).await;
    let (mut sender, connection) = handshake.ok()?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    let asking = async move {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let status = head.status.as_u16().to_string().into_bytes();
        let mut message = Message {
            start: (status, Vec::new()),
            lines: map_lines(&head.headers),
            ..Message::default()
        };
        if head.status == hyper::StatusCode::SWITCHING_PROTOCOLS {
            message.whole = true;
        } else {
            collect(body, &mut message).await;
        }
        drop(sender);
        Some(message)
    };
    let answering = async move {
        // hyper takes bytes that come before the request for somebody else's.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if server
                .read_buf(&mut head)
                .await
                .is_ok_and(|count| count > 0)
            {
                continue;
            }
            return;
        }
        // hyper may have seen enough.
        let _gone = server.write_all(data).await;
        let _gone = server.shutdown().await;
        let _end = server.read_to_end(&mut head).await;
    };
    let (message, _ended, ()) = tokio::join!(asking, connection, answering);
    message
}
