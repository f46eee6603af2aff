//! The last content of a node that was good, in a file, so that a sidecar can begin while ZooKeeper is away.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::zookeeper::Content;

/// As much as a node may have.
const LARGEST: u64 = 1 << 20;

/// Puts it in the place of the copy before it, in one step. Nobody else may read it.
pub(super) fn write(path: &Path, content: &Content) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // With the rights 0600.
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(&content.bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// What was written last. Nobody knows which version it was, so anything that ZooKeeper says is newer.
pub(super) fn read(path: &Path) -> io::Result<Content> {
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(path)?
        .take(LARGEST)
        .read_to_end(&mut bytes)?;
    Ok(Content {
        bytes,
        version: -1,
        mzxid: -1,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_is_read_as_it_was_written_and_is_ours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-good.toml");
        for text in ["one", "another one"] {
            let content = Content {
                bytes: Zeroizing::new(text.into()),
                version: 3,
                mzxid: 7,
            };
            write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap().bytes[..], *text.as_bytes());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(read(&directory.path().join("missing")).is_err());
    }
}
