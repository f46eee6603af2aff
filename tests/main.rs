//! One integration-test binary: real sockets, real apps, the real process.

mod backends;
mod fake_app;
mod floors;
mod forwarding;
mod http_client;
mod main_job;
mod process;
mod rig;
mod wire;
