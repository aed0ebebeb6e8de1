//! Conversations and turns.

use utoipa::openapi::HttpMethod::{Get, Patch, Post};

use super::super::examples;
use super::super::operation::Op;
use super::super::shape::{date, named, text, word};
use super::{LOOK, READ, WRITE, id};

const DATA: &[&str] = &["too_short", "too_long", "too_large", "too_deep"];

pub(super) fn operations() -> Vec<Op> {
    vec![open(), list(), get(), change(), fork(), start_turn(), get_turn(), cancel_turn(), get_usage()]
}

fn open() -> Op {
    let named_so = ("openConversation", "Open a conversation");
    Op::new(Post, "/api/v1/conversations", named_so, "Conversations", WRITE, "A conversation without messages yet.")
        .keyed()
        .optional_body(named("ConversationNew"), "What is known of it; may be left out.", &[examples::CONVERSATION])
        .answers(201, "It was opened.", named("Conversation"), &[])
        .with_headers(&["ETag", "Location", "Idempotent-Replayed"])
        .refused(400, DATA)
        .refused(400, &["invalid_enum"])
}

fn list() -> Op {
    let about = "Those of the workspace, in the order they began. Filters narrow it together; an id that nothing has \
                 shows none.";
    let named_so = ("listConversations", "List conversations");
    Op::new(Get, "/api/v1/conversations", named_so, "Conversations", READ, about)
        .query("status", "Only those that are open, or closed.", word("", &["open", "closed"]))
        .query("ownerId", "Only those of this owner.", text(""))
        .query("channelId", "Only those on this api channel.", text(""))
        .query("contactId", "Only those with this contact.", text(""))
        .paged()
        .answers(200, "A page of conversations.", named("ConversationPage"), &[])
        .with_headers(&["Link"])
}

fn get() -> Op {
    let named_so = ("getConversation", "Read a conversation");
    Op::new(Get, "/api/v1/conversations/{id}", named_so, "Conversations", READ, "A conversation as it is now.")
        .path("id", "The conversation.", id())
        .answers(200, "The conversation.", named("Conversation"), &[])
        .with_headers(&["ETag"])
        .unless_known()
        .refused(404, &["conversation_not_found"])
}

fn change() -> Op {
    let about = "What is given changes. A closed conversation takes no messages; a human channel's own stays open. With \
                 `If-Match` only where it still is as the tag says; messages do not change that tag.";
    Op::new(
        Patch,
        "/api/v1/conversations/{id}",
        ("changeConversation", "Change a conversation"),
        "Conversations",
        WRITE,
        about,
    )
    .path("id", "The conversation.", id())
    .shared("IfMatch")
    .body(named("ConversationChange"), "What is to change.", &[examples::CLOSE])
    .answers(200, "The conversation as it is now.", named("Conversation"), &[])
    .with_headers(&["ETag"])
    .refused(400, DATA)
    .refused(400, &["invalid_enum", "invalid_header"])
    .refused(404, &["conversation_not_found"])
    .refused(409, &["conversation_erased", "conversation_not_closable"])
    .refused(412, &["precondition_failed"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["outcome_unknown"])
}

fn fork() -> Op {
    let about = "A new, open conversation that begins with copies of the messages of this one, up to and with `atMessageId`, or \
                 all of them; in their order, as they are now, with their times and with their parents among the copies. \
                 What was deleted is left out. Reviews and webhooks stay with the originals.";
    let named_so = ("forkConversation", "Copy a conversation");
    Op::new(Post, "/api/v1/conversations/{id}/fork", named_so, "Conversations", WRITE, about)
        .path("id", "The conversation.", id())
        .keyed()
        .shared("Prefer")
        .optional_body(named("Fork"), "Where it ends; may be left out.", &[examples::FORK])
        .answers(201, "The copy is complete.", named("Conversation"), &[])
        .with_headers(&["ETag", "Location", "Idempotent-Replayed"])
        .answers(202, "A long conversation is still being copied, and will be.", named("Conversation"), &[])
        .with_headers(&["ETag", "Location"])
        .refused(400, &["too_short", "too_long"])
        .refused(404, &["conversation_not_found", "message_not_found"])
        .refused(409, &["conversation_erased"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended"])
}

fn start_turn() -> Op {
    let about = "Lets an agent answer the conversation. The reply comes later: as messages of the conversation, and in \
                 the turn that `Location` names.";
    Op::new(Post, "/api/v1/conversations/{id}/turns", ("startTurn", "Let an agent answer"), "Turns", WRITE, about)
        .path("id", "The conversation.", id())
        .keyed()
        .body(named("TurnNew"), "Who shall answer.", &[examples::TURN])
        .answers(202, "The turn waits or runs.", named("Turn"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .answers(200, "It was asked for before, by a request with the same key, and is over.", named("Turn"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["agent_not_found", "too_short"])
        .refused(404, &["conversation_not_found"])
        .refused(409, &["conversation_closed"])
        .refused(429, &["agent_backlog", "conversation_backlog"])
}

fn get_turn() -> Op {
    Op::new(
        Get,
        "/api/v1/turns/{id}",
        ("getTurn", "Read a turn"),
        "Turns",
        READ,
        "How a turn stands, with its messages.",
    )
    .path("id", "The turn.", id())
    .answers(200, "The turn.", named("Turn"), &[])
    .refused(404, &["turn_not_found"])
}

fn cancel_turn() -> Op {
    let about = "Ends a turn that is not over; a call of a model that runs is given up.";
    Op::new(Post, "/api/v1/turns/{id}/cancel", ("cancelTurn", "Cancel a turn"), "Turns", WRITE, about)
        .path("id", "The turn.", id())
        .keyed()
        .empty_body()
        .answers(200, "The turn as it is now.", named("Turn"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(404, &["turn_not_found"])
        .refused(409, &["turn_over"])
        .refused(429, &["conversation_backlog"])
}

fn get_usage() -> Op {
    let about = "Turns by day and agent, and tokens and credits of all calls of models. A call counts on the day on \
                 which its answer was kept; those that draw memories are in it and belong to no turn.";
    Op::new(Get, "/api/v1/usage", ("getUsage", "What models have used"), "Turns", LOOK, about)
        .query("from", "The first day, as `2025-01-31`, in UTC; default 29 days before `to`.", date(""))
        .query("to", "The last day, at most 365 after `from`; default today.", date(""))
        .answers(200, "Days with use, and all of it.", named("UsageOfDays"), &[])
        .refused(400, &["invalid_datetime", "out_of_range"])
}
