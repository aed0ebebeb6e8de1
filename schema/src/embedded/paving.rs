//! Blocks for the engine's journal before it is written: `docs/decisions/0046-the-journal-is-paved.md`.
//!
//! The engine gives a new journal its length and no blocks, so it is a hole. A write into a hole takes blocks, and to
//! sync it the file system must commit its own journal, which waits for everything else that was given blocks
//! meanwhile, as for a table of tens of megabytes that is being flushed. A write over blocks that are there waits for
//! its own bytes.
//!
//! So the hole is filled a little ahead, with what it reads as: zeros. That changes no byte of a file and no length,
//! whatever the engine makes of it, as long as nobody else writes there at the same time. Nobody does: it happens on
//! the only thread that has the engine write batches, between two of them, and the engine leaves nothing for later,
//! because each batch is synced. Where anything about this fails, a batch takes longer and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// How much is filled in one go: a fraction of a millisecond's work, which the next batch's sync takes to the disk.
const PIECE: u64 = 512 * 1024;
static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];
/// How much is ready ahead of what is written, at least: most batches are far smaller.
const AHEAD: u64 = 256 * 1024;

/// Fills holes ahead of the writer; see the module's text.
#[derive(Debug)]
pub(super) struct Paving {
    dir: PathBuf,
    /// `None` where there is none, or where it cannot be paved.
    journal: Option<Journal>,
    /// Where the journal after this one will be.
    next: (u64, PathBuf),
}

/// The newest journal.
#[derive(Debug)]
struct Journal {
    file: File,
    len: u64,
    /// Up to here it is written, as far as is known.
    written: u64,
    /// Up to here it has blocks.
    paved: u64,
}

impl Paving {
    /// For the journals in the engine's directory, the newest of which has this number.
    pub(super) fn new(dir: &Path, number: u64) -> Self {
        let journal = Journal::open(&path(dir, number));
        Self { dir: dir.to_owned(), journal, next: (number + 1, path(dir, number + 1)) }
    }

    /// So many bytes were written and synced; nobody writes until this returns.
    pub(super) fn advance(&mut self, bytes: u64) {
        while self.next.1.exists() {
            let number = self.next.0;
            *self = Self::new(&self.dir, number);
        }
        let Some(journal) = &mut self.journal else { return };
        if let Err(error) = journal.advance(bytes) {
            tracing::debug!(%error, "a journal cannot be paved");
            self.journal = None;
        }
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.jnl"))
}

impl Journal {
    fn open(path: &Path) -> Option<Self> {
        let file = OpenOptions::new().write(true).open(path).ok()?;
        let len = file.metadata().ok()?.len();
        Some(Self { file, len, written: 0, paved: 0 })
    }

    fn advance(&mut self, bytes: u64) -> io::Result<()> {
        self.written += bytes;
        if self.paved >= self.len || self.paved >= self.written + AHEAD {
            return Ok(());
        }
        let Some(hole) = self.find(SeekFrom::Hole(self.paved))?.filter(|hole| *hole < self.len) else {
            self.paved = self.len;
            return Ok(());
        };
        let end = self.find(SeekFrom::Data(hole))?.unwrap_or(self.len).min(hole + PIECE);
        self.file.write_all_at(&ZEROS[..(end - hole) as usize], hole)?;
        self.paved = end;
        Ok(())
    }

    /// `None` where there is nothing of that kind any more.
    fn find(&self, what: SeekFrom) -> io::Result<Option<u64>> {
        match seek(&self.file, what) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 8 * 1024 * 1024;

    /// A journal as the engine makes one, and what it is to hold.
    struct Written {
        file: File,
        path: PathBuf,
        bytes: Vec<u8>,
    }

    impl Written {
        fn new(dir: &Path, number: u64) -> Self {
            let path = path(dir, number);
            let file = File::create_new(&path).unwrap();
            file.set_len(LEN).unwrap();
            Self { file, path, bytes: Vec::new() }
        }

        fn write(&mut self, batch: &[u8]) -> u64 {
            self.file.write_all_at(batch, self.bytes.len() as u64).unwrap();
            self.bytes.extend_from_slice(batch);
            batch.len() as u64
        }

        /// The first byte without a block.
        fn hole(&self) -> u64 {
            seek(&self.file, SeekFrom::Hole(0)).unwrap()
        }

        fn assert_unchanged(&self) {
            let content = std::fs::read(&self.path).unwrap();
            let (written, rest) = content.split_at(self.bytes.len());
            assert!(written == self.bytes, "what was written stands");
            assert!(rest.iter().all(|byte| *byte == 0), "what was not reads as zeros");
            assert_eq!(content.len() as u64, LEN.max(self.bytes.len() as u64), "no journal becomes longer");
        }
    }

    #[test]
    fn what_is_written_next_has_blocks_and_what_was_written_stands() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Written::new(dir.path(), 3);
        let mut paving = Paving::new(dir.path(), 3);
        for (n, size) in [1, 90, 4_096, 70_000, 3, 300_000, 1_500_000, 12_288, 900, 1_200_000].into_iter().enumerate() {
            let batch = vec![n as u8 + 1; size];
            paving.advance(journal.write(&batch));
            assert!(journal.hole() >= journal.bytes.len() as u64 + AHEAD, "after {size} bytes");
            journal.assert_unchanged();
        }
    }

    #[test]
    fn a_journal_is_never_made_longer() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Written::new(dir.path(), 0);
        let mut paving = Paving::new(dir.path(), 0);
        for n in 0..40_u8 {
            paving.advance(journal.write(&vec![n | 1; 300_000]));
            journal.assert_unchanged();
        }
        assert!(journal.bytes.len() as u64 > LEN, "it was written beyond its first length");
    }

    #[test]
    fn it_goes_on_in_the_journal_that_follows() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Written::new(dir.path(), 7);
        let mut paving = Paving::new(dir.path(), 7);
        paving.advance(first.write(b"first"));
        let (mut second, mut third) = (Written::new(dir.path(), 8), Written::new(dir.path(), 9));
        let before = first.hole();
        paving.advance(second.write(b"second") + third.write(b"third"));
        assert!(third.hole() >= AHEAD);
        paving.advance(third.write(&vec![1; 600_000]));
        assert!(third.hole() >= 600_000 + AHEAD);
        assert_eq!(first.hole(), before, "those that are full are let alone");
        first.assert_unchanged();
        third.assert_unchanged();
        second.assert_unchanged();
    }

    #[test]
    fn a_journal_that_cannot_be_paved_costs_nobody_anything() {
        let dir = tempfile::tempdir().unwrap();
        // As after a restart: it ends where it was written to, without a hole.
        std::fs::write(path(dir.path(), 0), b"some batches").unwrap();
        let mut paving = Paving::new(dir.path(), 0);
        paving.advance(5);
        assert_eq!(std::fs::read(path(dir.path(), 0)).unwrap(), b"some batches");
        let mut nothing = Paving::new(&dir.path().join("nowhere"), 0);
        nothing.advance(5);
    }
}
