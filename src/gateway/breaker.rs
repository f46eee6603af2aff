//! The breaker: calls that WeChat would refuse, or not answer, are not made.
//!
//! WeChat answers HTTP 200 to nearly everything, so a breaker that looks at statuses sees nothing. This one goes by what an
//! errcode says of the calls after it (`wechat/errcode.rs`, `Outlook`):
//!
//! - a quota: its API is left alone until the quota begins anew, and then called again;
//! - an API that the Mini Program may not use, an address that WeChat does not let in: somebody has to do something. A
//!   reload closes these, since that is what somebody does next; and because it may be done in WeChat's console alone, a call
//!   is let through now and then to see (every ten minutes; for an address after 30 seconds at first, then up to five minutes);
//! - passing trouble (-1, no answer, nonsense): after some failures in a row, or many in ten seconds, with pauses that double;
//! - no connection: of all APIs alike, so it is one circuit for all. To try costs WeChat nothing, and so it is tried often.
//!
//! All else proves that WeChat works, whatever it refuses; and a dead access_token or a wrong AppSecret says nothing here,
//! because WeChat looks at those first.
//!
//! Whoever makes a call asks [`Breaker::admit`] first and tells its [`Permit`] what came of it. A permit that is dropped
//! without a word was of a call that was given up.
//!
//! An API is remembered from its first failure on: of those that always work nothing is kept. The memory outlives reloads
//! ([`Breakers`]), and is bounded.

mod circuit;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::client::Failure;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::crypto;
use crate::error::{Error, Kind, Side, WechatFault};
use crate::telemetry::metrics::{BreakerSeen, Metrics};
use crate::wechat::answer::{Refusal, address_seen};
use crate::wechat::endpoints;
use crate::wechat::errcode::{Class, Outlook, meaning_at, outlook_at};
use circuit::{Circuit, Gate, Moment, Rule, State, Ticket};

/// How many APIs are remembered.
const MOST: usize = 1024;

/// How seldom an API is called that the Mini Program may not use.
const UNAUTHORISED: Rule = always(Duration::from_secs(600), Duration::from_secs(600));

/// How seldom an API is called that does not let our address in.
const ADDRESS: Rule = always(Duration::from_secs(30), Duration::from_secs(300));

/// The longest pause between attempts at a connection.
const CONNECTING: Duration = Duration::from_secs(5);

/// The APIs that give a quota back before its time.
const QUOTA_RESETS: [&str; 3] = [
    "/cgi-bin/clear_quota",
    "/cgi-bin/clear_quota/v2",
    "/cgi-bin/openapi/quota/clear",
];

/// What is told of the circuit for all APIs.
const ALL: &str = "all";

const fn always(min_pause: Duration, max_pause: Duration) -> Rule {
    Rule {
        failures: 1,
        min_pause,
        max_pause,
    }
}

/// What the breakers of all configurations know. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Breakers {
    /// Guards all circuits, for a few lines; never across an await.
    known: Arc<Mutex<Known>>,
}

/// The breaker of one configuration.
pub(crate) struct Breaker {
    breakers: Breakers,
    rules: Rules,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A call may be made. What came of it is to be told.
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    path: &'a str,
    /// There are none where nothing is held back, and when it has been told.
    tickets: Option<Tickets>,
}

/// A call may not be made.
#[derive(Clone, Debug)]
pub(crate) struct HeldBack {
    path: Box<str>,
    cause: Arc<Cause>,
    retry_after: Duration,
}

/// A call of which no answer can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// There was no connection to make it on.
    NotConnected,
    /// The connection broke.
    BrokeOff,
    /// There was no answer in time.
    Timeout,
    /// The answer is not what an answer looks like, or is an HTTP 5xx without an errcode.
    Invalid,
}

/// Why a circuit is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Refused(Refusal),
    Failed(Failed),
}

/// A circuit that is not closed, for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The API's path, or `all`.
    pub(crate) path: String,
    /// What it is about: `rate_quota`, `permission`, `auth_config`, `transient` or `unreachable`.
    pub(crate) class: &'static str,
    /// `open` or `half-open`.
    pub(crate) state: &'static str,
    /// What opened it.
    pub(crate) cause: String,
    /// When a call will be let through.
    pub(crate) retry_after: Duration,
    /// How many calls were held back since it opened.
    pub(crate) held_back: u64,
}

/// What a circuit is about. There is one about the connection, and each API has one of each of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Connection,
    Quota,
    Permission,
    Address,
    Trouble,
}

const OF_AN_API: [About; 4] = [
    About::Quota,
    About::Permission,
    About::Address,
    About::Trouble,
];

#[derive(Default)]
struct Known {
    connection: Circuit,
    apis: HashMap<Box<str>, Api>,
}

struct Api {
    circuits: [Circuit; OF_AN_API.len()],
    last_used: Instant,
}

struct Tickets {
    admitted_at: Moment,
    /// By what they are about.
    tickets: [Ticket; 1 + OF_AN_API.len()],
}

struct Rules {
    enabled: bool,
    trouble: Rule,
    connection: Rule,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered(Outlook),
    Failed(Failed),
}

/// What that says to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    Fails,
    Nothing,
}

/// A change of state, to be told when nobody is kept waiting for it.
struct Change {
    path: Box<str>,
    about: About,
    to: State,
    cause: Option<Arc<Cause>>,
    wait: Duration,
    held_back: u64,
}

impl Breaker {
    /// A breaker by `settings`, as there is one at the start and at each reload. It goes on with what `breakers` know, save
    /// what a reload may have mended.
    pub(crate) fn new(
        breakers: &Breakers,
        settings: &config::Breaker,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (min_pause, max_pause) = (settings.min_pause, settings.max_pause);
        let rule = |max_pause| Rule {
            failures: settings.failures,
            min_pause,
            max_pause,
        };
        let breaker = Self {
            breakers: breakers.clone(),
            rules: Rules {
                enabled: settings.enabled,
                trouble: rule(max_pause),
                connection: rule(max_pause.min(CONNECTING).max(min_pause)),
            },
            clock,
            metrics,
        };
        let mended =
            |about| !settings.enabled || matches!(about, About::Permission | About::Address);
        breaker.reset(mended);
        let (breakers, clock) = (breakers.clone(), breaker.clock.clone());
        breaker
            .metrics
            .breakers_seen_by(move || breakers.seen(moment(&clock)));
        breaker
    }

    /// Whether a call of the API at `path` may be made now.
    pub(crate) fn admit<'a>(&'a self, path: &'a str) -> Result<Permit<'a>, HeldBack> {
        let mut permit = Permit {
            breaker: self,
            path,
            tickets: None,
        };
        if !self.rules.enabled {
            return Ok(permit);
        }
        let now = self.now();
        let mut changes = Vec::new();
        let admitted = self.breakers.lock().admit(path, now, &mut changes);
        self.tell(changes, now);
        match admitted {
            Ok(tickets) => {
                permit.tickets = Some(tickets);
                Ok(permit)
            }
            Err((about, held_back)) => {
                self.metrics
                    .breaker_held_back(about.label_of(path), about.class());
                Err(held_back)
            }
        }
    }

    /// What is not closed, by path.
    pub(crate) fn describe(&self) -> Vec<Described> {
        let now = self.now();
        let known = self.breakers.lock();
        let mut described: Vec<_> = known
            .circuits()
            .filter_map(|(path, about, circuit)| {
                let state = circuit.state(now);
                let cause = circuit.cause().filter(|_| state != State::Closed)?;
                let retry_after = match circuit.gate(now) {
                    Gate::Shut(left) => left,
                    Gate::Pass | Gate::Probe => Duration::ZERO,
                };
                Some(Described {
                    path: path.to_owned(),
                    class: about.class(),
                    state: state.as_str(),
                    cause: cause.to_string(),
                    retry_after,
                    held_back: circuit.held_back(),
                })
            })
            .collect();
        drop(known);
        described.sort_by(|a, b| (&a.path, a.class).cmp(&(&b.path, b.class)));
        described
    }

    /// Closes all circuits about `such`.
    fn reset(&self, such: impl Fn(About) -> bool) {
        let mut changes = Vec::new();
        self.breakers.lock().reset(such, &mut changes);
        self.tell(changes, self.now());
    }

    fn settle(
        &self,
        path: &str,
        tickets: &Tickets,
        outcome: Outcome,
        cause: Option<Cause>,
    ) -> Option<Duration> {
        let now = self.now();
        let mut changes = Vec::new();
        let settling = Settling {
            path,
            tickets,
            outcome,
            // Asked of the system where it may be needed, and not under the lock.
            jitter: cause.as_ref().map_or(0, |_| crypto::random::<1>()[0]),
            cause: cause.map(Arc::new),
            now,
            rules: &self.rules,
        };
        self.breakers.lock().settle(&settling, &mut changes);
        let opened = changes.iter().filter(|change| change.to == State::Open);
        let wait = opened.map(|change| change.wait).max();
        self.tell(changes, now);
        wait.map(whole_seconds)
    }

    fn tell(&self, changes: Vec<Change>, now: Moment) {
        for change in changes {
            let (label, class) = (change.about.label_of(&change.path), change.about.class());
            self.metrics
                .breaker_changed(label, class, change.to.as_str());
            change.log(now);
        }
    }

    fn now(&self) -> Moment {
        moment(&self.clock)
    }
}

impl Permit<'_> {
    /// WeChat has answered, with this refusal or none and under this HTTP status. If no calls are made from now on, for how
    /// long.
    ///
    /// To be told as soon as it is known, not when the last byte of a long answer has come: until then a call that is made
    /// to see keeps all others waiting.
    pub(crate) fn answered(mut self, status: u16, refusal: Option<&Refusal>) -> Option<Duration> {
        let (outlook, cause) = match refusal {
            Some(refusal) => {
                let cause = Cause::Refused(refusal.clone());
                (outlook_at(self.path, refusal.errcode), Some(cause))
            }
            None if status >= 500 => return self.failed(Failed::Invalid),
            None => (Outlook::Sound, None),
        };
        let tickets = self.tickets.take()?;
        let outcome = Outcome::Answered(outlook);
        self.breaker.settle(self.path, &tickets, outcome, cause)
    }

    /// No answer has come that can be used. If no calls are made from now on, for how long.
    pub(crate) fn failed(mut self, failed: Failed) -> Option<Duration> {
        let tickets = self.tickets.take()?;
        let (outcome, cause) = (Outcome::Failed(failed), Some(Cause::Failed(failed)));
        self.breaker.settle(self.path, &tickets, outcome, cause)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(tickets) = &self.tickets {
            self.breaker.breakers.lock().release(self.path, tickets);
        }
    }
}

impl Breakers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a scrape is told.
    fn seen(&self, now: Moment) -> Vec<BreakerSeen> {
        let known = self.lock();
        let seen = known
            .circuits()
            .filter(|(_, _, circuit)| circuit.has_opened());
        seen.map(|(path, about, circuit)| BreakerSeen {
            cgi_path: about.label_of(path),
            class: about.class(),
            state: match circuit.state(now) {
                State::Closed => 0,
                State::HalfOpen => 1,
                State::Open => 2,
            },
        })
        .collect()
    }
}

impl Known {
    fn circuits(&self) -> impl Iterator<Item = (&str, About, &Circuit)> {
        let of_apis = self.apis.iter().flat_map(|(path, api)| {
            OF_AN_API
                .into_iter()
                .zip(&api.circuits)
                .map(|(about, circuit)| (&**path, about, circuit))
        });
        std::iter::once((ALL, About::Connection, &self.connection)).chain(of_apis)
    }

    fn admit(
        &mut self,
        path: &str,
        now: Moment,
        changes: &mut Vec<Change>,
    ) -> Result<Tickets, (About, HeldBack)> {
        if let Some(api) = self.apis.get_mut(path) {
            api.last_used = now.mono;
        }
        // All are asked before one is entered: a probe of the one must not be spent on a call that the other holds back.
        let mut shut: Option<(Duration, About, &mut Circuit)> = None;
        for (about, circuit) in self.circuits_of(path) {
            let held_back = circuit.held_back();
            if circuit.expire(now) {
                changes.push(Change::of(path, about, State::Closed, held_back));
            }
            if let Gate::Shut(left) = circuit.gate(now)
                && shut.as_ref().is_none_or(|(longest, ..)| left > *longest)
            {
                shut = Some((left, about, circuit));
            }
        }
        if let Some((left, about, circuit)) = shut {
            circuit.hold_back();
            let cause = circuit.cause().expect("something has opened it");
            let held_back = HeldBack {
                path: path.into(),
                cause: Arc::clone(cause),
                retry_after: whole_seconds(left),
            };
            return Err((about, held_back));
        }
        let mut tickets = [Ticket::default(); 1 + OF_AN_API.len()];
        for (about, circuit) in self.circuits_of(path) {
            let (ticket, changed) = circuit.enter(now);
            tickets[about as usize] = ticket;
            if changed {
                let held_back = circuit.held_back();
                changes.push(Change::of(path, about, State::HalfOpen, held_back));
            }
        }
        Ok(Tickets {
            admitted_at: now,
            tickets,
        })
    }

    fn settle(&mut self, call: &Settling<'_>, changes: &mut Vec<Change>) {
        let fails = |about: &About| call.outcome.verdict(*about) == Verdict::Fails;
        if OF_AN_API.iter().any(fails) {
            self.remember(call.path, call.now);
        }
        for (about, circuit) in self.circuits_of(call.path) {
            changes.extend(call.settle(about, circuit));
        }
        let is_done = call.outcome == Outcome::Answered(Outlook::Sound) && call.cause.is_none();
        if is_done && QUOTA_RESETS.contains(&call.path) {
            self.reset(|about| about == About::Quota, changes);
        }
    }

    fn release(&mut self, path: &str, tickets: &Tickets) {
        for (about, circuit) in self.circuits_of(path) {
            circuit.release(tickets.tickets[about as usize]);
        }
    }

    fn reset(&mut self, such: impl Fn(About) -> bool, changes: &mut Vec<Change>) {
        let mut reset = |path: &str, about, circuit: &mut Circuit| {
            let held_back = circuit.held_back();
            if such(about) && circuit.reset() {
                changes.push(Change::of(path, about, State::Closed, held_back));
            }
        };
        reset(ALL, About::Connection, &mut self.connection);
        for (path, api) in &mut self.apis {
            for (about, circuit) in OF_AN_API.into_iter().zip(&mut api.circuits) {
                reset(path, about, circuit);
            }
        }
    }

    /// The circuits that a call of the API at `path` has to do with.
    fn circuits_of<'a>(
        &'a mut self,
        path: &str,
    ) -> impl Iterator<Item = (About, &'a mut Circuit)> + use<'a> {
        let api = self.apis.get_mut(path);
        let of_api = api
            .into_iter()
            .flat_map(|api| OF_AN_API.into_iter().zip(&mut api.circuits));
        std::iter::once((About::Connection, &mut self.connection)).chain(of_api)
    }

    /// Has circuits for the API at `path`. If there is no room for more, those go that have been idle longest, and open ones
    /// only where all are.
    fn remember(&mut self, path: &str, now: Moment) {
        if self.apis.contains_key(path) {
            return;
        }
        if self.apis.len() >= MOST {
            let is_open = |api: &Api| {
                let mut circuits = api.circuits.iter();
                circuits.any(|circuit| circuit.state(now) != State::Closed)
            };
            let idlest = self
                .apis
                .iter()
                .min_by_key(|(_, api)| (is_open(api), api.last_used))
                .map(|(path, _)| path.clone());
            if let Some(path) = idlest {
                self.apis.remove(&path);
            }
        }
        let api = Api {
            circuits: Default::default(),
            last_used: now.mono,
        };
        self.apis.insert(path.into(), api);
    }
}

/// A call whose outcome is taken into account.
struct Settling<'a> {
    path: &'a str,
    tickets: &'a Tickets,
    outcome: Outcome,
    /// What there is to be said against it; a success has none.
    cause: Option<Arc<Cause>>,
    jitter: u8,
    now: Moment,
    rules: &'a Rules,
}

impl Settling<'_> {
    fn settle(&self, about: About, circuit: &mut Circuit) -> Option<Change> {
        let ticket = self.tickets.tickets[about as usize];
        match (self.outcome.verdict(about), &self.cause) {
            (Verdict::Works, _) => {
                let held_back = circuit.held_back();
                let closed = circuit.succeed(ticket, self.now);
                closed.then(|| Change::of(self.path, about, State::Closed, held_back))
            }
            (Verdict::Fails, Some(cause)) => {
                let opened = self.fail(about, circuit, ticket, cause);
                opened.then(|| self.opened(about, circuit, cause))
            }
            (Verdict::Fails | Verdict::Nothing, _) => {
                circuit.release(ticket);
                None
            }
        }
    }

    fn fail(
        &self,
        about: About,
        circuit: &mut Circuit,
        ticket: Ticket,
        cause: &Arc<Cause>,
    ) -> bool {
        let rule = match about {
            About::Quota => {
                let Outcome::Answered(Outlook::Quota(period)) = self.outcome else {
                    return false;
                };
                // By when the call was made: WeChat decides at once, and its answer may come after midnight.
                let until = period.resumes(self.tickets.admitted_at.wall);
                return circuit.exhaust(ticket, self.now, until, cause);
            }
            About::Connection => &self.rules.connection,
            About::Trouble => &self.rules.trouble,
            About::Permission => &UNAUTHORISED,
            About::Address => &ADDRESS,
        };
        circuit.fail(ticket, self.now, rule, self.jitter, cause)
    }

    fn opened(&self, about: About, circuit: &Circuit, cause: &Arc<Cause>) -> Change {
        let wait = match circuit.gate(self.now) {
            Gate::Shut(left) => left,
            Gate::Pass | Gate::Probe => Duration::ZERO,
        };
        Change {
            cause: Some(Arc::clone(cause)),
            wait,
            ..Change::of(self.path, about, State::Open, circuit.held_back())
        }
    }
}

impl Outcome {
    fn verdict(self, about: About) -> Verdict {
        match (about, self) {
            (About::Connection, Self::Answered(_) | Self::Failed(Failed::Invalid)) => {
                Verdict::Works
            }
            (About::Connection, Self::Failed(Failed::NotConnected)) => Verdict::Fails,
            // It may have been before there was a connection, or after.
            (About::Connection, Self::Failed(Failed::BrokeOff | Failed::Timeout)) => {
                Verdict::Nothing
            }
            (_, Self::Failed(Failed::NotConnected)) => Verdict::Nothing,
            (About::Trouble, Self::Failed(_) | Self::Answered(Outlook::Trouble))
            | (About::Quota, Self::Answered(Outlook::Quota(_)))
            | (About::Permission, Self::Answered(Outlook::Unauthorised))
            | (About::Address, Self::Answered(Outlook::Address)) => Verdict::Fails,
            (_, Self::Answered(Outlook::Sound)) => Verdict::Works,
            (_, Self::Answered(_) | Self::Failed(_)) => Verdict::Nothing,
        }
    }
}

impl About {
    const fn class(self) -> &'static str {
        match self {
            Self::Quota => Class::RateQuota.as_str(),
            Self::Permission => Class::Permission.as_str(),
            Self::Address => Class::AuthConfig.as_str(),
            Self::Trouble => Class::Transient.as_str(),
            Self::Connection => "unreachable",
        }
    }

    fn label_of(self, path: &str) -> &'static str {
        match self {
            Self::Connection => ALL,
            _ => endpoints::label(path),
        }
    }
}

impl Change {
    fn of(path: &str, about: About, to: State, held_back: u64) -> Self {
        Self {
            path: match about {
                About::Connection => ALL.into(),
                _ => path.into(),
            },
            about,
            to,
            cause: None,
            wait: Duration::ZERO,
            held_back,
        }
    }

    fn log(&self, now: Moment) {
        let (path, class, held_back) = (&*self.path, self.about.class(), self.held_back);
        match (self.to, &self.cause) {
            (State::Open, Some(cause)) => tracing::warn!(
                path,
                class,
                errcode = cause.errcode(),
                %cause,
                address = cause.address().map(tracing::field::display),
                seconds = whole_seconds(self.wait).as_secs(),
                until = http_date(now.wall.plus(self.wait)),
                held_back,
                "calls to WeChat are held back"
            ),
            (State::HalfOpen, _) => {
                tracing::info!(
                    path,
                    class,
                    held_back,
                    "a call to WeChat is made to see whether it works again"
                );
            }
            (State::Closed | State::Open, _) => {
                tracing::info!(path, class, held_back, "calls to WeChat are made again");
            }
        }
    }
}

impl Cause {
    fn errcode(&self) -> Option<i64> {
        match self {
            Self::Refused(refusal) => Some(refusal.errcode),
            Self::Failed(_) => None,
        }
    }

    /// Our address as WeChat saw it, if that is what it is about.
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Refused(refusal) => address_seen(&refusal.errmsg),
            Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            class,
            state,
            cause,
            retry_after,
            held_back,
        } = self;
        let seconds = whole_seconds(*retry_after).as_secs();
        write!(
            f,
            "{path} {class} {state}: {cause}; the next call in {seconds} s, {held_back} held back"
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "errcode {}", refusal.errcode),
            Self::Failed(Failed::NotConnected) => f.write_str("no connection"),
            Self::Failed(Failed::BrokeOff) => f.write_str("connections break off"),
            Self::Failed(Failed::Timeout) => f.write_str("no answer in time"),
            Self::Failed(Failed::Invalid) => f.write_str("no valid answer"),
        }
    }
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::NotConnected(_) => Self::NotConnected,
            Failure::BrokeOff(_) => Self::BrokeOff,
            Failure::Timeout => Self::Timeout,
            Failure::NotHttp(_) | Failure::TooLarge => Self::Invalid,
        }
    }
}

impl From<HeldBack> for Error {
    /// With the errcode that opened the circuit, if it was one, and what to do about it; and when to try again.
    fn from(held_back: HeldBack) -> Self {
        let HeldBack {
            path,
            cause,
            retry_after,
        } = held_back;
        let error = |side, detail: (String, String)| {
            Self::new(Kind::BreakerOpen, side, detail).with_retry_after(retry_after)
        };
        let refusal = match &*cause {
            Cause::Refused(refusal) => refusal.clone(),
            Cause::Failed(Failed::NotConnected) => {
                let detail = (
                    "no connection to WeChat can be had; calls are held back for a moment"
                        .to_owned(),
                    "无法连接微信服务器，调用暂停片刻".to_owned(),
                );
                return error(Side::Wechat, detail);
            }
            Cause::Failed(_) => {
                let detail = (
                    format!(
                        "WeChat has not answered calls of this API ({cause}); they are held back for a moment"
                    ),
                    "该接口的调用没有得到微信的响应，暂停片刻".to_owned(),
                );
                return error(Side::Wechat, detail);
            }
        };
        let meaning = meaning_at(&path, refusal.errcode);
        let side = match meaning.class {
            Class::AuthConfig => Side::Us,
            _ => Side::Wechat,
        };
        let detail = (
            format!(
                "calls of this API are held back, because WeChat has answered {}: {}",
                meaning.code, meaning.en
            ),
            format!(
                "该接口的调用暂停中，因为微信返回了 {}：{}",
                meaning.code, meaning.zh
            ),
        );
        let advice = refusal.advice_at(&path);
        let error = error(side, detail).with_fault(WechatFault {
            meaning,
            errmsg: refusal.errmsg,
            rid: refusal.rid,
        });
        match advice {
            Some(advice) => error.with_hint(advice),
            None => error,
        }
    }
}

fn moment(clock: &Clock) -> Moment {
    Moment {
        mono: Instant::now(),
        wall: clock.now(),
    }
}

/// Rounded up, because who comes a little too early has come in vain.
fn whole_seconds(wait: Duration) -> Duration {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(seconds.max(1))
}

fn http_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis()))
}

#[cfg(test)]
mod tests;
