//! Large bodies, which the kernel moves from socket to socket where it can: every byte arrives, in its place and in its
//! own body, whoever is slow, dies or comes at the same time.

use std::thread;
use std::time::Duration;

use crate::fake_app::{Connection, FakeApp};
use crate::http_client::{Client, Response};
use crate::patience::dawdle;
use crate::rig::Rig;

/// Some pipes full, and no multiple of anything.
const LARGE: usize = 3 * 1024 * 1024 + 4711;
/// What comes with a fault need only be large enough to be spliced.
const MEDIUM: usize = 400_001;

/// Bytes that are the same for a seed, and nowhere the same for two.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Pieces of a body as a peer with moods sends or takes them, from a few bytes to more than a pipe holds.
fn pieces(seed: u64, length: usize) -> Vec<usize> {
    let mut left = length;
    let mut sizes = noise(seed, length / 16);
    let mut pieces = Vec::new();
    while left > 0 {
        let size = match sizes.pop().unwrap_or(255) {
            small @ ..64 => usize::from(small) + 1,
            medium @ 64..192 => usize::from(medium) * 100,
            large => usize::from(large) * 2000,
        };
        pieces.push(size.min(left));
        left -= size.min(left);
    }
    pieces
}

/// Does something with each piece, with rests in between.
fn in_pieces(seed: u64, bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = bytes;
    for (number, size) in pieces(seed, bytes.len()).into_iter().enumerate() {
        let (piece, behind) = rest.split_at(size);
        each(piece);
        rest = behind;
        if number % 7 == 0 {
            dawdle(Duration::from_millis(1));
        }
    }
}

fn number(target: &str, place: usize) -> usize {
    let part = target.split('/').nth(place).expect("a part of the path");
    part.parse().expect("a number")
}

/// `/echo` answers with what it got. `/give/SEED/LENGTH/SENT` announces a length and sends so much, in pieces.
/// `/take/COUNT` closes after as much of a body.
fn app(connection: &mut Connection) {
    while let Some(mut request) = connection.read_head() {
        let target = request.target().to_owned();
        let length = |length: usize| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
        };
        if target == "/echo" {
            request.complete = connection.read_body(&mut request);
            if request.complete {
                connection.write(&length(request.body.len()));
                connection.write(&request.body);
            }
            request.bytes.clear();
            connection.note(request);
        } else if target.starts_with("/give/") {
            let (seed, sent) = (number(&target, 2), number(&target, 4));
            connection.write(&length(number(&target, 3)));
            let body = noise(seed as u64, sent);
            in_pieces(seed as u64, &body, |piece| connection.write(piece));
            if sent < number(&target, 3) {
                connection.close();
                return;
            }
        } else {
            connection.read_up_to(number(&target, 2));
            connection.close();
            return;
        }
    }
}

fn open(app: &FakeApp) -> Rig {
    Rig::with(&app.url(), "auth = \"none\"\nbody_limit = \"60MiB\"\n", "")
}

/// Reads an answer as somebody does who has other things to do as well.
fn read_slowly(client: &mut Client, seed: u64) -> Vec<u8> {
    let head = client.read_head();
    let length: usize = head
        .header("content-length")
        .expect("a length")
        .parse()
        .expect("a number");
    let mut body = Vec::new();
    for (number, size) in pieces(seed, length).into_iter().enumerate() {
        body.extend(client.read_exact(size));
        if number % 5 == 0 {
            dawdle(Duration::from_millis(1));
        }
    }
    body
}

/// Sends a body in pieces and compares what comes back.
fn is_echoed(client: &mut Client, seed: u64, length: usize) {
    let body = noise(seed, length);
    client.send(
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
    );
    in_pieces(seed, &body, |piece| client.send(piece));
    assert!(read_slowly(client, seed + 1) == body, "body {seed} differs");
}

fn is_given(client: &mut Client, seed: u64, length: usize) {
    client
        .send(format!("GET /give/{seed}/{length}/{length} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    let body = read_slowly(client, seed);
    assert!(body == noise(seed, length), "body {seed} differs");
}

fn slow_peers_lose_nothing(app: &FakeApp) {
    let rig = open(app);
    let mut client = rig.client();
    // On one connection, so that a byte too many or too few would ruin what follows.
    for seed in 0..3 {
        is_echoed(&mut client, seed, LARGE);
        is_given(&mut client, seed + 10, LARGE);
    }
    // A POST takes none that has idled for a second, as it may have while the client was still reading.
    let connections = app.connections();
    assert!((1..=3).contains(&connections), "{connections} for six");
}

#[test]
fn slow_readers_and_writers_lose_nothing() {
    slow_peers_lose_nothing(&FakeApp::start(app));
}

#[test]
fn slow_readers_and_writers_lose_nothing_over_a_unix_socket() {
    slow_peers_lose_nothing(&FakeApp::on_a_unix_socket(app));
}

#[test]
fn bodies_that_move_at_the_same_time_are_not_mixed_up() {
    let app = FakeApp::start(app);
    let rig = open(&app);
    thread::scope(|scope| {
        for lane in 0..16 {
            let mut client = rig.client();
            scope.spawn(move || {
                for turn in 0..3 {
                    let seed = 1000 + lane * 10 + turn;
                    let length = MEDIUM + (seed * 7919 % 100_000) as usize;
                    if (lane + turn) % 2 == 0 {
                        is_echoed(&mut client, seed, length);
                    } else {
                        is_given(&mut client, seed, length);
                    }
                }
            });
        }
    });
}

/// Where a body is cut: anywhere, and at the ends.
fn cuts() -> impl Iterator<Item = usize> {
    let random = noise(77, 8 * 6);
    let random: Vec<_> = random
        .chunks(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
        .map(|bytes| (bytes % MEDIUM as u64) as usize)
        .collect();
    [0, 1, 64 * 1024, 256 * 1024, MEDIUM - 1]
        .into_iter()
        .chain(random)
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_and_leaves_nothing_behind() {
    let app = FakeApp::start(app);
    let rig = open(&app);
    for (seed, cut) in (0..).zip(cuts()) {
        let answer = rig.request("GET", &format!("/give/{seed}/{MEDIUM}/{cut}"), &[], b"");
        if answer.status == 200 {
            assert!(answer.truncated, "cut at {cut}");
            assert!(answer.body == noise(seed, cut), "cut at {cut}");
        } else {
            // Nothing had been sent yet.
            assert_eq!((answer.status, cut), (502, 0));
        }
        is_given(&mut rig.client(), seed + 100, MEDIUM);
    }
}

#[test]
fn a_client_that_leaves_its_answer_leaves_nothing_behind() {
    let app = FakeApp::start(app);
    let rig = open(&app);
    for (seed, cut) in (0..).zip(cuts()) {
        let mut client = rig.client();
        client.send(
            format!("GET /give/{seed}/{LARGE}/{LARGE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        );
        client.read_head();
        assert!(client.read_exact(cut) == noise(seed, cut), "cut at {cut}");
        drop(client);
        is_given(&mut rig.client(), seed + 100, MEDIUM);
    }
}

#[test]
fn an_upload_that_breaks_off_is_never_whole_to_the_app_and_leaves_nothing_behind() {
    let app = FakeApp::start(app);
    let rig = open(&app);
    for (seed, cut) in (0..).zip(cuts()) {
        let mut client = rig.client();
        client.send(
            format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {MEDIUM}\r\n\r\n")
                .as_bytes(),
        );
        client.send(&noise(seed, cut));
        client.finish_sending();
        assert_eq!(client.read_response(false).status, 400, "cut at {cut}");
        is_echoed(&mut rig.client(), seed + 100, MEDIUM);
    }
    // Of the one that is cut at 0 the app may see nothing at all.
    for request in app.requests(2 * cuts().count() - 1) {
        assert_eq!(request.complete, request.body.len() == MEDIUM);
        let start = &request.body[..request.body.len().min(8)];
        let of_somebody = (0..200).find(|&seed| noise(seed, 8).starts_with(start));
        let whole = noise(of_somebody.expect("somebody's body"), MEDIUM);
        assert!(whole.starts_with(&request.body), "a body of two");
    }
}

#[test]
fn an_app_that_leaves_an_upload_leaves_nothing_behind() {
    let app = FakeApp::start(app);
    let rig = open(&app);
    for (seed, cut) in (0..).zip(cuts()) {
        let target = format!("/take/{cut}");
        let answer: Response = rig.request("POST", &target, &[], &noise(seed, LARGE));
        assert_eq!(answer.status, 502, "left at {cut}");
        is_echoed(&mut rig.client(), seed + 100, MEDIUM);
    }
}
