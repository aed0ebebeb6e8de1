//! The free space of the disk.
//!
//! An engine that cannot write a table or a journal fails for good, and the server with it. So commits are refused
//! while there is still enough for what the engine has begun, reads go on, and nothing has to be restarted once there
//! is space.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actors::store::StoreError;

const MIB: u64 = 1024 * 1024;
/// Bytes that commits leave free on an empty store: for the memory that is written as tables, and the journals.
pub(super) const SPARE_BYTES: u64 = 128 * MIB;
/// The most that they leave free in addition, for compactions, which keep old and new tables at a time: as much as the
/// store has, and at most what two of the largest need.
const COMPACTED_BYTES: u64 = 1_536 * MIB;
/// After how many measurements of the disk the size of the store is read again.
const SIZED_EVERY: u64 = 256;
/// How old the measurement may be by which a commit is accepted: others fill a disk too, while this store writes
/// nothing.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What is known about the space of a directory's disk.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    spare: u64,
    /// What compactions may need.
    compacted: AtomicU64,
    measurements: AtomicU64,
    is_short: AtomicBool,
    opened: Instant,
    /// When the disk was last measured, in milliseconds since `opened`.
    measured_at: AtomicU64,
}

impl Space {
    /// Commits leave `spare` bytes free, and what compactions of a store of this size need.
    pub(super) fn new(dir: &Path, spare: u64, size: u64) -> Self {
        let compacted = AtomicU64::new(size.min(COMPACTED_BYTES));
        let measurements = AtomicU64::new(0);
        let is_short = AtomicBool::new(false);
        let measured_at = AtomicU64::new(0);
        let opened = Instant::now();
        let space = Self { dir: dir.to_owned(), spare, compacted, measurements, is_short, opened, measured_at };
        space.measure(opened);
        space
    }

    /// Measures the disk after a batch, so that no more than one batch is written between two measurements. `size`
    /// reads the store's size; it is called for one in [`SIZED_EVERY`] batches.
    pub(super) fn measure_after_batch(&self, now: Instant, size: impl FnOnce() -> Option<u64>) {
        if self.measurements.fetch_add(1, Ordering::Relaxed).is_multiple_of(SIZED_EVERY)
            && let Some(size) = size()
        {
            self.compacted.store(size.min(COMPACTED_BYTES), Ordering::Relaxed);
        }
        self.measure(now);
    }

    /// How long it has been open, in milliseconds.
    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn measure(&self, now: Instant) {
        self.measured_at.store(self.age(now), Ordering::Relaxed);
        let spare = self.spare.saturating_add(self.compacted.load(Ordering::Relaxed));
        // A disk that cannot be measured is no reason to refuse commits.
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

    /// Refuses a commit while too little space is left. Measures the disk only if that was so before, or if the last
    /// measurement is old: not between two batches that follow each other.
    pub(super) fn check(&self, now: Instant) -> Result<(), StoreError> {
        let age = Duration::from_millis(self.age(now).saturating_sub(self.measured_at.load(Ordering::Relaxed)));
        if age >= CHECK_INTERVAL || self.is_short.load(Ordering::Relaxed) {
            self.measure(now);
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
        assert!(space.check(now).is_ok(), "the disk was not measured since");
        space.measure(now);
        assert!(space.check(now).is_err());
        space.spare = 0;
        assert!(space.check(now).is_ok(), "there is space again");
    }

    #[test]
    fn the_first_commit_after_a_pause_is_refused_if_others_have_filled_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = Space::new(dir.path(), 0, 0);
        let batch = space.opened + Duration::from_secs(60);
        space.measure_after_batch(batch, || None);
        space.spare = u64::MAX;
        assert!(space.check(batch + CHECK_INTERVAL / 2).is_ok(), "a batch has just measured the disk");
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
        space.measure_after_batch(space.opened, || Some(2 * MIB));
        assert_eq!(compacted(), 2 * MIB);
        space.measure_after_batch(space.opened, || panic!("the size was read a moment ago"));
        (2..SIZED_EVERY).for_each(|_| space.measure_after_batch(space.opened, || None));
        space.measure_after_batch(space.opened, || Some(u64::MAX));
        assert_eq!(compacted(), COMPACTED_BYTES);
    }
}
