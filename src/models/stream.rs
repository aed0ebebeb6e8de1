//! A streamed answer, as server-sent events.
//!
//! Bytes become lines, lines events, events pieces of the answer. A chunk may end anywhere, even within a character;
//! every buffer is bounded.

use std::time::Duration;

use actors::agent::Prompt;
use actors::limits;
use actors::tool::Called;
use reqwest::Response;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answered, Content, MAX_CALLS, REPLY_BYTES, is_error, kept_id, words_of};
use super::fault::Fault;
use super::lone_surrogates;

/// The longest event, in bytes: a reply in one piece, with every character escaped.
const EVENT_BYTES: usize = 2 * 1024 * 1024;
/// The whole stream, in bytes: a reply of the longest kind a few characters at a time, with some hundred bytes around
/// each piece.
const STREAM_BYTES: usize = 32 * 1024 * 1024;
/// How long bytes after the end are read, so that the connection can be reused.
const REST_TIMEOUT: Duration = Duration::from_millis(20);
/// How long to wait for the usage and the end once a stream has given its finish reason: some servers send neither, and
/// keep the connection.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stream may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilenceLimits {
    /// The deadline of the first words or calls.
    pub(super) first: Instant,
    /// Between two pieces.
    pub(super) stall: Duration,
}

/// Lines of server-sent events, from bytes.
#[derive(Debug, Default)]
struct Events {
    /// The received part of an unfinished line.
    line: Vec<u8>,
    /// The data of an unfinished event.
    data: Vec<u8>,
    /// Whether the last line ended with a carriage return: a following line feed belongs to that end.
    after_return: bool,
    /// Whether a line has been received.
    begun: bool,
}

impl Events {
    /// The byte order mark, which may precede the first line (WHATWG HTML, section 9.2.6).
    const MARK: &[u8] = "\u{feff}".as_bytes();

    /// Takes bytes, and passes every event that they complete to `take`, until it returns that this was the last one.
    fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8]) -> Result<bool, Fault>) -> Result<bool, Fault> {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            if std::mem::take(&mut self.after_return) && piece == b"\n" {
                continue;
            }
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > EVENT_BYTES {
                return Err(Fault::TooLarge(EVENT_BYTES));
            }
            self.after_return = piece.ends_with(b"\r");
            if piece.ends_with(b"\n") || self.after_return {
                self.line.pop();
                if self.end_line(take)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The end of the bytes: an event without its empty line still counts.
    fn end(&mut self, take: &mut impl FnMut(&[u8]) -> Result<bool, Fault>) -> Result<bool, Fault> {
        Ok((!self.line.is_empty() && self.end_line(take)?) || self.end_event(take)?)
    }

    fn end_line(&mut self, take: &mut impl FnMut(&[u8]) -> Result<bool, Fault>) -> Result<bool, Fault> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.begun, true);
        let text = line.strip_prefix(Self::MARK).filter(|_| is_first).unwrap_or(&line);
        if text.is_empty() {
            return self.end_event(take);
        }
        // Comments, names and ids are not part of a completion.
        if let Some(data) = text.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        Ok(false)
    }

    fn end_event(&mut self, take: &mut impl FnMut(&[u8]) -> Result<bool, Fault>) -> Result<bool, Fault> {
        let data = std::mem::take(&mut self.data);
        if data.is_empty() { Ok(false) } else { take(&data) }
    }
}

/// A member's value; the default for `null`, which some servers send instead of leaving it out.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default, deserialize_with = "or_default")]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    model: Value,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default, deserialize_with = "or_default")]
    index: u64,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<Content>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
struct CallPiece {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionPiece>,
}

#[derive(Deserialize)]
struct FunctionPiece {
    name: Option<String>,
    arguments: Option<String>,
}

/// The received part of an answer.
struct Assembly<'a> {
    prompt: &'a Prompt,
    answered: Answered,
    /// The stream's own index of each call.
    numbers: Vec<u64>,
    /// Whether words or calls have been received.
    begun: bool,
    /// When the finish reason came, unless more words or calls came with or after it: some servers give a reason with
    /// every piece.
    ended: Option<Instant>,
}

impl Assembly<'_> {
    /// Takes an event; `true`: it was the last one.
    fn take(&mut self, data: &[u8]) -> Result<bool, Fault> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(true);
        }
        let chunk: Chunk = lone_surrogates::read(data).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                Fault::InvalidReply("has a chunk that is not part of a chat completion")
            }
            _ => Fault::InvalidReply("has a chunk that is not JSON"),
        })?;
        if chunk.choices.is_empty() && is_error(data) {
            return Err(Fault::Reported);
        }
        self.prompt.exchange.chunk();
        if !chunk.usage.is_null() {
            self.answered.usage = chunk.usage;
        }
        if self.answered.model.is_null() {
            self.answered.model = chunk.model;
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            let mut goes_on = false;
            if let Some(delta) = choice.delta {
                let words = words_of(delta.content, delta.refusal);
                let calls = delta.tool_calls.unwrap_or_default();
                goes_on = !words.is_empty() || !calls.is_empty();
                self.words(words)?;
                calls.into_iter().try_for_each(|piece| self.call(piece))?;
            }
            let reason = choice.finish_reason.filter(|reason| !reason.is_empty());
            if goes_on {
                self.ended = None;
            } else if reason.is_some() {
                self.ended.get_or_insert_with(Instant::now);
            }
            if reason.is_some() {
                self.answered.finish_reason = reason;
            }
        }
        Ok(false)
    }

    fn words(&mut self, words: String) -> Result<(), Fault> {
        if words.is_empty() {
            return Ok(());
        }
        if self.answered.text.len() + words.len() > REPLY_BYTES {
            return Err(Fault::TooLarge(REPLY_BYTES));
        }
        self.begun = true;
        self.answered.text.push_str(&words);
        self.prompt.deltas.send(0, &words);
        Ok(())
    }

    fn call(&mut self, piece: CallPiece) -> Result<(), Fault> {
        self.begun = true;
        let begins = piece.id.as_ref().is_some_and(|id| !id.is_empty());
        // Servers without call indices begin each call with its id.
        let number = piece.index.unwrap_or_else(|| {
            let last = self.numbers.last();
            last.map_or(0, |last| if begins { last.saturating_add(1) } else { *last })
        });
        let place = self.numbers.iter().position(|known| *known == number).unwrap_or_else(|| {
            self.numbers.push(number);
            self.answered.calls.push(Called { id: None, name: String::new(), arguments: String::new() });
            self.numbers.len() - 1
        });
        if self.numbers.len() > MAX_CALLS {
            return Err(Fault::InvalidReply("has invalid tool calls"));
        }
        let call = &mut self.answered.calls[place];
        if call.id.is_none() {
            call.id = piece.id.as_deref().and_then(kept_id);
        }
        if let Some(function) = piece.function {
            call.name.push_str(&function.name.unwrap_or_default());
            call.arguments.push_str(&function.arguments.unwrap_or_default());
        }
        if call.arguments.len() + call.name.len() > limits::CALL_BYTES {
            return Err(Fault::TooLarge(limits::CALL_BYTES));
        }
        Ok(())
    }
}

/// Reads a stream to its end, and forwards its pieces as they arrive.
pub(super) async fn read(mut response: Response, prompt: &Prompt, silence: SilenceLimits) -> Result<Answered, Fault> {
    let mut events = Events::default();
    let mut assembly =
        Assembly { prompt, answered: Answered::default(), numbers: Vec::new(), begun: false, ended: None };
    let mut bytes = 0;
    loop {
        let until = match assembly.ended {
            Some(ended) => ended + END_TIMEOUT,
            None if assembly.begun => Instant::now() + silence.stall,
            None => silence.first,
        };
        let late = if assembly.begun { Fault::Stalled } else { Fault::FirstToken };
        let chunk = match timeout_at(until, response.chunk()).await {
            Ok(chunk) => chunk,
            Err(_) if assembly.ended.is_some() => return Ok(assembly.answered),
            Err(_) => return Err(late),
        };
        let is_last = match chunk {
            Ok(Some(chunk)) => {
                bytes += chunk.len();
                if bytes > STREAM_BYTES {
                    return Err(Fault::TooLarge(STREAM_BYTES));
                }
                events.feed(&chunk, &mut |data| assembly.take(data))?
            }
            // A stream with a finish reason may lack the end mark.
            Ok(None) if events.end(&mut |data| assembly.take(data))? || assembly.answered.finish_reason.is_some() => {
                return Ok(assembly.answered);
            }
            Ok(None) | Err(_) => return Err(Fault::InvalidReply("was interrupted")),
        };
        if is_last {
            // Bytes behind the end do not matter; mostly it is the end of the body.
            let _ = timeout_at(Instant::now() + REST_TIMEOUT, response.chunk()).await;
            return Ok(assembly.answered);
        }
    }
}
