//! One connection to one server of ZooKeeper, and the session that lives as long as it.
//!
//! A session is what ZooKeeper keeps ephemeral nodes and watches for. We have no ephemeral nodes, and after a reconnect
//! everything is read anew and a watch set again; so nothing is lost with a session, and none is taken along from one
//! connection to the next. That it expires is then no event of its own: its connection ends, and there is another.
//!
//! Calls are made one after the other. What fires a watch may come between; it is remembered until [`Session::idle`].

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::address::Credentials;
use super::jute::{Fields, LENGTH, Packet, Stat};
use super::{LARGEST, Over};

/// How long a connection, and the greeting on it, may take. One lost SYN is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// The session timeout that is asked for; the server has bounds of its own.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest packet that is read: a content, and what stands around it.
const LONGEST_PACKET: usize = LARGEST + 4096;

/// The numbers that calls have in the protocol.
mod call {
    pub(super) const CREATE: i32 = 1;
    pub(super) const EXISTS: i32 = 3;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
    pub(super) const AUTH: i32 = 100;
    pub(super) const CLOSE: i32 = -11;
}

/// Numbers of packets that belong to no ordinary call.
mod xid {
    pub(super) const WATCH: i32 = -1;
    pub(super) const PING: i32 = -2;
    pub(super) const AUTH: i32 = -4;
}

/// ZooKeeper's error codes that mean something to us.
pub(super) mod code {
    pub(in crate::zookeeper) const NO_NODE: i32 = -101;
    pub(in crate::zookeeper) const NO_AUTH: i32 = -102;
    pub(in crate::zookeeper) const BAD_VERSION: i32 = -103;
    pub(in crate::zookeeper) const NODE_EXISTS: i32 = -110;
    pub(in crate::zookeeper) const SESSION_EXPIRED: i32 = -112;
    pub(in crate::zookeeper) const AUTH_FAILED: i32 = -115;
    pub(in crate::zookeeper) const SESSION_MOVED: i32 = -118;
}

/// All that an ACL can allow.
const ALL_RIGHTS: i32 = 31;

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is of no more use.
    Broken(String),
    /// ZooKeeper has answered no, by this code.
    Refused(i32),
}

/// A session on a connection.
pub(super) struct Session {
    stream: TcpStream,
    incoming: Incoming,
    xid: i32,
    /// How long nothing may be heard.
    patience: Duration,
    heard: Instant,
    said: Instant,
    has_user: bool,
    /// A watch has fired that nobody has been told of.
    changed: bool,
}

/// What has come of the packet that is coming.
#[derive(Default)]
struct Incoming {
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
}

/// An answer, and where what it says begins.
struct Reply {
    xid: i32,
    zxid: i64,
    error: i32,
    packet: Zeroizing<Vec<u8>>,
}

impl Session {
    pub(super) async fn open(
        server: SocketAddr,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Failure> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await;
        let stream = connecting.map_err(|_| broken("it does not answer"))??;
        stream.set_nodelay(true)?;
        let now = Instant::now();
        let mut session = Self {
            stream,
            incoming: Incoming::default(),
            xid: 0,
            patience: GREETING_TIMEOUT,
            heard: now,
            said: now,
            has_user: credentials.is_some(),
            changed: false,
        };
        session.greet().await?;
        if let Some(credentials) = credentials {
            session.authenticate(credentials).await?;
        }
        Ok(session)
    }

    /// Has the server catch up with the leader, and says which transaction it has come to then.
    pub(super) async fn sync(&mut self, path: &str) -> Result<i64, Failure> {
        let packet = self.request(call::SYNC, path.len() + 4).text(path);
        Ok(self.call(packet).await?.zxid)
    }

    /// What there is to say of the node, if there is one. Either way, a watch is set on what becomes of it.
    pub(super) async fn exists(&mut self, path: &str) -> Result<Option<Stat>, Failure> {
        let packet = self.request(call::EXISTS, path.len() + 5);
        match self.call(packet.text(path).flag(true)).await {
            Ok(reply) => reply.fields().stat().map(Some).ok_or_else(foreign),
            Err(Failure::Refused(code::NO_NODE)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<(Zeroizing<Vec<u8>>, Stat), Failure> {
        let packet = self.request(call::GET_DATA, path.len() + 5);
        let reply = self.call(packet.text(path).flag(false)).await?;
        let mut fields = reply.fields();
        let bytes = fields.buffer().ok_or_else(foreign)?;
        let stat = fields.stat().ok_or_else(foreign)?;
        Ok((Zeroizing::new(bytes.to_vec()), stat))
    }

    /// Writes the content, and what lies above the node if that is missing. Says the version that it has got.
    pub(super) async fn put(
        &mut self,
        path: &str,
        bytes: &[u8],
        over: Over,
    ) -> Result<i32, Failure> {
        loop {
            let version = match over {
                Over::Nothing => return self.create_all(path, bytes).await,
                Over::Anything => -1,
                Over::Version(version) => version,
            };
            match self.set(path, bytes, version).await {
                Err(Failure::Refused(code::NO_NODE)) if over == Over::Anything => {}
                outcome => return outcome,
            }
            match self.create_all(path, bytes).await {
                // Somebody was faster.
                Err(Failure::Refused(code::NODE_EXISTS)) => {}
                outcome => return outcome,
            }
        }
    }

    /// Returns when the watch has fired, at `until`, or when there is another ask; says whether there is. Keeps the
    /// session alive meanwhile.
    pub(super) async fn idle(
        &mut self,
        until: Instant,
        asks: &mut watch::Receiver<u64>,
    ) -> Result<bool, Failure> {
        let mut asked = pin!(another(asks));
        loop {
            if std::mem::take(&mut self.changed) {
                return Ok(false);
            }
            let ping_at = self.said + self.patience / 2;
            let lost_at = self.heard + self.patience;
            tokio::select! {
                // What has come counts first: whoever was stopped for a while has packets waiting.
                biased;
                reply = self.receive() => self.note(&reply?)?,
                () = asked.as_mut() => return Ok(true),
                () = sleep_until(until.min(ping_at).min(lost_at)) => {
                    let now = Instant::now();
                    if now >= until {
                        return Ok(false);
                    }
                    if now >= lost_at {
                        return Err(broken("nothing has been heard of it for too long"));
                    }
                    self.send(Packet::with_room(8).int(xid::PING).int(call::PING)).await?;
                }
            }
        }
    }

    /// Ends the session, so that the server need not wait for it to expire.
    pub(super) async fn close(mut self) {
        let packet = self.request(call::CLOSE, 0);
        let _gone_anyway = self.send(packet).await;
    }

    async fn greet(&mut self) -> Result<(), Failure> {
        let timeout = i32::try_from(SESSION_TIMEOUT.as_millis()).expect("it is a few seconds");
        // No version, nothing seen yet, no session to take up, and no content with a server that has lost the others.
        let hello = Packet::with_room(45)
            .int(0)
            .long(0)
            .int(timeout)
            .long(0)
            .buffer(&[0; 16])
            .flag(false);
        self.send(hello).await?;
        let greeting = self.patiently(Self::packet).await.map_err(|failure| match failure {
            Failure::Broken(why) if why == CLOSED => broken(
                "it takes no clients now: it has lost the other servers, or has too many connections from here",
            ),
            failure => failure,
        })?;
        let mut fields = Fields::of(&greeting);
        let _protocol = fields.int().ok_or_else(foreign)?;
        let granted = fields.int().ok_or_else(foreign)?;
        if granted <= 0 {
            return Err(broken("it grants no session"));
        }
        self.patience = Duration::from_millis(u64::from(granted.unsigned_abs())) * 2 / 3;
        Ok(())
    }

    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), Failure> {
        let (user, password) = (&credentials.user, credentials.password.expose());
        let proof = Zeroizing::new([user, ":", password].concat());
        let packet = Packet::with_room(proof.len() + 26)
            .int(xid::AUTH)
            .int(call::AUTH)
            .int(0)
            .text("digest")
            .text(&proof);
        self.call_as(xid::AUTH, packet).await?;
        Ok(())
    }

    async fn set(&mut self, path: &str, bytes: &[u8], version: i32) -> Result<i32, Failure> {
        let packet = self.request(call::SET_DATA, path.len() + bytes.len() + 12);
        let reply = self
            .call(packet.text(path).buffer(bytes).int(version))
            .await?;
        Ok(reply.fields().stat().ok_or_else(foreign)?.version)
    }

    async fn create_all(&mut self, path: &str, bytes: &[u8]) -> Result<i32, Failure> {
        let mut missing = vec![path];
        while let Some(node) = missing.last().copied() {
            let is_leaf = missing.len() == 1;
            match self.create(node, if is_leaf { bytes } else { b"" }).await {
                Ok(()) => missing.pop(),
                Err(Failure::Refused(code::NODE_EXISTS)) if !is_leaf => missing.pop(),
                Err(Failure::Refused(code::NO_NODE)) => {
                    missing.push(parent(node).ok_or(Failure::Refused(code::NO_NODE))?);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
        }
        Ok(0)
    }

    /// Creates a node: for whoever we are to ZooKeeper, or for everybody if we are nobody.
    async fn create(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (scheme, id) = match self.has_user {
            true => ("auth", ""),
            false => ("world", "anyone"),
        };
        let packet = self
            .request(call::CREATE, path.len() + bytes.len() + 48)
            .text(path)
            .buffer(bytes)
            .int(1)
            .int(ALL_RIGHTS)
            .text(scheme)
            .text(id)
            .int(0);
        self.call(packet).await?;
        Ok(())
    }

    /// The beginning of the next call. `room` is for what it says.
    fn request(&mut self, kind: i32, room: usize) -> Packet {
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        Packet::with_room(room + 8).int(self.xid).int(kind)
    }

    async fn call(&mut self, packet: Packet) -> Result<Reply, Failure> {
        self.call_as(self.xid, packet).await
    }

    async fn call_as(&mut self, xid: i32, packet: Packet) -> Result<Reply, Failure> {
        self.send(packet).await?;
        let reply = self
            .patiently(async |session| session.answer(xid).await)
            .await?;
        match reply.error {
            0 => Ok(reply),
            error => Err(Failure::Refused(error)),
        }
    }

    async fn answer(&mut self, xid: i32) -> Result<Reply, Failure> {
        loop {
            let reply = self.receive().await?;
            if reply.xid == xid {
                return Ok(reply);
            }
            self.note(&reply)?;
        }
    }

    /// Takes note of a packet that is no answer to a call.
    fn note(&mut self, reply: &Reply) -> Result<(), Failure> {
        match reply.xid {
            xid::PING => {}
            xid::WATCH => self.changed = true,
            _ => return Err(foreign()),
        }
        Ok(())
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Failure> {
        let bytes = packet.finish();
        self.said = Instant::now();
        let sending = timeout(self.patience, self.stream.write_all(&bytes)).await;
        Ok(sending.map_err(|_| broken("it does not take what is sent"))??)
    }

    async fn receive(&mut self) -> Result<Reply, Failure> {
        let packet = self.packet().await?;
        self.heard = Instant::now();
        Reply::of(packet).ok_or_else(foreign)
    }

    /// The next packet without its length. Whoever stops waiting for it loses nothing.
    async fn packet(&mut self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        loop {
            if let Some(packet) = self.incoming.take()? {
                return Ok(packet);
            }
            let room = self.incoming.room();
            let count = self.stream.read(room).await?;
            if count == 0 {
                return Err(broken(CLOSED));
            }
            self.incoming.filled += count;
        }
    }

    async fn patiently<T>(
        &mut self,
        wait: impl AsyncFnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let answered = timeout(self.patience, wait(self)).await;
        answered.unwrap_or_else(|_| Err(broken("it does not answer")))
    }
}

const CLOSED: &str = "it has closed the connection";

impl Incoming {
    /// The packet, if it is complete.
    fn take(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if self.filled < LENGTH {
            return Ok(None);
        }
        let length = Fields::of(&self.buffer).int().ok_or_else(foreign)?;
        let length = usize::try_from(length).map_err(|_| foreign())?;
        if length > LONGEST_PACKET {
            return Err(foreign());
        }
        if self.filled < LENGTH + length {
            self.grow(LENGTH + length);
            return Ok(None);
        }
        let packet = Zeroizing::new(self.buffer[LENGTH..].to_vec());
        *self = Self::default();
        Ok(Some(packet))
    }

    /// Where what comes next is to go: first a length, then what it counts.
    fn room(&mut self) -> &mut [u8] {
        self.grow(LENGTH);
        &mut self.buffer[self.filled..]
    }

    fn grow(&mut self, length: usize) {
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
    }
}

impl Reply {
    const HEAD: usize = 16;

    fn of(packet: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut fields = Fields::of(&packet);
        let (xid, zxid, error) = (fields.int()?, fields.long()?, fields.int()?);
        Some(Self {
            xid,
            zxid,
            error,
            packet,
        })
    }

    fn fields(&self) -> Fields<'_> {
        Fields::of(&self.packet[Self::HEAD..])
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => broken("nobody listens there"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => broken(CLOSED),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// Returns when there is another ask; never, if nobody can ask any more.
pub(super) async fn another(asks: &mut watch::Receiver<u64>) {
    if asks.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn broken(why: &str) -> Failure {
    Failure::Broken(why.to_owned())
}

fn foreign() -> Failure {
    broken("this is not how ZooKeeper answers")
}

/// The node above, unless that is the root, which is always there.
fn parent(path: &str) -> Option<&str> {
    let (parent, _name) = path.rsplit_once('/')?;
    (!parent.is_empty()).then_some(parent)
}
