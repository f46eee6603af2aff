//! Peers that speak HTTP/2, by the `h2` crate: a client, and an app behind `h2c://`. What the crate would not send comes
//! from [`raw_app`].

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::sync::Notify;

use crate::daemon::free_port;
use crate::fake_app::Signal;

/// How long a test may take; only against one that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { tokio::time::timeout(PATIENCE, test).await };
    runtime.block_on(bounded).expect("the test ends in time")
}

/// Waits for a signal while connections go on.
pub(crate) async fn given(signal: &Signal) {
    let signal = signal.clone();
    let given = tokio::task::spawn_blocking(move || signal.wait()).await;
    assert!(given.unwrap(), "what was waited for did not happen");
}

/// A client's connection.
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    pub(crate) interim: Vec<(u16, HeaderMap)>,
}

impl Client {
    pub(crate) async fn connect(addr: impl ToSocketAddrs) -> Self {
        Self::connect_with(addr, &h2::client::Builder::new()).await
    }

    pub(crate) async fn connect_with(
        addr: impl ToSocketAddrs,
        builder: &h2::client::Builder,
    ) -> Self {
        let socket = std::net::TcpStream::connect(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let (requests, connection) = builder.handshake(socket).await.unwrap();
        Self {
            requests,
            driver: tokio::spawn(connection),
        }
    }

    /// Begins a request.
    pub(crate) async fn open(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, ends).unwrap()
    }

    pub(crate) async fn request(
        &self,
        request: Request<()>,
        body: Option<&[u8]>,
    ) -> Result<Answer, h2::Error> {
        let (answer, mut stream) = self.open(request, body.is_none()).await;
        let sending = async {
            if let Some(body) = body {
                // An answer may come before all of it was taken.
                let _taken = send(&mut stream, body, true).await;
            }
        };
        let (answer, ()) = tokio::join!(read(answer), sending);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(get(path, &[]), None).await.unwrap()
    }

    /// Whether further requests are refused.
    pub(crate) async fn was_told_to_leave(&self) -> bool {
        self.requests.clone().ready().await.is_err()
    }

    /// How the connection ends.
    pub(crate) async fn end(self) -> Result<(), h2::Error> {
        let Self { requests, driver } = self;
        let end = driver.await.unwrap();
        drop(requests);
        end
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all: Vec<_> = self.headers.get_all(name).iter().collect();
        assert!(all.len() < 2, "{name} comes {} times", all.len());
        all.first().map(|value| value.to_str().unwrap())
    }

    /// The slug of the problem that it must be.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"));
        let kind = problem["type"].as_str().unwrap();
        kind.rsplit(':').next().unwrap().to_owned()
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://mini.example:8080{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    request("GET", path, headers)
}

/// Reads an answer to its end.
pub(crate) async fn read(mut response: ResponseFuture) -> Result<Answer, h2::Error> {
    let mut answer = Answer::default();
    let head = poll_fn(|cx| {
        while let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let (parts, ()) = interim?.into_parts();
            answer.interim.push((parts.status.as_u16(), parts.headers));
        }
        Pin::new(&mut response).poll(cx)
    });
    let (parts, mut body) = head.await?.into_parts();
    answer.status = parts.status.as_u16();
    answer.headers = parts.headers;
    answer.body = read_body(&mut body).await?;
    answer.trailers = body.trailers().await?.unwrap_or_default();
    Ok(answer)
}

pub(crate) async fn read_body(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// One DATA frame's worth of a body.
pub(crate) async fn read_some(body: &mut RecvStream) -> Vec<u8> {
    let data = body.data().await.expect("the body goes on").unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    data.to_vec()
}

/// Sends under flow control.
pub(crate) async fn send(
    stream: &mut SendStream<Bytes>,
    mut data: &[u8],
    last: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let capacity = capacity.unwrap_or_else(|| Err(h2::Reason::CANCEL.into()))?;
        let (now, later) = data.split_at(capacity.min(data.len()));
        stream.send_data(Bytes::copy_from_slice(now), false)?;
        data = later;
    }
    if last {
        stream.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// An app that speaks HTTP/2. Dropping it closes its listener and all connections.
pub(crate) struct H2App {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    requests: Mutex<Vec<http::request::Parts>>,
}

/// A request, for a handler.
pub(crate) struct Call {
    pub(crate) head: http::request::Parts,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
    /// Counted from 0.
    pub(crate) connection: usize,
    /// Has the app send GOAWAY on this connection.
    pub(crate) leave: Rc<Notify>,
}

impl H2App {
    pub(crate) fn start<F>(handler: impl Fn(Call) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self::start_at(0, h2::server::Builder::new(), handler)
    }

    pub(crate) fn start_at<F>(
        port: u16,
        builder: h2::server::Builder,
        handler: impl Fn(Call) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        // One that comes back wants its old port, which must not be somebody else's by then.
        let port = if port == 0 { free_port() } else { port };
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (shared, stop) = (Arc::<Shared>::default(), Arc::<Notify>::default());
        let (ours, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! {
                    () = accept(listener, builder, Rc::new(handler), ours) => {}
                    () = stopped.notified() => {}
                }
            });
        });
        Self {
            addr,
            shared,
            stop,
            thread: Some(thread),
        }
    }

    /// As `[inbound] upstream` has it.
    pub(crate) fn url(&self) -> String {
        format!("h2c://{}", self.addr)
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<http::request::Parts> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for H2App {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _panicked_with_a_message = thread.join();
        }
    }
}

async fn accept<F>(
    listener: TcpListener,
    builder: h2::server::Builder,
    handler: Rc<impl Fn(Call) -> F + 'static>,
    shared: Arc<Shared>,
) where
    F: Future<Output = ()> + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let (handler, shared, builder) =
            (Rc::clone(&handler), Arc::clone(&shared), builder.clone());
        tokio::task::spawn_local(async move {
            let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
                return;
            };
            let leave = Rc::<Notify>::default();
            loop {
                tokio::select! {
                    accepted = connection.accept() => {
                        let Some(Ok((request, respond))) = accepted else { return };
                        let (head, body) = request.into_parts();
                        shared.requests.lock().unwrap().push(head.clone());
                        let call = Call { head, body, respond, connection: number, leave: Rc::clone(&leave) };
                        tokio::task::spawn_local(handler(call));
                    }
                    () = leave.notified() => connection.graceful_shutdown(),
                }
            }
        });
    }
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> String {
        let value = self.head.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }

    /// Answers 200 with these header lines; the body is the handler's.
    pub(crate) fn answer(&mut self, headers: &[(&str, &str)], ends: bool) -> SendStream<Bytes> {
        let mut response = Response::builder().status(200);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(()).unwrap();
        self.respond.send_response(response, ends).unwrap()
    }

    /// Answers 200 with a text.
    pub(crate) async fn say(mut self, text: &str) {
        let mut stream = self.answer(&[], false);
        let _gone = send(&mut stream, text.as_bytes(), true).await;
    }
}

/// An app that takes one request per connection and answers with these bytes, whatever they are; then it waits for the
/// close.
pub(crate) fn raw_app(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let answer = answer.clone();
            thread::spawn(move || -> std::io::Result<()> {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.read_exact(&mut [0; 24])?;
                socket.write_all(&frame(4, 0, 0, b""))?;
                let mut head = [0; 9];
                loop {
                    socket.read_exact(&mut head)?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    socket.read_exact(&mut vec![0; length as usize])?;
                    if head[3] == 1 {
                        break;
                    }
                }
                socket.write_all(&frame(4, 1, 0, b""))?;
                socket.write_all(&answer)?;
                std::io::copy(&mut socket, &mut std::io::sink())?;
                Ok(())
            });
        }
    });
    format!("h2c://{addr}")
}

/// A frame (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Header lines in the plainest form that HPACK has (RFC 7541 §6.2.2).
pub(crate) fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for part in [name, value] {
            let length = u8::try_from(part.len()).unwrap();
            assert!(length < 127, "longer ones are encoded otherwise");
            block.push(length);
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}
