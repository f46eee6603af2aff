//! Whether a push is WeChat's, and what it says.
//!
//! What has to be proved is settled by the configuration and never by the push: who leaves `encrypt_type` or
//! `msg_signature` out of a query is refused by a sidecar that was told that messages are encrypted, for the signature in the
//! query covers no message, and may have been seen elsewhere. In whatever way a push is not WeChat's, its sender learns
//! only that; what was wrong is for the metrics and the log.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::config::{Push, PushMode};
use crate::crypto;
use crate::domain::AppId;
use crate::error::{Error, Kind, Sentence};
use crate::secret::Secret;
use crate::wechat::push::{
    EncodingAesKey, Envelope, Flaw, Format, Message, Query, encrypted_reply, is_signed,
};

/// What pushes are judged by.
pub(super) struct Reception {
    appid: AppId,
    tokens: Vec<Secret>,
    keys: Vec<EncodingAesKey>,
    mode: PushMode,
    format: Option<Format>,
    max_age: Option<Duration>,
}

/// A genuine push.
pub(super) struct Arrival {
    pub(super) message: Message,
    pub(super) format: Format,
    /// What comes with no other message: a hash of timestamp and nonce.
    pub(super) nonce: [u8; 16],
    /// How a reply has to be encrypted, if it has to.
    pub(super) seal: Option<Seal>,
    /// Which token it was signed with, and which key it was encrypted with, counted from the newest.
    pub(super) slots: (usize, Option<usize>),
}

/// What a message was encrypted with, which is what its reply is encrypted with.
pub(super) struct Seal {
    key: EncodingAesKey,
    token: Secret,
    nonce: String,
}

/// Why a push is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    /// The name in metrics.
    pub(super) reason: &'static str,
    /// For the log.
    pub(super) detail: String,
    /// Whether it is told what is wrong; if not, that it is not WeChat's.
    pub(super) malformed: bool,
}

/// The signed part of a query.
struct Signed<'q> {
    timestamp: &'q str,
    nonce: &'q str,
}

impl Reception {
    pub(super) fn new(appid: &AppId, push: &Push) -> Self {
        Self {
            appid: appid.clone(),
            tokens: push.tokens.clone(),
            keys: push.aes_keys.clone(),
            mode: push.mode,
            format: push.format,
            max_age: push.max_age,
        }
    }

    /// The handshake: what is to be echoed. It may be repeated, so its age does not matter.
    pub(super) fn handshake(&self, query: &str) -> Result<String, Refused> {
        let query = parse(query)?;
        let signed = signed(&query)?;
        self.token_of(
            &[signed.timestamp, signed.nonce],
            query.signature.as_deref(),
        )
        .ok_or_else(|| not_genuine("signature", "the signature is not that of any token"))?;
        match query.echostr {
            Some(echostr) => Ok(echostr.into_owned()),
            None => Err(malformed(
                "echostr",
                "the parameter `echostr` is missing".to_owned(),
            )),
        }
    }

    /// A message, if it is WeChat's.
    pub(super) fn receive(
        &self,
        query: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Arrival, Refused> {
        let query = parse(query)?;
        let signed = signed(&query)?;
        self.is_fresh(&query, now)?;
        let nonce = hash_of(&signed);
        if self.mode == PushMode::Plaintext {
            let parts = [signed.timestamp, signed.nonce];
            let (token, _) = self
                .token_of(&parts, query.signature.as_deref())
                .ok_or_else(|| {
                    not_genuine("signature", "the signature is not that of any token")
                })?;
            let format = self.format_of(body)?;
            let envelope = Envelope::parse(format, body).map_err(|flaw| unreadable(&flaw))?;
            if envelope.encrypted().is_some() {
                let detail = "it is encrypted, and [push] mode is \"plaintext\"";
                return Err(not_genuine("mode", detail));
            }
            let message = Message::parse(format, body).map_err(|flaw| unreadable(&flaw))?;
            return Ok(Arrival {
                message,
                format,
                nonce,
                seal: None,
                slots: (token, None),
            });
        }
        let format = self.format_of(body)?;
        let envelope = Envelope::parse(format, body).map_err(|flaw| unreadable(&flaw))?;
        let Some(encrypted) = envelope.encrypted() else {
            let detail = "it is not encrypted, and [push] mode says that messages are";
            return Err(not_genuine("mode", detail));
        };
        if self.mode == PushMode::Secure && envelope.has_more() {
            let detail = "it has fields in clear too; [push] mode is \"compatible\" if that is what the console says";
            return Err(not_genuine("mode", detail));
        }
        let parts = [signed.timestamp, signed.nonce, encrypted];
        let (token_slot, token) = self
            .token_of(&parts, query.msg_signature.as_deref())
            .ok_or_else(|| {
                let detail = "msg_signature is missing, or not that of any token";
                not_genuine("msg_signature", detail)
            })?;
        let (plain, key_slot) = self.open(encrypted)?;
        // Signed and encrypted, so it is WeChat's, whatever it is; but there is one answer to all that cannot be opened.
        let inner = Format::of(&plain).unwrap_or(format);
        let message = Message::parse(inner, &plain)
            .map_err(|flaw| not_genuine(flaw.label(), &format!("what was encrypted: {flaw}")))?;
        Ok(Arrival {
            message,
            format,
            nonce,
            seal: Some(Seal {
                key: self.keys[key_slot].clone(),
                token: token.clone(),
                nonce: signed.nonce.to_owned(),
            }),
            slots: (token_slot, Some(key_slot)),
        })
    }

    /// The token that a signature was made with, and which that is.
    fn token_of(&self, parts: &[&str], signature: Option<&str>) -> Option<(usize, &Secret)> {
        let signature = signature?;
        // All are looked at, so that the time does not say which one it was.
        let mut found = None;
        for (slot, token) in self.tokens.iter().enumerate() {
            if is_signed(token.expose(), parts, signature) {
                found = found.or(Some((slot, token)));
            }
        }
        found
    }

    /// Clocks differ in both directions.
    fn is_fresh(&self, query: &Query<'_>, now: Timestamp) -> Result<(), Refused> {
        let time = query
            .time()
            .ok_or_else(|| not_genuine("timestamp", "the timestamp is missing, or no number"))?;
        let Some(max_age) = self.max_age else {
            return Ok(());
        };
        let apart = time.abs_diff(now.as_secs());
        if apart > max_age.as_secs() {
            let detail = format!(
                "its timestamp is {apart} s off ([push] max_age); is the clock of this machine right?"
            );
            return Err(not_genuine("stale", &detail));
        }
        Ok(())
    }

    fn format_of(&self, body: &[u8]) -> Result<Format, Refused> {
        let is = Format::of(body)
            .ok_or_else(|| malformed("syntax", "the body is neither XML nor JSON".to_owned()))?;
        match self.format {
            Some(told) if told != is => {
                let (is, told) = (is.label(), told.label());
                Err(malformed(
                    "format",
                    format!("it is {is}, and [push] format is \"{told}\""),
                ))
            }
            _ => Ok(is),
        }
    }

    /// What was encrypted, and which key opened it.
    fn open(&self, encrypted: &str) -> Result<(Zeroizing<Vec<u8>>, usize), Refused> {
        let mut first = None;
        for (slot, key) in self.keys.iter().enumerate() {
            match key.open(encrypted, &self.appid) {
                Ok(plain) => return Ok((plain, slot)),
                // That it was made for another app says more than that another key does not fit.
                Err(Flaw::Receiver) => first = Some(Flaw::Receiver),
                Err(flaw) => first = first.or(Some(flaw)),
            }
        }
        let flaw = first.unwrap_or(Flaw::Padding);
        Err(not_genuine(flaw.label(), &flaw.to_string()))
    }

    /// A reply in the form that its message had.
    pub(super) fn seal(
        &self,
        reply: Vec<u8>,
        format: Format,
        seal: Option<&Seal>,
        now: Timestamp,
    ) -> Vec<u8> {
        match seal {
            None => reply,
            Some(seal) => encrypted_reply(
                format,
                &seal.key,
                seal.token.expose(),
                &self.appid,
                now.as_secs(),
                &seal.nonce,
                crypto::random(),
                &reply,
            ),
        }
    }
}

impl Refused {
    /// As the sender is told.
    pub(super) fn to_error(&self) -> Error {
        if self.malformed {
            let detail = Sentence::english(self.detail.clone());
            return Error::downstream(Kind::BadRequest, detail);
        }
        let detail = (
            "this is not a message of WeChat's to this Mini Program",
            "这不是微信推送给本小程序的消息",
        );
        Error::downstream(Kind::PushRefused, detail).with_hint((
            "Token, EncodingAESKey, mode and AppID must be those at mp.weixin.qq.com; the sidecar's log says which one is not",
            "Token、EncodingAESKey、加密方式和 AppID 须与 mp.weixin.qq.com 上的一致；sidecar 的日志会指出哪一项不符",
        ))
    }
}

fn parse(query: &str) -> Result<Query<'_>, Refused> {
    Query::parse(query).map_err(|flaw| malformed("query", format!("in the query: {flaw}")))
}

fn signed<'q>(query: &'q Query<'_>) -> Result<Signed<'q>, Refused> {
    match (query.timestamp.as_deref(), query.nonce.as_deref()) {
        (Some(timestamp), Some(nonce)) => Ok(Signed { timestamp, nonce }),
        _ => Err(not_genuine("unsigned", "timestamp or nonce is missing")),
    }
}

fn hash_of(signed: &Signed<'_>) -> [u8; 16] {
    // No timestamp has a line break.
    let text = format!("nonce\n{}\n{}", signed.timestamp, signed.nonce);
    let mut hash = [0; 16];
    hash.copy_from_slice(&crypto::sha256(text.as_bytes())[..16]);
    hash
}

fn not_genuine(reason: &'static str, detail: &str) -> Refused {
    Refused {
        reason,
        detail: detail.to_owned(),
        malformed: false,
    }
}

fn malformed(reason: &'static str, detail: String) -> Refused {
    Refused {
        reason,
        detail,
        malformed: true,
    }
}

fn unreadable(flaw: &Flaw) -> Refused {
    malformed(flaw.label(), flaw.to_string())
}
