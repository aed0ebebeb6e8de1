//! A turn's tool calls: recorded before they run, each with exactly one result.
//!
//! The log holds the assistant's message with its calls, then a tool message for each result, in the order that a model
//! expects. While calls have no result the turn has a row of them. A call that asks people may remain open for a year:
//! the turn waits, and no task runs for it. If the turn ends first, every open call gets a result that says so.
//!
//! If the row is damaged, it is unknown what the turn waits for: the turn ends as failed, and the row is deleted. So
//! neither later turns nor an erasure of the conversation depend on it.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::{Attempt, Failure, Turn, TurnStatus};
use crate::clock::Millis;
use crate::codec;
use crate::conversation::errand::{self, Errand};
use crate::conversation::writing::{Decided, Writing};
use crate::conversation::{Accepted, Conversation, Event, Reply, State, Usage, number_key};
use crate::id::MessageId;
use crate::limits;
use crate::machine::{Decision, DecisionContext, Need, ReadSet, Undecided};
use crate::message::Content;
use crate::store::{RowWrite, StoreError};
use crate::tables::CALLS;
use crate::tool::Ask;

mod answering;

use answering::Answering;

/// The result of a call that was lost with its process: whether it had an effect is unknown.
const INTERRUPTED: &str =
    r#"{"error":"interrupted","detail":"the call was interrupted; it may or may not have had its effect"}"#;
/// The result of a call whose turn was ended.
const TURN_ENDED: &str = r#"{"error":"turn_ended","detail":"the turn was ended before the call had a result"}"#;

/// The shortest time after which a waiting turn itself checks whether its reviews are over. They notify it, so this
/// covers a lost notification.
const MIN_REVIEW_CHECK_DELAY_MILLIS: u64 = 60_000;
/// The longest time between two such checks.
const MAX_REVIEW_CHECK_DELAY_MILLIS: u64 = 60 * 60 * 1000;

/// The review that a call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wait {
    /// The message with the review, in its channel's conversation.
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
    /// The name of the tool.
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
    pub fn public_id(&self) -> &str {
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
    /// The attempt whose model has called them.
    pub attempt: Attempt,
    /// The assistant's message with its calls.
    pub message: Arc<Content>,
    /// The calls, in the model's order.
    pub calls: Vec<Call>,
    /// The parent of the message, if the conversation is a tree.
    pub branch: Option<MessageId>,
    /// The usage of the model's call.
    pub usage: Usage,
}

/// Results of calls, and reviews that other calls have become.
#[derive(Clone, Debug)]
pub struct CallResults {
    /// The attempt that has made the calls.
    pub attempt: Attempt,
    /// The results, each with the id of its call.
    pub results: Vec<(String, String)>,
    /// The reviews, each with the id of the call that waits for it.
    pub waits: Vec<(String, Wait)>,
    /// The attempt is lost before every call had a result or a review. The calls reported here must not be run again.
    pub is_lost: bool,
}

/// The outcome of a review that a call waits for.
#[derive(Clone, Debug)]
pub struct EndWait {
    /// The number of the turn.
    pub number: u64,
    /// The id of the call.
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

    /// The open calls of a turn; none if it has none. A damaged row is a value: it must not keep the turn from ending.
    fn open_of(turn: &Turn, reads: &ReadSet) -> Result<Result<Self, StoreError>, Undecided> {
        if turn.open_calls.is_none() {
            return Ok(Ok(Self::default()));
        }
        match reads.stored(CALLS, number_key(turn.id.number)) {
            Err(Undecided::Corrupt(damage)) => Ok(Err(damage)),
            calls => Ok(Ok(calls?.unwrap_or_default())),
        }
    }

    fn row(&self, number: u64) -> RowWrite {
        let value = (self.open() > 0).then(|| codec::encode(self));
        RowWrite { table: CALLS, key: number_key(number), value }
    }

    /// When a turn that waits since `since` checks its reviews by itself.
    fn check_at(&self, since: Millis, now: Millis) -> Millis {
        let waits = self.calls.iter().filter(|call| !call.answered).filter_map(|call| call.wait.as_ref());
        let regular = now.plus(now.since(since).clamp(MIN_REVIEW_CHECK_DELAY_MILLIS, MAX_REVIEW_CHECK_DELAY_MILLIS));
        // Once the first deadline has passed by the clock, the turn should have been notified.
        let expected =
            waits.map(|wait| wait.expires_at.plus(MIN_REVIEW_CHECK_DELAY_MILLIS)).filter(|at| *at > now).min();
        expected.map_or(regular, |expected| expected.min(regular))
    }
}

/// The read of the running turn's open calls, if it has any.
pub(in crate::conversation) fn needs(state: Option<&State>) -> Vec<Need> {
    let running = state.and_then(|state| state.running.as_ref()).filter(|turn| turn.open_calls.is_some());
    running.map(|turn| Need::Row(CALLS, number_key(turn.id.number))).into_iter().collect()
}

/// A model has called tools: the calls are recorded, once.
pub(in crate::conversation) fn step(state: &State, step: &Step, mut writing: Writing<'_>) -> Decided {
    let Some(turn) = super::running(state, step.attempt) else { return Ok(Decision::Answer(Reply::Nothing)) };
    if turn.open_calls.is_some() {
        // The attempt repeats the command if it got no answer.
        let Ok(known) = Calls::open_of(turn, writing.reads)? else { return unreadable(state, turn, writing) };
        let again = known.calls.first().map(|call| &call.id) == step.calls.first().map(|call| &call.id);
        let reply = if again { Reply::Turn(Box::new(turn.clone())) } else { Reply::Nothing };
        return Ok(Decision::Answer(reply));
    }
    if turn.rounds() >= limits::TOOL_ROUNDS {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    let seq = writing.event(Event::MessageCreated(Accepted {
        conversation: state.id,
        content: Arc::clone(&step.message),
        parent: step.branch,
        owner: state.owner.clone(),
        turn: Some(turn.id),
    }));
    let branch = step.branch.map(|_| MessageId::new(writing.context.now, state.id.address, seq));
    let calls = Calls { calls: step.calls.clone(), branch };
    let turn = Turn {
        rounds: Some(turn.rounds() + 1),
        open_calls: Some(calls.open()),
        usage: Some(step.usage.added_to(turn.usage.as_ref())),
        ..turn.clone()
    };
    writing.row(calls.row(step.attempt.number));
    writing.entry(super::usage_entry(&turn, &step.usage, false, writing.context));
    Ok(moved(turn, writing))
}

/// The running turn has changed.
fn moved(turn: Turn, mut writing: Writing<'_>) -> Decision<Conversation> {
    let turn = super::write(turn, Event::TurnMoved, &mut writing);
    writing.done(Reply::Turn(Box::new(turn)))
}

/// Takes results; if a review is still open, the turn waits from now on.
pub(in crate::conversation) fn answer(state: &State, answers: &CallResults, mut writing: Writing<'_>) -> Decided {
    let Some(turn) = super::running(state, answers.attempt) else { return Ok(Decision::Answer(Reply::Nothing)) };
    if turn.open_calls.is_none() {
        // A repeated command, or every review was over before its attempt knew that it had been requested.
        return Ok(Decision::Answer(Reply::Turn(Box::new(turn.clone()))));
    }
    let Ok(calls) = Calls::open_of(turn, writing.reads)? else { return unreadable(state, turn, writing) };
    let mut answering = Answering::of(state, turn, calls, &mut writing);
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
    answering.settle();
    let Answering { turn, calls, .. } = answering;
    let now = writing.context.now;
    let mut turn = if answers.is_lost { turn } else { turn.with_new_series() };
    if turn.open_calls.is_some() && !answers.is_lost {
        turn.status = TurnStatus::AwaitingReview;
        turn.check_at = Some(calls.check_at(now, now));
        turn.waiting_since = Some(now);
    }
    Ok(moved(turn, writing))
}

/// A review that a call waits for is over; if it was the last one, the turn continues.
pub(in crate::conversation) fn end_wait(state: &State, end: &EndWait, mut writing: Writing<'_>) -> Decided {
    let running = state.running.as_ref().filter(|turn| turn.id.number == end.number && turn.open_calls.is_some());
    let Some(turn) = running else { return Ok(Decision::Answer(Reply::Nothing)) };
    let Ok(calls) = Calls::open_of(turn, writing.reads)? else { return unreadable(state, turn, writing) };
    let mut answering = Answering::of(state, turn, calls, &mut writing);
    answering.answer(&end.call, &end.result);
    if answering.writing.events().is_empty() {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    answering.settle();
    let turn = answering.turn;
    // If the attempt that raised the review is still running, it finds the result by itself.
    if turn.status != TurnStatus::AwaitingReview || turn.open_calls.is_some() {
        return Ok(moved(turn, writing));
    }
    let turn = super::write(turn.started(writing.context).with_new_series(), Event::TurnStarted, &mut writing);
    Ok(writing.done(Reply::Turn(Box::new(turn))))
}

/// A turn has checked its reviews, and they are still open: sets when to check again.
pub(in crate::conversation) fn keep_waiting(state: &State, number: u64, mut writing: Writing<'_>) -> Decided {
    let now = writing.context.now;
    let running = state.running.as_ref().filter(|turn| turn.id.number == number);
    let waiting = running.filter(|turn| turn.status == TurnStatus::AwaitingReview && turn.check_at() <= now);
    let Some(turn) = waiting else { return Ok(Decision::Answer(Reply::Nothing)) };
    let Ok(calls) = Calls::open_of(turn, writing.reads)? else { return unreadable(state, turn, writing) };
    let turn = Turn { check_at: Some(calls.check_at(turn.waiting_since.unwrap_or(now), now)), ..turn.clone() };
    super::write(turn, Event::TurnMoved, &mut writing);
    Ok(writing.done(Reply::Nothing))
}

/// The failure of a turn whose calls cannot be read.
pub(super) fn unreadable_failure() -> Failure {
    let detail = "the turn's tool calls are damaged and cannot be read".to_owned();
    Failure { code: "calls_unreadable".to_owned(), detail }
}

/// Ends the running turn, whose calls cannot be read, as failed; the next one begins. Its attempt, if one runs, gets no
/// further.
fn unreadable(state: &State, turn: &Turn, mut writing: Writing<'_>) -> Decided {
    super::fail_running(state, turn, unreadable_failure(), &mut writing)?;
    Ok(writing.done(Reply::Nothing))
}

/// The turn ends: every open call gets a result that says so, and its reviews are cancelled. Unreadable calls are only
/// deleted: their reviews are unknown, and end by themselves. Returns the turn.
pub(super) fn close(state: &State, turn: &Turn, writing: &mut Writing<'_>) -> Result<Turn, Undecided> {
    let calls = match Calls::open_of(turn, writing.reads)? {
        Ok(calls) => calls,
        Err(error) => {
            let entity = writing.context.entity;
            tracing::error!(?entity, turn = %turn.id, %error, "the tool calls of a turn cannot be read; they are deleted");
            writing.delete(CALLS, number_key(turn.id.number));
            return Ok(Turn { open_calls: None, ..turn.clone() });
        }
    };
    let mut answering = Answering::of(state, turn, calls, writing);
    let open = answering.calls.calls.iter().filter(|call| !call.answered);
    let withdrawals: Vec<Errand> = open.filter_map(|call| withdrawal(turn, call, answering.writing.context)).collect();
    answering.answer_all(TURN_ENDED, |_| true);
    answering.settle();
    let turn = answering.turn;
    if !withdrawals.is_empty() {
        writing.event(errand::due(writing.context.now));
    }
    writing.extend(withdrawals.iter().map(Errand::row));
    Ok(turn)
}

fn withdrawal(turn: &Turn, call: &Call, context: &DecisionContext) -> Option<Errand> {
    Some(Errand::Withdraw {
        channel: call.ask.as_ref()?.channel.clone(),
        turn: turn.id,
        call: call.id.clone(),
        review: call.wait.as_ref().map(|wait| wait.review),
        since: context.now,
        trace: context.trace,
    })
}

/// The attempt was lost: its running calls get the result that they were interrupted; questions to people are raised
/// again. Returns the turn; `None`: its calls cannot be read.
pub(super) fn interrupt(state: &State, turn: &Turn, writing: &mut Writing<'_>) -> Result<Option<Turn>, Undecided> {
    let Ok(calls) = Calls::open_of(turn, writing.reads)? else { return Ok(None) };
    let mut answering = Answering::of(state, turn, calls, writing);
    answering.answer_all(INTERRUPTED, |call| call.ask.is_none());
    answering.settle();
    Ok(Some(answering.turn))
}
