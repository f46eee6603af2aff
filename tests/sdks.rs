//! What people use to call WeChat, unmodified from its registry, with nothing but another base URL: it works, though it
//! knows neither the AppSecret nor a token.
//!
//! The programs are in `tests/apps/sdk-*`. All do the same jobs in the same order; what they say is compared with what
//! the simulator knows, and what they sent with what may leave the sidecar.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::backends::{Kind, Script, sha256};
use crate::fake_app::{FakeApp, Request};
use crate::http_client::{Client, Response};
use crate::rig::{APPID, Rig, SECRET, canary};

const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
const CODE: &str = "/wxa/getwxacodeunlimit";
/// What an SDK believes to be the AppSecret.
const DUMMY: &str = "a-dummy-that-stays-inside";
const TEMPLATE: &str = "a-template";
const NEWS: &str = "新的消息 <b>&";
/// One character more than a scene may have.
const LONG_SCENE: &str = "a_scene_may_have_32_of_these_only";

/// What WeChat gets of each SDK's jobs, in this order, and nothing else.
const JOBS: [&str; 9] = [
    "/sns/jscode2session",
    "/wxa/business/getuserphonenumber",
    "/cgi-bin/message/subscribe/send",
    CODE,
    CODE,
    "/cgi-bin/media/upload",
    "/cgi-bin/media/get",
    "/wxa/msg_sec_check",
    "/wxa/msg_sec_check",
];

#[test]
fn wechatpy_works_without_the_appsecret() {
    works_without_the_appsecret(Kind::SdkWechatpy, "jobs.py");
}

#[test]
fn wxjava_works_without_the_appsecret() {
    works_without_the_appsecret(Kind::SdkWxJava, "Jobs.java");
}

#[test]
fn silenceper_wechat_works_without_the_appsecret() {
    works_without_the_appsecret(Kind::SdkGo, "sdk-go");
}

#[test]
fn easywechat_works_without_the_appsecret() {
    works_without_the_appsecret(Kind::SdkEasyWechat, "jobs.js");
}

fn works_without_the_appsecret(kind: Kind, script: &str) {
    let stage = Stage::new();
    let said = stage.run(kind, script);
    let sent = stage.sent();

    let paths: Vec<_> = sent.iter().map(path).collect();
    assert_eq!(paths, JOBS, "{said:#}");
    let message: Value = serde_json::from_slice(&sent[2].body).unwrap();
    assert_eq!(message["template_id"], TEMPLATE);
    assert_eq!(message["data"]["thing1"]["value"], NEWS);
    let image = stage.again(&sent[3]);
    assert_eq!(image.header("content-type"), Some("image/jpeg"));
    let image = sha256(&image.body);
    let rig = &stage.rig;
    let session_key = rig.session_key("alice").unwrap();
    let expected = json!({
        "openid": rig.sim.openid("alice").as_str(),
        "session_key": sha256(session_key.as_bytes()),
        "phone": sha256(rig.sim.phone_number("alice").as_bytes()),
        "message_sent": true,
        "code": image,
        "refused": 40169,
        "download": image,
        "harmless": "pass",
        "risky": "risky",
    });
    assert_eq!(said, expected);
    stage.assert_nothing_of_the_sdks_left();
}

/// A sidecar, and WeChat behind something that keeps what passes.
struct Stage {
    rig: Rig,
    wechat: FakeApp,
}

impl Stage {
    fn new() -> Self {
        let place = Arc::new(OnceLock::new());
        let simulator = Arc::clone(&place);
        let wechat = FakeApp::start(move |connection| {
            while let Some(request) = connection.read_request().filter(|it| it.complete) {
                let mut wechat = Client::connect(simulator.wait());
                wechat.send(&request.bytes);
                let answer = wechat.read_response(false);
                assert_eq!(answer.header("transfer-encoding"), None);
                if path(&request) == STABLE_TOKEN {
                    canary(answer.json()["access_token"].as_str().unwrap());
                }
                connection.write(&[answer.head, answer.body].concat());
            }
        });
        let sections = format!(
            "[wechat]\nendpoints = [\"{}\"]\ntimeout = \"60s\"\n",
            wechat.url()
        );
        let rig = Rig::with("http://127.0.0.1:9", "", &sections);
        place.set(rig.sim.addr()).expect("set once");
        Self { rig, wechat }
    }

    /// Has a program do its jobs, and gives what it says of them.
    fn run(&self, kind: Kind, script: &str) -> Value {
        let place = self.rig.sidecar().outbound_addr();
        let phone_code = self.rig.sim.issue_phone_code("alice");
        canary(&phone_code);
        canary(&self.rig.sim.phone_number("alice"));
        let input = json!({
            "base": format!("http://{}", place.expect("the sidecar takes the app's calls")),
            "appid": APPID,
            "secret": DUMMY,
            "login_code": self.rig.code("alice"),
            "phone_code": phone_code,
            "template": TEMPLATE,
            "message": { "thing1": NEWS, "number2": "15" },
            "scene": "order=42",
            "long_scene": LONG_SCENE,
            "harmless": "今天天气很好，出去走走",
            "risky": "[risky] 加我",
        });
        let script = Script::start(kind, script, &[&input.to_string()]);
        serde_json::from_str(&script.line()).expect("the program says JSON")
    }

    /// What the simulator got, but for the sidecar's own calls.
    fn sent(&self) -> Vec<Request> {
        let all = self.wechat.requests(1);
        all.into_iter()
            .filter(|it| path(it) != STABLE_TOKEN)
            .collect()
    }

    /// The answer to the same call once more, by way of the sidecar.
    fn again(&self, request: &Request) -> Response {
        let kind = request.header("content-type").unwrap_or_default();
        let headers = [("Content-Type", kind)];
        self.rig
            .call("POST", path(request), &headers, &request.body)
    }

    fn assert_nothing_of_the_sdks_left(&self) {
        let credential = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}");
        let target = format!("{credential}&secret={DUMMY}");
        let answer = self.rig.call("GET", &target, &[], b"").json();
        let virtual_token = answer["access_token"].as_str().unwrap();
        let all = self.wechat.requests(JOBS.len() + 1);
        for request in &all {
            let text = String::from_utf8_lossy(&request.bytes);
            for hidden in [DUMMY, virtual_token] {
                assert!(!text.contains(hidden), "{hidden}: {text}");
            }
            // The sidecar adds it where WeChat wants it, and nowhere else.
            let has_secret = text.contains(SECRET);
            let wants_secret = [STABLE_TOKEN, JOBS[0]].contains(&path(request));
            assert_eq!(has_secret, wants_secret, "{}", path(request));
        }
        assert_eq!(self.rig.sim.calls(STABLE_TOKEN), 1);
        assert_eq!(self.rig.sim.calls("/cgi-bin/token"), 0);
    }
}

fn path(request: &Request) -> &str {
    let target = request.target();
    target.split_once('?').map_or(target, |(path, _)| path)
}
