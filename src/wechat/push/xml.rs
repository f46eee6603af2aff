//! XML as a tree, and back. The only file that knows the XML library.
//!
//! What WeChat writes is elements and text. All else that XML has is refused (document types, entities of one's own,
//! processing instructions) or passed over (comments, attributes): nothing is looked up, opened or expanded.
//!
//! Text keeps its line ends and the control characters that XML forbids: users write them, WeChat passes them on, and
//! the JSON that comes of it can say them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::{BytesDecl, BytesRef, Event};
use quick_xml::reader::Reader;

use super::Flaw;
use super::node::{Count, Member, Members, Node};

/// The name of the outermost element.
const ROOT: &str = "xml";
/// Digits beyond which a number is handed on as text: some readers of JSON refuse to read on.
const MAX_DIGITS: usize = 64;

/// The fields of `<xml>…</xml>`. Elements of one name become an array, where the first of them stands.
pub(super) fn parse(document: &str) -> Result<Members<'_>, Flaw> {
    if document.contains('\0') {
        return Err(Flaw::Encoding);
    }
    let mut reader = Reader::from_str(document);
    let mut count = Count::default();
    let mut open: Vec<Element<'_>> = Vec::new();
    let mut root = None;
    for at in 0.. {
        match reader.read_event().map_err(|error| flaw(&error))? {
            Event::Start(start) => {
                if root.is_some() {
                    return Err(Flaw::Syntax("something stands behind the document"));
                }
                count.add(open.len())?;
                open.push(Element::new(start.name().0)?);
            }
            Event::Empty(start) => {
                count.add(open.len())?;
                let element = Element::new(start.name().0)?;
                let parent = open.last_mut().ok_or(Flaw::NotAnObject)?;
                parent.adopt(element)?;
            }
            Event::End(_) => {
                let element = open
                    .pop()
                    .ok_or(Flaw::Syntax("an end without a beginning"))?;
                match open.last_mut() {
                    Some(parent) => parent.adopt(element)?,
                    None => root = Some(element),
                }
            }
            Event::Text(text) => match open.last_mut() {
                Some(element) => element.text.bare(text.into_inner()),
                None if is_blank(&text) => {}
                None => return Err(Flaw::Syntax("text outside of the document")),
            },
            Event::CData(text) => {
                let element = open.last_mut();
                let element = element.ok_or(Flaw::Syntax("text outside of the document"))?;
                element.text.quoted(text.into_inner());
            }
            Event::GeneralRef(reference) => {
                let element = open.last_mut();
                let element = element.ok_or(Flaw::Syntax("text outside of the document"))?;
                element.text.character(resolve(&reference)?);
            }
            Event::Comment(_) => count.add(0)?,
            Event::Decl(declaration) if at == 0 => check_declaration(&declaration)?,
            Event::Decl(_) | Event::PI(_) => {
                return Err(Flaw::Syntax("a processing instruction"));
            }
            Event::DocType(_) => return Err(Flaw::Doctype),
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err(Flaw::Syntax("an element has no end"));
    }
    let root = root.ok_or(Flaw::Syntax("it has no element"))?;
    if root.name != ROOT {
        return Err(Flaw::NotAnObject);
    }
    match root.into_node()? {
        Node::Object(members) => Ok(members),
        _ => Err(Flaw::NotAnObject),
    }
}

/// Writes fields as `<xml>…</xml>`: strings as CDATA, numbers bare, as WeChat does it.
pub(super) fn write(members: &[Member<'_>]) -> Result<String, Flaw> {
    let mut out = String::from("<xml>");
    write_members(members, &mut out)?;
    out.push_str("</xml>");
    Ok(out)
}

/// Writes an element that holds a string, which is `Char*` of XML.
pub(super) fn write_text(name: &str, text: &str, out: &mut String) {
    open_tag(name, out);
    out.push_str("<![CDATA[");
    // What would end it is cut in two.
    out.push_str(&text.replace("]]>", "]]]]><![CDATA[>"));
    out.push_str("]]>");
    close_tag(name, out);
}

/// Writes an element that holds a word or a number.
pub(super) fn write_bare(name: &str, word: &str, out: &mut String) {
    open_tag(name, out);
    out.push_str(word);
    close_tag(name, out);
}

/// An element that is being read.
struct Element<'a> {
    name: String,
    members: Members<'a>,
    text: Run<'a>,
}

/// The text of an element, joined from its pieces.
#[derive(Default)]
struct Run<'a> {
    text: Cow<'a, str>,
    /// Whether there was CDATA: then it is a string, whatever it looks like.
    is_quoted: bool,
    /// How much of it is not white space at the end that only lays the document out.
    solid: usize,
}

impl<'a> Element<'a> {
    fn new(name: &str) -> Result<Self, Flaw> {
        if !is_name(name) {
            return Err(Flaw::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            members: Vec::new(),
            text: Run::default(),
        })
    }

    fn adopt(&mut self, child: Element<'a>) -> Result<(), Flaw> {
        let name = Cow::Owned(child.name.clone());
        self.members.push((name, child.into_node()?));
        Ok(())
    }

    fn into_node(self) -> Result<Node<'a>, Flaw> {
        if self.members.is_empty() {
            return Ok(self.text.into_node());
        }
        if self.text.solid > 0 || self.text.is_quoted {
            return Err(Flaw::Syntax("text beside elements"));
        }
        Ok(Node::Object(gather(self.members)))
    }
}

impl<'a> Run<'a> {
    fn bare(&mut self, piece: Cow<'a, str>) {
        let is_blank = is_blank(&piece);
        self.push(piece);
        if !is_blank {
            self.solid = self.text.len();
        }
    }

    fn quoted(&mut self, piece: Cow<'a, str>) {
        if self.solid == 0 && !self.is_quoted {
            self.text = Cow::default();
        }
        self.push(piece);
        self.is_quoted = true;
        self.solid = self.text.len();
    }

    fn character(&mut self, c: char) {
        self.text.to_mut().push(c);
        self.solid = self.text.len();
    }

    fn push(&mut self, piece: Cow<'a, str>) {
        match self.text.is_empty() {
            true => self.text = piece,
            false => self.text.to_mut().push_str(&piece),
        }
    }

    fn into_node(self) -> Node<'a> {
        let number = self.text.trim_ascii();
        if !self.is_quoted && is_number(number) {
            return Node::Number(match self.text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
                Cow::Owned(ref text) => Cow::Owned(text.trim_ascii().to_owned()),
            });
        }
        if self.is_quoted || self.solid == 0 {
            return Node::Text(match self.text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[..self.solid]),
                Cow::Owned(mut text) => {
                    text.truncate(self.solid);
                    Cow::Owned(text)
                }
            });
        }
        Node::Text(self.text)
    }
}

/// Elements of one name as an array.
fn gather(members: Members<'_>) -> Members<'_> {
    let mut gathered: Members<'_> = Vec::with_capacity(members.len());
    let mut places: HashMap<Cow<'_, str>, (usize, bool)> = HashMap::with_capacity(members.len());
    for (name, node) in members {
        match places.entry(name) {
            Entry::Vacant(place) => {
                gathered.push((place.key().clone(), node));
                place.insert((gathered.len() - 1, false));
            }
            Entry::Occupied(mut place) => {
                let (at, is_list) = *place.get();
                let first = &mut gathered[at].1;
                match first {
                    Node::Array(list) if is_list => list.push(node),
                    _ => {
                        let before = std::mem::replace(first, Node::Word("null"));
                        *first = Node::Array(vec![before, node]);
                        place.insert((at, true));
                    }
                }
            }
        }
    }
    gathered
}

fn resolve(reference: &BytesRef<'_>) -> Result<char, Flaw> {
    let unknown = Flaw::Syntax("an entity that is not predefined");
    match reference.as_ref() {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "apos" => return Ok('\''),
        "quot" => return Ok('"'),
        _ => {}
    }
    let character = reference.resolve_char_ref();
    character
        .map_err(|_| Flaw::Syntax("a reference to no character"))?
        .ok_or(unknown)
}

/// The text has been read as UTF-8; who says that it is something else is not believed.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Flaw> {
    let is_utf8 = match declaration.encoding() {
        None => true,
        Some(Ok(name)) => ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known)),
        Some(Err(_)) => false,
    };
    match is_utf8 {
        true => Ok(()),
        false => Err(Flaw::Encoding),
    }
}

fn write_members(members: &[Member<'_>], out: &mut String) -> Result<(), Flaw> {
    for (name, node) in members {
        if !is_name(name) {
            return Err(Flaw::Name);
        }
        match node {
            Node::Array(nodes) => {
                for node in nodes {
                    write_node(name, node, out)?;
                }
            }
            node => write_node(name, node, out)?,
        }
    }
    Ok(())
}

fn write_node(name: &str, node: &Node<'_>, out: &mut String) -> Result<(), Flaw> {
    match node {
        Node::Text(text) if text.chars().all(is_char) => write_text(name, text, out),
        Node::Text(_) => return Err(Flaw::Syntax("a character that XML does not have")),
        Node::Word("null") => write_bare(name, "", out),
        Node::Number(word) => write_bare(name, word, out),
        Node::Word(word) => write_bare(name, word, out),
        Node::Object(members) => {
            open_tag(name, out);
            write_members(members, out)?;
            close_tag(name, out);
        }
        Node::Array(_) => return Err(Flaw::Syntax("a list in a list")),
    }
    Ok(())
}

fn open_tag(name: &str, out: &mut String) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

fn close_tag(name: &str, out: &mut String) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_whitespace())
}

/// Whether it is a name (XML 1.0 §2.3), as far as anybody gives one to a field.
fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next();
    first.is_some_and(|c| c.is_alphabetic() || c == '_')
        && characters.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
}

/// Whether XML 1.0 has the character (§2.2).
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// Whether it is an integer that JSON writes in the same way and that is the same when it has been read.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = match digits.as_bytes() {
        [b'0'] => text == digits,
        [first, rest @ ..] => (b'1'..=b'9').contains(first) && rest.iter().all(u8::is_ascii_digit),
        [] => false,
    };
    is_plain && digits.len() <= MAX_DIGITS
}

fn flaw(error: &Error) -> Flaw {
    match error {
        Error::Syntax(SyntaxError::UnclosedDoctype)
        | Error::IllFormed(IllFormedError::MissingDoctypeName) => Flaw::Doctype,
        Error::IllFormed(IllFormedError::MismatchedEndTag { .. }) => {
            Flaw::Syntax("an end tag of another name")
        }
        Error::IllFormed(IllFormedError::UnmatchedEndTag(_)) => {
            Flaw::Syntax("an end without a beginning")
        }
        Error::IllFormed(IllFormedError::UnclosedReference) => Flaw::Syntax("a lone `&`"),
        _ => Flaw::Syntax("it is not XML"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    /// The document as JSON.
    fn read(document: &str) -> Result<String, Flaw> {
        parse(document).map(|members| json::write(&members))
    }

    /// What is in `<xml>`, as JSON.
    fn inside(elements: &str) -> Result<String, Flaw> {
        read(&format!("<xml>{elements}</xml>"))
    }

    #[test]
    fn elements_become_fields() {
        for (elements, expected) in [
            ("<a>x</a>", r#"{"a":"x"}"#),
            ("<a></a><b/><c ></c >", r#"{"a":"","b":"","c":""}"#),
            ("<a><![CDATA[]]></a>", r#"{"a":""}"#),
            ("<a><b>1</b></a>", r#"{"a":{"b":1}}"#),
            ("<a>1</a><b>2</b><a>3</a><a>4</a>", r#"{"a":[1,3,4],"b":2}"#),
            ("<a><b/></a><a/>", r#"{"a":[{"b":""},""]}"#),
            ("\n  <a>x</a>\n<!-- <b>y</b> -->\t", r#"{"a":"x"}"#),
            (r#"<a x="1" y='>' z>x</a>"#, r#"{"a":"x"}"#),
            ("<\u{540d}>x</\u{540d}>", "{\"\u{540d}\":\"x\"}"),
            ("<a:b-c.d_1>x</a:b-c.d_1>", r#"{"a:b-c.d_1":"x"}"#),
        ] {
            assert_eq!(inside(elements).as_deref(), Ok(expected), "{elements}");
        }
    }

    #[test]
    fn only_bare_integers_that_json_writes_alike_are_numbers() {
        let long = "9".repeat(64);
        for number in [
            "0",
            "5",
            "-5",
            "1234567890123456789012",
            "9007199254740993",
            &long,
        ] {
            for text in [
                number.to_owned(),
                format!("\n {number} "),
                format!("&#{};{}", number.as_bytes()[0], &number[1..]),
            ] {
                assert_eq!(
                    inside(&format!("<a>{text}</a>")),
                    Ok(format!("{{\"a\":{number}}}"))
                );
            }
            let quoted = inside(&format!("<a><![CDATA[{number}]]></a>"));
            assert_eq!(quoted, Ok(format!("{{\"a\":\"{number}\"}}")));
        }
        for text in [
            "007",
            "+5",
            "-0",
            "-",
            "00",
            "1.5",
            "1e3",
            "0x1",
            "1 2",
            "\u{661}",
            "NaN",
            "true",
            "null",
            &format!("{long}9"),
        ] {
            assert_eq!(
                inside(&format!("<a>{text}</a>")),
                Ok(format!("{{\"a\":\"{text}\"}}")),
                "{text}"
            );
        }
        assert_eq!(
            inside("<a>1<![CDATA[2]]></a>").as_deref(),
            Ok(r#"{"a":"12"}"#)
        );
    }

    #[test]
    fn text_is_joined_from_its_pieces() {
        for (text, expected) in [
            ("<![CDATA[a]]]]><![CDATA[>b]]>", "a]]>b"),
            ("x<![CDATA[<y>]]>z", "x<y>z"),
            ("\n  <![CDATA[ a ]]>\n", " a "),
            ("<![CDATA[a]]> <![CDATA[b]]>", "a b"),
            ("<![CDATA[]]> a", " a"),
            (
                " a &lt;b&gt; &amp;amp; &quot;&apos; ",
                " a <b> &amp; \\\"' ",
            ),
            ("&#65;&#x42;&#x1F600;&#x4f60;", "AB\u{1f600}\u{4f60}"),
            ("a<!-- x -->b", "ab"),
            ("<![CDATA[&lt;&bomb;]]>", "&lt;&bomb;"),
            ("<![CDATA[a\r\nb\u{8}\u{1b}]]>", "a\\r\\nb\\b\\u001b"),
            ("\n \t", ""),
            ("&#32;", " "),
            ("a ]]> b", "a ]]> b"),
        ] {
            assert_eq!(
                inside(&format!("<a>{text}</a>")),
                Ok(format!("{{\"a\":\"{expected}\"}}")),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_is_looked_up_opened_or_expanded() {
        for document in [
            r#"<!DOCTYPE xml><xml><a>x</a></xml>"#,
            r#"<!doctype xml><xml><a>x</a></xml>"#,
            r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><xml><a>&e;</a></xml>"#,
            r#"<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><xml><a>x</a></xml>"#,
            r#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]><xml><a>&c;</a></xml>"#,
            r#"<xml><a>x</a><!DOCTYPE xml></xml>"#,
            r#"<!DOCTYPE xml"#,
        ] {
            assert_eq!(read(document), Err(Flaw::Doctype), "{document}");
        }
        for elements in [
            "<a>&e;</a>",
            "<a>&nbsp;</a>",
            "<a>&LT;</a>",
            "<a>&;</a>",
            "<a>&#;</a>",
            "<a>&#x;</a>",
            "<a>&#0;</a>",
            "<a>&#xD800;</a>",
            "<a>&#x110000;</a>",
            "<a>&#-1;</a>",
            "<a>&#99999999999999999999;</a>",
            "<a>&</a>",
            "<a>& </a>",
            "<a><?php 1 ?></a>",
            "<?xml-stylesheet href='x'?><a/>",
            "<?xml version='1.0'?><a/>",
            "<!ENTITY e 'x'>",
            "<!ELEMENT a ANY>",
            "<![INCLUDE[<a/>]]>",
            "<a><![cdata[x]]></a>",
        ] {
            assert!(inside(elements).is_err(), "{elements}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for document in [
            "",
            "x",
            "xml",
            "<",
            "<xml",
            "<xml>",
            "<xml><a>",
            "<xml><a></xml>",
            "<xml><a></b></xml>",
            "<xml><a>x</a></xml></xml>",
            "<xml><a>x</a></xml>x",
            "x<xml><a>x</a></xml>",
            "<xml><a>x</a></xml><xml><a>x</a></xml>",
            "<xml><a>x</a></xml><xml/>",
            "<xml><a>x</a></xml><![CDATA[]]>",
            "<xml><a>x</a></xml>&lt;",
            "</xml>",
            "<xml><a>x</a>y</xml>",
            "<xml><a>x<b/></a></xml>",
            "<xml><![CDATA[]]><a/></xml>",
            "<xml><a>x</a>&#32;</xml>",
            "<xml><></></xml>",
            "<xml>< a>x</ a></xml>",
            "<xml><1>x</1></xml>",
            "<xml><a/b>x</a/b></xml>",
            "<xml><a<b>x</a<b></xml>",
            "<xml><a><![CDATA[x]]</a></xml>",
            "<xml><a><!-- x</a></xml>",
            "<xml><a x='>x</a></xml>",
            "<XML><a>x</a></XML>",
            "<x><a>x</a></x>",
            "<xml/>",
            "<xml></xml>",
            "<xml>x</xml>",
            "<xml>\n</xml>",
            "<!---->",
        ] {
            assert!(read(document).is_err(), "{document}");
        }
    }

    #[test]
    fn only_utf8_is_read() {
        for encoding in ["UTF-8", "utf-8", "utf8"] {
            let document =
                format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?>\n<xml><a>x</a></xml>");
            assert!(read(&document).is_ok(), "{document}");
        }
        assert!(read("<?xml version='1.0'?><xml><a>x</a></xml>").is_ok());
        for encoding in ["UTF-16", "GBK", "UTF-7", ""] {
            let document =
                format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?><xml><a>x</a></xml>");
            assert_eq!(read(&document), Err(Flaw::Encoding), "{document}");
        }
        assert_eq!(read("<xml><a>\0</a></xml>"), Err(Flaw::Encoding));
        assert!(read(" <?xml version='1.0'?><xml><a>x</a></xml>").is_err());
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let nested = |depth: usize| {
            read(&format!(
                "<xml>{}{}</xml>",
                "<a>".repeat(depth),
                "</a>".repeat(depth)
            ))
        };
        assert!(nested(32).is_ok());
        assert_eq!(nested(33), Err(Flaw::Depth));
        assert_eq!(nested(100_000), Err(Flaw::Depth));
        let many = |count: usize| inside(&"<a/>".repeat(count));
        assert!(many(19_000).is_ok());
        assert_eq!(many(20_001), Err(Flaw::Size));
        let distinct: String = (0..19_000).map(|at| format!("<a{at}/>")).collect();
        assert!(inside(&distinct).is_ok());
        assert_eq!(inside(&"<!---->".repeat(20_001)), Err(Flaw::Size));
        let attributes: String = (0..100_000).map(|at| format!(" a{at}=''")).collect();
        assert!(
            inside(&format!("<a{attributes}/>")).is_ok(),
            "nobody looks at them"
        );
        assert!(inside(&format!("<a>{}</a>", "&lt;".repeat(200_000))).is_ok());
        assert!(inside(&format!("<a>{}</a>", "<![CDATA[x]]>".repeat(70_000))).is_ok());
    }
}
