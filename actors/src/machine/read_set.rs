//! The data that decisions read: rows and events of the store, overlaid with the writes of the same batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use minicbor::Decode;

use super::Record;
use crate::codec;
use crate::outbox::Listeners;
use crate::store::{KeyHash, KeyRow, Row, RowWrite, StoreError, Table};

/// Something that must be read from the store before a command can be decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// One keyed row.
    Row(Table, Bytes),
    /// The first rows of a list, ascending: up to `limit` of them.
    First(Table, usize),
    /// The rows of a list whose keys begin with this prefix, up to 1,024 of them.
    Under(Table, Bytes),
    /// The event with this sequence.
    Event(u64),
}

/// The most rows under one prefix that a decision reads: one thing has few rows, and a commit could not take more.
pub(crate) const MAX_ROWS_UNDER_PREFIX: usize = 1_024;

/// The data read for a batch of commands, overlaid with the batch's own writes.
#[derive(Debug, Default)]
pub struct ReadSet {
    read: Layer,
    written: Layer,
    firsts: HashMap<Table, Result<First, StoreError>>,
    unders: HashMap<(Table, Bytes), Result<(), StoreError>>,
    /// The receivers that subscribe to the decided events.
    listeners: Listeners,
}

/// The read part of a list, from its start.
#[derive(Debug)]
struct First {
    /// How many rows were requested.
    limit: usize,
    /// Beyond this row the list is unknown; `None`: it was read to its end.
    upto: Option<Bytes>,
}

/// The bytes that are stored, if any, or how they are damaged. The machine decides about damage.
type Found = Result<Option<Bytes>, StoreError>;

#[derive(Debug, Default)]
struct Layer {
    rows: BTreeMap<(Table, Bytes), Found>,
    events: HashMap<u64, Found>,
    keys: HashMap<KeyHash, Option<KeyRow>>,
}

/// Why a command could not be decided.
#[derive(Clone, Debug)]
pub enum Undecided {
    /// Something had not been read; the host reads it and asks again.
    Missing(Vec<Need>),
    /// The data read is damaged, or a newer version of this program wrote it. Nothing is decided on it.
    Corrupt(StoreError),
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Self::Corrupt(error)
    }
}

/// What was found. `None`: `need` was not read.
fn found(found: Option<&Found>, need: impl FnOnce() -> Need) -> Result<Option<&Bytes>, Undecided> {
    match found {
        Some(Ok(bytes)) => Ok(bytes.as_ref()),
        Some(Err(damage)) => Err(Undecided::Corrupt(damage.clone())),
        None => Err(Undecided::Missing(vec![need()])),
    }
}

impl ReadSet {
    /// A keyed row, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or is damaged.
    pub fn row(&self, table: Table, key: impl Into<Bytes>) -> Result<Option<&Bytes>, Undecided> {
        let key = (table, key.into());
        let row = self.written.rows.get(&key).or_else(|| self.read.rows.get(&key));
        found(row, || Need::Row(key.0, key.1))
    }

    /// The decoded value of a keyed row, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, is damaged, or does not decode.
    pub fn stored<T: for<'b> Decode<'b, ()>>(
        &self,
        table: Table,
        key: impl Into<Bytes>,
    ) -> Result<Option<T>, Undecided> {
        Ok(self.row(table, key)?.map(|bytes| codec::decode(bytes)).transpose()?)
    }

    /// The first rows of a list, ascending: fewer than `limit` only where the list has no more.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if they were not read, if one is damaged, or if the batch has deleted so many of them that more
    /// must be read.
    pub fn first(&self, table: Table, limit: usize) -> Result<Vec<(&Bytes, &Bytes)>, Undecided> {
        let first = match self.firsts.get(&table) {
            Some(Ok(first)) if first.limit >= limit => first,
            Some(Err(damage)) => return Err(Undecided::Corrupt(damage.clone())),
            Some(Ok(_)) | None => return Err(Undecided::Missing(vec![Need::First(table, limit)])),
        };
        let mut merged = BTreeMap::new();
        let mut deleted = 0;
        for layer in [&self.read, &self.written] {
            let rows = layer.rows.range((table, Bytes::new())..).take_while(|((t, _), _)| *t == table);
            for ((_, key), value) in rows.filter(|((_, key), _)| first.upto.as_ref().is_none_or(|upto| key <= upto)) {
                let value = value.as_ref().map_err(|damage| Undecided::Corrupt(damage.clone()))?.as_ref();
                deleted += usize::from(value.is_none());
                merged.insert(key, value);
            }
        }
        let rows: Vec<_> = merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect();
        if rows.len() < limit && first.upto.is_some() {
            return Err(Undecided::Missing(vec![Need::First(table, first.limit.max(limit) + deleted)]));
        }
        Ok(rows)
    }

    /// The keys of a list that begin with `prefix`, as far as they were read.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if they were not read, or one is damaged.
    pub fn under(&self, table: Table, prefix: &Bytes) -> Result<BTreeSet<&Bytes>, Undecided> {
        match self.unders.get(&(table, prefix.clone())) {
            Some(Ok(())) => {}
            Some(Err(damage)) => return Err(Undecided::Corrupt(damage.clone())),
            None => return Err(Undecided::Missing(vec![Need::Under(table, prefix.clone())])),
        }
        let mut keys = BTreeSet::new();
        for layer in [&self.read, &self.written] {
            let rows = layer.rows.range((table, prefix.clone())..);
            for ((_, key), value) in rows.take_while(|((of, key), _)| *of == table && key.starts_with(prefix)) {
                // A damaged one has its key all the same.
                if matches!(value, Ok(None)) {
                    keys.remove(key)
                } else {
                    keys.insert(key)
                };
            }
        }
        Ok(keys)
    }

    /// The receivers that subscribe to the decided events.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Sets the listeners of the decisions that follow.
    pub fn set_listeners(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// The stored encoding of the event with this sequence, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or is damaged.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<&Bytes>, Undecided> {
        found(self.written.events.get(&seq).or_else(|| self.read.events.get(&seq)), || Need::Event(seq))
    }

    /// The event with this sequence, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or does not decode.
    pub fn record<E: for<'b> Decode<'b, ()>>(&self, seq: u64) -> Result<Option<Record<E>>, Undecided> {
        Ok(self.event(seq)?.map(|bytes| codec::decode_record(seq, bytes)).transpose()?)
    }

    /// The stored effect of an idempotency key; `None`: it was not read.
    pub(crate) fn key(&self, key: KeyHash) -> Option<Option<KeyRow>> {
        self.written.keys.get(&key).or_else(|| self.read.keys.get(&key)).copied()
    }

    /// Whether `need` was read, be it damaged.
    pub(crate) fn has(&self, need: &Need) -> bool {
        match need {
            Need::Row(table, key) => !matches!(self.row(*table, key.clone()), Err(Undecided::Missing(_))),
            Need::First(table, limit) => match self.firsts.get(table) {
                Some(Ok(first)) => first.limit >= *limit,
                Some(Err(_)) => true,
                None => false,
            },
            Need::Under(table, prefix) => self.unders.contains_key(&(*table, prefix.clone())),
            Need::Event(seq) => !matches!(self.event(*seq), Err(Undecided::Missing(_))),
        }
    }

    pub(crate) fn add_row(&mut self, table: Table, key: Bytes, row: Found) {
        self.read.rows.insert((table, key), row);
    }

    pub(crate) fn add_first(&mut self, table: Table, limit: usize, rows: Result<Vec<Row>, StoreError>) {
        let first = rows.map(|rows| {
            let upto = rows.last().filter(|_| rows.len() >= limit).map(|row| row.key.clone());
            self.read.add_rows(table, rows);
            First { limit, upto }
        });
        self.firsts.insert(table, first);
    }

    pub(crate) fn add_under(&mut self, table: Table, prefix: Bytes, rows: Result<Vec<Row>, StoreError>) {
        let under = rows.map(|rows| self.read.add_rows(table, rows));
        self.unders.insert((table, prefix), under);
    }

    pub(crate) fn add_event(&mut self, seq: u64, event: Found) {
        self.read.events.insert(seq, event);
    }

    pub(crate) fn add_key(&mut self, key: KeyHash, row: Option<KeyRow>) {
        self.read.keys.insert(key, row);
    }

    pub(crate) fn write_row(&mut self, write: &RowWrite) {
        self.written.rows.insert((write.table, write.key.clone()), Ok(write.value.clone()));
    }

    pub(crate) fn write_event(&mut self, seq: u64, event: Bytes) {
        self.written.events.insert(seq, Ok(Some(event)));
    }

    pub(crate) fn write_key(&mut self, key: KeyHash, row: KeyRow) {
        self.written.keys.insert(key, Some(row));
    }

    /// Drops the batch's own writes, so that it can be decided again.
    pub(crate) fn forget_writes(&mut self) {
        self.written = Layer::default();
    }
}

impl Layer {
    fn add_rows(&mut self, table: Table, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| ((table, row.key), Ok(Some(row.value)))));
    }
}
