//! Emptying closed buckets, and the tables of all closed buckets.
//!
//! What a closed bucket held is in the tables of all closed buckets once the next one is open (see `roll`), and there
//! it is changed and deleted. Its own rows would keep erased text for ever, and so would the state in its head. They
//! are removed a minute later: by then nobody reads them who still took the bucket for the open one. Each opening of a
//! bucket leaves a row of the due index for it.
//!
//! The tables of all closed buckets learn of changes when the open bucket is left, which may be never. So a commit that
//! erases content leaves a row of the due index too, by which former values of all rows that the open bucket has changed
//! are removed there, once the entity has rested for a minute.
//!
//! Whoever finds such a row does the work. Repeating it changes nothing.

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::StoreError;
use bytes::Bytes;

use super::CqlStore;
use super::heads::Reading;
use super::known_heads::KnownHead;
use super::layout::{RESTED_AFTER_MILLIS, entity_bytes, signed, unsigned};
use super::roll::ROWS_TOGETHER;

/// How many of the newest closed buckets are looked at: more than an entity can fill in a minute.
const MAX_BUCKETS: i32 = 64;
/// The write time of a removal lies so far ahead of the clock, because rows have the clock of the node that wrote
/// them. Nothing is written to a closed bucket later.
const AHEAD_MILLIS: u64 = 3_600_000;

impl CqlStore {
    /// Removes keyed rows and states of buckets before `newest` that were closed a while ago.
    pub(super) async fn empty_closed_buckets(
        &self,
        entity: EntityKey,
        newest: i32,
        now: Millis,
    ) -> Result<(), StoreError> {
        for bucket in (newest - MAX_BUCKETS).max(0)..newest {
            if self.is_to_be_emptied(entity, bucket, now).await? {
                self.empty_bucket(entity, bucket, now).await?;
            }
        }
        Ok(())
    }

    async fn is_to_be_emptied(&self, entity: EntityKey, bucket: i32, now: Millis) -> Result<bool, StoreError> {
        let values = (&entity_bytes(entity)[..], bucket);
        let head: Option<(Option<i64>, Option<bool>, Option<i32>)> =
            self.db().select_one(&self.db().statements.closing, values).await?;
        let Some((Some(stamp), Some(true), None)) = head else { return Ok(false) };
        Ok(is_long_ago(stamp, now))
    }

    async fn empty_bucket(&self, entity: EntityKey, bucket: i32, now: Millis) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        let stamp = signed(now.plus(AHEAD_MILLIS).0.saturating_mul(1000));
        let values = (stamp, &name[..], bucket);
        self.db().write(&self.db().statements.empty_rows, values).await?;
        // Last, because it marks the bucket as empty.
        self.db().write(&self.db().statements.empty_head, values).await
    }

    /// Removes what closed buckets keep of erased content. `Some`: a reader may still need it, because the entity's
    /// newest commit is of this time.
    pub(super) async fn finish_erasure(&self, entity: EntityKey, now: Millis) -> Result<Option<Millis>, StoreError> {
        let Some(known) = self.newest_head(entity, Reading::Settled).await?.map(|newest| newest.known) else {
            return Ok(None);
        };
        self.empty_closed_buckets(entity, known.bucket, now).await?;
        if known.bucket == 0 {
            return Ok(None);
        }
        let values = (&entity_bytes(entity)[..], known.bucket);
        let changed: Vec<(i64, Bytes)> = self.db().select(&self.db().statements.bucket_row_names, values).await?;
        // Read again, because the rows may be of a later commit than the first one read.
        let newest = self.newest_head(entity, Reading::Settled).await?;
        let newest = newest.map_or(known, |newest| newest.known);
        if newest.head.commit != known.head.commit || !is_long_ago(known.stamp, now) {
            return Ok(Some(Millis(unsigned(newest.stamp) / 1000)));
        }
        self.delete_former_rows(entity, &known, &changed).await.map(|()| None)
    }

    /// Deletes rows from the tables of closed buckets that the open one has changed, so that every read takes them from
    /// there. Their time is that of the newest closed bucket: a process that moves its rows late does not bring them
    /// back, and the open bucket's rows get a later one.
    async fn delete_former_rows(
        &self,
        entity: EntityKey,
        known: &KnownHead,
        changed: &[(i64, Bytes)],
    ) -> Result<(), StoreError> {
        let stamp = signed(known.base.commit);
        for rows in changed.chunk_by(|(list, _), (next, _)| list == next) {
            let Some(list) = rows.first().and_then(|(list, _)| i16::try_from(*list).ok()) else { continue };
            for rows in rows.chunks(ROWS_TOGETHER) {
                let keys = rows.iter().map(|(_, key)| &key[..]).collect();
                self.delete_old_rows(entity, list, keys, stamp).await?;
            }
        }
        Ok(())
    }
}

/// Whether nobody reads any more who began before the commit of this write time, in microseconds.
fn is_long_ago(stamp: i64, now: Millis) -> bool {
    now.since(Millis(unsigned(stamp) / 1000)) >= RESTED_AFTER_MILLIS
}
