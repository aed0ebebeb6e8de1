//! Reviews in the inbox, changes of messages, and events.

use super::super::shape::{Bounded as _, Members, free, integer, list, made_id, named, text, time, word};
use super::channel_message::with_review;
use super::conversation_message::tags_about;
use super::{Component, page};
use crate::wire::bounds::METADATA;
use crate::wire::conversation_message::item::{MAX_CONTENT_BYTES, MAX_TAGS};
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
            Members::new("What became of a message.")
                .must("status", word("How far it came.", &["delivered", "read"]))
                .done(),
        ),
        ("Event", event()),
        ("EventPage", page("A page of events.", named("Event"))),
    ]
}

fn answer() -> RefOr<Schema> {
    Members::new("An answer to a review.")
        .must(
            "response",
            free(
                "By the type of the review: approval `{selectedOption, comment?}`, selection `{selectedIds: []}`, form \
                 an object with a member for each field, text-input `{text}`, else any object. At most 65536 bytes as \
                 compact JSON. Must match `payload.responseSchema` where there is one.",
            ),
        )
        .may("feedback", text("Words beside it; at most 16384 bytes of UTF-8.").longest(16 * 1024).nullable())
        .done()
}

fn inbox() -> RefOr<Schema> {
    let members = Members::new("A review as whoever answers it sees it.")
        .must("id", made_id("The review: its message's id.", "msg_", 34))
        .must("messageId", made_id("The message that asks.", "msg_", 34))
        .must("channelId", text("The channel.").nullable())
        .must("senderType", word("Who asks.", &["agent", "user"]))
        .must("senderId", text("Who asks."))
        .must("createdAt", time("When it was asked."))
        .must("text", text("The message's words.").nullable());
    with_review(members).done()
}

fn change() -> RefOr<Schema> {
    let own = format!(
        "An object of your own: at most {} bytes as compact JSON and {} levels.",
        METADATA.bytes, METADATA.depth
    );
    let words = |about: &str| text(about).longest(MAX_CONTENT_BYTES).nullable();
    Members::new("What is to change; what is absent stays.")
        .may("text", words("New words, in channel messages; there at most 65536 bytes of UTF-8."))
        .may("content", words("The same under its name in conversation messages; at most 262144 bytes of UTF-8."))
        .may("metadata", free(&own).nullable())
        .may("meta_data", free("The same under its name in conversation messages.").nullable())
        .may("tags", list(&tags_about(), text("").least(1)).longest(MAX_TAGS).nullable())
        .done()
}

fn happening() -> RefOr<Schema> {
    let about = "What it is about: the message as its API shows it, or ids and what changed. A contact's own events are of \
                 no conversation and name the contact instead. Its members for each type are those of the webhook of that \
                 name.";
    Members::new(about)
        .may("conversationId", made_id("The conversation that it is of.", "conv_", 26))
        .may("channelId", text("The channel that the conversation belongs to."))
        .may("contactId", made_id("The contact that it is about.", "cont_", 26))
        .and_others()
        .done()
}

fn event() -> RefOr<Schema> {
    Members::new("Something that happened; the same in lists, in streams and in webhooks.")
        .must("id", made_id("The event; in webhooks `webhook-id`.", "evt_", 34))
        .must("sequence", integer("Its place in its log, without gaps among what is kept.", 1, None))
        .must("type", word("What happened.", &EVENT_TYPES))
        .must("timestamp", time("When."))
        .must("data", happening())
        .done()
}
