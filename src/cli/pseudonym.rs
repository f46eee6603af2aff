//! `wx-sidecar pseudonym o6zAJs1Zf...`: what the log calls a user.
//!
//! It goes this way only: who has an openid and the configuration finds that user's lines. With several secrets, while they
//! rotate, there is a pseudonym of each, the newest first. Openids may come by standard input, one a line, so that none
//! stands in a shell's history.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use super::out;
use crate::domain::OpenId;
use crate::source::Source;
use crate::telemetry::pseudonym::Pseudonyms;

/// Prints a line for each openid. Exit code 0: of all, 1: not.
pub fn pseudonym(openids: Vec<String>, source: &Source) -> ExitCode {
    let config = match source.load() {
        Ok(loaded) => loaded.config,
        Err(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            return ExitCode::FAILURE;
        }
    };
    let secrets = config.sealing_secrets().iter();
    let keys: Vec<_> = secrets
        .map(|secret| Pseudonyms::derive(&config.app.appid, secret))
        .collect();
    let openids = match openids.is_empty() {
        false => openids,
        true => {
            let mut text = String::new();
            if let Err(error) = std::io::stdin().read_to_string(&mut text) {
                eprintln!("standard input: {error}");
                return ExitCode::FAILURE;
            }
            text.lines().map(str::to_owned).collect()
        }
    };
    let mut text = String::new();
    for openid in openids {
        let Ok(openid) = OpenId::parse(openid.trim()) else {
            eprintln!("this is not an openid");
            return ExitCode::FAILURE;
        };
        let names: Vec<_> = keys.iter().map(|key| key.of(&openid).to_string()).collect();
        text.push_str(&names.join(" "));
        text.push('\n');
    }
    out::print(text)
}
