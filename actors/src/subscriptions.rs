//! In-process subscriptions to a conversation's events as they become durable.
//!
//! A subscriber that has missed events is notified ([`Missed`]) and continues from the store; no buffer grows. It
//! misses some if it reads too slowly, if the unread events of its conversation take too many bytes, or if the
//! conversation was changed without this node's knowledge: by a commit whose outcome was unknown, or by another node.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
use crate::store::ReadLevel;

/// An event of a conversation, shared by all its subscribers.
#[derive(Clone, Debug)]
pub struct Notice(Arc<SharedNotice>);

#[derive(Debug)]
struct SharedNotice {
    record: Arc<Record<Event>>,
    form: OnceLock<Bytes>,
    weight: Weight,
}

impl Notice {
    fn new(record: Arc<Record<Event>>, weight: Weight) -> Self {
        Self(Arc::new(SharedNotice { record, form: OnceLock::new(), weight }))
    }

    /// The rendered form for subscribers: made by the first of them, the same bytes for all. So `write` must depend
    /// only on the record and its conversation.
    pub fn form(&self, write: impl FnOnce(&Record<Event>) -> Bytes) -> Bytes {
        let shared = &self.0;
        let write = || {
            let form = write(&shared.record);
            shared.weight.add(form.len());
            form
        };
        shared.form.get_or_init(write).clone()
    }
}

impl Deref for Notice {
    type Target = Record<Event>;

    fn deref(&self) -> &Record<Event> {
        &self.0.record
    }
}

/// The bytes of an event, counted as unread of its conversation until every subscriber has dropped it.
#[derive(Debug)]
struct Weight {
    bytes: AtomicUsize,
    held: Arc<AtomicUsize>,
}

impl Weight {
    fn of(record: &Record<Event>, held: &Arc<AtomicUsize>) -> Self {
        let weight = Self { bytes: AtomicUsize::new(0), held: Arc::clone(held) };
        weight.add(record.event.weight());
        weight
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.held.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// How often a conversation with subscribers here is checked, if other processes may change it.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Conversations checked at the same time.
const MAX_CONCURRENT_CHECKS: usize = 16;

/// The subscribers of this node.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: DashMap<EntityKey, Channel>,
}

/// The channel to the subscribers of one conversation.
#[derive(Debug)]
struct Channel {
    sender: broadcast::Sender<Notice>,
    /// Sequence of the newest event that was announced to them.
    announced: AtomicU64,
    /// Bytes of announced events that a subscriber has not read yet, or still holds.
    held: Arc<AtomicUsize>,
}

impl Channel {
    fn new(sender: broadcast::Sender<Notice>) -> Self {
        Self { sender, announced: AtomicU64::new(0), held: Arc::default() }
    }

    /// Announces an event. `false`: the unread events take too many bytes, and nothing more may be announced on this
    /// channel.
    fn announce(&self, record: &Arc<Record<Event>>) -> bool {
        self.announced.fetch_max(record.seq, Ordering::Relaxed);
        // Having no listener left is no error.
        let _ = self.sender.send(Notice::new(Arc::clone(record), Weight::of(record, &self.held)));
        self.held.load(Ordering::Relaxed) <= limits::SUBSCRIBER_BYTES
    }
}

/// A subscription to one conversation, ended when dropped.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Notice>,
    /// Dropped after the receiver, so that the last one sees that no subscriber is left.
    leave: Leave,
}

/// How many events were missed; 0: it is unknown how many, or whether any were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(pub u64);

impl Subscription {
    /// The next event. Cancelling loses none.
    ///
    /// # Errors
    ///
    /// [`Missed`] some. Events received later come after those that the store has then.
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
    /// Subscribes to a conversation from now on.
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
                place.insert(Channel::new(sender));
                receiver
            }
        }
    }

    /// Notifies the subscribers of a conversation that they may have missed something.
    pub(crate) fn interrupt(&self, entity: EntityKey) {
        self.channels.remove(&entity);
    }

    /// Announces an event to all subscribers. If one of them has too much unread, all continue from the store: the next
    /// events are kept only for those that have caught up.
    pub(crate) fn publish(&self, entity: EntityKey, record: &Arc<Record<Event>>) {
        let is_too_much = self.channels.get(&entity).is_some_and(|channel| !channel.announce(record));
        if is_too_much {
            self.interrupt(entity);
        }
    }

    /// Conversations with subscribers, with the newest event announced of each.
    fn with_subscribers(&self) -> Vec<(EntityKey, u64)> {
        self.channels.iter().map(|channel| (*channel.key(), channel.announced.load(Ordering::Relaxed))).collect()
    }
}

/// If other processes may change a conversation, notifies its subscribers here within a second or two; until the node
/// stops.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut seen: HashMap<EntityKey, u64> = HashMap::new();
    while node.stopping.run_until_cancelled(sleep(CHECK_INTERVAL)).await.is_some() {
        let with_subscribers = node.subscriptions.with_subscribers();
        let checks = stream::iter(with_subscribers).map(async |(entity, announced)| {
            let loaded = node.store.load(entity, ReadLevel::Acknowledged).await;
            (entity, announced, loaded.map(|loaded| loaded.map_or(0, |loaded| loaded.head.seq)))
        });
        let checks: Vec<_> = checks.buffer_unordered(MAX_CONCURRENT_CHECKS).collect().await;
        let before = std::mem::take(&mut seen);
        for (entity, announced, newest) in checks {
            // While the store fails nothing new is known, so that not all are notified at once when it is back.
            let Some(seq) = newest.ok().or(before.get(&entity).copied()) else { continue };
            // At the first check it is unknown whether the subscriber has read the newest events.
            if seq > announced && before.get(&entity) != Some(&seq) {
                node.subscriptions.interrupt(entity);
            }
            seen.insert(entity, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::id::Address;
    use crate::random::Random;

    #[tokio::test]
    async fn an_events_bytes_count_until_all_subscribers_drop_it() {
        let all = Arc::new(Subscriptions::default());
        let entity = EntityKey::conversation(Address([1; 10]), Address([2; 10]));
        let mut subscriptions = [all.subscribe(entity), all.subscribe(entity)];
        let record = Arc::new(Record { seq: 1, at: Millis(1), trace: None, event: Event::ConversationClosed });
        let held = Arc::clone(&all.channels.get(&entity).unwrap().held);
        all.publish(entity, &record);
        let weight = held.load(Ordering::Relaxed);
        assert!(weight > 0);
        let notice = subscriptions[0].recv().await.unwrap();
        for _ in 0..2 {
            notice.form(|_| Bytes::from_static(b"form"));
            assert_eq!(held.load(Ordering::Relaxed), weight + 4);
        }
        drop(notice);
        assert_eq!(held.load(Ordering::Relaxed), weight + 4, "the other one has not come to it");
        drop(subscriptions[1].recv().await.unwrap());
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

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
