//! Conversations on channels beyond those that the state has room for.
//!
//! The state holds the channels on which a conversation began most recently; a message on any other channel reads a
//! row. A channel that leaves the state is written to a row, with the contact's life at that time: an erasure cannot
//! change all rows in one commit, so a reader recognises an outdated row by its life. A row remains when its channel
//! comes back into the state, and is overwritten when the channel leaves again; so reading the state and then the rows
//! finds every conversation.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{Contact, OpenConversation, State};
use crate::codec;
use crate::id::EntityKey;
use crate::limits;
use crate::machine::{Need, ReadSet, Undecided};
use crate::node::Node;
use crate::store::{RowWrite, StoreError};
use crate::tables::CHANNELS_ASIDE;

/// A conversation that has left the state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OverflowRow {
    /// The conversation.
    #[n(0)]
    pub conversation: OpenConversation,
    /// The contact's life then: the sequence of the event with which it began.
    #[n(1)]
    pub life: u64,
}

fn key(channel: &str) -> Bytes {
    Bytes::copy_from_slice(channel.as_bytes())
}

impl OverflowRow {
    /// The conversation as this state of the contact has it: marked as erased if the life of the row has ended by then.
    pub(crate) fn seen_by(self, state: &State) -> OpenConversation {
        let Self { mut conversation, life } = self;
        if life < state.life() || (life == state.life() && state.erased_at.is_some()) {
            conversation.mark_erased();
        }
        conversation
    }
}

/// A contact's last conversation on a channel, in this life or an earlier one.
///
/// # Errors
/// [`StoreError`] if it cannot be read.
pub async fn last_on(node: &Node, contact: EntityKey, channel: &str) -> Result<Option<OpenConversation>, StoreError> {
    let Some(state) = node.state::<Contact>(contact).await? else { return Ok(None) };
    if !state.may_be_in_overflow(channel) {
        return Ok(state.in_state(channel).cloned());
    }
    let row = node.stored::<OverflowRow>(contact, CHANNELS_ASIDE, key(channel)).await?;
    Ok(row.map(|row| row.seen_by(&state)))
}

impl State {
    /// The sequence of the event with which the present life, or the last ended one, began.
    pub(super) fn life(&self) -> u64 {
        self.first_seq.unwrap_or(1)
    }

    pub(super) fn in_state(&self, channel: &str) -> Option<&OpenConversation> {
        self.open.iter().find(|open| open.channel == channel)
    }

    /// Whether a channel's conversation may be in a row: the state is full, and does not have it.
    fn may_be_in_overflow(&self, channel: &str) -> bool {
        self.open.len() >= limits::CONTACT_CHANNELS && self.in_state(channel).is_none()
    }

    /// The read that a channel needs.
    pub(super) fn needs_of(&self, channel: &str) -> Option<Need> {
        self.may_be_in_overflow(channel).then(|| Need::Row(CHANNELS_ASIDE, key(channel)))
    }

    /// The last conversation on a channel, in this life or an earlier one.
    pub(super) fn last_on(&self, channel: &str, reads: &ReadSet) -> Result<Option<OpenConversation>, Undecided> {
        if !self.may_be_in_overflow(channel) {
            return Ok(self.in_state(channel).cloned());
        }
        let row = reads.stored::<OverflowRow>(CHANNELS_ASIDE, key(channel))?;
        Ok(row.map(|row| row.seen_by(self)))
    }

    /// The row of the conversation that leaves the state for a new channel.
    pub(super) fn overflow_row(&self, channel: &str) -> Option<RowWrite> {
        let first = self.open.first().filter(|_| self.may_be_in_overflow(channel))?;
        let row = OverflowRow { conversation: first.clone(), life: self.life() };
        let key = key(&row.conversation.channel);
        Some(RowWrite::put(CHANNELS_ASIDE, key, codec::encode(&row)))
    }

    /// Appends a conversation after all others; if there is no room, the first one leaves the state.
    pub(super) fn assign(&mut self, conversation: &OpenConversation) {
        self.open.retain(|open| open.channel != conversation.channel);
        self.open.push(conversation.clone());
        if self.open.len() > limits::CONTACT_CHANNELS {
            self.open.remove(0);
        }
    }
}
