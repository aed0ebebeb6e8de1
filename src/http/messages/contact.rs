//! Contact messages. A message on an api channel goes into a conversation with its contact, and the channel's agent
//! answers in the same call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use actors::attachment;
use actors::channel::{Channel, ChannelKind};
use actors::contact::{self, entity_of};
use actors::id::{ConversationId, EntityKey};
use actors::store::KeyHash;
use axum::response::Response;

use super::media;
use super::{MessageRequest, UnparsedMessage};
use crate::http::headers::prefer;
use crate::http::idempotency::contact_scope;
use crate::http::refusal::broken;
use crate::http::refusal::channel::{channel_disabled, channel_not_found, kind_mismatch};
use crate::http::turns;
use crate::problem::Problem;
use crate::wire::contact_message::{ContactContent, ContactPost};

mod answer;
mod earlier;
mod file;
mod resolve;
mod store;
mod turn_capacity;

use answer::Delivered;
use file::Fetching;
use store::StoreOutcome;
pub(crate) use turn_capacity::WaitQueues;
use turn_capacity::{CapacityWait, QueuePosition};

/// Accepts the message, and answers with the agent's reply or with its later location.
pub(super) async fn post(unparsed: UnparsedMessage<'_>, channel: Option<Arc<Channel>>) -> Result<Response, Problem> {
    let (post, mut request) = unparsed.read(ContactPost::read, |_| None);
    if let Some(channel) = channel.as_deref().filter(|channel| channel.kind != ChannelKind::Api) {
        request.report.faults.extend(kind_mismatch("", channel.kind).faults);
    }
    request.report.refuse()?;
    let channel = channel.ok_or_else(channel_not_found)?;
    let contact = entity_of(request.call.caller.address, &post.normalized_identifier);
    let exchange = ContactExchange {
        request: &request,
        channel: &channel,
        contact,
        scope: contact_scope(&channel.incarnation(), contact.id),
        fetching: None,
    };
    let agent = match exchange.agent() {
        Ok(agent) => agent,
        Err(refusal) => return exchange.earlier_or(refusal).await,
    };
    let content = post.content.ok_or_else(|| broken("a contact's message without faults has content"))?;
    if let Some(response) = exchange.forwarded(&content).await? {
        return Ok(response);
    }
    let ContactPost { identifier, contact_name: name, memories, .. } = post;
    let incoming = IncomingMessage { identifier, name, memories, content };
    match &incoming.content {
        ContactContent::Media(media) => exchange.with_file(&incoming, &agent, media).await,
        ContactContent::Text(_) => exchange.without_file(&incoming, &agent).await,
    }
}

/// The message as the contact sent it.
struct IncomingMessage {
    identifier: String,
    name: Option<String>,
    memories: bool,
    content: ContactContent,
}

/// One message of a contact, and its answer.
struct ContactExchange<'a> {
    request: &'a MessageRequest<'a>,
    channel: &'a Channel,
    contact: EntityKey,
    scope: String,
    /// For a message with a file, set once no earlier request with its key is known to be accepted.
    fetching: Option<Fetching<'a>>,
}

impl ContactExchange<'_> {
    /// Forwards the request to the server that owns the contact's first conversation here, whichever is open now: so
    /// one server gets all messages of one contact on one channel, without a read of the store.
    async fn forwarded(&self, content: &ContactContent) -> Result<Option<Response>, Problem> {
        // The answer may take minutes, and without a key its outcome could not be found out.
        if self.request.keyed.is_none() {
            return Ok(None);
        }
        let fetches = match content {
            ContactContent::Media(_) => media::LIMITS.within,
            ContactContent::Text(_) => Duration::ZERO,
        };
        self.request.forwarded(self.generation(1), self.budget(prefer(&self.request.call.headers)) + fetches).await
    }

    /// The contact's conversation of this generation on the channel, used or not.
    fn generation(&self, n: u32) -> EntityKey {
        contact::conversation_of(self.contact, &self.channel.incarnation(), n)
    }

    /// The request's idempotency key in its scope.
    fn key(&self) -> Option<KeyHash> {
        self.request.keyed.as_ref().map(|keyed| keyed.used(&self.scope).hash)
    }

    fn conversation(&self, id: ConversationId) -> EntityKey {
        EntityKey::conversation(self.contact.workspace, id.address)
    }

    /// This exchange on the channel as it is now.
    fn with_channel<'b>(&'b self, channel: &'b Channel) -> ContactExchange<'b> {
        let scope = contact_scope(&channel.incarnation(), self.contact.id);
        ContactExchange { channel, scope, ..*self }
    }

    /// The channel's agent, if the channel takes messages.
    fn agent(&self) -> Result<String, Problem> {
        if !self.channel.enabled {
            return Err(channel_disabled());
        }
        let nobody = || Problem::conflict("channel_has_no_agent", "this channel has no agent to answer");
        self.channel.agent.clone().ok_or_else(nobody)
    }

    /// Refuses a turn that this agent could not run soon.
    fn admit(&self, agent: &str) -> Result<(), Problem> {
        turns::admit(self.request.call, agent)
    }

    /// Stores the message once there is capacity for its turn, unless an earlier request did, and waits for the turn.
    async fn deliver(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        file: Option<&attachment::State>,
    ) -> Result<Response, Problem> {
        if let Err(refusal) = self.admit(agent) {
            return self.earlier_or(refusal).await;
        }
        let mut bound = None;
        let mut position: Option<Box<QueuePosition<'_>>> = None;
        let mut channel: Option<Arc<Channel>> = None;
        loop {
            let waited = position.as_ref().map_or(Duration::ZERO, |position| position.waited());
            // After a wait for capacity the channel may have another agent.
            let later = channel.as_deref().map(|channel| self.with_channel(channel));
            let exchange = later.as_ref().unwrap_or(self);
            let agent = match later.as_ref().map(ContactExchange::agent) {
                Some(Err(refusal)) => {
                    drop(position);
                    return self.joined_or(refusal, waited).await;
                }
                Some(Ok(agent)) => Cow::Owned(agent),
                None => Cow::Borrowed(agent),
            };
            let lock = self.lock_key().await?;
            let stored = exchange.store(incoming, &agent, file, &mut bound, lock.as_ref()).await?;
            let (first, now) = match stored {
                StoreOutcome::New(delivered, events) => {
                    drop(position);
                    return self.answer(Delivered { waited, ..*delivered }, events, lock).await;
                }
                StoreOutcome::Earlier(before) => {
                    // A request that has waited came before that message was stored, so it is no retry.
                    let lock = lock.filter(|_| position.is_none());
                    drop(position);
                    return self.repeat(&before, lock, waited).await;
                }
                StoreOutcome::AtCapacity(events) => {
                    // A request with the same key may be stored meanwhile.
                    drop(lock);
                    match Box::pin(self.wait_for_capacity(position, events)).await? {
                        CapacityWait::TryAgain(first, now) => (first, now),
                        CapacityWait::Over(over) => return self.refuse_at_capacity(over).await,
                    }
                }
            };
            position = Some(first);
            channel = Some(now);
        }
    }
}
