//! Changes of messages, and the event log.

use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{Bounded as _, any_of, boolean, integer, named, one_of, text};
use super::{READ, WRITE, id};

pub(super) fn messages() -> Vec<OperationDoc> {
    vec![edit(), delete(), iterations(), acknowledge()]
}

pub(super) fn events() -> Vec<OperationDoc> {
    vec![
        log(
            "/api/v1/conversations/{id}/events",
            ("listConversationEvents", "Follow a conversation"),
            "conversation_not_found",
        ),
        log("/api/v1/channels/{id}/events", ("listChannelEvents", "Follow a human channel"), "channel_not_found")
            .refused(400, &["channel_kind_mismatch"]),
    ]
}

fn view() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    one_of(
        "The shape depends on where the message was sent.",
        [named("ChannelMessageView"), named("ConversationMessageView")],
    )
}

fn edit() -> OperationDoc {
    let about = "Changes the given members. With `If-Match`, only if the message still has that version.";
    OperationDoc::new(Patch, "/api/v1/messages/{id}", ("changeMessage", "Change a message"), "Messages", WRITE, about)
        .path("id", "The message.", id())
        .shared("IfMatch")
        .body(named("MessageChange"), "The members to change.", &[examples::EDIT])
        .answers(200, "The changed message.", view(), &[])
        .with_headers(&["ETag"])
        .refused(
            400,
            &[
                "invalid_header",
                "empty_message",
                "required",
                "too_short",
                "too_long",
                "too_many",
                "too_large",
                "too_deep",
            ],
        )
        .refused(404, &["message_not_found"])
        .refused(409, &["message_deleted"])
        .refused(412, &["precondition_failed"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}

fn delete() -> OperationDoc {
    let about = "Deletes the content; the message keeps its position in the conversation.";
    OperationDoc::new(Delete, "/api/v1/messages/{id}", ("deleteMessage", "Delete a message"), "Messages", WRITE, about)
        .path("id", "The message.", id())
        .shared("IfMatch")
        .answers_nothing(204, "The content is deleted.")
        .refused(400, &["invalid_header"])
        .refused(404, &["message_not_found"])
        .refused(412, &["precondition_failed"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}

fn iterations() -> OperationDoc {
    let about = "The chain of revisions that the message belongs to, oldest first: the message, what it revises, and \
                 all revisions of these. At most 1,000 revised messages and 1,000 other revisions, the nearest ones.";
    OperationDoc::new(
        Get,
        "/api/v1/messages/{id}/iterations",
        ("listIterations", "List a message's revisions"),
        "Messages",
        READ,
        about,
    )
    .path("id", "A message of the chain.", id())
    .paged()
    .answers(
        200,
        "A page of the chain.",
        any_of(
            "The shape depends on where the messages were sent.",
            [named("ChannelMessagePage"), named("ConversationMessagePage")],
        ),
        &[],
    )
    .with_headers(&["Link"])
    .refused(404, &["message_not_found"])
}

fn acknowledge() -> OperationDoc {
    let about = "Marks a message as delivered or read.";
    OperationDoc::new(
        Post,
        "/api/v1/messages/{id}/ack",
        ("acknowledgeMessage", "Acknowledge a message"),
        "Messages",
        WRITE,
        about,
    )
    .path("id", "The message.", id())
    .keyed()
    .body(named("Receipt"), "The new status.", &[examples::RECEIPT])
    .answers(200, "The changed message.", view(), &[])
    .with_headers(&["ETag", "Idempotent-Replayed"])
    .refused(400, &["invalid_enum"])
    .refused(404, &["message_not_found"])
    .refused(409, &["message_deleted"])
    .refused(429, &["conversation_backlog"])
}

fn log(path: &'static str, named_so: (&'static str, &'static str), unknown: &'static str) -> OperationDoc {
    let about = "A page of events, by sequence. With `Accept: text/event-stream` the same as a live stream, unless \
                 JSON has a higher weight there: each event has its sequence as `id:`, the stream continues after \
                 `Last-Event-ID` or `after`, and without either it begins at the live end. Comments keep the \
                 connection alive; a stream ends when the server stops, and within 15 seconds after its key was \
                 revoked or its channel deleted. With `deltas=true`, `turn.delta` arrives between the events: pieces \
                 of an agent's answer in progress, `{turnId, attempt, message, chunk, text}`. They are not events and \
                 have no `id`; the reply itself arrives as an event.";
    OperationDoc::new(Get, path, named_so, "Events", READ, about)
        .path("id", "The conversation or channel.", id())
        .shared("LastEventId")
        .query("after", "Only events after this sequence.", integer("", 0, None))
        .query("deltas", "Whether a stream includes `turn.delta`; default false.", boolean(""))
        .paged()
        .answers(200, "A page of events, or a stream of them.", named("EventPage"), &[])
        .also("text/event-stream", text("Events as server-sent events.").least(0).into())
        .with_headers(&["Link", "Vary", "X-Accel-Buffering"])
        .refused(404, &[unknown])
}
