//! A command in flight: its key, trace and permit, and its answer.

use std::num::NonZeroU64;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Refusal;
use super::admission::Permit;
use crate::id::EntityKey;
use crate::machine::Machine;
use crate::store::{Fingerprint, KeyHash, SeqRange};
use crate::trace::{Span, TraceContext};

/// About how many bytes holding a key takes.
const HOLD_BYTES: usize = 100;

/// The idempotency key that a command came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key, hashed with its scope.
    pub hash: KeyHash,
    /// The request that it came with.
    pub fingerprint: Fingerprint,
    /// The entity at which the key is claimed first, because its scope is wider than the entity with the effect; see
    /// [`claims`](crate::workflows::claims).
    pub home: Option<EntityKey>,
    /// The number of the claim that covers the command, if it needs one.
    pub(crate) claim: Option<NonZeroU64>,
}

impl KeyUse {
    /// A key whose scope lies within the entity that has the effect.
    #[must_use]
    pub fn within(hash: KeyHash, fingerprint: Fingerprint) -> Self {
        Self { hash, fingerprint, home: None, claim: None }
    }

    /// A key with a wider scope, which is claimed at `home` first.
    #[must_use]
    pub fn across(hash: KeyHash, fingerprint: Fingerprint, home: EntityKey) -> Self {
        Self { home: Some(home), ..Self::within(hash, fingerprint) }
    }
}

/// The key and trace of a command.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandContext {
    /// Its idempotency key.
    pub key: Option<KeyUse>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

impl CommandContext {
    /// The context of a command that needs no claim: its entity is the home of its key, or the request that it belongs
    /// to was claimed before.
    #[must_use]
    pub fn without_claim(self) -> Self {
        Self { key: self.key.map(|key| KeyUse { home: None, ..key }), ..self }
    }
}

/// How a command was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<R> {
    /// It was decided now.
    Done(R),
    /// Its idempotency key already had its effect: these events of the log.
    Repeat(SeqRange),
}

impl<R> Answer<R> {
    /// The result of a request without idempotency key: only keyed requests can be repeats.
    ///
    /// # Errors
    ///
    /// [`Refusal::Misanswered`] where the request had one.
    pub fn unkeyed<E>(self) -> Result<R, Refusal<E>> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Repeat(_) => Err(Refusal::Misanswered("a request without idempotency key")),
        }
    }
}

/// The answer to a command, or why there is none.
pub type Reply<M> = Result<Answer<<M as Machine>::Reply>, Refusal<<M as Machine>::Rejection>>;

/// A command in flight, with its permit and its reply channel.
pub(crate) struct Envelope<M: Machine> {
    /// The command to decide; `None`: only mark `key` as unusable, up to its claim.
    pub(crate) command: Option<Arc<M::Command>>,
    pub(crate) key: Option<KeyUse>,
    pub(crate) trace: Option<TraceContext>,
    /// When it was put into the mailbox, until its wait has been recorded.
    pub(crate) admitted: Option<std::time::Instant>,
    /// Its wait in the mailbox, if the task list shows it.
    pub(crate) wait: Option<Span>,
    pub(super) reply: Option<oneshot::Sender<Reply<M>>>,
    /// The span of an internal command; ends with the answer.
    pub(crate) span: Span,
    /// Held until the answer: a disconnected caller does not free a position that is still in use.
    pub(super) permit: Option<Permit>,
}

impl<M: Machine> Envelope<M> {
    /// A command that the entity sends to itself.
    pub(crate) fn internal(command: Arc<M::Command>, span: Span) -> Self {
        // An unsampled span must not appear as the cause in stored records.
        let trace = span.context().filter(TraceContext::is_sampled);
        let command = Some(command);
        Self { command, key: None, trace, admitted: None, wait: None, reply: None, span, permit: None }
    }

    /// The parent context of its decision's span.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.trace.or_else(|| self.span.context())
    }

    /// Whether the entity sent it to itself.
    pub(crate) fn is_internal(&self) -> bool {
        self.reply.is_none()
    }

    /// About how many bytes it adds to a commit.
    pub(crate) fn weight(&self) -> usize {
        weight::<M>(self.command.as_deref())
    }

    /// Answers. A closed receiver is no error: the caller may have hung up.
    pub(crate) fn answer(mut self, reply: Reply<M>) {
        // The permit is released before the caller gets its answer.
        self.permit = None;
        if let Some(sender) = self.reply {
            let _ = sender.send(reply);
        }
    }
}

/// About how many bytes a command adds to a commit; `None`: it only holds a key.
pub(super) fn weight<M: Machine>(command: Option<&M::Command>) -> usize {
    command.map_or(HOLD_BYTES, M::weight)
}
