//! From `exec` to the first good answer, over and over, nothing pinned and nothing else running.

use crate::contender::{Field, Proxy, Wrap};
use crate::options::Face;

/// Milliseconds of each start, by proxy.
pub(crate) fn measure(field: &Field<'_>, starts: usize) -> Vec<(Proxy, Vec<f64>)> {
    let proxies = field.proxies();
    let mut times: Vec<(Proxy, Vec<f64>)> =
        proxies.iter().map(|proxy| (*proxy, Vec::new())).collect();
    for _ in 0..starts {
        for (proxy, times) in &mut times {
            match field.start(*proxy, Face::Plain, Wrap::Plain) {
                Ok(started) => times.push(1000.0 * started.first_answer.as_secs_f64()),
                // The same failure is reported when the proxies are started to be driven.
                Err(_) => continue,
            }
        }
    }
    times
}
