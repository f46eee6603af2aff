//! Signatures of others' choice, and the certificates that say whose they are: RSASSA-PSS (RFC 8017) with SHA-256, MGF1
//! and a salt of 32 bytes, by aws-lc-rs, which blinds its use of the private key; SM2 with SM3 (GB/T 32918.2-2016), by
//! RustCrypto, with a nonce that follows from key and message (RFC 6979), so that no bad random number gives the key away.
//!
//! SM2 signs for somebody: both sides put a user's id before the message. So a key here is made with the id of its owner,
//! of which RSA knows nothing and takes no notice.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    RsaParameters,
};
use sm2::dsa::Signature;
use sm2::dsa::signature::{Signer as _, Verifier as _};
use sm2::pkcs8::der::asn1::AnyRef;
use sm2::pkcs8::der::{self, Decode as _, Reader as _, SliceReader, TagMode, TagNumber};
use sm2::pkcs8::spki::SubjectPublicKeyInfoRef;
use sm2::pkcs8::{DecodePrivateKey as _, ObjectIdentifier};
use sm2::{SecretKey, dsa};

/// `rsaEncryption` (RFC 8017, appendix C).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-ecPublicKey` (RFC 5480, section 2.1.1); of which curve, its parameters say.
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// The curve of SM2 (GM/T 0006-2012).
const SM2_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");

/// How something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RSASSA-PSS, with keys of 2048 to 8192 bits.
    RsaPss,
    /// SM2 with SM3; a signature is two integers in DER.
    Sm2,
}

/// A key that signs. Cannot be printed.
pub struct PrivateKey(Private);

enum Private {
    Rsa(Box<RsaKeyPair>),
    Sm2(Box<dsa::SigningKey>),
}

/// A key that verifies.
pub struct PublicKey(Public);

enum Public {
    Rsa(Box<ParsedPublicKey>),
    Sm2(Box<dsa::VerifyingKey>),
}

/// What of an X.509 certificate is needed to verify with it. That somebody vouches for it is not looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The number that its issuer has given it, big-endian.
    pub serial: Vec<u8>,
    /// The key of whom it is for.
    pub key: PublicKey,
}

impl PrivateKey {
    /// Reads a key from the DER of PKCS #8, PKCS #1 (RSA) or SEC 1 (SM2). `None` if it is none of the scheme's.
    pub fn parse(scheme: Scheme, der: &[u8], id: &str) -> Option<Self> {
        let key = match scheme {
            Scheme::RsaPss => {
                let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
                Private::Rsa(Box::new(pair.ok()?))
            }
            Scheme::Sm2 => {
                let key = SecretKey::from_pkcs8_der(der)
                    .ok()
                    .or_else(|| SecretKey::from_sec1_der(der).ok())?;
                Private::Sm2(Box::new(dsa::SigningKey::new(id, &key).ok()?))
            }
        };
        Some(Self(key))
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &RSA_PSS_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .expect("a key of 2048 bits or more has room for hash and salt");
                signature
            }
            Private::Sm2(key) => {
                // It fails only if r, s or r + k is zero, which is as likely as guessing the key.
                let signature: Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
        }
    }

    /// The key that others verify with, of the same id.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Rsa(pair) => Public::Rsa(Box::new(
                ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, pair.public_key())
                    .expect("the public half of a key that has been read can be read"),
            )),
            Private::Sm2(key) => Public::Sm2(Box::new(key.verifying_key().clone())),
        })
    }

    /// What it signs with.
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            Private::Rsa(_) => Scheme::RsaPss,
            Private::Sm2(_) => Scheme::Sm2,
        }
    }
}

impl PublicKey {
    /// Reads a key from the DER of a `SubjectPublicKeyInfo` (RFC 5280). `None` if it is of neither scheme.
    pub fn parse(der: &[u8], id: &str) -> Option<Self> {
        Self::of(&SubjectPublicKeyInfoRef::from_der(der).ok()?, id)
    }

    fn of(info: &SubjectPublicKeyInfoRef<'_>, id: &str) -> Option<Self> {
        let bits = info.subject_public_key.as_bytes()?;
        let oid = info.algorithm.oid;
        if oid == RSA {
            let strength = RsaParameters::public_modulus_len(bits).ok()?;
            let key = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, bits).ok()?;
            return (2048..=8192)
                .contains(&strength)
                .then(|| Self(Public::Rsa(Box::new(key))));
        }
        let curve = info.algorithm.parameters_oid().ok()?;
        if (oid, curve) != (ELLIPTIC, SM2_CURVE) {
            return None;
        }
        let key = dsa::VerifyingKey::from_sec1_bytes(id, bits).ok()?;
        Some(Self(Public::Sm2(Box::new(key))))
    }

    /// Whether `signature` is one of `message` by this key's owner.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::Rsa(key) => key.verify_sig(message, signature).is_ok(),
            Public::Sm2(key) => Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }

    /// What it verifies.
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            Public::Rsa(_) => Scheme::RsaPss,
            Public::Sm2(_) => Scheme::Sm2,
        }
    }
}

impl Certificate {
    /// Reads a certificate from its DER (RFC 5280). `None` if it cannot be read or its key is of neither scheme.
    pub fn parse(der: &[u8], id: &str) -> Option<Self> {
        let (serial, info) = serial_and_key(der).ok()?;
        Some(Self {
            serial: serial.to_vec(),
            key: PublicKey::of(&info, id)?,
        })
    }
}

/// Goes through a certificate as far as the key; what follows that need only be DER.
fn serial_and_key(der: &[u8]) -> der::Result<(&[u8], SubjectPublicKeyInfoRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let found = reader.sequence(|certificate| {
        let found = certificate.sequence(|body| {
            let _version: Option<u8> = body.context_specific(TagNumber(0), TagMode::Explicit)?;
            let serial = AnyRef::decode(body)?;
            let [_algorithm, _issuer, _validity, _subject] = [
                AnyRef::decode(body)?,
                AnyRef::decode(body)?,
                AnyRef::decode(body)?,
                AnyRef::decode(body)?,
            ];
            let info = SubjectPublicKeyInfoRef::decode(body)?;
            while !body.is_finished() {
                AnyRef::decode(body)?;
            }
            Ok::<_, der::Error>((serial.value(), info))
        })?;
        let [_algorithm, _signature] = [AnyRef::decode(certificate)?, AnyRef::decode(certificate)?];
        Ok::<_, der::Error>(found)
    })?;
    reader.finish()?;
    Ok(found)
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.scheme()).finish()
    }
}

/// Two that have one public key, and one id if that counts.
impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.scheme()).finish()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Public::Rsa(a), Public::Rsa(b)) => a.as_ref().as_ref() == b.as_ref().as_ref(),
            (Public::Sm2(a), Public::Sm2(b)) => {
                a.distid() == b.distid() && a.as_affine() == b.as_affine()
            }
            _ => false,
        }
    }
}

impl Eq for PublicKey {}

#[cfg(test)]
mod tests;
