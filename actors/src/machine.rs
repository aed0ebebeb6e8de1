//! The behaviour of an entity: a pure state machine.
//!
//! [`Machine::decide`] maps a state and a command to a decision; [`Machine::apply`] takes a record into the state.
//! Neither awaits, reads a clock, draws randomness or does I/O, so a decision is tested as a value and can be repeated:
//! after a conflict the same command is decided again on the stored state. Everything else (batching, storing,
//! answering, alarms) belongs to the host and is the same for all machines.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::Decode;

use crate::clock::Millis;
use crate::codec;
use crate::id::{EntityKey, MessageId};
use crate::node::Node;
use crate::outbox::Listeners;
use crate::store::{KeyHash, KeyRow, NodeId, Row, RowWrite, StoreError, Table, ViewWrite};
use crate::trace::TraceContext;

/// A fact of an entity's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<E> {
    /// Its sequence; a mark has that of the newest event before it.
    pub seq: u64,
    /// When it was decided. Never earlier than the record before it.
    pub at: Millis,
    /// The request that caused it, for traces that continue hours later.
    pub trace: Option<TraceContext>,
    /// The event.
    pub event: E,
}

/// The input of a decision beside state and command: time, ids, key, trace.
#[derive(Clone, Copy, Debug)]
pub struct DecisionContext {
    /// The deciding entity.
    pub entity: EntityKey,
    /// The time: never earlier than that of the newest record.
    pub now: Millis,
    /// The time for an entry in a list of the workspace, where the decision [needs one](Machine::needs_place): `now`,
    /// or slightly later if other entries were made in the same millisecond.
    pub place: Millis,
    /// The sequence that its first event will have.
    pub next_seq: u64,
    /// 16 unpredictable bytes of its own.
    pub random: [u8; 16],
    /// The process that decides.
    pub node: NodeId,
    /// The command's idempotency key.
    pub key: Option<KeyHash>,
    /// The command's trace, for work that it leaves for later.
    pub trace: Option<TraceContext>,
}

/// Something that must be read from the store before a command can be decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// One keyed row.
    Row(Table, Bytes),
    /// The first rows of a list, ascending: up to `limit` of them.
    First(Table, usize),
    /// The rows of a list whose keys begin with this prefix, up to [`UNDER`] of them.
    Under(Table, Bytes),
    /// The event with this sequence.
    Event(u64),
}

/// The most rows under one prefix that a decision reads: one thing has few rows, and a commit could not take more.
pub const UNDER: usize = 1_024;

/// The data read for a batch of commands, overlaid with the batch's own writes.
#[derive(Debug, Default)]
pub struct ReadSet {
    read: Layer,
    written: Layer,
    firsts: HashMap<Table, First>,
    unders: HashSet<(Table, Bytes)>,
    /// The receivers that subscribe to the decided events.
    listeners: Listeners,
}

/// The read part of a list, from its start.
#[derive(Debug)]
struct First {
    /// How many rows were asked for.
    limit: usize,
    /// Beyond this row the list is unknown; `None`: it was read to its end.
    upto: Option<Bytes>,
}

#[derive(Debug, Default)]
struct Layer {
    rows: BTreeMap<(Table, Bytes), Option<Bytes>>,
    events: HashMap<u64, Result<Option<Bytes>, StoreError>>,
    keys: HashMap<KeyHash, Option<KeyRow>>,
}

/// Why a command could not be decided.
#[derive(Clone, Debug)]
pub enum Undecided {
    /// Something had not been read; the host reads it and asks again.
    Missing(Vec<Need>),
    /// The data read is damaged, or a newer version of this program wrote it. Nothing is decided on it.
    Corrupt(StoreError),
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Self::Corrupt(error)
    }
}

impl ReadSet {
    /// A keyed row, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read.
    pub fn row(&self, table: Table, key: impl Into<Bytes>) -> Result<Option<&Bytes>, Undecided> {
        let key = (table, key.into());
        match self.written.rows.get(&key).or_else(|| self.read.rows.get(&key)) {
            Some(row) => Ok(row.as_ref()),
            None => Err(Undecided::Missing(vec![Need::Row(key.0, key.1)])),
        }
    }

    /// The decoded value of a keyed row, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or does not decode.
    pub fn stored<T: for<'b> Decode<'b, ()>>(
        &self,
        table: Table,
        key: impl Into<Bytes>,
    ) -> Result<Option<T>, Undecided> {
        Ok(self.row(table, key)?.map(|bytes| codec::decode(bytes)).transpose()?)
    }

    /// The first rows of a list, ascending: fewer than `limit` only where the list has no more.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if they were not read, or if the batch has deleted so many of them that more must be read.
    pub fn first(&self, table: Table, limit: usize) -> Result<Vec<(&Bytes, &Bytes)>, Undecided> {
        let Some(first) = self.firsts.get(&table).filter(|first| first.limit >= limit) else {
            return Err(Undecided::Missing(vec![Need::First(table, limit)]));
        };
        let mut merged = BTreeMap::new();
        let mut deleted = 0;
        for layer in [&self.read, &self.written] {
            let rows = layer.rows.range((table, Bytes::new())..).take_while(|((t, _), _)| *t == table);
            for ((_, key), value) in rows.filter(|((_, key), _)| first.upto.as_ref().is_none_or(|upto| key <= upto)) {
                deleted += usize::from(value.is_none());
                merged.insert(key, value.as_ref());
            }
        }
        let rows: Vec<_> = merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect();
        if rows.len() < limit && first.upto.is_some() {
            return Err(Undecided::Missing(vec![Need::First(table, first.limit.max(limit) + deleted)]));
        }
        Ok(rows)
    }

    /// The keys of a list that begin with `prefix`, as far as they were read.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if they were not read.
    pub fn under(&self, table: Table, prefix: &Bytes) -> Result<BTreeSet<&Bytes>, Undecided> {
        if !self.unders.contains(&(table, prefix.clone())) {
            return Err(Undecided::Missing(vec![Need::Under(table, prefix.clone())]));
        }
        let mut keys = BTreeSet::new();
        for layer in [&self.read, &self.written] {
            let rows = layer.rows.range((table, prefix.clone())..);
            for ((_, key), value) in rows.take_while(|((of, key), _)| *of == table && key.starts_with(prefix)) {
                if value.is_some() {
                    keys.insert(key)
                } else {
                    keys.remove(key)
                };
            }
        }
        Ok(keys)
    }

    /// The receivers that subscribe to the decided events.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Sets the listeners of the decisions that follow.
    pub fn set_listeners(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// The stored encoding of the event with this sequence, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or is damaged.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<&Bytes>, Undecided> {
        match self.written.events.get(&seq).or_else(|| self.read.events.get(&seq)) {
            Some(Ok(event)) => Ok(event.as_ref()),
            Some(Err(damage)) => Err(Undecided::Corrupt(damage.clone())),
            None => Err(Undecided::Missing(vec![Need::Event(seq)])),
        }
    }

    /// The event with this sequence, if there is one.
    ///
    /// # Errors
    ///
    /// [`Undecided`] if it was not read, or does not decode.
    pub fn record<E: for<'b> Decode<'b, ()>>(&self, seq: u64) -> Result<Option<Record<E>>, Undecided> {
        Ok(self.event(seq)?.map(|bytes| codec::decode_record(seq, bytes)).transpose()?)
    }

    /// The stored effect of an idempotency key; `None`: it was not read.
    pub(crate) fn key(&self, key: KeyHash) -> Option<Option<KeyRow>> {
        self.written.keys.get(&key).or_else(|| self.read.keys.get(&key)).copied()
    }

    pub(crate) fn has(&self, need: &Need) -> bool {
        match need {
            Need::Row(table, key) => self.row(*table, key.clone()).is_ok(),
            Need::First(table, limit) => self.firsts.get(table).is_some_and(|first| first.limit >= *limit),
            Need::Under(table, prefix) => self.unders.contains(&(*table, prefix.clone())),
            Need::Event(seq) => !matches!(self.event(*seq), Err(Undecided::Missing(_))),
        }
    }

    pub(crate) fn add_row(&mut self, table: Table, key: Bytes, row: Option<Bytes>) {
        self.read.rows.insert((table, key), row);
    }

    pub(crate) fn add_first(&mut self, table: Table, limit: usize, rows: Vec<Row>) {
        let upto = rows.last().filter(|_| rows.len() >= limit).map(|row| row.key.clone());
        self.read.rows.extend(rows.into_iter().map(|row| ((table, row.key), Some(row.value))));
        self.firsts.insert(table, First { limit, upto });
    }

    pub(crate) fn add_under(&mut self, table: Table, prefix: Bytes, rows: Vec<Row>) {
        self.read.rows.extend(rows.into_iter().map(|row| ((table, row.key), Some(row.value))));
        self.unders.insert((table, prefix));
    }

    /// `event`: the bytes read, or how they are damaged.
    pub(crate) fn add_event(&mut self, seq: u64, event: Result<Option<Bytes>, StoreError>) {
        self.read.events.insert(seq, event);
    }

    pub(crate) fn add_key(&mut self, key: KeyHash, row: Option<KeyRow>) {
        self.read.keys.insert(key, row);
    }

    pub(crate) fn write_row(&mut self, write: &RowWrite) {
        self.written.rows.insert((write.table, write.key.clone()), write.value.clone());
    }

    pub(crate) fn write_event(&mut self, seq: u64, event: Bytes) {
        self.written.events.insert(seq, Ok(Some(event)));
    }

    pub(crate) fn write_key(&mut self, key: KeyHash, row: KeyRow) {
        self.written.keys.insert(key, Some(row));
    }

    /// Drops the batch's own writes, so that it can be decided again.
    pub(crate) fn forget_writes(&mut self) {
        self.written = Layer::default();
    }
}

/// The decision of a state machine.
#[derive(Debug)]
pub enum Decision<M: Machine> {
    /// Nothing changes, and an idempotency key remembers that as its effect.
    Answer(M::Reply),
    /// Nothing changes here; the effect, if any, is in another entity, so no key remembers this.
    Elsewhere(M::Reply),
    /// A healthy refusal; nothing changes.
    Reject(M::Rejection),
    /// The changes are committed together, and then the command is answered.
    Change(Change<M>),
}

/// The changes that one command makes.
#[derive(Debug)]
pub struct Change<M: Machine> {
    /// Appended to the log.
    pub events: Vec<M::Event>,
    /// Keyed rows.
    pub rows: Vec<RowWrite>,
    /// List entries.
    pub views: Vec<ViewWrite>,
    /// Earlier events with reduced content; each must lead to the same state as before.
    pub redactions: Vec<Record<M::Event>>,
    /// The change only holds the idempotency key, up to this many claims; see [`claims`](crate::claims).
    pub holds: Option<u64>,
    /// The reply, sent once all of it is durable.
    pub reply: M::Reply,
}

impl<M: Machine> Change<M> {
    /// A change that only appends.
    pub fn new(events: Vec<M::Event>, reply: M::Reply) -> Self {
        Self { events, rows: Vec::new(), views: Vec::new(), redactions: Vec::new(), holds: None, reply }
    }
}

/// A pure state machine; see the module's text.
pub trait Machine: Sized + Debug + Send + Sync + 'static {
    /// The state that decisions need; at most [`crate::limits::STATE_BYTES`] encoded, and cheap to clone
    type State: Clone + Debug + Send + Sync + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>;
    /// The content of a record.
    type Event: Clone + Debug + Send + Sync + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>;
    /// A command that it accepts.
    type Command: Debug + Send + Sync;
    /// Its reply to a command.
    type Reply: Clone + Debug + Send + Sync;
    /// Why it refuses.
    type Rejection: Clone + Debug + Send + Sync;

    /// The reads that `command` will need, as far as that is known beforehand.
    fn needs(state: Option<&Self::State>, command: &Self::Command) -> Vec<Need>;

    /// Whether the decision creates ids of entities, or a review: it then gets a [time](DecisionContext::place) for it.
    fn needs_place(_state: Option<&Self::State>, _command: &Self::Command) -> bool {
        false
    }

    /// Decides a command. `state` is `None` for an entity that does not exist yet.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when it needs something that has not been read.
    fn decide(
        state: Option<&Self::State>,
        command: &Self::Command,
        moment: &DecisionContext,
        found: &ReadSet,
    ) -> Result<Decision<Self>, Undecided>;

    /// Takes a record into the state. The first record of an entity creates it.
    fn apply(state: &mut Option<Self::State>, record: &Record<Self::Event>);

    /// The receivers of an entity's events, as far as is known without waiting.
    fn listeners(_: &Node, _: EntityKey, _: Option<&Self::State>, _: &Self::Command) -> Listeners {
        Listeners::none()
    }

    /// Whether a record takes a sequence of its own, that is, whether clients see it as an event.
    fn is_event(event: &Self::Event) -> bool;

    /// The earliest time at which the entity wants to be woken.
    fn alarm(state: &Self::State) -> Option<Millis>;

    /// The command to send at that time. Lookups elsewhere that it needs are started here; it must not block.
    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &Self::State) -> Self::Command;

    /// The id that clients know the entity by, for traces.
    fn public_id(_: &Self::State) -> Option<String> {
        None
    }

    /// The message that a record accepted, for traces: one of the entity that [`Machine::public_id`] names.
    fn accepted(_: &Record<Self::Event>) -> Option<MessageId> {
        None
    }

    /// Whether a live process other than this one is doing all due work. Then this process does none of it.
    fn is_done_elsewhere(_node: &Node, _state: &Self::State, _now: Millis) -> bool {
        false
    }

    /// Whether a task of this process is doing all due work, and reports back by itself. Then the entity is checked
    /// less often.
    fn is_under_way(_node: &Node, _entity: EntityKey, _state: &Self::State, _now: Millis) -> bool {
        false
    }

    /// When it wants to be woken for work that no task can be doing.
    fn next_here(_: &Self::State) -> Option<Millis> {
        None
    }

    /// When it wants to be checked whatever is running: as `next_here`, but later than `now` if the check only shows
    /// other processes that the work is in progress.
    fn next_look(state: &Self::State, _now: Millis) -> Option<Millis> {
        Self::next_here(state)
    }

    /// About how many bytes `command` adds to a commit.
    fn weight(command: &Self::Command) -> usize;

    /// Called in order, after the records are durable and before their commands are answered: beside the answers, the
    /// only place from which anything leaves an actor (invariant I1). It must not block.
    fn committed(node: &Arc<Node>, entity: EntityKey, state: &Self::State, records: &[Arc<Record<Self::Event>>]);

    /// Called when the entity was loaded from the store and may hold records that [`Machine::committed`] was not called
    /// with: those of a commit whose outcome was unknown, or of another process. `state` is the loaded state, if it
    /// could be read. It must not block.
    fn adopted(node: &Arc<Node>, entity: EntityKey, state: Option<&Self::State>);
}

#[cfg(test)]
pub(crate) mod sim;
