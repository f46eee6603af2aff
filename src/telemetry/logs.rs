//! Logs: one line per event, as JSON for machines or as text for people, on standard output.
//!
//! What is logged is chosen where it is logged; no secret is ever passed to a log macro, because secrets are types that
//! cannot be printed.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat};

/// Sends this process's events to standard output. The first call counts.
pub fn init(log: &Log) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from_level(log.level))
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal());
    // An error means that the embedding program has its own subscriber, which then gets our events.
    let _embedded = match log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        LogFormat::Pretty => builder.compact().try_init(),
    };
}
