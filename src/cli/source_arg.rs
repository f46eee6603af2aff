//! `-c`: where the configuration is, for every command that reads one.
//!
//! What stands behind it may hold a password (ZooKeeper's). So it may come from the environment, which other users do not
//! see as they see arguments, and no message repeats it, as those of clap would.

use std::ffi::OsStr;
use std::ops::Deref;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use crate::source::Source;

/// The environment variable that says where the configuration is.
pub(super) const VARIABLE: &str = "WX_SIDECAR_CONFIG";

/// The argument.
#[derive(Debug, clap::Args)]
pub struct SourceArg {
    /// The configuration: a file, or zookeeper://host:2181,host2:2181/znode/path; with user:password@ before the host if need be.
    #[arg(
        short,
        long,
        default_value = "sidecar.toml",
        env = VARIABLE,
        hide_env_values = true,
        value_parser = Discreet(str::parse::<Source>),
        global = true
    )]
    config: Source,
}

impl Deref for SourceArg {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.config
    }
}

/// Reads a value and does not repeat it where it is wrong.
#[derive(Clone)]
pub(super) struct Discreet<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Discreet<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        read.and_then(self.0).map_err(|why| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("the value of '{name}' cannot be used: {why}");
            Error::raw(ErrorKind::ValueValidation, message).format(&mut command.clone())
        })
    }
}
