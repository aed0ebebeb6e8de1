//! The HEAD file: the newest durable batch, recorded apart from the engine.
//!
//! The engine recovers the readable part of its journal and cuts off the rest. That is right after a power cut, and
//! silent data loss after damage. This file distinguishes the two: it is written after a batch is durable and before it
//! is acknowledged, so an engine that reopens with fewer batches than the file records has lost acknowledged data. Two
//! slots are written in turn, so a torn write leaves the other one. Its sync is off the critical path (see `writer`):
//! it may be older than the engine after a power cut, never newer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::chain::Chain;
use super::layout::Fields;
use super::shared::Shared;

/// Size of the file: one page, so that a slot is never split over two.
const FILE_BYTES: u64 = 4096;
const SLOT_AT: [u64; 2] = [0, FILE_BYTES / 2];
const MAGIC: [u8; 8] = *b"TERTHEAD";
const SLOT_BYTES: usize = 8 + 8 + 32 + 4;
/// The file is synced at most this often. It bounds what a power cut together with damage could hide.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// The newest durable batch and the chain's hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) batch: u64,
    pub(super) hash: [u8; 32],
}

impl From<&Chain> for Mark {
    fn from(chain: &Chain) -> Self {
        Self { batch: chain.batch, hash: chain.hash }
    }
}

impl Mark {
    fn encode(self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..16].copy_from_slice(&self.batch.to_le_bytes());
        slot[16..48].copy_from_slice(&self.hash);
        let sum = crc32c::crc32c(&slot[..48]);
        slot[48..].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let (body, sum) = slot.split_last_chunk::<4>()?;
        let mut fields = Fields(body);
        let (true, MAGIC) = (crc32c::crc32c(body) == u32::from_le_bytes(*sum), fields.bytes()?) else { return None };
        Some(Self { batch: fields.u64()?, hash: fields.bytes()? })
    }
}

/// The open HEAD file.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
}

/// The content of a HEAD file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadFileContent {
    /// There is none.
    Missing,
    /// Neither slot can be read.
    Damaged,
    /// The newer readable slot.
    Mark(Mark),
}

impl HeadFile {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> io::Result<HeadFileContent> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HeadFileContent::Missing),
            other => other?,
        };
        let slot = |at: u64| Mark::decode(bytes.get(at as usize..at as usize + SLOT_BYTES)?);
        let newest = SLOT_AT.into_iter().filter_map(slot).max_by_key(|mark| mark.batch);
        Ok(newest.map_or(HeadFileContent::Damaged, HeadFileContent::Mark))
    }

    /// Writes `mark` into both slots of the file at `path`, durably, and keeps it open.
    pub(super) fn create(path: &Path, mark: Mark) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        file.set_len(FILE_BYTES)?;
        let head = Self { file };
        // One after the other, so that a power cut between them leaves a readable slot.
        for at in SLOT_AT {
            head.file.write_all_at(&mark.encode(), at)?;
            head.file.sync_all()?;
        }
        Ok(head)
    }

    /// Records `mark` in the slot whose turn it is. Not durable until [`HeadFile::sync`], but safe from the end of
    /// the process.
    pub(super) fn write(&self, mark: Mark) -> io::Result<()> {
        self.file.write_all_at(&mark.encode(), SLOT_AT[(mark.batch % 2) as usize])
    }

    /// Makes the written marks durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Syncs the file, on a thread of its own, whenever it is woken through the returned sender; the thread ends with it.
pub(super) fn spawn_syncer(head_file: Arc<HeadFile>, shared: Arc<Shared>) -> io::Result<SyncSender<()>> {
    let (wake, woken) = sync_channel(1);
    std::thread::Builder::new().name("store-head".to_owned()).spawn(move || {
        while woken.recv().is_ok() {
            if let Err(error) = head_file.sync() {
                shared.fail(&format!("the HEAD file could not be synced: {error}"));
            }
            std::thread::sleep(SYNC_INTERVAL);
        }
    })?;
    Ok(wake)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(batch: u64) -> Mark {
        Mark { batch, hash: [batch as u8; 32] }
    }

    #[test]
    fn the_newer_slot_counts_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("HEAD");
        assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Missing);
        let head = HeadFile::create(&path, mark(3)).unwrap();
        assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Mark(mark(3)));
        for batch in 4..=7 {
            head.write(mark(batch)).unwrap();
            assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Mark(mark(batch)));
        }
        head.file.write_all_at(b"x", SLOT_AT[1] + 20).unwrap();
        assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Mark(mark(6)), "the other slot");
        head.file.write_all_at(b"x", SLOT_AT[0]).unwrap();
        assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Damaged);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(HeadFile::read(&path).unwrap(), HeadFileContent::Damaged);
    }
}
