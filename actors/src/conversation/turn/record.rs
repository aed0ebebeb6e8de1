//! A turn as it is stored: its status, its usage, its error.

use minicbor::{Decode, Encode};

use super::{Attempt, AttemptId};
use crate::clock::Millis;
use crate::codec;
use crate::conversation::{Event, number_key};
use crate::id::{ConversationId, TurnId};
use crate::machine::{DecisionContext, Record};
use crate::store::{NodeId, RowWrite, SeqRange};
use crate::tables::TURNS;
use crate::trace::TraceContext;

/// The pause after which a running turn is checked: one that was lost with its process is started again then.
const TURN_CHECK_DELAY_MILLIS: u64 = 1_000;

/// The status of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TurnStatus {
    /// It waits for the turn before it.
    #[n(0)]
    Queued,
    /// The agent works on it.
    #[n(1)]
    Running,
    /// It waits for a person's answer.
    #[n(2)]
    AwaitingReview,
    /// Its replies are appended.
    #[n(3)]
    Completed,
    /// It ended without replies.
    #[n(4)]
    Failed,
    /// It was stopped.
    #[n(5)]
    Cancelled,
}

/// The usage of a turn.
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
    /// The name of the model.
    #[n(3)]
    pub model: String,
}

impl Usage {
    /// The sum of this usage and an earlier one; the model is this one's.
    #[must_use]
    pub(crate) fn added_to(&self, before: Option<&Self>) -> Self {
        let (input, output, credits) =
            before.map_or((0, 0, 0), |before| (before.input_tokens, before.output_tokens, before.millicredits));
        Self {
            input_tokens: self.input_tokens.saturating_add(input),
            output_tokens: self.output_tokens.saturating_add(output),
            millicredits: self.millicredits.saturating_add(credits),
            model: self.model.clone(),
        }
    }
}

/// Why a turn failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// The error code, for programs.
    #[n(0)]
    pub code: String,
    /// An explanation for people; never text of the model's endpoint.
    #[n(1)]
    pub detail: String,
}

/// A turn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Turn {
    /// Its id: the time of its request, its conversation, and its number in it, from 1.
    #[n(0)]
    pub id: TurnId,
    /// The id of the agent that answers.
    #[n(1)]
    pub agent: String,
    /// Sequence of the newest message that it answers.
    #[n(2)]
    pub trigger: Option<u64>,
    /// Where it is between its request and its end.
    #[n(3)]
    pub status: TurnStatus,
    /// Which attempt, from 1; 0 before the first.
    #[n(4)]
    pub attempt: u32,
    /// When the attempt began.
    #[n(5)]
    pub started_at: Option<Millis>,
    /// When it was completed, failed or was cancelled.
    #[n(6)]
    pub ended_at: Option<Millis>,
    /// The sequences of its replies.
    #[n(7)]
    pub replies: Option<SeqRange>,
    /// The usage of all its model calls.
    #[n(8)]
    pub usage: Option<Usage>,
    /// Why it failed; `None` if it has not.
    #[n(9)]
    pub failure: Option<Failure>,
    /// How many rounds of tool calls it has had since it was requested, or retried.
    #[n(10)]
    pub rounds: Option<u32>,
    /// How many of its calls have no result; a row holds them.
    #[n(11)]
    pub open_calls: Option<u32>,
    /// The attempt before the first one of the current series: only losses within one series use up its attempts.
    #[n(12)]
    pub series_after: Option<u32>,
    /// While it waits: when to check its reviews.
    #[n(13)]
    pub check_at: Option<Millis>,
    /// While it waits: since when.
    #[n(14)]
    pub waiting_since: Option<Millis>,
    /// The process of its newest attempt. The turn is started again only when that process has ended.
    #[n(15)]
    pub runner: Option<NodeId>,
    /// Whether its conversation was closed when it ended; `None`: no, or it has not ended.
    #[n(16)]
    pub in_closed: Option<bool>,
    /// The trace of the request, until the turn has ended; not in the event of its start, whose record has it. Boxed,
    /// since every conversation has room for a turn and few have one.
    #[n(17)]
    pub trace: Option<Box<TraceContext>>,
}

impl Turn {
    /// A turn as it is requested.
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
            rounds: None,
            open_calls: None,
            series_after: None,
            check_at: None,
            waiting_since: None,
            runner: None,
            in_closed: None,
            trace: None,
        }
    }

    /// The turn as it was when it was requested and had to wait.
    #[must_use]
    pub fn requested_again(turn: &Self) -> Self {
        let requested = Self { id: turn.id, agent: turn.agent.clone(), trigger: turn.trigger, ..turn.bare() };
        Self { status: TurnStatus::Queued, attempt: 0, series_after: None, ..requested }
    }

    /// The turn without its results.
    pub(super) fn bare(&self) -> Self {
        let started_at = None;
        let ended_at = None;
        let replies = None;
        let usage = None;
        let failure = None;
        let rounds = None;
        let open_calls = None;
        let check_at = None;
        let waiting_since = None;
        let agent = self.agent.clone();
        let Self { id, trigger, status, attempt, series_after, .. } = *self;
        Self {
            id,
            agent,
            trigger,
            status,
            attempt,
            started_at,
            ended_at,
            replies,
            usage,
            failure,
            rounds,
            open_calls,
            series_after,
            check_at,
            waiting_since,
            runner: None,
            in_closed: None,
            trace: None,
        }
    }

    /// The turn with its next attempt begun.
    #[must_use]
    pub(in crate::conversation) fn started(&self, context: &DecisionContext) -> Self {
        Self {
            status: TurnStatus::Running,
            attempt: self.attempt + 1,
            started_at: Some(context.now),
            runner: Some(context.node),
            ended_at: None,
            failure: None,
            check_at: None,
            waiting_since: None,
            ..self.clone()
        }
    }

    /// The turn with its current attempt as the first of a new series: it has progressed, so earlier losses do not
    /// count.
    pub(super) fn with_new_series(self) -> Self {
        Self { series_after: Some(self.attempt.saturating_sub(1)), ..self }
    }

    /// How many attempts its current series has had.
    pub(super) fn attempts(&self) -> u32 {
        self.attempt - self.series_after.unwrap_or(0)
    }

    /// Whether its newest attempt is the first to do anything, since it was requested or retried.
    pub(crate) fn is_fresh(&self) -> bool {
        self.attempts() <= 1 && self.rounds.is_none()
    }

    /// The trace of its request, where `record` is that of its start. A turn that waited before holds the trace itself:
    /// its start is in the record of another turn's end.
    pub(crate) fn request_trace(&self, record: &Record<Event>) -> Option<TraceContext> {
        let known = self.trace.as_deref().copied();
        known.or_else(|| record.trace.filter(|_| self.is_fresh()))
    }

    /// The turn as the state keeps it: with the trace of its request.
    pub(in crate::conversation) fn kept(&self, record: &Record<Event>) -> Self {
        let mut turn = self.clone();
        turn.trace = self.request_trace(record).map(Box::new);
        turn
    }

    /// How many times it has called tools.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(0)
    }

    /// The turn, ended with this status.
    #[must_use]
    pub(super) fn ended(&self, status: TurnStatus, at: Millis) -> Self {
        Self { status, ended_at: Some(at), check_at: None, waiting_since: None, trace: None, ..self.clone() }
    }

    /// The turn, cancelled by a request.
    #[must_use]
    pub(in crate::conversation) fn cancelled(&self, at: Millis) -> Self {
        self.ended(TurnStatus::Cancelled, at)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, TurnStatus::Completed | TurnStatus::Failed | TurnStatus::Cancelled)
    }

    /// Its newest attempt, by the turn's number.
    pub(crate) fn current(&self) -> Attempt {
        Attempt { number: self.id.number, attempt: self.attempt }
    }

    /// The id of its newest attempt.
    #[must_use]
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { turn: self.id, attempt: self.attempt }
    }

    /// When to check whether it still runs, or whether its reviews have ended.
    #[must_use]
    pub(crate) fn check_at(&self) -> Millis {
        let running = self.started_at.unwrap_or(self.id.at).plus(TURN_CHECK_DELAY_MILLIS);
        self.check_at.filter(|_| self.status == TurnStatus::AwaitingReview).unwrap_or(running)
    }

    /// Whether it runs, or ran when its process ended, since a time that the clock has not reached: the clock was ahead
    /// then.
    pub(in crate::conversation) fn is_ahead_of(&self, now: Millis) -> bool {
        self.status == TurnStatus::Running && self.started_at.is_some_and(|at| at > now)
    }

    /// The write of its row.
    pub(in crate::conversation) fn row(&self) -> RowWrite {
        RowWrite::put(TURNS, number_key(self.id.number), codec::encode(self))
    }
}
