//! Decisions about memories: adding, changing, removing.

use bytes::Bytes;

use super::extract::{Fact, leaves};
use super::{Event, Memories, Memory, Rejection, Reply, State, Subject, Vector, slot_key, slot_row};
use crate::codec;
use crate::conversation::number_key;
use crate::id::{ContactId, MemoryId, MessageId};
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Undecided};
use crate::store::{RowWrite, StoreError};
use crate::tables::{MEMORIES, SLOTS, VECTORS};

/// Memories that one commit forgets: three small rows each.
pub(super) const FORGOTTEN_PER_COMMIT: usize = 256;

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Remember this, replacing the memory on the same topic.
    Keep(Fact),
    /// Give the memory with this number this text.
    Change(u64, String),
    /// Forget the memory with this number.
    Drop(u64),
}

/// Memories are to be created, changed and forgotten.
#[derive(Clone, Debug)]
pub struct Remember {
    /// The contact or owner that the memories are about.
    pub subject: Subject,
    /// The edits, in the order in which they apply.
    pub edits: Vec<Edit>,
    /// The message that they come from.
    pub source: Option<MessageId>,
}

/// All memories are to be forgotten, some at a time; repeat until none is left.
#[derive(Clone, Debug)]
pub struct ForgetAll {
    /// The contact or owner that the memories are about.
    pub subject: Subject,
    /// Whether new memories are barred from then on.
    pub for_good: bool,
}

impl Edit {
    /// Remembers a text verbatim; the same text again is the same memory.
    #[must_use]
    pub fn text_as_it_is(text: &str) -> Self {
        let slot = format!("text:{}", text.trim().to_lowercase());
        Self::Keep(Fact { text: text.trim().to_owned(), slot })
    }

    pub(super) fn need(&self) -> Need {
        match self {
            Self::Keep(fact) => Need::Row(SLOTS, slot_row(slot_key(&fact.slot))),
            Self::Change(number, _) | Self::Drop(number) => Need::Row(MEMORIES, number_key(*number)),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Keep(fact) => &fact.text,
            Self::Change(_, text) => text,
            Self::Drop(_) => "",
        }
    }
}

/// The outcome of one edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is a new memory.
    Created(Memory),
    /// This memory has another text now.
    Updated(Memory),
    /// This memory existed, and is not changed.
    Known(Memory),
    /// The memory with this number is forgotten, or did not exist.
    Forgotten(u64),
}

impl Outcome {
    /// The memory, if there is one.
    #[must_use]
    pub fn memory(&self) -> Option<&Memory> {
        match self {
            Self::Created(memory) | Self::Updated(memory) | Self::Known(memory) => Some(memory),
            Self::Forgotten(_) => None,
        }
    }

    /// The number of its memory.
    fn number(&self) -> u64 {
        match self {
            Self::Created(memory) | Self::Updated(memory) | Self::Known(memory) => memory.id.number,
            Self::Forgotten(number) => *number,
        }
    }
}

/// The read of rows to forget.
pub(super) fn all_need() -> Need {
    Need::First(MEMORIES, FORGOTTEN_PER_COMMIT)
}

/// The contact of a subject, if it is one.
fn contact(subject: &Subject) -> Option<ContactId> {
    match subject {
        Subject::Contact(contact) => Some(*contact),
        Subject::Owner(_) => None,
    }
}

/// Whether memories of `subject` may be stored here. An erased contact may begin another life at the same address;
/// memories drawn late from the life before belong to no subject.
fn admit(state: Option<&State>, subject: &Subject) -> Result<(), Rejection> {
    let Some(state) = state else { return Ok(()) };
    if state.subject == *subject {
        return if state.erased { Err(Rejection::NotFound) } else { Ok(()) };
    }
    match (contact(&state.subject), contact(subject)) {
        (Some(before), Some(now)) if now.at > before.at && state.count == 0 => Ok(()),
        (Some(before), Some(now)) if now.at > before.at => Err(Rejection::Busy),
        _ => Err(Rejection::NotFound),
    }
}

fn stored(number: u64, reads: &ReadSet) -> Result<Option<Memory>, Undecided> {
    reads.stored(MEMORIES, number_key(number))
}

/// The number of the memory with this slot.
fn number_in_slot(slot: [u8; 16], reads: &ReadSet) -> Result<Option<u64>, Undecided> {
    let Some(row) = reads.row(SLOTS, slot_row(slot))? else { return Ok(None) };
    let number = row.as_ref().try_into().map_err(|_| StoreError::Corrupt("a slot names no memory".into()))?;
    Ok(Some(u64::from_be_bytes(number)))
}

/// The writes that remove a memory.
fn deletes(memory: &Memory) -> [RowWrite; 3] {
    let [itself, vector] = deletes_by_number(number_key(memory.id.number));
    [itself, vector, RowWrite::delete(SLOTS, slot_row(memory.slot))]
}

/// The writes that remove the rows with a memory's number.
fn deletes_by_number(number: Bytes) -> [RowWrite; 2] {
    [RowWrite::delete(MEMORIES, number.clone()), RowWrite::delete(VECTORS, number)]
}

/// Removes a row that cannot be read. Elsewhere such a row is an error; but forgetting all memories, by request or by
/// an erasure, must remove it, because it would keep the subject's text. The slots say which slot it has.
fn deletes_of_unreadable(number: &Bytes, reads: &ReadSet) -> Result<Vec<RowWrite>, Undecided> {
    let slots = reads.first(SLOTS, limits::MEMORIES)?;
    let slots = slots.into_iter().filter(|(_, of)| *of == number);
    let slots = slots.map(|(slot, _)| RowWrite::delete(SLOTS, slot.clone()));
    Ok(deletes_by_number(number.clone()).into_iter().chain(slots).collect())
}

fn put(memory: &Memory) -> [RowWrite; 2] {
    let key = number_key(memory.id.number);
    [RowWrite::put(SLOTS, slot_row(memory.slot), key.clone()), RowWrite::put(MEMORIES, key, codec::encode(memory))]
}

/// Whether one message is earlier than another.
fn is_earlier(one: Option<MessageId>, other: Option<MessageId>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    one.at < other.at || (one.entity == other.entity && one.number < other.number)
}

/// Whether a memory was created from this message, and this command has not reported that yet. A second attempt, after
/// an unknown outcome, finds its own work this way, even if later messages have changed it since.
fn is_maker(memory: &Memory, source: Option<MessageId>, outcomes: &[Outcome]) -> bool {
    let is_reported = |outcome: &Outcome| matches!(outcome, Outcome::Created(made) if made.id == memory.id);
    source.is_some() && memory.first == source && !outcomes.iter().any(is_reported)
}

/// The memory of an edit, if there is one, and its slot. Rows do not show the changes by earlier edits of the same
/// command.
fn known(edit: &Edit, outcomes: &[Outcome], reads: &ReadSet) -> Result<(Option<Memory>, [u8; 16]), Undecided> {
    let slot = match edit {
        Edit::Keep(fact) => slot_key(&fact.slot),
        Edit::Change(number, _) | Edit::Drop(number) => {
            let is_forgotten = outcomes.contains(&Outcome::Forgotten(*number));
            let known = if is_forgotten { None } else { stored(*number, reads)? };
            let slot = known.as_ref().map(|memory| memory.slot).unwrap_or_default();
            return Ok((known, slot));
        }
    };
    if let Some(made) = outcomes.iter().rev().filter_map(Outcome::memory).find(|memory| memory.slot == slot) {
        return Ok((Some(made.clone()), slot));
    }
    let number = number_in_slot(slot, reads)?.filter(|number| !outcomes.contains(&Outcome::Forgotten(*number)));
    Ok((number.map(|number| stored(number, reads)).transpose()?.flatten(), slot))
}

/// The result of an edit.
enum Judged {
    /// Nothing changes.
    Unchanged(Outcome),
    /// This is forgotten.
    Forgotten(Memory),
    /// This has another text.
    Changed(Memory),
    /// There is no memory on this topic.
    New,
}

fn judge(
    edit: &Edit,
    known: Option<Memory>,
    source: Option<MessageId>,
    outcomes: &[Outcome],
    context: &DecisionContext,
) -> Judged {
    match (edit, known) {
        (Edit::Drop(_), Some(memory)) => Judged::Forgotten(memory),
        // It was forgotten meanwhile.
        (Edit::Drop(number) | Edit::Change(number, _), None) => Judged::Unchanged(Outcome::Forgotten(*number)),
        (edit, Some(memory)) if memory.text == edit.text() => {
            let is_source = source.is_some() && memory.source == source;
            Judged::Unchanged(match (is_maker(&memory, source, outcomes), is_source) {
                (true, _) => Outcome::Created(memory),
                (false, true) => Outcome::Updated(memory),
                (false, false) => Outcome::Known(memory),
            })
        }
        // It is older than the stored memory, and arrives late; or it does not contradict it.
        (Edit::Keep(fact), Some(memory)) if is_earlier(source, memory.source) || leaves(&fact.text, &memory.text) => {
            let made = is_maker(&memory, source, outcomes);
            Judged::Unchanged(if made { Outcome::Created(memory) } else { Outcome::Known(memory) })
        }
        (edit, Some(memory)) => {
            let text = edit.text().to_owned();
            let source = source.or(memory.source);
            Judged::Changed(Memory { text, source, updated_at: Some(context.now), ..memory })
        }
        (Edit::Keep(_), None) => Judged::New,
    }
}

pub(super) fn remember(
    state: Option<&State>,
    (subject, edits, source): (&Subject, &[Edit], Option<MessageId>),
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Decision<Memories>, Undecided> {
    if let Err(rejection) = admit(state, subject) {
        return Ok(Decision::Reject(rejection));
    }
    let (mut last, mut count) = state.map_or((0, 0), |state| (state.last, state.count));
    let mut change = Change::new(Vec::new(), Reply::Remembered(Vec::new()));
    let mut outcomes = Vec::with_capacity(edits.len());
    for edit in edits {
        let (known, slot) = known(edit, &outcomes, reads)?;
        let memory = match judge(edit, known, source, &outcomes, context) {
            Judged::Unchanged(outcome) => {
                outcomes.push(outcome);
                continue;
            }
            Judged::Forgotten(memory) => {
                let number = memory.id.number;
                change.rows.extend(deletes(&memory));
                change.events.push(Event::Forgotten { number });
                count = count.saturating_sub(1);
                outcomes.push(Outcome::Forgotten(number));
                continue;
            }
            Judged::Changed(memory) => memory,
            Judged::New => {
                (last, count) = (last + 1, count + 1);
                let id = MemoryId::new(context.now, context.entity.id, last);
                Memory { id, text: edit.text().to_owned(), source, updated_at: None, slot, first: source }
            }
        };
        change.rows.extend(put(&memory));
        let created = memory.updated_at.is_none();
        change.events.push(Event::Remembered { subject: subject.clone(), number: memory.id.number, created });
        let made = created || is_maker(&memory, source, &outcomes);
        outcomes.push(if made { Outcome::Created(memory) } else { Outcome::Updated(memory) });
    }
    make_room(count, &outcomes, reads, &mut change)?;
    change.reply = Reply::Remembered(outcomes);
    Ok(if change.events.is_empty() { Decision::Answer(change.reply) } else { Decision::Change(change) })
}

/// Removes the oldest memories if there are too many.
fn make_room(
    count: u64,
    outcomes: &[Outcome],
    reads: &ReadSet,
    change: &mut Change<Memories>,
) -> Result<(), Undecided> {
    let surplus = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(limits::MEMORIES);
    if surplus == 0 {
        return Ok(());
    }
    let touched: Vec<u64> = outcomes.iter().map(Outcome::number).collect();
    let oldest = reads.first(MEMORIES, surplus + outcomes.len())?;
    let memories =
        oldest.into_iter().map(|(_, bytes)| codec::decode::<Memory>(bytes)).collect::<Result<Vec<_>, _>>()?;
    for memory in memories.iter().filter(|memory| !touched.contains(&memory.id.number)).take(surplus) {
        change.rows.extend(deletes(memory));
        change.events.push(Event::Forgotten { number: memory.id.number });
    }
    Ok(())
}

pub(super) fn forget(id: MemoryId, reads: &ReadSet) -> Result<Decision<Memories>, Undecided> {
    let Some(memory) = stored(id.number, reads)?.filter(|memory| memory.id == id) else {
        return Ok(Decision::Reject(Rejection::NotFound));
    };
    let event = Event::Forgotten { number: id.number };
    let rows = deletes(&memory).into();
    Ok(Decision::Change(Change { rows, erases: true, ..Change::new(vec![event], Reply::Left(0)) }))
}

pub(super) fn forget_all(
    state: Option<&State>,
    subject: &Subject,
    for_good: bool,
    reads: &ReadSet,
) -> Result<Decision<Memories>, Undecided> {
    // An erased subject's memories are still here: they must be removed first.
    let former = state.filter(|state| admit(Some(state), subject) == Err(Rejection::Busy));
    let mine = state.filter(|state| state.subject == *subject);
    let (whose, count) = match (former, mine) {
        (Some(state), _) | (None, Some(state)) => (&state.subject, state.count),
        (None, None) if admit(state, subject).is_err() => return Ok(Decision::Answer(Reply::Left(0))),
        (None, None) => (subject, 0),
    };
    let for_good = for_good || former.is_some();
    if count == 0 && (!for_good || mine.is_some_and(|state| state.erased)) {
        return Ok(Decision::Answer(Reply::Left(0)));
    }
    let mut rows = Vec::new();
    let mut forgotten = 0;
    if count > 0 {
        match reads.first(MEMORIES, FORGOTTEN_PER_COMMIT) {
            // Which one is damaged is unknown; the slots have the numbers of all.
            Err(Undecided::Corrupt(_)) => {
                for (slot, number) in reads.first(SLOTS, FORGOTTEN_PER_COMMIT)? {
                    forgotten += 1;
                    rows.extend(deletes_by_number(number.clone()));
                    rows.push(RowWrite::delete(SLOTS, slot.clone()));
                }
            }
            memories => {
                for (number, bytes) in memories? {
                    forgotten += 1;
                    match codec::decode::<Memory>(bytes) {
                        Ok(memory) => rows.extend(deletes(&memory)),
                        Err(_) => rows.extend(deletes_of_unreadable(number, reads)?),
                    }
                }
            }
        }
    }
    // If there are no rows, there are no memories, whatever the count.
    let left = if forgotten == 0 { 0 } else { count.saturating_sub(forgotten) };
    let event = Event::ManyForgotten { subject: whose.clone(), left, for_good };
    let reply = Reply::Left(if former.is_some() { left.max(1) } else { left });
    Ok(Decision::Change(Change { rows, erases: true, ..Change::new(vec![event], reply) }))
}

pub(super) fn learn(learned: &[(MemoryId, Vector)], reads: &ReadSet) -> Result<Decision<Memories>, Undecided> {
    let mut rows = Vec::new();
    for (id, vector) in learned {
        if stored(id.number, reads)?.is_some_and(|memory| memory.id == *id && memory.at() == vector.of) {
            rows.push(RowWrite::put(VECTORS, number_key(id.number), codec::encode(vector)));
        }
    }
    if rows.is_empty() {
        return Ok(Decision::Answer(Reply::Left(0)));
    }
    Ok(Decision::Change(Change { rows, ..Change::new(Vec::new(), Reply::Left(0)) }))
}
