//! What a conversation can be asked, and how it answers.

use bytes::Bytes;

use super::fork::{Copying, Forked};
use super::{
    Answers, Attempt, Details, EndWait, Erasure, Finish, Opening, Post, State, Step, Turn, TurnStatus, Update, amend,
    remember, review,
};
use crate::claims::{Claim, Claiming};
use crate::id::{Address, AttachmentId, ContactId, MessageId};
use crate::message::{Message, Overlay, ReviewState};
use crate::outbox::{Sending, Waiting};
use crate::store::KeyHash;

/// What a conversation can be asked.
#[derive(Debug)]
pub enum Command {
    /// Begin, without a message.
    Open(Opening),
    /// Begin as a copy of another conversation.
    Fork(Opening, Forked),
    /// Append the next messages of the copy that it is.
    Copy(Copying),
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
        /// Who answers now; `None`: who did before.
        agent: Option<String>,
    },
    /// A turn's attempt has ended.
    FinishTurn(Finish),
    /// A turn's model has called tools.
    StepTurn(Step),
    /// Calls of a turn have results, or have become reviews.
    AnswerCalls(Answers),
    /// A review that a turn's call waits for is over.
    EndWait(EndWait),
    /// A turn that waits has looked after its reviews: they are still open.
    KeepWaiting {
        /// Its number.
        number: u64,
    },
    /// Errands have been run.
    ErrandsRun {
        /// Their keys.
        keys: Vec<Bytes>,
    },
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
    /// Say which message has a file by this binding; where none has, see to it that none ever will.
    Disclaim {
        /// The file.
        attachment: Address,
        /// The number of its binding.
        number: u32,
    },
    /// Something about the sending of its events.
    Outbox(Sending),
    /// Hold an idempotency key for a request whose effect is elsewhere.
    Claim(Claiming),
    /// Take all words away, a step at a time; ask again until it is done.
    Erase {
        /// What it begins with if it was not used yet: so that a message on its way here finds it closed.
        unused: Option<Opening>,
    },
    /// The same for a copy that this contact has noted, of a conversation with them. It is refused where something else
    /// stands; where nothing does, nothing begins, and no such copy from then on.
    EraseCopy(ContactId),
    /// Memories were drawn from some messages.
    Remembered {
        /// The first of them.
        from: u64,
        /// The last of them.
        upto: u64,
        /// What came of it.
        drawn: remember::Drawn,
    },
    /// Memories could not be drawn, and it will be tried again. It was to be done as this says, which a failure that is
    /// told for a second time no longer meets.
    NotRemembered(remember::Remembering),
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
        turn: Option<Box<Turn>>,
    },
    /// The turn stands so now.
    Turn(Box<Turn>),
    /// The message is so now.
    Amended(Box<Overlay>),
    /// The review stands so now.
    Review(Box<ReviewState>),
    /// This message has the file; `None`: none has it by the binding that was named, and none ever will.
    Attached(Option<MessageId>),
    /// The key is held so now.
    Claimed(Claim),
    /// So far the words have been taken away.
    Erasing(Erasure),
    /// A delivery is tried again; so its lane stands now.
    Again(Box<Waiting>),
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
    /// It is a human channel's own, and stays open.
    NotClosable,
    /// Its contact was erased, and it with them.
    Erased,
    /// It is not what was seen any more.
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
    /// Its content is gone.
    MessageDeleted,
    /// The message is not what the client saw any more.
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
