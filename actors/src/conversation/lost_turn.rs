//! A turn that was lost with its process while the clock was ahead: its alarm follows the time of its start, which the
//! clock may reach again only in hours. So the process that loads the conversation checks it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Command, State};
use crate::id::EntityKey;
use crate::node::Node;
use crate::tasks::retry_command::retry_command;

/// The pause before each check.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The number of checks: by the last one it is known whether the turn's process has ended.
const MAX_CHECKS: u32 = 20;

/// Starts the running turn again if it began later than the clock shows, and is at work nowhere.
pub(super) fn check(node: &Arc<Node>, entity: EntityKey, state: &State) {
    let now = node.now();
    let ahead = state.running.as_ref().filter(|turn| turn.is_ahead_of(now) && !node.turns.is_alive(entity, turn));
    let Some(turn) = ahead.cloned() else { return };
    let node = Arc::clone(node);
    tokio::spawn(async move {
        for _ in 0..MAX_CHECKS {
            if node.stopping.run_until_cancelled(sleep(CHECK_INTERVAL)).await.is_none() {
                return;
            }
            if !node.is_at_work(entity, &turn) {
                // If the attempt is no longer the current one, that changes nothing.
                let wake = Command::Wake { lost: Some(turn.current()) };
                if let Err(error) = retry_command(&node, &node.conversations, entity, wake).await {
                    tracing::warn!(?entity, %error, "could not start a lost turn again; retrying once it is due");
                }
                return;
            }
        }
    });
}
