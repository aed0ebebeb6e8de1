//! Agents: who answers, and with which model.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::conversation::{Failure, Usage};
use crate::message::Json;
use crate::store::Table;
use crate::trace::TraceContext;

pub mod builtin;

/// Agents of a workspace by id.
pub const AGENTS: Table = Table(17);

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
    /// What the model is told first.
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
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Who answers.
    pub agent: Arc<Agent>,
    /// The conversation so far, oldest first; the last one is to be answered.
    pub messages: Vec<ChatMessage>,
    /// The trace of the request that asked for the turn.
    pub trace: Option<TraceContext>,
}

/// What a model said, or why it did not.
pub type Completion = Result<(Vec<String>, Usage), Failure>;

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
        let detail = format!("agent {} has a provider that this node cannot reach", prompt.agent.id);
        Box::pin(async move { Err(Failure { code: "provider_unavailable".to_owned(), detail }) })
    }
}
