//! What events say, by their type.

use utoipa::openapi::{RefOr, Schema};

use super::super::shape::{
    Bounded as _, Members, boolean, component, free, integer, made_id, one_of, text, time, word,
};
use super::{Component, channel_message, conversation_message};

/// What an event of this type says has happened, and the component that its `data` is; `None` for another type.
pub(in crate::openapi) fn told(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "message.created" => ("A message was accepted.", "MessageCreatedData"),
        "message.updated" => ("A message was edited.", "MessageData"),
        "message.deleted" => ("A message was deleted; its place stays.", "MessageData"),
        "message.delivered" => ("A message was delivered.", "MessageData"),
        "message.read" => ("A message was read.", "MessageData"),
        "review.requested" => ("A message asks people for a decision.", "ReviewRequestedData"),
        "review.completed" => ("A review was decided.", "ReviewEndedData"),
        "review.expired" => ("The time of a review was over before anybody decided it.", "ReviewEndedData"),
        "review.cancelled" => ("A review was withdrawn.", "ReviewEndedData"),
        "turn.started" => ("An agent began an attempt to answer.", "TurnData"),
        "turn.completed" => ("An agent has answered.", "TurnData"),
        "turn.failed" => ("An agent could not answer.", "TurnData"),
        "turn.cancelled" => ("An agent's answer was called off.", "TurnData"),
        "memory.created" => ("Something new is remembered of somebody.", "MemoryData"),
        "memory.updated" => ("What was remembered of somebody was replaced.", "MemoryData"),
        "memory.failed" => ("What was said could not be looked through for memories.", "MemoryFailedData"),
        "contact.created" => ("A contact was written down.", "ContactData"),
        "contact.updated" => ("A contact has another name.", "ContactData"),
        "contact.erased" => ("A contact was forgotten.", "ContactData"),
        "conversation.created" => ("A conversation was opened.", "ConversationCreatedData"),
        "conversation.updated" => ("A conversation was changed, or its words were erased.", "ConversationUpdatedData"),
        "conversation.closed" => ("A conversation was closed.", "ConversationClosedData"),
        _ => return None,
    })
}

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("MessageCreatedData", message_created()),
        ("MessageData", of_message("A message that something has happened to.").done()),
        (
            "ReviewRequestedData",
            of_message("A review that was asked for.")
                .must("status", word("How it stands.", &["pending"]))
                .must("expiresAt", time("When nobody's answer is accepted any more."))
                .done(),
        ),
        ("ReviewEndedData", review_ended()),
        ("TurnData", turn()),
        ("MemoryData", memory()),
        (
            "MemoryFailedData",
            of_conversation("What was not looked through.")
                .must("firstSequence", integer("The first event of it.", 0, None))
                .must("lastSequence", integer("The last one.", 0, None))
                .done(),
        ),
        ("ContactData", contact()),
        (
            "ConversationCreatedData",
            conversation("A conversation as it was opened; what was not given is absent.")
                .may("forkedFrom", made_id("The conversation that it is a copy of.", "conv_", 26))
                .done(),
        ),
        (
            "ConversationUpdatedData",
            conversation("A conversation as it is now; what it does not have is absent.")
                .may("erased", boolean("Its contact was erased, and all its words with it."))
                .done(),
        ),
        ("ConversationClosedData", of_conversation("A conversation that takes no messages any more.").done()),
    ]
}

/// What every event of a conversation's log says.
fn with_place(members: Members) -> Members {
    members
        .must("conversationId", made_id("The conversation that it is of.", "conv_", 26))
        .may("channelId", text("The channel that the conversation belongs to."))
}

fn of_conversation(about: &str) -> Members {
    with_place(Members::new(about))
}

fn of_message(about: &str) -> Members {
    of_conversation(about).must("messageId", made_id("The message.", "msg_", 34))
}

/// The message says its channel itself, where that is a human one.
fn message_created() -> RefOr<Schema> {
    let of_channel = channel_message::view("On a human channel.")
        .must("conversationId", made_id("The conversation that it is of: the channel's own.", "conv_", 26));
    let of_conversation = with_place(conversation_message::view("Elsewhere."));
    one_of("The message as its API shows it, as it was accepted.", [of_channel.done(), of_conversation.done()])
}

fn review_ended() -> RefOr<Schema> {
    of_message("A review that is over. What there is not is absent.")
        .must("status", word("How it ended.", &["completed", "expired", "cancelled"]))
        .may("response", free("The response that was decided."))
        .may("feedback", text("Words beside it."))
        .may("decidedBy", text("Who decided; `system` where `onExpire` did."))
        .may("completedAt", time("When it was over."))
        .done()
}

fn turn() -> RefOr<Schema> {
    of_conversation("An agent's answer, and how it stands.")
        .must("turnId", made_id("The turn.", "turn_", 34))
        .must("agentId", text("The agent."))
        .must("status", component("TurnStatus", "How it stands."))
        .must("attempt", integer("Which attempt this is; a retry is another one.", 0, None))
        .may("usage", component("Usage", "What it has cost, once a model was called."))
        .may("error", text("The code of what went wrong."))
        .done()
}

fn memory() -> RefOr<Schema> {
    of_conversation("Something that is remembered of a contact or of an owner.")
        .must("memoryId", made_id("The memory.", "mem_", 34))
        .may("contactId", made_id("The contact.", "cont_", 26))
        .may("ownerId", text("The owner."))
        .must("sourceMessageId", made_id("The message that says so.", "msg_", 34).nullable())
        .done()
}

fn contact() -> RefOr<Schema> {
    Members::new("A contact; its events are of no conversation. What is not told is absent.")
        .must("contactId", made_id("The contact.", "cont_", 26))
        .may("identifier", text("What it is known by, where it was written down."))
        .may("name", text("Its name."))
        .done()
}

fn conversation(about: &str) -> Members {
    of_conversation(about)
        .may("ownerId", text("Who owns it."))
        .may("title", text("For people."))
        .may("summary", text("What it is about."))
        .may("metadata", free("As it was given."))
}
