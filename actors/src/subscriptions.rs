//! Who wants to hear of a conversation's events as they become durable.
//!
//! A subscriber that reads too slowly is told that it has missed some ([`broadcast::error::RecvError::Lagged`]) and
//! reads on from the store; nothing grows. One whose conversation was changed in a way that this node has not seen (by
//! a commit whose outcome was unknown, or by another node) is cut off ([`broadcast::error::RecvError::Closed`]): it
//! subscribes again and reads on from the store.

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
    /// Dropped after `events`, so that the last one to leave sees that nobody is left.
    _leave: Leave,
}

#[derive(Debug)]
struct Leave {
    entity: EntityKey,
    all: Arc<Subscriptions>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.all.channels.remove_if(&self.entity, |_, sender| sender.receiver_count() == 0);
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
        Subscription { events, _leave: Leave { entity, all: Arc::clone(self) } }
    }

    /// Cuts off the subscribers of a conversation, since they have missed something.
    pub(crate) fn interrupt(&self, entity: EntityKey) {
        self.channels.remove(&entity);
    }

    /// How many conversations are listened to.
    pub fn listened_to(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn publish(&self, entity: EntityKey, record: &Notice) {
        if let Some(sender) = self.channels.get(&entity) {
            // Nobody listening any more is no error.
            let _ = sender.send(Arc::clone(record));
        }
    }
}
