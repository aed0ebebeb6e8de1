//! Asking an entity on somebody's behalf who has gone, for what may be done twice.

use std::sync::Arc;
use std::time::Duration;

use crate::directory::{Answer, Circumstances, Directory, Refusal};
use crate::id::EntityKey;
use crate::machine::Machine;
use crate::node::Node;

/// How often it is asked before the rest is left to a later run.
const ATTEMPTS: u32 = 8;
/// The first pause between two attempts; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(20);

/// The entity did not answer, or the node is stopping.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// What an entity answers, or why it refuses, healthily. What passes by itself is waited for, some seconds long.
///
/// # Errors
///
/// [`NoAnswer`]; it may have been done all the same.
pub(crate) async fn insist<M: Machine>(
    node: &Arc<Node>,
    entities: &Directory<M>,
    entity: EntityKey,
    command: M::Command,
) -> Result<Result<M::Reply, M::Rejection>, NoAnswer> {
    let command = Arc::new(command);
    let mut pause = PAUSE;
    for _ in 0..ATTEMPTS {
        match entities.ask(node, entity, Arc::clone(&command), Circumstances::default()).await {
            Ok(Answer::Done(reply)) => return Ok(Ok(reply)),
            Err(Refusal::Rejected(rejection)) => return Ok(Err(rejection)),
            Err(refusal @ Refusal::Draining) => return Err(NoAnswer(refusal.to_string())),
            Ok(Answer::Repeat { .. }) | Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
    Err(NoAnswer(format!("{entity:?} gave no answer")))
}
