//! Turns: asking an agent to answer, and the status of its answer.

use actors::conversation::{Call as ToolCall, Calls, CancelTurn, StartTurn, Turn, TurnStatus};
use actors::directory::{Answer, Refusal};
use actors::id::{ConversationId, EntityKey, MessageId, TurnId};
use actors::message::Message;
use actors::node::Node;
use actors::store::{KeyHash, StoreError};
use actors::turns::Crowded;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use self::wait::TurnWait;
use super::answer::{Replay, Replayed, json, mark_replayed, with_ignored_fields, with_location};
use super::body::{JsonBytes, OptionalJsonBytes};
use super::call::{Allowed, Call};
use super::caller::{Read, Write};
use super::conversations::{self, StoredConversation};
use super::forwarding::ForwardableRequest;
use super::headers::prefer;
use super::idempotency::{KeyState, key_state};
use super::refusal::{broken, problem_of, unreadable_outcome};
use crate::http::refusal::conversation::{agent_backlog, rejected, turn_not_found, workspace_backlog};
use crate::json::fields::Length;
use crate::problem::Problem;
use crate::wire::contact_message::view::{ReplyView, Usage, reply_view};
use crate::wire::json_view::{AsText, turn_status};
use crate::wire::time::Time;

pub(super) mod read;
mod wait;

/// A turn as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TurnView<'a> {
    id: AsText<TurnId>,
    conversation_id: AsText<ConversationId>,
    agent_id: &'a str,
    status: &'static str,
    attempt: u32,
    trigger_message_id: Option<AsText<MessageId>>,
    created_at: Time,
    started_at: Option<Time>,
    ended_at: Option<Time>,
    ai_messages: Vec<ReplyView<'a>>,
    usage: Option<Usage<'a>>,
    error: Option<ErrorView<'a>>,
    waits_for: Vec<WaitView<'a>>,
}

/// A review that a turn waits for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WaitView<'a> {
    call_id: &'a str,
    review_id: AsText<MessageId>,
    channel_id: &'a str,
    expires_at: Time,
}

impl<'a> WaitView<'a> {
    fn of(call: &'a ToolCall) -> Option<Self> {
        let wait = call.wait.as_ref().filter(|_| !call.answered)?;
        let ask = call.ask.as_ref()?;
        let review_id = AsText(wait.review);
        let channel_id = ask.channel.as_str();
        let expires_at = Time(wait.expires_at);
        Some(Self { call_id: call.public_id(), review_id, channel_id, expires_at })
    }
}

#[derive(Debug, Serialize)]
struct ErrorView<'a> {
    code: &'a str,
    detail: &'a str,
}

fn view<'a>(
    conversation: ConversationId,
    turn: &'a Turn,
    replies: &'a [Message],
    trigger: Option<MessageId>,
    calls: &'a Calls,
) -> TurnView<'a> {
    TurnView {
        id: AsText(turn.id),
        conversation_id: AsText(conversation),
        agent_id: &turn.agent,
        status: turn_status(turn.status),
        attempt: turn.attempt,
        trigger_message_id: trigger.map(AsText),
        created_at: Time(turn.id.at),
        started_at: turn.started_at.map(Time),
        ended_at: turn.ended_at.map(Time),
        ai_messages: replies.iter().map(reply_view).collect(),
        usage: turn.usage.as_ref().map(Usage::of),
        error: turn.failure.as_ref().map(|failure| ErrorView { code: &failure.code, detail: &failure.detail }),
        waits_for: calls.calls.iter().filter_map(WaitView::of).collect(),
    }
}

/// A turn with its conversation.
struct StoredTurn {
    entity: EntityKey,
    conversation: ConversationId,
    turn: Turn,
}

/// A turn of the caller's workspace; 404 if there is none.
async fn find(call: &Call, id: &str) -> Result<StoredTurn, Problem> {
    let id = TurnId::parse(id).ok_or_else(turn_not_found)?;
    let entity = call.caller.conversation(id.entity);
    let turn = call.node().turn(entity, id.number).await?;
    let turn = turn.filter(|turn| turn.id == id).ok_or_else(turn_not_found)?;
    let conversation = call.node().conversation_id(entity).await?.ok_or_else(turn_not_found)?;
    Ok(StoredTurn { entity, conversation, turn })
}

/// Which version of a turn's replies is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplyVersion {
    /// The replies as they are now, edited or erased.
    Current,
    /// The replies as the agent made them, whatever was edited since: a retry gets the same answer.
    Original,
}

/// The current replies of a turn.
async fn current_replies(node: &Node, entity: EntityKey, turn: &Turn) -> Result<Vec<Message>, StoreError> {
    let mut replies = read::replies(node, entity, turn).await?;
    for reply in &mut replies {
        let overlay = node.overlay(entity, reply.id.number).await?.unwrap_or_default();
        if let Some(edited) = reply.clone().as_edited(&overlay) {
            *reply = edited;
        }
    }
    Ok(replies)
}

impl StoredTurn {
    /// An answer with the turn, its replies and the reviews that it waits for.
    async fn response(&self, call: &Call, version: ReplyVersion, status: StatusCode) -> Result<Response, Problem> {
        let Self { entity, conversation, turn } = self;
        let node = call.node();
        let replies = match version {
            ReplyVersion::Current => current_replies(node, *entity, turn).await,
            ReplyVersion::Original => read::replies(node, *entity, turn).await,
        }?;
        let trigger = read::trigger(node, *entity, turn).await?;
        let calls = match turn.status {
            TurnStatus::AwaitingReview => node.calls(*entity, turn.id.number).await?,
            _ => Calls::default(),
        };
        Ok(json(status, &view(*conversation, turn, &replies, trigger, &calls)))
    }
}

/// `GET /turns/{id}`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Read>, Path(id): Path<String>) -> Result<Response, Problem> {
    find(&call, &id).await?.response(&call, ReplyVersion::Current, StatusCode::OK).await
}

/// `POST /turns/{id}/cancel`.
pub(super) async fn cancel(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, OptionalJsonBytes>,
) -> Result<Response, Problem> {
    let (command_context, ignored) = call.read_without_members(body.as_ref())?;
    let found = find(&call, &id).await?;
    let entity = found.entity;
    if let Some(response) = call.forward(entity, body.as_ref(), &command_context).await? {
        return Ok(response);
    }
    let cancel = CancelTurn { number: found.turn.id.number };
    let answer = call.node().conversation(entity, cancel, command_context).await;
    let response = match answer.map_err(|refusal| problem_of(refusal, rejected))? {
        Answer::Done(turn) => {
            let cancelled = StoredTurn { turn: *turn, ..found };
            let response = cancelled.response(&call, ReplyVersion::Original, StatusCode::OK).await;
            response.map_err(unreadable_outcome)?
        }
        // A cancelled turn stays cancelled.
        Answer::Repeat(_) => {
            let cancelled = find(&call, &id).await?;
            mark_replayed(cancelled.response(&call, ReplyVersion::Original, StatusCode::OK).await?)
        }
    };
    Ok(with_ignored_fields(response, &ignored))
}

/// Refuses a turn that could not run soon because this agent, the workspace or the node is busy, for every way of
/// requesting a turn.
pub(super) fn admit(call: &Call, agent: &str) -> Result<(), Problem> {
    call.node().admits_turn(call.caller.address, agent).map_err(|crowded| match crowded {
        Crowded::Agent => agent_backlog(),
        Crowded::Workspace => workspace_backlog(),
        Crowded::Node => problem_of(Refusal::Overloaded, rejected),
    })
}

/// The turn that a request with this key started, now or before, as it is now.
async fn requested(
    node: &Node,
    entity: EntityKey,
    answer: Answer<Box<Turn>>,
    key: Option<KeyHash>,
) -> Result<Replayed<Turn>, Problem> {
    match answer {
        Answer::Done(turn) => Ok(Replayed { value: *turn, replay: Replay::First }),
        Answer::Repeat(effect) => {
            let key = key.ok_or_else(|| broken("only a request with a key is a repeat"))?;
            let turn = read::turn_of(node, entity, effect, key).await;
            let then = turn?.ok_or_else(|| broken("the effect of a start is a turn"))?;
            let now = node.turn(entity, then.id.number).await?;
            Ok(Replayed { value: now.unwrap_or(then), replay: Replay::Repeated })
        }
    }
}

/// Lets an agent answer a conversation: 202, the reply comes later. A retry gets the turn as it is then: 202, or 200
/// once it is over. A client that prefers to wait gets 200 if the turn ends within that time.
pub(super) async fn start(
    Path(conversation): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let agent = fields.required_string(report, "agentId", Length::chars(1, usize::MAX));
    fields.finish(report);
    let found = conversations::find(&call, &conversation).await;
    if let Some(agent) = &agent {
        let agent_exists = call.node().agent(call.caller.address, agent).await?.is_some();
        // A retry gets its turn's current state, even if the agent was deleted meanwhile.
        let is_retry = match &found {
            Ok(StoredConversation { state, .. }) if !agent_exists => {
                key_state(&call.app, state.entity(call.caller.address), command_context).await? == KeyState::Repeat
            }
            _ => false,
        };
        if !agent_exists && !is_retry {
            let path = crate::json::path::Path::ROOT.name("agentId");
            report.fault(&path, "agent_not_found", "names no agent of this workspace");
        }
    }
    let ignored = incoming.report.check()?;
    let agent = agent.map(std::borrow::Cow::into_owned).unwrap_or_default();
    let StoredConversation { state, .. } = found?;
    let entity = state.entity(call.caller.address);
    let waits = wait::budget(prefer(&call.headers));
    let is_keyed = command_context.key.is_some();
    let forwarding = ForwardableRequest { call: &call, body: Some(&body), is_keyed, waits };
    if let Some(response) = forwarding.forward(entity).await? {
        return Ok(response);
    }
    let key = command_context.key.map(|key| key.hash);
    if let Err(refusal) = admit(&call, &agent)
        && key_state(&call.app, entity, command_context).await? == KeyState::Unused
    {
        return Err(refusal);
    }
    let mut wait = TurnWait::begin(&call.app, entity, waits);
    let answer = call.node().conversation(entity, StartTurn { agent, key }, command_context).await;
    let answer = answer.map_err(|refusal| problem_of(refusal, rejected))?;
    let Replayed { value: mut turn, replay } = requested(call.node(), entity, answer, key).await?;
    if let Some(wait) = &mut wait {
        turn = wait.ended(&call, entity, turn).await?;
    }
    // A 202 is not recorded.
    let (status, replay) =
        if turn.is_over() { (StatusCode::OK, replay) } else { (StatusCode::ACCEPTED, Replay::First) };
    let location = format!("/turns/{}", turn.id);
    let started = StoredTurn { entity, conversation: state.id, turn };
    let response = started.response(&call, ReplyVersion::Original, status).await.map_err(unreadable_outcome)?;
    let response = with_location(with_ignored_fields(response, &ignored), &location);
    Ok(replay.mark(match &wait {
        Some(wait) => wait.applied(response),
        None => response,
    }))
}
