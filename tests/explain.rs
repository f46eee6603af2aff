//! What `wx-sidecar explain` says, held against what a sidecar with the same configuration does.
//!
//! An explanation is only worth reading if it is true. So each request here is explained and sent, and what the app was
//! sent, or the client was told, must be what the explanation said.

use std::collections::BTreeMap;

use serde_json::Value;
use wx_sidecar::config::Loaded;
use wx_sidecar::{Asked, Config, Explanation};

use crate::fake_app::FakeApp;
use crate::process::{finished, write_configuration};
use crate::rig::{APPID, Rig, START, Session, canary};

const SECTIONS: &str = r#"
[[route]]
path = "/public/**"
auth = "none"
[[route]]
path = "/api/orders"
methods = ["POST"]
body_limit = "1KiB"
timeout = "40s"
[[route]]
path = "/api/*"
auth = "optional"
[[route]]
path = "/proof/**"
rate_limit = "1000/s"
[session]
assertion = true
[push]
token = "canary4push4token"
aes_key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
"#;

/// A sidecar and its app, and the same configuration to explain by.
struct Held {
    app: FakeApp,
    rig: Rig,
    loaded: Loaded,
    alice: Session,
}

impl Held {
    fn new(inbound: &str) -> Self {
        let app = FakeApp::agreeable();
        let rig = Rig::with(&app.url(), inbound, SECTIONS);
        let loaded = parsed(rig.config());
        let alice = rig.login("alice");
        Self {
            app,
            rig,
            loaded,
            alice,
        }
    }

    fn explain(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Value {
        let lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let asked = Asked {
            method,
            target,
            lines: &lines,
            from: "127.0.0.1".parse().ok(),
            now: START,
        };
        let explanation = Explanation::of(&self.loaded, &asked);
        let json = explanation.to_json();
        assert_eq!(json["ok"], !explanation.is_refused());
        for text in [json.to_string(), explanation.to_string()] {
            for secret in [&self.alice.access, &self.alice.refresh] {
                assert!(!text.contains(secret.as_str()), "{text}");
            }
        }
        json
    }

    /// Explains a request and sends it: both must agree.
    fn agrees(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
        let mut headers = headers.to_vec();
        headers.push(("Host", "shop.example"));
        let length = body.len().to_string();
        if !body.is_empty() || method == "POST" {
            headers.push(("Content-Length", &length));
        }
        let told = self.explain(method, target, &headers);
        let before = self.app.targets().len();
        let answer = self.rig.request(method, target, &headers, body);
        let seen = self.app.requests(0).split_off(before);
        let what = format!("{method} {target} {headers:?}: {told:#}\n{}", answer.text());
        if told["taker"]["kind"] == "endpoint" && told["ok"] == true {
            assert!(seen.is_empty(), "{what}");
            assert!(answer.status < 400, "{what}");
            return told;
        }
        if told["ok"] == false {
            assert!(seen.is_empty(), "{what}");
            assert_eq!(answer.status, told["refusal"]["status"], "{what}");
            let kind = told["refusal"]["kind"].as_str().unwrap();
            let problem = answer.problem(answer.status, kind);
            assert_eq!(problem["detail"], told["refusal"]["detail"], "{what}");
            return told;
        }
        assert_eq!((answer.status, seen.len()), (200, 1), "{what}");
        let path = told["path"].as_str().unwrap();
        assert!(seen[0].head.contains(&format!(" {path}")), "{what}");
        assert_eq!(lines(&seen[0].head), promised(&told, &headers), "{what}");
        told
    }
}

fn parsed(config: &str) -> Loaded {
    Config::parse(config, "sidecar.toml", &|_| None).unwrap()
}

/// The field lines of a head by name, with what differs each time left out.
fn lines(head: &str) -> BTreeMap<String, Vec<String>> {
    let mut lines = BTreeMap::<_, Vec<_>>::new();
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ") {
            let name = name.to_owned();
            let value = match name.as_str() {
                "x-request-id" | "traceparent" => "<new>".to_owned(),
                "X-WX-Assertion" => "<signed, 60 s>".to_owned(),
                _ => value.to_owned(),
            };
            lines.entry(name).or_default().push(value);
        }
    }
    lines
}

/// The field lines that an explanation says the app gets.
fn promised(told: &Value, headers: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let mut lines = BTreeMap::<_, Vec<_>>::new();
    let kept = told["headers"]["kept"].as_array().unwrap();
    for (name, value) in headers {
        if kept.iter().any(|kept| kept == name) {
            lines
                .entry((*name).to_owned())
                .or_default()
                .push((*value).to_owned());
        }
    }
    for line in told["headers"]["added"].as_array().unwrap() {
        let text = |member: &str| line[member].as_str().unwrap().to_owned();
        lines.entry(text("name")).or_default().push(text("value"));
    }
    lines
}

/// Why a header is said not to reach the app.
fn why<'a>(told: &'a Value, name: &str) -> &'a str {
    let removed = told["headers"]["removed"].as_array().unwrap();
    let line = removed.iter().find(|line| line["name"] == name);
    line.and_then(|line| line["why"].as_str())
        .unwrap_or_else(|| panic!("{name} is not removed: {told:#}"))
}

#[test]
fn what_is_explained_is_what_happens() {
    let held = Held::new("");
    let bearer = held.alice.bearer();
    let token = ("Authorization", bearer.as_str());
    let small = br#"{"a":1}"#;
    let large = [b'x'; 2000];
    for (method, target, headers, body) in [
        ("GET", "/public/a?b=c", vec![], &b""[..]),
        ("GET", "/public/a", vec![token], b""),
        ("GET", "//public/./x/../a%41", vec![], b""),
        ("GET", "/api/whoami", vec![], b""),
        ("GET", "/api/whoami", vec![token], b""),
        (
            "GET",
            "/api/whoami",
            vec![("Authorization", "Basic YTpi")],
            b"",
        ),
        (
            "GET",
            "/api/whoami",
            vec![("Authorization", "Bearer wxat_forged")],
            b"",
        ),
        ("GET", "/elsewhere", vec![], b""),
        ("GET", "/elsewhere", vec![token, token], b""),
        (
            "GET",
            "/elsewhere",
            vec![token, ("Accept", "*/*"), ("Cookie", "a=b")],
            b"",
        ),
        ("HEAD", "/api/whoami", vec![token], b""),
        ("POST", "/api/orders", vec![], small),
        ("POST", "/api/orders", vec![token], small),
        ("POST", "/api/orders", vec![token], &large),
        ("GET", "/api/orders", vec![], b""),
        ("GET", "/proof/x", vec![token], b""),
        ("GET", "/a%2fb", vec![token], b""),
        ("GET", "/..", vec![], b""),
        ("get", "/public/a", vec![], b""),
        ("TRACE", "/public/a", vec![], b""),
        ("GET", "/wx", vec![], b""),
        ("GET", "/wx/login", vec![], b""),
        ("GET", "/wx/session", vec![], b""),
        ("GET", "/wx/session", vec![token], b""),
        ("GET", "/wx/verify", vec![token], b""),
        ("GET", "/wx/jwks.json", vec![], b""),
        ("POST", "/wx/logout", vec![], b""),
        ("GET", "/wx/media/m1", vec![], b""),
        ("GET", "/wx/media/m1/url", vec![], b""),
        ("POST", "/wx/media", vec![], b""),
        (
            "GET",
            "/public/a",
            vec![
                ("X-WX-OPENID", "somebody"),
                ("X_WX_OPENID", "somebody"),
                ("x.wx.unionid", "somebody"),
                ("X-Forwarded-For", "1.2.3.4"),
                ("X-Forwarded-Proto", "https"),
                ("Forwarded", "for=1.2.3.4"),
                ("X_Forwarded_For", "1.2.3.4"),
                ("X-Real-IP", "1.2.3.4"),
                ("X-Request-Id", "mine"),
                ("Keep-Alive", "timeout=5"),
                ("Connection", "X-Mine"),
                ("X-Mine", "1"),
                ("X-Theirs", "2"),
                ("TE", "trailers"),
            ],
            b"",
        ),
    ] {
        held.agrees(method, target, &headers, body);
    }
}

#[test]
fn a_trusted_proxy_is_believed_in_the_explanation_too() {
    let held = Held::new("trusted_proxies = [\"127.0.0.1\"]");
    let told = held.agrees(
        "GET",
        "/public/a",
        &[
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "6.6.6.6"),
            ("Tracestate", "a=b"),
        ],
        b"",
    );
    assert_eq!(told["from"]["trusted"], true);
    assert!(why(&told, "X-Forwarded-For").contains("the trusted proxy says"));
    let strange = Held::new("");
    let told = strange.agrees("GET", "/public/a", &[("X-Forwarded-For", "192.0.2.7")], b"");
    assert_eq!(told["from"]["trusted"], false);
    assert!(why(&told, "X-Forwarded-For").contains("trusted_proxies"));
}

#[test]
fn each_header_that_does_not_arrive_has_its_reason() {
    let held = Held::new("");
    let told = held.agrees(
        "GET",
        "/public/a",
        &[
            ("X_WX_OPENID", "somebody"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("X-Mine", "1"),
            ("Connection", "X-Mine"),
            ("Content_Type", "text/plain"),
            ("Client_IP", "1.2.3.4"),
            ("Authorization", &held.alice.bearer()),
        ],
        b"",
    );
    assert!(why(&told, "X_WX_OPENID").contains("X-WX-OPENID"));
    assert!(why(&told, "X_Forwarded_For").contains("x-forwarded-for"));
    assert!(why(&told, "X-Mine").contains("Connection"));
    assert!(why(&told, "Content_Type").contains("a second `content-type`"));
    assert!(why(&told, "Client_IP").contains("`client-ip`"));
    assert!(why(&told, "Connection").contains("hop-by-hop"));
    assert!(why(&told, "Authorization").contains("between it and the client"));
    assert!(why(&told, "Host").contains("x-forwarded-host"));
}

#[test]
fn routes_that_do_not_fit_are_named_with_what_does_not() {
    let held = Held::new("");
    let told = held.agrees("GET", "/api/orders", &[], b"");
    let passed_over = told["passed_over"].as_array().unwrap();
    let named: Vec<_> = passed_over
        .iter()
        .map(|route| {
            (
                route["route"].as_u64().unwrap(),
                route["why"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(named, [(1, "path"), (2, "method")]);
    assert_eq!(
        (&told["taker"]["route"], &told["taker"]["name"]),
        (&3.into(), &"/api/*".into())
    );
    let told = held.agrees("GET", "/elsewhere", &[], b"");
    assert_eq!(told["taker"]["kind"], "default");
    assert_eq!(told["passed_over"].as_array().unwrap().len(), 4);
}

#[test]
fn limits_say_where_they_come_from() {
    let held = Held::new("");
    let told = held.explain("POST", "/api/orders", &[]);
    let limit = |told: &Value, name: &str| {
        let limits = told["limits"].as_array().unwrap();
        let limit = limits.iter().find(|limit| limit["name"] == name);
        let limit = limit.unwrap_or_else(|| panic!("no {name}: {told:#}"));
        let text = |member: &str| limit[member].as_str().unwrap().to_owned();
        (text("value"), text("from"))
    };
    let line = |text: &str, nth: usize| {
        let lines = held.rig.config().lines().enumerate();
        let mut lines = lines.filter(|(_, line)| line.starts_with(text));
        format!("sidecar.toml:{}", lines.nth(nth).unwrap().0 + 1)
    };
    let (value, from) = limit(&told, "body_limit");
    assert_eq!(value, "1KiB");
    assert_eq!(from, format!("[[route]] 2 ({})", line("body_limit", 0)));
    assert_eq!(limit(&told, "timeout").0, "40s");
    let nowhere = (
        "none".to_owned(),
        "[inbound] rate_limit (default)".to_owned(),
    );
    assert_eq!(limit(&told, "rate_limit"), nowhere);
    let usual = (
        "10MiB".to_owned(),
        "[inbound] body_limit (default)".to_owned(),
    );
    for target in ["/elsewhere", "/proof/x"] {
        assert_eq!(
            limit(&held.explain("GET", target, &[]), "body_limit"),
            usual
        );
    }
    let told = held.explain("GET", "/proof/x", &[]);
    assert_eq!(
        limit(&told, "rate_limit").1,
        format!("[[route]] 4 ({})", line("rate_limit", 0))
    );
    assert_eq!(told["taker"]["line"], line("path", 3));
    assert_eq!(told["passed_over"][0]["line"], line("path", 0));
}

#[test]
fn a_refused_request_shows_what_the_app_would_get_with_a_good_token() {
    let held = Held::new("");
    let told = held.explain("GET", "/elsewhere", &[]);
    assert_eq!(told["refusal"]["kind"], "token-missing");
    let added = told["headers"]["added"].as_array().unwrap();
    let openid = added.iter().find(|line| line["name"] == "X-WX-OPENID");
    assert_eq!(openid.unwrap()["value"], "<the user's openid>");
    // A header of the client's with the value that stands for one is not taken for it.
    let told = held.explain(
        "GET",
        "/elsewhere",
        &[("X-WX-OPENID", "openid-of-the-user")],
    );
    assert!(why(&told, "X-WX-OPENID").contains("X-WX-OPENID"));
    let added = told["headers"]["added"].as_array().unwrap();
    assert!(
        added
            .iter()
            .any(|line| line["value"] == "<the user's openid>")
    );
}

#[test]
fn what_is_only_known_on_the_way_is_said_to_be() {
    let held = Held::new("");
    let told = held.explain("GET", "/public/a", &[("X-WX-Code", "some-code")]);
    assert_eq!(told["ok"], true);
    let outcome = told["auth"]["outcome"].as_str().unwrap();
    assert!(outcome.contains("exchanged at WeChat") && !outcome.contains("some-code"));
    let told = held.explain("POST", "/wx/open-data", &[]);
    assert!(told["auth"]["outcome"].as_str().unwrap().contains("`code`"));
    let told = held.explain("GET", "/wx/push?signature=x", &[]);
    assert!(
        told["auth"]["outcome"]
            .as_str()
            .unwrap()
            .contains("signature")
    );
}

#[test]
fn a_token_that_has_expired_or_is_another_apps_is_told_as_a_sidecar_tells_it() {
    let held = Held::new("");
    let lines = [format!("Authorization: {}", held.alice.bearer())];
    let asked = Asked {
        method: "GET",
        target: "/elsewhere",
        lines: &lines,
        from: None,
        now: START.plus(std::time::Duration::from_secs(3 * 3600)),
    };
    let late = Explanation::of(&held.loaded, &asked);
    assert_eq!(late.to_json()["refusal"]["kind"], "token-expired");
    let other = held.rig.config().replace(APPID, "wxfedcba9876543210");
    let other = parsed(&other);
    let asked = Asked {
        now: START,
        ..asked
    };
    let foreign = Explanation::of(&other, &asked);
    assert_eq!(foreign.to_json()["refusal"]["kind"], "token-invalid");
}

#[test]
fn the_command_explains_and_its_exit_code_is_the_verdict() {
    canary("canary4push4token");
    let held = Held::new("");
    let config = write_configuration(held.rig.config());
    let config = config.to_str().unwrap();
    let line = "X_WX_OPENID: x";
    let (code, text, _) = finished(&["explain", "GET", "/public/a", "-H", line, "-c", config]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "GET /public/a: forwarded to the app at http://127.0.0.1:",
        ".toml:22): /public/**",
        "auth      none, by [[route]] 1 (explain.the_command",
        "- X_WX_OPENID: it is X-WX-OPENID to whoever folds names",
        "+ x-forwarded-for: 192.0.2.1",
        "body_limit        10MiB",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text, _) = finished(&["explain", "GET", "/a%2fb", "-c", config, "--format", "json"]);
    assert_eq!(code, 1);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["refusal"]["kind"], "ambiguous-path");
    let (code, ..) = finished(&["explain", "GET", "/", "-H", "no colon", "-c", config]);
    assert_eq!(code, 2);
}
