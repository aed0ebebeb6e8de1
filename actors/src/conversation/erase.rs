//! Erasing the content of a conversation, because its contact is erased.
//!
//! One event begins it: the conversation is closed for good and its turns end, so no message follows. After that the
//! log is redacted in steps, each a commit of its own, so that a long conversation never makes a large commit. The
//! caller (see [`erasure`](crate::workflows::erasure)) repeats the command until it is done. Records that cannot be
//! read are erased too, as far as they can be written: they then say only that a message was deleted.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::amend::{drop_replays, end_review, overlay_of};
use super::post;
use super::writing::{Decided, Writing};
use super::{Conversation, Event, Opening, Origin, Rejection, Reply, State, fork, number_key, turn};
use crate::clock::Millis;
use crate::contact::entity_of;
use crate::contact::identifier::normalize_identifier;
use crate::id::{ContactId, MessageId};
use crate::machine::{Decision, DecisionContext, Need, Record, Undecided};
use crate::message::{Overlay, Removal};
use crate::store::SeqRange;
use crate::tables::{DETAILS, OVERLAYS, REPLAYS};
use crate::workflows::erasure::progress::{Progress, UnreadEvents};

/// The progress of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Erasure {
    /// When the erasure began.
    #[n(0)]
    pub since: Millis,
    /// The first event that may still have content; `None`: none has.
    #[n(1)]
    pub next: Option<u64>,
    /// The last one that might.
    #[n(2)]
    pub last: u64,
    /// The first event that was skipped because it could not be emptied: the erasure is not done before that event is.
    #[n(3)]
    pub first_unread: Option<u64>,
}

/// A request to remove all content, a step at a time.
#[derive(Clone, Debug)]
pub struct Erase {
    /// The opening of a conversation that was not used yet: so that a message in flight finds it closed.
    pub unused: Option<Opening>,
}

/// A request to remove all content of a copy that this contact has noted, of a conversation with them.
#[derive(Clone, Copy, Debug)]
pub struct EraseCopy(pub ContactId);

impl Erasure {
    pub(super) fn begun(since: Millis, last: u64) -> Self {
        Self { since, next: Some(1), last, first_unread: None }
    }

    /// How far its steps have come.
    fn progress(&self) -> Progress {
        Progress { next: self.next, first_unread: self.first_unread }
    }

    /// The erasure after a step.
    pub(super) fn advanced(self, Progress { next, first_unread }: Progress) -> Self {
        Self { next, first_unread, ..self }
    }
}

/// Whether a conversation belongs to the erased contact, or to one erased at its address before. A copy is noted before
/// it begins, at the home of its request's key, where another conversation may have begun instead.
fn belongs_to(state: &State, erased: ContactId) -> bool {
    state.origin.contact().is_some_and(|contact| contact.address == erased.address && contact.at <= erased.at)
}

/// Erases a copy that an erased contact noted here: another contact's conversation counts as absent.
pub(super) fn erase_copy(state: Option<&State>, erase: EraseCopy, writing: Writing<'_>) -> Decided {
    let EraseCopy(erased) = erase;
    match state {
        None => fork::bar(erased, writing),
        Some(state) if belongs_to(state, erased) => next(state, writing),
        Some(_) => Err(Rejection::NotFound.into()),
    }
}

/// Begins the erasure, or does its next step.
pub(super) fn erase(state: Option<&State>, erase: &Erase, writing: Writing<'_>) -> Decided {
    match (state, &erase.unused) {
        (Some(state), _) => next(state, writing),
        (None, Some(opening)) => Ok(close_unused(opening, writing)),
        (None, None) => Err(Rejection::NotFound.into()),
    }
}

fn next(state: &State, writing: Writing<'_>) -> Decided {
    let Some(erasure) = &state.erasure else { return begin(state, writing) };
    match erasure.progress().step(erasure.last) {
        Some(step) => redact_step(state, erasure, step, writing),
        None => Ok(Decision::Answer(Reply::Erasing(*erasure))),
    }
}

/// The reads of a step.
fn step_needs(step: SeqRange) -> impl Iterator<Item = Need> {
    let needs = step.seqs().flat_map(|seq| {
        let key = number_key(seq);
        [Need::Event(seq), Need::Row(OVERLAYS, key.clone()), Need::Under(REPLAYS, key)]
    });
    // An unreadable event happened no earlier than the one before it.
    needs.chain((step.first > 1).then(|| Need::Event(step.first - 1)))
}

/// Redacts the events of a step.
fn redact_step(state: &State, erasure: &Erasure, step: SeqRange, mut writing: Writing<'_>) -> Decided {
    let reads = writing.reads;
    let missing: Vec<Need> = step_needs(step).filter(|need| !reads.has(need)).collect();
    if !missing.is_empty() {
        return Err(Undecided::Missing(missing).into());
    }
    let mut unread = UnreadEvents::default();
    let before = reads.record::<Event>(step.first - 1).ok().flatten();
    let mut at = before.map_or(state.created_at(), |record| record.at);
    for seq in step.seqs() {
        match reads.record::<Event>(seq) {
            Err(Undecided::Corrupt(error)) => {
                if unread.note(seq, error, reads) {
                    let message = MessageId::new(at, state.id.address, seq);
                    let event = Event::MessageDeleted { message };
                    writing.redact(Record { seq, at, trace: None, event });
                }
                writing.delete(OVERLAYS, number_key(seq));
            }
            record => {
                let Some(record) = record? else { continue };
                at = record.at;
                redact_event(record, state, &mut writing)?;
            }
        }
        match drop_replays(seq, &mut writing) {
            // Which answers are stored is unknown, so none can be deleted.
            Err(Undecided::Corrupt(error)) => unread.keep(seq, error),
            deleted => deleted?,
        }
    }
    unread.log(writing.context.entity);
    let Some(progress) = unread.advanced(step, erasure.last, erasure.progress()) else {
        return Ok(Decision::Answer(Reply::Erasing(*erasure)));
    };
    let Progress { next, first_unread } = progress;
    writing.event(Event::ErasureMoved { next, first_unread });
    Ok(writing.done(Reply::Erasing(erasure.advanced(progress))))
}

/// Removes the content and the names of one event.
fn redact_event(record: Record<Event>, state: &State, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let redacted = record.event.redacted(Removal::Erased);
    let nameless = without_names(redacted.as_ref().unwrap_or(&record.event), state, writing.context);
    let Some(event) = nameless.or(redacted) else { return Ok(()) };
    let record = Record { event, ..record };
    redact_overlay(&record, writing)?;
    writing.redact(record);
    Ok(())
}

/// The event without the owner, and with the contact's id where a sender was named by the contact's identifier. `None`
/// if it has neither.
fn without_names(event: &Event, state: &State, context: &DecisionContext) -> Option<Event> {
    let mut nameless = event.clone();
    match &mut nameless {
        Event::MessageCreated(accepted) => {
            accepted.owner = None;
            if let Origin::Api { contact, .. } = &state.origin {
                let named = entity_of(context.entity.workspace, &normalize_identifier(&accepted.content.sender.id));
                if named.id == contact.address {
                    Arc::make_mut(&mut accepted.content).sender.id = contact.to_string();
                }
            }
        }
        Event::ConversationCreated { owner, .. } | Event::ConversationUpdated { owner, .. } => *owner = None,
        _ => {}
    }
    (nameless != *event).then_some(nameless)
}

/// Erases the content of a message's edits and answers, which are in a row of their own. A damaged row is replaced.
fn redact_overlay(record: &Record<Event>, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let Some(message) = super::message_of(record) else { return Ok(()) };
    let after = match overlay_of(record.seq, writing.reads) {
        // Whether its review has ended is unknown. If it has not, its deadline ends it.
        Err(Undecided::Corrupt(_)) => Overlay::default().redacted(Removal::Erased),
        overlay => {
            let mut after = overlay?;
            end_review(message.id, &mut after, writing)?;
            after
        }
    };
    if after != Overlay::default() {
        writing.overlay(record.seq, &after.redacted(Removal::Erased));
    }
    Ok(())
}

/// Begins the erasure: closes the conversation and ends its turns. The rows of their open calls are removed with them.
fn begin(state: &State, mut writing: Writing<'_>) -> Decided {
    let erasure = Erasure::begun(writing.context.now, writing.next_seq() - 1);
    writing.event(Event::ConversationErased);
    writing.delete(DETAILS, Bytes::new());
    // From here on it is closed and has no owner.
    let erased = State { owner: None, closed: true, ..state.clone() };
    for turn in state.running.iter().chain(&state.queued) {
        turn::end_cancelled(&erased, turn, &mut writing)?;
    }
    if !state.closed {
        writing.event(Event::ConversationClosed);
    }
    Ok(writing.done(Reply::Erasing(erasure)))
}

/// Begins an unused conversation as a closed one, so that it is never used.
fn close_unused(opening: &Opening, mut writing: Writing<'_>) -> Decision<Conversation> {
    let erasure = Erasure::begun(writing.context.now, writing.next_seq());
    post::begin(opening, None, &mut writing);
    writing.event(Event::ConversationErased);
    writing.event(Event::ConversationClosed);
    writing.done(Reply::Erasing(erasure))
}
