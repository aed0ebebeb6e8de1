//! Changes of an accepted message: edited, deleted, delivered, read.
//!
//! An edit keeps the record of the message's acceptance: an overlay row holds the changed values. A deletion also
//! removes the content from that record.

use bytes::Bytes;

use super::post::is_message;
use super::review::{self, at_present, requested_review};
use super::writing::{Decided, Writing};
use super::{Event, Rejection, Reply, State, message_of, number_key};
use crate::id::MessageId;
use crate::limits;
use crate::machine::{Decision, Need, ReadSet, Record, Undecided};
use crate::message::{Content, Json, Overlay, Removal, ReviewStatus, text_weight};
use crate::patch::Patch;
use crate::store::{KeyHash, RowWrite};
use crate::tables::{OVERLAYS, REPLAYS};

/// The row key of the overlay that the answer to a request with this idempotency key contained, of the message with
/// this sequence.
#[must_use]
pub(crate) fn replay_key(seq: u64, key: KeyHash) -> Bytes {
    [&seq.to_be_bytes()[..], &key.0].concat().into()
}

/// The reads of the message with this sequence, and of its overlay.
pub(super) fn message_needs(seq: u64) -> [Need; 2] {
    [Need::Event(seq), Need::Row(OVERLAYS, number_key(seq))]
}

/// The reads that a command about one message needs.
pub(super) fn needs_of(state: Option<&State>, message: MessageId) -> Vec<Need> {
    let known = state.is_some_and(|state| state.reaches(message));
    known.then(|| message_needs(message.number)).into_iter().flatten().collect()
}

/// The overlay of the message with this sequence.
pub(super) fn overlay_of(seq: u64, reads: &ReadSet) -> Result<Overlay, Undecided> {
    Ok(reads.stored(OVERLAYS, number_key(seq))?.unwrap_or_default())
}

/// New values of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The change of the text.
    pub text: Patch<String>,
    /// The new metadata, an object of the client's own; `None`: unchanged.
    pub metadata: Option<Json>,
    /// The change of the tags.
    pub tags: Patch<Vec<String>>,
    /// The overlay that the client saw; the edit is refused if it has changed.
    pub seen: Option<Box<Overlay>>,
}

/// The receipt of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It has arrived.
    Delivered,
    /// It was read.
    Read,
}

/// A change of a message.
#[derive(Clone, Debug)]
pub enum Amendment {
    /// Give it new content.
    Edit(Edit),
    /// Remove its content; its sequence is kept.
    Delete {
        /// The overlay that the client saw; the message is kept if it has changed.
        seen: Option<Box<Overlay>>,
    },
    /// Note its receipt.
    Acknowledge(Receipt),
}

/// A message is to be edited or deleted, or its receipt noted.
#[derive(Clone, Debug)]
pub struct Amend {
    /// The message.
    pub message: MessageId,
    /// The change.
    pub amendment: Amendment,
}

impl Amendment {
    /// The overlay that the client saw, if it allows only that one to be changed.
    fn seen(&self) -> Option<&Overlay> {
        match self {
            Self::Edit(Edit { seen, .. }) | Self::Delete { seen } => seen.as_deref(),
            Self::Acknowledge(_) => None,
        }
    }

    /// About how many bytes it adds to a commit.
    pub(super) fn weight(&self) -> usize {
        let Self::Edit(edit) = self else { return limits::COMMAND_BYTES };
        let tags = edit.tags.as_ref().new_value().map(Vec::as_slice);
        let text = edit.text.as_ref().new_value().map(String::as_str);
        limits::COMMAND_BYTES + text_weight(text, edit.metadata.as_ref(), tags)
    }
}

/// Whether two overlays have the same tag for clients. The tag covers the message's content, and on a human channel
/// also its labels.
fn same_tag(state: &State, one: &Overlay, other: &Overlay) -> bool {
    one.text == other.text && (state.origin.human_channel().is_none() || one.labels() == other.labels())
}

/// Changes a message, unless it is deleted, or differs from what the client saw.
pub(super) fn amend(state: &State, amend: &Amend, mut writing: Writing<'_>) -> Decided {
    let &Amend { message, ref amendment } = amend;
    let context = writing.context;
    let reads = writing.reads;
    if !is_message(Some(state), message, reads)? {
        return Err(Rejection::MessageNotFound.into());
    }
    let before = overlay_of(message.number, reads)?;
    if before.deleted || before.erased || state.erasure.is_some() {
        return match amendment {
            Amendment::Delete { .. } => Ok(Decision::Answer(Reply::Amended(Box::new(before)))),
            Amendment::Edit(_) | Amendment::Acknowledge(_) => Err(Rejection::MessageDeleted.into()),
        };
    }
    if amendment.seen().is_some_and(|seen| !same_tag(state, seen, &before)) {
        return Err(Rejection::MessageChanged.into());
    }
    let mut after = before;
    match amendment {
        Amendment::Edit(new) => {
            if let Some(accepted) = reads.record(message.number)?.as_ref().and_then(message_of) {
                edit(state, new, (message, &accepted.content), &mut after, &mut writing);
            }
        }
        Amendment::Delete { .. } => delete(message, &mut after, &mut writing)?,
        Amendment::Acknowledge(receipt) => acknowledge(*receipt, message, &mut after, &mut writing),
    }
    // If nothing changes, the answer is still stored for the idempotency key, but no overlay is written.
    if !writing.events().is_empty() {
        writing.overlay(message.number, &after);
    }
    // The answer to a retry must not contain a later end of the review.
    let requested = requested_review(message.number, reads)?;
    let answered = at_present(requested.as_ref().map(|requested| &requested.review), after, context.now);
    store_replay(message.number, &answered, &mut writing);
    Ok(writing.done(Reply::Amended(Box::new(answered))))
}

/// The members that an edit may change, as clients see them.
#[derive(PartialEq)]
struct Shown<'a> {
    text: Option<&'a str>,
    metadata: Option<&'a str>,
    tags: Option<&'a [String]>,
}

impl<'a> Shown<'a> {
    /// Those of a message with this content. A human channel's message shows only the members that it has; every other
    /// one shows a text and metadata, empty ones if need be.
    fn of(state: &State, content: &'a Content, overlay: &'a Overlay) -> Self {
        let text = overlay.text_of(content);
        let metadata = overlay.metadata.as_ref().or(content.metadata.as_ref()).map(Json::as_str);
        let tags = overlay.tags_of(content);
        match state.origin.human_channel() {
            Some(_) => Self { text, metadata, tags },
            None => Self { text: text.or(Some("")), metadata: metadata.or(Some("{}")), tags },
        }
    }
}

/// Applies the new values. If the message shows them already, nothing changes.
fn edit(
    state: &State,
    edit: &Edit,
    (message, content): (MessageId, &Content),
    after: &mut Overlay,
    writing: &mut Writing<'_>,
) {
    let mut edited = after.clone();
    if edit.text != Patch::Keep {
        edited.textless = (edit.text == Patch::Clear).then_some(true);
        edited.text = Some(edit.text.clone().new_value().unwrap_or_default());
    }
    edited.metadata = edit.metadata.clone().or(edited.metadata.take());
    if edit.tags != Patch::Keep {
        edited.untagged = (edit.tags == Patch::Clear).then_some(true);
        edited.tags = edit.tags.clone().new_value();
    }
    if Shown::of(state, content, &edited) != Shown::of(state, content, after) {
        *after = Overlay { updated_at: Some(writing.context.now), ..edited };
        writing.event(Event::MessageUpdated { message });
    }
}

/// Removes its content from the log, and the answer to its review.
fn delete(message: MessageId, after: &mut Overlay, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let answered = after.review_end;
    end_review(message, after, writing)?;
    let updated_at = Some(writing.context.now);
    *after = Overlay { updated_at, ..std::mem::take(after).redacted(Removal::Deleted) };
    drop_replays(message.number, writing)?;
    redact(message.number, writing)?;
    if let Some(end) = answered {
        redact(end, writing)?;
    }
    writing.event(Event::MessageDeleted { message });
    Ok(())
}

/// Acknowledging twice changes nothing, and a message that was read has been delivered.
fn acknowledge(receipt: Receipt, message: MessageId, after: &mut Overlay, writing: &mut Writing<'_>) {
    let now = writing.context.now;
    match receipt {
        Receipt::Delivered if after.delivered_at.is_none() && after.read_at.is_none() => {
            after.delivered_at = Some(now);
            writing.event(Event::MessageDelivered { message });
        }
        Receipt::Read if after.read_at.is_none() => {
            after.delivered_at.get_or_insert(now);
            after.read_at = Some(now);
            writing.event(Event::MessageRead { message });
        }
        Receipt::Delivered | Receipt::Read => {}
    }
}

/// Deletes the stored answers about the message: a retry is then answered with the current message.
pub(super) fn drop_replays(seq: u64, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let keys = writing.reads.under(REPLAYS, &number_key(seq))?;
    writing.extend(keys.into_iter().map(|key| RowWrite::delete(REPLAYS, key.clone())));
    Ok(())
}

/// Removes the content of the event with this sequence, if it has any.
fn redact(seq: u64, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    if let Some(record) = writing.reads.record::<Event>(seq)?
        && let Some(event) = record.event.redacted(Removal::Deleted)
    {
        writing.redact(Record { event, ..record });
    }
    Ok(())
}

/// Stores the answer for a retry of a request that came with an idempotency key.
pub(super) fn store_replay(seq: u64, overlay: &Overlay, writing: &mut Writing<'_>) {
    if let Some(key) = writing.context.key {
        writing.put(REPLAYS, replay_key(seq, key), overlay);
    }
}

/// Ends the review of a deleted message. If its deadline has passed unannounced, it is announced as expired now,
/// because the message that the announcement needs is about to be removed.
pub(super) fn end_review(message: MessageId, after: &mut Overlay, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let Some(requested) = requested_review(message.number, writing.reads)? else { return Ok(()) };
    if after.review.as_ref().is_some_and(|stored| stored.status != ReviewStatus::Pending) {
        return Ok(());
    }
    let now = writing.context.now;
    // The votes so far contain what people wrote.
    let current = requested.state_at(after, now).redacted();
    let state = if current.status == ReviewStatus::Pending { current.cancelled(now) } else { current };
    review::end(&requested, after, state, None, writing);
    Ok(())
}
