//! What is refused on the wire, and what is forgiven: the app sees at most one request per request sent.
//!
//! After each refusal the app is asked for something harmless. That it was asked for nothing else in between proves that
//! not a byte of what was refused had reached it.

use std::net::Shutdown;

use crate::fake_app::{Connection, FakeApp, OK};
use crate::http_client::{Client, chunked};
use crate::rig::Rig;

/// A sidecar that lets everybody through to an app that counts.
struct Gate {
    app: FakeApp,
    rig: Rig,
}

impl Gate {
    fn new() -> Self {
        Self::with("")
    }

    fn with(inbound: &str) -> Self {
        let app = FakeApp::agreeable();
        let rig = Rig::with(&app.url(), &format!("auth = \"none\"\n{inbound}"), "");
        Self { app, rig }
    }

    /// Sends bytes that are to be refused with this status, the connection's end and nothing for the app.
    fn refuses(&self, bytes: &[u8], status: u16) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let mut client = self.rig.client();
        // A server may answer and close before it has read everything.
        let _sent = client.try_send(bytes);
        let answer = client
            .try_read_response(false)
            .unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(answer.status, status, "{shown:?}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.json()["status"], status);
        assert_eq!(
            client.read_to_close(),
            b"",
            "{shown:?}: something else was answered"
        );
        self.app_saw_nothing(&shown);
    }

    /// Sends a request that is whole but not for the app.
    fn answers(&self, bytes: &[u8], status: u16) {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let mut client = self.rig.client();
        client.send(bytes);
        let answer = client.read_response(false);
        assert_eq!(answer.status, status, "{shown:?}: {}", answer.text());
        self.app_saw_nothing(&shown);
    }

    fn app_saw_nothing(&self, shown: &str) {
        assert_eq!(self.rig.request("GET", "/harmless", &[], b"").status, 200);
        let targets = self.app.targets();
        assert!(
            targets.iter().all(|target| target == "/harmless"),
            "{shown:?}: {targets:?}"
        );
    }
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}").into_bytes()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

#[test]
fn two_framings_are_refused_in_either_order() {
    let gate = Gate::new();
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "transfer-encoding: CHUNKED\r\ncontent-length: 0\r\n",
    ] {
        gate.refuses(&post(fields, smuggled), 400);
    }
}

#[test]
fn a_length_that_two_readers_could_read_differently_is_refused() {
    let gate = Gate::new();
    for value in [
        "+5",
        "-5",
        "0x5",
        "5, 5",
        "5,5",
        "5 5",
        "5;",
        "",
        "five",
        "5.0",
        "1_0",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999",
    ] {
        gate.refuses(&post(&format!("Content-Length: {value}\r\n"), "hello"), 400);
    }
    for (first, second) in [("5", "5"), ("5", "6"), ("0", "5")] {
        let fields = format!("Content-Length: {first}\r\nContent-Length: {second}\r\n");
        gate.refuses(&post(&fields, "hello"), 400);
    }
}

#[test]
fn a_transfer_coding_other_than_chunked_is_refused() {
    let gate = Gate::new();
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for value in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
    ] {
        gate.refuses(&post(&format!("Transfer-Encoding: {value}\r\n"), body), 501);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    gate.refuses(&post(twice, body), 501);
    let mixed = "Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n";
    gate.refuses(&post(mixed, body), 501);
    for value in ["\x0bchunked", "chunked\x0b", "chun\0ked", "\x0cchunked"] {
        gate.refuses(&post(&format!("Transfer-Encoding: {value}\r\n"), body), 400);
    }
    gate.refuses(&post("Transfer-Encoding:\r\n chunked\r\n", body), 400);
    let old = b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    gate.refuses(old, 400);
}

#[test]
fn a_line_that_does_not_end_with_cr_lf_is_refused() {
    let gate = Gate::new();
    for bytes in [
        &b"GET /a HTTP/1.1\nHost: x\n\n"[..],
        b"GET /a HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: b\rX-WX-OPENID: e\r\n\r\n",
        b"GET /a HTTP/1.1\rHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\rX-A: b\r\n\r\n",
        b"GET /a HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        gate.refuses(bytes, 400);
    }
}

#[test]
fn control_characters_in_a_head_are_refused() {
    let gate = Gate::new();
    for bytes in [
        &b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"G\0T /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-\0: b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: b\x7fc\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: b\x08c\r\n\r\n",
    ] {
        gate.refuses(bytes, 400);
    }
}

#[test]
fn a_header_line_that_is_not_one_is_refused() {
    let gate = Gate::new();
    for fields in [
        "X-A: b\r\n X-WX-OPENID: e\r\n",
        "X-A: b\r\n\tc\r\n",
        "X-A : b\r\n",
        "Content-Length : 5\r\n",
        " X-A: b\r\n",
        ": b\r\n",
        "X-A\r\n",
        "X A: b\r\n",
        "X-(A): b\r\n",
        "X-Ä: b\r\n",
    ] {
        gate.refuses(&get(fields), 400);
    }
    gate.refuses(b"GET /a HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n", 400);
}

#[test]
fn there_is_one_host_and_it_is_a_host() {
    let gate = Gate::new();
    gate.refuses(b"GET /a HTTP/1.1\r\n\r\n", 400);
    gate.refuses(b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400);
    gate.refuses(b"GET /a HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400);
    for host in [
        "", "x/y", "a@b", "x:0", "x:99999", "x:", "x:y", "x y", "x,y", "x?y", "[::1", "x#y", "x\\y",
    ] {
        let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        gate.refuses(request.as_bytes(), 400);
    }
}

#[test]
fn only_a_path_is_a_target_for_the_app() {
    let gate = Gate::new();
    for target in [
        "http://evil/",
        "http://x/a",
        "evil:80",
        "*",
        "//evil/../..",
        "/a#b",
        "/public#/../admin",
        "a",
        "?a",
        "/%00",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a;b",
        "/%zz",
        "/a%252fb",
        "/..",
        "/a/../../b",
        "/\u{e4}",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        gate.answers(request.as_bytes(), 400);
    }
    gate.answers(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    gate.refuses(b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    gate.refuses(b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    gate.refuses(b"GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    gate.refuses(b" GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 400);
}

#[test]
fn connect_and_trace_are_never_forwarded() {
    let gate = Gate::new();
    gate.answers(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400);
    gate.answers(b"CONNECT /a HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    gate.answers(b"TRACE /a HTTP/1.1\r\nHost: x\r\n\r\n", 405);
}

#[test]
fn versions_other_than_1_0_and_1_1_are_refused() {
    let gate = Gate::new();
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/2", "HTTP/0.9", "HTTP/3.0"] {
        gate.refuses(
            format!("GET /a {version}\r\nHost: x\r\n\r\n").as_bytes(),
            505,
        );
    }
    let many_digits = format!("GET /a HTTP/1.{}\r\nHost: x\r\n\r\n", "1".repeat(100));
    gate.refuses(many_digits.as_bytes(), 400);
    // The greeting of HTTP/2, though not as the first thing that is said.
    gate.refuses(b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    for bytes in [
        &b"GET /a\r\n\r\n"[..],
        b"GET /a http/1.1\r\nHost: x\r\n\r\n",
        b"GET /a FTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = gate.rig.client();
        client.send(bytes);
        let answer = client.read_response(false);
        assert!(matches!(answer.status, 400 | 505), "{}", answer.status);
        assert_eq!(client.read_to_close(), b"");
        gate.app_saw_nothing("no version");
    }
}

#[test]
fn what_is_not_http_at_all_is_refused() {
    let gate = Gate::new();
    gate.refuses(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400);
    gate.refuses(b"\r\n\r\n\r\nhello\r\n\r\n", 400);
}

#[test]
fn a_hundred_header_lines_pass_and_one_more_does_not() {
    let gate = Gate::new();
    let lines = |count: usize| {
        (0..count)
            .map(|n| format!("X-A-{n}: b\r\n"))
            .collect::<String>()
    };
    let mut client = gate.rig.client();
    client.send(&get(&lines(99)));
    assert_eq!(client.read_response(false).status, 200);
    let request = gate.app.only_request();
    assert_eq!(request.header("x-a-98"), Some("b"));
    let gate = Gate::new();
    gate.refuses(&get(&lines(100)), 431);
    gate.refuses(&get(&lines(5000)), 431);
}

#[test]
fn a_head_beyond_the_limit_is_refused_wherever_it_grows() {
    let gate = Gate::with("header_limit = \"8KiB\"");
    let long = "a".repeat(9 * 1024);
    gate.refuses(
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        431,
    );
    gate.refuses(&get(&format!("X-A: {long}\r\n")), 431);
    gate.refuses(&get(&format!("{long}: b\r\n")), 431);
    gate.refuses("a".repeat(100 * 1024).as_bytes(), 431);
    let mut client = gate.rig.client();
    client.send(&get(&format!("X-A: {}\r\n", "a".repeat(7 * 1024))));
    assert_eq!(client.read_response(false).status, 200);
}

/// The app must see such a request cut off, if at all: never whole.
fn is_cut_off(body: &[u8]) {
    let app = FakeApp::start(Connection::serve_until_cut_off);
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = rig.client();
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    // It may be answered, and the connection closed, before all of it has been sent.
    let _sent = client.try_send(body);
    let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
    let answer = client.read_response(false);
    assert_eq!(answer.status, 400, "{shown:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
    assert_eq!(
        client.read_to_close(),
        b"",
        "{shown:?}: what followed was taken for a request"
    );
    assert_eq!(rig.request("GET", "/harmless", &[], b"").status, 200);
    let seen = app.requests(1);
    let whole: Vec<_> = seen.iter().filter(|request| request.complete).collect();
    assert_eq!(whole.len(), 1, "{shown:?}: {seen:#?}");
    assert_eq!(whole[0].target(), "/harmless", "{shown:?}");
}

impl Connection {
    fn serve_until_cut_off(&mut self) {
        while self.read_request().is_some_and(|request| request.complete) {
            self.write(OK);
        }
    }
}

#[test]
fn a_chunk_size_that_is_not_hexadecimal_cuts_the_request_off() {
    for line in [
        "0x5",
        "+5",
        "-5",
        " 5",
        "5 ",
        "5_",
        "",
        "g",
        "\t5",
        "00000000000000005",
        "5;\x01",
        "5,5",
    ] {
        is_cut_off(
            format!("{line}\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
                .as_bytes(),
        );
    }
    is_cut_off(format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(1024 * 1024)).as_bytes());
}

#[test]
fn chunks_whose_lines_do_not_end_with_cr_lf_cut_the_request_off() {
    for body in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    ] {
        is_cut_off(body);
    }
}

#[test]
fn trailers_that_are_not_header_lines_cut_the_request_off() {
    for body in [
        &b"5\r\nhello\r\n0\r\nno colon\r\n\r\n"[..],
        b"5\r\nhello\r\n0\r\n folded: a\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-A: b\nX-B: c\r\n\r\n",
    ] {
        is_cut_off(body);
    }
    let endless = format!("0\r\n{}\r\n", "X-A: b\r\n".repeat(2000));
    is_cut_off(endless.as_bytes());
}

#[test]
fn trailers_end_here_whatever_they_are_called() {
    let gate = Gate::new();
    let mut client = gate.rig.client();
    client.send(&post(
        "Transfer-Encoding: chunked\r\nTrailer: X-WX-OPENID\r\n",
        "5\r\nhello\r\n0\r\nX-WX-OPENID: admin\r\nHost: evil\r\nContent-Length: 3\r\n\r\n",
    ));
    assert_eq!(client.read_response(false).status, 200);
    let request = gate.app.only_request();
    assert_eq!(request.body, b"hello");
    let text = String::from_utf8(request.bytes).unwrap().to_lowercase();
    assert!(
        !text.contains("admin") && !text.contains("evil") && !text.contains("trailer"),
        "{text}"
    );
}

#[test]
fn a_body_shorter_than_announced_is_cut_off_for_the_app_too() {
    for fields in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let app = FakeApp::start(Connection::serve_until_cut_off);
        let rig = Rig::with(&app.url(), "auth = \"none\"", "");
        let mut client = rig.client();
        client.send(&post(fields, "5\r\nhel"));
        client.finish_sending();
        assert_eq!(client.read_response(false).status, 400);
        assert_eq!(client.read_to_close(), b"");
        assert!(!app.only_request().complete, "{fields}");
    }
}

#[test]
fn a_client_that_vanishes_in_its_body_leaves_a_request_cut_off() {
    let app = FakeApp::start(Connection::serve_until_cut_off);
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let mut client = rig.client();
    client.send(&post("Content-Length: 10\r\n", "hello"));
    client.stream().shutdown(Shutdown::Both).unwrap();
    drop(client);
    assert!(!app.only_request().complete);
}

#[test]
fn a_head_may_arrive_in_two_parts_cut_anywhere() {
    // What comes between the parts may take its time on a busy machine.
    let gate = Gate::with("header_timeout = \"2m\"");
    let request = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello";
    let mut client = gate.rig.client();
    for cut in 1..request.len() {
        client.send(&request[..cut]);
        // An interim exchange of another connection is time enough for the first part to be read alone.
        assert_eq!(gate.rig.request("GET", "/between", &[], b"").status, 200);
        client.send(&request[cut..]);
        assert_eq!(client.read_response(false).status, 200, "cut at {cut}");
    }
    let seen = gate.app.requests(2 * (request.len() - 1));
    assert_eq!(seen.len(), 2 * (request.len() - 1));
    for request in seen.iter().filter(|request| request.target() != "/between") {
        assert_eq!(
            (request.target(), &request.body[..]),
            ("/a?b=c", &b"hello"[..])
        );
    }
}

#[test]
fn empty_lines_before_a_request_are_forgiven() {
    let gate = Gate::new();
    let mut client = gate.rig.client();
    client.send(b"\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.read_response(false).status, 200);
    client.send(b"\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.read_response(false).status, 200);
    assert_eq!(gate.app.targets(), ["/a", "/b"]);
}

/// An app that answers with the target, so that answers can be told apart.
fn echo() -> FakeApp {
    FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            let target = request.target();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                target.len()
            );
            connection.write(answer.as_bytes());
        }
    })
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = echo();
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let targets: Vec<_> = (0..20).map(|n| format!("/{n}")).collect();
    let requests: String = targets
        .iter()
        .map(|target| {
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        })
        .collect();
    let mut client = rig.client();
    client.send(requests.as_bytes());
    for target in &targets {
        assert_eq!(client.read_response(false).text(), target);
    }
    assert!(client.is_quiet());
    // One after the other, be it over one connection or, where a POST finds none that was in use a moment ago, over more.
    assert_eq!(app.targets(), targets);
}

#[test]
fn a_bad_request_among_pipelined_ones_ends_the_connection_there() {
    let app = echo();
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let good = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n");
    let bad =
        "GET /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = rig.client();
    client.send(format!("{}{}{bad}{}", good(0), good(1), good(2)).as_bytes());
    assert_eq!(client.read_response(false).text(), "/0");
    assert_eq!(client.read_response(false).text(), "/1");
    assert_eq!(client.read_response(false).status, 400);
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(app.targets(), ["/0", "/1"]);
}

#[test]
fn a_client_of_http_1_0_is_closed_on_unless_it_asks() {
    let gate = Gate::new();
    let mut client = gate.rig.client();
    client.send(b"GET /a HTTP/1.0\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.read_to_close(), b"");

    let mut client = gate.rig.client();
    for _ in 0..2 {
        client.send(b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = client.read_response(false);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("keep-alive"))
        );
    }
    assert!(client.is_quiet());
    assert!(
        gate.app
            .requests(3)
            .iter()
            .all(|request| request.head.contains(" HTTP/1.1\r\n"))
    );
}

#[test]
fn a_client_that_wants_to_close_is_closed_on() {
    let gate = Gate::new();
    for option in ["close", "Close", "keep-alive, close", "x,close"] {
        let mut client = gate.rig.client();
        client.send(&get(&format!("Connection: {option}\r\n")));
        let answer = client.read_response(false);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close")),
            "{option}"
        );
        assert_eq!(client.read_to_close(), b"");
    }
    let mut client = gate.rig.client();
    client.send(&get("Connection: x\r\nConnection: close\r\n"));
    assert_eq!(
        client.read_response(false).header("connection"),
        Some("close")
    );
}

#[test]
fn answers_without_a_body_are_not_followed_by_one() {
    for (method, app_says, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Some("5"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            Some("5"),
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
        ),
    ] {
        let app = FakeApp::answering(app_says);
        let rig = Rig::with(&app.url(), "auth = \"none\"", "");
        let mut client = rig.client();
        for _ in 0..2 {
            let answer = client.request(method, "/a", &[], b"");
            assert_eq!(
                answer.header("content-length"),
                length,
                "{method} {app_says:?}"
            );
            assert_eq!(answer.header("transfer-encoding"), None);
            assert_eq!(answer.body, b"");
            assert!(client.is_quiet(), "{method} {app_says:?}");
        }
        assert_eq!(
            app.connections(),
            1,
            "{app_says:?}: nothing was wrong with the connection"
        );
    }
}

#[test]
fn bytes_beyond_a_body_are_the_next_request_and_prove_themselves_anew() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let alice = rig.login("alice");
    let bearer = alice.bearer();
    let mut client = rig.client();
    client.send(
        format!(
            "POST /a HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Length: 0\r\n\r\n\
             GET /b HTTP/1.1\r\nHost: x\r\nX-WX-OPENID: {}\r\n\r\n",
            alice.openid
        )
        .as_bytes(),
    );
    assert_eq!(client.read_response(false).status, 200);
    assert_eq!(client.read_response(false).status, 401);
    assert_eq!(app.targets(), ["/a"]);
}

#[test]
fn methods_that_seldom_have_a_body_keep_it() {
    let gate = Gate::new();
    for method in ["GET", "DELETE", "OPTIONS", "PROPFIND"] {
        let mut client = gate.rig.client();
        assert_eq!(client.request(method, "/a", &[], b"hello").status, 200);
        let chunks = chunked(&[b"he", b"llo"]);
        let coding = [("Transfer-Encoding", "chunked")];
        assert_eq!(client.request(method, "/a", &coding, &chunks).status, 200);
    }
    for request in gate.app.requests(8) {
        assert_eq!(request.body, b"hello", "{}", request.head);
    }
}

#[test]
fn a_slow_head_is_answered_with_408() {
    let gate = Gate::with("header_timeout = \"200ms\"");
    gate.refuses(b"GET /a HTTP/1.1\r\nHost: x\r\n", 408);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let rig = Rig::with("http://127.0.0.1:1", "idle_timeout = \"200ms\"", "");
    assert_eq!(
        Client::connect(rig.sidecar().inbound_addr()).read_to_close(),
        b""
    );
}
