//! The content of a contact's message: a text, or a file by its URL.

use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::wire::filename::{MAX_FILENAME_CHARS, basename, from_url};
use crate::wire::{Rules, url as wire_url};
use actors::message::MediaKind;

/// The longest text, in bytes of UTF-8.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest caption, in characters.
pub const MAX_CAPTION_CHARS: usize = 1_024;

/// The member of `content` that each type names.
const MEMBERS: [(&str, MediaKind); 5] = [
    ("text", MediaKind::Text),
    ("image", MediaKind::Image),
    ("audio", MediaKind::Audio),
    ("video", MediaKind::Video),
    ("document", MediaKind::Document),
];

/// The content of a contact's message.
#[derive(Clone, Debug, PartialEq)]
pub enum ContactContent {
    /// A text.
    Text(String),
    /// A file to fetch.
    Media(Media),
}

/// A file to fetch before the message is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// The required kind of file.
    pub kind: MediaKind,
    /// Its URL; the pointer is `/content/image/url` and so on, see [`Media::url_pointer`].
    pub url: String,
    /// Its caption.
    pub caption: Option<String>,
    /// The given name of a document, else the last part of the URL's path, if it has one.
    pub filename: Option<String>,
}

impl Media {
    /// The URL's pointer in the body, for a fault that only fetching can find.
    #[must_use]
    pub fn url_pointer(&self) -> String {
        format!("/content/{}/url", member_of(self.kind))
    }
}

/// The member of `content` that a type names.
pub(super) fn member_of(kind: MediaKind) -> &'static str {
    MEMBERS.iter().find(|(_, known)| *known == kind).map_or("text", |(name, _)| name)
}

/// Reads `content`, which must have the member that `kind` names and no other. Without a known type each present member
/// is checked by its own name.
pub(super) fn read(
    value: &Value<'_>,
    kind: Option<MediaKind>,
    rules: Rules<'_>,
    report: &mut Report,
) -> Option<ContactContent> {
    let mut fields = value.object(report)?;
    let mut content = None;
    let mut mismatch = false;
    for (name, member_kind) in MEMBERS {
        let Some(member) = fields.optional(name) else { continue };
        match kind {
            Some(kind) if kind != member_kind => {
                let message = format!("type allows only content.{}", member_of(kind));
                report.fault(&member.path, "content_type_mismatch", message);
                mismatch = true;
            }
            _ => content = read_member(&member, member_kind, rules, report),
        }
    }
    if let Some(kind) = kind
        && !mismatch
        && fields.optional(member_of(kind)).is_none()
    {
        let message = format!("type requires content.{}, which is missing", member_of(kind));
        report.fault(&value.path, "content_type_mismatch", message);
    }
    fields.finish(report);
    content
}

fn read_member(member: &Value<'_>, kind: MediaKind, rules: Rules<'_>, report: &mut Report) -> Option<ContactContent> {
    let mut fields = member.object(report)?;
    let read = match kind {
        MediaKind::Text => body(&mut fields, report).map(ContactContent::Text),
        _ => media(&mut fields, kind, rules, report).map(ContactContent::Media),
    };
    fields.finish(report);
    read
}

fn body(fields: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let value = fields.required(report, "body")?;
    let text = value.string(report, Length::bytes(0, MAX_BODY_BYTES))?;
    if text.trim().is_empty() {
        report.fault(&value.path, "required", "body must not be blank");
        return None;
    }
    Some(text.into_owned())
}

fn media(fields: &mut Fields<'_>, kind: MediaKind, rules: Rules<'_>, report: &mut Report) -> Option<Media> {
    let url = fields.required(report, "url").and_then(|value| wire_url::read_of_file(&value, report, rules.allow));
    // Audio has no caption in the API; a given one is unknown like any other member.
    let caption = match kind {
        MediaKind::Audio => None,
        _ => fields.string(report, "caption", Length::chars(0, MAX_CAPTION_CHARS)),
    };
    let filename = match kind {
        MediaKind::Document => fields.string(report, "filename", Length::chars(0, MAX_FILENAME_CHARS)),
        _ => None,
    };
    let url = url?;
    let filename = filename.as_deref().and_then(basename).or_else(|| from_url(&url));
    Some(Media { kind, filename, caption: caption.map(Into::into), url })
}
