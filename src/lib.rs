//! wx-sidecar
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod error;
pub mod secret;
pub mod telemetry;
pub mod wechat;
