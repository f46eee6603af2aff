//! `wx-sidecar explain GET /api/orders -H 'X-WX-OPENID: somebody'`: what would become of this request, and why.
//!
//! Nothing is asked of a running sidecar and nothing is connected to: the configuration alone says it, by the code that
//! requests go through.

use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::process::ExitCode;

use super::check::Format;
use super::out;
use super::source_arg::SourceArg;
use crate::clock::Clock;
use crate::server::{Asked, Explanation};

/// Arguments of `wx-sidecar explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The method, such as GET.
    method: String,
    /// Path and query, as the client sends them.
    path: String,
    /// A header line of the request, such as 'Accept: text/html'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<String>,
    /// The address that the request comes from; without it, a stranger's.
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    #[command(flatten)]
    source: SourceArg,
    /// The form of the answer: for people, or JSON.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Explains. Exit code 0: the request reaches the app or an endpoint, 1: it is refused, or the configuration is not valid.
pub fn run(args: &ExplainArgs) -> ExitCode {
    let loaded = match args.source.load() {
        Ok(loaded) => loaded,
        Err(report) => {
            let styled = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            eprint!("{}", report.render(styled));
            return ExitCode::FAILURE;
        }
    };
    let asked = Asked {
        method: &args.method,
        target: &args.path,
        lines: &args.headers,
        from: args.from,
        now: Clock::System.now(),
    };
    let explanation = Explanation::of(&loaded, &asked);
    let text = match args.format {
        Format::Text => coloured(&explanation),
        Format::Json => format!("{}\n", explanation.to_json()),
    };
    out::print_and(text, !explanation.is_refused())
}

/// For people: on a terminal, the verdict stands out.
fn coloured(explanation: &Explanation) -> String {
    let text = explanation.to_string();
    if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text;
    }
    let colour = if explanation.is_refused() { 31 } else { 32 };
    let (verdict, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("\u{1b}[1;{colour}m{verdict}\u{1b}[0m\n{rest}")
}

/// A header line as `curl -H` takes it.
fn header_line(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && !text.contains(['\r', '\n']) => Ok(text.to_owned()),
        _ => Err("a header line is written 'Name: value'".to_owned()),
    }
}
