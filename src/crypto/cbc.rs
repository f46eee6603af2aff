//! AES-CBC: with 128 bits WeChat encrypts what it hands to phones, with 256 what it pushes.
//!
//! The mode authenticates nothing, so whoever may try ciphertexts and learns which of them have good padding can decrypt
//! without the key. Hence padding is looked at without a branch on what it is, and the caller gets a length to go on
//! with either way.

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes128, Aes256};

/// Bytes in a block.
pub const BLOCK: usize = 16;

/// How a plaintext ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Where the text ends; the whole length if the padding is none.
    pub length: usize,
    /// Whether it is PKCS#7 padding (RFC 5652 §6.3).
    pub is_good: bool,
}

/// Decrypts whole blocks in place, padding included; false, and nothing done, if the last one is not whole.
pub fn decrypt(key: &[u8; BLOCK], iv: &[u8; BLOCK], data: &mut [u8]) -> bool {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return false;
    }
    cbc::Decryptor::<Aes128>::new(key.into(), iv.into()).decrypt_blocks(blocks);
    true
}

/// As [`decrypt`], with a key of 256 bits.
pub fn decrypt_256(key: &[u8; 32], iv: &[u8; BLOCK], data: &mut [u8]) -> bool {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return false;
    }
    cbc::Decryptor::<Aes256>::new(key.into(), iv.into()).decrypt_blocks(blocks);
    true
}

/// Fills up to a multiple of `multiple` bytes, by PKCS#7, and encrypts in place with a key of 256 bits.
///
/// # Panics
/// If `multiple` is not a multiple of [`BLOCK`], or is more than a byte can say.
pub fn encrypt_256(key: &[u8; 32], iv: &[u8; BLOCK], multiple: usize, data: &mut Vec<u8>) {
    let count = multiple - data.len() % multiple;
    let byte = u8::try_from(count).expect("padding is told by a byte");
    data.resize(data.len() + count, byte);
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    assert!(rest.is_empty(), "padding makes whole blocks");
    cbc::Encryptor::<Aes256>::new(key.into(), iv.into()).encrypt_blocks(blocks);
}

/// Looks at the padding of a plaintext of whole blocks. Takes as long whatever it finds.
pub fn padding(plain: &[u8]) -> Padding {
    padding_to::<BLOCK>(plain)
}

/// As [`padding`], where it may be up to `N` bytes long, and the plaintext is not shorter.
pub fn padding_to<const N: usize>(plain: &[u8]) -> Padding {
    let Some(last) = plain.last_chunk::<N>() else {
        return Padding {
            length: plain.len(),
            is_good: false,
        };
    };
    let count = last[N - 1];
    // One bit for each thing that is wrong.
    let mut wrong = u8::from(usize::from(count.wrapping_sub(1)) >= N);
    for (back, byte) in (1..).zip(last.iter().rev()) {
        let within = u8::from(count >= back);
        wrong |= within * (byte ^ count);
    }
    let is_good = wrong == 0;
    Padding {
        length: plain.len() - usize::from(count) * usize::from(is_good),
        is_good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.2.2.
    #[test]
    fn decrypt_agrees_with_sp_800_38a() {
        let hex = |text: &str| -> [u8; 16] {
            std::array::from_fn(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).unwrap())
        };
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let mut data = [
            hex("7649abac8119b246cee98e9b12e9197d"),
            hex("5086cb9b507219ee95db113a917678b2"),
        ]
        .concat();
        assert!(decrypt(&key, &iv, &mut data));
        assert_eq!(data[..16], hex("6bc1bee22e409f96e93d7e117393172a"));
        assert_eq!(data[16..], hex("ae2d8a571e03ac9c9eb76fac45af8e51"));
        assert!(!decrypt(&key, &iv, &mut [0; 17]));
        assert!(decrypt(&key, &iv, &mut []));
    }

    #[test]
    fn padding_is_so_many_bytes_of_their_own_number() {
        for count in 0..=u8::MAX {
            // No padding is that long, so none of the text can be taken for it.
            let mut plain = [0xee; 48];
            let pad = usize::from(count).min(48);
            plain[48 - pad..].fill(count);
            let is_good = (1..=16).contains(&count);
            let length = if is_good { 48 - pad } else { 48 };
            assert_eq!(padding(&plain), Padding { length, is_good }, "{count}");
            // Each of its bytes counts.
            for at in (48 - pad..47).filter(|_| is_good) {
                let mut broken = plain;
                broken[at] ^= 0x80;
                assert!(!padding(&broken).is_good, "{count} at {at}");
            }
        }
        assert!(!padding(&[]).is_good);
        assert!(!padding(&[1]).is_good, "not a whole block");
        assert_eq!(
            padding(&[16; 16]),
            Padding {
                length: 0,
                is_good: true
            }
        );
    }
}
