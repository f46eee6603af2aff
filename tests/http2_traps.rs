//! The catalogue of tricks in HTTP/2: heads that break the rules, floods of frames, and good traffic beside them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fake_app::{FakeApp, OK, Signal};
use crate::http2_client::*;
use crate::limits::{DONE, Limited, serves_the_good};
use crate::rig::Rig;
use crate::traps::{Door, Stage};

/// Heads and trailers that ought to be refused and are not, each with the reason why it may be so. One that is refused
/// after all fails its test, so that this list is true.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        ":path",
        "/public/a#b",
        "the library cuts fragments off before we see them; what is left is decided on and forwarded",
    ),
    (
        "trailer :path",
        "/private/b",
        "the library drops pseudo-fields from trailers instead of refusing them; nobody gets to see them",
    ),
];

/// What the app was sent, whole, less what the tests ask to see that all is well.
fn whole(stage: &Stage) -> Vec<crate::traps::witness::Request> {
    let seen = stage.witness.settled();
    let wrong: Vec<_> = seen.iter().filter_map(|seen| seen.wrong.as_ref()).collect();
    assert!(wrong.is_empty(), "the app got {wrong:?}");
    let all = seen.into_iter().flat_map(|seen| seen.requests);
    all.filter(|request| request.target != "/public/after")
        .collect()
}

/// Whether a stream was refused: by a status, or as what breaks the protocol.
fn is_refused(end: &End) -> bool {
    matches!(
        end,
        End::Answer(400 | 405 | 501) | End::Reset(PROTOCOL_ERROR) | End::Gone(PROTOCOL_ERROR)
    )
}

/// A new connection is served: nothing has been broken for others.
fn is_well(stage: &Stage) {
    let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
    client.get(1, "/public/after", &[]);
    assert_eq!(client.end_of(1), End::Answer(200));
    assert_eq!(client.text(1), "GET /public/after");
}

/// Checks that a head is refused, and that not a byte of it reached the app.
fn refuses(stage: &Stage, wrong: &mut Vec<String>, fields: &[(&str, &str)]) {
    stage.witness.forget();
    let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
    client.head(1, fields, true);
    let end = client.end_of(1);
    is_well(stage);
    let got = whole(stage).len();
    let refused = is_refused(&end) && got == 0;
    let known = KNOWN
        .iter()
        .any(|(name, value, _)| fields.contains(&(*name, *value)));
    if refused == known {
        wrong.push(format!("{fields:?}: {end:?}, {got} for the app"));
    }
}

/// H18, trap 8.
#[test]
fn a_head_that_breaks_the_rules_is_refused() {
    let stage = Stage::new(Door::Plain);
    let mut wrong = Vec::new();
    let mut refuses = |fields: &[(&str, &str)]| refuses(&stage, &mut wrong, fields);
    for path in [
        "",
        "*",
        "public/a",
        "http://x/public/a",
        "/public/a b",
        "/public/a\r\nX-WX-OPENID: admin",
        "/public/a HTTP/1.1\r\nX: y",
        "/public/a\0",
        "/public/a\t",
        "/public/\u{e4}",
        "/public/a#b",
        "/public\\a",
        "/public/a;b",
        "/public/%2e%2e%2f",
        "/public/%252e",
        "/public/%00",
        "/../public/a",
    ] {
        refuses(&request("GET", path, &[]));
    }
    for method in [
        "",
        "get",
        "GE T",
        "GET /public/a HTTP/1.1\r\nX:",
        "G\0T",
        "GET\r\n",
        "TRACE",
        "G\u{e4}T",
    ] {
        refuses(&request(method, "/public/a", &[]));
    }
    for field in [
        ("X-Upper", "b"),
        ("x y", "b"),
        ("x\r\nx-wx-openid", "b"),
        ("x\0", "b"),
        ("x:y", "b"),
        ("", "b"),
        ("x\u{e4}", "b"),
        ("x-wx-openid ", "b"),
        ("x", "b\r\nx-wx-openid: admin"),
        ("x", "b\nc"),
        ("x", "b\rc"),
        ("x", "b\0c"),
        ("connection", "close"),
        ("connection", "x-wx-openid"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        (":path", "/public/b"),
        (":unknown", "b"),
        (":status", "200"),
        ("host", "y"),
        ("content-length", "5"),
        ("content-length", "+0"),
        ("content-length", "0, 0"),
        ("content-length", ""),
        ("content-length", "-1"),
        ("expect", "200-ok"),
    ] {
        refuses(&request("GET", "/public/a", &[field]));
    }
    refuses(&request(
        "GET",
        "/public/a",
        &[("content-length", "0"), ("content-length", "5")],
    ));
    refuses(&request(
        "GET",
        "/public/a",
        &[("host", "x"), ("host", "y")],
    ));
    let good = request("GET", "/public/a", &[]);
    for missing in [0, 1, 3] {
        let mut fields = good.clone();
        fields.remove(missing);
        refuses(&fields);
    }
    for twice in 0..4 {
        refuses(&[&good[..], &good[twice..=twice]].concat());
    }
    // Pseudo-fields behind others.
    refuses(&[&[("x-a", "b")], &good[..]].concat());
    for authority in [
        "", "a@x", "x/y", "x y", "x:0", "x:99999", "x#y", "x,y", "x?y",
    ] {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", authority),
            (":path", "/public/a"),
        ];
        refuses(&fields);
    }
    refuses(&[(":method", "CONNECT"), (":authority", "evil:80")]);
    refuses(&request(
        "CONNECT",
        "/public/a",
        &[(":protocol", "websocket")],
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_host_beside_the_authority_must_be_the_same() {
    let stage = Stage::new(Door::Plain);
    let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
    client.get(1, "/public/a", &[("host", "x")]);
    assert_eq!(client.end_of(1), End::Answer(200));
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/public/b"),
        ("host", "y"),
    ];
    client.head(3, &fields, true);
    assert_eq!(client.end_of(3), End::Answer(200));
    let got = whole(&stage);
    let hosts: Vec<_> = got
        .iter()
        .map(|request| request.all("x-forwarded-host"))
        .collect();
    assert_eq!(hosts, [[b"x"], [b"y"]]);
}

/// H18: what the DATA frames are is what the length says.
#[test]
fn a_length_that_the_data_contradicts_never_comes_whole_to_the_app() {
    let stage = Stage::new(Door::Plain);
    for (length, pieces) in [
        ("5", &[&b"hell"[..]][..]),
        ("5", &[b"hello!"]),
        ("5", &[b"hello", b"!"]),
        ("5", &[b"", b"hell", b""]),
        ("0", &[b"hello"]),
    ] {
        stage.witness.forget();
        let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
        client.head(
            1,
            &request("POST", "/public/a", &[("content-length", length)]),
            false,
        );
        for (number, piece) in pieces.iter().enumerate() {
            client.data(1, piece, number + 1 == pieces.len());
        }
        let end = client.end_of(1);
        let refused = is_refused(&end) || matches!(end, End::Reset(_));
        // What came beyond the length may be refused when the answer has been given already.
        let whole_first = length == "5" && pieces[0].len() == 5 || length == "0";
        assert!(refused || whole_first, "{length} {pieces:?}: {end:?}");
        is_well(&stage);
        for request in whole(&stage) {
            assert!(whole_first, "{length} {pieces:?}");
            assert!(
                request
                    .bytes
                    .ends_with(&pieces[0][..length.parse().unwrap()])
            );
        }
    }
}

/// Rows I1 to I6 and P1 to P7, in HTTP/2: the same lines reach the same judgement.
#[test]
fn identity_and_paths_are_judged_as_in_http_1() {
    let stage = Stage::new(Door::Plain);
    let bearer = stage.alice.bearer();
    let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
    let names = [
        "x-wx-openid",
        "x_wx_openid",
        "x.wx.openid",
        "x--wx-openid",
        "x-wx-openid-",
        "_x-wx-appid",
        "x-wx-anything",
        "x_wx-source",
        "x|wx|env",
        "x-forwarded-for",
        "x_forwarded_for",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-http-method-override",
        "x-request-id",
        "traceparent",
    ];
    let forged: Vec<_> = names.iter().map(|name| (*name, "admin")).collect();
    let signed = [
        &forged[..],
        &[("authorization", bearer.as_str())],
        &forged[..],
    ]
    .concat();
    for (stream, path, fields, status, whose) in [
        (1, "/public/a", &forged, 200, Some(false)),
        (3, "/public/a", &signed, 200, Some(false)),
        (5, "/private/a", &forged, 401, None),
        (7, "/private/a", &signed, 200, Some(true)),
        (9, "/either/a", &forged, 200, Some(false)),
        (11, "/either/a", &signed, 200, Some(true)),
        (13, "/public/../private/a", &forged, 401, None),
        (15, "/public/%2e%2e/private/a", &forged, 401, None),
        (17, "//private/a", &forged, 401, None),
        (19, "/private/../public/a", &forged, 200, Some(false)),
        (21, "/private/a?/public/a", &forged, 401, None),
        (23, "/PUBLIC/a", &forged, 401, None),
        (25, "/wx/nothing", &forged, 404, None),
    ] {
        stage.witness.forget();
        client.get(stream, path, fields);
        assert_eq!(
            client.end_of(stream),
            End::Answer(status),
            "{path}: {}",
            client.text(stream)
        );
        let got = whole(&stage);
        assert_eq!(got.len(), usize::from(whose.is_some()), "{path}");
        for request in got {
            let text = String::from_utf8_lossy(&request.bytes).into_owned();
            assert!(!text.contains("admin"), "{text}");
            stage
                .is_honest(&request, whose == Some(true))
                .expect("an honest request");
        }
    }
}

/// I6, trap 7.
#[test]
fn trailers_are_no_headers_and_never_ours() {
    let stage = Stage::new(Door::Plain);
    let bearer = stage.alice.bearer();
    let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
    let fields = [("authorization", bearer.as_str()), ("te", "trailers")];
    client.head(1, &request("POST", "/private/a", &fields), false);
    client.data(1, b"hello", false);
    let trailers = [
        ("x-checksum", "good"),
        ("x-wx-openid", "admin"),
        ("x_wx_openid", "admin"),
        ("host", "admin"),
        ("content-length", "666"),
        ("authorization", "admin"),
        ("x-forwarded-for", "admin"),
    ];
    client.head(1, &trailers, true);
    assert_eq!(client.end_of(1), End::Answer(200), "{}", client.text(1));
    let got = whole(&stage);
    let text = String::from_utf8_lossy(&got[0].bytes).into_owned();
    assert!(!text.contains("admin") && !text.contains(": 666"), "{text}");
    assert!(text.contains("\r\nx-checksum: good\r\n"), "{text}");
    stage.is_honest(&got[0], true).expect("an honest request");
    for trailer in [
        (":path", "/private/b"),
        ("connection", "close"),
        ("X-Upper", "b"),
        ("transfer-encoding", "chunked"),
    ] {
        stage.witness.forget();
        let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
        client.head(1, &request("POST", "/public/a", &[]), false);
        client.data(1, b"hello", false);
        client.head(1, &[trailer], true);
        let end = client.end_of(1);
        is_well(&stage);
        let got = whole(&stage);
        let known = KNOWN.iter().any(|(name, value, _)| {
            name.strip_prefix("trailer ") == Some(trailer.0) && *value == trailer.1
        });
        let refused = is_refused(&end) && got.is_empty();
        assert_ne!(refused, known, "{trailer:?}: {end:?}, {got:?}");
        for request in got {
            let text = String::from_utf8_lossy(&request.bytes).into_owned();
            assert!(
                request.target == "/public/a" && !text.contains(trailer.1),
                "{text}"
            );
        }
    }
}

/// Trap 31: `tests/traps/requests/T31-body-limit.http` has the same in HTTP/1.1.
#[test]
fn the_limit_of_bodies_is_that_of_http_1() {
    let stage = Stage::new(Door::Plain);
    for (length, pieces, status) in [
        (Some("8"), &["12345678"][..], 200),
        (Some("9"), &["123456789"], 413),
        (Some("999999999999999999"), &["1"], 413),
        (None, &["1234", "5678"], 200),
        (None, &["1234", "56789"], 413),
        (None, &["123456789"], 413),
    ] {
        stage.witness.forget();
        let mut client = Http2Client::connect(stage.sidecar.inbound_addr());
        let fields: Vec<_> = length
            .map(|length| ("content-length", length))
            .into_iter()
            .collect();
        client.head(1, &request("POST", "/small/a", &fields), false);
        for (number, piece) in pieces.iter().enumerate() {
            // The last one stays open where the limit is passed: the answer must not wait for an end.
            client.data(
                1,
                piece.as_bytes(),
                number + 1 == pieces.len() && status == 200,
            );
        }
        assert_eq!(
            client.end_of(1),
            End::Answer(status),
            "{length:?} {pieces:?}"
        );
        is_well(&stage);
        let got = whole(&stage);
        assert_eq!(
            got.len(),
            usize::from(status == 200),
            "{length:?} {pieces:?}"
        );
    }
}

/// R3. A head of a few kilobytes that would be many megabytes once its references are followed.
#[test]
fn a_bomb_of_references_is_refused_and_costs_no_memory() {
    let app = FakeApp::answering(DONE);
    let limited = Limited::new(&app, "");
    let before = limited.memory();
    for _ in 0..20 {
        let mut client = Http2Client::connect(limited.run.inbound);
        let mut head = block(&request("GET", "/bomb", &[]));
        // One field for the table, then references to it: index 62.
        head.push(0x40);
        text(&mut head, b"x-a");
        text(&mut head, &[b'b'; 3000]);
        head.resize(16_000, 0x80 | 62);
        client.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
        let end = client.end_of(1);
        let refused = matches!(
            end,
            End::Answer(431) | End::Reset(_) | End::Gone(_) | End::Closed
        );
        assert!(refused, "{end:?}");
    }
    for name_length in [100, 10_000] {
        let mut client = Http2Client::connect(limited.run.inbound);
        let value = "b".repeat(name_length);
        let fields: Vec<_> = (0..200_000 / name_length)
            .map(|_| ("x-a", value.as_str()))
            .collect();
        let head = block(&request("GET", "/bomb", &fields));
        let mut pieces = head.chunks(16_000).peekable();
        client.send_frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            client.send_frame(CONTINUATION, flags, 1, piece);
        }
        let end = client.end_of(1);
        let refused = matches!(
            end,
            End::Answer(431) | End::Reset(_) | End::Gone(_) | End::Closed
        );
        assert!(refused, "{end:?}");
    }
    let grown = limited.memory().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more than before");
    assert!(app.targets().iter().all(|target| target == "/good"));
    limited.is_as_it_was();
}

/// Sends what `next` makes, and reads what comes back, until the server has had enough; the reason it gives. `Err` if it
/// never had enough. What it says last may be lost, as whoever closes on unread bytes resets.
fn flood(
    addr: SocketAddr,
    begin: impl Fn(&mut Http2Client),
    next: impl Fn(u32) -> Vec<u8> + Sync,
) -> Result<Option<u32>, ()> {
    const BATCH: u32 = 100;
    let mut client = Http2Client::connect(addr);
    begin(&mut client);
    let mut socket = client.socket();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // Far more than the sockets on the way can hold.
            for batch in 0..60_000 {
                let frames: Vec<u8> = (0..BATCH).flat_map(|n| next(batch * BATCH + n)).collect();
                if over.load(Ordering::SeqCst) || socket.write_all(&frames).is_err() {
                    return Ok(());
                }
            }
            // Nobody stopped us: the other side must not wait for more.
            let _gone = socket.shutdown(Shutdown::Write);
            Err(())
        });
        while client.going_away.is_none() && client.next().is_some() {}
        over.store(true, Ordering::SeqCst);
        let _gone = client.socket().shutdown(Shutdown::Both);
        sender.join().expect("it only sends")
    })?;
    Ok(client.going_away.map(|(reason, _)| reason))
}

fn stream_of(number: u32) -> u32 {
    2 * number + 1
}

/// R4, trap 30. Each flood ends with the connection being told to calm down, good clients are served beside it, and
/// nothing stays.
#[test]
fn floods_of_frames_end_with_the_connection_and_trouble_nobody_else() {
    let app = FakeApp::answering(DONE);
    let limited = Limited::new(&app, "");
    let addr = limited.run.inbound;
    let before = limited.memory();
    let get = |stream| {
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &block(&request("GET", "/good", &[])),
        )
    };
    let post = |stream| {
        frame(
            HEADERS,
            END_HEADERS,
            stream,
            &block(&request("POST", "/good", &[])),
        )
    };
    type Begin = Box<dyn Fn(&mut Http2Client)>;
    type Next = Box<dyn Fn(u32) -> Vec<u8> + Sync>;
    let nothing = || Box::new(|_: &mut Http2Client| {}) as Begin;
    let open = move || Box::new(move |client: &mut Http2Client| client.send(&post(1))) as Begin;
    let floods: Vec<(&str, Begin, Next, &[u32])> = vec![
        (
            "rapid reset (CVE-2023-44487)",
            nothing(),
            Box::new(move |n| {
                let reset = frame(RST_STREAM, 0, stream_of(n), &CANCEL.to_be_bytes());
                [get(stream_of(n)), reset].concat()
            }),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "streams that are made to be reset by an increment of 0 (CVE-2025-8671)",
            nothing(),
            Box::new(move |n| {
                let update = frame(WINDOW_UPDATE, 0, stream_of(n), &[0; 4]);
                [post(stream_of(n)), update].concat()
            }),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        (
            "streams that are made to be reset by a window beyond 2^31 (CVE-2025-8671)",
            nothing(),
            Box::new(move |n| {
                let update = frame(
                    WINDOW_UPDATE,
                    0,
                    stream_of(n),
                    &0x7fff_ffff_u32.to_be_bytes(),
                );
                [post(stream_of(n)), update].concat()
            }),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "streams that are made to be reset by data behind their end (CVE-2025-8671)",
            nothing(),
            Box::new(move |n| [get(stream_of(n)), frame(DATA, 0, stream_of(n), b"x")].concat()),
            // RFC 9113 §5.1 lets it be an error of the connection.
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, 5],
        ),
        (
            "heads that are malformed",
            nothing(),
            Box::new(|n| {
                let head = block(&request("GET", "/good", &[("connection", "close")]));
                frame(HEADERS, END_HEADERS | END_STREAM, stream_of(n), &head)
            }),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "SETTINGS (CVE-2019-9515)",
            nothing(),
            Box::new(|n| {
                frame(
                    SETTINGS,
                    0,
                    0,
                    &setting(INITIAL_WINDOW_SIZE, 65_535 + n % 2),
                )
            }),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "empty SETTINGS",
            nothing(),
            Box::new(|_| frame(SETTINGS, 0, 0, &[])),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "PING (CVE-2019-9512)",
            nothing(),
            Box::new(|n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "PRIORITY (CVE-2019-9513)",
            nothing(),
            Box::new(|n| frame(PRIORITY, 0, stream_of(n % 100), &[0, 0, 0, 0, 7])),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "empty DATA (CVE-2019-9518)",
            open(),
            Box::new(|_| frame(DATA, 0, 1, &[])),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "DATA that is all padding",
            open(),
            Box::new(|_| frame(DATA, 8, 1, &[&[200][..], &[0; 200]].concat())),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "WINDOW_UPDATE of the connection",
            nothing(),
            Box::new(|n| {
                // So little that the window never overflows within the test.
                frame(WINDOW_UPDATE, 0, 0, &(1 + n % 2).to_be_bytes())
            }),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "frames that nobody knows",
            nothing(),
            Box::new(|_| frame(0xbb, 0, 0, &[0; 32])),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "CONTINUATION (CVE-2024-27316)",
            Box::new(|client| {
                client.send_frame(
                    HEADERS,
                    END_STREAM,
                    1,
                    &block(&request("GET", "/good", &[])),
                );
            }),
            Box::new(|_| {
                frame(
                    CONTINUATION,
                    0,
                    1,
                    &block(&[("x-a", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")]),
                )
            }),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        (
            "empty CONTINUATION",
            Box::new(|client| {
                client.send_frame(
                    HEADERS,
                    END_STREAM,
                    1,
                    &block(&request("GET", "/good", &[])),
                );
            }),
            Box::new(|_| frame(CONTINUATION, 0, 1, &[])),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
    ];
    for (name, begin, next, reasons) in floods {
        thread::scope(|scope| {
            let good = scope.spawn(move || serves_the_good(addr, 20));
            let reason = flood(addr, begin, next);
            let told = reason.is_ok_and(|told| told.is_none_or(|reason| reasons.contains(&reason)));
            assert!(told, "{name}: {reason:?}");
            good.join().expect("every good client got its answers");
        });
    }
    let grown = limited.memory().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    limited.is_as_it_was();
}

/// R4: a client that asks for much and takes nothing.
#[test]
fn streams_whose_window_is_0_end_and_hold_little() {
    const SIZE: usize = 4 * 1024 * 1024;
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            if request.target() == "/good" {
                connection.write(DONE);
                continue;
            }
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n");
            connection.write(head.as_bytes());
            connection.write(&vec![b'a'; SIZE]);
        }
    });
    // Long enough for the good ones, if somebody is held up for a while.
    let limited = Limited::new(&app, "idle_timeout = \"12s\"");
    let before = limited.memory();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut client =
            Http2Client::with_settings(limited.run.inbound, &[(INITIAL_WINDOW_SIZE, 0)]);
        for stream in 0..50 {
            client.get(stream_of(stream), "/large", &[]);
        }
        stalled.push(client);
    }
    serves_the_good(limited.run.inbound, 100);
    let each = limited.memory().saturating_sub(before) / 200;
    assert!(each < 256, "{each} KiB for each stream");
    for client in &mut stalled {
        for stream in 0..50 {
            let end = client.end_of(stream_of(stream));
            assert!(!matches!(end, End::Answer(_)), "{end:?}");
        }
    }
    drop(stalled);
    limited.is_as_it_was();
}

/// An app that says who it was told is asking, after what was asked for.
fn who_asks() -> FakeApp {
    FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            let said = format!("{} {:?}", request.target(), request.header("x-wx-openid"));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said.len());
            connection.write((head + &said).as_bytes());
        }
    })
}

/// I12 in HTTP/2.
#[test]
fn streams_of_many_users_on_one_connection_are_never_mixed_up() {
    let app = who_asks();
    let rig = Rig::new(&app.url());
    let users: Vec<_> = (0..50)
        .map(|user| rig.login(&format!("user {user}")))
        .collect();
    let addr = &rig.sidecar().inbound_addr();
    thread::scope(|scope| {
        for connection in 0..4_usize {
            let users = &users;
            scope.spawn(move || {
                let mut client = Http2Client::connect(addr);
                for round in 0..10_u32 {
                    let streams: Vec<_> = (0..50_u32).map(|n| stream_of(round * 50 + n)).collect();
                    let user =
                        |stream: u32| &users[(stream as usize * 7 + connection) % users.len()];
                    for &stream in &streams {
                        let bearer = user(stream).bearer();
                        client.get(stream, &format!("/{stream}"), &[("authorization", &bearer)]);
                    }
                    for &stream in streams.iter().rev() {
                        assert_eq!(client.end_of(stream), End::Answer(200));
                        let expected = format!("/{stream} {:?}", Some(&user(stream).openid));
                        assert_eq!(client.text(stream), expected);
                    }
                }
            });
        }
    });
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    for (method, says, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            304,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        let app = FakeApp::answering(says);
        let rig = Rig::with(&app.url(), "auth = \"none\"", "");
        let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
        for stream in [1, 3] {
            client.head(stream, &request(method, "/a", &[]), true);
            assert_eq!(
                client.end_of(stream),
                End::Answer(status),
                "{method} {says}"
            );
            assert_eq!(client.stream(stream).body, b"", "{method} {says}");
        }
    }
}

#[test]
fn trailers_and_early_hints_of_an_answer_arrive() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
        Trailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
    let app = FakeApp::answering(answer);
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
    client.get(1, "/a", &[("te", "trailers")]);
    assert_eq!(client.end_of(1), End::Answer(200));
    let stream = client.stream(1);
    assert_eq!(
        (stream.interim, stream.body),
        (vec![103], b"hello".to_vec())
    );
    assert!(stream.has_trailers);
}

#[test]
fn an_answer_that_breaks_off_is_reset() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let go_on = Signal::default();
        let goes_on = go_on.clone();
        let app = FakeApp::start(move |connection| {
            connection.read_request();
            connection.write(answer.as_bytes());
            goes_on.wait();
        });
        let rig = Rig::with(&app.url(), "auth = \"none\"", "");
        let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
        client.get(1, "/a", &[]);
        if !answer.contains("zz") {
            while client.stream(1).body.len() < 5 {
                assert!(client.next().is_some());
            }
        }
        go_on.give();
        let end = client.end_of(1);
        let broken = matches!(end, End::Reset(reason) if reason != NO_ERROR);
        assert!(broken || end == End::Answer(502), "{answer:?}: {end:?}");
    }
}

#[test]
fn a_client_that_expects_100_gets_it_and_each_event_comes_at_once() {
    let first = Signal::default();
    let go_on = first.clone();
    let app = FakeApp::start(move |connection| {
        let Some(mut request) = connection.read_head() else {
            return;
        };
        if request.header("expect").is_some() {
            connection.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        request.complete = connection.read_body(&mut request);
        connection.note(request);
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.write(b"b\r\ndata: one\n\n\r\n");
        go_on.wait();
        connection.write(b"b\r\ndata: two\n\n\r\n0\r\n\r\n");
    });
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
    let fields = [("expect", "100-continue"), ("content-length", "5")];
    client.head(1, &request("POST", "/a", &fields), false);
    while client.stream(1).interim != [100] {
        assert!(client.next().is_some());
    }
    client.data(1, b"hello", true);
    while client.stream(1).body.len() < 11 {
        assert!(client.next().is_some());
    }
    assert_eq!(client.text(1), "data: one\n\n");
    first.give();
    assert_eq!(client.end_of(1), End::Answer(200));
    assert_eq!(client.text(1), "data: one\n\ndata: two\n\n");
    assert_eq!(app.only_request().body, b"hello");
}

/// RFC 9113 §8.1: whoever has answered may say that it wants no more of the request.
#[test]
fn an_early_answer_comes_whole_though_the_body_has_not() {
    let app = FakeApp::start(|connection| {
        connection.read_head();
        connection
            .write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        connection.read_to_close();
    });
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
    client.head(
        1,
        &request("POST", "/a", &[("content-length", "1000000")]),
        false,
    );
    client.data(1, &[b'a'; 1000], false);
    assert_eq!(client.end_of(1), End::Answer(403));
    assert_eq!(client.text(1), "no");
    // Whether it says so, or takes what comes: the connection goes on.
    while client.stream(1).reset.is_none() && client.next().is_some() {}
    assert_eq!(client.stream(1).reset, Some(NO_ERROR));
}

/// X1: what is under way is finished, and nothing new is taken.
#[test]
fn at_the_end_a_connection_is_told_and_streams_under_way_finish() {
    let (asked, go_on) = (Signal::default(), Signal::default());
    let (was_asked, goes_on) = (asked.clone(), go_on.clone());
    let app = FakeApp::start(move |connection| {
        while connection
            .read_request()
            .is_some_and(|request| request.complete)
        {
            was_asked.give();
            goes_on.wait();
            connection.write(OK);
        }
    });
    let rig = Rig::with(&app.url(), "auth = \"none\"\ndrain_timeout = \"2m\"", "");
    let replica = rig.replica();
    let mut busy = Http2Client::connect(replica.inbound_addr());
    busy.get(1, "/slow", &[]);
    let mut idle = Http2Client::connect(replica.inbound_addr());
    while idle.next().expect("a greeting").kind != SETTINGS {}
    assert!(asked.wait());
    let ending = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(replica.shutdown());
    });
    assert_eq!(
        idle.end(),
        Some(NO_ERROR),
        "an idle connection is told, and ends"
    );
    while busy.going_away.is_none() {
        assert!(busy.next().is_some(), "a busy one is told, too");
    }
    go_on.give();
    assert_eq!(busy.end_of(1), End::Answer(200));
    assert_eq!(busy.text(1), "ok");
    assert_eq!(busy.end(), Some(NO_ERROR));
    ending.join().expect("the sidecar ends");
}

/// A connection is refused one stream too many, and nothing else.
#[test]
fn more_streams_than_allowed_are_refused_one_by_one() {
    let go_on = Signal::default();
    let goes_on = go_on.clone();
    let app = FakeApp::start(move |connection| {
        while connection
            .read_request()
            .is_some_and(|request| request.complete)
        {
            goes_on.wait();
            connection.write(OK);
        }
    });
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = Http2Client::connect(rig.sidecar().inbound_addr());
    let streams: Vec<_> = (0..200).map(stream_of).collect();
    for &stream in &streams {
        client.get(stream, "/a", &[]);
    }
    // Those beyond the limit are told at once.
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(client.end_of(stream_of(199)), End::Reset(REFUSED_STREAM));
    go_on.give();
    let ends: Vec<_> = streams
        .iter()
        .map(|&stream| client.end_of(stream))
        .collect();
    let kinds: BTreeSet<_> = ends.iter().map(|end| format!("{end:?}")).collect();
    let answered = ends.iter().filter(|end| **end == End::Answer(200)).count();
    assert!((100..200).contains(&answered), "{answered}: {kinds:?}");
    assert!(
        ends.iter()
            .all(|end| matches!(end, End::Answer(200) | End::Reset(REFUSED_STREAM))),
        "{kinds:?}"
    );
}
