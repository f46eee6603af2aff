//! Texts that WeChat judges before the app sees them, and all the ways to get one past it.
//!
//! The simulator calls a text risky that has `[risky]` in it, wherever a client hides it, so each evasion is tried with a
//! text that must not arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::push::PushOptions;
use wx_sidecar::sim::{Effect, Fault, OpenDataKind, OpenDataOrder, Received};

use crate::fake_app::{FakeApp, OK, Request};
use crate::http_client::{Client, Response, chunked};
use crate::media::{UPLOAD, errcode, form, picture};
use crate::patience::PATIENCE;
use crate::rig::{APPID, Rig, Session, canary};

const CHECK: &str = "/wxa/msg_sec_check";
/// What a user writes is nobody's business but WeChat's and the app's.
const PRIVATE: &str = "私密的文字 of a user";
const MEDIA_CHECK: &str = "/wxa/media_check_async";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const PARTS: &str = "multipart/form-data; boundary=b";
const ROUTES: &str = "[[route]]\npath = \"/comments\"\ntext_check = { field = \"content\", scene = \"comment\" }\n\
    [[route]]\npath = \"/posts\"\nmethods = [\"POST\", \"GET\"]\ntext_check = { field = [\"post.title\", \"post.body\"], scene = \"forum\" }\n\
    [[route]]\npath = \"/strict\"\ntext_check = { field = \"content\", scene = 1, on_review = \"refuse\" }\n\
    [[route]]\npath = \"/open\"\ntext_check = { field = \"content\", scene = 1, on_failure = \"open\" }\n\
    [[route]]\npath = \"/small\"\nbody_limit = \"1KiB\"\ntext_check = { field = \"content\", scene = 1 }\n\
    [[route]]\npath = \"/auth/login\"\nlogin = true\ntext_check = { field = \"nickname\", scene = \"profile\" }\n\
    [[route]]\npath = \"/album\"\nmedia = \"upload\"\ntext_check = { field = [\"content\", \"post.title\"], scene = 1 }\n\
    [[route]]\npath = \"/both\"\nopen_data = true\ntext_check = { field = \"content\", scene = 1 }\n";

/// A sidecar that checks, an app that takes everything, and a user.
struct Desk {
    app: FakeApp,
    rig: Rig,
    session: Session,
}

impl Desk {
    fn new() -> Self {
        Self::with(FakeApp::agreeable(), ROUTES)
    }

    fn with(app: FakeApp, sections: &str) -> Self {
        let rig = Rig::with(&app.url(), "", sections);
        let session = rig.login("alice");
        Self { app, rig, session }
    }

    fn post(&self, target: &str, kind: &str, body: &[u8]) -> Response {
        self.send("POST", target, &[("Content-Type", kind)], body)
    }

    fn comment(&self, content: &str) -> Response {
        let body = json!({ "content": content }).to_string();
        self.post("/comments", JSON, body.as_bytes())
    }

    fn send(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Response {
        let bearer = self.session.bearer();
        let mut headers = vec![("Authorization", &*bearer)];
        headers.extend(more);
        self.rig.request(method, target, &headers, body)
    }

    /// What the app has got so far, which is what was passed on and nothing else.
    fn passed(&self, count: usize) -> Vec<Request> {
        let requests = self.app.requests(count);
        assert_eq!(requests.len(), count, "{requests:#?}");
        requests
    }

    fn verdicts(&self, verdict: &str) -> f64 {
        let series = format!("wx_sidecar_text_checks_total{{verdict=\"{verdict}\"}}");
        self.rig.metric(&series)
    }

    /// What WeChat was asked about.
    fn asked(&self) -> Vec<Value> {
        let received = self.rig.sim.received(CHECK);
        let body = |call: &Received| serde_json::from_slice(&call.body).unwrap();
        received.iter().map(body).collect()
    }

    fn fail(&self, count: u32, effect: Effect) {
        self.rig.sim.fault(Fault::new(CHECK, count, effect));
    }
}

#[test]
fn a_harmless_text_reaches_the_app_byte_for_byte() {
    let desk = Desk::new();
    let body =
        "{ \"content\" : \"你好\\u4e16界\\n😀\",\r\n\t\"n\": 1.0e+2, \"n\": 9007199254740993 }\n";
    let forged = [
        ("Content-Type", JSON),
        ("X-WX-Text-Check", "forged"),
        ("X_WX_TEXT_CHECK", "forged"),
    ];
    let answer = desk.send("POST", "/comments?a=1", &forged, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = &desk.passed(1)[0];
    assert_eq!(request.body, body.as_bytes());
    assert_eq!(request.header("x-wx-text-check"), Some("pass"));
    assert!(!request.head.contains("forged"), "{}", request.head);
    assert_eq!(request.header("x-wx-openid"), Some(&*desk.session.openid));
    assert_eq!(
        desk.asked(),
        [
            json!({ "content": "你好世界\n😀", "version": 2, "scene": 2, "openid": desk.session.openid })
        ]
    );
    assert_eq!(desk.verdicts("pass"), 1.0);
}

#[test]
fn a_risky_text_is_refused_with_the_reason_and_the_app_sees_nothing() {
    let desk = Desk::new();
    let problem = desk
        .comment("一条 [risky:20003] 评论")
        .problem(422, "content-risky");
    assert_eq!(problem["field"], "content");
    assert_eq!(problem["label"], 20003);
    assert_eq!(problem["suggest"], "risky");
    assert_eq!(problem["retryable"], false);
    assert_eq!(
        problem["detail"],
        "`content` is judged as against the rules (abuse)"
    );
    let chinese = [("Content-Type", JSON), ("Accept-Language", "zh-CN")];
    let answer = desk.send("POST", "/comments", &chinese, br#"{"content":"[risky]"}"#);
    let problem = answer.problem(422, "content-risky");
    assert_eq!(problem["title"], "内容含有违规信息");
    assert_eq!(problem["label"], 21000);
    assert_eq!(problem["hint"], "请修改内容后重新提交");
    desk.passed(0);
    assert_eq!(desk.verdicts("risky"), 2.0);
}

#[test]
fn a_doubtful_text_passes_or_not_as_the_route_says() {
    let desk = Desk::new();
    let body = br#"{"content":"[review:20008]"}"#;
    assert_eq!(desk.post("/comments", JSON, body).status, 200);
    assert_eq!(desk.passed(1)[0].header("x-wx-text-check"), Some("review"));
    let problem = desk
        .post("/strict", JSON, body)
        .problem(422, "content-risky");
    assert_eq!(
        (&problem["suggest"], &problem["label"]),
        (&json!("review"), &json!(20008))
    );
    assert_eq!(desk.verdicts("review"), 2.0);
    desk.passed(1);
}

#[test]
fn what_version_one_refuses_is_risky() {
    let desk = Desk::new();
    desk.fail(1, errcode(87014));
    let body = br#"{"content":"x"}"#;
    desk.post("/open", JSON, body).problem(422, "content-risky");
    desk.passed(0);
}

#[test]
fn without_a_text_there_is_nothing_to_check() {
    let desk = Desk::new();
    let empty_chunked =
        b"POST /comments HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAuthorization: ";
    let empty_chunked = [
        empty_chunked,
        desk.session.bearer().as_bytes(),
        b"\r\n\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(desk.send("GET", "/comments", &[], b"").status, 200);
    assert_eq!(
        desk.send("POST", "/comments", &[("Content-Length", "0")], b"")
            .status,
        200
    );
    let mut client = desk.rig.client();
    client.send(&empty_chunked);
    assert_eq!(client.read_response(false).status, 200);
    for (kind, body) in [
        (JSON, r#"{"title":"[risky]"}"#),
        (JSON, r#"{"content":null,"a":{"content":"[risky]"}}"#),
        (JSON, r#"{"content":" \n\u3000"}"#),
        (FORM, "title=[risky]&content="),
    ] {
        assert_eq!(
            desk.post("/comments", kind, body.as_bytes()).status,
            200,
            "{body}"
        );
    }
    for request in desk.passed(7) {
        assert_eq!(request.header("x-wx-text-check"), Some("none"));
    }
    assert_eq!(desk.rig.sim.calls(CHECK), 0);
}

#[test]
fn a_risky_text_is_found_wherever_an_app_would_find_it() {
    let desk = Desk::new();
    for (target, kind, body) in [
        (
            "/comments",
            JSON,
            r#"{"content":["fine",[{"a":{"b":"[risky]"}}]]}"#,
        ),
        (
            "/comments",
            JSON,
            r#"[[{"content":"fine"}],{"content":"[risky]"}]"#,
        ),
        ("/comments", JSON, r#"{"content":"\u005brisk\u0079]"}"#),
        ("/comments", JSON, r#"{"\u0063ontent":"[risky]"}"#),
        ("/comments", JSON, r#"{"Content":"[risky]"}"#),
        ("/comments", JSON, r#"{"content":"[ri\u0000sky]"}"#),
        (
            "/comments",
            "application/vnd.api+json; charset=utf-8",
            r#"{"content":"[risky]"}"#,
        ),
        ("/comments", "Application/Json", r#"{"content":"[risky]"}"#),
        (
            "/posts",
            JSON,
            r#"{"post":[{"title":"fine"},{"title":"fine","body":"[risky]"}]}"#,
        ),
        ("/posts", JSON, r#"{"post.title":"[risky]"}"#),
        ("/comments", FORM, "content=%5Brisky%5D"),
        ("/comments", FORM, "content=fine&content=[risky]"),
        ("/comments", FORM, "content[]=fine&content[x][y]=[risky]"),
        ("/comments", FORM, "%63ontent%5B%5D=%5brisky]"),
        ("/comments", FORM, "a=1;content=[risky]"),
        ("/comments", FORM, r#"{"content":"[risky]"}"#),
        ("/posts", FORM, "post[body]=[risky]"),
        ("/posts", FORM, "post.body=[risky]"),
        ("/posts", FORM, "post_body=[risky]"),
        ("/comments?content=[risky]", FORM, "a=1"),
        (
            "/comments?content=%5Brisky%5D",
            JSON,
            r#"{"content":"fine"}"#,
        ),
    ] {
        let answer = desk.post(target, kind, body.as_bytes());
        let problem = answer.problem(422, "content-risky");
        assert_eq!(problem["suggest"], "risky", "{body}");
    }
    let get = desk.send("GET", "/posts?post[title]=[risky]", &[], b"");
    get.problem(422, "content-risky");
    desk.passed(0);
}

/// A form of parts, each with its head and its content.
fn parts(parts: &[(&str, &[u8])]) -> Vec<u8> {
    form("b", parts)
}

#[test]
fn the_texts_of_a_form_with_parts_are_found_and_it_is_passed_on_byte_for_byte() {
    let desk = Desk::new();
    for part in [
        ("name=\"content\"", &b"[risky]"[..]),
        ("name=\"content[]\"", b"[risky]"),
        (
            "name=\"CONTENT\"\r\nContent-Type: text/plain; charset=utf-8",
            b"[risky]",
        ),
        ("name=\"content\"; filename=\"\"", b"[risky]"),
        ("name=\"content%5B%5D\"; filename=\"\"\r\nX: y", b"-"),
        ("name=content", b"[risky]"),
    ] {
        let form = parts(&[
            ("name=\"a\"", b"fine"),
            part,
            ("name=\"content\"", b"[risky:20001]"),
        ]);
        desk.post("/comments", PARTS, &form)
            .problem(422, "content-risky");
    }
    let json = parts(&[(
        "name=\"post\"\r\nContent-Type: application/json",
        br#"{"title":"[risky]"}"#,
    )]);
    desk.post("/posts", PARTS, &json)
        .problem(422, "content-risky");
    desk.passed(0);
    let form = parts(&[
        ("name=\"content\"", "你好".as_bytes()),
        ("name=\"file\"; filename=\"a.bin\"", b"[risky]\0\xff\r\n--c"),
    ]);
    let answer = desk.post("/comments", PARTS, &form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = &desk.passed(1)[0];
    assert_eq!(request.body, form);
    assert_eq!(request.header("content-type"), Some(PARTS));
    assert_eq!(request.header("x-wx-text-check"), Some("pass"));
    assert_eq!(desk.asked().last().unwrap()["content"], "你好");
}

#[test]
fn a_part_that_some_app_would_read_otherwise_is_refused() {
    let desk = Desk::new();
    for part in [
        ("name=\"content\"; filename=\"a.txt\"", &b"[risky]"[..]),
        (
            "name=\"content\"\r\nContent-Type: text/plain; charset=gbk",
            b"[risky]",
        ),
        (
            "name=\"content\"\r\nContent-Transfer-Encoding: base64",
            b"W3Jpc2t5XQ==",
        ),
        ("name=\"content\"; name=\"a\"", b"[risky]"),
        ("name=\"_charset_\"", b"gbk"),
        ("name=\"content\"", b"\xc4\xe3[risky]"),
    ] {
        let answer = desk.post("/comments", PARTS, &parts(&[part]));
        answer.problem(400, "bad-request");
    }
    let form = parts(&[("name=\"content\"", b"[risky]")]);
    desk.post("/comments", "multipart/form-data", &form)
        .problem(400, "bad-request");
    desk.post("/comments", PARTS, &form[..form.len() - 5])
        .problem(400, "bad-request");
    let other = "multipart/form-data; boundary=b; charset=gbk";
    desk.post("/comments", other, &form)
        .problem(415, "unsupported-media-type");
    desk.post("/album", other, &form)
        .problem(415, "unsupported-media-type");
    desk.passed(0);
}

#[test]
fn a_form_whose_text_is_refused_uploads_nothing() {
    let desk = Desk::new();
    let picture = picture(100);
    let form = |text: &str| {
        let file = (
            "name=\"photo\"; filename=\"a.png\"\r\nContent-Type: image/png",
            &picture[..],
        );
        parts(&[file, ("name=\"post[title]\"", text.as_bytes())])
    };
    let problem = desk
        .post("/album", PARTS, &form("[risky:20013]"))
        .problem(422, "content-risky");
    assert_eq!(problem["field"], "post.title");
    assert_eq!(desk.rig.sim.calls(UPLOAD), 0);
    desk.passed(0);
    let answer = desk.post("/album", PARTS, &form("我的照片"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = &desk.passed(1)[0];
    assert_eq!(request.header("x-wx-text-check"), Some("pass"));
    assert_eq!(request.header("x-wx-media"), Some("1"));
    assert_eq!(desk.rig.sim.calls(UPLOAD), 1);
    // Without a form the route checks as any other.
    desk.post("/album", JSON, br#"{"content":"[risky]"}"#)
        .problem(422, "content-risky");
    desk.post("/album", "text/plain", b"x")
        .problem(415, "unsupported-media-type");
}

#[test]
fn a_body_that_could_be_read_in_two_ways_is_refused() {
    let desk = Desk::new();
    for (target, body) in [
        (
            "/comments",
            &br#"{"content":"[risky]","content":"fine"}"#[..],
        ),
        ("/comments", br#"{"content":"fine","Content":"[risky]"}"#),
        (
            "/posts",
            br#"{"post":{"title":"[risky]"},"post":{"title":"fine"}}"#,
        ),
        (
            "/comments",
            b"{\"content\":\"fine\"} {\"content\":\"[risky]\"}",
        ),
        ("/comments", b"{'content':'[risky]'}"),
        ("/comments", b"content=[risky]"),
        ("/comments", b"{\"content\":\"\xc4\xe3[risky]\"}"),
        ("/comments", b"\xef\xbb\xbf{\"content\":\"[risky]\"}"),
        ("/comments", br#"{"content":"\ud800[risky]"}"#),
    ] {
        let answer = desk.post(target, JSON, body);
        answer.problem(400, "bad-request");
    }
    let utf_16: Vec<u8> = "{\"content\":\"[risky]\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    desk.post("/comments", JSON, &utf_16)
        .problem(400, "bad-request");
    desk.post("/comments", FORM, b"content=%C4%E3[risky]")
        .problem(400, "bad-request");
    let deep = format!(
        "{{\"content\":{}\"[risky]\"{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    desk.post("/comments", JSON, deep.as_bytes())
        .problem(400, "bad-request");
    desk.passed(0);
    assert_eq!(desk.rig.sim.calls(CHECK), 0);
}

#[test]
fn a_body_that_is_something_else_is_refused() {
    let desk = Desk::new();
    let body = br#"{"content":"[risky]"}"#;
    for kind in [
        "text/plain",
        "application/octet-stream",
        "application/xml",
        "application/json;charset=gbk",
        "application/json; charset=\"UTF-16\"",
        "application/x-www-form-urlencoded; charset=gb2312",
        "text/plain, application/json",
        "application/jsonx",
        "",
    ] {
        desk.post("/comments", kind, body)
            .problem(415, "unsupported-media-type");
    }
    desk.send("POST", "/comments", &[], body)
        .problem(415, "unsupported-media-type");
    for encoding in ["gzip", "br", "identity, deflate"] {
        let headers = [("Content-Type", JSON), ("Content-Encoding", encoding)];
        desk.send("POST", "/comments", &headers, body)
            .problem(415, "unsupported-media-type");
    }
    let twice = [("Content-Type", JSON), ("Content-Type", "text/plain")];
    desk.send("POST", "/comments", &twice, body)
        .problem(400, "bad-request");
    let headers = [
        ("Content-Type", "text/plain"),
        ("Transfer-Encoding", "chunked"),
    ];
    let answer = desk.send("POST", "/comments", &headers, &chunked(&[body]));
    answer.problem(415, "unsupported-media-type");
    desk.passed(0);
}

#[test]
fn a_chunked_body_is_checked_and_passed_on_whole() {
    let desk = Desk::new();
    let send = |pieces: &[&[u8]]| {
        let headers = [("Content-Type", JSON), ("Transfer-Encoding", "chunked")];
        desk.send("POST", "/comments", &headers, &chunked(pieces))
    };
    send(&[b"{\"content\":\"[ri", b"sky]\"}"]).problem(422, "content-risky");
    assert_eq!(send(&[b"{\"content\":\"fi", b"ne\"}"]).status, 200);
    assert_eq!(desk.passed(1)[0].body, b"{\"content\":\"fine\"}");
}

#[test]
fn a_long_text_is_asked_about_in_pieces_and_no_word_is_lost_between_them() {
    const FILLER: &str = "鱼";
    let desk = Desk::new();
    let filler = |count| FILLER.repeat(count);
    let at_the_seam = format!("{}[risky]{}", filler(2496), filler(3000));
    desk.comment(&at_the_seam).problem(422, "content-risky");
    // Different everywhere, so that no piece is like another; and without the filler, because what was asked of that text and
    // given up may still be on its way.
    let long: String = (0..19_650)
        .map(|i| char::from_u32(0x4E00 + i).unwrap())
        .collect();
    let asked_of_it = || {
        let asked = desk.asked().into_iter();
        let of_it = asked.filter(|it| !it["content"].as_str().unwrap().contains(FILLER));
        of_it.count()
    };
    assert!(!long.contains(FILLER));
    assert_eq!(desk.comment(&long).status, 200);
    assert_eq!(asked_of_it(), 8);
    let problem = desk
        .comment(&format!("{long}很"))
        .problem(413, "body-too-large");
    assert!(problem["hint"].as_str().unwrap().contains("19,000"));
    assert_eq!(asked_of_it(), 8);
    let late = long.chars().take(19_000).collect::<String>() + "[risky]";
    desk.comment(&late).problem(422, "content-risky");
    desk.passed(1);
    for call in desk.asked() {
        assert!(call["content"].as_str().unwrap().chars().count() <= 2500);
    }
}

#[test]
fn several_fields_are_all_checked_and_equal_texts_once() {
    let desk = Desk::new();
    let body = json!({ "post": { "title": "same", "body": ["same", "same"] } }).to_string();
    assert_eq!(desk.post("/posts", JSON, body.as_bytes()).status, 200);
    assert_eq!(desk.rig.sim.calls(CHECK), 1);
    let body = json!({ "post": { "title": "fine", "body": "[risky:20012]" } }).to_string();
    let problem = desk
        .post("/posts", JSON, body.as_bytes())
        .problem(422, "content-risky");
    assert_eq!(problem["field"], "post.body");
    desk.passed(1);
}

#[test]
fn the_body_limit_of_the_route_holds() {
    let desk = Desk::new();
    let body = format!("{{\"a\":\"{}\",\"content\":\"x\"}}", "a".repeat(2000));
    desk.post("/small", JSON, body.as_bytes())
        .problem(413, "body-too-large");
    let headers = [("Content-Type", JSON), ("Transfer-Encoding", "chunked")];
    let answer = desk.send("POST", "/small", &headers, &chunked(&[body.as_bytes()]));
    answer.problem(413, "body-too-large");
    desk.passed(0);
}

#[test]
fn what_wechat_does_not_judge_stays_here_unless_the_route_is_open() {
    for (effect, status, slug) in [
        (errcode(-1), 503, "wechat-refused"),
        (errcode(45009), 429, "wechat-refused"),
        (Effect::Garbage, 502, "wechat-invalid"),
        (Effect::Reset, 502, "wechat-unreachable"),
        (
            Effect::Raw {
                status: 200,
                content_type: None,
                body: r#"{"errcode":0,"result":{"suggest":"dunno","label":100}}"#.into(),
            },
            502,
            "wechat-invalid",
        ),
    ] {
        let desk = Desk::new();
        desk.fail(8, effect.clone());
        canary(PRIVATE);
        let body = json!({ "content": PRIVATE }).to_string().into_bytes();
        let problem = desk.post("/comments", JSON, &body).problem(status, slug);
        assert!(problem["hint"].is_string(), "{problem}");
        assert!(!problem.to_string().contains(PRIVATE), "{problem}");
        desk.passed(0);
        // After 45009 the breaker is open: WeChat is not even asked.
        assert_eq!(desk.post("/open", JSON, &body).status, 200, "{effect:?}");
        assert_eq!(
            desk.passed(1)[0].header("x-wx-text-check"),
            Some("unchecked")
        );
        assert_eq!(desk.verdicts("unchecked"), 2.0);
    }
}

#[test]
fn without_an_access_token_a_text_stays_here() {
    let desk = Desk::new();
    let token = "/cgi-bin/stable_token";
    desk.rig.sim.fault(Fault::new(token, 50, errcode(-1)));
    let answer = desk.comment("x");
    answer.problem(503, "access-token-unavailable");
    desk.passed(0);
    assert_eq!(desk.post("/open", JSON, br#"{"content":"x"}"#).status, 200);
    desk.passed(1);
}

#[test]
fn wechat_that_does_not_answer_in_time_has_not_judged() {
    let desk = Desk::new();
    // From now on there is an access_token, so that nothing but the judgement can be late.
    assert_eq!(desk.comment("x").status, 200);
    desk.rig.reload("timeout = \"30s\"", "timeout = \"300ms\"");
    let held = Fault {
        delay: Duration::from_secs(20),
        ..Fault::new(CHECK, 1, Effect::Answer)
    };
    desk.rig.sim.fault(held);
    desk.comment("x").problem(504, "wechat-timeout");
    desk.passed(1);
}

#[test]
fn a_risky_piece_counts_even_if_another_fails_on_an_open_route() {
    let desk = Desk::new();
    desk.fail(1, errcode(-1));
    // Whichever piece it is that fails, the others are risky.
    let marked: String = ['甲', '乙', '丙']
        .iter()
        .map(|c| {
            format!(
                "{}[risky]{}",
                c.to_string().repeat(1200),
                c.to_string().repeat(1200)
            )
        })
        .collect();
    let body = json!({ "content": marked }).to_string();
    desk.post("/open", JSON, body.as_bytes())
        .problem(422, "content-risky");
    desk.passed(0);
}

#[test]
fn a_user_who_has_not_been_there_of_late_is_told_so() {
    let desk = Desk::new();
    desk.rig.advance(Duration::from_secs(7201));
    let mut refreshed = desk.rig.refresh(&desk.session.refresh).json();
    refreshed["openid"] = json!(desk.session.openid);
    let session = Session::of(&refreshed);
    let headers = [
        ("Authorization", &*session.bearer()),
        ("Content-Type", JSON),
    ];
    let answer = desk
        .rig
        .request("POST", "/comments", &headers, br#"{"content":"x"}"#);
    let problem = answer.problem(403, "wechat-refused");
    assert_eq!(problem["errcode"], 61010);
    assert!(
        problem["detail"].as_str().unwrap().contains("two hours"),
        "{problem}"
    );
    desk.passed(0);
}

#[test]
fn a_stranger_is_refused_before_anything_is_asked() {
    let desk = Desk::new();
    let answer = desk.rig.request(
        "POST",
        "/comments",
        &[("Content-Type", JSON)],
        br#"{"content":"x"}"#,
    );
    answer.problem(401, "token-missing");
    assert_eq!(desk.rig.sim.calls(CHECK), 0);
    desk.passed(0);
}

#[test]
fn on_a_login_route_the_user_is_the_one_who_logs_in() {
    let desk = Desk::new();
    let login = |user: &str, nickname: &str| {
        let body = json!({ "code": desk.rig.code(user), "nickname": nickname }).to_string();
        desk.rig.request(
            "POST",
            "/auth/login",
            &[("Content-Type", JSON)],
            body.as_bytes(),
        )
    };
    let answer = login("bob", "小明 [risky:20002]");
    let problem = answer.problem(422, "content-risky");
    assert_eq!(problem["field"], "nickname");
    assert_eq!(answer.header("x-wx-access-token"), None);
    desk.passed(0);
    let answer = login("bob", "小明");
    let bob = desk.rig.sim.openid("bob");
    let session = Session::of_headers(&answer, bob.as_str());
    assert_eq!(answer.status, 200);
    let request = &desk.passed(1)[0];
    assert_eq!(request.header("x-wx-text-check"), Some("pass"));
    assert_eq!(request.header("x-wx-openid"), Some(&*session.openid));
    assert_eq!(desk.asked().last().unwrap()["openid"], bob.as_str());
    assert_eq!(desk.asked().last().unwrap()["scene"], 1);
}

#[test]
fn a_code_in_a_header_says_whose_text_it_is() {
    let desk = Desk::new();
    let code = desk.rig.code("carol");
    let headers = [("X-WX-Code", &*code), ("Content-Type", JSON)];
    let answer = desk
        .rig
        .request("POST", "/comments", &headers, br#"{"content":"hi"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let carol = desk.rig.sim.openid("carol");
    Session::of_headers(&answer, carol.as_str());
    assert_eq!(desk.asked()[0]["openid"], carol.as_str());
}

#[test]
fn text_check_and_open_data_go_together() {
    let desk = Desk::new();
    let body = r#"{"content":"[risky]","run":{"encryptedData":"x","iv":"y"}}"#;
    desk.post("/both", JSON, body.as_bytes())
        .problem(422, "content-risky");
    let order = OpenDataOrder::new("alice", OpenDataKind::WeRun);
    let made = desk.rig.sim.encrypt(&order).unwrap();
    let body = json!({
        "content": "fine", "run": { "encryptedData": made.encrypted_data, "iv": made.iv },
    });
    let answer = desk.post("/both", JSON, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = &desk.passed(1)[0];
    assert_eq!(request.header("x-wx-text-check"), Some("pass"));
    assert_eq!(request.header("x-wx-open-data"), Some("1"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(body["run"]["openData"]["stepInfoList"].is_array(), "{body}");
    assert_eq!(body["content"], "fine");
}

const PUSH_TOKEN: &str = "ca9a41pushtoken01";
const PUSH_KEY: &str = "ca9a41abcdefghijklmnopqrstuvwxyz0123456789B";

/// `[push]` and `[media.check]`. The simulator judges what is not on this machine by its URL.
fn judging(more: &str) -> String {
    canary(PUSH_TOKEN);
    canary(PUSH_KEY);
    format!(
        "[push]\ntoken = \"{PUSH_TOKEN}\"\naes_key = \"{PUSH_KEY}\"\nretry_cap = \"1s\"\ntimeout = \"1m\"\n{more}\n\
         [media]\nbase_url = \"https://mini.example.com\"\n[media.check]\nscene = \"social\"\n{ROUTES}"
    )
}

/// Has WeChat push to the sidecar.
fn push_to(rig: &Rig) {
    let options = pushes_to(rig, &format!("http://{}", rig.sidecar().inbound_addr()));
    rig.sim.push_to(options).unwrap();
}

fn pushes_to(rig: &Rig, place: &str) -> PushOptions {
    let to = format!("{place}/wx/push");
    let appid = AppId::parse(APPID).unwrap();
    let options = PushOptions::new(to, appid, Secret::new(PUSH_TOKEN), Secret::new(PUSH_KEY));
    let clock = rig.clock.clone();
    PushOptions { clock, ..options }
}

/// Where WeChat's pushes wait until they are handed on. What a judgement is of, the answer to the question says; the sidecar
/// waits a second for it, and on a busy machine the judgement may be earlier than that.
struct Held(FakeApp);

impl Held {
    fn before(rig: &Rig) -> Self {
        let taken = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsuccess";
        let held = FakeApp::answering(taken);
        let options = PushOptions {
            tries: 1,
            timeout: PATIENCE,
            ..pushes_to(rig, &held.url())
        };
        rig.sim.push_to(options).unwrap();
        Self(held)
    }

    /// Hands the last of so many on, as it came.
    fn hand_on(&self, rig: &Rig, count: usize) {
        let push = self.0.requests(count).pop().unwrap();
        let kind = push.header("content-type").unwrap();
        let answer = rig.request(
            push.method(),
            push.target(),
            &[("Content-Type", kind)],
            &push.body,
        );
        assert_eq!((answer.status, answer.text()), (200, "success"));
    }
}

fn upload(desk: &Desk) -> Value {
    let file = "name=\"media\"; filename=\"a.png\"\r\nContent-Type: image/png";
    let answer = desk.post("/wx/media", PARTS, &parts(&[(file, &picture(100))]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// So that an app can tell what a judgement is of, whoever brings it.
#[test]
fn the_app_is_told_which_traces_the_files_in_its_form_have() {
    let desk = Desk::with(FakeApp::agreeable(), &judging(""));
    let part = |name: &str| format!("name=\"{name}\"; filename=\"{name}.png\"");
    let form = |count| {
        let heads = Vec::from_iter(["a", "b"][..count].iter().map(|name| part(name)));
        let text = ("name=\"content\"", &b"fine"[..]);
        let picture = picture(64);
        let files = heads.iter().map(|head| (head.as_str(), &picture[..]));
        parts(&Vec::from_iter([text].into_iter().chain(files)))
    };
    let answer = desk.post("/album", PARTS, &form(2));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = desk.passed(1).remove(0);
    let body = String::from_utf8(request.body.clone()).unwrap();
    let traces = request.header("x-wx-media-trace").unwrap();
    let traces = Vec::from_iter(traces.split(", ").map(|it| it.split_once('=').unwrap()));
    assert_eq!(traces.len(), 2, "{traces:?}");
    for (media_id, trace_id) in traces {
        assert!(body.contains(&format!("\r\n{media_id}\r\n")), "{body}");
        assert!(!trace_id.is_empty() && body.contains(media_id));
    }
    assert_eq!(desk.rig.sim.received(MEDIA_CHECK).len(), 2);
    // Without a file there is none, and a client's is dropped.
    let spoofed = [("Content-Type", PARTS), ("X-WX-Media-Trace", "a=b")];
    let answer = desk.send("POST", "/album", &spoofed, &form(0));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = desk.passed(2).pop().unwrap();
    assert_eq!(request.header("x-wx-media"), Some("0"));
    assert_eq!(request.header("x-wx-media-trace"), None);
}

#[test]
fn the_judgement_of_an_upload_comes_with_its_media_id() {
    let app = FakeApp::agreeable();
    let desk = Desk::with(app, &judging(""));
    let held = Held::before(&desk.rig);
    for count in 1..=3 {
        let told = upload(&desk);
        held.hand_on(&desk.rig, count);
        let pushed = desk.passed(count).pop().unwrap();
        assert_eq!(pushed.header("x-wx-event"), Some("wxa_media_check"));
        assert_eq!(pushed.header("x-wx-media-id"), told["media_id"].as_str());
        let judged: Value = serde_json::from_slice(&pushed.body).unwrap();
        assert!(told["trace_id"].is_string(), "{told}");
        assert_eq!(judged["trace_id"], told["trace_id"]);
    }
    let asked = desk.rig.sim.received(MEDIA_CHECK).remove(0);
    let asked: Value = serde_json::from_slice(&asked.body).unwrap();
    // 2 is a picture.
    assert_eq!(asked["media_type"], 2);
    assert_eq!(asked["scene"], 4);
    assert_eq!(asked["openid"], desk.session.openid);
    let url = asked["media_url"].as_str().unwrap();
    assert!(url.starts_with("https://mini.example.com/"), "{url}");
    let asked = desk
        .rig
        .metric("wx_sidecar_media_checks_total{result=\"asked\"}");
    assert_eq!(asked, 3.0);
}

#[test]
fn a_judgement_that_waits_keeps_its_media_id_over_a_restart() {
    let journal = tempfile::tempdir().unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&up);
    let app = FakeApp::start(move |connection| {
        while connection.read_request().is_some_and(|it| it.complete) {
            let away = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n";
            connection.write(match seen.load(Ordering::SeqCst) {
                true => OK,
                false => away,
            });
        }
    });
    let more = format!("journal = \"{}\"", journal.path().display());
    let mut desk = Desk::with(app, &judging(&more));
    let held = Held::before(&desk.rig);
    let told = upload(&desk);
    held.hand_on(&desk.rig, 1);
    let first = desk.app.requests(1).remove(0);
    desk.rig.restart();
    let tried = desk.app.requests(1).len();
    up.store(true, Ordering::SeqCst);
    let later = desk.app.requests(tried + 1).pop().unwrap();
    for pushed in [first, later] {
        assert_eq!(pushed.header("x-wx-media-id"), told["media_id"].as_str());
    }
}

#[test]
fn an_upload_stands_if_wechat_does_not_look_at_it() {
    let desk = Desk::with(FakeApp::agreeable(), &judging(""));
    desk.rig
        .sim
        .fault(Fault::new(MEDIA_CHECK, 1, errcode(87020)));
    let told = upload(&desk);
    assert!(told["media_id"].is_string());
    assert!(told["trace_id"].is_null(), "{told}");
    let failed = desk
        .rig
        .metric("wx_sidecar_media_checks_total{result=\"error\"}");
    assert_eq!(failed, 1.0);
}

#[test]
fn the_judgement_of_what_the_app_has_checked_itself_comes_without_a_media_id() {
    let desk = Desk::with(FakeApp::agreeable(), &judging(""));
    push_to(&desk.rig);
    let question = json!({
        "media_url": "https://mini.example.com/a", "media_type": 1, "version": 2, "scene": 1,
        "openid": desk.session.openid,
    });
    let body = question.to_string();
    let told = desk
        .rig
        .call("POST", MEDIA_CHECK, &[], body.as_bytes())
        .json();
    let pushed = desk.passed(1).remove(0);
    assert_eq!(pushed.header("x-wx-media-id"), None);
    let judged: Value = serde_json::from_slice(&pushed.body).unwrap();
    assert_eq!(judged["trace_id"], told["trace_id"]);
}

#[test]
fn a_reload_forgets_no_upload() {
    let desk = Desk::with(FakeApp::agreeable(), &judging(""));
    // Nobody is pushed to yet, so what WeChat says of it is told by hand.
    let told = upload(&desk);
    let config = wx_sidecar::Config::from_toml(desk.rig.config()).unwrap();
    desk.rig.sidecar().reload(config).unwrap();
    push_to(&desk.rig);
    let event = json!({
        "kind": "event", "event": "wxa_media_check", "user": "alice",
        "fields": { "trace_id": told["trace_id"], "version": 2, "result": { "suggest": "pass", "label": 100 } },
    });
    let sent = Client::connect(desk.rig.sim.addr()).request(
        "POST",
        "/_sim/push",
        &[],
        event.to_string().as_bytes(),
    );
    assert_eq!(sent.status, 200, "{}", sent.text());
    let pushed = desk.app.requests(1).remove(0);
    assert_eq!(pushed.header("x-wx-media-id"), told["media_id"].as_str());
}

#[test]
fn an_app_that_reads_another_boundary_gets_nothing() {
    let desk = Desk::new();
    let hidden =
        b"--Z\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\n[risky]\r\n--Z--\r\n";
    let form = |boundary: &str| {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n");
        let end = format!("\r\n--{boundary}--\r\n");
        [head.as_bytes(), hidden, end.as_bytes()].concat()
    };
    for (parameters, boundary) in [
        ("boundary=A; boundary*0=Z", "A"),
        ("boundary=A; boundary*=utf-8''Z", "A"),
        ("xboundary=Z; boundary=A", "A"),
        ("charset=\"boundary=Z\"; boundary=A", "A"),
        ("boundary=\"A boundary=Z\"", "A boundary=Z"),
        ("boundary=\"Z,A\"", "Z,A"),
        ("boundary=Z/A", "Z/A"),
    ] {
        let kind = format!("multipart/form-data; {parameters}");
        for target in ["/comments", "/album"] {
            let problem = desk
                .post(target, &kind, &form(boundary))
                .problem(400, "bad-request");
            assert!(problem["hint"].as_str().unwrap().contains("RFC 7578"));
        }
    }
    desk.passed(0);
    assert_eq!(desk.post("/comments", PARTS, &form("b")).status, 200);
}

#[test]
fn an_app_that_reads_another_name_gets_nothing() {
    let desk = Desk::new();
    for head in [
        "name=\"x\"; name*0=\"content\"",
        "name=\"x\"; filename*0=\"a.html\"",
        "x-name=content; name=x",
        "name=\"x\"; a=\"; filename=b.html; \"",
        "name=\"con\\tent\"",
        "name=\"x; name=content\"",
        "name=\"=?utf-8?q?content?=\"",
        "name=\"x\"; filename*=\"utf-8''; name=content\"",
        "name=content/x",
        "name=\"x\"\r\nContent-Type: multipart/mixed; boundary=q",
    ] {
        for target in ["/comments", "/album"] {
            desk.post(target, PARTS, &parts(&[(head, b"[risky]")]))
                .problem(400, "bad-request");
        }
    }
    let padded = String::from_utf8(parts(&[("name=\"a\"", b"1"), ("name=\"b\"", b"2")])).unwrap();
    for padded in [
        padded.replace("\r\n--b\r\n", "\r\n--b \r\n"),
        padded.replace("--b--", "--b--\t"),
    ] {
        desk.post("/comments", PARTS, padded.as_bytes())
            .problem(400, "bad-request");
    }
    desk.passed(0);
}

#[test]
fn an_app_that_reads_another_character_set_gets_nothing() {
    let desk = Desk::new();
    for parameters in [
        "xcharset=utf-16be",
        "charset*0=utf-7",
        "charset*=utf-8''utf-7",
        "x=\"charset=gbk\"",
        "charset=utf-8; charset=gbk",
    ] {
        for (kind, body) in [(FORM, &b"content=x"[..]), (JSON, br#"{"content":"x"}"#)] {
            let kind = format!("{kind}; {parameters}");
            let problem = desk
                .post("/comments", &kind, body)
                .problem(415, "unsupported-media-type");
            assert!(problem["hint"].as_str().unwrap().contains("UTF-8"));
        }
    }
    for lines in [
        "Content-Type-X: a\r\nContent-Type: text/plain; charset=utf-16be",
        "Content-Type: text/plain; xcharset=utf-16be",
        "Content-Type: text/plain; charset*0=utf-7",
    ] {
        let head = format!("name=\"content\"\r\n{lines}");
        let problem = desk
            .post("/comments", PARTS, &parts(&[(&head, b"x")]))
            .problem(400, "bad-request");
        assert!(problem["hint"].as_str().unwrap().contains("charset=utf-8"));
    }
    let other = "Content-Type-X: a; charset=gbk\r\nContent-Type: text/plain; charset=utf-8";
    let head = format!("name=\"content\"\r\n{other}");
    let answer = desk.post("/comments", PARTS, &parts(&[(&head, b"x")]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let encoded = [("Content-Type", JSON), ("Content_Encoding", "gzip")];
    desk.send("POST", "/comments", &encoded, br#"{"content":"x"}"#)
        .problem(415, "unsupported-media-type");
    desk.passed(1);
}

#[test]
fn a_risky_text_is_found_where_only_some_apps_find_it() {
    let desk = Desk::new();
    for (target, kind, body) in [
        ("/posts", JSON, r#"{"post":{"0":{"title":"[risky]"}}}"#),
        (
            "/posts",
            JSON,
            r#"{"7":{"post":{"1":{"title":"[risky]"}}}}"#,
        ),
        ("/comments", JSON, r#"{"content":{"[risky]":1}}"#),
        ("/comments", FORM, "!content=[risky]"),
        ("/comments", FORM, "_content=[risky]"),
        ("/posts", FORM, "!post.title=[risky]"),
    ] {
        let answer = desk.post(target, kind, body.as_bytes());
        let problem = answer.problem(422, "content-risky");
        assert_eq!(problem["suggest"], "risky", "{body}");
    }
    desk.passed(0);
    for (kind, body, text) in [
        (JSON, r#"{"content":13800138000}"#, "13800138000"),
        (FORM, "content[call%20me]=1", "call me\n1"),
    ] {
        let answer = desk.post("/comments", kind, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(desk.asked().last().unwrap()["content"], text);
    }
}

#[test]
fn what_begins_as_json_in_a_form_and_is_none_is_refused() {
    let desk = Desk::new();
    for (target, body) in [
        ("/posts", "post={\"title\":\"[risky]\",\"a\":NaN}"),
        ("/posts", "post={\"title\":\"\\ud800[risky]\"}"),
        ("/posts", "post=%EF%BB%BF{\"title\":\"[risky]\"}"),
        ("/comments", "{\"content\":\"[risky]\",\"a\":NaN}"),
        ("/comments", "content=%u005brisky]"),
        ("/comments?content=%u005brisky]", "a=1"),
    ] {
        let problem = desk
            .post(target, FORM, body.as_bytes())
            .problem(400, "bad-request");
        assert!(problem["hint"].is_string(), "{body}");
    }
    let many = "a&".repeat(1001);
    for body in [many, "a;".repeat(1001)] {
        let problem = desk
            .post("/comments", FORM, body.as_bytes())
            .problem(400, "bad-request");
        assert!(problem["detail"].as_str().unwrap().contains("1000 pairs"));
    }
    desk.passed(0);
}

#[test]
fn a_type_in_another_spelling_does_not_reach_the_app() {
    let desk = Desk::new();
    let headers = [
        ("Content-Type", JSON),
        ("Content_Type", FORM),
        ("Content.Type", FORM),
    ];
    let answer = desk.send("POST", "/comments", &headers, br#"{"content":"x"}"#);
    assert_eq!(answer.status, 200);
    let request = &desk.passed(1)[0];
    assert_eq!(request.header("content-type"), Some(JSON));
    assert!(!request.head.contains(FORM), "{}", request.head);
}

#[test]
fn what_clients_really_send_is_checked_and_passed_on() {
    let desk = Desk::new();
    let bodies = [
        // wx.request, axios and browsers, Python requests and Go, okhttp.
        (JSON, r#"{"content":"你好"}"#),
        ("application/json; charset=utf-8", r#"{"content":"你好"}"#),
        ("application/json;charset=UTF-8", r#"{"content":"你好"}"#),
        (FORM, "content=%E4%BD%A0%E5%A5%BD&a=1%3B2"),
        (
            "application/x-www-form-urlencoded;charset=utf-8",
            "content=%E4%BD%A0%E5%A5%BD",
        ),
    ];
    for (kind, body) in bodies {
        let answer = desk.post("/comments", kind, body.as_bytes());
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
    }
    for head in [
        "name=\"content\"",
        "name=content",
        "name=\"content\"\r\nContent-Type: text/plain; charset=utf-8",
        "name=\"content\"\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: 6",
        "name=\"content\"\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit",
        "name=\"content\"\r\nContent-Type: application/json",
    ] {
        for target in ["/comments", "/album"] {
            let form = parts(&[(head, "你好".as_bytes())]);
            let answer = desk.post(target, PARTS, &form);
            assert_eq!(answer.status, 200, "{head}: {}", answer.text());
        }
    }
    for asked in desk.asked() {
        assert_eq!(asked["content"], "你好");
    }
    desk.passed(17);
}
