//! `X-WX-Media-Id` in an app's answer: the medium takes the place of its body, and all else stays the app's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fake_app::{FakeApp, Request};
use crate::h2_peer::{H2App, send};
use crate::http_client::Response;
use crate::http2_client::{End, Http2Client};
use crate::media::{Gallery, picture, upload};
use crate::rig::{Rig, Session};

/// An app that answers each path by what a test has told it.
struct Stage {
    rig: Rig,
    app: FakeApp,
    session: Session,
    picture: Vec<u8>,
    id: String,
    answers: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Stage {
    fn new() -> Self {
        let answers = Arc::<Mutex<HashMap<String, Vec<u8>>>>::default();
        let known = Arc::clone(&answers);
        let answer = move |request: &Request| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known[request.target()].clone()
        };
        let app = FakeApp::start(move |connection| {
            while let Some(request) = connection.read_request().filter(|it| it.complete) {
                connection.write(&answer(&request));
            }
        });
        let gallery = Gallery::before(&app.url(), "auth = \"optional\"", "");
        Self {
            rig: gallery.rig,
            app,
            session: gallery.session,
            picture: gallery.picture,
            id: gallery.id,
            answers,
        }
    }

    /// Has the app answer `path` with a status line, lines and a body; `{id}` is the medium.
    fn answer(&self, path: &str, status: &str, lines: &[&str], body: &str) {
        let mut text = format!("HTTP/1.1 {status}\r\n");
        for line in lines {
            text += &line.replace("{id}", &self.id);
            text += "\r\n";
        }
        text += "\r\n";
        text += body;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), text.into_bytes());
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.rig.request("GET", path, headers, b"")
    }
}

#[test]
fn the_medium_is_the_body_and_the_rest_is_the_apps() {
    let stage = Stage::new();
    stage.answer(
        "/a",
        "200 OK",
        &[
            "X-WX-Media-Id: {id}",
            "Content-Length: 7",
            "Content-Type: text/html",
            "Content-Encoding: gzip",
            "ETag: \"apps\"",
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            "Accept-Ranges: none",
            "Content-Range: bytes 0-6/7",
            "Content-Digest: sha-256=:AAAA:",
            "X-WX-Anything: secret",
            "Connection: X-Private",
            "X-Private: 1",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "X-App: yes",
            "Vary: Cookie",
        ],
        "ignored",
    );
    let mut client = stage.rig.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/a", &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == stage.picture, "{} bytes", answer.body.len());
        for (name, value) in [
            ("content-type", Some("image/png")),
            ("content-length", Some("100000")),
            ("accept-ranges", Some("bytes")),
            ("cache-control", Some("private, no-cache")),
            ("x-content-type-options", Some("nosniff")),
            ("x-app", Some("yes")),
            ("vary", Some("Cookie")),
            ("age", None),
            ("content-encoding", None),
            ("content-range", None),
            ("content-digest", None),
            ("last-modified", None),
            ("x-private", None),
            ("x-wx-media-id", None),
            ("x-wx-anything", None),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert_eq!(answer.headers_all("set-cookie"), ["a=1", "b=2"]);
        let etags = answer.headers_all("etag");
        assert!(etags.len() == 1 && etags != ["\"apps\""], "{etags:?}");
        assert_eq!(answer.headers_all("x-request-id").len(), 1);
        assert_eq!(answer.headers_all("date").len(), 1);
    }
    assert!(client.is_quiet());
    assert_eq!(stage.app.connections(), 1, "its connection lives on");
}

#[test]
fn what_the_app_says_of_keeping_and_naming_counts() {
    let stage = Stage::new();
    stage.answer(
        "/a",
        "200 OK",
        &[
            "x-wx-media-id: {id}",
            "Content-Length: 0",
            "Cache-Control: max-age=60",
            "Content-Disposition: attachment; filename=\"x.png\"",
            "Content-Security-Policy: default-src 'self'",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        ],
        "",
    );
    stage.answer(
        "/b",
        "200 OK",
        &["X-WX-Media-Id: {id}", "Content-Length: 0", "Expires: 0"],
        "",
    );
    for _ in 0..2 {
        let answer = stage.get("/a", &[]);
        assert!(answer.body == stage.picture);
        for (name, value) in [
            ("cache-control", "max-age=60"),
            ("content-disposition", "attachment; filename=\"x.png\""),
            ("content-security-policy", "default-src 'self'"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        assert_eq!(answer.header("age"), None);
    }
    let answer = stage.get("/b", &[]);
    assert_eq!(answer.header("expires"), Some("0"));
    assert_eq!(answer.header("cache-control"), None);
}

#[test]
fn parts_and_conditions_are_the_mediums_if_the_app_says_200() {
    let stage = Stage::new();
    let lines = [
        "X-WX-Media-Id: {id}",
        "Content-Length: 0",
        "Set-Cookie: a=1",
    ];
    stage.answer("/ok", "200 OK", &lines, "");
    stage.answer("/gone", "404 Not Found", &lines, "");
    stage.answer("/made", "201 Created", &lines, "");
    let etag = stage.get("/ok", &[]).header("etag").unwrap().to_owned();
    let range = ("Range", "bytes=10-19");
    let known = ("If-None-Match", etag.as_str());
    let mut client = stage.rig.client();
    for (path, header, status, body) in [
        ("/ok", range, 206, &stage.picture[10..20]),
        ("/ok", known, 304, b""),
        ("/gone", range, 404, &stage.picture),
        ("/gone", known, 404, &stage.picture),
        ("/made", range, 201, &stage.picture),
    ] {
        let answer = client.request("GET", path, &[header], b"");
        assert_eq!(answer.status, status, "{path} {header:?}");
        assert!(answer.body == body, "{path} {header:?}");
        assert_eq!(answer.header("set-cookie"), Some("a=1"));
    }
    let beyond = client.request("GET", "/ok", &[("Range", "bytes=100000-")], b"");
    beyond.problem(416, "range-not-satisfiable");
    assert_eq!(client.request("GET", "/ok", &[], b"").status, 200);
}

#[test]
fn a_head_is_answered_without_a_body() {
    let stage = Stage::new();
    let lines = ["X-WX-Media-Id: {id}", "Content-Length: 5", "X-App: yes"];
    stage.answer("/a", "200 OK", &lines, "");
    let mut client = stage.rig.client();
    for _ in 0..2 {
        let answer = client.request("HEAD", "/a", &[], b"");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some("100000"));
        assert_eq!(answer.header("content-type"), Some("image/png"));
        assert_eq!(answer.header("x-app"), Some("yes"));
    }
    assert_eq!(stage.app.connections(), 1);
}

#[test]
fn an_answer_that_has_no_body_stays_as_it_is() {
    let stage = Stage::new();
    let lines = ["X-WX-Media-Id: {id}", "X-App: yes", "ETag: \"apps\""];
    for (path, status) in [
        ("/204", "204 No Content"),
        ("/205", "205 Reset Content\r\nContent-Length: 0"),
        ("/304", "304 Not Modified"),
    ] {
        stage.answer(path, status, &lines, "");
        let answer = stage.get(path, &[]);
        assert_eq!(answer.status.to_string(), path[1..]);
        assert_eq!(answer.header("etag"), Some("\"apps\""));
        assert_eq!(answer.header("x-app"), Some("yes"));
        assert_eq!(answer.header("x-wx-media-id"), None);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn bodies_of_the_apps_own_are_dropped_however_they_come() {
    let stage = Stage::new();
    let large = "x".repeat(1 << 20);
    let length = format!("Content-Length: {}", large.len());
    stage.answer(
        "/large",
        "200 OK",
        &["X-WX-Media-Id: {id}", &length],
        &large,
    );
    stage.answer(
        "/chunked",
        "200 OK",
        &["X-WX-Media-Id: {id}", "Transfer-Encoding: chunked"],
        "3\r\nabc\r\n0\r\n\r\n",
    );
    stage.answer(
        "/early",
        "103 Early Hints",
        &[
            "Link: </a>",
            "X-WX-Media-Id: hint",
            "",
            "HTTP/1.1 200 OK",
            "X-WX-Media-Id: {id}",
            "Content-Length: 2",
        ],
        "ok",
    );
    let mut client = stage.rig.client();
    for path in ["/chunked", "/chunked", "/early", "/large", "/chunked"] {
        let answer = client.request("GET", path, &[], b"");
        assert!(answer.body == stage.picture, "{path}");
        let posted = client.request("POST", path, &[], b"some body");
        assert!(posted.body == stage.picture, "{path}");
    }
}

#[test]
fn what_cannot_be_had_is_told_in_place_of_the_answer() {
    let stage = Stage::new();
    for (path, lines, status, slug) in [
        (
            "/path",
            &["X-WX-Media-Id: ../token"][..],
            502,
            "upstream-invalid",
        ),
        ("/empty", &["X-WX-Media-Id:"], 502, "upstream-invalid"),
        (
            "/two",
            &["X-WX-Media-Id: a", "X-WX-Media-Id: b"],
            502,
            "upstream-invalid",
        ),
    ] {
        stage.answer(
            path,
            "200 OK",
            &[lines, &["Content-Length: 0"]].concat(),
            "",
        );
        stage.get(path, &[]).problem(status, slug);
    }
    let lines = ["X-WX-Media-Id: nothing-by-this-name", "Content-Length: 0"];
    stage.answer(
        "/unknown",
        "200 OK",
        &[&lines[..], &["Set-Cookie: a=1"]].concat(),
        "",
    );
    let answer = stage.get("/unknown", &[]);
    assert_eq!(answer.problem(404, "wechat-refused")["errcode"], 40007);
    assert_eq!(answer.header("set-cookie"), None);
}

#[test]
fn other_spellings_mean_nothing_and_go_no_further() {
    let stage = Stage::new();
    let lines = ["X_WX_Media_Id: {id}", "Content-Length: 2"];
    stage.answer("/a", "200 OK", &lines, "ok");
    let answer = stage.get("/a", &[("X-WX-Media-Id", &stage.id)]);
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.headers_all("x_wx_media_id").len(), 0);
    let request = stage.app.only_request();
    assert_eq!(request.header("x-wx-media-id"), None, "a client has no say");
}

#[test]
fn where_no_media_are_dealt_with_the_header_is_dropped() {
    let app = FakeApp::answering(
        &b"HTTP/1.1 200 OK\r\nX-WX-Media-Id: id\r\nContent-Length: 2\r\n\r\nok"[..],
    );
    let rig = Rig::with(&app.url(), "auth = \"none\"", "[media]\nenabled = false\n");
    let answer = rig.request("GET", "/a", &[], b"");
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.header("x-wx-media-id"), None);
}

#[test]
fn tokens_ride_on_the_medium_too() {
    let stage = Stage::new();
    let lines = [
        "X-WX-Media-Id: {id}",
        "Content-Length: 0",
        "Cache-Control: max-age=60",
    ];
    stage.answer("/a", "200 OK", &lines, "");
    let code = stage.rig.code("bob");
    let answer = stage.get("/a", &[("X-WX-Code", &code)]);
    assert!(answer.body == stage.picture);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let session = Session::of_headers(&answer, "bob");
    assert_eq!(stage.rig.get_as(&session, "/wx/session").status, 200);
    let plain = stage.rig.get_as(&stage.session, "/a");
    assert_eq!(plain.header("x-wx-access-token"), None);
}

#[test]
fn over_http2_it_is_the_same() {
    let stage = Stage::new();
    stage.answer(
        "/a",
        "200 OK",
        &["X-WX-Media-Id: {id}", "Content-Length: 3"],
        "abc",
    );
    let mut client = Http2Client::connect(stage.rig.sidecar().inbound_addr());
    client.get(1, "/a", &[]);
    assert_eq!(client.end_of(1), End::Answer(200));
    assert!(client.stream(1).body == stage.picture);
    client.get(3, "/a", &[("range", "bytes=1-2")]);
    assert_eq!(client.end_of(3), End::Answer(206));
    assert!(client.stream(3).body == stage.picture[1..3]);
}

#[test]
fn an_app_behind_http2_names_media_too() {
    let app = H2App::start(|mut call| async move {
        let id = call.head.uri.query().unwrap().to_owned();
        let mut body = call.answer(&[("x-wx-media-id", &id), ("set-cookie", "a=1")], false);
        send(&mut body, b"ignored", true).await.unwrap();
    });
    let rig = Rig::with(&app.url(), "auth = \"none\"", "");
    let picture = picture(100_000);
    let id = upload(&rig, "image", "a.png", &picture);
    let mut client = rig.client();
    for _ in 0..3 {
        let answer = client.request("GET", &format!("/a?{id}"), &[], b"");
        assert_eq!(answer.status, 200);
        assert!(answer.body == picture);
        assert_eq!(answer.header("set-cookie"), Some("a=1"));
        assert_eq!(answer.header("x-wx-media-id"), None);
    }
}
