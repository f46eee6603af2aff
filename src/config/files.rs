//! The files that a configuration is made of, looked at once each.
//!
//! A load reads each file one time, so that a file which two keys name cannot be two different things; and it remembers a
//! digest of each, so that one can tell later whether anything has changed, and now whether all of them stood there at the
//! same moment ([`Inputs::are_as_they_were`]). A file that is not there is remembered too: it may come.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::diagnostic::Fault;
use crate::crypto::sha256;

/// Larger than any configuration, and small enough to read at once.
pub(super) const FILE_LIMIT: usize = 1 << 20;

/// Larger than any secret.
const SECRET_LIMIT: usize = 64 << 10;

/// Reads files, each once.
#[derive(Default)]
pub(super) struct Files {
    read: RefCell<BTreeMap<PathBuf, Content>>,
}

type Content = Result<Zeroizing<Vec<u8>>, Unread>;

/// Why a file could not be read.
#[derive(Clone)]
struct Unread {
    kind: ErrorKind,
    error: String,
}

/// What a secret's file holds.
pub(super) struct SecretFile {
    pub(super) text: Zeroizing<String>,
    pub(super) world_readable: bool,
}

/// The files that a configuration was made of, and what they were like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs(BTreeMap<PathBuf, Print>);

/// What a file was like.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Print {
    Content([u8; 32]),
    Unread(ErrorKind),
}

impl Files {
    /// Reads a file that is no secret: certificates, or the configuration itself. A fault calls it `shown`.
    pub(super) fn open(&self, path: &Path, shown: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.content(path)
            .map_err(|unread| unread.fault(&format!("the file `{shown}`")))
    }

    /// Reads the configuration's own file.
    pub(super) fn main(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.content(path)
            .map_err(|unread| unread.fault("this file"))
    }

    /// Reads a secret's file, less the newlines at its end. The fault names the file as `shown`, and nothing of its content.
    pub(super) fn secret(&self, path: &Path, shown: &str) -> Result<SecretFile, Fault> {
        let name = format!("the file `{shown}`");
        let bytes = match self.content(path) {
            Ok(bytes) if bytes.len() > SECRET_LIMIT => Err(ErrorKind::FileTooLarge.into()),
            content => content,
        };
        let bytes = bytes.map_err(|unread: Unread| unread.fault(&name))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Fault::new(format!("{name} is not UTF-8 text")))?
            .trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(Fault::new(format!("{name} is empty")));
        }
        let world_readable =
            fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
        Ok(SecretFile {
            text: Zeroizing::new(text.to_owned()),
            world_readable,
        })
    }

    /// What has been read.
    pub(super) fn inputs(&self) -> Inputs {
        let read = self.read.borrow();
        Inputs(
            read.iter()
                .map(|(path, content)| (path.clone(), Print::of(content)))
                .collect(),
        )
    }

    fn content(&self, path: &Path) -> Content {
        let mut read = self.read.borrow_mut();
        match read.get(path) {
            Some(content) => content.clone(),
            None => {
                let content = read_file(path);
                read.insert(path.to_owned(), content.clone());
                content
            }
        }
    }
}

impl Inputs {
    /// Whether the files are now what they were. It reads them.
    pub(crate) fn are_as_they_were(&self) -> bool {
        self.0
            .iter()
            .all(|(path, print)| Print::of(&read_file(path)) == *print)
    }

    /// The same files, as they are now.
    pub(crate) fn now(&self) -> Self {
        let now = |path: &PathBuf| (path.clone(), Print::of(&read_file(path)));
        Self(self.0.keys().map(now).collect())
    }

    /// Where the files are.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

impl Print {
    fn of(content: &Content) -> Self {
        match content {
            Ok(bytes) => Self::Content(sha256(bytes)),
            Err(unread) => Self::Unread(unread.kind),
        }
    }
}

impl From<ErrorKind> for Unread {
    fn from(kind: ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            error: error.to_string(),
        }
    }
}

impl Unread {
    fn fault(&self, name: &str) -> Fault {
        match self.kind {
            ErrorKind::NotFound => Fault::new(format!("{name} does not exist")),
            ErrorKind::IsADirectory => Fault::new(format!("{name} is a directory")),
            ErrorKind::PermissionDenied => {
                Fault::new(format!("{name} may not be read by this user"))
            }
            ErrorKind::FileTooLarge => Fault::new(format!("{name} is too large")),
            _ => Fault::new(format!("{name} cannot be read: {}", self.error)),
        }
    }
}

fn read_file(path: &Path) -> Content {
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(FILE_LIMIT)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let file = File::open(path)?;
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_LIMIT {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_and_its_changes_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (there, missing) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&there, "one").unwrap();
        let files = Files::default();
        assert_eq!(files.open(&there, "a").unwrap()[..], *b"one");
        assert!(files.open(&missing, "b").is_err());
        let inputs = files.inputs();
        assert!(inputs.are_as_they_were());
        assert_eq!(inputs.now(), inputs);
        fs::write(&there, "two").unwrap();
        assert_eq!(files.open(&there, "a").unwrap()[..], *b"one");
        assert!(!inputs.are_as_they_were());
        fs::write(&there, "one").unwrap();
        assert!(inputs.are_as_they_were());
        // What was not there is waited for too.
        fs::write(&missing, "").unwrap();
        assert!(!inputs.are_as_they_were());
        assert_eq!(Vec::from_iter(inputs.paths()), [&there, &missing]);
    }
}
