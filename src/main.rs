//! The `wx-sidecar` binary: arguments in, exit code out. The commands are in `cli/`.

use std::process::ExitCode;

use clap::Parser;
use wx_sidecar::cli::Command;
use wx_sidecar::telemetry::logs;

/// A sidecar for WeChat Mini Program backends.
#[derive(Parser)]
#[command(name = "wx-sidecar", version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Exit codes: 0 all is well, 1 it failed, 2 the arguments were wrong (clap's own).
fn main() -> ExitCode {
    let _written = logs::WrittenAtEnd;
    Arguments::parse().command.run()
}
