//! Repeating an idempotent command until its entity answers, for work whose caller is no longer waiting.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::directory::{Answer, CommandContext, Directory, Refusal};
use crate::id::EntityKey;
use crate::machine::Effects;
use crate::node::Node;
use crate::requests::{Request, TypedReply, typed};
use crate::store::{Cause, StoreError};
use crate::tasks::backoff::Backoff;

/// How long a command is repeated before it is left to a later run.
pub(crate) const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The entity did not answer, or the node is stopping.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NoAnswer(Cause);

/// Why work in several entities stopped; the alarm of the responsible entity resumes it.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entity did not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// An entity or a model failed to do its part.
    #[error(transparent)]
    Refused(#[from] Cause),
}

impl Stopped {
    /// Whether a retry may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::NoAnswer(_) => true,
            Self::Refused(_) => false,
        }
    }

    /// An entity refused a command.
    pub(crate) fn by_refusal<R: Debug>(refusal: Refusal<R>) -> Self {
        match refusal {
            Refusal::Corrupt(why) => Self::Store(StoreError::Corrupt(why)),
            other => Self::Refused(other.into()),
        }
    }

    /// An entity gave an unexpected answer.
    pub(crate) fn by_answer(answer: impl Debug) -> Self {
        Self::Refused(format!("{answer:?}").into())
    }
}

/// An entity's reply or rejection. Transient failures are retried for some seconds.
///
/// # Errors
///
/// [`Stopped`]; if a retry may succeed, it may still have been done.
pub(crate) async fn retry_command<M: Effects, R: Request<M>>(
    node: &Arc<Node>,
    entities: &Directory<M>,
    entity: EntityKey,
    request: R,
) -> Result<Result<R::Reply, M::Rejection>, Stopped> {
    let within = Backoff::within(RETRY_TIMEOUT);
    let answer = retry_command_for(node, entities, entity, request, CommandContext::default(), within).await?;
    match answer.and_then(Answer::unkeyed) {
        Ok(reply) => Ok(Ok(reply)),
        Err(Refusal::Rejected(rejection)) => Ok(Err(rejection)),
        Err(refusal @ (Refusal::Corrupt(_) | Refusal::TooLarge(_))) => Err(Stopped::by_refusal(refusal)),
        // The remaining refusals are about an idempotency key, which these commands do not have, and replies to another
        // request.
        Err(refusal) => Err(NoAnswer(Cause::from(refusal).under(format!("{entity:?}"))).into()),
    }
}

/// Repeats a command, with these pauses, until its entity has answered or has refused it for good. Repeating after an
/// unknown outcome is harmless for idempotent commands.
///
/// # Errors
///
/// [`NoAnswer`]; it may still have been done.
pub(crate) async fn retry_command_for<M: Effects, R: Request<M>>(
    node: &Arc<Node>,
    entities: &Directory<M>,
    entity: EntityKey,
    request: R,
    context: CommandContext,
    mut backoff: Backoff,
) -> Result<TypedReply<M, R>, NoAnswer> {
    let command = Arc::new(request.command());
    loop {
        let reply = entities.ask(node, entity, Arc::clone(&command), context).await;
        let why = match typed::<_, R>(reply) {
            Err(refusal @ Refusal::Draining) => return Err(NoAnswer(refusal.into())),
            answer @ (Ok(_)
            | Err(
                Refusal::Rejected(_)
                | Refusal::KeyReused
                | Refusal::Misanswered(_)
                | Refusal::Corrupt(_)
                | Refusal::TooLarge(_),
            )) => return Ok(answer),
            Err(other) => other.into(),
        };
        if !backoff.wait().await {
            return Err(NoAnswer(why));
        }
    }
}
