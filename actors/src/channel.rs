//! Channels: where messages arrive, and whether people or an agent answer them.

use std::borrow::Cow;

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::conversation::{BusyPolicy, Details, Opening, Origin};
use crate::id::{Address, ConversationId, EntityKey};
use crate::message::Json;
use crate::webhook::{RetiredSecret, signing};

/// Who answers on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ChannelKind {
    /// People read it; agents post to it and ask for reviews.
    #[n(0)]
    Human,
    /// Contacts write to it; an agent answers.
    #[n(1)]
    Api,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Channel {
    /// Its id, chosen by the client or generated.
    #[n(0)]
    pub id: String,
    /// Its display name.
    #[n(1)]
    pub name: String,
    /// Who answers on it.
    #[n(2)]
    pub kind: ChannelKind,
    /// The agent that answers on it.
    #[n(3)]
    pub agent: Option<String>,
    /// The effect of a new message while a turn runs.
    #[n(4)]
    pub busy_policy: BusyPolicy,
    /// Whether it accepts messages.
    #[n(5)]
    pub enabled: bool,
    /// The URL that gets all its events.
    #[n(6)]
    pub webhook_url: Option<String>,
    /// The secret that signs its webhook requests; returned to clients only once.
    #[n(7)]
    pub webhook_secret: String,
    /// Defaults of the reviews on it, as given.
    #[n(8)]
    pub review_defaults: Option<Json>,
    /// How long its reviews remain open if their message sets nothing, in seconds.
    #[n(9)]
    pub review_seconds: Option<u64>,
    /// When it was made.
    #[n(10)]
    pub created_at: Millis,
    /// When it was last changed.
    #[n(11)]
    pub updated_at: Option<Millis>,
    /// The previous secret, while it still signs too.
    #[n(12)]
    pub retired_secret: Option<RetiredSecret>,
    /// How many channels have had its id before it; `None`: it is the first.
    #[n(13)]
    pub life: Option<u32>,
    /// When its `webhook_url` was last changed; `None`: when it was last changed at all, if it was.
    #[n(14)]
    pub routed_at: Option<Millis>,
    /// The secrets before `retired_secret` that still sign too, newest first.
    #[n(15)]
    pub retired_earlier: Option<Vec<RetiredSecret>>,
}

/// The output omits the secret, so no log line contains it.
impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// How long a review remains open if neither its message nor its channel sets it: 24 hours, as docs/API.md promises.
const REVIEW_MILLIS: u64 = 24 * 60 * 60 * 1000;

impl Channel {
    /// How long its reviews remain open if their message sets nothing, in milliseconds.
    #[must_use]
    pub fn review_millis(&self) -> u64 {
        self.review_seconds.map_or(REVIEW_MILLIS, |seconds| seconds.saturating_mul(1000))
    }

    /// The secrets that sign requests at `now`.
    #[must_use]
    pub fn signing(&self, now: Millis) -> Vec<String> {
        signing(&self.webhook_secret, self.retired_secret.as_ref(), self.retired_earlier.as_deref(), now)
    }

    /// Since when its events go to the same URL.
    #[must_use]
    pub fn routed_at(&self) -> Millis {
        self.routed_at.or(self.updated_at).unwrap_or_default()
    }

    /// This channel, changed at `now` from `before`.
    #[must_use]
    pub fn changed(self, before: &Self, now: Millis) -> Self {
        let routed_at = if self.webhook_url == before.webhook_url { before.routed_at() } else { now };
        Self { routed_at: Some(routed_at), updated_at: Some(now), ..self }
    }

    /// The name that distinguishes it from earlier channels with its id: contacts that write to it know it by this
    /// name.
    #[must_use]
    pub fn incarnation(&self) -> Cow<'_, str> {
        match self.life {
            None | Some(0) => Cow::Borrowed(&self.id),
            // No id contains that character.
            Some(life) => Cow::Owned(format!("{}~{life}", self.id)),
        }
    }

    /// The entity of its conversation, if it is a human channel.
    #[must_use]
    pub fn conversation(&self, workspace: Address) -> EntityKey {
        conversation_of(workspace, &self.id, self.life.unwrap_or_default())
    }

    /// How its conversation begins at `now`, with its first message, if it is a human channel.
    #[must_use]
    pub fn opening(&self, workspace: Address, now: Millis) -> Opening {
        Opening {
            id: ConversationId::new(now, self.conversation(workspace).id),
            origin: Origin::Human { channel: self.id.clone() },
            owner: None,
            details: Details::default(),
        }
    }
}

/// The id of the channel that a contact knows by `incarnation`.
#[must_use]
pub(crate) fn id_of(incarnation: &str) -> &str {
    incarnation.split_once('~').map_or(incarnation, |(id, _)| id)
}

/// The entity of a human channel's conversation. A channel made again with the id of a deleted one is another channel,
/// and does not have its messages.
#[must_use]
pub fn conversation_of(workspace: Address, channel: &str, life: u32) -> EntityKey {
    let address = match life {
        0 => Address::derive("channel", &[&workspace.0, channel.as_bytes()]),
        _ => Address::derive("channel-again", &[&workspace.0, channel.as_bytes(), &life.to_be_bytes()]),
    };
    EntityKey::conversation(workspace, address)
}
