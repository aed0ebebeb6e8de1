//! Erasing the words of a whole conversation, because its contact is erased.
//!
//! One event begins it: the conversation is closed for good and its turns end, so no message follows. After that the
//! log is redacted in steps, each a commit of its own, so that a long conversation never makes a large commit. The
//! caller (see [`erasure`](crate::erasure)) repeats the command until it is done. Records that cannot be read are
//! erased too, as far as they can be written: they then say only that a message was deleted.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::amend::{end_review, overlay_of, unshow};
use super::post;
use super::{Conversation, Event, Opening, Origin, Rejection, Reply, State, Turn, fork, number_key, turn};
use crate::clock::Millis;
use crate::codec;
use crate::contact::entity_of;
use crate::contact::identifier::normalize_identifier;
use crate::erasure::Unread;
use crate::id::{ContactId, MessageId};
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Record, Undecided};
use crate::message::{Gone, Overlay};
use crate::store::{RowWrite, SeqRange};
use crate::tables::{DETAILS, OVERLAYS, SHOWN};

/// Events that one step goes through. Their old form is read and a new one is written, with a row for some.
pub(crate) const STEP: u64 = 64;

/// The progress of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Erasure {
    /// When it began.
    #[n(0)]
    pub since: Millis,
    /// The first event that may still contain words; `None`: none does.
    #[n(1)]
    pub next: Option<u64>,
    /// The last one that might.
    #[n(2)]
    pub last: u64,
    /// The first event that was skipped because it could not be emptied: the erasure is not done before that event is.
    #[n(3)]
    pub stay: Option<u64>,
}

/// All words are to be removed, a step at a time.
#[derive(Clone, Debug)]
pub struct Erase {
    /// The opening of a conversation that was not used yet: so that a message in flight finds it closed.
    pub unused: Option<Opening>,
}

/// The same for a copy that this contact has noted, of a conversation with them.
#[derive(Clone, Copy, Debug)]
pub struct EraseCopy(pub ContactId);

impl Erasure {
    pub(super) fn begun(since: Millis, last: u64) -> Self {
        Self { since, next: Some(1), last, stay: None }
    }

    /// The events of the next step. After all others, those from `stay` on.
    #[must_use]
    pub fn step(&self) -> Option<SeqRange> {
        self.next.or(self.stay).map(|next| SeqRange::new(next, self.last.min(next + STEP - 1)))
    }
}

/// Whether a conversation belongs to the erased contact, or to one erased at its address before. A copy is noted before
/// it begins, at the home of its request's key, where another conversation may have begun instead.
fn is_theirs(state: &State, erased: ContactId) -> bool {
    state.origin.contact().is_some_and(|contact| contact.address == erased.address && contact.at <= erased.at)
}

/// Erases a copy that an erased contact noted here: another contact's conversation counts as absent.
pub(super) fn erase_copy(
    state: Option<&State>,
    erased: ContactId,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    match state {
        None => fork::bar(erased, found),
        Some(state) if is_theirs(state, erased) => erase(state, moment, found),
        Some(_) => Ok(Decision::Reject(Rejection::NotFound)),
    }
}

/// Begins the erasure, or does its next step.
pub(super) fn erase(
    state: &State,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let Some(erasure) = &state.erasure else { return Ok(Decision::Change(begin(state, moment, found)?)) };
    let Some(step) = erasure.step() else { return Ok(Decision::Answer(Reply::Erasing(*erasure))) };
    let needs = step.seqs().flat_map(|seq| {
        let key = number_key(seq);
        [Need::Event(seq), Need::Row(OVERLAYS, key.clone()), Need::Under(SHOWN, key)]
    });
    // An unreadable event happened no earlier than the one before it.
    let needs = needs.chain((step.first > 1).then(|| Need::Event(step.first - 1)));
    let missing: Vec<Need> = needs.filter(|need| !found.has(need)).collect();
    if !missing.is_empty() {
        return Err(Undecided::Missing(missing));
    }
    let mut change = Change::new(Vec::new(), Reply::Erasing(*erasure));
    let mut unread = Unread::default();
    let before = found.record::<Event>(step.first - 1).ok().flatten();
    let mut at = before.map_or(state.created_at(), |record| record.at);
    for seq in step.seqs() {
        let record = match found.record::<Event>(seq) {
            Err(Undecided::Corrupt(error)) => {
                let emptied = unread.note(seq, error, found);
                let message = MessageId::new(at, state.id.address, seq);
                let event = Event::MessageDeleted { message };
                change.redactions.extend(emptied.then_some(Record { seq, at, trace: None, event }));
                change.rows.push(RowWrite::delete(OVERLAYS, number_key(seq)));
                change.rows.extend(unshow(seq, found)?);
                continue;
            }
            record => record?,
        };
        let Some(record) = record else { continue };
        at = record.at;
        let silent = record.event.without_words(Gone::Erased);
        let nameless = without_names(silent.as_ref().unwrap_or(&record.event), state, moment);
        let Some(event) = nameless.or(silent) else { continue };
        let record = Record { event, ..record };
        take_overlay(&record, moment, found, &mut change)?;
        change.redactions.push(record);
    }
    unread.tell(moment.entity);
    let Some((next, stay)) = unread.moved(step, erasure.last, (erasure.next, erasure.stay)) else {
        return Ok(Decision::Answer(change.reply));
    };
    change.reply = Reply::Erasing(Erasure { next, stay, ..*erasure });
    change.events.push(Event::ErasureMoved { next, stay });
    Ok(Decision::Change(change))
}

/// The same without the owner, and with the contact's id where a sender was named by the contact's identifier. `None`
/// if it has neither.
fn without_names(event: &Event, state: &State, moment: &DecisionContext) -> Option<Event> {
    let mut nameless = event.clone();
    match &mut nameless {
        Event::MessageCreated(accepted) => {
            accepted.owner = None;
            if let Origin::Api { contact, .. } = &state.origin {
                let named = entity_of(moment.entity.workspace, &normalize_identifier(&accepted.content.sender.id));
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

/// Erases the words of a message's edits and answers, which are in a row of their own.
fn take_overlay(
    record: &Record<Event>,
    moment: &DecisionContext,
    found: &ReadSet,
    change: &mut Change<Conversation>,
) -> Result<(), Undecided> {
    let Some(message) = super::message_of(record) else { return Ok(()) };
    change.rows.extend(unshow(record.seq, found)?);
    let after = match overlay_of(record.seq, found) {
        // Whether its review has ended is unknown. If it has not, its deadline ends it.
        Err(Undecided::Corrupt(_)) => Overlay::default().without_words(Gone::Erased),
        overlay => {
            let mut after = overlay?;
            end_review(message.id, &mut after, moment, found, change)?;
            after
        }
    };
    if after != Overlay::default() {
        let value = codec::encode(&after.without_words(Gone::Erased));
        change.rows.push(RowWrite::put(OVERLAYS, number_key(record.seq), value));
    }
    Ok(())
}

/// Begins the erasure: closes the conversation and ends its turns. The rows of their open calls are removed with them.
fn begin(state: &State, moment: &DecisionContext, found: &ReadSet) -> Result<Change<Conversation>, Undecided> {
    let erasure = Erasure::begun(moment.now, moment.next_seq - 1);
    let mut change = Change::new(vec![Event::ConversationErased], Reply::Erasing(erasure));
    change.rows.push(RowWrite::delete(DETAILS, Bytes::new()));
    // From here on it is closed and has no owner.
    let erased = State { owner: None, closed: true, ..state.clone() };
    for turn in state.running.iter().chain(&state.queued) {
        let moment = DecisionContext { next_seq: Event::next_seq(moment, &change.events), ..*moment };
        let cancelled = turn::end_as(&erased, turn, Turn::cancelled, &moment, found, &mut change)?;
        change.rows.push(cancelled.row());
        change.events.push(Event::TurnCancelled(cancelled));
    }
    if !state.closed {
        change.events.push(Event::ConversationClosed);
    }
    Ok(change)
}

/// Begins an unused conversation as a closed one, so that it is never used.
pub(super) fn close_unused(opening: &Opening, moment: &DecisionContext) -> Change<Conversation> {
    let (created, rows, views) = post::begin(opening, None);
    let erasure = Erasure::begun(moment.now, moment.next_seq);
    let events = vec![created, Event::ConversationErased, Event::ConversationClosed];
    Change { rows, views, ..Change::new(events, Reply::Erasing(erasure)) }
}
