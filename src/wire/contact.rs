//! A contact as clients see it, and its events.

use actors::contact::{Event, State};
use actors::id::{Address, ContactId, EventId};
use actors::machine::Record;
use serde::Serialize;

use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// See [`contact_view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactView<'a> {
    id: AsText<ContactId>,
    identifier: &'a str,
    name: Option<&'a str>,
    created_at: Time,
    updated_at: Time,
}

/// The contact's current view.
#[must_use]
pub fn contact_view(state: &State) -> ContactView<'_> {
    ContactView {
        id: AsText(state.id),
        identifier: &state.identifier,
        name: state.name.as_deref(),
        created_at: Time(state.created_at()),
        updated_at: Time(state.updated_at),
    }
}

/// See [`contact_event`].
#[derive(Debug, Serialize)]
pub struct ContactEvent<'a> {
    id: AsText<EventId>,
    sequence: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Time,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    contact_id: AsText<ContactId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// The event of a record of a contact's log; `None` for a mark. `contact`: the log's address, and the contact that it
/// was about before this record.
#[must_use]
pub fn contact_event(record: &Record<Event>, (address, contact): (Address, ContactId)) -> Option<ContactEvent<'_>> {
    let (contact, identifier, name) = match &record.event {
        Event::ContactCreated { id, identifier, name } => (*id, Some(identifier.as_str()), name.as_deref()),
        Event::ContactUpdated { name } => (contact, None, name.as_deref()),
        _ => (contact, None, None),
    };
    Some(ContactEvent {
        id: AsText(EventId::new(record.at, address, record.seq)),
        sequence: record.seq,
        kind: record.event.name()?,
        timestamp: Time(record.at),
        data: Data { contact_id: AsText(contact), identifier: identifier.filter(|text| !text.is_empty()), name },
    })
}
