//! The behaviour of an entity: a pure state machine.
//!
//! [`Machine::decide`] maps a state and a command to a decision; [`Machine::apply`] takes a record into the state.
//! Neither awaits, reads a clock, draws randomness or does I/O, so a decision is tested as a value and can be repeated:
//! after a conflict the same command is decided again on the stored state. No method of the trait is given the node.
//! What an entity starts and announces in its process is in a second trait, [`Effects`]. Everything else (batching,
//! storing, answering, alarms) belongs to the host and is the same for all machines.

use std::fmt::Debug;

use crate::clock::Millis;
use crate::id::{EntityKey, MessageId};
use crate::store::{KeyHash, NodeId, RowWrite, ViewWrite};
use crate::trace::TraceContext;

mod effects;
mod read_set;
#[cfg(test)]
pub(crate) mod sim;

pub use effects::{DueWork, Effects};
pub(crate) use read_set::MAX_ROWS_UNDER_PREFIX;
pub use read_set::{Need, ReadSet, Undecided};

/// A fact of an entity's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<E> {
    /// Its sequence; a mark has that of the newest event before it.
    pub seq: u64,
    /// When it was decided. Never earlier than the record before it.
    pub at: Millis,
    /// The request that caused it, now or, if an alarm rang meanwhile, hours ago: for traces that continue hours later.
    pub trace: Option<TraceContext>,
    /// The event.
    pub event: E,
}

/// The input of a decision besides state and command: time, ids, key, trace.
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
    /// The span of the alarm that caused the command, recorded or not: it is recorded as soon as the decision goes back
    /// to a recorded request.
    pub alarm: Option<TraceContext>,
}

impl DecisionContext {
    /// The trace for work that the command leaves for later because of the earlier `request`: it
    /// belongs to the alarm, and is recorded if that request is.
    #[must_use]
    pub fn trace_of_work_for(&self, request: TraceContext) -> TraceContext {
        self.alarm.filter(|_| request.is_sampled()).map_or(request, TraceContext::sampled)
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
    /// Whether the rows hold content that must be removed for good (see [`Commit::erases`](crate::store::Commit::erases));
    /// redactions imply it.
    pub erases: bool,
    /// The traces of earlier requests that are the cause of events: the event's place in `events`, in ascending order,
    /// and the trace that its record gets instead of the command's.
    pub causes: Vec<(usize, TraceContext)>,
    /// The change only holds the idempotency key, up to this many claims; see [`claims`](crate::workflows::claims).
    pub holds: Option<u64>,
    /// The reply, sent once all of it is durable.
    pub reply: M::Reply,
}

impl<M: Machine> Change<M> {
    /// A change that only appends.
    pub fn new(events: Vec<M::Event>, reply: M::Reply) -> Self {
        let rows = Vec::new();
        let views = Vec::new();
        let redactions = Vec::new();
        Self { events, rows, views, redactions, erases: false, causes: Vec::new(), holds: None, reply }
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
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided>;

    /// Takes a record into the state. The first record of an entity creates it.
    fn apply(state: &mut Option<Self::State>, record: &Record<Self::Event>);

    /// Whether a record takes a sequence of its own, that is, whether clients see it as an event.
    fn is_event(event: &Self::Event) -> bool;

    /// The earliest time at which the entity wants to be woken.
    fn alarm(state: &Self::State) -> Option<Millis>;

    /// The earliest time at which it wants to be woken even while tasks are doing all work that is due by `now`.
    fn alarm_meanwhile(_state: &Self::State, _now: Millis) -> Option<Millis> {
        None
    }

    /// The id that clients know the entity by, for traces.
    fn public_id(_: &Self::State) -> Option<String> {
        None
    }

    /// The message that a record accepted, for traces: one of the entity that [`Machine::public_id`] names.
    fn accepted(_: &Record<Self::Event>) -> Option<MessageId> {
        None
    }

    /// About how many bytes `command` adds to a commit.
    fn weight(command: &Self::Command) -> usize;
}
