//! Conversations and turns.

use utoipa::openapi::HttpMethod::{Get, Patch, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{date, named, text, word};
use super::{LOOK, READ, WRITE, id};

const DATA: &[&str] = &["too_short", "too_long", "too_large", "too_deep"];

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![open(), list(), get(), change(), fork(), start_turn(), get_turn(), cancel_turn(), get_usage()]
}

fn open() -> OperationDoc {
    let named_so = ("openConversation", "Open a conversation");
    OperationDoc::new(
        Post,
        "/api/v1/conversations",
        named_so,
        "Conversations",
        WRITE,
        "Opens a conversation without messages.",
    )
    .keyed()
    .optional_body(named("ConversationNew"), "The conversation's members; optional.", &[examples::CONVERSATION])
    .answers(201, "The new conversation.", named("Conversation"), &[])
    .with_headers(&["ETag", "Location", "Idempotent-Replayed"])
    .refused(400, DATA)
    .refused(400, &["invalid_enum"])
    .refused(429, &["conversation_backlog"])
}

fn list() -> OperationDoc {
    let about = "The conversations of the workspace, in the order in which they began. Filters can be combined; an \
                 unknown id matches none.";
    let named_so = ("listConversations", "List conversations");
    OperationDoc::new(Get, "/api/v1/conversations", named_so, "Conversations", READ, about)
        .query("status", "Only open or only closed conversations.", word("", &["open", "closed"]))
        .query("ownerId", "Only conversations of this owner.", text(""))
        .query("channelId", "Only conversations on this api channel.", text(""))
        .query("contactId", "Only conversations with this contact.", text(""))
        .paged()
        .answers(200, "A page of conversations.", named("ConversationPage"), &[])
        .with_headers(&["Link"])
}

fn get() -> OperationDoc {
    let named_so = ("getConversation", "Read a conversation");
    OperationDoc::new(Get, "/api/v1/conversations/{id}", named_so, "Conversations", READ, "The current state.")
        .path("id", "The conversation.", id())
        .answers(200, "The conversation.", named("Conversation"), &[])
        .with_headers(&["ETag"])
        .unless_known()
        .refused(404, &["conversation_not_found"])
}

fn change() -> OperationDoc {
    let about = "Changes the given members. A closed conversation accepts no messages; a human channel's own \
                 conversation stays open. With `If-Match`, only if the conversation still has that version; messages \
                 do not change its tag.";
    OperationDoc::new(
        Patch,
        "/api/v1/conversations/{id}",
        ("changeConversation", "Change a conversation"),
        "Conversations",
        WRITE,
        about,
    )
    .path("id", "The conversation.", id())
    .shared("IfMatch")
    .body(named("ConversationChange"), "The members to change.", &[examples::CLOSE])
    .answers(200, "The changed conversation.", named("Conversation"), &[])
    .with_headers(&["ETag"])
    .refused(400, DATA)
    .refused(400, &["invalid_enum", "invalid_header"])
    .refused(404, &["conversation_not_found"])
    .refused(409, &["conversation_erased", "conversation_not_closable"])
    .refused(412, &["precondition_failed"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["outcome_unknown"])
}

fn fork() -> OperationDoc {
    let about = "Creates an open conversation that begins with copies of the messages of this one, up to and \
                 including `atMessageId`, or of all of them: in their order and current state, with their times, and \
                 with their parents among the copies. Deleted messages are left out, except that where messages \
                 name parents a deleted one without a parent stays, marked deleted. Reviews and webhooks stay with the \
                 originals.";
    let named_so = ("forkConversation", "Copy a conversation");
    OperationDoc::new(Post, "/api/v1/conversations/{id}/fork", named_so, "Conversations", WRITE, about)
        .path("id", "The conversation.", id())
        .keyed()
        .shared("Prefer")
        .optional_body(named("Fork"), "The last message to copy; optional.", &[examples::FORK])
        .answers(201, "The copy is complete.", named("Conversation"), &[])
        .with_headers(&["ETag", "Location", "Idempotent-Replayed"])
        .answers(202, "The copy of a long conversation continues in the background.", named("Conversation"), &[])
        .with_headers(&["ETag", "Location"])
        .refused(400, &["too_short", "too_long"])
        .refused(404, &["conversation_not_found", "message_not_found"])
        .refused(409, &["conversation_erased"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended"])
}

fn start_turn() -> OperationDoc {
    let about = "Starts an agent's turn in the conversation. The reply comes later: as messages of the conversation, \
                 and in the turn that `Location` names. With `Prefer: wait=N` the same call returns the turn once it \
                 has ended, if that takes no longer than N seconds.";
    OperationDoc::new(
        Post,
        "/api/v1/conversations/{id}/turns",
        ("startTurn", "Let an agent answer"),
        "Turns",
        WRITE,
        about,
    )
    .path("id", "The conversation.", id())
    .shared("Prefer")
    .keyed()
    .body(named("TurnNew"), "The agent.", &[examples::TURN])
    .answers(202, "The turn is waiting or running. A retry gets the turn as it is then.", named("Turn"), &[])
    .with_headers(&["Location", "Preference-Applied"])
    .answers(
        200,
        "The turn has ended, while the request waited or since an earlier request with the same key started it.",
        named("Turn"),
        &[],
    )
    .with_headers(&["Location", "Idempotent-Replayed", "Preference-Applied"])
    .refused(400, &["agent_not_found", "too_short"])
    .refused(404, &["conversation_not_found"])
    .refused(409, &["conversation_closed"])
    .refused(429, &["agent_backlog", "conversation_backlog"])
}

fn get_turn() -> OperationDoc {
    OperationDoc::new(
        Get,
        "/api/v1/turns/{id}",
        ("getTurn", "Read a turn"),
        "Turns",
        READ,
        "The turn's status and messages.",
    )
    .path("id", "The turn.", id())
    .answers(200, "The turn.", named("Turn"), &[])
    .refused(404, &["turn_not_found"])
}

fn cancel_turn() -> OperationDoc {
    let about = "Cancels a turn that has not ended; a running model call is abandoned.";
    OperationDoc::new(Post, "/api/v1/turns/{id}/cancel", ("cancelTurn", "Cancel a turn"), "Turns", WRITE, about)
        .path("id", "The turn.", id())
        .keyed()
        .empty_body()
        .answers(200, "The cancelled turn.", named("Turn"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(404, &["turn_not_found"])
        .refused(409, &["turn_over"])
        .refused(429, &["conversation_backlog"])
}

fn get_usage() -> OperationDoc {
    let about = "Turns by day and agent, and tokens and credits of all model calls. A call counts on the day on which \
                 its response was stored; calls that extract memories are included and belong to no turn.";
    OperationDoc::new(Get, "/api/v1/usage", ("getUsage", "Read model usage"), "Turns", LOOK, about)
        .query("from", "The first day, as `2025-01-31`, in UTC; default 29 days before `to`.", date(""))
        .query("to", "The last day, at most 365 after `from`; default today.", date(""))
        .answers(200, "The days with usage, and the total.", named("UsageOfDays"), &[])
        .refused(400, &["invalid_datetime", "out_of_range"])
}
