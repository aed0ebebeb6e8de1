//! Who wants to hear of a conversation's events as they become durable.
//!
//! A subscriber that has missed some is told so ([`Missed`]) and reads on from the store; nothing grows.
//! That is one that reads too slowly, and one whose conversation was changed in a way that this node has not seen: by a
//! commit whose outcome was unknown, or by another node.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use crate::conversation::Event;
use crate::id::EntityKey;
use crate::limits;
use crate::machine::Record;
use crate::node::Node;
use crate::store::Fresh;

/// An event of a conversation, as all its subscribers hear it.
#[derive(Clone, Debug)]
pub struct Notice {
    record: Arc<Record<Event>>,
    form: Arc<OnceLock<Bytes>>,
}

impl Notice {
    /// The form that subscribers pass it on in: made by the first of them, the same bytes for all. So `write` must
    /// depend on nothing but the record and its conversation.
    pub fn form(&self, write: impl FnOnce(&Record<Event>) -> Bytes) -> Bytes {
        self.form.get_or_init(|| write(&self.record)).clone()
    }
}

impl From<Arc<Record<Event>>> for Notice {
    fn from(record: Arc<Record<Event>>) -> Self {
        Self { record, form: Arc::default() }
    }
}

impl Deref for Notice {
    type Target = Record<Event>;

    fn deref(&self) -> &Record<Event> {
        &self.record
    }
}

/// How often a conversation that is listened to here is looked at, where others may change it elsewhere.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Conversations looked at at the same time.
const LOOKS: usize = 16;

/// The subscribers of this node.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: DashMap<EntityKey, Channel>,
}

/// The way to the subscribers of one conversation.
#[derive(Debug)]
struct Channel {
    sender: broadcast::Sender<Notice>,
    /// Sequence of the newest event that they were told of.
    told: AtomicU64,
}

/// A place among the subscribers of one conversation, given up when dropped.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Notice>,
    /// Dropped after the receiver, so that the last one to leave sees that nobody is left.
    leave: Leave,
}

/// How many events were missed; 0 means that nobody knows how many, or whether any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(pub u64);

impl Subscription {
    /// The next event. Cancelling loses none.
    ///
    /// # Errors
    ///
    /// [`Missed`] some. What is heard after that is behind what the store shows then.
    pub async fn recv(&mut self) -> Result<Notice, Missed> {
        self.receiver.recv().await.map_err(|error| match error {
            RecvError::Lagged(missed) => Missed(missed),
            RecvError::Closed => {
                self.receiver = self.leave.all.receiver(self.leave.entity);
                Missed(0)
            }
        })
    }
}

#[derive(Debug)]
struct Leave {
    entity: EntityKey,
    all: Arc<Subscriptions>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.all.channels.remove_if(&self.entity, |_, channel| channel.sender.receiver_count() == 0);
    }
}

impl Subscriptions {
    /// Listens to a conversation from now on.
    #[must_use]
    pub(crate) fn subscribe(self: &Arc<Self>, entity: EntityKey) -> Subscription {
        let leave = Leave { entity, all: Arc::clone(self) };
        Subscription { receiver: self.receiver(entity), leave }
    }

    fn receiver(&self, entity: EntityKey) -> broadcast::Receiver<Notice> {
        match self.channels.entry(entity) {
            Entry::Occupied(channel) => channel.get().sender.subscribe(),
            Entry::Vacant(place) => {
                let (sender, receiver) = broadcast::channel(limits::SUBSCRIBER_EVENTS);
                place.insert(Channel { sender, told: AtomicU64::new(0) });
                receiver
            }
        }
    }

    /// Tells the subscribers of a conversation that they may have missed something.
    pub(crate) fn interrupt(&self, entity: EntityKey) {
        self.channels.remove(&entity);
    }

    pub(crate) fn publish(&self, entity: EntityKey, record: &Arc<Record<Event>>) {
        if let Some(channel) = self.channels.get(&entity) {
            channel.told.fetch_max(record.seq, Ordering::Relaxed);
            // Nobody listening any more is no error.
            let _ = channel.sender.send(Notice::from(Arc::clone(record)));
        }
    }

    /// Conversations that are listened to, with the newest event told of each.
    fn listened(&self) -> Vec<(EntityKey, u64)> {
        self.channels.iter().map(|channel| (*channel.key(), channel.told.load(Ordering::Relaxed))).collect()
    }
}

/// Where others may change a conversation elsewhere, its subscribers here are told so within a second or two; until the
/// node stops.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut seen: HashMap<EntityKey, u64> = HashMap::new();
    while node.stopping.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        let listened = node.subscriptions.listened();
        let looks = stream::iter(listened).map(async |(entity, told)| {
            let loaded = node.store.load(entity, Fresh::Acknowledged).await;
            (entity, told, loaded.map(|loaded| loaded.map_or(0, |loaded| loaded.head.seq)))
        });
        let looks: Vec<_> = looks.buffer_unordered(LOOKS).collect().await;
        let before = std::mem::take(&mut seen);
        for (entity, told, look) in looks {
            // Where the store fails nothing new is known, so that not all are told at once when it is back.
            let Some(seq) = look.ok().or(before.get(&entity).copied()) else { continue };
            // At the first look nobody knows whether the subscriber has read what is there.
            if seq > told && before.get(&entity) != Some(&seq) {
                node.subscriptions.interrupt(entity);
            }
            seen.insert(entity, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;
    use crate::random::Random;

    #[test]
    fn nothing_is_kept_of_subscribers_that_left_however_they_race() {
        let all = Arc::new(Subscriptions::default());
        let entities = [1, 2].map(|n| EntityKey::conversation(Address([1; 10]), Address([n; 10])));
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let all = Arc::clone(&all);
                std::thread::spawn(move || {
                    let mut random = Random(seed);
                    let mut mine = Vec::new();
                    for _ in 0..20_000 {
                        if random.below(2) == 0 || mine.is_empty() {
                            mine.push(all.subscribe(entities[random.below(2) as usize]));
                        } else {
                            mine.swap_remove(random.below(mine.len() as u64) as usize);
                        }
                        if random.below(20) == 0 {
                            mine.clear();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(all.channels.is_empty());
    }
}
