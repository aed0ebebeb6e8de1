//! The answer to a contact's message: waits for the turn, and renders it.

use std::time::Duration;

use actors::conversation::{Conversation, Turn, TurnStatus};
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::message::Message;
use actors::store::KeyHash;
use actors::subscriptions::Subscription;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::time::Instant;

use super::ContactExchange;
use super::store::KeyLock;
use crate::http::answer::{Replay, with_location};
use crate::http::caller::recheck_key;
use crate::http::headers::prefer::{Prefer, applying, prefer};
use crate::http::idempotency::in_progress as in_progress_problem;
use crate::http::messages::turn_wait::{self, KEY_CHECK_DELAY, MAX_WAIT_SECONDS, ObservedReplies};
use crate::http::refusal::{broken, unreadable_outcome};
use crate::problem::Problem;
use crate::wire::contact_message::view::{ContactParts, Usage, contact_view};
use crate::wire::json_view::turn_status;

/// A message accepted by this or an earlier request.
pub(super) struct Delivered {
    pub(super) entity: EntityKey,
    pub(super) contact: ContactId,
    pub(super) conversation: ConversationId,
    pub(super) message: Message,
    pub(super) turn: Turn,
    pub(super) replay: Replay,
    /// The turn had failed, and this request retries it: no earlier request got its new outcome.
    pub(super) retries_turn: bool,
    /// How long the request waited for room among the turns. Its wait for the agent is shorter by this.
    pub(super) waited: Duration,
}

impl Delivered {
    /// Whether this is the first request to get the outcome of the turn as it runs now.
    fn begins_turn(&self) -> bool {
        self.replay == Replay::First || self.retries_turn
    }
}

impl ContactExchange<'_> {
    /// Waits for the turn as long as the client and the server allow.
    /// `lock`: that of its key, held until later requests can see that this one waits.
    pub(super) async fn answer(
        &self,
        delivered: Delivered,
        mut events: Subscription,
        lock: Option<KeyLock>,
    ) -> Result<Response, Problem> {
        self.request.call.context.record_message(delivered.message.id);
        let node = self.request.call.node();
        let key = self.key();
        let in_progress = self.request.call.app.in_progress();
        let _first = key.filter(|_| delivered.begins_turn()).map(|key| in_progress.begin(key));
        drop(lock);
        if let Some(leader) = self.fetching.and_then(|fetching| fetching.leader) {
            // A request that waited for the file joins this turn, and waits as long as it may.
            leader.accepted();
        }
        // If too many requests wait already, the client fetches the reply later.
        let permit = self.request.call.app.long_requests().enter(delivered.entity.workspace);
        let prefer = prefer(&self.request.call.headers);
        let begun = Instant::now();
        let before = self.fetching.map_or(Duration::ZERO, |fetching| fetching.waited) + delivered.waited;
        let deadline = begun + permit.as_ref().map_or(Duration::ZERO, |_| self.budget(prefer).saturating_sub(before));
        let waits = deadline > begun;
        let at_once = delivered.replay == Replay::First && !waits;
        if waits {
            self.request.call.context.begin_wait();
        }
        let mut observed = ObservedReplies::default();
        let accepted = delivered.turn.clone();
        let waiting = turn_wait::wait(node, delivered.entity, &mut events, accepted, &mut observed, deadline);
        let turn = tokio::select! {
            biased;
            // The turn as it was accepted, even if the agent was faster than this answer.
            () = std::future::ready(()), if at_once => delivered.turn.clone(),
            turn = waiting => turn.map_err(unreadable_outcome)?,
            // A request that waits when the server stops gets the location of the reply.
            () = self.request.call.app.wait_cutoff() => delivered.turn.clone(),
        };
        drop(events);
        let waited = prefer.explicit_wait(MAX_WAIT_SECONDS).filter(|_| permit.is_some());
        let applied = waited.map(|wait| format!("wait={wait}"));
        if before + begun.elapsed() >= KEY_CHECK_DELAY {
            recheck_key(self.request.call).await?;
        }
        match self.render(&delivered, (&turn, &observed), prefer, key).await {
            Ok(response) => {
                let in_background = prefer.respond_async && response.status() == StatusCode::ACCEPTED;
                Ok(applying(response, applied.or_else(|| in_background.then(|| "respond-async".to_owned()))))
            }
            Err(problem) => Ok(applying(unreadable_outcome(problem).into_response(), applied)),
        }
    }

    /// The answer to a request that waited for a turn with this status.
    async fn render(
        &self,
        delivered: &Delivered,
        (turn, observed): (&Turn, &ObservedReplies),
        prefer: Prefer,
        key: Option<KeyHash>,
    ) -> Result<Response, Problem> {
        if let (TurnStatus::Failed, Some(failure)) = (turn.status, &turn.failure) {
            let detail = format!(
                "the agent failed: {}; the message is stored, and a retry with the same idempotency key runs the turn \
                 again",
                failure.detail
            );
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "agent_failed", detail)
                .with("reason", &failure.code)
                .with("messageId", delivered.message.id.to_string())
                .with("turnId", turn.id.to_string());
            return Err(problem);
        }
        // A request that prefers 202 gets it; otherwise a retry gets the first request's answer, or 409 while there
        // is none.
        let waits = !delivered.begins_turn() && !turn.is_over() && !prefer.respond_async;
        if waits && key.is_some_and(|key| self.request.call.app.in_progress().has(key)) {
            return Err(in_progress_problem());
        }
        let replies = turn_wait::observed_replies(self.request.call.node(), delivered.entity, turn, observed).await?;
        let changed_at = turn.ended_at.filter(|_| !replies.is_empty()).unwrap_or(delivered.message.id.at);
        let created_at = self.request.call.node().created_at(delivered.entity).await?;
        let parts = ContactParts {
            contact: delivered.contact,
            conversation: delivered.conversation,
            created_at: created_at.ok_or_else(|| broken("a conversation with a message was created"))?,
            conversation_status: if self.is_closed(delivered.entity, turn).await? { "closed" } else { "open" },
            channel_id: &self.channel.id,
            agent_id: &turn.agent,
            updated_at: changed_at,
            last_message_at: changed_at,
            message: delivered.message.id,
            replies: &replies,
            usage: turn.usage.as_ref().map(Usage::of).unwrap_or_default(),
            turn: turn.id,
            turn_status: turn_status(turn.status),
        };
        let status = if turn.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let is_new = delivered.retries_turn || !turn.is_over();
        let response =
            self.request.answer(status, &contact_view(&parts), if is_new { Replay::First } else { delivered.replay });
        Ok(if turn.is_over() { response } else { with_location(response, &format!("/turns/{}", turn.id)) })
    }

    /// Whether the conversation was closed when the turn ended, so that a retry gets the same answer; until then,
    /// whether it is closed now.
    async fn is_closed(&self, entity: EntityKey, turn: &Turn) -> Result<bool, Problem> {
        if turn.is_over() {
            return Ok(turn.in_closed == Some(true));
        }
        let state = self.request.call.node().state::<Conversation>(entity).await?;
        Ok(state.is_some_and(|state| state.closed))
    }

    /// How long a request with this `Prefer` may wait for a turn.
    pub(super) fn budget(&self, prefer: Prefer) -> Duration {
        if prefer.respond_async {
            return Duration::ZERO;
        }
        prefer
            .wait
            .map_or(self.request.call.app.wait_budget(), |wait| Duration::from_secs(wait.min(MAX_WAIT_SECONDS).into()))
    }
}
