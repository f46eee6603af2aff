//! What the sidecar tells its operators: metrics and logs.

pub mod metrics;
