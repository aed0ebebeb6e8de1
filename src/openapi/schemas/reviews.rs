//! Reviews in the inbox, changes of messages, and events.

use super::super::shape::{Bounded as _, Members, free, integer, list, made_id, named, text, time, word};
use super::channel_message::with_review;
use super::conversation_message::tags_about;
use super::{Component, page};
use crate::wire::bounds::METADATA;
use crate::wire::conversation_message::item::{MAX_CONTENT_BYTES, MAX_TAGS_RECEIVED};
use actors::webhook::EVENT_TYPES;
use utoipa::openapi::{RefOr, Schema};

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ReviewAnswer", answer()),
        ("InboxReview", inbox()),
        ("InboxReviewPage", page("A page of reviews.", named("InboxReview"))),
        ("MessageChange", change()),
        (
            "Receipt",
            Members::new("A delivery receipt of a message.")
                .must("status", word("The new status.", &["delivered", "read"]))
                .done(),
        ),
        ("Event", event()),
        ("EventPage", page("A page of events.", named("Event"))),
    ]
}

fn answer() -> RefOr<Schema> {
    Members::new("A response to a review.")
        .must(
            "response",
            free(
                "By the type of the review: approval `{selectedOption, comment?}`, selection `{selectedIds: []}`, form \
                 an object with a member for each field, text-input `{text}`, else any object. At most 65536 bytes as \
                 compact JSON. Must match `payload.responseSchema` where there is one.",
            ),
        )
        .may("feedback", text("A comment; at most 16384 bytes of UTF-8.").longest(16 * 1024).nullable())
        .done()
}

fn inbox() -> RefOr<Schema> {
    let members = Members::new("A review in the inbox.")
        .must("id", made_id("The review: its message's id.", "msg_", 34))
        .must("messageId", made_id("The message with the question.", "msg_", 34))
        .must("channelId", text("The channel.").nullable())
        .must("senderType", word("The type of the sender.", &["agent", "user"]))
        .must("senderId", text("The sender."))
        .must("createdAt", time("When it was requested."))
        .must("text", text("The message's text.").nullable());
    with_review(members).done()
}

fn change() -> RefOr<Schema> {
    let own = format!("A free object: at most {} bytes as compact JSON and {} levels.", METADATA.bytes, METADATA.depth);
    let words = |about: &str| text(about).longest(MAX_CONTENT_BYTES).nullable();
    Members::new("The members to change; absent ones stay as they are.")
        .may("text", words("The new text of a channel message, at most 65536 bytes of UTF-8; `null` removes it."))
        .may(
            "content",
            words("The new text of a conversation message, at most 262144 bytes of UTF-8; `null` empties it."),
        )
        .may("metadata", free(&own).nullable())
        .may("meta_data", free("`metadata` of a conversation message.").nullable())
        .may("tags", list(&tags_about(), text("").least(1)).longest(MAX_TAGS_RECEIVED).nullable())
        .done()
}

fn happening() -> RefOr<Schema> {
    let about = "The subject: the message as its API shows it, or ids and changes. A contact's own events belong to \
                 no conversation and name the contact instead. The members for each type are those of the webhook of \
                 that name.";
    Members::new(about)
        .may("conversationId", made_id("Its conversation.", "conv_", 26))
        .may("channelId", text("The channel of the conversation."))
        .may("contactId", made_id("The contact that the event is about.", "cont_", 26))
        .and_others()
        .done()
}

fn event() -> RefOr<Schema> {
    Members::new("An event; the same in lists, in streams and in webhooks.")
        .must("id", made_id("The event's id; in webhooks `webhook-id`.", "evt_", 34))
        .must("sequence", integer("Its position in its log, without gaps among the stored ones.", 1, None))
        .must("type", word("The type of the event.", &EVENT_TYPES))
        .must("timestamp", time("When."))
        .must("data", happening())
        .done()
}
