//! `wx-sidecar config`: what a configuration comes to, and how it gets into ZooKeeper.
//!
//! `show` answers "why does it do that?": each key with its value and the place it comes from, and secrets are stars. `push`
//! writes a file where sidecars follow it.

mod push;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::out;
use super::source_arg::SourceArg;
use crate::source::Source;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Print what each key is in effect, and where that comes from: file, environment, secret file or default.
    Show {
        #[command(flatten)]
        source: SourceArg,
        /// As a configuration file with comments, or as JSON.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check a file and write it to ZooKeeper, from where sidecars take it over at once. Exit code 0: it is there, 1: not.
    Push(push::PushArgs),
}

/// The form of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A configuration file; sources are comments.
    #[default]
    Toml,
    /// `{"inbound":{"listen":{"value":...,"source":...,"origin":...}}}`
    Json,
}

/// Does it.
pub fn run(args: ConfigArgs) -> ExitCode {
    match args.command {
        ConfigCommand::Show { source, format } => show(&source, format),
        ConfigCommand::Push(args) => push::run(&args),
    }
}

/// Exits with 0 if the configuration can be used and 1 if not.
fn show(source: &Source, format: Format) -> ExitCode {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(colours));
            return ExitCode::FAILURE;
        }
    };
    eprint!("{}", loaded.warnings.render(colours));
    let text = match format {
        Format::Toml => loaded.effective.to_toml(),
        Format::Json => format!("{:#}\n", loaded.effective.to_json()),
    };
    out::print(text)
}
