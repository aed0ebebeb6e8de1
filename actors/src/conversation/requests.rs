//! The requests to a conversation, with the replies that answer them.

use super::amend::Amend;
use super::attach::Disclaim;
use super::erase::{Erase, EraseCopy, Erasure};
use super::fork::Forking;
use super::post::Posted;
use super::review::{CancelReview, ExpireReview, Response};
use super::{
    CallResults, CancelTurn, Command, Conversation, Details, Finish, Opening, Post, Reply, RetryTurn, StartTurn, State,
    Step, Turn, Update,
};
use crate::id::MessageId;
use crate::message::{Overlay, ReviewState};
use crate::outbox::{LaneRow, Sending};
use crate::requests::requests;
use crate::workflows::claims::{Claim, Claiming};

requests! { Conversation:
    // Its state now; its former state if it existed already.
    Opening as Open, (Box<State>, Details) { Reply::Conversation(state, details) => (state, details) }
    Forking as Fork, (Box<State>, Details) { Reply::Conversation(state, details) => (state, details) }
    Update as Update, (Box<State>, Details) { Reply::Conversation(state, details) => (state, details) }
    Post as Post, Posted { Reply::Posted(posted) => posted }
    // The turn's state now.
    StartTurn as StartTurn, Box<Turn> { Reply::Turn(turn) => turn }
    RetryTurn as RetryTurn, Box<Turn> { Reply::Turn(turn) => turn }
    CancelTurn as CancelTurn, Box<Turn> { Reply::Turn(turn) => turn }
    // The turn's state now; `None`: another attempt is under way, or none.
    Finish as FinishTurn, Option<Box<Turn>> { Reply::Turn(turn) => Some(turn), Reply::Nothing => None }
    Step as StepTurn, Option<Box<Turn>> { Reply::Turn(turn) => Some(turn), Reply::Nothing => None }
    CallResults as AnswerCalls, Option<Box<Turn>> { Reply::Turn(turn) => Some(turn), Reply::Nothing => None }
    // The message's overlay now.
    Amend as Amend, Box<Overlay> { Reply::Amended(overlay) => overlay }
    // The review's state now.
    Response as Respond, Box<ReviewState> { Reply::Review(state) => state }
    CancelReview as CancelReview, Box<ReviewState> { Reply::Review(state) => state }
    ExpireReview as ExpireReview, Box<ReviewState> { Reply::Review(state) => state }
    // The message that has the file; `None`: none has, and none ever will.
    Disclaim as Disclaim, Option<MessageId> { Reply::Attached(message) => message }
    // The progress of the erasure; `None`: the copy was not begun, and never will be.
    Erase as Erase, Erasure { Reply::Erasing(erasure) => erasure }
    EraseCopy as EraseCopy, Option<Erasure> { Reply::Erasing(erasure) => Some(erasure), Reply::Nothing => None }
    // The state of the delivery's lane now; `None`: nothing had to be done.
    Sending as Outbox, Option<Box<LaneRow>> { Reply::Again(lane) => Some(lane), Reply::Nothing => None }
    // The current claim; `None`: this is no home of the key any more.
    Claiming as Claim, Option<Claim> { Reply::Claimed(claim) => Some(claim), Reply::Nothing => None }
}
