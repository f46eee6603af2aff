//! Our engine over a socket whose peer sends given pieces, one after the other, and takes whatever comes back.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{Dice, Lines, sorted};
use crate::net::Stream;
use crate::wire::{Fields, http1};

/// Longer inputs find nothing that shorter ones do not.
pub(super) const MAX_INPUT: usize = 16 * 1024;
/// Up to this size an input is also sent byte by byte.
const SMALL: usize = 256;
/// Nothing here waits for anything but the other side; this is far too long, so something hangs.
const HANGS: Duration = Duration::from_secs(60);

thread_local! {
    static RUNTIME: Runtime = runtime().expect("a runtime needs nothing but a few descriptors");
}

fn runtime() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    // Without Rust's own `main`, as under a fuzzer, a peer that is gone would be the end of the process.
    runtime.block_on(async { signal(SignalKind::pipe()).map(drop) })?;
    Ok(runtime)
}

/// Runs a future on this thread's runtime.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let bounded = async { tokio::time::timeout(HANGS, future).await };
    let outcome = RUNTIME.with(|runtime| runtime.block_on(bounded));
    outcome.expect("it hangs")
}

/// The ways to send `data` that its readers must not tell apart: at once, cut behind every CR, byte by byte, and cut at
/// random.
pub(super) fn cuttings(data: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuttings = vec![vec![data], data.split_inclusive(|&b| b == b'\r').collect()];
    if data.len() <= SMALL {
        cuttings.push(data.chunks(1).collect());
    }
    let mut dice = Dice::of(data);
    for _ in 0..2 {
        cuttings.push(cut(data, &mut dice));
    }
    cuttings
}

/// `data` in up to eight pieces.
pub(super) fn cut<'d>(data: &'d [u8], dice: &mut Dice) -> Vec<&'d [u8]> {
    let count = dice.below(8);
    let mut at: Vec<_> = (0..count).map(|_| dice.below(data.len() + 1)).collect();
    at.extend([0, data.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &data[ends[0]..ends[1]]).collect()
}

/// Runs `ours` on one end of a connection; gives what it says and what it has sent. It sees the pieces one by one, then
/// the end.
pub(super) async fn fed<T>(pieces: &[&[u8]], ours: impl AsyncFnOnce(Stream) -> T) -> (T, Vec<u8>) {
    let (end, peer) = UnixStream::pair().expect("a pair of sockets");
    let (mut from, mut to) = peer.into_split();
    let sending = async move {
        for piece in pieces {
            // Ours may have seen enough.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(to);
    };
    let mut sent = Vec::new();
    let receiving = from.read_to_end(&mut sent);
    let (outcome, (), _reset) = tokio::join!(ours(Stream::Unix(end)), sending, receiving);
    (outcome, sent)
}

/// Reads a body; what came of it, and whether its end was reached.
pub(super) async fn read_body(reader: &mut http1::Reader<'_>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match reader.ready().await {
            Ok(0) => return (body, true),
            Ok(count) => {
                assert_eq!(reader.chunk().len(), count);
                body.extend_from_slice(reader.chunk());
                reader.consume(count);
            }
            Err(_) => {
                assert!(reader.ready().await.is_err(), "an error is final");
                return (body, false);
            }
        }
    }
}

/// The lines of a head, which must be lines whatever they came from.
pub(super) fn lines(fields: &Fields) -> Lines {
    for field in fields.iter() {
        assert!(super::decoder::is_token(field.name), "{:?}", field.name);
        assert!(super::decoder::is_value(field.value), "{:?}", field.value);
    }
    sorted(fields.iter().map(|field| (field.name, field.value)))
}
