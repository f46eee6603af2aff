//! Logs: one line per event, as JSON for machines or as text for people, on standard output.
//!
//! What is logged is chosen where it is logged; no secret is ever passed to a log macro, because secrets are types that
//! cannot be printed. Below "info" only our own events are told, except at "trace": a library describes every frame, and
//! what we have to say would drown in it.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat};

/// Sends this process's events to standard output. The first call counts.
pub fn init(log: &Log) {
    let lines = fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal());
    let lines = match log.format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Pretty => lines.compact().boxed(),
    };
    // An error means that the embedding program has its own subscriber, which then gets our events.
    let _embedded = tracing_subscriber::registry()
        .with(told(log.level))
        .with(lines)
        .try_init();
}

/// Whose events are told, and down to which level.
fn told(level: Level) -> Targets {
    let of_libraries = match level {
        Level::DEBUG => Level::INFO,
        other => other,
    };
    Targets::new()
        .with_default(LevelFilter::from_level(of_libraries))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_at_debug_only_from_info_on() {
        let debug = told(Level::DEBUG);
        assert!(debug.would_enable("wx_sidecar::server", &Level::DEBUG));
        assert!(debug.would_enable("h2::codec", &Level::INFO));
        assert!(!debug.would_enable("h2::codec", &Level::DEBUG));
        assert!(told(Level::TRACE).would_enable("h2::codec", &Level::TRACE));
        assert!(!told(Level::WARN).would_enable("h2::codec", &Level::INFO));
    }
}
