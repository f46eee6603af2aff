//! Secrets are replaced one after the other while phones, WeChat and the app go on, and nobody notices.
//!
//! It is the drill of the README: both in the configuration, the new one where it is used, a look at the metric, and then
//! the old one out of the configuration.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::push::{Push, PushOptions, Pusher, Reply};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::patience::{PATIENCE, eventually};
use crate::reload::Followed;
use crate::rig::{self, APPID, Rig, SECRET, Session, canary};

const APP_SECRETS: [&str; 2] = [SECRET, "ca9a41aaca9a41aaca9a41aaca9a41aa"];
const SESSION_KEYS: [&str; 2] = [
    "ca9a41-session-key-the-old-one-00000000",
    "ca9a41-session-key-the-new-one-11111111",
];
const PUSH_TOKENS: [&str; 2] = ["ca9a41pushtokenold", "ca9a41pushtokennew"];
const AES_KEYS: [&str; 2] = [
    "ca9a41abcdefghijklmnopqrstuvwxyz0123456789D",
    "ca9a41abcdefghijklmnopqrstuvwxyz0123456789E",
];
const CALLER_TOKENS: [&str; 2] = ["ca9a41-caller-token-old", "ca9a41-caller-token-new"];

/// What the configuration has of each secret; `[new, old]` while both are good.
#[derive(Clone, Copy)]
enum Has {
    Old,
    Both,
    New,
}

impl Has {
    fn of([old, new]: [&str; 2]) -> impl Fn(Self) -> String {
        let (old, new) = (old.to_owned(), new.to_owned());
        move |has| match has {
            Self::Old => format!("\"{old}\""),
            Self::Both => format!("[\"{new}\", \"{old}\"]"),
            Self::New => format!("\"{new}\""),
        }
    }
}

/// Which secrets there are.
#[derive(Clone, Copy)]
enum Kind {
    App,
    Session,
    PushToken,
    AesKey,
    Caller,
}

const KINDS: [Kind; 5] = [
    Kind::App,
    Kind::Session,
    Kind::PushToken,
    Kind::AesKey,
    Kind::Caller,
];

fn text(rig: &Rig, app: &FakeApp, has: [Has; 5]) -> String {
    let [app_secret, session, push_token, aes_key, caller] = [
        Has::of(APP_SECRETS)(has[0]),
        Has::of(SESSION_KEYS)(has[1]),
        Has::of(PUSH_TOKENS)(has[2]),
        Has::of(AES_KEYS)(has[3]),
        Has::of(CALLER_TOKENS)(has[4]),
    ];
    let wechat = rig.sim.url();
    let sections = format!(
        "[session]\nkey = {session}\n[push]\ntoken = {push_token}\naes_key = {aes_key}\n\
         [outbound]\nlisten = \"127.0.0.1:0\"\ncaller_token = {caller}\n\
         [wechat]\nendpoints = [\"{wechat}\"]\ntimeout = \"60s\"\n"
    );
    // Those who log in go on for as long as the slowest of the others takes.
    let inbound = "login_rate_limit = \"none\"";
    let text = rig::configuration(&wechat, &app.url(), inbound, &sections);
    rig::replaced(
        &text,
        &format!("secret = \"{SECRET}\""),
        &format!("secret = {app_secret}"),
    )
}

/// Everybody who uses a secret, with what they use at the moment.
struct World<'a> {
    rig: &'a Rig,
    followed: &'a Followed,
    push: Mutex<(&'static str, &'static str)>,
    caller: Mutex<&'static str>,
    stop: AtomicBool,
    done: [AtomicUsize; 4],
    users: AtomicUsize,
}

impl World<'_> {
    fn inbound(&self) -> Client {
        Client::connect(self.followed.sidecar.inbound_addr())
    }

    /// Goes on with `step` until it is to stop.
    fn go_on(&self, who: usize, mut step: impl FnMut()) {
        while !self.stop.load(Ordering::SeqCst) {
            step();
            self.done[who].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until everybody has done something more, begun after this moment.
    fn all_go_on(&self) {
        let before = self.done.each_ref().map(|done| done.load(Ordering::SeqCst));
        eventually("everybody goes on", || {
            let now = self.done.each_ref().map(|done| done.load(Ordering::SeqCst));
            now.iter()
                .zip(before)
                .all(|(now, before)| *now > before + 2)
        });
    }

    /// A phone that uses its access token, and refreshes now and then.
    fn visit(&self) {
        let mut session = self.login();
        self.go_on(0, || {
            let bearer = session.bearer();
            for _ in 0..3 {
                let answer =
                    self.inbound()
                        .request("GET", "/a", &[("Authorization", &bearer)], b"");
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let body = json!({ "refresh_token": session.refresh }).to_string();
            let headers = [("Content-Type", "application/json")];
            session = granted(&self.inbound().request(
                "POST",
                "/wx/refresh",
                &headers,
                body.as_bytes(),
            ));
        });
    }

    fn log_in(&self) {
        self.go_on(1, || {
            self.login();
        });
    }

    /// As somebody who has not been here: WeChat bounds the logins of one user in a minute.
    fn login(&self) -> Session {
        let number = self.users.fetch_add(1, Ordering::SeqCst);
        let code = self.rig.sim.issue_code(&format!("user-{number}"));
        let body = json!({ "code": code }).to_string();
        let headers = [("Content-Type", "application/json")];
        granted(
            &self
                .inbound()
                .request("POST", "/wx/login", &headers, body.as_bytes()),
        )
    }

    /// WeChat pushes.
    fn push(&self) {
        let to = format!("http://{}/wx/push", self.followed.sidecar.inbound_addr());
        let mut number = 0;
        self.go_on(2, || {
            let (token, key) = *self.push.lock().unwrap();
            let appid = AppId::parse(APPID).unwrap();
            let mut options = PushOptions::new(&to, appid, Secret::new(token), Secret::new(key));
            options.timeout = PATIENCE;
            number += 1;
            let message = Push::text(format!("oUser-{number}-0123456789"), "hello");
            let sent = Pusher::new(options).unwrap().send_once_blocking(&message);
            assert_eq!(sent.verdict, Ok(Reply::Success), "{sent:?}");
        });
    }

    /// The app calls WeChat.
    fn call(&self) {
        self.go_on(3, || {
            let bearer = format!("Bearer {}", *self.caller.lock().unwrap());
            let addr = self.followed.sidecar.outbound_addr().unwrap();
            let headers = [("Authorization", &bearer[..])];
            let answer =
                Client::connect(addr).request("GET", "/cgi-bin/get_api_domain_ip", &headers, b"");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("x-wx-errcode"), None, "{}", answer.text());
        });
    }

    fn reload(&self, text: &str) {
        self.followed.write(text);
        let told = self.followed.admin("POST", "/reload");
        assert_eq!(told.status, 200, "{}", told.text());
    }

    /// Everybody uses the new one from now on.
    fn switch(&self, kind: Kind) {
        match kind {
            Kind::App => {
                let appid = AppId::parse(APPID).unwrap();
                self.rig
                    .sim
                    .change_secrets(&appid, vec![Secret::new(APP_SECRETS[1])]);
            }
            // Ours alone: what is sealed anew is sealed with it.
            Kind::Session => {}
            Kind::PushToken => self.push.lock().unwrap().0 = PUSH_TOKENS[1],
            Kind::AesKey => self.push.lock().unwrap().1 = AES_KEYS[1],
            Kind::Caller => *self.caller.lock().unwrap() = CALLER_TOKENS[1],
        }
    }

    /// Waits until the metric says that the old one is not used any more: the new one is, and the old one was not
    /// meanwhile.
    fn is_out_of_use(&self, kind: Kind) {
        let metric = |series: &str| self.followed.metric(series);
        if let Kind::App = kind {
            return eventually("the new secret", || {
                metric("wx_sidecar_app_secret_slot") == 0.0
            });
        }
        let family = match kind {
            Kind::App => unreachable!(),
            Kind::Session => "wx_sidecar_tokens_opened_total{slot=\"?\"}",
            Kind::PushToken => "wx_sidecar_push_secret_uses_total{secret=\"token\",slot=\"?\"}",
            Kind::AesKey => "wx_sidecar_push_secret_uses_total{secret=\"aes_key\",slot=\"?\"}",
            Kind::Caller => "wx_sidecar_caller_token_uses_total{slot=\"?\"}",
        };
        let of = |slot: &str| metric(&family.replace('?', slot));
        eventually("the old one is out of use", || {
            let (new, old) = (of("0"), of("1"));
            self.all_go_on();
            of("0") > new && of("1") == old
        });
    }
}

fn granted(answer: &Response) -> Session {
    assert_eq!(answer.status, 200, "{}", answer.text());
    Session::of(&answer.json())
}

#[test]
fn every_secret_is_replaced_under_load_and_no_request_fails() {
    for secret in [
        APP_SECRETS,
        SESSION_KEYS,
        PUSH_TOKENS,
        AES_KEYS,
        CALLER_TOKENS,
    ]
    .concat()
    {
        canary(secret);
    }
    let app = FakeApp::agreeable();
    let rig = Rig::new(&app.url());
    let mut has = [Has::Old; 5];
    let followed = Followed::new(&text(&rig, &app, has), app);
    let world = World {
        rig: &rig,
        followed: &followed,
        push: Mutex::new((PUSH_TOKENS[0], AES_KEYS[0])),
        caller: Mutex::new(CALLER_TOKENS[0]),
        stop: AtomicBool::new(false),
        done: Default::default(),
        users: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        // Whatever happens here, the others must come to their end.
        let _stop = Stop(&world.stop);
        for load in [World::visit, World::log_in, World::push, World::call] {
            let world = &world;
            scope.spawn(move || load(world));
        }
        world.all_go_on();
        for (place, kind) in KINDS.into_iter().enumerate() {
            has[place] = Has::Both;
            world.reload(&text(&rig, &followed.app, has));
            world.all_go_on();
            world.switch(kind);
            world.is_out_of_use(kind);
            has[place] = Has::New;
            world.reload(&text(&rig, &followed.app, has));
            world.all_go_on();
        }
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn which_app_secret_wechat_takes_is_not_known_before_it_has_taken_one_of_the_list() {
    let rig = Rig::new("http://127.0.0.1:9");
    let slot = || rig.metric("wx_sidecar_app_secret_slot");
    let one = format!("secret = \"{SECRET}\"");
    let both = format!("secret = [\"{}\", \"{SECRET}\"]", APP_SECRETS[1]);
    assert_eq!(slot(), -1.0);
    rig.login("alice");
    assert_eq!(slot(), 0.0);
    rig.reload(&one, &both);
    assert_eq!(slot(), -1.0, "the new one has not been shown");
    rig.login("bob");
    assert_eq!(slot(), 1.0);
    rig.reload(&one, &both);
    assert_eq!(slot(), 1.0, "the list is as it was");
    rig.reload(&one, &one);
    assert_eq!(slot(), -1.0, "there is no slot 1 any more");
    rig.login("carol");
    assert_eq!(slot(), 0.0);
}
