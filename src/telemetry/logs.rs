//! Logs: one line per event, as JSON for machines or as text for people, on standard output.
//!
//! What is logged is chosen where it is logged; no secret is ever passed to a log macro, because secrets are types that
//! cannot be printed.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Sends this process's events to standard output. The first call counts.
pub fn init(log: &Log) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from_level(log.level))
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal());
    let chosen = chosen(LevelFilter::from_level(log.level));
    // An error means that the embedding program has its own subscriber, which then gets our events.
    let _embedded = match log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .with(chosen)
            .try_init(),
        LogFormat::Pretty => builder.compact().finish().with(chosen).try_init(),
    };
}

/// What is written at this level. Of libraries no more than warnings: they say more about what they debug than may be
/// logged, `h2` for one whole request-targets with their queries.
fn chosen(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("access", level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let chosen = chosen(LevelFilter::TRACE);
        assert!(chosen.would_enable("wx_sidecar::server::exchange", &Level::TRACE));
        assert!(chosen.would_enable("access", &Level::INFO));
        assert!(chosen.would_enable("h2::server", &Level::WARN));
        assert!(!chosen.would_enable("h2::server", &Level::DEBUG));
        let quiet = super::chosen(LevelFilter::ERROR);
        assert!(!quiet.would_enable("h2::server", &Level::WARN));
    }
}
