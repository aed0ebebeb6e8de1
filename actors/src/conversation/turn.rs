//! Turns: an agent answers, one turn at a time.
//!
//! A turn's attempt is committed before the model is called, and its outcome is accepted only from that attempt. So
//! after a crash a model may be called twice, but at most one reply is ever appended. For an attempt's tool calls see
//! [`calls`].

use std::sync::Arc;

use bytes::Bytes;

use super::{Accepted, Conversation, Event, Rejection, Reply, State, errand, number_key};
use crate::clock::Millis;
use crate::id::MessageId;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, ReadSet, Undecided};
use crate::message::{Content, Sender, SenderKind, role};
use crate::store::{KeyHash, RowWrite, SeqRange, ViewWrite};
use crate::tables::{ASKED_TURNS, TURNS};
use crate::usage;

pub mod calls;
pub mod record;

pub use record::{Failure, Turn, TurnStatus, Usage};

/// One attempt at one turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The turn.
    pub number: u64,
    /// The attempt.
    pub attempt: u32,
}

/// An agent is to take a turn.
#[derive(Clone, Debug)]
pub struct StartTurn {
    /// The agent.
    pub agent: String,
    /// The idempotency key of the request.
    pub key: Option<KeyHash>,
}

/// A failed turn is to be tried again.
#[derive(Clone, Debug)]
pub struct RetryTurn {
    /// Its number.
    pub number: u64,
    /// The agent that answers from now on; `None`: unchanged.
    pub agent: Option<String>,
}

/// A turn is to be stopped.
#[derive(Clone, Copy, Debug)]
pub struct CancelTurn {
    /// Its number.
    pub number: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The turn.
    pub number: u64,
    /// The attempt.
    pub attempt: u32,
    /// Replies and cost, or why there are none.
    pub outcome: Result<(Vec<String>, Usage), Failure>,
    /// The parent of the first reply, if the conversation is a tree.
    pub branch: Option<MessageId>,
}

impl Finish {
    pub(super) fn weight(&self) -> usize {
        let replies = self.outcome.iter().flat_map(|(replies, _)| replies);
        limits::COMMAND_BYTES + replies.map(String::len).sum::<usize>()
    }
}

/// The first waiting turn begins.
fn start_next(state: &State, moment: &DecisionContext, events: &mut Vec<Event>, rows: &mut Vec<RowWrite>) {
    if let Some(next) = state.queued.first() {
        let next = next.started(moment);
        rows.push(next.row());
        events.push(Event::TurnStarted(next));
    }
}

/// Asks the agent to answer the existing messages.
pub(super) fn start(
    state: &State,
    agent: &str,
    key: Option<KeyHash>,
    moment: &DecisionContext,
) -> Decision<Conversation> {
    if let Some(rejection) = refuse(state) {
        return Decision::Reject(rejection);
    }
    let newest = state.newest_message.unwrap_or(state.last_seq);
    let turn = Turn { trigger: Some(newest), ..Turn::requested(moment.now, state.id, state.turns + 1, agent) };
    let mut change = enqueue(state, turn, moment);
    if let (Some(key), Some(_)) = (key, &state.running) {
        let value = [number_key(state.turns + 1), number_key(newest)].concat();
        change.rows.push(RowWrite::put(ASKED_TURNS, Bytes::copy_from_slice(&key.0), value));
    }
    Decision::Change(change)
}

/// The number of the turn that a key asked for, by its row, and the newest message at that time, if it was recorded.
#[must_use]
pub(crate) fn asked(row: &[u8]) -> Option<(u64, Option<u64>)> {
    let (number, newest) = row.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), newest.first_chunk().map(|newest| u64::from_be_bytes(*newest))))
}

/// Begins `turn`, or queues it if one runs.
fn enqueue(state: &State, turn: Turn, moment: &DecisionContext) -> Change<Conversation> {
    let (turn, event): (Turn, fn(Turn) -> Event) = match &state.running {
        None => (turn.started(moment), Event::TurnStarted),
        Some(_) => (Turn { status: TurnStatus::Queued, runner: None, ..turn }, Event::TurnQueued),
    };
    Change { rows: vec![turn.row()], ..Change::new(vec![event(turn.clone())], Reply::Turn(Box::new(turn))) }
}

/// A stored turn.
fn stored(number: u64, found: &ReadSet) -> Result<Option<Turn>, Undecided> {
    found.stored(TURNS, number_key(number))
}

/// Retries a failed turn, by another agent if one is named: the channel's agent may have changed. A waiting or running
/// turn is answered unchanged.
pub(super) fn retry(
    state: &State,
    retry: &RetryTurn,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let Some(turn) = stored(retry.number, found)? else { return Ok(Decision::Reject(Rejection::TurnNotFound)) };
    Ok(match turn.status {
        // The question is erased, and a reply would be new words.
        TurnStatus::Failed if state.erasure.is_some() => Decision::Reject(Rejection::Erased),
        TurnStatus::Failed => again(state, &turn, retry.agent.as_deref(), moment),
        TurnStatus::Queued | TurnStatus::Running | TurnStatus::AwaitingReview => {
            Decision::Answer(Reply::Turn(Box::new(turn)))
        }
        TurnStatus::Completed | TurnStatus::Cancelled => Decision::Reject(Rejection::TurnNotPossible(turn.status)),
    })
}

/// Queues a failed turn like a new one, within the same bounds. A conversation closed since does not refuse it: the
/// message that it answers was accepted before.
fn again(state: &State, turn: &Turn, agent: Option<&str>, moment: &DecisionContext) -> Decision<Conversation> {
    match refuse_more(state) {
        Some(rejection) => Decision::Reject(rejection),
        // Its waiting form is part of the state; its earlier end is in the log.
        None => {
            let agent = agent.unwrap_or(&turn.agent).to_owned();
            let again = Turn { series_after: Some(turn.attempt), agent, ..turn.bare() };
            Decision::Change(enqueue(state, again, moment))
        }
    }
}

/// Why no turn may be requested now.
fn refuse(state: &State) -> Option<Rejection> {
    if state.closed { Some(Rejection::Closed) } else { refuse_more(state) }
}

/// Why no further turn may wait.
fn refuse_more(state: &State) -> Option<Rejection> {
    (state.queued.len() >= limits::QUEUED_TURNS).then_some(Rejection::TooManyTurns)
}

/// A turn is stopped; the next one begins.
pub(super) fn cancel(
    state: &State,
    number: u64,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let Some(turn) = stored(number, found)? else { return Ok(Decision::Reject(Rejection::TurnNotFound)) };
    if turn.is_over() {
        return Ok(Decision::Reject(Rejection::TurnNotPossible(turn.status)));
    }
    let is_running = state.running.as_ref().is_some_and(|running| running.id == turn.id);
    let mut change = Change::new(Vec::new(), Reply::Nothing);
    let turn = end_as(state, &turn, Turn::cancelled, moment, found, &mut change)?;
    change.rows.push(turn.row());
    change.events.push(Event::TurnCancelled(turn.clone()));
    if is_running {
        start_next(state, moment, &mut change.events, &mut change.rows);
    }
    Ok(Decision::Change(Change { reply: Reply::Turn(Box::new(turn)), ..change }))
}

/// The turn as it ends, with the effect on its calls; the caller writes its row. `how` gets the moment's time.
pub(super) fn end_as(
    state: &State,
    turn: &Turn,
    how: impl FnOnce(&Turn, Millis) -> Turn,
    moment: &DecisionContext,
    found: &ReadSet,
    change: &mut Change<Conversation>,
) -> Result<Turn, Undecided> {
    let closed = calls::close(state, turn, moment, found)?;
    change.events.extend(closed.events);
    if closed.errands {
        change.events.push(errand::due(moment.now));
    }
    change.rows.extend(closed.rows);
    Ok(Turn { in_closed: state.closed.then_some(true), ..how(&closed.turn, moment.now) })
}

/// An attempt has ended. The result of an attempt that is not the current one is dropped.
pub(super) fn finish(
    state: &State,
    finish: &Finish,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let running = state.running.as_ref().filter(|turn| turn.status == TurnStatus::Running);
    let Some(turn) = running.filter(|turn| turn.id.number == finish.number && turn.attempt == finish.attempt) else {
        return Ok(Decision::Answer(Reply::Nothing));
    };
    let mut change = Change::new(Vec::new(), Reply::Nothing);
    let ended = match &finish.outcome {
        Ok((replies, usage)) => {
            let completed = |turn: &Turn, at| turn.ended(TurnStatus::Completed, at);
            let ended = end_as(state, turn, completed, moment, found, &mut change)?;
            let first = Event::next_seq(moment, &change.events);
            let id_at = |seq| MessageId::new(moment.now, state.id.address, seq);
            change.events.extend((first..).zip(replies).map(|(seq, text)| {
                let before = if seq == first { finish.branch } else { finish.branch.map(|_| id_at(seq - 1)) };
                reply(state, turn, text, before)
            }));
            let replies = Some(SeqRange::counted(first, replies.len())).filter(|replies| !replies.is_empty());
            let ended = Turn { replies, usage: Some(usage.on_top_of(turn.usage.as_ref())), ..ended };
            change.rows.push(ended.row());
            change.views.push(usage_entry(&ended, usage, true, moment));
            change.events.push(Event::TurnCompleted(ended.clone()));
            ended
        }
        Err(failure) => {
            let failed = |turn: &Turn, at| failed(turn, failure.clone(), at);
            let ended = end_as(state, turn, failed, moment, found, &mut change)?;
            change.rows.push(ended.row());
            change.events.push(Event::TurnFailed(ended.clone()));
            ended
        }
    };
    start_next(state, moment, &mut change.events, &mut change.rows);
    Ok(Decision::Change(Change { reply: Reply::Turn(Box::new(ended)), ..change }))
}

/// The usage of a model call, in the workspace's list. `last`: it ended its turn.
fn usage_entry(turn: &Turn, used: &Usage, last: bool, moment: &DecisionContext) -> ViewWrite {
    usage::Entry { agent: turn.agent.clone(), usage: used.clone(), last, calls: None }.write(moment)
}

fn failed(turn: &Turn, failure: Failure, at: Millis) -> Turn {
    Turn { failure: Some(failure), ..turn.ended(TurnStatus::Failed, at) }
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

/// Recovers the running turn at a due alarm: the next attempt or the end if its attempt was lost.
pub(super) fn recover(
    state: &State,
    lost: Option<Attempt>,
    moment: &DecisionContext,
    found: &ReadSet,
    change: &mut Change<Conversation>,
) -> Result<(), Undecided> {
    let running = state.running.as_ref().filter(|turn| lost == Some(turn.current()));
    let running = running.filter(|turn| turn.status == TurnStatus::Running && moment.now >= turn.look_at());
    let Some(turn) = running else { return Ok(()) };
    if turn.attempts() < limits::TURN_ATTEMPTS {
        let interrupted = calls::interrupt(state, turn, moment, found)?;
        let again = interrupted.turn.started(moment);
        change.events.extend(interrupted.events);
        change.rows.push(again.row());
        change.rows.extend(interrupted.rows);
        change.events.push(Event::TurnStarted(again));
    } else {
        let failure = Failure {
            code: "attempts_exhausted".to_owned(),
            detail: format!("the turn was interrupted {} times", turn.attempts()),
        };
        let failed = |turn: &Turn, at| failed(turn, failure, at);
        let failed = end_as(state, turn, failed, moment, found, change)?;
        change.rows.push(failed.row());
        change.events.push(Event::TurnFailed(failed));
        start_next(state, moment, &mut change.events, &mut change.rows);
    }
    Ok(())
}
