//! The main job, on real apps: a phone logs in, the app is told who it is, and everything else passes as it is.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::json;

use crate::backends::{App, Echo, Kind, download, form, sha256};
use crate::http_client::{Client, Response, chunked};
use crate::rig::{APPID, Rig, Session};

/// Forged values hold this word, so that a trace of them is found wherever it ends up.
const FORGED: &str = "oForgedForgedForgedForged000";

/// Where a client's word must not count, whoever may pass there.
const ROUTES: &str = "[[route]]\npath = \"/echo/open/**\"\nauth = \"none\"\n\
     [[route]]\npath = \"/echo/either/**\"\nauth = \"optional\"\n\
     [[route]]\npath = \"/public/**\"\nauth = \"none\"\n";

/// A real app and a rig in front of it.
fn rig_of(kind: Kind) -> (App, Rig) {
    let app = App::start(kind, None);
    let rig = Rig::with(&app.url(), "", ROUTES);
    (app, rig)
}

fn post(
    client: &mut Client,
    session: &Session,
    target: &str,
    more: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let bearer = session.bearer();
    let headers = [&[("Authorization", bearer.as_str())], more].concat();
    client.request("POST", target, &headers, body)
}

fn get(client: &mut Client, session: &Session, target: &str) -> Response {
    client.request("GET", target, &[("Authorization", &session.bearer())], b"")
}

#[test]
fn an_express_app_works_for_its_users() {
    works_for_its_users(Kind::Express);
}

#[test]
fn a_flask_app_works_for_its_users() {
    works_for_its_users(Kind::Flask);
}

fn works_for_its_users(kind: Kind) {
    let (_app, rig) = rig_of(kind);
    let (alice, bob) = (rig.login("alice"), rig.login("bob"));
    assert_ne!(alice.openid, bob.openid);
    // All over one connection, which no answer may close.
    let mut client = rig.client();
    tells_users_apart(&rig, &mut client, &alice, &bob);
    takes_bodies(&mut client, &alice);
    gives_bodies(&mut client, &alice);
    passes_the_apps_own_failures(&mut client, &alice);
    assert!(client.is_quiet());
}

fn tells_users_apart(rig: &Rig, client: &mut Client, alice: &Session, bob: &Session) {
    for (name, session) in [("alice", alice), ("bob", bob)] {
        let me = get(client, session, "/api/whoami").json();
        assert_eq!(me["openid"], session.openid.as_str());
        assert_eq!(me["openid"], rig.sim.openid(name).as_str());
        assert_eq!(me["appid"], APPID);
        assert_eq!(me["source"], "wx_client");
        assert!(me["unionid"].is_string() && me["env"].is_string(), "{me}");
    }
    let stranger = client.request("GET", "/api/whoami", &[], b"");
    assert_eq!(stranger.status, 401);
    assert_eq!(
        stranger.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    assert_eq!(
        client.request("GET", "/public/hello", &[], b"").json(),
        json!({"hello": "world", "openid": null})
    );

    let json = [("Content-Type", "application/json")];
    for (session, times) in [(alice, 3), (bob, 1)] {
        for _ in 0..times {
            assert_eq!(
                post(client, session, "/api/count", &json, br#"{"action":"inc"}"#).status,
                200
            );
        }
    }
    for (session, count) in [(alice, 3), (bob, 1)] {
        assert_eq!(get(client, session, "/api/count").json()["data"], count);
    }
}

fn takes_bodies(client: &mut Client, session: &Session) {
    let image = [("Content-Type", "image/png")];
    let in_chunks = [
        ("Content-Type", "image/png"),
        ("Transfer-Encoding", "chunked"),
    ];
    for length in [0, 1, 100, 3 * 1024 * 1024] {
        let content = download(length);
        let taken =
            json!({"bytes": length, "sha256": sha256(&content), "content_type": "image/png"});
        let sized = post(client, session, "/api/upload", &image, &content);
        assert_eq!(sized.json(), taken);
        let (first, rest) = content.split_at(length / 3);
        let body = chunked(&[first, rest]);
        assert_eq!(
            post(client, session, "/api/upload", &in_chunks, &body).json(),
            taken
        );
    }

    let content = download(300_000);
    let (content_type, body) = form(&[("title", "标题"), ("n", "1")], "照片 1.jpg", &content);
    let response = post(
        client,
        session,
        "/api/form",
        &[("Content-Type", content_type)],
        &body,
    );
    assert_eq!(
        response.json(),
        json!({
            "filename": "照片 1.jpg", "bytes": content.len(), "sha256": sha256(&content),
            "fields": {"title": "标题", "n": "1"},
        })
    );

    let object = json!({"text": "中文 \u{1f600}", "list": [1, 2.5, null, true]});
    let json = [("Content-Type", "application/json")];
    let response = post(
        client,
        session,
        "/api/json",
        &json,
        object.to_string().as_bytes(),
    );
    assert_eq!(response.json(), object);
}

fn gives_bodies(client: &mut Client, session: &Session) {
    for length in [0, 1, 5_000_003] {
        let sized = get(client, session, &format!("/api/download?bytes={length}"));
        assert_eq!(
            sized.header("content-length"),
            Some(length.to_string().as_str())
        );
        assert!(
            !sized.truncated && sized.body == download(length),
            "{length} bytes"
        );
        let in_chunks = get(
            client,
            session,
            &format!("/api/download?bytes={length}&chunked=1"),
        );
        assert_eq!(in_chunks.header("transfer-encoding"), Some("chunked"));
        assert!(
            !in_chunks.truncated && in_chunks.body == download(length),
            "{length} bytes in chunks"
        );
    }
    let bearer = session.bearer();
    let head = client.request(
        "HEAD",
        "/api/download?bytes=5",
        &[("Authorization", &bearer)],
        b"",
    );
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
}

/// What the app says of its own accord is not ours to rewrite.
fn passes_the_apps_own_failures(client: &mut Client, session: &Session) {
    for (target, status) in [("/api/missing", 404), ("/api/boom", 500)] {
        let answer = get(client, session, target);
        assert_eq!(answer.status, status);
        let content_type = answer.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("text/html"), "{content_type}");
        assert!(answer.text().contains("<!"), "{}", answer.text());
    }
}

#[test]
fn an_express_app_that_dies_is_a_502_and_works_again_once_it_is_back() {
    dies_and_comes_back(Kind::Express);
}

#[test]
fn a_flask_app_that_dies_is_a_502_and_works_again_once_it_is_back() {
    dies_and_comes_back(Kind::Flask);
}

fn dies_and_comes_back(kind: Kind) {
    let (mut app, rig) = rig_of(kind);
    let alice = rig.login("alice");
    let mut client = rig.client();
    assert_eq!(get(&mut client, &alice, "/api/whoami").status, 200);
    let port = app.port();
    app.kill();
    for method in ["GET", "POST"] {
        let answer = client.request(
            method,
            "/api/whoami",
            &[("Authorization", &alice.bearer())],
            b"",
        );
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        let problem = answer.json();
        assert_eq!(
            problem["type"],
            "urn:wx-sidecar:problem:upstream-unreachable"
        );
        assert_eq!(problem["status"], 502);
        assert_eq!(problem["instance"].as_str(), answer.header("x-request-id"));
    }
    // What needs no app goes on.
    assert_eq!(get(&mut client, &alice, "/wx/session").status, 200);
    let _again = App::start(kind, Some(port));
    assert_eq!(
        get(&mut client, &alice, "/api/whoami").json()["openid"],
        alice.openid.as_str()
    );
}

#[test]
fn an_express_app_restarted_between_two_requests_costs_no_client_an_error() {
    is_restarted_between_requests(Kind::Express);
}

#[test]
fn a_flask_app_restarted_between_two_requests_costs_no_client_an_error() {
    is_restarted_between_requests(Kind::Flask);
}

/// Several connections to the app idle in the pools of both workers when it is killed; all of them are dead afterwards.
fn is_restarted_between_requests(kind: Kind) {
    let (mut app, rig) = rig_of(kind);
    let alice = rig.login("alice");
    let json = [("Content-Type", "application/json")];
    let mut clients: Vec<_> = (0..8).map(|_| rig.client()).collect();
    for round in 0..2 {
        thread::scope(|scope| {
            for client in &mut clients {
                let alice = &alice;
                scope.spawn(move || assert_eq!(get(client, alice, "/api/slow?ms=50").status, 200));
            }
        });
        let port = app.port();
        app.kill();
        app = App::start(kind, Some(port));
        for (index, client) in clients.iter_mut().enumerate() {
            let answer = if (index + round) % 2 == 0 {
                get(client, &alice, "/api/whoami")
            } else {
                post(client, &alice, "/api/count", &json, br#"{"action":"inc"}"#)
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

#[test]
fn an_express_app_sees_one_line_of_each_header_that_says_who_calls() {
    is_told_once(Kind::Express);
}

#[test]
fn a_flask_app_sees_one_line_of_each_header_that_says_who_calls() {
    is_told_once(Kind::Flask);
}

fn is_told_once(kind: Kind) {
    let (_app, rig) = rig_of(kind);
    let alice = rig.login("alice");
    let bearer = alice.bearer();
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Host", "mini.example.com"),
        ("X-Own", "kept"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Request-Id", "the-clients-own"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let answer = rig.request("GET", "/echo/a?b=%20c", &headers, b"");
    let echo = Echo::of(&answer);
    assert_eq!(
        (echo.method.as_str(), echo.url.as_str()),
        ("GET", "/echo/a?b=%20c")
    );
    assert_eq!(echo.values("X-WX-OPENID"), [alice.openid.as_str()]);
    assert_eq!(echo.values("X-WX-APPID"), [APPID]);
    assert_eq!(echo.values("X-WX-SOURCE"), ["wx_client"]);
    for name in ["X-WX-UNIONID", "X-WX-ENV", "traceparent"] {
        assert_eq!(echo.values(name).len(), 1, "{name}");
    }
    assert_eq!(echo.values("X-Own"), ["kept"]);
    assert!(
        echo.values("Authorization").is_empty(),
        "the token is between the client and the sidecar"
    );
    assert_eq!(echo.values("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(echo.values("X-Forwarded-Proto"), ["http"]);
    assert_eq!(echo.values("X-Forwarded-Host"), ["mini.example.com"]);
    assert_eq!(echo.values("X-Real-IP"), ["127.0.0.1"]);
    assert!(echo.values("Forwarded").is_empty());
    let request_id = answer
        .header("x-request-id")
        .expect("an answer has a request id");
    assert_ne!(request_id, "the-clients-own");
    assert_eq!(echo.values("X-Request-Id"), [request_id]);
    assert!(!echo.values("traceparent")[0].contains("0af7651916cd43dd8448eb211c80319c"));
}

#[test]
fn our_token_does_not_reach_the_app_in_any_spelling_of_the_header() {
    let (_app, rig) = rig_of(Kind::Express);
    let alice = rig.login("alice");
    for value in [
        format!("Bearer {}", alice.access),
        format!("bearer   {}", alice.access),
        format!("Bearer\t{}", alice.access),
        format!("Bearer {} ", alice.access),
        format!("Bearer {}, Basic eA==", alice.access),
        format!("Token token={}", alice.access),
        alice.access.clone(),
        format!("Bearer {}", alice.refresh),
    ] {
        let echo = Echo::of(&rig.request("GET", "/echo/open/x", &[("Authorization", &value)], b""));
        let text = format!("{:?}", echo.headers);
        assert!(
            !text.contains(&alice.access) && !text.contains(&alice.refresh),
            "{:?}",
            echo.values("Authorization").len()
        );
    }
    let own = "Basic dXNlcjpwYXNz";
    let echo = Echo::of(&rig.request("GET", "/echo/open/x", &[("Authorization", own)], b""));
    assert_eq!(echo.values("Authorization"), [own]);
}

/// All ways to write `x-wx-<word>` with separators that some server folds, besides other disguises.
fn spellings(word: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let separators = [
        "-", "_", ".", "~", "!", "#", "$", "%", "&", "'", "*", "+", "^", "`", "|", "--", "__", "-_",
    ];
    for first in separators {
        for second in separators {
            all.insert(format!("x{first}wx{second}{word}"));
        }
    }
    for name in [
        format!("X-WX-{}", word.to_uppercase()),
        format!("X_WX_{}", word.to_uppercase()),
        format!("X-WX_{}", word.to_uppercase()),
        format!("x-Wx_{word}"),
        format!("-x-wx-{word}"),
        format!("_X-WX-{word}"),
        format!("x-wx-{word}-"),
        format!("x-wx-{word}_"),
        format!("x-wx-{word}--_"),
    ] {
        all.insert(name);
    }
    all
}

#[test]
fn a_forged_identity_does_not_reach_an_express_app_in_any_spelling() {
    lets_no_forgery_through(Kind::Express);
}

#[test]
fn a_forged_identity_does_not_reach_a_flask_app_in_any_spelling() {
    lets_no_forgery_through(Kind::Flask);
}

fn lets_no_forgery_through(kind: Kind) {
    let (_app, rig) = rig_of(kind);
    let alice = rig.login("alice");
    let bearer = alice.bearer();
    let token = ("Authorization", bearer.as_str());
    let mut client = rig.client();
    for word in [
        "openid",
        "unionid",
        "source",
        "appid",
        "env",
        "from-openid",
        "anything",
    ] {
        let names: Vec<_> = spellings(word).into_iter().collect();
        // A batch stays below what Node and gunicorn take of headers.
        for batch in names.chunks(60) {
            let forged: Vec<_> = batch.iter().map(|name| (name.as_str(), FORGED)).collect();
            for target in ["/echo/open/x", "/echo/either/x"] {
                let echo = Echo::of(&client.request("GET", target, &forged, b""));
                is_free_of_forgery(&echo);
                assert!(
                    echo.values("X-WX-OPENID").is_empty() && echo.values("X-WX-SOURCE").is_empty()
                );
            }
            // Before and after our own, which could be the one that counts.
            let signed = [&[token], &forged[..]].concat();
            let signed_last = [&forged[..], &[token]].concat();
            for (target, headers) in [
                ("/echo/x", &signed),
                ("/echo/x", &signed_last),
                ("/echo/either/x", &signed),
            ] {
                let echo = Echo::of(&client.request("GET", target, headers, b""));
                is_free_of_forgery(&echo);
                assert_eq!(echo.values("X-WX-OPENID"), [alice.openid.as_str()]);
            }
        }
    }
}

fn is_free_of_forgery(echo: &Echo) {
    let found: Vec<_> = echo
        .headers
        .iter()
        .filter(|(_, value)| value.contains("orged"))
        .collect();
    assert!(found.is_empty(), "the app sees {found:?}");
}

#[test]
fn a_connection_header_cannot_take_identity_away() {
    for kind in Kind::ALL {
        let (_app, rig) = rig_of(kind);
        let alice = rig.login("alice");
        let bearer = alice.bearer();
        for connection in [
            &["X-WX-OPENID"] as &[&str],
            &["x-wx-openid, x-wx-appid, X-Forwarded-For, x-request-id, traceparent"],
            &["keep-alive", "X-wx-OpenID"],
            &["close, x-wx-openid"],
            &["close", "X-WX-OPENID"],
            &["X_WX_OPENID", "x-wx-source,,x-wx-env"],
        ] {
            let mut headers = vec![("Authorization", bearer.as_str()), ("X-WX-OPENID", FORGED)];
            headers.extend(connection.iter().map(|value| ("Connection", *value)));
            let answer = rig.request("GET", "/echo/x", &headers, b"");
            let echo = Echo::of(&answer);
            is_free_of_forgery(&echo);
            assert_eq!(
                echo.values("X-WX-OPENID"),
                [alice.openid.as_str()],
                "{connection:?}"
            );
            for name in [
                "X-WX-APPID",
                "X-WX-SOURCE",
                "X-WX-ENV",
                "X-Forwarded-For",
                "X-Request-Id",
                "traceparent",
            ] {
                assert_eq!(echo.values(name).len(), 1, "{name} with {connection:?}");
            }
        }
        // Every Connection line counts, not only the first.
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Connection", "keep-alive"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
        ];
        let echo = Echo::of(&rig.request("GET", "/echo/x", &headers, b""));
        assert!(echo.values("X-Hop").is_empty());
    }
}

#[test]
fn a_connection_header_that_names_the_token_does_not_make_a_stranger_of_its_owner_or_the_reverse() {
    let (_app, rig) = rig_of(Kind::Express);
    let alice = rig.login("alice");
    let bearer = alice.bearer();
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Connection", "authorization, cookie"),
        ("Cookie", "a=1"),
    ];
    let echo = Echo::of(&rig.request("GET", "/echo/either/x", &headers, b""));
    assert_eq!(echo.values("X-WX-OPENID"), [alice.openid.as_str()]);
    let headers = [
        ("Connection", "authorization"),
        ("Authorization", "Bearer wxat_bad"),
    ];
    assert_eq!(
        rig.request("GET", "/echo/either/x", &headers, b"").status,
        401
    );
}

#[test]
fn trailers_do_not_reach_the_app() {
    for kind in Kind::ALL {
        let (_app, rig) = rig_of(kind);
        let alice = rig.login("alice");
        for (target, expected) in [
            ("/echo/x", vec![alice.openid.as_str()]),
            ("/echo/open/x", vec![]),
        ] {
            let mut client = rig.client();
            client.send(
                format!(
                    "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\
                     TE: trailers\r\nTrailer: X-WX-OPENID\r\n\r\n4\r\nbody\r\n0\r\nX-WX-OPENID: {FORGED}\r\n\
                     X_WX_OPENID: {FORGED}\r\nX-Other: {FORGED}\r\n\r\n",
                    alice.bearer()
                )
                .as_bytes(),
            );
            let echo = Echo::of(&client.read_response(false));
            is_free_of_forgery(&echo);
            assert_eq!(echo.values("X-WX-OPENID"), expected);
            // And the connection goes on in step.
            assert_eq!(
                get(&mut client, &alice, "/api/whoami").json()["openid"],
                alice.openid.as_str()
            );
        }
    }
}

#[test]
fn a_folded_or_malformed_header_line_is_refused() {
    let (_app, rig) = rig_of(Kind::Express);
    for line in [
        format!("A: b\r\n X-WX-OPENID: {FORGED}"),
        format!("X-WX-OPENID : {FORGED}"),
        format!("X-WX-OPENID\t: {FORGED}"),
        format!(" X-WX-OPENID: {FORGED}"),
        format!("X-WX-OPEN\u{131}D: {FORGED}"),
        format!("A: b\nX-WX-OPENID: {FORGED}"),
        format!("A: b\rX-WX-OPENID: {FORGED}"),
    ] {
        let mut client = rig.client();
        client.send(format!("GET /echo/open/x HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n").as_bytes());
        assert_eq!(client.read_response(false).status, 400, "{line:?}");
    }
}

#[test]
fn two_thousand_requests_of_twenty_users_at_once_are_never_mixed_up() {
    let (_app, rig) = rig_of(Kind::Express);
    let users: Vec<_> = (0..20)
        .map(|user| rig.login(&format!("user {user}")))
        .collect();
    let begin = Barrier::new(50);
    thread::scope(|scope| {
        for thread in 0..50 {
            let (begin, rig, users) = (&begin, &rig, &users);
            scope.spawn(move || {
                let mut client = rig.client();
                begin.wait();
                for request in 0..40 {
                    // The user changes on the same connection, so that nothing may stick to it.
                    let user = &users[(thread * 7 + request) % users.len()];
                    let answer = get(&mut client, user, "/api/whoami");
                    assert_eq!(answer.json()["openid"], user.openid.as_str());
                }
            });
        }
    });
}
