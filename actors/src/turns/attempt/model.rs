//! An attempt's calls of the agent's model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Attempt;
use crate::agent::chat::Chat;
use crate::agent::{Completion, Prompt, Provider, builtin};
use crate::conversation::Conversation;
use crate::memories::recall::{Remembered, recall};
use crate::turns::context::Context;

/// Memories that a model gets without asking.
const MAX_PROMPT_MEMORIES: usize = 8;

impl Attempt<'_> {
    /// Calls the agent's model once.
    pub(super) async fn call_model(&self, context: &Context) -> Completion {
        let agent = &self.agent;
        let chat = Chat::begin(self.node, agent, self.conversation, self.trace);
        let trace = chat.trace;
        let recorded = chat.recorded();
        let exchange = chat.exchange.clone();
        let allowed = Duration::from_secs(u64::from(agent.timeout_seconds));
        let call = async {
            match &agent.provider {
                Provider::Builtin(builtin) => {
                    let fails = self.turn.rounds() == 0
                        && self.node.turns.counter.fails(self.entity.workspace, agent, builtin.fail_every);
                    let input = builtin::BuiltinInput {
                        agent,
                        builtin,
                        text: &context.question_text(),
                        results: &context.results(),
                        input_tokens: context.tokens(agent),
                        fails,
                    };
                    builtin::complete(&input, self.node.ports.tools.as_ref(), &self.deltas).await
                }
                Provider::OpenAi { .. } => {
                    let memories = self.recall(&context.question_text(), MAX_PROMPT_MEMORIES).await;
                    let messages = context.prompt(agent, &memories);
                    let deltas = self.deltas.clone();
                    let may_be_empty = context.said().is_some();
                    let prompt = Prompt { agent: Arc::clone(agent), messages, may_be_empty, trace, deltas, exchange };
                    self.node.ports.models.complete(prompt).await
                }
            }
        };
        let called_at = Instant::now();
        let completion = chat.within(allowed, call).await;
        // A model that does not stream sends everything at once.
        let first = self.deltas.first_sent_at().or_else(|| completion.is_ok().then(Instant::now));
        if let Some(first) = first.filter(|_| self.round == 0) {
            let took = first.saturating_duration_since(called_at);
            self.node.metrics.first_token.observe(took, recorded, || self.node.now());
        }
        completion
    }

    /// The memories; none if they cannot be read, because the turn works without them.
    pub(super) async fn recall(&self, query: &str, limit: usize) -> Vec<Remembered> {
        let remembered = async {
            match self.node.state::<Conversation>(self.entity).await? {
                Some(state) => recall(self.node, self.entity, &state, query, limit).await,
                None => Ok(Vec::new()),
            }
        };
        remembered.await.unwrap_or_else(|error| {
            tracing::warn!(entity = ?self.entity, %error, "could not recall memories");
            Vec::new()
        })
    }
}
