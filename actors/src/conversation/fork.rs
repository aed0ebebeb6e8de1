//! A conversation that begins as a copy of another one: the progress of the copy. [`fork`](crate::workflows::fork) does
//! the copying.
//!
//! The copies are new messages, in the order of the originals, with their threads among the copies. While they are
//! being made the conversation accepts no other message, so later messages come after all copies.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::keys::{id_key, parse_id_key};
use super::writing::{Decided, Writing};
use super::{Accepted, Event, Opening, Rejection, Reply, State, attach, number_key, post};
use crate::clock::Millis;
use crate::id::{ContactId, ConversationId, MessageId};
use crate::machine::{Decision, Need, ReadSet, Undecided};
use crate::message::{Content, Message, Overlay};
use crate::store::RowWrite;
use crate::tables::{BARRED, COPIES};
use crate::tasks::backoff::pause;

/// How long after its last step a copy is checked, and resumed if its process has ended.
const COPY_CHECK_DELAY_MILLIS: u64 = 10_000;
/// The longest pause between two checks.
const MAX_COPY_CHECK_DELAY_MILLIS: u64 = 600_000;

/// The conversation that is copied, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forked {
    /// The source conversation.
    #[n(0)]
    pub source: ConversationId,
    /// The last event of it that is copied.
    #[n(1)]
    pub upto: u64,
}

/// A conversation is to begin as a copy of another one.
#[derive(Clone, Debug)]
pub struct Forking {
    /// The opening of the copy.
    pub opening: Opening,
    /// The source, and how much of it is copied.
    pub of: Forked,
}

/// The progress of the copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    /// The source, and how much of it is copied.
    #[n(0)]
    pub of: Forked,
    /// The first event of the source that was not read yet; `None`: all were.
    #[n(1)]
    pub next: Option<u64>,
    /// How many messages were copied.
    #[n(2)]
    pub copied: u64,
    /// The time of the newest copy or, before the first one, of the beginning: when the conversation was last updated.
    #[n(3)]
    pub at: Millis,
    /// When it is checked again.
    #[n(4)]
    pub check_at: Millis,
    /// How often it was resumed since its last progress.
    #[n(5)]
    pub put_off: u32,
}

impl Fork {
    pub(super) fn begun(of: Forked, at: Millis) -> Self {
        let next = Some(1).filter(|_| of.upto > 0);
        Self { of, next, copied: 0, at, check_at: at.plus(COPY_CHECK_DELAY_MILLIS), put_off: 0 }
    }

    /// When the alarm is needed.
    pub(super) fn alarm(&self) -> Option<Millis> {
        self.next.map(|_| self.check_at)
    }
}

/// A message of the source, to be copied.
#[derive(Clone, Debug)]
pub struct Original {
    /// Its sequence in the source.
    pub number: u64,
    /// The sequence of its parent in the source.
    pub parent: Option<u64>,
    /// The copy's content. `None`: the original has no content any more and is skipped; in a tree, one without a parent
    /// is kept without text.
    pub content: Option<Arc<Content>>,
}

/// The next part of a copy.
#[derive(Clone, Debug)]
pub struct Copying {
    /// The first event of the source in this part.
    pub from: u64,
    /// The first event after this part; `None`: it is the last one.
    pub next: Option<u64>,
    /// The messages among them.
    pub originals: Vec<Original>,
}

impl Copying {
    /// The sequences of parents' copies made before.
    pub(super) fn needs(&self) -> Vec<Need> {
        let parents = self.originals.iter().filter_map(|original| original.parent);
        parents.filter(|parent| *parent < self.from).map(|parent| Need::Row(COPIES, number_key(parent))).collect()
    }

    pub(super) fn weight(&self) -> usize {
        self.originals.iter().map(|original| original.content.as_ref().map_or(100, |content| content.weight())).sum()
    }

    /// The parent of this message's copy.
    fn parent_of(
        &self,
        original: &Original,
        copies: &HashMap<u64, MessageId>,
        reads: &ReadSet,
    ) -> Result<Option<MessageId>, Undecided> {
        Ok(match original.parent {
            None => None,
            Some(parent) if parent >= self.from => copies.get(&parent).copied(),
            Some(parent) => reads.row(COPIES, number_key(parent))?.and_then(|key| parse_id_key(key)),
        })
    }
}

/// Appends the next copies, unless another process has.
pub(super) fn copy(state: &State, copying: &Copying, mut writing: Writing<'_>) -> Decided {
    let Some(fork) = state.fork.filter(|fork| fork.next == Some(copying.from)) else {
        return Err(Rejection::Changed.into());
    };
    if state.erasure.is_some() {
        return Err(Rejection::Erased.into());
    }
    let mut copies: HashMap<u64, MessageId> = HashMap::new();
    let mut copied = fork.copied;
    for original in &copying.originals {
        let parent = copying.parent_of(original, &copies, writing.reads)?;
        // A child of a skipped message gets that message's parent.
        let place = match &original.content {
            None => parent,
            Some(content) => {
                copied += 1;
                Some(append(state, parent, content, &mut writing))
            }
        };
        if let Some(place) = place {
            copies.insert(original.number, place);
            writing.row(RowWrite::put(COPIES, number_key(original.number), id_key(place)));
        }
    }
    let at = if copied > fork.copied { writing.context.now } else { fork.at };
    let check_at = writing.context.now.plus(COPY_CHECK_DELAY_MILLIS);
    writing.event(Event::ForkMoved(Fork { next: copying.next, copied, at, check_at, put_off: 0, ..fork }));
    Ok(writing.done(Reply::Nothing))
}

/// Appends a copy.
fn append(state: &State, parent: Option<MessageId>, content: &Arc<Content>, writing: &mut Writing<'_>) -> MessageId {
    let id = MessageId::new(writing.context.now, state.id.address, writing.next_seq());
    let conversation = state.id;
    let owner = state.owner.clone();
    let content = Arc::clone(content);
    let message = Message { id, conversation, owner, parent, turn: None, content };
    writing.extend(attach::mentions(&message));
    if let Some(removal) = message.content.removal {
        writing.overlay(id.number, &Overlay::default().redacted(removal));
    }
    let Message { content, owner, .. } = message;
    writing.event(Event::MessageCreated(Accepted { conversation, content, parent, owner, turn: None }));
    id
}

fn barred_key(contact: ContactId) -> Bytes {
    Bytes::copy_from_slice(&contact.address.0)
}

/// The read that decides whether copies with a contact may begin here.
pub(super) fn barred_need(contact: ContactId) -> Need {
    Need::Row(BARRED, barred_key(contact))
}

/// The reads that a copy's beginning needs.
pub(super) fn needs(opening: &Opening) -> Vec<Need> {
    opening.origin.contact().map(barred_need).into_iter().collect()
}

/// Whether copies with this contact are barred here.
fn is_barred(contact: ContactId, reads: &ReadSet) -> Result<bool, Undecided> {
    let barred = reads.stored::<Millis>(BARRED, barred_key(contact))?;
    Ok(barred.is_some_and(|barred| barred >= contact.at))
}

/// Begins as a copy, unless a conversation exists here, or the contact was erased meanwhile.
pub(super) fn begin(state: Option<&State>, forking: &Forking, writing: Writing<'_>) -> Decided {
    let Forking { opening, of } = forking;
    match opening.origin.contact() {
        Some(contact) if state.is_none() && is_barred(contact, writing.reads)? => Err(Rejection::Erased.into()),
        _ => post::open(state, opening, Some(*of), writing),
    }
}

/// Bars copies with this contact here. Nothing else begins either: this is the home of an idempotency key, and a
/// conversation here would mean that the key has had its effect.
pub(super) fn bar(contact: ContactId, mut writing: Writing<'_>) -> Decided {
    if is_barred(contact, writing.reads)? {
        return Ok(Decision::Answer(Reply::Nothing));
    }
    writing.put(BARRED, barred_key(contact), &contact.at);
    Ok(writing.done(Reply::Nothing))
}

/// A due check: resumes the copying, and checks again later.
pub(super) fn recheck(state: &State, writing: &mut Writing<'_>) {
    let now = writing.context.now;
    let Some(fork) = state.fork.filter(|fork| fork.next.is_some() && fork.check_at <= now) else { return };
    let after = pause(COPY_CHECK_DELAY_MILLIS, fork.put_off, MAX_COPY_CHECK_DELAY_MILLIS);
    writing.event(Event::ForkMoved(match &state.erasure {
        Some(_) => Fork { next: None, ..fork },
        None => Fork { check_at: now.plus(after), put_off: fork.put_off + 1, ..fork },
    }));
}
