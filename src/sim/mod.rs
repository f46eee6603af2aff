//! A simulator of WeChat's servers, for development without an account and for tests without a network.
//!
//! It keeps the rules that real code stumbles over: a code lives five minutes and works once, a new access_token lets
//! the old one live for five minutes more, session keys rotate, failures are HTTP 200 with an errcode, and `/sns/*`
//! calls its JSON `text/plain`. Whoever passes here should pass against `api.weixin.qq.com`, so a rule of WeChat's is
//! never relaxed for convenience: convenience has its own paths under `/_sim/`, listed below.
//!
//! The rules are plain functions on one `State` and know no socket: `api` says which endpoint is whose, a file for each
//! kind of endpoint says how it answers, `control` and `fault` interfere. `http` carries their decisions out.
//!
//! The state sits behind one std mutex. A call is a few map lookups and ends before the answer is written, so the lock
//! is held for microseconds and never across an `.await` (a delay is waited for outside it); one lock also makes each
//! call atomic, which is what "a code works once" means when fifty callers bring the same code. It is a mutex and not a
//! `RefCell` because tests and `wx-sidecar dev` turn the knobs from other threads than the one that serves.
//!
//! Control endpoints take and give JSON; a wrong one gets a 400 that says why:
//!
#![doc = concat!("```text\n", include_str!("help.txt"), "```")]

mod access;
mod api;
mod api_security;
mod calls;
mod control;
mod exchange;
mod fault;
mod http;
mod ids;
mod media;
mod message;
mod multipart;
mod open_data;
mod operations;
mod outbox;
mod payment;
mod picture;
#[cfg(test)]
mod probe;
pub mod push;
mod quota;
mod refusal;
mod rids;
mod security;
mod state;
mod tls;
mod token;
mod user;
mod wxacode;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::domain::{AppId, OpenId};
use crate::secret::Secret;
pub use api_security::{ApiSecurity, SimKey};
pub use calls::Received;
pub use fault::{Effect, Fault};
pub use open_data::{Encrypted, OpenDataKind, OpenDataOrder, WhichKey};
use outbox::Outbox;
pub use payment::PayKeys;
use push::{Outcome, PushOptions};
pub use quota::Limits;
use state::{CodeKind, State};
pub use state::{SimApp, UserChange};
pub use tls::Identity;

/// A running simulator; it stops when it is stopped or dropped.
pub struct Simulator {
    addr: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
    /// Never sent on: the server ends when this end of the channel is gone.
    running: Option<oneshot::Sender<Infallible>>,
    server: Option<JoinHandle<()>>,
}

/// How to start a [`Simulator`].
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The Mini Programs that exist, at least one. The first is the one meant where none is named.
    pub apps: Vec<SimApp>,
    /// What tells the time. `/_sim/clock` adds an offset to it, so that even the system's clock can be moved.
    pub clock: Clock,
    /// Decides codes, tokens and session keys: the same seed and the same calls give the same values. Openids and
    /// unionids do not depend on it, so that an app's database outlives a restart of the simulator.
    pub seed: u64,
    /// If there is one, HTTPS is spoken, and plain HTTP is not.
    pub tls: Option<Identity>,
    /// Where to push what WeChat would tell the app with this AppID of the calls that it makes. The simulator's own clock
    /// takes the place of the one in it.
    pub push: Option<PushOptions>,
}

impl Options {
    /// A simulator of one Mini Program on a free port of the loopback interface, by the system's clock, without TLS and
    /// pushes.
    pub fn local(appid: AppId, secret: Secret) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            apps: vec![SimApp::new(appid, secret)],
            clock: Clock::System,
            seed: 0,
            tls: None,
            push: None,
        }
    }
}

impl Simulator {
    /// Starts a simulator on a thread of its own; it is bound when this returns.
    ///
    /// # Errors
    /// If the address cannot be bound, the thread cannot be made, `apps` is empty, certificate and key are no pair, or
    /// nobody can be pushed to with the options.
    pub fn start(options: Options) -> io::Result<Self> {
        if options.apps.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the simulator needs at least one app",
            ));
        }
        let tls = options.tls.as_ref().map(Identity::acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };

        let mut state = State::new(options.clock, options.seed, options.apps);
        state.url = format!("{scheme}://{addr}");
        state.outbox = options.push.map(Outbox::new).transpose()?;
        let state = Arc::new(Mutex::new(state));
        let (running, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let server = std::thread::Builder::new()
            .name("wechat-simulator".to_owned())
            .spawn(move || runtime.block_on(http::serve(listener, tls, served, stopped)))?;
        Ok(Self {
            addr,
            scheme,
            state,
            running: Some(running),
            server: Some(server),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, to be used in place of `https://api.weixin.qq.com`; no slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// What `wx.login` would give the user of the first app: a code for `/sns/jscode2session`. A new name is a new user.
    pub fn issue_code(&self, user: &str) -> String {
        self.state().issue_code(0, user, CodeKind::Login)
    }

    /// The same for the app named; `None` if there is no such app.
    pub fn issue_code_for(&self, appid: &AppId, user: &str) -> Option<String> {
        let mut state = self.state();
        let app = state.app_index(appid.as_str())?;
        Some(state.issue_code(app, user, CodeKind::Login))
    }

    /// What the phone number button would give the user of the first app: a code for
    /// `/wxa/business/getuserphonenumber`.
    pub fn issue_phone_code(&self, user: &str) -> String {
        self.state().issue_code(0, user, CodeKind::Phone)
    }

    /// What the client functions for open data would give the user; `None` if there is no such app, or the user has no
    /// such session_key there.
    pub fn encrypt(&self, order: &OpenDataOrder) -> Option<Encrypted> {
        let mut state = self.state();
        let app = match &order.app {
            Some(appid) => state.app_index(appid)?,
            None => 0,
        };
        state.encrypt(app, order)
    }

    /// The user's phone number, without its country code.
    pub fn phone_number(&self, user: &str) -> String {
        self.state().phone_number(user)
    }

    /// The user's openid in the first app, whether or not the user has ever logged in.
    pub fn openid(&self, user: &str) -> OpenId {
        self.state().openid(0, user)
    }

    /// Changes a user, who is made if new.
    pub fn change_user(&self, user: &str, change: &UserChange) {
        self.state().change_user(user, change);
    }

    /// How many calls a path got, those answered by a fault included. `/_sim/` is not counted.
    pub fn calls(&self, path: &str) -> u64 {
        self.state().calls.count(path)
    }

    /// The last calls of a path as they arrived, those answered by a fault included, the oldest first. Of all paths
    /// together the last 1,000 are kept, or fewer if their bodies are large.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state().calls.received(path)
    }

    /// Pushes to this receiver from now on.
    ///
    /// # Errors
    /// If nobody can be pushed to with the options.
    pub fn push_to(&self, options: PushOptions) -> io::Result<()> {
        let outbox = Outbox::new(options)?;
        self.state().outbox = Some(outbox);
        Ok(())
    }

    /// What came of the last 100 pushes, the oldest first: those that followed from calls and those that were ordered.
    pub fn pushes(&self) -> Vec<Outcome> {
        let state = self.state();
        let pushed = state.outbox.as_ref().map(|outbox| &outbox.pushed);
        pushed
            .into_iter()
            .flatten()
            .map(|pushed| pushed.outcome.clone())
            .collect()
    }

    /// Limits how often each app may call a path; the limits replace those before them. No path has any at first.
    pub fn limit(&self, path: &str, limits: Limits) {
        self.state().quotas.limit(path, limits);
    }

    /// Has only these addresses get access_tokens (40164 for others), or every address, as at first.
    pub fn allow_only(&self, addresses: Option<&[IpAddr]>) {
        self.state().access.allow_only(addresses);
    }

    /// From now on these are the app's AppSecrets, as if somebody had reset them in the console. Tokens that were given out
    /// stay good.
    pub fn change_secrets(&self, appid: &AppId, secrets: Vec<Secret>) {
        self.state().change_secrets(appid, secrets);
    }

    /// Withholds a path from the apps (48001), or grants it again. Every path is granted at first.
    pub fn grant(&self, path: &str, granted: bool) {
        self.state().access.grant(path, granted);
    }

    /// Queues a fault behind those that are already queued.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.queue(fault);
    }

    /// Forgets the faults that are queued, those without an end too.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Moves the simulator's clock forward.
    pub fn advance(&self, by: Duration) {
        self.state().advance(by);
    }

    /// Forgets users, codes, cloudIDs, media, coins, tokens, the white-list, withheld paths, quotas, faults, calls, pushes
    /// and the clock's offset; keeps the apps.
    pub fn reset(&self) {
        self.state().reset();
    }

    /// Stops serving and closes every connection. Dropping does the same.
    pub fn stop(self) {
        drop(self);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(server) = self.server.take() {
            // A server that panicked has said so on stderr; there is nothing left to stop.
            let _ = server.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .expect("no rule panics, so the lock is never poisoned")
}
