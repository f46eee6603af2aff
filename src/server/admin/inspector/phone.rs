//! The virtual phone of `wx-sidecar dev`: what the page asks for is passed on to the sidecar, to the simulator or to the outbound
//! side, because a page may ask only where it came from.
//!
//! It is an ordinary client of theirs: what it sends goes through a socket, like a phone's or an app's. Nothing of this is there
//! outside `dev`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::config::Listen;
use crate::server::admin::text;
use crate::server::reload::Assembly;
use crate::server::snapshot::Snapshot;

/// The largest body either way, in bytes; a film is not larger at WeChat.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// How long an answer may take. The simulator can be told to take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Among the protocols of a WebSocket, the access token: browsers have no other place for it.
const TOKEN_PROTOCOL: &str = "bearer.";
const PROTOCOL: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
/// What a phone says of itself.
const USER_AGENT: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                          Mobile/15E148 MicroMessenger/8.0.50 NetType/WIFI Language/zh_CN";

/// Where the phone and its world are.
#[derive(Clone, Debug)]
pub(in crate::server) struct Phone {
    pub(in crate::server) sim: SocketAddr,
    /// Whether the app is the sample.
    pub(in crate::server) sample: bool,
}

fn url(place: &Listen) -> String {
    match place {
        Listen::Tcp(addr) => format!("http://{addr}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

impl Phone {
    /// What the page has to know.
    pub(super) fn told(&self, snapshot: &Snapshot, assembly: &Assembly) -> Value {
        let places = assembly.places.load();
        let inbound = &snapshot.config.inbound;
        json!({
            "sidecar": url(&places.inbound),
            "outbound": places.outbound.as_ref().map(url),
            "sim": format!("http://{}", self.sim),
            "app": inbound.upstream.to_string(),
            "sample": self.sample,
            "prefix": inbound.prefix,
        })
    }

    /// Passes a request on: `rest` is to whom, and the path there.
    pub(super) async fn relay(
        &self,
        rest: &str,
        request: Request<Incoming>,
        assembly: &Assembly,
    ) -> Response<Full<Bytes>> {
        let (whom, path) = rest.split_once('/').unwrap_or((rest, ""));
        let places = assembly.places.load_full();
        let place = match whom {
            "sidecar" => Some(places.inbound.clone()),
            "outbound" => places.outbound.clone(),
            "sim" => Some(Listen::Tcp(self.sim)),
            _ => None,
        };
        let Some(Listen::Tcp(to)) = place else {
            return text(
                StatusCode::NOT_FOUND,
                "there are /inspector/phone/sidecar/, /outbound/ and /sim/\n",
            );
        };
        let target = match request.uri().query() {
            Some(query) => format!("/{path}?{query}"),
            None => format!("/{path}"),
        };
        let appid = assembly.current.load().config.app.appid.to_string();
        let passing = pass_on(to, &target, request, &appid);
        match tokio::time::timeout(PATIENCE, passing).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => text(StatusCode::BAD_GATEWAY, format!("{whom}: {error}\n")),
            Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "there is no answer\n"),
        }
    }
}

async fn pass_on(
    to: SocketAddr,
    target: &str,
    mut request: Request<Incoming>,
    appid: &str,
) -> io::Result<Response<Full<Bytes>>> {
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let from_page = is_upgrade.then(|| upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let token = token_protocol(&head.headers);
    let body = whole(body).await?;
    let mut asked = Request::new(Full::new(body));
    *asked.method_mut() = head.method;
    *asked.uri_mut() = target.parse::<Uri>().map_err(io::Error::other)?;
    *asked.headers_mut() = of_phone(&head.headers, to, appid)?;
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // That it broke is told by the answer that is missing.
        let _broken = connection.with_upgrades().await;
    });
    let is_head = asked.method() == Method::HEAD;
    let mut answer = sender.send_request(asked).await.map_err(io::Error::other)?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(from_page)) = (answer.status(), from_page) {
        let beyond = upgrade::on(&mut answer);
        tokio::task::spawn_local(tunnel(from_page, beyond));
        let (mut head, _) = answer.into_parts();
        // A browser that has offered protocols wants to hear one.
        if let (false, Some(token)) = (head.headers.contains_key(PROTOCOL), token) {
            head.headers.insert(PROTOCOL, token);
        }
        return Ok(Response::from_parts(head, Full::default()));
    }
    let (mut head, body) = answer.into_parts();
    let body = whole(body).await?;
    for name in [
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        // They would be this page's.
        header::SET_COOKIE,
    ] {
        head.headers.remove(name);
    }
    // What an app answers is not to become a page of the admin side.
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
    if !is_head {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Response::from_parts(head, Full::new(body)))
}

/// The protocol that carries the token, as it was offered.
fn token_protocol(page: &HeaderMap) -> Option<HeaderValue> {
    let mut offered = protocols(page);
    let token = offered.find(|protocol| protocol.starts_with(TOKEN_PROTOCOL))?;
    HeaderValue::from_str(token).ok()
}

fn protocols(page: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = page.get_all(PROTOCOL).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

async fn tunnel(page: OnUpgrade, beyond: OnUpgrade) {
    if let (Ok(page), Ok(beyond)) = tokio::join!(page, beyond) {
        // However it ends, both sides see it.
        let _ended = copy_bidirectional(&mut TokioIo::new(page), &mut TokioIo::new(beyond)).await;
    }
}

async fn whole(body: Incoming) -> io::Result<Bytes> {
    let collected = Limited::new(body, BODY_LIMIT).collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(io::Error::other)
}

/// The head as a phone would send it: what the page's code has set, and nothing of the browser's own.
fn of_phone(page: &HeaderMap, to: SocketAddr, appid: &str) -> io::Result<HeaderMap> {
    let is_meant = |name: &HeaderName| {
        let name = name.as_str();
        let meant = [
            "authorization",
            "accept",
            "content-type",
            "accept-language",
            "range",
            "if-none-match",
            "if-range",
            "upgrade",
            "connection",
            "traceparent",
        ];
        meant.contains(&name)
            || name.starts_with("x-")
            || name.starts_with("sec-websocket-") && name != "sec-websocket-protocol"
    };
    let mut headers: HeaderMap = page
        .iter()
        .filter(|(name, _)| is_meant(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !page.contains_key(header::UPGRADE) {
        headers.remove(header::CONNECTION);
    }
    let mut set = |name, value: &str| {
        let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
        headers.insert(name, value);
        io::Result::Ok(())
    };
    set(header::HOST, &to.to_string())?;
    set(header::USER_AGENT, USER_AGENT)?;
    let referer = format!("https://servicewechat.com/{appid}/devtools/page-frame.html");
    set(header::REFERER, &referer)?;
    let mut others = Vec::new();
    for protocol in protocols(page) {
        match protocol.strip_prefix(TOKEN_PROTOCOL) {
            Some(token) => set(header::AUTHORIZATION, &format!("Bearer {token}"))?,
            None => others.push(protocol),
        }
    }
    if !others.is_empty() {
        set(PROTOCOL, &others.join(", "))?;
    }
    Ok(headers)
}
