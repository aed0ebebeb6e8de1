//! Events as clients see them, in lists, in streams and in webhooks alike.

use actors::clock::Millis;
use actors::conversation::remember::Note;
use actors::conversation::{Details, Event, Forked, ReviewEnd, Turn, message_of};
use actors::deltas::Delta;
use actors::id::{ContactId, ConversationId, EventId, MemoryId, MessageId, TurnId};
use actors::machine::Record;
use actors::memories::Subject;
use actors::message::{Json, Overlay};
use serde::Serialize;

use crate::json::write::Members;
use crate::wire::channel_message::view::channel_view;
use crate::wire::contact_message::view::Usage;
use crate::wire::conversation_message::view::conversation_view;
use crate::wire::json_view::{AsText, Raw, review_status, turn_status};
use crate::wire::time::{self, Time};

/// The source of an event.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The workspace's id.
    pub workspace: &'a str,
    /// The conversation.
    pub conversation: ConversationId,
    /// The channel that it belongs to.
    pub channel: Option<&'a str>,
    /// Whether that is a human channel, whose own conversation it is.
    pub is_human: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfMessage {
    id: AsText<MessageId>,
    message_id: AsText<MessageId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfReview<'a> {
    id: AsText<MessageId>,
    message_id: AsText<MessageId>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    status: &'static str,
    expires_at: Option<Time>,
    response: Option<Raw<'a>>,
    feedback: Option<&'a str>,
    decided_by: Option<&'a str>,
    completed_at: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfTurn<'a> {
    turn_id: AsText<TurnId>,
    agent_id: &'a str,
    status: &'static str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfConversation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_from: Option<AsText<ConversationId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Raw<'a>>,
}

#[derive(Serialize)]
struct OfErasure {
    erased: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfMemory<'a> {
    memory_id: AsText<MemoryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_id: Option<AsText<ContactId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<&'a str>,
    source_message_id: Option<AsText<MessageId>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfFailure {
    first_sequence: u64,
    last_sequence: u64,
}

fn of_conversation<'a>(owner: Option<&'a str>, details: &'a Details, forked: Option<Forked>) -> OfConversation<'a> {
    OfConversation {
        forked_from: forked.map(|forked| AsText(forked.source)),
        owner_id: owner,
        title: details.title.as_deref(),
        summary: details.summary.as_deref(),
        metadata: details.metadata.as_ref().map(Raw),
    }
}

fn of_memory(note: &Note) -> OfMemory<'_> {
    let (contact_id, owner_id) = match &note.subject {
        Subject::Contact(contact) => (Some(AsText(*contact)), None),
        Subject::Owner(owner) => (None, Some(owner.as_str())),
    };
    OfMemory { memory_id: AsText(note.memory), contact_id, owner_id, source_message_id: note.source.map(AsText) }
}

fn about(message: MessageId) -> OfMessage {
    OfMessage { id: AsText(message), message_id: AsText(message) }
}

/// A requested, unanswered review.
fn of_question(message: MessageId, expires_at: Millis, kind: Option<&str>) -> OfReview<'_> {
    OfReview {
        id: AsText(message),
        message_id: AsText(message),
        kind,
        status: "pending",
        expires_at: Some(Time(expires_at)),
        response: None,
        feedback: None,
        decided_by: None,
        completed_at: None,
    }
}

/// The outcome of a review, without the votes: they stand in the review.
fn of_review(end: &ReviewEnd) -> OfReview<'_> {
    let state = &end.state;
    OfReview {
        id: AsText(end.message),
        message_id: AsText(end.message),
        kind: end.kind.as_deref(),
        status: review_status(state.status),
        expires_at: end.expires_at.map(Time),
        response: state.response.as_ref().map(Raw),
        feedback: state.feedback.as_deref(),
        decided_by: state.decided_by.as_deref(),
        completed_at: state.completed_at.map(Time),
    }
}

fn of_turn(turn: &Turn) -> OfTurn<'_> {
    OfTurn {
        turn_id: AsText(turn.id),
        agent_id: &turn.agent,
        status: turn_status(turn.status),
        attempt: turn.attempt,
        usage: turn.usage.as_ref().map(Usage::of),
        error: turn.failure.as_ref().map(|failure| failure.code.as_str()),
    }
}

/// The event of a record, as compact JSON; `None` for a mark.
///
/// # Errors
///
/// The error of serialization, which stored data never causes.
pub fn event_json(record: &Record<Event>, source: &Source<'_>) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let Some(kind) = record.event.name() else { return Ok(None) };
    let envelope = Envelope { kind, record, source };
    let written = match &record.event {
        Event::MessageCreated(_) => {
            let Some(message) = message_of(record) else { return Ok(None) };
            let overlay = Overlay::default();
            match source.channel.filter(|_| source.is_human) {
                Some(channel) => envelope.with(channel_view(channel, &message, &overlay)),
                None => {
                    let mut members = Vec::new();
                    conversation_view(source.workspace, &message, &overlay).write(&mut members);
                    Ok(envelope.around(&members))
                }
            }
        }
        Event::MessageUpdated { message }
        | Event::MessageDeleted { message }
        | Event::MessageDelivered { message }
        | Event::MessageRead { message } => envelope.with(about(*message)),
        Event::ReviewRequested { message, expires_at, kind } => {
            envelope.with(of_question(*message, *expires_at, kind.as_deref()))
        }
        Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => {
            envelope.with(of_review(end))
        }
        Event::TurnStarted(turn)
        | Event::TurnCompleted(turn)
        | Event::TurnFailed(turn)
        | Event::TurnCancelled(turn) => envelope.with(of_turn(turn)),
        Event::ConversationCreated { owner, details, forked, .. } => {
            envelope.with(of_conversation(owner.as_deref(), details, *forked))
        }
        Event::ConversationUpdated { owner, details, .. } => {
            envelope.with(of_conversation(owner.as_deref(), details, None))
        }
        Event::ConversationErased => envelope.with(OfErasure { erased: true }),
        Event::ConversationClosed => Ok(envelope.around(b"{}")),
        Event::MemoryNoted(note) => envelope.with(of_memory(note)),
        Event::MemoryFailed { first, last } => {
            envelope.with(OfFailure { first_sequence: *first, last_sequence: *last })
        }
        Event::TurnQueued(_)
        | Event::TurnMoved(_)
        | Event::DeadlineMoved { .. }
        | Event::ErrandsDue { .. }
        | Event::AttachmentDisclaimed { .. }
        | Event::OutboxMoved { .. }
        | Event::MemoriesDrawn { .. }
        | Event::ForkMoved(_)
        | Event::ErasureMoved { .. } => return Ok(None),
    };
    written.map(Some)
}

/// The name of a piece of an agent's reply.
pub const DELTA: &str = "turn.delta";

#[derive(Serialize)]
struct DeltaView<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Time,
    data: OfDelta<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfDelta<'a> {
    turn_id: AsText<TurnId>,
    attempt: u32,
    message: u32,
    chunk: u64,
    text: &'a str,
}

/// A piece of a reply that an agent is making. Only streams have it; it is not an event and has neither id nor
/// sequence.
///
/// # Errors
///
/// As [`event_json`].
pub fn delta_json(delta: &Delta, at: Millis) -> Result<Vec<u8>, serde_json::Error> {
    let data = OfDelta {
        turn_id: AsText(delta.attempt.turn),
        attempt: delta.attempt.attempt,
        message: delta.message,
        chunk: delta.number,
        text: &delta.text,
    };
    serde_json::to_vec(&DeltaView { kind: DELTA, timestamp: Time(at), data })
}

/// The members common to all events: id, sequence, type, time, conversation and channel.
struct Envelope<'a> {
    kind: &'static str,
    record: &'a Record<Event>,
    source: &'a Source<'a>,
}

impl Envelope<'_> {
    fn with<T: Serialize>(&self, data: T) -> Result<Vec<u8>, serde_json::Error> {
        Ok(self.around(&serde_json::to_vec(&data)?))
    }

    /// `type_members`: the members that only events of this type have, a JSON object.
    fn around(&self, type_members: &[u8]) -> Vec<u8> {
        let Self { kind, record, source } = self;
        let mut out = Vec::with_capacity(type_members.len() + 256);
        let mut members = Members::begin(&mut out);
        members.plain("id", EventId::new(record.at, source.conversation.address, record.seq));
        members.json("sequence", &record.seq.to_string());
        members.plain("type", kind);
        members.plain("timestamp", time::format(record.at).as_str());
        members.object("data", |data| {
            data.plain("conversationId", source.conversation);
            let is_message = matches!(record.event, Event::MessageCreated(_));
            // A message of a human channel contains its channel itself.
            if let Some(channel) = source.channel.filter(|_| !(is_message && source.is_human)) {
                data.string("channelId", channel);
            }
            // A message contains its id itself, but not by the name that every other event has for it.
            if is_message {
                data.plain("messageId", MessageId::new(record.at, source.conversation.address, record.seq));
            }
            data.members_of(type_members);
        });
        members.end();
        out
    }
}

/// An event's JSON as text, for answers with several.
///
/// # Errors
///
/// As [`event_json`].
pub fn event_value(record: &Record<Event>, source: &Source<'_>) -> Result<Option<Json>, serde_json::Error> {
    let bytes = event_json(record, source)?;
    // Serialized JSON is UTF-8.
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Json::from_checked))
}
