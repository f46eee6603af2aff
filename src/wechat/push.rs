//! Message push: what WeChat's servers send to a Mini Program's server, as data.
//!
//! Source: developers.weixin.qq.com, 指南 / 基础能力 / 服务端能力 / 消息推送, and 客服消息. A push is a POST whose query is signed and
//! whose body is a message, or an [`envelope`] around an encrypted one. The signature in the query does not cover the
//! body; `msg_signature` does, and so does the key. A [`message`] comes as XML or as JSON, as the console says, and
//! leaves here as JSON.
//!
//! WeChat sends again what was not answered, up to three times, so everything here is made so that a message is refused
//! only where it could be read in two ways, and so that two messages are never taken for one.

pub mod envelope;
mod json;
pub mod message;
mod node;
mod reply;
mod xml;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

pub use envelope::{EncodingAesKey, Envelope, encrypted_reply};
pub use message::Message;
pub use reply::{Reply, passive_reply};

use crate::crypto::{constant_time_eq, hex, sha1};

/// The longest document that is looked at, in bytes. The longest text of a user's is some 2 KiB.
pub const MAX_LEN: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// In what a push is written; one is answered in the format that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<xml>…</xml>`
    Xml,
    /// One object.
    Json,
}

/// What is wrong with a push. No part of it is in the message but the name of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It does not follow the format's grammar.
    #[error("not well-formed: {0}")]
    Syntax(&'static str),
    /// It is not UTF-8, or has a NUL in it.
    #[error("not UTF-8 text")]
    Encoding,
    /// A document type, which is where entities come from.
    #[error("it has a DOCTYPE")]
    Doctype,
    /// It nests too deep.
    #[error("it nests deeper than {} levels", node::MAX_DEPTH)]
    Depth,
    /// It is too long or has too many parts.
    #[error(
        "it is longer than {MAX_LEN} bytes, or of more than {} parts",
        node::MAX_NODES
    )]
    Size,
    /// What may stand once stands twice; readers would disagree on which one counts.
    #[error("`{0}` stands twice")]
    Duplicate(String),
    /// It is JSON, but no object, or XML, but no `<xml>` of elements.
    #[error("it is not an object")]
    NotAnObject,
    /// A field has a name that XML cannot say.
    #[error("a name that is none in XML")]
    Name,
    /// The ciphertext is not base64.
    #[error("the ciphertext is not base64")]
    Base64,
    /// The ciphertext is not of whole blocks, or what is in it is longer than itself.
    #[error("a length is wrong")]
    Length,
    /// The padding is none: nearly always the key is another.
    #[error("the padding is wrong; the AES key may be another")]
    Padding,
    /// It was encrypted for another app.
    #[error("it was encrypted for another app")]
    Receiver,
}

/// The parameters of a push, decoded.
///
/// `Debug` shows them: they prove something, but hold no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Over the token, `timestamp` and `nonce`.
    pub signature: Option<Cow<'a, str>>,
    /// Unix seconds.
    pub timestamp: Option<Cow<'a, str>>,
    /// Digits of WeChat's choice.
    pub nonce: Option<Cow<'a, str>>,
    /// What the handshake wants back.
    pub echostr: Option<Cow<'a, str>>,
    /// Whose message it is; nothing signs it.
    pub openid: Option<Cow<'a, str>>,
    /// `aes`, or `raw` or nothing.
    pub encrypt_type: Option<Cow<'a, str>>,
    /// Over the token, `timestamp`, `nonce` and the ciphertext.
    pub msg_signature: Option<Cow<'a, str>>,
}

impl Format {
    /// The format of a document, by its first character; headers are not reliable. `None` if it is neither.
    pub fn of(body: &[u8]) -> Option<Self> {
        match bare(body).first()? {
            b'<' => Some(Self::Xml),
            b'{' => Some(Self::Json),
            _ => None,
        }
    }

    /// The name in configuration and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Xml => "xml",
            Self::Json => "json",
        }
    }

    /// The value of `Content-Type` for an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Xml => "text/xml",
            Self::Json => "application/json",
        }
    }
}

impl Flaw {
    /// The name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "syntax",
            Self::Encoding => "encoding",
            Self::Doctype => "doctype",
            Self::Depth => "depth",
            Self::Size => "size",
            Self::Duplicate(_) => "duplicate",
            Self::NotAnObject => "not_an_object",
            Self::Name => "name",
            Self::Base64 => "base64",
            Self::Length => "length",
            Self::Padding => "padding",
            Self::Receiver => "receiver",
        }
    }

    /// A name that a stranger may have chosen, fit for the log.
    fn duplicate(name: &str) -> Self {
        let shown = name.chars().filter(|c| !c.is_control());
        Self::Duplicate(shown.take(64).collect())
    }
}

impl<'a> Query<'a> {
    /// Reads a query without its `?`. Other parameters are ignored.
    ///
    /// # Errors
    /// If one of them stands twice, or is not UTF-8.
    pub fn parse(query: &'a str) -> Result<Self, Flaw> {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // What is not UTF-8 has none of our names.
            let name = percent_decode_str(name).decode_utf8_lossy();
            let Some(place) = parsed.place(&name) else {
                continue;
            };
            if place.is_some() {
                return Err(Flaw::duplicate(&name));
            }
            let value = percent_decode_str(value).decode_utf8();
            *place = Some(value.map_err(|_| Flaw::Encoding)?);
        }
        Ok(parsed)
    }

    /// When it was sent, in Unix seconds; `None` if `timestamp` is missing or anything but digits.
    pub fn time(&self) -> Option<u64> {
        node::digits(self.timestamp.as_deref()?)?.parse().ok()
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        Some(match name {
            "signature" => &mut self.signature,
            "timestamp" => &mut self.timestamp,
            "nonce" => &mut self.nonce,
            "echostr" => &mut self.echostr,
            "openid" => &mut self.openid,
            "encrypt_type" => &mut self.encrypt_type,
            "msg_signature" => &mut self.msg_signature,
            _ => return None,
        })
    }
}

/// The signature over the token and the parts: timestamp and nonce, and the ciphertext for `msg_signature`.
pub fn sign(token: &str, parts: &[&str]) -> String {
    let mut signed: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    signed.push(token.as_bytes());
    signed.sort_unstable();
    hex(&sha1(&signed))
}

/// Whether a signature is that of [`sign`]. Takes as long wherever the two differ.
pub fn is_signed(token: &str, parts: &[&str], signature: &str) -> bool {
    constant_time_eq(sign(token, parts).as_bytes(), signature.as_bytes())
}

/// A document without the marks and white space that may stand in front and behind.
fn bare(document: &[u8]) -> &[u8] {
    let document = document.trim_ascii();
    let document = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    document.trim_ascii()
}

/// The text of a document that is not too long.
fn text(document: &[u8]) -> Result<&str, Flaw> {
    if document.len() > MAX_LEN {
        return Err(Flaw::Size);
    }
    str::from_utf8(bare(document)).map_err(|_| Flaw::Encoding)
}

#[cfg(test)]
mod tests;
