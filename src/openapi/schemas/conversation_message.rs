//! Conversation messages, in snake_case.

use super::super::shape::{
    Bounded as _, Detailed as _, Members, boolean, free, list, made_id, named, one_of, set, text, time,
};
use super::{Component, page};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::conversation_message::MAX_BATCH;
use crate::wire::conversation_message::item::{MAX_CONTENT_BYTES, MAX_TAG_CHARS, MAX_TAGS, META_DATA};
use utoipa::openapi::{RefOr, Schema};

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ConversationMessage", message()),
        ("MessageContent", content()),
        ("ConversationMessageView", view("A message of a conversation. What was not given is `null`.").done()),
        (
            "ConversationMessageList",
            list("The messages, in the order they were sent.", named("ConversationMessageView")).into(),
        ),
        ("ConversationMessagePage", page("A page of a conversation's messages.", named("ConversationMessageView"))),
    ]
}

fn message() -> RefOr<Schema> {
    let several = list("Several, all or nothing; the answer has the same order.", named("MessageContent"));
    Members::new("One or more messages that are appended to a conversation.")
        .must(
            "content",
            one_of("The message, or several.", [named("MessageContent"), several.least(1).longest(MAX_BATCH).into()]),
        )
        .may("conversation_id", text("The conversation; `null` or absent asks for a new one.").nullable())
        .may(
            "enable_memories",
            boolean(
                "Whether memories are drawn from the messages once they are stored. The answer never waits for it.",
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
    let own = format!("An object of your own, at most {} bytes as compact JSON.", META_DATA.bytes);
    Members::new("A message of a conversation.")
        .may("content", text(&words).longest(MAX_CONTENT_BYTES).nullable())
        .may(
            "sender_id",
            text("Who says it; default the key's principal, or the agent for the role `assistant`.")
                .longest(MAX_NAME_CHARS)
                .nullable(),
        )
        .may(
            "created_at",
            time("When an imported message was sent; at most 5 minutes ahead. Never used for order.").nullable(),
        )
        .may(
            "role",
            text("`user`, `assistant`, `system`, `tool`, `developer`, or a word of your own, which no model ever sees.")
                .pattern("^[a-z_]{1,32}$")
                .usually("user".into())
                .nullable(),
        )
        .may("message_type", text("What kind of message it is.").longest(64).usually("text".into()).nullable())
        .may("tool_calls", list("Calls of tools, kept whole. Only an assistant's are shown to a model.", free("")).nullable())
        .may(
            "parent_message_id",
            text("The message of this conversation that it answers; `#0`, `#1`, … name an earlier item of the same batch.")
                .nullable(),
        )
        .may(
            "tags",
            list(&tags_about(), text("").least(1)).longest(MAX_TAGS).nullable(),
        )
        .may("meta_data", free(&own).nullable())
        .may(
            "attachments",
            list("Objects, kept as given. One with `id` must name an upload of this workspace.", free("")).nullable(),
        )
        .done()
}

/// The bounds of their characters hold for what is left of them, which a shape cannot say.
pub(super) fn tags_about() -> String {
    format!(
        "Words to find it by: at most {MAX_TAGS}, trimmed, equal ones once, order kept. Then 1 to {MAX_TAG_CHARS} \
         characters each."
    )
}

/// The members of a message as it is shown.
pub(super) fn view(about: &str) -> Members {
    Members::new(about)
        .must("conversation_id", made_id("The conversation.", "conv_", 26))
        .must("sender_id", text("Who says it."))
        .must("content", text("What it says."))
        .must("workspace_id", text("The workspace."))
        .must("created_at", time("When it was sent."))
        .must("updated_at", time("When it was changed.").nullable())
        .must("id", made_id("The message.", "msg_", 34))
        .must("role", text("Who speaks: `user`, `assistant` and so on."))
        .must("tool_calls", list("As they were given.", free("")).nullable())
        .must("message_type", text("What kind of message it is."))
        .must("tags", set("As they were given.", text("")).nullable())
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
            list("As they were given, or the files of a message that came in through a channel.", free("")).nullable(),
        )
        .must("parent_message_id", made_id("The message that it answers.", "msg_", 34).nullable())
        .must("meta_data", free("As it was given; empty where it was not."))
        .must("sent_at", time("When it was sent, by its client's word."))
        .must("owner_id", text("Who owns the conversation.").nullable())
        .may("deleted", boolean("Its content is gone; its place stays."))
        .may("erased", boolean("Its content went with its contact."))
}
