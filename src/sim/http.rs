//! The network side: connections, bodies, resets. What is answered is decided elsewhere.
//!
//! A reset has to be a real one, because a client's retry rules look at ECONNRESET and not at a polite end of stream. So
//! each connection keeps a second handle of its socket: setting its linger time to zero and letting hyper drop the
//! connection with an error makes the kernel send RST where it would have sent FIN.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{Request as HttpRequest, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::exchange::{Answer, Outcome, Pace, Query, Request, receive};
use super::lock;
use super::outbox::{Due, Work};
use super::security::Seen;
use super::state::State;

const BODY_LIMIT: usize = 32 << 20;
/// Between half a body and the reset, so that the half arrives: what is still queued when a socket is reset is lost.
const BEFORE_TEAR: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a handshake may take; as long as hyper waits for a head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the other end of `stopped` is dropped; open connections end with the runtime.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<Mutex<State>>,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                tokio::spawn(connection(stream, peer, tls.clone(), Arc::clone(&state)));
            }
            Err(error) => {
                // Out of file descriptors, most likely: they come back when other connections close.
                tracing::warn!(%error, "the simulator cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    tls: Option<TlsAcceptor>,
    state: Arc<Mutex<State>>,
) {
    let socket = match stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).try_clone())
    {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it was served");
            return;
        }
    };
    let Some(tls) = tls else {
        return serve_connection(stream, peer, &socket, &state).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, peer, &socket, &state).await,
        Ok(Err(error)) => tracing::debug!(%error, "a handshake with the simulator failed"),
        Err(_) => tracing::debug!("a handshake with the simulator took too long"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    socket: &Arc<Socket>,
    state: &Arc<Mutex<State>>,
) {
    let service = service_fn(|request| exchange(request, peer, state, socket));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the simulator ended early");
    }
}

async fn exchange(
    request: HttpRequest<Incoming>,
    peer: IpAddr,
    state: &Arc<Mutex<State>>,
    socket: &Arc<Socket>,
) -> Result<Response<SimBody>, Torn> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let request = match read(request, peer).await {
        Ok(request) => request,
        Err(answer) => return Ok(whole(answer)),
    };
    let (reply, due) = {
        let mut state = lock(state);
        let reply = receive(&mut state, request);
        (reply, state.take_due())
    };
    for due in due {
        tokio::spawn(push_later(due, Arc::clone(state)));
    }
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match reply.outcome {
        Outcome::Answer(answer) => {
            let (status, errcode) = (answer.status, answer.errcode);
            tracing::debug!(%method, path, status, errcode, "the simulator answered");
            Ok(whole(answer))
        }
        Outcome::Torn(answer) => {
            tracing::debug!(%method, path, "the simulator tears its answer");
            Ok(torn(answer, Arc::clone(socket)))
        }
        Outcome::Slow(answer, pace) => {
            tracing::debug!(%method, path, "the simulator answers slowly");
            Ok(slow(answer, pace))
        }
        Outcome::Push(due) => Ok(whole(Answer::control(200, &push(*due, state).await))),
        Outcome::Reset => {
            tracing::debug!(%method, path, "the simulator resets the connection");
            Err(tear(socket))
        }
    }
}

async fn push_later(due: Due, state: Arc<Mutex<State>>) {
    tokio::time::sleep(due.after).await;
    push(due, &state).await;
}

/// Pushes and keeps what came of it; that as JSON.
async fn push(due: Due, state: &Mutex<State>) -> Value {
    let Due { pusher, work, .. } = due;
    let push = match work {
        Work::Push(push) => *push,
        Work::Look(look) => match pusher.fetch(&look.url).await {
            Some(bytes) => look.verdict(&Seen::Bytes(&bytes)),
            None => look.verdict(&Seen::Failed),
        },
    };
    let outcome = pusher.send_by(&push, || lock(state).now()).await;
    tracing::debug!(
        kind = push.kind(),
        accepted = outcome.is_accepted(),
        "the simulator pushed"
    );
    let mut told = serde_json::to_value(&outcome).expect("texts and numbers serialise");
    told["accepted"] = outcome.is_accepted().into();
    if let Some(outbox) = &mut lock(state).outbox {
        outbox.keep(&push, outcome);
    }
    told
}

async fn read(request: HttpRequest<Incoming>, peer: IpAddr) -> Result<Request, Answer> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Answer::text(413, "the body is larger than 32 MiB\n"));
        }
        Err(_) => return Err(Answer::text(400, "the body broke off\n")),
    };
    Ok(Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: Query::parse(head.uri.query().unwrap_or_default()),
        headers: head.headers,
        peer,
        body,
    })
}

/// The answer, its body as `carried`.
fn response(answer: Answer, carried: impl FnOnce(Bytes) -> SimBody) -> Response<SimBody> {
    let Answer {
        status,
        content_type,
        headers,
        body,
        ..
    } = answer;
    // A fault ordered through the library may name a status that HTTP does not have, or one that ends no exchange.
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(carried(body))
        .expect("the status is one, and nothing else can be wrong");
    response.headers_mut().extend(headers);
    response
}

fn whole(answer: Answer) -> Response<SimBody> {
    response(answer, |body| SimBody::Whole(Some(body)))
}

/// Announces the whole body, sends half of it, resets.
fn torn(answer: Answer, socket: Arc<Socket>) -> Response<SimBody> {
    let length = answer.body.len();
    let mut torn = response(answer, |body| SimBody::Half {
        half: Some(body.slice(..length / 2)),
        pause: Box::pin(tokio::time::sleep(BEFORE_TEAR)),
        socket,
    });
    torn.headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    torn
}

fn slow(answer: Answer, pace: Pace) -> Response<SimBody> {
    response(answer, |rest| SimBody::Slow {
        rest,
        pause: Box::pin(tokio::time::sleep(pace.interval)),
        pace,
    })
}

fn tear(socket: &Socket) -> Torn {
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        tracing::warn!(%error, "the connection will end without a reset");
    }
    Torn
}

/// Ends a connection on purpose.
#[derive(Debug, thiserror::Error)]
#[error("torn on purpose")]
struct Torn;

enum SimBody {
    Whole(Option<Bytes>),
    Half {
        half: Option<Bytes>,
        pause: Pin<Box<Sleep>>,
        socket: Arc<Socket>,
    },
    Slow {
        rest: Bytes,
        pause: Pin<Box<Sleep>>,
        pace: Pace,
    },
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Torn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Torn>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Half {
                half,
                pause,
                socket,
            } => {
                if let Some(half) = half.take().filter(|half| !half.is_empty()) {
                    return Poll::Ready(Some(Ok(Frame::data(half))));
                }
                ready!(pause.as_mut().poll(context));
                Poll::Ready(Some(Err(tear(socket))))
            }
            Self::Slow { rest, pause, pace } => {
                if rest.is_empty() {
                    return Poll::Ready(None);
                }
                ready!(pause.as_mut().poll(context));
                *pause = Box::pin(tokio::time::sleep(pace.interval));
                let piece = rest.split_to(pace.bytes.min(rest.len()));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Half { .. } => false,
            Self::Slow { rest, .. } => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Self::Half { .. } => SizeHint::default(),
            Self::Slow { rest, .. } => SizeHint::with_exact(rest.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::CertifiedKey;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::CertificateDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
    use serde_json::{Value, json};

    use crate::clock::{Clock, Timestamp};
    use crate::domain::AppId;
    use crate::secret::Secret;
    use crate::sim::{Effect, Fault, Identity, Options, Simulator, UserChange};

    const LOGIN: &str = "/sns/jscode2session?appid=wx0123456789abcdef&secret=s&grant_type=authorization_code&js_code=";
    const LOGIN_PATH: &str = "/sns/jscode2session";

    fn simulator() -> Simulator {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        Simulator::start(Options {
            clock: Clock::manual(Timestamp::from_millis(1_700_000_040_000)),
            ..Options::local(appid, Secret::new("s"))
        })
        .unwrap()
    }

    /// A client that hides nothing: it writes bytes and reads bytes.
    struct Client<S = TcpStream>(BufReader<S>);

    struct Got {
        status: u16,
        content_type: String,
        location: String,
        body: Vec<u8>,
    }

    impl Got {
        fn json(&self) -> Value {
            serde_json::from_slice(&self.body).unwrap()
        }
    }

    fn dial(simulator: &Simulator) -> TcpStream {
        let stream = TcpStream::connect(simulator.addr()).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream
    }

    impl Client {
        fn connect(simulator: &Simulator) -> Self {
            Self(BufReader::new(dial(simulator)))
        }
    }

    impl Client<StreamOwned<ClientConnection, TcpStream>> {
        /// Believes this certificate and no other.
        fn connect_securely(simulator: &Simulator, certificate: CertificateDer<'static>) -> Self {
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = simulator.addr().ip().into();
            let session = ClientConnection::new(Arc::new(config), name).unwrap();
            Self(BufReader::new(StreamOwned::new(session, dial(simulator))))
        }
    }

    impl<S: io::Read + io::Write> Client<S> {
        fn send(&mut self, method: &str, target: &str, body: &str) {
            let length = body.len();
            let request = format!(
                "{method} {target} HTTP/1.1\r\nhost: sim\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            // In one write, because whoever does not like its beginning may close before a second.
            self.0.get_mut().write_all(request.as_bytes()).unwrap();
        }

        fn receive(&mut self) -> io::Result<Got> {
            let (mut status, mut length) = (0, 0);
            let (mut content_type, mut location) = (String::new(), String::new());
            loop {
                let mut line = String::new();
                if self.0.read_line(&mut line)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                match line.split_once(": ") {
                    None => status = line[9..12].parse().unwrap(),
                    Some(("content-type", value)) => content_type = value.to_owned(),
                    Some(("location", value)) => location = value.to_owned(),
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(_) => {}
                }
            }
            let mut body = Vec::new();
            while body.len() < length {
                let mut chunk = [0; 4096];
                let wanted = chunk.len().min(length - body.len());
                match self.0.read(&mut chunk[..wanted])? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    n => body.extend_from_slice(&chunk[..n]),
                }
            }
            Ok(Got {
                status,
                content_type,
                location,
                body,
            })
        }

        fn call(&mut self, method: &str, target: &str, body: &str) -> Got {
            self.send(method, target, body);
            self.receive().unwrap()
        }
    }

    /// A simulator that speaks HTTPS, and its certificate.
    fn secure_simulator() -> (Simulator, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let identity = Identity {
            certificates: cert.pem(),
            key: Secret::new(signing_key.serialize_pem()),
        };
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let options = Options {
            tls: Some(identity),
            ..Options::local(appid, Secret::new("s"))
        };
        (Simulator::start(options).unwrap(), cert.der().clone())
    }

    fn get(simulator: &Simulator, target: &str) -> Got {
        Client::connect(simulator).call("GET", target, "")
    }

    #[test]
    fn a_login_is_json_called_plain_text_and_so_is_its_refusal() {
        let simulator = simulator();
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        let got = get(&simulator, &target);
        assert_eq!((got.status, got.content_type.as_str()), (200, "text/plain"));
        assert_eq!(
            got.json()["openid"],
            json!(simulator.openid("alice").as_str())
        );
        assert_eq!(got.json().get("errcode"), None);
        let got = get(&simulator, &target);
        assert_eq!((got.status, got.content_type.as_str()), (200, "text/plain"));
        assert_eq!(got.json()["errcode"], json!(40163));
        assert_eq!(simulator.calls(LOGIN_PATH), 2);
    }

    #[test]
    fn cgi_bin_answers_carry_wechats_odd_content_type() {
        let simulator = simulator();
        let got = get(&simulator, "/cgi-bin/token");
        assert_eq!(got.content_type, "application/json; encoding=utf-8");
        assert_eq!(got.json()["errcode"], json!(40002));
    }

    #[test]
    fn a_connection_is_kept_alive_across_calls_of_every_kind() {
        let simulator = simulator();
        let mut client = Client::connect(&simulator);
        let code = client.call("GET", "/_sim/code?user=alice&format=text", "");
        let code = String::from_utf8(code.body).unwrap();
        let login = client.call("GET", &format!("{LOGIN}{}", code.trim()), "");
        assert!(login.json()["session_key"].is_string());
        let stable = client.call(
            "POST",
            "/cgi-bin/stable_token",
            r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"s"}"#,
        );
        let token = stable.json()["access_token"].as_str().unwrap().to_owned();
        let target = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
        assert!(client.call("GET", &target, "").json()["ip_list"].is_array());
        simulator.advance(Duration::from_secs(7200));
        let expired = client.call("GET", &target, "");
        assert_eq!(expired.json()["errcode"], json!(42001));
        assert_eq!(client.call("GET", "/_sim/nothing", "").status, 404);
    }

    #[test]
    fn fifty_callers_with_one_code_make_one_login() {
        let simulator = simulator();
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        let logins = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..50)
                .map(|_| scope.spawn(|| get(&simulator, &target).json()))
                .collect();
            callers
                .into_iter()
                .map(|caller| caller.join().unwrap())
                .filter(|answer| answer.get("errcode").is_none())
                .count()
        });
        assert_eq!(logins, 1);
        assert_eq!(simulator.calls(LOGIN_PATH), 50);
    }

    #[test]
    fn a_reset_is_a_real_one() {
        let simulator = simulator();
        simulator.fault(Fault::new(LOGIN_PATH, 1, Effect::Reset));
        let mut client = Client::connect(&simulator);
        client.send("GET", LOGIN, "");
        let error = client.receive().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let got = get(&simulator, LOGIN);
        assert_eq!(got.json()["errcode"], json!(41008), "the fault is over");
    }

    #[test]
    fn a_torn_answer_comes_by_half_before_the_reset() {
        let simulator = simulator();
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        simulator.fault(Fault::new(LOGIN_PATH, 1, Effect::ResetMidBody));
        let mut client = Client::connect(&simulator);
        client.send("GET", &target, "");
        let mut seen = Vec::new();
        let error = loop {
            let mut chunk = [0; 4096];
            match client.0.read(&mut chunk) {
                Ok(0) => panic!("a polite end of stream is no reset"),
                Ok(n) => seen.extend_from_slice(&chunk[..n]),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("\r\n\r\n{\"openid\":"), "{seen}");
        assert!(!seen.ends_with('}'), "{seen}");
        let again = get(&simulator, &target).json();
        assert_eq!(
            again["errcode"],
            json!(40163),
            "the lost login has spent it"
        );
    }

    #[test]
    fn statuses_garbage_and_emptiness_come_as_ordered() {
        let simulator = simulator();
        let mut client = Client::connect(&simulator);
        for fault in [
            r#"{"status":502,"body":"bad gateway"}"#,
            r#"{"garbage":true}"#,
            r#"{"empty":true}"#,
            r#"{"errcode":-1}"#,
        ] {
            let order = format!(r#"{{"path":"/cgi-bin/*","fault":{fault}}}"#);
            assert_eq!(client.call("POST", "/_sim/faults", &order).status, 200);
        }
        let bad = client.call("GET", "/cgi-bin/token", "");
        assert_eq!((bad.status, &bad.body[..]), (502, &b"bad gateway"[..]));
        let garbage = client.call("GET", "/cgi-bin/token", "");
        assert_eq!(garbage.status, 200);
        assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
        let empty = client.call("GET", "/cgi-bin/token", "");
        assert_eq!((empty.status, empty.body.len()), (200, 0));
        let busy = client.call("GET", "/cgi-bin/token", "");
        assert_eq!(busy.json()["errcode"], json!(-1));
    }

    #[test]
    fn a_raw_answer_and_a_redirect_come_byte_by_byte_and_for_ever() {
        let simulator = simulator();
        let mut client = Client::connect(&simulator);
        let body = "{\"errcode\":40001,\"errmsg\":\"\u{1}\"}";
        let fault = json!({ "raw": { "content_type": "image/jpeg", "body": body } });
        let order = json!({ "path": "/wxa/getwxacode", "count": "forever", "fault": fault });
        client.call("POST", "/_sim/faults", &order.to_string());
        for _ in 0..3 {
            let got = client.call("POST", "/wxa/getwxacode", "{}");
            assert_eq!((got.status, got.content_type.as_str()), (200, "image/jpeg"));
            assert_eq!(got.body, body.as_bytes());
        }
        client.call("DELETE", "/_sim/faults", "");
        let got = client.call("POST", "/wxa/getwxacode", "{}");
        assert_eq!(got.json()["errcode"], json!(41001));
        simulator.fault(Fault::for_ever("/wxa/getwxacode", Effect::Empty));
        assert!(client.call("POST", "/wxa/getwxacode", "{}").body.is_empty());
        simulator.clear_faults();
        let got = client.call("POST", "/wxa/getwxacode", "{}");
        assert_eq!(got.json()["errcode"], json!(41001));

        let fault = json!({ "redirect": "https://elsewhere.example/" });
        let order = json!({ "path": "/wxa/*", "fault": fault });
        client.call("POST", "/_sim/faults", &order.to_string());
        let got = client.call("GET", "/wxa/getwxacode", "");
        assert_eq!((got.status, got.body.len()), (302, 0));
        assert_eq!(got.location, "https://elsewhere.example/");
    }

    #[test]
    fn a_slow_answer_is_the_true_one_and_comes_in_pieces() {
        let simulator = simulator();
        let slow = |bytes, interval| Effect::Slow { bytes, interval };
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        let quick = slow(7, Duration::from_millis(1));
        simulator.fault(Fault::new(LOGIN_PATH, 1, quick));
        assert!(get(&simulator, &target).json()["openid"].is_string());

        let hour = slow(1, Duration::from_secs(3600));
        simulator.fault(Fault::new(LOGIN_PATH, 1, hour));
        let mut client = Client::connect(&simulator);
        client.send("GET", &target, "");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            client.0.read_line(&mut line).unwrap();
        }
        simulator.stop();
        let mut seen = Vec::new();
        let _ = client.0.read_to_end(&mut seen);
        assert!(seen.is_empty(), "the head comes at once, the body does not");
    }

    #[test]
    fn a_delayed_call_holds_up_nobody_else() {
        let simulator = simulator();
        let hour = Duration::from_secs(3600);
        simulator.fault(Fault::delay(LOGIN_PATH, 1, hour));
        let mut delayed = Client::connect(&simulator);
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        delayed.send("GET", &target, "");
        while simulator.calls(LOGIN_PATH) == 0 {
            std::thread::yield_now();
        }
        let other = get(&simulator, &target).json();
        assert_eq!(other["errcode"], json!(40163), "the delayed call has acted");
        simulator.stop();
        assert!(delayed.receive().is_err(), "it was still waiting");
    }

    #[test]
    fn a_short_delay_ends_in_the_true_answer() {
        let simulator = simulator();
        simulator.fault(Fault::delay(LOGIN_PATH, 1, Duration::from_millis(5)));
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        assert!(get(&simulator, &target).json()["openid"].is_string());
    }

    #[test]
    fn a_body_of_32_mebibytes_is_read_and_a_larger_one_refused() {
        let simulator = simulator();
        let path = "/cgi-bin/stable_token";
        for (length, status) in [(32 << 20, 200), ((32 << 20) + 1, 413)] {
            let mut client = Client::connect(&simulator);
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {length}\r\n\r\n");
            client.0.get_mut().write_all(head.as_bytes()).unwrap();
            // Whoever is refused is not listened to any more.
            let _ = client.0.get_mut().write_all(&vec![b'x'; length]);
            assert_eq!(client.receive().unwrap().status, status, "{length}");
        }
        let received = simulator.received(path);
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].body.len(), 32 << 20);
        assert_eq!(received[0].headers["content-length"], "33554432");
        assert!(received[0].peer.is_loopback());
    }

    #[test]
    fn the_library_and_the_control_endpoints_turn_the_same_knobs() {
        let simulator = simulator();
        let code = simulator.issue_code("alice");
        let mut client = Client::connect(&simulator);
        client.call("POST", "/_sim/clock", r#"{"advance_s":301}"#);
        let got = client.call("GET", &format!("{LOGIN}{code}"), "");
        assert_eq!(got.json()["errcode"], json!(40029));
        simulator.change_user(
            "alice",
            &UserChange {
                blocked: Some(true),
                ..UserChange::default()
            },
        );
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        assert_eq!(
            client.call("GET", &target, "").json()["errcode"],
            json!(40226)
        );
        client.call("POST", "/_sim/reset", "");
        assert_eq!(simulator.calls(LOGIN_PATH), 0);
    }

    #[test]
    fn https_is_spoken_where_there_is_a_certificate_and_plain_http_is_not() {
        let (simulator, certificate) = secure_simulator();
        assert_eq!(simulator.url(), format!("https://{}", simulator.addr()));
        let mut client = Client::connect_securely(&simulator, certificate);
        let target = format!("{LOGIN}{}", simulator.issue_code("alice"));
        let first = client.call("GET", &target, "");
        assert!(first.json()["openid"].is_string());
        let again = client.call("GET", &target, "");
        assert_eq!(again.json()["errcode"], json!(40163));

        let mut plain = Client::connect(&simulator);
        plain.send("GET", "/_sim/", "");
        let mut answer = Vec::new();
        let _ = plain.0.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }

    #[test]
    fn faults_tear_https_as_they_tear_http() {
        let (simulator, certificate) = secure_simulator();
        for effect in [Effect::Reset, Effect::ResetMidBody] {
            simulator.fault(Fault::new(LOGIN_PATH, 1, effect));
            let mut client = Client::connect_securely(&simulator, certificate.clone());
            client.send("GET", LOGIN, "");
            let mut seen = Vec::new();
            let error = client.0.read_to_end(&mut seen).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn a_certificate_with_a_key_of_another_is_refused_at_the_start() {
        let [one, other] =
            [(); 2].map(|()| rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap());
        let (certificate, key) = (one.cert.pem(), other.signing_key.serialize_pem());
        for (certificates, key) in [(&certificate[..], &key[..]), ("", &key), (&certificate, "")] {
            let appid = AppId::parse("wx0123456789abcdef").unwrap();
            let refused = Simulator::start(Options {
                tls: Some(Identity {
                    certificates: certificates.to_owned(),
                    key: Secret::new(key),
                }),
                ..Options::local(appid, Secret::new("s"))
            });
            let error = refused.err().expect("it is no pair");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn a_stopped_simulator_is_gone_when_stop_returns() {
        let simulator = simulator();
        let addr = simulator.addr();
        let mut idle = Client::connect(&simulator);
        idle.call("GET", "/_sim/", "");
        simulator.stop();
        assert!(TcpStream::connect(addr).is_err());
        assert!(idle.receive().is_err());
    }
}
