//! Reading commits: for an activation, and ranges of the log.

use actors::id::EntityKey;
use actors::store::{CommitId, Head, Loaded, LogRecord, LogScan, Order, ReadLevel, StoreError};
use bytes::Bytes;
use scylla::DeserializeRow;

use super::CqlStore;
use super::heads::{HeadRow, Reading};
use super::known_heads::KnownHead;
use super::layout::{commit_k, commit_of, commit_row, decode_records, entity_bytes, signed, sixteen, unsigned};

/// Commits of one read.
const COMMITS_PER_PAGE: usize = 64;
/// Buckets searched for a commit. More than one is needed only if buckets hold no events.
const MAX_SEARCHED_BUCKETS: i32 = 1_000;
/// The greatest sequence that can be stored.
const LAST_SEQ: u64 = i64::MAX.unsigned_abs();

#[derive(Debug, DeserializeRow)]
struct StoredLogRow {
    n: i64,
    k: Bytes,
    id: Bytes,
    payload: Option<Bytes>,
    chunks: Option<i32>,
    chunk_id: Option<Bytes>,
    revision: i32,
}

/// A stored commit.
#[derive(Debug)]
pub(super) struct StoredCommit {
    /// The head after it.
    pub(super) head: Head,
    pub(super) id: CommitId,
    pub(super) records: Vec<LogRecord>,
    /// The chunks of its records, if they are not in its row.
    pub(super) chunks: Option<CommitId>,
    /// How often they were redacted.
    pub(super) revision: i32,
}

/// A range of a bucket's commits: ascending from `from`, or descending from `until` (exclusive).
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    order: Order,
    /// The least position.
    from: (i64, [u8; 8]),
    /// The greatest position, exclusive.
    until: (i64, [u8; 8]),
}

/// After every commit.
const END: (i64, [u8; 8]) = (i64::MAX, [0xff; 8]);

impl Stretch {
    /// From the commit with the event `seq` on.
    pub(super) fn from_event(seq: u64) -> Self {
        Self { order: Order::Asc, from: (signed(seq), [0; 8]), until: END }
    }

    fn after(self, head: Head) -> Self {
        let (n, k) = commit_row(head);
        match self.order {
            Order::Asc => Self { from: (n, commit_k(head.commit + 1)), ..self },
            Order::Desc => Self { until: (n, k), ..self },
        }
    }
}

impl CqlStore {
    /// See `Store::load`.
    pub(super) async fn loaded(&self, entity: EntityKey, read_level: ReadLevel) -> Result<Option<Loaded>, StoreError> {
        let reading = match read_level {
            ReadLevel::Acknowledged => Reading::Plain,
            ReadLevel::Settled => Reading::Whole,
        };
        let Some(HeadRow { known, state }) = self.listed_head(entity, reading).await? else { return Ok(None) };
        let from = known.state.unwrap_or(Head { seq: 0, commit: 0 });
        let tail = if from == known.head { Vec::new() } else { self.tail(entity, from, &known).await? };
        self.known_heads().note(entity, known);
        let settled = known.settled;
        Ok(Some(Loaded { head: known.head, state, tail, alarm: known.alarm_at(), settled }))
    }

    /// See `Store::head`.
    pub(super) async fn current_head(
        &self,
        entity: EntityKey,
        read_level: ReadLevel,
    ) -> Result<Option<Head>, StoreError> {
        let Some(HeadRow { known, .. }) = self.listed_head(entity, read_level.into()).await? else { return Ok(None) };
        self.known_heads().note(entity, known);
        Ok(Some(known.head))
    }

    /// The entity's newest head, with this process's knowledge of its commit. Decisions may follow, so the lists are
    /// brought up to date with it: they must not be older than it if its process has ended.
    async fn listed_head(&self, entity: EntityKey, reading: Reading) -> Result<Option<HeadRow>, StoreError> {
        let Some(mut head) = self.newest_head(entity, reading).await? else { return Ok(None) };
        let known = &mut head.known;
        if let Some(earlier) = self.known_heads().get(entity).filter(|earlier| earlier.is_of(known)) {
            known.projected |= earlier.projected;
            known.settled |= earlier.settled;
        }
        if !known.projected {
            self.project_again(entity, known).await?;
            known.projected = true;
        }
        Ok(Some(head))
    }

    /// Every record after `from`, up to the entity's head.
    async fn tail(&self, entity: EntityKey, from: Head, known: &KnownHead) -> Result<Vec<LogRecord>, StoreError> {
        let is_near = known.base.commit <= from.commit;
        let first = if is_near { known.bucket } else { self.bucket_after(entity, from).await? };
        let until = (signed(known.head.seq), commit_k(known.head.commit + 1));
        let mut tail = Vec::new();
        for bucket in first..=known.bucket {
            let mut stretch = Stretch { order: Order::Asc, from: (signed(from.seq), commit_k(from.commit + 1)), until };
            loop {
                let page = self.commits(entity, bucket, stretch, COMMITS_PER_PAGE).await?;
                let is_last = page.len() < COMMITS_PER_PAGE;
                if let Some(last) = page.last() {
                    stretch = stretch.after(last.head);
                }
                tail.extend(page.into_iter().flat_map(|commit| commit.records));
                if is_last {
                    break;
                }
            }
        }
        Ok(tail)
    }

    /// The bucket of the first commit after `from`, or an earlier one.
    async fn bucket_after(&self, entity: EntityKey, from: Head) -> Result<i32, StoreError> {
        Ok(self.known_bucket_after(entity, from).await?.unwrap_or(0))
    }

    /// The bucket of the first commit after `from`; `None` if so many buckets without an event were begun after it
    /// that it is not among those read.
    pub(super) async fn known_bucket_after(&self, entity: EntityKey, from: Head) -> Result<Option<i32>, StoreError> {
        let values = (&entity_bytes(entity)[..], signed(from.seq.saturating_add(1)), MAX_SEARCHED_BUCKETS);
        let buckets: Vec<(i32, i64)> = self.db().select(&self.db().statements.buckets_before, values).await?;
        let found = buckets.iter().find(|(_, base)| unsigned(*base) <= from.commit).map(|(bucket, _)| *bucket);
        Ok(found.or((buckets.len() < MAX_SEARCHED_BUCKETS as usize).then_some(0)))
    }

    /// The bucket of the event `seq`, if it exists.
    pub(super) async fn bucket_of(&self, entity: EntityKey, seq: u64) -> Result<i32, StoreError> {
        let values = (&entity_bytes(entity)[..], signed(seq), 1);
        let buckets: Vec<(i32, i64)> = self.db().select(&self.db().statements.buckets_before, values).await?;
        Ok(buckets.first().map_or(0, |(bucket, _)| *bucket))
    }

    /// Commits of a bucket, with all their records.
    pub(super) async fn commits(
        &self,
        entity: EntityKey,
        bucket: i32,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<StoredCommit>, StoreError> {
        match self.commits_as_they_are(entity, bucket, stretch, limit).await {
            // A large record may have been redacted between the reads of its row and of its chunks: then the row now
            // refers to other chunks.
            Err(StoreError::Corrupt(_)) => self.commits_as_they_are(entity, bucket, stretch, limit).await,
            read => read,
        }
    }

    async fn commits_as_they_are(
        &self,
        entity: EntityKey,
        bucket: i32,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<StoredCommit>, StoreError> {
        let statements = &self.db().statements;
        let statement = match stretch.order {
            Order::Asc => &statements.log_asc,
            Order::Desc => &statements.log_desc,
        };
        let name = entity_bytes(entity);
        let from = stretch.from;
        let until = stretch.until;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (&name[..], bucket, from.0, &from.1[..], until.0, &until.1[..], limit);
        let rows: Vec<StoredLogRow> = self.db().select(statement, values).await?;
        let mut commits = Vec::with_capacity(rows.len());
        for row in rows {
            let head = Head { seq: unsigned(row.n), commit: commit_of(&row.k)? };
            let chunks = row.chunk_id.as_ref().map(|id| sixteen(id).map(CommitId)).transpose()?;
            let payload = match (row.payload, chunks) {
                (Some(payload), _) => payload,
                (None, Some(id)) => self.chunks(entity, id, row.chunks.unwrap_or(0)).await?,
                (None, None) => Bytes::new(),
            };
            let records = decode_records(&payload, head.seq)?;
            let id = CommitId(sixteen(&row.id)?);
            commits.push(StoredCommit { head, id, records, chunks, revision: row.revision });
        }
        Ok(commits)
    }

    async fn chunks(&self, entity: EntityKey, id: CommitId, chunks: i32) -> Result<Bytes, StoreError> {
        let mut record = Vec::new();
        for n in 0..chunks {
            let values = (&entity_bytes(entity)[..], &id.0[..], n);
            let chunk: Option<(Bytes,)> = self.db().select_one(&self.db().statements.chunk, values).await?;
            let (data,) = chunk.ok_or_else(|| StoreError::Corrupt("a part of a large record is missing".into()))?;
            record.extend_from_slice(&data);
        }
        Ok(record.into())
    }

    /// See `Store::read_log`.
    pub(super) async fn log(&self, entity: EntityKey, scan: LogScan) -> Result<Vec<LogRecord>, StoreError> {
        if scan.limit == 0 || scan.range.is_empty() || scan.range.first > LAST_SEQ {
            return Ok(Vec::new());
        }
        let Some(newest) = self.newest_bucket_now(entity).await? else { return Ok(Vec::new()) };
        let first = if newest == 0 { 0 } else { self.first_bucket(entity, newest, scan).await? };
        let mut bucket = first;
        let mut found = Vec::new();
        loop {
            let ended = self.log_of(entity, bucket, scan, &mut found).await?;
            bucket = match scan.order {
                _ if ended => return Ok(found),
                Order::Asc if bucket < newest => bucket + 1,
                Order::Desc if bucket > 0 => bucket - 1,
                _ => return Ok(found),
            };
        }
    }

    async fn first_bucket(&self, entity: EntityKey, newest: i32, scan: LogScan) -> Result<i32, StoreError> {
        let bucket = match scan.order {
            Order::Asc => self.bucket_of(entity, scan.range.first.max(1)).await?,
            // Mostly the newest page is requested.
            Order::Desc if scan.range.last >= LAST_SEQ => newest,
            Order::Desc => self.bucket_of(entity, scan.range.last).await?,
        };
        Ok(bucket.min(newest))
    }

    /// The newest bucket now, bypassing the cache.
    async fn newest_bucket_now(&self, entity: EntityKey) -> Result<Option<i32>, StoreError> {
        let Some(mut bucket) = self.bucket(entity).await? else { return Ok(None) };
        loop {
            let values = (&entity_bytes(entity)[..], bucket);
            let closed: Option<(bool,)> = self.db().select_one(&self.db().statements.closed, values).await?;
            match if closed == Some((true,)) { self.next_bucket(entity, bucket).await? } else { None } {
                Some(next) => bucket = next,
                None => return Ok(Some(bucket)),
            }
        }
    }

    /// Adds a bucket's events of a range; returns whether no other bucket is needed.
    async fn log_of(
        &self,
        entity: EntityKey,
        bucket: i32,
        LogScan { range, order, limit }: LogScan,
        found: &mut Vec<LogRecord>,
    ) -> Result<bool, StoreError> {
        let mut stretch = match order {
            Order::Asc => Stretch::from_event(range.first),
            Order::Desc => {
                let until = self.after_event(entity, bucket, range.last).await?;
                Stretch { order, from: (signed(range.first), [0; 8]), until }
            }
        };
        loop {
            let page = (limit - found.len()).min(COMMITS_PER_PAGE);
            let commits = self.commits(entity, bucket, stretch, page).await?;
            let is_last = commits.len() < page;
            if let Some(last) = commits.last() {
                stretch = stretch.after(last.head);
            }
            for commit in commits {
                let mut events: Vec<_> = commit.records.into_iter().filter(|record| record.event).collect();
                if order == Order::Desc {
                    events.reverse();
                }
                for event in events {
                    let beyond = match order {
                        Order::Asc => event.seq > range.last,
                        Order::Desc => event.seq < range.first,
                    };
                    if beyond || found.len() == limit {
                        return Ok(true);
                    }
                    if range.contains(event.seq) {
                        found.push(event);
                    }
                }
            }
            if found.len() == limit {
                return Ok(true);
            }
            if is_last {
                return Ok(false);
            }
        }
    }

    /// The position right after the commit with the event `seq`.
    async fn after_event(&self, entity: EntityKey, bucket: i32, seq: u64) -> Result<(i64, [u8; 8]), StoreError> {
        if seq >= LAST_SEQ {
            return Ok(END);
        }
        let Stretch { from, until, .. } = Stretch::from_event(seq);
        let name = entity_bytes(entity);
        let values = (&name[..], bucket, from.0, &from.1[..], until.0, &until.1[..], 1);
        let row: Option<(i64, Bytes)> = self.db().select_one(&self.db().statements.log_place, values).await?;
        match row {
            Some((n, k)) => Ok((n, commit_k(commit_of(&k)? + 1))),
            None => Ok(END),
        }
    }
}
