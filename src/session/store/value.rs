//! What a shared store holds: names that tell nothing, values that only we can read.
//!
//! A name is `<appid>:<kind>:<hash>`, the hash being half of a SHA-256: no openid, code or secret stands in it. A value is
//! sealed together with its name ([`Seals`]), so whoever can write to the store can neither make one, nor move one to
//! where it would mean something else. What does not open, or says what nobody here would say, is as good as absent.

use zeroize::Zeroizing;

use super::{Claimed, Family};
use crate::clock::Timestamp;
use crate::crypto;
use crate::domain::{AppId, OpenId, SessionKey};
use crate::seal::{Purpose, Seals};
use crate::secret::Secret;
use crate::session::Granted;
use crate::session::token::{Claims, SessionId};

const SEALS: Purpose = Purpose {
    key: b"wx-sidecar store key 1",
    id: b"wx-sidecar store key id 1",
};
const TAGS: &[u8] = b"wx-sidecar store tag key 1";
/// Length of what tells the elements of a ring apart.
pub(super) const TAG_LEN: usize = 16;

/// Names and values of one Mini Program.
pub(crate) struct Vault {
    appid: AppId,
    seals: Seals,
    tag_key: [u8; 32],
}

/// What can be stored: how it is written, and read if it was written so.
pub(crate) trait Stored: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A revocation, as all replicas are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    Session(SessionId),
    /// All sessions of a user that were started until then.
    User(OpenId, Timestamp),
}

/// A login code that has been seen.
#[derive(Clone)]
pub(crate) enum Login {
    /// It is being exchanged by the replica of this name.
    Claimed([u8; 16]),
    Done(Box<Granted>),
}

impl Vault {
    /// `secrets` are those of tokens, newest first.
    pub(crate) fn new(appid: &AppId, secrets: &[Secret]) -> Self {
        let newest = secrets.first().map_or("", Secret::expose);
        Self {
            appid: appid.clone(),
            seals: Seals::derive(appid, secrets, &SEALS),
            tag_key: crypto::derive_key(newest.as_bytes(), appid.as_str().as_bytes(), TAGS),
        }
    }

    /// The name of a value.
    pub(crate) fn name(&self, kind: &'static str, id: &[u8]) -> String {
        let hash = crypto::sha256(id);
        let half = crypto::hex(&hash[..16]);
        format!("{}:{kind}:{half}", self.appid)
    }

    /// The name of what there is one of.
    pub(crate) fn only(&self, kind: &'static str) -> String {
        format!("{}:{kind}", self.appid)
    }

    pub(crate) fn seal<V: Stored>(&self, name: &str, value: &V) -> Vec<u8> {
        self.seals.seal(name.as_bytes(), value.encode())
    }

    pub(crate) fn open<V: Stored>(&self, name: &str, sealed: &[u8]) -> Option<V> {
        let mut plain = Zeroizing::new(sealed.to_vec());
        let (_slot, plain) = self.seals.open(name.as_bytes(), &mut plain)?;
        V::decode(plain)
    }

    /// Tells whether two session keys of a ring are the same, to whom they are not shown.
    pub(super) fn tag(&self, name: &str, key: &SessionKey) -> [u8; TAG_LEN] {
        let tag = crypto::derive_key(key.expose(), &self.tag_key, name.as_bytes());
        let (tag, _) = tag.split_first_chunk().expect("a key is longer than a tag");
        *tag
    }
}

impl Stored for Family {
    fn encode(&self) -> Vec<u8> {
        let (current, since) = (self.current.to_be_bytes(), self.since.as_millis());
        [&current[..], &since.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (current, since) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            current: u32::from_be_bytes(*current),
            since: Timestamp::decode(since)?,
        })
    }
}

impl Stored for Timestamp {
    fn encode(&self) -> Vec<u8> {
        self.as_millis().to_be_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let millis = bytes.try_into().ok()?;
        Some(Self::from_millis(u64::from_be_bytes(millis)))
    }
}

impl Stored for SessionKey {
    fn encode(&self) -> Vec<u8> {
        self.expose().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes.try_into().ok()?))
    }
}

impl Stored for Revocation {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Session(session) => [b"s", &session.as_bytes()[..]].concat(),
            Self::User(user, until) => [b"u", &until.encode()[..], user.as_bytes()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (b's', session) => Some(Self::Session(SessionId::from_bytes(
                session.try_into().ok()?,
            ))),
            (b'u', rest) => {
                let (until, user) = rest.split_at_checked(8)?;
                let until = Timestamp::decode(until)?;
                Some(Self::User(OpenId::from_bytes(user).ok()?, until))
            }
            _ => None,
        }
    }
}

impl Stored for Login {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Claimed(owner) => [b"c", &owner[..]].concat(),
            Self::Done(granted) => {
                let mut out = b"d".to_vec();
                put(&mut out, &Zeroizing::new(granted.claims.encode()));
                put(&mut out, granted.access_token.expose().as_bytes());
                put(&mut out, granted.refresh_token.expose().as_bytes());
                out
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (b'c', owner) => Some(Self::Claimed(owner.try_into().ok()?)),
            (b'd', rest) => {
                let (claims, rest) = take(rest)?;
                let (access, rest) = take(rest)?;
                let (refresh, rest) = take(rest)?;
                let token = |bytes| Some(Secret::new(std::str::from_utf8(bytes).ok()?));
                let granted = Granted {
                    claims: Claims::decode(claims)?,
                    access_token: token(access)?,
                    refresh_token: token(refresh)?,
                    // Whoever shows it again counts anew.
                    expires_in: std::time::Duration::ZERO,
                };
                rest.is_empty().then(|| Self::Done(Box::new(granted)))
            }
            _ => None,
        }
    }
}

impl From<Login> for Claimed {
    fn from(login: Login) -> Self {
        match login {
            Login::Claimed(_) => Self::Elsewhere,
            Login::Done(granted) => Self::Done(granted),
        }
    }
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    let len = u16::try_from(part.len()).expect("claims and tokens have some hundred bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(part);
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
