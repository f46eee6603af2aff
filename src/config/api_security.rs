//! Keys of API security: from text, base64 and PEM to what works.
//!
//! They are read while the configuration is, as a certificate's key is (`tls`): a key that cannot be used is told at its place
//! in the file, and not by the first call that WeChat refuses.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::diagnostic::{Fault, nearest};
use super::raw;
use crate::crypto;
use crate::crypto::gcm::{Cipher, Gcm};
use crate::crypto::signature::{Certificate, PrivateKey, PublicKey, Scheme};
use crate::wechat::api_security::{DEMANDED, DOCUMENTED, KeyNumber, is_known};

/// The names at mp.weixin.qq.com.
pub(super) const CIPHERS: &[(&str, Cipher)] =
    &[("AES256_GCM", Cipher::Aes256), ("SM4_GCM", Cipher::Sm4)];

/// The names at mp.weixin.qq.com.
pub(super) const SCHEMES: &[(&str, Scheme)] = &[
    ("RSAwithSHA256", Scheme::RsaPss),
    ("SM2withSM3", Scheme::Sm2),
];

/// How OpenSSL 3.0 calls an SM2 key in the form of SEC 1, and how everybody else does.
const SM2_LABELS: (&str, &str) = ("SM2 PRIVATE KEY", "EC PRIVATE KEY");

/// A certificate that has been read.
pub(super) struct PlatformKey {
    pub(super) key: PublicKey,
    /// Whether it was numbered by its serial number.
    pub(super) doubtful_number: bool,
}

/// That a key of the section is missing.
pub(super) fn missing(raw: &raw::ApiSecurity, name: &str) -> (Option<Range<usize>>, Fault) {
    let help = match name {
        "paths" => "write paths = \"all\", or a list such as [\"/wxa/getuserriskrank\"]",
        "sym_algorithm" => "write sym_algorithm = \"AES256_GCM\" or \"SM4_GCM\"",
        "sym_key" => "write sym_key = \"${WX_SYM_KEY}\" or sym_key_file = \"/path\"",
        "asym_algorithm" => "write asym_algorithm = \"RSAwithSHA256\" or \"SM2withSM3\"",
        "private_key" => {
            "write private_key_file = \"/path\" or private_key = \"${WX_PRIVATE_KEY}\""
        }
        "certificate_file" => {
            "write certificate_file = \"/path\", with WeChat's certificate (开放平台证书)"
        }
        _ => "it is shown beside the key at mp.weixin.qq.com, under 开发管理, as 编号",
    };
    let fault = Fault::new(format!("`[wechat.api_security] {name}` is missing")).help(help);
    (raw.header.clone(), fault)
}

/// The path of an API; `None` for "all".
pub(super) fn path(text: &str) -> Result<Option<String>, Fault> {
    if text == "all" {
        return Ok(None);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.');
    if text.starts_with('/') && text.bytes().all(plain) {
        return Ok(Some(text.to_owned()));
    }
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let meant = rest.find('/').map(|at| &rest[at..]);
    let fault = Fault::new("an API's path is written as WeChat has it, without host and query");
    // Anything may stand here by mistake, and only a path that is known is quoted.
    Err(match meant.filter(|path| is_known(path)) {
        Some(path) => fault.help(format!("write \"{path}\"")),
        None => fault.help("write it like \"/wxa/getuserriskrank\""),
    })
}

/// What is doubtful about a path.
pub(super) fn doubt_about(path: &str) -> Option<Fault> {
    if is_known(path) {
        return None;
    }
    let known = DOCUMENTED.iter().chain(&DEMANDED).copied();
    let fault = Fault::new("WeChat's documentation does not say that this API can be encrypted");
    Some(match nearest(path, known) {
        Some(near) => fault.help(format!("did you mean \"{near}\"?")),
        None => fault,
    })
}

/// A key's number.
pub(super) fn number(text: &str) -> Result<KeyNumber, Fault> {
    KeyNumber::parse(text).map_err(|malformed| {
        Fault::new(malformed.to_string())
            .help("it is shown beside the key at mp.weixin.qq.com, under 开发管理, as 编号")
    })
}

/// What is doubtful about a number.
pub(super) fn doubt_about_number(number: &KeyNumber) -> Option<Fault> {
    let text = number.as_str();
    let usual = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    (!usual).then(|| {
        Fault::new("this does not look like a key's number, which is 32 hexadecimal digits")
            .help("it is shown beside the key at mp.weixin.qq.com, under 开发管理, as 编号")
    })
}

/// That a certificate was numbered by its serial number.
pub(super) fn own_serial() -> Fault {
    Fault::new("this is the serial number in the certificate, and WeChat goes by another one")
        .help("it is shown beside the certificate at mp.weixin.qq.com, under 开发管理, as 编号")
}

/// The key that is encrypted with.
pub(super) fn symmetric(cipher: Cipher, text: &str) -> Result<Gcm, Fault> {
    let bytes = STANDARD.decode(text).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| {
        Fault::new("this key is not base64").help("write it as mp.weixin.qq.com shows it")
    })?;
    Gcm::new(cipher, &bytes).ok_or_else(|| {
        let name = name_of(CIPHERS, &cipher);
        let len = cipher.key_len();
        let fault = Fault::new(format!("a key of {name} has {len} bytes, in base64"));
        let fitting = CIPHERS.iter().find(|(_, it)| it.key_len() == bytes.len());
        match fitting {
            Some((name, _)) => {
                fault.help(format!("this one would be for sym_algorithm = \"{name}\""))
            }
            None => fault.help("write it as mp.weixin.qq.com shows it"),
        }
    })
}

/// The key that is signed with.
pub(super) fn private(scheme: Scheme, pem: &str, id: &str) -> Result<PrivateKey, Fault> {
    let name = name_of(SCHEMES, &scheme);
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Fault::new(
            "this private key is encrypted, and nobody is there to type its password",
        )
        .help("openssl pkey -in encrypted.pem -out key.pem, and guard the file"));
    }
    let pem = Zeroizing::new(pem.replace(SM2_LABELS.0, SM2_LABELS.1));
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map(Zeroizing::new);
    let der = der.map_err(|_| {
        Fault::new("this is no private key in PEM, from `-----BEGIN` to `-----END`")
            .help("its line breaks count; `private_key_file` keeps them")
    })?;
    let read = |scheme| PrivateKey::parse(scheme, der.secret_der(), id);
    read(scheme).ok_or_else(|| {
        let fault = Fault::new(format!("this is no private key for {name}"));
        let fitting = SCHEMES.iter().find(|(_, scheme)| read(*scheme).is_some());
        match (fitting, scheme) {
            (Some((name, _)), _) => {
                fault.help(format!("this one would be for asym_algorithm = \"{name}\""))
            }
            (None, Scheme::RsaPss) => {
                fault.help("it is RSA of 2048 to 8192 bits, in PKCS #8 or PKCS #1")
            }
            (None, Scheme::Sm2) => fault.help("it is a key of the curve SM2, in PKCS #8 or SEC 1"),
        }
    })
}

/// The one certificate of a file, in DER.
pub(super) fn certificate(pem: &[u8]) -> Result<CertificateDer<'static>, Fault> {
    let mut all = CertificateDer::pem_slice_iter(pem);
    let first = match all.next() {
        None => Err(Fault::new(
            "this file has no certificate: there is no `-----BEGIN CERTIFICATE-----` in it",
        )),
        Some(Err(_)) => Err(Fault::new("this file has a certificate that is not PEM")),
        Some(Ok(first)) => Ok(first),
    }?;
    match all.next() {
        None => Ok(first),
        Some(_) => Err(Fault::new(
            "this file has more than one certificate, and each has a number of its own",
        )
        .help("put them into files of their own: certificate_file = [\"new\", \"old\"]")),
    }
}

/// What WeChat's answers are verified with.
pub(super) fn platform_key(
    der: &CertificateDer<'_>,
    number: &KeyNumber,
) -> Result<PlatformKey, Fault> {
    let certificate = Certificate::parse(der, number.as_str()).ok_or_else(|| {
        Fault::new("this certificate cannot be used: its key is neither RSA nor SM2")
            .help("download it at mp.weixin.qq.com, under 开发管理, as 开放平台证书")
    })?;
    let serial = crypto::hex(&certificate.serial);
    let written = number.as_str().to_ascii_lowercase();
    Ok(PlatformKey {
        key: certificate.key,
        doubtful_number: written.trim_start_matches('0') == serial.trim_start_matches('0'),
    })
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], wanted: &T) -> &'static str {
    names
        .iter()
        .find(|(_, it)| it == wanted)
        .map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests;
