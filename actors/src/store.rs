//! The port to what keeps the actors' state.
//!
//! The contract is the weaker of two worlds, one machine's log-structured store and a CQL cluster: atomicity only
//! inside one entity, outcomes that may be unknown, lists that may lag behind, alarms that may be spurious.
//! Code above this port must be right with exactly that; a store may always give more.
//!
//! An entity is a chain of commits. Each commit names the [`Head`] it was decided on and succeeds only if the entity
//! still stands there, so two writers that both believe they own an entity cost a [`Outcome::Conflict`], never a
//! lost or doubled record (invariant I6). A new store is written by implementing [`Store`] and passing
//! `store::conformance` (feature `test-support`).

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
pub mod memory;
mod pages;

pub use cause::Cause;
pub use commit::{AlarmChange, Commit, CommitWatch, Done, Outcome};
pub use due::{Due, DuePage};
pub use pages::Pages;

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

/// An earlier event whose payload is replaced, because what it said must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Its sequence; one that is not there is passed over.
    pub seq: u64,
    /// What it says from now on.
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

/// Which list of an entity's keyed rows a row belongs to. Numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// A keyed row to put (`Some`) or to delete (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// The list.
    pub table: Table,
    /// The key within the list, at most [`crate::limits::ROW_KEY_BYTES`]; rows sort by it.
    pub key: Bytes,
    /// What to put there.
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

/// Which list of a whole workspace an entry belongs to. Numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View(pub u8);

/// An entry of a workspace's list to put or delete. Lists are projections: they may lag behind the entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewWrite {
    /// The list, in the workspace of the committing entity.
    pub view: View,
    /// The key within the list; entries sort by it.
    pub key: Bytes,
    /// What to put there.
    pub value: Option<Bytes>,
}

/// The hash of an idempotency key, scoped to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 16]);

/// What an idempotency key has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The request it came with.
    pub fingerprint: [u8; 16],
    /// First event of its effect.
    pub first: u64,
    /// Last event of its effect.
    pub last: u64,
    /// When; it is forgotten [`crate::limits::KEY_KEPT_MILLIS`] later.
    pub at: Millis,
}

impl KeyRow {
    /// A key that has done nothing, and with which nothing may be done any more by requests up to this claim; see
    /// [`claims`](crate::claims).
    #[must_use]
    pub(crate) fn held(fingerprint: [u8; 16], claim: u64, at: Millis) -> Self {
        // No event has the sequence 0, so this is no effect.
        Self { fingerprint, first: 0, last: claim, at }
    }

    /// Up to which claim the key is held; `None`: it has had its effect.
    #[must_use]
    pub fn held_upto(&self) -> Option<u64> {
        (self.first == 0).then_some(self.last)
    }
}

/// What an entity's activation starts from.
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
    /// Every later read shows all that was written up to there: it was loaded [`Fresh::Settled`], or the store knows
    /// that it is so.
    pub settled: bool,
}

/// How settled a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Sees every acknowledged commit. One whose writer was told of no outcome may be seen too, and then other reads
    /// need not show all of it: its head without its keys and rows, or these without the head.
    Acknowledged,
    /// Also decides every commit whose outcome was unknown: after this read it is either seen, with all that it wrote
    /// and by every later read, or can never apply. What is decided on an entity is decided on what was loaded so.
    Settled,
}

/// Which way a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending.
    Asc,
    /// Descending.
    Desc,
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
    /// The keys that begin with `prefix` and go on behind it.
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

/// Which rows or entries of a list are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Those whose keys are in it.
    pub range: KeyRange,
    /// Which way.
    pub order: Order,
    /// At most so many.
    pub limit: usize,
}

impl Scan {
    /// At most `limit` of `range`.
    #[must_use]
    pub fn new(range: KeyRange, order: Order, limit: usize) -> Self {
        Self { range, order, limit }
    }
}

/// Which events of a log are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogScan {
    /// The first sequence.
    pub from: u64,
    /// The last one, which is read too.
    pub to: u64,
    /// Which way.
    pub order: Order,
    /// At most so many.
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

/// What a process says of itself, again and again, as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The process.
    pub node: NodeId,
    /// How often it has said so; one that stays the same is from a process that is gone, or cannot write.
    pub count: u64,
    /// Where others may ask it, as a URL without a path; `None`: nowhere.
    pub address: Option<Arc<str>>,
}

/// Why a store could not do what was asked.
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
    /// What was read back is not what was written.
    #[error("stored data is damaged: {0}")]
    Corrupt(#[source] Cause),
}

impl StoreError {
    /// Whether the same may work later.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Indeterminate(_))
    }
}

/// A durable store of entities. See the module's text for what may be relied on.
pub trait Store: Send + Sync + 'static {
    /// An entity's state and head; `None` if it does not exist.
    fn load(&self, entity: EntityKey, fresh: Fresh) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>>;

    /// The head of an entity, as [`Store::load`] would return it.
    fn head(&self, entity: EntityKey, fresh: Fresh) -> BoxFuture<'_, Result<Option<Head>, StoreError>> {
        let loading = self.load(entity, fresh);
        Box::pin(async move { Ok(loading.await?.map(|loaded| loaded.head)) })
    }

    /// Applies a commit if the entity stands where it expects. Sending the same commit (the same
    /// [`CommitId`]) again is safe: if it was applied, the answer is `Committed` as long as it is the newest.
    fn commit(&self, commit: Commit, done: Done);

    /// What an idempotency key has done in this entity. An expired row may or may not still be found. An effect that is
    /// found is settled, because retries are answered from it; a row that only holds the key need not be.
    fn find_key(&self, entity: EntityKey, key: KeyHash) -> BoxFuture<'_, Result<Option<KeyRow>, StoreError>>;

    /// Events of a log. Marks are left out.
    fn read_log(&self, entity: EntityKey, scan: LogScan) -> BoxFuture<'_, Result<Vec<LogRecord>, StoreError>>;

    /// One keyed row.
    fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Keyed rows. Fewer than were asked for are the last ones ([`Pages`] goes by it).
    fn rows(&self, entity: EntityKey, table: Table, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Entries of a workspace's list; likewise.
    fn view(&self, workspace: Address, view: View, scan: Scan) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Up to `limit` alarms due at or before `upto`, earliest first, behind `after`. One that was moved or cleared a
    /// moment ago may be among them: an entity that is woken checks whether it is time. So may one of an entity that
    /// cannot be read. A part of the index that cannot be read keeps none of the others back (see
    /// [`DuePage::missing`]); it fails where nothing can be read.
    fn due(&self, after: Option<Due>, upto: Millis, limit: usize) -> BoxFuture<'_, Result<DuePage, StoreError>>;

    /// After how many commits of an entity the host should hand in its state. 1: with every commit.
    fn snapshot_every(&self) -> u64;

    /// Whether other processes may commit to the same entities. Then a refusal that was decided on what is in memory is
    /// compared with the store before it is told.
    fn is_shared(&self) -> bool {
        false
    }

    /// Says that a process lives, and who else has said so lately; `me` is among them. What is older than a minute may
    /// be left out. Only a store that is shared needs to ask anybody.
    fn beat(&self, me: Beat) -> BoxFuture<'_, Result<Vec<Beat>, StoreError>> {
        Box::pin(async move { Ok(vec![me]) })
    }

    /// Says that a process is about to end.
    fn leave(&self, _node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    /// What kind of store it is, as `db.system.name` of a span.
    fn system(&self) -> &'static str {
        "memory"
    }

    /// What the store has counted and timed, if it does.
    fn metrics(&self) -> Option<&StoreMetrics> {
        None
    }

    /// Ends the store: what was acknowledged is durable, later calls fail as `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}
