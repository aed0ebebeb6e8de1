//! The port through which events are sent, and the trait of machines whose events are sent.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::lane::Waiting;
use super::receivers::{Hooks, Subject};
use super::state::{Log, Outbox, Settlement};
use crate::channel::{Channel, id_of};
use crate::clock::Millis;
use crate::contact;
use crate::conversation;
use crate::directory::Directory;
use crate::id::{ContactId, ConversationId, EntityKey, EventId};
use crate::machine::{Machine, Record};
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
        /// It.
        record: Arc<Record<contact::Event>>,
        /// Whom it is about.
        contact: ContactId,
    },
}

/// Something to send, once.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The workspace's id.
    pub workspace: Arc<str>,
    /// Whose log it is from.
    pub entity: EntityKey,
    /// Where its events belong.
    pub scope: Arc<LogScope>,
    /// The event.
    pub event: Happened,
    /// Its id, the same for every attempt and every receiver.
    pub id: EventId,
    /// Where to.
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    pub method: String,
    /// What the receiver's owner wants to have sent along; secrets.
    pub headers: Vec<(String, String)>,
    /// What signs it, the current secret first.
    pub secrets: Vec<String>,
    /// In which form.
    pub format: Format,
    /// The trace to go on with.
    pub trace: Option<TraceContext>,
}

/// What a receiver has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What is wrong with it, in one word; nothing that the receiver said.
    pub error: Option<&'static str>,
    /// For how long it wants to be left alone.
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
    /// What an attempt says of it, in one word.
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
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Answer, Undelivered>>;
}

/// No way out: everything stays to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDeliverer;

impl Deliverer for NoDeliverer {
    fn deliver(&self, _: Parcel) -> BoxFuture<'_, Result<Answer, Undelivered>> {
        Box::pin(async { Err(Undelivered::Other("no_way_out")) })
    }
}

/// Where the events of a log belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogScope {
    /// The conversation, where it is one's log.
    pub conversation: Option<ConversationId>,
    /// The channel.
    pub channel: Option<LogChannel>,
    /// Where clients find the log, behind the API's base path: `channels/demo`.
    pub path: Arc<str>,
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

    /// Whether it is the one that has its id now, for a log that began then. One that is made again with the id of a
    /// deleted one is another.
    pub(crate) fn is(&self, now: &Channel, log: EntityKey, began: Option<Millis>) -> bool {
        match self {
            Self::Human(_) => now.conversation(log.workspace) == log,
            Self::Api(incarnation) if now.incarnation() == **incarnation => true,
            // Conversations of earlier builds have only its id, whichever life it was.
            Self::Api(incarnation) => {
                id_of(incarnation) == &**incarnation && began.is_some_and(|began| began > now.created_at)
            }
        }
    }
}

/// A machine whose events are sent to receivers.
pub(crate) trait Sends: Machine {
    /// Its entities.
    fn directory(node: &Node) -> &Directory<Self>;

    /// Its outbox.
    fn outbox(state: &Self::State) -> Option<&Outbox>;

    /// Its log.
    fn log(entity: EntityKey, state: &Self::State) -> Log;

    /// Where its events belong.
    fn scope(state: &Self::State) -> LogScope;

    /// What an event is about; `None` for what clients do not see.
    fn subject(record: &Record<Self::Event>) -> Option<Subject>;

    /// Where the message that a record accepted wants its events to be sent.
    fn hooks(record: &Record<Self::Event>) -> Option<Hooks>;

    /// An event to be sent, with data for its receiver that is stored elsewhere.
    fn happened(
        node: &Node,
        entity: EntityKey,
        record: Arc<Record<Self::Event>>,
    ) -> impl Future<Output = Result<Happened, StoreError>> + Send;

    /// What notes how far sending has come.
    fn settle(settlement: Settlement) -> Self::Command;

    /// What becomes of its outbox.
    fn moved(outbox: Option<Outbox>) -> Self::Event;

    /// The reply once that is noted, with the lane of the requested delivery.
    fn noted(again: Option<Waiting>) -> Self::Reply;
}
