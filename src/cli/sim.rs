//! `wx-sidecar sim`: the simulator on a port, until it is told to stop; `wx-sidecar sim push`: pushes without one.

mod push;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::out;
use crate::clock::Clock;
use crate::crypto;
use crate::domain::AppId;
use crate::secret::Secret;
use crate::sim::push::{Format, Mode, PushOptions};
use crate::sim::{Identity, Options, SimApp, Simulator};

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// What signs and encrypts pushes where nothing else is given; invented, as the secret is.
pub(super) const PUSH_TOKEN: &str = "0123456789abcdef";
pub(super) const PUSH_AES_KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// Simulates WeChat's servers, for development without an account.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SimArgs {
    #[command(subcommand)]
    command: Option<Box<SimCommand>>,
    /// Where to listen; whoever can reach it can log in as anyone.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    pub listen: SocketAddr,
    /// The AppID of the one Mini Program that exists.
    #[arg(long, default_value = APPID, value_parser = AppId::parse)]
    pub appid: AppId,
    /// Its AppSecret; an invented one, never a real one.
    #[arg(long, default_value = SECRET, value_parser = parse_secret)]
    pub secret: Secret,
    /// A certificate in PEM, with those between it and a root: HTTPS is spoken then, and plain HTTP is not.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where to push what WeChat would tell the app of the calls that it makes, such as http://127.0.0.1:8080/wx/push;
    /// without it nothing is pushed.
    #[arg(long, value_name = "URL")]
    pub push_to: Option<String>,
    /// The token that pushes are signed with.
    #[arg(long, value_name = "TOKEN", default_value = PUSH_TOKEN, value_parser = parse_secret)]
    pub push_token: Secret,
    /// The EncodingAESKey that pushes are encrypted with, 43 letters and digits.
    #[arg(long, value_name = "KEY", default_value = PUSH_AES_KEY, value_parser = parse_secret)]
    pub push_aes_key: Secret,
    /// How pushes are protected.
    #[arg(long, value_enum, default_value_t)]
    pub push_mode: Mode,
    /// The format of pushes.
    #[arg(long, value_enum, default_value_t)]
    pub push_format: Format,
}

#[derive(Subcommand, Debug)]
enum SimCommand {
    /// Push a message or an event to a receiver, as WeChat does, and judge its reply.
    Push(push::PushArgs),
}

/// Runs the simulator until SIGINT or SIGTERM, or pushes.
pub fn run(mut args: SimArgs) -> ExitCode {
    if let Some(command) = args.command.take() {
        let SimCommand::Push(args) = *command;
        return push::push(args);
    }
    match simulate(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wx-sidecar sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(args: SimArgs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let SimArgs {
        listen,
        appid,
        secret,
        tls_cert,
        tls_key,
        push_to,
        push_token,
        push_aes_key,
        push_mode,
        push_format,
        command: _,
    } = args;
    let push = push_to.map(|to| PushOptions {
        mode: push_mode,
        format: push_format,
        ..PushOptions::new(to, appid.clone(), push_token, push_aes_key)
    });
    let mut curl = "curl -s".to_owned();
    let tls = match (tls_cert, tls_key) {
        (Some(certificate), Some(key)) => {
            curl = format!("curl -s --cacert {}", certificate.display());
            Some(Identity {
                certificates: read(&certificate)?,
                key: Secret::new(read(&key)?),
            })
        }
        _ => None,
    };
    let (named, shown) = (appid.clone(), shown(&secret));
    let simulator = Simulator::start(Options {
        listen,
        apps: vec![SimApp::new(appid, secret)],
        clock: Clock::System,
        seed: u64::from_ne_bytes(crypto::random()),
        tls,
        push,
    })
    .map_err(|error| io::Error::new(error.kind(), format!("cannot start on {listen}: {error}")))?;
    out::tell(&greeting(&curl, &simulator.url(), &named, shown));

    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    simulator.stop();
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// The secret as the greeting may show it: the well-known one as it is, any other as a shell variable.
fn shown(secret: &Secret) -> &'static str {
    if secret.expose() == SECRET {
        SECRET
    } else {
        "$SECRET"
    }
}

/// Where it listens and what to try.
fn greeting(curl: &str, url: &str, appid: &AppId, secret: &str) -> String {
    format!(
        "WeChat is simulated at {url} for {appid}. Try:

  code=$({curl} '{url}/_sim/code?user=alice&format=text')
  {curl} \"{url}/sns/jscode2session?appid={appid}&secret={secret}&js_code=$code&grant_type=authorization_code\"
  {curl} {url}/_sim/faults -d '{{\"path\": \"/sns/*\", \"count\": 3, \"fault\": {{\"errcode\": -1}}}}'
  {curl} {url}/_sim/calls

All that it can do: {curl} {url}/_sim/"
    )
}

fn parse_secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches as _, error::ErrorKind};

    use super::*;

    fn parse(args: &[&str]) -> Result<SimArgs, clap::Error> {
        let command = SimArgs::augment_args(clap::Command::new("sim"));
        let args = ["sim"].iter().chain(args);
        SimArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn the_defaults_are_a_complete_app_on_the_loopback() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:9902");
        assert_eq!(args.appid.as_str(), "wx0123456789abcdef");
        assert!(greeting("curl", "http://x", &args.appid, shown(&args.secret)).contains(SECRET));
    }

    #[test]
    fn a_secret_of_ones_own_is_never_printed() {
        let args = parse(&["--secret", "hunter2"]).unwrap();
        assert!(!format!("{args:?}").contains("hunter2"));
        assert!(
            !greeting("curl", "http://x", &args.appid, shown(&args.secret)).contains("hunter2")
        );
    }

    #[test]
    fn a_certificate_goes_with_its_key() {
        let args = parse(&["--tls-cert", "c.pem", "--tls-key", "k.pem"]).unwrap();
        assert_eq!(args.tls_key.as_deref(), Some(Path::new("k.pem")));
        for alone in ["--tls-cert", "--tls-key"] {
            let error = parse(&[alone, "x.pem"]).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        }
    }

    #[test]
    fn a_malformed_appid_is_refused_at_the_command_line() {
        let error = parse(&["--appid", "wx1"]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }
}
