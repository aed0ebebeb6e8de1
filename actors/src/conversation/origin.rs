//! The origin of a conversation: a channel, a contact, a request.

use minicbor::{Decode, Encode};

use crate::channel::id_of;
use crate::id::ContactId;

/// The origin of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Origin {
    /// It is a human channel's.
    #[n(0)]
    Human {
        /// The id of the channel.
        #[n(0)]
        channel: String,
    },
    /// A contact's, on an api channel.
    #[n(1)]
    Api {
        /// The channel's incarnation: a channel made again with the id of a deleted one is another channel.
        #[n(0)]
        channel: String,
        /// The contact.
        #[n(1)]
        contact: ContactId,
        /// The channel's agent when the conversation was opened; the channel's current agent answers.
        #[n(2)]
        agent: String,
    },
    /// Neither channel nor contact: it was opened by a request, or by its first message.
    #[n(2)]
    Direct,
}

impl Origin {
    /// The id of the channel that the conversation belongs to.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Human { channel } => Some(channel),
            Self::Api { channel, .. } => Some(id_of(channel)),
            Self::Direct => None,
        }
    }

    /// Its contact.
    #[must_use]
    pub fn contact(&self) -> Option<ContactId> {
        match self {
            Self::Api { contact, .. } => Some(*contact),
            Self::Human { .. } | Self::Direct => None,
        }
    }

    /// The agent that its channel had when it was opened.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::Api { agent, .. } => Some(agent),
            Self::Human { .. } | Self::Direct => None,
        }
    }

    /// The human channel that it belongs to.
    #[must_use]
    pub fn human_channel(&self) -> Option<&str> {
        match self {
            Self::Human { channel } => Some(channel),
            Self::Api { .. } | Self::Direct => None,
        }
    }
}
