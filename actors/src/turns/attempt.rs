//! One attempt at a turn, from its first model call to its outcome, or until it has to wait for people.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::attempt_telemetry::{self, AttemptTelemetry};
use super::context::Context;
use crate::agent::chat::Chat;
use crate::agent::{Agent, Completion, ModelOutput, Prompt, Provider, builtin};
use crate::channel::{Channel, ChannelKind};
use crate::conversation::{
    Call, CallResults, Completed, Conversation, Event, Failure, Finish, Post, Step, Turn, TurnStatus, Wait, message_of,
};
use crate::deltas::DeltaSink;
use crate::directory::{Answer, CommandContext, Refusal};
use crate::id::{ConversationId, EntityKey};
use crate::limits;
use crate::machine::Record;
use crate::memories::recall::{Remembered, recall};
use crate::message::{Content, Message, NewMessage, Sender, SenderKind, role};
use crate::node::Node;
use crate::requests::Request;
use crate::store::{Cause, Order, StoreError};
use crate::tasks::backoff::{Backoff, retry_transient};
use crate::tasks::retry_command::{NoAnswer, retry_command_for};
use crate::tool::{Ask, Asker, Called, Fetched, Invocation, Plan, given_ids};
use crate::trace::{Span, TraceContext, current, names};
use crate::workflows::errands::review_key;

/// How long a command is retried on a conversation that cannot accept it, or a read on a store that fails; after that
/// the alarm has the turn run again. See [`offer`] for the turn's own conversation.
const COMMAND_RETRY_TIMEOUT: Duration = Duration::from_millis(limits::ASKED_FOR_MILLIS);
/// Memories that a model gets without asking.
const MAX_PROMPT_MEMORIES: usize = 8;

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

/// A recorded call that is to be made.
struct DueCall {
    id: String,
    plan: Plan,
    span: Span,
}

/// The outcome of a call.
enum CallOutcome {
    /// The tool's result, even if it reports a failure.
    Result(String),
    /// The call became a review; the turn waits for it.
    AsksPeople(Wait),
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
                return Ok(Finish { attempt, outcome: Ok(Completed { replies: Vec::new(), usage }), branch });
            }
            let output = match self.call_model(&context).await {
                Ok(ModelOutput { replies, calls, usage }) if calls.is_empty() => {
                    return Ok(Finish { attempt, outcome: Ok(Completed { replies, usage }), branch });
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

    /// Calls the agent's model once.
    async fn call_model(&self, context: &Context) -> Completion {
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
                    let prompt = Prompt { agent: Arc::clone(agent), messages, trace, deltas, exchange };
                    self.node.ports.models.complete(prompt).await
                }
            }
        };
        let called_at = std::time::Instant::now();
        let completion = chat.within(allowed, call).await;
        // A model that does not stream sends everything at once.
        let first = self.deltas.first_sent_at().or_else(|| completion.is_ok().then(std::time::Instant::now));
        if let Some(first) = first.filter(|_| self.round == 0) {
            let took = first.saturating_duration_since(called_at);
            self.node.metrics.first_token.observe(took, recorded, || self.node.now());
        }
        completion
    }

    /// The memories; none if they cannot be read, because the turn works without them.
    async fn recall(&self, query: &str, limit: usize) -> Vec<Remembered> {
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

    /// Records the calls of a model, makes them, and records their results.
    async fn call_tools(&mut self, output: ModelOutput, branch: Option<crate::id::MessageId>) -> Result<(), Lost> {
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
    async fn resume_calls(&mut self) -> Result<(), Lost> {
        let number = self.turn.id.number;
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

    /// Asks the people of a channel a question, once, however often this runs for the same call.
    async fn ask(&self, call: &str, ask: Ask, trace: Option<TraceContext>) -> Result<CallOutcome, Lost> {
        let node = self.node;
        let workspace = self.entity.workspace;
        let failed = |code: &str, detail: &str| Ok(CallOutcome::Result(node.ports.tools.failed(code, detail)));
        let channel = retry_transient(COMMAND_RETRY_TIMEOUT, || node.channel(workspace, &ask.channel)).await?;
        let Some(channel) = channel else { return failed("channel_not_found", "no such channel") };
        if channel.kind != ChannelKind::Human {
            return failed("channel_kind_mismatch", "the channel is not a human channel");
        }
        if !channel.enabled {
            return failed("channel_disabled", "the channel is disabled");
        }
        let entity = channel.conversation(workspace);
        let question = self.question(&channel, call, ask);
        let key = Some(review_key(workspace, self.turn.id, call));
        let context = CommandContext { key, trace };
        let offered = Backoff::within(COMMAND_RETRY_TIMEOUT);
        let message = match retry_command_for(node, &node.conversations, entity, question, context, offered).await? {
            Ok(Answer::Done(posted)) => posted.messages.into_iter().next(),
            Ok(Answer::Repeat(posted)) => {
                let events = || node.events::<Conversation>(entity, posted, Order::Asc, 4);
                let events = retry_transient(COMMAND_RETRY_TIMEOUT, events).await?;
                events.iter().find_map(message_of)
            }
            Err(_) => None,
        };
        let wait = |message: Message| {
            let expires_at = message.content.review.as_ref()?.expires_at;
            Some(Wait { review: message.id, expires_at })
        };
        match message.and_then(wait) {
            Some(wait) => Ok(CallOutcome::AsksPeople(wait)),
            None => failed("review_not_raised", "the channel refused the question"),
        }
    }

    fn question(&self, channel: &Channel, call: &str, ask: Ask) -> Post {
        let mut content = ask.content;
        let asker = Asker { conversation: self.entity.id, turn: self.turn.id.number, call: call.to_owned() };
        // On a human channel an agent has its channel's id.
        content.sender = Sender { kind: SenderKind::Agent, id: channel.id.clone() };
        if let Some(review) = &mut content.review {
            review.asker = Some(asker);
        }
        let review_millis = ask.review_millis.or(Some(channel.review_millis()));
        Post {
            opening: Some(channel.opening(self.entity.workspace, self.node.now())),
            expected: None,
            messages: vec![NewMessage { content: Arc::new(content), parent: None, review_millis }],
            turn: None,
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
