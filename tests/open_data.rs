//! Open data as phones send it and apps get it. Ciphertexts are made by a third-party library on Node, with the session_key
//! that the simulator gave out.

use std::time::Duration;

use serde_json::{Value, json};
use wx_sidecar::sim::{OpenDataKind, OpenDataOrder, UserChange};

use crate::backends::{App, Kind, Script};
use crate::fake_app::FakeApp;
use crate::http_client::Response;
use crate::patience::eventually;
use crate::rig::{self, APPID, Rig, START, Session, canary};

const LOGIN: &str = "/sns/jscode2session";
const ROUTES: &str = "[[route]]\npath = \"/api/**\"\nopen_data = true\n\
     [[route]]\npath = \"/auth/login\"\nopen_data = true\nlogin = true\n\
     [[route]]\npath = \"/open/**\"\nopen_data = true\nauth = \"none\"\n";

/// What a phone has to send.
#[derive(Clone)]
struct Ciphertext {
    data: String,
    iv: String,
    signature: String,
}

impl Ciphertext {
    fn to_json(&self) -> Value {
        json!({ "encryptedData": self.data, "iv": self.iv })
    }
}

/// Encrypts each text with the key beside it.
fn encrypt(pairs: &[(&str, &str)]) -> Vec<Ciphertext> {
    let words: Vec<&str> = pairs.iter().flat_map(|(key, text)| [*key, *text]).collect();
    let script = Script::start(Kind::Identity, "phone.js", &words);
    let line = |_| {
        let line = script.line();
        let mut words = line.split(' ').map(str::to_owned);
        let mut next = || words.next().expect("three words a line");
        Ciphertext {
            data: next(),
            iv: next(),
            signature: next(),
        }
    };
    pairs.iter().map(line).collect()
}

/// A payload with WeChat's watermark, made `age` seconds before the test's clock starts.
fn payload(members: &str, age: u64) -> String {
    let made = START.as_secs() - age;
    format!(r#"{{{members},"watermark":{{"timestamp":{made},"appid":"{APPID}"}}}}"#)
}

fn phone_payload(number: &str) -> String {
    canary(number);
    payload(
        &format!(r#""phoneNumber":"{number}","purePhoneNumber":"{number}","countryCode":"86""#),
        0,
    )
}

fn post(rig: &Rig, session: Option<&Session>, target: &str, body: &Value) -> Response {
    post_text(rig, session, target, &body.to_string())
}

fn post_text(rig: &Rig, session: Option<&Session>, target: &str, body: &str) -> Response {
    let bearer = session.map(Session::bearer).unwrap_or_default();
    let mut headers = vec![("Content-Type", "application/json; charset=utf-8")];
    if session.is_some() {
        headers.push(("Authorization", &bearer));
    }
    rig.request("POST", target, &headers, body.as_bytes())
}

/// A login with the key that WeChat has then; every login has its own.
fn login(rig: &Rig, user: &str) -> (Session, String) {
    let change = UserChange {
        rotate: true,
        ..UserChange::default()
    };
    rig.sim.change_user(user, &change);
    let session = rig.login(user);
    let key = rig.session_key(user).expect("the user has logged in");
    (session, key)
}

fn problem(answer: &Response) -> Value {
    let mut problem = answer.json();
    assert!(problem["instance"].is_string());
    problem["instance"] = Value::Null;
    problem
}

#[test]
fn every_kind_of_payload_comes_out_byte_for_byte() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (session, key) = login(&rig, "alice");
    let payloads: Vec<String> = [
        r#""openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"张三\n","gender":1,"unionId":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA""#,
        r#""phoneNumber":"+1 5550100","purePhoneNumber":"5550100","countryCode":"1""#,
        r#""openGId":"tGxxxxxxxxxxxxxxxxxxxxxxxx""#,
        r#""opengid":"t","open_single_roomid":"","group_openid":"g","chat_type":3"#,
        r#""stepInfoList":[{"timestamp":1445866601,"step":100},{"timestamp":1445876601,"step":120}]"#,
        r#""activityId":"xxx""#,
        r#""big":23637352235060880123,"float":1.0e+2"#,
    ]
    .iter()
    .map(|members| payload(members, 60))
    .collect();
    let pairs: Vec<_> = payloads.iter().map(|text| (&*key, &**text)).collect();
    for (ciphertext, text) in encrypt(&pairs).iter().zip(&payloads) {
        let answer = post(&rig, Some(&session), "/wx/open-data", &ciphertext.to_json());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.text(), text);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));

        let mut signed = ciphertext.to_json();
        signed["rawData"] = json!(text);
        signed["signature"] = json!(ciphertext.signature);
        let answer = post(&rig, Some(&session), "/wx/open-data", &signed);
        assert_eq!(answer.status, 200);
    }
    assert_eq!(app.connections(), 0);
    let ok = "wx_sidecar_decrypt_total{key_age=\"0\",result=\"ok\"}";
    assert_eq!(rig.metric(ok), 14.0);
}

#[test]
fn there_is_one_error_for_all_that_cannot_be_decrypted() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (session, key) = login(&rig, "alice");
    let good = payload("\"a\":1", 0);
    let foreign = good.replace(APPID, "wxfedcba9876543210");
    let old = payload("\"a\":1", 86_500);
    let bare = "{\"a\":1}";
    let stranger = "AAAAAAAAAAAAAAAAAAAAAA==";
    let ciphertexts = encrypt(&[
        (&key, &good),
        (&key, &foreign),
        (&key, &old),
        (&key, bare),
        (&key, "no JSON"),
        (stranger, &good),
    ]);
    let mut cases: Vec<Value> = ciphertexts[1..].iter().map(Ciphertext::to_json).collect();
    let mut unsigned = ciphertexts[0].to_json();
    unsigned["rawData"] = json!(good.replace('1', "2"));
    unsigned["signature"] = json!(ciphertexts[0].signature);
    cases.push(unsigned);
    let mut told = Vec::new();
    for case in &cases {
        let answer = post(&rig, Some(&session), "/wx/open-data", case);
        assert_eq!(answer.status, 401, "{case}");
        told.push((answer.body.len(), problem(&answer)));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    let (_, problem) = &told[0];
    assert_eq!(problem["type"], "urn:wx-sidecar:problem:decrypt-failed");
    assert_eq!(problem["hint"], "call wx.login again");
    let answer = post(&rig, Some(&session), "/wx/open-data", &cases[0]);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    let flaw = |result: &str| {
        rig.metric(&format!(
            "wx_sidecar_decrypt_total{{key_age=\"none\",result=\"{result}\"}}"
        ))
    };
    assert_eq!(flaw("watermark"), 3.0);
    assert_eq!(flaw("age"), 1.0);
    assert_eq!(flaw("signature"), 1.0);
    assert_eq!(flaw("json") + flaw("padding"), 2.0);
}

#[test]
fn what_is_no_ciphertext_is_told_and_nothing_else_happens() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let session = rig.login("alice");
    for body in [
        "",
        "[]",
        "{}",
        r#"{"encryptedData":"AAAAAAAAAAAAAAAAAAAAAA=="}"#,
        r#"{"encryptedData":"AAAA","iv":"AAAAAAAAAAAAAAAAAAAAAA=="}"#,
        r#"{"encryptedData":"AAAAAAAAAAAAAAAAAAAAAA==","iv":"AAAA"}"#,
        r#"{"encryptedData":1,"iv":2}"#,
        r#"{"iv":"a","iv":"b","encryptedData":"c"}"#,
    ] {
        for target in ["/wx/open-data", "/wx/phone"] {
            let answer = post_text(&rig, Some(&session), target, body);
            assert_eq!(answer.status, 400, "{target} {body}");
            assert_eq!(answer.json()["title"], "Bad request");
        }
    }
    let huge = format!(
        r#"{{"encryptedData":"{}","iv":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#,
        "A".repeat(600_000)
    );
    let answer = post_text(&rig, Some(&session), "/wx/open-data", &huge);
    assert_eq!(answer.status, 413);
    let answer = post(
        &rig,
        None,
        "/wx/open-data",
        &json!({ "encryptedData": "a", "iv": "b" }),
    );
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.json()["type"],
        "urn:wx-sidecar:problem:token-missing"
    );
}

#[test]
fn the_last_three_keys_of_a_user_open_and_a_fourth_does_not() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let logins: Vec<_> = (0..4).map(|_| login(&rig, "alice")).collect();
    let text = payload("\"a\":1", 0);
    let pairs: Vec<_> = logins.iter().map(|(_, key)| (&**key, &*text)).collect();
    let ciphertexts = encrypt(&pairs);
    let (newest, _) = &logins[3];
    for (ciphertext, status) in ciphertexts.iter().zip([401, 200, 200, 200]) {
        let answer = post(&rig, Some(newest), "/wx/open-data", &ciphertext.to_json());
        assert_eq!(answer.status, status);
    }
    // A session's own key is always among those that are tried.
    let (oldest, _) = &logins[0];
    let answer = post(
        &rig,
        Some(oldest),
        "/wx/open-data",
        &ciphertexts[0].to_json(),
    );
    assert_eq!(answer.status, 200);
    for age in ["0", "1", "2", "3"] {
        let series = format!("wx_sidecar_decrypt_total{{key_age=\"{age}\",result=\"ok\"}}");
        assert_eq!(rig.metric(&series), 1.0, "{age}");
    }
    // Another user's keys are not.
    let (bob, _) = login(&rig, "bob");
    let answer = post(&rig, Some(&bob), "/wx/open-data", &ciphertexts[3].to_json());
    assert_eq!(answer.status, 401);
}

#[test]
fn a_code_that_comes_along_is_exchanged_first() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (_, key) = login(&rig, "alice");
    let text = payload("\"a\":1", 0);
    // WeChat gives the same key again within its period, so the phone can encrypt before the code is exchanged.
    let ciphertext = &encrypt(&[(&key, &text)])[0];
    let mut body = ciphertext.to_json();
    let code = rig.code("alice");
    body["code"] = json!(code);
    let answer = post(&rig, None, "/wx/open-data", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text(), text);
    let session = Session::of_headers(&answer, rig.sim.openid("alice").as_str());
    assert_eq!(rig.get_as(&session, "/wx/session").status, 200);
    // What the phone number button gives is called `code`, too: with a token it does no harm.
    body["code"] = json!("0aPhoneNumbersCode");
    let answer = post(&rig, Some(&session), "/wx/open-data", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = post(&rig, None, "/wx/open-data", &body);
    assert_eq!(answer.json()["errcode"], 40029);
}

#[test]
fn a_code_is_not_spent_on_what_nobody_could_open() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let (alice, key) = login(&rig, "alice");
    let good = encrypt(&[(&key, &payload("\"a\":1", 0))])[0].to_json();
    let bad = json!({ "encryptedData": "AAAA", "iv": "AAAAAAAAAAAAAAAAAAAAAA==" });
    let code = rig.code("alice");
    let with_code = |data: &Value| {
        let mut data = data.clone();
        data["code"] = json!(code);
        data
    };
    let logins = rig.sim.calls(LOGIN);
    for (session, target, body, status) in [
        (None, "/wx/open-data", with_code(&bad), 400),
        (None, "/wx/open-data", json!({ "code": code }), 400),
        (Some(&alice), "/api/x", json!([with_code(&good), bad]), 400),
        (
            None,
            "/open/x",
            json!([with_code(&good), { "cloudID": "" }]),
            400,
        ),
        // The other one is nobody's.
        (None, "/open/x", json!([with_code(&good), good]), 401),
        (
            None,
            "/open/x",
            json!([with_code(&good), { "cloudID": "x" }]),
            401,
        ),
    ] {
        let answer = post(&rig, session, target, &body);
        assert_eq!(answer.status, status, "{target} {body}: {}", answer.text());
    }
    for (target, body) in [
        ("/wx/open-data", &bad),
        ("/wx/phone", &json!({ "cloudID": "x" })),
    ] {
        let headers = [("X-WX-Code", &*code)];
        let answer = rig.request("POST", target, &headers, body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    assert_eq!(rig.sim.calls(LOGIN), logins);
    assert_eq!(app.connections(), 0);
    let answer = post(&rig, None, "/wx/open-data", &with_code(&good));
    Session::of_headers(&answer, &alice.openid);
    assert_eq!(rig.sim.calls(LOGIN), logins + 1);
}

#[test]
fn damage_on_the_way_is_repaired() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (session, key) = login(&rig, "alice");
    let text = payload(
        "\"a\":\"long enough that there are pluses and slashes, nearly always\"",
        0,
    );
    let ciphertext = &encrypt(&[(&key, &text)])[0];
    let (data, iv) = (&ciphertext.data, &ciphertext.iv);
    for (data, iv) in [
        (data.replace('+', " "), iv.replace('+', " ")),
        (
            data.replace('+', "-").replace('/', "_"),
            iv.replace('+', "-").replace('/', "_"),
        ),
        (
            data.trim_end_matches('=').to_owned(),
            iv.trim_end_matches('=').to_owned(),
        ),
        (format!(" {data}\n"), format!("{iv}\r\n")),
    ] {
        let body = json!({ "encryptedData": data, "iv": iv });
        let answer = post(&rig, Some(&session), "/wx/open-data", &body);
        assert_eq!(answer.status, 200, "{body}");
    }
}

#[test]
fn a_body_for_the_app_has_plaintext_where_ciphertext_was() {
    for kind in Kind::ALL {
        let app = App::start(kind, None);
        let rig = Rig::with(&app.url(), "", ROUTES);
        let (session, key) = login(&rig, "alice");
        let phone = phone_payload("13800138000");
        let run = payload("\"stepInfoList\":[{\"step\":7}]", 0);
        let made = encrypt(&[(&key, &phone), (&key, &run)]);
        let body = json!({
            "a": 1,
            "detail": made[0].to_json(),
            "list": [{ "x": made[1].to_json() }],
        });
        let answer = post(&rig, Some(&session), "/api/json", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = answer.json();
        assert_eq!(got["a"], 1);
        assert_eq!(got["detail"]["openData"]["phoneNumber"], "13800138000");
        assert_eq!(got["detail"].as_object().unwrap().len(), 1);
        assert_eq!(
            got["list"][0]["x"]["openData"]["stepInfoList"][0]["step"],
            7
        );
    }
}

#[test]
fn all_other_bytes_stay_and_the_app_is_told_how_many_pieces_there_were() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let (session, key) = login(&rig, "alice");
    let text = payload("\"a\":1", 0);
    let ciphertext = &encrypt(&[(&key, &text)])[0];
    let before = format!(
        "{{ \"n\": 12345678901234567890.10 ,\r\n \"encryptedData\" : \"{}\", \"é\":\"\\u00e9\",\"iv\":\"{}\"}}\n",
        ciphertext.data, ciphertext.iv
    );
    let after = format!(
        "{{ \"n\": 12345678901234567890.10 ,\r\n \"openData\":{text}, \"é\":\"\\u00e9\"}}\n"
    );
    assert_eq!(
        post_text(&rig, Some(&session), "/api/x", &before).status,
        200
    );
    let request = app.only_request();
    assert_eq!(String::from_utf8_lossy(&request.body), after);
    assert_eq!(request.header("x-wx-open-data"), Some("1"));
    assert_eq!(
        request.header("content-length"),
        Some(&*after.len().to_string())
    );

    assert_eq!(
        post_text(&rig, Some(&session), "/api/x", "{\"plain\": [1,2]}").status,
        200
    );
    let request = &app.requests(2)[1];
    assert_eq!(request.body, b"{\"plain\": [1,2]}");
    assert_eq!(request.header("x-wx-open-data"), Some("0"));
}

#[test]
fn other_content_types_are_not_looked_into_and_nobody_says_so() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let session = rig.login("alice");
    let bearer = session.bearer();
    let forged = br#"{"openData":{"phoneNumber":"1"}}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ] {
        let headers = [
            ("Authorization", &*bearer),
            ("Content-Type", kind),
            ("X-WX-Open-Data", "1"),
            ("X_WX_Open_Data", "1"),
        ];
        assert_eq!(rig.request("POST", "/api/x", &headers, forged).status, 200);
    }
    for request in app.requests(3) {
        assert_eq!(request.body, forged);
        assert!(
            !request
                .head
                .to_lowercase()
                .replace('_', "-")
                .contains("open-data"),
            "{}",
            request.head
        );
    }
}

#[test]
fn a_client_cannot_say_what_was_decrypted() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let session = rig.login("alice");
    for body in [
        r#"{"openData":{"phoneNumber":"1"}}"#,
        r#"{"a":[{"OpenData":1}]}"#,
        r#"{"o\u0070enData":1}"#,
        r#"{"cloudID":"x","data":{"phoneNumber":"1"}}"#,
        "not JSON",
        "{\"a\":1}}",
    ] {
        let answer = post_text(&rig, Some(&session), "/api/x", body);
        assert_eq!(answer.status, 400, "{body}");
    }
    let bearer = session.bearer();
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", "application/vnd.api+json"),
        ("Content-Encoding", "gzip"),
    ];
    let answer = rig.request("POST", "/api/x", &headers, b"\x1f\x8b");
    assert_eq!(answer.status, 415);
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_request_whose_data_cannot_be_decrypted_does_not_reach_the_app() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "body_limit = \"2KiB\"", ROUTES);
    let (session, key) = login(&rig, "alice");
    let text = payload("\"a\":1", 0);
    let made = encrypt(&[(&key, &text), ("AAAAAAAAAAAAAAAAAAAAAA==", &text)]);
    let both = json!([made[0].to_json(), made[1].to_json()]);
    let answer = post(&rig, Some(&session), "/api/x", &both);
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.json()["type"],
        "urn:wx-sidecar:problem:decrypt-failed"
    );
    // Nobody's data.
    assert_eq!(post(&rig, None, "/open/x", &made[0].to_json()).status, 401);
    let large = json!({ "fill": "x".repeat(3000) });
    assert_eq!(post(&rig, Some(&session), "/api/x", &large).status, 413);
    assert_eq!(app.connections(), 0);
}

#[test]
fn the_apps_own_login_may_bring_open_data() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let (_, key) = login(&rig, "alice");
    let text = payload("\"nickName\":\"A\"", 0);
    let mut body = encrypt(&[(&key, &text)])[0].to_json();
    body["code"] = json!(rig.code("alice"));
    let answer = post(&rig, None, "/auth/login", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    Session::of_headers(&answer, rig.sim.openid("alice").as_str());
    let request = app.only_request();
    let openid = rig.sim.openid("alice");
    assert_eq!(request.header("x-wx-openid"), Some(openid.as_str()));
    let got: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(got["openData"]["nickName"], "A");
    assert_eq!(got["code"], body["code"]);
    // On a route for anybody the code says whose the data is, and no more.
    body["code"] = json!(rig.code("alice"));
    assert_eq!(post(&rig, None, "/open/x", &body).status, 200);
    let request = &app.requests(2)[1];
    assert_eq!(request.header("x-wx-openid"), None);
    // Another user's code is not the token's user's.
    let bob = rig.login("bob");
    body["code"] = json!(rig.code("alice"));
    assert_eq!(post(&rig, Some(&bob), "/api/x", &body).status, 400);
}

#[test]
fn a_phone_number_is_decrypted() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (session, key) = login(&rig, "alice");
    let made = encrypt(&[
        (&key, &phone_payload("13800138001")),
        (&key, &payload("\"a\":1", 0)),
    ]);
    let answer = post(&rig, Some(&session), "/wx/phone", &made[0].to_json());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let phone = answer.json();
    assert_eq!(phone["phoneNumber"], "13800138001");
    assert_eq!(phone["countryCode"], "86");
    assert_eq!(phone["watermark"]["appid"], APPID);
    let answer = post(&rig, Some(&session), "/wx/phone", &made[1].to_json());
    assert_eq!(answer.status, 400);
}

#[test]
fn the_seed_demos_clients_find_their_paths() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let (_, key) = login(&rig, "alice");
    let user = format!("/wx/user/{APPID}");
    let code = rig.code("alice");
    let answer = rig.request("GET", &format!("{user}/login?code={code}"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().to_lowercase().contains("session_key"));
    assert!(!answer.text().to_lowercase().contains("sessionkey"));
    let session = Session::of(&answer.json());
    let text = payload("\"nickName\":\"张\"", 0);
    let made = encrypt(&[(&key, &text), (&key, &phone_payload("13800138002"))]);
    let query = |made: &Ciphertext| {
        let escape = |text: &str| text.replace('+', "%2B").replace('=', "%3D");
        let (data, iv) = (escape(&made.data), escape(&made.iv));
        format!("sessionKey=whatever&encryptedData={data}&iv={iv}")
    };
    let answer = rig.get_as(&session, &format!("{user}/info?{}", query(&made[0])));
    assert_eq!((answer.status, answer.text()), (200, &*text));
    let answer = rig.get_as(&session, &format!("{user}/phone?{}", query(&made[1])));
    assert_eq!(answer.json()["purePhoneNumber"], "13800138002");
    // A HEAD would spend the code for nothing.
    let (logins, code) = (rig.sim.calls(LOGIN), rig.code("alice"));
    let phone_code = rig.sim.issue_phone_code("alice");
    canary(&phone_code);
    for (path, code) in [("login", &code), ("info", &code), ("phone", &phone_code)] {
        let bearer = session.bearer();
        let headers = [("Authorization", &*bearer)];
        let target = format!("{user}/{path}?code={code}");
        let answer = rig.request("HEAD", &target, &headers, b"");
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), Some("GET"), "{path}");
    }
    assert_eq!(rig.sim.calls(LOGIN), logins);
    assert_eq!(rig.sim.calls("/wxa/business/getuserphonenumber"), 0);
    assert_eq!(rig.login_with(&code).status, 200);
    // A session_key is no way in.
    let target = format!("{user}/info?{}", query(&made[0]));
    assert_eq!(rig.request("GET", &target, &[], b"").status, 401);
    let answer = rig.request("GET", "/wx/user/wxfedcba9876543210/login?code=x", &[], b"");
    assert_eq!(answer.status, 404);
    assert_eq!(
        rig.request("GET", &format!("{user}/login"), &[], b"")
            .status,
        400
    );
    assert_eq!(app.connections(), 0);
}

#[test]
fn an_old_ciphertext_is_refused_unless_any_age_will_do() {
    let app = FakeApp::agreeable();
    for (max_age, status) in [("1d", 401), ("2d", 200), ("none", 200)] {
        let rig = Rig::with(
            &app.url(),
            "",
            &format!("[open_data]\nmax_age = \"{max_age}\"\n"),
        );
        let (session, key) = login(&rig, "alice");
        let made = encrypt(&[(&key, &payload("\"a\":1", 100_000))]);
        let answer = post(&rig, Some(&session), "/wx/open-data", &made[0].to_json());
        assert_eq!(answer.status, status, "{max_age}");
    }
}

#[test]
fn an_app_that_wants_proof_can_verify_it() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", "[session]\nassertion = true\n");
    let session = rig.login("alice");
    let headers = [
        ("Authorization", &*session.bearer()),
        ("X-WX-Assertion", "forged"),
    ];
    assert_eq!(rig.request("GET", "/a", &headers, b"").status, 200);
    let request = app.only_request();
    let assertion = request
        .header("x-wx-assertion")
        .expect("there is one")
        .to_owned();
    assert_eq!(
        request
            .head
            .to_lowercase()
            .matches("x-wx-assertion")
            .count(),
        1
    );
    canary(&assertion);
    let asked = rig.get_as(&session, "/wx/verify");
    assert!(
        asked
            .header("x-wx-assertion")
            .is_some_and(|other| other != assertion)
    );
    let url = format!("http://{}/wx/jwks.json", rig.address());
    let verify = |audience: &str, at: u64| -> Value {
        let at = at.to_string();
        let mut verified = Value::Null;
        // The library waits for the keys for five seconds, which a busy machine may take.
        eventually("the keys come in time", || {
            let script = Script::start(
                Kind::Identity,
                "verify.js",
                &[&url, audience, &assertion, &at],
            );
            verified = serde_json::from_str(&script.line()).unwrap();
            verified["error"] != "ERR_JWKS_TIMEOUT"
        });
        verified
    };
    let now = START.as_millis();
    let verified = verify(APPID, now + 1000);
    assert_eq!(
        verified["payload"]["sub"],
        json!(session.openid),
        "{verified}"
    );
    assert_eq!(verified["protectedHeader"]["alg"], "EdDSA");
    assert_eq!(verify(APPID, now + 61_000)["error"], "ERR_JWT_EXPIRED");
    assert_eq!(
        verify("wxfedcba9876543210", now)["error"],
        "ERR_JWT_CLAIM_VALIDATION_FAILED"
    );

    let plain = Rig::new(&app.url());
    let answer = plain.request("GET", "/wx/jwks.json", &[], b"");
    assert_eq!(answer.status, 404);
}

#[test]
fn a_day_more_or_less_on_the_clock_of_tokens_is_survived() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let session = rig.login("alice");
    rig.advance(Duration::from_secs(86_400));
    // An access token is out, as it should be; the user is not.
    assert_eq!(rig.get_as(&session, "/a").status, 401);
    let answer = rig.refresh(&session.refresh);
    assert_eq!(answer.status, 200);
    let session = Session::of(&answer.json());
    assert_eq!(rig.get_as(&session, "/a").status, 200);
    // A replica whose clock is a day behind takes what this one gave out.
    let behind = rig::start(rig.config(), &wx_sidecar::clock::Clock::manual(START));
    let mut client = crate::http_client::Client::connect(behind.inbound_addr());
    let headers = [("Authorization", &*session.bearer())];
    assert_eq!(client.request("GET", "/a", &headers, b"").status, 200);
}

fn order(user: &str, kind: OpenDataKind) -> OpenDataOrder {
    OpenDataOrder::new(user, kind)
}

#[test]
fn a_phone_number_by_code_is_told_as_one_that_is_decrypted() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let session = rig.login("alice");
    let number = rig.sim.phone_number("alice");
    canary(&number);
    let code = rig.sim.issue_phone_code("alice");
    let by_code = post(&rig, Some(&session), "/wx/phone", &json!({ "code": code }));
    assert_eq!(by_code.status, 200, "{}", by_code.text());
    let made = rig
        .sim
        .encrypt(&order("alice", OpenDataKind::Phone))
        .unwrap();
    let body = json!({ "encryptedData": made.encrypted_data, "iv": made.iv });
    let decrypted = post(&rig, Some(&session), "/wx/phone", &body);
    assert_eq!(by_code.json(), decrypted.json());
    assert_eq!(by_code.json()["purePhoneNumber"], json!(number));
    // With cloud development there is a cloudID beside it.
    let both = serde_json::to_value(&made).unwrap();
    assert!(both["cloudID"].is_string());
    let answer = post(&rig, Some(&session), "/wx/phone", &both);
    assert_eq!(answer.json(), by_code.json());
    // The phone sends all that the button gave; the code is used, and only once.
    let mut all = body;
    all["code"] = json!(rig.sim.issue_phone_code("alice"));
    let answer = post(&rig, Some(&session), "/wx/phone", &all);
    assert_eq!(answer.status, 200);
    let again = post(&rig, Some(&session), "/wx/phone", &all);
    assert_eq!(
        (again.status, again.json()["errcode"].as_i64()),
        (401, Some(40029))
    );
    // Another user's code is no good, and without a token nobody is asked.
    let code = json!({ "code": rig.sim.issue_phone_code("bob") });
    let problem = post(&rig, Some(&session), "/wx/phone", &code).problem(400, "wechat-refused");
    assert_eq!(problem["errcode"], 40003);
    for member in ["detail", "hint"] {
        let text = problem[member].as_str().unwrap();
        assert!(text.contains("another user's"), "{text}");
    }
    assert_eq!(post(&rig, None, "/wx/phone", &code).status, 401);
    // What is missing is what a phone number can come from.
    let problem = post(&rig, Some(&session), "/wx/phone", &json!({})).problem(400, "bad-request");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("`code`") && !detail.contains("cloudID"),
        "{detail}"
    );
}

#[test]
fn a_cloud_id_is_exchanged_where_it_stands() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", ROUTES);
    let session = rig.login("alice");
    let run = rig
        .sim
        .encrypt(&order("alice", OpenDataKind::WeRun))
        .unwrap();
    let user = rig
        .sim
        .encrypt(&order("alice", OpenDataKind::UserInfo))
        .unwrap();
    let asked = json!({ "cloudID": run.cloud_id });
    let answer = post(&rig, Some(&session), "/wx/open-data", &asked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["stepInfoList"].is_array());

    let body = json!({ "run": { "cloudID": run.cloud_id }, "who": [{ "cloudID": user.cloud_id }] });
    let calls = rig.sim.calls("/wxa/getopendata");
    assert_eq!(post(&rig, Some(&session), "/api/x", &body).status, 200);
    assert_eq!(
        rig.sim.calls("/wxa/getopendata"),
        calls + 1,
        "one call for all"
    );
    let request = app.only_request();
    let got: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(got["run"]["data"]["stepInfoList"].is_array());
    assert_eq!(got["run"]["cloudID"], json!(run.cloud_id));
    assert!(got["who"][0]["data"]["nickName"].is_string());
    assert_eq!(request.header("x-wx-open-data"), Some("2"));
    // Another user's, or an old one, is refused, and the app sees nothing.
    let bob = rig.login("bob");
    assert_ne!(post(&rig, Some(&bob), "/api/x", &body).status, 200);
    rig.advance(Duration::from_secs(301));
    let answer = post(&rig, Some(&session), "/api/x", &body);
    assert_eq!(answer.json()["errcode"], -601_006, "{}", answer.text());
    assert_eq!(app.requests(1).len(), 1);
}

#[tokio::test]
async fn the_library_signs_checks_and_resets_for_a_user_who_has_logged_in() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let openid = rig.sim.openid("alice");
    let sidecar = rig.sidecar();
    assert_eq!(sidecar.check_session_key(&openid).await.unwrap(), None);
    assert!(!sidecar.reset_session_key(&openid).await.unwrap());
    let session = rig.login("alice");
    let key = rig.session_key("alice").unwrap();
    assert_eq!(
        sidecar.check_session_key(&openid).await.unwrap(),
        Some(true)
    );
    let user = sidecar.verify(&session.access).unwrap();
    assert_eq!(user.openid, openid);
    assert!(sidecar.verify(&session.refresh).is_err());
    let before = sidecar.session_signature(&openid, b"{}").await.unwrap();

    assert!(sidecar.reset_session_key(&openid).await.unwrap());
    let reset = rig.session_key("alice").unwrap();
    assert_ne!(reset, key);
    assert_eq!(
        sidecar.check_session_key(&openid).await.unwrap(),
        Some(true)
    );
    assert_ne!(
        sidecar.session_signature(&openid, b"{}").await.unwrap(),
        before
    );
    // Both keys decrypt: the phone may have encrypted before.
    let text = payload("\"a\":1", 0);
    for made in encrypt(&[(&key, &text), (&reset, &text)]) {
        let answer = post(&rig, Some(&session), "/wx/open-data", &made.to_json());
        assert_eq!(answer.status, 200);
    }
}

/// A store in Redis, which is waited for as long as can be.
#[cfg(feature = "redis")]
fn store(server: &crate::redis_server::Server) -> String {
    let url = server.url();
    format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\ntimeout = \"1s\"\n")
}

/// As [`login`], and Redis has the key: if a busy machine keeps it longer than it is waited for, there is no login, or one
/// that Redis has missed a part of.
#[cfg(feature = "redis")]
fn login_in_redis(rig: &Rig, user: &str) -> (Session, String) {
    let kept =
        || rig.metric("wx_sidecar_store_requests_total{operation=\"remember_key\",result=\"ok\"}");
    let change = UserChange {
        rotate: true,
        ..UserChange::default()
    };
    let mut session = None;
    eventually("Redis takes part in a login", || {
        // While it is away a login would be refused at once, and refusals count as logins do.
        if rig.metric("wx_sidecar_store_up") != 1.0 {
            return false;
        }
        let before = kept();
        rig.sim.change_user(user, &change);
        let answer = rig.login_with(&rig.code(user));
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        let is_whole = answer.status == 200 && kept() > before;
        session = is_whole.then(|| Session::of(&answer.json()));
        is_whole
    });
    let key = rig.session_key(user).expect("the user has logged in");
    (session.expect("it is whole"), key)
}

#[cfg(feature = "redis")]
#[test]
fn what_wechat_opens_needs_no_keys_from_the_store() {
    use crate::redis_server::Server;

    let mut server = Server::start(&[]);
    let app = FakeApp::agreeable();
    let store = store(&server);
    let rig = Rig::with(&app.url(), "", &format!("{ROUTES}{store}"));
    let is_up = |up: f64| {
        eventually("the store is so", || {
            rig.metric("wx_sidecar_store_up") == up
        });
    };
    is_up(1.0);
    let (session, key) = login_in_redis(&rig, "alice");
    server.process.kill();
    is_up(0.0);
    let cloud = rig
        .sim
        .encrypt(&order("alice", OpenDataKind::WeRun))
        .unwrap();
    let cloud = json!({ "cloudID": cloud.cloud_id });
    canary(&rig.sim.phone_number("alice"));
    let code = rig.sim.issue_phone_code("alice");
    canary(&code);
    let phone = json!({ "code": code });
    for (target, body) in [
        ("/wx/phone", &phone),
        ("/wx/open-data", &cloud),
        ("/api/x", &cloud),
    ] {
        let answer = post(&rig, Some(&session), target, body);
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
    let asked_in_vain = "wx_sidecar_store_rings_degraded_total";
    assert_eq!(rig.metric(asked_in_vain), 0.0);
    let made = encrypt(&[(&key, &payload("\"a\":1", 0))])[0].to_json();
    assert_eq!(
        post(&rig, Some(&session), "/wx/open-data", &made).status,
        200
    );
    assert_eq!(rig.metric(asked_in_vain), 1.0);
}

#[cfg(feature = "redis")]
#[test]
fn replicas_before_node_and_python_decrypt_with_keys_of_logins_elsewhere() {
    use crate::http_client::Client;
    use crate::redis_server::Server;

    let mut server = Server::start(&[]);
    let (express, flask) = (
        App::start(Kind::Express, None),
        App::start(Kind::Flask, None),
    );
    let store = store(&server);
    let rig = Rig::with(&express.url(), "", &format!("{ROUTES}{store}"));
    let before_flask = rig.config_with(&express.url(), &flask.url());
    let second = rig::start(&before_flask, &rig.clock);
    let third = rig.replica();
    let up = |sidecar: &wx_sidecar::Sidecar, word: &str| {
        let admin = &sidecar.admin_addr();
        eventually("the store is as it should be", || {
            let page = Client::connect(admin).request("GET", "/readyz?verbose", &[], b"");
            page.text().contains(word)
        });
    };
    for sidecar in [rig.sidecar(), &second, &third] {
        up(sidecar, "[+]store ok");
    }
    // Two logins on the first replica; the phone has encrypted with the key of the first one.
    let (_, old) = login_in_redis(&rig, "alice");
    let (session, new) = login_in_redis(&rig, "alice");
    let text = phone_payload("13800138009");
    let made = encrypt(&[(&old, &text), (&new, &text)]);
    let ask = |sidecar: &wx_sidecar::Sidecar, target: &str, body: &str| {
        let headers = [
            ("Authorization", &*session.bearer()),
            ("Content-Type", "application/json"),
        ];
        Client::connect(sidecar.inbound_addr()).request("POST", target, &headers, body.as_bytes())
    };
    for sidecar in [&second, &third] {
        for ciphertext in &made {
            let body = json!({ "detail": ciphertext.to_json() }).to_string();
            let mut got = Value::Null;
            // If Redis keeps the sidecar waiting there is the token's own key alone.
            eventually("Redis gives the keys", || {
                let answer = ask(sidecar, "/api/json", &body);
                assert!(matches!(answer.status, 200 | 401), "{}", answer.text());
                got = answer.json();
                answer.status == 200
            });
            assert_eq!(got["detail"]["openData"]["phoneNumber"], "13800138009");
        }
    }
    // Without Redis there is the token's own key.
    server.process.kill();
    for sidecar in [&second, &third] {
        up(sidecar, "[i]store is away");
    }
    let statuses: Vec<_> = made
        .iter()
        .map(|made| ask(&second, "/wx/open-data", &made.to_json().to_string()).status)
        .collect();
    assert_eq!(statuses, [401, 200]);
    assert_eq!(ask(&second, "/wx/logout", "").status, 503);
    server.restart();
    // A replica that Redis keeps waiting has ended the session for itself alone, and then another one is asked; it may have
    // reached Redis all the same.
    let (mut told, mut turns) = (third, 0);
    eventually("the others are told", || {
        up(&told, "[+]store ok");
        let answer = ask(&told, "/wx/logout", "");
        let is_told = answer.status == 204 || (answer.status == 401 && turns > 0);
        assert!(is_told || answer.status == 503, "{}", answer.text());
        turns += 1;
        if !is_told {
            told = rig.replica();
        }
        is_told
    });
    eventually("the logout is felt on all", || {
        ask(&second, "/wx/open-data", &made[1].to_json().to_string()).status == 401
            && ask(rig.sidecar(), "/api/json", "{}").status == 401
    });
}
