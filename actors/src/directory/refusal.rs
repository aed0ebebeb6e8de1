//! Why a command was not done.

use crate::machine::Machine;
use crate::metrics::TurnedAway;
use crate::store::{Cause, StoreError};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal<M: Machine> {
    /// The entity rejected the command.
    #[error("rejected: {0:?}")]
    Rejected(M::Rejection),
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

impl<M: Machine> Clone for Refusal<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Rejected(rejection) => Self::Rejected(rejection.clone()),
            Self::KeyReused => Self::KeyReused,
            Self::KeyHeld => Self::KeyHeld,
            Self::Backlog => Self::Backlog,
            Self::Overloaded => Self::Overloaded,
            Self::Draining => Self::Draining,
            Self::Unavailable(why) => Self::Unavailable(why.clone()),
            Self::TooLarge(why) => Self::TooLarge(why.clone()),
            Self::Unknown(why) => Self::Unknown(why.clone()),
            Self::Misanswered(request) => Self::Misanswered(request),
            Self::Moved => Self::Moved,
        }
    }
}

impl<M: Machine> Refusal<M> {
    /// For a store error after which nothing was applied.
    pub(crate) fn unavailable(error: &StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } => Self::TooLarge(error.clone().into()),
            StoreError::Unavailable(_) | StoreError::Indeterminate(_) | StoreError::Corrupt(_) => {
                Self::Unavailable(error.clone().into())
            }
        }
    }

    /// Why nothing was stored, unless the entity itself rejected the command.
    pub(super) fn turned_away(&self) -> Option<TurnedAway> {
        match self {
            Self::Backlog => Some(TurnedAway::Backlog),
            Self::Overloaded => Some(TurnedAway::Overloaded),
            Self::Draining => Some(TurnedAway::Draining),
            Self::Unavailable(_) | Self::Moved => Some(TurnedAway::Unavailable),
            Self::Rejected(_)
            | Self::KeyReused
            | Self::KeyHeld
            | Self::TooLarge(_)
            | Self::Unknown(_)
            | Self::Misanswered(_) => None,
        }
    }
}

impl<M: Machine> From<Refusal<M>> for Cause {
    fn from(refusal: Refusal<M>) -> Self {
        let what = refusal.to_string();
        match refusal {
            Refusal::Unavailable(cause) | Refusal::TooLarge(cause) | Refusal::Unknown(cause) => cause.under(what),
            _ => what.into(),
        }
    }
}
