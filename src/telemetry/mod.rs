//! What the sidecar tells its operators: metrics, logs and traces.

mod apis;
mod breakers;
pub mod families;
pub(crate) mod ids;
pub(crate) mod inspector;
pub mod logs;
pub(crate) mod media;
pub mod metrics;
#[cfg(target_os = "linux")]
mod process;
pub(crate) mod pseudonym;
pub(crate) mod push;
pub(crate) mod requests;
#[cfg(feature = "redis")]
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;
pub(crate) mod timings;
mod token_times;
pub(crate) mod trace;
pub(crate) mod trace_state;

/// `work` for another task, which belongs to what this one is at: in its trace, and for whoever watches.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    inspector::carried(trace::carried(work))
}
