//! Channel messages, on human channels.

use super::super::shape::{
    Bounded as _, Detailed as _, Members, any_of, anything, boolean, free, integer, list, made_id, map, named,
    nullable, one_of, set, text, time, url, word,
};
use super::{Component, page};
use crate::json::number::MAX_SAFE;
use crate::wire::bounds::METADATA;
use crate::wire::channel_message::review::{MAX_ALLOWED, MAX_CALLBACK_HEADERS, MAX_QUORUM};
use crate::wire::channel_message::{MAX_ATTACHMENTS, MAX_KEY_CHARS, MAX_TEXT_BYTES};
use utoipa::openapi::{Object, RefOr, Schema, Type};

/// How urgent a message is.
const SEVERITIES: [&str; 4] = ["info", "success", "warning", "error"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ChannelMessage", message()),
        ("ChannelMessageOnChannel", on_its_channel()),
        ("ReviewRequest", review_request()),
        ("ReviewPayload", review_payload()),
        ("ReviewCallback", callback()),
        ("ReviewQuorum", quorum()),
        ("ChannelMessageView", view("A message of a human channel.").done()),
        ("ChannelMessagePage", page("A page of a channel's messages.", named("ChannelMessageView"))),
        ("Review", review_view()),
        ("ReviewVote", vote()),
        ("Attachment", attachment()),
    ]
}

fn message() -> RefOr<Schema> {
    let metadata = format!(
        "A free object: at most {} bytes as compact JSON and {} levels. Digits of numbers and the order of members \
         are preserved.",
        METADATA.bytes, METADATA.depth
    );
    let words = format!("Markdown, stored as given; at most {MAX_TEXT_BYTES} bytes of UTF-8.");
    Members::new(
        "A message to a human channel, with or without a question. At least one of `text`, `review`, `status` and \
         `attachmentIds` is required.",
    )
    .must("channelId", text("The channel, which must be of kind `human`.").least(1))
    .may("text", text(&words).longest(MAX_TEXT_BYTES).nullable())
    .may("status", word("The severity; absent stays absent.", &SEVERITIES).nullable())
    .may("review", nullable("ReviewRequest", "The message's question."))
    .may("metadata", free(&metadata).nullable())
    .may(
        "webhookUrl",
        url("The URL that receives every event of this message. http or https, a public host.").nullable(),
    )
    .may(
        "attachmentIds",
        set("Uploads of this workspace that are not linked to a message; all are linked or none.", text(""))
            .longest(MAX_ATTACHMENTS)
            .nullable(),
    )
    .may(
        "iterationOf",
        text("An earlier message of the channel that this one revises. Its pending review becomes `cancelled`.")
            .nullable(),
    )
    .may(
        "clientId",
        text("An idempotency key, equivalent to the header `Idempotency-Key`: visible ASCII.")
            .least(1)
            .longest(MAX_KEY_CHARS)
            .pattern("^[!-~]+$")
            .nullable(),
    )
    .done()
}

fn review_request() -> RefOr<Schema> {
    Members::new("A question. The first valid response decides, or the quorum.")
        .must(
            "type",
            text("`approval`, `selection`, `form`, `text-input`, or a custom type, whose payload is free.")
                .least(1)
                .longest(64),
        )
        .may(
            "payload",
            any_of(
                "The question's details. Required for `selection` and `form`.",
                [named("ReviewPayload"), free("For a custom type: free.").into(), Object::with_type(Type::Null).into()],
            ),
        )
        .may("callback", nullable("ReviewCallback", "The request that reports the outcome."))
        .may("expiresAt", time("The deadline for responses: in the future, at most 365 days ahead.").nullable())
        .may(
            "expiresInSeconds",
            integer(
                "The deadline as seconds after the message was accepted. Takes precedence over `expiresAt`. Without \
                 both, the channel's default applies, else 24 hours. A value above 31536000 (365 days) is refused, \
                 never clamped.",
                1,
                Some(MAX_SAFE),
            )
            .nullable(),
        )
        .may(
            "onExpire",
            one_of(
                "Applied if no response arrives in time; without it the review ends as `expired`.",
                [
                    Members::new("")
                        .must("response", free("The response to apply; at most 65536 bytes as compact JSON."))
                        .done(),
                    Object::with_type(Type::Null).into(),
                ],
            ),
        )
        .may("quorum", nullable("ReviewQuorum", "How many must agree; default one of anyone who may respond."))
        .done()
}

fn review_payload() -> RefOr<Schema> {
    let choice = |about: &str| {
        Members::new(about)
            .must("id", text("Unique in its list.").least(1))
            .must("label", text("Human-readable label."))
    };
    let field = Members::new("A field of a form.")
        .must("name", text("Unique in the form; the name of the response's member.").least(1))
        .may("label", text("Human-readable label.").nullable())
        .must("type", text("The kind of field, for the user interface.").least(1))
        .may("required", boolean("Whether a response must have it.").nullable())
        .may("options", list("The choices.", any_of("", [text("").least(1).into(), choice("").done()])).nullable())
        .done();
    Members::new("The details of a review. Members of custom review types are free and shown as given.")
        .may(
            "options",
            list(
                "`approval`: the choices; default approve and reject.",
                choice("").may("style", text("A hint for the user interface.").nullable()).done(),
            )
            .nullable(),
        )
        .may("allowComment", boolean("`approval`: whether a comment may be given.").nullable())
        .may("mode", word("`selection`: one or several.", &["single", "multi"]).nullable())
        .may("items", list("`selection`: the choices; required there.", choice("").done()).nullable())
        .may("fields", list("`form`: its fields; required there.", field).nullable())
        .may("minLength", integer("`text-input`: the minimum length.", 0, Some(MAX_SAFE)).nullable())
        .may("maxLength", integer("`text-input`: the maximum length.", 0, Some(MAX_SAFE)).nullable())
        .may("placeholder", text("`text-input`: the placeholder.").nullable())
        .may("prefill", text("`text-input`: the initial text.").nullable())
        .may(
            "responseSchema",
            anything(
                "A JSON Schema (2020-12), an object or a boolean, that every response must match, for every type.",
            ),
        )
        .done()
}

fn callback() -> RefOr<Schema> {
    let headers = "Headers of the request, stored as secrets and never returned. `Host`, `Content-Length`, \
                   `Connection`, `Transfer-Encoding` and `webhook-*` are refused.";
    Members::new("A request that the server sends when the review ends.")
        .must("url", url("http or https, without user and password, a public host."))
        .may("method", word("", &["POST", "PUT", "PATCH"]).usually("POST".into()).nullable())
        .may("headers", map(headers, text("")).longest(MAX_CALLBACK_HEADERS).nullable().write_only())
        .done()
}

fn quorum() -> RefOr<Schema> {
    let whole = Members::new("The id, as in the principal of its API key.")
        .must("type", word("A program or a person.", &["agent", "user"]))
        .must("id", text("").least(1))
        .done();
    let principal = any_of(
        "A principal: its id alone, which matches both types, or id and type.",
        [text("").least(1).into(), whole],
    );
    Members::new("How many principals must give the same response.")
        .may("of", integer("The number of different principals.", 1, Some(MAX_QUORUM)).usually(1.into()).nullable())
        .may(
            "allowed",
            set("The principals that may respond, at least `of` of them; default anyone who may respond.", principal)
                .least(1)
                .longest(MAX_ALLOWED)
                .nullable(),
        )
        .done()
}

/// The members of a message in answers.
pub(super) fn view(about: &str) -> Members {
    Members::new(about)
        .must("id", made_id("The message.", "msg_", 34))
        .must("channelId", text("The channel."))
        .must("senderType", word("The type of the sender.", &["agent", "user"]))
        .must("senderId", text("The sender: an agent is its channel, a person is the key's principal."))
        .must("createdAt", time("When it was accepted."))
        .must("attachments", list("Its files.", named("Attachment")))
        .may("text", text("As sent or last set; absent from a message without one."))
        .may("status", word("As sent.", &SEVERITIES))
        .must("review", nullable("Review", "Its review; `null` for a message without a question."))
        .may("metadata", free("As sent."))
        .may("tags", set("As last set.", text("")))
        .may("iterationOf", made_id("The message that this one revises.", "msg_", 34))
        .may("updatedAt", time("When it was last changed."))
        .may("deliveredAt", time("When it was delivered."))
        .may("readAt", time("When it was read."))
        .may("deleted", boolean("Whether its content was deleted; the message keeps its position."))
        .may("erased", boolean("Whether its content was erased with its contact."))
}

fn review_view() -> RefOr<Schema> {
    with_review(Members::new("A review and its status.")).done()
}

/// The members of a review in every answer.
pub(super) fn with_review(members: Members) -> Members {
    members
        .must("type", text("The type of the review."))
        .must("status", word("The status.", &["pending", "completed", "expired", "cancelled"]))
        .must("payload", free("The question's details.").nullable())
        .must("expiresAt", time("The deadline for responses."))
        .must("response", free("The response that decided it.").nullable())
        .must("feedback", text("The comment with the response.").nullable())
        .must("decidedBy", text("The principal that decided; `system` for `onExpire`.").nullable())
        .must("completedAt", time("When the review ended.").nullable())
        .may("votes", list("The votes so far, for a review with a quorum.", named("ReviewVote")))
}

fn vote() -> RefOr<Schema> {
    Members::new("One principal's vote.")
        .must("principal", text("Who."))
        .must("response", free("What."))
        .must("feedback", text("The comment with the vote.").nullable())
        .must("at", time("When."))
        .done()
}

fn attachment() -> RefOr<Schema> {
    Members::new("A file.")
        .must("id", made_id("The file.", "att_", 26))
        .must("messageId", made_id("The message that it is linked to; `null` if none.", "msg_", 34).nullable())
        .must("pluginType", word("", &["file"]))
        .must("filename", text("Its name."))
        .must("mimeType", text("Its media type, with its parameters: `text/plain; charset=utf-8`."))
        .must("size", integer("Its size in bytes.", 0, None))
        .must("storageKey", text("The storage key; opaque."))
        .must("createdAt", time("When it was uploaded."))
        .done()
}

/// A channel message on a path that names the channel.
fn on_its_channel() -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = message() else { return message() };
    let about = object.description.unwrap_or_default();
    object.description = Some(format!("{about} It has no `content`: a body with `content` is a contact's message."));
    object.required.clear();
    let channel = text("The channel in the path; may be absent or `null`.").least(1).nullable();
    object.properties.insert("channelId".to_owned(), channel.into());
    object.into()
}
