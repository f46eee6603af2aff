//! HTTP/2 from clients, by prior knowledge: what holds for HTTP/1.1 holds for it.

use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use h2::Reason;
use http::HeaderMap;

use crate::daemon::free_port;
use crate::fake_app::{Connection, FakeApp, OK, Signal};
use crate::h2_peer::{Answer, Client, get, given, read, read_body, read_some, request, run, send};
use crate::patience::{PATIENCE, eventually, eventually_async, more_than_sockets_hold};
use crate::rig::{self, Rig};

/// A sidecar that lets everybody through.
fn open(app: &FakeApp) -> Rig {
    open_with(app, "")
}

fn open_with(app: &FakeApp, inbound: &str) -> Rig {
    Rig::with(&app.url(), &format!("auth = \"none\"\n{inbound}"), "")
}

async fn client(rig: &Rig) -> Client {
    Client::connect(rig.sidecar().inbound_addr()).await
}

/// Says what it was sent: who asks, for what, with what body.
fn telling() -> FakeApp {
    FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let text = format!(
                "{} {} {} {}",
                request.method(),
                request.target(),
                request.header("x-wx-openid").unwrap_or("-"),
                request.body.len(),
            );
            let length = text.len();
            let body = if request.method() == "HEAD" {
                ""
            } else {
                &text
            };
            connection.write(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
            );
        }
    })
}

#[test]
fn requests_of_all_kinds_are_forwarded_as_in_http_1() {
    let app = telling();
    let rig = open_with(&app, "body_limit = \"1MiB\"");
    run(async {
        let client = client(&rig).await;
        let answer = client.get("/a?b=%20c").await;
        assert_eq!((answer.status, answer.text()), (200, "GET /a?b=%20c - 0"));
        assert_eq!(answer.header("connection"), None);
        assert!(answer.header("x-request-id").is_some());

        let head = client
            .request(request("HEAD", "/a", &[]), None)
            .await
            .unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("11"));

        let unsized_body = client
            .request(request("POST", "/a", &[]), Some(b"12345"))
            .await;
        assert_eq!(unsized_body.unwrap().text(), "POST /a - 5");
        let sized = request("PUT", "/a", &[("content-length", "5")]);
        let sized = client.request(sized, Some(b"12345")).await.unwrap();
        assert_eq!(sized.text(), "PUT /a - 5");
        let empty = client
            .request(request("POST", "/a", &[]), None)
            .await
            .unwrap();
        assert_eq!(empty.text(), "POST /a - 0");
    });
    let seen = app.requests(5);
    assert_eq!(seen[2].header("transfer-encoding"), Some("chunked"));
    assert_eq!(seen[3].header("content-length"), Some("5"));
    assert_eq!(seen[3].header("transfer-encoding"), None);
    assert_eq!(seen[4].header("content-length"), Some("0"));
    for request in seen {
        assert_eq!(
            request.header("x-forwarded-host"),
            Some("mini.example:8080")
        );
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("host"), Some(&app.url()["http://".len()..]));
        assert!(request.head.contains(" HTTP/1.1\r\n"));
    }
}

#[test]
fn answers_without_a_body_have_none() {
    for (answer, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        let app = FakeApp::answering(answer);
        let rig = open(&app);
        let answer = run(async { client(&rig).await.get("/a").await });
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
}

#[test]
fn an_answer_loses_what_belongs_to_the_apps_connection() {
    let app = FakeApp::answering(
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         X-WX-OPENID: a\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = open(&app);
    let answer = run(async { client(&rig).await.get("/a").await });
    assert_eq!(answer.text(), "ok");
    for gone in ["connection", "x-hop", "keep-alive", "x-wx-openid"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
}

#[test]
fn cookies_that_come_in_pieces_reach_the_app_as_one_line() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    let crumbs = [("cookie", "a=1"), ("x-b", "c"), ("cookie", "d=2; e=3")];
    run(async { client(&rig).await.request(get("/a", &crumbs), None).await }).unwrap();
    assert_eq!(app.only_request().header("cookie"), Some("a=1; d=2; e=3"));
}

#[test]
fn a_hundred_streams_at_once_are_each_their_own_users() {
    let app = telling();
    let rig = Rig::new(&app.url());
    let sessions: Vec<_> = (0..20).map(|n| rig.login(&format!("user-{n}"))).collect();
    run(async {
        let client = client(&rig).await;
        let asked = (0..100).map(|n| {
            let (client, session) = (&client, &sessions[n % sessions.len()]);
            async move {
                let path = format!("/for/{n}");
                let bearer = session.bearer();
                let lines = [
                    ("authorization", bearer.as_str()),
                    ("x-wx-openid", "somebody"),
                    ("x_wx_openid", "somebody"),
                ];
                let answer = client.request(get(&path, &lines), None).await;
                let expected = format!("GET {path} {} 0", session.openid);
                assert_eq!(answer.unwrap().text(), expected);
            }
        });
        let all: Vec<_> = asked.map(Box::pin).collect();
        join_all(all).await;
    });
}

/// Runs futures side by side.
async fn join_all<F: std::future::Future<Output = ()> + Unpin>(mut all: Vec<F>) {
    std::future::poll_fn(|cx| {
        all.retain_mut(|it| std::pin::Pin::new(it).poll(cx).is_pending());
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[test]
fn large_bodies_pass_whole_in_both_directions_at_once() {
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let length = request.body.len();
            connection
                .write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
            connection.write(&request.body);
        }
    });
    let rig = open(&app);
    let body: Vec<u8> = (0..4_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    run(async {
        let client = client(&rig).await;
        let one = async || {
            let answer = client
                .request(request("POST", "/a", &[]), Some(&body))
                .await;
            assert!(answer.unwrap().body == body);
        };
        tokio::join!(one(), one(), one());
    });
}

#[test]
fn an_app_waits_for_a_client_that_does_not_read_and_other_streams_do_not() {
    let large = more_than_sockets_hold();
    let (blocked, go_on) = (Signal::default(), Signal::default());
    let (is_blocked, goes_on) = (blocked.clone(), go_on.clone());
    let app = FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request() {
            if request.target() != "/large" {
                connection.write(OK);
                continue;
            }
            connection
                .write(format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n").as_bytes());
            connection.set_write_patience(Duration::from_millis(300));
            let piece = vec![b'a'; 64 * 1024];
            let mut written = 0;
            while written < large
                && let Ok(count) = connection.try_write(&piece[..piece.len().min(large - written)])
            {
                written += count;
            }
            if written < large {
                is_blocked.give();
            }
            goes_on.wait();
            connection.set_write_patience(PATIENCE);
            connection.write(&vec![b'a'; large - written]);
        }
    });
    let rig = open(&app);
    run(async {
        // Its windows leave room for other streams beside one that is not read.
        let mut windows = h2::client::Builder::new();
        windows
            .initial_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let client = Client::connect_with(rig.sidecar().inbound_addr(), &windows).await;
        let (answer, _) = client.open(get("/large", &[]), true).await;
        let (_, mut body) = answer.await.unwrap().into_parts();
        given(&blocked).await;
        assert_eq!(client.get("/small").await.text(), "ok");
        go_on.give();
        let all = read_body(&mut body).await.unwrap();
        assert_eq!(all.len(), large);
    });
}

#[test]
fn an_upload_waits_for_an_app_that_does_not_read() {
    let go_on = Signal::default();
    let goes_on = go_on.clone();
    let app = FakeApp::start(move |connection| {
        if let Some(mut request) = connection.read_head() {
            goes_on.wait();
            request.complete = connection.read_body(&mut request);
            request.bytes.clear();
            connection.note(request);
            connection.write(OK);
        }
    });
    let large = more_than_sockets_hold();
    // The last piece may go beyond it.
    let rig = open_with(&app, &format!("body_limit = \"{}B\"", 2 * large));
    run(async {
        let client = client(&rig).await;
        let (answer, mut stream) = client.open(request("POST", "/a", &[]), false).await;
        let mut sent = 0;
        let piece = vec![b'a'; 64 * 1024];
        let quiet = Duration::from_millis(300);
        while sent < large {
            let sending = send(&mut stream, &piece, false);
            if tokio::time::timeout(quiet, sending).await.is_err() {
                break;
            }
            sent += piece.len();
        }
        assert!(sent < large, "all was taken though the app read nothing");
        go_on.give();
        stream.send_data(bytes::Bytes::new(), true).unwrap();
        assert_eq!(read(answer).await.unwrap().status, 200);
    });
    assert!(app.only_request().complete);
}

#[test]
fn interim_answers_and_trailers_pass_both_ways() {
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            assert_eq!(request.trailers, ["x-sum: 5"]);
            connection.write(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-WX-OPENID: a\r\n\r\n\
                  HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                  grpc-status: 0\r\nX-WX-Openid: b\r\nSet-Cookie: c\r\nContent-Length: 2\r\n\r\n",
            );
        }
    });
    let rig = open(&app);
    let upload = async |te: &[(&str, &str)]| {
        let client = client(&rig).await;
        let (answer, mut stream) = client.open(request("POST", "/a", te), false).await;
        send(&mut stream, b"12345", false).await.unwrap();
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("x-sum", "5"),
            ("x-wx-openid", "a"),
            ("authorization", "Bearer b"),
            ("content-length", "9"),
            ("x-forwarded-for", "c"),
        ] {
            trailers.insert(name, value.parse().unwrap());
        }
        stream.send_trailers(trailers).unwrap();
        read(answer).await.unwrap()
    };
    let answer = run(upload(&[("te", "trailers")]));
    assert_eq!(answer.text(), "ok");
    let (status, hints) = &answer.interim[0];
    assert_eq!((*status, answer.interim.len()), (103, 1));
    assert_eq!(hints["link"], "</a.css>");
    assert_eq!(hints.len(), 1);
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.trailers.len(), 1);
    assert_eq!(app.requests(1)[0].header("te"), Some("trailers"));

    let without = run(upload(&[]));
    assert_eq!((without.text(), without.trailers.len()), ("ok", 0));
    assert_eq!(app.requests(2)[1].header("te"), None);
}

#[test]
fn a_client_that_expects_100_gets_it_and_then_sends() {
    let app = FakeApp::start(|connection| {
        let mut request = connection.read_head().unwrap();
        assert_eq!(request.header("expect"), Some("100-continue"));
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        request.complete = connection.read_body(&mut request);
        connection.note(request);
        connection.write(OK);
    });
    let rig = open(&app);
    run(async {
        let client = client(&rig).await;
        let expecting = request("POST", "/a", &[("expect", "100-continue")]);
        let (mut answer, mut stream) = client.open(expecting, false).await;
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        assert_eq!(interim.unwrap().unwrap().status(), 100);
        send(&mut stream, b"body", true).await.unwrap();
        assert_eq!(read(answer).await.unwrap().text(), "ok");
    });
    assert_eq!(app.only_request().body, b"body");
}

#[test]
fn an_answer_may_come_before_the_body_has_ended() {
    let app = FakeApp::start(|connection| {
        connection.read_head();
        connection.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        connection.read_to_close();
    });
    let rig = open(&app);
    run(async {
        let client = client(&rig).await;
        let (answer, mut stream) = client.open(request("POST", "/a", &[]), false).await;
        send(&mut stream, b"some", false).await.unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!((answer.status, answer.text()), (403, "no"));
        let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        assert_eq!(reset.unwrap(), Reason::NO_ERROR);
    });
}

#[test]
fn a_request_that_is_taken_back_ends_the_exchange_with_the_app() {
    for upload in [false, true] {
        let (arrived, closed) = (Signal::default(), Signal::default());
        let (tell_arrived, tell_closed) = (arrived.clone(), closed.clone());
        let app = FakeApp::start(move |connection: &mut Connection| {
            connection.read_head();
            tell_arrived.give();
            connection.read_to_close();
            tell_closed.give();
        });
        let rig = open(&app);
        run(async {
            let client = client(&rig).await;
            let method = if upload { "POST" } else { "GET" };
            let (answer, mut stream) = client.open(request(method, "/a", &[]), !upload).await;
            if upload {
                send(&mut stream, b"some", false).await.unwrap();
            }
            given(&arrived).await;
            stream.send_reset(Reason::CANCEL);
            assert!(read(answer).await.is_err());
            given(&closed).await;
            eventually_async("it is counted", || {
                let page = rig.admin("/metrics");
                page.text().contains("code=\"499\"")
            })
            .await;
            assert!(!rig.admin("/metrics").text().contains("code=\"5"));
        });
    }
}

#[test]
fn an_answer_that_the_app_cuts_off_is_reset_and_not_ended() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let cut = Signal::default();
        let seen = cut.clone();
        let app = FakeApp::start(move |connection| {
            connection.read_request();
            connection.write(answer.as_bytes());
            seen.wait();
        });
        let rig = open(&app);
        run(async {
            let client = client(&rig).await;
            let (response, _) = client.open(get("/a", &[]), true).await;
            let (_, mut body) = response.await.unwrap().into_parts();
            assert_eq!(read_some(&mut body).await, b"hello");
            cut.give();
            let end = read_body(&mut body).await.unwrap_err();
            assert!(end.is_reset(), "{end}");
            assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
        });
    }
}

#[test]
fn limits_and_refusals_are_those_of_http_1() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(
        &app.url(),
        "body_limit = \"1KiB\"\nheader_limit = \"8KiB\"",
        "[[route]]\npath = \"/open/**\"\nauth = \"none\"",
    );
    let refused = |answer: &Answer, status, slug: &str| {
        assert_eq!((answer.status, answer.problem().as_str()), (status, slug));
    };
    run(async {
        let client = client(&rig).await;
        refused(&client.get("/a").await, 401, "token-missing");
        refused(&client.get("/open/a%2fb").await, 400, "ambiguous-path");
        refused(&client.get("/wx/nothing").await, 404, "not-found");
        let announced = request("POST", "/open/a", &[("content-length", "2000")]);
        let announced = client
            .request(announced, Some(&[b'a'; 2000]))
            .await
            .unwrap();
        refused(&announced, 413, "body-too-large");
        let many: Vec<_> = (0..101).map(|_| ("x-a", "b")).collect();
        let many = client.request(get("/open/a", &many), None).await.unwrap();
        refused(&many, 431, "header-too-large");
        let long = "a".repeat(10_000);
        let long = client
            .request(get("/open/a", &[("x-a", &long)]), None)
            .await
            .unwrap();
        assert_eq!(long.status, 431);
        let trace = client
            .request(request("TRACE", "/open/a", &[]), None)
            .await
            .unwrap();
        refused(&trace, 405, "method-not-allowed");
        // None of that has ended the connection.
        assert_eq!(client.get("/open/a").await.text(), "ok");
    });
    assert_eq!(app.targets(), ["/open/a"]);
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let app = FakeApp::start(|connection| while connection.read_request().is_some() {});
    let rig = open_with(&app, "body_limit = \"1KiB\"");
    let answer = run(async {
        let client = client(&rig).await;
        client
            .request(request("POST", "/a", &[]), Some(&[b'a'; 5000]))
            .await
    });
    assert_eq!(answer.unwrap().status, 413);
    assert!(app.requests(0).iter().all(|request| !request.complete));
}

#[test]
fn a_body_that_contradicts_its_length_never_looks_complete() {
    for body in [&b"1234"[..], b"123456"] {
        let app = FakeApp::agreeable();
        let rig = open(&app);
        let sized = request("POST", "/a", &[("content-length", "5")]);
        let end = run(async { client(&rig).await.request(sized, Some(body)).await });
        assert!(end.is_err() || end.unwrap().status == 400);
        assert!(app.requests(0).iter().all(|request| !request.complete));
    }
}

#[test]
fn heads_that_two_readers_could_read_differently_are_refused() {
    let app = FakeApp::agreeable();
    let rig = open(&app);
    run(async {
        let client = client(&rig).await;
        let other = get("/a", &[("host", "other.example")]);
        assert_eq!(client.request(other, None).await.unwrap().status, 400);
        let same = get("/a", &[("host", "mini.example:8080")]);
        assert_eq!(client.request(same, None).await.unwrap().status, 200);
    });
    assert_eq!(app.only_request().all("host").len(), 1);
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
    run(async {
        let client = client(&rig).await;
        let (response, _) = client.open(get("/events", &[]), true).await;
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!(parts.headers["content-type"], "text/event-stream");
        head.give();
        assert_eq!(read_some(&mut body).await, b"data: one\n\n");
        first.give();
        assert_eq!(read_body(&mut body).await.unwrap(), b"data: two\n\n");
    });
}

#[test]
fn our_own_endpoints_answer_and_a_code_logs_in_on_the_way() {
    let app = telling();
    let rig = Rig::new(&app.url());
    let code = serde_json::json!({ "code": rig.code("alice") }).to_string();
    run(async {
        let client = client(&rig).await;
        let login = client
            .request(request("POST", "/wx/login", &[]), Some(code.as_bytes()))
            .await;
        let login = login.unwrap();
        assert_eq!(login.status, 200, "{}", login.text());
        let session = rig::Session::of(&serde_json::from_slice(&login.body).unwrap());
        let bearer = session.bearer();
        let who = client
            .request(get("/who", &[("authorization", &bearer)]), None)
            .await
            .unwrap();
        assert_eq!(who.text(), format!("GET /who {} 0", session.openid));
        let verify = get("/wx/verify", &[("authorization", &bearer)]);
        let verify = client.request(verify, None).await.unwrap();
        assert_eq!(verify.status, 204);
        assert_eq!(verify.header("x-wx-openid"), Some(&*session.openid));

        let code = rig.code("bob");
        let on_the_way = client
            .request(get("/who", &[("x-wx-code", &code)]), None)
            .await
            .unwrap();
        assert_eq!(on_the_way.status, 200);
        rig::canary(on_the_way.header("x-wx-access-token").unwrap());
        rig::canary(on_the_way.header("x-wx-refresh-token").unwrap());
    });
}

#[test]
fn a_drain_says_goaway_and_streams_under_way_finish() {
    let (arrived, answer_now) = (Signal::default(), Signal::default());
    let (tell_arrived, answers) = (arrived.clone(), answer_now.clone());
    let app = FakeApp::start(move |connection| {
        connection.read_request();
        tell_arrived.give();
        answers.wait();
        connection.write(OK);
    });
    let rig = open_with(&app, "drain_timeout = \"2m\"");
    // On a port that is nobody's once it is let go.
    let listen = format!("[inbound]\nlisten = \"127.0.0.1:{}\"", free_port());
    let config = rig.config_with("[inbound]\nlisten = \"127.0.0.1:0\"", &listen);
    let sidecar = rig::start(&config, &rig.clock);
    let addr = sidecar.inbound_addr();
    run(async {
        let client = Client::connect(&addr).await;
        let idle = Client::connect(&addr).await;
        let (answer, _) = client.open(get("/a", &[]), true).await;
        given(&arrived).await;
        let draining = thread::spawn(move || run(sidecar.shutdown()));
        assert!(idle.end().await.is_ok());
        // The last worker that hears of it listens no more, and has told its connections.
        eventually_async("it listens still", || {
            std::net::TcpStream::connect(&addr).is_err()
        })
        .await;
        while !client.was_told_to_leave().await {
            tokio::task::yield_now().await;
        }
        answer_now.give();
        assert_eq!(read(answer).await.unwrap().text(), "ok");
        assert!(client.end().await.is_ok());
        draining.join().unwrap();
    });
}

/// How long a connection may idle where that is what a test is about.
const IDLE: Duration = Duration::from_secs(1);

#[test]
fn an_idle_connection_is_ended_with_goaway() {
    let app = FakeApp::agreeable();
    let rig = open_with(&app, "idle_timeout = \"1s\"");
    run(async {
        loop {
            let began = Instant::now();
            let client = client(&rig).await;
            match client.request(get("/a", &[]), None).await {
                Ok(answer) => assert_eq!(answer.status, 200),
                // It had idled for too long before it asked for anything, because it was held up.
                Err(error) => {
                    assert!(began.elapsed() > IDLE, "{error}");
                    continue;
                }
            }
            assert!(client.end().await.is_ok());
            return;
        }
    });
}

/// Answers that are finished on our side, but that the client never takes off its socket, must not hold it for ever.
#[test]
fn a_client_that_takes_nothing_of_finished_answers_is_let_go() {
    let app = FakeApp::answering(
        [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"[..],
            &[b'a'; 60000],
        ]
        .concat(),
    );
    let rig = open_with(&app, "idle_timeout = \"1s\"");
    // Windows as large as can be, and then not a byte is read.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(crate::h2_peer::frame(
        4,
        0,
        0,
        &[0, 4, 0x7f, 0xff, 0xff, 0xff],
    ));
    bytes.extend(crate::h2_peer::frame(8, 0, 0, &[0x7f, 0, 0, 0]));
    let head = crate::h2_peer::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/a"),
    ]);
    for stream in 0..120 {
        bytes.extend(crate::h2_peer::frame(1, 5, 2 * stream + 1, &head));
    }
    let mut clients = Vec::new();
    // Who is held up before that has idled for too long already, and begins anew.
    eventually("nothing is sent in time", || {
        let began = Instant::now();
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&rig.address().into()).unwrap();
        let mut stream: std::net::TcpStream = socket.into();
        let sent = std::io::Write::write_all(&mut stream, &bytes);
        clients.push(stream);
        sent.is_ok() && began.elapsed() < IDLE
    });
    // Whoever has asked the app is counted as connected.
    app.requests(120);
    eventually("it is sent away", || {
        rig.metric("wx_sidecar_http_connections") == 0.0
    });
}

/// What the crate does not see as a flood: each request is accepted, reaches the app, and is taken back with its body
/// unfinished.
#[test]
fn a_client_that_only_takes_requests_back_is_sent_away() {
    let app = FakeApp::start(|connection| {
        if let Some(head) = connection.read_head() {
            connection.note(head);
            connection.read_to_close();
        }
    });
    let rig = open(&app);
    run(async {
        let client = client(&rig).await;
        let mut sent = 0;
        while sent < 1000 && !client.was_told_to_leave().await {
            let (_answer, mut stream) = client.open(request("POST", "/a", &[]), false).await;
            if send(&mut stream, b"some", false).await.is_err() {
                break;
            }
            sent += 1;
            // It does, unless the client is sent away before.
            eventually_async("it does not arrive", || {
                let is_sent_away = client.was_told_to_leave().now_or_never() == Some(true);
                is_sent_away || app.targets().len() >= sent
            })
            .await;
            stream.send_reset(Reason::CANCEL);
        }
        assert!(sent > 50, "sent away after {sent}");
        assert!(sent < 1000);
        let end = client.end().await.unwrap_err();
        assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    });
}
