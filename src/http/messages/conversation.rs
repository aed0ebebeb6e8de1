//! Conversation messages: one or more of them appended to a conversation.

use std::sync::Arc;
use std::time::Duration;

use actors::claims::{self, LIVES_MAX};
use actors::conversation::{Details, Opening, Origin, Post, Rejection, message_of};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::{Address, AttachmentId, ConversationId, EntityKey};
use actors::key::PrincipalKind;
use actors::message::{Message, NewMessage, Overlay, Parent, Sender, SenderKind, role};
use axum::response::Response;
use http::StatusCode;

use super::{MessageRequest, UnparsedMessage};
use crate::app::App;
use crate::http::answer::{self, When};
use crate::http::attachments::link;
use crate::http::caller::Caller;
use crate::http::idempotency::{CONVERSATION_SCOPE, without_key};
use crate::http::refusal::conversation::{conversation_not_found, rejected};
use crate::http::refusal::{broken, problem_of, store_problem};
use crate::json::path::Path;
use crate::json::report::Report;
use crate::json::write::array;
use crate::problem::{Fault, Problem};
use crate::wire::conversation_message::view::{conversation_view, view_bytes};
use crate::wire::conversation_message::{ConversationItem, ConversationPost};

/// Accepts the messages.
pub(super) async fn post(inbound: UnparsedMessage<'_>, path_conversation: Option<&str>) -> Result<Response, Problem> {
    let (post, mut accepting) =
        inbound.read(|body, rules, report| ConversationPost::read(body, path_conversation, rules, report), |_| None);
    let references: Vec<_> = post.messages.iter().flat_map(|item| item.reference_ids.clone()).collect();
    let files = link::named(accepting.app, accepting.caller, &references, &mut accepting.report).await?;
    let missing = references.len() - files.len();
    if missing > 0
        && missing == accepting.report.faults.len()
        && let Some(response) = accepted_before(&accepting, post.conversation_id.as_deref()).await
    {
        return Ok(response);
    }
    strangers(&post, &mut accepting.report);
    accepting.report.refuse()?;
    let mut mentions: Vec<_> = files.iter().zip(&references).map(|(file, (path, _))| (file.id, *path)).collect();
    mentions.sort_by_key(|(id, _)| *id);
    mentions.dedup_by_key(|(id, _)| *id);
    let batch = post.batch;
    let memories = post.enable_memories;
    let named = post.conversation_id.as_deref().map(ConversationId::parse);
    let named = named.map(|id| id.ok_or_else(conversation_not_found)).transpose()?;
    if let Some(id) = named {
        let entity = EntityKey::conversation(accepting.caller.address, id.address);
        if let Some(response) = accepting.forwarded(entity, Duration::ZERO).await? {
            return Ok(response);
        }
    }
    let agent = match named {
        Some(id) if post.messages.iter().any(speaks_for_an_agent) => agent_of(&accepting, id).await?,
        _ => None,
    };
    let new_message = |item| new_message(accepting.caller, agent.as_deref(), item, memories);
    let messages: Vec<_> = post.messages.into_iter().map(new_message).collect();
    if let Some(id) = named {
        let post = Post { opening: None, expected: Some(id), messages, turn: None };
        let with = accepting.command_context(CONVERSATION_SCOPE);
        return append(&accepting, id, post, &mentions, with).await.map_err(|error| error.into_problem(batch));
    }
    for life in 0..LIVES_MAX {
        let key = accepting.keyed.as_ref().map(|keyed| keyed.key.as_str());
        let id = new_id(accepting.app, accepting.caller, key, life);
        let post = Post { opening: Some(opening(id)), expected: Some(id), messages: messages.clone(), turn: None };
        match append(&accepting, id, post, &mentions, accepting.context_in_workspace()).await {
            // The key that opened this conversation is so old that it was forgotten.
            Err(AppendError::Refused(Refusal::Rejected(Rejection::NotFound))) if key.is_some() => {}
            answer => return answer.map_err(|error| error.into_problem(batch)),
        }
    }
    Err(broken("a key opens a conversation in one of its lives"))
}

/// Parents that cannot be messages of this conversation, whatever it contains, are faults among the others.
fn strangers(post: &ConversationPost, report: &mut Report) {
    let here = match post.conversation_id.as_deref().map(ConversationId::parse) {
        Some(None) => return,
        Some(Some(id)) => Some(id.address),
        None => None,
    };
    for (item, message) in post.messages.iter().enumerate() {
        if let Some(Parent::Message(id)) = &message.parent
            && here != Some(id.entity)
        {
            let path = Path::ROOT.name("content");
            let path = if post.batch { path.index(item) } else { path };
            report.fault(&path.name("parent_message_id"), "parent_not_found", "names no message of this conversation");
        }
    }
}

/// The answer of an earlier request with the same key, for a retry that names uploads deleted since.
async fn accepted_before(accepting: &MessageRequest<'_>, named: Option<&str>) -> Option<Response> {
    let key = accepting.keyed.as_ref()?.key.as_str();
    let (address, with) = match named {
        Some(named) => (ConversationId::parse(named)?.address, accepting.command_context(CONVERSATION_SCOPE)),
        None => (home_of(accepting.caller, key, 0), accepting.context_in_workspace()),
    };
    let entity = EntityKey::conversation(accepting.caller.address, address);
    let events = accepting.effect_of(entity, with).await.ok().flatten()?;
    let messages: Vec<_> = events.iter().filter_map(message_of).collect();
    Some(accepted(accepting, &messages, When::Before))
}

/// Why messages were not appended, or why their answer cannot be rendered.
enum AppendError {
    /// The conversation refused them.
    Refused(Refusal<Rejection>),
    /// Another failure, such as a file that is gone.
    Problem(Problem),
}

impl AppendError {
    /// The error as clients see it. `batch`: the request carries a list of messages.
    fn into_problem(self, batch: bool) -> Problem {
        match self {
            Self::Refused(refusal) => refused(refusal, batch),
            Self::Problem(problem) => problem,
        }
    }
}

/// Appends the messages, and answers with those appended now or earlier by this key.
async fn append(
    accepting: &MessageRequest<'_>,
    id: ConversationId,
    post: Post,
    mentions: &[(AttachmentId, Path)],
    with: CommandContext,
) -> Result<Response, AppendError> {
    let entity = EntityKey::conversation(accepting.caller.address, id.address);
    let without_key = without_key(accepting.context);
    let mentioned = link::mention(accepting.app, accepting.caller, without_key, id.address, mentions).await;
    mentioned.map_err(AppendError::Problem)?;
    match accepting.app.node().conversation(entity, post, with).await.map_err(AppendError::Refused)? {
        Answer::Done(posted) => Ok(accepted(accepting, &posted.messages, When::Now)),
        Answer::Repeat(effect) => {
            let events = accepting.effect(entity, effect).await.map_err(AppendError::Problem)?;
            let messages: Vec<_> = events.iter().filter_map(message_of).collect();
            Ok(accepted(accepting, &messages, When::Before))
        }
    }
}

/// The id of a new conversation at the home of the request's key, so that a retry finds it.
pub(in crate::http) fn new_id(app: &App, caller: &Caller, key: Option<&str>, life: u32) -> ConversationId {
    app.node().new_conversation(key.map(|key| home_of(caller, key, life)))
}

/// The address of the conversation that a key opens.
fn home_of(caller: &Caller, key: &str, life: u32) -> Address {
    claims::home(caller.address, key.as_bytes(), life).id
}

fn opening(id: ConversationId) -> Opening {
    Opening { id, origin: Origin::Direct, owner: None, details: Details::default() }
}

/// Whether an item without a sender is from the conversation's agent.
fn speaks_for_an_agent(item: &ConversationItem) -> bool {
    item.role == role::ASSISTANT && item.sender_id.is_none()
}

/// The agent of a conversation, if it has one of its own: its channel's current agent or, if the channel is gone, the
/// agent when the conversation began.
async fn agent_of(accepting: &MessageRequest<'_>, id: ConversationId) -> Result<Option<String>, Problem> {
    let entity = EntityKey::conversation(accepting.caller.address, id.address);
    let node = accepting.app.node();
    let Some(origin) = node.origin(entity).await.map_err(store_problem)? else { return Ok(None) };
    let Origin::Api { agent, .. } = &*origin else { return Ok(None) };
    let channel = node.api_channel(entity, &origin).await.map_err(store_problem)?;
    Ok(channel.map_or_else(|| Some(agent.clone()), |channel| channel.agent.clone()))
}

fn new_message(caller: &Caller, agent: Option<&str>, mut item: ConversationItem, memories: bool) -> NewMessage {
    let principal = &caller.key.principal;
    // A `senderId` with the role of a user means that the sender is no agent.
    let is_told = item.sender_id.is_some() && item.role == role::USER;
    let is_agent = item.role == role::ASSISTANT || (principal.kind == PrincipalKind::Agent && !is_told);
    let kind = if is_agent { SenderKind::Agent } else { SenderKind::User };
    let default = agent.filter(|_| speaks_for_an_agent(&item)).unwrap_or(&principal.id);
    let sender = Sender { kind, id: item.sender_id.take().unwrap_or_else(|| default.to_owned()) };
    let (content, parent) = item.into_content(sender, memories);
    NewMessage { content: Arc::new(content), parent, review_millis: None }
}

/// 200 with the messages as they were accepted, always an array.
fn accepted(accepting: &MessageRequest<'_>, messages: &[Message], when: When) -> Response {
    if let Some(first) = messages.first() {
        accepting.context.accepted(first.id);
    }
    let overlay = Overlay::default();
    let workspace = &accepting.caller.workspace;
    let mut text = Vec::with_capacity(messages.iter().map(|message| view_bytes(message, &overlay)).sum());
    array(&mut text, messages, |out, message| conversation_view(workspace, message, &overlay).write(out));
    accepting.finish(answer::json_text(StatusCode::OK, text), when)
}

fn refused(refusal: Refusal<Rejection>, batch: bool) -> Problem {
    problem_of(refusal, |rejection| match rejection {
        Rejection::ParentNotFound { items } if batch => {
            let fault = |item| {
                let pointer = format!("/content/{item}/parent_message_id");
                Fault::new(pointer, "parent_not_found", "names no message of this conversation")
            };
            Problem::invalid(items.into_iter().map(fault).collect())
        }
        other => rejected(other),
    })
}
