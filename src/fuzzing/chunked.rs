//! Chunked bodies, in and out: read like a second decoder reads them, and what goes out reads back as what came in.

use std::rc::Rc;

use super::engine::{self, MAX_INPUT};
use super::{Dice, Lines, decoder};
use crate::net::Stream;
use crate::wire::http1::{ServerConnection, UpstreamConnection};
use crate::wire::{Framing, HeadLimits, Length};

const LIMITS: HeadLimits = HeadLimits { bytes: 1024 };
const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// The lengths of lines and the number of trailers are limited; what is shorter than this can reach no such limit.
const UNLIMITED: usize = 300;

/// Any bytes where a chunked body should be; the same bytes as a body to be framed.
pub fn chunked(data: &[u8]) {
    if data.len() > MAX_INPUT {
        return;
    }
    let strict = decoder::chunked(data);
    let cuttings = engine::cuttings(data);
    let first = read(&cuttings[0]);
    match (&first, &strict) {
        (Some((body, trailers)), Some(strict)) => {
            assert_eq!((body, trailers), (&strict.body, &strict.trailers));
        }
        (None, Some(_)) => assert!(data.len() > UNLIMITED, "a good body is refused"),
        (Some(_), None) => panic!("a bad body is taken"),
        (None, None) => {}
    }
    for pieces in &cuttings {
        assert_eq!(read(pieces), first, "cut: {pieces:?}");
        let sent = forward(pieces);
        let again = decoder::chunked(&sent).map(|again| {
            assert_eq!(again.length, sent.len());
            (again.body, again.trailers)
        });
        assert_eq!(again, first, "cut: {pieces:?}");
    }

    let mut dice = Dice::of(data);
    let pieces = engine::cut(data, &mut dice);
    for sent in [write_request(&pieces), write_answer(&pieces)] {
        let strict = decoder::chunked(&sent).expect("what we frame is framed");
        assert_eq!((&strict.body[..], strict.length), (data, sent.len()));
        let (body, trailers) = read(&engine::cut(&sent, &mut dice)).expect("ours, too");
        assert_eq!((&body[..], trailers), (data, Vec::new()));
    }
}

/// A connection that has read [`HEAD`].
async fn after_head(stream: Stream) -> ServerConnection {
    let mut connection = ServerConnection::new(stream, Rc::default());
    connection.read_head(LIMITS).await.expect("a good head");
    connection
}

fn behind_head<'d>(pieces: &[&'d [u8]]) -> Vec<&'d [u8]> {
    [&[HEAD], pieces].concat()
}

/// What a client sends us as a body.
fn read(pieces: &[&[u8]]) -> Option<(Vec<u8>, Lines)> {
    let pieces = behind_head(pieces);
    let reading = engine::fed(&pieces, async |stream| {
        let mut connection = after_head(stream).await;
        let (_, mut reader, _) = connection.parts();
        let (body, whole) = engine::read_body(&mut reader).await;
        whole.then(|| (body, engine::lines(reader.trailers())))
    });
    engine::run(reading).0
}

/// What an app gets of it.
fn forward(pieces: &[&[u8]]) -> Vec<u8> {
    engine::run(engine::fed(&behind_head(pieces), async |client| {
        let mut connection = after_head(client).await;
        let (_, mut reader, _) = connection.parts();
        let relaying = engine::fed(&[], async |app| {
            let mut upstream = UpstreamConnection::new(app);
            let (mut writer, _) = upstream.split(Framing::Chunked);
            while let Ok(count) = reader.ready().await {
                if count == 0 {
                    let mut trailers = Vec::new();
                    reader.trailers().copy_lines(&mut trailers, |_| true);
                    writer.finish(&trailers).await.expect("the app takes it");
                    return;
                }
                let chunk = reader.chunk();
                writer.send(chunk, false).await.expect("the app takes it");
                reader.consume(count);
            }
        });
        relaying.await.1
    }))
    .0
}

fn write_request(pieces: &[&[u8]]) -> Vec<u8> {
    let writing = engine::fed(&[], async |app| {
        let mut upstream = UpstreamConnection::new(app);
        let (mut writer, _) = upstream.split(Framing::Chunked);
        let (last, first) = pieces.split_last().expect("there is one at least");
        for piece in first {
            writer.send(piece, false).await.expect("the app takes it");
        }
        writer.send(last, true).await.expect("the app takes it");
    });
    engine::run(writing).1
}

fn write_answer(pieces: &[&[u8]]) -> Vec<u8> {
    let writing = engine::fed(&[HEAD], async |client| {
        let mut connection = after_head(client).await;
        let (_, _, mut responder) = connection.parts();
        responder.start(200, b"OK", Length::Unknown);
        responder.end_head(true);
        for piece in pieces {
            let sent = responder.send(piece, false).await;
            sent.expect("the client takes it");
        }
        let ended = responder.finish(b"").await;
        ended.expect("the client takes it");
    });
    let sent = engine::run(writing).1;
    let head = sent.windows(4).position(|four| four == b"\r\n\r\n");
    sent[head.expect("a head") + 4..].to_vec()
}
