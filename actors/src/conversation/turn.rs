//! Turns: an agent answers, one turn at a time.
//!
//! A turn's attempt is committed before the model is called, and its outcome is accepted only from that attempt. So
//! after a crash a model may be called twice, but at most one reply is ever appended. For an attempt's tool calls see
//! [`calls`].

use std::sync::Arc;

use bytes::Bytes;

use super::writing::{Decided, Halt, Writing};
use super::{Accepted, Event, Rejection, Reply, State, number_key};
use crate::clock::Millis;
use crate::id::{MessageId, TurnId};
use crate::limits;
use crate::machine::{Decision, DecisionContext, ReadSet, Undecided};
use crate::message::{Content, Sender, SenderKind, role};
use crate::store::{KeyHash, RowWrite, SeqRange, ViewWrite};
use crate::tables::{REQUESTED_TURNS, TURNS};
use crate::usage;

pub mod calls;
pub mod record;

pub use record::{Failure, Turn, TurnStatus, Usage};

/// One attempt at one turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the turn in its conversation, from 1.
    pub number: u64,
    /// Which attempt at it, from 1.
    pub attempt: u32,
}

/// An attempt at a turn of any conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptId {
    /// The turn.
    pub turn: TurnId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
}

/// An agent is to take a turn.
#[derive(Clone, Debug)]
pub struct StartTurn {
    /// The id of the agent.
    pub agent: String,
    /// The idempotency key of the request.
    pub key: Option<KeyHash>,
}

/// A failed turn is to be tried again.
#[derive(Clone, Debug)]
pub struct RetryTurn {
    /// The number of the turn.
    pub number: u64,
    /// The agent that answers from now on; `None`: unchanged.
    pub agent: Option<String>,
}

/// A turn is to be stopped.
#[derive(Clone, Copy, Debug)]
pub struct CancelTurn {
    /// The number of the turn.
    pub number: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The attempt that has ended.
    pub attempt: Attempt,
    /// The replies and their usage, or why there are none.
    pub outcome: Result<Completed, Failure>,
    /// The parent of the first reply, if the conversation is a tree.
    pub branch: Option<MessageId>,
}

/// What a completed attempt has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The texts of the replies, in order; none if nothing is left to be answered, or to be added to what was said.
    pub replies: Vec<String>,
    /// Without replies: the sequence of the turn's message with calls whose text is the reply.
    pub said: Option<u64>,
    /// The usage of the model call that made them.
    pub usage: Usage,
}

impl Finish {
    pub(super) fn weight(&self) -> usize {
        let replies = self.outcome.iter().flat_map(|completed| &completed.replies);
        limits::COMMAND_BYTES + replies.map(String::len).sum::<usize>()
    }
}

/// The first waiting turn begins.
fn start_next(state: &State, writing: &mut Writing<'_>) {
    if let Some(next) = state.queued.first() {
        begin(next, writing);
    }
}

/// A turn's next attempt begins.
pub(super) fn begin(turn: &Turn, writing: &mut Writing<'_>) -> Turn {
    write(turn.started(writing.context), Event::TurnStarted, writing)
}

/// Writes a turn's row, and the event that says what has become of it. Returns the turn.
pub(super) fn write(turn: Turn, event: fn(Turn) -> Event, writing: &mut Writing<'_>) -> Turn {
    writing.row(turn.row());
    writing.event(event(turn.clone()));
    turn
}

/// Asks the agent to answer the existing messages.
pub(super) fn start(state: &State, start: &StartTurn, mut writing: Writing<'_>) -> Decided {
    if state.is_being_copied() {
        return Err(Rejection::BeingCopied.into());
    }
    if state.closed {
        return Err(Rejection::Closed.into());
    }
    takes_more(state)?;
    let newest = state.newest_message.unwrap_or(state.last_seq);
    let requested = Turn::requested(writing.context.now, state.id, state.turns + 1, &start.agent);
    let turn = enqueue(state, Turn { trigger: Some(newest), ..requested }, &mut writing);
    if let (Some(key), Some(_)) = (start.key, &state.running) {
        let value = [number_key(state.turns + 1), number_key(newest)].concat();
        writing.row(RowWrite::put(REQUESTED_TURNS, Bytes::copy_from_slice(&key.0), value));
    }
    Ok(writing.done(Reply::Turn(Box::new(turn))))
}

/// Parses the row of a turn that was requested with a key: the number of the turn, and the newest message at that time,
/// if it was recorded.
#[must_use]
pub(crate) fn parse_requested_turn(row: &[u8]) -> Option<(u64, Option<u64>)> {
    let (number, newest) = row.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), newest.first_chunk().map(|newest| u64::from_be_bytes(*newest))))
}

/// Begins `turn`, or queues it if one runs.
fn enqueue(state: &State, turn: Turn, writing: &mut Writing<'_>) -> Turn {
    match &state.running {
        None => begin(&turn, writing),
        Some(_) => write(Turn { status: TurnStatus::Queued, runner: None, ..turn }, Event::TurnQueued, writing),
    }
}

/// The stored turn with this number, running or not.
fn stored(number: u64, reads: &ReadSet) -> Result<Turn, Halt> {
    Ok(reads.stored(TURNS, number_key(number))?.ok_or(Rejection::TurnNotFound)?)
}

/// Retries a failed turn, by another agent if one is named: the channel's agent may have changed. A waiting or running
/// turn is answered unchanged.
pub(super) fn retry(state: &State, retry: &RetryTurn, writing: Writing<'_>) -> Decided {
    let turn = stored(retry.number, writing.reads)?;
    match turn.status {
        // The question is erased, and a reply would be new content.
        TurnStatus::Failed if state.erasure.is_some() => Err(Rejection::Erased.into()),
        TurnStatus::Failed => again(state, &turn, retry.agent.as_deref(), writing),
        TurnStatus::Queued | TurnStatus::Running | TurnStatus::AwaitingReview => {
            Ok(Decision::Answer(Reply::Turn(Box::new(turn))))
        }
        TurnStatus::Completed | TurnStatus::Cancelled => Err(Rejection::TurnNotPossible(turn.status).into()),
    }
}

/// Queues a failed turn like a new one, within the same bounds. A conversation closed since does not refuse it: the
/// message that it answers was accepted before.
fn again(state: &State, turn: &Turn, agent: Option<&str>, mut writing: Writing<'_>) -> Decided {
    takes_more(state)?;
    // Its waiting form is part of the state; its earlier end is in the log.
    let agent = agent.unwrap_or(&turn.agent).to_owned();
    let again = Turn { series_after: Some(turn.attempt), agent, ..turn.bare() };
    let turn = enqueue(state, again, &mut writing);
    Ok(writing.done(Reply::Turn(Box::new(turn))))
}

/// Whether a further turn may wait.
fn takes_more(state: &State) -> Result<(), Rejection> {
    if state.queued.len() < limits::QUEUED_TURNS { Ok(()) } else { Err(Rejection::TooManyTurns) }
}

/// A turn is stopped; the next one begins.
pub(super) fn cancel(state: &State, cancel: CancelTurn, mut writing: Writing<'_>) -> Decided {
    let turn = stored(cancel.number, writing.reads)?;
    if turn.is_over() {
        return Err(Rejection::TurnNotPossible(turn.status).into());
    }
    let is_running = state.running.as_ref().is_some_and(|running| running.id == turn.id);
    let turn = end_cancelled(state, &turn, &mut writing)?;
    if is_running {
        start_next(state, &mut writing);
    }
    Ok(writing.done(Reply::Turn(Box::new(turn))))
}

/// A turn ends as cancelled.
pub(super) fn end_cancelled(state: &State, turn: &Turn, writing: &mut Writing<'_>) -> Result<Turn, Undecided> {
    let turn = end_as(state, turn, Turn::cancelled, writing)?;
    Ok(write(turn, Event::TurnCancelled, writing))
}

/// A turn ends as failed.
fn end_failed(state: &State, turn: &Turn, failure: Failure, writing: &mut Writing<'_>) -> Result<Turn, Undecided> {
    let failed = |turn: &Turn, at| Turn { failure: Some(failure), ..turn.ended(TurnStatus::Failed, at) };
    let turn = end_as(state, turn, failed, writing)?;
    Ok(write(turn, Event::TurnFailed, writing))
}

/// The turn as it ends, with the effect on its calls; the caller writes its row. `how` gets the time of the decision.
fn end_as(
    state: &State,
    turn: &Turn,
    how: impl FnOnce(&Turn, Millis) -> Turn,
    writing: &mut Writing<'_>,
) -> Result<Turn, Undecided> {
    let turn = calls::close(state, turn, writing)?;
    Ok(Turn { in_closed: state.closed.then_some(true), ..how(&turn, writing.context.now) })
}

/// The running turn, if this is its current attempt.
fn running(state: &State, attempt: Attempt) -> Option<&Turn> {
    state.running.as_ref().filter(|turn| turn.status == TurnStatus::Running && turn.current() == attempt)
}

/// An attempt has ended. The result of an attempt that is not the current one is dropped.
pub(super) fn finish(state: &State, finish: &Finish, mut writing: Writing<'_>) -> Decided {
    let Some(turn) = running(state, finish.attempt) else { return Ok(Decision::Answer(Reply::Nothing)) };
    let ended = match &finish.outcome {
        Ok(completed) => complete(state, turn, completed, finish.branch, &mut writing)?,
        Err(failure) => end_failed(state, turn, failure.clone(), &mut writing)?,
    };
    start_next(state, &mut writing);
    Ok(writing.done(Reply::Turn(Box::new(ended))))
}

/// A turn ends with its replies; `branch` is the parent of the first one, if the conversation is a tree.
fn complete(
    state: &State,
    turn: &Turn,
    Completed { replies, said, usage }: &Completed,
    branch: Option<MessageId>,
    writing: &mut Writing<'_>,
) -> Result<Turn, Undecided> {
    let completed = |turn: &Turn, at| turn.ended(TurnStatus::Completed, at);
    let ended = end_as(state, turn, completed, writing)?;
    let first = writing.next_seq();
    let mut parent = branch;
    for text in replies {
        let seq = writing.event(reply(state, turn, text, parent));
        parent = branch.map(|_| MessageId::new(writing.context.now, state.id.address, seq));
    }
    let replies = Some(SeqRange::counted(first, replies.len())).filter(|replies| !replies.is_empty());
    let replies = replies.or(said.map(SeqRange::one));
    let ended = Turn { replies, usage: Some(usage.added_to(turn.usage.as_ref())), ..ended };
    writing.entry(usage_entry(&ended, usage, true, writing.context));
    Ok(write(ended, Event::TurnCompleted, writing))
}

/// The usage of a model call, in the workspace's list. `last`: it ended its turn.
fn usage_entry(turn: &Turn, used: &Usage, last: bool, context: &DecisionContext) -> ViewWrite {
    usage::Entry { agent: turn.agent.clone(), usage: used.clone(), last, calls: None }.write(context)
}

/// A reply of the turn's agent.
fn reply(state: &State, turn: &Turn, text: &str, parent: Option<MessageId>) -> Event {
    let sender = Sender { kind: SenderKind::Agent, id: turn.agent.clone() };
    Event::MessageCreated(Accepted {
        conversation: state.id,
        content: Arc::new(Content::text(role::ASSISTANT, sender, text)),
        parent,
        owner: state.owner.clone(),
        turn: Some(turn.id),
    })
}

/// Recovers the running turn at a due alarm: the next attempt or the end if its attempt was lost. Who named it has
/// judged by the clock that it is due, which a decision cannot: its time is never earlier than the attempt's start.
pub(super) fn recover(state: &State, lost: Option<Attempt>, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let running = state.running.as_ref().filter(|turn| lost == Some(turn.current()));
    let running = running.filter(|turn| turn.status == TurnStatus::Running);
    let Some(turn) = running else { return Ok(()) };
    if turn.attempts() >= limits::TURN_ATTEMPTS {
        let detail = format!("the turn was interrupted {} times", turn.attempts());
        return fail_running(state, turn, Failure { code: "attempts_exhausted".to_owned(), detail }, writing);
    }
    match calls::interrupt(state, turn, writing)? {
        Some(interrupted) => {
            begin(&interrupted, writing);
            Ok(())
        }
        None => fail_running(state, turn, calls::unreadable_failure(), writing),
    }
}

/// The running turn ends as failed, whatever its attempt does; the next one begins.
fn fail_running(state: &State, turn: &Turn, failure: Failure, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    end_failed(state, turn, failure, writing)?;
    start_next(state, writing);
    Ok(())
}
