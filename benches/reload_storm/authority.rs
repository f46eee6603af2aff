//! Who signs the certificates, one for each generation, and whoever trusts it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::generation::Generation;

/// Whom clients ask for.
pub(crate) const HOST: &str = "app.example.com";

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// Which generation a certificate is of.
    issued: RefCell<HashMap<CertificateDer<'static>, Generation>>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            root,
            issued: RefCell::default(),
        })
    }

    /// The files of a generation, with a key that is not the certificate's.
    pub(crate) fn issue(
        &self,
        generation: Generation,
    ) -> Result<Vec<(String, String)>, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![HOST.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let mut issued = self.issued.borrow_mut();
        issued.insert(certificate.der().clone(), generation);
        let other = KeyPair::generate()?;
        Ok(vec![
            ("tls.crt".to_owned(), certificate.pem()),
            ("tls.key".to_owned(), key.serialize_pem()),
            ("other.key".to_owned(), other.serialize_pem()),
        ])
    }

    pub(crate) fn generation_of(&self, certificate: &CertificateDer<'_>) -> Option<Generation> {
        self.issued.borrow().get(certificate).copied()
    }

    /// A client that makes a whole handshake each time, or one that resumes if it can.
    pub(crate) fn client(&self, resumes: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            client.resumption = Resumption::disabled();
        }
        Ok(Arc::new(client))
    }
}
