//! A message in the channel API's form.

use actors::message::{Attachment, Message, Overlay, Removal, Review, ReviewState, ReviewStatus, Vote};
use serde::Serialize;

use crate::wire::json_view::{AsText, Raw, review_status, sender_type, severity};
use crate::wire::time::Time;

/// A message in the channel API's form; see [`channel_view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelView<'a> {
    id: AsText<actors::id::MessageId>,
    channel_id: &'a str,
    sender_type: &'static str,
    sender_id: &'a str,
    created_at: Time,
    attachments: Vec<AttachmentView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    review: Option<ReviewView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iteration_of: Option<AsText<actors::id::MessageId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<Time>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// A file in the channel API's form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentView<'a> {
    id: AsText<actors::id::AttachmentId>,
    message_id: Option<AsText<actors::id::MessageId>>,
    plugin_type: &'static str,
    filename: &'a str,
    mime_type: &'a str,
    size: u64,
    storage_key: &'a str,
    created_at: Time,
}

/// A review in the channel API's form; see [`review_view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewView<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    status: &'static str,
    payload: Option<Raw<'a>>,
    expires_at: Time,
    response: Option<Raw<'a>>,
    feedback: Option<&'a str>,
    decided_by: Option<&'a str>,
    completed_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    votes: Option<Vec<VoteView<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VoteView<'a> {
    principal: &'a str,
    response: Raw<'a>,
    feedback: Option<&'a str>,
    at: Time,
}

/// The message in the channel API's form: as accepted with an empty overlay, as it is now with its own.
#[must_use]
pub fn channel_view<'a>(channel_id: &'a str, message: &'a Message, overlay: &'a Overlay) -> ChannelView<'a> {
    let content = &message.content;
    let removal = message.removal(overlay);
    let removed = removal.is_some();
    let attachments = if removed { &[][..] } else { &content.attachments };
    ChannelView {
        id: AsText(message.id),
        channel_id,
        sender_type: sender_type(content.sender.kind),
        sender_id: content.sender.id_on(channel_id),
        created_at: Time(message.id.at),
        attachments: attachments.iter().map(|file| attachment_view(file, Some(message.id))).collect(),
        text: overlay.text_of(content).filter(|_| !removed),
        status: content.severity.map(severity),
        review: content.review.as_ref().map(|review| review_view(review, overlay.review.as_ref(), removed)),
        metadata: overlay.metadata.as_ref().or(content.metadata.as_ref()).filter(|_| !removed).map(Raw),
        tags: overlay.tags_of(content).filter(|_| !removed),
        iteration_of: content.iteration_of.map(AsText),
        updated_at: overlay.updated_at.map(Time),
        delivered_at: overlay.delivered_at.map(Time),
        read_at: overlay.read_at.map(Time),
        deleted: removed,
        erased: removal == Some(Removal::Erased),
    }
}

/// A file in the channel API's form; an upload without a message has `messageId: null`.
#[must_use]
pub fn attachment_view(file: &Attachment, message: Option<actors::id::MessageId>) -> AttachmentView<'_> {
    AttachmentView {
        id: AsText(file.id),
        message_id: message.map(AsText),
        plugin_type: "file",
        filename: &file.filename,
        mime_type: &file.mime_type,
        size: file.size,
        storage_key: &file.storage_key,
        created_at: Time(file.id.at),
    }
}

/// A review in the channel API's form; `state` is absent while nothing has happened to it. The callback is never shown.
/// With `removed` (the message was deleted) neither the question nor the content of the answers is.
#[must_use]
pub fn review_view<'a>(review: &'a Review, state: Option<&'a ReviewState>, removed: bool) -> ReviewView<'a> {
    let visible = state.filter(|_| !removed);
    let votes = review.quorum.as_ref().map(|_| visible.map_or(&[][..], |state| &state.votes));
    ReviewView {
        kind: &review.kind,
        status: review_status(state.map_or(ReviewStatus::Pending, |state| state.status)),
        payload: review.payload.as_ref().filter(|_| !removed).map(Raw),
        expires_at: Time(review.expires_at),
        response: visible.and_then(|state| state.response.as_ref()).map(Raw),
        feedback: visible.and_then(|state| state.feedback.as_deref()),
        decided_by: state.and_then(|state| state.decided_by.as_deref()),
        completed_at: state.and_then(|state| state.completed_at).map(Time),
        votes: votes.map(|votes| votes.iter().map(vote_view).collect()),
    }
}

fn vote_view(vote: &Vote) -> VoteView<'_> {
    VoteView {
        principal: &vote.principal,
        response: Raw(&vote.response),
        feedback: vote.feedback.as_deref(),
        at: Time(vote.at),
    }
}
