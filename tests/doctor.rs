//! `wx-sidecar doctor` and `check --online`: each thing that can be wrong is made wrong, and must be found, alone, with what
//! to do about it.
//!
//! The binary is what is run, against a simulator, an app and a sidecar that are really there.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{Identity, Options, Simulator};

use crate::fake_app::FakeApp;
use crate::http_client::Client;
use crate::patience::eventually;
use crate::process::{finished, write_configuration};
use crate::rig::{APPID, Rig, SECRET, canary, configuration};
use crate::tls::Authority;

const WRONG: &str = "ffffffffffffffffffffffffffffffff";
const TOKEN: &str = "canary4doctors4token";
const KEY: &str = "canaryABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789A";
/// What is said of whom the doctor has waited for in vain.
const LATE: [&str; 4] = [
    "it does not answer",
    "is not answered",
    "in time",
    "it took too long",
];
/// A name that leads nowhere, which to find out may take any time.
const NOBODY: &str = "nobody.invalid";

/// What a run found.
struct Findings {
    code: i32,
    text: String,
    checks: Vec<Value>,
}

/// Whether this is said of somebody who is there: he takes longer than the doctor waits only if the machine stands still.
fn is_late(said: &str) -> bool {
    LATE.iter().any(|word| said.contains(word)) && !said.contains(NOBODY)
}

/// A run in which everybody was heard in time.
fn heard(run: impl Fn() -> (i32, String, String)) -> (i32, String, String) {
    let mut told = (0, String::new(), String::new());
    eventually("everybody is heard in time", || {
        told = run();
        !is_late(&told.1) && !is_late(&told.2)
    });
    told
}

impl Findings {
    /// What a run found in which everybody was heard in time.
    fn of(arguments: &[&str], config: &str) -> Self {
        let path = write_configuration(config);
        let path = path.to_str().unwrap();
        let arguments = [arguments, &["-c", path, "--format", "json"]].concat();
        let mut found = None;
        eventually("everybody is heard in time", || {
            let now = Self::once(&arguments);
            let is_heard = !now.checks.iter().any(Self::is_of_a_late_one);
            found = Some(now);
            is_heard
        });
        found.unwrap()
    }

    /// A clock is told by an answer, and may seem to be off if that was late.
    fn is_of_a_late_one(check: &Value) -> bool {
        let said = format!("{} {}", check["name"], check["detail"]);
        is_late(&said) || check["name"] == "clock" && check["status"] == "warning"
    }

    fn once(arguments: &[&str]) -> Self {
        let (code, text, stderr) = finished(arguments);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{stderr}"));
        assert_eq!(json["ok"], code == 0, "{json:#}");
        for secret in [SECRET, WRONG, TOKEN, KEY] {
            assert!(!text.contains(secret), "{text}");
        }
        let checks = json["checks"].as_array().unwrap().clone();
        for check in &checks {
            let is_healthy = matches!(check["status"].as_str(), Some("ok" | "skipped"));
            assert_eq!(check["fix"].is_null(), is_healthy, "{check}");
        }
        Self { code, text, checks }
    }

    /// The one check whose name begins so.
    fn find(&self, name: &str) -> &Value {
        let is_it = |check: &&Value| check["name"].as_str().unwrap().starts_with(name);
        let found: Vec<_> = self.checks.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{name}: {}", self.text);
        found[0]
    }

    /// Asserts how it is; all of these words are in what is said of it and what is to be done.
    fn says(&self, name: &str, status: &str, words: &[&str]) {
        let check = self.find(name);
        assert_eq!(check["status"], status, "{check}");
        let said = format!("{} {}", check["detail"], check["fix"]);
        for word in words {
            assert!(said.contains(word), "{word}: {check}");
        }
    }

    /// The names of what has this status.
    fn names(&self, status: &str) -> Vec<&str> {
        let such = self.checks.iter().filter(|check| check["status"] == status);
        such.map(|check| check["name"].as_str().unwrap()).collect()
    }
}

fn doctor(config: &str) -> Findings {
    Findings::of(&["doctor"], config)
}

/// An app that answers with the head of the request, as `rendered` shows it.
fn echo(rendered: fn(&str) -> String) -> FakeApp {
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let body = match request.method() {
                "HEAD" => String::new(),
                _ => rendered(&request.head),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            connection.write(answer.as_bytes());
        }
    })
}

/// As CGI and its heirs have it: one name, the values joined.
fn folded(head: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let fold = |name: &str| name.to_ascii_uppercase().replace('-', "_");
    let values = lines.filter(|(name, _)| fold(name) == "X_WX_OPENID");
    let values: Vec<&str> = values.map(|(_, value)| value).collect();
    format!("HTTP_X_WX_OPENID={}", values.join(","))
}

fn push_section() -> String {
    canary(TOKEN);
    canary(KEY);
    format!("[push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\n")
}

/// The configuration of a sidecar that runs, with the ports that it has.
fn as_it_runs(rig: &Rig) -> String {
    let placed = |config: String, section: &str, at: String| {
        let (here, there) = (format!("[{section}]\nlisten = \"127.0.0.1:0\""), at);
        assert!(config.contains(&here), "{config}");
        config.replace(&here, &format!("[{section}]\nlisten = \"{there}\""))
    };
    let sidecar = rig.sidecar();
    let config = placed(
        rig.config().to_owned(),
        "inbound",
        sidecar.inbound_addr().to_string(),
    );
    placed(config, "admin", sidecar.admin_addr().to_string())
}

/// An address at which nobody listens: its port is held, and not listened on, for as long as this lives.
struct Nobody(
    SocketAddr,
    #[expect(dead_code, reason = "holds the port")] socket2::Socket,
);

fn nobody() -> Nobody {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    held.bind(&any.into()).unwrap();
    let addr = held.local_addr().unwrap().as_socket().unwrap();
    Nobody(addr, held)
}

#[test]
fn where_all_is_well_all_is_found_to_be() {
    let app = echo(str::to_owned);
    let route = "[[route]]\npath = \"/echo\"\nauth = \"none\"\n";
    let rig = Rig::with(&app.url(), "", &format!("{route}{}", push_section()));
    let found = Findings::of(&["doctor", "--echo", "/echo"], &as_it_runs(&rig));
    assert_eq!(found.code, 0, "{}", found.text);
    // WeChat is not spoken to in clear but in tests.
    found.says("configuration", "warning", &["is valid, with a warning"]);
    found.says("sidecar", "ok", &["ready"]);
    found.says("connection to http://127.0.0.1:", "ok", &["without TLS"]);
    found.says("clock", "ok", &["of WeChat's"]);
    found.says("appid and secret", "ok", &["access_token"]);
    found.says("egress address", "ok", &[]);
    found.says("push handshake", "ok", &["the sidecar at 127.0.0.1:"]);
    found.says("push keys", "ok", &["the key"]);
    found.says("app at http://127.0.0.1:", "ok", &["200 to HEAD /"]);
    found.says(
        "listener of http://127.0.0.1:",
        "ok",
        &["this machine alone"],
    );
    found.says("identity headers", "ok", &["another name"]);
    found.says("forged identity", "ok", &["does not get through"]);
    assert_eq!(found.names("failed"), Vec::<&str>::new());
}

#[test]
fn people_get_a_line_for_each_check_and_another_for_its_fix() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let config = rig.config().replace(SECRET, WRONG);
    let path = write_configuration(&config);
    let (code, text, _) = heard(|| finished(&["doctor", "-c", path.to_str().unwrap()]));
    assert_eq!(code, 1, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("✗ appid and secret: "));
    let fix = lines[at.expect("the secret is refused") + 1];
    assert!(fix.starts_with("  fix: compare [app] secret"), "{text}");
    assert!(
        lines.iter().any(|line| line.starts_with("✓ app at ")),
        "{text}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("- Redis: ")),
        "{text}"
    );
    assert!(
        !text.contains('\u{1b}'),
        "colours are for terminals: {text}"
    );
}

#[test]
fn a_wrong_secret_is_wrong_alone() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let found = doctor(&rig.config().replace(SECRET, WRONG));
    assert_eq!(found.names("failed"), ["appid and secret"]);
    found.says(
        "appid and secret",
        "failed",
        &["errcode 40125", "[app] secret"],
    );
    found.says("egress address", "skipped", &["not known"]);
    let found = doctor(&rig.config().replace(APPID, "wxfedcba9876543210"));
    found.says(
        "appid and secret",
        "failed",
        &["errcode 40013", "[app] appid"],
    );
}

#[test]
fn of_two_secrets_the_one_that_is_not_taken_is_named() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let one = format!("secret = \"{SECRET}\"");
    let both = format!("secret = [\"{WRONG}\", \"{SECRET}\"]");
    let found = doctor(&rig.config().replace(&one, &both));
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("appid and secret 1 of 2", "warning", &["40125", "rotation"]);
    found.says("appid and secret 2 of 2", "ok", &[]);
    found.says("egress address", "ok", &[]);
}

#[test]
fn the_address_that_wechat_does_not_let_in_is_told_with_where_to_write_it() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let order = br#"{"white_list":["10.0.0.1"]}"#;
    let ordered = Client::connect(rig.sim.addr()).request("POST", "/_sim/access", &[], order);
    assert_eq!(ordered.status, 200, "{}", ordered.text());
    let found = doctor(rig.config());
    assert_eq!(found.names("failed"), ["egress address"]);
    found.says(
        "egress address",
        "failed",
        &[
            "put 127.0.0.1 on the IP whitelist",
            "mp.weixin.qq.com",
            "errcode 40164",
        ],
    );
    found.says("appid and secret", "skipped", &["address first"]);
}

#[test]
fn what_hangs_on_an_endpoint_that_is_not_there_says_so() {
    let (app, nobody) = (FakeApp::agreeable(), nobody());
    let wechat = format!("http://{}", nobody.0);
    let found = doctor(&configuration(&wechat, &app.url(), "", ""));
    assert_eq!(found.names("failed"), [format!("connection to {wechat}")]);
    found.says("connection to", "failed", &["refused", "egress_proxy"]);
    for name in ["clock", "appid and secret", "egress address"] {
        found.says(name, "skipped", &["no endpoint"]);
    }
    // The rest is looked at all the same.
    found.says("app at", "ok", &[]);
}

#[test]
fn a_name_that_leads_nowhere_is_told_before_the_connection() {
    let app = FakeApp::agreeable();
    let found = doctor(&configuration(
        &format!("http://{NOBODY}:80"),
        &app.url(),
        "",
        "",
    ));
    found.says(&format!("DNS of {NOBODY}"), "failed", &["resolv.conf"]);
    found.says(
        &format!("connection to http://{NOBODY}:80"),
        "failed",
        &[NOBODY],
    );
}

#[test]
fn an_egress_proxy_that_is_not_there_is_what_is_told() {
    let (app, nobody) = (FakeApp::agreeable(), nobody());
    let proxy = nobody.0;
    let section = format!(
        "[wechat]\nendpoints = [\"https://api.weixin.qq.com\"]\negress_proxy = \"http://{proxy}\"\n"
    );
    let found = doctor(&configuration("", &app.url(), "", &section));
    found.says("DNS of 127.0.0.1", "skipped", &["an address"]);
    found.says(
        "connection to",
        "failed",
        &[&proxy.to_string(), "[wechat] egress_proxy"],
    );
}

#[test]
fn a_certificate_of_an_unknown_authority_is_called_that() {
    let (app, authority) = (FakeApp::agreeable(), Authority::new());
    let (certificates, key) = authority.certify("localhost");
    let identity = Identity {
        certificates,
        key: Secret::new(key),
    };
    let sim = Simulator::start(Options {
        tls: Some(identity),
        ..Options::local(AppId::parse(APPID).unwrap(), Secret::new(SECRET))
    });
    let port = sim.as_ref().unwrap().addr().port();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let section = |host: &str, more: &str| {
        let section = format!("[wechat]\nendpoints = [\"https://{host}:{port}\"]\n{more}\n");
        configuration("", &app.url(), "", &section)
    };
    let found = doctor(&section("localhost", ""));
    found.says(
        "connection to https://localhost",
        "failed",
        &["not known", "[wechat] ca_file"],
    );
    let ca_file = format!("ca_file = {:?}", ca.to_str().unwrap());
    let found = doctor(&section("localhost", &ca_file));
    found.says("connection to https://localhost", "ok", &["TLS is good"]);
    found.says("appid and secret", "ok", &[]);
    let found = doctor(&section("127.0.0.1", &ca_file));
    found.says(
        "connection to https://127.0.0.1",
        "failed",
        &["another name"],
    );
}

#[test]
fn a_clock_that_is_years_off_is_found_by_wechats_date() {
    let app = FakeApp::agreeable();
    let old = "HTTP/1.1 404 Not Found\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    let wechat = FakeApp::answering(old);
    let found = doctor(&configuration(&wechat.url(), &app.url(), "", ""));
    found.says("clock", "failed", &["ahead of WeChat's", "NTP"]);
    // It is not WeChat's way to say anything.
    found.says("appid and secret", "warning", &["404"]);
    found.says("egress address", "skipped", &[]);
}

#[test]
fn what_is_no_http_is_no_wechat() {
    let app = FakeApp::agreeable();
    let garbage = FakeApp::start(|connection| connection.write(b"220 ready\r\n"));
    let found = doctor(&configuration(&garbage.url(), &app.url(), "", ""));
    found.says(
        "connection to",
        "failed",
        &["no HTTP answer", "[wechat] endpoints"],
    );
}

#[test]
fn an_app_that_is_away_or_speaks_something_else_is_found() {
    let sim = Rig::new("http://127.0.0.1:9");
    let at = |upstream: &str| doctor(&configuration(&sim.sim.url(), upstream, "", ""));
    let nobody = nobody();
    let found = at(&format!("http://{}", nobody.0));
    found.says("app at", "failed", &["refused", "[inbound] upstream"]);
    found.says("listener of", "skipped", &["does not answer"]);
    let garbage = FakeApp::start(|connection| connection.write(b"220 ready\r\n"));
    let found = at(&garbage.url());
    found.says("app at", "failed", &["not HTTP", "HTTP/1.1"]);
    let http1 = FakeApp::agreeable();
    let found = at(&http1.url().replace("http:", "h2c:"));
    found.says("app at h2c://", "failed", &["not HTTP/2"]);
    let http2 = FakeApp::start(|connection| {
        connection.write(b"\0\0\0\x04\0\0\0\0\0");
        connection.read_to_close();
    });
    // Who says nothing for as long as the doctor waits does not speak it either.
    eventually("it speaks in time", || {
        let found = at(&http2.url().replace("http:", "h2c:"));
        found.find("app at h2c://")["status"] == "ok"
    });
    let socket = FakeApp::on_a_unix_socket(|connection| {
        while connection.read_request().is_some() {
            connection.write(crate::fake_app::OK);
        }
    });
    let found = at(&socket.url());
    found.says("app at unix:", "ok", &[]);
    found.says("listener of unix:", "ok", &["open the socket"]);
}

#[test]
fn an_app_that_folds_names_and_one_that_sees_nothing_are_told_apart() {
    let sim = Rig::new("http://127.0.0.1:9");
    let with_echo = |app: &FakeApp| {
        let config = configuration(&sim.sim.url(), &app.url(), "", "");
        Findings::of(&["doctor", "--echo", "/echo"], &config)
    };
    let found = with_echo(&echo(folded));
    assert_eq!(found.code, 0, "{}", found.text);
    found.says(
        "identity headers",
        "warning",
        &["takes X_WX_OPENID for X-WX-OPENID"],
    );
    found.says("forged identity", "skipped", &["without a token"]);
    let found = with_echo(&FakeApp::agreeable());
    found.says("identity headers", "failed", &["does not show X-WX-OPENID"]);
    let found = doctor(&configuration(
        &sim.sim.url(),
        &FakeApp::agreeable().url(),
        "",
        "",
    ));
    found.says("identity headers", "skipped", &["--echo"]);
}

#[test]
fn a_sidecar_with_another_push_token_is_told_to_read_its_configuration() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", &push_section());
    let changed = as_it_runs(&rig).replace(TOKEN, "another4token");
    let found = doctor(&changed);
    assert_eq!(found.names("failed"), ["push handshake"]);
    found.says("push handshake", "failed", &["another one", "SIGHUP"]);
    let found = doctor(rig.config());
    found.says("push handshake", "ok", &["the configuration would answer"]);
    let nobody = nobody();
    let place = |section: &str| format!("[{section}]\nlisten = \"127.0.0.1:0\"");
    let there = format!("[inbound]\nlisten = \"{}\"", nobody.0);
    let found = doctor(&rig.config().replace(&place("inbound"), &there));
    found.says("push handshake", "ok", &["it does not run"]);
}

#[test]
fn something_else_on_the_sidecars_ports_is_not_taken_for_it() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", &push_section());
    let (other, another) = (FakeApp::agreeable(), FakeApp::agreeable());
    let mut config = rig.config().to_owned();
    for (section, app) in [("inbound", &other), ("admin", &another)] {
        let place = format!("[{section}]\nlisten = \"127.0.0.1:0\"");
        let at = app.url().replace("http://", "");
        config = config.replace(&place, &format!("[{section}]\nlisten = \"{at}\""));
    }
    let found = doctor(&config);
    found.says("sidecar", "failed", &["something else listens"]);
    found.says(
        "push handshake",
        "failed",
        &["HTTP 200 and not as a sidecar"],
    );
}

#[test]
fn a_configuration_that_is_not_valid_is_all_that_is_told() {
    let found = doctor("[app]\n");
    assert_eq!(found.code, 1);
    assert_eq!(found.checks.len(), 1, "{}", found.text);
    found.says("configuration", "failed", &["not valid"]);
    let json: Value = serde_json::from_str(&found.text).unwrap();
    assert!(!json["diagnostics"].as_array().unwrap().is_empty());
}

#[test]
fn check_online_asks_wechat_and_leaves_the_app_alone() {
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let online = |config: &str| Findings::of(&["check", "--online"], config);
    let found = online(rig.config());
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("appid and secret", "ok", &[]);
    let names = found.names("ok").join(" ") + &found.names("skipped").join(" ");
    assert!(
        !names.contains("app at") && !names.contains("push"),
        "{names}"
    );
    assert_eq!(app.connections(), 0);
    let found = online(&rig.config().replace(SECRET, WRONG));
    assert_eq!(found.names("failed"), ["appid and secret"]);
    // For people all of it is on stderr, as without --online.
    let path = write_configuration(&rig.config().replace(SECRET, WRONG));
    let arguments = ["check", "--online", "-c", path.to_str().unwrap()];
    let (code, stdout, stderr) = heard(|| finished(&arguments));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("✗ appid and secret: ") && !stderr.contains(": OK"),
        "{stderr}"
    );
    let (code, stdout, _) = finished(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (0, ""));
}

#[cfg(feature = "redis")]
mod redis {
    use super::*;
    use crate::daemon::free_port;
    use crate::redis_server::Server;

    fn with_redis(app: &FakeApp, rig: &Rig, url: &str) -> Findings {
        let section = format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\n");
        let config = configuration(&rig.sim.url(), &app.url(), "", &section);
        Findings::of(&["check", "--online"], &config)
    }

    #[test]
    fn a_redis_that_forgets_is_warned_of_and_one_that_is_away_is_wrong() {
        let app = FakeApp::agreeable();
        let rig = Rig::new(&app.url());
        let good = Server::start(&[]);
        let found = with_redis(&app, &rig, &good.url());
        found.says("Redis at 127.0.0.1:", "ok", &["throws nothing away"]);
        let evicting = ["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"];
        let evicting = Server::start(&evicting);
        let found = with_redis(&app, &rig, &evicting.url());
        found.says(
            "Redis at",
            "warning",
            &["allkeys-lru", "CONFIG SET maxmemory-policy noeviction"],
        );
        assert_eq!(found.code, 0);
        let unlimited = Server::start(&["--maxmemory-policy", "volatile-ttl"]);
        let found = with_redis(&app, &rig, &unlimited.url());
        found.says("Redis at", "ok", &["volatile-ttl", "without a maxmemory"]);
        let away = format!("redis://127.0.0.1:{}", free_port());
        let found = with_redis(&app, &rig, &away);
        found.says("Redis at", "failed", &["[store] url"]);
        assert_eq!(found.names("failed").len(), 1);
    }

    #[test]
    fn a_redis_that_wants_another_password_says_so_and_the_password_is_not_shown() {
        let app = FakeApp::agreeable();
        let rig = Rig::new(&app.url());
        canary("canary-of-the-doctors-redis");
        let server = Server::with_password("canary-of-the-doctors-redis");
        let found = with_redis(&app, &rig, &server.url());
        found.says("Redis at", "ok", &[]);
        let url = server.url().replace("doctors", "other");
        let found = with_redis(&app, &rig, &url);
        found.says("Redis at", "failed", &["password"]);
        assert!(!found.text.contains("canary-of"), "{}", found.text);
    }
}

/// What listens on loopback in this file stays there: the doctor would warn of anything else.
#[test]
fn an_app_is_found_among_this_machines_listeners() {
    let rig = Rig::new("http://127.0.0.1:9");
    let app = FakeApp::agreeable();
    let found = doctor(&configuration(
        &rig.sim.url(),
        &app.url().replace("127.0.0.1", "localhost"),
        "",
        "",
    ));
    found.says(
        "listener of http://localhost:",
        "ok",
        &["this machine alone"],
    );
    // Another listener on the same port, of an address that is loopback too.
    let port = app
        .url()
        .rsplit(':')
        .next()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    let _second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let found = doctor(&configuration(&rig.sim.url(), &app.url(), "", ""));
    found.says("listener of", "ok", &["this machine alone"]);
}
