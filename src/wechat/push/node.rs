//! A document as a tree, the same for both formats.
//!
//! Numbers stay the digits that they were, because ids of messages are beyond what a double holds.

use std::borrow::Cow;

use super::Flaw;

/// How deep a document may nest; WeChat's nest three levels.
pub(super) const MAX_DEPTH: usize = 32;
/// How many values a document may have; WeChat's have some dozens.
pub(super) const MAX_NODES: usize = 20_000;

/// Fields of an object, in their order.
pub(super) type Members<'a> = Vec<Member<'a>>;
/// A name and a value.
pub(super) type Member<'a> = (Cow<'a, str>, Node<'a>);

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node<'a> {
    Text(Cow<'a, str>),
    /// As JSON writes it.
    Number(Cow<'a, str>),
    /// `true`, `false` or `null`.
    Word(&'static str),
    Object(Members<'a>),
    Array(Vec<Node<'a>>),
}

/// Counts what a reader makes.
#[derive(Default)]
pub(super) struct Count(usize);

impl Node<'_> {
    /// The text of what is not made of others; nothing for `null`.
    pub(super) fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Word("null") => Some(""),
            Self::Word(word) => Some(word),
            Self::Object(_) | Self::Array(_) => None,
        }
    }
}

impl Count {
    /// One more value, `depth` levels below the document.
    pub(super) fn add(&mut self, depth: usize) -> Result<(), Flaw> {
        self.0 += 1;
        if depth > MAX_DEPTH {
            return Err(Flaw::Depth);
        }
        if self.0 > MAX_NODES {
            return Err(Flaw::Size);
        }
        Ok(())
    }
}

/// The field of a name; the first, where several are let through.
pub(super) fn member<'m, 'a>(members: &'m [Member<'a>], name: &str) -> Option<&'m Node<'a>> {
    let found = members.iter().find(|(other, _)| other == name);
    found.map(|(_, node)| node)
}

/// The text, if it is digits and nothing else.
pub(super) fn digits(text: &str) -> Option<&str> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then_some(text)
}
