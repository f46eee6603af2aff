//! JSON as a tree, and back.
//!
//! `serde_json` finds the values and their bounds; what is in them is read from their own text, so that numbers keep
//! their digits and a lone half of a surrogate pair, which WeChat's cutting of texts can leave, costs one character and
//! not the message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Flaw;
use super::node::{Count, Member, Members, Node};

const NO_JSON: Flaw = Flaw::Syntax("it is not JSON");

/// The document, if it is JSON. Control characters that stand in its strings as they are, which JSON forbids and WeChat
/// has been seen to send, are escaped; nothing else changes.
pub(super) fn text(document: &str) -> Result<Cow<'_, str>, Flaw> {
    let is_json = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok();
    if is_json(document) {
        return Ok(Cow::Borrowed(document));
    }
    if !document.bytes().any(|byte| byte < b' ') {
        return Err(NO_JSON);
    }
    let escaped = escape_controls(document);
    match is_json(&escaped) {
        true => Ok(Cow::Owned(escaped)),
        false => Err(NO_JSON),
    }
}

/// The fields of an object; none may stand twice at the top.
pub(super) fn parse(document: &str) -> Result<Members<'_>, Flaw> {
    if !document.starts_with('{') {
        return Err(Flaw::NotAnObject);
    }
    let members = object(document, 0, &mut Count::default())?;
    let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Flaw::duplicate(pair[0])),
        None => Ok(members),
    }
}

/// Writes an object.
pub(super) fn write(members: &[Member<'_>]) -> String {
    let mut text = String::new();
    write_object(members, &mut text);
    text
}

fn object<'a>(text: &'a str, depth: usize, count: &mut Count) -> Result<Members<'a>, Flaw> {
    let Fields(fields) = serde_json::from_str(text).map_err(|_| NO_JSON)?;
    let read = |(name, value): (Text<'a>, &'a RawValue)| {
        Ok((name.0, node(value.get(), depth + 1, count)?))
    };
    fields.into_iter().map(read).collect()
}

fn node<'a>(text: &'a str, depth: usize, count: &mut Count) -> Result<Node<'a>, Flaw> {
    count.add(depth)?;
    Ok(match text.as_bytes().first() {
        Some(b'{') => Node::Object(object(text, depth, count)?),
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| NO_JSON)?;
            let values = values.into_iter();
            let nodes = values.map(|value| node(value.get(), depth + 1, count));
            Node::Array(nodes.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Node::Text(
            serde_json::from_str::<Text<'_>>(text)
                .map_err(|_| NO_JSON)?
                .0,
        ),
        Some(b't') => Node::Word("true"),
        Some(b'f') => Node::Word("false"),
        Some(b'n') => Node::Word("null"),
        _ => Node::Number(Cow::Borrowed(text)),
    })
}

fn write_object(members: &[Member<'_>], out: &mut String) {
    out.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        write_node(value, out);
    }
    out.push('}');
}

fn write_node(node: &Node<'_>, out: &mut String) {
    match node {
        Node::Text(text) => write_text(text, out),
        Node::Number(digits) => out.push_str(digits),
        Node::Word(word) => out.push_str(word),
        Node::Object(members) => write_object(members, out),
        Node::Array(nodes) => {
            out.push('[');
            for (at, node) in nodes.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_node(node, out);
            }
            out.push(']');
        }
    }
}

/// Writes a string.
pub(super) fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a string is JSON"));
}

fn escape_controls(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len() + 64);
    let (mut in_string, mut after_backslash) = (false, false);
    for c in document.chars() {
        if in_string && c < ' ' {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
        in_string ^= c == '"' && !after_backslash;
        after_backslash = in_string && c == '\\' && !after_backslash;
    }
    escaped
}

/// A string, with U+FFFD for halves of surrogate pairs.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Text(String::from_utf8_lossy(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(
            String::from_utf8_lossy(bytes).into_owned(),
        )))
    }
}

/// An object's fields in their order, each as its own text.
struct Fields<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            if fields.len() > super::node::MAX_NODES {
                return Err(A::Error::custom("too many fields"));
            }
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}
