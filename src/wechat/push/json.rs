//! JSON as a tree, and back.
//!
//! `serde_json` finds the values and their bounds; what is in them is read from their own text, so that numbers keep
//! their digits and a lone half of a surrogate pair, which WeChat's cutting of texts can leave, costs one character and
//! not the message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
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
        if in_string && !after_backslash && c < ' ' {
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
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> Result<String, Flaw> {
        let document = text(document)?;
        parse(&document).map(|members| write(&members))
    }

    #[test]
    fn values_keep_their_text() {
        for document in [
            "{}",
            r#"{"a":1,"b":-0,"c":1.0,"d":1e400,"e":123456789012345678901234567890,"f":0.10}"#,
            r#"{"z":[true,false,null,[],{},""],"a":{"b":{"b":"x"}}}"#,
            r#"{"a":"\u0000\b\"\\"}"#,
        ] {
            assert_eq!(read(document).as_deref(), Ok(document));
        }
        assert_eq!(
            read(" { \"a\" : [ 1 , 2 ] } ".trim()).as_deref(),
            Ok(r#"{"a":[1,2]}"#)
        );
        assert_eq!(
            read(r#"{"\u4f60":"\/\u597d"}"#).as_deref(),
            Ok("{\"\u{4f60}\":\"/\u{597d}\"}")
        );
    }

    #[test]
    fn half_a_surrogate_pair_costs_a_character_and_not_the_message() {
        let read = read(r#"{"a":"x\ud83dy","\ude00":1}"#).unwrap();
        assert!(
            read.starts_with("{\"a\":\"x\u{fffd}") && read.contains("y\""),
            "{read}"
        );
    }

    #[test]
    fn control_characters_in_strings_are_escaped_and_no_others() {
        assert_eq!(
            text("{\n\"a\"\t:\"b\nc\u{1}\"}").as_deref(),
            Ok("{\n\"a\"\t:\"b\\u000ac\\u0001\"}")
        );
        assert_eq!(
            text("{\"a\\\"\n\":\"\\\\\",\n\"b\":1}").as_deref(),
            Ok("{\"a\\\"\\u000a\":\"\\\\\",\n\"b\":1}")
        );
        assert!(matches!(text("{\n\"a\":1}"), Ok(Cow::Borrowed(_))));
        for bad in [
            "{\"a\":1\0}",
            "{\"a\":\"\\\n\"}",
            "\n",
            "{\"a\":\n",
            "{\"a\":\"\n",
        ] {
            assert_eq!(text(bad), Err(NO_JSON), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_object_or_says_something_twice_is_refused() {
        for bad in [
            "",
            "{",
            "{}}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":NaN}",
            "{a:1}",
            "{} {}",
            "{\"a\":\"\\x\"}",
        ] {
            assert_eq!(read(bad), Err(NO_JSON), "{bad}");
        }
        for bad in ["[]", "1", "null", "\"{}\""] {
            assert_eq!(read(bad), Err(Flaw::NotAnObject), "{bad}");
        }
        for bad in [r#"{"a":1,"b":2,"a":1}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(read(bad), Err(Flaw::Duplicate("a".to_owned())), "{bad}");
        }
        assert!(
            read(r#"{"a":{"b":1,"b":2}}"#).is_ok(),
            "deeper ones are for the app to read"
        );
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let nested = |depth: usize| {
            read(&format!(
                "{{\"a\":{}{}}}",
                "[".repeat(depth),
                "]".repeat(depth)
            ))
        };
        assert!(nested(32).is_ok());
        assert_eq!(nested(33), Err(Flaw::Depth));
        assert_eq!(nested(300_000), Err(Flaw::Depth));
        let objects = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
        assert_eq!(read(&objects), Err(Flaw::Depth));
        let many = |count: usize| read(&format!("{{\"a\":[{}1]}}", "1,".repeat(count)));
        assert!(many(19_000).is_ok());
        assert_eq!(many(20_001), Err(Flaw::Size));
        let fields: String = (0..20_001).map(|at| format!("\"{at}\":1,")).collect();
        assert_eq!(read(&format!("{{{fields}\"a\":1}}")), Err(Flaw::Size));
    }
}
