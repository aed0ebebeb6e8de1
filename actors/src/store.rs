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
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::clock::Millis;
use crate::id::{Address, EntityKey};
use crate::limits;
use crate::metrics::StoreMetrics;
use crate::trace::TraceContext;

mod cause;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
mod due;
#[cfg(any(test, feature = "test-support"))]
pub mod faulty;
pub mod inventory;
pub mod memory;
mod pages;

pub use cause::Cause;
pub use due::{Due, DuePage};
pub use pages::Pages;

/// Where an entity stands.
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

/// The change of an entity's one durable alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmChange {
    /// What was durable before.
    pub previous: Option<Millis>,
    /// What shall be durable no later than the commit (invariant I5).
    pub next: Option<Millis>,
}

/// Everything that becomes true together, or not at all.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The entity.
    pub entity: EntityKey,
    /// Where it must stand; `None`: it must not exist.
    pub expected: Option<Head>,
    /// This commit's name.
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
    /// The state after `records`, when it is due (see [`Store::snapshot_every`]).
    pub state: Option<Bytes>,
    /// `None`: the alarm stays as it is.
    pub alarm: Option<AlarmChange>,
    /// Earlier events to be read with other payloads once this is committed; none of this commit's own. They are the
    /// one part that need not be atomic with the rest: a store may apply them a little later, but before it takes
    /// another commit of the entity, and nothing of a commit that conflicts.
    pub redactions: Vec<Redaction>,
    /// Where a commit that is traced is told about; `None`: nobody looks.
    pub watch: Option<Arc<CommitWatch>>,
}

/// What a store tells of a commit while it makes it durable, for the trace of it. A store tells what it knows.
#[derive(Debug)]
pub struct CommitWatch {
    /// The commit's own span, for calls that carry a trace.
    pub context: TraceContext,
    /// Whether that span is recorded, and not only listed while it lasts.
    pub is_recorded: bool,
    /// Commits that were made durable together with it; 0: not told.
    pub batch_commits: AtomicU64,
    /// Nanoseconds that making them durable took (write and sync, or the cluster's answer); 0: not told.
    pub sync_nanos: AtomicU64,
    /// Times it was sent; 0: not told.
    pub attempts: AtomicU64,
}

impl CommitWatch {
    /// Nothing told yet.
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
    /// [`StoreError::TooLarge`] where the key of a row or an entry is longer than any store takes.
    pub fn measure_rows(&self) -> Result<usize, StoreError> {
        let rows = self.rows.iter().map(|row| (&row.key, &row.value));
        let (mut longest, mut bytes) = (0, self.keys.len() * 64 + self.state.as_ref().map_or(0, Bytes::len));
        for (key, value) in rows.chain(self.views.iter().map(|entry| (&entry.key, &entry.value))) {
            longest = longest.max(key.len());
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        }
        let max = limits::ROW_KEY_BYTES;
        if longest > max { Err(StoreError::TooLarge { bytes: longest, max }) } else { Ok(bytes) }
    }

    /// A commit of nothing yet.
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
            watch: None,
        }
    }

    /// Where the entity stands once this is applied.
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
    /// Not applied, and never will be: the entity stood elsewhere.
    Conflict,
}

/// Called exactly once, from any thread, with how the commit ended. It must be quick and must not block.
pub type Done = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;

/// What an entity's activation starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where it stands.
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
    /// Who.
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
    #[error("a commit of {bytes} bytes is over the store's limit of {max}")]
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
    /// An entity as it stands; `None` if it does not exist.
    fn load(&self, entity: EntityKey, fresh: Fresh) -> BoxFuture<'_, Result<Option<Loaded>, StoreError>>;

    /// Where an entity stands, as [`Store::load`] would say.
    fn head(&self, entity: EntityKey, fresh: Fresh) -> BoxFuture<'_, Result<Option<Head>, StoreError>> {
        let loading = self.load(entity, fresh);
        Box::pin(async move { Ok(loading.await?.map(|loaded| loaded.head)) })
    }

    /// Applies a commit if the entity stands where it expects. Sending the same commit (the same
    /// [`CommitId`]) again is safe: if it was applied, the answer is `Committed` as long as it is the newest.
    fn commit(&self, commit: Commit, done: Done);

    /// What an idempotency key has done in this entity. A row past its time may or may not still be found. An effect
    /// that is found is settled, as it is told to whoever asks again; what only holds the key need not be.
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
    /// moment ago may stand among them: whoever is woken looks whether it is time. So may one of an entity that cannot
    /// be read. A part of the index that cannot be read keeps none of the others back (see [`DuePage::missing`]); it
    /// fails where nothing can be read.
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
