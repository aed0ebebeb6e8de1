//! Contact messages: one on an api channel, answered by its agent in the same call.

pub mod content;
pub mod view;

use actors::contact::identifier::normalize_identifier;
use actors::message::{Attachment, Content, MediaKind, Sender, SenderKind, role};

pub use crate::wire::contact_message::content::ContactContent;

use crate::json::Object;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::wire::Rules;
use crate::wire::bounds::{NAME_OR_EMPTY, PRINCIPAL_ID};

/// The kinds of content, by name.
pub const KINDS: [(&str, MediaKind); 5] = [
    ("TEXT", MediaKind::Text),
    ("IMAGE", MediaKind::Image),
    ("AUDIO", MediaKind::Audio),
    ("VIDEO", MediaKind::Video),
    ("DOCUMENT", MediaKind::Document),
];

/// A contact's message, checked as far as the body alone allows. If the report has faults, wrong members are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContactPost {
    /// The sender's identifier, trimmed.
    pub identifier: String,
    /// The identifier by which contacts are compared.
    pub normalized_identifier: String,
    /// The name for a contact that is created by this message.
    pub contact_name: Option<String>,
    /// Whether memories of the contact are drawn from it once it is stored.
    pub memories: bool,
    /// Its content; `None` only if the report has faults.
    pub content: Option<ContactContent>,
}

impl ContactPost {
    /// Reads a body.
    pub fn read(body: Object<'_>, rules: Rules<'_>, report: &mut Report) -> Self {
        let mut fields = Fields::root(body, report);
        let kind = fields.required(report, "type").and_then(|value| value.choice(report, &KINDS));
        let identifier = read_identifier(&mut fields, "contactIdentifier", report);
        let contact_name = read_contact_name(&mut fields, "contactName", report);
        let memories = fields.optional("enableMemories").and_then(|value| value.boolean(report)).unwrap_or_default();
        let content = fields.required(report, "content").and_then(|value| content::read(&value, kind, rules, report));
        fields.finish(report);
        Self { normalized_identifier: normalize_identifier(&identifier), identifier, contact_name, memories, content }
    }
}

/// A contact's name; a blank one counts as absent.
pub fn read_contact_name(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> Option<String> {
    let name = fields.string(report, name, NAME_OR_EMPTY)?;
    (!name.trim().is_empty()).then(|| name.into_owned())
}

/// A contact's identifier, trimmed; empty only if the report has faults.
pub fn read_identifier(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> String {
    let Some(value) = fields.required(report, name) else { return String::new() };
    let Some(text) = value.string(report, Length::ANY) else { return String::new() };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        report.fault(&value.path, "required", format!("{name} must not be blank"));
    } else {
        PRINCIPAL_ID.check(report, &value.path, trimmed);
    }
    trimmed.to_owned()
}

impl ContactContent {
    /// The message to store; `contact_id` is its sender, `attachments` its fetched files.
    #[must_use]
    pub fn into_content(self, contact_id: String, attachments: Vec<Attachment>) -> Content {
        let sender = Sender { kind: SenderKind::Contact, id: contact_id };
        match self {
            Self::Text(text) => Content::text(role::USER, sender, text),
            Self::Media(media) => {
                Content { text: media.caption, attachments, media: media.kind, ..Content::text(role::USER, sender, "") }
            }
        }
    }
}

#[cfg(test)]
mod tests;
