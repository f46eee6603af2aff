//! `wx-sidecar push list|replay|drop`: what has been pushed and not delivered.
//!
//! The running sidecar is asked, at its admin listener. If it does not run, its journal is read; to change something it
//! must run, because what is replayed has to be delivered by somebody.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::out;
use super::source_arg::SourceArg;
use crate::config::{Admin, Config, Listen};
use crate::push::read_only;

/// How long the running sidecar may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many letters are asked for at once.
const PAGE: usize = 1000;
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Messages of WeChat's that are not delivered yet, or were given up.
#[derive(Debug, Args)]
pub struct PushArgs {
    #[command(subcommand)]
    order: Order,
    #[command(flatten)]
    source: SourceArg,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// List messages that wait; of a sidecar that does not run, what is in its journal.
    List {
        /// Dead letters instead: messages that were given up.
        #[arg(long)]
        dead: bool,
        /// One JSON object a line, with the whole message.
        #[arg(long)]
        json: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Have dead letters delivered again.
    Replay {
        /// The id of one (X-WX-Msg-Id); or --all.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
    /// Throw dead letters away; or the messages with an id, dead or waiting.
    Drop {
        /// The id (X-WX-Msg-Id); or --all-dead.
        #[arg(required_unless_present = "all_dead", conflicts_with = "all_dead")]
        id: Option<String>,
        /// All dead letters.
        #[arg(long)]
        all_dead: bool,
    },
}

/// Does it. Exit code 0: done, 1: not.
pub fn run(args: &PushArgs) -> ExitCode {
    let config = match args.source.load() {
        Ok(loaded) => loaded.config,
        Err(report) => {
            eprint!("{}", report.render(io::stderr().is_terminal()));
            return ExitCode::FAILURE;
        }
    };
    match done(&args.order, &config) {
        Ok(text) => out::print(text),
        Err(why) => {
            eprintln!("wx-sidecar push: {why}");
            ExitCode::FAILURE
        }
    }
}

fn done(order: &Order, config: &Config) -> Result<String, String> {
    let Some(push) = &config.push else {
        return Err("the configuration has no [push]".to_owned());
    };
    let admin = &config.admin;
    match order {
        Order::List { dead, json, limit } => {
            let letters = match list(admin, *dead, *limit) {
                Ok(letters) => letters,
                Err(Unanswered::NotThere(why)) => match &push.journal {
                    Some(journal) => left_behind(journal, *dead, *limit)?,
                    None => {
                        return Err(format!(
                            "no sidecar at {} ({why}), and there is no [push] journal",
                            admin.listen
                        ));
                    }
                },
                Err(Unanswered::Refused(why)) => return Err(why),
            };
            Ok(if *json {
                as_lines(&letters)
            } else {
                as_table(&letters, *dead)
            })
        }
        Order::Replay { id, .. } => {
            let target = match id {
                Some(id) => format!("/push/dead-letters/{}/replay", encoded(id)),
                None => "/push/dead-letters/replay".to_owned(),
            };
            let answer = change(admin, "POST", &target)?;
            if let (Some(id), Some(0)) = (id, answer["replayed"].as_u64()) {
                return Err(format!(
                    "there is no dead letter {id:?}; `push list --dead` shows those there are"
                ));
            }
            Ok(format!(
                "{} will be delivered again\n",
                counted(&answer["replayed"])
            ))
        }
        Order::Drop { id, .. } => {
            let target = match id {
                Some(id) => format!("/push/dead-letters/{}", encoded(id)),
                None => "/push/dead-letters".to_owned(),
            };
            let answer = change(admin, "DELETE", &target)?;
            if let (Some(id), Some(0)) = (id, answer["dropped"].as_u64()) {
                return Err(format!(
                    "there is no message {id:?}; `push list` and `push list --dead` show those there are"
                ));
            }
            Ok(format!("{} thrown away\n", counted(&answer["dropped"])))
        }
    }
}

/// Why the sidecar has not done it.
enum Unanswered {
    NotThere(io::Error),
    Refused(String),
}

fn list(admin: &Admin, dead: bool, limit: usize) -> Result<Vec<Value>, Unanswered> {
    let place = if dead { "dead-letters" } else { "inbox" };
    let mut letters = Vec::new();
    let mut from = 0;
    while letters.len() < limit {
        let most = PAGE.min(limit - letters.len());
        let mut page = ask(
            admin,
            "GET",
            &format!("/push/{place}?from={from}&limit={most}"),
        )?;
        if let Some(listed) = page["letters"].as_array_mut() {
            letters.append(listed);
        }
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(letters)
}

fn left_behind(journal: &Path, dead: bool, limit: usize) -> Result<Vec<Value>, String> {
    let letters = read_only(journal, dead).map_err(|error| {
        format!(
            "the journal in {} cannot be read: {error}",
            journal.display()
        )
    })?;
    Ok(letters
        .iter()
        .take(limit)
        .map(|letter| letter.to_json())
        .collect())
}

fn change(admin: &Admin, method: &str, target: &str) -> Result<Value, String> {
    ask(admin, method, target).map_err(|unanswered| match unanswered {
        Unanswered::NotThere(why) => {
            let listen = &admin.listen;
            format!("no sidecar at {listen} ({why}); it must run, because it is what delivers")
        }
        Unanswered::Refused(why) => why,
    })
}

/// One small request; the admin side speaks plain HTTP. It is asked by its address and shown the token of the configuration, as
/// anybody else has to.
fn ask(admin: &Admin, method: &str, target: &str) -> Result<Value, Unanswered> {
    let host = match &admin.listen {
        Listen::Tcp(addr) => addr.to_string(),
        Listen::Unix(_) => "localhost".to_owned(),
    };
    let mut request =
        format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n");
    if let Some(token) = admin.tokens.first() {
        let _in_memory = write!(request, "Authorization: Bearer {}\r\n", token.expose());
    }
    request.push_str("\r\n");
    let answer = exchange(&admin.listen, request.as_bytes()).map_err(Unanswered::NotThere)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let value = serde_json::from_str::<Value>(body);
    match value {
        Ok(value) if status == "200" => Ok(value),
        Ok(value) if value["error"].is_string() => Err(Unanswered::Refused(
            value["error"].as_str().unwrap_or_default().to_owned(),
        )),
        // The guard answers in plain text.
        Err(_) if !status.is_empty() && status != "200" => Err(Unanswered::Refused(format!(
            "the admin side at {} says {status}: {}",
            admin.listen,
            body.trim()
        ))),
        _ => Err(Unanswered::Refused(format!(
            "what answers at {} is no admin side of a sidecar",
            admin.listen
        ))),
    }
}

fn exchange(admin: &Listen, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    match admin {
        Listen::Tcp(addr) => {
            let mut stream = TcpStream::connect_timeout(addr, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request)?;
            stream.read_to_end(&mut answer)?;
        }
        Listen::Unix(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request)?;
            stream.read_to_end(&mut answer)?;
        }
    }
    Ok(answer)
}

fn encoded(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn counted(count: &Value) -> String {
    match count.as_u64().unwrap_or(0) {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}

fn as_lines(letters: &[Value]) -> String {
    letters.iter().map(|letter| format!("{letter}\n")).collect()
}

/// For people: what, whose, when, and of dead letters why.
fn as_table(letters: &[Value], dead: bool) -> String {
    if letters.is_empty() {
        return if dead {
            "no dead letters\n"
        } else {
            "nothing waits\n"
        }
        .to_owned();
    }
    let mut table = String::new();
    for letter in letters {
        let text = |name: &str| letter[name].as_str().unwrap_or("-");
        let kind = letter["event"].as_str().unwrap_or_else(|| text("type"));
        let received = moment(letter["received"].as_u64().unwrap_or(0));
        let (id, openid) = (text("id"), text("openid"));
        let _in_memory = write!(table, "{received}  {id:<32}  {kind:<28}  {openid}");
        if dead {
            let death = &letter["death"];
            let (reason, attempts) = (death["reason"].as_str().unwrap_or("-"), &death["attempts"]);
            let _in_memory = write!(table, "  {reason} (tried {attempts} times)");
        }
        table.push('\n');
    }
    table
}

fn moment(millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs((millis / 1000).min(LAST_SECOND));
    humantime::format_rfc3339_seconds(at).to_string()
}
