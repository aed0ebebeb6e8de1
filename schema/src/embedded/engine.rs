//! The keyspaces and the configuration of the engine under them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use actors::clock::Clock;
use actors::id::EntityKey;
use actors::store::StoreError;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};

use super::chain::Chain;
use super::filter::ExpiredKeyFilters;
use super::layout::{self, corrupt, unreadable};
use super::log_row::{KnownHead, LogRow};

const MIB: u64 = 1024 * 1024;
/// Sealed journals kept before the engine flushes the keyspaces that pin them (the engine's minimum). An open replays
/// about this much and the newest journal.
const JOURNAL_BYTES: u64 = 64 * MIB;
/// One thread to flush, two to compact. If a single compacting thread is busy, the flushing thread takes the next
/// compaction from the engine's queue and puts it back in a busy loop until the running one ends.
const WORKER_THREADS: usize = 3;
/// The lower priority of the engine's threads: a tenth of the weight of others. See
/// `docs/decisions/0044-compactions-at-lower-priority.md`.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// The most tables that are kept open, and the least that the engine takes.
const MAX_OPEN_TABLES: usize = 900;
const MIN_OPEN_TABLES: usize = 10;
/// Room in memory before a keyspace is flushed. The log gets most: most bytes go there.
const LOG_MEMTABLE: u64 = 32 * MIB;
const KEYS_MEMTABLE: u64 = 16 * MIB;
const OTHER_MEMTABLE: u64 = 8 * MIB;

/// The open engine.
#[derive(Clone)]
pub(super) struct Engine {
    db: Database,
    pub(super) log: Keyspace,
    pub(super) rows: Keyspace,
    pub(super) keys: Keyspace,
    pub(super) index: Keyspace,
}

impl Engine {
    /// Opens or creates the engine's files in `dir`, on a thread of its own.
    pub(super) fn open(dir: &Path, cache_bytes: u64, clock: Arc<dyn Clock>) -> Result<Self, String> {
        // The engine starts its threads while it opens, and a thread inherits the priority of the one that starts it.
        let opening = || {
            give_way();
            Self::open_unguarded(dir, cache_bytes, clock)
        };
        // Damage that the engine does not foresee panics there; here it is an error like the others.
        std::thread::scope(|scope| {
            match std::thread::Builder::new().name("store-open".to_owned()).spawn_scoped(scope, opening) {
                Ok(opened) => {
                    opened.join().unwrap_or_else(|_| Err("the engine panicked on the data that it read".to_owned()))
                }
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn open_unguarded(dir: &Path, cache_bytes: u64, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let forgetting = Arc::new(ExpiredKeyFilters::new(clock));
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            .worker_threads(WORKER_THREADS)
            .max_cached_files(Some(tables_open()))
            .max_journaling_size(JOURNAL_BYTES)
            .with_compaction_filter_factories(Arc::new(move |name| match name {
                "keys" => Some(forgetting.clone()),
                _ => None,
            }))
            .open()
            .map_err(|error| error.to_string())?;
        let keyspace = |name: &str, options: fn() -> KeyspaceCreateOptions| {
            db.keyspace(name, options).map_err(|error| error.to_string())
        };
        Ok(Self {
            // The log is read only by ranges, which filters cannot help.
            log: keyspace("log", || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(LOG_MEMTABLE)
                    .data_block_size_policy(BlockSizePolicy::all(8 * 1024))
                    .filter_policy(FilterPolicy::disabled())
            })?,
            rows: keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(OTHER_MEMTABLE))?,
            // Most requested keys are new: filters on every level answer without a read.
            keys: keyspace("keys", || {
                KeyspaceCreateOptions::default().max_memtable_size(KEYS_MEMTABLE).expect_point_read_hits(false)
            })?,
            index: keyspace("index", || KeyspaceCreateOptions::default().max_memtable_size(OTHER_MEMTABLE))?,
            db,
        })
    }

    /// An empty batch with room for `items` writes.
    pub(super) fn batch(&self, items: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.db.clone(), items)
    }

    /// The bytes of the engine's files, if they can be counted.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        self.db.disk_space().ok()
    }

    /// A view of all keyspaces at one moment.
    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.db.snapshot()
    }

    /// The chain as stored; `None` before the first batch.
    pub(super) fn chain(&self) -> Result<Option<Chain>, String> {
        let row = self.index.get(layout::META).map_err(|error| error.to_string())?;
        row.map(|row| Chain::decode(&row).ok_or_else(|| "the chain's row is damaged".to_owned())).transpose()
    }

    /// The head of an entity.
    pub(super) fn known_head(&self, entity: EntityKey) -> Result<Option<KnownHead>, StoreError> {
        guarded(entity, || {
            let Some(newest) = self.log.prefix(layout::entity_key(entity)).next_back() else { return Ok(None) };
            let (key, value) = newest.into_inner().map_err(|error| unreadable(entity, error))?;
            let row = LogRow::decode(&key, &value).ok_or_else(|| corrupt(entity, "its newest log row is damaged"))?;
            Ok(Some(row.known_head()))
        })
    }

    /// Flushes every keyspace's memory to its tables, as the engine does over time.
    pub(super) fn flush(&self) -> Result<(), String> {
        [&self.log, &self.rows, &self.keys, &self.index]
            .into_iter()
            .try_for_each(|keyspace| keyspace.rotate_memtable_and_wait().map_err(|error| error.to_string()))
    }

    /// Compacts every keyspace.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn compact(&self) -> Result<(), String> {
        [&self.log, &self.rows, &self.keys, &self.index]
            .into_iter()
            .try_for_each(|keyspace| keyspace.major_compact().map_err(|error| error.to_string()))
    }
}

/// Runs a read of an entity's data; a panic of the engine on unforeseen damage becomes an error.
pub(super) fn guarded<T, E>(entity: EntityKey, read: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    E: From<StoreError>,
{
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(corrupt(entity, "the engine panicked on the data that it read").into()))
}

/// How many tables are kept open for reads. At most a quarter of the descriptors that the process may have, so that
/// there is one for a new table and a new journal; without it the engine would fail for good.
fn tables_open() -> usize {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit = None;
    limit.map_or(MAX_OPEN_TABLES, |limit: u64| {
        usize::try_from(limit / 4).unwrap_or(MAX_OPEN_TABLES).clamp(MIN_OPEN_TABLES, MAX_OPEN_TABLES)
    })
}

/// Lowers the priority of this thread and of the threads that it starts below that of the threads that serve requests.
#[cfg(target_os = "linux")]
fn give_way() {
    // If it is refused the engine still works, but competes with others.
    _ = rustix::process::nice(NICE);
}

/// Elsewhere a priority belongs to the whole process, not to a thread.
#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::{Duration, Instant};

    use actors::clock::SystemClock;

    use super::*;

    /// The priorities of this process's threads that the engine has started.
    fn workers() -> Vec<i32> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.join("stat")).ok());
        stats
            .filter_map(|stat| {
                // The name, in parentheses, may hold blanks; the priority is the seventeenth field after it.
                let (name, fields) = stat.rsplit_once(") ")?;
                let nice = fields.split(' ').nth(16)?.parse().ok()?;
                name.ends_with("(fjall:worker").then_some(nice)
            })
            .collect()
    }

    #[test]
    fn background_threads_of_the_engine_have_a_lower_priority() {
        let dir = tempfile::tempdir().unwrap();
        let before = rustix::process::getpriority_process(None).unwrap();
        let engine = Engine::open(dir.path(), MIB, Arc::new(SystemClock)).unwrap();
        // A thread takes its name only when it runs for the first time.
        let begun = Instant::now();
        while workers().len() < WORKER_THREADS {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", workers());
            std::thread::yield_now();
        }
        let priorities = workers();
        assert!(priorities.iter().all(|nice| *nice == (before + NICE).min(19)), "{priorities:?}");
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
        drop(engine);
    }
}
