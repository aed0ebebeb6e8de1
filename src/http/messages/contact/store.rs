//! Storing a contact's message, with its file and the turn that answers it.

use std::sync::Arc;
use std::time::Duration;

use actors::attachment::{self, Bound};
use actors::conversation::{Details, Opening, Origin, Post, Rejection, TurnRequest};
use actors::directory::Refusal;
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::message::{Attachment, Content, NewMessage};
use actors::store::KeyHash;
use actors::subscriptions::Subscription;
use actors::tasks::shares::OwnPermit;

use super::answer::Delivered;
use super::earlier::EarlierMessage;
use super::resolve::{IfErased, ResolvedContact};
use super::{ContactExchange, IncomingMessage};
use crate::http::answer::Replay;
use crate::http::attachments::link;
use crate::http::idempotency::in_progress;
use crate::http::messages::{SubmitError, Submitted};
use crate::http::refusal::broken;
use crate::http::refusal::conversation::rejected;
use crate::problem::Problem;

/// The lock of a message's idempotency key, while the message is looked for, stored, or its failed turn retried.
#[derive(Clone)]
pub(super) struct KeyLock {
    _permit: Arc<OwnPermit<KeyHash>>,
    /// What the request is if its message is stored already.
    pub(super) repetition: Repetition,
}

/// A request that finds the message of another one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    /// That one had been answered when this one came.
    Retry,
    /// It had not. This one gets its answer.
    Duplicate,
}

/// The most conversations that one message tries: it tries another if one is closed.
const MAX_ATTEMPTS: usize = 4;

/// What became of the request's message.
pub(super) enum StoreOutcome {
    /// Stored by this request; with the events that follow.
    New(Box<Delivered>, Subscription),
    /// Stored by an earlier request with the same key.
    Earlier(EarlierMessage),
    /// Not stored, because as many turns wait as may. With the events that follow.
    AtCapacity(Subscription),
}

impl ContactExchange<'_> {
    /// Waits until no other request with this key is looking for its message or storing it. A closed conversation may
    /// be reopened by a client, so of two requests that do both at a time each could find a conversation open in which
    /// the other one did not look.
    ///
    /// # Errors
    /// 409 `idempotency_in_progress` after the time in which a command is answered.
    pub(super) async fn lock_key(&self) -> Result<Option<KeyLock>, Problem> {
        let Some(key) = self.key() else { return Ok(None) };
        let app = &self.request.call.app;
        let (permit, repetition) = match app.try_lock_message_key(key) {
            // A request that waits for its turn was marked under the lock.
            Some(permit) if !app.in_progress().has(key) => (Some(permit), Repetition::Retry),
            Some(permit) => (Some(permit), Repetition::Duplicate),
            None => (app.lock_message_key(key).await, Repetition::Duplicate),
        };
        let permit = permit.ok_or_else(in_progress)?;
        Ok(Some(KeyLock { _permit: Arc::new(permit), repetition }))
    }

    /// Resolves contact and conversation, and appends the message. `bound`: the previous binding of its file, by an
    /// attempt that was refused.
    pub(super) async fn store(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        file: Option<&attachment::State>,
        bound: &mut Option<Bound>,
        lock: Option<&KeyLock>,
    ) -> Result<StoreOutcome, Problem> {
        let IncomingMessage { identifier, name, .. } = incoming;
        let node = self.request.call.node();
        let (mut contact, mut open) = match self.find_or_begin(identifier, name.as_ref()).await? {
            ResolvedContact::Open(contact, open) => (contact, open),
            ResolvedContact::Earlier(before) => return Ok(StoreOutcome::Earlier(before)),
        };
        let mut conversation = open.id;
        for _ in 0..MAX_ATTEMPTS {
            let entity = self.conversation(conversation);
            let attachments = self.attachments(file, conversation, bound).await?;
            let post = self.message_with_turn(incoming, agent, (contact, conversation), attachments);
            let events = node.subscribe(entity);
            match self.submit(entity, post, lock).await {
                Ok(submitted) if submitted.replay == Replay::Repeated => {
                    return Ok(StoreOutcome::Earlier(EarlierMessage { entity, submitted }));
                }
                Ok(submitted) => {
                    let message = submitted.message()?.clone();
                    let turn = *submitted.turn.ok_or_else(|| broken("a contact's message has a turn"))?;
                    let replay = Replay::First;
                    let retries_turn = false;
                    let waited = Duration::ZERO;
                    let delivered =
                        Delivered { entity, contact, conversation, message, turn, replay, retries_turn, waited };
                    return Ok(StoreOutcome::New(Box::new(delivered), events));
                }
                Err(SubmitError::Refused(Refusal::Rejected(Rejection::TooManyTurns))) => {
                    return Ok(StoreOutcome::AtCapacity(events));
                }
                Err(SubmitError::Refused(Refusal::Rejected(Rejection::Closed))) => {
                    let reopened = if conversation == open.id { self.reopened(&open).await? } else { None };
                    if reopened.is_none() {
                        let again =
                            self.resolve(identifier, name.as_ref(), Some(open.id), IfErased::BeginAnother).await?;
                        (contact, open) = again.ok_or_else(|| broken("a contact that may revive is resolved"))?;
                    }
                    conversation = reopened.unwrap_or(open.id);
                    // An earlier attempt of the same request may have been accepted in the closed conversation, or in a
                    // later one.
                    if let Some(before) = self.find_earlier().await? {
                        return Ok(StoreOutcome::Earlier(before));
                    }
                }
                Err(error) => return Err(error.into_problem(rejected)),
            }
        }
        Err(Problem::conflict(
            "conversation_closed",
            "the conversation was closed repeatedly while the request was being stored",
        ))
    }

    /// Posts to a conversation. The command is carried out even if the client hangs up meanwhile, so a task of its own
    /// keeps the lock until it is answered: a retry would look for the message before it is stored.
    async fn submit(&self, entity: EntityKey, post: Post, lock: Option<&KeyLock>) -> Result<Submitted, SubmitError> {
        let command_context = self.request.command_context(&self.scope);
        let Some(lock) = lock.cloned() else { return self.request.submit(entity, post, command_context).await };
        let node = Arc::clone(self.request.call.node());
        let posting = tokio::spawn(async move {
            let _lock = lock;
            node.conversation(entity, post, command_context).await
        });
        let answer = posting.await.map_err(|_| broken("a post that has begun is answered"))?;
        self.request.submitted(entity, answer.map_err(SubmitError::Refused)?).await
    }

    /// The message's file as an attachment, bound to a conversation. `bound`: its previous binding, to this or another
    /// conversation that refused the message.
    async fn attachments(
        &self,
        file: Option<&attachment::State>,
        conversation: ConversationId,
        bound: &mut Option<Bound>,
    ) -> Result<Vec<Attachment>, Problem> {
        let Some(file) = file else { return Ok(Vec::new()) };
        let now = match *bound {
            Some(bound) if bound.conversation == conversation.address => bound,
            instead_of => link::bind_new(self.request, file, conversation.address, instead_of).await?,
        };
        *bound = Some(now);
        Ok(file.attachment(Some(now.number)).into_iter().collect())
    }

    /// The message for a conversation of the contact, which the message may open, with the turn that answers it.
    fn message_with_turn(
        &self,
        incoming: &IncomingMessage,
        agent: &str,
        (contact, conversation): (ContactId, ConversationId),
        attachments: Vec<Attachment>,
    ) -> Post {
        let content = incoming.content.clone().into_content(contact.to_string(), attachments);
        let content = Arc::new(Content { memories: incoming.memories, ..content });
        Post {
            opening: Some(self.opening(conversation, contact, agent)),
            expected: Some(conversation),
            messages: vec![NewMessage { content, parent: None, review_millis: None }],
            turn: Some(TurnRequest { agent: agent.to_owned(), policy: self.channel.busy_policy }),
        }
    }

    fn opening(&self, id: ConversationId, contact: ContactId, agent: &str) -> Opening {
        let channel = self.channel.incarnation().into_owned();
        let origin = Origin::Api { channel, contact, agent: agent.to_owned() };
        Opening { id, origin, owner: None, details: Details::default() }
    }
}
