//! A turn that was lost and began later than the clock shows: the clock was ahead then, and was set back. Its alarm
//! follows the time of its start, which the clock may reach again only in hours. So the turn is checked whenever its
//! conversation is loaded, and when an attempt at it has ended in this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Command, Conversation, State, Turn};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::node::Node;
use crate::tasks::backoff::Backoff;
use crate::tasks::retry_command::{Stopped, retry_command};

/// The pause before the first check; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. A process that has died may count as alive for some minutes.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Starts the running turn of a loaded conversation again if it began later than the clock shows, once it is at work
/// nowhere.
pub(super) fn check(node: &Arc<Node>, entity: EntityKey, state: &State) {
    if ahead(node, entity, state).is_some() {
        begin_checks(node, entity);
    }
}

/// The same once an attempt that began at this time has ended in this process, with an outcome or without one.
pub(crate) fn check_after_attempt(node: &Arc<Node>, entity: EntityKey, began: Option<Millis>) {
    if began.is_some_and(|at| at > node.now()) {
        begin_checks(node, entity);
    }
}

/// The running turn, if it began later than the clock shows, and is not at work here.
fn ahead<'a>(node: &Node, entity: EntityKey, state: &'a State) -> Option<&'a Turn> {
    let now = node.now();
    state.running.as_ref().filter(|turn| turn.is_ahead_of(now) && !node.turns.is_alive(entity, turn))
}

fn begin_checks(node: &Arc<Node>, entity: EntityKey) {
    // An attempt may also end with the runtime.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(run_checks(Arc::clone(node), entity));
    }
}

async fn run_checks(node: Arc<Node>, entity: EntityKey) {
    let mut backoff = Backoff::endless(FIRST_PAUSE, MAX_PAUSE);
    loop {
        // One task for each conversation.
        let Some(checking) = node.turns.checking.try_enter(entity) else { return };
        if node.stopping.run_until_cancelled(backoff.wait()).await.is_none() {
            return;
        }
        // Returned before the state is read: a turn that is lost later has checks of its own.
        drop(checking);
        match start_again_if_lost(&node, entity).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) if error.is_transient() => {
                tracing::debug!(?entity, %error, "could not check a turn; retrying");
            }
            Err(error) => {
                tracing::warn!(?entity, %error, "could not start a lost turn again; retrying once it is due");
                return;
            }
        }
    }
}

/// Starts the turn again if it is lost; `false`: it is at work in another process, as far as known, so look again.
async fn start_again_if_lost(node: &Arc<Node>, entity: EntityKey) -> Result<bool, Stopped> {
    let state = node.state::<Conversation>(entity).await?;
    let Some(turn) = state.as_ref().and_then(|state| ahead(node, entity, state)) else { return Ok(true) };
    if node.is_at_work_elsewhere(turn) {
        return Ok(false);
    }
    // If the attempt is no longer the current one, that changes nothing.
    let wake = Command::Wake { lost: Some(turn.current()) };
    retry_command(node, &node.conversations, entity, wake).await.map(|_| true)
}
