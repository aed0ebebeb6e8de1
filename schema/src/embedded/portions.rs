//! What the engine writes and deletes in one go is given to the disk in portions:
//! `docs/decisions/0046-the-disk-is-given-portions.md`.
//!
//! The engine writes a table of tens of megabytes into the system's cache and syncs it once at its end, and deletes
//! several of those after a compaction. The disk is busy with either for tens of milliseconds, in which every batch's
//! sync waits, and the engine does both under a lock that every write takes.
//!
//! So a thread of its own syncs each table while it grows, a little at a time, which leaves nearly nothing to the
//! engine's own sync; and it holds tables and journals open, so that to delete one frees nothing yet, then frees them
//! little by little. It learns of files by the system's notices. It never writes into a file, and shortens only what has
//! no name any more, which is nobody's. Where anything about this fails, a batch takes longer and nothing else.

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

/// How long a portion has, while there are any: the disk needs about one millisecond for it.
const ROUND: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Bytes that are freed at once.
const PORTION: u64 = 4 * 1024 * 1024;
/// After so many rounds in which it did not grow a table is taken to be whole: a fifth of a second.
const STILL: u32 = 40;
/// Files held open, the newest ones: compactions delete what is young far more often than what is old.
const HELD: usize = 128;

/// The thread that does it, until this is dropped.
#[derive(Debug)]
pub(super) struct Portions {
    thread: Option<JoinHandle<()>>,
    end: Option<PipeWriter>,
}

impl Portions {
    /// Looks after the engine's files in this directory.
    ///
    /// # Errors
    /// What the system says where it gives no notices or no thread.
    pub(super) fn start(engine_dir: &Path) -> io::Result<Self> {
        let work = Work::watch(engine_dir)?;
        let (ended, end) = io::pipe()?;
        let thread = std::thread::Builder::new().name("store-portions".to_owned()).spawn(move || {
            if let Err(error) = work.run(&ended) {
                tracing::warn!(%error, "the disk is given no portions any more");
            }
        })?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for Portions {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that gives the disk portions panicked");
        }
    }
}

/// A file of the engine, held open.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: File,
    /// Up to here it was synced; `None` for what the engine syncs itself as it writes it.
    synced: Option<u64>,
    /// For how many rounds it has not grown.
    still: u32,
}

/// What there is to do.
struct Work {
    notices: OwnedFd,
    watched: HashMap<i32, PathBuf>,
    /// Oldest first.
    held: VecDeque<Held>,
    /// What has been deleted, and what is left of it.
    doomed: VecDeque<File>,
}

impl Work {
    fn watch(engine_dir: &Path) -> io::Result<Self> {
        let mut dirs = vec![engine_dir.to_owned()];
        for keyspace in std::fs::read_dir(engine_dir.join("keyspaces"))? {
            dirs.extend(Some(keyspace?.path().join("tables")).filter(|tables| tables.is_dir()));
        }
        let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut work = Self { notices, watched: HashMap::new(), held: VecDeque::new(), doomed: VecDeque::new() };
        for dir in dirs {
            let wanted = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
            let watch = inotify::add_watch(&work.notices, &dir, wanted)?;
            // What comes meanwhile is told of, and seen twice at worst.
            for file in std::fs::read_dir(&dir)? {
                work.hold(file?.path());
            }
            work.watched.insert(watch, dir);
        }
        Ok(work)
    }

    /// Works until nobody can write into the pipe any more.
    fn run(mut self, ended: &PipeReader) -> io::Result<()> {
        loop {
            let within = self.has_portions().then_some(&ROUND);
            let mut ready = [PollFd::new(&self.notices, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            match poll(&mut ready, within) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !ready[1].revents().is_empty() {
                return Ok(());
            }
            self.round()?;
        }
    }

    fn has_portions(&self) -> bool {
        !self.doomed.is_empty() || self.held.iter().any(Held::may_grow)
    }

    /// Hears what is new, and does a portion of everything.
    fn round(&mut self) -> io::Result<()> {
        self.hear()?;
        for held in self.held.iter_mut().filter(|held| held.may_grow()) {
            // The engine syncs it too, and hears of what is wrong with the disk as well.
            if let Err(error) = held.sync() {
                tracing::debug!(%error, path = %held.path.display(), "a table cannot be synced ahead");
                held.synced = None;
            }
        }
        if let Some(file) = self.doomed.pop_front()
            && free(&file)?
        {
            self.doomed.push_front(file);
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
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
                // What was deleted meanwhile is freed at once.
                self.held.clear();
            }
            let (Some(dir), Some(name)) = (self.watched.get(&watch), name) else { continue };
            let path = dir.join(std::ffi::OsStr::from_bytes(&name));
            if events.contains(ReadFlags::CREATE) {
                self.hold(path);
            } else if let Some(place) = self.held.iter().position(|held| held.path == path) {
                self.doomed.extend(self.held.remove(place).map(|held| held.file));
            }
        }
        Ok(())
    }

    /// Holds a table or a journal open; others are small.
    fn hold(&mut self, path: PathBuf) {
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let is_table = path.extension().is_none() && path.parent().is_some_and(|dir| dir.ends_with("tables"));
        if !(is_journal || is_table) || self.held.iter().any(|held| held.path == path) {
            return;
        }
        // One that is gone already needs nothing.
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { return };
        self.held.push_back(Held { path, file, synced: is_table.then_some(0), still: 0 });
        if self.held.len() > HELD {
            self.held.pop_front();
        }
    }
}

impl Held {
    fn may_grow(&self) -> bool {
        self.synced.is_some() && self.still < STILL
    }

    /// Syncs what has come since the last time.
    fn sync(&mut self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if self.synced.is_some_and(|synced| synced < len) {
            self.file.sync_data()?;
            (self.synced, self.still) = (Some(len), 0);
        } else {
            self.still += 1;
        }
        Ok(())
    }
}

/// Frees a portion of a file without a name; whether there is more.
fn free(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    // One that has a name, whatever that is, is somebody's.
    if metadata.nlink() > 0 || metadata.len() <= PORTION {
        return Ok(false);
    }
    file.set_len(metadata.len() - PORTION)?;
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

    #[test]
    fn a_table_is_synced_while_it_grows_until_it_does_not_any_more() {
        let files = Files::new();
        let mut work = files.work();
        assert!(!work.has_portions(), "without a table nobody wakes up");
        let mut table = File::create_new(files.table("0")).unwrap();
        for megabytes in 1..4_u64 {
            table.write_all(&vec![7; 1 << 20]).unwrap();
            work.round().unwrap();
            assert_eq!(work.held[0].synced, Some(megabytes << 20));
            work.round().unwrap();
        }
        for _ in 1..STILL {
            assert!(work.has_portions());
            work.round().unwrap();
        }
        assert!(!work.has_portions(), "it is whole");
        assert_eq!(std::fs::read(files.table("0")).unwrap(), vec![7; 3 << 20]);
    }

    #[test]
    fn what_is_deleted_is_freed_in_portions() {
        let files = Files::new();
        let mut work = files.work();
        for path in [files.table("0"), files.journal()] {
            std::fs::write(&path, vec![7; 2 * PORTION as usize + 5]).unwrap();
            work.round().unwrap();
            std::fs::remove_file(&path).unwrap();
            for left in [PORTION + 5, 5] {
                work.round().unwrap();
                assert_eq!(work.doomed[0].metadata().unwrap().len(), left, "{}", path.display());
            }
            work.round().unwrap();
            assert!(work.doomed.is_empty() && work.held.is_empty());
        }
    }

    #[test]
    fn what_has_a_name_is_not_shortened() {
        let files = Files::new();
        std::fs::write(files.table("0"), vec![7; 2 * PORTION as usize]).unwrap();
        let mut work = files.work();
        let elsewhere = files.dir.path().join("a copy");
        std::fs::hard_link(files.table("0"), &elsewhere).unwrap();
        std::fs::remove_file(files.table("0")).unwrap();
        work.round().unwrap();
        work.round().unwrap();
        assert!(work.held.is_empty() && work.doomed.is_empty());
        assert_eq!(std::fs::read(elsewhere).unwrap(), vec![7; 2 * PORTION as usize]);
    }

    #[test]
    fn few_files_are_held_open_and_the_newest_of_them() {
        let files = Files::new();
        let mut work = files.work();
        for n in 0..HELD + 3 {
            std::fs::write(files.table(&n.to_string()), b"x").unwrap();
        }
        std::fs::write(files.dir.path().join("manifest"), b"x").unwrap();
        work.round().unwrap();
        assert_eq!(work.held.len(), HELD);
        assert_eq!(work.held[0].path, files.table("3"));
    }

    #[test]
    fn it_ends_when_the_store_does() {
        let files = Files::new();
        let portions = Portions::start(files.dir.path()).unwrap();
        std::fs::write(files.table("0"), b"x").unwrap();
        drop(portions);
    }
}
