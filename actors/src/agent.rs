//! Agents: how messages are answered, and with which model.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::conversation::{Failure, Usage};
use crate::deltas::Saying;
#[cfg(doc)]
use crate::limits;
use crate::message::Json;
use crate::tool::Called;
use crate::trace::TraceContext;

pub mod builtin;
pub(crate) mod chat;

/// Where an agent's words come from.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Provider {
    /// From this program, the same every time.
    #[n(0)]
    Builtin(#[n(0)] builtin::Builtin),
    /// From an endpoint that speaks the chat-completions protocol.
    #[n(1)]
    OpenAi {
        /// Its base URL, for example `https://api.example.com/v1`.
        #[n(0)]
        base_url: String,
        /// Sent as a bearer token; never shown.
        #[n(1)]
        api_key: Option<String>,
    },
}

/// A log line that shows an agent does not show its key.
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
    /// Its id, chosen by the client or made here.
    #[n(0)]
    pub id: String,
    /// What people call it.
    #[n(1)]
    pub name: String,
    /// Where its words come from.
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
    /// Tokens that a reply may have.
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
    /// What a thousand tokens that it reads cost, in thousandths of a credit; `None`: a credit.
    #[n(12)]
    pub input_price: Option<u32>,
    /// What a thousand tokens that it writes cost, in thousandths of a credit; `None`: a credit.
    #[n(13)]
    pub output_price: Option<u32>,
    /// Its endpoint is asked for whole answers and not for streams.
    #[n(14)]
    pub whole_answers: Option<bool>,
}

/// What a thousand tokens cost where the agent does not say, in thousandths of a credit.
pub const PRICE: u32 = 1_000;

impl Agent {
    /// An agent with nothing set that need not be.
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
            whole_answers: None,
        }
    }

    /// What so many tokens cost, a fraction of a thousandth of a credit counted as one.
    #[must_use]
    pub fn usage(&self, input_tokens: u64, output_tokens: u64, model: impl Into<String>) -> Usage {
        let cost = |tokens: u64, price: Option<u32>| u128::from(tokens) * u128::from(price.unwrap_or(PRICE));
        let cost = cost(input_tokens, self.input_price) + cost(output_tokens, self.output_price);
        let millicredits = u64::try_from(cost.div_ceil(1_000)).unwrap_or(u64::MAX);
        Usage { input_tokens, output_tokens, millicredits, model: model.into() }
    }
}

/// How long an attempt may take where the agent does not say.
pub const TIMEOUT_SECONDS: u32 = 120;

/// A message as a model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool` or `developer`.
    pub role: String,
    /// The words.
    pub text: String,
    /// The calls of tools that an assistant's message makes, as they are recorded.
    pub tool_calls: Option<Json>,
    /// The message's own object; that of a tool's message names the call that it answers.
    pub metadata: Option<Json>,
}

impl ChatMessage {
    /// Words alone.
    #[must_use]
    pub fn words(role: &str, text: impl Into<String>) -> Self {
        Self { role: role.to_owned(), text: text.into(), tool_calls: None, metadata: None }
    }
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The agent that answers.
    pub agent: Arc<Agent>,
    /// The conversation so far, oldest first; the last one is to be answered.
    pub messages: Vec<ChatMessage>,
    /// The call's place in a trace, or where it is not recorded that of what asked for it.
    pub trace: Option<TraceContext>,
    /// Where it says what it says before it is through.
    pub saying: Saying,
    /// Whether its endpoint was asked again.
    pub resent: Resent,
}

/// Whether a model's endpoint was asked a second time. Kept apart from the call, so that it is known of a call that
/// failed or was abandoned. Clones share the value.
#[derive(Clone, Debug, Default)]
pub struct Resent(Arc<AtomicBool>);

impl Resent {
    /// It is asked again.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its words: the replies, or what it says along with its calls.
    pub replies: Vec<String>,
    /// The tools that it calls. Where it calls any, it is asked again with their results.
    pub calls: Vec<Called>,
    /// What it cost.
    pub usage: Usage,
}

/// What a model said, or why it did not.
pub type Completion = Result<Said, Failure>;

/// The way to models that are not part of this program.
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
