//! The keys and signatures of standards, of WeChat's documentation and of OpenSSL.

use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::*;

/// The id of the standard's examples.
const USUAL_ID: &str = "1234567812345678";

/// From `openssl genpkey -algorithm SM2`, of OpenSSL 3.0.
const SM2_PKCS8: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqBHM9VAYItBG0wawIBAQQgNx/oRj3hlocnpritWcFXuuP6sLGOTH/A18nH5DYDmOihRANCAAQQMIAffMyLtOCoUHaa0CsaJO45Y8XnWpYMJfgxJbcbT/BT6AnohXSBH2onnuBlC4iZMMaXziRvEpJNKXa3cZsK";
/// The same key, from `openssl ec`.
const SM2_SEC1: &str = "MHcCAQEEIDcf6EY94ZaHJ6a4rVnBV7rj+rCxjkx/wNfJx+Q2A5jooAoGCCqBHM9VAYItoUQDQgAEEDCAH3zMi7TgqFB2mtArGiTuOWPF51qWDCX4MSW3G0/wU+gJ6IV0gR9qJ57gZQuImTDGl84kbxKSTSl2t3GbCg==";
/// Its public half.
const SM2_SPKI: &str = "MFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAEEDCAH3zMi7TgqFB2mtArGiTuOWPF51qWDCX4MSW3G0/wU+gJ6IV0gR9qJ57gZQuImTDGl84kbxKSTSl2t3GbCg==";
const SM2_ID: &str = "8a98f6bba1415c0c4f6879bda6807861";
/// Its signature of "attack at dawn" for that id, from `openssl pkeyutl`.
const SM2_SIGNATURE: &str = "304402205d8d60f429a1657375cdda29719ef603f0aa22d0d68a870af79a1c3c6c0aceaa02205e5b02bf077f48e6ca867fc8ecf59b7a973ad49baf3e0d61e738c341596fe896";

const RSA_1024_PKCS1: &str = "MIICXAIBAAKBgQC3YI8esUsE5noeXL+jE3/svky0ZrWRDa+BO1Tqr+AdHjTgAA60jY8KfgfF9CRrOuhvbLFDoePlmtoU3/afPHaucy39I5Ue6VxzI77QnhPSmumHx3fRnAXko7upTq7ZMbsZJGF4TO7FL3bqi9LiWrpoALITNb1i7p+vvnupQmpC6QIDAQABAoGAHuEnuKdqVpzpG4vKyY9TD27MQ+S31oFTeJOhLRQIzV500POxhj4ARGgMrwz5xQTad0j6YMU2N0foSXOdeBsacOSdauwFuOtKuIdL2SoAA2ROHogPcQdmpzt+qMeotwY1qiRPeZYKK2itCKr7UKk7RbiiDn8ZrYIcxQikeQ4CyMECQQDwjfj7kG0elXwriqqoX0BKFvQYeoY1xfTMfUZ1nnkn5n1jUfcdywE2edXkvQ5sKle+lEV8J116hkOAGieihsJlAkEAwybBCal2ej8JG+sFcP4G2V7OLoav6jNZecNYB+MIYSCXz672PxrTB+rFOffF6Ih6r/tOlF/RxqCKdaWqZLG0NQJBAJGvuipJFv0d1XzdV2vvfBUi/6RPmDa68/5gpKqZVpEGs8vSGVKO3uYqNZN5uGFj545BaC+/+4o4BGtx660v5k0CQBm7yIS/pfHk0gyuZx9JQBn12HZmKFhXwRq/WaJgm8BDDgHC7pHPtbg7ixpjw+Mv7A28s9X49K6eiOOOnvN8Q2kCQFRQWXxUyumhIN9A7lshxNBpjWiDYZAzU6Z9MZPJl/ng77bFYSF+Kru790f8ZfWaNEl0mVBMf4zhE87M95UO8/w=";
const RSA_1024_SPKI: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCckIHH341qQFYS5KSnlIVn/d2rgDy/gpWSrQfGWt5f7AH21Naz6ZyqqNdG2fzWWaHGXZlM/SKWjpSn80FebsN7+xWGBUBZpwXxUpefV9eSAe4yPlASrOtqbiIYWkcyrCx+mBmyoCPDK/WldZiTCwKPW5WKvkcqLgfzm/4QUquq3wIDAQAB";
const P256_PKCS8: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnkBavp73Y8BmwJSxv+UqQMEjgjt1b1h/CeETAuj4cn2hRANCAARHU8AHxDPvOiVA8yD/9+LRZW5QYEOhDdUXQna2n4arIsHfBnheWbT93fl+PGdiYaA+pWlyHm88oa/mlLptWkrw";

fn base64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

fn vector(name: &str) -> Value {
    let all = include_str!("../../../tests/vectors/api_security.json");
    let all: Vec<Value> = serde_json::from_str(all).unwrap();
    all.into_iter().find(|one| one["name"] == name).unwrap()
}

fn text<'v>(vector: &'v Value, part: &str, name: &str) -> &'v str {
    vector[part][name].as_str().unwrap()
}

fn certificate(vector: &Value, id: &str) -> (Certificate, Vec<u8>) {
    let pem = text(vector, "inputs", "platform_certificate_pem");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    (Certificate::parse(&der, id).unwrap(), der.to_vec())
}

fn private_key(vector: &Value, scheme: Scheme, id: &str) -> PrivateKey {
    let pem = text(vector, "inputs", "private_key_pem");
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    PrivateKey::parse(scheme, der.secret_der(), id).unwrap()
}

fn sm2_public(x: &str, y: &str, id: &str) -> PublicKey {
    let point = [&[4][..], &hex(x), &hex(y)].concat();
    let key = dsa::VerifyingKey::from_sec1_bytes(id, &point).unwrap();
    PublicKey(Public::Sm2(Box::new(key)))
}

/// DER of two integers.
fn pair(r: &str, s: &str) -> Vec<u8> {
    let scalars = [hex(r), hex(s)].concat();
    let signature = Signature::from_slice(&scalars).unwrap();
    signature.to_der().as_bytes().to_vec()
}

/// One of each scheme.
fn keys() -> [PrivateKey; 2] {
    let rsa = vector("apisec-rsa-pss-request-signature");
    let sm2 = vector("apisec-sm2-keypair");
    [
        private_key(&rsa, Scheme::RsaPss, "id"),
        private_key(&sm2, Scheme::Sm2, "id"),
    ]
}

/// GM/T 0003.5-2012, annex A.2.
#[test]
fn sm2_agrees_with_the_standards_example() {
    let key = sm2_public(
        "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020",
        "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13",
        USUAL_ID,
    );
    let signature = pair(
        "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3",
        "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa",
    );
    assert!(key.verifies(b"message digest", &signature));
    assert!(!key.verifies(b"message digesu", &signature));
}

#[test]
fn sm2_agrees_with_openssl() {
    let key = PublicKey::parse(&base64(SM2_SPKI), SM2_ID).unwrap();
    assert!(key.verifies(b"attack at dawn", &hex(SM2_SIGNATURE)));
    let other_id = PublicKey::parse(&base64(SM2_SPKI), USUAL_ID).unwrap();
    assert!(!other_id.verifies(b"attack at dawn", &hex(SM2_SIGNATURE)));
    for der in [SM2_PKCS8, SM2_SEC1] {
        let private = PrivateKey::parse(Scheme::Sm2, &base64(der), SM2_ID).unwrap();
        assert_eq!(private.public(), key);
        assert!(key.verifies(b"attack", &private.sign(b"attack")));
        assert_eq!(private.sign(b"attack"), private.sign(b"attack"));
    }
}

#[test]
fn the_documentations_sm2_key_pair_is_one() {
    let vector = vector("apisec-sm2-keypair");
    let x_y = vector["expected"]["public_key_xy_hex"].as_array().unwrap();
    let public = sm2_public(x_y[0].as_str().unwrap(), x_y[1].as_str().unwrap(), "id");
    assert_eq!(private_key(&vector, Scheme::Sm2, "id").public(), public);
    assert_ne!(private_key(&vector, Scheme::Sm2, "i").public(), public);
    let scalar = hex(text(&vector, "inputs", "private_key_hex"));
    let key = dsa::SigningKey::from_slice("id", &scalar).unwrap();
    let of_scalar = PrivateKey(Private::Sm2(Box::new(key)));
    assert_eq!(private_key(&vector, Scheme::Sm2, "id"), of_scalar);
}

#[test]
fn the_documentations_sm2_certificate_verifies_its_signature() {
    let vector = vector("apisec-sm2withsm3-signature");
    let id = text(&vector, "inputs", "sm2_id");
    let (certificate, der) = certificate(&vector, id);
    let serial = hex("681dbe765d84858209b75294df36159365dbefee");
    assert_eq!(certificate.serial, serial);
    let x_y = vector["inputs"]["signer_public_key_xy_hex"]
        .as_array()
        .unwrap();
    let by_hand = sm2_public(x_y[0].as_str().unwrap(), x_y[1].as_str().unwrap(), id);
    assert_eq!(certificate.key, by_hand);

    let message = text(&vector, "inputs", "to_be_signed");
    let signature = base64(text(&vector, "expected", "signature_der_base64"));
    assert!(certificate.key.verifies(message.as_bytes(), &signature));
    let usual = Certificate::parse(&der, USUAL_ID).unwrap();
    assert!(!usual.key.verifies(message.as_bytes(), &signature));
}

#[test]
fn the_documentations_rsa_key_and_certificate_verify_their_signatures() {
    let request = vector("apisec-rsa-pss-request-signature");
    let key = private_key(&request, Scheme::RsaPss, "").public();
    let response = vector("apisec-rsa-pss-response-signature");
    let (certificate, _) = certificate(&response, "");
    let serial = hex("784f98cbbbccfe8f9e1c7b1f33ed5b1892446534");
    assert_eq!(certificate.serial, serial);
    for (vector, key) in [(&request, &key), (&response, &certificate.key)] {
        let message = text(vector, "inputs", "to_be_signed").as_bytes();
        let signature = base64(text(vector, "expected", "signature"));
        assert!(key.verifies(message, &signature));
        assert!(!key.verifies(&message[1..], &signature));
    }
    assert_ne!(key, certificate.key);
}

#[test]
fn what_was_signed_is_verified_by_the_same_key_and_no_other() {
    let [rsa, sm2] = keys();
    for (key, other) in [(&rsa, &sm2), (&sm2, &rsa)] {
        let signature = key.sign(b"attack at dawn");
        let public = key.public();
        assert!(public.verifies(b"attack at dawn", &signature));
        assert!(!public.verifies(b"attack at dusk", &signature));
        assert!(!other.public().verifies(b"attack at dawn", &signature));
        assert!(!public.verifies(b"attack at dawn", b""));
        for at in 0..signature.len() {
            let mut broken = signature.clone();
            broken[at] ^= 1;
            assert!(!public.verifies(b"attack at dawn", &broken), "{at}");
            assert!(!public.verifies(b"attack at dawn", &signature[..at]));
        }
        assert_ne!(key.scheme(), other.scheme());
        assert_eq!(public.scheme(), key.scheme());
        assert!(key != other && key.public() == public);
    }
    assert_ne!(rsa.sign(b"a"), rsa.sign(b"a"), "there is salt in it");
}

#[test]
fn rsa_of_another_padding_or_salt_is_no_signature() {
    let [rsa, _] = keys();
    let Private::Rsa(pair) = &rsa.0 else {
        panic!("it is RSA");
    };
    let paddings: [&'static dyn aws_lc_rs::signature::RsaEncoding; 2] = [
        &RSA_PKCS1_SHA256,
        const { &RSA_PSS_SHA256.with_pss_salt_length(aws_lc_rs::signature::RsaPssSaltLength::Max) },
    ];
    for padding in paddings {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), b"m", &mut signature)
            .unwrap();
        assert!(!rsa.public().verifies(b"m", &signature), "{padding:?}");
    }
}

#[test]
fn a_key_of_another_kind_or_too_weak_is_none() {
    for der in [SM2_PKCS8, SM2_SEC1, P256_PKCS8, RSA_1024_PKCS1, ""] {
        let rsa = PrivateKey::parse(Scheme::RsaPss, &base64(der), "");
        assert!(rsa.is_none(), "{der}");
    }
    for der in [P256_PKCS8, RSA_1024_PKCS1, SM2_SPKI, ""] {
        let sm2 = PrivateKey::parse(Scheme::Sm2, &base64(der), "");
        assert!(sm2.is_none(), "{der}");
    }
    for der in [RSA_1024_SPKI, SM2_PKCS8, P256_PKCS8, ""] {
        assert!(PublicKey::parse(&base64(der), "").is_none(), "{der}");
    }
}

#[test]
fn a_broken_certificate_is_none() {
    for name in [
        "apisec-sm2withsm3-signature",
        "apisec-rsa-pss-response-signature",
    ] {
        let (_, der) = certificate(&vector(name), "");
        for at in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..at], ""), None);
            let mut broken = der.clone();
            broken[at] ^= 0xff;
            let _ = Certificate::parse(&broken, "");
        }
        let longer = [&der[..], &[0]].concat();
        assert_eq!(Certificate::parse(&longer, ""), None);
    }
}

#[test]
fn keys_are_not_printed() {
    let [rsa, sm2] = keys();
    assert_eq!(format!("{rsa:?}"), "PrivateKey(RsaPss)");
    assert_eq!(format!("{sm2:?}"), "PrivateKey(Sm2)");
    assert_eq!(format!("{:?}", sm2.public()), "PublicKey(Sm2)");
}
