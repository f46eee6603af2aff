//! The document of a push, and its two spellings.
//!
//! WeChat's two formats do not say the same thing in two ways: what is a number in one event is a text in another, a list
//! of one is an object in JSON, and in XML the lists of subscription events lie in one more element. So a document is
//! kept as fields in their order, and each spelling is written here by hand, as WeChat spells it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::sim) enum Field {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
    Null,
    Object(Fields),
    List(Vec<Field>),
}

/// Fields in their order; the same name may come again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::sim) struct Fields(pub(in crate::sim) Vec<(String, Field)>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&Field> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, field)| field)
    }

    /// Puts a field in place of the one of that name, or behind the others.
    pub(super) fn set(&mut self, name: &str, field: Field) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = field,
            None => self.0.push((name.to_owned(), field)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Field::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers serialise")
    }

    /// As XML, in the element that WeChat puts around every document.
    pub(super) fn xml(&self) -> String {
        let mut xml = String::from("<xml>");
        write_elements(&mut xml, self);
        xml.push_str("</xml>");
        xml
    }
}

fn write_elements(xml: &mut String, fields: &Fields) {
    for (name, field) in &fields.0 {
        match field {
            // A list has no element of its own.
            Field::List(items) => items.iter().for_each(|item| write_element(xml, name, item)),
            _ => write_element(xml, name, field),
        }
    }
}

fn write_element(xml: &mut String, name: &str, field: &Field) {
    xml.extend(["<", name, ">"]);
    match field {
        Field::Text(text) => write_cdata(xml, text),
        Field::Number(number) => xml.push_str(&number.to_string()),
        Field::Bool(value) => xml.push_str(if *value { "true" } else { "false" }),
        Field::Null => {}
        Field::Object(fields) => write_elements(xml, fields),
        // A list in a list has no spelling that a receiver could know.
        Field::List(items) => items
            .iter()
            .for_each(|item| write_element(xml, "item", item)),
    }
    xml.extend(["</", name, ">"]);
}

/// A text in CDATA: `]]>` in it is cut in two sections, and what XML has no character for becomes U+FFFD.
fn write_cdata(xml: &mut String, text: &str) {
    let text = text.replace("]]>", "]]]]><![CDATA[>");
    xml.push_str("<![CDATA[");
    xml.extend(text.chars().map(|c| match c {
        '\t' | '\n' | '\r' => c,
        '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c => c,
    }));
    xml.push_str("]]>");
}

/// Whether a name can be an element's.
pub(in crate::sim) fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads a document of elements, texts and CDATA: of replies, which have no attributes. Numbers are texts here. `None` if
/// it is malformed, or nested deeper than any reply is.
pub(super) fn read_xml(text: &str) -> Option<Fields> {
    let mut reader = XmlReader { rest: text.trim() };
    let name = reader.opening()?;
    let Field::Object(fields) = reader.content(name, 0)? else {
        return None;
    };
    (name == "xml" && reader.rest.is_empty()).then_some(fields)
}

const DEEPEST: usize = 16;

struct XmlReader<'a> {
    rest: &'a str,
}

impl<'a> XmlReader<'a> {
    /// The name in an opening tag.
    fn opening(&mut self) -> Option<&'a str> {
        let (name, rest) = self.rest.strip_prefix('<')?.split_once('>')?;
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        self.rest = rest;
        Some(name)
    }

    /// What stands until the closing tag, which is taken too.
    fn content(&mut self, name: &str, depth: usize) -> Option<Field> {
        let (mut text, mut fields) = (String::new(), Fields::default());
        loop {
            let (before, rest) = self.rest.split_at(self.rest.find('<')?);
            text.push_str(&unescaped(before)?);
            self.rest = rest;
            if let Some(rest) = rest.strip_prefix("<![CDATA[") {
                let (section, rest) = rest.split_once("]]>")?;
                text.push_str(section);
                self.rest = rest;
            } else if let Some(rest) = rest.strip_prefix("</") {
                self.rest = rest.strip_prefix(name)?.trim_start().strip_prefix('>')?;
                let is_text = fields.0.is_empty() && !(depth == 0 && text.trim().is_empty());
                return match is_text {
                    true => Some(Field::Text(text)),
                    false => text.trim().is_empty().then_some(Field::Object(fields)),
                };
            } else {
                let child = self.opening()?;
                let deeper = Some(depth + 1).filter(|depth| *depth < DEEPEST)?;
                let content = self.content(child, deeper)?;
                fields.0.push((child.to_owned(), content));
            }
        }
    }
}

fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('&') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';')?;
        plain.push_str(before);
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let number = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
        });
        rest = after;
    }
    plain.push_str(rest);
    Some(Cow::Owned(plain))
}

impl From<Value> for Field {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                let fields = members
                    .into_iter()
                    .map(|(name, value)| (name, value.into()));
                Self::Object(Fields(fields.collect()))
            }
        }
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => number.serialize(serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Null => serializer.serialize_unit(),
            Self::Object(fields) => fields.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Field::deserialize(deserializer)? {
            Field::Object(fields) => Ok(fields),
            _ => Err(serde::de::Error::custom("an object is expected")),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyField)
    }
}

/// Keeps the members of objects in their order, which `Value` does not.
struct AnyField;

impl<'de> Visitor<'de> for AnyField {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Field, E> {
        Ok(Field::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
        Ok(serde_json::Number::from_f64(number).map_or(Field::Null, Field::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Field::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Field, A::Error> {
        let mut fields = Vec::new();
        while let Some(member) = members.next_entry()? {
            fields.push(member);
        }
        Ok(Field::Object(Fields(fields)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(json: &str) -> Fields {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn json_keeps_the_order_and_every_digit() {
        let json = r#"{"b":18446744073709551615,"a":{"d":-1,"c":[1,"x",null,true]}}"#;
        assert_eq!(fields(json).json(), json);
    }

    #[test]
    fn xml_has_texts_in_cdata_and_numbers_bare() {
        let json = r#"{"b":18446744073709551615,"a":{"d":-1,"c":["x","y"]},"e":"","f":"1"}"#;
        assert_eq!(
            fields(json).xml(),
            "<xml><b>18446744073709551615</b><a><d>-1</d><c><![CDATA[x]]></c><c><![CDATA[y]]></c></a>\
             <e><![CDATA[]]></e><f><![CDATA[1]]></f></xml>"
        );
    }

    #[test]
    fn the_end_of_cdata_in_a_text_is_cut_in_two() {
        let mut xml = String::new();
        write_cdata(&mut xml, "a]]>b]]]>\0");
        assert_eq!(xml, "<![CDATA[a]]]]><![CDATA[>b]]]]]><![CDATA[>\u{fffd}]]>");
    }

    #[test]
    fn a_reply_in_xml_is_read_with_cdata_entities_and_children() {
        let read = read_xml(
            "<xml>\n<a><![CDATA[<x>]]> &amp;&#65;&#x42;</a>\n<b>1</b><c><d>2</d></c><e></e></xml>\n",
        );
        let read = read.unwrap();
        assert_eq!(read.text("a"), Some("<x> &AB"));
        assert_eq!(read.text("b"), Some("1"));
        assert_eq!(read.text("e"), Some(""));
        assert!(matches!(read.get("c"), Some(Field::Object(c)) if c.text("d") == Some("2")));
        for malformed in [
            "",
            "<xml>",
            "<a></a>",
            "<xml>text</xml>",
            "<xml><a></b></xml>",
            "<xml><a>&x;</a></xml>",
            "<xml></xml><xml></xml>",
            "<!DOCTYPE x><xml></xml>",
            "<xml a='b'></xml>",
            &format!("<xml>{}{}</xml>", "<a>".repeat(20), "</a>".repeat(20)),
        ] {
            assert_eq!(read_xml(malformed), None, "{malformed}");
        }
        assert_eq!(read_xml("<xml></xml>"), Some(Fields::default()));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_from_xml(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,20}|[\\]>x]{0,9}") {
            let written = Fields(vec![("a".to_owned(), Field::Text(text))]);
            prop_assert_eq!(read_xml(&written.xml()), Some(written));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "(<xml>|</xml>|<a>|</a>|<!\\[CDATA\\[|\\]\\]>|&|;|.){0,12}") {
            read_xml(&text);
        }
    }
}
