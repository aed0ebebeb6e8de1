//! Errands: durable instructions from one conversation to another.
//!
//! Two conversations cannot change in one commit. So the first one writes an errand in the commit that causes it, with
//! an alarm; running the errand changes the other conversation, and only then the errand is removed. It may run twice,
//! which changes nothing more, and it is never lost.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::writing::{Decided, Writing};
use super::{Event, Reply, State};
use crate::clock::Millis;
use crate::codec;
use crate::id::{MessageId, TurnId};
use crate::limits;
use crate::machine::{Decision, Need};
use crate::store::RowWrite;
use crate::tables::ERRANDS;
use crate::tool::Asker;
use crate::trace::TraceContext;

/// The pause after which remaining errands are run again.
const AGAIN_MILLIS: u64 = 1_000;
/// How long a review that was not found is searched for: by then the request for it has given up, and its last command
/// was answered or has ended with its process.
const REVIEW_SEARCH_TIMEOUT_MILLIS: u64 = limits::ASKED_FOR_MILLIS + 2 * limits::COMMAND_MILLIS;

/// An errand.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Errand {
    /// Notify the waiting turn that a review of this conversation is over.
    #[n(0)]
    NotifyAsker {
        /// The turn and call that wait for it.
        #[n(0)]
        asker: Asker,
        /// The message that requested the review.
        #[n(1)]
        message: MessageId,
        /// The trace of the review's end.
        #[n(2)]
        trace: Option<TraceContext>,
    },
    /// Cancel the review that a call of this conversation's turn has requested, or was about to request.
    #[n(1)]
    Withdraw {
        /// The id of the channel.
        #[n(0)]
        channel: String,
        /// The turn that has ended.
        #[n(1)]
        turn: TurnId,
        /// The id of its call.
        #[n(2)]
        call: String,
        /// The review, where it is known.
        #[n(3)]
        review: Option<MessageId>,
        /// When the turn ended.
        #[n(4)]
        since: Millis,
        /// The trace of the turn's end.
        #[n(5)]
        trace: Option<TraceContext>,
    },
}

impl Errand {
    /// Its key: one for each review, one for each call.
    fn key(&self) -> Bytes {
        match self {
            Self::NotifyAsker { message, .. } => [b"t".as_slice(), &message.number.to_be_bytes()].concat().into(),
            Self::Withdraw { call, .. } => [b"w", call.as_bytes()].concat().into(),
        }
    }

    /// The write of its row.
    pub(super) fn row(&self) -> RowWrite {
        RowWrite::put(ERRANDS, self.key(), codec::encode(self))
    }

    /// The trace that caused it.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        match self {
            Self::NotifyAsker { trace, .. } | Self::Withdraw { trace, .. } => *trace,
        }
    }

    /// Whether a review that is not found at `now` will never exist.
    pub(crate) fn is_hopeless(&self, now: Millis) -> bool {
        match self {
            Self::NotifyAsker { .. } => true,
            Self::Withdraw { since, .. } => now.since(*since) > REVIEW_SEARCH_TIMEOUT_MILLIS,
        }
    }
}

/// The mark that sets when new errands are run again, if necessary.
pub(super) fn due(now: Millis) -> Event {
    Event::ErrandsDue { at: Some(now.plus(AGAIN_MILLIS)) }
}

/// The reads that [`done`] needs.
pub(super) fn needs() -> Vec<Need> {
    vec![Need::First(ERRANDS, limits::ERRANDS + 1)]
}

/// Removes these errands, which have been run.
pub(super) fn done(state: &State, keys: &[Bytes], mut writing: Writing<'_>) -> Decided {
    let first = writing.reads.first(ERRANDS, limits::ERRANDS + 1)?;
    // Of errands after the first ones, only those that the caller has read are known.
    let last = first.last().filter(|_| first.len() > limits::ERRANDS).map(|(key, _)| (*key).clone());
    let later = keys.iter().filter(|key| last.as_ref().is_some_and(|last| *key > last));
    let (done, left): (Vec<_>, Vec<_>) = first.into_iter().partition(|(key, _)| keys.contains(key));
    let done: Vec<&Bytes> = done.into_iter().map(|(key, _)| key).chain(later).collect();
    if done.is_empty() && (state.errands_at.is_none() || !left.is_empty()) {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    writing.extend(done.into_iter().map(|key| RowWrite::delete(ERRANDS, key.clone())));
    let is_last = left.is_empty() && last.is_none();
    writing.event(if is_last { Event::ErrandsDue { at: None } } else { due(writing.context.now) });
    Ok(writing.done(Reply::Nothing))
}
