//! The changes that a command makes, written piece by piece.

use bytes::Bytes;
use minicbor::Encode;

use super::{Conversation, Event, Rejection, Reply, State, number_key};
use crate::codec;
use crate::machine::{Change, Decision, DecisionContext, ReadSet, Record, Undecided};
use crate::message::Overlay;
use crate::store::{RowWrite, StoreError, Table, View, ViewWrite};
use crate::tables::OVERLAYS;
use crate::trace::TraceContext;

/// The outcome of a command.
pub(super) type Decided = Result<Decision<Conversation>, Halt>;

/// Why a command changes nothing.
pub(super) enum Halt {
    /// It is refused.
    Rejected(Rejection),
    /// More must be read before it can be decided, or what was read is damaged.
    Undecided(Undecided),
}

impl From<Rejection> for Halt {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Undecided> for Halt {
    fn from(undecided: Undecided) -> Self {
        Self::Undecided(undecided)
    }
}

impl From<StoreError> for Halt {
    fn from(damaged: StoreError) -> Self {
        Self::Undecided(damaged.into())
    }
}

/// The changes that a command makes, with what it decides on.
pub(super) struct Writing<'a> {
    /// Time, key, trace.
    pub(super) context: &'a DecisionContext,
    /// What was read.
    pub(super) reads: &'a ReadSet,
    change: Change<Conversation>,
    next_seq: u64,
}

impl<'a> Writing<'a> {
    /// Nothing is written yet.
    pub(super) fn new(context: &'a DecisionContext, reads: &'a ReadSet) -> Self {
        Self { context, reads, change: Change::new(Vec::new(), Reply::Nothing), next_seq: context.next_seq }
    }

    /// The sequence of the next event.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The events and marks so far.
    pub(super) fn events(&self) -> &[Event] {
        &self.change.events
    }

    /// The rows so far.
    pub(super) fn rows(&self) -> &[RowWrite] {
        &self.change.rows
    }

    /// Makes room for so many events, where their number is known: they are large.
    pub(super) fn expect(&mut self, events: usize) {
        self.change.events.reserve_exact(events);
    }

    /// Appends an event or a mark. Returns the sequence of the event.
    pub(super) fn event(&mut self, event: Event) -> u64 {
        let seq = self.next_seq;
        self.next_seq += u64::from(event.name().is_some());
        self.change.events.push(event);
        seq
    }

    /// Appends an event that was caused by the request of this trace, and not by the command.
    pub(super) fn event_of(&mut self, cause: TraceContext, event: Event) -> u64 {
        self.change.causes.push((self.change.events.len(), cause));
        self.event(event)
    }

    /// Puts a row with this value.
    pub(super) fn put<T: Encode<()>>(&mut self, table: Table, key: impl Into<Bytes>, value: &T) {
        self.row(RowWrite::put(table, key, codec::encode(value)));
    }

    /// Deletes a row.
    pub(super) fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.row(RowWrite::delete(table, key));
    }

    /// Writes a row.
    pub(super) fn row(&mut self, row: RowWrite) {
        self.change.rows.push(row);
    }

    /// Writes rows.
    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = RowWrite>) {
        self.change.rows.extend(rows);
    }

    /// Puts the overlay of the message with this sequence.
    pub(super) fn overlay(&mut self, seq: u64, overlay: &Overlay) {
        self.put(OVERLAYS, number_key(seq), overlay);
    }

    /// Adds an entry to a list of the workspace.
    pub(super) fn list(&mut self, view: View, key: impl Into<Bytes>) {
        self.entry(ViewWrite::add(view, key));
    }

    /// Removes an entry from a list of the workspace.
    pub(super) fn unlist(&mut self, view: View, key: impl Into<Bytes>) {
        self.entry(ViewWrite::remove(view, key));
    }

    /// Writes an entry of a list of the workspace.
    pub(super) fn entry(&mut self, entry: ViewWrite) {
        self.change.views.push(entry);
    }

    /// Replaces an earlier event.
    pub(super) fn redact(&mut self, record: Record<Event>) {
        self.change.redactions.push(record);
    }

    /// The state once the events so far have happened.
    pub(super) fn after(&self, state: &State) -> State {
        let mut after = state.clone();
        let mut seq = self.context.next_seq;
        for event in &self.change.events {
            after.apply(&Record { seq, at: self.context.now, trace: None, event: event.clone() });
            seq += u64::from(event.name().is_some());
        }
        after
    }

    /// What was written, answered with `reply`; if nothing was, only the answer.
    pub(super) fn done(self, reply: Reply) -> Decision<Conversation> {
        let Change { events, rows, views, redactions, .. } = &self.change;
        if events.is_empty() && rows.is_empty() && views.is_empty() && redactions.is_empty() {
            return Decision::Answer(reply);
        }
        Decision::Change(Change { reply, ..self.change })
    }
}
