//! The PROXY protocol from the outside: who is believed, and what the app is told.

use crate::fake_app::FakeApp;
use crate::http_client::Client;
use crate::patience::eventually;
use crate::rig::Rig;

const TRUSTING: &str =
    "auth = \"none\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.99\r\n\r\n";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";
/// 192.0.2.8 through version 2, with an extension of three bytes.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xc0\x00\x02\x08\x0a\x00\x00\x01\x30\x39\x00\x50\x04\x00\x01a";

/// A health check of the proxy's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Waits for the count, which follows what the client sees.
fn counts_refused(rig: &Rig, reason: &str, count: f64) {
    eventually("it is counted", || refused(rig, reason) >= count);
    assert_eq!(refused(rig, reason), count);
}

fn refused(rig: &Rig, reason: &str) -> f64 {
    let series = "wx_sidecar_http_connections_refused_total";
    rig.metric(&format!("{series}{{reason=\"{reason}\"}}"))
}

#[test]
fn the_client_that_a_trusted_proxy_names_is_the_peer() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), TRUSTING, "");
    for (header, way) in [
        (LINE, "192.0.2.7"),
        (BINARY, "192.0.2.8"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        // Another trusted proxy: what it says of the way before it is kept.
        (
            b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n",
            "192.0.2.99, 10.1.2.3",
        ),
        // The proxy speaks for itself.
        (LOCAL, "192.0.2.99, 127.0.0.1"),
        // Whoever this is, it is not the proxy that says where it came from.
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut client = rig.client();
        client.send(&[header, GET].concat());
        assert_eq!(client.read_response(false).status, 200);
        // It is said once, and holds for the whole connection.
        client.send(GET);
        assert_eq!(client.read_response(false).status, 200);
        let requests = app.requests(1);
        for request in &requests[requests.len() - 2..] {
            assert_eq!(request.header("x-forwarded-for"), Some(way));
        }
    }
    assert_eq!(refused(&rig, "proxy"), 0.0);
}

#[test]
fn a_header_may_come_in_any_two_pieces() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), TRUSTING, "");
    for header in [LINE, BINARY] {
        let all = [header, GET].concat();
        for at in 1..header.len() {
            let mut client = rig.client();
            client.send(&all[..at]);
            client.send(&all[at..]);
            assert_eq!(client.read_response(false).status, 200, "{at}");
        }
    }
    let count = LINE.len() + BINARY.len() - 2;
    for request in app.requests(count) {
        let way = request.header("x-forwarded-for").unwrap();
        assert!(matches!(way, "192.0.2.7" | "192.0.2.8"), "{way}");
    }
}

#[test]
fn a_stranger_cannot_say_who_it_is() {
    let app = FakeApp::agreeable();
    let stranger = TRUSTING.replace("\"127.0.0.1\", ", "");
    let rig = Rig::with(&app.url(), &stranger, "");
    for header in [LINE, BINARY] {
        let mut client = rig.client();
        client.send(&[header, GET].concat());
        // It is taken for HTTP, and is none: what would be the version is an address.
        let status = client.read_response(false).status;
        assert!(matches!(status, 400 | 505), "{status}");
    }
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.read_response(false).status, 200);
    let way = app.only_request();
    assert_eq!(way.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(refused(&rig, "proxy"), 0.0);
}

#[test]
fn a_trusted_proxy_that_says_nothing_is_closed_without_an_answer() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), TRUSTING, "");
    for bad in [
        GET,
        b"PROXY TCP4 a b c d\r\n",
        b"\r\n\r\n\0\r\nQUIT\nxxxxxxxxxxxx",
    ] {
        let mut client = rig.client();
        client.send(bad);
        assert_eq!(client.read_to_close(), b"");
    }
    counts_refused(&rig, "proxy", 3.0);
    // So little time only for this one, or a busy machine might make the others too late as well.
    let timeout = format!("{TRUSTING}\nheader_timeout = \"300ms\"");
    let rig = Rig::with(&app.url(), &timeout, "");
    let mut slow = rig.client();
    slow.send(b"PROXY TCP4 192.0.2.7");
    assert_eq!(slow.read_to_close(), b"");
    counts_refused(&rig, "proxy_timeout", 1.0);
    drop(Client::connect(rig.sidecar().inbound_addr()));
    assert_eq!(app.connections(), 0);
}

#[test]
fn it_needs_somebody_to_be_trusted() {
    let config = crate::rig::configuration(
        "http://127.0.0.1:1",
        "http://127.0.0.1:1",
        "proxy_protocol = true",
        "",
    );
    let report = wx_sidecar::Config::from_toml(&config)
        .unwrap_err()
        .to_string();
    assert!(report.contains("no proxy is trusted"), "{report}");
}
