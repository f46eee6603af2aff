//! Keys that take one of a few words: the words, and what they mean.
//!
//! They stand here and not where they are read, because editors ask for them too ([`crate::config::schema()`]).

use tracing::Level;

use super::api_security::{CIPHERS, SCHEMES};
use super::{
    AccessLog, Auth, ClientTrace, Errors, EscapedSlashes, LogFormat, PushEnvelope, PushMode,
    RedisMode, Reply, Verdict,
};
use crate::wechat::content_check::Scene;
use crate::wechat::push::Format;

/// Words and what they mean.
type Words<T> = &'static [(&'static str, T)];

pub(super) const AUTH: Words<Auth> = &[
    ("required", Auth::Required),
    ("optional", Auth::Optional),
    ("none", Auth::None),
];

pub(super) const ESCAPED_SLASHES: Words<EscapedSlashes> = &[
    ("reject", EscapedSlashes::Reject),
    ("keep", EscapedSlashes::Keep),
];

pub(super) const ROUTE_MEDIA: Words<()> = &[("upload", ())];

/// How WeChat calls its scenes by number, and people by name.
pub(super) const SCENES: Words<Scene> = &[
    ("profile", Scene::Profile),
    ("comment", Scene::Comment),
    ("forum", Scene::Forum),
    ("social", Scene::Social),
];

pub(super) const ON_REVIEW: Words<Verdict> =
    &[("pass", Verdict::Pass), ("refuse", Verdict::Refuse)];
pub(super) const ON_FAILURE: Words<Verdict> =
    &[("open", Verdict::Pass), ("closed", Verdict::Refuse)];

pub(super) const ERRORS: Words<Errors> = &[("raw", Errors::Raw), ("problem", Errors::Problem)];

pub(super) const PUSH_MODES: Words<PushMode> = &[
    ("secure", PushMode::Secure),
    ("compatible", PushMode::Compatible),
    ("plaintext", PushMode::Plaintext),
];

pub(super) const PUSH_FORMATS: Words<Option<Format>> = &[
    ("auto", None),
    ("xml", Some(Format::Xml)),
    ("json", Some(Format::Json)),
];

pub(super) const REPLIES: Words<Reply> = &[("ack", Reply::Ack), ("wait", Reply::Wait)];

pub(super) const ENVELOPES: Words<PushEnvelope> = &[
    ("plain", PushEnvelope::Plain),
    ("cloudevents", PushEnvelope::CloudEvents),
];

/// Whether it is Redis.
pub(super) const STORES: Words<bool> = &[("memory", false), ("redis", true)];

/// What Sentinels call the master is another key.
pub(super) const REDIS_MODES: Words<RedisMode> = &[
    ("single", RedisMode::Single),
    (
        "sentinel",
        RedisMode::Sentinel {
            master: String::new(),
        },
    ),
    ("cluster", RedisMode::Cluster),
];

pub(super) const LOG_FORMATS: Words<LogFormat> =
    &[("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];

pub(super) const LOG_ACCESS: Words<AccessLog> = &[
    ("all", AccessLog::All),
    ("errors", AccessLog::Errors),
    ("off", AccessLog::Off),
];

/// The parts of the sidecar that have something to say, as the modules of `src/lib.rs` are named.
pub(super) const LOG_PARTS: &[&str] = &[
    "clock",
    "content_check",
    "gateway",
    "media",
    "net",
    "open_data",
    "push",
    "resilience",
    "server",
    "session",
    "source",
    "telemetry",
    "zookeeper",
];

pub(super) const LOG_LEVELS: Words<Level> = &[
    ("trace", Level::TRACE),
    ("debug", Level::DEBUG),
    ("info", Level::INFO),
    ("warn", Level::WARN),
    ("error", Level::ERROR),
];

pub(super) const CLIENT_TRACES: Words<ClientTrace> = &[
    ("new", ClientTrace::New),
    ("continue", ClientTrace::Continue),
];

/// The words that can stand for a key, if nothing else can.
pub(super) fn of(section: &str, key: &str) -> Option<Vec<&'static str>> {
    Some(match (section, key) {
        ("inbound" | "route", "auth") => names(AUTH),
        ("inbound", "escaped_slashes") => names(ESCAPED_SLASHES),
        ("route", "media") => names(ROUTE_MEDIA),
        ("route.text_check" | "media.check", "scene") => names(SCENES),
        ("route.text_check", "on_review") => names(ON_REVIEW),
        ("route.text_check", "on_failure") => names(ON_FAILURE),
        ("wechat.api_security", "sym_algorithm") => names(CIPHERS),
        ("wechat.api_security", "asym_algorithm") => names(SCHEMES),
        ("outbound", "errors") => names(ERRORS),
        ("push", "mode") => names(PUSH_MODES),
        ("push", "format") => names(PUSH_FORMATS),
        ("push" | "push.route", "reply") => names(REPLIES),
        ("push" | "push.route", "envelope") => names(ENVELOPES),
        ("store", "kind") => names(STORES),
        ("store", "mode") => names(REDIS_MODES),
        ("log", "format") => names(LOG_FORMATS),
        ("log", "level") => names(LOG_LEVELS),
        ("log", "access") => names(LOG_ACCESS),
        ("trace", "clients") => names(CLIENT_TRACES),
        _ => return None,
    })
}

fn names<T>(words: Words<T>) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}
