//! Login and sessions: a code becomes a session, a session is refreshed, ends, and says who a request comes from.
//!
//! The functions here take parsed values and give values or an [`Error`]; they know nothing of HTTP heads. Endpoints and
//! routes are wired to them in `server/`.

mod assertion;
mod shown;
mod store;
mod token;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use assertion::Assertions;
pub(crate) use shown::ShownToken;
pub(crate) use store::Store;
#[cfg(any(test, fuzzing))]
pub(crate) use store::{Login, Revocation, Stored, Vault};
pub(crate) use token::{Claims, Purpose, SessionId, TokenKeys, Unusable};

use crate::answer::Answer;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::crypto;
use crate::domain::{AppId, LoginCode, OpenId, SessionKey};
use crate::error::{Error, Kind, Side};
use crate::gateway::Gateway;
use crate::resilience::SingleFlight;
use crate::resilience::panics::caught;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::Throttle;
use crate::wechat::login::UserSession;
use crate::wechat::signature::session_signature;
use store::{Claimed, CodeHash, KeyRing, Spent, Unavailable};

/// How often the result of a login that another replica performs is asked for.
const LOGIN_POLL: Duration = Duration::from_millis(50);
/// What a login may take beside the calls to WeChat, before its claim on the code expires.
const LOGIN_MARGIN: Duration = Duration::from_secs(2);

/// What a client is given when it logs in or refreshes. `Debug` does not print the tokens.
#[derive(Clone)]
pub(crate) struct Granted {
    pub(crate) claims: Claims,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Secret,
    pub(crate) expires_in: Duration,
}

/// What sessions outlive: configuration changes. One per sidecar.
pub(crate) struct SessionState {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Refresh tokens that were shown again, in the log.
    reuse: Throttle<()>,
    flights: SingleFlight<CodeHash, Result<Granted, Error>>,
}

/// Sessions under one configuration.
pub(crate) struct Sessions {
    appid: AppId,
    keys: TokenKeys,
    ttl: config::Session,
    /// How long a login holds its code, at the most: as long as WeChat may take, asked with each AppSecret in turn.
    login_lease: Duration,
    gateway: Arc<Gateway>,
    state: Arc<SessionState>,
}

impl SessionState {
    pub(crate) fn new(store: Store, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            clock,
            metrics,
            reuse: Throttle::default(),
            flights: SingleFlight::new(),
        }
    }
}

impl Sessions {
    pub(crate) fn new(
        config: &config::Config,
        gateway: Arc<Gateway>,
        state: Arc<SessionState>,
    ) -> Self {
        let calls = u32::try_from(config.app.secrets.len()).unwrap_or(1);
        Self {
            appid: config.app.appid.clone(),
            keys: TokenKeys::derive(&config.app.appid, config.sealing_secrets()),
            ttl: config.session.clone(),
            login_lease: config.wechat.timeout.saturating_mul(calls) + LOGIN_MARGIN,
            gateway,
            state,
        }
    }

    /// Who an access token belongs to. No I/O. `shown` is what its connection remembers.
    pub(crate) fn verify(
        &self,
        access_token: &[u8],
        now: Timestamp,
        shown: &ShownToken,
    ) -> Result<Rc<Claims>, Error> {
        let keys = self.keys.id();
        if let Some(claims) = shown.recall(access_token, keys) {
            self.check(Purpose::Access, &claims, now)?;
            return Ok(claims);
        }
        let claims = Rc::new(self.open(Purpose::Access, access_token, now)?);
        shown.remember(access_token, keys, &claims);
        Ok(claims)
    }

    /// Exchanges a `wx.login` code for a session. The same code again, at once or within five minutes, gives the same
    /// session: phones on bad networks retry, and WeChat lets a code be used only once. If the store is away, nothing has
    /// been spent.
    pub(crate) async fn login(self: &Arc<Self>, code: LoginCode) -> Result<Granted, Error> {
        let hash = self.hash(&code);
        let sessions = Arc::clone(self);
        let work = move || async move { sessions.log_in(&hash, &code).await };
        let landed = self.state.flights.run(hash, work).await;
        landed.unwrap_or_else(|| Err(broke_off()))
    }

    /// Exchanges a refresh token for a new pair.
    pub(crate) async fn refresh(&self, refresh_token: &[u8]) -> Result<Granted, Error> {
        let now = self.state.clock.now();
        let mut claims = self.open(Purpose::Refresh, refresh_token, now)?;
        let spent = self
            .state
            .store
            .spend(
                claims.session,
                claims.generation,
                now,
                self.ttl.refresh_grace,
            )
            .await?;
        match spent {
            Spent::Now(generation) | Spent::Again(generation) => {
                claims.generation = generation;
                Ok(self.grant(claims, now))
            }
            Spent::Simultaneous => {
                let detail = (
                    "another call with this refresh token was answered a moment ago",
                    "另一个使用该刷新令牌的请求刚刚已得到响应",
                );
                Err(Error::downstream(Kind::RefreshConflict, detail)
                    .with_hint((
                        "use the tokens of that answer; if it was lost, ask again in a second",
                        "请使用那次响应中的令牌；若没有收到，请一秒后再试",
                    ))
                    .with_retry_after(Duration::from_secs(1)))
            }
            Spent::Before => {
                let ended = self.state.store.revoke(claims.session).await;
                self.note(ended);
                if let Some(suppressed) = self.state.reuse.pass((), Instant::now()) {
                    tracing::warn!(
                        event = "refresh_reuse",
                        suppressed,
                        "a spent refresh token was shown; its session is revoked"
                    );
                }
                let detail = (
                    "this refresh token was spent before, so somebody has a copy of it",
                    "该刷新令牌已经用过，说明有人复制了它",
                );
                Err(Error::downstream(Kind::RefreshReused, detail).with_hint(LOG_IN_AGAIN))
            }
        }
    }

    /// Ends the session that `claims` belong to, or all sessions of its user. An error says that other replicas may not
    /// know; this one does.
    pub(crate) async fn logout(&self, claims: &Claims, everywhere: bool) -> Result<(), Error> {
        let store = &self.state.store;
        let revoked = if everywhere {
            let now = self.state.clock.now();
            store.revoke_user(&claims.user.openid, now).await
        } else {
            store.revoke(claims.session).await
        };
        revoked.map_err(|why| {
            let detail = (
                "the session has ended here; the other replicas hear of it when the store of sessions can be reached again",
                "会话已在此结束；会话存储恢复后，其他副本才会得知",
            );
            why.told(detail)
        })
    }

    /// The session keys that what the user's phone encrypts may be encrypted with, newest first. The token's own is always
    /// among them, and the only one if the store is away.
    pub(crate) async fn ring(&self, claims: &Claims) -> Vec<SessionKey> {
        let ring = self.state.store.keys(&claims.user.openid).await;
        let mut keys = ring.map_or_else(
            |_away| {
                self.state.metrics.ring_degraded();
                Vec::new()
            },
            KeyRing::into_keys,
        );
        if !keys.contains(&claims.session_key) {
            keys.push(claims.session_key.clone());
        }
        keys
    }

    /// Signs `body` with the newest session_key of a user, as WeChat's APIs that act for a user want it; `None` if no key of
    /// the user is known here.
    pub(crate) async fn sign(&self, user: &OpenId, body: &[u8]) -> Result<Option<String>, Error> {
        let key = self.newest_key(user).await?;
        Ok(key.map(|key| session_signature(&key, body)))
    }

    /// Asks WeChat whether the newest session_key of a user is still the user's; `None` if none is known here.
    pub(crate) async fn check_key(&self, user: &OpenId) -> Result<Option<bool>, Error> {
        match self.newest_key(user).await? {
            Some(key) => self.gateway.check_session_key(user, &key).await.map(Some),
            None => Ok(None),
        }
    }

    /// Has WeChat replace the newest session_key of a user, and remembers the new one; false if none is known here.
    pub(crate) async fn reset_key(&self, user: &OpenId) -> Result<bool, Error> {
        let Some(key) = self.newest_key(user).await? else {
            return Ok(false);
        };
        let next = self.gateway.reset_session_key(user, &key).await?;
        self.state.store.remember_key(user, &next).await?;
        Ok(true)
    }

    /// Remembers a session_key that somebody else has had WeChat give out.
    pub(crate) async fn learn(&self, user: &OpenId, key: &SessionKey) {
        self.note(self.state.store.remember_key(user, key).await);
    }

    async fn newest_key(&self, user: &OpenId) -> Result<Option<SessionKey>, Error> {
        let ring = self.state.store.keys(user).await?;
        Ok(ring.into_keys().into_iter().next())
    }

    /// Who am I, for `GET /wx/session`.
    pub(crate) fn describe(&self, claims: &Claims) -> Answer {
        let now = self.state.clock.now();
        let mut session = json!({
            "openid": claims.user.openid.as_str(),
            "appid": self.appid.as_str(),
            "expires_in": claims.left(now).as_secs(),
            "started_at": claims.started.as_secs(),
        });
        if let Some(unionid) = &claims.user.unionid {
            session["unionid"] = Value::from(unionid.as_str());
        }
        Answer::json(200, &session)
    }

    /// One login, in this process and among all replicas that share the store: whoever claims the code exchanges it, and the
    /// others wait for what comes of it. The claim comes first, so that a code is not spent for a session that nobody
    /// could remember.
    async fn log_in(&self, hash: &CodeHash, code: &LoginCode) -> Result<Granted, Error> {
        let store = &self.state.store;
        let waiting = Instant::now();
        loop {
            match store.claim_login(hash, self.login_lease).await? {
                Claimed::Mine => break,
                Claimed::Done(granted) => return self.replay(*granted).await,
                Claimed::Elsewhere if waiting.elapsed() > self.login_lease => {
                    let detail = (
                        "the login of this code takes too long at another replica",
                        "另一个副本处理该 code 的登录耗时过长",
                    );
                    let error = Error::new(Kind::StoreUnavailable, Side::Us, detail);
                    return Err(error.with_retry_after(Duration::from_secs(1)));
                }
                Claimed::Elsewhere => tokio::time::sleep(LOGIN_POLL).await,
            }
        }
        let exchanged = caught(self.exchange(code))
            .await
            .unwrap_or_else(|panicked| {
                self.state.metrics.panicked();
                Err(broke_off().with_cause(panicked))
            });
        let noted = match &exchanged {
            Ok(granted) => store.remember_login(hash, granted).await,
            Err(_) => store.release_login(hash).await,
        };
        self.note(noted);
        exchanged
    }

    /// The session is good even if the store has gone away since the code was claimed: what it does not know is missed only
    /// by a client that sends the same code again, or has something old to decrypt.
    fn note(&self, noted: Result<(), Unavailable>) {
        if let Err(why) = noted {
            tracing::debug!(%why, "the store has missed a part of a login");
        }
    }

    async fn exchange(&self, code: &LoginCode) -> Result<Granted, Error> {
        match self.gateway.code2session(code).await {
            Ok(user) => {
                self.state.metrics.login("ok");
                Ok(self.begin(user).await)
            }
            Err(error) => {
                let class = error.fault().map(|fault| fault.meaning.class.as_str());
                self.state
                    .metrics
                    .login(class.unwrap_or(error.kind().row().slug));
                Err(error)
            }
        }
    }

    async fn begin(&self, session: UserSession) -> Granted {
        let now = self.state.clock.now();
        let store = &self.state.store;
        let (openid, key) = (&session.openid, &session.session_key);
        let started = store.start_after_revocations(openid, now).await;
        self.note(store.remember_key(openid, key).await);
        let claims = Claims {
            session: SessionId::random(),
            generation: 0,
            started,
            expires: now,
            user: crate::domain::User {
                openid: session.openid,
                unionid: session.unionid,
            },
            session_key: session.session_key,
        };
        self.grant(claims, now)
    }

    /// The session that a code was exchanged for before, if it still lives.
    async fn replay(&self, mut granted: Granted) -> Result<Granted, Error> {
        if self.state.store.is_revoked(&granted.claims) {
            let detail = (
                "the session of this code has been ended",
                "该 code 的会话已结束",
            );
            return Err(Error::downstream(Kind::TokenInvalid, detail).with_hint(LOG_IN_AGAIN));
        }
        let generation = self.state.store.generation(granted.claims.session).await?;
        self.state.metrics.login("replayed");
        let now = self.state.clock.now();
        granted.expires_in = granted.claims.left(now);
        let token = granted.access_token.expose().as_bytes();
        let usable = self.keys.verify(Purpose::Access, token, now).is_ok();
        if generation > granted.claims.generation || !usable {
            // An access token that is dead, or sealed with a key that is gone, would be no answer, and a spent refresh
            // token a trap: using it ends the session.
            granted.claims.generation = generation.max(granted.claims.generation);
            return Ok(self.grant(granted.claims, now));
        }
        Ok(granted)
    }

    fn grant(&self, claims: Claims, now: Timestamp) -> Granted {
        let access = Claims {
            expires: now.plus(self.ttl.access_ttl),
            ..claims.clone()
        };
        let refresh = Claims {
            expires: now.plus(self.ttl.refresh_ttl),
            ..claims
        };
        Granted {
            access_token: Secret::new(self.keys.mint(Purpose::Access, &access)),
            refresh_token: Secret::new(self.keys.mint(Purpose::Refresh, &refresh)),
            expires_in: self.ttl.access_ttl,
            claims: access,
        }
    }

    fn open(&self, purpose: Purpose, token: &[u8], now: Timestamp) -> Result<Claims, Error> {
        let opened = self.keys.open(purpose, token);
        let (slot, claims) = opened.ok_or_else(|| refused(purpose, Unusable::Invalid))?;
        self.state.metrics.token_opened(slot);
        self.check(purpose, &claims, now)?;
        Ok(claims)
    }

    /// What may change after a token was opened: whether it has expired, and whether its session was ended.
    fn check(&self, purpose: Purpose, claims: &Claims, now: Timestamp) -> Result<(), Error> {
        if claims.has_expired(now) {
            return Err(refused(purpose, Unusable::Expired));
        }
        if self.state.store.is_revoked(claims) {
            return Err(refused(purpose, Unusable::Invalid));
        }
        Ok(())
    }

    fn hash(&self, code: &LoginCode) -> CodeHash {
        crypto::sha256(format!("{}|{}", self.appid, code.expose()).as_bytes())
    }
}

const LOG_IN_AGAIN: (&str, &str) = ("call wx.login again", "请重新调用 wx.login");

fn broke_off() -> Error {
    Error::new(
        Kind::Internal,
        Side::Us,
        ("the login broke off", "登录过程中断"),
    )
}

fn refused(purpose: Purpose, why: Unusable) -> Error {
    match why {
        Unusable::Invalid => Error::downstream(
            Kind::TokenInvalid,
            (
                "the token is not valid, or its session has ended",
                "令牌无效，或其会话已结束",
            ),
        )
        .with_hint(LOG_IN_AGAIN),
        Unusable::Expired => {
            let hint = match purpose {
                Purpose::Access => ("refresh it", "请用刷新令牌换取新的访问令牌"),
                Purpose::Refresh => LOG_IN_AGAIN,
            };
            let detail = ("the token has expired", "令牌已过期");
            Error::downstream(Kind::TokenExpired, detail).with_hint(hint)
        }
    }
}

impl Granted {
    /// The tokens as field lines, for an answer whose body is somebody else's.
    pub(crate) fn to_lines(&self) -> Vec<(&'static str, String)> {
        let expires_in = self.expires_in.as_secs().to_string();
        vec![
            ("X-WX-Access-Token", self.access_token.expose().to_owned()),
            ("X-WX-Refresh-Token", self.refresh_token.expose().to_owned()),
            ("X-WX-Expires-In", expires_in),
            ("cache-control", "no-store".to_owned()),
        ]
    }

    /// The answer to a login or a refresh. The session_key is not in it and never will be.
    pub(crate) fn to_answer(&self) -> Answer {
        let mut body = json!({
            "access_token": self.access_token.expose(),
            "token_type": "Bearer",
            "expires_in": self.expires_in.as_secs(),
            "refresh_token": self.refresh_token.expose(),
            "openid": self.claims.user.openid.as_str(),
        });
        if let Some(unionid) = &self.claims.user.unionid {
            body["unionid"] = Value::from(unionid.as_str());
        }
        Answer::json(200, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Memory;

    fn sessions() -> Sessions {
        let config = config::Config::from_toml(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n",
        );
        let config = config.unwrap();
        let metrics = Arc::new(Metrics::new());
        let gateway = Gateway::new(
            &config.app,
            &config.wechat,
            &Memory::default(),
            Arc::clone(&metrics),
        );
        let store = Store::new(&config, &metrics);
        let state = SessionState::new(store, Clock::default(), metrics);
        Sessions::new(&config, Arc::new(gateway), Arc::new(state))
    }

    fn key(byte: u8) -> SessionKey {
        SessionKey::from_bytes([byte; 16])
    }

    #[tokio::test]
    async fn a_ring_has_the_keys_of_late_and_always_the_tokens_own() {
        let sessions = sessions();
        let granted = sessions.begin(UserSession {
            openid: OpenId::parse("o6zAJs1ZfWpsZ3G8vVCxxxxxxxxx").unwrap(),
            unionid: None,
            session_key: key(1),
        });
        let claims = granted.await.claims;
        let openid = &claims.user.openid;
        assert_eq!(sessions.ring(&claims).await, [key(1)]);
        for (new, expected) in [
            (2, vec![key(2), key(1)]),
            (3, vec![key(3), key(2), key(1)]),
            (4, vec![key(4), key(3), key(2), key(1)]),
            (2, vec![key(2), key(4), key(3), key(1)]),
        ] {
            let store = &sessions.state.store;
            store.remember_key(openid, &key(new)).await.unwrap();
            assert_eq!(sessions.ring(&claims).await, expected);
        }
    }

    /// What two devices of a user may do, in any order: log in (and get a new session_key, or the one that WeChat has just
    /// made), encrypt with the key that is WeChat's then, and have it decrypted.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        LogIn { device: usize, rotates: bool },
        Encrypt,
        Decrypt { device: usize },
    }

    #[tokio::test]
    async fn whatever_two_devices_do_what_can_be_decrypted_is() {
        const STEPS: [Step; 7] = [
            Step::LogIn {
                device: 0,
                rotates: true,
            },
            Step::LogIn {
                device: 1,
                rotates: true,
            },
            Step::LogIn {
                device: 0,
                rotates: false,
            },
            Step::LogIn {
                device: 1,
                rotates: false,
            },
            Step::Encrypt,
            Step::Decrypt { device: 0 },
            Step::Decrypt { device: 1 },
        ];
        const LENGTH: u32 = 5;
        let sessions = sessions();
        let mut decrypted = 0;
        for order in 0..STEPS.len().pow(LENGTH) {
            let user = OpenId::parse(&format!("user-{order}")).unwrap();
            let mut wechat: Vec<SessionKey> = Vec::new();
            let mut devices = [None, None];
            let mut made_with = None;
            let mut rest = order;
            for _ in 0..LENGTH {
                let step = STEPS[rest % STEPS.len()];
                rest /= STEPS.len();
                match step {
                    Step::LogIn { device, rotates } => {
                        if rotates || wechat.is_empty() {
                            wechat.push(key(wechat.len() as u8));
                        }
                        let session = UserSession {
                            openid: user.clone(),
                            unionid: None,
                            session_key: wechat.last().unwrap().clone(),
                        };
                        devices[device] = Some(sessions.begin(session).await.claims);
                    }
                    Step::Encrypt => made_with = wechat.len().checked_sub(1),
                    Step::Decrypt { device } => {
                        let (Some(made_with), Some(claims)) = (made_with, &devices[device]) else {
                            continue;
                        };
                        let key = &wechat[made_with];
                        let is_recent = wechat.len() - made_with <= 3;
                        let expected = is_recent || claims.session_key == *key;
                        let found = sessions.ring(claims).await.contains(key);
                        assert_eq!(found, expected, "{order}: {step:?}");
                        decrypted += usize::from(found);
                    }
                }
            }
        }
        assert!(decrypted > 1000, "{decrypted}");
    }
}
