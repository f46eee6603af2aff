//! One integration-test binary: real sockets, real apps, the real process.

#![allow(
    clippy::unwrap_used,
    reason = "this binary is all tests; clippy by itself sees only their functions as such"
)]

mod admin;
mod api_security;
mod backends;
mod cli_config;
mod config_in_zookeeper;
mod content_check;
mod daemon;
mod dev;
mod doctor;
mod egress;
mod examples;
mod explain;
mod fake_app;
mod floors;
mod forwarding;
mod h2_peer;
mod h2c;
mod http2;
mod http2_client;
mod http2_traps;
mod http_client;
mod inject;
mod inspector;
mod inspector_page;
mod k8s;
mod large_bodies;
mod limits;
mod listening;
mod logs;
mod main_job;
mod media;
mod media_accel;
mod media_cache;
mod media_download;
mod media_upload;
mod media_urls;
mod metrics;
mod open_data;
mod outbound;
mod overload;
mod patience;
mod process;
#[cfg(feature = "redis")]
mod prometheus;
#[cfg(feature = "redis")]
mod prometheus_server;
mod proxy_protocol;
mod push;
mod push_apps;
mod push_kill;
#[cfg(feature = "redis")]
mod push_redis;
mod readme;
#[cfg(feature = "redis")]
mod redis_server;
#[cfg(feature = "redis")]
mod redis_store;
mod reload;
mod rig;
mod rotation;
mod runbook;
mod sdks;
mod sessions;
mod sim_push;
#[cfg(feature = "otlp")]
mod spans;
mod systemd;
mod tls;
mod traces;
mod traps;
mod upgrade;
mod wechat_calls;
mod wechat_errors;
mod wire;
mod zookeeper;
mod zookeeper_server;
