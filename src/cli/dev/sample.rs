//! The sample app of `wx-sidecar dev`: what an app behind the sidecar can be when it knows nothing of WeChat.
//!
//! It says who calls, shows the last message that came, has WeChat draw a code through the outbound side, and echoes what comes by a
//! WebSocket. Frames are dealt with by hand, because a library for them would be in every binary for the sake of this echo.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::crypto;

/// How long it looks for a message that is on its way, in steps.
const LOOKS: usize = 200;
const LOOK: Duration = Duration::from_millis(25);
/// What a WebSocket's key is completed with (RFC 6455 §1.3).
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What all its answers know.
struct Sample {
    /// Where it calls WeChat.
    outbound: SocketAddr,
    /// The last message that came, for whoever asks. Guards a value; held to replace or to copy it.
    pushed: Mutex<Value>,
}

/// The sample app, on a thread of its own; ends with the process.
pub(super) fn start(outbound: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    thread::Builder::new()
        .name("sample-app".to_owned())
        .spawn(move || serve(listener, outbound))?;
    Ok(addr)
}

fn serve(listener: TcpListener, outbound: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sample = Arc::new(Sample {
        outbound,
        pushed: Mutex::default(),
    });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let sample = Arc::clone(&sample);
            let service = service_fn(move |request| {
                let sample = Arc::clone(&sample);
                async move { Ok::<_, Infallible>(sample.answer(request).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(async move {
                // A connection that breaks is the sidecar's business to report.
                let _broken = serving.await;
            });
        }
    })
}

impl Sample {
    /// What a CloudRun app does: it believes its headers.
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/ws" && request.headers().contains_key(header::UPGRADE) {
            return echo(&mut request);
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await;
        let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        let request = Request::from_parts(head, body);
        match request.uri().path() {
            "/wx/push" => {
                let message: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                let of_user = said(&request, "x-wx-openid");
                *self.pushed() = json!({ "openid": of_user, "message": message });
                respond(&json!({}))
            }
            "/public/pushed" => {
                for _ in 0..LOOKS {
                    if !self.pushed().is_null() {
                        break;
                    }
                    tokio::time::sleep(LOOK).await;
                }
                let last = self.pushed().clone();
                respond(&last)
            }
            "/api/code" => self.draw(&request).await,
            _ => respond(&who_am_i(&request)),
        }
    }

    /// A code of the Mini Program, which WeChat draws. No token, no secret: the outbound side has them.
    async fn draw(&self, request: &Request<Bytes>) -> Response<Full<Bytes>> {
        match self.ask_wechat(request).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = respond(&json!({ "error": error.to_string() }));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn ask_wechat(&self, request: &Request<Bytes>) -> io::Result<Response<Full<Bytes>>> {
        let stream = tokio::net::TcpStream::connect(self.outbound).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // The answer that is missing tells it.
            let _broken = connection.await;
        });
        let order = json!({ "scene": "table=7" }).to_string();
        let mut asked = Request::post("/wxa/getwxacodeunlimit")
            .header(header::HOST, self.outbound.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        // So that traces, and the inspector, know which request it is for.
        if let Some(trace) = request.headers().get("traceparent") {
            asked = asked.header("traceparent", trace);
        }
        let asked = asked
            .body(Full::<Bytes>::from(order))
            .map_err(io::Error::other)?;
        let answer = sender.send_request(asked).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = head.status;
        if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, kind.clone());
        }
        Ok(response)
    }

    fn pushed(&self) -> MutexGuard<'_, Value> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn said(request: &Request<Bytes>, name: &str) -> Value {
    let value = request.headers().get(name);
    let value = value.and_then(|value| value.to_str().ok());
    value.map_or(Value::Null, Value::from)
}

fn who_am_i(request: &Request<Bytes>) -> Value {
    let openid = said(request, "x-wx-openid");
    let mut told = json!({
        "message": if openid.is_null() { "hello, whoever you are" } else { "hello, I know you" },
        "openid": openid,
        "unionid": said(request, "x-wx-unionid"),
        "appid": said(request, "x-wx-appid"),
        "source": said(request, "x-wx-source"),
        "env": said(request, "x-wx-env"),
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "request_id": said(request, "x-request-id"),
    });
    if let Ok(body) = serde_json::from_slice::<Value>(request.body()) {
        told["body"] = body;
    }
    told
}

fn respond(body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body:#}\n"))));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Grants a WebSocket (RFC 6455 §4.2.2) that sends back what comes.
fn echo(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let key = key.map_or(&b""[..], HeaderValue::as_bytes);
    let accept = STANDARD.encode(crypto::sha1(&[key, WEBSOCKET]));
    let upgrading = upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(connection) = upgrading.await {
            // It ends when the phone goes, in whatever way.
            let _ended = echo_frames(&mut TokioIo::new(connection)).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Frames as they come (RFC 6455 §5.2), without their masks; a ping becomes a pong, and a close is the last.
async fn echo_frames(peer: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    loop {
        let [first, second] = read::<2>(peer).await?;
        let length = match second & 0x7f {
            126 => usize::from(u16::from_be_bytes(read(peer).await?)),
            127 => return Err(io::Error::other("no frame of an echo is so long")),
            short => usize::from(short),
        };
        let mask: [u8; 4] = match second & 0x80 {
            0 => return Err(io::Error::other("a client's frame is masked")),
            _ => read(peer).await?,
        };
        let mut payload = vec![0; length];
        peer.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let opcode = first & 0x0f;
        let answer = match opcode {
            PING => first + 1,
            _ => first,
        };
        let mut frame = vec![answer];
        match u8::try_from(length) {
            Ok(short) if short < 126 => frame.push(short),
            _ => {
                frame.push(126);
                let length = u16::try_from(length).map_err(io::Error::other)?;
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        frame.extend_from_slice(&payload);
        peer.write_all(&frame).await?;
        if opcode == CLOSE {
            return peer.shutdown().await;
        }
    }
}

async fn read<const N: usize>(peer: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    peer.read_exact(&mut bytes).await?;
    Ok(bytes)
}
