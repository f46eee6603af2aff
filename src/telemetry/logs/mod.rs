//! Logs: one line per event, as JSON for machines or as text for people, on standard output.
//!
//! What is logged is chosen where it is logged; no secret is ever passed to a log macro, because secrets are types that
//! cannot be printed. `line.rs` makes the lines, so that nothing in a value can break one, `pipe.rs` has them written, so
//! that output that blocks holds up nobody, and `access.rs` has one for each request.
//!
//! Subscriber, format and writer are our own, because those of `tracing-subscriber` and `tracing-appender` neither bound a
//! value nor what waits, take a shared lock for each event to be reloadable, and break lines in their text form.

pub(crate) mod access;
pub(super) mod drops;
mod line;
mod pipe;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, callsite, span};

use crate::config::{AccessLog, Log};
use pipe::Pipe;

/// The target of the access log.
const ACCESS: &str = "access";
/// How long the end of the process waits for what is still to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

static PIPE: Pipe = Pipe::new();
/// What is written, and how; set by whoever logs to standard output.
static CHOICE: OnceLock<ArcSwap<Choice>> = OnceLock::new();

thread_local! {
    /// Where this thread makes its lines.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which events are written, and in which form.
struct Choice {
    log: Log,
    colored: bool,
}

/// Sends this process's events to standard output. The first call counts.
pub fn init(log: &Log) {
    let choice = Choice {
        log: log.clone(),
        colored: std::io::stdout().is_terminal(),
    };
    let first = CHOICE.set(ArcSwap::from_pointee(choice)).is_ok();
    // An error means that the embedding program has its own subscriber, which then gets our events.
    if !first || tracing::subscriber::set_global_default(Lines).is_err() {
        return;
    }
    // An error means that there can be no threads here, and then there will be no sidecar that could have logged.
    let _no_threads = pipe::standard_output().and_then(|out| {
        let write = move || {
            PIPE.write_to(out, |lines| {
                tracing::warn!(
                    lines,
                    "lines of the log were dropped, because standard output did not take them"
                );
            });
        };
        std::thread::Builder::new()
            .name("wx-log".to_owned())
            .spawn(write)
    });
}

/// From now on other events are written, or in another form. Nothing happens if they are not written by us.
pub(crate) fn change(log: &Log) {
    if let Some(choice) = CHOICE.get() {
        let colored = choice.load().colored;
        let log = log.clone();
        choice.store(Choice { log, colored }.into());
        callsite::rebuild_interest_cache();
    }
}

/// Waits until what was logged is written, but not for long: whoever reads it may have ceased to.
pub fn flush() {
    PIPE.flush(FLUSH_LIMIT);
}

/// Has what was logged written when it is dropped, by a panic too.
pub struct WrittenAtEnd;

impl Drop for WrittenAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// How many lines were dropped because standard output did not take them: there was no more room for them to wait (`full`),
/// or it cannot be written to (`error`).
pub fn dropped() -> [(&'static str, u64); 2] {
    PIPE.dropped()
}

impl Choice {
    /// What is heard of `target`. Of libraries no more than warnings: they say more about what they debug than may be
    /// logged, `h2` for one whole request-targets with their queries.
    fn level_of(&self, target: &str) -> LevelFilter {
        let log = &self.log;
        if target == ACCESS {
            return match log.access {
                AccessLog::Off => LevelFilter::OFF,
                AccessLog::All | AccessLog::Errors => LevelFilter::INFO,
            };
        }
        let mut modules = target.split("::");
        if modules.next() != Some(env!("CARGO_CRATE_NAME")) {
            return LevelFilter::from_level(log.level).min(LevelFilter::WARN);
        }
        let part = modules.next();
        let own = log.levels.iter().find(|(known, _)| part == Some(known));
        LevelFilter::from_level(own.map_or(log.level, |(_, level)| *level))
    }

    fn most(&self) -> LevelFilter {
        let parts = self.log.levels.iter().map(|(_, level)| *level);
        let access = self.level_of(ACCESS);
        parts
            .chain([self.log.level])
            .map(LevelFilter::from_level)
            .fold(access, LevelFilter::max)
    }

    fn has(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level_of(metadata.target())
    }
}

/// Makes lines of events. Spans are nothing to it.
struct Lines;

impl Lines {
    fn choice<T>(look: impl FnOnce(&Choice) -> T) -> T {
        let choice = CHOICE
            .get()
            .expect("it is set before there is a subscriber");
        look(&choice.load())
    }
}

impl Subscriber for Lines {
    /// Asked once for each call site, and again after a change.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::choice(|choice| choice.has(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Self::choice(Choice::most))
    }

    fn event(&self, event: &Event<'_>) {
        let urgent = event.metadata().target() != ACCESS;
        let write = |line: &mut Vec<u8>| {
            line.clear();
            let (form, colored) = Self::choice(|choice| (choice.log.format, choice.colored));
            line::write(line, form, colored, event);
            PIPE.push(line, urgent);
        };
        LINE.with(|own| match own.try_borrow_mut() {
            Ok(mut own) => write(&mut own),
            // A value that logs while it is being logged.
            Err(_) => write(&mut Vec::new()),
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::config::LogFormat;

    fn choice(level: Level, levels: &[(&'static str, Level)], access: AccessLog) -> Choice {
        Choice {
            log: Log {
                format: LogFormat::Json,
                level,
                levels: levels.to_vec(),
                access,
                access_sample: 1,
                access_path: false,
            },
            colored: false,
        }
    }

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let all = choice(Level::TRACE, &[], AccessLog::All);
        assert_eq!(
            all.level_of("wx_sidecar::server::exchange"),
            LevelFilter::TRACE
        );
        assert_eq!(all.level_of("h2::server"), LevelFilter::WARN);
        assert_eq!(all.level_of("wx_sidecar_else"), LevelFilter::WARN);
        let quiet = choice(Level::ERROR, &[], AccessLog::All);
        assert_eq!(quiet.level_of("h2::server"), LevelFilter::ERROR);
    }

    #[test]
    fn a_part_is_heard_at_its_own_level_and_the_access_log_at_any() {
        let levels = [("push", Level::DEBUG), ("gateway", Level::ERROR)];
        let chosen = choice(Level::WARN, &levels, AccessLog::Errors);
        assert_eq!(
            chosen.level_of("wx_sidecar::push::inbox::local"),
            LevelFilter::DEBUG
        );
        assert_eq!(chosen.level_of("wx_sidecar::gateway"), LevelFilter::ERROR);
        assert_eq!(chosen.level_of("wx_sidecar::push_else"), LevelFilter::WARN);
        assert_eq!(chosen.level_of("wx_sidecar"), LevelFilter::WARN);
        assert_eq!(chosen.level_of(ACCESS), LevelFilter::INFO);
        assert_eq!(chosen.most(), LevelFilter::DEBUG);
        let silent = choice(Level::WARN, &[], AccessLog::Off);
        assert_eq!(silent.level_of(ACCESS), LevelFilter::OFF);
        assert_eq!(silent.most(), LevelFilter::WARN);
    }
}
