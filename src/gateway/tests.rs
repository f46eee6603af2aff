//! The gateway against peers that are real servers, and mostly bad ones.

use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::domain::AppId;
use crate::error::Language;
use crate::secret::Secret;
use crate::wechat::errcode;

const SECRET: &str = "5ec2e7+of/the=app";
const OLD_SECRET: &str = "0ld5ec2e7";
const CODE: &str = "0c1d&appid=wxevil/x=";
const USER: &str =
    r#"{"session_key":"HyVFkGl5F5OQWJZZaNzBBg==","openid":"o6zAJs1Zf_WpsZ3G8vVC-abcdefg"}"#;

/// A server on a port of its own. It reads one request per connection and notes it.
struct Peer {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What a peer does once it has read a request.
enum Act {
    /// Sends these bytes and closes.
    Say(Vec<u8>),
    /// Sends these bytes and resets the connection.
    Reset(Vec<u8>),
    /// Keeps the connection and says nothing.
    Hang,
}

impl Peer {
    async fn start(act: impl Fn(&str) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                noted.lock().unwrap().push(request.clone());
                match act(&request) {
                    Act::Say(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                    }
                    Act::Reset(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        SockRef::from(&stream)
                            .set_linger(Some(Duration::ZERO))
                            .unwrap();
                    }
                    Act::Hang => held.push(stream),
                }
            }
        });
        Self { port, requests }
    }

    async fn saying(bytes: Vec<u8>) -> Self {
        Self::start(move |_| Act::Say(bytes.clone())).await
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Head and body.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let mut request = String::from_utf8_lossy(&head).into_owned();
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    request.push_str(std::str::from_utf8(&body).unwrap());
    request
}

/// WeChat's usual way: HTTP 200, JSON called text.
fn ok(body: &str) -> Vec<u8> {
    http("200 OK", "text/plain", body)
}

fn http(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn gateway_with(
    endpoints: Vec<config::Endpoint>,
    connect_timeout: Duration,
    timeout: Duration,
) -> Gateway {
    let app = config::App {
        appid: AppId::parse("wx0123456789abcdef").unwrap(),
        secrets: vec![Secret::new(SECRET), Secret::new(OLD_SECRET)],
        env: String::new(),
    };
    let wechat = config::Wechat::at(endpoints, connect_timeout, timeout);
    Gateway::new(&app, &wechat, &Memory::default(), Arc::default())
}

fn endpoint(tls: bool, port: u16) -> config::Endpoint {
    config::Endpoint {
        tls,
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// With timeouts that no test reaches.
const LONG: Duration = Duration::from_secs(60);

/// With this timeout of answers, and all the time to connect: that it runs out is another failure.
fn gateway_to(ports: &[u16], timeout: Duration) -> Gateway {
    let endpoints = ports.iter().map(|port| endpoint(false, *port)).collect();
    gateway_with(endpoints, LONG, timeout)
}

fn gateway(ports: &[u16]) -> Gateway {
    gateway_to(ports, LONG)
}

fn code() -> LoginCode {
    LoginCode::parse(CODE).unwrap()
}

async fn login_at(peer: &Peer) -> Result<UserSession, Error> {
    gateway(&[peer.port]).code2session(&code()).await
}

/// The error of a login at a peer that answers `bytes`; nothing in it may tell a secret.
async fn error_for(bytes: Vec<u8>) -> Error {
    let error = login_at(&Peer::saying(bytes).await).await.unwrap_err();
    assert_discreet(&error);
    error
}

/// Everything that an error can show, in one text.
fn shown(error: &Error) -> String {
    let problem = |language| String::from_utf8(error.to_problem("request-1", language)).unwrap();
    format!(
        "{error}\n{error:?}\n{}\n{}",
        problem(Language::English),
        problem(Language::Chinese)
    )
}

fn assert_discreet(error: &Error) {
    let shown = shown(error);
    let (secret, code) = (api::percent_encode(SECRET), api::percent_encode(CODE));
    for secret in [
        SECRET,
        OLD_SECRET,
        CODE,
        &secret,
        &code,
        "js_code",
        "HyVFkGl5F5OQWJZZaNzBBg",
    ] {
        assert!(!shown.contains(secret), "{secret} is told in {shown}");
    }
}

fn counted(gateway: &Gateway, errcode: &str) -> bool {
    let families = gateway.line.metrics.registry().gather();
    let labels = families
        .iter()
        .filter(|family| family.name() == "wx_sidecar_wx_api_requests_total")
        .flat_map(|family| family.get_metric())
        .flat_map(|metric| metric.get_label());
    labels
        .into_iter()
        .any(|label| label.name() == "errcode" && label.value() == errcode)
}

#[test]
fn a_gateway_is_shared_by_threads_and_its_futures_move_between_them() {
    fn shared<T: Send + Sync>(_: &T) {}
    fn moved<T: Send>(_: &T) {}
    let gateway = gateway(&[1]);
    shared(&gateway);
    moved(&gateway.code2session(&code()));
    let (phone, openid) = (
        PhoneCode::parse("c").unwrap(),
        OpenId::parse("o6zAJs1Z").unwrap(),
    );
    moved(&gateway.phone_number(&phone, Some(&openid)));
    moved(&gateway.open_data(&openid, &[]));
    let key = SessionKey::from_bytes([7; 16]);
    moved(&gateway.check_session_key(&openid, &key));
    moved(&gateway.reset_session_key(&openid, &key));
    moved(&gateway.with_access_token(|_| async { Ok(()) }));
}

#[tokio::test]
async fn json_that_is_called_text_is_a_login() {
    let peer = Peer::saying(ok(USER)).await;
    let gateway = gateway(&[peer.port]);
    let user = gateway.code2session(&code()).await.unwrap();
    assert_eq!(user.openid.as_str(), "o6zAJs1Zf_WpsZ3G8vVC-abcdefg");
    assert_eq!(user.unionid, None);
    assert!(counted(&gateway, "0"));
}

#[tokio::test]
async fn a_unionid_is_handed_on() {
    let body = USER.replace('}', r#","unionid":"oU-unionid"}"#);
    let peer = Peer::saying(http("200 OK", "image/jpeg", &body)).await;
    let user = login_at(&peer).await.unwrap();
    assert_eq!(user.unionid.unwrap().as_str(), "oU-unionid");
}

#[tokio::test]
async fn the_request_is_what_wechat_documents_and_a_code_cannot_inject() {
    let peer = Peer::saying(ok(USER)).await;
    login_at(&peer).await.unwrap();
    let request = peer.requests().remove(0).to_lowercase();
    let line = "get /sns/jscode2session?appid=wx0123456789abcdef&secret=5ec2e7%2bof%2fthe%3dapp\
                &js_code=0c1d%26appid%3dwxevil%2fx%3d&grant_type=authorization_code http/1.1\r\n";
    assert!(request.starts_with(line), "{request}");
    assert!(request.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", peer.port)));
    assert!(request.contains("\r\nuser-agent: wx-sidecar/"));
}

#[tokio::test]
async fn a_refused_code_maps_to_its_row_with_rid_and_hint() {
    let error = error_for(ok(
        r#"{"errcode":40029,"errmsg":"invalid code, rid: 6176-0905-34a8"}"#,
    ))
    .await;
    assert_eq!(error.status(), 401);
    assert_eq!(error.side(), Side::Downstream);
    let fault = error.fault().unwrap();
    assert_eq!(fault.errmsg, "invalid code");
    assert_eq!(fault.rid.as_deref(), Some("6176-0905-34a8"));
    assert!(shown(&error).contains("call wx.login again; a code works once"));
    assert!(shown(&error).contains("请重新调用 wx.login"));
}

#[tokio::test]
async fn refusals_keep_their_status_and_say_when_to_come_back() {
    for (code, status, side, after) in [
        (-1, 503, Side::Wechat, Some(1)),
        (40013, 500, Side::Us, None),
        (40163, 401, Side::Downstream, None),
        (40226, 403, Side::Wechat, None),
        (45011, 429, Side::Wechat, Some(60)),
    ] {
        let error = error_for(ok(&format!(r#"{{"errcode":{code},"errmsg":"x"}}"#))).await;
        assert_eq!(error.kind(), Kind::WechatRefused);
        assert_eq!((error.status(), error.side()), (status, side), "{code}");
        assert_eq!(error.retry_after(), after.map(Duration::from_secs));
        assert!(shown(&error).contains(errcode::advice(code).unwrap()));
    }
}

#[tokio::test]
async fn an_ip_white_list_refusal_names_the_ip() {
    let body = r#"{"errcode":40164,"errmsg":"invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: a-b-c"}"#;
    let error = error_for(ok(body)).await;
    assert!(shown(&error).contains("WeChat saw 1.2.3.4"));
}

#[tokio::test]
async fn an_errcode_that_is_a_string_counts() {
    let error = error_for(ok(r#"{"errcode":"40163","errmsg":"code been used"}"#)).await;
    assert_eq!(error.fault().unwrap().meaning.code, 40163);
}

#[tokio::test]
async fn an_unknown_errcode_is_kept_and_counts_as_other() {
    let peer = Peer::saying(ok(r#"{"errcode":7654321,"errmsg":"new"}"#)).await;
    let gateway = gateway(&[peer.port]);
    let error = gateway.code2session(&code()).await.unwrap_err();
    assert_eq!(error.status(), 502);
    assert_eq!(error.fault().unwrap().meaning.code, 7_654_321);
    assert!(counted(&gateway, "other"));
}

#[tokio::test]
async fn html_with_502_is_invalid_and_not_quoted() {
    let error = error_for(http(
        "502 Bad Gateway",
        "text/html",
        "<html>nginx-canary</html>",
    ))
    .await;
    assert_eq!(error.kind(), Kind::WechatInvalid);
    assert!(shown(&error).contains("WeChat answered HTTP 502 with something that is not JSON"));
    assert!(!shown(&error).contains("nginx-canary"));
}

#[tokio::test]
async fn an_errcode_under_another_status_counts_and_json_without_one_does_not() {
    let refused = http(
        "500 Oops",
        "application/json",
        r#"{"errcode":-1,"errmsg":"system error"}"#,
    );
    assert_eq!(error_for(refused).await.status(), 503);
    let error = error_for(http("500 Oops", "application/json", USER)).await;
    assert_eq!(error.kind(), Kind::WechatInvalid);
}

#[tokio::test]
async fn answers_that_mean_nothing_are_invalid() {
    let key = r#""session_key":"HyVFkGl5F5OQWJZZaNzBBg==""#;
    for body in [
        String::new(),
        "[]".to_owned(),
        format!("{{{key}}}"),
        format!(r#"{{{key},"openid":7}}"#),
        format!(r#"{{{key},"openid":"a\r\nX-Admin: 1"}}"#),
        format!(r#"{{{key},"openid":"o6zAJs1Z","openid":"o6zAJs2Z"}}"#),
        USER[..USER.len() - 1].to_owned(),
    ] {
        let error = error_for(ok(&body)).await;
        assert_eq!(error.kind(), Kind::WechatInvalid, "{body}");
        assert!(!shown(&error).contains("X-Admin"));
    }
}

#[tokio::test]
async fn an_answer_of_ten_megabytes_is_not_read_to_its_end() {
    let body = format!(r#"{{"openid":"{}"}}"#, "x".repeat(10 * 1024 * 1024));
    let error = error_for(ok(&body)).await;
    assert_eq!(error.kind(), Kind::WechatInvalid);
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_invalid() {
    let error = error_for(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()).await;
    assert_eq!(error.kind(), Kind::WechatInvalid);
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_unreachable() {
    let peer = Peer::start(|_| {
        Act::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"openid\":".to_vec())
    })
    .await;
    let gateway = gateway(&[peer.port]);
    let error = gateway.code2session(&code()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WechatUnreachable);
    assert!(counted(&gateway, "unreachable"));
    assert_discreet(&error);
}

#[tokio::test]
async fn a_peer_that_never_answers_is_a_timeout() {
    let peer = Peer::start(|_| Act::Hang).await;
    let gateway = gateway_to(&[peer.port], Duration::from_millis(50));
    let error = gateway.code2session(&code()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WechatTimeout);
    assert!(counted(&gateway, "timeout"));
    assert_discreet(&error);
}

/// A listener that notes nothing and need not run: a connection would wait in its queue.
fn bystander() -> StdListener {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn assert_left_alone(bystander: &StdListener) {
    let knock = bystander.accept().map(|(_, from)| from);
    assert_eq!(knock.unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn port(listener: &StdListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = bystander();
    let location = format!("http://127.0.0.1:{}/", port(&elsewhere));
    for status in ["301 Moved", "302 Found", "307 Again", "308 Moved"] {
        for body in [USER, r#"{"errcode":40029,"errmsg":"invalid code"}"#] {
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            );
            let error = error_for(answer.into_bytes()).await;
            assert_eq!(error.kind(), Kind::WechatInvalid);
        }
    }
    assert_left_alone(&elsewhere);
}

#[tokio::test]
async fn the_second_endpoint_is_asked_when_the_first_refuses_to_connect() {
    // Bound but not listening: connections are refused, and nobody else gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    let peer = Peer::saying(ok(USER)).await;
    assert!(
        gateway(&[closed_port, peer.port])
            .code2session(&code())
            .await
            .is_ok()
    );

    let error = gateway(&[closed_port])
        .code2session(&code())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::WechatUnreachable);
    assert_discreet(&error);
}

#[tokio::test]
async fn a_login_whose_answer_was_lost_is_not_sent_to_the_second_endpoint() {
    let second = bystander();
    for reset in [true, false] {
        let first = Peer::start(move |_| {
            if reset {
                Act::Reset(Vec::new())
            } else {
                Act::Say(Vec::new())
            }
        })
        .await;
        let error = gateway(&[first.port, port(&second)])
            .code2session(&code())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::WechatUnreachable);
        assert!(shown(&error).contains("call wx.login again"));
        assert_eq!(first.requests().len(), 1);
    }
    assert_left_alone(&second);
}

#[tokio::test]
async fn a_hanging_first_endpoint_is_not_a_reason_to_ask_the_second() {
    let second = bystander();
    let first = Peer::start(|_| Act::Hang).await;
    let error = gateway_to(&[first.port, port(&second)], Duration::from_millis(50))
        .code2session(&code())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::WechatTimeout);
    assert_left_alone(&second);
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_counts_as_no_connection() {
    // Its queue takes the connection, and nobody ever says hello.
    let silent = bystander();
    let peer = Peer::saying(ok(USER)).await;
    // The same time is what the second has to be connected to.
    let gateway = gateway_with(
        vec![endpoint(true, port(&silent)), endpoint(false, peer.port)],
        Duration::from_secs(3),
        LONG,
    );
    assert!(gateway.code2session(&code()).await.is_ok());
}

/// A WeChat that takes only `secret`, and then only complains of the code.
async fn peer_taking(secret: &'static str) -> Peer {
    Peer::start(move |head| {
        let secret = api::percent_encode(secret);
        Act::Say(ok(if head.contains(&format!("&secret={}&", *secret)) {
            r#"{"errcode":40029,"errmsg":"invalid code"}"#
        } else {
            r#"{"errcode":40125,"errmsg":"invalid appsecret"}"#
        }))
    })
    .await
}

#[tokio::test]
async fn during_a_rotation_the_other_secret_is_tried_and_remembered() {
    let peer = peer_taking(OLD_SECRET).await;
    let gateway = gateway(&[peer.port]);
    for (calls_so_far, login) in [(2, "first"), (3, "second")] {
        let error = gateway.code2session(&code()).await.unwrap_err();
        assert_eq!(error.fault().unwrap().meaning.code, 40029);
        assert_eq!(
            peer.requests().len(),
            calls_so_far,
            "after the {login} login"
        );
    }
    assert!(counted(&gateway, "40125") && counted(&gateway, "40029"));
}

#[tokio::test]
async fn the_secret_that_works_is_the_only_one_sent() {
    let peer = peer_taking(SECRET).await;
    login_at(&peer).await.unwrap_err();
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn when_no_secret_works_each_is_tried_once_and_the_operator_is_told() {
    for code in [40125, 40001] {
        let peer = Peer::saying(ok(&format!(r#"{{"errcode":{code},"errmsg":"no"}}"#))).await;
        let error = login_at(&peer).await.unwrap_err();
        assert_eq!(peer.requests().len(), 2);
        assert_eq!((error.status(), error.side()), (500, Side::Us));
        assert!(!error.retryable());
        assert!(shown(&error).contains("check [app] appid and secret in sidecar.toml"));
    }
}

#[tokio::test]
async fn an_echo_of_the_request_does_not_get_out() {
    let peer = Peer::start(|head| {
        let line = head.lines().next().unwrap_or_default().replace('&', " ");
        let body = serde_json::json!({
            "errcode": 40029,
            "errmsg": format!("{SECRET} {OLD_SECRET} {CODE} {line}, rid: {OLD_SECRET}"),
        });
        Act::Say(ok(&body.to_string()))
    })
    .await;
    let error = login_at(&peer).await.unwrap_err();
    let told = shown(&error).replace("js_code=***", "");
    for secret in [
        SECRET,
        OLD_SECRET,
        CODE,
        "5ec2e7%2B",
        "wxevil",
        "Authorization",
    ] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    assert_eq!(error.fault().unwrap().rid, None);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_the_call_and_keeps_the_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // While tracing knows of one dispatcher only, a call site that another test's thread reaches first asks that
    // thread's dispatcher, finds none there and is silenced for the whole process. Knowing of two, it asks them all.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber);

    let refusing = Peer::saying(ok(
        r#"{"errcode":-1,"errmsg":"system error, rid: a1-b2-c3"}"#,
    ))
    .await;
    login_at(&refusing).await.unwrap_err();
    login_at(&Peer::saying(ok(USER)).await).await.unwrap();
    let dead = peer_answering(DEAD).await;
    let call = gateway(&[dead.port]);
    call.phone_number(&phone_code(), None).await.unwrap_err();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("WARN")).unwrap();
    for part in [login::PATH, "errcode=-1", "rid=\"a1-b2-c3\"", "elapsed_ms="] {
        assert!(line.contains(part), "{part} in {line}");
    }
    for secret in [
        "5ec2e7", OLD_SECRET, "0c1d", "wxevil", "HyVFk", "t0ken", "c0de",
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

const TOKEN: &str = "92_t0ken/with=odd+signs";
const PHONE: &str = r#"{"errcode":0,"errmsg":"ok","phone_info":{"phoneNumber":"13800138000","purePhoneNumber":"13800138000","countryCode":86,"watermark":{"timestamp":1637744274,"appid":"wx0123456789abcdef"}}}"#;
const DEAD: &str = r#"{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest rid: a-b-c"}"#;

fn phone_code() -> PhoneCode {
    PhoneCode::parse("ph0ne/c0de+").unwrap()
}

fn alice() -> OpenId {
    OpenId::parse("o6zAJs1Zf_WpsZ3G8vVC-abcdefg").unwrap()
}

fn session_key() -> SessionKey {
    SessionKey::parse("HyVFkGl5F5OQWJZZaNzBBg==").unwrap()
}

fn granting(token: &str) -> Vec<u8> {
    ok(&serde_json::json!({ "access_token": token, "expires_in": 7200 }).to_string())
}

fn is_for_a_token(request: &str) -> bool {
    request.starts_with("POST /cgi-bin/stable_token")
}

/// A WeChat that gives [`TOKEN`] for ever, and this answer to all else.
async fn peer_with_token(act: impl Fn(&str) -> Act + Send + 'static) -> Peer {
    Peer::start(move |request| {
        if is_for_a_token(request) {
            Act::Say(granting(TOKEN))
        } else {
            act(request)
        }
    })
    .await
}

async fn peer_answering(body: &'static str) -> Peer {
    peer_with_token(move |_| Act::Say(http("200 OK", "image/jpeg", body))).await
}

fn api_calls(peer: &Peer) -> Vec<String> {
    let mut calls = peer.requests();
    calls.retain(|request| !is_for_a_token(request));
    calls
}

fn assert_no_token_in(error: &Error) {
    let shown = shown(error);
    let encoded = api::percent_encode(TOKEN);
    for secret in [TOKEN, &encoded, SECRET, OLD_SECRET, phone_code().expose()] {
        assert!(!shown.contains(secret), "{secret} is told in {shown}");
    }
}

#[tokio::test]
async fn a_call_fetches_a_token_first_and_posts_json_with_it() {
    let peer = peer_answering(PHONE).await;
    let gateway = gateway(&[peer.port]);
    for _ in 0..2 {
        let phone = gateway.phone_number(&phone_code(), Some(&alice())).await;
        assert_eq!(phone.unwrap().country_code, "86");
    }
    let requests = peer.requests();
    assert_eq!(requests.len(), 3, "one token serves both");
    let token_line = "POST /cgi-bin/stable_token HTTP/1.1\r\n";
    assert!(requests[0].starts_with(token_line), "{}", requests[0]);
    let body = format!(
        r#"{{"appid":"wx0123456789abcdef","force_refresh":false,"grant_type":"client_credential","secret":"{SECRET}"}}"#
    );
    assert!(requests[0].ends_with(&body), "{}", requests[0]);
    let line = "POST /wxa/business/getuserphonenumber?access_token=92_t0ken%2Fwith%3Dodd%2Bsigns HTTP/1.1\r\n";
    assert!(requests[1].starts_with(line), "{}", requests[1]);
    assert!(requests[1].contains("\r\ncontent-type: application/json\r\n"));
    let body = r#"{"code":"ph0ne/c0de+","openid":"o6zAJs1Zf_WpsZ3G8vVC-abcdefg"}"#;
    assert!(requests[1].ends_with(body), "{}", requests[1]);
    assert!(counted(&gateway, "0"));
}

#[tokio::test]
async fn a_wechat_that_always_refuses_the_token_is_called_twice_and_no_more() {
    for body in [
        DEAD,
        r#"{"errcode":40014,"errmsg":"invalid access_token"}"#,
        r#"{"errcode":42001,"errmsg":"access_token expired"}"#,
    ] {
        let count = Mutex::new(0);
        let peer = Peer::start(move |request| {
            let mut count = count.lock().unwrap();
            if is_for_a_token(request) {
                *count += 1;
                return Act::Say(granting(&format!("token-{count}")));
            }
            Act::Say(ok(body))
        })
        .await;
        let error = gateway(&[peer.port])
            .phone_number(&phone_code(), None)
            .await
            .unwrap_err();
        assert_eq!(error.status(), 502);
        assert_eq!(api_calls(&peer).len(), 2);
        assert_eq!(peer.requests().len(), 4);
        assert!(shown(&error).contains("refuses the sidecar's access_token"));
    }
}

#[tokio::test]
async fn a_wechat_that_gives_a_dead_token_again_has_one_refresh_forced_and_no_more() {
    let peer = peer_answering(DEAD).await;
    let gateway = gateway(&[peer.port]);
    for calls in [1, 2, 3] {
        let error = gateway.phone_number(&phone_code(), None).await.unwrap_err();
        assert_eq!(error.status(), 502);
        assert_no_token_in(&error);
        assert_eq!(api_calls(&peer).len(), calls, "the same token helps nobody");
    }
    let fetches: Vec<_> = peer
        .requests()
        .into_iter()
        .filter(|r| is_for_a_token(r))
        .collect();
    let forced: Vec<bool> = fetches
        .iter()
        .map(|fetch| fetch.contains(r#""force_refresh":true"#))
        .collect();
    assert_eq!(forced, [false, false, true]);
}

#[tokio::test]
async fn a_token_that_was_replaced_elsewhere_costs_a_phone_code_nothing() {
    let given = Mutex::new(["new", "old"].to_vec());
    let peer = Peer::start(move |request| {
        Act::Say(if is_for_a_token(request) {
            granting(given.lock().unwrap().pop().unwrap())
        } else if request.contains("access_token=new") {
            ok(PHONE)
        } else {
            ok(DEAD)
        })
    })
    .await;
    let gateway = gateway(&[peer.port]);
    gateway.phone_number(&phone_code(), None).await.unwrap();
    assert_eq!(
        api_calls(&peer).len(),
        2,
        "refused before the code was looked at"
    );
    assert!(counted(&gateway, "40001"));
}

#[tokio::test]
async fn a_thousand_calls_at_once_fetch_one_token() {
    let peer = peer_answering("{}").await;
    let gateway = Arc::new(gateway(&[peer.port]));
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let call = |token: AccessToken| async move { Ok(token.expose() == TOKEN) };
                gateway.with_access_token(call).await
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap());
    }
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn a_refused_phone_code_is_the_clients_fault_and_is_told_the_button() {
    for code in [40029, 40013] {
        let body = format!(r#"{{"errcode":{code},"errmsg":"invalid code, rid: a-b-c"}}"#);
        let peer = peer_with_token(move |_| Act::Say(ok(&body))).await;
        let call = gateway(&[peer.port]);
        let error = call.phone_number(&phone_code(), None).await.unwrap_err();
        assert_eq!((error.status(), error.side()), (401, Side::Downstream));
        assert!(shown(&error).contains("press the phone number button again"));
        assert!(shown(&error).contains("手机号授权按钮"));
        assert_eq!(api_calls(&peer).len(), 1);
    }
}

#[tokio::test]
async fn a_phone_code_whose_answer_was_lost_is_not_sent_again() {
    let second = bystander();
    for torn in [true, false] {
        let first = peer_with_token(move |_| {
            if torn {
                Act::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"phone".to_vec())
            } else {
                Act::Reset(Vec::new())
            }
        })
        .await;
        let gateway = gateway(&[first.port, port(&second)]);
        let error = gateway.phone_number(&phone_code(), None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WechatUnreachable);
        assert!(shown(&error).contains("the code may be used up"));
        assert!(!shown(&error).contains("wx.login"));
        assert_eq!(api_calls(&first).len(), 1);
    }
    assert_left_alone(&second);
}

#[tokio::test]
async fn a_number_for_another_app_is_no_answer() {
    let peer = peer_answering(
        r#"{"errcode":0,"phone_info":{"phoneNumber":"1","purePhoneNumber":"1","countryCode":"86","watermark":{"timestamp":1,"appid":"wxfedcba9876543210"}}}"#,
    )
    .await;
    let gateway = gateway(&[peer.port]);
    let error = gateway.phone_number(&phone_code(), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WechatInvalid);
}

#[tokio::test]
async fn a_session_key_is_shown_by_a_signature_only() {
    let peer = peer_answering(r#"{"errcode":0,"errmsg":"ok"}"#).await;
    let gateway = gateway(&[peer.port]);
    assert!(
        gateway
            .check_session_key(&alice(), &session_key())
            .await
            .unwrap()
    );
    let request = api_calls(&peer).remove(0);
    let signature = session_signature(&session_key(), b"");
    let line = format!(
        "GET /wxa/checksession?access_token=92_t0ken%2Fwith%3Dodd%2Bsigns&openid={}&signature={signature}&sig_method=hmac_sha256 HTTP/1.1\r\n",
        alice().as_str()
    );
    assert!(request.starts_with(&line), "{request}");
    assert!(!request.contains("HyVFk"));
}

#[tokio::test]
async fn a_stale_session_key_is_an_answer_and_other_refusals_are_not() {
    for (code, expected) in [
        (87009, Some(false)),
        (87007, Some(false)),
        (40003, None),
        (-1, None),
    ] {
        let body = format!(r#"{{"errcode":{code},"errmsg":"no"}}"#);
        let peer = peer_with_token(move |_| Act::Say(ok(&body))).await;
        let gateway = gateway(&[peer.port]);
        let checked = gateway.check_session_key(&alice(), &session_key()).await;
        assert_eq!(checked.ok(), expected, "{code}");
        assert!(counted(&gateway, &code.to_string()));
    }
}

#[tokio::test]
async fn open_data_of_nothing_asks_nobody() {
    let gateway = gateway(&[1]);
    assert!(gateway.open_data(&alice(), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn during_a_rotation_the_other_secret_gets_a_token_too() {
    let peer = Peer::start(|request| {
        Act::Say(if !is_for_a_token(request) {
            ok(PHONE)
        } else if request.contains(OLD_SECRET) {
            granting(TOKEN)
        } else {
            ok(r#"{"errcode":40001,"errmsg":"invalid credential"}"#)
        })
    })
    .await;
    let gateway = gateway(&[peer.port]);
    gateway.phone_number(&phone_code(), None).await.unwrap();
    assert_eq!(peer.requests().len(), 3, "two secrets, one call");
    assert!(counted(&gateway, "40125") || counted(&gateway, "40001"));
}

#[tokio::test]
async fn when_no_secret_gets_a_token_the_operator_is_told() {
    let peer = Peer::saying(ok(r#"{"errcode":40001,"errmsg":"invalid credential"}"#)).await;
    let gateway = gateway(&[peer.port]);
    let error = gateway.phone_number(&phone_code(), None).await.unwrap_err();
    assert_eq!((error.status(), error.side()), (500, Side::Us));
    assert!(shown(&error).contains("check [app] appid and secret in sidecar.toml"));
    assert_eq!(
        peer.requests().len(),
        2,
        "and it is not taken for a dead token"
    );
}

#[tokio::test]
async fn a_token_endpoint_that_answers_nonsense_is_a_503() {
    for bytes in [
        http("502 Bad Gateway", "text/html", "<html>oops</html>"),
        ok(""),
        ok(r#"{"access_token":"t","expires_in":0}"#),
        ok(r#"{"access_token":"t","expires_in":-5}"#),
        ok(r#"{"expires_in":7200}"#),
        ok(r#"{"errcode":-1,"errmsg":"system error"}"#),
    ] {
        let peer = Peer::saying(bytes).await;
        let gateway = gateway(&[peer.port]);
        let error = gateway.phone_number(&phone_code(), None).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (Kind::AccessTokenUnavailable, 503)
        );
        assert!(error.retry_after().is_some());
        assert_eq!(peer.requests().len(), 1, "the code stays unspent");
    }
}

#[tokio::test]
async fn a_token_of_two_kilobytes_can_be_shown() {
    let long = "t".repeat(2048);
    let expected = format!("access_token={long}&");
    let peer = Peer::start(move |request| {
        Act::Say(if is_for_a_token(request) {
            granting(&long)
        } else if request.contains(&expected) {
            ok(r#"{"errcode":0}"#)
        } else {
            ok(DEAD)
        })
    })
    .await;
    let gateway = gateway(&[peer.port]);
    assert!(
        gateway
            .check_session_key(&alice(), &session_key())
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn an_echo_of_a_call_does_not_get_out() {
    let peer = peer_with_token(|request| {
        let (line, body) = (request.lines().next(), request.lines().last());
        let echo = format!("{TOKEN} {line:?} {}", body.unwrap_or_default());
        let body = serde_json::json!({ "errcode": 87008, "errmsg": echo });
        Act::Say(ok(&body.to_string()))
    })
    .await;
    let gateway = gateway(&[peer.port]);
    assert_no_token_in(&gateway.phone_number(&phone_code(), None).await.unwrap_err());
    let error = gateway
        .reset_session_key(&alice(), &session_key())
        .await
        .unwrap_err();
    assert_no_token_in(&error);
    assert!(!shown(&error).contains(&session_signature(&session_key(), b"")));
}

#[test]
fn a_gateway_serves_several_runtimes_and_survives_the_end_of_one() {
    let (send_port, receive_port) = std::sync::mpsc::channel();
    thread::spawn(move || {
        single_threaded().block_on(async {
            let keep_alive = String::from_utf8(ok(USER))
                .unwrap()
                .replace("connection: close\r\n", "");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send_port
                .send(listener.local_addr().unwrap().port())
                .unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                let keep_alive = keep_alive.clone();
                tokio::spawn(async move {
                    while !read_request(&mut stream).await.is_empty() {
                        stream.write_all(keep_alive.as_bytes()).await.unwrap();
                    }
                });
            }
        });
    });
    let gateway = Arc::new(gateway(&[receive_port.recv().unwrap()]));

    // The kept connection belongs to a runtime that is gone by the next turn.
    for _ in 0..3 {
        let gateway = Arc::clone(&gateway);
        thread::spawn(move || {
            single_threaded().block_on(async {
                for _ in 0..3 {
                    gateway.code2session(&code()).await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
    }
}

fn single_threaded() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[tokio::test]
async fn quotas_are_asked_for_what_is_called_and_those_that_are_not_told_once() {
    let peer = peer_with_token(|request| {
        let body = match request {
            it if it.contains("cgi_path") && it.contains("getuserphonenumber") => {
                r#"{"errcode":0,"quota":{"daily_limit":100,"used":1,"remain":99}}"#
            }
            it if it.contains("cgi_path") => r#"{"errcode":76022,"errmsg":"x"}"#,
            it if it.contains("checksession") => r#"{"errcode":0}"#,
            _ => PHONE,
        };
        Act::Say(http("200 OK", "application/json", body))
    })
    .await;
    let gateway = gateway(&[peer.port]);
    assert!(!gateway.look_at_quotas().await, "nothing has been called");
    assert_eq!(api_calls(&peer).len(), 0);

    gateway.phone_number(&phone_code(), None).await.unwrap();
    let key = SessionKey::from_bytes([7; 16]);
    gateway.check_session_key(&alice(), &key).await.unwrap();
    assert!(gateway.look_at_quotas().await);
    assert!(gateway.look_at_quotas().await);
    let asked = api_calls(&peer);
    let of = |path: &str| {
        let about = |it: &&String| it.contains("cgi_path") && it.contains(path);
        asked.iter().filter(about).count()
    };
    assert_eq!((of("getuserphonenumber"), of("checksession")), (2, 1));
    let families = gateway.line.metrics.registry().gather();
    let gauge = |name: &str| {
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.unwrap().get_metric();
        assert_eq!(metrics.len(), 1);
        metrics[0].get_gauge().get_value()
    };
    assert_eq!(gauge("wx_sidecar_wx_quota_remaining"), 99.0);
    assert_eq!(gauge("wx_sidecar_wx_quota_limit"), 100.0);
}
