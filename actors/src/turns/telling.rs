//! What is told of an attempt at a turn: the spans of the agent, of its model and of its tools, named as the conventions
//! for generative AI have it. What is said never stands in them.

use std::sync::Arc;

use super::attempt::Lost;
use crate::agent::{Agent, Completion, Provider};
use crate::conversation::{Failure, Turn, Usage};

use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};

/// An attempt at a turn, a part of what asked for it. One that nobody asked for in this process's time, because it goes
/// on after a stop, begins a trace.
pub(super) fn attempt(node: &Arc<Node>, turn: &Turn, cause: Option<TraceContext>) -> Span {
    let mut span = match cause {
        Some(_) => node.span(names::INVOKE_AGENT, SpanKind::Internal, cause),
        None => node.root_span(names::INVOKE_AGENT, SpanKind::Internal, Vec::new()),
    };
    named(&mut span, names::INVOKE_AGENT, Some(&turn.agent));
    if span.is_recorded() {
        span.set(names::GEN_AI_AGENT, turn.agent.clone());
        span.set(names::TURN_ID, turn.id.to_string());
    }
    span
}

/// How an attempt ended that has an outcome.
pub(super) fn finished<T>(span: &mut Span, outcome: &Result<T, Failure>) {
    if let Err(failure) = outcome {
        span.fail(failure.code.clone());
    }
}

/// Why an attempt has none.
pub(super) fn lost(span: &mut Span, lost: Option<&Lost>) {
    match lost {
        None => {}
        Some(Lost::Stale) => span.set(names::OUTCOME, "stale"),
        Some(Lost::Waits) => span.set(names::OUTCOME, "awaiting_review"),
        Some(Lost::Unavailable(_)) => span.fail("unavailable"),
    }
}

/// A call of the agent's model.
pub(super) fn chat(node: &Arc<Node>, agent: &Agent, cause: Option<TraceContext>) -> Span {
    let mut span = node.span(names::CHAT, SpanKind::Client, cause);
    named(&mut span, names::CHAT, agent.model.as_deref());
    let provider = match agent.provider {
        Provider::Builtin(_) => names::SYSTEM,
        Provider::OpenAi { .. } => "openai",
    };
    span.set(names::GEN_AI_PROVIDER, provider);
    if let Some(model) = agent.model.as_ref().filter(|_| span.is_recorded()) {
        span.set(names::GEN_AI_MODEL, model.clone());
    }
    span
}

/// What came of it.
pub(super) fn said(span: &mut Span, completion: &Completion) {
    match completion {
        Ok(said) => {
            let Usage { input_tokens, output_tokens, model, .. } = &said.usage;
            span.set(names::GEN_AI_INPUT, *input_tokens);
            span.set(names::GEN_AI_OUTPUT, *output_tokens);
            if span.is_recorded() {
                span.set(names::GEN_AI_ANSWERED_BY, model.clone());
            }
        }
        Err(failure) => span.fail(failure.code.clone()),
    }
}

/// A call of a tool.
pub(super) fn tool(node: &Arc<Node>, name: &str, call: &str, cause: Option<TraceContext>) -> Span {
    let mut span = node.span(names::EXECUTE_TOOL, SpanKind::Internal, cause);
    named(&mut span, names::EXECUTE_TOOL, Some(name));
    if span.is_recorded() {
        span.set(names::GEN_AI_TOOL, name.to_owned());
        span.set(names::GEN_AI_CALL, call.to_owned());
    }
    span
}

fn named(span: &mut Span, operation: &'static str, with: Option<&str>) {
    if let Some(with) = with {
        span.name(|| format!("{operation} {with}"));
    }
    span.set(names::GEN_AI_OPERATION, operation);
}
