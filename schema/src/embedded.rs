//! The embedded store: durable conversations on one machine, in one directory.
//!
//! Files: `LOCK` (which process owns the directory), `HEAD` (the newest durable batch, see `head_file`) and `engine/`,
//! a log-structured merge tree kept by `fjall`. One thread writes (see `writer`), any thread reads. Loss that the
//! engine alone would not notice is detected: at open by the HEAD file and an inspection of the journals, at every read
//! by checksums and links between log rows, and over the whole store by [`verify`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use actors::clock::Millis;
use actors::id::{Address, EntityKey};
use actors::metrics::StoreMetrics;
use actors::store::{
    Cause, Commit, Done, Due, DuePage, KeyHash, KeyRow, Loaded, LogRecord, LogScan, ReadLevel, Row, Scan, Store,
    StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

mod chain;
mod engine;
mod filter;
mod head_file;
mod heads;
mod inventory;
mod journal;
mod layout;
mod lock;
mod log_row;
mod manifest;
mod open;
mod options;
#[cfg(target_os = "linux")]
mod portions;
mod queue;
mod read;
mod shared;
mod space;
mod verify;
mod writer;

pub use open::OpenError;
pub use options::{OnFatal, Options};
pub use verify::{Fault, Report, verify};

use engine::Engine;
use lock::DirectoryLock;
use queue::{Caller, Job, QUEUE_COMMITS, QueuePermit, QueuedCommit, Refused};
use read::ReadError;
use shared::Shared;
use space::Space;

/// After how many commits of an entity its state is stored. Replaying a record costs less than a microsecond, so this
/// trades little at activation for a thirtieth of the writes.
const SNAPSHOT_EVERY: u64 = 32;
/// Rows that a read visits before it moves off the caller's thread: some tens of microseconds.
const INLINE_ROWS: usize = 64;
/// A commit larger than this is refused: it would be a batch of its own, and a batch is held in memory.
pub const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// A [`Store`] in a directory. Clones are the same store; it ends with [`Store::close`] or with the last clone.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

/// The writer's counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Durable batches.
    pub batches: u64,
    /// Commits in them.
    pub commits: u64,
}

struct Inner {
    engine: Engine,
    shared: Arc<Shared>,
    /// `None` only while the store is being dropped.
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    dir: PathBuf,
    /// `None` if the system has no notifications of files.
    #[cfg(target_os = "linux")]
    _portions: Option<portions::Portions>,
    /// Last, so that the directory is unlocked only when everything else is dropped.
    _lock: DirectoryLock,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("dir", &self.dir).field("ended", &self.shared.ended.get()).finish_non_exhaustive()
    }
}

impl Inner {
    fn enqueue(&self, job: Job) -> Result<(), Refused> {
        let Some(jobs) = &self.jobs else { return Err(Refused { job, why: "the store is closed" }) };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) => Refused { job, why: "too many commits are waiting" },
            TrySendError::Disconnected(job) => Refused { job, why: "the store is closed" },
        })
    }

    /// Waits until all earlier jobs of the writer have been answered.
    async fn settle(&self) -> Result<(), StoreError> {
        let (reached, wait) = oneshot::channel();
        self.enqueue(Job::Barrier(reached)).map_err(|refused| StoreError::Unavailable(refused.why.into()))?;
        wait.await.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        self.shared.usable()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last clone may be dropped by a callback on the writer's own thread, which cannot join itself.
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the writer panicked");
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or creates it if there is none.
    ///
    /// This replays the engine's journals and reads nothing else, however much is stored.
    ///
    /// # Errors
    /// See [`OpenError`]. In doubt it refuses: no acknowledged data goes missing without an error.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let may = open::OpenMode { create: true, accept_loss: options.accept_loss };
        let opened = open::open(dir, may, options.cache_bytes, Arc::clone(&options.clock))?;
        let shared = Arc::new(Shared::new(
            options.clock,
            options.on_fatal,
            Space::new(dir, options.spare_bytes, opened.engine.disk_bytes().unwrap_or_default()),
        ));
        let head_file = Arc::new(opened.head_file);
        let failed = |error| OpenError::io(dir, error);
        // It ends when the writer, which wakes it, has ended.
        let wake_syncer = head_file::spawn_syncer(Arc::clone(&head_file), Arc::clone(&shared)).map_err(failed)?;
        let (jobs, received) = sync_channel(QUEUE_COMMITS);
        let writer = writer::Writer::new(
            opened.engine.clone(),
            opened.chain,
            head_file,
            wake_syncer,
            Arc::clone(&shared),
            options.before_write,
        );
        let writer = writer.spawn(received).map_err(failed)?;
        #[cfg(target_os = "linux")]
        let unsynced = Arc::clone(&shared);
        let inner = Inner {
            engine: opened.engine,
            shared,
            jobs: Some(jobs),
            writer: Some(writer),
            dir: dir.to_owned(),
            #[cfg(target_os = "linux")]
            _portions: portions::Portions::start(&dir.join(open::ENGINE), move |why| unsynced.fail(why))
                .inspect_err(|error| tracing::warn!(%error, "incremental fsync unavailable"))
                .ok(),
            _lock: opened.lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The writer's counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.inner.shared;
        Counts { batches: read(&shared.batches), commits: read(&shared.commits) }
    }

    /// Flushes the memory to tables, as the engine does over time.
    ///
    /// # Errors
    /// The engine's error.
    #[cfg(any(test, feature = "test-support"))]
    pub fn flush(&self) -> Result<(), String> {
        self.inner.engine.flush()
    }

    /// Flushes everything to tables and compacts them, as the engine does over time.
    ///
    /// # Errors
    /// The engine's error.
    #[cfg(any(test, feature = "test-support"))]
    pub fn compact(&self) -> Result<(), String> {
        self.inner.engine.flush()?;
        self.inner.engine.compact()
    }

    /// Reads on the caller's thread.
    async fn read<T>(&self, read: impl FnOnce(&Engine) -> Result<T, StoreError> + Send) -> Result<T, StoreError> {
        self.inner.shared.usable()?;
        read(&self.inner.engine)
    }

    /// Reads a few rows on the caller's thread; a read that visits more goes to a thread that may block.
    async fn scan<T, R>(&self, read: R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: Fn(&Engine, usize) -> Result<T, ReadError> + Send + 'static,
    {
        self.inner.shared.usable()?;
        match read(&self.inner.engine, INLINE_ROWS) {
            Ok(found) => return Ok(found),
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::OverBudget) => {}
        }
        let store = self.clone();
        let read_all = move || {
            read(&store.inner.engine, usize::MAX).map_err(|error| match error {
                ReadError::Store(error) => error,
                ReadError::OverBudget => StoreError::Unavailable("a read did not complete".into()),
            })
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return read_all() };
        runtime
            .spawn_blocking(read_all)
            .await
            .unwrap_or_else(|e| Err(StoreError::Unavailable(Cause::of("a read failed", e))))
    }
}

/// The bytes of a commit; an error if they or its keys exceed the bounds.
fn measure(commit: &Commit) -> Result<usize, StoreError> {
    let redactions: usize = commit.redactions.iter().map(|redaction| redaction.payload.len()).sum();
    let bytes = log_row::encoded_len(&commit.records) + redactions + commit.measure_rows()?;
    if bytes > COMMIT_BYTES { Err(StoreError::TooLarge { bytes, max: COMMIT_BYTES }) } else { Ok(bytes) }
}

impl Store for EmbeddedStore {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            if read_level == ReadLevel::Settled {
                self.inner.settle().await?;
            }
            self.scan(move |engine, budget| engine.load(entity, budget)).await
        })
    }

    fn commit(&self, commit: Commit, done: Done) {
        let shared = &self.inner.shared;
        let has_space = || shared.space.check(Instant::now());
        let bytes = match shared.usable().and_then(|()| has_space()).and_then(|()| measure(&commit)) {
            Ok(bytes) => bytes,
            Err(error) => return done(Err(error)),
        };
        let Some(permit) = QueuePermit::take(shared, bytes) else {
            return done(Err(StoreError::Unavailable("too many bytes are waiting".into())));
        };
        let queued = QueuedCommit { commit: Box::new(commit), permit, caller: Caller::new(done) };
        if let Err(refused) = self.inner.enqueue(Job::Commit(queued)) {
            refused.answer();
        }
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        Box::pin(self.read(move |engine| engine.find_key(entity, key)))
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        Box::pin(self.scan(move |engine, budget| engine.read_log(entity, scan, budget)))
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.read(move |engine| engine.row(entity, table, &key)))
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(self.scan(move |engine, budget| engine.rows(entity, table, &scan, budget)))
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(self.scan(move |engine, budget| engine.view(workspace, view, &scan, budget)))
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        let due = self.scan(move |engine, budget| engine.due(after, upto, limit, budget));
        Box::pin(async move { due.await.map(DuePage::complete) })
    }

    fn snapshot_every(&self) -> u64 {
        SNAPSHOT_EVERY
    }

    fn system(&self) -> &'static str {
        "fjall"
    }

    fn metrics(&self) -> Option<&StoreMetrics> {
        Some(&self.inner.shared.metrics)
    }

    /// Ends the writer and syncs. The directory is locked until the last clone is dropped.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (closed, wait) = oneshot::channel();
            let mut job = Job::Close(closed);
            // A full queue drains as fast as the disk syncs; commits that arrive meanwhile are refused.
            while let Err(refused) = self.inner.enqueue(job) {
                if self.inner.shared.ended.get().is_some() {
                    return;
                }
                job = refused.job;
                tokio::task::yield_now().await;
            }
            // An error means that the writer has already ended, which was the request.
            _ = wait.await;
            _ = self.inner.shared.ended.set("the store is closed".to_owned());
        })
    }
}
