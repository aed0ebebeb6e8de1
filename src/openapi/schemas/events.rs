//! The data of events, by type.

use utoipa::openapi::{RefOr, Schema};

use super::super::shape::{
    Bounded as _, Members, boolean, component, free, integer, made_id, one_of, text, time, word,
};
use super::{Component, channel_message, conversation_message};

/// The description of an event of this type, and the component of its `data`; `None` for another type.
pub(in crate::openapi) fn told(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "message.created" => ("A message was accepted.", "MessageCreatedData"),
        "message.updated" => ("A message was edited.", "MessageData"),
        "message.deleted" => ("A message was deleted; it keeps its position.", "MessageData"),
        "message.delivered" => ("A message was delivered.", "MessageData"),
        "message.read" => ("A message was read.", "MessageData"),
        "review.requested" => ("A message asks for a review.", "ReviewRequestedData"),
        "review.completed" => ("A review was decided.", "ReviewEndedData"),
        "review.expired" => ("A review reached its deadline undecided.", "ReviewEndedData"),
        "review.cancelled" => ("A review was cancelled.", "ReviewEndedData"),
        "turn.started" => ("An agent began an attempt to answer.", "TurnData"),
        "turn.completed" => ("An agent has answered.", "TurnData"),
        "turn.failed" => ("An agent failed to answer.", "TurnData"),
        "turn.cancelled" => ("An agent's turn was cancelled.", "TurnData"),
        "memory.created" => ("A memory was created.", "MemoryData"),
        "memory.updated" => ("A memory was replaced.", "MemoryData"),
        "memory.failed" => ("The extraction of memories failed.", "MemoryFailedData"),
        "contact.created" => ("A contact was created.", "ContactData"),
        "contact.updated" => ("A contact was renamed.", "ContactData"),
        "contact.erased" => ("A contact was erased.", "ContactData"),
        "conversation.created" => ("A conversation was opened.", "ConversationCreatedData"),
        "conversation.updated" => ("A conversation was changed, or its content was erased.", "ConversationUpdatedData"),
        "conversation.closed" => ("A conversation was closed.", "ConversationClosedData"),
        _ => return None,
    })
}

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("MessageCreatedData", message_created()),
        ("MessageData", of_message("The message that the event is about.").done()),
        ("ReviewRequestedData", of_review("A pending review.", &["pending"])),
        ("ReviewEndedData", of_review("A review that has ended.", &["completed", "expired", "cancelled"])),
        ("TurnData", turn()),
        ("MemoryData", memory()),
        (
            "MemoryFailedData",
            of_conversation("The events from which no memories were extracted.")
                .must("firstSequence", integer("The sequence of the first one.", 0, None))
                .must("lastSequence", integer("The sequence of the last one.", 0, None))
                .done(),
        ),
        ("ContactData", contact()),
        (
            "ConversationCreatedData",
            conversation("A conversation at its start; members that were not given are absent.")
                .may("forkedFrom", made_id("The conversation that it is a copy of.", "conv_", 26))
                .done(),
        ),
        (
            "ConversationUpdatedData",
            conversation("The current state of a conversation; members without a value are absent.")
                .may("erased", boolean("Whether its contact was erased, and its content with it."))
                .done(),
        ),
        ("ConversationClosedData", of_conversation("A closed conversation, which accepts no messages.").done()),
    ]
}

/// The members of every event of a conversation's log.
fn with_place(members: Members) -> Members {
    members
        .must("conversationId", made_id("Its conversation.", "conv_", 26))
        .may("channelId", text("The channel of the conversation."))
}

fn of_conversation(about: &str) -> Members {
    with_place(Members::new(about))
}

fn with_message(members: Members) -> Members {
    members.must("messageId", made_id("The message.", "msg_", 34))
}

fn of_message(about: &str) -> Members {
    with_message(of_conversation(about).must("id", made_id("The message too.", "msg_", 34)))
}

/// The message contains its channel itself, if that is a human one.
fn message_created() -> RefOr<Schema> {
    let of_channel = channel_message::view("On a human channel.")
        .must("conversationId", made_id("Its conversation: the channel's own.", "conv_", 26));
    let of_channel = with_message(of_channel);
    let of_conversation = with_message(with_place(conversation_message::view("Elsewhere.")));
    one_of(
        "The message as its API shows it, in the state in which it was accepted.",
        [of_channel.done(), of_conversation.done()],
    )
}

/// Its payload and votes stand in the review alone.
fn of_review(about: &str, statuses: &[&str]) -> RefOr<Schema> {
    of_message(about)
        .must("type", text("The type of the review; `null` in events of an earlier version.").nullable())
        .must("status", word("The status.", statuses))
        .must("expiresAt", time("The deadline for responses; `null` in events of an earlier version.").nullable())
        .must("response", free("The response that decided it.").nullable())
        .must("feedback", text("The comment with the response.").nullable())
        .must("decidedBy", text("The principal that decided; `system` for `onExpire`.").nullable())
        .must("completedAt", time("When the review ended.").nullable())
        .done()
}

fn turn() -> RefOr<Schema> {
    of_conversation("An agent's turn and its status.")
        .must("turnId", made_id("The turn.", "turn_", 34))
        .must("agentId", text("The agent."))
        .must("status", component("TurnStatus", "Its status."))
        .must("attempt", integer("The number of the attempt; a retry is a new attempt.", 0, None))
        .may("usage", component("Usage", "Its usage, once a model was called."))
        .may("error", text("The code of the error."))
        .done()
}

fn memory() -> RefOr<Schema> {
    of_conversation("A memory of a contact or of an owner.")
        .must("memoryId", made_id("The memory.", "mem_", 34))
        .may("contactId", made_id("The contact.", "cont_", 26))
        .may("ownerId", text("The owner."))
        .must("sourceMessageId", made_id("The message that it comes from.", "msg_", 34).nullable())
        .done()
}

fn contact() -> RefOr<Schema> {
    Members::new("A contact; its events belong to no conversation. Members that do not apply are absent.")
        .must("contactId", made_id("The contact.", "cont_", 26))
        .may("identifier", text("The identifier, where the contact was created."))
        .may("name", text("Its name."))
        .done()
}

fn conversation(about: &str) -> Members {
    of_conversation(about)
        .may("ownerId", text("The owner."))
        .may("title", text("Human-readable title."))
        .may("summary", text("The topic."))
        .may("metadata", free("As given."))
}
