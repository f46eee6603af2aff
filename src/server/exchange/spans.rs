//! What is recorded of a request in its trace: the exchange with the client, and the one with the app below it.

use std::borrow::Cow;

use super::Exchange;
use crate::error::Error;
use crate::server::router::Rule;
use crate::server::worker::Counted;
use crate::telemetry::ids::{TraceContext, Traced};
use crate::telemetry::trace::{Kind, Span, method};
use crate::wire::Responder;

impl Exchange<'_> {
    /// Records the exchange. The route is what was configured and not what was asked for, which might be anything.
    pub(super) fn record_span(
        &self,
        counted: Counted,
        outcome: &Result<(), Error>,
        status: u16,
        responder: &Responder<'_>,
    ) {
        self.snapshot.tracing().record(&self.trace, || {
            let method = method(self.head.method.as_str());
            let route = self.route(counted);
            let name = match &route {
                Some(route) => format!("{method} {route}"),
                None => method.to_owned(),
            };
            let failed = outcome.as_ref().err().map(slug);
            let failed = failed.or_else(|| Some(status.to_string().into()));
            Span::new(Kind::Server, name, self.timings.took())
                .with("http.request.method", method)
                .with("http.response.status_code", status)
                .with("url.scheme", self.origin.scheme())
                .with("network.protocol.version", responder.version(self.head))
                .with("wx_sidecar.request_id", self.request_id.as_str().to_owned())
                .with_some("http.route", route)
                .with_error(failed.filter(|_| status >= 500))
        });
    }

    /// Records what the app was asked for, which has ended now.
    pub(super) fn record_upstream(&self, call: TraceContext, rule: &Rule, failed: Option<&Error>) {
        let traced = Traced {
            here: call,
            above: Some(self.trace.here),
        };
        self.snapshot.tracing().record(&traced, || {
            let method = method(self.head.method.as_str());
            let status = self.timings.answered_at().map(|(_, status)| status);
            let failed = match (failed, status) {
                (Some(error), _) => Some(slug(error)),
                (None, Some(status @ 400..)) => Some(status.to_string().into()),
                (None, _) => None,
            };
            // A request that could not be sent is that from its beginning.
            let since = self.timings.asked_at().unwrap_or(self.timings.began());
            let (address, port) = rule.upstream.place();
            Span::new(Kind::Client, method, since.elapsed())
                .with("http.request.method", method)
                .with("server.address", address)
                .with_some("server.port", port)
                .with_some("http.response.status_code", status)
                .with_error(failed)
        });
    }

    pub(super) fn route(&self, counted: Counted) -> Option<String> {
        match counted {
            Counted::Unrouted => None,
            Counted::Own(endpoint) => Some(endpoint.label().to_owned()),
            Counted::Rule(index) => {
                let name = self.snapshot.router.rule_names().nth(index);
                name.map(str::to_owned)
            }
        }
    }
}

/// What an error is called.
fn slug(error: &Error) -> Cow<'static, str> {
    error.kind().row().slug.into()
}
