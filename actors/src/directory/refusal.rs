//! Why a command was not done.

use std::fmt::Debug;

use crate::metrics::RefusalReason;
use crate::store::{Cause, StoreError};

/// Why a command was not done; `R` is the rejection of its entity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal<R> {
    /// The entity rejected the command.
    #[error("rejected: {0:?}")]
    Rejected(R),
    /// The idempotency key was used with another request before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Another request holds the idempotency key, and whether it will have an effect is not known yet. Nothing was
    /// stored.
    #[error("the idempotency key is held by another request")]
    KeyHeld,
    /// Too many commands wait for this entity. Nothing was stored.
    #[error("too many commands are waiting for this entity")]
    Backlog,
    /// The node has too many pending commands. Nothing was stored.
    #[error("the node is overloaded")]
    Overloaded,
    /// The node is stopping. Nothing was stored.
    #[error("the node is stopping")]
    Draining,
    /// The store is unavailable. Nothing was stored.
    #[error(transparent)]
    Unavailable(Cause),
    /// Stored data that the command needs is damaged. Nothing was stored, and a retry does not help.
    #[error("stored data is damaged: {0}")]
    Corrupt(#[source] Cause),
    /// It exceeds the store's limit for a commit, now and later. Nothing was stored.
    #[error("the command exceeds the store's limit: {0}")]
    TooLarge(#[source] Cause),
    /// It may or may not have been done, now or later.
    #[error("the outcome is unknown: {0}")]
    Unknown(#[source] Cause),
    /// It was done, but this request cannot have the reply: a fault of the machine.
    #[error("{0} was answered by what answers something else")]
    Misanswered(&'static str),
    /// The actor is leaving; ask its successor.
    #[error("the actor is being passivated")]
    Moved,
}

impl<R> Refusal<R> {
    /// Converts the refusal to one of another kind of entity; `rejected` converts this kind's rejection.
    #[must_use]
    pub(crate) fn map<S>(self, rejected: impl FnOnce(R) -> Refusal<S>) -> Refusal<S> {
        match self {
            Self::Rejected(rejection) => rejected(rejection),
            Self::KeyReused => Refusal::KeyReused,
            Self::KeyHeld => Refusal::KeyHeld,
            Self::Backlog => Refusal::Backlog,
            Self::Overloaded => Refusal::Overloaded,
            Self::Draining => Refusal::Draining,
            Self::Unavailable(why) => Refusal::Unavailable(why),
            Self::Corrupt(why) => Refusal::Corrupt(why),
            Self::TooLarge(why) => Refusal::TooLarge(why),
            Self::Unknown(why) => Refusal::Unknown(why),
            Self::Misanswered(request) => Refusal::Misanswered(request),
            Self::Moved => Refusal::Moved,
        }
    }

    /// For a store error after which nothing was applied.
    pub(crate) fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } => Self::TooLarge(error.clone().into()),
            StoreError::Corrupt(why) => Self::Corrupt(why.clone()),
            StoreError::Unavailable(_) | StoreError::Indeterminate(_) => Self::Unavailable(error.clone().into()),
        }
    }

    /// Why nothing was stored, unless the entity itself rejected the command.
    pub(super) fn turned_away(&self) -> Option<RefusalReason> {
        match self {
            Self::Backlog => Some(RefusalReason::Backlog),
            Self::Overloaded => Some(RefusalReason::Overloaded),
            Self::Draining => Some(RefusalReason::Draining),
            Self::Unavailable(_) | Self::Corrupt(_) | Self::Moved => Some(RefusalReason::Unavailable),
            Self::Rejected(_)
            | Self::KeyReused
            | Self::KeyHeld
            | Self::TooLarge(_)
            | Self::Unknown(_)
            | Self::Misanswered(_) => None,
        }
    }
}

impl<R: Debug> From<Refusal<R>> for Cause {
    fn from(refusal: Refusal<R>) -> Self {
        let what = refusal.to_string();
        match refusal {
            Refusal::Unavailable(cause)
            | Refusal::Corrupt(cause)
            | Refusal::TooLarge(cause)
            | Refusal::Unknown(cause) => cause.under(what),
            _ => what.into(),
        }
    }
}
