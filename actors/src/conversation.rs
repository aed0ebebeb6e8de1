//! A conversation: messages in one order, turns of an agent one after the other, reviews decided once.
//!
//! A human channel's messages are a conversation too. Events are defined in [`event`], each operation in its own file:
//! [`post`], [`turn`], [`update`], [`review`], [`amend`]. An instruction from one conversation to another is an
//! [`errand`]. The state stays small; growing data (reviews, turns, edits) is stored as rows.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{Address, ConversationId, EntityKey, MessageId};
use crate::limits;
use crate::machine::{Decision, DecisionContext, Machine, Need, ReadSet, Record, Undecided};
use crate::outbox::Outbox;
use crate::tables::{ATTACHED, DETAILS, TURNS};

pub mod amend;
mod apply;
pub mod attach;
mod beginnings;
pub mod command;
mod due_work;
mod effects;
pub mod erase;
pub mod errand;
pub mod event;
pub mod fork;
pub mod keys;
mod lost_turn;
mod origin;
mod outgoing;
pub mod post;
pub mod remember;
mod requests;
mod retry_rows;
pub mod review;
pub mod turn;
pub mod update;
mod wake;
mod writing;

pub use amend::Amend;
pub(crate) use amend::replay_key;
pub use attach::Disclaim;
pub(crate) use attach::file_key;
pub(crate) use beginnings::{Beginning, Beginnings};
pub use command::{Command, Rejection, Reply};
pub use erase::{Erase, EraseCopy, Erasure};
pub use errand::Errand;
pub use event::{Accepted, Event, ReviewEnd, message_of};
pub use fork::{Fork, Forked, Forking};
pub use keys::number_key;
pub(crate) use lost_turn::check_after_attempt;
pub use origin::Origin;
pub(crate) use outgoing::message_about;
pub use post::{BusyPolicy, Post, Posted, TurnRequest};
pub use remember::Remembering;
pub use review::{CancelReview, ExpireReview};
pub use turn::calls::{Call, CallResults, Calls, EndWait, Step, Wait};
pub use turn::{
    Attempt, AttemptId, CancelTurn, Completed, Failure, Finish, RetryTurn, StartTurn, Turn, TurnStatus, Usage,
};
pub use update::{Details, Update};
use writing::{Decided, Halt, Writing};

/// The values with which a conversation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The id of the new conversation.
    pub id: ConversationId,
    /// The channel, contact or request that it belongs to.
    pub origin: Origin,
    /// The owner that its client has named.
    pub owner: Option<String>,
    /// Title, summary and metadata.
    pub details: Details,
}

/// The state of a conversation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct State {
    /// Its id; the time in it is that of its creation, or slightly later, for its position in lists.
    #[n(0)]
    pub id: ConversationId,
    /// The channel, contact or request that it belongs to.
    #[n(1)]
    pub origin: Origin,
    /// The owner that its client has named; `None` also after an erasure.
    #[n(2)]
    pub owner: Option<String>,
    /// It is closed: clients can append nothing.
    #[n(3)]
    pub closed: bool,
    /// When it last changed.
    #[n(4)]
    pub updated_at: Millis,
    /// When the newest message was accepted.
    #[n(5)]
    pub last_message_at: Option<Millis>,
    /// How many messages it has.
    #[n(6)]
    pub messages: u64,
    /// How many turns were requested.
    #[n(7)]
    pub turns: u64,
    /// The running turn.
    #[n(8)]
    pub running: Option<Turn>,
    /// The waiting turns, oldest first.
    #[n(9)]
    pub queued: Vec<Turn>,
    /// No review is due before this.
    #[n(10)]
    pub next_deadline: Option<Millis>,
    /// Sequence of the newest event.
    #[n(11)]
    pub last_seq: u64,
    /// When its errands, if there are any, are run again.
    #[n(15)]
    pub errands_at: Option<Millis>,
    /// The progress of its erasure.
    #[n(18)]
    pub erasure: Option<Erasure>,
    /// The state of its outbox; `None` if no event had a receiver yet.
    #[n(12)]
    pub outbox: Option<Outbox>,
    /// The memories to be drawn.
    #[n(19)]
    pub remembering: Option<Remembering>,
    /// It began as a copy of another one.
    #[n(25)]
    pub fork: Option<Fork>,
    /// When it began, if the time in its id is later.
    #[n(26)]
    pub began_at: Option<Millis>,
    /// Sequence of the newest message; `None` also if it was not recorded.
    #[n(27)]
    pub newest_message: Option<u64>,
}

/// The state machine.
#[derive(Debug)]
pub struct Conversation;

impl Machine for Conversation {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn needs(state: Option<&State>, command: &Command) -> Vec<Need> {
        match command {
            Command::Post(post) => post.needs(state),
            Command::Fork(forking) if state.is_none() => fork::needs(&forking.opening),
            Command::Open(_) if state.is_none() => Vec::new(),
            Command::Copy(copying) => copying.needs(),
            Command::Open(_) | Command::Fork(_) | Command::Update(_) => vec![Need::Row(DETAILS, Bytes::new())],
            Command::RetryTurn(RetryTurn { number, .. }) | Command::CancelTurn(CancelTurn { number }) => {
                vec![Need::Row(TURNS, number_key(*number))]
            }
            Command::Claim(claiming) => claiming.needs(),
            Command::Wake { lost } => wake::needs(state, *lost),
            Command::Amend(amend) => amend::needs_of(state, amend.message),
            Command::Respond(response) => amend::needs_of(state, response.message),
            Command::CancelReview(CancelReview { message }) | Command::ExpireReview(ExpireReview { message }) => {
                amend::needs_of(state, *message)
            }
            Command::Remembered { .. } | Command::NotRemembered(_) => Vec::new(),
            Command::Disclaim(disclaim) => vec![Need::Row(ATTACHED, file_key(disclaim.attachment))],
            Command::EraseCopy(EraseCopy(contact)) if state.is_none() => vec![fork::barred_need(*contact)],
            Command::StartTurn(_) | Command::StepTurn(_) | Command::Erase(_) | Command::EraseCopy(_) => Vec::new(),
            Command::FinishTurn(_) | Command::AnswerCalls(_) | Command::EndWait(_) | Command::KeepWaiting { .. } => {
                turn::calls::needs(state)
            }
            Command::ErrandsRun { .. } => errand::needs(),
            Command::Outbox(sending) => sending.needs(),
        }
    }

    fn needs_place(_: Option<&State>, command: &Command) -> bool {
        matches!(command, Command::Post(post) if post::requests_review(post))
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        match dispatch(state, command, Writing::new(context, reads)) {
            Ok(Decision::Change(change)) => {
                let change = outgoing::marked(state, change, context, reads)?;
                retry_rows::tracked(change, context, reads).map(Decision::Change)
            }
            Ok(decision) => Ok(decision),
            Err(Halt::Rejected(rejection)) => Ok(Decision::Reject(rejection)),
            Err(Halt::Undecided(undecided)) => Err(undecided),
        }
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        if let Some(begun) = State::begun(record) {
            *state = Some(begun);
        } else if let Some(state) = state {
            state.apply(record);
        }
    }

    fn is_event(event: &Event) -> bool {
        event.name().is_some()
    }

    fn alarm(state: &State) -> Option<Millis> {
        let turn = state.running.as_ref().map(Turn::check_at);
        let memories = state.remembering.map(|remembering| remembering.check_at);
        [turn, memories, state.next_here()].into_iter().flatten().min()
    }

    fn alarm_meanwhile(state: &State, now: Millis) -> Option<Millis> {
        due_work::alarm_meanwhile(state, now)
    }

    fn public_id(state: &State) -> Option<String> {
        Some(state.id.to_string())
    }

    fn accepted(record: &Record<Event>) -> Option<MessageId> {
        event::accepted(record).map(|(id, _)| id)
    }

    fn weight(command: &Command) -> usize {
        match command {
            Command::Post(post) => post.messages.iter().map(|message| message.content.weight()).sum(),
            Command::FinishTurn(finish) => finish.weight(),
            Command::StepTurn(step) => step.weight(),
            Command::AnswerCalls(answers) => answers.weight(),
            Command::EndWait(end) => limits::COMMAND_BYTES + end.result.len(),
            Command::Copy(copying) => copying.weight(),
            Command::Open(opening) | Command::Fork(Forking { opening, .. }) => {
                limits::COMMAND_BYTES + opening.details.weight()
            }
            Command::Update(update) => update.weight(),
            Command::Amend(amend) => amend.amendment.weight(),
            Command::Respond(response) => response.weight(),
            Command::Remembered { drawn, .. } => limits::COMMAND_BYTES * (1 + drawn.notes.len()),
            Command::Erase(_) | Command::EraseCopy(_) => limits::BATCH_BYTES,
            Command::Outbox(sending) => sending.weight(),
            Command::StartTurn(_)
            | Command::RetryTurn(_)
            | Command::CancelTurn(_)
            | Command::CancelReview(_)
            | Command::ExpireReview(_)
            | Command::KeepWaiting { .. }
            | Command::ErrandsRun { .. }
            | Command::Claim(_)
            | Command::NotRemembered(_)
            | Command::Disclaim(_)
            | Command::Wake { .. } => limits::COMMAND_BYTES,
        }
    }
}

/// Decides a command by the function of its operation.
fn dispatch(state: Option<&State>, command: &Command, writing: Writing<'_>) -> Decided {
    match (command, state) {
        (Command::Open(opening), _) => post::open(state, opening, None, writing),
        (Command::Fork(forking), _) => fork::begin(state, forking, writing),
        (Command::Post(post), _) => post::append(state, post, writing),
        (Command::Claim(claiming), _) => Ok(claiming.decide(state, writing.reads)?),
        (Command::Disclaim(disclaim), _) => attach::disclaim(state, *disclaim, writing),
        (Command::Erase(erase), _) => erase::erase(state, erase, writing),
        (Command::EraseCopy(erase), _) => erase::erase_copy(state, *erase, writing),
        (_, None) => Err(Rejection::NotFound.into()),
        (Command::Update(update), Some(state)) => update::update(state, update, writing),
        (Command::Copy(copying), Some(state)) => fork::copy(state, copying, writing),
        (Command::StartTurn(start), Some(state)) => turn::start(state, start, writing),
        (Command::RetryTurn(retry), Some(state)) => turn::retry(state, retry, writing),
        (Command::CancelTurn(cancel), Some(state)) => turn::cancel(state, *cancel, writing),
        (Command::FinishTurn(finish), Some(state)) => turn::finish(state, finish, writing),
        (Command::StepTurn(step), Some(state)) => turn::calls::step(state, step, writing),
        (Command::AnswerCalls(answers), Some(state)) => turn::calls::answer(state, answers, writing),
        (Command::EndWait(end), Some(state)) => turn::calls::end_wait(state, end, writing),
        (Command::KeepWaiting { number }, Some(state)) => turn::calls::keep_waiting(state, *number, writing),
        (Command::ErrandsRun { keys }, Some(state)) => errand::done(state, keys, writing),
        (Command::Amend(amend), Some(state)) => amend::amend(state, amend, writing),
        (Command::Respond(response), Some(state)) => review::respond(state, response, writing),
        (Command::CancelReview(cancel), Some(state)) => review::cancel(state, *cancel, writing),
        (Command::ExpireReview(expire), Some(state)) => review::expire_now(state, *expire, writing),
        (Command::Remembered { range, drawn }, Some(state)) => remember::remembered(state, *range, drawn, writing),
        (Command::NotRemembered(before), Some(state)) => remember::failed(state, *before, writing),
        (Command::Wake { lost }, Some(state)) => wake::decide(state, *lost, writing),
        (Command::Outbox(sending), Some(state)) => Ok(sending.decide(state, writing.context, writing.reads)?),
    }
}

impl State {
    /// When it began.
    #[must_use]
    pub fn created_at(&self) -> Millis {
        self.began_at.unwrap_or(self.id.at)
    }

    /// When it wants to be woken for work that no task can be doing.
    fn next_here(&self) -> Option<Millis> {
        let outbox = self.outbox.as_ref().map(|outbox| outbox.check_at);
        let fork = self.fork.as_ref().and_then(Fork::alarm);
        [self.next_deadline, self.errands_at, outbox, fork].into_iter().flatten().min()
    }

    /// Whether it is a copy that is not complete yet.
    #[must_use]
    pub fn is_being_copied(&self) -> bool {
        self.fork.is_some_and(|fork| fork.next.is_some())
    }

    /// Whether `id` names this conversation and a sequence that its log has.
    pub(crate) fn reaches(&self, id: MessageId) -> bool {
        id.entity == self.id.address && (1..=self.last_seq).contains(&id.number)
    }

    /// The entity of this conversation in its workspace.
    #[must_use]
    pub fn entity(&self, workspace: Address) -> EntityKey {
        EntityKey::conversation(workspace, self.id.address)
    }
}

#[cfg(test)]
mod tests;
