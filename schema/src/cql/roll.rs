//! Opening the next bucket: what the closed one holds of keys and rows moves to where all closed buckets have it.
//!
//! It is all there before the next bucket is opened, so a read asks the open bucket and the closed ones' tables and
//! nothing else, however old the entity is. Two processes may do it at once and any number of times: the write time of
//! a row is the number of the commit that closed the bucket.

use std::collections::BTreeMap;

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
const PAGE: i32 = 500;
/// Keys written together; a server warns of batches above 5 KiB.
const KEYS_TOGETHER: usize = 50;
/// Writes at the same time.
const AT_ONCE: usize = 8;

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

impl CqlStore {
    /// Makes everything of a closed bucket found without it. `end`: where it ends.
    pub(super) async fn leave_bucket(&self, entity: EntityKey, bucket: i32, end: Head) -> Result<(), StoreError> {
        let values = (&entity_bytes(entity)[..], signed(end.seq), bucket + 1, signed(end.commit));
        let (keys, rows, named) = tokio::join!(
            self.move_keys(entity, bucket),
            self.move_rows(entity, bucket, end),
            self.db().write(&self.db().statements.put_bucket, values),
        );
        keys.and(rows).and(named)
    }

    async fn move_keys(&self, entity: EntityKey, bucket: i32) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let mut behind = Bytes::new();
        loop {
            let values = (&name[..], bucket, &behind[..], PAGE);
            let page: Vec<StoredKey> = self.db().select(&self.db().statements.bucket_keys, values).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = last.k.clone();
            let is_last = page.len() < PAGE as usize;
            let mut parts: BTreeMap<i8, Vec<(StoredKey, i32)>> = BTreeMap::new();
            for key in page {
                let hash = KeyHash(sixteen(&key.k)?);
                // One that is past its time already is not worth a row.
                if let Some(ttl) = seconds_left(Millis(unsigned(key.at)), self.now()) {
                    parts.entry(key_part(hash)).or_default().push((key, ttl));
                }
            }
            let mut writes = Vec::new();
            for (part, keys) in &parts {
                writes.extend(keys.chunks(KEYS_TOGETHER).map(|keys| self.keep_keys(entity, *part, keys)));
            }
            stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn keep_keys(&self, entity: EntityKey, part: i8, keys: &[(StoredKey, i32)]) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let values = keys
            .iter()
            .map(|(key, ttl)| (&name[..], part, &key.k[..], &key.fingerprint[..], key.first, key.last, key.at, *ttl));
        let statements = vec![&self.db().statements.put_old_key; keys.len()];
        self.db().write_together(statements, values.collect()).await
    }

    async fn move_rows(&self, entity: EntityKey, bucket: i32, end: Head) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let stamp = signed(end.commit);
        let (mut table, mut behind) = (-1, Bytes::new());
        loop {
            let values = (&name[..], bucket, table, &behind[..], PAGE);
            let page: Vec<StoredRow> = self.db().select(&self.db().statements.bucket_rows, values).await?;
            let Some(last) = page.last() else { return Ok(()) };
            (table, behind) = (last.n, last.k.clone());
            let is_last = page.len() < PAGE as usize;
            let writes = page.into_iter().map(async |row| {
                let list = i16::try_from(row.n).unwrap_or(i16::MAX);
                let statements = &self.db().statements;
                match row.value {
                    Some(value) => {
                        let values = (&name[..], list, &row.k[..], &value[..], stamp);
                        self.db().write(&statements.put_old_row, values).await
                    }
                    None => self.forget_old_row(entity, list, &row.k, stamp).await,
                }
            });
            stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Deletes a row of the closed buckets where there is one. Rows that came and went within one bucket, as those of
    /// short deadlines do, must not leave a mark of a deletion that every later read of the list crosses.
    async fn forget_old_row(&self, entity: EntityKey, list: i16, key: &[u8], stamp: i64) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let statements = &self.db().statements;
        let found: Option<(Bytes,)> = self.db().select_one(&statements.old_row, (&name[..], list, key)).await?;
        match found {
            Some(_) => self.db().write(&statements.delete_old_row, (stamp, &name[..], list, key)).await,
            None => Ok(()),
        }
    }
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
    fn a_key_is_kept_for_the_rest_of_its_time() {
        let at = Millis(1_735_689_600_000);
        assert_eq!(seconds_left(at, at), Some(172_800));
        assert_eq!(seconds_left(at, at.plus(KEY_KEPT_MILLIS - 1)), Some(1));
        assert_eq!(seconds_left(at, at.plus(KEY_KEPT_MILLIS)), None);
        assert_eq!(seconds_left(at.plus(5), at), Some(172_800), "clocks may differ");
    }
}
