//! The port through which events are sent, and the trait of machines whose events are sent.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::lane::LaneRow;
use super::receivers::{Hooks, Subject};
use super::state::{Log, Outbox, Settlement};
use crate::channel::{Channel, id_of};
use crate::clock::Millis;
use crate::contact;
use crate::conversation;
use crate::directory::Directory;
use crate::id::{ContactId, ConversationId, EntityKey, EventId, MessageId};
use crate::machine::{Effects, Record};
use crate::node::Node;
use crate::store::StoreError;
use crate::trace::TraceContext;
use crate::webhook::Format;

/// An event of one of the logs that are sent from.
#[derive(Clone, Debug)]
pub enum Happened {
    /// Of a conversation.
    Conversation(Arc<Record<conversation::Event>>),
    /// Of a contact.
    Contact {
        /// The event.
        record: Arc<Record<contact::Event>>,
        /// The contact that it is about.
        contact: ContactId,
    },
}

impl Happened {
    /// The message that it is about.
    pub(super) fn message(&self) -> Option<MessageId> {
        match self {
            Self::Conversation(record) => conversation::message_about(record),
            Self::Contact { .. } => None,
        }
    }
}

/// One attempt's data.
#[derive(Clone, Debug)]
pub struct DeliveryRequest {
    /// The workspace's id.
    pub workspace: Arc<str>,
    /// The entity of the log.
    pub entity: EntityKey,
    /// The scope of the log.
    pub scope: Arc<LogScope>,
    /// The event.
    pub event: Happened,
    /// Its id, the same for every attempt and every receiver.
    pub id: EventId,
    /// The URL.
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    pub method: String,
    /// Extra headers configured for the receiver; secrets.
    pub headers: Vec<(String, String)>,
    /// The secrets that sign it: those of all receivers at its URL, the current one of the most general receiver first.
    pub secrets: Vec<String>,
    /// The form of the body.
    pub format: Format,
    /// The trace to continue.
    pub trace: Option<TraceContext>,
}

/// A receiver's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The answer's error, in one word; never the receiver's own text.
    pub error: Option<&'static str>,
    /// The receiver's `Retry-After`.
    pub retry_after_millis: Option<u64>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The receiver was connected to, or may have been, and did not answer in time.
    Timeout,
    /// The answer broke off.
    BrokenAnswer,
    /// Anything else, in one word: no server was reached, or nothing was sent.
    Other(&'static str),
}

impl Undelivered {
    /// The attempt's error, in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::BrokenAnswer => "broken_answer",
            Self::Other(word) => word,
        }
    }
}

/// Sends events to receivers.
pub trait Deliverer: Send + Sync + 'static {
    /// Makes one attempt. Dropping the future ends it.
    fn deliver(&self, request: DeliveryRequest) -> BoxFuture<'_, Result<Answer, Undelivered>>;
}

/// Delivers nothing: every event remains pending.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDeliverer;

impl Deliverer for NoDeliverer {
    fn deliver(&self, _: DeliveryRequest) -> BoxFuture<'_, Result<Answer, Undelivered>> {
        Box::pin(async { Err(Undelivered::Other("no_way_out")) })
    }
}

/// The scope of a log's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogScope {
    /// The log's owner.
    pub log: LogOf,
    /// The channel.
    pub channel: Option<LogChannel>,
}

impl LogScope {
    /// The conversation, if it is a conversation's log.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        match self.log {
            LogOf::Conversation(id) => Some(id),
            LogOf::Contact(_) => None,
        }
    }
}

/// The owner of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOf {
    /// A conversation, perhaps a human channel's own.
    Conversation(ConversationId),
    /// A contact.
    Contact(ContactId),
}

/// The channel that a log belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChannel {
    /// A human one, with this id, whose own log it is.
    Human(Arc<str>),
    /// An api one, as its contacts know it.
    Api(Arc<str>),
}

impl LogChannel {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Human(id) => id,
            Self::Api(incarnation) => id_of(incarnation),
        }
    }

    /// Whether it is the channel that now has its id, for a log that began then. A channel made again with the id of a
    /// deleted one is another channel.
    pub(crate) fn is(&self, now: &Channel, log: EntityKey, began: Option<Millis>) -> bool {
        match self {
            Self::Human(_) => now.conversation(log.workspace) == log,
            Self::Api(incarnation) if now.incarnation() == **incarnation => true,
            // Conversations of earlier builds store only the channel's id, not its incarnation.
            Self::Api(incarnation) => {
                id_of(incarnation) == &**incarnation && began.is_some_and(|began| began > now.created_at)
            }
        }
    }
}

/// A machine whose events are sent to receivers.
pub(crate) trait Sends: Effects {
    /// Its entities.
    fn directory(node: &Node) -> &Directory<Self>;

    /// Its outbox.
    fn outbox(state: &Self::State) -> Option<&Outbox>;

    /// Its log.
    fn log(entity: EntityKey, state: &Self::State) -> Log;

    /// The scope of its events.
    fn scope(state: &Self::State) -> LogScope;

    /// The subject of an event; `None` for a record that clients do not see.
    fn subject(record: &Record<Self::Event>) -> Option<Subject>;

    /// The webhooks of the message that a record accepted.
    fn hooks(record: &Record<Self::Event>) -> Option<Hooks>;

    /// An event to be sent, with data for its receiver that is stored elsewhere.
    fn happened(
        node: &Node,
        entity: EntityKey,
        record: Arc<Record<Self::Event>>,
    ) -> impl Future<Output = Result<Happened, StoreError>> + Send;

    /// The command that notes the progress of sending.
    fn settle(settlement: Settlement) -> Self::Command;

    /// The event that changes its outbox.
    fn moved(outbox: Option<Outbox>) -> Self::Event;

    /// The reply to that command, with the lane of the requested delivery.
    fn noted(again: Option<LaneRow>) -> Self::Reply;
}
