//! A message, as all three APIs store it.
//!
//! One form serves channel messages, conversation messages and contact messages; the front door renders the view that
//! its reader asked for. Members that a client owns (`metadata`, payloads, tool calls) are kept as the JSON text that
//! came in: their digits and member order are the client's.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{AttachmentId, ConversationId, MessageId, TurnId};
use crate::limits;

mod json;
mod review;
pub mod role;

pub use json::Json;
pub use review::{Alike, Callback, Quorum, Review, ReviewState, ReviewStatus, Vote};

/// What kind of party sent a message.
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
    /// What they are.
    #[n(0)]
    pub kind: SenderKind,
    /// Their id; free text in conversation messages.
    #[n(1)]
    pub id: String,
}

impl Sender {
    /// The id that a human channel shows: an agent is its channel, also where it has spoken through the conversation
    /// store.
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

/// What a message carries beside text when it came through an api channel.
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
    /// Its media type.
    #[n(2)]
    pub mime_type: String,
    /// Bytes.
    #[n(3)]
    pub size: u64,
    /// Where the bytes lie; opaque to clients.
    #[n(4)]
    pub storage_key: String,
    /// The number of its binding to the message's conversation; `None`: it was given in another way.
    #[n(5)]
    pub claim: Option<u32>,
}

/// Why a message says nothing any more. Its words are in no record then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Gone {
    /// It was deleted.
    #[n(0)]
    Deleted,
    /// Its contact was erased.
    #[n(1)]
    Erased,
}

/// When its client says that a message was sent: milliseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct SentAt(#[n(0)] pub i64);

impl From<Millis> for SentAt {
    fn from(at: Millis) -> Self {
        Self(i64::try_from(at.0).unwrap_or(i64::MAX))
    }
}

/// What a message says; immutable once accepted, until its words are taken away.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    /// `user`, `assistant`, `system`, `tool`, `developer` or a word of the client's own.
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
    /// The client's own object (`metadata`, `meta_data`).
    #[n(4)]
    pub metadata: Option<Json>,
    /// The question it asks.
    #[n(5)]
    pub review: Option<Review>,
    /// Where every event of this message is sent.
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
    /// Calls of tools, an array of objects.
    #[n(10)]
    pub tool_calls: Option<Json>,
    /// The conversation API's `attachments` as they were given, an array of objects.
    #[n(11)]
    pub references: Option<Json>,
    /// Words to find it by.
    #[n(12)]
    pub tags: Option<Vec<String>>,
    /// When an imported message was sent, by its client's word; never used for order.
    #[n(13)]
    pub sent_at: Option<SentAt>,
    /// What it carries; `Text` unless it came through an api channel with media.
    #[n(14)]
    pub media: MediaKind,
    /// The api channel's `content` object of a media message: stored by earlier builds, and not read any more.
    #[n(15)]
    pub media_content: Option<Json>,
    /// Whether memories shall be drawn from it.
    #[n(16)]
    pub memories: bool,
    /// Files that its `references` name, for the conversation's own use.
    #[n(17)]
    pub mentions: Option<Vec<AttachmentId>>,
    /// Its words were taken away.
    #[n(18)]
    pub gone: Option<Gone>,
}

impl Content {
    /// A plain text.
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
            gone: None,
        }
    }

    /// The same without words and files: sender, time and thread stay, and so do the callback and the turn that a
    /// review's outcome still has to be sent to.
    #[must_use]
    pub fn without_words(&self, gone: Gone) -> Self {
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
            gone: Some(gone),
        }
    }

    /// Its words; those of a file without a caption are the file's name.
    #[must_use]
    pub fn words(&self) -> &str {
        let said = self.text.as_deref().filter(|text| !text.trim().is_empty());
        said.or_else(|| self.attachments.first().map(|file| file.filename.as_str())).unwrap_or_default()
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

/// The message that a new one answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// One that exists.
    Message(MessageId),
    /// An earlier one of the same batch, by its place there.
    Item(usize),
}

/// A message that a client asks to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// What it says.
    pub content: Arc<Content>,
    /// What it answers.
    pub parent: Option<Parent>,
    /// How long its review stays open, in milliseconds from its acceptance; `None`: until the time in `content`.
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
    /// What it answers.
    pub parent: Option<MessageId>,
    /// The turn that it asked for or that it is the outcome of.
    pub turn: Option<TurnId>,
    /// What it says.
    pub content: Arc<Content>,
}

impl Message {
    /// Why it says nothing any more, if that is so.
    #[must_use]
    pub fn gone(&self, overlay: &Overlay) -> Option<Gone> {
        if overlay.erased || self.content.gone == Some(Gone::Erased) {
            return Some(Gone::Erased);
        }
        self.content.gone.or(overlay.deleted.then_some(Gone::Deleted))
    }

    /// The message with the text that it was last given; `None` where its words are gone.
    #[must_use]
    pub fn as_edited(mut self, overlay: &Overlay) -> Option<Self> {
        if self.gone(overlay).is_some() {
            return None;
        }
        if let Some(text) = &overlay.text {
            Arc::make_mut(&mut self.content).text = Some(text.clone());
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
    /// Its content is gone on request; its place stays.
    #[n(4)]
    pub deleted: bool,
    /// Its content is gone because its contact was erased.
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
    /// The event that its review ended with, which says how and in whose words.
    #[n(10)]
    pub review_end: Option<u64>,
    /// An edit has taken its tags away.
    #[n(11)]
    pub untagged: Option<bool>,
}

/// About how many bytes an edit's text, metadata and tags have.
pub(crate) fn words_weight(text: Option<&str>, metadata: Option<&Json>, tags: Option<&[String]>) -> usize {
    text.map_or(0, str::len)
        + metadata.map_or(0, |metadata| metadata.as_str().len())
        + tags.iter().copied().flatten().map(String::len).sum::<usize>()
}

impl Overlay {
    /// About how many bytes its words and labels have.
    #[must_use]
    pub fn weight(&self) -> usize {
        words_weight(self.text.as_deref(), self.metadata.as_ref(), self.tags.as_deref())
    }

    /// About how many bytes it adds to what is shown: its words, and what was answered to the message's review.
    #[must_use]
    pub fn shown_weight(&self) -> usize {
        self.weight() + self.review.as_ref().map_or(0, ReviewState::weight)
    }

    /// The tags of a message that says this: the newest edit's, else its own.
    #[must_use]
    pub fn tags_of<'a>(&'a self, content: &'a Content) -> Option<&'a [String]> {
        if self.untagged == Some(true) { None } else { self.tags.as_deref().or(content.tags.as_deref()) }
    }

    /// What the tag of a human channel's message is of beside what the message says: when it was edited, and the
    /// metadata and tags that it was given then.
    #[must_use]
    pub fn labels(&self) -> (Option<u64>, Option<&str>, Option<&[String]>) {
        (self.updated_at.map(|at| at.0), self.metadata.as_ref().map(Json::as_str), self.tags.as_deref())
    }

    /// What is left of it when the message's words are taken away.
    #[must_use]
    pub fn without_words(&self, gone: Gone) -> Self {
        Self {
            updated_at: self.updated_at,
            deleted: gone == Gone::Deleted || self.deleted,
            erased: gone == Gone::Erased,
            review: self.review.as_ref().map(ReviewState::without_words),
            delivered_at: self.delivered_at,
            read_at: self.read_at,
            superseded_by: self.superseded_by,
            ..Self::default()
        }
    }
}
