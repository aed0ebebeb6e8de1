//! Channel messages: one to a human channel, with or without a review.

use std::sync::Arc;
use std::time::Duration;

use actors::attachment;
use actors::channel::{Channel, ChannelKind};
use actors::conversation::{Post, Rejection};
use actors::directory::Refusal;
use actors::id::MessageId;
use actors::key::PrincipalKind;
use actors::message::{Content, NewMessage, Overlay, Sender, SenderKind};
use axum::response::Response;
use http::StatusCode;

use super::{MessageRequest, SubmitError, Submitted, UnparsedMessage, find_channel, stored};
use crate::http::answer::{Replay, with_location};
use crate::http::attachments::link::{self, Linking};
use crate::http::call::Call;
use crate::http::caller::Caller;
use crate::http::idempotency::CHANNEL_SCOPE;
use crate::http::refusal::channel::{channel_disabled, channel_not_found, kind_mismatch};
use crate::http::refusal::contended;
use crate::http::refusal::conversation::rejected;
use crate::json::path::Path;
use crate::problem::Problem;
use crate::validation;
use crate::wire::channel_message::ChannelPost;
use crate::wire::channel_message::view::channel_view;

/// How often a file's binding may be disclaimed while its message is in flight.
const MAX_REBINDINGS: usize = 3;

/// Accepts the message.
pub(super) async fn post(unparsed: UnparsedMessage<'_>, path_channel: Option<&str>) -> Result<Response, Problem> {
    let (post, mut request) = unparsed.read(
        |body, rules, report| ChannelPost::read(body, path_channel, rules, report),
        |post| post.client_id.as_deref(),
    );
    validation::run_deferred(&mut request.report, request.call.caller.address).await?;
    let files = link::named(request.call, &post.attachment_ids).await?;
    let known = find_channel(request.call, &post.channel_id).await?;
    let place = known
        .as_deref()
        .filter(|_| request.lacks_only(&files.missing))
        .map(|channel| (channel.conversation(request.call.caller.address), request.command_context(CHANNEL_SCOPE)));
    if let Some(submitted) = request.replay_before_refusal(files.missing, place).await? {
        return accepted(&request, &post.channel_id, &submitted);
    }
    if let Some(channel) = known.as_deref().filter(|channel| channel.kind != ChannelKind::Human) {
        request.report.faults.extend(kind_mismatch("/channelId", channel.kind).faults);
    }
    let iteration_of = revised(&mut request, known.as_deref(), post.iteration_of.as_deref()).await?;
    request.report.refuse()?;
    let Some(channel) = known else {
        // Nothing was accepted there before, so the request's own faults come first.
        request.report.refuse_late()?;
        return Err(channel_not_found());
    };
    let entity = channel.conversation(request.call.caller.address);
    if let Some(response) = request.forwarded(entity, Duration::ZERO).await? {
        return Ok(response);
    }
    let files = files.found;
    // A retry with files must not bind them again.
    if !request.report.late.is_empty() || !channel.enabled || !files.is_empty() {
        let command_context = request.command_context(CHANNEL_SCOPE);
        if let Some(submitted) = request.replay_before_late_faults(entity, command_context).await? {
            return accepted(&request, &channel.id, &submitted);
        }
        if !channel.enabled {
            return Err(channel_disabled());
        }
    }
    let review_millis = channel.review_millis();
    let expires_in = post.review.as_ref().and_then(|review| review.expires_in(review_millis));
    let sender = sender(&request.call.caller, &channel.id);
    let content = post.into_content(sender, Vec::new(), iteration_of, request.call.app.now(), review_millis);
    append(&request, &channel, content, expires_in, files).await
}

/// Appends the message with its files.
async fn append(
    request: &MessageRequest<'_>,
    channel: &Channel,
    mut content: Content,
    review_millis: Option<u64>,
    files: Vec<attachment::State>,
) -> Result<Response, Problem> {
    let Call { app, caller, .. } = request.call;
    let entity = channel.conversation(caller.address);
    let opening = channel.opening(caller.address, app.now());
    let mut linking = Linking::begin(request.call, &opening, files).await?;
    for _ in 0..MAX_REBINDINGS {
        content.attachments = linking.attachments();
        let message = NewMessage { content: Arc::new(content.clone()), parent: None, review_millis };
        let opening = Some(opening.clone());
        let post = Post { opening, expected: None, messages: vec![message], turn: None };
        match request.submit(entity, post, request.command_context(CHANNEL_SCOPE)).await {
            Ok(submitted) => {
                if submitted.replay == Replay::First {
                    // The files' records get their message now, not at the check in a day.
                    let files: Vec<_> = content.attachments.iter().map(|file| file.id).collect();
                    app.node().settle(caller.address, &files);
                }
                return accepted(request, &channel.id, &submitted);
            }
            Err(SubmitError::Refused(Refusal::Rejected(Rejection::AttachmentLost(id)))) => linking.again(id).await?,
            Err(error) => return Err(error.into_problem(rejected)),
        }
    }
    Err(contended())
}

/// 201 with the message as it was accepted, even if it has changed since.
fn accepted(request: &MessageRequest<'_>, channel: &str, submitted: &Submitted) -> Result<Response, Problem> {
    let message = submitted.message()?;
    request.call.context.record_message(message.id);
    let overlay = Overlay::default();
    let response = request.answer(StatusCode::CREATED, &channel_view(channel, message, &overlay), submitted.replay);
    Ok(with_location(response, &format!("/messages/{}", message.id)))
}

/// The sender: for an agent its channel, for a person the key's principal.
pub(in crate::http) fn sender(caller: &Caller, channel: &str) -> Sender {
    let principal = &caller.key.principal;
    match principal.kind {
        PrincipalKind::Agent => Sender { kind: SenderKind::Agent, id: channel.to_owned() },
        PrincipalKind::User => Sender { kind: SenderKind::User, id: principal.id.clone() },
    }
}

/// The revised message of the channel. If there is none, that is a fault among the others; if the channel is unknown
/// too, only an invalid id is.
async fn revised(
    request: &mut MessageRequest<'_>,
    channel: Option<&Channel>,
    text: Option<&str>,
) -> Result<Option<MessageId>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let call = request.call;
    let mut id = MessageId::parse(text);
    if let (Some(wanted), Some(channel)) = (id, channel) {
        let entity = channel.conversation(call.caller.address);
        let known = stored::look_up(call, wanted).await?;
        id = known.filter(|known| known.entity == entity).map(|known| known.message.id);
    }
    if id.is_none() {
        let message = "names no earlier message of this channel";
        request.report.fault(&Path::ROOT.name("iterationOf"), "message_not_found", message);
    }
    Ok(id)
}
