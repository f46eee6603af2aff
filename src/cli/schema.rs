//! `wx-sidecar schema`: the JSON Schema of the configuration file, on stdout.
//!
//! `wx-sidecar schema > sidecar.schema.json`, and `#:schema ./sidecar.schema.json` as the first line of `sidecar.toml`: then
//! an editor with a TOML language server (taplo, Even Better TOML) completes, explains and checks what is typed.

use std::process::ExitCode;

use super::out;
use crate::config;

/// Prints it.
pub fn schema() -> ExitCode {
    out::print(format!("{:#}\n", config::schema()))
}
