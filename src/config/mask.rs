//! What of a configuration file may be shown.
//!
//! A diagnostic shows the line it is about, and lines of this file hold AppSecrets and keys. So values are hidden unless
//! they are known to be harmless: a known key of a known section that takes no secret. A misspelt `secert` is hidden
//! too, for that is exactly the line that will be shown. Where the file is not TOML there is no tree to ask, and the
//! judgement is made line by line, with the same bias. A value that is nothing but `${NAME}` is harmless.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{Kind, SECTIONS, Section};

const STARS: &str = "***";

/// How a key in PEM begins.
const PEM: &str = "-----BEGIN ";

/// The parts of a text that must not be shown.
#[derive(Default)]
pub(super) struct Mask {
    hidden: Vec<Range<usize>>,
}

impl Mask {
    /// Hides by key, for a file that is TOML.
    pub(super) fn of_table(text: &str, root: &DeTable<'_>) -> Self {
        let mut mask = Self::default();
        for (name, value) in root {
            let section = SECTIONS.iter().find(|s| s.name == name.get_ref().as_ref());
            match section {
                Some(section) => mask.hide_section(text, section, value),
                None => mask.hide_all(text, value),
            }
        }
        mask.hidden.sort_by_key(|r| r.start);
        mask
    }

    /// Hides by line, for a file that is not TOML.
    pub(super) fn of_lines(text: &str) -> Self {
        let mut hidden = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let content = line.trim_end_matches(['\n', '\r']);
            let from = start + harmless_prefix(content);
            let to = start + content.len();
            if from < to {
                hidden.push(from..to);
            }
            start += line.len();
        }
        Self { hidden }
    }

    /// The `line` of `text` as it may be shown, and where `span` lies in it.
    pub(super) fn line(
        &self,
        text: &str,
        line: Range<usize>,
        span: Range<usize>,
    ) -> (String, Range<usize>) {
        let pieces = self.pieces(&line);
        let mut shown = String::new();
        let mut at = line.start;
        for piece in &pieces {
            shown.push_str(&text[at..piece.start]);
            shown.push_str(STARS);
            at = piece.end;
        }
        shown.push_str(&text[at..line.end]);
        let start = moved(span.start, 0, &pieces) - line.start;
        let end = moved(span.end, STARS.len(), &pieces) - line.start;
        (shown, start..end)
    }

    fn hide_section(&mut self, text: &str, section: &Section, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (name, value) in table {
                    if let Some(nested) = section.nested(name.get_ref()) {
                        self.hide_section(text, nested, value);
                        continue;
                    }
                    match section.key(name.get_ref()) {
                        Some(key) if key.kind != Kind::Secret => self.hide_suspects(text, value),
                        _ => self.hide_all(text, value),
                    }
                }
            }
            DeValue::Array(array) if section.repeated => {
                for element in array {
                    self.hide_section(text, section, element);
                }
            }
            _ => self.hide_all(text, value),
        }
    }

    fn hide_all(&mut self, text: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (_, value) in table {
                    self.hide_all(text, value);
                }
            }
            DeValue::Array(array) => {
                for element in array {
                    self.hide_all(text, element);
                }
            }
            _ => self.hide(text, value.span()),
        }
    }

    fn hide_suspects(&mut self, text: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(array) => {
                for element in array {
                    self.hide_suspects(text, element);
                }
            }
            DeValue::Table(_) => self.hide_all(text, value),
            DeValue::String(string) if is_suspect(string) => self.hide(text, value.span()),
            _ => {}
        }
    }

    /// Hides one literal, without its quotes, and the comment behind it, where the value it replaced may be kept.
    fn hide(&mut self, text: &str, span: Range<usize>) {
        let literal = &text[span.clone()];
        let quoted = literal.len() >= 2 && literal.starts_with(['"', '\'']);
        let inner = if quoted {
            span.start + 1..span.end - 1
        } else {
            span.clone()
        };
        let line_end = text[span.end..]
            .find('\n')
            .map_or(text.len(), |i| span.end + i);
        if let Some(comment) = text[span.end..line_end].find('#') {
            self.hidden.push(span.end + comment..line_end);
        }
        if !is_reference(&text[inner.clone()]) {
            self.hidden.push(inner);
        }
    }

    /// The hidden parts of one line, in order and apart from each other.
    fn pieces(&self, line: &Range<usize>) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for hidden in &self.hidden {
            let piece = hidden.start.max(line.start)..hidden.end.min(line.end);
            match pieces.last_mut() {
                _ if piece.is_empty() => {}
                Some(last) if piece.start <= last.end => last.end = last.end.max(piece.end),
                _ => pieces.push(piece),
            }
        }
        pieces
    }
}

/// Where `offset` lies once each of `pieces` is as long as the stars; `inside` is where in the stars an offset goes that
/// lies in a piece.
fn moved(offset: usize, inside: usize, pieces: &[Range<usize>]) -> usize {
    let (mut removed, mut added) = (0, 0);
    for piece in pieces {
        if offset >= piece.end {
            removed += piece.len();
            added += STARS.len();
        } else if offset > piece.start {
            return piece.start + added + inside - removed;
        }
    }
    offset + added - removed
}

/// `${NAME}` and nothing else: a name, not a value.
fn is_reference(literal: &str) -> bool {
    literal
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

/// Whether a value that should be harmless may be a secret in the wrong place: it has the shape of an AppSecret or of a key,
/// or is a URL with a password.
pub(super) fn is_suspect(value: &str) -> bool {
    let is_app_secret = value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
    let is_symmetric_key = value.ends_with('=')
        && STANDARD
            .decode(value)
            .is_ok_and(|key| matches!(key.len(), 16 | 32));
    is_app_secret || is_symmetric_key || value.contains(PEM) || value.contains('@')
}

/// How many bytes of a line may be shown if nothing is known about the lines around it.
fn harmless_prefix(line: &str) -> usize {
    let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
    let content = &line[indent..];
    let word = content
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
        .unwrap_or(content.len());
    let after_word = indent + word;
    let rest = content[word..].trim_start_matches([' ', '\t']);
    let is_header = content.starts_with('[')
        && content
            .trim_end()
            .trim_matches(['[', ']'])
            .bytes()
            .all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'));
    let keys = || {
        SECTIONS
            .iter()
            .filter_map(|s| s.key(&content[..word]))
            .map(|k| k.kind)
    };
    if is_header {
        line.len()
    } else if keys().next().is_none() {
        indent
    } else if keys().all(|kind| kind != Kind::Secret)
        && rest.starts_with('=')
        && rest.matches('=').count() == 1
        && !rest.to_ascii_lowercase().contains("secret")
        && !rest.contains(['@', '#', '{'])
        && !rest.contains(PEM)
        && !rest
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(is_suspect)
    {
        line.len()
    } else if rest.starts_with('=') {
        line.len() - rest.len() + 1
    } else {
        after_word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mask = if errors.is_empty() {
            Mask::of_table(text, root.get_ref())
        } else {
            Mask::of_lines(text)
        };
        let mut lines = Vec::new();
        let mut start = 0;
        for line in text.split('\n') {
            let end = start + line.len();
            lines.push(mask.line(text, start..end, start..end).0);
            start = end + 1;
        }
        lines.join("\n")
    }

    #[test]
    fn secrets_and_what_is_unknown_are_hidden_and_the_rest_is_shown() {
        for (text, expected) in [
            ("[app]\nsecret = \"abc\"", "[app]\nsecret = \"***\""),
            (
                "[app]\nsecert = 'abc' # was abd",
                "[app]\nsecert = '***' ***",
            ),
            ("[app]\nsecret = 12345", "[app]\nsecret = ***"),
            ("[app]\nsecret = \"${X}\"", "[app]\nsecret = \"${X}\""),
            ("[app]\nsecret = \"a${X}\"", "[app]\nsecret = \"***\""),
            (
                "app = { secret = [\"a\",\n\"b\"], env = \"x\" }",
                "app = { secret = [\"***\",\n\"***\"], env = \"x\" }",
            ),
            ("app.secret = \"abc\"", "app.secret = \"***\""),
            ("secret = \"abc\"", "secret = \"***\""),
            (
                "[nowhere]\na = { b = \"c\" }",
                "[nowhere]\na = { b = \"***\" }",
            ),
            ("[inbound]\nsecret = \"abc\"", "[inbound]\nsecret = \"***\""),
            (
                "[inbound]\nupstream = \"http://u:p@h\"",
                "[inbound]\nupstream = \"***\"",
            ),
            (
                "[app]\nappid = \"0123456789abcdef0123456789abcdef\"",
                "[app]\nappid = \"***\"",
            ),
            ("[app]\nenv = \"prod\" # x", "[app]\nenv = \"prod\" # x"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_that_are_not_toml_show_known_keys_only() {
        for (text, expected) in [
            ("secret = \"abc", "secret =***"),
            ("secret abc", "secret***"),
            ("abc\"", "***"),
            ("  secert = abc", "  ***"),
            ("timeout = 30s", "timeout = 30s"),
            ("access_ttl = \"2h\" key = abc", "access_ttl =***"),
            ("env = \"x\" secret: \"abc", "env =***"),
            ("[app]]", "[app]]"),
            ("[app] secret = abc = 1", "***"),
        ] {
            let mask = Mask::of_lines(text);
            assert_eq!(mask.line(text, 0..text.len(), 0..0).0, expected, "{text}");
        }
    }

    #[test]
    fn the_caret_follows_what_it_points_at() {
        let text = "app = { secret = \"abcdefgh\", evn = 1 }";
        let (root, _) = DeTable::parse_recoverable(text);
        let mask = Mask::of_table(text, root.get_ref());
        let evn = text.find("evn").unwrap();
        let (shown, caret) = mask.line(text, 0..text.len(), evn..evn + 3);
        assert_eq!(&shown[caret], "evn");
        let secret = text.find("\"abc").unwrap();
        let (shown, caret) = mask.line(text, 0..text.len(), secret..secret + 10);
        assert_eq!(&shown[caret], "\"***\"");
        let (shown, caret) = mask.line(text, 0..text.len(), secret + 3..secret + 5);
        assert_eq!(&shown[caret], "***");
    }
}
