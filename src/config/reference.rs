//! What the repository's `sidecar.toml` says of each key.
//!
//! That file is the one place where keys are documented and where their defaults stand; what the binary tells of them
//! (`schema`, `config show`) is read from there, so that it cannot say something else. The file's head has its conventions:
//!
//! - a comment belongs to the keys below it, up to the next comment, empty line or header; one above a header belongs to the
//!   section, and to those of its keys that have none;
//! - a remark behind a value is of clauses, parted by `; `: `default` and `required` say what the value is, `... if left out`
//!   says what holds otherwise, and all else is said to people;
//! - a value that is not commented out is the default, unless it is `required`; one that is is not, unless it is `default`.

use std::sync::LazyLock;

use serde_json::Value;

use super::raw::{Key, SECTIONS, Section};

/// The file.
pub const TEXT: &str = include_str!("../../sidecar.toml");

/// What the file says.
pub(super) static REFERENCE: LazyLock<Reference> = LazyLock::new(|| Reference::read(TEXT));

/// All sections, in the order of [`SECTIONS`].
pub(super) struct Reference {
    pub(super) sections: Vec<SectionEntry>,
}

/// What is said of a section.
pub(super) struct SectionEntry {
    pub(super) section: &'static Section,
    pub(super) doc: String,
    /// Not there unless it is written.
    pub(super) optional: bool,
    pub(super) keys: Vec<KeyEntry>,
}

/// What is said of a key.
pub(super) struct KeyEntry {
    pub(super) key: &'static Key,
    pub(super) doc: String,
    pub(super) usual: Usual,
    /// It, or its file.
    pub(super) required: bool,
    /// Stands in the file as a comment: what it is by default cannot always be written.
    pub(super) commented: bool,
    /// Values, as they are written; TOML and JSON alike.
    pub(super) examples: Vec<&'static str>,
}

/// What holds if a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usual {
    /// Nothing.
    Nothing,
    /// A value; TOML and JSON alike.
    Value(&'static str),
    /// What another section says.
    As {
        section: &'static str,
        key: &'static str,
    },
}

impl Reference {
    /// The entry of a section of the table.
    pub(super) fn section(&self, name: &str) -> Option<&SectionEntry> {
        self.sections
            .iter()
            .find(|entry| entry.section.name == name)
    }

    fn read(text: &'static str) -> Self {
        let mut reader = Reader::new();
        for line in text.lines() {
            reader.line(line);
        }
        let mut reference = Self {
            sections: reader.sections,
        };
        reference.lend_docs();
        reference
    }

    /// What is as in another section is documented there.
    fn lend_docs(&mut self) {
        let lent = |entry: &KeyEntry| match entry.usual {
            Usual::As { section, key } => {
                let theirs = self.section(section)?.key(key)?;
                let mut doc = theirs.doc.clone();
                say(&mut doc, &entry.doc);
                Some(doc)
            }
            Usual::Nothing | Usual::Value(_) => None,
        };
        let docs: Vec<Vec<Option<String>>> = self
            .sections
            .iter()
            .map(|section| section.keys.iter().map(lent).collect())
            .collect();
        for (section, docs) in self.sections.iter_mut().zip(docs) {
            for (entry, doc) in section.keys.iter_mut().zip(docs) {
                if let Some(doc) = doc {
                    entry.doc = doc;
                } else if entry.doc.is_empty() {
                    entry.doc.clone_from(&section.doc);
                }
            }
        }
    }
}

impl SectionEntry {
    /// The entry of a key of the section.
    pub(super) fn key(&self, name: &str) -> Option<&KeyEntry> {
        self.keys.iter().find(|entry| entry.key.name == name)
    }
}

/// What a line is.
enum Line<'a> {
    Empty,
    /// Another way to write a section within the section.
    Inline,
    Prose(&'a str),
    Header(usize),
    Key {
        at: usize,
        value: &'a str,
        remark: &'a str,
    },
}

/// Reads the file line by line.
struct Reader {
    sections: Vec<SectionEntry>,
    /// The section that the line stands in.
    section: usize,
    /// The comment that a key would take, and whether one has taken it.
    prose: String,
    taken: bool,
    /// What stands above the header that comes next, or stood above the last one.
    above_header: String,
}

impl Reader {
    fn new() -> Self {
        let key = |key: &'static Key| KeyEntry {
            key,
            doc: String::new(),
            usual: Usual::Nothing,
            required: false,
            commented: true,
            examples: Vec::new(),
        };
        let section = |section: &'static Section| SectionEntry {
            section,
            doc: String::new(),
            optional: true,
            keys: section.keys.iter().map(key).collect(),
        };
        Self {
            sections: SECTIONS.iter().map(section).collect(),
            section: 0,
            prose: String::new(),
            taken: false,
            above_header: String::new(),
        }
    }

    fn line(&mut self, line: &'static str) {
        let uncommented = line.strip_prefix('#');
        let content = uncommented.unwrap_or(line).trim();
        let is_comment = uncommented.is_some();
        match self.kind(content) {
            Line::Empty => self.end_prose(),
            Line::Inline => {}
            Line::Prose(text) => self.prose(text),
            Line::Header(at) => self.header(at, is_comment),
            Line::Key { at, value, remark } => self.key(at, value, remark, is_comment),
        }
    }

    fn kind(&self, content: &'static str) -> Line<'static> {
        if content.is_empty() {
            return Line::Empty;
        }
        let header = |section: &SectionEntry| section.section.header() == content;
        if let Some(at) = self.sections.iter().position(header) {
            return Line::Header(at);
        }
        let section = &self.sections[self.section];
        let key = |(name, rest): (&str, &'static str)| {
            if section.section.nested(name).is_some() {
                return Some(Line::Inline);
            }
            let at = section.keys.iter().position(|it| it.key.name == name)?;
            let (value, remark) = value_and_remark(rest);
            Some(Line::Key { at, value, remark })
        };
        let line = content.split_once(" = ").and_then(key);
        line.unwrap_or(Line::Prose(content))
    }

    fn prose(&mut self, text: &str) {
        if std::mem::take(&mut self.taken) {
            self.prose.clear();
        }
        if !self.prose.is_empty() {
            self.prose.push(' ');
        }
        self.prose.push_str(text);
    }

    fn end_prose(&mut self) {
        let prose = std::mem::take(&mut self.prose);
        if !prose.is_empty() && !std::mem::take(&mut self.taken) {
            self.above_header = prose;
        }
    }

    fn header(&mut self, at: usize, is_comment: bool) {
        self.end_prose();
        self.section = at;
        let section = &mut self.sections[at];
        section.optional &= is_comment;
        if section.doc.is_empty() {
            section.doc.clone_from(&self.above_header);
        }
    }

    fn key(&mut self, at: usize, value: &'static str, remark: &'static str, is_comment: bool) {
        let entry = &mut self.sections[self.section].keys[at];
        let is_first = entry.examples.is_empty();
        if !entry.examples.contains(&value) {
            entry.examples.push(value);
        }
        if is_first && !is_comment {
            entry.commented = false;
            entry.usual = Usual::Value(value);
        }
        let remark = entry.take_remark(value, remark);
        if is_first || !self.taken {
            say(&mut entry.doc, &self.prose);
        }
        let is_told = matches!(entry.usual, Usual::As { .. }) || !remark.is_empty();
        if is_first && self.prose.is_empty() && !is_told {
            say(&mut entry.doc, &self.above_header);
        }
        if is_first || remark.is_empty() {
            say(&mut entry.doc, &remark);
        } else {
            say(&mut entry.doc, &format!("`{value}`: {remark}"));
        }
        self.taken = true;
    }
}

impl KeyEntry {
    /// Takes what a remark says of the value; the rest of it is for people.
    fn take_remark(&mut self, value: &'static str, remark: &'static str) -> String {
        let mut rest = Vec::new();
        for clause in remark.split("; ") {
            match clause {
                // The file of a secret is told by the schema in its own way.
                _ if clause.starts_with("or `") => {}
                "default" => self.usual = Usual::Value(value),
                "required" => {
                    self.required = true;
                    self.usual = Usual::Nothing;
                }
                _ => match clause.strip_suffix(" if left out").and_then(usual) {
                    Some(usual) => self.usual = usual,
                    None => rest.push(clause),
                },
            }
        }
        rest.join("; ")
    }
}

/// Adds a sentence to a text.
pub(super) fn say(doc: &mut String, more: &str) {
    if more.is_empty() {
        return;
    }
    if !doc.is_empty() {
        doc.push_str(if doc.ends_with('.') { " " } else { ". " });
    }
    doc.push_str(more);
}

/// ``as `[inbound] auth` ``, or a value.
fn usual(text: &'static str) -> Option<Usual> {
    let place = |text: &'static str| {
        let place = text.strip_prefix("as `[")?.strip_suffix('`')?;
        let (section, key) = place.split_once("] ")?;
        Some(Usual::As { section, key })
    };
    let is_value = || serde_json::from_str::<Value>(text).is_ok();
    place(text).or_else(|| is_value().then_some(Usual::Value(text)))
}

/// What stands before a `#` that is in no string, and what stands behind it.
fn value_and_remark(text: &str) -> (&str, &str) {
    let mut quotes = text.bytes().scan(false, |quoted, byte| {
        *quoted ^= byte == b'"';
        Some((*quoted, byte))
    });
    let remark = quotes.position(|(quoted, byte)| byte == b'#' && !quoted);
    match remark {
        Some(at) => (text[..at].trim_end(), text[at + 1..].trim()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(section: &str, key: &str) -> &'static KeyEntry {
        REFERENCE.section(section).unwrap().key(key).unwrap()
    }

    #[test]
    fn every_section_and_every_key_stands_in_the_file_and_is_documented() {
        for section in &REFERENCE.sections {
            let name = section.section.header();
            assert!(section.doc.len() > 10, "{name}");
            for entry in &section.keys {
                let name = format!("{name} {}", entry.key.name);
                assert!(!entry.examples.is_empty(), "{name}");
                assert!(entry.doc.len() > 10, "{name}: {}", entry.doc);
            }
        }
    }

    #[test]
    fn no_key_of_the_file_is_taken_for_prose() {
        for line in TEXT.lines() {
            let content = line.trim_start_matches(['#', ' ']);
            let Some((name, _)) = content.split_once(" = ") else {
                continue;
            };
            let is_word = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let known = SECTIONS
                .iter()
                .any(|s| s.key(name).is_some() || s.nested(name).is_some());
            assert!(known || !is_word, "{line}");
        }
    }

    #[test]
    fn every_value_of_the_file_is_toml_and_json_alike() {
        for section in &REFERENCE.sections {
            for entry in &section.keys {
                let usual = match entry.usual {
                    Usual::Value(value) => Some(value),
                    Usual::As { section, key } => {
                        assert!(REFERENCE.section(section).unwrap().key(key).is_some());
                        None
                    }
                    Usual::Nothing => None,
                };
                for value in entry.examples.iter().copied().chain(usual) {
                    let json: Value = serde_json::from_str(value).expect(value);
                    let toml: toml::Table = toml::from_str(&format!("a = {value}")).expect(value);
                    assert_eq!(serde_json::to_value(&toml["a"]).unwrap(), json);
                }
            }
        }
    }

    #[test]
    fn defaults_are_told_from_examples() {
        for (section, key, expected) in [
            ("app", "appid", Usual::Nothing),
            ("app", "secret", Usual::Nothing),
            ("app", "secret_file", Usual::Nothing),
            ("inbound", "listen", Usual::Value("\"0.0.0.0:8080\"")),
            ("inbound", "trusted_proxies", Usual::Value("[]")),
            ("inbound.tls", "client_ca_file", Usual::Nothing),
            ("inbound.tls", "handshake_timeout", Usual::Value("\"10s\"")),
            ("route", "login", Usual::Value("false")),
            ("route", "media", Usual::Nothing),
            ("route.text_check", "on_failure", Usual::Value("\"closed\"")),
            ("push", "journal", Usual::Nothing),
            ("push", "concurrency", Usual::Value("16")),
            ("store", "mode", Usual::Value("\"single\"")),
        ] {
            assert_eq!(entry(section, key).usual, expected, "[{section}] {key}");
        }
        let timeout = Usual::As {
            section: "inbound",
            key: "timeout",
        };
        assert_eq!(entry("route", "timeout").usual, timeout);
        assert!(entry("route", "path").required && entry("app", "secret").required);
        assert!(!entry("route", "methods").required);
    }

    #[test]
    fn a_comment_belongs_to_the_keys_below_it() {
        let doc = |section, key| entry(section, key).doc.as_str();
        assert!(doc("app", "secret_file").starts_with("Instead of `secret`: a file"));
        assert!(doc("push", "retry_for").starts_with("A message that the app does not accept"));
        assert!(doc("admin", "listen").starts_with("The side that faces operators"));
        assert!(doc("route", "methods").ends_with("the route is for all methods"));
        assert!(doc("route", "login").starts_with("The app's own login path"));
        assert!(doc("route", "timeout").starts_with("How long the app may be silent"));
        let upstream = doc("inbound", "upstream");
        assert!(
            upstream.starts_with("Your app. It runs beside"),
            "{upstream}"
        );
        let h2c = "`\"h2c://127.0.0.1:50051\"`: HTTP/2 without TLS, for gRPC and its trailers";
        assert!(upstream.ends_with(h2c), "{upstream}");
        assert!(!upstream.contains("required"), "{upstream}");
    }

    #[test]
    fn sections_that_are_commented_out_are_optional() {
        let optional: Vec<&str> = REFERENCE
            .sections
            .iter()
            .filter(|entry| entry.optional)
            .map(|entry| entry.section.name)
            .collect();
        let expected = [
            "inbound.tls",
            "route",
            "route.text_check",
            "wechat.api_security",
            "wechat.virtual_payment",
            "push",
            "push.route",
            "media.check",
        ];
        assert_eq!(optional, expected);
    }
}
