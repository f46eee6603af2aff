//! YAML with places: what is where in a text, so that something can be put in without touching the rest.
//!
//! A library reads it, and all that is wanted of it is where each thing begins. Whatever is put in goes before something that is
//! there, because a beginning is a place, and an end (of a block scalar, before a comment) is a matter of opinion. It is written in
//! the style of what it goes into: block, or JSON where brackets are used.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// How deep things may lie in each other; Kubernetes' are ten deep or so.
const DEPTH: usize = 100;

/// Something in a document, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    /// In bytes; where an anchor or a tag belongs to it, where that begins.
    start: usize,
    /// From 1.
    pub(super) line: usize,
    anchor: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar {
        text: String,
        quoted: bool,
    },
    /// `flow`: where its `[` ends, if it has one.
    Sequence {
        items: Vec<Node>,
        flow: Option<usize>,
    },
    /// `flow`: where its `{` ends, if it has one.
    Mapping {
        entries: Vec<(Node, Node)>,
        flow: Option<usize>,
    },
    /// `*name`: what it stands for is elsewhere.
    Alias,
}

/// A document of a text, if it has anything.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// The anchors that aliases of the text refer to.
    pub(super) aliased: HashSet<usize>,
}

/// A text to put in, and where.
#[derive(Debug)]
pub(super) struct Insertion {
    at: usize,
    /// How many bytes that are there it takes the place of.
    instead: usize,
    text: String,
}

impl Node {
    /// A string that is new.
    pub(super) fn string(text: &str) -> Self {
        Self::new(Content::Scalar {
            text: text.to_owned(),
            quoted: !is_plain(text),
        })
    }

    /// A number that is new.
    pub(super) fn number(number: u16) -> Self {
        Self::new(Content::Scalar {
            text: number.to_string(),
            quoted: false,
        })
    }

    /// A mapping that is new.
    pub(super) fn mapping(entries: Vec<(&str, Node)>) -> Self {
        let entries = entries.into_iter();
        Self::new(Content::Mapping {
            entries: entries
                .map(|(key, value)| (Self::string(key), value))
                .collect(),
            flow: None,
        })
    }

    /// A sequence that is new.
    pub(super) fn sequence(items: Vec<Node>) -> Self {
        Self::new(Content::Sequence { items, flow: None })
    }

    fn new(content: Content) -> Self {
        Self {
            content,
            start: 0,
            line: 0,
            anchor: 0,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[(Node, Node)] {
        match &self.content {
            Content::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.content {
            Content::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// What a mapping has under a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let mut entries = self.entries().iter();
        let found = entries.find(|(it, _)| it.text() == Some(key));
        found.map(|(_, value)| value)
    }

    /// What is at the end of a path of keys; an item of a sequence goes by its `name`.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| {
            let mut items = node.items().iter();
            let named = items.find(|item| item.get("name").and_then(Node::text) == Some(step));
            named.or_else(|| node.get(step))
        })
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, path: &[&str]) -> Option<&mut Node> {
        path.iter()
            .try_fold(self, |node, step| match &mut node.content {
                Content::Mapping { entries, .. } => {
                    let mut entries = entries.iter_mut();
                    let found = entries.find(|(key, _)| key.text() == Some(step));
                    found.map(|(_, value)| value)
                }
                Content::Sequence { items, .. } => {
                    let mut items = items.iter_mut();
                    items.find(|item| item.text_at(&["name"]) == Some(step))
                }
                _ => None,
            })
    }

    /// The text at the end of a path.
    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }

    /// Adds an item to a sequence.
    pub(super) fn push(&mut self, item: Node) {
        if let Content::Sequence { items, .. } = &mut self.content {
            items.push(item);
        }
    }

    /// Removes a key from a mapping.
    pub(super) fn remove(&mut self, key: &str) {
        if let Content::Mapping { entries, .. } = &mut self.content {
            entries.retain(|(it, _)| it.text() != Some(key));
        }
    }

    /// Adds a key to a mapping.
    pub(super) fn add(&mut self, key: &str, value: Node) {
        if let Content::Mapping { entries, .. } = &mut self.content {
            entries.push((Self::string(key), value));
        }
    }

    /// Whether it is nothing: `key:` with no value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        let Content::Scalar { text, quoted } = &self.content else {
            return false;
        };
        !quoted && ["", "~", "null", "Null", "NULL"].contains(&text.as_str())
    }

    /// Whether `*name` elsewhere means this, too.
    pub(super) fn is_used_by(&self, aliased: &HashSet<usize>) -> bool {
        aliased.contains(&self.anchor)
    }

    /// Puts a key into this mapping, before the entry of that number; `None` where its layout is too unusual.
    pub(super) fn insert_entry(
        &self,
        source: &str,
        before: usize,
        key: &str,
        value: &Node,
    ) -> Option<Insertion> {
        let Content::Mapping { entries, flow } = &self.content else {
            return None;
        };
        if let Some(at) = *flow {
            let mut text = format!("{}: ", quoted(key));
            value.write_flow(&mut text);
            return Some(in_brackets(at, text, entries.is_empty()));
        }
        let column = column(source, entries.get(before)?.0.start);
        let mut text = String::new();
        write_entry(&Node::string(key), value, column, &mut text);
        before_place(source, entries[before].0.start, text)
    }

    /// Puts items at the beginning of this sequence; `None` where its layout is too unusual.
    pub(super) fn insert_items(&self, source: &str, new: &[Node]) -> Option<Insertion> {
        let Content::Sequence { items, flow } = &self.content else {
            return None;
        };
        if let Some(at) = *flow {
            let mut text = String::new();
            write_separated(new, &mut text, Node::write_flow);
            return Some(in_brackets(at, text, items.is_empty()));
        }
        let before = source[..items.first()?.start].trim_end();
        let dash = before.strip_suffix('-')?.len();
        let mut text = String::new();
        for item in new {
            write_item(item, column(source, dash), &mut text);
        }
        before_place(source, dash, text)
    }

    /// Puts a number in the place of this scalar; `None` where it is written in another way than as itself, with or without
    /// quotes.
    pub(super) fn replace(&self, source: &str, number: u16) -> Option<Insertion> {
        let text = self.text()?;
        let written = [text.to_owned(), format!("\"{text}\""), format!("'{text}'")];
        let there = &source[self.start..];
        let written = written.iter().find(|it| there.starts_with(it.as_str()))?;
        Some(Insertion {
            at: self.start,
            instead: written.len(),
            text: number.to_string(),
        })
    }

    /// As a document of its own.
    pub(super) fn document(&self) -> String {
        let mut out = "---\n".to_owned();
        for (key, value) in self.entries() {
            write_entry(key, value, 0, &mut out);
        }
        out
    }

    fn write_flow(&self, out: &mut String) {
        match &self.content {
            Content::Scalar {
                text,
                quoted: false,
            } if is_number_or_word(text) => out.push_str(text),
            Content::Scalar { text, .. } => out.push_str(&quoted(text)),
            Content::Sequence { items, .. } => {
                out.push('[');
                write_separated(items, out, Self::write_flow);
                out.push(']');
            }
            Content::Mapping { entries, .. } => {
                out.push('{');
                write_separated(entries, out, |(key, value), out| {
                    out.push_str(&quoted(key.text().unwrap_or_default()));
                    out.push_str(": ");
                    value.write_flow(out);
                });
                out.push('}');
            }
            Content::Alias => {}
        }
    }

    /// Writes it after `key:` or `-`, which are at this column; ends with a line feed.
    fn write_block(&self, column: usize, after_dash: bool, out: &mut String) {
        match &self.content {
            Content::Scalar {
                text,
                quoted: false,
            } => {
                out.push(' ');
                out.push_str(text);
                out.push('\n');
            }
            Content::Scalar { text, .. } if is_literal(text) => {
                out.push_str(" |\n");
                for line in text.lines() {
                    if !line.is_empty() {
                        out.push_str(&" ".repeat(column + 2));
                        out.push_str(line);
                    }
                    out.push('\n');
                }
            }
            Content::Mapping { entries, .. } if !entries.is_empty() => {
                let mut own = String::new();
                for (key, value) in entries {
                    write_entry(key, value, column + 2, &mut own);
                }
                match after_dash {
                    true => out.push_str(&own[column + 1..]),
                    false => {
                        out.push('\n');
                        out.push_str(&own);
                    }
                }
            }
            Content::Sequence { items, .. } if !items.is_empty() && !after_dash => {
                out.push('\n');
                for item in items {
                    write_item(item, column, out);
                }
            }
            _ => {
                out.push(' ');
                self.write_flow(out);
                out.push('\n');
            }
        }
    }
}

/// Reads all documents of a text. The error says where it is no YAML.
pub(super) fn parse(source: &str) -> Result<Vec<Document>, String> {
    let bytes: Vec<usize> = source
        .char_indices()
        .map(|(at, _)| at)
        .chain([source.len()])
        .collect();
    let mut builder = Builder {
        source,
        bytes,
        open: Vec::new(),
        aliased: HashSet::new(),
        documents: Vec::new(),
    };
    for event in Parser::new_from_str(source) {
        let (event, span) = event.map_err(|error| {
            format!("line {}: no YAML: {}", error.marker().line(), error.info())
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// Puts texts in; those for the same place in their order.
pub(super) fn apply(source: &str, mut insertions: Vec<Insertion>) -> String {
    insertions.sort_by_key(|insertion| insertion.at);
    let crlf = source.contains("\r\n");
    let mut result = String::with_capacity(source.len() + 4096);
    let mut done = 0;
    for Insertion { at, instead, text } in insertions {
        result.push_str(&source[done..at]);
        match crlf {
            true => result.push_str(&text.replace('\n', "\r\n")),
            false => result.push_str(&text),
        }
        done = at + instead;
    }
    result.push_str(&source[done..]);
    result
}

struct Builder<'a> {
    source: &'a str,
    /// Where each character begins; the library counts characters.
    bytes: Vec<usize>,
    /// The collections that have begun, each with a key that waits for its value.
    open: Vec<(Node, Option<Node>)>,
    aliased: HashSet<usize>,
    documents: Vec<Document>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let node = |content, anchor| Node {
            content,
            start: self.bytes[span.start.index()],
            line: span.start.line(),
            anchor,
        };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let content = Content::Scalar {
                    text: text.into_owned(),
                    quoted: style != ScalarStyle::Plain,
                };
                let node = node(content, anchor);
                self.put(node);
            }
            Event::Alias(anchor) => {
                let node = node(Content::Alias, 0);
                self.aliased.insert(anchor);
                self.put(node);
            }
            Event::SequenceStart(anchor, _) => {
                let (items, flow) = (Vec::new(), self.bracket(span, '['));
                let node = node(Content::Sequence { items, flow }, anchor);
                self.begin(node)?;
            }
            Event::MappingStart(anchor, _) => {
                let (entries, flow) = (Vec::new(), self.bracket(span, '{'));
                let node = node(Content::Mapping { entries, flow }, anchor);
                self.begin(node)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, _)) = self.open.pop() {
                    self.put(node);
                }
            }
            Event::DocumentEnd => {
                let aliased = std::mem::take(&mut self.aliased);
                if let Some(document) = self.documents.last_mut() {
                    document.aliased.extend(aliased);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, node: Node) -> Result<(), String> {
        if self.open.len() == DEPTH {
            return Err(format!("line {}: too deep", node.line));
        }
        self.open.push((node, None));
        Ok(())
    }

    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.documents.push(Document {
                root: node,
                aliased: HashSet::new(),
            }),
            Some((parent, waiting)) => match &mut parent.content {
                Content::Sequence { items, .. } => items.push(node),
                Content::Mapping { entries, .. } => match waiting.take() {
                    Some(key) => entries.push((key, node)),
                    None => *waiting = Some(node),
                },
                _ => {}
            },
        }
    }

    /// Where the bracket ends with which a collection begins. The span has an anchor and a tag before it, and what follows
    /// it up to the first thing inside.
    fn bracket(&self, span: Span, bracket: char) -> Option<usize> {
        let end = self.bytes[span.end.index()];
        let mut rest = &self.source[self.bytes[span.start.index()]..end];
        loop {
            rest = rest.trim_start();
            let skipped = match rest.chars().next()? {
                '&' | '!' => rest.find(char::is_whitespace)?,
                '#' => rest.find('\n')?,
                _ => break,
            };
            rest = &rest[skipped..];
        }
        let after = rest.strip_prefix(bracket)?;
        Some(end - after.len())
    }
}

fn in_brackets(at: usize, mut text: String, only: bool) -> Insertion {
    if !only {
        text.push_str(", ");
    }
    Insertion {
        at,
        instead: 0,
        text,
    }
}

/// Puts whole lines before what stands there, and before the comment that belongs to it; or between a dash and that.
fn before_place(source: &str, place: usize, mut text: String) -> Option<Insertion> {
    let start = line_start(source, place);
    let before = &source[start..place];
    if before.bytes().all(|byte| byte == b' ') {
        let at = above_comments(source, start, before);
        return Some(Insertion {
            at,
            instead: 0,
            text,
        });
    }
    if !before.bytes().all(|byte| matches!(byte, b' ' | b'-')) {
        return None;
    }
    let indent = " ".repeat(column(source, place));
    text.replace_range(..indent.len(), "");
    text.push_str(&indent);
    Some(Insertion {
        at: place,
        instead: 0,
        text,
    })
}

/// The start of the first of the comment lines right above, which are indented as what they are about.
fn above_comments(source: &str, mut start: usize, indent: &str) -> usize {
    while start > 0 {
        let above = line_start(source, start - 1);
        let line = &source[above..start];
        let Some('#') = line.strip_prefix(indent).and_then(|it| it.chars().next()) else {
            break;
        };
        start = above;
    }
    start
}

fn line_start(source: &str, at: usize) -> usize {
    source[..at].rfind('\n').map_or(0, |feed| feed + 1)
}

fn column(source: &str, at: usize) -> usize {
    source[line_start(source, at)..at].chars().count()
}

fn write_entry(key: &Node, value: &Node, column: usize, out: &mut String) {
    out.push_str(&" ".repeat(column));
    match &key.content {
        Content::Scalar {
            text,
            quoted: false,
        } => out.push_str(text),
        _ => key.write_flow(out),
    }
    out.push(':');
    value.write_block(column, false, out);
}

fn write_item(item: &Node, column: usize, out: &mut String) {
    out.push_str(&" ".repeat(column));
    out.push('-');
    item.write_block(column, true, out);
}

fn write_separated<T>(items: &[T], out: &mut String, mut write: impl FnMut(&T, &mut String)) {
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.push_str(", ");
        }
        write(item, out);
    }
}

/// Whether a string needs no quotes, anywhere and in any version of YAML.
fn is_plain(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let ambiguous = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf",
    ];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().enumerate().all(|(at, byte)| {
            let next = text.as_bytes().get(at + 1);
            word(byte) || (byte == b':' && next.is_some_and(|next| word(*next)))
        })
        && !ambiguous.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a string can be written as lines (`|`), and be read as the same.
fn is_literal(text: &str) -> bool {
    let is_printed = |c: char| {
        c == '\n' || !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
    };
    text.trim_end_matches('\n').len() + 1 == text.len()
        && !text.starts_with([' ', '\n'])
        && text.chars().all(is_printed)
}

/// Whether a plain scalar is no string.
fn is_number_or_word(text: &str) -> bool {
    text.parse::<i64>().is_ok() || ["true", "false", "null"].contains(&text)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Node {
        parse(text).unwrap().remove(0).root
    }

    /// `new: 1` before the entry of that number.
    fn with_entry(text: &str, path: &[&str], before: usize) -> Option<String> {
        let root = root(text);
        let one = Node::string("one");
        let insertion = root
            .at(path)
            .unwrap()
            .insert_entry(text, before, "new", &one);
        Some(apply(text, vec![insertion?]))
    }

    /// A new item before all others.
    fn with_item(text: &str, path: &[&str]) -> Option<String> {
        let new = [Node::mapping(vec![
            ("a", Node::string("1")),
            ("b", Node::sequence(vec![])),
        ])];
        let insertion = root(text).at(path).unwrap().insert_items(text, &new);
        Some(apply(text, vec![insertion?]))
    }

    #[test]
    fn a_key_goes_before_another_and_above_its_comment() {
        for (text, before, expected) in [
            ("a: 1\nb: 2\n", 0, "new: one\na: 1\nb: 2\n"),
            ("a: 1\nb: 2", 1, "a: 1\nnew: one\nb: 2"),
            (
                "a: 1\n# b\n# too\nb: 2\n",
                1,
                "a: 1\nnew: one\n# b\n# too\nb: 2\n",
            ),
            (
                "a: 1\n  # of a\n\n# b\nb: 2\n",
                1,
                "a: 1\n  # of a\n\nnew: one\n# b\nb: 2\n",
            ),
            (
                "a: |+\n  # text\n\nb: 2\n",
                1,
                "a: |+\n  # text\n\nnew: one\nb: 2\n",
            ),
            ("{a: 1}", 0, "{\"new\": \"one\", a: 1}"),
            ("{ }", 0, "{\"new\": \"one\" }"),
            (
                "!t &x { # c\n a: 1}\n",
                0,
                "!t &x {\"new\": \"one\",  # c\n a: 1}\n",
            ),
            (
                "\u{feff}é: 店\nb: 2\n",
                1,
                "\u{feff}é: 店\nnew: one\nb: 2\n",
            ),
        ] {
            let made = with_entry(text, &[], before);
            assert_eq!(made.as_deref(), Some(expected), "{text}");
            parse(expected).unwrap();
        }
    }

    #[test]
    fn a_key_goes_between_a_dash_and_the_first_key() {
        let text = "l:\n  -  name: x\n     b: 2\n";
        let expected = "l:\n  -  new: one\n     name: x\n     b: 2\n";
        assert_eq!(with_entry(text, &["l", "x"], 0).as_deref(), Some(expected));
    }

    #[test]
    fn items_go_before_the_first_at_its_indentation() {
        for (text, expected) in [
            ("l:\n- x\n", "l:\n- a: \"1\"\n  b: []\n- x\n"),
            (
                "l:\n    # of x\n    -   x\n",
                "l:\n    - a: \"1\"\n      b: []\n    # of x\n    -   x\n",
            ),
            (
                "l:\n  -\n    x\n",
                "l:\n  - a: \"1\"\n    b: []\n  -\n    x\n",
            ),
            (
                "l:\n- &x {c: 1}\n",
                "l:\n- a: \"1\"\n  b: []\n- &x {c: 1}\n",
            ),
            ("l: [x]", "l: [{\"a\": \"1\", \"b\": []}, x]"),
            ("l: []", "l: [{\"a\": \"1\", \"b\": []}]"),
        ] {
            assert_eq!(with_item(text, &["l"]).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_laid_out_too_unusually_is_left_alone() {
        assert_eq!(with_entry("? a\n: 1\n", &[], 0), None);
        assert_eq!(with_item("l:\n- # why\n  x\n", &["l"]), None);
        assert_eq!(with_item("l: x\n", &["l"]), None);
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let words = [
            "plain",
            "a b",
            "true",
            "No",
            "1",
            "0x1",
            "1.5",
            "-",
            "~",
            "",
            "a: b",
            "a#b",
            "#",
            "*a",
            "&a",
            "é",
            "\"'",
            "a\nb",
            "# a\n\n  b: 1 \n\u{5e97}\n",
            "a\n\n",
            " a\nb\n",
            "\na\n",
            "a\r\nb\n",
            "\n",
            "registry:5000/x@sha256:1",
            "/a/b.toml",
            "trailing:",
            "10m",
            "=",
            "y",
            "null",
            "{}",
            "- a",
            "2026-11-28",
        ];
        let list = Node::sequence(words.map(Node::string).to_vec());
        let mapping = Node::mapping(words.map(|word| (word, Node::string(word))).to_vec());
        let node = Node::mapping(vec![("l", list), ("m", mapping)]);
        let mut block = String::new();
        write_entry(&Node::string("top"), &node, 0, &mut block);
        let mut flow = "top: ".to_owned();
        node.write_flow(&mut flow);
        for text in [block, flow] {
            let read = root(&text);
            let items = read.at(&["top", "l"]).unwrap().items();
            let texts: Vec<_> = items.iter().map(|item| item.text().unwrap()).collect();
            assert_eq!(texts, words, "{text}");
            for (key, value) in read.at(&["top", "m"]).unwrap().entries() {
                assert_eq!(key.text(), value.text(), "{text}");
            }
            // To whoever knows more types than we do, all of it is text.
            let mut scalars = items.iter().chain(
                read.at(&["top", "m"])
                    .unwrap()
                    .entries()
                    .iter()
                    .map(|(_, it)| it),
            );
            assert!(scalars.all(|it| match &it.content {
                Content::Scalar { text, quoted } =>
                    *quoted || ["plain", "/a/b.toml"].contains(&text.as_str()),
                _ => false,
            }));
        }
    }

    #[test]
    fn no_text_makes_it_fall_over() {
        use proptest::prelude::*;
        let pieces = prop::sample::select(vec![
            "a", "é", ":", " ", "\n", "- ", "  ", "#", "{", "}", "[", "]", ",", "&x ", "*x", "|",
            ">", "\"", "'", "---\n", "? ", "!t ", "%", "\r\n", "\t", "<<: ", "\u{feff}",
        ]);
        let texts = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
        proptest!(|(text in texts)| {
            let Ok(documents) = parse(&text) else {
                return Ok(());
            };
            let mut open: Vec<&Node> = documents.iter().map(|document| &document.root).collect();
            while let Some(node) = open.pop() {
                let one = Node::string("one");
                for insertion in [
                    node.insert_entry(&text, 0, "new", &one),
                    node.insert_items(&text, std::slice::from_ref(&one)),
                ].into_iter().flatten() {
                    let made = apply(&text, vec![insertion]);
                    prop_assert!(made.contains("one"));
                }
                open.extend(node.items());
                open.extend(node.entries().iter().flat_map(|(key, value)| [key, value]));
            }
        });
    }
}
