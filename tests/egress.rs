//! The way to WeChat: TLS that fails closed, and an egress proxy that is not always well.
//!
//! Servers and proxies are real ones, in threads of their own, and note what they were sent: whatever goes wrong before
//! there is a connection, no server has seen a byte of a call.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion, version};
use tempfile::TempDir;
use wx_sidecar::Config;
use wx_sidecar::domain::LoginCode;
use wx_sidecar::error::{Error, Kind, Language, Side};
use wx_sidecar::gateway::{Gateway, Memory};
use wx_sidecar::wechat::login::UserSession;

use crate::rig::{self, Rig, SECRET, canary, configuration, keep};
use crate::tls::Authority;

const NO_APP: &str = "http://127.0.0.1:9";
/// What the proxies know us by; found in an output, it is an incident.
const USER: &str = "wx";
const PASSWORD: &str = "pa55/w0rd:of@the%proxy";
const PASSWORD_IN_A_URL: &str = "pa55%2Fw0rd%3Aof%40the%25proxy";

/// A server that speaks TLS as `localhost`, and says to every request that a user has logged in.
struct SecureServer {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl SecureServer {
    fn start(
        (certificate, key): &(String, String),
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        let port = serve(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let Ok(head) = read_head(&mut stream) else {
                return;
            };
            noted.lock().unwrap().push(head);
            let body = r#"{"session_key":"HyVFkGl5F5OQWJZZaNzBBg==","openid":"o6zAJs1Zf"}"#;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        Self { port, requests }
    }

    /// One that `authority` vouches for.
    fn of(authority: &Authority) -> Self {
        Self::start(
            &authority.certify("localhost"),
            &[&version::TLS12, &version::TLS13],
        )
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// A proxy that does as it is told with every CONNECT.
struct Proxy {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// What a proxy saw.
#[derive(Default)]
struct Seen {
    /// The heads of the requests.
    heads: Vec<String>,
    /// What clients sent through it after that.
    relayed: Vec<u8>,
}

/// What a proxy does with a request.
enum Act {
    /// Connects to where it is asked to.
    Open,
    /// Sends these bytes, reads on until the client leaves, and connects to nobody.
    Say(Vec<u8>),
    /// Keeps the connection and says nothing.
    Hang,
    /// Says that it has connected, and has not.
    Pretend,
}

impl Proxy {
    fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        let port = serve(move |mut stream| {
            let Ok(head) = read_head(&mut stream) else {
                return;
            };
            noted.lock().unwrap().heads.push(head.clone());
            match act(&head) {
                Act::Open => relay(stream, target(&head), &noted),
                Act::Say(bytes) => {
                    let _ = stream.write_all(&bytes);
                    let _ = stream.shutdown(Shutdown::Write);
                    drain(&mut stream);
                }
                Act::Hang => drain(&mut stream),
                Act::Pretend => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                    drain(&mut stream);
                }
            }
        });
        Self { port, seen }
    }

    /// One that lets in only who shows the right credentials.
    fn guarded() -> Self {
        let token = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        canary(&token);
        let expected = format!("proxy-authorization: Basic {token}\r\n");
        Self::start(move |head| match head.contains(&expected) {
            true => Act::Open,
            false => refusal("407 Proxy Authentication Required"),
        })
    }

    fn line(&self) -> String {
        format!("egress_proxy = \"http://127.0.0.1:{}\"\n", self.port)
    }

    /// As [`Proxy::line`], for somebody whom it knows.
    fn line_with_password(&self) -> String {
        canary(PASSWORD);
        canary(PASSWORD_IN_A_URL);
        format!(
            "egress_proxy = \"http://{USER}:{PASSWORD_IN_A_URL}@127.0.0.1:{}\"\n",
            self.port
        )
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }
}

fn refusal(status: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nno\n").into_bytes())
}

/// Runs `each` for every connection, in a thread of its own.
fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let each = Arc::clone(&each);
            thread::spawn(move || each(stream.unwrap()));
        }
    });
    port
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn drain(stream: &mut TcpStream) {
    let _ = io::copy(stream, &mut io::sink());
}

/// Where a CONNECT wants to go.
fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn relay(mut client: TcpStream, target: &str, seen: &Mutex<Seen>) {
    let mut server = TcpStream::connect(target).unwrap();
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .unwrap();
    let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..length];
        seen.lock().unwrap().relayed.extend_from_slice(bytes);
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

/// A gateway to `endpoints`, with more lines for `[wechat]`. It waits for longer than a busy machine takes.
fn gateway(endpoints: &[&str], lines: &str) -> Gateway {
    patient_gateway(endpoints, lines, "1m")
}

/// The same, which waits for a connection for so long.
fn patient_gateway(endpoints: &[&str], lines: &str, connect_timeout: &str) -> Gateway {
    let section = format!(
        "[wechat]\nendpoints = {endpoints:?}\n{}{lines}",
        timeouts(connect_timeout)
    );
    let text = configuration("", NO_APP, "", &section);
    let config = Config::from_toml(&text).unwrap_or_else(|report| panic!("{report}"));
    let keepers = Memory::default();
    Gateway::new(&config.app, &config.wechat, &keepers, Arc::default())
}

/// Lines for `[wechat]`: all but a connection has time enough.
fn timeouts(connect_timeout: &str) -> String {
    format!("connect_timeout = \"{connect_timeout}\"\ntimeout = \"5m\"\n")
}

async fn login(gateway: &Gateway) -> Result<UserSession, Error> {
    let code = LoginCode::parse("0c1d").unwrap();
    gateway.code2session(&code).await
}

/// How the log is told that there is no connection, and the caller no less than which side it was.
async fn unconnected(gateway: &Gateway) -> String {
    let error = login(gateway).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.side()),
        (Kind::WechatUnreachable, Side::Wechat)
    );
    let told = error.to_string();
    let problem = String::from_utf8(error.to_problem("1", Language::English)).unwrap();
    for (by, expected) in [
        (
            "through the egress proxy",
            "the egress proxy gives no connection to WeChat",
        ),
        ("no TLS with", "no trusted TLS with WeChat"),
        ("", "no connection to WeChat"),
    ] {
        if told.contains(by) {
            assert!(problem.contains(expected), "{told}: {problem}");
            break;
        }
    }
    keep("egress-errors.log", &told);
    keep("egress-errors.log", &problem);
    told
}

/// The line that has `authority` believed, whose certificate goes to `directory`.
fn believing(authority: &Authority, directory: &TempDir) -> String {
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    line_for(&file)
}

fn line_for(file: &Path) -> String {
    format!("ca_file = \"{}\"\n", file.display())
}

#[tokio::test]
async fn a_server_that_the_configured_authority_vouches_for_is_called() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    for version in [&version::TLS12, &version::TLS13] {
        let server = SecureServer::start(&authority.certify("localhost"), &[version]);
        let gateway = gateway(&[&server.url()], &believing(&authority, &directory));
        assert!(login(&gateway).await.is_ok(), "{version:?}");
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_gets_nothing_sent_and_the_log_says_why() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let certificate = |year_before, year_after| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(year_before, 1, 1);
        params.not_after = date_time_ymd(year_after, 1, 1);
        authority.sign(&params)
    };
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ours = believing(&authority, &directory);
    for (pair, lines, expected) in [
        (
            certificate(2001, 2002),
            ours.as_str(),
            "certificate expired",
        ),
        (certificate(2998, 2999), &ours, "certificate not valid yet"),
        (
            authority.certify("api.weixin.qq.com"),
            &ours,
            "not valid for name",
        ),
        (self_signed, &ours, "UnknownIssuer"),
        // An authority of the same name, with another key.
        (Authority::new().certify("localhost"), &ours, "BadSignature"),
        (authority.certify("localhost"), "", "UnknownIssuer"),
    ] {
        let server = SecureServer::start(&pair, &[&version::TLS12, &version::TLS13]);
        let told = unconnected(&gateway(&[&server.url()], lines)).await;
        let place = format!("no TLS with localhost:{}", server.port);
        assert!(told.contains(&place) && told.contains(expected), "{told}");
        assert_eq!(server.requests(), 0);
    }
}

#[tokio::test]
async fn a_server_that_speaks_old_tls_gets_nothing_sent() {
    for minor in [1, 2] {
        let (sender, received) = mpsc::channel();
        let port = serve(move |mut stream| {
            let mut header = [0; 5];
            stream.read_exact(&mut header).unwrap();
            let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
            stream.read_exact(&mut hello).unwrap();
            // A ServerHello of TLS 1.0 or 1.1: version, random, no session, AES-128-CBC with SHA-1, no compression.
            let mut answer = vec![22, 3, minor, 0, 42, 2, 0, 0, 38, 3, minor];
            answer.extend_from_slice(&[7; 32]);
            answer.extend_from_slice(&[0, 0, 0x2f, 0]);
            stream.write_all(&answer).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            sender.send(rest).unwrap();
        });
        let told = unconnected(&gateway(&[&format!("https://localhost:{port}")], "")).await;
        assert!(told.contains("no TLS with localhost"), "{told}");
        assert!(told.contains("Tls12"), "{told}");
        // An alert at the most.
        let rest = received.recv().unwrap();
        assert!(rest.first().is_none_or(|kind| *kind == 21), "{rest:?}");
    }
}

#[tokio::test]
async fn calls_go_through_the_proxy_and_it_learns_no_more_than_where_to() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = SecureServer::of(&authority);
    let proxy = Proxy::start(|_| Act::Open);
    let lines = believing(&authority, &directory) + &proxy.line();
    assert!(login(&gateway(&[&server.url()], &lines)).await.is_ok());
    let port = server.port;
    assert_eq!(
        proxy.heads(),
        [format!(
            "CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n"
        )]
    );
    let seen = proxy.seen.lock().unwrap();
    let holds = |text: &str| {
        let mut windows = seen.relayed.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    };
    // TLS says whom it wants, and nothing else is to be read.
    assert!(holds("localhost") && !holds(SECRET) && !holds("jscode2session"));
}

#[test]
fn a_sidecar_logs_users_in_at_a_simulator_behind_the_proxy() {
    let proxy = Proxy::guarded();
    let rig = Rig::new(NO_APP);
    let section = format!(
        "[wechat]\nendpoints = [\"{}\"]\n{}{}",
        rig.sim.url(),
        timeouts("1m"),
        proxy.line_with_password()
    );
    let config = configuration("", NO_APP, "", &section);
    let sidecar = rig::start(&config, &rig.clock);
    let body = serde_json::json!({ "code": rig.code("alice") }).to_string();
    let answer = crate::http_client::Client::connect(sidecar.inbound_addr()).request(
        "POST",
        "/wx/login",
        &[],
        body.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    rig::Session::of(&answer.json());
    assert_eq!(target(&proxy.heads()[0]), rig.sim.addr().to_string());
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_is_told_it_and_a_wrong_one_is_a_failure_that_says_so() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = SecureServer::of(&authority);
    let proxy = Proxy::guarded();
    let ours = believing(&authority, &directory);
    let known = gateway(
        &[&server.url()],
        &(ours.clone() + &proxy.line_with_password()),
    );
    assert!(login(&known).await.is_ok());

    let strange = gateway(&[&server.url()], &(ours.clone() + &proxy.line()));
    let told = unconnected(&strange).await;
    assert!(told.contains("and none is configured (HTTP 407)"), "{told}");

    let wrong = "hunter2-of-the-proxy";
    canary(wrong);
    let line = format!(
        "egress_proxy = \"http://{USER}:{wrong}@127.0.0.1:{}\"\n",
        proxy.port
    );
    let told = unconnected(&gateway(&[&server.url()], &(ours + &line))).await;
    assert!(
        told.contains("does not take the user or the password"),
        "{told}"
    );
    assert!(!told.contains(wrong), "{told}");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_us_is_named_and_no_server_has_seen_anything() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = SecureServer::of(&authority);
    let say = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        Proxy::start(move |_| Act::Say(bytes.clone()))
    };
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    for (proxy, expected) in [
        (
            say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            "refused (HTTP 403)",
        ),
        (
            say(b"HTTP/1.1 502 Bad Gateway\r\n\r\nno such host"),
            "refused (HTTP 502)",
        ),
        (
            say(b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n"),
            "refused (HTTP 302)",
        ),
        (say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "is not HTTP"),
        (
            say(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}"),
            "spoke before",
        ),
        (say(b"HTTP/1.1 200 OK\r\nX: y"), "broke off"),
        (say(b""), "broke off"),
        (say(&endless), "broke off, or its answer is not HTTP"),
    ] {
        let lines = believing(&authority, &directory) + &proxy.line_with_password();
        let told = unconnected(&gateway(&[&server.url()], &lines)).await;
        let place = format!(
            "no connection to localhost:{} through the egress proxy 127.0.0.1:{}",
            server.port, proxy.port
        );
        assert!(told.contains(&place) && told.contains(expected), "{told}");
        assert!(!told.contains("pa55"), "{told}");
        assert_eq!(proxy.heads().len(), 1, "{told}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn one_timeout_covers_the_proxy_and_tls_and_what_hung_is_told() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = SecureServer::of(&authority);
    let silent = Proxy::start(|_| Act::Hang);
    let liar = Proxy::start(|_| Act::Pretend);
    for (proxy, expected) in [
        (&silent, "through the egress proxy 127.0.0.1"),
        (&liar, "no TLS with localhost"),
    ] {
        let lines = believing(&authority, &directory) + &proxy.line();
        let mut told = String::new();
        // On a busy machine the time may be up before anybody has got to where it hangs.
        for connect_timeout in ["50ms", "1s", "10s", "1m"] {
            let gateway = patient_gateway(&[&server.url()], &lines, connect_timeout);
            told = unconnected(&gateway).await;
            if told.contains(expected) && told.contains("took too long") {
                break;
            }
        }
        assert!(
            told.contains(expected) && told.contains("took too long"),
            "{told}"
        );
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_apart_from_a_server_that_is_not() {
    // Bound but not listening: connections are refused, and nobody else gets the port.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = closed.local_addr().unwrap().port();
    let line = format!("egress_proxy = \"http://127.0.0.1:{port}\"\n");
    let told = unconnected(&gateway(&["https://localhost"], &line)).await;
    let expected = format!(
        "no connection to localhost:443 through the egress proxy 127.0.0.1:{port}: \
         the proxy cannot be connected to"
    );
    assert!(
        told.contains(&expected) && told.contains("refused"),
        "{told}"
    );

    let told = unconnected(&gateway(&[&format!("https://127.0.0.1:{port}")], "")).await;
    let expected = format!("no connection to 127.0.0.1:{port}: tcp connect error");
    assert!(
        told.contains(&expected) && !told.contains("proxy"),
        "{told}"
    );
}

#[tokio::test]
async fn an_endpoint_that_the_proxy_or_tls_stops_short_of_is_a_reason_to_ask_the_next() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = SecureServer::of(&authority);
    let impostor = SecureServer::of(&Authority::new());
    let proxy = Proxy::start(|head| match head.contains("forbidden.test") {
        true => refusal("403 Forbidden"),
        false => Act::Open,
    });
    let lines = believing(&authority, &directory) + &proxy.line();
    let endpoints = ["https://forbidden.test", &impostor.url(), &server.url()];
    assert!(login(&gateway(&endpoints, &lines)).await.is_ok());
    assert_eq!((impostor.requests(), server.requests()), (0, 1));
    assert_eq!(proxy.heads().len(), 3);
}
