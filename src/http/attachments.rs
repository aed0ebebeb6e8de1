//! Attachments: files that are uploaded, linked to a message, and read back.

use actors::attachment::{Attachment, State as File};
use actors::id::AttachmentId;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;

use super::answer::json;
use super::call::{Allowed, Call};
use super::caller::Read;
use super::refusal::broken;
use crate::problem::Problem;
use crate::wire::channel_message::view::{AttachmentView, attachment_view};

pub(super) mod arrival;
pub(super) mod content;
mod disposition;
pub(crate) mod link;
mod range;
pub(super) mod sniff;
pub(super) mod upload;

/// The largest file, in bytes.
pub(super) const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// A usable file of the caller's workspace; `None` if there is none, here or at all.
pub(super) async fn find(call: &Call, id: &str) -> Result<Option<File>, Problem> {
    let Some(id) = AttachmentId::parse(id) else { return Ok(None) };
    let state = call.node().state::<Attachment>(call.caller.attachment(id.address)).await?;
    Ok(state.filter(|state| state.id == id && state.ready().is_some()))
}

fn attachment_not_found() -> Problem {
    Problem::not_found("attachment_not_found", "there is no such attachment")
}

/// `GET /attachments/{id}`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Read>, Path(id): Path<String>) -> Result<Response, Problem> {
    let file = find(&call, &id).await?.ok_or_else(attachment_not_found)?;
    let message = link::message_of(&call, &file).await?;
    let attachment = file.attachment(None).ok_or_else(|| broken("a file that is found has arrived"))?;
    let view: AttachmentView<'_> = attachment_view(&attachment, message);
    Ok(json(StatusCode::OK, &view))
}
