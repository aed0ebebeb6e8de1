//! An inspection of the engine's journals before the engine opens them.
//!
//! On open the engine reads its journals and, where an entry cannot be read, cuts the file there and continues
//! silently; the number of a batch (its engine sequence) is not covered by its checksum either. Both are right for the
//! torn end of the newest journal and silent loss anywhere else. So this inspects first, without changing anything:
//! framing, rising engine sequences, and our own batch numbers, which must follow each other without a gap across
//! files. Checksums of contents are left to the engine, which refuses to open on a wrong one.
//!
//! The format is that of the exact engine version the workspace pins (`journal/entry.rs` there); every journal of
//! every test that reopens a store passes through here, so another format cannot go unnoticed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::chain::Chain;
use super::layout;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// A chain row's value is shorter; longer ones need not be read.
const MAX_CHAIN_ROW_BYTES: u32 = 128;
/// A last batch may claim any later engine sequence; one further ahead than this was never assigned.
const SEQNO_LEAP: u64 = 1 << 40;

/// The content of the journals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Journals {
    /// The newest batch in them; `None` if they hold none.
    pub(super) newest: Option<u64>,
}

/// Why the journals differ from what was written.
#[derive(Debug)]
pub(super) enum Fault {
    /// They could not be read.
    Io(io::Error),
    /// A part other than the end of the newest one is damaged.
    Damaged(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Inspects every journal in the engine's directory.
pub(super) fn inspect(dir: &Path) -> Result<Journals, Fault> {
    let files = journals(dir)?;
    let mut found = Inspection { newest: None, seqno: None };
    for (n, path) in files.iter().enumerate() {
        let sealed = n + 1 < files.len();
        let mut input = Input { reader: BufReader::with_capacity(1 << 20, File::open(path)?), at: 0 };
        let end = found.walk(&mut input, path)?;
        if sealed && (end == 0 || !zeros_only(&mut File::open(path)?, end)?) {
            return Err(damaged(path, end, "it cannot be read to its end, and it is not the newest journal"));
        }
    }
    Ok(Journals { newest: found.newest })
}

fn damaged(path: &Path, at: u64, what: &str) -> Fault {
    Fault::Damaged(format!("{} at byte {at}: {what}", path.display()))
}

/// The journals, oldest first.
fn journals(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            files.push((number.ok_or_else(|| io::Error::other(format!("{} has no number", path.display())))?, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Whether a file holds only the zeros of its preallocation from `from` on.
fn zeros_only(file: &mut File, from: u64) -> io::Result<bool> {
    io::Seek::seek(file, io::SeekFrom::Start(from))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

struct Inspection {
    newest: Option<u64>,
    seqno: Option<u64>,
}

impl Inspection {
    /// Reads batches until one cannot be read; returns where the last good one ended.
    fn walk(&mut self, input: &mut Input, path: &Path) -> Result<u64, Fault> {
        loop {
            let at = input.at;
            let Some(batch) = input.batch()? else { return Ok(at) };
            if let Some(before) = self.seqno
                && !(before + 1..before.saturating_add(SEQNO_LEAP)).contains(&batch.seqno)
            {
                return Err(damaged(path, at, "the engine's sequence does not follow the one before"));
            }
            self.seqno = Some(batch.seqno);
            let Some(number) = batch.number else {
                return Err(damaged(path, at, "a batch without a readable number"));
            };
            if self.newest.is_some_and(|before| before + 1 != number) {
                return Err(damaged(path, at, &format!("batch {number} does not follow the one before")));
            }
            self.newest = Some(number);
        }
    }
}

/// One batch of a journal.
struct Batch {
    seqno: u64,
    number: Option<u64>,
}

struct Input {
    reader: BufReader<File>,
    at: u64,
}

impl Input {
    /// The next `N` bytes; `None` at the end of the file.
    fn bytes<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok(self.fill(&mut bytes)?.then_some(bytes))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        self.at += bytes.len() as u64;
        match self.reader.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The next batch; `None` if there is none that is complete.
    fn batch(&mut self) -> io::Result<Option<Batch>> {
        let Some([START]) = self.bytes()? else { return Ok(None) };
        let (Some(items), Some(seqno)) = (self.bytes()?, self.bytes()?) else { return Ok(None) };
        let mut batch = Batch { seqno: u64::from_le_bytes(seqno), number: None };
        for _ in 0..u32::from_le_bytes(items) {
            let Some(number) = self.item()? else { return Ok(None) };
            batch.number = number.or(batch.number);
        }
        let (Some([END]), Some(_), Some(TRAILER)) = (self.bytes()?, self.bytes::<8>()?, self.bytes()?) else {
            return Ok(None);
        };
        Ok(Some(batch))
    }

    /// The next item; inner value: the number of the batch if it is the chain's row.
    fn item(&mut self) -> io::Result<Option<Option<u64>>> {
        // Tag, kind of value, compression (0: none, we use none), keyspace.
        let Some([ITEM, _, 0]) = self.bytes()? else { return Ok(None) };
        let Some(_) = self.bytes::<8>()? else { return Ok(None) };
        let (Some(key), Some(value), Some(stored)) = (self.bytes()?, self.bytes()?, self.bytes()?) else {
            return Ok(None);
        };
        let key = u16::from_le_bytes(key);
        let value = u32::from_le_bytes(value);
        let stored = u32::from_le_bytes(stored);
        if value != stored {
            return Ok(None);
        }
        if usize::from(key) != layout::META.len() || value >= MAX_CHAIN_ROW_BYTES {
            return self.skip(u64::from(key) + u64::from(value)).map(|is_complete| is_complete.then_some(None));
        }
        let mut key = layout::META;
        let mut value = vec![0; value as usize];
        if !(self.fill(&mut key)? && self.fill(&mut value)?) {
            return Ok(None);
        }
        Ok(Some(Chain::decode(&value).filter(|_| key == layout::META).map(|chain| chain.batch)))
    }

    /// Skips bytes; returns whether they were all there.
    fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        self.at += bytes;
        Ok(io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())? == bytes)
    }
}
