//! What a command prints on standard output.
//!
//! A reader that has gone has read enough, so a closed pipe is no failure (`| head -1`); a disk that is full is one, because what was
//! asked for is not there.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Prints the outcome of a command. The exit code says whether it got out.
pub(super) fn print(text: impl AsRef<[u8]>) -> ExitCode {
    match written(text.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// As [`print()`], where something else than its being printed says whether the command has failed.
pub(super) fn print_and(text: impl AsRef<[u8]>, is_good: bool) -> ExitCode {
    match is_good {
        true => print(text),
        false => {
            let _failed_anyway = print(text);
            ExitCode::FAILURE
        }
    }
}

/// Prints what a process that goes on has to say; it goes on if nobody listens.
pub(super) fn tell(text: &str) {
    let _nobody_listens = written(format!("{text}\n").as_bytes());
}

fn written(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

fn say(text: &str) {
    let _nobody_listens = writeln!(io::stderr(), "{text}");
}
