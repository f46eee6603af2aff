//! What the inspector is told of a request, at its beginning and at its end. What is between is told by whoever does it.

use std::borrow::Cow;

use super::Exchange;
use crate::error::Error;
use crate::server::worker::Counted;
use crate::telemetry::inspector::{self, Began, Ended, Kind, Legs, Watched};
use crate::wire::{Heard, Length};

/// Hears what clients are answered, whoever writes it.
pub(in crate::server) fn hear(heard: Heard<'_>) {
    inspector::note(|record| match heard {
        Heard::Begun(status, length) => {
            record.answering(status);
            if let Length::Exact(length) = length {
                record.answer_field(b"content-length", length.to_string().as_bytes());
            }
        }
        Heard::Field(name, value) => record.answer_field(name, value),
        Heard::Body(bytes) => record.answer_body(bytes),
        Heard::TakenBack => record.takes_answer_back(),
    });
}

impl Exchange<'_> {
    /// Begins to watch it, if anything is watched.
    pub(super) fn watch(&self, protocol: &'static str) -> Option<Watched> {
        if !self.snapshot.config.admin.inspector {
            return None;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = self.head.fields.iter();
        self.snapshot.shared.inspector.watch(|| Began {
            kind: Kind::Request,
            method: text(self.head.method_text()),
            target: text(self.head.target()),
            protocol,
            request_id: self.request_id.as_str().to_owned(),
            trace: self.trace.here.trace_id().as_str().to_owned(),
            client: self
                .origin
                .client_ip(&self.head.fields)
                .map(|ip| ip.to_string()),
            fields: fields
                .map(|field| (text(field.name), text(field.value)))
                .collect(),
        })
    }

    /// It is over. `status` is missing if nobody was answered.
    pub(super) fn has_ended(
        &self,
        watched: &Watched,
        counted: Counted,
        outcome: &Result<(), Error>,
        status: Option<u16>,
    ) {
        let timings = &self.timings;
        let began = timings.began();
        let wechat = Some(timings.wechat_waited()).filter(|waited| !waited.is_zero());
        let user = self.user.borrow();
        watched.end(Ended {
            status,
            took: timings.took(),
            route: self.route(counted).map(Cow::Owned),
            error: outcome.as_ref().err(),
            openid: user
                .as_ref()
                .map(|claims| claims.user.openid.as_str().to_owned()),
            received: timings.bytes_received(),
            returned: timings.bytes_returned(),
            legs: Legs {
                own: Some(timings.worked()),
                wechat,
                app: timings.upstream(),
                asked: timings.asked_at().map(|at| at - began),
                answered: timings.answered_at().map(|(at, _)| at - began),
            },
        });
    }
}
