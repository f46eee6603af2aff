//! Logs: one line per event, as JSON for machines or as text for people, on standard output.
//!
//! What is logged is chosen where it is logged; no secret is ever passed to a log macro, because secrets are types that
//! cannot be printed.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Log, LogFormat};

/// By what the form of a line is changed, and by what the choice of them. Apart, because a filter that belongs to a layer
/// cannot be put in another's place.
static HANDLES: OnceLock<(Handle<Writer, Registry>, Handle<Targets, Written>)> = OnceLock::new();

type Writer = Box<dyn Layer<Registry> + Send + Sync>;
type Written = Layered<reload::Layer<Writer, Registry>, Registry>;

/// Sends this process's events to standard output. The first call counts.
pub fn init(log: &Log) {
    let (writer, form) = reload::Layer::new(writer(log.format));
    let (filter, choice) = reload::Layer::new(chosen(LevelFilter::from_level(log.level)));
    // An error means that the embedding program has its own subscriber, which then gets our events.
    if Registry::default()
        .with(writer)
        .with(filter)
        .try_init()
        .is_ok()
    {
        let _first = HANDLES.set((form, choice));
    }
}

/// From now on events are written in another form, or others of them. Nothing happens if they are not written by us.
pub(crate) fn change(log: &Log) {
    if let Some((form, choice)) = HANDLES.get() {
        // An error means that the subscriber is gone, and with it the process.
        let _gone = form.reload(writer(log.format));
        let _gone = choice.reload(chosen(LevelFilter::from_level(log.level)));
    }
}

fn writer(format: LogFormat) -> Writer {
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal());
    match format {
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Pretty => layer.compact().boxed(),
    }
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
