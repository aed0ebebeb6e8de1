//! What a conversation can be asked, what it answers, and why it refuses.

use super::{
    Attempt, Details, Erasure, Finish, Opening, Post, State, Turn, TurnStatus, Update, amend, remember, review,
};
use crate::id::MessageId;
use crate::message::{Message, Overlay, ReviewState};
use crate::store::KeyHash;

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
    /// Take all words away, a step at a time; ask again until it is done.
    Erase {
        /// What it begins with if it was not used yet: so that a message on its way here finds it closed.
        unused: Option<Opening>,
    },
    /// Memories were drawn from some messages.
    Remembered {
        /// The first of them.
        from: u64,
        /// The last of them.
        upto: u64,
        /// What was remembered.
        notes: Vec<remember::Note>,
        /// Some could not be drawn, and will not be.
        failed: bool,
    },
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
    /// So far the words have been taken away.
    Erasing(Erasure),
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
    /// Its contact was erased, and it with them.
    Erased,
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
