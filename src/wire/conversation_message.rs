//! Conversation messages: one or more of them appended to a conversation.

pub mod item;
pub mod view;

pub use crate::wire::conversation_message::item::ConversationItem;

use crate::json::Object;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::wire::Rules;

/// Messages of one request.
pub const MAX_BATCH: usize = 100;

/// A request to append to a conversation, checked as far as the body alone allows. If the report has faults, wrong
/// members are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationPost {
    /// The conversation, as text; `None`: a new one. Its pointer is `/conversation_id`.
    pub conversation_id: Option<String>,
    /// The messages, in order.
    pub messages: Vec<ConversationItem>,
    /// Whether memories are to be drawn from them.
    pub enable_memories: bool,
    /// Whether `content` was an array.
    pub batch: bool,
}

impl ConversationPost {
    /// Reads a body. `path_conversation` is the conversation of the route, if the route names one.
    pub fn read(body: Object<'_>, path_conversation: Option<&str>, rules: Rules<'_>, report: &mut Report) -> Self {
        let mut fields = Fields::root(body, report);
        let mut post = Self::default();
        if let Some(value) = fields.required(report, "content") {
            (post.messages, post.batch) = items(&value, rules, report);
        }
        post.conversation_id = conversation_id(&mut fields, path_conversation, report);
        post.enable_memories =
            fields.optional("enable_memories").and_then(|value| value.boolean(report)).unwrap_or_default();
        fields.finish(report);
        post
    }
}

fn items(value: &Value<'_>, rules: Rules<'_>, report: &mut Report) -> (Vec<ConversationItem>, bool) {
    if value.is_object() {
        return (ConversationItem::read(value, 0, rules, report).into_iter().collect(), false);
    }
    if !value.is_array() {
        value.wrong_type(report, "an object or an array of objects");
        return (Vec::new(), false);
    }
    let Some(values) = value.array(report) else { return (Vec::new(), true) };
    if values.is_empty() {
        report.fault(&value.path, "empty_batch", "must have at least 1 message");
    } else if values.len() > MAX_BATCH {
        let message = format!("must have at most {MAX_BATCH} messages, has {}", values.len());
        report.fault(&value.path, "batch_too_large", message);
        return (Vec::new(), true);
    }
    let mut items = Vec::with_capacity(values.len());
    let mut index = 0;
    values.each(report, |value, report| {
        items.extend(ConversationItem::read(&value, index, rules, report));
        index += 1;
    });
    (items, true)
}

fn conversation_id(fields: &mut Fields<'_>, of_path: Option<&str>, report: &mut Report) -> Option<String> {
    let value = fields.optional("conversation_id");
    let of_body = value.and_then(|value| value.string(report, Length::ANY));
    let Some(of_path) = of_path else { return of_body.map(Into::into) };
    if let (Some(value), Some(of_body)) = (value, of_body)
        && of_body != of_path
    {
        report.fault(&value.path, "conversation_id_mismatch", "must be the conversation in the path");
    }
    Some(of_path.to_owned())
}

#[cfg(test)]
mod tests;
