//! `wx-sidecar config push`: from a file into ZooKeeper, where sidecars follow it.
//!
//! Sidecars refuse what is not valid, but those that restart have only that: so nothing is written that `check` would
//! refuse. It is written over what was there when it was read and over nothing else, so that of two who push at once one is
//! told. Nothing of either content is shown, because it may have secrets.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::cli::out;
use crate::cli::source_arg::{Discreet, VARIABLE};
use crate::config::{Config, Loaded};
use crate::source::Source;
use crate::zookeeper::{Content, Over, SCHEME, Znode, ZookeeperError};

/// How long ZooKeeper may take to be found, and to write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `wx-sidecar config push`.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// The file to write there.
    #[arg(short, long, value_name = "FILE", default_value = "sidecar.toml", value_parser = Discreet(file))]
    config: PathBuf,
    /// Where to: zookeeper://host:2181,host2:2181/znode/path; with user:password@ before the host if need be.
    #[arg(value_name = "ZNODE", env = VARIABLE, hide_env_values = true, value_parser = Discreet(Znode::parse))]
    znode: Znode,
    /// Write only over this version.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    if_version: Option<i32>,
    /// Write also over the configuration of another Mini Program.
    #[arg(long)]
    force: bool,
}

/// A push that was not done. The message is for people.
struct NotPushed(String);

impl From<ZookeeperError> for NotPushed {
    fn from(error: ZookeeperError) -> Self {
        Self(error.to_string())
    }
}

/// Checks, compares, writes; the version goes to stdout, and what else there is to say to stderr.
pub(super) fn run(args: &PushArgs) -> ExitCode {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let loaded = match Source::file(&args.config).load() {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(colours));
            eprintln!("nothing is written");
            return ExitCode::FAILURE;
        }
    };
    eprint!("{}", loaded.warnings.render(colours));
    warn(args, &loaded);
    match push(args, &loaded) {
        Ok(version) => {
            // It is written, whoever hears of it.
            out::tell(&format!("{}: version {version}", args.znode));
            ExitCode::SUCCESS
        }
        Err(NotPushed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is good in a file and not in a node.
fn warn(args: &PushArgs, loaded: &Loaded) {
    let secrets = loaded.effective.literal_secrets();
    if !secrets.is_empty() && !args.znode.has_user() {
        eprintln!(
            "warning: everybody who reaches ZooKeeper can read {}: name a user ({SCHEME}user:password@...), or write \
             ${{NAME}} or a file's path instead",
            secrets.join(", ")
        );
    }
    let files = loaded.effective.relative_files();
    if !files.is_empty() {
        eprintln!(
            "warning: the paths in {} are relative, which is to {} here and to the working directory where a sidecar \
             reads ZooKeeper; write them from / on",
            files.join(", "),
            match args.config.parent() {
                Some(directory) if !directory.as_os_str().is_empty() =>
                    format!("`{}`", directory.display()),
                _ => "this directory".to_owned(),
            }
        );
    }
}

/// The version that holds the file's content now.
fn push(args: &PushArgs, loaded: &Loaded) -> Result<i32, NotPushed> {
    let bytes = fs::read(&args.config).map(Zeroizing::new);
    let bytes = bytes.map_err(|error| NotPushed(format!("{}: {error}", args.config.display())))?;
    if !loaded.inputs.are_as_they_were() {
        let file = args.config.display();
        let why = format!("{file} has changed while it was read; push again");
        return Err(NotPushed(why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| NotPushed(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let there = match args.znode.read(PATIENCE).await {
            Ok(content) => Some(content),
            Err(ZookeeperError::NoNode { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(there) = &there
            && *there.bytes == *bytes
        {
            eprintln!("this is there already; nothing is written");
            return Ok(there.version);
        }
        let over = admit(args, loaded, there.as_ref())?;
        eprintln!("{}", difference(there.as_ref(), &bytes));
        Ok(args.znode.write(&bytes, over, PATIENCE).await?)
    })
}

/// What may be written over, if anything.
fn admit(args: &PushArgs, loaded: &Loaded, there: Option<&Content>) -> Result<Over, NotPushed> {
    let Some(there) = there else {
        return match args.if_version {
            None => Ok(Over::Nothing),
            Some(version) => Err(NotPushed(format!(
                "there is no node, and so no version {version}; nothing is written"
            ))),
        };
    };
    if let Some(version) = args.if_version
        && version != there.version
    {
        return Err(NotPushed(format!(
            "version {} is there and not {version}: somebody else has written it; look at what is there, and push again \
             (nothing is written)",
            there.version
        )));
    }
    let ours = loaded.config.app.appid.as_str();
    match Config::appid_in(&there.bytes) {
        Some(theirs) if theirs != ours && !args.force => {
            let why = "the node has the configuration of another Mini Program ([app] appid), whose sidecars would refuse \
                this one; --force writes it all the same (nothing is written)";
            Err(NotPushed(why.to_owned()))
        }
        _ => Ok(Over::Version(there.version)),
    }
}

/// How many lines are others.
fn difference(there: Option<&Content>, bytes: &[u8]) -> String {
    let Some(there) = there else {
        let count = bytes.split_inclusive(|b| *b == b'\n').count();
        return format!("the node is created with {}", lines(count));
    };
    let mut balance: HashMap<&[u8], isize> = HashMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        *balance.entry(line).or_default() += 1;
    }
    for line in there.bytes.split(|b| *b == b'\n') {
        *balance.entry(line).or_default() -= 1;
    }
    let sum = |of: fn(isize) -> isize| {
        balance
            .values()
            .map(|count| of(*count).unsigned_abs())
            .sum()
    };
    let (new, gone): (usize, usize) = (sum(|count| count.max(0)), sum(|count| count.min(0)));
    let version = there.version;
    if new == 0 && gone == 0 {
        return format!("over version {version}: the same lines in another order");
    }
    format!(
        "over version {version}: {} new, {} gone",
        lines(new),
        lines(gone)
    )
}

fn lines(count: usize) -> String {
    match count {
        1 => "1 line".to_owned(),
        _ => format!("{count} lines"),
    }
}

fn file(text: &str) -> Result<PathBuf, String> {
    match text.starts_with(SCHEME) {
        true => Err("it is the file to write; where to stands without -c".into()),
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(there: &str, new: &str) -> String {
        let there = Content {
            bytes: Zeroizing::new(there.into()),
            version: 3,
            mzxid: 9,
        };
        difference(Some(&there), new.as_bytes())
    }

    #[test]
    fn lines_are_counted_and_not_shown() {
        assert_eq!(
            told("a\nb\nc\n", "a\nc\n"),
            "over version 3: 0 lines new, 1 line gone"
        );
        assert_eq!(
            told("a\n", "a\na\nd\n"),
            "over version 3: 2 lines new, 0 lines gone"
        );
        assert_eq!(
            told("a\nb\n", "b\na\n"),
            "over version 3: the same lines in another order"
        );
        assert_eq!(
            difference(None, b"a\nb"),
            "the node is created with 2 lines"
        );
    }
}
