//! More than there is room for, and apps in trouble: what is refused, what is told, and that it ends when its cause does.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use wx_sidecar::{Config, Sidecar};

use crate::fake_app::{FakeApp, OK, Signal};
use crate::http_client::{Client, Response};
use crate::patience::eventually;
use crate::rig::{self, Rig};

const OPEN: &str = "auth = \"none\"";

fn get(client: &mut Client, target: &str) -> Response {
    client.request("GET", target, &[], b"")
}

/// The sidecar of a rig once more, with one worker: what is counted per worker is counted as a whole.
fn one_worker(rig: &Rig) -> Sidecar {
    let config = rig.config_with("workers = 2", "workers = 1");
    rig::start(&config, &rig.clock)
}

fn metric(sidecar: &Sidecar, series: &str) -> u64 {
    rig::metric_at(sidecar.admin_addr(), series) as u64
}

mod rate_limits {
    use super::*;

    #[test]
    fn users_are_counted_apart_and_those_above_the_limit_get_429_until_time_has_passed() {
        let app = FakeApp::agreeable();
        let rig = Rig::with(
            &app.url(),
            "",
            "[[route]]\npath = \"/limited/**\"\nrate_limit = \"6/m burst 3\"\n",
        );
        let (alice, bob) = (rig.login("alice"), rig.login("bob"));
        for _ in 0..3 {
            assert_eq!(rig.get_as(&alice, "/limited/a").status, 200);
        }
        let refused = rig.get_as(&alice, "/limited/b");
        let problem = refused.problem(429, "rate-limited");
        assert_eq!(problem["retryable"], true);
        assert_eq!(problem["retry_after"], 10);
        assert_eq!(refused.header("retry-after"), Some("10"));
        let bearer = alice.bearer();
        let chinese = [("Authorization", &*bearer), ("Accept-Language", "zh-CN")];
        let refused = rig.request("GET", "/limited/b", &chinese, b"");
        assert_eq!(
            refused.problem(429, "rate-limited")["title"],
            "请求过于频繁"
        );
        assert_eq!(rig.get_as(&bob, "/limited/a").status, 200);
        assert_eq!(rig.get_as(&alice, "/elsewhere").status, 200);
        rig.advance(Duration::from_millis(9_999));
        rig.get_as(&alice, "/limited/b")
            .problem(429, "rate-limited");
        rig.advance(Duration::from_millis(1));
        assert_eq!(rig.get_as(&alice, "/limited/c").status, 200);
        rig.get_as(&alice, "/limited/b")
            .problem(429, "rate-limited");
        assert!(!app.targets().contains(&"/limited/b".to_owned()));
        assert_eq!(app.requests(6).len(), 6);
    }

    #[test]
    fn who_has_no_token_is_counted_by_address_and_users_are_not_among_them() {
        let app = FakeApp::agreeable();
        let rig = Rig::with(
            &app.url(),
            "auth = \"optional\"\nrate_limit = \"1/s burst 2\"",
            "[[route]]\npath = \"/free\"\nrate_limit = \"none\"\n",
        );
        let alice = rig.login("alice");
        for _ in 0..2 {
            assert_eq!(rig.request("GET", "/", &[], b"").status, 200);
        }
        let claims = [("X-Forwarded-For", "192.0.2.1"), ("X-Real-IP", "192.0.2.2")];
        let refused = rig.request("GET", "/", &claims, b"");
        refused.problem(429, "rate-limited");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(rig.get_as(&alice, "/").status, 200);
        for _ in 0..5 {
            assert_eq!(rig.request("GET", "/free", &[], b"").status, 200);
        }
    }

    #[test]
    fn a_reload_forgets_only_the_counters_whose_limit_it_changes() {
        let app = FakeApp::agreeable();
        let sections = "[[route]]\npath = \"/a\"\nrate_limit = \"1/m\"\n\
                        [[route]]\npath = \"/b\"\nrate_limit = \"2/m\"\n";
        let rig = Rig::with(&app.url(), OPEN, sections);
        let status = |target| rig.request("GET", target, &[], b"").status;
        assert_eq!([status("/a"), status("/a")], [200, 429]);
        assert_eq!([status("/b"), status("/b"), status("/b")], [200, 200, 429]);
        let changed = rig.config_with("2/m", "3/m");
        rig.sidecar()
            .reload(Config::from_toml(&changed).unwrap())
            .unwrap();
        assert_eq!(status("/a"), 429);
        assert_eq!(status("/b"), 200);
    }

    #[test]
    fn logins_are_limited_by_address_whichever_way_the_code_comes() {
        let app = FakeApp::agreeable();
        let rig = Rig::with(
            &app.url(),
            "login_rate_limit = \"2/m\"",
            "[[route]]\npath = \"/login\"\nlogin = true\n",
        );
        let alice = rig.login("alice");
        assert_eq!(rig.refresh(&alice.refresh).status, 200);
        let calls =
            "wx_sidecar_wx_api_requests_total{cgi_path=\"/sns/jscode2session\",errcode=\"0\"}";
        assert_eq!(rig.metric(calls), 1.0);
        let code = rig.code("bob");
        let body = serde_json::json!({ "code": code }).to_string();
        let with_code = [("X-WX-Code", &*code)];
        for answer in [
            rig.login_with(&code),
            rig.refresh(&alice.refresh),
            rig.request("POST", "/login", &[], body.as_bytes()),
            rig.request("GET", "/", &with_code, b""),
            rig.request("GET", "/wx/session", &with_code, b""),
        ] {
            answer.problem(429, "rate-limited");
            assert_eq!(answer.header("retry-after"), Some("30"));
        }
        assert_eq!(rig.metric(calls), 1.0);
        assert_eq!(
            rig.get_as(&alice, "/").status,
            200,
            "whoever is in stays in"
        );
        rig.advance(Duration::from_secs(30));
        assert_eq!(rig.login_with(&code).status, 200);
        assert_eq!(app.requests(1).len(), 1);
    }

    #[test]
    fn guessing_is_limited_without_a_word_in_the_configuration() {
        let app = FakeApp::agreeable();
        let rig = Rig::new(&app.url());
        let mut client = rig.client();
        let mut guess = || client.request("POST", "/wx/refresh", &[], b"{\"refresh_token\":\"x\"}");
        for _ in 0..200 {
            guess().problem(401, "token-invalid");
        }
        guess().problem(429, "rate-limited");
    }
}

mod room {
    use super::*;

    #[test]
    fn a_request_beyond_max_requests_gets_503_until_there_is_room_again() {
        let app = waits_for_its_signal();
        let rig = Rig::with(&app.0.url(), "max_requests = 1", "");
        let sidecar = one_worker(&rig);
        let alice = rig.login("alice");
        let bearer = alice.bearer();
        let token = [("Authorization", &*bearer)];
        let mut first = Client::connect(sidecar.inbound_addr());
        first.send(
            format!("GET /hold HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n\r\n").as_bytes(),
        );
        app.0.requests(1);
        let mut second = Client::connect(sidecar.inbound_addr());
        for _ in 0..100 {
            let refused = second.request("GET", "/", &token, b"");
            let problem = refused.problem(503, "overloaded");
            assert_eq!(problem["retryable"], true);
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
        second
            .request("POST", "/wx/logout", &token, b"")
            .problem(503, "overloaded");
        assert_eq!(second.request("GET", "/wx/verify", &token, b"").status, 204);
        assert_eq!(
            second.request("GET", "/wx/session", &token, b"").status,
            200
        );
        assert_eq!(app.0.requests(1).len(), 1);
        app.1.give();
        assert_eq!(first.read_response(false).status, 200);
        assert_eq!(second.request("GET", "/", &token, b"").status, 200);
    }

    #[test]
    fn a_client_that_leaves_gives_its_place_back() {
        let app = waits_for_its_signal();
        let rig = Rig::with(
            &app.0.url(),
            "auth = \"none\"\nmax_requests = 1\nbody_limit = \"1KiB\"",
            "",
        );
        let sidecar = one_worker(&rig);
        let mut leaves = Client::connect(sidecar.inbound_addr());
        leaves.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
        eventually("it has no place yet", || {
            metric(&sidecar, "wx_sidecar_http_requests_in_flight") == 1
        });
        let mut other = Client::connect(sidecar.inbound_addr());
        assert_eq!(get(&mut other, "/busy?").status, 503);
        drop(leaves);
        app.1.give();
        eventually("there is no room again", || {
            get(&mut other, "/").status == 200
        });
        // Failures of every kind give it back as well.
        for _ in 0..3 {
            let too_large = [("Content-Length", "2000")];
            let mut client = Client::connect(sidecar.inbound_addr());
            assert_eq!(client.request("POST", "/", &too_large, b"").status, 413);
            assert_eq!(get(&mut other, "/").status, 200);
        }
        eventually("a request is in flight still", || {
            metric(&sidecar, "wx_sidecar_http_requests_in_flight") == 0
        });
    }

    #[test]
    fn bodies_in_memory_share_their_room_and_give_it_back() {
        let app = FakeApp::agreeable();
        let rig = Rig::with(&app.url(), "buffer_limit = \"1KiB\"", "");
        let login = |length: usize| {
            let code = b"{\"code\":\"\"}";
            let body = [code, &*vec![b' '; length - code.len()]].concat();
            rig.request("POST", "/wx/login", &[], &body)
        };
        let refused = login(1025);
        refused.problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), Some("1"));
        for _ in 0..10 {
            login(1024).problem(400, "bad-request");
        }
        let mut holds = rig.client();
        holds.send(b"POST /wx/login HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
        holds.send(&[b' '; 700]);
        eventually("the memory is not taken", || login(700).status == 503);
        drop(holds);
        eventually("the memory is not given back", || login(1024).status == 400);
    }

    /// An app that answers once it is told to.
    fn waits_for_its_signal() -> (FakeApp, Signal) {
        let signal = Signal::default();
        let waited = signal.clone();
        let app = FakeApp::start(move |connection| {
            while connection.read_request().is_some_and(|r| r.complete) {
                waited.wait();
                connection.write(OK);
            }
        });
        (app, signal)
    }
}

mod apps_in_trouble {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_requests_at_the_most() {
        let app = FakeApp::start(|connection| {
            if connection.read_request().is_some() {
                connection.write(OK);
                // And then dies on whatever comes next.
                connection.read_head();
            }
        });
        let rig = Rig::with(&app.url(), OPEN, "");
        // Its first second begins with it.
        let began = Instant::now();
        let sidecar = one_worker(&rig);
        let mut client = Client::connect(sidecar.inbound_addr());
        let (mut good, mut bad) = (0, 0);
        for _ in 0..400 {
            let answer = get(&mut client, "/");
            match answer.status {
                200 => good += 1,
                _ => {
                    answer.problem(502, "upstream-unreachable");
                    bad += 1;
                }
            }
        }
        let sent = metric(
            &sidecar,
            "wx_sidecar_upstream_retries_total{result=\"sent\"}",
        );
        let exhausted = "wx_sidecar_upstream_retries_total{result=\"budget_exhausted\"}";
        assert_eq!(metric(&sidecar, exhausted), bad);
        assert_eq!(good + bad, 400);
        let free = 10 * (began.elapsed().as_secs() + 1);
        assert!(
            (1..=400 / 5 + free).contains(&sent),
            "{sent} of 400, {bad} told"
        );
    }

    #[test]
    fn an_app_that_takes_no_connection_is_a_502_in_time() {
        let (_full, _waiting, addr) = listener_without_room();
        let rig = Rig::with(
            &format!("http://{addr}"),
            "auth = \"none\"\nconnect_timeout = \"200ms\"",
            "",
        );
        let problem = rig
            .request("POST", "/", &[], b"once")
            .problem(502, "upstream-unreachable");
        assert_eq!(problem["retryable"], true);
    }

    #[test]
    fn an_app_that_accepts_and_is_silent_or_drips_its_head_is_a_504() {
        let end = Signal::default();
        let ended = end.clone();
        let app = FakeApp::start(move |connection| {
            if let Some(request) = connection.read_request() {
                if request.target() == "/drip" {
                    for byte in b"HTTP/1.1 200 OK\r\nX-Slow:".iter().cycle() {
                        if connection.try_write(&[*byte]).is_err() {
                            return;
                        }
                        crate::patience::dawdle(Duration::from_millis(20));
                    }
                }
                ended.wait();
            }
        });
        let rig = Rig::with(&app.url(), "auth = \"none\"\ntimeout = \"300ms\"", "");
        for target in ["/silent", "/drip"] {
            rig.request("GET", target, &[], b"")
                .problem(504, "upstream-timeout");
        }
        end.give();
        assert_eq!(app.requests(2).len(), 2, "none was sent twice");
    }

    #[test]
    fn an_app_that_comes_and_goes_costs_its_bad_times_only() {
        let up = std::sync::Arc::new(AtomicBool::new(true));
        let is_up = std::sync::Arc::clone(&up);
        let app = FakeApp::start(move |connection| {
            while is_up.load(Ordering::SeqCst) && connection.read_request().is_some() {
                connection
                    .write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                connection.close();
            }
        });
        let rig = Rig::with(&app.url(), OPEN, "");
        let mut client = rig.client();
        for turn in 0..40 {
            let good = turn % 2 == 0;
            up.store(good, Ordering::SeqCst);
            let answer = get(&mut client, "/");
            assert_eq!(answer.status, if good { 200 } else { 502 }, "{turn}");
        }
    }

    /// A listener whose queue is full: what is sent to it goes unanswered, as to a machine that is not there.
    fn listener_without_room() -> (TcpListener, Vec<Socket>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
            .unwrap();
        listener.listen(0).unwrap();
        let listener: TcpListener = listener.into();
        let addr = listener.local_addr().unwrap();
        let waiting = (0..8)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _in_progress = socket.connect(&addr.into());
                socket
            })
            .collect();
        (listener, waiting, addr)
    }
}
