//! TLS towards clients: handshakes, certificates and their change, and where a session ends.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind,
    RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion, version,
};
use tempfile::TempDir;
use wx_sidecar::Config;

use crate::fake_app::{FakeApp, OK};
use crate::http_client::{Client, PATIENCE};
use crate::patience::{dawdle, eventually, more_than_sockets_hold, settled};
use crate::process::{Run, finished, write_configuration};
use crate::rig::{self, Rig};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
/// Longer than buffers are kept for an idle client.
const LONG_IDLE: Duration = Duration::from_millis(900);

/// A certificate authority of a test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate and its key, in PEM.
    pub(crate) fn certify(&self, name: &str) -> (String, String) {
        self.sign(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// As [`Authority::certify`], for a certificate that says anything.
    pub(crate) fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        roots
    }

    /// A client that believes this authority.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Such a client, which shows a chain and has the key of its first certificate.
    fn client_showing(&self, (chain, key): &(String, String)) -> Arc<ClientConfig> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

/// An authority and, below it, so many others, each below the one before; a client's certificate by the last of them, with
/// all that stand between.
fn chain(authority: &Authority, between: usize) -> (String, String) {
    let mut pems = Vec::new();
    let mut last: Option<Issuer<'static, KeyPair>> = None;
    for number in 0..between {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        let name = format!("between {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let above = last.as_ref().unwrap_or(&authority.issuer);
        pems.push(params.signed_by(&key, above).unwrap().pem());
        last = Some(Issuer::new(params, key));
    }
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["machine".to_owned()]).unwrap();
    let above = last.as_ref().unwrap_or(&authority.issuer);
    pems.push(params.signed_by(&key, above).unwrap().pem());
    pems.reverse();
    (pems.concat(), key.serialize_pem())
}

/// A client that takes any certificate, as one whose clock is wrong or that goes by another name would have to.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn credulous() -> ClientConfig {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth()
}

/// A sidecar that speaks TLS, with its certificate in a directory that a test can change.
struct Secure {
    rig: Rig,
    authority: Authority,
    directory: TempDir,
}

impl Secure {
    fn new(app: &FakeApp) -> Self {
        Self::with(app, "", "")
    }

    /// With more lines for `[inbound]` and `[inbound.tls]`.
    fn with(app: &FakeApp, inbound: &str, tls: &str) -> Self {
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path(), &authority.certify("localhost"));
        fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        let at = directory.path().display();
        let tls = tls.replace("{at}", &at.to_string());
        let section = format!(
            "[inbound.tls]\ncert_file = \"{at}/cert.pem\"\nkey_file = \"{at}/key.pem\"\n{tls}"
        );
        let rig = Rig::with(&app.url(), &format!("auth = \"none\"\n{inbound}"), &section);
        Self {
            rig,
            authority,
            directory,
        }
    }

    fn connect(&self) -> Session {
        self.connect_with(&self.authority.client(rustls::ALL_VERSIONS))
    }

    fn connect_with(&self, config: &Arc<ClientConfig>) -> Session {
        self.try_connect(config).unwrap()
    }

    fn try_connect(&self, config: &Arc<ClientConfig>) -> io::Result<Session> {
        self.handshake(config, self.tcp())
    }

    fn handshake(&self, config: &Arc<ClientConfig>, tcp: TcpStream) -> io::Result<Session> {
        Session::begin(config, "localhost", tcp)
    }

    /// What a client hears that is turned away: in TLS 1.3 it is done before the server has looked at its certificate.
    fn refusal(&self, config: &Arc<ClientConfig>) -> io::Error {
        let asked = self.try_connect(config).and_then(|mut session| {
            session.stream.write_all(GET)?;
            session.stream.read(&mut [0; 100])
        });
        asked.expect_err("it was let in")
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.rig.sidecar().inbound_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn reload(&self) -> Result<(), String> {
        let config = Config::from_toml(self.rig.config()).map_err(|report| report.to_string())?;
        let reloaded = self.rig.sidecar().reload(config);
        reloaded.map_err(|error| error.to_string())
    }

    fn refused(&self, reason: &str) -> f64 {
        let series = "wx_sidecar_http_connections_refused_total";
        self.rig.metric(&format!("{series}{{reason=\"{reason}\"}}"))
    }

    /// Waits for the count, which follows what the client sees.
    fn counts_refused(&self, reason: &str, count: f64) {
        eventually("it is counted", || self.refused(reason) >= count);
        assert_eq!(self.refused(reason), count);
    }
}

pub(crate) fn write_pair(directory: &Path, (certificate, key): &(String, String)) {
    fs::write(directory.join("cert.pem"), certificate).unwrap();
    fs::write(directory.join("key.pem"), key).unwrap();
}

/// A client's TLS session.
struct Session {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

impl Session {
    fn begin(config: &Arc<ClientConfig>, name: &str, tcp: TcpStream) -> io::Result<Self> {
        Self::begin_with(config, name, tcp, b"")
    }

    /// The same, with a request that is on its way together with the end of the handshake.
    fn begin_with(
        config: &Arc<ClientConfig>,
        name: &str,
        tcp: TcpStream,
        request: &[u8],
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
        session.writer().write_all(request)?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends a request and reads an answer that has a Content-Length; its head.
    fn ask(&mut self, request: &[u8]) -> String {
        self.stream.write_all(request).unwrap();
        self.answer().0
    }

    /// An answer's head and body.
    fn answer(&mut self) -> (String, Vec<u8>) {
        let end = loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => assert!(self.read() > 0, "the connection ended within a head"),
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.read() > 0, "the connection ended within a body");
        }
        (head, self.unread.drain(..length).collect())
    }

    fn read(&mut self) -> usize {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece).unwrap();
        self.unread.extend_from_slice(&piece[..count]);
        count
    }

    fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn server_certificate(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().unwrap()[0].clone()
    }
}

/// The alert that ended a session.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn is_ok(head: &str) {
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn both_versions_are_spoken_and_the_app_is_told_https() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    for (versions, spoken) in [
        (&[&version::TLS13], rustls::ProtocolVersion::TLSv1_3),
        (&[&version::TLS12], rustls::ProtocolVersion::TLSv1_2),
    ] {
        let mut session = secure.connect_with(&secure.authority.client(versions));
        assert_eq!(session.stream.conn.protocol_version(), Some(spoken));
        assert_eq!(session.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        is_ok(&session.ask(GET));
        is_ok(&session.ask(GET));
    }
    for request in app.requests(4) {
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn a_session_is_resumed_by_any_worker() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let config = secure.authority.client(versions);
        let mut first = secure.connect_with(&config);
        assert!(!first.is_resumed());
        // Tickets of TLS 1.3 come behind the handshake, and are read with the first answer.
        is_ok(&first.ask(GET));
        // The kernel spreads connections over the workers.
        for _ in 0..8 {
            let mut next = secure.connect_with(&config);
            assert!(next.is_resumed());
            is_ok(&next.ask(GET));
        }
    }
    let handshakes = |resumed| {
        secure.rig.metric(&format!(
            "wx_sidecar_tls_handshakes_total{{resumed=\"{resumed}\"}}"
        ))
    };
    assert_eq!((handshakes(false), handshakes(true)), (2.0, 16.0));
}

#[test]
fn a_large_body_crosses_both_ways_though_the_client_is_slow_to_read() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let times = more_than_sockets_hold().div_ceil(LENGTH);
    let body: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let (echo, sent) = (body.clone(), Arc::<AtomicUsize>::default());
    let ours = Arc::clone(&sent);
    let app = FakeApp::start(move |connection| {
        let request = connection.read_request().expect("a request");
        assert!(request.body == echo, "the upload was changed on its way");
        connection.write(
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                times * LENGTH
            )
            .as_bytes(),
        );
        for piece in echo.repeat(times).chunks(64 * 1024) {
            connection.write(piece);
            ours.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let secure = Secure::new(&app);
    let mut session = secure.connect();
    session
        .stream
        .write_all(
            format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes(),
        )
        .unwrap();
    session.stream.write_all(&body).unwrap();
    // Until the socket is full, and what the session has taken waits for it.
    eventually("nothing comes back", || sent.load(Ordering::SeqCst) > 0);
    let taken = settled(|| sent.load(Ordering::SeqCst));
    assert!(taken < times * LENGTH, "nothing had to wait");
    let (head, answer) = session.answer();
    is_ok(&head);
    assert!(
        answer == body.repeat(times),
        "the download was changed on its way"
    );
}

#[test]
fn requests_that_share_a_record_or_come_after_a_long_pause_are_all_answered() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let mut session = secure.connect();
    is_ok(&session.ask(&[GET, GET, GET].concat()));
    is_ok(&session.answer().0);
    is_ok(&session.answer().0);
    dawdle(LONG_IDLE);
    // Idle by now; a record may even come in pieces.
    is_ok(&session.ask(GET));
    session.stream.conn.writer().write_all(GET).unwrap();
    let mut record = Vec::new();
    session.stream.conn.write_tls(&mut record).unwrap();
    let (first, rest) = record.split_at(7);
    dawdle(LONG_IDLE);
    session.stream.sock.write_all(first).unwrap();
    dawdle(Duration::from_millis(50));
    session.stream.sock.write_all(rest).unwrap();
    is_ok(&session.answer().0);
}

#[test]
fn plain_http_at_a_tls_port_gets_an_alert_and_a_clean_end() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let mut client = Client::connect(secure.rig.sidecar().inbound_addr());
    client.send(GET);
    let answer = client.read_to_close();
    // An alert record (21), fatal (2).
    assert_eq!(
        (answer.first(), answer.get(5)),
        (Some(&21), Some(&2)),
        "{answer:?}"
    );
    secure.counts_refused("tls", 1.0);
    is_ok(&secure.connect().ask(GET));
    app.only_request();
}

#[test]
fn a_handshake_that_stalls_is_ended_and_keeps_nobody_waiting() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "handshake_timeout = \"60s\"");
    let stalled = || {
        let mut streams: Vec<_> = (0..8).map(|_| secure.tcp()).collect();
        for stream in &mut streams {
            // The beginning of a record with a ClientHello. Who is late with it has been turned away already.
            let _sent = stream.write_all(&[22, 3, 1, 0, 200, 1]);
        }
        streams
    };
    let waiting = stalled();
    is_ok(&secure.connect().ask(GET));
    drop(waiting);
    // On a busy machine nobody's handshake may be done within that.
    secure.rig.reload(
        "handshake_timeout = \"60s\"",
        "handshake_timeout = \"300ms\"",
    );
    for mut stream in stalled() {
        match stream.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    secure.counts_refused("tls_timeout", 8.0);
}

#[test]
fn stalled_handshakes_count_as_connections() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "handshake_timeout = \"10m\"");
    let connections = || secure.rig.metric("wx_sidecar_http_connections");
    let mut stalled = secure.tcp();
    stalled.write_all(&[22]).unwrap();
    eventually("it counts", || connections() >= 1.0);
    drop(stalled);
    eventually("it has left", || connections() == 0.0);
    assert_eq!(secure.refused("tls"), 0.0, "who leaves was refused nothing");
}

#[test]
fn with_a_client_ca_only_its_clients_get_in() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "client_ca_file = \"{at}/ca.pem\"");
    let known = secure
        .authority
        .client_showing(&secure.authority.certify("machine"));
    is_ok(&secure.connect_with(&known).ask(GET));
    let stranger = secure
        .authority
        .client_showing(&Authority::new().certify("machine"));
    for refused in [secure.authority.client(rustls::ALL_VERSIONS), stranger] {
        secure.refusal(&refused);
    }
    app.only_request();
    secure.counts_refused("tls", 2.0);
}

#[test]
fn whoever_shows_no_certificate_or_a_bad_one_gets_an_alert_and_troubles_nobody() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "client_ca_file = \"{at}/ca.pem\"");
    let authority = &secure.authority;
    let dated = |from, until| {
        let mut params = CertificateParams::new(vec!["machine".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        authority.client_showing(&authority.sign(&params))
    };
    let good = authority.client_showing(&authority.certify("machine"));
    let mut bystander = secure.connect_with(&good);
    is_ok(&bystander.ask(GET));
    let none = authority.client(rustls::ALL_VERSIONS);
    let none_of_1_2 = authority.client(&[&version::TLS12]);
    let other = authority.client_showing(&Authority::new().certify("machine"));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["machine".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "itself");
    let own = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    let own = authority.client_showing(&own);
    let (long, key) = chain(authority, 10);
    let long = authority.client_showing(&(long, key));
    for (what, client, expected) in [
        ("none", none, AlertDescription::CertificateRequired),
        (
            "none 1.2",
            none_of_1_2,
            AlertDescription::CertificateRequired,
        ),
        (
            "of another CA by the same name",
            other,
            AlertDescription::DecryptError,
        ),
        ("its own", own, AlertDescription::UnknownCA),
        (
            "expired",
            dated(2001, 2024),
            AlertDescription::CertificateExpired,
        ),
        (
            "early",
            dated(2090, 2099),
            AlertDescription::CertificateExpired,
        ),
        ("a long chain", long, AlertDescription::CertificateUnknown),
    ] {
        let error = secure.refusal(&client);
        assert_eq!(alert(&error), Some(expected), "{what}: {error}");
        is_ok(&bystander.ask(GET));
        is_ok(&secure.connect_with(&good).ask(GET));
    }
    // More than any handshake message may have; the alert may be lost, because the client is still sending.
    let (mut huge, key) = chain(authority, 1);
    let between = huge.split_inclusive("-----END CERTIFICATE-----").nth(1);
    huge.push_str(&between.unwrap().repeat(1_000));
    secure.refusal(&authority.client_showing(&(huge, key)));
    is_ok(&bystander.ask(GET));
    is_ok(&secure.connect_with(&good).ask(GET));
    secure.counts_refused("tls", 8.0);

    let short = authority.client_showing(&chain(authority, 3));
    is_ok(&secure.connect_with(&short).ask(GET));
}

/// What takes the place of revocation.
#[test]
fn once_the_client_ca_is_another_the_clients_of_the_old_one_get_in_no_more() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "client_ca_file = \"{at}/ca.pem\"");
    let authority = &secure.authority;
    let old = authority.client_showing(&authority.certify("machine"));
    is_ok(&secure.connect_with(&old).ask(GET));
    let mut open = secure.connect_with(&old);
    assert!(open.is_resumed());

    let other = Authority::new();
    fs::write(secure.directory.path().join("ca.pem"), other.pem()).unwrap();
    secure.reload().unwrap();
    let error = secure.refusal(&old);
    assert!(alert(&error).is_some(), "{error}");
    let new = authority.client_showing(&other.certify("machine"));
    is_ok(&secure.connect_with(&new).ask(GET));
    is_ok(&open.ask(GET));
}

#[test]
fn who_a_client_is_comes_of_no_certificate_and_of_no_header_about_one() {
    let app = FakeApp::agreeable();
    let secure = Secure::with(&app, "", "client_ca_file = \"{at}/ca.pem\"");
    let certificate = secure.authority.certify("oAlice0000000000000000000000");
    let mut session = secure.connect_with(&secure.authority.client_showing(&certificate));
    let claims = [
        "X-WX-OPENID",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Tls-Client-Cert-Info",
        "Client-Cert",
        "client_cert_chain",
        "X-Client-Cert",
        "X-Client-Cert-DN",
        "X-SSL-Client-Cert",
        "X_SSL_CLIENT_VERIFY",
        "SSL-Client-Subject-DN",
        "X-ARR-ClientCert",
        "X-Amzn-Mtls-Clientcert-Subject",
    ];
    let lines = claims.map(|name| format!("{name}: CN=oAlice0000000000000000000000\r\n"));
    let request = format!("GET /a HTTP/1.1\r\nHost: x\r\n{}\r\n", lines.concat());
    is_ok(&session.ask(request.as_bytes()));
    let head = app.only_request().head;
    assert!(!head.contains("oAlice"), "{head}");
}

#[test]
fn whatever_name_a_client_asks_for_it_is_shown_the_one_certificate() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let shown = secure.connect().server_certificate();
    let with_name = Arc::new(credulous());
    let mut without = credulous();
    without.enable_sni = false;
    let without = Arc::new(without);
    for (config, name) in [
        (&with_name, "unknown.example"),
        (&with_name, "127.0.0.1"),
        (&with_name, "a.localhost"),
        (&without, "localhost"),
    ] {
        let mut session = Session::begin(config, name, secure.tcp()).unwrap();
        assert_eq!(session.server_certificate(), shown, "{name}");
        is_ok(&session.ask(GET));
    }
    assert_eq!(secure.refused("tls"), 0.0);
}

/// The first flight of a client that asks for `name`, with `wanted` in the place of it.
fn hello(name: &str, wanted: &[u8]) -> Vec<u8> {
    assert_eq!(name.len(), wanted.len());
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(credulous()), server).unwrap();
    let mut flight = Vec::new();
    client.write_tls(&mut flight).unwrap();
    let mut places = flight.windows(name.len());
    let at = places.position(|it| it == name.as_bytes()).unwrap();
    flight[at..at + name.len()].copy_from_slice(wanted);
    flight
}

/// A handshake message of a type and a length, with anything in it, in records.
fn message(kind: u8, length: usize) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
    message.extend((0..length).map(|at| (at % 251) as u8));
    let records = message.chunks(16 * 1024).map(|piece| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], piece].concat()
    });
    records.collect::<Vec<_>>().concat()
}

#[test]
fn a_hello_that_makes_no_sense_is_answered_or_ended_and_troubles_nobody() {
    const HELLO: u8 = 1;
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let mut bystander = secure.connect();
    for (what, flight) in [
        ("an IP address for a name", hello("aaa.local", b"127.0.0.1")),
        ("a wildcard for a name", hello("aaa.local", b"*.a.local")),
        ("zeros for a name", hello("aaa.local", &[0; 9])),
        ("no UTF-8 for a name", hello("aaa.local", &[0xff; 9])),
        ("an empty hello", message(HELLO, 0)),
        ("garbage", message(HELLO, 300)),
        ("60 KB of garbage", message(HELLO, 60_000)),
        ("100 KB of garbage", message(HELLO, 100_000)),
        ("what is no hello", message(20, 32)),
        ("a record too long", [22, 3, 1, 0xff, 0xff].repeat(5_000)),
    ] {
        let mut stream = secure.tcp();
        // It may be turned away before it has sent everything.
        let _sent = stream.write_all(&flight);
        let mut answer = [0; 1];
        match stream.read(&mut answer) {
            // A ServerHello (22) or an alert (21).
            Ok(1) => assert!(matches!(answer[0], 21 | 22), "{what}: {answer:?}"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
        }
        is_ok(&bystander.ask(GET));
        is_ok(&secure.connect().ask(GET));
    }
}

#[test]
fn who_offers_only_protocols_that_are_not_spoken_here_gets_an_alert() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let mut config = ClientConfig::clone(&secure.authority.client(versions));
        config.alpn_protocols = vec![b"spdy/3".to_vec(), b"http/0.9".to_vec()];
        let error = secure.refusal(&Arc::new(config.clone()));
        let expected = Some(AlertDescription::NoApplicationProtocol);
        assert_eq!(alert(&error), expected, "{error}");
        config.alpn_protocols.push(b"http/1.1".to_vec());
        is_ok(&secure.connect_with(&Arc::new(config.clone())).ask(GET));
        // Who offers nothing speaks HTTP/1.1.
        config.alpn_protocols.clear();
        is_ok(&secure.connect_with(&Arc::new(config)).ask(GET));
    }
    secure.counts_refused("tls", 2.0);
}

/// One that is not good now: what it is told by, and the end of it in Unix time.
fn out_of_date(from: i32, until: i32, said: &str, end: f64) {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let certify = |from, until| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        write_pair(directory.path(), &authority.sign(&params));
    };
    certify(from, until);
    let app = FakeApp::agreeable();
    let at = directory.path().display();
    let tls =
        format!("[inbound.tls]\ncert_file = \"{at}/cert.pem\"\nkey_file = \"{at}/key.pem\"\n");
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", &tls);
    let path = write_configuration(&text);
    for command in ["check", "doctor"] {
        let (code, _, told) = finished(&[command, "-c", path.to_str().unwrap()]);
        assert!(told.contains(&format!("warning: {said}")), "{told}");
        assert!(command == "doctor" || code == 0, "{told}");
    }

    let config = Arc::new(credulous());
    let serves = |run: &Run| {
        let tcp = TcpStream::connect(run.inbound).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        is_ok(&Session::begin(&config, "localhost", tcp).unwrap().ask(GET));
        let page = Client::connect(run.admin).request("GET", "/metrics", &[], b"");
        let series = "\nwx_sidecar_tls_certificate_expiry_timestamp_seconds ";
        let (_, rest) = page.text().split_once(series).unwrap();
        rest.lines().next().unwrap().parse::<f64>().unwrap()
    };
    let warnings = |lines: &[String]| {
        let warnings = lines.iter().filter(|line| line.contains(said));
        let loud = warnings.filter(|line| line.contains("\"level\":\"WARN\""));
        loud.count()
    };
    let run = Run::under(&[], &path);
    assert_eq!(warnings(&run.started), 1, "{:?}", run.started);
    assert_eq!(serves(&run), end);
    // A reload says it again, and of a good one nothing. It follows its files; whoever asks it to may have it look twice, and
    // say all twice.
    let reloaded = || run.process.lines_to("configuration reloaded");
    write_configuration(&format!("{text}# changed\n"));
    assert_eq!(warnings(&reloaded()), 1);
    certify(2001, 2090);
    assert_eq!(warnings(&reloaded()), 0);
    assert_eq!(serves(&run), 3_786_912_000.0);
}

#[test]
fn a_certificate_that_has_expired_is_served_with_a_warning() {
    let said = "the certificate expired at 2024-01-01T00:00:00Z";
    out_of_date(2001, 2024, said, 1_704_067_200.0);
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_served_with_a_warning() {
    let said = "the certificate is not valid before 2088-01-01T00:00:00Z";
    out_of_date(2088, 2090, said, 3_786_912_000.0);
}

#[test]
fn while_the_certificate_is_replaced_fifty_times_no_handshake_fails() {
    const ROTATIONS: usize = 50;
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let first = fs::read(secure.directory.path().join("cert.pem")).unwrap();
    let shown = Mutex::new(vec![CertificateDer::from_pem_slice(&first).unwrap()]);
    // Whichever is in use: the last, or the one before while the sidecar has not taken it.
    let (in_use, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let [full, resumed] = [(); 2].map(|()| AtomicUsize::new(0));
    let resuming = secure.authority.client(rustls::ALL_VERSIONS);
    let mut anew = ClientConfig::clone(&resuming);
    anew.resumption = Resumption::disabled();
    let anew = Arc::new(anew);
    let come_and_go = |config: &Arc<ClientConfig>| {
        while !stop.load(Ordering::SeqCst) {
            let before = in_use.load(Ordering::SeqCst);
            let mut session = secure.connect_with(config);
            is_ok(&session.ask(GET));
            let certificate = session.server_certificate();
            let among = shown.lock().unwrap()[before..].contains(&certificate);
            assert!(among, "an older certificate than was in use was shown");
            let count = if session.is_resumed() {
                &resumed
            } else {
                &full
            };
            count.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let clients = [&anew, &resuming].map(|config| scope.spawn(|| come_and_go(config)));
        let goes_on = || {
            let before = [&full, &resumed].map(|count| count.load(Ordering::SeqCst));
            eventually("both go on", || {
                let failed = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                assert!(!failed, "a handshake failed");
                full.load(Ordering::SeqCst) > before[0] + 1
                    && resumed.load(Ordering::SeqCst) > before[1]
            });
        };
        goes_on();
        for rotation in 1..=ROTATIONS {
            let pair = secure.authority.certify("localhost");
            let certificate = CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap();
            shown.lock().unwrap().push(certificate);
            write_pair(secure.directory.path(), &pair);
            secure.reload().unwrap();
            in_use.store(rotation, Ordering::SeqCst);
            goes_on();
        }
    });
    assert_eq!(secure.refused("tls") + secure.refused("tls_timeout"), 0.0);
}

/// Whatever happens to the test, the others must come to their end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_reload_changes_the_certificate_and_a_bad_one_changes_nothing() {
    let app = FakeApp::agreeable();
    let secure = Secure::new(&app);
    let config = secure.authority.client(rustls::ALL_VERSIONS);
    let mut before = secure.connect_with(&config);
    is_ok(&before.ask(GET));

    write_pair(
        secure.directory.path(),
        &secure.authority.certify("localhost"),
    );
    secure.reload().unwrap();
    let mut after = secure.connect_with(&secure.authority.client(rustls::ALL_VERSIONS));
    is_ok(&after.ask(GET));
    assert_ne!(before.server_certificate(), after.server_certificate());
    // A ticket of the old configuration is worth nothing now, and no obstacle either.
    let mut resuming = secure.connect_with(&config);
    assert!(!resuming.is_resumed());
    is_ok(&resuming.ask(GET));
    is_ok(&before.ask(GET));

    let (_, other_key) = secure.authority.certify("localhost");
    fs::write(secure.directory.path().join("key.pem"), other_key).unwrap();
    let report = secure.reload().unwrap_err();
    assert!(
        report.contains("this key is not that of the first certificate"),
        "{report}"
    );
    let mut still = secure.connect();
    is_ok(&still.ask(GET));
    assert_eq!(still.server_certificate(), after.server_certificate());
}

/// A port keeps its protocol: who waits at the old one when the sidecar moves, and speaks plain HTTP from then on, is
/// served in TLS still.
#[test]
fn whoever_came_to_a_port_of_tls_is_served_in_tls_after_the_sidecar_has_moved() {
    let app = FakeApp::agreeable();
    // Most of them wait in the kernel's queue, because there is no room.
    let secure = Secure::with(&app, "max_connections = 2", "handshake_timeout = \"60s\"");
    let config = secure.authority.client(rustls::ALL_VERSIONS);
    let waiting = [(); 6].map(|()| secure.tcp());
    let moved = secure.rig.config_with(
        "[inbound]\nlisten = \"127.0.0.1:0\"",
        "[inbound]\nlisten = \"[::1]:0\"",
    );
    let (plain, _tls) = moved.split_once("[inbound.tls]").unwrap();
    let plain = Config::from_toml(plain).unwrap();
    secure.rig.sidecar().reload(plain).unwrap();
    // None may be silent for long after its handshake: those who are to leave are not waited for.
    let mut clients = Vec::from_iter(
        waiting
            .into_iter()
            .map(|tcp| Session::begin_with(&config, "localhost", tcp, GET).unwrap()),
    );
    for client in &mut clients {
        let head = client.answer().0;
        is_ok(&head);
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    }
    let answer = secure.rig.request("GET", "/a", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn an_orderly_end_is_told_from_an_answer_cut_short() {
    let app = FakeApp::start(|connection| {
        let request = connection.read_request().expect("a request");
        if request.head.starts_with("GET /short") {
            // Chunked, and broken off: a client of HTTP/1.0 finds the end by the connection's.
            connection
                .write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        } else {
            connection.write(OK);
        }
    });
    let secure = Secure::new(&app);
    let mut session = secure.connect();
    is_ok(&session.ask(b"GET /whole HTTP/1.0\r\n\r\n"));
    assert_eq!(session.read(), 0, "a close_notify");

    let mut session = secure.connect();
    session
        .stream
        .write_all(b"GET /short HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let error = session.stream.read_to_end(&mut answer).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        ),
        "{error}"
    );
}

#[test]
fn a_proxy_header_stands_before_the_handshake() {
    let app = FakeApp::agreeable();
    let inbound = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let secure = Secure::with(&app, inbound, "");
    let mut tcp = secure.tcp();
    tcp.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n")
        .unwrap();
    let config = secure.authority.client(rustls::ALL_VERSIONS);
    is_ok(&secure.handshake(&config, tcp).unwrap().ask(GET));
    let request = app.only_request();
    assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}
