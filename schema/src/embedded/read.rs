//! Reading. Every row is verified: against its checksum, and a log row also against its neighbours.
//!
//! All reads use a snapshot. Without one, the engine also shows the applied part of an unfinished batch: a key could be
//! found before the log row that it points to.

use std::ops::Bound;

use actors::clock::Millis;
use actors::id::{Address, EntityKey};
use actors::store::{
    Cause, Due, Head, KeyHash, KeyRange, KeyRow, Loaded, LogRecord, LogScan, Order, Row, Scan, SeqRange, StoreError,
    Table, View,
};
use bytes::Bytes;
use fjall::{Guard, Iter, Readable};

use super::engine::{Engine, guarded};
use super::layout::{self, StateRow, corrupt, unreadable};
use super::log_row::{LogRow, RowHash};

/// Why a read that may visit only some rows found nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It would have to visit more rows.
    #[error("a read did not complete")]
    OverBudget,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found within a budget of rows.
type Budgeted<T> = Result<T, ReadError>;

/// The position of a walk along an entity's log; each row must follow the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainPosition {
    pub(super) head: Head,
    pub(super) hash: RowHash,
}

impl ChainPosition {
    /// Before the first row.
    pub(super) const START: Self = Self { head: Head { seq: 0, commit: 0 }, hash: [0; 16] };

    /// After `row`.
    pub(super) fn at(row: &LogRow) -> Self {
        Self { head: row.head, hash: row.hash }
    }

    /// Advances to `row`; an error if it is not the next one.
    pub(super) fn step(&mut self, row: &LogRow) -> Result<(), &'static str> {
        let follows = row.head.commit == self.head.commit + 1 && row.head.seq == self.head.seq + row.events;
        if !follows {
            return Err("a log row is missing");
        }
        if row.facts.previous != self.hash {
            return Err("a log row does not follow the one before it");
        }
        *self = Self::at(row);
        Ok(())
    }
}

fn log_row(entity: EntityKey, guard: Guard) -> Result<LogRow, StoreError> {
    let (key, value) = guard.into_inner().map_err(|error| unreadable(entity, error))?;
    LogRow::decode(&key, &value).ok_or_else(|| corrupt(entity, "a log row is damaged"))
}

/// The value of a row outside the log.
fn value(entity: EntityKey, key: &[u8], sealed: &[u8]) -> Result<Bytes, StoreError> {
    let value = layout::unseal(key, sealed).ok_or_else(|| corrupt(entity, "a row is damaged"))?;
    Ok(Bytes::copy_from_slice(value))
}

impl Engine {
    pub(super) fn load(&self, entity: EntityKey, budget: usize) -> Budgeted<Option<Loaded>> {
        guarded(entity, || {
            let snapshot = self.snapshot();
            let Some(newest) = snapshot.prefix(&self.log, layout::entity_key(entity)).next_back() else {
                return Ok(None);
            };
            let newest = log_row(entity, newest)?;
            let mut walk = ChainPosition::START;
            let mut state = None;
            if newest.facts.state_commit > 0 {
                let key = layout::state_key(entity);
                let found = snapshot.get(&self.rows, key).map_err(|error| unreadable(entity, error))?;
                let value = value(entity, &key, &found.ok_or_else(|| corrupt(entity, "its state is missing"))?)?;
                let row = StateRow::decode(&value)
                    .filter(|row| row.head.commit == newest.facts.state_commit)
                    .ok_or_else(|| corrupt(entity, "its state is not the newest one"))?;
                walk = ChainPosition { head: row.head, hash: row.hash };
                state = Some(value.slice_ref(row.state));
            }
            let mut tail = Vec::new();
            let since = Bound::Excluded(layout::log_key(entity, walk.head));
            let until = Bound::Included(layout::log_key(entity, newest.head));
            if walk.head != newest.head {
                for (n, guard) in snapshot.range(&self.log, (since, until)).enumerate() {
                    if n >= budget {
                        return Err(ReadError::OverBudget);
                    }
                    let row = log_row(entity, guard)?;
                    walk.step(&row).map_err(|what| corrupt(entity, what))?;
                    tail.extend(row.records());
                }
            }
            if (walk.head, walk.hash) != (newest.head, newest.hash) {
                return Err(corrupt(entity, "its log does not end at its newest row").into());
            }
            let alarm = newest.facts.alarm;
            // No other process writes, and reads follow the journal's order.
            Ok(Some(Loaded { head: newest.head, state, tail, alarm, settled: true }))
        })
    }

    /// The log row with the event of this sequence.
    pub(super) fn log_row_of(&self, entity: EntityKey, seq: u64) -> Result<Option<LogRow>, StoreError> {
        guarded(entity, || {
            let row = self.rows_from(&self.snapshot(), entity, seq).next().map(|guard| log_row(entity, guard));
            Ok(row.transpose()?.filter(|row| row.head.seq - row.events < seq))
        })
    }

    pub(super) fn find_key(&self, entity: EntityKey, name: KeyHash) -> Result<Option<KeyRow>, StoreError> {
        guarded(entity, || {
            let key = layout::idempotency_key(entity, name);
            let found = self.snapshot().get(&self.keys, key).map_err(|error| unreadable(entity, error))?;
            let Some(found) = found else { return Ok(None) };
            let row = layout::unseal(&key, &found).and_then(layout::read_key_row);
            row.map(Some).ok_or_else(|| corrupt(entity, "an idempotency key is damaged"))
        })
    }

    pub(super) fn read_log(&self, entity: EntityKey, scan: LogScan, budget: usize) -> Budgeted<Vec<LogRecord>> {
        let range = SeqRange { first: scan.range.first.max(1), ..scan.range };
        let scan = LogScan { range, ..scan };
        if range.is_empty() || scan.limit == 0 {
            return Ok(Vec::new());
        }
        guarded(entity, || match scan.order {
            Order::Asc => self.read_ascending(entity, scan, budget),
            Order::Desc => self.read_descending(entity, scan, budget),
        })
    }

    /// The log rows from the first that may hold `from` on.
    fn rows_from(&self, snapshot: &fjall::Snapshot, entity: EntityKey, from: u64) -> Iter {
        let first = layout::log_key(entity, Head { seq: from, commit: 0 });
        let last = layout::log_key(entity, Head { seq: u64::MAX, commit: u64::MAX });
        snapshot.range(&self.log, first..=last)
    }

    fn read_ascending(
        &self,
        entity: EntityKey,
        LogScan { range, limit, .. }: LogScan,
        budget: usize,
    ) -> Budgeted<Vec<LogRecord>> {
        let mut found = Vec::new();
        let mut walk = None;
        for (n, guard) in self.rows_from(&self.snapshot(), entity, range.first).enumerate() {
            if n >= budget {
                return Err(ReadError::OverBudget);
            }
            let row = log_row(entity, guard)?;
            match &mut walk {
                None if row.head.seq - row.events >= range.first => {
                    return Err(corrupt(entity, "a log row is missing").into());
                }
                None => walk = Some(ChainPosition::at(&row)),
                Some(walk) => walk.step(&row).map_err(|what| corrupt(entity, what))?,
            }
            let inside = row.records().filter(|record| record.event && range.contains(record.seq));
            found.extend(inside.take(limit - found.len()));
            if found.len() == limit || row.head.seq >= range.last {
                break;
            }
        }
        Ok(found)
    }

    fn read_descending(
        &self,
        entity: EntityKey,
        LogScan { range, limit, .. }: LogScan,
        budget: usize,
    ) -> Budgeted<Vec<LogRecord>> {
        let snapshot = self.snapshot();
        // The row with the last one ends at or after it; without such a row the log ends before.
        let last = range.last;
        let holds_last = (last < u64::MAX).then(|| self.rows_from(&snapshot, entity, last).next()).flatten();
        let top = match holds_last {
            Some(guard) => log_row(entity, guard)?.head,
            None => Head { seq: u64::MAX, commit: u64::MAX },
        };
        let keys = layout::log_key(entity, Head { seq: range.first, commit: 0 })..=layout::log_key(entity, top);
        let mut found = Vec::<LogRecord>::new();
        let mut later = None::<LogRow>;
        for (n, guard) in snapshot.range(&self.log, keys).rev().enumerate() {
            if n >= budget {
                return Err(ReadError::OverBudget);
            }
            let row = log_row(entity, guard)?;
            if let Some(later) = &later {
                ChainPosition::at(&row).step(later).map_err(|what| corrupt(entity, what))?;
            }
            let inside = |record: &LogRecord| record.event && range.contains(record.seq);
            let mut records: Vec<_> = row.records().filter(inside).collect();
            records.reverse();
            records.truncate(limit - found.len());
            found.append(&mut records);
            if found.len() == limit {
                return Ok(found);
            }
            later = Some(row);
        }
        if later.is_some_and(|row| row.head.seq - row.events >= range.first) {
            return Err(corrupt(entity, "a log row is missing").into());
        }
        Ok(found)
    }

    pub(super) fn row(&self, entity: EntityKey, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded(entity, || {
            let key = layout::row_key(entity, table, key);
            let found = self.snapshot().get(&self.rows, &key).map_err(|error| unreadable(entity, error))?;
            found.map(|sealed| value(entity, &key, &sealed)).transpose()
        })
    }

    pub(super) fn rows(&self, entity: EntityKey, table: Table, scan: &Scan, budget: usize) -> Budgeted<Vec<Row>> {
        let prefix = layout::row_key(entity, table, &[]);
        guarded(entity, || self.list(entity, &self.rows, prefix, scan, budget))
    }

    pub(super) fn view(&self, workspace: Address, view: View, scan: &Scan, budget: usize) -> Budgeted<Vec<Row>> {
        let entity = EntityKey::workspace(workspace);
        let prefix = layout::view_key(workspace, view, &[]);
        guarded(entity, || self.list(entity, &self.index, prefix, scan, budget))
    }

    /// Rows of `keyspace` whose keys begin with `prefix` and continue within the scan's range.
    fn list(
        &self,
        entity: EntityKey,
        keyspace: &fjall::Keyspace,
        prefix: Vec<u8>,
        Scan { range, order, limit }: &Scan,
        budget: usize,
    ) -> Budgeted<Vec<Row>> {
        if let (Some(after), Some(before)) = (&range.after, &range.before)
            && after >= before
        {
            return Ok(Vec::new());
        }
        let skip = prefix.len();
        let full = |key: &Bytes| [&prefix, &key[..]].concat();
        let from =
            range.after.as_ref().map_or_else(|| Bound::Included(prefix.clone()), |key| Bound::Excluded(full(key)));
        let to = match &range.before {
            Some(key) => Some(full(key)),
            None => KeyRange::under(&prefix).before.map(Vec::from),
        };
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        let mut iter = self.snapshot().range(keyspace, (from, to));
        while found.len() < *limit {
            let next = if *order == Order::Asc { iter.next() } else { iter.next_back() };
            let Some(guard) = next else { break };
            if found.len() >= budget {
                return Err(ReadError::OverBudget);
            }
            let (key, sealed) = guard.into_inner().map_err(|error| unreadable(entity, error))?;
            let value = value(entity, &key, &sealed)?;
            found.push(Row { key: Bytes::copy_from_slice(&key[skip..]), value });
        }
        Ok(found)
    }

    pub(super) fn due(&self, after: Option<Due>, upto: Millis, limit: usize, budget: usize) -> Budgeted<Vec<Due>> {
        guarded(EntityKey::INSTALLATION, || {
            let from = after.map_or(Bound::Included(layout::DUE_FIRST), |due| Bound::Excluded(layout::due_key(due)));
            let to = Bound::Included(layout::due_key(Due { at: upto, entity: layout::LAST_ENTITY }));
            let mut found = Vec::new();
            if after.is_some_and(|due| due.at > upto) {
                return Ok(found);
            }
            for guard in self.snapshot().range(&self.index, (from, to)).take(limit) {
                if found.len() >= budget {
                    return Err(ReadError::OverBudget);
                }
                let key = guard.key().map_err(|error| StoreError::Corrupt(Cause::of("the due alarms", error)))?;
                let due = layout::read_due_key(&key)
                    .ok_or_else(|| StoreError::Corrupt("a due alarm's key is damaged".into()))?;
                found.push(due);
            }
            Ok(found)
        })
    }
}
