//! A store that fails on purpose, as the port allows stores to fail.
//!
//! Code above the port must be right on a store that returns `Unavailable`, loses its answers, applies a commit later
//! than it answers, and has other writers. This wrapper turns any store into one, by a seed: the same calls in the same
//! order meet the same faults. "Later" means with a later call; nothing here sleeps, unless a delay is set.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::sleep;

use super::inventory::Inventory;
use super::{
    Cluster, Commit, CommitId, Done, Due, DuePage, Heartbeat, KeyHash, KeyRow, Loaded, LogRecord, LogScan, NodeId,
    ReadLevel, Row, Scan, Store, StoreError, Table, View,
};
use crate::clock::Millis;
use crate::id::{Address, EntityKey};
use crate::metrics::StoreMetrics;
use crate::sync::LockUnpoisoned;

mod plan;

use plan::{Fate, Plan};
pub use plan::{Injected, Rates};

/// A [`Store`] that injects faults into another one. Clones share one store.
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    store: S,
    plan: Arc<Mutex<Plan>>,
    /// Permits for reads of logs.
    reads: Option<Arc<Semaphore>>,
    /// Permits for reads of lists.
    lists: Option<Arc<Semaphore>>,
    /// How long after a commit its outcome is reported.
    delay: Option<Duration>,
    held: Arc<Mutex<Held>>,
}

/// The entity whose commits wait, and those that do; and the entity whose commits are refused.
#[derive(Default)]
struct Held {
    entity: Option<EntityKey>,
    commits: Vec<(Commit, Done)>,
    refused: Option<EntityKey>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("entity", &self.entity).finish_non_exhaustive()
    }
}

impl<S: Store> FaultyStore<S> {
    /// Wraps `store` with faults at these rates, by `seed`.
    pub fn new(store: S, seed: u64, rates: Rates) -> Self {
        let plan = Arc::new(Mutex::new(Plan::new(seed, rates)));
        Self { store, plan, reads: None, lists: None, delay: None, held: Arc::default() }
    }

    /// Makes each read of a log use up one of these permits, and hang while there is none.
    #[must_use]
    pub fn hanging(self, reads: Arc<Semaphore>) -> Self {
        Self { reads: Some(reads), ..self }
    }

    /// Makes each read of a workspace's list use up one of these permits, and hang while there is none.
    #[must_use]
    pub fn hanging_lists(self, lists: Arc<Semaphore>) -> Self {
        Self { lists: Some(lists), ..self }
    }

    /// Makes each commit's outcome be reported after this delay.
    #[must_use]
    pub fn slow(self, delay: Duration) -> Self {
        Self { delay: Some(delay), ..self }
    }

    /// Uses other rates from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.plan().rates = rates;
    }

    /// Injects no new faults from now on. Late commits are still decided by the next settled load of their entity.
    pub fn calm(&self) {
        self.set_rates(Rates::default());
    }

    /// From now on commits of this entity wait, without any effect; `None`: none does, and those that did go on.
    pub fn hold(&self, entity: Option<EntityKey>) {
        let commits = {
            let mut held = self.held.lock_unpoisoned();
            held.entity = entity;
            std::mem::take(&mut held.commits)
        };
        for (commit, done) in commits {
            self.commit(commit, done);
        }
    }

    /// From now on commits of this entity are refused; `None`: none is for that reason.
    pub fn refuse(&self, entity: Option<EntityKey>) {
        self.held.lock_unpoisoned().refused = entity;
    }

    /// The faults injected so far.
    pub fn injected(&self) -> Injected {
        self.plan().injected
    }

    /// The wrapped store, which has no faults.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock_unpoisoned()
    }

    /// Fails some reads.
    fn reading(&self) -> Result<(), StoreError> {
        let mut plan = self.plan();
        let rate = plan.rates.unread;
        if !plan.chance(rate) {
            return Ok(());
        }
        plan.injected.unread += 1;
        Err(StoreError::Unavailable("injected: the read failed".into()))
    }

    /// Hands those late commits of an entity that this call carries out to the store, and waits for them.
    async fn carry_out_late(&self, entity: EntityKey, all: bool) {
        let apply = self.plan().due_now(entity, all);
        for commit in apply {
            let (answer, answered) = oneshot::channel();
            self.store.commit(commit, Box::new(move |_| _ = answer.send(())));
            // The writer already has its answer, and the effect of the commit shows in the load that follows.
            drop(answered.await);
        }
    }
}

/// Uses up a permit. A closed semaphore lets every read go on.
async fn pass(permits: Option<&Semaphore>) {
    if let Some(permits) = permits {
        _ = permits.acquire().await.map(SemaphorePermit::forget);
    }
}

/// A commit of another writer that changes nothing but the head.
fn competitor(commit: &Commit, id: CommitId) -> Commit {
    Commit::on(commit.entity, commit.expected, id, commit.at)
}

fn unknown() -> StoreError {
    StoreError::Indeterminate("injected: the answer was lost".into())
}

impl<S: Store> Store for FaultyStore<S> {
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.carry_out_late(entity, read_level == ReadLevel::Settled).await;
            self.store.load(entity, read_level).await
        })
    }

    fn commit(&self, commit: Commit, done: Done) {
        {
            let mut held = self.held.lock_unpoisoned();
            if held.entity == Some(commit.entity) {
                return held.commits.push((commit, done));
            }
            if held.refused == Some(commit.entity) {
                drop(held);
                return done(Err(StoreError::Unavailable("injected: the entity's commits are refused".into())));
            }
        }
        let done = match self.delay {
            None => done,
            Some(delay) => {
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move {
                    // The store, and with it the receiver, may have been dropped.
                    if let Ok(outcome) = receiver.await {
                        sleep(delay).await;
                        done(outcome);
                    }
                });
                Box::new(move |outcome| _ = sender.send(outcome))
            }
        };
        let (late, fate) = {
            let mut plan = self.plan();
            (plan.due_now(commit.entity, false), plan.fate(&commit))
        };
        for earlier in late {
            self.store.commit(earlier, Box::new(drop));
        }
        match fate {
            Fate::Refused => done(Err(StoreError::Unavailable("injected: the commit was refused".into()))),
            Fate::Late => done(Err(unknown())),
            Fate::Unanswered => {
                self.store.commit(commit, Box::new(move |outcome| done(outcome.and_then(|_| Err(unknown())))));
            }
            Fate::Competed(id) => {
                self.store.commit(competitor(&commit, id), Box::new(drop));
                self.store.commit(commit, done);
            }
            Fate::Passed => self.store.commit(commit, done),
        }
    }

    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.find_key(entity, key).await
        })
    }

    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            pass(self.reads.as_deref()).await;
            self.store.read_log(entity, scan).await
        })
    }

    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.row(entity, table, key).await
        })
    }

    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.rows(entity, table, scan).await
        })
    }

    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            pass(self.lists.as_deref()).await;
            self.store.view(workspace, view, scan).await
        })
    }

    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.due(after, upto, limit).await
        })
    }

    fn snapshot_every(&self) -> u64 {
        self.store.snapshot_every()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn heartbeat(&self, me: Heartbeat) -> BoxFuture<'_, Result<Vec<Heartbeat>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.heartbeat(me).await
        })
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.leave(node)
    }

    fn system(&self) -> &'static str {
        self.store.system()
    }

    fn cluster(&self) -> Option<Cluster<'_>> {
        self.store.cluster()
    }

    fn metrics(&self) -> Option<&StoreMetrics> {
        self.store.metrics()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}

impl<S: Inventory> Inventory for FaultyStore<S> {
    fn entities(&self, after: Option<EntityKey>, limit: usize) -> BoxFuture<'_, Result<Vec<EntityKey>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.entities(after, limit).await
        })
    }

    fn keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(KeyHash, KeyRow)>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.keys(entity, after, limit).await
        })
    }

    fn tables(&self, entity: EntityKey) -> BoxFuture<'_, Result<Vec<Table>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.tables(entity).await
        })
    }

    fn views(&self, workspace: Address) -> BoxFuture<'_, Result<Vec<View>, StoreError>> {
        Box::pin(async move {
            self.reading()?;
            self.store.views(workspace).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, commit, events};
    use crate::store::memory::MemoryStore;
    use crate::store::{Head, Outcome};

    const ENTITY: EntityKey = EntityKey::INSTALLATION;

    fn faulty(seed: u64, rates: Rates) -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::default(), seed, rates)
    }

    /// Appends `writes` events as a careful writer does; returns the payloads that it knows to be committed.
    async fn write_through_faults(store: &FaultyStore<MemoryStore>, writes: usize) -> Vec<String> {
        let mut known = Vec::new();
        let mut settled = false;
        while known.len() < writes {
            let read_level = if settled { ReadLevel::Settled } else { ReadLevel::Acknowledged };
            let Ok(loaded) = store.load(ENTITY, read_level).await else { continue };
            let name = format!("event {}", known.len());
            if loaded.as_ref().is_some_and(|l| l.tail.iter().any(|record| record.payload == name)) {
                known.push(name);
                continue;
            }
            match commit(store, events(ENTITY, loaded.map(|l| l.head), &[&name])).await {
                Ok(Outcome::Committed(_)) => known.push(name),
                Ok(Outcome::Conflict) => {}
                Err(StoreError::Indeterminate(_)) => settled = true,
                Err(_) => {}
            }
        }
        known
    }

    #[tokio::test]
    async fn a_calm_store_keeps_every_promise() {
        conformance::run(async || faulty(1, Rates::default()), 2).await;
    }

    #[tokio::test]
    async fn a_careful_writer_writes_each_event_once_through_every_fault() {
        for seed in 0..50 {
            let store = faulty(seed, Rates::OFTEN);
            let known = write_through_faults(&store, 40).await;
            store.calm();
            let loaded = store.load(ENTITY, ReadLevel::Settled).await.unwrap().unwrap();
            let found: Vec<_> = loaded.tail.iter().map(|record| record.payload.clone()).collect();
            assert_eq!(found, known, "seed {seed}, {:?}", store.injected());
            assert_eq!(loaded.head.seq, 40, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn every_fault_is_injected_and_the_same_seed_injects_the_same() {
        let run = async |seed| {
            let store = faulty(seed, Rates::OFTEN);
            write_through_faults(&store, 400).await;
            store.injected()
        };
        let injected = run(7).await;
        let Injected { refused, unanswered, late, late_applied, late_dropped, competed, unread } = injected;
        for count in [refused, unanswered, late, late_applied, late_dropped, competed, unread] {
            assert!(count > 0, "{injected:?}");
        }
        assert_eq!(run(7).await, injected);
        assert_ne!(run(8).await, injected);
    }

    #[tokio::test]
    async fn after_a_settled_load_a_late_commit_is_decided_for_good() {
        let mut seen = 0;
        let mut unseen = 0;
        for seed in 0..40 {
            let store = faulty(seed, Rates { late: 1_000, ..Rates::default() });
            let outcome = commit(&store, events(ENTITY, None, &["late"])).await;
            assert!(matches!(outcome, Err(StoreError::Indeterminate(_))));
            let first = store.load(ENTITY, ReadLevel::Settled).await.unwrap();
            for _ in 0..20 {
                assert_eq!(store.load(ENTITY, ReadLevel::Settled).await.unwrap(), first, "seed {seed}");
            }
            if first.is_some() { seen += 1 } else { unseen += 1 }
        }
        assert!(seen > 5 && unseen > 5, "both ends happen: {seen} applied, {unseen} never");
    }

    #[tokio::test]
    async fn an_injected_conflict_is_a_real_one() {
        let store = faulty(3, Rates::default());
        assert!(commit(&store, events(ENTITY, None, &["a"])).await.is_ok());
        store.set_rates(Rates { competed: 1_000, ..Rates::default() });
        let head = Head { seq: 1, commit: 1 };
        assert_eq!(commit(&store, events(ENTITY, Some(head), &["b"])).await.unwrap(), Outcome::Conflict);
        let loaded = store.load(ENTITY, ReadLevel::Acknowledged).await.unwrap().unwrap();
        assert_eq!((loaded.head, loaded.tail.len()), (Head { seq: 1, commit: 2 }, 1));
    }
}
