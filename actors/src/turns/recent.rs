//! A cache of the newest messages of conversations with turns, so that a turn need not read what this process has just
//! written.
//!
//! A conversation that begins with a turn is cached from its beginning; another one is cached by the first turn that
//! reads it. Later commits are added. So an entry is complete up to an event, or there is none: a gap, or a change of
//! an earlier message, drops the entry, and the next turn reads the log. It is not used where other processes write
//! too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use super::prompt_message::PromptMessage;
use crate::conversation::{Event, message_of};
use crate::id::EntityKey;
use crate::limits;
use crate::machine::Record;
use crate::message::Overlay;
use crate::tool::Tools;

/// Messages of one conversation, some more than a model gets: those that wait for a turn count too.
const MAX_MESSAGES: usize = limits::CONTEXT_MESSAGES + 28;
/// The largest weight of one conversation's messages, several times a model's context.
pub(super) const TAIL_BYTES: usize = 8 * limits::CONTEXT_CHARS;
/// The weight of a conversation apart from its messages.
const BASE_WEIGHT: usize = 250;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    tails: DashMap<EntityKey, Tail>,
    weight: AtomicUsize,
    /// The weight of everything ever added: a clock by which the oldest are evicted.
    added: AtomicUsize,
}

/// The end of one conversation.
#[derive(Debug)]
struct Tail {
    /// Oldest first.
    messages: VecDeque<Arc<PromptMessage>>,
    /// The first and the last event that it covers.
    first: u64,
    last: u64,
    weight: usize,
    /// [`Recent::added`] when it was used last.
    used: usize,
}

/// The cached end of one conversation.
#[derive(Debug)]
pub(super) struct RecentMessages {
    /// The newest comes first.
    pub(super) messages: Vec<Arc<PromptMessage>>,
    /// The first event that they cover; every message since is among them.
    pub(super) first: u64,
    /// The last one.
    pub(super) last: u64,
}

impl Recent {
    /// The cached end of a conversation, if it includes the event `upto`.
    pub(super) fn of(&self, conversation: EntityKey, upto: u64) -> Option<RecentMessages> {
        let mut tail = self.tails.get_mut(&conversation).filter(|tail| tail.last >= upto)?;
        tail.used = self.added.load(Ordering::Relaxed);
        let messages = tail.messages.iter().rev().cloned().collect();
        Some(RecentMessages { messages, first: tail.first, last: tail.last })
    }

    /// Caches all messages read between two events.
    pub(super) fn put(&self, conversation: EntityKey, RecentMessages { messages, first, last }: RecentMessages) {
        let weight = BASE_WEIGHT + messages.iter().map(|message| message.weight()).sum::<usize>();
        let mut tail = Tail { messages: messages.into_iter().rev().collect(), first, last, weight, used: 0 };
        tail.shorten();
        self.weight.fetch_add(tail.weight, Ordering::Relaxed);
        tail.used = self.added.fetch_add(tail.weight, Ordering::Relaxed) + tail.weight;
        if let Some(before) = self.tails.insert(conversation, tail) {
            self.weight.fetch_sub(before.weight, Ordering::Relaxed);
        }
        self.sweep();
    }

    /// Adds committed events. A conversation that begins with a turn needs no read.
    pub(crate) fn follow(&self, conversation: EntityKey, records: &[Arc<Record<Event>>], tools: &dyn Tools) {
        let begins = records.first().is_some_and(|first| matches!(first.event, Event::ConversationCreated { .. }));
        if begins && records.iter().any(|record| matches!(record.event, Event::TurnStarted(_))) {
            self.put(conversation, RecentMessages { messages: Vec::new(), first: 1, last: 0 });
        }
        let Some(mut tail) = self.tails.get_mut(&conversation) else { return };
        let before = tail.weight;
        if records.iter().all(|record| tail.follow(record, tools)) {
            tail.shorten();
            // The new weight is added first, so that the sum is never negative.
            self.weight.fetch_add(tail.weight, Ordering::Relaxed);
            self.weight.fetch_sub(before, Ordering::Relaxed);
            self.added.fetch_add(tail.weight.saturating_sub(before), Ordering::Relaxed);
            drop(tail);
            self.sweep();
        } else {
            tail.weight = before;
            drop(tail);
            self.forget(conversation);
        }
    }

    /// Another process may have written.
    pub(crate) fn forget(&self, conversation: EntityKey) {
        if let Some((_, tail)) = self.tails.remove(&conversation) {
            self.weight.fetch_sub(tail.weight, Ordering::Relaxed);
        }
    }

    /// If the total weight is too large, evicts conversations that were not used while half as much was added. If that
    /// does not help much, evicts all: a sweep visits every conversation, which must not happen again soon.
    fn sweep(&self) {
        if self.weight.load(Ordering::Relaxed) <= limits::RECENT_BYTES {
            return;
        }
        let since = self.added.load(Ordering::Relaxed).saturating_sub(limits::RECENT_BYTES / 2);
        for may_keep in [true, false] {
            self.tails.retain(|_, tail| {
                let is_kept = may_keep && tail.used > since;
                if !is_kept {
                    self.weight.fetch_sub(tail.weight, Ordering::Relaxed);
                }
                is_kept
            });
            if self.weight.load(Ordering::Relaxed) <= limits::RECENT_BYTES / 4 * 3 {
                break;
            }
        }
    }
}

impl Tail {
    /// Takes the next record; `false` if it is not the next one, or changes an earlier message.
    fn follow(&mut self, record: &Record<Event>, tools: &dyn Tools) -> bool {
        if !record.event.keeps_content() {
            return false;
        }
        // A turn that has read the store may have added it already. Marks have no sequence of their own.
        if record.event.name().is_none() || record.seq <= self.last {
            return true;
        }
        if record.seq != self.last + 1 {
            return false;
        }
        self.last = record.seq;
        if let Some(message) = message_of(record) {
            let message = PromptMessage::of(message, &Overlay::default(), tools);
            self.weight += message.weight();
            self.messages.push_back(Arc::new(message));
        }
        true
    }

    /// Evicts the oldest.
    fn shorten(&mut self) {
        while self.messages.len() > MAX_MESSAGES || self.weight > TAIL_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.weight -= oldest.weight();
            self.first = oldest.id.number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::conversation::{Accepted, Turn};
    use crate::id::{Address, ConversationId};
    use crate::message::{Content, Sender, SenderKind};
    use crate::tool::NoTools;

    fn conversation(n: u8) -> EntityKey {
        EntityKey::conversation(Address([9; 10]), Address([n; 10]))
    }

    fn said(seq: u64, text: &str) -> Arc<Record<Event>> {
        let conversation = ConversationId::new(Millis(1), Address([1; 10]));
        let sender = Sender { kind: SenderKind::User, id: "ana".to_owned() };
        let content = Arc::new(Content::text("user", sender, text));
        let event = Event::MessageCreated(Accepted { conversation, content, parent: None, owner: None, turn: None });
        Arc::new(Record { seq, at: Millis(seq), trace: None, event })
    }

    fn message(seq: u64, text: &str) -> Arc<PromptMessage> {
        Arc::new(PromptMessage::of(message_of(&said(seq, text)).unwrap(), &Overlay::default(), &NoTools))
    }

    fn follow(recent: &Recent, conversation: EntityKey, records: &[Arc<Record<Event>>]) {
        recent.follow(conversation, records, &NoTools);
    }

    fn other(seq: u64, event: Event) -> Arc<Record<Event>> {
        Arc::new(Record { seq, at: Millis(seq), trace: None, event })
    }

    fn known(first: u64, last: u64) -> RecentMessages {
        RecentMessages { messages: (first..=last).rev().map(|seq| message(seq, "a")).collect(), first, last }
    }

    fn seqs(recent: &Recent, upto: u64) -> Option<Vec<u64>> {
        let known = recent.of(conversation(1), upto)?;
        Some(known.messages.iter().map(|message| message.id.number).collect())
    }

    #[test]
    fn records_that_follow_a_read_conversation_are_remembered_too() {
        let recent = Recent::default();
        follow(&recent, conversation(1), &[said(1, "a")]);
        assert_eq!(seqs(&recent, 1), None, "nobody has requested it");
        recent.put(conversation(1), known(1, 2));
        let message = message(1, "a").id;
        let delivered = other(4, Event::MessageDelivered { message });
        follow(&recent, conversation(1), &[said(2, "a"), said(3, "a"), delivered, said(5, "a")]);
        follow(&recent, conversation(2), &[said(6, "a")]);
        assert_eq!(seqs(&recent, 5), Some(vec![5, 3, 2, 1]));
        assert_eq!(seqs(&recent, 6), None, "the requested event is not there yet");
    }

    #[test]
    fn a_conversation_that_begins_with_a_turn_is_known_from_its_beginning() {
        let recent = Recent::default();
        let id = ConversationId::new(Millis(1), Address([1; 10]));
        let created = Event::ConversationCreated {
            id,
            origin: crate::conversation::Origin::Direct,
            owner: None,
            details: crate::conversation::Details::default(),
            forked: None,
        };
        let turn = Turn::requested(Millis(1), id, 1, "bot");
        let begun = [other(1, created), said(2, "a"), other(3, Event::TurnStarted(turn))];
        follow(&recent, conversation(2), &begun[..2]);
        follow(&recent, conversation(1), &begun);
        assert_eq!(seqs(&recent, 3), Some(vec![2]));
        assert_eq!(recent.of(conversation(1), 3).unwrap().first, 1);
        assert!(recent.of(conversation(2), 0).is_none(), "nobody answers there");
    }

    #[test]
    fn a_gap_or_an_edit_invalidates_the_recent_messages() {
        let message = message(1, "a").id;
        for record in [
            said(4, "a"),
            other(3, Event::MessageUpdated { message }),
            other(3, Event::MessageDeleted { message }),
            other(3, Event::ConversationErased),
            // A mark.
            other(0, Event::ErasureMoved { next: None, first_unread: None }),
        ] {
            let recent = Recent::default();
            recent.put(conversation(1), known(1, 2));
            follow(&recent, conversation(1), &[Arc::clone(&record)]);
            assert_eq!(seqs(&recent, 2), None, "{record:?}");
            assert_eq!(recent.weight.into_inner(), 0);
        }
    }

    #[test]
    fn no_conversation_has_more_than_a_model_is_handed() {
        let recent = Recent::default();
        recent.put(conversation(1), known(1, 1_000));
        let kept = recent.of(conversation(1), 1_000).unwrap();
        assert_eq!((kept.messages.len(), kept.first, kept.last), (MAX_MESSAGES, 1_001 - MAX_MESSAGES as u64, 1_000));
        follow(&recent, conversation(1), &[said(1_001, &"x".repeat(TAIL_BYTES))]);
        let kept = recent.of(conversation(1), 1_001).unwrap();
        assert_eq!((kept.messages.len(), kept.first), (0, 1_002), "then what is older is read");
        recent.forget(conversation(1));
        assert_eq!(recent.weight.into_inner(), 0);
    }

    #[test]
    fn the_least_recently_used_conversations_are_evicted() {
        let recent = Recent::default();
        let mut n = 0_u16;
        let address = |n: u16| EntityKey { id: Address::derive("recent", &[&n.to_le_bytes()]), ..conversation(1) };
        while recent.added.load(Ordering::Relaxed) < 3 * limits::RECENT_BYTES {
            recent.put(
                address(n),
                RecentMessages { messages: vec![message(1, &"x".repeat(100_000))], first: 1, last: 1 },
            );
            assert!(recent.weight.load(Ordering::Relaxed) <= limits::RECENT_BYTES);
            assert!(recent.of(address(0), 1).is_some(), "it is used all the time");
            n += 1;
        }
        assert!(recent.of(address(1), 1).is_none());
        assert!(recent.of(address(n - 1), 1).is_some());
    }
}
