//! What was called: counts for assertions, the last calls for a developer's eyes, and calls as they arrived.
//!
//! In the list of the last calls secrets are masked before they are kept, because a list like this ends up in bug
//! reports. Calls as they arrived are for tests in the same process, which compare bytes; no endpoint shows them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;

use ::http::{HeaderMap, Method};
use bytes::Bytes;
use serde::Serialize;

use super::exchange::Request;
use crate::clock::Timestamp;

const KEPT: usize = 100;
/// Beyond so many paths a new one is counted under [`OTHER`], so that a fuzzer cannot fill the memory.
const PATHS: usize = 1000;
const OTHER: &str = "(other)";
/// The names of what is secret.
pub(super) const MASKED: [&str; 6] = [
    "secret",
    "appsecret",
    "access_token",
    "js_code",
    "signature",
    "pay_sig",
];
const QUERY_LEN: usize = 512;
/// Of calls as they arrived, so many are kept, and so many bytes of their bodies.
const WHOLE: usize = 1000;
const WHOLE_BYTES: usize = 64 << 20;

/// A call as it arrived, secrets and all.
#[derive(Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path, not decoded.
    pub path: String,
    /// Its query, not decoded and without the question mark.
    pub query: String,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Where it came from.
    pub peer: IpAddr,
    /// Its body.
    pub body: Bytes,
}

/// Says no more than a log may.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Counts, the last calls, and the last ones as they arrived.
#[derive(Default, Serialize)]
pub(super) struct Calls {
    counts: BTreeMap<String, u64>,
    last: VecDeque<Call>,
    #[serde(skip)]
    whole: VecDeque<Received>,
    #[serde(skip)]
    whole_bytes: usize,
}

#[derive(Serialize)]
struct Call {
    at_ms: u64,
    method: String,
    path: String,
    query: String,
    /// The errcode answered; none for a success and for faults that answer none.
    errcode: Option<i64>,
    fault: Option<&'static str>,
}

impl Calls {
    pub(super) fn count(&self, path: &str) -> u64 {
        self.counts.get(path).copied().unwrap_or(0)
    }

    /// The calls of a path as they arrived, the oldest first.
    pub(super) fn received(&self, path: &str) -> Vec<Received> {
        let of_path = |call: &&Received| call.path == path;
        self.whole.iter().filter(of_path).cloned().collect()
    }

    pub(super) fn record(
        &mut self,
        now: Timestamp,
        request: Request,
        errcode: Option<i64>,
        fault: Option<&'static str>,
    ) {
        let known = self.counts.len() < PATHS || self.counts.contains_key(&request.path);
        let counted = if known { &request.path } else { OTHER };
        *self.counts.entry(counted.to_owned()).or_default() += 1;

        self.last.truncate(KEPT - 1);
        self.last.push_front(Call {
            at_ms: now.as_millis(),
            method: request.method.to_string(),
            path: request.path.chars().take(QUERY_LEN).collect(),
            query: masked(&request),
            errcode,
            fault,
        });
        self.keep(Received {
            method: request.method,
            path: request.path,
            query: request.query.raw().to_owned(),
            headers: request.headers,
            peer: request.peer,
            body: request.body,
        });
    }

    /// The newest is kept whatever its size.
    fn keep(&mut self, call: Received) {
        self.whole_bytes += call.body.len();
        self.whole.push_back(call);
        while self.whole.len() > 1 && (self.whole.len() > WHOLE || self.whole_bytes > WHOLE_BYTES) {
            if let Some(oldest) = self.whole.pop_front() {
                self.whole_bytes -= oldest.body.len();
            }
        }
    }
}

/// The parameters of a query without its secrets, bounded in length.
pub(super) fn masked(request: &Request) -> String {
    let pairs: Vec<String> = request
        .query
        .iter()
        .map(|(name, value)| {
            let shown = if MASKED.contains(&name) { "***" } else { value };
            format!("{name}={shown}")
        })
        .collect();
    pairs.join("&").chars().take(QUERY_LEN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(calls: &mut Calls, path: &str, body: &[u8]) {
        let request = Request::of("POST", path, body);
        calls.record(Timestamp::from_millis(0), request, None, None);
    }

    #[test]
    fn calls_as_they_arrived_are_bounded_in_number_and_in_bytes() {
        let mut calls = Calls::default();
        for _ in 0..WHOLE + 5 {
            call(&mut calls, "/a", b"x");
        }
        assert_eq!(calls.received("/a").len(), WHOLE);
        assert_eq!(calls.whole_bytes, WHOLE);

        let large = vec![0; WHOLE_BYTES / 2];
        for _ in 0..3 {
            call(&mut calls, "/large", &large);
        }
        assert_eq!(calls.received("/large").len(), 2);
        assert!(calls.received("/a").is_empty());
        call(&mut calls, "/huge", &vec![0; WHOLE_BYTES + 1]);
        assert_eq!(calls.received("/huge").len(), 1);
        assert_eq!(calls.whole.len(), 1);
    }
}
