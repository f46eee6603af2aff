//! The commands of the binary, one file each: every one parses its own arguments and ends in an exit code.

pub mod check;
pub mod completions;
pub mod config;
pub mod dev;
pub mod doctor;
pub mod errcode;
pub mod explain;
pub mod init;
pub mod inject;
mod out;
pub mod pseudonym;
pub mod push;
pub mod rid;
pub mod run;
pub mod schema;
mod signals;
pub mod sim;
mod source_arg;
mod systemd;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use source_arg::SourceArg;

use crate::error::Language;

/// What the binary is asked to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the sidecar.
    Run {
        /// Where the configuration is.
        #[command(flatten)]
        source: SourceArg,
        /// A file that keeps what ZooKeeper said last, to begin with if ZooKeeper is away.
        #[arg(long, value_name = "FILE")]
        last_good: Option<PathBuf>,
    },
    /// Check a configuration file; opens no socket but with --online. Exit code 0: valid, 1: not.
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        source: SourceArg,
        /// How to report: for people on standard error, or as JSON on standard output.
        #[arg(long, value_enum, default_value_t)]
        format: check::Format,
        /// Also ask WeChat and Redis whether what it says of them is so.
        #[arg(long)]
        online: bool,
    },
    /// Look for what is wrong: configuration, network, WeChat, push, app, Redis; with a fix for each. Exit code 0: nothing, 1: something.
    Doctor(doctor::DoctorArgs),
    /// Tell what a configuration comes to.
    Config(config::ConfigArgs),
    /// Print a small configuration to start with, or write it to a file.
    Init(init::InitArgs),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print what makes a shell complete the arguments of this command.
    Completions {
        /// The shell.
        shell: completions::Shell,
    },
    /// Simulate WeChat's servers.
    Sim(sim::SimArgs),
    /// Simulator, sidecar and a sample app in one process: everything to try, no WeChat account.
    Dev(dev::DevArgs),
    /// Tell what would become of a request, and why; opens no socket. Exit code 0: it reaches the app or an endpoint, 1: not.
    Explain(explain::ExplainArgs),
    /// Tell what one of WeChat's errcodes means and what to do about it.
    Errcode {
        /// The number, such as 40029.
        #[arg(allow_negative_numbers = true)]
        code: i64,
        /// Answer in Chinese.
        #[arg(long)]
        zh: bool,
    },
    /// Ask WeChat what it remembers of a call, by the rid in its answer (seven days), and explain it.
    Rid {
        /// The rid, such as 617682e0-09059ac5-34a8e2ea.
        rid: String,
        /// Where the configuration is.
        #[command(flatten)]
        source: SourceArg,
        /// Answer in Chinese.
        #[arg(long)]
        zh: bool,
    },
    /// Tell what the log calls users, by their openids.
    Pseudonym {
        /// The openids; without any, they are read from standard input, one a line.
        openids: Vec<String>,
        /// Where the configuration is.
        #[command(flatten)]
        source: SourceArg,
    },
    /// List, replay or drop messages of WeChat's that are not delivered.
    Push(push::PushArgs),
    /// Add the sidecar to the workloads in Kubernetes manifests, have Services lead to it, and change nothing else of them.
    Inject(inject::InjectArgs),
    /// Wait; for hooks in an image that has no other program.
    #[command(hide = true)]
    Sleep {
        /// How long, such as 5s.
        #[arg(value_parser = humantime::parse_duration)]
        duration: Duration,
    },
    /// Print the version.
    Version,
}

impl Command {
    /// Does it.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Run { source, last_good } => {
                run::run(&source.clone().keeping_last_good(last_good))
            }
            Self::Check {
                source,
                format,
                online,
            } => check::check(&source, format, online),
            Self::Doctor(args) => doctor::run(&args),
            Self::Config(args) => config::run(args),
            Self::Init(args) => init::run(&args),
            Self::Schema => schema::schema(),
            Self::Completions { shell } => completions::completions(shell),
            Self::Sim(args) => sim::run(args),
            Self::Dev(args) => dev::run(&args),
            Self::Explain(args) => explain::run(&args),
            Self::Errcode { code, zh } => {
                let text = errcode::errcode(code, language(zh));
                out::print(format!("{}\n", text.trim_end()))
            }
            Self::Rid { rid, source, zh } => rid::rid(&rid, &source, language(zh)),
            Self::Pseudonym { openids, source } => pseudonym::pseudonym(openids, &source),
            Self::Push(args) => push::run(&args),
            Self::Inject(args) => inject::run(&args),
            Self::Sleep { duration } => {
                std::thread::sleep(duration);
                ExitCode::SUCCESS
            }
            Self::Version => out::print(format!("wx-sidecar {}\n", env!("CARGO_PKG_VERSION"))),
        }
    }
}

fn language(zh: bool) -> Language {
    match zh {
        true => Language::Chinese,
        false => Language::English,
    }
}
