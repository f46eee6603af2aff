//! A source that is followed: when there is something else to be read, and what.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::watch::Watch;
use super::{Source, last_good};
use crate::config::{Attempt, Config, Inputs, Report};
use crate::zookeeper::{Content, Seen, State, Znode};

/// How long the answer of a file system or of ZooKeeper is waited for in silence.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sidecar follows its source by. It works once it is on a runtime.
pub struct Feed {
    source: Source,
    /// The files that were last made a configuration of, or were to be.
    tried: Inputs,
    watch: Option<Watch>,
    node: Option<Node>,
    /// Why it has begun with the last good copy and not with what the node holds.
    instead: Option<Report>,
}

/// The node that the configuration is in.
struct Node {
    znode: Znode,
    /// What was last made a configuration of, or was to be.
    tried: Arc<Content>,
    following: Option<Following>,
}

struct Following {
    seen: channel::Receiver<Seen>,
    /// How often it was to be looked at at once.
    asked: channel::Sender<u64>,
    task: JoinHandle<()>,
}

/// Why there is nothing to be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread(pub(crate) String);

impl Feed {
    pub(super) fn of_files(source: Source, inputs: Inputs) -> Self {
        Self {
            source,
            tried: inputs,
            watch: None,
            node: None,
            instead: None,
        }
    }

    pub(super) fn of_znode(
        source: Source,
        znode: Znode,
        inputs: Inputs,
        content: Content,
        instead: Option<Report>,
    ) -> Self {
        let node = Node {
            znode,
            tried: Arc::new(content),
            following: None,
        };
        Self {
            node: Some(node),
            instead,
            ..Self::of_files(source, inputs)
        }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn inputs(&self) -> &Inputs {
        &self.tried
    }

    /// Where the copy is that it has begun with, if it has, and why.
    pub(crate) fn copy(&self) -> Option<(&Path, &Report)> {
        Some((self.source.last_good.as_deref()?, self.instead.as_ref()?))
    }

    /// Why the source cannot be read, if that is known.
    pub(crate) fn failure(&self) -> Option<String> {
        let following = self.node.as_ref()?.following.as_ref()?;
        match &following.seen.borrow().state {
            State::Unknown | State::Current => None,
            State::Gone => Some("the node is gone".to_owned()),
            State::Away(error) => Some(error.to_string()),
        }
    }

    /// Waits until there is something else to be read, or the source has become readable or unreadable. Can be given up
    /// at any time.
    pub(crate) async fn changed(&mut self) {
        let watch = self.watch.get_or_insert_with(Watch::new);
        let files = async {
            loop {
                let is_quiet = watch.stirs(&self.tried).await;
                let tried = self.tried.clone();
                match beside(move || tried.now()).await {
                    Ok(now) if now != self.tried => {
                        if is_quiet || Watch::settled(now).await != self.tried {
                            watch.rest();
                            return;
                        }
                    }
                    // What cannot be looked at now will be later.
                    Ok(_) | Err(_) => {}
                }
                watch.rest();
            }
        };
        match &mut self.node {
            None => files.await,
            Some(node) => tokio::select! {
                () = files => {}
                () = node.changed() => {}
            },
        }
    }

    /// Has ZooKeeper asked what the node holds now, if it is one, and waits for the answer, but not for long.
    ///
    /// # Errors
    /// If there has been none.
    pub(crate) async fn refresh(&mut self) -> Result<(), Unread> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let following = node.following();
        following.asked.send_modify(|asked| *asked += 1);
        let asked = *following.asked.borrow();
        // A receiver of its own, so that what comes meanwhile is news all the same.
        let mut seen = following.seen.clone();
        let answer = seen.wait_for(|seen| seen.answered >= asked);
        match timeout(PATIENCE, answer).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Unread("nobody asks ZooKeeper at the moment".to_owned())),
            // Why that is, if it is known, is the better reason.
            Err(_) => Err(Unread(self.failure().unwrap_or_else(|| {
                format!("ZooKeeper has not answered within {} s", PATIENCE.as_secs())
            }))),
        }
    }

    /// After a defect nothing is relied on that was under way.
    pub(crate) fn begin_anew(&mut self) {
        self.watch = None;
        if let Some(node) = &mut self.node {
            node.following = None;
        }
    }

    /// Whether there is something to be made a configuration of that has not been.
    pub(crate) async fn has_news(&self) -> bool {
        // The same bytes written once more make the same configuration.
        if let Some(node) = &self.node
            && node.content().bytes != node.tried.bytes
        {
            return true;
        }
        let tried = self.tried.clone();
        beside(move || !tried.are_as_they_were())
            .await
            .unwrap_or(false)
    }

    /// Reads it.
    pub(crate) async fn attempt(&mut self) -> Result<Attempt, Unread> {
        let (source, before) = (self.source.clone(), self.tried.clone());
        let content = match &mut self.node {
            None => None,
            Some(node) => {
                node.tried = node.content();
                Some(Arc::clone(&node.tried))
            }
        };
        let read = beside(move || match content {
            Some(content) => source.attempt_at(&content, &before),
            None => Config::attempt(source.path().expect("what is no node is a file"), &before),
        });
        match read.await {
            Ok(attempt) => {
                self.tried = attempt.inputs.clone();
                Ok(attempt)
            }
            Err(error) => {
                // What panics now would do so again.
                let tried = self.tried.clone();
                if let Ok(now) = beside(move || tried.now()).await {
                    self.tried = now;
                }
                Err(Unread(format!("it was not read to its end: {error}")))
            }
        }
    }

    /// What was read last is in use: it is kept, if it is to be.
    pub(crate) async fn in_use(&self) {
        let (Some(node), Some(path)) = (&self.node, &self.source.last_good) else {
            return;
        };
        let (content, path) = (Arc::clone(&node.tried), path.clone());
        let written = spawn_blocking(move || (last_good::write(&path, &content), path)).await;
        if let Ok((Err(error), path)) = written {
            tracing::warn!(%error, copy = %path.display(), "the last good configuration is not kept");
        }
    }
}

/// Reads files beside the thread that says that we live, and says so if that takes long: a file system may hang.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let mut working = spawn_blocking(work);
    if let Ok(done) = timeout(PATIENCE, &mut working).await {
        return done;
    }
    tracing::warn!(
        "reading the configuration's files takes more than {} s; what is in use stays until they have been read",
        PATIENCE.as_secs()
    );
    working.await
}

impl Node {
    /// What follows it. It begins when it is first needed.
    fn following(&mut self) -> &mut Following {
        self.following.get_or_insert_with(|| {
            let (told, seen) = channel::channel(Seen::default());
            let (asked, asks) = channel::channel(0);
            let znode = self.znode.clone();
            let task = tokio::spawn(async move { znode.follow(&told, asks).await });
            Following { seen, asked, task }
        })
    }

    async fn changed(&mut self) {
        let following = self.following();
        if following.seen.changed().await.is_err() {
            // Nobody tells any more, which a panic would do. It begins anew.
            self.following = None;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What it holds, as far as is known.
    fn content(&self) -> Arc<Content> {
        let seen = self.following.as_ref().map(|it| it.seen.borrow());
        let content = seen.and_then(|seen| seen.content.clone());
        content.unwrap_or_else(|| Arc::clone(&self.tried))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}
