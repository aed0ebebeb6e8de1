//! Changing a conversation's title, owner and status.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::writing::{Decided, Writing};
use super::{Event, Rejection, Reply, State};
use crate::limits;
use crate::machine::{ReadSet, Undecided};
use crate::message::Json;
use crate::patch::Patch;
use crate::tables::DETAILS;

/// Texts about a conversation; a row of its own, so that they do not burden every decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Details {
    /// The title that its client has given it.
    #[n(0)]
    pub title: Option<String>,
    /// The summary that its client has given it.
    #[n(1)]
    pub summary: Option<String>,
    /// The metadata, an object of the client's own.
    #[n(2)]
    pub metadata: Option<Json>,
}

impl Details {
    /// About how many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        len(self.title.as_deref()) + len(self.summary.as_deref()) + len(self.metadata.as_ref().map(Json::as_str))
    }

    /// About how many bytes they take in a commit, where they are in an event and in a row.
    pub(super) fn weight(&self) -> usize {
        2 * self.bytes()
    }

    /// The stored details.
    pub(super) fn stored(reads: &ReadSet) -> Result<Self, Undecided> {
        Ok(reads.stored(DETAILS, Bytes::new())?.unwrap_or_default())
    }
}

/// A change of a conversation's texts, owner and status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The change of the title.
    pub title: Patch<String>,
    /// The change of the summary.
    pub summary: Patch<String>,
    /// The change of the metadata, which is replaced as one value.
    pub metadata: Patch<Json>,
    /// The change of the owner.
    pub owner: Patch<String>,
    /// The status: `true` closes it, `false` opens it; `None`: unchanged.
    pub closed: Option<bool>,
    /// What the client saw; nothing changes if it is outdated.
    pub seen: Option<Box<Seen>>,
}

/// The changeable values, as a client saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Title, summary and metadata.
    pub details: Details,
    /// The owner.
    pub owner: Option<String>,
    /// It was closed.
    pub closed: bool,
}

/// The bytes of an optional text.
fn len(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

impl Update {
    /// About how many bytes it adds to a commit.
    pub(super) fn weight(&self) -> usize {
        let details = Details {
            title: self.title.clone().new_value(),
            summary: self.summary.clone().new_value(),
            metadata: self.metadata.clone().new_value(),
        };
        limits::COMMAND_BYTES + details.weight() + len(self.owner.as_ref().new_value().map(String::as_str))
    }

    /// The details after it.
    fn details(&self, before: &Details) -> Details {
        Details {
            title: self.title.applied_to(before.title.as_ref()),
            summary: self.summary.applied_to(before.summary.as_ref()),
            metadata: self.metadata.applied_to(before.metadata.as_ref()),
        }
    }
}

/// Changes title, summary, metadata, owner or status, unless they differ from what the client saw.
pub(super) fn update(state: &State, update: &Update, mut writing: Writing<'_>) -> Decided {
    if state.erasure.is_some() {
        return Err(Rejection::Erased.into());
    }
    let before = Details::stored(writing.reads)?;
    let changed = |seen: &Seen| seen.details != before || seen.owner != state.owner || seen.closed != state.closed;
    if update.seen.as_deref().is_some_and(changed) {
        return Err(Rejection::Changed.into());
    }
    let closes = !state.closed && update.closed == Some(true);
    // A human channel's conversation is open as long as the channel exists.
    if closes && state.origin.human_channel().is_some() {
        return Err(Rejection::NotClosable.into());
    }
    let details = update.details(&before);
    let owner = update.owner.applied_to(state.owner.as_ref());
    let reopened = state.closed && update.closed == Some(false);
    if details != before || owner != state.owner || reopened {
        writing.event(Event::ConversationUpdated { owner, details: details.clone(), reopened });
    }
    if details != before {
        writing.put(DETAILS, Bytes::new(), &details);
    }
    if closes {
        writing.event(Event::ConversationClosed);
    }
    let after = writing.after(state);
    Ok(writing.done(Reply::Conversation(Box::new(after), details)))
}
