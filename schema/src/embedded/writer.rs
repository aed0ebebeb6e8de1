//! The single writer: takes the queued commits, writes them as one durable batch, answers their callers.
//!
//! Group commit needs no timer: while one batch is being synced, the next one gathers in the queue, and the writer
//! takes it as soon as the sync returns.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actors::store::{Cause, Commit, CommitWatch, Due, Outcome, StoreError};
use actors::trace::TraceContext;
use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode, Slice};

use super::Shared;
use super::chain::{Chain, Link};
use super::engine::Engine;
use super::head_file::HeadFile;
use super::heads::Heads;
use super::layout::{self, META, StateRow};
use super::log_row::{self, KnownHead, RowFields};
use super::queue::{Caller, Job, QueuedCommit};

/// Commits in one batch. By then the sync is a small part of the cost, and more only delays the first one's answer.
const BATCH_COMMITS: usize = 1_024;
/// Bytes in one batch, for the same reason; a single larger commit still goes alone.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Entities whose head the writer remembers: as many as may be resident of one kind.
const MAX_CACHED_HEADS: usize = actors::limits::RESIDENT_ENTITIES;
/// Batches between two heartbeats: a keyspace that is never written pins the engine's journals (its issue 288).
const BATCHES_PER_HEARTBEAT: u64 = 1_024;

/// A hook that is called with a batch's number before it is written; its error counts as a failed write.
pub(super) type BeforeWrite = Box<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// The writer's state; it lives on its thread.
pub(super) struct Writer {
    engine: Engine,
    chain: Chain,
    heads: Heads,
    head_file: Arc<HeadFile>,
    wake_syncer: SyncSender<()>,
    shared: Arc<Shared>,
    before_write: Option<BeforeWrite>,
    /// A reused buffer for encoding log rows.
    scratch: Vec<u8>,
    /// Writes of the current batch outside the log, in the order of their commits.
    writes: Vec<Write>,
}

/// The keyspace of a write other than a new log row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WriteTarget {
    /// An existing log row; it has a checksum of its own.
    Log,
    Rows,
    Keys,
    Index,
}

struct Write {
    space: WriteTarget,
    /// In the engine's own type, so that it is copied once.
    key: Slice,
    /// Without its checksum; `None` deletes.
    value: Option<Vec<u8>>,
}

/// The outcome of a commit, until the batch is durable.
struct PendingAnswer {
    outcome: Result<Outcome, StoreError>,
    caller: Caller,
    watch: Option<Arc<CommitWatch>>,
}

impl Writer {
    pub(super) fn new(
        engine: Engine,
        chain: Chain,
        head_file: Arc<HeadFile>,
        wake_syncer: SyncSender<()>,
        shared: Arc<Shared>,
        before_write: Option<BeforeWrite>,
    ) -> Self {
        let heads = Heads::new(MAX_CACHED_HEADS);
        let scratch = Vec::new();
        let writes = Vec::new();
        Self { engine, chain, heads, head_file, wake_syncer, shared, before_write, scratch, writes }
    }

    /// Begins to work, on a thread of its own.
    pub(super) fn spawn(self, jobs: Receiver<Job>) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            // Without its writer the store can acknowledge nothing; the process must learn the reason.
            if catch_unwind(AssertUnwindSafe(|| self.run(&jobs))).is_err() {
                shared.fail("the writer panicked");
            }
        })
    }

    /// Works until it is closed or every sender is dropped.
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut decided = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut batch = BatchBuilder::new(&self.engine, &self.chain);
            let mut barriers = Vec::new();
            let mut close = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Commit(QueuedCommit { commit, permit, caller }) => {
                        let bytes = permit.bytes();
                        drop(permit);
                        // It rewrites rows, which the engine returns only once their own batch is written.
                        if !commit.redactions.is_empty() && !decided.is_empty() {
                            self.conclude(batch, &mut decided);
                            batch = BatchBuilder::new(&self.engine, &self.chain);
                        }
                        batch.bytes += bytes;
                        let watch = commit.watch.clone();
                        if let Some(watch) = &watch {
                            batch.recorded = watch.recorded().or(batch.recorded);
                        }
                        let caller = caller.decided();
                        decided.push(PendingAnswer { outcome: self.decide(*commit, &mut batch), caller, watch });
                    }
                    Job::Barrier(reached) => barriers.push(reached),
                    Job::Close(closed) => {
                        close = Some(closed);
                        break;
                    }
                }
                if decided.len() < BATCH_COMMITS && batch.bytes < BATCH_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            self.conclude(batch, &mut decided);
            // The receiver may have been dropped; that is no fault.
            barriers.into_iter().for_each(|reached| _ = reached.send(()));
            if let Some(closed) = close {
                self.end();
                _ = closed.send(());
                return;
            }
        }
        self.end();
    }

    /// Decides a commit; its writes are added to the batch if it applies.
    fn decide(&mut self, commit: Commit, batch: &mut BatchBuilder) -> Result<Outcome, StoreError> {
        self.shared.usable()?;
        let before = match self.heads.get(commit.entity) {
            Some(known) => Some(known),
            None => self.engine.known_head(commit.entity)?,
        };
        if let Some(known) = before.filter(|known| known.id == commit.id) {
            return Ok(Outcome::Committed(known.head));
        }
        if before.map(|known| known.head) != commit.expected {
            return Ok(Outcome::Conflict);
        }
        let head = commit.next_head();
        self.redact(&commit)?;
        self.stage(commit, before, batch);
        Ok(Outcome::Committed(head))
    }

    /// Rewrites the log rows that the commit redacts.
    fn redact(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let mut seqs: BTreeMap<u64, &Bytes> = BTreeMap::new();
        seqs.extend(commit.redactions.iter().map(|redaction| (redaction.seq, &redaction.payload)));
        let mut rewritten = Vec::new();
        while let Some((&seq, _)) = seqs.first_key_value() {
            let Some(row) = self.engine.log_row_of(commit.entity, seq)? else { break };
            let key = layout::log_key(commit.entity, row.head);
            let value = row.redacted(&key, |seq| seqs.get(&seq).copied().cloned());
            rewritten.push(Write { space: WriteTarget::Log, key: key.into(), value: Some(value) });
            seqs = seqs.split_off(&row.head.seq.max(seq).saturating_add(1));
        }
        self.writes.append(&mut rewritten);
        Ok(())
    }

    fn stage(&mut self, commit: Commit, before: Option<KnownHead>, batch: &mut BatchBuilder) {
        let head = commit.next_head();
        let alarm_before = before.and_then(|known| known.alarm);
        let facts = RowFields {
            batch: batch.link.batch(),
            id: commit.id,
            previous: before.map_or([0; 16], |known| known.hash),
            state_commit: if commit.state.is_some() { head.commit } else { before.map_or(0, |b| b.state_commit) },
            at: commit.at,
            alarm: commit.alarm.map_or(alarm_before, |change| change.next),
        };
        let key = layout::log_key(commit.entity, head);
        let hash = log_row::encode(&key, &facts, &commit.records, &mut self.scratch);
        batch.items.insert(&self.engine.log, key, self.scratch.as_slice());
        batch.link.log_row(hash);
        batch.commits += 1;
        let RowFields { id, alarm, state_commit, .. } = facts;
        self.heads.put(commit.entity, KnownHead { head, id, hash, alarm, state_commit });

        for (name, row) in &commit.keys {
            let key = layout::idempotency_key(commit.entity, *name).into();
            self.writes.push(Write { space: WriteTarget::Keys, key, value: Some(layout::key_row(*row)) });
        }
        if let Some(state) = &commit.state {
            let value = StateRow { head, hash, state }.encode();
            self.writes.push(Write {
                space: WriteTarget::Rows,
                key: layout::state_key(commit.entity).into(),
                value: Some(value),
            });
        }
        for write in &commit.rows {
            let key = layout::row_key(commit.entity, write.table, &write.key).into();
            self.writes.push(Write {
                space: WriteTarget::Rows,
                key,
                value: write.value.as_ref().map(|value| value.to_vec()),
            });
        }
        for write in &commit.views {
            let key = layout::view_key(commit.entity.workspace, write.view, &write.key).into();
            self.writes.push(Write {
                space: WriteTarget::Index,
                key,
                value: write.value.as_ref().map(|value| value.to_vec()),
            });
        }
        if alarm != alarm_before {
            let due = |at| Slice::from(layout::due_key(Due { at, entity: commit.entity }));
            self.writes.extend(alarm_before.map(|at| Write { space: WriteTarget::Index, key: due(at), value: None }));
            self.writes.extend(alarm.map(|at| Write {
                space: WriteTarget::Index,
                key: due(at),
                value: Some(Vec::new()),
            }));
        }
    }

    /// Makes a batch durable and answers its commits.
    fn conclude(&mut self, batch: BatchBuilder, decided: &mut Vec<PendingAnswer>) {
        let commits = batch.commits;
        let begun = Instant::now();
        let durable = match self.shared.usable() {
            Ok(()) if commits == 0 => Ok(()),
            Ok(()) => self.persist_or_fail(batch),
            Err(ended) => Err(ended),
        };
        match durable {
            Ok(()) => {
                let ended = Instant::now();
                self.shared.counted(commits);
                self.shared.space.measure_after_batch(ended, || self.engine.disk_bytes());
                report_batch(decided, ended.saturating_duration_since(begun));
                decided.drain(..).for_each(|decided| decided.caller.answer(decided.outcome));
            }
            // Conflicts too: they may be conflicts with a commit of this batch.
            Err(error) => decided.drain(..).for_each(|decided| decided.caller.answer(Err(error.clone()))),
        }
    }

    /// Makes a batch durable; if that fails, no commit is ever acknowledged again.
    fn persist_or_fail(&mut self, batch: BatchBuilder) -> Result<(), StoreError> {
        // If the engine panics, every waiting caller must still be answered.
        let persisted = catch_unwind(AssertUnwindSafe(|| self.persist(batch)));
        persisted.unwrap_or_else(|_| Err("the engine panicked".into())).map_err(|error| {
            let cause = Cause::of("could not make a batch durable", error);
            self.shared.fail(&cause.to_string());
            StoreError::Indeterminate(cause)
        })
    }

    fn persist(&mut self, mut batch: BatchBuilder) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let number = batch.link.batch();
        // The engine gives all writes of a batch one sequence, so the batch may contain only the last write to each
        // key. The sort is stable: equal keys keep their order.
        self.writes.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        let mut writes = self.writes.drain(..).peekable();
        while let Some(Write { space, key, value }) = writes.next() {
            if writes.peek().is_some_and(|later| later.space == space && later.key == key) {
                continue;
            }
            let keyspace = match space {
                WriteTarget::Log => &self.engine.log,
                WriteTarget::Rows => &self.engine.rows,
                WriteTarget::Keys => &self.engine.keys,
                WriteTarget::Index => &self.engine.index,
            };
            match value {
                Some(value) if space == WriteTarget::Log => {
                    batch.link.other(layout::checksum(&key, &value));
                    batch.items.insert(keyspace, key, value);
                }
                Some(value) => {
                    let (sealed, sum) = layout::seal(&key, value);
                    batch.link.other(sum);
                    batch.items.insert(keyspace, key, sealed);
                }
                None => {
                    batch.link.other(!layout::checksum(&key, &[]));
                    batch.items.remove(keyspace, key);
                }
            }
        }
        drop(writes);
        if number % BATCHES_PER_HEARTBEAT == 1 {
            for keyspace in [&self.engine.log, &self.engine.rows, &self.engine.keys] {
                batch.items.insert(keyspace, META, number.to_le_bytes());
            }
        }
        let chain = batch.link.close();
        batch.items.insert(&self.engine.index, META, chain.encode());
        let begun = Instant::now();
        if let Some(before_write) = &self.before_write {
            before_write(number)?;
        }
        batch.items.durability(Some(PersistMode::SyncData)).commit()?;
        self.shared.synced(begun.elapsed(), batch.recorded);
        self.chain = chain;
        // Before any answer: after the process ends the file must cover everything acknowledged.
        self.head_file.write((&chain).into())?;
        // Full means that a sync is due anyway.
        _ = self.wake_syncer.try_send(());
        Ok(())
    }

    fn end(&self) {
        if let Err(error) = self.head_file.sync() {
            self.shared.fail(&format!("the HEAD file could not be synced: {error}"));
        }
    }
}

/// Reports the batch's size and sync time to its traced commits.
fn report_batch(decided: &[PendingAnswer], took: Duration) {
    for watch in decided.iter().filter_map(|decided| decided.watch.as_ref()) {
        watch.batch_commits.store(decided.len() as u64, Ordering::Relaxed);
        watch.sync_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A batch that is being gathered.
struct BatchBuilder {
    items: OwnedWriteBatch,
    link: Link,
    /// Commits in it.
    commits: u64,
    bytes: usize,
    /// The trace context of one of its recorded commits, if there is one.
    recorded: Option<TraceContext>,
}

impl BatchBuilder {
    fn new(engine: &Engine, chain: &Chain) -> Self {
        Self { items: engine.batch(256), link: chain.link(), commits: 0, bytes: 0, recorded: None }
    }
}
