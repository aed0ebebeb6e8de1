//! The free space of the disk.
//!
//! An engine that cannot write a table or a journal fails for good, and the server with it. So commits are refused while
//! there is still enough for what the engine has begun, reads go on, and nothing has to be restarted once there is
//! space.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actors::store::StoreError;

const MIB: u64 = 1024 * 1024;
/// Bytes that commits leave free on an empty store: for the memory that is written as tables, and the journals.
pub(super) const SPARE_BYTES: u64 = 128 * MIB;
/// The most that they leave free beside for compactions, which keep old and new tables at a time: as much as the store
/// has, and at most what two of the largest need.
const COMPACTED_BYTES: u64 = 1_536 * MIB;
/// After how many looks the size of the store is asked for again.
const SIZED_EVERY: u64 = 256;
/// How old a look may be that a commit is accepted by: others fill a disk too, while this store writes nothing.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What is known about the space of a directory's disk.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    spare: u64,
    /// What compactions may need.
    compacted: AtomicU64,
    looks: AtomicU64,
    is_short: AtomicBool,
    opened: Instant,
    /// When the last look was, in milliseconds since then.
    looked: AtomicU64,
}

impl Space {
    /// Commits leave `spare` bytes free, and what compactions of a store of this size need.
    pub(super) fn new(dir: &Path, spare: u64, size: u64) -> Self {
        let compacted = AtomicU64::new(size.min(COMPACTED_BYTES));
        let looks = AtomicU64::new(0);
        let is_short = AtomicBool::new(false);
        let looked = AtomicU64::new(0);
        let opened = Instant::now();
        let space = Self { dir: dir.to_owned(), spare, compacted, looks, is_short, opened, looked };
        space.look(opened);
        space
    }

    /// Looks after a batch, so that between two looks no more is written than one has. `size`: of the store, which is
    /// asked for now and then.
    pub(super) fn look_after_batch(&self, now: Instant, size: impl FnOnce() -> Option<u64>) {
        if self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(SIZED_EVERY)
            && let Some(size) = size()
        {
            self.compacted.store(size.min(COMPACTED_BYTES), Ordering::Relaxed);
        }
        self.look(now);
    }

    /// How long it has been open, in milliseconds.
    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn look(&self, now: Instant) {
        self.looked.store(self.age(now), Ordering::Relaxed);
        let spare = self.spare.saturating_add(self.compacted.load(Ordering::Relaxed));
        // What cannot be asked is no reason to refuse commits.
        let is_short = free(&self.dir).is_ok_and(|free| free < spare);
        if self.is_short.swap(is_short, Ordering::Relaxed) == is_short {
            return;
        }
        if is_short {
            tracing::error!(spare, "the disk is almost full; nothing is stored until there is space");
        } else {
            tracing::info!("the disk has space again");
        }
    }

    /// Refuses a commit while too little is left. Looks only if that was so before, or after a pause: between two
    /// batches that follow each other nothing is asked.
    pub(super) fn check(&self, now: Instant) -> Result<(), StoreError> {
        let looked = Duration::from_millis(self.age(now).saturating_sub(self.looked.load(Ordering::Relaxed)));
        if looked >= CHECK_INTERVAL || self.is_short.load(Ordering::Relaxed) {
            self.look(now);
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
        let mut space = Space::new(dir.path(), 0, 0);
        let now = space.opened;
        assert!(space.check(now).is_ok());
        space.spare = u64::MAX;
        assert!(space.check(now).is_ok(), "nobody has looked since");
        space.look(now);
        assert!(space.check(now).is_err());
        space.spare = 0;
        assert!(space.check(now).is_ok(), "there is space again");
    }

    #[test]
    fn the_first_commit_after_a_pause_is_refused_if_others_have_filled_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = Space::new(dir.path(), 0, 0);
        let batch = space.opened + Duration::from_secs(60);
        space.look_after_batch(batch, || None);
        space.spare = u64::MAX;
        assert!(space.check(batch + CHECK_INTERVAL / 2).is_ok(), "a batch has just looked");
        assert!(space.check(batch + CHECK_INTERVAL).is_err());
        space.spare = 0;
        assert!(space.check(batch + CHECK_INTERVAL).is_ok(), "there is space again");
    }

    #[test]
    fn a_larger_store_leaves_more_for_its_compactions() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), 0, MIB);
        let compacted = || space.compacted.load(Ordering::Relaxed);
        assert_eq!(compacted(), MIB);
        space.look_after_batch(space.opened, || Some(2 * MIB));
        assert_eq!(compacted(), 2 * MIB);
        space.look_after_batch(space.opened, || panic!("it was asked for a moment ago"));
        (2..SIZED_EVERY).for_each(|_| space.look_after_batch(space.opened, || None));
        space.look_after_batch(space.opened, || Some(u64::MAX));
        assert_eq!(compacted(), COMPACTED_BYTES);
    }
}
