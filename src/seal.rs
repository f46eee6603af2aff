//! Sealing under keys that rotate: what tokens and all that stands in a shared store have in common.
//!
//! ```text
//! version 1 | key id 4 | nonce 12 | AES-256-GCM-SIV( plaintext ) | tag 16
//! ```
//!
//! The keys are derived from secrets of the configuration, newest first: the first one seals, all of them open. What a
//! sealed thing is and where it belongs is in the associated data, so that none can be passed off as another.

use crate::crypto::{self, Aead, NONCE_LEN, TAG_LEN};
use crate::domain::AppId;
use crate::secret::Secret;

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

/// The keys for one purpose.
pub(crate) struct Seals(Vec<Seal>);

struct Seal {
    id: [u8; KEY_ID_LEN],
    aead: Aead,
}

/// What keys are for. The labels are those of HKDF, and never change.
pub(crate) struct Purpose {
    pub(crate) key: &'static [u8],
    pub(crate) id: &'static [u8],
}

impl Seals {
    /// Derives the keys from secrets, newest first. There is at least one secret.
    pub(crate) fn derive(appid: &AppId, secrets: &[Secret], purpose: &Purpose) -> Self {
        let seals = secrets.iter().map(|secret| {
            let material = secret.expose().as_bytes();
            let salt = appid.as_str().as_bytes();
            let [a, b, c, d, ..] = crypto::derive_key(material, salt, purpose.id);
            Seal {
                id: [a, b, c, d],
                aead: Aead::new(&crypto::derive_key(material, salt, purpose.key)),
            }
        });
        Self(seals.collect())
    }

    /// Seals `plaintext` together with `data`, which is needed to open it and is not in it.
    pub(crate) fn seal(&self, data: &[u8], mut plaintext: Vec<u8>) -> Vec<u8> {
        let seal = &self.0[0];
        let nonce = crypto::random();
        seal.aead.seal(nonce, data, &mut plaintext);
        let mut sealed = Vec::with_capacity(HEADER_LEN + plaintext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&seal.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plaintext);
        sealed
    }

    /// The plaintext, in place, if this was sealed by one of these keys with this `data`; and which key that was, counted
    /// from the newest.
    pub(crate) fn open<'s>(&self, data: &[u8], sealed: &'s mut [u8]) -> Option<(usize, &'s [u8])> {
        let (header, sealed) = sealed.split_first_chunk_mut::<HEADER_LEN>()?;
        let [version, rest @ ..] = *header;
        let (id, nonce) = rest.split_first_chunk::<KEY_ID_LEN>()?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().ok()?;
        if version != VERSION || sealed.len() < TAG_LEN {
            return None;
        }
        let slot = self.0.iter().position(|seal| seal.id == *id)?;
        let plain = self.0[slot].aead.open(nonce, data, sealed)?;
        Some((slot, plain))
    }
}
