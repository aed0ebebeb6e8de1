//! What is read of an answer: the first choice's words and what they cost.

use actors::agent::Prompt;
use actors::conversation::Usage;
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;

/// A reply has the bound of a conversation's message.
const REPLY_BYTES: usize = 256 * 1024;
/// A model's name is kept with every turn, so it may not be an essay.
const MODEL_CHARS: usize = 128;

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    /// Anything but a number in it counts as absent: a reply is not lost for its bill.
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    model: Value,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a reply. Parts of other kinds (pictures, sounds) have no words and are passed over.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    fn words(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

/// The first choice's words, and the usage, estimated where the endpoint does not count.
pub(super) fn read(body: &[u8], prompt: &Prompt) -> Result<(String, Usage), Fault> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Fault::InvalidReply("is not a chat completion"),
        _ => Fault::NotJson,
    })?;
    let usage = |name: &str, estimate: u64| answer.usage.get(name).and_then(Value::as_u64).unwrap_or(estimate);
    let Some(choice) = answer.choices.into_iter().next() else { return Err(Fault::EmptyReply) };
    if choice.finish_reason.as_deref() == Some("content_filter") {
        return Err(Fault::Filtered);
    }
    let reply = choice.message.content.map(Content::words).filter(|words| !words.trim().is_empty());
    let reply = reply.ok_or(Fault::EmptyReply)?;
    if reply.len() > REPLY_BYTES {
        return Err(Fault::TooLarge(REPLY_BYTES));
    }
    let input_tokens = usage("prompt_tokens", prompt.messages.iter().map(|said| tokens(&said.text)).sum());
    let output_tokens = usage("completion_tokens", tokens(&reply));
    let model = answer.model.as_str().filter(|model| !model.is_empty()).or(prompt.agent.model.as_deref());
    let model = model.unwrap_or("unknown").chars().take(MODEL_CHARS).collect();
    // A credit is a thousand tokens.
    let millicredits = input_tokens.saturating_add(output_tokens);
    Ok((reply, Usage { input_tokens, output_tokens, millicredits, model }))
}

/// About how many tokens a text is: four characters each, rounded up.
fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}
