//! Every route: what it does, what it takes and what it answers.

use utoipa::openapi::HttpMethod;
use utoipa::openapi::Object;
use utoipa::openapi::path::OperationBuilder;

use super::operation::Op;
use super::shape::{Bounded as _, text};

mod amendments;
mod attachments;
mod configuration;
mod contacts;
mod conversations;
mod memories;
mod messages;
mod reviews;
mod service;
mod webhooks;

/// Tags in the order of the page, and what each is about.
pub(super) const TAGS: [(&str, &str); 14] = [
    ("Messages", "Sending and reading messages: one path for channel messages and conversation messages."),
    ("Contact messages", "A contact's message on an api channel, answered by its agent in the same call."),
    ("Reviews", "Questions to people: the inbox, waiting for an outcome, deciding."),
    ("Attachments", "Files: uploading, linking to a message, reading back."),
    ("Conversations", "Opening, reading and changing conversations."),
    ("Turns", "How an agent's answer stands."),
    ("Events", "What happened, in pages or live."),
    ("Contacts", "Who writes to api channels."),
    ("Memories", "What is remembered of contacts and owners."),
    ("Channels", "Where messages come in, and who answers there."),
    ("Agents", "Who answers, and with which model."),
    ("Webhooks", "Who is told of events, and what became of each delivery."),
    ("Keys and workspaces", "Who may do what, and where."),
    ("Service", "Whether the process lives, and this documentation. Needs no key."),
];

const READ: &[&str] = &["messages:read"];
const WRITE: &[&str] = &["messages:write"];
const ADMIN: &[&str] = &["admin"];
const LOOK: &[&str] = &["admin", "messages:read"];

/// Every operation with its path and method.
pub(super) fn all() -> Vec<(&'static str, HttpMethod, OperationBuilder)> {
    let operations = [
        messages::operations(),
        amendments::messages(),
        reviews::operations(),
        attachments::operations(),
        conversations::operations(),
        contacts::operations(),
        memories::operations(),
        amendments::events(),
        configuration::operations(),
        webhooks::operations(),
        service::operations(),
    ];
    operations.into_iter().flatten().map(Op::done).collect()
}

/// An id in the path.
fn id() -> Object {
    text("").least(1)
}
