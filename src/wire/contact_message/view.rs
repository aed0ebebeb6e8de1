//! The answer to a contact's message.

use actors::clock::Millis;
use actors::conversation;
use actors::id::{ContactId, ConversationId, MessageId, TurnId};
use actors::message::{Content, MediaKind, Message, Removal};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::KINDS;
use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// The parts of an answer.
#[derive(Clone, Debug)]
pub struct ContactParts<'a> {
    /// The contact.
    pub contact: ContactId,
    /// The conversation.
    pub conversation: ConversationId,
    /// When the conversation began.
    pub created_at: Millis,
    /// The conversation's status, `open` or `closed`.
    pub conversation_status: &'a str,
    /// The channel.
    pub channel_id: &'a str,
    /// The agent that answers.
    pub agent_id: &'a str,
    /// When the conversation last changed.
    pub updated_at: Millis,
    /// When its newest message was accepted.
    pub last_message_at: Millis,
    /// The contact's message.
    pub message: MessageId,
    /// The agent's messages, ascending; empty while it has not answered.
    pub replies: &'a [Message],
    /// The turn's usage.
    pub usage: Usage<'a>,
    /// The turn.
    pub turn: TurnId,
    /// The turn's status: `queued`, `running`, `awaiting_review`, `completed`, `failed` or `cancelled`.
    pub turn_status: &'a str,
}

/// A turn's usage so far.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage<'a> {
    /// Credits of the workspace; a thousandth is the smallest part.
    pub credits: f64,
    /// Tokens that the model read.
    pub input_tokens: u64,
    /// Tokens that the model wrote.
    pub output_tokens: u64,
    /// The model; `null` before one was called.
    pub model: Option<&'a str>,
}

impl<'a> Usage<'a> {
    /// The usage view of a turn.
    #[must_use]
    pub fn of(usage: &'a conversation::Usage) -> Self {
        Self {
            credits: usage.millicredits as f64 / 1000.0,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            model: Some(&usage.model),
        }
    }
}

/// The answer; see [`contact_view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactView<'a> {
    success: bool,
    contact_id: AsText<ContactId>,
    conversation_id: AsText<ConversationId>,
    message_id: AsText<MessageId>,
    conversation: ConversationSummary<'a>,
    ai_messages: Vec<ReplyView<'a>>,
    usage: Usage<'a>,
    turn: TurnSummary<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConversationSummary<'a> {
    id: AsText<ConversationId>,
    status: &'a str,
    channel_id: &'a str,
    contact_id: AsText<ContactId>,
    assignment: Assignment<'a>,
    created_at: Time,
    updated_at: Time,
    last_message_at: Time,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Assignment<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    agent_id: &'a str,
}

#[derive(Debug, Serialize)]
struct TurnSummary<'a> {
    id: AsText<TurnId>,
    status: &'a str,
}

/// One message of an agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplyView<'a> {
    id: AsText<MessageId>,
    #[serde(rename = "type")]
    kind: &'static str,
    content: ContentView<'a>,
    created_at: Time,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// A message's `content` object in the contact API's form.
#[derive(Debug)]
struct ContentView<'a>(&'a Content);

impl Serialize for ContentView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            body: &'a str,
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("text", &Body { body: self.0.text.as_deref().unwrap_or_default() })?;
        map.end()
    }
}

/// The answer to a contact's message, with 200 once the turn is over and with 202 before.
#[must_use]
pub fn contact_view<'a>(parts: &'a ContactParts<'a>) -> ContactView<'a> {
    ContactView {
        success: true,
        contact_id: AsText(parts.contact),
        conversation_id: AsText(parts.conversation),
        message_id: AsText(parts.message),
        conversation: ConversationSummary {
            id: AsText(parts.conversation),
            status: parts.conversation_status,
            channel_id: parts.channel_id,
            contact_id: AsText(parts.contact),
            assignment: Assignment { kind: "AI_AGENT", agent_id: parts.agent_id },
            created_at: Time(parts.created_at),
            updated_at: Time(parts.updated_at),
            last_message_at: Time(parts.last_message_at),
        },
        ai_messages: parts.replies.iter().map(reply_view).collect(),
        usage: parts.usage,
        turn: TurnSummary { id: AsText(parts.turn), status: parts.turn_status },
    }
}

/// See [`ReplyView`].
#[must_use]
pub fn reply_view(message: &Message) -> ReplyView<'_> {
    ReplyView {
        id: AsText(message.id),
        kind: word(message.content.media),
        content: ContentView(&message.content),
        created_at: Time(message.id.at),
        deleted: message.content.removal.is_some(),
        erased: message.content.removal == Some(Removal::Erased),
    }
}

/// The name of a kind of content.
fn word(kind: MediaKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("TEXT", |(word, _)| word)
}
