//! One integration-test binary: real sockets, real apps, the real process.

mod backends;
mod http_client;
mod main_job;
mod rig;
mod sessions;
mod wechat_errors;
