//! The access token keeper: one token for all workers, fetched before it is needed.
//!
//! A token is renewed while the old one still serves, by a flight in the background that whoever comes first sets off; so
//! no call waits but the first, and a token endpoint that is slow or down is felt only when the old token has ended. A
//! token is never thrown away before there is another.
//!
//! When a call tells that WeChat refused its token, there are three cases, and they must not be mixed up. The token is no
//! longer the one that is kept: another call was faster, and the new one is there to be used. Or asking WeChat gives
//! another token: somebody else has replaced it. Or asking gives the same dead token again: only then is a new one forced,
//! which ends the token for all replicas, and which WeChat allows twenty times a day. If none of this helps, the
//! refusal stands, and for half a minute nobody asks again, or each refused call would become three.
//!
//! Everything is one flight at a time, unforced or forced, so that an answer that was given before a forced one cannot
//! come in after it and bring the old token back.
//!
//! The lives of tokens are measured on the monotonic clock, from the moment at which WeChat was asked.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::domain::{AccessToken, AppId};
use crate::error::{Error, Kind, Side};
use crate::resilience::SingleFlight;
use crate::resilience::panics::caught;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use crate::wechat::access_token::Grant;
use crate::wechat::errcode::Class;

/// How long before its end a token is renewed. WeChat makes the next one five minutes before; a little later, so that it
/// is the next one that is given and not the same again.
const AHEAD: Duration = Duration::from_secs(270);

/// Of a token that was given late in its life, the last tenth.
const AHEAD_SHARE: u32 = 10;

/// WeChat ignores a forced refresh within this time of another. It is also how long a token that WeChat both gives and
/// refuses is left at that.
const FORCE_PAUSE: Duration = Duration::from_secs(30);

/// How many refreshes WeChat lets be forced in a day. By any 24 hours and not by WeChat's day, which is stricter and needs
/// no calendar.
const FORCES: usize = 20;
const FORCES_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long WeChat lets a token live beside the next.
const OVERLAP: Duration = Duration::from_secs(300);

/// Within this time, another replacement by somebody else is a pattern.
const FOREIGN_AGAIN: Duration = Duration::from_secs(60 * 60);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where tokens come from.
pub(super) trait Source: Clone + Send + Sync + 'static {
    /// Asks for a token, once. With `force`, the one that there is ends.
    fn fetch(&self, force: bool) -> impl Future<Output = Result<Grant, Error>> + Send;

    /// Where to count.
    fn metrics(&self) -> &Metrics;
}

/// The keepers of all apps. They outlive reloads: a token is thrown away only if the app's secrets have changed.
#[derive(Default)]
pub(super) struct AccessTokenKeepers {
    /// Guards the map, for a look-up at each reload.
    keepers: Mutex<HashMap<AppId, Arc<AccessTokenKeeper>>>,
}

/// Keeps the access_token of one app.
pub(super) struct AccessTokenKeeper {
    /// The secrets that the token was had for.
    secrets: Vec<Secret>,
    /// Whether the configuration has other secrets by now.
    is_replaced: AtomicBool,
    /// Guards what is known of tokens; held for a few lines, never across an await.
    state: Mutex<State>,
    /// Shared with the keepers of the same app's other secrets, because WeChat counts by app. Guards a short list.
    forces: Arc<Mutex<Forces>>,
    flights: SingleFlight<(), Result<AccessToken, Error>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The fetches that have failed since one succeeded.
    failed: Option<Failed>,
    /// When WeChat last gave a token that it had just refused.
    disputed: Option<(AccessToken, Instant)>,
    /// When somebody else last had ours replaced.
    replaced_at: Option<Instant>,
}

#[derive(Clone)]
struct Held {
    token: AccessToken,
    renew_at: Instant,
    expires_at: Instant,
}

struct Failed {
    last: Error,
    at: Instant,
    count: u32,
}

/// When refreshes were forced, in the last day.
#[derive(Default)]
struct Forces(VecDeque<Instant>);

/// What there is to be done for a call.
enum Standing {
    Good(AccessToken),
    /// It serves, and it is time to ask for the next.
    Due(AccessToken),
    None,
    /// There is none, and WeChat has just said so.
    Hopeless(Error),
}

/// What is known of a token in the place of one that was refused.
enum Instead {
    Other(AccessToken),
    /// There is no other to be had.
    Nothing,
    /// WeChat has just failed to give one.
    Hopeless(Error),
    Ask,
}

impl AccessTokenKeepers {
    /// The keeper of `app`: the one that there is, if it is for the same secrets.
    pub(super) fn keeper(&self, app: &config::App, metrics: &Metrics) -> Arc<AccessTokenKeeper> {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keepers.get(&app.appid);
        if let Some(keeper) = known.filter(|keeper| keeper.secrets == app.secrets) {
            return Arc::clone(keeper);
        }
        if let Some(keeper) = known {
            keeper.is_replaced.store(true, Ordering::Relaxed);
        }
        metrics.app_secrets_changed();
        let forces = known.map(|keeper| Arc::clone(&keeper.forces));
        let keeper = Arc::new(AccessTokenKeeper {
            secrets: app.secrets.clone(),
            is_replaced: AtomicBool::new(false),
            state: Mutex::default(),
            forces: forces.unwrap_or_default(),
            flights: SingleFlight::new(),
        });
        keepers.insert(app.appid.clone(), Arc::clone(&keeper));
        keeper
    }
}

impl AccessTokenKeeper {
    /// Whether the configuration has other AppSecrets by now, so that a place among these says nothing any more.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// A token to show. Waits for WeChat only if there is none.
    pub(super) async fn token<S: Source>(
        self: &Arc<Self>,
        source: &S,
    ) -> Result<AccessToken, Error> {
        let standing = self.state().standing(Instant::now());
        match standing {
            Standing::Good(token) => Ok(token),
            Standing::Due(token) => {
                self.flights.begin((), || self.flight(source, None));
                Ok(token)
            }
            Standing::None => self.fly(source, None).await,
            Standing::Hopeless(error) => Err(error),
        }
    }

    /// A token to show in place of one that WeChat has refused; `None` if no other can be had.
    pub(super) async fn replace<S: Source>(
        self: &Arc<Self>,
        dead: &AccessToken,
        source: &S,
    ) -> Result<Option<AccessToken>, Error> {
        // Twice, because the flight that is joined first may be one that was only to renew.
        for _ in 0..2 {
            let instead = self.state().instead_of(dead, Instant::now());
            match instead {
                Instead::Other(token) => return Ok(Some(token)),
                Instead::Nothing => return Ok(None),
                Instead::Hopeless(error) => return Err(error),
                Instead::Ask => {}
            }
            let token = self.fly(source, Some(dead)).await?;
            if token != *dead {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    async fn fly<S: Source>(
        self: &Arc<Self>,
        source: &S,
        dead: Option<&AccessToken>,
    ) -> Result<AccessToken, Error> {
        let landed = self.flights.run((), || self.flight(source, dead)).await;
        landed.unwrap_or_else(|| Err(broke_off()))
    }

    fn flight<S: Source>(
        self: &Arc<Self>,
        source: &S,
        dead: Option<&AccessToken>,
    ) -> impl Future<Output = Result<AccessToken, Error>> + Send + use<S> {
        let (keeper, source, dead) = (Arc::clone(self), source.clone(), dead.cloned());
        async move {
            let refresh = keeper.refresh(&source, dead.as_ref());
            caught(refresh).await.unwrap_or_else(|panicked| {
                source.metrics().panicked();
                Err(broke_off().with_cause(panicked))
            })
        }
    }

    async fn refresh<S: Source>(
        &self,
        source: &S,
        dead: Option<&AccessToken>,
    ) -> Result<AccessToken, Error> {
        // A flight that has just landed may have stored what this one was about to fetch.
        let spared = self.state().spared(dead, Instant::now());
        let reason = match spared {
            Ok(token) => return Ok(token),
            Err(reason) => reason,
        };
        let died_early = dead.is_some_and(|dead| self.state().died_early(dead, Instant::now()));
        let token = self.fetch(source, reason, false).await?;
        if dead != Some(&token) {
            if died_early {
                self.tell_foreign(source);
            }
            return Ok(token);
        }
        let now = Instant::now();
        self.state().disputed = Some((token.clone(), now));
        let may_force = self.forces().admit(now);
        if !may_force {
            tracing::warn!(
                "WeChat gives an access_token that it refuses, and no refresh may be forced now"
            );
            return Ok(token);
        }
        tracing::warn!("WeChat gives an access_token that it refuses; a refresh is forced");
        self.fetch(source, "forced", true).await
    }

    /// Somebody else has had WeChat replace our token: another process that has the AppSecret and forces refreshes. Once may
    /// be a person at work; again within the hour, two systems take each other's tokens away.
    fn tell_foreign<S: Source>(&self, source: &S) {
        let now = Instant::now();
        let before = self.state().replaced_at.replace(now);
        source.metrics().token_replaced_by_another();
        let again = before.is_some_and(|at| now.saturating_duration_since(at) < FOREIGN_AGAIN);
        if again {
            tracing::warn!(
                "another system goes on to replace the access_token: find who else has the AppSecret and refreshes by force, and \
                 have it call WeChat through this sidecar"
            );
        } else {
            tracing::info!("another system has replaced the access_token");
        }
    }

    async fn fetch<S: Source>(
        &self,
        source: &S,
        reason: &'static str,
        force: bool,
    ) -> Result<AccessToken, Error> {
        // WeChat counts from when it answers, which is later.
        let asked_at = Instant::now();
        match source.fetch(force).await {
            Ok(grant) => {
                let same = self.state().hold(&grant, asked_at);
                let result = if same { "same" } else { "ok" };
                source.metrics().token_refreshed(reason, result);
                let until = asked_at + grant.expires_in;
                source
                    .metrics()
                    .token_lives(asked_at.into_std(), until.into_std());
                let expires_in = grant.expires_in.as_secs();
                tracing::debug!(reason, result, expires_in, "an access_token was fetched");
                Ok(grant.token)
            }
            Err(error) => {
                source.metrics().token_refreshed(reason, "error");
                Err(self.state().fail(error, Instant::now()))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forces(&self) -> MutexGuard<'_, Forces> {
        self.forces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn standing(&self, now: Instant) -> Standing {
        match (self.alive(now), &self.failed) {
            (Some(held), _) if now < held.renew_at => Standing::Good(held.token.clone()),
            (Some(held), Some(failed)) if failed.is_fresh(now) => {
                Standing::Good(held.token.clone())
            }
            (Some(held), _) => Standing::Due(held.token.clone()),
            (None, Some(failed)) if !failed.pause(now).is_zero() => {
                Standing::Hopeless(failed.told(now))
            }
            (None, _) => Standing::None,
        }
    }

    fn instead_of(&self, dead: &AccessToken, now: Instant) -> Instead {
        if let Some(other) = self.alive(now).filter(|held| held.token != *dead) {
            return Instead::Other(other.token.clone());
        }
        let is_disputed = self.disputed.as_ref().is_some_and(|(token, at)| {
            token == dead && now.saturating_duration_since(*at) < FORCE_PAUSE
        });
        match &self.failed {
            _ if is_disputed => Instead::Nothing,
            Some(failed) if !failed.pause(now).is_zero() => Instead::Hopeless(failed.told(now)),
            _ => Instead::Ask,
        }
    }

    /// The token that spares a fetch, if there is one, and otherwise why it is fetched.
    fn spared(
        &self,
        dead: Option<&AccessToken>,
        now: Instant,
    ) -> Result<AccessToken, &'static str> {
        match (self.alive(now), dead) {
            (Some(held), Some(dead)) if held.token == *dead => Err("refused"),
            (Some(held), None) if now >= held.renew_at => Err("due"),
            (Some(held), _) => Ok(held.token.clone()),
            (None, _) if self.held.is_some() => Err("expired"),
            (None, _) => Err("missing"),
        }
    }

    /// Whether `token` is held and would have lived for longer than WeChat lets an old one live beside the next.
    fn died_early(&self, token: &AccessToken, now: Instant) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.token == *token && now + OVERLAP < held.expires_at)
    }

    /// Takes what was granted; whether it is what was held already.
    fn hold(&mut self, grant: &Grant, asked_at: Instant) -> bool {
        let expires_at = asked_at + grant.expires_in;
        let held = self.held.replace(Held {
            token: grant.token.clone(),
            renew_at: expires_at - AHEAD.min(grant.expires_in / AHEAD_SHARE),
            expires_at,
        });
        self.failed = None;
        held.is_some_and(|held| held.token == grant.token)
    }

    /// Notes a fetch that failed. What is held stays. Gives what is to be told.
    fn fail(&mut self, error: Error, now: Instant) -> Error {
        let count = self.failed.as_ref().map_or(0, |failed| failed.count);
        let failed = self.failed.insert(Failed {
            last: error,
            at: now,
            count: count.saturating_add(1),
        });
        failed.told(now)
    }

    fn alive(&self, now: Instant) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < held.expires_at)
    }
}

impl Failed {
    /// How long from now nobody asks. After the first failure not at all, because it may have been one packet; then a
    /// second, doubled each time, because WeChat counts what we ask, and the refusals too.
    fn pause(&self, now: Instant) -> Duration {
        let doubled = match self.count.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(5)).min(LONGEST_PAUSE),
        };
        let quota = match self.last.fault() {
            Some(fault) if fault.meaning.class == Class::RateQuota => self.last.retry_after(),
            _ => None,
        };
        let pause = doubled.max(quota.unwrap_or_default());
        pause.saturating_sub(now.saturating_duration_since(self.at))
    }

    /// Whether it is too soon to try again where nobody waits for it.
    fn is_fresh(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        since < Duration::from_secs(1) || !self.pause(now).is_zero()
    }

    /// What a call without a token is told. A wrong configuration is told as it is; all else passes.
    fn told(&self, now: Instant) -> Error {
        let fault = self.last.fault();
        if fault.is_some_and(|fault| fault.meaning.class == Class::AuthConfig) {
            return self.last.clone();
        }
        let detail = (
            "WeChat gives the sidecar no access_token at the moment",
            "sidecar 目前无法从微信取得 access_token",
        );
        Error::new(Kind::AccessTokenUnavailable, Side::Wechat, detail)
            .with_retry_after(self.pause(now).max(Duration::from_secs(1)))
            .with_cause(self.last.clone())
    }
}

impl Forces {
    /// Whether one more may be forced now; then it counts.
    fn admit(&mut self, now: Instant) -> bool {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        while self.0.front().is_some_and(|at| since(at) >= FORCES_PERIOD) {
            self.0.pop_front();
        }
        let too_soon = self.0.back().is_some_and(|at| since(at) < FORCE_PAUSE);
        if too_soon || self.0.len() >= FORCES {
            return false;
        }
        self.0.push_back(now);
        true
    }
}

fn broke_off() -> Error {
    let detail = (
        "fetching an access_token broke off",
        "获取 access_token 的过程中断",
    );
    Error::new(Kind::Internal, Side::Us, detail)
}

#[cfg(test)]
mod tests;
