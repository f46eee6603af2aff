//! The inspector over real connections: what it shows of requests, calls and messages, that nothing secret is in it, and that it
//! forgets. In a browser it is tested by `tests/apps/inspector/`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wx_sidecar::wechat::push::sign;

use crate::fake_app::{FakeApp, OK};
use crate::http_client::{Client, Response};
use crate::patience::eventually;
use crate::rig::{APPID, Rig, START, canary, keep};

const ON: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ninspector = true";
const OFF: &str = "[admin]\nlisten = \"127.0.0.1:0\"";
const PUSH_TOKEN: &str = "inspectorPushTokenCanary00000001";
const OPENID: &str = "oInspectorUser00000000000001";

/// A sidecar with an inspector.
struct Stage {
    rig: Rig,
}

impl Stage {
    fn new(app: &FakeApp, sections: &str) -> Self {
        Self::with(app, "", sections)
    }

    fn with(app: &FakeApp, inbound: &str, sections: &str) -> Self {
        let rig = Rig::with(&app.url(), inbound, sections);
        let stage = Self { rig };
        stage.rig.reload(OFF, ON);
        stage
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let answer = Client::connect(self.rig.sidecar().admin_addr()).request(
            method,
            &format!("/inspector/{target}"),
            headers,
            b"",
        );
        // An output like the log: no secret may be in it.
        keep("inspector.log", answer.text());
        answer
    }

    fn page(&self, target: &str) -> Value {
        let answer = self.ask("GET", target, &[]);
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        answer.json()
    }

    fn list(&self) -> Vec<Value> {
        let page = self.page("exchanges?after=0");
        page["entries"].as_array().expect("a list").clone()
    }

    /// All that is known of the last one of a kind for which `is_it` holds, once there is one that has ended.
    fn last(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(&format!("there is a {kind}"), || {
            let mut all = self.list();
            all.sort_by_key(|entry| entry["id"].as_u64());
            found = all
                .into_iter()
                .rev()
                .find(|entry| entry["kind"] == kind && entry["state"] == "done" && is_it(entry));
            found.is_some()
        });
        let id = found.expect("it was just found")["id"].clone();
        self.page(&format!("exchanges/{id}"))
    }

    fn to(&self, target: &str) -> Value {
        self.last("request", |entry| entry["target"] == target)
    }
}

/// An app that answers each request with a text and a cookie.
fn polite(text: &'static str) -> FakeApp {
    FakeApp::start(move |connection| {
        while connection.read_request().is_some() {
            connection.write(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: sid=canary-cookie-9; Path=/\r\n\
                     X-WX-Forged: yes\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
                .as_bytes(),
            );
        }
    })
}

fn line<'v>(fields: &'v Value, name: &str) -> Option<&'v str> {
    let mut lines = fields.as_array()?.iter();
    lines.find_map(|line| {
        let is_it = line[0].as_str()?.eq_ignore_ascii_case(name);
        is_it.then(|| line[1].as_str())?
    })
}

fn has(list: &Value, name: &str) -> bool {
    let mut names = list.as_array().expect("a list").iter();
    names.any(|known| {
        known
            .as_str()
            .is_some_and(|it| it.eq_ignore_ascii_case(name))
    })
}

#[test]
fn a_request_is_shown_as_the_phone_sent_it_and_as_the_app_got_it() {
    canary("canary-cookie-9");
    let app = polite("hello");
    let stage = Stage::new(&app, "");
    let session = stage.rig.login("alice");
    let answer = stage.rig.request(
        "POST",
        "/api/x?access_token=canary-query-7&b=1",
        &[
            ("Authorization", &session.bearer()),
            ("X-WX-OPENID", "forged"),
            ("X-Mine", "yes"),
            ("Content-Type", "application/json"),
        ],
        br#"{"a":1,"secret":"canary-body-7"}"#,
    );
    canary("canary-query-7");
    canary("canary-body-7");
    assert_eq!(answer.status, 200);
    let shown = stage.to("/api/x?access_token=***&b=1");
    assert_eq!(shown["route"], "default");
    assert_eq!(shown["status"], 200);
    assert_eq!(shown["answer"]["status"], 200);
    let phone = &shown["phone"];
    assert_eq!(line(&phone["fields"], "authorization"), Some("Bearer ***"));
    assert_eq!(line(&phone["fields"], "x-wx-openid"), Some("forged"));
    assert_eq!(phone["body"]["text"], r#"{"a":1,"secret":"***"}"#);
    assert_eq!(phone["body"]["size"], 32);
    let to_app = &shown["app"];
    assert_eq!(to_app["url"], app.url());
    assert_eq!(line(&to_app["fields"], "x-mine"), Some("yes"));
    assert_eq!(line(&to_app["fields"], "authorization"), None);
    assert_eq!(to_app["body"]["text"], r#"{"a":1,"secret":"***"}"#);
    assert!(has(&to_app["added"], "x-wx-openid"), "{to_app:#}");
    assert!(!has(&to_app["added"], "x-mine"), "{to_app:#}");
    // Users are what the log calls them, and nowhere anything else.
    let user = shown["user"].as_str().expect("a user");
    assert_eq!(line(&to_app["fields"], "x-wx-openid"), Some(user));
    assert!(!shown.to_string().contains(&session.openid));
    let dropped = to_app["dropped"].as_array().expect("a list");
    let forged = dropped.iter().find(|line| line[1] == "forged");
    let why = forged.expect("it is told")[2].as_str().expect("a text");
    assert!(why.contains("the sidecar's alone"), "{why}");
    let from_app = &to_app["answer"]["fields"];
    assert_eq!(line(from_app, "set-cookie"), Some("sid=***; Path=/"));
    assert_eq!(
        line(&shown["answer"]["fields"], "x-request-id"),
        shown["request_id"].as_str()
    );
    assert_eq!(shown["answer"]["body"]["text"], "hello");
    let timings = &shown["timings"];
    let time = |name: &str| {
        timings[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{timings}"))
    };
    assert!(time("app_us") <= time("total_us"), "{timings}");
    assert!(time("asked_us") <= time("answered_us"), "{timings}");
    assert!(timings["wechat_us"].is_null(), "{timings}");
}

#[test]
fn a_login_shows_what_wechat_was_asked_and_a_refusal_in_both_languages() {
    let app = polite("");
    let stage = Stage::new(&app, "");
    stage.rig.login("alice");
    let shown = stage.to("/wx/login");
    let calls = shown["wechat"].as_array().expect("a list");
    assert_eq!(calls[0]["path"], "/sns/jscode2session");
    assert_eq!(calls[0]["errcode"], 0);
    let told = shown["answer"]["body"]["text"].as_str().expect("a text");
    assert!(told.contains(r#""access_token":"***""#), "{told}");
    assert!(told.contains(r#""refresh_token":"***""#), "{told}");
    let answer = stage.rig.login_with("0a1made2up3code4nobody5gave");
    assert_eq!(answer.status, 401);
    let shown = stage.last("request", |entry| entry["status"] == 401);
    assert_eq!(shown["errcode"], 40029);
    assert_eq!(shown["problem"], "wechat-refused");
    let call = &shown["wechat"][0];
    assert_eq!(call["errcode"], 40029);
    let hint = |language: &str| call["hint"][language].as_str().expect("a hint");
    assert!(hint("en").contains("call wx.login again"), "{call}");
    assert!(hint("zh").contains("请重新调用 wx.login"), "{call}");
    let sent = shown["phone"]["body"]["text"].as_str().expect("a text");
    assert_eq!(sent, r#"{"code":"0a1m***"}"#);
}

#[test]
fn what_was_encrypted_is_shown_decrypted_and_what_the_app_calls_belongs_to_its_request() {
    let app = polite("");
    let stage = Stage::new(&app, "");
    let session = stage.rig.login("alice");
    let order = json!({ "user": "alice", "kind": "phone" }).to_string();
    let data = Client::connect(stage.rig.sim.addr()).request(
        "POST",
        "/_sim/encrypt",
        &[],
        order.as_bytes(),
    );
    let bearer = session.bearer();
    let opened = stage.rig.request(
        "POST",
        "/wx/phone",
        &[("Authorization", &bearer)],
        &data.body,
    );
    assert_eq!(opened.status, 200, "{}", opened.text());
    let number = opened.json()["phoneNumber"].clone();
    assert_eq!(stage.to("/wx/phone")["open_data"][0]["phoneNumber"], number);
    // The app passes on the trace that it was given.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-00");
    let body = br#"{"scene":"table=7"}"#;
    let answer = stage.rig.call(
        "POST",
        "/wxa/getwxacodeunlimit",
        &[("traceparent", &parent)],
        body,
    );
    assert_eq!(answer.status, 200);
    let call = stage.last("call", |_| true);
    assert_eq!(call["target"], "/wxa/getwxacodeunlimit");
    assert_eq!(call["trace"], trace);
    assert_eq!(call["phone"]["body"]["text"], r#"{"scene":"table=7"}"#);
    assert_eq!(
        line(&call["answer"]["fields"], "content-type"),
        Some("image/jpeg")
    );
    assert!(call["answer"]["body"]["base64"].is_string());
    assert_eq!(call["answer"]["body"]["size"], answer.body.len());
    let timings = &call["timings"];
    let waited = timings["wechat_us"].as_u64().expect("a time");
    assert!(
        waited > 0 && waited <= timings["total_us"].as_u64().expect("a time"),
        "{timings}"
    );
    let made = call["wechat"].as_array().expect("a list");
    assert!(
        made.iter()
            .any(|made| made["path"] == "/wxa/getwxacodeunlimit"),
        "{call:#}"
    );
    assert!(
        made.iter()
            .any(|made| made["path"] == "/cgi-bin/stable_token"),
        "{call:#}"
    );
}

/// A message as WeChat would send it in plaintext.
fn push(rig: &Rig, id: u64) {
    let message = json!({
        "ToUserName": "gh_1", "FromUserName": OPENID, "CreateTime": START.as_secs(), "MsgType": "text",
        "Content": "hello inspector", "MsgId": id,
    });
    let (timestamp, nonce) = (START.as_secs().to_string(), format!("7{id}"));
    let signature = sign(PUSH_TOKEN, &[&timestamp, &nonce]);
    let target = format!("/wx/push?signature={signature}&timestamp={timestamp}&nonce={nonce}");
    let answer = rig.request("POST", &target, &[], message.to_string().as_bytes());
    assert_eq!(answer.text(), "success");
}

#[test]
fn a_message_is_shown_decrypted_with_its_attempts_and_can_be_delivered_once_more() {
    canary(PUSH_TOKEN);
    keep("openids", OPENID);
    let taken = AtomicUsize::new(0);
    let app = FakeApp::start(move |connection| {
        while connection.read_request().is_some() {
            match taken.fetch_add(1, Ordering::SeqCst) {
                0 => connection.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
                _ => connection.write(OK),
            }
        }
    });
    let sections = format!(
        "[push]\ntoken = \"{PUSH_TOKEN}\"\nmode = \"plaintext\"\nformat = \"json\"\ntimeout = \"1m\"\n"
    );
    let stage = Stage::new(&app, &sections);
    push(&stage.rig, 4711);
    let shown = stage.last("push", |entry| entry["outcome"] == "delivered");
    assert_eq!(shown["target"], "text");
    assert_eq!(shown["attempts"], 2);
    let message = &shown["push"];
    assert_eq!(message["message_id"], "4711");
    let body = message["body"]["text"].as_str().expect("a text");
    assert!(body.contains("hello inspector"), "{body}");
    assert!(!body.contains(OPENID), "{body}");
    let attempts = message["attempts"].as_array().expect("a list");
    let statuses: Vec<_> = attempts.iter().map(|it| it["status"].clone()).collect();
    assert_eq!(statuses, [500, 200]);
    // The request that brought it belongs to the same trace.
    let trace = shown["trace"].clone();
    stage.last("request", |entry| entry["trace"] == trace);
    let id = shown["id"].clone();
    let replayed = stage.ask("POST", &format!("pushes/{id}/replay"), &[]);
    assert_eq!(replayed.status, 202, "{}", replayed.text());
    assert_eq!(replayed.json()["message_id"], "4711");
    let requests = app.requests(3);
    let ids: Vec<_> = requests.iter().map(|it| it.all("x-wx-msg-id")).collect();
    assert_eq!(ids, [["4711"], ["4711"], ["4711"]]);
    assert_eq!(stage.ask("POST", "pushes/99999/replay", &[]).status, 404);
}

#[test]
fn a_page_that_waits_hears_of_a_change_and_of_one_only() {
    let app = polite("");
    let stage = Stage::with(&app, "auth = \"none\"", "");
    stage.rig.request("GET", "/first", &[], b"");
    let mut first = Value::Null;
    // It changes when it begins and when it has ended, and the second is told a moment after it is so.
    eventually("the end of the first is not told", || {
        first = stage.page("exchanges?after=0");
        first["seq"] == 2
    });
    let (seq, boot) = (first["seq"].clone(), first["boot"].clone());
    let waiting = Client::connect(stage.rig.sidecar().admin_addr());
    let target = format!("/inspector/exchanges?after={seq}&wait=20");
    let waiting = std::thread::spawn(move || {
        let mut waiting = waiting;
        waiting.request("GET", &target, &[], b"").json()
    });
    stage.rig.request("GET", "/second", &[], b"");
    let news = waiting.join().expect("it is answered");
    let targets = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().expect("a list");
        let target = |entry: &Value| entry["target"].as_str().expect("a text").to_owned();
        entries.iter().map(target).collect()
    };
    assert_eq!(targets(&news), ["/second"]);
    assert_eq!(news["boot"], boot);
    // What is cleared is another memory, and whoever asks for what comes after the old one hears that at once.
    assert_eq!(stage.ask("POST", "clear", &[]).status, 204);
    let asked = Instant::now();
    let anew = stage.page(&format!("exchanges?after={seq}&wait=25"));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "it was waited for"
    );
    assert_ne!(anew["boot"], boot);
    assert!(targets(&anew).is_empty());
}

#[test]
fn it_forgets_the_oldest_and_keeps_the_beginning_of_large_bodies() {
    let app = FakeApp::agreeable();
    let stage = Stage::with(&app, "auth = \"none\"", "");
    let mut client = stage.rig.client();
    let body = vec![b'x'; 40_000];
    for _ in 0..520 {
        let answer = client.request("POST", "/large", &[], &body);
        assert_eq!(answer.status, 200);
    }
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = stage.page(&format!("exchanges?after={after}"));
        let entries = page["entries"].as_array().expect("a list").clone();
        if entries.is_empty() {
            break;
        }
        assert!(entries.len() <= 200);
        after = page["seq"].as_u64().expect("a number");
        all.extend(entries);
    }
    all.sort_by_key(|entry| entry["id"].as_u64());
    let ids: Vec<_> = all
        .iter()
        .filter_map(|entry| entry["id"].as_u64())
        .collect();
    // 16 KiB of each body twice, as it came and as it was sent, in 12 MiB.
    assert!(ids.len() < 400, "{}", ids.len());
    assert_eq!(ids.last(), Some(&520));
    let newest = stage.page("exchanges/520");
    for body in [&newest["phone"]["body"], &newest["app"]["body"]] {
        assert_eq!(body["size"], 40_000);
        assert_eq!(body["kept"], 16 * 1024);
    }
    assert_eq!(stage.ask("GET", "exchanges/1", &[]).status, 404);
}

#[test]
fn a_body_that_the_kernel_moves_is_shown_by_its_length() {
    let app = FakeApp::agreeable();
    let stage = Stage::with(&app, "auth = \"none\"", "");
    let body = vec![b'y'; 3_000_000];
    let answer = stage.rig.request("POST", "/film", &[], &body);
    assert_eq!(answer.status, 200);
    let shown = stage.to("/film");
    for body in [&shown["phone"]["body"], &shown["app"]["body"]] {
        assert_eq!(body["size"], 3_000_000, "{body}");
    }
}

#[test]
fn it_is_off_unless_it_is_wanted_and_then_nothing_is_kept() {
    let app = polite("");
    let stage = Stage::with(&app, "auth = \"none\"", "");
    stage.rig.request("GET", "/seen", &[], b"");
    assert_eq!(stage.to("/seen")["status"], 200);
    stage.rig.reload(OFF, OFF);
    for target in ["", "exchanges", "state", "inspector.js"] {
        let answer = stage.ask("GET", target, &[]);
        assert_eq!(answer.status, 404, "{target}");
        assert!(
            answer.text().contains("inspector = true"),
            "{}",
            answer.text()
        );
    }
    stage.rig.request("GET", "/unseen", &[], b"");
    stage.rig.reload(OFF, ON);
    assert!(stage.list().is_empty());
}

#[test]
fn the_page_is_for_everybody_and_what_it_shows_for_whoever_may() {
    let app = polite("");
    let stage = Stage::new(&app, "");
    let token = "canary-inspector-token-5";
    canary(token);
    for page in ["", "style.css", "inspector.js", "wx-sidecar.js"] {
        let answer = stage.ask("GET", page, &[]);
        assert_eq!(answer.status, 200, "{page}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
        assert_eq!(stage.ask("POST", page, &[]).status, 405, "{page}");
    }
    let elsewhere = [("Origin", "https://evil.example")];
    for page in ["exchanges", "state", "phone/sidecar/"] {
        assert_eq!(stage.ask("GET", page, &elsewhere).status, 403, "{page}");
    }
    assert_eq!(stage.ask("POST", "clear", &elsewhere).status, 403);
    stage.rig.reload(OFF, &format!("{ON}\ntoken = \"{token}\""));
    assert_eq!(stage.ask("GET", "", &[]).status, 200);
    assert_eq!(stage.ask("GET", "state", &[]).status, 401);
    let shown = [("Authorization", "Bearer canary-inspector-token-5")];
    assert_eq!(stage.ask("GET", "state", &shown).status, 200);
    // There is a phone in `dev` only.
    let answer = stage.ask("GET", "phone/sidecar/wx/session", &shown);
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().contains("wx-sidecar dev"),
        "{}",
        answer.text()
    );
}

#[test]
fn the_state_of_things_is_told() {
    let app = polite("");
    let stage = Stage::new(&app, "");
    assert_eq!(stage.page("state")["access_token"]["state"], "unused");
    stage.rig.login("alice");
    stage
        .rig
        .call("POST", "/wxa/getwxacodeunlimit", &[], br#"{"scene":"a"}"#);
    stage.to("/wx/login");
    let state = stage.page("state");
    assert_eq!(state["appid"], APPID);
    assert_eq!(state["dev"], false);
    assert_eq!(state["phone"], Value::Null);
    assert_eq!(state["access_token"]["state"], "good");
    assert_eq!(state["sessions"]["logins"], 1);
    assert_eq!(state["sessions"]["store"], "memory");
    let requests = state["rates"]["requests"].as_array().expect("a list");
    assert_eq!(requests.len(), 60);
    assert_eq!(requests.iter().filter_map(Value::as_u64).sum::<u64>(), 1);
}

#[test]
fn an_answer_without_a_body_is_shown_without_one() {
    let app = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let stage = Stage::with(&app, "auth = \"none\"", "");
    let answer = stage.rig.request("HEAD", "/head", &[], b"");
    assert_eq!(answer.header("content-length"), Some("5"));
    let shown = stage.to("/head");
    let answer = &shown["answer"];
    assert_eq!(line(&answer["fields"], "content-length"), Some("5"));
    assert_eq!(answer["body"], Value::Null);
    // One of our own, too: it has a body for GET.
    stage.rig.request("HEAD", "/wx/media/none", &[], b"");
    let shown = stage.last("request", |entry| entry["target"] == "/wx/media/none");
    assert_eq!(shown["answer"]["body"], Value::Null, "{shown:#}");
}

#[test]
fn an_answer_that_broke_off_is_shown_as_far_as_it_came() {
    let app = FakeApp::start(|connection| {
        while connection.read_request().is_some() {
            connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it");
            connection.close();
        }
    });
    let stage = Stage::with(&app, "auth = \"none\"", "");
    let mut client = stage.rig.client();
    client.send(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_to_close();
    let shown = stage.to("/broken");
    assert_eq!(shown["status"], 200);
    assert_eq!(shown["problem"], "upstream-invalid");
    assert_eq!(shown["answer"]["body"]["text"], "half of it");
}

#[test]
fn a_call_that_the_app_gives_up_has_ended_and_one_that_streams_says_how_long_it_was() {
    let app = polite("");
    let stage = Stage::new(
        &app,
        "[outbound]\nlisten = \"127.0.0.1:0\"\nreplay_limit = \"1KiB\"\n",
    );
    let order = br#"{"path":"/wxa/getwxacodeunlimit","fault":{"delay_ms":20000}}"#;
    let told = Client::connect(stage.rig.sim.addr()).request("POST", "/_sim/faults", &[], order);
    assert_eq!(told.status, 200, "{}", told.text());
    let mut client = stage.rig.app();
    client.send(b"POST /wxa/getwxacodeunlimit HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    eventually("the call is seen", || {
        stage.list().iter().any(|entry| entry["kind"] == "call")
    });
    drop(client);
    let shown = stage.last("call", |_| true);
    assert_eq!(shown["status"], Value::Null, "{shown:#}");
    let body = vec![b' '; 5000];
    stage.rig.call("POST", "/wxa/msg_sec_check", &[], &body);
    let shown = stage.last("call", |entry| entry["target"] == "/wxa/msg_sec_check");
    assert_eq!(shown["phone"]["body"]["size"], 5000);
    assert_eq!(shown["phone"]["body"]["kept"], 0);
}
