//! Who wants to hear of a conversation's events as they become durable.
//!
//! A subscriber that has missed some is told so ([`RecvError::Lagged`]) and reads on from the store; nothing grows. That
//! is one that reads too slowly, and one whose conversation was changed in a way that this node has not seen: by a
//! commit whose outcome was unknown, or by another node.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

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
    pub events: Events,
}

/// The events that a subscriber has not heard yet.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Notice>,
    /// Dropped after the receiver, so that the last one to leave sees that nobody is left.
    leave: Leave,
}

impl Events {
    /// The next event. Cancelling loses none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Lagged`] when some were missed; 0 of them means that nobody knows how many, or whether any. What
    /// is heard after that is behind what the store shows then. It never says that it is closed.
    pub async fn recv(&mut self) -> Result<Notice, RecvError> {
        match self.receiver.recv().await {
            Err(RecvError::Closed) => {
                self.listen_again();
                Err(RecvError::Lagged(0))
            }
            heard => heard,
        }
    }

    /// The next event, if there is one already.
    ///
    /// # Errors
    ///
    /// As [`Events::recv`], and [`TryRecvError::Empty`].
    pub fn try_recv(&mut self) -> Result<Notice, TryRecvError> {
        match self.receiver.try_recv() {
            Err(TryRecvError::Closed) => {
                self.listen_again();
                Err(TryRecvError::Lagged(0))
            }
            heard => heard,
        }
    }

    fn listen_again(&mut self) {
        self.receiver = self.leave.all.receiver(self.leave.entity);
    }
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
        let leave = Leave { entity, all: Arc::clone(self) };
        Subscription { events: Events { receiver: self.receiver(entity), leave } }
    }

    fn receiver(&self, entity: EntityKey) -> broadcast::Receiver<Notice> {
        match self.channels.entry(entity) {
            Entry::Occupied(sender) => sender.get().subscribe(),
            Entry::Vacant(place) => {
                let (sender, receiver) = broadcast::channel(limits::SUBSCRIBER_EVENTS);
                place.insert(sender);
                receiver
            }
        }
    }

    /// Tells the subscribers of a conversation that they may have missed something.
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
