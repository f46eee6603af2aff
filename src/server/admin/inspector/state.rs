//! How things stand, for the inspector's page.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto::{Metric, MetricFamily};
use serde_json::{Value, json};

use crate::server::admin::Admin;
use crate::server::snapshot::Snapshot;
use crate::session::Store;
use crate::telemetry::families;

/// The metrics at one moment.
struct Metrics(Vec<MetricFamily>);

impl Admin {
    /// All that the page shows beside exchanges.
    pub(super) fn state(&self, snapshot: &Snapshot) -> Value {
        let metrics = Metrics(self.assembly.metrics.registry().gather());
        let status = self.assembly.status.load();
        let health = self.assembly.state.store.health();
        let app = &snapshot.config.app;
        let refused = status
            .refused
            .as_ref()
            .map(|(at, why)| json!({ "at": at.as_secs(), "why": why }));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "appid": app.appid.as_str(),
            "env": app.env,
            "dev": self.assembly.phone.get().is_some(),
            "now": now(),
            "started": self.assembly.started.as_millis(),
            "access_token": access_token(&metrics),
            "held_back": snapshot.gateway.held_back(),
            "quota": quota(&metrics),
            "sessions": {
                "logins": whole(metrics.sum(families::LOGINS.name, &[("result", "ok")])),
                "store": match self.assembly.state.store {
                    Store::Memory(_) => "memory",
                    Store::Redis(_) => "redis",
                },
                "failure": health.failure,
            },
            "push": snapshot.bus.as_ref().map(|bus| json!({
                "waiting": metrics.one(families::PUSH_DEPTH.name).map(whole),
                "dead": metrics.one(families::PUSH_DEAD.name).map(whole),
                "failure": bus.failure(),
            })),
            "config": {
                "source": status.source,
                "in_use_since": status.since.as_secs(),
                "refused": refused,
                "unread": status.unread,
            },
            "rates": snapshot.shared.inspector.rates(),
            "phone": self.assembly.phone.get().map(|phone| phone.told(snapshot, &self.assembly)),
        })
    }
}

fn access_token(metrics: &Metrics) -> Value {
    let age = metrics.one(families::TOKEN_AGE.name);
    let left = metrics.one(families::TOKEN_EXPIRY.name);
    let failed = metrics.sum(families::TOKEN_REFRESHES.name, &[("result", "error")]);
    let state = match (left, failed) {
        (Some(left), _) if left > 0.0 => "good",
        (None, 0.0) => "unused",
        _ => "failing",
    };
    json!({ "state": state, "age_s": age.map(whole), "expires_in_s": left.map(whole) })
}

/// What is left of which quota.
fn quota(metrics: &Metrics) -> Value {
    let limit_of = |path: &str| {
        let limits = metrics.of(families::QUOTA_LIMIT.name);
        let mut limits = limits.filter(|metric| label(metric, "cgi_path") == path);
        limits.next().map(value)
    };
    let told: Vec<_> = metrics
        .of(families::QUOTA_REMAINING.name)
        .map(|metric| {
            let path = label(metric, "cgi_path");
            json!({
                "api": path,
                "remaining": whole(value(metric)),
                "limit": limit_of(path).map(whole),
            })
        })
        .collect();
    told.into()
}

impl Metrics {
    fn of(&self, name: &str) -> impl Iterator<Item = &Metric> {
        let family = self.0.iter().find(|family| family.name() == name);
        family.into_iter().flat_map(|family| family.get_metric())
    }

    /// The value of a family without labels.
    fn one(&self, name: &str) -> Option<f64> {
        self.of(name).next().map(value)
    }

    /// The sum of those that have these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |metric: &&Metric| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| label(metric, name) == *value)
        };
        self.of(name).filter(fits).map(value).sum()
    }
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    let mut labels = metric.get_label().iter();
    labels
        .find(|label| label.name() == name)
        .map_or("", |label| label.value())
}

fn value(metric: &Metric) -> f64 {
    metric.get_gauge().get_value() + metric.get_counter().get_value()
}

/// A number that a page shows without a fraction.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is counted, and seconds, are far from where a float loses a unit"
)]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
