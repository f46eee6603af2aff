//! A volume as Kubernetes mounts it: files are links through `..data`, and what that leads to changes in one step.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A directory that is swapped as kubelet does it.
pub(crate) struct Volume {
    path: PathBuf,
    swaps: usize,
}

impl Volume {
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Ok(Self { path, swaps: 0 })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Puts these files in the place of all that were there; the moment before it happened.
    pub(crate) fn swap(&mut self, files: &[(String, String)]) -> io::Result<Instant> {
        self.swaps += 1;
        let content = format!("..2026_{}", self.swaps);
        fs::create_dir(self.path.join(&content))?;
        for (name, text) in files {
            fs::write(self.path.join(&content).join(name), text)?;
            let link = self.path.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), link)?;
            }
        }
        let (next, data) = (self.path.join("..data_tmp"), self.path.join("..data"));
        let old = fs::read_link(&data);
        symlink(&content, &next)?;
        let now = Instant::now();
        fs::rename(next, data)?;
        if let Ok(old) = old {
            self.forget(&old, files)?;
        }
        Ok(now)
    }

    fn forget(&self, old: &Path, files: &[(String, String)]) -> io::Result<()> {
        let old = self.path.join(old);
        for entry in fs::read_dir(&old)? {
            let name = entry?.file_name();
            if !files.iter().any(|(kept, _)| name == kept.as_str()) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        fs::remove_dir_all(old)
    }
}
