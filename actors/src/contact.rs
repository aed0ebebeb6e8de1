//! A contact: one person, by the identifier that a client knows them by.
//!
//! The entity's address derives from the workspace and the normalised identifier, so every call for the same person
//! meets in the same actor, and two bursts never make two contacts or two conversations.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{Address, ContactId, ConversationId, EntityKey};
use crate::limits;
use crate::machine::{Change, Decision, Found, Machine, Missing, Moment, Need, Record};
use crate::node::Node;
use crate::store::{View, ViewWrite};

/// Contacts of a workspace by id.
pub const CONTACTS: View = View(2);

/// How many earlier conversations of a channel are remembered, for keys that were used there.
const EARLIER_MAX: usize = 4;

/// Where the contact of a normalised identifier lives.
#[must_use]
pub fn entity_of(workspace: Address, normalised: &str) -> EntityKey {
    EntityKey::contact(workspace, Address::derive("contact", &[&workspace.0, normalised.as_bytes()]))
}

/// The contact's conversation of this generation on a channel, whether it was ever used or not.
#[must_use]
pub fn conversation_of(contact: EntityKey, channel: &str, generation: u32) -> EntityKey {
    EntityKey::conversation(contact.workspace, conversation_address(contact, channel, generation))
}

/// The conversation that is open with a contact on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenConversation {
    /// The channel.
    #[n(0)]
    pub channel: String,
    /// Which of the contact's conversations on the channel it is, from 1.
    #[n(1)]
    pub generation: u32,
    /// Its id.
    #[n(2)]
    pub id: ConversationId,
    /// The ones before it, newest first.
    #[n(3)]
    pub earlier: Vec<ConversationId>,
}

/// What decisions need to know of a contact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// Its id; the time in it is that of its creation.
    #[n(0)]
    pub id: ContactId,
    /// The identifier as it was first given.
    #[n(1)]
    pub identifier: String,
    /// The name it was created with, or was given since.
    #[n(2)]
    pub name: Option<String>,
    /// When anything of it last changed.
    #[n(3)]
    pub updated_at: Millis,
    /// Its conversations, one a channel.
    #[n(4)]
    pub open: Vec<OpenConversation>,
}

/// What happens to a contact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// Somebody wrote for the first time.
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
    /// A conversation was assigned.
    #[n(1)]
    ConversationAssigned(#[n(0)] OpenConversation),
    /// The name changed.
    #[n(2)]
    ContactUpdated {
        /// What it is now.
        #[n(0)]
        name: Option<String>,
    },
}

/// What a contact can be asked.
#[derive(Debug)]
pub enum Command {
    /// Which conversation does this person's next message on this channel belong to?
    Resolve {
        /// The identifier, trimmed.
        identifier: String,
        /// The name, used only when the contact is created.
        name: Option<String>,
        /// The channel.
        channel: String,
        /// The conversation that turned out to be closed.
        closed: Option<ConversationId>,
    },
    /// Change the name.
    Update {
        /// What it shall be.
        name: Option<String>,
    },
}

/// What a contact answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The contact and its conversation.
    Resolved {
        /// The contact.
        contact: ContactId,
        /// The conversation.
        conversation: OpenConversation,
    },
    /// It stands so now.
    Contact(Box<State>),
}

/// Why a contact refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such contact.
    NotFound,
    /// It has a conversation on as many channels as it may.
    TooManyChannels,
}

/// The state machine.
#[derive(Debug)]
pub struct Contact;

/// Where the conversation of this generation lives.
fn conversation_address(entity: EntityKey, channel: &str, generation: u32) -> Address {
    Address::derive(
        "contact-conversation",
        &[&entity.workspace.0, &entity.id.0, channel.as_bytes(), &generation.to_be_bytes()],
    )
}

fn resolve(
    state: Option<&State>,
    (identifier, name, channel): (&str, Option<&String>, &str),
    closed: Option<ConversationId>,
    moment: &Moment,
) -> Decision<Contact> {
    let open = state.and_then(|state| state.open.iter().find(|open| open.channel == channel));
    if let (Some(state), Some(open)) = (state, open)
        && closed != Some(open.id)
    {
        return Decision::Answer(Reply::Resolved { contact: state.id, conversation: open.clone() });
    }
    if open.is_none() && state.is_some_and(|state| state.open.len() >= limits::CONTACT_CHANNELS) {
        return Decision::Reject(Rejection::TooManyChannels);
    }
    let generation = open.map_or(1, |open| open.generation + 1);
    let address = conversation_address(moment.entity, channel, generation);
    let conversation = OpenConversation {
        channel: channel.to_owned(),
        generation,
        id: ConversationId::new(moment.now, address),
        earlier: open
            .map(|open| std::iter::once(open.id).chain(open.earlier.iter().copied()).take(EARLIER_MAX).collect())
            .unwrap_or_default(),
    };
    let contact = state.map_or_else(|| ContactId::new(moment.now, moment.entity.id), |state| state.id);
    let mut events = Vec::new();
    let mut views = Vec::new();
    if state.is_none() {
        let identifier = identifier.to_owned();
        events.push(Event::ContactCreated { id: contact, identifier, name: name.cloned() });
        let key = Bytes::copy_from_slice(&contact.to_bytes());
        views.push(ViewWrite { view: CONTACTS, key, value: Some(Bytes::new()) });
    }
    events.push(Event::ConversationAssigned(conversation.clone()));
    Decision::Change(Change { views, ..Change::new(events, Reply::Resolved { contact, conversation }) })
}

fn update(state: &State, name: Option<&String>, moment: &Moment) -> Decision<Contact> {
    let after = State { name: name.cloned(), updated_at: moment.now, ..state.clone() };
    if after.name == state.name {
        return Decision::Answer(Reply::Contact(Box::new(state.clone())));
    }
    let event = Event::ContactUpdated { name: name.cloned() };
    Decision::Change(Change::new(vec![event], Reply::Contact(Box::new(after))))
}

impl Machine for Contact {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn needs(_: Option<&State>, _: &Command) -> Vec<Need> {
        Vec::new()
    }

    fn decide(state: Option<&State>, command: &Command, moment: &Moment, _: &Found) -> Result<Decision<Self>, Missing> {
        Ok(match (command, state) {
            (Command::Resolve { identifier, name, channel, closed }, state) => {
                resolve(state, (identifier, name.as_ref(), channel), *closed, moment)
            }
            (Command::Update { name }, Some(state)) => update(state, name.as_ref(), moment),
            (Command::Update { .. }, None) => Decision::Reject(Rejection::NotFound),
        })
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        match (&record.event, state) {
            (Event::ContactCreated { id, identifier, name }, state) => {
                *state = Some(State {
                    id: *id,
                    identifier: identifier.clone(),
                    name: name.clone(),
                    updated_at: record.at,
                    open: Vec::new(),
                });
            }
            (Event::ConversationAssigned(conversation), Some(state)) => {
                state.open.retain(|open| open.channel != conversation.channel);
                state.open.push(conversation.clone());
            }
            (Event::ContactUpdated { name }, Some(state)) => {
                state.name.clone_from(name);
                state.updated_at = record.at;
            }
            // A log begins with the creation; the store's checks have seen to that.
            (_, None) => {}
        }
    }

    fn is_event(_: &Event) -> bool {
        true
    }

    fn alarm(_: &State) -> Option<Millis> {
        None
    }

    fn on_alarm(_: &Arc<Node>, _: EntityKey, state: &State) -> Command {
        Command::Update { name: state.name.clone() }
    }

    fn public_id(state: &State) -> Option<String> {
        Some(state.id.to_string())
    }

    fn weight(_: &Command) -> usize {
        300
    }

    fn committed(_: &Arc<Node>, _: EntityKey, _: &State, _: &[Arc<Record<Event>>]) {}

    fn adopted(_: &Arc<Node>, _: EntityKey) {}
}

#[cfg(test)]
mod tests;
