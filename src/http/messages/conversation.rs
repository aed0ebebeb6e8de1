//! C: one or more messages of a conversation (API 2.2).

use std::sync::Arc;

use actors::conversation::{Command, Conversation, Details, Opening, Origin, Post, Rejection, Reply, message_of};
use actors::directory::{Answer, Refusal};
use actors::id::{Address, ConversationId, EntityKey};
use actors::message::{Message, NewMessage, Overlay, Sender, SenderKind};
use axum::response::Response;
use http::StatusCode;

use super::{Accepting, Inbound, conversation_not_found, rejected};
use crate::http::context::render::internal_error;
use crate::http::problem::Problem;
use crate::http::refusal::problem_of;
use crate::wire::conversation_message::view::conversation_view;
use crate::wire::conversation_message::{ConversationItem, ConversationPost};

/// Idempotency keys of conversation messages belong to the conversation, or to the workspace where a new one is
/// asked for.
const SCOPE: &str = "conversation";

/// Accepts the messages.
pub(super) async fn post(inbound: Inbound<'_>, path_conversation: Option<&str>) -> Result<Response, Problem> {
    let (post, mut accepting) =
        inbound.read(|body, rules, report| ConversationPost::read(body, path_conversation, rules, report), |_| None);
    for (path, _) in post.messages.iter().flat_map(|item| &item.reference_ids) {
        accepting.report.fault(path, "attachment_not_found", "is no upload of this workspace");
    }
    accepting.report.refuse()?;
    let target = target(&accepting, post.conversation_id.as_deref())?;
    let entity = EntityKey::conversation(accepting.caller.address, target.id.address);
    let batch = post.batch;
    let memories = post.enable_memories;
    let messages = post.messages.into_iter().map(|item| new_message(&accepting, item, memories)).collect();
    let command = Command::Post(Post {
        opening: target.is_new.then(|| opening(target.id)),
        expected: (!target.is_new).then_some(target.id),
        messages,
        turn: None,
    });
    let answer = accepting.app.node().conversation(entity, command, accepting.circumstances(SCOPE)).await;
    match answer.map_err(|refusal| refused(refusal, batch))? {
        Answer::Done(Reply::Posted { messages, .. }) => Ok(accepted(&accepting, &messages, false)),
        Answer::Done(_) => Err(internal_error()),
        Answer::Repeat { first, last } => {
            let events = accepting.effect(entity, first, last).await?;
            let messages: Vec<_> = events.iter().filter_map(message_of).collect();
            Ok(accepted(&accepting, &messages, true))
        }
    }
}

/// The conversation that is meant.
struct Target {
    id: ConversationId,
    is_new: bool,
}

fn target(accepting: &Accepting<'_>, named: Option<&str>) -> Result<Target, Problem> {
    if let Some(named) = named {
        let id = ConversationId::parse(named).ok_or_else(conversation_not_found)?;
        return Ok(Target { id, is_new: false });
    }
    let address = new_address(accepting.caller.address, accepting.keyed.as_ref().map(|keyed| keyed.key.as_str()))
        .unwrap_or_else(|| Address::random(accepting.app.node().random()));
    Ok(Target { id: ConversationId::new(accepting.app.now(), address), is_new: true })
}

/// Where the conversation lives that a key asks for: a retry finds it without any table of claims.
pub(in crate::http) fn new_address(workspace: Address, key: Option<&str>) -> Option<Address> {
    key.map(|key| Address::derive("keyed-conversation", &[&workspace.0, key.as_bytes()]))
}

fn opening(id: ConversationId) -> Opening {
    Opening { id, origin: Origin::Store, owner: None, details: Details::default() }
}

fn new_message(accepting: &Accepting<'_>, item: ConversationItem, memories: bool) -> NewMessage {
    let principal = &accepting.caller.key.principal;
    let kind = if principal.is_agent || item.role == "assistant" { SenderKind::Agent } else { SenderKind::User };
    let sender = Sender { kind, id: item.sender_id.clone().unwrap_or_else(|| principal.id.clone()) };
    let (content, parent) = item.into_content(sender, memories);
    NewMessage { content: Arc::new(content), parent, review_millis: None }
}

/// 200 with the messages as they were accepted, always an array.
fn accepted(accepting: &Accepting<'_>, messages: &[Message], replay: bool) -> Response {
    let overlay = Overlay::default();
    let views: Vec<_> =
        messages.iter().map(|message| conversation_view(&accepting.caller.workspace, message, &overlay)).collect();
    accepting.answer(StatusCode::OK, &views, replay)
}

fn refused(refusal: Refusal<Conversation>, batch: bool) -> Problem {
    problem_of(refusal, |rejection| match rejection {
        Rejection::ParentNotFound { item } if batch => {
            let pointer = format!("/content/{item}/parent_message_id");
            Problem::fault(pointer, "parent_not_found", "is no message of this conversation")
        }
        other => rejected(other),
    })
}
