//! Every metric family in one place.
//!
//! Rare events (logins, calls to WeChat) count in shared families here. What happens on every request is counted by
//! each worker for itself, in cells that only it writes, and summed when somebody scrapes: a shared histogram would cost more than
//! verifying a token.

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

pub use super::breakers::BreakerSeen;
use super::breakers::BreakerStates;
use super::token_times::TokenTimes;
use crate::clock::Timestamp;
use crate::wechat::quota::Quota;

/// The families, and the registry they are exposed from.
pub struct Metrics {
    registry: Registry,
    logins: IntCounterVec,
    decrypted: IntCounterVec,
    /// By the key's place: the newest, the one before, any older.
    tokens_opened: [IntCounter; 3],
    app_secret: IntGauge,
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
}

/// How a call to WeChat ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// An answer with this errcode; 0 is success. Numbers that are not in the errcode table count as `other`.
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
        let logins = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_login_total",
                "Logins by result: ok, replayed, or what stopped them.",
            ),
            &["result"],
        );
        let decrypted = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_decrypt_total",
                "Open data by result: ok, or what was wrong with it; key_age says how many newer session keys the user has.",
            ),
            &["result", "key_age"],
        );
        let tokens_opened = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_tokens_opened_total",
                "Tokens by the key that they are sealed with: 0 is the newest, 2 also stands for older ones.",
            ),
            &["slot"],
        );
        let tokens_opened = registered(&registry, tokens_opened);
        let app_secret = IntGauge::new(
            "wx_sidecar_app_secret_slot",
            "Which of the AppSecrets WeChat took last, in the order of the configuration, from 0.",
        );
        let wechat_calls = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_wx_api_requests_total",
                "Calls to WeChat by API path and errcode (0 is success).",
            ),
            &["cgi_path", "errcode"],
        );
        let wechat_seconds = HistogramVec::new(
            HistogramOpts::new(
                "wx_sidecar_wx_api_duration_seconds",
                "How long calls to WeChat took.",
            )
            .buckets(vec![0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            &["cgi_path"],
        );
        let outbound = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_outbound_requests_total",
                "Calls of the app's by result: ok, refused (an errcode was passed on), own (a token endpoint), or the kind of \
                 error that the app was told.",
            ),
            &["result"],
        );
        let token_refreshes = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_wx_token_refresh_total",
                "Fetches of the access_token by reason (missing, expired, due, refused, forced) and result (ok, same: the \
                 token that was held, error).",
            ),
            &["reason", "result"],
        );
        let token_foreign = IntCounter::new(
            "wx_sidecar_wx_token_foreign_refresh_total",
            "Times another system has had WeChat replace the access_token: it has the AppSecret and refreshes by force.",
        );
        let quota_remaining = IntGaugeVec::new(
            Opts::new(
                "wx_sidecar_wx_quota_remaining",
                "How many calls of an API WeChat said were left of the day, when it was last asked.",
            ),
            &["cgi_path"],
        );
        let quota_limit = IntGaugeVec::new(
            Opts::new(
                "wx_sidecar_wx_quota_limit",
                "How many calls of an API WeChat allows in a day.",
            ),
            &["cgi_path"],
        );
        let token_times = TokenTimes::default();
        register(&registry, token_times.clone());
        let breaker_states = BreakerStates::default();
        register(&registry, breaker_states.clone());
        let breaker_transitions = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_wx_breaker_transitions_total",
                "Changes of a breaker's state by API path, class of the cause, and the state that it came to.",
            ),
            &["cgi_path", "class", "to"],
        );
        let breaker_rejected = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_wx_breaker_rejected_total",
                "Calls to WeChat that were not made because a breaker was open.",
            ),
            &["cgi_path", "class"],
        );
        let build = IntGaugeVec::new(
            Opts::new(
                "wx_sidecar_build_info",
                "1, with the version of this build.",
            ),
            &["version"],
        );
        let rings_degraded = IntCounter::new(
            "wx_sidecar_store_rings_degraded_total",
            "Times the session keys of a user were asked for while the store was away; the token's own was used.",
        );
        let text_checks = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_text_checks_total",
                "Requests with texts that WeChat was asked about, by its verdict: pass, review, risky, or unchecked.",
            ),
            &["verdict"],
        );
        let media_checks = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_media_checks_total",
                "Uploads that WeChat was asked to check, by result: asked, or error.",
            ),
            &["result"],
        );
        let panics = IntCounter::new(
            "wx_sidecar_panics_total",
            "Defects of the sidecar that cost a request, a connection or a moment of a background task.",
        );
        let reload_successful = IntGauge::new(
            "wx_sidecar_config_last_reload_successful",
            "Whether the last attempt to load the configuration succeeded; 0: an older one is in use.",
        );
        let caller_tokens = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_caller_token_uses_total",
                "Calls of the app's by the caller token they showed: slot 0 is the first in the configuration, 1 any other.",
            ),
            &["slot"],
        );
        let caller_tokens = registered(&registry, caller_tokens);
        let config_loads = IntCounterVec::new(
            Opts::new(
                "wx_sidecar_config_loads_total",
                "Configurations that were to be used, the first one among them, and whether they are (success) or were wrong or impossible (failure).",
            ),
            &["result"],
        );
        let config_source_up = IntGauge::new(
            "wx_sidecar_config_source_up",
            "Whether the configuration can be read where it comes from; 0 while ZooKeeper is away or has no such node.",
        );
        let reload_success_timestamp = IntGauge::new(
            "wx_sidecar_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was loaded, in Unix time.",
        );
        build_info(&registry, build);
        #[cfg(target_os = "linux")]
        register(
            &registry,
            prometheus::process_collector::ProcessCollector::for_self(),
        );
        Self {
            logins: registered(&registry, logins),
            decrypted: registered(&registry, decrypted),
            tokens_opened: ["0", "1", "2"].map(|slot| tokens_opened.with_label_values(&[slot])),
            app_secret: registered(&registry, app_secret),
            wechat_calls: registered(&registry, wechat_calls),
            wechat_seconds: registered(&registry, wechat_seconds),
            rings_degraded: registered(&registry, rings_degraded),
            outbound: registered(&registry, outbound),
            quota_remaining: registered(&registry, quota_remaining),
            quota_limit: registered(&registry, quota_limit),
            token_foreign: registered(&registry, token_foreign),
            token_refreshes: registered(&registry, token_refreshes),
            token_times,
            breaker_states,
            breaker_transitions: registered(&registry, breaker_transitions),
            breaker_rejected: registered(&registry, breaker_rejected),
            text_checks: registered(&registry, text_checks),
            media_checks: registered(&registry, media_checks),
            panics: registered(&registry, panics),
            reload_successful: registered(&registry, reload_successful),
            reload_success_timestamp: registered(&registry, reload_success_timestamp),
            caller_tokens: ["0", "1"].map(|slot| caller_tokens.with_label_values(&[slot])),
            config_loads: registered(&registry, config_loads),
            config_source_up: registered(&registry, config_source_up),
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
        self.decrypted.with_label_values(&[result, age]).inc();
    }

    /// Counts a call to WeChat. `path` is one of the sidecar's own constants, so the label is bounded.
    pub fn wechat_call(&self, path: &'static str, outcome: CallOutcome, took: Duration) {
        let number;
        let label = match outcome {
            CallOutcome::Errcode(code)
                if code == 0 || crate::wechat::errcode::find(code).is_some() =>
            {
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
        let labels = [path];
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
            .with_label_values(&[path, class, to])
            .inc();
    }

    /// Counts a call that was held back.
    pub fn breaker_held_back(&self, path: &'static str, class: &'static str) {
        self.breaker_rejected
            .with_label_values(&[path, class])
            .inc();
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

    /// Records whether the configuration can be read.
    pub fn config_source_is_up(&self, up: bool) {
        self.config_source_up.set(i64::from(up));
    }

    /// The registry, for the scrape and for further collectors.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

fn build_info(registry: &Registry, family: prometheus::Result<IntGaugeVec>) {
    registered(registry, family)
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
}

pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> C {
    let family = family.expect("names and labels are constants that prometheus accepts");
    register(registry, family.clone());
    family
}

pub(super) fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry
        .register(Box::new(collector))
        .expect("each family is registered once");
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
