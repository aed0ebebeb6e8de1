//! Conversation messages, in snake_case.

use super::super::shape::{
    Bounded as _, Detailed as _, Members, boolean, free, list, made_id, named, one_of, set, text, time,
};
use super::{Component, page};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::conversation_message::MAX_BATCH;
use crate::wire::conversation_message::item::{
    MAX_CONTENT_BYTES, MAX_TAG_CHARS, MAX_TAGS, MAX_TAGS_RECEIVED, META_DATA,
};
use utoipa::openapi::{RefOr, Schema};

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ConversationMessage", message()),
        ("MessageContent", content()),
        (
            "ConversationMessageView",
            view("A message of a conversation. Members that were not given are `null`.").done(),
        ),
        (
            "ConversationMessageList",
            list("The messages, in the order in which they were sent.", named("ConversationMessageView")).into(),
        ),
        ("ConversationMessagePage", page("A page of a conversation's messages.", named("ConversationMessageView"))),
    ]
}

fn message() -> RefOr<Schema> {
    let several = list("Several messages, all or nothing; the response has the same order.", named("MessageContent"));
    Members::new("One or more messages to append to a conversation.")
        .must(
            "content",
            one_of("One message, or several.", [named("MessageContent"), several.least(1).longest(MAX_BATCH).into()]),
        )
        .may("conversation_id", text("The conversation; `null` or absent begins a new one.").nullable())
        .may(
            "enable_memories",
            boolean(
                "Whether memories are extracted from the messages after they are stored. The response never waits for \
                 that.",
            )
            .usually(false.into())
            .nullable(),
        )
        .done()
}

fn content() -> RefOr<Schema> {
    let words = format!(
        "At most {MAX_CONTENT_BYTES} bytes of UTF-8. May be empty, `null` or absent only with `tool_calls` or `attachments`."
    );
    let own = format!("A free object, at most {} bytes as compact JSON.", META_DATA.bytes);
    Members::new("A message of a conversation.")
        .may("content", text(&words).longest(MAX_CONTENT_BYTES).nullable())
        .may(
            "sender_id",
            text("The sender; default the key's principal, or the agent for the role `assistant`.")
                .longest(MAX_NAME_CHARS)
                .nullable(),
        )
        .may(
            "created_at",
            time("When an imported message was sent; at most 5 minutes ahead. Never used for order.").nullable(),
        )
        .may(
            "role",
            text(
                "`user`, `assistant`, `system`, `tool`, `developer`, or a custom role, which is never sent to a model.",
            )
            .pattern("^[a-z_]{1,32}$")
            .usually("user".into())
            .nullable(),
        )
        .may("message_type", text("The type of the message.").longest(64).usually("text".into()).nullable())
        .may(
            "tool_calls",
            list("Tool calls, stored as given. Only an assistant's are sent to a model.", free("")).nullable(),
        )
        .may(
            "parent_message_id",
            text(
                "The message of this conversation that it replies to; `#0`, `#1`, … name an earlier item of the same \
                 batch.",
            )
            .nullable(),
        )
        .may("tags", list(&tags_about(), text("").least(1)).longest(MAX_TAGS_RECEIVED).nullable())
        .may("meta_data", free(&own).nullable())
        .may(
            "attachments",
            list("Objects, stored as given. An object with `id` must name an upload of this workspace.", free(""))
                .nullable(),
        )
        .done()
}

/// Their character bounds apply after trimming, which a schema cannot express.
pub(super) fn tags_about() -> String {
    format!(
        "Tags to filter by: trimmed, without duplicates, in order; then at most {MAX_TAGS} of 1 to {MAX_TAG_CHARS} \
         characters each."
    )
}

/// The members of a message in answers.
pub(super) fn view(about: &str) -> Members {
    Members::new(about)
        .must("conversation_id", made_id("The conversation.", "conv_", 26))
        .must("sender_id", text("The sender."))
        .must("content", text("The content."))
        .must("workspace_id", text("The workspace."))
        .must("created_at", time("When it was sent."))
        .must("updated_at", time("When it was last changed.").nullable())
        .must("id", made_id("The message.", "msg_", 34))
        .must("role", text("The role: `user`, `assistant` and so on."))
        .must("tool_calls", list("As given.", free("")).nullable())
        .must("message_type", text("The type of the message."))
        .must("tags", set("As given.", text("")).nullable())
        .must(
            "checksum",
            text(
                "SHA-256 over the RFC 8785 form of `{role, sender_id, message_type, content, tool_calls, attachments, \
                 parent_message_id}`; in quotes it is the message's `ETag`.",
            )
            .pattern("^sha256:[0-9a-f]{64}$"),
        )
        .must(
            "attachments",
            list("As given, or the files of a message that arrived through a channel.", free("")).nullable(),
        )
        .must("parent_message_id", made_id("The message that it replies to.", "msg_", 34).nullable())
        .must("meta_data", free("As given; empty if not given."))
        .must("sent_at", time("When it was sent, according to its client."))
        .must("owner_id", text("The owner of the conversation.").nullable())
        .may("deleted", boolean("Whether its content was deleted; the message keeps its position."))
        .may("erased", boolean("Whether its content was erased with its contact."))
}
