//! Which conversation a person's next message on a channel belongs to.

use super::{
    Contact, EARLIER_MAX, Event, OpenConversation, Rejection, Reply, State, conversation_address, living, save,
};
use crate::id::ConversationId;
use crate::limits;
use crate::machine::{Change, Decision, Moment};

/// Asks for it; where there is none, or nobody with this identifier, it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The identifier, trimmed.
    pub identifier: String,
    /// The name, used only when the contact is created.
    pub name: Option<String>,
    /// The channel.
    pub channel: String,
    /// The conversation that turned out to be closed.
    pub closed: Option<ConversationId>,
    /// Where the contact was erased, another one with the same identifier may begin.
    pub revives: bool,
}

impl Resolve {
    /// The conversation that the message goes on with; `None`: it begins another one.
    pub(super) fn continued<'s>(&self, state: Option<&'s State>) -> Option<(&'s State, &'s OpenConversation)> {
        let state = living(state)?;
        let open = state.open.iter().find(|open| open.channel == self.channel)?;
        (open.is_open() && self.closed != Some(open.id)).then_some((state, open))
    }

    pub(super) fn decide(&self, state: Option<&State>, moment: &Moment) -> Decision<Contact> {
        if !self.revives && state.is_some_and(|state| state.erased_at.is_some()) {
            return Decision::Answer(Reply::Erased);
        }
        if let Some((state, open)) = self.continued(state) {
            return Decision::Answer(Reply::Resolved { contact: state.id, conversation: open.clone() });
        }
        let channel = &self.channel;
        let open = state.and_then(|state| state.open.iter().find(|open| open.channel == *channel));
        if open.is_none() && state.is_some_and(|state| state.open.len() >= limits::CONTACT_CHANNELS) {
            return Decision::Reject(Rejection::TooManyChannels);
        }
        let generation = open.map_or(1, |open| open.generation + 1);
        let address = conversation_address(moment.entity, channel, generation);
        let conversation = OpenConversation {
            channel: channel.clone(),
            generation,
            id: ConversationId::new(moment.place, address),
            earlier: open
                .map(|open| std::iter::once(open.id).chain(open.earlier.iter().copied()).take(EARLIER_MAX).collect())
                .unwrap_or_default(),
            first: open.and_then(|open| open.first),
        };
        let contact = save::id_of(state, moment);
        let mut change = Change::new(Vec::new(), Reply::Resolved { contact, conversation: conversation.clone() });
        if living(state).is_none() {
            save::create(state, &self.identifier, self.name.as_deref(), moment, &mut change);
        }
        change.events.push(Event::ConversationAssigned(conversation));
        Decision::Change(change)
    }
}
