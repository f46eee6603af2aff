//! The engine over real sockets, for what a peer cannot see from outside: that no cut between two reads matters.

use std::future::Future;
use std::rc::Rc;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::body::{Chunk, Remaining};
use super::buffer::Buffer;
use super::*;
use crate::net::Stream;
use crate::wire::fields::Fields;
use crate::wire::{BodyError, Framing, HeadLimits, Length, Method};

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024 };

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn pair() -> (Stream, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
    (Stream::Unix(ours), peer)
}

/// Reads a body to its end.
async fn read_all(reader: &mut Reader<'_>) -> Result<Vec<u8>, BodyError> {
    let mut all = Vec::new();
    loop {
        let count = reader.ready().await?;
        if count == 0 {
            return Ok(all);
        }
        all.extend_from_slice(reader.chunk());
        reader.consume(count);
    }
}

/// Reads one body with this framing from pieces that arrive one after the other; gives what is left over, too.
fn body_of(framing: Framing, pieces: &[&[u8]]) -> (Result<Vec<u8>, BodyError>, Vec<u8>, Remaining) {
    block_on(async {
        let (mut stream, mut peer) = pair();
        let (mut buffer, mut body) = (Buffer::default(), Remaining::from(framing));
        let mut trailers = Fields::default();
        let (read, _) = stream.split();
        let mut reader = Reader {
            stream: read,
            buffer: &mut buffer,
            body: &mut body,
            trailers: &mut trailers,
        };
        let sending = async {
            for piece in pieces {
                peer.write_all(piece).await.expect("the socket takes it");
                // The reader gets to see this piece alone.
                tokio::task::yield_now().await;
            }
            drop(peer);
        };
        let (read, ()) = tokio::join!(read_all(&mut reader), sending);
        (read, buffer.unread().to_vec(), body)
    })
}

#[test]
fn a_head_is_the_same_wherever_it_is_cut() {
    let request = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Long:   some value \r\nContent-Length: 5\r\n\r\nhello";
    for cut in 0..=request.len() {
        block_on(async {
            let (stream, mut peer) = pair();
            let mut connection = ServerConnection::new(stream, Rc::default());
            let sending = async {
                for piece in [&request[..cut], &request[cut..]] {
                    peer.write_all(piece).await.expect("the socket takes it");
                    tokio::task::yield_now().await;
                }
            };
            let (read, ()) = tokio::join!(connection.read_head(LIMITS), sending);
            read.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            let (head, mut body, _) = connection.parts();
            assert_eq!((head.method, head.target()), (Method::Post, &b"/a?b=c"[..]));
            assert_eq!(head.framing, Framing::Length(5));
            let lines: Vec<_> = head
                .fields
                .iter()
                .map(|field| field.value.to_vec())
                .collect();
            assert_eq!(lines, [&b"x"[..], b"some value", b"5"]);
            assert_eq!(read_all(&mut body).await.expect("a whole body"), b"hello");
        });
    }
}

#[test]
fn a_chunked_body_is_the_same_wherever_it_is_cut() {
    let encoded = b"5;name=\"value\"\r\nhello\r\n1\r\n \r\n00a\r\nlong world\r\n0\r\nX-Trailer: a\r\nX-Other: b\r\n\r\nGET";
    for cut in 0..=encoded.len() {
        let (read, rest, body) = body_of(Framing::Chunked, &[&encoded[..cut], &encoded[cut..]]);
        assert_eq!(
            read.expect("a whole body"),
            b"hello long world",
            "cut at {cut}"
        );
        assert_eq!(body, Remaining::Nothing);
        assert!(b"GET".starts_with(&rest), "cut at {cut}: {rest:?}");
    }
    let single: Vec<&[u8]> = encoded.chunks(1).collect();
    let (read, _, _) = body_of(Framing::Chunked, &single);
    assert_eq!(read.expect("a whole body"), b"hello long world");
}

#[test]
fn a_body_that_ends_early_is_truncated_and_stays_so() {
    let encoded = b"5\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n";
    for cut in 0..encoded.len() {
        let (read, _, body) = body_of(Framing::Chunked, &[&encoded[..cut]]);
        assert!(
            matches!(read, Err(BodyError::Truncated)),
            "cut at {cut}: {read:?}"
        );
        assert_eq!(body, Remaining::Broken);
    }
    let (read, _, body) = body_of(Framing::Length(6), &[b"hello"]);
    assert!(matches!(read, Err(BodyError::Truncated)));
    assert_eq!(body, Remaining::Broken);
    let (read, _, _) = body_of(Framing::UntilClose, &[b"he", b"llo"]);
    assert_eq!(read.expect("the close is its end"), b"hello");
}

/// Regression: the refused line had been consumed, and whoever drained the connection took the rest for a good end.
#[test]
fn a_body_that_is_malformed_cannot_be_read_on() {
    block_on(async {
        let (stream, mut peer) = pair();
        let mut connection = ServerConnection::new(stream, Rc::default());
        let request = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\nGET /b";
        peer.write_all(request).await.expect("the socket takes it");
        connection.read_head(LIMITS).await.expect("a head");
        let (head, mut body, mut responder) = connection.parts();
        for _ in 0..2 {
            assert!(matches!(body.ready().await, Err(BodyError::Malformed(_))));
        }
        assert!(!responder.can_outlive(head, &body));
        responder.start(400, b"Bad Request", Length::Exact(0));
        responder.end_head(true);
        responder
            .send(b"", true)
            .await
            .expect("the socket takes it");
        assert!(!connection.is_reusable().await);
    });
}

/// Regression: a stream of events said nothing until its first event.
#[test]
fn an_answer_can_be_taken_back_until_some_of_it_has_left() {
    block_on(async {
        let (stream, mut peer) = pair();
        let mut connection = ServerConnection::new(stream, Rc::default());
        peer.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("the socket takes it");
        connection.read_head(LIMITS).await.expect("a head");
        let (_, _, mut responder) = connection.parts();
        responder.start(200, b"OK", Length::Unknown);
        responder.take_back();
        assert!(!responder.has_started());
        responder.start(502, b"Bad Gateway", Length::Unknown);
        responder.end_head(true);
        responder.flush().await.expect("the socket takes it");
        responder.take_back();
        assert_eq!(responder.status(), Some(502));
        responder
            .send(b"hi", true)
            .await
            .expect("the socket takes it");
        drop(connection);
        let mut seen = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut seen)
            .await
            .expect("a read");
        let expected =
            "HTTP/1.1 502 Bad Gateway\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(seen).expect("text"), expected);
    });
}

/// Writes pieces with this framing, and gives what went over the socket.
fn written(framing: Framing, pieces: &[Vec<u8>]) -> Vec<u8> {
    block_on(async {
        let (mut stream, mut peer) = pair();
        let mut pending = Vec::new();
        let writing = async {
            let (_, write) = stream.split();
            let mut writer = Writer {
                stream: write,
                pending: &mut pending,
                framing,
            };
            for piece in pieces {
                writer
                    .send(piece, false)
                    .await
                    .expect("the socket takes it");
            }
            writer.finish(b"").await.expect("the socket takes it");
            drop(stream);
        };
        let mut seen = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut seen);
        let ((), read) = tokio::join!(writing, reading);
        read.expect("a read");
        seen
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_writer_frames_the_reader_unframes(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        chunked in any::<bool>(),
    ) {
        let whole = pieces.concat();
        let framing = if chunked { Framing::Chunked } else { Framing::Length(whole.len() as u64) };
        let sent = written(framing, &pieces);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
        at.extend([0, sent.len()]);
        at.sort_unstable();
        let arriving: Vec<&[u8]> = at.windows(2).map(|ends| &sent[ends[0]..ends[1]]).collect();
        // A body of length 0 has the framing of none.
        let framing = if framing == Framing::Length(0) { Framing::Empty } else { framing };
        let (read, rest, body) = body_of(framing, &arriving);
        prop_assert_eq!(read.expect("a whole body"), whole);
        prop_assert!(rest.is_empty());
        prop_assert_eq!(body, Remaining::Nothing);
    }

    #[test]
    fn no_bytes_make_the_chunk_reader_panic_or_invent_data(bytes in proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'5'), Just(b';')], 0..200)) {
        let (read, _, _) = body_of(Framing::Chunked, &[&bytes]);
        if let Ok(data) = read {
            prop_assert!(data.len() < bytes.len());
        }
    }
}

#[cfg(target_os = "linux")]
mod spliced {
    use super::*;
    use crate::wire::http1::splice::WORTHWHILE;

    /// Offers to splice a body that is framed as `read` on one side and as `written` on the other, with so many bytes of
    /// it read already; gives what arrived and how the body stands.
    fn offered(read: Remaining, written: Framing, early: &[u8]) -> (Option<Vec<u8>>, Remaining) {
        block_on(async {
            let ((mut from, mut app), (mut into, mut client)) = (pair(), pair());
            let (mut buffer, mut body) = (Buffer::default(), read);
            let (mut trailers, mut pending) = (Fields::default(), Vec::new());
            let (stream, _) = from.split();
            let mut reader = Reader {
                stream,
                buffer: &mut buffer,
                body: &mut body,
                trailers: &mut trailers,
            };
            if !early.is_empty() {
                app.write_all(early).await.expect("the socket takes it");
                reader.ready().await.expect("body bytes");
            }
            let (_, stream) = into.split();
            let mut writer = Writer {
                stream,
                pending: &mut pending,
                framing: written,
            };
            let Some(mut splice) = writer.splice(&mut reader) else {
                return (None, body);
            };
            // Some bytes too many: they belong to whatever comes next.
            let sent: Vec<u8> = (0..WORTHWHILE + 5).map(|n| (n % 251) as u8).collect();
            let sending = async {
                app.write_all(&sent).await.expect("the socket takes it");
            };
            let receiving = async {
                let mut received = vec![0; usize::try_from(WORTHWHILE).expect("a length")];
                tokio::io::AsyncReadExt::read_exact(&mut client, &mut received)
                    .await
                    .expect("all of it");
                received
            };
            let moving = async {
                while !splice.is_done() {
                    let taken = splice.take().await.expect("bytes");
                    assert!(taken.is_some(), "Linux splices");
                    while !splice.is_clear() {
                        splice.send().await.expect("the socket takes it");
                    }
                }
            };
            let ((), received, ()) = tokio::join!(sending, receiving, moving);
            drop(splice);
            assert_eq!(writer.framing, Framing::Empty);
            assert!(received[..] == sent[..received.len()]);
            let mut next = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut reader.stream, &mut next)
                .await
                .expect("the rest");
            assert!(next[..] == sent[received.len()..]);
            (Some(received), body)
        })
    }

    #[test]
    fn a_large_body_of_known_length_moves_without_us_and_to_its_end_only() {
        let (left, owed) = (Remaining::Bytes(WORTHWHILE), Framing::Length(WORTHWHILE));
        let (received, body) = offered(left, owed, b"");
        assert!(received.is_some());
        assert_eq!(body, Remaining::Nothing);
    }

    #[test]
    fn what_has_framing_within_it_or_was_read_already_is_copied() {
        let (left, owed) = (Remaining::Bytes(WORTHWHILE), Framing::Length(WORTHWHILE));
        let small = WORTHWHILE - 1;
        for (read, written, early) in [
            (Remaining::Bytes(small), Framing::Length(small), &b""[..]),
            (Remaining::Chunks(Chunk::Size), owed, b""),
            (Remaining::Chunks(Chunk::Data(WORTHWHILE)), owed, b""),
            (Remaining::UntilClose, Framing::Chunked, b""),
            (left, Framing::Chunked, b""),
            (left, Framing::Empty, b""),
            (left, Framing::Length(small), b""),
            (left, owed, b"early"),
        ] {
            let (received, body) = offered(read, written, early);
            assert!(received.is_none(), "{read:?} to {written:?}");
            assert_eq!(body, read);
        }
    }

    #[test]
    fn a_body_that_breaks_off_on_its_way_is_truncated_and_stays_so() {
        block_on(async {
            let ((mut from, mut app), (mut into, _client)) = (pair(), pair());
            let (mut buffer, mut body) = (Buffer::default(), Remaining::Bytes(WORTHWHILE));
            let (mut trailers, mut pending) = (Fields::default(), Vec::new());
            let mut reader = Reader {
                stream: from.split().0,
                buffer: &mut buffer,
                body: &mut body,
                trailers: &mut trailers,
            };
            let mut writer = Writer {
                stream: into.split().1,
                pending: &mut pending,
                framing: Framing::Length(WORTHWHILE),
            };
            app.write_all(b"hello").await.expect("the socket takes it");
            drop(app);
            let mut splice = writer.splice(&mut reader).expect("a pipe");
            assert!(splice.take().await.expect("bytes").is_some());
            splice.send().await.expect("the socket takes it");
            assert!(splice.is_clear() && !splice.is_done());
            assert!(matches!(splice.take().await, Err(BodyError::Truncated)));
            drop(splice);
            assert_eq!(body, Remaining::Broken);
        });
    }
}

#[cfg(target_os = "linux")]
mod sent_by_the_kernel {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn file(length: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&bytes, 0).expect("room for it");
        (file, bytes)
    }

    #[test]
    fn a_file_goes_out_behind_its_head_from_where_and_as_far_as_is_wanted() {
        block_on(async {
            let (file, bytes) = file(3_000_000);
            let (mut into, mut client) = pair();
            let mut pending = b"head\r\n\r\n".to_vec();
            let mut writer = Writer {
                stream: into.split().1,
                pending: &mut pending,
                framing: Framing::Length(2_000_000),
            };
            let sending = async {
                let mut at = 500_000;
                while writer.framing != Framing::Empty {
                    assert!(writer.takes_files());
                    let sent = writer.send_file(&file, at, usize::MAX).await;
                    at += sent.expect("the socket takes it").expect("Linux does") as u64;
                }
                assert!(writer.pending().is_empty());
                at
            };
            let receiving = async {
                let mut received = vec![0; 2_000_008];
                let read = client.read_exact(&mut received).await;
                read.map(|_| received).expect("all of it")
            };
            let (at, received) = tokio::join!(sending, receiving);
            assert_eq!(at, 2_500_000);
            assert_eq!(&received[..8], b"head\r\n\r\n");
            assert!(received[8..] == bytes[500_000..2_500_000]);
        });
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_no_end() {
        block_on(async {
            let (file, _) = file(10);
            let (mut into, _client) = pair();
            let mut pending = Vec::new();
            let mut writer = Writer {
                stream: into.split().1,
                pending: &mut pending,
                framing: Framing::Length(11),
            };
            assert_eq!(
                writer.send_file(&file, 0, 11).await.expect("bytes"),
                Some(10)
            );
            assert_eq!(
                writer.send_file(&file, 10, 1).await.expect("the end"),
                Some(0)
            );
            assert_eq!(writer.framing, Framing::Length(1));
        });
    }

    #[test]
    fn what_has_framing_within_it_or_no_body_takes_no_files() {
        for framing in [Framing::Chunked, Framing::UntilClose, Framing::Empty] {
            block_on(async {
                let (file, _) = file(10);
                let (mut into, _client) = pair();
                let mut pending = b"head".to_vec();
                let mut writer = Writer {
                    stream: into.split().1,
                    pending: &mut pending,
                    framing,
                };
                assert!(!writer.takes_files());
                assert_eq!(writer.send_file(&file, 0, 10).await.expect("no call"), None);
                assert_eq!(pending, b"head");
            });
        }
    }
}
