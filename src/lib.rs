//! wx-sidecar: a sidecar that does all that WeChat demands of a Mini Program's server, so that the app behind it gets plain
//! HTTP requests that already say who the user is.
//!
//! This page is the map. Modules stand on floors and use only floors below their own; features never see each other. A
//! test reads `src/` and holds that (`tests/floors.rs`).
//!
//! | floor | modules |
//! | --- | --- |
//! | 9 | [`cli`]: one file per command |
//! | 8 | [`server`]: the assembly; `exchange.rs` is THE request; [`sim`]: WeChat's servers, simulated, on floors 0 to 2 only; `fuzzing`: what holds for any bytes, in tests only |
//! | 7 | features: `session` (login, tokens, revocation), `open_data` (decryption), `proxy` (forwarding to the app), `outbound` (the app's calls to WeChat), `push` (what WeChat sends of itself), `media` (files to WeChat and from there), `content_check` (WeChat's judgement of texts and media) |
//! | 6 | [`gateway`]: calling WeChat; [`source`]: where the configuration comes from, and when it has changed |
//! | 5 | `wire`: HTTP on the wire, 1.1 and 2, WebSocket frames; `resilience`: timeouts, limits, retries, panics; `redis_link`: the connection to Redis; [`zookeeper`]: a configuration in ZooKeeper |
//! | 4 | `net`: sockets, TLS, the PROXY protocol; `path`: the canonical path; `answer`; `files`: files beside the work of a thread; [`telemetry`]: metrics, logs, ids, and what the inspector remembers |
//! | 3 | [`config`]; [`error`]: what went wrong, for whom |
//! | 2 | [`wechat`]: the protocol as data; `seal`: sealing under keys that rotate |
//! | 1 | [`secret`]; [`domain`]: values that are valid if they exist |
//! | 0 | [`crypto`]: bytes in, bytes out; [`clock`] |

mod answer;
pub mod cli;
pub mod clock;
pub mod config;
mod content_check;
pub mod crypto;
pub mod domain;
pub mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gateway;
mod media;
mod net;
mod open_data;
mod outbound;
mod path;
mod proxy;
mod push;
#[cfg(feature = "redis")]
mod redis_link;
mod resilience;
mod seal;
pub mod secret;
pub mod server;
mod session;
pub mod sim;
pub mod source;
pub mod telemetry;
pub mod wechat;
mod wire;
pub mod zookeeper;

pub use config::Config;
pub use error::Error;
pub use server::{Asked, Explanation, Sidecar};
