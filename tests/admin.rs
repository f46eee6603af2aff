//! The admin side over real connections: what is for everybody, what is not, and that nothing secret is in any answer.

use wx_sidecar::clock::Clock;
use wx_sidecar::{Config, Sidecar};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::rig::{self, canary, replaced};

const TOKEN: &str = "canary-admin-t0ken-81";
const OLD_TOKEN: &str = "canary-admin-t0ken-80";
/// What probes and Prometheus ask for.
const OPEN: [&str; 5] = ["/", "/livez", "/healthz", "/readyz?verbose", "/metrics"];
/// What is for whoever may, and what each says to him: there is no `[push]`, and no file that is followed.
const GUARDED: [(&str, &str, u16); 6] = [
    ("GET", "/config", 200),
    ("POST", "/reload", 409),
    ("GET", "/push/dead-letters", 404),
    ("POST", "/push/dead-letters/replay", 404),
    ("DELETE", "/push/inbox/x", 404),
    ("GET", "/no-such-page", 404),
];

/// A sidecar whose admin side listens at some address, with more lines in `[admin]`.
fn sidecar(address: &str, more: &str) -> Sidecar {
    let text = rig::configuration("https://127.0.0.1:1", "http://127.0.0.1:1", "", "");
    let text = replaced(
        &text,
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"{address}:0\"\n{more}"),
    );
    rig::start(&text, &Clock::System)
}

fn ask(sidecar: &Sidecar, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let addr = sidecar.admin_addr().to_string();
    let (_, port) = addr.rsplit_once(':').expect("a port");
    Client::connect(format!("127.0.0.1:{port}")).request(method, target, headers, b"")
}

fn all_open(sidecar: &Sidecar, headers: &[(&str, &str)]) {
    for target in OPEN {
        assert_eq!(ask(sidecar, "GET", target, headers).status, 200, "{target}");
    }
}

fn all_guarded(sidecar: &Sidecar, headers: &[(&str, &str)], status: Option<u16>) -> Vec<Response> {
    let answers = GUARDED.iter().map(|(method, target, usual)| {
        let answer = ask(sidecar, method, target, headers);
        let expected = status.unwrap_or(*usual);
        assert_eq!(answer.status, expected, "{method} {target} {headers:?}");
        answer
    });
    answers.collect()
}

#[test]
fn on_this_machine_all_is_there_and_for_pages_of_others_nothing_but_probes() {
    let sidecar = sidecar("127.0.0.1", "");
    all_open(&sidecar, &[]);
    all_guarded(&sidecar, &[], None);
    for page in [
        [("Origin", "https://evil.example")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Host", "evil.example")],
    ] {
        all_open(&sidecar, &page);
        for answer in all_guarded(&sidecar, &page, Some(403)) {
            assert!(answer.header("access-control-allow-origin").is_none());
        }
    }
}

#[test]
fn from_other_machines_there_is_nothing_but_probes_unless_a_token_is_shown() {
    for token in [TOKEN, OLD_TOKEN] {
        canary(token);
    }
    let open = sidecar("0.0.0.0", "");
    all_open(&open, &[]);
    for answer in all_guarded(&open, &[], Some(403)) {
        assert!(answer.text().contains("set a token in [admin]"));
    }
    let tokens = format!("token = [\"{TOKEN}\", \"{OLD_TOKEN}\"]");
    for address in ["0.0.0.0", "127.0.0.1"] {
        let guarded = sidecar(address, &tokens);
        all_open(&guarded, &[]);
        for answer in all_guarded(&guarded, &[], Some(401)) {
            assert!(answer.header("www-authenticate").is_some());
        }
        for token in [TOKEN, OLD_TOKEN] {
            let shown = format!("Bearer {token}");
            let headers = [
                ("Authorization", shown.as_str()),
                ("Host", "admin.internal"),
            ];
            all_guarded(&guarded, &headers, None);
            let page = ask(&guarded, "GET", "/config", &headers);
            assert!(!page.text().contains("canary-admin"), "{}", page.text());
        }
    }
}

#[test]
fn only_what_reads_is_answered_where_there_is_only_something_to_read() {
    let sidecar = sidecar("127.0.0.1", "");
    for target in OPEN.into_iter().chain(["/config"]) {
        let answer = ask(&sidecar, "POST", target, &[]);
        assert_eq!(answer.status, 405, "{target}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    let answer = ask(&sidecar, "GET", "/reload", &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

/// What the app gets at the inbound side is the app's.
#[test]
fn the_admin_sides_pages_are_nowhere_else() {
    let app = FakeApp::agreeable();
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", "");
    let sidecar = rig::start(&text, &Clock::System);
    for target in ["/metrics", "/config", "/reload"] {
        let answer = Client::connect(sidecar.inbound_addr()).request("GET", target, &[], b"");
        assert_eq!(answer.status, 200, "the app answers");
    }
    assert_eq!(app.targets(), ["/metrics", "/config", "/reload"]);
}

#[test]
fn what_is_in_use_is_told_also_if_it_came_from_no_file() {
    let text = rig::configuration("https://127.0.0.1:1", "http://127.0.0.1:1", "", "");
    let loaded =
        Config::parse(&text, "text", &|_| None).unwrap_or_else(|report| panic!("{report}"));
    let sidecar = Sidecar::start(loaded.config).unwrap();
    let config = || ask(&sidecar, "GET", "/config", &[]).json();
    assert!(config()["config"].is_null());
    sidecar.describe(&loaded.effective);
    let told = config()["config"].to_string();
    assert!(told.contains(rig::APPID), "{told}");
    assert!(!told.contains(rig::SECRET), "{told}");
    let page = ask(&sidecar, "GET", "/metrics", &[]);
    assert!(page.text().contains("wx_sidecar_config_hash_info{hash="));
}
