//! The conversations of a contact on one channel.

use minicbor::{Decode, Encode};

use super::MAX_EARLIER;
use crate::id::ConversationId;

/// The conversation that is open with a contact on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenConversation {
    /// The channel's [incarnation](crate::channel::Channel::incarnation).
    #[n(0)]
    pub channel: String,
    /// Which of the contact's conversations on the channel it is, from 1.
    #[n(1)]
    pub generation: u32,
    /// The id of the conversation.
    #[n(2)]
    pub id: ConversationId,
    /// The ids of the previous ones, newest first.
    #[n(3)]
    pub earlier: Vec<ConversationId>,
    /// The generation with which the present life began, if it was not the first. Earlier ones belong to an erased
    /// contact; so does this one, if that generation is not assigned yet.
    #[n(4)]
    pub first: Option<u32>,
    /// `Some(true)`: a client reopened an earlier conversation, which may have accepted messages since, so recent keys
    /// may be there.
    #[n(5)]
    pub returned_to_earlier: Option<bool>,
}

impl OpenConversation {
    /// The generation with which the present life began.
    pub(super) fn first(&self) -> u32 {
        self.first.unwrap_or(1)
    }

    /// The id of the conversation of an earlier generation, as far as it is remembered, or of this one.
    pub(super) fn id_of(&self, generation: u32) -> Option<ConversationId> {
        match usize::try_from(self.generation.checked_sub(generation)?).ok()? {
            0 => Some(self.id),
            before => self.earlier.get(before - 1).copied(),
        }
    }

    /// Marks it as an erased contact's.
    pub(super) fn mark_erased(&mut self) {
        self.first = Some(self.generation + 1);
    }

    /// The earlier conversations of the present life, as far as they are remembered, newest first.
    pub fn earlier_of_this_life(&self) -> impl Iterator<Item = ConversationId> + '_ {
        let generations = self.generation.saturating_sub(self.first());
        self.earlier.iter().take(usize::try_from(generations).unwrap_or(usize::MAX)).copied()
    }

    /// How many generations before a given one may have accepted messages after that one began.
    #[must_use]
    pub fn reach_back(&self) -> usize {
        if self.returned_to_earlier == Some(true) { MAX_EARLIER } else { 0 }
    }

    /// Whether it belongs to the present life.
    pub(super) fn is_open(&self) -> bool {
        self.generation >= self.first()
    }
}
