//! Pseudonyms: what the log calls a user.
//!
//! ```text
//! key       = HKDF-SHA256( secret, salt = appid, info = "wx-sidecar pseudonym key 1" )
//! pseudonym = base64url( the first 16 bytes of HMAC-SHA256( key, openid ) )
//! ```
//!
//! The secret is the newest that tokens are sealed with. So a user has the same pseudonym in all replicas and after a
//! restart, another in another Mini Program, and nobody who has a list of openids finds out whose it is without the secret.
//! Who has it asks `wx-sidecar pseudonym`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::crypto;
use crate::domain::{AppId, OpenId};
use crate::secret::Secret;

/// The label of HKDF. It never changes.
const KEY: &[u8] = b"wx-sidecar pseudonym key 1";
/// How many bytes of the code are told.
const TOLD: usize = 16;
/// How many characters those are.
const LENGTH: usize = 22;

/// Gives users their pseudonyms.
pub(crate) struct Pseudonyms(Zeroizing<[u8; 32]>);

/// What the log calls a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pseudonym([u8; LENGTH]);

impl Pseudonyms {
    /// Derives the key from a secret.
    pub(crate) fn derive(appid: &AppId, secret: &Secret) -> Self {
        let (material, salt) = (secret.expose().as_bytes(), appid.as_str().as_bytes());
        Self(Zeroizing::new(crypto::derive_key(material, salt, KEY)))
    }

    /// The pseudonym of a user.
    pub(crate) fn of(&self, openid: &OpenId) -> Pseudonym {
        let code = crypto::hmac_sha256(&*self.0, &[openid.as_str().as_bytes()]);
        let mut text = [0; LENGTH];
        URL_SAFE_NO_PAD
            .encode_slice(&code[..TOLD], &mut text)
            .expect("so many bytes are so many characters");
        Pseudonym(text)
    }
}

impl Pseudonym {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(appid: &str, secret: &str, openid: &str) -> String {
        let appid = AppId::parse(appid).unwrap();
        let pseudonyms = Pseudonyms::derive(&appid, &Secret::new(secret));
        pseudonyms.of(&OpenId::parse(openid).unwrap()).to_string()
    }

    /// Computed by another implementation:
    /// `prk = hmac(appid, secret); key = hmac(prk, info + b"\x01"); b64(hmac(key, openid)[:16])`.
    #[test]
    fn a_pseudonym_never_changes() {
        assert_eq!(
            of(
                "wx0123456789abcdef",
                "0123456789abcdef0123456789abcdef",
                "o6zAJs1Zf_WpsZ3G8vVC-abcdefg"
            ),
            "XNszlnxpqZsxRIYpfChbAg"
        );
    }

    #[test]
    fn a_pseudonym_is_another_for_another_user_app_or_secret() {
        let (appid, secret, openid) = (
            "wx0123456789abcdef",
            "0123456789abcdef0123456789abcdef",
            "oAlice0000000000000000000000",
        );
        let it = of(appid, secret, openid);
        assert_ne!(it, of("wxffffffffffffffff", secret, openid));
        assert_ne!(it, of(appid, "ffffffffffffffffffffffffffffffff", openid));
        assert_ne!(it, of(appid, secret, "oAlice0000000000000000000001"));
    }
}
