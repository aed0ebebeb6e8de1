//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process that has just taken the lock may take to write its id.
const OWNER_ID_TIMEOUT: Duration = Duration::from_millis(500);

/// The lock of a directory, held until it is dropped or its process ends. The operating system keeps it; a leftover
/// file locks no process out.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
}

/// The holder of the lock.
#[derive(Debug)]
pub(super) enum Attempt {
    /// This process, from now on.
    Locked(DirectoryLock),
    /// Another opener; its process id, unless it has not written it yet.
    Held(Option<u32>),
}

impl DirectoryLock {
    /// Tries to take the lock at `path`.
    pub(super) fn attempt(path: &Path) -> io::Result<Attempt> {
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return holder(&mut file, OWNER_ID_TIMEOUT).map(Attempt::Held);
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Attempt::Locked(Self { file }))
    }
}

impl Drop for DirectoryLock {
    /// Closing the file is not enough: a child process that is being started has it too until it executes its program,
    /// and would keep the directory locked meanwhile.
    fn drop(&mut self) {
        _ = self.file.unlock();
    }
}

/// The process that has the lock; `None` if the file does not name it within this time.
fn holder(file: &mut File, within: Duration) -> io::Result<Option<u32>> {
    let until = Instant::now() + within;
    loop {
        let mut holder = String::new();
        file.rewind()?;
        file.read_to_string(&mut holder)?;
        // Without its line break it is incomplete; a process that has ended is the previous holder.
        let process = holder.strip_suffix('\n').and_then(|process| process.parse().ok());
        let process = process.filter(|process| is_alive(*process));
        if process.is_some() || Instant::now() >= until {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether such a process exists; assumed if the system does not say.
fn is_alive(process: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_although_a_starting_child_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let Attempt::Locked(lock) = DirectoryLock::attempt(&path).unwrap() else { panic!("nobody has it") };
        // The file that a child shares with its parent until it executes another program.
        let _inherited = lock.file.try_clone().unwrap();
        assert!(matches!(DirectoryLock::attempt(&path).unwrap(), Attempt::Held(_)));
        drop(lock);
        assert!(matches!(DirectoryLock::attempt(&path).unwrap(), Attempt::Locked(_)));
    }

    /// Also where that one was only about to say so.
    #[test]
    fn a_refused_process_learns_which_process_holds_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let mut writing = File::create(&path).unwrap();
        let mut reading = File::open(&path).unwrap();
        assert_eq!(holder(&mut reading, Duration::ZERO).unwrap(), None);
        writeln!(writing, "{}", u32::MAX).unwrap();
        assert_eq!(holder(&mut reading, Duration::ZERO).unwrap(), None, "that one has ended");
        writing.set_len(0).unwrap();
        writing.rewind().unwrap();
        let me = std::process::id();
        write!(writing, "{me}").unwrap();
        assert_eq!(holder(&mut reading, Duration::ZERO).unwrap(), None, "a part of a number is another number");
        let reading_holder = std::thread::spawn(move || holder(&mut reading, Duration::from_secs(60)));
        writeln!(writing).unwrap();
        assert_eq!(reading_holder.join().unwrap().unwrap(), Some(me));
    }
}
