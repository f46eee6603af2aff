//! Where messages wait, as the configuration says it.

use std::path::{Path, PathBuf};

use crate::redis::Redis;

/// The kinds that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    /// The journal, written to the system and left to it.
    Unsynced,
    /// The journal with fsync.
    Synced,
    /// A stream in Redis, with this `appendfsync`.
    Redis(&'static str),
}

/// One of them, at work.
pub(crate) struct Store {
    pub(crate) kind: Kind,
    directory: PathBuf,
    pub(crate) server: Option<Redis>,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Memory,
        Self::Unsynced,
        Self::Synced,
        Self::Redis("everysec"),
        Self::Redis("always"),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Unsynced => "journal, fsync off".to_owned(),
            Self::Synced => "journal, fsync on".to_owned(),
            Self::Redis(appendfsync) => format!("Redis, appendfsync {appendfsync}"),
        }
    }

    /// Whether messages outlive the sidecar.
    pub(crate) fn is_durable(self) -> bool {
        self != Self::Memory
    }
}

impl Store {
    /// An empty one, with its files in a new directory within `directory`.
    pub(crate) fn open(kind: Kind, directory: &Path, number: usize) -> Result<Self, String> {
        let directory = directory.join(format!("store-{number}"));
        std::fs::create_dir(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let server = match kind {
            Kind::Redis(appendfsync) => Some(Redis::start(&directory, appendfsync)?),
            _ => None,
        };
        Ok(Self {
            kind,
            directory,
            server,
        })
    }

    /// Lines of `[push]`.
    pub(crate) fn push(&self) -> String {
        let directory = self.directory.display();
        match self.kind {
            Kind::Unsynced => format!("journal = \"{directory}\"\nfsync = false\n"),
            Kind::Synced => format!("journal = \"{directory}\"\n"),
            Kind::Memory | Kind::Redis(_) => String::new(),
        }
    }

    /// Sections behind it.
    pub(crate) fn sections(&self) -> String {
        self.server.as_ref().map_or(String::new(), |server| {
            format!("[store]\nkind = \"redis\"\nurl = \"{}\"\n", server.url())
        })
    }

    /// How large its files are, in bytes.
    pub(crate) fn size(&self) -> u64 {
        size_of(&self.directory)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // First the server, or it would write there once more.
        self.server = None;
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

fn size_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let of = entry.metadata().ok()?;
        Some(match of.is_dir() {
            true => size_of(&entry.path()),
            false => of.len(),
        })
    });
    sizes.sum()
}
