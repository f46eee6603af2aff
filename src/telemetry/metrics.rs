//! What is counted, and where it is told.
//!
//! Rare events (logins, calls to WeChat) count in shared families here. What happens on every request is counted by
//! each worker for itself, in cells that only it writes, and summed when somebody scrapes: a shared histogram would cost more than
//! verifying a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::apis::Apis;
pub use super::breakers::BreakerSeen;
use super::breakers::BreakerStates;
use super::families::{self, register};
use super::logs::drops::Drops;
use super::token_times::TokenTimes;
use crate::clock::Timestamp;
use crate::config::Effective;
use crate::wechat::endpoints;
use crate::wechat::quota::Quota;

/// The revision of the source, if whoever built it has said so.
const REVISION: &str = match option_env!("WX_SIDECAR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The families, and the registry they are exposed from.
pub struct Metrics {
    registry: Registry,
    logins: IntCounterVec,
    decrypted: IntCounterVec,
    /// By the key's place: the newest, the one before, any older.
    tokens_opened: [IntCounter; 3],
    app_secret: IntGauge,
    apis: Arc<Apis>,
    wechat_calls: IntCounterVec,
    wechat_seconds: HistogramVec,
    rings_degraded: IntCounter,
    outbound: IntCounterVec,
    token_refreshes: IntCounterVec,
    token_foreign: IntCounter,
    quota_remaining: IntGaugeVec,
    quota_limit: IntGaugeVec,
    token_times: TokenTimes,
    breaker_states: BreakerStates,
    breaker_transitions: IntCounterVec,
    breaker_rejected: IntCounterVec,
    text_checks: IntCounterVec,
    media_checks: IntCounterVec,
    panics: IntCounter,
    reload_successful: IntGauge,
    reload_success_timestamp: IntGauge,
    /// By slot.
    caller_tokens: [IntCounter; 2],
    config_loads: IntCounterVec,
    config_source_up: IntGauge,
    config_hash: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
}

/// How a call to WeChat ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// An answer with this errcode; 0 is success. Which count as `other`, the list of known ones says.
    Errcode(i64),
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// An answer that nobody understands.
    Invalid,
}

impl Metrics {
    /// Registers all families.
    pub fn new() -> Self {
        let registry = Registry::new();
        let of = &registry;
        let tokens_opened = families::TOKENS_OPENED.counters(of);
        let caller_tokens = families::CALLER_TOKENS.counters(of);
        let apis = Arc::<Apis>::default();
        let token_times = TokenTimes::default();
        register(of, token_times.clone());
        register(of, Drops::default());
        let breaker_states = BreakerStates::new(Arc::clone(&apis));
        register(of, breaker_states.clone());
        families::BUILD_INFO
            .gauges(of)
            .with_label_values(&[REVISION, env!("CARGO_PKG_VERSION")])
            .set(1);
        // Nobody follows what a program that embeds the sidecar hands over, and it is not away.
        let config_source_up = families::CONFIG_SOURCE_UP.gauge(of);
        config_source_up.set(1);
        let app_secret = families::APP_SECRET.gauge(of);
        app_secret.set(-1);
        #[cfg(target_os = "linux")]
        register(of, super::process::ProcessFacts::new());
        Self {
            logins: families::LOGINS.counters(of),
            decrypted: families::DECRYPTED.counters(of),
            tokens_opened: ["0", "1", "2"].map(|slot| tokens_opened.with_label_values(&[slot])),
            app_secret,
            apis,
            wechat_calls: families::WX_REQUESTS.counters(of),
            wechat_seconds: families::WX_DURATION.histograms(of),
            rings_degraded: families::RINGS_DEGRADED.counter(of),
            outbound: families::OUTBOUND.counters(of),
            token_refreshes: families::TOKEN_REFRESHES.counters(of),
            token_foreign: families::TOKEN_FOREIGN.counter(of),
            quota_remaining: families::QUOTA_REMAINING.gauges(of),
            quota_limit: families::QUOTA_LIMIT.gauges(of),
            token_times,
            breaker_states,
            breaker_transitions: families::BREAKER_TRANSITIONS.counters(of),
            breaker_rejected: families::BREAKER_REJECTED.counters(of),
            text_checks: families::TEXT_CHECKS.counters(of),
            media_checks: families::MEDIA_CHECKS.counters(of),
            panics: families::PANICS.counter(of),
            reload_successful: families::RELOAD_SUCCESSFUL.gauge(of),
            reload_success_timestamp: families::RELOAD_TIMESTAMP.gauge(of),
            caller_tokens: ["0", "1"].map(|slot| caller_tokens.with_label_values(&[slot])),
            config_loads: families::CONFIG_LOADS.counters(of),
            config_source_up,
            config_hash: families::CONFIG_HASH.gauges(of),
            certificate_expiry: families::TLS_EXPIRY.gauges(of),
            registry,
        }
    }

    /// Counts a login: `ok`, `replayed` (the same code again), or the slug or errcode class of what stopped it.
    pub fn login(&self, result: &'static str) {
        self.logins.with_label_values(&[result]).inc();
    }

    /// Counts a token that was opened, by the place of its key; not those that a connection remembers.
    pub fn token_opened(&self, slot: usize) {
        self.tokens_opened[slot.min(2)].inc();
    }

    /// Tells that there are other AppSecrets than before, of which WeChat has not taken any yet.
    pub fn app_secrets_changed(&self) {
        self.app_secret.set(-1);
    }

    /// Tells which AppSecret WeChat has just taken.
    pub fn app_secret_taken(&self, slot: usize) {
        self.app_secret.set(i64::try_from(slot).unwrap_or(i64::MAX));
    }

    /// Counts open data: `ok`, with the place of the key that fitted, or what was wrong with it.
    pub fn decrypted(&self, result: &'static str, key_age: Option<usize>) {
        let age = match key_age {
            None => "none",
            Some(0) => "0",
            Some(1) => "1",
            Some(2) => "2",
            Some(_) => "3",
        };
        self.decrypted.with_label_values(&[age, result]).inc();
    }

    /// Counts a call to WeChat. `path` is one of the table of APIs.
    pub fn wechat_call(&self, path: &'static str, outcome: CallOutcome, took: Duration) {
        let path = self.apis.label(path);
        let number;
        let label = match outcome {
            CallOutcome::Errcode(code) if self.apis.tells(path, code) => {
                number = code.to_string();
                number.as_str()
            }
            CallOutcome::Errcode(_) => "other",
            CallOutcome::Unreachable => "unreachable",
            CallOutcome::Timeout => "timeout",
            CallOutcome::Invalid => "invalid",
        };
        self.wechat_calls.with_label_values(&[path, label]).inc();
        self.wechat_seconds
            .with_label_values(&[path])
            .observe(took.as_secs_f64());
    }

    /// Counts a request whose texts were to be checked.
    pub(crate) fn text_checked(&self, verdict: &'static str) {
        self.text_checks.with_label_values(&[verdict]).inc();
    }

    /// Counts an upload that was to be checked.
    pub(crate) fn media_check(&self, result: &'static str) {
        self.media_checks.with_label_values(&[result]).inc();
    }

    /// Counts a ring of session keys that had to do without the store.
    pub(crate) fn ring_degraded(&self) {
        self.rings_degraded.inc();
    }

    /// Counts a call of the app's; `result` is a constant or the slug of a kind of error.
    pub(crate) fn outbound_request(&self, result: &'static str) {
        self.outbound.with_label_values(&[result]).inc();
    }

    /// Counts by which caller token the app called, for whoever waits to remove the old one.
    pub(crate) fn caller_token_used(&self, slot: usize) {
        self.caller_tokens[slot.min(1)].inc();
    }

    /// Counts a fetch of an access_token; `reason` and `result` are constants of the keeper's.
    pub fn token_refreshed(&self, reason: &'static str, result: &'static str) {
        self.token_refreshes
            .with_label_values(&[reason, result])
            .inc();
    }

    /// Tells what is left of an API's quota. `path` is of the table of APIs, so the label is bounded.
    pub(crate) fn quota(&self, path: &'static str, quota: Quota) {
        let labels = [self.apis.label(path)];
        if labels == [endpoints::OTHER] {
            return;
        }
        self.quota_remaining
            .with_label_values(&labels)
            .set(quota.remain);
        self.quota_limit
            .with_label_values(&labels)
            .set(quota.daily_limit);
    }

    /// Counts an access_token that another system has had replaced.
    pub(crate) fn token_replaced_by_another(&self) {
        self.token_foreign.inc();
    }

    /// Tells the life of the access_token in use.
    pub fn token_lives(&self, from: Instant, until: Instant) {
        self.token_times.set(from, until);
    }

    /// Has the states of breakers come from `source` at each scrape.
    pub fn breakers_seen_by(&self, source: impl Fn() -> Vec<BreakerSeen> + Send + Sync + 'static) {
        self.breaker_states.come_from(source);
    }

    /// Counts a change of a breaker's state. All are constants of the breaker's and paths of the table of endpoints.
    pub fn breaker_changed(&self, path: &'static str, class: &'static str, to: &'static str) {
        self.breaker_transitions
            .with_label_values(&[self.breaker_label(path), class, to])
            .inc();
    }

    /// Counts a call that was held back.
    pub fn breaker_held_back(&self, path: &'static str, class: &'static str) {
        self.breaker_rejected
            .with_label_values(&[self.breaker_label(path), class])
            .inc();
    }

    /// `all` is no API.
    fn breaker_label(&self, path: &'static str) -> &'static str {
        match path {
            "all" => path,
            path => self.apis.label(path),
        }
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Records an attempt to load the configuration.
    pub fn config_loaded(&self, successful: bool, now: Timestamp) {
        self.reload_successful.set(i64::from(successful));
        let result = if successful { "success" } else { "failure" };
        self.config_loads.with_label_values(&[result]).inc();
        if successful {
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            self.reload_success_timestamp.set(seconds);
        }
    }

    /// Tells which configuration is in use, if it came as a text.
    pub fn config_is(&self, effective: Option<&Effective>) {
        let hash = effective.map(Effective::fingerprint);
        self.config_hash.reset();
        if let Some(hash) = hash {
            self.config_hash.with_label_values(&[hash]).set(1);
        }
    }

    /// Tells when the certificate in use expires, in Unix time, if there is one.
    pub(crate) fn certificate_expires(&self, at: Option<i64>) {
        match at {
            Some(at) => self
                .certificate_expiry
                .with_label_values::<&str>(&[])
                .set(at),
            None => self.certificate_expiry.reset(),
        }
    }

    /// Records whether the configuration can be read.
    pub fn config_source_is_up(&self, up: bool) {
        self.config_source_up.set(i64::from(up));
    }

    /// The registry, for the scrape and for further collectors.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
