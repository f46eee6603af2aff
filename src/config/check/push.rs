//! `[push]` and its routes: what was written, as it is meant.
//!
//! What is doubtful but possible is said aloud: a message that waits in memory is lost by a restart, and a signature that
//! does not cover the message proves little.

use std::ops::Range;
use std::time::Duration;

use super::{Check, SecretKeys, path, whole_within};
use crate::config::diagnostic::Fault;
use crate::config::raw::{self, Field, Text};
use crate::config::values::{self, one_of};
use crate::config::words;
use crate::config::{Delivery, Push, PushMode, PushRoute};
use crate::secret::Secret;
use crate::wechat::push::EncodingAesKey;

const DELIVER: &str = "/wx/push";
pub(in crate::config) const MOST_WAITING: i64 = 10_000_000;
pub(in crate::config) const MOST_AT_ONCE: i64 = 1_024;
/// WeChat's three attempts take some fifteen seconds, and clocks differ.
const SHORTEST_MAX_AGE: Duration = Duration::from_secs(30);
/// The longest type, event or text that a route looks for, in bytes.
const LONGEST_WORD: usize = 128;

impl Check<'_> {
    pub(super) fn push(&mut self, raw: &raw::Push) -> Option<Push> {
        let tokens = self.push_tokens(raw);
        let mode = self.text(&raw.mode, "secure", |text| one_of(text, words::PUSH_MODES));
        let aes_keys = self.push_keys(raw, mode);
        let format = self.text(&raw.format, "auto", |text| {
            one_of(text, words::PUSH_FORMATS)
        });
        let max_age = self.text(&raw.max_age, "5m", max_age);
        let path = self.text(&raw.deliver, DELIVER, app_path);
        let reply = self.text(&raw.reply, "ack", |text| one_of(text, words::REPLIES));
        let envelope = self.text(&raw.envelope, "plain", |text| {
            one_of(text, words::ENVELOPES)
        });
        let timeout = self.text(&raw.timeout, "10s", values::duration);
        let concurrency = self.value(
            &raw.concurrency,
            || Ok(16),
            |n| whole_within(*n, MOST_AT_ONCE),
        );
        let retry_cap = self.text(&raw.retry_cap, "1m", values::duration);
        let retry_for = self.text(&raw.retry_for, "24h", values::duration);
        let journal = self.given(&raw.journal, path_of_directory);
        let fsync = self.value(&raw.fsync, || Ok(true), |on| Ok(*on));
        let max_waiting = self.value(
            &raw.max_waiting,
            || Ok(100_000),
            |n| whole_within(*n, MOST_WAITING),
        );
        let max_bytes = self.text(&raw.max_bytes, "256MiB", values::size);
        if let (Some(None), Field::Given(_)) = (&journal, &raw.fsync) {
            let fault = Fault::new("without a `journal` there is nothing to write to the disk")
                .help("write journal = \"/var/lib/wx-sidecar\", or leave `fsync` out");
            self.sink.warn(raw.fsync.span(), fault);
        }
        let delivery = match (path, reply, envelope) {
            (Some(path), Some(reply), Some(envelope)) => Some(Delivery {
                path,
                reply,
                envelope,
            }),
            _ => None,
        };
        let routes: Vec<_> = raw
            .routes
            .iter()
            .map(|route| self.push_route(route, delivery.as_ref()))
            .collect();
        self.unreachable_push_routes(raw);
        let journal = journal?.map(|journal| self.directory.join(journal));
        Some(Push {
            tokens: tokens?,
            aes_keys: aes_keys?,
            mode: mode?,
            format: format?,
            max_age: max_age?,
            delivery: delivery?,
            routes: routes.into_iter().collect::<Option<_>>()?,
            timeout: timeout?,
            concurrency: concurrency?,
            retry_cap: retry_cap?,
            retry_for: retry_for?,
            journal,
            fsync: fsync?,
            max_waiting: max_waiting?,
            max_bytes: max_bytes?,
        })
    }

    fn push_tokens(&mut self, raw: &raw::Push) -> Option<Vec<Secret>> {
        let keys = SecretKeys {
            literal: ("token", &raw.token),
            file: ("token_file", &raw.token_file),
        };
        let tokens = self.secrets(&keys, token)?;
        if tokens.is_empty() {
            let fault = Fault::new("`[push] token` is missing").help(
                "write token = \"${WX_PUSH_TOKEN}\" or token_file = \"/path\", as it stands at mp.weixin.qq.com, \
                 under 开发管理 / 消息推送",
            );
            self.sink.missing(raw.header.clone(), fault);
            return None;
        }
        Some(tokens)
    }

    fn push_keys(
        &mut self,
        raw: &raw::Push,
        mode: Option<PushMode>,
    ) -> Option<Vec<EncodingAesKey>> {
        let keys = SecretKeys {
            literal: ("aes_key", &raw.aes_key),
            file: ("aes_key_file", &raw.aes_key_file),
        };
        let written = self.secrets(&keys, aes_key)?;
        if written.is_empty() && mode? != PushMode::Plaintext {
            let fault = Fault::new("`[push] aes_key` is missing").help(
                "write aes_key = \"${WX_PUSH_AES_KEY}\" or aes_key_file = \"/path\": the EncodingAESKey at \
                 mp.weixin.qq.com, under 开发管理 / 消息推送",
            );
            self.sink.missing(raw.header.clone(), fault);
            return None;
        }
        // What is wrong with a key has been told at its place.
        let parse = |key: &Secret| EncodingAesKey::parse(key.expose()).ok();
        written.iter().map(parse).collect()
    }

    fn push_route(&mut self, raw: &raw::PushRoute, usual: Option<&Delivery>) -> Option<PushRoute> {
        let msg_type = self.given(&raw.msg_type, word);
        let event = self.given(&raw.event, word);
        let content = self.given(&raw.content, word);
        let path = self.given(&raw.deliver, app_path);
        let reply = self.given(&raw.reply, |text| one_of(text, words::REPLIES));
        let envelope = self.given(&raw.envelope, |text| one_of(text, words::ENVELOPES));
        let (msg_type, event, content) = (msg_type?, event?, content?);
        if event.is_some() && msg_type.as_deref().is_some_and(|kind| kind != "event") {
            let fault = Fault::new("only a message of the type \"event\" has an event")
                .help("leave `type` out");
            self.sink.error(raw.event.span(), fault);
            return None;
        }
        if content.is_some()
            && (event.is_some() || msg_type.as_deref().is_some_and(|kind| kind != "text"))
        {
            let fault = Fault::new("only a message of the type \"text\" has content")
                .help("leave `content` out, or `type` and `event`");
            self.sink.error(raw.content.span(), fault);
            return None;
        }
        let usual = usual?;
        Some(PushRoute {
            msg_type,
            event,
            content,
            delivery: Delivery {
                path: path?.unwrap_or_else(|| usual.path.clone()),
                reply: reply?.unwrap_or(usual.reply),
                envelope: envelope?.unwrap_or(usual.envelope),
            },
        })
    }

    /// Routes behind one that takes everything.
    fn unreachable_push_routes(&mut self, raw: &raw::Push) {
        let takes_all = |route: &raw::PushRoute| {
            let given = [&route.msg_type, &route.event, &route.content];
            given.iter().all(|field| matches!(field, Field::Absent))
        };
        let Some(last) = raw.routes.iter().position(takes_all) else {
            return;
        };
        for route in &raw.routes[last + 1..] {
            let fault = Fault::new("this route never matches: an earlier one takes all messages")
                .help("the first route that matches wins; move this one up");
            self.sink.warn(first_place(route), fault);
        }
    }
}

fn first_place(route: &raw::PushRoute) -> Option<Range<usize>> {
    let fields: [&Field<Text>; 4] = [
        &route.msg_type,
        &route.event,
        &route.content,
        &route.deliver,
    ];
    let written = fields.iter().find_map(|field| field.span());
    written.or(route.header.clone())
}

/// A Token's shape (消息推送配置: 3 to 32 letters or digits).
fn token(text: &str) -> Result<Option<Fault>, Fault> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
    if !(3..=32).contains(&text.len()) || !plain {
        return Err(Fault::new("a push token is of 3 to 32 letters and digits")
            .help("it is the Token at mp.weixin.qq.com, under 开发管理 / 消息推送"));
    }
    Ok(None)
}

fn aes_key(text: &str) -> Result<Option<Fault>, Fault> {
    match EncodingAesKey::parse(text) {
        Ok(_) => Ok(None),
        Err(malformed) => Err(Fault::new(malformed.to_string())
            .help("it is the EncodingAESKey at mp.weixin.qq.com, under 开发管理 / 消息推送")),
    }
}

fn max_age(text: &str) -> Result<Option<Duration>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let age = values::duration(text)?;
    if age < SHORTEST_MAX_AGE {
        return Err(Fault::new("this must be \"30s\" at the least")
            .help("WeChat's three attempts take some fifteen seconds, and clocks differ"));
    }
    Ok(Some(age))
}

/// A path of the app's, with a query or without.
fn app_path(text: &str) -> Result<String, Fault> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !text.starts_with('/') || text.starts_with("//") || !plain {
        return Err(Fault::new("this is a path of the app's, like \"/wx/push\"")
            .help("it begins with one `/` and has no spaces, no `#` and no host"));
    }
    Ok(text.to_owned())
}

fn word(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.len() > LONGEST_WORD {
        return Err(
            Fault::new(format!("this must have 1 to {LONGEST_WORD} bytes"))
                .help("leave it out for any"),
        );
    }
    Ok(text.to_owned())
}

fn path_of_directory(text: &str) -> Result<String, Fault> {
    path(text).map_err(|_| Fault::new("the name of the directory is missing"))
}
