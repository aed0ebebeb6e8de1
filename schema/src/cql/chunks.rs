//! Large records: stored apart from a commit's row, in chunks that are written before it.
//!
//! So chunks may exist without their commit: it was refused, its outcome is unknown, or the process ended in between.
//! Such chunks must be deleted, because nothing refers to them and an erasure would not find them. Therefore a row of
//! the due index is written before the chunks. When the scan reads that row and the commit is not the newest, it reads
//! the log position of the commit (stored with the chunks). If this commit is there, the chunks are in use; if
//! another one is, they are deleted. If the position is still empty, the commit may yet be applied, however late, and
//! the scan checks again later: the entity's next commit, for example an erasure, decides it.

use actors::id::EntityKey;
use actors::store::{Commit, CommitId, Head, StoreError};
use bytes::Bytes;

use super::CqlStore;
use super::layout::{decode_place, encode_place, encode_records, entity_bytes};
use super::plan::{CHUNK_BYTES, Plan};

/// The chunk number under which the commit's log position is stored.
const POSITION_CHUNK: i32 = -1;

impl CqlStore {
    /// Writes a commit's records as chunks, if they are too large for its batch. Its row of the due index must be
    /// durable by then.
    pub(super) async fn put_chunks(&self, commit: &Commit, plan: &Plan) -> Result<(), StoreError> {
        if plan.chunks.is_none() {
            return Ok(());
        }
        // Before the records, so that these never exist without it.
        let place = encode_place(plan.after.head);
        let values = (&entity_bytes(commit.entity)[..], &commit.id.0[..], POSITION_CHUNK, &place[..]);
        self.db().write(&self.db().statements.put_chunk, values).await?;
        self.write_chunks(commit.entity, commit.id, &encode_records(&commit.records)).await
    }

    /// Writes the chunks that a commit's row refers to.
    pub(super) async fn write_chunks(&self, entity: EntityKey, id: CommitId, encoded: &[u8]) -> Result<(), StoreError> {
        let name = entity_bytes(entity);
        for (n, chunk) in (0_i32..).zip(encoded.chunks(CHUNK_BYTES)) {
            self.db().write(&self.db().statements.put_chunk, (&name[..], &id.0[..], n, chunk)).await?;
        }
        Ok(())
    }

    /// Deletes chunks that no commit's row refers to.
    pub(super) async fn delete_chunks(&self, entity: EntityKey, id: CommitId) -> Result<(), StoreError> {
        self.db().write(&self.db().statements.delete_chunks, (&entity_bytes(entity)[..], &id.0[..])).await
    }

    /// Deletes the chunks of the commit `id` if it can never be applied. `newest`: a current or former head of the
    /// entity. Returns whether nothing remains to be checked; else the commit may still be applied.
    pub(super) async fn sweep_chunks(
        &self,
        entity: EntityKey,
        id: CommitId,
        newest: Option<Head>,
    ) -> Result<bool, StoreError> {
        let values = (&entity_bytes(entity)[..], &id.0[..], POSITION_CHUNK);
        let row: Option<(Bytes,)> = self.db().select_one(&self.db().statements.chunk, values).await?;
        let Some((place,)) = row else { return Ok(true) };
        let place = decode_place(&place)?;
        if newest.is_none_or(|newest| newest.commit < place.commit) {
            return Ok(false);
        }
        let before = Head { commit: place.commit.saturating_sub(1), ..place };
        let Some(bucket) = self.known_bucket_after(entity, before).await? else { return Ok(false) };
        if !self.is_in_log(entity, id, bucket, place).await? {
            self.delete_chunks(entity, id).await?;
        }
        Ok(true)
    }
}
