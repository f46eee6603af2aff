//! One integration-test binary: real sockets, real apps, the real process.

#![allow(
    clippy::unwrap_used,
    reason = "whatever a test did not expect ends it, in its helping functions too"
)]

mod backends;
mod http_client;
mod main_job;
mod rig;
mod sessions;
mod wechat_errors;
