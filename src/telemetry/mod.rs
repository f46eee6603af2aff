//! What the sidecar tells its operators: metrics, logs and traces.

mod apis;
mod breakers;
pub mod families;
pub(crate) mod ids;
pub mod logs;
pub(crate) mod media;
pub mod metrics;
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
