//! A configuration in ZooKeeper: read, written and followed.
//!
//! The client is our own. Of ZooKeeper's protocol we need eight calls; the crate `zookeeper-client` would add 335 KB to the
//! binary, and a second I/O reactor with a thread of its own. What a library is good at, to carry sessions and watches
//! over from one connection to the next, we do without (`session.rs`).
//!
//! What is followed is told as a [`Seen`]: the last content, and whether that is still what the node holds. Whoever takes
//! only new contents from it keeps the last good one through all that can happen to ZooKeeper.

mod address;
mod follow;
mod jute;
mod session;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

pub use address::{SCHEME, Znode};

use address::Server;
use follow::{Follower, Pauses, shuffle};
use jute::Stat;
use session::{Failure, Session, code};

/// Larger than any configuration.
const LARGEST: usize = 1 << 20;
/// What a server takes at most in one packet, unless told otherwise (`jute.maxbuffer`).
const LARGEST_PACKET: usize = 0xf_ffff;
/// What is around the content in a packet, beside the path.
const AROUND: usize = 128;
/// How long the addresses of one server may be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes, which are not known to be a configuration.
    pub bytes: Zeroizing<Vec<u8>>,
    /// How often they have been replaced; see [`Over::Version`].
    pub version: i32,
    /// The transaction that wrote them, a number for the whole of ZooKeeper.
    pub mzxid: i64,
}

/// What is known of a node that is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it held last. It stays when the node is gone or out of reach.
    pub content: Option<Arc<Content>>,
    /// Whether that is so now.
    pub state: State,
    /// The last ask that this is an answer to.
    pub answered: u64,
}

/// Whether it is known now what a node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It holds the content; a change would be heard of.
    Current,
    /// There is no such node.
    Gone,
    /// It cannot be read, and why.
    Away(ZookeeperError),
}

/// What a content may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Whatever is there, or nothing.
    Anything,
    /// A content of this version, and no other.
    Version(i32),
    /// Nothing: the node is created.
    Nothing,
}

/// Why a node has not been read or written, for people: what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZookeeperError {
    /// There is no such node.
    #[error("ZooKeeper has no node {path}; `wx-sidecar config push` creates it")]
    NoNode {
        /// The node's path.
        path: String,
    },
    /// The ACL, or the password, says no.
    #[error(
        "ZooKeeper does not let {who} at {path}; look at its ACL (`getAcl {path}` in zkCli.sh) and at user and password"
    )]
    Denied {
        /// The node's path.
        path: String,
        /// The user, in words.
        who: String,
    },
    /// The content is no configuration, by its length.
    #[error("{length} bytes are more than a configuration in ZooKeeper can have, which is {most}")]
    TooLarge {
        /// Bytes there are.
        length: usize,
        /// Bytes there may be.
        most: usize,
    },
    /// It is not what it was to be written over.
    #[error(
        "somebody else has written {path} in the meantime; look at what is there now, and push again"
    )]
    Changed {
        /// The node's path.
        path: String,
    },
    /// No server has answered, and what became of each.
    #[error("ZooKeeper cannot be reached: {0}")]
    Unreachable(String),
    /// All servers know less than what has been seen.
    #[error(
        "ZooKeeper is behind what it has said before; this ends when it has caught up, or after some seconds if it was \
         set up anew"
    )]
    Behind,
    /// The connection broke after the content had been sent.
    #[error(
        "the connection to ZooKeeper broke while {path} was written ({why}); look whether it was"
    )]
    Uncertain {
        /// The node's path.
        path: String,
        /// How it broke.
        why: String,
    },
    /// ZooKeeper refuses for a reason that is none of these.
    #[error("ZooKeeper refuses with error {0} (its KeeperException.Code)")]
    Refused(i32),
}

impl Znode {
    /// Reads it, trying for as long as `patience` allows.
    pub async fn read(&self, patience: Duration) -> Result<Content, ZookeeperError> {
        let until = Instant::now() + patience;
        let read = async || {
            let mut session = self.arrive().await?;
            self.sync(&mut session).await?;
            self.stat(&mut session).await?;
            let (content, _) = self.content(&mut session).await?;
            session.close().await;
            Ok(content)
        };
        retry(until, read).await
    }

    /// Writes it, and creates it with what is above it if it is missing. Returns the version that it has then, which is
    /// what the next write can be [`Over`].
    ///
    /// What is created with a user belongs to that user alone, what is created without one to everybody. That goes for what
    /// is above it as well: whoever may remove what is in a node can put something else in its place.
    pub async fn write(
        &self,
        bytes: &[u8],
        over: Over,
        patience: Duration,
    ) -> Result<i32, ZookeeperError> {
        let most = (LARGEST_PACKET - AROUND).saturating_sub(self.path.len());
        if bytes.len() > most {
            let length = bytes.len();
            return Err(ZookeeperError::TooLarge { length, most });
        }
        let until = Instant::now() + patience;
        let mut pauses = Pauses::new();
        loop {
            let mut session = retry(until, || self.arrive()).await?;
            let written = timeout_at(until, session.put(&self.path, bytes, over)).await;
            let late = |_| Err(Failure::Broken("it has not answered in time".to_owned()));
            match written.unwrap_or_else(late) {
                Ok(version) => {
                    session.close().await;
                    return Ok(version);
                }
                // It has done nothing for us, and does for another session.
                Err(Failure::Refused(code::SESSION_EXPIRED | code::SESSION_MOVED))
                    if Instant::now() < until =>
                {
                    pauses.pause(Duration::ZERO).await;
                }
                Err(Failure::Broken(why)) => {
                    let path = self.path.clone();
                    return Err(ZookeeperError::Uncertain { path, why });
                }
                Err(failure) => return Err(self.explain(failure)),
            }
        }
    }

    /// Follows it for as long as anybody listens. What becomes of connections, sessions, servers and the node ends
    /// nothing. Whenever the number of `asks` changes it looks at once, and [`Seen::answered`] says which it has answered.
    pub async fn follow(&self, told: &watch::Sender<Seen>, asks: watch::Receiver<u64>) {
        tokio::select! {
            () = Follower::new(self, told, asks).run() => {}
            () = told.closed() => {}
        }
    }

    /// A session with any of the servers.
    async fn arrive(&self) -> Result<Session, ZookeeperError> {
        let (mut addresses, mut reasons) = (Vec::new(), Vec::new());
        for server in &self.servers {
            match server.addresses().await {
                Ok(found) => addresses.extend(found.into_iter().map(|address| (server, address))),
                Err(why) => reasons.push(format!("{server}: {why}")),
            }
        }
        shuffle(&mut addresses);
        for (server, address) in addresses {
            match Session::open(address, self.credentials.as_ref()).await {
                Ok(session) => return Ok(session),
                Err(Failure::Broken(why)) => reasons.push(format!("{server}: {why}")),
                Err(failure) => return Err(self.explain(failure)),
            }
        }
        // The same reasons are the same text, in whatever order the servers were asked.
        reasons.sort_unstable();
        reasons.dedup();
        Err(ZookeeperError::Unreachable(reasons.join("; ")))
    }

    async fn sync(&self, session: &mut Session) -> Result<i64, ZookeeperError> {
        let synced = session.sync(&self.path).await;
        synced.map_err(|failure| self.explain(failure))
    }

    /// Looks what there is, and watches it. There is something, and it is not too large.
    async fn stat(&self, session: &mut Session) -> Result<Stat, ZookeeperError> {
        let stat = session.exists(&self.path).await;
        let stat = stat.map_err(|failure| self.explain(failure))?;
        let stat = stat.ok_or_else(|| self.explain(Failure::Refused(code::NO_NODE)))?;
        if stat.length > LARGEST {
            return Err(ZookeeperError::TooLarge {
                length: stat.length,
                most: LARGEST,
            });
        }
        Ok(stat)
    }

    async fn content(&self, session: &mut Session) -> Result<(Content, Stat), ZookeeperError> {
        let got = session.get(&self.path).await;
        let (bytes, stat) = got.map_err(|failure| self.explain(failure))?;
        let content = Content {
            bytes,
            version: stat.version,
            mzxid: stat.mzxid,
        };
        Ok((content, stat))
    }

    fn explain(&self, failure: Failure) -> ZookeeperError {
        let path = || self.path.clone();
        match failure {
            Failure::Broken(why) => ZookeeperError::Unreachable(why),
            Failure::Refused(code::SESSION_EXPIRED | code::SESSION_MOVED) => {
                ZookeeperError::Unreachable("it has given up the session".to_owned())
            }
            Failure::Refused(code::NO_NODE) => ZookeeperError::NoNode { path: path() },
            Failure::Refused(code::BAD_VERSION | code::NODE_EXISTS) => {
                ZookeeperError::Changed { path: path() }
            }
            Failure::Refused(code::NO_AUTH | code::AUTH_FAILED) => {
                let user = self.credentials.as_ref().map(|it| &it.user);
                ZookeeperError::Denied {
                    path: path(),
                    who: user.map_or("who names no user".into(), |user| format!("`{user}`")),
                }
            }
            Failure::Refused(code) => ZookeeperError::Refused(code),
        }
    }
}

impl Server {
    /// All its addresses: one name may stand for all servers of an ensemble.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let looking = timeout(LOOKUP_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await;
        match looking {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(_)) => Err("its name is not known to DNS".into()),
            Err(_) => Err("DNS does not answer".into()),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("length", &self.bytes.len())
            .field("version", &self.version)
            .field("mzxid", &self.mzxid)
            .finish()
    }
}

/// Tries again, until `until`, what failed because no server could be reached.
async fn retry<T>(
    until: Instant,
    attempt: impl AsyncFn() -> Result<T, ZookeeperError>,
) -> Result<T, ZookeeperError> {
    let mut pauses = Pauses::new();
    let mut error = ZookeeperError::Unreachable("it does not answer".to_owned());
    let trying = async {
        loop {
            match attempt().await {
                Err(unreachable @ ZookeeperError::Unreachable(_)) => error = unreachable,
                outcome => return outcome,
            }
            pauses.pause(Duration::ZERO).await;
        }
    };
    let outcome = timeout_at(until, trying).await;
    outcome.unwrap_or(Err(error))
}
