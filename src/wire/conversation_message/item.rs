//! One message of a conversation request.

use actors::clock::Millis;
use actors::id::{AttachmentId, MessageId};
use actors::message::{Content, Json, Parent, Sender, SentAt, role};

use crate::json::Object;
use crate::json::fields::ObjectBounds;
use crate::json::fields::{Fields, Items, Length, Value};
use crate::json::path::Path;
use crate::json::raw;
use crate::json::report::Report;
use crate::wire::bounds::NAME_OR_EMPTY;
use crate::wire::{Rules, time};

/// The longest content, in bytes of UTF-8.
pub const MAX_CONTENT_BYTES: usize = 256 * 1024;
/// The largest `meta_data`, in bytes of compact JSON.
pub const META_DATA: ObjectBounds = ObjectBounds { bytes: 16 * 1024, depth: crate::json::MAX_DEPTH };
/// Tags of one message; equal ones are one.
pub const MAX_TAGS: usize = 32;
/// Tags of one message as received, equal ones counted too.
pub const MAX_TAGS_RECEIVED: usize = 4 * MAX_TAGS;
/// The longest tag, in characters, once it is trimmed.
pub const MAX_TAG_CHARS: usize = 64;
/// Attachments of one message that name an upload; each costs a look-up.
pub const MAX_UPLOADS: usize = 100;
/// How far ahead of the server's clock an imported message may be, in milliseconds.
pub const MAX_AHEAD_MILLIS: u64 = 5 * 60 * 1000;

/// One message, with every default but its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationItem {
    /// Its place in the batch.
    pub index: usize,
    /// The sender.
    pub role: String,
    /// The named sender; without one the key's principal, or the agent if the role is `assistant`.
    pub sender_id: Option<String>,
    /// The text; may be empty.
    pub text: String,
    /// Its type.
    pub message_type: String,
    /// Tool calls, an array of objects.
    pub tool_calls: Option<Json>,
    /// Attachments as given, an array of objects.
    pub references: Option<Json>,
    /// The attachments that name an upload: its id and its path, `/content/attachments/0/id`.
    pub reference_ids: Vec<(Path, String)>,
    /// The tags.
    pub tags: Option<Vec<String>>,
    /// The client's own object.
    pub meta_data: Option<Json>,
    /// When it was sent, by its client.
    pub sent_at: Option<SentAt>,
    /// Its parent.
    pub parent: Option<Parent>,
}

impl ConversationItem {
    /// Reads the item `index` of the batch; `None` only if it is not an object.
    pub(super) fn read(value: &Value<'_>, index: usize, rules: Rules<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = value.object(report)?;
        let tool_calls = fields.optional("tool_calls");
        let attachments = fields.optional("attachments");
        let has_more = [tool_calls, attachments].iter().flatten().any(|value| raw::compact(value.raw.get()) != "[]");
        let (references, reference_ids) = attachments.map(|value| references(&value, report)).unwrap_or_default();
        let item = Self {
            index,
            text: text(&mut fields, has_more, report),
            sender_id: named(&mut fields, "sender_id", NAME_OR_EMPTY, report),
            sent_at: fields.optional("created_at").and_then(|value| sent_at(&value, rules.now, report)),
            role: role(&mut fields, report),
            message_type: named(&mut fields, "message_type", Length::chars(0, 64), report)
                .unwrap_or_else(|| "text".to_owned()),
            tool_calls: tool_calls.and_then(|value| objects(&value, report).map(|_| value.json())),
            parent: fields.optional("parent_message_id").and_then(|value| parent(&value, index, report)),
            tags: fields.optional("tags").and_then(|value| read_tags(&value, report)),
            meta_data: fields.optional("meta_data").and_then(|value| value.free_object(report, META_DATA)),
            references,
            reference_ids,
        };
        fields.finish(report);
        Some(item)
    }

    /// The message to store and its parent.
    #[must_use]
    pub fn into_content(self, sender: Sender, memories: bool) -> (Content, Option<Parent>) {
        let mentions: Vec<_> = self.reference_ids.iter().filter_map(|(_, id)| AttachmentId::parse(id)).collect();
        let content = Content {
            mentions: Some(mentions).filter(|mentions| !mentions.is_empty()),
            metadata: self.meta_data,
            message_type: self.message_type,
            tool_calls: self.tool_calls,
            references: self.references,
            tags: self.tags,
            sent_at: self.sent_at,
            memories,
            ..Content::text(self.role, sender, self.text)
        };
        (content, self.parent)
    }
}

/// A name or id; blanks count as absent.
fn named(fields: &mut Fields<'_>, name: &'static str, length: Length, report: &mut Report) -> Option<String> {
    fields.string(report, name, length).filter(|text| !text.trim().is_empty()).map(Into::into)
}

/// The text. With tool calls or attachments it may be empty, and clients of model APIs then send `null`.
fn text(fields: &mut Fields<'_>, has_more: bool, report: &mut Report) -> String {
    let Some(value) = fields.optional("content") else {
        if !has_more {
            fields.missing(report, "content");
        }
        return String::new();
    };
    let Some(text) = value.string(report, Length::bytes(0, MAX_CONTENT_BYTES)) else { return String::new() };
    if text.is_empty() && !has_more {
        report.fault(&value.path, "required", "content may be empty only with tool_calls or attachments");
    }
    text.into_owned()
}

fn role(fields: &mut Fields<'_>, report: &mut Report) -> String {
    let Some(value) = fields.optional("role") else { return role::USER.to_owned() };
    let Some(text) = value.string(report, Length::ANY) else { return String::new() };
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
    if !fits {
        let message = "must be one of user, assistant, system, tool, developer, or 1 to 32 of a-z and _";
        report.fault(&value.path, "invalid_role", message);
    }
    text.into_owned()
}

fn sent_at(value: &Value<'_>, now: Millis, report: &mut Report) -> Option<SentAt> {
    let text = value.string(report, Length::ANY)?;
    let latest = SentAt::from(now.plus(MAX_AHEAD_MILLIS));
    let refusal = match time::parse(&text).map(SentAt) {
        None => "must be an RFC 3339 date-time with an offset, such as 2025-01-01T00:00:00Z",
        Some(at) if at <= latest => return Some(at),
        Some(_) => "must not be more than 5 minutes in the future",
    };
    report.fault(&value.path, "invalid_datetime", refusal);
    None
}

/// The items of an array, each of which must be an object.
fn objects<'a>(value: &Value<'a>, report: &mut Report) -> Option<Items<'a>> {
    let items = value.array(report)?;
    items.each(report, |item, report| {
        if !item.is_object() {
            item.wrong_type(report, "an object");
        }
    });
    Some(items)
}

fn references(value: &Value<'_>, report: &mut Report) -> (Option<Json>, Vec<(Path, String)>) {
    let Some(items) = objects(value, report) else { return (None, Vec::new()) };
    let mut ids = Vec::new();
    items.each(report, |item, report| {
        // One too many is enough.
        if ids.len() <= MAX_UPLOADS {
            ids.extend(named_upload(&item, report));
        }
    });
    if ids.len() > MAX_UPLOADS {
        report.fault(&value.path, "too_many", format!("must name at most {MAX_UPLOADS} uploads"));
    }
    (Some(value.json()), ids)
}

/// The upload that an attachment names, if it names one: its id and the id's path.
fn named_upload(item: &Value<'_>, report: &mut Report) -> Option<(Path, String)> {
    let object = Object::from_raw(item.raw)?;
    // JSON parsers disagree on which of two equal names counts, so the `id` in use might not be the checked one.
    if object.repeated().contains(&"id") {
        report.fault(&item.path.name("id"), "duplicate_field", "must occur only once");
        return None;
    }
    let raw = object.get("id").filter(|raw| raw.get() != "null")?;
    let id = Value { raw, path: item.path.name("id") };
    let text = id.string(report, Length::ANY)?;
    Some((id.path, text.into_owned()))
}

/// A message by its id, or by `#n` an earlier one of the same batch. A value of neither form names no message.
fn parent(value: &Value<'_>, index: usize, report: &mut Report) -> Option<Parent> {
    let text = value.string(report, Length::ANY)?;
    let found = match text.strip_prefix('#') {
        // One item has one name.
        Some(number)
            if number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0')) =>
        {
            number.parse().ok().filter(|number| *number < index).map(Parent::Item)
        }
        Some(_) => None,
        None => MessageId::parse(&text).map(Parent::Message),
    };
    if found.is_none() {
        let message = "must be a message of this conversation or, as #0 and so on, an earlier item of this batch";
        report.fault(&value.path, "parent_not_found", message);
    }
    found
}

/// Tags: trimmed, each once, in their order.
pub fn read_tags(value: &Value<'_>, report: &mut Report) -> Option<Vec<String>> {
    let mut items = value.array(report)?;
    items.read_first(MAX_TAGS_RECEIVED);
    let mut tags: Vec<String> = Vec::with_capacity(items.len().min(MAX_TAGS));
    items.each(report, |item, report| {
        let Some(text) = item.string(report, Length::ANY) else { return };
        let tag = text.trim();
        Length::chars(1, MAX_TAG_CHARS).check(report, &item.path, tag);
        // One too many is enough.
        if tags.len() <= MAX_TAGS && tags.iter().all(|known| known != tag) {
            tags.push(tag.to_owned());
        }
    });
    if tags.len() > MAX_TAGS {
        report.fault(&value.path, "too_many", format!("must have at most {MAX_TAGS} different tags"));
    } else if items.len() > MAX_TAGS_RECEIVED {
        let message = format!("must have at most {MAX_TAGS_RECEIVED} tags, equal ones too, has {}", items.len());
        report.fault(&value.path, "too_many", message);
    }
    Some(tags)
}
