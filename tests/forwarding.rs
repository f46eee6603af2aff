//! Forwarding: what the app gets, what the client gets back, and what happens when either of them misbehaves.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::fake_app::{FakeApp, OK, Request, Signal};
use crate::http_client::{Client, Response, chunked};
use crate::patience::{PATIENCE, dawdle, eventually, more_than_sockets_hold};
use crate::rig::Rig;

/// After this long without progress a writer counts as blocked. Too short a time makes the tests weaker, not wrong.
const BLOCKED: Duration = Duration::from_millis(300);
/// After this long without use, a connection to the app carries no request that must not be sent twice.
const STALE: Duration = Duration::from_secs(1);

/// A sidecar that lets everybody through.
fn open(app: &FakeApp) -> Rig {
    open_with(app, "")
}

fn open_with(app: &FakeApp, inbound: &str) -> Rig {
    Rig::with(&app.url(), &format!("auth = \"none\"\n{inbound}"), "")
}

fn is_problem(answer: &Response, status: u16, slug: &str) {
    answer.problem(status, slug);
}

/// A connection over which this was sent before it could be ended for having idled for so long. Whoever is held up in
/// between begins anew.
fn sent_within(idle: Duration, rig: &Rig, bytes: &[u8]) -> Client {
    let mut sent = None;
    eventually("nothing is sent in time", || {
        let began = Instant::now();
        let mut client = rig.client();
        let is_sent = client.try_send(bytes).is_ok();
        sent = (is_sent && began.elapsed() < idle).then_some(client);
        sent.is_some()
    });
    sent.expect("it was sent")
}

/// Writes until the sidecar takes no more; says how much it took.
fn taken_from(client: &mut Client, body_length: usize) -> usize {
    client.stream().set_write_timeout(Some(BLOCKED)).unwrap();
    let piece = vec![b'a'; 64 * 1024];
    let mut written = 0;
    while written < body_length {
        match client
            .stream()
            .write(&piece[..piece.len().min(body_length - written)])
        {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    written
}

#[test]
fn an_upload_waits_for_an_app_that_does_not_read() {
    let go_on = Signal::default();
    let reader_goes_on = go_on.clone();
    let app = FakeApp::start(move |connection| {
        if let Some(mut request) = connection.read_head() {
            reader_goes_on.wait();
            request.complete = connection.read_body(&mut request);
            request.bytes.clear();
            connection.note(request);
            connection.write(OK);
        }
    });
    let large = more_than_sockets_hold();
    let rig = open_with(&app, &format!("body_limit = \"{large}B\""));
    let mut client = rig.client();
    client
        .send(format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {large}\r\n\r\n").as_bytes());
    let written = taken_from(&mut client, large);
    assert!(written < large, "all was taken though the app read none");
    go_on.give();
    client.stream().set_write_timeout(Some(PATIENCE)).unwrap();
    client.send(&vec![b'a'; large - written]);
    assert_eq!(client.read_response(false).status, 200);
    let request = app.only_request();
    assert!(request.complete);
    assert_eq!(request.body.len(), large);
    assert!(request.body.iter().all(|&byte| byte == b'a'));
}

#[test]
fn a_download_waits_for_a_client_that_does_not_read() {
    let large = more_than_sockets_hold();
    let blocked = Signal::default();
    let app_is_blocked = blocked.clone();
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        connection.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n").as_bytes());
        connection.set_write_patience(BLOCKED);
        let piece = vec![b'a'; 64 * 1024];
        let mut written = 0;
        while written < large
            && let Ok(count) = connection.try_write(&piece[..piece.len().min(large - written)])
        {
            written += count;
        }
        if written < large {
            app_is_blocked.give();
        }
        connection.set_write_patience(PATIENCE);
        connection.write(&vec![b'a'; large - written]);
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(blocked.wait(), "the sidecar took all that the app had");
    let answer = client.read_response(false);
    assert!(!answer.truncated);
    assert_eq!(answer.body.len(), large);
}

#[test]
fn a_chunked_upload_is_chunked_anew_for_the_app() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let body = b"5;name=value\r\nhello\r\n00001\r\n \r\n5\r\nworld\r\n0\r\nX-Checksum:  a \r\n\
        X_WX_OPENID: b\r\nHost: c\r\nX-Forwarded-For: d\r\nAuthorization: e\r\nContent-Length: 5\r\n\
        Transfer-Encoding: f\r\nConnection: g\r\nset_cookie: h\r\n\r\n";
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(body);
    assert_eq!(client.read_response(false).status, 200);
    let request = app.only_request();
    assert_eq!(request.body, b"hello world");
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
    assert_eq!(request.header("content-length"), None);
    let text = String::from_utf8(request.bytes).unwrap();
    assert!(!text.contains("name=value"), "{text}");
    assert_eq!(request.trailers, ["X-Checksum: a"]);
}

#[test]
fn an_upload_reaches_the_app_while_it_is_being_sent() {
    let first = Signal::default();
    let told = first.clone();
    let app = FakeApp::start(move |connection| {
        if let Some(mut request) = connection.read_head() {
            // The head leaves with the first bytes of the body.
            told.give();
            request.complete = connection.read_body(&mut request);
            connection.note(request);
            connection.write(OK);
        }
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    assert!(first.wait());
    client.send(b"3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.read_response(false).status, 200);
    assert_eq!(app.only_request().body, b"abcdef");
}

#[test]
fn a_chunked_answer_is_chunked_anew_for_the_client() {
    let app = FakeApp::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
    );
    let rig = open(&app);
    let mut client = rig.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/a", &[], b"");
        assert_eq!(
            (answer.status, answer.text(), answer.truncated),
            (200, "hello", false)
        );
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.header("trailer"), None);
        assert!(answer.trailers.is_empty());
    }
    assert_eq!(app.connections(), 1);

    client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn trailers_reach_a_client_that_takes_them_less_what_is_not_for_it() {
    let app = FakeApp::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\
         X-WX-OPENID: a\r\nX_Wx_Appid: b\r\nSet-Cookie: c\r\nContent-Length: 9\r\n\
         Transfer-Encoding: d\r\nConnection: e\r\nCache-Control: f\r\nx-sum:  2 \r\n\r\n",
    );
    let rig = open(&app);
    let mut client = rig.client();
    for te in ["trailers", "gzip;q=0.5, Trailers"] {
        let lines = [("TE", te), ("Connection", "TE")];
        let answer = client.request("GET", "/a", &lines, b"");
        assert_eq!(answer.text(), "ok");
        let sums = [("X-Sum", "1"), ("x-sum", "2")];
        let sums = sums.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(answer.trailers, sums);
    }
    let seen = app.requests(2);
    assert_eq!(seen[1].header("te"), Some("trailers"));
    assert_eq!(seen[1].header("connection"), Some("te"));
    assert!(client.request("GET", "/a", &[], b"").trailers.is_empty());
    assert_eq!(app.requests(3)[2].header("te"), None);

    // Nothing follows a body that only the end of the connection delimits.
    client.send(b"GET /a HTTP/1.0\r\nTE: trailers\r\n\r\n");
    assert_eq!(client.read_response(false).text(), "ok");
}

#[test]
fn hints_reach_clients_that_know_of_them_and_say_nothing_of_users() {
    let app = FakeApp::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-WX-OPENID: a\r\nConnection: x-hop\r\n\
         X-Hop: b\r\nContent-Length: 5\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = open(&app);
    let mut client = rig.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/a", &[], b"");
        assert_eq!((answer.text(), answer.interim.len()), ("ok", 1));
        let hints = &answer.interim[0];
        assert_eq!((hints.status, &*hints.reason), (103, "Early Hints"));
        let expected = ("Link".to_owned(), "</a.css>".to_owned());
        assert_eq!(hints.headers, [expected]);
    }
    client.send(b"GET /a HTTP/1.0\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!((answer.text(), answer.interim.len()), ("ok", 0));
}

#[test]
fn a_body_arrives_whole_in_whatever_pieces_it_comes() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let body: Vec<u8> = (0..300_000u32).map(|n| (n * 13 % 251) as u8).collect();
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    let mut left = &body[..];
    // Trickling, then in large pieces, and both again.
    for size in [1, 7, 5_000, 100_000, 3, 60_000].iter().cycle() {
        let (now, later) = left.split_at(left.len().min(*size));
        client.send(now);
        left = later;
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(client.read_response(false).status, 200);
    assert!(app.only_request().body == body);
}

#[test]
fn an_answer_that_ends_with_the_connection_is_chunked_where_chunks_are_known() {
    let app = FakeApp::start(|connection| {
        connection.read_request();
        connection.write(b"HTTP/1.1 200 OK\r\n\r\nhello");
    });
    let rig = open(&app);
    let mut client = rig.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/a", &[], b"");
        assert_eq!((answer.text(), answer.truncated), ("hello", false));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
    client.send(b"GET /a HTTP/1.0\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("hello", Some("close"))
    );
    assert_eq!(app.connections(), 3);
}

#[test]
fn each_event_of_a_stream_arrives_before_the_next_is_made() {
    let (head, first) = (Signal::default(), Signal::default());
    let (head_seen, first_seen) = (head.clone(), first.clone());
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        head_seen.wait();
        connection.write(b"b\r\ndata: one\n\n\r\n");
        first_seen.wait();
        connection.write(b"b\r\ndata: two\n\n\r\n0\r\n\r\n");
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(
        client.read_head().header("content-type"),
        Some("text/event-stream")
    );
    head.give();
    assert_eq!(
        client.read_through(b"data: one\n\n\r\n"),
        b"b\r\ndata: one\n\n\r\n"
    );
    first.give();
    assert_eq!(
        client.read_through(b"0\r\n\r\n"),
        b"b\r\ndata: two\n\n\r\n0\r\n\r\n"
    );
}

#[test]
fn an_answer_that_the_app_cuts_off_is_cut_off_for_the_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ] {
        let cut = Signal::default();
        let seen = cut.clone();
        let app = FakeApp::start(move |connection| {
            connection.read_request();
            connection.write(answer.as_bytes());
            seen.wait();
        });
        let rig = open(&app);
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let mut client = rig.client();
            client.send(format!("GET /a {version}\r\nHost: x\r\n\r\n").as_bytes());
            assert_eq!(client.read_head().status, 200);
            client.read_through(b"hello");
            cut.give();
            if version == "HTTP/1.0" && answer.contains("chunked") {
                // What only the end of the connection delimits must not end in order.
                let end = std::io::Read::read(&mut client.stream(), &mut [0]);
                assert!(
                    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
                );
            } else {
                let rest = client.read_to_close();
                assert!(!rest.ends_with(b"0\r\n\r\n"), "{answer:?}: {rest:?}");
            }
        }
    }
}

#[test]
fn an_answer_that_breaks_before_any_of_it_has_left_is_a_502() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    ] {
        misbehaves(answer.as_bytes());
    }
}

/// Such an answer is a 502, its connection is not used again, and the next answer is the next request's.
fn misbehaves(answer: &[u8]) {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    let app = FakeApp::answering_once(answer);
    let rig = open(&app);
    let mut client = rig.client();
    let refused = client.request("GET", "/a", &[("Cookie", "a=b")], b"");
    assert_eq!(refused.status, 502, "{shown:?}");
    is_problem(&refused, 502, "upstream-invalid");
    assert_eq!(refused.header("set-cookie"), None);
    // The same connection is served by the same worker, which would have the bad connection in its pool.
    for _ in 0..2 {
        let next = client.request("GET", "/b", &[], b"");
        assert_eq!((next.status, next.text()), (200, "ok"), "{shown:?}");
    }
    let seen = app.requests(3);
    let places: Vec<_> = seen
        .iter()
        .map(|request| (request.target(), request.connection))
        .collect();
    assert_eq!(places, [("/a", 0), ("/b", 1), ("/b", 1)], "{shown:?}");
}

#[test]
fn an_answer_whose_end_is_ambiguous_is_a_502() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let text =
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        misbehaves(text.as_bytes());
    }
    misbehaves(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn an_answer_that_is_not_http_is_a_502() {
    for answer in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: \0\r\n\r\n",
    ] {
        misbehaves(answer);
    }
}

#[test]
fn an_answer_that_ends_within_its_head_is_a_502() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\nContent-",
        "H",
    ] {
        let app = FakeApp::start(move |connection| {
            connection.read_request();
            connection.write(answer.as_bytes());
        });
        let refused = open(&app).request("GET", "/a", &[], b"");
        is_problem(&refused, 502, "upstream-unreachable");
        assert_eq!(app.targets(), ["/a"]);
    }
}

#[test]
fn an_answer_with_a_head_beyond_all_measure_is_a_502() {
    let long = "a".repeat(100 * 1024);
    misbehaves(format!("HTTP/1.1 200 OK\r\nX-A: {long}\r\n\r\n").as_bytes());
    let many = "X-A: b\r\n".repeat(101);
    misbehaves(format!("HTTP/1.1 200 OK\r\n{many}\r\n").as_bytes());
}

#[test]
fn interim_answers_end_or_are_a_502() {
    misbehaves(&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000));
    misbehaves(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let few = [&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3)[..], OK].concat();
    let app = FakeApp::answering(few);
    let answer = open(&app).request("GET", "/a", &[], b"");
    assert_eq!((answer.status, answer.text()), (200, "ok"));
}

#[test]
fn bytes_beyond_an_answer_are_nobodys_answer() {
    for extra in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\n\r\nevil",
    ] {
        let app = FakeApp::answering_once(extra);
        let rig = open(&app);
        let mut client = rig.client();
        assert!(client.request("GET", "/a", &[], b"").status < 400);
        assert_eq!(
            client.request("GET", "/b", &[], b"").text(),
            "ok",
            "{extra:?}"
        );
        assert_eq!(app.connections(), 2, "{extra:?}");
    }
    let app = FakeApp::answering_once("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    let rig = open(&app);
    let mut client = rig.client();
    assert_eq!(client.request("HEAD", "/a", &[], b"").status, 200);
    assert_eq!(
        client.request("GET", "/b", &[], b"").text(),
        "ok",
        "a body after HEAD is no answer"
    );
}

#[test]
fn a_client_that_expects_100_gets_the_apps_own_once() {
    let app = FakeApp::start(|connection| {
        let mut request = connection.read_head().expect("a request");
        assert_eq!(request.header("expect"), Some("100-continue"));
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        request.complete = connection.read_body(&mut request);
        connection.note(request);
        connection.write(OK);
    });
    let rig = open(&app);
    let mut client = rig.client();
    client
        .send(b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(
        client.read_through(b"\r\n\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.send(b"hello");
    let answer = client.read_response(false);
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert_eq!(app.only_request().body, b"hello");
}

#[test]
fn a_client_that_expects_100_may_get_the_final_answer_instead() {
    let app = FakeApp::start(|connection| {
        connection.read_head().expect("a request");
        connection.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        assert_eq!(
            connection.read_to_close(),
            b"",
            "the body was not asked for"
        );
    });
    let rig = open(&app);
    let mut client = rig.client();
    client
        .send(b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!(
        (answer.status, answer.text(), answer.interim.len()),
        (403, "no", 0)
    );
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.read_to_close(), b"");
}

#[test]
fn an_answer_may_come_before_the_body_has_ended() {
    let app = FakeApp::start(|connection| {
        if connection.number == 0 {
            connection.read_head();
            connection.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
            connection.read_to_close();
        } else {
            connection.read_request();
            connection.write(OK);
        }
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhello");
    let answer = client.read_response(false);
    assert_eq!((answer.status, answer.text()), (413, "no"));
    assert_eq!(answer.header("connection"), Some("close"));
    // What is sent on is nobody's request.
    let _closing = client.try_send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(rig.request("GET", "/b", &[], b"").status, 200);
    assert_eq!(app.targets(), ["/b"]);
}

#[test]
fn an_app_may_answer_a_head_whose_body_has_not_come() {
    let app = FakeApp::start(|connection| {
        connection.read_head().expect("a head");
        connection.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        connection.read_to_close();
    });
    let rig = open(&app);
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_response(false).status, 403);
}

#[test]
fn an_app_may_be_silent_for_longer_than_its_timeout_while_it_is_sent_a_body() {
    const TIMEOUT: Duration = Duration::from_millis(100);
    let (tell, told) = mpsc::channel();
    let app = FakeApp::start(move |connection| {
        let mut request = connection.read_head().expect("a head");
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe");
        assert!(connection.read_body(&mut request));
        connection.write(b"re");
        tell.send(Instant::now()).expect("the test goes on");
    });
    let rig = open_with(&app, &format!("timeout = \"{}ms\"", TIMEOUT.as_millis()));
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_exact(2), b"he");
    // Several times the timeout, in which nothing may come and nothing may end.
    let stream = client.stream();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let nothing = stream.peek(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = Instant::now();
    client.send(b"lo");
    let rest = client.read_to_close();
    // From here on the app has a whole timeout. One that is held up for longer is cut off, and rightly so.
    let answered = told.recv_timeout(PATIENCE).expect("it got the whole body");
    let too_late = answered - sent >= TIMEOUT;
    assert!(rest == b"re" || (too_late && rest.is_empty()), "{rest:?}");
}

/// What is still unread when a socket is closed makes the kernel throw away what it had yet to send.
#[test]
fn an_answer_arrives_whole_although_the_client_has_sent_more() {
    let large = vec![b'a'; 4 * 1024 * 1024];
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len()).into_bytes();
    bytes.extend_from_slice(&large);
    let app = FakeApp::answering(bytes);
    let rig = open(&app);
    let mut client = rig.client();
    let mut request = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec();
    request.extend_from_slice(&b"\r\n".repeat(50_000));
    client.send(&request);
    let answer = client.read_response(false);
    assert_eq!((answer.body.len(), answer.truncated), (large.len(), false));
}

#[test]
fn a_method_in_lower_case_is_refused_because_some_apps_would_raise_it() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let answer = rig.request("post", "/a", &[("Content-Length", "0")], b"");
    is_problem(&answer, 400, "bad-request");
    assert_eq!(rig.request("GET", "/b", &[], b"").status, 200);
    assert_eq!(app.targets(), ["/b"]);
}

#[test]
fn a_route_for_get_is_for_head_too() {
    let app = FakeApp::agreeable();
    let route = "[[route]]\npath = \"/open/**\"\nmethods = [\"GET\"]\nauth = \"none\"\n";
    let rig = Rig::with(&app.url(), "", route);
    assert_eq!(rig.request("GET", "/open/a", &[], b"").status, 200);
    let head = "HEAD /open/a HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = rig.client();
    client.send(head.as_bytes());
    assert_eq!(client.read_response(true).status, 200);
    assert_eq!(rig.request("DELETE", "/open/a", &[], b"").status, 401);
}

#[test]
fn connections_to_the_app_are_used_again() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let mut client = rig.client();
    let mut most = 1;
    for n in 0..10 {
        let began = Instant::now();
        assert_eq!(
            client.request("GET", &format!("/{n}"), &[], b"").status,
            200
        );
        assert_eq!(
            client
                .request("POST", &format!("/{n}"), &[], b"hello")
                .status,
            200
        );
        // Between the two the connection may have idled for too long, if somebody was held up.
        most += usize::from(began.elapsed() >= STALE);
    }
    assert_eq!(app.requests(20).len(), 20);
    let connections = app.connections();
    assert!((1..=most).contains(&connections), "{connections}");
}

#[test]
fn an_app_that_wants_to_close_is_not_asked_again_on_that_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let app = FakeApp::answering(answer);
        let rig = open(&app);
        let mut client = rig.client();
        for _ in 0..3 {
            let answer = client.request("GET", "/a", &[], b"");
            assert_eq!((answer.status, answer.header("connection")), (200, None));
        }
        assert_eq!(app.connections(), 3, "{answer:?}");
    }
}

#[test]
fn an_idle_connection_that_the_app_closed_is_replaced_silently() {
    let closed = Signal::default();
    let app_closed = closed.clone();
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        connection.write(OK);
        if connection.number > 0 {
            while connection.read_request().is_some() {
                connection.write(OK);
            }
        }
        connection.close();
        app_closed.give();
    });
    let rig = open(&app);
    let mut client = rig.client();
    assert_eq!(client.request("GET", "/a", &[], b"").status, 200);
    assert!(closed.wait());
    for method in ["GET", "POST"] {
        assert_eq!(client.request(method, "/b", &[], b"").status, 200);
    }
    let places: Vec<_> = app
        .requests(3)
        .iter()
        .map(|request| request.connection)
        .collect();
    // A POST that comes late does not take the one that has idled meanwhile.
    assert!(matches!(places[..], [0, 1, 1 | 2]), "{places:?}");
}

/// Answers the first request, then reads the second one on the same connection and closes without a word.
fn closes_on_the_second_request() -> FakeApp {
    FakeApp::start(|connection| {
        let mut left = if connection.number == 0 {
            1
        } else {
            usize::MAX
        };
        while connection.read_request().is_some() && left > 0 {
            connection.write(OK);
            left -= 1;
        }
    })
}

#[test]
fn a_get_that_meets_a_closing_connection_is_tried_once_more() {
    let app = closes_on_the_second_request();
    let rig = open(&app);
    let mut client = rig.client();
    assert_eq!(client.request("GET", "/a", &[], b"").status, 200);
    assert_eq!(client.request("GET", "/b", &[], b"").status, 200);
    let places: Vec<_> = app
        .requests(3)
        .iter()
        .map(|r| (r.target().to_owned(), r.connection))
        .collect();
    assert_eq!(
        places,
        [
            ("/a".to_owned(), 0),
            ("/b".to_owned(), 0),
            ("/b".to_owned(), 1)
        ]
    );
}

#[test]
fn a_post_that_meets_a_closing_connection_is_not_sent_twice() {
    let app = FakeApp::start(|connection| {
        if connection.read_request().is_some() {
            connection.write(OK);
            connection.read_request();
        }
    });
    let rig = open(&app);
    let mut client = rig.client();
    let mut sent = 0;
    // One that comes late is given a connection of its own, and the next may meet that one.
    eventually("none meets a closing connection", || {
        sent += 1;
        let answer = client.request("POST", &format!("/{sent}"), &[], b"hello");
        if answer.status == 200 {
            return false;
        }
        is_problem(&answer, 502, "upstream-unreachable");
        true
    });
    assert!(sent > 1, "a new connection closes after the first one");
    let each_once: Vec<_> = (1..=sent).map(|number| format!("/{number}")).collect();
    assert_eq!(app.targets(), each_once);
}

#[test]
fn a_get_that_fails_on_a_new_connection_is_not_tried_again() {
    let app = FakeApp::start(|connection| {
        connection.read_request();
    });
    let answer = open(&app).request("GET", "/a", &[], b"");
    is_problem(&answer, 502, "upstream-unreachable");
    assert_eq!(app.targets(), ["/a"]);
}

#[test]
fn what_belongs_to_a_connection_goes_no_further() {
    let app = FakeApp::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Foo, keep-alive\r\nConnection: x-bar\r\nX-Foo: 1\r\nX-Bar: 2\r\nX-Baz: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: a\r\nTE: b\r\nUpgrade: c\r\nProxy-Connection: d\r\n\
         X-WX-OPENID: e\r\nx_wx_secret: f\r\nX-Request-Id: g\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = open(&app);
    let mut client = rig.client();
    let answer = client.request(
        "GET",
        "/a",
        &[
            ("Connection", "X-Foo"),
            ("connection", "keep-alive, x-bar"),
            ("X-Foo", "1"),
            ("x-BAR", "2"),
            ("X-Baz", "3"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "a"),
            ("Proxy-Connection", "b"),
            ("TE", "gzip"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ("Cookie", "a=b"),
            ("cookie", "c=d"),
        ],
        b"",
    );
    for gone in [
        "connection",
        "x-foo",
        "x-bar",
        "keep-alive",
        "proxy-authenticate",
        "te",
        "upgrade",
        "proxy-connection",
        "x-wx-openid",
        "x_wx_secret",
    ] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("x-baz"), Some("3"));
    assert_ne!(answer.header("x-request-id"), Some("g"));
    assert_eq!(answer.headers_all("set-cookie"), ["a=b", "c=d"]);
    let request = app.only_request();
    for gone in [
        "connection",
        "x-foo",
        "x-bar",
        "keep-alive",
        "proxy-authorization",
        "te",
        "upgrade",
        "proxy-connection",
        "http2-settings",
    ] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
    assert_eq!(request.header("x-baz"), Some("3"));
    assert_eq!(request.all("cookie"), ["a=b", "c=d"]);
    assert_eq!(
        answer.header("x-request-id"),
        request.header("x-request-id")
    );
}

#[test]
fn an_app_that_does_not_answer_in_time_is_a_504() {
    let done = Signal::default();
    let waits = done.clone();
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        waits.wait();
    });
    let rig = open_with(&app, "timeout = \"200ms\"");
    let mut client = rig.client();
    is_problem(
        &client.request("GET", "/a", &[], b""),
        504,
        "upstream-timeout",
    );
    is_problem(
        &client.request("POST", "/b", &[], b"hello"),
        504,
        "upstream-timeout",
    );
    assert_eq!(
        app.requests(2).len(),
        2,
        "a timeout is no reason to try again"
    );
    done.give();
}

#[test]
fn an_answer_that_stops_in_the_middle_is_cut_off_in_time() {
    let done = Signal::default();
    let waits = done.clone();
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        waits.wait();
    });
    let rig = open_with(&app, "timeout = \"200ms\"");
    let mut answer = Response::default();
    // An app that is held up before it begins is late with all of it, which is a 504; it is asked once more then.
    eventually("the app does not begin in time", || {
        answer = rig.request("GET", "/a", &[], b"");
        answer.status != 504
    });
    assert_eq!(
        (answer.status, answer.truncated, answer.text()),
        (200, true, "hello")
    );
    done.give();
}

#[test]
fn a_body_that_stops_arriving_is_a_408_and_cut_off_for_the_app() {
    let app = FakeApp::agreeable();
    let rig = open_with(&app, "idle_timeout = \"200ms\"");
    let half = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello";
    let mut client = sent_within(Duration::from_millis(200), &rig, half);
    is_problem(&client.read_response(false), 408, "request-timeout");
    assert_eq!(client.read_to_close(), b"");
    // There are more if it was sent late at first.
    let requests = app.requests(1);
    assert!(requests.iter().all(|it| !it.complete), "{requests:?}");
}

#[test]
fn a_body_announced_beyond_the_limit_is_refused_before_the_app_sees_it() {
    let app = FakeApp::agreeable();
    let rig = open_with(&app, "body_limit = \"1KiB\"");
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let answer = client.read_response(false);
    is_problem(&answer, 413, "body-too-large");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(rig.request("POST", "/b", &[], &[b'a'; 1024]).status, 200);
    assert_eq!(app.targets(), ["/b"]);
}

#[test]
fn a_chunked_body_beyond_the_limit_is_cut_off_for_the_app() {
    let app = FakeApp::agreeable();
    let rig = open_with(&app, "body_limit = \"1KiB\"");
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let whole = chunked(&[&[b'a'; 1000]]);
    client.send(whole.strip_suffix(b"0\r\n\r\n").unwrap());
    client.send(&chunked(&[&[b'a'; 100]]));
    is_problem(&client.read_response(false), 413, "body-too-large");
    let request = app.requests(1).remove(0);
    assert!(!request.complete);
    assert!(request.body.len() <= 1024);
}

#[test]
fn an_app_that_is_down_is_a_502() {
    // Bound and not listening, so that nobody else comes to listen there.
    let down = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    down.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let place = down.local_addr().unwrap().as_socket().unwrap();
    let rig = Rig::with(&format!("http://{place}"), "auth = \"none\"", "");
    let answer = rig.request("POST", "/a", &[], b"hello");
    is_problem(&answer, 502, "upstream-unreachable");
    assert_eq!(answer.json()["retryable"], true);
    let rig = Rig::with("unix:/nonexistent/app.sock", "auth = \"none\"", "");
    is_problem(
        &rig.request("GET", "/a", &[], b""),
        502,
        "upstream-unreachable",
    );
}

#[test]
fn an_app_may_listen_on_a_unix_socket() {
    let app = FakeApp::on_a_unix_socket(|connection| {
        while connection
            .read_request()
            .is_some_and(|request| request.complete)
        {
            connection.write(OK);
        }
    });
    let rig = open(&app);
    let mut client = rig.client();
    let began = Instant::now();
    for _ in 0..2 {
        let answer = client.request("POST", "/a?b", &[], b"hello");
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    let may_be_stale = began.elapsed() >= STALE;
    let requests = app.requests(2);
    assert_eq!(
        (requests[0].method(), requests[0].target()),
        ("POST", "/a?b")
    );
    assert_eq!(requests[0].header("host"), Some("localhost"));
    assert_eq!(requests[1].body, b"hello");
    assert!(app.connections() == 1 || may_be_stale);
}

#[test]
fn a_route_has_its_own_limits_and_its_own_app() {
    let done = Signal::default();
    let waits = done.clone();
    let slow = FakeApp::start(move |connection| {
        while connection.read_request().is_some() {
            waits.wait();
        }
    });
    let (app, other) = (
        FakeApp::agreeable(),
        FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"),
    );
    let sections = format!(
        "[[route]]\npath = \"/small/**\"\nbody_limit = \"10B\"\n\
         [[route]]\npath = \"/other/**\"\nupstream = \"{}\"\n\
         [[route]]\npath = \"/slow/**\"\nupstream = \"{}\"\ntimeout = \"200ms\"\n\
         [[route]]\npath = \"/first\"\nmethods = [\"POST\"]\nupstream = \"{}\"\n\
         [[route]]\npath = \"/first\"\nupstream = \"{}\"\n\
         [[route]]\npath = \"/**\"\nbody_limit = \"1KiB\"\n\
         [[route]]\npath = \"/never/**\"\nupstream = \"{}\"\n",
        other.url(),
        slow.url(),
        other.url(),
        app.url(),
        other.url(),
    );
    let rig = Rig::with(&app.url(), "auth = \"none\"", &sections);
    let post = |path: &str, length: usize| rig.request("POST", path, &[], &vec![b'a'; length]);
    assert_eq!(post("/small/a", 10).text(), "ok");
    assert_eq!(post("/small/a", 11).status, 413);
    assert_eq!(post("/any", 1025).status, 413);
    assert_eq!(post("/other/a", 2000).text(), "other");
    assert_eq!(post("/first", 5).text(), "other");
    assert_eq!(rig.request("GET", "/first", &[], b"").text(), "ok");
    assert_eq!(post("/never/a", 5).text(), "ok", "the first match wins");
    assert_eq!(rig.request("GET", "/slow/a", &[], b"").status, 504);
    done.give();
}

#[test]
fn the_path_that_is_decided_on_is_the_path_that_is_forwarded() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(
        &app.url(),
        "",
        "[[route]]\npath = \"/public/**\"\nauth = \"none\"\n[[route]]\npath = \"/api/**\"\nauth = \"required\"\n",
    );
    for target in [
        "/public/../api/x",
        "/public/%2e%2e/api/x",
        "/public/.%2E/api/x",
        "/public/./../api/x",
        "//api/x",
        "/public//../api/x",
        "/%61pi/x",
        "/public/a/../../api/x",
        "/api/x?/public/",
        "/api/%2e%2e/api/x",
    ] {
        assert_eq!(rig.request("GET", target, &[], b"").status, 401, "{target}");
    }
    assert!(app.targets().is_empty());
    for (target, forwarded) in [
        ("/public/a", "/public/a"),
        ("/api/../public/a", "/public/a"),
        ("/api/%2e%2e/public/a", "/public/a"),
        ("//public//a/", "/public/a/"),
        (
            "/public/%61%7E%2d%e4%bd%a0?x=%2e%2e/%61//..",
            "/public/a~-%E4%BD%A0?x=%2e%2e/%61//..",
        ),
        ("/public?", "/public?"),
        ("/public/a?q='\"<>|{}\\^`;", "/public/a?q='\"<>|{}\\^`;"),
    ] {
        assert_eq!(rig.request("GET", target, &[], b"").status, 200, "{target}");
        assert_eq!(app.targets().last().unwrap(), forwarded, "{target}");
    }
}

#[test]
fn escaped_slashes_are_refused_unless_they_are_wanted() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    for target in ["/a%2Fb", "/a%2fb", "/a%5Cb"] {
        assert_eq!(rig.request("GET", target, &[], b"").status, 400, "{target}");
    }
    assert!(app.targets().is_empty());
    let rig = Rig::with(
        &app.url(),
        "escaped_slashes = \"keep\"",
        "[[route]]\npath = \"/public/**\"\nauth = \"none\"\n",
    );
    assert_eq!(
        rig.request("GET", "/public/a%2fb%5cc", &[], b"").status,
        200
    );
    assert_eq!(app.targets(), ["/public/a%2Fb%5Cc"]);
    // Wanted or not, they must not hide a way out of the path that was decided on.
    for target in ["/public/..%2fapi/x", "/public/a%5c.."] {
        assert_eq!(rig.request("GET", target, &[], b"").status, 400, "{target}");
    }
    assert_eq!(
        rig.request("GET", "/public%2fa", &[], b"").status,
        401,
        "it is no separator"
    );
}

const CLAIMS: [(&str, &str); 12] = [
    ("X-Request-Id", "theirs-1"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ("tracestate", "vendor=a"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.2, 192.0.2.3"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example"),
    ("X-Forwarded-Uri", "/public"),
    ("X-Real-IP", "192.0.2.4"),
    ("Forwarded", "for=192.0.2.5"),
    ("X-Original-URL", "/public"),
    ("X_Forwarded_For", "192.0.2.6"),
];

fn with_claims(inbound: &str) -> (Request, Response) {
    let app = FakeApp::agreeable();
    let rig = open_with(&app, inbound);
    let mut claims = vec![("Host", "asked.example")];
    claims.extend(CLAIMS);
    let answer = rig.request("GET", "/a", &claims, b"");
    assert_eq!(answer.status, 200);
    (app.only_request(), answer)
}

#[test]
fn what_a_stranger_says_of_its_way_here_is_replaced() {
    let (request, answer) = with_claims("");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("asked.example"));
    assert_ne!(request.header("x-request-id"), Some("theirs-1"));
    assert_eq!(
        request.header("x-request-id"),
        answer.header("x-request-id")
    );
    let trace = request.header("traceparent").unwrap();
    assert!(
        trace.starts_with("00-") && trace.len() == 55 && !trace.contains("0af7651916cd43dd"),
        "{trace}"
    );
    for gone in [
        "tracestate",
        "x-forwarded-uri",
        "forwarded",
        "x-original-url",
        "x_forwarded_for",
    ] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
    assert!(!request.head.contains("192.0.2."), "{}", request.head);
}

#[test]
fn what_a_trusted_proxy_says_of_the_way_here_is_kept_and_continued() {
    for network in ["127.0.0.1", "127.0.0.0/8"] {
        let (request, answer) = with_claims(&format!("trusted_proxies = [\"{network}\"]"));
        let way = "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1";
        assert_eq!(request.header("x-forwarded-for"), Some(way));
        assert_eq!(request.all("x-real-ip"), ["192.0.2.3"]);
        // Not the one that came: it says another client than the chain does.
        assert_eq!(
            request.header("forwarded"),
            Some("for=127.0.0.1;proto=http")
        );
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        assert_eq!(request.header("x-forwarded-host"), Some("shop.example"));
        assert_eq!(request.header("x-request-id"), Some("theirs-1"));
        assert_eq!(answer.header("x-request-id"), Some("theirs-1"));
        let trace = request.header("traceparent").unwrap();
        assert!(
            trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
            "{trace}"
        );
        assert!(
            trace.ends_with("-01") && !trace.contains("b7ad6b7169203331"),
            "{trace}"
        );
        assert_eq!(request.header("tracestate"), Some("vendor=a"));
        for gone in ["x-forwarded-uri", "x-original-url", "x_forwarded_for"] {
            assert_eq!(request.header(gone), None, "{gone}");
        }
    }
    let (request, _) = with_claims("trusted_proxies = [\"10.0.0.0/8\"]");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
}

/// Never silent for as long as `idle_timeout`, and yet not to be waited for.
#[test]
fn a_body_that_drips_is_ended() {
    /// A few minutes' worth.
    const DROPS: usize = 2000;
    let app = FakeApp::agreeable();
    let rig = open_with(&app, "idle_timeout = \"1s\"");
    for target in ["/upload", "/wx/login"] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {DROPS}\r\n\r\n");
        let mut client = sent_within(Duration::from_secs(1), &rig, head.as_bytes());
        let mut writer = client.stream().try_clone().unwrap();
        let dripping = std::thread::spawn(move || {
            (0..DROPS)
                .take_while(|_| {
                    dawdle(Duration::from_millis(100));
                    writer.write_all(b"a").is_ok()
                })
                .count()
        });
        is_problem(&client.read_response(false), 408, "request-timeout");
        drop(client);
        assert!(dripping.join().unwrap() < DROPS, "{target}");
    }
}
