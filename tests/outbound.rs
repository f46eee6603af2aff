//! The app's calls to WeChat: no token, no secret, and errors that make sense.
//!
//! Where WeChat's rules count, the simulator answers; where its bytes do, a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wx_sidecar::Config;
use wx_sidecar::sim::{Effect, Fault, Limits, UserChange};

use crate::daemon::free_port;
use crate::fake_app::{FakeApp, Request, Signal};
use crate::http_client::{Client, Response, chunked};
use crate::patience::eventually;
use crate::rig::{APPID, Rig, SECRET, canary, replaced};

const PHONE: &str = "/wxa/business/getuserphonenumber";
const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
const IMAGE: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00{\"errcode\":40001}\x00\xff\xd9";

fn rig() -> Rig {
    Rig::new("http://127.0.0.1:9")
}

fn rig_with(outbound: &str) -> Rig {
    let sections = format!("[outbound]\nlisten = \"127.0.0.1:0\"\n{outbound}\n");
    Rig::with("http://127.0.0.1:9", "", &sections)
}

/// A sidecar whose WeChat is `wechat`.
fn rig_at(wechat: &FakeApp, outbound: &str) -> Rig {
    let sections = format!(
        "[wechat]\nendpoints = [\"{}\"]\ntimeout = \"30s\"\n\
         [outbound]\nlisten = \"127.0.0.1:0\"\n{outbound}\n",
        wechat.url()
    );
    Rig::with("http://127.0.0.1:9", "", &sections)
}

/// A script that gives out tokens, each a new one, and answers all else by `answer`. A request it gets in vain closes the
/// connection.
fn wechat(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> FakeApp {
    let given = AtomicUsize::new(0);
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            if request.target().starts_with(STABLE_TOKEN) {
                let number = given.fetch_add(1, Ordering::SeqCst);
                let token = format!("92_wechats-own-token-{number}");
                canary(&token);
                let body = json!({ "access_token": token, "expires_in": 7200 });
                connection.write(&http("application/json", body.to_string().as_bytes()));
            } else {
                connection.write(&answer(&request));
            }
        }
    })
}

fn http(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The calls that a script got, without those of the token endpoint.
fn calls(wechat: &FakeApp, count: usize) -> Vec<Request> {
    let all = wechat.requests(count + 1);
    let wanted = |it: &Request| !it.target().starts_with(STABLE_TOKEN);
    all.into_iter().filter(wanted).collect()
}

fn phone(rig: &Rig, headers: &[(&str, &str)], code: &str) -> Response {
    let body = json!({ "code": code }).to_string();
    rig.call("POST", PHONE, headers, body.as_bytes())
}

fn code(rig: &Rig, user: &str) -> String {
    let code = rig.sim.issue_phone_code(user);
    canary(&code);
    canary(&rig.sim.phone_number(user));
    code
}

#[test]
fn a_call_without_token_and_secret_is_answered_as_wechat_answers() {
    let rig = rig();
    let answer = phone(&rig, &[], &code(&rig, "alice"));
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["errcode"], 0);
    let number = rig.sim.phone_number("alice");
    assert_eq!(body["phone_info"]["purePhoneNumber"], json!(number));
    assert_eq!(answer.header("x-wx-errcode"), None);
    let id = answer.header("x-openapi-seqid").unwrap();
    assert_eq!(answer.header("x-request-id"), Some(id));
    assert_eq!(
        rig.metric("wx_sidecar_outbound_requests_total{result=\"ok\"}"),
        1.0
    );
    let counted = format!("wx_sidecar_wx_api_requests_total{{cgi_path=\"{PHONE}\",errcode=\"0\"}}");
    assert_eq!(rig.metric(&counted), 1.0);
}

#[test]
fn an_app_may_call_wechats_name_through_a_proxy_or_by_a_hosts_entry() {
    let rig = rig();
    let body = |code: &str| json!({ "code": code }).to_string();
    for (target, host) in [
        (
            format!("http://api.weixin.qq.com{PHONE}"),
            "api.weixin.qq.com",
        ),
        (PHONE.to_owned(), "api.weixin.qq.com"),
        (PHONE.to_owned(), "anything:81"),
    ] {
        let body = body(&code(&rig, "alice"));
        let mut app = rig.app();
        let length = body.len();
        app.send(
            format!(
                "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        let answer = app.read_response(false);
        assert_eq!(answer.json()["errcode"], 0, "{target} {host}");
    }
    // As a page's own name does that was pointed here.
    let mut page = rig.app();
    page.send(b"GET /cgi-bin/getcallbackip HTTP/1.1\r\nHost: evil.example.com:8081\r\n\r\n");
    let problem = page.read_response(false).problem(403, "call-denied");
    assert!(problem["hint"].as_str().unwrap().contains("caller_token"));
}

#[test]
fn a_tunnel_is_refused_with_an_explanation_and_so_is_the_way_elsewhere() {
    let rig = rig();
    let mut app = rig.app();
    app.send(b"CONNECT api.weixin.qq.com:443 HTTP/1.1\r\nHost: api.weixin.qq.com:443\r\n\r\n");
    let refusal = app.read_response(false);
    let problem = refusal.problem(405, "method-not-allowed");
    assert!(problem["hint"].as_str().unwrap().contains("http://"));

    let elsewhere = rig.call("GET", "http://example.com/wxa/getwxacode", &[], b"");
    elsewhere.problem(403, "call-denied");
    for target in [
        "//example.com/wxa/getwxacode",
        "/wxa/../sns/jscode2session",
        "/wxa/%2e%2e/sns/jscode2session",
        "/\\example.com/wxa",
        "/@example.com/wxa",
    ] {
        let refusal = rig.call("GET", target, &[], b"");
        refusal.problem(400, "ambiguous-path");
    }
    assert_eq!(rig.sim.calls("/wxa/getwxacode"), 0);
}

#[test]
fn what_wechat_gets_has_our_token_and_nothing_of_the_callers_identity() {
    let wechat = wechat(|_| http("application/json", b"{\"errcode\":0}"));
    let rig = rig_at(&wechat, "");
    let body = "{\"content\":\"你好\",\"n\":12345678901234567890}".as_bytes();
    let answer = rig.call(
        "POST",
        "/wxa/msg_sec_check?access_token=mine&x=%2f+&access%5Ftoken=mine2",
        &[
            ("Content-Type", "application/json; charset=utf-8"),
            ("User-Agent", "my-app/1"),
            ("X-WX-OPENID", "o6zAJs1Z"),
            ("Authorization", "Bearer mine3"),
            ("Cookie", "mine4=1"),
            ("Accept-Encoding", "gzip"),
            ("X-Forwarded-For", "203.0.113.7"),
            ("Connection", "keep-alive"),
        ],
        body,
    );
    assert_eq!(answer.json(), json!({ "errcode": 0 }));
    let sent = calls(&wechat, 1).remove(0);
    assert_eq!(
        sent.target(),
        "/wxa/msg_sec_check?access_token=92_wechats-own-token-0&x=%2f+"
    );
    assert_eq!(sent.body, body);
    assert_eq!(
        sent.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(sent.header("user-agent"), Some("my-app/1"));
    let length = body.len().to_string();
    assert_eq!(sent.header("content-length"), Some(&*length));
    let head = sent.head.to_lowercase();
    for hidden in [
        "mine",
        "openid",
        "203.0.113.7",
        "gzip",
        "authorization",
        "traceparent",
    ] {
        assert!(!head.contains(hidden), "{hidden}: {head}");
    }
}

#[test]
fn bytes_pass_unchanged_in_both_directions_large_ones_too() {
    let image: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let served = image.clone();
    let wechat = wechat(
        move |request| match request.target().contains("media/get") {
            true => http("image/jpeg", &served),
            false => http(
                "text/plain",
                br#"{"type":"image","media_id":"m","created_at":1}"#,
            ),
        },
    );
    let rig = rig_at(&wechat, "");
    let media = rig.call("GET", "/cgi-bin/media/get?media_id=m", &[], b"");
    assert!(media.body == image, "the image differs");
    assert_eq!(media.header("content-type"), Some("image/jpeg"));
    assert_eq!(media.header("content-length"), Some("3000000"));

    // Small enough to be kept, larger, and of a length that nobody has said.
    for (upload, framing) in [
        (&image[..100_000], "length"),
        (&image[..], "length"),
        (&image[..], "chunked"),
    ] {
        let mut app = rig.app();
        let target = "/cgi-bin/media/upload?type=image";
        let multipart = "multipart/form-data; boundary=b";
        let answer = match framing {
            "length" => app.request("POST", target, &[("Content-Type", multipart)], upload),
            _ => {
                app.send(
                    format!(
                        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {multipart}\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                    .as_bytes(),
                );
                let pieces: Vec<&[u8]> = upload.chunks(70_000).collect();
                app.send(&chunked(&pieces));
                app.read_response(false)
            }
        };
        assert_eq!(answer.json()["media_id"], "m");
    }
    let sent = calls(&wechat, 4);
    for (request, length) in sent[1..].iter().zip([100_000, 3_000_000, 3_000_000]) {
        assert!(request.body == image[..length], "the upload differs");
        let length = length.to_string();
        assert_eq!(request.header("content-length"), Some(&*length));
        assert_eq!(request.header("transfer-encoding"), None);
    }
}

#[test]
fn an_sdk_gets_a_token_that_is_worth_nothing_elsewhere() {
    let rig = rig();
    let query = format!("grant_type=client_credential&appid={APPID}&secret=dummy");
    let by_get = rig
        .call("GET", &format!("/cgi-bin/token?{query}"), &[], b"")
        .json();
    let asked = json!({"grant_type": "client_credential", "appid": APPID, "secret": "dummy", "force_refresh": true});
    let by_post = rig.call("POST", STABLE_TOKEN, &[], asked.to_string().as_bytes());
    assert_eq!(by_get, by_post.json());
    assert_eq!(by_get["expires_in"], 7200);
    let token = by_get["access_token"].as_str().unwrap();
    assert_eq!(rig.sim.calls("/cgi-bin/token"), 0);
    assert_eq!(rig.sim.calls(STABLE_TOKEN), 0);

    let target = format!("{PHONE}?access_token={token}");
    let body = json!({ "code": code(&rig, "alice") }).to_string();
    let answer = rig.call("POST", &target, &[], body.as_bytes());
    assert_eq!(answer.json()["errcode"], 0);
    let direct = Client::connect(rig.sim.addr()).request("POST", &target, &[], body.as_bytes());
    assert_eq!(direct.json()["errcode"], 40001);

    let other =
        json!({"grant_type": "client_credential", "appid": "wxfedcba9876543210", "secret": "x"});
    let refused = rig.call("POST", STABLE_TOKEN, &[], other.to_string().as_bytes());
    assert_eq!(refused.json()["errcode"], 40013);
    let wrong_method = rig.call("GET", STABLE_TOKEN, &[], b"").json();
    assert_eq!(wrong_method["errcode"], 43002);
}

#[test]
fn an_sdks_own_login_works_and_its_session_is_known_for_signing() {
    let rig = rig();
    let target = format!(
        "/sns/jscode2session?appid={APPID}&secret=dummy&js_code={}&grant_type=authorization_code",
        rig.code("alice")
    );
    let session = rig.call("GET", &target, &[], b"").json();
    let key = rig.session_key("alice").unwrap();
    assert_eq!(session["session_key"], json!(key));
    assert_eq!(session["openid"], json!(rig.sim.openid("alice").as_str()));

    let again = rig.call("GET", &target, &[], b"");
    assert_eq!(again.status, 200);
    assert_eq!(again.json()["errcode"], 40163);
    assert_eq!(again.header("x-wx-errcode"), Some("40163"));

    let openid = rig.sim.openid("alice");
    let user = [("X-WX-OPENID", openid.as_str())];
    let checked = rig.call("GET", "/wxa/checksession", &user, b"");
    assert_eq!(checked.json()["errcode"], 0);

    let other_app = target.replace(APPID, "wxfedcba9876543210");
    let refused = rig.call("GET", &other_app, &[], b"");
    refused.problem(400, "bad-request");
}

#[test]
fn calls_about_a_users_session_are_signed_for_the_app() {
    let rig = rig();
    let session = rig.login("alice");
    let user = [("X-WX-OPENID", session.openid.as_str())];
    let check = || {
        rig.call("GET", "/wxa/checksession?signature=forged", &user, b"")
            .json()
    };
    assert_eq!(check()["errcode"], 0);
    for body in ["", "{}"] {
        let target = "/wxa/business/getuserencryptkey";
        let keys = rig.call("POST", target, &user, body.as_bytes()).json();
        assert_eq!(keys["errcode"], 0, "{body:?}: {keys}");
    }

    let reset = rig
        .call("GET", "/wxa/resetusersessionkey", &user, b"")
        .json();
    canary(reset["session_key"].as_str().unwrap());
    assert_eq!(
        reset["session_key"],
        json!(rig.session_key("alice").unwrap())
    );
    assert_eq!(check()["errcode"], 0, "the new key is known here too");
    let rotate = UserChange {
        rotate: true,
        ..UserChange::default()
    };
    rig.sim.change_user("alice", &rotate);
    assert_eq!(check()["errcode"], 87009);

    let stranger = [("X-WX-OPENID", "o-nobody-here")];
    let refusal = rig.call("GET", "/wxa/checksession", &stranger, b"");
    refusal.problem(404, "user-unknown");
}

#[test]
fn an_errcode_is_told_beside_the_body_that_stays_as_it_came() {
    let rig = rig();
    let refusal = phone(&rig, &[], "no-such-code");
    assert_eq!(refusal.status, 200);
    let body = refusal.json();
    assert_eq!(body["errcode"], 40029);
    assert_eq!(refusal.header("x-wx-errcode"), Some("40029"));
    assert_eq!(refusal.header("x-wx-error-class"), Some("user_input"));
    assert_eq!(refusal.header("x-wx-retryable"), Some("false"));
    let rid = refusal.header("x-wx-rid").unwrap();
    assert!(body["errmsg"].as_str().unwrap().contains(rid));

    let problem = [("Accept", "text/html, application/problem+json;q=0.9")];
    let told = phone(&rig, &problem, "no-such-code").problem(401, "wechat-refused");
    assert_eq!(told["errcode"], 40029);
    assert!(told["rid"].is_string());
    let zh = [problem[0], ("Accept-Language", "zh-CN")];
    let told = phone(&rig, &zh, "no-such-code").problem(401, "wechat-refused");
    assert!(!told["detail"].as_str().unwrap().is_ascii());
}

#[test]
fn errors_can_be_problems_for_every_caller() {
    let rig = rig_with("errors = \"problem\"");
    let refusal = phone(&rig, &[], "no-such-code");
    refusal.problem(401, "wechat-refused");
    assert_eq!(refusal.header("x-wx-errcode"), Some("40029"));
    assert!(phone(&rig, &[], &code(&rig, "alice")).json()["errcode"] == 0);
    let refusal = rig.call("GET", "/cgi-bin/token", &[], b"");
    refusal.problem(500, "wechat-refused");
    assert_eq!(refusal.header("x-wx-errcode"), Some("40002"));
}

#[test]
fn a_token_endpoints_errcode_is_told_as_all_others_are() {
    let token = "c4113r-t0ken-of-this-test";
    canary(token);
    let rig = rig_with(&format!("caller_token = \"{token}\""));
    let asked = |grant_type: &str, appid: &str, secret: &str| {
        format!("/cgi-bin/token?grant_type={grant_type}&appid={appid}&secret={secret}")
    };
    let (right, other) = ("client_credential", "wxfedcba9876543210");
    for (target, errcode, status) in [
        (asked("x", APPID, token), 40002, 500),
        (asked(right, other, token), 40013, 500),
        (asked(right, APPID, "x"), 40125, 500),
        (STABLE_TOKEN.to_owned(), 43002, 405),
    ] {
        let call = |headers: &[(&str, &str)]| rig.call("GET", &target, headers, b"");
        let raw = call(&[]);
        assert_eq!((raw.status, &raw.json()["errcode"]), (200, &json!(errcode)));
        let told = call(&[("Accept", "application/problem+json")]);
        let problem = told.problem(status, "wechat-refused");
        assert_eq!(problem["errcode"], errcode);
        assert_eq!(problem["hint"], raw.json()["errmsg"], "{errcode}");
        for answer in [raw, told] {
            let number = errcode.to_string();
            assert_eq!(answer.header("x-wx-errcode"), Some(&*number));
            assert!(answer.header("x-wx-error-class").is_some(), "{errcode}");
            assert_eq!(answer.header("x-wx-retryable"), Some("false"));
        }
    }
}

#[test]
fn an_app_that_does_not_wait_for_the_answer_is_counted() {
    let (asked, go_on) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
    let (was_asked, told) = (Arc::clone(&asked), Arc::clone(&go_on));
    let wechat = wechat(move |_| {
        was_asked.give();
        told.wait();
        http("application/json", b"{}")
    });
    let rig = rig_at(&wechat, "");
    let mut app = rig.app();
    app.send(b"GET /cgi-bin/get_api_domain_ip HTTP/1.1\r\nHost: x.test\r\n\r\n");
    assert!(asked.wait());
    drop(app);
    let counted = |result: &str| {
        rig.metric(&format!(
            "wx_sidecar_outbound_requests_total{{result=\"{result}\"}}"
        ))
    };
    eventually("the call is counted", || counted("gone") == 1.0);
    go_on.give();
    assert_eq!(counted("ok"), 0.0);
}

#[test]
fn an_errcode_is_found_by_content_and_an_image_is_none() {
    let wechat = wechat(|request| match request.target() {
        it if it.contains("image") => http("image/jpeg", IMAGE),
        it if it.contains("jpeg") => http(
            "image/jpeg",
            b"{\"errcode\":45009,\"errmsg\":\"x rid: 1-2-3\"}",
        ),
        it if it.contains("control") => http(
            "text/html",
            b"\xEF\xBB\xBF \r\n{\"errcode\":40007,\"errmsg\":\"a\x01b\"}",
        ),
        it if it.contains("string") => http(
            "application/json",
            b"{\"errcode\":\"40007\",\"errmsg\":\"\"}",
        ),
        it if it.contains("large") => {
            let items = "{\"a\":1},".repeat(20_000);
            http(
                "application/json",
                format!("{{\"list\":[{items}{{}}],\"errcode\":40007}}").as_bytes(),
            )
        }
        _ => http("application/json", b"[]"),
    });
    let rig = rig_at(&wechat, "");
    let code_of = |path: &str| {
        let answer = rig.call("GET", path, &[], b"");
        assert_eq!(answer.status, 200);
        answer.header("x-wx-errcode").map(str::to_owned)
    };
    assert_eq!(code_of("/wxa/image"), None);
    assert_eq!(code_of("/wxa/jpeg").as_deref(), Some("45009"));
    assert_eq!(code_of("/wxa/control").as_deref(), Some("40007"));
    assert_eq!(code_of("/wxa/string").as_deref(), Some("40007"));
    assert_eq!(code_of("/wxa/large"), None, "no refusal is that long");
    assert_eq!(code_of("/wxa/list"), None);
    let image = rig.call("GET", "/wxa/image", &[], b"");
    assert_eq!(image.body, IMAGE);
    let control = rig.call("GET", "/wxa/control", &[], b"");
    assert!(control.body.starts_with(b"\xEF\xBB\xBF \r\n{"));
}

#[test]
fn a_dead_token_is_replaced_and_the_call_made_once_more() {
    let rig = rig();
    assert_eq!(phone(&rig, &[], &code(&rig, "alice")).json()["errcode"], 0);
    // By WeChat's clock its life is over; the sidecar's own does not know.
    rig.sim.advance(Duration::from_secs(7200));
    let answer = phone(&rig, &[], &code(&rig, "alice"));
    assert_eq!(answer.json()["errcode"], 0);
    assert_eq!(rig.sim.calls(PHONE), 3);
    assert_eq!(rig.sim.calls(STABLE_TOKEN), 2);
}

#[test]
fn a_token_that_wechat_goes_on_to_refuse_is_told_and_not_tried_for_ever() {
    let wechat = wechat(|_| {
        http(
            "application/json",
            b"{\"errcode\":40001,\"errmsg\":\"invalid credential rid: 1-2-3\"}",
        )
    });
    let rig = rig_at(&wechat, "");
    let refusal = rig.call("POST", "/wxa/msg_sec_check", &[], b"{}");
    let told = refusal.problem(502, "wechat-refused");
    assert_eq!(told["errcode"], 40001);
    assert_eq!(told["class"], "token");
    assert_eq!(refusal.header("x-wx-error-class"), Some("token"));
    let made = calls(&wechat, 3);
    assert_eq!(made.len(), 2, "one call and one repetition");
    let tokens: Vec<&str> = made.iter().map(Request::target).collect();
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn a_burst_of_refused_tokens_costs_one_fetch() {
    let wechat = wechat(|request| match request.target().contains("token-0") {
        true => http(
            "application/json",
            b"{\"errcode\":42001,\"errmsg\":\"access_token expired rid: 1-2-3\"}",
        ),
        false => http("application/json", b"{\"errcode\":0}"),
    });
    let rig = Arc::new(rig_at(&wechat, ""));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let rig = Arc::clone(&rig);
            std::thread::spawn(move || {
                let mut app = rig.app();
                for _ in 0..4 {
                    let answer = app.request("POST", "/wxa/msg_sec_check", &[], b"{}");
                    assert_eq!(answer.json(), json!({ "errcode": 0 }));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    let fetched = wechat.targets();
    let fetched = fetched.iter().filter(|it| it.starts_with(STABLE_TOKEN));
    assert_eq!(fetched.count(), 2);
}

#[test]
fn a_body_too_large_to_keep_is_sent_once_and_has_to_be_sent_again() {
    let wechat = wechat(|request| match request.target().contains("token-0") {
        true => http("application/json", b"{\"errcode\":40001,\"errmsg\":\"\"}"),
        false => http("application/json", b"{\"errcode\":0}"),
    });
    let rig = rig_at(&wechat, "replay_limit = \"1KiB\"");
    let body = vec![b'x'; 5000];
    let refusal = rig.call("POST", "/cgi-bin/media/upload", &[], &body);
    let told = refusal.problem(503, "access-token-unavailable");
    assert_eq!(told["retryable"], true);
    let again = rig.call("POST", "/cgi-bin/media/upload", &[], &body);
    assert_eq!(again.json()["errcode"], 0);
}

#[test]
fn no_redirect_is_followed_and_no_token_comes_back() {
    let wechat = wechat(|request| {
        let target = request.target();
        if target.contains("redirect") {
            let place = format!("http://127.0.0.1:9{target}");
            let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ";
            return format!("{head}{place}\r\nX-Echo: {target}\r\n\r\n").into_bytes();
        }
        let body = json!({ "errcode": 47001, "errmsg": format!("bad {target}"), "url": target });
        http("application/json", body.to_string().as_bytes())
    });
    let rig = rig_at(&wechat, "");
    let refusal = rig.call("GET", "/wxa/redirect", &[], b"");
    refusal.problem(502, "wechat-invalid");
    assert_eq!(refusal.header("location"), None);
    assert_eq!(refusal.header("x-echo"), None);
    let echoed = rig.call("GET", "/wxa/echo", &[], b"");
    assert_eq!(echoed.json()["url"], "/wxa/echo?access_token=***");
    for answer in [refusal, echoed] {
        assert!(!answer.text().contains("wechats-own"), "{}", answer.text());
    }
}

#[test]
fn what_wechat_breaks_off_the_app_sees_broken() {
    let wechat = wechat(|request| match request.target().contains("whole") {
        true => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0".to_vec(),
        false => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\xff\xd8half".to_vec(),
    });
    // Long enough for what does come, on a machine that is busy.
    let rig = rig_at(&wechat, "timeout = \"8s\"");
    // At once, because each waits that long for what does not.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let whole = rig.call("GET", "/wxa/whole", &[], b"");
            whole.problem(504, "wechat-timeout");
        });
        let mut app = rig.app();
        app.send(b"GET /cgi-bin/media/get HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(app.read_head().status, 200);
        assert_eq!(
            app.read_to_close(),
            b"\xff\xd8half",
            "and no end that could be taken for one"
        );
    });
}

#[test]
fn limits_are_told_with_the_line_to_change() {
    let wechat = wechat(|_| http("image/jpeg", &[7; 5000]));
    let rig = rig_at(&wechat, "body_limit = \"4KiB\"");
    let refusal = rig.call("POST", "/wxa/msg_sec_check", &[], &[b'x'; 5000]);
    let told = refusal.problem(413, "body-too-large");
    assert!(told["hint"].as_str().unwrap().contains("[outbound]"));
    let mut app = rig.app();
    app.send(b"POST /wxa/msg_sec_check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    app.send(&chunked(&[&[b'x'; 3000], &[b'x'; 3000]]));
    app.read_response(false).problem(413, "body-too-large");
    let refusal = rig.call("GET", "/cgi-bin/media/get", &[], b"");
    refusal.problem(502, "wechat-invalid");
}

#[test]
fn paths_are_allowed_and_denied_by_the_configuration() {
    let rig = rig_with("allow = [\"/wxa/**\"]\ndeny = [\"/wxa/checksession\"]");
    assert_eq!(phone(&rig, &[], &code(&rig, "alice")).json()["errcode"], 0);
    let refusal = rig.call("POST", "/cgi-bin/message/custom/send", &[], b"{}");
    let told = refusal.problem(403, "call-denied");
    assert_eq!(told["errcode"], 85107);
    let line = "add \"/cgi-bin/message/custom/send\" to `allow` below [outbound] in sidecar.toml";
    assert_eq!(told["hint"], line);
    let refusal = rig.call("GET", "/wxa/checksession", &[], b"");
    let told = refusal.problem(403, "call-denied");
    assert!(told["hint"].as_str().unwrap().contains("`deny`"));
}

#[test]
fn a_caller_token_is_asked_for_where_it_is_configured() {
    const TOKEN: &str = "ca11er-t0ken-0f-the-app";
    canary(TOKEN);
    let rig = rig_with(&format!("caller_token = \"{TOKEN}\""));
    let refusal = phone(&rig, &[], "x");
    refusal.problem(401, "caller-unknown");
    let bearer = format!("Bearer {TOKEN}");
    let known = [("Authorization", bearer.as_str())];
    assert_eq!(
        phone(&rig, &known, &code(&rig, "alice")).json()["errcode"],
        0
    );

    let asked = json!({"grant_type": "client_credential", "appid": APPID, "secret": TOKEN});
    let granted = rig.call("POST", STABLE_TOKEN, &[], asked.to_string().as_bytes());
    let granted = granted.json();
    let token = granted["access_token"].as_str().unwrap();
    canary(token);
    let body = json!({ "code": code(&rig, "alice") }).to_string();
    let target = format!("{PHONE}?access_token={token}");
    let answer = rig.call("POST", &target, &[], body.as_bytes());
    assert_eq!(answer.json()["errcode"], 0);

    let wrong = json!({"grant_type": "client_credential", "appid": APPID, "secret": SECRET});
    let refused = rig.call("POST", STABLE_TOKEN, &[], wrong.to_string().as_bytes());
    assert_eq!(refused.json()["errcode"], 40125);
}

#[test]
fn a_page_in_a_browser_cannot_call() {
    let rig = rig();
    let refusal = phone(&rig, &[("Origin", "https://evil.test")], "x");
    refusal.problem(403, "call-denied");
    assert_eq!(rig.sim.calls(PHONE), 0);
}

#[test]
fn without_wechat_a_call_is_told_so_and_nothing_is_sent_twice() {
    let rig = rig();
    assert_eq!(phone(&rig, &[], &code(&rig, "alice")).json()["errcode"], 0);
    rig.sim.fault(Fault::new(PHONE, 1, Effect::Reset));
    phone(&rig, &[], &code(&rig, "alice")).problem(502, "wechat-unreachable");
    assert_eq!(rig.sim.calls(PHONE), 2);
    let delayed = Fault::delay(PHONE, 1, Duration::from_millis(1));
    rig.sim.fault(delayed);
    assert_eq!(phone(&rig, &[], &code(&rig, "alice")).json()["errcode"], 0);
}

#[test]
fn a_used_up_quota_is_not_asked_for_until_it_begins_anew() {
    let rig = rig();
    // Eight hours before midnight in Beijing; and ten seconds into a minute.
    for (errcode, later, wait) in [(45009, 0, 28_801_u64), (45011, 9, 51)] {
        rig.advance(Duration::from_secs(later));
        let began = Instant::now();
        let calls = rig.sim.calls(PHONE);
        let fault = Effect::Errcode {
            errcode,
            errmsg: None,
        };
        rig.sim.fault(Fault::new(PHONE, 1, fault));
        let first = phone(&rig, &[], "x");
        assert_eq!(first.json()["errcode"], errcode, "as WeChat said it");
        assert_eq!(first.header("retry-after"), Some(&*wait.to_string()));
        for _ in 0..20 {
            let held_back = phone(&rig, &[], "x");
            let told = held_back.problem(503, "wechat-breaker-open");
            assert_eq!(told["errcode"], errcode);
            assert_eq!(told["class"], "rate_quota");
            // By the clock that does not jump, which nobody turns.
            let left: u64 = held_back.header("retry-after").unwrap().parse().unwrap();
            let least = wait.saturating_sub(began.elapsed().as_secs() + 1);
            assert!((least..=wait).contains(&left), "{left} of {wait}");
        }
        assert_eq!(rig.sim.calls(PHONE), calls + 1);
        // Other APIs have quotas of their own.
        let other = rig.call("GET", "/cgi-bin/get_api_domain_ip", &[], b"");
        assert!(other.json()["ip_list"].is_array());
        let page = rig.admin("/readyz?verbose");
        assert!(page.text().contains(PHONE), "{}", page.text());
        rig.advance(Duration::from_secs(wait));
        let answer = phone(&rig, &[], &code(&rig, "alice"));
        assert_eq!(answer.json()["errcode"], 0, "{errcode} is over");
    }
    let rejected = format!(
        "wx_sidecar_wx_breaker_rejected_total{{cgi_path=\"{PHONE}\",class=\"rate_quota\"}}"
    );
    assert_eq!(rig.metric(&rejected), 40.0);
}

#[test]
fn what_a_breaker_knows_outlives_a_reload_save_what_a_reload_may_mend() {
    let rig = rig();
    let fault = |errcode| {
        let effect = Effect::Errcode {
            errcode,
            errmsg: None,
        };
        rig.sim.fault(Fault::new("*", 1, effect));
    };
    let quota = |rig: &Rig| phone(rig, &[], "x");
    let grant = |rig: &Rig| rig.call("GET", "/cgi-bin/get_api_domain_ip", &[], b"");
    grant(&rig);
    fault(45009);
    quota(&rig);
    fault(48001);
    grant(&rig);
    for call in [&quota, &grant as &dyn Fn(&Rig) -> Response] {
        call(&rig).problem(503, "wechat-breaker-open");
    }
    let config = Config::from_toml(rig.config()).unwrap();
    rig.sidecar().reload(config).unwrap();
    quota(&rig).problem(503, "wechat-breaker-open");
    assert!(grant(&rig).json()["ip_list"].is_array());
}

#[test]
fn while_wechat_is_down_calls_fail_at_once_and_one_finds_out_when_it_is_back() {
    let wechat = wechat(|_| {
        http(
            "application/json",
            b"{\"errcode\":-1,\"errmsg\":\"system error rid: 1-2-3\"}",
        )
    });
    // A pause that is not over before all have called.
    let rig = rig_at(&wechat, "[wechat.breaker]\nmin_pause = \"1m\"");
    let call = || rig.call("POST", "/cgi-bin/message/custom/send", &[], b"{}");
    for _ in 0..5 {
        assert_eq!(call().json()["errcode"], -1);
    }
    for _ in 0..50 {
        let held_back = call();
        let told = held_back.problem(503, "wechat-breaker-open");
        assert_eq!(told["errcode"], -1);
        assert!(held_back.header("retry-after").is_some());
    }
    assert_eq!(
        calls(&wechat, 5).len(),
        5,
        "what may have acted is not repeated"
    );
    // A login is another API.
    assert_eq!(rig.login_with(&rig.code("alice")).status, 503);
    assert_eq!(calls(&wechat, 6).len(), 6);
}

#[test]
fn what_only_reads_is_repeated_within_a_budget() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let wechat = wechat(move |_| {
        let is_busy = counted.fetch_add(1, Ordering::SeqCst) == 20;
        let busy: &[u8] = b"{\"errcode\":-1,\"errmsg\":\"system error\"}";
        http(
            "application/json",
            if is_busy { busy } else { b"{\"errcode\":0}" },
        )
    });
    let rig = rig_at(&wechat, "");
    for _ in 0..30 {
        let answer = rig.call("POST", "/wxa/msg_sec_check", &[], b"{}");
        assert_eq!(answer.json()["errcode"], 0, "nobody saw that it was busy");
    }
    assert_eq!(count.load(Ordering::SeqCst), 31);
}

#[test]
fn an_address_that_wechat_does_not_let_in_is_told_with_what_to_do() {
    let rig = rig();
    let effect = Effect::Errcode {
        errcode: 40164,
        errmsg: Some(
            "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 1-2-3"
                .to_owned(),
        ),
    };
    rig.sim.fault(Fault::new(STABLE_TOKEN, 1, effect));
    for _ in 0..3 {
        let refusal = phone(&rig, &[], "x");
        let told = refusal.json();
        assert_eq!(
            (&told["errcode"], &told["class"]),
            (&json!(40164), &json!("auth_config"))
        );
        assert!(told["hint"].as_str().unwrap().contains("203.0.113.9"));
    }
    assert_eq!(rig.sim.calls(STABLE_TOKEN), 1);
    assert_eq!(rig.sim.calls(PHONE), 0);
}

#[test]
fn wechat_explains_the_rid_of_a_refused_call_and_says_what_is_left_of_a_quota() {
    let rig = rig();
    let refused = phone(&rig, &[], "no-such-code");
    let rid = refused.header("x-wx-rid").unwrap();
    let post = |path: &str, body: &Value| {
        rig.call("POST", path, &[], body.to_string().as_bytes())
            .json()
    };
    let told = post("/cgi-bin/openapi/rid/get", &json!({ "rid": rid }));
    let response = told["request"]["response_body"].as_str().unwrap();
    assert!(response.contains("40029"), "{told}");
    assert!(!told.to_string().contains(SECRET));
    let limits = Limits {
        daily: Some(10),
        per_minute: None,
    };
    rig.sim.limit(PHONE, limits);
    phone(&rig, &[], "no-such-code");
    let quota = post("/cgi-bin/openapi/quota/get", &json!({ "cgi_path": PHONE }));
    assert_eq!(quota["quota"]["daily_limit"], 10);
    assert_eq!(
        quota["quota"]["used"].as_i64().unwrap() + quota["quota"]["remain"].as_i64().unwrap(),
        10
    );
    let reset = rig.call(
        "POST",
        "/cgi-bin/clear_quota/v2",
        &[],
        b"{\"appid\":\"x\",\"appsecret\":\"dummy\"}",
    );
    assert_eq!(
        reset.json()["errcode"],
        0,
        "the secret is ours, whatever is sent"
    );
}

#[test]
fn a_wrong_secret_is_told_as_the_configurations_fault() {
    let rig = rig();
    let config = rig.config().replacen(SECRET, &"0".repeat(32), 1);
    let sidecar = crate::rig::start(&config, &rig.clock);
    let body = json!({ "code": "x" }).to_string();
    let mut app = Client::connect(sidecar.outbound_addr().unwrap());
    let refusal = app.request("POST", PHONE, &[], body.as_bytes());
    let told: Value = refusal.problem(500, "wechat-refused");
    assert_eq!(told["class"], "auth_config");
    assert!(told["hint"].as_str().unwrap().contains("[app]"));
}

#[test]
fn during_a_rotation_an_sdks_login_takes_the_secret_that_works() {
    let rig = rig();
    let rotating = format!("secret = [\"{}\", \"{SECRET}\"]", "0".repeat(32));
    let config = rig
        .config()
        .replacen(&format!("secret = \"{SECRET}\""), &rotating, 1);
    let sidecar = crate::rig::start(&config, &rig.clock);
    let target = format!(
        "/sns/jscode2session?appid={APPID}&secret=dummy&js_code={}&grant_type=authorization_code",
        rig.code("alice")
    );
    let mut app = Client::connect(sidecar.outbound_addr().unwrap());
    let session = app.request("GET", &target, &[], b"").json();
    assert_eq!(session["openid"], json!(rig.sim.openid("alice").as_str()));
}

#[test]
fn ten_replicas_pass_through_an_expiry_with_one_fetch_each_and_no_refusal() {
    let rig = rig();
    let replicas: Vec<_> = (0..10).map(|_| rig.replica()).collect();
    let openid = rig.login("alice").openid;
    let fetched = || rig.sim.calls(STABLE_TOKEN);
    let call_all = |times: usize| {
        std::thread::scope(|scope| {
            for replica in &replicas {
                let openid = &openid;
                scope.spawn(move || {
                    let mut app = Client::connect(replica.outbound_addr().unwrap());
                    for _ in 0..times {
                        let body = json!({ "cloudid_list": [] }).to_string();
                        let target = format!("/wxa/getopendata?openid={openid}");
                        let answer = app.request("POST", &target, &[], body.as_bytes());
                        let errcode = answer.header("x-wx-errcode");
                        assert!(!matches!(errcode, Some("40001" | "40014" | "42001")));
                    }
                });
            }
        });
    };
    call_all(20);
    assert_eq!(fetched(), 10);
    rig.sim.advance(Duration::from_secs(7200));
    call_all(20);
    assert_eq!(fetched(), 20);
}

#[test]
fn a_drain_lets_the_app_call_wechat_until_its_last_request_is_answered() {
    let (app_asked, go_on) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
    let (asked, told) = (Arc::clone(&app_asked), Arc::clone(&go_on));
    let app = FakeApp::start(move |connection| {
        if connection.read_request().is_some() {
            asked.give();
            told.wait();
            connection.write(crate::fake_app::OK);
        }
    });
    let inbound = "auth = \"none\"\ndrain_timeout = \"2m\"";
    let rig = Rig::with(&app.url(), inbound, "");
    // On ports of its own, which are nobody's once they are let go.
    let mut config = rig.config().to_owned();
    for section in ["inbound", "outbound"] {
        let listen = |port: u16| format!("[{section}]\nlisten = \"127.0.0.1:{port}\"");
        config = replaced(&config, &listen(0), &listen(free_port()));
    }
    let sidecar = crate::rig::start(&config, &rig.clock);
    let outbound = sidecar.outbound_addr().unwrap();
    let mut phone = Client::connect(sidecar.inbound_addr());
    phone.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(app_asked.wait());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let draining = std::thread::spawn(move || {
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(sidecar.shutdown());
    });
    eventually("the inbound side takes nobody any more", || {
        Client::try_connect(peer_of(&phone)).is_err()
    });
    let mut calls = Client::connect(&outbound);
    let target = "/cgi-bin/get_api_domain_ip";
    let answer = calls.request("GET", target, &[], b"");
    assert!(answer.json()["ip_list"].is_array());
    go_on.give();
    assert_eq!(phone.read_response(false).status, 200);
    draining.join().unwrap();
    assert!(Client::try_connect(&outbound).is_err());
}

/// Where a client is connected to.
fn peer_of(client: &Client) -> std::net::SocketAddr {
    client.stream().peer_addr().unwrap()
}
