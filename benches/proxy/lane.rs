//! A lane of the generator: what sends one request at a time and checks its answer, in the protocol asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::certificate::{self, HOST};
use crate::http::{parse_answer, parse_switch};
use crate::load::Spec;
use crate::{upstream, websocket};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Requests on a connection that stays.
    Http1,
    /// Requests on several streams of a connection that stays, by prior knowledge.
    Http2,
    /// For each request a connection of its own, with a full TLS handshake.
    Handshake,
    /// A connection that is upgraded; each turn is a frame and its echo.
    WebSocket,
}

/// What to send, ready to be sent, and what must come back.
pub(crate) struct Job {
    address: SocketAddr,
    protocol: Protocol,
    streams: usize,
    tls: Option<Arc<ClientConfig>>,
    request: Vec<u8>,
    template: Request<()>,
    expected: Vec<u8>,
}

const FIELDS: [(&str, &str); 4] = [
    (
        "User-Agent",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49 \
         NetType/WIFI Language/zh_CN",
    ),
    (
        "Referer",
        "https://servicewechat.com/wx0123456789abcdef/12/page-frame.html",
    ),
    ("Accept", "*/*"),
    ("Accept-Language", "zh-CN,zh;q=0.9"),
];

impl Job {
    pub(crate) fn build(spec: &Spec) -> Result<Job, String> {
        let mut fields: Vec<(&str, String)> = FIELDS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        if let Some(token) = &spec.token {
            fields.push(("Authorization", format!("Bearer {token}")));
        }
        if let Some(length) = spec.upload {
            fields.push(("Content-Type", "application/octet-stream".to_owned()));
            fields.push(("Content-Length", length.to_string()));
        }
        let method = match spec.upload {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let mut template = Request::builder()
            .method(&method)
            .uri(format!("http://{HOST}{}", spec.path));
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: {HOST}\r\n", spec.path);
        for (name, value) in &fields {
            template = template.header(*name, value);
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if spec.protocol == Protocol::WebSocket {
            request.push_str(&websocket::request_fields());
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        let segment = spec.path.rsplit('/').next().unwrap_or("");
        let expected = match spec.upload {
            _ if spec.protocol == Protocol::WebSocket => websocket::echo(),
            Some(length) => {
                request.extend((0..length).map(|index| index as u8));
                upstream::receipt_of(length as u64)
            }
            None => {
                upstream::body_of(segment).ok_or_else(|| format!("nobody answers {}", spec.path))?
            }
        };
        Ok(Job {
            address: spec.address,
            protocol: spec.protocol,
            streams: spec.streams,
            tls: spec
                .certificate
                .as_deref()
                .map(certificate::client)
                .transpose()?,
            request,
            template: template
                .body(())
                .map_err(|error| format!("not a request: {error}"))?,
            expected,
        })
    }

    /// Sends the request on a connection of HTTP/1.1 and checks the answer.
    pub(crate) async fn exchange(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
        buffer: &mut Vec<u8>,
    ) -> Result<(), String> {
        send(stream, &self.request).await?;
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                buffer.resize((2 * filled).max(FIRST_BUFFER), 0);
            }
            filled += receive(stream, &mut buffer[filled..]).await?;
            let Some(answer) = parse_answer(&buffer[..filled])? else {
                continue;
            };
            if answer.length != filled {
                return Err(format!(
                    "{} bytes behind the answer",
                    filled - answer.length
                ));
            }
            return self.judge(answer.status, &answer.body);
        }
    }

    fn judge(&self, status: u16, body: &[u8]) -> Result<(), String> {
        if status != 200 {
            let text = String::from_utf8_lossy(&body[..body.len().min(500)]);
            Err(format!("status {status}: {text}"))
        } else if *body != *self.expected {
            Err(format!(
                "a body of {} bytes that is not the app's",
                body.len()
            ))
        } else {
            Ok(())
        }
    }
}

const FIRST_BUFFER: usize = 32 * 1024;
/// More than what is ever in flight, so that the generator's windows do not pace anybody.
const WINDOW: u32 = 4 * 1024 * 1024;

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A byte stream with the memory to read into.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

pub(crate) enum Lane {
    Http1(Wire),
    Http2(SendRequest<Bytes>),
    /// Nothing stays from one turn to the next.
    Handshake,
    WebSocket(Wire),
}

impl Lane {
    /// Opens a connection: one lane, or one for each of its streams.
    pub(crate) async fn open(job: &Job) -> Result<Vec<Lane>, String> {
        Ok(match job.protocol {
            Protocol::Http1 => vec![Lane::Http1(Wire::open(job).await?)],
            Protocol::Handshake => vec![Lane::Handshake],
            Protocol::Http2 => {
                let wire = Wire::open(job).await?;
                let said = |error: h2::Error| format!("HTTP/2: {error}");
                let (sender, connection) = h2::client::Builder::new()
                    .initial_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .enable_push(false)
                    .handshake(wire.stream)
                    .await
                    .map_err(said)?;
                tokio::task::spawn_local(async move {
                    // What goes wrong here, the lanes see too.
                    let _ = connection.await;
                });
                let sender = sender.ready().await.map_err(said)?;
                vec![sender; job.streams]
                    .into_iter()
                    .map(Lane::Http2)
                    .collect()
            }
            Protocol::WebSocket => {
                let mut wire = Wire::open(job).await?;
                wire.upgrade(job).await?;
                vec![Lane::WebSocket(wire)]
            }
        })
    }

    pub(crate) async fn exchange(&mut self, job: &Job) -> Result<(), String> {
        match self {
            Lane::Http1(wire) => job.exchange(&mut *wire.stream, &mut wire.buffer).await,
            Lane::Handshake => {
                let mut wire = Wire::open(job).await?;
                job.exchange(&mut *wire.stream, &mut wire.buffer).await?;
                // The proxy may have closed first.
                let _ = wire.stream.shutdown().await;
                Ok(())
            }
            Lane::Http2(sender) => {
                let said = |error: h2::Error| format!("HTTP/2: {error}");
                let mut ready = sender.clone().ready().await.map_err(said)?;
                let (answer, _) = ready
                    .send_request(job.template.clone(), true)
                    .map_err(said)?;
                let (head, mut stream) = answer.await.map_err(said)?.into_parts();
                let mut body = Vec::with_capacity(job.expected.len());
                while let Some(data) = stream.data().await {
                    let data = data.map_err(said)?;
                    body.extend_from_slice(&data);
                    stream
                        .flow_control()
                        .release_capacity(data.len())
                        .map_err(said)?;
                }
                job.judge(head.status.as_u16(), &body)
            }
            Lane::WebSocket(wire) => wire.echo(&job.expected).await,
        }
    }

    /// In place of a lane that failed. Of several streams, each that fails takes a connection of its own.
    pub(crate) async fn reopen(&mut self, job: &Job) -> Result<(), String> {
        let lane = Lane::open(job).await?.into_iter().next();
        *self = lane.ok_or("a connection without lanes")?;
        Ok(())
    }
}

impl Wire {
    async fn open(job: &Job) -> Result<Wire, String> {
        let tcp = connect(job.address).await?;
        let stream: Box<dyn Duplex> = match &job.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(
                TlsConnector::from(tls.clone())
                    .connect(certificate::server_name()?, tcp)
                    .await
                    .map_err(|error| format!("TLS handshake: {error}"))?,
            ),
        };
        Ok(Wire {
            stream,
            buffer: vec![0; FIRST_BUFFER],
        })
    }

    async fn upgrade(&mut self, job: &Job) -> Result<(), String> {
        send(&mut *self.stream, &job.request).await?;
        let mut filled = 0;
        loop {
            filled += receive(&mut *self.stream, &mut self.buffer[filled..]).await?;
            if let Some(accepted) = parse_switch(&self.buffer[..filled])? {
                return websocket::check(&accepted);
            }
        }
    }

    async fn echo(&mut self, expected: &[u8]) -> Result<(), String> {
        send(&mut *self.stream, &websocket::frame()).await?;
        let mut filled = 0;
        while filled < expected.len() {
            filled += receive(&mut *self.stream, &mut self.buffer[filled..]).await?;
        }
        if self.buffer[..filled] == *expected {
            Ok(())
        } else {
            Err("a frame that is not the echo of the one sent".to_owned())
        }
    }
}

/// Connects from one loopback address after the other: a single one would run out of ports, as those of closed
/// connections rest for a minute.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let said = |error: std::io::Error| format!("cannot connect to {address}: {error}");
    let from = Ipv4Addr::new(127, 0, 0, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 16);
    let socket = TcpSocket::new_v4().map_err(said)?;
    socket.bind(SocketAddr::from((from, 0))).map_err(said)?;
    let stream = socket.connect(address).await.map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    Ok(stream)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin + ?Sized), bytes: &[u8]) -> Result<(), String> {
    let said = |error: std::io::Error| format!("sending: {error}");
    stream.write_all(bytes).await.map_err(said)?;
    stream.flush().await.map_err(said)
}

async fn receive(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    into: &mut [u8],
) -> Result<usize, String> {
    match stream.read(into).await {
        Ok(0) => Err("closed before the whole answer".to_owned()),
        Ok(read) => Ok(read),
        Err(error) => Err(format!("receiving: {error}")),
    }
}
