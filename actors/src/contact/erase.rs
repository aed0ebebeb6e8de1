//! Erasing a contact's identity.
//!
//! The first commit removes name and identifier from the state and the lists, and detaches the conversations: a later
//! message begins another life. Then the contact's own log is redacted in steps, as a conversation's is. This entity
//! cannot change the data of other entities: [`erasure`](crate::workflows::erasure) does, and reports here when it is
//! done. Until then the alarm restarts it, whatever process ends meanwhile.

use minicbor::{Decode, Encode};

use super::{Contact, Event, OpenConversation, Rejection, Reply, Saved, State, conversation_of, save};
use crate::clock::Millis;
use crate::conversation::{Details, Opening, Origin};
use crate::id::{ContactId, EntityKey};
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Record, Undecided};
use crate::store::SeqRange;
use crate::tasks::backoff::pause;
use crate::workflows::erasure::progress::{Progress, UnreadEvents};

/// How long after its last step an erasure is checked, and resumed if its process has ended.
const ERASURE_CHECK_DELAY_MILLIS: u64 = 5_000;
/// The longest pause between two checks.
const MAX_ERASURE_CHECK_DELAY_MILLIS: u64 = 600_000;

/// An erasure that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Erasing {
    /// The first event of the contact's own log that may still name it; `None`: none does.
    #[n(0)]
    pub next: Option<u64>,
    /// The last one that might: that of the erasure, whose commit took the name off the list.
    #[n(1)]
    pub last: u64,
    /// When it is checked again.
    #[n(2)]
    pub check_at: Millis,
    /// How often it was resumed.
    #[n(3)]
    pub put_off: u32,
    /// The erased contact.
    #[n(4)]
    pub id: ContactId,
    /// The first event of the contact's own log that was skipped because it could not be emptied: the erasure is not
    /// done before that event is.
    #[n(5)]
    pub first_unread: Option<u64>,
}

impl Erasing {
    pub(super) fn begun(id: ContactId, at: Millis, seq: u64) -> Self {
        Self {
            next: Some(1),
            last: seq,
            check_at: at.plus(ERASURE_CHECK_DELAY_MILLIS),
            put_off: 0,
            id,
            first_unread: None,
        }
    }

    /// How far the redaction of the contact's log has come.
    fn progress(&self) -> Progress {
        Progress { next: self.next, first_unread: self.first_unread }
    }

    /// The events of the next step.
    fn step(&self) -> Option<SeqRange> {
        self.progress().step(self.last)
    }

    /// The erasure after a step.
    fn advanced(self, Progress { next, first_unread }: Progress) -> Self {
        Self { next, first_unread, put_off: 0, ..self }
    }

    fn put_off(self, now: Millis) -> Self {
        let after = pause(ERASURE_CHECK_DELAY_MILLIS, self.put_off, MAX_ERASURE_CHECK_DELAY_MILLIS);
        Self { check_at: now.plus(after), put_off: self.put_off + 1, ..self }
    }
}

/// The steps of an erasure in the contact's own entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureStep {
    /// Redact some more of the contact's log.
    Log,
    /// Everything else is done.
    Done,
    /// Check it again later.
    PutOff,
}

/// The next step of an erasure. The reply is the contact's state then.
#[derive(Clone, Copy, Debug)]
pub struct AdvanceErasure(pub ContactId, pub ErasureStep);

impl ErasureStep {
    pub(super) fn needs(self, state: Option<&State>) -> Vec<Need> {
        let range = state.and_then(|state| state.erasing).and_then(|erasing| erasing.step());
        match (self, range) {
            (Self::Log, Some(range)) => range.seqs().map(Need::Event).collect(),
            _ => Vec::new(),
        }
    }
}

/// Erases the contact. If an erasure of the life before is not done, this one includes it: it redacts the log from its
/// beginning, and all ended conversations.
pub(super) fn erase(state: &State, context: &DecisionContext) -> Change<Contact> {
    let after = State {
        identifier: String::new(),
        name: None,
        updated_at: context.now,
        erased_at: Some(context.now),
        ..state.clone()
    };
    let reply = Reply::Contact(Saved { state: Box::new(after), created: false });
    let views = save::unlist(state);
    Change { views, ..Change::new(vec![Event::ContactErased], reply) }
}

/// This event without the contact's identity; `None` if neither it nor the list entries of its commit contain any. Those
/// are removed with a redaction, even if that changes nothing of the event.
fn redacted(event: &Event) -> Option<Event> {
    match event {
        Event::ContactCreated { id, identifier, .. } if !identifier.is_empty() => {
            Some(Event::ContactCreated { id: *id, identifier: String::new(), name: None })
        }
        Event::ContactUpdated { .. } => Some(Event::ContactUpdated { name: None }),
        Event::ContactErased => Some(Event::ContactErased),
        Event::ContactCreated { .. }
        | Event::ConversationAssigned(_)
        | Event::ErasureMoved(_)
        | Event::OutboxMoved { .. } => None,
    }
}

/// The redacted forms of these events, as far as they contain the identity; and which cannot be read.
fn redact_step(
    erasing: &Erasing,
    range: SeqRange,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<(Vec<Record<Event>>, UnreadEvents), Undecided> {
    let mut redactions = Vec::new();
    let mut unread = UnreadEvents::default();
    let mut at = erasing.id.at;
    for seq in range.seqs() {
        match reads.record::<Event>(seq) {
            Err(Undecided::Corrupt(error)) => {
                let event = Event::ContactUpdated { name: None };
                let emptied = unread.note(seq, error, reads);
                redactions.extend(emptied.then_some(Record { seq, at, trace: None, event }));
            }
            record => {
                let Some(record) = record? else { continue };
                at = record.at;
                redactions.extend(redacted(&record.event).map(|event| Record { event, ..record }));
            }
        }
    }
    unread.log(context.entity);
    Ok((redactions, unread))
}

/// Does one step, if this erasure is still in progress.
pub(super) fn advance(
    state: &State,
    (id, step): (ContactId, ErasureStep),
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Decision<Contact>, Undecided> {
    // Another process may have completed it.
    let Some(erasing) = state.erasing else { return Ok(Decision::Reject(Rejection::NotFound)) };
    if erasing.id != id {
        // A later erasure includes the rest of it.
        let reply = Reply::Contact(Saved { state: Box::new(state.clone()), created: false });
        return Ok(Decision::Answer(reply));
    }
    let mut redactions = Vec::new();
    let after = match (step, erasing.step()) {
        (ErasureStep::Log, Some(range)) => {
            let (found, unread) = redact_step(&erasing, range, context, reads)?;
            redactions = found;
            let progress = unread.advanced(range, erasing.last, erasing.progress());
            Some(progress.map_or(erasing, |progress| erasing.advanced(progress)))
        }
        (ErasureStep::PutOff, _) => Some(erasing.put_off(context.now)),
        (ErasureStep::Done, None) => None,
        // Its own log is redacted already, or not yet.
        (ErasureStep::Log, None) | (ErasureStep::Done, Some(_)) => Some(erasing),
    };
    let reply = Reply::Contact(Saved { state: Box::new(State { erasing: after, ..state.clone() }), created: false });
    if after == Some(erasing) {
        return Ok(Decision::Answer(reply));
    }
    Ok(Decision::Change(Change { redactions, ..Change::new(vec![Event::ErasureMoved(after)], reply) }))
}

impl State {
    /// Every conversation on the channels of this state that belongs to an erased contact; see
    /// [`State::erased_on`].
    pub(crate) fn erased_conversations(
        &self,
        contact: EntityKey,
    ) -> impl Iterator<Item = (EntityKey, Option<Opening>)> + '_ {
        self.open.iter().flat_map(move |open| self.erased_on(contact, open))
    }

    /// The conversations on one channel that belong to an erased contact, each with its opening if it may be assigned
    /// and unused; only the last one of a life can be.
    pub(crate) fn erased_on(
        &self,
        contact: EntityKey,
        open: &OpenConversation,
    ) -> impl Iterator<Item = (EntityKey, Option<Opening>)> + use<> {
        let id = self.erasing.map_or(self.id, |erasing| erasing.id);
        let open = open.clone();
        (1..open.first()).map(move |generation| {
            let newest = open.id_of(generation).filter(|_| generation + 1 == open.first());
            let unused = newest.map(|id_of_conversation| {
                let origin = Origin::Api { channel: open.channel.clone(), contact: id, agent: String::new() };
                Opening { id: id_of_conversation, origin, owner: None, details: Details::default() }
            });
            (conversation_of(contact, &open.channel, generation), unused)
        })
    }
}
