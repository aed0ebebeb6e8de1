//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The lock of a directory, held until it is dropped or its process ends. The operating system keeps it; a file that
/// was left behind locks nobody out.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// Who has the lock.
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
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                return Ok(Attempt::Held(holder.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Attempt::Locked(Self { _file: file }))
    }
}
