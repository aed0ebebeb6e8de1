//! The parts of a message that a turn needs.

use crate::id::{MessageId, TurnId};
use crate::message::{Attachment, Content, Json, Message, Overlay, role};
use crate::tool::Tools;

/// A message's position and sender, and the part that a model reads. It takes a third of the message's memory, and many
/// stay in memory.
#[derive(Clone, Debug)]
pub(super) struct PromptMessage {
    pub(super) id: MessageId,
    /// The sequence of its parent.
    pub(super) parent: Option<u64>,
    /// The turn that it requested or resulted from.
    pub(super) turn: Option<TurnId>,
    /// A role that models know; `None`: a client's custom role, whose text no model gets and this does not have.
    pub(super) role: Option<&'static str>,
    /// Its content was removed.
    pub(super) is_removed: bool,
    /// What a model reads: the text, and a line for each file, which it cannot see.
    rendered: Box<str>,
    /// The text, or a file's name without any, if that differs.
    text: Option<Box<str>>,
    /// Its tool calls.
    pub(super) tool_calls: Option<Json>,
    /// Its metadata.
    pub(super) metadata: Option<Json>,
    /// How many characters of it a model reads.
    chars: usize,
}

impl PromptMessage {
    /// From the message's current content.
    pub(super) fn of(message: Message, overlay: &Overlay, tools: &dyn Tools) -> Self {
        let mut prompt = Self {
            id: message.id,
            parent: message.parent.map(|parent| parent.number),
            turn: message.turn,
            role: role::known(&message.content.role),
            is_removed: false,
            rendered: Box::default(),
            text: None,
            tool_calls: None,
            metadata: None,
            chars: 0,
        };
        let Some(message) = message.as_edited(overlay) else {
            prompt.is_removed = true;
            return prompt;
        };
        if prompt.role.is_some() {
            let content = &message.content;
            prompt.rendered = render(content, tools);
            prompt.text = Some(content.text_or_filename()).filter(|text| **text != *prompt.rendered).map(Box::from);
            prompt.tool_calls.clone_from(&content.tool_calls);
            prompt.metadata.clone_from(&content.metadata);
            prompt.count();
        }
        prompt
    }

    fn count(&mut self) {
        self.chars = self.rendered.chars().count() + self.calls().map_or(0, |calls| calls.as_str().chars().count());
    }

    /// What a model reads, apart from the calls.
    pub(super) fn rendered(&self) -> &str {
        &self.rendered
    }

    /// Its text; for a file without a caption, the file's name.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.rendered)
    }

    /// The text to be answered; for a message without text, the lines of its files.
    pub(super) fn question_text(&self) -> &str {
        if self.text().is_empty() { &self.rendered } else { self.text() }
    }

    /// The calls of an agent's message. Other messages have none.
    pub(super) fn calls(&self) -> Option<&Json> {
        self.tool_calls.as_ref().filter(|_| self.role == Some(role::ASSISTANT))
    }

    /// How many characters of it a model reads.
    pub(super) fn chars(&self) -> usize {
        self.chars
    }

    /// The message with only the first `most` characters, and a note of how many are omitted; `None` if it is not
    /// longer.
    pub(super) fn shortened(&self, most: usize) -> Option<Self> {
        let (end, _) = self.rendered.char_indices().nth(most)?;
        let (beginning, rest) = self.rendered.split_at(end);
        let note = format!("\n[{} more characters of this result are omitted]", rest.chars().count());
        let mut short = Self { rendered: format!("{beginning}{note}").into(), text: None, ..self.clone() };
        short.count();
        Some(short)
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        let json = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
        let text = self.text.as_ref().map_or(0, |text| text.len());
        // In addition there are the reference counts, and the allocator's overhead for each piece.
        size_of::<Self>() + 48 + self.rendered.len() + text + json(&self.tool_calls) + json(&self.metadata)
    }
}

/// The text, and a line for each file.
fn render(content: &Content, tools: &dyn Tools) -> Box<str> {
    let text = content.text.as_deref().unwrap_or_default();
    let line =
        |file: &Attachment| format!("[attached file: {}, {}, {} bytes]", file.filename, file.mime_type, file.size);
    let named = content.references.as_ref().map(|references| tools.files_of(references)).unwrap_or_default();
    let mut lines: Vec<String> = content.attachments.iter().map(line).chain(named).collect();
    if lines.is_empty() {
        return text.into();
    }
    if !text.is_empty() {
        lines.insert(0, text.to_owned());
    }
    lines.join("\n").into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Millis;
    use crate::id::{Address, AttachmentId, ConversationId};
    use crate::message::{MediaKind, Sender, SenderKind};
    use crate::tool::NoTools;

    fn said(content: Content, overlay: &Overlay) -> PromptMessage {
        let conversation = ConversationId::new(Millis(1), Address([1; 10]));
        let id = MessageId::new(Millis(1), conversation.address, 1);
        let message = Message { id, conversation, owner: None, parent: None, turn: None, content: Arc::new(content) };
        PromptMessage::of(message, overlay, &NoTools)
    }

    fn text(role: &str, text: &str) -> Content {
        Content::text(role, Sender { kind: SenderKind::User, id: "ana".to_owned() }, text)
    }

    #[test]
    fn a_prompt_names_files_and_quotes_text_as_it_was_sent() {
        let file = Attachment {
            id: AttachmentId::new(Millis(1), Address([2; 10])),
            filename: "shoe.png".to_owned(),
            mime_type: "image/png".to_owned(),
            size: 7,
            storage_key: String::new(),
            claim: None,
        };
        let line = "[attached file: shoe.png, image/png, 7 bytes]";
        for (caption, words, shown) in [("", "shoe.png", line.to_owned()), ("Small", "Small", format!("Small\n{line}"))]
        {
            let files = vec![file.clone()];
            let content = Content { attachments: files, media: MediaKind::Image, ..text("user", caption) };
            let said = said(content, &Overlay::default());
            assert_eq!((said.text(), said.rendered(), said.chars()), (words, &*shown, shown.len()));
        }
    }

    #[test]
    fn an_edited_message_has_the_text_of_its_newest_edit() {
        let edited = Overlay { text: Some("Too large".to_owned()), ..Overlay::default() };
        let said = said(text("user", "Too small"), &edited);
        assert_eq!((said.text(), said.rendered()), ("Too large", "Too large"));
    }

    #[test]
    fn deleted_text_and_text_of_unknown_roles_are_left_out() {
        let deleted = Overlay { deleted: true, ..Overlay::default() };
        let gone = said(text("assistant", "secret"), &deleted);
        assert_eq!((gone.role, gone.rendered(), gone.is_removed), (Some("assistant"), "", true));
        let own = said(text("narrator", "secret"), &Overlay::default());
        assert_eq!((own.role, own.rendered(), own.is_removed), (None, "", false));
    }
}
