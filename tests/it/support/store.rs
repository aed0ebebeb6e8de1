//! The store under a test's server: `TERTULIA_TEST_STORE` selects it, `memory` (the default), `embedded` or `cql`.
//!
//! The durable stores run on a runtime of their own, which outlives each test's, because many tests share their
//! connections and threads. While such a store works, the paused clock of a test does not advance, so that a disk or a
//! network takes no time, as memory does.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex};

use actors::clock::{Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::metrics::StoreMetrics;
use actors::store::inventory::Inventory;
use actors::store::memory::MemoryStore;
use actors::store::{
    Cause, Commit, Done, Due, DuePage, Heartbeat, KeyHash, KeyRange, KeyRow, Loaded, LogRecord, LogScan, NodeId, Order,
    ReadLevel, Row, Scan, Store, StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use schema::embedded::{EmbeddedStore, Options};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OnceCell, Semaphore, oneshot};

use super::config;

/// The runtime of the durable stores.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// The kinds of [`TestStore::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Embedded,
    Cql,
}

impl Kind {
    /// The kind of this run.
    pub(crate) fn chosen() -> Self {
        match std::env::var("TERTULIA_TEST_STORE").as_deref() {
            Ok("memory") | Err(_) => Self::Memory,
            Ok("embedded") => Self::Embedded,
            Ok("cql") => Self::Cql,
            Ok(other) => panic!("TERTULIA_TEST_STORE is {other}; it may be memory, embedded or cql"),
        }
    }
}

/// A store for one test. Clones share their content; the store ends with the last clone.
#[derive(Clone)]
pub(crate) struct TestStore {
    inner: Arc<dyn Store>,
    /// `None`: no other test uses the store.
    apart: Option<Apart>,
    /// Whether the store waits for a disk or a network.
    waits: bool,
    /// The list whose rows are held back after a read, until there are permits.
    held: Option<(Table, Arc<Semaphore>)>,
    /// The directory that the store needs.
    _ground: Option<Arc<TempDir>>,
}

/// One test's part of a store that many tests use at once: each workspace, and the installation, is moved elsewhere.
#[derive(Clone)]
struct Apart {
    salt: [u8; 10],
    /// The entities of this test: the due index contains the alarms of all tests.
    known: Arc<Mutex<HashSet<EntityKey>>>,
    /// The heartbeats of this test's servers; `None`: each server sees only itself.
    beats: Option<Arc<Mutex<BTreeMap<NodeId, Heartbeat>>>>,
}

impl Apart {
    fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut salt = [0; 10];
        salt[..8].copy_from_slice(&random());
        salt[8..].copy_from_slice(&random()[..2]);
        Self { salt, known: Arc::default(), beats: None }
    }

    /// Maps a workspace there and back: the function is its own inverse.
    fn workspace(&self, workspace: Address) -> Address {
        let mut bytes = workspace.0;
        bytes.iter_mut().zip(self.salt).for_each(|(byte, salt)| *byte ^= salt);
        Address(bytes)
    }

    fn entity(&self, entity: EntityKey) -> EntityKey {
        EntityKey { workspace: self.workspace(entity.workspace), ..entity }
    }
}

impl TestStore {
    /// An empty store of this run's kind.
    pub(crate) async fn new() -> Self {
        Self::of(Kind::chosen()).await
    }

    /// An empty store for several servers that know of each other. The embedded store cannot be shared.
    pub(crate) async fn shared() -> Self {
        match Kind::chosen() {
            Kind::Memory | Kind::Embedded => Self::from(MemoryStore::default().shared()),
            Kind::Cql => {
                let mut store = Self::cql().await;
                let apart = store.apart.take();
                Self { apart: apart.map(|apart| Apart { beats: Some(Arc::default()), ..apart }), ..store }
            }
        }
    }

    /// Whether its servers know of each other.
    pub(crate) fn tells_of_others(&self) -> bool {
        self.inner.is_shared() && self.apart.as_ref().is_none_or(|apart| apart.beats.is_some())
    }

    /// An empty store of this kind.
    pub(crate) async fn of(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self::from(MemoryStore::default()),
            Kind::Embedded => Self::embedded(),
            Kind::Cql => Self::cql().await,
        }
    }

    fn embedded() -> Self {
        Self::embedded_inventory().0
    }

    /// An empty embedded store, and a view of everything in it.
    pub(crate) fn embedded_inventory() -> (Self, Arc<dyn Inventory>) {
        let dir = tempfile::tempdir().unwrap();
        let fatal = |reason| panic!("the embedded store failed: {reason}");
        let options = Options::new(Arc::new(SystemClock), Box::new(fatal)).cache_bytes(4 << 20);
        let store = EmbeddedStore::open(dir.path(), options).unwrap();
        let inventory: Arc<dyn Inventory> = Arc::new(store);
        let ground = Some(Arc::new(dir));
        (Self { _ground: ground, ..Self::over(Arc::<dyn Inventory>::clone(&inventory)) }, inventory)
    }

    /// An existing store.
    pub(crate) fn over(inner: Arc<dyn Inventory>) -> Self {
        Self { inner, apart: None, waits: true, held: None, _ground: None }
    }

    /// One test's part of a keyspace that all tests share: creating one takes seconds.
    async fn cql() -> Self {
        static SHARED: OnceCell<Arc<dyn Inventory>> = OnceCell::const_new();
        let inner = Arc::clone(SHARED.get_or_init(|| keyspace("front_door".to_owned())).await);
        Self { apart: Some(Apart::new()), ..Self::over(inner) }
    }

    /// An empty keyspace for one test, and a view of everything in it.
    pub(crate) async fn cql_inventory() -> (Self, Arc<dyn Inventory>) {
        let inventory = keyspace(format!("moved_{:016x}", RandomState::new().build_hasher().finish())).await;
        (Self::over(Arc::<dyn Inventory>::clone(&inventory)), inventory)
    }

    /// The same, where each read of this list's rows uses up a permit after reading them.
    pub(crate) fn holding(self, table: Table, permits: Arc<Semaphore>) -> Self {
        Self { held: Some((table, permits)), ..self }
    }

    /// Runs work with a store on the stores' runtime.
    pub(crate) async fn within<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
        RUNTIME.spawn(work).await.unwrap()
    }

    /// The stored configuration, as text that can be searched.
    pub(crate) async fn configuration(&self) -> String {
        let mut text = String::new();
        for entity in [EntityKey::INSTALLATION, EntityKey::workspace(actors::workspace::address_of("default"))] {
            text += &format!("{:?}\n", self.load(entity, ReadLevel::Acknowledged).await.unwrap());
            for table in 0..=u8::MAX {
                let rows =
                    self.rows(entity, Table(table), Scan::new(KeyRange::default(), Order::Asc, 1_000)).await.unwrap();
                rows.iter().for_each(|row| text += &format!("{row:?}\n"));
            }
        }
        text
    }

    fn entity(&self, entity: EntityKey) -> EntityKey {
        self.apart.as_ref().map_or(entity, |apart| apart.entity(entity))
    }

    /// Runs `work` on the store while the caller's paused clock stands still.
    fn with<'a, T, F>(
        &'a self,
        work: impl FnOnce(Arc<dyn Store>) -> F + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.inner));
        if !self.waits {
            return Box::pin(work);
        }
        Box::pin(async move {
            // Tokio advances no paused clock while a blocking task runs.
            let done = tokio::task::spawn_blocking(move || RUNTIME.block_on(work)).await;
            done.unwrap_or_else(|error| {
                Err(StoreError::Unavailable(Cause::of("a call of the store broke down", error)))
            })
        })
    }
}

/// The store in a keyspace, which is created if needed.
async fn keyspace(name: String) -> Arc<dyn Inventory> {
    let server = bed::server().expect("a CQL server was asked for");
    let config = config(&[
        ("TERTULIA_STORE", "cql"),
        ("TERTULIA_CQL_NODES", &server.nodes().join(",")),
        ("TERTULIA_CQL_KEYSPACE", &name),
        ("TERTULIA_MIGRATE", "true"),
    ]);
    let fatal = |reason| panic!("the CQL store failed: {reason}");
    TestStore::within(async move { tertulia::stores::open(&config, Box::new(fatal)).await }).await.unwrap()
}

impl From<MemoryStore> for TestStore {
    fn from(store: MemoryStore) -> Self {
        Self { inner: Arc::new(store), apart: None, waits: false, held: None, _ground: None }
    }
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStore").finish_non_exhaustive()
    }
}

impl Store for TestStore {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        let entity = self.entity(entity);
        self.with(move |store| async move { store.load(entity, read_level).await })
    }

    fn commit(&self, mut commit: Commit, done: Done) {
        if let Some(apart) = &self.apart {
            commit.entity = apart.entity(commit.entity);
            apart.known.lock().unwrap().insert(commit.entity);
        }
        if !self.waits {
            return self.inner.commit(commit, done);
        }
        let (answer, answered) = oneshot::channel::<()>();
        // Handed over first, so that commits arrive in the order of the calls.
        let inside = RUNTIME.enter();
        self.inner.commit(
            commit,
            Box::new(move |outcome| {
                done(outcome);
                _ = answer.send(());
            }),
        );
        drop(inside);
        if let Ok(caller) = Handle::try_current() {
            // Whether it was answered or dropped, there is nothing left to wait for.
            caller.spawn_blocking(move || _ = answered.blocking_recv());
        }
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        let entity = self.entity(entity);
        self.with(move |store| async move { store.find_key(entity, key).await })
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        let entity = self.entity(entity);
        self.with(move |store| async move { store.read_log(entity, scan).await })
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let entity = self.entity(entity);
        self.with(move |store| async move { store.row(entity, table, key).await })
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let entity = self.entity(entity);
        let read = self.with(move |store| async move { store.rows(entity, table, scan).await });
        let Some((_, permits)) = self.held.as_ref().filter(|(held, _)| *held == table) else { return read };
        Box::pin(async move {
            let rows = read.await;
            permits.acquire().await.unwrap().forget();
            rows
        })
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let workspace = self.apart.as_ref().map_or(workspace, |apart| apart.workspace(workspace));
        self.with(move |store| async move { store.view(workspace, view, scan).await })
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        let apart = self.apart.clone();
        self.with(move |store| async move {
            let Some(apart) = apart else { return store.due(after, upto, limit).await };
            let mut after = after.map(|due| Due { entity: apart.entity(due.entity), ..due });
            let mut found = Vec::new();
            let mut missing = None;
            while found.len() < limit {
                let page = store.due(after, upto, ROWS_PER_PAGE).await?;
                missing = missing.or(page.missing);
                let Some(last) = page.alarms.last() else { break };
                after = Some(*last);
                let known = apart.known.lock().unwrap();
                let own = page.alarms.into_iter().filter(|due| known.contains(&due.entity));
                found.extend(own.map(|due| Due { entity: apart.entity(due.entity), ..due }));
            }
            found.truncate(limit);
            Ok(DuePage { alarms: found, missing })
        })
    }

    fn snapshot_every(&self) -> u64 {
        self.inner.snapshot_every()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn metrics(&self) -> Option<&StoreMetrics> {
        self.inner.metrics()
    }

    fn heartbeat(&self, me: Heartbeat) -> BoxFuture<'_, Result<Vec<Heartbeat>, StoreError>> {
        let Some(apart) = &self.apart else { return self.with(move |store| async move { store.heartbeat(me).await }) };
        let beats = match &apart.beats {
            None => vec![me],
            Some(beats) => {
                let mut beats = beats.lock().unwrap();
                beats.insert(me.node, me);
                beats.values().cloned().collect()
            }
        };
        Box::pin(async move { Ok(beats) })
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        let Some(apart) = &self.apart else { return self.with(move |store| async move { store.leave(node).await }) };
        if let Some(beats) = &apart.beats {
            beats.lock().unwrap().remove(&node);
        }
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let shared = self.apart.is_some();
        let closed = self.with(move |store| async move {
            // Other tests still use it.
            if !shared {
                store.close().await;
            }
            Ok(())
        });
        // A store that can no longer be closed counts as closed.
        Box::pin(async move { drop(closed.await) })
    }
}

/// The alarms of all tests that are read at once.
const ROWS_PER_PAGE: usize = 1_000;
