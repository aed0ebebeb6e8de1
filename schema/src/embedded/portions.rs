//! Spreads fsync and unlink of the engine's large files over time, so that commits do not stall
//! (`docs/decisions/0046-sync-and-free-in-portions.md`).
//!
//! The engine writes a table of tens of megabytes into the page cache, syncs it once at its end, and deletes several
//! such tables after a compaction. Either keeps the disk busy for tens of milliseconds, in which every batch's sync
//! waits; and the engine does both under a lock that every write takes.
//!
//! So a separate thread syncs each table in small portions while it grows, which leaves almost nothing for the engine's
//! own sync. It also holds tables and journals open, so that an unlink frees no blocks, and then frees them in small
//! portions. It learns of files by inotify. It never writes into a file, and truncates only unlinked ones, which the
//! engine no longer uses. If a portion's sync fails, the engine's own sync might report nothing, so the store ends as
//! after a failed batch. If anything else fails here, batches only take longer.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// The interval of portions: the disk needs about one millisecond for one.
const ROUND_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Bytes freed at once.
const PORTION_BYTES: u64 = 4 * 1024 * 1024;
/// Files held open, the newest ones: compactions delete young files far more often than old ones.
const MAX_HELD_FILES: usize = 128;

/// The thread that does this, until the handle is dropped.
#[derive(Debug)]
pub(super) struct Portions {
    thread: Option<JoinHandle<()>>,
    end: Option<PipeWriter>,
}

impl Portions {
    /// Handles the engine's files in this directory; `failed` is called when one cannot be synced.
    ///
    /// # Errors
    /// The system's error, if it has no notifications or no thread.
    pub(super) fn start(engine_dir: &Path, failed: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let work = Work::watch(engine_dir)?;
        let (ended, end) = io::pipe()?;
        let name = "store-portions".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || match work.run(&ended) {
            Ok(()) => {}
            Err(Fault::Unsynced(error)) => failed(&format!("a table could not be synced: {error}")),
            Err(Fault::Unwatched(error)) => tracing::warn!(%error, "incremental fsync disabled"),
        })?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for Portions {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the incremental fsync thread panicked");
        }
    }
}

/// Why the thread ends before the store.
#[derive(Debug)]
enum Fault {
    /// The disk did not accept the engine's writes.
    Unsynced(io::Error),
    /// The system sends no notifications any more.
    Unwatched(io::Error),
}

/// A file of the engine, held open.
#[derive(Debug)]
struct HeldFile {
    path: PathBuf,
    file: File,
    /// It was synced up to here; `None` for complete files, and for journals, which are synced with each batch.
    synced: Option<u64>,
}

/// The pending work.
struct Work {
    notices: OwnedFd,
    watched: HashMap<i32, PathBuf>,
    /// Oldest first.
    held: VecDeque<HeldFile>,
    /// Deleted files that are not freed yet.
    deleted: VecDeque<File>,
}

impl Work {
    fn watch(engine_dir: &Path) -> io::Result<Self> {
        let mut dirs = vec![engine_dir.to_owned()];
        for keyspace in std::fs::read_dir(engine_dir.join("keyspaces"))? {
            dirs.extend(Some(keyspace?.path().join("tables")).filter(|tables| tables.is_dir()));
        }
        let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut work = Self { notices, watched: HashMap::new(), held: VecDeque::new(), deleted: VecDeque::new() };
        let mut existing = Vec::new();
        for dir in dirs {
            let wanted = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
            let watch = inotify::add_watch(&work.notices, &dir, wanted)?;
            for file in std::fs::read_dir(&dir)? {
                let file = file?;
                // The engine is running already: files that it deleted meanwhile no longer exist, and files that it
                // makes meanwhile may be taken as complete.
                if let Ok(modified) = file.metadata().and_then(|metadata| metadata.modified()) {
                    existing.push((modified, file.path()));
                }
            }
            work.watched.insert(watch, dir);
        }
        existing.sort();
        for (_, path) in existing {
            work.hold(path, false);
        }
        Ok(work)
    }

    /// Works until the pipe's writing end is closed.
    fn run(mut self, ended: &PipeReader) -> Result<(), Fault> {
        loop {
            let within = self.has_portions().then_some(&ROUND_INTERVAL);
            let mut ready = [PollFd::new(&self.notices, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            match poll(&mut ready, within) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Fault::Unwatched(error.into())),
            }
            if !ready[1].revents().is_empty() {
                return Ok(());
            }
            self.read_notices().map_err(Fault::Unwatched)?;
            self.sync(File::sync_data).map_err(Fault::Unsynced)?;
            self.free();
        }
    }

    fn has_portions(&self) -> bool {
        !self.deleted.is_empty() || self.held.iter().any(|held| held.synced.is_some())
    }

    /// Syncs the bytes appended to growing tables since the last time.
    fn sync(&mut self, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        for held in &mut self.held {
            let Some(synced) = &mut held.synced else { continue };
            let len = held.file.metadata()?.len();
            if *synced < len {
                sync(&held.file)?;
                *synced = len;
            }
        }
        Ok(())
    }

    /// Frees a portion of the file that was deleted first.
    fn free(&mut self) {
        let Some(file) = self.deleted.pop_front() else { return };
        match shorten(&file) {
            Ok(true) => self.deleted.push_front(file),
            Ok(false) => {}
            // Closing its last descriptor frees all of it.
            Err(error) => tracing::debug!(%error, "could not free a deleted file incrementally"),
        }
    }

    fn read_notices(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut news = Vec::new();
        let mut reader = Reader::new(&self.notices, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_owned());
                    news.push((event.wd(), event.events(), name));
                }
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (watch, events, name) in news {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Files deleted meanwhile are freed at once.
                self.held.clear();
            }
            let (Some(dir), Some(name)) = (self.watched.get(&watch), name) else { continue };
            let path = dir.join(std::ffi::OsStr::from_bytes(&name));
            let place = self.held.iter().position(|held| held.path == path);
            match place {
                Some(place) if events.contains(ReadFlags::DELETE) => {
                    self.deleted.extend(self.held.remove(place).map(|held| held.file));
                }
                Some(place) if events.contains(ReadFlags::CLOSE_WRITE) => self.held[place].synced = None,
                None if events.contains(ReadFlags::CREATE) => self.hold(path, true),
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds a table or a journal open, a new table as a growing one; other files are small.
    fn hold(&mut self, path: PathBuf, is_new: bool) {
        let is_table = path.extension().is_none() && path.parent().is_some_and(|dir| dir.ends_with("tables"));
        if !is_table && path.extension().is_none_or(|extension| extension != "jnl") {
            return;
        }
        // A file that was deleted meanwhile needs nothing.
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { return };
        self.held.push_back(HeldFile { path, file, synced: (is_new && is_table).then_some(0) });
        if self.held.len() > MAX_HELD_FILES {
            self.held.pop_front();
        }
    }
}

/// Frees a portion of an unlinked file; returns whether there is more.
fn shorten(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    // A file that still has a name may be in use.
    if metadata.nlink() > 0 || metadata.len() <= PORTION_BYTES {
        return Ok(false);
    }
    file.set_len(metadata.len() - PORTION_BYTES)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("keyspaces/1/tables")).unwrap();
            Self { dir }
        }

        fn work(&self) -> Work {
            Work::watch(self.dir.path()).unwrap()
        }

        fn table(&self, name: &str) -> PathBuf {
            self.dir.path().join("keyspaces/1/tables").join(name)
        }

        fn journal(&self) -> PathBuf {
            self.dir.path().join("0.jnl")
        }
    }

    /// Reads notifications and does one portion; returns how many syncs were made.
    fn round(work: &mut Work) -> u32 {
        let syncs = std::cell::Cell::new(0);
        work.read_notices().unwrap();
        work.sync(|file| {
            syncs.set(syncs.get() + 1);
            file.sync_data()
        })
        .unwrap();
        work.free();
        syncs.get()
    }

    #[test]
    fn a_table_is_synced_while_it_grows_until_it_is_closed() {
        let files = Files::new();
        let mut work = files.work();
        assert!(!work.has_portions(), "without a table nobody wakes up");
        let mut table = File::create_new(files.table("0")).unwrap();
        for _ in 0..3 {
            table.write_all(&vec![7; 1 << 20]).unwrap();
            assert_eq!(round(&mut work), 1);
            assert_eq!(round(&mut work), 0, "there is nothing new");
        }
        assert!(work.has_portions(), "it may grow after any time");
        drop(table);
        round(&mut work);
        assert!(!work.has_portions(), "it is whole");
        assert_eq!(std::fs::read(files.table("0")).unwrap(), vec![7; 3 << 20]);
    }

    #[test]
    fn a_sync_that_fails_is_reported() {
        let files = Files::new();
        let mut work = files.work();
        let mut table = File::create_new(files.table("0")).unwrap();
        table.write_all(b"x").unwrap();
        work.read_notices().unwrap();
        let error = work.sync(|_| Err(io::Error::other("the disk is broken"))).unwrap_err();
        assert_eq!(error.to_string(), "the disk is broken");
    }

    #[test]
    fn a_deleted_file_is_freed_in_portions() {
        let files = Files::new();
        let mut work = files.work();
        for path in [files.table("0"), files.journal()] {
            std::fs::write(&path, vec![7; 2 * PORTION_BYTES as usize + 5]).unwrap();
            round(&mut work);
            std::fs::remove_file(&path).unwrap();
            for left in [PORTION_BYTES + 5, 5] {
                round(&mut work);
                assert_eq!(work.deleted[0].metadata().unwrap().len(), left, "{}", path.display());
            }
            round(&mut work);
            assert!(work.deleted.is_empty() && work.held.is_empty());
        }
    }

    #[test]
    fn a_file_with_another_name_left_is_not_truncated() {
        let files = Files::new();
        std::fs::write(files.table("0"), vec![7; 2 * PORTION_BYTES as usize]).unwrap();
        let mut work = files.work();
        let elsewhere = files.dir.path().join("a copy");
        std::fs::hard_link(files.table("0"), &elsewhere).unwrap();
        std::fs::remove_file(files.table("0")).unwrap();
        round(&mut work);
        round(&mut work);
        assert!(work.held.is_empty() && work.deleted.is_empty());
        assert_eq!(std::fs::read(elsewhere).unwrap(), vec![7; 2 * PORTION_BYTES as usize]);
    }

    #[test]
    fn few_files_are_held_open_and_the_newest_of_them() {
        let files = Files::new();
        let mut work = files.work();
        for n in 0..MAX_HELD_FILES + 3 {
            std::fs::write(files.table(&n.to_string()), b"x").unwrap();
        }
        std::fs::write(files.dir.path().join("manifest"), b"x").unwrap();
        round(&mut work);
        assert_eq!(work.held.len(), MAX_HELD_FILES);
        assert_eq!(work.held[0].path, files.table("3"));
    }

    #[test]
    fn the_newest_files_present_at_the_start_are_held_open() {
        let files = Files::new();
        let begun = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let write = |path: PathBuf, age: usize| {
            std::fs::write(&path, b"x").unwrap();
            let modified = begun - std::time::Duration::from_secs(age as u64);
            OpenOptions::new().write(true).open(path).unwrap().set_modified(modified).unwrap();
        };
        (0..MAX_HELD_FILES + 3).for_each(|n| write(files.table(&n.to_string()), n + 1));
        write(files.journal(), 0);
        let mut work = files.work();
        assert_eq!(work.held.back().unwrap().path, files.journal());
        assert_eq!(work.held.len(), MAX_HELD_FILES);
        assert!(!work.has_portions());
        assert_eq!(round(&mut work), 0);
    }

    /// Waits until something is so; a test that waits for longer has failed.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !is_so() {
            assert!(begun.elapsed().as_secs() < 30, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn deleted_files_are_freed_in_the_background() {
        let files = Files::new();
        let portions = Portions::start(files.dir.path(), |why| panic!("{why}")).unwrap();
        let path = files.table("0");
        let mut table = File::create_new(&path).unwrap();
        table.write_all(&vec![7; 3 * PORTION_BYTES as usize]).unwrap();
        let open = || {
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
            descriptors.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file == path)).count()
        };
        until("it is held", || open() == 2);
        std::fs::remove_file(&path).unwrap();
        until("it is freed", || table.metadata().unwrap().len() <= PORTION_BYTES);
        drop(portions);
    }
}
