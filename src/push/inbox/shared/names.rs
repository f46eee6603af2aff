//! Names and seals of what stands in Redis.
//!
//! All names of one Mini Program have one hash tag, so that a script finds all that it needs on one node of a Cluster. No name
//! says anything: identities and nonces are hashes. What is written is sealed together with the name of the stream that it
//! stands in, because it is what users have said.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::config::Config;
use crate::crypto;
use crate::domain::AppId;
use crate::push::entry::Entry;
use crate::seal::{Purpose, Seals};
use crate::secret::Secret;

/// Into how many parts the lanes are divided. Replicas of different versions must agree, so it never changes.
pub(super) const PARTS: usize = 16;

const SEALS: Purpose = Purpose {
    key: b"wx-sidecar push inbox key 1",
    id: b"wx-sidecar push inbox key id 1",
};

/// The form of what is sealed. Others were written by a newer version.
const FORM: u8 = 1;

/// Names and seals.
pub(super) struct Names {
    appid: AppId,
    parts: [String; PARTS],
    leases: [String; PARTS],
    pub(super) dead: String,
    /// Numbers: how much there is, and the last number that was given.
    pub(super) sums: String,
    /// Who delivers, and until when that is believed.
    pub(super) members: String,
    /// What an operator has taken out a moment ago.
    pub(super) dropped: String,
    seals: ArcSwap<Seals>,
}

/// The place of an entry in a stream: its number, and a mark by chance. Redis may lose the end of what it knew and give
/// numbers again; the mark is why what was delivered before is never mistaken for what came after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) number: u64,
    pub(super) mark: u64,
}

/// What an entry of a stream says.
pub(super) struct Opened {
    pub(super) identity: [u8; 16],
    /// Whether somebody waits for the app's answer.
    pub(super) is_awaited: bool,
    pub(super) entry: Entry,
}

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let appid = config.app.appid.clone();
        let name = |kind: &str| format!("{{{appid}}}:push:{kind}");
        Self {
            parts: std::array::from_fn(|part| name(&format!("part:{part}"))),
            leases: std::array::from_fn(|part| name(&format!("lease:{part}"))),
            dead: name("dead"),
            sums: name("sums"),
            members: name("members"),
            dropped: name("dropped"),
            seals: ArcSwap::from_pointee(seals(&appid, config.sealing_secrets())),
            appid,
        }
    }

    /// Seals with the keys of this configuration from now on. The names stay those of the Mini Program that there was at the
    /// start: what waits under them has to be found.
    pub(super) fn rekey(&self, config: &Config) {
        let seals = seals(&self.appid, config.sealing_secrets());
        self.seals.store(Arc::new(seals));
    }

    pub(super) fn part(&self, part: usize) -> &str {
        &self.parts[part]
    }

    pub(super) fn parts(&self) -> &[String] {
        &self.parts
    }

    pub(super) fn leases(&self) -> &[String] {
        &self.leases
    }

    /// The name of what there is one of for each of many.
    pub(super) fn of(&self, kind: &str, hash: &[u8; 16]) -> String {
        format!("{{{}}}:push:{kind}:{}", self.appid, crypto::hex(hash))
    }

    /// A message for the stream `name`.
    pub(super) fn seal(
        &self,
        name: &str,
        identity: [u8; 16],
        is_awaited: bool,
        entry: &Entry,
    ) -> Vec<u8> {
        let written = entry.encode();
        let mut plain = Vec::with_capacity(18 + written.len());
        plain.extend_from_slice(&[FORM, u8::from(is_awaited)]);
        plain.extend_from_slice(&identity);
        plain.extend_from_slice(&written);
        self.seals.load().seal(name.as_bytes(), plain)
    }

    /// What stands in the stream `name`; `None` if we have not written it, or not with these keys.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Opened> {
        let mut plain = sealed.to_vec();
        let seals = self.seals.load();
        let (_slot, plain) = seals.open(name.as_bytes(), &mut plain)?;
        let ([FORM, is_awaited], rest) = plain.split_first_chunk::<2>()? else {
            return None;
        };
        let (identity, written) = rest.split_first_chunk::<16>()?;
        Some(Opened {
            identity: *identity,
            is_awaited: *is_awaited == 1,
            entry: Entry::decode(written)?,
        })
    }

    /// What the app has answered.
    pub(super) fn seal_answer(&self, name: &str, answer: &[u8]) -> Vec<u8> {
        self.seals.load().seal(name.as_bytes(), answer.to_vec())
    }

    pub(super) fn open_answer(&self, name: &str, sealed: &[u8]) -> Option<Bytes> {
        let mut plain = sealed.to_vec();
        let seals = self.seals.load();
        let (_slot, plain) = seals.open(name.as_bytes(), &mut plain)?;
        Some(Bytes::copy_from_slice(plain))
    }
}

/// The part that a lane belongs to.
pub(super) fn part_of(lane: u64) -> usize {
    let part = lane % PARTS as u64;
    usize::try_from(part).expect("there are few parts")
}

/// A mark for the next entry.
pub(super) fn mark() -> u32 {
    u32::from_be_bytes(crypto::random())
}

fn seals(appid: &AppId, secrets: &[Secret]) -> Seals {
    Seals::derive(appid, secrets, &SEALS)
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, mark) = text.split_once('-')?;
        Some(Self {
            number: number.parse().ok()?,
            mark: mark.parse().ok()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.mark)
    }
}
