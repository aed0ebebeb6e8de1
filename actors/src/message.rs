//! A message, as all three APIs store it.
//!
//! One form serves channel messages, conversation messages and contact messages; the front door renders the view of the
//! requested API. Members that a client owns (`metadata`, payloads, tool calls) are stored as received JSON text: their
//! digits and member order are the client's.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{AttachmentId, ConversationId, MessageId, TurnId};
use crate::limits;

mod json;
mod review;
pub mod role;

pub use json::Json;
pub use review::{Callback, ComparableResponse, Quorum, Review, ReviewState, ReviewStatus, Vote};

/// The kind of a message's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SenderKind {
    /// An agent: a program that posts through a channel, or the AI that answers.
    #[n(0)]
    Agent,
    /// A person with a key of their own.
    #[n(1)]
    User,
    /// A contact, through an api channel.
    #[n(2)]
    Contact,
}

/// The sender of a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sender {
    /// Their kind.
    #[n(0)]
    pub kind: SenderKind,
    /// Their id; free text in conversation messages.
    #[n(1)]
    pub id: String,
}

impl Sender {
    /// The sender's id on a human channel: for an agent its channel, even if it has posted through the conversation
    /// API.
    #[must_use]
    pub fn id_on<'a>(&'a self, channel: &'a str) -> &'a str {
        if self.kind == SenderKind::Agent { channel } else { &self.id }
    }
}

/// How urgent a channel message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum Severity {
    #[n(0)]
    Info,
    #[n(1)]
    Success,
    #[n(2)]
    Warning,
    #[n(3)]
    Error,
}

/// The media that a message from an api channel carries besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum MediaKind {
    #[n(0)]
    Text,
    #[n(1)]
    Image,
    #[n(2)]
    Audio,
    #[n(3)]
    Video,
    #[n(4)]
    Document,
}

/// A file that belongs to a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attachment {
    /// Its id.
    #[n(0)]
    pub id: AttachmentId,
    /// The name it was given, without directories.
    #[n(1)]
    pub filename: String,
    /// Its media type, with parameters such as its charset.
    #[n(2)]
    pub mime_type: String,
    /// Its size in bytes.
    #[n(3)]
    pub size: u64,
    /// The key of the bytes in the file store; opaque to clients.
    #[n(4)]
    pub storage_key: String,
    /// The number of its binding to the message's conversation; `None`: it was attached in another way.
    #[n(5)]
    pub claim: Option<u32>,
}

/// Why a message has no content any more. Then no record contains what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Removal {
    /// It was deleted.
    #[n(0)]
    Deleted,
    /// Its contact was erased.
    #[n(1)]
    Erased,
}

/// The sending time that a client gives: milliseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct SentAt(#[n(0)] pub i64);

impl From<Millis> for SentAt {
    fn from(at: Millis) -> Self {
        Self(i64::try_from(at.0).unwrap_or(i64::MAX))
    }
}

/// The content of a message; immutable once accepted, until it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    /// `user`, `assistant`, `system`, `tool`, `developer` or a role of the client's own.
    #[n(0)]
    pub role: String,
    /// Its sender.
    #[n(1)]
    pub sender: Sender,
    /// The text; `None` where the client gave none.
    #[n(2)]
    pub text: Option<String>,
    /// How urgent it is.
    #[n(3)]
    pub severity: Option<Severity>,
    /// The client's metadata (`metadata`, `meta_data`).
    #[n(4)]
    pub metadata: Option<Json>,
    /// The question it asks.
    #[n(5)]
    pub review: Option<Review>,
    /// The URL that gets every event of this message.
    #[n(6)]
    pub webhook_url: Option<String>,
    /// Files that belong to it.
    #[n(7)]
    pub attachments: Vec<Attachment>,
    /// The earlier message that it revises.
    #[n(8)]
    pub iteration_of: Option<MessageId>,
    /// The conversation API's `message_type`.
    #[n(9)]
    pub message_type: String,
    /// Tool calls, an array of objects.
    #[n(10)]
    pub tool_calls: Option<Json>,
    /// The conversation API's `attachments` as they were given, an array of objects.
    #[n(11)]
    pub references: Option<Json>,
    /// Its tags.
    #[n(12)]
    pub tags: Option<Vec<String>>,
    /// When an imported message was sent, by its client; never used for order.
    #[n(13)]
    pub sent_at: Option<SentAt>,
    /// The kind of its content; `Text` unless it came through an api channel with media.
    #[n(14)]
    pub media: MediaKind,
    /// The api channel's `content` object of a media message: stored by earlier builds, and no longer read.
    #[n(15)]
    pub media_content: Option<Json>,
    /// Whether memories are to be drawn from it.
    #[n(16)]
    pub memories: bool,
    /// Files that its `references` name, for the conversation's own use.
    #[n(17)]
    pub mentions: Option<Vec<AttachmentId>>,
    /// Why its content was removed; `None`: it was not.
    #[n(18)]
    pub removal: Option<Removal>,
}

impl Content {
    /// A message with only text.
    #[must_use]
    pub fn text(role: impl Into<String>, sender: Sender, text: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            sender,
            text: Some(text.into()),
            severity: None,
            metadata: None,
            review: None,
            webhook_url: None,
            attachments: Vec::new(),
            iteration_of: None,
            message_type: "text".to_owned(),
            tool_calls: None,
            references: None,
            tags: None,
            sent_at: None,
            media: MediaKind::Text,
            media_content: None,
            memories: false,
            mentions: None,
            removal: None,
        }
    }

    /// The content without text and files: sender, time and thread are kept, and so are the callback and the turn that
    /// still await a review's outcome.
    #[must_use]
    pub fn redacted(&self, removal: Removal) -> Self {
        let review = self.review.as_ref().map(|review| Review {
            kind: review.kind.clone(),
            payload: None,
            callback: review.callback.clone(),
            expires_at: review.expires_at,
            on_expire: None,
            quorum: None,
            asker: review.asker.clone(),
            place: review.place,
        });
        Self {
            role: self.role.clone(),
            sender: self.sender.clone(),
            text: None,
            severity: self.severity,
            metadata: None,
            review,
            webhook_url: self.webhook_url.clone(),
            attachments: Vec::new(),
            iteration_of: self.iteration_of,
            message_type: self.message_type.clone(),
            tool_calls: None,
            references: None,
            tags: None,
            sent_at: self.sent_at,
            media: self.media,
            media_content: None,
            memories: false,
            mentions: None,
            removal: Some(removal),
        }
    }

    /// Its text; for a file without a caption, the file's name.
    #[must_use]
    pub(crate) fn text_or_filename(&self) -> &str {
        let text = self.text.as_deref().filter(|text| !text.trim().is_empty());
        text.or_else(|| self.attachments.first().map(|file| file.filename.as_str())).unwrap_or_default()
    }

    /// About how many bytes it takes in a commit.
    #[must_use]
    pub fn weight(&self) -> usize {
        let json = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
        limits::COMMAND_BYTES
            + self.text.as_ref().map_or(0, String::len)
            + json(&self.metadata)
            + json(&self.tool_calls)
            + json(&self.references)
            + json(&self.media_content)
            + limits::COMMAND_BYTES * self.attachments.len()
            + 50 * self.mentions.as_ref().map_or(0, Vec::len)
            + self.review.as_ref().map_or(0, |review| 100 + json(&review.payload) + json(&review.on_expire))
    }
}

/// The parent of a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// One that exists.
    Message(MessageId),
    /// An earlier one of the same batch, by its index.
    Item(usize),
}

/// A message that a client asks to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Its content.
    pub content: Arc<Content>,
    /// Its parent.
    pub parent: Option<Parent>,
    /// How long its review remains open, in milliseconds from its acceptance; `None`: until the time in `content`.
    pub review_millis: Option<u64>,
}

/// An accepted message. Its sequence is `id.number`, the time of its acceptance `id.at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its conversation.
    pub conversation: ConversationId,
    /// The conversation's owner when it was accepted.
    pub owner: Option<String>,
    /// Its parent.
    pub parent: Option<MessageId>,
    /// The turn that it requested or resulted from.
    pub turn: Option<TurnId>,
    /// Its content.
    pub content: Arc<Content>,
}

impl Message {
    /// Why it has no content any more, if that is so.
    #[must_use]
    pub fn removal(&self, overlay: &Overlay) -> Option<Removal> {
        if overlay.erased || self.content.removal == Some(Removal::Erased) {
            return Some(Removal::Erased);
        }
        self.content.removal.or(overlay.deleted.then_some(Removal::Deleted))
    }

    /// The message with its newest text; `None` if its content was removed.
    #[must_use]
    pub fn as_edited(mut self, overlay: &Overlay) -> Option<Self> {
        if self.removal(overlay).is_some() {
            return None;
        }
        if overlay.text.is_some() {
            let text = overlay.text_of(&self.content).map(str::to_owned);
            Arc::make_mut(&mut self.content).text = text;
        }
        Some(self)
    }
}

/// Changes of a message since it was accepted: the current values of its mutable members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Overlay {
    /// The newest edit's text, where an edit gave one.
    #[n(0)]
    pub text: Option<String>,
    /// The newest edit's metadata.
    #[n(1)]
    pub metadata: Option<Json>,
    /// The newest edit's tags.
    #[n(2)]
    pub tags: Option<Vec<String>>,
    /// When it was last edited.
    #[n(3)]
    pub updated_at: Option<Millis>,
    /// Its content was deleted on request; its sequence is kept.
    #[n(4)]
    pub deleted: bool,
    /// Its content was removed because its contact was erased.
    #[n(5)]
    pub erased: bool,
    /// Its review.
    #[n(6)]
    pub review: Option<ReviewState>,
    /// When it was acknowledged as delivered.
    #[n(7)]
    pub delivered_at: Option<Millis>,
    /// When it was acknowledged as read.
    #[n(8)]
    pub read_at: Option<Millis>,
    /// The newest message that revises it.
    #[n(9)]
    pub superseded_by: Option<MessageId>,
    /// The sequence of the event that ended its review, which has the outcome and the answers.
    #[n(10)]
    pub review_end: Option<u64>,
    /// An edit has removed its tags.
    #[n(11)]
    pub untagged: Option<bool>,
    /// An edit has removed its text. `text` is empty then, for servers that do not know this member.
    #[n(12)]
    pub textless: Option<bool>,
    /// The message that revised the same message before this one did. With `superseded_by` it leads to every revision
    /// of a message; `None` also if this one was accepted by an earlier build.
    #[n(13)]
    pub revised_before: Option<MessageId>,
}

/// About how many bytes an edit's text, metadata and tags have.
pub(crate) fn text_weight(text: Option<&str>, metadata: Option<&Json>, tags: Option<&[String]>) -> usize {
    text.map_or(0, str::len)
        + metadata.map_or(0, |metadata| metadata.as_str().len())
        + tags.iter().copied().flatten().map(String::len).sum::<usize>()
}

impl Overlay {
    /// About how many bytes its text, metadata and tags have.
    #[must_use]
    pub fn weight(&self) -> usize {
        text_weight(self.text.as_deref(), self.metadata.as_ref(), self.tags.as_deref())
    }

    /// About how many bytes it adds to a rendered message: its text, metadata and tags, and the answers to the
    /// message's review.
    #[must_use]
    pub fn rendered_weight(&self) -> usize {
        self.weight() + self.review.as_ref().map_or(0, ReviewState::weight)
    }

    /// The text of a message with this content: the newest edit's, else its own.
    #[must_use]
    pub fn text_of<'a>(&'a self, content: &'a Content) -> Option<&'a str> {
        if self.textless == Some(true) { None } else { self.text.as_deref().or(content.text.as_deref()) }
    }

    /// The tags of a message with this content: the newest edit's, else its own.
    #[must_use]
    pub fn tags_of<'a>(&'a self, content: &'a Content) -> Option<&'a [String]> {
        if self.untagged == Some(true) { None } else { self.tags.as_deref().or(content.tags.as_deref()) }
    }

    /// The part of a human channel's message that its `ETag` covers in addition to the content: when it was edited, and
    /// the metadata and tags that the edit gave.
    #[must_use]
    pub fn labels(&self) -> (Option<u64>, Option<&str>, Option<&[String]>) {
        (self.updated_at.map(|at| at.0), self.metadata.as_ref().map(Json::as_str), self.tags.as_deref())
    }

    /// The overlay once the message's content is removed.
    #[must_use]
    pub fn redacted(&self, removal: Removal) -> Self {
        Self {
            updated_at: self.updated_at,
            deleted: removal == Removal::Deleted || self.deleted,
            erased: removal == Removal::Erased,
            review: self.review.as_ref().map(ReviewState::redacted),
            delivered_at: self.delivered_at,
            read_at: self.read_at,
            superseded_by: self.superseded_by,
            revised_before: self.revised_before,
            ..Self::default()
        }
    }
}
