//! Changes of messages: editing, deleting, acknowledging.

use std::borrow::Cow;

use actors::conversation::amend::{Amend, Amendment, Edit, Receipt};
use actors::directory::{Answer, CommandContext};
use actors::id::EntityKey;
use actors::message::{Content, Json, Overlay};
use actors::patch::Patch;
use actors::store::KeyHash;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::stored::{Family, StoredMessage, find, find_by_text, message_response, settle_deadline, tag};
use crate::app::App;
use crate::http::answer::{Replay, Replayed, with_ignored_fields};
use crate::http::attachments::link;
use crate::http::body::JsonBytes;
use crate::http::call::{Allowed, Call};
use crate::http::caller::Write;
use crate::http::headers::if_match;
use crate::http::refusal::conversation::rejected;
use crate::http::refusal::{broken, problem_of};
use crate::http::resource::given;
use crate::json::fields::{Fields, Length, Value};
use crate::json::path::Path as JsonPath;
use crate::json::report::Report;
use crate::problem::{Fault, Problem};
use crate::wire::bounds::METADATA;
use crate::wire::channel_message::MAX_TEXT_BYTES;
use crate::wire::conversation_message::item::META_DATA;
use crate::wire::conversation_message::item::{MAX_CONTENT_BYTES, read_tags};

/// New content, by the names of either API, first those of the message's own, and the member that the text came from.
/// `null` removes a member's value; metadata is `{}` then.
fn read_edit(fields: &mut Fields<'_>, family: Family, report: &mut Report) -> (Edit, Option<&'static str>) {
    let (max_text, bounds, text_names, metadata_names) = match family {
        Family::Channel => (MAX_TEXT_BYTES, METADATA, ["text", "content"], ["metadata", "meta_data"]),
        Family::Conversation => (MAX_CONTENT_BYTES, META_DATA, ["content", "text"], ["meta_data", "metadata"]),
    };
    let (name, text) = either(fields, text_names).unzip();
    let text = read_patch(text, |value| value.string(report, Length::bytes(0, max_text)).map(Cow::into_owned));
    let metadata = either(fields, metadata_names).and_then(|(_, value)| match value {
        Some(value) => value.free_object(report, bounds),
        None => Some(Json::from_checked("{}")),
    });
    let tags = read_patch(given(fields, "tags"), |value| read_tags(value, report));
    (Edit { text, metadata, tags, seen: None }, name)
}

/// The change by a member, if it was given; `null` removes the value.
fn read_patch<T>(member: Option<Option<Value<'_>>>, read: impl FnOnce(&Value<'_>) -> Option<T>) -> Patch<T> {
    match member {
        None => Patch::Keep,
        Some(None) => Patch::Clear,
        Some(Some(value)) => read(&value).map_or(Patch::Keep, Patch::Set),
    }
}

/// The first of two members that was given: its name, and its value unless that is `null`.
fn either<'a>(fields: &mut Fields<'a>, names: [&'static str; 2]) -> Option<(&'static str, Option<Value<'a>>)> {
    names.into_iter().find_map(|name| Some((name, given(fields, name)?)))
}

/// A message that would be empty without its text keeps one, as on creation. `name`: of the member without text.
fn needs_text(content: &Content, family: Family, name: &'static str, report: &mut Report) {
    let has_files = !content.attachments.is_empty();
    let filled = |list: Option<&Json>| list.is_some_and(|list| list.as_str() != "[]");
    match family {
        Family::Channel if !has_files && content.review.is_none() && content.severity.is_none() => {
            let message = "the message has no review, status or attachments, so its text must not be empty";
            report.faults.push(Fault::new("", "empty_message", message));
        }
        Family::Conversation
            if !has_files && !filled(content.tool_calls.as_ref()) && !filled(content.references.as_ref()) =>
        {
            let message = "must not be empty: the message has neither tool_calls nor attachments";
            report.fault(&JsonPath::ROOT.name(name), "required", message);
        }
        Family::Channel | Family::Conversation => {}
    }
}

/// `PATCH /messages/{id}`.
pub(in crate::http) async fn edit(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read_unkeyed(&body)?;
    let mut fields = incoming.fields();
    let wanted = incoming.report.take(if_match(&call.headers))?.flatten();
    let known = find_by_text(&call, &id).await;
    let family = known.as_ref().map_or(Family::Conversation, StoredMessage::family);
    let (mut edit, text_name) = read_edit(&mut fields, family, &mut incoming.report);
    fields.finish(&mut incoming.report);
    let leaves_no_text = match &edit.text {
        Patch::Keep => false,
        Patch::Clear => true,
        Patch::Set(text) => text.is_empty(),
    };
    if leaves_no_text
        && let Some(name) = text_name
        && let Ok(found) = &known
        && found.message.removal(&found.overlay).is_none()
    {
        needs_text(&found.message.content, family, name, &mut incoming.report);
    }
    let ignored = incoming.report.check()?;
    let found = known?;
    let command_context = call.without_key();
    if let Some(response) = call.forward(found.entity, &body, &command_context).await? {
        return Ok(response);
    }
    if let Some(wanted) = wanted {
        wanted.check(&tag(&found))?;
        edit.seen = wanted.is_of_versions().then(|| Box::new(found.overlay.clone()));
    }
    let found = amend(&call, found, Amendment::Edit(edit), command_context).await?.value;
    Ok(with_ignored_fields(message_response(&call.caller, &found), &ignored))
}

/// `DELETE /messages/{id}`: removes the content and keeps the sequence.
pub(in crate::http) async fn delete(
    Allowed { call, .. }: Allowed<Write>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let wanted = if_match(&call.headers)?;
    let found = find_by_text(&call, &id).await?;
    let command_context = call.without_key();
    if let Some(response) = call.forward(found.entity, None, &command_context).await? {
        return Ok(response);
    }
    let mut seen = None;
    if let Some(wanted) = wanted {
        wanted.check(&tag(&found))?;
        seen = wanted.is_of_versions().then(|| Box::new(found.overlay.clone()));
    }
    let files = link::doubt(&call, &found.message.content).await?;
    amend(&call, found, Amendment::Delete { seen }, command_context).await?;
    call.node().settled(call.caller.address, files).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /messages/{id}/ack`.
pub(in crate::http) async fn acknowledge(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let choices = [("delivered", Receipt::Delivered), ("read", Receipt::Read)];
    let receipt = fields.required(report, "status").and_then(|value| value.choice(report, &choices));
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let receipt = receipt.ok_or_else(|| broken("a body without faults has a receipt"))?;
    let found = find_by_text(&call, &id).await?;
    if let Some(response) = call.forward(found.entity, &body, &command_context).await? {
        return Ok(response);
    }
    let Replayed { value: found, replay } =
        amend(&call, found, Amendment::Acknowledge(receipt), command_context).await?;
    Ok(replay.mark(with_ignored_fields(message_response(&call.caller, &found), &ignored)))
}

/// Sends the command to the conversation. Returns the message as this request, or the first one with its idempotency
/// key, left it.
async fn amend(
    call: &Call,
    found: StoredMessage,
    amendment: Amendment,
    command_context: CommandContext,
) -> Result<Replayed<StoredMessage>, Problem> {
    let entity = found.entity;
    let key = command_context.key.map(|key| key.hash);
    let amend = Amend { message: found.message.id, amendment };
    let answer = call.node().conversation(entity, amend, command_context).await;
    match answer.map_err(|refusal| problem_of(refusal, rejected))? {
        Answer::Done(overlay) => {
            Ok(Replayed { value: StoredMessage { overlay: *overlay, ..found }, replay: Replay::First })
        }
        Answer::Repeat(_) => {
            let now = find(call, found.message.id).await?;
            let overlay = answered_overlay(&call.app, entity, now.message.id.number, key).await?;
            let overlay = overlay.filter(|_| now.message.removal(&now.overlay).is_none());
            let value = match overlay {
                Some(overlay) => StoredMessage { overlay, ..now },
                None => now.settled(call, settle_deadline()).await,
            };
            Ok(Replayed { value, replay: Replay::Repeated })
        }
    }
}

/// The message as in the answer to the request with this idempotency key, if that was stored.
pub(in crate::http) async fn answered_overlay(
    app: &App,
    entity: EntityKey,
    seq: u64,
    key: Option<KeyHash>,
) -> Result<Option<Overlay>, Problem> {
    let Some(key) = key else { return Ok(None) };
    Ok(app.node().shown(entity, seq, key).await?)
}
