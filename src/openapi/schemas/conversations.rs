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

/// How a turn can stand.
pub(super) const TURN_STATUSES: [&str; 6] =
    ["queued", "running", "awaiting_review", "completed", "failed", "cancelled"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        (
            "ConversationNew",
            details("A conversation to be opened.").may("status", word("How it begins.", &["open"]).nullable()).done(),
        ),
        (
            "ConversationChange",
            details("What is to change; what is absent stays, `null` takes a member away.")
                .may("status", word("Open or closed.", &["open", "closed"]).nullable())
                .done(),
        ),
        (
            "Fork",
            Members::new("Where a copy ends.")
                .may(
                    "atMessageId",
                    text("The last message that is copied; default the newest.")
                        .least(1)
                        .longest(MAX_NAME_CHARS)
                        .nullable(),
                )
                .done(),
        ),
        ("Conversation", conversation()),
        ("ConversationPage", page("A page of conversations.", named("Conversation"))),
        ("ContactNew", contact_new()),
        (
            "ContactsNew",
            Members::new("Contacts to be written down.")
                .must("contacts", list("They.", named("ContactNew")).least(1).longest(MAX_CONTACTS))
                .done(),
        ),
        ("ContactSaved", contact_members().must("created", boolean("It was not there before.")).done()),
        (
            "ContactsSaved",
            Members::new("Contacts that were written down.")
                .must("data", list("In the order they were given.", named("ContactSaved")))
                .done(),
        ),
        ("ContactChange", contact_change()),
        ("Contact", contact_members().done()),
        ("ContactPage", page("A page of contacts.", named("Contact"))),
        ("TurnNew", Members::new("Which agent shall answer.").must("agentId", text("The agent.").least(1)).done()),
        ("Turn", turn()),
        ("UsageOfDays", usage_of_days()),
    ]
}

fn details(about: &str) -> Members {
    Members::new(about)
        .may("title", text("For people.").longest(MAX_NAME_CHARS).nullable())
        .may("summary", text("What it is about; at most 16384 bytes of UTF-8.").longest(16 * 1024).nullable())
        .may("ownerId", text("Who owns it.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("metadata", free("An object of your own: at most 16384 bytes as compact JSON and 8 levels.").nullable())
}

fn conversation() -> RefOr<Schema> {
    Members::new("A conversation.")
        .must("id", made_id("The conversation.", "conv_", 26))
        .must("title", text("For people.").nullable())
        .must("status", word("How it stands.", &["open", "closed"]))
        .must("summary", text("What it is about.").nullable())
        .must("metadata", free("As it was given.").nullable())
        .must("ownerId", text("Who owns it.").nullable())
        .must("channelId", text("The channel that it belongs to.").nullable())
        .must("contactId", made_id("The contact that it is with.", "cont_", 26).nullable())
        .must("createdAt", time("When it was opened."))
        .must("updatedAt", time("When it last changed."))
        .must("lastMessageAt", time("When its newest message was accepted.").nullable())
        .must("messageCount", integer("Messages in it.", 0, None))
        .must("forkedFrom", made_id("The conversation that it began as a copy of.", "conv_", 26).nullable())
        .done()
}

fn contact_change() -> RefOr<Schema> {
    Members::new("What is to change; what is absent stays, `null` takes a member away.")
        .may("name", text("The contact's name.").longest(MAX_NAME_CHARS).nullable())
        .done()
}

fn contact_new() -> RefOr<Schema> {
    Members::new("A contact to be written down.")
        .must(
            "identifier",
            text(&format!(
                "What it is known by: trimmed, and then 1 to {MAX_NAME_CHARS} characters; e-mail addresses compare \
                 without case."
            ))
            .least(1),
        )
        .may("name", text("The contact's name; absent: stays as it is.").longest(MAX_NAME_CHARS).nullable())
        .done()
}

fn contact_members() -> Members {
    Members::new("Somebody who writes to api channels.")
        .must("id", made_id("The contact.", "cont_", 26))
        .must("identifier", text("As it was first written."))
        .must("name", text("The contact's name.").nullable())
        .must("createdAt", time("When the contact was made: first wrote, or was written down."))
        .must("updatedAt", time("When the contact last changed."))
}

fn turn() -> RefOr<Schema> {
    let error =
        Members::new("What went wrong.").must("code", text("For programs.")).must("detail", text("For people.")).done();
    Members::new("An agent's answer to a conversation, from the wish to its end.")
        .must("id", made_id("The turn.", "turn_", 34))
        .must("conversationId", made_id("The conversation.", "conv_", 26))
        .must("agentId", text("The agent."))
        .must("status", component("TurnStatus", "How it stands."))
        .must("attempt", integer("Which attempt this is; a retry is another one.", 0, None))
        .must("triggerMessageId", made_id("The message that it answers.", "msg_", 34).nullable())
        .must("createdAt", time("When it was asked for."))
        .must("startedAt", time("When it began.").nullable())
        .must("endedAt", time("When it was over.").nullable())
        .must("aiMessages", list("The agent's messages, earliest first.", named("AgentMessage")))
        .must("usage", nullable_usage())
        .must("error", one_of("Why it failed.", [error, Object::with_type(Type::Null).into()]))
        .must("waitsFor", list("While it is `awaiting_review`: the reviews that it waits for.", wait()))
        .done()
}

fn wait() -> RefOr<Schema> {
    Members::new("A review that a turn waits for.")
        .must("callId", text("The call of the model that asked for it."))
        .must("reviewId", made_id("The review.", "msg_", 34))
        .must("channelId", text("The channel whose people are asked."))
        .must("expiresAt", time("When nobody's answer is accepted any more."))
        .done()
}

fn sum(members: Members) -> Members {
    members
        .must("turns", integer("Turns that were completed.", 0, None))
        .must("modelCalls", integer("Calls of models.", 0, None))
        .must("inputTokens", integer("Tokens read.", 0, None))
        .must("outputTokens", integer("Tokens written.", 0, None))
        .must("credits", number("What they cost by the agents' prices.", 0, None))
}

fn usage_of_days() -> RefOr<Schema> {
    let agent = sum(Members::new("What one agent used.").must("agentId", text("The agent."))).done();
    let day = sum(Members::new("A day.").must("date", date("The day, in UTC.")))
        .must("agents", list("By agent.", agent))
        .done();
    Members::new("What models have used.")
        .must("from", date("The first day that was asked for."))
        .must("to", date("The last one."))
        .must("data", list("Days with use, earliest first.", day))
        .must("total", sum(Members::new("All of it.")).done())
        .done()
}
