//! What most tests stand on: a simulator of WeChat and a sidecar in this process, on ports of their own.
//!
//! Everything that the sidecars of the test run log goes to a file that `tests/secrets.rs` reads afterwards, and every
//! secret value that a test gets hold of is written down beside it: none may be found in any output.

#![allow(
    dead_code,
    reason = "the vocabulary of the integration tests, not all of it in use at any time"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
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

/// A simulator and a sidecar in front of one app.
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
        let app = SimApp::new(AppId::parse(APPID).unwrap(), Secret::new(SECRET));
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            apps: vec![app],
            clock: clock.clone(),
            seed: 7,
        };
        let sim = Simulator::start(options).expect("the simulator starts on a free port");
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

    /// A page of the admin side.
    pub(crate) fn admin(&self, target: &str) -> Response {
        Client::connect(self.sidecar().admin_addr()).request("GET", target, &[], b"")
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
        self.request("POST", "/wx/login", &[], body.as_bytes())
    }

    /// Posts a refresh token to `/wx/refresh`.
    pub(crate) fn refresh(&self, token: &str) -> Response {
        let body = serde_json::json!({ "refresh_token": token }).to_string();
        self.request("POST", "/wx/refresh", &[], body.as_bytes())
    }

    /// A GET with an access token.
    pub(crate) fn get_as(&self, session: &Session, target: &str) -> Response {
        self.request("GET", target, &[("Authorization", &session.bearer())], b"")
    }

    /// Turns the clock that sidecar and simulator share.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// The value of a series on `/metrics`, such as `wx_sidecar_login_total{result="ok"}`; 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.admin("/metrics");
        let line = page
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| {
            value.parse().expect("a metric's value is a number")
        })
    }
}

impl Session {
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
        session
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.access)
    }
}

/// Writes down a value that must be in no output. `tests/secrets.rs` looks for it.
pub(crate) fn canary(value: &str) {
    static LIST: Mutex<Option<File>> = Mutex::new(None);
    let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    let file = list.get_or_insert_with(|| {
        let path = output_directory().join("canaries");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the list of canaries can be written")
    });
    writeln!(file, "{value}").expect("the list of canaries can be written");
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
        format!("[wechat]\nendpoints = [\"{wechat}\"]\ntimeout = \"5s\"\n")
    };
    format!(
        "[app]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n\
         [inbound]\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\nworkers = 2\ndrain_delay = \"0s\"\n{inbound}\n\
         {wechat_section}[admin]\nlisten = \"127.0.0.1:0\"\n{sections}\n"
    )
}

fn start(config: &str, clock: &Clock) -> Sidecar {
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
