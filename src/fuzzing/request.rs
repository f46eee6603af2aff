//! Requests on a connection: no cut between two reads matters, and hyper sees the same ones.

use std::rc::Rc;

use super::engine::{self, MAX_INPUT};
use super::{Message, oracle};
use crate::net::Stream;
use crate::wire::http1::ServerConnection;
use crate::wire::{HeadLimits, Length, NoHead};

/// Small, so that inputs reach it.
const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024 };

/// What a connection of ours has seen.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    requests: Vec<Message>,
    end: End,
}

/// Why no further request was read.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client closed the connection after the last one.
    Closed,
    /// What followed is no head. Which fault is found first may depend on how much is there.
    Refused,
    /// A body broke off or was malformed.
    Broken,
    /// The connection ended with the last answer.
    Last,
}

/// When a request is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    AfterBody,
    /// What little is left of the body is then drained.
    BeforeBody,
}

/// Any bytes of a client.
pub fn request(data: &[u8]) {
    if data.len() > MAX_INPUT {
        return;
    }
    let cuttings = engine::cuttings(data);
    let seen = serve(&cuttings[0], Answer::AfterBody);
    let hasty = serve(&cuttings[0], Answer::BeforeBody);
    for pieces in &cuttings[1..] {
        assert_eq!(serve(pieces, Answer::AfterBody), seen, "cut: {pieces:?}");
        assert_eq!(serve(pieces, Answer::BeforeBody), hasty, "cut: {pieces:?}");
    }
    let heads = |seen: &Seen| -> Vec<_> {
        let heads = seen.requests.iter();
        heads.map(|r| (r.start.clone(), r.lines.clone())).collect()
    };
    assert!(heads(&seen).starts_with(&heads(&hasty)));

    let theirs = engine::run(oracle::requests(data));
    let mut same = 0;
    for ours in &seen.requests {
        if oracle::difference(ours).is_some() {
            return;
        }
        if !ours.whole {
            break;
        }
        assert_eq!(Some(ours), theirs.get(same));
        same += 1;
    }
    if seen.end == End::Closed {
        assert_eq!(theirs.len(), same, "hyper sees more: {:?}", &theirs[same..]);
    }
}

fn serve(pieces: &[&[u8]], answer: Answer) -> Seen {
    let (seen, _) = engine::run(engine::fed(pieces, async |stream| {
        serve_stream(stream, answer).await
    }));
    seen
}

async fn serve_stream(stream: Stream, answer: Answer) -> Seen {
    let mut connection = ServerConnection::new(stream, Rc::default());
    let mut requests = Vec::new();
    let end = loop {
        match connection.read_head(LIMITS).await {
            Ok(()) => {}
            Err(NoHead::Closed) => break End::Closed,
            Err(_) => break End::Refused,
        }
        let (head, mut body, mut responder) = connection.parts();
        let mut message = Message {
            start: (head.method_text().to_vec(), head.target().to_vec()),
            lines: engine::lines(&head.fields),
            ..Message::default()
        };
        if answer == Answer::AfterBody {
            (message.body, message.whole) = engine::read_body(&mut body).await;
            message.trailers = engine::lines(body.trailers());
        } else if !responder.can_outlive(head, &body) {
            responder.close();
        }
        let broken = answer == Answer::AfterBody && !message.whole;
        if broken {
            // Half a trailer section says nothing.
            message.trailers.clear();
        }
        requests.push(message);
        if broken {
            break End::Broken;
        }
        responder.start(404, b"Not Found", Length::Exact(0));
        responder.end_head(head.connection.persistent);
        if responder.send(b"", true).await.is_err() {
            panic!("the client takes everything");
        }
        if !connection.is_reusable().await {
            break End::Last;
        }
    };
    Seen { requests, end }
}
