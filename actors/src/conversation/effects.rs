//! What a conversation starts in its process: turns, errands, memories, copies, deliveries and notifications.

use std::sync::Arc;

use super::{Command, Conversation, Event, Origin, State, Turn, TurnStatus, due_work, lost_turn, outgoing};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::machine::{DueWork, Effects, Machine as _, Record};
use crate::node::Node;
use crate::outbox::Listeners;
use crate::turns::Begun;

impl Effects for Conversation {
    fn listeners(node: &Node, entity: EntityKey, state: Option<&State>, command: &Command) -> Listeners {
        outgoing::listeners(node, entity, state, command)
    }

    fn due_work(node: &Node, entity: EntityKey, state: &State, now: Millis) -> DueWork {
        due_work::due_work(node, entity, state, now)
    }

    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &State) -> Command {
        let now = node.now();
        if state.errands_at.is_some_and(|at| at <= now) {
            node.errands.run(node, entity);
        }
        if state.outbox.as_ref().is_some_and(|outbox| outbox.check_at <= now) {
            node.outbox.alarm::<Self>(node, entity, state);
        }
        let running = state.running.as_ref().filter(|turn| turn.check_at() <= now || turn.is_ahead_of(now));
        let (waiting, running): (Option<&Turn>, Option<&Turn>) = match running {
            Some(turn) if turn.status == TurnStatus::AwaitingReview => (Some(turn), None),
            running => (None, running),
        };
        if let Some(turn) = waiting {
            node.errands.check_reviews(node, entity, turn);
        }
        let lost = running.filter(|turn| !node.is_at_work(entity, turn)).map(Turn::current);
        Command::Wake { lost }
    }

    fn committed(node: &Arc<Node>, entity: EntityKey, state: &State, records: &[Arc<Record<Event>>]) {
        // Before a turn starts that reads it. If other processes write too, no turn does.
        if !node.store.is_shared() {
            node.turns.recent.follow(entity, records, node.ports.tools.as_ref());
        }
        for record in records {
            match &record.event {
                // The first answer reports when it began, so that needs no read.
                Event::ConversationCreated { origin: Origin::Api { .. }, .. } => {
                    node.beginnings.put(entity, state.clone());
                }
                Event::TurnStarted(turn) => node.turns.start(node, entity, Begun::by(record, turn, state.id)),
                Event::TurnCancelled(turn) => node.turns.stop(entity, turn),
                event if event.makes_errands() => node.errands.run(node, entity),
                Event::MessageCreated(accepted) if accepted.content.memories => node.drawing.start(node, entity),
                // Not by the alarm itself: while the store refuses commits, a model would be called each time it rings,
                // for an answer that cannot be stored.
                Event::MemoriesDrawn { left: Some(left) } if left.put_off > 0 => node.drawing.start(node, entity),
                // The request for a copy makes it; an unfinished copy found here was left by a process that ended.
                Event::ForkMoved(fork) if fork.put_off > 0 => crate::workflows::fork::resume(node, entity),
                _ => {}
            }
            if Self::is_event(&record.event) {
                node.subscriptions.publish(entity, record);
            }
        }
        node.outbox.committed::<Self>(node, entity, state, records);
    }

    fn adopted(node: &Arc<Node>, entity: EntityKey, state: Option<&State>) {
        node.subscriptions.interrupt(entity);
        node.turns.recent.forget(entity);
        if let Some(state) = state {
            node.turns.stop_others(entity, state.running.as_ref());
            lost_turn::check(node, entity, state);
        }
    }

    fn activated(node: &Arc<Node>, entity: EntityKey, state: &State) {
        // Another store that leaves an outcome unknown ends the process.
        if node.store.is_shared() {
            node.turns.stop_others(entity, state.running.as_ref());
        }
        lost_turn::check(node, entity, state);
    }
}
