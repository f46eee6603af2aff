//! `wx-sidecar check`: is this configuration good?
//!
//! The same code as the start and a reload, and nothing else: no socket is opened and no name is looked up, so it runs in
//! a build, in an init container or on a laptop. With `--online`, WeChat and Redis are asked as well, as `doctor` asks
//! them. People read stderr; programs read stdout, which is empty but for `--format json`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::doctor::{Findings, examine_configuration};
use super::out;
use crate::source::Source;

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs, on stdout.
    Json,
}

/// Checks the configuration of `source`, says what it thinks of it, and exits with 0 if it can be used and 1 if not. With
/// `online`, WeChat and Redis must find it good too.
pub fn check(source: &Source, format: Format, online: bool) -> ExitCode {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let verdict = match online {
        true => Verdict::online(source, format, colours),
        false => Verdict::of(source, format, colours),
    };
    // Nobody may be listening any more; the exit code still tells.
    let _ = io::stderr().write_all(verdict.stderr.as_bytes());
    out::print_and(verdict.stdout, verdict.ok)
}

struct Verdict {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Verdict {
    fn of(source: &Source, format: Format, colours: bool) -> Self {
        let (ok, report) = match source.load() {
            Ok(loaded) => (true, loaded.warnings),
            Err(report) => (false, report),
        };
        let (mut stdout, mut stderr) = (String::new(), String::new());
        match format {
            Format::Json => stdout = format!("{}\n", report.to_json()),
            Format::Text => {
                stderr = report.render(colours);
                if ok {
                    stderr.push_str(&format!("{source}: OK\n"));
                }
            }
        }
        Self { ok, stdout, stderr }
    }

    /// The same, and then what others say. Of a file that is not valid nobody is asked.
    fn online(source: &Source, format: Format, colours: bool) -> Self {
        let mut findings = Findings::default();
        let loaded = source.load();
        let report = match &loaded {
            Ok(loaded) => {
                examine_configuration(&loaded.config, &mut findings);
                &loaded.warnings
            }
            Err(report) => report,
        };
        let ok = loaded.is_ok() && findings.are_good();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        match format {
            Format::Json => stdout = format!("{}\n", findings.to_json(report)),
            Format::Text => {
                stderr = report.render(colours);
                stderr.push_str(&findings.lines(colours));
                if ok {
                    stderr.push_str(&format!("{source}: OK\n"));
                }
            }
        }
        Self { ok, stdout, stderr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                        [inbound]\nupstream = \"http://127.0.0.1:3000\"\n";

    fn verdict(text: &str, format: Format) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sidecar.toml");
        std::fs::write(&path, text).unwrap();
        Verdict::of(&Source::file(&path), format, false)
    }

    #[test]
    fn a_good_file_is_ok_on_stderr() {
        let verdict = verdict(GOOD, Format::Text);
        assert!(verdict.ok);
        assert_eq!(verdict.stdout, "");
        assert!(verdict.stderr.ends_with("sidecar.toml: OK\n"));
    }

    #[test]
    fn json_goes_to_stdout_in_its_fixed_form() {
        let good = verdict(GOOD, Format::Json);
        assert_eq!(good.stdout, "{\"diagnostics\":[],\"ok\":true}\n");
        let bad = verdict(&GOOD.replace("upstream", "upstrem"), Format::Json);
        assert!(!bad.ok);
        assert_eq!(bad.stderr, "");
        let json: serde_json::Value = serde_json::from_str(&bad.stdout).unwrap();
        assert_eq!(json["ok"], false);
        let first = &json["diagnostics"][1];
        assert_eq!(first["level"], "error");
        assert_eq!((&first["line"], &first["column"]), (&5.into(), &1.into()));
        assert_eq!(first["help"], "did you mean `upstream`?");
        assert!(first["file"].as_str().unwrap().ends_with("sidecar.toml"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let verdict = Verdict::of(
            &Source::file("/nonexistent/sidecar.toml"),
            Format::Text,
            false,
        );
        assert!(!verdict.ok);
        assert!(verdict.stderr.contains("/nonexistent/sidecar.toml"));
        assert!(verdict.stderr.contains("does not exist"));
    }
}
