//! One attempt at a turn, from its first model call to its outcome, or until it has to wait for people.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt_telemetry::AttemptTelemetry;
use super::context::Context;
use crate::agent::{Agent, ModelOutput};
use crate::conversation::{Completed, Conversation, Event, Failure, Finish, Turn};
use crate::deltas::DeltaSink;
use crate::directory::{Answer, CommandContext, Refusal};
use crate::id::{ConversationId, EntityKey};
use crate::limits;
use crate::machine::Record;
use crate::node::Node;
use crate::requests::Request;
use crate::store::{Cause, StoreError};
use crate::tasks::backoff::{Backoff, retry_transient};
use crate::tasks::retry_command::{NoAnswer, retry_command_for};
use crate::trace::{TraceContext, current};

mod model;
mod question;
mod tool_calls;

/// How long a command is retried on a conversation that cannot accept it, or a read on a store that fails; after that
/// the alarm has the turn run again. See [`offer`] for the turn's own conversation.
const COMMAND_RETRY_TIMEOUT: Duration = Duration::from_millis(limits::ASKED_FOR_MILLIS);
/// Why an attempt has no outcome.
pub(super) enum Lost {
    /// Another attempt is the current one, or the turn is over.
    Stale,
    /// The turn waits for people.
    AwaitingPeople,
    /// The store or a conversation failed; the alarm has the turn run again.
    Unavailable(Cause),
}

impl From<NoAnswer> for Lost {
    fn from(error: NoAnswer) -> Self {
        Self::Unavailable(Cause::of("the conversation does not answer", error))
    }
}

impl From<StoreError> for Lost {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(Cause::of("the store does not answer", error))
    }
}

/// A running attempt.
struct Attempt<'a> {
    node: &'a Arc<Node>,
    entity: EntityKey,
    conversation: ConversationId,
    agent: Arc<Agent>,
    turn: Turn,
    deltas: DeltaSink,
    trace: Option<TraceContext>,
    /// Rounds of calls in this attempt, for the calls' ids.
    round: u32,
    /// The event with which it began, while it has written nothing since.
    began: Option<u64>,
}

/// An attempt that is to be run.
pub(crate) struct Begun {
    pub(super) turn: Turn,
    pub(super) conversation: ConversationId,
    /// The sequence of the event with which it began.
    pub(super) seq: u64,
    /// The trace of its turn's request.
    pub(super) requested_by: Option<TraceContext>,
    /// The trace that resumed it, if it is not the request: the answer to a review, or the alarm after a stop.
    pub(super) resumed_by: Option<TraceContext>,
}

impl Begun {
    /// The attempt at `turn` that `record` has begun.
    pub(crate) fn by(record: &Record<Event>, turn: &Turn, conversation: ConversationId) -> Self {
        let resumed_by = record.trace.filter(|_| !turn.is_fresh());
        Self { turn: turn.clone(), conversation, seq: record.seq, requested_by: turn.request_trace(record), resumed_by }
    }
}

/// Runs an attempt.
pub(super) async fn run(node: &Arc<Node>, entity: EntityKey, begun: Begun) {
    let id = begun.turn.id;
    let requested_by = begun.requested_by;
    let mut telemetry =
        AttemptTelemetry::begin(node, begun.conversation, &begun.turn, [requested_by, begun.resumed_by]);
    let trace = telemetry.context_or(requested_by);
    let lost = current::within(trace, run_to_outcome(node, entity, begun, trace, &mut telemetry)).await.err();
    if let Some(lost) = &lost {
        telemetry.lost(lost);
    }
    drop(telemetry);
    let _entered = current::enter(trace);
    if let Some(Lost::Unavailable(why)) = lost {
        // A stopping node leaves thousands of them to the next one, as intended.
        if node.stopping.is_cancelled() {
            tracing::debug!(?entity, turn = %id, %why, "a turn is left to the next process");
        } else {
            tracing::warn!(?entity, turn = %id, %why, "a turn could not continue; retrying");
        }
    }
}

/// Runs an attempt and stores its outcome.
async fn run_to_outcome(
    node: &Arc<Node>,
    entity: EntityKey,
    Begun { turn, conversation, seq, .. }: Begun,
    trace: Option<TraceContext>,
    telemetry: &mut AttemptTelemetry,
) -> Result<(), Lost> {
    let agent = retry_transient(COMMAND_RETRY_TIMEOUT, || node.agent(entity.workspace, &turn.agent)).await?;
    let current = turn.current();
    let finish = match agent {
        Some(agent) => {
            telemetry.set_agent(&agent);
            let requested_at = Instant::now();
            let permit = node.turns.permit(entity.workspace, &agent).await;
            telemetry.waited(requested_at.elapsed());
            let deltas = DeltaSink::new(&node.deltas, entity, turn.attempt_id(), seq);
            let round = 0;
            let began = Some(seq);
            let mut attempt = Attempt { node, entity, conversation, agent, turn, deltas, trace, round, began };
            let finish = attempt.finish().await?;
            // No model is called any more, and storing the outcome may take long.
            drop(permit);
            telemetry.finished(&finish.outcome);
            return attempt.offer(finish).await.map(drop);
        }
        None => {
            let failure =
                Failure { code: "agent_not_found".to_owned(), detail: format!("agent {} does not exist", turn.agent) };
            Finish { attempt: current, outcome: Err(failure), branch: None }
        }
    };
    telemetry.finished(&finish.outcome);
    offer(node, entity, finish, trace).await.map(drop)
}

impl Attempt<'_> {
    /// Rounds of a model and its tools, up to the outcome.
    async fn finish(&mut self) -> Result<Finish, Lost> {
        if self.turn.open_calls.is_some() {
            self.resume_calls().await?;
        }
        loop {
            let read = || Context::read(self.node, self.entity, &self.turn, self.began);
            let context = retry_transient(COMMAND_RETRY_TIMEOUT, read).await?;
            if self.round > 0 {
                self.deltas.begin_message(context.newest);
            }
            let branch = context.branch();
            let attempt = self.turn.current();
            if context.is_pointless() {
                let usage = self.agent.usage(0, 0, self.agent.model.as_deref().unwrap_or("builtin"));
                let completed = Completed { replies: Vec::new(), said: None, usage };
                return Ok(Finish { attempt, outcome: Ok(completed), branch });
            }
            let output = match self.call_model(&context).await {
                Ok(ModelOutput { replies, calls, usage }) if calls.is_empty() => {
                    let said = context.said().filter(|_| replies.is_empty());
                    return Ok(Finish { attempt, outcome: Ok(Completed { replies, said, usage }), branch });
                }
                Ok(output) if self.turn.rounds() >= limits::TOOL_ROUNDS => {
                    let detail = format!("the agent still calls tools after {} rounds", limits::TOOL_ROUNDS);
                    tracing::debug!(turn = %self.turn.id, calls = output.calls.len(), "too many rounds");
                    Err(Failure { code: "too_many_tool_rounds".to_owned(), detail })
                }
                output => output,
            };
            match output {
                Ok(output) => self.call_tools(output, branch).await?,
                Err(failure) => return Ok(Finish { attempt, outcome: Err(failure), branch }),
            }
        }
    }

    /// Reports the turn's progress to the conversation; returns the turn after that.
    async fn offer(&mut self, report: impl ReportsTurn) -> Result<Turn, Lost> {
        self.began = None;
        offer(self.node, self.entity, report, self.trace).await
    }
}

/// A report to a turn's conversation. The reply is the turn's state then, unless that is another attempt's.
trait ReportsTurn: Request<Conversation, Reply = Option<Box<Turn>>> {}

impl<R: Request<Conversation, Reply = Option<Box<Turn>>>> ReportsTurn for R {}

/// Sends the turn's conversation a command; returns the turn after that. Where no other process can take the turn over,
/// the command is retried until it is stored, or the node stops the attempt: what a model has answered is stored
/// nowhere else, and the model would be called again.
async fn offer(
    node: &Arc<Node>,
    entity: EntityKey,
    report: impl ReportsTurn,
    trace: Option<TraceContext>,
) -> Result<Turn, Lost> {
    let context = CommandContext { key: None, trace };
    let offered = Backoff::of_report(node.store.is_shared(), COMMAND_RETRY_TIMEOUT);
    match retry_command_for(node, &node.conversations, entity, report, context, offered).await? {
        Ok(Answer::Done(Some(turn))) => Ok(*turn),
        Err(refusal @ (Refusal::Corrupt(_) | Refusal::TooLarge(_))) => Err(Lost::Unavailable(refusal.into())),
        Ok(_) | Err(_) => Err(Lost::Stale),
    }
}
