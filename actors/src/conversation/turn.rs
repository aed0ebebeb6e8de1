//! Turns: an agent answers, one turn at a time.
//!
//! A turn's attempt is committed before the model is called, and its outcome is accepted only from that attempt. So
//! after a crash a model may be called twice, but at most one reply is ever appended.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{ASKED_TURNS, Accepted, Conversation, Event, Rejection, Reply, State, TURNS, number_key};
use crate::clock::Millis;
use crate::codec;
use crate::id::{ConversationId, TurnId};
use crate::limits;
use crate::machine::{Change, Decision, Found, Missing, Moment};
use crate::message::{Content, Sender, SenderKind};
use crate::store::{KeyHash, NodeId, RowWrite};

/// After which a running turn is looked at: one that was lost with its process is started again then.
const LOOK_AFTER_MILLIS: u64 = 1_000;

/// How a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TurnStatus {
    /// It waits for the one before it.
    #[n(0)]
    Queued,
    /// The agent is at it.
    #[n(1)]
    Running,
    /// It waits for a person's answer.
    #[n(2)]
    AwaitingReview,
    /// Its replies are appended.
    #[n(3)]
    Completed,
    /// It ended without.
    #[n(4)]
    Failed,
    /// It was stopped.
    #[n(5)]
    Cancelled,
}

/// What a turn cost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Usage {
    /// Tokens read by the model.
    #[n(0)]
    pub input_tokens: u64,
    /// Tokens written by it.
    #[n(1)]
    pub output_tokens: u64,
    /// Thousandths of a credit.
    #[n(2)]
    pub millicredits: u64,
    /// The model.
    #[n(3)]
    pub model: String,
}

/// Why a turn failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// For programs.
    #[n(0)]
    pub code: String,
    /// For people; nothing that the model's endpoint said verbatim.
    #[n(1)]
    pub detail: String,
}

/// A turn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Turn {
    /// Its id: the time it was asked for, its conversation, its number there from 1.
    #[n(0)]
    pub id: TurnId,
    /// Which agent.
    #[n(1)]
    pub agent: String,
    /// Sequence of the newest message that it answers.
    #[n(2)]
    pub trigger: Option<u64>,
    /// How it stands.
    #[n(3)]
    pub status: TurnStatus,
    /// Which attempt, from 1; 0 before the first.
    #[n(4)]
    pub attempt: u32,
    /// When the attempt began.
    #[n(5)]
    pub started_at: Option<Millis>,
    /// When it ended.
    #[n(6)]
    pub ended_at: Option<Millis>,
    /// First and last sequence of its replies.
    #[n(7)]
    pub replies: Option<(u64, u64)>,
    /// What it cost.
    #[n(8)]
    pub usage: Option<Usage>,
    /// Why it failed.
    #[n(9)]
    pub failure: Option<Failure>,
    /// The process that its newest attempt runs in. It is asked for again only when that is gone.
    #[n(15)]
    pub runner: Option<NodeId>,
}

/// One attempt at one turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The turn.
    pub number: u64,
    /// The attempt.
    pub attempt: u32,
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
}

impl Finish {
    pub(super) fn weight(&self) -> usize {
        self.outcome.as_ref().map_or(200, |(replies, _)| 200 + replies.iter().map(String::len).sum::<usize>())
    }
}

impl Turn {
    /// A turn that was asked for.
    #[must_use]
    pub fn requested(at: Millis, conversation: ConversationId, number: u64, agent: &str) -> Self {
        Self {
            id: TurnId::new(at, conversation.address, number),
            agent: agent.to_owned(),
            trigger: None,
            status: TurnStatus::Queued,
            attempt: 0,
            started_at: None,
            ended_at: None,
            replies: None,
            usage: None,
            failure: None,
            runner: None,
        }
    }

    /// The turn as it was when it was asked for and had to wait.
    #[must_use]
    pub fn requested_again(turn: &Self) -> Self {
        let status = TurnStatus::Queued;
        let (attempt, started_at, ended_at, replies, usage, failure) = (0, None, None, None, None, None);
        Self { status, attempt, started_at, ended_at, replies, usage, failure, runner: None, ..turn.clone() }
    }

    /// The same with its next attempt begun.
    #[must_use]
    pub(super) fn started(&self, moment: &Moment) -> Self {
        Self {
            status: TurnStatus::Running,
            attempt: self.attempt + 1,
            started_at: Some(moment.now),
            runner: Some(moment.node),
            ended_at: None,
            failure: None,
            ..self.clone()
        }
    }

    /// The same, ended by somebody's wish.
    #[must_use]
    pub(super) fn cancelled(&self, at: Millis) -> Self {
        Self { status: TurnStatus::Cancelled, ended_at: Some(at), ..self.clone() }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, TurnStatus::Completed | TurnStatus::Failed | TurnStatus::Cancelled)
    }

    /// Its newest attempt.
    pub(super) fn current(&self) -> Attempt {
        Attempt { number: self.id.number, attempt: self.attempt }
    }

    /// When to look whether it still runs.
    pub(super) fn look_at(&self) -> Millis {
        self.started_at.unwrap_or(self.id.at).plus(LOOK_AFTER_MILLIS)
    }

    /// Its row.
    pub(super) fn row(&self) -> RowWrite {
        RowWrite { table: TURNS, key: number_key(self.id.number), value: Some(codec::encode(self)) }
    }
}

/// The first waiting turn begins.
fn start_next(state: &State, moment: &Moment, events: &mut Vec<Event>, rows: &mut Vec<RowWrite>) {
    if let Some(next) = state.queued.first() {
        let next = next.started(moment);
        rows.push(next.row());
        events.push(Event::TurnStarted(next));
    }
}

/// An agent shall answer what is there.
pub(super) fn start(state: &State, agent: &str, key: Option<KeyHash>, moment: &Moment) -> Decision<Conversation> {
    if let Some(rejection) = refuse(state) {
        return Decision::Reject(rejection);
    }
    let turn = Turn { trigger: Some(state.last_seq), ..Turn::requested(moment.now, state.id, state.turns + 1, agent) };
    let mut change = enqueue(state, turn, moment);
    if let (Some(key), Some(_)) = (key, &state.running) {
        let value = Some(number_key(state.turns + 1));
        change.rows.push(RowWrite { table: ASKED_TURNS, key: Bytes::copy_from_slice(&key.0), value });
    }
    Decision::Change(change)
}

/// Begins `turn`, or lets it wait where one runs.
fn enqueue(state: &State, turn: Turn, moment: &Moment) -> Change<Conversation> {
    let (turn, event): (Turn, fn(Turn) -> Event) = match &state.running {
        None => (turn.started(moment), Event::TurnStarted),
        Some(_) => (Turn { status: TurnStatus::Queued, runner: None, ..turn }, Event::TurnQueued),
    };
    Change { rows: vec![turn.row()], ..Change::new(vec![event(turn.clone())], Reply::Turn(Box::new(turn))) }
}

/// A stored turn.
fn stored(number: u64, found: &Found) -> Result<Option<Turn>, Missing> {
    Ok(found.row(TURNS, number_key(number))?.and_then(|bytes| codec::decode(bytes).ok()))
}

/// A failed turn is tried again. One that waits or runs is answered as it stands.
pub(super) fn retry(
    state: &State,
    number: u64,
    moment: &Moment,
    found: &Found,
) -> Result<Decision<Conversation>, Missing> {
    let Some(turn) = stored(number, found)? else { return Ok(Decision::Reject(Rejection::TurnNotFound)) };
    Ok(match turn.status {
        TurnStatus::Failed => again(state, turn, moment),
        TurnStatus::Queued | TurnStatus::Running | TurnStatus::AwaitingReview => {
            Decision::Answer(Reply::Turn(Box::new(turn)))
        }
        TurnStatus::Completed | TurnStatus::Cancelled => Decision::Reject(Rejection::TurnNotPossible(turn.status)),
    })
}

/// A failed turn takes its place as a new one would, and within the same bounds. That its conversation was closed since
/// is no reason to refuse: the message that it answers was accepted before.
fn again(state: &State, turn: Turn, moment: &Moment) -> Decision<Conversation> {
    match refuse_more(state) {
        Some(rejection) => Decision::Reject(rejection),
        // What it waits with is part of the state; how it ended before is told by the log.
        None => Decision::Change(enqueue(state, Turn { ended_at: None, failure: None, ..turn }, moment)),
    }
}

/// Whether no turn may be asked for now.
fn refuse(state: &State) -> Option<Rejection> {
    if state.closed { Some(Rejection::Closed) } else { refuse_more(state) }
}

/// Whether as many turns wait as there is room for.
fn refuse_more(state: &State) -> Option<Rejection> {
    (state.queued.len() >= limits::QUEUED_TURNS).then_some(Rejection::TooManyTurns)
}

/// A turn is stopped; the next one begins.
pub(super) fn cancel(
    state: &State,
    number: u64,
    moment: &Moment,
    found: &Found,
) -> Result<Decision<Conversation>, Missing> {
    let Some(turn) = stored(number, found)? else { return Ok(Decision::Reject(Rejection::TurnNotFound)) };
    if turn.is_over() {
        return Ok(Decision::Reject(Rejection::TurnNotPossible(turn.status)));
    }
    let turn = turn.cancelled(moment.now);
    let mut rows = vec![turn.row()];
    let mut events = vec![Event::TurnCancelled(turn.clone())];
    if state.running.as_ref().is_some_and(|running| running.id == turn.id) {
        start_next(state, moment, &mut events, &mut rows);
    }
    Ok(Decision::Change(Change { rows, ..Change::new(events, Reply::Turn(Box::new(turn))) }))
}

/// An attempt has ended. Of an attempt that is not the current one nothing is kept.
pub(super) fn finish(state: &State, finish: &Finish, moment: &Moment) -> Decision<Conversation> {
    let running = state.running.as_ref();
    let Some(turn) = running.filter(|turn| turn.id.number == finish.number && turn.attempt == finish.attempt) else {
        return Decision::Answer(Reply::Nothing);
    };
    let mut events = Vec::new();
    let ended = match &finish.outcome {
        Ok((replies, usage)) => {
            events.extend(replies.iter().map(|text| reply(state, turn, text)));
            let last = moment.next_seq + replies.len() as u64;
            Turn {
                status: TurnStatus::Completed,
                ended_at: Some(moment.now),
                replies: (!replies.is_empty()).then_some((moment.next_seq, last - 1)),
                usage: Some(usage.clone()),
                ..turn.clone()
            }
        }
        Err(failure) => failed(turn, failure.clone(), moment.now),
    };
    let mut rows = vec![ended.row()];
    events.push(match ended.status {
        TurnStatus::Completed => Event::TurnCompleted(ended.clone()),
        _ => Event::TurnFailed(ended.clone()),
    });
    start_next(state, moment, &mut events, &mut rows);
    Decision::Change(Change { rows, ..Change::new(events, Reply::Turn(Box::new(ended))) })
}

fn failed(turn: &Turn, failure: Failure, at: Millis) -> Turn {
    Turn { status: TurnStatus::Failed, ended_at: Some(at), failure: Some(failure), ..turn.clone() }
}

/// A reply of the turn's agent.
fn reply(state: &State, turn: &Turn, text: &str) -> Event {
    let sender = Sender { kind: SenderKind::Agent, id: turn.agent.clone() };
    Event::MessageCreated(Accepted {
        conversation: state.id,
        content: Arc::new(Content::text("assistant", sender, text)),
        parent: None,
        owner: state.owner.clone(),
        turn: Some(turn.id),
    })
}

/// What a due alarm means for the running turn: the next attempt or the end if it is the one that was lost.
pub(super) fn recover(
    state: &State,
    lost: Option<Attempt>,
    moment: &Moment,
    events: &mut Vec<Event>,
    rows: &mut Vec<RowWrite>,
) {
    let running = state.running.as_ref().filter(|turn| lost == Some(turn.current()));
    let Some(turn) = running.filter(|turn| moment.now >= turn.look_at()) else { return };
    if turn.attempt < limits::TURN_ATTEMPTS {
        let again = turn.started(moment);
        rows.push(again.row());
        events.push(Event::TurnStarted(again));
    } else {
        let failure = Failure {
            code: "attempts_exhausted".to_owned(),
            detail: format!("the turn was interrupted {} times", turn.attempt),
        };
        let failed = failed(turn, failure, moment.now);
        rows.push(failed.row());
        events.push(Event::TurnFailed(failed));
        start_next(state, moment, events, rows);
    }
}
