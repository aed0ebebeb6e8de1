//! Memories: facts about a subject, which is a contact or the owner of conversations.
//!
//! One entity holds a subject's memories as keyed rows. Its log records which ones changed but not their text, so that
//! a forgotten memory is deleted with its row. [`extract`] and [`model`] find facts in messages, [`draw`] runs that
//! after the messages are committed, and [`recall`] searches memories.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::conversation::number_key;
use crate::id::{Address, ContactId, EntityKey, Kind, MemoryId, MessageId, half};
use crate::limits;
use crate::machine::{Decision, DecisionContext, Effects, Machine, Need, ReadSet, Record, Undecided};
use crate::node::Node;
use crate::store::StoreError;
use crate::tables::{MEMORIES, SLOTS};

pub mod draw;
mod embed;
pub mod extract;
mod keep;
pub mod model;
mod permits;
pub mod rank;
pub mod recall;
mod requests;

pub use keep::{Edit, ForgetAll, Outcome, Remember};

/// The subject of memories.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Subject {
    /// A contact.
    #[n(0)]
    Contact(#[n(0)] ContactId),
    /// An owner of conversations, or a sender in conversations without an owner.
    #[n(1)]
    Owner(#[n(0)] String),
}

impl Subject {
    /// The entity of its memories.
    #[must_use]
    pub fn entity(&self, workspace: Address) -> EntityKey {
        let id = match self {
            Self::Contact(contact) => contact.address,
            Self::Owner(owner) => Address::derive("owner", &[&workspace.0, owner.as_bytes()]),
        };
        EntityKey { workspace, kind: Kind::Memories, id }
    }
}

/// A memory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Memory {
    /// Its id; the time in it is that of its creation.
    #[n(0)]
    pub id: MemoryId,
    /// Its text.
    #[n(1)]
    pub text: String,
    /// The message that it was last drawn from.
    #[n(2)]
    pub source: Option<MessageId>,
    /// When it was last changed.
    #[n(3)]
    pub updated_at: Option<Millis>,
    /// The hash of its slot.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub slot: [u8; 16],
    /// The message that it was made from.
    #[n(5)]
    pub first: Option<MessageId>,
}

impl Memory {
    /// When it got its current text.
    #[must_use]
    pub fn at(&self) -> Millis {
        self.updated_at.unwrap_or(self.id.at)
    }
}

/// A memory's text as a vector of an embeddings model.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Vector {
    /// The model.
    #[n(0)]
    pub model: String,
    /// The version of the text: when it got that text.
    #[n(1)]
    pub of: Millis,
    /// The numbers.
    #[n(2)]
    pub numbers: Vec<f32>,
}

/// The state of a subject's memories.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// The subject.
    #[n(0)]
    pub subject: Subject,
    /// How many there are.
    #[n(1)]
    pub count: u64,
    /// The newest one's number; numbers are not reused.
    #[n(2)]
    pub last: u64,
    /// When anything last changed.
    #[n(3)]
    pub updated_at: Millis,
    /// The contact was erased: it gets no more memories.
    #[n(4)]
    pub erased: bool,
}

/// An event of a subject's memories.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// A memory was created, or got another text.
    #[n(0)]
    Remembered {
        /// The subject.
        #[n(0)]
        subject: Subject,
        /// The memory's number.
        #[n(1)]
        number: u64,
        /// It was created.
        #[n(2)]
        created: bool,
    },
    /// A memory was forgotten.
    #[n(1)]
    Forgotten {
        /// The memory's number.
        #[n(0)]
        number: u64,
    },
    /// Many memories were forgotten.
    #[n(2)]
    ManyForgotten {
        /// The subject.
        #[n(0)]
        subject: Subject,
        /// How many are left.
        #[n(1)]
        left: u64,
        /// No more will be created.
        #[n(2)]
        for_good: bool,
    },
}

/// The commands of a subject's memories.
#[derive(Debug)]
pub enum Command {
    /// Remember, change and forget.
    Remember(Remember),
    /// Forget one.
    Forget {
        /// The memory.
        id: MemoryId,
    },
    /// Forget all, some at a time; repeat until none is left.
    ForgetAll(ForgetAll),
    /// Store vectors of texts that have not changed.
    Learn(Vec<(MemoryId, Vector)>),
}

/// The replies of a subject's memories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The outcome of each edit.
    Remembered(Vec<Outcome>),
    /// This many are left.
    Left(u64),
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such memory, or no such subject.
    NotFound,
    /// The memories of an erased subject are still being removed here.
    Busy,
}

/// The state machine.
#[derive(Debug)]
pub struct Memories;

impl Machine for Memories {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn needs(state: Option<&State>, command: &Command) -> Vec<Need> {
        let row = |id: &MemoryId| Need::Row(MEMORIES, number_key(id.number));
        match command {
            Command::Remember(remember) => remember.edits.iter().map(Edit::need).collect(),
            Command::Forget { id } => vec![row(id)],
            Command::ForgetAll(_) if state.is_some() => vec![keep::all_need()],
            Command::ForgetAll(_) => Vec::new(),
            Command::Learn(learned) => learned.iter().map(|(id, _)| row(id)).collect(),
        }
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        match command {
            Command::Remember(Remember { subject, edits, source }) => {
                keep::remember(state, (subject, edits, *source), context, reads)
            }
            Command::Forget { id } => keep::forget(*id, reads),
            Command::ForgetAll(ForgetAll { subject, for_good }) => keep::forget_all(state, subject, *for_good, reads),
            Command::Learn(learned) => keep::learn(learned, reads),
        }
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        let begin = |subject: &Subject, last| State {
            subject: subject.clone(),
            count: 0,
            last,
            updated_at: record.at,
            erased: false,
        };
        let last = state.as_ref().map_or(0, |state| state.last);
        match &record.event {
            Event::Remembered { subject, number, created } => {
                let state = match state {
                    Some(state) if state.subject == *subject => state,
                    other => other.insert(begin(subject, last)),
                };
                state.count += u64::from(*created);
                state.last = state.last.max(*number);
                state.updated_at = record.at;
            }
            Event::ManyForgotten { subject, left, for_good } => {
                let state = match state {
                    Some(state) if state.subject == *subject => state,
                    other => other.insert(begin(subject, last)),
                };
                state.count = *left;
                state.erased |= for_good;
                state.updated_at = record.at;
            }
            Event::Forgotten { .. } => {
                if let Some(state) = state {
                    state.count = state.count.saturating_sub(1);
                    state.updated_at = record.at;
                }
            }
        }
    }

    fn is_event(_: &Event) -> bool {
        true
    }

    fn alarm(_: &State) -> Option<Millis> {
        None
    }

    fn weight(command: &Command) -> usize {
        match command {
            Command::Remember(remember) => remember.edits.iter().map(|edit| 300 + edit.text().len()).sum(),
            Command::Forget { .. } => limits::COMMAND_BYTES,
            Command::ForgetAll(_) => keep::FORGOTTEN_PER_COMMIT * 100,
            Command::Learn(learned) => learned.iter().map(|(_, vector)| 100 + 5 * vector.numbers.len()).sum(),
        }
    }
}

impl Effects for Memories {
    fn on_alarm(_: &Arc<Node>, _: EntityKey, _: &State) -> Command {
        Command::Learn(Vec::new())
    }

    fn committed(_: &Arc<Node>, _: EntityKey, _: &State, _: &[Arc<Record<Event>>]) {}
}

/// The hash of a memory's slot.
fn slot_key(slot: &str) -> [u8; 16] {
    half(&blake3::hash(slot.as_bytes()))
}

/// The row of a slot.
fn slot_row(slot: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&slot)
}

/// The number of the memory that consists of exactly this text.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read.
pub async fn number_of(node: &Node, entity: EntityKey, text: &str) -> Result<Option<u64>, StoreError> {
    let Edit::Keep(fact) = Edit::text_as_it_is(text) else { return Ok(None) };
    let row = node.row(entity, SLOTS, slot_row(slot_key(&fact.slot))).await?;
    Ok(row.and_then(|bytes| bytes.as_ref().try_into().ok()).map(u64::from_be_bytes))
}

#[cfg(test)]
mod tests;
