//! Galois/Counter Mode (NIST SP 800-38D), in the two forms that others demand: over AES-256 by aws-lc-rs, and over SM4 (RFC
//! 8998), which that has not.
//!
//! For what is ours there is [`Aead`](super::Aead): under one key of this mode no nonce may ever come twice, and random
//! ones are safe for some 2^32 messages. SM4 looks its S-box up in a table of four cache lines, which a stranger on the
//! same core might see through its cache; nobody sees it from the network.

use std::fmt;

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sm4::Sm4;
use zeroize::Zeroizing;

use super::{NONCE_LEN, TAG_LEN, constant_time_eq};

/// The block cipher below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES with keys of 32 bytes.
    Aes256,
    /// SM4 (GB/T 32907-2016), whose keys have 16 bytes.
    Sm4,
}

/// A key that seals and opens. Cannot be printed, and comparing two takes as long wherever they differ.
pub struct Gcm {
    key: Zeroizing<Vec<u8>>,
    cipher: Cipher,
    mode: Mode,
}

enum Mode {
    Aes256(Box<LessSafeKey>),
    Sm4(Box<AesGcm<Sm4, U12>>),
}

impl Cipher {
    /// How many bytes its keys have.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes256 => 32,
            Self::Sm4 => 16,
        }
    }
}

impl Gcm {
    /// A key of this cipher; `None` if the length is not that of one.
    pub fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        let mode = match cipher {
            Cipher::Aes256 => {
                let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
                Mode::Aes256(Box::new(LessSafeKey::new(key)))
            }
            Cipher::Sm4 => Mode::Sm4(Box::new(AesGcm::new_from_slice(key).ok()?)),
        };
        Some(Self {
            key: Zeroizing::new(key.to_vec()),
            cipher,
            mode,
        })
    }

    /// The cipher it is for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Encrypts `plaintext` in place and appends the tag.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], plaintext: &mut Vec<u8>) {
        let sealed = match &self.mode {
            Mode::Aes256(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, Aad::from(aad), plaintext)
                    .ok()
            }
            Mode::Sm4(key) => key.encrypt_in_place(&nonce.into(), aad, plaintext).ok(),
        };
        sealed.expect("sealing fails only beyond the mode's length limit of 64 GiB");
    }

    /// Decrypts ciphertext and tag in place; `None`, and no plaintext anywhere, if they were not made with this key,
    /// nonce and `aad`.
    pub fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        match &self.mode {
            Mode::Aes256(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(aad), sealed).ok()
            }
            Mode::Sm4(key) => {
                let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
                let tag = (*tag).into();
                key.decrypt_inout_detached(&nonce.into(), aad, (&mut *text).into(), &tag)
                    .ok()?;
                Some(text)
            }
        }
    }
}

impl fmt::Debug for Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gcm")
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Gcm {
    fn eq(&self, other: &Self) -> bool {
        self.cipher == other.cipher && constant_time_eq(&self.key, &other.key)
    }
}

impl Eq for Gcm {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn agrees(cipher: Cipher, key: &str, nonce: &str, aad: &str, plain: &str, sealed: &str) {
        let key = Gcm::new(cipher, &hex(key)).unwrap();
        let nonce = hex(nonce).try_into().unwrap();
        let (aad, mut plain, sealed) = (hex(aad), hex(plain), hex(sealed));
        let mut text = plain.clone();
        key.seal(nonce, &aad, &mut text);
        assert_eq!(text, sealed);
        assert_eq!(key.open(nonce, &aad, &mut text), Some(&mut plain[..]));
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
    #[test]
    fn aes_256_agrees_with_the_modes_authors() {
        agrees(
            Cipher::Aes256,
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
             76fc6ece0f4e1768cddf8853bb2d551b",
        );
    }

    /// RFC 8998, appendix A.1.
    #[test]
    fn sm4_agrees_with_rfc_8998() {
        agrees(
            Cipher::Sm4,
            "0123456789abcdeffedcba9876543210",
            "00001234567800000000abcd",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd
             eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
            "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735
             d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d
             83de3541e4c2b58177e065a9bf7b62ec",
        );
    }

    #[test]
    fn what_was_sealed_opens_only_as_it_is_and_with_the_same_key_nonce_and_aad() {
        for cipher in [Cipher::Aes256, Cipher::Sm4] {
            let key = Gcm::new(cipher, &vec![1; cipher.key_len()]).unwrap();
            let other = Gcm::new(cipher, &vec![2; cipher.key_len()]).unwrap();
            assert!(key == key && key != other);
            let mut sealed = b"attack at dawn".to_vec();
            key.seal([7; NONCE_LEN], b"aad", &mut sealed);
            let open = |key: &Gcm, nonce, aad: &[u8], sealed: &[u8]| {
                let mut sealed = sealed.to_vec();
                let opened = key.open([nonce; NONCE_LEN], aad, &mut sealed).is_some();
                // A failure gives nothing away.
                assert_eq!(opened, sealed.starts_with(b"attack"), "{cipher:?}");
                opened
            };
            assert!(open(&key, 7, b"aad", &sealed));
            assert!(!open(&other, 7, b"aad", &sealed));
            assert!(!open(&key, 8, b"aad", &sealed));
            assert!(!open(&key, 7, b"aaD", &sealed));
            for at in 0..sealed.len() {
                let mut broken = sealed.clone();
                broken[at] ^= 1;
                assert!(!open(&key, 7, b"aad", &broken), "{cipher:?} {at}");
                assert!(!open(&key, 7, b"aad", &sealed[..at]), "{cipher:?} {at}");
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_none_and_none_is_printed() {
        for cipher in [Cipher::Aes256, Cipher::Sm4] {
            for len in [0, 15, 16, 17, 24, 31, 32, 33] {
                let key = Gcm::new(cipher, &vec![0x5a; len]);
                assert_eq!(key.is_some(), len == cipher.key_len(), "{cipher:?} {len}");
                let printed = format!("{key:?}");
                assert!(
                    !printed.contains("90") && !printed.contains("5a"),
                    "{printed}"
                );
            }
        }
        let key = |cipher| Gcm::new(cipher, &[0; 16]);
        assert_eq!(key(Cipher::Sm4), key(Cipher::Sm4));
    }
}
