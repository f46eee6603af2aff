//! What each key is in effect, and why.
//!
//! A configuration comes from a file, the environment, files of secrets and defaults; whoever looks for a mistake has to see
//! what of it all holds. It is told in the shape of the file, key by key, and each value has its source. Secrets are stars
//! from the start, so that this may be kept, logged and served.
//!
//! As TOML it is a configuration that means the same, but for the secrets: what cannot be written beside the rest (the
//! secret that a file holds, the default of a key that another one has no use for) is a comment.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::mask::is_suspect;
use super::raw::{Env, Key, Kind, Piece, Section, pieces, whole_number};
use super::reference::{KeyEntry, REFERENCE, SectionEntry, Usual};
use super::source::LineStarts;
use crate::crypto;

/// What is shown of a secret; a value as it is written.
const STARS: &str = "\"***\"";

/// How far to the right sources may stand.
const WIDEST: usize = 48;

/// What each key of a configuration is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    file: String,
    sections: Vec<Shown>,
}

/// One section, as often as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    name: &'static str,
    repeated: bool,
    /// `None` for a section that is not there.
    keys: Option<Vec<ShownKey>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ShownKey {
    name: &'static str,
    /// As it is written, in TOML and JSON alike; `None` if it is nothing.
    value: Option<Cow<'static, str>>,
    source: Source,
    /// Whether it may stand in the file beside the others.
    writable: bool,
    /// What else is to be said.
    note: Option<String>,
    /// Whether a secret stands in the file itself.
    holds_secret: bool,
    /// Whether it is a file whose place depends on where the configuration is.
    is_relative: bool,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// From nowhere, as there is none.
    Unset,
    Default,
    /// A line of the file, from 1.
    Line(usize),
    Env {
        names: String,
        line: usize,
    },
    /// Files of secrets.
    Files {
        paths: String,
        line: usize,
    },
    /// What another section says.
    Inherited {
        section: &'static str,
        key: &'static str,
        source: Box<Source>,
    },
    /// Who logs in has no token yet.
    Login {
        line: usize,
    },
}

impl Effective {
    /// What `root` makes of each key. Of no use if it has mistakes.
    pub(super) fn of(file: &str, lines: &LineStarts, root: &DeTable<'_>, env: Env<'_>) -> Self {
        let mut reader = Reader {
            lines,
            env,
            sections: Vec::new(),
        };
        for entry in &REFERENCE.sections {
            if !entry.section.name.contains('.') {
                reader.section(entry, root.get(entry.section.name).map(|it| it.get_ref()));
            }
        }
        Self {
            file: file.to_owned(),
            sections: reader.sections,
        }
    }

    /// Says what "auto" has come to.
    pub(super) fn with_workers(mut self, workers: usize) -> Self {
        let keys = self.sections.iter_mut().filter_map(|s| s.keys.as_mut());
        for key in keys.flatten().filter(|key| key.name == "workers") {
            if key.value.as_deref() == Some("\"auto\"") {
                key.note = Some(format!("{workers} here"));
            }
        }
        self
    }

    /// A hash of what each key is, wherever it comes from: the same for configurations that mean the same. Secrets have no part
    /// in it, so that it says nothing of them.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let _ = writeln!(text, "[{}]", section.name);
            for key in section.keys.iter().flatten() {
                let _ = writeln!(text, "{} = {:?}", key.name, key.value);
            }
        }
        crypto::hex(&crypto::sha256(text.as_bytes())[..8])
    }

    /// As a configuration file, with the sources as comments.
    pub fn to_toml(&self) -> String {
        let head = "as it is in effect: each key, what it is, and where that comes from.";
        let mut toml = format!("# {}, {head}\n", plain(&self.file));
        for section in &self.sections {
            let header = match section.repeated {
                true => format!("[[{}]]", section.name),
                false => format!("[{}]", section.name),
            };
            let Some(keys) = &section.keys else {
                let _ = write!(toml, "\n# {header}  # not set\n");
                continue;
            };
            let _ = write!(toml, "\n{header}\n");
            let left: Vec<String> = keys.iter().map(ShownKey::assignment).collect();
            let widths = left.iter().map(|text| text.chars().count());
            let width = widths.filter(|width| *width <= WIDEST).max().unwrap_or(0);
            for (key, left) in keys.iter().zip(&left) {
                let _ = writeln!(toml, "{left:width$}  # {}", self.remark(key));
            }
        }
        toml
    }

    /// Where the value of a key comes from, in a few words; of the section of this name, or the `nth` of them, from 0.
    pub(crate) fn source_of(&self, section: &str, nth: usize, key: &str) -> Option<String> {
        let mut sections = self.sections.iter().filter(|it| it.name == section);
        let keys = sections.nth(nth)?.keys.as_ref()?;
        let key = keys.iter().find(|it| it.name == key)?;
        Some(self.source(&key.source))
    }

    /// The keys whose secrets stand in the file itself, as `[section] key`.
    pub(crate) fn literal_secrets(&self) -> Vec<String> {
        self.keys_that(|key| key.holds_secret)
    }

    /// The keys that name files relative to where the configuration is, as `[section] key`.
    pub(crate) fn relative_files(&self) -> Vec<String> {
        self.keys_that(|key| key.is_relative)
    }

    fn keys_that(&self, is_so: impl Fn(&ShownKey) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        for section in &self.sections {
            let keys = section.keys.iter().flatten().filter(|key| is_so(key));
            names.extend(keys.map(|key| format!("[{}] {}", section.name, key.name)));
        }
        names.dedup();
        names
    }

    /// In the shape of the file, with `{"value", "source", "origin"}` for each key. What is not there is `null`.
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        for section in &self.sections {
            let (place, name) = place_of(&mut root, section.name);
            let keys = section.keys.as_ref().map(|keys| {
                let pairs = keys.iter();
                let pairs = pairs.map(|key| (key.name.to_owned(), self.key_to_json(key)));
                Value::Object(pairs.collect())
            });
            if !section.repeated {
                place.insert(name.to_owned(), keys.unwrap_or(Value::Null));
                continue;
            }
            let list = place.entry(name).or_insert_with(|| json!([]));
            if let (Value::Array(list), Some(keys)) = (list, keys) {
                list.push(keys);
            }
        }
        Value::Object(root)
    }

    fn key_to_json(&self, key: &ShownKey) -> Value {
        let value = key.value.as_deref().map(|value| {
            let value: Result<Value, _> = serde_json::from_str(value);
            value.expect("values are written in TOML and JSON alike")
        });
        let mut json = json!({
            "value": value,
            "source": self.source(&key.source),
            "origin": key.source.origin(),
        });
        if let Some(note) = &key.note {
            json["note"] = note.as_str().into();
        }
        json
    }

    fn remark(&self, key: &ShownKey) -> String {
        let source = self.source(&key.source);
        match &key.note {
            Some(note) => format!("{source}; {note}"),
            None => source,
        }
    }

    fn source(&self, source: &Source) -> String {
        let file = self.file.rsplit('/').next().unwrap_or(&self.file);
        let source = match source {
            Source::Unset => "not set".to_owned(),
            Source::Default => "default".to_owned(),
            Source::Line(line) => format!("{file}:{line}"),
            Source::Env { names, line } => format!("env {names} ({file}:{line})"),
            Source::Files { paths, line } => format!("file {paths} ({file}:{line})"),
            Source::Login { line } => format!("login = true ({file}:{line})"),
            Source::Inherited {
                section,
                key,
                source,
            } => format!("[{section}] {key} ({})", self.source(source)),
        };
        plain(&source)
    }
}

impl ShownKey {
    fn assignment(&self) -> String {
        let comment = if self.writable { "" } else { "# " };
        match &self.value {
            Some(value) => format!("{comment}{} = {value}", self.name),
            None => format!("# {}", self.name),
        }
    }
}

impl Source {
    fn origin(&self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Default => "default",
            Self::Line(_) => "config",
            Self::Env { .. } => "env",
            Self::Files { .. } => "file",
            Self::Inherited { .. } | Self::Login { .. } => "inherited",
        }
    }
}

struct Reader<'a> {
    lines: &'a LineStarts,
    env: Env<'a>,
    sections: Vec<Shown>,
}

impl Reader<'_> {
    fn section(&mut self, entry: &SectionEntry, value: Option<&DeValue<'_>>) {
        match value {
            Some(DeValue::Array(elements)) => {
                for element in elements {
                    self.table(entry, element.get_ref().as_table());
                }
            }
            Some(DeValue::Table(table)) => self.table(entry, Some(table)),
            _ if entry.optional => self.show(entry.section, None),
            _ => self.table(entry, None),
        }
    }

    fn table(&mut self, entry: &SectionEntry, table: Option<&DeTable<'_>>) {
        let keys = entry.keys.iter();
        let keys = keys.map(|key| self.key(entry, key, table)).collect();
        self.show(entry.section, Some(keys));
        for nested in &REFERENCE.sections {
            let (outer, name) = nested.section.name.split_once('.').unwrap_or_default();
            if outer == entry.section.name {
                let value = table.and_then(|table| table.get(name));
                self.section(nested, value.map(|value| value.get_ref()));
            }
        }
    }

    fn show(&mut self, section: &'static Section, keys: Option<Vec<ShownKey>>) {
        self.sections.push(Shown {
            name: section.name,
            repeated: section.repeated,
            keys,
        });
    }

    fn key(
        &self,
        section: &SectionEntry,
        entry: &KeyEntry,
        table: Option<&DeTable<'_>>,
    ) -> ShownKey {
        let Key { name, kind } = *entry.key;
        let written = |name: &str| {
            let value = table?.get(name)?;
            Some((value.get_ref(), self.lines.number(value.span().start) + 1))
        };
        let shown = |value: Option<Cow<'static, str>>, source, writable| ShownKey {
            name,
            value,
            source,
            writable,
            note: None,
            holds_secret: false,
            is_relative: false,
        };
        if let Some((value, line)) = written(name) {
            let texts = Texts::of(kind, value, self.env);
            let source = match texts.variables.is_empty() {
                true => Source::Line(line),
                false => Source::Env {
                    names: texts.variables.join(", "),
                    line,
                },
            };
            return ShownKey {
                holds_secret: texts.hold_secret,
                is_relative: name.ends_with("_file") && texts.are_relative,
                ..shown(Some(texts.literal(value).into()), source, true)
            };
        }
        if kind == Kind::Secret
            && let Some((files, line)) = written(&format!("{name}_file"))
        {
            let files = Texts::of(Kind::Files, files, self.env);
            let paths = files.shown.join(", ");
            return shown(Some(STARS.into()), Source::Files { paths, line }, false);
        }
        if let ("auth", Some((DeValue::Boolean(true), line))) = (name, written("login")) {
            return shown(Some("\"none\"".into()), Source::Login { line }, true);
        }
        match entry.usual {
            Usual::Nothing => shown(None, Source::Unset, false),
            Usual::Value(value) => {
                let writable = section.optional || !entry.commented;
                shown(Some(value.into()), Source::Default, writable)
            }
            Usual::As { section, key } => match self.shown(section, key) {
                None => shown(None, Source::Unset, false),
                Some(theirs) => {
                    let source = Source::Inherited {
                        section,
                        key,
                        source: Box::new(theirs.source.clone()),
                    };
                    shown(theirs.value.clone(), source, true)
                }
            },
        }
    }

    /// What has been shown already.
    fn shown(&self, section: &str, key: &str) -> Option<&ShownKey> {
        let section = self.sections.iter().find(|it| it.name == section)?;
        let mut keys = section.keys.iter().flatten();
        keys.find(|it| it.name == key)
    }
}

/// The strings of a value, or the strings that stand for what is no string.
#[derive(Default)]
struct Texts {
    /// With variables replaced and secrets hidden.
    shown: Vec<String>,
    /// What the replaced ones are called.
    variables: Vec<String>,
    /// Whether one of them is a secret as it is written. In a URL only a password is, and that stands before an `@`.
    hold_secret: bool,
    /// Whether one of them is a relative path, if they are paths.
    are_relative: bool,
}

impl Texts {
    fn of(kind: Kind, value: &DeValue<'_>, env: Env<'_>) -> Self {
        let mut texts = Self::default();
        let elements = value.as_array().into_iter().flatten();
        let one = std::iter::once(value).filter(|value| !value.is_array());
        for value in one.chain(elements.map(|element| element.get_ref())) {
            if let DeValue::String(written) = value {
                texts.add(kind, written, env);
            }
        }
        texts
    }

    fn add(&mut self, kind: Kind, written: &str, env: Env<'_>) {
        let mut value = String::new();
        let mut is_secret = kind == Kind::Secret || is_suspect(written);
        let is_url = written.contains("://") && !written.contains('@');
        let mut is_literal = true;
        for piece in pieces(written) {
            match piece {
                Piece::Plain(text) => value.push_str(text),
                Piece::Escape => value.push_str("${"),
                Piece::Variable { name, .. } => {
                    // One that is not set is told as a mistake.
                    value.push_str(&env(name).unwrap_or_default());
                    is_literal = false;
                    is_secret |= names_a_secret(name);
                    if !self.variables.iter().any(|it| it == name) {
                        self.variables.push(name.to_owned());
                    }
                }
            }
        }
        self.are_relative |= !value.starts_with('/');
        self.hold_secret |= is_literal && is_secret && !is_url;
        self.shown.push(match is_secret || is_suspect(&value) {
            true => "***".to_owned(),
            false => value,
        });
    }

    /// How the value is written, in TOML and JSON alike.
    fn literal(&self, value: &DeValue<'_>) -> String {
        match value {
            DeValue::String(_) => self.shown.first().map_or_else(String::new, |it| quoted(it)),
            DeValue::Array(_) => {
                let elements: Vec<String> = self.shown.iter().map(|it| quoted(it)).collect();
                format!("[{}]", elements.join(", "))
            }
            DeValue::Boolean(flag) => flag.to_string(),
            other => match whole_number(other) {
                Some(number) => number.to_string(),
                None => STARS.to_owned(),
            },
        }
    }
}

/// Whether a variable is called as those are that hold secrets, whatever key it has come to.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = ["SECRET", "TOKEN", "PASSWORD", "KEY"];
    words.iter().any(|word| name.contains(word))
}

/// A string in quotes. JSON's escapes are TOML's; TOML has one character more that must be escaped.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    match json.contains('\u{7f}') {
        true => json.replace('\u{7f}', "\\u007f"),
        false => json,
    }
}

/// A text that may stand in a comment.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{fffd}")
}

/// Where a section belongs, and what it is called there. Outer sections come first; of a repeated one, the last is meant.
fn place_of<'a>(
    root: &'a mut Map<String, Value>,
    name: &'static str,
) -> (&'a mut Map<String, Value>, &'static str) {
    let Some((outer, name)) = name.split_once('.') else {
        return (root, name);
    };
    let mut place = root.get_mut(outer);
    if let Some(Value::Array(list)) = place {
        place = list.last_mut();
    }
    let place = place.and_then(Value::as_object_mut);
    (place.expect("the outer section is there already"), name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const SECRET: &str = "5ec3e75ec3e75ec3e75ec3e75ec3e75e";

    const FILE: &str = r##"[app]
appid = "wx0123456789abcdef"
secret = ["${WX_APP_SECRET}", "5ec3e75ec3e75ec3e75ec3e75ec3e75e"]

[inbound]
upstream = "http://${HOST}:3000"
timeout = "20s"

[[route]]
path = "/a/**"
timeout = "1m"

[[route]]
path = "/login"
login = true

[session]
key_file = "key"
"##;

    fn env(name: &str) -> Option<String> {
        match name {
            "WX_APP_SECRET" => Some(SECRET.to_owned()),
            "HOST" => Some("app".to_owned()),
            "WX_PUSH_TOKEN" => Some("hunter2".to_owned()),
            "TICK" => Some("\"'\u{7f}\n# x".to_owned()),
            _ => None,
        }
    }

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "key of sixteen and more").unwrap();
        directory
    }

    fn effective(text: &str, directory: &Path) -> Effective {
        let name = directory.join("sidecar.toml").display().to_string();
        let loaded = Config::parse(text, &name, &env);
        loaded.unwrap_or_else(|report| panic!("{report}")).effective
    }

    #[test]
    fn each_value_has_its_source() {
        let directory = directory();
        let json = effective(FILE, directory.path()).to_json();
        let told = |pointer: &str| {
            let key = json.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
            let source = key["source"].as_str().unwrap();
            format!("{} | {source} | {}", key["value"], key["origin"])
        };
        for (pointer, expected) in [
            (
                "/app/appid",
                r#""wx0123456789abcdef" | sidecar.toml:2 | "config""#,
            ),
            (
                "/app/secret",
                r#"["***","***"] | env WX_APP_SECRET (sidecar.toml:3) | "env""#,
            ),
            ("/app/secret_file", r#"null | not set | "unset""#),
            (
                "/inbound/upstream",
                r#""http://app:3000" | env HOST (sidecar.toml:6) | "env""#,
            ),
            ("/inbound/listen", r#""0.0.0.0:8080" | default | "default""#),
            ("/inbound/tunnel_timeout", r#""1h" | default | "default""#),
            (
                "/session/key",
                r#""***" | file key (sidecar.toml:18) | "file""#,
            ),
            ("/session/key_file", r#""key" | sidecar.toml:18 | "config""#),
            ("/route/0/timeout", r#""1m" | sidecar.toml:11 | "config""#),
            (
                "/route/1/timeout",
                r#""20s" | [inbound] timeout (sidecar.toml:7) | "inherited""#,
            ),
            (
                "/route/0/auth",
                r#""required" | [inbound] auth (default) | "inherited""#,
            ),
            (
                "/route/1/auth",
                r#""none" | login = true (sidecar.toml:15) | "inherited""#,
            ),
            (
                "/route/0/upstream",
                r#""http://app:3000" | [inbound] upstream (env HOST (sidecar.toml:6)) | "inherited""#,
            ),
            ("/wechat/breaker/failures", r#"5 | default | "default""#),
            ("/outbound/allow", r#"["/**"] | default | "default""#),
        ] {
            assert_eq!(told(pointer), expected, "{pointer}");
        }
        let workers = &json["inbound"]["workers"];
        let note = workers["note"].as_str().unwrap();
        assert_eq!(workers["value"], "auto");
        assert!(note.ends_with(" here") && note.as_bytes()[0].is_ascii_digit());
        for absent in [
            "/push",
            "/inbound/tls",
            "/route/0/text_check",
            "/media/check",
        ] {
            assert_eq!(json.pointer(absent), Some(&Value::Null), "{absent}");
        }
        let without = FILE.split_once("[[route]]").unwrap().0;
        let json = effective(without, directory.path()).to_json();
        assert_eq!(json["route"], json!([]));
    }

    #[test]
    fn as_toml_the_sources_stand_behind_the_values() {
        let directory = directory();
        let toml = effective(FILE, directory.path()).to_toml();
        let line = |start: &str| {
            let found = toml.lines().find(|line| line.starts_with(start));
            let words: Vec<&str> = found.unwrap_or_default().split_whitespace().collect();
            words.join(" ")
        };
        let head = format!("# {}/sidecar.toml, as it is", directory.path().display());
        assert!(toml.starts_with(&head), "{toml}");
        assert_eq!(line("listen"), "listen = \"0.0.0.0:8080\" # default");
        assert_eq!(line("# secret_file"), "# secret_file # not set");
        assert_eq!(
            line("# key ="),
            "# key = \"***\" # file key (sidecar.toml:18)"
        );
        assert_eq!(line("# [push]"), "# [push] # not set");
        assert_eq!(line("# mode"), "# mode = \"single\" # default");
        assert_eq!(toml.matches("\n[[route]]\n").count(), 2);
    }

    #[test]
    fn no_secret_is_in_it() {
        let directory = directory();
        let hidden = [SECRET, "key of sixteen", "hunter2"];
        let more = format!(
            "{FILE}[wechat]\negress_proxy = \"http://u:hunter2@proxy\"\n[[push.route]]\ncontent = \"{SECRET}\"\n\
             deliver = \"/${{WX_PUSH_TOKEN}}\"\n[push]\ntoken = \"hunter2\"\nmode = \"plaintext\"\n"
        );
        let effective = effective(&more, directory.path());
        for text in [
            effective.to_toml(),
            effective.to_json().to_string(),
            format!("{effective:?}"),
        ] {
            for hidden in hidden {
                assert!(!text.contains(hidden), "{text}");
            }
        }
        let route = &effective.to_json()["push"]["route"][0];
        assert_eq!(route["content"]["value"], "***");
        assert_eq!(route["deliver"]["value"], "***");
        let source = route["deliver"]["source"].as_str().unwrap();
        assert!(
            source.starts_with("env WX_PUSH_TOKEN (sidecar.toml:"),
            "{source}"
        );
    }

    #[test]
    fn what_does_not_travel_with_the_file_and_what_should_not_is_known() {
        let directory = directory();
        let found = effective(FILE, directory.path());
        assert_eq!(found.literal_secrets(), ["[app] secret"]);
        assert_eq!(found.relative_files(), ["[session] key_file"]);
        let whole = directory.path().join("key").display().to_string();
        let text = FILE
            .replace(&format!(", \"{SECRET}\""), "")
            .replace("key_file = \"key\"", &format!("key_file = \"{whole}\""));
        let found = effective(&text, directory.path());
        assert_eq!(found.literal_secrets(), [""; 0]);
        assert_eq!(found.relative_files(), [""; 0]);
    }

    #[test]
    fn of_a_url_only_a_password_is_a_secret() {
        let found = |value: &str| {
            let mut texts = Texts::default();
            texts.add(Kind::Secret, value, &env);
            texts.hold_secret
        };
        assert!(!found("redis://cache:6379"));
        assert!(!found("redis://shop:${WX_APP_SECRET}@cache:6379"));
        assert!(found("redis://shop:hunter2@cache:6379"));
    }

    #[test]
    fn as_toml_it_means_the_same() {
        let directory = directory();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("secret", SECRET);
        write("token", "atoken");
        let text = FILE.replace(
            "secret = [\"${WX_APP_SECRET}\", \"5ec3e75ec3e75ec3e75ec3e75ec3e75e\"]",
            "secret_file = 'secret'",
        ) + "[push]\ntoken_file = \"token\"\nmode = \"plaintext\"\nconcurrency = 0xf\n\
               [[push.route]]\ncontent = \"${TICK}\"\nreply = \"wait\"\n[[push.route]]\ntype = 'text'\n\
               [[route]]\npath = \"/c\"\ntext_check = { field = ['a', \"b\"], scene = 2 }\n";
        let name = directory.path().join("sidecar.toml").display().to_string();
        let parse = |text: &str| {
            let loaded = Config::parse(text, &name, &env);
            loaded.unwrap_or_else(|report| panic!("{text}\n{report}"))
        };
        let meant = parse(&text);
        let again = parse(&meant.effective.to_toml());
        assert_eq!(meant.config, again.config, "{}", meant.effective.to_toml());
        let smallest = "app = { appid = \"wx0123456789abcdef\", secret_file = \"secret\" }\n\
                        inbound.upstream = \"http://a\"\n";
        let meant = parse(smallest);
        let again = parse(&meant.effective.to_toml());
        assert_eq!(meant.config, again.config);
        assert!(
            again
                .warnings
                .to_string()
                .lines()
                .all(|line| !line.starts_with("error"))
        );
    }

    #[test]
    fn what_is_odd_stays_one_line() {
        let text = FILE.replace("key_file = \"key\"", "key_file = \"a\\nb\"");
        let directory = directory();
        fs::write(directory.path().join("a\nb"), "key of sixteen and more").unwrap();
        let toml = effective(&text, directory.path()).to_toml();
        assert!(toml.contains("file a\u{fffd}b (sidecar.toml:18)"), "{toml}");
        let tree: Result<toml::Table, _> = toml::from_str(&toml);
        assert!(tree.is_ok(), "{tree:?}");
    }
}
