//! Reading keys and keyed rows: the rows of the open bucket hide those of all closed buckets, which were moved together
//! when it was opened. So a read asks at most two places.

use std::cmp::Ordering;
use std::collections::VecDeque;

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{Fingerprint, KeyEffect, KeyHash, KeyRange, KeyRow, Order, Row, Scan, SeqRange, StoreError, Table};
use bytes::Bytes;
use scylla::DeserializeRow;
use scylla::statement::prepared::PreparedStatement;

use super::CqlStore;
use super::layout::{BEYOND, after, entity_bytes, key_part, sixteen, unsigned};

/// Rows of one read of a list.
const ROWS_PER_PAGE: usize = 200;

#[derive(DeserializeRow)]
struct StoredKey {
    kind: i8,
    closed: Option<bool>,
    fingerprint: Option<Bytes>,
    first: Option<i64>,
    last: Option<i64>,
    at: Option<i64>,
}

#[derive(DeserializeRow)]
struct StoredRow {
    kind: i8,
    closed: Option<bool>,
    value: Option<Bytes>,
}

pub(super) fn key_row(fingerprint: &[u8], first: i64, last: i64, at: i64) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        fingerprint: Fingerprint(sixteen(fingerprint)?),
        effect: KeyEffect::from_stored(SeqRange::new(unsigned(first), unsigned(last))),
        at: Millis(unsigned(at)),
    })
}

/// A range of keys: the first one in it and the first one after it.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) from: Vec<u8>,
    pub(super) until: Vec<u8>,
}

impl Stretch {
    /// `None` if no key can be in it.
    pub(super) fn new(range: &KeyRange) -> Option<Self> {
        let from = range.after.as_ref().map_or_else(Vec::new, |key| after(key));
        let until = range.before.as_ref().map_or_else(|| BEYOND.to_vec(), |key| key.to_vec());
        (from < until).then_some(Self { from, until })
    }

    /// The rest of it after `key`.
    pub(super) fn rest_after(&self, key: &[u8], order: Order) -> Option<Self> {
        let rest = match order {
            Order::Asc => Self { from: after(key), until: self.until.clone() },
            Order::Desc => Self { from: self.from.clone(), until: key.to_vec() },
        };
        (rest.from < rest.until).then_some(rest)
    }
}

/// One place that rows of a list are read from, page by page.
struct Source<'a> {
    statement: &'a PreparedStatement,
    partition: Partition,
    order: Order,
    page: usize,
    /// The unread range.
    rest: Option<Stretch>,
    read: VecDeque<(Bytes, Option<Bytes>)>,
}

/// The rows of a [`Source`].
#[derive(Clone, Copy)]
enum Partition {
    Bucket(i32, i64),
    Closed(i16),
}

impl Source<'_> {
    /// The next row, without taking it.
    async fn peek(
        &mut self,
        store: &CqlStore,
        entity: EntityKey,
    ) -> Result<Option<&(Bytes, Option<Bytes>)>, StoreError> {
        if self.read.is_empty()
            && let Some(stretch) = self.rest.take()
        {
            let entity = entity_bytes(entity);
            let limit = i32::try_from(self.page).unwrap_or(i32::MAX);
            let Stretch { from, until } = &stretch;
            let rows: Vec<(Bytes, Option<Bytes>)> = match self.partition {
                Partition::Bucket(bucket, n) => {
                    let values = (&entity[..], bucket, n, from, n, until, limit);
                    store.db().select(self.statement, values).await?
                }
                Partition::Closed(list) => {
                    store.db().select(self.statement, (&entity[..], list, from, until, limit)).await?
                }
            };
            if rows.len() == self.page {
                self.rest = rows.last().and_then(|(key, _)| stretch.rest_after(key, self.order));
            }
            self.read = rows.into();
        }
        Ok(self.read.front())
    }
}

impl CqlStore {
    /// See `Store::find_key`.
    pub(super) async fn key(&self, entity: EntityKey, key: KeyHash) -> Result<Option<KeyRow>, StoreError> {
        let Some(mut bucket) = self.bucket(entity).await? else { return Ok(None) };
        loop {
            let name = entity_bytes(entity);
            let newest = self.db().select::<StoredKey>(&self.db().statements.key, (&name[..], bucket, &key.0[..]));
            let (newest, old) = tokio::join!(newest, self.old_key(entity, key, bucket > 0));
            let mut found = None;
            let mut closed = false;
            for row in newest? {
                if row.kind == 0 {
                    closed = row.closed.unwrap_or(false);
                } else if let (Some(fingerprint), Some(first), Some(last), Some(at)) =
                    (row.fingerprint, row.first, row.last, row.at)
                {
                    found = Some(key_row(&fingerprint, first, last, at)?);
                }
            }
            if let Some(found) = found {
                // The caller takes the effect as acknowledged and reads it, so it must be settled first. An effect
                // without events is certainly settled only once the next event is. A row that only holds the key has no
                // effect: its commit is decided, which suffices, and a refusal because of it is settled separately.
                if let Some(events) = found.events()
                    && !self.known_heads().has_settled(entity, events.last.max(events.first))
                {
                    self.settle_bucket(entity, bucket).await?;
                }
                return Ok(Some(found));
            }
            match if closed { self.next_bucket(entity, bucket).await? } else { None } {
                Some(next) => bucket = next,
                None => return old,
            }
        }
    }

    async fn old_key(&self, entity: EntityKey, key: KeyHash, is_any: bool) -> Result<Option<KeyRow>, StoreError> {
        if !is_any {
            return Ok(None);
        }
        let name = entity_bytes(entity);
        let values = (&name[..], key_part(key), &key.0[..]);
        let row: Option<(Bytes, i64, i64, i64)> = self.db().select_one(&self.db().statements.old_key, values).await?;
        row.map(|(fingerprint, first, last, at)| key_row(&fingerprint, first, last, at)).transpose()
    }

    /// See `Store::row`.
    pub(super) async fn keyed_row(
        &self,
        entity: EntityKey,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let Some(mut bucket) = self.bucket(entity).await? else { return Ok(None) };
        loop {
            let name = entity_bytes(entity);
            let values = (&name[..], bucket, i64::from(table.0), key);
            let newest = self.db().select::<StoredRow>(&self.db().statements.row, values);
            let (newest, old) = tokio::join!(newest, self.old_row(entity, table, key, bucket > 0));
            let mut found = None;
            let mut closed = false;
            for row in newest? {
                if row.kind == 0 {
                    closed = row.closed.unwrap_or(false);
                } else {
                    found = Some(row.value);
                }
            }
            match if closed { self.next_bucket(entity, bucket).await? } else { None } {
                Some(next) => bucket = next,
                None => return found.map_or(old, Ok),
            }
        }
    }

    async fn old_row(
        &self,
        entity: EntityKey,
        table: Table,
        key: &[u8],
        is_any: bool,
    ) -> Result<Option<Bytes>, StoreError> {
        if !is_any {
            return Ok(None);
        }
        let name = entity_bytes(entity);
        let values = (&name[..], i16::from(table.0), key);
        let row: Option<(Option<Bytes>,)> = self.db().select_one(&self.db().statements.old_row, values).await?;
        Ok(row.and_then(|(value,)| value))
    }

    /// See `Store::rows`.
    pub(super) async fn keyed_rows(
        &self,
        entity: EntityKey,
        table: Table,
        scan: &Scan,
    ) -> Result<Vec<Row>, StoreError> {
        let Some(stretch) = Stretch::new(&scan.range).filter(|_| scan.limit > 0) else { return Ok(Vec::new()) };
        let Some(mut bucket) = self.bucket(entity).await? else { return Ok(Vec::new()) };
        loop {
            let name = entity_bytes(entity);
            let closed = self.db().select_one::<(bool,)>(&self.db().statements.closed, (&name[..], bucket));
            let merged = self.merged(entity, table, bucket, &stretch, scan);
            let (closed, merged) = tokio::join!(closed, merged);
            match if closed? == Some((true,)) { self.next_bucket(entity, bucket).await? } else { None } {
                Some(next) => bucket = next,
                None => return merged,
            }
        }
    }

    /// The rows of a bucket, overlaid on those of all earlier buckets.
    async fn merged(
        &self,
        entity: EntityKey,
        table: Table,
        bucket: i32,
        stretch: &Stretch,
        &Scan { order, limit, .. }: &Scan,
    ) -> Result<Vec<Row>, StoreError> {
        let statements = &self.db().statements;
        let (of_bucket, of_closed) = match order {
            Order::Asc => (&statements.rows_asc, &statements.old_rows_asc),
            Order::Desc => (&statements.rows_desc, &statements.old_rows_desc),
        };
        let source = |statement, partition, rest| Source {
            statement,
            partition,
            order,
            page: limit.min(ROWS_PER_PAGE),
            rest,
            read: VecDeque::new(),
        };
        let mut newer = source(of_bucket, Partition::Bucket(bucket, i64::from(table.0)), Some(stretch.clone()));
        let older_stretch = (bucket > 0).then(|| stretch.clone());
        let mut older = source(of_closed, Partition::Closed(i16::from(table.0)), older_stretch);
        let mut rows = Vec::new();
        while rows.len() < limit {
            let (new, old) = tokio::join!(newer.peek(self, entity), older.peek(self, entity));
            let new = new?;
            let old = old?;
            let first = match (new, old) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((new, _)), Some((old, _))) => match order {
                    Order::Asc => new.cmp(old),
                    Order::Desc => old.cmp(new),
                },
            };
            let taken = match first {
                Ordering::Greater => older.read.pop_front(),
                Ordering::Less => newer.read.pop_front(),
                Ordering::Equal => {
                    older.read.pop_front();
                    newer.read.pop_front()
                }
            };
            // A row without a value was deleted, and hides the row beneath it.
            if let Some((key, Some(value))) = taken {
                rows.push(Row { key, value });
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: Option<&'static str>, before: Option<&'static str>) -> KeyRange {
        KeyRange { after: after.map(Bytes::from), before: before.map(Bytes::from) }
    }

    #[test]
    fn a_stretch_excludes_both_ends_and_is_none_where_it_is_empty() {
        let stretch = Stretch::new(&range(Some("a"), Some("c"))).expect("a stretch");
        assert_eq!((&stretch.from[..], &stretch.until[..]), (&b"a\0"[..], &b"c"[..]));
        for empty in [range(Some("c"), Some("c")), range(Some("d"), Some("a")), range(Some("a"), Some("a\0"))] {
            assert!(Stretch::new(&empty).is_none(), "{empty:?}");
        }
        let all = Stretch::new(&KeyRange::default()).expect("a stretch");
        assert!(all.from.is_empty() && all.until[..] > [0xff; actors::limits::ROW_KEY_BYTES][..]);
    }

    #[test]
    fn the_rest_behind_a_key_excludes_the_key_in_either_order() {
        let all = Stretch::new(&KeyRange::default()).expect("a stretch");
        assert_eq!(all.rest_after(b"m", Order::Asc).expect("a rest").from, b"m\0");
        assert_eq!(all.rest_after(b"m", Order::Desc).expect("a rest").until, b"m");
        assert!(all.rest_after(b"", Order::Desc).is_none());
    }
}
