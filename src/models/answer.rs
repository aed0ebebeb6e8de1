//! Parsing an answer: the first choice's text and tool calls, and the usage.

use actors::agent::{ModelOutput, Prompt};
use actors::limits;
use actors::tool::{Called, GIVEN_ID_BYTES};
use actors::usage::estimate;
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::lone_surrogates;
use crate::json::number::whole_number;

/// The bound of a reply, as of a conversation's message.
pub(super) const REPLY_BYTES: usize = 256 * 1024;
/// Calls of one answer that are kept while it arrives; only [`limits::ROUND_CALLS`] of them are made.
pub(super) const MAX_CALLS: usize = 64;
/// The longest name of a model, which is stored with every turn.
const MODEL_CHARS: usize = 128;
/// No model call reads or writes so many tokens. A higher count is ignored.
const MAX_TOKENS: u64 = 1_000_000_000;
/// The longest name of a tool, in bytes; a longer one names none.
const NAME_BYTES: usize = 256;

/// An answer, whole or assembled from a stream.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// The text, if there is any.
    pub(super) text: String,
    /// The calls.
    pub(super) calls: Vec<Called>,
    /// Why it ended.
    pub(super) finish_reason: Option<String>,
    /// Anything but a number in it counts as absent: a reply is not lost because of its usage data.
    pub(super) usage: Value,
    /// The model's name.
    pub(super) model: Value,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
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
    /// The refusal instead of it, if the model will not answer.
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    /// Only a text is an id.
    #[serde(default)]
    id: Value,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    /// A text in the protocol; some servers send the object itself.
    #[serde(default)]
    arguments: Value,
}

/// A model's text, in either of the protocol's forms.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a reply. Parts of other kinds (images, audio) have no text and are skipped.
#[derive(Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    pub(super) fn words(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

/// The text, or the refusal in its place.
pub(super) fn words_of(content: Option<Content>, refusal: Option<String>) -> String {
    let words = content.map(Content::words).filter(|words| !words.is_empty());
    words.or(refusal).unwrap_or_default()
}

/// Reads a whole answer.
pub(super) fn read(body: &[u8]) -> Result<Answered, Fault> {
    let answer: Answer = lone_surrogates::read(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data if is_error(body) => Fault::Reported,
        serde_json::error::Category::Data => Fault::InvalidReply("is not a chat completion"),
        _ => Fault::NotJson,
    })?;
    let Some(choice) = answer.choices.into_iter().next() else { return Err(Fault::EmptyReply) };
    let calls = choice.message.tool_calls.unwrap_or_default().into_iter().map(|Call { id, function }| Called {
        id: id.as_str().and_then(kept_id),
        name: function.name,
        arguments: match function.arguments {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        },
    });
    Ok(Answered {
        text: words_of(choice.message.content, choice.message.refusal),
        calls: calls.collect(),
        finish_reason: choice.finish_reason,
        usage: answer.usage,
        model: answer.model,
    })
}

/// Whether it is an error object with a success status.
pub(super) fn is_error(body: &[u8]) -> bool {
    let value: Option<Value> = lone_surrogates::read(body).ok();
    value.is_some_and(|value| value.get("error").is_some_and(|error| !error.is_null()))
}

/// The model's output from an answer, with the usage, estimated if the endpoint does not count.
pub(super) fn said(answered: Answered, prompt: &Prompt) -> Result<ModelOutput, Fault> {
    let Answered { text, mut calls, finish_reason, usage, model } = answered;
    calls.iter_mut().for_each(|call| lone_surrogates::mend(&mut call.arguments));
    if let Some(reason) = &finish_reason {
        prompt.exchange.finished(reason);
    }
    if finish_reason.as_deref() == Some("content_filter") {
        return Err(Fault::Filtered);
    }
    if text.trim().is_empty() && calls.is_empty() && !prompt.may_be_empty {
        return Err(Fault::EmptyReply);
    }
    if text.len() > REPLY_BYTES {
        return Err(Fault::TooLarge(REPLY_BYTES));
    }
    if calls.len() > MAX_CALLS || calls.iter().any(|call| call.name.len() > NAME_BYTES) {
        return Err(Fault::InvalidReply("has invalid tool calls"));
    }
    if calls.iter().any(|call| call.arguments.len() > limits::CALL_BYTES) {
        return Err(Fault::TooLarge(limits::CALL_BYTES));
    }
    let counted = |name: &str| usage.get(name).and_then(whole_number).filter(|count| *count <= MAX_TOKENS);
    let count = |name: &str, estimated: u64| counted(name).unwrap_or(estimated);
    let written =
        estimate(&text) + calls.iter().map(|call| estimate(&call.name) + estimate(&call.arguments)).sum::<u64>();
    let input_tokens = count("prompt_tokens", prompt.messages.iter().map(|said| estimate(&said.text)).sum());
    let output_tokens = count("completion_tokens", written);
    let model = model.as_str().filter(|model| !model.is_empty()).or(prompt.agent.model.as_deref());
    let model: String = model.unwrap_or("unknown").chars().take(MODEL_CHARS).collect();
    let replies = if text.trim().is_empty() { Vec::new() } else { vec![text] };
    let usage = prompt.agent.usage(input_tokens, output_tokens, model);
    Ok(ModelOutput { replies, calls, usage })
}

/// The id of a call, unless it is too long to be stored.
pub(super) fn kept_id(id: &str) -> Option<String> {
    (1..=GIVEN_ID_BYTES).contains(&id.len()).then(|| id.to_owned())
}
