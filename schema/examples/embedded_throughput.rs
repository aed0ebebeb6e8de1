//! How many commits a second the embedded store makes durable, and what one costs, beside the disk's own limit.
//!
//! `cargo run --release -p schema --example embedded_throughput [seconds per measurement]`
//!
//! A driver thread keeps a number of commits in flight over 10,000 entities; each is one event of 300 bytes and one
//! idempotency key. The limit is a loop that writes the same bytes in batches of the same size and syncs each.
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use actors::clock::{Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::store::{Commit, CommitId, Head, KeyHash, KeyRow, NewRecord, Outcome, Store};
use bytes::Bytes;
use schema::embedded::{EmbeddedStore, Options};

const ENTITIES: usize = 10_000;
const PAYLOAD: usize = 300;
/// A commit's rows in the journal: log row and key row with their headers.
const COMMIT_ON_DISK: usize = 540;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(5);
    let dir = std::env::current_dir()?.join("target/embedded_throughput");
    _ = std::fs::remove_dir_all(&dir);
    let store =
        EmbeddedStore::open(&dir.join("store"), Options::new(Arc::new(SystemClock), Box::new(|why| panic!("{why}"))))?;
    let mut heads = vec![None; ENTITIES];
    for in_flight in [1, 64, 256] {
        let batch = measure(&store, &mut heads, in_flight, Duration::from_secs(seconds));
        limit(&dir, batch, Duration::from_secs(seconds))?;
    }
    drop(store);
    let begun = Instant::now();
    drop(EmbeddedStore::open(
        &dir.join("store"),
        Options::new(Arc::new(SystemClock), Box::new(|why| panic!("{why}"))),
    )?);
    println!("opened and closed again in {:?}", begun.elapsed());
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Runs for a while; the mean batch.
fn measure(store: &EmbeddedStore, heads: &mut [Option<Head>], in_flight: usize, lasting: Duration) -> usize {
    let (answer, answers) = mpsc::channel();
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let (before, cpu, begun) = (store.counts(), cpu_seconds(), Instant::now());
    let mut latencies = Vec::new();
    let (mut next, mut running) = (0, 0);
    loop {
        while running < in_flight && begun.elapsed() < lasting {
            let (slot, answer, sent) = (next % ENTITIES, answer.clone(), Instant::now());
            next += 1;
            running += 1;
            let commit = commit(slot, heads[slot], next as u64, payload.clone());
            store.commit(commit, Box::new(move |outcome| _ = answer.send((slot, outcome, sent))));
        }
        if running == 0 {
            break;
        }
        let Ok((slot, outcome, sent)) = answers.recv() else { break };
        let Ok(Outcome::Committed(head)) = outcome else { panic!("{outcome:?}") };
        heads[slot] = Some(head);
        latencies.push(sent.elapsed().as_micros());
        running -= 1;
    }
    let (took, cpu, counts) = (begun.elapsed(), cpu_seconds() - cpu, store.counts());
    let (commits, batches) = (counts.commits - before.commits, counts.batches - before.batches);
    let batch = commits / batches.max(1);
    latencies.sort_unstable();
    let quantile = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1_000];
    println!(
        "{in_flight:>4} in flight: {:>7.0} commits/s, {:>5.1} µs CPU a commit, {batch} a batch, {:.0} µs a sync, \
         p50 {} p99 {} p99.9 {} max {} µs",
        commits as f64 / took.as_secs_f64(),
        cpu * 1e6 / commits as f64,
        (counts.syncing - before.syncing).as_micros() as f64 / batches as f64,
        quantile(500),
        quantile(990),
        quantile(999),
        quantile(1_000),
    );
    batch.max(1) as usize
}

fn commit(slot: usize, expected: Option<Head>, number: u64, payload: Bytes) -> Commit {
    let entity = EntityKey::conversation(Address([7; 10]), Address::derive("bench", &[&slot.to_le_bytes()]));
    let mut name = [0; 16];
    name[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let seq = expected.map_or(0, |head| head.seq) + 1;
    Commit {
        records: vec![NewRecord { event: true, payload }],
        keys: vec![(KeyHash(name), KeyRow { fingerprint: name, first: seq, last: seq, at: Millis(number) })],
        ..Commit::on(entity, expected, CommitId(name), Millis(number))
    }
}

/// What the disk can do: the same bytes, appended and synced, nothing else.
fn limit(dir: &Path, batch: usize, lasting: Duration) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(dir.join("limit"))?;
    file.set_len(64 << 20)?;
    file.sync_all()?;
    let bytes = vec![b'x'; batch * COMMIT_ON_DISK];
    let (begun, cpu, mut commits) = (Instant::now(), cpu_seconds(), 0);
    while begun.elapsed() < lasting {
        file.write_all(&bytes)?;
        file.sync_data()?;
        commits += batch;
    }
    println!(
        "     the disk alone: {:>7.0} commits/s, {:>5.1} µs CPU a commit",
        commits as f64 / begun.elapsed().as_secs_f64(),
        (cpu_seconds() - cpu) * 1e6 / commits as f64
    );
    Ok(())
}

/// User and system time of this process, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The state is a letter and drops out: utime and stime are fields 14 and 15 of the line.
    fields.get(10..12).map_or(0.0, |ticks| ticks.iter().sum::<f64>() / 100.0)
}
