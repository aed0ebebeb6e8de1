//! The body of a webhook: the event as in lists and streams, in the receiver's configured envelope.

use actors::outbox::{DeliveryRequest, Happened, LogChannel, LogOf, LogScope};
use actors::webhook::Format;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wire::contact::contact_event;
use crate::wire::event::{Source, event_json};

/// An event in the form of `GET …/events`.
#[derive(Deserialize)]
struct Shown<'a> {
    id: &'a str,
    sequence: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The subject of an event: the most specific resource that it names.
#[derive(Deserialize)]
struct About<'a> {
    #[serde(rename = "messageId", borrow, default)]
    message: Option<&'a str>,
    #[serde(rename = "turnId", borrow, default)]
    turn: Option<&'a str>,
    #[serde(rename = "memoryId", borrow, default)]
    memory: Option<&'a str>,
    #[serde(rename = "contactId", borrow, default)]
    contact: Option<&'a str>,
    #[serde(borrow, default)]
    id: Option<&'a str>,
    #[serde(rename = "conversationId", borrow, default)]
    conversation: Option<&'a str>,
}

impl<'a> About<'a> {
    fn subject(&self) -> Option<&'a str> {
        self.message.or(self.turn).or(self.memory).or(self.contact).or(self.id).or(self.conversation)
    }
}

/// Standard Webhooks.
#[derive(Serialize)]
struct Standard<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: &'a str,
    data: &'a RawValue,
}

/// CloudEvents 1.0, structured mode, with the extension for sequences.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    datacontenttype: &'static str,
    sequence: String,
    data: &'a RawValue,
}

/// The path at which the API shows the log.
fn source_of(scope: &LogScope) -> String {
    match (scope.log, &scope.channel) {
        (LogOf::Conversation(_), Some(LogChannel::Human(channel))) => format!("/api/v1/channels/{channel}"),
        (LogOf::Conversation(conversation), _) => format!("/api/v1/conversations/{conversation}"),
        (LogOf::Contact(contact), _) => format!("/api/v1/contacts/{contact}"),
    }
}

/// The body of a request; `None` for a record that is no event.
pub(super) fn of(request: &DeliveryRequest) -> Option<Vec<u8>> {
    let shown = match &request.event {
        Happened::Conversation(record) => {
            let source = Source {
                workspace: &request.workspace,
                conversation: request.scope.conversation()?,
                channel: request.scope.channel.as_ref().map(LogChannel::id),
                is_human: matches!(request.scope.channel, Some(LogChannel::Human(_))),
            };
            event_json(record, &source).ok()??
        }
        Happened::Contact { record, contact } => {
            serde_json::to_vec(&contact_event(record, (request.entity.id, *contact))?).ok()?
        }
    };
    let shown: Shown<'_> = serde_json::from_slice(&shown).ok()?;
    let written = match request.format {
        Format::Standard => {
            serde_json::to_vec(&Standard { kind: shown.kind, timestamp: shown.timestamp, data: shown.data })
        }
        Format::CloudEvents => {
            let about: Option<About<'_>> = serde_json::from_str(shown.data.get()).ok();
            serde_json::to_vec(&CloudEvent {
                specversion: "1.0",
                id: shown.id,
                source: source_of(&request.scope),
                kind: shown.kind,
                time: shown.timestamp,
                subject: about.and_then(|about| about.subject()),
                datacontenttype: "application/json",
                sequence: shown.sequence.to_string(),
                data: shown.data,
            })
        }
    };
    written.ok()
}
