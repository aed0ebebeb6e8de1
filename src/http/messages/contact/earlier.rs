//! What an earlier request with the same idempotency key did, and the answer to its retry.

use std::time::Duration;

use actors::clock::Millis;
use actors::contact;
use actors::conversation::{Origin, Rejection, RetryTurn, TurnStatus};
use actors::directory::{Answer, Refusal};
use actors::id::EntityKey;
use axum::response::Response;

use super::ContactExchange;
use super::answer::Delivered;
use super::store::{KeyLock, Repetition};
use crate::http::answer::Replay;
use crate::http::messages::Submitted;
use crate::http::refusal::conversation::rejected;
use crate::http::refusal::{broken, problem_of};
use crate::problem::Problem;

/// What an earlier request with the same key stored, and where.
pub(super) struct EarlierMessage {
    pub(super) entity: EntityKey,
    pub(super) submitted: Submitted,
}

impl ContactExchange<'_> {
    /// A refused request may have been accepted before: returns that answer, else `refusal`.
    pub(super) async fn earlier_or(&self, refusal: Problem) -> Result<Response, Problem> {
        self.earlier().await?.ok_or(refusal)
    }

    /// The answer of an earlier request with the same key.
    pub(super) async fn earlier(&self) -> Result<Option<Response>, Problem> {
        let lock = self.lock_key().await?;
        match self.find_earlier().await? {
            Some(before) => self.repeat(&before, lock, Duration::ZERO).await.map(Some),
            None => Ok(None),
        }
    }

    /// A request that has waited for capacity and is refused: returns the answer of another one with its key that was
    /// accepted meanwhile, else `refusal`.
    pub(super) async fn joined_or(&self, refusal: Problem, waited: Duration) -> Result<Response, Problem> {
        match self.find_earlier().await? {
            Some(before) => self.repeat(&before, None, waited).await,
            None => Err(refusal),
        }
    }

    /// The effect of an earlier request with the same key, in any of the contact's conversations.
    pub(super) async fn find_earlier(&self) -> Result<Option<EarlierMessage>, Problem> {
        if self.request.keyed.is_none() {
            return Ok(None);
        }
        let node = self.request.call.node();
        let last = contact::last_on(node, self.contact, &self.channel.incarnation()).await?;
        let Some(open) = last else { return Ok(None) };
        let mut earlier = open.earlier.iter();
        let mut began = open.id.at;
        // Set at a conversation that began longer ago than keys are kept: how many earlier ones may still have the key.
        let mut left = None;
        for generation in (1..=open.generation).rev() {
            let entity = self.generation(generation);
            let command_context = self.request.command_context(&self.scope);
            if let Some(submitted) = self.request.earlier(entity, command_context).await?.submitted()? {
                return Ok(Some(EarlierMessage { entity, submitted }));
            }
            left = match left {
                Some(left) => Some(left - 1),
                // Earlier conversations were closed when this one began, so their keys are at least as old, except
                // where a client has reopened one.
                None if node.now().since(began) >= actors::limits::KEY_KEPT_MILLIS => Some(open.reach_back()),
                None => None,
            };
            if generation == 1 || left == Some(0) {
                break;
            }
            if left.is_none() {
                began = match earlier.next() {
                    Some(id) => id.at,
                    None => self.began(self.generation(generation - 1)).await?,
                };
            }
        }
        Ok(None)
    }

    /// When a conversation began; now, where it was assigned and never used.
    async fn began(&self, entity: EntityKey) -> Result<Millis, Problem> {
        let node = self.request.call.node();
        Ok(node.created_at(entity).await?.unwrap_or_else(|| node.now()))
    }

    /// Answers a request whose message is stored: joins the turn, and a retry begins a failed one again. The message is
    /// not appended again. `lock`: that of the key, unless the request has waited `waited` for capacity and so is no
    /// retry; neither is one that waited while another one fetched its file. They get the outcome of the turn.
    pub(super) async fn repeat(
        &self,
        before: &EarlierMessage,
        lock: Option<KeyLock>,
        waited: Duration,
    ) -> Result<Response, Problem> {
        let is_retry = |lock: &KeyLock| lock.repetition == Repetition::Retry && self.fetching.is_none();
        // Only a retry keeps the lock, so that another one finds the turn running again.
        let lock = lock.filter(is_retry);
        let node = self.request.call.node();
        let entity = before.entity;
        let origin = node.origin(entity).await?;
        let Some(Origin::Api { contact, .. }) = origin.as_deref() else {
            return Err(broken("a contact's message is in a conversation with a contact"));
        };
        let contact = *contact;
        let message = before.submitted.message()?.clone();
        let number = message.turn.ok_or_else(|| broken("a contact's message has a turn"))?.number;
        let events = node.subscribe(entity);
        let turn = node.turn(entity, number).await?;
        let mut turn = turn.ok_or_else(|| broken("the turn of a message exists"))?;
        let mut retries_turn = false;
        if turn.status == TurnStatus::Failed && lock.is_some() {
            self.admit(self.channel.agent.as_ref().unwrap_or(&turn.agent))?;
            let command_context = self.request.call.without_key();
            let again = RetryTurn { number, agent: self.channel.agent.clone() };
            turn = match node.conversation(entity, again, command_context).await.and_then(Answer::unkeyed) {
                Ok(turn) => {
                    retries_turn = true;
                    *turn
                }
                // Another retry has ended the turn meanwhile.
                Err(Refusal::Rejected(Rejection::TurnNotPossible(_))) => {
                    let turn = node.turn(entity, number).await?;
                    turn.ok_or_else(|| broken("the turn of a message exists"))?
                }
                Err(refusal) => return Err(problem_of(refusal, rejected)),
            };
        }
        let conversation = message.conversation;
        let replay = Replay::Repeated;
        let delivered = Delivered { entity, contact, conversation, message, turn, replay, retries_turn, waited };
        self.answer(delivered, events, lock).await
    }
}
