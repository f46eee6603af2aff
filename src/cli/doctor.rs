//! `wx-sidecar doctor`: is it my configuration, my network, my app, or WeChat?
//!
//! Each question is asked for itself and in the order in which one depends on the other, and whatever is found has a line
//! of its own: what it is, how it is, and if it is not well, what to do. Nothing is changed anywhere: the access_token
//! that is asked for is the one that all share, the app is sent a HEAD, and Redis a PING.

mod app;
mod ask;
mod push;
mod store;
mod wechat;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use self::ask::Unanswered;
use super::check::Format;
use super::out;
use super::source_arg::SourceArg;
use crate::config::{Config, Loaded, Report};
use crate::source::Source;

const OTHER_PORT: &str = "have [admin] listen on another port";
/// How long the app and the running sidecar may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `wx-sidecar doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    source: SourceArg,
    /// The form of the answer: a line for each check, or JSON.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A path of the app whose answer shows the headers of the request, as text or JSON: to see whether the app reads
    /// X-WX-OPENID, and what it takes X_WX_OPENID for.
    #[arg(long, value_name = "PATH", value_parser = path_of_the_app)]
    echo: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// It works, and should be looked at.
    Doubtful,
    Bad,
    /// There is nothing to be looked at, or no way to.
    Unknown,
}

/// What was looked at, and how it is.
#[derive(Debug)]
pub(super) struct Check {
    name: String,
    health: Health,
    detail: String,
    fix: Option<String>,
}

/// All that was found, in the order in which it was.
#[derive(Default)]
pub(super) struct Findings {
    checks: Vec<Check>,
    /// Whether each is printed as it is found, because some take their time; and whether in colours.
    aloud: Option<Colours>,
}

/// Whether there are colours.
type Colours = bool;

/// Examines. Exit code 0: nothing is wrong, 1: something is.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let colours = |is_terminal| is_terminal && std::env::var_os("NO_COLOR").is_none();
    let styled = colours(io::stdout().is_terminal());
    let mut findings = Findings::default();
    if args.format == Format::Text {
        findings.aloud = Some(styled);
    }
    let report = match args.source.load() {
        Ok(loaded) => {
            findings.of_source(&args.source, &loaded.warnings);
            if args.format == Format::Text {
                eprint!(
                    "{}",
                    loaded.warnings.render(colours(io::stderr().is_terminal()))
                );
            }
            examine(&loaded, args.echo.as_deref(), &mut findings);
            loaded.warnings
        }
        Err(report) => {
            findings.bad(
                "configuration",
                format!("{} is not valid", *args.source),
                "mend what is told of it here; nothing else is looked at before",
            );
            if args.format == Format::Text {
                eprint!("{}", report.render(colours(io::stderr().is_terminal())));
            }
            report
        }
    };
    let text = match args.format {
        Format::Json => format!("{}\n", findings.to_json(&report)),
        // It has been said as it was found.
        Format::Text => String::new(),
    };
    out::print_and(text, findings.are_good())
}

/// What `check --online` looks at: what the configuration says of others, and they may see otherwise.
pub(super) fn examine_configuration(config: &Config, findings: &mut Findings) {
    block_on(findings, async |findings| {
        wechat::examine(config, findings).await;
        store::examine(config, findings).await;
    });
}

fn examine(loaded: &Loaded, echo: Option<&str>, findings: &mut Findings) {
    let config = &loaded.config;
    examine_sidecar(config, findings);
    examine_configuration(config, findings);
    push::examine(config, findings);
    app::examine(loaded, echo, findings);
}

/// Whether a sidecar runs here, and whether it is ready.
fn examine_sidecar(config: &Config, findings: &mut Findings) {
    let admin = &config.admin.listen;
    let Some(place) = ask::Place::of_listener(admin) else {
        return findings.unknown("sidecar", "its admin port is chosen when it starts");
    };
    match ask::ask(&place, &ask::get("/readyz?verbose"), PATIENCE) {
        Ok(answer) if !answer.body.contains("readyz check") => findings.bad(
            "sidecar",
            format!("something else listens at {admin}"),
            OTHER_PORT,
        ),
        Ok(answer) if answer.status == 200 => {
            findings.good("sidecar", format!("it runs and is ready, says {admin}"));
        }
        Ok(answer) => {
            let failed = answer.body.lines().filter(|line| line.starts_with("[-]"));
            let failed = failed.collect::<Vec<_>>().join(", ");
            findings.bad(
                "sidecar",
                format!(
                    "it runs and is not ready, says {admin}: HTTP {} {failed}",
                    answer.status
                ),
                "see its log",
            );
        }
        Err(Unanswered::NotThere(_)) => {
            findings.unknown(
                "sidecar",
                format!("it does not run: nobody listens at {admin}"),
            );
        }
        Err(Unanswered::NotHttp(why)) => findings.bad(
            "sidecar",
            format!("something else listens at {admin}: {why}"),
            OTHER_PORT,
        ),
    }
}

fn block_on(findings: &mut Findings, work: impl AsyncFnOnce(&mut Findings)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work(findings)),
        Err(error) => findings.bad(
            "runtime",
            error.to_string(),
            "let this user have more threads and files",
        ),
    }
}

impl Findings {
    /// Whether nothing is wrong.
    pub(super) fn are_good(&self) -> bool {
        self.checks.iter().all(|check| check.health != Health::Bad)
    }

    /// For people.
    pub(super) fn lines(&self, styled: bool) -> String {
        self.checks.iter().map(|check| check.line(styled)).collect()
    }

    /// `{"ok", "diagnostics", "checks"}`: what `check` says of the file, and what was found beyond it.
    pub(super) fn to_json(&self, report: &Report) -> Value {
        let mut json = report.to_json();
        json["ok"] = json!(self.are_good() && !report.has_errors());
        json["checks"] = self.checks.iter().map(Check::to_json).collect();
        json
    }

    fn of_source(&mut self, source: &Source, warnings: &Report) {
        match warnings.diagnostics().count() {
            0 => self.good("configuration", format!("{source} is valid")),
            count => self.doubtful(
                "configuration",
                match count {
                    1 => format!("{source} is valid, with a warning"),
                    count => format!("{source} is valid, with {count} warnings"),
                },
                "see what `wx-sidecar check` says of it",
            ),
        }
    }

    fn good(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.note(name.into(), Health::Good, &detail.into(), None);
    }

    fn unknown(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.note(name.into(), Health::Unknown, &detail.into(), None);
    }

    fn doubtful(
        &mut self,
        name: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.note(
            name.into(),
            Health::Doubtful,
            &detail.into(),
            Some(fix.into()),
        );
    }

    fn bad(&mut self, name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) {
        self.note(name.into(), Health::Bad, &detail.into(), Some(fix.into()));
    }

    fn note(&mut self, name: String, health: Health, detail: &str, fix: Option<String>) {
        let check = Check {
            name,
            health,
            detail: printable(detail),
            fix,
        };
        if let Some(styled) = self.aloud {
            // Nobody may be listening any more; the exit code still tells.
            let _ = io::stdout().write_all(check.line(styled).as_bytes());
        }
        self.checks.push(check);
    }
}

impl Check {
    /// For people; with what to do in a line of its own.
    pub(super) fn line(&self, styled: bool) -> String {
        let (sign, colour) = match self.health {
            Health::Good => ('✓', 32),
            Health::Doubtful => ('!', 33),
            Health::Bad => ('✗', 31),
            Health::Unknown => ('-', 2),
        };
        let sign = match styled {
            true => format!("\u{1b}[{colour}m{sign}\u{1b}[0m"),
            false => sign.to_string(),
        };
        let mut line = format!("{sign} {}: {}\n", self.name, self.detail);
        if let Some(fix) = &self.fix {
            let _in_memory = writeln!(line, "  fix: {fix}");
        }
        line
    }

    fn to_json(&self) -> Value {
        let status = match self.health {
            Health::Good => "ok",
            Health::Doubtful => "warning",
            Health::Bad => "failed",
            Health::Unknown => "skipped",
        };
        json!({ "name": self.name, "status": status, "detail": self.detail, "fix": self.fix })
    }
}

/// What others say, for a terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

fn path_of_the_app(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a path begins with a slash and has no spaces".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_and_its_fix_another() {
        let mut findings = Findings::default();
        findings.good("clock", "within a second");
        findings.bad("app", "refused\u{1b}[2J", "start it");
        assert_eq!(findings.checks[0].line(false), "✓ clock: within a second\n");
        assert_eq!(
            findings.checks[1].line(false),
            "✗ app: refused [2J\n  fix: start it\n"
        );
        assert!(
            findings.checks[0]
                .line(true)
                .starts_with("\u{1b}[32m✓\u{1b}[0m clock")
        );
        assert!(!findings.are_good());
    }

    #[test]
    fn a_warning_and_what_is_not_known_do_not_make_it_bad() {
        let mut findings = Findings::default();
        findings.doubtful("clock", "8 s ahead", "set it");
        findings.unknown("Redis", "none is configured");
        assert!(findings.are_good());
        let statuses = findings.checks.iter().map(Check::to_json);
        let statuses: Vec<Value> = statuses.map(|check| check["status"].clone()).collect();
        assert_eq!(statuses, ["warning", "skipped"]);
    }
}
