//! Metrics and spans of an attempt at a turn and of its tools, named by the semantic conventions for generative AI.
//! They never contain the text of messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::Lost;
use crate::agent::{Agent, chat};
use crate::conversation::{Failure, Turn};
use crate::id::ConversationId;
use crate::metrics::{Label as _, TurnEnd};
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};

/// A running attempt at a turn: its span and its duration. Dropping it ends it.
pub(super) struct AttemptTelemetry {
    node: Arc<Node>,
    span: Span,
    began: Instant,
    /// The outcome that its duration counts for; `None`: none.
    end: Option<TurnEnd>,
}

impl AttemptTelemetry {
    /// An attempt that begins. The first one is a child of its turn's request, `requested_by`; a resumed one, after a
    /// loss or after people have answered, comes hours later and is linked to the request and to the cause of its
    /// resumption.
    pub(super) fn begin(
        node: &Arc<Node>,
        of: ConversationId,
        turn: &Turn,
        [requested_by, resumed_by]: [Option<TraceContext>; 2],
    ) -> Self {
        let mut span = match requested_by {
            Some(_) if turn.is_fresh() => node.span(names::INVOKE_AGENT, SpanKind::Internal, requested_by),
            _ => node.root_span(
                names::INVOKE_AGENT,
                SpanKind::Internal,
                requested_by.into_iter().chain(resumed_by).collect(),
            ),
        };
        chat::name(&mut span, names::INVOKE_AGENT, Some(&turn.agent));
        if span.is_recorded() {
            span.set(names::GEN_AI_AGENT, turn.agent.clone());
            span.set(names::GEN_AI_CONVERSATION, of.to_string());
            span.set(names::TURN_ID, turn.id.to_string());
        }
        // A stopped attempt gets no further calls.
        Self { node: Arc::clone(node), span, began: Instant::now(), end: Some(TurnEnd::Dropped) }
    }

    /// Its own trace context, or its cause's if it is not recorded.
    pub(super) fn context_or(&self, cause: Option<TraceContext>) -> Option<TraceContext> {
        self.span.context_or(cause)
    }

    /// Sets its agent.
    pub(super) fn set_agent(&mut self, agent: &Agent) {
        self.span.set(names::GEN_AI_PROVIDER, chat::provider(agent).value());
        if self.span.is_recorded() {
            self.span.set(names::GEN_AI_AGENT_NAME, agent.name.clone());
        }
    }

    /// It has got a permit to run, after this wait.
    pub(super) fn waited(&mut self, time: Duration) {
        self.span.set(names::TURN_WAITED_MS, time.as_millis() as u64);
    }

    /// It has an outcome.
    pub(super) fn finished<T>(&mut self, outcome: &Result<T, Failure>) {
        self.end = Some(TurnEnd::Completed);
        if let Err(failure) = outcome {
            self.end = Some(TurnEnd::Failed);
            self.span.fail(failure.code.clone());
        }
    }

    /// It has no outcome, or it was refused.
    pub(super) fn lost(&mut self, lost: &Lost) {
        self.end = Some(TurnEnd::Dropped);
        match lost {
            Lost::Stale => self.span.set(names::OUTCOME, "stale"),
            Lost::AwaitingPeople => {
                self.end = None;
                self.span.set(names::OUTCOME, "awaiting_review");
            }
            Lost::Unavailable(_) => self.span.fail("unavailable"),
        }
    }
}

impl Drop for AttemptTelemetry {
    fn drop(&mut self) {
        if let Some(end) = self.end {
            let now = || self.node.now();
            self.node.metrics.turn.of(end).observe(self.began.elapsed(), self.span.recorded(), now);
        }
    }
}

/// A call of a tool.
pub(super) fn tool(node: &Node, tool: &str, call: &str, cause: Option<TraceContext>) -> Span {
    let mut span = node.span(names::EXECUTE_TOOL, SpanKind::Internal, cause);
    chat::name(&mut span, names::EXECUTE_TOOL, Some(tool));
    if span.is_recorded() {
        span.set(names::GEN_AI_TOOL, tool.to_owned());
        span.set(names::GEN_AI_CALL, call.to_owned());
    }
    span
}
