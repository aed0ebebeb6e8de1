//! The progress of drawing memories from messages; see [`memories::draw`](crate::memories::draw).

use minicbor::{Decode, Encode};

use super::writing::{Decided, Writing};
use super::{Event, Rejection, Reply, State};
use crate::clock::Millis;
use crate::id::{MemoryId, MessageId};
use crate::memories::Subject;
use crate::message::{Message, role};
use crate::store::SeqRange;
use crate::tasks::backoff::pause;
use crate::usage;

/// After how long an unfinished drawing is checked: its process may have ended.
const DRAWING_CHECK_DELAY_MILLIS: u64 = 10_000;
/// The longest pause between two checks.
const MAX_DRAWING_CHECK_DELAY_MILLIS: u64 = 3_600_000;

/// Memories are to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Remembering {
    /// From this message on.
    #[n(0)]
    pub next: u64,
    /// Up to this one.
    #[n(1)]
    pub last: u64,
    /// When it is checked again.
    #[n(2)]
    pub check_at: Millis,
    /// How often it has failed.
    #[n(3)]
    pub attempts: u32,
    /// How often it was begun again since its last report.
    #[n(4)]
    #[cbor(default)]
    pub put_off: u32,
}

/// A memory that was created or changed because of a message of this conversation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    /// The memory.
    #[n(0)]
    pub memory: MemoryId,
    /// The subject of the memory.
    #[n(1)]
    pub subject: Subject,
    /// The message that it comes from.
    #[n(2)]
    pub source: Option<MessageId>,
    /// It was created, not changed.
    #[n(3)]
    pub created: bool,
}

/// The result of drawing memories from some messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The memories created or changed.
    pub notes: Vec<Note>,
    /// Some could not be drawn, and will not be.
    pub failed: bool,
    /// The models' usage for it.
    pub used: Option<usage::Entry>,
}

/// Whether memories are to be drawn from a message: its client requests it, and a person wrote it.
#[must_use]
pub(crate) fn requests_memories(message: &Message) -> bool {
    let content = &message.content;
    content.memories && content.role == role::USER && content.text.as_ref().is_some_and(|text| !text.is_empty())
}

impl Remembering {
    /// The work left once a message with `enableMemories` was accepted.
    pub(super) fn with(before: Option<Self>, seq: u64, at: Millis) -> Self {
        match before {
            Some(before) => Self { last: seq, ..before },
            None => {
                Self { next: seq, last: seq, check_at: at.plus(DRAWING_CHECK_DELAY_MILLIS), attempts: 0, put_off: 0 }
            }
        }
    }

    /// The pause after this many failures, and beginnings without a report.
    fn pause(self) -> u64 {
        pause(DRAWING_CHECK_DELAY_MILLIS, self.attempts + self.put_off, MAX_DRAWING_CHECK_DELAY_MILLIS)
    }

    /// Begun again, and checked later; that is no attempt yet.
    fn put_off(self, now: Millis) -> Self {
        Self { check_at: now.plus(self.pause()), put_off: self.put_off + 1, ..self }
    }

    /// An attempt has failed.
    fn failed(self, now: Millis) -> Self {
        let reported = Self { put_off: 0, ..self };
        Self { check_at: now.plus(reported.pause()), attempts: self.attempts + 1, ..reported }
    }

    /// The work left once the messages up to `upto` are done; new ones get all attempts.
    fn after(self, upto: u64, now: Millis) -> Option<Self> {
        let check_at = now.plus(DRAWING_CHECK_DELAY_MILLIS);
        (upto < self.last).then_some(Self { next: upto + 1, check_at, attempts: 0, put_off: 0, ..self })
    }
}

/// Memories were drawn from the messages of `range`. A second report of the same range is refused.
pub(super) fn remembered(state: &State, range: SeqRange, drawn: &Drawn, mut writing: Writing<'_>) -> Decided {
    let Some(remembering) = state.remembering.filter(|remembering| remembering.next == range.first) else {
        return Err(Rejection::Changed.into());
    };
    // An erased conversation announces no memories.
    if state.erasure.is_none() {
        for note in &drawn.notes {
            writing.event(Event::MemoryNoted(note.clone()));
        }
        if drawn.failed {
            writing.event(Event::MemoryFailed { first: range.first, last: range.last });
        }
    }
    writing.event(Event::MemoriesDrawn { left: remembering.after(range.last, writing.context.now) });
    if let Some(used) = &drawn.used {
        writing.entry(used.write(writing.context));
    }
    Ok(writing.done(Reply::Nothing))
}

/// Drawing memories has failed. A second report of the same failure is refused.
pub(super) fn failed(state: &State, before: Remembering, mut writing: Writing<'_>) -> Decided {
    let is_it = |now: &Remembering| (now.next, now.attempts) == (before.next, before.attempts);
    let Some(remembering) = state.remembering.filter(is_it) else {
        return Err(Rejection::Changed.into());
    };
    writing.event(Event::MemoriesDrawn { left: Some(remembering.failed(writing.context.now)) });
    Ok(writing.done(Reply::Nothing))
}

/// A due check: begins it again, and checks again later.
pub(super) fn recheck(state: &State, writing: &mut Writing<'_>) {
    let now = writing.context.now;
    if let Some(remembering) = state.remembering.filter(|remembering| remembering.check_at <= now) {
        writing.event(Event::MemoriesDrawn { left: Some(remembering.put_off(now)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_state_stored_without_a_count_of_beginnings_is_read() {
        let stored = codec::encode(&(2_u64, 9_u64, Millis(5), 1_u32));
        let read = Remembering { next: 2, last: 9, check_at: Millis(5), attempts: 1, put_off: 0 };
        assert_eq!(codec::decode::<Remembering>(&stored).unwrap(), read);
    }
}
