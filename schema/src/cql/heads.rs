//! Finding the head of an entity.

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{CommitId, Head, ReadLevel, StoreError};
use bytes::Bytes;
use scylla::DeserializeRow;

use super::CqlStore;
use super::answer::{self, Answer, needed};
use super::known_heads::KnownHead;
use super::layout::{DueRow, entity_bytes, sixteen, unsigned};

/// A stored head row.
#[derive(Debug, DeserializeRow)]
struct StoredHead {
    seq: i64,
    commit: i64,
    id: Bytes,
    stamp: i64,
    closed: bool,
    listed: bool,
    records: i32,
    bytes: i64,
    base_seq: i64,
    base_commit: i64,
    state: Option<Bytes>,
    state_seq: Option<i64>,
    state_commit: Option<i64>,
    alarm: Option<i64>,
    alarm_slot: Option<i64>,
    alarm_id: Option<Bytes>,
}

/// A head, with the entity's newest state if it was read.
#[derive(Debug)]
pub(super) struct HeadRow {
    pub(super) known: KnownHead,
    pub(super) state: Option<Bytes>,
}

/// How a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Plainly, with the state.
    Plain,
    /// Settled, without the state: that may be large, and would go through consensus.
    Settled,
    /// Settled, with the state.
    Whole,
}

impl From<ReadLevel> for Reading {
    fn from(read_level: ReadLevel) -> Self {
        match read_level {
            ReadLevel::Acknowledged => Self::Plain,
            ReadLevel::Settled => Self::Settled,
        }
    }
}

impl StoredHead {
    /// From the answer of a condition; `None`: there is no head.
    fn answered(row: &Answer<'_>) -> Option<Result<Self, StoreError>> {
        let seq = row.long("seq")?;
        let read = || {
            Ok(Self {
                seq,
                commit: needed(row.long("commit"))?,
                id: needed(row.blob("id"))?,
                stamp: needed(row.long("stamp"))?,
                closed: row.is("closed"),
                listed: row.is("listed"),
                records: needed(row.int("records"))?,
                bytes: needed(row.long("bytes"))?,
                base_seq: needed(row.long("base_seq"))?,
                base_commit: needed(row.long("base_commit"))?,
                state: row.blob("state"),
                state_seq: row.long("state_seq"),
                state_commit: row.long("state_commit"),
                alarm: row.long("alarm"),
                alarm_slot: row.long("alarm_slot"),
                alarm_id: row.blob("alarm_id"),
            })
        };
        Some(read())
    }

    fn read(self, bucket: i32, settled: bool) -> Result<HeadRow, StoreError> {
        let at = |seq, commit| Head { seq: unsigned(seq), commit: unsigned(commit) };
        let alarm = match (self.alarm, self.alarm_slot, &self.alarm_id) {
            (Some(at), Some(slot), Some(id)) => {
                Some(DueRow { at: Millis(unsigned(at)), slot, id: CommitId(sixteen(id)?) })
            }
            _ => None,
        };
        let known = KnownHead {
            bucket,
            head: at(self.seq, self.commit),
            id: CommitId(sixteen(&self.id)?),
            stamp: self.stamp,
            closed: self.closed,
            listed: self.listed,
            projected: !self.listed,
            settled,
            records: self.records,
            bytes: self.bytes,
            base: at(self.base_seq, self.base_commit),
            state: self.state_seq.zip(self.state_commit).map(|(seq, commit)| at(seq, commit)),
            alarm,
        };
        Ok(HeadRow { known, state: self.state })
    }
}

impl CqlStore {
    /// The head of a bucket. After a settled read, all writes of its commit and those before it are at a majority;
    /// after a plain read, the head may be visible without the rest.
    pub(super) async fn head_of(
        &self,
        entity: EntityKey,
        bucket: i32,
        reading: Reading,
    ) -> Result<Option<HeadRow>, StoreError> {
        let statements = &self.db().statements;
        let name = entity_bytes(entity);
        let statement = match reading {
            Reading::Plain => {
                let stored: Option<StoredHead> = self.db().select_one(&statements.head, (&name[..], bucket)).await?;
                return stored.map(|stored| stored.read(bucket, false)).transpose();
            }
            Reading::Settled => &statements.settled,
            Reading::Whole => &statements.settled_whole,
        };
        let answer = self.db().settle(statement, (&name[..], bucket)).await?;
        let stored = answer::find(answer, StoredHead::answered).transpose()?;
        stored.map(|stored| stored.read(bucket, true)).transpose()
    }

    /// The entity's newest head; `None` if there is no such entity. If its newest bucket is closed and the next one not
    /// opened yet, it is the closed one's.
    pub(super) async fn newest_head(&self, entity: EntityKey, reading: Reading) -> Result<Option<HeadRow>, StoreError> {
        let known = self.known_heads().get(entity).map(|known| known.bucket);
        let mut bucket = known.unwrap_or(0);
        let mut head = loop {
            match self.head_of(entity, bucket, reading).await? {
                Some(head) => break head,
                None if bucket == 0 => return Ok(None),
                // The commit that opened the bucket may have been visible on one replica only, and be missed by this
                // read; then the previous bucket exists.
                None if known == Some(bucket) => bucket -= 1,
                // The keyspace was recreated under a running process.
                None => bucket = 0,
            }
        };
        if head.known.closed && known.is_none_or(|known| bucket + 1 < known) {
            // Without a hint the chain may be long.
            let newest: Option<(i32,)> =
                self.db().select_one(&self.db().statements.newest_bucket, (&entity_bytes(entity)[..],)).await?;
            // The newest may not be opened yet; the previous one is.
            for bucket in newest.into_iter().flat_map(|(newest,)| [newest, newest - 1]) {
                if bucket <= head.known.bucket {
                    break;
                }
                if let Some(later) = self.head_of(entity, bucket, reading).await? {
                    head = later;
                    break;
                }
            }
        }
        while head.known.closed {
            match self.head_of(entity, head.known.bucket + 1, reading).await? {
                Some(next) => head = next,
                None => break,
            }
        }
        Ok(Some(head))
    }

    /// The entity's current bucket; `None` if there is no such entity.
    pub(super) async fn bucket(&self, entity: EntityKey) -> Result<Option<i32>, StoreError> {
        if let Some(known) = self.known_heads().get(entity) {
            return Ok(Some(known.bucket));
        }
        let Some(head) = self.newest_head(entity, Reading::Plain).await? else { return Ok(None) };
        self.known_heads().note(entity, head.known);
        Ok(Some(head.known.bucket))
    }

    /// Settles a bucket, and caches its head.
    pub(super) async fn settle_bucket(&self, entity: EntityKey, bucket: i32) -> Result<(), StoreError> {
        if let Some(head) = self.head_of(entity, bucket, Reading::Settled).await? {
            self.known_heads().note(entity, head.known);
        }
        Ok(())
    }

    /// The bucket after the closed `bucket`, if it was opened; caches its head.
    pub(super) async fn next_bucket(&self, entity: EntityKey, bucket: i32) -> Result<Option<i32>, StoreError> {
        let next = self.head_of(entity, bucket + 1, Reading::Plain).await?;
        if let Some(next) = &next {
            self.known_heads().note(entity, next.known);
        }
        Ok(next.map(|next| next.known.bucket))
    }
}
