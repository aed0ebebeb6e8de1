//! A contact: one person, by the identifier that a client knows them by.
//!
//! The entity's address derives from the workspace and the normalised identifier, so every call for the same person
//! reaches the same actor, and concurrent first messages never make two contacts or two conversations. An erased
//! contact may write again: then a new contact begins at the same address, with another id and other conversations.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::codec;
use crate::id::{Address, ContactId, ConversationId, EntityKey};
use crate::id_clock;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Machine, Need, ReadSet, Record, Undecided};
use crate::outbox::{LaneRow, Outbox, Sending};
use crate::store::RowWrite;
use crate::tables::FORKS;

mod effects;
mod erase;
pub mod identifier;
mod open;
mod outgoing;
mod overflow;
mod requests;
mod resolve;
mod save;

pub use erase::{AdvanceErasure, Erasing, ErasureStep};
pub use open::OpenConversation;
pub use overflow::{OverflowRow, last_on};
pub use resolve::{Resolve, ReturnToEarlier};
pub use save::{Save, Saved, Update};

/// How many earlier conversations of a channel are remembered, for keys that were used there.
const MAX_EARLIER: usize = 4;
/// Bytes of a name by which contacts are sorted; a list entry's key has room for no more.
const NAME_BYTES: usize = 64;

/// The entity of the contact with a normalised identifier.
#[must_use]
pub fn entity_of(workspace: Address, normalised: &str) -> EntityKey {
    EntityKey::contact(workspace, Address::derive("contact", &[&workspace.0, normalised.as_bytes()]))
}

/// The contact's conversation of this generation on a channel, used or not.
#[must_use]
pub fn conversation_of(contact: EntityKey, channel: &str, generation: u32) -> EntityKey {
    EntityKey::conversation(contact.workspace, conversation_address(contact, channel, generation))
}

/// The key prefix of contacts whose name begins with `name`: lower case, cut at a character so that a key has room for
/// it.
#[must_use]
pub fn name_key(name: &str) -> Vec<u8> {
    let lower = name.to_lowercase();
    let end = (0..=NAME_BYTES.min(lower.len())).rev().find(|end| lower.is_char_boundary(*end)).unwrap_or_default();
    lower.as_bytes()[..end].to_vec()
}

/// A copy of a conversation with a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copied {
    /// The contact.
    #[n(0)]
    pub contact: ContactId,
    /// The copy.
    #[n(1)]
    pub copy: ConversationId,
}

/// The state of a contact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// Its id; the time in it is that of its creation, or slightly later, for its place in lists.
    #[n(0)]
    pub id: ContactId,
    /// The identifier as it was first given; empty once erased.
    #[n(1)]
    pub identifier: String,
    /// Its name, from its creation or since.
    #[n(2)]
    pub name: Option<String>,
    /// When it last changed.
    #[n(3)]
    pub updated_at: Millis,
    /// Its conversations on the channels where one began last, one each, the newest at the end.
    #[n(4)]
    pub open: Vec<OpenConversation>,
    /// When it was erased, if it has not written since.
    #[n(5)]
    pub erased_at: Option<Millis>,
    /// The rest of an unfinished erasure, of this life or the one before.
    #[n(6)]
    pub erasing: Option<Erasing>,
    /// Sequence of the event with which this life began, if it is not the first.
    #[n(7)]
    pub first_seq: Option<u64>,
    /// The state of its outbox; `None` if no event had a receiver yet.
    #[n(8)]
    pub outbox: Option<Outbox>,
    /// Sequence of the newest event.
    #[n(9)]
    pub last_seq: Option<u64>,
    /// When it was created, if the time in its id is later.
    #[n(10)]
    pub began_at: Option<Millis>,
}

impl State {
    /// When it was created.
    #[must_use]
    pub fn created_at(&self) -> Millis {
        self.began_at.unwrap_or(self.id.at)
    }

    /// This contact as it was right after its creation with this id at `at`.
    #[must_use]
    pub fn created(self, id: ContactId, at: Millis) -> Self {
        Self { id, began_at: id_clock::earlier(at, id.at), ..self }
    }
}

/// An event of a contact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// The contact was created, by its first message or by request.
    #[n(0)]
    ContactCreated {
        /// Its id.
        #[n(0)]
        id: ContactId,
        /// The identifier as it was given.
        #[n(1)]
        identifier: String,
        /// The name that came with it.
        #[n(2)]
        name: Option<String>,
    },
    /// A conversation was assigned; a mark.
    #[n(1)]
    ConversationAssigned(#[n(0)] OpenConversation),
    /// The name changed.
    #[n(2)]
    ContactUpdated {
        /// The name now.
        #[n(0)]
        name: Option<String>,
    },
    /// The contact's identity is erased.
    #[n(3)]
    ContactErased,
    /// The progress of an erasure, or the next check of it; a mark.
    #[n(4)]
    ErasureMoved(#[n(0)] Option<Erasing>),
    /// The outbox changed; a mark.
    #[n(5)]
    OutboxMoved {
        /// The outbox now.
        #[n(0)]
        outbox: Option<Outbox>,
    },
}

impl Event {
    /// The event's name on the wire; `None` for a mark.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::ContactCreated { .. } => "contact.created",
            Self::ContactUpdated { .. } => "contact.updated",
            Self::ContactErased => "contact.erased",
            Self::ConversationAssigned(_) | Self::ErasureMoved(_) | Self::OutboxMoved { .. } => return None,
        })
    }
}

/// The commands of a contact.
#[derive(Debug)]
pub enum Command {
    /// Resolve the conversation of this person's next message on this channel.
    Resolve(Resolve),
    /// A message is about to go to an earlier conversation.
    ReturnToEarlier(ReturnToEarlier),
    /// Create the contact if it does not exist, and change the name if one is given.
    Save(Save),
    /// Change the name.
    Update(Update),
    /// Erase the contact's identity.
    Erase {
        /// The contact.
        id: ContactId,
    },
    /// A conversation of this contact is about to be copied; the copy is erased with the contact too.
    Fork {
        /// The contact.
        id: ContactId,
        /// The copy.
        copy: ConversationId,
    },
    /// Do the next step of this contact's erasure.
    AdvanceErasure(AdvanceErasure),
    /// Change the outbox of its events.
    Outbox(Sending),
    /// Its alarm rang for work outside of its decisions.
    Wake,
}

/// The replies of a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The contact and its conversation.
    Resolved {
        /// The contact.
        contact: ContactId,
        /// The conversation.
        conversation: OpenConversation,
    },
    /// It was erased, and no other one has begun.
    Erased,
    /// Its state now.
    Contact(Saved),
    /// A delivery is retried; the state of its lane now.
    Again(Box<LaneRow>),
    /// Nothing had to be done.
    Nothing,
}

/// Why a contact refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such contact.
    NotFound,
}

/// The state machine.
#[derive(Debug)]
pub struct Contact;

/// The address of the conversation of this generation.
fn conversation_address(entity: EntityKey, channel: &str, generation: u32) -> Address {
    Address::derive(
        "contact-conversation",
        &[&entity.workspace.0, &entity.id.0, channel.as_bytes(), &generation.to_be_bytes()],
    )
}

/// Notes a copy before it is made, so that an erasure knows of it at any stage of the copying.
fn fork(state: &State, copy: ConversationId) -> Change<Contact> {
    let key = Bytes::copy_from_slice(&copy.address.0);
    let noted = RowWrite::put(FORKS, key, codec::encode(&Copied { contact: state.id, copy }));
    let reply = Reply::Contact(Saved { state: Box::new(state.clone()), created: false });
    Change { rows: vec![noted], ..Change::new(Vec::new(), reply) }
}

/// The state, if the contact exists and is not erased.
fn living(state: Option<&State>) -> Option<&State> {
    state.filter(|state| state.erased_at.is_none())
}

impl Machine for Contact {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn needs(state: Option<&State>, command: &Command) -> Vec<Need> {
        match command {
            Command::Resolve(Resolve { channel, .. }) | Command::ReturnToEarlier(ReturnToEarlier { channel }) => {
                state.and_then(|state| state.needs_of(channel)).into_iter().collect()
            }
            Command::AdvanceErasure(AdvanceErasure(_, step)) => step.needs(state),
            Command::Outbox(sending) => sending.needs(),
            _ => Vec::new(),
        }
    }

    fn needs_place(state: Option<&State>, command: &Command) -> bool {
        match command {
            Command::Resolve(resolve) => resolve.may_begin(state),
            Command::Save(_) => living(state).is_none(),
            _ => false,
        }
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        let decided = match (command, state) {
            (Command::Resolve(resolve), state) => resolve.decide(state, context, reads)?,
            (Command::ReturnToEarlier(back), Some(state)) => back.decide(state, reads)?,
            (Command::Save(Save { identifier, name }), state) => save::save(state, identifier, name, context),
            (Command::Update(Update { id, name }), Some(state)) if state.id == *id && state.erased_at.is_none() => {
                save::update(state, name, context)
            }
            (Command::Erase { id }, Some(state)) if state.id == *id && state.erased_at.is_none() => {
                Decision::Change(erase::erase(state, context))
            }
            (Command::Fork { id, copy }, Some(state)) if state.id == *id && state.erased_at.is_none() => {
                Decision::Change(fork(state, *copy))
            }
            (Command::AdvanceErasure(AdvanceErasure(id, step)), Some(state)) => {
                return erase::advance(state, (*id, *step), context, reads);
            }
            (Command::Outbox(sending), Some(state)) => return sending.decide(state, context, reads),
            (Command::Wake, Some(_)) => Decision::Answer(Reply::Nothing),
            (Command::Update(_) | Command::Erase { .. } | Command::Fork { .. }, _)
            | (Command::ReturnToEarlier(_) | Command::AdvanceErasure(_) | Command::Outbox(_) | Command::Wake, None) => {
                Decision::Reject(Rejection::NotFound)
            }
        };
        Ok(match decided {
            Decision::Change(change) => Decision::Change(outgoing::marked(state, change, context, reads)),
            decided => decided,
        })
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        if let Event::ContactCreated { id, identifier, name } = &record.event {
            let former = state.take();
            // Unsent events of the life before are still sent.
            let outbox = former.as_ref().and_then(|former| former.outbox);
            *state = Some(State {
                id: *id,
                identifier: identifier.clone(),
                name: name.clone(),
                updated_at: record.at,
                open: former.as_ref().map(|former| former.open.clone()).unwrap_or_default(),
                erased_at: None,
                erasing: former.and_then(|former| former.erasing),
                first_seq: Some(record.seq).filter(|seq| *seq > 1),
                began_at: id_clock::earlier(record.at, id.at),
                outbox,
                last_seq: Some(record.seq),
            });
        } else if let Some(state) = state {
            state.last_seq = Some(record.seq);
            state.apply_later(record);
        }
    }

    fn is_event(event: &Event) -> bool {
        event.name().is_some()
    }

    fn alarm(state: &State) -> Option<Millis> {
        let erasing = state.erasing.map(|erasing| erasing.check_at);
        [erasing, state.outbox.map(|outbox| outbox.check_at)].into_iter().flatten().min()
    }

    fn weight(command: &Command) -> usize {
        match command {
            Command::AdvanceErasure(_) => limits::BATCH_BYTES,
            Command::Outbox(sending) => sending.weight(),
            _ => 300,
        }
    }

    fn public_id(state: &State) -> Option<String> {
        Some(state.id.to_string())
    }
}

impl State {
    /// Applies a record other than a creation to the state.
    fn apply_later(&mut self, record: &Record<Event>) {
        match &record.event {
            Event::ContactCreated { .. } => {}
            Event::ConversationAssigned(conversation) => self.assign(conversation),
            Event::ContactUpdated { name } => {
                self.name.clone_from(name);
                self.updated_at = record.at;
            }
            Event::ContactErased => {
                self.identifier.clear();
                self.name = None;
                self.updated_at = record.at;
                self.erased_at = Some(record.at);
                self.open.iter_mut().for_each(OpenConversation::mark_erased);
                self.erasing = Some(Erasing::begun(self.id, record.at, record.seq));
            }
            Event::ErasureMoved(erasing) => self.erasing = *erasing,
            Event::OutboxMoved { outbox } => self.outbox = *outbox,
        }
    }
}

#[cfg(test)]
mod tests;
