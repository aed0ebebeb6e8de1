//! A call of an agent's model: its timeout, and its span and metrics, named by the semantic conventions for generative
//! AI. Neither contains any text of the conversation.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Agent, Completion, Exchange, Provider};
use crate::conversation::{Failure, Usage};
use crate::id::ConversationId;
use crate::metrics::{Label as _, ModelError, ModelOperation, ModelProvider, TokenType};
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, Value, current, names};

/// A call that is about to be made; its span ends with it.
pub(crate) struct Chat<'a> {
    node: &'a Node,
    span: Span,
    began: Instant,
    provider: ModelProvider,
    /// Its trace context, or if it is not recorded, that of its parent.
    pub(crate) trace: Option<TraceContext>,
    /// What happens at its endpoint.
    pub(crate) exchange: Exchange,
}

impl<'a> Chat<'a> {
    /// A call of the agent's model, for this conversation.
    pub(crate) fn begin(node: &'a Node, agent: &Agent, of: ConversationId, cause: Option<TraceContext>) -> Self {
        let began = Instant::now();
        let provider = provider(agent);
        let mut span = node.span(names::CHAT, SpanKind::Client, cause);
        name(&mut span, names::CHAT, agent.model.as_deref());
        span.set(names::GEN_AI_PROVIDER, provider.value());
        if span.is_recorded() {
            span.set(names::GEN_AI_CONVERSATION, of.to_string());
            if let Some(model) = &agent.model {
                span.set(names::GEN_AI_MODEL, model.clone());
            }
            if let Provider::OpenAi { base_url, .. } = &agent.provider {
                span.asks(base_url);
            }
        }
        Self { node, trace: span.context_or(cause), span, began, provider, exchange: Exchange::default() }
    }

    /// Its trace context if it is recorded.
    pub(crate) fn recorded(&self) -> Option<TraceContext> {
        self.span.recorded()
    }

    /// Makes the call and returns its outcome within `allowed`.
    pub(crate) async fn within(mut self, allowed: Duration, call: impl Future<Output = Completion>) -> Completion {
        let completion = timeout(allowed, current::within(self.trace, call)).await.unwrap_or_else(|_| {
            let detail = format!("the agent did not answer within {} s", allowed.as_secs());
            Err(Failure { code: "timeout".to_owned(), detail })
        });
        self.record(&completion);
        completion
    }

    /// Writes the outcome to the span and the metrics.
    fn record(&mut self, completion: &Completion) {
        let metrics = &self.node.metrics;
        let span = &mut self.span;
        let end = ModelError::of(completion.as_ref().err().map(|failure| failure.code.as_str()));
        let took = self.began.elapsed();
        let of = span.recorded();
        let now = || self.node.now();
        metrics.model_calls.of(ModelOperation::Chat).of(self.provider).of(end).used().observe(took, of, now);
        if self.exchange.was_resent() {
            span.set(names::HTTP_RESENT, 1_u32);
        }
        if let Some(first) = self.exchange.first_chunk() {
            span.set(names::GEN_AI_FIRST_CHUNK, first.saturating_duration_since(self.began).as_secs_f64());
        }
        if let Some(reason) = self.exchange.finish_reason().filter(|_| span.is_recorded()) {
            span.set(names::GEN_AI_FINISHED, Value::Words(vec![reason]));
        }
        match completion {
            Ok(output) => {
                let Usage { input_tokens, output_tokens, model, .. } = &output.usage;
                span.set(names::GEN_AI_INPUT, *input_tokens);
                span.set(names::GEN_AI_OUTPUT, *output_tokens);
                metrics.tokens.of(TokenType::Input).add(*input_tokens);
                metrics.tokens.of(TokenType::Output).add(*output_tokens);
                if span.is_recorded() {
                    span.set(names::GEN_AI_ANSWERED_BY, model.clone());
                }
            }
            Err(failure) => span.fail(failure.code.clone()),
        }
    }
}

/// The provider of the agent's model.
pub(crate) fn provider(agent: &Agent) -> ModelProvider {
    match agent.provider {
        Provider::Builtin(_) => ModelProvider::Builtin,
        Provider::OpenAi { .. } => ModelProvider::OpenAi,
    }
}

/// Names a span after its operation and the object `with` which it is done.
pub(crate) fn name(span: &mut Span, operation: &'static str, with: Option<&str>) {
    if let Some(with) = with {
        span.name(|| format!("{operation} {with}"));
    }
    span.set(names::GEN_AI_OPERATION, operation);
}
