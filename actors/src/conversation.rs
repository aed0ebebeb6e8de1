//! A conversation: messages in one order, turns of an agent one after the other, reviews decided once.
//!
//! A human channel's messages are a conversation too, the channel's own. What happens stands in [`event`], operations
//! in files of their own: [`post`], [`turn`], [`update`], [`review`], [`amend`]. The state stays small; what grows (reviews,
//! turns, edits) is rows.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{Address, ContactId, ConversationId, EntityKey, MessageId};
use crate::machine::{Decision, Found, Machine, Missing, Moment, Need, Record};
use crate::message::{Message, Overlay, ReviewState};
use crate::node::Node;
use crate::outbox::{Listeners, Outbox};
use crate::store::{KeyHash, Table, View};

pub mod amend;
pub mod event;
mod outgoing;
pub mod post;
pub mod review;
pub mod turn;
pub mod update;

pub use event::{Accepted, Event, ReviewEnd, message_of};
pub use outgoing::Sending;
pub use post::{BusyPolicy, Post, TurnRequest};
pub use turn::{Attempt, Failure, Finish, Turn, TurnStatus, Usage};
pub use update::{Details, Update};

/// What has become of messages, by sequence.
pub const OVERLAYS: Table = Table(1);
/// Pending reviews by deadline and sequence.
pub const DEADLINES: Table = Table(2);
/// Turns by number.
pub const TURNS: Table = Table(3);
/// Title, summary and metadata, under the empty key.
pub const DETAILS: Table = Table(4);
/// Numbers of turns that had to wait, by the idempotency key that they were asked for with: such a turn is no event
/// that the key could name.
pub const ASKED_TURNS: Table = Table(5);
/// What answers to keyed requests showed of a message, by the idempotency key: an [`Overlay`] as it was then. The log
/// cannot tell, because edited words stay out of it.
pub const SHOWN: Table = Table(20);

/// Conversations of a workspace by id, without those of human channels.
pub const CONVERSATIONS: View = View(1);
/// Conversations by contact id and conversation id.
pub const CONTACT_CONVERSATIONS: View = View(3);
/// Reviews by message id.
pub const REVIEWS: View = View(4);
/// Pending reviews by message id.
pub const PENDING_REVIEWS: View = View(5);

/// Rows sort by number.
#[must_use]
pub fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Where a conversation comes from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Origin {
    /// It is a human channel's.
    #[n(0)]
    Human {
        /// The channel.
        #[n(0)]
        channel: String,
    },
    /// A contact's, on an api channel.
    #[n(1)]
    Api {
        /// The channel.
        #[n(0)]
        channel: String,
        /// The contact.
        #[n(1)]
        contact: ContactId,
        /// The channel's agent when it was opened.
        #[n(2)]
        agent: String,
    },
    /// The conversation API's.
    #[n(2)]
    Store,
}

/// How a conversation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its id.
    pub id: ConversationId,
    /// Where it comes from.
    pub origin: Origin,
    /// Whose it is.
    pub owner: Option<String>,
    /// Title and the like.
    pub details: Details,
}

/// What decisions need to know of a conversation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct State {
    /// Its id; the time in it is that of its creation.
    #[n(0)]
    pub id: ConversationId,
    /// Where it comes from.
    #[n(1)]
    pub origin: Origin,
    /// Whose it is.
    #[n(2)]
    pub owner: Option<String>,
    /// Nothing may be appended by clients any more.
    #[n(3)]
    pub closed: bool,
    /// When anything of it last changed.
    #[n(4)]
    pub updated_at: Millis,
    /// When the newest message was accepted.
    #[n(5)]
    pub last_message_at: Option<Millis>,
    /// How many messages it has.
    #[n(6)]
    pub messages: u64,
    /// How many turns were asked for.
    #[n(7)]
    pub turns: u64,
    /// The turn that runs.
    #[n(8)]
    pub running: Option<Turn>,
    /// The turns that wait, oldest first.
    #[n(9)]
    pub queued: Vec<Turn>,
    /// No review is due before this.
    #[n(10)]
    pub next_deadline: Option<Millis>,
    /// Sequence of the newest event.
    #[n(11)]
    pub last_seq: u64,
    /// What is still to be sent of it.
    #[n(12)]
    pub outbox: Option<Outbox>,
}

/// What a conversation can be asked.
#[derive(Debug)]
pub enum Command {
    /// Begin, without a message.
    Open(Opening),
    /// Append messages, and perhaps let an agent answer.
    Post(Post),
    /// Change title, owner, status and the like.
    Update(Update),
    /// Let an agent take a turn.
    StartTurn {
        /// The agent.
        agent: String,
        /// The idempotency key of the request.
        key: Option<KeyHash>,
    },
    /// Try a failed turn again.
    RetryTurn {
        /// Its number.
        number: u64,
    },
    /// A turn's attempt has ended.
    FinishTurn(Finish),
    /// Stop a turn.
    CancelTurn {
        /// Its number.
        number: u64,
    },
    /// Edit a message, take it away, or note how far it has come.
    Amend {
        /// Which.
        message: MessageId,
        /// What to do with it.
        amendment: amend::Amendment,
    },
    /// Answer a review.
    Respond(review::Response),
    /// Take a review back.
    CancelReview {
        /// The message that asked.
        message: MessageId,
    },
    /// Something about the sending of its events.
    Outbox(Sending),
    /// The alarm is due.
    Wake {
        /// The attempt that was running when the alarm came, if it is not alive in this process. It is named because
        /// another one may run by the time this is decided.
        lost: Option<Attempt>,
    },
}

/// What a conversation answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It stands so now.
    Conversation(Box<State>, Details),
    /// The messages are accepted.
    Posted {
        /// They, in order.
        messages: Vec<Message>,
        /// The turn that was asked for.
        turn: Option<Turn>,
    },
    /// The turn stands so now.
    Turn(Box<Turn>),
    /// The message is so now.
    Amended(Box<Overlay>),
    /// The review stands so now.
    Review(Box<ReviewState>),
    /// There was nothing to do.
    Nothing,
}

/// Why a conversation refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such conversation.
    NotFound,
    /// It is closed.
    Closed,
    /// An item's parent is not a message of this conversation.
    ParentNotFound {
        /// Which item of the batch.
        item: usize,
    },
    /// The message to revise is not one of this conversation.
    IterationNotFound,
    /// A turn runs, and the policy is to refuse.
    TurnInProgress,
    /// Too many turns wait.
    TooManyTurns,
    /// There is no such message.
    MessageNotFound,
    /// Its content is gone.
    MessageDeleted,
    /// It is not what the client saw any more.
    MessageChanged,
    /// There is no such review.
    ReviewNotFound,
    /// It was decided, or taken back, before.
    ReviewOver(Box<ReviewState>),
    /// Its time is over.
    ReviewExpired(Box<ReviewState>),
    /// This principal has voted.
    AlreadyVoted,
    /// The votes so far leave no room for another.
    TooManyVotes,
    /// This principal is not among those who may answer.
    NotAllowed,
    /// There is no such turn.
    TurnNotFound,
    /// The turn is over, or not in a state in which this can be done.
    TurnNotPossible(TurnStatus),
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
            Command::Open(_) if state.is_none() => Vec::new(),
            Command::Open(_) | Command::Update(_) => vec![Need::Row(DETAILS, Bytes::new())],
            Command::RetryTurn { number } | Command::CancelTurn { number } => {
                vec![Need::Row(TURNS, number_key(*number))]
            }
            Command::Wake { .. } => review::needs(state),
            Command::Amend { message, .. } => review::needs_of(state, *message),
            Command::Respond(response) => review::needs_of(state, response.message),
            Command::CancelReview { message } => review::needs_of(state, *message),
            Command::Outbox(sending) => sending.needs(),
            Command::StartTurn { .. } | Command::FinishTurn(_) => Vec::new(),
        }
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        moment: &Moment,
        found: &Found,
    ) -> Result<Decision<Self>, Missing> {
        let decided = match (command, state) {
            (Command::Open(opening), state) => post::open(state, opening, moment, found),
            (Command::Post(post), state) => post.decide(state, moment, found),
            (_, None) => Ok(Decision::Reject(Rejection::NotFound)),
            (Command::Update(update), Some(state)) => update.decide(state, moment, found),
            (Command::StartTurn { agent, key }, Some(state)) => Ok(turn::start(state, agent, *key, moment)),
            (Command::RetryTurn { number }, Some(state)) => turn::retry(state, *number, moment, found),
            (Command::FinishTurn(finish), Some(state)) => Ok(turn::finish(state, finish, moment)),
            (Command::Amend { message, amendment }, Some(state)) => {
                amend::amend(state, *message, amendment, moment, found)
            }
            (Command::Respond(response), Some(state)) => review::respond(state, response, moment, found),
            (Command::CancelReview { message }, Some(state)) => review::cancel(state, *message, moment, found),
            (Command::CancelTurn { number }, Some(state)) => turn::cancel(state, *number, moment, found),
            (Command::Wake { lost }, Some(state)) => review::wake(state, *lost, moment, found),
            (Command::Outbox(sending), Some(state)) => sending.decide(state, moment, found),
        };
        match decided? {
            Decision::Change(change) => outgoing::marked(state, change, moment, found).map(Decision::Change),
            decision => Ok(decision),
        }
    }

    fn listeners(node: &Node, entity: EntityKey, state: Option<&State>, command: &Command) -> Listeners {
        outgoing::listeners(node, entity, state, command)
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        if let Event::ConversationCreated { id, origin, owner, .. } = &record.event {
            *state = Some(State {
                id: *id,
                origin: origin.clone(),
                owner: owner.clone(),
                closed: false,
                updated_at: record.at,
                last_message_at: None,
                messages: 0,
                turns: 0,
                running: None,
                queued: Vec::new(),
                next_deadline: None,
                last_seq: record.seq,
                outbox: None,
            });
        } else if let Some(state) = state {
            state.last_seq = record.seq;
            state.take(record);
        }
    }

    fn is_event(event: &Event) -> bool {
        event.name().is_some()
    }

    fn alarm(state: &State) -> Option<Millis> {
        let turn = state.running.as_ref().map(Turn::look_at);
        let outbox = state.outbox.as_ref().map(|outbox| outbox.look_at);
        [turn, state.next_deadline, outbox].into_iter().flatten().min()
    }

    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &State) -> Command {
        if state.outbox.as_ref().is_some_and(|outbox| outbox.look_at <= node.clock.now()) {
            node.outbox.alarm::<Self>(node, entity, state);
        }
        let lost = state.running.as_ref().filter(|turn| !node.turns.is_alive(entity, turn)).map(Turn::current);
        Command::Wake { lost }
    }

    fn public_id(state: &State) -> Option<String> {
        Some(state.id.to_string())
    }

    fn weight(command: &Command) -> usize {
        match command {
            Command::Post(post) => post.messages.iter().map(|message| message.content.weight()).sum(),
            Command::FinishTurn(finish) => finish.weight(),
            Command::Open(opening) => 200 + opening.details.weight(),
            Command::Update(update) => update.weight(),
            Command::Amend { amendment, .. } => amendment.weight(),
            Command::Respond(response) => response.weight(),
            Command::Outbox(sending) => sending.weight(),
            Command::StartTurn { .. }
            | Command::RetryTurn { .. }
            | Command::CancelTurn { .. }
            | Command::CancelReview { .. }
            | Command::Wake { .. } => 200,
        }
    }

    fn committed(node: &Arc<Node>, entity: EntityKey, state: &State, records: &[Arc<Record<Event>>]) {
        for record in records {
            match &record.event {
                Event::TurnStarted(turn) => node.turns.start(node, entity, turn, record.trace),
                Event::TurnCancelled(turn) => node.turns.stop(entity, turn),
                _ => {}
            }
            if Self::is_event(&record.event) {
                node.subscriptions.publish(entity, record);
            }
        }
        outgoing::committed(node, entity, state, records);
    }

    fn adopted(node: &Arc<Node>, entity: EntityKey) {
        node.subscriptions.interrupt(entity);
    }
}

impl Origin {
    /// The channel that the conversation belongs to.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Human { channel } | Self::Api { channel, .. } => Some(channel),
            Self::Store => None,
        }
    }

    /// The human channel whose messages these are.
    #[must_use]
    pub fn human_channel(&self) -> Option<&str> {
        match self {
            Self::Human { channel } => Some(channel),
            Self::Api { .. } | Self::Store => None,
        }
    }
}

impl State {
    /// Takes a record other than the first into the state.
    fn take(&mut self, record: &Record<Event>) {
        match &record.event {
            Event::ConversationCreated { .. } | Event::ReviewCompleted(_) | Event::ReviewExpired(_) => {}
            Event::MessageUpdated { .. }
            | Event::MessageDeleted { .. }
            | Event::MessageDelivered { .. }
            | Event::MessageRead { .. } => {}
            Event::ReviewCancelled(_) => {}
            Event::ConversationUpdated { owner, reopened, .. } => {
                self.owner.clone_from(owner);
                self.closed &= !reopened;
                self.updated_at = record.at;
            }
            Event::ConversationClosed => {
                self.closed = true;
                self.updated_at = record.at;
            }
            Event::MessageCreated(_) => {
                self.messages += 1;
                self.last_message_at = Some(record.at);
                self.updated_at = record.at;
            }
            Event::ReviewRequested { expires_at, .. } => {
                self.next_deadline = Some(self.next_deadline.map_or(*expires_at, |next| next.min(*expires_at)));
            }
            Event::OutboxMoved { outbox } => self.outbox = *outbox,
            Event::DeadlineMoved { next } => self.next_deadline = *next,
            Event::TurnQueued(turn) => {
                self.turns = self.turns.max(turn.id.number);
                self.queued.retain(|queued| queued.id != turn.id);
                self.queued.push(turn.clone());
            }
            Event::TurnStarted(turn) => {
                self.turns = self.turns.max(turn.id.number);
                self.queued.retain(|queued| queued.id != turn.id);
                self.running = Some(turn.clone());
            }
            Event::TurnCompleted(turn) | Event::TurnFailed(turn) | Event::TurnCancelled(turn) => {
                self.queued.retain(|queued| queued.id != turn.id);
                if self.running.as_ref().is_some_and(|running| running.id == turn.id) {
                    self.running = None;
                }
            }
        }
    }

    /// The entity of this conversation in its workspace.
    #[must_use]
    pub fn entity(&self, workspace: Address) -> EntityKey {
        EntityKey::conversation(workspace, self.id.address)
    }
}

/// The state that a conversation had right after it began, by the record of its beginning.
#[must_use]
pub fn begun(record: &Record<Event>) -> Option<State> {
    let mut state = None;
    Conversation::apply(&mut state, record);
    state
}

#[cfg(test)]
mod tests;
