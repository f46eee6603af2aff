//! What the simulated WeChat knows: apps, users, codes, tokens. The rules of login are here; no I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::access::Access;
use super::api_security::ApiSecurity;
use super::calls::Calls;
use super::fault::Faults;
use super::ids::{self, Ids};
use super::media::Media;
use super::message::Conversation;
use super::open_data::CloudIds;
use super::outbox::Outbox;
use super::payment::{PayKeys, Payments};
use super::quota::{Quota, Quotas, Usage, minute};
use super::refusal::Refusal;
use super::rids::{Remembered, Rids};
use super::token::{Chain, Grant, StableChain};
use super::user::{Belongings, Proofs};
use crate::clock::{Clock, Timestamp};
use crate::domain::{AppId, OpenId, SessionKey, UnionId};
use crate::secret::Secret;

/// How long a code may be redeemed.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(300);
const LOGINS_PER_MINUTE: u32 = 100;
const SESSION_KEY_PERIOD: Duration = Duration::from_secs(60);

/// A Mini Program as the simulator is told of it.
#[derive(Clone, Debug)]
pub struct SimApp {
    /// Its AppID.
    pub appid: AppId,
    /// Its AppSecrets; any of them is right, as while WeChat rotates one.
    pub secrets: Vec<Secret>,
    /// Whether it is bound to the Open Platform account, so that its users have unionids. True by default.
    pub unionid: bool,
    /// Logins within this time of the session_key's making get the same key again; zero makes a new one each time.
    /// 60 seconds by default; WeChat does not tell its own.
    pub session_key_period: Duration,
    /// Its API security; by default it has none, and calls are plain.
    pub api_security: Option<Arc<ApiSecurity>>,
    /// The pages of its released version; every page exists if there are none, as by default.
    pub pages: Option<Vec<String>>,
    /// Its keys for virtual payment, without which it has none (48001). None by default.
    pub pay_keys: Option<PayKeys>,
}

impl SimApp {
    /// An app with one secret and the defaults.
    pub fn new(appid: AppId, secret: Secret) -> Self {
        Self {
            appid,
            secrets: vec![secret],
            unionid: true,
            session_key_period: SESSION_KEY_PERIOD,
            api_security: None,
            pages: None,
            pay_keys: None,
        }
    }
}

/// A change to a user; what is `None` stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserChange {
    /// Whether WeChat's risk control refuses the user's logins (40226).
    pub blocked: Option<bool>,
    /// Whether the user has a unionid.
    pub unionid: Option<bool>,
    /// Makes new session_keys at once, in every app the user has logged in to.
    pub rotate: bool,
    /// Logins per minute and app before 45011; 100 by default.
    pub logins_per_minute: Option<u32>,
    /// The user's phone number, without its country code, which is 86. Made up from the name by default.
    pub phone: Option<String>,
    /// Whether the user takes subscription messages (43101 if not). True by default.
    pub subscribed: Option<bool>,
    /// Has the user write to customer service now, in every app: that opens 48 hours for replies.
    pub wrote: bool,
    /// What `/wxa/getuserriskrank` says of the user, 0 to 4; 0 by default.
    pub risk_rank: Option<u8>,
}

/// What a code is for; one kind is garbage where another is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CodeKind {
    /// From `wx.login`.
    #[default]
    Login,
    /// From the phone number button.
    Phone,
}

/// What `/sns/jscode2session` answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) openid: OpenId,
    pub(super) session_key: SessionKey,
    pub(super) unionid: Option<UnionId>,
}

/// All of it.
pub(super) struct State {
    clock: Clock,
    offset: Duration,
    /// Where the simulator is reached; no slash at the end.
    pub(super) url: String,
    pub(super) ids: Ids,
    pub(super) apps: Vec<App>,
    pub(super) users: BTreeMap<String, User>,
    codes: HashMap<String, Code>,
    /// The codes in the order of their making, so that the expired ones are found without a search.
    code_order: VecDeque<String>,
    pub(super) cloud_ids: CloudIds,
    pub(super) media: Media,
    pub(super) proofs: Proofs,
    pub(super) payments: Payments,
    pub(super) access: Access,
    pub(super) quotas: Quotas,
    pub(super) rids: Rids,
    pub(super) faults: Faults,
    pub(super) calls: Calls,
    /// If there is somebody to push to.
    pub(super) outbox: Option<Outbox>,
}

/// An app and its tokens.
pub(super) struct App {
    pub(super) known: SimApp,
    /// Codes made of the kinds that are limited.
    pub(super) limited_codes: u32,
    classic: Chain,
    stable: StableChain,
}

/// A person with WeChat.
pub(super) struct User {
    pub(super) blocked: bool,
    pub(super) unionid: bool,
    pub(super) logins_per_minute: u32,
    /// If one has been set.
    phone: Option<String>,
    /// By the app's index.
    pub(super) sessions: BTreeMap<usize, Session>,
    pub(super) subscribed: bool,
    pub(super) risk_rank: u8,
    /// With customer service, by the app's index.
    pub(super) conversations: BTreeMap<usize, Conversation>,
    /// By the app's index.
    pub(super) belongings: BTreeMap<usize, Belongings>,
}

/// A user's login state in one app.
#[derive(Default)]
pub(super) struct Session {
    /// The one valid key and when it was made; none before the first login.
    pub(super) key: Option<(SessionKey, Timestamp)>,
    /// The one before it, which clients that are behind still encrypt with.
    pub(super) previous: Option<SessionKey>,
    pub(super) logged_in_at: Option<Timestamp>,
    logins: Quota,
}

struct Code {
    app: usize,
    kind: CodeKind,
    user: String,
    made_at: Timestamp,
    used: bool,
}

impl Default for User {
    fn default() -> Self {
        Self {
            blocked: false,
            unionid: true,
            logins_per_minute: LOGINS_PER_MINUTE,
            phone: None,
            sessions: BTreeMap::new(),
            subscribed: true,
            risk_rank: 0,
            conversations: BTreeMap::new(),
            belongings: BTreeMap::new(),
        }
    }
}

impl State {
    pub(super) fn new(clock: Clock, seed: u64, apps: Vec<SimApp>) -> Self {
        Self {
            clock,
            offset: Duration::ZERO,
            url: String::new(),
            ids: Ids::new(seed),
            apps: apps.into_iter().map(App::new).collect(),
            users: BTreeMap::new(),
            codes: HashMap::new(),
            code_order: VecDeque::new(),
            cloud_ids: CloudIds::default(),
            media: Media::default(),
            proofs: Proofs::default(),
            payments: Payments::default(),
            access: Access::default(),
            quotas: Quotas::default(),
            rids: Rids::default(),
            faults: Faults::default(),
            calls: Calls::default(),
            outbox: None,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().plus(self.offset)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.offset = self.offset.saturating_add(by);
    }

    /// Back to the beginning, except that apps stay as they are now and that no made-up value comes a second time.
    pub(super) fn reset(&mut self) {
        self.offset = Duration::ZERO;
        for app in &mut self.apps {
            (app.classic, app.stable) = (Chain::default(), StableChain::default());
            app.limited_codes = 0;
        }
        self.users.clear();
        self.codes.clear();
        self.code_order.clear();
        self.cloud_ids = CloudIds::default();
        self.media = Media::default();
        self.proofs = Proofs::default();
        self.payments = Payments::default();
        self.access = Access::default();
        self.quotas = Quotas::default();
        self.rids = Rids::default();
        self.faults.clear();
        self.calls = Calls::default();
        if let Some(outbox) = &mut self.outbox {
            outbox.clear();
        }
    }

    pub(super) fn app_index(&self, appid: &str) -> Option<usize> {
        self.apps
            .iter()
            .position(|app| app.known.appid.as_str() == appid)
    }

    pub(super) fn rid(&mut self) -> String {
        let now = self.now();
        self.ids.rid(now)
    }

    pub(super) fn openid(&self, app: usize, user: &str) -> OpenId {
        ids::openid(&self.apps[app].known.appid, user)
    }

    /// The unionid, if the user has one and the app is bound.
    pub(super) fn unionid(&self, app: usize, user: &str) -> Option<UnionId> {
        let has_one = self.users.get(user).is_none_or(|user| user.unionid);
        (has_one && self.apps[app].known.unionid).then(|| ids::unionid(user))
    }

    pub(super) fn issue_code(&mut self, app: usize, user: &str, kind: CodeKind) -> String {
        let now = self.now();
        self.forget_expired_codes(now);
        self.users.entry(user.to_owned()).or_default();
        let code = self.ids.code();
        self.code_order.push_back(code.clone());
        self.codes.insert(
            code.clone(),
            Code {
                app,
                kind,
                user: user.to_owned(),
                made_at: now,
                used: false,
            },
        );
        code
    }

    pub(super) fn change_user(&mut self, user: &str, change: &UserChange) {
        let now = self.now();
        let user = self.users.entry(user.to_owned()).or_default();
        user.blocked = change.blocked.unwrap_or(user.blocked);
        user.unionid = change.unionid.unwrap_or(user.unionid);
        user.logins_per_minute = change.logins_per_minute.unwrap_or(user.logins_per_minute);
        if change.phone.is_some() {
            user.phone.clone_from(&change.phone);
        }
        user.subscribed = change.subscribed.unwrap_or(user.subscribed);
        user.risk_rank = change.risk_rank.unwrap_or(user.risk_rank);
        if change.wrote {
            let apps = 0..self.apps.len();
            user.conversations = apps.map(|app| (app, Conversation::begun(now))).collect();
        }
        if change.rotate {
            for session in user.sessions.values_mut() {
                session.renew(self.ids.session_key(), now);
            }
        }
    }

    /// The app's secrets are others now.
    pub(super) fn change_secrets(&mut self, appid: &AppId, secrets: Vec<Secret>) {
        let mut apps = self.apps.iter_mut();
        if let Some(app) = apps.find(|app| app.known.appid == *appid) {
            app.known.secrets = secrets;
        }
    }

    /// The app with this appid, if the secret is one of its secrets.
    pub(super) fn authenticate(
        &self,
        appid: Option<&str>,
        secret: Option<&str>,
    ) -> Result<usize, Refusal> {
        let appid = appid.ok_or(Refusal::AppIdMissing)?;
        let app = self.app_index(appid).ok_or(Refusal::AppIdInvalid)?;
        let secret = secret.ok_or(Refusal::AppSecretMissing)?;
        let known = &self.apps[app].known.secrets;
        if !known.iter().any(|known| known.expose() == secret) {
            return Err(Refusal::AppSecretInvalid);
        }
        Ok(app)
    }

    /// Redeems a login code. A login that is refused for the user's sake (risk, quota) leaves the code unspent: WeChat's
    /// advice is "retry next minute", and a blocked user sees the same refusal again and not a misleading "code used".
    pub(super) fn log_in(&mut self, app: usize, code: &str) -> Result<Login, Refusal> {
        let now = self.now();
        let code = self
            .codes
            .get_mut(code)
            .filter(|code| code.app == app && code.kind == CodeKind::Login)
            .filter(|code| now.since(code.made_at) <= CODE_LIFE)
            .ok_or(Refusal::CodeInvalid)?;
        if code.used {
            return Err(Refusal::CodeUsed);
        }
        let user = self.users.entry(code.user.clone()).or_default();
        if user.blocked {
            return Err(Refusal::CodeBlocked);
        }
        let session = user.sessions.entry(app).or_default();
        if !session.logins.admit(minute(now), user.logins_per_minute) {
            return Err(Refusal::MinuteQuota);
        }
        code.used = true;
        session.logged_in_at = Some(now);

        let period = self.apps[app].known.session_key_period;
        let session_key = match &session.key {
            Some((key, made_at)) if now.since(*made_at) < period => key.clone(),
            _ => {
                let key = self.ids.session_key();
                session.renew(key.clone(), now);
                key
            }
        };
        let user = code.user.clone();
        Ok(Login {
            openid: self.openid(app, &user),
            session_key,
            unionid: self.unionid(app, &user),
        })
    }

    /// Redeems a phone code for the user's name. A used one is as invalid as an unknown one: WeChat does not tell them
    /// apart here. What is refused for another reason is not spent.
    pub(super) fn redeem_phone_code(
        &mut self,
        app: usize,
        code: &str,
        openid: Option<&str>,
    ) -> Result<String, Refusal> {
        let now = self.now();
        let known = self.codes.get(code).filter(|code| {
            code.kind == CodeKind::Phone && !code.used && now.since(code.made_at) <= CODE_LIFE
        });
        let known = known.ok_or(Refusal::CodeInvalid)?;
        if known.app != app {
            return Err(Refusal::AppIdInvalid);
        }
        let user = known.user.clone();
        if openid.is_some_and(|openid| openid != self.openid(app, &user).as_str()) {
            return Err(Refusal::OpenIdInvalid);
        }
        if let Some(code) = self.codes.get_mut(code) {
            code.used = true;
        }
        Ok(user)
    }

    /// The user's phone number, which everybody has.
    pub(super) fn phone_number(&self, user: &str) -> String {
        let set = self.users.get(user).and_then(|user| user.phone.clone());
        set.unwrap_or_else(|| ids::phone_number(user))
    }

    /// The user whose openid in the app this is.
    pub(super) fn user_of(&self, app: usize, openid: &str) -> Option<String> {
        let is = |user: &&String| self.openid(app, user).as_str() == openid;
        self.users.keys().find(is).cloned()
    }

    /// Whether a call is signed with the user's valid session_key; then the user's name.
    pub(super) fn check_signature(
        &self,
        app: usize,
        openid: &str,
        signature: &str,
        body: &[u8],
    ) -> Result<String, Refusal> {
        let user = self.user_of(app, openid).ok_or(Refusal::OpenIdInvalid)?;
        let session = self.users[&user].sessions.get(&app);
        let key = session.and_then(|session| session.key.as_ref());
        let (key, _) = key.ok_or(Refusal::SessionKeyMissing)?;
        if ids::session_signature(key, body) != signature {
            return Err(Refusal::SignatureInvalid);
        }
        Ok(user)
    }

    /// A new session_key for a user who has one, no younger than the one that it replaces.
    pub(super) fn reset_session_key(
        &mut self,
        app: usize,
        user: &str,
    ) -> Result<SessionKey, Refusal> {
        let session = self
            .users
            .get_mut(user)
            .and_then(|user| user.sessions.get_mut(&app));
        let session = session.ok_or(Refusal::SessionKeyMissing)?;
        let (_, made_at) = session.key.as_ref().ok_or(Refusal::SessionKeyMissing)?;
        let (key, made_at) = (self.ids.session_key(), *made_at);
        session.renew(key.clone(), made_at);
        Ok(key)
    }

    /// A new classic token.
    pub(super) fn token(&mut self, app: usize) -> Grant {
        let now = self.now();
        self.apps[app].classic.issue(now, &mut self.ids)
    }

    /// The stable token; see [`StableChain::obtain`].
    pub(super) fn stable_token(&mut self, app: usize, force: bool) -> Result<Grant, Refusal> {
        let now = self.now();
        self.apps[app].stable.obtain(force, now, &mut self.ids)
    }

    /// Whether a call with this access_token may pass, and which app's it is: the gate of every endpoint that takes one.
    pub(super) fn check_access_token(&self, token: Option<&str>) -> Result<usize, Refusal> {
        let token = token.ok_or(Refusal::TokenMissing)?;
        if !looks_like_a_token(token) {
            return Err(Refusal::TokenMalformed);
        }
        let now = self.now();
        self.apps
            .iter()
            .enumerate()
            .find_map(|(index, app)| {
                let known = app.classic.check(token, now);
                let known = known.or_else(|| app.stable.check(token, now))?;
                Some(known.map(|()| index))
            })
            .unwrap_or(Err(Refusal::CredentialInvalid))
    }

    /// Counts a call of an app whose credentials are right, unless it does not have the API, or no more of it.
    pub(super) fn admit(&mut self, app: usize, path: &str) -> Result<(), Refusal> {
        self.access.check_path(path)?;
        let now = self.now();
        self.quotas.admit(app, path, now)
    }

    /// What an app has used of an API, for `/cgi-bin/openapi/quota/get`.
    pub(super) fn quota_of(&self, app: usize, path: &str) -> Usage {
        self.quotas.usage(app, path, self.now())
    }

    /// Gives an app the day's calls of an API back, or of all of them.
    pub(super) fn clear_quota(&mut self, app: usize, path: Option<&str>) {
        self.quotas.clear(app, path);
    }

    /// The same if the app may still ask for it this month.
    pub(super) fn clear_quota_on_request(
        &mut self,
        app: usize,
        path: Option<&str>,
    ) -> Result<(), Refusal> {
        let now = self.now();
        self.quotas.clear_on_request(app, path, now)
    }

    /// The refused call that was told this rid, for `/cgi-bin/openapi/rid/get`.
    pub(super) fn call_by_rid(&self, rid: &str) -> Option<&Remembered> {
        self.rids.find(rid, self.now())
    }

    fn forget_expired_codes(&mut self, now: Timestamp) {
        while let Some(oldest) = self.code_order.front() {
            let expired = self
                .codes
                .get(oldest)
                .is_none_or(|code| now.since(code.made_at) > CODE_LIFE);
            if !expired {
                return;
            }
            self.codes.remove(oldest);
            self.code_order.pop_front();
        }
    }
}

impl Session {
    fn renew(&mut self, key: SessionKey, made_at: Timestamp) {
        let before = self.key.replace((key, made_at));
        self.previous = before.map(|(key, _)| key);
    }
}

impl App {
    /// Whether its released version has the page; an empty one is its first. A path begins without a slash and has no
    /// query.
    pub(super) fn has_page(&self, page: &str) -> bool {
        let known = self.known.pages.as_ref();
        let well_formed = !page.starts_with('/') && !page.contains('?');
        let is_known = known.is_none_or(|pages| pages.iter().any(|known| known == page));
        page.is_empty() || (well_formed && is_known)
    }

    fn new(known: SimApp) -> Self {
        Self {
            known,
            limited_codes: 0,
            classic: Chain::default(),
            stable: StableChain::default(),
        }
    }
}

fn looks_like_a_token(text: &str) -> bool {
    (32..=512).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_040_000);

    fn app(appid: &str) -> SimApp {
        SimApp::new(AppId::parse(appid).unwrap(), Secret::new("right"))
    }

    fn state() -> State {
        let apps = vec![app("wx0123456789abcdef"), app("wxfedcba9876543210")];
        State::new(Clock::manual(START), 7, apps)
    }

    fn log_in(state: &mut State, user: &str) -> Result<Login, Refusal> {
        let code = state.issue_code(0, user, CodeKind::Login);
        state.log_in(0, &code)
    }

    #[test]
    fn a_code_works_once() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
        assert!(state.log_in(0, &code).is_ok());
        assert_eq!(state.log_in(0, &code), Err(Refusal::CodeUsed));
    }

    #[test]
    fn a_code_lives_three_hundred_seconds_and_not_one_more() {
        let mut state = state();
        let (early, late) = (
            state.issue_code(0, "alice", CodeKind::Login),
            state.issue_code(0, "alice", CodeKind::Login),
        );
        state.advance(Duration::from_secs(300));
        assert!(state.log_in(0, &early).is_ok());
        state.advance(Duration::from_millis(1));
        assert_eq!(state.log_in(0, &late), Err(Refusal::CodeInvalid));
        assert_eq!(
            state.log_in(0, &early),
            Err(Refusal::CodeInvalid),
            "an old code is unknown, whether or not it was used"
        );
    }

    #[test]
    fn expired_codes_are_forgotten() {
        let mut state = state();
        for _ in 0..10 {
            state.issue_code(0, "alice", CodeKind::Login);
        }
        state.advance(Duration::from_secs(301));
        state.issue_code(0, "alice", CodeKind::Login);
        assert_eq!((state.codes.len(), state.code_order.len()), (1, 1));
    }

    #[test]
    fn a_code_of_another_app_or_kind_or_of_nobody_is_invalid() {
        let mut state = state();
        let other_app = state.issue_code(1, "alice", CodeKind::Login);
        let phone = state.issue_code(0, "alice", CodeKind::Phone);
        for code in [other_app.as_str(), &phone, "0garbage", ""] {
            assert_eq!(state.log_in(0, code), Err(Refusal::CodeInvalid), "{code}");
        }
        assert!(
            state.log_in(1, &other_app).is_ok(),
            "the attempt did not spend it"
        );
    }

    #[test]
    fn a_phone_code_works_once_for_its_app_and_user_and_five_minutes() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Phone);
        let (alice, bob) = (state.openid(0, "alice"), state.openid(0, "bob"));
        for (app, openid, refusal) in [
            (1, None, Refusal::AppIdInvalid),
            (0, Some(bob.as_str()), Refusal::OpenIdInvalid),
        ] {
            let redeemed = state.redeem_phone_code(app, &code, openid);
            assert_eq!(redeemed, Err(refusal), "and it is not spent");
        }
        let redeemed = state.redeem_phone_code(0, &code, Some(alice.as_str()));
        assert_eq!(redeemed.as_deref(), Ok("alice"));
        let (login, late) = (
            state.issue_code(0, "alice", CodeKind::Login),
            state.issue_code(0, "alice", CodeKind::Phone),
        );
        state.advance(Duration::from_millis(300_001));
        for code in [code.as_str(), &login, &late, "0garbage"] {
            let redeemed = state.redeem_phone_code(0, code, None);
            assert_eq!(redeemed, Err(Refusal::CodeInvalid));
        }
    }

    #[test]
    fn a_phone_number_is_the_users_own_until_another_is_set() {
        let mut state = state();
        let number = state.phone_number("alice");
        assert!(number.len() == 11 && number.starts_with('1'));
        assert_eq!(state.phone_number("alice"), number);
        assert_ne!(state.phone_number("bob"), number);
        let change = UserChange {
            phone: Some("13800138000".to_owned()),
            ..UserChange::default()
        };
        state.change_user("alice", &change);
        state.change_user("alice", &UserChange::default());
        assert_eq!(state.phone_number("alice"), "13800138000");
    }

    #[test]
    fn only_the_valid_key_signs_and_a_reset_replaces_it_without_making_it_younger() {
        let mut state = state();
        let login = log_in(&mut state, "alice").unwrap();
        let openid = login.openid.as_str();
        let signature = ids::session_signature(&login.session_key, b"");
        let check =
            |state: &State, signature: &str| state.check_signature(0, openid, signature, b"");
        assert_eq!(check(&state, &signature).as_deref(), Ok("alice"));
        state.advance(Duration::from_secs(59));
        let new = state.reset_session_key(0, "alice").unwrap();
        assert_eq!(check(&state, &signature), Err(Refusal::SignatureInvalid));
        assert!(check(&state, &ids::session_signature(&new, b"")).is_ok());
        state.advance(Duration::from_secs(1));
        assert!(
            log_in(&mut state, "alice").unwrap().session_key != new,
            "its time was over"
        );

        state.issue_code(0, "bob", CodeKind::Login);
        let bob = state.openid(0, "bob");
        for (openid, refusal) in [
            (bob.as_str(), Refusal::SessionKeyMissing),
            ("o-nobody", Refusal::OpenIdInvalid),
        ] {
            assert_eq!(
                state.check_signature(0, openid, &signature, b""),
                Err(refusal)
            );
        }
    }

    #[test]
    fn an_openid_is_stable_and_differs_by_user_and_app_while_a_unionid_differs_by_user_alone() {
        let mut state = state();
        let alice = log_in(&mut state, "alice").unwrap();
        assert_eq!(log_in(&mut state, "alice").unwrap().openid, alice.openid);
        let bob = log_in(&mut state, "bob").unwrap();
        assert_ne!(bob.openid, alice.openid);
        assert_ne!(bob.unionid, alice.unionid);
        let code = state.issue_code(1, "alice", CodeKind::Login);
        let elsewhere = state.log_in(1, &code).unwrap();
        assert_ne!(elsewhere.openid, alice.openid);
        assert_eq!(elsewhere.unionid, alice.unionid);
        assert_ne!(elsewhere.session_key, alice.session_key);
    }

    #[test]
    fn a_unionid_needs_a_bound_app_and_a_user_who_has_one() {
        let mut state = state();
        state.change_user(
            "alice",
            &UserChange {
                unionid: Some(false),
                ..UserChange::default()
            },
        );
        assert_eq!(log_in(&mut state, "alice").unwrap().unionid, None);
        assert!(log_in(&mut state, "bob").unwrap().unionid.is_some());
        state.apps[0].known.unionid = false;
        assert_eq!(log_in(&mut state, "bob").unwrap().unionid, None);
    }

    #[test]
    fn a_session_key_stays_for_its_period_and_then_rotates() {
        let mut state = state();
        let first = log_in(&mut state, "alice").unwrap().session_key;
        state.advance(Duration::from_secs(59));
        assert!(log_in(&mut state, "alice").unwrap().session_key == first);
        state.advance(Duration::from_secs(1));
        let second = log_in(&mut state, "alice").unwrap().session_key;
        assert!(second != first);
        state.apps[0].known.session_key_period = Duration::ZERO;
        assert!(log_in(&mut state, "alice").unwrap().session_key != second);
    }

    #[test]
    fn a_forced_rotation_changes_the_key_within_the_period() {
        let mut state = state();
        let first = log_in(&mut state, "alice").unwrap().session_key;
        let rotate = UserChange {
            rotate: true,
            ..UserChange::default()
        };
        state.change_user("alice", &rotate);
        let second = log_in(&mut state, "alice").unwrap().session_key;
        assert!(second != first);
        assert!(log_in(&mut state, "alice").unwrap().session_key == second);
    }

    #[test]
    fn a_blocked_user_is_refused_and_the_code_is_not_spent() {
        let mut state = state();
        let blocked = |blocked| UserChange {
            blocked: Some(blocked),
            ..UserChange::default()
        };
        state.change_user("alice", &blocked(true));
        let code = state.issue_code(0, "alice", CodeKind::Login);
        assert_eq!(state.log_in(0, &code), Err(Refusal::CodeBlocked));
        state.change_user("alice", &blocked(false));
        assert!(state.log_in(0, &code).is_ok());
    }

    #[test]
    fn the_login_quota_is_per_user_and_minute() {
        let mut state = state();
        state.change_user(
            "alice",
            &UserChange {
                logins_per_minute: Some(2),
                ..UserChange::default()
            },
        );
        assert!(log_in(&mut state, "alice").is_ok());
        assert!(log_in(&mut state, "alice").is_ok());
        let code = state.issue_code(0, "alice", CodeKind::Login);
        assert_eq!(state.log_in(0, &code), Err(Refusal::MinuteQuota));
        assert!(log_in(&mut state, "bob").is_ok());
        state.advance(Duration::from_secs(60));
        assert!(state.log_in(0, &code).is_ok(), "the code was not spent");
    }

    #[test]
    fn the_default_login_quota_is_a_hundred() {
        let mut state = state();
        for _ in 0..100 {
            log_in(&mut state, "alice").unwrap();
        }
        assert_eq!(log_in(&mut state, "alice"), Err(Refusal::MinuteQuota));
    }

    #[test]
    fn any_secret_of_the_app_is_right_and_another_apps_is_not() {
        let mut state = state();
        state.apps[0].known.secrets.push(Secret::new("second"));
        let appid = Some("wx0123456789abcdef");
        assert_eq!(state.authenticate(appid, Some("right")), Ok(0));
        assert_eq!(state.authenticate(appid, Some("second")), Ok(0));
        assert_eq!(
            state.authenticate(Some("wxfedcba9876543210"), Some("second")),
            Err(Refusal::AppSecretInvalid)
        );
    }

    #[test]
    fn an_access_token_is_missing_malformed_invalid_expired_or_good() {
        let mut state = state();
        let good = state.token(0).access_token;
        assert_eq!(state.check_access_token(Some(&good)), Ok(0));
        assert_eq!(state.check_access_token(None), Err(Refusal::TokenMissing));
        for malformed in ["ACCESS TOKEN", "short", &"x".repeat(513)] {
            assert_eq!(
                state.check_access_token(Some(malformed)),
                Err(Refusal::TokenMalformed)
            );
        }
        assert_eq!(
            state.check_access_token(Some(&"x".repeat(136))),
            Err(Refusal::CredentialInvalid)
        );
        state.advance(Duration::from_secs(7200));
        assert_eq!(
            state.check_access_token(Some(&good)),
            Err(Refusal::TokenExpired)
        );
    }

    #[test]
    fn classic_and_stable_tokens_do_not_touch_each_other() {
        let mut state = state();
        let stable = state.stable_token(0, false).unwrap().access_token;
        let classic: Vec<_> = (0..3).map(|_| state.token(0).access_token).collect();
        assert_eq!(state.check_access_token(Some(&stable)), Ok(0));
        state.stable_token(0, true).unwrap();
        assert_eq!(state.check_access_token(Some(&classic[2])), Ok(0));
        assert_eq!(
            state.check_access_token(Some(&classic[0])),
            Err(Refusal::CredentialInvalid)
        );
    }

    #[test]
    fn a_reset_forgets_everything_but_the_apps() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
        let token = state.token(0).access_token;
        state.advance(Duration::from_secs(60));
        state.reset();
        assert_eq!(state.now(), START);
        assert_eq!(state.log_in(0, &code), Err(Refusal::CodeInvalid));
        assert_eq!(
            state.check_access_token(Some(&token)),
            Err(Refusal::CredentialInvalid)
        );
        assert!(state.users.is_empty());
        assert!(log_in(&mut state, "alice").is_ok());
    }
}
