//! A message in the conversation API's form, and its checksum.

use actors::message::{Attachment, Json, Message, Overlay, Removal};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::json::canonical::canonical;
use crate::json::write::{Members, array, string};
use crate::trace_context::hex_into;
use crate::wire::time;

/// A message in the conversation API's form; see [`conversation_view`].
#[derive(Debug)]
pub struct ConversationView<'a> {
    workspace_id: &'a str,
    message: &'a Message,
    overlay: &'a Overlay,
    current: Current<'a>,
}

impl ConversationView<'_> {
    /// Writes it as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { workspace_id, message, overlay, current } = self;
        let content = &message.content;
        let is_removed = current.removal.is_some();
        let sent_at = time::format_signed(content.sent_at.unwrap_or(message.id.at.into()).0);
        let mut members = Members::begin(out);
        members.plain("conversation_id", message.conversation);
        members.string("sender_id", &content.sender.id);
        members.string("content", current.text);
        members.string("workspace_id", workspace_id);
        members.plain("created_at", sent_at.as_str());
        match overlay.updated_at {
            Some(at) => members.plain("updated_at", time::format(at).as_str()),
            None => members.json("updated_at", NULL),
        }
        members.plain("id", message.id);
        members.string("role", &content.role);
        members.json("tool_calls", current.tool_calls.map_or(NULL, Json::as_str));
        members.string("message_type", &content.message_type);
        match overlay.tags_of(content).filter(|_| !is_removed) {
            Some(tags) => members.array("tags", tags, |out, tag| string(out, tag)),
            None => members.json("tags", NULL),
        }
        members.plain("checksum", checksum_of(message, current).as_str());
        match current.references {
            Some(References::Given(json)) => members.json("attachments", json.as_str()),
            Some(References::Files(files)) => members.array("attachments", files, file),
            None => members.json("attachments", NULL),
        }
        match message.parent {
            Some(parent) => members.plain("parent_message_id", parent),
            None => members.json("parent_message_id", NULL),
        }
        let metadata = overlay.metadata.as_ref().or(content.metadata.as_ref()).filter(|_| !is_removed);
        members.json("meta_data", metadata.map_or("{}", Json::as_str));
        members.plain("sent_at", sent_at.as_str());
        match &message.owner {
            Some(owner) => members.string("owner_id", owner),
            None => members.json("owner_id", NULL),
        }
        if is_removed {
            members.json("deleted", "true");
        }
        if current.removal == Some(Removal::Erased) {
            members.json("erased", "true");
        }
        members.end();
    }
}

const NULL: &str = "null";
/// About how many bytes of a rendered message are the names of its members, ids and times.
const VIEW_BYTES: usize = 512;

/// As a part of another value serialized with serde.
impl Serialize for ConversationView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        self.write(&mut text);
        serde_json::from_slice::<&RawValue>(&text).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Attachments: as given by a conversation message, or the files of a message that came through a channel.
#[derive(Clone, Copy, Debug)]
enum References<'a> {
    Given(&'a Json),
    Files(&'a [Attachment]),
}

fn file(out: &mut Vec<u8>, file: &Attachment) {
    let mut members = Members::begin(out);
    members.plain("id", file.id);
    members.string("filename", &file.filename);
    members.string("mime_type", &file.mime_type);
    members.json("size", &file.size.to_string());
    members.end();
}

/// The members that an edit or a deletion may change, with their current values.
#[derive(Debug)]
struct Current<'a> {
    removal: Option<Removal>,
    text: &'a str,
    tool_calls: Option<&'a Json>,
    references: Option<References<'a>>,
}

impl<'a> Current<'a> {
    fn of(message: &'a Message, overlay: &'a Overlay) -> Self {
        let content = &message.content;
        if let Some(removal) = message.removal(overlay) {
            return Self { removal: Some(removal), text: "", tool_calls: None, references: None };
        }
        let files = Some(References::Files(&content.attachments)).filter(|_| !content.attachments.is_empty());
        Self {
            removal: None,
            text: overlay.text_of(content).unwrap_or_default(),
            tool_calls: content.tool_calls.as_ref(),
            references: content.references.as_ref().map(References::Given).or(files),
        }
    }
}

/// About how many bytes the rendered message has.
#[must_use]
pub fn view_bytes(message: &Message, overlay: &Overlay) -> usize {
    VIEW_BYTES + message.content.weight() + overlay.weight()
}

/// The message in the conversation API's form: as accepted with an empty overlay, as it is now with its own.
#[must_use]
pub fn conversation_view<'a>(
    workspace_id: &'a str,
    message: &'a Message,
    overlay: &'a Overlay,
) -> ConversationView<'a> {
    ConversationView { workspace_id, message, overlay, current: Current::of(message, overlay) }
}

/// `sha256:` and hex over the RFC 8785 form of the message's current role, sender, type, content, tool calls,
/// attachments and parent. A client can compute it from the answer.
#[must_use]
pub fn checksum(message: &Message, overlay: &Overlay) -> String {
    checksum_of(message, &Current::of(message, overlay)).as_str().to_owned()
}

/// A checksum's text, on the stack.
struct Checksum([u8; 71]);

impl Checksum {
    fn as_str(&self) -> &str {
        // It contains only ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// RFC 8785 written by hand: the members are in their sorted order, and its strings are those of serde_json (the
/// shortest escapes, hex in lower case), so only JSON from the client has to be canonicalized.
fn checksum_of(message: &Message, current: &Current<'_>) -> Checksum {
    let content = &message.content;
    let mut text = Vec::with_capacity(256 + current.text.len());
    let mut members = Members::begin(&mut text);
    match current.references {
        Some(References::Given(json)) => members.json("attachments", &canonical(json.as_str())),
        Some(References::Files(files)) => {
            let mut text = Vec::new();
            array(&mut text, files, file);
            members.json("attachments", &canonical(std::str::from_utf8(&text).unwrap_or(NULL)));
        }
        None => members.json("attachments", NULL),
    }
    members.string("content", current.text);
    members.string("message_type", &content.message_type);
    match message.parent {
        Some(parent) => members.plain("parent_message_id", parent),
        None => members.json("parent_message_id", NULL),
    }
    members.string("role", &content.role);
    members.string("sender_id", &content.sender.id);
    match current.tool_calls {
        Some(json) => members.json("tool_calls", &canonical(json.as_str())),
        None => members.json("tool_calls", NULL),
    }
    members.end();
    let mut out = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
    hex_into(Sha256::digest(&text).as_slice(), &mut out[7..]);
    Checksum(out)
}
