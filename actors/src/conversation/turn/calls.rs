//! A turn's tool calls: recorded before they run, each with exactly one result.
//!
//! The log holds the assistant's message with its calls, then a tool message for each result, in the order that a model
//! expects. While calls have no result the turn has a row of them. A call that asks people may stay open for a year:
//! the turn waits, and no task runs for it. If the turn ends first, every open call gets a result that says so.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::{Turn, TurnStatus};
use crate::clock::Millis;
use crate::codec;
use crate::conversation::errand::Errand;
use crate::conversation::{Accepted, Conversation, Event, Reply, State, Usage, number_key};
use crate::id::MessageId;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Undecided};
use crate::message::{Content, Json, Sender, SenderKind, role};
use crate::store::RowWrite;
use crate::tables::CALLS;
use crate::tool::Ask;

/// The result of a call that was lost with its process: whether it had an effect is unknown.
const INTERRUPTED: &str =
    r#"{"error":"interrupted","detail":"the call was interrupted; it may or may not have had its effect"}"#;
/// The result of a call whose turn was ended.
const TURN_ENDED: &str = r#"{"error":"turn_ended","detail":"the turn was ended before the call had a result"}"#;

/// The shortest time after which a waiting turn itself checks whether its reviews are over. They notify it, so this
/// covers a lost notification.
const LOOK_MIN_MILLIS: u64 = 60_000;
/// The longest.
const LOOK_MAX_MILLIS: u64 = 60 * 60 * 1000;

/// The review that a call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wait {
    /// The message that asks, in its channel's conversation.
    #[n(0)]
    pub review: MessageId,
    /// When answers are no longer accepted.
    #[n(1)]
    pub expires_at: Millis,
}

/// A call and its state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Call {
    /// Its id: visible ASCII, unique in the conversation.
    #[n(0)]
    pub id: String,
    /// The tool.
    #[n(1)]
    pub name: String,
    /// The question, if it asks people.
    #[n(2)]
    pub ask: Option<Ask>,
    /// The review that it has become.
    #[n(3)]
    pub wait: Option<Wait>,
    /// Its result is in the log.
    #[n(4)]
    pub answered: bool,
    /// The id that the model gave it, if it can be used: models may give one twice in a conversation.
    #[n(5)]
    pub given: Option<String>,
}

impl Call {
    /// The id that models and clients see.
    #[must_use]
    pub fn shown_id(&self) -> &str {
        self.given.as_deref().unwrap_or(&self.id)
    }
}

/// The calls of a turn's newest round, while one of them has no result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Calls {
    /// The calls, in the model's order.
    #[n(0)]
    pub calls: Vec<Call>,
    /// The parent of the next result, if the conversation is a tree: the newest message of the turn.
    #[n(1)]
    pub branch: Option<MessageId>,
}

/// A model has called tools.
#[derive(Clone, Debug)]
pub struct Step {
    /// The turn.
    pub number: u64,
    /// The attempt.
    pub attempt: u32,
    /// The assistant's message with its calls.
    pub message: Arc<Content>,
    /// The calls.
    pub calls: Vec<Call>,
    /// The parent of the message, if the conversation is a tree.
    pub branch: Option<MessageId>,
    /// The usage of the model's call.
    pub usage: Usage,
}

/// Results of calls, and reviews that other calls have become.
#[derive(Clone, Debug)]
pub struct CallResults {
    /// The turn.
    pub number: u64,
    /// The attempt.
    pub attempt: u32,
    /// Results by call.
    pub results: Vec<(String, String)>,
    /// Reviews by call.
    pub waits: Vec<(String, Wait)>,
    /// The attempt is lost before every call had a result or a review. The calls reported here must not be run again.
    pub is_lost: bool,
}

/// The outcome of a review that a call waits for.
#[derive(Clone, Debug)]
pub struct EndWait {
    /// The turn.
    pub number: u64,
    /// The call.
    pub call: String,
    /// The outcome as the call's result.
    pub result: String,
}

impl Step {
    pub(in crate::conversation) fn weight(&self) -> usize {
        let asks = self
            .calls
            .iter()
            .map(|call| limits::COMMAND_BYTES + call.ask.as_ref().map_or(0, |ask| ask.content.weight()));
        self.message.weight() + asks.sum::<usize>()
    }
}

impl CallResults {
    pub(in crate::conversation) fn weight(&self) -> usize {
        limits::COMMAND_BYTES
            + self.results.iter().map(|(_, result)| limits::COMMAND_BYTES + result.len()).sum::<usize>()
    }
}

impl Calls {
    /// How many have no result.
    fn open(&self) -> u32 {
        self.calls.iter().filter(|call| !call.answered).count() as u32
    }

    /// As they are stored for the turn with this number.
    fn stored(number: u64, found: &ReadSet) -> Result<Self, Undecided> {
        Ok(found.stored(CALLS, number_key(number))?.unwrap_or_default())
    }

    fn row(&self, number: u64) -> RowWrite {
        let value = (self.open() > 0).then(|| codec::encode(self));
        RowWrite { table: CALLS, key: number_key(number), value }
    }

    /// When a turn that waits since `since` checks its reviews by itself.
    fn look_at(&self, since: Millis, now: Millis) -> Millis {
        let waits = self.calls.iter().filter(|call| !call.answered).filter_map(|call| call.wait.as_ref());
        let regular = now.plus(now.since(since).clamp(LOOK_MIN_MILLIS, LOOK_MAX_MILLIS));
        // Once the first deadline has passed by the clock, the turn should have been notified.
        let expected = waits.map(|wait| wait.expires_at.plus(LOOK_MIN_MILLIS)).filter(|at| *at > now).min();
        expected.map_or(regular, |expected| expected.min(regular))
    }
}

/// The row of the open calls of the turn that runs, if it has any.
pub(in crate::conversation) fn needs(state: Option<&State>) -> Vec<Need> {
    let running = state.and_then(|state| state.running.as_ref()).filter(|turn| turn.open_calls.is_some());
    running.map(|turn| Need::Row(CALLS, number_key(turn.id.number))).into_iter().collect()
}

/// Collects the effects of results: tool messages, and the new row and turn.
struct Answering<'a> {
    state: &'a State,
    moment: &'a DecisionContext,
    turn: Turn,
    calls: Calls,
    events: Vec<Event>,
}

impl<'a> Answering<'a> {
    fn of(state: &'a State, turn: &Turn, moment: &'a DecisionContext, found: &ReadSet) -> Result<Self, Undecided> {
        let calls = if turn.open_calls.is_some() { Calls::stored(turn.id.number, found)? } else { Calls::default() };
        Ok(Self { state, moment, turn: turn.clone(), calls, events: Vec::new() })
    }

    /// Gives the call its result, unless it has one.
    fn answer(&mut self, id: &str, result: &str) {
        let Some(call) = self.calls.calls.iter_mut().find(|call| call.id == id && !call.answered) else { return };
        call.answered = true;
        let sender = Sender { kind: SenderKind::Agent, id: call.name.clone() };
        // Ids are visible ASCII, of which JSON escapes these two.
        let shown = call.shown_id().replace('\\', r"\\").replace('"', r#"\""#);
        let metadata = Json::from_checked(format!(r#"{{"tool_call_id":"{shown}"}}"#));
        let content = Content { metadata: Some(metadata), ..Content::text(role::TOOL, sender, cut(result)) };
        let seq = self.moment.next_seq + self.events.len() as u64;
        let parent = self.calls.branch;
        self.calls.branch = parent.map(|_| MessageId::new(self.moment.now, self.state.id.address, seq));
        self.events.push(Event::MessageCreated(Accepted {
            conversation: self.state.id,
            content: Arc::new(content),
            parent,
            owner: self.state.owner.clone(),
            turn: Some(self.turn.id),
        }));
    }

    /// Gives this result to every call that has none and matches `which`.
    fn answer_all(&mut self, result: &str, which: impl Fn(&Call) -> bool) {
        let open: Vec<String> =
            self.calls.calls.iter().filter(|call| !call.answered && which(call)).map(|call| call.id.clone()).collect();
        open.iter().for_each(|id| self.answer(id, result));
    }

    /// Updates the turn's number of open calls, and returns their row.
    fn settle(&mut self) -> RowWrite {
        self.turn.open_calls = Some(self.calls.open()).filter(|open| *open > 0);
        self.calls.row(self.turn.id.number)
    }
}

/// At most [`limits::RESULT_BYTES`] of a result.
fn cut(result: &str) -> String {
    if result.len() <= limits::RESULT_BYTES {
        return result.to_owned();
    }
    format!("{}…", &result[..result.floor_char_boundary(limits::RESULT_BYTES)])
}

/// The turn that runs, if it is this attempt of this turn.
fn current(state: &State, number: u64, attempt: u32) -> Option<&Turn> {
    let running = state.running.as_ref().filter(|turn| turn.status == TurnStatus::Running);
    running.filter(|turn| turn.id.number == number && turn.attempt == attempt)
}

/// A model has called tools: the calls are recorded, once.
pub(in crate::conversation) fn step(
    state: &State,
    step: &Step,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let Some(turn) = current(state, step.number, step.attempt) else { return Ok(Decision::Answer(Reply::Nothing)) };
    if turn.open_calls.is_some() {
        // The attempt repeats the command if it got no answer.
        let known = Calls::stored(step.number, found)?;
        let again = known.calls.first().map(|call| &call.id) == step.calls.first().map(|call| &call.id);
        let reply = if again { Reply::Turn(Box::new(turn.clone())) } else { Reply::Nothing };
        return Ok(Decision::Answer(reply));
    }
    if turn.rounds() >= limits::TOOL_ROUNDS {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    let accepted = Accepted {
        conversation: state.id,
        content: Arc::clone(&step.message),
        parent: step.branch,
        owner: state.owner.clone(),
        turn: Some(turn.id),
    };
    let branch = step.branch.map(|_| MessageId::new(moment.now, state.id.address, moment.next_seq));
    let calls = Calls { calls: step.calls.clone(), branch };
    let turn = Turn {
        rounds: Some(turn.rounds() + 1),
        open_calls: Some(calls.open()),
        usage: Some(step.usage.on_top_of(turn.usage.as_ref())),
        ..turn.clone()
    };
    let rows = vec![turn.row(), calls.row(step.number)];
    let views = vec![super::usage_entry(&turn, &step.usage, false, moment)];
    let events = vec![Event::MessageCreated(accepted), Event::TurnMoved(turn.clone())];
    Ok(Decision::Change(Change { rows, views, ..Change::new(events, Reply::Turn(Box::new(turn))) }))
}

/// Takes results; if a review is still open, the turn waits from now on.
pub(in crate::conversation) fn answer(
    state: &State,
    answers: &CallResults,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let turn = current(state, answers.number, answers.attempt);
    let Some(turn) = turn else { return Ok(Decision::Answer(Reply::Nothing)) };
    if turn.open_calls.is_none() {
        // A repeated command, or every review was over before its attempt knew that it had been requested.
        return Ok(Decision::Answer(Reply::Turn(Box::new(turn.clone()))));
    }
    let mut answering = Answering::of(state, turn, moment, found)?;
    for (id, result) in &answers.results {
        answering.answer(id, result);
    }
    for (id, wait) in &answers.waits {
        if let Some(call) = answering.calls.calls.iter_mut().find(|call| call.id == *id) {
            call.wait = Some(wait.clone());
        }
    }
    // Otherwise the turn would wait forever for a call that has neither a result here nor a review to wait for.
    if !answers.is_lost {
        answering.answer_all(INTERRUPTED, |call| call.wait.is_none());
    }
    let row = answering.settle();
    let mut turn = if answers.is_lost { answering.turn } else { answering.turn.with_new_series() };
    if turn.open_calls.is_some() && !answers.is_lost {
        turn.status = TurnStatus::AwaitingReview;
        turn.look_at = Some(answering.calls.look_at(moment.now, moment.now));
        turn.waits_since = Some(moment.now);
    }
    let mut events = answering.events;
    events.push(Event::TurnMoved(turn.clone()));
    let rows = vec![turn.row(), row];
    Ok(Decision::Change(Change { rows, ..Change::new(events, Reply::Turn(Box::new(turn))) }))
}

/// A review that a call waits for is over; if it was the last one, the turn continues.
pub(in crate::conversation) fn end_wait(
    state: &State,
    end: &EndWait,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let running = state.running.as_ref().filter(|turn| turn.id.number == end.number && turn.open_calls.is_some());
    let Some(turn) = running else { return Ok(Decision::Answer(Reply::Nothing)) };
    let mut answering = Answering::of(state, turn, moment, found)?;
    answering.answer(&end.call, &end.result);
    if answering.events.is_empty() {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    let row = answering.settle();
    let (turn, mut events) = (answering.turn, answering.events);
    // If the attempt that asked is still running, it finds the result by itself.
    let goes_on = turn.status == TurnStatus::AwaitingReview && turn.open_calls.is_none();
    let turn = if goes_on { turn.started(moment).with_new_series() } else { turn };
    events.push(if goes_on { Event::TurnStarted(turn.clone()) } else { Event::TurnMoved(turn.clone()) });
    let rows = vec![turn.row(), row];
    Ok(Decision::Change(Change { rows, ..Change::new(events, Reply::Turn(Box::new(turn))) }))
}

/// A turn has checked its reviews, and they are still open: sets when to check again.
pub(in crate::conversation) fn keep_waiting(
    state: &State,
    number: u64,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let running = state.running.as_ref().filter(|turn| turn.id.number == number);
    let waiting = running.filter(|turn| turn.status == TurnStatus::AwaitingReview && turn.look_at() <= moment.now);
    let Some(turn) = waiting else { return Ok(Decision::Answer(Reply::Nothing)) };
    let calls = Calls::stored(number, found)?;
    let look_at = Some(calls.look_at(turn.waits_since.unwrap_or(moment.now), moment.now));
    let turn = Turn { look_at, ..turn.clone() };
    let rows = vec![turn.row()];
    Ok(Decision::Change(Change { rows, ..Change::new(vec![Event::TurnMoved(turn)], Reply::Nothing) }))
}

/// A turn and the effects of ending or interrupting its calls.
pub(in crate::conversation) struct Closed {
    /// Its current state.
    pub(in crate::conversation) turn: Turn,
    /// The results that were missing.
    pub(in crate::conversation) events: Vec<Event>,
    /// Calls, and errands to cancel reviews.
    pub(in crate::conversation) rows: Vec<RowWrite>,
    /// Whether there are errands among them.
    pub(in crate::conversation) errands: bool,
}

/// The turn ends: every open call gets a result that says so, and its reviews are cancelled.
pub(in crate::conversation) fn close(
    state: &State,
    turn: &Turn,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Closed, Undecided> {
    let mut answering = Answering::of(state, turn, moment, found)?;
    let asked = answering.calls.calls.iter().filter(|call| !call.answered);
    let mut rows: Vec<RowWrite> = asked.filter_map(|call| withdrawal(turn, call, moment)).collect();
    let errands = !rows.is_empty();
    answering.answer_all(TURN_ENDED, |_| true);
    if turn.open_calls.is_some() {
        rows.push(answering.settle());
    }
    Ok(Closed { turn: answering.turn, events: answering.events, rows, errands })
}

fn withdrawal(turn: &Turn, call: &Call, moment: &DecisionContext) -> Option<RowWrite> {
    let channel = call.ask.as_ref()?.channel.clone();
    let review = call.wait.as_ref().map(|wait| wait.review);
    let errand = Errand::Withdraw {
        channel,
        turn: turn.id,
        call: call.id.clone(),
        review,
        since: moment.now,
        trace: moment.trace,
    };
    Some(errand.row())
}

/// The attempt was lost: its running calls get the result that they were interrupted; calls that ask people are asked
/// again.
pub(super) fn interrupt(
    state: &State,
    turn: &Turn,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Closed, Undecided> {
    let mut answering = Answering::of(state, turn, moment, found)?;
    answering.answer_all(INTERRUPTED, |call| call.ask.is_none());
    let rows = if turn.open_calls.is_some() { vec![answering.settle()] } else { Vec::new() };
    Ok(Closed { turn: answering.turn, events: answering.events, rows, errands: false })
}
