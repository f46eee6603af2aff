//! `wx-sidecar completions`: what makes a shell complete the arguments, on stdout.
//!
//! `source <(wx-sidecar completions bash)` tries it; the shells' own folders keep it.

use std::process::ExitCode;

use clap::Subcommand as _;
use clap_complete::{generate, shells};

use super::{Command, out};

/// A shell whose language this is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// Such as `/etc/bash_completion.d/wx-sidecar`.
    Bash,
    /// A file `_wx-sidecar` in a folder of `$fpath`.
    Zsh,
    /// Such as `~/.config/fish/completions/wx-sidecar.fish`.
    Fish,
}

/// Prints it.
pub fn completions(shell: Shell) -> ExitCode {
    out::print(script(shell))
}

fn script(shell: Shell) -> Vec<u8> {
    let name = env!("CARGO_PKG_NAME");
    let mut command = Command::augment_subcommands(clap::Command::new(name));
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut script),
    }
    match shell {
        Shell::Bash => with_one_name(name, &script),
        Shell::Zsh | Shell::Fish => script,
    }
}

/// The script for bash calls a command with a hyphen by two names, and completes nothing behind a subcommand
/// (clap-rs/clap#6421).
fn with_one_name(name: &str, script: &[u8]) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    script.replace(&wrong, &right).into_bytes()
}
