//! One integration-test binary: real sockets, real apps, the real process.

#![allow(
    clippy::unwrap_used,
    reason = "this binary is all tests; clippy by itself sees only their functions as such"
)]

mod backends;
mod http_client;
mod main_job;
mod rig;
mod sessions;
mod wechat_errors;
