//! Login, refresh, logout and what tokens are worth, as a client and the app see it.

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::sim::{Effect, Fault};
use wx_sidecar::{Config, Sidecar};

use crate::backends::{App, Echo, Kind};
use crate::daemon::free_port;
use crate::http_client::{Client, Response, chunked};
use crate::rig::{self, APPID, Rig, SECRET, Session, canary};

const LOGIN: &str = "/sns/jscode2session";
/// An AppSecret that WeChat does not take, or no longer.
const OLD_SECRET: &str = "01dca9a401dca9a401dca9a401dca9a4";
const JSON: (&str, &str) = ("Content-Type", "application/json");

const ROUTES: &str = "[[route]]\npath = \"/auth/login\"\nlogin = true\n\
     [[route]]\npath = \"/api/json\"\nlogin = true\n\
     [[route]]\npath = \"/echo/either/**\"\nauth = \"optional\"\n\
     [[route]]\npath = \"/echo/open/**\"\nauth = \"none\"\n";

/// The URL of one app for all tests of this file; each has a rig and users of its own.
fn app_url() -> &'static str {
    static APP: OnceLock<(String, Mutex<App>)> = OnceLock::new();
    let (url, _app) = APP.get_or_init(|| {
        let app = App::start(Kind::Express, None);
        (app.url(), Mutex::new(app))
    });
    url
}

fn rig() -> Rig {
    Rig::with(app_url(), "", ROUTES)
}

/// An app that must not be spoken to: nobody accepts what connects. Its port has been nobody else's, whom others may still
/// look for.
struct Untouched(TcpListener);

impl Untouched {
    fn listen() -> Self {
        Self(TcpListener::bind(("127.0.0.1", free_port())).unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    fn assert_untouched(&self) {
        self.0.set_nonblocking(true).unwrap();
        let error = self
            .0
            .accept()
            .expect_err("nobody has connected to the app");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

/// Runs `call` in so many threads at once and gives what they returned.
fn at_once<T: Send>(threads: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let begin = Barrier::new(threads);
    thread::scope(|scope| {
        let spawn = |index| {
            let (begin, call) = (&begin, &call);
            scope.spawn(move || {
                begin.wait();
                call(index)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn get_at(sidecar: &Sidecar, token: &str, target: &str) -> Response {
    let bearer = format!("Bearer {token}");
    Client::connect(sidecar.inbound_addr()).request(
        "GET",
        target,
        &[("Authorization", &bearer)],
        b"",
    )
}

/// A request with an access token on a connection that lives on.
fn show(client: &mut Client, session: &Session) -> Response {
    let bearer = session.bearer();
    client.request("GET", "/wx/session", &[("Authorization", &bearer)], b"")
}

fn logout(rig: &Rig, session: &Session, body: &str) -> Response {
    rig.request(
        "POST",
        "/wx/logout",
        &[("Authorization", &session.bearer())],
        body.as_bytes(),
    )
}

/// Asserts that an answer is a problem of this kind.
fn assert_problem(answer: &Response, status: u16, slug: &str) {
    answer.problem(status, slug);
}

mod login {
    use super::*;

    #[test]
    fn a_login_gives_a_pair_of_tokens_and_never_the_session_key() {
        let rig = rig();
        let answer = rig.login_with(&rig.code("alice"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body = answer.json();
        let members: BTreeSet<_> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = [
            "access_token",
            "expires_in",
            "openid",
            "refresh_token",
            "token_type",
            "unionid",
        ];
        assert_eq!(members, BTreeSet::from(expected));
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["expires_in"], 7200);
        assert_eq!(body["openid"], rig.sim.openid("alice").as_str());
        let key = rig.session_key("alice").expect("alice has logged in");
        let head = String::from_utf8_lossy(&answer.head).into_owned();
        assert!(!answer.text().contains(&key) && !head.contains(&key));
        assert!(!answer.text().contains("session_key"));
    }

    #[test]
    fn the_same_code_again_gives_the_same_session() {
        let rig = rig();
        let code = rig.code("alice");
        let first = rig.login_with(&code).json();
        rig.advance(Duration::from_secs(100));
        let again = rig.login_with(&code).json();
        assert_eq!(again["access_token"], first["access_token"]);
        assert_eq!(again["refresh_token"], first["refresh_token"]);
        assert_eq!(again["expires_in"], 7100);
        assert_eq!(rig.sim.calls(LOGIN), 1);
        assert_ne!(rig.login("alice").access, first["access_token"]);
    }

    #[test]
    fn the_same_code_again_gives_a_living_token_when_the_first_has_expired() {
        let rig = Rig::with(app_url(), "", "[session]\naccess_ttl = \"1m\"\n");
        let code = rig.code("alice");
        rig.login_with(&code);
        rig.advance(Duration::from_secs(60));
        let again = rig.login_with(&code).json();
        assert_eq!(again["expires_in"], 60);
        let session = Session::of(&again);
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
        assert_eq!(rig.sim.calls(LOGIN), 1);
    }

    #[test]
    fn fifty_logins_at_once_with_one_code_are_one_call_and_one_session() {
        let rig = rig();
        let code = rig.code("alice");
        let answers = at_once(50, |_| rig.login_with(&code));
        let tokens: BTreeSet<_> = answers
            .iter()
            .map(|answer| {
                assert_eq!(answer.status, 200, "{}", answer.text());
                answer.json()["access_token"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(tokens.len(), 1);
        assert_eq!(rig.sim.calls(LOGIN), 1);
    }

    #[test]
    fn a_login_outlives_the_clients_that_hang_up_on_it() {
        let rig = rig();
        let code = rig.code("alice");
        // Held back until all have asked, and half of them, the first included, have gone.
        rig.sim
            .fault(Fault::delay(LOGIN, 1, Duration::from_millis(500)));
        let body = json!({ "code": code }).to_string();
        let request = format!(
            "POST /wx/login HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut gone = rig.client();
        gone.send(request.as_bytes());
        while rig.sim.calls(LOGIN) == 0 {
            thread::yield_now();
        }
        drop(gone);
        let tokens: BTreeSet<_> = at_once(50, |index| {
            let mut client = rig.client();
            client.send(request.as_bytes());
            if index % 2 == 0 {
                return None;
            }
            let answer = client.read_response(false);
            assert_eq!(answer.status, 200, "{}", answer.text());
            Some(Session::of(&answer.json()).access)
        })
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(tokens.len(), 1);
        assert_eq!(rig.sim.calls(LOGIN), 1);
    }

    #[test]
    fn a_failed_login_is_not_remembered() {
        let rig = rig();
        let code = rig.code("alice");
        let busy = Effect::Errcode {
            errcode: -1,
            errmsg: None,
        };
        rig.sim.fault(Fault::new(LOGIN, 1, busy));
        assert_eq!(rig.login_with(&code).status, 503);
        assert_eq!(rig.login_with(&code).status, 200);
    }

    #[test]
    fn a_session_that_was_ended_is_not_given_out_again_for_its_code() {
        let rig = rig();
        let code = rig.code("alice");
        let session = Session::of(&rig.login_with(&code).json());
        assert_eq!(logout(&rig, &session, "").status, 204);
        assert_problem(&rig.login_with(&code), 401, "token-invalid");
    }

    #[test]
    fn another_appsecret_is_tried_when_wechat_refuses_the_first() {
        canary(OLD_SECRET);
        let rig = rig();
        // What WeChat takes is now one, now the other of the two that are configured.
        for secrets in [
            format!("[\"{OLD_SECRET}\", \"{SECRET}\"]"),
            format!("[\"{SECRET}\", \"{OLD_SECRET}\"]"),
        ] {
            let config = rig.config_with(
                &format!("secret = \"{SECRET}\""),
                &format!("secret = {secrets}"),
            );
            let sidecar = rig::start(&config, &rig.clock);
            for _ in 0..2 {
                let body = json!({ "code": rig.code("alice") }).to_string();
                let answer = Client::connect(sidecar.inbound_addr()).request(
                    "POST",
                    "/wx/login",
                    &[],
                    body.as_bytes(),
                );
                assert_eq!(answer.status, 200, "{}", answer.text());
                Session::of(&answer.json());
            }
        }
        // Refused once, then remembered.
        assert_eq!(rig.sim.calls(LOGIN), 5);
    }
}

mod refresh {
    use super::*;

    #[test]
    fn a_login_replayed_after_a_refresh_gives_a_refresh_token_that_is_not_spent() {
        let rig = rig();
        let code = rig.code("alice");
        let first = Session::of(&rig.login_with(&code).json());
        let second = Session::of(&rig.refresh(&first.refresh).json());
        let replayed = Session::of(&rig.login_with(&code).json());
        rig.advance(Duration::from_secs(60));
        assert_eq!(rig.refresh(&replayed.refresh).status, 200);
        assert_eq!(rig.get_as(&second, "/wx/session").status, 200);
    }

    #[test]
    fn a_refresh_gives_a_new_pair_of_the_same_session() {
        let rig = rig();
        let old = rig.login("alice");
        rig.advance(Duration::from_secs(7000));
        let answer = rig.refresh(&old.refresh);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text().contains("session_key"));
        let new = Session::of(&answer.json());
        assert_ne!(new.access, old.access);
        assert_ne!(new.refresh, old.refresh);
        assert_eq!(new.openid, old.openid);
        rig.advance(Duration::from_secs(201));
        assert_problem(&rig.get_as(&old, "/api/whoami"), 401, "token-expired");
        assert_eq!(
            rig.get_as(&new, "/api/whoami").json()["openid"],
            old.openid.as_str()
        );
        assert_eq!(rig.refresh(&new.refresh).status, 200);
        assert_eq!(rig.sim.calls(LOGIN), 1);
    }

    #[test]
    fn of_fifty_refreshes_at_once_exactly_one_wins() {
        let rig = rig();
        let session = rig.login("alice");
        let answers = at_once(50, |_| rig.refresh(&session.refresh));
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 49));
        for answer in lost {
            assert_problem(&answer, 409, "refresh-conflict");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.json()["retryable"], true);
        }
        let winner = Session::of(&won[0].json());
        assert_eq!(rig.get_as(&winner, "/api/whoami").status, 200);
        assert_eq!(rig.refresh(&winner.refresh).status, 200);
    }

    #[test]
    fn a_lost_answer_can_be_had_again_within_the_grace() {
        let rig = rig();
        let session = rig.login("alice");
        let lost = Session::of(&rig.refresh(&session.refresh).json());
        rig.advance(Duration::from_millis(999));
        assert_problem(&rig.refresh(&session.refresh), 409, "refresh-conflict");
        rig.advance(Duration::from_millis(1));
        let again = Session::of(&rig.refresh(&session.refresh).json());
        rig.advance(Duration::from_millis(8999));
        assert_eq!(rig.refresh(&session.refresh).status, 200);
        for session in [&lost, &again] {
            assert_eq!(rig.get_as(session, "/api/whoami").status, 200);
        }
        assert_eq!(rig.refresh(&again.refresh).status, 200);
    }

    #[test]
    fn a_refresh_token_shown_after_the_grace_ends_the_whole_family() {
        let rig = rig();
        let stolen = rig.login("alice");
        let other_phone = rig.login("alice");
        let winner = Session::of(&rig.refresh(&stolen.refresh).json());
        rig.advance(Duration::from_secs(10));
        assert_eq!(rig.get_as(&winner, "/api/whoami").status, 200);
        let reused = rig.refresh(&stolen.refresh);
        assert_problem(&reused, 401, "refresh-reused");
        assert!(reused.json()["hint"].is_string());
        for session in [&stolen, &winner] {
            assert_problem(&rig.get_as(session, "/api/whoami"), 401, "token-invalid");
            assert_problem(&rig.refresh(&session.refresh), 401, "token-invalid");
        }
        assert_eq!(rig.get_as(&other_phone, "/api/whoami").status, 200);
    }

    #[test]
    fn a_grandparent_of_the_current_token_ends_the_family_even_within_the_grace() {
        let rig = rig();
        let first = rig.login("alice");
        let second = Session::of(&rig.refresh(&first.refresh).json());
        let third = Session::of(&rig.refresh(&second.refresh).json());
        assert_problem(&rig.refresh(&first.refresh), 401, "refresh-reused");
        assert_problem(&rig.get_as(&third, "/api/whoami"), 401, "token-invalid");
    }

    #[test]
    fn a_refresh_token_expires() {
        let rig = rig();
        let session = rig.login("alice");
        rig.advance(Duration::from_secs(30 * 24 * 3600));
        assert_problem(&rig.refresh(&session.refresh), 401, "token-expired");
    }

    #[test]
    fn what_is_no_refresh_request_is_a_400() {
        let rig = rig();
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"refresh_token":1}"#,
            r#"{"token":"x"}"#,
        ] {
            let answer = rig.request("POST", "/wx/refresh", &[JSON], body.as_bytes());
            assert_problem(&answer, 400, "bad-request");
        }
        assert_problem(&rig.refresh(""), 401, "token-invalid");
    }
}

mod logout {
    use super::*;

    #[test]
    fn a_logout_ends_this_session_alone() {
        let rig = rig();
        let (phone, tablet) = (rig.login("alice"), rig.login("alice"));
        let answer = super::logout(&rig, &phone, "");
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_problem(&rig.get_as(&phone, "/api/whoami"), 401, "token-invalid");
        assert_problem(&rig.refresh(&phone.refresh), 401, "token-invalid");
        assert_problem(&super::logout(&rig, &phone, ""), 401, "token-invalid");
        assert_eq!(rig.get_as(&tablet, "/api/whoami").status, 200);
        assert_eq!(rig.refresh(&tablet.refresh).status, 200);
    }

    #[test]
    fn a_logout_everywhere_ends_all_sessions_of_the_user_and_of_nobody_else() {
        let rig = rig();
        let (phone, tablet, bob) = (rig.login("alice"), rig.login("alice"), rig.login("bob"));
        let refreshed = Session::of(&rig.refresh(&tablet.refresh).json());
        assert_eq!(
            super::logout(&rig, &phone, r#"{"everywhere":true}"#).status,
            204
        );
        for session in [&phone, &tablet, &refreshed] {
            assert_problem(&rig.get_as(session, "/api/whoami"), 401, "token-invalid");
            assert_problem(&rig.refresh(&session.refresh), 401, "token-invalid");
        }
        assert_eq!(rig.get_as(&bob, "/api/whoami").status, 200);
        // The clock has not moved since.
        let again = rig.login("alice");
        assert_eq!(rig.get_as(&again, "/api/whoami").status, 200);
        assert_eq!(rig.refresh(&again.refresh).status, 200);
    }

    #[test]
    fn a_logout_takes_a_token_and_a_sensible_body() {
        let rig = rig();
        let session = rig.login("alice");
        assert_problem(
            &rig.request("POST", "/wx/logout", &[], b""),
            401,
            "token-missing",
        );
        for body in [r#"{"everywhere":"yes"}"#, "[]", "x"] {
            assert_problem(&super::logout(&rig, &session, body), 400, "bad-request");
        }
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
        assert_eq!(
            super::logout(&rig, &session, r#"{"everywhere":false}"#).status,
            204
        );
    }
}

mod endpoints {
    use super::*;

    #[test]
    fn a_session_says_who_it_is() {
        let rig = rig();
        let session = rig.login("alice");
        rig.advance(Duration::from_secs(200));
        let answer = rig.get_as(&session, "/wx/session");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let mut body = answer.json();
        assert!(body["unionid"].take().is_string());
        let expected = json!({
            "openid": session.openid, "appid": APPID, "expires_in": 7000, "unionid": null,
            "started_at": rig::START.as_secs(),
        });
        assert_eq!(body, expected);
        assert_problem(
            &rig.request("GET", "/wx/session", &[], b""),
            401,
            "token-missing",
        );
    }

    #[test]
    fn a_code_on_our_own_endpoints_logs_in_and_gives_tokens() {
        let rig = rig();
        for (target, status) in [("/wx/verify", 204), ("/wx/session", 200)] {
            let code = rig.code("alice");
            let answer = rig.request("GET", target, &[("X-WX-Code", &code)], b"");
            assert_eq!(answer.status, status, "{}", answer.text());
            let session = Session::of_headers(&answer, "");
            assert_eq!(rig.get_as(&session, "/wx/session").status, 200);
            assert_eq!(answer.headers_all("cache-control"), ["no-store"]);
        }
    }

    #[test]
    fn verify_answers_a_proxy_with_headers_and_no_body() {
        let rig = rig();
        let session = rig.login("alice");
        let answer = rig.get_as(&session, "/wx/verify");
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(answer.header("X-WX-OPENID"), Some(session.openid.as_str()));
        assert_eq!(answer.header("X-WX-APPID"), Some(APPID));
        assert_eq!(answer.header("X-WX-SOURCE"), Some("wx_client"));
        assert!(answer.header("X-WX-UNIONID").is_some() && answer.header("X-WX-ENV").is_some());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let stranger = rig.request("GET", "/wx/verify", &[], b"");
        assert_problem(&stranger, 401, "token-missing");
        assert_eq!(stranger.header("X-WX-OPENID"), None);
        let forged = [
            ("Authorization", "Bearer wxat_x"),
            ("X-WX-OPENID", "oForged"),
        ];
        let answer = rig.request("GET", "/wx/verify", &forged, b"");
        assert_problem(&answer, 401, "token-invalid");
        assert_eq!(answer.header("X-WX-OPENID"), None);
    }

    #[test]
    fn a_user_without_a_unionid_brings_none() {
        let rig = rig();
        let change = wx_sidecar::sim::UserChange {
            unionid: Some(false),
            ..Default::default()
        };
        rig.sim.change_user("alice", &change);
        let session = rig.login("alice");
        let echo = Echo::of(&rig.get_as(&session, "/echo/x"));
        assert!(echo.values("X-WX-UNIONID").is_empty());
        assert_eq!(echo.values("X-WX-OPENID"), [session.openid.as_str()]);
        assert_eq!(
            rig.get_as(&session, "/wx/verify").header("X-WX-UNIONID"),
            None
        );
    }

    #[test]
    fn what_is_not_an_endpoint_below_the_prefix_never_reaches_the_app() {
        let app = Untouched::listen();
        let rig = Rig::new(&app.url());
        let session = rig.login("alice");
        for target in ["/wx", "/wx/", "/wx/nothing", "/wx/login/"] {
            assert_problem(&rig.get_as(&session, target), 404, "not-found");
        }
        assert_problem(
            &rig.get_as(&session, "/wx/login"),
            405,
            "method-not-allowed",
        );
        app.assert_untouched();
    }
}

mod tokens {
    use super::*;

    #[test]
    fn an_access_token_expires() {
        let rig = rig();
        let session = rig.login("alice");
        rig.advance(Duration::from_millis(7_199_999));
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
        rig.advance(Duration::from_millis(1));
        assert_problem(&rig.get_as(&session, "/api/whoami"), 401, "token-expired");
    }

    /// A connection remembers the token that it showed last.
    #[test]
    fn a_token_ends_on_a_connection_that_has_shown_it_before() {
        let rig = rig();
        let mut client = rig.client();
        let (alice, bob) = (rig.login("alice"), rig.login("bob"));
        for session in [&alice, &alice, &bob, &alice, &bob, &bob] {
            let answer = show(&mut client, session);
            assert_eq!(answer.json()["openid"], session.openid, "{}", answer.text());
        }
        assert_eq!(logout(&rig, &bob, "").status, 204);
        assert_problem(&show(&mut client, &bob), 401, "token-invalid");
        assert_eq!(show(&mut client, &alice).status, 200);
        let mut forged = alice.access.clone();
        let last = if forged.pop() == Some('A') { "B" } else { "A" };
        let bearer = format!("Bearer {forged}{last}");
        let answer = client.request("GET", "/wx/session", &[("Authorization", &bearer)], b"");
        assert_problem(&answer, 401, "token-invalid");
        let everywhere = logout(&rig, &rig.login("alice"), r#"{"everywhere":true}"#);
        assert_eq!(everywhere.status, 204);
        assert_problem(&show(&mut client, &alice), 401, "token-invalid");
        let carol = rig.login("carol");
        assert_eq!(show(&mut client, &carol).status, 200);
        rig.advance(Duration::from_secs(7200));
        assert_problem(&show(&mut client, &carol), 401, "token-expired");
    }

    #[test]
    fn a_token_is_good_for_its_own_purpose_only() {
        let app = Untouched::listen();
        let rig = Rig::new(&app.url());
        let session = rig.login("alice");
        let swapped = Session {
            access: session.refresh.clone(),
            refresh: session.access.clone(),
            ..session
        };
        assert_problem(&rig.get_as(&swapped, "/api/whoami"), 401, "token-invalid");
        assert_problem(&rig.refresh(&swapped.refresh), 401, "token-invalid");
        let renamed = swapped.access.replace("wxrt_", "wxat_");
        assert_problem(
            &get_at(rig.sidecar(), &renamed, "/api/whoami"),
            401,
            "token-invalid",
        );
        app.assert_untouched();
    }

    /// The body must not tell an attacker what was wrong.
    #[test]
    fn a_token_that_was_tampered_with_is_refused_with_the_same_words_wherever_the_change_is() {
        let app = Untouched::listen();
        let rig = Rig::new(&app.url());
        let token = rig.login("alice").access;
        let mut forgeries: Vec<String> = (0..token.len())
            .map(|at| {
                let mut bytes = token.clone().into_bytes();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                String::from_utf8(bytes).unwrap()
            })
            .collect();
        forgeries.extend((1..token.len()).map(|end| token[..end].to_owned()));
        for tail in ["A", "=", "==", ".", "\t", "A".repeat(10_000).as_str()] {
            forgeries.push(format!("{token}{tail}A"));
        }
        forgeries.push(format!("{token}="));
        forgeries.push(format!("{token} {token}"));
        let mut client = rig.client();
        let mut shapes = BTreeSet::new();
        for forgery in &forgeries {
            let answer = client.request(
                "GET",
                "/api/x",
                &[("Authorization", &format!("Bearer {forgery}"))],
                b"",
            );
            assert_problem(&answer, 401, "token-invalid");
            let mut problem = answer.json();
            problem["instance"] = Value::Null;
            shapes.insert(problem.to_string());
        }
        assert_eq!(shapes.len(), 1, "{shapes:?}");
        app.assert_untouched();
    }

    #[test]
    fn a_token_of_another_mini_program_is_refused() {
        let rig = rig();
        let session = rig.login("alice");
        let config = rig.config_with(APPID, "wxfedcba9876543210");
        let other = rig::start(&config, &rig.clock);
        assert_problem(
            &get_at(&other, &session.access, "/api/whoami"),
            401,
            "token-invalid",
        );
        let body = json!({ "refresh_token": session.refresh }).to_string();
        let answer = Client::connect(other.inbound_addr()).request(
            "POST",
            "/wx/refresh",
            &[],
            body.as_bytes(),
        );
        assert_problem(&answer, 401, "token-invalid");
    }

    #[test]
    fn replicas_and_restarts_know_each_others_tokens() {
        let mut rig = rig();
        let session = rig.login("alice");
        let replica = rig.replica();
        let answer = get_at(&replica, &session.access, "/api/whoami");
        assert_eq!(answer.json()["openid"], session.openid.as_str());
        rig.restart();
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
        assert_eq!(rig.refresh(&session.refresh).status, 200);
    }

    /// A limit of the store in memory, not a wish: whoever needs more configures a shared one.
    #[test]
    fn a_restart_without_a_shared_store_forgets_revocations() {
        let mut rig = rig();
        let session = rig.login("alice");
        assert_eq!(logout(&rig, &session, "").status, 204);
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 401);
        rig.restart();
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
    }

    #[test]
    fn tokens_outlive_a_rotation_of_the_appsecret() {
        canary(OLD_SECRET);
        let rig = rig();
        let with = |secrets: &str| {
            let config = rig.config_with(
                &format!("secret = \"{SECRET}\""),
                &format!("secret = {secrets}"),
            );
            rig::start(&config, &rig.clock)
        };
        let before = rig.login("alice");
        // Here SECRET is the old one.
        let rotating = with(&format!("[\"{OLD_SECRET}\", \"{SECRET}\"]"));
        assert_eq!(get_at(&rotating, &before.access, "/api/whoami").status, 200);
        let body = json!({ "refresh_token": before.refresh }).to_string();
        let answer = Client::connect(rotating.inbound_addr()).request(
            "POST",
            "/wx/refresh",
            &[],
            body.as_bytes(),
        );
        let resealed = Session::of(&answer.json());
        let after = with(&format!("\"{OLD_SECRET}\""));
        assert_problem(
            &get_at(&after, &before.access, "/api/whoami"),
            401,
            "token-invalid",
        );
        assert_eq!(get_at(&after, &resealed.access, "/api/whoami").status, 200);
        assert_problem(&rig.get_as(&resealed, "/api/whoami"), 401, "token-invalid");
    }

    #[test]
    fn a_session_key_of_the_configuration_replaces_the_derived_one() {
        let (one, two) = (
            "5e5510e5510e5510e5510e5510e5510e",
            "5e5520e5520e5520e5520e5520e5520e",
        );
        canary(one);
        canary(two);
        let rig = Rig::with(app_url(), "", &format!("[session]\nkey = \"{one}\"\n"));
        let session = rig.login("alice");
        let with = |key: &str| {
            rig::start(
                &rig.config_with(&format!("key = \"{one}\""), key),
                &rig.clock,
            )
        };
        let derived = with("");
        assert_problem(
            &get_at(&derived, &session.access, "/api/whoami"),
            401,
            "token-invalid",
        );
        let rotating = with(&format!("key = [\"{two}\", \"{one}\"]"));
        assert_eq!(
            get_at(&rotating, &session.access, "/api/whoami").status,
            200
        );
        let rotated = with(&format!("key = \"{two}\""));
        assert_problem(
            &get_at(&rotated, &session.access, "/api/whoami"),
            401,
            "token-invalid",
        );
        // With a key of its own, the AppSecret no longer matters to tokens.
        let config = rig.config_with(SECRET, OLD_SECRET);
        let other_secret = rig::start(&config, &rig.clock);
        assert_eq!(
            get_at(&other_secret, &session.access, "/api/whoami").status,
            200
        );
    }

    #[test]
    fn lifetimes_are_configured() {
        let sections =
            "[session]\naccess_ttl = \"1m\"\nrefresh_ttl = \"1h\"\nrefresh_grace = \"0s\"\n";
        let rig = Rig::with(app_url(), "", sections);
        let answer = rig.login_with(&rig.code("alice"));
        assert_eq!(answer.json()["expires_in"], 60);
        let session = Session::of(&answer.json());
        rig.advance(Duration::from_secs(60));
        assert_problem(&rig.get_as(&session, "/api/whoami"), 401, "token-expired");
        assert_eq!(rig.refresh(&session.refresh).status, 200);
        assert_problem(&rig.refresh(&session.refresh), 401, "refresh-reused");
    }
}

mod authorization {
    use super::*;

    #[test]
    fn required_lets_nobody_through_without_a_good_token() {
        let app = Untouched::listen();
        let rig = Rig::new(&app.url());
        assert_problem(
            &rig.request("GET", "/api/x", &[], b""),
            401,
            "token-missing",
        );
        for value in ["Basic eA==", "Bearer", "wxat_x", "Bearerwxat_x"] {
            let answer = rig.request("GET", "/api/x", &[("Authorization", value)], b"");
            assert_problem(&answer, 401, "token-missing");
        }
        for value in [
            "Bearer wxat_x",
            "Bearer x",
            "bearer eyJhbGciOiJub25lIn0.e30.",
        ] {
            let answer = rig.request("GET", "/api/x", &[("Authorization", value)], b"");
            assert_problem(&answer, 401, "token-invalid");
        }
        // Nor by any other way of saying who one is.
        let token = rig.login("alice").access;
        let cookie = format!("access_token={token}");
        let answer = rig.request(
            "GET",
            &format!("/api/x?access_token={token}"),
            &[("Cookie", &cookie)],
            b"",
        );
        assert_problem(&answer, 401, "token-missing");
        let probes = [
            ("User-Agent", "kube-probe/1.31"),
            ("X-Original-URL", "/public"),
            ("X-Forwarded-Uri", "/public"),
        ];
        assert_problem(
            &rig.request("GET", "/api/x", &probes, b""),
            401,
            "token-missing",
        );
        app.assert_untouched();
    }

    #[test]
    fn optional_takes_a_good_token_or_none_but_not_a_bad_one() {
        let rig = rig();
        let session = rig.login("alice");
        let echo = Echo::of(&rig.get_as(&session, "/echo/either/x"));
        assert_eq!(echo.values("X-WX-OPENID"), [session.openid.as_str()]);
        let echo = Echo::of(&rig.request("GET", "/echo/either/x", &[], b""));
        assert!(echo.values("X-WX-OPENID").is_empty() && echo.values("X-WX-SOURCE").is_empty());
        let bad = [("Authorization", "Bearer wxat_bad")];
        assert_problem(
            &rig.request("GET", "/echo/either/x", &bad, b""),
            401,
            "token-invalid",
        );
        rig.advance(Duration::from_secs(7200));
        assert_problem(
            &rig.get_as(&session, "/echo/either/x"),
            401,
            "token-expired",
        );
    }

    #[test]
    fn optional_leaves_other_schemes_to_the_app() {
        let rig = rig();
        let basic = [("Authorization", "Basic dXNlcjpwYXNz")];
        let echo = Echo::of(&rig.request("GET", "/echo/either/x", &basic, b""));
        assert_eq!(echo.values("Authorization"), ["Basic dXNlcjpwYXNz"]);
        assert!(echo.values("X-WX-OPENID").is_empty());
    }

    #[test]
    fn none_is_anonymous_whatever_comes() {
        let rig = rig();
        let session = rig.login("alice");
        for headers in [
            vec![],
            vec![("Authorization", session.bearer())],
            vec![("Authorization", "Bearer bad".to_owned())],
        ] {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let echo = Echo::of(&rig.request("GET", "/echo/open/x", &headers, b""));
            assert!(echo.values("X-WX-OPENID").is_empty() && echo.values("X-WX-SOURCE").is_empty());
        }
    }

    #[test]
    fn two_authorization_lines_are_a_400() {
        let app = Untouched::listen();
        let rig = Rig::new(&app.url());
        let (alice, bob) = (rig.login("alice").bearer(), rig.login("bob").bearer());
        for (first, second) in [(&alice, &bob), (&alice, &alice)] {
            let headers = [
                ("Authorization", first.as_str()),
                ("authorization", second.as_str()),
            ];
            for target in ["/api/x", "/wx/session"] {
                assert_problem(
                    &rig.request("GET", target, &headers, b""),
                    400,
                    "bad-request",
                );
            }
        }
        app.assert_untouched();
    }
}

/// The app's own login path, and `X-WX-Code` on any.
mod on_the_way {
    use super::*;

    const TOKENS: [&str; 3] = ["X-WX-Access-Token", "X-WX-Refresh-Token", "X-WX-Expires-In"];

    fn assert_no_tokens(answer: &Response) {
        for name in TOKENS {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }

    #[test]
    fn a_code_in_a_header_logs_in_on_any_request() {
        let rig = rig();
        let code = rig.code("alice");
        let answer = rig.request("GET", "/echo/x", &[("X-WX-Code", &code)], b"");
        let echo = Echo::of(&answer);
        let openid = rig.sim.openid("alice");
        assert_eq!(echo.values("X-WX-OPENID"), [openid.as_str()]);
        assert!(echo.values("X-WX-Code").is_empty());
        assert!(!answer.text().contains(&code));
        assert_eq!(answer.header("X-WX-Expires-In"), Some("7200"));
        assert_eq!(
            answer.headers_all("cache-control").last(),
            Some(&"no-store")
        );
        let session = Session::of_headers(&answer, openid.as_str());
        assert_eq!(
            rig.get_as(&session, "/api/whoami").json()["openid"],
            openid.as_str()
        );
        // A retry on a bad network gives the same session.
        let again = rig.request("GET", "/echo/x", &[("x-wx-code", &code)], b"");
        assert_eq!(
            Session::of_headers(&again, openid.as_str()).access,
            session.access
        );
        assert_eq!(rig.sim.calls(LOGIN), 1);
        assert_eq!(rig.refresh(&session.refresh).status, 200);
    }

    /// The code is spent, so the client must get its tokens whatever the app says.
    #[test]
    fn a_code_in_a_header_logs_in_even_where_the_app_fails() {
        let rig = rig();
        for (user, target, status) in [("alice", "/api/missing", 404), ("bob", "/api/boom", 500)] {
            let answer = rig.request("GET", target, &[("X-WX-Code", &rig.code(user))], b"");
            assert_eq!(answer.status, status);
            let session = Session::of_headers(&answer, user);
            assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
        }
    }

    #[test]
    fn a_code_in_a_header_wins_over_a_token() {
        let rig = rig();
        let bob = rig.login("bob").bearer();
        let headers = [
            ("Authorization", bob.as_str()),
            ("X-WX-Code", &rig.code("alice")),
        ];
        let answer = rig.request("GET", "/echo/x", &headers, b"");
        Session::of_headers(&answer, "alice");
        let echo = Echo::of(&answer);
        assert_eq!(
            echo.values("X-WX-OPENID"),
            [rig.sim.openid("alice").as_str()]
        );
        assert!(echo.values("Authorization").is_empty());
    }

    #[test]
    fn a_bad_code_in_a_header_stops_before_the_app() {
        let app = Untouched::listen();
        let rig = Rig::with(
            &app.url(),
            "",
            "[[route]]\npath = \"/open\"\nauth = \"none\"\n",
        );
        let (one, two) = (rig.code("alice"), rig.code("alice"));
        for target in ["/api/x", "/open"] {
            let twice = [("X-WX-Code", one.as_str()), ("x-wx-code", two.as_str())];
            assert_problem(&rig.request("GET", target, &twice, b""), 400, "bad-request");
            for odd in ["", "a b", "\u{e9}", &"x".repeat(513)] {
                assert_problem(
                    &rig.request("GET", target, &[("X-WX-Code", odd)], b""),
                    400,
                    "bad-request",
                );
            }
            let answer = rig.request("GET", target, &[("X-WX-Code", "made-up")], b"");
            assert_eq!(answer.status, 401);
            assert_eq!(answer.json()["errcode"], 40029);
            assert_no_tokens(&answer);
        }
        app.assert_untouched();
    }

    /// Only the true spelling is ours; others are dropped like any forgery.
    #[test]
    fn a_code_under_another_spelling_is_no_code() {
        let rig = rig();
        for name in ["X_WX_CODE", "X-WX_Code", "X-WX--Code"] {
            let answer = rig.request("GET", "/echo/open/x", &[(name, &rig.code("alice"))], b"");
            assert_no_tokens(&answer);
            assert!(Echo::of(&answer).values("x-wx-code").is_empty());
        }
        assert_eq!(rig.sim.calls(LOGIN), 0);
    }

    #[test]
    fn the_apps_own_login_gets_the_user_and_its_client_the_tokens() {
        let rig = rig();
        let body = json!({"code": rig.code("alice"), "nickname": "小明"}).to_string();
        let answer = rig.request("POST", "/auth/login", &[JSON], body.as_bytes());
        let openid = rig.sim.openid("alice");
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"welcome": openid.as_str()}))
        );
        let session = Session::of_headers(&answer, openid.as_str());
        assert_eq!(answer.header("X-WX-Expires-In"), Some("7200"));
        assert_eq!(
            rig.get_as(&session, "/api/whoami").json()["openid"],
            openid.as_str()
        );
    }

    #[test]
    fn the_apps_own_login_gets_the_body_as_it_was() {
        let rig = rig();
        let object =
            json!({"code": rig.code("alice"), "text": "中文 \u{1f600}", "list": [1, 2.5, null]});
        let body = object.to_string();
        let sized = rig.request("POST", "/api/json", &[JSON], body.as_bytes());
        assert_eq!(sized.json(), object);
        Session::of_headers(&sized, "alice");
        let (start, end) = body.as_bytes().split_at(9);
        let in_chunks = [JSON, ("Transfer-Encoding", "chunked")];
        let answer = rig.request("POST", "/api/json", &in_chunks, &chunked(&[start, end]));
        assert_eq!(answer.json(), object);
        Session::of_headers(&answer, "alice");
    }

    #[test]
    fn a_user_whom_the_app_turns_away_gets_no_tokens() {
        let rig = rig();
        let body = json!({"code": rig.code("alice"), "nickname": "banned"}).to_string();
        let answer = rig.request("POST", "/auth/login", &[JSON], body.as_bytes());
        assert_eq!(
            (answer.status, answer.json()),
            (403, json!({"error": "banned"}))
        );
        assert_no_tokens(&answer);
    }

    #[test]
    fn a_login_without_a_good_code_never_reaches_the_app() {
        let app = Untouched::listen();
        let rig = Rig::with(
            &app.url(),
            "",
            "[[route]]\npath = \"/auth/login\"\nlogin = true\n",
        );
        let bearer = rig.login("bob").bearer();
        for body in [
            "",
            "{",
            "[]",
            "\"x\"",
            "{}",
            r#"{"code":1}"#,
            r#"{"code":""}"#,
            r#"{"Code":"x"}"#,
        ] {
            let headers = [JSON, ("Authorization", &bearer)];
            assert_problem(
                &rig.request("POST", "/auth/login", &headers, body.as_bytes()),
                400,
                "bad-request",
            );
        }
        let answer = rig.request("POST", "/auth/login", &[JSON], br#"{"code":"made-up"}"#);
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_no_tokens(&answer);
        let long = json!({"code": "x", "fill": "x".repeat(1024 * 1024)}).to_string();
        assert_problem(
            &rig.request("POST", "/auth/login", &[JSON], long.as_bytes()),
            413,
            "body-too-large",
        );
        app.assert_untouched();
    }

    /// An app may not hand out what looks like our tokens, nor name a user to the client.
    #[test]
    fn identity_goes_to_the_app_and_not_back() {
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let rig = Rig::new(&format!("http://{}", app.local_addr().unwrap()));
        let session = rig.login("alice");
        let answer = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = app.accept().unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    asked.push(byte[0]);
                }
                let answer = "HTTP/1.1 200 OK\r\nX-WX-Access-Token: forged\r\nX_WX_OPENID: forged\r\nX-Own: kept\r\n\
                              x-wx-anything: forged\r\nX-Request-Id: forged\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
            });
            rig.get_as(&session, "/x")
        });
        assert_eq!((answer.status, answer.header("x-own")), (200, Some("kept")));
        let forged = answer.headers.iter().find(|(_, value)| value == "forged");
        assert_eq!(forged, None);
        assert!(answer.header("x-request-id").is_some());
    }
}

mod reload {
    use super::*;

    #[test]
    fn a_login_replayed_after_a_change_of_keys_gives_tokens_that_open() {
        let (one, two) = (
            "5e5550e5550e5550e5550e5550e5550e",
            "5e5560e5560e5560e5560e5560e5560e",
        );
        canary(one);
        canary(two);
        let rig = Rig::with(app_url(), "", &format!("[session]\nkey = \"{one}\"\n"));
        let code = rig.code("alice");
        let old = Session::of(&rig.login_with(&code).json());
        rig.reload(one, two);
        assert_eq!(rig.get_as(&old, "/wx/session").status, 401);
        let new = Session::of(&rig.login_with(&code).json());
        assert_eq!(rig.get_as(&new, "/wx/session").status, 200);
        assert_eq!(rig.sim.calls(LOGIN), 1);
    }

    #[test]
    fn a_token_of_keys_that_are_gone_ends_on_a_connection_that_has_shown_it_before() {
        let (one, two) = (
            "5e5570e5570e5570e5570e5570e5570e",
            "5e5580e5580e5580e5580e5580e5580e",
        );
        canary(one);
        canary(two);
        let rig = Rig::with(app_url(), "", &format!("[session]\nkey = \"{one}\"\n"));
        let session = rig.login("alice");
        let mut client = rig.client();
        assert_eq!(show(&mut client, &session).status, 200);
        rig.reload(one, two);
        assert_problem(&show(&mut client, &session), 401, "token-invalid");
    }

    /// The store forgets the end of a session after the `refresh_ttl` that it was started with.
    #[test]
    fn a_longer_refresh_ttl_takes_a_restart_and_the_metrics_say_so() {
        let rig = Rig::with(app_url(), "", "[session]\nrefresh_ttl = \"1d\"\n");
        let loaded = "wx_sidecar_config_last_reload_successful";
        assert!((rig.metric(loaded) - 1.0).abs() < f64::EPSILON);
        let with_ttl = |ttl: &str| {
            let text = rig.config_with("refresh_ttl = \"1d\"", &format!("refresh_ttl = \"{ttl}\""));
            rig.sidecar().reload(Config::from_toml(&text).unwrap())
        };
        assert!(
            with_ttl("2d")
                .unwrap_err()
                .to_string()
                .contains("refresh_ttl")
        );
        assert!(rig.metric(loaded).abs() < f64::EPSILON);
        assert!(with_ttl("12h").is_ok());
        assert!((rig.metric(loaded) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn no_request_fails_while_routes_and_keys_are_reloaded() {
        let (one, two) = (
            "5e5530e5530e5530e5530e5530e5530e",
            "5e5540e5540e5540e5540e5540e5540e",
        );
        canary(one);
        canary(two);
        let sections = format!(
            "[session]\nkey = \"{one}\"\n[[route]]\npath = \"/echo/**\"\nauth = \"required\"\n"
        );
        let rig = Rig::with(app_url(), "", &sections);
        let changed = rig.config_with(
            &format!("key = \"{one}\""),
            &format!("key = [\"{two}\", \"{one}\"]"),
        );
        let changed = rig::replaced(&changed, "auth = \"required\"", "auth = \"optional\"");
        let reload = |config: &str| {
            rig.sidecar()
                .reload(Config::from_toml(config).unwrap())
                .unwrap();
        };
        let session = rig.login("alice");
        assert_eq!(rig.request("GET", "/echo/x", &[], b"").status, 401);
        let done = AtomicBool::new(false);
        let counts = thread::scope(|scope| {
            let spawn = |_| {
                scope.spawn(|| {
                    let mut client = rig.client();
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) || count < 20 {
                        let bearer = session.bearer();
                        let answer = client.request(
                            "GET",
                            "/api/whoami",
                            &[("Authorization", &bearer)],
                            b"",
                        );
                        assert_eq!(answer.json()["openid"], session.openid.as_str());
                        count += 1;
                    }
                    count
                })
            };
            let threads: Vec<_> = (0..4).map(spawn).collect();
            for _ in 0..25 {
                reload(&changed);
                assert_eq!(rig.request("GET", "/echo/x", &[], b"").status, 200);
                reload(rig.config());
                assert_eq!(rig.request("GET", "/echo/x", &[], b"").status, 401);
            }
            done.store(true, Ordering::Relaxed);
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(counts.iter().all(|count| *count >= 20));
        reload(&changed);
        let sealed_anew = rig.login("bob");
        reload(rig.config());
        assert_problem(
            &rig.get_as(&sealed_anew, "/api/whoami"),
            401,
            "token-invalid",
        );
    }

    #[test]
    fn revocations_and_spent_tokens_outlive_a_reload() {
        let rig = rig();
        let (gone, spent) = (rig.login("alice"), rig.login("bob"));
        assert_eq!(logout(&rig, &gone, "").status, 204);
        assert_eq!(rig.refresh(&spent.refresh).status, 200);
        rig.sidecar()
            .reload(Config::from_toml(rig.config()).unwrap())
            .unwrap();
        assert_problem(&rig.get_as(&gone, "/api/whoami"), 401, "token-invalid");
        rig.advance(Duration::from_secs(10));
        assert_problem(&rig.refresh(&spent.refresh), 401, "refresh-reused");
    }

    #[test]
    fn what_cannot_change_while_it_runs_changes_nothing() {
        let rig = rig();
        let session = rig.login("alice");
        let config = rig.config_with("workers = 2", "workers = 3");
        let config = rig::replaced(&config, SECRET, OLD_SECRET);
        let error = rig
            .sidecar()
            .reload(Config::from_toml(&config).unwrap())
            .unwrap_err();
        assert!(error.to_string().contains("workers"), "{error}");
        assert_eq!(rig.get_as(&session, "/api/whoami").status, 200);
    }
}

#[test]
fn logins_are_counted_by_their_outcome() {
    let rig = rig();
    let code = rig.code("alice");
    for _ in 0..2 {
        rig.login_with(&code);
    }
    rig.login_with("made-up");
    let expected = HashMap::from([("ok", 1.0), ("replayed", 1.0), ("user_input", 1.0)]);
    for (result, count) in expected {
        let series = format!("wx_sidecar_login_total{{result=\"{result}\"}}");
        assert!(
            (rig.metric(&series) - count).abs() < f64::EPSILON,
            "{series}\n{}",
            rig.admin("/metrics").text()
        );
    }
}
