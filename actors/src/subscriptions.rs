//! Who wants to hear of a conversation's events as they become durable.
//!
//! A subscriber that reads too slowly is told that it has missed some ([`broadcast::error::RecvError::Lagged`]) and
//! reads on from the store; nothing grows.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::broadcast;

use crate::conversation::Event;
use crate::id::EntityKey;
use crate::limits;
use crate::machine::Record;

/// An event of a conversation.
pub type Notice = Arc<Record<Event>>;

/// The subscribers of this node.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: DashMap<EntityKey, broadcast::Sender<Notice>>,
}

/// A place among the subscribers of one conversation, given up when dropped.
#[derive(Debug)]
pub struct Subscription {
    /// What happens from now on.
    pub events: broadcast::Receiver<Notice>,
    entity: EntityKey,
    all: Arc<Subscriptions>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // This receiver is still counted: the last one to leave closes the door.
        self.all.channels.remove_if(&self.entity, |_, sender| sender.receiver_count() <= 1);
    }
}

impl Subscriptions {
    /// Listens to a conversation from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, entity: EntityKey) -> Subscription {
        let events = match self.channels.entry(entity) {
            Entry::Occupied(sender) => sender.get().subscribe(),
            Entry::Vacant(place) => {
                let (sender, events) = broadcast::channel(limits::SUBSCRIBER_EVENTS);
                place.insert(sender);
                events
            }
        };
        Subscription { events, entity, all: Arc::clone(self) }
    }

    pub(crate) fn publish(&self, entity: EntityKey, record: &Notice) {
        if let Some(sender) = self.channels.get(&entity) {
            // Nobody listening any more is no error.
            let _ = sender.send(Arc::clone(record));
        }
    }
}
