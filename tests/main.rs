//! One integration-test binary: real sockets, real apps, the real process.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, with the place and the error"
)]

mod backends;
mod fake_app;
mod floors;
mod forwarding;
mod http_client;
mod main_job;
mod process;
mod rig;
mod wire;
