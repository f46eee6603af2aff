//! Access and refresh tokens: sealed, versioned, bound to the appid and to their purpose.
//!
//! A token carries everything that a replica needs to know of the user, the session_key included, encrypted and
//! authenticated. So verifying takes no look-up, replicas share no state to agree, and a restart logs nobody out. What
//! a token cannot carry, that it was revoked, is the store's business.
//!
//! ```text
//! wxat_ base64url( sealed claims )
//! ```
//!
//! The prefix (`wxat_` access, `wxrt_` refresh) lets people and secret scanners recognise a token. Appid and purpose are
//! in the associated data: a token of another Mini Program, or a refresh token shown as an access token, does not open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::crypto::{self, base64url};
use crate::domain::{AppId, OpenId, SessionKey, UnionId, User};
use crate::seal::{self, Seals};
use crate::secret::Secret;

const SEALS: seal::Purpose = seal::Purpose {
    key: b"wx-sidecar token key 1",
    id: b"wx-sidecar token key id 1",
};
/// No token of ours is longer than this; anything longer is refused before it is looked at.
const MAX_TOKEN: usize = 512;
/// What the longest token decodes to.
const MAX_SEALED: usize = MAX_TOKEN / 4 * 3;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Shown with every request; short-lived.
    Access,
    /// Exchanged once for a new pair; long-lived.
    Refresh,
}

/// Names a session, from its login to its end; the family of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 16]);

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) session: SessionId,
    /// How many refreshes lie behind it.
    pub(crate) generation: u32,
    /// When the user logged in.
    pub(crate) started: Timestamp,
    /// When this token ends.
    pub(crate) expires: Timestamp,
    pub(crate) user: User,
    pub(crate) session_key: SessionKey,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Not one of ours, or not as we made it.
    Invalid,
    /// Good once.
    Expired,
}

/// Tells keys apart that were derived at different times, by a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeysId(u64);

/// The keys that tokens are sealed with.
pub(crate) struct TokenKeys {
    id: KeysId,
    access_data: Vec<u8>,
    refresh_data: Vec<u8>,
    seals: Seals,
}

impl Purpose {
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "wxat_",
            Self::Refresh => "wxrt_",
        }
    }
}

impl SessionId {
    pub(crate) fn random() -> Self {
        Self(crypto::random())
    }

    #[cfg(any(feature = "redis", test, fuzzing))]
    pub(super) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[cfg(any(feature = "redis", test, fuzzing))]
    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TokenKeys {
    /// Derives the keys from secrets, newest first. There is at least one secret.
    pub(crate) fn derive(appid: &AppId, secrets: &[Secret]) -> Self {
        let data = |purpose: Purpose| format!("{}{appid}", purpose.prefix()).into_bytes();
        static DERIVED: AtomicU64 = AtomicU64::new(0);
        Self {
            id: KeysId(DERIVED.fetch_add(1, Ordering::Relaxed)),
            access_data: data(Purpose::Access),
            refresh_data: data(Purpose::Refresh),
            seals: Seals::derive(appid, secrets, &SEALS),
        }
    }

    pub(crate) fn id(&self) -> KeysId {
        self.id
    }

    /// Seals `claims` into a token.
    pub(crate) fn mint(&self, purpose: Purpose, claims: &Claims) -> String {
        let data = self.associated_data(purpose);
        let token = self.seals.seal(data, claims.encode());
        let mut text = purpose.prefix().to_owned();
        URL_SAFE_NO_PAD.encode_string(token, &mut text);
        text
    }

    /// Opens a token. The caller still has to ask whether it was revoked.
    pub(crate) fn verify(
        &self,
        purpose: Purpose,
        token: &[u8],
        now: Timestamp,
    ) -> Result<Claims, Unusable> {
        let (_slot, claims) = self.open(purpose, token).ok_or(Unusable::Invalid)?;
        if claims.has_expired(now) {
            Err(Unusable::Expired)
        } else {
            Ok(claims)
        }
    }

    /// What a token says, if it is one of ours; it may have expired. And which key it was sealed with, counted from the
    /// newest.
    pub(crate) fn open(&self, purpose: Purpose, token: &[u8]) -> Option<(usize, Claims)> {
        let text = token.strip_prefix(purpose.prefix().as_bytes())?;
        if text.len() > MAX_TOKEN {
            return None;
        }
        let mut bytes = [0; MAX_SEALED];
        let bytes = base64url::decode(text, &mut bytes)?;
        let (slot, plain) = self.seals.open(self.associated_data(purpose), bytes)?;
        Claims::decode(plain).map(|claims| (slot, claims))
    }

    /// What is authenticated beside the claims: what the token is for, and whose it is.
    fn associated_data(&self, purpose: Purpose) -> &[u8] {
        match purpose {
            Purpose::Access => &self.access_data,
            Purpose::Refresh => &self.refresh_data,
        }
    }
}

impl Claims {
    /// Whether the token has come to its end.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// How long the token has left.
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        self.expires.since(now)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.started.as_millis().to_be_bytes());
        out.extend_from_slice(&self.expires.as_millis().to_be_bytes());
        out.extend_from_slice(self.session_key.expose());
        for text in [
            self.user.openid.as_str(),
            self.user.unionid.as_ref().map_or("", UnionId::as_str),
        ] {
            out.push(u8::try_from(text.len()).expect("user ids have at most 64 characters"));
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = bytes.split_first_chunk::<16>()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (started, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (session_key, rest) = rest.split_first_chunk::<16>()?;
        let (openid, rest) = split_text(rest)?;
        let (unionid, rest) = split_text(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let unionid = match unionid {
            [] => None,
            text => Some(UnionId::from_bytes(text).ok()?),
        };
        Some(Self {
            session: SessionId(*session),
            generation: u32::from_be_bytes(*generation),
            started: Timestamp::from_millis(u64::from_be_bytes(*started)),
            expires: Timestamp::from_millis(u64::from_be_bytes(*expires)),
            user: User {
                openid: OpenId::from_bytes(openid).ok()?,
                unionid,
            },
            session_key: SessionKey::from_bytes(*session_key),
        })
    }
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn keys(appid: &str, secrets: &[&str]) -> TokenKeys {
        let secrets: Vec<_> = secrets.iter().copied().map(Secret::new).collect();
        TokenKeys::derive(&AppId::parse(appid).unwrap(), &secrets)
    }

    fn ours() -> TokenKeys {
        keys("wx0123456789abcdef", &["secret"])
    }

    fn claims() -> Claims {
        Claims {
            session: SessionId([7; 16]),
            generation: 3,
            started: NOW,
            expires: NOW.plus(Duration::from_secs(60)),
            user: User {
                openid: OpenId::parse("o6zAJs1ZfWpsZ3G8vVCxxxxxxxxx").unwrap(),
                unionid: Some(UnionId::parse("union-1").unwrap()),
            },
            session_key: SessionKey::from_bytes([9; 16]),
        }
    }

    #[test]
    fn a_token_says_what_was_sealed_into_it() {
        let token = ours().mint(Purpose::Access, &claims());
        assert_eq!(
            ours().verify(Purpose::Access, token.as_bytes(), NOW),
            Ok(claims())
        );
    }

    #[test]
    fn a_token_ends_at_its_expiry_to_the_millisecond() {
        let token = ours().mint(Purpose::Access, &claims());
        let at = |millis| {
            ours().verify(
                Purpose::Access,
                token.as_bytes(),
                NOW.plus(Duration::from_millis(millis)),
            )
        };
        assert!(at(59_999).is_ok());
        assert_eq!(at(60_000), Err(Unusable::Expired));
    }

    #[test]
    fn a_token_of_another_purpose_app_or_secret_is_refused() {
        let token = ours().mint(Purpose::Refresh, &claims());
        let as_access = token.replace("wxrt_", "wxat_");
        let refused = Err(Unusable::Invalid);
        assert_eq!(
            ours().verify(Purpose::Access, as_access.as_bytes(), NOW),
            refused
        );
        assert_eq!(
            ours().verify(Purpose::Access, token.as_bytes(), NOW),
            refused
        );
        let other_app = keys("wxfedcba9876543210", &["secret"]);
        assert_eq!(
            other_app.verify(Purpose::Refresh, token.as_bytes(), NOW),
            refused
        );
        let other_secret = keys("wx0123456789abcdef", &["secrets"]);
        assert_eq!(
            other_secret.verify(Purpose::Refresh, token.as_bytes(), NOW),
            refused
        );
    }

    #[test]
    fn during_a_rotation_both_keys_open_and_the_new_one_seals() {
        let (old, both, new) = (
            ours(),
            keys("wx0123456789abcdef", &["new", "secret"]),
            keys("wx0123456789abcdef", &["new"]),
        );
        let from_old = old.mint(Purpose::Access, &claims());
        let from_both = both.mint(Purpose::Access, &claims());
        assert!(
            both.verify(Purpose::Access, from_old.as_bytes(), NOW)
                .is_ok()
        );
        assert!(
            new.verify(Purpose::Access, from_both.as_bytes(), NOW)
                .is_ok()
        );
        assert!(
            new.verify(Purpose::Access, from_old.as_bytes(), NOW)
                .is_err()
        );
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let token = ours().mint(Purpose::Access, &claims());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(
                ours().verify(Purpose::Access, &bytes, NOW).is_err(),
                "at {at}"
            );
        }
    }

    #[test]
    fn truncated_padded_and_overlong_tokens_are_refused() {
        let token = ours().mint(Purpose::Access, &claims());
        for len in 0..token.len() {
            assert!(
                ours()
                    .verify(Purpose::Access, &token.as_bytes()[..len], NOW)
                    .is_err()
            );
        }
        for text in [
            format!("{token}="),
            format!("{token}A"),
            format!(" {token}"),
            format!("{token}\n"),
        ] {
            assert!(
                ours()
                    .verify(Purpose::Access, text.as_bytes(), NOW)
                    .is_err()
            );
        }
        let huge = format!("wxat_{}", "A".repeat(1 << 20));
        assert!(
            ours()
                .verify(Purpose::Access, huge.as_bytes(), NOW)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_token_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(ours().verify(Purpose::Access, &bytes, NOW).is_err());
            let _ = Claims::decode(&bytes);
        }
    }
}
