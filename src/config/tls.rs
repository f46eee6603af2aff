//! TLS: from PEM to what rustls works with.
//!
//! It is made whole while the configuration is read, so that `check`, the start and a reload refuse the same mistakes at
//! their place in the file, and no connection can be the first to find one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::diagnostic::Fault;
use crate::clock::Timestamp;
use crate::crypto::x509::{self, Validity};

/// What is spoken inside TLS, best first (ALPN, RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How many sessions are remembered for clients that cannot keep a ticket; one is less than a kilobyte.
const REMEMBERED_SESSIONS: usize = 1024;

/// `[inbound.tls]`
#[derive(Clone)]
pub struct Tls {
    /// How long a client may take for its handshake.
    pub handshake_timeout: Duration,
    /// Certificate, key and who is let in, ready for use. Sessions can be resumed as long as this lives: a ticket must
    /// not outlive the client certificates that were asked for when it was given.
    pub(crate) server: Arc<ServerConfig>,
    /// When each certificate of the chain is good, as far as that can be read.
    dates: Vec<Option<Validity>>,
}

/// Who vouches for the servers that we call.
#[derive(Clone, Debug)]
pub struct Authorities(pub(crate) Arc<RootCertStore>);

/// What the files hold.
pub(super) struct Material<'a> {
    pub(super) certificates: &'a [u8],
    pub(super) key: &'a [u8],
    /// Whoever has no certificate of one of these is not let in; `None` asks nobody.
    pub(super) client_ca: Option<&'a [u8]>,
}

/// Which of the files is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificates,
    Key,
    ClientCa,
}

impl Tls {
    pub(super) fn new(
        material: &Material<'_>,
        handshake_timeout: Duration,
    ) -> Result<Self, (Part, Fault)> {
        let certificates =
            certificates(material.certificates).map_err(|fault| (Part::Certificates, fault))?;
        let dates = certificates.iter().map(|der| x509::validity(der)).collect();
        let key = private_key(material.key).map_err(|fault| (Part::Key, fault))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match material.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(pem) => {
                client_verifier(pem, &provider).map_err(|fault| (Part::ClientCa, fault))?
            }
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites of TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, key)
            .map_err(|error| unusable(&error))?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        server.session_storage = ServerSessionMemoryCache::new(REMEMBERED_SESSIONS);
        // Without tickets every session has to be remembered here, which still works.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            server.ticketer = ticketer;
        }
        Ok(Self {
            handshake_timeout,
            server: Arc::new(server),
            dates,
        })
    }

    /// When the first certificate of the chain expires that does, in Unix time, as far as that can be read.
    pub(crate) fn expires(&self) -> Option<i64> {
        let dates = self.dates.iter().flatten();
        dates.map(|dates| dates.not_after).min()
    }

    /// What of the chain is not good at `now`, for people. It is served nevertheless: a client that does not look at dates,
    /// or whose clock is another, gets an answer, and a sidecar that does not start serves nobody.
    pub(crate) fn out_of_date(&self, now: Timestamp) -> Option<String> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.dates.iter().enumerate().find_map(|(index, dates)| {
            let dates = (*dates)?;
            let said = match () {
                () if dates.not_after < now => format!("expired at {}", date(dates.not_after)),
                () if now < dates.not_before => {
                    format!("is not valid before {}", date(dates.not_before))
                }
                () => return None,
            };
            Some(match index {
                0 => format!("the certificate {said}"),
                _ => format!("certificate {} of the chain {said}", index + 1),
            })
        })
    }
}

/// Of what no clock of ours can show, the nearest that it can.
fn date(seconds: i64) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Nothing of the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// Two that were read at different times count as different: their files may have changed.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.handshake_timeout == other.handshake_timeout
            && Arc::ptr_eq(&self.server, &other.server)
    }
}

impl Authorities {
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, Fault> {
        roots(pem).map(|roots| Self(Arc::new(roots)))
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Fault::new(
            "this file has no certificate: there is no `-----BEGIN CERTIFICATE-----` in it",
        )),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(Fault::new("this file has a certificate that is not PEM")),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => encrypted_or_missing(pem),
        _ => Fault::new("this file has a private key that is not PEM"),
    })
}

fn encrypted_or_missing(pem: &[u8]) -> Fault {
    if memchr::memmem::find(pem, b"BEGIN ENCRYPTED PRIVATE KEY").is_some() {
        return Fault::new(
            "this private key is encrypted, and nobody is there to type its password",
        )
        .help("openssl pkey -in encrypted.pem -out key.pem, and guard the file");
    }
    Fault::new("this file has no private key: there is no `-----BEGIN PRIVATE KEY-----` in it")
}

/// Whether this is PEM of certificates that can vouch for others.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let unreadable = || Fault::new("this file has a certificate that cannot be used as a root");
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| unreadable())?;
    }
    Ok(roots)
}

fn client_verifier(
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let roots = roots(pem)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error: VerifierBuilderError| Fault::new(error.to_string()))
}

fn unusable(error: &Error) -> (Part, Fault) {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => (
            Part::Key,
            Fault::new("this key is not that of the first certificate in `cert_file`")
                .help("the server's own certificate stands first, then those that vouch for it"),
        ),
        Error::InvalidCertificate(_) => (
            Part::Certificates,
            Fault::new("the first certificate in this file cannot be read"),
        ),
        // The provider says which keys it takes, and nothing about this one.
        _ => (
            Part::Key,
            Fault::new("this kind of private key cannot be used")
                .help("keys are RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519"),
        ),
    }
}
