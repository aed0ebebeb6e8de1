//! What an actor holds of a decided batch until it is answered.

use std::sync::Arc;

use crate::clock::Millis;
use crate::directory::{Answer, Refusal, Reply};
use crate::machine::{Machine, Record};
use crate::store::{KeyHash, KeyRow};

use super::batch::Batch;

/// A decided batch and its replies.
pub(crate) struct Answers<M: Machine> {
    pub(crate) batch: Batch<M>,
    /// One for each command of the batch.
    pub(crate) replies: Vec<Reply<M>>,
}

impl<M: Machine> Answers<M> {
    /// Whether an answer or a refusal depends on the state, so that it is true only while the state is current.
    pub(crate) fn decides(&self) -> bool {
        self.replies.iter().any(|reply| matches!(reply, Err(Refusal::Rejected(_)) | Ok(Answer::Done(_))))
    }

    /// Whether a command is refused.
    pub(crate) fn refuses(&self) -> bool {
        self.replies.iter().any(|reply| matches!(reply, Err(Refusal::Rejected(_))))
    }

    /// Answers all commands.
    pub(crate) fn answer(self) {
        // A caller that gets its answer may end the parent span.
        drop(self.batch.span);
        for (envelope, reply) in self.batch.envelopes.into_iter().zip(self.replies) {
            envelope.answer(reply);
        }
    }
}

/// What a commit changes in memory once it is durable, and whom it answers.
pub(crate) struct InFlight<M: Machine> {
    pub(crate) answers: Answers<M>,
    /// The state after it.
    pub(crate) state: Option<M::State>,
    pub(crate) records: Vec<Arc<Record<M::Event>>>,
    pub(crate) keys: Vec<(KeyHash, KeyRow)>,
    /// The time of the newest record after it.
    pub(crate) last_at: Millis,
    /// The alarm after it.
    pub(crate) alarm: Option<Millis>,
    /// Whether it carries the state.
    pub(crate) has_snapshot: bool,
}
