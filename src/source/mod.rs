//! Where the configuration of a sidecar comes from: a file or a node of ZooKeeper, and the files that it names.
//!
//! A [`Source`] can be read, and followed (`feed.rs`). What has changed is decided by what is read, never by an event: events
//! only say when to look, so it does not matter whether one was missed, doubled, or of a kind that nobody foresaw.

mod feed;
mod last_good;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Attempt, Config, Inputs, Loaded, Report};
use crate::zookeeper::{Content, SCHEME, Znode};

pub use feed::Feed;
pub(crate) use feed::Unread;

/// How long ZooKeeper may take to be found when a configuration is read once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a configuration comes from, as it stands behind `-c`: a path, or `zookeeper://host:2181,host2:2181/znode/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    place: Place,
    /// Where the last good content of a node is kept, if it is.
    last_good: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Znode(Znode),
}

impl Source {
    /// A file, and those that it names.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::File(path.into()),
            last_good: None,
        }
    }

    /// A node of ZooKeeper, and the files that its content names.
    pub fn znode(znode: Znode) -> Self {
        Self {
            place: Place::Znode(znode),
            last_good: None,
        }
    }

    /// Keeps the content of a node in a file whenever it has come into use, and begins with that if ZooKeeper cannot be
    /// reached or what the node holds is not valid: what is written there must not end those that restart. It has secrets if
    /// the content does, so it is readable by nobody else. Of no use to a file.
    pub fn keeping_last_good(self, path: Option<PathBuf>) -> Self {
        Self {
            last_good: path,
            ..self
        }
    }

    /// Its path, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path),
            Place::Znode(_) => None,
        }
    }

    /// Reads and checks it. All files are as they were at one moment. ZooKeeper may take ten seconds to be found; what is
    /// kept of it is not looked at.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, Report> {
        match &self.place {
            Place::File(path) => Config::load(path),
            Place::Znode(znode) => {
                let content = read(znode).map_err(|why| self.unread(&why))?;
                self.attempt_at(&content, &Inputs::default()).outcome
            }
        }
    }

    /// Reads and checks it for a sidecar that will follow it, which may begin with the last good content.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn begin(&self) -> Result<(Loaded, Feed), Report> {
        let Place::Znode(znode) = &self.place else {
            let loaded = self.load()?;
            let feed = Feed::of_files(self.clone(), loaded.inputs.clone());
            return Ok((loaded, feed));
        };
        let mut before = Inputs::default();
        let report = match read(znode) {
            Ok(content) => {
                let attempt = self.attempt_at(&content, &before);
                before = attempt.inputs;
                match attempt.outcome {
                    Ok(loaded) => return Ok(self.begun(loaded, znode, content, None)),
                    Err(report) => report,
                }
            }
            Err(why) => self.unread(&why),
        };
        let Some(copy) = &self.last_good else {
            return Err(report);
        };
        let shown = copy.display();
        let content = match last_good::read(copy) {
            Ok(content) => content,
            Err(error) => {
                return Err(report.and_also(format!("the last good copy {shown}: {error}")));
            }
        };
        match self.attempt_at(&content, &before).outcome {
            Ok(loaded) => Ok(self.begun(loaded, znode, content, Some(report))),
            Err(_) => Err(report.and_also(format!(
                "the last good copy is not valid either; `wx-sidecar check -c {shown}` tells why"
            ))),
        }
    }

    fn begun(
        &self,
        loaded: Loaded,
        znode: &Znode,
        content: Content,
        instead: Option<Report>,
    ) -> (Loaded, Feed) {
        let feed = Feed::of_znode(
            self.clone(),
            znode.clone(),
            loaded.inputs.clone(),
            content,
            instead,
        );
        (loaded, feed)
    }

    /// What comes of a node's content, after one that was made of `before`.
    fn attempt_at(&self, content: &Content, before: &Inputs) -> Attempt {
        Config::attempt_text(&content.bytes, &self.to_string(), before)
    }

    fn unread(&self, why: &str) -> Report {
        Report::unread(&self.to_string(), why)
    }
}

/// Reads a node from a thread that has no runtime.
fn read(znode: &Znode) -> Result<Content, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let content = runtime.block_on(znode.read(PATIENCE));
    content.map_err(|error| error.to_string())
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with(SCHEME) {
            true => Znode::parse(text).map(Self::znode),
            false => Ok(Self::file(text)),
        }
    }
}

/// Without a password.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => path.display().fmt(f),
            Place::Znode(znode) => znode.fmt(f),
        }
    }
}
