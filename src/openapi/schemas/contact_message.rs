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
        ("ContactImage", of_kind("IMAGE", "image", captioned("A picture."))),
        ("ContactAudio", of_kind("AUDIO", "audio", Members::new("A sound.").must("url", media_url()).done())),
        ("ContactVideo", of_kind("VIDEO", "video", captioned("A film."))),
        ("ContactDocument", of_kind("DOCUMENT", "document", document())),
        ("ContactAnswer", answer()),
        ("ConversationSummary", summary()),
        ("AgentMessage", reply()),
        ("Usage", usage()),
        ("TurnStatus", word("How a turn stands.", &super::conversations::TURN_STATUSES).into()),
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
        .must("type", word("What it carries.", &[kind]))
        .must(
            "contactIdentifier",
            text(&format!(
                "Who writes: unique in the workspace, an e-mail address best. Trimmed, and then 1 to {MAX_NAME_CHARS} \
                 characters; what looks like an e-mail address is compared without regard to case."
            ))
            .least(1),
        )
        .may("contactName", text("Used only when the contact is created.").longest(MAX_NAME_CHARS).nullable())
        .may(
            "enableMemories",
            boolean(
                "Whether memories of the contact are drawn from it once it is stored. The answer never waits for it.",
            )
            .usually(false.into())
            .nullable(),
        )
        .must("content", Members::new("What it says.").must(member, shape).done())
        .done()
}

fn text_content() -> RefOr<Schema> {
    let about = format!("The words, not only blanks; at most {MAX_BODY_BYTES} bytes of UTF-8.");
    Members::new("A text.").must("body", text(&about).least(1).longest(MAX_BODY_BYTES)).done()
}

fn media_url() -> utoipa::openapi::Object {
    url("Where the file lies: http or https, a public host. It is fetched before the message is accepted: at most \
         10485760 bytes, 30 seconds, 3 redirects.")
    .longest(MAX_FILE_CHARS)
}

fn caption() -> utoipa::openapi::Object {
    text("Words beside it.").longest(MAX_CAPTION_CHARS).nullable()
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
        .must("status", component("TurnStatus", "How it stands."))
        .done();
    Members::new("What became of a contact's message.")
        .must("success", boolean("The message was accepted."))
        .must("contactId", made_id("The contact that was created or found.", "cont_", 26))
        .must("conversationId", made_id("The conversation.", "conv_", 26))
        .must("messageId", made_id("The contact's message.", "msg_", 34))
        .must("conversation", component("ConversationSummary", "The conversation and who answers in it."))
        .must(
            "aiMessages",
            list("The agent's reply, earliest first; empty while it has not answered.", named("AgentMessage")),
        )
        .must("usage", component("Usage", "What the turn has cost."))
        .must("turn", turn)
        .done()
}

fn summary() -> RefOr<Schema> {
    let assignment = Members::new("Who answers.")
        .must("type", word("Api channels are answered by agents only.", &["AI_AGENT"]))
        .must("agentId", text("The agent."))
        .done();
    Members::new("The conversation of a contact on a channel.")
        .must("id", made_id("The conversation.", "conv_", 26))
        .must("status", word("How it stands.", &["open", "closed"]))
        .must("channelId", text("The channel."))
        .must("contactId", made_id("The contact.", "cont_", 26))
        .must("assignment", assignment)
        .must("createdAt", time("When it began."))
        .must("updatedAt", time("When it last changed."))
        .must("lastMessageAt", time("When its newest message was accepted."))
        .done()
}

fn reply() -> RefOr<Schema> {
    let body = Members::new("").must("body", text("The words.")).done();
    Members::new("One message of an agent.")
        .must("id", made_id("The message.", "msg_", 34))
        .must("type", word("What it carries.", &KINDS.map(|(word, _)| word)))
        .must("content", Members::new("What it says.").may("text", body).done())
        .must("createdAt", time("When it was stored."))
        .may("deleted", boolean("Its content is gone; its place stays."))
        .may("erased", boolean("Its content went with its contact."))
        .done()
}

fn usage() -> RefOr<Schema> {
    Members::new("What a turn has cost so far.")
        .must("credits", number("Credits of the workspace; a thousandth is the smallest part.", 0, None))
        .must("inputTokens", integer("Tokens that the model read.", 0, None))
        .must("outputTokens", integer("Tokens that the model wrote.", 0, None))
        .must("model", text("The model; `null` before one was called.").nullable())
        .done()
}

/// `Usage`, or `null`.
pub(super) fn nullable_usage() -> RefOr<Schema> {
    nullable("Usage", "What it has cost; `null` before a model was called.")
}
