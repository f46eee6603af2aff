//! No spans: this build has no exporter for them.

use std::time::Duration;

use super::Span;
use crate::config;
use crate::domain::AppId;
use crate::telemetry::ids::{IdSource, TraceContext, Traced};
use crate::telemetry::metrics::Metrics;

/// Takes spans, and has no use for them.
#[derive(Clone, Default)]
pub(crate) struct Tracing;

/// Nothing.
pub(crate) struct Begun;

#[expect(
    clippy::unused_self,
    clippy::unused_async,
    reason = "it is what the other one is"
)]
impl Tracing {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn configure(&self, _: &config::Trace, _: &AppId, _: &Metrics) {}

    pub(crate) fn chooses(&self, _: &IdSource) -> bool {
        false
    }

    pub(crate) fn record(&self, _: &Traced, _: impl FnOnce() -> Span) {}

    pub(crate) fn begin(&self) -> Begun {
        Begun
    }

    pub(crate) fn finish(&self, _: &Begun, _: impl FnOnce() -> Span) {}

    pub(crate) async fn end(&self, _: Duration) {}
}

impl Begun {
    /// `work`, as it is.
    pub(crate) fn around<F: Future>(&self, work: F) -> F {
        work
    }
}

/// `work`, as it is.
pub(crate) fn within<F: Future>(_: TraceContext, work: F) -> F {
    work
}

/// `work`, as it is.
pub(crate) fn carried<F: Future>(work: F) -> F {
    work
}
