//! L1: how long the device takes to make 4 KiB durable.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::Limit;
use crate::measured::{Latencies, note};
use crate::server::data_dir;
use crate::{Error, proc_stat};

const BLOCK: [u8; 4096] = [7; 4096];
/// Blocks of the file, which is written before, so that a sync has no metadata to write.
const BLOCKS: u64 = 16 * 1024;

/// One thread syncs one block after the other.
pub(super) fn sync(time: Duration) -> Result<Limit, Error> {
    let path = data_dir()?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let limit = write(&file, time);
    fs::remove_file(&path)?;
    limit
}

fn write(file: &File, time: Duration) -> Result<Limit, Error> {
    for nth in 0..BLOCKS {
        file.write_all_at(&BLOCK, nth * BLOCK.len() as u64)?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let before = proc_stat::process(std::process::id())?;
    let mut latencies = Latencies::new(3)?;
    let mut nth = 0;
    while began.elapsed() < time {
        let since = Instant::now();
        file.write_all_at(&BLOCK, nth % BLOCKS * BLOCK.len() as u64)?;
        file.sync_data()?;
        note(&mut latencies, since.elapsed());
        nth += 1;
    }
    let cpu = proc_stat::process(std::process::id())? - before;
    Ok(Limit { name: "L1 fdatasync", clients: 1, elapsed: began.elapsed(), latencies, cpu })
}
