//! User-space instructions per request: the figure that the machine's noise cannot touch.
//!
//! A proxy runs twice under callgrind, for few and for more requests; what start, login and shutdown cost is in both
//! and falls out of the difference. Valgrind tells programs of a plainer CPU, so cryptography (aws-lc) may take other
//! code paths than it does outside, and the kernel's share, most of the time of a proxy, is not in it.

use std::time::Duration;

use crate::contender::{Field, Proxy, Wrap, prefix_of};
use crate::lane::Protocol;
use crate::load::{Amount, Spec};
use crate::options::{Face, Row};
use crate::rounds::generate;

const FEW: u64 = 1_000;
const MORE: u64 = 3_000;
const CONNECTIONS: usize = 8;

/// Instructions per request of each row that has one of `proxies`; or why there is no figure.
pub(crate) fn measure(field: &Field<'_>, proxies: &[Proxy]) -> Vec<(Row, Result<f64, String>)> {
    let rows = field
        .rows
        .iter()
        .filter_map(|row| Some((*row, Proxy::of(*row)?)))
        .filter(|(_, proxy)| proxies.contains(proxy));
    rows.map(|(row, proxy)| (row, per_request(field, row, proxy)))
        .collect()
}

fn per_request(field: &Field<'_>, row: Row, proxy: Proxy) -> Result<f64, String> {
    let few = collected(field, row, proxy, FEW)?;
    let more = collected(field, row, proxy, MORE)?;
    Ok((more as f64 - few as f64) / (MORE - FEW) as f64)
}

/// Instructions of a whole run in which `requests` were answered.
fn collected(field: &Field<'_>, row: Row, proxy: Proxy, requests: u64) -> Result<u64, String> {
    let mut started = field.start(proxy, Face::Plain, Wrap::Callgrind)?;
    let spec = Spec {
        address: started.address,
        path: format!("{}/1k", prefix_of(row)),
        token: if row.is_verified() {
            Some(field.log_in(&started)?)
        } else {
            None
        },
        upload: None,
        protocol: Protocol::Http1,
        certificate: None,
        connections: CONNECTIONS,
        streams: 1,
        amount: Amount::Counted { requests },
    };
    let outcome = generate(field.machine, field.scratch, &spec, || {})?;
    if outcome.errors > 0 {
        return Err(format!("{} of {requests} requests failed", outcome.errors));
    }
    if !started.process.stop(Duration::from_secs(30)) {
        return Err("it does not end at SIGTERM".to_owned());
    }
    let said = started.process.said();
    said.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| {
            format!(
                "callgrind collected nothing; {}",
                started.process.last_words()
            )
        })
}
