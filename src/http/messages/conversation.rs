//! Conversation messages: one or more of them appended to a conversation.

use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{Details, Opening, Origin, Post, Rejection};
use actors::directory::{CommandContext, Refusal};
use actors::id::{Address, AttachmentId, ConversationId, EntityKey, MessageId};
use actors::key::PrincipalKind;
use actors::message::{NewMessage, Overlay, Parent, Sender, SenderKind, role};
use actors::workflows::claims::{self, MAX_LIVES};
use axum::response::Response;
use http::StatusCode;

use super::{MessageRequest, SubmitError, Submitted, UnparsedMessage, stored};
use crate::http::answer;
use crate::http::attachments::link;
use crate::http::call::Call;
use crate::http::caller::Caller;
use crate::http::idempotency::{CONVERSATION_SCOPE, KeyState, key_state};
use crate::http::refusal::broken;
use crate::http::refusal::conversation::{conversation_not_found, parent_not_found, rejected};
use crate::json::path::Path;
use crate::json::report::Report;
use crate::json::write::array;
use crate::problem::Problem;
use crate::wire::conversation_message::view::{conversation_view, view_bytes};
use crate::wire::conversation_message::{ConversationItem, ConversationPost};

/// Accepts the messages.
pub(super) async fn post(unparsed: UnparsedMessage<'_>, path_conversation: Option<&str>) -> Result<Response, Problem> {
    let (post, mut request) =
        unparsed.read(|body, rules, report| ConversationPost::read(body, path_conversation, rules, report), |_| None);
    let references: Vec<_> = post.messages.iter().flat_map(|item| item.reference_ids.clone()).collect();
    let files = link::named(request.call, &references).await?;
    let place = match request.lacks_only(&files.missing) {
        true => place_of_retry(&request, post.conversation_id.as_deref()).await?,
        false => None,
    };
    if let Some(submitted) = request.replay_before_refusal(files.missing, place).await? {
        return Ok(accepted(&request, &submitted));
    }
    let named = post.conversation_id.as_deref().map(ConversationId::parse);
    let parents = LocalParents::of(&post, named.flatten(), &mut request.report);
    if !request.report.faults.is_empty() {
        // Boxed, as are other refusals here, so that they take no room in the future of an accepted request.
        Box::pin(parents.report_missing(request.call, &mut request.report)).await?;
    }
    request.report.refuse()?;
    let mut mentions: Vec<_> = files.found.iter().zip(&references).map(|(file, (path, _))| (file.id, *path)).collect();
    mentions.sort_by_key(|(id, _)| *id);
    mentions.dedup_by_key(|(id, _)| *id);
    let batch = post.batch;
    let memories = post.enable_memories;
    let named = named.map(|id| id.ok_or_else(conversation_not_found)).transpose()?;
    if let Some(id) = named {
        let entity = request.call.caller.conversation(id.address);
        if let Some(response) = request.forwarded(entity, Duration::ZERO).await? {
            return Ok(response);
        }
    }
    let agent = match named {
        Some(id) if post.messages.iter().any(speaks_for_an_agent) => agent_of(&request, id).await?,
        _ => None,
    };
    let new_message = |item| new_message(&request.call.caller, agent.as_deref(), item, memories);
    let messages: Vec<_> = post.messages.into_iter().map(new_message).collect();
    if let Some(id) = named {
        let post = Post { opening: None, expected: Some(id), messages, turn: None };
        let command_context = request.command_context(CONVERSATION_SCOPE);
        return match append(&request, id, post, &mentions, command_context).await {
            Err(error) => Err(Box::pin(refused_here(request.call, &parents, error)).await?),
            Ok(response) => Ok(response),
        };
    }
    for life in 0..MAX_LIVES {
        let key = request.keyed.as_ref().map(|keyed| keyed.key.as_str());
        let id = new_id(request.call, key, life);
        let post = Post { opening: Some(opening(id)), expected: Some(id), messages: messages.clone(), turn: None };
        match append(&request, id, post, &mentions, request.context_in_workspace()).await {
            // The key that opened this conversation is so old that it was forgotten.
            Err(SubmitError::Refused(Refusal::Rejected(Rejection::NotFound))) if key.is_some() => {}
            answer => return answer.map_err(|error| refused(error, batch)),
        }
    }
    Err(broken("a key opens a conversation in one of its lives"))
}

/// The parents of a request's messages that have the address of the conversation: its log says which exist.
struct LocalParents {
    conversation: Option<ConversationId>,
    is_batch: bool,
    /// The parents, each with the place of its item in the batch.
    parents: Vec<(usize, MessageId)>,
}

impl LocalParents {
    /// The parents that may be messages of this conversation; none if it is new or its id is none. All others are
    /// faults, whatever it contains.
    fn of(post: &ConversationPost, conversation: Option<ConversationId>, report: &mut Report) -> Self {
        let mut local = Self { conversation, is_batch: post.batch, parents: Vec::new() };
        for item in &post.messages {
            let Some(Parent::Message(id)) = item.parent else { continue };
            if conversation.is_some_and(|conversation| conversation.address == id.entity) {
                local.parents.push((item.index, id));
            } else {
                local.report(item.index, report);
            }
        }
        local
    }

    fn report(&self, item: usize, report: &mut Report) {
        report.push(parent_not_found(self.is_batch.then_some(item)));
    }

    /// The items whose parent is no message of the conversation. The conversation looks at them when it decides, so
    /// this costs reads only where something else refuses the request before.
    async fn missing(&self, call: &Call) -> Result<Vec<usize>, Problem> {
        let mut missing = Vec::new();
        if self.parents.is_empty() {
            return Ok(missing);
        }
        let exists = self.has_conversation(call).await?;
        for &(item, id) in &self.parents {
            if !exists || stored::look_up(call, id).await?.is_none() {
                missing.push(item);
            }
        }
        Ok(missing)
    }

    /// Whether the conversation exists. An id with the address of one and another time names nothing.
    async fn has_conversation(&self, call: &Call) -> Result<bool, Problem> {
        let Some(id) = self.conversation else { return Ok(false) };
        Ok(call.node().conversation_id(call.caller.conversation(id.address)).await? == Some(id))
    }

    /// Makes missing parents faults among the others.
    async fn report_missing(&self, call: &Call, report: &mut Report) -> Result<(), Problem> {
        for item in self.missing(call).await? {
            self.report(item, report);
        }
        Ok(())
    }
}

/// The entity in which the key of a retry is looked up: the named conversation, or the one that the key opens.
async fn place_of_retry(
    request: &MessageRequest<'_>,
    named: Option<&str>,
) -> Result<Option<(EntityKey, CommandContext)>, Problem> {
    let Some(keyed) = &request.keyed else { return Ok(None) };
    let Call { app, caller, .. } = request.call;
    if let Some(named) = named {
        let id = ConversationId::parse(named);
        return Ok(id.map(|id| (caller.conversation(id.address), request.command_context(CONVERSATION_SCOPE))));
    }
    let command_context = request.context_in_workspace();
    for life in 0..MAX_LIVES {
        let home = caller.conversation(home_of(caller, &keyed.key, life));
        let is_known = key_state(app, home, command_context).await? != KeyState::Unused;
        // A conversation whose key was forgotten is of an earlier life.
        if is_known || app.node().origin(home).await?.is_none() {
            return Ok(Some((home, command_context)));
        }
    }
    Ok(None)
}

/// Appends the messages, and answers with those appended now or earlier by this key.
async fn append(
    request: &MessageRequest<'_>,
    id: ConversationId,
    post: Post,
    mentions: &[(AttachmentId, Path)],
    command_context: CommandContext,
) -> Result<Response, SubmitError> {
    let entity = request.call.caller.conversation(id.address);
    link::mention(request.call, id.address, mentions).await?;
    Ok(accepted(request, &request.submit(entity, post, command_context).await?))
}

/// The id of a new conversation at the home of the request's key, so that a retry finds it.
pub(in crate::http) fn new_id(call: &Call, key: Option<&str>, life: u32) -> ConversationId {
    call.node().new_conversation(key.map(|key| home_of(&call.caller, key, life)))
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

/// The agent of a conversation, if it has one of its own: its channel's current agent or, if the channel was deleted,
/// the agent when the conversation began.
async fn agent_of(request: &MessageRequest<'_>, id: ConversationId) -> Result<Option<String>, Problem> {
    let entity = request.call.caller.conversation(id.address);
    let node = request.call.node();
    let Some(origin) = node.origin(entity).await? else { return Ok(None) };
    let Origin::Api { agent, .. } = &*origin else { return Ok(None) };
    let channel = node.api_channel(entity, &origin).await?;
    Ok(channel.map_or_else(|| Some(agent.clone()), |channel| channel.agent.clone()))
}

fn new_message(caller: &Caller, agent: Option<&str>, mut item: ConversationItem, memories: bool) -> NewMessage {
    let principal = &caller.key.principal;
    // A `senderId` with the role of a user means that the sender is no agent.
    let names_user = item.sender_id.is_some() && item.role == role::USER;
    let is_agent = item.role == role::ASSISTANT || (principal.kind == PrincipalKind::Agent && !names_user);
    let kind = if is_agent { SenderKind::Agent } else { SenderKind::User };
    let default = agent.filter(|_| speaks_for_an_agent(&item)).unwrap_or(&principal.id);
    let sender = Sender { kind, id: item.sender_id.take().unwrap_or_else(|| default.to_owned()) };
    let (content, parent) = item.into_content(sender, memories);
    NewMessage { content: Arc::new(content), parent, review_millis: None }
}

/// 200 with the messages as they were accepted, always an array.
fn accepted(request: &MessageRequest<'_>, submitted: &Submitted) -> Response {
    let Submitted { messages, replay, .. } = submitted;
    if let Some(first) = messages.first() {
        request.call.context.record_message(first.id);
    }
    let overlay = Overlay::default();
    let workspace = &request.call.caller.workspace;
    let mut text = Vec::with_capacity(messages.iter().map(|message| view_bytes(message, &overlay)).sum());
    array(&mut text, messages, |out, message| conversation_view(workspace, message, &overlay).write(out));
    request.finish(answer::json_text(StatusCode::OK, text), *replay)
}

/// The error of a named conversation as clients see it. A conversation looks at the key before anything else, and at
/// its id before parents, so what comes before these in the order of checks is looked up here.
async fn refused_here(call: &Call, parents: &LocalParents, error: SubmitError) -> Result<Problem, Problem> {
    let is_key_reused = matches!(error, SubmitError::Refused(Refusal::KeyReused));
    if is_key_reused || matches!(error, SubmitError::Refused(Refusal::Rejected(Rejection::NotFound))) {
        let items = parents.missing(call).await?;
        if !items.is_empty() {
            let missing = SubmitError::Refused(Refusal::Rejected(Rejection::ParentNotFound { items }));
            return Ok(refused(missing, parents.is_batch));
        }
        if is_key_reused && !parents.has_conversation(call).await? {
            return Ok(conversation_not_found());
        }
    }
    Ok(refused(error, parents.is_batch))
}

/// The error as clients see it. `batch`: the request carries a list of messages.
fn refused(error: SubmitError, batch: bool) -> Problem {
    error.into_problem(|rejection| match rejection {
        Rejection::ParentNotFound { items } if batch => {
            Problem::invalid(items.into_iter().map(|item| parent_not_found(Some(item))).collect())
        }
        other => rejected(other),
    })
}
