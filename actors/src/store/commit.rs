//! A commit: the changes that apply together, and how it ends.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::{CommitId, Head, KeyHash, KeyRow, NewRecord, Redaction, RowWrite, StoreError, Table, View, ViewWrite};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::limits;
use crate::trace::TraceContext;

impl RowWrite {
    /// Puts a row.
    #[must_use]
    pub fn put(table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { table, key: key.into(), value: Some(value.into()) }
    }

    /// Deletes a row.
    #[must_use]
    pub fn delete(table: Table, key: impl Into<Bytes>) -> Self {
        Self { table, key: key.into(), value: None }
    }
}

impl ViewWrite {
    /// Adds an entry without a value: all its data is in the key.
    #[must_use]
    pub fn add(view: View, key: impl Into<Bytes>) -> Self {
        Self { view, key: key.into(), value: Some(Bytes::new()) }
    }

    /// Removes an entry.
    #[must_use]
    pub fn remove(view: View, key: impl Into<Bytes>) -> Self {
        Self { view, key: key.into(), value: None }
    }
}

/// The change of an entity's one durable alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmChange {
    /// The durable alarm before.
    pub previous: Option<Millis>,
    /// The alarm that must be durable no later than the commit (invariant I5).
    pub next: Option<Millis>,
}

/// Changes that apply together, or not at all.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The entity.
    pub entity: EntityKey,
    /// The head that it must have; `None`: it must not exist.
    pub expected: Option<Head>,
    /// This commit's id.
    pub id: CommitId,
    /// When it was decided.
    pub at: Millis,
    /// Appended in this order.
    pub records: Vec<NewRecord>,
    /// Idempotency keys that had their effect here.
    pub keys: Vec<(KeyHash, KeyRow)>,
    /// Keyed rows, in order; a later write of the same key wins.
    pub rows: Vec<RowWrite>,
    /// List entries.
    pub views: Vec<ViewWrite>,
    /// The state after `records`, when it is due (see [`Store::snapshot_every`](super::Store::snapshot_every)).
    pub state: Option<Bytes>,
    /// `None`: the alarm is unchanged.
    pub alarm: Option<AlarmChange>,
    /// Earlier events that get other payloads once this is committed; none of this commit's own. They are the one part
    /// that need not be atomic with the rest: a store may apply them slightly later, but before it accepts another
    /// commit of the entity, and never those of a commit that conflicts.
    pub redactions: Vec<Redaction>,
    /// Whether content is removed for good, as by redactions: soon after, a store must not keep what the deleted and
    /// changed rows held, not even where nobody reads it.
    pub erases: bool,
    /// The store's report on a commit whose span is recorded or listed; `None`: it is neither.
    pub watch: Option<Arc<CommitWatch>>,
}

/// A store's report on a commit, for its trace. A store fills in the values that it knows.
#[derive(Debug)]
pub struct CommitWatch {
    /// The commit's own span, for calls that carry a trace.
    pub context: TraceContext,
    /// Whether that span is recorded, and not only listed while it lasts.
    pub is_recorded: bool,
    /// Commits that were made durable together with it; 0: not reported.
    pub batch_commits: AtomicU64,
    /// Nanoseconds that making them durable took (write and sync, or the cluster's answer); 0: not reported.
    pub sync_nanos: AtomicU64,
    /// Times it was sent; 0: not reported.
    pub attempts: AtomicU64,
}

impl CommitWatch {
    /// Nothing reported yet.
    #[must_use]
    pub fn new(context: TraceContext, is_recorded: bool) -> Self {
        let [batch_commits, sync_nanos, attempts] = [const { AtomicU64::new(0) }; 3];
        Self { context, is_recorded, batch_commits, sync_nanos, attempts }
    }

    /// The commit's span where it is recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<TraceContext> {
        self.is_recorded.then_some(self.context)
    }
}

impl Commit {
    /// The bytes of its rows, its entries of lists, its keys and its state.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] if the key of a row or an entry is longer than any store accepts.
    pub fn measure_rows(&self) -> Result<usize, StoreError> {
        let rows = self.rows.iter().map(|row| (&row.key, &row.value));
        let mut longest = 0;
        let mut bytes = self.keys.len() * 64 + self.state.as_ref().map_or(0, Bytes::len);
        for (key, value) in rows.chain(self.views.iter().map(|entry| (&entry.key, &entry.value))) {
            longest = longest.max(key.len());
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        }
        let max = limits::ROW_KEY_BYTES;
        if longest > max { Err(StoreError::TooLarge { bytes: longest, max }) } else { Ok(bytes) }
    }

    /// An empty commit.
    #[must_use]
    pub fn on(entity: EntityKey, expected: Option<Head>, id: CommitId, at: Millis) -> Self {
        Self {
            entity,
            expected,
            id,
            at,
            records: Vec::new(),
            keys: Vec::new(),
            rows: Vec::new(),
            views: Vec::new(),
            state: None,
            alarm: None,
            redactions: Vec::new(),
            erases: false,
            watch: None,
        }
    }

    /// The entity's head once this is applied.
    #[must_use]
    pub fn next_head(&self) -> Head {
        let (seq, commit) = self.expected.map_or((0, 0), |head| (head.seq, head.commit));
        let events = self.records.iter().filter(|record| record.event).count() as u64;
        Head { seq: seq + events, commit: commit + 1 }
    }
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable.
    Committed(Head),
    /// Not applied, and never will be: the entity's head was another one.
    Conflict,
}

/// Called exactly once, from any thread, with how the commit ended. It must be quick and must not block.
pub type Done = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;
