//! The due index: work due later, by quarter of an hour and shard.
//!
//! A row is written before the commit that needs it, so it may exist without one: alarms may be spurious. It is deleted
//! after the commit that makes it needless, or, if that failed, when it is found long overdue. A past, empty slot is
//! removed, so that no read crosses its tombstones.
//!
//! A failed read delays nothing else: the page leaves out that shard or slot and says so. An alarm whose entity cannot
//! be read in time is reported, because it may be a real one.

use std::collections::VecDeque;
use std::time::Duration;

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{CommitId, Due, DuePage, StoreError};
use bytes::Bytes;
use dashmap::DashSet;
use futures_util::stream::{self, StreamExt as _};
use scylla::DeserializeRow;

use super::CqlStore;
use super::layout::{
    DueKind, DueRow, SHARDS, entity_bytes, entity_of, shard, signed, sixteen, slot, slot_end, unsigned,
};

mod checks;
mod doubts;

use checks::PageChecks;
pub(super) use doubts::Doubts;

/// A slot may be written to for this long after its end: clocks differ, and writes are late.
const SLOT_OPEN_MILLIS: u64 = 600_000;
/// Slots of a shard that are read at once.
const SLOTS_PER_READ: i32 = 1_000;
/// Rows of one read of a slot.
const ROWS_PER_PAGE: i32 = 64;
/// Slots read, or rows checked, at the same time.
const MAX_CONCURRENT_READS: usize = 16;
/// Slots known to exist; all are forgotten at once if there are more.
const MAX_KNOWN_SLOTS: usize = 100_000;
/// How long a row must have been unneeded before it is deleted. It is written before its commit, however long overdue
/// it is then, and a commit is given up long before this.
pub(super) const DOUBT_DELAY: Duration = Duration::from_secs(60);

/// Slots known to exist, so that they need not be written again.
#[derive(Debug, Default)]
pub(super) struct Slots(DashSet<(i8, i64)>);

#[derive(Debug, DeserializeRow)]
struct StoredDueRow {
    at: i64,
    entity: Bytes,
    kind: i8,
    id: Bytes,
}

/// A row of the index, as read.
#[derive(Clone, Copy, Debug)]
struct IndexRow {
    due: Due,
    kind: DueKind,
    row: DueRow,
}

/// A slot, read page by page in order of time.
#[derive(Debug)]
struct Source {
    shard: i8,
    slot: i64,
    upto: Millis,
    /// The row after which the next read begins; `None`: it was read to its end.
    rest: Option<(i64, Vec<u8>, i8, Vec<u8>)>,
    read: VecDeque<IndexRow>,
    /// No row was seen in it.
    is_empty: bool,
}

impl Source {
    fn new(shard: i8, slot: i64, after: Option<Due>, upto: Millis) -> Self {
        let rest = match after {
            Some(Due { at, entity }) => (signed(at.0), entity.to_bytes().to_vec(), i8::MAX, Vec::new()),
            None => (-1, vec![0], 0, Vec::new()),
        };
        Self { shard, slot, upto, rest: Some(rest), read: VecDeque::new(), is_empty: true }
    }
}

/// The readable results; `missing` is the error of an unreadable one.
fn readable<T>(read: Vec<Result<T, StoreError>>, missing: &mut Option<StoreError>) -> Vec<T> {
    let keep = |read: Result<T, StoreError>| read.map_err(|error| *missing = Some(error)).ok();
    read.into_iter().filter_map(keep).collect()
}

impl CqlStore {
    /// Makes a row durable.
    pub(super) async fn put_due(&self, entity: EntityKey, kind: DueKind, row: DueRow) -> Result<(), StoreError> {
        let statements = &self.db().statements;
        let shard = shard(entity);
        let known = &self.slots().0;
        if !known.contains(&(shard, row.slot)) {
            self.db().write(&statements.put_slot, (shard, row.slot)).await?;
            if known.len() >= MAX_KNOWN_SLOTS {
                known.clear();
            }
            known.insert((shard, row.slot));
        }
        let name = entity_bytes(entity);
        let values = (shard, row.slot, signed(row.at.0), &name[..], kind as i8, &row.id.0[..]);
        self.db().write(&statements.put_due, values).await
    }

    /// Deletes a row.
    pub(super) async fn forget_due(&self, entity: EntityKey, kind: DueKind, row: DueRow) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let values = (shard(entity), row.slot, signed(row.at.0), &name[..], kind as i8, &row.id.0[..]);
        self.db().write(&self.db().statements.delete_due, values).await
    }

    /// See `Store::due`.
    pub(super) async fn due_alarms(
        &self,
        after: Option<Due>,
        upto: Millis,
        limit: usize,
    ) -> Result<DuePage, StoreError> {
        let now = self.now();
        let mut missing = None;
        // A row that was overdue when written is in the slot of that time.
        let newest = slot(upto.max(now));
        let slots = stream::iter((0..SHARDS).map(|shard| self.slots_of(shard, newest)));
        let slots = readable(slots.buffer_unordered(MAX_CONCURRENT_READS).collect().await, &mut missing);
        let reads = slots.into_iter().flatten().map(async |(shard, slot)| {
            let mut source = Source::new(shard, slot, after, upto);
            self.refill(&mut source).await?;
            if after.is_none() && upto >= now {
                self.close_slot(&source, now).await;
            }
            Ok::<_, StoreError>(source)
        });
        let mut sources =
            readable(stream::iter(reads).buffer_unordered(MAX_CONCURRENT_READS).collect().await, &mut missing);
        let mut alarms: Vec<Due> = Vec::new();
        let mut checks = PageChecks::at(now);
        while alarms.len() < limit {
            let next = self.take_first(&mut sources, limit - alarms.len(), &mut missing).await;
            if next.is_empty() {
                break;
            }
            alarms.extend(self.alarms_of(next, &mut checks).await);
            // Several commits may have written one alarm, of which one was applied.
            alarms.dedup();
        }
        self.check_later(checks);
        match missing {
            Some(error) if alarms.is_empty() => Err(error),
            missing => Ok(DuePage { alarms, missing }),
        }
    }

    async fn slots_of(&self, shard: i8, newest: i64) -> Result<Vec<(i8, i64)>, StoreError> {
        let rows: Vec<(i64,)> = self.db().select(&self.db().statements.slots, (shard, newest, SLOTS_PER_READ)).await?;
        Ok(rows.into_iter().map(|(slot,)| (shard, slot)).collect())
    }

    /// Takes up to `count` rows, the earliest of all sources first. A source that cannot be read further ends there.
    async fn take_first(
        &self,
        sources: &mut [Source],
        count: usize,
        missing: &mut Option<StoreError>,
    ) -> Vec<IndexRow> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let first = sources.iter_mut().filter(|source| !source.read.is_empty());
            let Some(first) = first.min_by_key(|source| source.read.front().map(|found| found.due)) else { break };
            taken.extend(first.read.pop_front());
            if first.read.is_empty()
                && let Err(error) = self.refill(first).await
            {
                *missing = Some(error);
            }
        }
        taken
    }

    /// Reads the next page of a slot once all its rows are taken.
    async fn refill(&self, source: &mut Source) -> Result<(), StoreError> {
        let Source { shard, slot, upto, .. } = *source;
        let mut damaged = None;
        while source.read.is_empty()
            && let Some((at, entity, kind, id)) = source.rest.take()
        {
            let values = (shard, slot, at, &entity[..], kind, &id[..], signed(upto.0), ROWS_PER_PAGE);
            let rows: Vec<StoredDueRow> = self.db().select(&self.db().statements.due, values).await?;
            source.is_empty &= rows.is_empty();
            if rows.len() == ROWS_PER_PAGE as usize
                && let Some(last) = rows.last()
            {
                source.rest = Some((last.at, last.entity.to_vec(), last.kind, last.id.to_vec()));
            }
            let rows = rows.into_iter().map(|row| row.read(slot)).collect();
            source.read.extend(readable(rows, &mut damaged));
        }
        if let Some(error) = damaged {
            // No later read could find to which entities they belong.
            tracing::warn!(shard, slot, %error, "damaged rows of the due index are skipped");
        }
        Ok(())
    }

    /// Removes an empty slot that ended so long ago that nothing is written to it any more.
    async fn close_slot(&self, source: &Source, now: Millis) {
        if !source.is_empty || now <= slot_end(source.slot).plus(SLOT_OPEN_MILLIS) {
            return;
        }
        let slot = (source.shard, source.slot);
        self.slots().0.remove(&slot);
        let statements = &self.db().statements;
        let closed = async {
            self.db().write(&statements.delete_slot, slot).await?;
            self.db().write(&statements.forget_slot, slot).await
        };
        if let Err(error) = closed.await {
            // The next scan finds it empty again.
            tracing::debug!(?slot, %error, "could not delete an empty slot of the due index");
        }
    }
}

impl StoredDueRow {
    fn read(self, slot: i64) -> Result<IndexRow, StoreError> {
        let at = Millis(unsigned(self.at));
        Ok(IndexRow {
            due: Due { at, entity: entity_of(&self.entity)? },
            kind: DueKind::of(self.kind),
            row: DueRow { at, slot, id: CommitId(sixteen(&self.id)?) },
        })
    }
}
