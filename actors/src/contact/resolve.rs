//! Resolving the conversation of a person's next message on a channel.

use super::{Contact, Event, MAX_EARLIER, OpenConversation, Reply, State, conversation_address, living, save};
use crate::id::ConversationId;
use crate::machine::{Change, Decision, DecisionContext, ReadSet, Undecided};

/// Resolves the conversation; it is made if there is none, and so is the contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The identifier, trimmed.
    pub identifier: String,
    /// The name, used only when the contact is created.
    pub name: Option<String>,
    /// The [incarnation](crate::channel::Channel::incarnation) of the channel.
    pub channel: String,
    /// The conversation that turned out to be closed.
    pub closed: Option<ConversationId>,
    /// If the contact was erased, another one with the same identifier may begin.
    pub revives: bool,
}

impl Resolve {
    /// Whether another conversation may have to begin, by the state alone.
    pub(super) fn may_begin(&self, state: Option<&State>) -> bool {
        let open = living(state).and_then(|state| state.in_state(&self.channel));
        !open.is_some_and(|open| self.continues(open))
    }

    fn continues(&self, open: &OpenConversation) -> bool {
        open.is_open() && self.closed != Some(open.id)
    }

    pub(super) fn decide(
        &self,
        state: Option<&State>,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Contact>, Undecided> {
        if !self.revives && state.is_some_and(|state| state.erased_at.is_some()) {
            return Ok(Decision::Answer(Reply::Erased));
        }
        let channel = &self.channel;
        let last = state.map(|state| state.last_on(channel, reads)).transpose()?.flatten();
        let last = match (living(state), last) {
            (Some(state), Some(open)) if self.continues(&open) => {
                return Ok(Decision::Answer(Reply::Resolved { contact: state.id, conversation: open }));
            }
            (_, last) => last,
        };
        let generation = last.as_ref().map_or(1, |last| last.generation + 1);
        let address = conversation_address(context.entity, channel, generation);
        let first = last.as_ref().and_then(|last| last.first);
        let returned_to_earlier = last.as_ref().and_then(|last| last.returned_to_earlier);
        let earlier = last.into_iter().flat_map(|last| std::iter::once(last.id).chain(last.earlier));
        let conversation = OpenConversation {
            channel: channel.clone(),
            generation,
            id: ConversationId::new(context.place, address),
            earlier: earlier.take(MAX_EARLIER).collect(),
            first,
            returned_to_earlier,
        };
        let contact = save::id_of(state, context);
        let mut change = Change::new(Vec::new(), Reply::Resolved { contact, conversation: conversation.clone() });
        change.rows.extend(state.and_then(|state| state.overflow_row(channel)));
        if living(state).is_none() {
            save::create(state, &self.identifier, self.name.as_deref(), context, &mut change);
        }
        change.events.push(Event::ConversationAssigned(conversation));
        Ok(Decision::Change(change))
    }
}

/// Notes that a message is about to go to an earlier conversation on the channel, which a client has reopened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnToEarlier {
    /// The [incarnation](crate::channel::Channel::incarnation) of the channel.
    pub channel: String,
}

impl ReturnToEarlier {
    pub(super) fn decide(&self, state: &State, reads: &ReadSet) -> Result<Decision<Contact>, Undecided> {
        let last = state.last_on(&self.channel, reads)?;
        let Some(last) = last.filter(|last| last.returned_to_earlier.is_none()) else {
            return Ok(Decision::Answer(Reply::Nothing));
        };
        let marked = Event::ConversationAssigned(OpenConversation { returned_to_earlier: Some(true), ..last });
        let mut change = Change::new(vec![marked], Reply::Nothing);
        change.rows.extend(state.overflow_row(&self.channel));
        Ok(Decision::Change(change))
    }
}
