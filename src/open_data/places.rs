//! Where in a JSON document open data is, and the document with plaintext in its place.
//!
//! A document is not parsed and written anew, because an app may care about what that changes: the order of members,
//! numbers beyond 2^53, how a character is escaped. It is cut at the places that change, and all other bytes stay.
//!
//! What is found is what any reader of the document would find: names are compared unescaped, and an object in which a
//! member that counts stands twice is refused, as readers differ in which one they take. `openData` is our word, like
//! `X-WX-*` in a header: a client that says it, in any case (some readers fold it), is refused.

use std::ops::Range;

use serde::de::IgnoredAny;

/// How many places one document may have.
const MAX_PLACES: usize = 16;
/// How deep a document may nest.
const MAX_DEPTH: usize = 128;

/// An object in a document that holds open data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) content: Content,
    /// The bytes that the plaintext's member takes the place of.
    replaced: Range<usize>,
    /// Bytes that go.
    removed: Range<usize>,
    /// What stands before the plaintext.
    lead: &'static str,
}

/// What the object says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `encryptedData` and `iv`, with what may come along.
    Encrypted {
        encrypted_data: String,
        iv: String,
        /// `rawData` and `signature`.
        signed: Option<(String, String)>,
        /// `code`, from `wx.login`.
        code: Option<String>,
    },
    /// `cloudID`
    Cloud(String),
}

/// Why a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.0)]
pub(crate) struct Refused(pub(crate) (&'static str, &'static str));

/// The places of a document, in their order.
pub(crate) fn find(text: &[u8]) -> Result<Vec<Place>, Refused> {
    // After this the scanner meets only what it expects.
    let is_json =
        str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok();
    if !is_json {
        return Err(NOT_JSON);
    }
    let mut scanner = Scanner {
        text,
        at: 0,
        places: Vec::new(),
    };
    scanner.value(0)?;
    scanner.places.sort_by_key(|place| place.replaced.start);
    Ok(scanner.places)
}

/// Gives the document piece by piece, with `plain` at the places, which came from [`find`].
pub(crate) fn pieces<'a>(
    text: &'a [u8],
    places: &'a [Place],
    plain: &'a [Vec<u8>],
) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts: Vec<(Range<usize>, [&'a [u8]; 2])> = Vec::with_capacity(places.len() * 2);
    for (place, json) in places.iter().zip(plain) {
        cuts.push((place.replaced.clone(), [place.lead.as_bytes(), json]));
        cuts.push((place.removed.clone(), [b"", b""]));
    }
    cuts.sort_by_key(|(range, _)| (range.start, range.end));
    let mut at = 0;
    let mut pieces = Vec::with_capacity(cuts.len() * 3 + 1);
    for (range, inserted) in cuts {
        pieces.push(&text[at..range.start]);
        pieces.extend(inserted);
        at = range.end;
    }
    pieces.push(&text[at..]);
    pieces.into_iter()
}

/// The members that count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    EncryptedData,
    Iv,
    RawData,
    Signature,
    Code,
    CloudId,
    /// Of an object with a cloudID; our word there.
    Data,
}

impl Member {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "encryptedData" => Self::EncryptedData,
            "iv" => Self::Iv,
            "rawData" => Self::RawData,
            "signature" => Self::Signature,
            "code" => Self::Code,
            "cloudID" => Self::CloudId,
            name if name.eq_ignore_ascii_case("data") => Self::Data,
            _ => return None,
        })
    }
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    places: Vec<Place>,
}

/// An object's members that count, with the place of each among all.
#[derive(Default)]
struct Object {
    /// Of every member: from its name to the end of its value.
    spans: Vec<Range<usize>>,
    known: Vec<Known>,
}

struct Known {
    member: Member,
    index: usize,
    value: Range<usize>,
}

/// It cannot be: the document was found to be JSON.
const NOT_JSON: Refused = Refused(("the body is not JSON", "请求体不是 JSON"));

impl Scanner<'_> {
    fn value(&mut self, depth: usize) -> Result<Range<usize>, Refused> {
        if depth > MAX_DEPTH {
            return Err(Refused((
                "the body nests deeper than 128 levels",
                "请求体的嵌套超过 128 层",
            )));
        }
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'{' => self.object(depth)?,
            b'[' => self.array(depth)?,
            b'"' => {
                self.string()?;
            }
            _ => {
                let rest = &self.text[start..];
                let ends = |b: &u8| matches!(b, b',' | b']' | b'}') || b.is_ascii_whitespace();
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        Ok(start..self.at)
    }

    fn array(&mut self, depth: usize) -> Result<(), Refused> {
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.next()? == b']' {
                return Ok(());
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Refused> {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        let mut object = Object::default();
        loop {
            self.peek()?;
            let name = self.string()?;
            let start = name.start;
            let member = self.member(name)?;
            self.next()?;
            let value = self.value(depth + 1)?;
            if let Some(member) = member {
                object.known.push(Known {
                    member,
                    index: object.spans.len(),
                    value: value.clone(),
                });
            }
            object.spans.push(start..value.end);
            if self.next()? == b'}' {
                break;
            }
        }
        if let Some(place) = object.place(self.text)? {
            if self.places.len() == MAX_PLACES {
                return Err(Refused((
                    "the body has more than 16 pieces of open data",
                    "请求体中的开放数据超过 16 处",
                )));
            }
            self.places.push(place);
        }
        Ok(())
    }

    fn member(&self, name: Range<usize>) -> Result<Option<Member>, Refused> {
        let unescaped;
        let name = match self.text[name.clone()].contains(&b'\\') {
            true => {
                unescaped = unquoted(self.text, &name);
                unescaped.as_deref().unwrap_or_default()
            }
            false => str::from_utf8(&self.text[name.start + 1..name.end - 1]).unwrap_or_default(),
        };
        if name.eq_ignore_ascii_case("openData") {
            return Err(Refused((
                "`openData` is what the sidecar calls decrypted data; a client must not send it here",
                "`openData` 是 sidecar 存放解密结果的字段，客户端不能在此发送",
            )));
        }
        Ok(Member::of(name))
    }

    /// Steps over a string, quotes included.
    fn string(&mut self) -> Result<Range<usize>, Refused> {
        let start = self.at;
        let mut at = start + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', self.text.get(at..).ok_or(NOT_JSON)?)
                .ok_or(NOT_JSON)?;
            if self.text[at] == b'"' {
                self.at = at + 1;
                return Ok(start..self.at);
            }
            at += 2;
        }
    }

    /// The next byte that is not white space; stays before it.
    fn peek(&mut self) -> Result<u8, Refused> {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(NOT_JSON)
    }

    /// The same; steps over it.
    fn next(&mut self) -> Result<u8, Refused> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }
}

impl Object {
    /// The place that this object is, if it is one.
    fn place(&self, text: &[u8]) -> Result<Option<Place>, Refused> {
        let find = |member| self.known.iter().find(|known| known.member == member);
        let value = |member| find(member).and_then(|known| unquoted(text, &known.value));
        if let (Some(data), Some(iv)) = (find(Member::EncryptedData), find(Member::Iv))
            && let (Some(encrypted_data), Some(iv_text)) =
                (unquoted(text, &data.value), unquoted(text, &iv.value))
        {
            self.check_unique(&[
                Member::EncryptedData,
                Member::Iv,
                Member::RawData,
                Member::Signature,
                Member::Code,
            ])?;
            let content = Content::Encrypted {
                encrypted_data,
                iv: iv_text,
                signed: value(Member::RawData).zip(value(Member::Signature)),
                code: value(Member::Code),
            };
            return Ok(Some(Place {
                content,
                replaced: self.spans[data.index].clone(),
                removed: self.with_comma(iv.index),
                lead: "\"openData\":",
            }));
        }
        if let Some(cloud) = find(Member::CloudId)
            && let Some(id) = unquoted(text, &cloud.value)
        {
            self.check_unique(&[Member::CloudId])?;
            if find(Member::Data).is_some() {
                return Err(Refused((
                    "`data` beside `cloudID` is what WeChat knows; a client must not send it",
                    "`cloudID` 旁的 `data` 来自微信，客户端不能发送",
                )));
            }
            let end = cloud.value.end;
            return Ok(Some(Place {
                content: Content::Cloud(id),
                replaced: end..end,
                removed: end..end,
                lead: ",\"data\":",
            }));
        }
        Ok(None)
    }

    fn check_unique(&self, members: &[Member]) -> Result<(), Refused> {
        for member in members {
            let times = self.known.iter().filter(|known| known.member == *member);
            if times.count() > 1 {
                return Err(Refused((
                    "a member of an object with open data stands twice",
                    "含开放数据的对象中有重复的字段",
                )));
            }
        }
        Ok(())
    }

    /// A member and the comma that goes with it. There is another member.
    fn with_comma(&self, index: usize) -> Range<usize> {
        match index.checked_sub(1) {
            Some(before) => self.spans[before].end..self.spans[index].end,
            None => self.spans[0].start..self.spans[1].start,
        }
    }
}

/// What a string says; `None` if the value is none.
fn unquoted(text: &[u8], value: &Range<usize>) -> Option<String> {
    serde_json::from_slice(&text[value.clone()]).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rewritten(text: &str, plain: &str) -> String {
        let places = find(text.as_bytes()).unwrap();
        let plain = vec![plain.as_bytes().to_vec(); places.len()];
        let bytes: Vec<u8> = pieces(text.as_bytes(), &places, &plain)
            .flatten()
            .copied()
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_plaintext_takes_the_place_of_the_ciphertext_and_all_else_stays() {
        for (before, after) in [
            (
                r#"{"encryptedData":"x","iv":"y"}"#,
                r#"{"openData":{"p":1}}"#,
            ),
            (
                r#"{"iv":"y","encryptedData":"x"}"#,
                r#"{"openData":{"p":1}}"#,
            ),
            (
                "{ \"a\" : 1.0e+2 ,\n\t\"encryptedData\" : \"x\" , \"b\":\"\\u00e9\" , \"iv\" :\"y\" , \"c\": 9007199254740993 }",
                "{ \"a\" : 1.0e+2 ,\n\t\"openData\":{\"p\":1} , \"b\":\"\\u00e9\" , \"c\": 9007199254740993 }",
            ),
            (
                r#"{"iv":"y", "n":[{"x":[]},{"encryptedData":"x","code":"c","iv":"z"}],"encryptedData":"x"}"#,
                r#"{"n":[{"x":[]},{"openData":{"p":1},"code":"c"}],"openData":{"p":1}}"#,
            ),
            (
                r#"[{"cloudID":"17_x"},{"run":{"cloudID" : "18_y" , "z":0}}]"#,
                r#"[{"cloudID":"17_x","data":{"p":1}},{"run":{"cloudID" : "18_y","data":{"p":1} , "z":0}}]"#,
            ),
            (
                r#"{"encrypted\u0044ata":"x","iv":"y"}"#,
                r#"{"openData":{"p":1}}"#,
            ),
        ] {
            assert_eq!(rewritten(before, r#"{"p":1}"#), after);
        }
    }

    #[test]
    fn what_is_no_open_data_stays_as_it_is() {
        for text in [
            "{}",
            "[]",
            "7",
            " \"encryptedData\" ",
            r#"{"encryptedData":"x"}"#,
            r#"{"encryptedData":"x","iv":null}"#,
            r#"{"encryptedData":["x"],"iv":"y"}"#,
            r#"{"iv":"y","iv":"z","code":"a","code":"b","data":1}"#,
            r#"{"cloudID":7,"data":1}"#,
            r#"{"cloudId":"x"}"#,
            r#"{"text":"{\"encryptedData\":\"x\",\"iv\":\"y\"}"}"#,
        ] {
            assert_eq!(find(text.as_bytes()), Ok(vec![]), "{text}");
            assert_eq!(rewritten(text, "1"), text);
        }
    }

    #[test]
    fn what_readers_would_read_differently_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let many = format!("[{}]", vec![r#"{"cloudID":"x"}"#; 17].join(","));
        for text in [
            r#"{"encryptedData":"x","iv":"y","iv":"z"}"#,
            r#"{"encryptedData":"x","iv":"y","encrypted\u0044ata":"z"}"#,
            r#"{"encryptedData":"x","iv":"y","code":"y","code":"z"}"#,
            r#"{"openData":{"phoneNumber":"1"}}"#,
            r#"{"a":[{"b":{"OPENDATA":1}}]}"#,
            r#"{"o\u0070endata":1}"#,
            r#"{"cloudID":"x","data":{"forged":1}}"#,
            r#"{"cloudID":"x","Data":{"forged":1}}"#,
            r#"{"cloudID":"x","cloudID":"y"}"#,
            &deep,
            &many,
            "",
            "{",
            r#"{"a":1,}"#,
            "{'a':1}",
            "{} {}",
            "\u{feff}{}",
        ] {
            assert!(find(text.as_bytes()).is_err(), "{text:.60}");
        }
        assert!(find(b"{\"a\":\"\xff\"}").is_err());
        assert!(
            find(
                "{\"a\":1}"
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<_>>()
                    .as_slice()
            )
            .is_err()
        );
    }

    #[test]
    fn all_that_comes_along_is_found() {
        let text = r#"{"code":"c\n","signature":"s","rawData":"{\"a\":1}","iv":"y","encryptedData":"x\/"}"#;
        let [place] = &find(text.as_bytes()).unwrap()[..] else {
            panic!("one place");
        };
        assert_eq!(
            place.content,
            Content::Encrypted {
                encrypted_data: "x/".to_owned(),
                iv: "y".to_owned(),
                signed: Some((r#"{"a":1}"#.to_owned(), "s".to_owned())),
                code: Some("c\n".to_owned()),
            }
        );
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!({ "encryptedData": "x", "iv": "y" })),
            Just(json!({ "a": "\\\"", "iv": "y", "z": [1], "encryptedData": "x" })),
            Just(json!({ "cloudID": "x" })),
        ];
        leaf.prop_recursive(4, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn expected(value: Value) -> Value {
        match value {
            Value::Array(values) => values.into_iter().map(expected).collect(),
            Value::Object(members) => {
                let mut members: serde_json::Map<_, _> = members
                    .into_iter()
                    .map(|(name, value)| (name, expected(value)))
                    .collect();
                if members.contains_key("iv") && members.remove("encryptedData").is_some() {
                    members.remove("iv");
                    members.insert("openData".to_owned(), json!({ "p": 1 }));
                }
                if members.contains_key("cloudID") {
                    members.insert("data".to_owned(), json!({ "p": 1 }));
                }
                Value::Object(members)
            }
            value => value,
        }
    }

    proptest! {
        #[test]
        fn any_document_changes_as_one_that_is_parsed(document in documents()) {
            for text in [document.to_string(), format!("{document:#}")] {
                if find(text.as_bytes()).is_ok() {
                    let read: Value = serde_json::from_str(&rewritten(&text, r#"{"p":1}"#)).unwrap();
                    prop_assert_eq!(read, expected(document.clone()));
                }
            }
        }
    }
}
