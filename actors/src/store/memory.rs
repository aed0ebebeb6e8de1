//! A store in memory: everything the port promises except that it outlives the process.
//!
//! It is the reference implementation of the port, so it prefers being plainly correct to being fast. One lock guards
//! everything; it is held for a few map operations and never across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::inventory::Inventory;
use super::{
    Commit, CommitId, Done, Due, DuePage, Head, Heartbeat, KeyHash, KeyRange, KeyRow, Loaded, LogRecord, LogScan,
    NodeId, Order, Outcome, ReadLevel, Redaction, Row, Scan, SeqRange, Store, StoreError, Table, View,
};
use crate::clock::Millis;
use crate::id::{Address, EntityKey};
use crate::sync::LockUnpoisoned;

/// The default interval of snapshots.
const SNAPSHOT_EVERY: u64 = 16;

/// An in-memory [`Store`]. Clones share the same content.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
    snapshot_every: u64,
    shared: bool,
}

#[derive(Debug, Default)]
struct Content {
    entities: BTreeMap<EntityKey, Entity>,
    views: BTreeMap<(Address, View), BTreeMap<Bytes, Bytes>>,
    due: BTreeSet<Due>,
    heartbeats: BTreeMap<NodeId, Heartbeat>,
    closed: bool,
}

#[derive(Debug)]
struct Entity {
    head: Head,
    newest: CommitId,
    state: Option<Bytes>,
    /// Records since `state`, marks too.
    tail: Vec<LogRecord>,
    /// Every event, the one with sequence `n` at `n - 1`.
    events: Vec<LogRecord>,
    alarm: Option<Millis>,
    keys: BTreeMap<KeyHash, KeyRow>,
    rows: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(SNAPSHOT_EVERY)
    }
}

impl MemoryStore {
    /// An empty store that requests a snapshot every `snapshot_every` commits (at least 1).
    #[must_use]
    pub fn new(snapshot_every: u64) -> Self {
        Self { content: Arc::default(), snapshot_every: snapshot_every.max(1), shared: false }
    }

    /// A store whose content several nodes share (see [`Store::is_shared`]).
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// The content, unless the store was closed.
    fn open(&self) -> Result<MutexGuard<'_, Content>, StoreError> {
        // A panic cannot leave the maps half changed in a way that matters to a test that continues after it.
        let content = self.content.lock_unpoisoned();
        if content.closed { Err(StoreError::Unavailable("the store is closed".into())) } else { Ok(content) }
    }

    /// The result of `read` on an entity; `T::default()` if there is no such entity.
    fn of<T: Default>(&self, entity: EntityKey, read: impl FnOnce(&Entity) -> T) -> Result<T, StoreError> {
        Ok(self.open()?.entities.get(&entity).map(read).unwrap_or_default())
    }
}

impl Content {
    fn commit(&mut self, commit: Commit) -> Outcome {
        let found = self.entities.get(&commit.entity);
        if let Some(entity) = found.filter(|entity| entity.newest == commit.id) {
            return Outcome::Committed(entity.head);
        }
        if found.map(|entity| entity.head) != commit.expected {
            return Outcome::Conflict;
        }
        let head = commit.next_head();
        let entity = self.entities.entry(commit.entity).or_insert_with(|| Entity::new(commit.id));
        let was = entity.alarm;
        entity.append(head, &commit);
        commit.redactions.iter().for_each(|redaction| entity.redact(redaction));
        entity.keys.extend(commit.keys);
        for write in commit.rows {
            put(entity.rows.entry(write.table).or_default(), write.key, write.value);
        }
        if let Some(change) = commit.alarm {
            entity.alarm = change.next;
            was.map(|at| self.due.remove(&Due { at, entity: commit.entity }));
            self.due.extend(change.next.map(|at| Due { at, entity: commit.entity }));
        }
        for write in commit.views {
            put(self.views.entry((commit.entity.workspace, write.view)).or_default(), write.key, write.value);
        }
        Outcome::Committed(head)
    }
}

impl Entity {
    fn new(newest: CommitId) -> Self {
        Self {
            head: Head { seq: 0, commit: 0 },
            newest,
            state: None,
            tail: Vec::new(),
            events: Vec::new(),
            alarm: None,
            keys: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    fn append(&mut self, head: Head, commit: &Commit) {
        let mut seq = self.head.seq;
        for record in &commit.records {
            seq += u64::from(record.event);
            let record = LogRecord { seq, event: record.event, payload: record.payload.clone() };
            if record.event {
                self.events.push(record.clone());
            }
            self.tail.push(record);
        }
        if let Some(state) = &commit.state {
            self.state = Some(state.clone());
            self.tail.clear();
        }
        self.head = head;
        self.newest = commit.id;
    }

    fn redact(&mut self, redaction: &Redaction) {
        let same = |record: &&mut LogRecord| record.event && record.seq == redaction.seq;
        for record in self.events.iter_mut().chain(&mut self.tail).filter(same) {
            record.payload = redaction.payload.clone();
        }
    }

    fn log(&self, range: SeqRange, order: Order, limit: usize) -> Vec<LogRecord> {
        let inside = self.events.iter().filter(|record| range.contains(record.seq));
        match order {
            Order::Asc => inside.take(limit).cloned().collect(),
            Order::Desc => inside.rev().take(limit).cloned().collect(),
        }
    }
}

fn put(rows: &mut BTreeMap<Bytes, Bytes>, key: Bytes, value: Option<Bytes>) {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    };
}

fn list(rows: &BTreeMap<Bytes, Bytes>, range: KeyRange, order: Order, limit: usize) -> Vec<Row> {
    if let (Some(after), Some(before)) = (&range.after, &range.before)
        && after >= before
    {
        return Vec::new();
    }
    let bound = |key: Option<Bytes>| key.map_or(Bound::Unbounded, Bound::Excluded);
    let inside = rows.range((bound(range.after), bound(range.before)));
    let row = |(key, value): (&Bytes, &Bytes)| Row { key: key.clone(), value: value.clone() };
    match order {
        Order::Asc => inside.take(limit).map(row).collect(),
        Order::Desc => inside.rev().take(limit).map(row).collect(),
    }
}

impl Store for MemoryStore {
    fn load(&self, entity: EntityKey, _: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            self.of(entity, |entity| {
                Some(Loaded {
                    head: entity.head,
                    state: entity.state.clone(),
                    tail: entity.tail.clone(),
                    alarm: entity.alarm,
                    settled: true,
                })
            })
        })
    }

    fn commit(&self, commit: Commit, done: Done) {
        // The lock is free again before `done` runs, which may call the store.
        let outcome = self.open().map(|mut content| content.commit(commit));
        done(outcome);
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        Box::pin(async move { self.of(entity, |entity| entity.keys.get(&key).copied()) })
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        let LogScan { range, order, limit } = scan;
        Box::pin(async move { self.of(entity, |entity| entity.log(range, order, limit)) })
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { self.of(entity, |entity| entity.rows.get(&table)?.get(&key).cloned()) })
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let Scan { range, order, limit } = scan;
        Box::pin(async move {
            self.of(entity, |entity| {
                entity.rows.get(&table).map(|rows| list(rows, range, order, limit)).unwrap_or_default()
            })
        })
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let Scan { range, order, limit } = scan;
        Box::pin(async move {
            let content = self.open()?;
            Ok(content.views.get(&(workspace, view)).map(|rows| list(rows, range, order, limit)).unwrap_or_default())
        })
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        Box::pin(async move {
            let content = self.open()?;
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let due = content.due.range((from, Bound::Unbounded)).take_while(|due| due.at <= upto);
            Ok(DuePage::complete(due.take(limit).copied().collect()))
        })
    }

    fn snapshot_every(&self) -> u64 {
        self.snapshot_every
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn heartbeat(&self, me: Heartbeat) -> BoxFuture<'_, Result<Vec<Heartbeat>, StoreError>> {
        Box::pin(async move {
            let mut content = self.open()?;
            content.heartbeats.insert(me.node, me);
            Ok(content.heartbeats.values().cloned().collect())
        })
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.open()?.heartbeats.remove(&node);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.content.lock_unpoisoned().closed = true })
    }
}

impl Inventory for MemoryStore {
    fn entities(&self, after: Option<EntityKey>, limit: usize) -> BoxFuture<'_, Result<Vec<EntityKey>, StoreError>> {
        Box::pin(async move {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let content = self.open()?;
            Ok(content.entities.range((from, Bound::Unbounded)).take(limit).map(|(entity, _)| *entity).collect())
        })
    }

    fn keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(KeyHash, KeyRow)>, StoreError>> {
        Box::pin(async move {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            self.of(entity, |entity| {
                entity.keys.range((from, Bound::Unbounded)).take(limit).map(|(hash, row)| (*hash, *row)).collect()
            })
        })
    }

    fn tables(&self, entity: EntityKey) -> BoxFuture<'_, Result<Vec<Table>, StoreError>> {
        Box::pin(async move {
            self.of(entity, |entity| {
                entity.rows.iter().filter(|(_, rows)| !rows.is_empty()).map(|(table, _)| *table).collect()
            })
        })
    }

    fn views(&self, workspace: Address) -> BoxFuture<'_, Result<Vec<View>, StoreError>> {
        Box::pin(async move {
            let content = self.open()?;
            let of = content.views.iter().filter(|((of, _), entries)| *of == workspace && !entries.is_empty());
            Ok(of.map(|((_, view), _)| *view).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn the_store_keeps_every_promise_of_the_port() {
        conformance::run(async || MemoryStore::default(), 0).await;
        conformance::run_inventory(async || MemoryStore::default(), 0).await;
    }

    #[tokio::test]
    async fn clones_share_their_content() {
        let store = MemoryStore::default();
        conformance::run(async || store.clone(), 1).await;
    }

    #[tokio::test]
    async fn a_closed_store_refuses_everything() {
        let store = MemoryStore::default();
        store.close().await;
        assert!(matches!(
            store.load(EntityKey::INSTALLATION, ReadLevel::Settled).await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(matches!(store.due(None, Millis(1), 1).await, Err(StoreError::Unavailable(_))));
    }
}
