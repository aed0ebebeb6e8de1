//! Every route: its description, parameters, bodies and answers.

use utoipa::openapi::HttpMethod;
use utoipa::openapi::Object;
use utoipa::openapi::path::OperationBuilder;

use super::operation::OperationDoc;
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

/// Tags in the order of the page, with their descriptions.
pub(super) const TAGS: [(&str, &str); 14] = [
    ("Messages", "Sending and reading messages: one path for channel messages and conversation messages."),
    ("Contact messages", "A contact's message on an api channel, answered by its agent in the same call."),
    ("Reviews", "Questions to people: the inbox, waiting for an outcome, responding."),
    ("Attachments", "Files: uploading, linking to a message, downloading."),
    ("Conversations", "Opening, reading and changing conversations."),
    ("Turns", "Agents' answers: starting, reading and cancelling turns."),
    ("Events", "Events, in pages or as a live stream."),
    ("Contacts", "The people who write to api channels."),
    ("Memories", "Memories of contacts and owners."),
    ("Channels", "Where messages arrive, and which agent answers there."),
    ("Agents", "Agents and their models."),
    ("Webhooks", "Webhook endpoints, and the state of each delivery."),
    ("Keys and workspaces", "API keys, their scopes, and workspaces."),
    ("Service", "Health of the process, and this documentation. Requires no key."),
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
    operations.into_iter().flatten().map(OperationDoc::done).collect()
}

/// An id in the path.
fn id() -> Object {
    text("").least(1)
}
