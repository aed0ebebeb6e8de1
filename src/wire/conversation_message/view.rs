//! A message as the conversation API shows it, and its checksum.

use actors::message::{Attachment, Gone, Message, Overlay};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use sha2::{Digest, Sha256};

use crate::json::canonical::canonical;
use crate::wire::json_view::{Raw, Shown};
use crate::wire::time::Time;

/// A message in the conversation API's form; see [`conversation_view`].
#[derive(Debug, Serialize)]
pub struct ConversationView<'a> {
    conversation_id: Shown<actors::id::ConversationId>,
    sender_id: &'a str,
    content: &'a str,
    workspace_id: &'a str,
    created_at: Time,
    updated_at: Option<Time>,
    id: Shown<actors::id::MessageId>,
    role: &'a str,
    tool_calls: Option<Raw<'a>>,
    message_type: &'a str,
    tags: Option<&'a [String]>,
    checksum: String,
    attachments: Option<References<'a>>,
    parent_message_id: Option<Shown<actors::id::MessageId>>,
    meta_data: MetaData<'a>,
    sent_at: Time,
    owner_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

#[derive(Debug)]
struct MetaData<'a>(Option<Raw<'a>>);

impl Serialize for MetaData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(raw) => raw.serialize(serializer),
            None => serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?),
        }
    }
}

/// Attachments: as a conversation message gave them, or the files of a message that came in through a channel.
#[derive(Clone, Copy, Debug)]
enum References<'a> {
    Given(Raw<'a>),
    Files(&'a [Attachment]),
}

#[derive(Serialize)]
struct FileView<'a> {
    id: Shown<actors::id::AttachmentId>,
    filename: &'a str,
    mime_type: &'a str,
    size: u64,
}

impl Serialize for References<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(raw) => raw.serialize(serializer),
            Self::Files(files) => {
                let mut seq = serializer.serialize_seq(Some(files.len()))?;
                for file in *files {
                    seq.serialize_element(&FileView {
                        id: Shown(file.id),
                        filename: &file.filename,
                        mime_type: &file.mime_type,
                        size: file.size,
                    })?;
                }
                seq.end()
            }
        }
    }
}

/// The members that an edit or a deletion may have changed, as they are now.
struct Current<'a> {
    gone: Option<Gone>,
    text: &'a str,
    tool_calls: Option<Raw<'a>>,
    references: Option<References<'a>>,
}

impl<'a> Current<'a> {
    fn of(message: &'a Message, overlay: &'a Overlay) -> Self {
        let content = &message.content;
        if let Some(gone) = message.gone(overlay) {
            return Self { gone: Some(gone), text: "", tool_calls: None, references: None };
        }
        let files = Some(References::Files(&content.attachments)).filter(|_| !content.attachments.is_empty());
        Self {
            gone: None,
            text: overlay.text.as_deref().or(content.text.as_deref()).unwrap_or_default(),
            tool_calls: content.tool_calls.as_ref().map(Raw),
            references: content.references.as_ref().map(|json| References::Given(Raw(json))).or(files),
        }
    }
}

/// The message as the conversation API shows it: as it was accepted with an empty overlay, as it is now with its own.
#[must_use]
pub fn conversation_view<'a>(
    workspace_id: &'a str,
    message: &'a Message,
    overlay: &'a Overlay,
) -> ConversationView<'a> {
    let content = &message.content;
    let current = Current::of(message, overlay);
    let sent_at = Time(content.sent_at.unwrap_or(message.id.at));
    ConversationView {
        conversation_id: Shown(message.conversation),
        sender_id: &content.sender.id,
        content: current.text,
        workspace_id,
        created_at: sent_at,
        updated_at: overlay.updated_at.map(Time),
        id: Shown(message.id),
        role: &content.role,
        tool_calls: current.tool_calls,
        message_type: &content.message_type,
        tags: overlay.tags.as_deref().or(content.tags.as_deref()).filter(|_| current.gone.is_none()),
        checksum: checksum_of(message, &current),
        attachments: current.references,
        parent_message_id: message.parent.map(Shown),
        meta_data: MetaData(
            overlay.metadata.as_ref().or(content.metadata.as_ref()).filter(|_| current.gone.is_none()).map(Raw),
        ),
        sent_at,
        owner_id: message.owner.as_deref(),
        deleted: current.gone.is_some(),
        erased: current.gone == Some(Gone::Erased),
    }
}

/// `sha256:` and hex over the RFC 8785 form of role, sender, type, content, tool calls, attachments and parent, as the
/// message is now. A client can compute it from the answer.
#[must_use]
pub fn checksum(message: &Message, overlay: &Overlay) -> String {
    checksum_of(message, &Current::of(message, overlay))
}

/// The `ETag` header's value for any message: its checksum in quotes.
#[must_use]
pub fn etag(message: &Message, overlay: &Overlay) -> String {
    format!("\"{}\"", checksum(message, overlay))
}

/// RFC 8785 written out by hand: the members stand in their sorted order, and its strings are those of serde_json
/// (the shortest escapes, hex in lower case), so only what the client gave as JSON has to be put in canonical form.
fn checksum_of(message: &Message, current: &Current<'_>) -> String {
    #[derive(Serialize)]
    struct Rest<'a> {
        content: &'a str,
        message_type: &'a str,
        parent_message_id: Option<Shown<actors::id::MessageId>>,
        role: &'a str,
        sender_id: &'a str,
    }
    let rest = Rest {
        content: current.text,
        message_type: &message.content.message_type,
        parent_message_id: message.parent.map(Shown),
        role: &message.content.role,
        sender_id: &message.content.sender.id,
    };
    // Neither strings nor ids can fail to serialize, and stored JSON was checked when it came in.
    let mut hasher = Sha256::new();
    hasher.update(b"{\"attachments\":");
    let references = current.references.and_then(|references| serde_json::to_string(&references).ok());
    hasher.update(references.as_deref().map(canonical).as_deref().unwrap_or("null"));
    let rest = serde_json::to_string(&rest).unwrap_or_default();
    hasher.update(b",");
    hasher.update(rest.trim_start_matches('{').strip_suffix('}').unwrap_or_default());
    hasher.update(b",\"tool_calls\":");
    hasher.update(current.tool_calls.map(|raw| canonical(raw.0.as_str())).as_deref().unwrap_or("null"));
    hasher.update(b"}");
    let mut out = String::with_capacity(71);
    out.push_str("sha256:");
    for byte in hasher.finalize() {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    out
}
