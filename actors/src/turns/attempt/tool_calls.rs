//! An attempt's tool calls: recorded, then made at the same time, then their results recorded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::{Attempt, COMMAND_RETRY_TIMEOUT, Lost};
use crate::agent::ModelOutput;
use crate::conversation::{Call, CallResults, Step, TurnStatus, Wait};
use crate::id::MessageId;
use crate::limits;
use crate::message::{Content, Sender, SenderKind, role};
use crate::tasks::backoff::retry_transient;
use crate::tool::{Called, Fetched, Invocation, Plan, given_ids};
use crate::trace::{Span, current, names};
use crate::turns::attempt_telemetry;

/// A recorded call that is to be made.
struct DueCall {
    id: String,
    plan: Plan,
    span: Span,
}

/// The outcome of a call.
pub(super) enum CallOutcome {
    /// The tool's result, even if it reports a failure.
    Result(String),
    /// The call became a review; the turn waits for it.
    AsksPeople(Wait),
}

impl Attempt<'_> {
    /// Records the calls of a model, makes them, and records their results.
    pub(super) async fn call_tools(&mut self, output: ModelOutput, branch: Option<MessageId>) -> Result<(), Lost> {
        self.round += 1;
        let tools = &self.node.ports.tools;
        let calls: Vec<Called> = output.calls.into_iter().take(limits::ROUND_CALLS).collect();
        let number = self.turn.id.number;
        let attempt = self.turn.attempt;
        let round = self.round;
        let ids: Vec<String> =
            (0..calls.len()).map(|place| format!("call_{number}_{attempt}_{round}_{place}")).collect();
        let given = given_ids(&calls, &ids);
        let named = ids.into_iter().zip(given).zip(calls);
        let (invocations, spans): (Vec<Invocation>, Vec<Span>) =
            named.map(|((id, given), called)| self.invocation(id, given, called)).unzip();
        let mut plans = Vec::with_capacity(invocations.len());
        let mut recorded = Vec::with_capacity(invocations.len());
        for (invocation, span) in invocations.iter().zip(spans) {
            let plan = if invocation.called.arguments.len() > limits::CALL_BYTES {
                Plan::Answer(tools.failed("too_large", "the arguments are too large"))
            } else {
                tools.plan(invocation)
            };
            let ask = match &plan {
                Plan::Ask(ask) => Some(ask.as_ref().clone()),
                _ => None,
            };
            let id = invocation.id.clone();
            let name = invocation.called.name.clone();
            let given = invocation.given.clone();
            recorded.push(Call { id: id.clone(), name, ask, wait: None, answered: false, given });
            plans.push(DueCall { id, plan, span });
        }
        let sender = Sender { kind: SenderKind::Agent, id: self.turn.agent.clone() };
        let text = output.replies.join("\n");
        let tool_calls = Some(tools.recorded(&invocations));
        let step = Step {
            attempt: self.turn.current(),
            message: Arc::new(Content { tool_calls, ..Content::text(role::ASSISTANT, sender, text) }),
            calls: recorded,
            branch,
            usage: output.usage,
        };
        self.turn = self.offer(step).await?;
        self.make_calls(plans).await
    }

    /// A call, and the span that its work belongs to.
    fn invocation(&self, id: String, given: Option<String>, called: Called) -> (Invocation, Span) {
        let agent = Arc::clone(&self.agent);
        let turn = self.turn.id;
        let workspace = self.entity.workspace;
        let mut invocation = Invocation { id, given, called, agent, turn, workspace, trace: None };
        let span = attempt_telemetry::tool(self.node, &invocation.called.name, invocation.public_id(), self.trace);
        invocation.trace = span.context_or(self.trace);
        (invocation, span)
    }

    /// Resumes the questions to people of a lost attempt: those that were not raised yet are raised now.
    pub(super) async fn resume_calls(&mut self) -> Result<(), Lost> {
        let number = self.turn.id.number;
        // Damaged ones are an error here: the alarm ends their turn.
        let calls = retry_transient(COMMAND_RETRY_TIMEOUT, || self.node.calls(self.entity, number)).await?;
        let open = calls.calls.into_iter().filter(|call| !call.answered);
        let asks = open.filter_map(|call| {
            let span = attempt_telemetry::tool(self.node, &call.name, call.public_id(), self.trace);
            Some(DueCall { plan: Plan::Ask(Box::new(call.ask?)), id: call.id, span })
        });
        self.make_calls(asks.collect()).await
    }

    /// Makes recorded calls concurrently, and records their results.
    async fn make_calls(&mut self, due: Vec<DueCall>) -> Result<(), Lost> {
        let outcomes = join_all(due.into_iter().map(|due| self.make_call(due))).await;
        let mut results = Vec::new();
        let mut waits = Vec::new();
        let mut lost = None;
        for (id, outcome) in outcomes {
            match outcome {
                Ok(CallOutcome::Result(result)) => results.push((id, result)),
                Ok(CallOutcome::AsksPeople(wait)) => waits.push((id, wait)),
                Err(loss) => lost = Some(loss),
            }
        }
        // A finished call must not run again because another one failed.
        if lost.is_none() || !results.is_empty() {
            let answers = CallResults { attempt: self.turn.current(), results, waits, is_lost: lost.is_some() };
            self.turn = self.offer(answers).await?;
        }
        if let Some(lost) = lost {
            return Err(lost);
        }
        if self.turn.status == TurnStatus::AwaitingReview { Err(Lost::AwaitingPeople) } else { Ok(()) }
    }

    /// Makes one call.
    async fn make_call(&self, DueCall { id, plan, mut span }: DueCall) -> (String, Result<CallOutcome, Lost>) {
        let tools = &self.node.ports.tools;
        // The span was opened when the call arrived, and the call is recorded before it is made.
        span.began(Instant::now().into_std());
        let outcome = match plan {
            Plan::Answer(result) => {
                // No work is done, and the tool's name may be the model's invention.
                span.forget();
                return (id, Ok(CallOutcome::Result(result)));
            }
            Plan::Recall { query, limit } => {
                let recalled = current::within(span.context_or(self.trace), self.recall(&query, limit)).await;
                Ok(CallOutcome::Result(tools.remembered(&recalled)))
            }
            Plan::Fetch(call) => {
                let call = current::within(span.context_or(self.trace), call);
                let fetched = timeout(Duration::from_millis(limits::TOOL_MILLIS), call).await.unwrap_or_else(|_| {
                    let result = tools.failed("timeout", "the tool did not answer in time");
                    Fetched { result, error: Some("timeout") }
                });
                if let Some(error) = fetched.error {
                    span.fail(error);
                }
                Ok(CallOutcome::Result(fetched.result))
            }
            Plan::Ask(ask) => {
                let outcome = self.ask(&id, *ask, span.context_or(self.trace)).await;
                if let Ok(CallOutcome::AsksPeople(_)) = outcome {
                    span.set(names::OUTCOME, "awaiting_review");
                }
                outcome
            }
        };
        (id, outcome)
    }
}
