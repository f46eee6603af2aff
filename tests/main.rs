//! One integration-test binary: real sockets, real apps, the real process.

mod backends;
mod fake_app;
mod http_client;
mod main_job;
mod rig;
mod wire;
