//! What was called: counts for assertions, the last calls for a developer's eyes. Secrets are masked before they are
//! kept, because a list like this ends up in bug reports.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::exchange::Request;
use crate::clock::Timestamp;

const KEPT: usize = 100;
/// Beyond so many paths a new one is counted under [`OTHER`], so that a fuzzer cannot fill the memory.
const PATHS: usize = 1000;
const OTHER: &str = "(other)";
const MASKED: [&str; 6] = [
    "secret",
    "appsecret",
    "access_token",
    "js_code",
    "signature",
    "pay_sig",
];
const QUERY_LEN: usize = 512;

/// Counts and the last calls.
#[derive(Default, Serialize)]
pub(super) struct Calls {
    counts: BTreeMap<String, u64>,
    last: VecDeque<Call>,
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

    pub(super) fn record(
        &mut self,
        now: Timestamp,
        request: &Request,
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
            query: masked(request),
            errcode,
            fault,
        });
    }
}

fn masked(request: &Request) -> String {
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
