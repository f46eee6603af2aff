//! When to look at files again.
//!
//! Directories are watched, not files: an editor puts another file in the place of the old one, and Kubernetes turns a link
//! (`..data`) to another directory. All directories on the way to a file are watched, because any link among them may be
//! turned. Where the system has no watches left there is none, and files are looked at every two seconds; where there are
//! some, every ten all the same, because a network file system says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Inputs;
use crate::resilience::lock;

/// How long nothing must have happened before one looks: who writes a file in pieces is not done.
const QUIET: Duration = Duration::from_millis(150);
/// How long one waits for that at the most.
const LONGEST_NOISE: Duration = Duration::from_secs(1);
/// How often one looks without having been told to.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same, if nobody tells.
const LOOK_OFTEN: Duration = Duration::from_secs(2);
/// How many links a path may have, as for the kernel.
const MOST_LINKS: usize = 40;

/// Watches the directories that lead to some files.
pub(crate) struct Watch {
    aim: Arc<Mutex<Aim>>,
    events: mpsc::Receiver<()>,
    /// Whether changes are told, and not only found.
    is_told: Arc<AtomicBool>,
    /// Whether there was an event that nobody has looked after yet.
    stirred: Arc<AtomicBool>,
    /// When files were last looked at.
    looked: Instant,
}

/// What is watched. Behind a lock, because it is changed beside the thread that says that we live: a file system may hang.
struct Aim {
    /// None if the system gives no watch.
    watcher: Option<RecommendedWatcher>,
    /// Each directory, and which one it was.
    watched: BTreeMap<PathBuf, Identity>,
}

type Identity = (u64, u64);

impl Watch {
    pub(crate) fn new() -> Self {
        let (told, events) = mpsc::channel(1);
        let tell = move |_| {
            // Full means that one is told already.
            let _told = told.try_send(());
        };
        let watcher = notify::recommended_watcher(tell).inspect_err(give_up).ok();
        Self {
            is_told: Arc::new(AtomicBool::new(watcher.is_some())),
            aim: Arc::new(Mutex::new(Aim {
                watcher,
                watched: BTreeMap::new(),
            })),
            events,
            stirred: Arc::default(),
            looked: Instant::now(),
        }
    }

    /// Somebody has looked since the last event, and it has not been given up halfway.
    pub(crate) fn rest(&mut self) {
        self.stirred.store(false, Ordering::Relaxed);
        self.looked = Instant::now();
    }

    /// Whether changes are told, and not only found.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Waits until there may be something to see. Says whether it has been quiet since: files that are being written are
    /// given time, if one is told of it. Until [`Watch::rest`] is called, an event counts as one that nobody has looked after.
    pub(crate) async fn stirs(&mut self, inputs: &Inputs) -> bool {
        if self.aim(inputs).await {
            // What happened before the watch began was told to nobody.
            return false;
        }
        if !self.stirred.load(Ordering::Relaxed) {
            let patience = match self.is_told() {
                true => LOOK_EVERY,
                false => LOOK_OFTEN,
            };
            let due = self.looked + patience;
            if timeout_at(due, self.event()).await.is_err() {
                return false;
            }
        }
        self.stirred.store(true, Ordering::Relaxed);
        let until = Instant::now() + LONGEST_NOISE;
        while Instant::now() < until {
            if timeout(QUIET, self.event()).await.is_err() {
                return true;
            }
        }
        false
    }

    /// Waits until files that have changed have stopped doing so, or at least long enough.
    pub(crate) async fn settled(first: Inputs) -> Inputs {
        let until = Instant::now() + LONGEST_NOISE;
        let mut before = first;
        loop {
            sleep(QUIET).await;
            let looked = before.clone();
            let now = spawn_blocking(move || looked.now()).await;
            match now {
                Ok(now) if now != before && Instant::now() < until => before = now,
                Ok(now) => return now,
                Err(_) => return before,
            }
        }
    }

    async fn event(&mut self) {
        if self.is_told() && self.events.recv().await.is_some() {
            return;
        }
        if self.is_told.swap(false, Ordering::Relaxed) {
            tracing::warn!("what tells of changed files has died; they are looked at every 2 s");
            // It cannot be dropped either: it would panic, as its thread does not hear it.
            std::mem::forget(lock(&self.aim).watcher.take());
        }
        std::future::pending::<()>().await;
    }

    /// Watches what leads to these files now, and nothing else. Says whether that was not watched before.
    async fn aim(&self, inputs: &Inputs) -> bool {
        if !self.is_told() {
            return false;
        }
        let (aim, inputs) = (Arc::clone(&self.aim), inputs.clone());
        let (is_told, stirred) = (Arc::clone(&self.is_told), Arc::clone(&self.stirred));
        let aiming = spawn_blocking(move || {
            let mut wanted = BTreeMap::new();
            for path in inputs.paths() {
                collect_directories(path, &mut wanted);
            }
            let mut aim = lock(&aim);
            let is_new = aim.at(wanted);
            is_told.store(aim.watcher.is_some(), Ordering::Relaxed);
            if is_new {
                // Also if nobody waits for this any more.
                stirred.store(true, Ordering::Relaxed);
            }
            is_new
        });
        aiming.await.unwrap_or(false)
    }
}

impl Aim {
    /// Watches these directories and no others. Says whether one of them was not watched before, or none can be.
    fn at(&mut self, wanted: BTreeMap<PathBuf, Identity>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut is_new = false;
        self.watched.retain(|path, identity| {
            let stays = wanted.get(path) == Some(identity);
            if !stays {
                // An error means that it is gone, and its watch with it.
                let _gone = watcher.unwatch(path);
            }
            stays
        });
        for (path, identity) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path, identity);
                    is_new = true;
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    give_up(&error);
                    self.watcher = None;
                    self.watched.clear();
                    return true;
                }
            }
        }
        is_new
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The start must not fail for want of a watch.
fn give_up(error: &notify::Error) {
    tracing::warn!(
        %error,
        "files cannot be watched (fs.inotify.max_user_instances and max_user_watches are limits for it); they are looked at every 2 s"
    );
}

/// The directories in which some name leads to `path`: its own, and those of links on the way. Where one does not exist,
/// the nearest above it that does, because it may come there.
fn collect_directories(path: &Path, found: &mut BTreeMap<PathBuf, Identity>) {
    let mut add = |directory: &Path| {
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        for directory in directory.ancestors() {
            if let Ok(metadata) = fs::metadata(directory)
                && metadata.is_dir()
            {
                found.insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
                return;
            }
        }
    };
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    let mut links = 0;
    while let Some(path) = rest.pop() {
        add(path.parent().unwrap_or(Path::new("/")));
        let mut so_far = PathBuf::new();
        for component in path.components() {
            so_far.push(component);
            let Component::Normal(_) = component else {
                continue;
            };
            let Ok(target) = fs::read_link(&so_far) else {
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return;
            }
            let directory = so_far.parent().unwrap_or(Path::new("")).to_owned();
            add(&directory);
            // What stands behind the link is on another path from here on.
            let behind = path.strip_prefix(&so_far).unwrap_or(Path::new(""));
            let mut next = directory.join(target);
            if !behind.as_os_str().is_empty() {
                next.push(behind);
            }
            rest.push(next);
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directories(path: &Path) -> Vec<PathBuf> {
        let mut found = BTreeMap::new();
        collect_directories(path, &mut found);
        found.into_keys().collect()
    }

    #[test]
    fn the_directory_of_a_file_is_watched_whether_there_is_a_file_or_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(directories(&root.path().join("a.toml")), [root.path()]);
        let deep = root.path().join("not/there/a.toml");
        assert_eq!(directories(&deep), [root.path()]);
        assert_eq!(directories(Path::new("a.toml")), [Path::new(".")]);
    }

    #[test]
    fn every_link_on_the_way_is_watched_where_it_stands() {
        let root = tempfile::tempdir().unwrap();
        let (volume, elsewhere) = (root.path().join("volume"), root.path().join("elsewhere"));
        fs::create_dir_all(volume.join("..2026")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(volume.join("..2026/a.toml"), "").unwrap();
        symlink("..2026", volume.join("..data")).unwrap();
        symlink("..data/a.toml", volume.join("a.toml")).unwrap();
        symlink(volume.join("a.toml"), elsewhere.join("b.toml")).unwrap();
        let expected = [
            elsewhere.clone(),
            volume.clone(),
            volume.join("..2026"),
            volume.join("..data"),
        ];
        assert_eq!(directories(&elsewhere.join("b.toml")), expected);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let root = tempfile::tempdir().unwrap();
        symlink(root.path().join("b"), root.path().join("a")).unwrap();
        symlink(root.path().join("a"), root.path().join("b")).unwrap();
        assert_eq!(directories(&root.path().join("a")), [root.path()]);
    }

    /// It would otherwise be asked for ever, without a pause, whether there is an event.
    #[tokio::test]
    async fn without_whoever_tells_of_changes_files_are_looked_at_often() {
        let mut watch = Watch::new();
        if !watch.is_told() {
            return;
        }
        watch.events = mpsc::channel(1).1;
        let stirred = timeout(Duration::from_millis(1), watch.event()).await;
        assert!(stirred.is_err());
        assert!(!watch.is_told());
        assert!(!watch.aim(&Inputs::default()).await);
    }
}
