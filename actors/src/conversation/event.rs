//! A conversation's events, as its log stores them. Numbers of variants and fields are stored; never reuse one.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::fork::{Fork, Forked};
use super::remember::{Note, Remembering};
use super::turn::Turn;
use super::{Details, Origin};
use crate::clock::Millis;
use crate::id::{Address, ConversationId, MessageId, TurnId};
use crate::machine::Record;
use crate::message::{Content, Message, Removal, ReviewState};
use crate::outbox::Outbox;
use crate::tool::Asker;

/// A message's acceptance, as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Accepted {
    /// The conversation that the message belongs to.
    #[n(0)]
    pub conversation: ConversationId,
    /// The content as it was accepted.
    #[cbor(n(1), with = "shared")]
    pub content: Arc<Content>,
    /// The message that it replies to, where the client has named one.
    #[n(2)]
    pub parent: Option<MessageId>,
    /// The conversation's owner at the time.
    #[n(3)]
    pub owner: Option<String>,
    /// The turn that it requested or resulted from.
    #[n(4)]
    pub turn: Option<TurnId>,
}

/// Encoding of content that a command and its record share.
mod shared {
    use std::sync::Arc;

    use minicbor::encode::Write;
    use minicbor::{Decode, Decoder, Encode, Encoder};

    use crate::message::Content;

    pub(super) fn encode<C, W: Write>(
        content: &Arc<Content>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        content.as_ref().encode(e, ctx)
    }

    pub(super) fn decode<'b, C>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Arc<Content>, minicbor::decode::Error> {
        Content::decode(d, ctx).map(Arc::new)
    }
}

/// How a review ended, as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReviewEnd {
    /// The message that requested the review.
    #[n(0)]
    pub message: MessageId,
    /// The review's state once it has ended.
    #[n(1)]
    pub state: ReviewState,
    /// The turn that waits for it.
    #[n(2)]
    pub asker: Option<Asker>,
    /// The review's type. `None` where an earlier version logged its end.
    #[n(3)]
    pub kind: Option<String>,
    /// Its deadline. `None` where an earlier version logged its end.
    #[n(4)]
    pub expires_at: Option<Millis>,
}

/// About how many bytes an event takes, apart from what people and agents wrote.
const PLAIN_BYTES: usize = 400;

/// An event or mark of a conversation. What people and agents wrote is only in events, never in marks, because a mark
/// cannot be redacted.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Event {
    /// The conversation began.
    #[n(0)]
    ConversationCreated {
        /// The id of the conversation.
        #[n(0)]
        id: ConversationId,
        /// The channel, contact or request that it belongs to.
        #[n(1)]
        origin: Origin,
        /// The owner that its client has named.
        #[n(2)]
        owner: Option<String>,
        /// Title, summary and metadata.
        #[n(3)]
        details: Details,
        /// It is a copy.
        #[n(4)]
        forked: Option<Forked>,
    },
    /// Title, summary, metadata, owner or status changed.
    #[n(1)]
    ConversationUpdated {
        /// The owner after the change.
        #[n(0)]
        owner: Option<String>,
        /// Title, summary and metadata after the change.
        #[n(1)]
        details: Details,
        /// It was opened again.
        #[n(2)]
        reopened: bool,
    },
    /// The conversation was closed.
    #[n(2)]
    ConversationClosed,
    /// A message was accepted.
    #[n(3)]
    MessageCreated(#[n(0)] Accepted),
    /// A message asks for a review.
    #[n(4)]
    ReviewRequested {
        /// The message.
        #[n(0)]
        message: MessageId,
        /// From this time on no answer is accepted.
        #[n(1)]
        expires_at: Millis,
        /// Its type. `None` where an earlier version logged the request.
        #[n(2)]
        kind: Option<String>,
    },
    /// A review was decided.
    #[n(5)]
    ReviewCompleted(#[n(0)] ReviewEnd),
    /// A review's time was over.
    #[n(6)]
    ReviewExpired(#[n(0)] ReviewEnd),
    /// A review was taken back.
    #[n(7)]
    ReviewCancelled(#[n(0)] ReviewEnd),
    /// A turn waits; a mark.
    #[n(8)]
    TurnQueued(#[n(0)] Turn),
    /// A turn's attempt began.
    #[n(9)]
    TurnStarted(#[n(0)] Turn),
    /// A turn ended with its replies.
    #[n(10)]
    TurnCompleted(#[n(0)] Turn),
    /// A turn failed.
    #[n(11)]
    TurnFailed(#[n(0)] Turn),
    /// A turn was cancelled.
    #[n(12)]
    TurnCancelled(#[n(0)] Turn),
    /// A message was edited.
    #[n(14)]
    MessageUpdated {
        /// The message.
        #[n(0)]
        message: MessageId,
    },
    /// A message's content was removed.
    #[n(15)]
    MessageDeleted {
        /// The message.
        #[n(0)]
        message: MessageId,
    },
    /// A message has arrived.
    #[n(16)]
    MessageDelivered {
        /// The message.
        #[n(0)]
        message: MessageId,
    },
    /// A message was read.
    #[n(17)]
    MessageRead {
        /// The message.
        #[n(0)]
        message: MessageId,
    },
    /// Its contact is erased: the conversation is closed for good, and its content is being removed.
    #[n(26)]
    ConversationErased,
    /// The content of some more events was removed; a mark.
    #[n(27)]
    ErasureMoved {
        /// The first event that may still have content; `None`: none has.
        #[n(0)]
        next: Option<u64>,
        /// The first event before it that could not be redacted; `None`: all were.
        #[n(1)]
        first_unread: Option<u64>,
    },
    /// A memory was created or changed because of a message of this conversation.
    #[n(28)]
    MemoryNoted(#[n(0)] Note),
    /// Memories could not be drawn from some messages, and will not be.
    #[n(29)]
    MemoryFailed {
        /// The first of them.
        #[n(0)]
        first: u64,
        /// The last of them.
        #[n(1)]
        last: u64,
    },
    /// The progress of drawing memories, or the next check; a mark.
    #[n(30)]
    MemoriesDrawn {
        /// The memories still to be drawn.
        #[n(0)]
        left: Option<Remembering>,
    },
    /// The progress of the copying, or the next check; a mark.
    #[n(35)]
    ForkMoved(#[n(0)] Fork),
    /// The earliest deadline was handled; a mark.
    #[n(13)]
    DeadlineMoved {
        /// The next deadline; `None`: no review is pending.
        #[n(0)]
        next: Option<Millis>,
    },
    /// The running turn has called tools, has results of them, or waits for people; a mark.
    #[n(21)]
    TurnMoved(#[n(0)] Turn),
    /// Errands to other conversations were added or have been run; a mark.
    #[n(22)]
    ErrandsDue {
        /// When they are run again, if necessary.
        #[n(0)]
        at: Option<Millis>,
    },
    /// No message will have a file by this binding; a mark.
    #[n(31)]
    AttachmentDisclaimed {
        /// The file.
        #[n(0)]
        attachment: Address,
        /// The number of its binding.
        #[n(1)]
        number: u32,
    },
    /// The outbox changed; a mark.
    #[n(18)]
    OutboxMoved {
        /// The outbox after the change.
        #[n(0)]
        outbox: Option<Outbox>,
    },
}

impl Event {
    /// This event without what people and agents wrote; `None` if it contains nothing of the kind. Both lead to the
    /// same state.
    #[must_use]
    pub fn redacted(&self, removal: Removal) -> Option<Self> {
        let end = |end: &ReviewEnd| ReviewEnd { state: end.state.redacted(), ..end.clone() };
        Some(match self {
            Self::MessageCreated(accepted) if accepted.content.removal != Some(removal) => {
                Self::MessageCreated(Accepted {
                    content: Arc::new(accepted.content.redacted(removal)),
                    ..accepted.clone()
                })
            }
            Self::ConversationCreated { id, origin, owner, details, forked } if *details != Details::default() => {
                let origin = origin.clone();
                let owner = owner.clone();
                let details = Details::default();
                Self::ConversationCreated { id: *id, origin, owner, details, forked: *forked }
            }
            Self::ConversationUpdated { owner, details, reopened } if *details != Details::default() => {
                Self::ConversationUpdated { owner: owner.clone(), details: Details::default(), reopened: *reopened }
            }
            Self::ReviewCompleted(ended) => Self::ReviewCompleted(end(ended)),
            Self::ReviewExpired(ended) => Self::ReviewExpired(end(ended)),
            Self::ReviewCancelled(ended) => Self::ReviewCancelled(end(ended)),
            Self::ConversationCreated { .. }
            | Self::ConversationUpdated { .. }
            | Self::ConversationClosed
            | Self::MessageCreated(_)
            | Self::MessageUpdated { .. }
            | Self::MessageDeleted { .. }
            | Self::MessageDelivered { .. }
            | Self::MessageRead { .. }
            | Self::ReviewRequested { .. }
            | Self::TurnQueued(_)
            | Self::TurnStarted(_)
            | Self::TurnCompleted(_)
            | Self::TurnFailed(_)
            | Self::TurnCancelled(_)
            | Self::TurnMoved(_)
            | Self::ErrandsDue { .. }
            | Self::ConversationErased
            | Self::ErasureMoved { .. }
            | Self::AttachmentDisclaimed { .. }
            | Self::OutboxMoved { .. }
            | Self::MemoryNoted(_)
            | Self::MemoryFailed { .. }
            | Self::MemoriesDrawn { .. }
            | Self::ForkMoved(_)
            | Self::DeadlineMoved { .. } => return None,
        })
    }

    /// The event's name on the wire; `None` for a mark.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::ConversationCreated { .. } => "conversation.created",
            Self::ConversationUpdated { .. } | Self::ConversationErased => "conversation.updated",
            Self::ConversationClosed => "conversation.closed",
            Self::MessageCreated(_) => "message.created",
            Self::MessageUpdated { .. } => "message.updated",
            Self::MessageDeleted { .. } => "message.deleted",
            Self::MessageDelivered { .. } => "message.delivered",
            Self::MessageRead { .. } => "message.read",
            Self::ReviewRequested { .. } => "review.requested",
            Self::ReviewCompleted(_) => "review.completed",
            Self::ReviewExpired(_) => "review.expired",
            Self::ReviewCancelled(_) => "review.cancelled",
            Self::TurnStarted(_) => "turn.started",
            Self::TurnCompleted(_) => "turn.completed",
            Self::TurnFailed(_) => "turn.failed",
            Self::TurnCancelled(_) => "turn.cancelled",
            Self::MemoryNoted(note) if note.created => "memory.created",
            Self::MemoryNoted(_) => "memory.updated",
            Self::MemoryFailed { .. } => "memory.failed",
            Self::TurnQueued(_)
            | Self::TurnMoved(_)
            | Self::DeadlineMoved { .. }
            | Self::ErrandsDue { .. }
            | Self::AttachmentDisclaimed { .. }
            | Self::OutboxMoved { .. }
            | Self::MemoriesDrawn { .. }
            | Self::ForkMoved(_)
            | Self::ErasureMoved { .. } => return None,
        })
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        let content = match self {
            Self::MessageCreated(accepted) => accepted.content.weight(),
            Self::ConversationCreated { details, .. } | Self::ConversationUpdated { details, .. } => details.bytes(),
            Self::ReviewCompleted(end) | Self::ReviewExpired(end) | Self::ReviewCancelled(end) => end.state.weight(),
            _ => 0,
        };
        PLAIN_BYTES + content
    }

    /// Whether earlier messages remain unchanged for a turn that reads them. After an event that is not named here the
    /// conversation is read again, so a new type of event is safe by default.
    pub(crate) fn keeps_content(&self) -> bool {
        matches!(
            self,
            Self::ConversationCreated { .. }
                | Self::MessageCreated(_)
                | Self::MessageDelivered { .. }
                | Self::MessageRead { .. }
                | Self::TurnQueued(_)
                | Self::TurnStarted(_)
                | Self::TurnCompleted(_)
                | Self::TurnFailed(_)
                | Self::TurnCancelled(_)
                | Self::TurnMoved(_)
                | Self::MemoriesDrawn { .. }
                | Self::MemoryNoted(_)
                | Self::MemoryFailed { .. }
                | Self::OutboxMoved { .. }
        )
    }

    /// Whether it causes errands.
    pub(crate) fn makes_errands(&self) -> bool {
        match self {
            Self::ReviewCompleted(end) | Self::ReviewExpired(end) | Self::ReviewCancelled(end) => end.asker.is_some(),
            Self::ErrandsDue { at } => at.is_some(),
            _ => false,
        }
    }
}

/// The id and the content of the message that a record accepted.
pub(super) fn accepted(record: &Record<Event>) -> Option<(MessageId, &Accepted)> {
    let Event::MessageCreated(accepted) = &record.event else { return None };
    Some((MessageId::new(record.at, accepted.conversation.address, record.seq), accepted))
}

/// The message that a record of a conversation's log accepted, if it accepted one.
#[must_use]
pub fn message_of(record: &Record<Event>) -> Option<Message> {
    let (id, accepted) = accepted(record)?;
    Some(Message {
        id,
        conversation: accepted.conversation,
        owner: accepted.owner.clone(),
        parent: accepted.parent,
        turn: accepted.turn,
        content: Arc::clone(&accepted.content),
    })
}
