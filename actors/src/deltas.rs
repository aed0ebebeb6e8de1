//! Deltas: pieces of an agent's reply while it is being made, before it is durable.
//!
//! They are not events: they have no sequence and are in no log. A listener that misses some loses only the preview,
//! because the reply itself arrives as an event. So nothing waits for a listener, and at most
//! [`limits::SUBSCRIBER_EVENTS`] pieces are buffered for one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::clock::Millis;
use crate::conversation::AttemptId;
use crate::id::{EntityKey, Kind, TurnId};
use crate::limits;

/// A piece of an agent's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The attempt that makes the reply.
    pub attempt: AttemptId,
    /// The sequence of the newest event before it: a reader that merges events and pieces puts it after that one, and
    /// before any later one.
    pub after: u64,
    /// Which of the attempt's messages it belongs to, from 0.
    pub message: u32,
    /// Which piece of the attempt it is, from 0; a gap shows that some were missed.
    pub number: u64,
    /// The piece.
    pub text: String,
}

/// The listeners.
#[derive(Debug, Default)]
pub struct Deltas {
    channels: DashMap<EntityKey, broadcast::Sender<Arc<Delta>>>,
}

/// A subscription to one conversation's pieces, ended when dropped.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Delta>>,
    /// Dropped after the receiver, so that the last one sees that no listener is left.
    _guard: ChannelGuard,
}

/// Removes the channel of an entity when its last listener is dropped.
#[derive(Debug)]
struct ChannelGuard {
    entity: EntityKey,
    all: Arc<Deltas>,
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        self.all.channels.remove_if(&self.entity, |_, sender| sender.receiver_count() == 0);
    }
}

impl Listener {
    /// The next piece, skipping missed ones. Cancelling loses none; it never returns if no more pieces can come.
    pub async fn recv(&mut self) -> Arc<Delta> {
        loop {
            match self.receiver.recv().await {
                Ok(delta) => return delta,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The next piece, if there is one already.
    pub fn try_recv(&mut self) -> Option<Arc<Delta>> {
        loop {
            match self.receiver.try_recv() {
                Ok(delta) => return Some(delta),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }
}

impl Deltas {
    /// Subscribes to a conversation's deltas from now on.
    #[must_use]
    pub fn listen(self: &Arc<Self>, entity: EntityKey) -> Listener {
        let receiver = match self.channels.entry(entity) {
            Entry::Occupied(sender) => sender.get().subscribe(),
            Entry::Vacant(place) => {
                let (sender, receiver) = broadcast::channel(limits::SUBSCRIBER_EVENTS);
                place.insert(sender);
                receiver
            }
        };
        Listener { receiver, _guard: ChannelGuard { entity, all: Arc::clone(self) } }
    }

    fn publish(&self, entity: EntityKey, delta: Delta) {
        if let Some(sender) = self.channels.get(&entity) {
            // Having no listener left is no error.
            let _ = sender.send(Arc::new(delta));
        }
    }
}

/// The bytes of a piece: a channel keeps [`limits::SUBSCRIBER_EVENTS`] of them for its slowest listener, 1 MiB.
const PIECE_BYTES: usize = 4 * 1024;

/// The sink for the pieces of an attempt. Clones share the attempt.
#[derive(Clone, Debug)]
pub struct DeltaSink(Arc<SinkState>);

#[derive(Debug)]
struct SinkState {
    to: Arc<Deltas>,
    entity: EntityKey,
    attempt: AttemptId,
    after: AtomicU64,
    messages: AtomicU32,
    number: AtomicU64,
    /// When the first piece arrived, with or without a listener.
    first: OnceLock<Instant>,
}

impl DeltaSink {
    /// For an attempt whose newest event has the sequence `after`.
    #[must_use]
    pub fn new(to: &Arc<Deltas>, entity: EntityKey, attempt: AttemptId, after: u64) -> Self {
        let after = AtomicU64::new(after);
        let to = Arc::clone(to);
        let messages = AtomicU32::new(0);
        let number = AtomicU64::new(0);
        Self(Arc::new(SinkState { to, entity, attempt, after, messages, number, first: OnceLock::new() }))
    }

    /// For no turn.
    #[must_use]
    pub fn silent() -> Self {
        let nowhere = EntityKey::INSTALLATION;
        let attempt = AttemptId { turn: TurnId::new(Millis(0), nowhere.id, 0), attempt: 0 };
        Self::new(&Arc::default(), nowhere, attempt, 0)
    }

    /// The turn that it belongs to; `None`: none.
    #[must_use]
    pub fn turn(&self) -> Option<TurnId> {
        // Only conversations have turns.
        (self.0.entity.kind == Kind::Conversation).then_some(self.0.attempt.turn)
    }

    /// The pieces so far have become a message; later ones belong to the next one, after the event with this sequence.
    pub(crate) fn begin_message(&self, after: u64) {
        self.0.after.fetch_max(after, Ordering::Relaxed);
        self.0.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// When the attempt sent its first piece.
    pub(crate) fn first_sent_at(&self) -> Option<Instant> {
        self.0.first.get().copied()
    }

    /// Sends a piece of a message; `message` is its index among the messages not yet committed, from 0.
    pub fn send(&self, message: u32, text: &str) {
        let of = &self.0;
        if text.is_empty() {
            return;
        }
        of.first.get_or_init(Instant::now);
        if !of.to.channels.contains_key(&of.entity) {
            return;
        }
        for text in pieces(text) {
            let delta = Delta {
                attempt: of.attempt,
                after: of.after.load(Ordering::Relaxed),
                message: of.messages.load(Ordering::Relaxed) + message,
                number: of.number.fetch_add(1, Ordering::Relaxed),
                text: text.to_owned(),
            };
            of.to.publish(of.entity, delta);
        }
    }
}

/// A text in parts of at most [`PIECE_BYTES`].
fn pieces(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        rest = behind;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    fn entity() -> EntityKey {
        EntityKey::conversation(Address([1; 10]), Address([2; 10]))
    }

    #[test]
    fn a_long_piece_is_cut_between_characters() {
        let long = format!("{}é{}", "x".repeat(PIECE_BYTES - 1), "y".repeat(PIECE_BYTES));
        let cut: Vec<&str> = pieces(&long).collect();
        assert_eq!(cut.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [PIECE_BYTES - 1, PIECE_BYTES, 2]);
        assert_eq!(cut.concat(), long);
        assert_eq!(pieces("").count(), 0);
    }

    fn sink(deltas: &Arc<Deltas>) -> DeltaSink {
        let attempt = AttemptId { turn: TurnId::new(Millis(1), entity().id, 1), attempt: 1 };
        DeltaSink::new(deltas, entity(), attempt, 5)
    }

    #[tokio::test]
    async fn a_listener_receives_deltas_in_order_with_their_positions() {
        let deltas = Arc::<Deltas>::default();
        let sink = sink(&deltas);
        sink.send(0, "nobody receives this");
        let mut listener = deltas.listen(entity());
        sink.send(0, "one");
        sink.send(0, "");
        sink.begin_message(9);
        sink.send(1, "two");
        let place = |delta: Arc<Delta>| (delta.text.clone(), delta.number, delta.message, delta.after);
        assert_eq!(place(listener.recv().await), ("one".to_owned(), 0, 0, 5));
        assert_eq!(listener.try_recv().map(place), Some(("two".to_owned(), 1, 2, 9)));
        assert_eq!(listener.try_recv(), None);
        drop(listener);
        assert!(deltas.channels.is_empty(), "nothing is kept for nobody");
    }

    #[test]
    fn i7_a_listener_that_is_too_slow_misses_pieces_and_holds_nothing_up() {
        let deltas = Arc::<Deltas>::default();
        let sink = sink(&deltas);
        let mut listener = deltas.listen(entity());
        let sent = limits::SUBSCRIBER_EVENTS as u64 * 3;
        (0..sent).for_each(|n| sink.send(0, &n.to_string()));
        let received: Vec<u64> = std::iter::from_fn(|| listener.try_recv()).map(|delta| delta.number).collect();
        assert!(received.len() <= limits::SUBSCRIBER_EVENTS && received.last() == Some(&(sent - 1)), "{received:?}");
    }
}
