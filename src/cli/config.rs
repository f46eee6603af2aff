//! `wx-sidecar config`: what a configuration comes to.
//!
//! `show` answers "why does it do that?": each key with its value and the place it comes from. It opens no socket, and
//! secrets are stars.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

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
        /// The configuration file.
        #[arg(short, long, default_value = "sidecar.toml")]
        config: Source,
        /// As a configuration file with comments, or as JSON.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
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
        ConfigCommand::Show { config, format } => show(&config, format),
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
    // Nobody may be listening any more.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
