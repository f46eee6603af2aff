//! Bytes in, bytes out: the cryptography that the rest builds on, by aws-lc-rs where it has it.
//!
//! Nothing here knows of WeChat, of tokens, or what time it is.

pub mod base64url;
pub mod cbc;
pub mod gcm;
pub mod signature;
pub mod x509;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use aws_lc_rs::{digest, hkdf, hmac};

/// Length of an AEAD nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of an AEAD authentication tag in bytes.
pub const TAG_LEN: usize = 16;

/// Compares without telling by its duration where the two differ. Only the lengths may leak.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// SHA-1 of the parts as if they were one message. Only for what others chose long ago: it resists no collisions.
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 20];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// HMAC-SHA256 (RFC 2104) of the parts as if they were one message. The key may have any length.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// HKDF-SHA256 (RFC 5869): a 32-byte key for `purpose` from key material of any length.
pub fn derive_key(material: &[u8], salt: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(material)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are within HKDF-SHA256's output limit");
    out
}

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has no entropy source; nothing secure can be done then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("the operating system has an entropy source");
    out
}

/// Authenticated encryption with AES-256-GCM-SIV (RFC 8452).
///
/// The SIV mode because replicas seal under one long-lived key with random nonces and never coordinate: plain GCM's
/// bound of 2^32 messages would be reached within weeks on a busy app, and a repeated nonce would be fatal.
pub struct Aead(LessSafeKey);

impl Aead {
    /// A sealing and opening key.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key is 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `plaintext` in place and appends the tag.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], plaintext: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                plaintext,
            )
            .expect("sealing fails only beyond the cipher's length limit of 64 GiB");
    }

    /// Decrypts ciphertext and tag in place; `None` if they were not made with this key, nonce and `aad`.
    pub fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
            .ok()
    }
}

/// Signatures with Ed25519 (RFC 8032).
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key that belongs to a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes"))
    }

    /// What others verify with.
    pub fn public(&self) -> [u8; 32] {
        let key = self.0.public_key().as_ref();
        key.try_into().expect("a public key has 32 bytes")
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.0.sign(message);
        let bytes = signature.as_ref();
        bytes.try_into().expect("a signature has 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_with_the_same_key_nonce_and_aad() {
        let (key, other) = (Aead::new(&[1; 32]), Aead::new(&[2; 32]));
        let mut sealed = b"attack at dawn".to_vec();
        key.seal([7; NONCE_LEN], b"aad", &mut sealed);
        assert_eq!(sealed.len(), 14 + TAG_LEN);
        assert_eq!(
            key.open([7; NONCE_LEN], b"aad", &mut sealed.clone()),
            Some(&mut b"attack at dawn"[..].to_vec()[..])
        );
        assert_eq!(key.open([7; NONCE_LEN], b"aaD", &mut sealed.clone()), None);
        assert_eq!(key.open([8; NONCE_LEN], b"aad", &mut sealed.clone()), None);
        assert_eq!(
            other.open([7; NONCE_LEN], b"aad", &mut sealed.clone()),
            None
        );
    }

    #[test]
    fn sha256_agrees_with_fips_180_4() {
        assert_eq!(sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn sha1_agrees_with_fips_180_4_however_it_is_cut() {
        for parts in [&[&b"abc"[..]][..], &[b"a", b"", b"bc"]] {
            assert_eq!(sha1(parts)[..4], [0xa9, 0x99, 0x3e, 0x36]);
        }
    }

    #[test]
    fn signatures_agree_with_rfc_8032_test_1() {
        let seed = b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
        let key = SigningKey::from_seed(seed);
        assert_eq!(key.public()[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.sign(b"")[..4], [0xe5, 0x56, 0x43, 0x00]);
    }

    #[test]
    fn hmac_sha256_agrees_with_rfc_4231_case_2_however_it_is_cut() {
        for parts in [
            &[&b"what do ya want for nothing?"[..]][..],
            &[b"what do ya ", b"", b"want for nothing?"],
        ] {
            assert_eq!(hmac_sha256(b"Jefe", parts)[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        }
    }

    #[test]
    fn derive_key_agrees_with_rfc_5869_case_1() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        assert_eq!(
            derive_key(&[0x0b; 22], &salt, &info)[..4],
            [0x3c, 0xb2, 0x5f, 0x25]
        );
    }
}
