//! Whatever WeChat answers to a login, or does not, the client gets a status that fits and a problem that says what to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use wx_sidecar::sim::{Effect, Fault, UserChange};

use crate::http_client::{Client, Response};
use crate::patience::{PATIENCE, eventually};
use crate::rig::{Rig, SECRET, canary};

const LOGIN: &str = "/sns/jscode2session";
/// Logins need no app; nobody listens on this port.
const NO_APP: &str = "http://127.0.0.1:9";

/// Posts a code, asking for an answer in this language.
fn login_in(rig: &Rig, language: &str, code: &str) -> Response {
    let body = json!({ "code": code }).to_string();
    rig.request(
        "POST",
        "/wx/login",
        &[("Accept-Language", language)],
        body.as_bytes(),
    )
}

/// Asserts what holds for every problem, and gives it.
fn problem(answer: &Response, status: u16, slug: &str) -> Value {
    assert!(!answer.text().contains(SECRET));
    answer.problem(status, slug)
}

/// Asserts a problem with one of WeChat's numbers behind it.
fn refused(answer: &Response, status: u16, errcode: i64, class: &str, retryable: bool) -> Value {
    let problem = problem(answer, status, "wechat-refused");
    assert_eq!(problem["errcode"], errcode, "{problem}");
    assert_eq!(problem["class"], class);
    assert_eq!(problem["retryable"], retryable);
    assert!(problem["errmsg"].is_string());
    problem
}

fn errcode(errcode: i64) -> Fault {
    Fault::new(
        LOGIN,
        1,
        Effect::Errcode {
            errcode,
            errmsg: None,
        },
    )
}

fn is_chinese(text: &Value) -> bool {
    let text = text.as_str().expect("a text");
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[test]
fn a_made_up_code_is_the_clients_fault() {
    let rig = Rig::new(NO_APP);
    let problem = refused(&rig.login_with("made-up"), 401, 40029, "user_input", false);
    assert!(problem["hint"].as_str().unwrap().contains("wx.login"));
    assert!(problem["rid"].is_string());
}

#[test]
fn a_code_from_another_hand_is_spent() {
    let rig = Rig::new(NO_APP);
    let code = rig.code("alice");
    let target = format!(
        "{LOGIN}?appid={}&secret={SECRET}&js_code={code}&grant_type=authorization_code",
        crate::rig::APPID
    );
    let direct = Client::connect(rig.sim.addr()).request("GET", &target, &[], b"");
    canary(direct.json()["session_key"].as_str().unwrap());
    let problem = refused(&rig.login_with(&code), 401, 40163, "user_input", false);
    assert!(problem["hint"].as_str().unwrap().contains("wx.login"));
}

#[test]
fn an_expired_code_is_refused() {
    let rig = Rig::new(NO_APP);
    let code = rig.code("alice");
    rig.advance(Duration::from_secs(301));
    refused(&rig.login_with(&code), 401, 40029, "user_input", false);
}

#[test]
fn a_blocked_user_is_forbidden() {
    let rig = Rig::new(NO_APP);
    let change = UserChange {
        blocked: Some(true),
        ..UserChange::default()
    };
    rig.sim.change_user("mallory", &change);
    let problem = refused(
        &rig.login_with(&rig.code("mallory")),
        403,
        40226,
        "content_risk",
        false,
    );
    assert!(problem["hint"].is_string());
}

#[test]
fn too_many_logins_of_a_user_are_a_429_that_says_when_to_come_back() {
    let rig = Rig::new(NO_APP);
    let change = UserChange {
        logins_per_minute: Some(1),
        ..UserChange::default()
    };
    rig.sim.change_user("alice", &change);
    rig.login("alice");
    let answer = rig.login_with(&rig.code("alice"));
    let problem = refused(&answer, 429, 45011, "rate_quota", true);
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!(problem["retry_after"], 60);
    assert!(problem["hint"].is_string());
    rig.login("bob");
    rig.advance(Duration::from_secs(60));
    rig.login("alice");
}

#[test]
fn a_busy_wechat_is_a_503_and_the_same_code_works_later() {
    let rig = Rig::new(NO_APP);
    let code = rig.code("alice");
    rig.sim.fault(errcode(-1));
    let answer = rig.login_with(&code);
    let problem = refused(&answer, 503, -1, "transient", true);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(problem["hint"].is_string());
    assert_eq!(
        rig.sim.calls(LOGIN),
        1,
        "what to repeat is the client's decision"
    );
    assert_eq!(rig.login_with(&code).status, 200);
}

#[test]
fn an_unknown_errcode_is_a_502_that_names_it() {
    let rig = Rig::new(NO_APP);
    rig.sim.fault(errcode(987_654));
    refused(
        &rig.login_with(&rig.code("alice")),
        502,
        987_654,
        "unknown",
        false,
    );
}

#[test]
fn a_wrong_appsecret_is_our_fault_and_not_told_in_detail_to_the_client() {
    let rig = Rig::new(NO_APP);
    let wrong = "badc0ffebadc0ffebadc0ffebadc0ffe";
    canary(wrong);
    let sidecar = crate::rig::start(&rig.config_with(SECRET, wrong), &rig.clock);
    let body = json!({ "code": rig.code("alice") }).to_string();
    let answer =
        Client::connect(sidecar.inbound_addr()).request("POST", "/wx/login", &[], body.as_bytes());
    let problem = refused(&answer, 500, 40125, "auth_config", false);
    assert!(!answer.text().contains(wrong));
    assert!(problem["hint"].as_str().unwrap().contains("secret"));
}

#[test]
fn an_errmsg_that_echoes_secrets_is_told_without_them() {
    let rig = Rig::new(NO_APP);
    let code = rig.code("alice");
    let errmsg = format!("invalid: secret={SECRET}&js_code={code} rid: 64f0c1a2-0a1b2c3d-4e5f6071");
    rig.sim.fault(Fault::new(
        LOGIN,
        1,
        Effect::Errcode {
            errcode: 40029,
            errmsg: Some(errmsg),
        },
    ));
    let answer = rig.login_with(&code);
    refused(&answer, 401, 40029, "user_input", false);
    assert!(!answer.text().contains(&code));
}

#[test]
fn problems_speak_the_language_of_their_reader() {
    let rig = Rig::new(NO_APP);
    for (language, chinese) in [
        ("zh-CN,zh;q=0.9,en;q=0.8", true),
        ("zh", true),
        ("ZH-hans", true),
        ("fr, zh-CN;q=0.5", true),
        ("en-US,en;q=0.9,zh;q=0.8", false),
        ("fr", false),
        ("", false),
    ] {
        for code in [40029, 40163, 40226, 45011, -1] {
            rig.sim.fault(errcode(code));
            let problem = login_in(&rig, language, &rig.code("alice")).json();
            assert_eq!(problem["errcode"], code);
            for member in ["title", "detail", "hint"] {
                assert_eq!(
                    is_chinese(&problem[member]),
                    chinese,
                    "{member} of {code} for {language:?}: {problem}"
                );
            }
        }
    }
}

#[test]
fn what_is_the_sidecars_own_speaks_it_too() {
    let rig = Rig::new(NO_APP);
    let session = rig.login("alice");
    let bearer = session.bearer();
    for (method, path, token, body, kind) in [
        ("GET", "/api/x", "", "", "token-missing"),
        ("GET", "/api/x", "Bearer wxs1.x", "", "token-invalid"),
        ("GET", "/api/x", &bearer[..], "", "upstream-unreachable"),
        ("GET", "/wx/nothing", "", "", "not-found"),
        ("DELETE", "/wx/login", "", "", "method-not-allowed"),
        ("POST", "/wx/login", "", "[]", "bad-request"),
        ("POST", "/wx/login", "", "{}", "bad-request"),
        (
            "POST",
            "/wx/refresh",
            "",
            r#"{"refresh_token":1}"#,
            "bad-request",
        ),
        ("POST", "/wx/phone", &bearer[..], "{}", "bad-request"),
        ("POST", "/wx/push", "", "", "not-found"),
    ] {
        for (language, chinese) in [("zh-CN", true), ("en", false)] {
            let mut lines = vec![("Accept-Language", language)];
            lines.extend((!token.is_empty()).then_some(("Authorization", token)));
            let problem = rig.request(method, path, &lines, body.as_bytes()).json();
            assert_eq!(problem["type"], format!("urn:wx-sidecar:problem:{kind}"));
            for member in ["title", "detail", "hint"] {
                let told = &problem[member];
                let is_told = !told.is_null() || member == "hint";
                assert!(
                    is_told && (told.is_null() || is_chinese(told) == chinese),
                    "{member} of {kind} for {language:?}: {problem}"
                );
            }
        }
    }
}

#[test]
fn a_wechat_that_is_too_slow_is_a_504() {
    let rig = Rig::new(NO_APP);
    // Long enough for the call to arrive, on a machine that is busy.
    rig.reload("timeout = \"30s\"", "timeout = \"8s\"");
    rig.sim.fault(Fault::delay(LOGIN, 1, 2 * PATIENCE));
    let problem = problem(&rig.login_with(&rig.code("alice")), 504, "wechat-timeout");
    assert_eq!(problem["retryable"], true);
    assert!(
        problem["hint"].is_string(),
        "the code may be spent, which the client must be told"
    );
    eventually("it has arrived", || rig.sim.calls(LOGIN) == 1);
    rig.reload("timeout = \"30s\"", "timeout = \"1m\"");
    assert_eq!(rig.login_with(&rig.code("alice")).status, 200);
    assert_eq!(rig.sim.calls(LOGIN), 2, "it is not repeated");
}

#[test]
fn a_wechat_that_answers_nonsense_is_a_502() {
    let rig = Rig::new(NO_APP);
    let status = |status, body: Option<&str>| Effect::Status {
        status,
        body: body.map(str::to_owned),
    };
    for (effect, slug) in [
        (Effect::Reset, "wechat-unreachable"),
        (Effect::ResetMidBody, "wechat-unreachable"),
        (Effect::Garbage, "wechat-invalid"),
        (Effect::Empty, "wechat-invalid"),
        (status(502, None), "wechat-invalid"),
        (
            status(200, Some("<html>captive portal</html>")),
            "wechat-invalid",
        ),
        (status(200, Some("[]")), "wechat-invalid"),
        (status(200, Some("{}")), "wechat-invalid"),
        (status(302, Some("{}")), "wechat-invalid"),
        (status(500, Some("{}")), "wechat-invalid"),
    ] {
        rig.sim.fault(Fault::new(LOGIN, 1, effect.clone()));
        let calls = rig.sim.calls(LOGIN);
        let answer = rig.login_with(&rig.code("alice"));
        let problem = problem(&answer, 502, slug);
        assert!(problem.get("errcode").is_none(), "{problem}");
        assert!(
            !answer.text().contains("captive"),
            "the body is not reflected: {problem}"
        );
        assert_eq!(
            rig.sim.calls(LOGIN),
            calls + 1,
            "{effect:?} is not repeated, for the code may be spent"
        );
        // And nothing of it sticks.
        assert_eq!(
            rig.login_with(&rig.code("alice")).status,
            200,
            "after {effect:?}"
        );
    }
}

#[test]
fn a_wechat_that_is_not_there_is_a_502() {
    // Bound and not listening: every connection is refused, and nobody else gets the port.
    let gone = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    gone.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = gone.local_addr().unwrap().as_socket().unwrap();
    let rig = Rig::with(NO_APP, "", &wechat_at(addr));
    let problem = problem(
        &rig.login_with(&rig.code("alice")),
        502,
        "wechat-unreachable",
    );
    assert_eq!(problem["retryable"], true);
    assert!(!problem.to_string().contains(&addr.port().to_string()));
}

fn wechat_at(addr: SocketAddr) -> String {
    format!("[wechat]\nendpoints = [\"http://{addr}\"]\ntimeout = \"30s\"\n")
}

/// A WeChat that answers every call with this body; the simulator would not.
fn wechat_that_says(body: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        // The test is over when nobody connects any more; the thread ends with the process.
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let mut asked = Vec::new();
            let mut piece = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(count) if count > 0 => asked.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            // The sidecar may have stopped reading.
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    addr
}

#[test]
fn an_identity_that_could_not_be_a_header_is_a_502() {
    let key = "c2Vzc2lvbi1rZXkxMjM0NQ==";
    canary(key);
    let session = |openid: &str, unionid: Value, key: &str| {
        json!({ "openid": openid, "unionid": unionid, "session_key": key }).to_string()
    };
    let good = "oGoodGoodGoodGoodGoodGood000";
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for said in [
        session("oBad\r\nX-Admin: 1", Value::Null, key),
        session("oBad\nX-WX-OPENID: x", Value::Null, key),
        session("oBad\0Bad", Value::Null, key),
        session("oBad,oGood", Value::Null, key),
        session("o\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", Value::Null, key),
        session("short", Value::Null, key),
        session("", Value::Null, key),
        session(&"o".repeat(65), Value::Null, key),
        session(good, json!("u\r\nX-Admin: 1"), key),
        session(good, json!(["u12345678"]), key),
        session(good, Value::Null, "c2hvcnQ="),
        session(good, Value::Null, "not base64!"),
        format!(r#"{{"session_key":"{key}"}}"#),
        format!(r#"{{"openid":"{good}"}}"#),
        format!(r#"{{"openid":["{good}"],"session_key":"{key}"}}"#),
        format!(r#"{{"openid":"oOther00","openid":"{good}","session_key":"{key}"}}"#),
        format!(r#"{{"openid":"{good}","session_key":"{key}","x":{deep}}}"#),
        format!(
            r#"{{"openid":"{good}","session_key":"{key}","x":"{}"}}"#,
            "x".repeat(1024 * 1024)
        ),
        format!(r#"{{"openid":"{good}","session_key":"{key}","errcode":"zero"}}"#),
    ] {
        let rig = Rig::with(NO_APP, "", &wechat_at(wechat_that_says(&said)));
        let answer = rig.login_with(&rig.code("alice"));
        problem(&answer, 502, "wechat-invalid");
        let text = answer.text();
        for leak in [good, key, "Admin", "oBad"] {
            assert!(!text.contains(leak), "{text}");
        }
    }
    let rig = Rig::with(
        NO_APP,
        "",
        &wechat_at(wechat_that_says(&session(good, Value::Null, key))),
    );
    assert_eq!(rig.login("alice").openid, good);
}

#[test]
fn a_login_needs_no_access_token() {
    let rig = Rig::new(NO_APP);
    rig.login("alice");
    rig.login_with("made-up");
    assert_eq!(rig.sim.calls("/cgi-bin/stable_token"), 0);
    assert_eq!(rig.sim.calls("/cgi-bin/token"), 0);
}

#[test]
fn an_odd_code_is_refused_without_asking_wechat() {
    let rig = Rig::new(NO_APP);
    for code in [
        "",
        " ",
        "a b",
        "a\nb",
        "a\r\nX: y",
        "a\0b",
        "\u{7f}",
        "中文",
        &"x".repeat(513),
    ] {
        let answer = rig.login_with(code);
        problem(&answer, 400, "bad-request");
    }
    problem(
        &rig.login_with(&"x".repeat(64 * 1024)),
        413,
        "body-too-large",
    );
    for body in [
        "",
        "code=x",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"code":null}"#,
        r#"{"code":1}"#,
        r#"{"code":["x"]}"#,
    ] {
        problem(
            &rig.request("POST", "/wx/login", &[], body.as_bytes()),
            400,
            "bad-request",
        );
    }
    assert_eq!(rig.sim.calls(LOGIN), 0);
}

#[test]
fn a_code_cannot_inject_a_parameter() {
    let rig = Rig::new(NO_APP);
    for code in [
        "x&appid=wxfedcba9876543210",
        "x&secret=wrong",
        "x&grant_type=other",
        "x#fragment",
        "x%26appid%3Dwxfedcba9876543210",
        "x+y",
        "../../cgi-bin/token",
        "x?y=z",
    ] {
        // Taken apart, it would be another error than that of an unknown code.
        refused(&rig.login_with(code), 401, 40029, "user_input", false);
    }
    let good = rig.code("alice");
    refused(
        &rig.login_with(&format!("{good}&x=y")),
        401,
        40029,
        "user_input",
        false,
    );
    assert_eq!(rig.login_with(&good).status, 200);
}

#[test]
fn the_language_that_weighs_most_is_spoken() {
    let rig = Rig::new("http://127.0.0.1:9");
    for (preference, title) in [
        ("zh-CN,zh;q=0.9,en;q=0.8", "需要访问令牌"),
        ("en;q=0.1, zh;q=0.5", "需要访问令牌"),
        ("zh;q=0, en", "An access token is required"),
        ("fr", "An access token is required"),
        ("en-US", "An access token is required"),
    ] {
        let answer = rig.request("GET", "/api", &[("Accept-Language", preference)], b"");
        assert_eq!(answer.json()["title"], title, "{preference}");
    }
}
