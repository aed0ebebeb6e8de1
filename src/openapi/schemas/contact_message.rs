//! Contact messages, on api channels.

use super::super::shape::{
    Bounded as _, Detailed as _, Members, boolean, component, integer, list, made_id, named, nullable, number, one_by,
    text, time, url, word,
};
use super::Component;
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::contact_message::KINDS;
use crate::wire::contact_message::content::{MAX_BODY_BYTES, MAX_CAPTION_CHARS};
use crate::wire::filename::MAX_FILENAME_CHARS;
use crate::wire::url::MAX_FILE_CHARS;
use utoipa::openapi::{RefOr, Schema};

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ContactMessage", message()),
        ("ContactText", of_kind("TEXT", "text", text_content())),
        ("ContactImage", of_kind("IMAGE", "image", captioned("An image."))),
        ("ContactAudio", of_kind("AUDIO", "audio", Members::new("An audio file.").must("url", media_url()).done())),
        ("ContactVideo", of_kind("VIDEO", "video", captioned("A video."))),
        ("ContactDocument", of_kind("DOCUMENT", "document", document())),
        ("ContactAnswer", answer()),
        ("ConversationSummary", summary()),
        ("AgentMessage", reply()),
        ("Usage", usage()),
        ("TurnStatus", word("The status of a turn.", &super::conversations::TURN_STATUSES).into()),
    ]
}

fn message() -> RefOr<Schema> {
    let kinds = [
        ("TEXT", "ContactText"),
        ("IMAGE", "ContactImage"),
        ("AUDIO", "ContactAudio"),
        ("VIDEO", "ContactVideo"),
        ("DOCUMENT", "ContactDocument"),
    ];
    one_by("A contact's message: `content` has exactly the member that `type` names.", "type", &kinds)
}

fn of_kind(kind: &str, member: &str, shape: RefOr<Schema>) -> RefOr<Schema> {
    Members::new("")
        .must("type", word("The type of the content.", &[kind]))
        .must(
            "contactIdentifier",
            text(&format!(
                "The sender: unique in the workspace, preferably an e-mail address. Trimmed, then 1 to \
                 {MAX_NAME_CHARS} characters; an identifier that looks like an e-mail address is compared without \
                 case."
            ))
            .least(1),
        )
        .may("contactName", text("Used only when the contact is created.").longest(MAX_NAME_CHARS).nullable())
        .may(
            "enableMemories",
            boolean(
                "Whether memories of the contact are extracted from it after it is stored. The response never waits \
                 for that.",
            )
            .usually(false.into())
            .nullable(),
        )
        .must("content", Members::new("The content.").must(member, shape).done())
        .done()
}

fn text_content() -> RefOr<Schema> {
    let about = format!("The text, not blank; at most {MAX_BODY_BYTES} bytes of UTF-8.");
    Members::new("A text.").must("body", text(&about).least(1).longest(MAX_BODY_BYTES)).done()
}

fn media_url() -> utoipa::openapi::Object {
    url("The URL of the file: http or https, a public host. The server downloads it before accepting the message: at \
         most 10485760 bytes, 30 seconds, 3 redirects.")
    .longest(MAX_FILE_CHARS)
}

fn caption() -> utoipa::openapi::Object {
    text("A caption.").longest(MAX_CAPTION_CHARS).nullable()
}

fn captioned(about: &str) -> RefOr<Schema> {
    Members::new(about).must("url", media_url()).may("caption", caption()).done()
}

fn document() -> RefOr<Schema> {
    Members::new("A document.")
        .must("url", media_url())
        .may("filename", text("Its name; default the last part of the URL.").longest(MAX_FILENAME_CHARS).nullable())
        .may("caption", caption())
        .done()
}

fn answer() -> RefOr<Schema> {
    let turn = Members::new("The agent's turn.")
        .must("id", made_id("The turn.", "turn_", 34))
        .must("status", component("TurnStatus", "Its status."))
        .done();
    Members::new("The result of a contact's message.")
        .must("success", boolean("The message was accepted."))
        .must("contactId", made_id("The contact that was created or found.", "cont_", 26))
        .must("conversationId", made_id("The conversation.", "conv_", 26))
        .must("messageId", made_id("The contact's message.", "msg_", 34))
        .must("conversation", component("ConversationSummary", "The conversation and its agent."))
        .must(
            "aiMessages",
            list(
                "The agent's reply, earliest first; empty until it has answered. Text beside tool calls is only in the \
                 conversation, unless the agent adds nothing to it.",
                named("AgentMessage"),
            ),
        )
        .must("usage", component("Usage", "The usage of the turn."))
        .must("turn", turn)
        .done()
}

fn summary() -> RefOr<Schema> {
    let assignment = Members::new("The agent that answers.")
        .must("type", word("Only agents answer on api channels.", &["AI_AGENT"]))
        .must("agentId", text("The agent."))
        .done();
    Members::new("The conversation of a contact on a channel.")
        .must("id", made_id("The conversation.", "conv_", 26))
        .must("status", word("Its status.", &["open", "closed"]))
        .must("channelId", text("The channel."))
        .must("contactId", made_id("The contact.", "cont_", 26))
        .must("assignment", assignment)
        .must("createdAt", time("When it began."))
        .must("updatedAt", time("When it last changed."))
        .must("lastMessageAt", time("When its newest message was accepted."))
        .done()
}

fn reply() -> RefOr<Schema> {
    let body = Members::new("").must("body", text("The text.")).done();
    Members::new("One message of an agent.")
        .must("id", made_id("The message.", "msg_", 34))
        .must("type", word("The type of the content.", &KINDS.map(|(word, _)| word)))
        .must("content", Members::new("The content.").may("text", body).done())
        .must("createdAt", time("When it was stored."))
        .may("deleted", boolean("Whether its content was deleted; the message keeps its position."))
        .may("erased", boolean("Whether its content was erased with its contact."))
        .done()
}

fn usage() -> RefOr<Schema> {
    Members::new("The usage of a turn so far.")
        .must("credits", number("Credits of the workspace; the smallest part is a thousandth.", 0, None))
        .must("inputTokens", integer("Tokens that the model read.", 0, None))
        .must("outputTokens", integer("Tokens that the model wrote.", 0, None))
        .must("model", text("The model; `null` before the first call.").nullable())
        .done()
}

/// `Usage`, or `null`.
pub(super) fn nullable_usage() -> RefOr<Schema> {
    nullable("Usage", "The usage; `null` before the first model call.")
}
