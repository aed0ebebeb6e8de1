//! The free space of the disk.
//!
//! An engine that cannot write a table or a journal fails for good, and the server with it. So commits are refused while
//! there is still enough for what the engine has begun, reads go on, and nothing has to be restarted once there is space.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use actors::store::StoreError;

/// Bytes that commits leave free: the memory that is written as tables, the journals, and tables that are compacted,
/// of which old and new exist at a time.
pub(super) const SPARE_BYTES: u64 = 512 * 1024 * 1024;

/// What is known about the space of a directory's disk.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    spare: u64,
    is_short: AtomicBool,
}

impl Space {
    /// Commits leave `spare` bytes free.
    pub(super) fn new(dir: &Path, spare: u64) -> Self {
        let space = Self { dir: dir.to_owned(), spare, is_short: AtomicBool::new(false) };
        space.look();
        space
    }

    /// Asks the system. The writer does so for each batch, so that between two of them no more is written than one has.
    pub(super) fn look(&self) {
        // What cannot be asked is no reason to refuse commits.
        let is_short = free(&self.dir).is_ok_and(|free| free < self.spare);
        if self.is_short.swap(is_short, Ordering::Relaxed) == is_short {
            return;
        }
        if is_short {
            tracing::error!(spare = self.spare, "the disk is almost full; nothing is stored until there is space");
        } else {
            tracing::info!("the disk has space again");
        }
    }

    /// Refuses a commit while too little is left.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_short.load(Ordering::Relaxed) {
            self.look();
        }
        if self.is_short.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the disk is almost full".into()));
        }
        Ok(())
    }
}

/// The bytes that this process may still write.
#[cfg(unix)]
fn free(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_dir: &Path) -> std::io::Result<u64> {
    Ok(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_refused_as_long_as_too_little_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = Space::new(dir.path(), 0);
        assert!(space.check().is_ok());
        space.spare = u64::MAX;
        assert!(space.check().is_ok(), "nobody has looked since");
        space.look();
        assert!(space.check().is_err());
        space.spare = 0;
        assert!(space.check().is_ok(), "there is space again");
    }
}
