//! The certificate that every proxy shows, made anew for each run, and the client that expects it.
//!
//! TLS 1.3 with one cipher suite and one group, and never a resumption, so that all contenders do the same work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Whom the clients ask for, with and without TLS.
pub(crate) const HOST: &str = "app.example.com";

/// The files, PEM each.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Certificate {
    /// A self-signed one for ECDSA with P-256, in `directory`, which nobody else may read.
    pub(crate) fn make(directory: &Path) -> Result<Certificate, String> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])
            .map_err(|error| format!("cannot make a certificate: {error}"))?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let written = |name: &str, text: &str| {
            let path = directory.join(name);
            crate::contender::write(&path, text).map(|()| path)
        };
        Ok(Certificate {
            both: written("both.pem", &format!("{certificate}{key}"))?,
            certificate: written("certificate.pem", &certificate)?,
            key: written("key.pem", &key)?,
        })
    }
}

/// A client that trusts the certificate in `file` and nothing else.
pub(crate) fn client(file: &Path) -> Result<Arc<ClientConfig>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = fs::read(file).map_err(|error| said(&error))?;
    let certificate = CertificateDer::from_pem_slice(&bytes).map_err(|error| said(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| said(&error))?;
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![kx_group::X25519];
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| said(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

pub(crate) fn server_name() -> Result<ServerName<'static>, String> {
    ServerName::try_from(HOST).map_err(|error| format!("{HOST}: {error}"))
}
