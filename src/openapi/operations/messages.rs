//! Messages.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{Detailed as _, any_of, boolean, named, one_of, text};
use super::{READ, WRITE, id};

/// Codes of a channel message's data.
const CHANNEL_DATA: &[&str] = &[
    "empty_message",
    "too_short",
    "too_long",
    "too_many",
    "too_few",
    "too_large",
    "too_deep",
    "invalid_enum",
    "invalid_url",
    "blocked_url",
    "forbidden_header",
    "invalid_datetime",
    "expiry_in_past",
    "expiry_too_far",
    "out_of_range",
    "duplicate_value",
    "invalid_schema",
    "attachment_not_found",
    "message_not_found",
    "channel_kind_mismatch",
];
/// Codes of a conversation message's data.
const CONVERSATION_DATA: &[&str] = &[
    "empty_batch",
    "batch_too_large",
    "too_short",
    "too_long",
    "too_many",
    "too_large",
    "too_deep",
    "invalid_role",
    "invalid_datetime",
    "parent_not_found",
    "attachment_not_found",
];
/// Codes of a contact message's data.
const CONTACT_DATA: &[&str] = &[
    "content_type_mismatch",
    "too_long",
    "invalid_enum",
    "invalid_url",
    "blocked_url",
    "channel_kind_mismatch",
    "media_unreachable",
    "media_timeout",
    "media_too_large",
    "media_type_mismatch",
];

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![send(), list(), get(), send_to_channel(), send_to_conversation(), list_of_conversation()]
}

fn send() -> OperationDoc {
    let about = "One path, two shapes. A body with `channelId` and no `content` is a message to a human channel; the \
                 response is 201 with one object. A body whose `content` is an object or an array, without \
                 `channelId`, is one or more messages of a conversation; the response is 200 with an array. The \
                 header `X-Message-Schema` overrides the choice.\n\nThe idempotency key belongs to the channel, to \
                 the conversation, or, for a new conversation, to the workspace.";
    let body =
        one_of("A channel message or conversation messages.", [named("ChannelMessage"), named("ConversationMessage")]);
    let bodies = [examples::NOTICE, examples::REVIEW, examples::SAID, examples::SAID_BATCH];
    OperationDoc::new(Post, "/api/v1/messages", ("sendMessage", "Send a message"), "Messages", WRITE, about)
        .shared("XMessageSchema")
        .keyed()
        .body(body, "The members that are present decide the shape.", &bodies)
        .answers(
            200,
            "The messages of a conversation were appended.",
            named("ConversationMessageList"),
            &[examples::SAID_VIEW],
        )
        .with_headers(&["Idempotent-Replayed"])
        .answers(201, "The channel message was sent.", named("ChannelMessageView"), &[examples::REVIEW_VIEW])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["ambiguous_message_shape", "unknown_message_shape"])
        .refused(400, CHANNEL_DATA)
        .refused(400, CONVERSATION_DATA)
        .refused(404, &["channel_not_found", "conversation_not_found"])
        .refused(409, &["channel_disabled", "conversation_closed", "attachment_already_linked"])
        .refused(429, &["conversation_backlog"])
}

fn send_to_channel() -> OperationDoc {
    let about = "On a channel of kind `api`, a contact's message: the contact is created or found, the message is \
                 appended to the open conversation of contact and channel, the channel's agent takes its turn, and \
                 the same call returns the reply. If the agent takes longer than the wait budget, or `Prefer` asks \
                 for it, the response is 202 with `Location`; the reply is stored, and a retry with the same key \
                 joins the same turn. Human hand-off is not available on api channels.\n\nOn a channel of kind \
                 `human`, a channel message, as on `POST /messages`.\n\nThe idempotency key belongs to the channel \
                 and the contact, or to the channel.";
    // A channel message may have any member, so a contact's message is of its shape too.
    let body = any_of(
        "A contact's message on an api channel, a channel message on a human channel.",
        [named("ContactMessage"), named("ChannelMessageOnChannel")],
    );
    let bodies: Vec<_> = examples::CONTACT.into_iter().chain([examples::NOTICE]).collect();
    OperationDoc::new(
        Post,
        "/api/v1/channels/{channelId}/messages",
        ("sendChannelMessage", "Send a message to a channel and get the agent's reply"),
        "Contact messages",
        WRITE,
        about,
    )
    .says_success()
    .path("channelId", "The channel.", id())
    .shared("Prefer")
    .keyed()
    .body(body, "The kind of the channel decides the shape.", &bodies)
    .answers(200, "The agent has answered.", named("ContactAnswer"), &[examples::CONTACT_ANSWER])
    .with_headers(&["Idempotent-Replayed", "Preference-Applied"])
    .answers(201, "The channel message was sent.", named("ChannelMessageView"), &[examples::REVIEW_VIEW])
    .with_headers(&["Location", "Idempotent-Replayed"])
    .answers(
        202,
        "The message is stored, and the agent has not answered yet.",
        named("ContactAnswer"),
        &[examples::CONTACT_WAITING],
    )
    .with_headers(&["Location", "Preference-Applied"])
    .refused(400, CONTACT_DATA)
    .refused(400, CHANNEL_DATA)
    .refused(400, &["channel_id_mismatch"])
    .refused(404, &["channel_not_found"])
    .refused(
        409,
        &[
            "channel_disabled",
            "channel_has_no_agent",
            "conversation_closed",
            "conversation_erased",
            "turn_in_progress",
            "attachment_already_linked",
        ],
    )
    .refused(429, &["agent_backlog", "conversation_backlog"])
    .refused(500, &["agent_failed"])
}

fn send_to_conversation() -> OperationDoc {
    OperationDoc::new(
        Post,
        "/api/v1/conversations/{id}/messages",
        ("appendMessages", "Append messages to a conversation"),
        "Messages",
        WRITE,
        "The same as conversation messages on `POST /messages`, to the conversation in the path.",
    )
    .path("id", "The conversation.", id())
    .keyed()
    .body(named("ConversationMessage"), "One or more messages.", &[examples::SAID])
    .answers(200, "The messages were appended.", named("ConversationMessageList"), &[examples::SAID_VIEW])
    .with_headers(&["Idempotent-Replayed"])
    .refused(400, CONVERSATION_DATA)
    .refused(400, &["conversation_id_mismatch"])
    .refused(404, &["conversation_not_found"])
    .refused(409, &["conversation_closed"])
    .refused(429, &["conversation_backlog"])
}

/// The filters of a list of messages.
fn filtered(op: OperationDoc) -> OperationDoc {
    op.query(
        "search",
        "Only messages whose text has each of these words, and each phrase in quotation marks, in any case.",
        text(""),
    )
    .query("senderId", "Only messages from this sender.", text(""))
    .query("role", "Only messages with this role.", text(""))
    .query("messageType", "Only messages with this `message_type`; messages of channels are `text`.", text(""))
    .query("tag", "Only messages with this tag.", text(""))
    .query("hasAttachments", "Only messages with files, or only those without.", boolean(""))
    .paged()
}

fn list() -> OperationDoc {
    let op = OperationDoc::new(
        Get,
        "/api/v1/messages",
        ("listMessages", "List messages"),
        "Messages",
        READ,
        "The messages of a channel in the shape of channel messages, or those of a conversation in the shape of \
         conversation messages, by sequence. Exactly one of `channelId` and `conversationId` is required. A filter \
         that matches little may return a short page that still has a cursor.",
    )
    .query("channelId", "A human channel.", text("").like("demo"))
    .query("conversationId", "A conversation.", text(""));
    filtered(op)
        .answers(
            200,
            "A page of messages.",
            any_of(
                "The shape depends on the given parameter.",
                [named("ChannelMessagePage"), named("ConversationMessagePage")],
            ),
            &[],
        )
        .with_headers(&["Link"])
        .refused(400, &["required", "channel_kind_mismatch"])
        .refused(404, &["channel_not_found", "conversation_not_found"])
}

fn list_of_conversation() -> OperationDoc {
    let op = OperationDoc::new(
        Get,
        "/api/v1/conversations/{id}/messages",
        ("listConversationMessages", "List a conversation's messages"),
        "Messages",
        READ,
        "The messages of a conversation, by sequence.",
    )
    .path("id", "The conversation.", id());
    filtered(op)
        .answers(200, "A page of messages.", named("ConversationMessagePage"), &[])
        .with_headers(&["Link"])
        .refused(404, &["conversation_not_found"])
}

fn get() -> OperationDoc {
    OperationDoc::new(
        Get,
        "/api/v1/messages/{id}",
        ("getMessage", "Read a message"),
        "Messages",
        READ,
        "The current state of the message, in the shape of its API.",
    )
    .path("id", "The message.", id())
    .answers(
        200,
        "The message.",
        one_of(
            "The shape depends on where the message was sent.",
            [named("ChannelMessageView"), named("ConversationMessageView")],
        ),
        &[examples::REVIEW_VIEW],
    )
    .with_headers(&["ETag"])
    .unless_known()
    .refused(404, &["message_not_found"])
}
