//! Agents: how messages are answered, and with which model.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::future::BoxFuture;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::conversation::{Failure, Usage};
use crate::deltas::DeltaSink;
#[cfg(doc)]
use crate::limits;
use crate::message::Json;
use crate::tool::Called;
use crate::trace::TraceContext;

pub mod builtin;
pub(crate) mod chat;

/// The source of an agent's replies.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Provider {
    /// This program, deterministically.
    #[n(0)]
    Builtin(#[n(0)] builtin::Builtin),
    /// An endpoint with the chat-completions protocol.
    #[n(1)]
    OpenAi {
        /// Its base URL, for example `https://api.example.com/v1`.
        #[n(0)]
        base_url: String,
        /// Sent as a bearer token; never returned to clients.
        #[n(1)]
        api_key: Option<String>,
    },
}

/// The output omits the key, so no log line contains it.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => f.debug_tuple("Builtin").field(builtin).finish(),
            Self::OpenAi { base_url, api_key } => {
                let api_key = api_key.as_ref().map(|_| "***");
                f.debug_struct("OpenAi").field("base_url", base_url).field("api_key", &api_key).finish()
            }
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Agent {
    /// Its id, chosen by the client or generated.
    #[n(0)]
    pub id: String,
    /// Its display name.
    #[n(1)]
    pub name: String,
    /// The source of its replies.
    #[n(2)]
    pub provider: Provider,
    /// The model's name.
    #[n(3)]
    pub model: Option<String>,
    /// The system prompt.
    #[n(4)]
    pub system_prompt: Option<String>,
    /// Sampling temperature in thousandths.
    #[n(5)]
    pub temperature_milli: Option<u32>,
    /// The most tokens of a reply.
    #[n(6)]
    pub max_output_tokens: Option<u32>,
    /// How long one attempt may take.
    #[n(7)]
    pub timeout_seconds: u32,
    /// Tools it may call, as given.
    #[n(8)]
    pub tools: Option<Json>,
    /// When it was made.
    #[n(9)]
    pub created_at: Millis,
    /// When it was last changed.
    #[n(10)]
    pub updated_at: Option<Millis>,
    /// Turns of it that may run at once; `None`: [`limits::AGENT_TURNS`].
    #[n(11)]
    pub concurrency: Option<u32>,
    /// The price of a thousand input tokens, in thousandths of a credit; `None`: a credit.
    #[n(12)]
    pub input_price: Option<u32>,
    /// The price of a thousand output tokens, in thousandths of a credit; `None`: a credit.
    #[n(13)]
    pub output_price: Option<u32>,
    /// Whether its endpoint is asked for complete answers instead of streams.
    #[n(14)]
    pub without_streaming: Option<bool>,
}

/// The price of a thousand tokens if the agent sets none, in thousandths of a credit.
pub const PRICE: u32 = 1_000;

impl Agent {
    /// An agent with only the required values.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>, provider: Provider, created_at: Millis) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            provider,
            model: None,
            system_prompt: None,
            temperature_milli: None,
            max_output_tokens: None,
            timeout_seconds: TIMEOUT_SECONDS,
            tools: None,
            created_at,
            updated_at: None,
            concurrency: None,
            input_price: None,
            output_price: None,
            without_streaming: None,
        }
    }

    /// The usage of these tokens with its cost, rounded up to a thousandth of a credit.
    #[must_use]
    pub fn usage(&self, input_tokens: u64, output_tokens: u64, model: impl Into<String>) -> Usage {
        let cost = |tokens: u64, price: Option<u32>| u128::from(tokens) * u128::from(price.unwrap_or(PRICE));
        let cost = cost(input_tokens, self.input_price) + cost(output_tokens, self.output_price);
        let millicredits = u64::try_from(cost.div_ceil(1_000)).unwrap_or(u64::MAX);
        Usage { input_tokens, output_tokens, millicredits, model: model.into() }
    }
}

/// How long an attempt may take if the agent sets nothing.
pub const TIMEOUT_SECONDS: u32 = 120;

/// A message as a model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool` or `developer`.
    pub role: String,
    /// The text.
    pub text: String,
    /// The calls of tools that an assistant's message makes, as they are recorded.
    pub tool_calls: Option<Json>,
    /// The message's metadata; in a tool's message it names the call that it answers.
    pub metadata: Option<Json>,
}

impl ChatMessage {
    /// A message with only text.
    #[must_use]
    pub fn text(role: &str, text: impl Into<String>) -> Self {
        Self { role: role.to_owned(), text: text.into(), tool_calls: None, metadata: None }
    }
}

/// The input of a model.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The agent that answers.
    pub agent: Arc<Agent>,
    /// The conversation so far, oldest first; the last one is to be answered.
    pub messages: Vec<ChatMessage>,
    /// The call's trace context, or if it is not recorded, that of its parent.
    pub trace: Option<TraceContext>,
    /// Whether an answer may be empty: the model has written text in this turn, beside its calls.
    pub may_be_empty: bool,
    /// The sink for pieces of the reply.
    pub deltas: DeltaSink,
    /// What happens at its endpoint, for the call's span.
    pub exchange: Exchange,
}

/// What happened between this program and a model's endpoint. Kept apart from the call's outcome, so that it is known
/// of a failed or abandoned call too. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Exchange(Arc<Exchanged>);

#[derive(Debug, Default)]
struct Exchanged {
    resent: AtomicBool,
    first_chunk: OnceLock<Instant>,
    finish_reason: OnceLock<&'static str>,
}

/// The protocol's reasons why a model ended its answer.
const FINISH_REASONS: [&str; 5] = ["stop", "length", "tool_calls", "function_call", "content_filter"];

impl Exchange {
    /// The request is sent again.
    pub fn resend(&self) {
        self.0.resent.store(true, Ordering::Relaxed);
    }

    /// Whether it was sent again.
    #[must_use]
    pub fn was_resent(&self) -> bool {
        self.0.resent.load(Ordering::Relaxed)
    }

    /// A chunk of a stream has arrived; the first one counts.
    pub fn chunk(&self) {
        self.0.first_chunk.get_or_init(Instant::now);
    }

    /// When the first chunk arrived; `None`: there was no stream.
    #[must_use]
    pub fn first_chunk(&self) -> Option<Instant> {
        self.0.first_chunk.get().copied()
    }

    /// The endpoint says why the model ended its answer. Only the protocol's own reasons are kept.
    pub fn finished(&self, reason: &str) {
        let reason = FINISH_REASONS.into_iter().find(|known| *known == reason).unwrap_or("_OTHER");
        self.0.finish_reason.get_or_init(|| reason);
    }

    /// Why the model ended its answer, if its endpoint has sent a reason.
    #[must_use]
    pub fn finish_reason(&self) -> Option<&'static str> {
        self.0.finish_reason.get().copied()
    }
}

/// The output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOutput {
    /// Its texts: the replies, or the text that accompanies its calls.
    pub replies: Vec<String>,
    /// The tool calls that it makes. If it calls any, it is called again with their results.
    pub calls: Vec<Called>,
    /// Its usage.
    pub usage: Usage,
}

/// The output of a model, or why there is none.
pub type Completion = Result<ModelOutput, Failure>;

/// The port to models outside this program.
pub trait Models: Send + Sync + 'static {
    /// Asks a model. Dropping the future cancels the call.
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion>;
}

/// No models but the builtin ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoModels;

impl Models for NoModels {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        let detail = format!("agent {} has a provider that is not available on this server", prompt.agent.id);
        Box::pin(async move { Err(Failure { code: "provider_unavailable".to_owned(), detail }) })
    }
}
