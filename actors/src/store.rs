//! The port to the database of the actors' state.
//!
//! The contract is the weaker of two designs, one machine's log-structured store and a CQL cluster: atomicity only
//! inside one entity, outcomes that may be unknown, lists that may lag, alarms that may be spurious. Code above
//! this port must be correct with exactly that; a store may always guarantee more.
//!
//! An entity is a chain of commits. Each commit names the [`Head`] it was decided on and succeeds only if that is still
//! the entity's head, so two writers that both believe they own an entity cost a [`Outcome::Conflict`], never a lost or
//! doubled record (invariant I6). A new store is written by implementing [`Store`] and passing `store::conformance`
//! (feature `test-support`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::clock::Millis;
use crate::id::{Address, EntityKey};
use crate::metrics::StoreMetrics;

mod cause;
mod commit;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
mod due;
#[cfg(any(test, feature = "test-support"))]
pub mod faulty;
pub mod inventory;
mod key_row;
pub mod memory;
mod pages;
mod seq_range;

pub use cause::Cause;
pub use commit::{AlarmChange, Commit, CommitWatch, Done, Outcome};
pub use due::{Due, DuePage};
pub use key_row::{Fingerprint, KeyEffect, KeyHash, KeyRow};
pub use pages::Pages;
pub use seq_range::SeqRange;

/// The head of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Sequence of its newest event; 0 before the first.
    pub seq: u64,
    /// How many commits made it, from 1.
    pub commit: u64,
}

/// The name of one attempt to commit: the same on every resend, so that an unknown outcome can be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitId(pub [u8; 16]);

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// `true`: an event, which takes the next sequence. `false`: a mark, which changes the state but is no event and
    /// leaves no gap.
    pub event: bool,
    /// Its encoding; opaque to a store.
    pub payload: Bytes,
}

/// An earlier event whose payload is replaced, because its content must be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Its sequence; a missing event is skipped.
    pub seq: u64,
    /// The new payload.
    pub payload: Bytes,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its sequence; a mark has that of the newest event before it.
    pub seq: u64,
    /// Whether it is an event (see [`NewRecord::event`]).
    pub event: bool,
    /// Its encoding.
    pub payload: Bytes,
}

/// A list of an entity's keyed rows. Numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// A keyed row to put (`Some`) or to delete (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// The list.
    pub table: Table,
    /// The key within the list, at most [`crate::limits::ROW_KEY_BYTES`]; rows sort by it.
    pub key: Bytes,
    /// The new value.
    pub value: Option<Bytes>,
}

/// A keyed row as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// A list of a whole workspace. Numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View(pub u8);

/// An entry of a workspace's list to put or delete. Lists are projections, which may be older than the entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewWrite {
    /// The list, in the workspace of the committing entity.
    pub view: View,
    /// The key within the list; entries sort by it.
    pub key: Bytes,
    /// The new value.
    pub value: Option<Bytes>,
}

/// The stored data from which an entity is activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its head.
    pub head: Head,
    /// The newest stored state, if there is one.
    pub state: Option<Bytes>,
    /// The records since that state (all of them where there is none), in order.
    pub tail: Vec<LogRecord>,
    /// The durable alarm.
    pub alarm: Option<Millis>,
    /// Every later read shows all writes up to this head: it was loaded [`ReadLevel::Settled`], or the store knows that
    /// it is settled.
    pub settled: bool,
}

/// How settled a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLevel {
    /// Sees every acknowledged commit. A commit whose outcome is unknown to its writer may be seen too, and other reads
    /// may show only part of it: its head without its keys and rows, or these without the head.
    Acknowledged,
    /// Also decides every commit whose outcome was unknown: after this read the commit is either seen, completely and
    /// by every later read, or can never apply. Decisions on an entity are made on a state loaded so.
    Settled,
}

/// The order in which a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending.
    Asc,
    /// Descending.
    Desc,
}

impl Order {
    /// Whether a list in this order has `key` after `other`.
    #[must_use]
    pub fn is_after<K: Ord>(self, key: K, other: K) -> bool {
        match self {
            Self::Asc => key > other,
            Self::Desc => key < other,
        }
    }
}

/// A stretch of keys, both ends exclusive; `None` is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// Only keys greater than this.
    pub after: Option<Bytes>,
    /// Only keys less than this.
    pub before: Option<Bytes>,
}

impl KeyRange {
    /// The keys that begin with `prefix` and are longer.
    #[must_use]
    pub fn under(prefix: &[u8]) -> Self {
        let after = (!prefix.is_empty()).then(|| Bytes::copy_from_slice(prefix));
        Self { after, before: successor(prefix) }
    }
}

/// The first key that does not begin with `prefix` any more.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next.into())
}

/// A read of a list's rows or entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The range of keys.
    pub range: KeyRange,
    /// The order.
    pub order: Order,
    /// The most rows or entries.
    pub limit: usize,
}

impl Scan {
    /// At most `limit` of `range`.
    #[must_use]
    pub fn new(range: KeyRange, order: Order, limit: usize) -> Self {
        Self { range, order, limit }
    }
}

/// A read of a log's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogScan {
    /// Their sequences.
    pub range: SeqRange,
    /// The order.
    pub order: Order,
    /// The most events.
    pub limit: usize,
}

/// The name of one process, drawn when it starts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct NodeId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The heartbeat of a process, repeated while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The process.
    pub node: NodeId,
    /// How many heartbeats it has sent; a process whose count does not change has ended, or cannot write.
    pub count: u64,
    /// Where other processes reach it, as a URL without a path; `None`: nowhere.
    pub address: Option<Arc<str>>,
}

/// A cluster of servers as a store.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// The name of the data in it, as `db.namespace` of a span.
    pub namespace: &'a str,
    /// How many servers must agree, by CQL's name of it.
    pub consistency: &'static str,
}

/// Why a store operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The commit may or may not have been applied, now or later.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(#[source] Cause),
    /// Nothing was applied and nothing was read; trying later may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The commit is larger than this store takes.
    #[error("a commit of {bytes} bytes exceeds the store's limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The data read differs from the data written.
    #[error("stored data is damaged: {0}")]
    Corrupt(#[source] Cause),
}

impl StoreError {
    /// Whether a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Indeterminate(_))
    }
}

/// A durable store of entities. See the module's text for its guarantees.
pub trait Store: Send + Sync + 'static {
    /// An entity's state and head; `None` if it does not exist.
    fn load(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>>;

    /// The head of an entity, as [`Store::load`] would return it.
    fn head(&self, entity: EntityKey, read_level: ReadLevel) -> BoxFuture<'_, Result<Option<Head>, StoreError>> {
        let loading = self.load(entity, read_level);
        Box::pin(async move { Ok(loading.await?.map(|loaded| loaded.head)) })
    }

    /// Applies a commit if its expected head is the entity's head. Sending the same commit (the same [`CommitId`])
    /// again is safe: if it was applied, the answer is `Committed` as long as it is the newest.
    fn commit(&self, commit: Commit, done: Done);

    /// The stored effect of an idempotency key in this entity. An expired row may or may not still be found. A found
    /// effect is settled, because retries are answered from it; a row that only holds the key need not be.
    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>>;

    /// Events of a log. Marks are left out.
    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>>;

    /// One keyed row.
    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Keyed rows. Fewer than requested means that there are no more ([`Pages`] relies on it).
    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Entries of a workspace's list; likewise.
    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Up to `limit` alarms due at or before `upto`, earliest first, after `after`. They may include an alarm that was
    /// just moved or cleared: a woken entity checks whether it is time. They may also include that of an unreadable
    /// entity. An unreadable part of the index delays none of the others (see [`DuePage::missing`]); it fails only if
    /// nothing can be read.
    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>>;

    /// After how many commits of an entity the host should hand in its state. 1: with every commit.
    fn snapshot_every(&self) -> u64;

    /// Whether other processes may commit to the same entities. Then a refusal decided on in-memory state is compared
    /// with the store before it is sent.
    fn is_shared(&self) -> bool {
        false
    }

    /// Records a process's heartbeat and returns the recent ones of others; `me` is among them. Heartbeats older than a
    /// minute may be left out. Only a shared store needs to read anything.
    fn heartbeat(&self, me: Heartbeat) -> BoxFuture<'_, Result<Vec<Heartbeat>, StoreError>> {
        Box::pin(async move { Ok(vec![me]) })
    }

    /// Records that a process is about to end.
    fn leave(&self, _node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    /// The kind of store, as `db.system.name` of a span.
    fn system(&self) -> &'static str {
        "memory"
    }

    /// The cluster that the store is, for spans; `None`: it is none.
    fn cluster(&self) -> Option<Cluster<'_>> {
        None
    }

    /// The store's metrics, if it keeps any.
    fn metrics(&self) -> Option<&StoreMetrics> {
        None
    }

    /// Ends the store: acknowledged commits are durable, later calls fail as `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_under_a_prefix_ends_before_the_first_key_without_it() {
        let end = |prefix: &[u8]| KeyRange::under(prefix).before;
        assert_eq!(end(&[1, 2]).as_deref(), Some(&[1, 3][..]));
        assert_eq!(end(&[1, u8::MAX, u8::MAX]).as_deref(), Some(&[2][..]));
        assert!(end(&[1, u8::MAX]).is_some_and(|end| end > [1, u8::MAX, u8::MAX, u8::MAX][..]));
        // Every later key begins with it.
        assert_eq!(end(&[u8::MAX, u8::MAX]), None);
        assert_eq!(KeyRange::under(&[]), KeyRange::default());
    }
}
