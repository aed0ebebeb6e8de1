//! Configuration, changed rarely and read by every request: channels and agents of a workspace, workspaces and API keys
//! of the installation.
//!
//! One entity holds them as keyed rows. A change names the rows that it expects, and is refused if they differ; the
//! meaning of a change is the caller's. Reads do not use this entity, but the catalog of a node.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Machine, Need, ReadSet, Record, Undecided};
use crate::store::{RowWrite, Table};
use crate::tables::{CHANNELS, WEBHOOK_ENDPOINTS};

mod effects;
pub mod places;

/// One row's change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RowChange {
    /// The list.
    #[n(0)]
    table: u8,
    /// The row.
    #[cbor(n(1), with = "minicbor::bytes")]
    key: Vec<u8>,
    /// The new value; `None`: deleted.
    #[cbor(n(2), with = "minicbor::bytes")]
    value: Option<Vec<u8>>,
}

impl RowChange {
    /// A row to put.
    #[must_use]
    pub fn put(table: Table, key: &[u8], value: &Bytes) -> Self {
        Self { table: table.0, key: key.to_vec(), value: Some(value.to_vec()) }
    }

    /// A row to delete.
    #[must_use]
    pub fn delete(table: Table, key: &[u8]) -> Self {
        Self { table: table.0, key: key.to_vec(), value: None }
    }

    /// The list.
    #[must_use]
    pub fn table(&self) -> Table {
        Table(self.table)
    }

    /// The row's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The new value.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The write that makes this change.
    fn write(&self) -> RowWrite {
        let key = Bytes::copy_from_slice(&self.key);
        match self.value() {
            Some(value) => RowWrite::put(self.table(), key, Bytes::copy_from_slice(value)),
            None => RowWrite::delete(self.table(), key),
        }
    }
}

/// The state: everything else is rows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// When it last changed.
    #[n(0)]
    pub updated_at: Millis,
    /// The sequence of the newest change of a channel. `None`: none has changed since this field exists.
    #[n(1)]
    pub channels_at: Option<u64>,
}

/// An event: rows change together.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// The rows.
    #[n(0)]
    pub changes: Vec<RowChange>,
}

/// The data on which a change was decided, which must be unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A row must be as it was read.
    Row {
        /// The list.
        table: Table,
        /// The row's key.
        key: Bytes,
        /// The value read; `None`: there was no such row.
        value: Option<Bytes>,
    },
    /// No channel may have changed since this was the newest [change of one](State::channels_at): for decisions on a
    /// search through all of them, and on what was not found there.
    Channels(Option<u64>),
}

impl Expect {
    /// A row that must be as it was read.
    #[must_use]
    pub fn new(table: Table, key: &[u8], value: Option<Bytes>) -> Self {
        Self::Row { table, key: Bytes::copy_from_slice(key), value }
    }

    /// Whether there must be no such row.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Row { value: None, .. })
    }

    fn need(&self) -> Option<Need> {
        match self {
            Self::Row { table, key, .. } => Some(Need::Row(*table, key.clone())),
            Self::Channels(_) => None,
        }
    }

    fn holds(&self, state: Option<&State>, reads: &ReadSet) -> Result<bool, Undecided> {
        Ok(match self {
            Self::Row { table, key, value } => reads.row(*table, key.clone())? == value.as_ref(),
            Self::Channels(at) => state.and_then(|state| state.channels_at) == *at,
        })
    }
}

/// Rows to change together, if everything `expected` holds.
#[derive(Debug)]
pub struct Command {
    /// The expectations.
    pub expected: Vec<Expect>,
    /// The changes.
    pub changes: Vec<RowChange>,
}

impl Command {
    /// Whether it adds a webhook endpoint.
    fn makes_endpoint(&self) -> bool {
        let absent = |expected: &Expect| matches!(expected, Expect::Row { table: WEBHOOK_ENDPOINTS, value: None, .. });
        self.expected.iter().any(absent)
    }

    /// Whether a cache may hold the changed rows: a row that existed, or the rows of a list.
    #[must_use]
    pub fn may_be_known(&self) -> bool {
        let had_row = |change: &RowChange| {
            let of = |row: &&Expect| match row {
                Expect::Row { table, key, .. } => *table == change.table() && key[..] == *change.key(),
                Expect::Channels(_) => false,
            };
            self.expected.iter().find(of).is_none_or(|row| !row.is_absence())
        };
        self.changes.iter().any(|change| change.table() == WEBHOOK_ENDPOINTS || had_row(change))
    }
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// An expectation does not hold.
    Mismatch {
        /// Its index in [`Command::expected`], from 0.
        index: usize,
    },
    /// The workspace already has [`limits::WEBHOOK_ENDPOINTS`] endpoints.
    TooManyEndpoints,
}

/// The state machine.
#[derive(Debug)]
pub struct Registry;

impl Machine for Registry {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = ();
    type Rejection = Rejection;

    fn needs(_: Option<&State>, command: &Command) -> Vec<Need> {
        let expected = command.expected.iter().filter_map(Expect::need);
        let endpoints = command.makes_endpoint().then_some(Need::First(WEBHOOK_ENDPOINTS, limits::WEBHOOK_ENDPOINTS));
        expected.chain(places::needs(&command.changes)).chain(endpoints).collect()
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        for (index, expected) in command.expected.iter().enumerate() {
            if !expected.holds(state, reads)? {
                return Ok(Decision::Reject(Rejection::Mismatch { index }));
            }
        }
        if command.makes_endpoint() {
            let most = limits::WEBHOOK_ENDPOINTS;
            if reads.first(WEBHOOK_ENDPOINTS, most)?.len() == most {
                return Ok(Decision::Reject(Rejection::TooManyEndpoints));
            }
        }
        let rows = command.changes.iter().map(RowChange::write);
        let rows = rows.chain(places::writes(&command.changes, context.next_seq, reads)?).collect();
        let event = Event { changes: command.changes.clone() };
        Ok(Decision::Change(Change { rows, ..Change::new(vec![event], ()) }))
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        let before = state.as_ref().and_then(|state| state.channels_at);
        let has_channels = record.event.changes.iter().any(|change| change.table() == CHANNELS);
        *state =
            Some(State { updated_at: record.at, channels_at: if has_channels { Some(record.seq) } else { before } });
    }

    fn is_event(_: &Event) -> bool {
        true
    }

    fn alarm(_: &State) -> Option<Millis> {
        None
    }

    fn weight(command: &Command) -> usize {
        let size = |change: &RowChange| 100 + change.value.as_ref().map_or(0, Vec::len);
        command.changes.iter().map(size).sum()
    }
}

#[cfg(test)]
mod tests;
