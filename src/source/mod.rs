//! Where the configuration of a running sidecar comes from, and when it has changed.
//!
//! A [`Source`] can be read, and followed. Events only say when to look: what has changed is decided by digests of what
//! is read ([`Inputs`](crate::config::Inputs)), so that it does not matter whether an event was missed, doubled, or of a kind that nobody foresaw.

mod watch;

use std::fmt;
use std::path::PathBuf;

use crate::config::{Attempt, Config, Loaded, Report};

pub(crate) use watch::Watch;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
}

impl Source {
    /// A file, and those that it names.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::File(path.into()),
        }
    }

    /// Reads and checks it. All files are as they were at one moment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, Report> {
        self.attempt().outcome
    }

    /// As [`Source::load`], with what was read.
    pub(crate) fn attempt(&self) -> Attempt {
        let Place::File(path) = &self.place;
        Config::attempt(path)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place::File(path) = &self.place;
        path.display().fmt(f)
    }
}
