//! What `examples/` holds works as it stands: the phone's helper and the sample Mini Program on Node with a phone made
//! for the purpose (`tests/apps/miniprogram/`), and the backends in every language behind `wx-sidecar dev`.
//!
//! How a backend is run, and what a newcomer types, is read from the README beside the backends, so that it cannot say
//! what does not work.

use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::backends::{App, Kind, Script};
use crate::dev::Dev;
use crate::fake_app::{FakeApp, OK};
use crate::http_client::Client;
use crate::patience::eventually;
use crate::rig::{Rig, Session, canary};

const BACKENDS: &str = include_str!("../examples/backends/README.md");
/// Where customer service answers users.
const REPLY: &str = "/cgi-bin/message/custom/send";

/// What the helper's tests need of a configuration.
const ROUTES: &str = "[[route]]\npath = \"/public/**\"\nauth = \"none\"\n\
     [[route]]\npath = \"/auth/login\"\nlogin = true\n";

#[test]
fn the_phones_helper_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let rig = Rig::with(&format!("unix:{}", socket.display()), "", ROUTES);
    let clock = rig.clock.clone();
    let control = FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let seconds = String::from_utf8_lossy(&request.body);
            clock.advance(Duration::from_secs(seconds.parse().unwrap()));
            connection.write(OK);
        }
    });
    let place = json!({
        "sidecar": format!("http://{}", rig.address()),
        "simulator": rig.sim.url(),
        "control": control.url(),
        "app": socket,
        "folder": folder.path(),
    });
    all_pass("helper.test.js", &place, 30);
}

#[test]
fn the_sample_mini_program_works_with_a_backend() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new("Node");
    let place = json!({
        "sidecar": format!("http://{}", stage.dev.sidecar),
        "simulator": format!("http://{}", stage.dev.simulator),
        "folder": folder.path(),
    });
    all_pass("sample.test.js", &place, 3);
}

/// Runs tests on Node, which are at least so many, and shows what they say if one fails.
fn all_pass(tests: &str, place: &Value, at_least: u64) {
    Script::start(Kind::Miniprogram, tests, &[&place.to_string()]).passes(at_least);
}

#[test]
fn the_backend_in_node_works_as_its_readme_says() {
    works_as_its_readme_says("Node");
}

#[test]
fn the_backend_in_python_works_as_its_readme_says() {
    works_as_its_readme_says("Python");
}

#[test]
fn the_backend_in_go_works_as_its_readme_says() {
    works_as_its_readme_says("Go");
}

#[test]
fn the_backend_in_java_works_as_its_readme_says() {
    works_as_its_readme_says("Java");
}

#[test]
fn the_backend_in_php_works_as_its_readme_says() {
    works_as_its_readme_says("PHP");
}

/// One script for all, and what is expected is the same for all: their answers are alike.
fn works_as_its_readme_says(language: &str) {
    let stage = Stage::new(language);
    stage.newcomers_commands_answer_as_written();
    stage.a_users_text_is_answered();
    stage.a_text_that_wechat_was_too_busy_for_is_answered_later();
    stage.what_a_client_claims_is_not_believed();
}

/// `wx-sidecar dev` before a backend. What the backend asks of WeChat goes through something that keeps it, which has an
/// address before the sidecar has one.
struct Stage {
    dev: Dev,
    wechat: FakeApp,
    app: App,
}

impl Stage {
    fn new(language: &str) -> Self {
        let place = Arc::new(OnceLock::new());
        let outbound = Arc::clone(&place);
        let wechat = FakeApp::start(move |connection| {
            while let Some(request) = connection.read_request().filter(|it| it.complete) {
                let mut sidecar = Client::connect(*outbound.wait());
                sidecar.send(&request.bytes);
                let answer = sidecar.read_response(false);
                assert_eq!(answer.header("transfer-encoding"), None);
                connection.write(&[answer.head, answer.body].concat());
                // PHP reads to the end of the connection, which it has asked for.
                if request.header("connection") == Some("close") {
                    return connection.close();
                }
            }
        });
        let line = command_of(language);
        let app = App::of_line(language, &line, &[("WECHAT", &wechat.url())]);
        let dev = Dev::before(&app.url());
        place.set(dev.outbound).expect("set once");
        Self { dev, wechat, app }
    }

    fn newcomers_commands_answer_as_written(&self) {
        let (script, expected) = newcomers_commands();
        let script = script
            .replace("127.0.0.1:8080", &self.dev.sidecar.to_string())
            .replace("127.0.0.1:9902", &self.dev.simulator.to_string());
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).env("no_proxy", "*");
        let output = shell.output().expect("run sh");
        let said = String::from_utf8(output.stdout).expect("answers in UTF-8");
        let answers: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(answers.len(), expected.len(), "{said}");
        for (answer, expected) in answers.iter().zip(&expected) {
            let answer: Value = serde_json::from_str(answer).unwrap_or_else(|_| panic!("{said}"));
            assert_has(&answer, expected);
        }
        // The number is this user's, and so is the openid, whatever was claimed.
        let answers: Vec<Value> = answers
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let alice = self.alice();
        canary(alice["phone"].as_str().unwrap());
        assert_eq!(answers[0]["openid"], alice["apps"][0]["openid"]);
        assert_eq!(answers[2], json!({ "phoneNumber": alice["phone"] }));
    }

    fn a_users_text_is_answered(&self) {
        let replies = self.replies(1);
        assert_eq!(
            replies,
            [json!({
                "touser": self.alice()["apps"][0]["openid"],
                "msgtype": "text",
                "text": { "content": "You wrote: 你好 \"wx\"" },
            })]
        );
    }

    fn a_text_that_wechat_was_too_busy_for_is_answered_later(&self) {
        // What is kept on the way has not arrived yet, and the fault is for the next one.
        eventually("the first reply has not reached WeChat", || {
            self.page("/_sim/calls")["counts"][REPLY] == 1
        });
        let fault = json!({ "path": REPLY, "fault": { "errcode": -1 } });
        self.simulator("/_sim/faults", &fault);
        let push = json!({ "kind": "text", "user": "alice", "content": "again\\" });
        assert_eq!(self.simulator("/_sim/push", &push)["accepted"], true);
        let event = json!({ "kind": "event", "user": "alice", "event": "debug_demo" });
        assert_eq!(self.simulator("/_sim/push", &event)["accepted"], true);
        let replies = self.replies(3);
        assert_eq!(replies[1]["text"]["content"], "You wrote: again\\");
        assert_eq!(replies[1..], [replies[1].clone(), replies[1].clone()]);
    }

    fn what_a_client_claims_is_not_believed(&self) {
        let code = self.simulator("/_sim/code", &json!({ "user": "alice" }));
        let mut phone = Client::connect(self.dev.sidecar);
        let login = json!({ "code": code["code"] }).to_string();
        let session = Session::of(
            &phone
                .request("POST", "/wx/login", &[], login.as_bytes())
                .json(),
        );
        let bearer = session.bearer();
        let claim = br#"{"openData":{"phoneNumber":"13800000000"}}"#;
        let mut post = |path: &str, kind: &str| {
            let headers = [("Authorization", &*bearer), ("Content-Type", kind)];
            let answer = phone.request("POST", path, &headers, claim);
            (answer.status, answer.json())
        };
        // What is not JSON by its type the sidecar does not look into; the app must not either.
        let refused = json!({ "error": "no open data" });
        assert_eq!(post("/phone", "text/plain"), (400, refused.clone()));
        assert_eq!(post("/phone", "application/json").0, 400);
        let missing = json!({ "error": "not found" });
        assert_eq!(post("/nothing", "application/json"), (404, missing));
        // Around the sidecar, as nobody should be able to: the routes for WeChat and for ciphertext want its word.
        let mut app = Client::connect(self.app.addr());
        let direct = app.request("POST", "/phone", &[("X-WX-Open-Data", "0")], claim);
        assert_eq!((direct.status, direct.json()), (400, refused));
        let headers = [("X-WX-SOURCE", "wx_client")];
        let direct = Client::connect(self.app.addr()).request("POST", "/wx/push", &headers, b"{}");
        let expected = json!({ "error": "not from WeChat" });
        assert_eq!((direct.status, direct.json()), (403, expected));
    }

    /// What the backend has told users by customer service, once it is so many messages.
    fn replies(&self, count: usize) -> Vec<Value> {
        let all = || -> Vec<Value> {
            let requests = self.wechat.requests(1);
            let replies = requests.into_iter().filter(|it| it.target() == REPLY);
            replies
                .map(|it| serde_json::from_slice(&it.body).expect("JSON"))
                .collect()
        };
        eventually("replies are missing", || all().len() >= count);
        all()
    }

    fn alice(&self) -> Value {
        let users = self.page("/_sim/users")["users"].clone();
        let mut users = users.as_array().unwrap().iter();
        users.find(|it| it["name"] == "alice").unwrap().clone()
    }

    /// What the simulator tells.
    fn page(&self, path: &str) -> Value {
        let answer = Client::connect(self.dev.simulator).request("GET", path, &[], b"");
        answer.json()
    }

    fn simulator(&self, path: &str, order: &Value) -> Value {
        let body = order.to_string();
        let answer =
            Client::connect(self.dev.simulator).request("POST", path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

/// Every member that is expected is there, with its value or, for `"..."`, with any but null.
fn assert_has(answer: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("an object is expected") {
        let found = &answer[name];
        let same = found == value || (value == "..." && !found.is_null());
        assert!(same, "{name} of {answer} is not as in {expected}");
    }
}

/// How a backend is run, of the README's table.
fn command_of(language: &str) -> String {
    let mut lines = BACKENDS.lines();
    let row = lines.find(|line| line.starts_with(&format!("| {language} ")));
    let row = row.expect("the README has a row for the language");
    row.split('`').nth(1).expect("a command").to_owned()
}

/// What a newcomer types, and what the README says that comes.
fn newcomers_commands() -> (String, Vec<Value>) {
    let blocks = BACKENDS.split("```sh\n").skip(1);
    let blocks: Vec<_> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 2, "how to start, and what to type");
    let expected = blocks[1]
        .lines()
        .filter_map(|line| line.strip_prefix("# -> "));
    let expected: Vec<Value> = expected
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(blocks[1].matches("curl -sw").count(), expected.len());
    (blocks[1].to_owned(), expected)
}
