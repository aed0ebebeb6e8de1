//! Opening the next bucket: the closed one's keys and rows move to the tables of all closed buckets.
//!
//! The move is complete before the next bucket is opened, so a read asks only the open bucket and the closed ones'
//! tables, however old the entity is. Two processes may do it at once and any number of times, one of them however late:
//! the write time of a row is the number of the commit that closed the bucket, and that of a key its own time. The first
//! release wrote keys with the time of the write, which is earlier than that of the same key in its next life.

use std::collections::BTreeMap;
use std::ops::Range;

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::limits::KEY_KEPT_MILLIS;
use actors::store::{Head, KeyHash, StoreError};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use scylla::DeserializeRow;

use super::CqlStore;
use super::layout::{entity_bytes, key_part, signed, sixteen, unsigned};

/// Rows of one read of a bucket.
const ROWS_PER_PAGE: i32 = 500;
/// Keys written together; a server warns of batches above 5 KiB.
const KEYS_TOGETHER: usize = 50;
/// Keyed rows written together, and their bytes. A bucket of nothing else is some eighty batches, so that it is moved
/// within the time of one commit even if statements are slow.
pub(super) const ROWS_TOGETHER: usize = 50;
const BYTES_TOGETHER: usize = 64 * 1024;
/// Writes at the same time.
const MAX_CONCURRENT_WRITES: usize = 8;

#[derive(Clone, Debug, DeserializeRow)]
struct StoredKey {
    k: Bytes,
    fingerprint: Bytes,
    first: i64,
    last: i64,
    at: i64,
}

#[derive(Debug, DeserializeRow)]
struct StoredRow {
    n: i64,
    k: Bytes,
    value: Option<Bytes>,
}

impl StoredRow {
    fn bytes(&self) -> usize {
        self.k.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

impl CqlStore {
    /// Moves the keys and rows of a closed bucket. `end`: its last head.
    pub(super) async fn leave_bucket(&self, entity: EntityKey, bucket: i32, end: Head) -> Result<(), StoreError> {
        let values = (&entity_bytes(entity)[..], signed(end.seq), bucket + 1, signed(end.commit));
        let (keys, rows, named) = tokio::join!(
            self.move_keys(entity, bucket),
            self.move_rows(entity, bucket, end),
            self.db().write(&self.db().statements.put_bucket, values),
        );
        keys.and(rows).and(named)
    }

    /// The same, like a process that was delayed for however long.
    ///
    /// # Errors
    /// The server's error.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn leave_bucket_late(&self, entity: EntityKey, bucket: i32, end: Head) -> Result<(), StoreError> {
        self.leave_bucket(entity, bucket, end).await
    }

    async fn move_keys(&self, entity: EntityKey, bucket: i32) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let mut cursor = Bytes::new();
        loop {
            let values = (&name[..], bucket, &cursor[..], ROWS_PER_PAGE);
            let page: Vec<StoredKey> = self.db().select(&self.db().statements.bucket_keys, values).await?;
            let Some(last) = page.last() else { return Ok(()) };
            cursor = last.k.clone();
            let is_last = page.len() < ROWS_PER_PAGE as usize;
            let mut parts: BTreeMap<i8, Vec<(StoredKey, i32)>> = BTreeMap::new();
            for key in page {
                let hash = KeyHash(sixteen(&key.k)?);
                // An expired key is not worth a row.
                if let Some(ttl) = seconds_left(Millis(unsigned(key.at)), self.now()) {
                    parts.entry(key_part(hash)).or_default().push((key, ttl));
                }
            }
            let mut writes = Vec::new();
            for (part, keys) in &parts {
                writes.extend(keys.chunks(KEYS_TOGETHER).map(|keys| self.keep_keys(entity, (bucket, *part), keys)));
            }
            stream::iter(writes).buffer_unordered(MAX_CONCURRENT_WRITES).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn keep_keys(
        &self,
        entity: EntityKey,
        (bucket, part): (i32, i8),
        keys: &[(StoredKey, i32)],
    ) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let values = keys.iter().map(|(key, ttl)| {
            let StoredKey { k, fingerprint, first, last, at } = key;
            (&name[..], part, &k[..], &fingerprint[..], *first, *last, *at, *ttl, key_stamp(*at, bucket))
        });
        let statements = vec![&self.db().statements.put_old_key; keys.len()];
        self.db().write_together(statements, values.collect()).await
    }

    async fn move_rows(&self, entity: EntityKey, bucket: i32, end: Head) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let stamp = signed(end.commit);
        let mut table = -1;
        let mut cursor = Bytes::new();
        loop {
            let values = (&name[..], bucket, table, &cursor[..], ROWS_PER_PAGE);
            let page: Vec<StoredRow> = self.db().select(&self.db().statements.bucket_rows, values).await?;
            let Some(last) = page.last() else { return Ok(()) };
            table = last.n;
            cursor = last.k.clone();
            let is_last = page.len() < ROWS_PER_PAGE as usize;
            let mut lists: BTreeMap<i16, Vec<StoredRow>> = BTreeMap::new();
            for row in page {
                lists.entry(i16::try_from(row.n).unwrap_or(i16::MAX)).or_default().push(row);
            }
            let mut writes = Vec::new();
            for (list, rows) in &lists {
                let together = together(rows.iter().map(StoredRow::bytes));
                writes.extend(together.into_iter().map(|part| self.keep_rows(entity, *list, &rows[part], stamp)));
            }
            stream::iter(writes).buffer_unordered(MAX_CONCURRENT_WRITES).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Puts rows into the tables of closed buckets, and deletes there the rows deleted in this one. A row that was
    /// created and deleted within one bucket, as for a short deadline, must not leave a tombstone that every later read
    /// of the list crosses: so deleted rows are looked up first.
    async fn keep_rows(&self, entity: EntityKey, list: i16, rows: &[StoredRow], stamp: i64) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let statements = &self.db().statements;
        let put = |row: &'_ StoredRow| row.value.clone().map(|value| (name, list, row.k.clone(), value, stamp));
        let puts: Vec<_> = rows.iter().filter_map(put).collect();
        if !puts.is_empty() {
            self.db().write_together(vec![&statements.put_old_row; puts.len()], puts).await?;
        }
        let deleted = rows.iter().filter(|row| row.value.is_none()).map(|row| &row.k[..]).collect();
        self.delete_old_rows(entity, list, deleted, stamp).await
    }

    /// Deletes those of a list's rows that the tables of closed buckets have.
    pub(super) async fn delete_old_rows(
        &self,
        entity: EntityKey,
        list: i16,
        keys: Vec<&[u8]>,
        stamp: i64,
    ) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let name = entity_bytes(entity);
        let statements = &self.db().statements;
        let existing: Vec<(Bytes,)> = self.db().select(&statements.old_rows_among, (&name[..], list, &keys)).await?;
        let deletions: Vec<_> = existing.iter().map(|(key,)| (stamp, &name[..], list, &key[..])).collect();
        if deletions.is_empty() {
            return Ok(());
        }
        self.db().write_together(vec![&statements.delete_old_row; deletions.len()], deletions).await
    }
}

/// Splits rows of these lengths into parts that are written together, in order: up to a number of rows and bytes, or
/// one row.
fn together(lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for (at, length) in lengths.enumerate() {
        match parts.last_mut() {
            Some(part) if part.len() < ROWS_TOGETHER && filled + length <= BYTES_TOGETHER => {
                part.end = at + 1;
                filled += length;
            }
            _ => {
                parts.push(at..at + 1);
                filled = length;
            }
        }
    }
    parts
}

/// The write time of a key of the time `at`, in microseconds: later for what the key did later, in however close a
/// bucket.
fn key_stamp(at: i64, bucket: i32) -> i64 {
    at.saturating_mul(1_000).saturating_add(i64::from(bucket.rem_euclid(1_000)))
}

/// How long a key of the time `at` must still be kept; `None`: no longer.
fn seconds_left(at: Millis, now: Millis) -> Option<i32> {
    let left = KEY_KEPT_MILLIS.checked_sub(now.since(at))?.div_ceil(1000);
    i32::try_from(left).ok().filter(|left| *left > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_together_up_to_a_number_of_them_and_of_their_bytes() {
        let parts = |lengths: &[usize]| together(lengths.iter().copied());
        assert_eq!(parts(&[]), [0..0; 0]);
        assert_eq!(parts(&[10; 2 * ROWS_TOGETHER + 1]), [0..50, 50..100, 100..101]);
        assert_eq!(parts(&[BYTES_TOGETHER - 1, 1, 1, 5]), [0..2, 2..4]);
        assert_eq!(parts(&[3 * BYTES_TOGETHER, 1, 3 * BYTES_TOGETHER]), [0..1, 1..2, 2..3], "one is written anyway");
    }

    #[test]
    fn a_later_effect_of_a_key_has_a_later_write_time() {
        let at = 1_735_689_600_000;
        assert!(key_stamp(at, 7) < key_stamp(at, 8), "in the next bucket at the same time");
        assert!(key_stamp(at, 999) < key_stamp(at + 1, 1_000));
    }

    #[test]
    fn a_key_is_kept_for_the_rest_of_its_time() {
        let at = Millis(1_735_689_600_000);
        assert_eq!(seconds_left(at, at), Some(172_800));
        assert_eq!(seconds_left(at, at.plus(KEY_KEPT_MILLIS - 1)), Some(1));
        assert_eq!(seconds_left(at, at.plus(KEY_KEPT_MILLIS)), None);
        assert_eq!(seconds_left(at.plus(5), at), Some(172_800), "clocks may differ");
    }
}
