//! `wx-sidecar sim`: the simulator on a port, until it is told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::crypto;
use crate::domain::AppId;
use crate::secret::Secret;
use crate::sim::{Options, SimApp, Simulator};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Simulates WeChat's servers, for development without an account.
#[derive(Args, Debug)]
pub struct SimArgs {
    /// Where to listen; whoever can reach it can log in as anyone.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    pub listen: SocketAddr,
    /// The AppID of the one Mini Program that exists.
    #[arg(long, default_value = "wx0123456789abcdef", value_parser = AppId::parse)]
    pub appid: AppId,
    /// Its AppSecret; an invented one, never a real one.
    #[arg(long, default_value = SECRET, value_parser = parse_secret)]
    pub secret: Secret,
}

/// Runs the simulator until SIGINT or SIGTERM.
pub fn run(args: SimArgs) -> ExitCode {
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
    } = args;
    let (named, shown) = (appid.clone(), shown(&secret));
    let simulator = Simulator::start(Options {
        listen,
        apps: vec![SimApp::new(appid, secret)],
        clock: Clock::System,
        seed: u64::from_ne_bytes(crypto::random()),
    })
    .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}")))?;
    println!("{}", greeting(&simulator.url(), &named, shown));

    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    simulator.stop();
    Ok(())
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
fn greeting(url: &str, appid: &AppId, secret: &str) -> String {
    format!(
        "WeChat is simulated at {url} for {appid}. Try:

  code=$(curl -s '{url}/_sim/code?user=alice&format=text')
  curl -s \"{url}/sns/jscode2session?appid={appid}&secret={secret}&js_code=$code&grant_type=authorization_code\"
  curl -s {url}/_sim/faults -d '{{\"path\": \"/sns/*\", \"count\": 3, \"fault\": {{\"errcode\": -1}}}}'
  curl -s {url}/_sim/calls

All that it can do: curl -s {url}/_sim/"
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
        assert!(greeting("http://x", &args.appid, shown(&args.secret)).contains(SECRET));
    }

    #[test]
    fn a_secret_of_ones_own_is_never_printed() {
        let args = parse(&["--secret", "hunter2"]).unwrap();
        assert!(!format!("{args:?}").contains("hunter2"));
        assert!(!greeting("http://x", &args.appid, shown(&args.secret)).contains("hunter2"));
    }

    #[test]
    fn a_malformed_appid_is_refused_at_the_command_line() {
        let error = parse(&["--appid", "wx1"]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }
}
