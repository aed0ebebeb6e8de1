//! Removing content from the log (redaction).
//!
//! The row to change may be in a bucket that was closed long ago, so a redaction cannot be part of the conditional
//! batch in the open one. It is a conditional write of its own, done after that batch as list entries are (see
//! `lists`): a refused commit must redact nothing. The condition is the row's revision, so that of two redactions of
//! different content neither restores the other's. Repeating it changes nothing.
//!
//! A process may be so late that others have committed and redacted more meanwhile. No commit follows another before
//! that one's redactions are done (see `commit`). So a process that reads the row and then finds a newer commit has
//! nothing left to do; and if a newer commit comes after that check, its redaction changes the row's revision.
//!
//! A commit's row also holds the list entries that it wrote, with keys and values that may contain what is redacted, such
//! as a contact's name. They are read only while it is the newest commit, so a redaction removes them too.

use std::collections::BTreeMap;

use actors::id::{EntityKey, half};
use actors::store::{Cause, CommitId, NewRecord, Redaction, StoreError};
use bytes::Bytes;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, MaybeUnset, Row};

use super::CqlStore;
use super::db::count;
use super::heads::Reading;
use super::layout::{commit_row, encode_records, entity_bytes};
use super::log::{StoredCommit, Stretch};
use super::plan::{CHUNK_BYTES, INLINE_BYTES};

/// How often a row is retried, while others change it or outcomes are unknown.
const MAX_ATTEMPTS: usize = 8;

impl CqlStore {
    /// Replaces the payloads of events, in whatever bucket, for the commit `by`.
    pub(super) async fn redact(
        &self,
        entity: EntityKey,
        by: CommitId,
        redactions: &[Redaction],
    ) -> Result<(), StoreError> {
        // Of several redactions of one event the last one counts.
        let mut left: BTreeMap<u64, &Bytes> = redactions.iter().map(|one| (one.seq, &one.payload)).collect();
        while let Some((&seq, _)) = left.first_key_value() {
            let Some(last) = self.redact_one(entity, by, seq, &left).await? else { return Ok(()) };
            left = left.split_off(&last.max(seq).saturating_add(1));
        }
        Ok(())
    }

    /// Replaces payloads in the commit with the event `seq`; returns its last event. `None`: there is no such commit,
    /// or others have done everything.
    async fn redact_one(
        &self,
        entity: EntityKey,
        by: CommitId,
        seq: u64,
        payloads: &BTreeMap<u64, &Bytes>,
    ) -> Result<Option<u64>, StoreError> {
        let bucket = self.bucket_of(entity, seq).await?;
        let mut why = Cause::from("concurrent changes of the row");
        for _ in 0..MAX_ATTEMPTS {
            let found = self.commits(entity, bucket, Stretch::from_event(seq), 1).await?;
            let Some(commit) = found.into_iter().next() else { return Ok(None) };
            // After the row: this head is at least as new as the row that was read.
            let newest = self.newest_head(entity, Reading::Plain).await?;
            if newest.is_none_or(|newest| newest.known.id != by) {
                // A failed attempt of this redaction may have left its chunks.
                self.forget_chunks(entity, &commit, commit.revision).await?;
                return Ok(None);
            }
            match self.replace(entity, bucket, &commit, by, payloads).await {
                Ok(true) => return Ok(Some(commit.head.seq)),
                Ok(false) => {}
                // It may or may not have been done; repeating it is harmless.
                Err(error) => why = error.into(),
            }
        }
        Err(StoreError::Unavailable(Cause::of("could not remove redacted data from the log", why)))
    }

    /// Writes a commit's row with other payloads, unless another process has changed it since it was read.
    async fn replace(
        &self,
        entity: EntityKey,
        bucket: i32,
        commit: &StoredCommit,
        by: CommitId,
        payloads: &BTreeMap<u64, &Bytes>,
    ) -> Result<bool, StoreError> {
        // The newest commit's own list entries may have to be written again.
        let keeps_lists = commit.id == by;
        let records: Vec<NewRecord> = commit
            .records
            .iter()
            .map(|record| {
                let other = payloads.get(&record.seq).filter(|_| record.event);
                NewRecord { event: record.event, payload: other.map_or(&record.payload, |other| *other).clone() }
            })
            .collect();
        let are_out = records.iter().zip(&commit.records).all(|(new, old)| new.payload == old.payload);
        if are_out {
            self.forget_chunks(entity, commit, commit.revision).await?;
            return if keeps_lists { Ok(true) } else { self.forget_lists(entity, bucket, commit).await };
        }
        let encoded = encode_records(&records);
        let revision = commit.revision + 1;
        let name = entity_bytes(entity);
        let (n, k) = commit_row(commit.head);
        let place = (encoded.len() > INLINE_BYTES).then(|| chunk_id(commit, revision));
        let mut chunks = None;
        if let Some(id) = place {
            self.write_chunks(entity, id, &encoded).await?;
            chunks = Some(i32::try_from(encoded.len().div_ceil(CHUNK_BYTES)).unwrap_or(i32::MAX));
        }
        let payload = place.is_none().then_some(&encoded[..]);
        let id = place.as_ref().map(|id| &id.0[..]);
        let lists = if keeps_lists { MaybeUnset::Unset } else { MaybeUnset::Set(None::<&[u8]>) };
        let values = (payload, chunks, id, lists, revision, &name[..], bucket, n, &k[..], commit.revision);
        let is_done = self.is_applied(&self.db().statements.redact, values).await?;
        if is_done {
            self.forget_chunks(entity, commit, revision).await?;
        }
        Ok(is_done)
    }

    /// Removes the list entries from a commit's row, unless another process has changed it since it was read.
    async fn forget_lists(&self, entity: EntityKey, bucket: i32, commit: &StoredCommit) -> Result<bool, StoreError> {
        let name = entity_bytes(entity);
        let (n, k) = commit_row(commit.head);
        let values = (&name[..], bucket, n, &k[..]);
        let row: Option<(i64, i64, Option<Bytes>)> = self.db().select_one(&self.db().statements.lists, values).await?;
        if row.is_none_or(|(_, _, lists)| lists.is_none()) {
            return Ok(true);
        }
        let values = (&name[..], bucket, n, &k[..], commit.revision);
        self.is_applied(&self.db().statements.forget_lists, values).await
    }

    /// Executes a conditional statement; whether its condition held.
    async fn is_applied(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<bool, StoreError> {
        count(&self.db().counters.conditional);
        let rows: Vec<Row> = self.db().select(statement, values).await?;
        Ok(rows.first().is_some_and(|row| row.columns.first() == Some(&Some(CqlValue::Boolean(true)))))
    }

    /// Content in chunks must be removed there too. A row that was changed before may be the work of an attempt that
    /// ended between the two.
    async fn forget_chunks(&self, entity: EntityKey, commit: &StoredCommit, revision: i32) -> Result<(), StoreError> {
        if commit.chunks.is_none() && commit.revision == 0 {
            return Ok(());
        }
        for old in 0..revision {
            self.delete_chunks(entity, chunk_id(commit, old)).await?;
        }
        Ok(())
    }

    /// Redacts the log for the commit `by`, like a process that was delayed for however long.
    ///
    /// # Errors
    /// The server's error.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn redact_late(
        &self,
        entity: EntityKey,
        by: CommitId,
        redactions: &[Redaction],
    ) -> Result<(), StoreError> {
        self.redact(entity, by, redactions).await
    }
}

/// The id of a commit's chunks at this revision: each revision has its own, so that no reader mixes two of them.
fn chunk_id(commit: &StoredCommit, revision: i32) -> CommitId {
    if revision == 0 {
        return commit.id;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&commit.id.0).update(&revision.to_le_bytes());
    CommitId(half(&hasher.finalize()))
}
