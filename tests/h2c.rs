//! HTTP/2 to the app (`upstream = "h2c://..."`): gRPC and its trailers, one connection that requests share, and apps that
//! misbehave on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use http::{HeaderMap, StatusCode};

use crate::backends::{App, Kind, Script};
use crate::fake_app::Signal;
use crate::h2_peer::{
    Call, Client, H2App, block, frame, get, given, raw_app, read, read_body, read_some, request,
    run, send,
};
use crate::patience::{eventually, settled};
use crate::rig::{Rig, start};
use wx_sidecar::Sidecar;

/// A sidecar that lets everybody through.
fn open(upstream: &str) -> Rig {
    open_with(upstream, "")
}

fn open_with(upstream: &str, inbound: &str) -> Rig {
    Rig::with(upstream, &format!("auth = \"none\"\n{inbound}"), "")
}

/// A sidecar with one worker, which has one connection to the app.
fn of_one_worker(rig: &Rig) -> Sidecar {
    let config = rig.config_with("workers = 2", "workers = 1");
    start(&config, &rig.clock)
}

async fn client(rig: &Rig) -> Client {
    Client::connect(rig.sidecar().inbound_addr()).await
}

/// Echoes each message of a call, as a gRPC server would, and ends with a status.
async fn grpc(mut call: Call) {
    assert_eq!(call.header("te"), "trailers");
    assert_eq!(call.header("content-type"), "application/grpc");
    let openid = call.header("x-wx-openid");
    let mut stream = call.answer(
        &[
            ("content-type", "application/grpc"),
            ("x-openid-seen", &openid),
        ],
        false,
    );
    while let Some(data) = call.body.data().await {
        let Ok(data) = data else { return };
        call.body
            .flow_control()
            .release_capacity(data.len())
            .unwrap();
        send(&mut stream, &data, false).await.unwrap();
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("grpc-status", "0"),
        ("grpc-message", "fine"),
        ("x-wx-openid", "a"),
    ] {
        trailers.insert(name, value.parse().unwrap());
    }
    stream.send_trailers(trailers).unwrap();
}

const GRPC: [(&str, &str); 2] = [("te", "trailers"), ("content-type", "application/grpc")];

#[test]
fn a_grpc_call_streams_both_ways_and_ends_with_its_trailers() {
    let app = H2App::start(grpc);
    let rig = Rig::new(&app.url());
    let session = rig.login("alice");
    let bearer = session.bearer();
    run(async {
        let client = client(&rig).await;
        let lines = [
            &GRPC[..],
            &[("authorization", &bearer), ("x_wx_openid", "x")],
        ]
        .concat();
        let (answer, mut stream) = client
            .open(request("POST", "/echo.Echo/Chat", &lines), false)
            .await;
        let (parts, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(parts.headers["x-openid-seen"], *session.openid);
        // Each message has its answer before the next is sent.
        for message in ["one", "two", "three"] {
            send(&mut stream, message.as_bytes(), false).await.unwrap();
            assert_eq!(read_some(&mut body).await, message.as_bytes());
        }
        send(&mut stream, b"", true).await.unwrap();
        assert_eq!(read_body(&mut body).await.unwrap(), b"");
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers.len(), 2, "{trailers:?}");
    });
    let seen = &app.requests()[0];
    assert_eq!(
        seen.uri.authority().unwrap().as_str(),
        &app.url()["h2c://".len()..]
    );
    assert_eq!(seen.uri.path(), "/echo.Echo/Chat");
    assert_eq!(seen.headers.get_all("x-wx-openid").iter().count(), 1);
    assert_eq!(seen.headers["x-wx-openid"], *session.openid);
    assert_eq!(seen.headers["x-forwarded-host"], "mini.example:8080");
    for gone in ["x_wx_openid", "authorization", "host", "connection"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn a_client_of_http_1_gets_the_trailers_in_chunks() {
    let app = H2App::start(grpc);
    let rig = open(&app.url());
    let mut client = rig.client();
    let lines = [
        ("TE", "trailers"),
        ("Connection", "TE"),
        ("Content-Type", "application/grpc"),
    ];
    for _ in 0..2 {
        let answer = client.request("POST", "/echo", &lines, b"hello");
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        let expected = [("grpc-status", "0"), ("grpc-message", "fine")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(answer.trailers, expected);
    }
}

#[test]
fn an_answer_of_nothing_but_trailers_is_one() {
    let app = H2App::start(|mut call| async move {
        call.answer(&[("grpc-status", "12")], true);
    });
    let rig = open(&app.url());
    let answer = run(async { client(&rig).await.get("/a").await });
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("12"))
    );
    assert!(answer.body.is_empty() && answer.trailers.is_empty());
}

#[test]
fn requests_of_a_worker_share_one_connection() {
    let app = H2App::start(|call| async move {
        let text = format!("{} {}", call.head.uri.path(), call.connection);
        call.say(&text).await;
    });
    let rig = open(&app.url());
    let sidecar = of_one_worker(&rig);
    run(async {
        let addr = &sidecar.inbound_addr();
        let (a, b) = (Client::connect(addr).await, Client::connect(addr).await);
        for n in 0..50 {
            let path = format!("/{n}");
            let (from_a, from_b) = tokio::join!(a.get(&path), b.get(&path));
            assert_eq!(from_a.text().split(' ').next(), Some(&*path));
            assert_eq!(from_b.text().split(' ').next(), Some(&*path));
        }
        assert_eq!(app.connections(), 1);
    });
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_answers_of_others() {
    let sent = Arc::<AtomicUsize>::default();
    let ours = Arc::clone(&sent);
    let app = H2App::start(move |mut call| {
        let sent = Arc::clone(&ours);
        async move {
            if call.head.uri.path() == "/small" {
                return call.say("ok").await;
            }
            let mut stream = call.answer(&[], false);
            let piece = vec![b'a'; 16 * 1024];
            while send(&mut stream, &piece, false).await.is_ok() {
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let rig = open(&app.url());
    let sidecar = of_one_worker(&rig);
    run(async {
        let addr = &sidecar.inbound_addr();
        let idle = Client::connect(addr).await;
        let mut unread = Vec::new();
        for _ in 0..40 {
            let (answer, stream) = idle.open(get("/endless", &[]), true).await;
            unread.push((answer.await.unwrap(), stream));
        }
        // Until all of them have filled what there is for them.
        let filled = tokio::task::spawn_blocking(move || {
            eventually("nothing is sent", || sent.load(Ordering::SeqCst) >= 40);
            settled(|| sent.load(Ordering::SeqCst))
        });
        filled.await.unwrap();
        let other = Client::connect(addr).await;
        assert_eq!(other.get("/small").await.text(), "ok");
    });
}

#[test]
fn an_app_that_takes_one_request_at_a_time_gets_them_so() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (ours, at_most) = (Arc::clone(&now), Arc::clone(&most));
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1);
    let app = H2App::start_at(0, builder, move |call| {
        let (now, most) = (Arc::clone(&ours), Arc::clone(&at_most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            call.say("ok").await;
        }
    });
    let rig = open(&app.url());
    let sidecar = of_one_worker(&rig);
    run(async {
        let client = Client::connect(sidecar.inbound_addr()).await;
        let four = async || {
            for _ in 0..5 {
                assert_eq!(client.get("/a").await.text(), "ok");
            }
        };
        tokio::join!(four(), four(), four(), four());
    });
    assert_eq!((most.load(Ordering::SeqCst), app.connections()), (1, 1));
}

#[test]
fn a_refused_stream_is_tried_again_only_if_that_is_safe() {
    static REFUSALS: AtomicUsize = AtomicUsize::new(2);
    let app = H2App::start(|mut call| async move {
        if call.head.uri.path() == "/refused" && REFUSALS.fetch_sub(1, Ordering::SeqCst) > 0 {
            call.respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        call.say("ok").await;
    });
    let rig = open(&app.url());
    let sidecar = of_one_worker(&rig);
    run(async {
        let client = Client::connect(sidecar.inbound_addr()).await;
        assert_eq!(client.get("/first").await.text(), "ok");
        let post = client
            .request(request("POST", "/refused", &[]), Some(b"body"))
            .await
            .unwrap();
        assert_eq!(
            (post.status, &*post.problem()),
            (502, "upstream-unreachable")
        );
        assert_eq!(client.get("/refused").await.text(), "ok");
    });
    let targets: Vec<_> = app
        .requests()
        .iter()
        .map(|it| it.method.to_string())
        .collect();
    assert_eq!(targets, ["GET", "POST", "GET", "GET"]);
}

#[test]
fn a_stream_that_the_app_reset_is_a_502_and_not_tried_again() {
    let app = H2App::start(|mut call| async move {
        if call.head.uri.path() == "/fails" {
            call.respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
        call.say("ok").await;
    });
    let rig = open(&app.url());
    run(async {
        let client = client(&rig).await;
        assert_eq!(client.get("/first").await.text(), "ok");
        let failed = client.get("/fails").await;
        assert_eq!(
            (failed.status, &*failed.problem()),
            (502, "upstream-unreachable")
        );
        assert_eq!(client.get("/last").await.text(), "ok");
    });
    assert_eq!((app.requests().len(), app.connections()), (3, 1));
}

#[test]
fn after_goaway_further_requests_go_elsewhere_and_those_under_way_finish() {
    let finish = Signal::default();
    let finishes = finish.clone();
    let app = H2App::start(move |mut call| {
        let finishes = finishes.clone();
        async move {
            match call.head.uri.path() {
                "/long" => {
                    let mut stream = call.answer(&[], false);
                    send(&mut stream, b"begun", false).await.unwrap();
                    call.leave.notify_one();
                    given(&finishes).await;
                    let _gone = send(&mut stream, b"done", true).await;
                }
                _ => {
                    let text = call.connection.to_string();
                    call.say(&text).await;
                }
            }
        }
    });
    let rig = open_with(&app.url(), "timeout = \"40s\"");
    let sidecar = of_one_worker(&rig);
    run(async {
        let client = Client::connect(sidecar.inbound_addr()).await;
        let (answer, _) = client.open(get("/long", &[]), true).await;
        let (_, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(read_some(&mut body).await, b"begun");
        // The news takes its way; whatever is sent meanwhile is answered too, by whichever connection.
        loop {
            let post = client
                .request(request("POST", "/other", &[]), Some(b"body"))
                .await
                .unwrap();
            assert_eq!(post.status, 200, "{}", post.text());
            if post.text() == "1" {
                break;
            }
        }
        finish.give();
        assert_eq!(read_body(&mut body).await.unwrap(), b"done");
    });
}

#[test]
fn an_app_that_comes_back_is_connected_to_anew() {
    let app = H2App::start(|call| async move { call.say("old").await });
    let rig = open(&app.url());
    run(async {
        let client = client(&rig).await;
        assert_eq!(client.get("/a").await.text(), "old");
        let port = app.port();
        drop(app);
        let down = client.get("/a").await;
        assert_eq!(
            (down.status, &*down.problem()),
            (502, "upstream-unreachable")
        );
        let builder = h2::server::Builder::new();
        let _app = H2App::start_at(port, builder, |call| async move { call.say("new").await });
        let post = client
            .request(request("POST", "/a", &[]), Some(b"body"))
            .await
            .unwrap();
        assert_eq!(post.text(), "new");
    });
}

#[test]
fn an_app_that_breaks_the_rules_is_a_502() {
    let head = |lines: &[(&str, &str)], flags| {
        let lines = [&[(":status", "200")], lines].concat();
        frame(1, flags, 1, &block(&lines))
    };
    let many = vec![("x-a", "b"); 101];
    // Small on the wire: one line that is kept, and then called upon again and again.
    let mut bomb = block(&[(":status", "200")]);
    bomb.extend([0x40, 3]);
    bomb.extend(b"x-a");
    bomb.extend([0x7f, 0x81, 0x1e]);
    bomb.extend([b'a'; 4096 - 128]);
    bomb.extend([0xbe; 99]);
    let answers = [
        head(&[("connection", "close")], 5),
        head(&[("transfer-encoding", "chunked")], 5),
        head(&[("X-Upper", "a")], 5),
        head(&many, 5),
        frame(1, 5, 1, &bomb),
        [head(&[("content-length", "5")], 4), frame(0, 1, 1, b"123")].concat(),
        [head(&[("content-length", "2")], 4), frame(0, 1, 1, b"123")].concat(),
        frame(1, 5, 1, &block(&[(":status", "101"), ("upgrade", "x")])),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let upstream = raw_app(answer.clone());
        let rig = open(&upstream);
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let outcome = run(async { client(&rig).await.request(get("/a", &[]), None).await });
        match outcome {
            Ok(answer) => assert_eq!(answer.status, 502, "{shown:?}: {answer:?}"),
            // The head had left before the body turned out wrong.
            Err(error) => assert!(
                shown.contains("content-length") && error.is_reset(),
                "{shown:?}"
            ),
        }
    }
}

#[test]
fn an_app_that_speaks_http_1_is_a_502() {
    let app = crate::fake_app::FakeApp::agreeable();
    let rig = open(&app.url().replace("http://", "h2c://"));
    let answer = rig.request("GET", "/a", &[], b"");
    assert_eq!(answer.status, 502);
}

#[test]
fn a_connection_whose_app_is_silent_is_not_used_again() {
    let app = H2App::start(|call| async move {
        if call.connection == 0 {
            std::future::pending::<()>().await;
        }
        call.say("ok").await;
    });
    // Only the first is to take too long.
    let route = "[[route]]\npath = \"/silent\"\ntimeout = \"1s\"\n";
    let rig = Rig::with(&app.url(), "auth = \"none\"", route);
    run(async {
        let client = client(&rig).await;
        let silent = client.get("/silent").await;
        assert_eq!(
            (silent.status, &*silent.problem()),
            (504, "upstream-timeout")
        );
        assert_eq!(client.get("/a").await.text(), "ok");
    });
    assert_eq!(app.connections(), 2);
}

#[test]
fn a_request_that_is_taken_back_is_reset_at_the_app() {
    let (arrived, reset) = (Signal::default(), Signal::default());
    let (tell_arrived, tell_reset) = (arrived.clone(), reset.clone());
    let app = H2App::start(move |mut call| {
        let (arrived, reset) = (tell_arrived.clone(), tell_reset.clone());
        async move {
            if call.head.uri.path() == "/other" {
                return call.say("ok").await;
            }
            arrived.give();
            let reason = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
            assert_eq!(reason.unwrap(), Reason::CANCEL);
            reset.give();
        }
    });
    let rig = open(&app.url());
    run(async {
        let client = client(&rig).await;
        let (answer, mut stream) = client.open(get("/a", &[]), true).await;
        given(&arrived).await;
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        given(&reset).await;
        assert_eq!(client.get("/other").await.text(), "ok");
    });
    assert_eq!(app.connections(), 1);
}

#[test]
fn hints_pass_and_an_early_answer_ends_the_upload() {
    let app = H2App::start(|mut call| async move {
        let mut hints = http::Response::new(());
        *hints.status_mut() = StatusCode::EARLY_HINTS;
        hints.headers_mut().insert("link", "</a>".parse().unwrap());
        hints
            .headers_mut()
            .insert("x-wx-openid", "a".parse().unwrap());
        call.respond.send_informational(hints).unwrap();
        call.answer(&[("x-early", "yes")], true);
    });
    let rig = open(&app.url());
    run(async {
        let client = client(&rig).await;
        let (answer, mut stream) = client.open(request("POST", "/a", &[]), false).await;
        send(&mut stream, b"some", false).await.unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-early")),
            (200, Some("yes"))
        );
        assert_eq!((answer.interim[0].0, answer.interim[0].1.len()), (103, 1));
    });
}

#[test]
fn real_grpc_calls_pass_with_their_statuses_and_the_server_knows_the_caller() {
    let app = App::start(Kind::Streams, None);
    let told = crate::http_client::Client::connect(app.addr()).request("GET", "/", &[], b"");
    let rig = Rig::new(&format!("h2c://127.0.0.1:{}", told.json()["grpc"]));
    let session = rig.login("alice");
    let addr = rig.sidecar().inbound_addr().to_string();
    let told = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&Script::start(Kind::Streams, "grpc_client.js", arguments).line())
            .unwrap()
    };
    let known = told(&[&addr, &session.access]);
    let answer: serde_json::Value =
        serde_json::from_str(known["unary"]["answer"].as_str().unwrap()).unwrap();
    let expected = serde_json::json!({ "openid": [session.openid], "asked": "alice" });
    assert_eq!(answer, expected);
    assert_eq!(known["servedBy"], "grpc-js");
    assert_eq!(known["unknown"]["code"], 5);
    assert_eq!(known["unknown"]["details"], "no such user");
    assert_eq!(known["stream"], 1000);
    assert_eq!(known["many"], 50);
    // A client of gRPC takes 401 for UNAUTHENTICATED.
    assert_eq!(told(&[&addr])["unary"]["code"], 16);
}
