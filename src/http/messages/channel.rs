//! A: a message to a human channel (API 2.1).

use std::sync::Arc;

use actors::channel::{Channel, ChannelKind};
use actors::conversation::{Command, Details, Opening, Origin, Post, Reply, message_of};
use actors::directory::Answer;
use actors::id::{ConversationId, MessageId};
use actors::message::{Message, NewMessage, Overlay, Sender, SenderKind};
use axum::response::Response;
use http::StatusCode;

use super::{Accepting, Inbound, channel_disabled, find_channel, kind_mismatch, rejected};
use crate::http::caller::Caller;
use crate::http::channels::channel_not_found;
use crate::http::context::render::internal_error;
use crate::http::problem::Problem;
use crate::http::refusal::problem_of;
use crate::json::path::Path;
use crate::json::report::Report;
use crate::wire::channel_message::ChannelPost;
use crate::wire::channel_message::view::channel_view;

/// Idempotency keys of channel messages belong to the channel.
const SCOPE: &str = "channel";

/// Accepts the message.
pub(super) async fn post(inbound: Inbound<'_>, path_channel: Option<&str>) -> Result<Response, Problem> {
    let (post, mut accepting) = inbound.read(
        |body, rules, report| ChannelPost::read(body, path_channel, rules, report),
        |post| post.client_id.as_deref(),
    );
    for (path, _) in &post.attachment_ids {
        accepting.report.fault(path, "attachment_not_found", "is no upload of this workspace");
    }
    let iteration_of = iteration_id(post.iteration_of.as_deref(), &mut accepting.report);
    accepting.report.refuse()?;
    let channel =
        find_channel(accepting.app, accepting.caller, &post.channel_id).await?.ok_or_else(channel_not_found)?;
    if channel.kind != ChannelKind::Human {
        return Err(kind_mismatch("/channelId", channel.kind));
    }
    let entity = channel.conversation(accepting.caller.address);
    if !accepting.report.late.is_empty() || !channel.enabled {
        // A retry of a message that was accepted in time, on a channel that was enabled then, gets its answer.
        if let Some(events) = accepting.earlier_effect(entity, SCOPE).await? {
            let message = events.iter().find_map(message_of).ok_or_else(internal_error)?;
            return Ok(accepted(&accepting, &channel, &message, true));
        }
        accepting.report.refuse_late()?;
        return Err(channel_disabled());
    }
    let review_millis = channel.review_millis();
    let message = NewMessage {
        review_millis: post.review.as_ref().and_then(|review| review.expires_in(review_millis)),
        parent: None,
        content: {
            let sender = sender(accepting.caller, &channel.id);
            Arc::new(post.into_content(sender, Vec::new(), iteration_of, accepting.app.now(), review_millis))
        },
    };
    let opening = Opening {
        id: ConversationId::new(accepting.app.now(), entity.id),
        origin: Origin::Human { channel: channel.id.clone() },
        owner: None,
        details: Details::default(),
    };
    let command = Command::Post(Post { opening: Some(opening), expected: None, messages: vec![message], turn: None });
    let answer = accepting.app.node().conversation(entity, command, accepting.circumstances(SCOPE)).await;
    match answer.map_err(|refusal| problem_of(refusal, rejected))? {
        Answer::Done(Reply::Posted { messages, .. }) => {
            let message = messages.first().ok_or_else(internal_error)?;
            Ok(accepted(&accepting, &channel, message, false))
        }
        Answer::Done(_) => Err(internal_error()),
        Answer::Repeat { first, last } => {
            let events = accepting.effect(entity, first, last).await?;
            let message = events.iter().find_map(message_of).ok_or_else(internal_error)?;
            Ok(accepted(&accepting, &channel, &message, true))
        }
    }
}

/// 201, as the message was accepted, whatever has become of it since.
fn accepted(accepting: &Accepting<'_>, channel: &Channel, message: &Message, replay: bool) -> Response {
    let overlay = Overlay::default();
    accepting.answer(StatusCode::CREATED, &channel_view(&channel.id, message, &overlay), replay)
}

/// An agent is its channel; a person is who the key says.
pub(in crate::http) fn sender(caller: &Caller, channel: &str) -> Sender {
    let principal = &caller.key.principal;
    if principal.is_agent {
        Sender { kind: SenderKind::Agent, id: channel.to_owned() }
    } else {
        Sender { kind: SenderKind::User, id: principal.id.clone() }
    }
}

/// The message that is revised. What cannot be an id names none, and is a fault among the others.
fn iteration_id(text: Option<&str>, report: &mut Report) -> Option<MessageId> {
    let id = MessageId::parse(text?);
    if id.is_none() {
        report.fault(&Path::ROOT.name("iterationOf"), "message_not_found", "is no earlier message of this channel");
    }
    id
}
