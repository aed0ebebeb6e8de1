//! Conversations and turns.

use utoipa::openapi::HttpMethod::{Get, Patch, Post};

use super::super::examples;
use super::super::operation::Op;
use super::super::shape::{named, word};
use super::{READ, WRITE, id};

const DATA: &[&str] = &["too_short", "too_long", "too_large", "too_deep"];

pub(super) fn operations() -> Vec<Op> {
    vec![open(), list(), get(), change(), start_turn(), get_turn(), cancel_turn()]
}

fn open() -> Op {
    let named_so = ("openConversation", "Open a conversation");
    Op::new(Post, "/api/v1/conversations", named_so, "Conversations", WRITE, "A conversation without messages yet.")
        .keyed()
        .body(named("ConversationNew"), "What is known of it.", &[examples::CONVERSATION])
        .answers(201, "It was opened.", named("Conversation"), &[])
        .with_headers(&["Location", "Idempotent-Replayed", "X-Ignored-Fields"])
        .refused(400, DATA)
}

fn list() -> Op {
    let named_so = ("listConversations", "List conversations");
    Op::new(
        Get,
        "/api/v1/conversations",
        named_so,
        "Conversations",
        READ,
        "Those of the workspace, in the order they began.",
    )
    .query("status", "Only those that are open, or closed.", word("", &["open", "closed"]))
    .paged()
    .answers(200, "A page of conversations.", named("ConversationPage"), &[])
    .with_headers(&["Link"])
}

fn get() -> Op {
    let named_so = ("getConversation", "Read a conversation");
    Op::new(Get, "/api/v1/conversations/{id}", named_so, "Conversations", READ, "A conversation as it is now.")
        .path("id", "The conversation.", id())
        .answers(200, "The conversation.", named("Conversation"), &[])
        .refused(404, &["conversation_not_found"])
}

fn change() -> Op {
    let about = "What is given changes. A closed conversation takes no messages.";
    Op::new(
        Patch,
        "/api/v1/conversations/{id}",
        ("changeConversation", "Change a conversation"),
        "Conversations",
        WRITE,
        about,
    )
    .path("id", "The conversation.", id())
    .body(named("ConversationChange"), "What is to change.", &[examples::CLOSE])
    .answers(200, "The conversation as it is now.", named("Conversation"), &[])
    .with_headers(&["X-Ignored-Fields"])
    .refused(400, DATA)
    .refused(400, &["invalid_enum"])
    .refused(404, &["conversation_not_found"])
    .refused(409, &["conversation_erased"])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["outcome_unknown"])
}

fn start_turn() -> Op {
    let about = "Lets an agent answer the conversation. The reply comes later: as messages of the conversation, and in \
                 the turn that `Location` names.";
    Op::new(Post, "/api/v1/conversations/{id}/turns", ("startTurn", "Let an agent answer"), "Turns", WRITE, about)
        .path("id", "The conversation.", id())
        .keyed()
        .body(named("TurnNew"), "Who shall answer.", &[examples::TURN])
        .answers(202, "The turn waits or runs.", named("Turn"), &[])
        .with_headers(&["Location", "Idempotent-Replayed", "X-Ignored-Fields"])
        .refused(400, &["agent_not_found", "too_short"])
        .refused(404, &["conversation_not_found"])
        .refused(409, &["conversation_closed", "turn_in_progress"])
        .refused(429, &["conversation_backlog"])
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
        .empty_body()
        .answers(200, "The turn as it is now.", named("Turn"), &[])
        .refused(404, &["turn_not_found"])
        .refused(409, &["turn_over"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["outcome_unknown"])
}
