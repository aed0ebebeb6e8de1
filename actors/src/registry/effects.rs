//! What a change of configuration causes in its process: rows that were read before are read again.

use std::sync::Arc;

use super::{Command, Event, Registry, State};
use crate::id::EntityKey;
use crate::machine::{Effects, Record};
use crate::node::Node;
use crate::tables::{AGENTS, CHANNELS, WEBHOOK_ENDPOINTS};

impl Effects for Registry {
    fn on_alarm(_: &Arc<Node>, _: EntityKey, _: &State) -> Command {
        Command { expected: Vec::new(), changes: Vec::new() }
    }

    fn committed(node: &Arc<Node>, entity: EntityKey, _: &State, records: &[Arc<Record<Event>>]) {
        for record in records {
            for change in &record.event.changes {
                node.catalog.forget(entity, change.table(), &change.key);
                if change.table() == AGENTS && change.value.is_none() {
                    node.turns.counter.forget(entity.workspace, &String::from_utf8_lossy(&change.key));
                }
                if change.table() == WEBHOOK_ENDPOINTS {
                    node.outbox.endpoint_changed(node, entity.workspace, &change.key);
                }
                if let (CHANNELS, Some(channel)) = (change.table(), &change.value) {
                    node.outbox.channel_changed(node, entity.workspace, channel);
                }
            }
        }
    }

    fn adopted(node: &Arc<Node>, _: EntityKey, _: Option<&State>) {
        node.catalog.forget_all();
        node.outbox.endpoints_changed();
    }
}
