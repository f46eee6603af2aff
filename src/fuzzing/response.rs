//! Answers of the app: no cut between two reads matters, and hyper sees the same one.

use super::engine::{self, MAX_INPUT};
use super::{Message, oracle};
use crate::net::Stream;
use crate::wire::http1::UpstreamConnection;
use crate::wire::{Framing, HeadLimits, Method};

/// Small, so that inputs reach it.
const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024 };
/// How many interim answers may come first.
const MAX_INTERIM: usize = 16;

/// Any bytes of an app, as the answer to a GET and to a HEAD.
pub fn response(data: &[u8]) {
    if data.len() > MAX_INPUT {
        return;
    }
    for (method, theirs) in [
        (Method::Get, hyper::Method::GET),
        (Method::Head, hyper::Method::HEAD),
    ] {
        let cuttings = engine::cuttings(data);
        let ours = ask(&cuttings[0], method);
        for pieces in &cuttings[1..] {
            assert_eq!(ask(pieces, method), ours, "cut: {pieces:?}");
        }
        if let Some(ours) = ours.filter(|answer| answer.whole) {
            let theirs = engine::run(oracle::response(data, theirs));
            assert_eq!(Some(ours), theirs);
        }
    }
}

fn ask(pieces: &[&[u8]], method: Method) -> Option<Message> {
    let (answer, asked) = engine::run(engine::fed(pieces, async |stream| {
        ask_stream(stream, method).await
    }));
    assert!(asked.is_empty() || asked.ends_with(b"\r\n\r\n"));
    answer
}

async fn ask_stream(stream: Stream, method: Method) -> Option<Message> {
    let mut connection = UpstreamConnection::new(stream);
    let (mut writer, mut answer) = connection.split(Framing::Empty);
    writer
        .pending()
        .extend_from_slice(method.as_str().as_bytes());
    writer
        .pending()
        .extend_from_slice(b" / HTTP/1.1\r\nhost: app\r\n\r\n");
    writer.send(b"", true).await.expect("the app takes it");
    for interim in 0.. {
        if interim > MAX_INTERIM {
            return None;
        }
        answer.read_head(LIMITS, method).await.ok()?;
        if !matches!(answer.head().status, 100 | 102..=199) {
            break;
        }
    }
    let (head, mut body) = answer.into_body();
    assert!(super::decoder::is_value(head.reason()));
    let mut message = Message {
        start: (head.status.to_string().into_bytes(), Vec::new()),
        lines: engine::lines(&head.fields),
        ..Message::default()
    };
    (message.body, message.whole) = engine::read_body(&mut body).await;
    if message.whole {
        message.trailers = engine::lines(body.trailers());
    }
    Some(message)
}
