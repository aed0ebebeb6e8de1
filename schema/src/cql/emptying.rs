//! Emptying closed buckets.
//!
//! What a closed bucket held is in the tables of all closed buckets once the next one is open (see `roll`), and there
//! it is changed and deleted. Its own rows would keep erased text for ever, and so would the state in its head. They
//! are removed a minute later: by then nobody reads them who still took the bucket for the open one.
//!
//! Each opening of a bucket leaves a row of the due index for it, and whoever finds that does the work. Repeating it
//! changes nothing.

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::StoreError;

use super::CqlStore;
use super::known_heads::KnownHead;
use super::layout::{entity_bytes, signed, unsigned};
use super::plan::LISTS_AFTER_MILLIS;

/// How many of the newest closed buckets are looked at: more than an entity can fill in a minute.
const MAX_BUCKETS: i32 = 64;
/// The write time of a removal lies so far ahead of the clock, because rows have the clock of the node that wrote
/// them. Nothing is written to a closed bucket later.
const AHEAD_MILLIS: u64 = 3_600_000;

impl CqlStore {
    /// Removes keyed rows and states of buckets that were closed a while ago, and rows of closed buckets that the open
    /// one has changed. `false`: the entity's `newest` commit is too young for the latter.
    pub(super) async fn empty_closed_buckets(
        &self,
        entity: EntityKey,
        newest: &KnownHead,
        now: Millis,
    ) -> Result<bool, StoreError> {
        for bucket in (newest.bucket - MAX_BUCKETS).max(0)..newest.bucket {
            if self.is_to_be_emptied(entity, bucket, now).await? {
                self.empty_bucket(entity, bucket, now).await?;
            }
        }
        if newest.bucket == 0 {
            return Ok(true);
        }
        if !is_long_ago(newest.stamp, now) {
            return Ok(false);
        }
        self.delete_changed_rows(entity, newest.bucket, newest.base).await.map(|()| true)
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
}

/// Whether nobody reads any more who began before the commit of this write time, in microseconds.
fn is_long_ago(stamp: i64, now: Millis) -> bool {
    now.since(Millis(unsigned(stamp) / 1000)) >= LISTS_AFTER_MILLIS
}
