//! `wx-sidecar sim push`: one push as WeChat sends it, the handshake, or a storm of messages; exit code 0 if WeChat would
//! be content.
//!
//! It talks to whatever listens at `--to`, this sidecar or any other receiver, and starts no simulator.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::out;
use crate::domain::AppId;
use crate::secret::Secret;
use crate::sim::push::{
    Format, Ledger, Mode, Outcome, Push, PushOptions, Pusher, Report, SAMPLES, Storm, Try,
};

/// Who a message is from where `--from` does not say.
const USER: &str = "oSimulatedUser00000000000000";

/// Pushes as WeChat does: signs, encrypts, posts, waits five seconds, tries three times, and judges the reply.
#[derive(Args, Debug)]
pub(super) struct PushArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// A text from a user.
    Text {
        /// What the user writes.
        #[arg(long, default_value = "hello")]
        content: String,
        #[command(flatten)]
        one: OneArgs,
    },
    /// A picture from a user.
    Image {
        #[command(flatten)]
        one: OneArgs,
    },
    /// A page of the Mini Program from a user.
    Page {
        #[command(flatten)]
        one: OneArgs,
    },
    /// An event: any, or one as WeChat's documentation shows it.
    Event {
        /// The event's name, such as debug_demo; its fields are `--field`.
        #[arg(long, value_name = "NAME", required_unless_present = "sample")]
        event: Option<String>,
        /// A sample of an event, its fields filled in.
        #[arg(long, value_name = "NAME", conflicts_with = "event",
              value_parser = PossibleValuesParser::new(SAMPLES))]
        sample: Option<String>,
        #[command(flatten)]
        one: OneArgs,
    },
    /// Asks for the echostr, as WeChat does when the URL is saved in its console.
    Handshake {
        #[command(flatten)]
        receiver: ReceiverArgs,
    },
    /// Sends many texts of many users, and writes down what was acknowledged.
    Storm {
        #[command(flatten)]
        receiver: ReceiverArgs,
        #[command(flatten)]
        storm: StormArgs,
    },
}

/// Whom to push to and how.
#[derive(Args, Debug)]
struct ReceiverArgs {
    /// The receiver, such as http://127.0.0.1:8080/wx/push.
    #[arg(long, value_name = "URL")]
    to: String,
    /// How messages are protected: 明文, 兼容 or 安全模式.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// The documents' format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The token of the receiver's configuration.
    #[arg(long, default_value = super::PUSH_TOKEN, value_parser = super::parse_secret)]
    token: Secret,
    /// The EncodingAESKey of the receiver's configuration, 43 letters and digits.
    #[arg(long, value_name = "KEY", default_value = super::PUSH_AES_KEY, value_parser = super::parse_secret)]
    aes_key: Secret,
    /// The Mini Program's AppID.
    #[arg(long, default_value = super::APPID, value_parser = AppId::parse)]
    appid: AppId,
    /// How often to try in all. WeChat sends what Virtual Payment tells (xpay_*) up to 15 times more, and other pushes 3
    /// times.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// How long to wait for a reply.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    timeout: Duration,
    /// How long after a failed try the next one begins; by default as WeChat has it, tries begin 5 s apart, and xpay's 2,
    /// 4, 8 ... s after each other.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    retry_after: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One push.
#[derive(Args, Debug)]
struct OneArgs {
    #[command(flatten)]
    receiver: ReceiverArgs,
    /// The user's openid.
    #[arg(long, value_name = "OPENID", default_value = USER)]
    from: String,
    /// The MsgId, for who wants to send the same message again; a new one by default.
    #[arg(long, value_name = "N")]
    msg_id: Option<u64>,
    /// The CreateTime in Unix seconds; now by default.
    #[arg(long, value_name = "SECONDS")]
    create_time: Option<u64>,
    /// A field: `name=text`, or `name:=json` for numbers, objects and lists; may come again.
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = parse_field)]
    fields: Vec<(String, serde_json::Value)>,
}

#[derive(Args, Debug)]
struct StormArgs {
    /// How many messages.
    #[arg(long, default_value = "1000")]
    count: u64,
    /// How many users they are from. Those of one user come one after the other.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// How many messages are on their way at once.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: u64,
    /// How many messages begin per second; as many as possible by default.
    #[arg(long)]
    rate: Option<f64>,
    /// Fill each message up to a random size of at most so many bytes.
    #[arg(long, value_name = "BYTES", default_value = "0")]
    size: usize,
    /// How many of a hundred messages are sent twice.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = clap::value_parser!(u8).range(0..=100))]
    duplicates: u8,
    /// Append a line for each message: `acknowledged <msg_id> <openid> <n>`, or `lost ...`.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// Pushes. Exit code 0: WeChat would be content, 1: not.
pub(super) fn push(args: PushArgs) -> ExitCode {
    match pushed(args.what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wx-sidecar sim push: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pushed(what: What) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (push, one) = match what {
        What::Text { content, one } => (Push::text(&*one.from, content), one),
        What::Image { one } => (Push::image(&*one.from), one),
        What::Page { one } => (Push::page(&*one.from), one),
        What::Event { event, sample, one } => {
            let sample = sample.as_deref().and_then(Push::sample);
            let event = || Push::event(event.unwrap_or_default(), serde_json::json!({}));
            (sample.unwrap_or_else(event).with_openid(&*one.from), one)
        }
        What::Handshake { receiver } => {
            let json = receiver.json;
            let pusher = receiver.pusher()?;
            let sent = runtime.block_on(pusher.handshake());
            show(json, &sent, || told(&sent));
            return Ok(sent.verdict.is_ok());
        }
        What::Storm { receiver, storm } => {
            let json = receiver.json;
            let pusher = receiver.pusher()?;
            let ledger = storm.ledger.as_deref().map(|path| {
                Ledger::open(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })
            });
            let ledger = ledger.transpose()?;
            let report = runtime.block_on(storm.storm().run(&pusher, ledger))?;
            show(json, &report, || summary(&report));
            return Ok(report.lost == 0);
        }
    };
    let json = one.receiver.json;
    let push = one.complete(push);
    let outcome = runtime.block_on(one.receiver.pusher()?.send(&push));
    show(json, &outcome, || story(&outcome));
    Ok(outcome.is_accepted())
}

impl ReceiverArgs {
    fn pusher(self) -> io::Result<Pusher> {
        let options = PushOptions {
            mode: self.mode,
            format: self.format,
            tries: self.tries,
            timeout: self.timeout,
            retry_after: self.retry_after,
            ..PushOptions::new(self.to, self.appid, self.token, self.aes_key)
        };
        Pusher::new(options).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

impl OneArgs {
    fn complete(&self, mut push: Push) -> Push {
        for (name, value) in &self.fields {
            push = push.with(name, value.clone());
        }
        if let Some(msg_id) = self.msg_id {
            push = push.with_msg_id(msg_id);
        }
        if let Some(seconds) = self.create_time {
            push = push.with_create_time(seconds);
        }
        push
    }
}

impl StormArgs {
    fn storm(&self) -> Storm {
        Storm {
            count: self.count,
            users: self.users,
            concurrency: self.concurrency,
            rate: self.rate,
            size: self.size,
            duplicates: self.duplicates,
        }
    }
}

fn show(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    let text = match json {
        true => serde_json::to_string(value).expect("texts and numbers serialise"),
        false => text(),
    };
    out::tell(text.trim_end());
}

/// All tries, and what to do if none was accepted.
fn story(outcome: &Outcome) -> String {
    let mut story: String = outcome.tries.iter().map(told).collect();
    story.push_str(match outcome.is_accepted() {
        true => "WeChat would be content.",
        false => "WeChat would give this push up.",
    });
    story
}

/// A try, the reply that it got, and advice if it was not accepted.
fn told(sent: &Try) -> String {
    let mut told = format!("{sent}\n");
    if !sent.reply.is_empty() {
        let what = if sent.encrypted {
            "decrypted reply"
        } else {
            "reply"
        };
        told.push_str(&format!("  {what}: {}\n", printable(&sent.reply)));
    }
    if let Err(reason) = &sent.verdict {
        told.push_str(&format!("  {}\n", reason.advice()));
    }
    told
}

/// What a reply may show on a terminal: no more than somebody reads, and nothing that moves the cursor.
fn printable(text: &str) -> String {
    const LONGEST: usize = 500;
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut printable: String = text.chars().take(LONGEST).map(shown).collect();
    if text.chars().nth(LONGEST).is_some() {
        printable.push_str(" ...");
    }
    printable
}

fn summary(report: &Report) -> String {
    let Report {
        messages,
        acknowledged,
        lost,
        duplicates,
        tries,
        refused,
        timeouts,
        unconnected,
        seconds,
        per_second,
        p50_ms,
        p99_ms,
        max_ms,
        last_failure,
    } = report;
    let mut summary = format!(
        "messages      {messages}, and {duplicates} of them twice, in {seconds:.1} s\n\
         acknowledged  {acknowledged} ({per_second:.0}/s)\n\
         lost          {lost}\n\
         tries         {tries}: {refused} refused, {timeouts} timed out, {unconnected} without connection\n\
         latency       p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms\n"
    );
    if let Some(failure) = last_failure {
        summary.push_str(&format!("last failure  {failure}\n"));
    }
    summary
}

/// `name=text` or `name:=json`.
fn parse_field(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a field is `name=text` or `name:=json`")?;
    let (name, value) = match name.strip_suffix(':') {
        None => (name, serde_json::Value::from(value)),
        Some(name) => {
            let value = serde_json::from_str(value);
            (
                name,
                value.map_err(|error| format!("`{name}` is no JSON: {error}"))?,
            )
        }
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match begins && name.chars().all(is_name) {
        true => Ok((name.to_owned(), value)),
        false => {
            Err("a field's name is letters, digits and `_`, and begins with no digit".to_owned())
        }
    }
}

/// `200ms`, `5s`, `2m`.
fn parse_time(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "a time is a whole number with its unit, such as 200ms, 5s or 2m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(SHAPE)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| SHAPE)?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(SHAPE),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn parse(line: &str) -> Result<PushArgs, clap::Error> {
        let command = PushArgs::augment_args(clap::Command::new("push"));
        let words = std::iter::once("push").chain(line.split(' '));
        PushArgs::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn what_is_pushed_needs_a_receiver_and_an_event_a_name_or_a_sample() {
        for right in [
            "text --to http://a/",
            "image --to http://a/ --mode plaintext --format xml --msg-id 1",
            "page --to http://a/ --from oUser --tries 1 --json",
            "event --to http://a/ --event debug_demo --field debug_str=x=y --field n:=1",
            "event --to http://a/ --sample subscribe_popup_many",
            "handshake --to http://a/",
            "storm --to http://a/ --count 5 --users 2 --concurrency 2 --rate 9.5 --size 10 --duplicates 10 --ledger l",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "text",
            "event --to http://a/",
            "event --to http://a/ --sample nothing",
            "event --to http://a/ --event a --sample debug",
            "text --to http://a/ --tries 0",
            "text --to http://a/ --mode safe",
            "storm --to http://a/ --users 0",
            "storm --to http://a/ --duplicates 101",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_secret_of_the_command_line_is_printed() {
        let args = parse("text --to http://a/ --token hunter2 --aes-key hunter3").unwrap();
        assert!(!format!("{args:?}").contains("hunter"));
    }

    #[test]
    fn fields_are_texts_or_json() {
        let field = |text: &str| parse_field(text).map(|(name, value)| (name, value.to_string()));
        let right = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(field("a=1"), right("a", "\"1\""));
        assert_eq!(field("a:=1"), right("a", "1"));
        assert_eq!(field("a:={\"b\":[1]}"), right("a", "{\"b\":[1]}"));
        assert_eq!(field("a=b=c"), right("a", "\"b=c\""));
        for wrong in ["a", "a:=", "=1", "1a=1", "a b=1", "<a>=1"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "5h"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reply_moves_no_cursor_and_fills_no_screen() {
        assert_eq!(printable("a\u{1b}[2J\n"), "a [2J ");
        assert!(printable(&"x".repeat(600)).ends_with("x ..."));
    }
}
