//! Applies a record to a conversation's state: the first one creates it, every other changes it.

use super::{Erasure, Event, Fork, Remembering, State, errand, message_of, remember};
use crate::id_clock;
use crate::machine::Record;
use crate::workflows::erasure::progress::Progress;

impl State {
    /// The state right after it began, by the record of its beginning; `None` for any other record.
    #[must_use]
    pub fn begun(record: &Record<Event>) -> Option<Self> {
        let Event::ConversationCreated { id, origin, owner, forked, .. } = &record.event else { return None };
        Some(Self {
            id: *id,
            origin: origin.clone(),
            owner: owner.clone(),
            closed: false,
            updated_at: record.at,
            last_message_at: None,
            messages: 0,
            turns: 0,
            running: None,
            queued: Vec::new(),
            next_deadline: None,
            last_seq: record.seq,
            errands_at: None,
            erasure: None,
            outbox: None,
            remembering: None,
            fork: forked.map(|of| Fork::begun(of, record.at)),
            began_at: id_clock::earlier(record.at, id.at),
            newest_message: None,
        })
    }

    /// Applies a record other than the first to the state.
    pub(super) fn apply(&mut self, record: &Record<Event>) {
        self.last_seq = record.seq;
        match &record.event {
            Event::TurnQueued(_)
            | Event::TurnStarted(_)
            | Event::TurnMoved(_)
            | Event::TurnCompleted(_)
            | Event::TurnFailed(_)
            | Event::TurnCancelled(_) => self.apply_turn(record),
            Event::MessageCreated(_)
            | Event::ReviewRequested { .. }
            | Event::ReviewCompleted(_)
            | Event::ReviewExpired(_)
            | Event::ReviewCancelled(_) => self.apply_message(record),
            Event::ConversationUpdated { .. } | Event::ConversationClosed | Event::ConversationErased => {
                self.apply_lifecycle(record);
            }
            Event::ErasureMoved { .. }
            | Event::ErrandsDue { .. }
            | Event::MemoriesDrawn { .. }
            | Event::ForkMoved(_)
            | Event::OutboxMoved { .. }
            | Event::DeadlineMoved { .. } => self.apply_progress(&record.event),
            // They change rows, and nothing that the state holds.
            Event::ConversationCreated { .. }
            | Event::MessageUpdated { .. }
            | Event::MessageDeleted { .. }
            | Event::MessageDelivered { .. }
            | Event::MessageRead { .. }
            | Event::AttachmentDisclaimed { .. }
            | Event::MemoryNoted(_)
            | Event::MemoryFailed { .. } => {}
        }
    }

    /// Applies a change of a turn.
    fn apply_turn(&mut self, record: &Record<Event>) {
        match &record.event {
            Event::TurnQueued(turn) => {
                self.turns = self.turns.max(turn.id.number);
                self.queued.retain(|queued| queued.id != turn.id);
                self.queued.push(turn.kept(record));
            }
            Event::TurnStarted(turn) => {
                self.turns = self.turns.max(turn.id.number);
                self.queued.retain(|queued| queued.id != turn.id);
                self.running = Some(turn.kept(record));
            }
            Event::TurnMoved(turn) => self.running = Some(turn.clone()),
            Event::TurnCompleted(turn) | Event::TurnFailed(turn) | Event::TurnCancelled(turn) => {
                self.queued.retain(|queued| queued.id != turn.id);
                if self.running.as_ref().is_some_and(|running| running.id == turn.id) {
                    self.running = None;
                }
            }
            _ => {}
        }
    }

    /// Applies the acceptance of a message, or a change of its review.
    fn apply_message(&mut self, record: &Record<Event>) {
        match &record.event {
            Event::MessageCreated(_) => {
                self.messages += 1;
                self.newest_message = Some(record.seq);
                self.last_message_at = Some(record.at);
                self.updated_at = record.at;
                if message_of(record).as_ref().is_some_and(remember::requests_memories) {
                    self.remembering = Some(Remembering::with(self.remembering, record.seq, record.at));
                }
            }
            Event::ReviewRequested { expires_at, .. } => {
                self.next_deadline = Some(self.next_deadline.map_or(*expires_at, |next| next.min(*expires_at)));
            }
            Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => {
                if end.asker.is_some()
                    && let Event::ErrandsDue { at } = errand::due(record.at)
                {
                    self.errands_at = at;
                }
            }
            _ => {}
        }
    }

    /// Applies a change of the conversation's owner or status.
    fn apply_lifecycle(&mut self, record: &Record<Event>) {
        self.updated_at = record.at;
        match &record.event {
            Event::ConversationUpdated { owner, reopened, .. } => {
                self.owner.clone_from(owner);
                self.closed &= !reopened;
            }
            Event::ConversationClosed => self.closed = true,
            Event::ConversationErased => {
                self.closed = true;
                self.owner = None;
                self.erasure = Some(Erasure::begun(record.at, record.seq - 1));
            }
            _ => {}
        }
    }

    /// Applies a mark: the progress of work that goes on in several commits, or its next check.
    fn apply_progress(&mut self, mark: &Event) {
        match mark {
            Event::ErasureMoved { next, first_unread } => {
                let progress = Progress { next: *next, first_unread: *first_unread };
                self.erasure = self.erasure.map(|erasure| erasure.advanced(progress));
            }
            Event::ErrandsDue { at } => self.errands_at = *at,
            Event::MemoriesDrawn { left } => self.remembering = *left,
            Event::ForkMoved(fork) => self.fork = Some(*fork),
            Event::OutboxMoved { outbox } => self.outbox = *outbox,
            Event::DeadlineMoved { next } => self.next_deadline = *next,
            _ => {}
        }
    }
}
