//! Erasing a contact: the steps outside of the contact's own entity.
//!
//! The order is: the contact itself (after that it cannot be found), the end of all its conversations (after that they
//! accept no message), their words, its memories, the contact's own log, and then the note that it is done. Each step
//! may be repeated, so a process that takes over from one that ended begins at the start, and two processes that do it
//! at once do no harm. An entity that cannot be read or does not answer only prevents the final note.

use std::sync::Arc;

use minicbor::Decode;

use crate::attachment::settle;
use crate::codec;
use crate::contact::{self, Aside, Contact, Copied, GoOn};
use crate::conversation::{self, Erase, EraseCopy, Opening};
use crate::id::{ContactId, EntityKey};
use crate::machine::ReadSet;
use crate::memories::{ForgetAll, Subject};
use crate::node::Node;
use crate::store::{KeyRange, SeqRange, StoreError, Table};
use crate::tables::{CHANNELS_ASIDE, FORKS};
use crate::tasks::backoff::retry_transient;
use crate::tasks::retry_command::{RETRY_TIMEOUT, Stopped, retry_command};
use crate::tasks::shared_job::{self, JobHandle};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Erases all remaining data, in a task of its own; a running task repeats all steps once more.
pub fn begin(node: &Arc<Node>, entity: EntityKey) -> JobHandle {
    shared_job::begin(node, entity, "an erasure", run)
}

/// The same, unless a task runs already.
pub(crate) fn resume(node: &Arc<Node>, entity: EntityKey) {
    shared_job::resume(node, entity, "an erasure", run);
}

/// Erases the remaining data of the contacts that were erased at this address. A step that fails does not stop the
/// others.
///
/// # Errors
///
/// The error of the first failed step. The contact's alarm has all steps repeated.
pub async fn run(node: Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    let node = &node;
    let Some(state) = retry_transient(RETRY_TIMEOUT, || node.state::<Contact>(entity)).await? else { return Ok(()) };
    let Some(erasing) = state.erasing else { return Ok(()) };
    let mut left = Failures::default();
    let mut ended = Vec::new();
    for (conversation, theirs) in conversations(node, &state, entity, &mut left).await {
        let step = erase_step(node, conversation, &theirs).await;
        if left.take(conversation, step).flatten().is_some() {
            ended.push((conversation, theirs));
        }
    }
    for (conversation, theirs) in ended {
        left.take(conversation, redact_conversation(node, conversation, &theirs).await);
        left.take(conversation, settle::release(node, conversation).await);
    }
    let subject = Subject::Contact(erasing.id);
    left.take(subject.entity(entity.workspace), forget(node, subject, entity).await);
    left.take(entity, own_log(node, entity, erasing.id).await);
    left.into_result(entity)?;
    match go_on(node, entity, erasing.id, contact::Step::Done).await? {
        None => Ok(()),
        Some(left) => Err(Stopped::by_answer(left)),
    }
}

/// Log lines about failed steps of one run; one more line has their number.
const MAX_LOG_LINES: u64 = 8;

/// The failures of a run.
#[derive(Default)]
struct Failures {
    first: Option<Stopped>,
    count: u64,
}

impl Failures {
    /// The result of a step on an entity; `None`: it failed, which is recorded and logged.
    fn take<T>(&mut self, of: EntityKey, done: Result<T, impl Into<Stopped>>) -> Option<T> {
        let error = match done {
            Ok(done) => return Some(done),
            Err(error) => error.into(),
        };
        self.count += 1;
        if self.count <= MAX_LOG_LINES {
            tracing::warn!(entity = ?of, %error, "part of a contact could not be erased; retrying");
        }
        self.first.get_or_insert(error);
        None
    }

    /// `Ok` without failures; else the first of them.
    fn into_result(self, contact: EntityKey) -> Result<(), Stopped> {
        if self.count > MAX_LOG_LINES {
            tracing::warn!(?contact, parts = self.count, "many parts of a contact could not be erased; retrying");
        }
        self.first.map_or(Ok(()), Err)
    }
}

/// Unreadable events of one step: those that were still emptied, and those that could not be and remain, or have rows
/// that remain.
#[derive(Debug, Default)]
pub(crate) struct ErasureProgress {
    first: Option<(u64, StoreError)>,
    emptied: u64,
    stay: u64,
    stays: Option<u64>,
}

impl ErasureProgress {
    /// Notes an unreadable event. Returns whether it can be rewritten: its bytes were read, though they do not decode.
    /// The store rewrites nothing that it cannot read itself.
    pub(crate) fn note(&mut self, seq: u64, error: StoreError, reads: &ReadSet) -> bool {
        let is_there = reads.event(seq).is_ok();
        self.emptied += u64::from(is_there);
        self.stay += u64::from(!is_there);
        self.stays = self.stays.or(Some(seq).filter(|_| !is_there));
        self.first.get_or_insert((seq, error));
        is_there
    }

    /// Notes an event some of whose rows cannot be read, and remain with it.
    pub(crate) fn keep(&mut self, seq: u64, error: StoreError) {
        self.stay += u64::from(self.stays != Some(seq));
        self.stays = self.stays.or(Some(seq));
        self.first.get_or_insert((seq, error));
    }

    /// The progress of an erasure of the events up to `end` after this step, over the events of `step`: its next event
    /// and the first that remains, which were `before`. `None`: all were handled, and the remaining ones still remain.
    pub(crate) fn moved(
        &self,
        step: SeqRange,
        end: u64,
        before: (Option<u64>, Option<u64>),
    ) -> Option<(Option<u64>, Option<u64>)> {
        let next = Some(step.last + 1).filter(|next| *next <= end);
        match before {
            (Some(_), stay) => Some((next, stay.or(self.stays))),
            (None, _) if self.stays == Some(step.first) => None,
            (None, _) => Some((next, self.stays)),
        }
    }

    /// Logs them, in one line.
    pub(crate) fn tell(&self, entity: EntityKey) {
        let Self { first: Some((seq, error)), emptied, stay, .. } = self else { return };
        tracing::error!(?entity, seq, %error, emptied, stay, "events to be erased cannot be read");
    }
}

/// How a conversation belongs to a contact.
enum Ownership {
    /// It was assigned; with its opening, if it may be unused.
    Assigned(Option<Opening>),
    /// This contact noted it as a copy.
    Copy(ContactId),
}

/// Every conversation of the contacts that were erased at this address, as far as they can be read.
async fn conversations(
    node: &Arc<Node>,
    state: &contact::State,
    entity: EntityKey,
    left: &mut Failures,
) -> Vec<(EntityKey, Ownership)> {
    let mut assigned: Vec<_> = state.erased_conversations(entity).collect();
    for aside in rows::<Aside>(node, entity, CHANNELS_ASIDE, left).await {
        assigned.extend(state.erased_on(entity, &aside.seen_by(state)));
    }
    let assigned = assigned.into_iter().map(|(conversation, unused)| (conversation, Ownership::Assigned(unused)));
    let mut conversations: Vec<_> = assigned.collect();
    conversations.extend(
        copies(node, entity, left)
            .await
            .iter()
            .map(|copy| (EntityKey::conversation(entity.workspace, copy.copy.address), Ownership::Copy(copy.contact))),
    );
    conversations
}

/// The copies of conversations of the contacts that were erased at this address.
async fn copies(node: &Arc<Node>, entity: EntityKey, left: &mut Failures) -> Vec<Copied> {
    let mut copies: Vec<Copied> = rows(node, entity, FORKS, left).await;
    // A contact that began since has copies too; it is in the state, which is read after them.
    let state = retry_transient(RETRY_TIMEOUT, || node.state::<Contact>(entity)).await;
    let Some(state) = left.take(entity, state) else { return Vec::new() };
    copies.retain(|copy| state.as_ref().is_none_or(|state| state.erased_at.is_some() || copy.contact != state.id));
    copies
}

/// A whole table of the contact's, as far as it can be read.
async fn rows<T: for<'b> Decode<'b, ()>>(node: &Node, entity: EntityKey, table: Table, left: &mut Failures) -> Vec<T> {
    let mut all = Vec::new();
    let mut pages = node.pages(entity, table, KeyRange::default(), ROWS_AT_ONCE).patient(RETRY_TIMEOUT);
    while let Some(rows) = left.take(entity, pages.next().await).flatten() {
        all.extend(rows.iter().filter_map(|row| left.take(entity, codec::decode(&row.value))));
    }
    all
}

/// Erases the words of a closed conversation.
async fn redact_conversation(node: &Arc<Node>, entity: EntityKey, theirs: &Ownership) -> Result<(), Stopped> {
    loop {
        match erase_step(node, entity, theirs).await? {
            Some(conversation::Erasure { next: Some(_), .. }) => {}
            left => return nothing_stays(left.and_then(|erasure| erasure.stay)),
        }
    }
}

/// Fails with the first event that remains, if one does.
fn nothing_stays(seq: Option<u64>) -> Result<(), Stopped> {
    seq.map_or(Ok(()), |seq| Err(Stopped::Refused(format!("event {seq} cannot be read and is kept").into())))
}

/// Removes the contact's identity from its own log.
async fn own_log(node: &Arc<Node>, entity: EntityKey, id: ContactId) -> Result<(), Stopped> {
    loop {
        match go_on(node, entity, id, contact::Step::OwnLog).await? {
            Some(contact::Erasing { next: Some(_), .. }) => {}
            left => return nothing_stays(left.and_then(|erasing| erasing.stay)),
        }
    }
}

/// One step in the contact itself; returns the rest. If another erasure has taken over, this one stops: the other one
/// includes its rest, and reports when it is done.
async fn go_on(
    node: &Arc<Node>,
    entity: EntityKey,
    id: ContactId,
    step: contact::Step,
) -> Result<Option<contact::Erasing>, Stopped> {
    match retry_command(node, &node.contacts, entity, GoOn(id, step)).await? {
        Ok(state) => match state.erasing {
            Some(other) if other.id != id => Err(Stopped::Refused("another erasure is in progress".into())),
            erasing => Ok(erasing),
        },
        // Another process has finished it.
        Err(_) => Ok(None),
    }
}

/// Erases some of a conversation's words; the first step closes it. Returns the progress; `None`: it does not exist, or
/// belongs to another contact.
async fn erase_step(
    node: &Arc<Node>,
    entity: EntityKey,
    theirs: &Ownership,
) -> Result<Option<conversation::Erasure>, Stopped> {
    let conversations = &node.conversations;
    let heard = match theirs {
        Ownership::Assigned(unused) => {
            retry_command(node, conversations, entity, Erase { unused: unused.clone() }).await?.map(Some)
        }
        Ownership::Copy(contact) => retry_command(node, conversations, entity, EraseCopy(*contact)).await?,
    };
    match heard {
        Ok(erasure) => Ok(erasure),
        Err(conversation::Rejection::NotFound) => Ok(None),
        Err(other) => Err(Stopped::by_answer(other)),
    }
}

/// Deletes the subject's memories, some at a time, and bars new ones.
async fn forget(node: &Arc<Node>, subject: Subject, contact: EntityKey) -> Result<(), Stopped> {
    let entity = subject.entity(contact.workspace);
    loop {
        let forget = ForgetAll { subject: subject.clone(), for_good: true };
        match retry_command(node, &node.memories, entity, forget).await? {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(rejection) => return Err(Stopped::by_answer(rejection)),
        }
    }
}
