//! Whether the due work of a conversation is already running, so that its alarm need not start it.

use super::{Conversation, State, Turn, TurnStatus};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::machine::Machine as _;
use crate::node::Node;

/// Whether tasks can be doing all due work.
fn is_for_tasks(state: &State, now: Millis) -> bool {
    Conversation::next_here(state).is_none_or(|at| at > now)
}

/// When the alarm must ring even if all due work is running.
pub(super) fn next_look(state: &State, now: Millis) -> Option<Millis> {
    let memories = state.remembering.map(|remembering| remembering.look_at).filter(|at| *at > now);
    [memories, Conversation::next_here(state)].into_iter().flatten().min()
}

/// Whether memories are to be drawn, and their check is due.
fn is_to_remember(state: &State, now: Millis) -> bool {
    state.remembering.is_some_and(|remembering| remembering.look_at <= now)
}

fn is_running(turn: &Turn) -> bool {
    turn.status == TurnStatus::Running
}

/// Whether the running turn is another process's, and nothing else is due.
pub(super) fn is_elsewhere(node: &Node, state: &State, now: Millis) -> bool {
    let running = state.running.as_ref().filter(|turn| is_running(turn));
    is_for_tasks(state, now)
        && !is_to_remember(state, now)
        && running.is_some_and(|turn| node.is_at_work_elsewhere(turn))
}

/// Whether all due work is running here, or waits for room here.
pub(super) fn is_here(node: &Node, entity: EntityKey, state: &State, now: Millis) -> bool {
    let turn = state.running.as_ref().filter(|turn| turn.look_at() <= now);
    let remembers = is_to_remember(state, now);
    is_for_tasks(state, now)
        && (turn.is_some() || remembers)
        && turn.is_none_or(|turn| is_running(turn) && node.turns.is_alive(entity, turn))
        && (!remembers || node.drawing.is_under_way(entity))
}
