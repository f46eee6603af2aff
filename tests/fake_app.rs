//! An app that does exactly what a test's script says, on raw bytes, and tells what it was sent.
//!
//! Real frameworks repair and hide; what reached the app, how often, and whether it was whole can only be seen by an app
//! that keeps every byte. A script is run for each connection, in a thread of its own, and all waiting is for events:
//! bytes, a close, a [`Signal`]. What does not happen within [`PATIENCE`] fails the test.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long anything may take; only against a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plain answer that keeps the connection.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A listening app. Dropping it closes its listener; connections end when their scripts do.
pub(crate) struct FakeApp {
    place: Place,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

enum Place {
    Tcp(SocketAddr),
    Unix(
        PathBuf,
        #[expect(dead_code, reason = "removes the directory")] tempfile::TempDir,
    ),
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    more: Condvar,
    connections: AtomicUsize,
    closing: AtomicBool,
}

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// Every byte of it: head, and body with its framing.
    pub(crate) bytes: Vec<u8>,
    /// The head, through the empty line.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// The trailer lines behind a chunked body.
    pub(crate) trailers: Vec<String>,
    /// Whether it came to the end that its framing announced.
    pub(crate) complete: bool,
}

/// A connection from the sidecar, for a script.
pub(crate) struct Connection {
    /// Counted from 0.
    pub(crate) number: usize,
    socket: Socket,
    unread: Vec<u8>,
    shared: Arc<Shared>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl FakeApp {
    /// Runs `script` for each connection.
    pub(crate) fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let accept = move || listener.accept().map(|(stream, _)| Socket::Tcp(stream));
        Self::serve(Place::Tcp(addr), accept, script)
    }

    /// As [`FakeApp::start`], on a Unix socket.
    pub(crate) fn on_a_unix_socket(
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).expect("a new socket");
        let accept = move || listener.accept().map(|(stream, _)| Socket::Unix(stream));
        Self::serve(Place::Unix(path, directory), accept, script)
    }

    /// Gives the same answer to every request.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |connection| {
            while connection
                .read_request()
                .is_some_and(|request| request.complete)
            {
                connection.write(&answer);
            }
        })
    }

    /// Says `ok` to everything.
    pub(crate) fn agreeable() -> Self {
        Self::answering(OK)
    }

    /// For each connection, gives its own answer to the first request and closes; `ok` to all on later connections.
    pub(crate) fn answering_once(first: impl Into<Vec<u8>>) -> Self {
        let first = first.into();
        Self::start(move |connection| {
            let answer = if connection.number == 0 { &first } else { OK };
            while connection
                .read_request()
                .is_some_and(|request| request.complete)
            {
                connection.write(answer);
            }
        })
    }

    fn serve(
        place: Place,
        accept: impl Fn() -> io::Result<Socket> + Send + 'static,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let (ours, script) = (Arc::clone(&shared), Arc::new(script));
        let acceptor = thread::spawn(move || {
            while let Ok(socket) = accept() {
                if ours.closing.load(Ordering::SeqCst) {
                    return;
                }
                let number = ours.connections.fetch_add(1, Ordering::SeqCst);
                let mut connection = Connection {
                    number,
                    socket,
                    unread: Vec::new(),
                    shared: Arc::clone(&ours),
                };
                let script = Arc::clone(&script);
                thread::spawn(move || {
                    connection.set_patience();
                    script(&mut connection);
                });
            }
        });
        Self {
            place,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// As `[inbound] upstream` has it.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Tcp(addr) => format!("http://{addr}"),
            Place::Unix(path, _) => format!("unix:{}", path.display()),
        }
    }

    /// How many connections have been accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// All requests so far, whole or cut off, once there are at least `count`.
    pub(crate) fn requests(&self, count: usize) -> Vec<Request> {
        let waiting = self
            .shared
            .more
            .wait_timeout_while(self.shared.list(), PATIENCE, |list| list.len() < count);
        let (list, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(
            list.len() >= count,
            "{} of {count} requests: {list:#?}",
            list.len()
        );
        list.clone()
    }

    /// The one request there was.
    pub(crate) fn only_request(&self) -> Request {
        let mut all = self.requests(1);
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    /// The targets of all requests so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.shared
            .list()
            .iter()
            .map(|request| request.target().to_owned())
            .collect()
    }
}

impl Drop for FakeApp {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes the acceptor; its listener is gone when it has ended.
        let woken = match &self.place {
            Place::Tcp(addr) => TcpStream::connect(addr).is_ok(),
            Place::Unix(path, _) => {
                UnixStream::connect(path).is_ok() && fs::remove_file(path).is_ok()
            }
        };
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            let _panicked_with_a_message = acceptor.join();
        }
    }
}

impl Shared {
    fn list(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of all lines with this name, in any case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self
            .head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        fields
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of the only line with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(
            values.len() < 2,
            "{name} comes {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }
}

impl Connection {
    /// Reads a request and notes it, whole or cut off; `None` when the sidecar closed before one began.
    pub(crate) fn read_request(&mut self) -> Option<Request> {
        let mut request = self.read_head()?;
        request.complete = self.read_body(&mut request);
        self.note(request.clone());
        Some(request)
    }

    /// Reads a head and leaves the body unread; notes nothing.
    pub(crate) fn read_head(&mut self) -> Option<Request> {
        let mut request = Request {
            connection: self.number,
            ..Request::default()
        };
        while !request.bytes.ends_with(b"\r\n\r\n") {
            let Some(byte) = self.read_byte() else {
                if !request.bytes.is_empty() {
                    request.head = String::from_utf8_lossy(&request.bytes).into_owned();
                    self.note(request);
                }
                return None;
            };
            request.bytes.push(byte);
        }
        request.head = String::from_utf8_lossy(&request.bytes).into_owned();
        Some(request)
    }

    /// Reads the body that a head announces; says whether it came to its end.
    pub(crate) fn read_body(&mut self, request: &mut Request) -> bool {
        if request.header("transfer-encoding").is_some() {
            return self.read_chunks(request).is_some();
        }
        let length = request.header("content-length").map_or(0, |length| {
            length
                .parse()
                .expect("the sidecar sends lengths that are numbers")
        });
        self.read_exactly(length, request).is_some()
    }

    /// Adds a request to what [`FakeApp::requests`] gives.
    pub(crate) fn note(&self, request: Request) {
        self.shared.list().push(request);
        self.shared.more.notify_all();
    }

    /// Reads until the sidecar closes.
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// Reads at least so much, if it comes, and forgets it.
    pub(crate) fn read_up_to(&mut self, count: usize) {
        let mut seen = self.unread.len();
        self.unread.clear();
        while seen < count && self.fill() {
            seen += self.unread.len();
            self.unread.clear();
        }
    }

    /// Writes; a sidecar that has gone away is its own business.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _gone = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        };
    }

    /// Writes, and says whether the sidecar took it all.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    /// Reads exactly so many bytes, or as many as come before the sidecar closes.
    pub(crate) fn read_some(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && self.fill() {}
        let count = count.min(self.unread.len());
        self.unread.drain(..count).collect()
    }

    /// Ends our direction; the sidecar's stays open.
    pub(crate) fn finish_sending(&mut self) {
        let _gone = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection, both ways.
    pub(crate) fn close(&mut self) {
        let _gone = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Gives up writing after so long.
    pub(crate) fn set_write_patience(&self, patience: Duration) {
        let set = match &self.socket {
            Socket::Tcp(stream) => stream.set_write_timeout(Some(patience)),
            Socket::Unix(stream) => stream.set_write_timeout(Some(patience)),
        };
        set.expect("a socket has timeouts");
    }

    fn set_patience(&self) {
        let set = match &self.socket {
            Socket::Tcp(stream) => stream
                .set_read_timeout(Some(PATIENCE))
                .and_then(|()| stream.set_nodelay(true)),
            Socket::Unix(stream) => stream.set_read_timeout(Some(PATIENCE)),
        };
        set.expect("a socket has timeouts");
    }

    fn read_chunks(&mut self, request: &mut Request) -> Option<()> {
        loop {
            let line = self.read_line(request)?;
            let size = usize::from_str_radix(&line, 16).expect("the sidecar sends chunk sizes");
            if size == 0 {
                loop {
                    let line = self.read_line(request)?;
                    if line.is_empty() {
                        return Some(());
                    }
                    request.trailers.push(line);
                }
            }
            self.read_exactly(size, request)?;
            let end = self.read_line(request)?;
            assert_eq!(end, "", "a chunk is as long as its size");
        }
    }

    fn read_line(&mut self, request: &mut Request) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.read_byte()?);
        }
        request.bytes.extend_from_slice(&line);
        line.truncate(line.len() - 2);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    fn read_exactly(&mut self, length: usize, request: &mut Request) -> Option<()> {
        let mut left = length;
        while left > 0 {
            if self.unread.is_empty() && !self.fill() {
                return None;
            }
            let piece: Vec<u8> = self.unread.drain(..left.min(self.unread.len())).collect();
            request.bytes.extend_from_slice(&piece);
            request.body.extend_from_slice(&piece);
            left -= piece.len();
        }
        Some(())
    }

    fn read_byte(&mut self) -> Option<u8> {
        if self.unread.is_empty() && !self.fill() {
            return None;
        }
        Some(self.unread.remove(0))
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut piece),
            Socket::Unix(stream) => stream.read(&mut piece),
        };
        let count = read.unwrap_or_default();
        self.unread.extend_from_slice(&piece[..count]);
        count > 0
    }
}

/// Something that happens once: a script waits for it, or tells it to the test.
#[derive(Clone, Default)]
pub(crate) struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    pub(crate) fn give(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is given; says whether it was.
    pub(crate) fn wait(&self) -> bool {
        let given = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self
            .0
            .1
            .wait_timeout_while(given, PATIENCE, |given| !*given);
        let (given, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        *given
    }
}
