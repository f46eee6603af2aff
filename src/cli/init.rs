//! `wx-sidecar init`: a configuration to start with.
//!
//! It has the three keys that are needed, and beside them, as comments, what most people want next. What is printed has been
//! checked as `check` would do it, so that what was given on the command line is wrong here and not at the start. A file that is
//! there already is kept.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::out;
use crate::config::{Config, REFERENCE_TEXT};

const SECRET: &str = "WX_APP_SECRET";

/// What stands for an AppSecret while the file is checked: it need not be set yet.
const SOME_SECRET: &str = "00000000000000000000000000000000";

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Your Mini Program's AppID.
    #[arg(long, default_value = "wx0123456789abcdef", conflicts_with = "full")]
    appid: String,
    /// Where your app listens.
    #[arg(long, default_value = "http://127.0.0.1:3000", conflicts_with = "full")]
    upstream: String,
    /// Every key there is, with its default and what it does.
    #[arg(long)]
    full: bool,
    /// The file to write; without it, standard output.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "output")]
    force: bool,
}

/// Prints or writes the file, and exits with 0; with 1 if what was given is wrong or the file cannot be written.
pub fn run(args: &InitArgs) -> ExitCode {
    let text = match args.full {
        true => REFERENCE_TEXT.to_owned(),
        false => small(&args.appid, &args.upstream),
    };
    let env = |name: &str| {
        let value = std::env::var(name).ok();
        value.or_else(|| (name == SECRET).then(|| SOME_SECRET.to_owned()))
    };
    let shown = args.output.as_deref().unwrap_or(Path::new("sidecar.toml"));
    if let Err(report) = Config::parse(&text, &shown.display().to_string(), &env) {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", report.render(colours));
        return ExitCode::FAILURE;
    }
    let Some(path) = &args.output else {
        return out::print(text);
    };
    if let Err(error) = write(path, &text, args.force) {
        let path = path.display();
        match error.kind() {
            ErrorKind::AlreadyExists => {
                eprintln!("error: {path} is there already; --force replaces it");
            }
            _ => eprintln!("error: {path} cannot be written: {error}"),
        }
        return ExitCode::FAILURE;
    }
    let path = path.display();
    eprintln!("{path} is written. Set {SECRET}, then: wx-sidecar check -c {path}");
    ExitCode::SUCCESS
}

fn write(path: &Path, text: &str, replace: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match replace {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    options.write(true).open(path)?.write_all(text.as_bytes())
}

fn small(appid: &str, upstream: &str) -> String {
    // JSON's strings are TOML's, but for one character that no value here may have.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (appid, upstream) = (quoted(appid), quoted(upstream));
    format!(
        r#"# wx-sidecar: what is not here has a default. `wx-sidecar config show` tells all that holds, and `wx-sidecar init --full`
# prints every key with what it does. For editors: `wx-sidecar schema > sidecar.schema.json`, and as the first line here
# `#:schema ./sidecar.schema.json`.

[app]
# AppID and AppSecret, from mp.weixin.qq.com (开发管理). The AppSecret is read from the environment; a file does too:
# secret_file = "/var/run/secrets/wx/secret"
appid = {appid}
secret = "${{{SECRET}}}"

[inbound]
# Where the Mini Program's requests come in, and where your app listens.
listen = "0.0.0.0:8080"
upstream = {upstream}
# The load balancers in front, if there are any: only they are believed when they say who the client is.
# trusted_proxies = ["10.0.0.0/8"]

# Rules by path; the first that matches wins. Whatever none matches needs a user who has logged in.
[[route]]
path = "/public/**"
auth = "none"

# [[route]]
# path = "/upload"
# timeout = "5m"
# body_limit = "100MiB"

# Message push (消息推送): what users write to the Mini Program is delivered to your app, at `deliver`.
# [push]
# token = "${{WX_PUSH_TOKEN}}"
# aes_key = "${{WX_PUSH_AES_KEY}}"
# deliver = "/wx/push"
# journal = "/var/lib/wx-sidecar"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;

    fn env(name: &str) -> Option<String> {
        match name {
            "WX_PUSH_AES_KEY" => Some("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG".to_owned()),
            "WX_PUSH_TOKEN" => Some("token".to_owned()),
            SECRET => Some(SOME_SECRET.to_owned()),
            _ => None,
        }
    }

    fn loaded(text: &str) -> Config {
        match Config::parse(text, "sidecar.toml", &env) {
            Ok(loaded) => {
                assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
                loaded.config
            }
            Err(report) => panic!("{report}"),
        }
    }

    #[test]
    fn what_is_printed_is_valid_and_so_is_what_stands_there_as_a_comment() {
        let text = small("wxfedcba9876543210", "unix:/run/app.sock");
        let config = loaded(&text);
        assert_eq!(config.app.appid.as_str(), "wxfedcba9876543210");
        let socket = Upstream::Unix("/run/app.sock".into());
        assert_eq!(config.inbound.upstream, socket);
        assert_eq!(config.routes.len(), 1);

        let is_code = |line: &&str| line.contains(" = ") || line.starts_with("# [");
        let all: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("secret_file"))
            .map(|line| match is_code(&line) {
                true => line.trim_start_matches("# "),
                false => line,
            })
            .collect();
        let config = loaded(&all.join("\n"));
        assert_eq!(config.routes.len(), 2);
        assert_eq!(config.inbound.trusted_proxies.networks.len(), 1);
        assert!(config.push.is_some_and(|push| push.journal.is_some()));
    }

    #[test]
    fn quotes_do_not_get_out() {
        let text = small("\"\n[x]", "http://a");
        assert!(Config::parse(&text, "sidecar.toml", &env).is_err());
        assert!(text.contains(r#"appid = "\"\n[x]""#), "{text}");
    }
}
