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
        "An object of your own: at most {} bytes as compact JSON and {} levels. \
         Digits of numbers and the order of members are kept.",
        METADATA.bytes, METADATA.depth
    );
    let words = format!("Markdown, kept as it is; at most {MAX_TEXT_BYTES} bytes of UTF-8.");
    Members::new(
        "A message to a human channel, with or without a question. At least one of `text`, `review`, `status` and \
         `attachmentIds` must be given.",
    )
    .must("channelId", text("The channel, which must be of kind `human`.").least(1))
    .may("text", text(&words).longest(MAX_TEXT_BYTES).nullable())
    .may("status", word("How urgent it is; absent stays absent.", &SEVERITIES).nullable())
    .may("review", nullable("ReviewRequest", "The question that the message asks."))
    .may("metadata", free(&metadata).nullable())
    .may("webhookUrl", url("Gets every event of this message. http or https, a public host.").nullable())
    .may(
        "attachmentIds",
        set("Uploads of this workspace that no message has yet; all or nothing.", text(""))
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
        text("An idempotency key, the same as the header `Idempotency-Key`: visible ASCII.")
            .least(1)
            .longest(MAX_KEY_CHARS)
            .pattern("^[!-~]+$")
            .nullable(),
    )
    .done()
}

fn review_request() -> RefOr<Schema> {
    Members::new("A question. The first valid answer decides, or the quorum's.")
        .must(
            "type",
            text("`approval`, `selection`, `form`, `text-input`, or a word of your own, whose payload is free.")
                .least(1)
                .longest(64),
        )
        .may(
            "payload",
            any_of(
                "What is asked. Required for `selection` and `form`.",
                [
                    named("ReviewPayload"),
                    free("Of a type of your own: as you like.").into(),
                    Object::with_type(Type::Null).into(),
                ],
            ),
        )
        .may("callback", nullable("ReviewCallback", "Whom to tell the outcome."))
        .may(
            "expiresAt",
            time("When nobody's answer is accepted any more: in the future, at most 365 days ahead.").nullable(),
        )
        .may(
            "expiresInSeconds",
            integer(
                "The same, so many seconds after the message was accepted. Wins over `expiresAt`. Without both the \
                 channel's default holds, else 24 hours. Above 31536000 (365 days) it is refused, never clamped.",
                1,
                Some(MAX_SAFE),
            )
            .nullable(),
        )
        .may(
            "onExpire",
            one_of(
                "Applied when nobody answered in time; without it the review ends as `expired`.",
                [
                    Members::new("")
                        .must("response", free("The response that stands then; at most 65536 bytes as compact JSON."))
                        .done(),
                    Object::with_type(Type::Null).into(),
                ],
            ),
        )
        .may("quorum", nullable("ReviewQuorum", "Who has to agree; default one of anyone who may respond."))
        .done()
}

fn review_payload() -> RefOr<Schema> {
    let choice = |about: &str| {
        Members::new(about).must("id", text("Unique in its list.").least(1)).must("label", text("For people."))
    };
    let field = Members::new("A field of a form.")
        .must("name", text("Unique in the form; the response's member.").least(1))
        .may("label", text("For people.").nullable())
        .must("type", text("What kind of field, for whoever shows it.").least(1))
        .may("required", boolean("Whether an answer must have it.").nullable())
        .may(
            "options",
            list("What can be chosen.", any_of("", [text("").least(1).into(), choice("").done()])).nullable(),
        )
        .done();
    Members::new("What a review asks. Members of other types of review are your own and are shown as they are.")
        .may(
            "options",
            list(
                "`approval`: the choices; default approve and reject.",
                choice("").may("style", text("A hint for whoever shows it.").nullable()).done(),
            )
            .nullable(),
        )
        .may("allowComment", boolean("`approval`: whether a comment may be given.").nullable())
        .may("mode", word("`selection`: one or several.", &["single", "multi"]).nullable())
        .may("items", list("`selection`: what can be chosen; required there.", choice("").done()).nullable())
        .may("fields", list("`form`: its fields; required there.", field).nullable())
        .may("minLength", integer("`text-input`: the shortest text.", 0, Some(MAX_SAFE)).nullable())
        .may("maxLength", integer("`text-input`: the longest text.", 0, Some(MAX_SAFE)).nullable())
        .may("placeholder", text("`text-input`: shown while it is empty.").nullable())
        .may("prefill", text("`text-input`: what stands there at first.").nullable())
        .may(
            "responseSchema",
            anything("A JSON Schema (2020-12), an object or a boolean, that every answer must match, for every type."),
        )
        .done()
}

fn callback() -> RefOr<Schema> {
    let headers = "Headers of the request, stored as secrets and never returned. `Host`, `Content-Length`, \
                   `Connection`, `Transfer-Encoding` and `webhook-*` are refused.";
    Members::new("A request that is sent when the review is over.")
        .must("url", url("http or https, without user and password, a public host."))
        .may("method", word("", &["POST", "PUT", "PATCH"]).usually("POST".into()).nullable())
        .may("headers", map(headers, text("")).longest(MAX_CALLBACK_HEADERS).nullable().write_only())
        .done()
}

fn quorum() -> RefOr<Schema> {
    let whole = Members::new("As its API key names it.")
        .must("type", word("A program or a person.", &["agent", "user"]))
        .must("id", text("").least(1))
        .done();
    let principal = any_of("A principal: its id, whatever its type, or all of it.", [text("").least(1).into(), whole]);
    Members::new("Who has to give the same response.")
        .may("of", integer("How many different principals.", 1, Some(MAX_QUORUM)).usually(1.into()).nullable())
        .may(
            "allowed",
            set("Who may answer, at least `of` of them; default anyone who may respond.", principal)
                .least(1)
                .longest(MAX_ALLOWED)
                .nullable(),
        )
        .done()
}

/// The members of a message as it is shown.
pub(super) fn view(about: &str) -> Members {
    Members::new(about)
        .must("id", made_id("The message.", "msg_", 34))
        .must("channelId", text("The channel."))
        .must("senderType", word("Who sent it.", &["agent", "user"]))
        .must("senderId", text("The sender: an agent is its channel, a person the key's principal."))
        .must("createdAt", time("When it was accepted."))
        .must("attachments", list("Its files.", named("Attachment")))
        .may("text", text("As it was sent."))
        .may("status", word("As it was sent.", &SEVERITIES))
        .must("review", nullable("Review", "Its review; `null` where it asks nothing."))
        .may("metadata", free("As it was sent."))
        .may("tags", set("As it was last given them.", text("")))
        .may("iterationOf", made_id("The message that this one revises.", "msg_", 34))
        .may("updatedAt", time("When it was changed."))
        .may("deliveredAt", time("When it was delivered."))
        .may("readAt", time("When it was read."))
        .may("deleted", boolean("Its content is gone; its place stays."))
        .may("erased", boolean("Its content went with its contact."))
}

fn review_view() -> RefOr<Schema> {
    with_review(Members::new("A review and how it stands.")).done()
}

/// What is shown of a review, wherever it is.
pub(super) fn with_review(members: Members) -> Members {
    members
        .must("type", text("The type of the review."))
        .must("status", word("How it stands.", &["pending", "completed", "expired", "cancelled"]))
        .must("payload", free("What was asked.").nullable())
        .must("expiresAt", time("When nobody's answer is accepted any more."))
        .must("response", free("The response that was decided.").nullable())
        .must("feedback", text("Words beside it.").nullable())
        .must("decidedBy", text("Who decided; `system` where `onExpire` did.").nullable())
        .must("completedAt", time("When it was over.").nullable())
        .may("votes", list("What was said so far, where there is a quorum.", named("ReviewVote")))
}

fn vote() -> RefOr<Schema> {
    Members::new("One principal's answer.")
        .must("principal", text("Who."))
        .must("response", free("What."))
        .must("feedback", text("Words beside it.").nullable())
        .must("at", time("When."))
        .done()
}

fn attachment() -> RefOr<Schema> {
    Members::new("A file.")
        .must("id", made_id("The file.", "att_", 26))
        .must("messageId", made_id("The message that has it; `null` while none does.", "msg_", 34).nullable())
        .must("pluginType", word("", &["file"]))
        .must("filename", text("Its name."))
        .must("mimeType", text("Its media type."))
        .must("size", integer("Its size in bytes.", 0, None))
        .must("storageKey", text("Where the service keeps it; opaque."))
        .must("createdAt", time("When it was uploaded."))
        .done()
}

/// A channel message where the path names the channel.
fn on_its_channel() -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = message() else { return message() };
    let about = object.description.unwrap_or_default();
    object.description = Some(format!("{about} It has no `content`: what has one is a contact's message."));
    object.required.clear();
    let channel = text("The channel that the path names; may be absent or `null`.").least(1).nullable();
    object.properties.insert("channelId".to_owned(), channel.into());
    object.into()
}
