//! Channel messages: one to a human channel, with or without a question.

pub mod payload;
pub mod review;
pub mod schema;
pub mod view;

use actors::clock::Millis;
use actors::id::MessageId;
use actors::message::{Attachment, Content, Json, Sender, SenderKind, Severity, role};

use crate::json::fields::{Fields, Items, Length, Value};
use crate::json::path::Path;
use crate::json::report::Report;
use crate::json::{Object, raw};
use crate::wire::bounds::METADATA;
use crate::wire::channel_message::review::ReviewPost;
use crate::wire::{Rules, url};

/// The longest text, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Files of one message.
pub const MAX_ATTACHMENTS: usize = 20;
/// The longest idempotency key, in characters.
pub const MAX_KEY_CHARS: usize = 255;

/// A request to post to a channel, checked as far as the body alone allows. If the report has faults, wrong members are
/// left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelPost {
    /// The channel's id; empty if the body had none.
    pub channel_id: String,
    /// The idempotency key in the body, quotes stripped.
    pub client_id: Option<String>,
    /// The text.
    pub text: Option<String>,
    /// How urgent it is.
    pub status: Option<Severity>,
    /// The question it asks.
    pub review: Option<ReviewPost>,
    /// The client's own object.
    pub metadata: Option<Json>,
    /// The URL that gets every event of this message.
    pub webhook_url: Option<String>,
    /// Uploads to link, each with its path, for a fault that only the store can show.
    pub attachment_ids: Vec<(Path, String)>,
    /// The earlier message that this one revises, as text; its pointer is `/iterationOf`.
    pub iteration_of: Option<String>,
}

/// The severities, by name.
const SEVERITIES: [(&str, Severity); 4] = [
    ("info", Severity::Info),
    ("success", Severity::Success),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
];

impl ChannelPost {
    /// Reads a body. `path_channel` is the channel of the route, if the route names one.
    pub fn read(body: Object<'_>, path_channel: Option<&str>, rules: Rules<'_>, report: &mut Report) -> Self {
        let mut fields = Fields::root(body, report);
        let mut post = Self { channel_id: channel_id(&mut fields, path_channel, report), ..Self::default() };
        post.client_id = fields.optional("clientId").and_then(|value| client_id(&value, report));
        let text = fields.optional("text");
        let status = fields.optional("status");
        let review = fields.optional("review");
        let attachments = fields.optional("attachmentIds");
        post.text = text.and_then(|value| value.string(report, Length::bytes(0, MAX_TEXT_BYTES))).map(Into::into);
        post.status = status.and_then(|value| value.choice(report, &SEVERITIES));
        post.review = review.and_then(|value| ReviewPost::read(&value, rules, report));
        post.metadata = fields.optional("metadata").and_then(|value| value.free_object(report, METADATA));
        post.webhook_url = fields.optional("webhookUrl").and_then(|value| url::read(&value, report, rules.allow));
        let file = |item: &Value<'_>, report: &mut Report| item.string(report, Length::ANY).map(Into::into);
        post.attachment_ids = attachments
            .and_then(|value| value.array(report))
            .and_then(|mut items| unique(&mut items, MAX_ATTACHMENTS, report, file))
            .unwrap_or_default();
        post.iteration_of = fields.string(report, "iterationOf", Length::ANY).map(std::borrow::Cow::into_owned);
        // A present but wrong member has its own fault; reporting it as missing too would mislead.
        let says_something = text.is_some_and(|value| value.raw.get() != "\"\"")
            || status.is_some()
            || review.is_some()
            || attachments.is_some_and(|value| raw::compact(value.raw.get()) != "[]");
        if !says_something {
            let message = "at least one of text, review, status and attachmentIds is required";
            report.fault(&Path::ROOT, "empty_message", message);
        }
        fields.finish(report);
        post
    }

    /// The message to store, with the data from the store filled in. `default_expiry` is the duration in milliseconds
    /// of a review without a deadline of its own.
    #[must_use]
    pub fn into_content(
        self,
        sender: Sender,
        attachments: Vec<Attachment>,
        iteration_of: Option<MessageId>,
        now: Millis,
        default_expiry: u64,
    ) -> Content {
        let role = if sender.kind == SenderKind::Agent { role::ASSISTANT } else { role::USER };
        Content {
            text: self.text,
            severity: self.status,
            metadata: self.metadata,
            review: self.review.map(|review| review.into_review(now, default_expiry)),
            webhook_url: self.webhook_url,
            attachments,
            iteration_of,
            ..Content::text(role, sender, "")
        }
    }
}

fn channel_id(fields: &mut Fields<'_>, path_channel: Option<&str>, report: &mut Report) -> String {
    let Some(of_path) = path_channel else {
        let id = fields.required_string(report, "channelId", Length::chars(1, usize::MAX));
        return id.map(Into::into).unwrap_or_default();
    };
    if let Some(value) = fields.optional("channelId")
        && let Some(of_body) = value.string(report, Length::ANY)
        && of_body != of_path
    {
        report.fault(&value.path, "channel_id_mismatch", "must be the channel in the path");
    }
    of_path.to_owned()
}

fn client_id(value: &Value<'_>, report: &mut Report) -> Option<String> {
    let text = value.string(report, Length::ANY)?;
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&text);
    if !Length::chars(1, MAX_KEY_CHARS).check(report, &value.path, bare) {
        return None;
    }
    if !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
        report.fault(&value.path, "invalid_idempotency_key", "must consist of visible ASCII characters");
        return None;
    }
    // Its quotes are removed when the key is compared with those of the headers.
    Some(text.into_owned())
}

/// The values of an array's items, at most `max` and no two equal, each with its path; nothing if there are more.
/// `read` returns an item's value, or reports its fault.
fn unique<'a, T: AsRef<str> + PartialEq>(
    items: &mut Items<'a>,
    max: usize,
    report: &mut Report,
    read: impl Fn(&Value<'a>, &mut Report) -> Option<T>,
) -> Option<Vec<(Path, T)>> {
    items.at_most(max, "items", report);
    let mut out: Vec<(Path, T)> = Vec::with_capacity(items.len().min(max));
    items.each(report, |item, report| {
        let Some(read) = read(&item, report) else { return };
        if out.iter().any(|(_, known)| *known == read) {
            report.fault(&item.path, "duplicate_value", format!("duplicate {:?}", read.as_ref()));
        } else {
            out.push((item.path, read));
        }
    });
    (items.len() <= max).then_some(out)
}

#[cfg(test)]
mod tests;
