//! Whether the due work of a conversation is already running, so that its alarm need not start it.

use super::{State, Turn, TurnStatus};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::machine::DueWork;
use crate::node::Node;

/// When the alarm must ring even if all due work is running.
pub(super) fn alarm_meanwhile(state: &State, now: Millis) -> Option<Millis> {
    let memories = state.remembering.map(|remembering| remembering.check_at).filter(|at| *at > now);
    [memories, state.next_here()].into_iter().flatten().min()
}

/// Who is doing the due work.
pub(super) fn due_work(node: &Node, entity: EntityKey, state: &State, now: Millis) -> DueWork {
    // No task does that.
    if state.next_here().is_some_and(|at| at <= now) {
        return DueWork::Open;
    }
    let remembers = state.remembering.is_some_and(|remembering| remembering.check_at <= now);
    if !remembers && is_elsewhere(node, state) {
        DueWork::Elsewhere
    } else if is_here(node, entity, state, remembers, now) {
        DueWork::Here
    } else {
        DueWork::Open
    }
}

fn is_running(turn: &Turn) -> bool {
    turn.status == TurnStatus::Running
}

/// Whether the running turn is another process's.
fn is_elsewhere(node: &Node, state: &State) -> bool {
    let running = state.running.as_ref().filter(|turn| is_running(turn));
    running.is_some_and(|turn| node.is_at_work_elsewhere(turn))
}

/// Whether what is due of the running turn and of the memories is running here, or waits for a permit here.
fn is_here(node: &Node, entity: EntityKey, state: &State, remembers: bool, now: Millis) -> bool {
    let turn = state.running.as_ref().filter(|turn| turn.check_at() <= now);
    (turn.is_some() || remembers)
        && turn.is_none_or(|turn| is_running(turn) && node.turns.is_alive(entity, turn))
        && (!remembers || node.drawing.is_under_way(entity))
}
