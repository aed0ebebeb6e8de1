//! Conversations, contacts and turns.

use super::super::shape::{
    Bounded as _, Members, boolean, component, date, free, integer, list, made_id, named, number, one_of, text, time,
    word,
};
use super::contact_message::nullable_usage;
use super::{Component, page};
use crate::http::contacts::save::MAX_CONTACTS;
use crate::wire::bounds::MAX_NAME_CHARS;
use utoipa::openapi::{Object, RefOr, Schema, Type};

/// The statuses of a turn.
pub(super) const TURN_STATUSES: [&str; 6] =
    ["queued", "running", "awaiting_review", "completed", "failed", "cancelled"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        (
            "ConversationNew",
            details("The conversation to open.")
                .may("status", word("The initial status.", &["open"]).nullable())
                .done(),
        ),
        (
            "ConversationChange",
            details("The members to change; absent ones stay as they are, `null` removes one.")
                .may("status", word("Open or closed.", &["open", "closed"]).nullable())
                .done(),
        ),
        (
            "Fork",
            Members::new("The end of a copy.")
                .may(
                    "atMessageId",
                    text("The last message to copy; default the newest.").least(1).longest(MAX_NAME_CHARS).nullable(),
                )
                .done(),
        ),
        ("Conversation", conversation()),
        ("ConversationPage", page("A page of conversations.", named("Conversation"))),
        ("ContactNew", contact_new()),
        (
            "ContactsNew",
            Members::new("Contacts to create or find.")
                .must(
                    "contacts",
                    list("The contacts to create or find.", named("ContactNew")).least(1).longest(MAX_CONTACTS),
                )
                .done(),
        ),
        ("ContactSaved", contact_members().must("created", boolean("Whether the contact is new.")).done()),
        (
            "ContactsSaved",
            Members::new("Contacts that were created or found.")
                .must("data", list("In the order of the request.", named("ContactSaved")))
                .done(),
        ),
        ("ContactChange", contact_change()),
        ("Contact", contact_members().done()),
        ("ContactPage", page("A page of contacts.", named("Contact"))),
        ("TurnNew", Members::new("The agent to answer.").must("agentId", text("The agent.").least(1)).done()),
        ("Turn", turn()),
        ("UsageOfDays", usage_of_days()),
    ]
}

fn details(about: &str) -> Members {
    Members::new(about)
        .may("title", text("Human-readable title.").longest(MAX_NAME_CHARS).nullable())
        .may("summary", text("The topic; at most 16384 bytes of UTF-8.").longest(16 * 1024).nullable())
        .may("ownerId", text("The owner.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("metadata", free("A free object: at most 16384 bytes as compact JSON and 8 levels.").nullable())
}

fn conversation() -> RefOr<Schema> {
    Members::new("A conversation.")
        .must("id", made_id("The conversation.", "conv_", 26))
        .must("title", text("Human-readable title.").nullable())
        .must("status", word("Its status.", &["open", "closed"]))
        .must("summary", text("The topic.").nullable())
        .must("metadata", free("As given.").nullable())
        .must("ownerId", text("The owner.").nullable())
        .must("channelId", text("Its channel.").nullable())
        .must("contactId", made_id("Its contact.", "cont_", 26).nullable())
        .must("createdAt", time("When it was opened."))
        .must("updatedAt", time("When it last changed."))
        .must("lastMessageAt", time("When its newest message was accepted.").nullable())
        .must("messageCount", integer("The number of messages.", 0, None))
        .must("forkedFrom", made_id("The conversation that it is a copy of.", "conv_", 26).nullable())
        .done()
}

fn contact_change() -> RefOr<Schema> {
    Members::new("The members to change; absent ones stay as they are, `null` removes one.")
        .may("name", text("The contact's name.").longest(MAX_NAME_CHARS).nullable())
        .done()
}

fn contact_new() -> RefOr<Schema> {
    Members::new("The contact to create or find.")
        .must(
            "identifier",
            text(&format!(
                "The identifier: trimmed, then 1 to {MAX_NAME_CHARS} characters; e-mail addresses are compared \
                 without case."
            ))
            .least(1),
        )
        .may("name", text("The contact's name; if absent, it stays as it is.").longest(MAX_NAME_CHARS).nullable())
        .done()
}

fn contact_members() -> Members {
    Members::new("A person who writes to api channels.")
        .must("id", made_id("The contact.", "cont_", 26))
        .must("identifier", text("The identifier as first given."))
        .must("name", text("The contact's name.").nullable())
        .must("createdAt", time("When the contact was created, by its first message or by a request."))
        .must("updatedAt", time("When the contact was last changed."))
}

fn turn() -> RefOr<Schema> {
    let error = Members::new("The error.")
        .must("code", text("The code, for programs."))
        .must("detail", text("A description, for people."))
        .done();
    Members::new("An agent's turn in a conversation, from the request to its end.")
        .must("id", made_id("The turn.", "turn_", 34))
        .must("conversationId", made_id("The conversation.", "conv_", 26))
        .must("agentId", text("The agent."))
        .must("status", component("TurnStatus", "Its status."))
        .must("attempt", integer("The number of the attempt; a retry is a new attempt.", 0, None))
        .must("triggerMessageId", made_id("The message that it answers.", "msg_", 34).nullable())
        .must("createdAt", time("When it was requested."))
        .must("startedAt", time("When it began.").nullable())
        .must("endedAt", time("When it ended.").nullable())
        .must("aiMessages", list("The agent's reply, as in the answer to a contact's message.", named("AgentMessage")))
        .must("usage", nullable_usage())
        .must("error", one_of("Why it failed.", [error, Object::with_type(Type::Null).into()]))
        .must("waitsFor", list("The reviews that it waits for, while it is `awaiting_review`.", wait()))
        .done()
}

fn wait() -> RefOr<Schema> {
    Members::new("A review that a turn waits for.")
        .must("callId", text("The model's call that asked for it."))
        .must("reviewId", made_id("The review.", "msg_", 34))
        .must("channelId", text("The channel whose people are asked."))
        .must("expiresAt", time("The deadline for responses."))
        .done()
}

fn sum(members: Members) -> Members {
    members
        .must("turns", integer("Completed turns.", 0, None))
        .must("modelCalls", integer("Model calls.", 0, None))
        .must("inputTokens", integer("Tokens read.", 0, None))
        .must("outputTokens", integer("Tokens written.", 0, None))
        .must("credits", number("The cost by the agents' prices.", 0, None))
}

fn usage_of_days() -> RefOr<Schema> {
    let agent = sum(Members::new("The usage of one agent.").must("agentId", text("The agent."))).done();
    let day = sum(Members::new("A day.").must("date", date("The day, in UTC.")))
        .must("agents", list("By agent.", agent))
        .done();
    Members::new("The usage of models.")
        .must("from", date("The first day of the report."))
        .must("to", date("The last day of the report."))
        .must("data", list("Days with usage, earliest first.", day))
        .must("total", sum(Members::new("The total.")).done())
        .done()
}
