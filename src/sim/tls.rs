//! HTTPS, as WeChat speaks it: what the simulator shows of itself, and nothing asked of its clients.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::secret::Secret;

/// What the simulator shows its clients, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and those between it and a root.
    pub certificates: String,
    /// The certificate's private key.
    pub key: Secret,
}

impl Identity {
    /// What does the handshakes.
    pub(super) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(self.certificates.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|cause| invalid(format!("the certificates: {cause}")))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes())
            .map_err(|cause| invalid(format!("the key of the certificate: {cause}")))?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|cause| invalid(format!("certificate and key: {cause}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
