//! The JSON Schema of `sidecar.toml`, for editors: it completes, explains and underlines while somebody types.
//!
//! It is made of the table of keys and of what the reference file says of them. It knows what one value alone can tell, and
//! errs on the side of the writer: what it refuses, `check` refuses too; `check` knows more. `${NAME}` may stand in every
//! string, and then the string may be anything.
//!
//! The words used are those that draft 7 and draft 2020-12 share, and nothing is referred to from elsewhere: validators in
//! editors know the one or the other, and the words beside a `$ref` not at all.

use serde_json::{Value, json};

use super::check::push::{MOST_AT_ONCE, MOST_WAITING};
use super::check::{MOST_CONNECTIONS, MOST_FAILURES, MOST_REQUESTS, MOST_WORKERS};
use super::raw::{Kind, Section};
use super::reference::{KeyEntry, REFERENCE, SectionEntry, Usual, say};
use super::words;

/// Something with an environment variable in it.
const WITH_VARIABLE: &str = r"[\s\S]*\$\{[A-Za-z_][A-Za-z0-9_]*\}[\s\S]*";

/// Any text in which each `${` has a name and an end, or is escaped by another `$`.
const ANY_TEXT: &str = r"^(?:[^$]|\$+[^${]|\$\$+\{|\$\{[A-Za-z_][A-Za-z0-9_]*\})*\$*$";

const SOMETHING: &str = r"[\s\S]+";
const DURATION: &str = "0*[1-9][0-9]*(?:ms|s|m|h|d)";
const DURATION_OR_ZERO: &str = "[0-9]+(?:ms|s|m|h|d)";
const SIZE: &str = "0*[1-9][0-9]*(?:B|KiB|MiB|GiB|KB|MB|GB)";
const ADDRESS: &str = r"unix:/[^/][\s\S]*|.*:[0-9]{1,5}";
/// Case does not count in `http`, and nothing but host and port is behind it.
const URL: &str = r"[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+";

/// The schema.
pub fn schema() -> Value {
    let sections = REFERENCE.sections.iter();
    let outer = sections.filter(|entry| !entry.section.name.contains('.'));
    let properties = outer.map(|entry| (entry.section.name.to_owned(), section(entry)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wx-sidecar",
        "description": "The configuration of wx-sidecar: sidecar.toml.",
        "type": "object",
        "additionalProperties": false,
        "required": ["app", "inbound"],
        "properties": Value::Object(properties.collect()),
    })
}

fn section(entry: &SectionEntry) -> Value {
    let keys = entry.keys.iter();
    let keys = keys.map(|key| (key.key.name.to_owned(), property(entry.section, key)));
    let nested = REFERENCE.sections.iter().filter_map(|nested| {
        let (outer, name) = nested.section.name.split_once('.')?;
        (outer == entry.section.name).then(|| (name.to_owned(), section(nested)))
    });
    let mut table = json!({
        "description": entry.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": Value::Object(keys.chain(nested).collect()),
    });
    let (required, alternatives) = demands(entry);
    if !required.is_empty() {
        table["required"] = required.into();
    }
    if !alternatives.is_empty() {
        table["allOf"] = alternatives.into();
    }
    match entry.section.repeated {
        true => json!({ "description": entry.doc, "type": "array", "items": table }),
        false => table,
    }
}

/// The keys that must be there, and what holds between a secret and its file.
fn demands(entry: &SectionEntry) -> (Vec<&'static str>, Vec<Value>) {
    let mut required = Vec::new();
    let mut alternatives = Vec::new();
    for key in &entry.keys {
        let name = key.key.name;
        let file = format!("{name}_file");
        let has_file = key.key.kind == Kind::Secret && entry.key(&file).is_some();
        match (key.required, has_file) {
            (true, true) => alternatives
                .push(json!({ "oneOf": [{ "required": [name] }, { "required": [file] }] })),
            (true, false) => required.push(name),
            (false, true) => alternatives.push(json!({ "not": { "required": [name, file] } })),
            (false, false) => {}
        }
    }
    (required, alternatives)
}

fn property(section: &Section, entry: &KeyEntry) -> Value {
    let mut property = values(section.name, entry);
    property["description"] = entry.doc.as_str().into();
    let value = |text: &str| -> Value {
        serde_json::from_str(text).expect("values are written in TOML and JSON alike")
    };
    property["examples"] = entry.examples.iter().map(|text| value(text)).collect();
    match entry.usual {
        Usual::Nothing => {}
        Usual::Value(text) => property["default"] = value(text),
        Usual::As { section, key } => {
            let mut doc = entry.doc.clone();
            say(&mut doc, &format!("If left out, as `[{section}] {key}`."));
            property["description"] = doc.into();
        }
    }
    property
}

/// What can stand for a key.
fn values(section: &str, entry: &KeyEntry) -> Value {
    let key = entry.key.name;
    let words = words::of(section, key);
    let text = || match &words {
        Some(words) => json!({ "anyOf": [{ "enum": words }, variable()] }),
        None => text(shape(section, entry)),
    };
    match entry.key.kind {
        Kind::Text | Kind::Listen | Kind::Duration | Kind::Size => text(),
        Kind::Secret | Kind::Files | Kind::Texts => {
            json!({ "anyOf": [text(), { "type": "array", "minItems": 1, "items": text() }] })
        }
        Kind::List if matches!(key, "methods" | "endpoints") => {
            json!({ "type": "array", "minItems": 1, "items": text() })
        }
        Kind::List => json!({ "type": "array", "items": text() }),
        Kind::Number => json!({ "type": "integer", "minimum": 1, "maximum": most(section, key) }),
        Kind::Workers => json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": MOST_WORKERS },
            { "enum": ["auto"] },
            variable(),
        ] }),
        Kind::Scene => {
            let numbers = words.as_ref().map_or(0, Vec::len);
            json!({ "anyOf": [
                { "enum": words },
                { "type": "integer", "minimum": 1, "maximum": numbers },
                variable(),
            ] })
        }
        Kind::Flag => json!({ "type": "boolean" }),
    }
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": format!("^{WITH_VARIABLE}$") })
}

fn text(shape: Option<&str>) -> Value {
    match shape {
        None => json!({ "type": "string", "pattern": ANY_TEXT }),
        Some(shape) => json!({
            "type": "string",
            "pattern": format!("^(?:{shape}|{WITH_VARIABLE})$"),
            "allOf": [{ "pattern": ANY_TEXT }],
        }),
    }
}

/// What a text looks like, as far as that can be said.
fn shape(section: &str, entry: &KeyEntry) -> Option<&'static str> {
    let shape = match (section, entry.key.name) {
        ("app", "appid") => "wx[0-9a-f]{16}",
        ("app", "secret") => "[!-~]+",
        ("app", "env") => "[A-Za-z0-9_-]{1,64}",
        ("outbound", "listen") => r"off|unix:/[^/][\s\S]*|.*:[0-9]{1,5}",
        (_, "listen") => ADDRESS,
        (_, "upstream") => r"(?:[Hh][Tt][Tt][Pp]|[Hh]2[Cc])://[^/?#@\s]+|unix:/[^/][\s\S]*",
        ("inbound", "prefix") => "(?:/[A-Za-z0-9._~-]+)+",
        ("inbound", "trusted_proxies") => "unix|[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?",
        (_, "rate_limit" | "login_rate_limit") => "none|[0-9]+/[smh](?: burst [0-9]+)?",
        ("inbound", "drain_delay") | ("session", "refresh_grace") => DURATION_OR_ZERO,
        ("route", "path") | ("outbound", "allow" | "deny") => r"/[^%?#\s]*",
        ("route", "methods") => "[!#$%&'*+.^_`|~0-9A-Z-]+",
        ("route.text_check", "field") => r"[^.]+(?:\.[^.]+)*",
        // Of 16 bytes at least; a character may be several.
        ("session", "key") => r"[\s\S]{16,}|[\s\S]*[^\x00-\x7F][\s\S]*",
        ("wechat", "endpoints") => URL,
        ("wechat", "egress_proxy") => r"[Hh][Tt][Tt][Pp]://[\s\S]+",
        ("wechat.api_security", "paths") => "all|/[A-Za-z0-9/_.-]*",
        ("wechat.api_security", "sym_sn" | "asym_sn" | "certificate_sn") => "[A-Za-z0-9]{1,64}",
        ("outbound", "caller_token") | ("admin", "token") => "[A-Za-z0-9._~-]{16,}",
        ("push", "token") => "[A-Za-z0-9]{3,32}",
        ("push", "aes_key") => "[A-Za-z0-9]{43}",
        ("push", "max_age") => "off|0*[1-9][0-9]*(?:ms|s|m|h|d)",
        ("push" | "push.route", "deliver") => "/(?:[!-\"$-.0-~][!-\"$-~]*)?",
        ("open_data", "max_age") | ("outbound", "quota_interval") => {
            "none|0*[1-9][0-9]*(?:ms|s|m|h|d)"
        }
        ("log", "levels") => "[a-z_]+=(?:trace|debug|info|warn|error)",
        ("media", "base_url") => r"https?://[A-Za-z0-9._~:\[\]-][A-Za-z0-9._~:/\[\]-]*",
        ("media", "memory_cache_size") => "none|0*[1-9][0-9]*(?:B|KiB|MiB|GiB|KB|MB|GB)",
        ("media", "video_hosts") => r"(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*",
        ("store", "url") => r"(?:rediss?|unix|redis\+unix)://[\s\S]+",
        ("store", "master") => "[!-~]+",
        ("trace", "endpoint") => r"[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+(?:/[^?#\s]*)?",
        ("trace", "sample") => r"(?:[0-9]{1,2}(?:\.[0-9]+)?|100(?:\.0+)?)%",
        ("trace", "service") => SOMETHING,
        ("inbound.tls", "cert_file" | "key_file" | "client_ca_file") => SOMETHING,
        ("push.route", "type" | "event" | "content") => SOMETHING,
        (_, "ca_file" | "cache_dir" | "journal") => SOMETHING,
        _ => match entry.key.kind {
            Kind::Duration => DURATION,
            Kind::Size => SIZE,
            Kind::Files => SOMETHING,
            _ => return None,
        },
    };
    Some(shape)
}

fn most(section: &str, key: &str) -> i64 {
    match (section, key) {
        ("inbound", "max_connections") => MOST_CONNECTIONS,
        ("wechat.breaker", "failures") => MOST_FAILURES,
        ("push", "concurrency") => MOST_AT_ONCE,
        ("push", "max_waiting") => MOST_WAITING,
        _ => MOST_REQUESTS,
    }
}
