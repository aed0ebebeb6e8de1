//! A store that a test controls.

use std::sync::{Arc, Mutex};

use actors::clock::Millis;
use actors::id::{Address, EntityKey};
use actors::store::memory::MemoryStore;
use actors::store::{
    Cluster, Commit, Done, Due, DuePage, KeyHash, KeyRange, KeyRow, Loaded, LogRecord, LogScan, ReadLevel, Row, Scan,
    SeqRange, Store, StoreError, Table, View,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// What a [`Gate`] does with commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Pass,
    /// Commits wait.
    Hold,
    /// Commits are carried out, and their answers are dropped.
    Swallow,
    /// Commits of more bytes are refused, as by a store that takes no larger ones.
    AtMost(usize),
    /// The same for commits of more events.
    FewEvents(usize),
}

#[derive(Debug)]
struct Gated {
    rule: Rule,
    held: Vec<Held>,
    commits: usize,
    last: Option<Commit>,
    reads: usize,
    damaged: Option<(Option<EntityKey>, u64)>,
    unlisted: Option<EntityKey>,
    lost_lists: usize,
    lost_rows: Option<(Table, usize)>,
    empty_logs: usize,
    damaged_rows: Option<(Table, Option<Bytes>)>,
}

/// Reads that hang until a test releases them.
#[derive(Debug, Default)]
struct Hanging {
    due: watch::Sender<bool>,
    load: watch::Sender<Option<EntityKey>>,
    /// The same, after they have read.
    loaded: watch::Sender<Option<EntityKey>>,
    /// Reads of this event alone.
    event: watch::Sender<Option<u64>>,
}

struct Held(Commit, Done);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A store whose commits follow a [`Rule`].
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) inner: MemoryStore,
    gated: Arc<Mutex<Gated>>,
    hanging: Arc<Hanging>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let gated = Gated {
            rule: Rule::Pass,
            held: Vec::new(),
            commits: 0,
            last: None,
            reads: 0,
            damaged: None,
            unlisted: None,
            lost_lists: 0,
            lost_rows: None,
            empty_logs: 0,
            damaged_rows: None,
        };
        Self { inner: MemoryStore::default(), gated: Arc::new(Mutex::new(gated)), hanging: Arc::default() }
    }

    /// The same for several nodes.
    pub(crate) fn shared() -> Self {
        Self { inner: MemoryStore::default().shared(), ..Self::new() }
    }

    /// Applies this rule to commits from now on; releases those held before, unless it is [`Rule::Hold`].
    pub(crate) fn rule(&self, rule: Rule) {
        let held = {
            let mut gated = self.gated.lock().unwrap();
            gated.rule = rule;
            if rule == Rule::Hold { Vec::new() } else { std::mem::take(&mut gated.held) }
        };
        for Held(commit, done) in held {
            self.inner.commit(commit, done);
        }
    }

    /// From now on no part of a log with this event can be read; `None`: all can.
    pub(crate) fn damage(&self, seq: Option<u64>) {
        self.gated.lock().unwrap().damaged = seq.map(|seq| (None, seq));
    }

    /// The same for the log of one entity.
    pub(crate) fn damage_in(&self, entity: EntityKey, seq: u64) {
        self.gated.lock().unwrap().damaged = Some((Some(entity), seq));
    }

    /// From now on no row of this table can be read.
    pub(crate) fn damage_rows(&self, table: Table) {
        self.gated.lock().unwrap().damaged_rows = Some((table, None));
    }

    /// From now on neither this row of a table nor a list with it can be read.
    pub(crate) fn damage_row(&self, table: Table, key: impl Into<Bytes>) {
        self.gated.lock().unwrap().damaged_rows = Some((table, Some(key.into())));
    }

    /// From now on all rows can be read.
    pub(crate) fn mend_rows(&self) {
        self.gated.lock().unwrap().damaged_rows = None;
    }

    /// Whether a read of these keys of a table meets damage.
    fn meets_damage(&self, table: Table, has: impl FnOnce(&Bytes) -> bool) -> bool {
        let gated = self.gated.lock().unwrap();
        gated.damaged_rows.as_ref().is_some_and(|(of, key)| *of == table && key.as_ref().is_none_or(has))
    }

    /// From now on no part of the due index with this entity can be read; `None`: all can.
    pub(crate) fn unlist(&self, entity: Option<EntityKey>) {
        self.gated.lock().unwrap().unlisted = entity;
    }

    /// The next `reads` reads of workspaces' lists fail.
    pub(crate) fn lose_lists(&self, reads: usize) {
        self.gated.lock().unwrap().lost_lists = reads;
    }

    /// The next `reads` reads of rows of this table fail.
    pub(crate) fn lose_rows(&self, table: Table, reads: usize) {
        self.gated.lock().unwrap().lost_rows = Some((table, reads));
    }

    /// The next `reads` reads of logs find nothing.
    pub(crate) fn empty_logs(&self, reads: usize) {
        self.gated.lock().unwrap().empty_logs = reads;
    }

    fn loses_rows(&self, table: Table) -> bool {
        let mut gated = self.gated.lock().unwrap();
        let left = gated.lost_rows.as_mut().filter(|(lost, left)| *lost == table && *left > 0);
        left.map(|(_, left)| *left -= 1).is_some()
    }

    /// From now on reads of the due index hang, or go on.
    pub(crate) fn hang_due(&self, hang: bool) {
        self.hanging.due.send_replace(hang);
    }

    /// From now on this entity's loads hang; `None`: all go on.
    pub(crate) fn hang_loads(&self, entity: Option<EntityKey>) {
        self.hanging.load.send_replace(entity);
    }

    /// From now on this entity's loads hang after they have read; `None`: all go on, with what they read then.
    pub(crate) fn hold_loads(&self, entity: Option<EntityKey>) {
        self.hanging.loaded.send_replace(entity);
    }

    /// From now on reads of the event with this sequence alone hang; `None`: all go on.
    pub(crate) fn hang_event(&self, seq: Option<u64>) {
        self.hanging.event.send_replace(seq);
    }

    /// The newest commit that was requested, and the number of reads since they were last counted.
    pub(crate) fn last(&self) -> (Commit, usize) {
        let last = self.gated.lock().unwrap().last.clone().unwrap();
        (last, self.reads())
    }

    fn read(&self) -> &MemoryStore {
        self.gated.lock().unwrap().reads += 1;
        &self.inner
    }

    /// The number of reads since they were last counted.
    pub(crate) fn reads(&self) -> usize {
        std::mem::take(&mut self.gated.lock().unwrap().reads)
    }

    /// The number of commits requested so far.
    pub(crate) fn commits(&self) -> usize {
        self.gated.lock().unwrap().commits
    }
}

impl Store for Gate {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        let store = self.read().clone();
        let mut hanging = self.hanging.load.subscribe();
        let mut held = self.hanging.loaded.subscribe();
        Box::pin(async move {
            let _ = hanging.wait_for(|hanging| *hanging != Some(entity)).await;
            let loaded = store.load(entity, read_level).await;
            let _ = held.wait_for(|held| *held != Some(entity)).await;
            loaded
        })
    }

    fn commit(&self, commit: Commit, done: Done) {
        let mut gated = self.gated.lock().unwrap();
        gated.commits += 1;
        gated.last = Some(commit.clone());
        match gated.rule {
            Rule::Hold => gated.held.push(Held(commit, done)),
            Rule::Pass => {
                drop(gated);
                self.inner.commit(commit, done);
            }
            Rule::AtMost(max) => {
                drop(gated);
                match commit.measure_rows() {
                    Ok(bytes) if bytes > max => done(Err(StoreError::TooLarge { bytes, max })),
                    _ => self.inner.commit(commit, done),
                }
            }
            Rule::FewEvents(max) => {
                drop(gated);
                match commit.records.len() {
                    bytes if bytes > max => done(Err(StoreError::TooLarge { bytes, max })),
                    _ => self.inner.commit(commit, done),
                }
            }
            Rule::Swallow => {
                drop(gated);
                self.inner.commit(commit, Box::new(drop));
                drop(done);
            }
        }
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        self.read().find_key(entity, key)
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        let damaged = self.gated.lock().unwrap().damaged;
        let is_here =
            |(of, seq): (Option<EntityKey>, u64)| of.is_none_or(|of| of == entity) && scan.range.contains(seq);
        if damaged.is_some_and(is_here) {
            return Box::pin(async { Err(StoreError::Corrupt("told to be".into())) });
        }
        let is_empty = self.gated.lock().unwrap().empty_logs.checked_sub(1);
        if let Some(left) = is_empty {
            self.gated.lock().unwrap().empty_logs = left;
            return Box::pin(async { Ok(Vec::new()) });
        }
        let store = self.read().clone();
        let mut hanging = self.hanging.event.subscribe();
        Box::pin(async move {
            let is_alone = |seq: u64| scan.range == SeqRange::one(seq);
            let _ = hanging.wait_for(|hanging| !hanging.is_some_and(is_alone)).await;
            store.read_log(entity, scan).await
        })
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        if self.loses_rows(table) {
            return Box::pin(async { Err(StoreError::Unavailable("told to be".into())) });
        }
        if self.meets_damage(table, |damaged| *damaged == key) {
            return Box::pin(async { Err(StoreError::Corrupt("told to be".into())) });
        }
        self.read().row(entity, table, key)
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        if self.loses_rows(table) {
            return Box::pin(async { Err(StoreError::Unavailable("told to be".into())) });
        }
        let KeyRange { after, before } = &scan.range;
        let is_within = |key: &Bytes| {
            after.as_ref().is_none_or(|after| key > after) && before.as_ref().is_none_or(|before| key < before)
        };
        if self.meets_damage(table, is_within) {
            return Box::pin(async { Err(StoreError::Corrupt("told to be".into())) });
        }
        self.read().rows(entity, table, scan)
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let mut gated = self.gated.lock().unwrap();
        if let Some(left) = gated.lost_lists.checked_sub(1) {
            gated.lost_lists = left;
            return Box::pin(async { Err(StoreError::Unavailable("told to be".into())) });
        }
        drop(gated);
        self.read().view(workspace, view, scan)
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        let mut hanging = self.hanging.due.subscribe();
        Box::pin(async move {
            let _ = hanging.wait_for(|hanging| !hanging).await;
            let mut page = self.inner.due(after, upto, limit).await?;
            let unlisted = self.gated.lock().unwrap().unlisted;
            if page.alarms.iter().any(|due| Some(due.entity) == unlisted) {
                page.alarms.retain(|due| Some(due.entity) != unlisted);
                page.missing = Some(StoreError::Unavailable("told to be".into()));
            }
            Ok(page)
        })
    }

    fn snapshot_every(&self) -> u64 {
        self.inner.snapshot_every()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn cluster(&self) -> Option<Cluster<'_>> {
        Some(Cluster { namespace: "gated", consistency: "quorum" })
    }

    /// The content outlives the process that closes the store.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
