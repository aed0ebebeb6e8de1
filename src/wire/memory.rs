//! A memory as clients see it.

use actors::id::{ContactId, MemoryId, MessageId};
use actors::memories::{Memory, Subject};
use serde::Serialize;

use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// See [`memory_view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryView<'a> {
    id: AsText<MemoryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_id: Option<AsText<ContactId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<&'a str>,
    text: &'a str,
    source_message_id: Option<AsText<MessageId>>,
    created_at: Time,
    updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// The current memory; with its score for a question, if there was one.
#[must_use]
pub fn memory_view<'a>(memory: &'a Memory, subject: &'a Subject, score: Option<f32>) -> MemoryView<'a> {
    let (contact_id, owner_id) = match subject {
        Subject::Contact(contact) => (Some(AsText(*contact)), None),
        Subject::Owner(owner) => (None, Some(owner.as_str())),
    };
    MemoryView {
        id: AsText(memory.id),
        contact_id,
        owner_id,
        text: &memory.text,
        source_message_id: memory.source.map(AsText),
        created_at: Time(memory.id.at),
        updated_at: Time(memory.at()),
        score,
    }
}
