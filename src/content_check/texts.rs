//! The texts of a request that are to be checked, wherever an app may find them.
//!
//! Whoever wants to evade a check makes a body that is read in one way here and in another by the app. So what counts as
//! the same name is wide (Go and .NET fold case, PHP makes `_` of `.`), a name that could be read twice is refused, and what
//! is text in any reading is checked. That costs a question to WeChat at worst.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::pieces::{self, Piece};
use crate::error::Sentence;
use crate::wechat::content_check::LONGEST_TEXT;
use crate::wire::form::url_decoded;

/// How many bytes of text are kept at most: all that can become pieces.
const MOST_BYTES: usize = pieces::MOST * LONGEST_TEXT * 4;
/// How many pairs a form or a query may have, which is PHP's limit.
const MOST_PAIRS: usize = 1000;
/// How much of a form field's name is looked at. No app puts more of them into one another.
const LONGEST_NAME: usize = 2 * 1024;
/// The longest number that is the place of an element and no text.
const LONGEST_INDEX: usize = 4;

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Sentence);

/// The texts of some fields.
pub(crate) struct Texts<'c> {
    fields: Vec<Field<'c>>,
    bytes: usize,
    too_long: bool,
}

struct Field<'c> {
    /// As it was configured.
    name: &'c str,
    /// Folded.
    path: String,
    /// What PHP makes of it.
    flat: String,
    /// What was found, line by line.
    text: String,
    seen: HashSet<String>,
}

impl<'c> Texts<'c> {
    /// None yet, of fields that are called so.
    pub(crate) fn of(fields: &'c [String]) -> Self {
        let field = |name: &'c String| {
            let path = folded(&segments(name));
            Field {
                name,
                flat: path.replace('.', "_"),
                path,
                text: String::new(),
                seen: HashSet::new(),
            }
        };
        Self {
            fields: fields.iter().map(field).collect(),
            bytes: 0,
            too_long: false,
        }
    }

    /// Adds the texts of a JSON document.
    pub(crate) fn json(&mut self, document: &[u8]) -> Result<(), Refused> {
        let paths: Vec<String> = self.fields.iter().map(|field| field.path.clone()).collect();
        let ways = (0..).zip(&paths);
        let ways: Vec<Way<'_>> = ways.map(|(field, rest)| Way { field, rest }).collect();
        self.walk(document, &ways)
    }

    fn walk(&mut self, document: &[u8], ways: &[Way<'_>]) -> Result<(), Refused> {
        let is_none = (
            "what should be JSON is none, not in UTF-8, or nests deeper than 128 levels",
            "应为 JSON 的内容不是 JSON、不是 UTF-8，或嵌套超过 128 层",
        );
        if str::from_utf8(document).is_err() {
            return Err(Refused(is_none.into()));
        }
        let mut refused = None;
        let walk = Walk {
            texts: self,
            refused: &mut refused,
            ways,
        };
        let mut document = serde_json::Deserializer::from_slice(document);
        let walked = walk.deserialize(&mut document);
        match (walked.and_then(|()| document.end()), refused) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(refused)) => Err(refused),
            (Err(_), None) => Err(Refused(is_none.into())),
        }
    }

    /// Adds the texts of `application/x-www-form-urlencoded`. JSON that is only called a form is read as what it is, too.
    pub(crate) fn form(&mut self, body: &[u8]) -> Result<(), Refused> {
        if begins_as_json(body) {
            self.json(body)?;
        }
        self.query(body)
    }

    /// Adds the texts of a query, which some apps do not tell from a form.
    pub(crate) fn query(&mut self, query: &[u8]) -> Result<(), Refused> {
        // Some end a pair at a semicolon, too.
        let pairs = query.split(|b| *b == b'&').flat_map(|pair| {
            let parts = pair.split(|b| *b == b';').skip(1);
            std::iter::once(pair).chain(parts)
        });
        for (count, pair) in pairs.filter(|pair| !pair.is_empty()).enumerate() {
            if count == MOST_PAIRS {
                let told = (
                    format!("a form or a query has {MOST_PAIRS} pairs at the most"),
                    format!("表单或查询串最多 {MOST_PAIRS} 个键值对"),
                );
                return Err(Refused(told.into()));
            }
            self.pair(pair)?;
        }
        Ok(())
    }

    /// Adds a field of a form, decoded.
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) -> Result<(), Refused> {
        if name.eq_ignore_ascii_case("_charset_") && !value.eq_ignore_ascii_case(b"utf-8") {
            return Err(Refused(
                (
                    "a form with a text that is checked must be UTF-8",
                    "含待检测文本的表单须为 UTF-8",
                )
                    .into(),
            ));
        }
        let spelled = Spelled::of(name);
        let mut ways = Vec::new();
        for index in 0..self.fields.len() {
            let field = &self.fields[index];
            if spelled.is(field) {
                let Ok(text) = str::from_utf8(value) else {
                    let name = &field.name;
                    let told = (
                        format!("`{name}` is not UTF-8"),
                        format!("`{name}` 不是 UTF-8"),
                    );
                    return Err(Refused(told.into()));
                };
                for name in spelled.below(field) {
                    self.add(index, name);
                }
                self.add(index, text);
            } else if let Some(rest) = spelled.leads_to(field) {
                ways.push((index, rest.to_owned()));
            }
        }
        if ways.is_empty() || !begins_as_json(value) {
            return Ok(());
        }
        let ways = ways.iter().map(|(field, rest)| Way {
            field: *field,
            rest,
        });
        self.walk(value, &Vec::from_iter(ways))
    }

    /// Whether a field of a form is one that is checked, so that it must not come in another way than as text.
    pub(crate) fn has(&self, name: &str) -> bool {
        let spelled = Spelled::of(name);
        let concerns = |field| spelled.is(field) || spelled.leads_to(field).is_some();
        self.fields.iter().any(concerns)
    }

    /// What WeChat is to be asked about; `None` if it is too much.
    pub(super) fn pieces(&self) -> Option<Vec<Piece<'_>>> {
        if self.too_long {
            return None;
        }
        pieces::cut(
            self.fields
                .iter()
                .map(|field| (field.name, field.text.as_str())),
        )
    }

    fn pair(&mut self, pair: &[u8]) -> Result<(), Refused> {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = (&pair[..end], pair.get(end + 1..).unwrap_or_default());
        let decoded = url_decoded(name);
        let decoded = String::from_utf8_lossy(&decoded);
        if has_wide_escape(name) || has_wide_escape(value) && self.has(&decoded) {
            let told = (
                "`%u` with four digits is no escape of a form or a query; write UTF-8 as `%E4%BD%A0`",
                "表单和查询串中不能使用 `%u` 加四位数字的转义；UTF-8 应写作 `%E4%BD%A0`",
            );
            return Err(Refused(told.into()));
        }
        self.field(&decoded, &url_decoded(value))
    }

    /// Control characters go: they only keep words apart, or WeChat from reading.
    fn add(&mut self, field: usize, text: &str) {
        let field = &mut self.fields[field];
        if self.too_long || field.seen.contains(text) {
            return;
        }
        self.bytes += text.len();
        if self.bytes > MOST_BYTES {
            self.too_long = true;
            return;
        }
        if !field.text.is_empty() {
            field.text.push('\n');
        }
        let is_text = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        field.text.extend(text.chars().filter(is_text));
        field.seen.insert(text.to_owned());
    }
}

/// A form field's name, in the ways that apps read it.
struct Spelled<'n> {
    name: &'n str,
    /// `a[b][0]`, `a[b][]` and `a.b` are all `a.b`. Spring takes `!a` and `_a` for what `a` is when there is none.
    paths: [String; 2],
    /// PHP's, of the whole and of what stands before a bracket.
    flat: [[String; 2]; 2],
}

impl<'n> Spelled<'n> {
    fn of(name: &'n str) -> Self {
        let name = name.split('\0').next().unwrap_or_default().trim();
        let name = &name[..name.floor_char_boundary(LONGEST_NAME)];
        let readings = [name, name.trim_start_matches(['!', '_'])];
        let flat = |name: &str| folded(&name.replace(['.', ' ', '['], "_"));
        Self {
            name,
            paths: readings.map(|name| folded(&segments(name))),
            flat: [
                readings.map(flat),
                readings.map(|name| flat(name.split('[').next().unwrap_or_default())),
            ],
        }
    }

    fn is(&self, field: &Field<'_>) -> bool {
        self.is_in(field) || self.flat.as_flattened().contains(&field.flat)
    }

    /// Whether its path is the field's, or goes on from there.
    fn is_in(&self, field: &Field<'_>) -> bool {
        let is_in = |path: &String| {
            let below = path.strip_prefix(&field.path);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.paths.iter().any(is_in)
    }

    /// What is left of a field's path behind this one, which may hold JSON.
    fn leads_to<'f>(&self, field: &'f Field<'_>) -> Option<&'f str> {
        let behind = |path: &String| field.path.strip_prefix(path)?.strip_prefix('.');
        let paths = self.paths.iter().filter(|path| !path.is_empty());
        paths.filter_map(behind).next()
    }

    /// The names that a field has below it, which the app may show as it shows the text.
    fn below(&self, field: &Field<'_>) -> Vec<&'n str> {
        let (rest, mut own) = if self.is_in(field) {
            (self.name, field.path.split('.').count())
        } else if self.flat[0].contains(&field.flat) {
            ("", 0)
        } else {
            let behind = self.name.split_once('[');
            (behind.map_or("", |(_, rest)| rest), 0)
        };
        let is_below = |name: &&str| {
            if own == 0 {
                return !is_index(name);
            }
            own -= usize::from(!is_number(name));
            false
        };
        names(rest).filter(is_below).collect()
    }
}

/// The names in a path, with dots between them, without the numbers of elements.
fn segments(name: &str) -> String {
    let parts: Vec<&str> = names(name).filter(|name| !is_number(name)).collect();
    parts.join(".")
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|name| !name.is_empty())
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a name is but the place of an element.
fn is_index(name: &str) -> bool {
    name.len() <= LONGEST_INDEX && is_number(name)
}

/// A name without its case, as the most lenient readers compare: to Go, `ſ` is an `s`.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.map(|c| if c == 'ſ' { 's' } else { c }).collect()
}

/// Whether a value is meant to be an object or an array, whatever it is called. Whether it is one is for the app to say,
/// which may take more for JSON than we do.
fn begins_as_json(value: &[u8]) -> bool {
    let mut rest = value;
    while let [0..=b' ', behind @ ..] | [0xef, 0xbb, 0xbf, behind @ ..] = rest {
        rest = behind;
    }
    matches!(rest.first(), Some(b'{' | b'['))
}

/// Whether there is a `%u4f60` in a form, as JavaScript's old `escape` writes it and .NET reads it.
fn has_wide_escape(text: &[u8]) -> bool {
    text.windows(6).any(|it| {
        let (mark, digits) = it.split_at(2);
        mark.eq_ignore_ascii_case(b"%u") && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

/// What is left of a field's path at some place of a document; nothing if the place is the field, or in it.
#[derive(Clone, Copy)]
struct Way<'p> {
    field: usize,
    rest: &'p str,
}

/// A walk along the ways, through a document that is read but once.
struct Walk<'w, 'c> {
    texts: &'w mut Texts<'c>,
    refused: &'w mut Option<Refused>,
    ways: &'w [Way<'w>],
}

impl<'p> Way<'p> {
    /// What is left behind a member. A name may itself have a dot in it, and none is left of a number: an object with
    /// numbers for names is a list to PHP and JavaScript.
    fn behind(self, name: &str) -> Option<Self> {
        if name.is_empty() || self.rest.is_empty() {
            return Some(self);
        }
        let rest = self.rest.strip_prefix(name)?;
        match rest.strip_prefix('.') {
            Some(rest) => Some(Self { rest, ..self }),
            None => rest.is_empty().then_some(Self { rest, ..self }),
        }
    }
}

impl Walk<'_, '_> {
    /// Adds what stands here to the fields that this is in.
    fn add(&mut self, text: &str) {
        for way in self.ways.iter().filter(|way| way.rest.is_empty()) {
            self.texts.add(way.field, text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.ways {
            [] => value.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.add(&number.to_string());
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.add(&number.to_string());
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.add(&number.to_string());
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.add(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        loop {
            let walk = Walk {
                texts: &mut *self.texts,
                refused: &mut *self.refused,
                ways: self.ways,
            };
            if elements.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let mut passed: HashSet<String> = HashSet::new();
        while let Some(spelled) = members.next_key::<String>()? {
            if !is_index(&spelled) {
                self.add(&spelled);
            }
            let name = folded(&segments(&spelled));
            let ways: Vec<Way<'_>> = self
                .ways
                .iter()
                .filter_map(|way| way.behind(&name))
                .collect();
            let leads_on = |way: &Way<'_>| !way.rest.is_empty() && way.behind(&name).is_some();
            let is_on_the_way = !name.is_empty() && self.ways.iter().any(leads_on);
            if is_on_the_way && !passed.insert(folded(&spelled)) {
                let told = (
                    "a member on the way to a text that is checked stands twice",
                    "通往待检测文本的路径上有重复的字段",
                );
                *self.refused = Some(Refused(told.into()));
                return Err(A::Error::custom(""));
            }
            let walk = Walk {
                texts: &mut *self.texts,
                refused: &mut *self.refused,
                ways: &ways,
            };
            members.next_value_seed(walk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Language;

    fn told(refused: &Refused) -> &str {
        refused.0.told(Language::English)
    }

    fn fields(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What is found in a document, as `field: text`.
    fn found(
        names: &[&str],
        read: impl FnOnce(&mut Texts<'_>) -> Result<(), Refused>,
    ) -> Result<Vec<String>, Refused> {
        let names = fields(names);
        let mut texts = Texts::of(&names);
        read(&mut texts)?;
        let pieces = texts.pieces().expect("it is not too much");
        let told = pieces
            .iter()
            .map(|piece| format!("{}: {}", piece.field, piece.text));
        Ok(told.collect())
    }

    fn in_json(names: &[&str], document: &str) -> Result<Vec<String>, Refused> {
        found(names, |texts| texts.json(document.as_bytes()))
    }

    fn in_form(names: &[&str], body: &[u8]) -> Result<Vec<String>, Refused> {
        found(names, |texts| texts.form(body))
    }

    #[test]
    fn the_texts_of_a_field_are_found_wherever_they_stand_in_it() {
        for (field, document, text) in [
            ("content", r#"{"a":"x","content":"你好"}"#, "content: 你好"),
            (
                "content",
                r#"[{"content":"x"},{"content":"y"}]"#,
                "content: x\ny",
            ),
            (
                "content",
                r#"{"content":["x",["y",{"z":"w"}],1,null,true,-2.5]}"#,
                "content: x\ny\nz\nw\n1\n-2.5",
            ),
            (
                "post.title",
                r#"{"post":{"title":"x","body":"n"}}"#,
                "post.title: x",
            ),
            (
                "post.title",
                r#"{"post":[[{"title":["x"]}],{"title":"y"}]}"#,
                "post.title: x\ny",
            ),
            (
                "post.title",
                r#"{"post.title":"x","post":"n","title":"n"}"#,
                "post.title: x",
            ),
            (
                "content",
                r#"{"\u0063ontent":"\u4f60\u0000\n\u597d"}"#,
                "content: 你\n好",
            ),
            (
                "content",
                r#"{"CONTENT":"x","a":{"content":"n"}}"#,
                "content: x",
            ),
            ("class", r#"{"cla\u017f\u017f":"x"}"#, "class: x"),
            ("content", r#"{"content":["x","x","y"]}"#, "content: x\ny"),
            (
                "content",
                r#"{"content":{"a":"x","a":"y"}}"#,
                "content: a\nx\ny",
            ),
            (
                "content",
                r#"{"content":13800138000}"#,
                "content: 13800138000",
            ),
            (
                "content",
                r#"{"content":{"Bad":1,"0":2,"13800138000":[]}}"#,
                "content: Bad\n1\n2\n13800138000",
            ),
            (
                "post.title",
                r#"{"post":{"0":{"title":"x"},"1":{"title":{"2":"y"}}}}"#,
                "post.title: x\ny",
            ),
            (
                "post.title",
                r#"{"7":{"post":{"title":"x"}},"8":{"post":{"title":"y"}}}"#,
                "post.title: x\ny",
            ),
            (
                "post.title",
                r#"{"post.0.title":"x","post[title]":"y"}"#,
                "post.title: x\ny",
            ),
        ] {
            assert_eq!(in_json(&[field], document).unwrap(), [text], "{document}");
        }
    }

    #[test]
    fn a_document_without_the_field_has_no_texts() {
        for document in [
            "{}",
            "[]",
            "7",
            "null",
            "\"x\"",
            r#"{"content":{}}"#,
            r#"{"content":{"0":[]}}"#,
            r#"{"contents":"x"}"#,
            r#"{"a":{"content":"x"}}"#,
            r#"{"content":" \t\u3000\u0000"}"#,
        ] {
            assert_eq!(
                in_json(&["content"], document).unwrap(),
                [""; 0],
                "{document}"
            );
        }
        assert_eq!(
            in_json(&["post.title"], r#"{"post":"x"}"#).unwrap(),
            [""; 0]
        );
    }

    #[test]
    fn a_member_on_the_way_that_stands_twice_is_refused() {
        for document in [
            r#"{"post":{"title":"x"},"post":{"title":"y"}}"#,
            r#"{"post":{"title":"x","title":"x"}}"#,
            r#"{"post":{"title":"x","t\u0069tle":"y"}}"#,
            r#"{"post":{"title":"x","TITLE":"y"}}"#,
            r#"{"post":1,"post":2}"#,
            r#"{"0":{"post":1,"post":2}}"#,
        ] {
            let refused = in_json(&["post.title"], document).unwrap_err();
            assert!(told(&refused).contains("twice"), "{document}: {refused:?}");
        }
        assert!(in_json(&["content"], r#"{"a":1,"a":2,"content":"x"}"#).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let deep = format!(r#"{{"content":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for document in [
            "",
            "{",
            r#"{"content":"x"} {}"#,
            r#"{"content":'x'}"#,
            r#"{"content":"\ud800"}"#,
            r#"{"content":NaN}"#,
            "\u{feff}{}",
            &deep,
        ] {
            assert!(in_json(&["content"], document).is_err(), "{document:.40}");
        }
        let names = fields(&["content"]);
        for document in [
            &b"{\"content\":\"\xc4\xe3\"}"[..],
            b"{\"a\":\"\xff\"}",
            b"{\0\"\0a\0",
        ] {
            assert!(Texts::of(&names).json(document).is_err());
        }
    }

    #[test]
    fn a_forms_fields_are_found_however_they_are_spelled() {
        for (field, body, text) in [
            (
                "content",
                "a=1&content=%E4%BD%A0+%e5%a5%bd",
                "content: 你 好",
            ),
            ("content", "content=x&content=y", "content: x\ny"),
            (
                "content",
                "content[]=x&content%5B%5D=y&content[a][b]=z&content[0]=w",
                "content: x\ny\na\nb\nz\nw",
            ),
            ("content", "content[Bad]=1", "content: Bad\n1"),
            (
                "content",
                "content.0[13800138000]=1",
                "content: 13800138000\n1",
            ),
            ("post.title", "post_title[Bad]=1", "post.title: Bad\n1"),
            ("post.title", "post[0][title][Bad]=1", "post.title: Bad\n1"),
            ("content", "!content=x&_content=y", "content: x\ny"),
            (
                "post.title",
                "!post.title=x&_post[title]=y",
                "post.title: x\ny",
            ),
            ("_content", "_content=x&content=n", "_content: x"),
            ("content", "c%6Fntent=x", "content: x"),
            ("content", "Content=x", "content: x"),
            ("content", "+content=x", "content: x"),
            ("content", "content%00a=x", "content: x"),
            ("content", "a=1;content=x", "content: x"),
            (
                "post.title",
                "post[title]=x&post.title=y&post[0].title=z&post_title=w",
                "post.title: x\ny\nz\nw",
            ),
            (
                "post_title",
                "post.title=x&post+title=y&post[title=z",
                "post_title: x\ny\nz",
            ),
            ("content", r#"{"content":"x"}"#, "content: x"),
            ("content", "content=a=b&&=&", "content: a=b"),
        ] {
            assert_eq!(
                in_form(&[field], body.as_bytes()).unwrap(),
                [text],
                "{body}"
            );
        }
        for body in [
            "",
            "&",
            "contents=x",
            "title=x",
            "content",
            "content=",
            "content=+",
            "con tent=x",
        ] {
            assert_eq!(
                in_form(&["content"], body.as_bytes()).unwrap(),
                [""; 0],
                "{body}"
            );
        }
    }

    #[test]
    fn a_form_that_another_character_set_would_read_is_refused() {
        assert!(in_form(&["content"], b"content=%C4%E3").is_err());
        assert!(in_form(&["content"], b"content=\xc4\xe3").is_err());
        assert!(in_form(&["content"], br#"{"content":"x","content":"y"}"#).is_err());
        assert_eq!(in_form(&["content"], b"other=%C4%E3").unwrap(), [""; 0]);
    }

    #[test]
    fn a_part_of_a_form_may_hold_json() {
        for (body, text) in [
            (r#"post={"title":"x","body":"n"}"#, "post.title: x"),
            ("post=%5B%7B%22title%22:%22x%22%7D%5D", "post.title: x"),
        ] {
            assert_eq!(in_form(&["post.title"], body.as_bytes()).unwrap(), [text]);
        }
    }

    #[test]
    fn what_only_begins_as_json_may_be_json_to_the_app() {
        let deep = format!(r#"{{"title":{}"x"{}}}"#, "[".repeat(200), "]".repeat(200));
        for document in [
            r#"{"title":"x""#,
            r#"{"title":"x","title":"y"}"#,
            r#"{"title":"x","a":NaN}"#,
            r#"{"title":"\ud800x"}"#,
            "\u{feff}{\"title\":\"x\"}",
            " \n\u{feff} [{\"title\":\"x\"},]",
            "[{\"title\":\"x\"}] //",
            &deep,
        ] {
            let field = found(&["post.title"], |texts| {
                texts.field("post", document.as_bytes())
            });
            assert!(field.is_err(), "{document:.60}");
            let form = in_form(&["title"], document.as_bytes());
            assert!(form.is_err(), "{document:.60}");
        }
        let of_others = found(&["post.title"], |texts| {
            texts.field("note", b"{not JSON")?;
            texts.field("post", b"not { JSON")
        });
        assert_eq!(of_others.unwrap(), [""; 0]);
    }

    #[test]
    fn pairs_are_counted_and_those_that_say_nothing_are_not() {
        let many =
            |count: usize, end: &str| format!("{}content=x", format!("a{end}").repeat(count));
        for end in ["&", ";", "=1&", "=1;"] {
            let most = MOST_PAIRS - 2;
            let found = in_form(&["content"], many(most, end).as_bytes());
            assert_eq!(found.unwrap(), ["content: x"], "{end}");
            let refused = in_form(&["content"], many(MOST_PAIRS, end).as_bytes());
            assert!(told(&refused.unwrap_err()).contains("1000 pairs"), "{end}");
        }
        let empty = format!("{}content=x", "&;".repeat(100_000));
        assert!(in_form(&["content"], empty.as_bytes()).is_err());
        let empty = format!("{}content=x", "&".repeat(100_000));
        let found = in_form(&["content"], empty.as_bytes());
        assert_eq!(found.unwrap(), ["content: x"]);
    }

    #[test]
    fn a_name_may_be_of_any_length() {
        let long = format!("content[{}]=x", "猫".repeat(1_000_000));
        let names = fields(&["content"]);
        let mut texts = Texts::of(&names);
        texts.form(long.as_bytes()).unwrap();
        assert!(texts.fields[0].text.ends_with("\nx"));
        assert!(texts.fields[0].text.len() <= LONGEST_NAME + 2);
    }

    #[test]
    fn an_escape_that_only_some_read_is_refused() {
        for body in [
            "content=%u005Brisky]",
            "a=1&%u0063ontent=x",
            "a=1;content=%U4f60",
        ] {
            assert!(in_form(&["content"], body.as_bytes()).is_err(), "{body}");
        }
        for body in [
            "content=x&note=%u4f60",
            "content=x%u4f6",
            "content=x%25u4f60",
        ] {
            assert!(in_form(&["content"], body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn a_form_must_not_say_that_it_is_in_another_character_set() {
        assert!(in_form(&["content"], b"_charset_=gbk&content=x").is_err());
        assert!(in_form(&["content"], b"_charset_=UTF-8&content=x").is_ok());
    }

    #[test]
    fn each_text_has_its_own_field() {
        let document = r#"{"title":"x","content":"y","note":"x"}"#;
        let found = in_json(&["content", "title", "note"], document).unwrap();
        assert_eq!(found, ["content: y", "title: x"]);
    }

    #[test]
    fn more_than_can_be_asked_about_is_too_much_and_not_kept() {
        let names = fields(&["content"]);
        let mut texts = Texts::of(&names);
        let numbers: Vec<String> = (0..100_000).map(|i| format!("\"{i}\"")).collect();
        texts
            .json(format!(r#"{{"content":[{}]}}"#, numbers.join(",")).as_bytes())
            .unwrap();
        assert_eq!(texts.pieces(), None);
        assert!(texts.fields[0].text.len() <= 2 * MOST_BYTES);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let names = fields(&["content", "a.b"]);
            let mut texts = Texts::of(&names);
            let _ = texts.json(&body);
            let _ = texts.form(&body);
        }

        #[test]
        fn a_text_is_found_at_any_depth(text in "[a-z你好]{1,20}", depth in 0..20_usize) {
            let value = format!(r#"{}"{text}"{}"#, "[".repeat(depth), "]".repeat(depth));
            let document = format!(r#"[{{"x":1,"content":{value}}}]"#);
            prop_assert_eq!(in_json(&["content"], &document).unwrap(), [format!("content: {text}")]);
        }
    }
}
