//! A directory to measure in.

use std::path::{Path, PathBuf};

use crate::Result;

/// A directory that goes away with its owner, or with the process when somebody interrupts it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `parent`. Once in a process.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let dir = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let at_interrupt = dir.clone();
        ctrlc::set_handler(move || {
            let _ = std::fs::remove_dir_all(&at_interrupt);
            std::process::exit(130);
        })?;
        Ok(Self(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
