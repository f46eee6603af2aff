//! What most tests stand on: a simulator of WeChat and a sidecar in this process, on ports of their own.
//!
//! Everything that the sidecars of the test run log goes to a file that `tests/secrets.rs` reads afterwards, and every
//! secret value that a test gets hold of is written down beside it: none may be found in any output.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use serde_json::Value;
use wx_sidecar::clock::{Clock, Timestamp};
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{Options, SimApp, Simulator};
use wx_sidecar::{Config, Sidecar};

use crate::http_client::{Client, Response};

pub(crate) const APPID: &str = "wx0123456789abcdef";
/// Found in an output, it is an incident.
pub(crate) const SECRET: &str = "ca9a41ca9a41ca9a41ca9a41ca9a4100";
/// Where a manual clock starts.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A simulator and a sidecar in front of one app. At its end the session keys of all users become canaries.
pub(crate) struct Rig {
    pub(crate) sim: Simulator,
    pub(crate) clock: Clock,
    config: String,
    sidecar: Option<Sidecar>,
}

/// What a login gave.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) openid: String,
}

impl Rig {
    /// A sidecar in front of `upstream` (`http://...` or `unix:...`), otherwise with short timeouts and defaults.
    pub(crate) fn new(upstream: &str) -> Self {
        Self::with(upstream, "", "")
    }

    /// As [`Rig::new`], with more lines for `[inbound]` and more sections after it.
    pub(crate) fn with(upstream: &str, inbound: &str, sections: &str) -> Self {
        log_to_file();
        let clock = Clock::manual(START);
        let sim = simulator(clock.clone());
        let config = configuration(&sim.url(), upstream, inbound, sections);
        canary(SECRET);
        let sidecar = Some(start(&config, &clock));
        Self {
            sim,
            clock,
            config,
            sidecar,
        }
    }

    pub(crate) fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().expect("the sidecar runs")
    }

    /// Another sidecar of the same Mini Program: a replica, or the next process after a restart.
    pub(crate) fn replica(&self) -> Sidecar {
        start(&self.config, &self.clock)
    }

    /// Ends the sidecar and starts another with the same configuration; its port is a new one.
    pub(crate) fn restart(&mut self) {
        drop(self.sidecar.take());
        self.sidecar = Some(start(&self.config, &self.clock));
    }

    /// The configuration as TOML, for a test that wants to change it.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// The configuration with something else in the place of what is there.
    pub(crate) fn config_with(&self, old: &str, new: &str) -> String {
        replaced(&self.config, old, new)
    }

    /// Has the sidecar read its configuration again, changed like that.
    pub(crate) fn reload(&self, old: &str, new: &str) {
        let config = Config::from_toml(&self.config_with(old, new)).unwrap();
        self.sidecar().reload(config).unwrap();
    }

    /// Where the sidecar listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let mut addresses = self.sidecar().inbound_addr().to_socket_addrs().unwrap();
        addresses.next().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.sidecar().inbound_addr())
    }

    /// A request on a connection of its own.
    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.client().request(method, target, headers, body)
    }

    /// A client of the outbound listener, as the app is one.
    pub(crate) fn app(&self) -> Client {
        let place = self.sidecar().outbound_addr();
        Client::connect(place.expect("the sidecar takes the app's calls"))
    }

    /// A call of the app's to WeChat, on a connection of its own.
    pub(crate) fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.app().request(method, target, headers, body)
    }

    /// A page of the admin side. It is an output like the log.
    pub(crate) fn admin(&self, target: &str) -> Response {
        admin_page(self.sidecar().admin_addr(), target)
    }

    /// A code for `user`, as `wx.login` gives it.
    pub(crate) fn code(&self, user: &str) -> String {
        let code = self.sim.issue_code(user);
        canary(&code);
        code
    }

    /// Logs `user` in.
    pub(crate) fn login(&self, user: &str) -> Session {
        let answer = self.login_with(&self.code(user));
        assert_eq!(answer.status, 200, "{}", answer.text());
        Session::of(&answer.json())
    }

    /// Posts a code to `/wx/login`.
    pub(crate) fn login_with(&self, code: &str) -> Response {
        let body = serde_json::json!({ "code": code }).to_string();
        granted(self.request("POST", "/wx/login", &[], body.as_bytes()))
    }

    /// Posts a refresh token to `/wx/refresh`.
    pub(crate) fn refresh(&self, token: &str) -> Response {
        let body = serde_json::json!({ "refresh_token": token }).to_string();
        granted(self.request("POST", "/wx/refresh", &[], body.as_bytes()))
    }

    /// A GET with an access token.
    pub(crate) fn get_as(&self, session: &Session, target: &str) -> Response {
        self.request("GET", target, &[("Authorization", &session.bearer())], b"")
    }

    /// Turns the clock that sidecar and simulator share.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// The session_key that WeChat last gave out for `user`, in base64; `None` before the first login.
    pub(crate) fn session_key(&self, user: &str) -> Option<String> {
        let keys = self.session_keys();
        keys.into_iter()
            .find_map(|(name, key)| (name == user).then_some(key))
    }

    /// The session keys of all users who have logged in, by their names.
    fn session_keys(&self) -> Vec<(String, String)> {
        let Ok(mut client) = Client::try_connect(self.sim.addr()) else {
            return Vec::new();
        };
        let page = client
            .request("GET", "/_sim/users?reveal=1", &[], b"")
            .json();
        let users = page["users"]
            .as_array()
            .expect("the simulator lists its users");
        let key = |user: &Value| {
            let name = user["name"].as_str()?.to_owned();
            let key = user["apps"][0]["session_key"].as_str()?.to_owned();
            canary(&key);
            Some((name, key))
        };
        users.iter().filter_map(key).collect()
    }

    /// The value of a series on `/metrics`, such as `wx_sidecar_login_total{result="ok"}`; 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric_at(self.sidecar().admin_addr(), series)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Reading them makes them canaries. A test that fails already must not panic once more.
        if !std::thread::panicking() {
            self.session_keys();
        }
    }
}

impl Session {
    /// From the headers that an answer gains when the client was logged in on the way.
    pub(crate) fn of_headers(answer: &Response, openid: &str) -> Self {
        let text = |name| {
            let value = answer.header(name);
            value.expect("the answer brings tokens").to_owned()
        };
        let session = Self {
            access: text("X-WX-Access-Token"),
            refresh: text("X-WX-Refresh-Token"),
            openid: openid.to_owned(),
        };
        canary(&session.access);
        canary(&session.refresh);
        keep("openids", openid);
        session
    }

    pub(crate) fn of(answer: &Value) -> Self {
        let text = |name: &str| {
            answer[name]
                .as_str()
                .expect("a login's answer has its members")
                .to_owned()
        };
        let session = Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
            openid: text("openid"),
        };
        canary(&session.access);
        canary(&session.refresh);
        keep("openids", &session.openid);
        session
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.access)
    }
}

/// The value of a series of the sidecar whose admin side is there; 0 if it is not there.
pub(crate) fn metric_at(admin: impl ToSocketAddrs, series: &str) -> f64 {
    let page = admin_page(admin, "/metrics");
    let mut lines = page.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| {
        value.parse().expect("a metric's value is a number")
    })
}

pub(crate) fn admin_page(admin: impl ToSocketAddrs, target: &str) -> Response {
    let page = Client::connect(admin).request("GET", target, &[], b"");
    keep("metrics.log", page.text());
    page
}

/// A configuration with something else in the place of what is there.
pub(crate) fn replaced(config: &str, old: &str, new: &str) -> String {
    assert!(config.contains(old), "no {old:?} in {config}");
    config.replace(old, new)
}

/// Makes the tokens of an answer canaries, if it has any.
fn granted(answer: Response) -> Response {
    if answer.status == 200 {
        Session::of(&answer.json());
    }
    answer
}

/// Adds text to a file of the outputs, for `tests/secrets.rs` to read.
pub(crate) fn keep(name: &'static str, text: &str) {
    static FILES: Mutex<BTreeMap<&str, File>> = Mutex::new(BTreeMap::new());
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    // New in each run: what an earlier one left would be found for ever.
    let file = files.entry(name).or_insert_with(|| {
        File::create(output_directory().join(name)).expect("target can be written")
    });
    writeln!(file, "{text}").expect("target can be written");
}

/// Writes down a value that must be in no output. `tests/secrets.rs` looks for it.
pub(crate) fn canary(value: &str) {
    keep("canaries", value);
}

/// Where outputs of the test run go: `target/test-output`.
pub(crate) fn output_directory() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let directory = target
        .parent()
        .expect("cargo's directory for tests lies in target")
        .join("test-output");
    fs::create_dir_all(&directory).expect("target can be written");
    directory
}

/// The smallest configuration for tests, on ports that the system chooses.
pub(crate) fn configuration(wechat: &str, upstream: &str, inbound: &str, sections: &str) -> String {
    let wechat_section = if sections.contains("[wechat]") {
        String::new()
    } else {
        format!("[wechat]\nendpoints = [\"{wechat}\"]\ntimeout = \"30s\"\n")
    };
    // Each request's line is an output to be searched for secrets.
    let log_section = if sections.contains("[log]") {
        ""
    } else {
        "[log]\naccess = \"all\"\naccess_path = true\n"
    };
    // On the usual port there would be one sidecar only.
    let outbound_section = if sections.contains("[outbound]") {
        ""
    } else {
        "[outbound]\nlisten = \"127.0.0.1:0\"\n"
    };
    format!(
        "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n\
         [inbound]\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\nworkers = 2\ndrain_delay = \"0s\"\n{inbound}\n\
         {wechat_section}{log_section}{outbound_section}[admin]\nlisten = \"127.0.0.1:0\"\n{sections}\n"
    )
}

/// WeChat, with one Mini Program.
pub(crate) fn simulator(clock: Clock) -> Simulator {
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        apps: vec![SimApp::new(
            AppId::parse(APPID).unwrap(),
            Secret::new(SECRET),
        )],
        clock,
        seed: 7,
        tls: None,
        push: None,
    };
    Simulator::start(options).expect("the simulator starts on a free port")
}

/// A sidecar of any configuration.
pub(crate) fn start(config: &str, clock: &Clock) -> Sidecar {
    log_to_file();
    let config = Config::from_toml(config).unwrap_or_else(|report| panic!("{report}"));
    Sidecar::start_at(config, clock.clone()).expect("the sidecar starts on free ports")
}

/// Everything at the finest level, because a secret must not be found there either.
fn log_to_file() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let path = output_directory().join("in-process.log");
        let file = File::create(path).expect("target can be written");
        tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(Mutex::new(file))
            .init();
    });
}
