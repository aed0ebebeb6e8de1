//! The CQL store: durable conversations on ScyllaDB or Apache Cassandra, for many machines.
//!
//! An entity is a chain of partitions of one table (`entity`), and a commit is one conditional batch in the newest of
//! them: the head moves if it is the one that the commit expects, and with it come the commit's records, idempotency
//! keys and keyed rows. That is one round of consensus, however many rows there are. Everything else is idempotent
//! plain reads and writes: rows that must exist before a commit (alarms, large records) are written before it, rows
//! that follow from it (lists, redactions of the log) after it.
//!
//! Start with `commit` (the life of a commit), `settle` (unknown outcomes), `plan` (what is written where).
//! `docs/SCYLLADB.md` says what each table is for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actors::clock::{Clock, Millis};
use actors::id::{Address, EntityKey};
use actors::metrics::StoreMetrics;
use actors::store::{
    Cluster, Commit, Done, Due, DuePage, Head, Heartbeat, KeyHash, KeyRow, Loaded, LogRecord, LogScan, NodeId,
    ReadLevel, Row, Scan, Store, StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use scylla::value::MaybeUnset;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod answer;
mod batch;
mod chunks;
mod commit;
mod db;
mod due;
mod emptying;
mod heads;
mod inventory;
mod known_heads;
mod layout;
mod lists;
mod log;
mod migrate;
mod plan;
mod read;
mod redact;
mod roll;
mod session;
mod settle;
mod statements;

pub use db::Counts;
pub use migrate::{MIGRATIONS, MigrateError, Migration, migrate};
pub use session::{ConnectError, Contact, Quorum};

use db::Db;
use due::{DOUBT_DELAY, Doubts, Slots};
use known_heads::KnownHeads;
use lists::Parts;
use plan::BucketSize;
use statements::Statements;

/// After how many commits of an entity its state is stored: with each, so that an activation is one read. That is a few
/// hundred bytes, little compared with rounds of consensus.
const SNAPSHOT_EVERY: u64 = 1;
/// Rows after which a bucket is closed. With a key for each that is 2,000 records; a server warns above 100,000 rows.
const BUCKET_ROWS: i32 = 4_000;
/// Bytes after which a bucket is closed; a server slows down above 100 MiB per partition.
const BUCKET_BYTES: i64 = 16 * 1024 * 1024;
/// Commits in flight at once. More would only wait in the cluster instead of here, and time out there.
const MAX_IN_FLIGHT: usize = 512;
/// How long a commit waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The keyspace does not fit this program.
    #[error(transparent)]
    Schema(#[from] MigrateError),
}

/// How to open a [`CqlStore`].
pub struct Options {
    contact: Contact,
    clock: Arc<dyn Clock>,
    size: BucketSize,
    doubted_for: Duration,
    sends: Option<Arc<Semaphore>>,
}

impl Options {
    /// The defaults. `clock` decides when something is due.
    #[must_use]
    pub fn new(contact: Contact, clock: Arc<dyn Clock>) -> Self {
        let size = BucketSize { records: BUCKET_ROWS, bytes: BUCKET_BYTES };
        Self { contact, clock, size, doubted_for: DOUBT_DELAY, sends: None }
    }

    /// Closes buckets after this many rows.
    #[cfg(any(test, feature = "test-support"))]
    #[must_use]
    pub fn bucket_rows(mut self, rows: i32) -> Self {
        self.size.records = rows;
        self
    }

    /// Deletes a row of the due index that no commit needs, once it has been unneeded for this long.
    #[cfg(any(test, feature = "test-support"))]
    #[must_use]
    pub fn doubted_for(mut self, lasting: Duration) -> Self {
        self.doubted_for = lasting;
        self
    }

    /// Makes each commit, once it is prepared, use up one of these permits before it is sent.
    #[cfg(any(test, feature = "test-support"))]
    #[must_use]
    pub fn sending_by(mut self, permits: Arc<Semaphore>) -> Self {
        self.sends = Some(permits);
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("contact", &self.contact).finish_non_exhaustive()
    }
}

/// A [`Store`] in a keyspace. Clones are the same store.
#[derive(Clone)]
pub struct CqlStore(Arc<Inner>);

struct Inner {
    db: Db,
    keyspace: String,
    quorum: Quorum,
    clock: Arc<dyn Clock>,
    size: BucketSize,
    known_heads: KnownHeads,
    parts: Parts,
    slots: Slots,
    doubts: Doubts,
    /// A permit of the task that checks rows of the due index.
    checking: Arc<Semaphore>,
    in_flight: Semaphore,
    /// Permits to send a commit, if a test counts them.
    sends: Option<Arc<Semaphore>>,
    tasks: TaskTracker,
    /// Cancelled when the store is closed: later calls fail, and checks that another process would make end.
    closing: CancellationToken,
    metrics: StoreMetrics,
}

impl fmt::Debug for CqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlStore").field("db", &self.0.db).finish_non_exhaustive()
    }
}

impl CqlStore {
    /// Opens the store in a keyspace that is up to date; see [`migrate`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { contact, clock, size, doubted_for, sends } = options;
        let (session, profiles) = session::connect(&contact).await?;
        migrate::check(&session, &contact.keyspace).await?;
        let statements = Statements::prepare(&session, &contact.keyspace, &profiles, contact.quorum)
            .await
            .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        let db = Db { session, statements, counters: db::Counters::default(), profiles };
        Ok(Self(Arc::new(Inner {
            db,
            keyspace: contact.keyspace,
            quorum: contact.quorum,
            clock,
            size,
            known_heads: KnownHeads::default(),
            parts: Parts::default(),
            slots: Slots::default(),
            doubts: Doubts::lasting(doubted_for),
            checking: Arc::new(Semaphore::new(1)),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            sends,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            metrics: StoreMetrics::default(),
        })))
    }

    /// The requests to the cluster so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.db.counters.read()
    }

    fn db(&self) -> &Db {
        &self.0.db
    }

    fn known_heads(&self) -> &KnownHeads {
        &self.0.known_heads
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn slots(&self) -> &Slots {
        &self.0.slots
    }

    fn doubts(&self) -> &Doubts {
        &self.0.doubts
    }

    fn metrics_of(&self) -> &StoreMetrics {
        &self.0.metrics
    }

    fn bucket_size(&self) -> BucketSize {
        self.0.size
    }

    fn now(&self) -> Millis {
        self.0.clock.now()
    }

    /// Runs something in the background; only closing the store waits for it.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    async fn beaten(&self, me: Heartbeat) -> Result<Vec<Heartbeat>, StoreError> {
        let statements = &self.db().statements;
        // An unset value writes nothing, while a null would write a tombstone.
        let address = me.address.as_deref().map_or(MaybeUnset::Unset, MaybeUnset::Set);
        self.db().write(&statements.put_node, (&me.node.0[..], layout::signed(me.count), address)).await?;
        let rows: Vec<(Bytes, i64, Option<String>)> = self.db().select(&statements.nodes, ()).await?;
        let beat = |(id, count, address): (Bytes, i64, Option<String>)| {
            let node = NodeId(layout::sixteen(&id)?);
            let address = address.map(Arc::from);
            Ok(Heartbeat { node, count: layout::unsigned(count), address })
        };
        rows.into_iter().map(beat).collect()
    }

    fn open_still(&self) -> Result<(), StoreError> {
        if self.0.closing.is_cancelled() {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        Ok(())
    }

    /// Does `work` unless the store is closed.
    fn while_open<'a, T>(
        &'a self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            self.open_still()?;
            work.await
        })
    }
}

impl Store for CqlStore {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        self.while_open(self.loaded(entity, read_level))
    }

    fn head(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Head>, StoreError>> {
        self.while_open(self.current_head(entity, read_level))
    }

    fn commit(&self, commit: Commit, done: Done) {
        if let Err(error) = self.open_still() {
            return done(Err(error));
        }
        let store = self.clone();
        self.spawn(async move {
            store.0.metrics.queued_commits.add(1);
            let place = timeout(PERMIT_TIMEOUT, store.0.in_flight.acquire()).await;
            store.0.metrics.queued_commits.add(-1);
            done(match place {
                Ok(Ok(_place)) => store.committed(&commit).await,
                // The semaphore is never closed.
                _ => Err(StoreError::Unavailable("too many commits are waiting".into())),
            });
        });
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        self.while_open(self.key(entity, key))
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        self.while_open(self.log(entity, scan))
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.while_open(async move { self.keyed_row(entity, table, &key).await })
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.while_open(async move { self.keyed_rows(entity, table, &scan).await })
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.while_open(async move { self.list(workspace, view, &scan).await })
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        self.while_open(self.due_alarms(after, upto, limit))
    }

    fn snapshot_every(&self) -> u64 {
        SNAPSHOT_EVERY
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn heartbeat(&self, me: Heartbeat) -> BoxFuture<'_, Result<Vec<Heartbeat>, StoreError>> {
        self.while_open(self.beaten(me))
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.db().write(&self.db().statements.delete_node, (&node.0[..],)).await })
    }

    fn system(&self) -> &'static str {
        // OpenTelemetry has no separate name for ScyllaDB.
        "cassandra"
    }

    fn cluster(&self) -> Option<Cluster<'_>> {
        Some(Cluster { namespace: &self.0.keyspace, consistency: self.0.quorum.name() })
    }

    fn metrics(&self) -> Option<&StoreMetrics> {
        Some(&self.0.metrics)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.closing.cancel();
            self.0.tasks.close();
            self.0.tasks.wait().await;
        })
    }
}
