//! What a contact starts in its process: deliveries, and erasures that a process has left.

use std::sync::Arc;

use super::{AdvanceErasure, Command, Contact, ErasureStep, Event, State};
use crate::id::EntityKey;
use crate::machine::{Effects, Record};
use crate::node::Node;
use crate::outbox::Listeners;
use crate::workflows::erasure;

impl Effects for Contact {
    fn listeners(node: &Node, entity: EntityKey, _: Option<&State>, _: &Command) -> Listeners {
        node.outbox.listeners(node, entity.workspace, None)
    }

    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &State) -> Command {
        let now = node.now();
        if state.outbox.is_some_and(|outbox| outbox.check_at <= now) {
            node.outbox.alarm::<Self>(node, entity, state);
        }
        match state.erasing {
            Some(erasing) if erasing.check_at <= now => {
                Command::AdvanceErasure(AdvanceErasure(erasing.id, ErasureStep::PutOff))
            }
            _ => Command::Wake,
        }
    }

    fn committed(node: &Arc<Node>, entity: EntityKey, state: &State, records: &[Arc<Record<Event>>]) {
        // A request that erases a contact starts the erasure itself; one found here was left by a process that ended.
        let put_off = |record: &Arc<Record<Event>>| matches!(&record.event, Event::ErasureMoved(Some(erasing)) if erasing.put_off > 0);
        if records.iter().any(put_off) {
            erasure::resume(node, entity);
        }
        node.outbox.committed::<Self>(node, entity, state, records);
    }
}
