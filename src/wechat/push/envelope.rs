//! The envelope around an encrypted message, the key that opens it, and the one around an answer.
//!
//! AES-256-CBC; the iv is the first half of the key. Inside: 16 random bytes, the length of the message in four bytes,
//! the message, and the AppID that it is for. Padding is PKCS#7 to multiples of 32 bytes, so up to 32 of them, where most
//! libraries stop at 16.
//!
//! The mode authenticates nothing; `msg_signature` does, and whoever opens has checked it. Nevertheless padding is looked
//! at without a branch, because not everybody who knows a token may learn a plaintext.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::node::{Members, Node};
use super::{Flaw, Format, MAX_LEN, json, sign, text, xml};
use crate::crypto::{cbc, constant_time_eq};
use crate::domain::{AppId, Malformed};

/// Padding fills up to a multiple of so many bytes.
const PADDED_TO: usize = 32;
/// Random bytes in front.
const RANDOM: usize = 16;
/// What stands before the message.
const HEAD: usize = RANDOM + size_of::<u32>();

/// Base64 with or without padding, and nothing hangs on the bits behind the last byte: 43 letters carry two bits more than
/// a key has.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The EncodingAESKey of the console, ready for use. It cannot be printed, and is wiped when it is dropped.
#[derive(Clone)]
pub struct EncodingAesKey(Zeroizing<[u8; 32]>);

/// The body of a push, as far as it says how to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    encrypted: Option<Cow<'a, str>>,
    has_more: bool,
}

impl EncodingAesKey {
    /// Parses the 43 letters and digits.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed(
            "an EncodingAESKey is 43 letters and digits",
            "EncodingAESKey 须为 43 位字母和数字",
        );
        if text.len() != 43 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed);
        }
        let bytes = Zeroizing::new(LENIENT.decode(text).map_err(|_| malformed)?);
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(malformed);
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// Decrypts a message, whose `msg_signature` has been checked.
    ///
    /// # Errors
    /// If it was not encrypted with this key for this app. That is for the log and metrics; whoever sent it is told that
    /// it cannot be decrypted, and no more.
    pub fn open(&self, encrypted: &str, appid: &AppId) -> Result<Zeroizing<Vec<u8>>, Flaw> {
        if encrypted.len() > MAX_LEN {
            return Err(Flaw::Size);
        }
        let mut plain = Zeroizing::new(decode(encrypted)?);
        if plain.len() < PADDED_TO || !cbc::decrypt_256(&self.0, self.iv(), &mut plain) {
            return Err(Flaw::Length);
        }
        let padding = cbc::padding_to::<PADDED_TO>(&plain);
        // The rest is looked at in any case.
        let message = message(&plain[..padding.length], appid);
        if !padding.is_good {
            return Err(Flaw::Padding);
        }
        let end = HEAD + message?;
        plain.truncate(end);
        plain.drain(..HEAD);
        Ok(plain)
    }

    /// Encrypts a message, or an answer to one. `random` must be new each time.
    ///
    /// # Panics
    /// If the message is longer than 4 GiB.
    pub fn seal(&self, random: [u8; RANDOM], message: &[u8], appid: &AppId) -> String {
        let length = u32::try_from(message.len()).expect("no message has 4 GiB");
        let receiver = appid.as_str().as_bytes();
        // With room for the padding, so that no copy of the plaintext is left behind.
        let capacity = HEAD + message.len() + receiver.len() + PADDED_TO;
        let mut data = Zeroizing::new(Vec::with_capacity(capacity));
        data.extend_from_slice(&random);
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(message);
        data.extend_from_slice(receiver);
        cbc::encrypt_256(&self.0, self.iv(), PADDED_TO, &mut data);
        STANDARD.encode(&data)
    }

    fn iv(&self) -> &[u8; cbc::BLOCK] {
        self.0.first_chunk().expect("a key is longer than an iv")
    }
}

impl fmt::Debug for EncodingAesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncodingAesKey(***)")
    }
}

impl PartialEq for EncodingAesKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&*self.0, &*other.0)
    }
}

impl Eq for EncodingAesKey {}

impl<'a> Envelope<'a> {
    /// Reads the outermost document: an envelope, or a message without one.
    pub fn parse(format: Format, body: &'a [u8]) -> Result<Self, Flaw> {
        let body = text(body)?;
        match format {
            Format::Xml => Self::of(xml::parse(body)?),
            Format::Json => match json::text(body)? {
                Cow::Borrowed(body) => Self::of(json::parse(body)?),
                Cow::Owned(body) => Ok(Envelope::of(json::parse(&body)?)?.into_owned()),
            },
        }
    }

    /// The ciphertext, in base64, if there is one.
    pub fn encrypted(&self) -> Option<&str> {
        self.encrypted.as_deref()
    }

    /// Whether there is something besides `ToUserName` and `Encrypt`, as in compatible mode, or without encryption.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    fn of(members: Members<'a>) -> Result<Self, Flaw> {
        let is_more = |name: &str| !matches!(name, "ToUserName" | "Encrypt");
        let has_more = members.iter().any(|(name, _)| is_more(name));
        let encrypted = match members.into_iter().find(|(name, _)| name == "Encrypt") {
            None => None,
            Some((_, Node::Text(text) | Node::Number(text))) => Some(text),
            // That is how a field that stands twice comes out of XML.
            Some((name, Node::Array(_))) => return Err(Flaw::duplicate(&name)),
            Some(_) => return Err(Flaw::Syntax("`Encrypt` is not text")),
        };
        Ok(Self {
            encrypted,
            has_more,
        })
    }

    fn into_owned(self) -> Envelope<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Envelope {
            encrypted: self.encrypted.map(owned),
            has_more: self.has_more,
        }
    }
}

/// Encrypts an answer, signs it and puts it into the envelope that WeChat expects.
///
/// `timestamp` is Unix seconds, ours; `nonce` that of the push; `random` must be new each time; `reply` a document in
/// `format`.
#[expect(
    clippy::too_many_arguments,
    reason = "each goes into the envelope as it is"
)]
pub fn encrypted_reply(
    format: Format,
    key: &EncodingAesKey,
    token: &str,
    appid: &AppId,
    timestamp: u64,
    nonce: &str,
    random: [u8; RANDOM],
    reply: &[u8],
) -> Vec<u8> {
    let encrypted = key.seal(random, reply, appid);
    let timestamp = timestamp.to_string();
    let signature = sign(token, &[&timestamp, nonce, &encrypted]);
    let written = match format {
        Format::Json => {
            let field = |name: &'static str, text: String| (name.into(), Node::Text(text.into()));
            json::write(&[
                field("Encrypt", encrypted),
                field("MsgSignature", signature),
                ("TimeStamp".into(), Node::Number(timestamp.into())),
                field("Nonce", nonce.to_owned()),
            ])
        }
        Format::Xml => {
            let mut out = String::from("<xml>");
            xml::write_text("Encrypt", &encrypted, &mut out);
            xml::write_text("MsgSignature", &signature, &mut out);
            xml::write_bare("TimeStamp", &timestamp, &mut out);
            xml::write_text("Nonce", nonce, &mut out);
            out.push_str("</xml>");
            out
        }
    };
    written.into_bytes()
}

fn decode(encrypted: &str) -> Result<Vec<u8>, Flaw> {
    let is_layout = |byte: u8| byte.is_ascii_whitespace();
    let decoded = match encrypted.bytes().any(is_layout) {
        false => LENIENT.decode(encrypted),
        true => {
            let bytes = encrypted.bytes().filter(|byte| !is_layout(*byte));
            LENIENT.decode(bytes.collect::<Vec<_>>())
        }
    };
    decoded.map_err(|_| Flaw::Base64)
}

/// The length of the message in a plaintext without its padding.
fn message(plain: &[u8], appid: &AppId) -> Result<usize, Flaw> {
    let (_random, rest) = plain.split_at_checked(RANDOM).ok_or(Flaw::Length)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Flaw::Length)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Flaw::Length)?;
    let (_message, receiver) = rest.split_at_checked(length).ok_or(Flaw::Length)?;
    match receiver == appid.as_str().as_bytes() {
        true => Ok(length),
        false => Err(Flaw::Receiver),
    }
}
