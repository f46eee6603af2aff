//! The files that a configuration is made of, looked at once each.
//!
//! A load reads each file one time, so that a file which two keys name cannot be two different things; and it remembers a
//! digest of each, so that one can tell later whether anything has changed, and now whether all of them stood there at the
//! same moment ([`Inputs::are_as_they_were`]). A file that is not there is remembered too: it may come. What is no file but
//! a stream (a pipe, `/dev/stdin`) gives what it has once, so that is kept, and counts as what it says for ever.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::diagnostic::Fault;
use super::pod::Pod;
use crate::crypto::sha256;

/// Larger than any configuration, and small enough to read at once.
pub(super) const FILE_LIMIT: usize = 1 << 20;

/// Larger than any secret.
const SECRET_LIMIT: usize = 64 << 10;

/// Reads files, each once.
#[derive(Default)]
pub(super) struct Files {
    read: RefCell<BTreeMap<PathBuf, Content>>,
    /// Where they are, if that is not here.
    pod: Option<Pod>,
}

type Content = Result<Text, Unread>;

/// What was read.
#[derive(Clone)]
struct Text {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether it cannot be read again.
    is_stream: bool,
}

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
#[derive(Clone, PartialEq, Eq)]
enum Print {
    Content([u8; 32]),
    Unread(ErrorKind),
    /// A stream, and what came out of it.
    Stream(Zeroizing<Vec<u8>>),
}

impl Files {
    /// Those of a configuration that has been made of `inputs` before: its streams are not read again.
    pub(super) fn knowing(inputs: &Inputs) -> Self {
        let streams = inputs.0.iter().filter_map(|(path, print)| match print {
            Print::Stream(bytes) => {
                let (bytes, is_stream) = (bytes.clone(), true);
                Some((path.clone(), Ok(Text { bytes, is_stream })))
            }
            Print::Content(_) | Print::Unread(_) => None,
        });
        Self {
            read: RefCell::new(streams.collect()),
            pod: None,
        }
    }

    /// Those of a pod, none of which is read.
    pub(super) fn of(pod: &Pod) -> Self {
        Self {
            pod: Some(pod.clone()),
            ..Self::default()
        }
    }

    /// Reads a file that is no secret: certificates, or the configuration itself. A fault calls it `shown`.
    pub(super) fn open(&self, path: &Path, shown: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        if let Some(pod) = &self.pod {
            return Err(pod.public_file(path, shown));
        }
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
        if let Some(pod) = &self.pod {
            return Err(pod.secret_file(path, shown));
        }
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

    fn content(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
        let mut read = self.read.borrow_mut();
        let content = match read.get(path) {
            Some(content) => content.clone(),
            None => {
                let content = read_file(path);
                read.insert(path.to_owned(), content.clone());
                content
            }
        };
        content.map(|text| text.bytes)
    }
}

impl Inputs {
    /// Whether the files are now what they were. It reads them.
    pub(crate) fn are_as_they_were(&self) -> bool {
        self.0.iter().all(|(path, print)| print.now(path) == *print)
    }

    /// The same files, as they are now.
    pub(crate) fn now(&self) -> Self {
        let now = |(path, print): (&PathBuf, &Print)| (path.clone(), print.now(path));
        Self(self.0.iter().map(now).collect())
    }

    /// Where the files are that may change.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.0.iter();
        files.filter_map(|(path, print)| (!print.is_of_stream()).then_some(path.as_path()))
    }
}

impl Print {
    fn of(content: &Content) -> Self {
        match content {
            Ok(text) if text.is_stream => Self::Stream(text.bytes.clone()),
            Ok(text) => Self::Content(sha256(&text.bytes)),
            Err(unread) => Self::Unread(unread.kind),
        }
    }

    /// The print of what is there now.
    fn now(&self, path: &Path) -> Self {
        match self {
            Self::Stream(_) => self.clone(),
            Self::Content(_) | Self::Unread(_) => Self::of(&read_file(path)),
        }
    }

    fn is_of_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// Nothing of what was read.
impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(_) => f.write_str("Content"),
            Self::Unread(kind) => f.debug_tuple("Unread").field(kind).finish(),
            Self::Stream(_) => f.write_str("Stream"),
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
    let is_stream = !file.metadata()?.is_file();
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_LIMIT {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(Text { bytes, is_stream })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

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

    #[test]
    fn a_stream_is_read_once_and_says_the_same_for_ever() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        writer.write_all(b"a secret").unwrap();
        drop(writer);
        let files = Files::default();
        assert_eq!(files.open(&path, "a").unwrap()[..], *b"a secret");
        let inputs = files.inputs();
        assert!(inputs.are_as_they_were());
        assert_eq!(inputs.now(), inputs);
        assert_eq!(inputs.paths().count(), 0);
        assert!(!format!("{inputs:?}").contains("secret"));
        let later = Files::knowing(&inputs);
        assert_eq!(later.open(&path, "a").unwrap()[..], *b"a secret");
    }
}
