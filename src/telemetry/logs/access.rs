//! The access log: one line for each request, and for each of the app's calls to WeChat.
//!
//! It names routes, not paths, unless the configuration says otherwise, and never a query, where apps put what nobody else
//! is to see. A user is a pseudonym. What is asked of the admin side, by probes and Prometheus, is not in it.
//!
//! Both kinds of lines are written here at one place, so that what is the same has one name, and a call of the app's is found by
//! the trace_id of the request that it was made for.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{AccessLog, Log};
use crate::telemetry::ids::{RequestId, TraceId};
use crate::telemetry::pseudonym::Pseudonym;
use crate::telemetry::timings::Timings;

/// Counts requests that went well, because one of so many gets a line. One per thread that serves.
#[derive(Default)]
pub(crate) struct Sampler(Cell<usize>);

/// What was asked.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// Something by a client, of the app or of us: its route.
    Route(&'a str),
    /// Something by the app, of WeChat.
    Api {
        /// One that is known or "other", as it is counted.
        name: &'static str,
        /// What came of it, as it is counted.
        result: &'static str,
    },
}

/// A request, as its line tells it.
pub(crate) struct Served<'a> {
    pub(crate) request_id: &'a str,
    /// `None` for what was not even a request.
    pub(crate) trace: Option<TraceId>,
    /// As far as it is known whom to believe; `None` on a Unix socket.
    pub(crate) client: Option<IpAddr>,
    pub(crate) protocol: &'static str,
    /// `None` for what was not even a request.
    pub(crate) method: Option<&'static str>,
    pub(crate) asked: Asked<'a>,
    /// Without the query; if it is told.
    pub(crate) path: Option<&'a [u8]>,
    pub(crate) status: u16,
    /// The slug of the problem, if one was told or hindered the answer.
    pub(crate) problem: Option<&'static str>,
    /// `None` for what was not even a request.
    pub(crate) timings: Option<&'a Timings>,
    /// Whether it showed a session that is good, or began one.
    pub(crate) verified: bool,
    pub(crate) user: Option<Pseudonym>,
}

/// A call of the app's to WeChat. Its line is written when this is dropped, with its answer's last byte or when the app has
/// gone.
pub(crate) struct Called {
    pub(crate) request_id: RequestId,
    pub(crate) trace: TraceId,
    pub(crate) protocol: &'static str,
    pub(crate) method: &'static str,
    /// One that is known or "other", as it is counted.
    pub(crate) api: &'static str,
    /// Without the query; if it is told.
    pub(crate) path: Option<String>,
    pub(crate) status: u16,
    /// What came of it, as it is counted.
    pub(crate) result: &'static str,
    /// The slug of the problem, if one was told.
    pub(crate) problem: Option<&'static str>,
    pub(crate) timings: Timings,
    /// How much of the body has been passed on, if it is on its way.
    pub(crate) streamed: Option<Arc<AtomicU64>>,
    /// How much of the answer's body the app has been sent.
    pub(crate) returned: u64,
    /// For how many calls the line stands.
    pub(crate) stands_for: usize,
}

impl Sampler {
    /// Whether what ended with `status` gets a line; then for how many requests it stands.
    pub(crate) fn wants(&self, log: &Log, status: u16) -> Option<usize> {
        match log.access {
            AccessLog::Off => None,
            AccessLog::All | AccessLog::Errors if status >= 400 => Some(1),
            AccessLog::Errors => None,
            AccessLog::All => {
                let passed = self.0.get() + 1;
                let is_one = passed >= log.access_sample;
                self.0.set(if is_one { 0 } else { passed });
                is_one.then_some(log.access_sample)
            }
        }
    }
}

impl Served<'_> {
    /// Of what was not even a request little is known.
    pub(crate) fn of_nobody(protocol: &'static str) -> Self {
        Self {
            request_id: "",
            trace: None,
            client: None,
            protocol,
            method: None,
            asked: Asked::Route("none"),
            path: None,
            status: 0,
            problem: None,
            timings: None,
            verified: false,
            user: None,
        }
    }

    /// Writes the line, which stands for so many requests.
    pub(crate) fn log(&self, stands_for: usize) {
        let path = self.path.map(String::from_utf8_lossy);
        let (side, route, api, result) = match self.asked {
            Asked::Route(route) => (None, Some(route), None, None),
            Asked::Api { name, result } => (Some("outbound"), None, Some(name), Some(result)),
        };
        tracing::info!(
            target: "access",
            side,
            request_id = self.request_id,
            trace_id = self.trace.as_ref().map(TraceId::as_str),
            client = self.client.map(tracing::field::display),
            protocol = self.protocol,
            method = self.method,
            route,
            api,
            path = path.as_deref(),
            status = self.status,
            result,
            problem = self.problem,
            bytes_in = self.timings.map(Timings::bytes_received),
            bytes_out = self.timings.map(Timings::bytes_returned),
            micros = self.timings.map(|timings| micros(timings.took())),
            upstream_micros = self.timings.and_then(Timings::upstream).map(micros),
            upstream_whole_micros = self.timings.and_then(upstream_whole),
            wechat_micros = self.timings.and_then(wechat),
            verified = route.map(|_| self.verified),
            user = self.user.as_ref().map(Pseudonym::as_str),
            sample = sample(stands_for),
        );
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if let Some(streamed) = &self.streamed {
            self.timings.received(streamed.load(Ordering::Relaxed));
        }
        self.timings.end(self.returned);
        let served = Served {
            request_id: self.request_id.as_str(),
            trace: Some(self.trace),
            client: None,
            protocol: self.protocol,
            method: Some(self.method),
            asked: Asked::Api {
                name: self.api,
                result: self.result,
            },
            path: self.path.as_deref().map(str::as_bytes),
            status: self.status,
            problem: self.problem,
            timings: Some(&self.timings),
            verified: false,
            user: None,
        };
        served.log(self.stands_for);
    }
}

/// From the first byte that the app was sent to the last of its answer's that the client was.
fn upstream_whole(timings: &Timings) -> Option<u64> {
    let asked = timings.asked_at()?;
    let end = timings.began() + timings.took();
    Some(micros(end.saturating_duration_since(asked)))
}

/// Told only of what has waited for WeChat.
fn wechat(timings: &Timings) -> Option<u64> {
    let waited = timings.wechat_waited();
    (!waited.is_zero()).then(|| micros(waited))
}

/// Told only if a line stands for more than its own request.
fn sample(stands_for: usize) -> Option<u64> {
    (stands_for > 1).then_some(stands_for as u64)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn log(access: AccessLog, access_sample: usize) -> Log {
        Log {
            format: LogFormat::Json,
            level: tracing::Level::INFO,
            levels: Vec::new(),
            access,
            access_sample,
            access_path: false,
        }
    }

    #[test]
    fn one_of_so_many_successes_gets_a_line_and_every_error() {
        let (sampler, log) = (Sampler::default(), log(AccessLog::All, 3));
        let wants: Vec<_> = [200, 204, 500, 302, 401, 200, 499, 101, 200]
            .map(|status| sampler.wants(&log, status))
            .into();
        let (no, third, each) = (None, Some(3), Some(1));
        assert_eq!(wants, [no, no, each, third, each, no, each, no, third]);
    }

    #[test]
    fn who_wants_errors_gets_no_success_and_who_wants_nothing_nothing() {
        let sampler = Sampler::default();
        let errors = log(AccessLog::Errors, 1);
        assert_eq!(sampler.wants(&errors, 200), None);
        assert_eq!(sampler.wants(&errors, 404), Some(1));
        let off = log(AccessLog::Off, 1);
        assert_eq!(sampler.wants(&off, 500), None);
        let all = log(AccessLog::All, 1);
        assert_eq!(sampler.wants(&all, 200), Some(1));
    }
}
