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
    /// The turn that it asked for or resulted from.
    pub(super) turn: Option<TurnId>,
    /// A role that models know; `None`: a client's custom role, whose words are for no model and not here.
    pub(super) role: Option<&'static str>,
    /// Its words were removed.
    pub(super) is_gone: bool,
    /// The model's view: the words, and a line for each file, which it cannot see.
    text: Box<str>,
    /// Its words if they differ.
    words: Option<Box<str>>,
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
        let mut said = Self {
            id: message.id,
            parent: message.parent.map(|parent| parent.number),
            turn: message.turn,
            role: role::known(&message.content.role),
            is_gone: false,
            text: Box::default(),
            words: None,
            tool_calls: None,
            metadata: None,
            chars: 0,
        };
        let Some(message) = message.as_edited(overlay) else {
            said.is_gone = true;
            return said;
        };
        if said.role.is_some() {
            let content = &message.content;
            said.text = shown(content, tools);
            said.words = Some(content.words()).filter(|words| **words != *said.text).map(Box::from);
            said.tool_calls.clone_from(&content.tool_calls);
            said.metadata.clone_from(&content.metadata);
            said.count();
        }
        said
    }

    fn count(&mut self) {
        self.chars = self.text.chars().count() + self.calls().map_or(0, |calls| calls.as_str().chars().count());
    }

    /// The model's view beside the calls.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Its words; those of a file without a caption are its name.
    pub(super) fn words(&self) -> &str {
        self.words.as_deref().unwrap_or(&self.text)
    }

    /// The text to be answered: the words, or without any, the model's view of its files.
    pub(super) fn asks(&self) -> &str {
        if self.words().is_empty() { &self.text } else { self.words() }
    }

    /// The calls of an agent's message. Other messages have none.
    pub(super) fn calls(&self) -> Option<&Json> {
        self.tool_calls.as_ref().filter(|_| self.role == Some(role::ASSISTANT))
    }

    /// How many characters of it a model reads.
    pub(super) fn chars(&self) -> usize {
        self.chars
    }

    /// The same with the first `most` characters of its words, and a note of how much is left out.
    pub(super) fn shortened(&self, most: usize) -> Option<Self> {
        let (end, _) = self.text.char_indices().nth(most)?;
        let (beginning, rest) = self.text.split_at(end);
        let note = format!("\n[{} more characters of this result are omitted]", rest.chars().count());
        let mut short = Self { text: format!("{beginning}{note}").into(), words: None, ..self.clone() };
        short.count();
        Some(short)
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        let json = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
        let words = self.words.as_ref().map_or(0, |words| words.len());
        // Beside it are the reference counts, and the allocator's overhead for each piece.
        size_of::<Self>() + 48 + self.text.len() + words + json(&self.tool_calls) + json(&self.metadata)
    }
}

/// The words, and a line for each file.
fn shown(content: &Content, tools: &dyn Tools) -> Box<str> {
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
    fn a_model_reads_of_files_and_words_are_what_was_said_or_a_name() {
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
            assert_eq!((said.words(), said.text(), said.chars()), (words, &*shown, shown.len()));
        }
    }

    #[test]
    fn an_edited_message_has_the_text_of_its_newest_edit() {
        let edited = Overlay { text: Some("Too large".to_owned()), ..Overlay::default() };
        let said = said(text("user", "Too small"), &edited);
        assert_eq!((said.words(), said.text()), ("Too large", "Too large"));
    }

    #[test]
    fn deleted_text_and_text_of_unknown_roles_are_left_out() {
        let deleted = Overlay { deleted: true, ..Overlay::default() };
        let gone = said(text("assistant", "secret"), &deleted);
        assert_eq!((gone.role, gone.text(), gone.is_gone), (Some("assistant"), "", true));
        let own = said(text("narrator", "secret"), &Overlay::default());
        assert_eq!((own.role, own.text(), own.is_gone), (None, "", false));
    }
}
