//! A conversation's commands and replies.

use bytes::Bytes;

use super::amend::Amend;
use super::attach::Disclaim;
use super::erase::{Erase, EraseCopy};
use super::fork::{Copying, Forking};
use super::post::Posted;
use super::review::{CancelReview, ExpireReview, Response};
use super::{
    Attempt, CallResults, CancelTurn, Details, EndWait, Erasure, Finish, Opening, Post, RetryTurn, StartTurn, State,
    Step, Turn, TurnStatus, Update, remember,
};
use crate::id::{AttachmentId, MessageId};
use crate::message::{Overlay, ReviewState};
use crate::outbox::{LaneRow, Sending};
use crate::store::SeqRange;
use crate::workflows::claims::{Claim, Claiming};

/// The commands that a conversation accepts.
#[derive(Debug)]
pub enum Command {
    /// Begin, without a message.
    Open(Opening),
    /// Begin as a copy of another conversation.
    Fork(Forking),
    /// Append the next messages of the copy that it is.
    Copy(Copying),
    /// Append messages, and perhaps let an agent answer.
    Post(Post),
    /// Change title, summary, metadata, owner or status.
    Update(Update),
    /// Let an agent take a turn.
    StartTurn(StartTurn),
    /// Try a failed turn again.
    RetryTurn(RetryTurn),
    /// A turn's attempt has ended.
    FinishTurn(Finish),
    /// A turn's model has called tools.
    StepTurn(Step),
    /// Calls of a turn have results, or have become reviews.
    AnswerCalls(CallResults),
    /// A review that a turn's call waits for is over.
    EndWait(EndWait),
    /// A waiting turn has checked its reviews: they are still open.
    KeepWaiting {
        /// The number of the turn.
        number: u64,
    },
    /// Errands have been run.
    ErrandsRun {
        /// The row keys of the errands.
        keys: Vec<Bytes>,
    },
    /// Stop a turn.
    CancelTurn(CancelTurn),
    /// Edit or delete a message, or note its receipt.
    Amend(Amend),
    /// Answer a review.
    Respond(Response),
    /// Take a review back.
    CancelReview(CancelReview),
    /// End a review whose deadline has passed.
    ExpireReview(ExpireReview),
    /// Return the message that has a file by this binding; if none has, ensure that none ever will.
    Disclaim(Disclaim),
    /// Change the outbox of its events.
    Outbox(Sending),
    /// Hold an idempotency key for a request that has its effect in another entity.
    Claim(Claiming),
    /// Remove all content, a step at a time; repeat until it is done.
    Erase(Erase),
    /// Remove all content of a copy that this contact has noted, of a conversation with them. Refused if another
    /// conversation has this address; if none has, nothing begins, and no such copy can begin from then on.
    EraseCopy(EraseCopy),
    /// Memories were drawn from some messages.
    Remembered {
        /// The sequences of the messages.
        range: SeqRange,
        /// The memories, and what could not be drawn.
        drawn: remember::Drawn,
    },
    /// Drawing memories has failed, and will be retried. The value is the state at the attempt, which a repeated report
    /// of the same failure no longer matches.
    NotRemembered(remember::Remembering),
    /// The alarm is due.
    Wake {
        /// The attempt that was running when the alarm rang, if it is not alive in this process. It is named because
        /// another one may run by the time of the decision.
        lost: Option<Attempt>,
    },
}

/// The replies of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The conversation's state after the command, and its details.
    Conversation(Box<State>, Details),
    /// The messages are accepted.
    Posted(Posted),
    /// The turn's state now.
    Turn(Box<Turn>),
    /// The message's overlay now.
    Amended(Box<Overlay>),
    /// The review's state now.
    Review(Box<ReviewState>),
    /// This message has the file; `None`: no message has it by the named binding, and none ever will.
    Attached(Option<MessageId>),
    /// The current claim of the key.
    Claimed(Claim),
    /// The progress of the erasure.
    Erasing(Erasure),
    /// A delivery is retried; the state of its lane now.
    Again(Box<LaneRow>),
    /// Nothing had to be done.
    Nothing,
}

/// Why a conversation refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such conversation.
    NotFound,
    /// The conversation is closed, and takes no messages or turns.
    Closed,
    /// It belongs to a human channel, and cannot be closed.
    NotClosable,
    /// Its contact was erased, and it with them.
    Erased,
    /// It differs from what the client saw.
    Changed,
    /// It is a copy that is not complete yet.
    BeingCopied,
    /// Parents of some items are no messages of this conversation.
    ParentNotFound {
        /// Which items of the batch, in order.
        items: Vec<usize>,
    },
    /// The message to revise is not one of this conversation.
    IterationNotFound,
    /// Another message has this file.
    AttachmentLinked(AttachmentId),
    /// This file's binding was disclaimed meanwhile.
    AttachmentLost(AttachmentId),
    /// A turn runs, and the policy is to refuse.
    TurnInProgress,
    /// Too many turns wait.
    TooManyTurns,
    /// There is no such message.
    MessageNotFound,
    /// Its content was deleted.
    MessageDeleted,
    /// The message differs from what the client saw.
    MessageChanged,
    /// There is no such review.
    ReviewNotFound,
    /// It was decided, or taken back, before.
    ReviewOver(Box<ReviewState>),
    /// Its deadline has passed.
    ReviewExpired(Box<ReviewState>),
    /// This principal has already voted.
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
